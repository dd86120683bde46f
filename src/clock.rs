//! The only place that asks for the time of day. Decisions get the time as an argument.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use crate::model::time::Span;
use crate::model::time::Time;

/// A source of wall-clock time. Waiting is done with `tokio::time`, which tests can pause.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Time;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may ask")]
    fn now(&self) -> Time {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time(Span::from(since_epoch).0)
    }
}

/// A clock that follows tokio's (pausable) time from a fixed start, with an adjustable offset for clock jumps.
#[derive(Debug)]
pub struct TokioClock {
    start: Time,
    epoch: tokio::time::Instant,
    offset: AtomicI64,
}

impl TokioClock {
    /// Starts at `start`, now.
    pub fn starting_at(start: Time) -> Arc<Self> {
        Arc::new(Self { start, epoch: tokio::time::Instant::now(), offset: AtomicI64::new(0) })
    }

    /// Jumps by `span`, which may be negative.
    pub fn jump(&self, span: Span) {
        self.offset.fetch_add(span.0, Ordering::Relaxed);
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Time {
        self.start + Span::from(self.epoch.elapsed()) + Span(self.offset.load(Ordering::Relaxed))
    }
}
