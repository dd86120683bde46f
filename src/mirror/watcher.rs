//! Keeps a mirror exact: list everything at one revision, then watch from the next; after a compaction list again.
//!
//! Deliveries count as at-least-once and possibly lossy (etcd 3.4 has known bugs), so what is not newer than the
//! mirror is dropped, and the number of keys is compared now and then.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::store::ListOptions;
use crate::store::Range;
use crate::store::Revision;
use crate::store::SharedStore;
use crate::store::StoreError;
use crate::store::WatchBatch;
use crate::store::WatchStream;
use crate::store::key::Keys;

use super::Mirror;
use super::state::State;
use super::state::decode;
use super::state::decode_put;

/// Keys per page of a listing: smaller pages make etcd count the rest of the range again and again.
const PAGE: usize = 10_000;

/// How often the number of keys is compared with the store's.
const DRIFT_CHECK_EVERY: Duration = Duration::from_secs(60);

/// Waits between attempts while the store is away.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Where the watcher stands.
enum Phase {
    /// Everything must be listed.
    Listing,
    /// The mirror is exact as of `from - 1`.
    Watching { from: Revision },
}

/// Feeds `mirror` from `store` until cancelled. Errors are retried for ever; readers keep the last exact state.
pub async fn run(mirror: Arc<Mirror>, store: SharedStore, keys: Keys, cancel: CancellationToken) {
    let watcher = Watcher { mirror, store, keys };
    let mut phase = Phase::Listing;
    let mut backoff = BACKOFF_FIRST;
    loop {
        let started = Instant::now();
        let stepped = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            stepped = watcher.step(phase) => stepped,
        };
        phase = stepped.0;
        let Some(error) = stepped.1 else {
            backoff = BACKOFF_FIRST;
            continue;
        };
        if started.elapsed() > BACKOFF_MAX {
            backoff = BACKOFF_FIRST;
        }
        tracing::warn!(%error, "mirror lost the store, trying again in {backoff:?}");
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(backoff) => {}
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

struct Watcher {
    mirror: Arc<Mirror>,
    store: SharedStore,
    keys: Keys,
}

impl Watcher {
    /// Does what the phase asks for and returns the next phase, with the error that ended this one.
    async fn step(&self, phase: Phase) -> (Phase, Option<StoreError>) {
        match phase {
            Phase::Listing => match self.list().await {
                Ok(revision) => (Phase::Watching { from: revision + 1 }, None),
                Err(StoreError::Compacted { .. }) => (Phase::Listing, None),
                Err(error) => (Phase::Listing, Some(error)),
            },
            Phase::Watching { from } => match self.watch(from).await {
                // Never resume from the compacted revision: what happened before it was not seen.
                Ended::Error(StoreError::Compacted { .. }) => (Phase::Listing, None),
                Ended::Error(error) => (Phase::Watching { from: self.mirror.revision() + 1 }, Some(error)),
                Ended::Drifted => (Phase::Listing, None),
            },
        }
    }

    async fn list(&self) -> Result<Revision, StoreError> {
        let whole = Range::Prefix(self.keys.root().to_owned());
        let (_, end) = whole.bounds();
        let end = end.expect("a prefix has an end");
        let mut state = State::default();
        let mut touched = Vec::new();
        let mut range = whole.clone();
        let mut at = None;
        loop {
            let options = ListOptions { at, limit: PAGE, keys_only: false };
            let page = self.store.list(range, options).await?;
            let revision = *at.get_or_insert(page.revision);
            state.revision = revision;
            let Some(last) = page.items.last().map(|item| item.key.clone()) else { break };
            for item in &page.items {
                let mut change = decode_put(&self.keys, item);
                mark_new(&mut change);
                state.apply(item.mod_revision, change, &mut touched);
            }
            touched.clear();
            if !page.more {
                break;
            }
            range = Range::Between(format!("{last}\0"), end.clone());
        }
        let revision = state.revision;
        // Listed items do not come in revision order; a table's index is at least the listing's revision, so
        // that an index handed out before never goes back.
        for index in state.tables.values_mut() {
            *index = revision;
        }
        self.mirror.replace(state);
        Ok(revision)
    }

    async fn watch(&self, from: Revision) -> Ended {
        let range = Range::Prefix(self.keys.root().to_owned());
        let mut stream = match self.store.watch(range, from).await {
            Ok(stream) => stream,
            Err(error) => return Ended::Error(error),
        };
        let mut next_check = Instant::now() + DRIFT_CHECK_EVERY;
        loop {
            tokio::select! {
                biased;
                batch = stream.next() => match batch {
                    Some(Ok(batch)) => self.take(batch, &mut stream),
                    Some(Err(error)) => return Ended::Error(error),
                    None => return Ended::Error(StoreError::Unavailable("watch ended".into())),
                },
                () = tokio::time::sleep_until(next_check) => {
                    if self.has_drifted().await {
                        return Ended::Drifted;
                    }
                    next_check = Instant::now() + DRIFT_CHECK_EVERY;
                }
            }
        }
    }

    /// Applies a batch together with those that are already waiting: one lock and one wake-up for all.
    fn take(&self, first: WatchBatch, stream: &mut WatchStream) {
        const BATCHES_AT_ONCE: usize = 64;
        let mut revision = self.mirror.revision();
        let mut changes = Vec::with_capacity(first.events.len());
        // A delivery may be repeated: what is not newer than all before it is dropped.
        let mut push = |batch: WatchBatch| {
            for event in batch.events {
                if event.revision() > revision {
                    changes.push((event.revision(), decode(&self.keys, event)));
                }
            }
            revision = revision.max(batch.revision);
        };
        push(first);
        for _ in 0..BATCHES_AT_ONCE {
            // An error is left for the next turn of the loop: a stream that failed keeps saying so by ending.
            let Some(Some(Ok(batch))) = futures::FutureExt::now_or_never(stream.next()) else { break };
            push(batch);
        }
        self.mirror.apply(revision, changes);
    }

    /// Compares the number of keys at one revision. An error says nothing about drift.
    async fn has_drifted(&self) -> bool {
        let (revision, known) = {
            let state = self.mirror.read();
            (state.revision, state.key_count)
        };
        let range = Range::Prefix(self.keys.root().to_owned());
        let options = ListOptions { at: Some(revision), limit: 1, keys_only: true };
        match self.store.list(range, options).await {
            Ok(listing) if listing.count != known => {
                tracing::error!(revision, known, actual = listing.count, "mirror has drifted, listing anew");
                true
            }
            _ => false,
        }
    }
}

enum Ended {
    Error(StoreError),
    Drifted,
}

/// In a listing every key counts as new, whenever it was created.
fn mark_new(change: &mut super::state::Decoded) {
    use super::state::Decoded;
    match change {
        Decoded::Put(_, _, marks) | Decoded::Unreadable(_, marks) | Decoded::ForeignPut(marks) => {
            marks.is_new = true
        }
        Decoded::Delete(_) | Decoded::ForeignDelete => {}
    }
}
