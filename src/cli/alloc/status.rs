//! `alloc status`

use serde_json::Value;

use super::resources;
use crate::cli::context::Context;
use crate::cli::context::Failure;
use crate::cli::context::Outcome;
use crate::cli::format;
use crate::cli::format::id;
use crate::cli::format::quoted;
use crate::cli::metrics;
use crate::cli::output::Pairs;
use crate::cli::output::Style;
use crate::cli::output::Table;
use crate::cli::present::Format;
use crate::cli::registry::Run;
use crate::cli::resolve;
use crate::cli::resolve::Kind;
use crate::cli::resolve::Matched;
use crate::cli::tables;
use crate::cli::view::View;
use crate::cli::view::rows;
use crate::client::Client;
use crate::model::time::Span;

/// Shows an allocation.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct AllocStatus {
    /// Only the most important.
    #[arg(long)]
    short: bool,
    /// Show detailed resource statistics.
    #[arg(long)]
    stats: bool,
    /// Show full ids, absolute times and the scores of the placement.
    #[arg(long)]
    pub verbose: bool,
    #[command(flatten)]
    format: Format,
    #[arg(hide = true)]
    pub args: Vec<String>,
}

impl AllocStatus {
    /// Shows the one object that `args` name.
    pub fn of(args: Vec<String>, verbose: bool) -> Self {
        Self { verbose, args, ..Self::default() }
    }
}

impl Run for AllocStatus {
    async fn run(self, context: &Context) -> Outcome {
        let client = context.client().await?;
        if self.args.is_empty() && self.format.is_asked() {
            let answer = client.get("/v1/allocations", &[]).await;
            let list = answer.map_err(|why| format!("Error querying allocations: {why}"))?.value;
            self.format.print(context.out, &list)?;
            return Ok(0);
        }
        let [wanted] = self.args.as_slice() else {
            return Err(Failure::usage(
                "This command takes one of the following argument conditions:\n * A single <allocation>\n \
                 * No arguments, with output format specified",
            ));
        };
        let stub = match resolve::search(client, Kind::Allocation, wanted, "Identifier").await? {
            Matched::One(stub) => stub,
            Matched::Many(many) => {
                // Nomad counts this as an answer, not as an error.
                let table = tables::allocations(&many, context.now(), self.verbose);
                context.out.line(resolve::ambiguous(Kind::Allocation, &table));
                return Ok(0);
            }
        };
        let client = client.in_namespace(stub.text("Namespace"));
        let alloc = super::read(&client, stub.text("ID")).await?;
        if self.format.print(context.out, &alloc)? {
            return Ok(0);
        }
        self.show(context, &client, &alloc).await
    }
}

impl AllocStatus {
    async fn show(&self, context: &Context, client: &Client, alloc: &Value) -> Outcome {
        let out = context.out;
        if self.short {
            out.line(self.short_block(context, alloc));
            out.heading("Tasks");
            out.line(short_tasks(alloc));
            return Ok(0);
        }
        out.line(self.block(context, alloc));
        if let Some((mode, table)) = addresses(alloc) {
            out.line(format!("\nAllocation Addresses{mode}:\n{table}"));
        }
        let (usage, problem) = self.usage(client, alloc).await;
        if let Some(checks) = checks(client, alloc).await {
            out.line(format!("\nNomad Service Checks:\n{checks}"));
        }
        for name in task_order(alloc) {
            self.task(context, alloc, &name, &usage);
        }
        if let Some(problem) = problem {
            out.line("");
            out.error(problem);
        }
        if self.verbose {
            out.heading("Placement Metrics");
            for line in metrics::lines(alloc.field("Metrics"), true, "  ") {
                out.line(line);
            }
        }
        Ok(0)
    }

    fn block(&self, context: &Context, alloc: &Value) -> String {
        let now = context.now();
        let mut pairs = Pairs::new();
        pairs.add("ID", alloc.text("ID"));
        pairs.add("Eval ID", id(alloc.text("EvalID"), self.verbose));
        pairs.add("Name", alloc.text("Name"));
        pairs.add("Node ID", id(alloc.text("NodeID"), self.verbose));
        pairs.add("Node Name", alloc.text("NodeName"));
        pairs.add("Job ID", alloc.text("JobID"));
        pairs.add("Job Version", tables::version_of(alloc).to_string());
        pairs.add("Client Status", alloc.text("ClientStatus"));
        pairs.add("Client Description", alloc.text("ClientDescription"));
        pairs.add("Desired Status", alloc.text("DesiredStatus"));
        pairs.add("Desired Description", alloc.text("DesiredDescription"));
        pairs.add("Created", format::when(alloc.int("CreateTime"), now, self.verbose));
        pairs.add("Modified", format::when(alloc.int("ModifyTime"), now, self.verbose));
        if !alloc.text("DeploymentID").is_empty() {
            let status = alloc.field("DeploymentStatus");
            let health = match status.get("Healthy").and_then(Value::as_bool) {
                Some(true) => "healthy",
                Some(false) => "unhealthy",
                None => "unset",
            };
            pairs.add("Deployment ID", id(alloc.text("DeploymentID"), self.verbose));
            pairs.add("Deployment Health", health);
            if status.flag("Canary") {
                pairs.add("Canary", "true");
            }
        }
        if let Some(attempts) = reschedule_attempts(alloc) {
            pairs.add("Reschedule Attempts", attempts);
        }
        if !alloc.text("NextAllocation").is_empty() {
            pairs.add("Replacement Alloc ID", id(alloc.text("NextAllocation"), self.verbose));
        }
        if self.verbose {
            let metric = alloc.field("Metrics");
            for (key, field) in [
                ("Evaluated Nodes", "NodesEvaluated"),
                ("Filtered Nodes", "NodesFiltered"),
                ("Exhausted Nodes", "NodesExhausted"),
            ] {
                pairs.add(key, metric.int(field).to_string());
            }
            pairs.add("Allocation Time", Span(metric.int("AllocationTime")).to_string());
            pairs.add("Failures", metric.int("CoalescedFailures").to_string());
        }
        pairs.render()
    }

    fn short_block(&self, context: &Context, alloc: &Value) -> String {
        let mut pairs = Pairs::new();
        pairs.add("ID", alloc.text("ID"));
        pairs.add("Name", alloc.text("Name"));
        pairs.add("Created", format::when(alloc.int("CreateTime"), context.now(), self.verbose));
        pairs.add("Modified", format::when(alloc.int("ModifyTime"), context.now(), self.verbose));
        pairs.render()
    }

    /// The statistics, and what to say when there are none.
    async fn usage(&self, client: &Client, alloc: &Value) -> (Value, Option<String>) {
        if alloc.text("ClientStatus") != "running" {
            return (Value::Null, None);
        }
        match client.get(&format!("/v1/client/allocation/{}/stats", alloc.text("ID")), &[]).await {
            Ok(answer) => (answer.value, None),
            Err(why) => {
                let node = client.get(&format!("/v1/node/{}", alloc.text("NodeID")), &[]).await;
                let down = node.is_ok_and(|answer| answer.value.text("Status") == "down");
                let text = if down {
                    "Omitting resource statistics since the node is down.".to_owned()
                } else {
                    format!("Couldn't retrieve stats: {why}")
                };
                (Value::Null, Some(text))
            }
        }
    }

    fn task(&self, context: &Context, alloc: &Value, name: &str, usage: &Value) {
        let out = context.out;
        let state = alloc.field("TaskStates").field(name);
        let word = if state.text("State").is_empty() { "pending" } else { state.text("State") };
        let hook = lifecycle(alloc, name);
        let hook = if hook.is_empty() { String::new() } else { format!(" ({hook})") };
        let heading = format!("Task {}{hook} is {}", quoted(name), quoted(word));
        out.line(format!("\n{}", out.paint(Style::Bold, &heading)));
        let used = usage.field("Tasks").field(name);
        out.line("Task Resources:");
        out.line(resources::task(alloc, name, used));
        if self.stats {
            for (title, table) in resources::stats(used) {
                out.line(format!("\n{title}\n{table}"));
            }
        }
        out.line("");
        let volumes = host_volumes(alloc, name);
        if let Some(volumes) = volumes {
            out.line(format!("Host Volumes:\n{volumes}\n"));
        }
        let mut pairs = Pairs::new();
        pairs.add("Started At", format::task_time(state.field("StartedAt")));
        pairs.add("Finished At", format::task_time(state.field("FinishedAt")));
        pairs.add("Total Restarts", state.int("Restarts").to_string());
        pairs.add("Last Restart", format::task_time(state.field("LastRestart")));
        out.line(format!("Task Events:\n{}\n", pairs.render()));
        let mut table = Table::new(&["Time", "Type", "Description"]);
        for event in state.list("Events").iter().rev() {
            table.row([format::nanos(event.int("Time")), event.text("Type").to_owned(), describe(event)]);
        }
        out.line(format!("Recent Events:\n{}", table.render()));
    }
}

/// The event in one line.
fn describe(event: &Value) -> String {
    event.text("DisplayMessage").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn addresses(alloc: &Value) -> Option<(String, String)> {
    let shared = alloc.field("AllocatedResources").field("Shared");
    let mut table = Table::new(&["Label", "Dynamic", "Address"]);
    for port in shared.list("Ports") {
        let to = port.int("To");
        let to = if to > 0 { format!(" -> {to}") } else { String::new() };
        let host = port.text("HostIP");
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        table.row([
            format!("*{}", port.text("Label")),
            "yes".to_owned(),
            format!("{host}:{}{to}", port.int("Value")),
        ]);
    }
    let mode = shared.list("Networks").first().map(|network| network.text("Mode")).unwrap_or_default();
    let mode = if mode.is_empty() { String::new() } else { format!(" (mode = {})", quoted(mode)) };
    (!table.is_empty()).then(|| (mode, table.render()))
}

/// The checks of services that Herder itself runs.
async fn checks(client: &Client, alloc: &Value) -> Option<String> {
    let uses_checks =
        |service: &Value| service.text("Provider") == "nomad" && !service.list("Checks").is_empty();
    let group = group_of(alloc);
    let any = group.list("Services").iter().any(uses_checks)
        || group.list("Tasks").iter().any(|task| task.list("Services").iter().any(uses_checks));
    if !any {
        return None;
    }
    let path = format!("/v1/client/allocation/{}/checks", alloc.text("ID"));
    let answer = client.get(&path, &[]).await.ok()?.value;
    let mut table = Table::new(&["Service", "Task", "Name", "Mode", "Status"]);
    let mut found: Vec<&Value> = answer.as_object()?.values().collect();
    found.sort_by_key(|check| (check.text("Service"), check.text("Check")));
    for check in found {
        let task = if check.text("Task").is_empty() { "(group)" } else { check.text("Task") };
        table.row([
            check.text("Service"),
            task,
            check.text("Check"),
            check.text("Mode"),
            check.text("Status"),
        ]);
    }
    (!table.is_empty()).then(|| table.render())
}

fn group_of(alloc: &Value) -> &Value {
    let wanted = alloc.text("TaskGroup");
    let groups = alloc.field("Job").list("TaskGroups");
    groups.iter().find(|group| group.text("Name") == wanted).unwrap_or(&Value::Null)
}

fn task_of<'a>(alloc: &'a Value, name: &str) -> &'a Value {
    group_of(alloc).list("Tasks").iter().find(|task| task.text("Name") == name).unwrap_or(&Value::Null)
}

/// `prestart sidecar` and the like; empty for a main task.
fn lifecycle(alloc: &Value, name: &str) -> String {
    let lifecycle = task_of(alloc, name).field("Lifecycle");
    let sidecar = if lifecycle.flag("Sidecar") { " sidecar" } else { "" };
    let hook = lifecycle.text("Hook");
    if hook.is_empty() { String::new() } else { format!("{hook}{sidecar}") }
}

/// Lifecycle tasks first, then sidecars, main tasks last; each in alphabetical order.
fn task_order(alloc: &Value) -> Vec<String> {
    let mut names: Vec<String> = alloc
        .field("AllocatedResources")
        .entries("Tasks")
        .into_iter()
        .map(|(name, _)| name.to_owned())
        .collect();
    if names.is_empty() {
        names = alloc.entries("TaskStates").into_iter().map(|(name, _)| name.to_owned()).collect();
    }
    let rank = |name: &String| {
        let hook = lifecycle(alloc, name);
        if hook.is_empty() { 2 } else { u8::from(hook.ends_with("sidecar")) }
    };
    names.sort_by_key(|name| (rank(name), name.clone()));
    names
}

fn short_tasks(alloc: &Value) -> String {
    let mut table = Table::new(&["Name", "State", "Last Event", "Time", "Lifecycle"]);
    for name in task_order(alloc) {
        let state = alloc.field("TaskStates").field(&name);
        let last = state.list("Events").last();
        let hook = task_of(alloc, &name).field("Lifecycle").text("Hook").to_owned();
        table.row([
            name.clone(),
            state.text("State").to_owned(),
            last.map(|event| event.text("Type").to_owned()).unwrap_or_default(),
            last.map(|event| format::nanos(event.int("Time"))).unwrap_or_default(),
            if hook.is_empty() { "main".to_owned() } else { hook },
        ]);
    }
    table.render()
}

fn host_volumes(alloc: &Value, name: &str) -> Option<String> {
    let volumes = group_of(alloc).field("Volumes");
    let mut table = Table::new(&["ID", "Read Only"]);
    for mount in task_of(alloc, name).list("VolumeMounts") {
        let volume = volumes.field(mount.text("Volume"));
        if volume.text("Type") == "host" {
            table.row([volume.text("Source").to_owned(), volume.flag("ReadOnly").to_string()]);
        }
    }
    (!table.is_empty()).then(|| table.render())
}

/// `2/3`: the attempts in the interval of the policy, and how many it allows.
fn reschedule_attempts(alloc: &Value) -> Option<String> {
    let events = alloc.field("RescheduleTracker").list("Events");
    if events.is_empty() {
        return None;
    }
    let policy = group_of(alloc).field("ReschedulePolicy");
    if policy.flag("Unlimited") || policy.int("Attempts") == 0 {
        return None;
    }
    let interval = policy.int("Interval");
    let last = events.last().map(|event| event.int("RescheduleTime")).unwrap_or(0);
    let recent = rows(alloc.field("RescheduleTracker").field("Events"))
        .iter()
        .filter(|event| last - event.int("RescheduleTime") < interval)
        .count();
    Some(format!("{recent}/{}", policy.int("Attempts")))
}
