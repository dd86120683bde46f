//! What the scheduler knows of a node: facts prepared for quick checks, and its class.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::node::NodeInfo;

use super::ports::PortRanges;

/// Dynamic ports are taken from here unless the node says otherwise (inclusive).
pub(super) const DYNAMIC_PORTS: (u16, u16) = (20_000, 32_000);
/// The pool of a node or job that names none.
pub(super) const DEFAULT_POOL: &str = "default";
/// The alias of a host network that a port asks for by naming none.
pub(super) const DEFAULT_NETWORK: &str = "default";

/// A node as the mirror knows it.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    pub info: Arc<NodeInfo>,
    /// Operators' overrides of the agent's metadata; `None` removes a key.
    pub meta: BTreeMap<String, Option<String>>,
    /// Ready, eligible and not draining.
    pub ready: bool,
}

/// An address that group ports can be granted on.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) network: Box<str>,
    pub(super) text: Box<str>,
    pub(super) ip: Option<IpAddr>,
    pub(super) reserved: PortRanges,
}

/// A device and address for the older task networks.
#[derive(Clone, Debug)]
pub(super) struct TaskAddress {
    pub(super) device: Box<str>,
    pub(super) text: Box<str>,
    pub(super) ip: Option<IpAddr>,
}

/// Facts, prepared.
#[derive(Clone, Debug)]
pub(super) struct NodeView {
    pub(super) info: Arc<NodeInfo>,
    overrides: BTreeMap<String, Option<String>>,
    pub(super) id_text: Box<str>,
    pub(super) addresses: Vec<Address>,
    pub(super) task_addresses: Vec<TaskAddress>,
    pub(super) reserved_ports: PortRanges,
    pub(super) dynamic_ports: (u16, u16),
    /// Numbers of the cores that may be reserved, ascending.
    pub(super) cores: Vec<u16>,
    pub(super) mhz_per_core: i64,
}

impl NodeView {
    pub(super) fn new(facts: &NodeFacts) -> Self {
        let info = Arc::clone(&facts.info);
        let resources = &info.resources;
        let mut cores: Vec<u16> = resources.cpu.reservable_cpu_cores.clone();
        cores.retain(|core| !info.reserved.cpu.reserved_cpu_cores.contains(core));
        cores.sort_unstable();
        cores.dedup();
        let core_count = if resources.cpu.total_cpu_cores > 0 {
            usize::from(resources.cpu.total_cpu_cores)
        } else {
            resources.cpu.reservable_cpu_cores.len()
        };
        let core_count = i64::try_from(core_count.max(1)).unwrap_or(1);
        let bound = |value: u16, default: u16| if value == 0 { default } else { value };
        Self {
            id_text: info.id.to_string().into(),
            addresses: addresses(&info),
            task_addresses: task_addresses(&info),
            reserved_ports: PortRanges::parse(&[&info.reserved.networks.reserved_host_ports]),
            dynamic_ports: (
                bound(resources.min_dynamic_port, DYNAMIC_PORTS.0),
                bound(resources.max_dynamic_port, DYNAMIC_PORTS.1),
            ),
            cores,
            mhz_per_core: resources.cpu.cpu_shares / core_count,
            overrides: facts.meta.clone(),
            info,
        }
    }

    /// What tasks may use: MHz, MiB of memory, MiB of disk.
    pub(super) fn capacity(&self) -> [i64; 3] {
        let (total, reserved) = (&self.info.resources, &self.info.reserved);
        [
            total.cpu.cpu_shares - reserved.cpu.cpu_shares,
            total.memory.memory_mb - reserved.memory.memory_mb,
            total.disk.disk_mb - reserved.disk.disk_mb,
        ]
    }

    pub(super) fn pool(&self) -> &str {
        if self.info.node_pool.is_empty() { DEFAULT_POOL } else { &self.info.node_pool }
    }

    pub(super) fn meta(&self, key: &str) -> Option<&str> {
        match self.overrides.get(key) {
            Some(value) => value.as_deref(),
            None => self.info.meta.get(key).map(String::as_str),
        }
    }

    /// Whether the node offers a network of this mode.
    pub(super) fn has_network(&self, mode: &str) -> bool {
        let resources = &self.info.resources;
        let same = |offered: &str| {
            let offered = if offered.is_empty() { "host" } else { offered };
            offered.eq_ignore_ascii_case(mode)
        };
        resources.node_networks.iter().any(|network| same(&network.mode))
            || resources.networks.iter().any(|network| same(&network.mode))
    }

    /// Equal for nodes that no class-level check can tell apart.
    pub(super) fn class_key(&self) -> u128 {
        let half = |salt: u64| {
            // Fixed keys: the class must not depend on the process.
            let mut hasher = std::hash::DefaultHasher::new();
            salt.hash(&mut hasher);
            self.hash_class(&mut hasher);
            hasher.finish()
        };
        (u128::from(half(1)) << 64) | u128::from(half(2))
    }

    fn hash_class(&self, hasher: &mut impl Hasher) {
        let info = &self.info;
        (&info.datacenter, &info.node_class, self.pool()).hash(hasher);
        let shared = |key: &&String| !key.starts_with("unique.");
        for key in info.attributes.keys().filter(shared) {
            (key, &info.attributes[key]).hash(hasher);
        }
        "meta".hash(hasher);
        let mut keys: Vec<&String> = info.meta.keys().chain(self.overrides.keys()).filter(shared).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            (key, self.meta(key)).hash(hasher);
        }
        "drivers".hash(hasher);
        for (name, driver) in &info.drivers {
            (name, driver.detected, driver.healthy).hash(hasher);
        }
        for (name, volume) in &info.host_volumes {
            (name, volume.read_only).hash(hasher);
        }
        "networks".hash(hasher);
        for network in &info.resources.node_networks {
            network.mode.hash(hasher);
        }
        for network in &info.resources.networks {
            network.mode.hash(hasher);
        }
        for address in &self.addresses {
            address.network.hash(hasher);
        }
        "devices".hash(hasher);
        for device in &info.resources.devices {
            let healthy = device.instances.iter().filter(|instance| instance.healthy).count();
            (&device.vendor, &device.kind, &device.name, healthy).hash(hasher);
            for (name, value) in device.attributes.iter().filter(|(name, _)| shared(name)) {
                (name, value.to_string()).hash(hasher);
            }
        }
    }
}

fn addresses(info: &NodeInfo) -> Vec<Address> {
    let mut found = Vec::new();
    for address in info.resources.node_networks.iter().flat_map(|network| &network.addresses) {
        let alias = if address.alias.is_empty() { DEFAULT_NETWORK } else { &address.alias };
        let of_network = info.host_networks.get(alias).map_or("", |network| &network.reserved_ports);
        found.push(Address {
            network: alias.into(),
            text: address.address.as_str().into(),
            ip: address.address.parse().ok(),
            reserved: PortRanges::parse(&[&address.reserved_ports, of_network]),
        });
    }
    if found.is_empty() {
        // Agents that know no host networks have the addresses of their interfaces only.
        for network in info.resources.networks.iter().filter(|network| !network.ip.is_empty()) {
            found.push(Address {
                network: DEFAULT_NETWORK.into(),
                text: network.ip.as_str().into(),
                ip: network.ip.parse().ok(),
                reserved: PortRanges::default(),
            });
        }
    }
    found
}

fn task_addresses(info: &NodeInfo) -> Vec<TaskAddress> {
    let networks = info.resources.networks.iter().filter(|network| !network.ip.is_empty());
    let mut found: Vec<TaskAddress> = networks
        .map(|network| TaskAddress {
            device: network.device.as_str().into(),
            text: network.ip.as_str().into(),
            ip: network.ip.parse().ok(),
        })
        .collect();
    if found.is_empty() {
        for network in &info.resources.node_networks {
            for address in
                network.addresses.iter().filter(|a| a.alias.is_empty() || a.alias == DEFAULT_NETWORK)
            {
                found.push(TaskAddress {
                    device: network.device.as_str().into(),
                    text: address.address.as_str().into(),
                    ip: address.address.parse().ok(),
                });
            }
        }
    }
    found
}
