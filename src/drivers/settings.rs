//! Reads what the agent's configuration says about the built-in drivers: blocks `plugin`, and the older `client {
//! options }`, which count where a plugin block says nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::model::driver_schema;
use crate::model::driver_schema::Kind;
use crate::model::driver_schema::Misfit;
use crate::model::driver_schema::Opt;
use crate::model::driver_schema::opt;

use super::DriverOptions;
use super::exec::IsolationOptions;
use super::exec::fair_pids_limit;
use super::options;
use super::options::Options;
use super::users::Denied;

const ISOLATED: &[Opt] = &[
    opt("allow_caps", Kind::Texts),
    opt("default_ipc_mode", Kind::Text),
    opt("default_pid_mode", Kind::Text),
    opt("denied_host_gids", Kind::Text),
    opt("denied_host_uids", Kind::Text),
    opt("no_pivot_root", Kind::Flag),
    opt("pids_limit", Kind::Number),
];
const RAW_EXEC: &[Opt] = &[
    opt("denied_host_gids", Kind::Text),
    opt("denied_host_uids", Kind::Text),
    opt("enabled", Kind::Flag),
    opt("no_cgroups", Kind::Flag),
    opt("pids_limit", Kind::Number),
];

const QEMU: &[Opt] = &[opt("args_allowlist", Kind::Texts), opt("image_paths", Kind::Texts)];
const MOCK: &[Opt] = &[
    opt("enabled", Kind::Flag),
    opt("fs_isolation", Kind::Text),
    opt("shutdown_periodic_after", Kind::Flag),
    opt("shutdown_periodic_duration", Kind::Number),
];

/// Older names of Docker's settings, and where they are today.
const OLD_DOCKER: &[(&str, &[&str])] = &[
    ("docker.auth.config", &["auth", "config"]),
    ("docker.auth.helper", &["auth", "helper"]),
    ("docker.caps.allowlist", &["allow_caps"]),
    ("docker.caps.whitelist", &["allow_caps"]),
    ("docker.cleanup.container", &["gc", "container"]),
    ("docker.cleanup.image", &["gc", "image"]),
    ("docker.cleanup.image.delay", &["gc", "image_delay"]),
    ("docker.endpoint", &["endpoint"]),
    ("docker.nvidia_runtime", &["nvidia_runtime"]),
    ("docker.privileged.enabled", &["allow_privileged"]),
    ("docker.tls.ca", &["tls", "ca"]),
    ("docker.tls.cert", &["tls", "cert"]),
    ("docker.tls.key", &["tls", "key"]),
    ("docker.volumes.enabled", &["volumes", "enabled"]),
    ("docker.volumes.selinuxlabel", &["volumes", "selinuxlabel"]),
    ("driver.docker.volumes", &["volumes", "enabled"]),
];

/// Reads everything into `into`; `plugin` gives the block `config` of a driver, null if there is none.
///
/// # Errors
/// Every problem, with the plugin's name.
pub fn read(
    into: &mut DriverOptions,
    plugin: impl Fn(&str) -> Value,
    client_options: &BTreeMap<String, String>,
) -> Result<(), Vec<String>> {
    let mut problems = Vec::new();
    let mut note = |name: &str, result: Result<(), Vec<String>>| {
        let found = result.err().into_iter().flatten();
        problems.extend(found.map(|text| format!("plugin {name:?}: {text}")));
    };
    let config = |name: &str| plugin(name).as_object().cloned().unwrap_or_default();
    note("docker", into.docker.read(&with_old_names(config("docker"), client_options)));
    note("exec", read_isolation(&mut into.exec, &config("exec")));
    note("java", read_isolation(&mut into.java, &config("java")));
    note("mock_driver", read_mock(into, &config("mock_driver")));
    note("qemu", read_qemu(into, &config("qemu")));
    note("raw_exec", read_raw_exec(into, &config("raw_exec")));
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Puts older options at their present places, unless something is there.
fn with_old_names(config: Map<String, Value>, old: &BTreeMap<String, String>) -> Map<String, Value> {
    let mut config = Value::Object(config);
    for (name, path) in OLD_DOCKER {
        let Some(text) = old.get(*name) else { continue };
        let value = match path {
            ["allow_caps"] => json!(text.split(',').map(str::trim).collect::<Vec<_>>()),
            _ => json!(text),
        };
        let mut place = &mut config;
        for part in *path {
            if place.is_array() {
                place = &mut place[0];
            }
            place = &mut place[*part];
        }
        if place.is_null() {
            *place = value;
        }
    }
    config.as_object().cloned().unwrap_or_default()
}

/// Every problem with names, types and values.
pub(super) fn problems_of(table: &'static [Opt], config: &Map<String, Value>) -> Vec<String> {
    driver_schema::check(table, config).iter().map(Misfit::placed).collect()
}

fn pids_limit(config: &Map<String, Value>, default: Option<u32>) -> Option<u32> {
    match config.number("pids_limit") {
        None => default,
        // Nothing and anything negative mean no limit, as in Docker.
        Some(limit) => u32::try_from(limit).ok().filter(|limit| *limit > 0),
    }
}

fn denied(config: &Map<String, Value>, problems: &mut Vec<String>) -> Denied {
    match Denied::parse(&config.text("denied_host_uids"), &config.text("denied_host_gids")) {
        Ok(denied) => denied,
        Err(text) => {
            problems.push(text);
            Denied::default()
        }
    }
}

fn read_isolation(into: &mut IsolationOptions, config: &Map<String, Value>) -> Result<(), Vec<String>> {
    let mut problems = problems_of(ISOLATED, config);
    if config.contains_key("allow_caps") {
        into.allowed_capabilities = options::capabilities(config, "allow_caps");
    }
    let modes = [("pid", &mut into.default_pid_mode), ("ipc", &mut into.default_ipc_mode)];
    for (kind, mode) in modes {
        let name = format!("default_{kind}_mode");
        match config.text(&name).as_str() {
            "" => {}
            text @ ("private" | "host") => *mode = text.to_owned(),
            text => problems.push(format!("{name} must be \"private\" or \"host\", got {text:?}")),
        }
    }
    into.no_pivot_root = config.switch("no_pivot_root");
    into.pids_limit = pids_limit(config, fair_pids_limit());
    into.denied = denied(config, &mut problems);
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn read_raw_exec(into: &mut DriverOptions, config: &Map<String, Value>) -> Result<(), Vec<String>> {
    let mut problems = problems_of(RAW_EXEC, config);
    if config.contains_key("enabled") {
        into.raw_exec = config.switch("enabled");
    }
    into.raw_exec_pids_limit = pids_limit(config, None);
    into.raw_exec_no_cgroups = config.switch("no_cgroups");
    if into.raw_exec_no_cgroups && into.raw_exec_pids_limit.is_some() {
        problems.push("pids_limit needs control groups, which no_cgroups switches off".to_owned());
    }
    into.raw_exec_denied = denied(config, &mut problems);
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn read_qemu(into: &mut DriverOptions, config: &Map<String, Value>) -> Result<(), Vec<String>> {
    into.qemu.image_paths = config.list("image_paths").into_iter().map(PathBuf::from).collect();
    into.qemu.args_allowlist = config.list("args_allowlist");
    let problems = problems_of(QEMU, config);
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn read_mock(into: &mut DriverOptions, config: &Map<String, Value>) -> Result<(), Vec<String>> {
    let mut problems = problems_of(MOCK, config);
    if config.contains_key("enabled") {
        into.mock = config.switch("enabled");
    }
    let isolation = config.text("fs_isolation");
    if !["", "none"].contains(&isolation.as_str()) {
        problems.push(format!("fs_isolation {isolation:?} is not supported: it must be \"none\""));
    }
    if config.switch("shutdown_periodic_after") {
        let seconds =
            config.number("shutdown_periodic_duration").and_then(|number| u64::try_from(number).ok());
        into.mock_health.period = seconds.map(Duration::from_secs);
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(plugins: Value, old: &[(&str, &str)]) -> Result<DriverOptions, Vec<String>> {
        let old = old.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut options = DriverOptions::default();
        super::read(&mut options, |name| plugins[name].clone(), &old).map(|()| options)
    }

    #[test]
    fn older_options_count_where_the_plugin_block_is_silent() {
        let old = [
            ("docker.privileged.enabled", "true"),
            ("docker.volumes.enabled", "1"),
            ("docker.cleanup.image.delay", "7s"),
            ("docker.caps.whitelist", "CHOWN, NET_RAW"),
            ("docker.endpoint", "tcp://127.0.0.1:2376"),
            ("docker.tls.cert", "c.pem"),
            ("docker.tls.key", "k.pem"),
            ("docker.tls.ca", "a.pem"),
        ];
        let options = read(json!({}), &old).unwrap().docker;
        assert!(options.allow_privileged && options.volumes_enabled);
        assert_eq!(options.allowed_capabilities, ["chown", "net_raw"]);
        assert_eq!(options.gc.image_delay.as_secs(), 7);
        assert_eq!(options.tls.map(|tls| tls.ca), Some("a.pem".into()));
        let plugins = json!({"docker": {"allow_privileged": false, "volumes": [{"enabled": false}]}});
        let options = read(plugins, &old).unwrap().docker;
        assert!(!options.allow_privileged && !options.volumes_enabled);
    }

    #[test]
    fn isolation_can_be_configured_per_driver() {
        let plugins = json!({
            "exec": {"default_pid_mode": "host", "allow_caps": ["CAP_NET_ADMIN"], "denied_host_uids": "0-99", "no_pivot_root": true},
            "java": {"default_ipc_mode": "host", "pids_limit": 20},
            "raw_exec": {"enabled": true, "denied_host_gids": "7", "pids_limit": 10},
        });
        let options = read(plugins, &[]).unwrap();
        assert_eq!(options.exec.default_pid_mode, "host");
        assert_eq!(options.exec.default_ipc_mode, "private");
        assert_eq!(options.exec.allowed_capabilities, ["net_admin"]);
        assert_eq!(options.exec.denied, Denied::parse("0-99", "").unwrap());
        assert!(options.exec.no_pivot_root && options.exec.pids_limit.is_some_and(|limit| limit > 100));
        assert_eq!((options.java.default_ipc_mode.as_str(), options.java.pids_limit), ("host", Some(20)));
        assert!(options.raw_exec);
        assert_eq!(options.raw_exec_denied, Denied::parse("", "7").unwrap());
        assert_eq!(options.raw_exec_pids_limit, Some(10));
    }

    #[test]
    fn every_problem_is_named_with_its_plugin() {
        let plugins = json!({
            "exec": {"default_pid_mode": "shared", "denied_host_uids": "x"},
            "raw_exec": {"enable": true, "no_cgroups": true, "pids_limit": 7},
        });
        assert_eq!(
            read(plugins, &[]).unwrap_err(),
            [
                "plugin \"exec\": default_pid_mode must be \"private\" or \"host\", got \"shared\"",
                "plugin \"exec\": invalid range of ids \"x\": expected a number, or two joined by a hyphen",
                "plugin \"raw_exec\": Invalid label: No argument or block type is named \"enable\".",
                "plugin \"raw_exec\": pids_limit needs control groups, which no_cgroups switches off",
            ]
        );
    }
}
