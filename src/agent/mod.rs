//! The node agent: finds out about its machine, registers, watches its own `desired/` keys, runs the allocations it
//! finds there, and reports what became of them. It keeps tasks running when the store and every server are gone.
//!
//! The core (registration, assignments, reports) is one tokio task per agent; what runs is behind [`workload`].

pub mod allocation;
pub mod arrival;
mod assignments;
pub mod catalog;
pub mod consul;
pub mod dice;
pub mod dirs;
pub mod env;
pub mod events;
pub mod expand;
pub mod fake;
pub mod files;
pub mod fingerprint;
pub mod gc;
pub mod health;
pub mod hooks;
pub mod host_usage;
pub mod identity;
pub mod jobs;
pub mod ledger;
mod leftovers;
pub mod lifecycle;
pub mod machine;
pub mod migration;
pub mod network;
pub mod overrides;
pub mod real;
pub mod register;
pub mod report;
pub mod restart;
pub mod surroundings;
pub mod task;
#[cfg(test)]
mod tests;
pub mod usage;
pub mod users;
pub mod volumes;
pub mod workload;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::agent::assignments::Assignments;
use crate::agent::assignments::Known;
use crate::agent::assignments::TrustState;
use crate::agent::dice::Backoff;
use crate::agent::dice::Dice;
use crate::agent::identity::Identity;
use crate::agent::identity::IdentityError;
use crate::agent::identity::boot_id;
use crate::agent::identity::persistent_node_id;
use crate::agent::jobs::JobCache;
use crate::agent::ledger::Ledger;
use crate::agent::ledger::LedgerError;
use crate::agent::register::Contact;
use crate::agent::register::Lease;
use crate::agent::register::Registrar;
use crate::agent::report::Outbox;
use crate::agent::report::Reporter;
use crate::agent::workload::Workload;
use crate::agent::workload::WorkloadContext;
use crate::clock::Clock;
use crate::model::id::NodeId;
use crate::model::node::NodeInfo;
use crate::model::node::NodeLive;
use crate::store::SharedStore;
use crate::store::key::Keys;

/// How long a graceful end waits for the last reports.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where the agent's memory is.
#[derive(Clone)]
pub enum Memory {
    /// The data directory: node id and ledger.
    DataDir(PathBuf),
    /// Given by a simulation, which also chooses the node and the boot.
    Given { node: NodeId, boot_id: String, ledger: Ledger },
}

/// What an agent needs to know. Times to live and intervals are as in the design's speed budget by default.
#[derive(Clone)]
pub struct AgentConfig {
    pub memory: Memory,
    /// What was found on the machine; the node id is filled in here.
    pub info: NodeInfo,
    /// The program's version.
    pub version: String,
    /// A silent agent counts as gone after this time.
    pub lease_ttl: Duration,
    /// How long a report that nobody waits for may wait for others.
    pub report_interval: Duration,
    /// Everything is read anew this often, in case a watch died silently.
    pub resync_interval: Duration,
    /// May be shared by agents of one process.
    pub jobs: JobCache,
    /// Makes jitter and ids repeatable.
    pub seed: Option<u64>,
    /// The store lives in this process and ends with it, and so does the cluster.
    pub volatile_cluster: bool,
}

impl AgentConfig {
    /// The usual settings.
    pub fn new(memory: Memory, info: NodeInfo) -> Self {
        Self {
            memory,
            info,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            lease_ttl: Duration::from_secs(10),
            report_interval: Duration::from_millis(100),
            resync_interval: Duration::from_secs(300),
            jobs: JobCache::default(),
            seed: None,
            volatile_cluster: false,
        }
    }
}

/// Why an agent cannot start. A store that is away is no reason.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Starts agents.
pub struct Agent;

/// A running agent. Dropping it is like killing it: everything stops at once, tasks stay.
pub struct AgentHandle {
    identity: Identity,
    info: watch::Sender<Arc<NodeInfo>>,
    lease: watch::Receiver<Lease>,
    contact: watch::Receiver<Contact>,
    outbox: Outbox,
    ledger: Ledger,
    workload: Arc<dyn Workload>,
    core: AbortOnDropHandle<()>,
}

impl Agent {
    /// Takes up what the last agent on this machine left running, then registers and follows the cluster's orders.
    /// Returns as soon as the local part is done; the store need not answer.
    ///
    /// # Errors
    /// When the data directory cannot be used.
    pub async fn start(
        config: AgentConfig,
        store: SharedStore,
        keys: Keys,
        clock: Arc<dyn Clock>,
        workload: Arc<dyn Workload>,
    ) -> Result<AgentHandle, AgentError> {
        let mut dice = config.seed.map_or_else(Dice::random, Dice::seeded);
        let session_id = uuid::Builder::from_random_bytes(dice.bytes()).into_uuid().to_string();
        let (node, ledger, boot_id) = match config.memory {
            Memory::DataDir(dir) => (persistent_node_id(&dir, &mut dice)?, Ledger::open(&dir)?, boot_id()),
            Memory::Given { node, boot_id, ledger } => (node, ledger, boot_id),
        };
        ledger.update_meta(|meta| meta.begin(config.volatile_cluster)).await?;
        let identity = Identity { node, boot_id, session_id };
        let outbox = Outbox::new(Arc::clone(&clock));
        let mut throw = || Dice::seeded(dice.next_u64());
        let (contact, contact_seen) = watch::channel(Contact::Lost(Instant::now()));
        let context = WorkloadContext {
            node,
            outbox: outbox.clone(),
            ledger: ledger.clone(),
            clock,
            dice: throw(),
            jobs: config.jobs.clone(),
            contact: contact_seen.clone(),
        };
        workload.open(context).await?;
        let live = NodeLive {
            boot_id: identity.boot_id.clone(),
            session_id: identity.session_id.clone(),
            version: config.version,
            http_addr: config.info.http_addr.clone(),
        };
        let (info, info_seen) = watch::channel(Arc::new(NodeInfo { id: node, ..config.info }));
        let (lease, lease_seen) = watch::channel(Lease::None);
        let lost = Arc::new(Notify::new());
        let registrar = Registrar {
            store: Arc::clone(&store),
            layout: keys.clone(),
            identity: identity.clone(),
            live,
            info: info_seen,
            ledger: ledger.clone(),
            lease,
            contact,
            lost: Arc::clone(&lost),
            ttl: config.lease_ttl,
            backoff: Backoff::new(throw()),
            written_info: None,
        };
        let reporter = Reporter {
            store: Arc::clone(&store),
            layout: keys.clone(),
            node,
            outbox: outbox.clone(),
            lease: lease_seen.clone(),
            lost,
            interval: config.report_interval,
            backoff: Backoff::new(throw()),
        };
        let assignments = Assignments {
            store,
            layout: keys,
            node,
            jobs: config.jobs,
            ledger: ledger.clone(),
            outbox: outbox.clone(),
            lease: lease_seen.clone(),
            workload: Arc::clone(&workload),
            resync: config.resync_interval,
            dice: throw(),
            backoff: Backoff::new(throw()),
            trust: TrustState::default(),
            assigned: Known::default(),
        };
        Ok(AgentHandle {
            identity,
            info,
            lease: lease_seen,
            contact: contact_seen,
            outbox,
            ledger,
            workload,
            core: run_core(registrar, reporter, assignments),
        })
    }
}

/// One task for all three keeps thousands of simulated agents small.
fn run_core(registrar: Registrar, reporter: Reporter, assignments: Assignments) -> AbortOnDropHandle<()> {
    let core = tokio::spawn(async move {
        tokio::join!(registrar.run(), reporter.run(), assignments.run());
    });
    AbortOnDropHandle::new(core)
}

impl AgentHandle {
    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.identity.node
    }

    /// This process.
    pub fn session_id(&self) -> &str {
        &self.identity.session_id
    }

    /// Whether the node is registered; changes are seen by waiting on the receiver.
    pub fn lease(&self) -> watch::Receiver<Lease> {
        self.lease.clone()
    }

    /// Whether the store answers.
    pub fn contact(&self) -> watch::Receiver<Contact> {
        self.contact.clone()
    }

    /// What is reported of the machine.
    pub fn info(&self) -> Arc<NodeInfo> {
        self.info.borrow().clone()
    }

    /// Changes what is reported of the machine; the same again is not written.
    pub fn set_info(&self, info: NodeInfo) {
        let info = Arc::new(NodeInfo { id: self.identity.node, ..info });
        self.info.send_if_modified(|current| {
            let new = **current != *info;
            if new {
                *current = info;
            }
            new
        });
    }

    /// Ends the agent and leaves the tasks alone. What is still to be reported is written if that is possible
    /// soon. The lease is left to run out, so that a quick restart goes unnoticed.
    pub async fn shutdown(&self) {
        self.workload.detach().await;
        let last_words = async {
            while !self.outbox.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // Too late is fine: the next agent reports what its ledger says.
        let _ = tokio::time::timeout(FAREWELL, last_words).await;
        self.core.abort();
        self.ledger.flush().await;
    }
}
