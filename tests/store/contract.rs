//! What every store must do. Each check works under a prefix of its own, so that one store can serve them all.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::StreamExt;
use herder::store::Event;
use herder::store::Guard;
use herder::store::KeyValue;
use herder::store::ListOptions;
use herder::store::Listing;
use herder::store::Op;
use herder::store::Outcome;
use herder::store::Range;
use herder::store::Revision;
use herder::store::SharedStore;
use herder::store::StoreError;
use herder::store::Txn;
use herder::store::WatchStream;
use tokio::time::timeout;

/// Long enough for a busy machine; nothing here takes it unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

type Check = fn(SharedStore) -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! checks {
    ($($name:ident),* $(,)?) => {
        &[$((stringify!($name), |store| Box::pin($name(store)))),*]
    };
}

const CHECKS: &[(&str, Check)] = checks![
    every_change_gets_the_next_revision,
    steps_of_a_transaction_share_a_revision,
    without_changes_there_is_no_revision,
    guards_decide_the_branch,
    guards_of_missing_keys_compare_with_zero,
    gets_see_earlier_steps,
    a_key_is_written_once_in_a_transaction,
    too_much_is_refused,
    keys_are_never_empty,
    listings_are_sorted_limited_and_counted,
    listings_may_leave_values_out,
    past_revisions_stay_readable,
    ranges_without_keys_are_empty,
    the_empty_prefix_is_everything,
    compaction_ends_history,
    the_future_cannot_be_read,
    watches_deliver_history_then_news,
    watches_show_whole_revisions_in_order,
    watches_may_begin_in_the_future,
    watches_of_compacted_history_end,
    deleted_keys_begin_anew,
    leases_end_with_their_keys,
    a_put_without_lease_detaches_the_key,
    a_put_with_another_lease_moves_the_key,
    unknown_leases_are_refused,
    leases_expire_unless_renewed,
    concurrent_guarded_writers_lose_no_update,
    the_revision_covers_what_was_acknowledged,
];

/// Runs all checks and names those that failed.
pub async fn run(store: impl Fn() -> SharedStore) {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        let outcome = std::panic::AssertUnwindSafe(timeout(PATIENCE, check(store()))).catch_unwind().await;
        if !matches!(outcome, Ok(Ok(()))) {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "failed: {failed:?}");
}

async fn put(store: &SharedStore, key: &str, value: &str) -> Revision {
    commit(store, [Op::put(key, value.to_owned())]).await.revision
}

async fn commit(store: &SharedStore, ops: impl IntoIterator<Item = Op>) -> Outcome {
    let txn = Txn { then: ops.into_iter().collect(), ..Txn::default() };
    let outcome = store.commit(txn).await.unwrap();
    assert!(outcome.succeeded);
    outcome
}

async fn refusal(store: &SharedStore, ops: impl IntoIterator<Item = Op>) -> StoreError {
    let txn = Txn { then: ops.into_iter().collect(), ..Txn::default() };
    store.commit(txn).await.unwrap_err()
}

fn prefix(text: &str) -> Range {
    Range::Prefix(text.to_owned())
}

fn key(text: &str) -> Range {
    Range::Key(text.to_owned())
}

fn leased(key: &str, lease: i64) -> Op {
    Op::Put { key: key.to_owned(), value: Bytes::from_static(b"v"), lease }
}

async fn list(store: &SharedStore, range: Range) -> Listing {
    store.list(range, ListOptions::default()).await.unwrap()
}

async fn list_at(store: &SharedStore, range: Range, at: Revision) -> Result<Listing, StoreError> {
    store.list(range, ListOptions { at: Some(at), ..ListOptions::default() }).await
}

fn keys(listing: &Listing) -> Vec<&str> {
    listing.items.iter().map(|item| item.key.as_str()).collect()
}

/// The next events of a watch, `count` or a few more.
async fn events(watch: &mut WatchStream, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        let batch = watch.next().await.expect("the watch goes on").expect("the watch is well");
        assert!(batch.events.iter().all(|event| event.revision() <= batch.revision));
        events.extend(batch.events);
    }
    events
}

fn described(events: &[Event], base: Revision) -> Vec<String> {
    let describe = |event: &Event| match event {
        Event::Put(item) => format!("{} +{}", item.key, item.mod_revision - base),
        Event::Delete(key, revision) => format!("{key} -{}", revision - base),
    };
    events.iter().map(describe).collect()
}

async fn every_change_gets_the_next_revision(store: SharedStore) {
    let first = put(&store, "a/1", "x").await;
    assert_eq!(put(&store, "a/1", "y").await, first + 1);
    let (revision, item) = store.get("a/1").await.unwrap();
    assert_eq!(revision, first + 1);
    let expected = KeyValue {
        key: "a/1".into(),
        value: "y".into(),
        create_revision: first,
        mod_revision: first + 1,
        version: 2,
        lease: 0,
    };
    assert_eq!(item, Some(expected));
    assert_eq!(commit(&store, [Op::delete("a/1")]).await.revision, first + 2);
    assert_eq!(store.get("a/1").await.unwrap(), (first + 2, None));
}

async fn steps_of_a_transaction_share_a_revision(store: SharedStore) {
    put(&store, "b/old", "x").await;
    let done = commit(&store, [Op::put("b/2", "x"), Op::delete("b/old"), Op::put("b/1", "x")]).await;
    let listing = list(&store, prefix("b/")).await;
    assert_eq!(keys(&listing), ["b/1", "b/2"]);
    assert!(listing.items.iter().all(|item| item.mod_revision == done.revision));
}

async fn without_changes_there_is_no_revision(store: SharedStore) {
    let before = put(&store, "c/1", "x").await;
    assert_eq!(commit(&store, [Op::delete("c/none")]).await.revision, before);
    assert_eq!(commit(&store, [Op::Delete(prefix("c/none/"))]).await.revision, before);
    assert_eq!(commit(&store, [Op::Get(key("c/1"))]).await.revision, before);
    assert_eq!(commit(&store, []).await.revision, before);
    let refused =
        store.commit(Txn::when([Guard::absent("c/1")]).and_then(Op::put("c/2", "x"))).await.unwrap();
    assert_eq!((refused.succeeded, refused.revision), (false, before));
    assert_eq!(put(&store, "c/1", "x").await, before + 1, "the same value is a change nevertheless");
}

async fn guards_decide_the_branch(store: SharedStore) {
    let lease = store.grant(Duration::from_secs(60)).await.unwrap();
    let created = put(&store, "d/1", "x").await;
    let changed = commit(&store, [leased("d/1", lease)]).await.revision;
    let holds = async |guard: Guard| {
        let txn = Txn { guards: vec![guard], then: vec![], otherwise: vec![Op::Get(key("d/1"))] };
        let outcome = store.commit(txn).await.unwrap();
        assert_eq!(outcome.gets.len(), usize::from(!outcome.succeeded));
        outcome.succeeded
    };
    assert!(holds(Guard::ModRevision("d/1".into(), changed)).await);
    assert!(!holds(Guard::ModRevision("d/1".into(), created)).await);
    assert!(holds(Guard::CreateRevision("d/1".into(), created)).await);
    assert!(!holds(Guard::CreateRevision("d/1".into(), changed)).await);
    assert!(holds(Guard::Lease("d/1".into(), lease)).await);
    assert!(!holds(Guard::Lease("d/1".into(), 0)).await);
    let both = [Guard::ModRevision("d/1".into(), changed), Guard::absent("d/1")];
    assert!(!store.commit(Txn::when(both)).await.unwrap().succeeded, "all guards must hold");
    store.revoke(lease).await.unwrap();
}

async fn guards_of_missing_keys_compare_with_zero(store: SharedStore) {
    let txn = |guard| Txn::when([guard]);
    for guard in [
        Guard::ModRevision("e/none".into(), 0),
        Guard::CreateRevision("e/none".into(), 0),
        Guard::Lease("e/none".into(), 0),
    ] {
        assert!(store.commit(txn(guard)).await.unwrap().succeeded);
    }
    assert!(!store.commit(txn(Guard::ModRevision("e/none".into(), 1))).await.unwrap().succeeded);
    assert!(!store.commit(txn(Guard::Lease("e/none".into(), 1))).await.unwrap().succeeded);
}

async fn gets_see_earlier_steps(store: SharedStore) {
    let before = commit(&store, [Op::put("f/1", "old"), Op::put("f/2", "old")]).await.revision;
    let all = || Op::Get(prefix("f/"));
    let done =
        commit(&store, [all(), Op::put("f/1", "new"), all(), Op::Delete(key("f/2")), all(), all()]).await;
    let describe = |get: &Listing| {
        let items = get.items.iter().map(|item| format!("{}={:?}", item.key, item.value));
        format!("+{} {}", get.revision - before, items.collect::<Vec<_>>().join(" "))
    };
    let seen: Vec<String> = done.gets.iter().map(describe).collect();
    let expected = [
        "+0 f/1=b\"old\" f/2=b\"old\"",
        "+1 f/1=b\"new\" f/2=b\"old\"",
        "+1 f/1=b\"new\"",
        "+1 f/1=b\"new\"",
    ];
    assert_eq!(seen, expected);
    let after = before + 1;
    assert_eq!(done.revision, after);
    assert_eq!(done.gets[1].items[0].mod_revision, after);
    assert_eq!(done.gets[2].count, 1);
}

async fn a_key_is_written_once_in_a_transaction(store: SharedStore) {
    let before = put(&store, "g/1", "x").await;
    let duplicate = StoreError::DuplicateKey("g/1".into());
    let one = || Op::put("g/1", "y");
    assert_eq!(refusal(&store, [one(), one()]).await, duplicate);
    assert_eq!(refusal(&store, [one(), Op::delete("g/1")]).await, duplicate);
    assert_eq!(refusal(&store, [Op::Delete(prefix("g/")), one()]).await, duplicate);
    let between = Range::Between("g/0".into(), "g/2".into());
    assert_eq!(refusal(&store, [one(), Op::Delete(between)]).await, duplicate);
    let untaken = Txn { otherwise: vec![one(), one()], ..Txn::default() };
    assert_eq!(store.commit(untaken).await.unwrap_err(), duplicate, "the branch not taken is checked too");
    assert_eq!(store.revision().await.unwrap(), before);
    // Not duplicates: neighbours, the end of a range, deletions among themselves, the same key in both branches.
    let before_end = Range::Between("g/0".into(), "g/1".into());
    commit(&store, [one(), Op::put("g/10", "y"), Op::Delete(before_end)]).await;
    commit(&store, [Op::delete("g/1"), Op::delete("g/1"), Op::Delete(prefix("g/"))]).await;
    let both = Txn { then: vec![one()], otherwise: vec![one()], ..Txn::default() };
    assert!(store.commit(both).await.unwrap().succeeded);
}

async fn too_much_is_refused(store: SharedStore) {
    let limits = store.limits();
    let many = |count: usize| (0..count).map(|index| Op::put(format!("h/{index}"), "x"));
    commit(&store, many(limits.txn_ops)).await;
    let error = refusal(&store, many(limits.txn_ops + 1)).await;
    assert_eq!(error, StoreError::TooManyOps { count: limits.txn_ops + 1, limit: limits.txn_ops });
    let guards = (0..=limits.txn_ops).map(|index| Guard::absent(format!("h/g{index}")));
    assert!(matches!(store.commit(Txn::when(guards)).await, Err(StoreError::TooManyOps { .. })));
    let large = |size: usize| [Op::put("h/large", vec![b'x'; size])];
    commit(&store, large(limits.request_bytes - 200)).await;
    assert!(matches!(refusal(&store, large(limits.request_bytes)).await, StoreError::TooLarge { .. }));
}

async fn keys_are_never_empty(store: SharedStore) {
    assert!(matches!(refusal(&store, [Op::put("", "x")]).await, StoreError::Other(_)));
    assert!(matches!(refusal(&store, [Op::delete("")]).await, StoreError::Other(_)));
    assert!(matches!(refusal(&store, [Op::Get(key(""))]).await, StoreError::Other(_)));
    assert!(matches!(store.commit(Txn::when([Guard::absent("")])).await, Err(StoreError::Other(_))));
    assert!(matches!(store.list(key(""), ListOptions::default()).await, Err(StoreError::Other(_))));
}

async fn listings_are_sorted_limited_and_counted(store: SharedStore) {
    let revision =
        commit(&store, ["i/b", "i/a", "i/aa", "i0", "i", "i/"].map(|key| Op::put(key, "x"))).await.revision;
    let listing = list(&store, prefix("i/")).await;
    assert_eq!(keys(&listing), ["i/", "i/a", "i/aa", "i/b"]);
    assert_eq!((listing.revision, listing.more, listing.count), (revision, false, 4));
    let limited = |limit| ListOptions { limit, ..ListOptions::default() };
    let listing = store.list(prefix("i/"), limited(3)).await.unwrap();
    assert_eq!(keys(&listing), ["i/", "i/a", "i/aa"]);
    assert_eq!((listing.more, listing.count), (true, 4));
    let listing = store.list(prefix("i/"), limited(4)).await.unwrap();
    assert_eq!((listing.items.len(), listing.more, listing.count), (4, false, 4));
    let listing = list(&store, Range::Between("i/a".into(), "i/b".into())).await;
    assert_eq!(keys(&listing), ["i/a", "i/aa"]);
    let listing = list(&store, key("i")).await;
    assert_eq!((keys(&listing), listing.count), (vec!["i"], 1));
}

async fn listings_may_leave_values_out(store: SharedStore) {
    put(&store, "j/1", "value").await;
    let listing = store.list(prefix("j/"), ListOptions { keys_only: true, ..ListOptions::default() }).await;
    let item = listing.unwrap().items.remove(0);
    assert_eq!((item.key.as_str(), item.value.len(), item.version), ("j/1", 0, 1));
}

async fn past_revisions_stay_readable(store: SharedStore) {
    let first = put(&store, "k/1", "one").await;
    let second = put(&store, "k/2", "two").await;
    put(&store, "k/1", "three").await;
    commit(&store, [Op::Delete(prefix("k/"))]).await;
    let listing = list_at(&store, prefix("k/"), first).await.unwrap();
    assert_eq!((keys(&listing), listing.revision, listing.count), (vec!["k/1"], first, 1));
    assert_eq!(listing.items[0].value, "one");
    let listing = list_at(&store, prefix("k/"), second).await.unwrap();
    assert_eq!((keys(&listing), listing.revision), (vec!["k/1", "k/2"], second));
    assert_eq!(listing.items[0].value, "one");
    assert!(list(&store, prefix("k/")).await.items.is_empty());
}

async fn ranges_without_keys_are_empty(store: SharedStore) {
    let revision = put(&store, "l/1", "x").await;
    for (from, to) in [("l/2", "l/1"), ("l/1", "l/1"), ("l/1", "")] {
        let range = || Range::Between(from.into(), to.into());
        assert_eq!(list(&store, range()).await, Listing { revision, ..Listing::default() });
        let done = commit(&store, [Op::Delete(range()), Op::Get(range()), Op::Get(key("l/1"))]).await;
        assert_eq!(done.revision, revision);
        assert_eq!(done.gets.iter().map(|get| get.items.len()).collect::<Vec<_>>(), [0, 1]);
        commit(&store, [Op::Delete(range()), Op::Get(range())]).await;
    }
}

async fn the_empty_prefix_is_everything(store: SharedStore) {
    put(&store, "m/1", "x").await;
    let listing = list(&store, prefix("")).await;
    assert!(keys(&listing).contains(&"m/1"));
    let mut watch = store.watch(prefix(""), listing.revision + 1).await.unwrap();
    let base = put(&store, "m/2", "x").await;
    assert_eq!(described(&events(&mut watch, 1).await, base), ["m/2 +0"]);
}

async fn compaction_ends_history(store: SharedStore) {
    put(&store, "n/1", "one").await;
    let deleted = commit(&store, [Op::delete("n/1")]).await.revision;
    let middle = put(&store, "n/2", "two").await;
    let last = put(&store, "n/2", "three").await;
    store.compact(middle).await.unwrap();
    let compacted = StoreError::Compacted { at: middle };
    assert_eq!(list_at(&store, prefix("n/"), deleted).await.unwrap_err(), compacted);
    let listing = list_at(&store, prefix("n/"), middle).await.unwrap();
    assert_eq!((keys(&listing), listing.items[0].value.as_ref()), (vec!["n/2"], b"two".as_ref()));
    assert_eq!(list(&store, prefix("n/")).await.items[0].version, 2);
    assert_eq!(store.compact(middle).await.unwrap_err(), compacted);
    assert_eq!(store.compact(middle - 1).await.unwrap_err(), compacted);
    assert_eq!(store.compact(last + 1).await.unwrap_err(), StoreError::FutureRevision);
    store.compact(last).await.unwrap();
    assert_eq!(list_at(&store, prefix("n/"), last).await.unwrap().items.len(), 1);
}

async fn the_future_cannot_be_read(store: SharedStore) {
    let now = put(&store, "o/1", "x").await;
    assert!(list_at(&store, prefix("o/"), now).await.is_ok());
    assert_eq!(list_at(&store, prefix("o/"), now + 1).await.unwrap_err(), StoreError::FutureRevision);
}

async fn watches_deliver_history_then_news(store: SharedStore) {
    let base = put(&store, "p/1", "x").await;
    put(&store, "q/1", "elsewhere").await;
    put(&store, "p/2", "x").await;
    let mut watch = store.watch(prefix("p/"), base).await.unwrap();
    let mut single = store.watch(key("p/1"), base + 1).await.unwrap();
    assert_eq!(described(&events(&mut watch, 2).await, base), ["p/1 +0", "p/2 +2"]);
    commit(&store, [Op::delete("p/1")]).await;
    put(&store, "p/10", "x").await;
    assert_eq!(described(&events(&mut watch, 2).await, base), ["p/1 -3", "p/10 +4"]);
    assert_eq!(described(&events(&mut single, 1).await, base), ["p/1 -3"]);
}

async fn watches_show_whole_revisions_in_order(store: SharedStore) {
    let base = store.revision().await.unwrap() + 1;
    let mut live = store.watch(prefix("r/"), base).await.unwrap();
    commit(&store, [Op::put("r/3", "x"), Op::put("r/1", "x"), Op::put("r/2", "x"), Op::put("s/1", "x")])
        .await;
    commit(&store, [Op::put("r/5", "x"), Op::Delete(prefix("r/3")), Op::put("r/4", "x")]).await;
    commit(&store, [Op::Delete(prefix("r/"))]).await;
    let expected =
        ["r/3 +0", "r/1 +0", "r/2 +0", "r/5 +1", "r/3 -1", "r/4 +1", "r/1 -2", "r/2 -2", "r/4 -2", "r/5 -2"];
    assert_eq!(described(&events(&mut live, expected.len()).await, base), expected);
    let mut late = store.watch(prefix("r/"), base).await.unwrap();
    assert_eq!(described(&events(&mut late, expected.len()).await, base), expected);
}

async fn watches_may_begin_in_the_future(store: SharedStore) {
    let base = put(&store, "t/1", "x").await;
    let mut watch = store.watch(prefix("t/"), base + 2).await.unwrap();
    for index in 1..4 {
        put(&store, &format!("t/{index}"), "y").await;
    }
    assert_eq!(described(&events(&mut watch, 2).await, base), ["t/2 +2", "t/3 +3"]);
}

async fn watches_of_compacted_history_end(store: SharedStore) {
    let old = put(&store, "u/1", "x").await;
    let middle = put(&store, "u/2", "x").await;
    put(&store, "u/3", "x").await;
    store.compact(middle).await.unwrap();
    // An error of the call and an error as the first item mean the same.
    let first = match store.watch(prefix("u/"), old).await {
        Ok(mut watch) => watch.next().await.expect("an error"),
        Err(error) => Err(error),
    };
    assert_eq!(first.unwrap_err(), StoreError::Compacted { at: middle });
    let mut watch = store.watch(prefix("u/"), middle).await.unwrap();
    assert_eq!(described(&events(&mut watch, 2).await, middle), ["u/2 +0", "u/3 +1"]);
}

async fn deleted_keys_begin_anew(store: SharedStore) {
    put(&store, "v/1", "x").await;
    put(&store, "v/1", "x").await;
    commit(&store, [Op::delete("v/1")]).await;
    let created = put(&store, "v/1", "x").await;
    let item = store.get("v/1").await.unwrap().1.unwrap();
    assert_eq!((item.create_revision, item.mod_revision, item.version), (created, created, 1));
}

async fn leases_end_with_their_keys(store: SharedStore) {
    let lease = store.grant(Duration::from_secs(60)).await.unwrap();
    let base =
        commit(&store, [leased("w/b", lease), leased("w/a", lease), Op::put("w/c", "x")]).await.revision;
    assert_eq!(store.get("w/a").await.unwrap().1.unwrap().lease, lease);
    commit(&store, [leased("w/d", lease)]).await;
    commit(&store, [Op::delete("w/d")]).await;
    let mut watch = store.watch(prefix("w/"), base + 3).await.unwrap();
    store.revoke(lease).await.unwrap();
    assert_eq!(described(&events(&mut watch, 2).await, base), ["w/a -3", "w/b -3"]);
    assert_eq!(keys(&list(&store, prefix("w/")).await), ["w/c"]);
    let empty = store.grant(Duration::from_secs(60)).await.unwrap();
    let before = store.revision().await.unwrap();
    store.revoke(empty).await.unwrap();
    assert_eq!(store.revision().await.unwrap(), before, "a lease without keys ends without a change");
}

async fn a_put_without_lease_detaches_the_key(store: SharedStore) {
    let lease = store.grant(Duration::from_secs(60)).await.unwrap();
    commit(&store, [leased("x/1", lease), leased("x/2", lease)]).await;
    put(&store, "x/1", "kept").await;
    store.revoke(lease).await.unwrap();
    let listing = list(&store, prefix("x/")).await;
    assert_eq!((keys(&listing), listing.items[0].lease), (vec!["x/1"], 0));
}

async fn a_put_with_another_lease_moves_the_key(store: SharedStore) {
    let first = store.grant(Duration::from_secs(60)).await.unwrap();
    let second = store.grant(Duration::from_secs(60)).await.unwrap();
    commit(&store, [leased("y/1", first)]).await;
    commit(&store, [leased("y/1", second)]).await;
    store.revoke(first).await.unwrap();
    assert_eq!(list(&store, prefix("y/")).await.items.len(), 1);
    store.revoke(second).await.unwrap();
    assert_eq!(list(&store, prefix("y/")).await.items.len(), 0);
}

async fn unknown_leases_are_refused(store: SharedStore) {
    let lease = store.grant(Duration::from_secs(60)).await.unwrap();
    store.revoke(lease).await.unwrap();
    let before = put(&store, "z/1", "x").await;
    assert_eq!(refusal(&store, [Op::put("z/2", "x"), leased("z/3", lease)]).await, StoreError::LeaseNotFound);
    assert_eq!(store.keep_alive(lease).await.unwrap_err(), StoreError::LeaseNotFound);
    assert_eq!(store.revoke(lease).await.unwrap_err(), StoreError::LeaseNotFound);
    assert_eq!(store.revision().await.unwrap(), before, "nothing was written");
    // Only the branch that is taken needs its leases.
    let untaken = Txn { otherwise: vec![leased("z/4", lease)], ..Txn::default() };
    assert!(store.commit(untaken).await.unwrap().succeeded);
}

async fn leases_expire_unless_renewed(store: SharedStore) {
    let short = Duration::from_secs(2);
    let kept = store.grant(short).await.unwrap();
    let left = store.grant(Duration::from_millis(1500)).await.unwrap();
    let base = commit(&store, [leased("za/kept", kept), leased("za/left", left)]).await.revision;
    let mut watch = store.watch(prefix("za/"), base + 1).await.unwrap();
    let renew = async {
        let mut pace = tokio::time::interval(short / 10);
        loop {
            pace.tick().await;
            assert_eq!(store.keep_alive(kept).await.unwrap(), short);
        }
    };
    let gone = tokio::select! {
        gone = events(&mut watch, 1) => gone,
        () = renew => unreachable!("renewing never ends"),
    };
    assert_eq!(described(&gone, base), ["za/left -1"]);
    assert_eq!(store.keep_alive(left).await.unwrap_err(), StoreError::LeaseNotFound);
    store.revoke(kept).await.unwrap();
}

async fn concurrent_guarded_writers_lose_no_update(store: SharedStore) {
    const WRITERS: usize = 8;
    const STEPS: usize = 10;
    let writer = |store: SharedStore| async move {
        for _ in 0..STEPS {
            loop {
                let item = store.get("zb/1").await.unwrap().1;
                let guard = item.as_ref().map_or_else(|| Guard::absent("zb/1"), Guard::unchanged);
                let txn = Txn::when([guard]).and_then(Op::put("zb/1", "x"));
                if store.commit(txn).await.unwrap().succeeded {
                    break;
                }
            }
        }
    };
    let writers: Vec<_> = (0..WRITERS).map(|_| tokio::spawn(writer(store.clone()))).collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let version = store.get("zb/1").await.unwrap().1.unwrap().version;
    assert_eq!(version, i64::try_from(WRITERS * STEPS).unwrap());
}

async fn the_revision_covers_what_was_acknowledged(store: SharedStore) {
    let reader = |store: SharedStore, index: usize| async move {
        let written = put(&store, &format!("zc/{index}"), "x").await;
        assert!(store.revision().await.unwrap() >= written);
    };
    let readers: Vec<_> = (0..32).map(|index| tokio::spawn(reader(store.clone(), index))).collect();
    for reader in readers {
        reader.await.unwrap();
    }
}
