//! A websocket to another agent, and the way between two websockets.

use futures::SinkExt;
use futures::StreamExt;
use http::HeaderMap;
use http::StatusCode;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;

use crate::api::error::ApiError;
use crate::api::forward;
use crate::api::socket::FRAMES_AHEAD;
use crate::api::socket::Socket;
use crate::api::socket::SocketFrame;

/// The close code of a peer that ends without giving one.
const NO_STATUS: u16 = 1005;

/// Opens a websocket at another agent. The inner error is why that cannot be reached.
///
/// # Errors
/// Its refusal.
pub(super) async fn connect(
    addr: &str,
    uri: &str,
    headers: HeaderMap,
) -> Result<Result<Socket, String>, ApiError> {
    let request = forward::http_client()?
        .get(format!("http://{addr}{uri}"))
        .headers(headers)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", generate_key());
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) => return Ok(Err(forward::innermost(&error.without_url()))),
    };
    let status = answer.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let text = answer.text().await.unwrap_or_default();
        return Err(ApiError::Refused { status, text });
    }
    let stream = answer.upgrade().await.map_err(|error| ApiError::internal(forward::innermost(&error)))?;
    Ok(Ok(adapt(WebSocketStream::from_raw_socket(stream, Role::Client, None).await)))
}

fn adapt<S>(stream: WebSocketStream<S>) -> Socket
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut to, from) = stream.split();
    let incoming = from.filter_map(|message| async move {
        match message.ok()? {
            Message::Text(text) => Some(SocketFrame::Text(text.as_str().to_owned())),
            Message::Close(frame) => {
                let (code, reason) = frame.map_or((NO_STATUS, String::new()), |frame| {
                    (frame.code.into(), frame.reason.to_string())
                });
                Some(SocketFrame::Close { code, reason })
            }
            _ => None,
        }
    });
    let (outgoing, mut frames) = mpsc::channel(FRAMES_AHEAD);
    tokio::spawn(async move {
        while let Some(frame) = frames.recv().await {
            let message = match frame {
                SocketFrame::Text(text) => Message::text(text),
                SocketFrame::Close { code, reason } => {
                    Message::Close(Some(CloseFrame { code: code.into(), reason: reason.into() }))
                }
            };
            if to.send(message).await.is_err() {
                return;
            }
        }
        // A peer that is gone already does not need to be told.
        let _ = to.close().await;
    });
    Socket { incoming: incoming.boxed(), outgoing }
}

/// Passes frames both ways until one side has ended, and then ends the other.
pub(super) async fn join(near: Socket, far: Socket, stopping: &CancellationToken) {
    let toward = pass_all(near.incoming, far.outgoing);
    let back = pass_all(far.incoming, near.outgoing);
    tokio::select! {
        () = toward => {}
        () = back => {}
        () = stopping.cancelled() => {}
    }
}

async fn pass_all(mut from: futures::stream::BoxStream<'static, SocketFrame>, to: mpsc::Sender<SocketFrame>) {
    while let Some(frame) = from.next().await {
        let frame = match frame {
            // These two must not be sent: they stand for "none".
            SocketFrame::Close { code: NO_STATUS | 1006, .. } => return,
            other => other,
        };
        if to.send(frame).await.is_err() {
            return;
        }
    }
}
