//! `deployment …`

use serde_json::Value;
use serde_json::json;

use super::context::Context;
use super::context::Failure;
use super::context::Outcome;
use super::format::id;
use super::format::quoted;
use super::monitor;
use super::monitor::Monitor;
use super::present::Format;
use super::registry::Run;
use super::resolve;
use super::resolve::Kind;
use super::tables;
use super::view::View;
use super::view::rows;
use crate::client::Client;

/// Lists deployments.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ListDeployments {
    /// Only those that this expression selects.
    #[arg(long, value_name = "expression")]
    filter: Option<String>,
    /// Show full ids.
    #[arg(long)]
    verbose: bool,
    #[command(flatten)]
    format: Format,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for ListDeployments {
    async fn run(self, context: &Context) -> Outcome {
        Context::expect_args(&self.args, 0, "")?;
        let client = context.client().await?;
        let filter = self.filter.unwrap_or_default();
        let query: &[(&str, &str)] = if filter.is_empty() { &[] } else { &[("filter", &filter)] };
        let answer = client.get("/v1/deployments", query).await;
        let list = answer.map_err(|why| format!("Error retrieving deployments: {why}"))?.value;
        if !self.format.print(context.out, &list)? {
            context.out.line(tables::deployments(rows(&list), self.verbose));
        }
        Ok(0)
    }
}

/// Finds a deployment by prefix and reads it.
async fn find(context: &Context, args: &[String], verbose: bool) -> Result<(Client, Value), Failure> {
    Context::expect_args(args, 1, "<deployment id>")?;
    let client = context.client().await?;
    let table = |many: &[Value]| tables::deployments(many, verbose);
    let found = resolve::one(client, Kind::Deployment, &args[0], "Identifier", table).await?;
    let client = client.in_namespace(found.text("Namespace"));
    Ok((client, found))
}

/// Shows deployments, or one.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct DeploymentStatus {
    /// Show full ids, and the allocations.
    #[arg(long)]
    pub verbose: bool,
    /// Follow the deployment to its end.
    #[arg(long)]
    monitor: bool,
    /// How long one look may wait for a change. Default = 2s
    #[arg(long, value_name = "duration")]
    wait: Option<String>,
    #[command(flatten)]
    format: Format,
    #[arg(hide = true)]
    pub args: Vec<String>,
}

impl DeploymentStatus {
    /// Shows the one object that `args` name.
    pub fn of(args: Vec<String>, verbose: bool) -> Self {
        Self { verbose, args, ..Self::default() }
    }
}

impl Run for DeploymentStatus {
    async fn run(self, context: &Context) -> Outcome {
        if self.monitor && self.format.is_asked() {
            return Err("The monitor flag cannot be used with the '-json' or '-t' flags".into());
        }
        if self.args.is_empty() {
            let list =
                ListDeployments { verbose: self.verbose, format: self.format, ..ListDeployments::default() };
            return list.run(context).await;
        }
        let (client, found) = find(context, &self.args, self.verbose).await?;
        if self.monitor {
            let full = found.text("ID");
            context.out.line(format!(
                "{}: Monitoring deployment {}",
                context.stamp(),
                quoted(&id(full, self.verbose))
            ));
            let wait = self.wait.as_deref().unwrap_or("2s");
            Monitor::new(context, &client, self.verbose).deployment(full, Some(wait), "").await?;
            return Ok(0);
        }
        if self.format.print(context.out, &found)? {
            return Ok(0);
        }
        context.out.line(tables::deployment(&found, self.verbose));
        if self.verbose {
            let path = format!("/v1/deployment/allocations/{}", found.text("ID"));
            let allocs = client.get(&path, &[]).await;
            let allocs = allocs.map_err(|why| format!("Error querying deployment allocations: {why}"))?.value;
            context.out.heading("Allocations");
            context.out.line(tables::allocations(rows(&allocs), context.now(), true));
        }
        Ok(0)
    }
}

/// Flags of a command that changes a deployment.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Change {
    /// Do not follow the evaluation.
    #[arg(long)]
    detach: bool,
    /// Show full ids.
    #[arg(long)]
    verbose: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Change {
    async fn follow(&self, context: &Context, client: &Client, answer: &Value) -> Outcome {
        let eval = answer.text("EvalID");
        if eval.is_empty() {
            return Ok(0);
        }
        if self.detach {
            context.out.line(format!("Evaluation ID: {eval}"));
            return Ok(0);
        }
        monitor::follow(context, client, eval, self.verbose).await
    }
}

/// Fails a deployment.
#[derive(clap::Args, Clone, Debug)]
pub struct FailDeployment {
    #[command(flatten)]
    change: Change,
}

impl Run for FailDeployment {
    async fn run(self, context: &Context) -> Outcome {
        let change = self.change;
        let (client, found) = find(context, &change.args, change.verbose).await?;
        let full = found.text("ID");
        let answer =
            client.put(&format!("/v1/deployment/fail/{full}"), &[], &json!({ "DeploymentID": full })).await;
        let answer = answer.map_err(|why| format!("Error failing deployment: {why}"))?.value;
        let reverted = match answer.get("RevertedJobVersion").and_then(Value::as_u64) {
            Some(version) => format!(". Auto-reverted to job version {version}."),
            None => String::new(),
        };
        context.out.line(format!("Deployment {} failed{reverted}\n", quoted(&id(full, change.verbose))));
        change.follow(context, &client, &answer).await
    }
}

/// Promotes canaries.
#[derive(clap::Args, Clone, Debug)]
pub struct PromoteDeployment {
    /// Only this group. May be given several times.
    #[arg(long, value_name = "group", action = clap::ArgAction::Append)]
    group: Vec<String>,
    #[command(flatten)]
    change: Change,
}

impl Run for PromoteDeployment {
    async fn run(self, context: &Context) -> Outcome {
        let (client, found) = find(context, &self.change.args, self.change.verbose).await?;
        let full = found.text("ID");
        let request = json!({ "DeploymentID": full, "All": self.group.is_empty(), "Groups": self.group });
        let answer = client.put(&format!("/v1/deployment/promote/{full}"), &[], &request).await;
        let answer = answer.map_err(|why| format!("Error promoting deployment: {why}"))?.value;
        self.change.follow(context, &client, &answer).await
    }
}

/// Pauses a deployment.
#[derive(clap::Args, Clone, Debug)]
pub struct PauseDeployment {
    #[command(flatten)]
    change: Change,
}

impl Run for PauseDeployment {
    async fn run(self, context: &Context) -> Outcome {
        let change = self.change;
        let (client, found) = find(context, &change.args, change.verbose).await?;
        let full = found.text("ID");
        let request = json!({ "DeploymentID": full, "Pause": true });
        let answer = client.put(&format!("/v1/deployment/pause/{full}"), &[], &request).await;
        answer.map_err(|why| format!("Error pausing deployment: {why}"))?;
        context.out.line(format!("Deployment {} paused", quoted(&id(full, change.verbose))));
        Ok(0)
    }
}

/// Lets a paused deployment go on.
#[derive(clap::Args, Clone, Debug)]
pub struct ResumeDeployment {
    #[command(flatten)]
    change: Change,
}

impl Run for ResumeDeployment {
    async fn run(self, context: &Context) -> Outcome {
        let change = self.change;
        let (client, found) = find(context, &change.args, change.verbose).await?;
        let full = found.text("ID");
        let request = json!({ "DeploymentID": full, "Pause": false });
        let answer = client.put(&format!("/v1/deployment/pause/{full}"), &[], &request).await;
        let answer = answer.map_err(|why| format!("Error resuming deployment: {why}"))?.value;
        context.out.line(format!("Deployment {} resumed\n", quoted(&id(full, change.verbose))));
        change.follow(context, &client, &answer).await
    }
}
