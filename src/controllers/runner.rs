//! The only loop of a controller: take a key, reconcile it, look again when told to.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::model::time::Time;

use super::Error;
use super::queue::Queue;

/// A pass may use at most about one part in this many of the time, so that an object that changes all the time
/// cannot starve the others.
const PAUSE_PER_COST: u32 = 8;
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// When to look at a key again although nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Only when something changes.
    WhenChanged,
    /// At this time at the latest.
    At(Time),
    /// After this long at the latest.
    After(Duration),
}

/// Looks after one kind of object.
pub trait Reconciler: Send + Sync + 'static {
    type Key: Clone + Ord + std::fmt::Debug + Send + Sync + 'static;
    /// Name in metrics and logs.
    const NAME: &'static str;

    /// Brings the world closer to what the key's object asks for. Takes a key, never an event: what changed must
    /// not matter, since after a restart nobody knows.
    fn reconcile(&self, key: &Self::Key) -> impl Future<Output = Result<Next, Error>> + Send;

    /// The time that `Next::At` refers to.
    fn now(&self) -> Time;
}

/// Runs a reconciler until cancelled, with at most `concurrency` keys at a time.
pub async fn run<R: Reconciler>(
    reconciler: Arc<R>,
    queue: Arc<Queue<R::Key>>,
    concurrency: usize,
    cancel: CancellationToken,
) {
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            Some(()) = running.next(), if !running.is_empty() => {}
            key = queue.next(), if running.len() < concurrency => {
                running.push(pass(Arc::clone(&reconciler), Arc::clone(&queue), key));
            }
        }
    }
}

async fn pass<R: Reconciler>(reconciler: Arc<R>, queue: Arc<Queue<R::Key>>, key: R::Key) {
    let started = Instant::now();
    let outcome = reconciler.reconcile(&key).await;
    let cost = started.elapsed();
    crate::telemetry::observe_pass(R::NAME, cost, outcome.is_ok());
    match outcome {
        Ok(next) => {
            queue.succeeded(&key);
            match next {
                Next::WhenChanged => {}
                Next::After(delay) => queue.add_after(key.clone(), delay),
                Next::At(time) => queue.add_after(key.clone(), time.since(reconciler.now()).to_std()),
            }
        }
        // Another server rules: this one's controllers are being stopped.
        Err(Error::Fenced) => {}
        Err(error) => {
            let delay = queue.failed(&key);
            tracing::debug!(controller = R::NAME, ?key, %error, ?delay, "pass failed");
            queue.add_after(key.clone(), delay);
        }
    }
    queue.done(&key, (cost * PAUSE_PER_COST).min(PAUSE_MAX));
}
