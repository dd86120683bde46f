//! Host ports on one node. Dynamic ports are chosen by hashing the allocation's id: repeatable, yet spread out, so
//! that a port that was just freed is rarely given away again at once.

use std::collections::BTreeSet;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;

use crate::model::group::TaskGroup;
use crate::model::id::AllocId;
use crate::model::network::Network;
use crate::model::network::Port;
use crate::model::network::PortMapping;
use crate::model::node::NodeAddress;

use super::cluster::Node;
use super::feasible::Unfit;

/// Range of dynamic ports when the node does not say otherwise.
const DYNAMIC: (u16, u16) = (20_000, 32_000);

/// The name of the ordinary host network.
const DEFAULT_NETWORK: &str = "default";

/// Ports granted so far to one allocation on one node.
pub(super) struct Granting<'a> {
    node: &'a Node,
    alloc: AllocId,
    /// Ports that the predecessor holds and hands over.
    inherited: &'a [u16],
    taken: BTreeSet<u16>,
}

impl<'a> Granting<'a> {
    pub(super) fn new(node: &'a Node, alloc: AllocId, inherited: &'a [u16]) -> Self {
        Self { node, alloc, inherited, taken: BTreeSet::new() }
    }

    fn is_free(&self, port: u16) -> bool {
        let users = self.node.ports.get(&port).copied().unwrap_or(0);
        let inherited = u32::from(self.inherited.contains(&port));
        users <= inherited && !self.node.reserved_ports.contains(&port) && !self.taken.contains(&port)
    }

    fn static_port(&mut self, port: &Port) -> Result<u16, Unfit> {
        let collision = || Unfit::Network(format!("reserved port collision {}={}", port.label, port.value));
        let value = u16::try_from(port.value).map_err(|_| collision())?;
        if !port.ignore_collision && !self.is_free(value) {
            return Err(collision());
        }
        self.taken.insert(value);
        Ok(value)
    }

    fn dynamic_port(&mut self, label: &str) -> Result<u16, Unfit> {
        let resources = &self.node.info.resources;
        let (low, high) = match (resources.min_dynamic_port, resources.max_dynamic_port) {
            (low, high) if low > 0 && high >= low => (low, high),
            _ => DYNAMIC,
        };
        let size = u32::from(high - low) + 1;
        let mut hasher = DefaultHasher::new();
        (self.alloc, label).hash(&mut hasher);
        let start = u32::try_from(hasher.finish() % u64::from(size)).unwrap_or(0);
        let port = (0..size)
            .map(|step| low + u16::try_from((start + step) % size).unwrap_or(0))
            // An inherited port is still held for a while: a fresh one lets the replacement be found at once.
            .find(|port| self.is_free(*port) && !self.inherited.contains(port))
            .ok_or_else(|| Unfit::Network("dynamic port selection failed".to_owned()))?;
        self.taken.insert(port);
        Ok(port)
    }

    fn address(&self, host_network: &str) -> Result<String, Unfit> {
        let wanted = if host_network.is_empty() { DEFAULT_NETWORK } else { host_network };
        self.addresses()
            .find(|address| address.alias == wanted)
            .map(|address| address.address.clone())
            .ok_or_else(|| Unfit::Network(format!("no addresses available for {wanted} network")))
    }

    fn addresses(&self) -> impl Iterator<Item = &'a NodeAddress> {
        self.node.info.resources.node_networks.iter().flat_map(|network| &network.addresses)
    }

    /// Grants the ports of a group's network.
    pub(super) fn group(&mut self, network: &Network) -> Result<(Network, Vec<PortMapping>), Unfit> {
        let mut granted = network.clone();
        let mut mappings = Vec::new();
        let (statics, dynamics) = (&mut granted.reserved_ports, &mut granted.dynamic_ports);
        for (port, is_static) in
            statics.iter_mut().map(|port| (port, true)).chain(dynamics.iter_mut().map(|port| (port, false)))
        {
            let value = if is_static { self.static_port(port)? } else { self.dynamic_port(&port.label)? };
            port.value = i64::from(value);
            if port.to == -1 {
                port.to = i64::from(value);
            }
            mappings.push(PortMapping {
                label: port.label.clone(),
                value,
                to: port.to,
                host_ip: self.address(&port.host_network)?,
                ignore_collision: port.ignore_collision,
            });
        }
        if let Some(first) = mappings.first() {
            granted.ip = first.host_ip.clone();
        }
        Ok((granted, mappings))
    }

    /// Grants the ports of an older task network.
    pub(super) fn task(&mut self, network: &Network) -> Result<Network, Unfit> {
        let mut granted = network.clone();
        let ordinary = self
            .node
            .info
            .resources
            .node_networks
            .iter()
            .find(|network| network.addresses.iter().any(|address| address.alias == DEFAULT_NETWORK));
        granted.device = ordinary.map(|network| network.device.clone()).unwrap_or_default();
        granted.ip = self.address("")?;
        for port in &mut granted.reserved_ports {
            port.value = i64::from(self.static_port(port)?);
        }
        for port in &mut granted.dynamic_ports {
            port.value = i64::from(self.dynamic_port(&port.label)?);
        }
        Ok(granted)
    }
}

/// Cheap test before scoring: are the group's static ports free?
pub(super) fn static_ports_fit(node: &Node, group: &TaskGroup, inherited: &[u16]) -> Result<(), Unfit> {
    let mut granting = Granting::new(node, AllocId::default(), inherited);
    let tasks = group.tasks.iter().filter_map(|task| task.resources.as_ref());
    let networks = group.networks.iter().chain(tasks.flat_map(|resources| &resources.networks));
    for port in networks.flat_map(|network| &network.reserved_ports) {
        granting.static_port(port)?;
    }
    Ok(())
}
