//! The scheduler's picture of all nodes: what they have, what is taken, who is where. Kept incrementally.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::hash::Hash;
use std::hash::Hasher;
use std::sync::Arc;

use crate::model::id::AllocId;
use crate::model::id::JobId;
use crate::model::id::NodeId;
use crate::model::node::NodeInfo;
use crate::model::node::parse_port_ranges;
use crate::model::resources::AllocatedResources;

/// Index of a node in the cluster's arrays.
pub(super) type NodeIndex = usize;
/// Index of an interned node class.
pub(super) type ClassIndex = u32;

/// What is known of a node.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    pub info: Arc<NodeInfo>,
    /// Operators' overrides of the agent's metadata; `None` removes a key.
    pub meta: BTreeMap<String, Option<String>>,
    /// New work may come: ready, eligible, not draining.
    pub ready: bool,
}

/// What is known of an allocation.
#[derive(Clone, Debug)]
pub struct AllocFacts<'a> {
    pub id: AllocId,
    pub node: NodeId,
    pub job: JobId,
    pub group: &'a str,
    pub job_version: u64,
    pub resources: &'a AllocatedResources,
    /// Its predecessor: on the same node it starts only after that one's end.
    pub previous: Option<AllocId>,
    /// It has not been confirmed ended.
    pub holding: bool,
}

/// Divisible resources: MHz, MiB, MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    pub cpu: i64,
    pub memory: i64,
    pub disk: i64,
}

impl Amounts {
    /// What an allocation takes.
    pub fn of(resources: &AllocatedResources) -> Self {
        let tasks = resources.tasks.values();
        Self {
            cpu: tasks.clone().map(|task| task.cpu.cpu_shares).sum(),
            memory: tasks.map(|task| task.memory.memory_mb).sum(),
            disk: resources.shared.disk_mb,
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, memory: self.memory + other.memory, disk: self.disk + other.disk }
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self { cpu: self.cpu - other.cpu, memory: self.memory - other.memory, disk: self.disk - other.disk }
    }

    /// What of `self` is left when `other` is there already.
    pub(super) fn beyond(self, other: Self) -> Self {
        let rest = self.minus(other);
        Self { cpu: rest.cpu.max(0), memory: rest.memory.max(0), disk: rest.disk.max(0) }
    }
}

/// A node with its usage.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub id: NodeId,
    pub info: Arc<NodeInfo>,
    pub meta: BTreeMap<String, String>,
    pub ready: bool,
    pub class: ClassIndex,
    /// What jobs may use: all less what operators reserved.
    pub capacity: Amounts,
    pub used: Amounts,
    /// Host ports in use, with the number of users (a replacement shares those of its predecessor).
    pub ports: BTreeMap<u16, u32>,
    pub reserved_ports: Arc<BTreeSet<u16>>,
    pub cores: BTreeMap<u16, u32>,
    pub devices: BTreeMap<String, u32>,
    /// Live allocations by job and group; one that is being replaced here does not count.
    pub groups: HashMap<GroupKey, u32>,
}

/// A group of a job, as a number.
pub(super) type GroupKey = u64;

/// The number of a group; that of a whole job with an empty group name.
pub(super) fn group_key(job: &JobId, group: &str) -> GroupKey {
    let mut hasher = std::hash::DefaultHasher::new();
    (job, group).hash(&mut hasher);
    hasher.finish()
}

#[derive(Clone, Debug)]
struct Alloc {
    node: NodeIndex,
    job: GroupKey,
    group: GroupKey,
    amounts: Amounts,
    /// What it takes beyond its predecessor on the same node.
    charged: Amounts,
    counted: bool,
    ports: Vec<u16>,
    cores: Vec<u16>,
    devices: Vec<String>,
    previous: Option<AllocId>,
}

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    pub(super) nodes: Vec<Node>,
    index: HashMap<NodeId, NodeIndex>,
    allocs: HashMap<AllocId, Alloc>,
    /// From a predecessor to the replacement that waits for it on the same node.
    successors: HashMap<AllocId, AllocId>,
    classes: HashMap<String, ClassIndex>,
    /// Allocations of nodes that are not known (yet).
    homeless: HashMap<AllocId, ()>,
}

impl Cluster {
    /// Adds a node or takes over what changed; its allocations stay counted.
    pub fn set_node(&mut self, id: NodeId, facts: NodeFacts) {
        if let Some(&at) = self.index.get(&id) {
            let node = &mut self.nodes[at];
            if Arc::ptr_eq(&node.info, &facts.info) && node.meta == merged_meta(&facts) {
                node.ready = facts.ready;
                return;
            }
        }
        let meta = merged_meta(&facts);
        let class = self.class_of(&facts.info, &meta);
        let info = facts.info;
        let reserved = parse_port_ranges(&info.reserved.networks.reserved_host_ports).unwrap_or_default();
        let mut node = Node {
            id,
            meta,
            ready: facts.ready,
            class,
            capacity: Amounts {
                cpu: info.resources.cpu.cpu_shares - info.reserved.cpu.cpu_shares,
                memory: info.resources.memory.memory_mb - info.reserved.memory.memory_mb,
                disk: info.resources.disk.disk_mb - info.reserved.disk.disk_mb,
            },
            used: Amounts::default(),
            ports: BTreeMap::new(),
            reserved_ports: Arc::new(reserved.into_iter().collect()),
            cores: BTreeMap::new(),
            devices: BTreeMap::new(),
            groups: HashMap::new(),
            info,
        };
        match self.index.get(&id) {
            Some(&at) => {
                let old = &mut self.nodes[at];
                node.used = old.used;
                node.ports = std::mem::take(&mut old.ports);
                node.cores = std::mem::take(&mut old.cores);
                node.devices = std::mem::take(&mut old.devices);
                node.groups = std::mem::take(&mut old.groups);
                *old = node;
            }
            None => {
                self.index.insert(id, self.nodes.len());
                self.nodes.push(node);
            }
        }
    }

    /// The node is gone for good. Its place stays, unusable, since allocations may refer to it.
    pub fn remove_node(&mut self, id: NodeId) {
        if let Some(&at) = self.index.get(&id) {
            self.nodes[at].ready = false;
        }
    }

    /// Counts an allocation as it is now; idempotent.
    pub fn set_alloc(&mut self, facts: &AllocFacts<'_>) {
        if !facts.holding {
            return self.forget_alloc(facts.id);
        }
        let Some(&node) = self.index.get(&facts.node) else {
            self.forget_alloc(facts.id);
            self.homeless.insert(facts.id, ());
            return;
        };
        let amounts = Amounts::of(facts.resources);
        if let Some(known) = self.allocs.get(&facts.id)
            && known.node == node
            && known.amounts == amounts
            && known.previous == facts.previous
        {
            return;
        }
        self.forget_alloc(facts.id);
        let tasks = facts.resources.tasks.values();
        let alloc = Alloc {
            node,
            job: group_key(&facts.job, ""),
            group: group_key(&facts.job, facts.group),
            amounts,
            charged: Amounts::default(),
            counted: false,
            ports: facts.resources.host_ports().collect(),
            cores: tasks.clone().flat_map(|task| task.cpu.reserved_cores.clone()).collect(),
            devices: tasks
                .flat_map(|task| &task.devices)
                .flat_map(|device| device.device_ids.clone())
                .collect(),
            previous: facts.previous,
        };
        let here = &mut self.nodes[node];
        alloc.ports.iter().for_each(|port| *here.ports.entry(*port).or_default() += 1);
        alloc.cores.iter().for_each(|core| *here.cores.entry(*core).or_default() += 1);
        alloc.devices.iter().for_each(|device| *here.devices.entry(device.clone()).or_default() += 1);
        self.allocs.insert(facts.id, alloc);
        if let Some(previous) = facts.previous
            && self.allocs.get(&previous).is_some_and(|previous| previous.node == node)
        {
            self.successors.insert(previous, facts.id);
            self.charge(previous);
        }
        self.charge(facts.id);
    }

    /// The allocation takes nothing any more.
    pub fn forget_alloc(&mut self, id: AllocId) {
        self.homeless.remove(&id);
        self.uncharge(id);
        let Some(alloc) = self.allocs.remove(&id) else { return };
        let here = &mut self.nodes[alloc.node];
        alloc.ports.iter().for_each(|port| release(&mut here.ports, port));
        alloc.cores.iter().for_each(|core| release(&mut here.cores, core));
        alloc.devices.iter().for_each(|device| release(&mut here.devices, device));
        if let Some(successor) = self.successors.remove(&id) {
            self.charge(successor);
        }
        if let Some(previous) = alloc.previous
            && self.successors.get(&previous) == Some(&id)
        {
            self.successors.remove(&previous);
            self.charge(previous);
        }
    }

    /// The allocation takes room at present.
    pub fn holds(&self, id: AllocId) -> bool {
        self.allocs.contains_key(&id) || self.homeless.contains_key(&id)
    }

    /// Usage of a node: taken, and available to jobs at all. For audits and tests.
    pub fn usage(&self, id: NodeId) -> Option<(Amounts, Amounts)> {
        self.index.get(&id).map(|at| (self.nodes[*at].used, self.nodes[*at].capacity))
    }

    pub(super) fn node_index(&self, id: NodeId) -> Option<NodeIndex> {
        self.index.get(&id).copied()
    }

    /// What the allocation takes of its node, if it is on that node.
    pub(super) fn taken_by(&self, id: AllocId, node: NodeIndex) -> Option<(Amounts, &[u16])> {
        let alloc = self.allocs.get(&id).filter(|alloc| alloc.node == node)?;
        Some((alloc.amounts, &alloc.ports))
    }

    /// Is the allocation among those that count for its group on its node?
    pub(super) fn is_counted(&self, id: AllocId, node: NodeIndex) -> bool {
        self.allocs.get(&id).is_some_and(|alloc| alloc.node == node && alloc.counted)
    }

    fn uncharge(&mut self, id: AllocId) {
        let Some(alloc) = self.allocs.get_mut(&id) else { return };
        let here = &mut self.nodes[alloc.node];
        here.used = here.used.minus(std::mem::take(&mut alloc.charged));
        if std::mem::take(&mut alloc.counted) {
            release(&mut here.groups, &alloc.group);
            release(&mut here.groups, &alloc.job);
        }
    }

    /// Charges the node for an allocation, anew if its surroundings changed. A replacement runs only after its
    /// predecessor on the same node, so the two need the larger of both.
    fn charge(&mut self, id: AllocId) {
        self.uncharge(id);
        let Some(alloc) = self.allocs.get(&id) else { return };
        let before = alloc.previous.and_then(|previous| self.allocs.get(&previous));
        let shared = before.filter(|before| before.node == alloc.node).map(|before| before.amounts);
        let charged = alloc.amounts.beyond(shared.unwrap_or_default());
        let counted = !self.successors.contains_key(&id);
        let Some(alloc) = self.allocs.get_mut(&id) else { return };
        alloc.charged = charged;
        alloc.counted = counted;
        let here = &mut self.nodes[alloc.node];
        here.used = here.used.plus(charged);
        if counted {
            *here.groups.entry(alloc.group).or_default() += 1;
            *here.groups.entry(alloc.job).or_default() += 1;
        }
    }

    /// Nodes that no constraint on non-unique properties can tell apart share a class.
    fn class_of(&mut self, info: &NodeInfo, meta: &BTreeMap<String, String>) -> ClassIndex {
        let mut text = format!("{}\0{}\0{}", info.datacenter, info.node_class, info.node_pool);
        let common = |map: &BTreeMap<String, String>, text: &mut String| {
            for (key, value) in map.iter().filter(|(key, _)| !key.starts_with("unique.")) {
                text.push('\0');
                text.push_str(key);
                text.push('\0');
                text.push_str(value);
            }
            text.push('\x01');
        };
        common(&info.attributes, &mut text);
        common(meta, &mut text);
        for (name, driver) in &info.drivers {
            text.push_str(&format!("\0{name}{}{}", driver.detected, driver.healthy));
        }
        let next = ClassIndex::try_from(self.classes.len()).unwrap_or(ClassIndex::MAX);
        *self.classes.entry(text).or_insert(next)
    }
}

fn merged_meta(facts: &NodeFacts) -> BTreeMap<String, String> {
    let mut meta = facts.info.meta.clone();
    for (key, value) in &facts.meta {
        match value {
            Some(value) => drop(meta.insert(key.clone(), value.clone())),
            None => drop(meta.remove(key)),
        }
    }
    meta
}

fn release<K, M>(counts: &mut M, key: &K)
where
    M: Counts<K>,
{
    counts.release(key);
}

/// Maps from a thing to the number of its users.
trait Counts<K> {
    fn release(&mut self, key: &K);
}

impl<K: Ord + Clone> Counts<K> for BTreeMap<K, u32> {
    fn release(&mut self, key: &K) {
        if let Some(count) = self.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.remove(key);
            }
        }
    }
}

impl<K: Eq + Hash> Counts<K> for HashMap<K, u32> {
    fn release(&mut self, key: &K) {
        if let Some(count) = self.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.remove(key);
            }
        }
    }
}
