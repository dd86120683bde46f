//! Periodic jobs: a child at every instant of the schedule, at most one per instant.
//!
//! The launch record is created with the child in one transaction that demands its absence, so neither a second
//! leader nor a repeated pass can launch twice.

use std::sync::Arc;

use crate::mirror::Dirty;
use crate::mirror::state::State;
use crate::mirror::state::Stored;
use crate::model::children;
use crate::model::evaluation::EvalStatus;
use crate::model::evaluation::trigger;
use crate::model::id::EvalId;
use crate::model::id::JobId;
use crate::model::job::Job;
use crate::model::schedule;
use crate::model::time::Time;
use crate::store::Guard;
use crate::store::Op;
use crate::store::key::Key;

use super::Context;
use super::Error;
use super::commit::Committer;
use super::commit::Unit;
use super::job::decide::encode;
use super::job::record;
use super::queue::Queue;
use super::runner::Next;
use super::runner::Reconciler;

/// Missed instants that are stepped over one by one to find the newest; a longer gap is launched "now".
const MISSED_MAX: usize = 10_000;

/// Reconciles periodic jobs. One instance per reign.
pub struct PeriodicReconciler {
    context: Context,
    committer: Committer,
}

/// What is due for a periodic job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Launch for this instant.
    pub launch: Option<Time>,
    /// The instant after that.
    pub next: Option<Time>,
}

/// The newest instant that has passed since `last`, and the next one. Several missed instants collapse into one
/// launch. Pure.
///
/// # Errors
/// When the schedule cannot be read.
pub fn due(periodic: &crate::model::job::PeriodicConfig, last: Time, now: Time) -> Result<Due, String> {
    let mut due = Due::default();
    let mut after = last;
    for _ in 0..MISSED_MAX {
        match schedule::next_launch(periodic, after)? {
            Some(instant) if instant <= now => {
                due.launch = Some(instant);
                after = instant;
            }
            next => {
                due.next = next;
                return Ok(due);
            }
        }
    }
    due.launch = Some(Time::from_secs(now.secs()));
    due.next = schedule::next_launch(periodic, now)?;
    Ok(due)
}

impl PeriodicReconciler {
    /// Starts listening to the mirror; every job is dirty at first.
    pub fn new(context: Context, committer: Committer, queue: &Arc<Queue<JobId>>) -> Arc<Self> {
        let weak_queue = Arc::downgrade(queue);
        context.mirror.listen(Box::new(move |state, dirty| {
            let Some(queue) = weak_queue.upgrade() else { return false };
            let is_periodic = |job: &JobId| state.job(job).is_some_and(|job| job.value.periodic.is_some());
            match dirty {
                Dirty::All => {
                    state.jobs.keys().filter(|job| is_periodic(job)).for_each(|job| queue.add(job.clone()));
                }
                Dirty::Keys(touched) => touched.iter().for_each(|touch| {
                    if let Key::Job(job) | Key::Launch(job, _) = &touch.key
                        && is_periodic(job)
                    {
                        queue.add(job.clone());
                    }
                }),
            }
            true
        }));
        Arc::new(Self { context, committer })
    }

    /// The parent with its last launch and whether a child still runs.
    fn view(&self, id: &JobId) -> Option<(Stored<Job>, Time, bool)> {
        let state = self.context.mirror.read();
        let job = state.job(id)?;
        let periodic = job.value.periodic.as_ref()?;
        if job.value.stop || periodic.enabled == Some(false) {
            return None;
        }
        let launches = state.launches.get(id).into_iter().flat_map(|launches| launches.keys());
        let newest = launches.filter_map(|name| name.parse().ok()).max().map(Time::from_secs);
        let last = newest.unwrap_or(Time::NEVER).max(Time(job.value.submit_time));
        let overlaps = periodic.prohibit_overlap && has_running_child(&state, id);
        Some((job, last, overlaps))
    }

    fn launch(&self, id: &JobId, parent: &Job, at: Time, overlaps: bool) -> Unit {
        let keys = &self.context.keys;
        let now = self.context.clock.now();
        let launch = keys.text(&Key::Launch(id.clone(), at.secs().to_string()));
        let guards = vec![Guard::absent(launch.as_str())];
        if overlaps {
            // Not silently lost: the record says that this instant was passed over.
            let record = serde_json::json!({ "Skipped": true, "Time": now.0 });
            return Unit { guards, ops: vec![Op::put(launch, encode(&record))] };
        }
        let mut child = children::periodic_child(parent, at);
        child.submit_time = now.0;
        child.version = 0;
        child.seal();
        let child_id = child.job_id();
        let eval_id = EvalId::from_random(self.context.random.bytes());
        let mut evaluation = record::registered(&child, eval_id, now);
        evaluation.triggered_by = trigger::PERIODIC_JOB.to_owned();
        let record = serde_json::json!({ "Child": child.id, "Time": now.0 });
        let child_key = keys.text(&Key::Job(child_id.clone()));
        Unit {
            guards: guards.into_iter().chain([Guard::absent(child_key.as_str())]).collect(),
            ops: vec![
                Op::put(launch, encode(&record)),
                Op::put(child_key, encode(&child)),
                Op::put(keys.text(&Key::Evaluation(child_id, eval_id)), encode(&evaluation)),
            ],
        }
    }
}

/// A child with unfinished allocations or evaluations.
fn has_running_child(state: &State, parent: &JobId) -> bool {
    let prefix = format!("{}{}", parent.id, children::PERIODIC_INFIX);
    let from = JobId::new(&*parent.namespace, prefix.as_str());
    state
        .jobs
        .range(from..)
        .take_while(|(id, _)| id.namespace == parent.namespace && id.id.starts_with(&prefix))
        .any(|(id, _)| {
            state.allocs_of_job(id).any(|(_, alloc)| !alloc.status().is_terminal())
                || state.evaluations.get(id).is_some_and(|evaluations| {
                    evaluations.values().any(|evaluation| {
                        matches!(evaluation.value.status, EvalStatus::Pending | EvalStatus::Blocked)
                    })
                })
        })
}

impl Reconciler for PeriodicReconciler {
    type Key = JobId;
    const NAME: &'static str = "periodic";

    async fn reconcile(&self, id: &JobId) -> Result<Next, Error> {
        let Some((parent, last, overlaps)) = self.view(id) else { return Ok(Next::WhenChanged) };
        let Some(periodic) = parent.value.periodic.as_ref() else { return Ok(Next::WhenChanged) };
        let due = match due(periodic, last, self.context.clock.now()) {
            Ok(due) => due,
            Err(why) => {
                tracing::warn!(job = %id, %why, "the schedule cannot be followed");
                return Ok(Next::WhenChanged);
            }
        };
        if let Some(at) = due.launch {
            match self.committer.commit(self.launch(id, &parent.value, at, overlaps)).await {
                // Launched already, by force or by an earlier leader.
                Ok(_) | Err(Error::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(due.next.map_or(Next::WhenChanged, Next::At))
    }

    fn now(&self) -> Time {
        self.context.clock.now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::job::PeriodicConfig;

    #[test]
    fn missed_instants_collapse_into_the_newest() {
        let periodic = PeriodicConfig {
            spec: "*/10 * * * *".to_owned(),
            spec_type: "cron".to_owned(),
            ..PeriodicConfig::default()
        };
        let at = |minutes: i64| Time::from_secs(1_700_000_400 + minutes * 60);
        let none = due(&periodic, at(0), at(9)).unwrap();
        assert_eq!(none, Due { launch: None, next: Some(at(10)) });
        let several = due(&periodic, at(0), at(35)).unwrap();
        assert_eq!(several, Due { launch: Some(at(30)), next: Some(at(40)) });
    }
}
