//! Checks the options of a job file without asking Docker.

use serde_json::Map;
use serde_json::Value;

use crate::drivers::options::Options;
use crate::drivers::options::capabilities;
use crate::drivers::value_problems;

use super::DockerOptions;

/// Problems with values, and with what the agent forbids.
pub(super) fn rules(options: &DockerOptions, config: &Map<String, Value>) -> Vec<String> {
    let mut problems = Vec::new();
    check_rights(options, config, &mut problems);
    problems.extend(value_problems("docker", config));
    problems
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
