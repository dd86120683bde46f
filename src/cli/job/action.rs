//! `job action`

use crate::cli::alloc;
use crate::cli::context::Context;
use crate::cli::context::Failure;
use crate::cli::context::Outcome;
use crate::cli::registry::Run;
use crate::cli::remote;
use crate::cli::remote::Interactive;
use crate::cli::resolve;
use crate::cli::resolve::Accept;
use crate::cli::resolve::job_path;
use crate::cli::view::View;
use crate::cli::view::rows;

/// Runs a command that the job file has prepared.
#[derive(clap::Args, Clone, Debug)]
pub struct JobAction {
    /// The job.
    #[arg(long, value_name = "job")]
    job: Option<String>,
    /// The allocation. Default = a running one of the group
    #[arg(long, value_name = "allocation")]
    alloc: Option<String>,
    /// The task.
    #[arg(long, value_name = "task")]
    task: Option<String>,
    /// The group from which an allocation is taken.
    #[arg(long, value_name = "group")]
    group: Option<String>,
    #[command(flatten)]
    interactive: Interactive,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for JobAction {
    async fn run(self, context: &Context) -> Outcome {
        let [action] = self.args.as_slice() else {
            return Err(Failure::usage("This command takes one argument: <action>"));
        };
        let Some(wanted) = self.job.as_deref().filter(|job| !job.is_empty()) else {
            return Err(Failure::usage("A job ID is required"));
        };
        let mode = self.interactive.mode()?;
        let client = context.client().await?;
        let job = resolve::job(client, wanted, Accept::Any).await?;
        let client = client.in_namespace(&job.namespace);
        let alloc = match (&self.alloc, &self.group) {
            (Some(alloc), _) => alloc::find(context, alloc, false).await?.1,
            (None, None) => {
                return Err(Failure::usage("A group name is required if no allocation is provided"));
            }
            (None, Some(group)) => {
                let list = client.get(&job_path(&job.id, "/allocations"), &[]).await;
                let list = list.map_err(|why| format!("Error fetching allocations: {why}"))?.value;
                let running = rows(&list).iter().filter(|alloc| {
                    alloc.text("TaskGroup") == group && alloc.text("ClientStatus") == "running"
                });
                let newest = running.max_by_key(|alloc| alloc.int("CreateIndex"));
                let newest = newest.ok_or_else(|| format!("no running allocation of group {group} found"))?;
                alloc::read(&client, newest.text("ID")).await?
            }
        };
        let task = alloc::choose_task(&alloc, self.task.as_deref(), false)?;
        let tty = mode.tty.to_string();
        let query = [
            ("action", action.as_str()),
            ("allocID", alloc.text("ID")),
            ("task", task.as_str()),
            ("group", alloc.text("TaskGroup")),
            ("tty", tty.as_str()),
        ];
        let socket = client.socket(&job_path(&job.id, "/action"), &query).await;
        let socket = socket.map_err(|why| format!("failed to exec into task: {why}"))?;
        remote::converse(context.out, socket, mode).await
    }
}
