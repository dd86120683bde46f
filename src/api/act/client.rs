//! Routes about what runs on one node: answered here if it is this one, else passed on to its agent.

use std::io;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::Method;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::api::Api;
use crate::api::call::Call;
use crate::api::call::Fields;
use crate::api::call::parse_bool;
use crate::api::error::ApiError;
use crate::api::forward;
use crate::api::forward::Place;
use crate::api::forward::place_by_param;
use crate::api::forward::place_of_alloc;
use crate::api::intent::order;
use crate::api::local::Frames;
use crate::api::local::LocalError;
use crate::api::local::LogFrame;
use crate::api::local::LogKind;
use crate::api::local::Origin;
use crate::api::local::Position;
use crate::api::local::RestartTasks;
use crate::api::reply;
use crate::api::reply::Reply;
use crate::api::views;
use crate::model::id::AllocId;
use crate::model::id::NodeId;

/// A silent stream sends a heartbeat this often, so that both ends know that the other lives.
const HEARTBEAT: Duration = Duration::from_secs(1);

impl From<LocalError> for ApiError {
    fn from(error: LocalError) -> Self {
        Self::Refused { status: error.status(), text: error.to_string() }
    }
}

fn alloc_id(call: &Call) -> Result<AllocId, ApiError> {
    call.subject()
        .parse()
        .map_err(|_| ApiError::internal("alloc lookup failed: index error: UUID must be 36 characters"))
}

fn required<'a>(call: &'a Call, name: &str, missing: &str) -> Result<&'a str, ApiError> {
    call.text(name).ok_or_else(|| ApiError::bad_request(missing))
}

pub(in crate::api) async fn list_files(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let id = alloc_id(call)?;
    match place_of_alloc(api, call, id).await? {
        Place::Elsewhere(to) => forward::pass(api, call, &to).await,
        Place::Here(local) => reply::json(call, &local.list(id, call.text("path").unwrap_or("/")).await?),
    }
}

pub(in crate::api) async fn stat_file(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let id = alloc_id(call)?;
    let path = required(call, "path", "must provide a file name")?;
    match place_of_alloc(api, call, id).await? {
        Place::Elsewhere(to) => forward::pass(api, call, &to).await,
        Place::Here(local) => reply::json(call, &local.stat(id, path).await?),
    }
}

pub(in crate::api) async fn cat_file(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    read_file(api, call, Ok((0, None))).await
}

pub(in crate::api) async fn read_file_at(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let number = |name: &str| {
        let text = call.param(name).unwrap_or_default();
        text.parse::<u64>()
            .map_err(|_| format!("error parsing {name}: strconv.ParseInt: parsing {text:?}: invalid syntax"))
    };
    let range = number("offset").and_then(|offset| {
        let limit = if call.text("limit").is_some() { Some(number("limit")?) } else { None };
        Ok((offset, limit))
    });
    read_file(api, call, range).await
}

/// The data that an allocation's replacement on another node asks for.
pub(in crate::api) async fn snapshot(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let id = alloc_id(call)?;
    let local = match place_of_alloc(api, call, id).await? {
        Place::Elsewhere(to) => return forward::pass(api, call, &to).await,
        Place::Here(local) => local,
    };
    let pieces = local.snapshot(id).await?.map(|piece| piece.map_err(io::Error::other));
    Ok(reply::stream("application/octet-stream", pieces.boxed()))
}

/// Sends a file. What goes wrong with the file itself is told with status 200, as Nomad does.
async fn read_file(
    api: &Api,
    call: &Call,
    range: Result<(u64, Option<u64>), String>,
) -> Result<Reply, ApiError> {
    let id = alloc_id(call)?;
    let local = match place_of_alloc(api, call, id).await? {
        Place::Elsewhere(to) => return forward::pass(api, call, &to).await,
        Place::Here(local) => local,
    };
    let told = |text: String| Ok(reply::full(StatusCode::OK, reply::TEXT, text));
    let Some(path) = call.text("path") else { return told("must provide a file name".to_owned()) };
    let (offset, limit) = match range {
        Ok(range) => range,
        Err(why) => return told(why),
    };
    match local.read(id, path, offset, limit).await {
        Err(error) => told(error.to_string()),
        Ok(bytes) => {
            let pieces = bytes.map(|piece| piece.map_err(io::Error::other));
            let mut answer = reply::stream("application/octet-stream", pieces.boxed());
            // What a task wrote must not run in the browser of whoever looks at it.
            answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(reply::TEXT));
            let policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox";
            let answer = reply::with_header(answer, "content-security-policy", policy);
            let answer = reply::with_header(answer, "x-content-type-options", "nosniff");
            Ok(reply::with_header(answer, "x-xss-protection", "1; mode=block"))
        }
    }
}

fn position(call: &Call, follow: bool, status: fn(String) -> ApiError) -> Result<Position, ApiError> {
    let origin = match call.text("origin") {
        None | Some("start") => Origin::Start,
        Some("end") => Origin::End,
        Some(_) => return Err(ApiError::bad_request("origin must be start or end")),
    };
    let offset = match call.text("offset") {
        None => 0,
        Some(text) => text.parse().map_err(|_| {
            status(format!("error parsing offset: strconv.ParseInt: parsing {text:?}: invalid syntax"))
        })?,
    };
    Ok(Position { origin, offset, follow: parsed(call, "follow", follow, status)? })
}

fn parsed(call: &Call, name: &str, default: bool, status: fn(String) -> ApiError) -> Result<bool, ApiError> {
    let Some(text) = call.text(name) else { return Ok(default) };
    parse_bool(text).ok_or_else(|| {
        status(format!(
            "failed to parse {name} field to boolean: strconv.ParseBool: parsing {text:?}: invalid syntax"
        ))
    })
}

pub(in crate::api) async fn stream_file(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let id = alloc_id(call)?;
    let path = required(call, "path", "must provide a file name")?;
    let at = position(call, true, ApiError::internal)?;
    match place_of_alloc(api, call, id).await? {
        Place::Elsewhere(to) => forward::pass(api, call, &to).await,
        Place::Here(local) => {
            let frames = local.stream(id, path, at).await.map_err(|error| match error {
                LocalError::NotFound(text) => ApiError::bad_request(text),
                other => other.into(),
            })?;
            Ok(reply::stream(reply::TEXT, framed(api, frames, at.follow)))
        }
    }
}

pub(in crate::api) async fn logs(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let id = alloc_id(call)?;
    let task = required(call, "task", "must provide task name")?;
    let kind = match required(call, "type", "must provide log type (stdout/stderr)")? {
        "stdout" => LogKind::Stdout,
        "stderr" => LogKind::Stderr,
        _ => return Err(ApiError::bad_request("must provide log type (stdout/stderr)")),
    };
    let at = position(call, false, ApiError::bad_request)?;
    let is_plain = parsed(call, "plain", false, ApiError::bad_request)?;
    match place_of_alloc(api, call, id).await? {
        Place::Elsewhere(to) => forward::pass(api, call, &to).await,
        Place::Here(local) => {
            let frames = local.logs(id, task, kind, at).await?;
            Ok(if is_plain {
                let data = frames.map(|frame| Ok(frame.map_or_else(told, |frame| frame.data)));
                reply::stream(reply::TEXT, until_stopped(api, data.boxed()))
            } else {
                reply::stream(reply::JSON, framed(api, frames, at.follow))
            })
        }
    }
}

/// Once a stream has begun its status cannot change: the text of an error is simply appended.
fn told(error: LocalError) -> Bytes {
    error.to_string().into()
}

fn until_stopped(
    api: &Api,
    stream: BoxStream<'static, io::Result<Bytes>>,
) -> BoxStream<'static, io::Result<Bytes>> {
    stream.take_until(api.stopping.clone().cancelled_owned()).boxed()
}

/// Frames as JSON objects one after the other; a stream that goes on sends `{}` while it is silent.
fn framed(api: &Api, frames: Frames, follow: bool) -> BoxStream<'static, io::Result<Bytes>> {
    let encoded = frames.map(|frame| Ok(frame.map_or_else(told, |frame| encode(&frame))));
    if !follow {
        return until_stopped(api, encoded.boxed());
    }
    let beating = futures::stream::unfold(encoded.boxed(), |mut encoded| async move {
        match tokio::time::timeout(HEARTBEAT, encoded.next()).await {
            Ok(piece) => piece.map(|piece| (piece, encoded)),
            Err(_) => Some((Ok(Bytes::from_static(b"{}")), encoded)),
        }
    });
    until_stopped(api, beating.boxed())
}

fn encode(frame: &LogFrame) -> Bytes {
    let mut fields = Map::new();
    if frame.offset > 0 {
        fields.insert("Offset".into(), frame.offset.into());
    }
    if !frame.data.is_empty() {
        fields.insert("Data".into(), STANDARD.encode(&frame.data).into());
    }
    if !frame.file.is_empty() {
        fields.insert("File".into(), frame.file.as_str().into());
    }
    if !frame.event.is_empty() {
        fields.insert("FileEvent".into(), frame.event.as_str().into());
    }
    Value::Object(fields).to_string().into()
}

/// Schedules of tasks are a part of Nomad Enterprise.
pub(in crate::api) async fn pause(_: &Api, call: &Call) -> Result<Reply, ApiError> {
    if call.method != Method::GET {
        let fields = call.fields()?;
        if !matches!(fields.text("ScheduleState")?, "pause" | "run" | "scheduled") {
            return Err(ApiError::bad_request("Not a valid task schedule state"));
        }
    }
    Err(ApiError::internal("Enterprise only"))
}

/// The answer to a plain request where a websocket is wanted.
pub(in crate::api) async fn needs_websocket(_: &Api, _: &Call) -> Result<Reply, ApiError> {
    Err(ApiError::bad_request(
        "Bad Request\nfailed to upgrade connection: websocket: the client is not using the websocket protocol: \
         'upgrade' token not found in 'Connection' header",
    ))
}

pub(in crate::api) async fn alloc_stats(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let id = alloc_id(call)?;
    match place_of_alloc(api, call, id).await? {
        Place::Elsewhere(to) => forward::pass(api, call, &to).await,
        Place::Here(local) => reply::json(call, &local.alloc_stats(id, call.text("task")).await?),
    }
}

pub(in crate::api) async fn restart(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let id = alloc_id(call)?;
    let broken = |error: ApiError| ApiError::internal(error.text());
    let fields = if call.body.is_empty() { Fields::default() } else { call.fields().map_err(broken)? };
    let tasks = match (fields.text("TaskName")?, fields.flag("AllTasks")?) {
        ("", true) => RestartTasks::All,
        ("", false) => RestartTasks::Running,
        (_, true) => {
            return Err(ApiError::internal("task name cannot be set when restarting all tasks"));
        }
        (task, false) => RestartTasks::One(task.to_owned()),
    };
    match place_of_alloc(api, call, id).await? {
        Place::Elsewhere(to) => forward::pass(api, call, &to).await,
        Place::Here(local) => {
            local.restart(id, tasks).await?;
            reply::json(call, &json!({"Index": 0}))
        }
    }
}

pub(in crate::api) async fn signal(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let id = alloc_id(call)?;
    let wrong = |error: ApiError| ApiError::bad_request(format!("Failed to decode body: {}", error.text()));
    let fields = call.fields().map_err(wrong)?;
    let task = Some(fields.text("Task")?).filter(|task| !task.is_empty());
    let signal = fields.text("Signal")?;
    match place_of_alloc(api, call, id).await? {
        Place::Elsewhere(to) => forward::pass(api, call, &to).await,
        Place::Here(local) => {
            local.signal(id, task, signal).await?;
            reply::json(call, &json!({"Index": 0}))
        }
    }
}

pub(in crate::api) async fn collect_alloc(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let id = alloc_id(call)?;
    match place_of_alloc(api, call, id).await? {
        Place::Elsewhere(to) => forward::pass(api, call, &to).await,
        Place::Here(local) => {
            local.collect(Some(id)).await?;
            Ok(reply::empty())
        }
    }
}

pub(in crate::api) async fn collect_node(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    match place_by_param(api, call)? {
        Place::Elsewhere(to) => forward::pass(api, call, &to).await,
        Place::Here(local) => {
            local.collect(None).await?;
            Ok(reply::empty())
        }
    }
}

pub(in crate::api) async fn host_stats(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    match place_by_param(api, call)? {
        Place::Elsewhere(to) => forward::pass(api, call, &to).await,
        Place::Here(local) => reply::json(call, &local.host_stats().await?),
    }
}

/// The node whose metadata is asked for or changed: that lives in the store, so any server can answer.
fn meta_node(api: &Api, call: &Call, named: &str) -> Result<NodeId, ApiError> {
    let text = if named.is_empty() { call.text("node_id").unwrap_or_default() } else { named };
    if text.is_empty() {
        let own = api.context.agent.node_id;
        return own.ok_or_else(|| ApiError::bad_request("No local Node and node_id not provided"));
    }
    text.parse().map_err(|_| ApiError::internal(format!("Unknown node {text}")))
}

fn metadata(api: &Api, call: &Call, id: NodeId) -> Result<Reply, ApiError> {
    let shown = {
        let state = api.context.mirror.read();
        let unknown = || ApiError::internal(format!("Unknown node {id}"));
        let node = state.nodes.get(&id).filter(|node| node.info.is_some()).ok_or_else(unknown)?;
        json!({
            "Meta": views::node::merged_meta(node),
            "Dynamic": node.spec.as_ref().map(|spec| spec.value.meta.clone()).unwrap_or_default(),
            "Static": node.info.as_ref().map(|info| info.value.meta.clone()).unwrap_or_default(),
        })
    };
    reply::json(call, &shown)
}

pub(in crate::api) async fn get_metadata(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    api.catch_up().await?;
    metadata(api, call, meta_node(api, call, "")?)
}

pub(in crate::api) async fn set_metadata(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let fields = call.fields()?;
    let id = meta_node(api, call, fields.text("NodeID")?)?;
    let given = fields.get("Meta").and_then(Value::as_object);
    let given = given.ok_or_else(|| ApiError::bad_request("missing required Meta object"))?;
    let mut meta = std::collections::BTreeMap::new();
    for (key, value) in given {
        let fits = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        };
        if !key.split('.').all(fits) {
            return Err(ApiError::bad_request(format!(
                "{key:?} is invalid; metadata keys must be valid dotted hcl identifiers"
            )));
        }
        meta.insert(key.clone(), value.as_str().map(String::from));
    }
    order::set_meta(api, id, &meta).await?;
    api.catch_up().await?;
    metadata(api, call, id)
}
