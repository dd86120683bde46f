//! Groups.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::model::group::EphemeralDisk;
use crate::model::group::TaskGroup;
use crate::model::group::VolumeRequest;
use crate::model::job::JobType;
use crate::model::time::Span;

use super::constraint;
use super::policy;
use super::ports;
use super::problem::Findings;
use super::service;
use super::task;

const MIN_DISK_MB: i64 = 10;

/// All problems of one group.
pub(super) fn errors(group: &TaskGroup, kind: JobType, found: &Findings) -> Findings {
    let mut out = found.block("group", &group.name);
    if group.name.is_empty() {
        out.push("Missing task group name");
    }
    if group.name.contains('\0') {
        out.push("Task group name contains null character");
    }
    if group.count.unwrap_or(1) < 0 {
        out.at("count", "Task group count can't be negative");
    }
    if group.tasks.is_empty() {
        out.push("Missing tasks for task group");
    }
    policy::disconnect(group, kind, &mut out);
    if group.shutdown_delay.is_some_and(|delay| delay < Span::ZERO) {
        out.at("shutdown_delay", "ShutdownDelay must be a positive value");
    }
    constraint::constraints(&group.constraints, false, &mut out);
    constraint::affinities(&group.affinities, kind, &mut out);
    policies(group, kind, &mut out);
    constraint::spreads(&group.spreads, kind, &mut out);
    disk(group.ephemeral_disk.as_ref(), &mut out);
    leaders_and_names(group, &mut out);
    for (name, volume) in &group.volumes {
        let mut own = out.block("volume", name);
        volume_errors(volume, group, kind, &mut own);
        out.nest(format!("Task group volume validation for {name} failed: "), own);
    }
    let (network_errors, mut task_ports) = ports::check(group, &out);
    out.nest("Task group network validation failed: ", network_errors);
    let services = service::group_errors(group, &out);
    out.nest("Task group service validation failed: ", services);
    let checks = service::check_tasks(group, &out);
    out.nest("Task group service check validation failed: ", checks);
    service::uniqueness(group, &mut out);
    let scaling = scaling(group, &out);
    out.nest("Task group scaling policy validation failed: ", scaling);
    for task in &group.tasks {
        let ports = task_ports.remove(task.name.as_str()).unwrap_or_default();
        let errors = task::errors(group, task, kind, ports, &out);
        out.nest(format!("Task {} validation failed: ", task.name), errors);
    }
    out
}

fn policies(group: &TaskGroup, kind: JobType, out: &mut Findings) {
    match &group.restart_policy {
        Some(restart) => {
            let mut own = out.block("restart", 0);
            policy::restart(restart, &mut own);
            out.absorb(own);
        }
        None => out.push(format!("Task Group {} should have a restart policy", group.name)),
    }
    let mut own = out.block("reschedule", 0);
    match (&group.reschedule_policy, kind) {
        (Some(_), JobType::System) => own.push("System jobs should not have a reschedule policy"),
        (Some(reschedule), _) => policy::reschedule(reschedule, &mut own),
        (None, JobType::System) => {}
        (None, _) => own.push(format!("Task Group {} should have a reschedule policy", group.name)),
    }
    out.absorb(own);
    let mut own = out.block("update", 0);
    if let Some(update) = &group.update {
        if kind.is_batch() {
            own.push(format!("Job type {:?} does not allow update block", kind_name(kind)));
        } else {
            policy::update(update, &mut own);
        }
    }
    out.absorb(own);
    let mut own = out.block("migrate", 0);
    if let Some(migrate) = &group.migrate {
        if kind == JobType::Service {
            policy::migrate(migrate, &mut own);
        } else {
            own.push(format!("Job type {:?} does not allow migrate block", kind_name(kind)));
        }
    }
    out.absorb(own);
}

fn kind_name(kind: JobType) -> &'static str {
    match kind {
        JobType::Service => "service",
        JobType::Batch => "batch",
        JobType::System => "system",
        JobType::Sysbatch => "sysbatch",
    }
}

fn disk(disk: Option<&EphemeralDisk>, out: &mut Findings) {
    let mut own = out.block("ephemeral_disk", 0);
    match disk {
        None => own.push("Task Group should have an ephemeral disk object"),
        Some(disk) if disk.size_mb < MIN_DISK_MB => {
            own.at("size", format!("minimum DiskMB value is {MIN_DISK_MB}; got {}", disk.size_mb));
        }
        Some(_) => {}
    }
    out.absorb(own);
}

fn leaders_and_names(group: &TaskGroup, out: &mut Findings) {
    for (index, task) in group.tasks.iter().enumerate() {
        let mut own = out.block("task", index);
        if task.name.is_empty() {
            own.push(format!("Task {} missing name", index + 1));
        } else if let Some(first) = group.tasks[..index].iter().position(|other| other.name == task.name) {
            own.push(format!("Task {} redefines '{}' from task {}", index + 1, task.name, first + 1));
        }
        out.absorb(own);
    }
    if let Some(second) = group.tasks.iter().filter(|task| task.leader).nth(1) {
        let mut own = out.block("task", &second.name);
        own.at("leader", "Only one task may be marked as leader");
        out.absorb(own);
    }
}

fn volume_errors(volume: &VolumeRequest, group: &TaskGroup, kind: JobType, out: &mut Findings) {
    if volume.source.is_empty() {
        out.at("source", "volume has an empty source");
    }
    if volume.per_alloc {
        if matches!(kind, JobType::System | JobType::Sysbatch) {
            out.at("per_alloc", "volume cannot be per_alloc for system or sysbatch jobs");
        }
        if group.update.as_ref().is_some_and(|update| update.canary > 0) {
            out.at("per_alloc", "volume cannot be per_alloc when canaries are in use");
        }
    }
    match volume.kind.as_str() {
        "host" => {
            if !volume.access_mode.is_empty() {
                out.at("access_mode", "host volumes cannot have an access mode");
            }
            if !volume.attachment_mode.is_empty() {
                out.at("attachment_mode", "host volumes cannot have an attachment mode");
            }
            if volume.mount_options.as_ref().is_some_and(|options| !options.is_null()) {
                let mut own = out.block("mount_options", 0);
                own.push("host volumes cannot have mount options");
                out.absorb(own);
            }
        }
        "csi" => csi_errors(volume, group, out),
        other => out.at("type", format!("volume has unrecognized type {other:?}")),
    }
}

fn csi_errors(volume: &VolumeRequest, group: &TaskGroup, out: &mut Findings) {
    let mode = volume.access_mode.as_str();
    if volume.attachment_mode.is_empty() {
        out.at("attachment_mode", "CSI volumes must have an attachment mode");
    }
    if mode.is_empty() {
        out.at("access_mode", "CSI volumes must have an access mode");
    }
    if volume.attachment_mode == "block-device" && volume.mount_options.is_some() {
        out.at("attachment_mode", "block devices cannot have mount options");
    }
    if mode.ends_with("reader-only") && !volume.read_only {
        out.at("access_mode", format!("{mode} volumes must be read-only"));
    }
    if group.count() > 1 && !volume.per_alloc {
        let limit = match mode {
            "single-node-reader-only" => "one reader",
            "single-node-writer" => "one reader or writer",
            "multi-node-single-writer" if !volume.read_only => "only one writer",
            _ => return,
        };
        let allows = if limit.starts_with("only") { "allows" } else { "allows only" };
        out.at("access_mode", format!("volume with {mode} access mode {allows} {limit}"));
    }
}

fn scaling(group: &TaskGroup, found: &Findings) -> Findings {
    let mut out = found.block("scaling", 0);
    let Some(policy) = &group.scaling else { return out };
    let number = |key: &str| policy.get(key).and_then(Value::as_i64);
    let (count, min, max) = (group.count.unwrap_or(1), number("Min"), number("Max").unwrap_or(0));
    let mut say = |problem: bool, attribute: &str, text: &str| {
        if problem {
            out.at(attribute, format!("Scaling policy invalid: {text}"));
        }
    };
    say(min.is_none_or(|min| min < 0), "min", "minimum count must be specified and non-negative");
    let min = min.unwrap_or(0);
    say(max < min, "max", "maximum count must not be less than minimum count");
    say(count < min, "min", "task group count must not be less than minimum count in scaling policy");
    say(count > max, "max", "task group count must not be greater than maximum count in scaling policy");
    out
}

/// Things of a group that work but deserve attention.
pub(super) fn warnings(group: &TaskGroup, found: &Findings) -> Findings {
    let mut out = found.block("group", &group.name);
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
        out.at(
            "max_client_disconnect",
            "MaxClientDisconnect will be deprecated favor of Disconnect.LostAfter",
        );
    }
    if group.stop_after_client_disconnect.is_some() {
        let text = "StopAfterClientDisconnect will be deprecated favor of Disconnect.StopOnClientAfter";
        out.at("stop_after_client_disconnect", text);
    }
    if group.prevent_reschedule_on_lost {
        out.at(
            "prevent_reschedule_on_lost",
            "PreventRescheduleOnLost will be deprecated favor of Disconnect.Replace",
        );
    }
    if group.networks.iter().any(|network| network.mbits > 0) {
        out.push("mbits has been deprecated as of Nomad 0.12.0. Please remove mbits from the network block");
    }
    let services = service::warnings(&group.services, &out);
    out.absorb(services);
    let mut said = BTreeSet::new();
    for task in &group.tasks {
        if said.insert(&task.name) {
            let own = task::warnings(task, &out);
            out.nest(format!("Task {:?} has warnings: ", task.name), own);
        }
    }
    out
}
