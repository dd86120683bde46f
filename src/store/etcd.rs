//! The store on etcd. The client library neither fails over nor re-opens streams, so that is done here: one client
//! per member ([`members`]), shared lease streams ([`leases`]), and watches that notice silence ([`watch`]).

mod convert;
mod fault;
mod leases;
mod members;
mod options;
mod watch;

use std::future::Future;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::GetOptions;
use etcd_client::LeaseGrantOptions;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::sync::watch as watch_channel;
use tokio::time::Instant;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

use self::convert::Span;
use self::fault::Fault;
use self::leases::Renewals;
use self::members::Member;
use self::members::Members;
pub use self::options::EtcdOptions;
use crate::store::LeaseId;
use crate::store::Limits;
use crate::store::ListOptions;
use crate::store::Listing;
use crate::store::Outcome;
use crate::store::Range;
use crate::store::Revision;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::Txn;
use crate::store::WatchStream;

/// The longest answer accepted. The client's own limit of 4 MiB is less than a catch-up watch may need.
const ANSWER_BYTES: usize = 64 << 20;
/// Keys asked for at once. etcd counts all remaining keys for every page, so small pages are slow.
const PAGE_KEYS: usize = 10_000;
/// A page may take this many times as long as another request: it can be [`ANSWER_BYTES`] long. A member that has
/// fallen silent is found out earlier, by unanswered pings.
const PAGE_PATIENCE: u32 = 4;
/// Every default read waits for a small one, see [`Effort::Quick`].
const QUICK_PATIENCE: Duration = Duration::from_secs(1);
/// A listing that history is compacted away under is begun anew this often.
const LISTING_RESTARTS: u32 = 5;
/// Pause before a request is sent again when no member is trusted; doubled each time up to the maximum.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// See [`RETRY_PAUSE`].
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long to wait for a watch to tell how far history is compacted.
const COMPACTION_PATIENCE: Duration = Duration::from_secs(1);

/// A store on etcd. Dropping it ends its background tasks; open watches go on until they are dropped.
pub struct EtcdStore {
    core: Arc<Core>,
    renewals: OnceLock<Renewals>,
    stop: CancellationToken,
    _stop_at_drop: DropGuard,
}

/// What requests, watches and lease streams share.
struct Core {
    options: EtcdOptions,
    members: Arc<Members>,
    readers: Mutex<Readers>,
    /// The newest revision that a caller was told; watches try to reach it soon.
    told: watch_channel::Sender<Revision>,
}

/// How a request is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effort {
    /// Doing it twice is as good as doing it once.
    Repeatable,
    /// The same, and the answer may be long.
    Page,
    /// The same, and many may wait for it: another member is tried early.
    Quick,
    /// It must not be repeated when its outcome is unknown.
    Once,
}

/// A page of a listing.
enum Page {
    /// With the last key as etcd has it, and the number of keys that were left out because they are no text.
    Keys { listing: Listing, last: Option<Vec<u8>>, skipped: i64 },
    /// More bytes than this client accepts: ask for fewer keys.
    TooLong,
}

type Reader = oneshot::Sender<Result<Revision, StoreError>>;

/// Callers who want to know the store's revision.
#[derive(Default)]
struct Readers {
    /// Served by the next read.
    waiting: Vec<Reader>,
    /// A task is reading, and will read again while someone waits.
    reading: bool,
}

impl EtcdStore {
    /// Connects to etcd: fails if options are wrong, credentials are refused or, unless that may be, no member answers.
    pub async fn connect(options: EtcdOptions) -> Result<Self, StoreError> {
        // An error means that a provider is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let urls = options.urls()?;
        let members = Arc::new(Members::new(urls, &options));
        match members.first_answer().await {
            Err(error) if error.is_transient() && options.may_be_away => {
                tracing::warn!(%error, "etcd does not answer yet; it is waited for");
            }
            answered => answered?,
        }
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&members).probe(stop.clone()));
        let core = Arc::new(Core {
            options,
            members,
            readers: Mutex::default(),
            told: watch_channel::Sender::new(0),
        });
        Ok(Self { core, renewals: OnceLock::new(), _stop_at_drop: stop.clone().drop_guard(), stop })
    }
}

impl Core {
    /// Carries out `attempt` at one member after another until one answers. What was never sent is always sent
    /// again; what may have been carried out already is not, if the effort says so.
    async fn try_members<T, F, A>(&self, effort: Effort, attempt: F) -> Result<T, StoreError>
    where
        F: Fn(Arc<Member>) -> A,
        A: Future<Output = Result<T, Fault>>,
    {
        let patience = match effort {
            Effort::Page => self.options.request_timeout * PAGE_PATIENCE,
            Effort::Quick => self.options.request_timeout.min(QUICK_PATIENCE),
            Effort::Repeatable | Effort::Once => self.options.request_timeout,
        };
        let started = Instant::now();
        let mut pause = RETRY_PAUSE;
        let mut tries = 0;
        loop {
            tries += 1;
            let member = self.members.pick();
            let under_way = member.begin();
            let fault = match timeout(patience, attempt(Arc::clone(&member))).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(fault)) => fault,
                Err(_) => Fault::Lost("request timed out".to_owned()),
            };
            drop(under_way);
            let error = match fault {
                Fault::NotSent(text) => {
                    self.members.suspect(&member, &text);
                    StoreError::Unavailable(format!("{}: {text}", member.url))
                }
                Fault::Lost(text) => {
                    self.members.suspect(&member, &text);
                    let text = format!("{}: {text}", member.url);
                    if effort == Effort::Once {
                        return Err(StoreError::Ambiguous(text));
                    }
                    StoreError::Unavailable(text)
                }
                Fault::LoginExpired(text) => {
                    member.forget();
                    StoreError::Denied(text)
                }
                fault => return Err(fault.into_error()),
            };
            if started.elapsed() + pause > self.options.retry_timeout {
                return Err(error);
            }
            if !self.members.has_another(tries) {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_PAUSE_MAX);
            }
        }
    }

    /// One page of a listing.
    async fn page(&self, span: &Span, options: &GetOptions, effort: Effort) -> Result<Page, StoreError> {
        self.try_members(effort, |member| {
            let (key, mut options) = (span.first.clone(), options.clone());
            if let Some(end) = &span.end {
                options = options.with_range(end.clone());
            }
            async move {
                let client = member.requests().await?;
                let mut kv = client.kv_client().max_decoding_message_size(ANSWER_BYTES);
                match kv.get(key, Some(options)).await.map_err(Fault::from) {
                    Ok(response) => {
                        let revision = response.header().map_or(0, etcd_client::ResponseHeader::revision);
                        // Taken before keys that are no text are dropped.
                        let last = response.0.kvs.last().map(|item| item.key.clone());
                        let count = response.count();
                        let listing = convert::listing(response.0, revision);
                        let skipped = count - listing.count;
                        Ok(Page::Keys { listing, last, skipped })
                    }
                    Err(Fault::AnswerTooLong) => Ok(Page::TooLong),
                    Err(fault) => Err(fault),
                }
            }
        })
        .await
    }

    /// The keys of `span` as of one revision, page by page.
    async fn pages(&self, mut span: Span, options: &ListOptions) -> Result<Listing, StoreError> {
        let mut whole: Option<Listing> = None;
        let mut page_keys = PAGE_KEYS;
        loop {
            let have = whole.as_ref().map_or(0, |whole| whole.items.len());
            let wanted = if options.limit == 0 { page_keys } else { page_keys.min(options.limit - have) };
            let at = whole.as_ref().map(|whole| whole.revision).or(options.at);
            let mut request = GetOptions::new().with_limit(i64::try_from(wanted).unwrap_or(i64::MAX));
            if let Some(at) = at {
                request = request.with_revision(at);
            }
            if options.keys_only {
                request = request.with_keys_only();
            }
            let Page::Keys { listing: page, last, skipped } =
                self.page(&span, &request, Effort::Page).await?
            else {
                if wanted == 1 {
                    return Err(Fault::AnswerTooLong.into_error());
                }
                page_keys = wanted / 2;
                continue;
            };
            match &mut whole {
                None => whole = Some(Listing { revision: at.unwrap_or(page.revision), ..page }),
                Some(whole) => {
                    whole.more = page.more;
                    whole.count -= skipped;
                    whole.items.extend(page.items);
                }
            }
            let Some(whole) = &mut whole else { continue };
            if !whole.more || options.limit != 0 && whole.items.len() >= options.limit {
                return Ok(std::mem::take(whole));
            }
            // The next page begins at the smallest key after the last one.
            let Some(last) = last else { return Ok(std::mem::take(whole)) };
            span.first = last;
            span.first.push(0);
        }
    }

    /// Reads the revision for whoever waits, one read at a time, until nobody does.
    async fn read_revisions(self: Arc<Self>) {
        loop {
            let readers = {
                let mut readers = self.readers.lock();
                readers.reading = !readers.waiting.is_empty();
                if !readers.reading {
                    return;
                }
                std::mem::take(&mut readers.waiting)
            };
            let span = Span { first: self.options.probe_key.clone().into_bytes(), end: None };
            let page = self.page(&span, &GetOptions::new().with_count_only(), Effort::Quick).await;
            let revision = page.map(|page| match page {
                Page::Keys { listing, .. } => listing.revision,
                Page::TooLong => 0,
            });
            if let Ok(revision) = revision {
                self.told.send_if_modified(|told| revision > std::mem::replace(told, revision.max(*told)));
            }
            for reader in readers {
                // A caller who no longer waits is no loss.
                let _ = reader.send(revision.clone());
            }
        }
    }
}

impl EtcdStore {
    /// The oldest revision that can still be read, which etcd tells only to watches that ask for too much.
    async fn compacted(&self, asked: Revision) -> StoreError {
        let key = Range::Key(self.core.options.probe_key.clone());
        let told = async {
            let mut watch = watch::open(Arc::clone(&self.core), &key, 1).await.ok()?;
            loop {
                match futures::StreamExt::next(&mut watch).await? {
                    Err(StoreError::Compacted { at }) => return Some(at),
                    Err(_) => return None,
                    Ok(_) => {}
                }
            }
        };
        let at = timeout(COMPACTION_PATIENCE, told).await.ok().flatten().unwrap_or(asked + 1);
        StoreError::Compacted { at }
    }

    fn check(&self, txn: &Txn) -> Result<(), StoreError> {
        let Limits { txn_ops, request_bytes } = self.core.options.limits;
        let count = txn.guards.len().max(txn.then.len()).max(txn.otherwise.len());
        if count > txn_ops {
            return Err(StoreError::TooManyOps { count, limit: txn_ops });
        }
        let size = txn.size();
        if size > request_bytes {
            return Err(StoreError::TooLarge { size, limit: request_bytes });
        }
        Ok(())
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn list(&self, range: Range, options: ListOptions) -> Result<Listing, StoreError> {
        let mut restarts = 0;
        loop {
            match self.core.pages(Span::to_read(&range), &options).await {
                Err(StoreError::Compacted { .. }) => match options.at {
                    Some(at) => return Err(self.compacted(at).await),
                    None if restarts < LISTING_RESTARTS => restarts += 1,
                    None => return Err(StoreError::Unavailable("compacted while listing".to_owned())),
                },
                answer => return answer,
            }
        }
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        self.check(&txn)?;
        let effort = if txn.is_read_only() { Effort::Repeatable } else { Effort::Once };
        let answer = self
            .core
            .try_members(effort, |member| {
                let request = convert::transaction(&txn, &self.core.options.probe_key);
                async move {
                    let client = member.requests().await?;
                    let mut kv = client.kv_client().max_decoding_message_size(ANSWER_BYTES);
                    kv.txn(request).await.map_err(Fault::from)
                }
            })
            .await;
        match answer {
            Ok(response) => Ok(convert::outcome(&txn, response)),
            Err(StoreError::DuplicateKey(_)) => {
                Err(StoreError::DuplicateKey(txn.duplicate_key().unwrap_or_default().to_owned()))
            }
            Err(StoreError::TooLarge { .. }) => {
                Err(StoreError::TooLarge { size: txn.size(), limit: self.core.options.limits.request_bytes })
            }
            Err(StoreError::TooManyOps { .. }) => {
                let count = txn.guards.len().max(txn.then.len()).max(txn.otherwise.len());
                Err(StoreError::TooManyOps { count, limit: self.core.options.limits.txn_ops })
            }
            Err(error) => Err(error),
        }
    }

    async fn watch(&self, range: Range, from: Revision) -> Result<WatchStream, StoreError> {
        watch::open(Arc::clone(&self.core), &range, from).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        let (reader, answer) = oneshot::channel();
        let start = {
            let mut readers = self.core.readers.lock();
            readers.waiting.push(reader);
            !std::mem::replace(&mut readers.reading, true)
        };
        if start {
            tokio::spawn(Arc::clone(&self.core).read_revisions());
        }
        answer.await.map_err(|_| StoreError::Unavailable("the store was closed".to_owned()))?
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let seconds = (ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).max(1);
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        // With an id of our own a second try finds the lease of the first instead of making another.
        let lease = rand::random_range(1..=i64::MAX);
        let options = LeaseGrantOptions::new().with_id(lease);
        self.core
            .try_members(Effort::Repeatable, |member| {
                let options = options.clone();
                async move {
                    let client = member.requests().await?;
                    match client.lease_client().grant(seconds, Some(options)).await.map_err(Fault::from) {
                        Ok(_) | Err(Fault::LeaseExists) => Ok(lease),
                        Err(fault) => Err(fault),
                    }
                }
            })
            .await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, StoreError> {
        let renewals = self.renewals.get_or_init(|| Renewals::start(&self.core, &self.stop));
        renewals.renew(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let tried = AtomicBool::new(false);
        self.core
            .try_members(Effort::Repeatable, |member| {
                let again = tried.swap(true, Ordering::Relaxed);
                async move {
                    let client = member.requests().await?;
                    match client.lease_client().revoke(lease).await.map_err(Fault::from) {
                        Ok(_) => Ok(()),
                        // The try before may have done it although its answer was lost.
                        Err(Fault::Answered(StoreError::LeaseNotFound)) if again => Ok(()),
                        Err(fault) => Err(fault),
                    }
                }
            })
            .await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let tried = AtomicBool::new(false);
        let answer = self
            .core
            .try_members(Effort::Repeatable, |member| {
                let again = tried.swap(true, Ordering::Relaxed);
                async move {
                    let client = member.requests().await?;
                    match client.kv_client().compact(revision, None).await.map_err(Fault::from) {
                        Ok(_) => Ok(()),
                        // The try before may have done it although its answer was lost.
                        Err(Fault::Answered(StoreError::Compacted { .. })) if again => Ok(()),
                        Err(fault) => Err(fault),
                    }
                }
            })
            .await;
        match answer {
            Err(StoreError::Compacted { .. }) => Err(self.compacted(revision).await),
            answer => answer,
        }
    }

    fn limits(&self) -> Limits {
        self.core.options.limits
    }

    fn describe(&self) -> String {
        format!("etcd {}", self.core.options.endpoints.join(","))
    }
}
