//! Tasks: their own fields, resources, templates, artifacts, mounts.

use std::collections::BTreeSet;
use std::path::Component;
use std::path::Path;

use crate::model::group::TaskGroup;
use crate::model::job::Job;
use crate::model::job::JobType;
use crate::model::resources::Resources;
use crate::model::task::Artifact;
use crate::model::task::LogConfig;
use crate::model::task::Task;
use crate::model::task::Template;
use crate::model::task::WorkloadIdentity;
use crate::model::time::Span;

use super::constraint;
use super::multierror;
use super::nest;
use super::service;

const MIN_CPU_MHZ: i64 = 1;
const MIN_MEMORY_MB: i64 = 10;
/// The twelve bits of a file's mode.
const MAX_PERMISSIONS: u32 = 0o7777;
const MAX_NAME_BYTES: usize = 128;

/// All problems of one task. `ports`: problems of its older networks.
pub(super) fn errors(
    job: &Job,
    group: &TaskGroup,
    task: &Task,
    kind: JobType,
    ports: &[String],
) -> Vec<String> {
    let mut out = Vec::new();
    if task.name.is_empty() {
        out.push("Missing task name".to_owned());
    }
    if task.name.contains(['/', '\\']) {
        out.push("Task name cannot include slashes".to_owned());
    }
    if task.name.contains('\0') {
        out.push("Task name cannot include null characters".to_owned());
    }
    if task.driver.is_empty() {
        out.push("Missing task driver".to_owned());
    }
    kill_timeout(group, task, kind, &mut out);
    if task.shutdown_delay < Span::ZERO {
        out.push("ShutdownDelay must be a positive value".to_owned());
    }
    resources(task.resources.as_ref(), &mut out);
    nest(&mut out, "", ports);
    let disk = group.ephemeral_disk.as_ref().map_or(0, |disk| disk.size_mb);
    nest(&mut out, "", &logs(task.log_config.as_ref(), disk));
    constraint::constraints(&task.constraints, true, &mut out);
    constraint::affinities(&task.affinities, kind, &mut out);
    nest(&mut out, "", &service::task_errors(group, task));
    vault(task, &mut out);
    for (index, artifact) in task.artifacts.iter().enumerate() {
        let own = artifact_errors(artifact);
        nest(&mut out, &format!("Artifact {} validation failed: ", index + 1), &own);
    }
    templates(&task.templates, &mut out);
    if let Some(payload) = &task.dispatch_payload
        && escapes(&format!("local/{}", payload.file))
    {
        out.push("Dispatch Payload validation failed: destination escapes allocation directory".to_owned());
    }
    if let Some(lifecycle) = &task.lifecycle
        && !matches!(lifecycle.hook.as_str(), "prestart" | "poststart" | "poststop")
    {
        let hook = &lifecycle.hook;
        out.push(if hook.is_empty() {
            "Lifecycle validation failed: no lifecycle hook provided".to_owned()
        } else {
            format!("Lifecycle validation failed: invalid hook: {hook}")
        });
    }
    mounts(group, task, &mut out);
    csi_plugin(task, &mut out);
    identities(task, &mut out);
    actions(task, &mut out);
    kind_rules(job, group, task, &mut out);
    out
}

fn kill_timeout(group: &TaskGroup, task: &Task, kind: JobType, out: &mut Vec<String>) {
    let Some(timeout) = task.kill_timeout else { return };
    if timeout < Span::ZERO {
        out.push("KillTimeout must be a positive value".to_owned());
        return;
    }
    let deadline = group.update.as_ref().map_or(Span::ZERO, |update| update.progress_deadline);
    if kind == JobType::Service && deadline > Span::ZERO && timeout > deadline {
        out.push(format!("KillTimout ({timeout}) longer than the group's ProgressDeadline ({deadline})"));
    }
}

fn resources(resources: Option<&Resources>, out: &mut Vec<String>) {
    let Some(resources) = resources else {
        out.push("Missing task resources".to_owned());
        return;
    };
    let mut own = Vec::new();
    let mut minimums = Vec::new();
    if resources.cores > 0 && resources.cpu_mhz > 0 {
        own.push("Task can only ask for 'cpu' or 'cores' resource, not both.".to_owned());
    }
    if resources.cores < 0 {
        own.push(format!("cores value ({}) cannot be negative", resources.cores));
    }
    if resources.cores <= 0 && resources.cpu_mhz < MIN_CPU_MHZ {
        minimums.push(format!("minimum CPU value is {MIN_CPU_MHZ}; got {}", resources.cpu_mhz));
    }
    if resources.memory_mb < MIN_MEMORY_MB {
        minimums.push(format!("minimum MemoryMB value is {MIN_MEMORY_MB}; got {}", resources.memory_mb));
    }
    nest(&mut own, "", &minimums);
    if resources.disk_mb > 0 {
        let text = "Task can't ask for disk resources, they have to be specified at the task group level.";
        own.push(text.to_owned());
    }
    let (max, memory) = (resources.memory_max_mb, resources.memory_mb);
    if max != 0 && max != -1 && max < memory {
        own.push(format!("MemoryMaxMB value ({max}) should be larger than MemoryMB value ({memory})"));
    }
    let secrets = resources.secrets_mb;
    if secrets > memory {
        own.push(format!("SecretsMB value ({secrets}) cannot be larger than MemoryMB value ({memory})"));
    }
    if secrets < 0 {
        own.push(format!("SecretsMB value ({secrets}) cannot be negative"));
    }
    devices(resources, &mut own);
    nest(out, "", &own);
}

fn devices(resources: &Resources, out: &mut Vec<String>) {
    for (index, device) in resources.devices.iter().enumerate() {
        let mut own = Vec::new();
        let parts: Vec<&str> = device.name.split('/').collect();
        if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
            let text =
                "device name must be given as one of the following: type, vendor/type, or vendor/type/name";
            own.push(text.to_owned());
        }
        for (index, constraint) in device.constraints.iter().enumerate() {
            let operand = constraint.operand.as_str();
            let prefix = format!("Constraint {} validation failed: ", index + 1);
            if matches!(operand, "distinct_hosts" | "distinct_property") {
                own.push(format!("{prefix}using unsupported operand {operand:?}"));
            } else {
                nest(&mut own, &prefix, &constraint::constraint_errors(constraint));
            }
        }
        nest(out, &format!("device {} failed validation: ", index + 1), &own);
    }
    let Some(numa) = &resources.numa else { return };
    if !matches!(numa.affinity.as_str(), "none" | "prefer" | "require") {
        out.push("numa affinity must be one of none, prefer, or require".to_owned());
    } else if numa.affinity != "none" {
        let requested: BTreeSet<&str> = resources.devices.iter().map(|device| device.name.as_str()).collect();
        let missing = numa.devices.iter().filter(|name| !requested.contains(name.as_str()));
        out.extend(missing.map(|name| format!("numa device {name:?} not requested as task resource")));
    }
}

fn logs(logs: Option<&LogConfig>, disk_mb: i64) -> Vec<String> {
    let Some(logs) = logs else { return vec!["Missing Log Config".to_owned()] };
    let mut out = Vec::new();
    if logs.max_files < 1 {
        out.push(format!("minimum number of files is 1; got {}", logs.max_files));
    }
    if logs.max_file_size_mb < 1 {
        out.push(format!("minimum file size is 1MB; got {}", logs.max_file_size_mb));
    }
    let storage = logs.max_files.saturating_mul(logs.max_file_size_mb);
    if disk_mb <= storage {
        out.push(format!(
            "log storage ({storage} MB) must be less than requested disk capacity ({disk_mb} MB)"
        ));
    }
    out
}

fn vault(task: &Task, out: &mut Vec<String>) {
    let Some(vault) = &task.vault else { return };
    let text = |key: &str| vault.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
    let policies = vault.get("Policies").and_then(serde_json::Value::as_array);
    if policies.is_some_and(|policies| policies.iter().any(|policy| policy == "root")) {
        out.push("Can not specify \"root\" policy".to_owned());
    }
    match text("ChangeMode") {
        "" | "noop" | "restart" => {}
        "signal" if text("ChangeSignal").is_empty() => {
            out.push("Signal must be specified when using change mode \"signal\"".to_owned());
        }
        "signal" => {}
        other => out.push(format!("Unknown change mode {other:?}")),
    }
}

fn artifact_errors(artifact: &Artifact) -> Vec<String> {
    let mut out = Vec::new();
    if artifact.getter_source.is_empty() {
        out.push("source must be specified".to_owned());
    }
    if !matches!(artifact.getter_mode.as_str(), "" | "any" | "file" | "dir") {
        out.push(format!("invalid artifact mode {:?}; must be one of: any, file, dir", artifact.getter_mode));
    }
    if escapes(&artifact.relative_dest) {
        out.push("destination escapes allocation directory".to_owned());
    }
    out.extend(artifact.getter_options.get("checksum").and_then(|checksum| checksum_problem(checksum)));
    out
}

fn checksum_problem(checksum: &str) -> Option<String> {
    if checksum.contains("${") {
        return None;
    }
    if checksum.is_empty() {
        return Some("checksum value cannot be empty".to_owned());
    }
    let pair = checksum.split_once(':').filter(|(_, value)| !value.contains(':'));
    let Some((kind, value)) = pair else {
        return Some(format!("checksum must be given as \"type:value\"; got {checksum:?}"));
    };
    if let Some(bad) = value.chars().find(|c| !c.is_ascii_hexdigit()) {
        return Some(format!(
            "invalid checksum: encoding/hex: invalid byte: U+{:04X} {bad:?}",
            u32::from(bad)
        ));
    }
    if value.len() % 2 == 1 {
        return Some("invalid checksum: encoding/hex: odd length hex string".to_owned());
    }
    let length = match kind {
        "md5" => 32,
        "sha1" => 40,
        "sha256" => 64,
        "sha512" => 128,
        other => return Some(format!("unsupported checksum type: {other}")),
    };
    (value.len() != length).then(|| format!("invalid {kind} checksum: {value}"))
}

fn templates(templates: &[Template], out: &mut Vec<String>) {
    for (index, template) in templates.iter().enumerate() {
        let number = index + 1;
        nest(out, &format!("Template {number} validation failed: "), &template_errors(template));
        let first = templates[..index].iter().position(|other| other.dest_path == template.dest_path);
        if let Some(first) = first {
            out.push(format!("Template {number} has same destination as {}", first + 1));
        }
    }
}

fn template_errors(template: &Template) -> Vec<String> {
    let mut out = Vec::new();
    if template.source_path.is_empty() && template.embedded_tmpl.is_empty() {
        out.push("Must specify a source path or have an embedded template".to_owned());
    }
    if template.dest_path.is_empty() {
        out.push("Must specify a destination for the template".to_owned());
    }
    if escapes(&template.dest_path) {
        out.push("destination escapes allocation directory".to_owned());
    }
    match template.change_mode.as_str() {
        "noop" | "restart" => {}
        "signal" => {
            if template.change_signal.is_empty() {
                out.push("Must specify signal value when change mode is signal".to_owned());
            }
            if template.envvars {
                out.push("cannot use signals with env var templates".to_owned());
            }
        }
        "script" => match &template.change_script {
            None => out
                .push("must specify change script configuration value when change mode is script".to_owned()),
            Some(script) if script.command.is_empty() => {
                out.push("must specify script path value when change mode is script".to_owned());
            }
            Some(_) => {}
        },
        _ => out.push(
            "Invalid change mode. Must be one of the following: noop, signal, script, restart".to_owned(),
        ),
    }
    if template.splay < Span::ZERO {
        out.push("Must specify positive splay value".to_owned());
    }
    out.extend(permissions_problem(&template.perms));
    if let Some(wait) = &template.wait
        && let (Some(min), Some(max)) = (wait.min, wait.max)
        && min > max
    {
        out.push(format!("wait min {min} is greater than max {max}"));
    }
    out
}

fn permissions_problem(perms: &str) -> Option<String> {
    if perms.is_empty() {
        return None;
    }
    let why = match u32::from_str_radix(perms, 8) {
        Ok(bits) if bits <= MAX_PERMISSIONS => return None,
        Ok(_) => "value out of range",
        Err(_) => "invalid syntax",
    };
    Some(format!("Failed to parse {perms:?} as octal: strconv.ParseUint: parsing {perms:?}: {why}"))
}

/// Whether a path relative to the task's directory leaves the allocation's directory.
fn escapes(path: &str) -> bool {
    let mut depth: i64 = 1;
    for component in Path::new(path.trim_start_matches('/')).components() {
        match component {
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            _ => {}
        }
        if depth < 0 {
            return true;
        }
    }
    false
}

fn mounts(group: &TaskGroup, task: &Task, out: &mut Vec<String>) {
    for (index, mount) in task.volume_mounts.iter().enumerate() {
        if mount.volume.is_empty() && mount.destination.is_empty() {
            continue;
        }
        let mut own = Vec::new();
        if mount.destination.is_empty() {
            own.push("volume mount has an empty destination".to_owned());
        }
        if !matches!(mount.propagation_mode.as_str(), "" | "private" | "host-to-task" | "bidirectional") {
            own.push(format!("volume mount has an invalid propagation mode: {:?}", mount.propagation_mode));
        }
        if !matches!(mount.selinux_label.as_str(), "" | "z" | "Z") {
            own.push(format!("volume mount has an invalid SELinux label: {:?}", mount.selinux_label));
        }
        if !own.is_empty() {
            out.push(format!("Volume Mount ({index}) is invalid: {:?}", multierror(&own)));
        }
        if !group.volumes.contains_key(&mount.volume) {
            out.push(format!("Volume Mount ({index}) references undefined volume {}", mount.volume));
        }
    }
}

fn csi_plugin(task: &Task, out: &mut Vec<String>) {
    let Some(plugin) = &task.csi_plugin_config else { return };
    let text = |key: &str| plugin.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
    if text("ID").is_empty() {
        out.push("CSIPluginConfig must have a non-empty PluginID".to_owned());
    }
    if !matches!(text("Type"), "node" | "controller" | "monolith") {
        out.push(format!(
            "CSIPluginConfig PluginType must be one of 'node', 'controller', or 'monolith', got: {:?}",
            text("Type")
        ));
    }
}

fn identities(task: &Task, out: &mut Vec<String>) {
    if task.identities.iter().any(|identity| identity.name == "default") {
        out.push("Duplicate default identities found".to_owned());
    }
    for identity in task.identity.iter().chain(&task.identities) {
        let own = identity_errors(identity);
        nest(out, &format!("Identity {:?} is invalid: ", identity.name), &own);
    }
}

/// Problems of an identity of a task.
fn identity_errors(identity: &WorkloadIdentity) -> Vec<String> {
    let mut out = Vec::new();
    let name = &identity.name;
    let characters = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if !name.is_empty() && (!characters || name.len() > MAX_NAME_BYTES) {
        out.push(format!("invalid name {name:?}. Must match regex ^[a-zA-Z0-9-_]{{1,128}}$"));
    }
    for (index, audience) in identity.audience.iter().enumerate() {
        if audience.is_empty() {
            out.push(format!("an empty string is an invalid audience ({})", index + 1));
        }
    }
    match identity.change_mode.as_str() {
        "" | "noop" | "restart" => {
            if !identity.change_signal.is_empty() {
                let signal = &identity.change_signal;
                out.push(format!("can only use change_signal={signal:?} with change_mode=\"signal\""));
            }
        }
        "signal" if identity.change_signal.is_empty() => {
            out.push("change_signal must be specified when using change_mode=\"signal\"".to_owned());
        }
        "signal" => {}
        other => out.push(format!("invalid change_mode: {other}")),
    }
    if identity.ttl < Span::ZERO {
        out.push("ttl must be >= 0".to_owned());
    } else if identity.ttl > Span::ZERO && matches!(name.as_str(), "" | "default") {
        out.push("ttl for default identity not yet supported".to_owned());
    }
    if !identity.filepath.is_empty() && !identity.file {
        out.push("file parameter must be true in order to specify filepath".to_owned());
    }
    out
}

fn actions(task: &Task, out: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for action in &task.actions {
        let name = &action.name;
        if !seen.insert(name) {
            out.push(format!("Action {name} defined multiple times"));
        }
        let mut own = Vec::new();
        if action.command.is_empty() {
            own.push("command cannot be empty".to_owned());
        }
        if name.is_empty()
            || name.chars().count() > MAX_NAME_BYTES
            || name.contains(|c: char| c.is_whitespace() || c == '\0')
        {
            own.push(format!("invalid name '{name}'"));
        }
        nest(out, &format!("Action {name} validation failed: "), &own);
    }
}

/// Tasks that a service mesh would have injected.
fn kind_rules(_job: &Job, group: &TaskGroup, task: &Task, out: &mut Vec<String>) {
    let Some(service) = task.kind.strip_prefix("connect-proxy:") else { return };
    if task.leader {
        out.push("Connect proxy task must not have leader set".to_owned());
    }
    if !group.services.iter().any(|own| own.connect.is_some() && own.name == service) {
        out.push(format!("No Connect services in task group with Connect proxy ({service:?})"));
    }
}

/// Features that the original sells.
pub(super) fn enterprise(group: &TaskGroup, errors: &mut Vec<String>) {
    let numa = group.tasks.iter().filter_map(|task| task.resources.as_ref()?.numa.as_ref());
    if numa.into_iter().any(|numa| matches!(numa.affinity.as_str(), "prefer" | "require")) {
        errors.push("numa scheduling requires Nomad Enterprise".to_owned());
    }
    let cron = |task: &Task| task.schedule.as_ref().and_then(|schedule| schedule.get("Cron")).is_some();
    if group.tasks.iter().any(cron) {
        errors.push("task schedules requires Nomad Enterprise".to_owned());
    }
}

/// Things of a task that work but deserve attention.
pub(super) fn warnings(task: &Task) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(resources) = &task.resources {
        if resources.iops > 0 {
            out.push(
                "IOPS has been deprecated as of Nomad 0.9.0. Please remove IOPS from resource block."
                    .to_owned(),
            );
        }
        if !resources.networks.is_empty() {
            out.push(
                "task network resources have been deprecated as of Nomad 0.12.0. Please configure networking via group \
                 network block."
                    .to_owned(),
            );
        }
    }
    for (index, template) in task.templates.iter().enumerate() {
        if template.vault_grace != Span::ZERO {
            out.push(format!(
                "Template[{index}] VaultGrace has been deprecated as of Nomad 0.11 and ignored since Vault 0.5. Please \
                 remove VaultGrace / vault_grace from template block."
            ));
        }
    }
    for identity in &task.identities {
        let mut say = |problem: bool, text: &str| {
            if problem {
                out.push(format!("Identity[{}] {text}", identity.name));
            }
        };
        say(identity.audience.is_empty(), "identities without an audience are insecure");
        say(
            identity.audience.len() > 1,
            "while multiple audiences is allowed, it is more secure to use 1 audience per identity",
        );
        say(identity.ttl == Span::ZERO, "identities without an expiration are insecure");
        say(
            identity.env && identity.change_mode != "restart",
            "using env=true without change_mode=\"restart\" may result in task not getting updated identity",
        );
    }
    out
}
