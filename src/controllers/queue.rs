//! A queue of keys: each waits at most once, never runs twice at the same time, may be delayed, and backs off after
//! failures.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Delay after the first failure of a key; doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
/// Longest delay after failures.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// See the module's documentation. Shared by reference.
#[derive(Debug)]
pub struct Queue<K> {
    inner: Mutex<Inner<K>>,
    wake: Notify,
}

#[derive(Debug)]
struct Inner<K> {
    /// Keys that may run now, in the order in which they became due.
    ready: BTreeMap<u64, K>,
    /// Whether a waiting key may run now, or when.
    waiting: BTreeMap<K, Waiting>,
    due: BTreeSet<(Instant, K)>,
    running: BTreeSet<K>,
    /// Keys that became dirty while they were running, with the earliest time to run them again.
    again: BTreeMap<K, Instant>,
    failures: BTreeMap<K, u32>,
    next_place: u64,
}

#[derive(Clone, Copy, Debug)]
enum Waiting {
    Ready,
    Until(Instant),
}

impl<K: Ord + Clone> Default for Queue<K> {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                ready: BTreeMap::new(),
                waiting: BTreeMap::new(),
                due: BTreeSet::new(),
                running: BTreeSet::new(),
                again: BTreeMap::new(),
                failures: BTreeMap::new(),
                next_place: 0,
            }),
            wake: Notify::new(),
        }
    }
}

impl<K: Ord + Clone> Queue<K> {
    /// The key is dirty: run it soon.
    pub fn add(&self, key: K) {
        self.add_at(key, Instant::now());
    }

    /// Run the key after a delay, or earlier if somebody adds it earlier.
    pub fn add_after(&self, key: K, delay: Duration) {
        self.add_at(key, Instant::now() + delay);
    }

    fn add_at(&self, key: K, at: Instant) {
        let mut inner = self.inner.lock();
        if inner.running.contains(&key) {
            let earliest = inner.again.entry(key).or_insert(at);
            *earliest = at.min(*earliest);
            return;
        }
        inner.wait_until(key, at);
        drop(inner);
        self.wake.notify_one();
    }

    /// The next key to run; it counts as running until [`Queue::done`]. For one consumer.
    pub async fn next(&self) -> K {
        loop {
            let (key, next_due) = self.inner.lock().take(Instant::now());
            if let Some(key) = key {
                return key;
            }
            match next_due {
                Some(due) => tokio::select! {
                    biased;
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep_until(due) => {}
                },
                None => self.wake.notified().await,
            }
        }
    }

    /// The key ran. If it became dirty meanwhile it runs again, not before `pause` has passed.
    pub fn done(&self, key: &K, pause: Duration) {
        let mut inner = self.inner.lock();
        inner.running.remove(key);
        if let Some(at) = inner.again.remove(key) {
            inner.wait_until(key.clone(), at.max(Instant::now() + pause));
            drop(inner);
            self.wake.notify_one();
        }
    }

    /// How long to wait after another failure in a row.
    pub fn failed(&self, key: &K) -> Duration {
        let mut inner = self.inner.lock();
        let failures = inner.failures.entry(key.clone()).or_insert(0);
        *failures += 1;
        let doublings = (*failures - 1).min(16);
        BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MAX)
    }

    /// Forgets earlier failures of the key.
    pub fn succeeded(&self, key: &K) {
        self.inner.lock().failures.remove(key);
    }

    /// Number of keys that wait.
    pub fn len(&self) -> usize {
        self.inner.lock().waiting.len()
    }

    /// True if no key waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Ord + Clone> Inner<K> {
    fn wait_until(&mut self, key: K, at: Instant) {
        match self.waiting.get(&key).copied() {
            Some(Waiting::Ready) => return,
            Some(Waiting::Until(earlier)) if earlier <= at => return,
            Some(Waiting::Until(later)) => {
                self.due.remove(&(later, key.clone()));
            }
            None => {}
        }
        self.due.insert((at, key.clone()));
        self.waiting.insert(key, Waiting::Until(at));
    }

    /// The first key that may run, or else when the next one may.
    fn take(&mut self, now: Instant) -> (Option<K>, Option<Instant>) {
        while let Some((at, _)) = self.due.first()
            && *at <= now
        {
            let (_, key) = self.due.pop_first().expect("looked at just now");
            self.waiting.insert(key.clone(), Waiting::Ready);
            self.ready.insert(self.next_place, key);
            self.next_place += 1;
        }
        match self.ready.pop_first() {
            Some((_, key)) => {
                self.waiting.remove(&key);
                self.running.insert(key.clone());
                (Some(key), None)
            }
            None => (None, self.due.first().map(|(at, _)| *at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_the_earliest_time_wins() {
        let queue = Queue::default();
        queue.add_after("a", millis(100));
        queue.add_after("a", millis(50));
        queue.add_after("a", millis(80));
        let start = Instant::now();
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed(), millis(50));
        queue.done(&"a", Duration::ZERO);
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_gets_dirty_while_running_runs_again_after_the_pause() {
        let queue = Queue::default();
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "b", "a is still running");
        let start = Instant::now();
        queue.done(&"a", millis(30));
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed(), millis(30));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_until_a_success() {
        let queue = Queue::default();
        assert_eq!(queue.failed(&"a"), millis(20));
        assert_eq!(queue.failed(&"a"), millis(40));
        for _ in 0..30 {
            queue.failed(&"a");
        }
        assert_eq!(queue.failed(&"a"), BACKOFF_MAX);
        queue.succeeded(&"a");
        assert_eq!(queue.failed(&"a"), millis(20));
    }
}
