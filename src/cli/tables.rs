//! Tables and blocks that several commands print.

use serde_json::Value;

use super::format;
use super::format::id;
use super::output::Pairs;
use super::output::Table;
use super::view::View;
use crate::model::time::Time;

/// The allocations of a job, deployment or node.
pub fn allocations(allocs: &[Value], now: Time, verbose: bool) -> String {
    if allocs.is_empty() {
        return "No allocations placed".to_owned();
    }
    let mut sorted: Vec<&Value> = allocs.iter().collect();
    // Newest first, as Nomad sorts by creation.
    sorted.sort_by_key(|alloc| (std::cmp::Reverse(alloc.int("CreateIndex")), alloc.text("ID")));
    let mut table = if verbose {
        Table::new(&[
            "ID",
            "Eval ID",
            "Node ID",
            "Node Name",
            "Task Group",
            "Version",
            "Desired",
            "Status",
            "Created",
            "Modified",
        ])
    } else {
        Table::new(&["ID", "Node ID", "Task Group", "Version", "Desired", "Status", "Created", "Modified"])
    };
    for alloc in sorted {
        let mut row = vec![id(alloc.text("ID"), verbose)];
        if verbose {
            row.push(alloc.text("EvalID").to_owned());
        }
        row.push(id(alloc.text("NodeID"), verbose));
        if verbose {
            row.push(alloc.text("NodeName").to_owned());
        }
        row.push(alloc.text("TaskGroup").to_owned());
        row.push(version_of(alloc).to_string());
        row.push(alloc.text("DesiredStatus").to_owned());
        row.push(alloc.text("ClientStatus").to_owned());
        row.push(format::when(alloc.int("CreateTime"), now, verbose));
        row.push(format::when(alloc.int("ModifyTime"), now, verbose));
        table.row(row);
    }
    table.render()
}

/// The job version of an allocation, as a stub or in full.
pub fn version_of(alloc: &Value) -> i64 {
    match alloc.get("JobVersion").and_then(Value::as_i64) {
        Some(version) => version,
        None => alloc.field("Job").int("Version"),
    }
}

/// The list of jobs.
pub fn jobs(jobs: &[Value], all_namespaces: bool) -> String {
    let mut table = if all_namespaces {
        Table::new(&["ID", "Namespace", "Type", "Priority", "Status", "Submit Date"])
    } else {
        Table::new(&["ID", "Type", "Priority", "Status", "Submit Date"])
    };
    for job in jobs {
        let mut row = vec![job.text("ID").to_owned()];
        if all_namespaces {
            row.push(job.text("Namespace").to_owned());
        }
        row.push(job_type(job));
        row.push(job.int("Priority").to_string());
        row.push(status(job));
        row.push(format::nanos(job.int("SubmitTime")));
        table.row(row);
    }
    table.render()
}

fn job_type(job: &Value) -> String {
    let mut kind = job.text("Type").to_owned();
    if job.flag("Periodic") {
        kind.push_str("/periodic");
    }
    if job.flag("ParameterizedJob") {
        kind.push_str("/parameterized");
    }
    kind
}

/// `dead (stopped)` and the like.
pub fn status(job: &Value) -> String {
    let stopped = if job.flag("Stop") { " (stopped)" } else { "" };
    format!("{}{stopped}", job.text("Status"))
}

/// The list of deployments.
pub fn deployments(deployments: &[Value], verbose: bool) -> String {
    if deployments.is_empty() {
        return "No deployments found".to_owned();
    }
    let mut table = Table::new(&["ID", "Job ID", "Job Version", "Status", "Description"]);
    for deployment in deployments {
        table.row([
            id(deployment.text("ID"), verbose),
            deployment.text("JobID").to_owned(),
            deployment.int("JobVersion").to_string(),
            deployment.text("Status").to_owned(),
            deployment.text("StatusDescription").to_owned(),
        ]);
    }
    table.render()
}

/// One deployment: its key-value block and its groups.
pub fn deployment(deployment: &Value, verbose: bool) -> String {
    let mut pairs = Pairs::new();
    pairs.add("ID", id(deployment.text("ID"), verbose));
    pairs.add("Job ID", deployment.text("JobID"));
    pairs.add("Job Version", deployment.int("JobVersion").to_string());
    pairs.add("Status", deployment.text("Status"));
    pairs.add("Description", deployment.text("StatusDescription"));
    let groups = deployed(deployment);
    if groups.is_empty() { pairs.render() } else { format!("{}\n\nDeployed\n{groups}", pairs.render()) }
}

/// The groups of a deployment; columns appear where any group needs them.
pub fn deployed(deployment: &Value) -> String {
    let groups = deployment.entries("TaskGroups");
    if groups.is_empty() {
        return String::new();
    }
    let reverts = groups.iter().any(|(_, group)| group.flag("AutoRevert"));
    let canaries = groups.iter().any(|(_, group)| group.int("DesiredCanaries") > 0);
    let deadline = |group: &Value| format::parse_time(group.field("RequireProgressBy"));
    let deadlines =
        groups.iter().any(|(_, group)| !deadline(group).is_never() || group.int("ProgressDeadline") > 0);
    let mut header = vec!["Task Group"];
    if reverts {
        header.push("Auto Revert");
    }
    if canaries {
        header.push("Promoted");
    }
    header.push("Desired");
    if canaries {
        header.push("Canaries");
    }
    header.extend(["Placed", "Healthy", "Unhealthy"]);
    if deadlines {
        header.push("Progress Deadline");
    }
    let mut table = Table::new(&header);
    for (name, group) in groups {
        let mut row = vec![name.to_owned()];
        if reverts {
            row.push(group.flag("AutoRevert").to_string());
        }
        if canaries {
            let promoted = group.int("DesiredCanaries") > 0;
            row.push(if promoted { group.flag("Promoted").to_string() } else { "N/A".to_owned() });
        }
        row.push(group.int("DesiredTotal").to_string());
        if canaries {
            row.push(group.int("DesiredCanaries").to_string());
        }
        for count in ["PlacedAllocs", "HealthyAllocs", "UnhealthyAllocs"] {
            row.push(group.int(count).to_string());
        }
        if deadlines {
            let at = deadline(group);
            row.push(if at.is_never() { "N/A".to_owned() } else { format::time(at) });
        }
        table.row(row);
    }
    table.render()
}
