//! Amounts of data that break a client with default settings.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use herder::store::Event;
use herder::store::ListOptions;
use herder::store::Op;
use herder::store::Range;
use herder::store::Revision;
use herder::store::SharedStore;
use herder::store::Store;
use herder::store::Txn;
use herder::store::embedded::EmbeddedStore;
use herder::store::etcd::EtcdStore;
use tokio::time::timeout;

use crate::connect;
use crate::etcd::Etcd;

const PATIENCE: Duration = Duration::from_secs(60);

/// Writes `keys` keys of `bytes` bytes, `per_txn` at a time. Gives the last revision.
async fn fill(store: &dyn Store, prefix: &str, keys: usize, bytes: usize, per_txn: usize) -> Revision {
    let mut commits = FuturesUnordered::new();
    for first in (0..keys).step_by(per_txn) {
        let puts = (first..keys.min(first + per_txn))
            .map(|index| Op::put(format!("{prefix}{index:06}"), vec![b'x'; bytes]));
        commits.push(store.commit(Txn { then: puts.collect(), ..Txn::default() }));
    }
    let mut last = 0;
    while let Some(outcome) = commits.next().await {
        last = last.max(outcome.unwrap().revision);
    }
    last
}

async fn watched(store: &dyn Store, prefix: &str, from: Revision, keys: usize) -> Vec<Event> {
    let mut watch = store.watch(Range::Prefix(prefix.into()), from).await.unwrap();
    let mut events: Vec<Event> = Vec::new();
    while events.len() < keys {
        let batch = timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
        assert!(batch.events.iter().all(|event| event.revision() <= batch.revision));
        // Whole revisions only: nothing of this batch's revisions has come before.
        let first = batch.events.first().map(Event::revision);
        assert!(first.is_none() || first > events.last().map(Event::revision));
        events.extend(batch.events);
    }
    assert!(events.is_sorted_by_key(Event::revision));
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_catches_up_with_many_megabytes() {
    let etcd = Etcd::start();
    let store = connect(&etcd).await;
    // Transactions near the size limit make fragments end in the middle of a revision.
    fill(&store, "w/", 800, 14_000, 100).await;
    assert_eq!(watched(&store, "w/", 1, 800).await.len(), 800);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_listings_are_read_in_pages_of_one_revision() {
    const KEYS: usize = 30_000;
    let etcd = Etcd::start();
    let store: Arc<EtcdStore> = Arc::new(connect(&etcd).await);
    let filled = fill(&*store, "l/", KEYS, 100, 100).await;
    let range = || Range::Prefix("l/".into());
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            loop {
                let change = [Op::put("l/999999", "late"), Op::delete("l/000000")];
                store.commit(Txn { then: change.into(), ..Txn::default() }).await.unwrap();
            }
        })
    };
    let now = store.list(range(), ListOptions::default()).await.unwrap();
    writer.abort();
    assert!(now.revision >= filled);
    assert_eq!(now.items.len(), usize::try_from(now.count).unwrap());
    assert!(now.items.iter().all(|item| item.mod_revision <= now.revision));
    assert!(now.items.is_sorted_by(|left, right| left.key < right.key) && !now.more);
    let options = ListOptions { at: Some(filled), limit: KEYS - 1, keys_only: true };
    let past = store.list(range(), options).await.unwrap();
    assert_eq!((past.items.len(), past.more, past.count), (KEYS - 1, true, 30_000));
    assert_eq!(past.revision, filled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listings_of_large_values_use_smaller_pages() {
    let etcd = Etcd::with_flags(1, "http", &["--quota-backend-bytes=1000000000".to_owned()]);
    let store = connect(&etcd).await;
    fill(&store, "v/", 80, 1_000_000, 1).await;
    let listing = store.list(Range::Prefix("v/".into()), ListOptions::default()).await.unwrap();
    assert_eq!((listing.items.len(), listing.more, listing.count), (80, false, 80));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_leases_are_renewed_at_once() {
    const LEASES: usize = 5_000;
    let etcd = Etcd::start();
    let store: SharedStore = Arc::new(connect(&etcd).await);
    let grants = (0..LEASES).map(|_| store.grant(Duration::from_secs(600)));
    let leases: Vec<i64> =
        futures::stream::iter(grants).buffer_unordered(256).map(Result::unwrap).collect().await;
    for _ in 0..2 {
        let renewals = leases.iter().map(|lease| store.keep_alive(*lease));
        for renewed in futures::future::join_all(renewals).await {
            assert_eq!(renewed.unwrap(), Duration::from_secs(600));
        }
    }
}

#[tokio::test]
async fn the_embedded_store_bounds_its_history_when_asked() {
    let store = EmbeddedStore::new().with_auto_compaction(100);
    for index in 0..10_000 {
        let key = format!("k/{}", index % 10);
        let ops = if index % 3 == 0 { [Op::delete(key)] } else { [Op::put(key, "x")] };
        store.commit(Txn { then: ops.into(), ..Txn::default() }).await.unwrap();
    }
    let now = store.revision().await.unwrap();
    let at = |at| store.list(Range::Prefix("k/".into()), ListOptions { at: Some(at), ..Default::default() });
    assert!(at(now - 100).await.is_ok());
    assert!(at(now - 200).await.is_err());
}
