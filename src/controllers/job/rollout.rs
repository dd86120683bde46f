//! Deployments: creation, pace, deadlines, verdict. Pure.

use std::collections::BTreeMap;

use crate::mirror::state::Stored;
use crate::model::allocation::ClientStatus;
use crate::model::deployment::Deployment;
use crate::model::deployment::DeploymentStatus;
use crate::model::deployment::GroupRollout;
use crate::model::group::TaskGroup;
use crate::model::group::UpdateStrategy;
use crate::model::id::DeploymentId;
use crate::model::job::Job;
use crate::model::job::JobType;
use crate::model::time::Time;

use super::plan::Gate;
use super::plan::GroupPlan;
use super::reschedule;
use super::reschedule::Reschedule;
use super::view::Alloc;
use super::view::View;

/// Nomad's words for where a deployment stands.
pub mod description {
    pub const RUNNING: &str = "Deployment is running";
    pub const PAUSED: &str = "Deployment is paused";
    pub const SUCCESSFUL: &str = "Deployment completed successfully";
    pub const STOPPED_JOB: &str = "Cancelled because job is stopped";
    pub const NEWER_JOB: &str = "Cancelled due to newer version of job";
    pub const UNHEALTHY: &str = "Failed due to unhealthy allocations";
    pub const PROGRESS: &str = "Failed due to progress deadline";
    pub const BY_USER: &str = "Deployment marked as failed";
}

/// What a pass does to deployments.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rollout {
    /// Deployments to write, changed.
    pub changed: Vec<Deployment>,
    /// A deployment to create; its id is drawn later.
    pub create: Option<Deployment>,
    /// The deployment that new and updated allocations of the current version join.
    pub current: Option<DeploymentId>,
    /// This version was proven healthy.
    pub stable: Option<u64>,
    /// An older version to go back to.
    pub revert_to: Option<Box<Job>>,
    /// When a deadline passes.
    pub next: Option<Time>,
}

/// Every active deployment of a stopped job ends.
pub fn when_stopped(view: &View) -> Rollout {
    let ended = |deployment: &Stored<Deployment>| {
        ended(&deployment.value, DeploymentStatus::Cancelled, description::STOPPED_JOB)
    };
    let active = view.deployments.iter().filter(|deployment| deployment.value.status.is_active());
    Rollout { changed: active.map(ended).collect(), ..Rollout::default() }
}

fn ended(deployment: &Deployment, status: DeploymentStatus, description: &str) -> Deployment {
    Deployment { status, status_description: description.to_owned(), ..deployment.clone() }
}

fn current<'a>(view: &'a View, job: &Stored<Job>) -> Option<&'a Stored<Deployment>> {
    let mine = |deployment: &&Stored<Deployment>| {
        deployment.value.job_version == job.value.version
            && deployment.value.job_create_index == job.created as u64
    };
    view.deployments.iter().rfind(mine)
}

/// What users ordered about a deployment: `deployment/<id>/<word>`.
fn ordered(view: &View, deployment: &Deployment, word: &str) -> bool {
    view.intents.contains_key(&format!("deployment/{}/{word}", deployment.id))
}

/// May this pass make new work?
pub fn gate(view: &View, job: &Stored<Job>) -> Gate {
    let Some(deployment) = current(view, job) else { return Gate { open: true, failed: false } };
    let deployment = &deployment.value;
    let failed = deployment.status == DeploymentStatus::Failed || ordered(view, deployment, "fail");
    let paused = (deployment.status == DeploymentStatus::Paused || ordered(view, deployment, "pause"))
        && !ordered(view, deployment, "resume");
    Gate { open: !failed && !paused, failed }
}

/// How many allocations of the group may be replaced by the new version in this pass: `max_parallel` less those of
/// the rollout whose health is not decided yet, and none while one of them is unhealthy.
pub fn parallel_updates<'a>(
    view: &View,
    group: &TaskGroup,
    gate: Gate,
    allocs: impl Iterator<Item = &'a Alloc>,
) -> usize {
    let Some(strategy) = paced(group) else { return if gate.open { usize::MAX } else { 0 } };
    if !gate.open {
        return 0;
    }
    let parallel = usize::try_from(strategy.max_parallel).unwrap_or(0);
    let active: Vec<DeploymentId> = view
        .running_job()
        .and_then(|job| current(view, job))
        .filter(|deployment| deployment.value.status.is_active())
        .map(|deployment| deployment.value.id)
        .into_iter()
        .collect();
    let mut undecided = 0;
    for alloc in allocs.filter(|alloc| alloc.desired.deployment_id.is_some_and(|id| active.contains(&id))) {
        match alloc.healthy() {
            Some(true) => {}
            Some(false) => return 0,
            None => undecided += 1,
        }
    }
    parallel.saturating_sub(undecided)
}

/// The update strategy, if it paces updates at all.
fn paced(group: &TaskGroup) -> Option<&UpdateStrategy> {
    group.update.as_ref().filter(|update| update.max_parallel > 0)
}

/// Moves the current deployment on, cancels old ones, creates one if the pass starts a rollout.
pub fn plan(view: &View, job: &Stored<Job>, groups: &BTreeMap<String, GroupPlan>, now: Time) -> Rollout {
    let mut rollout = Rollout::default();
    let current = current(view, job);
    for old in view.deployments.iter().filter(|deployment| deployment.value.status.is_active()) {
        if current.is_none_or(|current| current.value.id != old.value.id) {
            rollout.changed.push(ended(&old.value, DeploymentStatus::Cancelled, description::NEWER_JOB));
        }
    }
    match current {
        Some(current) if current.value.status.is_active() => {
            rollout.current = Some(current.value.id);
            advance(view, job, &current.value, groups, now, &mut rollout);
        }
        Some(_) => {}
        None => rollout.create = create(view, job, groups, now),
    }
    rollout
}

fn create(
    view: &View,
    job: &Stored<Job>,
    groups: &BTreeMap<String, GroupPlan>,
    now: Time,
) -> Option<Deployment> {
    if job.value.job_type() != JobType::Service {
        return None;
    }
    let mut states = BTreeMap::new();
    let mut starts = false;
    for group in &job.value.task_groups {
        let Some(strategy) = paced(group) else { continue };
        let Some(plan) = groups.get(&group.name) else { continue };
        let updating = plan.updates_left || plan.updates.destructive_update > 0 || !plan.in_place.is_empty();
        let has_current = view.allocs.iter().any(|alloc| {
            alloc.desired.task_group == group.name
                && alloc.desired.job_version == job.value.version
                && alloc.desired.job_create_index == job.created as u64
        });
        starts |= updating || (!plan.place.is_empty() && !has_current);
        if group.count() > 0 {
            states.insert(
                group.name.clone(),
                GroupRollout {
                    auto_revert: strategy.auto_revert,
                    auto_promote: strategy.auto_promote,
                    progress_deadline: strategy.progress_deadline,
                    desired_total: group.count() as u64,
                    ..GroupRollout::default()
                },
            );
        }
    }
    (starts && !states.is_empty()).then(|| Deployment {
        namespace: view.id.namespace.to_string(),
        job_id: view.id.id.to_string(),
        job_version: job.value.version,
        job_create_index: job.created as u64,
        job_modify_index: job.modified as u64,
        task_groups: states,
        status: DeploymentStatus::Running,
        status_description: description::RUNNING.to_owned(),
        eval_priority: job.value.priority,
        create_time: now.0,
        modify_time: now.0,
        ..Deployment::default()
    })
}

/// How a group's part of a rollout stands, derived from its allocations.
struct Progress {
    placed: u64,
    healthy: u64,
    /// An allocation is unhealthy and nothing will replace it.
    hopeless: bool,
    unhealthy: bool,
}

fn progress(view: &View, job: &Job, deployment: &Deployment, group: &str, now: Time) -> Progress {
    let policy = job.group(group).and_then(|group| group.reschedule_policy.as_ref());
    let mut progress = Progress { placed: 0, healthy: 0, hopeless: false, unhealthy: false };
    let members = view.allocs.iter().filter(|alloc| {
        alloc.desired.deployment_id == Some(deployment.id)
            && alloc.desired.task_group == group
            && alloc.desired.is_wanted()
    });
    for alloc in members {
        progress.placed += 1;
        let failed = alloc.status == ClientStatus::Failed;
        if alloc.healthy() == Some(true) && !alloc.status.is_terminal() {
            progress.healthy += 1;
        } else if failed || alloc.healthy() == Some(false) {
            progress.unhealthy |= !alloc.was_rejected();
            let decision = reschedule::decide(policy, &alloc.desired, alloc.report.as_deref(), now);
            // What a user calls unhealthy is not waited for.
            progress.hopeless |= (failed && decision == Reschedule::Never) || alloc.declared == Some(false);
        }
    }
    progress
}

fn advance(
    view: &View,
    job: &Stored<Job>,
    deployment: &Deployment,
    groups: &BTreeMap<String, GroupPlan>,
    now: Time,
    rollout: &mut Rollout,
) {
    let mut moved = deployment.clone();
    let mut all_healthy = true;
    let mut failure: Option<(&str, bool)> = None;
    for (name, state) in &mut moved.task_groups {
        let progress = progress(view, &job.value, deployment, name, now);
        let placing = groups.get(name).is_some_and(|plan| !plan.place.is_empty());
        move_deadline(state, &progress, placing, now);
        all_healthy &= progress.healthy >= state.desired_total;
        let immediate = state.progress_deadline.0 == 0 && progress.unhealthy;
        if progress.hopeless || immediate {
            failure = failure.or(Some((description::UNHEALTHY, state.auto_revert)));
        } else if progress.healthy < state.desired_total && !state.require_progress_by.is_never() {
            if state.require_progress_by <= now {
                failure = failure.or(Some((description::PROGRESS, state.auto_revert)));
            } else {
                rollout.next = rollout.next.into_iter().chain([state.require_progress_by]).min();
            }
        }
    }
    if ordered(view, deployment, "fail") {
        let revert = moved.task_groups.values().any(|state| state.auto_revert);
        failure = Some((description::BY_USER, revert));
    }
    let quiet =
        groups.values().all(|plan| plan.place.is_empty() && !plan.updates_left && plan.in_place.is_empty());
    if let Some((text, revert)) = failure {
        moved.status = DeploymentStatus::Failed;
        moved.status_description = text.to_owned();
        if revert {
            revert_to_stable(view, &job.value, &mut moved, rollout);
        }
        rollout.next = None;
    } else if all_healthy && quiet && moved.status == DeploymentStatus::Running {
        moved.status = DeploymentStatus::Successful;
        moved.status_description = description::SUCCESSFUL.to_owned();
        rollout.stable = Some(deployment.job_version);
        rollout.next = None;
    } else if ordered(view, deployment, "resume") {
        moved.status = DeploymentStatus::Running;
        moved.status_description = description::RUNNING.to_owned();
    } else if ordered(view, deployment, "pause") {
        moved.status = DeploymentStatus::Paused;
        moved.status_description = description::PAUSED.to_owned();
    }
    if moved != *deployment {
        moved.modify_time = now.0;
        rollout.changed.push(moved);
    }
}

/// Every further healthy allocation buys the group another `progress_deadline`; the clock starts with the first
/// placement.
fn move_deadline(state: &mut GroupRollout, progress: &Progress, placing: bool, now: Time) {
    if state.progress_deadline.0 == 0 {
        return;
    }
    let starts = state.require_progress_by.is_never() && (placing || progress.placed > 0);
    if starts || progress.healthy > state.healthy_seen {
        state.require_progress_by = now + state.progress_deadline;
        state.healthy_seen = state.healthy_seen.max(progress.healthy);
    }
}

fn revert_to_stable(view: &View, job: &Job, failed: &mut Deployment, rollout: &mut Rollout) {
    let text = &mut failed.status_description;
    match view.stable.iter().rfind(|stable| stable.version != job.version && !stable.stop) {
        None => text.push_str(" - no stable job version to auto revert to"),
        Some(stable) if stable.same_spec(job) => {
            text.push_str(&format!(
                " - not rolling back to stable job version {} as current job has same specification",
                stable.version
            ));
        }
        Some(stable) => {
            text.push_str(&format!(" - rolling back to job version {}", stable.version));
            rollout.revert_to = Some(Box::new(Job::clone(stable)));
        }
    }
}
