//! Interim cluster model.
use std::collections::BTreeMap;
use std::sync::Arc;
use crate::model::id::AllocId;
use crate::model::id::JobId;
use crate::model::id::NodeId;
use crate::model::node::NodeInfo;
use crate::model::resources::AllocatedResources;

pub struct NodeFacts { pub info: Arc<NodeInfo>, pub meta: BTreeMap<String, Option<String>>, pub ready: bool }
pub struct AllocFacts<'a> { pub id: AllocId, pub node: NodeId, pub job: JobId, pub group: &'a str, pub job_version: u64, pub resources: &'a AllocatedResources, pub previous: Option<AllocId>, pub holding: bool }
#[derive(Clone, Default)]
pub struct Cluster { pub(super) nodes: BTreeMap<NodeId, (Arc<NodeInfo>, bool, i64, i64)>, pub(super) allocs: BTreeMap<AllocId, (NodeId, i64, i64)> }
impl Cluster {
    pub fn set_node(&mut self, id: NodeId, facts: NodeFacts) {
        let (cpu, mem) = self.nodes.get(&id).map_or((0, 0), |n| (n.2, n.3));
        self.nodes.insert(id, (facts.info, facts.ready, cpu, mem));
    }
    pub fn remove_node(&mut self, id: NodeId) { self.nodes.remove(&id); }
    pub fn forget_alloc(&mut self, id: AllocId) {
        if let Some((node, cpu, mem)) = self.allocs.remove(&id) && let Some(n) = self.nodes.get_mut(&node) { n.2 -= cpu; n.3 -= mem; }
    }
    pub fn set_alloc(&mut self, f: &AllocFacts<'_>) {
        self.forget_alloc(f.id);
        if !f.holding { return; }
        let cpu = f.resources.tasks.values().map(|t| t.cpu.cpu_shares).sum();
        let mem = f.resources.tasks.values().map(|t| t.memory.memory_mb).sum();
        self.allocs.insert(f.id, (f.node, cpu, mem));
        if let Some(n) = self.nodes.get_mut(&f.node) { n.2 += cpu; n.3 += mem; }
    }
    pub fn holds(&self, id: AllocId) -> bool { self.allocs.contains_key(&id) }
}
