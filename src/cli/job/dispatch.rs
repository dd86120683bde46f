//! `job dispatch`

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::cli::context::Context;
use crate::cli::context::Failure;
use crate::cli::context::Outcome;
use crate::cli::format::id;
use crate::cli::format::quoted;
use crate::cli::monitor;
use crate::cli::output::Pairs;
use crate::cli::registry::Run;
use crate::cli::resolve;
use crate::cli::resolve::Accept;
use crate::cli::resolve::job_path;
use crate::cli::view::View;

/// Starts an instance of a parameterized job.
#[derive(clap::Args, Clone, Debug)]
pub struct DispatchJob {
    /// A value that the job asks for, 'name=value'. May be given several times.
    #[arg(long, value_name = "name=value", action = clap::ArgAction::Append)]
    meta: Vec<String>,
    /// Do not follow the evaluation.
    #[arg(long)]
    detach: bool,
    /// Dispatch at most once for each such token.
    #[arg(long, value_name = "token")]
    idempotency_token: Option<String>,
    /// Becomes a part of the id of the instance.
    #[arg(long, value_name = "template")]
    id_prefix_template: Option<String>,
    /// Show full ids.
    #[arg(long)]
    verbose: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for DispatchJob {
    async fn run(self, context: &Context) -> Outcome {
        let (wanted, input) = match self.args.as_slice() {
            [job] => (job, None),
            [job, input] => (job, Some(input)),
            _ => {
                return Err(Failure::usage(
                    "This command takes one or two argument: <parameterized job> [input source]",
                ));
            }
        };
        let payload = match input.map(String::as_str) {
            None => Vec::new(),
            Some("-") => {
                context.out.read_stdin().map_err(|why| format!("Error reading input data: {why}"))?
            }
            Some(path) => {
                std::fs::read(path).map_err(|why| format!("Error reading input data: {path}: {why}"))?
            }
        };
        let mut meta = BTreeMap::new();
        for pair in &self.meta {
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                Failure::from(format!("Error parsing meta value: {}: write 'name=value'", quoted(pair)))
            })?;
            meta.insert(name, value);
        }
        let client = context.client().await?;
        let found = resolve::job(client, wanted, Accept::Parameterized).await?;
        let client = client.in_namespace(&found.namespace);
        let mut request = json!({ "JobID": found.id, "Meta": meta });
        if !payload.is_empty() {
            request["Payload"] = STANDARD.encode(&payload).into();
        }
        if let Some(template) = &self.id_prefix_template {
            request["IdPrefixTemplate"] = template.as_str().into();
        }
        let token = self.idempotency_token.unwrap_or_default();
        let query: &[(&str, &str)] = if token.is_empty() { &[] } else { &[("idempotency_token", &token)] };
        let answer = client.put(&job_path(&found.id, "/dispatch"), query, &request).await;
        let answer = answer.map_err(|why| format!("Failed to dispatch job: {why}"))?.value;
        let eval = answer.text("EvalID");
        let mut pairs = Pairs::new();
        pairs.add("Dispatched Job ID", answer.text("DispatchedJobID"));
        if !eval.is_empty() {
            pairs.add("Evaluation ID", id(eval, self.verbose));
        }
        context.out.line(pairs.render());
        if self.detach || eval.is_empty() {
            return Ok(0);
        }
        context.out.line("");
        monitor::follow(context, &client, eval, self.verbose).await
    }
}
