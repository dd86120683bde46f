//! What only the embedded store does; the contract is tested in `tests/store`.

use std::time::Duration;

use futures::FutureExt;
use futures::StreamExt;

use crate::store::Event;
use crate::store::ListOptions;
use crate::store::Op;
use crate::store::Range;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::Txn;
use crate::store::embedded::EmbeddedStore;

fn put(key: &str) -> Txn {
    Txn::default().and_then(Op::put(key, "x"))
}

fn all() -> Range {
    Range::Prefix(String::new())
}

#[tokio::test]
async fn cut_watches_deliver_what_they_have_and_end_with_an_error() {
    let store = EmbeddedStore::new();
    let mut watch = store.watch(all(), 1).await.unwrap();
    store.commit(put("a")).await.unwrap();
    store.cut_watches();
    store.commit(put("b")).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, 2);
    assert!(matches!(watch.next().await, Some(Err(StoreError::Unavailable(_)))));
    assert!(watch.next().await.is_none());
    // Watching again from there misses nothing.
    let mut watch = store.watch(all(), 3).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, 3);
}

#[tokio::test]
async fn watchers_that_do_not_read_are_cut_off() {
    let store = EmbeddedStore::new();
    let mut lazy = store.watch(all(), 1).await.unwrap();
    for _ in 0..super::watchers::QUEUE + 10 {
        store.commit(put("a")).await.unwrap();
    }
    let mut read = 0;
    let error = loop {
        match lazy.next().await.unwrap() {
            Ok(batch) => {
                read += 1;
                assert_eq!(batch.revision, 1 + i64::try_from(read).unwrap());
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Unavailable(_)));
    assert_eq!(read, super::watchers::QUEUE);
}

#[tokio::test]
async fn dropped_watches_leave_nothing_behind() {
    let store = EmbeddedStore::new();
    for range in [Range::Key("a".into()), Range::Prefix("a".into()), Range::Between("a".into(), "b".into())] {
        let first = store.watch(range.clone(), 1).await.unwrap();
        let mut second = store.watch(range, 1).await.unwrap();
        drop(first);
        let revision = store.commit(put("a")).await.unwrap().revision;
        while second.next().await.unwrap().unwrap().revision < revision {}
    }
    assert!(store.shared.inner.lock().watchers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn leases_end_on_time_though_nobody_looks() {
    let store = EmbeddedStore::new();
    let lease_of = |seconds| store.grant(Duration::from_secs(seconds));
    let (long, short) = (lease_of(30).await.unwrap(), lease_of(10).await.unwrap());
    let leased = |key: &str, lease| Op::Put { key: key.into(), value: "x".into(), lease };
    let txn = Txn { then: vec![leased("long", long), leased("short", short)], ..Txn::default() };
    store.commit(txn).await.unwrap();
    let mut watch = store.watch(all(), 3).await.unwrap();
    let started = tokio::time::Instant::now();
    for (key, seconds) in [("short", 10), ("long", 30)] {
        let batch = watch.next().await.unwrap().unwrap();
        assert_eq!(batch.events, [Event::Delete(key.into(), batch.revision)]);
        assert_eq!(started.elapsed().as_secs(), seconds);
    }
    // Another lease starts the clock again.
    let again = lease_of(5).await.unwrap();
    store.commit(Txn { then: vec![leased("again", again)], ..Txn::default() }).await.unwrap();
    while watch.next().await.unwrap().unwrap().events != [Event::Delete("again".into(), 6)] {}
    assert_eq!(started.elapsed().as_secs(), 35);
}

#[tokio::test(start_paused = true)]
async fn an_overdue_lease_is_never_seen() {
    let store = EmbeddedStore::new();
    let lease = store.grant(Duration::from_secs(10)).await.unwrap();
    store
        .commit(Txn::default().and_then(Op::Put { key: "a".into(), value: "x".into(), lease }))
        .await
        .unwrap();
    // Advancing time does not let other tasks run first.
    tokio::time::advance(Duration::from_secs(9)).await;
    assert_eq!(store.keep_alive(lease).now_or_never().unwrap(), Ok(Duration::from_secs(10)));
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(store.get("a").now_or_never().unwrap().unwrap().1, None);
    assert_eq!(store.keep_alive(lease).await, Err(StoreError::LeaseNotFound));
}

#[tokio::test]
async fn automatic_compaction_keeps_what_was_promised() {
    let store = EmbeddedStore::new().with_auto_compaction(10);
    for index in 0..1000 {
        let key = format!("k{}", index % 7);
        let ops = vec![if index % 3 == 0 { Op::delete(key) } else { Op::put(key, "x") }];
        store.commit(Txn { then: ops, ..Txn::default() }).await.unwrap();
        let now = store.revision().await.unwrap();
        let at = |at: i64| {
            let options = ListOptions { at: Some(at.max(1)), ..ListOptions::default() };
            store.list(all(), options).now_or_never().unwrap()
        };
        assert!(at(now - 10).is_ok());
        assert!(now <= 21 || at(now - 21).is_err());
    }
    let inner = store.shared.inner.lock();
    assert!(inner.history.oldest() >= inner.history.compacted());
}

#[tokio::test]
async fn deleted_keys_take_no_room_after_compaction() {
    let store = EmbeddedStore::new();
    for index in 0..100 {
        store.commit(put(&format!("k{index}"))).await.unwrap();
    }
    store.commit(Txn::default().and_then(Op::Delete(all()))).await.unwrap();
    let last = store.commit(put("z")).await.unwrap().revision;
    store.compact(last).await.unwrap();
    assert_eq!(store.shared.inner.lock().history.known_keys(), 1);
    // A deletion at the very revision stays for watches that begin there, and goes next time.
    let gone = store.commit(Txn::default().and_then(Op::delete("z"))).await.unwrap().revision;
    store.compact(gone).await.unwrap();
    let mut watch = store.watch(all(), gone).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().events, [Event::Delete("z".into(), gone)]);
    let last = store.commit(put("y")).await.unwrap().revision;
    store.compact(last).await.unwrap();
    assert_eq!(store.shared.inner.lock().history.known_keys(), 1);
}
