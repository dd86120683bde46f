//! Which nodes can take an allocation at all, and why others cannot.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::fmt;

use regex::Regex;

use crate::model::allocation::AllocMetric;
use crate::model::constraint::Constraint;
use crate::model::group::TaskGroup;
use crate::model::job::Job;
use crate::model::network::Network;
use crate::model::resources::AllocatedCpu;
use crate::model::resources::AllocatedDevice;
use crate::model::resources::AllocatedMemory;
use crate::model::resources::AllocatedResources;
use crate::model::resources::AllocatedTask;
use crate::model::resources::Resources;
use crate::model::version;

use super::Slot;
use super::cluster::Amounts;
use super::cluster::ClassIndex;
use super::cluster::Cluster;
use super::cluster::GroupKey;
use super::cluster::Node;
use super::cluster::NodeIndex;
use super::ports;
use super::ports::Granting;

/// Why a node cannot take an allocation, in Nomad's words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// The text of the constraint that is not met.
    Constraint(String),
    MissingDrivers,
    MissingDevices,
    MissingNetwork,
    MissingHostNetwork(String, String),
    MissingHostVolumes,
    DistinctHosts,
    /// Attribute, value, and how many use it.
    DistinctProperty(String, String, u32),
    MissingProperty(String),
    Cpu,
    Cores,
    Memory,
    Disk,
    Network(String),
    Devices(String),
}

impl Unfit {
    /// A lack that no end of other work would cure.
    pub fn is_filter(&self) -> bool {
        !matches!(
            self,
            Self::Cpu | Self::Cores | Self::Memory | Self::Disk | Self::Network(_) | Self::Devices(_)
        )
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constraint(text) => f.write_str(text),
            Self::MissingDrivers => f.write_str("missing drivers"),
            Self::MissingDevices => f.write_str("missing devices"),
            Self::MissingNetwork => f.write_str("missing network"),
            Self::MissingHostNetwork(network, port) => {
                write!(f, "missing host network {network:?} for port {port:?}")
            }
            Self::MissingHostVolumes => f.write_str("missing compatible host volumes"),
            Self::DistinctHosts => f.write_str("distinct_hosts"),
            Self::DistinctProperty(attribute, value, used) => {
                write!(f, "distinct_property: {attribute}={value} used by {used} allocs")
            }
            Self::MissingProperty(attribute) => write!(f, "missing property {attribute:?}"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cores => f.write_str("cores"),
            Self::Memory => f.write_str("memory"),
            Self::Disk => f.write_str("disk"),
            Self::Network(why) => write!(f, "network: {why}"),
            Self::Devices(why) => write!(f, "devices: {why}"),
        }
    }
}

/// What a group takes of a node, before cores are chosen.
pub(super) fn ask_of(group: &TaskGroup) -> Amounts {
    let tasks = group.tasks.iter().map(|task| task.resources());
    tasks.fold(Amounts { disk: group.disk_mb(), ..Amounts::default() }, |sum, task| {
        sum.plus(Amounts { cpu: task.cpu_mhz, memory: task.memory_mb + task.secrets_mb, disk: 0 })
    })
}

/// The requirements of one group.
pub(super) struct Feasibility<'a> {
    job: &'a Job,
    group: &'a TaskGroup,
    ask: Amounts,
    constraints: Vec<&'a Constraint>,
    /// Some constraint looks at properties that differ between nodes of one class.
    escapes: bool,
    distinct_hosts_job: bool,
    distinct_hosts_group: bool,
    /// Attribute, allowed number, and whether it counts the whole job.
    distinct_properties: Vec<(&'a str, u32, bool)>,
}

impl<'a> Feasibility<'a> {
    pub(super) fn new(job: &'a Job, group: &'a TaskGroup) -> Self {
        let own = group.constraints.iter().chain(group.tasks.iter().flat_map(|task| &task.constraints));
        let levels = job.constraints.iter().map(|c| (c, true)).chain(own.map(|c| (c, false)));
        let mut feasibility = Self {
            job,
            group,
            ask: ask_of(group),
            constraints: Vec::new(),
            escapes: !group.volumes.is_empty(),
            distinct_hosts_job: false,
            distinct_hosts_group: false,
            distinct_properties: Vec::new(),
        };
        for (constraint, of_job) in levels {
            match constraint.operand.as_str() {
                "distinct_hosts" => {
                    // Anything that is not clearly "false" switches it on.
                    let on =
                        !matches!(constraint.right.as_str(), "false" | "f" | "F" | "False" | "FALSE" | "0");
                    feasibility.distinct_hosts_job |= on && of_job;
                    feasibility.distinct_hosts_group |= on && !of_job;
                }
                "distinct_property" => {
                    let allowed = constraint.right.parse().unwrap_or(u32::from(constraint.right.is_empty()));
                    feasibility.distinct_properties.push((&constraint.left, allowed, of_job));
                }
                _ => {
                    let unique = |side: &str| side.contains("unique.");
                    feasibility.escapes |= unique(&constraint.left) || unique(&constraint.right);
                    feasibility.constraints.push(constraint);
                }
            }
        }
        feasibility
    }

    pub(super) fn has_distinct(&self) -> bool {
        self.distinct_hosts_job || self.distinct_hosts_group || !self.distinct_properties.is_empty()
    }

    /// The nodes that satisfy every requirement but room, and the counts of the others.
    pub(super) fn filter(&self, cluster: &Cluster) -> (Vec<NodeIndex>, AllocMetric) {
        let mut metric = AllocMetric::default();
        let mut candidates = Vec::new();
        let mut verdicts: HashMap<ClassIndex, Result<(), Unfit>> = HashMap::new();
        let datacenters: Vec<Glob<'_>> = self.job.datacenters.iter().map(|glob| Glob(glob)).collect();
        for (at, node) in cluster.nodes.iter().enumerate() {
            let pool = self.job.node_pool.as_str();
            if !node.ready || !(matches!(pool, "" | "all") || node.info.node_pool == pool) {
                continue;
            }
            metric.nodes_in_pool += 1;
            let datacenter = node.info.datacenter.as_str();
            if !datacenters.is_empty() && !datacenters.iter().any(|glob| glob.matches(datacenter)) {
                continue;
            }
            match metric.nodes_available.get_mut(datacenter) {
                Some(count) => *count += 1,
                None => drop(metric.nodes_available.insert(datacenter.to_owned(), 1)),
            }
            metric.nodes_evaluated += 1;
            let verdict = if self.escapes {
                self.check_constraints(node)
            } else {
                verdicts.entry(node.class).or_insert_with(|| self.check_constraints(node)).clone()
            };
            match verdict {
                Ok(()) => candidates.push(at),
                Err(unfit) => {
                    metric.nodes_filtered += 1;
                    *metric.constraint_filtered.entry(unfit.to_string()).or_default() += 1;
                    if !node.info.node_class.is_empty() {
                        *metric.class_filtered.entry(node.info.node_class.clone()).or_default() += 1;
                    }
                }
            }
        }
        (candidates, metric)
    }

    /// Does the node satisfy every requirement but room and readiness?
    pub(super) fn check(&self, node: &Node) -> Result<(), Unfit> {
        let pool = self.job.node_pool.as_str();
        let datacenter = node.info.datacenter.as_str();
        let globs = &self.job.datacenters;
        if !(matches!(pool, "" | "all") || node.info.node_pool == pool) {
            return Err(Unfit::Constraint("node pool".to_owned()));
        }
        if !globs.is_empty() && !globs.iter().any(|glob| Glob(glob).matches(datacenter)) {
            return Err(Unfit::Constraint("datacenter".to_owned()));
        }
        self.check_constraints(node)
    }

    fn check_constraints(&self, node: &Node) -> Result<(), Unfit> {
        let unmet = |c: &&&Constraint| !is_met(node, &c.left, &c.operand, &c.right);
        let of_job = self.job.constraints.len();
        let text = |c: &&Constraint| Unfit::Constraint(format!("{} {} {}", c.left, c.operand, c.right));
        // Job constraints first, then drivers, then the rest: the reason shown is the first in Nomad's order.
        let (first, rest) = self.constraints.split_at(of_job.min(self.constraints.len()));
        if let Some(constraint) = first.iter().find(unmet) {
            return Err(text(constraint));
        }
        if !self.group.tasks.iter().all(|task| has_driver(node, &task.driver)) {
            return Err(Unfit::MissingDrivers);
        }
        if let Some(constraint) = rest.iter().find(unmet) {
            return Err(text(constraint));
        }
        self.check_devices(node)?;
        self.check_network(node)?;
        self.check_volumes(node)
    }

    fn check_devices(&self, node: &Node) -> Result<(), Unfit> {
        let wanted = self.group.tasks.iter().filter_map(|task| task.resources.as_ref());
        for device in wanted.flat_map(|resources| &resources.devices) {
            let offered = node.info.resources.devices.iter().any(|group| {
                device_matches(&device.name, &group.vendor, &group.kind, &group.name)
                    && group.instances.iter().filter(|instance| instance.healthy).count() as u64
                        >= device.count.max(1)
            });
            if !offered {
                return Err(Unfit::MissingDevices);
            }
        }
        Ok(())
    }

    fn check_network(&self, node: &Node) -> Result<(), Unfit> {
        let Some(network) = self.group.networks.first() else { return Ok(()) };
        let mode = if network.mode.is_empty() { "host" } else { network.mode.as_str() };
        if mode == "none" {
            return Ok(());
        }
        let networks = &node.info.resources.node_networks;
        if !networks.is_empty() && !networks.iter().any(|offered| offered.mode == mode) {
            return Err(Unfit::MissingNetwork);
        }
        let aliases: BTreeSet<&str> = networks
            .iter()
            .flat_map(|network| &network.addresses)
            .map(|address| address.alias.as_str())
            .collect();
        for port in network.ports().filter(|port| !port.host_network.is_empty()) {
            if !aliases.contains(port.host_network.as_str()) {
                return Err(Unfit::MissingHostNetwork(port.host_network.clone(), port.label.clone()));
            }
        }
        Ok(())
    }

    fn check_volumes(&self, node: &Node) -> Result<(), Unfit> {
        for volume in self.group.volumes.values().filter(|volume| volume.kind == "host") {
            match node.info.host_volumes.get(&volume.source) {
                Some(offered) if volume.read_only || !offered.read_only => {}
                _ => return Err(Unfit::MissingHostVolumes),
            }
        }
        Ok(())
    }

    /// The rules that look at other allocations.
    pub(super) fn distinct(
        &self,
        cluster: &Cluster,
        at: NodeIndex,
        slot: &Slot,
        job: GroupKey,
        group: GroupKey,
        candidates: &[NodeIndex],
    ) -> Result<(), Unfit> {
        let node = &cluster.nodes[at];
        let leaves =
            |at: NodeIndex| u32::from(slot.previous.is_some_and(|(id, _)| cluster.is_counted(id, at)));
        let others = |key: GroupKey| node.groups.get(&key).copied().unwrap_or(0).saturating_sub(leaves(at));
        if (self.distinct_hosts_job && others(job) > 0) || (self.distinct_hosts_group && others(group) > 0) {
            return Err(Unfit::DistinctHosts);
        }
        for (attribute, allowed, of_job) in &self.distinct_properties {
            let Some(value) = resolve(node, attribute) else {
                return Err(Unfit::MissingProperty((*attribute).to_owned()));
            };
            let key = if *of_job { job } else { group };
            // All nodes count, not only feasible ones: an allocation on a draining node still uses its value.
            let _ = candidates;
            let used: u32 = cluster
                .nodes
                .iter()
                .enumerate()
                .filter(|(_, other)| other.groups.contains_key(&key))
                .filter(|(_, other)| resolve(other, attribute).as_deref() == Some(&*value))
                .map(|(at, other)| other.groups[&key].saturating_sub(leaves(at)))
                .sum();
            if used >= *allowed {
                return Err(Unfit::DistinctProperty((*attribute).to_owned(), value.into_owned(), used));
            }
        }
        Ok(())
    }

    /// Is there room?
    pub(super) fn fit(&self, cluster: &Cluster, at: NodeIndex, slot: &Slot) -> Result<(), Unfit> {
        let node = &cluster.nodes[at];
        let inherited = slot.previous.filter(|_| slot.replaces).and_then(|(id, _)| cluster.taken_by(id, at));
        let (given_back, ports) = inherited.unwrap_or((Amounts::default(), &[]));
        let needed = node.used.minus(given_back).plus(self.ask);
        let grows = |ask: i64, back: i64| ask > back || back == 0;
        if needed.cpu > node.capacity.cpu && grows(self.ask.cpu, given_back.cpu) {
            return Err(Unfit::Cpu);
        }
        if needed.memory > node.capacity.memory && grows(self.ask.memory, given_back.memory) {
            return Err(Unfit::Memory);
        }
        if needed.disk > node.capacity.disk && grows(self.ask.disk, given_back.disk) {
            return Err(Unfit::Disk);
        }
        ports::static_ports_fit(node, self.group, ports)
    }

    /// The grant, with ports, cores and devices chosen.
    pub(super) fn grant(
        &self,
        cluster: &Cluster,
        at: NodeIndex,
        slot: &Slot,
        oversubscription: bool,
    ) -> Result<AllocatedResources, Unfit> {
        self.fit(cluster, at, slot)?;
        let node = &cluster.nodes[at];
        let inherited = slot.previous.filter(|_| slot.replaces).and_then(|(id, _)| cluster.taken_by(id, at));
        let mut granting = Granting::new(node, slot.alloc_id, inherited.map_or(&[], |inherited| inherited.1));
        let mut granted = AllocatedResources::default();
        granted.shared.disk_mb = self.group.disk_mb();
        for network in &self.group.networks {
            let (network, mappings) = granting.group(network)?;
            granted.shared.networks.push(network);
            granted.shared.ports.extend(mappings);
        }
        let mut cores = CoreGrant::new(node);
        let mut devices = BTreeSet::new();
        for task in &self.group.tasks {
            let wanted = task.resources();
            let networks: Result<Vec<Network>, Unfit> =
                wanted.networks.iter().map(|network| granting.task(network)).collect();
            let grant = AllocatedTask {
                cpu: cores.grant(&wanted)?,
                memory: AllocatedMemory {
                    memory_mb: wanted.memory_mb + wanted.secrets_mb,
                    memory_max_mb: if oversubscription { wanted.memory_max_mb } else { 0 },
                },
                networks: networks?,
                devices: grant_devices(node, &wanted, &mut devices)?,
            };
            granted.tasks.insert(task.name.clone(), grant);
        }
        let extra = Amounts::of(&granted).cpu - self.ask.cpu;
        if extra > 0 && node.used.plus(self.ask).cpu + extra > node.capacity.cpu {
            return Err(Unfit::Cpu);
        }
        Ok(granted)
    }
}

/// Whole cores of a node, lowest first.
struct CoreGrant<'a> {
    node: &'a Node,
    taken: BTreeSet<u16>,
}

impl<'a> CoreGrant<'a> {
    fn new(node: &'a Node) -> Self {
        Self { node, taken: BTreeSet::new() }
    }

    fn grant(&mut self, wanted: &Resources) -> Result<AllocatedCpu, Unfit> {
        let count = usize::try_from(wanted.cores).unwrap_or(0);
        if count == 0 {
            return Ok(AllocatedCpu { cpu_shares: wanted.cpu_mhz, reserved_cores: Vec::new() });
        }
        let cpu = &self.node.info.resources.cpu;
        let free = cpu.reservable_cpu_cores.iter().copied().filter(|core| {
            !self.node.cores.contains_key(core)
                && !self.taken.contains(core)
                && !self.node.info.reserved.cpu.reserved_cpu_cores.contains(core)
        });
        let cores: Vec<u16> = free.take(count).collect();
        if cores.len() < count {
            return Err(Unfit::Cores);
        }
        self.taken.extend(&cores);
        let per_core = cpu.cpu_shares / i64::from(cpu.total_cpu_cores.max(1));
        Ok(AllocatedCpu { cpu_shares: per_core * wanted.cores, reserved_cores: cores })
    }
}

fn grant_devices(
    node: &Node,
    wanted: &Resources,
    taken: &mut BTreeSet<String>,
) -> Result<Vec<AllocatedDevice>, Unfit> {
    let mut granted = Vec::new();
    for request in &wanted.devices {
        let count = usize::try_from(request.count.max(1)).unwrap_or(1);
        let matching = node
            .info
            .resources
            .devices
            .iter()
            .filter(|group| device_matches(&request.name, &group.vendor, &group.kind, &group.name));
        let found = matching
            .map(|group| {
                let free: Vec<String> = group
                    .instances
                    .iter()
                    .filter(|one| {
                        one.healthy && !node.devices.contains_key(&one.id) && !taken.contains(&one.id)
                    })
                    .map(|one| one.id.clone())
                    .take(count)
                    .collect();
                (group, free)
            })
            .find(|(_, free)| free.len() == count);
        let (group, ids) = found.ok_or_else(|| Unfit::Devices("no devices match request".to_owned()))?;
        taken.extend(ids.iter().cloned());
        granted.push(AllocatedDevice {
            vendor: group.vendor.clone(),
            kind: group.kind.clone(),
            name: group.name.clone(),
            device_ids: ids,
        });
    }
    Ok(granted)
}

/// `type`, `vendor/type` or `vendor/type/model`.
fn device_matches(wanted: &str, vendor: &str, kind: &str, model: &str) -> bool {
    match wanted.split('/').collect::<Vec<_>>().as_slice() {
        [only] => *only == kind,
        [first, second] => *first == vendor && *second == kind,
        [first, second, third] => *first == vendor && *second == kind && *third == model,
        _ => false,
    }
}

fn has_driver(node: &Node, driver: &str) -> bool {
    match node.info.drivers.get(driver) {
        Some(info) => info.detected && info.healthy,
        None => node
            .info
            .attributes
            .get(&format!("driver.{driver}"))
            .is_some_and(|v| matches!(&**v, "1" | "true")),
    }
}

/// The value of a target on a node: a literal, or `${attr.…}` and the like.
pub(super) fn resolve<'a>(node: &'a Node, target: &'a str) -> Option<Cow<'a, str>> {
    let Some(rest) = target.strip_prefix("${") else {
        return if target.contains("${") { None } else { Some(Cow::Borrowed(target)) };
    };
    let name = rest.strip_suffix('}')?;
    let info = &node.info;
    if let Some(key) = name.strip_prefix("attr.") {
        return info.attributes.get(key).map(|value| Cow::Borrowed(value.as_str()));
    }
    if let Some(key) = name.strip_prefix("meta.") {
        return node.meta.get(key).map(|value| Cow::Borrowed(value.as_str()));
    }
    match name {
        "node.unique.id" => Some(Cow::Owned(node.id.to_string())),
        "node.unique.name" => Some(Cow::Borrowed(&info.name)),
        "node.datacenter" => Some(Cow::Borrowed(&info.datacenter)),
        "node.class" => Some(Cow::Borrowed(&info.node_class)),
        "node.pool" => Some(Cow::Borrowed(&info.node_pool)),
        _ => None,
    }
}

/// Is `left operand right` true on this node?
pub(super) fn is_met(node: &Node, left: &str, operand: &str, right: &str) -> bool {
    let (left, right) = (resolve(node, left), resolve(node, right));
    compare(operand, left.as_deref(), right.as_deref())
}

/// The operators on found (or missing) values.
fn compare(operand: &str, left: Option<&str>, right: Option<&str>) -> bool {
    match operand {
        "is_set" => return left.is_some(),
        "is_not_set" => return left.is_none(),
        "!=" | "not" => return left != right,
        "distinct_hosts" | "distinct_property" => return true,
        _ => {}
    }
    let (Some(left), Some(right)) = (left, right) else { return false };
    match operand {
        "=" | "==" | "is" | "" => left == right,
        "<" => order(left, right) == Ordering::Less,
        "<=" => order(left, right) != Ordering::Greater,
        ">" => order(left, right) == Ordering::Greater,
        ">=" => order(left, right) != Ordering::Less,
        "regexp" => Regex::new(right).is_ok_and(|regex| regex.is_match(left)),
        "version" => version::satisfies(left, right, version::Mode::Lenient),
        "semver" => version::satisfies(left, right, version::Mode::Semver),
        "set_contains" | "set_contains_all" => {
            let has: BTreeSet<&str> = left.split(',').map(str::trim).collect();
            right.split(',').map(str::trim).all(|wanted| has.contains(wanted))
        }
        "set_contains_any" => {
            let has: BTreeSet<&str> = left.split(',').map(str::trim).collect();
            right.split(',').map(str::trim).any(|wanted| has.contains(wanted))
        }
        _ => false,
    }
}

/// As integers if both are, else as floats, else as text.
fn order(left: &str, right: &str) -> Ordering {
    if let (Ok(left), Ok(right)) = (left.parse::<i64>(), right.parse::<i64>()) {
        return left.cmp(&right);
    }
    if let (Ok(left), Ok(right)) = (left.parse::<f64>(), right.parse::<f64>()) {
        return left.partial_cmp(&right).unwrap_or(Ordering::Equal);
    }
    left.cmp(right)
}

/// A pattern in which only `*` is special.
struct Glob<'a>(&'a str);

impl Glob<'_> {
    fn matches(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else { return false };
        let mut pieces: Vec<&str> = parts.collect();
        let Some(last) = pieces.pop() else { return rest.is_empty() };
        for piece in pieces {
            match rest.find(piece) {
                Some(at) => rest = &rest[at + piece.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

/// Reasons and how many nodes each excludes; for tests.
pub fn reasons(metric: &AllocMetric) -> BTreeMap<String, u64> {
    metric
        .constraint_filtered
        .iter()
        .chain(&metric.dimension_exhausted)
        .map(|(k, v)| (k.clone(), *v))
        .collect()
}
