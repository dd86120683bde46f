//! Controllers bring the stored state closer to what users asked for. They run on the server that leads, talk to
//! each other only through the store, and keep nothing that a successor could not rebuild from the mirror.

pub mod bootstrap;
pub mod commit;
mod compact;
pub mod identity;
pub mod intake;
pub mod job;
pub mod leadership;
pub mod node;
pub mod periodic;
pub mod queue;
pub mod reap;
pub mod runner;

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::mirror::Mirror;
use crate::model::time::Span;
use crate::store::SharedStore;
use crate::store::StoreError;
use crate::store::key::Keys;

use self::commit::Committer;
use self::leadership::Candidate;
use self::leadership::Term;
use self::queue::Queue;

/// Why a pass did not get through. It is tried again unless fenced.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("a key changed since it was read")]
    Conflict,
    /// Another server rules.
    #[error("no longer the leader")]
    Fenced,
    /// An answer of the store was lost; the mirror has been brought up to date.
    #[error("the outcome of a write was unknown")]
    Unsettled,
    #[error("the mirror does not keep up with the store")]
    MirrorLags,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What controllers share.
#[derive(Clone)]
pub struct Context {
    pub store: SharedStore,
    pub keys: Keys,
    pub mirror: Arc<Mirror>,
    pub clock: Arc<dyn Clock>,
    pub settings: Settings,
    /// Draws ids and nothing else. Seeded in simulation.
    pub random: Random,
}

/// A shared source of random bytes.
#[derive(Clone)]
pub struct Random(Arc<Mutex<StdRng>>);

impl Random {
    /// From the operating system.
    pub fn from_system() -> Self {
        Self(Arc::new(Mutex::new(rand::make_rng())))
    }

    /// The same bytes for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// Sixteen bytes, for an id.
    pub fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.0.lock().fill_bytes(&mut bytes);
        bytes
    }
}

/// Settings of the controllers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The region that jobs without one belong to.
    pub region: String,
    /// How long after its lease ended a node counts as down.
    pub heartbeat_grace: Span,
    /// Who signs the identities of tasks, for those who verify them: a URL, or empty.
    pub oidc_issuer: String,
    pub reap: reap::Thresholds,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            region: "global".to_owned(),
            heartbeat_grace: Span::ZERO,
            oidc_issuer: String::new(),
            reap: reap::Thresholds::default(),
        }
    }
}

/// Jobs that are worked on at the same time: each waits for its commits most of the time.
const JOBS_AT_ONCE: usize = 64;
const NODES_AT_ONCE: usize = 256;
const OTHERS_AT_ONCE: usize = 16;

/// Stands for election again and again, and runs all controllers while this server leads.
pub async fn run(context: Context, identity: Bytes, cancel: CancellationToken) {
    let candidate = Candidate {
        store: context.store.clone(),
        keys: context.keys.clone(),
        mirror: Arc::clone(&context.mirror),
        identity,
    };
    while let Some(term) = candidate.campaign(&cancel).await {
        let lease = term.lease;
        crate::telemetry::observe_leadership(true);
        reign(&context, term, &cancel).await;
        crate::telemetry::observe_leadership(false);
        Term::resign(lease, &context.store).await;
    }
}

async fn reign(context: &Context, term: Term, cancel: &CancellationToken) {
    let reign = term.lost.clone();
    let _renewing = term.guard;
    let committer =
        Committer::start(context.store.clone(), Arc::clone(&context.mirror), term.fence, reign.clone());
    let mut tasks = JoinSet::new();

    let queue = Arc::new(Queue::default());
    let jobs = job::JobReconciler::new(context.clone(), committer.clone(), &queue);
    tasks.spawn(runner::run(jobs, queue, JOBS_AT_ONCE, reign.clone()));

    let queue = Arc::new(Queue::default());
    let nodes = node::NodeReconciler::new(context.clone(), committer.clone(), &queue);
    tasks.spawn(runner::run(nodes, queue, NODES_AT_ONCE, reign.clone()));

    let queue = Arc::new(Queue::default());
    let intake = intake::IntakeReconciler::new(context.clone(), committer.clone(), &queue);
    tasks.spawn(runner::run(intake, queue, OTHERS_AT_ONCE, reign.clone()));

    let queue = Arc::new(Queue::default());
    let periodic = periodic::PeriodicReconciler::new(context.clone(), committer.clone(), &queue);
    tasks.spawn(runner::run(periodic, queue, OTHERS_AT_ONCE, reign.clone()));

    let queue = Arc::new(Queue::default());
    let identity = identity::IdentityReconciler::new(context.clone(), committer.clone(), &queue);
    tasks.spawn(runner::run(identity, queue, OTHERS_AT_ONCE, reign.clone()));

    let queue = Arc::new(Queue::default());
    let reap = reap::ReapReconciler::new(context.clone(), committer, &queue);
    tasks.spawn(runner::run(reap, queue, OTHERS_AT_ONCE, reign.clone()));

    tasks.spawn(compact::run(context.store.clone(), Arc::clone(&context.mirror), reign.clone()));

    tokio::select! {
        biased;
        () = cancel.cancelled() => {}
        () = reign.cancelled() => {}
    }
    reign.cancel();
    while tasks.join_next().await.is_some() {}
}
