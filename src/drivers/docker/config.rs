//! Translates a task into the container that Docker is asked for. Everything is decided before Docker is called.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use bollard::models::ContainerCreateBody;
use bollard::models::DeviceMapping;
use bollard::models::EndpointIpamConfig;
use bollard::models::EndpointSettings;
use bollard::models::HealthConfig;
use bollard::models::HostConfig;
use bollard::models::HostConfigIsolationEnum;
use bollard::models::HostConfigLogConfig;
use bollard::models::Mount;
use bollard::models::MountBindOptions;
use bollard::models::MountBindOptionsPropagationEnum;
use bollard::models::MountTmpfsOptions;
use bollard::models::MountType;
use bollard::models::MountVolumeOptions;
use bollard::models::MountVolumeOptionsDriverConfig;
use bollard::models::NetworkingConfig;
use bollard::models::PortBinding;
use bollard::models::PortMap;
use bollard::models::ResourcesUlimits;
use serde_json::Map;
use serde_json::Value;

use crate::drivers::Propagation;
use crate::drivers::TaskConfig;
use crate::drivers::options::Options;
use crate::drivers::options::capabilities;
use crate::model::network::Network;
use crate::model::network::PortMapping;

use super::DockerOptions;

/// Marks our containers; the value is the allocation's id.
pub(super) const ALLOC_LABEL: &str = "com.hashicorp.nomad.alloc_id";
/// The name that the task has inside its allocation, and the run.
pub(super) const TASK_LABEL: &str = "dev.herder.task";
pub(super) const RUN_LABEL: &str = "dev.herder.run";
/// Which agent's: the directory where it keeps allocations.
pub(super) const ROOT_LABEL: &str = "dev.herder.alloc_root";
const LABEL_PREFIX: &str = "com.hashicorp.nomad.";
/// Docker's own default.
const DOCKER_CAPABILITIES: &[&str] = &[
    "audit_write",
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "mknod",
    "net_bind_service",
    NET_RAW,
    "setfcap",
    "setgid",
    "setpcap",
    "setuid",
    "sys_chroot",
];
/// Microseconds.
const SMALLEST_QUOTA: i64 = 1000;
/// Dropped unless asked for: Docker grants it, Nomad's default list does not.
const NET_RAW: &str = "net_raw";

/// The image with `latest` where no tag and no digest is given.
pub(super) fn image_of(config: &Map<String, Value>) -> String {
    with_tag(&config.text("image"))
}

/// The same for any name; nothing stays nothing.
pub(super) fn with_tag(image: &str) -> String {
    if image.is_empty() {
        return String::new();
    }
    let image = image.strip_prefix("https://").unwrap_or(image);
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

/// `<task>-<allocation>`: Docker's own check that a task does not run twice.
pub(super) fn container_name(config: &TaskConfig) -> String {
    format!("{}-{}", config.id.task.replace('/', "_"), config.id.alloc)
}

/// Must the image be asked for even when it is there?
pub(super) fn must_pull(config: &Map<String, Value>) -> bool {
    config.switch("force_pull") || image_of(config).ends_with(":latest")
}

/// The container of a task, on these processors.
///
/// # Errors
/// A host path that tasks may not mount, an unknown port label.
pub(super) fn container(
    options: &DockerOptions,
    task: &TaskConfig,
    cores: Option<&str>,
) -> Result<ContainerCreateBody, String> {
    let config = &task.config;
    let problems = super::check::rules(options, config);
    if !problems.is_empty() {
        return Err(problems.join("; "));
    }
    let ports = port_bindings(task)?;
    let exposed: Vec<String> = ports.keys().cloned().collect();
    let mut command: Vec<String> = Vec::new();
    command.extend(non_empty(config.text("command")));
    command.extend(config.list("args"));
    let mut labels: HashMap<String, String> = config.pairs("labels").into_iter().collect();
    labels.extend(extra_labels(options, task));
    labels.insert(ALLOC_LABEL.to_owned(), task.id.alloc.to_string());
    if !options.alloc_root.as_os_str().is_empty() {
        labels.insert(ROOT_LABEL.to_owned(), options.alloc_root.display().to_string());
    }
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
        healthcheck: healthcheck(config),
        networking_config: networking(config),
        host_config: Some(HostConfig {
            cpuset_cpus: cores.map(str::to_owned),
            ..host_config(options, task, ports)?
        }),
        ..ContainerCreateBody::default()
    })
}

fn host_config(options: &DockerOptions, task: &TaskConfig, ports: PortMap) -> Result<HostConfig, String> {
    let config = &task.config;
    let (reservation, memory) = memory(task);
    let add = capabilities(config, "cap_add");
    let drop = dropped_capabilities(options, &add, capabilities(config, "cap_drop"));
    let pids = config.number("pids_limit").or_else(|| options.pids_limit.map(i64::from));
    let mut host = HostConfig {
        binds: Some(binds(options, task)?),
        mounts: filled(mounts(options, task)?),
        port_bindings: Some(ports),
        network_mode: Some(network_mode(task)?),
        memory: Some(memory),
        memory_swap: Some(memory),
        memory_reservation: reservation,
        memory_swappiness: Some(0),
        cpu_shares: Some(task.grant.cpu.cpu_shares),
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
        oom_score_adj: Some(config.number("oom_score_adj").unwrap_or(options.oom_score_adj)),
        ipc_mode: non_empty(config.text("ipc_mode")),
        pid_mode: non_empty(config.text("pid_mode")),
        uts_mode: non_empty(config.text("uts_mode")),
        userns_mode: non_empty(config.text("userns_mode")),
        readonly_rootfs: Some(config.switch("readonly_rootfs")),
        init: config.switch("init").then_some(true),
        devices: filled(devices(config)),
        log_config: Some(log_config(options, config)),
        runtime: non_empty(config.text("runtime")),
        volume_driver: volume_driver(options, config)?,
        isolation: isolation(config),
        ..HostConfig::default()
    };
    if config.switch("cpu_hard_limit") && task.node_mhz > 0 {
        let period = config.number("cpu_cfs_period").filter(|period| *period > 0).unwrap_or(100_000);
        let cpus = std::thread::available_parallelism().map_or(1, usize::from) as i64;
        host.cpu_period = Some(period);
        let quota = period * cpus * task.grant.cpu.cpu_shares / task.node_mhz;
        // The kernel takes nothing less; a task that small would not start at all.
        host.cpu_quota = Some(quota.max(SMALLEST_QUOTA));
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

/// The port inside by label, for all ports that the container publishes or that `port_map` names.
pub(super) fn ports_inside(task: &TaskConfig) -> BTreeMap<String, u16> {
    let map = task.config.pairs("port_map");
    let labels = task.config.list("ports");
    let inside = |port: &PortMapping| {
        let mapped = map.iter().find(|(label, _)| *label == port.label).map(|(_, to)| to);
        let mapped = mapped.and_then(|to| to.parse().ok()).filter(|to| *to > 0);
        let of_group = || u16::try_from(port.to).ok().filter(|to| *to > 0);
        mapped.or_else(of_group).unwrap_or(port.value)
    };
    let legacy =
        |label: &str| task.grant.networks.iter().flat_map(Network::ports).any(|port| port.label == label);
    let own = task.ports.iter().filter(|port| labels.contains(&port.label) || legacy(&port.label));
    own.map(|port| (port.label.clone(), inside(port))).collect()
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
    if !map.is_empty() && task.grant.networks.is_empty() {
        return Err("'port_map' cannot map group network ports, use 'ports' instead".to_owned());
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

/// Resolves the host's side of a mount: relative paths are below the task, others need permission. Docker follows links
/// on the host, and a task may have left some: what counts is where they lead.
fn host_path(options: &DockerOptions, task: &TaskConfig, path: &str) -> Result<String, String> {
    let joined = task.dirs.task.join(path);
    if options.volumes_enabled {
        return Ok(joined.display().to_string());
    }
    let refused = || format!("volumes are not enabled; cannot mount host path: {path:?}");
    let within = |path: &Path| path.starts_with(&task.dirs.alloc);
    if !within(&joined) || joined.components().any(|part| part == Component::ParentDir) {
        return Err(refused());
    }
    let real = resolve(&joined).map_err(|error| format!("cannot mount host path {path:?}: {error}"))?;
    let alloc =
        resolve(&task.dirs.alloc).map_err(|error| format!("cannot mount host path {path:?}: {error}"))?;
    match real.strip_prefix(&alloc) {
        // The path stays as it is written wherever it is plain, because people look for it.
        Ok(inside) if task.dirs.alloc.join(inside) == joined => Ok(joined.display().to_string()),
        Ok(inside) => Ok(task.dirs.alloc.join(inside).display().to_string()),
        Err(_) => Err(refused()),
    }
}

/// Follows links; what does not exist yet stays as it is.
fn resolve(path: &Path) -> std::io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // A link to nowhere would be followed once somebody makes what it names.
            if path.is_symlink() {
                return Err(std::io::Error::other("a link that leads nowhere"));
            }
            match (path.parent(), path.file_name()) {
                (Some(parent), Some(name)) => Ok(resolve(parent)?.join(name)),
                _ => Err(error),
            }
        }
        found => found,
    }
}

fn binds(options: &DockerOptions, task: &TaskConfig) -> Result<Vec<String>, String> {
    let dirs = &task.dirs;
    let own = [(&dirs.shared, "/alloc"), (&dirs.local, "/local"), (&dirs.secrets, "/secrets")];
    let label = match options.selinux_label.as_str() {
        "" => String::new(),
        label => format!(":{label}"),
    };
    let mut binds: Vec<String> =
        own.iter().map(|(from, to)| format!("{}:{to}{label}", from.display())).collect();
    let driver = !task.config.text("volume_driver").is_empty();
    for volume in task.config.list("volumes") {
        let Some((from, to)) = volume.split_once(':') else {
            return Err(format!("invalid docker volume: {volume:?}"));
        };
        // A name without a slash is a volume of Docker's own where those are allowed.
        let named = options.volumes_enabled && !from.contains('/') && !from.starts_with('.');
        let from = if named || driver { from.to_owned() } else { host_path(options, task, from)? };
        // A mode of the job's own says everything that is to be said.
        let label = if to.contains(':') { "" } else { label.as_str() };
        binds.push(format!("{from}:{to}{label}"));
    }
    binds.extend(task.mounts.iter().filter(|volume| !volume.selinux_label.is_empty()).map(labelled_bind));
    Ok(binds)
}

fn mounts(options: &DockerOptions, task: &TaskConfig) -> Result<Vec<Mount>, String> {
    let blocks = ["mount", "mounts"].into_iter().flat_map(|name| task.config.blocks(name));
    let mut mounts =
        blocks.map(|block| mount(options, task, &block)).collect::<Result<Vec<Mount>, String>>()?;
    mounts.extend(task.mounts.iter().filter(|volume| volume.selinux_label.is_empty()).map(volume_mount));
    Ok(mounts)
}

fn mount(options: &DockerOptions, task: &TaskConfig, block: &Map<String, Value>) -> Result<Mount, String> {
    let source = block.text("source");
    let inner = |name: &str| block.blocks(name).into_iter().next().unwrap_or_default();
    let mut mount = Mount {
        target: Some(block.text("target")),
        read_only: Some(block.switch("readonly")),
        ..Mount::default()
    };
    match block.text("type").as_str() {
        "" | "volume" => {
            mount.typ = Some(MountType::VOLUME);
            mount.source = non_empty(source);
            mount.volume_options = Some(volume_options(options, &inner("volume_options"))?);
        }
        "bind" => {
            mount.typ = Some(MountType::BIND);
            mount.source = Some(host_path(options, task, &source)?);
            let propagation = inner("bind_options").text("propagation");
            if !propagation.is_empty() {
                mount.bind_options = Some(MountBindOptions {
                    propagation: Some(propagation_of(&propagation)?),
                    ..MountBindOptions::default()
                });
            }
        }
        "tmpfs" => {
            mount.typ = Some(MountType::TMPFS);
            let wanted = inner("tmpfs_options");
            let (size_bytes, mode) = (wanted.number("size"), wanted.number("mode"));
            mount.tmpfs_options =
                Some(MountTmpfsOptions { size_bytes, mode, ..MountTmpfsOptions::default() });
        }
        other => return Err(format!("invalid mount type {other:?}")),
    }
    Ok(mount)
}

fn propagation_of(text: &str) -> Result<MountBindOptionsPropagationEnum, String> {
    text.parse().map_err(|_| format!("invalid propagation mode {text:?}"))
}

fn volume_options(options: &DockerOptions, block: &Map<String, Value>) -> Result<MountVolumeOptions, String> {
    let labels: HashMap<String, String> = block.pairs("labels").into_iter().collect();
    let driver = block.blocks("driver_config").into_iter().next();
    let driver = driver.map(|driver| {
        let options: HashMap<String, String> = driver.pairs("options").into_iter().collect();
        MountVolumeOptionsDriverConfig {
            name: non_empty(driver.text("name")),
            options: Some(options).filter(|options| !options.is_empty()),
        }
    });
    // Options of a driver can name any directory of the host.
    if let Some(config) = driver.as_ref().filter(|_| !options.volumes_enabled) {
        let name = config.name.as_deref().unwrap_or("local");
        return Err(format!("volumes are not enabled; cannot use volume driver {name:?}"));
    }
    Ok(MountVolumeOptions {
        no_copy: block.contains_key("no_copy").then(|| block.switch("no_copy")),
        labels: Some(labels).filter(|labels| !labels.is_empty()),
        driver_config: driver,
        ..MountVolumeOptions::default()
    })
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
fn log_config(options: &DockerOptions, config: &Map<String, Value>) -> HostConfigLogConfig {
    let block = config.blocks("logging").into_iter().next().unwrap_or_default();
    let kind = non_empty(block.text("type")).or_else(|| non_empty(block.text("driver")));
    let settings: HashMap<String, String> = block.pairs("config").into_iter().collect();
    if kind.is_none() && settings.is_empty() {
        return HostConfigLogConfig {
            typ: non_empty(options.logging.kind.clone()),
            config: Some(options.logging.config.clone().into_iter().collect()),
        };
    }
    HostConfigLogConfig {
        typ: kind.or_else(|| non_empty(options.logging.kind.clone())),
        config: Some(settings),
    }
}

/// What Docker would grant and the agent does not, besides what the task wants dropped.
fn dropped_capabilities(options: &DockerOptions, add: &[String], mut drop: Vec<String>) -> Vec<String> {
    let added = |name: &str| add.iter().any(|one| one == name || one == "all");
    let allowed = |name: &str| {
        let listed = options.allowed_capabilities.iter().any(|one| one == name || one == "all");
        // Even where it may be had, it must be asked for.
        listed && name != NET_RAW
    };
    if drop.iter().any(|name| name == "all") {
        return drop;
    }
    for name in DOCKER_CAPABILITIES {
        if !allowed(name) && !added(name) && !drop.iter().any(|one| one == name) {
            drop.push((*name).to_owned());
        }
    }
    drop
}

/// Labels that the agent is configured to set, by patterns with `*`.
fn extra_labels(options: &DockerOptions, task: &TaskConfig) -> Vec<(String, String)> {
    let known = [
        ("job_name", &task.job_name),
        ("job_id", &task.job),
        ("parent_job_id", &task.parent_job),
        ("task_group_name", &task.group),
        ("task_name", &task.id.task),
        ("namespace", &task.namespace),
        ("node_name", &task.node_name),
        ("node_id", &task.node_id),
    ];
    let wanted = |name: &str| options.extra_labels.iter().any(|pattern| matches_pattern(pattern, name));
    let chosen = known.into_iter().filter(|(name, value)| wanted(name) && !value.is_empty());
    chosen.map(|(name, value)| (format!("{LABEL_PREFIX}{name}"), value.clone())).collect()
}

fn matches_pattern(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => {
            let ends = name.strip_prefix(start).map(|left| (0..=left.len()).map(move |at| &left[at..]));
            ends.into_iter().flatten().any(|left| matches_pattern(rest, left))
        }
    }
}

fn healthcheck(config: &Map<String, Value>) -> Option<HealthConfig> {
    let block = config.blocks("healthchecks").into_iter().next()?;
    let none = || HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() };
    block.switch("disable").then(none)
}

fn isolation(config: &Map<String, Value>) -> Option<HostConfigIsolationEnum> {
    match config.text("isolation").as_str() {
        "hyperv" => Some(HostConfigIsolationEnum::HYPERV),
        "process" => Some(HostConfigIsolationEnum::PROCESS),
        "default" => Some(HostConfigIsolationEnum::DEFAULT),
        _ => None,
    }
}

fn volume_driver(options: &DockerOptions, config: &Map<String, Value>) -> Result<Option<String>, String> {
    let driver = config.text("volume_driver");
    if !driver.is_empty() && !options.volumes_enabled {
        return Err(format!("volumes are not enabled; cannot use volume driver {driver:?}"));
    }
    Ok(non_empty(driver))
}

/// Addresses and aliases in the network that the container is to join; Docker refuses them where it has none to give.
fn networking(config: &Map<String, Value>) -> Option<NetworkingConfig> {
    let aliases = config.list("network_aliases");
    let (ipv4, ipv6) = (config.text("ipv4_address"), config.text("ipv6_address"));
    let mac = config.text("mac_address");
    if aliases.is_empty() && ipv4.is_empty() && ipv6.is_empty() && mac.is_empty() {
        return None;
    }
    let asked = config.text("network_mode");
    let network = non_empty(asked).unwrap_or_else(|| "default".to_owned());
    let addresses = EndpointIpamConfig {
        ipv4_address: non_empty(ipv4),
        ipv6_address: non_empty(ipv6),
        ..EndpointIpamConfig::default()
    };
    let endpoint = EndpointSettings {
        aliases: filled(aliases),
        mac_address: non_empty(mac),
        ipam_config: Some(addresses).filter(|one| one.ipv4_address.is_some() || one.ipv6_address.is_some()),
        ..EndpointSettings::default()
    };
    Some(NetworkingConfig { endpoints_config: Some(HashMap::from([(network, endpoint)])) })
}

/// `soft[:hard]`.
fn limit_of(name: &str, value: &str) -> Option<ResourcesUlimits> {
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let (soft, hard) = (soft.parse().ok()?, hard.parse().ok()?);
    Some(ResourcesUlimits { name: Some(name.to_owned()), soft: Some(soft), hard: Some(hard) })
}
