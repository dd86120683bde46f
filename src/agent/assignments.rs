//! What the cluster wants of this node: a list and a watch of its own `desired/` keys, turned into calls of the
//! workload. Work is never stopped because a listing is empty; see [`Trust`].

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::agent::dice::Backoff;
use crate::agent::dice::Dice;
use crate::agent::jobs::JobCache;
use crate::agent::jobs::JobKey;
use crate::agent::jobs::fetch;
use crate::agent::ledger::Ledger;
use crate::agent::register::Lease;
use crate::agent::report::Outbox;
use crate::agent::workload::Workload;
use crate::model::allocation::Allocation;
use crate::model::allocation::AllocationReport;
use crate::model::allocation::ClientStatus;
use crate::model::id::AllocId;
use crate::model::id::NodeId;
use crate::model::identity::Tokens;
use crate::model::node::NodeControl;
use crate::store::Event;
use crate::store::KeyValue;
use crate::store::ListOptions;
use crate::store::Range;
use crate::store::Revision;
use crate::store::SharedStore;
use crate::store::StoreError;
use crate::store::WatchBatch;
use crate::store::key::Key;
use crate::store::key::Keys;

/// Keys per page of a listing.
const PAGE: usize = 1000;

/// Where the watcher stands.
enum State {
    /// Reading everything, all pages at one revision.
    Listing,
    /// Following changes from this revision on.
    Watching { from: Revision },
}

/// May the absence of an allocation be taken for an order to end it?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// The listing carries the cluster's id and no older epoch.
    Full,
    /// No control record: orders that are there count, absences do not.
    Additions,
    /// Another cluster, or an older state of ours: nothing counts.
    Nothing,
}

/// An allocation as last seen.
struct Assigned {
    revision: Revision,
}

/// Follows the orders for this node.
pub(super) struct Assignments {
    pub store: SharedStore,
    pub layout: Keys,
    pub node: NodeId,
    pub jobs: JobCache,
    pub ledger: Ledger,
    pub outbox: Outbox,
    /// Whether the node id is ours.
    pub lease: watch::Receiver<Lease>,
    pub workload: Arc<dyn Workload>,
    pub resync: Duration,
    pub dice: Dice,
    pub backoff: Backoff,
    pub trust: TrustState,
    pub assigned: Known,
}

/// What listings have shown so far.
#[derive(Default)]
pub(super) struct TrustState {
    current: Option<Trust>,
    /// The newest revision that was applied.
    seen: Revision,
}

/// The allocations that are known, and those that ended before this agent's memory begins.
#[derive(Default)]
pub(super) struct Known {
    assigned: BTreeMap<AllocId, Assigned>,
    ended: BTreeSet<AllocId>,
}

impl Assignments {
    /// Runs until it is dropped.
    pub async fn run(mut self) {
        let mut lease = self.lease.clone();
        // Nothing is started under an id that another agent may hold: its tasks would run twice.
        if lease.wait_for(|lease| lease.id().is_some()).await.is_err() {
            return;
        }
        while let Err(error) = self.read_reports().await {
            tracing::warn!(node = %self.node, %error, "cannot read earlier reports, trying again");
            self.backoff.wait().await;
        }
        let mut state = State::Listing;
        loop {
            let step = async {
                match state {
                    State::Listing => self.list().await,
                    State::Watching { from } => self.watch(from).await,
                }
            };
            let next = tokio::select! {
                biased;
                refused = lease.wait_for(|lease| matches!(lease, Lease::Refused(_))) => {
                    if refused.is_err() {
                        return;
                    }
                    None
                }
                next = step => Some(next),
            };
            let Some(next) = next else {
                // Another agent took the id meanwhile: the orders are meant for it.
                if lease.wait_for(|lease| lease.id().is_some()).await.is_err() {
                    return;
                }
                state = State::Listing;
                continue;
            };
            state = match next {
                Ok(state) => state,
                Err(error) => {
                    tracing::debug!(node = %self.node, %error, "cannot follow the assignments, trying again");
                    self.backoff.wait().await;
                    State::Listing
                }
            };
        }
    }

    /// Learns what this node has reported before, so that nothing is written twice and what ended is not run
    /// again after the loss of the ledger.
    async fn read_reports(&mut self) -> Result<(), StoreError> {
        let mut services = Vec::new();
        let mut allocs = Vec::new();
        for item in self.pages(self.layout.reported(self.node)).await?.1 {
            match self.layout.parse(&item.key) {
                Some(Key::AllocReport(_, id)) => {
                    let report: AllocationReport = serde_json::from_slice(&item.value).unwrap_or_default();
                    allocs.push((id, report));
                }
                Some(Key::Service(..)) => {
                    services.extend(serde_json::from_slice(&item.value).ok());
                }
                _ => {}
            }
        }
        for (id, report) in allocs {
            self.outbox.learn_alloc(id, &report);
            if matches!(report.client_status, ClientStatus::Complete | ClientStatus::Failed) {
                self.assigned.ended.insert(id);
            } else if !self.workload.knows(id) {
                // Still wanted or not, the next listing decides; until then it counts as assigned.
                self.assigned.assigned.insert(id, Assigned { revision: 0 });
            }
        }
        for registration in &services {
            self.outbox.learn_service(registration);
            if !self.workload.knows(registration.alloc_id) {
                self.outbox.delete_service(&registration.id);
            }
        }
        self.outbox.open();
        Ok(())
    }

    /// All keys of a prefix, every page as of the revision of the first.
    async fn pages(&self, prefix: String) -> Result<(Revision, Vec<KeyValue>), StoreError> {
        let mut range = Range::Prefix(prefix.clone());
        let mut options = ListOptions { limit: PAGE, ..ListOptions::default() };
        let mut items: Vec<KeyValue> = Vec::new();
        loop {
            let listing = self.store.list(range, options.clone()).await?;
            options.at = Some(listing.revision);
            items.extend(listing.items);
            match items.last() {
                Some(last) if listing.more => {
                    let end = Range::Prefix(prefix.clone()).bounds().1.unwrap_or_default();
                    range = Range::Between(format!("{}\0", last.key), end);
                }
                _ => return Ok((listing.revision, items)),
            }
        }
    }

    async fn list(&mut self) -> Result<State, StoreError> {
        let (revision, items) = self.pages(self.layout.desired(self.node)).await?;
        let control_key = self.layout.text(&Key::Control(self.node));
        let control = items.iter().find(|item| item.key == control_key);
        let trust = self.judge(control, revision).await;
        if trust == Trust::Nothing {
            // Look again later: an operator may point the agent or the store back.
            return Err(StoreError::Other("the listing is not this cluster's newest".to_owned()));
        }
        self.backoff.reset();
        let mut present = BTreeSet::new();
        let mut changed = Vec::new();
        for item in &items {
            let Some(Key::Alloc(_, id)) = self.layout.parse(&item.key) else { continue };
            present.insert(id);
            if self.assigned.assigned.get(&id).is_none_or(|known| known.revision != item.mod_revision) {
                changed.extend(self.read(id, item));
            }
        }
        if trust == Trust::Full {
            let mut gone: BTreeSet<AllocId> = self.assigned.assigned.keys().copied().collect();
            gone.extend(&self.assigned.ended);
            gone.extend(self.workload.known());
            gone.retain(|id| !present.contains(id));
            gone.into_iter().for_each(|id| self.forget(id));
        }
        self.apply(changed).await?;
        items.iter().for_each(|item| self.hand_over_tokens(item));
        self.trust.seen = self.trust.seen.max(revision);
        Ok(State::Watching { from: revision + 1 })
    }

    /// Decides what a listing or batch is worth, and remembers the cluster at first sight.
    async fn judge(&mut self, control: Option<&KeyValue>, revision: Revision) -> Trust {
        let trust = self.weigh(control, revision).await;
        if self.trust.current != Some(trust) && trust != Trust::Full {
            tracing::warn!(node = %self.node, ?trust, "the store does not show this cluster's newest state: work goes on");
        }
        self.trust.current = Some(trust);
        trust
    }

    async fn weigh(&mut self, control: Option<&KeyValue>, revision: Revision) -> Trust {
        let last = self.ledger.meta();
        let Some(item) = control else { return Trust::Additions };
        let Ok(control) = serde_json::from_slice::<NodeControl>(&item.value) else { return Trust::Additions };
        let foreign = !last.cluster_id.is_empty() && last.cluster_id != control.cluster_id;
        let stale = control.epoch < last.epoch;
        let rewound = revision < self.trust.seen && control.epoch == last.epoch;
        if foreign || stale || rewound {
            tracing::error!(
                node = %self.node, cluster = %control.cluster_id, epoch = control.epoch, known_cluster = %last.cluster_id,
                known_epoch = last.epoch, rewound, "orders are ignored: they come from another cluster or an older state"
            );
            return Trust::Nothing;
        }
        if control.epoch > last.epoch {
            // Revisions of a restored store begin anew.
            self.trust.seen = 0;
        }
        let remembered = self.ledger.update_meta(|meta| {
            meta.cluster_id = control.cluster_id;
            meta.epoch = control.epoch;
        });
        if let Err(error) = remembered.await {
            tracing::error!(%error, "cannot remember the cluster");
        }
        Trust::Full
    }

    fn read(&self, id: AllocId, item: &KeyValue) -> Option<(Revision, Allocation)> {
        match serde_json::from_slice::<Allocation>(&item.value) {
            Ok(mut allocation) => {
                allocation.id = id;
                allocation.node_id = self.node;
                Some((item.mod_revision, allocation))
            }
            Err(error) => {
                tracing::error!(key = %item.key, %error, "an assigned allocation cannot be read");
                None
            }
        }
    }

    async fn watch(&mut self, from: Revision) -> Result<State, StoreError> {
        let mut stream = match self.store.watch(Range::Prefix(self.layout.desired(self.node)), from).await {
            Ok(stream) => stream,
            Err(StoreError::Compacted { .. }) => return Ok(State::Listing),
            Err(error) => return Err(error),
        };
        // A watch may die without a word: look at the whole from time to time.
        let resync = Instant::now() + self.dice.jitter(self.resync);
        loop {
            let batch = tokio::select! {
                batch = stream.next() => batch,
                () = tokio::time::sleep_until(resync) => return Ok(State::Listing),
            };
            match batch {
                Some(Ok(batch)) => {
                    if self.follow(batch).await? {
                        return Ok(State::Listing);
                    }
                }
                Some(Err(StoreError::Compacted { .. })) | None => return Ok(State::Listing),
                Some(Err(error)) => return Err(error),
            }
        }
    }

    /// Applies the changes of one or more revisions; true if everything must be listed anew.
    async fn follow(&mut self, batch: WatchBatch) -> Result<bool, StoreError> {
        let control_key = self.layout.text(&Key::Control(self.node));
        for event in batch.events.iter().filter(|event| event.key() == control_key) {
            let before = self.trust.current;
            let control = match event {
                Event::Put(item) => Some(item),
                Event::Delete(..) => None,
            };
            let now = self.judge(control, batch.revision).await;
            if now == Trust::Nothing || (now == Trust::Full && before != Some(Trust::Full)) {
                return Ok(true);
            }
        }
        let mut changed = Vec::new();
        for event in &batch.events {
            let Some(Key::Alloc(_, id)) = self.layout.parse(event.key()) else { continue };
            let known = self.assigned.assigned.get(&id).map_or(0, |known| known.revision);
            match event {
                // Delivery is at least once.
                Event::Put(item) if item.mod_revision > known => changed.extend(self.read(id, item)),
                Event::Delete(_, revision)
                    if *revision > known && self.trust.current == Some(Trust::Full) =>
                {
                    self.forget(id);
                }
                _ => {}
            }
        }
        self.apply(changed).await?;
        for event in &batch.events {
            if let Event::Put(item) = event {
                self.hand_over_tokens(item);
            }
        }
        self.trust.seen = self.trust.seen.max(batch.revision);
        Ok(false)
    }

    /// Gives an allocation its tokens, if that is what stands at this key. Without tokens it keeps those it has.
    fn hand_over_tokens(&self, item: &KeyValue) {
        let Some(Key::AllocTokens(_, id)) = self.layout.parse(&item.key) else { return };
        match serde_json::from_slice::<Tokens>(&item.value) {
            Ok(tokens) => self.workload.take_tokens(id, tokens),
            Err(error) => {
                tracing::error!(key = %item.key, %error, "the tokens of an allocation cannot be read")
            }
        }
    }

    fn forget(&mut self, id: AllocId) {
        self.assigned.assigned.remove(&id);
        self.assigned.ended.remove(&id);
        if self.workload.knows(id) {
            self.workload.forget(id);
        } else {
            self.outbox.delete_alloc(id);
        }
    }

    /// Hands changed allocations to the workload, with their jobs.
    async fn apply(&mut self, changed: Vec<(Revision, Allocation)>) -> Result<(), StoreError> {
        if changed.is_empty() {
            return Ok(());
        }
        let mut wanted = Vec::new();
        for (revision, allocation) in changed {
            let id = allocation.id;
            if !allocation.is_wanted() {
                self.stop(allocation);
            } else if self.workload.knows(id) || !self.assigned.ended.contains(&id) {
                wanted.push((revision, allocation));
                continue;
            }
            self.assigned.assigned.insert(id, Assigned { revision });
        }
        let keys: BTreeSet<JobKey> = wanted.iter().map(|(_, allocation)| JobKey::of(allocation)).collect();
        let jobs = fetch(&*self.store, &self.layout, &self.jobs, keys).await?;
        for (revision, allocation) in wanted {
            let id = allocation.id;
            let key = JobKey::of(&allocation);
            match jobs.get(&key) {
                Some(job) => self.workload.run(Arc::new(allocation), Arc::clone(job)),
                None if self.workload.knows(id) => {
                    tracing::error!(alloc = %id, job = %key, "the job version does not exist: keeping the present one");
                }
                None => self.refuse(id, format!("job {key} not found")),
            }
            self.assigned.assigned.insert(id, Assigned { revision });
        }
        Ok(())
    }

    fn stop(&mut self, allocation: Allocation) {
        let id = allocation.id;
        if self.workload.knows(id) {
            self.workload.stop(Arc::new(allocation));
        } else if self.assigned.ended.insert(id) {
            // Never started here: nothing to end, but the cluster waits for the word.
            let report =
                AllocationReport { client_status: ClientStatus::Complete, ..AllocationReport::default() };
            self.outbox.put_alloc(id, report);
        }
    }

    fn refuse(&mut self, id: AllocId, reason: String) {
        self.assigned.ended.insert(id);
        let report = AllocationReport {
            client_status: ClientStatus::Failed,
            client_description: reason.clone(),
            rejected: reason,
            ..AllocationReport::default()
        };
        self.outbox.put_alloc(id, report);
    }
}
