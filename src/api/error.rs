//! Why a request was refused, with the status and the text that clients match on.

use http::StatusCode;

use crate::store::StoreError;

/// A refusal. The text is the whole body of the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    #[error("{text}")]
    Refused { status: StatusCode, text: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ApiError {
    /// 400.
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self::Refused { status: StatusCode::BAD_REQUEST, text: text.into() }
    }

    /// 404.
    pub fn not_found(text: impl Into<String>) -> Self {
        Self::Refused { status: StatusCode::NOT_FOUND, text: text.into() }
    }

    /// 500: what Nomad answers when the target of a write is missing or the job is invalid.
    pub fn internal(text: impl Into<String>) -> Self {
        Self::Refused { status: StatusCode::INTERNAL_SERVER_ERROR, text: text.into() }
    }

    /// 501.
    pub fn not_built(text: impl Into<String>) -> Self {
        Self::Refused { status: StatusCode::NOT_IMPLEMENTED, text: text.into() }
    }

    /// 405 with Nomad's text.
    pub fn wrong_verb() -> Self {
        Self::Refused { status: StatusCode::METHOD_NOT_ALLOWED, text: "Invalid method".into() }
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Refused { status, .. } => *status,
            Self::Store(StoreError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The body of the answer. An unreachable store is what a missing leader is to Nomad's clients.
    pub fn text(&self) -> String {
        match self {
            Self::Store(StoreError::Unavailable(why)) => {
                format!("No cluster leader: store unavailable: {why}")
            }
            other => other.to_string(),
        }
    }
}
