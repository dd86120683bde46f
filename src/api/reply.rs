//! Answers: JSON, text, empty bodies and streams, with the headers that Nomad's clients read.

use std::fmt;
use std::io;

use bytes::Bytes;
use futures::stream::BoxStream;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;

use super::call::Call;
use super::error::ApiError;
use crate::store::Revision;

/// The body of an answer.
pub enum Body {
    Full(Bytes),
    Stream(BoxStream<'static, io::Result<Bytes>>),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl Body {
    /// Reads the whole body. Endless streams never end: ask for those only through the server.
    ///
    /// # Errors
    /// Those of the stream.
    pub async fn collect(self) -> io::Result<Bytes> {
        match self {
            Self::Full(bytes) => Ok(bytes),
            Self::Stream(stream) => {
                let parts: Vec<Bytes> = futures::TryStreamExt::try_collect(stream).await?;
                Ok(parts.concat().into())
            }
        }
    }
}

/// An answer.
pub type Reply = Response<Body>;

/// The content type of errors and plain texts.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";
/// The content type of everything else.
pub(super) const JSON: &str = "application/json";

/// An answer with this status, content type and body; an empty body has no content type.
pub(super) fn full(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let body: Bytes = body.into();
    let is_empty = body.is_empty();
    let mut reply = Response::new(Body::Full(body));
    *reply.status_mut() = status;
    if !is_empty {
        reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    reply
}

/// 200 without a body.
pub(super) fn empty() -> Reply {
    full(StatusCode::OK, TEXT, Bytes::new())
}

/// 200 with a stream.
pub(super) fn stream(content_type: &'static str, stream: BoxStream<'static, io::Result<Bytes>>) -> Reply {
    let mut reply = Response::new(Body::Stream(stream));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// 200 with JSON, pretty if the caller asked for it.
pub(super) fn json<T: Serialize>(call: &Call, value: &T) -> Result<Reply, ApiError> {
    json_with(StatusCode::OK, JSON, call, value)
}

/// JSON with another status and content type.
pub(super) fn json_with<T: Serialize>(
    status: StatusCode,
    content_type: &'static str,
    call: &Call,
    value: &T,
) -> Result<Reply, ApiError> {
    Ok(full(status, content_type, encode(value, call.is_pretty())?))
}

/// JSON with the index of a write.
pub(super) fn written<T: Serialize>(call: &Call, index: Revision, value: &T) -> Result<Reply, ApiError> {
    Ok(with_header(json(call, value)?, "x-nomad-index", &index.to_string()))
}

/// An error.
pub(super) fn refusal(error: &ApiError) -> Reply {
    full(error.status(), TEXT, error.text())
}

/// Adds a header.
pub(super) fn with_header(mut reply: Reply, name: &'static str, value: &str) -> Reply {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
    reply
}

/// JSON text; pretty is indented by four spaces and ends with a newline, as Nomad's.
pub(super) fn encode<T: Serialize + ?Sized>(value: &T, pretty: bool) -> Result<Vec<u8>, ApiError> {
    let mut out = Vec::new();
    let outcome = if pretty {
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
        value.serialize(&mut serializer)
    } else {
        value.serialize(&mut serde_json::Serializer::new(&mut out))
    };
    outcome.map_err(|error| ApiError::internal(format!("cannot encode the answer: {error}")))?;
    if pretty {
        out.push(b'\n');
    }
    Ok(out)
}
