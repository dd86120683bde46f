//! Where the truth lives: a trait with etcd's contract and two implementations of it.
//!
//! The contract, which `tests/store` runs on both: every change gets the next revision; a transaction's changes share
//! one; a listing may be taken at a past revision; a watch from revision R delivers every later change in revision
//! order, all changes of one revision together; compaction makes older revisions unreadable; a key bound to a lease
//! is deleted when the lease ends.

pub mod embedded;
pub mod etcd;
pub mod key;

use std::collections::BTreeSet;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;

/// A point in the store's history. Grows by one with every changing transaction.
pub type Revision = i64;

/// One key with its value and history marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: String,
    pub value: Bytes,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    /// Number of changes since the key was created, from 1.
    pub version: i64,
    /// The lease that the key ends with, 0 for none.
    pub lease: LeaseId,
}

/// Identifies a lease; 0 is "none".
pub type LeaseId = i64;

/// A set of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Range {
    /// Exactly this key.
    Key(String),
    /// Every key that begins with this text.
    Prefix(String),
    /// Every key from the first (inclusive) to the second (exclusive).
    Between(String, String),
}

impl Range {
    /// First key of the range and the key just after its end, in etcd's form; the end is `None` for a single key.
    pub fn bounds(&self) -> (&str, Option<String>) {
        match self {
            Self::Key(key) => (key, None),
            Self::Prefix(prefix) => (prefix, Some(prefix_end(prefix))),
            Self::Between(from, to) => (from, Some(to.clone())),
        }
    }

    /// True if `key` belongs to the range.
    pub fn contains(&self, key: &str) -> bool {
        match self {
            Self::Key(own) => own == key,
            Self::Prefix(prefix) => key.starts_with(prefix.as_str()),
            Self::Between(from, to) => key >= from.as_str() && key < to.as_str(),
        }
    }
}

/// The smallest text greater than every text beginning with `prefix`. Keys are ASCII, so the last character can
/// always be followed by another.
fn prefix_end(prefix: &str) -> String {
    let mut end = prefix.to_owned();
    if let Some(last) = end.pop() {
        end.push(char::from_u32(u32::from(last) + 1).unwrap_or(char::MAX));
    }
    end
}

/// How a listing is taken.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// At this past revision; now when absent.
    pub at: Option<Revision>,
    /// At most this many keys; all when 0.
    pub limit: usize,
    /// Values are left empty.
    pub keys_only: bool,
}

/// Keys in ascending order, as of `revision`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The revision of the listing: `at` if given, else the store's current one.
    pub revision: Revision,
    pub items: Vec<KeyValue>,
    /// More keys follow the last one.
    pub more: bool,
    /// Number of keys in the whole range, whatever the limit.
    pub count: i64,
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The key's newest change is of this revision; 0: the key does not exist.
    ModRevision(String, Revision),
    /// The key was created at this revision; 0: the key does not exist.
    CreateRevision(String, Revision),
    /// The key is bound to this lease.
    Lease(String, LeaseId),
}

impl Guard {
    /// The key must not exist.
    pub fn absent(key: impl Into<String>) -> Self {
        Self::CreateRevision(key.into(), 0)
    }

    /// The key must be exactly as it was seen.
    pub fn unchanged(seen: &KeyValue) -> Self {
        Self::ModRevision(seen.key.clone(), seen.mod_revision)
    }

    /// The key that the condition is about.
    pub fn key(&self) -> &str {
        match self {
            Self::ModRevision(key, _) | Self::CreateRevision(key, _) | Self::Lease(key, _) => key,
        }
    }
}

/// Bytes that a step or guard takes in a request besides keys and values, at most.
const STEP_OVERHEAD: usize = 32;
/// Bytes that a transaction takes besides its steps and guards, at most.
const TXN_OVERHEAD: usize = 64;

/// A step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Put { key: String, value: Bytes, lease: LeaseId },
    Delete(Range),
    Get(Range),
}

impl Op {
    /// A put without lease.
    pub fn put(key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Self::Put { key: key.into(), value: value.into(), lease: 0 }
    }

    /// Deletion of one key.
    pub fn delete(key: impl Into<String>) -> Self {
        Self::Delete(Range::Key(key.into()))
    }

    /// Bytes that the step adds to a request.
    pub fn size(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len() + STEP_OVERHEAD,
            Self::Delete(range) | Self::Get(range) => range.bounds().0.len() * 2 + STEP_OVERHEAD,
        }
    }
}

/// All or nothing: if every guard holds `then` is applied, else `otherwise`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    pub guards: Vec<Guard>,
    pub then: Vec<Op>,
    pub otherwise: Vec<Op>,
}

impl Txn {
    /// A transaction under these conditions.
    pub fn when(guards: impl IntoIterator<Item = Guard>) -> Self {
        Self { guards: guards.into_iter().collect(), ..Self::default() }
    }

    /// Adds a step for the case that all guards hold.
    #[must_use]
    pub fn and_then(mut self, op: Op) -> Self {
        self.then.push(op);
        self
    }

    /// Bytes of the request, at most.
    pub fn size(&self) -> usize {
        let guards: usize = self.guards.iter().map(|guard| guard.key().len() + STEP_OVERHEAD).sum();
        let steps: usize = self.then.iter().chain(&self.otherwise).map(Op::size).sum();
        guards + steps + TXN_OVERHEAD
    }

    /// True if neither branch writes.
    pub fn is_read_only(&self) -> bool {
        self.then.iter().chain(&self.otherwise).all(|op| matches!(op, Op::Get(_)))
    }

    /// A key that one branch writes twice, or writes and deletes, which a store refuses.
    pub fn duplicate_key(&self) -> Option<&str> {
        duplicate_key(&self.then).or_else(|| duplicate_key(&self.otherwise))
    }
}

fn duplicate_key(ops: &[Op]) -> Option<&str> {
    let deletes = || ops.iter().filter_map(|op| if let Op::Delete(range) = op { Some(range) } else { None });
    let mut written = BTreeSet::new();
    for op in ops {
        let Op::Put { key, .. } = op else { continue };
        if !written.insert(key.as_str()) || deletes().any(|range| range.contains(key)) {
            return Some(key);
        }
    }
    None
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// All guards held.
    pub succeeded: bool,
    /// The store's revision after the transaction.
    pub revision: Revision,
    /// The answers to the `Get` steps of the branch taken, in order. Each sees the steps before it, and its
    /// revision is that of the store until the first change.
    pub gets: Vec<Listing>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Put(KeyValue),
    /// The key, and the revision of its deletion.
    Delete(String, Revision),
}

impl Event {
    pub fn key(&self) -> &str {
        match self {
            Self::Put(item) => &item.key,
            Self::Delete(key, _) => key,
        }
    }

    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(item) => item.mod_revision,
            Self::Delete(_, revision) => *revision,
        }
    }
}

/// Changes in revision order, whole revisions only. Without events it tells of progress: everything up to
/// `revision` has been delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchBatch {
    pub revision: Revision,
    pub events: Vec<Event>,
}

/// A running watch. It ends after its first error; whoever wants more asks again.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchBatch, StoreError>> + Send>>;

/// What a store accepts in one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Operations, and likewise guards.
    pub txn_ops: usize,
    /// Bytes of a request.
    pub request_bytes: usize,
}

impl Default for Limits {
    /// etcd's defaults.
    fn default() -> Self {
        Self { txn_ops: 128, request_bytes: 1_572_864 }
    }
}

/// A key-value store with etcd's contract. See the module's documentation.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest value of a key, and the store's revision.
    async fn get(&self, key: &str) -> Result<(Revision, Option<KeyValue>), StoreError> {
        let listing = self.list(Range::Key(key.to_owned()), ListOptions::default()).await?;
        Ok((listing.revision, listing.items.into_iter().next()))
    }

    /// The keys of a range, linearizable unless a past revision is asked for.
    async fn list(&self, range: Range, options: ListOptions) -> Result<Listing, StoreError>;

    /// Applies a transaction. [`StoreError::Ambiguous`] means that it may or may not have been applied.
    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError>;

    /// Every change of the range from revision `from` (inclusive; at least 1) on. That history is compacted
    /// may be told by this call or by the first item.
    async fn watch(&self, range: Range, from: Revision) -> Result<WatchStream, StoreError>;

    /// A revision that is at least that of every transaction acknowledged before the call.
    async fn revision(&self) -> Result<Revision, StoreError>;

    /// A new lease that ends `ttl` after its last renewal (whole seconds, rounded up; the store may extend it).
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError>;

    /// Renews a lease: the time it has left, or [`StoreError::LeaseNotFound`].
    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, StoreError>;

    /// Ends a lease and deletes its keys.
    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Forgets history before `revision`: older listings and watches answer [`StoreError::Compacted`].
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;

    /// What fits into one transaction.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// A short description for people: `embedded`, or the etcd endpoints.
    fn describe(&self) -> String;
}

/// A store that can be handed around.
pub type SharedStore = Arc<dyn Store>;

/// Why the store did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The revision is older than the last compaction; `at` is the oldest that can still be read.
    #[error("history before revision {at} was compacted")]
    Compacted { at: Revision },
    #[error("the store has not reached the revision asked for")]
    FutureRevision,
    #[error("request of {size} bytes is larger than the store's limit of {limit} bytes")]
    TooLarge { size: usize, limit: usize },
    #[error("{count} operations in one transaction, the store takes {limit}")]
    TooManyOps { count: usize, limit: usize },
    /// Two steps of one transaction write the same key.
    #[error("key {0} is written twice in one transaction")]
    DuplicateKey(String),
    #[error("lease not found")]
    LeaseNotFound,
    /// Nothing was done; trying again is safe.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// The answer was lost: it may or may not have been done. Settle by reading.
    #[error("no answer from the store, the outcome is unknown: {0}")]
    Ambiguous(String),
    /// The store's quota is used up: reads go on, writes are refused.
    #[error("store is out of space: writes are refused until an operator compacts or enlarges it")]
    NoSpace,
    #[error("the store refused the credentials: {0}")]
    Denied(String),
    #[error("store: {0}")]
    Other(String),
}

impl StoreError {
    /// Worth trying again later without any change.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Ambiguous(_) | Self::NoSpace)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => f.write_str(key),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Between(from, to) => write!(f, "[{from}, {to})"),
        }
    }
}
