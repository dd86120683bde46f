//! `node drain`

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use super::find;
use crate::cli::context::Context;
use crate::cli::context::Failure;
use crate::cli::context::Outcome;
use crate::cli::format::quoted;
use crate::cli::job::stop::confirm;
use crate::cli::registry::Run;
use crate::cli::view::View;
use crate::cli::view::rows;
use crate::client::Client;
use crate::model::time::Span;

/// How long a drain may take unless told otherwise.
const DEADLINE: Span = Span::from_secs(3600);
/// Between two looks at the node.
const POLL: Duration = Duration::from_millis(500);

/// Moves all work off a node, or lets it come back.
#[derive(clap::Args, Clone, Debug)]
pub struct NodeDrain {
    /// Drain the node.
    #[arg(long)]
    enable: bool,
    /// End the drain.
    #[arg(long)]
    disable: bool,
    /// After this time what is left is stopped. Default = 1h
    #[arg(long, value_name = "duration")]
    deadline: Option<String>,
    /// Stop everything at once.
    #[arg(long)]
    force: bool,
    /// Wait for as long as it takes.
    #[arg(long)]
    no_deadline: bool,
    /// Leave system jobs where they are.
    #[arg(long)]
    ignore_system: bool,
    /// With -disable: the node gets no new work all the same.
    #[arg(long)]
    keep_ineligible: bool,
    /// Do not follow the drain.
    #[arg(long)]
    detach: bool,
    /// Follow a drain that goes on already.
    #[arg(long)]
    monitor: bool,
    /// The node of the agent that is asked.
    #[arg(long = "self")]
    own: bool,
    /// Ask nothing.
    #[arg(long)]
    yes: bool,
    /// A message to keep with the drain.
    #[arg(long, value_name = "text")]
    m: Option<String>,
    /// A value to keep with the drain, 'name=value'. May be given several times.
    #[arg(long, value_name = "name=value", action = clap::ArgAction::Append)]
    meta: Vec<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for NodeDrain {
    async fn run(self, context: &Context) -> Outcome {
        if !self.monitor && self.enable == self.disable {
            return Err(Failure::usage(
                "Either the '-enable' or '-disable' flag must be set, unless using '-monitor'",
            ));
        }
        let deadline = self.deadline()?;
        let (node, exact) = find(context, &self.args, self.own, false).await?;
        let client = context.client().await?;
        let id = node.text("ID");
        if self.monitor {
            if node.field("DrainStrategy").is_null() {
                context.out.warn("No drain strategy set");
                return Ok(0);
            }
            let stamp = context.stamp();
            context.out.line(format!("{stamp}: Monitoring node {}: Ctrl-C to detach monitoring", quoted(id)));
            return self.follow(context, client, id).await;
        }
        if !exact && !self.yes {
            let word = if self.enable { "enable" } else { "disable" };
            let question =
                format!("Are you sure you want to {word} drain mode for node {}? [y/N]", quoted(id));
            if let Some(code) = confirm(context, &question, "Canceling drain toggle")? {
                return Ok(code);
            }
        }
        let spec = if self.enable {
            json!({ "Deadline": deadline.0, "IgnoreSystemJobs": self.ignore_system })
        } else {
            Value::Null
        };
        let request = json!({
            "NodeID": id, "DrainSpec": spec, "MarkEligible": self.disable && !self.keep_ineligible,
            "Meta": self.drain_meta()?,
        });
        let sent = client.put(&format!("/v1/node/{id}/drain"), &[], &request).await;
        sent.map_err(|why| format!("Error updating drain specification: {why}"))?;
        if self.disable || self.detach {
            let word = if self.enable { "set" } else { "unset" };
            context.out.line(format!("Node {} drain strategy {word}", quoted(id)));
            return Ok(0);
        }
        let stamp = context.stamp();
        context.out.line(format!("{stamp}: Ctrl-C to stop monitoring: will not cancel the node drain"));
        context.out.line(format!("{stamp}: Node {} drain strategy set", quoted(id)));
        self.follow(context, client, id).await
    }
}

impl NodeDrain {
    fn deadline(&self) -> Result<Span, Failure> {
        let given =
            usize::from(self.deadline.is_some()) + usize::from(self.force) + usize::from(self.no_deadline);
        if given > 1 {
            return Err("-deadline, -force and -no-deadline cannot be used together".into());
        }
        match &self.deadline {
            _ if self.force => Ok(Span(-1)),
            _ if self.no_deadline => Ok(Span(0)),
            None => Ok(DEADLINE),
            Some(text) => {
                let span =
                    Span::parse(text).map_err(|why| format!("Failed to parse deadline {text:?}: {why}"))?;
                if span.0 <= 0 { Err("A positive drain duration must be given".into()) } else { Ok(span) }
            }
        }
    }

    fn drain_meta(&self) -> Result<BTreeMap<String, String>, Failure> {
        let mut meta = BTreeMap::new();
        for pair in &self.meta {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| Failure::from(format!("Error parsing meta value: {pair:?}")))?;
            meta.insert(name.to_owned(), value.to_owned());
        }
        if let Some(message) = &self.m {
            let name = if self.enable { "message" } else { "cancel_message" };
            meta.insert(name.to_owned(), message.clone());
        }
        Ok(meta)
    }

    /// Prints what happens until the drain is over and nothing runs on the node any more.
    async fn follow(&self, context: &Context, client: &Client, id: &str) -> Outcome {
        let say = |text: String| context.out.line(format!("{}: {text}", context.stamp()));
        let mut seen: BTreeMap<String, (String, String)> = BTreeMap::new();
        let mut drained = false;
        loop {
            let node = client.get(&format!("/v1/node/{id}"), &[]).await;
            let allocs = client.get(&format!("/v1/node/{id}/allocations"), &[]).await;
            let (node, allocs) = match (node, allocs) {
                (Ok(node), Ok(allocs)) => (node.value, allocs.value),
                (Err(why), _) | (_, Err(why)) => {
                    say(format!("Error monitoring node: {why}"));
                    return Ok(0);
                }
            };
            if node.text("Status") == "down" && !drained {
                say(format!("Node {} down", quoted(id)));
            }
            let mut running = 0;
            for alloc in rows(&allocs) {
                let (desired, client_status) = (alloc.text("DesiredStatus"), alloc.text("ClientStatus"));
                if matches!(client_status, "pending" | "running") && counts(alloc, self.ignore_system) {
                    running += 1;
                }
                show_alloc(&say, &mut seen, alloc.text("ID"), desired, client_status);
            }
            if node.field("DrainStrategy").is_null() && !drained {
                say(format!("Drain complete for node {id}"));
                drained = true;
            }
            if drained && running == 0 {
                say(format!("All allocations on node {} have stopped", quoted(id)));
                return Ok(0);
            }
            if drained && node.text("SchedulingEligibility") == "eligible" {
                // Somebody ended the drain: what runs there may stay.
                return Ok(0);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn counts(alloc: &Value, ignore_system: bool) -> bool {
    let kind = alloc.field("Job").text("Type");
    !(ignore_system && matches!(kind, "system" | "sysbatch"))
}

fn show_alloc(
    say: &impl Fn(String),
    seen: &mut BTreeMap<String, (String, String)>,
    id: &str,
    desired: &str,
    status: &str,
) {
    let now = (desired.to_owned(), status.to_owned());
    let Some((old_desired, old_status)) = seen.insert(id.to_owned(), now) else { return };
    if old_desired == "run" && desired != "run" {
        say(format!("Alloc {} marked for migration", quoted(id)));
        if status == "running" {
            say(format!("Alloc {} draining", quoted(id)));
        }
    }
    if old_status != status {
        say(format!("Alloc {} status {old_status} -> {status}", quoted(id)));
    }
}
