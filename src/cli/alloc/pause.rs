//! `alloc pause`

use serde_json::json;

use super::choose_task;
use super::find;
use crate::cli::context::Context;
use crate::cli::context::Failure;
use crate::cli::context::Outcome;
use crate::cli::registry::Run;
use crate::cli::view::View;

/// Pauses a task, or lets it go on.
#[derive(clap::Args, Clone, Debug)]
pub struct PauseAlloc {
    /// pause, run or scheduled. Default = pause
    #[arg(long, value_name = "state")]
    state: Option<String>,
    /// Show the present state.
    #[arg(long)]
    status: bool,
    /// The task.
    #[arg(long, value_name = "task")]
    task: Option<String>,
    /// Show full ids.
    #[arg(long)]
    verbose: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for PauseAlloc {
    async fn run(self, context: &Context) -> Outcome {
        let (wanted, task) = match self.args.as_slice() {
            [wanted] => (wanted, self.task.as_deref()),
            [wanted, task] => (wanted, self.task.as_deref().or(Some(task))),
            _ => return Err(Failure::usage("This command takes one or two arguments: <alloc-id> <task>")),
        };
        let (client, alloc) = find(context, wanted, self.verbose).await?;
        let task = choose_task(&alloc, task, self.verbose)?;
        let path = format!("/v1/client/allocation/{}/pause", alloc.text("ID"));
        if self.status {
            let answer = client.get(&path, &[("task", &task)]).await;
            let answer = answer.map_err(|why| format!("Error querying pause state: {why}"))?;
            context.out.line(format!("Pause state: {:?}", answer.value.text("State")));
            return Ok(0);
        }
        let state = self.state.as_deref().unwrap_or("pause");
        let sent = client.put(&path, &[], &json!({"Task": task, "ScheduleState": state})).await;
        sent.map_err(|why| format!("Error setting pause state: {why}"))?;
        Ok(0)
    }
}
