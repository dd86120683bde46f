//! The store in memory, with etcd's contract: what `agent -dev`, tests and simulation run on.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::Event;
use super::Guard;
use super::KeyValue;
use super::LeaseId;
use super::Limits;
use super::ListOptions;
use super::Listing;
use super::Op;
use super::Outcome;
use super::Range;
use super::Revision;
use super::Store;
use super::StoreError;
use super::Txn;
use super::WatchBatch;
use super::WatchStream;

/// The revision of an empty store, as in etcd.
const FIRST_REVISION: Revision = 1;

/// A store in this process's memory. Clones share their contents.
#[derive(Clone, Default)]
pub struct EmbeddedStore {
    inner: Arc<Mutex<Inner>>,
}

/// One change of one key. A tombstone has no item.
#[derive(Clone)]
struct Change {
    revision: Revision,
    item: Option<KeyValue>,
}

struct Watcher {
    range: Range,
    sender: mpsc::UnboundedSender<Result<WatchBatch, StoreError>>,
}

struct Lease {
    ttl: Duration,
    deadline: Instant,
    keys: BTreeSet<String>,
}

struct Inner {
    revision: Revision,
    compacted: Revision,
    /// Changes of each key, oldest first.
    keys: BTreeMap<String, Vec<Change>>,
    /// Keys changed at each revision, in the order of the transaction.
    log: BTreeMap<Revision, Vec<String>>,
    watchers: Vec<Watcher>,
    leases: HashMap<LeaseId, Lease>,
    next_lease: LeaseId,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            revision: FIRST_REVISION,
            compacted: 0,
            keys: BTreeMap::new(),
            log: BTreeMap::new(),
            watchers: Vec::new(),
            leases: HashMap::new(),
            next_lease: 1000,
        }
    }
}

impl EmbeddedStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Breaks every open watch, as a failing connection would.
    pub fn cut_watches(&self) {
        for watcher in self.inner.lock().watchers.drain(..) {
            let _ = watcher.sender.send(Err(StoreError::Unavailable("connection cut".into())));
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.inner.lock();
        inner.expire_leases();
        work(&mut inner)
    }
}

impl Inner {
    /// Ends leases that are due. Called on every access and by [`lease_clock`], so nobody sees an overdue lease.
    fn expire_leases(&mut self) {
        let now = Instant::now();
        let mut due: Vec<LeaseId> =
            self.leases.iter().filter(|(_, lease)| lease.deadline <= now).map(|(id, _)| *id).collect();
        due.sort_unstable();
        for id in due {
            self.end_lease(id);
        }
    }

    fn end_lease(&mut self, id: LeaseId) {
        let Some(lease) = self.leases.remove(&id) else { return };
        let ops: Vec<Op> = lease.keys.into_iter().map(Op::delete).collect();
        if !ops.is_empty() {
            self.apply(&ops);
        }
    }

    fn current(&self, key: &str) -> Option<&KeyValue> {
        self.keys.get(key)?.last()?.item.as_ref()
    }

    fn holds(&self, guard: &Guard) -> bool {
        let item = self.current(guard.key());
        match guard {
            Guard::ModRevision(_, revision) => item.map_or(0, |item| item.mod_revision) == *revision,
            Guard::CreateRevision(_, revision) => item.map_or(0, |item| item.create_revision) == *revision,
            Guard::Lease(_, lease) => item.map_or(0, |item| item.lease) == *lease,
        }
    }

    fn keys_in<'a>(
        &'a self,
        range: &'a Range,
    ) -> Box<dyn Iterator<Item = (&'a String, &'a Vec<Change>)> + 'a> {
        let (from, end) = range.bounds();
        match end {
            None => Box::new(self.keys.get_key_value(from).into_iter()),
            Some(end) if from < end.as_str() => Box::new(self.keys.range(from.to_owned()..end)),
            Some(_) => Box::new(std::iter::empty()),
        }
    }

    fn list(&self, range: &Range, options: &ListOptions) -> Result<Listing, StoreError> {
        let at = options.at.unwrap_or(self.revision);
        if at > self.revision {
            return Err(StoreError::FutureRevision);
        }
        if options.at.is_some() && at < self.compacted {
            return Err(StoreError::Compacted { at: self.compacted });
        }
        let mut listing = Listing { revision: at, ..Listing::default() };
        for (_, changes) in self.keys_in(range) {
            let found = changes.iter().rev().find(|change| change.revision <= at);
            let Some(item) = found.and_then(|change| change.item.as_ref()) else { continue };
            listing.count += 1;
            if options.limit > 0 && listing.items.len() == options.limit {
                listing.more = true;
            } else {
                let value = if options.keys_only { Bytes::new() } else { item.value.clone() };
                listing.items.push(KeyValue { value, ..item.clone() });
            }
        }
        Ok(listing)
    }

    fn check(ops: &[Op], limits: Limits) -> Result<(), StoreError> {
        if ops.len() > limits.txn_ops {
            return Err(StoreError::TooManyOps { count: ops.len(), limit: limits.txn_ops });
        }
        let mut written = BTreeSet::new();
        for op in ops {
            let Op::Put { key, .. } = op else { continue };
            let deleted = |other: &Op| matches!(other, Op::Delete(range) if range.contains(key));
            if !written.insert(key) || ops.iter().any(deleted) {
                return Err(StoreError::DuplicateKey(key.clone()));
            }
        }
        Ok(())
    }

    /// Applies checked steps as one revision (none if nothing changes) and tells watchers.
    fn apply(&mut self, ops: &[Op]) -> Vec<Listing> {
        let revision = self.revision + 1;
        let mut changed: Vec<String> = Vec::new();
        let mut gets = Vec::new();
        for op in ops {
            match op {
                Op::Put { key, value, lease } => {
                    self.put(key, value.clone(), *lease, revision);
                    changed.push(key.clone());
                }
                Op::Delete(range) => {
                    let doomed: Vec<String> = self
                        .keys_in(range)
                        .filter(|(_, changes)| changes.last().is_some_and(|change| change.item.is_some()))
                        .map(|(key, _)| key.clone())
                        .collect();
                    for key in doomed {
                        self.unbind(&key);
                        let changes = self.keys.get_mut(&key).expect("listed just now");
                        changes.push(Change { revision, item: None });
                        changed.push(key);
                    }
                }
                Op::Get(range) => {
                    // Steps see the effects of earlier steps of the same transaction.
                    let seen = Listing { revision: self.revision, ..self.list_newest(range) };
                    gets.push(seen);
                }
            }
        }
        if changed.is_empty() {
            return gets;
        }
        self.revision = revision;
        for listing in &mut gets {
            listing.revision = revision;
        }
        let events: Vec<Event> = changed.iter().map(|key| self.event(key, revision)).collect();
        self.log.insert(revision, changed);
        self.watchers.retain(|watcher| {
            let events: Vec<Event> =
                events.iter().filter(|event| watcher.range.contains(event.key())).cloned().collect();
            events.is_empty() && !watcher.sender.is_closed()
                || !events.is_empty() && watcher.sender.send(Ok(WatchBatch { revision, events })).is_ok()
        });
        gets
    }

    fn list_newest(&self, range: &Range) -> Listing {
        let mut listing = Listing::default();
        for (_, changes) in self.keys_in(range) {
            if let Some(item) = changes.last().and_then(|change| change.item.as_ref()) {
                listing.items.push(item.clone());
                listing.count += 1;
            }
        }
        listing
    }

    fn put(&mut self, key: &str, value: Bytes, lease: LeaseId, revision: Revision) {
        self.unbind(key);
        if let Some(lease) = self.leases.get_mut(&lease) {
            lease.keys.insert(key.to_owned());
        }
        let changes = self.keys.entry(key.to_owned()).or_default();
        let previous = changes.last().and_then(|change| change.item.as_ref());
        let (create_revision, version) =
            previous.map_or((revision, 1), |item| (item.create_revision, item.version + 1));
        let item =
            KeyValue { key: key.to_owned(), value, create_revision, mod_revision: revision, version, lease };
        changes.push(Change { revision, item: Some(item) });
    }

    fn unbind(&mut self, key: &str) {
        let bound = self.current(key).map_or(0, |item| item.lease);
        if let Some(lease) = self.leases.get_mut(&bound) {
            lease.keys.remove(key);
        }
    }

    fn event(&self, key: &str, revision: Revision) -> Event {
        let change =
            self.keys.get(key).and_then(|changes| changes.iter().rev().find(|c| c.revision == revision));
        match change.and_then(|change| change.item.clone()) {
            Some(item) => Event::Put(item),
            None => Event::Delete(key.to_owned(), revision),
        }
    }

    /// Everything from revision `from` on, one batch per revision.
    fn history(&self, range: &Range, from: Revision) -> Vec<WatchBatch> {
        let mut batches = Vec::new();
        for (revision, keys) in self.log.range(from..) {
            let events: Vec<Event> =
                keys.iter().filter(|key| range.contains(key)).map(|key| self.event(key, *revision)).collect();
            if !events.is_empty() {
                batches.push(WatchBatch { revision: *revision, events });
            }
        }
        batches
    }

    fn compact(&mut self, at: Revision) -> Result<(), StoreError> {
        if at > self.revision {
            return Err(StoreError::FutureRevision);
        }
        if at <= self.compacted {
            return Err(StoreError::Compacted { at: self.compacted });
        }
        self.compacted = at;
        self.log = self.log.split_off(&at);
        self.keys.retain(|_, changes| {
            // The newest change at or before the compaction stays readable, unless it is a tombstone.
            let keep_from = changes.iter().rposition(|change| change.revision <= at).unwrap_or(0);
            changes.drain(..keep_from);
            if changes.first().is_some_and(|first| first.revision < at && first.item.is_none()) {
                changes.remove(0);
            }
            !changes.is_empty()
        });
        Ok(())
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn list(&self, range: Range, options: ListOptions) -> Result<Listing, StoreError> {
        self.with(|inner| inner.list(&range, &options))
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        let limits = self.limits();
        let size: usize = txn.then.iter().chain(&txn.otherwise).map(Op::size).sum();
        if size > limits.request_bytes {
            return Err(StoreError::TooLarge { size, limit: limits.request_bytes });
        }
        if txn.guards.len() > limits.txn_ops {
            return Err(StoreError::TooManyOps { count: txn.guards.len(), limit: limits.txn_ops });
        }
        Inner::check(&txn.then, limits)?;
        Inner::check(&txn.otherwise, limits)?;
        self.with(|inner| {
            let succeeded = txn.guards.iter().all(|guard| inner.holds(guard));
            let ops = if succeeded { &txn.then } else { &txn.otherwise };
            for op in ops {
                if let Op::Put { lease, .. } = op
                    && *lease != 0
                    && !inner.leases.contains_key(lease)
                {
                    return Err(StoreError::LeaseNotFound);
                }
            }
            let gets = inner.apply(ops);
            Ok(Outcome { succeeded, revision: inner.revision, gets })
        })
    }

    async fn watch(&self, range: Range, from: Revision) -> Result<WatchStream, StoreError> {
        self.with(|inner| {
            if from < inner.compacted {
                return Err(StoreError::Compacted { at: inner.compacted });
            }
            let (sender, receiver) = mpsc::unbounded_channel();
            for batch in inner.history(&range, from) {
                let _ = sender.send(Ok(batch));
            }
            inner.watchers.push(Watcher { range, sender });
            // A watch that starts in the future sees nothing before it.
            let later = move |item: &Result<WatchBatch, StoreError>| {
                futures::future::ready(item.as_ref().map_or(true, |batch| batch.revision >= from))
            };
            Ok(UnboundedReceiverStream::new(receiver).filter(later).boxed())
        })
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.with(|inner| inner.revision))
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let ttl = Duration::from_secs(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0))
            .max(Duration::from_secs(1));
        let id = self.with(|inner| {
            inner.next_lease += 1;
            let id = inner.next_lease;
            inner.leases.insert(id, Lease { ttl, deadline: Instant::now() + ttl, keys: BTreeSet::new() });
            id
        });
        tokio::spawn(lease_clock(self.clone(), id));
        Ok(id)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, StoreError> {
        self.with(|inner| {
            let lease = inner.leases.get_mut(&lease).ok_or(StoreError::LeaseNotFound)?;
            lease.deadline = Instant::now() + lease.ttl;
            Ok(lease.ttl)
        })
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.with(|inner| {
            if !inner.leases.contains_key(&lease) {
                return Err(StoreError::LeaseNotFound);
            }
            inner.end_lease(lease);
            Ok(())
        })
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.with(|inner| inner.compact(revision))
    }

    fn describe(&self) -> String {
        "embedded".to_owned()
    }
}

/// Makes a lease end on time even when nobody touches the store.
async fn lease_clock(store: EmbeddedStore, lease: LeaseId) {
    loop {
        let Some(deadline) = store.with(|inner| inner.leases.get(&lease).map(|lease| lease.deadline)) else {
            return;
        };
        tokio::time::sleep_until(deadline).await;
    }
}
