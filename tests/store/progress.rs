//! What a watch on etcd tells when nothing happens to its keys.

use std::time::Duration;

use futures::StreamExt;
use herder::store::Op;
use herder::store::Range;
use herder::store::Store;
use herder::store::Txn;
use herder::store::etcd::EtcdOptions;
use herder::store::etcd::EtcdStore;
use tokio::time::timeout;

use crate::connect;
use crate::etcd::Etcd;

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_follows_the_revision_that_readers_were_told() {
    let etcd = Etcd::start();
    // Without a reader nothing would be asked within this test.
    let options = EtcdOptions {
        endpoints: etcd.endpoints(),
        watch_check_interval: PATIENCE * 10,
        ..EtcdOptions::default()
    };
    let store = EtcdStore::connect(options).await.unwrap();
    let elsewhere = || Txn::default().and_then(Op::put("elsewhere", "x"));
    store.commit(elsewhere()).await.unwrap();
    let mut watch = store.watch(Range::Prefix("here/".into()), 1).await.unwrap();
    for _ in 0..3 {
        store.commit(elsewhere()).await.unwrap();
        let told = store.revision().await.unwrap();
        let batch = timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
        assert_eq!((batch.revision, batch.events.len()), (told, 0));
    }
    // An event is not held up by that.
    let here = Txn::default().and_then(Op::put("here/1", "x"));
    let written = store.commit(here).await.unwrap().revision;
    let batch = timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((batch.revision, batch.events.len()), (written, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_no_text_are_left_out() {
    let etcd = Etcd::start();
    let store = connect(&etcd).await;
    let mut client = etcd_client::Client::connect(etcd.endpoints(), None).await.unwrap();
    let first = store.commit(Txn::default().and_then(Op::put("k/1", "x"))).await.unwrap().revision;
    client.put(b"k/\xff\xfe".to_vec(), "x", None).await.unwrap();
    client.put(b"k/\xff\xff".to_vec(), "x", None).await.unwrap();
    let last = store.commit(Txn::default().and_then(Op::put("k/2", "x"))).await.unwrap().revision;
    let listing = store.list(Range::Prefix("k/".into()), Default::default()).await.unwrap();
    let keys: Vec<&str> = listing.items.iter().map(|item| item.key.as_str()).collect();
    assert_eq!((keys, listing.count, listing.more), (vec!["k/1", "k/2"], 2, false));
    let mut watch = store.watch(Range::Prefix("k/".into()), first).await.unwrap();
    let mut seen = Vec::new();
    let mut revision = 0;
    while revision < last {
        let batch = timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
        revision = batch.revision;
        seen.extend(batch.events.iter().map(|event| event.key().to_owned()));
    }
    assert_eq!(seen, ["k/1", "k/2"]);
}
