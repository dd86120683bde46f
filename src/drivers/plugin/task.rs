//! A task in the words of plugins.

use std::path::Path;

use crate::drivers::Propagation;
use crate::drivers::TaskConfig;
use crate::drivers::TaskId;
use crate::drivers::network::MadeNetwork;
use crate::model::network::Network;
use crate::model::network::Port;

use super::proto::hashicorp::nomad::plugins::drivers::proto;

/// The period over which a share of the processors is granted, microseconds.
const CPU_PERIOD: i64 = 100_000;

/// What a driver is told of one run of a task: `<allocation>/<task>/<run>`.
pub fn id_of(id: &TaskId) -> String {
    format!("{}/{}/{:08x}", id.alloc, id.task, id.run)
}

/// What only the driver knows of a task.
pub struct Own<'a> {
    /// The options of the job file, encoded.
    pub options: Vec<u8>,
    /// Where output goes.
    pub stdout: &'a Path,
    pub stderr: &'a Path,
    /// The task has a root directory of its own.
    pub own_root: bool,
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The whole task, for this driver.
pub fn describe(config: &TaskConfig, driver: &str, own: Own<'_>) -> proto::TaskConfig {
    proto::TaskConfig {
        id: id_of(&config.id),
        name: config.id.task.clone(),
        msgpack_driver_config: own.options,
        env: config.env.clone(),
        // Variables and nodes of devices are granted by device plugins, which do not exist here.
        device_env: [].into(),
        resources: Some(resources(config)),
        mounts: mounts(config, own.own_root),
        devices: Vec::new(),
        user: config.user.clone(),
        alloc_dir: text(&config.dirs.alloc),
        stdout_path: text(own.stdout),
        stderr_path: text(own.stderr),
        task_group_name: config.group.clone(),
        job_name: config.job_name.clone(),
        alloc_id: config.id.alloc.to_string(),
        network_isolation_spec: config.network_namespace.as_ref().map(|path| isolation(config, path, driver)),
        dns: config.network_files.dns.as_ref().map(|dns| proto::DnsConfig {
            servers: dns.servers.clone(),
            searches: dns.searches.clone(),
            options: dns.options.clone(),
        }),
        job_id: config.job.clone(),
        namespace: config.namespace.clone(),
        node_name: config.node_name.clone(),
        node_id: config.node_id.clone(),
        parent_job_id: config.parent_job.clone(),
    }
}

/// The namespace of the task's group: as the driver knows it, if it has made it.
fn isolation(config: &TaskConfig, path: &Path, driver: &str) -> proto::NetworkIsolationSpec {
    let files = &config.network_files;
    let made = files
        .made
        .clone()
        .filter(|made| made.driver == driver)
        .unwrap_or_else(|| MadeNetwork { path: path.to_owned(), ..MadeNetwork::default() });
    let hosts = proto::HostsConfig { hostname: files.hostname.clone(), address: files.address.clone() };
    proto::NetworkIsolationSpec {
        hosts_config: Some(hosts).filter(|hosts| !hosts.address.is_empty()),
        ..spec_of(&made)
    }
}

/// A namespace that a driver has made, in its own words.
pub fn spec_of(made: &MadeNetwork) -> proto::NetworkIsolationSpec {
    proto::NetworkIsolationSpec {
        mode: proto::network_isolation_spec::Mode::Group.into(),
        path: text(&made.path),
        labels: made.labels.clone(),
        hosts_config: None,
    }
}

/// Volumes, and the files that say who is who in the task's network.
fn mounts(config: &TaskConfig, own_root: bool) -> Vec<proto::Mount> {
    let volumes = config.mounts.iter().map(|mount| proto::Mount {
        task_path: text(&mount.to),
        host_path: text(&mount.from),
        readonly: mount.read_only,
        propagation_mode: propagation(mount.propagation).to_owned(),
        selinux_label: mount.selinux_label.clone(),
    });
    // Without a root of its own a task would have them in the place of the host's.
    let files = config.network_files.places().filter(|_| own_root).map(|(file, place)| proto::Mount {
        task_path: place.to_owned(),
        host_path: text(file),
        readonly: true,
        propagation_mode: propagation(Propagation::Private).to_owned(),
        selinux_label: String::new(),
    });
    volumes.chain(files).collect()
}

fn propagation(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Private => "private",
        Propagation::HostToTask => "host-to-task",
        Propagation::Bidirectional => "bidirectional",
    }
}

fn resources(config: &TaskConfig) -> proto::Resources {
    let grant = &config.grant;
    let memory_mb = grant.memory.memory_mb.max(grant.memory.memory_max_mb);
    let cores: Vec<String> = grant.cpu.reserved_cores.iter().map(u16::to_string).collect();
    proto::Resources {
        allocated_resources: Some(proto::AllocatedTaskResources {
            cpu: Some(proto::AllocatedCpuResources { cpu_shares: grant.cpu.cpu_shares }),
            memory: Some(proto::AllocatedMemoryResources {
                memory_mb: grant.memory.memory_mb,
                memory_max_mb: grant.memory.memory_max_mb,
            }),
            networks: grant.networks.iter().map(network).collect(),
        }),
        linux_resources: Some(proto::LinuxResources {
            cpu_period: CPU_PERIOD,
            cpu_shares: grant.cpu.cpu_shares,
            memory_limit_bytes: memory_mb << 20,
            cpuset_cpus: cores.join(","),
            // The task's part of the whole machine.
            percent_ticks: if config.node_mhz > 0 {
                grant.cpu.cpu_shares as f64 / config.node_mhz as f64
            } else {
                0.0
            },
            ..proto::LinuxResources::default()
        }),
        ports: config
            .ports
            .iter()
            .map(|port| proto::PortMapping {
                label: port.label.clone(),
                value: i32::from(port.value),
                to: i32::try_from(port.to).unwrap_or_default(),
                host_ip: port.host_ip.clone(),
            })
            .collect(),
    }
}

fn network(network: &Network) -> proto::NetworkResource {
    let port = |port: &Port| proto::NetworkPort {
        label: port.label.clone(),
        value: i32::try_from(port.value).unwrap_or_default(),
    };
    proto::NetworkResource {
        device: network.device.clone(),
        cidr: network.cidr.clone(),
        ip: network.ip.clone(),
        mbits: i32::try_from(network.mbits).unwrap_or_default(),
        reserved_ports: network.reserved_ports.iter().map(port).collect(),
        dynamic_ports: network.dynamic_ports.iter().map(port).collect(),
    }
}
