//! The API behind warp: one filter that takes every request, since the route table is our own.

use std::future::Future;
use std::io;
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use bytes::Bytes;
use bytes::BytesMut;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::FutureExt;
use futures::SinkExt;
use futures::Stream;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::StatusCode;
use http::header::ACCEPT_ENCODING;
use http::header::CONTENT_ENCODING;
use http::header::VARY;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use warp::Filter;
use warp::Reply as _;
use warp::filters::path::FullPath;
use warp::ws::Message;

use super::Api;
use super::Body;
use super::exec;
use super::exec::Upgrade;
use super::reply;
use super::reply::Reply;
use super::socket::FRAMES_AHEAD;
use super::socket::Socket;
use super::socket::SocketFrame;

/// Requests in flight have this long to end once the server stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Pieces of a stream that may wait for a slow reader.
const PIECES_AHEAD: usize = 4;

/// The close code of a peer that ends without giving one.
const NO_STATUS: u16 = 1005;

/// Smaller answers are sent as they are.
const GZIP_FROM_BYTES: usize = 1024;

/// Serves until `stop` is done, then lets requests end. The listener is the caller's, so its port is known.
pub async fn serve(api: Arc<Api>, listener: TcpListener, stop: impl Future<Output = ()> + Send + 'static) {
    let stopping = api.stopping.clone();
    let drained = api.stopping.clone();
    let sockets = sockets(Arc::clone(&api));
    let service = {
        let api = Arc::clone(&api);
        warp::any()
            .and(warp::method())
            .and(warp::path::full())
            .and(warp::query::raw().or(warp::any().map(String::new)).unify())
            .and(warp::header::headers_cloned())
            .and(warp::body::stream())
            .then(move |method: Method, path: FullPath, query: String, headers: HeaderMap, body| {
                let api = Arc::clone(&api);
                async move { answer(&api, method, &path, &query, headers, body).await }
            })
    };
    let graceful = async move {
        stop.await;
        stopping.cancel();
    };
    let serving = warp::serve(sockets.or(service).unify()).incoming(listener).graceful(graceful).run();
    tokio::select! {
        () = serving => {}
        () = async {
            drained.cancelled().await;
            tokio::time::sleep(DRAIN_MAX).await;
        } => tracing::warn!("requests were still running {DRAIN_MAX:?} after the server stopped"),
    }
}

/// Requests that become websockets. Without the headers for that they are requests like any other.
fn sockets(
    api: Arc<Api>,
) -> impl Filter<Extract = (warp::reply::Response,), Error = warp::Rejection> + Clone + Send + Sync + 'static
{
    warp::path::full()
        .and_then(|path: FullPath| async move {
            if exec::is_socket_path(path.as_str()) { Ok(path) } else { Err(warp::reject::not_found()) }
        })
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(warp::header::headers_cloned())
        .and(warp::ws())
        .map(move |path: FullPath, query: String, headers: HeaderMap, ws: warp::ws::Ws| {
            let request = Request::builder().uri(format!("{}?{query}", path.as_str())).body(Bytes::new());
            let checked = match request {
                Err(error) => {
                    let text = error.to_string();
                    Err(Box::new(reply::full(StatusCode::BAD_REQUEST, reply::TEXT, text)))
                }
                Ok(mut request) => {
                    *request.headers_mut() = headers;
                    Upgrade::check(&api, request)
                }
            };
            match checked {
                Err(reply) => into_warp(*reply, false),
                Ok(upgrade) => ws.on_upgrade(|socket| upgrade.serve(adapt(socket))).into_response(),
            }
        })
}

/// A websocket of warp as the API wants it.
fn adapt(socket: warp::ws::WebSocket) -> Socket {
    let (mut to, from) = socket.split();
    let incoming = from.filter_map(|message| async move {
        let message = message.ok()?;
        if message.is_close() {
            let (code, reason) = message.close_frame().unwrap_or((NO_STATUS, ""));
            return Some(SocketFrame::Close { code, reason: reason.to_owned() });
        }
        message.to_str().ok().map(|text| SocketFrame::Text(text.to_owned()))
    });
    let (outgoing, mut frames) = mpsc::channel(FRAMES_AHEAD);
    tokio::spawn(async move {
        while let Some(frame) = frames.recv().await {
            let message = match frame {
                SocketFrame::Text(text) => Message::text(text),
                SocketFrame::Close { code, reason } => Message::close_with(code, reason),
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

async fn answer(
    api: &Api,
    method: Method,
    path: &FullPath,
    query: &str,
    headers: HeaderMap,
    body: impl Stream<Item = Result<impl Buf, warp::Error>> + Send,
) -> warp::reply::Response {
    let takes_gzip = accepts_gzip(&headers);
    let limit = api.context.config.request_bytes;
    let reply = match collect(body, limit).await {
        Err(reply) => reply,
        Ok(body) => {
            let uri = if query.is_empty() {
                path.as_str().to_owned()
            } else {
                format!("{}?{query}", path.as_str())
            };
            match Request::builder().method(method).uri(uri).body(body) {
                Err(error) => reply::full(StatusCode::BAD_REQUEST, reply::TEXT, error.to_string()),
                Ok(mut request) => {
                    *request.headers_mut() = headers;
                    AssertUnwindSafe(api.handle(request)).catch_unwind().await.unwrap_or_else(|_| {
                        reply::full(StatusCode::INTERNAL_SERVER_ERROR, reply::TEXT, "internal error")
                    })
                }
            }
        }
    };
    into_warp(reply, takes_gzip)
}

/// Reads a body; the error is the answer.
async fn collect(
    body: impl Stream<Item = Result<impl Buf, warp::Error>> + Send,
    limit: usize,
) -> Result<Bytes, Reply> {
    let mut body = pin!(body);
    let mut whole = BytesMut::new();
    while let Some(piece) = body.next().await {
        let mut piece = piece.map_err(|error| {
            reply::full(
                StatusCode::BAD_REQUEST,
                reply::TEXT,
                format!("cannot read the request body: {error}"),
            )
        })?;
        if whole.len() + piece.remaining() > limit {
            let text = format!("request body is larger than the limit of {limit} bytes");
            return Err(reply::full(StatusCode::PAYLOAD_TOO_LARGE, reply::TEXT, text));
        }
        while piece.has_remaining() {
            let chunk = piece.chunk();
            whole.extend_from_slice(chunk);
            let read = chunk.len();
            piece.advance(read);
        }
    }
    Ok(whole.freeze())
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
        name.trim().eq_ignore_ascii_case("gzip") && quality.trim().trim_end_matches(['0', '.']) != "q="
    })
}

/// Compresses whole answers when asked. Streams stay as they are, so that every piece arrives at once.
fn into_warp(reply: Reply, takes_gzip: bool) -> warp::reply::Response {
    let (mut parts, body) = reply.into_parts();
    parts.headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    let mut response = match body {
        Body::Full(bytes) => {
            let zipped = (takes_gzip && bytes.len() >= GZIP_FROM_BYTES).then(|| gzip(&bytes));
            let bytes = match zipped {
                Some(Ok(zipped)) => {
                    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                    zipped
                }
                _ => bytes,
            };
            warp::reply::Response::new(bytes.into())
        }
        Body::Stream(stream) => warp::reply::stream(piped(stream)).into_response(),
    };
    *response.status_mut() = parts.status;
    *response.headers_mut() = parts.headers;
    response
}

/// Moves a stream into a task of its own: warp wants streams that may be shared. It ends with its reader.
fn piped(mut stream: BoxStream<'static, io::Result<Bytes>>) -> ReceiverStream<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    tokio::spawn(async move {
        loop {
            let piece = tokio::select! {
                () = sender.closed() => return,
                piece = stream.next() => piece,
            };
            let Some(piece) = piece else { return };
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

fn gzip(bytes: &Bytes) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish().map(Bytes::from)
}
