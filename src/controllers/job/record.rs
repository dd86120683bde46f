//! Evaluations: the trail of what passes saw and did. Pure.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::mirror::derive::DECLARED_STABLE;
use crate::mirror::state::Stored;
use crate::model::evaluation::DesiredUpdates;
use crate::model::evaluation::EvalStatus;
use crate::model::evaluation::Evaluation;
use crate::model::evaluation::trigger;
use crate::model::id::DeploymentId;
use crate::model::id::EvalId;
use crate::model::job::Job;
use crate::model::time::Time;

use super::decide::Ids;
use super::decide::Outcome;
use super::plan::Plan;
use super::view::View;

const BLOCKED: &str = "created to place remaining allocations";
const DELAYED: &str = "created for delayed rescheduling";
const SUPERSEDED: &str = "canceled after more recent eval was processed";

/// What is recorded.
pub struct Facts<'a> {
    pub view: &'a View,
    pub plan: &'a Plan,
    pub outcome: &'a Outcome,
    /// The evaluation that this pass goes by.
    pub eval: EvalId,
    pub deployment: Option<DeploymentId>,
    /// The pass changes something.
    pub acts: bool,
    pub now: Time,
}

/// A pending evaluation for a job that was just written.
pub fn registered(job: &Job, id: EvalId, now: Time) -> Evaluation {
    Evaluation {
        id,
        namespace: job.job_id().namespace.to_string(),
        job_id: job.id.clone(),
        priority: job.priority,
        kind: job.kind.clone(),
        triggered_by: trigger::JOB_REGISTER.to_owned(),
        status: EvalStatus::Pending,
        create_time: now.0,
        modify_time: now.0,
        ..Evaluation::default()
    }
}

/// A job's value as it joins the older versions: with the indexes that its key had, and what users said of it in
/// the copy that may stand there already.
pub fn kept(current: &Stored<Job>, copy: Option<&Job>) -> Job {
    let mut kept = Job::clone(&current.value);
    if let Some(copy) = copy.filter(|copy| copy.version == kept.version) {
        kept.version_tag.clone_from(&copy.version_tag);
        let declared = copy.unknown.get(DECLARED_STABLE).cloned();
        kept.unknown.extend(declared.map(|said| (DECLARED_STABLE.to_owned(), said)));
    }
    kept.create_index = u64::try_from(current.created).unwrap_or(0);
    kept.job_modify_index = u64::try_from(current.modified).unwrap_or(0);
    kept.seal();
    kept
}

fn is_due(evaluation: &Stored<Evaluation>, now: Time) -> bool {
    evaluation.value.status == EvalStatus::Pending
        && (evaluation.value.wait_until.is_never() || evaluation.value.wait_until <= now)
}

fn blocked(view: &View) -> Option<&Stored<Evaluation>> {
    view.evaluations.iter().rfind(|evaluation| evaluation.value.status == EvalStatus::Blocked)
}

/// The evaluation that a pass goes by: the newest that is due, else the blocked one, else a new one.
pub fn choose(view: &View, _plan: &Plan, now: Time, ids: Ids<'_>) -> EvalId {
    let due = view.evaluations.iter().rfind(|evaluation| is_due(evaluation, now));
    due.or_else(|| blocked(view)).map_or_else(|| EvalId::from_random(ids()), |evaluation| evaluation.value.id)
}

/// The evaluations to be written, changed ones only.
pub fn evaluations(facts: &Facts<'_>, ids: Ids<'_>) -> Vec<Evaluation> {
    let mut written = Vec::new();
    let blocked_id = keep_blocked(facts, ids, &mut written);
    let mut went_by_a_record = false;
    for evaluation in facts.view.evaluations.iter().filter(|evaluation| is_due(evaluation, facts.now)) {
        if evaluation.value.id == facts.eval {
            went_by_a_record = true;
            written.push(completed(facts, &evaluation.value, blocked_id));
        } else {
            written.push(Evaluation {
                status: EvalStatus::Canceled,
                status_description: SUPERSEDED.to_owned(),
                modify_time: facts.now.0,
                ..Evaluation::clone(&evaluation.value)
            });
        }
    }
    let went_by_blocked = blocked(facts.view).is_some_and(|evaluation| evaluation.value.id == facts.eval);
    if facts.acts && !went_by_a_record && !went_by_blocked {
        written.push(completed(facts, &own_record(facts), blocked_id));
    }
    keep_delayed(facts, ids, &mut written);
    written
}

/// The record of a pass that nobody asked for: a node was lost, an allocation failed, a rollout went on.
fn own_record(facts: &Facts<'_>) -> Evaluation {
    let causes: BTreeSet<&str> =
        facts.plan.groups.values().flat_map(|group| group.causes.iter().copied()).collect();
    let first = [
        trigger::NODE_UPDATE,
        trigger::ALLOC_FAILURE,
        trigger::ALLOC_STOP,
        trigger::NODE_DRAIN,
        trigger::DEPLOYMENT_WATCHER,
        trigger::JOB_DEREGISTER,
        trigger::JOB_REGISTER,
    ];
    let cause = first.into_iter().find(|cause| causes.contains(cause)).unwrap_or(trigger::DEPLOYMENT_WATCHER);
    let mut record = blank(facts, facts.eval);
    record.triggered_by = cause.to_owned();
    record
}

fn blank(facts: &Facts<'_>, id: EvalId) -> Evaluation {
    let job = facts.view.job.as_ref().map(|job| &job.value);
    Evaluation {
        id,
        namespace: facts.view.id.namespace.to_string(),
        job_id: facts.view.id.id.to_string(),
        priority: job.map_or(50, |job| job.priority),
        kind: job.map_or_else(|| "service".to_owned(), |job| job.kind.clone()),
        create_time: facts.now.0,
        modify_time: facts.now.0,
        ..Evaluation::default()
    }
}

fn completed(facts: &Facts<'_>, evaluation: &Evaluation, blocked_id: Option<EvalId>) -> Evaluation {
    let busy = |updates: &DesiredUpdates| *updates != DesiredUpdates::default();
    let updates = facts.outcome.updates.iter().filter(|(_, updates)| busy(updates));
    let mut queued: BTreeMap<String, u64> =
        facts.outcome.updates.keys().map(|name| (name.clone(), 0)).collect();
    queued.extend(facts.outcome.queued.clone());
    Evaluation {
        status: EvalStatus::Complete,
        deployment_id: facts.deployment,
        blocked_eval: blocked_id,
        failed_groups: facts.outcome.failed.clone(),
        placed_groups: facts.outcome.placed.clone(),
        queued_allocations: queued,
        desired_updates: updates.map(|(name, updates)| (name.clone(), updates.clone())).collect(),
        snapshot_index: facts.view.revision as u64,
        modify_time: facts.now.0,
        ..evaluation.clone()
    }
}

/// One blocked evaluation per job says what cannot be placed, updated in place. Returns its id if there is one.
fn keep_blocked(facts: &Facts<'_>, ids: Ids<'_>, written: &mut Vec<Evaluation>) -> Option<EvalId> {
    let existing = blocked(facts.view).map(|evaluation| &evaluation.value);
    if facts.outcome.failed.is_empty() {
        let existing = existing?;
        let own = existing.id == facts.eval;
        written.push(Evaluation {
            status: if own { EvalStatus::Complete } else { EvalStatus::Canceled },
            status_description: if own {
                String::new()
            } else {
                format!("evaluation {:?} successful", facts.eval.to_string())
            },
            deployment_id: facts.deployment,
            placed_groups: if own { facts.outcome.placed.clone() } else { BTreeMap::new() },
            queued_allocations: BTreeMap::new(),
            snapshot_index: facts.view.revision as u64,
            modify_time: facts.now.0,
            ..Evaluation::clone(existing)
        });
        return None;
    }
    let id = existing.map_or_else(|| EvalId::from_random(ids()), |existing| existing.id);
    let fresh = || Evaluation {
        triggered_by: trigger::QUEUED_ALLOCS.to_owned(),
        status_description: BLOCKED.to_owned(),
        previous_eval: Some(facts.eval),
        ..blank(facts, id)
    };
    let unchanged = existing.is_some_and(|existing| {
        existing.failed_groups == facts.outcome.failed && existing.queued_allocations == facts.outcome.queued
    });
    if !unchanged {
        written.push(Evaluation {
            status: EvalStatus::Blocked,
            deployment_id: facts.deployment,
            failed_groups: facts.outcome.failed.clone(),
            queued_allocations: facts.outcome.queued.clone(),
            snapshot_index: facts.view.revision as u64,
            modify_time: facts.now.0,
            ..existing.map_or_else(fresh, |existing| Evaluation::clone(existing))
        });
    }
    Some(id)
}

/// One pending evaluation tells when failed work will be replaced.
fn keep_delayed(facts: &Facts<'_>, ids: Ids<'_>, written: &mut Vec<Evaluation>) {
    let at = facts.plan.groups.values().filter_map(|group| group.reschedule_at).min();
    let mut waiting = facts.view.evaluations.iter().filter(|evaluation| {
        evaluation.value.status == EvalStatus::Pending && !is_due(evaluation, facts.now)
    });
    let first = waiting.next();
    match (at, first) {
        (Some(at), Some(known)) if known.value.wait_until == at => {}
        (Some(at), known) => {
            let record = known.map_or_else(
                || Evaluation {
                    triggered_by: trigger::ALLOC_FAILURE.to_owned(),
                    status_description: DELAYED.to_owned(),
                    ..blank(facts, EvalId::from_random(ids()))
                },
                |known| Evaluation::clone(&known.value),
            );
            written.push(Evaluation {
                status: EvalStatus::Pending,
                wait_until: at,
                modify_time: facts.now.0,
                ..record
            });
        }
        (None, Some(known)) => written.push(superseded(&known.value, facts.now)),
        (None, None) => {}
    }
    for surplus in waiting {
        written.push(superseded(&surplus.value, facts.now));
    }
}

fn superseded(evaluation: &Evaluation, now: Time) -> Evaluation {
    Evaluation {
        status: EvalStatus::Canceled,
        status_description: SUPERSEDED.to_owned(),
        modify_time: now.0,
        ..evaluation.clone()
    }
}
