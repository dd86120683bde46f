//! The scheduler's questions and answers: where to put allocations, and whether one may stay where it is.

use crate::model::allocation::AllocMetric;
use crate::model::allocation::NodeScore;
use crate::model::group::TaskGroup;
use crate::model::id::AllocId;
use crate::model::id::JobId;
use crate::model::id::NodeId;
use crate::model::job::Job;
use crate::model::resources::AllocatedResources;

use super::cluster::Cluster;
use super::feasible::Requirements;
use super::feasible::is_false;
use super::property::Property;
use super::property::Scope;
use super::property::weight_of;
use super::round::Round;
use super::score::Algorithm;
use super::unfit::Unfit;

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
pub(super) fn distinct_scopes(job: &Job, group: &TaskGroup) -> Vec<Scope> {
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

pub(super) fn properties(job: &Job, group: &TaskGroup) -> Vec<Property> {
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
