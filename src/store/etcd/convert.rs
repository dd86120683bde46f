//! Between the store's types and those of the etcd client.

use std::sync::Once;

use bytes::Bytes;
use etcd_client::Compare;
use etcd_client::CompareOp;
use etcd_client::DeleteOptions;
use etcd_client::GetOptions;
use etcd_client::PutOptions;
use etcd_client::TxnOp;
use etcd_client::TxnResponse;
use etcd_client::proto::PbEvent;
use etcd_client::proto::PbKeyValue;
use etcd_client::proto::PbRangeResponse;
use etcd_client::proto::PbTxnOpResponse;

use crate::store::Event;
use crate::store::Guard;
use crate::store::KeyValue;
use crate::store::Listing;
use crate::store::Op;
use crate::store::Outcome;
use crate::store::Range;
use crate::store::Revision;
use crate::store::Txn;

/// A byte that no text contains, so that every key comes before it. etcd's own sign for "no end", a zero byte, is
/// not good enough: deletions up to it escape etcd's search for keys that are written twice in a transaction.
const AFTER_ALL_TEXT: u8 = 0xff;

/// Keys of a range in etcd's form: the first key and, unless it is the only one, the end. A zero byte stands for
/// the very first key, since etcd allows no empty one.
pub(super) struct Span {
    pub(super) first: Vec<u8>,
    pub(super) end: Option<Vec<u8>>,
}

impl Span {
    /// `None` for a range without keys, which etcd cannot express.
    pub(super) fn of(range: &Range) -> Option<Self> {
        let no_end = || Some(vec![AFTER_ALL_TEXT]);
        match range {
            Range::Key(key) => Some(Self { first: key.clone().into_bytes(), end: None }),
            Range::Prefix(prefix) if prefix.is_empty() => Some(Self { first: vec![0], end: no_end() }),
            Range::Between(from, to) if from >= to => None,
            Range::Between(from, to) if from.is_empty() => {
                Some(Self { first: vec![0], end: Some(to.clone().into_bytes()) })
            }
            Range::Prefix(_) | Range::Between(..) => {
                let (first, end) = range.bounds();
                Some(Self { first: first.into(), end: end.map(String::into_bytes) })
            }
        }
    }

    /// The same for reading: etcd accepts a range that ends where it begins, and finds nothing in it.
    pub(super) fn to_read(range: &Range) -> Self {
        Self::of(range).unwrap_or_else(|| {
            let (first, _) = range.bounds();
            let first = if first.is_empty() { vec![1] } else { first.into() };
            Self { end: Some(first.clone()), first }
        })
    }
}

pub(super) fn compare(guard: &Guard) -> Compare {
    match guard {
        Guard::ModRevision(key, revision) => Compare::mod_revision(key.as_str(), CompareOp::Equal, *revision),
        Guard::CreateRevision(key, revision) => {
            Compare::create_revision(key.as_str(), CompareOp::Equal, *revision)
        }
        Guard::Lease(key, lease) => Compare::lease(key.as_str(), CompareOp::Equal, *lease),
    }
}

/// The step in etcd's form; `None` if it concerns no key at all.
pub(super) fn step(op: &Op) -> Option<TxnOp> {
    match op {
        Op::Put { key, value, lease } => {
            let options = (*lease != 0).then(|| PutOptions::new().with_lease(*lease));
            Some(TxnOp::put(key.as_str(), value.as_ref(), options))
        }
        Op::Delete(range) => {
            let span = Span::of(range)?;
            let options = span.end.map(|end| DeleteOptions::new().with_range(end));
            Some(TxnOp::delete(span.first, options))
        }
        Op::Get(range) => {
            let span = Span::to_read(range);
            let options = span.end.map(|end| GetOptions::new().with_range(end));
            Some(TxnOp::get(span.first, options))
        }
    }
}

pub(super) fn transaction(txn: &Txn, probe_key: &str) -> etcd_client::Txn {
    let guards: Vec<Compare> = txn.guards.iter().map(compare).collect();
    let mut then: Vec<TxnOp> = txn.then.iter().filter_map(step).collect();
    let otherwise: Vec<TxnOp> = txn.otherwise.iter().filter_map(step).collect();
    if then.is_empty() && otherwise.is_empty() {
        // etcd answers a transaction without steps from whatever the member has, which may be old. A read makes it
        // wait until the member is up to date.
        let key = txn.guards.first().map_or(probe_key, Guard::key);
        then.push(TxnOp::get(key, Some(GetOptions::new().with_count_only())));
        let again = vec![TxnOp::get(key, Some(GetOptions::new().with_count_only()))];
        return etcd_client::Txn::new().when(guards).and_then(then).or_else(again);
    }
    etcd_client::Txn::new().when(guards).and_then(then).or_else(otherwise)
}

pub(super) fn outcome(txn: &Txn, response: TxnResponse) -> Outcome {
    let succeeded = response.succeeded();
    let revision = response.header().map_or(0, etcd_client::ResponseHeader::revision);
    let answers = response.0.responses.into_iter();
    let wanted = if succeeded { &txn.then } else { &txn.otherwise };
    let wanted = wanted.iter().filter(|op| matches!(op, Op::Get(_))).count();
    let gets = answers.filter_map(|answer| match answer.response {
        // Each read tells the revision that it saw: it grows within the transaction at the first change.
        Some(PbTxnOpResponse::ResponseRange(range)) => {
            let seen = range.header.as_ref().map_or(revision, |header| header.revision);
            Some(listing(range, seen))
        }
        _ => None,
    });
    // A read that only makes etcd wait is not an answer to anything.
    Outcome { succeeded, revision, gets: gets.take(wanted).collect() }
}

pub(super) fn listing(response: PbRangeResponse, revision: Revision) -> Listing {
    let all = response.kvs.len();
    let items: Vec<KeyValue> = response.kvs.into_iter().filter_map(key_value).collect();
    let skipped = i64::try_from(all - items.len()).unwrap_or_default();
    Listing { revision, items, more: response.more, count: response.count - skipped }
}

/// `None` for a key that is no text: it was not written by this program.
pub(super) fn key_value(item: PbKeyValue) -> Option<KeyValue> {
    Some(KeyValue {
        key: text(item.key)?,
        value: Bytes::from(item.value),
        create_revision: item.create_revision,
        mod_revision: item.mod_revision,
        version: item.version,
        lease: item.lease,
    })
}

/// `None` as above.
pub(super) fn event(event: PbEvent) -> Option<Event> {
    /// etcd's number for a deletion.
    const DELETE: i32 = 1;
    let item = event.kv?;
    if event.r#type == DELETE {
        return Some(Event::Delete(text(item.key)?, item.mod_revision));
    }
    key_value(item).map(Event::Put)
}

fn text(key: Vec<u8>) -> Option<String> {
    static TOLD: Once = Once::new();
    match String::from_utf8(key) {
        Ok(key) => Some(key),
        Err(error) => {
            TOLD.call_once(|| {
                let key = String::from_utf8_lossy(error.as_bytes()).into_owned();
                tracing::warn!(target: "store", key, "etcd holds keys that are no text; they are ignored");
            });
            None
        }
    }
}
