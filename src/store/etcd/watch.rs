//! A watch on etcd: joins fragments, notices compaction and silence, and never shows part of a revision.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::WatchOptions;
use etcd_client::WatchResponse;
use futures::StreamExt;
use tokio::time::Instant;
use tokio::time::timeout;

use super::ANSWER_BYTES;
use super::Core;
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
}

/// Opens a watch from revision `from` on.
pub(super) async fn open(core: Arc<Core>, range: &Range, from: Revision) -> Result<WatchStream, StoreError> {
    let Some(span) = Span::of(range) else {
        return Err(StoreError::Other(format!("cannot watch {range}: the range is empty")));
    };
    let (member, stream) = core
        .try_members(true, |member| {
            let (key, end) = (span.first.clone(), span.end.clone());
            async move {
                let client = member.streams().await?;
                let mut options = WatchOptions::new()
                    .with_start_revision(from.max(1))
                    .with_progress_notify()
                    .with_fragment();
                if let Some(end) = end {
                    options = options.with_range(end);
                }
                let mut watches = client.watch_client().max_decoding_message_size(ANSWER_BYTES);
                let mut stream = watches.watch(key, Some(options)).await?;
                let created = stream.message().await?;
                let created = created.ok_or_else(|| Fault::NotSent("watch ended at once".to_owned()))?;
                check_end(&created)?;
                Ok((member, stream))
            }
        })
        .await?;
    let watch = Watch { core, member, stream, pending: Vec::new(), delivered: from - 1, claimed: None };
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
    /// The next batch. Time counts only while somebody waits for it: a slow reader must not look like a silent member.
    async fn next(&mut self) -> Result<WatchBatch, StoreError> {
        let interval = self.core.options.watch_check_interval;
        let mut heard = Instant::now();
        loop {
            let fault = match timeout(interval, self.stream.message()).await {
                Ok(Ok(Some(response))) => {
                    heard = Instant::now();
                    match check_end(&response) {
                        Ok(()) => match self.take(response) {
                            Some(batch) => return Ok(batch),
                            None => continue,
                        },
                        Err(fault) => fault,
                    }
                }
                Ok(Ok(None)) => Fault::Lost("etcd closed the watch".to_owned()),
                Ok(Err(error)) => Fault::from(error),
                Err(_) if heard.elapsed() < interval * SILENT_CHECKS => match self.ask(interval).await {
                    Ok(()) => continue,
                    Err(fault) => fault,
                },
                Err(_) => Fault::Lost(format!("watch silent for {} s", heard.elapsed().as_secs())),
            };
            return Err(match fault {
                Fault::NotSent(text) | Fault::Lost(text) => {
                    self.core.members.suspect(&self.member, &text);
                    StoreError::Unavailable(format!("{}: {text}", self.member.url))
                }
                fault => fault.into_error(),
            });
        }
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
        let newest =
            response.events.iter().filter_map(|event| event.kv.as_ref()).map(|item| item.mod_revision);
        let newest = newest.max().unwrap_or(self.delivered);
        self.pending.extend(response.events.into_iter().filter_map(convert::event));
        let (revision, events) = if response.fragment {
            // The newest revision may go on in the next fragment; older ones are complete.
            let cut = self.pending.partition_point(|event| event.revision() < newest);
            let rest = self.pending.split_off(cut);
            (newest - 1, std::mem::replace(&mut self.pending, rest))
        } else {
            (newest, std::mem::take(&mut self.pending))
        };
        if events.is_empty() && response.fragment {
            return None;
        }
        let revision = events.last().map_or(revision, Event::revision);
        self.delivered = revision;
        self.claimed = self.claimed.filter(|claimed| *claimed > revision);
        Some(WatchBatch { revision, events })
    }

    /// Progress told by the member. An answer to a request may overtake events that are still queued (etcd before
    /// 3.4.25 and 3.5.8), so it is believed only when the next answer comes with nothing from before it in between.
    fn progress(&mut self, revision: Revision, requested: bool) -> Option<WatchBatch> {
        if !self.pending.is_empty() {
            return None;
        }
        let believed = if requested { self.claimed.replace(revision) } else { Some(revision) };
        let believed = believed.filter(|believed| *believed > self.delivered)?;
        self.delivered = believed;
        Some(WatchBatch { revision: believed, events: Vec::new() })
    }
}
