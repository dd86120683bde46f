//! Fits a group into what is left of a node, and hands out ports, cores and devices.

use std::collections::BTreeMap;

use crate::model::group::TaskGroup;
use crate::model::id::AllocId;
use crate::model::network::Network;
use crate::model::network::Port;
use crate::model::network::PortMapping;
use crate::model::resources::AllocatedCpu;
use crate::model::resources::AllocatedMemory;
use crate::model::resources::AllocatedResources;
use crate::model::resources::AllocatedShared;
use crate::model::resources::AllocatedTask;
use crate::model::resources::Resources;

use super::cluster::Node;
use super::cluster::Yielded;
use super::device;
use super::feasible::resolve_network;
use super::footprint::Charge;
use super::footprint::Phase;
use super::footprint::peak;
use super::node::Address;
use super::node::NodeView;
use super::ports::PortGrant;
use super::ports::choose_port;
use super::unfit::Unfit;

/// Static port of a port block, if it has one.
fn static_port(port: &Port) -> Option<u16> {
    u16::try_from(port.value).ok().filter(|value| *value != 0)
}

/// What one allocation of a group needs.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// MHz (reserved cores apart), memory and disk.
    base: Charge,
    cores: usize,
    tasks: Vec<(String, Resources)>,
    network: Option<Network>,
    oversubscription: bool,
    has_static_ports: bool,
    dynamic_ports: usize,
    has_devices: bool,
}

impl Ask {
    pub(super) fn of(group: &TaskGroup, oversubscription: bool) -> Self {
        let need = |resources: &Resources| {
            let cpu = if resources.cores > 0 { 0 } else { resources.cpu_mhz };
            [cpu, memory_of(resources)]
        };
        let tasks: Vec<(String, Resources)> =
            group.tasks.iter().map(|task| (task.name.clone(), task.resources())).collect();
        let phases = group.tasks.iter().map(Phase::of);
        let [cpu, memory] = peak(phases.zip(tasks.iter().map(|(_, resources)| need(resources))));
        let networks =
            || group.networks.first().into_iter().chain(tasks.iter().flat_map(|(_, r)| r.networks.first()));
        Self {
            base: [cpu, memory, group.disk_mb()],
            cores: tasks.iter().map(|(_, r)| usize::try_from(r.cores).unwrap_or(0)).sum(),
            network: group.networks.first().cloned(),
            oversubscription,
            has_static_ports: networks().any(|network| !network.reserved_ports.is_empty()),
            dynamic_ports: networks().map(|network| network.dynamic_ports.len()).sum(),
            has_devices: tasks.iter().any(|(_, resources)| !resources.devices.is_empty()),
            tasks,
        }
    }

    /// What the node is charged.
    pub(super) fn charge(&self, mhz_per_core: i64) -> Charge {
        let core_mhz = i64::try_from(self.cores).unwrap_or(i64::MAX).saturating_mul(mhz_per_core);
        [self.base[0].saturating_add(core_mhz), self.base[1], self.base[2]]
    }

    /// The charge when it is the same on every node.
    pub(super) fn fixed_charge(&self) -> Option<Charge> {
        (self.cores == 0).then_some(self.base)
    }

    /// Nothing but CPU, memory and disk has to be looked at before a node is chosen.
    pub(super) fn is_plain(&self) -> bool {
        self.cores == 0 && !self.has_static_ports && self.dynamic_ports == 0 && !self.has_devices
    }

    /// What the tasks asked for of a resource that ran out, times `failures`, as `ResourcesExhausted` shows it.
    pub(super) fn exhausted(&self, unfit: &Unfit, failures: i64) -> BTreeMap<String, Resources> {
        let one = |asked: &Resources| match unfit {
            Unfit::CpuExhausted => Resources { cpu_mhz: asked.cpu_mhz * failures, ..Resources::default() },
            Unfit::MemoryExhausted => {
                Resources { memory_mb: asked.memory_mb * failures, ..Resources::default() }
            }
            _ => Resources::default(),
        };
        self.tasks.iter().map(|(name, asked)| (name.clone(), one(asked))).collect()
    }
}

/// Memory in MiB, the secrets' file system included.
fn memory_of(resources: &Resources) -> i64 {
    resources.memory_mb + resources.secrets_mb
}

/// Whether CPU, memory and disk suffice.
pub(super) fn fits(capacity: Charge, used: Charge) -> Result<(), Unfit> {
    if used[0] > capacity[0] {
        Err(Unfit::CpuExhausted)
    } else if used[1] > capacity[1] {
        Err(Unfit::MemoryExhausted)
    } else if used[2] > capacity[2] {
        Err(Unfit::DiskExhausted)
    } else {
        Ok(())
    }
}

/// What is left of one node, for one allocation.
pub(super) struct Granter<'a> {
    pub(super) ask: &'a Ask,
    pub(super) node: &'a Node,
    pub(super) view: &'a NodeView,
    /// What predecessors leave to this allocation.
    pub(super) yielded: &'a Yielded,
}

impl Granter<'_> {
    /// Whether ports, cores and devices suffice; the device score when there are device affinities.
    pub(super) fn check(&self) -> Result<Option<f64>, Unfit> {
        if self.free_cores().nth(self.ask.cores.wrapping_sub(1)).is_none() && self.ask.cores > 0 {
            return Err(Unfit::CoresExhausted);
        }
        if self.ask.has_static_ports || (self.ask.dynamic_ports > 0 && self.may_lack_dynamic_ports()) {
            let mut taken = Vec::new();
            self.group_network(AllocId::default(), &mut taken)?;
            self.task_networks(AllocId::default(), &mut taken)?;
        } else if self.ask.dynamic_ports > 0 {
            self.check_addresses()?;
        }
        if self.ask.has_devices {
            let mut weights = (0.0, 0.0);
            self.devices(&mut weights)?;
            return Ok((weights.1 > 0.0).then(|| weights.0 / weights.1));
        }
        Ok(None)
    }

    /// The whole grant.
    pub(super) fn grant(&self, alloc: AllocId) -> Result<AllocatedResources, Unfit> {
        let mut taken = Vec::new();
        let (networks, ports) = self.group_network(alloc, &mut taken)?;
        let mut task_networks = self.task_networks(alloc, &mut taken)?.into_iter();
        let mut devices = self.devices(&mut (0.0, 0.0))?.into_iter();
        let mut cores = self.free_cores();
        let mut tasks = BTreeMap::new();
        for (name, asked) in &self.ask.tasks {
            let wanted = usize::try_from(asked.cores).unwrap_or(0);
            let reserved_cores: Vec<u16> = cores.by_ref().take(wanted).collect();
            if reserved_cores.len() < wanted {
                return Err(Unfit::CoresExhausted);
            }
            let cpu_shares = if wanted == 0 { asked.cpu_mhz } else { asked.cores * self.view.mhz_per_core };
            let memory_max_mb = if self.ask.oversubscription { asked.memory_max_mb } else { 0 };
            let task = AllocatedTask {
                cpu: AllocatedCpu { cpu_shares, reserved_cores },
                memory: AllocatedMemory { memory_mb: memory_of(asked), memory_max_mb },
                networks: task_networks.next().flatten().into_iter().collect(),
                devices: devices.by_ref().take(asked.devices.len()).collect(),
            };
            tasks.insert(name.clone(), task);
        }
        Ok(AllocatedResources {
            tasks,
            shared: AllocatedShared { networks, disk_mb: self.ask.base[2], ports },
        })
    }

    fn free_cores(&self) -> impl Iterator<Item = u16> {
        self.view.cores.iter().copied().filter(|core| {
            let holders = self.node.cores.get(core).copied().unwrap_or(0);
            usize::from(holders) <= self.yielded.cores.iter().filter(|yielded| *yielded == core).count()
        })
    }

    fn devices(
        &self,
        weights: &mut (f64, f64),
    ) -> Result<Vec<crate::model::resources::AllocatedDevice>, Unfit> {
        let mut taken: Vec<String> = Vec::new();
        let mut granted = Vec::new();
        for request in self.ask.tasks.iter().flat_map(|(_, resources)| &resources.devices) {
            let is_free = |key: &str| {
                let holders = self.node.devices.get(key).copied().unwrap_or(0);
                let yielding = self.yielded.devices.iter().filter(|yielded| &***yielded == key).count();
                usize::from(holders) <= yielding && taken.iter().all(|taken| taken != key)
            };
            let groups = &self.view.info.resources.devices;
            let offer = device::offer(groups, request, is_free).ok_or(Unfit::DevicesExhausted)?;
            let of = &offer.granted;
            taken
                .extend(of.device_ids.iter().map(|id| format!("{}/{}/{}/{id}", of.vendor, of.kind, of.name)));
            weights.0 += offer.weights.0;
            weights.1 += offer.weights.1;
            granted.push(offer.granted);
        }
        Ok(granted)
    }

    /// So many ports are taken that a free one has to be searched for.
    fn may_lack_dynamic_ports(&self) -> bool {
        let (low, high) = self.view.dynamic_ports;
        let size = usize::from(high.saturating_sub(low));
        let of_addresses: usize = self.view.addresses.iter().map(|address| address.reserved.len()).sum();
        let taken = self.node.ports.len() + self.view.reserved_ports.len() + of_addresses;
        taken + self.ask.dynamic_ports >= size
    }

    fn check_addresses(&self) -> Result<(), Unfit> {
        for port in self.ask.network.iter().flat_map(Network::ports) {
            self.addresses_of(port)?;
        }
        let has_task_ports = self.ask.tasks.iter().any(|(_, resources)| !resources.networks.is_empty());
        if has_task_ports && self.view.task_addresses.is_empty() {
            return Err(Unfit::NoTaskNetwork);
        }
        Ok(())
    }

    fn addresses_of(&self, port: &Port) -> Result<Vec<&Address>, Unfit> {
        let name = resolve_network(&port.host_network, self.view).unwrap_or_default();
        let found: Vec<&Address> =
            self.view.addresses.iter().filter(|address| *address.network == *name).collect();
        if found.is_empty() { Err(Unfit::NoAddress(name.into())) } else { Ok(found) }
    }

    fn is_free(&self, grant: PortGrant, taken: &[PortGrant]) -> bool {
        !self.view.reserved_ports.contain(grant.port)
            && taken.iter().all(|other| !other.collides_with(&grant))
            && self.node.ports.is_free(grant, &self.yielded.ports)
    }

    /// Grants the group's ports: the network with its ports filled in, and the flat list.
    fn group_network(
        &self,
        alloc: AllocId,
        taken: &mut Vec<PortGrant>,
    ) -> Result<(Vec<Network>, Vec<PortMapping>), Unfit> {
        let Some(asked) = &self.ask.network else {
            return Ok((Vec::new(), Vec::new()));
        };
        let mut granted = asked.clone();
        let mut mappings = Vec::new();
        for port in &mut granted.reserved_ports {
            mappings.push(self.grant_static(port, taken)?);
        }
        let statics: Vec<u16> = asked.reserved_ports.iter().filter_map(static_port).collect();
        for (at, port) in granted.dynamic_ports.iter_mut().enumerate() {
            let mapping = self.grant_dynamic(port, seed(alloc, at), &statics, taken)?;
            port.value = i64::from(mapping.value);
            mappings.push(mapping);
        }
        if let Some(first) = mappings.first() {
            granted.ip = first.host_ip.clone();
        } else if let Some(address) = self.view.addresses.first() {
            granted.ip = address.text.to_string();
        }
        granted.device = self.device_of(&granted.ip);
        Ok((vec![granted], mappings))
    }

    fn device_of(&self, ip: &str) -> String {
        let networks = &self.view.info.resources.node_networks;
        let found =
            networks.iter().find(|network| network.addresses.iter().any(|address| address.address == ip));
        found.map_or_else(String::new, |network| network.device.clone())
    }

    fn grant_static(&self, port: &Port, taken: &mut Vec<PortGrant>) -> Result<PortMapping, Unfit> {
        let value = static_port(port).unwrap_or(0);
        for address in self.addresses_of(port)? {
            let grant = PortGrant { port: value, address: address.ip };
            if port.ignore_collision || (!address.reserved.contain(value) && self.is_free(grant, taken)) {
                taken.push(grant);
                return Ok(mapping(port, value, address));
            }
        }
        Err(Unfit::PortCollision { label: port.label.as_str().into(), port: value })
    }

    fn grant_dynamic(
        &self,
        port: &Port,
        seed: u64,
        statics: &[u16],
        taken: &mut Vec<PortGrant>,
    ) -> Result<PortMapping, Unfit> {
        let (low, high) = self.view.dynamic_ports;
        for address in self.addresses_of(port)? {
            let is_free = |candidate: u16| {
                let grant = PortGrant { port: candidate, address: address.ip };
                !statics.contains(&candidate)
                    && !address.reserved.contain(candidate)
                    && self.is_free(grant, taken)
            };
            if let Some(value) = choose_port(low, high, seed, is_free) {
                taken.push(PortGrant { port: value, address: address.ip });
                return Ok(mapping(port, value, address));
            }
        }
        Err(Unfit::DynamicPortsExhausted)
    }

    /// Grants the older task networks, one entry per task. The first address on which all ports are free is used.
    fn task_networks(
        &self,
        alloc: AllocId,
        taken: &mut Vec<PortGrant>,
    ) -> Result<Vec<Option<Network>>, Unfit> {
        let mut granted = Vec::with_capacity(self.ask.tasks.len());
        for (at, (_, resources)) in self.ask.tasks.iter().enumerate() {
            let Some(asked) = resources.networks.first() else {
                granted.push(None);
                continue;
            };
            let mut refusal = Unfit::NoTaskNetwork;
            let found = self.view.task_addresses.iter().find_map(|address| {
                let mut network = asked.clone();
                network.device = address.device.to_string();
                network.ip = address.text.to_string();
                match self.fill_ports(&mut network, address.ip, seed(alloc, (at + 1) << 16), taken) {
                    Ok(ports) => Some((network, ports)),
                    Err(unfit) => {
                        refusal = unfit;
                        None
                    }
                }
            });
            let (network, ports) = found.ok_or(refusal)?;
            taken.extend(ports);
            granted.push(Some(network));
        }
        Ok(granted)
    }

    fn fill_ports(
        &self,
        network: &mut Network,
        address: Option<std::net::IpAddr>,
        seed: u64,
        taken: &[PortGrant],
    ) -> Result<Vec<PortGrant>, Unfit> {
        let mut taken = taken.to_vec();
        let before = taken.len();
        for port in &network.reserved_ports {
            let value = static_port(port).unwrap_or(0);
            let grant = PortGrant { port: value, address };
            if !self.is_free(grant, &taken) {
                return Err(Unfit::PortCollision { label: port.label.as_str().into(), port: value });
            }
            taken.push(grant);
        }
        let (low, high) = self.view.dynamic_ports;
        for (at, port) in network.dynamic_ports.iter_mut().enumerate() {
            let is_free = |candidate| self.is_free(PortGrant { port: candidate, address }, &taken);
            let value = choose_port(low, high, seed.wrapping_add(at as u64 * PORT_STRIDE), is_free)
                .ok_or(Unfit::DynamicPortsExhausted)?;
            port.value = i64::from(value);
            taken.push(PortGrant { port: value, address });
        }
        Ok(taken.split_off(before))
    }
}

/// Distance between the starts of the searches for an allocation's dynamic ports; prime to the usual range.
const PORT_STRIDE: u64 = 7_919;

/// Where the search for a dynamic port starts.
fn seed(alloc: AllocId, at: usize) -> u64 {
    let (high, low) = alloc.0.as_u64_pair();
    // The fixed version and variant bits of the id are folded away.
    (high ^ low.rotate_left(29))
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(31)
        .wrapping_add(at as u64 * PORT_STRIDE)
}

fn mapping(port: &Port, value: u16, address: &Address) -> PortMapping {
    PortMapping {
        label: port.label.clone(),
        value,
        to: port.to,
        host_ip: address.text.to_string(),
        ignore_collision: port.ignore_collision,
    }
}
