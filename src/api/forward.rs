//! Requests that another agent must answer: which one, and how they get there and back without being held up.

use std::io;
use std::sync::Arc;
use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::TryStreamExt;
use http::HeaderMap;
use http::HeaderValue;

use super::Api;
use super::Body;
use super::call::Call;
use super::error::ApiError;
use super::local::LocalAgent;
use super::reply::Reply;
use super::views;
use crate::model::id::AllocId;
use crate::model::id::NodeId;

/// Marks a request that was passed on, with [`TO_NODE`] or [`TO_SERVER`].
pub(super) const FORWARDED: &str = "x-herder-forwarded";
/// It has reached the node that it is about, and is not passed on again.
pub(super) const TO_NODE: &str = "node";
/// It comes from an agent that is no server: a server may still pass it on to a node.
pub(super) const TO_SERVER: &str = "server";

/// The connection to another agent is given up after this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Headers of a request that go with it.
const ASKED: &[&str] = &["x-nomad-token", "authorization", "content-type", "accept-encoding"];
/// Headers of an answer that belong to the connection, and are made anew.
const OWN: &[&str] = &["connection", "keep-alive", "transfer-encoding", "content-length", "date", "vary"];

/// The servers of the cluster, for an agent that is none.
#[async_trait]
pub trait ServerDirectory: Send + Sync + 'static {
    /// `ip:port` of the servers' HTTP APIs, sorted. The error says why nobody knows.
    async fn servers(&self) -> Result<Vec<String>, String>;
}

/// Where a request belongs.
pub(super) enum Place {
    Here(Arc<dyn LocalAgent>),
    Elsewhere(Elsewhere),
}

/// Another agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// `ip:port` of the one that runs the node.
    Node(String),
    /// Any server: they know the way.
    Server,
}

/// The agent that has an allocation.
///
/// # Errors
/// There is no such allocation, or no way to its node.
pub(super) async fn place_of_alloc(api: &Api, call: &Call, id: AllocId) -> Result<Place, ApiError> {
    if let Some(local) = api.context.local.as_ref().filter(|local| local.has_allocation(id)) {
        return Ok(Place::Here(Arc::clone(local)));
    }
    let unknown = || ApiError::not_found(format!("Unknown allocation \"{id}\""));
    if has_arrived(call) {
        return Err(unknown());
    }
    if api.context.servers.is_some() {
        return Ok(Place::Elsewhere(Elsewhere::Server));
    }
    api.catch_up().await?;
    let node = api.context.mirror.read().alloc_nodes.get(&id).copied().ok_or_else(unknown)?;
    // It may be ours by the book although nothing of it is here.
    place_of_node(api, call, node)
}

/// The agent that runs a node.
///
/// # Errors
/// There is no such node, or no way to it.
pub(super) fn place_of_node(api: &Api, call: &Call, id: NodeId) -> Result<Place, ApiError> {
    if let Some(local) = api.context.local.as_ref().filter(|local| local.node_id() == id) {
        return Ok(Place::Here(Arc::clone(local)));
    }
    let no_path = || ApiError::not_found("No path to node");
    if has_arrived(call) {
        return Err(no_path());
    }
    if api.context.servers.is_some() {
        return Ok(Place::Elsewhere(Elsewhere::Server));
    }
    let state = api.context.mirror.read();
    let node = state.nodes.get(&id).ok_or_else(|| ApiError::not_found(format!("Unknown node {id}")))?;
    let addr = views::node::http_addr(node);
    if addr.is_empty() || node.live.is_none() {
        return Err(no_path());
    }
    Ok(Place::Elsewhere(Elsewhere::Node(addr.to_owned())))
}

/// The agent of the node that a request names, else this one.
///
/// # Errors
/// As for [`place_of_node`]; and without a name where no node is.
pub(super) fn place_by_param(api: &Api, call: &Call) -> Result<Place, ApiError> {
    match (call.text("node_id"), &api.context.local) {
        (Some(text), _) => {
            let id = text.parse().map_err(|_| ApiError::not_found(format!("Unknown node {text}")))?;
            place_of_node(api, call, id)
        }
        (None, Some(local)) => Ok(Place::Here(Arc::clone(local))),
        (None, None) => Err(ApiError::bad_request("No local Node and node_id not provided")),
    }
}

fn has_arrived(call: &Call) -> bool {
    call.headers.get(FORWARDED).is_some_and(|value| value != TO_SERVER)
}

static CLIENT: LazyLock<Result<reqwest::Client, String>> = LazyLock::new(|| {
    // A second installation is refused, which is as good as the first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).no_proxy().no_gzip();
    builder.build().map_err(|error| error.to_string())
});

/// The client for requests to other agents.
///
/// # Errors
/// It cannot be set up.
pub(super) fn http_client() -> Result<&'static reqwest::Client, ApiError> {
    CLIENT.as_ref().map_err(|why| ApiError::internal(why.clone()))
}

/// Passes a request on and streams the answer back.
///
/// # Errors
/// The other agent cannot be reached.
pub(super) async fn pass(api: &Api, call: &Call, to: &Elsewhere) -> Result<Reply, ApiError> {
    match to {
        Elsewhere::Node(addr) => {
            let unreachable = |why| ApiError::not_found(format!("No path to node: {addr}: {why}"));
            send(call, addr, &call.raw_uri, TO_NODE).await?.map_err(unreachable)
        }
        Elsewhere::Server => to_server(api, call).await,
    }
}

/// Passes a request on to whichever server can be reached.
///
/// # Errors
/// None can.
pub(super) async fn to_server(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let mut uri = call.raw_uri.clone();
    // Whoever asks an agent about "this node" means that agent's.
    if let Some(node) = api.context.agent.node_id
        && call.path.starts_with("/v1/client/metadata")
        && call.text("node_id").is_none()
    {
        let separator = if uri.contains('?') { '&' } else { '?' };
        uri = format!("{uri}{separator}node_id={node}");
    }
    let mut tried = Vec::new();
    for addr in known_servers(api, call).await? {
        match send(call, &addr, &uri, TO_SERVER).await? {
            Ok(reply) => return Ok(reply),
            Err(why) => tried.push(format!("{addr}: {why}")),
        }
    }
    Err(none_reached(&tried))
}

/// Addresses of servers to try, in order. A request that came from such an agent is not sent round again.
///
/// # Errors
/// There are none.
pub(super) async fn known_servers(api: &Api, call: &Call) -> Result<Vec<String>, ApiError> {
    if call.headers.contains_key(FORWARDED) {
        return Err(ApiError::internal(
            "No cluster leader: this agent is not a server, and was taken for one",
        ));
    }
    let Some(directory) = &api.context.servers else {
        return Err(ApiError::internal("No cluster leader: this agent knows of no servers"));
    };
    let known = directory.servers().await;
    let known =
        known.map_err(|why| ApiError::internal(format!("No cluster leader: no known servers: {why}")))?;
    if known.is_empty() {
        return Err(ApiError::internal(
            "No cluster leader: no known servers: this agent is a client only, and no server is running",
        ));
    }
    Ok(known)
}

/// The error when every known server was tried in vain.
pub(super) fn none_reached(tried: &[String]) -> ApiError {
    let tried = tried.join("; ");
    ApiError::internal(format!(
        "No cluster leader: this agent is a client only, and no server can be reached: {tried}"
    ))
}

/// The headers that go with a request to another agent.
pub(super) fn headers_for(call: &Call, hop: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in ASKED {
        if let Some(value) = call.headers.get(*name) {
            headers.insert(http::HeaderName::from_static(name), value.clone());
        }
    }
    headers.insert(FORWARDED, HeaderValue::from_static(hop));
    headers
}

/// Sends a request; the inner error is why its addressee cannot be reached.
async fn send(
    call: &Call,
    addr: &str,
    uri: &str,
    hop: &'static str,
) -> Result<Result<Reply, String>, ApiError> {
    let request = http_client()?
        .request(call.method.clone(), format!("http://{addr}{uri}"))
        .headers(headers_for(call, hop))
        .body(call.body.clone());
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) => return Ok(Err(innermost(&error.without_url()))),
    };
    let mut reply = http::Response::new(());
    *reply.status_mut() = answer.status();
    for (name, value) in answer.headers() {
        if !OWN.contains(&name.as_str()) {
            reply.headers_mut().append(name.clone(), value.clone());
        }
    }
    let body = answer.bytes_stream().map_err(io::Error::other);
    Ok(Ok(reply.map(|()| Body::Stream(body.boxed()))))
}

/// The cause that says most.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
