//! `job allocs` and `job deployments`

use crate::cli::context::Context;
use crate::cli::context::Outcome;
use crate::cli::present::Format;
use crate::cli::registry::Run;
use crate::cli::resolve;
use crate::cli::resolve::Accept;
use crate::cli::resolve::job_path;
use crate::cli::tables;
use crate::cli::view::View;
use crate::cli::view::rows;

/// Lists the allocations of a job.
#[derive(clap::Args, Clone, Debug)]
pub struct JobAllocs {
    /// Also those of earlier jobs with the same id.
    #[arg(long)]
    all: bool,
    /// Show full ids and absolute times.
    #[arg(long)]
    verbose: bool,
    #[command(flatten)]
    format: Format,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for JobAllocs {
    async fn run(self, context: &Context) -> Outcome {
        Context::expect_args(&self.args, 1, "<job>")?;
        let client = context.client().await?;
        let found = resolve::job(client, &self.args[0], Accept::Any).await?;
        let client = client.in_namespace(&found.namespace);
        let all = self.all.to_string();
        let answer = client.get(&job_path(&found.id, "/allocations"), &[("all", &all)]).await;
        let allocs = answer.map_err(|why| format!("Error retrieving allocations: {why}"))?.value;
        if !self.format.print(context.out, &allocs)? {
            context.out.line(tables::allocations(rows(&allocs), context.now(), self.verbose));
        }
        Ok(0)
    }
}

/// Lists the deployments of a job.
#[derive(clap::Args, Clone, Debug)]
pub struct JobDeployments {
    /// Show the latest one only, in full.
    #[arg(long)]
    latest: bool,
    /// Also those of earlier jobs with the same id.
    #[arg(long)]
    all: bool,
    /// Show full ids.
    #[arg(long)]
    verbose: bool,
    #[command(flatten)]
    format: Format,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for JobDeployments {
    async fn run(self, context: &Context) -> Outcome {
        Context::expect_args(&self.args, 1, "<job>")?;
        let client = context.client().await?;
        let found = resolve::job(client, &self.args[0], Accept::Any).await?;
        let client = client.in_namespace(&found.namespace);
        let failed = |why| format!("Error retrieving deployments: {why}");
        if self.latest {
            let answer = client.get(&job_path(&found.id, "/deployment"), &[]).await.map_err(failed)?;
            if self.format.print(context.out, &answer.value)? {
                return Ok(0);
            }
            let none = answer.value.text("ID").is_empty();
            let text = || tables::deployment(&answer.value, self.verbose);
            context.out.line(if none { "No deployment found".to_owned() } else { text() });
            return Ok(0);
        }
        let all = self.all.to_string();
        let answer =
            client.get(&job_path(&found.id, "/deployments"), &[("all", &all)]).await.map_err(failed)?;
        if !self.format.print(context.out, &answer.value)? {
            context.out.line(tables::deployments(rows(&answer.value), self.verbose));
        }
        Ok(0)
    }
}
