//! A websocket as the API sees it: texts and a farewell. What carries it is not its business.

use futures::stream::BoxStream;
use tokio::sync::mpsc;

/// Frames that may wait for a slow peer.
pub(super) const FRAMES_AHEAD: usize = 16;

/// A frame. Pings are answered below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketFrame {
    Text(String),
    /// The last one.
    Close {
        code: u16,
        reason: String,
    },
}

/// An open websocket. Dropping `outgoing` closes it.
pub struct Socket {
    /// Ends when the peer is gone.
    pub incoming: BoxStream<'static, SocketFrame>,
    pub outgoing: mpsc::Sender<SocketFrame>,
}
