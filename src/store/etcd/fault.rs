//! What an etcd error means for the request that met it.

use std::error::Error;

use etcd_client::Error as ClientError;

use crate::store::StoreError;

/// What an error says about the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It never reached the store, or was turned away: sending it again is safe.
    NotSent(String),
    /// No answer: it may or may not have been carried out.
    Lost(String),
    /// The answer is longer than this client accepts.
    AnswerTooLong,
    /// The store answered that a lease of this id is there already.
    LeaseExists,
    /// The store answered; asking again gives the same answer.
    Answered(StoreError),
}

impl From<ClientError> for Fault {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::GRpcStatus(status) => {
                let refused = status.source().is_some_and(is_unsent);
                if refused { Self::NotSent(text_of(&status)) } else { Self::of_text(status.message()) }
            }
            ClientError::TransportError(error) => Self::Lost(text_of(&error)),
            ClientError::IoError(error) => Self::Lost(text_of(&error)),
            ClientError::WatchError(text) | ClientError::LeaseKeepAliveError(text) => Self::of_text(&text),
            other => Self::Answered(StoreError::Other(other.to_string())),
        }
    }
}

impl Fault {
    /// Judges by the words, because the codes are shared between very different cases (a refused request and one
    /// that timed out inside the cluster are both `Unavailable`).
    pub(super) fn of_text(text: &str) -> Self {
        let has = |part: &str| text.contains(part);
        if has("has been compacted") {
            Self::Answered(StoreError::Compacted { at: 0 })
        } else if has("is a future revision") {
            Self::Answered(StoreError::FutureRevision)
        } else if has("too many operations") {
            Self::Answered(StoreError::TooManyOps { count: 0, limit: 0 })
        } else if has("duplicate key given") {
            Self::Answered(StoreError::DuplicateKey(String::new()))
        } else if has("lease not found") {
            Self::Answered(StoreError::LeaseNotFound)
        } else if has("lease already exists") {
            Self::LeaseExists
        } else if has("space exceeded") {
            Self::Answered(StoreError::NoSpace)
        } else if has("request is too large") || has("received message larger than max") {
            Self::Answered(StoreError::TooLarge { size: 0, limit: 0 })
        } else if has("decoded message length too large") {
            Self::AnswerTooLong
        } else if has("permission denied")
            || has("authentication")
            || has("auth token")
            || has("user name")
            || has("auth: ")
        {
            Self::Answered(StoreError::Denied(text.to_owned()))
        } else if has("no leader") || has("too many requests") {
            // Both are said before the request enters the cluster's log.
            Self::NotSent(text.to_owned())
        } else if text.starts_with("etcdserver: ") && !is_interruption(text) {
            Self::Answered(StoreError::Other(text.to_owned()))
        } else {
            Self::Lost(text.to_owned())
        }
    }

    /// The error for a caller who does not try again.
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::NotSent(text) => StoreError::Unavailable(text),
            Self::Lost(text) => StoreError::Ambiguous(text),
            Self::AnswerTooLong => {
                StoreError::Other("the answer is longer than this client accepts".to_owned())
            }
            Self::LeaseExists => StoreError::Other("lease already exists".to_owned()),
            Self::Answered(error) => error,
        }
    }
}

/// The member gave up on the request, whatever has become of it.
fn is_interruption(text: &str) -> bool {
    ["timed out", "leader changed", "server stopped", "unhealthy", "stopped", "waiting for"]
        .iter()
        .any(|part| text.contains(part))
}

/// True if the connection could not be opened. The error types are tonic's and hyper's own; this crate does not name
/// them, so their debug text, which carries the type's name, has to do.
fn is_unsent(error: &(dyn Error + 'static)) -> bool {
    let text = format!("{error:?}");
    text.contains("ConnectError") || text.contains("connection was not ready")
}

/// The error with its causes.
fn text_of(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
