//! Renews leases: all of a process share a few streams, which are opened again when they break.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::LeaseKeepAliveStream;
use etcd_client::LeaseKeeper;
use futures::future::pending;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Core;
use super::fault::Fault;
use super::members::Member;
use crate::store::LeaseId;
use crate::store::StoreError;

/// etcd serves the renewals of a stream one after another and lets that of an overdue lease wait until the lease is
/// gone. With several streams others are not held up for long.
const STREAMS: usize = 4;
/// Renewals waiting to be sent; more make callers wait.
const QUEUE: usize = 1024;
/// Overdue answers are looked for this often.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// A stream that leaves a renewal unanswered this long is opened again, at another member.
const SILENCE: Duration = Duration::from_secs(2);
/// A stream that nobody has used for this long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// Pause before a stream that could not be opened is tried again.
const REOPEN_PAUSE: Duration = Duration::from_millis(50);

type Answer = Result<Duration, StoreError>;

struct Renewal {
    lease: LeaseId,
    answer: oneshot::Sender<Answer>,
}

/// Renews leases.
pub(super) struct Renewals {
    queues: Vec<mpsc::Sender<Renewal>>,
}

impl Renewals {
    /// Starts the tasks that own the streams. They end at `stop`.
    pub(super) fn start(core: &Arc<Core>, stop: &CancellationToken) -> Self {
        let queue = |_| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let renewer = Renewer {
                core: Arc::clone(core),
                queue: receiver,
                waiting: BTreeMap::new(),
                stream: None,
                used: Instant::now(),
                sent: 0,
            };
            let stop = stop.clone();
            tokio::spawn(async move { stop.run_until_cancelled(renewer.run()).await });
            sender
        };
        Self { queues: (0..STREAMS).map(queue).collect() }
    }

    /// Renews one lease.
    pub(super) async fn renew(&self, lease: LeaseId) -> Answer {
        let gone = || StoreError::Unavailable("the store was closed".to_owned());
        let (answer, answered) = oneshot::channel();
        let queue = &self.queues[lease.unsigned_abs() as usize % self.queues.len()];
        queue.send(Renewal { lease, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

/// Those who wait for one lease's renewal.
struct Waiting {
    answers: Vec<oneshot::Sender<Answer>>,
    since: Instant,
    sent: Option<Sent>,
    /// How often this lease held up a stream. Such leases come last when the next stream is opened.
    held_up: u32,
}

/// When a renewal was sent on the present stream, and as which one. They are answered in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Sent {
    number: u64,
    at: Instant,
}

struct Stream {
    member: Arc<Member>,
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

struct Renewer {
    core: Arc<Core>,
    queue: mpsc::Receiver<Renewal>,
    waiting: BTreeMap<LeaseId, Waiting>,
    stream: Option<Stream>,
    used: Instant,
    /// Renewals sent so far.
    sent: u64,
}

impl Renewer {
    async fn run(mut self) {
        let mut check = tokio::time::interval(CHECK_INTERVAL);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Between renewals nothing wakes the process up, except once for a stream that nobody needs any more.
            let is_waiting = !self.waiting.is_empty();
            let is_idle = !is_waiting && self.stream.is_some();
            tokio::select! {
                renewal = self.queue.recv() => match renewal {
                    Some(renewal) => self.accept(renewal),
                    None => return,
                },
                answer = next_answer(&mut self.stream) => self.settle(answer),
                _ = check.tick(), if is_waiting => self.check(),
                () = tokio::time::sleep_until(self.used + IDLE), if is_idle => self.stream = None,
            }
            // Whatever else is queued goes out together.
            while let Ok(renewal) = self.queue.try_recv() {
                self.accept(renewal);
            }
            if self.waiting.values().any(|waiting| waiting.sent.is_none()) {
                self.send().await;
            }
        }
    }

    fn accept(&mut self, renewal: Renewal) {
        self.used = Instant::now();
        let waiting = self.waiting.entry(renewal.lease).or_insert_with(|| Waiting {
            answers: Vec::new(),
            since: Instant::now(),
            sent: None,
            held_up: 0,
        });
        waiting.answers.push(renewal.answer);
    }

    fn answer(&mut self, lease: LeaseId, answer: &Answer) {
        for waiting in self.waiting.remove(&lease).into_iter().flat_map(|waiting| waiting.answers) {
            // A caller who no longer waits is no loss.
            let _ = waiting.send(answer.clone());
        }
    }

    fn settle(&mut self, answer: Result<(LeaseId, i64), String>) {
        match answer {
            Ok((lease, seconds)) if seconds <= 0 => self.answer(lease, &Err(StoreError::LeaseNotFound)),
            Ok((lease, seconds)) => self.answer(lease, &Ok(Duration::from_secs(seconds.unsigned_abs()))),
            Err(why) => self.drop_stream(&why),
        }
    }

    fn drop_stream(&mut self, why: &str) {
        if let Some(stream) = self.stream.take() {
            self.core.members.suspect(&stream.member, why);
        }
        for waiting in self.waiting.values_mut() {
            waiting.sent = None;
        }
    }

    /// Gives up on what is overdue, and on a stream that has fallen silent.
    fn check(&mut self) {
        let limit = self.core.options.request_timeout;
        let overdue = self.waiting.iter().filter(|(_, waiting)| waiting.since.elapsed() > limit);
        let overdue: Vec<LeaseId> = overdue.map(|(lease, _)| *lease).collect();
        for lease in overdue {
            let text = format!("lease {lease:x} not renewed within {} s", limit.as_secs());
            self.answer(lease, &Err(StoreError::Unavailable(text)));
        }
        let sent = self.waiting.values_mut().filter(|waiting| waiting.sent.is_some());
        if let Some(oldest) = sent.min_by_key(|waiting| waiting.sent)
            && oldest.sent.is_some_and(|sent| sent.at.elapsed() > SILENCE)
        {
            oldest.held_up += 1;
            self.drop_stream("lease stream is silent");
        }
    }

    /// Sends what has not been sent, opening a stream if there is none.
    async fn send(&mut self) {
        let unsent = self.waiting.iter().filter(|(_, waiting)| waiting.sent.is_none());
        let mut unsent: Vec<(u32, LeaseId)> =
            unsent.map(|(lease, waiting)| (waiting.held_up, *lease)).collect();
        unsent.sort_unstable();
        for (_, lease) in unsent {
            let Some(stream) = &mut self.stream else {
                // Opening renews this lease on the way.
                if !self.open(lease).await {
                    return;
                }
                continue;
            };
            stream.keeper.id = lease;
            match timeout(SILENCE, stream.keeper.keep_alive()).await {
                Ok(Ok(())) => self.note_sent(lease),
                Ok(Err(error)) => return self.drop_stream(&error.to_string()),
                Err(_) => return self.drop_stream("lease stream accepts no requests"),
            }
        }
    }

    /// Opens a stream by renewing `lease`. False if no member was ready; what waits is tried again later.
    async fn open(&mut self, lease: LeaseId) -> bool {
        let member = self.core.members.pick();
        let opening = async {
            let client = member.streams().await?;
            client.lease_client().keep_alive(lease).await.map_err(Fault::from)
        };
        let fault = match timeout(SILENCE, opening).await {
            Ok(Ok((keeper, answers))) => {
                self.stream = Some(Stream { member, keeper, answers });
                // The client has swallowed the first answer, so the time left is asked for once more.
                return self.renew_again(lease).await;
            }
            Ok(Err(fault)) => fault,
            Err(_) => Fault::Lost("no answer to a lease renewal".to_owned()),
        };
        match fault {
            Fault::Answered(error) => {
                self.answer(lease, &Err(error));
                true
            }
            fault => {
                if matches!(fault, Fault::LoginExpired(_)) {
                    member.forget();
                }
                self.core.members.suspect(&member, &fault.into_error().to_string());
                tokio::time::sleep(REOPEN_PAUSE).await;
                self.check();
                false
            }
        }
    }

    async fn renew_again(&mut self, lease: LeaseId) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        let sent = stream.keeper.keep_alive().await.is_ok();
        if sent {
            self.note_sent(lease);
        }
        sent
    }

    fn note_sent(&mut self, lease: LeaseId) {
        self.sent += 1;
        if let Some(waiting) = self.waiting.get_mut(&lease) {
            waiting.sent = Some(Sent { number: self.sent, at: Instant::now() });
        }
    }
}

/// The next answer: a lease and the seconds it has left. Waits for ever without a stream.
async fn next_answer(stream: &mut Option<Stream>) -> Result<(LeaseId, i64), String> {
    let Some(stream) = stream else { return pending().await };
    match stream.answers.message().await {
        Ok(Some(answer)) => Ok((answer.id(), answer.ttl())),
        Ok(None) => Err("lease stream closed".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
