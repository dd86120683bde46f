//! Groups.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::model::group::EphemeralDisk;
use crate::model::group::TaskGroup;
use crate::model::group::VolumeRequest;
use crate::model::job::Job;
use crate::model::job::JobType;
use crate::model::time::Span;

use super::constraint;
use super::nest;
use super::policy;
use super::ports;
use super::service;
use super::task;

const MIN_DISK_MB: i64 = 10;

/// All problems of one group.
pub(super) fn errors(job: &Job, group: &TaskGroup, kind: JobType) -> Vec<String> {
    let mut out = Vec::new();
    if group.name.is_empty() {
        out.push("Missing task group name".to_owned());
    }
    if group.name.contains('\0') {
        out.push("Task group name contains null character".to_owned());
    }
    if group.count.unwrap_or(1) < 0 {
        out.push("Task group count can't be negative".to_owned());
    }
    if group.tasks.is_empty() {
        out.push("Missing tasks for task group".to_owned());
    }
    policy::disconnect(group, kind, &mut out);
    if group.shutdown_delay.is_some_and(|delay| delay < Span::ZERO) {
        out.push("ShutdownDelay must be a positive value".to_owned());
    }
    constraint::constraints(&group.constraints, false, &mut out);
    constraint::affinities(&group.affinities, kind, &mut out);
    policies(group, kind, &mut out);
    constraint::spreads(&group.spreads, kind, &mut out);
    disk(group.ephemeral_disk.as_ref(), &mut out);
    leaders_and_names(group, &mut out);
    for (name, volume) in &group.volumes {
        let prefix = format!("Task group volume validation for {name} failed: ");
        nest(&mut out, &prefix, &volume_errors(volume, group, kind));
    }
    let (network_errors, mut task_ports) = ports::check(group);
    nest(&mut out, "Task group network validation failed: ", &network_errors);
    nest(&mut out, "Task group service validation failed: ", &service::group_errors(group));
    out.extend(service::uniqueness(group));
    nest(&mut out, "Task group scaling policy validation failed: ", &scaling(group));
    for task in &group.tasks {
        let ports = task_ports.remove(task.name.as_str()).unwrap_or_default();
        let errors = task::errors(job, group, task, kind, &ports);
        nest(&mut out, &format!("Task {} validation failed: ", task.name), &errors);
    }
    out
}

fn policies(group: &TaskGroup, kind: JobType, out: &mut Vec<String>) {
    match &group.restart_policy {
        Some(restart) => policy::restart(restart, out),
        None => out.push(format!("Task Group {} should have a restart policy", group.name)),
    }
    match (&group.reschedule_policy, kind) {
        (Some(_), JobType::System) => out.push("System jobs should not have a reschedule policy".to_owned()),
        (Some(reschedule), _) => policy::reschedule(reschedule, out),
        (None, JobType::System) => {}
        (None, _) => out.push(format!("Task Group {} should have a reschedule policy", group.name)),
    }
    if let Some(update) = &group.update {
        if kind.is_batch() {
            out.push(format!("Job type {:?} does not allow update block", kind_name(kind)));
        } else {
            policy::update(update, out);
        }
    }
    if let Some(migrate) = &group.migrate {
        if kind == JobType::Service {
            policy::migrate(migrate, out);
        } else {
            out.push(format!("Job type {:?} does not allow migrate block", kind_name(kind)));
        }
    }
}

fn kind_name(kind: JobType) -> &'static str {
    match kind {
        JobType::Service => "service",
        JobType::Batch => "batch",
        JobType::System => "system",
        JobType::Sysbatch => "sysbatch",
    }
}

fn disk(disk: Option<&EphemeralDisk>, out: &mut Vec<String>) {
    match disk {
        None => out.push("Task Group should have an ephemeral disk object".to_owned()),
        Some(disk) if disk.size_mb < MIN_DISK_MB => {
            out.push(format!("minimum DiskMB value is {MIN_DISK_MB}; got {}", disk.size_mb));
        }
        Some(_) => {}
    }
}

fn leaders_and_names(group: &TaskGroup, out: &mut Vec<String>) {
    for (index, task) in group.tasks.iter().enumerate() {
        if task.name.is_empty() {
            out.push(format!("Task {} missing name", index + 1));
        } else if let Some(first) = group.tasks[..index].iter().position(|other| other.name == task.name) {
            out.push(format!("Task {} redefines '{}' from task {}", index + 1, task.name, first + 1));
        }
    }
    if group.tasks.iter().filter(|task| task.leader).count() > 1 {
        out.push("Only one task may be marked as leader".to_owned());
    }
}

fn volume_errors(volume: &VolumeRequest, group: &TaskGroup, kind: JobType) -> Vec<String> {
    let mut out = Vec::new();
    if volume.source.is_empty() {
        out.push("volume has an empty source".to_owned());
    }
    if volume.per_alloc {
        if matches!(kind, JobType::System | JobType::Sysbatch) {
            out.push("volume cannot be per_alloc for system or sysbatch jobs".to_owned());
        }
        if group.update.as_ref().is_some_and(|update| update.canary > 0) {
            out.push("volume cannot be per_alloc when canaries are in use".to_owned());
        }
    }
    match volume.kind.as_str() {
        "host" => {
            if !volume.access_mode.is_empty() {
                out.push("host volumes cannot have an access mode".to_owned());
            }
            if !volume.attachment_mode.is_empty() {
                out.push("host volumes cannot have an attachment mode".to_owned());
            }
            if volume.mount_options.as_ref().is_some_and(|options| !options.is_null()) {
                out.push("host volumes cannot have mount options".to_owned());
            }
        }
        "csi" => csi_errors(volume, group, &mut out),
        other => out.push(format!("volume has unrecognized type {other:?}")),
    }
    out
}

fn csi_errors(volume: &VolumeRequest, group: &TaskGroup, out: &mut Vec<String>) {
    let mode = volume.access_mode.as_str();
    if volume.attachment_mode.is_empty() {
        out.push("CSI volumes must have an attachment mode".to_owned());
    }
    if mode.is_empty() {
        out.push("CSI volumes must have an access mode".to_owned());
    }
    if volume.attachment_mode == "block-device" && volume.mount_options.is_some() {
        out.push("block devices cannot have mount options".to_owned());
    }
    if mode.ends_with("reader-only") && !volume.read_only {
        out.push(format!("{mode} volumes must be read-only"));
    }
    if group.count() > 1 && !volume.per_alloc {
        let limit = match mode {
            "single-node-reader-only" => "one reader",
            "single-node-writer" => "one reader or writer",
            "multi-node-single-writer" if !volume.read_only => "only one writer",
            _ => return,
        };
        let allows = if limit.starts_with("only") { "allows" } else { "allows only" };
        out.push(format!("volume with {mode} access mode {allows} {limit}"));
    }
}

fn scaling(group: &TaskGroup) -> Vec<String> {
    let Some(policy) = &group.scaling else { return Vec::new() };
    let number = |key: &str| policy.get(key).and_then(Value::as_i64);
    let (count, min, max) = (group.count.unwrap_or(1), number("Min"), number("Max").unwrap_or(0));
    let mut out = Vec::new();
    let mut say = |problem: bool, text: &str| {
        if problem {
            out.push(format!("Scaling policy invalid: {text}"));
        }
    };
    say(min.is_none_or(|min| min < 0), "minimum count must be specified and non-negative");
    let min = min.unwrap_or(0);
    say(max < min, "maximum count must not be less than minimum count");
    say(count < min, "task group count must not be less than minimum count in scaling policy");
    say(count > max, "task group count must not be greater than maximum count in scaling policy");
    out
}

/// Things of a group that work but deserve attention.
pub(super) fn warnings(group: &TaskGroup) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(update) = &group.update {
        let count = i64::try_from(group.count()).unwrap_or(i64::MAX);
        if update.max_parallel > count && count > 1 {
            out.push(format!(
                "Update max parallel count is greater than task group count ({} > {count}). A destructive change would \
                 result in the simultaneous replacement of all allocations.",
                update.max_parallel
            ));
        }
    }
    if group.max_client_disconnect.is_some() {
        out.push("MaxClientDisconnect will be deprecated favor of Disconnect.LostAfter".to_owned());
    }
    if group.stop_after_client_disconnect.is_some() {
        out.push(
            "StopAfterClientDisconnect will be deprecated favor of Disconnect.StopOnClientAfter".to_owned(),
        );
    }
    if group.prevent_reschedule_on_lost {
        out.push("PreventRescheduleOnLost will be deprecated favor of Disconnect.Replace".to_owned());
    }
    if group.networks.iter().any(|network| network.mbits > 0) {
        out.push(
            "mbits has been deprecated as of Nomad 0.12.0. Please remove mbits from the network block"
                .to_owned(),
        );
    }
    let mut said = BTreeSet::new();
    for task in &group.tasks {
        let own = task::warnings(task);
        if said.insert(&task.name) {
            nest(&mut out, &format!("Task {:?} has warnings: ", task.name), &own);
        }
    }
    out
}
