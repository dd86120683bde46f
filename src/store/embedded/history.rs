//! Every change of every key since the last compaction.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::store::Event;
use crate::store::KeyValue;
use crate::store::LeaseId;
use crate::store::ListOptions;
use crate::store::Listing;
use crate::store::Range;
use crate::store::Revision;
use crate::store::StoreError;

/// The revision of an empty store, as in etcd.
const FIRST_REVISION: Revision = 1;

/// A key, shared between the indexes.
pub(super) type Key = Arc<str>;

/// One change of one key.
struct Change {
    revision: Revision,
    /// `None` for a deletion.
    value: Option<Value>,
}

pub(super) struct Value {
    bytes: Bytes,
    create_revision: Revision,
    version: i64,
    lease: LeaseId,
}

/// The changes by key and by revision.
pub(super) struct History {
    revision: Revision,
    /// Older revisions cannot be read.
    compacted: Revision,
    /// Changes of each key, oldest first. Of those at or before the compaction only the newest is kept.
    keys: BTreeMap<Key, Vec<Change>>,
    /// Keys changed at each revision from [`Self::log_start`] on, in the order of the transaction. There is no
    /// revision without a change.
    log: VecDeque<Vec<Key>>,
    log_start: Revision,
}

impl Default for History {
    fn default() -> Self {
        Self {
            revision: FIRST_REVISION,
            compacted: 0,
            keys: BTreeMap::new(),
            log: VecDeque::new(),
            log_start: FIRST_REVISION + 1,
        }
    }
}

/// `None` for a range without keys.
fn bounds(range: &Range) -> Option<(Bound<&str>, Bound<String>)> {
    match range {
        Range::Key(key) => Some((Bound::Included(key), Bound::Included(key.clone()))),
        Range::Prefix(prefix) if prefix.is_empty() => Some((Bound::Unbounded, Bound::Unbounded)),
        Range::Between(from, to) if from >= to => None,
        Range::Prefix(_) | Range::Between(..) => {
            let (from, end) = range.bounds();
            Some((Bound::Included(from), end.map_or(Bound::Unbounded, Bound::Excluded)))
        }
    }
}

fn item(key: &str, change: &Change, keys_only: bool) -> Option<KeyValue> {
    let value = change.value.as_ref()?;
    Some(KeyValue {
        key: key.to_owned(),
        value: if keys_only { Bytes::new() } else { value.bytes.clone() },
        create_revision: value.create_revision,
        mod_revision: change.revision,
        version: value.version,
        lease: value.lease,
    })
}

impl History {
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn compacted(&self) -> Revision {
        self.compacted
    }

    fn span(&self, range: &Range) -> impl Iterator<Item = (&Key, &Vec<Change>)> {
        bounds(range)
            .into_iter()
            .flat_map(|(from, to)| self.keys.range::<str, _>((from, to.as_ref().map(String::as_str))))
    }

    /// A key's newest revision, or 0, and its value.
    pub(super) fn newest(&self, key: &str) -> (Revision, Option<&Value>) {
        let change = self.keys.get(key).and_then(|changes| changes.last());
        match change.and_then(|change| change.value.as_ref().map(|value| (change.revision, value))) {
            Some((revision, value)) => (revision, Some(value)),
            None => (0, None),
        }
    }

    /// The keys of a range, now or at a past revision.
    pub(super) fn list(&self, range: &Range, options: &ListOptions) -> Result<Listing, StoreError> {
        let at = options.at.unwrap_or(self.revision);
        if at > self.revision {
            return Err(StoreError::FutureRevision);
        }
        if at < self.compacted {
            return Err(StoreError::Compacted { at: self.compacted });
        }
        Ok(self.collect(range, at, options))
    }

    /// The keys of a range with the changes of the transaction at work, which has changed something if `touched`.
    pub(super) fn list_within(&self, range: &Range, touched: bool) -> Listing {
        self.collect(range, self.revision + Revision::from(touched), &ListOptions::default())
    }

    fn collect(&self, range: &Range, at: Revision, options: &ListOptions) -> Listing {
        let mut listing = Listing { revision: at, ..Listing::default() };
        for (key, changes) in self.span(range) {
            let found = match changes.last() {
                Some(newest) if newest.revision <= at => Some(newest),
                _ => changes[..changes.partition_point(|change| change.revision <= at)].last(),
            };
            let Some(change) = found.filter(|change| change.value.is_some()) else { continue };
            listing.count += 1;
            if options.limit > 0 && listing.items.len() == options.limit {
                listing.more = true;
            } else {
                listing.items.extend(item(key, change, options.keys_only));
            }
        }
        listing
    }

    /// Writes a key as part of the next revision.
    pub(super) fn put(&mut self, key: &str, bytes: Bytes, lease: LeaseId) -> Key {
        let revision = self.revision + 1;
        let known = self.keys.get_key_value(key).map(|(key, _)| Arc::clone(key));
        let key = known.unwrap_or_else(|| Key::from(key));
        let changes = self.keys.entry(Arc::clone(&key)).or_default();
        let previous = changes.last().and_then(|change| change.value.as_ref());
        let (create_revision, version) =
            previous.map_or((revision, 1), |value| (value.create_revision, value.version + 1));
        changes.push(Change { revision, value: Some(Value { bytes, create_revision, version, lease }) });
        key
    }

    /// Deletes the keys of a range as part of the next revision: what was deleted, with the leases.
    pub(super) fn delete(&mut self, range: &Range) -> Vec<(Key, LeaseId)> {
        let lease = |changes: &Vec<Change>| Some(changes.last()?.value.as_ref()?.lease);
        let doomed = self.span(range).filter_map(|(key, changes)| Some((Arc::clone(key), lease(changes)?)));
        let doomed: Vec<(Key, LeaseId)> = doomed.collect();
        for (key, _) in &doomed {
            let changes = self.keys.get_mut(key).expect("it was listed just now");
            changes.push(Change { revision: self.revision + 1, value: None });
        }
        doomed
    }

    /// Ends a transaction that changed these keys: their changes become the next revision.
    pub(super) fn seal(&mut self, changed: Vec<Key>) {
        debug_assert!(!changed.is_empty(), "a revision has changes");
        self.revision += 1;
        self.log.push_back(changed);
    }

    /// The changes of one revision, in order.
    pub(super) fn events(&self, revision: Revision) -> impl Iterator<Item = Event> {
        let changed = usize::try_from(revision - self.log_start).ok().and_then(|index| self.log.get(index));
        changed.into_iter().flatten().filter_map(move |key| self.event(key, revision))
    }

    fn event(&self, key: &Key, revision: Revision) -> Option<Event> {
        let changes = self.keys.get(key)?;
        let index = changes.binary_search_by_key(&revision, |change| change.revision).ok()?;
        let event = match item(key, &changes[index], false) {
            Some(item) => Event::Put(item),
            None => Event::Delete(key.to_string(), revision),
        };
        Some(event)
    }

    /// The oldest revision whose changes are still known.
    pub(super) fn oldest(&self) -> Revision {
        self.log_start
    }

    /// Keys of which anything is known, deleted ones too.
    #[cfg(test)]
    pub(super) fn known_keys(&self) -> usize {
        self.keys.len()
    }

    /// Forgets what cannot be seen at `at` or later. Takes time for what changed since the last compaction only.
    pub(super) fn compact(&mut self, at: Revision) -> Result<(), StoreError> {
        if at > self.revision {
            return Err(StoreError::FutureRevision);
        }
        if at <= self.compacted {
            return Err(StoreError::Compacted { at: self.compacted });
        }
        self.compacted = at;
        // Changes at `at` itself stay: a watch may begin there.
        let mut touched: BTreeSet<Key> = BTreeSet::new();
        while self.log_start < at {
            touched.extend(self.log.pop_front().into_iter().flatten());
            self.log_start += 1;
        }
        touched.extend(self.log.front().into_iter().flatten().cloned());
        for key in touched {
            let Some(changes) = self.keys.get_mut(&key) else { continue };
            let past = changes.partition_point(|change| change.revision <= at);
            let Some(newest) = past.checked_sub(1) else { continue };
            // The newest change that is past stays readable, unless it is a deletion that no watch can see any more.
            let is_gone = changes[newest].value.is_none() && changes[newest].revision < at;
            changes.drain(..newest + usize::from(is_gone));
            if changes.is_empty() {
                self.keys.remove(&key);
            }
        }
        Ok(())
    }
}

impl Value {
    pub(super) fn create_revision(&self) -> Revision {
        self.create_revision
    }

    pub(super) fn lease(&self) -> LeaseId {
        self.lease
    }
}
