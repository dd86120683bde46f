//! The environment of a task (`NOMAD_*` and its own), and the names that can be used in `${…}`.

use std::collections::BTreeMap;

use serde_json::Map;
use serde_json::Value;

use crate::drivers::TaskDirs;
use crate::drivers::options::Options as _;
use crate::model::allocation::Allocation;
use crate::model::allocation::NetworkStatus;
use crate::model::group::TaskGroup;
use crate::model::interpolate::interpolate;
use crate::model::job::Job;
use crate::model::network::Network;
use crate::model::node::NodeInfo;
use crate::model::task::Task;

/// Drivers whose tasks see their own root directory.
const OWN_ROOT: &[&str] = &["docker", "exec", "java"];
/// Drivers whose tasks inherit the agent's environment.
const HOST_ENV: &[&str] = &["exec", "raw_exec", "java", "mock_driver"];
/// Never inherited: secrets of the host.
const HOST_ENV_DENIED: &[&str] = &[
    "CONSUL_TOKEN",
    "CONSUL_HTTP_TOKEN",
    "CONSUL_HTTP_TOKEN_FILE",
    "NOMAD_TOKEN",
    "HERDER_TOKEN",
    "VAULT_TOKEN",
    "CONSUL_LICENSE",
    "NOMAD_LICENSE",
    "VAULT_LICENSE",
    "CONSUL_LICENSE_PATH",
    "NOMAD_LICENSE_PATH",
    "VAULT_LICENSE_PATH",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_METADATA_URL",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_OAUTH_ACCESS_TOKEN",
];
/// Names with these beginnings are made fit for shells.
const CLEANED: &[&str] = &["NOMAD_ADDR_", "NOMAD_IP_", "NOMAD_PORT_", "NOMAD_HOST_PORT_", "NOMAD_META_"];
const PARENT_CGROUP: &str = "nomad.slice";

/// Everything the environment of one task is made of.
#[derive(Clone, Copy)]
pub struct EnvSource<'a> {
    pub allocation: &'a Allocation,
    pub job: &'a Job,
    pub group: &'a TaskGroup,
    pub task: &'a Task,
    pub node: &'a NodeInfo,
    /// See [`node_names`].
    pub node_names: &'a BTreeMap<String, String>,
    pub region: &'a str,
    pub dirs: &'a TaskDirs,
    pub network: Option<&'a NetworkStatus>,
    /// The agent's own environment.
    pub host_env: &'a BTreeMap<String, String>,
}

/// The names that `${…}` knows about a node: `node.unique.id`, `attr.cpu.arch`, `meta.rack`, ….
pub fn node_names(node: &NodeInfo, region: &str) -> BTreeMap<String, String> {
    let mut names = BTreeMap::from([
        ("node.unique.id".to_owned(), node.id.to_string()),
        ("node.unique.name".to_owned(), node.name.clone()),
        ("node.datacenter".to_owned(), node.datacenter.clone()),
        ("node.region".to_owned(), region.to_owned()),
        ("node.class".to_owned(), node.node_class.clone()),
        ("node.pool".to_owned(), node.node_pool.clone()),
    ]);
    names.extend(node.attributes.iter().map(|(key, value)| (format!("attr.{key}"), value.clone())));
    names.extend(node.meta.iter().map(|(key, value)| (format!("meta.{key}"), value.clone())));
    names
}

/// The agent's environment without the host's secrets: the client option `env.denylist` if it is set (separated by
/// commas), the usual ones otherwise.
pub fn host_env(denylist: Option<&str>) -> BTreeMap<String, String> {
    let denied: Vec<&str> = match denylist {
        Some(list) => list.split(',').map(str::trim).collect(),
        None => HOST_ENV_DENIED.to_vec(),
    };
    // Names and values that are no text cannot be passed on.
    let vars = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    vars.filter(|(name, _)| !denied.contains(&name.as_str())).collect()
}

/// The task's environment before templates add to it. Names are cleaned last, by [`finish`].
pub fn build(source: &EnvSource<'_>) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    put_directories(&mut env, source);
    put_grant(&mut env, source);
    put_names(&mut env, source);
    put_task_ports(&mut env, source);
    put_group_ports(&mut env, source);
    put_meta(&mut env, source);
    if HOST_ENV.contains(&source.task.driver.as_str()) {
        for (name, value) in source.host_env {
            env.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    for (name, value) in &source.task.env {
        let value = interpolate(value, |name| lookup(&env, source.node_names, name));
        env.insert(name.clone(), value);
    }
    env
}

/// Cleans names so that shells accept them.
pub fn finish(env: BTreeMap<String, String>) -> BTreeMap<String, String> {
    env.into_iter().map(|(name, value)| (clean(name), value)).collect()
}

fn clean(name: String) -> String {
    if CLEANED.iter().any(|prefix| name.starts_with(prefix)) {
        // Byte by byte: a letter outside ASCII becomes as many underscores as it has bytes.
        name.bytes()
            .map(char::from)
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.') { c } else { '_' })
            .collect()
    } else {
        name
    }
}

/// A name in `${…}`: a node's or a variable's.
pub fn lookup(
    env: &BTreeMap<String, String>,
    node_names: &BTreeMap<String, String>,
    name: &str,
) -> Option<String> {
    node_names.get(name).or_else(|| env.get(name)).cloned()
}

/// The variables that services and checks of a group may use: nothing of a single task.
pub fn group_env(source: &EnvSource<'_>) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    put_names(&mut env, source);
    env.remove("NOMAD_TASK_NAME");
    put_group_ports(&mut env, source);
    put_meta(&mut env, source);
    finish(env)
}

fn put(env: &mut BTreeMap<String, String>, name: impl Into<String>, value: impl Into<String>) {
    env.insert(name.into(), value.into());
}

fn put_directories(env: &mut BTreeMap<String, String>, source: &EnvSource<'_>) {
    let dirs = source.dirs;
    let paths = if has_own_root(&source.task.driver) {
        ["/alloc".to_owned(), "/local".to_owned(), "/secrets".to_owned()]
    } else {
        [&dirs.shared, &dirs.local, &dirs.secrets].map(|path| path.display().to_string())
    };
    for (name, path) in ["NOMAD_ALLOC_DIR", "NOMAD_TASK_DIR", "NOMAD_SECRETS_DIR"].into_iter().zip(paths) {
        put(env, name, path);
    }
}

/// True if tasks of this driver find their directories at `/alloc`, `/local` and `/secrets`.
pub fn has_own_root(driver: &str) -> bool {
    OWN_ROOT.contains(&driver)
}

fn put_grant(env: &mut BTreeMap<String, String>, source: &EnvSource<'_>) {
    let Some(grant) = source.allocation.resources.tasks.get(&source.task.name) else { return };
    for (name, number) in [
        ("NOMAD_MEMORY_LIMIT", grant.memory.memory_mb),
        ("NOMAD_MEMORY_MAX_LIMIT", grant.memory.memory_max_mb),
        ("NOMAD_CPU_LIMIT", grant.cpu.cpu_shares),
    ] {
        if number != 0 {
            put(env, name, number.to_string());
        }
    }
    if !grant.cpu.reserved_cores.is_empty() {
        put(env, "NOMAD_CPU_CORES", cpuset(&grant.cpu.reserved_cores));
    }
}

/// `0-2,7`.
fn cpuset(cores: &[u16]) -> String {
    let mut sorted = cores.to_vec();
    sorted.sort_unstable();
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for core in sorted {
        match ranges.last_mut() {
            Some((_, end)) if core <= end.saturating_add(1) => *end = core,
            _ => ranges.push((core, core)),
        }
    }
    let text = |(from, to): &(u16, u16)| if from == to { from.to_string() } else { format!("{from}-{to}") };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

fn put_names(env: &mut BTreeMap<String, String>, source: &EnvSource<'_>) {
    let allocation = source.allocation;
    let job = source.job;
    put(env, "NOMAD_ALLOC_ID", allocation.id.to_string());
    put(env, "NOMAD_SHORT_ALLOC_ID", allocation.id.short());
    put(env, "NOMAD_ALLOC_NAME", allocation.name());
    // Allocations of system jobs are told apart by their nodes.
    let index = if job.job_type().is_on_every_node() { 0 } else { allocation.index };
    put(env, "NOMAD_ALLOC_INDEX", index.to_string());
    put(env, "NOMAD_TASK_NAME", source.task.name.as_str());
    put(env, "NOMAD_GROUP_NAME", source.group.name.as_str());
    put(env, "NOMAD_JOB_ID", job.id.as_str());
    put(env, "NOMAD_JOB_NAME", if job.name.is_empty() { job.id.as_str() } else { job.name.as_str() });
    if !job.parent_id.is_empty() {
        put(env, "NOMAD_JOB_PARENT_ID", job.parent_id.as_str());
    }
    put(env, "NOMAD_DC", source.node.datacenter.as_str());
    put(env, "NOMAD_REGION", source.region);
    put(env, "NOMAD_NAMESPACE", allocation.namespace.as_str());
    put(env, "NOMAD_PARENT_CGROUP", PARENT_CGROUP);
}

fn join_address(ip: &str, port: impl std::fmt::Display) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// The older networks: the task's own, and those of its siblings under their names.
fn put_task_ports(env: &mut BTreeMap<String, String>, source: &EnvSource<'_>) {
    for (name, grant) in &source.allocation.resources.tasks {
        let own = *name == source.task.name;
        for (network, port) in grant.networks.iter().flat_map(|n| n.ports().map(move |port| (n, port))) {
            let label = if own { port.label.clone() } else { format!("{name}_{}", port.label) };
            let ip = network_ip(network, source.node);
            put(env, format!("NOMAD_IP_{label}"), ip.as_str());
            let mapped =
                source.task.config.pairs("port_map").into_iter().find(|(name, _)| *name == port.label);
            let inside = mapped.filter(|_| own).map_or_else(|| port.value.to_string(), |(_, inside)| inside);
            put(env, format!("NOMAD_PORT_{label}"), inside);
            put(env, format!("NOMAD_ADDR_{label}"), join_address(&ip, port.value));
            if own {
                put(env, format!("NOMAD_HOST_PORT_{label}"), port.value.to_string());
                let family = if ip.contains(':') { "NOMAD_IPv6_" } else { "NOMAD_IPv4_" };
                put(env, format!("{family}{label}"), ip.as_str());
            }
        }
    }
}

/// Ports of the task's own older networks are, for its services, what the driver has made of them.
pub fn put_driver_ports(
    env: &mut BTreeMap<String, String>,
    networks: &[Network],
    chosen: &BTreeMap<String, u16>,
) {
    for port in networks.iter().flat_map(Network::ports) {
        if let Some(inside) = chosen.get(&port.label) {
            put(env, clean(format!("NOMAD_PORT_{}", port.label)), inside.to_string());
        }
    }
}

/// The address at which the ports of an older network are reached.
pub fn network_ip(network: &Network, node: &NodeInfo) -> String {
    if network.ip.is_empty() { node_ip(node) } else { network.ip.clone() }
}

/// The node's ordinary address.
pub fn node_ip(node: &NodeInfo) -> String {
    node.attributes.get("unique.network.ip-address").cloned().unwrap_or_else(|| "127.0.0.1".to_owned())
}

fn put_group_ports(env: &mut BTreeMap<String, String>, source: &EnvSource<'_>) {
    for port in &source.allocation.resources.shared.ports {
        let label = &port.label;
        let ip = if port.host_ip.is_empty() { node_ip(source.node) } else { port.host_ip.clone() };
        let inside = if port.to > 0 { port.to } else { i64::from(port.value) };
        let host_address = join_address(&ip, port.value);
        for (name, value) in [
            ("IP", ip.clone()),
            ("PORT", inside.to_string()),
            ("ADDR", host_address.clone()),
            ("HOST_PORT", port.value.to_string()),
            ("HOST_IP", ip),
            ("HOST_ADDR", host_address),
            ("ALLOC_PORT", inside.to_string()),
        ] {
            put(env, format!("NOMAD_{name}_{label}"), value);
        }
        if let Some(network) = source.network.filter(|network| !network.address.is_empty()) {
            put(env, format!("NOMAD_ALLOC_INTERFACE_{label}"), network.interface_name.as_str());
            put(env, format!("NOMAD_ALLOC_IP_{label}"), network.address.as_str());
            put(env, format!("NOMAD_ALLOC_ADDR_{label}"), join_address(&network.address, inside));
        }
    }
}

fn put_meta(env: &mut BTreeMap<String, String>, source: &EnvSource<'_>) {
    let mut meta: BTreeMap<&str, &str> = BTreeMap::new();
    if let Some(parameterized) = source.job.parameterized.as_ref().filter(|_| source.job.dispatched) {
        meta.extend(parameterized.meta_optional.iter().map(|key| (key.as_str(), "")));
    }
    for layer in [&source.job.meta, &source.group.meta, &source.task.meta] {
        meta.extend(layer.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    }
    let resolve = |text: &str, env: &BTreeMap<String, String>| {
        interpolate(text, |name| lookup(env, source.node_names, name))
    };
    for (key, value) in meta {
        let value = resolve(value, env);
        let upper = resolve(&key.to_uppercase(), env);
        let plain = resolve(key, env);
        put(env, format!("NOMAD_META_{upper}"), value.as_str());
        put(env, format!("NOMAD_META_{plain}"), value);
    }
}

/// Replaces `${…}` in every text of a JSON value; unknown names stay.
pub fn interpolate_json(value: &Value, resolve: &dyn Fn(&str) -> Option<String>) -> Value {
    match value {
        Value::String(text) => Value::String(interpolate(text, resolve)),
        Value::Array(items) => items.iter().map(|item| interpolate_json(item, resolve)).collect(),
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(key, value)| (key.clone(), interpolate_json(value, resolve)))
                .collect::<Map<_, _>>(),
        ),
        other => other.clone(),
    }
}

/// Replaces `${…}` in the texts of a block of the job (a service, a template, an artifact).
pub fn interpolate_block<T>(block: &T, resolve: &dyn Fn(&str) -> Option<String>) -> T
where
    T: Clone + serde::Serialize + serde::de::DeserializeOwned,
{
    let value = serde_json::to_value(block).map(|value| interpolate_json(&value, resolve));
    // A block read from JSON can be written as JSON; texts stay texts.
    value.and_then(serde_json::from_value).unwrap_or_else(|_| block.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::AllocId;
    use crate::model::id::NodeId;
    use crate::model::network::Port;
    use crate::model::network::PortMapping;
    use crate::model::resources::AllocatedTask;

    #[test]
    fn a_task_finds_ports_meta_and_names() {
        let mut allocation = Allocation {
            id: AllocId::from_random([3; 16]),
            namespace: "default".into(),
            job_id: "shop".into(),
            task_group: "web".into(),
            index: 2,
            ..Allocation::default()
        };
        let port =
            |label: &str, value, to| PortMapping { label: label.into(), value, to, ..PortMapping::default() };
        allocation.resources.shared.ports = vec![port("http", 20001, 80), port("http-alt", 20002, -1)];
        let legacy = Network {
            ip: "10.0.0.9".into(),
            dynamic_ports: vec![Port { label: "db".into(), value: 20003, ..Port::default() }],
            ..Network::default()
        };
        let mut grant = AllocatedTask { networks: vec![legacy], ..AllocatedTask::default() };
        grant.memory.memory_mb = 256;
        grant.cpu.reserved_cores = vec![0, 1, 2, 7];
        allocation.resources.tasks =
            BTreeMap::from([("main".into(), grant.clone()), ("other".into(), grant)]);
        let text = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
        };
        let task = Task {
            name: "main".into(),
            driver: "raw_exec".into(),
            env: text(&[
                ("URL", "http://${NOMAD_ADDR_http}/${node.unique.name}/${nothing}"),
                ("PATH", "/x:${PATH}"),
            ]),
            meta: text(&[("a-b", "task")]),
            ..Task::default()
        };
        let group = TaskGroup {
            name: "web".into(),
            meta: text(&[("a-b", "group"), ("g", "1")]),
            ..TaskGroup::default()
        };
        let job = Job { id: "shop".into(), ..Job::default() };
        let node = NodeInfo {
            id: NodeId::from_random([4; 16]),
            name: "n1".into(),
            attributes: text(&[("unique.network.ip-address", "10.0.0.5")]),
            ..NodeInfo::default()
        };
        let names = node_names(&node, "global");
        let host = text(&[("PATH", "/bin"), ("NOMAD_DC", "host")]);
        let dirs = TaskDirs { shared: "/d/alloc".into(), ..TaskDirs::default() };
        let source = EnvSource {
            allocation: &allocation,
            job: &job,
            group: &group,
            task: &task,
            node: &node,
            node_names: &names,
            region: "global",
            dirs: &dirs,
            network: None,
            host_env: &host,
        };
        let env = finish(build(&source));
        for (name, expected) in [
            ("NOMAD_ALLOC_DIR", "/d/alloc"),
            ("NOMAD_PORT_http", "80"),
            ("NOMAD_HOST_PORT_http", "20001"),
            ("NOMAD_ADDR_http", "10.0.0.5:20001"),
            ("NOMAD_PORT_http_alt", "20002"),
            ("NOMAD_ALLOC_PORT_http-alt", "20002"),
            ("NOMAD_PORT_db", "20003"),
            ("NOMAD_ADDR_other_db", "10.0.0.9:20003"),
            ("NOMAD_META_a_b", "task"),
            ("NOMAD_META_A_B", "task"),
            ("NOMAD_META_G", "1"),
            ("NOMAD_ALLOC_NAME", "shop.web[2]"),
            ("NOMAD_CPU_CORES", "0-2,7"),
            ("NOMAD_MEMORY_LIMIT", "256"),
            ("NOMAD_DC", ""),
            ("PATH", "/x:/bin"),
            ("URL", "http://10.0.0.5:20001/n1/${nothing}"),
        ] {
            assert_eq!(env.get(name).map(String::as_str), Some(expected), "{name}");
        }
        let docker = Task { driver: "docker".into(), ..task.clone() };
        let env = build(&EnvSource { task: &docker, ..source });
        assert_eq!(env["NOMAD_TASK_DIR"], "/local");
        assert_eq!(env["PATH"], "/x:${PATH}", "containers have no host environment");
    }
}
