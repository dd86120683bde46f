//! The server role: its settings, and its entry in the list of servers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::AgentConfig;
use crate::controllers::Random;
use crate::controllers::Settings;
use crate::controllers::job::decide::encode;
use crate::controllers::job::record;
use crate::controllers::reap::Thresholds;
use crate::mirror::Mirror;
use crate::model::id::EvalId;
use crate::model::job::Job;
use crate::store::Guard;
use crate::store::Op;
use crate::store::SharedStore;
use crate::store::StoreError;
use crate::store::Txn;
use crate::store::key::Key;
use crate::store::key::Keys;

/// A server that died is listed this long.
const LISTED_TTL: Duration = Duration::from_secs(15);
/// Pause between attempts while the store is away.
const RETRY: Duration = Duration::from_secs(1);

/// What the configuration says to controllers.
pub(super) fn settings(config: &AgentConfig) -> Settings {
    let server = &config.server;
    Settings {
        region: config.region.clone(),
        heartbeat_grace: server.heartbeat_grace,
        oidc_issuer: server.oidc_issuer.clone(),
        reap: Thresholds {
            evaluation: server.eval_gc_threshold,
            deployment: server.deployment_gc_threshold,
            job: server.job_gc_threshold,
            node: server.node_gc_threshold,
            ..Thresholds::default()
        },
    }
}

/// Keeps this server in the list of servers.
pub(super) async fn register(
    store: SharedStore,
    keys: Keys,
    id: String,
    identity: Bytes,
    cancel: CancellationToken,
) {
    let key = keys.text(&Key::Server(id));
    let mut held = None;
    while !cancel.is_cancelled() {
        match listed(&store, &key, &identity, &cancel).await {
            Ok(lease) => {
                held = Some(lease);
                break;
            }
            Err(error) => {
                tracing::debug!(%error, "this server is not listed at present");
                tokio::select! {
                    () = cancel.cancelled() => {}
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
        }
    }
    if let Some(lease) = held {
        // A clean end leaves the list at once.
        let _ = store.revoke(lease).await;
    }
}

/// Holds the entry until cancelled; the lease that must then be ended.
async fn listed(
    store: &SharedStore,
    key: &str,
    identity: &Bytes,
    cancel: &CancellationToken,
) -> Result<i64, StoreError> {
    let lease = store.grant(LISTED_TTL).await?;
    let put = Op::Put { key: key.to_owned(), value: identity.clone(), lease };
    store.commit(Txn::default().and_then(put)).await?;
    loop {
        tokio::select! {
            () = cancel.cancelled() => return Ok(lease),
            () = tokio::time::sleep(LISTED_TTL / 3) => {}
        }
        match store.keep_alive(lease).await {
            Ok(_) => {}
            Err(error) if error.is_transient() => tracing::debug!(%error, "cannot renew the server's entry"),
            Err(error) => return Err(error),
        }
    }
}

/// Stops every job, as a user would.
pub(super) async fn stop_all_jobs(
    store: &SharedStore,
    keys: &Keys,
    mirror: &Arc<Mirror>,
    clock: &dyn Clock,
    random: &Random,
) {
    let jobs: Vec<_> = {
        let state = mirror.read();
        state.all_jobs().filter(|(_, job)| !job.value.stop).map(|(id, job)| (id.clone(), job)).collect()
    };
    for (id, current) in jobs {
        let now = clock.now();
        let mut job = Job { stop: true, version: current.value.version + 1, ..Job::clone(&current.value) };
        job.seal();
        let evaluation = record::registered(&job, EvalId::from_random(random.bytes()), now);
        let key = keys.text(&Key::Job(id.clone()));
        let txn = Txn::when([Guard::ModRevision(key.clone(), current.modified)])
            .and_then(Op::put(key, encode(&job)))
            .and_then(Op::put(
                keys.text(&Key::Version(id.clone(), current.value.version)),
                encode(&*current.value),
            ))
            .and_then(Op::put(keys.text(&Key::Evaluation(id.clone(), evaluation.id)), encode(&evaluation)));
        if let Err(error) = store.commit(txn).await {
            tracing::warn!(job = %id, %error, "cannot stop the job");
        }
    }
}
