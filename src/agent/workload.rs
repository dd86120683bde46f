//! The seam between the agent's core and what it runs: real tasks, or fake ones for simulation and load tests.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::agent::dice::Dice;
use crate::agent::jobs::JobCache;
use crate::agent::ledger::Ledger;
use crate::agent::ledger::LedgerError;
use crate::agent::register::Contact;
use crate::agent::report::Outbox;
use crate::clock::Clock;
use crate::model::allocation::Allocation;
use crate::model::id::AllocId;
use crate::model::id::NodeId;
use crate::model::identity::Tokens;
use crate::model::job::Job;

/// What the core lends to what it runs.
#[derive(Clone)]
pub struct WorkloadContext {
    pub node: NodeId,
    /// Where reports and registrations go.
    pub outbox: Outbox,
    pub ledger: Ledger,
    pub clock: Arc<dyn Clock>,
    pub dice: Dice,
    /// Job versions in use.
    pub jobs: JobCache,
    /// Whether the store can be reached, and since when not.
    pub contact: watch::Receiver<Contact>,
}

/// Runs allocations. All calls but `open` and `detach` return at once; results go to the outbox.
///
/// An allocation that was run stays known after its end, until it is forgotten.
#[async_trait]
pub trait Workload: Send + Sync + 'static {
    /// Called once, before anything else: takes up what runs already.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    async fn open(&self, context: WorkloadContext) -> Result<(), LedgerError>;

    /// True from the first `run` until the allocation is forgotten and everything of it is gone.
    fn knows(&self, alloc: AllocId) -> bool;

    /// Every known allocation.
    fn known(&self) -> Vec<AllocId>;

    /// Starts an allocation, or tells a running one what changed. Level-triggered: the same call again does
    /// nothing. One that has ended stays ended.
    fn run(&self, allocation: Arc<Allocation>, job: Arc<Job>);

    /// The tokens of a known allocation's tasks, new or renewed.
    fn take_tokens(&self, alloc: AllocId, tokens: Tokens);

    /// Ends a known allocation; its end is reported.
    fn stop(&self, allocation: Arc<Allocation>);

    /// The cluster has forgotten a known allocation: ends it if it still runs, then drops its report and all else.
    fn forget(&self, alloc: AllocId);

    /// The agent goes, tasks stay: returns when everything needed to find them again has been saved.
    async fn detach(&self);
}
