//! What may be deleted, and when: purged jobs once their last allocation ended, finished things by age and count.

pub mod plan;

use std::sync::Arc;
use std::time::Duration;

use crate::mirror::Dirty;
use crate::model::id::JobId;
use crate::model::time::Span;
use crate::model::time::Time;
use crate::store::Guard;
use crate::store::Op;
use crate::store::Range;
use crate::store::key::Key;

use super::Context;
use super::Error;
use super::commit::Committer;
use super::commit::Unit;
use super::queue::Queue;
use super::runner::Next;
use super::runner::Reconciler;

/// How often everything is looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Deletions per transaction.
const DELETES_PER_UNIT: usize = 100;

/// How old finished things may get, and how many of them are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thresholds {
    pub evaluation: Span,
    pub deployment: Span,
    pub job: Span,
    pub node: Span,
    /// Finished allocations kept per job, newest first.
    pub allocs_per_job: usize,
    /// Finished evaluations kept per job, newest first.
    pub evaluations_per_job: usize,
    /// Finished children kept per periodic or parameterized job, newest first.
    pub children_per_job: usize,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            evaluation: Span::from_secs(3600),
            deployment: Span::from_secs(3600),
            job: Span::from_secs(4 * 3600),
            node: Span::from_secs(24 * 3600),
            allocs_per_job: 200,
            evaluations_per_job: 100,
            children_per_job: 500,
        }
    }
}

/// What to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A purged job.
    Job(JobId),
    /// Everything.
    Sweep,
}

/// Deletes. One instance per reign.
pub struct ReapReconciler {
    context: Context,
    committer: Committer,
}

impl ReapReconciler {
    /// Starts listening to the mirror.
    pub fn new(context: Context, committer: Committer, queue: &Arc<Queue<Target>>) -> Arc<Self> {
        let weak_queue = Arc::downgrade(queue);
        context.mirror.listen(Box::new(move |state, dirty| {
            let Some(queue) = weak_queue.upgrade() else { return false };
            match dirty {
                Dirty::All => queue.add(Target::Sweep),
                Dirty::Keys(touched) => {
                    for touch in touched {
                        if matches!(&touch.key, Key::Config(name) if name == plan::FORCE) {
                            queue.add(Target::Sweep);
                        }
                        let Some(job) = &touch.job else { continue };
                        if state.job(job).is_none_or(|job| job.value.purge) {
                            queue.add(Target::Job(job.clone()));
                        }
                    }
                }
            }
            true
        }));
        Arc::new(Self { context, committer })
    }

    async fn delete(&self, doomed: Vec<plan::Doomed>) -> Result<(), Error> {
        let mut units = Vec::new();
        let mut unit = Unit::default();
        for doomed in doomed {
            let key = self.context.keys.text(&doomed.key);
            if let Some(modified) = doomed.unless_changed_since {
                // Users write here too: each such deletion stands alone, so that a change spares only itself.
                let guards = vec![Guard::ModRevision(key.clone(), modified)];
                let mut ops = vec![Op::delete(key)];
                if let Key::Job(job) = &doomed.key {
                    // Not in the mirror, so only their names are known.
                    ops.push(Op::Delete(Range::Prefix(self.context.keys.submissions(job))));
                    ops.push(Op::delete(self.context.keys.scaling_events(job)));
                }
                units.push(Unit { guards, ops });
                continue;
            }
            unit.ops.push(Op::delete(key));
            if unit.ops.len() >= DELETES_PER_UNIT {
                units.push(std::mem::take(&mut unit));
            }
        }
        if !unit.ops.is_empty() {
            units.push(unit);
        }
        match self.committer.commit_all(units).await {
            Err(Error::Conflict) => Ok(()),
            other => other,
        }
    }
}

impl Reconciler for ReapReconciler {
    type Key = Target;
    const NAME: &'static str = "reap";

    async fn reconcile(&self, target: &Target) -> Result<Next, Error> {
        let now = self.context.clock.now();
        let (doomed, next) = {
            let state = self.context.mirror.read();
            match target {
                Target::Job(job) => (plan::purged(&state, job), Next::WhenChanged),
                Target::Sweep => {
                    (plan::sweep(&state, now, &self.context.settings.reap), Next::After(SWEEP_EVERY))
                }
            }
        };
        if !doomed.is_empty() {
            tracing::debug!(?target, keys = doomed.len(), "deleting");
            self.delete(doomed).await?;
        }
        Ok(next)
    }

    fn now(&self) -> Time {
        self.context.clock.now()
    }
}
