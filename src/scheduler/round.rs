//! One run over the slots of a request: for each, the best node is found, granted from and charged.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use crate::model::allocation::AllocMetric;
use crate::model::id::AllocId;
use crate::model::id::JobId;
use crate::model::id::NodeId;

use super::cluster::AllocFacts;
use super::cluster::Cluster;
use super::cluster::Yielded;
use super::feasible::Requirements;
use super::footprint::footprint;
use super::grant::Ask;
use super::grant::Granter;
use super::metric::keep_best;
use super::place::Decision;
use super::place::Placement;
use super::place::Refusal;
use super::place::Request;
use super::place::Slot;
use super::place::distinct_scopes;
use super::place::properties;
use super::property::Property;
use super::property::Scope;
use super::ranking::Bucket;
use super::ranking::Candidate;
use super::score::Affinities;
use super::score::Components;
use super::score::mean;
use super::unfit::Unfit;

/// What is the same for all nodes of a class, found once per request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ClassMemo {
    pub(super) affinity: Option<f64>,
    pub(super) bucket: Option<u32>,
}

/// The previous allocation of a slot that is about to be replaced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    pub(super) id: AllocId,
    pub(super) node: u32,
    pub(super) is_wanted: bool,
    pub(super) same_job: bool,
    pub(super) same_group: bool,
}

/// One run over the slots of a request.
pub(super) struct Round<'a> {
    pub(super) cluster: &'a mut Cluster,
    pub(super) request: &'a Request<'a>,
    pub(super) requirements: &'a Requirements,
    pub(super) index: Option<u32>,
    pub(super) job_id: JobId,
    pub(super) ask: Ask,
    pub(super) affinities: Affinities,
    pub(super) properties: Vec<Property>,
    pub(super) distinct: Vec<Scope>,
    /// By node slot: allocations of the group that are to stay, for anti-affinity.
    pub(super) wanted: Vec<u32>,
    /// By node slot: allocations that bar the node under `distinct_hosts`, per scope in `distinct`.
    pub(super) held: Vec<Vec<u32>>,
    pub(super) stamps: Vec<u32>,
    pub(super) verdicts: Vec<Option<Result<(), Unfit>>>,
    pub(super) memos: Vec<ClassMemo>,
    pub(super) buckets: Vec<Bucket>,
    pub(super) bucket_numbers: HashMap<Box<[Option<u32>]>, u32>,
    pub(super) is_scanned: bool,
}

impl<'a> Round<'a> {
    pub(super) fn new(
        cluster: &'a mut Cluster,
        request: &'a Request<'a>,
        requirements: &'a Requirements,
        index: Option<u32>,
    ) -> Self {
        let (job, group) = (request.job, request.group);
        let job_id = job.job_id();
        let nodes = cluster.nodes.len();
        let classes = cluster.class_count();
        let verdicts = cluster.verdicts.take(requirements, classes);
        let distinct = distinct_scopes(job, group);
        let mut wanted = vec![0; nodes];
        let mut held = vec![vec![0; nodes]; distinct.len()];
        let mut properties = properties(job, group);
        for found in cluster.groups_of(&job_id) {
            let is_own = *found.name == *group.name;
            for (slot, counts) in &found.nodes {
                if is_own {
                    wanted[*slot as usize] = counts.wanted;
                }
                for (scope, held) in distinct.iter().zip(&mut held) {
                    if is_own || *scope == Scope::Job {
                        held[*slot as usize] += counts.held;
                    }
                }
                let Some(view) = cluster.view(*slot) else {
                    continue;
                };
                for property in properties.iter_mut().filter(|found| is_own || found.scope() == Scope::Job) {
                    let value = property.value_of(view);
                    property.count(value, i64::from(counts.wanted));
                }
            }
        }
        Self {
            ask: Ask::of(group, request.memory_oversubscription),
            affinities: Affinities::of(job, group),
            stamps: vec![0; nodes],
            memos: vec![ClassMemo::default(); classes],
            buckets: Vec::new(),
            bucket_numbers: HashMap::new(),
            is_scanned: false,
            cluster,
            request,
            requirements,
            index,
            job_id,
            properties,
            distinct,
            wanted,
            held,
            verdicts,
        }
    }

    pub(super) fn run(mut self, slots: &[Slot], decision: &mut Decision) {
        for slot in slots {
            let leaving = self.leaving(slot);
            self.leave(leaving.as_ref(), -1);
            let placed = match slot.pinned_node {
                Some(node) => self.place_pinned(slot, node, leaving.as_ref(), decision),
                None => self.place_anywhere(slot, leaving.as_ref(), decision),
            };
            match placed {
                Some(placement) => {
                    if let Some(leaving) = &leaving {
                        self.cluster.set_stopping(leaving.id);
                    }
                    decision.placements.push(placement);
                }
                None => {
                    self.leave(leaving.as_ref(), 1);
                    self.fail(slot, decision);
                }
            }
        }
        self.cluster.verdicts.give_back(self.requirements, self.verdicts);
    }

    fn leaving(&self, slot: &Slot) -> Option<Leaving> {
        let (id, _) = slot.previous.filter(|_| slot.replaces)?;
        let (node, is_stopping) = self.cluster.where_is(id)?;
        let (job, group) = self.cluster.group_of(id)?;
        let same_job = *job == self.job_id;
        let same_group = same_job && group == self.request.group.name;
        Some(Leaving { id, node, is_wanted: !is_stopping, same_job, same_group })
    }

    /// Takes the previous allocation out of the counts (`change` -1), or puts it back (1).
    fn leave(&mut self, leaving: Option<&Leaving>, change: i32) {
        let Some(leaving) = leaving.filter(|leaving| leaving.is_wanted) else {
            return;
        };
        if leaving.same_group {
            let wanted = &mut self.wanted[leaving.node as usize];
            *wanted = wanted.saturating_add_signed(change);
        }
        let Some(view) = self.cluster.view(leaving.node) else {
            return;
        };
        for property in &mut self.properties {
            if leaving.same_group || (leaving.same_job && property.scope() == Scope::Job) {
                let value = property.value_of(view);
                property.count(value, i64::from(change));
            }
        }
        // Its node scores differently now; the heap learns it only if the change stays.
        if change < 0 && self.is_scanned {
            self.stamps[leaving.node as usize] += 1;
        } else if self.is_scanned {
            self.push(leaving.node);
        }
    }

    fn place_pinned(
        &mut self,
        slot: &Slot,
        node: NodeId,
        leaving: Option<&Leaving>,
        decision: &mut Decision,
    ) -> Option<Placement> {
        let found = match self.cluster.slot_of(node) {
            Some(number) => self.consider(number, slot, leaving),
            None => Err(Unfit::UnknownNode),
        };
        let reason = match found {
            Ok(candidate) => match self.take(&candidate, slot, leaving) {
                Ok(placement) => {
                    decision.metric.nodes_evaluated += 1;
                    keep_best(&mut decision.metric.score_meta_data, placement.score.clone());
                    return Some(placement);
                }
                Err(unfit) => unfit,
            },
            Err(unfit) => unfit,
        };
        decision.refusals.push(Refusal { index: slot.index, alloc_id: slot.alloc_id, node, reason });
        None
    }

    fn place_anywhere(
        &mut self,
        slot: &Slot,
        leaving: Option<&Leaving>,
        decision: &mut Decision,
    ) -> Option<Placement> {
        let preferred = slot.preferred_node.and_then(|node| self.cluster.slot_of(node));
        if let Some(node) = preferred
            && let Ok(candidate) = self.consider(node, slot, leaving)
            && let Ok(placement) = self.take(&candidate, slot, leaving)
        {
            return Some(placement);
        }
        if !self.is_scanned {
            decision.metric = self.scan(true);
            self.is_scanned = true;
        }
        let mut special: BTreeSet<u32> =
            slot.penalty_nodes.iter().filter_map(|node| self.cluster.slot_of(*node)).collect();
        special.extend(leaving.map(|leaving| leaving.node));
        let mut best: Option<Candidate> = None;
        for node in &special {
            if let Ok(candidate) = self.consider(*node, slot, leaving)
                && candidate.is_better_than(best.as_ref())
            {
                best = Some(candidate);
            }
        }
        if let Some(candidate) = self.best_ordinary(&special)
            && candidate.is_better_than(best.as_ref())
        {
            best = Some(candidate);
        }
        let placement = best.and_then(|candidate| self.take(&candidate, slot, leaving).ok());
        if placement.is_some()
            && let Some(leaving) = leaving
        {
            self.push(leaving.node);
        }
        placement
    }

    /// Counts a slot as not placed; the reasons are gathered once.
    fn fail(&mut self, slot: &Slot, decision: &mut Decision) {
        if let Some((metric, unplaced)) = &mut decision.failed {
            unplaced.push(slot.index);
            if slot.pinned_node.is_none() {
                metric.coalesced_failures += 1;
                let failures = i64::try_from(metric.coalesced_failures).unwrap_or(i64::MAX) + 1;
                self.note_exhausted(metric, failures);
                return;
            }
            metric.coalesced_failures += 1;
            if let Some(refusal) = decision.refusals.last() {
                self.note_pinned(metric, refusal);
            }
            return;
        }
        let metric = if slot.pinned_node.is_some() {
            let mut metric = AllocMetric::default();
            if let Some(refusal) = decision.refusals.last() {
                self.note_pinned(&mut metric, refusal);
            }
            metric
        } else {
            self.scan(false)
        };
        decision.failed = Some((metric, vec![slot.index]));
    }

    /// Looks at one node for one slot, with everything that is particular to that slot.
    fn consider(&mut self, node: u32, slot: &Slot, leaving: Option<&Leaving>) -> Result<Candidate, Unfit> {
        if !self.cluster.rooms[node as usize].ready {
            return Err(Unfit::NotReady);
        }
        self.filter(node, leaving)?;
        let bucket = self.bucket_of(node) as usize;
        for (property, value) in self.properties.iter().zip(&self.buckets[bucket].values) {
            property.check(*value)?;
        }
        let components = self.components(node, slot, leaving)?;
        let spread = self.spread_of(&self.buckets[bucket], &self.spread_scores());
        let (sum, number) = components.sum();
        let id = self.cluster.rooms[node as usize].id;
        Ok(Candidate { score: mean(sum, number, spread), id, node, spread })
    }

    fn components(&self, node: u32, slot: &Slot, leaving: Option<&Leaving>) -> Result<Components, Unfit> {
        let behind = leaving.filter(|leaving| leaving.node == node).map(|leaving| leaving.id);
        let id = self.cluster.rooms[node as usize].id;
        self.score(node, behind, slot.penalty_nodes.contains(&id), &Yielded::default())
    }

    /// Grants resources on the chosen node and charges it.
    fn take(
        &mut self,
        candidate: &Candidate,
        slot: &Slot,
        leaving: Option<&Leaving>,
    ) -> Result<Placement, Unfit> {
        let node = candidate.node;
        let components = self.components(node, slot, leaving)?;
        let resources = {
            let holder = &self.cluster.nodes[node as usize];
            let view = holder.view.as_deref().ok_or(Unfit::UnknownNode)?;
            let yielded = match leaving.filter(|leaving| leaving.node == node) {
                Some(leaving) => self.cluster.used_behind(node, leaving.id, [0; 3]).1,
                None => Yielded::default(),
            };
            Granter { ask: &self.ask, node: holder, view, yielded: &yielded }.grant(slot.alloc_id)?
        };
        let facts = AllocFacts {
            id: slot.alloc_id,
            node: candidate.id,
            job: &self.job_id,
            group: &self.request.group.name,
            tasks: Some(self.request.group),
            resources: &resources,
            previous: slot.previous.map(|(id, _)| id),
            holding: true,
            stopping: false,
        };
        self.cluster.charge(&facts, footprint(Some(self.request.group), &resources));
        self.wanted[node as usize] += 1;
        for held in &mut self.held {
            held[node as usize] += 1;
        }
        let bucket = self.bucket_of(node) as usize;
        for (property, value) in self.properties.iter_mut().zip(&self.buckets[bucket].values) {
            property.count(*value, 1);
        }
        self.push(node);
        let score = components.named(candidate.id, candidate.spread, !self.affinities.is_empty());
        Ok(Placement { index: slot.index, alloc_id: slot.alloc_id, node: candidate.id, resources, score })
    }
}
