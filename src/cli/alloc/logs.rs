//! `alloc logs`

use serde_json::Value;

use super::Reach;
use super::choose_task;
use super::find;
use super::of_job;
use super::tail::Tail;
use crate::cli::context::Context;
use crate::cli::context::Failure;
use crate::cli::context::Outcome;
use crate::cli::registry::Run;
use crate::cli::view::View;
use crate::client::ClientError;
use crate::client::FrameDecoder;

/// Shows the output of a task.
#[derive(clap::Args, Clone, Debug)]
pub struct AllocLogs {
    /// Show the standard output.
    #[arg(long)]
    stdout: bool,
    /// Show the standard error.
    #[arg(long)]
    stderr: bool,
    /// Go on as the output grows.
    #[arg(long)]
    f: bool,
    /// Show the end only.
    #[arg(long)]
    tail: bool,
    /// With -tail: how many lines.
    #[arg(long, value_name = "lines", allow_negative_numbers = true)]
    n: Option<i64>,
    /// With -tail: how many bytes.
    #[arg(long, value_name = "bytes", allow_negative_numbers = true)]
    c: Option<i64>,
    /// The argument is a job: take one of its running allocations.
    #[arg(long)]
    job: bool,
    /// The task.
    #[arg(long, value_name = "task")]
    task: Option<String>,
    /// Show full ids.
    #[arg(long)]
    verbose: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for AllocLogs {
    async fn run(self, context: &Context) -> Outcome {
        let (wanted, positional) = match self.args.as_slice() {
            [wanted] => (wanted, None),
            [wanted, task] => (wanted, Some(task.clone())),
            [] if self.job => return Err(Failure::usage("A job ID is required")),
            [] => return Err(Failure::usage("An allocation ID is required")),
            _ => return Err(Failure::usage("This command takes one or two arguments")),
        };
        if self.stdout && self.stderr {
            return Err("Unable to support both stdout and stderr".into());
        }
        let (client, alloc) = if self.job {
            of_job(context, wanted).await?
        } else {
            find(context, wanted, self.verbose).await?
        };
        let task = match (&self.task, positional) {
            // The server tells whether there is such a task.
            (None, Some(task)) => task,
            (flag, _) => choose_task(&alloc, flag.as_deref(), self.verbose)
                .map_err(|failure| format!("Failed to validate task: {}", failure.text))?,
        };
        let reach = Reach::of(context, &client, &alloc).await;
        let stream = Stream { context, reach: &reach, alloc: &alloc, task: &task, flags: &self };
        if self.f && !self.stdout && !self.stderr {
            let (out, err) = futures::join!(stream.show("stdout"), stream.show("stderr"));
            out.and(err)?;
            return Ok(0);
        }
        stream.show(if self.stderr { "stderr" } else { "stdout" }).await?;
        Ok(0)
    }
}

/// One task's output.
struct Stream<'a> {
    context: &'a Context,
    reach: &'a Reach,
    alloc: &'a Value,
    task: &'a str,
    flags: &'a AllocLogs,
}

impl Stream<'_> {
    async fn show(&self, kind: &str) -> Result<(), Failure> {
        let failed = |why: String| Failure::from(format!("Failed to read {kind} file: {why}"));
        let tail = Tail::of(self.flags.tail, self.flags.n, self.flags.c).map_err(|why| failed(why.text))?;
        self.copy(kind, tail).await.map_err(|why| failed(format!("error reading file: {why}")))
    }

    /// Copies from where `tail` begins.
    async fn copy(&self, kind: &str, tail: Tail) -> Result<(), ClientError> {
        let path = format!("/v1/client/fs/logs/{}", self.alloc.text("ID"));
        let distance = tail.offset.unwrap_or(0).to_string();
        let origin = if tail.offset.is_some() { "end" } else { "start" };
        let query = |follow: &'static str| {
            [
                ("task", self.task),
                ("type", kind),
                ("follow", follow),
                ("origin", origin),
                ("offset", distance.as_str()),
            ]
            .map(|(name, value)| (name, value.to_owned()))
        };
        let follow = if self.flags.f { "true" } else { "false" };
        let query = query(follow);
        let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut body = self.reach.stream(&path, &query).await?;
        let mut decoder = FrameDecoder::default();
        let mut window = tail.window();
        while let Some(piece) = body.next().await {
            for frame in decoder.push(&piece?)? {
                self.write(kind, &window.take(frame.data, self.flags.f));
            }
        }
        self.write(kind, &window.rest());
        Ok(())
    }

    fn write(&self, kind: &str, bytes: &[u8]) {
        if kind == "stderr" && self.flags.f && !self.flags.stderr {
            self.context.out.raw_error(bytes);
        } else {
            self.context.out.raw(bytes);
        }
    }
}
