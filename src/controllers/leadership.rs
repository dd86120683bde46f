//! Who may write decisions: the server that holds the lease-bound key of the role. The fence, not the lease, is what
//! keeps an ex-leader from writing; the lease only decides when somebody else may try.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

use crate::mirror::Mirror;
use crate::store::Guard;
use crate::store::LeaseId;
use crate::store::Op;
use crate::store::SharedStore;
use crate::store::StoreError;
use crate::store::Txn;
use crate::store::key::Key;
use crate::store::key::Keys;

use super::commit::Fence;

/// The role that owns placements and everything else that controllers decide.
pub const ROLE: &str = "scheduler";

/// Lease time of a leader. etcd grants no less than two seconds.
pub const LEASE_TTL: Duration = Duration::from_secs(2);

/// Pause between attempts while the store is away, and between looks at the key without any event.
const RETRY: Duration = Duration::from_millis(500);

/// How long a new leader waits for its mirror to see its own election.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);

/// A server's standing for election.
pub struct Candidate {
    pub store: SharedStore,
    pub keys: Keys,
    pub mirror: Arc<Mirror>,
    /// What is written at the key: identifies this server to people and other servers.
    pub identity: Bytes,
}

/// One reign. Dropping it does not give up the lease; [`Term::resign`] does.
pub struct Term {
    pub fence: Fence,
    pub lease: LeaseId,
    /// Cancelled when leadership is or may be lost.
    pub lost: CancellationToken,
    /// Whoever drops the term stops renewing the lease: nobody leads without knowing it.
    pub guard: DropGuard,
}

impl Candidate {
    /// Waits until this server leads; `None` when cancelled. The mirror has then seen every commit of earlier leaders.
    pub async fn campaign(&self, cancel: &CancellationToken) -> Option<Term> {
        let mut revisions = self.mirror.subscribe();
        loop {
            let attempt = tokio::select! {
                biased;
                () = cancel.cancelled() => return None,
                attempt = self.try_once() => attempt,
            };
            match attempt {
                Ok(Some(term)) => return Some(term),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "cannot stand for election yet"),
            }
            // The key's deletion comes through the mirror; the pause covers a mirror that lost its watch.
            let deadline = Instant::now() + RETRY;
            loop {
                let taken = self.mirror.read().leaders.contains_key(ROLE);
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => return None,
                    () = tokio::time::sleep_until(deadline) => break,
                    changed = revisions.changed() => {
                        changed.ok()?;
                        if taken && !self.mirror.read().leaders.contains_key(ROLE) {
                            break;
                        }
                    }
                }
            }
        }
    }

    async fn try_once(&self) -> Result<Option<Term>, StoreError> {
        if self.mirror.revision() == 0 || self.mirror.read().leaders.contains_key(ROLE) {
            return Ok(None);
        }
        let key = self.keys.text(&Key::Leader(ROLE.to_owned()));
        let lease = self.store.grant(LEASE_TTL).await?;
        let put = Op::Put { key: key.clone(), value: self.identity.clone(), lease };
        let elected = self.store.commit(Txn::when([Guard::absent(key.as_str())]).and_then(put)).await;
        let revision = match elected {
            Ok(outcome) if outcome.succeeded => outcome.revision,
            Ok(_) => {
                let _ = self.store.revoke(lease).await;
                return Ok(None);
            }
            Err(error) => {
                // Unknown whether the key is ours: without its lease it cannot stay.
                let _ = self.store.revoke(lease).await;
                return Err(error);
            }
        };
        let lost = CancellationToken::new();
        let guard = lost.clone().drop_guard();
        tokio::spawn(keep(self.store.clone(), lease, lost.clone()));
        if !self.mirror.wait_for(revision, CATCH_UP_MAX).await {
            lost.cancel();
            let _ = self.store.revoke(lease).await;
            return Ok(None);
        }
        tracing::info!(revision, "this server leads");
        Ok(Some(Term { fence: Fence::new(key, self.identity.clone(), lease, revision), lease, lost, guard }))
    }
}

/// Renews the lease until told to stop, or until it is or may be gone.
async fn keep(store: SharedStore, lease: LeaseId, lost: CancellationToken) {
    let mut valid_until = Instant::now() + LEASE_TTL;
    let mut pause = LEASE_TTL / 4;
    loop {
        tokio::select! {
            biased;
            () = lost.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let asked = Instant::now();
        let answer = tokio::select! {
            biased;
            () = lost.cancelled() => return,
            answer = tokio::time::timeout_at(valid_until, store.keep_alive(lease)) => answer,
        };
        match answer {
            Ok(Ok(left)) => {
                valid_until = asked + left.min(LEASE_TTL * 4);
                pause = LEASE_TTL / 4;
            }
            Ok(Err(StoreError::LeaseNotFound)) => {
                tracing::warn!("leadership lost: the lease has ended");
                lost.cancel();
                return;
            }
            Ok(Err(error)) if Instant::now() < valid_until => {
                tracing::debug!(%error, "cannot renew the leader's lease");
                pause = LEASE_TTL / 20;
            }
            Ok(Err(_)) | Err(_) => {
                tracing::warn!("leadership given up: the lease could not be renewed in time");
                lost.cancel();
                return;
            }
        }
    }
}

impl Term {
    /// Gives the role up so that another server can take over at once.
    pub async fn resign(lease: LeaseId, store: &SharedStore) {
        if let Err(error) = store.revoke(lease).await {
            tracing::debug!(%error, "cannot give up the leader's lease, it will end by itself");
        }
    }
}
