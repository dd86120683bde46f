//! A store that misbehaves on purpose: the embedded one behind a connection that loses, repeats and delays.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use herder::agent::dice::Dice;
use herder::store::LeaseId;
use herder::store::ListOptions;
use herder::store::Listing;
use herder::store::Outcome;
use herder::store::Range;
use herder::store::Revision;
use herder::store::Store;
use herder::store::StoreError;
use herder::store::Txn;
use herder::store::WatchStream;
use herder::store::embedded::EmbeddedStore;
use parking_lot::Mutex;
use tokio::sync::watch;

/// What goes wrong at present, shared by all connections of a simulated cluster.
pub struct Faults {
    dice: Mutex<Dice>,
    /// Random faults happen while this is true.
    active: Mutex<bool>,
    /// Clients that are paused: their calls wait.
    paused: watch::Sender<BTreeSet<String>>,
    /// Everything is away.
    outage: watch::Sender<bool>,
}

impl Faults {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            dice: Mutex::new(Dice::seeded(seed)),
            active: Mutex::new(false),
            paused: watch::Sender::new(BTreeSet::new()),
            outage: watch::Sender::new(false),
        })
    }

    pub fn set_active(&self, active: bool) {
        *self.active.lock() = active;
    }

    pub fn pause(&self, client: &str) {
        self.paused.send_modify(|paused| {
            paused.insert(client.to_owned());
        });
    }

    pub fn resume(&self, client: &str) {
        self.paused.send_modify(|paused| {
            paused.remove(client);
        });
    }

    pub fn set_outage(&self, away: bool) {
        self.outage.send_replace(away);
    }

    /// True once in `odds` while faults are active.
    fn strikes(&self, odds: u64) -> bool {
        *self.active.lock() && self.dice.lock().next_u64().is_multiple_of(odds)
    }

    fn millis(&self, most: u64) -> Duration {
        Duration::from_millis(self.dice.lock().next_u64() % most)
    }
}

/// One client's connection.
#[derive(Clone)]
pub struct FaultyStore {
    pub inner: EmbeddedStore,
    pub faults: Arc<Faults>,
    pub client: String,
}

impl FaultyStore {
    /// Waits while this client is paused; fails while the store is away.
    async fn reach(&self) -> Result<(), StoreError> {
        let mut paused = self.faults.paused.subscribe();
        let _ = paused.wait_for(|paused| !paused.contains(&self.client)).await;
        if *self.faults.outage.borrow() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            return Err(StoreError::Unavailable("simulated outage".into()));
        }
        if self.faults.strikes(40) {
            return Err(StoreError::Unavailable("simulated connection loss".into()));
        }
        // Every call takes a moment, so that calls overlap.
        tokio::time::sleep(Duration::from_micros(200) + self.faults.millis(3)).await;
        Ok(())
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn list(&self, range: Range, options: ListOptions) -> Result<Listing, StoreError> {
        self.reach().await?;
        self.inner.list(range, options).await
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        self.reach().await?;
        if self.faults.strikes(50) {
            // A conflict that nobody can explain: the answer to the other branch.
            let refused = Txn { guards: Vec::new(), then: txn.otherwise.clone(), otherwise: Vec::new() };
            let outcome = self.inner.commit(refused).await?;
            return Ok(Outcome { succeeded: false, ..outcome });
        }
        if self.faults.strikes(60) {
            return Err(StoreError::Ambiguous("simulated: never arrived".into()));
        }
        if self.faults.strikes(60) {
            self.inner.commit(txn).await?;
            return Err(StoreError::Ambiguous("simulated: answer lost".into()));
        }
        if self.faults.strikes(60) {
            let (inner, delay) = (self.inner.clone(), self.faults.millis(4000));
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                let _ = inner.commit(txn).await;
            });
            return Err(StoreError::Ambiguous("simulated: arrives later".into()));
        }
        self.inner.commit(txn).await
    }

    async fn watch(&self, range: Range, from: Revision) -> Result<WatchStream, StoreError> {
        self.reach().await?;
        let stream = self.inner.watch(range, from).await?;
        let (faults, client) = (Arc::clone(&self.faults), self.client.clone());
        let unreliable = futures::stream::unfold(Some((stream, None)), move |state| {
            let (faults, client) = (Arc::clone(&faults), client.clone());
            async move {
                let (mut stream, repeat) = state?;
                if let Some(batch) = repeat {
                    return Some((Ok(batch), Some((stream, None))));
                }
                let mut paused = faults.paused.subscribe();
                let item = stream.next().await?;
                let _ = paused.wait_for(|paused| !paused.contains(&client)).await;
                let mut outage = faults.outage.subscribe();
                let _ = outage.wait_for(|away| !away).await;
                if faults.strikes(150) {
                    return Some((Err(StoreError::Unavailable("simulated cut".into())), None));
                }
                let repeat = item.as_ref().ok().filter(|_| faults.strikes(50)).cloned();
                Some((item, Some((stream, repeat))))
            }
        });
        Ok(unreliable.boxed())
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.reach().await?;
        self.inner.revision().await
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.reach().await?;
        self.inner.grant(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, StoreError> {
        self.reach().await?;
        self.inner.keep_alive(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.reach().await?;
        self.inner.revoke(lease).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.inner.compact(revision).await
    }

    fn describe(&self) -> String {
        format!("simulated connection of {}", self.client)
    }
}
