//! Chooses nodes for allocations of one group: filter, then score every node that is left, then take the best.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::collections::BinaryHeap;

use hashbrown::HashMap;

use crate::model::allocation::AllocMetric;
use crate::model::allocation::NodeScore;
use crate::model::group::TaskGroup;
use crate::model::id::AllocId;
use crate::model::id::JobId;
use crate::model::id::NodeId;
use crate::model::job::Job;
use crate::model::resources::AllocatedResources;

use super::cluster::AllocFacts;
use super::cluster::Cluster;
use super::cluster::Yielded;
use super::cluster::add;
use super::feasible::Requirements;
use super::feasible::is_false;
use super::footprint::footprint;
use super::grant::Ask;
use super::grant::Granter;
use super::grant::fits;
use super::node::NodeView;
use super::property::Property;
use super::property::Scope;
use super::property::missing_score;
use super::property::weight_of;
use super::score::Affinities;
use super::score::Algorithm;
use super::score::Components;
use super::score::mean;
use super::score::packing;
use super::unfit::Unfit;

/// Nodes whose scores are kept in a metric.
const BEST_KEPT: usize = 5;
/// Most components that a node's score can have, spread apart.
const COMPONENTS_MAX: usize = 5;

/// Allocations of one group that need nodes.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub job: &'a Job,
    pub group: &'a TaskGroup,
    pub slots: &'a [Slot],
    pub algorithm: Algorithm,
    /// Grant `memory_max`.
    pub memory_oversubscription: bool,
}

/// One allocation that needs a node.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    pub index: u32,
    pub alloc_id: AllocId,
    /// The allocation it replaces, and that one's node.
    pub previous: Option<(AllocId, NodeId)>,
    /// The previous allocation is told to stop as soon as this one is placed (destructive update): on its own node
    /// its resources, ports and name count as free, and it no longer counts for spread and `distinct_property`.
    pub replaces: bool,
    /// Nodes on which the index failed before: they score worse.
    pub penalty_nodes: Vec<NodeId>,
    /// Taken whatever its score, if it fits (sticky disk).
    pub preferred_node: Option<NodeId>,
    /// No other node will do (system jobs).
    pub pinned_node: Option<NodeId>,
}

/// A node found for a slot. It is charged in the cluster already.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    pub index: u32,
    pub alloc_id: AllocId,
    pub node: NodeId,
    pub resources: AllocatedResources,
    pub score: NodeScore,
}

/// Why a pinned node was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub index: u32,
    pub alloc_id: AllocId,
    pub node: NodeId,
    pub reason: Unfit,
}

/// Where the slots of a request go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    pub placements: Vec<Placement>,
    /// What was found when the first slot was placed.
    pub metric: AllocMetric,
    /// Why the rest could not be placed, and the indexes of that rest.
    pub failed: Option<(AllocMetric, Vec<u32>)>,
    /// For slots with a pinned node.
    pub refusals: Vec<Refusal>,
}

/// Finds nodes for the slots of a request, in order, and charges them in `cluster` at once.
pub fn place(cluster: &mut Cluster, request: &Request<'_>) -> Decision {
    let requirements = Requirements::of(request.job, request.group);
    let mut decision = Decision::default();
    if requirements.is_per_index() {
        // Volumes differ between indexes, so nothing found for one slot holds for the next.
        for slot in request.slots {
            Round::new(cluster, request, &requirements, Some(slot.index))
                .run(std::slice::from_ref(slot), &mut decision);
        }
    } else {
        Round::new(cluster, request, &requirements, None).run(request.slots, &mut decision);
    }
    decision
}

/// Whether an allocation may stay on its node under a new version of its job that asks for the same resources:
/// pool, datacenter, constraints, drivers, networks and volumes. The node need not be ready.
pub fn still_fits(cluster: &Cluster, job: &Job, group: &TaskGroup, node: NodeId, alloc: AllocId) -> bool {
    let Some(slot) = cluster.slot_of(node) else {
        return false;
    };
    let Some(view) = cluster.view(slot) else {
        return false;
    };
    let requirements = Requirements::of(job, group);
    if requirements.check_shared(view).is_err() || requirements.check_unique(view, None).is_err() {
        return false;
    }
    let held = |scope: Scope| held_on(cluster, &job.job_id(), &group.name, scope, slot);
    let own = |scope: Scope| {
        let is_here = cluster.where_is(alloc).is_some_and(|(at, _)| at == slot);
        let is_counted = cluster.group_of(alloc).is_some_and(|(found, name)| {
            *found == job.job_id() && (scope == Scope::Job || name == group.name)
        });
        u32::from(is_here && is_counted)
    };
    distinct_scopes(job, group).into_iter().all(|scope| held(scope) <= own(scope))
}

/// Whether the node is ready and meets every hard requirement of the group, disregarding how full it is.
///
/// # Errors
/// The first requirement that is not met.
pub fn check_node(cluster: &Cluster, job: &Job, group: &TaskGroup, node: NodeId) -> Result<(), Unfit> {
    let slot = cluster.slot_of(node).ok_or(Unfit::UnknownNode)?;
    let view = cluster.view(slot).ok_or(Unfit::UnknownNode)?;
    if !cluster.rooms[slot as usize].ready {
        return Err(Unfit::NotReady);
    }
    let requirements = Requirements::of(job, group);
    requirements.check_shared(view)?;
    requirements.check_unique(view, None)
}

fn held_on(cluster: &Cluster, job: &JobId, group: &str, scope: Scope, slot: u32) -> u32 {
    let groups = cluster.groups_of(job).iter().filter(|found| scope == Scope::Job || &*found.name == group);
    groups.filter_map(|found| found.nodes.get(&slot)).map(|counts| counts.held).sum()
}

/// Where `distinct_hosts` is in force.
fn distinct_scopes(job: &Job, group: &TaskGroup) -> Vec<Scope> {
    let asks = |constraints: &[crate::model::constraint::Constraint]| {
        constraints.iter().any(|found| found.operand == "distinct_hosts" && !is_false(&found.right))
    };
    let mut scopes = Vec::new();
    if asks(&job.constraints) {
        scopes.push(Scope::Job);
    }
    if asks(&group.constraints) || group.tasks.iter().any(|task| asks(&task.constraints)) {
        scopes.push(Scope::Group);
    }
    scopes
}

fn properties(job: &Job, group: &TaskGroup) -> Vec<Property> {
    let spreads = || job.spreads.iter().chain(&group.spreads);
    let weights: f64 = spreads().map(weight_of).sum();
    let count = group.count() as f64;
    let mut found: Vec<Property> = spreads().map(|spread| Property::spread(spread, weights, count)).collect();
    let of_tasks = group.tasks.iter().flat_map(|task| &task.constraints);
    let scoped = job.constraints.iter().map(|constraint| (constraint, Scope::Job));
    let scoped = scoped.chain(group.constraints.iter().chain(of_tasks).map(|found| (found, Scope::Group)));
    found.extend(
        scoped
            .filter(|(constraint, _)| constraint.operand == "distinct_property")
            .map(|(constraint, scope)| Property::distinct(constraint, scope)),
    );
    found
}

/// A node in a heap: its score without spread.
#[derive(Clone, Copy, Debug)]
struct Entry {
    sum: f64,
    id: NodeId,
    node: u32,
    /// The entry counts only while this is the node's stamp.
    stamp: u32,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// Greatest first out of a heap: the highest sum, then the lowest id.
    fn cmp(&self, other: &Self) -> Ordering {
        self.sum.total_cmp(&other.sum).then_with(|| other.id.cmp(&self.id))
    }
}

/// Nodes with the same value of every property, in one heap per number of score components: among these, the order
/// of sums is the order of final scores, whatever the spread.
#[derive(Debug, Default)]
struct Bucket {
    values: Box<[Option<u32>]>,
    heaps: [BinaryHeap<Entry>; COMPONENTS_MAX],
}

/// A node that could be taken.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    score: f64,
    id: NodeId,
    node: u32,
    spread: f64,
}

impl Candidate {
    fn is_better_than(&self, other: Option<&Self>) -> bool {
        other.is_none_or(|other| match self.score.total_cmp(&other.score) {
            Ordering::Equal => self.id < other.id,
            order => order.is_gt(),
        })
    }
}

/// What is the same for all nodes of a class, found once per request.
#[derive(Clone, Copy, Debug, Default)]
struct ClassMemo {
    affinity: Option<f64>,
    bucket: Option<u32>,
}

/// The previous allocation of a slot that is about to be replaced.
#[derive(Clone, Copy, Debug)]
struct Leaving {
    id: AllocId,
    node: u32,
    is_wanted: bool,
    same_job: bool,
    same_group: bool,
}

/// One run over the slots of a request.
struct Round<'a> {
    cluster: &'a mut Cluster,
    request: &'a Request<'a>,
    requirements: &'a Requirements,
    index: Option<u32>,
    job_id: JobId,
    ask: Ask,
    affinities: Affinities,
    properties: Vec<Property>,
    distinct: Vec<Scope>,
    /// By node slot: allocations of the group that are to stay, for anti-affinity.
    wanted: Vec<u32>,
    /// By node slot: allocations that bar the node under `distinct_hosts`, per scope in `distinct`.
    held: Vec<Vec<u32>>,
    stamps: Vec<u32>,
    verdicts: Vec<Option<Result<(), Unfit>>>,
    memos: Vec<ClassMemo>,
    buckets: Vec<Bucket>,
    bucket_numbers: HashMap<Box<[Option<u32>]>, u32>,
    is_scanned: bool,
}

impl<'a> Round<'a> {
    fn new(
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

    fn run(mut self, slots: &[Slot], decision: &mut Decision) {
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

    fn note_pinned(&self, metric: &mut AllocMetric, refusal: &Refusal) {
        metric.nodes_evaluated += 1;
        let view = self.cluster.slot_of(refusal.node).and_then(|slot| self.cluster.view(slot));
        let class = view.map_or("", |view| view.info.node_class.as_str());
        note(metric, &refusal.reason, class, 1);
        if refusal.reason.is_exhausted() {
            metric.resources_exhausted = self.ask.exhausted(&refusal.reason, 1);
        }
    }

    fn note_exhausted(&self, metric: &mut AllocMetric, failures: i64) {
        for unfit in [Unfit::CpuExhausted, Unfit::MemoryExhausted] {
            if metric.dimension_exhausted.contains_key(&unfit.to_string()) {
                self.merge_exhausted(metric, &unfit, failures);
            }
        }
    }

    fn merge_exhausted(&self, metric: &mut AllocMetric, unfit: &Unfit, failures: i64) {
        for (task, resources) in self.ask.exhausted(unfit, failures) {
            let known = metric.resources_exhausted.entry(task).or_default();
            known.cpu_mhz = known.cpu_mhz.max(resources.cpu_mhz);
            known.memory_mb = known.memory_mb.max(resources.memory_mb);
        }
    }

    /// Looks at every node: fills the heaps if `fills`, and tells what was found.
    fn scan(&mut self, fills: bool) -> AllocMetric {
        let mut metric = AllocMetric::default();
        let mut refused: HashMap<(u32, Unfit), u64> = HashMap::new();
        // Per class: number of candidates, and one of them.
        let mut candidates: Vec<(u64, u32)> = vec![(0, 0); self.memos.len()];
        let plain = Yielded::default();
        for node in 0..self.cluster.nodes.len() {
            let room = self.cluster.rooms[node];
            let slot = u32::try_from(node).expect("slots are u32");
            if !room.ready || self.verdict(slot).is_err_and(|unfit| unfit.is_no_candidate()) {
                continue;
            }
            let (number, sample) = &mut candidates[room.class as usize];
            *number += 1;
            *sample = slot;
            let result = self.filter(slot, None).and_then(|()| {
                let bucket = self.bucket_of(slot);
                let values = &self.buckets[bucket as usize].values;
                let is_barred =
                    self.properties.iter().zip(values).find_map(|(p, value)| p.check(*value).err());
                match (self.score(slot, None, false, &plain), is_barred) {
                    (Ok(components), None) => Ok((bucket, components)),
                    (Err(unfit), None) => Err(unfit),
                    (scored, Some(unfit)) => {
                        // Values may become free again when allocations are replaced.
                        if let Ok(components) = scored
                            && fills
                        {
                            self.push_scored(slot, bucket, &components);
                        }
                        Err(unfit)
                    }
                }
            });
            match result {
                Ok((bucket, components)) if fills => self.push_scored(slot, bucket, &components),
                Ok(_) => {}
                Err(unfit) => *refused.entry((room.class, unfit)).or_default() += 1,
            }
        }
        for (number, sample) in candidates.iter().filter(|(number, _)| *number > 0) {
            metric.nodes_evaluated += number;
            metric.nodes_in_pool += number;
            if let Some(view) = self.cluster.view(*sample) {
                *metric.nodes_available.entry(view.info.datacenter.clone()).or_default() += number;
            }
        }
        for ((class, unfit), number) in refused {
            let sample = candidates[class as usize].1;
            let name = self.cluster.view(sample).map(|view| view.info.node_class.clone()).unwrap_or_default();
            note(&mut metric, &unfit, &name, number);
            if unfit.is_exhausted() {
                self.merge_exhausted(&mut metric, &unfit, 1);
            }
        }
        if fills {
            self.note_best(&mut metric);
        }
        metric
    }

    /// Keeps the best scores in the metric.
    fn note_best(&self, metric: &mut AllocMetric) {
        let spreads = self.spread_scores();
        let mut best: Vec<Candidate> = Vec::new();
        for bucket in self.buckets.iter().filter(|bucket| self.is_open(bucket)) {
            let spread = self.spread_of(bucket, &spreads);
            for (at, heap) in bucket.heaps.iter().enumerate() {
                for entry in heap {
                    let score = mean(entry.sum, at + 1, spread);
                    let candidate = Candidate { score, id: entry.id, node: entry.node, spread };
                    if best.len() == BEST_KEPT && !candidate.is_better_than(best.last()) {
                        continue;
                    }
                    let at = best.partition_point(|known| known.is_better_than(Some(&candidate)));
                    best.insert(at, candidate);
                    best.truncate(BEST_KEPT);
                }
            }
        }
        for candidate in best {
            if let Ok(components) = self.score(candidate.node, None, false, &Yielded::default()) {
                let named = components.named(candidate.id, candidate.spread, !self.affinities.is_empty());
                metric.score_meta_data.push(named);
            }
        }
    }

    /// The verdict of the class-level checks on a node.
    fn verdict(&mut self, node: u32) -> Result<(), Unfit> {
        let class = self.cluster.rooms[node as usize].class as usize;
        if let Some(verdict) = &self.verdicts[class] {
            return verdict.clone();
        }
        let view = self.cluster.view(node).ok_or(Unfit::UnknownNode)?;
        let verdict = self.requirements.check_shared(view);
        self.verdicts[class] = Some(verdict.clone());
        verdict
    }

    /// Hard requirements: those of the class, of the node, and `distinct_hosts`.
    fn filter(&mut self, node: u32, leaving: Option<&Leaving>) -> Result<(), Unfit> {
        self.verdict(node)?;
        let view = self.cluster.view(node).ok_or(Unfit::UnknownNode)?;
        self.requirements.check_unique(view, self.index)?;
        for (scope, held) in self.distinct.iter().zip(&self.held) {
            let own = leaving.filter(|leaving| {
                leaving.node == node && (leaving.same_group || (*scope == Scope::Job && leaving.same_job))
            });
            if held[node as usize] > u32::from(own.is_some()) {
                return Err(Unfit::DistinctHosts);
            }
        }
        Ok(())
    }

    /// Fits the group into the node and scores it.
    fn score(
        &self,
        node: u32,
        behind: Option<AllocId>,
        is_penalised: bool,
        nothing: &Yielded,
    ) -> Result<Components, Unfit> {
        let room = &self.cluster.rooms[node as usize];
        let holder = &self.cluster.nodes[node as usize];
        let view = holder.view.as_deref().ok_or(Unfit::UnknownNode)?;
        let charge = self.ask.fixed_charge().unwrap_or_else(|| self.ask.charge(view.mhz_per_core));
        let behind = behind.map(|previous| self.cluster.used_behind(node, previous, charge));
        let (used, yielded) = match &behind {
            Some((used, yielded)) => (*used, yielded),
            None => (add(room.used, charge), nothing),
        };
        fits(room.capacity, used)?;
        let devices = if self.ask.is_plain() {
            None
        } else {
            Granter { ask: &self.ask, node: holder, view, yielded }.check()?
        };
        let collisions = self.wanted[node as usize];
        let count = self.request.group.count().max(1) as f64;
        let memo = self.memos[room.class as usize].affinity;
        Ok(Components {
            packing: packing(self.request.algorithm, room.capacity, used),
            devices,
            anti_affinity: if collisions > 0 { -f64::from(collisions + 1) / count } else { 0.0 },
            penalty: if is_penalised { -1.0 } else { 0.0 },
            affinity: if self.affinities.is_empty() {
                0.0
            } else {
                memo.unwrap_or_else(|| self.affinities.score(view))
            },
        })
    }

    /// The bucket of a node, and on the way the class's affinity score.
    fn bucket_of(&mut self, node: u32) -> u32 {
        let class = self.cluster.rooms[node as usize].class as usize;
        let view = self.cluster.nodes[node as usize].view.as_deref();
        if self.memos[class].affinity.is_none()
            && !self.affinities.is_empty()
            && !self.affinities.is_unique()
            && let Some(view) = view
        {
            self.memos[class].affinity = Some(self.affinities.score(view));
        }
        if let Some(bucket) = self.memos[class].bucket {
            return bucket;
        }
        let values: Box<[Option<u32>]> =
            self.properties.iter_mut().map(|p| view.and_then(|view| p.value_of(view))).collect();
        let is_unique = self.properties.iter().any(Property::is_unique);
        let bucket = match self.bucket_numbers.get(&values) {
            Some(bucket) => *bucket,
            None => {
                let number = u32::try_from(self.buckets.len()).expect("fewer buckets than nodes");
                self.buckets.push(Bucket { values: values.clone(), ..Bucket::default() });
                self.bucket_numbers.insert(values, number);
                number
            }
        };
        if !is_unique {
            self.memos[class].bucket = Some(bucket);
        }
        bucket
    }

    /// Puts a node back into its heap with its present score, or leaves it out when it no longer fits.
    fn push(&mut self, node: u32) {
        self.stamps[node as usize] += 1;
        if !self.is_scanned || !self.cluster.rooms[node as usize].ready || self.filter(node, None).is_err() {
            return;
        }
        let bucket = self.bucket_of(node);
        if let Ok(components) = self.score(node, None, false, &Yielded::default()) {
            self.push_scored(node, bucket, &components);
        }
    }

    fn push_scored(&mut self, node: u32, bucket: u32, components: &Components) {
        let (sum, number) = components.sum();
        let id = self.cluster.nodes[node as usize].id;
        let entry = Entry { sum, id, node, stamp: self.stamps[node as usize] };
        self.buckets[bucket as usize].heaps[number - 1].push(entry);
    }

    fn spread_scores(&self) -> Vec<Vec<f64>> {
        self.properties.iter().map(Property::spread_scores).collect()
    }

    fn spread_of(&self, bucket: &Bucket, scores: &[Vec<f64>]) -> f64 {
        let parts = bucket.values.iter().zip(scores).zip(&self.properties);
        parts
            .map(|((value, scores), property)| match value {
                Some(value) => scores[*value as usize],
                None => missing_score(property),
            })
            .sum()
    }

    /// No `distinct_property` bars the bucket's values.
    fn is_open(&self, bucket: &Bucket) -> bool {
        self.properties.iter().zip(&bucket.values).all(|(property, value)| property.check(*value).is_ok())
    }

    /// The best node of the heaps, disregarding the special ones of a slot.
    fn best_ordinary(&mut self, special: &BTreeSet<u32>) -> Option<Candidate> {
        let spreads = self.spread_scores();
        let mut best: Option<Candidate> = None;
        for at in 0..self.buckets.len() {
            if !self.is_open(&self.buckets[at]) {
                continue;
            }
            let spread = self.spread_of(&self.buckets[at], &spreads);
            for number in 1..=COMPONENTS_MAX {
                let heap = &mut self.buckets[at].heaps[number - 1];
                let Some(entry) = top(heap, &self.stamps, special) else {
                    continue;
                };
                let score = mean(entry.sum, number, spread);
                let candidate = Candidate { score, id: entry.id, node: entry.node, spread };
                if candidate.is_better_than(best.as_ref()) {
                    best = Some(candidate);
                }
            }
        }
        best
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
        let id = self.cluster.nodes[node as usize].id;
        Ok(Candidate { score: mean(sum, number, spread), id, node, spread })
    }

    fn components(&self, node: u32, slot: &Slot, leaving: Option<&Leaving>) -> Result<Components, Unfit> {
        let behind = leaving.filter(|leaving| leaving.node == node).map(|leaving| leaving.id);
        let id = self.cluster.nodes[node as usize].id;
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

/// The best entry that is current and not special; out-of-date ones are dropped on the way.
fn top(heap: &mut BinaryHeap<Entry>, stamps: &[u32], special: &BTreeSet<u32>) -> Option<Entry> {
    let mut aside = Vec::new();
    let mut found = None;
    while let Some(entry) = heap.peek().copied() {
        if stamps[entry.node as usize] != entry.stamp {
            heap.pop();
        } else if special.contains(&entry.node) {
            aside.extend(heap.pop());
        } else {
            found = Some(entry);
            break;
        }
    }
    heap.extend(aside);
    found
}

/// Adds refusals to a metric.
fn note(metric: &mut AllocMetric, unfit: &Unfit, node_class: &str, number: u64) {
    if unfit.is_exhausted() {
        metric.nodes_exhausted += number;
        *metric.dimension_exhausted.entry(unfit.to_string()).or_default() += number;
    } else {
        metric.nodes_filtered += number;
        *metric.constraint_filtered.entry(unfit.to_string()).or_default() += number;
    }
    if !node_class.is_empty() {
        let by_class =
            if unfit.is_exhausted() { &mut metric.class_exhausted } else { &mut metric.class_filtered };
        *by_class.entry(node_class.to_owned()).or_default() += number;
    }
}

fn keep_best(best: &mut Vec<NodeScore>, score: NodeScore) {
    let worse = |known: &NodeScore| match known.norm_score.total_cmp(&score.norm_score) {
        Ordering::Equal => known.node_id < score.node_id,
        order => order.is_gt(),
    };
    let at = best.partition_point(worse);
    best.insert(at, score);
    best.truncate(BEST_KEPT);
}
