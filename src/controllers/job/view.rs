//! What a pass over one job looks at: cheap handles on one consistent state of the mirror.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use crate::mirror::derive;
use crate::mirror::derive::hurry_intent;
use crate::mirror::derive::stop_intent;
use crate::mirror::state::AllocEntry;
use crate::mirror::state::State;
use crate::mirror::state::Stored;
use crate::model::allocation::Allocation;
use crate::model::allocation::AllocationReport;
use crate::model::allocation::ClientStatus;
use crate::model::allocation::client_status;
use crate::model::deployment::Deployment;
use crate::model::evaluation::EvalStatus;
use crate::model::evaluation::Evaluation;
use crate::model::id::AllocId;
use crate::model::id::JobId;
use crate::model::id::NodeId;
use crate::model::job::Job;
use crate::model::job::JobStatus;
use crate::model::node::NodeState;
use crate::store::Revision;

/// Can the allocation's node be relied on?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeCondition {
    Up,
    /// The operator wants its work elsewhere.
    Draining,
    /// Down, or forgotten.
    Gone,
}

/// One allocation as the plan sees it.
#[derive(Clone, Debug)]
pub struct Alloc {
    pub desired: Arc<Allocation>,
    pub report: Option<Arc<AllocationReport>>,
    pub status: ClientStatus,
    /// The job version that it was placed for, if still known.
    pub job: Option<Arc<Job>>,
    pub node: NodeCondition,
    /// What a user said of its health in its present deployment.
    pub declared: Option<bool>,
}

impl Alloc {
    pub fn id(&self) -> AllocId {
        self.desired.id
    }

    /// Its health in its present deployment: a user's word, else the verdict of its agent.
    pub fn healthy(&self) -> Option<bool> {
        if self.declared.is_some() {
            return self.declared;
        }
        let verdict = self.report.as_ref()?.deployment_status.as_ref()?;
        verdict.healthy.filter(|_| verdict.deployment_id == self.desired.deployment_id)
    }

    /// The agent refused it on arrival.
    pub fn was_rejected(&self) -> bool {
        self.report.as_ref().is_some_and(|report| !report.rejected.is_empty())
    }
}

/// Everything about one job, as of `revision`.
#[derive(Clone, Debug)]
pub struct View {
    pub id: JobId,
    pub revision: Revision,
    /// Absent when the job's key is gone.
    pub job: Option<Stored<Job>>,
    /// Those with a decision, by id.
    pub allocs: Vec<Alloc>,
    /// All deployments that are not finished, and the newest one of the current version.
    pub deployments: Vec<Stored<Deployment>>,
    /// Pending and blocked evaluations, oldest first.
    pub evaluations: Vec<Stored<Evaluation>>,
    /// What users ordered and nobody carried out yet. Health that they declared is not among these: it counts for
    /// as long as its deployment exists, see [`Alloc::declared`].
    pub intents: BTreeMap<String, Stored<Value>>,
    pub status: Option<Stored<JobStatus>>,
    /// The copy of the current version among the older ones: what users said of it stands there.
    pub copy: Option<Arc<Job>>,
    /// Versions that were proven or declared healthy, oldest first.
    pub stable: Vec<Arc<Job>>,
    /// Nodes that new work may go to; filled for jobs that run on every node.
    pub ready_nodes: Vec<NodeId>,
}

impl View {
    /// Reads the job's part of the state.
    pub fn of(state: &State, id: &JobId) -> Self {
        let job = state.job(id);
        let mut jobs: BTreeMap<u64, Option<Arc<Job>>> = BTreeMap::new();
        let mut allocs = Vec::new();
        for (_, entry) in state.allocs_of_job(id) {
            let Some(desired) = &entry.desired else { continue };
            let version = desired.value.job_version;
            let own = jobs
                .entry(version)
                .or_insert_with(|| state.job_version(id, version).map(|job| job.value))
                .clone();
            let incarnation = job.as_ref().map_or(0, |job| job.created as u64);
            let same_incarnation = desired.value.job_create_index == incarnation;
            allocs.push(alloc_of(state, entry, &desired.value, own.filter(|_| same_incarnation)));
        }
        let older = state.versions.get(id).into_iter().flat_map(BTreeMap::keys).copied();
        let versions: BTreeSet<u64> = older.chain(job.as_ref().map(|job| job.value.version)).collect();
        let stable = versions
            .into_iter()
            .filter(|version| derive::is_stable(state, id, *version))
            .filter_map(|version| state.job_version(id, version).map(|job| job.value))
            .collect();
        let copy = job.as_ref().and_then(|job| state.versions.get(id)?.get(&job.value.version));
        Self {
            id: id.clone(),
            revision: state.revision,
            deployments: deployments_of(state, id, job.as_ref()),
            evaluations: evaluations_of(state, id),
            intents: intents_of(state, id),
            copy: copy.map(|copy| Arc::clone(&copy.value)),
            allocs,
            status: state.statuses.get(id).cloned(),
            stable,
            ready_nodes: job.as_ref().map_or_else(Vec::new, |job| ready_nodes(state, &job.value)),
            job,
        }
    }

    /// Is this allocation to be stopped without its tasks' shutdown delay, by a user's order?
    pub fn hurries(&self, alloc: AllocId) -> bool {
        let stop = self.intents.get(&stop_intent(alloc));
        let one = stop.and_then(|order| order.value.get("NoShutdownDelay")?.as_bool()).unwrap_or(false);
        let stopped = self.job.as_ref().filter(|job| job.value.stop);
        let all = stopped.is_some_and(|job| self.intents.contains_key(&hurry_intent(job.value.version)));
        one || all
    }

    /// The job, if work of it is wanted.
    pub fn running_job(&self) -> Option<&Stored<Job>> {
        self.job.as_ref().filter(|job| !job.value.stop && !job.value.is_template())
    }
}

fn ready_nodes(state: &State, job: &Job) -> Vec<NodeId> {
    if !job.job_type().is_on_every_node() || job.stop || job.is_template() {
        return Vec::new();
    }
    state.nodes.iter().filter(|(_, node)| node.is_schedulable()).map(|(id, _)| *id).collect()
}

fn alloc_of(state: &State, entry: &AllocEntry, desired: &Arc<Allocation>, job: Option<Arc<Job>>) -> Alloc {
    let report = entry.report.as_ref().map(|report| Arc::clone(&report.value));
    Alloc {
        desired: Arc::clone(desired),
        status: client_status(desired, report.as_deref()),
        report,
        job,
        node: condition_of(state, desired.node_id),
        declared: derive::declared_health(state, desired),
    }
}

fn condition_of(state: &State, node: NodeId) -> NodeCondition {
    match state.nodes.get(&node) {
        None => NodeCondition::Gone,
        Some(entry) if entry.state() == NodeState::Down => NodeCondition::Gone,
        Some(entry) if entry.is_draining() => NodeCondition::Draining,
        Some(_) => NodeCondition::Up,
    }
}

fn intents_of(state: &State, id: &JobId) -> BTreeMap<String, Stored<Value>> {
    let mut intents = state.intents.get(id).cloned().unwrap_or_default();
    if !intents.is_empty() {
        for deployment in state.deployments.get(id).into_iter().flat_map(BTreeMap::keys) {
            intents.remove(&derive::health_intent(*deployment));
        }
    }
    intents
}

fn deployments_of(state: &State, id: &JobId, job: Option<&Stored<Job>>) -> Vec<Stored<Deployment>> {
    let Some(all) = state.deployments.get(id) else { return Vec::new() };
    let current = job.and_then(|job| {
        all.values()
            .filter(|deployment| {
                deployment.value.job_version == job.value.version
                    && deployment.value.job_create_index == job.created as u64
            })
            .max_by_key(|deployment| (deployment.created, deployment.value.id))
    });
    let mut chosen: Vec<Stored<Deployment>> = all
        .values()
        .filter(|deployment| deployment.value.status.is_active())
        .chain(current.filter(|deployment| !deployment.value.status.is_active()))
        .cloned()
        .collect();
    chosen.sort_by_key(|deployment| (deployment.created, deployment.value.id));
    chosen
}

fn evaluations_of(state: &State, id: &JobId) -> Vec<Stored<Evaluation>> {
    let Some(all) = state.evaluations.get(id) else { return Vec::new() };
    let open = |status: EvalStatus| matches!(status, EvalStatus::Pending | EvalStatus::Blocked);
    let mut chosen: Vec<Stored<Evaluation>> =
        all.values().filter(|evaluation| open(evaluation.value.status)).cloned().collect();
    chosen.sort_by_key(|evaluation| (evaluation.created, evaluation.value.id));
    chosen
}
