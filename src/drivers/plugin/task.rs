//! A task in the words of plugins.

use std::path::Path;

use crate::drivers::TaskConfig;
use crate::drivers::TaskId;
use crate::model::network::Network;
use crate::model::network::Port;

use super::proto::hashicorp::nomad::plugins::drivers::proto;

/// The period over which a share of the processors is granted, microseconds.
const CPU_PERIOD: i64 = 100_000;

/// What a driver is told of one run of a task: `<allocation>/<task>/<run>`.
pub fn id_of(id: &TaskId) -> String {
    format!("{}/{}/{:08x}", id.alloc, id.task, id.run)
}

/// The whole task; output goes to the two paths.
pub fn describe(config: &TaskConfig, options: Vec<u8>, stdout: &Path, stderr: &Path) -> proto::TaskConfig {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let variable = |name: &str| config.env.get(name).cloned().unwrap_or_default();
    proto::TaskConfig {
        id: id_of(&config.id),
        name: config.id.task.clone(),
        msgpack_driver_config: options,
        env: config.env.clone(),
        // Variables and nodes of devices are granted by device plugins, which do not exist here.
        device_env: [].into(),
        resources: Some(resources(config)),
        mounts: Vec::new(),
        devices: Vec::new(),
        user: config.user.clone(),
        alloc_dir: text(&config.dirs.alloc),
        stdout_path: text(stdout),
        stderr_path: text(stderr),
        task_group_name: config.group.clone(),
        job_name: config.job.clone(),
        alloc_id: config.id.alloc.to_string(),
        network_isolation_spec: config.network_namespace.as_ref().map(|path| proto::NetworkIsolationSpec {
            mode: proto::network_isolation_spec::Mode::Group.into(),
            path: text(path),
            ..proto::NetworkIsolationSpec::default()
        }),
        dns: None,
        job_id: config.job.clone(),
        namespace: config.namespace.clone(),
        node_name: config.node_name.clone(),
        node_id: String::new(),
        parent_job_id: variable("NOMAD_JOB_PARENT_ID"),
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
