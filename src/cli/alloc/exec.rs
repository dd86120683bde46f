//! `alloc exec`

use super::Reach;
use super::choose_task;
use super::find;
use super::of_job;
use crate::cli::context::Context;
use crate::cli::context::Failure;
use crate::cli::context::Outcome;
use crate::cli::registry::Run;
use crate::cli::remote;
use crate::cli::remote::Interactive;
use crate::cli::view::View;

/// Runs a command in a task.
#[derive(clap::Args, Clone, Debug)]
pub struct AllocExec {
    /// The task.
    #[arg(long, value_name = "task")]
    task: Option<String>,
    /// The first argument is a job: take one of its running allocations.
    #[arg(long)]
    job: bool,
    #[command(flatten)]
    interactive: Interactive,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for AllocExec {
    async fn run(self, context: &Context) -> Outcome {
        let (wanted, command) = match self.args.as_slice() {
            [] if self.job => return Err(Failure::usage("A job ID is required")),
            [] => return Err(Failure::usage("An allocation ID is required")),
            [_] => return Err(Failure::usage("A command is required")),
            [wanted, command @ ..] => (wanted, command),
        };
        let mode = self.interactive.mode()?;
        let (client, alloc) =
            if self.job { of_job(context, wanted).await? } else { find(context, wanted, false).await? };
        let task = choose_task(&alloc, self.task.as_deref(), false)?;
        let command = serde_json::to_string(command).map_err(|why| why.to_string())?;
        let path = format!("/v1/client/allocation/{}/exec", alloc.text("ID"));
        let tty = mode.tty.to_string();
        let query = [("task", task.as_str()), ("tty", tty.as_str()), ("command", command.as_str())];
        let socket = Reach::of(context, &client, &alloc).await.socket(&path, &query).await;
        let socket = socket.map_err(|why| format!("failed to exec into task: {why}"))?;
        remote::converse(context.out, socket, mode).await
    }
}
