//! A watch on etcd: joins fragments, notices compaction and silence, and never shows part of a revision.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::WatchOptions;
use etcd_client::WatchResponse;
use futures::StreamExt;
use tokio::sync::watch as watch_channel;
use tokio::time::Instant;
use tokio::time::timeout;

use super::ANSWER_BYTES;
use super::Core;
use super::Effort;
use super::convert;
use super::convert::Span;
use super::fault::Fault;
use super::members::Member;
use crate::store::Event;
use crate::store::Range;
use crate::store::Revision;
use crate::store::StoreError;
use crate::store::WatchBatch;
use crate::store::WatchStream;

/// A watch that has heard nothing for this many check intervals, though it asked, is broken.
const SILENT_CHECKS: u32 = 3;
/// The watch id of answers to requests for progress.
const REQUESTED: i64 = -1;
/// A caller was told a revision that this watch has not reached: either its events are on the way, or it changed
/// other keys. After this time the member is asked.
const CATCH_UP_GRACE: Duration = Duration::from_millis(20);
/// Time between two such requests. It is longer than the 100 ms within which etcd serves watches that lag behind,
/// so that progress told twice in a row can be believed, see [`Watch::progress`].
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(150);

struct Watch {
    core: Arc<Core>,
    member: Arc<Member>,
    stream: etcd_client::WatchStream,
    /// Events of a revision whose remaining fragments are still to come.
    pending: Vec<Event>,
    /// Everything up to here has been handed out.
    delivered: Revision,
    /// Progress that the member claimed when asked, not yet believed.
    claimed: Option<Revision>,
    /// Claims need no second one.
    true_progress: bool,
    from: Revision,
    told: watch_channel::Receiver<Revision>,
    heard: Instant,
    asked: Instant,
    /// Since when callers know of a revision that this watch has not reached.
    behind: Option<Instant>,
}

/// Opens a watch from revision `from` on.
pub(super) async fn open(core: Arc<Core>, range: &Range, from: Revision) -> Result<WatchStream, StoreError> {
    let Some(span) = Span::of(range) else {
        return Err(StoreError::Other(format!("cannot watch {range}: the range is empty")));
    };
    let from = from.max(1);
    let (member, stream, true_progress) = core
        .try_members(Effort::Repeatable, |member| {
            let (key, end) = (span.first.clone(), span.end.clone());
            async move {
                let client = member.streams().await?;
                let mut options =
                    WatchOptions::new().with_start_revision(from).with_progress_notify().with_fragment();
                if let Some(end) = end {
                    options = options.with_range(end);
                }
                let true_progress = member.tells_true_progress().await?;
                let mut watches = client.watch_client().max_decoding_message_size(ANSWER_BYTES);
                let mut stream = watches.watch(key, Some(options)).await?;
                let created = stream.message().await?;
                let created = created.ok_or_else(|| Fault::NotSent("watch ended at once".to_owned()))?;
                check_end(&created)?;
                Ok((member, stream, true_progress))
            }
        })
        .await?;
    let told = core.told.subscribe();
    let watch = Watch {
        core,
        member,
        stream,
        pending: Vec::new(),
        delivered: from - 1,
        claimed: None,
        true_progress,
        from,
        told,
        heard: Instant::now(),
        asked: Instant::now(),
        behind: None,
    };
    let batches = futures::stream::unfold(Some(watch), |watch| async {
        let mut watch = watch?;
        match watch.next().await {
            Ok(batch) => Some((Ok(batch), Some(watch))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(batches.boxed())
}

/// The reason why the server ended the watch, if it did.
fn check_end(response: &WatchResponse) -> Result<(), Fault> {
    if response.compact_revision() != 0 {
        return Err(Fault::Answered(StoreError::Compacted { at: response.compact_revision() }));
    }
    if !response.canceled() {
        return Ok(());
    }
    // etcd 3.4 mostly leaves the reason empty.
    match response.cancel_reason() {
        "" => Err(Fault::NotSent("etcd ended the watch".to_owned())),
        reason => Err(Fault::of_text(reason)),
    }
}

impl Watch {
    /// The next batch. Silence counts only while somebody waits: a slow reader must not look like a silent member.
    async fn next(&mut self) -> Result<WatchBatch, StoreError> {
        self.heard = Instant::now();
        loop {
            match self.step().await {
                Ok(Some(batch)) => return Ok(batch),
                Ok(None) => {}
                Err(Fault::NotSent(text) | Fault::Lost(text)) => {
                    self.core.members.suspect(&self.member, &text);
                    return Err(StoreError::Unavailable(format!("{}: {text}", self.member.url)));
                }
                Err(Fault::LoginExpired(text)) => {
                    self.member.forget();
                    return Err(StoreError::Unavailable(format!("{}: {text}", self.member.url)));
                }
                Err(fault) => return Err(fault.into_error()),
            }
        }
    }

    /// Waits for a response, or for the time to ask for one.
    async fn step(&mut self) -> Result<Option<WatchBatch>, Fault> {
        self.behind = match self.behind {
            _ if *self.told.borrow_and_update() <= self.delivered => None,
            None => Some(Instant::now()),
            since => since,
        };
        let interval = self.core.options.watch_check_interval;
        let ask_at = match self.behind {
            Some(since) => (since + CATCH_UP_GRACE).max(self.asked + CATCH_UP_INTERVAL),
            None => self.heard.max(self.asked) + interval,
        };
        tokio::select! {
            biased;
            response = self.stream.message() => {
                let response = response?.ok_or_else(|| Fault::Lost("etcd closed the watch".to_owned()))?;
                self.heard = Instant::now();
                check_end(&response)?;
                Ok(self.take(response))
            }
            // The sender lives in the core, which this watch holds.
            Ok(()) = self.told.changed(), if self.behind.is_none() => Ok(None),
            () = tokio::time::sleep_until(ask_at) => {
                if self.heard.elapsed() >= interval * SILENT_CHECKS {
                    self.check_alive().await?;
                }
                self.asked = Instant::now();
                self.ask(interval).await?;
                Ok(None)
            }
        }
    }

    /// After a long silence: newer etcd does not tell progress before the revision that the watch begins at.
    async fn check_alive(&mut self) -> Result<(), Fault> {
        if self.member.revision_behind_streams().await? >= self.from {
            return Err(Fault::Lost(format!("watch silent for {} s", self.heard.elapsed().as_secs())));
        }
        self.heard = Instant::now();
        Ok(())
    }

    async fn ask(&mut self, patience: Duration) -> Result<(), Fault> {
        match timeout(patience, self.stream.request_progress()).await {
            Ok(asked) => asked.map_err(Fault::from),
            Err(_) => Err(Fault::Lost("watch accepts no requests".to_owned())),
        }
    }

    /// What a response adds, if that can be handed out yet.
    fn take(&mut self, response: WatchResponse) -> Option<WatchBatch> {
        if response.created() {
            return None;
        }
        let response = response.0;
        if response.events.is_empty() && !response.fragment {
            let header = response.header.as_ref()?;
            return self.progress(header.revision, response.watch_id == REQUESTED);
        }
        let items = response.events.iter().filter_map(|event| event.kv.as_ref());
        let newest = items.map(|item| item.mod_revision).max().unwrap_or(self.delivered);
        // etcd before 3.4.24 and 3.5.8 may tell old events again after a partition.
        let news = response.events.into_iter().filter_map(convert::event);
        self.pending.extend(news.filter(|event| event.revision() > self.delivered));
        let (revision, events) = if response.fragment {
            // The newest revision may go on in the next fragment; older ones are complete.
            let cut = self.pending.partition_point(|event| event.revision() < newest);
            let rest = self.pending.split_off(cut);
            (newest - 1, std::mem::replace(&mut self.pending, rest))
        } else {
            (newest, std::mem::take(&mut self.pending))
        };
        let revision = events.last().map_or(revision, Event::revision);
        if events.is_empty() && (response.fragment || revision <= self.delivered) {
            return None;
        }
        self.delivered = revision;
        self.claimed = None;
        self.behind = None;
        Some(WatchBatch { revision, events })
    }

    /// Progress told by the member. An answer to a request may overtake events that are still queued, unless the
    /// member is new enough. Then it is believed only when the next answer comes with nothing from before it in
    /// between.
    fn progress(&mut self, revision: Revision, requested: bool) -> Option<WatchBatch> {
        if !self.pending.is_empty() {
            return None;
        }
        let in_order = self.true_progress || !requested;
        let believed = if in_order { Some(revision) } else { self.claimed.replace(revision) };
        let believed = believed.filter(|believed| *believed > self.delivered)?;
        self.delivered = believed;
        Some(WatchBatch { revision: believed, events: Vec::new() })
    }
}
