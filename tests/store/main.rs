//! The store's contract, run on the embedded store and on a real etcd, and what only etcd can show: failover,
//! credentials, long catch-ups.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bulk;
mod contract;
mod differential;
#[path = "../support/etcd.rs"]
mod etcd;
mod failover;
mod progress;
mod security;

use std::sync::Arc;

use herder::store::SharedStore;
use herder::store::embedded::EmbeddedStore;
use herder::store::etcd::EtcdOptions;
use herder::store::etcd::EtcdStore;

/// A store on this cluster.
async fn connect(etcd: &etcd::Etcd) -> EtcdStore {
    let options = EtcdOptions { endpoints: etcd.endpoints(), ..EtcdOptions::default() };
    EtcdStore::connect(options).await.expect("etcd answers")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_store_keeps_the_contract() {
    contract::run(|| -> SharedStore { Arc::new(EmbeddedStore::new()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_keeps_the_contract() {
    let etcd = etcd::Etcd::start();
    let store: SharedStore = Arc::new(connect(&etcd).await);
    contract::run(|| Arc::clone(&store)).await;
}
