//! Translates a task into the container that Docker is asked for. Pure: everything is decided before Docker is called.

use std::collections::HashMap;
use std::path::Path;

use bollard::auth::DockerCredentials;
use bollard::models::ContainerCreateBody;
use bollard::models::DeviceMapping;
use bollard::models::HostConfig;
use bollard::models::HostConfigLogConfig;
use bollard::models::Mount;
use bollard::models::MountBindOptions;
use bollard::models::MountBindOptionsPropagationEnum;
use bollard::models::MountTmpfsOptions;
use bollard::models::MountType;
use bollard::models::MountVolumeOptions;
use bollard::models::PortBinding;
use bollard::models::PortMap;
use bollard::models::ResourcesUlimits;
use serde_json::Map;
use serde_json::Value;

use crate::drivers::Propagation;
use crate::drivers::TaskConfig;
use crate::drivers::options::Kind;
use crate::drivers::options::Opt;
use crate::drivers::options::Options;
use crate::drivers::options::opt;
use crate::drivers::options::required;

use super::DockerOptions;

/// Marks our containers; the value is the allocation's id.
pub(super) const ALLOC_LABEL: &str = "com.hashicorp.nomad.alloc_id";
/// The name that the task has inside its allocation, and the run.
pub(super) const TASK_LABEL: &str = "dev.herder.task";
pub(super) const RUN_LABEL: &str = "dev.herder.run";
/// Dropped unless asked for: Docker grants it, Nomad's default list does not.
const NET_RAW: &str = "net_raw";

pub(super) const OPTIONS: &[Opt] = &[
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
    opt("hostname", Kind::Text),
    opt("image_pull_timeout", Kind::Text),
    opt("init", Kind::Bool),
    opt("interactive", Kind::Bool),
    opt("ipc_mode", Kind::Text),
    opt("labels", Kind::Map),
    opt("logging", Kind::Block),
    opt("memory_hard_limit", Kind::Number),
    opt("mount", Kind::Block),
    opt("mounts", Kind::Block),
    opt("network_mode", Kind::Text),
    opt("oom_score_adj", Kind::Number),
    opt("pid_mode", Kind::Text),
    opt("pids_limit", Kind::Number),
    opt("port_map", Kind::Map),
    opt("ports", Kind::TextList),
    opt("privileged", Kind::Bool),
    opt("readonly_rootfs", Kind::Bool),
    opt("security_opt", Kind::TextList),
    opt("shm_size", Kind::Number),
    opt("storage_opt", Kind::Map),
    opt("sysctl", Kind::Map),
    opt("tty", Kind::Bool),
    opt("ulimit", Kind::Map),
    opt("userns_mode", Kind::Text),
    opt("uts_mode", Kind::Text),
    opt("volumes", Kind::TextList),
    opt("work_dir", Kind::Text),
];

/// Problems that need no Docker to be seen.
pub(super) fn validate(options: &DockerOptions, config: &Map<String, Value>) -> Vec<String> {
    let mut problems = crate::drivers::options::check(OPTIONS, config);
    let command = config.text("command");
    if config.contains_key("command") && command.trim().is_empty() {
        problems.push(format!("command empty: {command:?}"));
    } else if command.trim() != command {
        problems.push(format!("command contains extra white space: {command:?}"));
    }
    if config.switch("privileged") && !options.allow_privileged {
        problems.push("Docker privileged mode is disabled on this Nomad agent".to_owned());
    }
    if config.number("cpu_cfs_period").is_some_and(|period| !(0..=1_000_000).contains(&period)) {
        problems.push("invalid value for cpu_cfs_period".to_owned());
    }
    let refused: Vec<String> = capabilities(config, "cap_add")
        .into_iter()
        .filter(|name| !options.allowed_capabilities.iter().any(|one| one == name || one == "all"))
        .collect();
    if !refused.is_empty() {
        problems.push(format!("driver does not allow the following capabilities: {}", refused.join(", ")));
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
    problems
}

fn capabilities(config: &Map<String, Value>, option: &str) -> Vec<String> {
    let plain = |name: String| name.to_lowercase().trim_start_matches("cap_").to_owned();
    config.list(option).into_iter().map(plain).collect()
}

/// The image with `latest` where no tag and no digest is given.
pub(super) fn image_of(config: &Map<String, Value>) -> String {
    let image = config.text("image");
    let image = image.strip_prefix("https://").unwrap_or(&image);
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

/// `<task>-<allocation>`: Docker's own check that a task does not run twice.
pub(super) fn container_name(config: &TaskConfig) -> String {
    format!("{}-{}", config.id.task.replace('/', "_"), config.id.alloc)
}

/// What the job file says about the registry.
pub(super) fn credentials(config: &Map<String, Value>) -> Option<DockerCredentials> {
    let auth = config.blocks("auth").into_iter().next()?;
    let text = |name: &str| Some(auth.text(name)).filter(|text| !text.is_empty());
    Some(DockerCredentials {
        username: text("username"),
        password: text("password"),
        email: text("email"),
        serveraddress: text("server_address"),
        ..DockerCredentials::default()
    })
}

/// The container of a task.
///
/// # Errors
/// A host path that tasks may not mount, an unknown port label.
pub(super) fn container(options: &DockerOptions, task: &TaskConfig) -> Result<ContainerCreateBody, String> {
    let config = &task.config;
    let ports = port_bindings(task)?;
    let exposed: Vec<String> = ports.keys().cloned().collect();
    let mut command: Vec<String> = Vec::new();
    command.extend(non_empty(config.text("command")));
    command.extend(config.list("args"));
    let mut labels: HashMap<String, String> = config.pairs("labels").into_iter().collect();
    labels.insert(ALLOC_LABEL.to_owned(), task.id.alloc.to_string());
    labels.insert(TASK_LABEL.to_owned(), task.id.task.clone());
    labels.insert(RUN_LABEL.to_owned(), task.id.run.to_string());
    Ok(ContainerCreateBody {
        image: Some(image_of(config)),
        cmd: filled(command),
        entrypoint: filled(config.list("entrypoint")),
        env: Some(task.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        labels: Some(labels),
        hostname: non_empty(config.text("hostname")),
        user: non_empty(task.user.clone()),
        working_dir: non_empty(config.text("work_dir")),
        tty: Some(config.switch("tty")),
        open_stdin: Some(config.switch("interactive")),
        exposed_ports: filled(exposed),
        host_config: Some(host_config(options, task, ports)?),
        ..ContainerCreateBody::default()
    })
}

fn host_config(options: &DockerOptions, task: &TaskConfig, ports: PortMap) -> Result<HostConfig, String> {
    let config = &task.config;
    let (reservation, memory) = memory(task);
    let add = capabilities(config, "cap_add");
    let mut drop = capabilities(config, "cap_drop");
    if !add.iter().any(|name| name == NET_RAW || name == "all") && !drop.iter().any(|name| name == NET_RAW) {
        drop.push(NET_RAW.to_owned());
    }
    let cores = &task.grant.cpu.reserved_cores;
    let cores = cores.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let pids = config.number("pids_limit").or_else(|| options.pids_limit.map(i64::from));
    let mut host = HostConfig {
        binds: Some(binds(options, task)?),
        mounts: filled(mounts(options, task)?),
        port_bindings: Some(ports),
        network_mode: Some(network_mode(task)?),
        memory: Some(memory),
        memory_swap: Some(memory),
        memory_reservation: reservation,
        cpu_shares: Some(task.grant.cpu.cpu_shares),
        cpuset_cpus: non_empty(cores),
        pids_limit: pids,
        privileged: Some(config.switch("privileged")),
        cap_add: filled(add),
        cap_drop: filled(drop),
        dns: filled(config.list("dns_servers")),
        dns_search: filled(config.list("dns_search_domains")),
        dns_options: filled(config.list("dns_options")),
        extra_hosts: filled(config.list("extra_hosts")),
        group_add: filled(config.list("group_add")),
        security_opt: filled(config.list("security_opt")),
        ulimits: Some(
            config.pairs("ulimit").iter().filter_map(|(name, value)| limit_of(name, value)).collect(),
        ),
        sysctls: Some(config.pairs("sysctl").into_iter().collect()),
        storage_opt: Some(config.pairs("storage_opt").into_iter().collect())
            .filter(|map: &HashMap<_, _>| !map.is_empty()),
        shm_size: config.number("shm_size"),
        oom_score_adj: config.number("oom_score_adj"),
        ipc_mode: non_empty(config.text("ipc_mode")),
        pid_mode: non_empty(config.text("pid_mode")),
        uts_mode: non_empty(config.text("uts_mode")),
        userns_mode: non_empty(config.text("userns_mode")),
        readonly_rootfs: Some(config.switch("readonly_rootfs")),
        init: config.switch("init").then_some(true),
        devices: filled(devices(config)),
        log_config: Some(log_config(config)),
        ..HostConfig::default()
    };
    if config.switch("cpu_hard_limit") && options.total_mhz > 0 {
        let period = config.number("cpu_cfs_period").filter(|period| *period > 0).unwrap_or(100_000);
        let cpus = std::thread::available_parallelism().map_or(1, usize::from) as i64;
        host.cpu_period = Some(period);
        host.cpu_quota = Some(period * cpus * task.grant.cpu.cpu_shares / options.total_mhz);
    }
    Ok(host)
}

fn non_empty(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn filled<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}

/// Reservation and hard limit in bytes.
fn memory(task: &TaskConfig) -> (Option<i64>, i64) {
    let grant = &task.grant.memory;
    let hard = task.config.number("memory_hard_limit").unwrap_or(0).max(grant.memory_max_mb);
    if hard > 0 {
        return (Some(grant.memory_mb << 20), hard.max(grant.memory_mb) << 20);
    }
    if grant.memory_max_mb < 0 { (Some(grant.memory_mb << 20), 0) } else { (None, grant.memory_mb << 20) }
}

fn network_mode(task: &TaskConfig) -> Result<String, String> {
    let asked = task.config.text("network_mode");
    if !asked.is_empty() {
        return Ok(asked);
    }
    match (&task.network_namespace, task.network_mode.as_str()) {
        (None, "none") => Ok("none".to_owned()),
        (Some(_), _) => Ok(format!("container:{}", super::network::holder(task.id.alloc))),
        (None, _) => Ok("default".to_owned()),
    }
}

fn port_bindings(task: &TaskConfig) -> Result<PortMap, String> {
    let mut bindings = PortMap::new();
    if task.network_namespace.is_some() {
        return Ok(bindings);
    }
    let map = task.config.pairs("port_map");
    let labels = task.config.list("ports");
    let mut publish = |inside: i64, host_ip: &str, value: u16| {
        for protocol in ["tcp", "udp"] {
            let binding =
                PortBinding { host_ip: Some(host_ip.to_owned()), host_port: Some(value.to_string()) };
            let key = format!("{inside}/{protocol}");
            bindings.entry(key).or_default().get_or_insert_default().push(binding);
        }
    };
    for label in &labels {
        let port = task.ports.iter().find(|port| port.label == *label);
        let port = port.ok_or_else(|| format!("Port {label:?} not found, check network block"))?;
        let inside = if port.to > 0 { port.to } else { i64::from(port.value) };
        publish(inside, &port.host_ip, port.value);
    }
    if !labels.is_empty() {
        return Ok(bindings);
    }
    for (label, _) in &map {
        if !task.ports.iter().any(|port| port.label == *label) {
            return Err(format!("Port {label:?} not found, check network block"));
        }
    }
    // The older network inside a task's resources publishes all of its ports.
    let legacy = task.grant.networks.iter().flat_map(|network| network.ports());
    let legacy: Vec<&str> = legacy.map(|port| port.label.as_str()).collect();
    for port in &task.ports {
        let mapped = map.iter().find(|(label, _)| *label == port.label);
        if mapped.is_none() && !legacy.contains(&port.label.as_str()) {
            continue;
        }
        let inside = mapped.and_then(|(_, to)| to.parse().ok()).filter(|to| *to > 0);
        let inside = inside.unwrap_or(if port.to > 0 { port.to } else { i64::from(port.value) });
        publish(inside, &port.host_ip, port.value);
    }
    Ok(bindings)
}

/// Resolves the host's side of a mount: relative paths are below the task, others need permission.
fn host_path(options: &DockerOptions, task: &TaskConfig, path: &str) -> Result<String, String> {
    let joined = task.dirs.task.join(path);
    let outside = !joined.starts_with(&task.dirs.alloc)
        || joined.components().any(|part| part == std::path::Component::ParentDir);
    if outside && !options.volumes_enabled {
        return Err(format!("volumes are not enabled; cannot mount host path: {path:?}"));
    }
    Ok(joined.display().to_string())
}

fn binds(options: &DockerOptions, task: &TaskConfig) -> Result<Vec<String>, String> {
    let dirs = &task.dirs;
    let own = [(&dirs.shared, "/alloc"), (&dirs.local, "/local"), (&dirs.secrets, "/secrets")];
    let mut binds: Vec<String> = own.iter().map(|(from, to)| format!("{}:{to}", from.display())).collect();
    for volume in task.config.list("volumes") {
        let Some((from, to)) = volume.split_once(':') else {
            return Err(format!("invalid docker volume: {volume:?}"));
        };
        // A name without a slash is a volume of Docker's own where those are allowed.
        let named = options.volumes_enabled && !from.contains('/') && !from.starts_with('.');
        let from = if named { from.to_owned() } else { host_path(options, task, from)? };
        binds.push(format!("{from}:{to}"));
    }
    binds.extend(task.mounts.iter().filter(|volume| !volume.selinux_label.is_empty()).map(labelled_bind));
    Ok(binds)
}

fn mounts(options: &DockerOptions, task: &TaskConfig) -> Result<Vec<Mount>, String> {
    let blocks = ["mount", "mounts"].into_iter().flat_map(|name| task.config.blocks(name));
    let mut mounts = Vec::new();
    for block in blocks {
        let kind = block.text("type");
        let source = block.text("source");
        let mut mount = Mount {
            target: Some(block.text("target")),
            read_only: Some(block.switch("readonly")),
            ..Mount::default()
        };
        match kind.as_str() {
            "" | "volume" => {
                mount.typ = Some(MountType::VOLUME);
                mount.source = non_empty(source);
                let no_copy = block.blocks("volume_options").first().map(|options| options.switch("no_copy"));
                mount.volume_options = Some(MountVolumeOptions { no_copy, ..MountVolumeOptions::default() });
            }
            "bind" => {
                mount.typ = Some(MountType::BIND);
                mount.source = Some(host_path(options, task, &source)?);
            }
            "tmpfs" => {
                mount.typ = Some(MountType::TMPFS);
                let wanted = block.blocks("tmpfs_options").into_iter().next().unwrap_or_default();
                let (size_bytes, mode) = (wanted.number("size"), wanted.number("mode"));
                mount.tmpfs_options =
                    Some(MountTmpfsOptions { size_bytes, mode, ..MountTmpfsOptions::default() });
            }
            other => return Err(format!("invalid mount type {other:?}")),
        }
        mounts.push(mount);
    }
    mounts.extend(task.mounts.iter().filter(|volume| volume.selinux_label.is_empty()).map(volume_mount));
    Ok(mounts)
}

fn volume_mount(volume: &crate::drivers::Mount) -> Mount {
    let propagation = match volume.propagation {
        Propagation::Private => MountBindOptionsPropagationEnum::RPRIVATE,
        Propagation::HostToTask => MountBindOptionsPropagationEnum::RSLAVE,
        Propagation::Bidirectional => MountBindOptionsPropagationEnum::RSHARED,
    };
    Mount {
        typ: Some(MountType::BIND),
        source: Some(volume.from.display().to_string()),
        target: Some(volume.to.display().to_string()),
        read_only: Some(volume.read_only),
        bind_options: Some(MountBindOptions {
            propagation: Some(propagation),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    }
}

/// Labels can be given in the older form of a mount only.
fn labelled_bind(volume: &crate::drivers::Mount) -> String {
    let access = if volume.read_only { "ro" } else { "rw" };
    let propagation = match volume.propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToTask => "rslave",
        Propagation::Bidirectional => "rshared",
    };
    let (from, to, label) = (volume.from.display(), volume.to.display(), &volume.selinux_label);
    format!("{from}:{to}:{access},{propagation},{label}")
}

fn devices(config: &Map<String, Value>) -> Vec<DeviceMapping> {
    let device = |block: Map<String, Value>| {
        let host = block.text("host_path");
        DeviceMapping {
            path_in_container: non_empty(block.text("container_path")).or_else(|| Some(host.clone())),
            path_on_host: Some(host),
            cgroup_permissions: non_empty(block.text("cgroup_permissions"))
                .or_else(|| Some("rwm".to_owned())),
        }
    };
    config.blocks("devices").into_iter().map(device).collect()
}

/// Docker's own log is only a buffer from which ours is written; its size decides how long the agent may be away.
fn log_config(config: &Map<String, Value>) -> HostConfigLogConfig {
    let block = config.blocks("logging").into_iter().next().unwrap_or_default();
    let kind = non_empty(block.text("type")).or_else(|| non_empty(block.text("driver")));
    let mut settings: HashMap<String, String> = block.pairs("config").into_iter().collect();
    if kind.is_none() && settings.is_empty() {
        settings =
            [("max-file", "2"), ("max-size", "2m")].map(|(name, value)| (name.into(), value.into())).into();
    }
    HostConfigLogConfig { typ: kind.or_else(|| Some("json-file".to_owned())), config: Some(settings) }
}

/// `soft[:hard]`.
fn limit_of(name: &str, value: &str) -> Option<ResourcesUlimits> {
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let (soft, hard) = (soft.parse().ok()?, hard.parse().ok()?);
    Some(ResourcesUlimits { name: Some(name.to_owned()), soft: Some(soft), hard: Some(hard) })
}

/// Is the path a socket of Docker?
pub(super) fn socket_path(endpoint: &str) -> &Path {
    Path::new(endpoint.strip_prefix("unix://").unwrap_or(endpoint))
}
