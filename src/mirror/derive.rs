//! What follows from stored objects without being stored: statuses, summaries, counters. Pure.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use crate::model::allocation::Allocation;
use crate::model::allocation::ClientStatus;
use crate::model::deployment::Deployment;
use crate::model::evaluation::EvalStatus;
use crate::model::evaluation::Evaluation;
use crate::model::id::AllocId;
use crate::model::id::DEFAULT_NAMESPACE;
use crate::model::id::DeploymentId;
use crate::model::id::JobId;
use crate::model::job::Job;
use crate::model::job::JobType;
use crate::store::Revision;

use super::state::AllocEntry;
use super::state::State;
use super::state::Stored;

/// Nomad's three job statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    Pending,
    Running,
    Dead,
}

impl JobState {
    /// The word used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Dead => "dead",
        }
    }
}

/// The pools that every cluster has, with their descriptions.
pub const BUILT_IN_POOLS: [(&str, &str); 2] =
    [("all", "Node pool with all nodes in the cluster."), ("default", "Default node pool.")];

/// What a job names that the cluster does not have, in words for its user: its namespace, its node pool.
pub fn missing_homes(state: &State, job: &Job) -> Vec<String> {
    let mut problems = Vec::new();
    if job.namespace != DEFAULT_NAMESPACE && !state.namespaces.contains_key(&job.namespace) {
        problems.push(format!("job {:?} is in nonexistent namespace {:?}", job.id, job.namespace));
    }
    let is_built_in = BUILT_IN_POOLS.iter().any(|(name, _)| *name == job.node_pool);
    if !is_built_in && !state.pools.contains_key(&job.node_pool) {
        problems.push(format!("job {:?} is in nonexistent node pool {:?}", job.id, job.node_pool));
    }
    problems
}

/// The status of a job. First rule that fits: system jobs and templates follow `Stop`; a living allocation or an
/// active deployment means running; an open evaluation pending; a finished one, or a stop, dead.
pub fn job_state(state: &State, id: &JobId, job: &Job) -> JobState {
    if job.job_type() == JobType::System || job.is_template() {
        return if job.stop { JobState::Dead } else { JobState::Running };
    }
    if state.allocs_of_job(id).any(|(_, entry)| !entry.status().is_terminal()) {
        return JobState::Running;
    }
    let active = |deployment: &Stored<Deployment>| deployment.value.status.is_active();
    if !job.stop && state.deployments.get(id).is_some_and(|all| all.values().any(active)) {
        return JobState::Running;
    }
    let evaluations = state.evaluations.get(id);
    if evaluations.is_some_and(|all| all.values().any(|eval| !eval.value.status.is_terminal())) {
        return JobState::Pending;
    }
    if job.stop || evaluations.is_some_and(|all| !all.is_empty()) {
        JobState::Dead
    } else {
        JobState::Pending
    }
}

/// Key in the value of a version by which a user declared it stable or not. It stands in the copy among the older
/// versions even for the current one, so that neither its specification nor its index changes.
pub const DECLARED_STABLE: &str = "DeclaredStable";

/// Herder's own field of a job as the API shows it: why the newest value at its key, put there past the API, is
/// not being run. Never stored in a job.
pub const REFUSED: &str = "Refused";

/// True once a version was proven healthy: by a user's word, else by its deployment.
pub fn is_stable(state: &State, id: &JobId, version: u64) -> bool {
    let copy = state.versions.get(id).and_then(|versions| versions.get(&version));
    if let Some(said) = copy.and_then(|copy| copy.value.unknown.get(DECLARED_STABLE)?.as_bool()) {
        return said;
    }
    state.statuses.get(id).is_some_and(|status| status.value.stable_versions.contains(&version))
}

/// Name of the intent by which a user sets the health of a deployment's allocations:
/// `{"Healthy": [id], "Unhealthy": [id]}`, kept as long as the deployment.
pub fn health_intent(deployment: DeploymentId) -> String {
    format!("deployment/{deployment}/health")
}

/// Name of the intent by which a user moves one allocation: `{"NoShutdownDelay": bool}`.
pub fn stop_intent(id: AllocId) -> String {
    format!("stop-alloc/{id}")
}

/// Name of the intent by which a user stops a job, with this version, without the shutdown delays of its tasks.
pub fn hurry_intent(version: u64) -> String {
    format!("no-shutdown-delay/{version}")
}

/// Name of the intent by which a user has failed allocations replaced without waiting.
pub const FORCE_RESCHEDULE: &str = "force-reschedule";

/// What a user said of an allocation's health within its deployment.
pub fn declared_health(state: &State, desired: &Allocation) -> Option<bool> {
    let intents = state.intents.get(&desired.job())?;
    let said = intents.get(&health_intent(desired.deployment_id?))?;
    let id = desired.id.to_string();
    let names = |list: &str| {
        let ids = said.value.get(list).and_then(Value::as_array);
        ids.is_some_and(|ids| ids.iter().any(|named| named.as_str() == Some(&id)))
    };
    if names("Unhealthy") { Some(false) } else { names("Healthy").then_some(true) }
}

/// Why the newest value at a job's key is not being run, if it was put there straight and refused.
pub fn refused<'a>(state: &'a State, id: &JobId) -> Option<&'a str> {
    let raw = state.jobs.get(id)?.raw.as_ref()?;
    let status = &state.statuses.get(id)?.value;
    (status.refused_revision == raw.modified && !status.refused.is_empty()).then_some(&*status.refused)
}

/// Health of an allocation within its deployment: what a user said, else what its agent reports. Absent while
/// undecided.
pub fn alloc_health(state: &State, entry: &AllocEntry) -> Option<bool> {
    let desired = entry.desired.as_ref()?;
    if let Some(said) = declared_health(state, &desired.value) {
        return Some(said);
    }
    let verdict = entry.report.as_ref()?.value.deployment_status.as_ref()?;
    // An allocation that joined a newer deployment is judged anew there.
    let is_about_it = verdict.deployment_id.is_none() || verdict.deployment_id == desired.value.deployment_id;
    if is_about_it { verdict.healthy } else { None }
}

/// Counters of one group in a deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RolloutCounts {
    pub placed: u64,
    pub healthy: u64,
    pub unhealthy: u64,
}

/// Counts the allocations of a deployment per group. A failed one counts as unhealthy even when its agent had no
/// time to say so.
pub fn deployment_counts(state: &State, deployment: &Deployment) -> BTreeMap<String, RolloutCounts> {
    let mut counts: BTreeMap<String, RolloutCounts> = BTreeMap::new();
    for (_, entry) in state.allocs_of_job(&deployment.job()) {
        let Some(desired) = &entry.desired else { continue };
        if desired.value.deployment_id != Some(deployment.id) {
            continue;
        }
        let group = counts.entry(desired.value.task_group.clone()).or_default();
        group.placed += 1;
        match alloc_health(state, entry) {
            Some(true) => group.healthy += 1,
            Some(false) => group.unhealthy += 1,
            None if entry.status() == ClientStatus::Failed => group.unhealthy += 1,
            None => {}
        }
    }
    counts
}

/// Allocations of one group by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GroupSummary {
    pub queued: u64,
    pub complete: u64,
    pub failed: u64,
    pub running: u64,
    pub starting: u64,
    pub lost: u64,
    pub unknown: u64,
}

/// Summary of every group of a job: allocations of this incarnation by status, and those still to be placed.
pub fn job_summary(state: &State, id: &JobId, job: &Stored<Job>) -> BTreeMap<String, GroupSummary> {
    let mut groups: BTreeMap<String, GroupSummary> =
        job.value.task_groups.iter().map(|group| (group.name.clone(), GroupSummary::default())).collect();
    let incarnation = u64::try_from(job.created).unwrap_or(0);
    for (_, entry) in state.allocs_of_job(id) {
        let Some(desired) = &entry.desired else { continue };
        if desired.value.job_create_index != incarnation {
            continue;
        }
        let group = groups.entry(desired.value.task_group.clone()).or_default();
        match entry.status() {
            ClientStatus::Pending => group.starting += 1,
            ClientStatus::Running => group.running += 1,
            ClientStatus::Complete => group.complete += 1,
            ClientStatus::Failed => group.failed += 1,
            ClientStatus::Lost => group.lost += 1,
            ClientStatus::Unknown => group.unknown += 1,
        }
    }
    if let Some(evaluation) = telling_evaluation(state, id).filter(|_| !job.value.stop) {
        for (name, queued) in &evaluation.queued_allocations {
            groups.entry(name.clone()).or_default().queued = *queued;
        }
    }
    groups
}

/// The evaluation that tells what is still to be placed: the blocked one, else the newest that was carried out.
pub fn telling_evaluation<'a>(state: &'a State, id: &JobId) -> Option<&'a Evaluation> {
    let all = state.evaluations.get(id)?;
    let newest = |wanted: EvalStatus| {
        all.values()
            .filter(|eval| eval.value.status == wanted)
            .max_by_key(|eval| (eval.modified, eval.value.id))
    };
    let found = newest(EvalStatus::Blocked).or_else(|| newest(EvalStatus::Complete))?;
    Some(&found.value)
}

/// The children of a job: `<job>/…` with it as parent.
pub fn children<'a>(state: &'a State, id: &JobId) -> impl Iterator<Item = (&'a JobId, Stored<Job>)> {
    let prefix = format!("{}/", id.id);
    let parent = id.clone();
    let from = JobId::new(parent.namespace.clone(), prefix.as_str());
    let ours = {
        let parent = parent.clone();
        move |child: &JobId| child.namespace == parent.namespace && child.id.starts_with(&prefix)
    };
    state
        .jobs
        .range(from..)
        .map(|(child, _)| child)
        .take_while(move |child| ours(child))
        .filter_map(|child| Some((child, state.job(child)?)))
        .filter(move |(_, job)| *job.value.parent_id == *parent.id)
}

/// How many children of a job are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ChildrenSummary {
    pub pending: u64,
    pub running: u64,
    pub dead: u64,
}

/// Counts the children of a job by state.
pub fn children_summary(state: &State, id: &JobId) -> ChildrenSummary {
    let mut summary = ChildrenSummary::default();
    for (child, job) in children(state, id) {
        match job_state(state, child, &job.value) {
            JobState::Pending => summary.pending += 1,
            JobState::Running => summary.running += 1,
            JobState::Dead => summary.dead += 1,
        }
    }
    summary
}

/// Newest change of anything that a job's status or summary is made of, as far as it still exists.
pub fn newest_change(state: &State, id: &JobId) -> Revision {
    let job = state.job(id).map_or(0, |job| job.modified);
    let allocs = state.allocs_of_job(id).map(|(_, entry)| entry.modified()).max().unwrap_or(0);
    let evals = state.evaluations.get(id).into_iter().flat_map(BTreeMap::values);
    let deployments = state.deployments.get(id).into_iter().flat_map(BTreeMap::values);
    let evals = evals.map(|eval| eval.modified).max().unwrap_or(0);
    let deployments = deployments.map(|deployment| deployment.modified).max().unwrap_or(0);
    job.max(allocs).max(evals).max(deployments)
}

/// The allocations that were evicted in favour of this one. They were on the same node.
pub fn preempted_by(state: &State, id: AllocId) -> BTreeSet<AllocId> {
    let Some(node) = state.alloc_nodes.get(&id) else { return BTreeSet::new() };
    let victim = |entry: &AllocEntry| {
        entry.desired.as_ref().is_some_and(|desired| desired.value.preempted_by == Some(id))
    };
    state.allocs_of_node(*node).filter(|(_, entry)| victim(entry)).map(|(victim, _)| victim).collect()
}
