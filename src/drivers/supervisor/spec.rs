//! What agent and supervisor say to each other: JSON messages, each behind its length.

use std::collections::BTreeMap;
use std::io;
use std::io::Read;
use std::io::Write;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::drivers::cgroup::TaskCgroups;
use crate::drivers::logs::LogFiles;
use crate::drivers::process::Process;

/// A message is an environment and a few paths; the kernel's own limit for both is far below.
const MAX_MESSAGE: u32 = 16 << 20;

/// What a freshly forked helper is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Become the supervisor of a task.
    Run(Box<TaskSpec>),
    /// Run a command inside a running task.
    Exec(Box<ExecSpec>),
    /// Keep the output of a task that someone else runs.
    Relay(Box<RelaySpec>),
    /// Run one with somebody at the other end of the connection.
    Session(Box<SessionSpec>),
}

/// A task to supervise.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Files are named `<prefix>.state` and `<prefix>.exit`.
    pub prefix: PathBuf,
    pub command: CommandSpec,
    pub isolation: Option<Isolation>,
    pub cgroups: TaskCgroups,
    /// Groups are wanted but not needed: go on without when they cannot be made.
    pub cgroups_optional: bool,
    pub logs: Option<LogFiles>,
    pub network_namespace: Option<PathBuf>,
    pub oom_score_adj: i32,
}

/// What to execute and as whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandSpec {
    /// Tried in order; the first that is a file is executed.
    pub candidates: Vec<PathBuf>,
    /// The error when none of them exists.
    pub not_found: String,
    /// Everything after the program's own name.
    pub args: Vec<String>,
    /// The name the program sees as its own.
    pub name: String,
    pub env: BTreeMap<String, String>,
    pub cwd: PathBuf,
    /// Where files are the task's own: a program found in there is made executable.
    #[serde(default)]
    pub own: Option<PathBuf>,
    /// `None` keeps the agent's.
    pub user: Option<UserIds>,
    /// What the task may be allowed to do; `None` changes nothing.
    pub capabilities: Option<Capabilities>,
}

/// Capability numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// The most that any process of the task can ever have.
    pub bounding: Vec<u8>,
    /// What it has without being root.
    pub ambient: Vec<u8>,
}

/// A resolved user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserIds {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// A task's own view of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// Becomes `/`.
    pub root: PathBuf,
    pub binds: Vec<Bind>,
    /// Directories of the root that the task sees empty.
    pub hidden: Vec<PathBuf>,
    pub private_pids: bool,
    pub private_ipc: bool,
    /// Cover the old root with the new one instead of exchanging them.
    #[serde(default)]
    pub no_pivot_root: bool,
}

/// A directory or file of the host shown inside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    pub from: PathBuf,
    pub to: PathBuf,
    pub read_only: bool,
    /// Mounts that the host makes below `from` later are seen, too.
    #[serde(default)]
    pub follows_host: bool,
    /// Without its source the task cannot start; otherwise a missing one is skipped.
    #[serde(default)]
    pub required: bool,
}

/// A command to run inside a task.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ExecSpec {
    pub task: Process,
    pub command: CommandSpec,
    pub cgroups: TaskCgroups,
    /// The task has namespaces of its own, which must be entered.
    pub isolated: bool,
    pub timeout_ms: u64,
}

/// Named pipes to read and where to write what comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelaySpec {
    pub stdout: PathBuf,
    pub stderr: PathBuf,
    pub logs: LogFiles,
}

/// The answer to [`Request::Relay`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum RelayReply {
    Started(Process),
    Failed(String),
}

/// A command to run inside a task, interactively. Its time is not limited: it ends with the connection.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SessionSpec {
    pub exec: ExecSpec,
    pub tty: bool,
}

/// The answer to [`Request::Session`]. Once started, the connection carries frames (see `frames`).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum SessionReply {
    Started,
    /// It cannot be started; the text is for the user.
    Failed(String),
}

/// The answer to [`Request::Run`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum RunReply {
    Started(Running),
    /// It cannot be started; the text is for the user.
    Failed(String),
}

/// A task and its supervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub supervisor: Process,
    pub task: Process,
    /// The groups that exist.
    pub cgroups: TaskCgroups,
}

/// The answer to [`Request::Exec`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ExecReply {
    Done { code: i32, output: Vec<u8> },
    TimedOut,
    Failed(String),
}

/// Writes one message.
///
/// # Errors
/// The other side is gone.
pub fn send<T: Serialize>(mut to: impl Write, message: &T) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let len = u32::try_from(body.len()).ok().filter(|len| *len <= MAX_MESSAGE);
    let len = len.ok_or_else(|| io::Error::other("message for the supervisor is too large"))?;
    to.write_all(&len.to_le_bytes())?;
    to.write_all(&body)
}

/// Reads one message.
///
/// # Errors
/// The other side is gone or speaks otherwise.
pub fn receive<T: DeserializeOwned>(mut from: impl Read) -> io::Result<T> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let len = u32::from_le_bytes(len);
    if len > MAX_MESSAGE {
        return Err(io::Error::other("message of the supervisor is too large"));
    }
    let mut body = vec![0; len as usize];
    from.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}
