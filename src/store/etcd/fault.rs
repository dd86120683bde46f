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
    /// The member does not know this client's login any more, for example because it was restarted.
    LoginExpired(String),
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
        } else if has("auth store is old") {
            // Users or roles changed a moment ago; the member looks again at the next try.
            Self::NotSent(text.to_owned())
        } else if has("invalid auth token") {
            Self::LoginExpired(text.to_owned())
        } else if has("permission denied") || has("authentication") || has("user name") || has("auth: ") {
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
            Self::LoginExpired(text) => StoreError::Denied(text),
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

#[cfg(test)]
mod tests {
    use super::Fault;
    use crate::store::StoreError;

    #[test]
    fn refusals_before_the_log_may_be_sent_again() {
        for text in ["etcdserver: no leader", "etcdserver: too many requests"] {
            assert_eq!(Fault::of_text(text), Fault::NotSent(text.into()));
        }
    }

    #[test]
    fn interruptions_leave_the_outcome_unknown() {
        for text in [
            "etcdserver: request timed out",
            "etcdserver: request timed out, possibly due to previous leader failure",
            "etcdserver: request timed out, possibly due to connection lost",
            "etcdserver: leader changed",
            "etcdserver: server stopped",
            "h2 protocol error: http2 error",
            "transport error",
            "operation was canceled",
        ] {
            assert_eq!(Fault::of_text(text), Fault::Lost(text.into()), "{text}");
        }
    }

    #[test]
    fn answers_keep_their_meaning() {
        let answered = |text| match Fault::of_text(text) {
            Fault::Answered(error) => error,
            fault => panic!("{text}: {fault:?}"),
        };
        assert_eq!(answered("etcdserver: mvcc: database space exceeded"), StoreError::NoSpace);
        assert_eq!(answered("etcdserver: requested lease not found"), StoreError::LeaseNotFound);
        let future = "etcdserver: mvcc: required revision is a future revision";
        assert_eq!(answered(future), StoreError::FutureRevision);
        for text in [
            "etcdserver: permission denied",
            "etcdserver: user name is empty",
            "etcdserver: authentication failed, invalid user ID or password",
        ] {
            assert_eq!(answered(text), StoreError::Denied(text.into()));
        }
        let text = "etcdserver: key is not provided";
        assert_eq!(answered(text), StoreError::Other(text.into()));
    }
}
