//! What the agent tells the cluster: newest value per key, in batches, guarded by its own lease, until written. What
//! the cluster waits for goes out at once and takes the rest along.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::agent::dice::Backoff;
use crate::agent::register::Lease;
use crate::clock::Clock;
use crate::model::allocation::AllocationReport;
use crate::model::allocation::ClientStatus;
use crate::model::id::AllocId;
use crate::model::id::NodeId;
use crate::model::service::ServiceRegistration;
use crate::store::Guard;
use crate::store::Op;
use crate::store::SharedStore;
use crate::store::StoreError;
use crate::store::Txn;
use crate::store::key::Key;
use crate::store::key::Keys;

/// Room left in a request for guards and framing, bytes.
const HEADROOM: usize = 64 << 10;

/// A write that took long is followed by a pause of this many times as long: a busy store gets fewer and larger
/// reports from thousands of agents, which cost it much less than many small ones. Nothing else slows down what is
/// urgent.
const PAUSE_PER_COST: u32 = 8;
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A reported key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Subject {
    Alloc(AllocId),
    Service(String),
}

/// What is waiting to be written and what was written. Clones share it.
#[derive(Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Notify,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct State {
    /// Newest value per key; `None` deletes.
    pending: BTreeMap<Subject, Option<Bytes>>,
    /// Since when something is pending, and whether the cluster waits for it. Taken when it is sent.
    since: Option<Instant>,
    urgent: bool,
    /// The status last reported of each allocation.
    status: HashMap<AllocId, ClientStatus>,
    /// Being written now; counts as written for comparison once it is.
    sending: BTreeMap<Subject, Option<Bytes>>,
    /// Fingerprint of the value in the store, per key.
    written: HashMap<Subject, u64>,
    /// Nothing is written before it is known what stands in the store.
    open: bool,
    /// Fingerprint of the value last asked for and not yet written.
    wanted: HashMap<Subject, Option<u64>>,
}

impl Outbox {
    /// Nothing to write yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let shared = Shared { state: Mutex::default(), changed: Notify::new(), clock };
        Self { shared: Arc::new(shared) }
    }

    /// Reports an allocation. An unchanged report is dropped; `modify_time` is filled in here. A new status goes out
    /// at once; that an allocation has arrived, and further events, may wait for what comes next.
    pub fn put_alloc(&self, alloc: AllocId, mut report: AllocationReport) {
        report.modify_time = 0;
        let status = report.client_status;
        let before = self.shared.state.lock().status.insert(alloc, status);
        let urgent = before.unwrap_or(ClientStatus::Pending) != status;
        let fingerprint = fingerprint(&encode(&report));
        report.modify_time = self.shared.clock.now().0;
        self.change(Subject::Alloc(alloc), Some((fingerprint, || encode(&report))), urgent);
    }

    /// Removes the report of an allocation.
    pub fn delete_alloc(&self, alloc: AllocId) {
        self.shared.state.lock().status.remove(&alloc);
        self.change(Subject::Alloc(alloc), None::<(u64, fn() -> Bytes)>, true);
    }

    /// Registers a service, or changes its registration.
    pub fn put_service(&self, registration: &ServiceRegistration) {
        let bytes = encode(registration);
        self.change(Subject::Service(registration.id.clone()), Some((fingerprint(&bytes), || bytes)), true);
    }

    /// Removes a registration.
    pub fn delete_service(&self, id: &str) {
        self.change(Subject::Service(id.to_owned()), None::<(u64, fn() -> Bytes)>, true);
    }

    /// True when everything has been written.
    pub fn is_empty(&self) -> bool {
        let state = self.shared.state.lock();
        state.pending.is_empty() && state.sending.is_empty()
    }

    fn change(&self, subject: Subject, value: Option<(u64, impl FnOnce() -> Bytes)>, urgent: bool) {
        let mut state = self.shared.state.lock();
        let fingerprint = value.as_ref().map(|(fingerprint, _)| *fingerprint);
        let current = match state.wanted.get(&subject) {
            Some(wanted) => *wanted,
            None => state.written.get(&subject).copied(),
        };
        if current == fingerprint {
            return;
        }
        if !state.sending.contains_key(&subject) && state.written.get(&subject).copied() == fingerprint {
            // Back to what is in the store before anything was sent.
            state.wanted.remove(&subject);
            state.pending.remove(&subject);
            return;
        }
        state.wanted.insert(subject.clone(), fingerprint);
        state.pending.insert(subject, value.map(|(_, bytes)| bytes()));
        state.since.get_or_insert_with(Instant::now);
        state.urgent |= urgent;
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Learns what stands in the store already (an earlier agent of this node wrote it).
    pub(super) fn learn_alloc(&self, alloc: AllocId, report: &AllocationReport) {
        let plain = AllocationReport { modify_time: 0, ..report.clone() };
        self.learn(Subject::Alloc(alloc), fingerprint(&encode(&plain)));
    }

    /// Everything in the store has been learned: writing may begin.
    pub(super) fn open(&self) {
        self.shared.state.lock().open = true;
        self.shared.changed.notify_one();
    }

    /// As `learn_alloc`, for a registration.
    pub(super) fn learn_service(&self, registration: &ServiceRegistration) {
        self.learn(Subject::Service(registration.id.clone()), fingerprint(&encode(registration)));
    }

    fn learn(&self, subject: Subject, fingerprint: u64) {
        let mut state = self.shared.state.lock();
        state.written.insert(subject.clone(), fingerprint);
        if state.wanted.get(&subject) == Some(&Some(fingerprint)) {
            state.wanted.remove(&subject);
            state.pending.remove(&subject);
        }
    }

    /// Moves what fits into one transaction from pending to sending.
    fn take(&self, layout: &Keys, node: NodeId, max_ops: usize, max_bytes: usize) -> Vec<Op> {
        let mut state = self.shared.state.lock();
        let mut ops = Vec::new();
        let mut bytes = 0;
        while ops.len() < max_ops
            && let Some((subject, value)) = state.pending.first_key_value()
        {
            let key = match subject {
                Subject::Alloc(alloc) => Key::AllocReport(node, *alloc),
                Subject::Service(id) => Key::Service(node, id.clone()),
            };
            let key = layout.text(&key);
            let op = match value {
                Some(value) => Op::put(key, value.clone()),
                None => Op::delete(key),
            };
            if !ops.is_empty() && bytes + op.size() > max_bytes {
                break;
            }
            bytes += op.size();
            ops.push(op);
            let (subject, value) = state.pending.pop_first().expect("seen just now");
            state.sending.insert(subject, value);
        }
        if state.pending.is_empty() {
            (state.since, state.urgent) = (None, false);
        }
        ops
    }

    /// What was being sent is in the store.
    fn sent(&self) {
        let mut state = self.shared.state.lock();
        for (subject, value) in std::mem::take(&mut state.sending) {
            if state.pending.contains_key(&subject) {
                // A newer value waits. What is in the store matters only once nothing is wanted any more.
                continue;
            }
            match (value, state.wanted.remove(&subject).flatten()) {
                (Some(_), Some(fingerprint)) => {
                    state.written.insert(subject, fingerprint);
                }
                _ => {
                    state.written.remove(&subject);
                }
            }
        }
    }

    /// What was being sent must be sent again, unless something newer has come.
    fn unsent(&self) {
        let mut state = self.shared.state.lock();
        for (subject, value) in std::mem::take(&mut state.sending) {
            state.pending.entry(subject).or_insert(value);
        }
        // What of it was urgent is not known any more.
        (state.since, state.urgent) = (Some(Instant::now()), true);
    }

    /// Drops what cannot be written at all.
    fn dropped(&self) {
        let mut state = self.shared.state.lock();
        for subject in std::mem::take(&mut state.sending).into_keys() {
            state.wanted.remove(&subject);
        }
    }

    /// Returns when something should be written: what the cluster waits for from `soonest` on, the rest once it has
    /// waited for `interval`.
    async fn wait_for_work(&self, soonest: Instant, interval: Duration) {
        loop {
            let changed = self.shared.changed.notified();
            let due = {
                let state = self.shared.state.lock();
                let since = state.since.filter(|_| state.open && !state.pending.is_empty());
                since.map(|since| if state.urgent { soonest } else { soonest.max(since + interval) })
            };
            match due {
                None => changed.await,
                Some(due) if due <= Instant::now() => return,
                Some(due) => tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    () = changed => {}
                },
            }
        }
    }
}

fn encode<T: serde::Serialize>(value: &T) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("reports have text keys only"))
}

fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// Writes the outbox to the store.
pub(super) struct Reporter {
    pub store: SharedStore,
    pub layout: Keys,
    pub node: NodeId,
    pub outbox: Outbox,
    pub lease: watch::Receiver<Lease>,
    /// Tells the registrar that the lease is not ours any more.
    pub lost: Arc<Notify>,
    pub interval: Duration,
    pub backoff: Backoff,
}

impl Reporter {
    /// Runs until it is dropped.
    pub async fn run(mut self) {
        let mut soonest = Instant::now();
        loop {
            self.outbox.wait_for_work(soonest, self.interval).await;
            let Ok(lease) = self.lease.wait_for(|lease| lease.id().is_some()).await.map(|lease| lease.id())
            else {
                return;
            };
            let began = Instant::now();
            if let Some(lease) = lease {
                self.flush(lease).await;
            }
            soonest = began + (began.elapsed() * PAUSE_PER_COST).min(PAUSE_MAX);
        }
    }

    /// Writes everything that is pending, or as much as goes well.
    async fn flush(&mut self, lease: i64) {
        let live = self.layout.text(&Key::NodeLive(self.node));
        let limits = self.store.limits();
        loop {
            let max_bytes = limits.request_bytes.saturating_sub(HEADROOM);
            let ops = self.outbox.take(&self.layout, self.node, limits.txn_ops, max_bytes);
            if ops.is_empty() {
                return;
            }
            let mut txn = Txn::when([Guard::Lease(live.clone(), lease)]);
            txn.then = ops;
            match self.store.commit(txn).await {
                Ok(outcome) if outcome.succeeded => {
                    self.outbox.sent();
                    self.backoff.reset();
                }
                Ok(_) => {
                    self.outbox.unsent();
                    self.lost.notify_one();
                    return self.backoff.wait().await;
                }
                Err(error @ StoreError::TooLarge { .. }) => {
                    // One value alone is too large: without it the others can go on.
                    tracing::error!(node = %self.node, %error, "a report cannot be written");
                    self.outbox.dropped();
                }
                Err(error @ StoreError::Ambiguous(_)) => {
                    // It may still arrive, after newer reports. Under a new lease it is void.
                    tracing::warn!(node = %self.node, %error, "a report got no answer, registering anew");
                    self.outbox.unsent();
                    self.lost.notify_one();
                    let _ = self.lease.wait_for(|held| held.id() != Some(lease)).await;
                    return;
                }
                Err(error) => {
                    tracing::warn!(node = %self.node, %error, "cannot report, trying again");
                    self.outbox.unsent();
                    return self.backoff.wait().await;
                }
            }
        }
    }
}
