//! `job stop`

use serde_json::Value;

use crate::cli::context::Context;
use crate::cli::context::Failure;
use crate::cli::context::Outcome;
use crate::cli::format::quoted;
use crate::cli::monitor;
use crate::cli::registry::Run;
use crate::cli::resolve;
use crate::cli::resolve::Accept;
use crate::cli::resolve::job_path;
use crate::cli::view::View;

/// Stops jobs.
#[derive(clap::Args, Clone, Debug)]
pub struct StopJob {
    /// Do not follow the evaluation.
    #[arg(long)]
    detach: bool,
    /// The priority of the evaluation; the job's where not given.
    #[arg(long, value_name = "priority")]
    eval_priority: Option<i64>,
    /// Stop the job in all its regions.
    #[arg(long)]
    global: bool,
    /// Skip the tasks' shutdown delay.
    #[arg(long)]
    no_shutdown_delay: bool,
    /// Forget the job instead of keeping it as stopped.
    #[arg(long)]
    purge: bool,
    /// Ask nothing.
    #[arg(long)]
    yes: bool,
    /// Show full ids.
    #[arg(long)]
    verbose: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for StopJob {
    async fn run(self, context: &Context) -> Outcome {
        if self.args.is_empty() {
            return Err(Failure::usage("This command takes at least one argument: <job>"));
        }
        if let [one] = self.args.as_slice() {
            return self.stop(context, one, true).await;
        }
        let all = self.args.iter().map(|wanted| self.stop(context, wanted, false));
        let mut worst = 0;
        for outcome in futures::future::join_all(all).await {
            match outcome {
                Ok(code) => worst = worst.max(code),
                Err(failure) => {
                    context.out.error(&failure.text);
                    worst = worst.max(1);
                }
            }
        }
        Ok(worst)
    }
}

impl StopJob {
    async fn stop(&self, context: &Context, wanted: &str, may_ask: bool) -> Outcome {
        let client = context.client().await?;
        let found = resolve::job(client, wanted, Accept::Any).await?;
        let client = client.in_namespace(&found.namespace);
        if may_ask && !found.exact && !self.yes {
            let question = format!("Are you sure you want to stop job {}? [y/N]", quoted(&found.id));
            if let Some(code) = confirm(context, &question, "Cancelling job stop")? {
                return Ok(code);
            }
        }
        let priority = self.eval_priority.unwrap_or(0).to_string();
        let query = [
            ("purge", if self.purge { "true" } else { "false" }),
            ("global", if self.global { "true" } else { "false" }),
            ("eval_priority", priority.as_str()),
            ("no_shutdown_delay", if self.no_shutdown_delay { "true" } else { "false" }),
        ];
        let answer = client.delete(&job_path(&found.id, ""), &query).await;
        let answer: Value =
            answer.map_err(|why| format!("Error deregistering job with id {} err: {why}", found.id))?.value;
        let eval = answer.text("EvalID");
        if eval.is_empty() {
            return Ok(0);
        }
        if self.detach {
            context.out.line(eval);
            return Ok(0);
        }
        monitor::follow(context, &client, eval, self.verbose).await
    }
}

/// Asks; `None` to go on, else the exit code.
///
/// # Errors
/// When there is no answer to be had.
pub fn confirm(context: &Context, question: &str, cancelled: &str) -> Result<Option<u8>, Failure> {
    let answer = context.out.ask(question)?;
    if answer.is_empty() || answer.to_lowercase().starts_with('n') {
        context.out.line(cancelled);
        return Ok(Some(0));
    }
    if answer == "y" {
        return Ok(None);
    }
    if answer.to_lowercase().starts_with('y') {
        context.out.line("For confirmation, an exact ‘y’ is required.");
        return Ok(Some(0));
    }
    context.out.line("No confirmation detected. For confirmation, an exact 'y' is required.");
    Ok(Some(1))
}
