//! Checks a complete job and lists everything that is wrong with it, in Nomad's words and order.

mod constraint;
mod driver;
mod group;
mod hints;
mod policy;
mod ports;
mod problem;
mod service;
mod task;

use std::collections::BTreeSet;

use crate::model::job::Job;
use crate::model::job::JobType;
use crate::model::multierror::multierror;
use crate::model::schedule;

pub use self::problem::Pick;
pub use self::problem::Problem;
pub use self::problem::Step;

use self::problem::Findings;

/// Longer job ids do not fit into keys with the suffixes of children.
const MAX_ID_BYTES: usize = 512;
/// Longer descriptions are refused.
const MAX_DESCRIPTION_CHARS: usize = 1000;
/// The type of the cluster's own jobs.
const CORE: &str = "_core";
const MIN_PRIORITY: i64 = 1;
const MAX_PRIORITY: i64 = 100;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validation {
    /// Reasons to refuse the job; those of groups and tasks are one message with nested lines.
    pub errors: Vec<String>,
    /// The same with their places.
    pub problems: Vec<Problem>,
    /// Messages for the author.
    pub warnings: Vec<String>,
}

/// What only the cluster knows about a job. By default nothing is held against it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What is to be said about a namespace and a node pool that do not exist.
    pub missing_homes: Vec<String>,
    /// Whether tasks may use more memory than they reserve; absent where nobody knows.
    pub memory_oversubscription: Option<bool>,
    /// Drivers that some node offers; absent where nobody knows.
    pub drivers: Option<BTreeSet<String>>,
}

impl Validation {
    /// True when the job may be stored.
    pub fn is_ok(&self) -> bool {
        self.errors.is_empty()
    }

    /// All errors as one text: `2 errors occurred:`, then a line per error. `None` without errors.
    pub fn error_text(&self) -> Option<String> {
        (!self.errors.is_empty()).then(|| multierror(&self.errors))
    }

    /// All warnings as one text: `1 warning:`, then a line per warning. Empty without warnings.
    pub fn warnings_text(&self) -> String {
        warnings_text(&self.warnings)
    }
}

/// Warnings from several sources as one text.
pub fn warnings_text(warnings: &[String]) -> String {
    if warnings.is_empty() {
        return String::new();
    }
    let plural = if warnings.len() == 1 { "" } else { "s" };
    let lines: Vec<String> = warnings.iter().map(|warning| format!("* {}", warning.trim_end())).collect();
    format!("{} warning{plural}:\n\n{}", warnings.len(), lines.join("\n"))
}

/// Checks a job that went through `canonicalize`. Any other job is safe, too: it only gets more complaints.
pub fn validate(job: &Job) -> Validation {
    validate_in(job, &Facts::default())
}

/// The same with what the cluster knows.
pub fn validate_in(job: &Job, facts: &Facts) -> Validation {
    let mut errors = Findings::default();
    let kind = job.job_type();
    if job.payload.as_ref().is_some_and(|payload| !payload.is_empty()) && !job.dispatched {
        errors.push("job can't be submitted with a payload, only dispatched");
    }
    service::expose(job, &mut errors);
    vault_configured(job, &mut errors);
    for group in &job.task_groups {
        task::consul_clusters(group, &mut errors);
    }
    for text in &facts.missing_homes {
        let attribute = if text.contains("node pool") { "node_pool" } else { "namespace" };
        errors.at(attribute, text);
    }
    job_fields(job, kind, &mut errors);
    for group in &job.task_groups {
        let own = group::errors(group, kind, &errors);
        errors.nest(format!("Task group {} validation failed: ", group.name), own);
    }
    children(job, kind, &mut errors);
    if !(MIN_PRIORITY..=MAX_PRIORITY).contains(&job.priority) {
        errors.at("priority", format!("job priority must be between [{MIN_PRIORITY}, {MAX_PRIORITY}]"));
    }
    for group in &job.task_groups {
        task::vault_access(group, &mut errors);
    }
    if job.multiregion.is_some() {
        let mut own = errors.block("multiregion", 0);
        own.push("Multiregion jobs are unlicensed.");
        errors.absorb(own);
    }
    for group in &job.task_groups {
        task::enterprise(group, &mut errors);
    }
    let problems = errors.into_problems();
    let mut warnings = Findings::default();
    job_warnings(job, &mut warnings);
    cluster_warnings(job, facts, &mut warnings);
    Validation {
        errors: problems.iter().map(Problem::rendered).collect(),
        problems,
        warnings: warnings.into_problems().iter().map(Problem::rendered).collect(),
    }
}

fn vault_configured(job: &Job, errors: &mut Findings) {
    let user = job.task_groups.iter().find_map(|group| {
        let task = group.tasks.iter().find(|task| task.vault.is_some())?;
        Some((group, task))
    });
    if let Some((group, task)) = user {
        let mut own = errors.block("group", &group.name).block("task", &task.name).block("vault", 0);
        own.push("Vault \"default\" not enabled but used in the job");
        errors.absorb(own);
    }
}

fn job_fields(job: &Job, kind: JobType, errors: &mut Findings) {
    let mut say = |problem: bool, attribute: &str, text: &str| {
        if problem {
            errors.at(attribute, text);
        }
    };
    say(job.region.is_empty(), "region", "Missing job region");
    say(job.id.is_empty(), "id", "Missing job ID");
    say(job.id.contains(' '), "id", "Job ID contains a space");
    say(job.id.contains('\0'), "id", "Job ID contains a null character");
    say(job.id.len() > MAX_ID_BYTES, "id", &format!("Job ID is longer than {MAX_ID_BYTES} bytes"));
    say(job.name.is_empty(), "name", "Missing job name");
    say(job.name.contains('\0'), "name", "Job Name contains a null character");
    say(job.namespace.is_empty(), "namespace", "Job must be in a namespace");
    match job.kind.as_str() {
        "" => say(true, "type", "Missing job type"),
        CORE => say(true, "type", "job type cannot be core"),
        other => say(JobType::parse(other).is_none(), "type", &format!("Invalid job type: {other:?}")),
    }
    let unnamed = job.datacenters.iter().any(String::is_empty);
    say(unnamed, "datacenters", "Job datacenter must be non-empty string");
    say(job.task_groups.is_empty(), "", "Missing job task groups");
    constraint::constraints(&job.constraints, false, errors);
    constraint::affinities(&job.affinities, kind, errors);
    constraint::spreads(&job.spreads, kind, errors);
    for (index, group) in job.task_groups.iter().enumerate() {
        let number = index + 1;
        let name = &group.name;
        let mut own = errors.block("group", index);
        if name.is_empty() {
            own.push(format!("Job task group {number} missing name"));
        } else if let Some(first) = job.task_groups[..index].iter().position(|other| other.name == *name) {
            own.push(format!("Job task group {number} redefines '{name}' from group {}", first + 1));
        }
        if kind == JobType::System && group.count() > 1 {
            let count = group.count();
            let text = format!(
                "Job task group {name} has count {count}. Count cannot exceed 1 with system scheduler"
            );
            own.at("count", text);
        }
        errors.absorb(own);
    }
    let description =
        job.ui.as_ref().and_then(|ui| ui.get("Description")).and_then(serde_json::Value::as_str);
    let length = description.map_or(0, |text| text.chars().count());
    if length > MAX_DESCRIPTION_CHARS {
        let mut own = errors.block("ui", 0);
        let most = MAX_DESCRIPTION_CHARS;
        own.at("description", format!("UI description must be under {most} characters, currently {length}"));
        errors.absorb(own);
    }
}

/// Rules for jobs that launch children.
fn children(job: &Job, kind: JobType, errors: &mut Findings) {
    if let Some(periodic) = &job.periodic
        && periodic.enabled.unwrap_or(true)
    {
        let mut own = errors.block("periodic", 0);
        if !kind.is_batch() {
            own.push("Periodic can only be used with \"batch\" or \"sysbatch\" scheduler");
        }
        let mut inner = own.same();
        for problem in schedule::validate_periodic(periodic) {
            let of_zone = problem.starts_with("Invalid time zone");
            let attribute = match &periodic.specs {
                _ if of_zone => "time_zone",
                specs if specs.is_empty() => "cron",
                _ => "crons",
            };
            inner.at(attribute, problem);
        }
        errors.absorb(own);
        errors.nest("", inner);
    }
    if let Some(parameterized) = &job.parameterized {
        let mut own = errors.block("parameterized", 0);
        if !kind.is_batch() {
            own.push("Parameterized job can only be used with \"batch\" or \"sysbatch\" scheduler");
        }
        let mut inner = own.same();
        let payload = &parameterized.payload;
        if !matches!(payload.as_str(), "optional" | "required" | "forbidden") {
            inner.at("payload", format!("Unknown payload requirement: {payload:?}"));
        }
        let both: Vec<&str> = parameterized
            .meta_required
            .iter()
            .filter(|key| parameterized.meta_optional.contains(key))
            .map(String::as_str)
            .collect();
        if !both.is_empty() {
            let keys = both.join(" ");
            inner.at(
                "meta_optional",
                format!(
                    "Required and optional meta keys should be disjoint. Following keys exist in both: [{keys}]"
                ),
            );
        }
        errors.absorb(own);
        errors.nest("", inner);
    }
}

fn job_warnings(job: &Job, warnings: &mut Findings) {
    let promoting = || job.task_groups.iter().filter_map(|group| group.update.as_ref());
    if promoting().any(|update| update.auto_promote) && !promoting().all(|update| update.auto_promote) {
        warnings.push("auto_promote must be true for all groups to enable automatic promotion");
    }
    for group in &job.task_groups {
        let own = group::warnings(group, warnings);
        warnings.nest(format!("Group {:?} has warnings: ", group.name), own);
    }
    if job.periodic.as_ref().is_some_and(|periodic| !periodic.spec.is_empty()) {
        warnings.push("cron is deprecated and may be removed in a future release. Use crons instead");
    }
    if !job.consul_token.is_empty() || !job.vault_token.is_empty() {
        warnings.push("consul_token and vault_token are deprecated and have no effect");
    }
}

/// Things that work in some clusters and not in this one.
fn cluster_warnings(job: &Job, facts: &Facts, warnings: &mut Findings) {
    let tasks = || job.task_groups.iter().flat_map(|group| group.tasks.iter().map(move |task| (group, task)));
    if facts.memory_oversubscription == Some(false) {
        for (group, task) in tasks() {
            if task.resources.as_ref().is_some_and(|resources| resources.memory_max_mb != 0) {
                warnings.push(format!(
                    "Memory oversubscription is not enabled; Task \"{}.{}\" memory_max value will be ignored. Update the \
                     Scheduler Configuration to allow oversubscription.",
                    group.name, task.name
                ));
            }
        }
    }
    let Some(offered) = &facts.drivers else { return };
    for (group, task) in tasks() {
        if !task.driver.is_empty() && !offered.contains(&task.driver) {
            warnings.push(format!(
                "Task \"{}.{}\" asks for driver {:?}, which no node of this cluster offers: it waits until one does.",
                group.name, task.name, task.driver
            ));
        }
    }
}
