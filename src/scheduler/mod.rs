//! Chooses nodes for the allocations of one group: filter, then score every feasible node. Pure: no I/O, no clock,
//! no randomness; the same input gives the same answer.

pub mod cluster;
pub mod feasible;
mod ports;
mod score;

use std::collections::BTreeMap;
use std::collections::BinaryHeap;
use std::collections::HashMap;

use crate::model::allocation::AllocMetric;
use crate::model::allocation::NodeScore;
use crate::model::group::TaskGroup;
use crate::model::id::AllocId;
use crate::model::id::NodeId;
use crate::model::job::Job;
use crate::model::resources::AllocatedResources;

use self::cluster::Cluster;
use self::cluster::GroupKey;
use self::cluster::NodeIndex;
use self::cluster::group_key;
use self::feasible::Feasibility;
use self::feasible::Unfit;
use self::score::Scored;
use self::score::Scorer;

/// How nodes are preferred by their usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// Fill nodes that are in use already.
    #[default]
    Binpack,
    /// Prefer empty nodes.
    Spread,
}

/// An allocation that wants a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slot {
    pub index: u32,
    pub alloc_id: AllocId,
    /// The one it replaces, and where that is.
    pub previous: Option<(AllocId, NodeId)>,
    /// It may take over what the previous one holds, on the same node: it starts after that one's end.
    pub replaces: bool,
    /// Nodes where the slot failed before: chosen only if others are no better.
    pub penalty_nodes: Vec<NodeId>,
    /// Taken if it is feasible, whatever its score.
    pub preferred_node: Option<NodeId>,
}

/// What is to be placed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub job: &'a Job,
    pub group: &'a TaskGroup,
    pub slots: &'a [Slot],
    pub algorithm: Algorithm,
    /// Grant `memory_max`.
    pub memory_oversubscription: bool,
}

/// A slot's node.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// Position in the request's slots.
    pub slot: usize,
    pub alloc_id: AllocId,
    pub node: NodeId,
    pub resources: AllocatedResources,
    pub score: NodeScore,
}

/// What became of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    pub placements: Vec<Placement>,
    /// How the first slot was placed.
    pub metric: AllocMetric,
    /// Why the rest could not be placed, with their indexes.
    pub failed: Option<(AllocMetric, Vec<u32>)>,
}

/// Best nodes shown to users.
const SCORES_SHOWN: usize = 5;

/// Places as many slots as possible. Each placement is assumed in the cluster at once.
pub fn place(cluster: &mut Cluster, request: &Request<'_>) -> Decision {
    let feasibility = Feasibility::new(request.job, request.group);
    let (candidates, base) = feasibility.filter(cluster);
    let mut placing = Placing {
        request,
        scorer: Scorer::new(request, cluster, &candidates),
        feasibility,
        job_key: group_key(&request.job.job_id(), ""),
        group_key: group_key(&request.job.job_id(), &request.group.name),
        heap: BinaryHeap::new(),
        exhausted: HashMap::new(),
        candidates,
        base,
        decision: Decision::default(),
    };
    placing.run(cluster);
    placing.decision
}

/// Would an allocation stay where it is under a new specification? Checks requirements on the node, not its usage.
pub fn still_fits(cluster: &Cluster, job: &Job, group: &TaskGroup, node: NodeId, _alloc: AllocId) -> bool {
    let Some(at) = cluster.node_index(node) else { return false };
    Feasibility::new(job, group).check(&cluster.nodes[at]).is_ok()
}

struct Placing<'a> {
    request: &'a Request<'a>,
    scorer: Scorer,
    feasibility: Feasibility<'a>,
    job_key: GroupKey,
    group_key: GroupKey,
    /// Best node last seen, per node; entries may be out of date and are then scored anew.
    heap: BinaryHeap<Scored>,
    exhausted: HashMap<NodeIndex, Unfit>,
    candidates: Vec<NodeIndex>,
    base: AllocMetric,
    decision: Decision,
}

impl Placing<'_> {
    fn run(&mut self, cluster: &mut Cluster) {
        let mut unplaced = Vec::new();
        let mut heap_is_built = false;
        for (position, slot) in self.request.slots.iter().enumerate() {
            let is_plain =
                slot.previous.is_none() && slot.penalty_nodes.is_empty() && slot.preferred_node.is_none();
            let chosen = if is_plain && self.scorer.is_local() && !self.feasibility.has_distinct() {
                if !heap_is_built {
                    self.build_heap(cluster, slot);
                    heap_is_built = true;
                }
                self.pop(cluster, slot)
            } else {
                self.scan(cluster, slot)
            };
            match chosen {
                Some((scored, resources)) => self.take(cluster, position, slot, &scored, resources),
                None => unplaced.push(slot.index),
            }
        }
        if !unplaced.is_empty() {
            let mut metric = self.metric(cluster);
            metric.coalesced_failures = unplaced.len() as u64 - 1;
            self.decision.failed = Some((metric, unplaced));
        }
    }

    fn build_heap(&mut self, cluster: &Cluster, slot: &Slot) {
        let mut scored = Vec::with_capacity(self.candidates.len());
        for &at in &self.candidates {
            match self.feasibility.fit(cluster, at, slot) {
                Ok(()) => scored.push(self.scorer.score(cluster, at, slot, self.group_key)),
                Err(unfit) => drop(self.exhausted.insert(at, unfit)),
            }
        }
        self.show_best(cluster, &scored, slot);
        self.heap = BinaryHeap::from(scored);
    }

    /// The best node by the heap. A node's score changes only when something is placed there, and it is pushed
    /// back with its new score then.
    fn pop(&mut self, cluster: &Cluster, slot: &Slot) -> Option<(Scored, AllocatedResources)> {
        while let Some(best) = self.heap.pop() {
            match self.feasibility.grant(cluster, best.node, slot, self.request.memory_oversubscription) {
                Ok(resources) => return Some((best, resources)),
                Err(unfit) => drop(self.exhausted.insert(best.node, unfit)),
            }
        }
        None
    }

    /// The best node by looking at all of them.
    fn scan(&mut self, cluster: &Cluster, slot: &Slot) -> Option<(Scored, AllocatedResources)> {
        let mut scored = Vec::new();
        self.exhausted.clear();
        for &at in &self.candidates {
            let fits = self
                .feasibility
                .distinct(cluster, at, slot, self.job_key, self.group_key, &self.candidates)
                .and_then(|()| self.feasibility.fit(cluster, at, slot));
            match fits {
                Ok(()) => scored.push(self.scorer.score(cluster, at, slot, self.group_key)),
                Err(unfit) => drop(self.exhausted.insert(at, unfit)),
            }
        }
        if self.decision.metric.score_meta_data.is_empty() {
            self.show_best(cluster, &scored, slot);
        }
        let preferred = slot.preferred_node.and_then(|node| cluster.node_index(node));
        scored.sort_by(|a, b| {
            (Some(b.node) == preferred).cmp(&(Some(a.node) == preferred)).then_with(|| b.cmp(a))
        });
        for best in scored {
            match self.feasibility.grant(cluster, best.node, slot, self.request.memory_oversubscription) {
                Ok(resources) => return Some((best, resources)),
                Err(unfit) => drop(self.exhausted.insert(best.node, unfit)),
            }
        }
        None
    }

    fn take(
        &mut self,
        cluster: &mut Cluster,
        position: usize,
        slot: &Slot,
        scored: &Scored,
        resources: AllocatedResources,
    ) {
        let score = self.scorer.explain(cluster, scored.node, slot, self.group_key);
        let node = cluster.nodes[scored.node].id;
        cluster.set_alloc(&cluster::AllocFacts {
            id: slot.alloc_id,
            node,
            job: self.request.job.job_id(),
            group: &self.request.group.name,
            job_version: self.request.job.version,
            resources: &resources,
            previous: slot.previous.map(|(previous, _)| previous),
            holding: true,
        });
        self.scorer.placed(cluster, scored.node, slot);
        let plain = Slot::default();
        if !self.heap.is_empty() || slot.previous.is_none() {
            match self.feasibility.fit(cluster, scored.node, &plain) {
                Ok(()) => self.heap.push(self.scorer.score(cluster, scored.node, &plain, self.group_key)),
                Err(unfit) => drop(self.exhausted.insert(scored.node, unfit)),
            }
        }
        self.decision.placements.push(Placement {
            slot: position,
            alloc_id: slot.alloc_id,
            node,
            resources,
            score,
        });
    }

    fn show_best(&mut self, cluster: &Cluster, scored: &[Scored], slot: &Slot) {
        let mut best: Vec<&Scored> = scored.iter().collect();
        if best.len() > SCORES_SHOWN {
            best.select_nth_unstable_by(SCORES_SHOWN, |a, b| b.cmp(a));
            best.truncate(SCORES_SHOWN);
        }
        best.sort_by(|a, b| b.cmp(a));
        let shown = best.iter().map(|scored| self.scorer.explain(cluster, scored.node, slot, self.group_key));
        let shown = shown.collect();
        self.decision.metric = AllocMetric { score_meta_data: shown, ..self.metric(cluster) };
    }

    /// Filtered nodes from the start, exhausted ones as of now.
    fn metric(&self, cluster: &Cluster) -> AllocMetric {
        let mut metric = self.base.clone();
        let mut by_reason: BTreeMap<String, u64> = BTreeMap::new();
        for (at, unfit) in &self.exhausted {
            let class = &cluster.nodes[*at].info.node_class;
            if unfit.is_filter() {
                metric.nodes_filtered += 1;
                *metric.constraint_filtered.entry(unfit.to_string()).or_default() += 1;
                if !class.is_empty() {
                    *metric.class_filtered.entry(class.clone()).or_default() += 1;
                }
                continue;
            }
            metric.nodes_exhausted += 1;
            *by_reason.entry(unfit.to_string()).or_default() += 1;
            if !class.is_empty() {
                *metric.class_exhausted.entry(class.clone()).or_default() += 1;
            }
        }
        metric.dimension_exhausted = by_reason;
        metric
    }
}
