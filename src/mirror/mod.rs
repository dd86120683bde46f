//! An exact, typed copy of everything under the root, as of one revision.
//!
//! One watcher feeds it in revision order, so readers get a consistent view across all kinds of object. Listeners
//! are told which keys changed, never what changed in them, and run while the state is locked at that revision.

pub mod derive;
pub mod dry_run;
pub mod state;
pub mod watcher;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use parking_lot::RwLockReadGuard;
use tokio::sync::watch;

use crate::model::id::JobId;
use crate::store::Revision;
use crate::store::key::Key;

use self::state::Decoded;
use self::state::State;

/// A key that changed, and the job it concerns as far as that is known (the object itself may be gone).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    pub key: Key,
    pub job: Option<JobId>,
}

/// What a listener is told.
#[derive(Clone, Copy, Debug)]
pub enum Dirty<'a> {
    /// The state was listed anew: anything may have changed.
    All,
    Keys(&'a [Touched]),
}

/// Called after every applied batch, in revision order, under the write lock: must be quick and must not read the
/// mirror again. Returns false when it wants to hear no more.
pub type Listener = Box<dyn Fn(&State, Dirty<'_>) -> bool + Send + Sync>;

/// The shared copy. Cheap to clone by `Arc`.
pub struct Mirror {
    state: RwLock<State>,
    listeners: RwLock<Vec<Listener>>,
    revision: watch::Sender<Revision>,
}

impl Mirror {
    /// An empty mirror at revision 0, not yet synced.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: RwLock::new(State::default()),
            listeners: RwLock::new(Vec::new()),
            revision: watch::Sender::new(0),
        })
    }

    /// The state as of its `revision`. Keep the guard short, and never across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    /// The newest applied revision; 0 until the first listing is in.
    pub fn revision(&self) -> Revision {
        *self.revision.borrow()
    }

    /// Tells of every newly applied revision.
    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// Registers a listener and tells it at once that everything is dirty.
    pub fn listen(&self, listener: Listener) {
        let state = self.state.write();
        if listener(&state, Dirty::All) {
            self.listeners.write().push(listener);
        }
    }

    /// Waits until everything up to `revision` has been applied; false if that took longer than `timeout`.
    pub async fn wait_for(&self, revision: Revision, timeout: Duration) -> bool {
        let mut receiver = self.revision.subscribe();
        let reached = receiver.wait_for(|applied| *applied >= revision);
        tokio::time::timeout(timeout, reached).await.is_ok_and(|waited| waited.is_ok())
    }

    /// Applies the changes of whole revisions, in order. Those already applied are dropped.
    fn apply(&self, revision: Revision, changes: Vec<(Revision, Decoded)>) {
        {
            let mut state = self.state.write();
            let mut touched = Vec::with_capacity(changes.len());
            let applied = state.revision;
            for (at, change) in changes {
                if at > applied {
                    state.apply(at, change, &mut touched);
                }
            }
            state.revision = state.revision.max(revision);
            if !touched.is_empty() {
                self.listeners.write().retain(|listener| listener(&state, Dirty::Keys(&touched)));
            }
        }
        self.advance(revision);
    }

    /// Swaps in a state that was listed from scratch.
    fn replace(&self, mut fresh: State) {
        let revision = fresh.revision;
        {
            let mut state = self.state.write();
            fresh.inherit(&state);
            *state = fresh;
            self.listeners.write().retain(|listener| listener(&state, Dirty::All));
        }
        self.advance(revision);
    }

    fn advance(&self, revision: Revision) {
        self.revision.send_if_modified(|current| {
            let newer = revision > *current;
            *current = revision.max(*current);
            newer
        });
    }
}
