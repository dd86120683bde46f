//! Who watches what. Finding the watchers of a key does not depend on their number: thousands of agents watch a
//! prefix each.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use crate::store::Event;
use crate::store::Range;
use crate::store::Revision;
use crate::store::WatchBatch;

/// Batches that wait for a slow reader. One that falls further behind is cut off and has to watch anew.
pub(super) const QUEUE: usize = 65_536;

/// Identifies a watcher.
pub(super) type WatcherId = u64;

struct Watcher {
    range: Range,
    /// Earlier changes are not for this watcher.
    from: Revision,
    sender: mpsc::Sender<WatchBatch>,
}

/// All watchers.
#[derive(Default)]
pub(super) struct Watchers {
    all: BTreeMap<WatcherId, Watcher>,
    next: WatcherId,
    by_key: BTreeMap<String, Vec<WatcherId>>,
    by_prefix: BTreeMap<String, Vec<WatcherId>>,
    /// How many different watched prefixes there are of each length.
    prefix_lengths: BTreeMap<usize, usize>,
    /// Watchers of other ranges, which are rare.
    others: Vec<WatcherId>,
}

impl Watchers {
    /// Adds a watcher of changes from revision `from` on.
    pub(super) fn add(&mut self, range: Range, from: Revision) -> (WatcherId, mpsc::Receiver<WatchBatch>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let id = self.next;
        self.next += 1;
        match &range {
            Range::Key(key) => self.by_key.entry(key.clone()).or_default().push(id),
            Range::Prefix(prefix) => {
                let ids = self.by_prefix.entry(prefix.clone()).or_default();
                if ids.is_empty() {
                    *self.prefix_lengths.entry(prefix.len()).or_default() += 1;
                }
                ids.push(id);
            }
            Range::Between(..) => self.others.push(id),
        }
        self.all.insert(id, Watcher { range, from, sender });
        (id, receiver)
    }

    /// Removes a watcher; its stream ends when it has been read to the end.
    pub(super) fn remove(&mut self, id: WatcherId) {
        let Some(watcher) = self.all.remove(&id) else { return };
        match &watcher.range {
            Range::Key(key) => {
                take_out(&mut self.by_key, key, id);
            }
            Range::Prefix(prefix) => {
                if take_out(&mut self.by_prefix, prefix, id) {
                    take_one(&mut self.prefix_lengths, prefix.len());
                }
            }
            Range::Between(..) => self.others.retain(|other| *other != id),
        }
    }

    /// Removes all watchers.
    pub(super) fn clear(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }

    /// True if nobody watches anything.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Delivers the changes of one revision to all whom they concern.
    pub(super) fn deliver(&mut self, revision: Revision, events: impl Iterator<Item = Event>) {
        let mut batches: BTreeMap<WatcherId, Vec<Event>> = BTreeMap::new();
        for event in events {
            for id in self.concerned(event.key()) {
                batches.entry(id).or_default().push(event.clone());
            }
        }
        for (id, events) in batches {
            let Some(watcher) = self.all.get(&id).filter(|watcher| watcher.from <= revision) else {
                continue;
            };
            if watcher.sender.try_send(WatchBatch { revision, events }).is_err() {
                self.remove(id);
            }
        }
    }

    fn concerned(&self, key: &str) -> Vec<WatcherId> {
        let mut ids: Vec<WatcherId> = self.by_key.get(key).cloned().unwrap_or_default();
        for length in self.prefix_lengths.keys().take_while(|length| **length <= key.len()) {
            if let Some(prefix) = key.get(..*length) {
                ids.extend(self.by_prefix.get(prefix).into_iter().flatten());
            }
        }
        ids.extend(self.others.iter().filter(|id| self.all[id].range.contains(key)));
        ids
    }
}

/// Takes `id` out of the list at `key`; true if that was the last one.
fn take_out(index: &mut BTreeMap<String, Vec<WatcherId>>, key: &str, id: WatcherId) -> bool {
    let Some(ids) = index.get_mut(key) else { return false };
    ids.retain(|other| *other != id);
    let is_last = ids.is_empty();
    if is_last {
        index.remove(key);
    }
    is_last
}

fn take_one(counts: &mut BTreeMap<usize, usize>, key: usize) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}
