//! Checks a complete job and lists everything that is wrong with it, in Nomad's words and order.

mod constraint;
mod group;
mod policy;
mod ports;
mod service;
mod task;

use crate::model::job::Job;
use crate::model::job::JobType;
use crate::model::schedule;

/// Longer job ids do not fit into keys with the suffixes of children.
const MAX_ID_BYTES: usize = 512;
/// Longer descriptions are refused.
const MAX_DESCRIPTION_CHARS: usize = 1000;
const MIN_PRIORITY: i64 = 1;
const MAX_PRIORITY: i64 = 100;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validation {
    /// Reasons to refuse the job; those of groups and tasks are one message with nested lines.
    pub errors: Vec<String>,
    /// Messages for the author.
    pub warnings: Vec<String>,
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

/// Several messages under a header that counts them.
fn multierror(errors: &[String]) -> String {
    let plural = if errors.len() == 1 { "" } else { "s" };
    let lines: Vec<String> = errors.iter().map(|error| format!("* {error}")).collect();
    format!("{} error{plural} occurred:\n\t{}\n\n", errors.len(), lines.join("\n\t"))
}

/// Adds `errors`, if any, as one message after `prefix`.
fn nest(out: &mut Vec<String>, prefix: &str, errors: &[String]) {
    if !errors.is_empty() {
        out.push(format!("{prefix}{}", multierror(errors)));
    }
}

/// Checks a job that went through `canonicalize`. Any other job is safe, too: it only gets more complaints.
pub fn validate(job: &Job) -> Validation {
    let mut errors = Vec::new();
    let mut warnings = Vec::new();
    let kind = job.job_type();
    if job.payload.as_ref().is_some_and(|payload| !payload.is_empty()) && !job.dispatched {
        errors.push("job can't be submitted with a payload, only dispatched".to_owned());
    }
    service::expose(job, &mut errors);
    if job.task_groups.iter().flat_map(|group| &group.tasks).any(|task| task.vault.is_some()) {
        errors.push("Vault \"default\" not enabled but used in the job".to_owned());
    }
    job_fields(job, kind, &mut errors);
    for group in &job.task_groups {
        let prefix = format!("Task group {} validation failed: ", group.name);
        nest(&mut errors, &prefix, &group::errors(job, group, kind));
    }
    children(job, kind, &mut errors);
    if !(MIN_PRIORITY..=MAX_PRIORITY).contains(&job.priority) {
        errors.push(format!("job priority must be between [{MIN_PRIORITY}, {MAX_PRIORITY}]"));
    }
    if job.multiregion.is_some() {
        errors.push("Multiregion jobs are unlicensed.".to_owned());
    }
    for group in &job.task_groups {
        task::enterprise(group, &mut errors);
    }
    job_warnings(job, &mut warnings);
    Validation { errors, warnings }
}

fn job_fields(job: &Job, kind: JobType, errors: &mut Vec<String>) {
    let mut say = |problem: bool, text: &str| {
        if problem {
            errors.push(text.to_owned());
        }
    };
    say(job.region.is_empty(), "Missing job region");
    say(job.id.is_empty(), "Missing job ID");
    say(job.id.contains(' '), "Job ID contains a space");
    say(job.id.contains('\0'), "Job ID contains a null character");
    say(job.id.len() > MAX_ID_BYTES, &format!("Job ID is longer than {MAX_ID_BYTES} bytes"));
    say(job.name.is_empty(), "Missing job name");
    say(job.name.contains('\0'), "Job Name contains a null character");
    say(job.namespace.is_empty(), "Job must be in a namespace");
    match job.kind.as_str() {
        "" => say(true, "Missing job type"),
        "_core" | "core" => say(true, "job type cannot be core"),
        other => say(JobType::parse(other).is_none(), &format!("Invalid job type: {other:?}")),
    }
    say(job.datacenters.iter().any(String::is_empty), "Job datacenter must be non-empty string");
    say(job.task_groups.is_empty(), "Missing job task groups");
    constraint::constraints(&job.constraints, false, errors);
    constraint::affinities(&job.affinities, kind, errors);
    constraint::spreads(&job.spreads, kind, errors);
    for (index, group) in job.task_groups.iter().enumerate() {
        let number = index + 1;
        if group.name.is_empty() {
            errors.push(format!("Job task group {number} missing name"));
        } else if let Some(first) = job.task_groups[..index].iter().position(|other| other.name == group.name)
        {
            let name = &group.name;
            errors.push(format!("Job task group {number} redefines '{name}' from group {}", first + 1));
        }
        if kind == JobType::System && group.count() > 1 {
            errors.push(format!(
                "Job task group {} has count {}. Count cannot exceed 1 with system scheduler",
                group.name,
                group.count()
            ));
        }
    }
    let description =
        job.ui.as_ref().and_then(|ui| ui.get("Description")).and_then(serde_json::Value::as_str);
    let length = description.map_or(0, |text| text.chars().count());
    if length > MAX_DESCRIPTION_CHARS {
        errors.push(format!(
            "UI description must be under {MAX_DESCRIPTION_CHARS} characters, currently {length}"
        ));
    }
}

/// Rules for jobs that launch children.
fn children(job: &Job, kind: JobType, errors: &mut Vec<String>) {
    if let Some(periodic) = &job.periodic
        && periodic.enabled.unwrap_or(true)
    {
        if !kind.is_batch() {
            errors.push("Periodic can only be used with \"batch\" or \"sysbatch\" scheduler".to_owned());
        }
        nest(errors, "", &schedule::validate_periodic(periodic));
    }
    if let Some(parameterized) = &job.parameterized {
        if !kind.is_batch() {
            errors.push(
                "Parameterized job can only be used with \"batch\" or \"sysbatch\" scheduler".to_owned(),
            );
        }
        let mut own = Vec::new();
        if !matches!(parameterized.payload.as_str(), "optional" | "required" | "forbidden") {
            own.push(format!("Unknown payload requirement: {:?}", parameterized.payload));
        }
        let both: Vec<&str> = parameterized
            .meta_required
            .iter()
            .filter(|key| parameterized.meta_optional.contains(key))
            .map(String::as_str)
            .collect();
        if !both.is_empty() {
            own.push(format!(
                "Required and optional meta keys should be disjoint. Following keys exist in both: [{}]",
                both.join(" ")
            ));
        }
        nest(errors, "", &own);
    }
}

fn job_warnings(job: &Job, warnings: &mut Vec<String>) {
    let promoting = || job.task_groups.iter().filter_map(|group| group.update.as_ref());
    if promoting().any(|update| update.auto_promote) && !promoting().all(|update| update.auto_promote) {
        warnings.push("auto_promote must be true for all groups to enable automatic promotion".to_owned());
    }
    for group in &job.task_groups {
        let own = group::warnings(group);
        nest(warnings, &format!("Group {:?} has warnings: ", group.name), &own);
    }
    if job.periodic.as_ref().is_some_and(|periodic| !periodic.spec.is_empty()) {
        warnings
            .push("cron is deprecated and may be removed in a future release. Use crons instead".to_owned());
    }
    if !job.consul_token.is_empty() || !job.vault_token.is_empty() {
        warnings.push("consul_token and vault_token are deprecated and have no effect".to_owned());
    }
}
