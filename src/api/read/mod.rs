//! Reads: consistency, blocking, and the headers around what a route finds in the mirror.

pub(super) mod agents;
pub(super) mod allocations;
pub(super) mod deployments;
pub(super) mod evaluations;
pub(super) mod jobs;
pub(super) mod keys;
pub(super) mod nodes;
pub(super) mod services;
pub(super) mod settings;

use http::StatusCode;
use serde::Serialize;
use tokio::time::Instant;

use super::Api;
use super::View;
use super::call::Call;
use super::error::ApiError;
use super::reply;
use super::reply::Reply;
use crate::store::Revision;

/// Why a wait of a blocking query is lengthened: so that many clients do not come back at once.
const JITTER_PART: f64 = 1.0 / 16.0;

type Encode = Box<dyn FnOnce(bool) -> Result<Vec<u8>, ApiError> + Send>;

/// What a route found, composed but not encoded: that happens after the mirror's lock is gone.
pub(super) struct Found {
    encode: Encode,
    next_token: Option<String>,
    /// Seconds for which the answer may be kept.
    max_age: Option<u32>,
}

impl Found {
    /// An object or an unpaginated list.
    pub(super) fn json<T: Serialize + Send + 'static>(view: T) -> Self {
        Self { encode: Box::new(move |pretty| reply::encode(&view, pretty)), next_token: None, max_age: None }
    }

    /// The same, to be kept for so many seconds.
    pub(super) fn kept_for(self, seconds: u32) -> Self {
        Self { max_age: Some(seconds), ..self }
    }

    /// A page of a list.
    pub(super) fn page<T: Serialize + Send + 'static>(view: Vec<T>, next_token: Option<String>) -> Self {
        Self { next_token, ..Self::json(view) }
    }
}

/// The index of what a route shows: a blocking query waits until it grows.
pub(super) type IndexOf = fn(&View<'_>, &Call) -> Revision;

/// Finds what a route shows.
pub(super) type Find = fn(&View<'_>, &Call) -> Result<Found, ApiError>;

/// Catches up, waits if the caller wants to, and looks. The outer error is for what the caller did wrong, the inner
/// one for what was not found.
pub(super) async fn settled<T>(
    api: &Api,
    call: &Call,
    index_of: IndexOf,
    find: impl Fn(&View<'_>, &Call) -> Result<T, ApiError>,
) -> Result<(Revision, Result<T, ApiError>), ApiError> {
    let blocking = call.blocking()?;
    if !call.is_stale()? {
        api.catch_up().await?;
    }
    if let Some((seen, wait)) = blocking {
        // Whoever asks something wrong is told at once, not after the wait.
        let refused = { view(api, |view| find(view, call).err()) };
        if let Some(error) = refused.filter(|error| error.status() != StatusCode::NOT_FOUND) {
            return Err(error);
        }
        let wait = wait.mul_f64(1.0 + JITTER_PART * api.context.dice.fraction());
        wait_for_change(api, call, index_of, seen, Instant::now() + wait).await;
    }
    match view(api, |view| (index_of(view, call), find(view, call))) {
        (_, Err(error)) if error.status() != StatusCode::NOT_FOUND => Err(error),
        answer => Ok(answer),
    }
}

/// Answers a read.
pub(super) async fn answer(api: &Api, call: &Call, index_of: IndexOf, find: Find) -> Result<Reply, ApiError> {
    let (index, found) = settled(api, call, index_of, find).await?;
    let reply = match found {
        Ok(found) => {
            let body = (found.encode)(call.is_pretty())?;
            let reply = reply::full(StatusCode::OK, reply::JSON, body);
            let reply = match &found.next_token {
                Some(token) => reply::with_header(reply, "x-nomad-nexttoken", token),
                None => reply,
            };
            match found.max_age {
                Some(seconds) => reply::with_header(reply, "cache-control", &format!("max-age={seconds}")),
                None => reply,
            }
        }
        Err(error) => reply::refusal(&error),
    };
    Ok(read_headers(api, reply, index))
}

/// Adds the three headers of reads.
pub(super) fn read_headers(api: &Api, reply: Reply, index: Revision) -> Reply {
    let known = if api.knows_leader() { "true" } else { "false" };
    let reply = reply::with_header(reply, "x-nomad-index", &index.max(1).to_string());
    let reply = reply::with_header(reply, "x-nomad-lastcontact", "0");
    reply::with_header(reply, "x-nomad-knownleader", known)
}

async fn wait_for_change(api: &Api, call: &Call, index_of: IndexOf, seen: Revision, deadline: Instant) {
    let mut applied = api.context.mirror.subscribe();
    loop {
        applied.borrow_and_update();
        if view(api, |view| index_of(view, call)) > seen {
            return;
        }
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(deadline) => return,
            () = api.stopping.cancelled() => return,
        }
    }
}

/// Looks at the mirror. The lock is held during `look` only.
pub(super) fn view<T>(api: &Api, look: impl FnOnce(&View<'_>) -> T) -> T {
    let state = api.context.mirror.read();
    look(&View { api, state: &state })
}
