//! One random script of operations on both stores; every answer and every watched event must be the same.
//! `HERDER_DIFF_OPS` and `HERDER_DIFF_SEED` set its length and seed.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::StreamExt;
use herder::store::Event;
use herder::store::Guard;
use herder::store::KeyValue;
use herder::store::LeaseId;
use herder::store::ListOptions;
use herder::store::Listing;
use herder::store::Op;
use herder::store::Outcome;
use herder::store::Range;
use herder::store::Revision;
use herder::store::Store;
use herder::store::StoreError;
use herder::store::Txn;
use herder::store::WatchBatch;
use herder::store::WatchStream;
use herder::store::embedded::EmbeddedStore;
use herder::store::etcd::EtcdStore;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::timeout;

use crate::connect;
use crate::etcd::Etcd;

/// Operations of a run in `cargo test`.
const DEFAULT_OPS: usize = 3_000;
/// Watches that are open at once.
const WATCHES: usize = 6;
/// Leases that are used at once.
const LEASES: usize = 8;
/// Never reached within a run.
const TTL: Duration = Duration::from_secs(3600);
/// How long etcd may take to deliver an event.
const PATIENCE: Duration = Duration::from_secs(20);

/// An operation, with the embedded store's revisions and lease ids.
#[derive(Clone, Debug)]
enum Action {
    Commit(Txn),
    List(Range, ListOptions),
    Watch(Range, Revision),
    /// Compares what the watches have delivered.
    Settle,
    CloseWatch(usize),
    Grant,
    KeepAlive(LeaseId),
    Revoke(LeaseId),
    Compact(Revision),
    Revision,
}

/// An answer in the embedded store's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Outcome(Outcome),
    Listing(Listing),
    Events(Vec<Event>),
    Time(Duration),
    Revision(Revision),
    Done,
    Error(StoreError),
}

struct Watched {
    range: Range,
    /// Deletions at this revision are not compared: etcd before 3.4.36 and 3.5.18 loses those at the revision of the
    /// compaction, newer ones and the embedded store deliver them.
    uncertain: Revision,
    embedded: WatchStream,
    etcd: WatchStream,
}

struct Run {
    random: StdRng,
    embedded: EmbeddedStore,
    etcd: EtcdStore,
    /// etcd's revisions less the embedded store's.
    ahead: Revision,
    revision: Revision,
    compacted: Revision,
    /// etcd's ids by those of the embedded store.
    leases: BTreeMap<LeaseId, LeaseId>,
    live: Vec<LeaseId>,
    watches: Vec<Watched>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_stores_answer_a_random_script_alike() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let ops = number("HERDER_DIFF_OPS").map_or(DEFAULT_OPS, |ops| usize::try_from(ops).unwrap());
    let seed = number("HERDER_DIFF_SEED").unwrap_or_else(rand::random);
    let server = Etcd::start();
    let embedded = EmbeddedStore::new();
    let etcd = connect(&server).await;
    let revision = embedded.revision().await.unwrap();
    let ahead = etcd.revision().await.unwrap() - revision;
    let mut run = Run {
        random: StdRng::seed_from_u64(seed),
        embedded,
        etcd,
        ahead,
        revision,
        compacted: 0,
        leases: BTreeMap::new(),
        live: Vec::new(),
        watches: Vec::new(),
    };
    for index in 0..ops {
        let action = if index + 1 == ops { Action::Settle } else { run.next_action() };
        let outcome = std::panic::AssertUnwindSafe(run.perform(action.clone())).catch_unwind().await;
        let agreed = outcome.unwrap_or_else(|_| Err("panicked".to_owned()));
        if let Err(difference) = agreed {
            panic!(
                "HERDER_DIFF_SEED={seed} HERDER_DIFF_OPS={ops}, operation {index}: {action:?}\n{difference}"
            );
        }
    }
}

/// Choosing what to do next.
impl Run {
    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_ratio(percent, 100)
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.random.random_range(0..from.len())].clone()
    }

    fn next_action(&mut self) -> Action {
        match self.random.random_range(0..1000) {
            0..450 => Action::Commit(self.any_txn()),
            450..470 => Action::Commit(self.bad_txn()),
            470..700 => {
                let range = self.any_range();
                Action::List(range, self.any_options())
            }
            700..740 if self.watches.len() < WATCHES => {
                let range = self.any_range();
                let oldest = if self.chance(30) { self.revision } else { self.compacted - 2 };
                let from = self.random.random_range(oldest..=self.revision + 5);
                Action::Watch(range, from.max(1))
            }
            740..755 if !self.watches.is_empty() => {
                Action::CloseWatch(self.random.random_range(0..self.watches.len()))
            }
            755..800 => Action::Settle,
            800..850 if self.live.len() < LEASES => Action::Grant,
            850..900 => Action::KeepAlive(self.any_lease()),
            900..950 => Action::Revoke(self.any_lease()),
            950..955 => {
                let newest = self.revision + 1;
                Action::Compact(self.random.random_range((self.compacted - 1).max(1)..=newest))
            }
            _ => Action::Revision,
        }
    }

    fn any_key(&mut self) -> String {
        const PARTS: [&str; 6] = ["a", "b", "a/", "ab", "0", "~"];
        let count = self.random.random_range(1..=3);
        (0..count).map(|_| self.pick(&PARTS)).collect()
    }

    fn any_range(&mut self) -> Range {
        let key = self.any_key();
        match self.random.random_range(0..10) {
            0..4 => Range::Key(key),
            4..8 => Range::Prefix(key),
            8 => Range::Prefix(String::new()),
            _ => {
                let other = self.any_key();
                Range::Between(key, other)
            }
        }
    }

    fn any_options(&mut self) -> ListOptions {
        let past = (self.compacted - 2).max(1)..=self.revision + 1;
        ListOptions {
            at: self.chance(40).then(|| self.random.random_range(past)),
            limit: if self.chance(30) { self.random.random_range(1..8) } else { 0 },
            keys_only: self.chance(10),
        }
    }

    /// Mostly one that lives, sometimes one that has ended or never was.
    fn any_lease(&mut self) -> LeaseId {
        let known: Vec<LeaseId> = self.leases.keys().copied().collect();
        match self.random.random_range(0..10) {
            0..7 if !self.live.is_empty() => self.pick(&self.live.clone()),
            7..9 if !known.is_empty() => self.pick(&known),
            _ => 77,
        }
    }

    fn any_put(&mut self, key: String) -> Op {
        let length = if self.chance(2) { 20_000 } else { self.random.random_range(0..20) };
        let value = Bytes::from(vec![self.random.random_range(b'a'..=b'z'); length]);
        let lease = if self.chance(15) { self.any_lease() } else { 0 };
        Op::Put { key, value, lease }
    }

    fn any_ops(&mut self, most: usize) -> Vec<Op> {
        let count = self.random.random_range(0..=most);
        let mut ops: Vec<Op> = Vec::new();
        for _ in 0..count {
            let key = self.any_key();
            let op = match self.random.random_range(0..10) {
                0..6 => self.any_put(key),
                6 | 7 => Op::delete(key),
                8 => Op::Delete(self.any_range()),
                _ => Op::Get(self.any_range()),
            };
            ops.push(op);
            // Most duplicates go, since a refused transaction shows little.
            let txn = Txn { then: ops.clone(), ..Txn::default() };
            if txn.duplicate_key().is_some() && self.chance(95) {
                ops.pop();
            }
        }
        ops
    }

    fn any_guard(&mut self) -> Guard {
        let key = self.any_key();
        let item = self.embedded.get(&key).now_or_never().expect("it never waits").unwrap().1;
        let holds = self.chance(80);
        let revision = self.random.random_range(0..=self.revision + 1);
        let lease = self.any_lease();
        let of =
            |value: fn(&KeyValue) -> i64, other| if holds { item.as_ref().map_or(0, value) } else { other };
        match self.random.random_range(0..3) {
            0 => Guard::ModRevision(key, of(|item| item.mod_revision, revision)),
            1 => Guard::CreateRevision(key, of(|item| item.create_revision, revision)),
            _ => Guard::Lease(key, of(|item| item.lease, lease)),
        }
    }

    fn any_txn(&mut self) -> Txn {
        let guards = self.random.random_range(0..4);
        Txn {
            guards: (0..guards).map(|_| self.any_guard()).collect(),
            then: self.any_ops(6),
            otherwise: if self.chance(30) { self.any_ops(3) } else { Vec::new() },
        }
    }

    fn bad_txn(&mut self) -> Txn {
        let mut txn = self.any_txn();
        let key = self.any_key();
        let many = (0..129).map(|index| Op::put(format!("many/{index}"), "x"));
        match self.random.random_range(0..6) {
            0 => txn.then.extend(many),
            1 => txn.otherwise.extend(many),
            2 => txn.guards.extend((0..129).map(|index| Guard::absent(format!("many/{index}")))),
            3 => txn.then.extend([Op::put(key.as_str(), "x"), Op::Delete(Range::Prefix(key))]),
            4 => txn.then.push(Op::put("", "x")),
            _ => txn.otherwise.extend([Op::put(key.as_str(), "x"), Op::put(key, "y")]),
        }
        txn
    }
}

/// Doing it on both.
impl Run {
    async fn perform(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Watch(range, from) => self.watch(range, from).await,
            Action::CloseWatch(index) => {
                self.watches.remove(index);
                Ok(())
            }
            Action::Settle => self.settle().await,
            Action::Grant => {
                let (ours, theirs) = (self.embedded.grant(TTL).await, self.etcd.grant(TTL).await);
                let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
                self.leases.insert(ours, theirs);
                self.live.push(ours);
                Ok(())
            }
            action => {
                if matches!(action, Action::Compact(_)) {
                    // A watch that has not caught up yet would end; whether it has is a matter of time.
                    self.settle().await?;
                }
                let embedded = ask(&self.embedded, action.clone()).await;
                let etcd = self.translate(ask(&self.etcd, self.to_etcd(action.clone())).await);
                if embedded != etcd {
                    return Err(format!("embedded: {embedded:?}\netcd:     {etcd:?}"));
                }
                self.note(&action, &embedded);
                Ok(())
            }
        }
    }

    fn note(&mut self, action: &Action, answer: &Answer) {
        match (action, answer) {
            (_, Answer::Outcome(outcome)) => self.revision = outcome.revision,
            (_, Answer::Revision(revision)) => self.revision = *revision,
            (Action::Revoke(lease), Answer::Done) => {
                self.live.retain(|live| live != lease);
                self.revision = self.embedded.revision().now_or_never().expect("it never waits").unwrap();
            }
            (Action::Compact(revision), Answer::Done) => self.compacted = *revision,
            _ => {}
        }
    }

    async fn watch(&mut self, range: Range, from: Revision) -> Result<(), String> {
        let embedded = self.embedded.watch(range.clone(), from).await;
        let etcd = self.etcd.watch(range.clone(), from + self.ahead).await;
        let expected = match embedded {
            Ok(embedded) => {
                let etcd = etcd.map_err(|error| format!("only etcd refuses the watch: {error}"))?;
                let uncertain = if from == self.compacted { from } else { 0 };
                self.watches.push(Watched { range, uncertain, embedded, etcd });
                return Ok(());
            }
            Err(error) => error,
        };
        let error = match etcd {
            Err(error) => Some(error),
            Ok(mut watch) => match timeout(PATIENCE, watch.next()).await {
                Ok(Some(Err(error))) => Some(error),
                _ => None,
            },
        };
        let seen = error.map(|error| self.translate_error(error));
        if seen == Some(known(expected.clone())) {
            Ok(())
        } else {
            Err(format!("{expected:?}, etcd: {seen:?}"))
        }
    }

    /// Writes a key in the range of each watch and reads all watches up to it.
    async fn settle(&mut self) -> Result<(), String> {
        for index in 0..self.watches.len() {
            let key = match &self.watches[index].range {
                Range::Key(key) => key.clone(),
                Range::Prefix(prefix) => format!("{prefix}mark"),
                Range::Between(from, _) => from.clone(),
            };
            let txn = Txn { then: vec![Op::put(key, "mark")], ..Txn::default() };
            Box::pin(self.perform(Action::Commit(txn))).await?;
        }
        let mut watches = std::mem::take(&mut self.watches);
        for watch in &mut watches {
            let expected = told_by_embedded(&mut watch.embedded)?;
            let last = expected.last().map_or(0, |batch| batch.revision) + self.ahead;
            let seen = told_by_etcd(&mut watch.etcd, last).await?;
            let uncertain = watch.uncertain;
            let is_certain = |event: &Event| !matches!(event, Event::Delete(_, at) if *at == uncertain);
            let expected: Vec<Event> =
                expected.into_iter().flat_map(|batch| batch.events).filter(is_certain).collect();
            let seen = Answer::Events(seen.into_iter().flat_map(|batch| batch.events).collect());
            let Answer::Events(mut seen) = self.translate(seen) else { unreachable!("events stay events") };
            seen.retain(is_certain);
            if expected != seen {
                return Err(format!("watch of {}\nembedded: {expected:?}\netcd:     {seen:?}", watch.range));
            }
        }
        self.watches = watches;
        Ok(())
    }
}

/// What a watch has to tell at once.
fn told_by_embedded(watch: &mut WatchStream) -> Result<Vec<WatchBatch>, String> {
    let mut batches = Vec::new();
    while let Some(batch) = watch.next().now_or_never() {
        match batch {
            Some(Ok(batch)) => batches.push(batch),
            other => return Err(format!("embedded watch: {other:?}")),
        }
    }
    Ok(batches)
}

/// What a watch tells up to revision `last`. Checks that no revision comes in parts.
async fn told_by_etcd(watch: &mut WatchStream, last: Revision) -> Result<Vec<WatchBatch>, String> {
    let mut batches: Vec<WatchBatch> = Vec::new();
    let mut before = 0;
    while batches.last().is_none_or(|batch| batch.revision < last) && last != 0 {
        let batch = match timeout(PATIENCE, watch.next()).await {
            Ok(Some(Ok(batch))) => batch,
            other => return Err(format!("etcd watch: {other:?} instead of events up to {last}")),
        };
        let Some(first) = batch.events.first().map(Event::revision) else { continue };
        if first <= before || batch.events.last().map(Event::revision) != Some(batch.revision) {
            return Err(format!("etcd watch: after revision {before} came {batch:?}"));
        }
        before = batch.revision;
        batches.push(batch);
    }
    Ok(batches)
}

async fn ask(store: &dyn Store, action: Action) -> Answer {
    let answer = match action {
        Action::Commit(txn) => store.commit(txn).await.map(Answer::Outcome),
        Action::List(range, options) => store.list(range, options).await.map(Answer::Listing),
        Action::KeepAlive(lease) => store.keep_alive(lease).await.map(Answer::Time),
        Action::Revoke(lease) => store.revoke(lease).await.map(|()| Answer::Done),
        Action::Compact(revision) => store.compact(revision).await.map(|()| Answer::Done),
        Action::Revision => store.revision().await.map(Answer::Revision),
        Action::Watch(..) | Action::Settle | Action::CloseWatch(_) | Action::Grant => Ok(Answer::Done),
    };
    answer.unwrap_or_else(|error| Answer::Error(known(error)))
}

/// Errors without a kind of their own are worded differently.
fn known(error: StoreError) -> StoreError {
    if matches!(error, StoreError::Other(_)) { StoreError::Other(String::new()) } else { error }
}

/// Translation of revisions and lease ids.
impl Run {
    fn to_etcd(&self, action: Action) -> Action {
        let lease = |lease: LeaseId| self.leases.get(&lease).copied().unwrap_or(lease);
        let revision = |revision: Revision| if revision == 0 { 0 } else { revision + self.ahead };
        let op = |op: Op| match op {
            Op::Put { key, value, lease: of } => Op::Put { key, value, lease: lease(of) },
            other => other,
        };
        let guard = |guard: Guard| match guard {
            Guard::ModRevision(key, at) => Guard::ModRevision(key, revision(at)),
            Guard::CreateRevision(key, at) => Guard::CreateRevision(key, revision(at)),
            Guard::Lease(key, of) => Guard::Lease(key, lease(of)),
        };
        match action {
            Action::Commit(txn) => Action::Commit(Txn {
                guards: txn.guards.into_iter().map(guard).collect(),
                then: txn.then.into_iter().map(op).collect(),
                otherwise: txn.otherwise.into_iter().map(op).collect(),
            }),
            Action::List(range, options) => {
                Action::List(range, ListOptions { at: options.at.map(revision), ..options })
            }
            Action::KeepAlive(of) => Action::KeepAlive(lease(of)),
            Action::Revoke(of) => Action::Revoke(lease(of)),
            Action::Compact(at) => Action::Compact(revision(at)),
            other => other,
        }
    }

    fn translate(&self, answer: Answer) -> Answer {
        match answer {
            Answer::Outcome(outcome) => Answer::Outcome(Outcome {
                revision: outcome.revision - self.ahead,
                gets: outcome.gets.into_iter().map(|get| self.translate_listing(get)).collect(),
                ..outcome
            }),
            Answer::Listing(listing) => Answer::Listing(self.translate_listing(listing)),
            Answer::Events(events) => {
                let translate = |event| match event {
                    Event::Put(item) => Event::Put(self.translate_item(item)),
                    Event::Delete(key, revision) => Event::Delete(key, revision - self.ahead),
                };
                Answer::Events(events.into_iter().map(translate).collect())
            }
            Answer::Revision(revision) => Answer::Revision(revision - self.ahead),
            Answer::Error(error) => Answer::Error(self.translate_error(error)),
            other => other,
        }
    }

    fn translate_listing(&self, listing: Listing) -> Listing {
        Listing {
            revision: listing.revision - self.ahead,
            items: listing.items.into_iter().map(|item| self.translate_item(item)).collect(),
            ..listing
        }
    }

    fn translate_item(&self, item: KeyValue) -> KeyValue {
        let ours = self.leases.iter().find(|(_, theirs)| **theirs == item.lease);
        KeyValue {
            create_revision: item.create_revision - self.ahead,
            mod_revision: item.mod_revision - self.ahead,
            lease: ours.map_or(item.lease, |(ours, _)| *ours),
            ..item
        }
    }

    fn translate_error(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Compacted { at } => StoreError::Compacted { at: at - self.ahead },
            error => known(error),
        }
    }
}
