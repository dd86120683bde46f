//! The client role: finds out about the machine, builds the drivers, and starts the node agent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::agent::Agent;
use crate::agent::AgentConfig as NodeConfig;
use crate::agent::AgentHandle;
use crate::agent::Memory;
use crate::agent::catalog::StoreCatalog;
use crate::agent::env;
use crate::agent::fingerprint;
use crate::agent::fingerprint::Fingerprint;
use crate::agent::fingerprint::FingerprintOptions;
use crate::agent::hooks::ArtifactOptions;
use crate::agent::machine::MachineConfig;
use crate::agent::real::RealWorkload;
use crate::agent::surroundings::StandardSurroundings;
use crate::api::local::LocalAgent;
use crate::clock::Clock;
use crate::config::AgentConfig;
use crate::config::TelemetryConfig;
use crate::drivers;
use crate::drivers::DriverOptions;
use crate::drivers::Drivers;
use crate::model::id::NodeId;
use crate::model::node::HostNetwork;
use crate::model::node::HostVolume;
use crate::model::node::NodeDisk;
use crate::model::node::NodeInfo;
use crate::model::node::NodeMemory;
use crate::model::node::NodeReserved;
use crate::model::node::ReservedCpu;
use crate::model::node::ReservedNetworks;
use crate::store::SharedStore;
use crate::store::key::Keys;

use super::RunError;
use super::gauges::Publish;
use super::local::Local;

/// How often the machine is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// A running node agent.
pub(super) struct Client {
    handle: Arc<AgentHandle>,
    local: Arc<Local>,
    _looking: AbortOnDropHandle<()>,
}

impl Client {
    pub(super) async fn start(
        config: &AgentConfig,
        store: SharedStore,
        keys: Keys,
        clock: Arc<dyn Clock>,
        http_addr: &str,
    ) -> Result<Self, RunError> {
        let alloc_root = config.client.alloc_dir.clone();
        let made = |path: &PathBuf, cause: std::io::Error| {
            RunError::Setup(format!("cannot create {}: {cause}", path.display()))
        };
        for path in [&alloc_root, &config.client.state_dir] {
            std::fs::create_dir_all(path).map_err(|cause| made(path, cause))?;
        }
        let mut drivers = drivers::all(&driver_options(config));
        drivers.retain(|name, _| offers(&config.client.options, name));
        let options = fingerprint_options(config, http_addr);
        let found = fingerprint::fingerprint(&options, &drivers).await;
        let info = node_info(config, http_addr, found);
        let (node, node_seen) = watch::channel(Arc::new(info.clone()));
        let workload = Arc::new(RealWorkload::new(MachineConfig {
            alloc_root: alloc_root.clone(),
            region: config.region.clone(),
            drivers: drivers.clone(),
            surroundings: Arc::new(StandardSurroundings),
            catalog: Arc::new(StoreCatalog::new(Arc::clone(&store), keys.clone())),
            node: node_seen,
            host_env: env::host_env(),
            artifacts: ArtifactOptions::default(),
            keep_allocs: usize::try_from(config.client.gc_max_allocs).unwrap_or(usize::MAX),
            keep_for: None,
        }));
        let memory = Memory::DataDir(config.client.state_dir.clone());
        let node_config = NodeConfig::new(memory, info);
        let handle =
            Agent::start(node_config, Arc::clone(&store), keys.clone(), clock, workload.clone()).await?;
        let handle = Arc::new(handle);
        node.send_replace(handle.info());
        let looking = look_again(config.clone(), http_addr.to_owned(), drivers, Arc::clone(&handle), node);
        let local =
            Local::new(Arc::clone(&handle), workload, alloc_root, store, keys, publish(&config.telemetry));
        let local = Arc::new(local);
        Ok(Self { handle, local, _looking: AbortOnDropHandle::new(tokio::spawn(looking)) })
    }

    pub(super) fn node_id(&self) -> NodeId {
        self.handle.node_id()
    }

    pub(super) fn local(&self) -> Arc<dyn LocalAgent> {
        self.local.clone()
    }

    /// Ends the agent; its tasks go on.
    pub(super) async fn shut_down(self) {
        self.handle.shutdown().await;
    }
}

fn publish(telemetry: &TelemetryConfig) -> Publish {
    Publish {
        allocations: telemetry.publish_allocation_metrics,
        node: telemetry.publish_node_metrics,
        metadata: telemetry.include_alloc_metadata_in_metrics,
        metadata_keys: telemetry.allowed_metadata_keys_in_metrics.clone(),
    }
}

/// Looks at the machine now and then, and reports what changed: a docker daemon that came back, a new address.
async fn look_again(
    config: AgentConfig,
    http_addr: String,
    drivers: Drivers,
    handle: Arc<AgentHandle>,
    node: watch::Sender<Arc<NodeInfo>>,
) {
    let options = fingerprint_options(&config, &http_addr);
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        let found = fingerprint::fingerprint(&options, &drivers).await;
        let old = handle.info();
        let mut info = node_info(&config, &http_addr, found);
        // Free space moves all the time: what was found at the start stays, else every look would be a write.
        info.resources.disk = old.resources.disk.clone();
        for (name, value) in &old.attributes {
            if name.starts_with("unique.storage.") {
                info.attributes.insert(name.clone(), value.clone());
            }
        }
        for (name, driver) in &mut info.drivers {
            if let Some(known) = old.drivers.get(name) {
                driver.update_time = known.update_time;
            }
        }
        handle.set_info(info);
        node.send_replace(handle.info());
    }
}

/// Whether the client's `driver.allowlist` and `driver.denylist`, both comma-separated, leave a driver.
fn offers(options: &std::collections::BTreeMap<String, String>, driver: &str) -> bool {
    let list = |name: &str| options.get(name).map(|list| list.split(',').any(|one| one.trim() == driver));
    list("driver.allowlist").unwrap_or(true) && !list("driver.denylist").unwrap_or(false)
}

fn fingerprint_options(config: &AgentConfig, http_addr: &str) -> FingerprintOptions {
    let client = &config.client;
    let given = |value: u64| i64::try_from(value).ok().filter(|value| *value > 0);
    let interface = match client.network_interface.as_str() {
        "" if config.dev => "lo".to_owned(),
        other => other.to_owned(),
    };
    FingerprintOptions {
        alloc_dir: client.alloc_dir.clone(),
        network_interface: interface,
        cpu_total_compute: given(client.cpu_total_compute),
        memory_total_mb: given(client.memory_total_mb),
        disk_total_mb: given(client.disk_total_mb),
        dynamic_ports: (client.min_dynamic_port, client.max_dynamic_port),
        cni_path: PathBuf::from(&client.cni_path),
        advertise: http_addr.to_owned(),
    }
}

fn driver_options(config: &AgentConfig) -> DriverOptions {
    let enabled = |driver: &str| config.driver_config(driver).get("enabled").and_then(Value::as_bool);
    let mut options = DriverOptions {
        raw_exec: enabled("raw_exec").unwrap_or(config.dev),
        mock: enabled("mock_driver").unwrap_or(config.dev),
        ..DriverOptions::default()
    };
    if !config.client.cgroup_parent.is_empty() {
        options.cgroup_parent = config.client.cgroup_parent.clone();
    }
    if !config.client.chroot_env.is_empty() {
        let pairs = config.client.chroot_env.iter();
        options.chroot = pairs.map(|(from, to)| (PathBuf::from(from), PathBuf::from(to))).collect();
    }
    let docker = config.driver_config("docker");
    let flag = |value: Option<&Value>| value.and_then(Value::as_bool);
    if let Some(endpoint) = docker.get("endpoint").and_then(Value::as_str) {
        options.docker.endpoint = endpoint.to_owned();
    }
    options.docker.allow_privileged = flag(docker.get("allow_privileged")).unwrap_or(false);
    let volumes = docker.get("volumes");
    options.docker.volumes_enabled =
        flag(volumes.and_then(|volumes| volumes.get("enabled"))).unwrap_or(config.dev);
    options
}

fn node_info(config: &AgentConfig, http_addr: &str, found: Fingerprint) -> NodeInfo {
    let client = &config.client;
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let volumes = client.host_volume.iter().map(|(name, volume)| {
        let path = volume.path.display().to_string();
        (name.clone(), HostVolume { name: name.clone(), path, read_only: volume.read_only })
    });
    let networks = client.host_network.iter().map(|(name, network)| {
        let network = HostNetwork {
            name: name.clone(),
            cidr: network.cidr.clone(),
            interface: network.interface.clone(),
            reserved_ports: network.reserved_ports.clone(),
        };
        (name.clone(), network)
    });
    NodeInfo {
        name: config.name.clone(),
        datacenter: config.datacenter.clone(),
        node_class: client.node_class.clone(),
        node_pool: client.node_pool.clone(),
        http_addr: http_addr.to_owned(),
        attributes: found.attributes,
        meta: client.meta.clone(),
        resources: found.resources,
        reserved: NodeReserved {
            cpu: ReservedCpu { cpu_shares: signed(client.reserved.cpu), ..ReservedCpu::default() },
            memory: NodeMemory { memory_mb: signed(client.reserved.memory) },
            disk: NodeDisk { disk_mb: signed(client.reserved.disk) },
            networks: ReservedNetworks { reserved_host_ports: client.reserved.reserved_ports.clone() },
        },
        drivers: found.drivers,
        host_volumes: volumes.collect::<BTreeMap<_, _>>(),
        host_networks: networks.collect::<BTreeMap<_, _>>(),
        ..NodeInfo::default()
    }
}
