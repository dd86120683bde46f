//! What callers notice when members of an etcd cluster fail.

use std::time::Duration;
use std::time::Instant;

use futures::StreamExt;
use herder::store::ListOptions;
use herder::store::Op;
use herder::store::Range;
use herder::store::Revision;
use herder::store::Store;
use herder::store::StoreError;
use herder::store::Txn;
use herder::store::WatchStream;
use herder::store::etcd::EtcdOptions;
use herder::store::etcd::EtcdStore;
use tokio::time::timeout;

use crate::connect;
use crate::etcd::Etcd;

/// Long enough for an election on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn put(key: &str) -> Txn {
    Txn::default().and_then(Op::put(key, "x"))
}

/// Writes until it is known to be written, as callers do: an unknown outcome is settled by trying again here,
/// because the write is the same each time.
async fn write(store: &EtcdStore, key: &str) -> Revision {
    let started = Instant::now();
    loop {
        match store.commit(put(key)).await {
            Ok(outcome) => return outcome.revision,
            Err(error) if error.is_transient() && started.elapsed() < PATIENCE => {
                // Errors come at once or after a pause of the store's own; neither makes this loop spin.
            }
            Err(error) => panic!("{key}: {error}"),
        }
    }
}

/// Reads the watch up to `revision`, opening it again when it breaks. Gives the keys seen, each once.
async fn follow(
    store: &EtcdStore,
    watch: &mut WatchStream,
    seen: &mut Revision,
    revision: Revision,
) -> Vec<String> {
    let mut keys = Vec::new();
    while *seen < revision {
        match timeout(PATIENCE, watch.next()).await.expect("the watch tells something") {
            Some(Ok(batch)) => {
                assert!(batch.revision > *seen, "revisions come once and in order");
                keys.extend(batch.events.iter().map(|event| event.key().to_owned()));
                *seen = batch.revision;
            }
            Some(Err(error)) => {
                assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
                *watch = store.watch(Range::Prefix("f/".into()), *seen + 1).await.expect("a member answers");
            }
            None => panic!("a watch ends with an error"),
        }
    }
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_members_may_die() {
    let mut etcd = Etcd::cluster(3);
    let store = connect(&etcd).await;
    let lease = store.grant(Duration::from_secs(60)).await.unwrap();
    let mut seen = store.revision().await.unwrap();
    let mut watch = store.watch(Range::Prefix("f/".into()), seen + 1).await.unwrap();
    for victim in 0..3 {
        write(&store, &format!("f/{victim}/before")).await;
        etcd.kill(victim);
        // Reads never fail, writes at worst do not know their outcome.
        for index in 0..50 {
            store.list(Range::Prefix("f/".into()), ListOptions::default()).await.unwrap();
            store.revision().await.unwrap();
            write(&store, &format!("f/{victim}/{index}")).await;
        }
        store.keep_alive(lease).await.unwrap();
        let last = write(&store, &format!("f/{victim}/after")).await;
        let keys = follow(&store, &mut watch, &mut seen, last).await;
        assert!(keys.len() >= 52, "the watch missed something: {keys:?}");
        etcd.restart(victim);
        assert!(etcd.wait_healthy(victim));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_comes_back_with_the_cluster() {
    let mut etcd = Etcd::cluster(3);
    let options = EtcdOptions {
        endpoints: etcd.endpoints(),
        request_timeout: Duration::from_secs(2),
        retry_timeout: Duration::from_secs(1),
        ..EtcdOptions::default()
    };
    let store = EtcdStore::connect(options).await.unwrap();
    let lease = store.grant(Duration::from_secs(600)).await.unwrap();
    let before = write(&store, "f/before").await;
    let mut watch = store.watch(Range::Prefix("f/".into()), before).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, before);
    for member in 0..3 {
        etcd.kill(member);
    }
    let range = || Range::Prefix("f/".into());
    let error = store.list(range(), ListOptions::default()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert!(store.commit(put("f/lost")).await.unwrap_err().is_transient());
    assert!(matches!(store.revision().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.keep_alive(lease).await, Err(StoreError::Unavailable(_))));
    let end = timeout(PATIENCE, async {
        loop {
            if let Err(error) = watch.next().await.expect("an error comes first") {
                break error;
            }
        }
    });
    assert!(matches!(end.await, Ok(StoreError::Unavailable(_))));
    assert!(watch.next().await.is_none(), "a broken watch stays ended");
    for member in 0..3 {
        etcd.restart(member);
    }
    for member in 0..3 {
        assert!(etcd.wait_healthy(member));
    }
    let after = write(&store, "f/after").await;
    let mut watch = store.watch(range(), before + 1).await.unwrap();
    let batch = timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
    assert!(batch.revision <= after);
    assert!(store.keep_alive(lease).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_falls_silent_is_left_alone() {
    let etcd = Etcd::cluster(3);
    let store = connect(&etcd).await;
    let start = write(&store, "f/start").await;
    // Several, so that the silent member carries one.
    let mut watches = Vec::new();
    for _ in 0..6 {
        let mut watch = store.watch(Range::Prefix("f/".into()), start).await.unwrap();
        assert!(watch.next().await.unwrap().is_ok());
        watches.push((watch, start));
    }
    etcd.signal(1, "STOP");
    let mut last = 0;
    for index in 0..20 {
        last = write(&store, &format!("f/{index}")).await;
    }
    for (watch, seen) in &mut watches {
        follow(&store, watch, seen, last).await;
    }
    etcd.signal(1, "CONT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_not_there_is_reported() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let options = EtcdOptions { endpoints: vec![format!("127.0.0.1:{port}")], ..EtcdOptions::default() };
    let error = EtcdStore::connect(options).await.err().expect("nobody listens there");
    assert!(matches!(&error, StoreError::Unavailable(text) if text.contains("connect")), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_without_answer_is_not_repeated() {
    let etcd = Etcd::start();
    let options = EtcdOptions {
        endpoints: etcd.endpoints(),
        request_timeout: Duration::from_secs(1),
        retry_timeout: Duration::from_secs(2),
        ..EtcdOptions::default()
    };
    let store = EtcdStore::connect(options).await.unwrap();
    write(&store, "f/once").await;
    etcd.signal(0, "STOP");
    let error = store.commit(put("f/once")).await.unwrap_err();
    assert!(matches!(error, StoreError::Ambiguous(_)), "{error}");
    let error = store.list(Range::Key("f/once".into()), ListOptions::default()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    etcd.signal(0, "CONT");
    let revision = write(&store, "f/end").await;
    let item = store.get("f/once").await.unwrap().1.unwrap();
    assert!(item.version <= 2 && item.mod_revision < revision, "{item:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_still_answers_reads() {
    let etcd = Etcd::with_flags(1, "http", &["--quota-backend-bytes=4194304".to_owned()]);
    let store = connect(&etcd).await;
    let first = write(&store, "f/first").await;
    let mut watch = store.watch(Range::Prefix("f/".into()), first + 1).await.unwrap();
    let large = |index: usize| Txn::default().and_then(Op::put(format!("f/{index}"), vec![b'x'; 500_000]));
    let mut written = 0;
    let error = loop {
        match store.commit(large(written)).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100, "the quota is far below that");
    };
    assert_eq!(error, StoreError::NoSpace);
    assert_eq!(store.commit(put("f/small")).await.unwrap_err(), StoreError::NoSpace);
    let listing = store.list(Range::Prefix("f/".into()), ListOptions::default()).await.unwrap();
    assert_eq!(listing.items.len(), written + 1);
    let mut seen = first;
    assert_eq!(follow(&store, &mut watch, &mut seen, listing.revision).await.len(), written);
}
