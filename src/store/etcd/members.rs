//! The members of the etcd cluster: one client each, which of them answer, and which one to ask next.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use etcd_client::Client;
use etcd_client::ResponseHeader;
use etcd_client::StatusResponse;
use tokio::sync::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::fault::Fault;
use super::options::EtcdOptions;
use super::options::Login;
use super::options::Traffic;
use crate::store::Revision;
use crate::store::StoreError;

/// How often a member that failed is asked whether it is back.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// How long it may take to answer that.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// With more requests than this under way on one connection, a second one is used.
const REQUESTS_PER_CHANNEL: usize = 16;

/// All members.
pub(super) struct Members {
    all: Vec<Arc<Member>>,
    turn: AtomicUsize,
    suspects: Notify,
}

/// One member.
pub(super) struct Member {
    pub(super) url: String,
    options: EtcdOptions,
    requests: [Channel; 2],
    streams: Channel,
    /// A call failed and no probe has succeeded since.
    suspect: AtomicBool,
    /// The operator was told that this member is down.
    reported: AtomicBool,
    under_way: AtomicUsize,
    /// See [`Self::tells_true_progress`].
    true_progress: OnceLock<bool>,
}

/// A connection that is opened when first used.
#[derive(Default)]
struct Channel {
    client: ArcSwapOption<Client>,
    opening: Mutex<()>,
}

/// Counts a request as under way until dropped.
pub(super) struct UnderWay(Arc<Member>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Members {
    /// The members at these URLs, not yet connected.
    pub(super) fn new(urls: Vec<String>, options: &EtcdOptions) -> Self {
        let member = |url| {
            Arc::new(Member {
                url,
                options: options.clone(),
                requests: Default::default(),
                streams: Channel::default(),
                suspect: AtomicBool::new(false),
                reported: AtomicBool::new(false),
                under_way: AtomicUsize::new(0),
                true_progress: OnceLock::new(),
            })
        };
        let all: Vec<Arc<Member>> = urls.into_iter().map(member).collect();
        // Many processes start with the same list; they must not all begin with its first member.
        let turn = AtomicUsize::new(rand::random_range(0..all.len()));
        Self { all, turn, suspects: Notify::new() }
    }

    /// The member to ask next: of those not under suspicion the one with the fewest requests under way, in turn. A
    /// member that has stopped answering collects requests, so it is left alone even before it is suspected.
    pub(super) fn pick(&self) -> Arc<Member> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.all.len();
        let in_turn = (0..count).map(|step| &self.all[(turn + step) % count]);
        let best =
            in_turn.min_by_key(|member| (member.is_suspect(), member.under_way.load(Ordering::Relaxed)));
        Arc::clone(best.expect("there is at least one member"))
    }

    /// True if after `tries` failures there may be a member that has not been tried and is not under suspicion.
    pub(super) fn has_another(&self, tries: usize) -> bool {
        tries < self.all.len() && self.all.iter().any(|member| !member.is_suspect())
    }

    /// Asks `member` last from now on, until a probe finds it well.
    pub(super) fn suspect(&self, member: &Member, why: &str) {
        if !member.suspect.swap(true, Ordering::Relaxed) {
            tracing::debug!(target: "store", member = member.url, why, "request to etcd failed");
        }
        self.suspects.notify_one();
    }

    /// Probes members under suspicion until cancelled. Members that answer are not probed: thousands of agents
    /// would make that a load of its own.
    pub(super) async fn probe(self: Arc<Self>, stop: CancellationToken) {
        while stop.run_until_cancelled(self.suspects.notified()).await.is_some() {
            while self.all.iter().any(|member| member.is_suspect()) {
                let suspects = self.all.iter().filter(|member| member.is_suspect());
                let round = async {
                    futures::future::join_all(suspects.map(|member| member.probe())).await;
                    tokio::time::sleep(PROBE_INTERVAL.mul_f64(rand::random_range(0.8..1.2))).await;
                };
                if stop.run_until_cancelled(round).await.is_none() {
                    return;
                }
            }
        }
    }

    /// Asks every member until one answers, at most for the connect timeout.
    pub(super) async fn first_answer(&self) -> Result<(), StoreError> {
        let asked = self.all.iter().map(|member| Box::pin(member.status()));
        match futures::future::select_ok(asked).await {
            Ok(_) => Ok(()),
            Err(Fault::Lost(text)) => Err(StoreError::Unavailable(text)),
            Err(fault) => Err(fault.into_error()),
        }
    }
}

impl Member {
    fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    /// Counts a request as under way here.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(self))
    }

    /// A client for single requests.
    pub(super) async fn requests(&self) -> Result<Arc<Client>, Fault> {
        let load = self.under_way.load(Ordering::Relaxed);
        let channel = if load > REQUESTS_PER_CHANNEL { load % self.requests.len() } else { 0 };
        self.open(&self.requests[channel], Traffic::Requests).await
    }

    /// A client for watches and lease renewals.
    pub(super) async fn streams(&self) -> Result<Arc<Client>, Fault> {
        self.open(&self.streams, Traffic::Streams).await
    }

    async fn open(&self, channel: &Channel, traffic: Traffic) -> Result<Arc<Client>, Fault> {
        if let Some(client) = channel.client.load_full() {
            return Ok(client);
        }
        let _alone = channel.opening.lock().await;
        if let Some(client) = channel.client.load_full() {
            return Ok(client);
        }
        let client = match self.login(traffic, Login::Wanted).await {
            // etcd works without passwords then, and would refuse the request to check one.
            Err(Fault::Answered(StoreError::Denied(text))) if text.contains("is not enabled") => {
                self.login(traffic, Login::Needless).await?
            }
            client => client?,
        };
        let client = Arc::new(client);
        channel.client.store(Some(Arc::clone(&client)));
        Ok(client)
    }

    /// A new client. That only waits for the network if it must log in.
    async fn login(&self, traffic: Traffic, login: Login) -> Result<Client, Fault> {
        let options = self.options.client_options(&self.url, traffic, login).map_err(Fault::Answered)?;
        let connect = Client::connect([&self.url], Some(options));
        match timeout(self.options.connect_timeout, connect).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) => Err(match Fault::from(error) {
                // Whatever became of the login, the request itself has not been sent.
                Fault::Lost(text) => Fault::NotSent(text),
                fault => fault,
            }),
            Err(_) => Err(Fault::NotSent(format!("{}: no answer to the login", self.url))),
        }
    }

    async fn probe(&self) {
        let why = match timeout(PROBE_TIMEOUT, self.status()).await {
            Ok(Ok(())) => {
                self.suspect.store(false, Ordering::Relaxed);
                if self.reported.swap(false, Ordering::Relaxed) {
                    tracing::info!(target: "store", member = self.url, "etcd member answers again");
                }
                return;
            }
            Ok(Err(fault)) => fault.into_error().to_string(),
            Err(_) => "no answer".to_owned(),
        };
        if !self.reported.swap(true, Ordering::Relaxed) {
            tracing::warn!(target: "store", member = self.url, why, "etcd member is down");
        }
        // Opened anew at the next try, which reads renewed certificates.
        self.forget();
    }

    /// Makes the next request open a new connection, log in again and read renewed certificates.
    pub(super) fn forget(&self) {
        for channel in self.requests.iter().chain([&self.streams]) {
            channel.client.store(None);
        }
    }

    /// Well if the member answers and knows a leader.
    async fn status(&self) -> Result<(), Fault> {
        let client = self.open(&self.requests[0], Traffic::Requests).await?;
        match self.ask_status(&client).await? {
            status if status.leader() == 0 => Err(Fault::NotSent(format!("{}: no leader", self.url))),
            _ => Ok(()),
        }
    }

    async fn ask_status(&self, client: &Client) -> Result<StatusResponse, Fault> {
        match timeout(self.options.connect_timeout, client.maintenance_client().status()).await {
            Ok(status) => Ok(status?),
            Err(_) => Err(Fault::NotSent(format!("{}: no answer", self.url))),
        }
    }

    /// The member's own revision, asked on the connection that carries watches.
    pub(super) async fn revision_behind_streams(&self) -> Result<Revision, Fault> {
        let client = self.streams().await?;
        let status = self.ask_status(&client).await?;
        Ok(status.header().map_or(0, ResponseHeader::revision))
    }

    /// True if the progress that the member tells on request never runs ahead of the events it has sent.
    pub(super) async fn tells_true_progress(&self) -> Result<bool, Fault> {
        if let Some(known) = self.true_progress.get() {
            return Ok(*known);
        }
        let client = self.streams().await?;
        let status = self.ask_status(&client).await?;
        Ok(*self.true_progress.get_or_init(|| has_ordered_progress(status.version())))
    }
}

/// etcd sends requested progress in order with events since 3.4.25 and 3.5.8.
fn has_ordered_progress(version: &str) -> bool {
    let numbers: Vec<u32> = version.split(['.', '-']).map_while(|part| part.parse().ok()).collect();
    match numbers[..] {
        [3, 4, patch, ..] => patch >= 25,
        [3, 5, patch, ..] => patch >= 8,
        [major, minor, ..] => (major, minor) > (3, 5),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::has_ordered_progress;

    #[test]
    fn progress_is_trusted_from_the_versions_that_repaired_it() {
        for version in ["3.4.25", "3.4.31", "3.5.8", "3.5.21", "3.6.0", "3.7.1-rc.0", "4.0.0"] {
            assert!(has_ordered_progress(version), "{version}");
        }
        for version in ["3.4.23", "3.4.0", "3.5.7", "3.5.1", "3.3.27", "", "unknown"] {
            assert!(!has_ordered_progress(version), "{version}");
        }
    }
}
