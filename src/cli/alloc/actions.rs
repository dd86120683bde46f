//! `alloc stop`, `alloc restart`, `alloc signal`

use serde_json::json;

use super::choose_task;
use super::find;
use crate::cli::context::Context;
use crate::cli::context::Failure;
use crate::cli::context::Outcome;
use crate::cli::monitor;
use crate::cli::registry::Run;
use crate::cli::view::View;

/// Stops an allocation; a replacement is started elsewhere.
#[derive(clap::Args, Clone, Debug)]
pub struct StopAlloc {
    /// Do not follow the evaluation.
    #[arg(long)]
    detach: bool,
    /// Skip the tasks' shutdown delay.
    #[arg(long)]
    no_shutdown_delay: bool,
    /// Show full ids.
    #[arg(long)]
    verbose: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for StopAlloc {
    async fn run(self, context: &Context) -> Outcome {
        Context::expect_args(&self.args, 1, "<alloc-id>")?;
        let (client, alloc) = find(context, &self.args[0], self.verbose).await?;
        let path = format!("/v1/allocation/{}/stop", alloc.text("ID"));
        let skip = self.no_shutdown_delay.to_string();
        let query: &[(&str, &str)] =
            if self.no_shutdown_delay { &[("no_shutdown_delay", &skip)] } else { &[] };
        let answer = client.put(&path, query, &json!({})).await;
        let answer = answer.map_err(|why| format!("Error stopping allocation: {why}"))?.value;
        let eval = answer.text("EvalID");
        if self.detach {
            context.out.line(eval);
            return Ok(0);
        }
        monitor::follow(context, &client, eval, self.verbose).await
    }
}

/// Restarts the tasks of an allocation.
#[derive(clap::Args, Clone, Debug)]
pub struct RestartAlloc {
    /// Also tasks that have ended.
    #[arg(long)]
    all_tasks: bool,
    /// Only this task.
    #[arg(long, value_name = "task")]
    task: Option<String>,
    /// Show full ids.
    #[arg(long)]
    verbose: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for RestartAlloc {
    async fn run(self, context: &Context) -> Outcome {
        let task = task_argument(&self.args, self.task.as_deref())?;
        if self.all_tasks && task.is_some() {
            return Err("The -all-tasks option is not allowed when restarting a specific task.".into());
        }
        let (client, alloc) = find(context, &self.args[0], self.verbose).await?;
        if let Some(task) = &task {
            choose_task(&alloc, Some(task), self.verbose)?;
        }
        let what = if task.is_some() { "task" } else { "allocation" };
        let path = format!("/v1/client/allocation/{}/restart", alloc.text("ID"));
        let request = json!({ "TaskName": task.unwrap_or_default(), "AllTasks": self.all_tasks });
        let sent = client.put(&path, &[], &request).await;
        sent.map_err(|why| format!("Failed to restart {what}:\n\n{why}"))?;
        Ok(0)
    }
}

/// Sends a signal to the tasks of an allocation.
#[derive(clap::Args, Clone, Debug)]
pub struct SignalAlloc {
    /// The signal. Default = SIGKILL
    #[arg(long = "s", value_name = "signal")]
    signal: Option<String>,
    /// Only this task.
    #[arg(long, value_name = "task")]
    task: Option<String>,
    /// Show full ids.
    #[arg(long)]
    verbose: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for SignalAlloc {
    async fn run(self, context: &Context) -> Outcome {
        let task = task_argument(&self.args, self.task.as_deref())?;
        let (client, alloc) = find(context, &self.args[0], self.verbose).await?;
        if let Some(task) = &task {
            choose_task(&alloc, Some(task), self.verbose)?;
        }
        let path = format!("/v1/client/allocation/{}/signal", alloc.text("ID"));
        let signal = self.signal.unwrap_or_else(|| "SIGKILL".to_owned());
        let request = json!({ "Task": task.unwrap_or_default(), "Signal": signal });
        let sent = client.put(&path, &[], &request).await;
        sent.map_err(|why| format!("Error signalling allocation: {why}"))?;
        Ok(0)
    }
}

/// The task of the flag or of the second argument.
fn task_argument(args: &[String], flag: Option<&str>) -> Result<Option<String>, Failure> {
    match args {
        [_] => Ok(flag.map(str::to_owned)),
        [_, task] => Ok(Some(flag.unwrap_or(task).to_owned())),
        _ => Err(Failure::usage("This command takes one or two arguments: <alloc-id> <task>")),
    }
}
