//! Tasks: their own fields, resources, templates, artifacts, mounts.

use std::collections::BTreeSet;
use std::path::Component;
use std::path::Path;

use serde_json::Value;

use crate::model::group::TaskGroup;
use crate::model::job::JobType;
use crate::model::resources::Resources;
use crate::model::task::Artifact;
use crate::model::task::LogConfig;
use crate::model::task::Task;
use crate::model::task::Template;
use crate::model::task::WorkloadIdentity;
use crate::model::time::Span;

use super::constraint;
use super::driver;
use super::problem::Findings;
use super::problem::Pick;
use super::service;

const MIN_CPU_MHZ: i64 = 1;
const MIN_MEMORY_MB: i64 = 10;
/// The twelve bits of a file's mode.
const MAX_PERMISSIONS: u32 = 0o7777;
const MAX_NAME_BYTES: usize = 128;

/// All problems of one task. `ports`: problems of its older networks.
pub(super) fn errors(
    group: &TaskGroup,
    task: &Task,
    kind: JobType,
    ports: Findings,
    found: &Findings,
) -> Findings {
    let mut out = found.block("task", &task.name);
    if task.name.is_empty() {
        out.push("Missing task name");
    }
    if task.name.contains(['/', '\\']) {
        out.push("Task name cannot include slashes");
    }
    if task.name.contains('\0') {
        out.push("Task name cannot include null characters");
    }
    if task.driver.is_empty() {
        out.at("driver", "Missing task driver");
    }
    kill_timeout(group, task, kind, &mut out);
    if task.shutdown_delay < Span::ZERO {
        out.at("shutdown_delay", "ShutdownDelay must be a positive value");
    }
    resources(task.resources.as_ref(), &mut out);
    out.nest("", ports);
    let disk = group.ephemeral_disk.as_ref().map_or(0, |disk| disk.size_mb);
    let logs = logs(task.log_config.as_ref(), disk, &out);
    out.nest("", logs);
    constraint::constraints(&task.constraints, true, &mut out);
    constraint::affinities(&task.affinities, kind, &mut out);
    let services = service::task_errors(group, task, &out);
    out.nest("", services);
    vault(task, &mut out);
    for (index, artifact) in task.artifacts.iter().enumerate() {
        let mut own = out.block("artifact", index);
        artifact_errors(artifact, &mut own);
        out.nest(format!("Artifact {} validation failed: ", index + 1), own);
    }
    templates(&task.templates, &mut out);
    surroundings(task, &mut out);
    mounts(group, task, &mut out);
    csi_plugin(task, &mut out);
    identities(task, &mut out);
    actions(task, &mut out);
    kind_rules(group, task, &mut out);
    driver::options(group, task, &mut out);
    out
}

/// The payload's file, and when the task runs.
fn surroundings(task: &Task, out: &mut Findings) {
    if let Some(payload) = &task.dispatch_payload
        && escapes(&format!("local/{}", payload.file))
    {
        let mut own = out.block("dispatch_payload", 0);
        let text = "Dispatch Payload validation failed: destination escapes allocation directory";
        own.at("file", text);
        out.absorb(own);
    }
    if let Some(lifecycle) = &task.lifecycle
        && !matches!(lifecycle.hook.as_str(), "prestart" | "poststart" | "poststop")
    {
        let mut own = out.block("lifecycle", 0);
        own.at(
            "hook",
            match lifecycle.hook.as_str() {
                "" => "Lifecycle validation failed: no lifecycle hook provided".to_owned(),
                hook => format!("Lifecycle validation failed: invalid hook: {hook}"),
            },
        );
        out.absorb(own);
    }
}

fn kill_timeout(group: &TaskGroup, task: &Task, kind: JobType, out: &mut Findings) {
    let Some(timeout) = task.kill_timeout else { return };
    if timeout < Span::ZERO {
        out.at("kill_timeout", "KillTimeout must be a positive value");
        return;
    }
    let deadline = group.update.as_ref().map_or(Span::ZERO, |update| update.progress_deadline);
    if kind == JobType::Service && deadline > Span::ZERO && timeout > deadline {
        let text = format!("KillTimout ({timeout}) longer than the group's ProgressDeadline ({deadline})");
        out.at("kill_timeout", text);
    }
}

fn resources(resources: Option<&Resources>, out: &mut Findings) {
    let Some(resources) = resources else {
        out.push("Missing task resources");
        return;
    };
    let mut own = out.block("resources", 0);
    let mut minimums = own.same();
    if resources.cores > 0 && resources.cpu_mhz > 0 {
        own.at("cpu", "Task can only ask for 'cpu' or 'cores' resource, not both.");
    }
    if resources.cores < 0 {
        own.at("cores", format!("cores value ({}) cannot be negative", resources.cores));
    }
    if resources.cores <= 0 && resources.cpu_mhz < MIN_CPU_MHZ {
        minimums.at("cpu", format!("minimum CPU value is {MIN_CPU_MHZ}; got {}", resources.cpu_mhz));
    }
    if resources.memory_mb < MIN_MEMORY_MB {
        let text = format!("minimum MemoryMB value is {MIN_MEMORY_MB}; got {}", resources.memory_mb);
        minimums.at("memory", text);
    }
    own.nest("", minimums);
    if resources.disk_mb > 0 {
        let text = "Task can't ask for disk resources, they have to be specified at the task group level.";
        own.at("disk", text);
    }
    let (max, memory) = (resources.memory_max_mb, resources.memory_mb);
    if max != 0 && max != -1 && max < memory {
        let text = format!("MemoryMaxMB value ({max}) should be larger than MemoryMB value ({memory})");
        own.at("memory_max", text);
    }
    let secrets = resources.secrets_mb;
    if secrets > memory {
        let text = format!("SecretsMB value ({secrets}) cannot be larger than MemoryMB value ({memory})");
        own.at("secrets", text);
    }
    if secrets < 0 {
        own.at("secrets", format!("SecretsMB value ({secrets}) cannot be negative"));
    }
    devices(resources, &mut own);
    out.nest("", own);
}

fn devices(resources: &Resources, out: &mut Findings) {
    for (index, device) in resources.devices.iter().enumerate() {
        let mut own = out.block("device", &device.name);
        let parts: Vec<&str> = device.name.split('/').collect();
        if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
            own.push(
                "device name must be given as one of the following: type, vendor/type, or vendor/type/name",
            );
        }
        for (index, constraint) in device.constraints.iter().enumerate() {
            let operand = constraint.operand.as_str();
            let prefix = format!("Constraint {} validation failed: ", index + 1);
            let mut inner = own.block("constraint", index);
            if matches!(operand, "distinct_hosts" | "distinct_property") {
                inner.at("operator", format!("{prefix}using unsupported operand {operand:?}"));
                own.absorb(inner);
            } else {
                constraint::constraint_errors(constraint, &mut inner);
                own.nest(prefix, inner);
            }
        }
        constraint::affinities(&device.affinities, JobType::Service, &mut own);
        out.nest(format!("device {} failed validation: ", index + 1), own);
    }
    let Some(numa) = &resources.numa else { return };
    let mut own = out.block("numa", 0);
    if !matches!(numa.affinity.as_str(), "none" | "prefer" | "require") {
        own.at("affinity", "numa affinity must be one of none, prefer, or require");
    } else if numa.affinity != "none" {
        let requested: BTreeSet<&str> = resources.devices.iter().map(|device| device.name.as_str()).collect();
        let missing = numa.devices.iter().filter(|name| !requested.contains(name.as_str()));
        missing.for_each(|name| {
            own.at("devices", format!("numa device {name:?} not requested as task resource"));
        });
    }
    out.absorb(own);
}

fn logs(logs: Option<&LogConfig>, disk_mb: i64, found: &Findings) -> Findings {
    let mut out = found.block("logs", 0);
    let Some(logs) = logs else {
        out.push("Missing Log Config");
        return out;
    };
    if logs.max_files < 1 {
        out.at("max_files", format!("minimum number of files is 1; got {}", logs.max_files));
    }
    if logs.max_file_size_mb < 1 {
        out.at("max_file_size", format!("minimum file size is 1MB; got {}", logs.max_file_size_mb));
    }
    let storage = logs.max_files.saturating_mul(logs.max_file_size_mb);
    if disk_mb <= storage {
        out.push(format!(
            "log storage ({storage} MB) must be less than requested disk capacity ({disk_mb} MB)"
        ));
    }
    out
}

fn vault(task: &Task, out: &mut Findings) {
    let Some(vault) = &task.vault else { return };
    let mut own = out.block("vault", 0);
    let text = |key: &str| vault.get(key).and_then(Value::as_str).unwrap_or_default();
    if vault_policies(vault).contains(&"root") {
        own.at("policies", "Can not specify \"root\" policy");
    }
    match text("ChangeMode") {
        "" | "noop" | "restart" => {}
        "signal" if text("ChangeSignal").is_empty() => {
            own.at("change_mode", "Signal must be specified when using change mode \"signal\"");
        }
        "signal" => {}
        other => own.at("change_mode", format!("Unknown change mode {other:?}")),
    }
    out.absorb(own);
}

fn vault_policies(vault: &Value) -> Vec<&str> {
    let policies = vault.get("Policies").and_then(Value::as_array);
    policies.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Without an identity for Vault, a task must name the policies of its token.
pub(super) fn vault_access(group: &TaskGroup, errors: &mut Findings) {
    for task in &group.tasks {
        let Some(vault) = &task.vault else { continue };
        let cluster = vault.get("Cluster").and_then(Value::as_str).unwrap_or("default");
        let wanted = format!("vault_{cluster}");
        let has_identity = task.identities.iter().any(|identity| identity.name == wanted);
        if !has_identity && vault_policies(vault).is_empty() {
            let mut own = errors.block("group", &group.name).block("task", &task.name).block("vault", 0);
            own.push(format!("Task {} has a Vault block with an empty list of policies", task.name));
            errors.absorb(own);
        }
    }
}

fn artifact_errors(artifact: &Artifact, out: &mut Findings) {
    if artifact.getter_source.is_empty() {
        out.at("source", "source must be specified");
    }
    let mode = &artifact.getter_mode;
    if !matches!(mode.as_str(), "" | "any" | "file" | "dir") {
        out.at("mode", format!("invalid artifact mode {mode:?}; must be one of: any, file, dir"));
    }
    if escapes(&artifact.relative_dest) {
        out.at("destination", "destination escapes allocation directory");
    }
    if let Some(why) = artifact.getter_options.get("checksum").and_then(|checksum| checksum_problem(checksum))
    {
        let mut own = out.block("options", 0);
        own.at("checksum", why);
        out.absorb(own);
    }
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

fn templates(templates: &[Template], out: &mut Findings) {
    for (index, template) in templates.iter().enumerate() {
        let number = index + 1;
        let mut own = out.block("template", index);
        let mut beside = own.same();
        template_errors(template, &mut own);
        out.nest(format!("Template {number} validation failed: "), own);
        let first = templates[..index].iter().position(|other| other.dest_path == template.dest_path);
        if let Some(first) = first {
            let text = format!("Template {number} has same destination as {}", first + 1);
            beside.at("destination", text);
        }
        out.absorb(beside);
    }
}

fn template_errors(template: &Template, out: &mut Findings) {
    if template.source_path.is_empty() && template.embedded_tmpl.is_empty() {
        out.push("Must specify a source path or have an embedded template");
    }
    if template.dest_path.is_empty() {
        out.at("destination", "Must specify a destination for the template");
    }
    if escapes(&template.dest_path) {
        out.at("destination", "destination escapes allocation directory");
    }
    match template.change_mode.as_str() {
        "noop" | "restart" => {}
        "signal" => {
            if template.change_signal.is_empty() {
                out.at("change_mode", "Must specify signal value when change mode is signal");
            }
            if template.envvars {
                out.at("env", "cannot use signals with env var templates");
            }
        }
        "script" => match &template.change_script {
            None => {
                out.at(
                    "change_mode",
                    "must specify change script configuration value when change mode is script",
                );
            }
            Some(script) if script.command.is_empty() => {
                let mut own = out.block("change_script", 0);
                own.at("command", "must specify script path value when change mode is script");
                out.absorb(own);
            }
            Some(_) => {}
        },
        _ => out.at(
            "change_mode",
            "Invalid change mode. Must be one of the following: noop, signal, script, restart",
        ),
    }
    if template.splay < Span::ZERO {
        out.at("splay", "Must specify positive splay value");
    }
    if let Some(why) = permissions_problem(&template.perms) {
        out.at("perms", why);
    }
    if let Some(wait) = &template.wait
        && let (Some(min), Some(max)) = (wait.min, wait.max)
        && min > max
    {
        let mut own = out.block("wait", 0);
        own.at("min", format!("wait min {min} is greater than max {max}"));
        out.absorb(own);
    }
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

fn mounts(group: &TaskGroup, task: &Task, out: &mut Findings) {
    for (index, mount) in task.volume_mounts.iter().enumerate() {
        if mount.volume.is_empty() && mount.destination.is_empty() {
            continue;
        }
        let mut own = out.block("volume_mount", index);
        let mut beside = own.same();
        if mount.destination.is_empty() {
            own.at("destination", "volume mount has an empty destination");
        }
        let mode = &mount.propagation_mode;
        if !matches!(mode.as_str(), "" | "private" | "host-to-task" | "bidirectional") {
            own.at("propagation_mode", format!("volume mount has an invalid propagation mode: {mode:?}"));
        }
        let label = &mount.selinux_label;
        if !matches!(label.as_str(), "" | "z" | "Z") {
            own.at("selinux_label", format!("volume mount has an invalid SELinux label: {label:?}"));
        }
        if !own.is_empty() {
            out.quoted(format!("Volume Mount ({index}) is invalid: {:?}", own.text()), own);
        }
        if !group.volumes.contains_key(&mount.volume) {
            let volume = &mount.volume;
            beside.at("volume", format!("Volume Mount ({index}) references undefined volume {volume}"));
        }
        out.absorb(beside);
    }
}

fn csi_plugin(task: &Task, out: &mut Findings) {
    let Some(plugin) = &task.csi_plugin_config else { return };
    let mut own = out.block("csi_plugin", 0);
    let text = |key: &str| plugin.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("ID").is_empty() {
        own.at("id", "CSIPluginConfig must have a non-empty PluginID");
    }
    if !matches!(text("Type"), "node" | "controller" | "monolith") {
        own.at(
            "type",
            format!(
                "CSIPluginConfig PluginType must be one of 'node', 'controller', or 'monolith', got: {:?}",
                text("Type")
            ),
        );
    }
    out.absorb(own);
}

fn identities(task: &Task, out: &mut Findings) {
    if task.identities.iter().any(|identity| identity.name == "default") {
        out.push("Duplicate default identities found");
    }
    for identity in task.identity.iter().chain(&task.identities) {
        let mut own = out.block("identity", &identity.name);
        identity_errors(identity, &mut own);
        out.nest(format!("Identity {:?} is invalid: ", identity.name), own);
    }
}

/// Problems of an identity of a task.
fn identity_errors(identity: &WorkloadIdentity, out: &mut Findings) {
    let name = &identity.name;
    let characters = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if !name.is_empty() && (!characters || name.len() > MAX_NAME_BYTES) {
        out.at("name", format!("invalid name {name:?}. Must match regex ^[a-zA-Z0-9-_]{{1,128}}$"));
    }
    for (index, audience) in identity.audience.iter().enumerate() {
        if audience.is_empty() {
            out.at("aud", format!("an empty string is an invalid audience ({})", index + 1));
        }
    }
    let signal = &identity.change_signal;
    match identity.change_mode.as_str() {
        "" | "noop" | "restart" => {
            if !signal.is_empty() {
                let text = format!("can only use change_signal={signal:?} with change_mode=\"signal\"");
                out.at("change_signal", text);
            }
        }
        "signal" if signal.is_empty() => {
            out.at("change_mode", "change_signal must be specified when using change_mode=\"signal\"");
        }
        "signal" => {}
        other => out.at("change_mode", format!("invalid change_mode: {other}")),
    }
    if identity.ttl < Span::ZERO {
        out.at("ttl", "ttl must be >= 0");
    } else if identity.ttl > Span::ZERO && matches!(name.as_str(), "" | "default") {
        out.at("ttl", "ttl for default identity not yet supported");
    }
    if !identity.filepath.is_empty() && !identity.file {
        out.at("filepath", "file parameter must be true in order to specify filepath");
    }
}

fn actions(task: &Task, out: &mut Findings) {
    let mut seen = BTreeSet::new();
    for action in &task.actions {
        let name = &action.name;
        let mut own = out.block("action", name);
        if !seen.insert(name) {
            let mut second = out.block("action", Pick::Again(name.clone()));
            second.push(format!("Action {name} defined multiple times"));
            out.absorb(second);
        }
        if action.command.is_empty() {
            own.at("command", "command cannot be empty");
        }
        if name.is_empty()
            || name.chars().count() > MAX_NAME_BYTES
            || name.contains(|c: char| c.is_whitespace() || c == '\0')
        {
            own.push(format!("invalid name '{name}'"));
        }
        out.nest(format!("Action {name} validation failed: "), own);
    }
}

/// Tasks that a service mesh would have injected.
fn kind_rules(group: &TaskGroup, task: &Task, out: &mut Findings) {
    let Some(service) = task.kind.strip_prefix("connect-proxy:") else { return };
    if task.leader {
        out.at("leader", "Connect proxy task must not have leader set");
    }
    if !group.services.iter().any(|own| own.connect.is_some() && own.name == service) {
        out.at("kind", format!("No Connect services in task group with Connect proxy ({service:?})"));
    }
}

/// Features that the original sells.
pub(super) fn enterprise(group: &TaskGroup, errors: &mut Findings) {
    let of_group = errors.block("group", &group.name);
    for task in &group.tasks {
        let numa = task.resources.as_ref().and_then(|resources| resources.numa.as_ref());
        if numa.is_some_and(|numa| matches!(numa.affinity.as_str(), "prefer" | "require")) {
            let mut own = of_group.block("task", &task.name).block("resources", 0).block("numa", 0);
            own.at("affinity", "numa scheduling requires Nomad Enterprise");
            errors.absorb(own);
            break;
        }
    }
    for task in &group.tasks {
        if task.schedule.as_ref().and_then(|schedule| schedule.get("Cron")).is_some() {
            let mut own = of_group.block("task", &task.name).block("schedule", 0);
            own.push("task schedules requires Nomad Enterprise");
            errors.absorb(own);
            break;
        }
    }
}

/// Consul clusters beside the default one are sold, too.
pub(super) fn consul_clusters(group: &TaskGroup, errors: &mut Findings) {
    let of_group = errors.block("group", &group.name);
    let of_tasks = group
        .tasks
        .iter()
        .map(|task| (task.consul.as_ref(), of_group.block("task", &task.name).block("consul", 0)));
    let own = [(group.consul.as_ref(), of_group.block("consul", 0))];
    for (consul, mut place) in own.into_iter().chain(of_tasks) {
        let cluster = consul.and_then(|consul| consul.get("Cluster")).and_then(Value::as_str);
        if cluster.is_some_and(|cluster| !matches!(cluster, "" | "default")) {
            place.at("cluster", "non-default Consul cluster requires Nomad Enterprise");
            errors.absorb(place);
        }
    }
}

/// Things of a task that work but deserve attention.
pub(super) fn warnings(task: &Task, found: &Findings) -> Findings {
    let mut out = found.block("task", &task.name);
    if let Some(resources) = &task.resources {
        let mut own = out.block("resources", 0);
        if resources.iops > 0 {
            own.at(
                "iops",
                "IOPS has been deprecated as of Nomad 0.9.0. Please remove IOPS from resource block.",
            );
        }
        if !resources.networks.is_empty() {
            let mut network = own.block("network", 0);
            network.push(
                "task network resources have been deprecated as of Nomad 0.12.0. Please configure networking via group \
                 network block.",
            );
            own.absorb(network);
        }
        out.absorb(own);
    }
    for (index, template) in task.templates.iter().enumerate() {
        if template.vault_grace != Span::ZERO {
            let mut own = out.block("template", index);
            own.at(
                "vault_grace",
                format!(
                    "Template[{index}] VaultGrace has been deprecated as of Nomad 0.11 and ignored since Vault 0.5. Please \
                     remove VaultGrace / vault_grace from template block."
                ),
            );
            out.absorb(own);
        }
    }
    for identity in &task.identities {
        let mut own = out.same();
        identity_warnings(identity, &mut own);
        out.absorb(own.prefixed(&format!("Identity[{}] ", identity.name)));
    }
    let services = service::warnings(&task.services, &out);
    out.absorb(services);
    out
}

/// What makes an identity less safe than it could be.
pub(super) fn identity_warnings(identity: &WorkloadIdentity, out: &mut Findings) {
    if identity.audience.is_empty() {
        out.push("identities without an audience are insecure");
    }
    if identity.audience.len() > 1 {
        out.at(
            "aud",
            "while multiple audiences is allowed, it is more secure to use 1 audience per identity",
        );
    }
    if identity.ttl == Span::ZERO {
        out.push("identities without an expiration are insecure");
    }
    if identity.env && identity.change_mode != "restart" {
        out.at(
            "env",
            "using env=true without change_mode=\"restart\" may result in task not getting updated identity",
        );
    }
}
