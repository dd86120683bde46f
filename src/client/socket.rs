//! Websockets: an interactive command at the other end.

use futures::SinkExt;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Frames that may wait for a slow connection.
const FRAMES_AHEAD: usize = 16;
/// The close code of a peer that ends without giving one.
const NO_STATUS: u16 = 1005;

/// What comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketMessage {
    Text(String),
    /// The other side is done.
    Close {
        code: u16,
        reason: String,
    },
}

/// An open websocket. Dropping `outgoing` closes it.
pub struct Socket {
    /// Ends when the connection is gone.
    pub incoming: BoxStream<'static, SocketMessage>,
    pub outgoing: mpsc::Sender<String>,
}

impl Socket {
    /// A socket over a connection that has been upgraded.
    pub(super) async fn over(connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let stream = WebSocketStream::from_raw_socket(connection, Role::Client, None).await;
        let (mut to, from) = stream.split();
        let incoming = from.filter_map(|message| async move {
            match message.ok()? {
                Message::Text(text) => Some(SocketMessage::Text(text.as_str().to_owned())),
                Message::Close(frame) => {
                    let (code, reason) = frame.map_or((NO_STATUS, String::new()), |frame| {
                        (frame.code.into(), frame.reason.to_string())
                    });
                    Some(SocketMessage::Close { code, reason })
                }
                _ => None,
            }
        });
        let (outgoing, mut texts) = mpsc::channel::<String>(FRAMES_AHEAD);
        tokio::spawn(async move {
            while let Some(text) = texts.recv().await {
                if to.send(Message::text(text)).await.is_err() {
                    return;
                }
            }
            // A peer that is gone already does not need to be told.
            let _ = to.close().await;
        });
        Self { incoming: incoming.boxed(), outgoing }
    }
}
