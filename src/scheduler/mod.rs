//! Interim scheduler.
pub mod cluster;
use crate::model::allocation::AllocMetric;
use crate::model::allocation::NodeScore;
use crate::model::group::TaskGroup;
use crate::model::id::AllocId;
use crate::model::id::NodeId;
use crate::model::job::Job;
use crate::model::resources::*;
use cluster::Cluster;
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm { #[default] Binpack, Spread }
pub struct Slot { pub index: u32, pub alloc_id: AllocId, pub previous: Option<(AllocId, NodeId)>, pub replaces: bool, pub penalty_nodes: Vec<NodeId>, pub preferred_node: Option<NodeId> }
pub struct Request<'a> { pub job: &'a Job, pub group: &'a TaskGroup, pub slots: &'a [Slot], pub algorithm: Algorithm, pub memory_oversubscription: bool }
pub struct Placement { pub slot: usize, pub alloc_id: AllocId, pub node: NodeId, pub resources: AllocatedResources, pub score: NodeScore }
pub struct Decision { pub placements: Vec<Placement>, pub metric: AllocMetric, pub failed: Option<(AllocMetric, Vec<u32>)> }
pub fn place(cluster: &mut Cluster, request: &Request<'_>) -> Decision {
    let mut decision = Decision { placements: vec![], metric: AllocMetric::default(), failed: None };
    let mut unplaced = vec![];
    let mut resources = AllocatedResources::default();
    for t in &request.group.tasks {
        let r = t.resources();
        resources.tasks.insert(t.name.clone(), AllocatedTask { cpu: AllocatedCpu { cpu_shares: r.cpu_mhz, ..Default::default() }, memory: AllocatedMemory { memory_mb: r.memory_mb, memory_max_mb: 0 }, ..Default::default() });
    }
    let (cpu, mem): (i64, i64) = resources.tasks.values().map(|t| (t.cpu.cpu_shares, t.memory.memory_mb)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    for (i, slot) in request.slots.iter().enumerate() {
        let found = cluster.nodes.iter().filter(|(_, n)| n.1 && n.2 + cpu <= n.0.resources.cpu.cpu_shares && n.3 + mem <= n.0.resources.memory.memory_mb).max_by_key(|(id, n)| (n.2, *id)).map(|(id, _)| *id);
        match found {
            Some(node) => {
                let n = cluster.nodes.get_mut(&node).expect("found"); n.2 += cpu; n.3 += mem;
                cluster.allocs.insert(slot.alloc_id, (node, cpu, mem));
                decision.placements.push(Placement { slot: i, alloc_id: slot.alloc_id, node, resources: resources.clone(), score: NodeScore::default() });
            }
            None => unplaced.push(slot.index),
        }
    }
    if !unplaced.is_empty() { decision.failed = Some((AllocMetric { nodes_exhausted: cluster.nodes.len() as u64, coalesced_failures: unplaced.len() as u64 - 1, ..Default::default() }, unplaced)); }
    decision
}
pub fn still_fits(_: &Cluster, _: &Job, _: &TaskGroup, _: NodeId, _: AllocId) -> bool { true }
