//! Checks the options of a job file without asking Docker.

use serde_json::Map;
use serde_json::Value;

use crate::drivers::options::Kind;
use crate::drivers::options::Opt;
use crate::drivers::options::Options;
use crate::drivers::options::capabilities;
use crate::drivers::options::check;
use crate::drivers::options::opt;
use crate::drivers::options::required;

use super::DockerOptions;
use super::config::limit_of;

const OPTIONS: &[Opt] = &[
    required("image", Kind::Text),
    opt("advertise_ipv6_address", Kind::Bool),
    opt("args", Kind::TextList),
    opt("auth", Kind::Block),
    opt("auth_soft_fail", Kind::Bool),
    opt("cap_add", Kind::TextList),
    opt("cap_drop", Kind::TextList),
    opt("command", Kind::Text),
    opt("container_exists_attempts", Kind::Number),
    opt("cpu_cfs_period", Kind::Number),
    opt("cpu_hard_limit", Kind::Bool),
    opt("cpuset_cpus", Kind::Text),
    opt("devices", Kind::Block),
    opt("dns_options", Kind::TextList),
    opt("dns_search_domains", Kind::TextList),
    opt("dns_servers", Kind::TextList),
    opt("entrypoint", Kind::TextList),
    opt("extra_hosts", Kind::TextList),
    opt("force_pull", Kind::Bool),
    opt("group_add", Kind::TextList),
    opt("healthchecks", Kind::Block),
    opt("hostname", Kind::Text),
    opt("image_pull_timeout", Kind::Text),
    opt("init", Kind::Bool),
    opt("interactive", Kind::Bool),
    opt("ipc_mode", Kind::Text),
    opt("ipv4_address", Kind::Text),
    opt("ipv6_address", Kind::Text),
    opt("isolation", Kind::Text),
    opt("labels", Kind::Map),
    opt("load", Kind::Text),
    opt("logging", Kind::Block),
    opt("mac_address", Kind::Text),
    opt("memory_hard_limit", Kind::Number),
    opt("mount", Kind::Block),
    opt("mounts", Kind::Block),
    opt("network_aliases", Kind::TextList),
    opt("network_mode", Kind::Text),
    opt("oom_score_adj", Kind::Number),
    opt("pid_mode", Kind::Text),
    opt("pids_limit", Kind::Number),
    opt("port_map", Kind::Map),
    opt("ports", Kind::TextList),
    opt("privileged", Kind::Bool),
    opt("readonly_rootfs", Kind::Bool),
    opt("runtime", Kind::Text),
    opt("security_opt", Kind::TextList),
    opt("shm_size", Kind::Number),
    opt("storage_opt", Kind::Map),
    opt("sysctl", Kind::Map),
    opt("tty", Kind::Bool),
    opt("ulimit", Kind::Map),
    opt("userns_mode", Kind::Text),
    opt("uts_mode", Kind::Text),
    opt("volume_driver", Kind::Text),
    opt("volumes", Kind::TextList),
    opt("work_dir", Kind::Text),
];

const AUTH: &[Opt] = &[
    opt("email", Kind::Text),
    opt("password", Kind::Text),
    opt("server_address", Kind::Text),
    opt("username", Kind::Text),
];
const DEVICE: &[Opt] = &[
    opt("cgroup_permissions", Kind::Text),
    opt("container_path", Kind::Text),
    required("host_path", Kind::Text),
];
const HEALTHCHECKS: &[Opt] = &[opt("disable", Kind::Bool)];
const LOGGING: &[Opt] = &[opt("config", Kind::Map), opt("driver", Kind::Text), opt("type", Kind::Text)];
const MOUNT: &[Opt] = &[
    opt("bind_options", Kind::Block),
    opt("readonly", Kind::Bool),
    opt("source", Kind::Text),
    required("target", Kind::Text),
    opt("tmpfs_options", Kind::Block),
    opt("type", Kind::Text),
    opt("volume_options", Kind::Block),
];
const MOUNT_BIND: &[Opt] = &[opt("propagation", Kind::Text)];
const MOUNT_TMPFS: &[Opt] = &[opt("mode", Kind::Number), opt("size", Kind::Number)];
const MOUNT_VOLUME: &[Opt] =
    &[opt("driver_config", Kind::Block), opt("labels", Kind::Map), opt("no_copy", Kind::Bool)];
const VOLUME_DRIVER: &[Opt] = &[opt("name", Kind::Text), opt("options", Kind::Map)];

/// Problems with names and types.
pub(super) fn schema(config: &Map<String, Value>) -> Vec<String> {
    let mut problems = check(OPTIONS, config);
    check_blocks(config, &mut problems);
    problems
}

/// Problems with values, and with what the agent forbids.
pub(super) fn rules(options: &DockerOptions, config: &Map<String, Value>) -> Vec<String> {
    let mut problems = Vec::new();
    check_rights(options, config, &mut problems);
    let command = config.text("command");
    if config.contains_key("command") && command.trim().is_empty() {
        problems.push(format!("command empty: {command:?}"));
    } else if command.trim() != command {
        problems.push(format!("command contains extra white space: {command:?}"));
    }
    if config.number("cpu_cfs_period").is_some_and(|period| !(0..=1_000_000).contains(&period)) {
        problems.push("invalid value for cpu_cfs_period".to_owned());
    }
    let timeout = config.text("image_pull_timeout");
    if !timeout.is_empty()
        && let Err(error) = crate::model::time::Span::parse(&timeout)
    {
        problems.push(format!("image_pull_timeout {timeout:?} is not a duration: {error}"));
    }
    for (name, value) in config.pairs("ulimit") {
        if limit_of(&name, &value).is_none() {
            problems.push(format!("malformed ulimit {name}: {value:?}"));
        }
    }
    let isolation = config.text("isolation");
    if !["", "default", "process", "hyperv"].contains(&isolation.as_str()) {
        problems.push(format!("invalid isolation {isolation:?}"));
    }
    problems
}

/// Checks what stands inside the blocks.
fn check_blocks(config: &Map<String, Value>, problems: &mut Vec<String>) {
    let mut look = |within: &Map<String, Value>, name: &str, table: &[Opt]| {
        for block in within.blocks(name) {
            problems.extend(check(table, &block).into_iter().map(|text| format!("{name}: {text}")));
        }
    };
    look(config, "auth", AUTH);
    look(config, "devices", DEVICE);
    look(config, "healthchecks", HEALTHCHECKS);
    look(config, "logging", LOGGING);
    for name in ["mount", "mounts"] {
        look(config, name, MOUNT);
        for mount in config.blocks(name) {
            look(&mount, "bind_options", MOUNT_BIND);
            look(&mount, "tmpfs_options", MOUNT_TMPFS);
            look(&mount, "volume_options", MOUNT_VOLUME);
            for volume in mount.blocks("volume_options") {
                look(&volume, "driver_config", VOLUME_DRIVER);
            }
        }
    }
}

/// Checks what the agent may forbid.
fn check_rights(options: &DockerOptions, config: &Map<String, Value>, problems: &mut Vec<String>) {
    if config.switch("privileged") && !options.allow_privileged {
        problems.push("Docker privileged mode is disabled on this Nomad agent".to_owned());
    }
    // Who shares these with the host can reach other tasks' memory and files.
    for name in ["pid_mode", "ipc_mode", "userns_mode"] {
        if config.text(name) == "host" && !options.allow_privileged {
            problems.push(format!("{name} \"host\" is disabled on this agent: it needs allow_privileged"));
        }
    }
    let everything = options.allowed_capabilities.iter().any(|one| one == "all");
    let refused: Vec<String> = capabilities(config, "cap_add")
        .into_iter()
        .filter(|name| !everything && !options.allowed_capabilities.contains(name))
        .collect();
    if !refused.is_empty() {
        problems.push(format!("driver does not allow the following capabilities: {}", refused.join(", ")));
    }
    let runtime = config.text("runtime");
    if !runtime.is_empty() && !options.allowed_runtimes.contains(&runtime) {
        problems.push(format!("requested runtime {runtime:?} is not allowed"));
    }
    if let (Some(asked), Some(most)) = (config.number("pids_limit"), options.pids_limit)
        && asked > i64::from(most)
    {
        problems.push(format!("pids_limit cannot be greater than the agent's limit of {most}, got {asked}"));
    }
}
