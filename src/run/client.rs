//! The client role: finds out about the machine, builds the drivers, and starts the node agent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::future::select_all;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::agent::Agent;
use crate::agent::AgentConfig as NodeConfig;
use crate::agent::AgentHandle;
use crate::agent::Memory;
use crate::agent::catalog::StoreCatalog;
use crate::agent::consul::Client as ConsulClient;
use crate::agent::consul::ConsulOptions;
use crate::agent::consul::Registry;
use crate::agent::env;
use crate::agent::fingerprint;
use crate::agent::fingerprint::Fingerprint;
use crate::agent::fingerprint::FingerprintOptions;
use crate::agent::fingerprint::PartFilter;
use crate::agent::gc::CollectionLimits;
use crate::agent::hooks::TemplateOptions;
use crate::agent::machine::MachineConfig;
use crate::agent::migration::OverHttp;
use crate::agent::network::NetworkOptions;
use crate::agent::network::Networks;
use crate::agent::overrides;
use crate::agent::overrides::Overrides;
use crate::agent::real::RealWorkload;
use crate::agent::register::Lease;
use crate::agent::surroundings::StandardSurroundings;
use crate::agent::users::UserRules;
use crate::api::local::LocalAgent;
use crate::clock::Clock;
use crate::config::AgentConfig;
use crate::config::ClientConfig;
use crate::config::ConsulConfig;
use crate::config::TelemetryConfig;
use crate::drivers;
use crate::drivers::DriverOptions;
use crate::drivers::Drivers;
use crate::drivers::plugin;
use crate::drivers::plugin::PluginOptions;
use crate::drivers::supervisor::Supervisor;
use crate::model::id::NodeId;
use crate::model::node::DriverInfo;
use crate::model::node::HostNetwork;
use crate::model::node::HostVolume;
use crate::model::node::NodeDisk;
use crate::model::node::NodeInfo;
use crate::model::node::NodeMemory;
use crate::model::node::NodeReserved;
use crate::model::node::ReservedCpu;
use crate::model::node::ReservedNetworks;
use crate::model::node::parse_port_ranges;
use crate::store::SharedStore;
use crate::store::key::Keys;

use super::RunError;
use super::gauges::Publish;
use super::hook_options;
use super::local::Local;

/// How often the machine is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// The shortest pause between two looks, however often something changes.
const SHORTEST_LOOK: Duration = Duration::from_millis(500);

/// For plugins that listen on a port of this machine.
const PLUGIN_PORTS: (u16, u16) = (14_000, 14_512);

/// A refused registration is final after this time: more than twice the lease of an agent.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(25);

/// Percent of the disk in use from which a dev agent removes ended allocations.
const DEV_FULL: f64 = 99.0;

/// Attributes that stay as they were found at the start.
const KEPT: &[&str] = &["unique.storage.", "platform.", "unique.platform."];

/// A running node agent.
pub(super) struct Client {
    handle: Arc<AgentHandle>,
    local: Arc<Local>,
    drivers: Drivers,
    _looking: AbortOnDropHandle<()>,
    _consul: Option<AbortOnDropHandle<()>>,
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
        let mut drivers = all_drivers(config).await?;
        drivers.retain(|name, _| offers(&config.client.options, name));
        let options = fingerprint_options(config, http_addr)?;
        let consul = options.consul.clone().map(|client| {
            // One name per agent that outlives it: what an earlier one registered is this one's to remove.
            Registry::new(client, config.client.state_dir.display().to_string())
        });
        let found = fingerprint::fingerprint(&options, &drivers).await;
        let info = node_info(config, &options, found);
        let (node, node_seen) = watch::channel(Arc::new(info.clone()));
        let workload = Arc::new(RealWorkload::new(MachineConfig {
            alloc_root: alloc_root.clone(),
            region: config.region.clone(),
            drivers: drivers.clone(),
            surroundings: Arc::new(StandardSurroundings(consul.clone())),
            catalog: Arc::new(StoreCatalog::new(Arc::clone(&store), keys.clone())),
            node: node_seen,
            artifacts: hook_options::artifacts(&config.client.artifact)?,
            templates: Arc::new(TemplateOptions {
                consul: options.consul.clone(),
                ..hook_options::templates(&config.client.template)?
            }),
            host_env: env::host_env(config.client.options.get("env.denylist").map(String::as_str)),
            elsewhere: Arc::new(OverHttp::new(Arc::clone(&store), keys.clone())),
            users: UserRules::from_options(&config.client.options),
            max_kill_timeout: config.client.max_kill_timeout,
            collection: collection_limits(config),
            networks: Arc::new(Networks::new(network_options(&config.client))),
        }));
        let memory = Memory::DataDir(config.client.state_dir.clone());
        let volatile_cluster = config.etcd.endpoints.is_empty();
        let node_config = NodeConfig { volatile_cluster, ..NodeConfig::new(memory, info) };
        let handle =
            Agent::start(node_config, Arc::clone(&store), keys.clone(), clock, workload.clone()).await?;
        let handle = Arc::new(handle);
        node.send_replace(handle.info());
        let (overrides, overrides_seen) = watch::channel(Overrides::new());
        let following = overrides::follow(Arc::clone(&store), keys.clone(), handle.node_id(), overrides);
        let node = Arc::new(node);
        let changing = apply_overrides(Arc::clone(&handle), Arc::clone(&node), overrides_seen.clone());
        let looking =
            look_again(config.clone(), options, drivers.clone(), Arc::clone(&handle), node, overrides_seen);
        let looking = async move {
            tokio::join!(looking, following, changing);
        };
        let publish = publish(&config.telemetry);
        let local = Arc::new(Local::new(Arc::clone(&handle), workload, alloc_root, store, keys, publish));
        let _consul = consul.map(|consul| AbortOnDropHandle::new(tokio::spawn(consul.run())));
        Ok(Self { handle, local, drivers, _consul, _looking: AbortOnDropHandle::new(tokio::spawn(looking)) })
    }

    pub(super) fn node_id(&self) -> NodeId {
        self.handle.node_id()
    }

    pub(super) fn local(&self) -> Arc<dyn LocalAgent> {
        self.local.clone()
    }

    /// True when nothing is left to run here and no data to hand over; jobs that run on every node may be left out.
    pub(super) fn is_idle(&self, ignore_system: bool) -> bool {
        let workload = self.local.workload();
        workload.working(ignore_system).is_empty() && !workload.is_handing_over()
    }

    /// Waits until it is certain that another agent holds the node's id, and tells which. After a crash the claim
    /// of the former process stands until its lease has run out: only a refusal that outlasts that is one.
    pub(super) async fn refused(&self) -> String {
        let mut lease = self.handle.lease();
        loop {
            let seen = lease.wait_for(|lease| matches!(lease, Lease::Refused(_))).await;
            let why = seen.ok().and_then(|lease| match &*lease {
                Lease::Refused(why) => Some(why.clone()),
                Lease::None | Lease::Held(_) => None,
            });
            let Some(why) = why else {
                // The agent is going anyway.
                return std::future::pending().await;
            };
            let held = lease.wait_for(|lease| matches!(lease, Lease::Held(_)));
            if tokio::time::timeout(REFUSAL_PATIENCE, held).await.is_err() {
                return why;
            }
        }
    }

    /// Ends the agent; its tasks go on.
    pub(super) async fn shut_down(self) {
        self.handle.shutdown().await;
        join_all(self.drivers.values().map(|driver| driver.close())).await;
    }
}

/// Shows tasks at once what operators set.
async fn apply_overrides(
    handle: Arc<AgentHandle>,
    node: Arc<watch::Sender<Arc<NodeInfo>>>,
    mut changed: watch::Receiver<Overrides>,
) {
    while changed.changed().await.is_ok() {
        node.send_replace(overrides::applied(&handle.info(), &changed.borrow_and_update()));
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
    mut options: FingerprintOptions,
    drivers: Drivers,
    handle: Arc<AgentHandle>,
    node: Arc<watch::Sender<Arc<NodeInfo>>>,
    overrides: watch::Receiver<Overrides>,
) {
    options.ask_cloud = false;
    loop {
        let before = handle.info();
        let none = DriverInfo::default();
        let changes = drivers.iter().map(|(name, driver)| {
            let known = before.drivers.get(name).unwrap_or(&none);
            driver.health_changed(known)
        });
        tokio::time::sleep(SHORTEST_LOOK).await;
        // Some drivers notice by themselves that they cannot work any more, or can again.
        let noticed = select_all(changes.chain([Box::pin(std::future::pending()) as _]));
        let _ = tokio::time::timeout(LOOK_AGAIN, noticed).await;
        let found = fingerprint::fingerprint(&options, &drivers).await;
        let old = handle.info();
        let mut info = node_info(&config, &options, found);
        // Free space moves all the time: what was found at the start stays, else every look would be a write.
        info.resources.disk = old.resources.disk.clone();
        for (name, value) in &old.attributes {
            if KEPT.iter().any(|prefix| name.starts_with(prefix)) {
                info.attributes.insert(name.clone(), value.clone());
            }
        }
        for (name, driver) in &mut info.drivers {
            if let Some(known) = old.drivers.get(name) {
                driver.update_time = known.update_time;
            }
        }
        handle.set_info(info);
        node.send_replace(overrides::applied(&handle.info(), &overrides.borrow()));
    }
}

/// Whether the client's `driver.allowlist` and `driver.denylist`, both comma-separated, leave a driver.
fn offers(options: &std::collections::BTreeMap<String, String>, driver: &str) -> bool {
    let list = |name: &str| options.get(name).map(|list| list.split(',').any(|one| one.trim() == driver));
    list("driver.allowlist").unwrap_or(true) && !list("driver.denylist").unwrap_or(false)
}

fn collection_limits(config: &AgentConfig) -> CollectionLimits {
    let client = &config.client;
    let count = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let usual = ClientConfig::default();
    // The disk of whoever tries things out is often rather full.
    let percent = |value: f64, usual: f64| if config.dev && value == usual { DEV_FULL } else { value };
    CollectionLimits {
        max_allocs: count(client.gc_max_allocs),
        // A pause of nothing would be a busy loop.
        interval: client.gc_interval.to_std().max(Duration::from_secs(1)),
        disk_threshold: percent(client.gc_disk_usage_threshold, usual.gc_disk_usage_threshold),
        inode_threshold: percent(client.gc_inode_usage_threshold, usual.gc_inode_usage_threshold),
        parallel: count(client.gc_parallel_destroys),
        ..CollectionLimits::default()
    }
}

fn fingerprint_options(config: &AgentConfig, http_addr: &str) -> Result<FingerprintOptions, RunError> {
    let client = &config.client;
    let given = |value: u64| i64::try_from(value).ok().filter(|value| *value > 0);
    let interface = match client.network_interface.as_str() {
        "" if config.dev => "lo".to_owned(),
        other => other.to_owned(),
    };
    let cores = |list: &str| {
        let bad = |why| RunError::Setup(format!("cannot read the list of cores {list:?}: {why}"));
        let list = parse_port_ranges(list).map_err(bad)?;
        Ok::<_, RunError>((!list.is_empty()).then_some(list))
    };
    let networks = network_options(client);
    let consul = config.consul.as_ref().map(|consul| ConsulClient::new(consul_options(consul))).transpose();
    Ok(FingerprintOptions {
        alloc_dir: client.alloc_dir.clone(),
        network_interface: interface,
        prefer_ipv6: client.preferred_address_family == "ipv6",
        disallow_link_local: client
            .options
            .get("fingerprint.network.disallow_link_local")
            .is_some_and(|text| matches!(text.trim(), "true" | "TRUE" | "True" | "t" | "T" | "1")),
        network_speed: Some(client.network_speed).filter(|speed| *speed > 0),
        cpu_total_compute: given(client.cpu_total_compute),
        memory_total_mb: given(client.memory_total_mb),
        disk_total_mb: given(client.disk_total_mb),
        disk_free_mb: given(client.disk_free_mb),
        reserved_mhz: given(client.reserved.cpu).unwrap_or(0),
        reserved_cores: cores(&client.reserved.cores)?.unwrap_or_default(),
        reservable_cores: cores(&client.reservable_cores)?,
        parts: PartFilter::from_options(&client.options),
        ask_cloud: true,
        dynamic_ports: (client.min_dynamic_port, client.max_dynamic_port),
        cni_path: networks.cni_path,
        cni_config_dir: networks.cni_config_dir,
        bridge_name: networks.bridge,
        bridge_hairpin: networks.hairpin,
        host_networks: host_networks(client),
        advertise: http_addr.to_owned(),
        consul: consul.map_err(|error| RunError::Setup(error.to_string()))?,
    })
}

/// The built-in drivers, and those that are programs of their own.
async fn all_drivers(config: &AgentConfig) -> Result<Drivers, RunError> {
    let options = driver_options(config)?;
    let supervisor = options.supervisor.clone();
    let mut drivers = drivers::all(&options);
    let options = plugin_options(config, supervisor);
    for (name, driver) in plugin::discover(&options).await {
        if drivers.insert(name.clone(), driver).is_some() {
            tracing::warn!(driver = %name, "a plugin takes the place of the built-in driver");
        }
    }
    Ok(drivers)
}

fn plugin_options(config: &AgentConfig, supervisor: Supervisor) -> PluginOptions {
    let configured = config.plugin.iter().map(|(name, plugin)| {
        let options = match &plugin.config {
            Value::Array(blocks) => blocks.first().and_then(Value::as_object),
            options => options.as_object(),
        };
        (name.clone(), (plugin.args.clone(), options.cloned().unwrap_or_default()))
    });
    PluginOptions {
        dir: config.plugin_dir.clone(),
        state: config.client.state_dir.join("plugins"),
        ports: PLUGIN_PORTS,
        configured: configured.collect(),
        supervisor,
    }
}

fn consul_options(config: &ConsulConfig) -> ConsulOptions {
    ConsulOptions {
        address: config.address.clone(),
        token: config.token.clone(),
        auth: config.auth.clone(),
        ssl: config.ssl,
        verify_ssl: config.verify_ssl,
        ca_file: config.ca_file.clone(),
        cert_file: config.cert_file.clone(),
        key_file: config.key_file.clone(),
        namespace: config.namespace.clone(),
        timeout: config.timeout.to_std(),
    }
}

fn network_options(client: &ClientConfig) -> NetworkOptions {
    NetworkOptions {
        cni_path: client.cni_path.split(':').filter(|dir| !dir.is_empty()).map(PathBuf::from).collect(),
        cni_config_dir: client.cni_config_dir.clone(),
        bridge: client.bridge_network_name.clone(),
        subnet: client.bridge_network_subnet.clone(),
        subnet_ipv6: client.bridge_network_subnet_ipv6.clone(),
        hairpin: client.bridge_network_hairpin_mode,
        bind_wildcard: client.bind_wildcard_default_host_network,
        owner: client.state_dir.clone(),
        ..NetworkOptions::default()
    }
}

fn host_networks(client: &ClientConfig) -> BTreeMap<String, HostNetwork> {
    let networks = client.host_network.iter().map(|(name, network)| {
        let network = HostNetwork {
            name: name.clone(),
            cidr: network.cidr.clone(),
            interface: network.interface.clone(),
            reserved_ports: network.reserved_ports.clone(),
        };
        (name.clone(), network)
    });
    networks.collect()
}

fn driver_options(config: &AgentConfig) -> Result<DriverOptions, RunError> {
    let mut options = DriverOptions { raw_exec: config.dev, mock: config.dev, ..DriverOptions::default() };
    if !config.client.cgroup_parent.is_empty() {
        options.cgroup_parent = config.client.cgroup_parent.clone();
    }
    if !config.client.chroot_env.is_empty() {
        let pairs = config.client.chroot_env.iter();
        options.chroot = pairs.map(|(from, to)| (PathBuf::from(from), PathBuf::from(to))).collect();
    }
    options.docker.volumes_enabled = config.dev;
    // Whoever tries things out has images of his own and wants to keep them.
    options.docker.gc.image = !config.dev;
    options.docker.alloc_root = config.client.alloc_dir.clone();
    drivers::settings::read(&mut options, |name| config.driver_config(name), &config.client.options)
        .map_err(|problems| RunError::Setup(problems.join("\n")))?;
    Ok(options)
}

fn node_info(config: &AgentConfig, options: &FingerprintOptions, found: Fingerprint) -> NodeInfo {
    let client = &config.client;
    let cpu = &found.resources.cpu;
    let reserved = options.reserved_compute(cpu.cpu_shares, usize::from(cpu.total_cpu_cores));
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let volumes = client.host_volume.iter().map(|(name, volume)| {
        let path = volume.path.display().to_string();
        (name.clone(), HostVolume { name: name.clone(), path, read_only: volume.read_only })
    });
    NodeInfo {
        name: config.name.clone(),
        datacenter: config.datacenter.clone(),
        node_class: client.node_class.clone(),
        node_pool: client.node_pool.clone(),
        http_addr: options.advertise.clone(),
        attributes: found.attributes,
        meta: client.meta.clone(),
        resources: found.resources,
        reserved: NodeReserved {
            cpu: ReservedCpu { cpu_shares: reserved, reserved_cpu_cores: options.reserved_cores.clone() },
            memory: NodeMemory { memory_mb: signed(client.reserved.memory) },
            disk: NodeDisk { disk_mb: signed(client.reserved.disk) },
            networks: ReservedNetworks { reserved_host_ports: client.reserved.reserved_ports.clone() },
        },
        drivers: found.drivers,
        host_volumes: volumes.collect::<BTreeMap<_, _>>(),
        host_networks: host_networks(client),
        ..NodeInfo::default()
    }
}
