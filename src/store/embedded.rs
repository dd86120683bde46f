//! The store in memory: what `agent -dev` and simulation use. It follows etcd exactly; `tests/store` compares the
//! two. Time is tokio's, so simulation can pause it.

mod history;
mod leases;
#[cfg(test)]
mod tests;
mod watchers;

use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use async_trait::async_trait;
use futures::Stream;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use self::history::History;
use self::history::Key;
use self::history::Value;
use self::leases::Leases;
use self::watchers::WatcherId;
use self::watchers::Watchers;
use crate::store::Event;
use crate::store::Guard;
use crate::store::LeaseId;
use crate::store::Limits;
use crate::store::ListOptions;
use crate::store::Listing;
use crate::store::Op;
use crate::store::Outcome;
use crate::store::Range;
use crate::store::Revision;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::Txn;
use crate::store::WatchBatch;
use crate::store::WatchStream;

/// A store in this process's memory. Clones share their contents.
#[derive(Clone, Default)]
pub struct EmbeddedStore {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    /// The next lease to end is another one than before.
    deadline_changed: Arc<Notify>,
}

#[derive(Default)]
struct Inner {
    history: History,
    watchers: Watchers,
    leases: Leases,
    limits: Limits,
    /// Revisions to keep readable; all when `None`.
    keep: Option<Revision>,
    /// [`end_leases_on_time`] is running.
    clock_runs: bool,
}

impl EmbeddedStore {
    /// An empty store that keeps its whole history, until told to compact.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the store forget history by itself, so that it does not grow for ever: at least the last `keep`
    /// revisions stay readable, at most twice as many.
    #[must_use]
    pub fn with_auto_compaction(self, keep: u32) -> Self {
        self.shared.inner.lock().keep = Some(Revision::from(keep.max(1)));
        self
    }

    /// Accepts transactions up to these limits instead of etcd's defaults.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        self.shared.inner.lock().limits = limits;
        self
    }

    /// Breaks every open watch, as a failing connection would: it ends with an error.
    pub fn cut_watches(&self) {
        self.shared.inner.lock().watchers.clear();
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.shared.inner.lock();
        // On every access, so that nobody sees an overdue lease.
        inner.end_due_leases();
        work(&mut inner)
    }
}

impl Inner {
    fn end_due_leases(&mut self) {
        if self.leases.next_deadline().is_none() {
            return;
        }
        let now = Instant::now();
        while let Some(lease) = self.leases.due(now) {
            self.end_lease(lease);
        }
    }

    /// Ends a lease; its keys go in one revision, in order. False for an unknown lease.
    fn end_lease(&mut self, lease: LeaseId) -> bool {
        let Some(keys) = self.leases.remove(lease) else { return false };
        let ops: Vec<Op> = keys.iter().map(|key| Op::delete(&**key)).collect();
        self.apply(ops);
        true
    }

    fn holds(&self, guard: &Guard) -> bool {
        let (mod_revision, value) = self.history.newest(guard.key());
        match guard {
            Guard::ModRevision(_, revision) => mod_revision == *revision,
            Guard::CreateRevision(_, revision) => value.map_or(0, Value::create_revision) == *revision,
            Guard::Lease(_, lease) => value.map_or(0, Value::lease) == *lease,
        }
    }

    /// Refuses what etcd refuses whatever the store holds.
    fn check(&self, txn: &Txn) -> Result<(), StoreError> {
        let Limits { txn_ops, request_bytes } = self.limits;
        let count = txn.guards.len().max(txn.then.len()).max(txn.otherwise.len());
        if count > txn_ops {
            return Err(StoreError::TooManyOps { count, limit: txn_ops });
        }
        let size = txn.size();
        if size > request_bytes {
            return Err(StoreError::TooLarge { size, limit: request_bytes });
        }
        if txn.guards.iter().any(|guard| guard.key().is_empty()) {
            return Err(no_key());
        }
        txn.then.iter().chain(&txn.otherwise).try_for_each(check_key)?;
        match txn.duplicate_key() {
            Some(key) => Err(StoreError::DuplicateKey(key.to_owned())),
            None => Ok(()),
        }
    }

    fn commit(&mut self, txn: Txn) -> Result<Outcome, StoreError> {
        self.check(&txn)?;
        let succeeded = txn.guards.iter().all(|guard| self.holds(guard));
        let ops = if succeeded { txn.then } else { txn.otherwise };
        let unknown =
            |op: &Op| matches!(op, Op::Put { lease, .. } if *lease != 0 && !self.leases.contains(*lease));
        if ops.iter().any(unknown) {
            return Err(StoreError::LeaseNotFound);
        }
        let gets = self.apply(ops);
        Ok(Outcome { succeeded, revision: self.history.revision(), gets })
    }

    /// Applies checked steps as one revision (none if nothing changes) and tells watchers.
    fn apply(&mut self, ops: Vec<Op>) -> Vec<Listing> {
        let mut changed: Vec<Key> = Vec::new();
        let mut gets = Vec::new();
        for op in ops {
            match op {
                Op::Put { key, value, lease } => {
                    let before = self.history.newest(&key).1.map_or(0, Value::lease);
                    self.leases.unbind(before, &key);
                    let key = self.history.put(&key, value, lease);
                    self.leases.bind(lease, Arc::clone(&key));
                    changed.push(key);
                }
                Op::Delete(range) => {
                    for (key, lease) in self.history.delete(&range) {
                        self.leases.unbind(lease, &key);
                        changed.push(key);
                    }
                }
                // Steps see the effects of earlier steps of the same transaction.
                Op::Get(range) => gets.push(self.history.list_within(&range, !changed.is_empty())),
            }
        }
        if !changed.is_empty() {
            self.history.seal(changed);
            self.tell_watchers();
            self.compact_by_itself();
        }
        gets
    }

    fn tell_watchers(&mut self) {
        if !self.watchers.is_empty() {
            let revision = self.history.revision();
            self.watchers.deliver(revision, self.history.events(revision));
        }
    }

    fn compact_by_itself(&mut self) {
        let Some(keep) = self.keep else { return };
        if self.history.revision() - self.history.compacted() >= 2 * keep {
            // Cannot fail: the revision is neither compacted yet nor in the future.
            let _ = self.history.compact(self.history.revision() - keep);
        }
    }

    fn watch(
        &mut self,
        range: Range,
        from: Revision,
    ) -> Result<(Vec<WatchBatch>, WatcherId, mpsc::Receiver<WatchBatch>), StoreError> {
        if matches!(&range, Range::Between(first, end) if first >= end) {
            return Err(StoreError::Other(format!("cannot watch {range}: the range is empty")));
        }
        if from < self.history.compacted() {
            return Err(StoreError::Compacted { at: self.history.compacted() });
        }
        let mut past = Vec::new();
        for revision in from.max(self.history.oldest())..=self.history.revision() {
            let events: Vec<Event> =
                self.history.events(revision).filter(|event| range.contains(event.key())).collect();
            if !events.is_empty() {
                past.push(WatchBatch { revision, events });
            }
        }
        let (id, news) = self.watchers.add(range, from);
        Ok((past, id, news))
    }
}

fn no_key() -> StoreError {
    StoreError::Other("a key is empty".to_owned())
}

fn check_key(op: &Op) -> Result<(), StoreError> {
    match op {
        Op::Put { key, .. } | Op::Delete(Range::Key(key)) | Op::Get(Range::Key(key)) if key.is_empty() => {
            Err(no_key())
        }
        _ => Ok(()),
    }
}

/// Takes a watcher out when its stream is dropped.
struct Watched {
    shared: Weak<Shared>,
    id: WatcherId,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.inner.lock().watchers.remove(self.id);
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn list(&self, range: Range, options: ListOptions) -> Result<Listing, StoreError> {
        if matches!(&range, Range::Key(key) if key.is_empty()) {
            return Err(no_key());
        }
        self.with(|inner| inner.history.list(&range, &options))
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        self.with(|inner| inner.commit(txn))
    }

    async fn watch(&self, range: Range, from: Revision) -> Result<WatchStream, StoreError> {
        let (past, id, news) = self.with(|inner| inner.watch(range, from.max(1)))?;
        let watched = Watched { shared: Arc::downgrade(&self.shared), id };
        Ok(batches(past, news, watched).boxed())
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.with(|inner| inner.history.revision()))
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let seconds = (ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).max(1);
        let (lease, start_clock) = self.with(|inner| {
            let next = inner.leases.next_deadline();
            let lease = inner.leases.grant(Duration::from_secs(seconds));
            if inner.leases.next_deadline() != next {
                self.shared.deadline_changed.notify_one();
            }
            (lease, !std::mem::replace(&mut inner.clock_runs, true))
        });
        if start_clock {
            tokio::spawn(end_leases_on_time(Arc::downgrade(&self.shared)));
        }
        Ok(lease)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, StoreError> {
        self.with(|inner| inner.leases.renew(lease)).ok_or(StoreError::LeaseNotFound)
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        if self.with(|inner| inner.end_lease(lease)) { Ok(()) } else { Err(StoreError::LeaseNotFound) }
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.with(|inner| inner.history.compact(revision))
    }

    fn limits(&self) -> Limits {
        self.shared.inner.lock().limits
    }

    fn describe(&self) -> String {
        "embedded".to_owned()
    }
}

/// First the past, then news, and an error when no more can come.
fn batches(
    past: Vec<WatchBatch>,
    news: mpsc::Receiver<WatchBatch>,
    watched: Watched,
) -> impl Stream<Item = Result<WatchBatch, StoreError>> + Send {
    let end = futures::stream::once(async move {
        drop(watched);
        Err(StoreError::Unavailable("the watch was cut".to_owned()))
    });
    futures::stream::iter(past).chain(ReceiverStream::new(news)).map(Ok).chain(end)
}

/// Ends leases when they are due even if nobody touches the store, as long as there are any.
async fn end_leases_on_time(store: Weak<Shared>) {
    loop {
        // The store may be dropped while this waits.
        let Some(shared) = store.upgrade() else { return };
        let changed = Arc::clone(&shared.deadline_changed);
        let deadline = {
            let mut inner = shared.inner.lock();
            inner.end_due_leases();
            inner.clock_runs = inner.leases.next_deadline().is_some();
            inner.leases.next_deadline()
        };
        drop(shared);
        let Some(deadline) = deadline else { return };
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => {}
            () = changed.notified() => {}
        }
    }
}
