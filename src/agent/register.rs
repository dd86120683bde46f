//! Registration: a lease, `reported/live` bound to it, `reported/info` written when it changed. Tried for ever; tasks
//! do not depend on it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::agent::dice::Backoff;
use crate::agent::identity::Identity;
use crate::agent::ledger::Ledger;
use crate::model::node::NodeInfo;
use crate::model::node::NodeLive;
use crate::store::Guard;
use crate::store::KeyValue;
use crate::store::LeaseId;
use crate::store::Op;
use crate::store::SharedStore;
use crate::store::StoreError;
use crate::store::Txn;
use crate::store::key::Key;
use crate::store::key::Keys;

/// Renewals per time to live: two may be lost.
const RENEWALS_PER_TTL: u32 = 3;
/// The store is asked this much faster while it does not answer.
const RETRIES_PER_RENEWAL: u32 = 4;

/// The agent's claim on its node id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Lease {
    /// Not registered (yet, or any more).
    #[default]
    None,
    /// Registered: `reported/live` is bound to this lease.
    Held(LeaseId),
    /// Another agent holds the node id; the text says which.
    Refused(String),
}

impl Lease {
    /// The lease, if registered.
    pub fn id(&self) -> Option<LeaseId> {
        match self {
            Self::Held(id) => Some(*id),
            Self::None | Self::Refused(_) => None,
        }
    }
}

/// Can the store be reached?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    Connected,
    /// Not since this moment.
    Lost(Instant),
}

/// Why a registration did not succeed.
#[derive(Debug, thiserror::Error)]
enum RegisterError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("another agent took part in the registration, looking again")]
    Conflict,
    #[error(
        "node id {node} is in use by another agent (session {session}, boot {boot}); stop it, or give one of \
         the machines a new id by deleting client-id in its data directory", node = .0, session = .1, boot = .2
    )]
    InUse(String, String, String),
}

/// Keeps the agent registered.
pub(super) struct Registrar {
    pub store: SharedStore,
    pub layout: Keys,
    pub identity: Identity,
    pub live: NodeLive,
    pub info: watch::Receiver<Arc<NodeInfo>>,
    pub ledger: Ledger,
    pub lease: watch::Sender<Lease>,
    pub contact: watch::Sender<Contact>,
    /// Somebody saw that the lease is gone.
    pub lost: Arc<Notify>,
    pub ttl: Duration,
    pub backoff: Backoff,
    /// What is known to stand at `reported/info`.
    pub written_info: Option<Arc<NodeInfo>>,
}

impl Registrar {
    /// Runs until it is dropped.
    pub async fn run(mut self) {
        loop {
            match self.register().await {
                Ok(lease) => {
                    self.backoff.reset();
                    self.contact.send_if_modified(|contact| {
                        std::mem::replace(contact, Contact::Connected) != Contact::Connected
                    });
                    tracing::debug!(node = %self.identity.node, lease, "registered");
                    self.lease.send_replace(Lease::Held(lease));
                    self.hold(lease).await;
                    self.lease.send_replace(Lease::None);
                }
                Err(error) => self.postpone(&error).await,
            }
        }
    }

    async fn postpone(&mut self, error: &RegisterError) {
        match error {
            RegisterError::InUse(..) => {
                tracing::error!(node = %self.identity.node, %error, "cannot register");
                self.lease.send_replace(Lease::Refused(error.to_string()));
                tokio::time::sleep(self.ttl / 2).await;
            }
            RegisterError::Conflict => self.backoff.wait().await,
            RegisterError::Store(cause) => {
                tracing::warn!(node = %self.identity.node, error = %cause, "cannot register, trying again");
                self.lose_contact(Instant::now());
                self.backoff.wait().await;
            }
        }
    }

    fn lose_contact(&self, since: Instant) {
        self.contact.send_if_modified(|contact| {
            let connected = *contact == Contact::Connected;
            if connected {
                *contact = Contact::Lost(since);
            }
            connected
        });
    }

    async fn register(&mut self) -> Result<LeaseId, RegisterError> {
        let live_key = self.layout.text(&Key::NodeLive(self.identity.node));
        let (_, seen) = self.store.get(&live_key).await?;
        let guard = self.claim(&live_key, seen.as_ref())?;
        let info = self.info.borrow_and_update().clone();
        if self.written_info.is_none() {
            self.written_info = self.read_info().await?;
        }
        // Remembered before it is claimed: after a crash in between, the claim is known to be ours.
        let Identity { session_id, boot_id, .. } = self.identity.clone();
        let remembered = self.ledger.update_meta(|meta| {
            meta.session_id = session_id;
            meta.boot_id = boot_id;
        });
        if let Err(error) = remembered.await {
            tracing::error!(%error, "cannot remember the registration");
        }
        let lease = self.store.grant(self.ttl).await?;
        let live = serde_json::to_vec(&self.live).expect("plain data");
        let mut txn = Txn::when([guard]);
        txn.then.push(Op::Put { key: live_key, value: live.into(), lease });
        if self.written_info.as_ref() != Some(&info) {
            txn.then.push(self.info_op(&info));
        }
        let outcome = self.store.commit(txn).await;
        match outcome {
            Ok(outcome) if outcome.succeeded => {
                self.written_info = Some(info);
                Ok(lease)
            }
            other => {
                // The lease is of no use any more; if it cannot be ended now it ends by itself.
                let _ = self.store.revoke(lease).await;
                Err(other.map_or_else(RegisterError::Store, |_| RegisterError::Conflict))
            }
        }
    }

    /// The condition under which the node id is ours to claim.
    fn claim(&self, live_key: &str, seen: Option<&KeyValue>) -> Result<Guard, RegisterError> {
        let Some(item) = seen else { return Ok(Guard::absent(live_key)) };
        let holder: NodeLive = serde_json::from_slice(&item.value).unwrap_or_default();
        let last = self.ledger.meta();
        let own = holder.session_id == self.identity.session_id;
        // The process before this one, on the same boot of the same machine, is gone: it held the ledger.
        let former = holder.session_id == last.session_id
            && holder.boot_id == last.boot_id
            && holder.boot_id == self.identity.boot_id;
        if own || former {
            return Ok(Guard::unchanged(item));
        }
        Err(RegisterError::InUse(self.identity.node.to_string(), holder.session_id, holder.boot_id))
    }

    async fn read_info(&self) -> Result<Option<Arc<NodeInfo>>, StoreError> {
        let (_, item) = self.store.get(&self.layout.text(&Key::NodeInfo(self.identity.node))).await?;
        Ok(item.and_then(|item| serde_json::from_slice(&item.value).ok()).map(Arc::new))
    }

    fn info_op(&self, info: &NodeInfo) -> Op {
        let value = serde_json::to_vec(info).expect("plain data");
        Op::put(self.layout.text(&Key::NodeInfo(self.identity.node)), value)
    }

    /// Renews the lease and writes changed information until the lease is lost.
    async fn hold(&mut self, lease: LeaseId) {
        let pace = self.ttl / RENEWALS_PER_TTL;
        let mut renewed = Instant::now();
        let mut next = renewed + pace;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => {
                    let asked = Instant::now();
                    match self.store.keep_alive(lease).await {
                        Ok(_) => {
                            renewed = asked;
                            next = asked + pace;
                            self.contact.send_if_modified(|contact| {
                                std::mem::replace(contact, Contact::Connected) != Contact::Connected
                            });
                        }
                        Err(StoreError::LeaseNotFound) => {
                            tracing::warn!(node = %self.identity.node, lease, "the lease is lost");
                            return;
                        }
                        Err(error) => {
                            tracing::debug!(node = %self.identity.node, %error, "cannot renew the lease");
                            self.lose_contact(renewed);
                            next = Instant::now() + pace / RETRIES_PER_RENEWAL;
                        }
                    }
                }
                () = self.lost.notified() => return,
                changed = self.info.changed() => {
                    if changed.is_err() || self.write_info(lease).await.is_err() {
                        // The handle is gone, or the change has to wait for the next registration or renewal.
                        tokio::time::sleep(pace / RETRIES_PER_RENEWAL).await;
                        self.info.mark_changed();
                        if self.store.keep_alive(lease).await == Err(StoreError::LeaseNotFound) {
                            return;
                        }
                    }
                }
            }
        }
    }

    async fn write_info(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        let info = self.info.borrow_and_update().clone();
        if self.written_info.as_ref() == Some(&info) {
            return Ok(());
        }
        let live_key = self.layout.text(&Key::NodeLive(self.identity.node));
        let txn = Txn::when([Guard::Lease(live_key, lease)]).and_then(self.info_op(&info));
        if self.store.commit(txn).await?.succeeded {
            self.written_info = Some(info);
        } else {
            self.lost.notify_one();
        }
        Ok(())
    }
}
