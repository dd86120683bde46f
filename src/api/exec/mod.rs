//! Commands in tasks with somebody at the other end: `alloc exec` and `job action`, over a websocket.
//!
//! What can be wrong with the request itself is refused with a status. Everything else is told after the upgrade,
//! as the reason of a close frame: the command line shows it to whoever asked.

mod frames;
mod relay;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::HeaderValue;
use http::Request;
use http::StatusCode;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;
use tokio::sync::mpsc;

use super::Api;
use super::call::Call;
use super::call::parse_bool;
use super::error::ApiError;
use super::forward;
use super::forward::Elsewhere;
use super::forward::Place;
use super::forward::TO_NODE;
use super::forward::TO_SERVER;
use super::local::ExecSession;
use super::reply;
use super::reply::Reply;
use super::socket::Socket;
use super::socket::SocketFrame;
use crate::model::exec::ExecOutput;
use crate::model::id::AllocId;
use crate::model::id::JobId;

/// A browser says who it is within this time.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Close codes of RFC 6455: the server is at fault, and the request is.
const INTERNAL_ERROR: u16 = 1011;
const POLICY_VIOLATION: u16 = 1008;
const GOING_AWAY: u16 = 1001;

/// What is to be run.
enum Wanted {
    Exec { alloc: String, command: Vec<String> },
    Action { job: JobId },
}

/// A request that may become a websocket.
pub struct Upgrade {
    api: Arc<Api>,
    call: Call,
    wanted: Wanted,
    tty: bool,
}

/// A command in a task of an allocation.
struct Command {
    alloc: AllocId,
    task: String,
    command: Vec<String>,
}

/// True for paths that are websockets.
pub fn is_socket_path(path: &str) -> bool {
    let exec = path.strip_prefix("/v1/client/allocation/").and_then(|rest| rest.strip_suffix("/exec"));
    let action = path.strip_prefix("/v1/job/").and_then(|rest| rest.strip_suffix("/action"));
    exec.or(action).is_some_and(|id| !id.is_empty())
}

impl Upgrade {
    /// Looks at the request before the connection is upgraded.
    ///
    /// # Errors
    /// The answer, if it must not be.
    pub fn check(api: &Arc<Api>, request: Request<Bytes>) -> Result<Self, Box<Reply>> {
        let call = Call::new(request);
        Self::try_check(api, call).map_err(|error| Box::new(reply::refusal(&error)))
    }

    fn try_check(api: &Arc<Api>, call: Call) -> Result<Self, ApiError> {
        let header = |name: &str| call.headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(origin) = header("origin")
            && origin.split_once("://").map(|(_, host)| host) != header("host")
        {
            let why = "websocket: request origin not allowed by Upgrader.CheckOrigin";
            let text = format!("Forbidden\nfailed to upgrade connection: {why}");
            return Err(ApiError::Refused { status: StatusCode::FORBIDDEN, text });
        }
        let tty = match call.param("tty").filter(|text| !text.is_empty()) {
            None => false,
            Some(text) => parse_bool(text).ok_or_else(|| {
                let why = format!("strconv.ParseBool: parsing {text:?}: invalid syntax");
                ApiError::internal(format!("tty value is not a boolean: {why}"))
            })?,
        };
        let action = call.path.strip_prefix("/v1/job/").and_then(|rest| rest.strip_suffix("/action"));
        let wanted = match action {
            Some(job) => Wanted::Action { job: JobId::new(call.namespace(), job) },
            None => {
                let command = call.param("command").unwrap_or_default();
                let command = serde_json::from_str(command).map_err(|why| {
                    let why = if command.is_empty() {
                        "unexpected end of JSON input".into()
                    } else {
                        why.to_string()
                    };
                    ApiError::internal(format!("failed to marshal command into json: {why}"))
                })?;
                let alloc = call.path.split('/').rev().nth(1).unwrap_or_default().to_owned();
                Wanted::Exec { alloc, command }
            }
        };
        Ok(Self { api: Arc::clone(api), call, wanted, tty })
    }

    /// Serves the websocket until either side ends it.
    pub async fn serve(mut self, mut socket: Socket) {
        let served = match self.shake_hands(&mut socket.incoming).await {
            Ok(()) => self.open().await,
            Err(error) => Err(error),
        };
        match served {
            Err(error) => {
                let is_fault = error.status().is_server_error();
                let code = if is_fault { INTERNAL_ERROR } else { POLICY_VIOLATION };
                let reason = close_reason(&error.text());
                // Whoever has gone away does not need to know.
                let _ = socket.outgoing.send(SocketFrame::Close { code, reason }).await;
            }
            Ok(Opened::Here(session)) => self.converse(session, socket).await,
            Ok(Opened::There(far)) => relay::join(socket, far, &self.api.stopping).await,
        }
    }

    /// A browser cannot set headers: it sends its token in the first frame.
    async fn shake_hands(&mut self, incoming: &mut BoxStream<'static, SocketFrame>) -> Result<(), ApiError> {
        if !self.call.param("ws_handshake").and_then(parse_bool).unwrap_or(false) {
            return Ok(());
        }
        let first = tokio::time::timeout(HANDSHAKE_MAX, incoming.next()).await;
        let Ok(Some(SocketFrame::Text(text))) = first else {
            return Err(ApiError::bad_request("no handshake was sent"));
        };
        let token = frames::handshake(&text)
            .map_err(|version| ApiError::bad_request(format!("unexpected handshake value: {version}")))?;
        if let Ok(value) = HeaderValue::from_str(&token) {
            self.call.headers.insert("x-nomad-token", value);
        }
        Ok(())
    }

    async fn open(&self) -> Result<Opened, ApiError> {
        if matches!(self.wanted, Wanted::Action { .. }) && self.api.context.servers.is_some() {
            return self.at_server().await;
        }
        let command = self.command().await?;
        match forward::place_of_alloc(&self.api, &self.call, command.alloc).await? {
            Place::Here(local) => {
                let Command { alloc, task, command } = command;
                Ok(Opened::Here(local.exec(alloc, &task, &command, self.tty).await?))
            }
            Place::Elsewhere(Elsewhere::Server) => self.at_server().await,
            Place::Elsewhere(Elsewhere::Node(addr)) => {
                let headers = forward::headers_for(&self.call, TO_NODE);
                let far = relay::connect(&addr, &command.uri(self.tty), headers).await?;
                let unreachable = |why| ApiError::not_found(format!("No path to node: {addr}: {why}"));
                Ok(Opened::There(far.map_err(unreachable)?))
            }
        }
    }

    async fn at_server(&self) -> Result<Opened, ApiError> {
        let mut tried = Vec::new();
        // The handshake is over, and must not be waited for again.
        let uri = self.call.raw_uri.replace("ws_handshake=", "ws_handshake_done=");
        for addr in forward::known_servers(&self.api, &self.call).await? {
            match relay::connect(&addr, &uri, forward::headers_for(&self.call, TO_SERVER)).await? {
                Ok(far) => return Ok(Opened::There(far)),
                Err(why) => tried.push(format!("{addr}: {why}")),
            }
        }
        Err(forward::none_reached(&tried))
    }

    async fn command(&self) -> Result<Command, ApiError> {
        match &self.wanted {
            Wanted::Action { job } => self.action(job).await,
            Wanted::Exec { alloc, command } => {
                let alloc = alloc.parse().map_err(|_| {
                    ApiError::internal("alloc lookup failed: index error: UUID must be 36 characters")
                })?;
                let task = self.call.text("task");
                let task = task.ok_or_else(|| ApiError::bad_request("must provide task name"))?.to_owned();
                if command.is_empty() {
                    return Err(ApiError::bad_request("command is not present"));
                }
                Ok(Command { alloc, task, command: command.clone() })
            }
        }
    }

    /// Looks the action up in the version of the job that the allocation runs.
    async fn action(&self, job: &JobId) -> Result<Command, ApiError> {
        let name =
            self.call.text("action").ok_or_else(|| ApiError::bad_request("must provide action name"))?;
        let task = self.call.text("task").ok_or_else(|| ApiError::bad_request("must provide task name"))?;
        let alloc = self.call.text("allocID").ok_or_else(|| ApiError::bad_request("missing AllocID"))?;
        let alloc: AllocId = alloc.parse().map_err(|_| {
            ApiError::internal("alloc lookup failed: index error: UUID must be 36 characters")
        })?;
        self.api.catch_up().await?;
        let state = self.api.context.mirror.read();
        let unknown_job = || ApiError::not_found(format!("Unknown job {:?}", job.id));
        let current = state.job(job).ok_or_else(unknown_job)?;
        let entry = state.allocs_of_job(job).find(|(id, _)| *id == alloc).map(|(_, entry)| entry);
        let entry = entry.and_then(|entry| entry.desired.as_ref());
        let entry = entry.ok_or_else(|| ApiError::not_found(format!("Unknown allocation \"{alloc}\"")))?;
        let version = state.job_version(job, entry.value.job_version).unwrap_or(current);
        let group = version.value.group(&entry.value.task_group);
        let found = group.and_then(|group| group.task(task));
        let found = found.ok_or_else(|| ApiError::bad_request(format!("unknown task name {task:?}")))?;
        let action = found
            .actions
            .iter()
            .find(|action| action.name == name)
            .ok_or_else(|| ApiError::bad_request(format!("action {name} not found in task {task}")))?;
        let command = std::iter::once(action.command.clone()).chain(action.args.iter().cloned()).collect();
        Ok(Command { alloc, task: task.to_owned(), command })
    }

    async fn converse(&self, session: ExecSession, socket: Socket) {
        let ExecSession { input, mut output } = session;
        let Socket { mut incoming, outgoing } = socket;
        let hear = async {
            while let Some(SocketFrame::Text(text)) = incoming.next().await {
                for message in frames::decode(&text) {
                    // A command that has ended takes nothing more, and that is told on the other way.
                    let _ = input.send(message).await;
                }
            }
        };
        let tell = tell(&mut output, &outgoing, self.tty);
        tokio::select! {
            // The peer is gone: dropping the session ends the command.
            () = hear => {}
            () = tell => {}
            () = self.api.stopping.cancelled() => {
                let reason = "the agent is being stopped".to_owned();
                let _ = outgoing.send(SocketFrame::Close { code: GOING_AWAY, reason }).await;
            }
        }
    }
}

enum Opened {
    Here(ExecSession),
    There(Socket),
}

async fn tell(output: &mut mpsc::Receiver<ExecOutput>, to: &mpsc::Sender<SocketFrame>, tty: bool) {
    while let Some(message) = output.recv().await {
        for frame in frames::encode(&message, tty) {
            if to.send(SocketFrame::Text(frame)).await.is_err() {
                return;
            }
        }
        if matches!(message, ExecOutput::Exited(_)) {
            return;
        }
    }
    let reason = "the command was lost".to_owned();
    let _ = to.send(SocketFrame::Close { code: INTERNAL_ERROR, reason }).await;
}

impl Command {
    /// The same request at the agent of its node.
    fn uri(&self, tty: bool) -> String {
        let escaped = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let command = serde_json::to_string(&self.command).unwrap_or_default();
        format!(
            "/v1/client/allocation/{}/exec?task={}&tty={tty}&command={}",
            self.alloc,
            escaped(&self.task),
            escaped(&command)
        )
    }
}

/// A control frame has room for 125 bytes, of which the code takes two.
fn close_reason(text: &str) -> String {
    const ROOM: usize = 123;
    let mut end = text.len().min(ROOM);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_routes_are_websockets() {
        assert!(is_socket_path("/v1/client/allocation/x/exec"));
        assert!(is_socket_path("/v1/job/a/b/action"));
        assert!(!is_socket_path("/v1/job/action"));
        assert!(!is_socket_path("/v1/job/a/actions"));
        assert!(!is_socket_path("/v1/client/allocation/x/stats"));
    }

    #[test]
    fn a_reason_fits_into_its_frame() {
        assert_eq!(close_reason("short"), "short");
        assert_eq!(close_reason(&"ä".repeat(100)).len(), 122);
    }
}
