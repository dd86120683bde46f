//! Remembers per job when anything about it changed last, deletions included, so that a blocked reader of one job
//! sleeps through the changes of all others.

use std::collections::BTreeMap;

use parking_lot::RwLock;

use crate::mirror::Dirty;
use crate::mirror::Mirror;
use crate::mirror::state::State;
use crate::model::id::JobId;
use crate::store::Revision;

/// Entries of jobs that no longer exist are dropped once there are this many more than jobs.
const STALE_ENTRIES_MAX: usize = 10_000;

/// Newest change per job.
#[derive(Debug, Default)]
pub struct Changes {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Nothing is known of changes up to here: the answer for jobs without an entry.
    floor: Revision,
    jobs: BTreeMap<JobId, Revision>,
}

impl Changes {
    /// Follows `mirror` from now on.
    pub fn follow(mirror: &Mirror) -> std::sync::Arc<Self> {
        let changes = std::sync::Arc::new(Self::default());
        let follower = std::sync::Arc::downgrade(&changes);
        mirror.listen(Box::new(move |state, dirty| {
            let Some(changes) = follower.upgrade() else { return false };
            changes.note(state, dirty);
            true
        }));
        changes
    }

    /// Revision of the newest change of the job, or of anything that it owns; at least 1. Never goes back.
    pub fn of(&self, job: &JobId) -> Revision {
        let inner = self.inner.read();
        inner.jobs.get(job).copied().unwrap_or(inner.floor).max(1)
    }

    fn note(&self, state: &State, dirty: Dirty<'_>) {
        let mut inner = self.inner.write();
        match dirty {
            Dirty::All => inner.forget(state.revision),
            Dirty::Keys(touched) => {
                let mut last = None;
                for job in touched.iter().filter_map(|touched| touched.job.as_ref()) {
                    if last != Some(job) {
                        inner.jobs.insert(job.clone(), state.revision);
                        last = Some(job);
                    }
                }
                if inner.jobs.len() > state.jobs.len() + STALE_ENTRIES_MAX {
                    inner.forget(state.revision);
                }
            }
        }
    }
}

impl Inner {
    fn forget(&mut self, revision: Revision) {
        self.jobs.clear();
        self.floor = revision;
    }
}
