//! Writes of controllers: many small units share a transaction, several transactions are under way at once, and
//! every one of them is fenced.
//!
//! The fence is the mod revision of the leader's key. A successor re-creates the key, so an ex-leader's late
//! transaction fails. After an answer was lost the leader rewrites its own key: transactions that are still on
//! their way fail from then on, and what the mirror shows after that revision is the truth.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::mirror::Mirror;
use crate::store::Guard;
use crate::store::Op;
use crate::store::Range;
use crate::store::Revision;
use crate::store::SharedStore;
use crate::store::StoreError;
use crate::store::Txn;

use super::Error;

/// Transactions under way at once. etcd applies one after another, so while thousands of agents report, each waits
/// behind theirs: placements then get through in proportion to how many of them stand in that line.
const IN_FLIGHT: usize = 32;
/// Units that may wait before submitters have to.
const WAITING_MAX: usize = 4096;
/// Share of the store's request limit that a transaction may fill.
const REQUEST_SHARE: usize = 2;
/// Pause between attempts while the store is away.
const RETRY: Duration = Duration::from_millis(200);
/// How long to wait for the mirror to catch up with a commit before giving the pass back to its queue.
const MIRROR_LAG_MAX: Duration = Duration::from_secs(30);

/// Writes that belong together: all are done, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    pub guards: Vec<Guard>,
    pub ops: Vec<Op>,
}

impl Unit {
    /// Writes without conditions of their own.
    pub fn of(ops: Vec<Op>) -> Self {
        Self { guards: Vec::new(), ops }
    }

    fn size(&self) -> usize {
        self.ops.iter().map(Op::size).sum()
    }
}

/// Proof of leadership.
#[derive(Debug)]
pub struct Fence {
    key: String,
    value: bytes::Bytes,
    lease: i64,
    /// Mod revision of the leader's key as this leader last wrote it.
    revision: Mutex<Revision>,
}

impl Fence {
    /// The leader's key, written at `revision` with this value and lease.
    pub fn new(key: String, value: bytes::Bytes, lease: i64, revision: Revision) -> Self {
        Self { key, value, lease, revision: Mutex::new(revision) }
    }

    fn guard(&self) -> Guard {
        Guard::ModRevision(self.key.clone(), *self.revision.lock())
    }
}

/// Where the outcome of a unit is awaited.
type Reply = oneshot::Sender<Result<Revision, Error>>;
type Request = (Unit, Reply);

/// Where controllers hand in their writes. Cheap to clone.
#[derive(Clone)]
pub struct Committer {
    requests: mpsc::Sender<Request>,
    mirror: Arc<Mirror>,
}

impl Committer {
    /// Starts the committing loop; it ends with `cancel`, or by itself when leadership is found lost (it then
    /// cancels `cancel`).
    pub fn start(store: SharedStore, mirror: Arc<Mirror>, fence: Fence, cancel: CancellationToken) -> Self {
        let (requests, receiver) = mpsc::channel(WAITING_MAX);
        let committing =
            Loop { store, mirror: Arc::clone(&mirror), fence: Arc::new(fence), cancel: cancel.clone() };
        tokio::spawn(committing.run(receiver));
        Self { requests, mirror }
    }

    /// Hands in one unit and waits until it is durable and visible in the mirror.
    ///
    /// # Errors
    /// [`Error::Conflict`] if a guard did not hold, [`Error::Fenced`] if another server rules,
    /// [`Error::Unsettled`] if the outcome was unknown (the mirror has been brought up to date).
    pub async fn commit(&self, unit: Unit) -> Result<Revision, Error> {
        let revision = self.submit(unit).await?;
        self.settle(revision).await?;
        Ok(revision)
    }

    /// Hands in units that do not depend on each other; waits for all.
    ///
    /// # Errors
    /// The first error; the other units may have been committed.
    pub async fn commit_all(&self, units: Vec<Unit>) -> Result<(), Error> {
        let results = futures::future::join_all(units.into_iter().map(|unit| self.submit(unit))).await;
        let mut newest = 0;
        let mut failed = None;
        for result in results {
            match result {
                Ok(revision) => newest = newest.max(revision),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        self.settle(newest).await?;
        failed.map_or(Ok(()), Err)
    }

    async fn submit(&self, unit: Unit) -> Result<Revision, Error> {
        let (sender, receiver) = oneshot::channel();
        self.requests.send((unit, sender)).await.map_err(|_| Error::Fenced)?;
        receiver.await.map_err(|_| Error::Fenced)?
    }

    async fn settle(&self, revision: Revision) -> Result<(), Error> {
        if self.mirror.wait_for(revision, MIRROR_LAG_MAX).await { Ok(()) } else { Err(Error::MirrorLags) }
    }
}

struct Loop {
    store: SharedStore,
    mirror: Arc<Mirror>,
    fence: Arc<Fence>,
    cancel: CancellationToken,
}

impl Loop {
    async fn run(self, mut requests: mpsc::Receiver<Request>) {
        let limits = self.store.limits();
        let mut in_flight = FuturesUnordered::new();
        let mut held: Option<Request> = None;
        loop {
            let first = match held.take() {
                Some(request) if in_flight.len() < IN_FLIGHT => request,
                kept => {
                    held = kept;
                    tokio::select! {
                        biased;
                        () = self.cancel.cancelled() => return,
                        Some(()) = in_flight.next(), if !in_flight.is_empty() => continue,
                        request = requests.recv(), if held.is_none() && in_flight.len() < IN_FLIGHT => {
                            match request {
                                Some(request) => request,
                                None => return,
                            }
                        }
                    }
                }
            };
            let mut batch = Batch::default();
            batch.push(first);
            while let Ok(request) = requests.try_recv() {
                // One operation is left for nothing in particular, one guard for the fence.
                if batch.fits(&request.0, limits.txn_ops, limits.request_bytes / REQUEST_SHARE) {
                    batch.push(request);
                } else {
                    held = Some(request);
                    break;
                }
            }
            in_flight.push(self.commit(batch));
        }
    }

    async fn commit(&self, batch: Batch) {
        let outcome = self.try_commit(&batch.guards, &batch.ops).await;
        match outcome {
            Err(Error::Conflict) if batch.senders.len() > 1 => {
                // Somebody's guard did not hold: each unit on its own, so that only that one fails.
                for (unit, sender) in batch.into_units() {
                    let outcome = self.try_commit(&unit.guards, &unit.ops).await;
                    let _ = sender.send(outcome);
                }
            }
            outcome => {
                for (_, sender) in batch.senders {
                    let _ = sender.send(outcome.clone());
                }
            }
        }
    }

    async fn try_commit(&self, guards: &[Guard], ops: &[Op]) -> Result<Revision, Error> {
        loop {
            let fence = self.fence.guard();
            let txn = Txn {
                guards: std::iter::once(fence.clone()).chain(guards.iter().cloned()).collect(),
                then: ops.to_vec(),
                otherwise: vec![Op::Get(Range::Key(self.fence.key.clone()))],
            };
            match self.store.commit(txn).await {
                Ok(outcome) if outcome.succeeded => {
                    crate::telemetry::observe_commit(ops.len());
                    return Ok(outcome.revision);
                }
                Ok(outcome) => {
                    let holder = outcome.gets.first().and_then(|listing| listing.items.first());
                    let current = holder.map_or(0, |item| item.mod_revision);
                    if fence == self.fence.guard()
                        && Guard::ModRevision(self.fence.key.clone(), current) != fence
                    {
                        tracing::warn!("another server rules, stepping down");
                        self.cancel.cancel();
                        return Err(Error::Fenced);
                    }
                    if fence != self.fence.guard() {
                        // The fence was moved after another unit's answer was lost: plan anew on a mirror that
                        // has seen the move.
                        let moved = *self.fence.revision.lock();
                        self.mirror.wait_for(moved, MIRROR_LAG_MAX).await;
                        return Err(Error::Unsettled);
                    }
                    return Err(Error::Conflict);
                }
                Err(StoreError::Unavailable(_)) if !self.cancel.is_cancelled() => {
                    tokio::time::sleep(RETRY).await;
                }
                Err(StoreError::Ambiguous(_)) => {
                    self.move_fence().await?;
                    return Err(Error::Unsettled);
                }
                Err(error) => return Err(Error::Store(error)),
            }
        }
    }

    /// Makes transactions with a lost answer either visible or void.
    async fn move_fence(&self) -> Result<(), Error> {
        while !self.cancel.is_cancelled() {
            let seen = *self.fence.revision.lock();
            let put = Op::Put {
                key: self.fence.key.clone(),
                value: self.fence.value.clone(),
                lease: self.fence.lease,
            };
            // Held by the lease, not by the revision: an earlier attempt to move it may have been applied.
            let txn = Txn::when([Guard::Lease(self.fence.key.clone(), self.fence.lease)]).and_then(put);
            match self.store.commit(txn).await {
                Ok(outcome) if outcome.succeeded => {
                    {
                        let mut revision = self.fence.revision.lock();
                        *revision = outcome.revision.max(*revision).max(seen);
                    }
                    if self.mirror.wait_for(outcome.revision, MIRROR_LAG_MAX).await {
                        return Ok(());
                    }
                    return Err(Error::MirrorLags);
                }
                Ok(_) | Err(StoreError::LeaseNotFound) => {
                    self.cancel.cancel();
                    return Err(Error::Fenced);
                }
                Err(error) if error.is_transient() => tokio::time::sleep(RETRY).await,
                Err(error) => return Err(Error::Store(error)),
            }
        }
        Err(Error::Fenced)
    }
}

/// Units that share a transaction.
#[derive(Default)]
struct Batch {
    guards: Vec<Guard>,
    ops: Vec<Op>,
    bytes: usize,
    /// Number of guards and operations of each unit, with the one who waits for it.
    senders: Vec<((usize, usize), Reply)>,
}

impl Batch {
    fn fits(&self, unit: &Unit, ops: usize, bytes: usize) -> bool {
        let clashes = |op: &Op| match op {
            Op::Put { key, .. } => self.ops.iter().any(|own| touches(own, key)),
            Op::Delete(_) => true,
            Op::Get(_) => false,
        };
        self.ops.len() + unit.ops.len() <= ops
            && self.guards.len() + unit.guards.len() < ops
            && self.bytes + unit.size() <= bytes
            // Units with conditions or deletions travel alone: rare, and simpler to settle.
            && unit.guards.is_empty()
            && self.guards.is_empty()
            && !self.ops.iter().any(|op| matches!(op, Op::Delete(_)))
            && !unit.ops.iter().any(clashes)
    }

    fn push(&mut self, (unit, sender): Request) {
        self.bytes += unit.size();
        self.senders.push(((unit.guards.len(), unit.ops.len()), sender));
        self.guards.extend(unit.guards);
        self.ops.extend(unit.ops);
    }

    fn into_units(self) -> Vec<Request> {
        let mut guards = self.guards.into_iter();
        let mut ops = self.ops.into_iter();
        let mut units = Vec::with_capacity(self.senders.len());
        for ((guard_count, op_count), sender) in self.senders {
            let unit = Unit {
                guards: guards.by_ref().take(guard_count).collect(),
                ops: ops.by_ref().take(op_count).collect(),
            };
            units.push((unit, sender));
        }
        units
    }
}

fn touches(op: &Op, key: &str) -> bool {
    match op {
        Op::Put { key: own, .. } => own == key,
        Op::Delete(range) => range.contains(key),
        Op::Get(_) => false,
    }
}
