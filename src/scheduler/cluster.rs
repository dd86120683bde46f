//! The cluster as the scheduler sees it: nodes, and what is left of them, kept up to date change by change.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::model::group::TaskGroup;
use crate::model::id::AllocId;
use crate::model::id::JobId;
use crate::model::id::NodeId;
use crate::model::resources::AllocatedResources;

use super::feasible::VerdictCache;
use super::footprint::Charge;
use super::footprint::Footprint;
use super::footprint::footprint;
use super::node::NodeFacts;
use super::node::NodeView;
use super::ports::PortGrant;
use super::ports::PortTable;

/// An allocation as the mirror, or a decision just made, knows it.
#[derive(Clone, Copy, Debug)]
pub struct AllocFacts<'a> {
    pub id: AllocId,
    pub node: NodeId,
    pub job: &'a JobId,
    pub group: &'a str,
    /// The group in the allocation's own job version, if known: tells which tasks never run at once.
    pub tasks: Option<&'a TaskGroup>,
    pub resources: &'a AllocatedResources,
    /// The allocation it replaces. On the same node it starts only after that one ended, so both are charged once.
    pub previous: Option<AllocId>,
    /// Not confirmed ended. If false, this is the same as [`Cluster::forget_alloc`].
    pub holding: bool,
    /// Told to stop: still charged, but no longer counted for spread, anti-affinity and `distinct_property`.
    pub stopping: bool,
}

/// Hot data of one node: all that a scan reads for a plain group, so that it runs through one array.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    pub(super) capacity: Charge,
    pub(super) used: Charge,
    pub(super) id: NodeId,
    pub(super) class: u32,
    /// Known and ready.
    pub(super) ready: bool,
}

/// Cold data of one node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Absent while allocations are known but their node is not.
    pub(super) view: Option<Arc<NodeView>>,
    pub(super) ports: PortTable,
    pub(super) cores: BTreeMap<u16, u16>,
    pub(super) devices: BTreeMap<Box<str>, u16>,
    allocs: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    node: u32,
    job: u32,
    group: u32,
    stopping: bool,
    previous: Option<AllocId>,
    footprint: Footprint,
}

/// Allocations of one group on one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Not confirmed ended.
    pub(super) held: u32,
    /// Of these, not told to stop.
    pub(super) wanted: u32,
}

#[derive(Clone, Debug)]
pub(super) struct GroupUse {
    pub(super) name: Arc<str>,
    /// By node slot.
    pub(super) nodes: BTreeMap<u32, Counts>,
}

#[derive(Clone, Debug)]
struct JobUse {
    id: Option<JobId>,
    groups: Vec<GroupUse>,
    allocs: u32,
}

#[derive(Clone, Debug, Default)]
struct Class {
    key: u128,
    nodes: u32,
}

/// Nodes, usage and counts. See the module documentation of `scheduler`.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    pub(super) rooms: Vec<Room>,
    pub(super) nodes: Vec<Node>,
    slots: HashMap<NodeId, u32>,
    free_slots: Vec<u32>,
    allocs: HashMap<AllocId, Record>,
    /// Allocation to those that replace it.
    followers: HashMap<AllocId, Vec<AllocId>>,
    jobs: Vec<JobUse>,
    job_slots: HashMap<JobId, u32>,
    free_jobs: Vec<u32>,
    classes: Vec<Class>,
    class_slots: HashMap<u128, u32>,
    free_classes: Vec<u32>,
    pub(super) verdicts: VerdictCache,
    /// Earlier states of allocations changed since the checkpoint, oldest first.
    journal: Option<Vec<(AllocId, Option<Record>)>>,
}

impl Cluster {
    /// An empty cluster.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node or replaces what is known of it. Allocations on it stay as they are.
    pub fn set_node(&mut self, id: NodeId, facts: NodeFacts) {
        let slot = self.node_slot(id);
        let view = NodeView::new(&facts);
        let class = self.class_slot(view.class_key());
        let at = slot as usize;
        if self.nodes[at].view.is_some() {
            self.leave_class(self.rooms[at].class);
        }
        let room = &mut self.rooms[at];
        room.capacity = view.capacity();
        room.class = class;
        room.ready = facts.ready;
        self.nodes[at].view = Some(Arc::new(view));
    }

    /// Forgets a node. Its allocations stay known until they are forgotten themselves.
    pub fn remove_node(&mut self, id: NodeId) {
        let Some(slot) = self.slots.get(&id).copied() else {
            return;
        };
        let at = slot as usize;
        if self.nodes[at].view.take().is_some() {
            self.leave_class(self.rooms[at].class);
        }
        self.rooms[at].ready = false;
        self.rooms[at].capacity = [0; 3];
        self.release_if_unused(slot);
    }

    /// Charges an allocation to its node. Idempotent by id: called when a placement is assumed, when its stored form
    /// is seen, and whenever either changes.
    pub fn set_alloc(&mut self, facts: &AllocFacts<'_>) {
        if !facts.holding {
            self.forget_alloc(facts.id);
            return;
        }
        let print = footprint(facts.tasks, facts.resources);
        self.charge(facts, print);
    }

    /// [`Cluster::set_alloc`] with the footprint at hand.
    pub(super) fn charge(&mut self, facts: &AllocFacts<'_>, footprint: Footprint) {
        let node = self.node_slot(facts.node);
        let (job, group) = self.group_slot(facts.job, facts.group);
        let previous = facts.previous.filter(|previous| !self.is_behind(*previous, facts.id));
        let record = Record { node, job, group, stopping: facts.stopping, previous, footprint };
        if self.allocs.get(&facts.id) == Some(&record) {
            return;
        }
        self.exchange(facts.id, Some(record));
    }

    /// Takes an allocation off its node: it ended, or a placement was not committed.
    pub fn forget_alloc(&mut self, id: AllocId) {
        if self.allocs.contains_key(&id) {
            self.exchange(id, None);
        }
    }

    /// Counts an allocation as told to stop, as long as its stored form does not say otherwise.
    pub fn set_stopping(&mut self, id: AllocId) {
        if let Some(record) = self.allocs.get(&id).filter(|record| !record.stopping) {
            let record = Record { stopping: true, ..record.clone() };
            self.exchange(id, Some(record));
        }
    }

    /// Starts to note changes of allocations, so that a dry run can be undone by [`Cluster::rollback`].
    pub fn checkpoint(&mut self) {
        self.journal = Some(Vec::new());
    }

    /// Undoes every change of allocations since [`Cluster::checkpoint`].
    pub fn rollback(&mut self) {
        let Some(journal) = self.journal.take() else {
            return;
        };
        for (id, record) in journal.into_iter().rev() {
            self.exchange(id, record);
        }
    }

    /// Keeps the changes since [`Cluster::checkpoint`].
    pub fn keep(&mut self) {
        for (_, record) in self.journal.take().unwrap_or_default() {
            if let Some(record) = record {
                self.release_job_if_unused(record.job);
                self.release_if_unused(record.node);
            }
        }
    }

    /// Whether the allocation is charged to a node.
    pub fn has_alloc(&self, id: AllocId) -> bool {
        self.allocs.contains_key(&id)
    }

    /// Number of allocations charged.
    pub fn alloc_count(&self) -> usize {
        self.allocs.len()
    }

    /// MHz, MiB of memory and MiB of disk: what the node has for tasks, and what is charged to it.
    pub fn usage(&self, node: NodeId) -> Option<(Charge, Charge)> {
        let slot = *self.slots.get(&node)? as usize;
        self.nodes[slot].view.as_ref()?;
        Some((self.rooms[slot].capacity, self.rooms[slot].used))
    }

    pub(super) fn slot_of(&self, node: NodeId) -> Option<u32> {
        let slot = *self.slots.get(&node)?;
        self.nodes[slot as usize].view.is_some().then_some(slot)
    }

    pub(super) fn view(&self, slot: u32) -> Option<&Arc<NodeView>> {
        self.nodes[slot as usize].view.as_ref()
    }

    pub(super) fn class_count(&self) -> usize {
        self.classes.len()
    }

    /// Groups of a job that hold allocations.
    pub(super) fn groups_of(&self, job: &JobId) -> &[GroupUse] {
        self.job_slots.get(job).map_or(&[], |slot| &self.jobs[*slot as usize].groups)
    }

    /// Node slot, and whether it is told to stop, of an allocation.
    pub(super) fn where_is(&self, id: AllocId) -> Option<(u32, bool)> {
        self.allocs.get(&id).map(|record| (record.node, record.stopping))
    }

    /// Job and group of an allocation.
    pub(super) fn group_of(&self, id: AllocId) -> Option<(&JobId, &str)> {
        let record = self.allocs.get(&id)?;
        let job = &self.jobs[record.job as usize];
        Some((job.id.as_ref()?, &job.groups[record.group as usize].name))
    }

    /// What `node` is charged if an allocation of this size is added behind `previous`, and what that one and its
    /// own predecessors would leave to it.
    pub(super) fn used_behind(&self, node: u32, previous: AllocId, charge: Charge) -> (Charge, Yielded) {
        let mut used = self.rooms[node as usize].used;
        let mut yielded = Yielded::default();
        if self.where_is(previous).is_none_or(|(slot, _)| slot != node) {
            return (add(used, charge), yielded);
        }
        let root = self.root_of(previous);
        used = subtract(used, self.chain_charge(root, None));
        used = add(used, self.chain_charge(root, Some((previous, charge))));
        let mut at = Some(previous);
        while let Some(id) = at {
            let record = &self.allocs[&id];
            yielded.ports.extend_from_slice(&record.footprint.ports);
            yielded.cores.extend_from_slice(&record.footprint.cores);
            yielded.devices.extend_from_slice(&record.footprint.devices);
            at = self.predecessor(record);
        }
        (used, yielded)
    }

    fn exchange(&mut self, id: AllocId, record: Option<Record>) {
        let old = self.remove(id);
        let old_node = old.as_ref().map(|old| old.node);
        if let Some(record) = record {
            self.insert(id, record);
        }
        if let Some(node) = old_node {
            self.release_if_unused(node);
        }
        if let Some(journal) = &mut self.journal {
            journal.push((id, old));
        } else if let Some(old) = old {
            self.release_job_if_unused(old.job);
        }
    }

    fn insert(&mut self, id: AllocId, record: Record) {
        // The chain that the newcomer joins is charged anew as a whole: its followers may have come before it.
        let node = record.node as usize;
        let mut used = self.rooms[node].used;
        for root in self.roots_around(id, &record) {
            used = subtract(used, self.chain_charge(root, None));
        }
        let holder = &mut self.nodes[node];
        holder.allocs += 1;
        for port in &record.footprint.ports {
            holder.ports.add(*port);
        }
        for core in &record.footprint.cores {
            *holder.cores.entry(*core).or_default() += 1;
        }
        for device in &record.footprint.devices {
            *holder.devices.entry(device.clone()).or_default() += 1;
        }
        let job = &mut self.jobs[record.job as usize];
        job.allocs += 1;
        let counts = job.groups[record.group as usize].nodes.entry(record.node).or_default();
        counts.held += 1;
        counts.wanted += u32::from(!record.stopping);
        if let Some(previous) = record.previous {
            self.followers.entry(previous).or_default().push(id);
        }
        self.allocs.insert(id, record);
        let root = self.root_of(id);
        self.rooms[node].used = add(used, self.chain_charge(root, None));
    }

    fn remove(&mut self, id: AllocId) -> Option<Record> {
        let node = self.allocs.get(&id)?.node as usize;
        let root = self.root_of(id);
        let mut used = subtract(self.rooms[node].used, self.chain_charge(root, None));
        let record = self.allocs.remove(&id)?;
        if let Some(previous) = record.previous
            && let Some(followers) = self.followers.get_mut(&previous)
        {
            followers.retain(|follower| *follower != id);
            if followers.is_empty() {
                self.followers.remove(&previous);
            }
        }
        let holder = &mut self.nodes[node];
        holder.allocs -= 1;
        for port in &record.footprint.ports {
            holder.ports.remove(*port);
        }
        for core in &record.footprint.cores {
            release(&mut holder.cores, core);
        }
        for device in &record.footprint.devices {
            release(&mut holder.devices, device);
        }
        let job = &mut self.jobs[record.job as usize];
        job.allocs -= 1;
        let nodes = &mut job.groups[record.group as usize].nodes;
        if let Some(counts) = nodes.get_mut(&record.node) {
            counts.held -= 1;
            counts.wanted -= u32::from(!record.stopping);
            if counts.held == 0 {
                nodes.remove(&record.node);
            }
        }
        for root in self.roots_around(id, &record) {
            used = add(used, self.chain_charge(root, None));
        }
        self.rooms[node].used = used;
        Some(record)
    }

    /// The chains that `record`, which is not in the cluster, would join: its predecessor's and its followers'.
    fn roots_around(&self, id: AllocId, record: &Record) -> Vec<AllocId> {
        let mut roots: Vec<AllocId> = self.followers_on(id, record.node).collect();
        roots.extend(self.predecessor(record).map(|previous| self.root_of(previous)));
        roots
    }

    fn predecessor(&self, record: &Record) -> Option<AllocId> {
        let previous = record.previous?;
        self.allocs.get(&previous).is_some_and(|found| found.node == record.node).then_some(previous)
    }

    fn followers_on(&self, id: AllocId, node: u32) -> impl Iterator<Item = AllocId> {
        let followers = self.followers.get(&id).map_or(&[][..], Vec::as_slice);
        followers.iter().copied().filter(move |follower| self.allocs[follower].node == node)
    }

    fn root_of(&self, id: AllocId) -> AllocId {
        let mut root = id;
        while let Some(previous) = self.predecessor(&self.allocs[&root]) {
            root = previous;
        }
        root
    }

    /// Whether following predecessors from `from` leads to `id`: then `id` must not name `from` as its predecessor.
    fn is_behind(&self, from: AllocId, id: AllocId) -> bool {
        let mut at = Some(from);
        while let Some(next) = at {
            if next == id {
                return true;
            }
            at = self.allocs.get(&next).and_then(|record| record.previous);
        }
        false
    }

    /// The most that an allocation and those waiting for its end use at any time.
    fn chain_charge(&self, id: AllocId, extra: Option<(AllocId, Charge)>) -> Charge {
        let record = &self.allocs[&id];
        let mut waiting = [0; 3];
        for follower in self.followers_on(id, record.node) {
            waiting = add(waiting, self.chain_charge(follower, extra));
        }
        if let Some((behind, charge)) = extra
            && behind == id
        {
            waiting = add(waiting, charge);
        }
        [0, 1, 2].map(|at| record.footprint.charge[at].max(waiting[at]))
    }

    fn node_slot(&mut self, id: NodeId) -> u32 {
        if let Some(slot) = self.slots.get(&id) {
            return *slot;
        }
        let room = Room { id, ..Room::default() };
        let node = Node {
            view: None,
            ports: PortTable::default(),
            cores: BTreeMap::new(),
            devices: BTreeMap::new(),
            allocs: 0,
        };
        let slot = match self.free_slots.pop() {
            Some(slot) => {
                self.nodes[slot as usize] = node;
                self.rooms[slot as usize] = room;
                slot
            }
            None => {
                self.nodes.push(node);
                self.rooms.push(room);
                slot_number(self.nodes.len() - 1)
            }
        };
        self.slots.insert(id, slot);
        slot
    }

    fn release_if_unused(&mut self, slot: u32) {
        let node = &self.nodes[slot as usize];
        // The journal may hold records of this slot, so nothing is given back while it is open.
        let id = self.rooms[slot as usize].id;
        let is_unused = node.view.is_none() && node.allocs == 0 && self.journal.is_none();
        if is_unused && self.slots.get(&id) == Some(&slot) {
            self.slots.remove(&id);
            self.free_slots.push(slot);
        }
    }

    fn group_slot(&mut self, job: &JobId, group: &str) -> (u32, u32) {
        let slot = match self.job_slots.get(job) {
            Some(slot) => *slot,
            None => {
                let new = JobUse { id: Some(job.clone()), groups: Vec::new(), allocs: 0 };
                let slot = match self.free_jobs.pop() {
                    Some(slot) => {
                        self.jobs[slot as usize] = new;
                        slot
                    }
                    None => {
                        self.jobs.push(new);
                        slot_number(self.jobs.len() - 1)
                    }
                };
                self.job_slots.insert(job.clone(), slot);
                slot
            }
        };
        let groups = &mut self.jobs[slot as usize].groups;
        let at = groups.iter().position(|known| &*known.name == group).unwrap_or_else(|| {
            groups.push(GroupUse { name: group.into(), nodes: BTreeMap::new() });
            groups.len() - 1
        });
        (slot, slot_number(at))
    }

    fn release_job_if_unused(&mut self, slot: u32) {
        let job = &mut self.jobs[slot as usize];
        if job.allocs == 0
            && let Some(id) = job.id.take()
        {
            job.groups = Vec::new();
            self.job_slots.remove(&id);
            self.free_jobs.push(slot);
        }
    }

    fn class_slot(&mut self, key: u128) -> u32 {
        if let Some(slot) = self.class_slots.get(&key) {
            self.classes[*slot as usize].nodes += 1;
            return *slot;
        }
        let class = Class { key, nodes: 1 };
        let slot = match self.free_classes.pop() {
            Some(slot) => {
                self.classes[slot as usize] = class;
                slot
            }
            None => {
                self.classes.push(class);
                slot_number(self.classes.len() - 1)
            }
        };
        self.class_slots.insert(key, slot);
        slot
    }

    fn leave_class(&mut self, slot: u32) {
        let class = &mut self.classes[slot as usize];
        class.nodes -= 1;
        if class.nodes == 0 {
            let key = class.key;
            self.class_slots.remove(&key);
            self.free_classes.push(slot);
            self.verdicts.forget_class(slot);
        }
    }
}

/// What predecessors on the node leave to their replacement.
#[derive(Clone, Debug, Default)]
pub(super) struct Yielded {
    pub(super) ports: Vec<PortGrant>,
    pub(super) cores: Vec<u16>,
    pub(super) devices: Vec<Box<str>>,
}

fn slot_number(at: usize) -> u32 {
    u32::try_from(at).expect("fewer than four billion nodes, jobs and classes")
}

fn release<K: Ord>(holders: &mut BTreeMap<K, u16>, key: &K) {
    if let Some(count) = holders.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            holders.remove(key);
        }
    }
}

pub(super) fn add(left: Charge, right: Charge) -> Charge {
    [left[0] + right[0], left[1] + right[1], left[2] + right[2]]
}

pub(super) fn subtract(left: Charge, right: Charge) -> Charge {
    [left[0] - right[0], left[1] - right[1], left[2] - right[2]]
}
