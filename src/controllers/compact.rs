//! Keeps the store's history short. etcd keeps every change until somebody compacts it, and refuses writes once its
//! quota is full; nobody has to remember to do that by hand.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::mirror::Mirror;
use crate::store::Revision;
use crate::store::SharedStore;
use crate::store::StoreError;

/// Time between compactions.
const EVERY: Duration = Duration::from_secs(300);

/// Rounds of history kept: a watcher may be away for ten minutes without having to list everything again.
const ROUNDS_KEPT: usize = 2;

/// Compacts until cancelled. A new leader starts counting anew, so history is kept longer then, never shorter.
pub(super) async fn run(store: SharedStore, mirror: Arc<Mirror>, cancel: CancellationToken) {
    let mut seen: VecDeque<Revision> = VecDeque::new();
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        seen.push_back(mirror.revision());
        if seen.len() <= ROUNDS_KEPT {
            continue;
        }
        let Some(revision) = seen.pop_front() else { continue };
        match store.compact(revision).await {
            Ok(()) => tracing::debug!(revision, "history compacted"),
            // Somebody else did it, or nothing has changed since the last time.
            Err(StoreError::Compacted { .. }) => {}
            Err(error) => tracing::warn!(%error, revision, "cannot compact the store's history"),
        }
    }
}
