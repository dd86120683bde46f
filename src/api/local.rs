//! What the API asks the node agent of its own process about allocations that run here.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::model::exec::ExecInput;
use crate::model::exec::ExecOutput;
use crate::model::id::AllocId;
use crate::model::id::NodeId;
use crate::model::time::Time;
use crate::telemetry::Figure;

/// Why the agent did not do what was asked. Every variant carries the text of the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocalError {
    /// 404: no such file, or nothing was started yet.
    #[error("{0}")]
    NotFound(String),
    /// 400: the request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// 500: everything else, a path that leaves the allocation's directory included.
    #[error("{0}")]
    Failed(String),
}

impl LocalError {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// A file or directory below an allocation's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct FileInfo {
    pub name: String,
    pub is_dir: bool,
    /// Bytes.
    pub size: u64,
    /// As `ls` shows it: `-rw-r--r--`.
    pub file_mode: String,
    pub mod_time: Time,
    /// Guessed from the first bytes; empty when not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub content_type: String,
}

/// Which end offsets count from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    #[default]
    Start,
    End,
}

/// One of a task's output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    Stdout,
    Stderr,
}

/// Where a stream begins, and whether it goes on at the end of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    pub origin: Origin,
    /// Bytes from the origin.
    pub offset: u64,
    pub follow: bool,
}

/// A piece of a file. A piece with an event has no data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFrame {
    /// Position in the file after the data.
    pub offset: u64,
    /// At most 64 KiB.
    pub data: Bytes,
    /// Path below the allocation's directory; given with the first piece of each file.
    pub file: String,
    /// `file deleted` or `file truncated`; empty otherwise.
    pub event: String,
}

/// Pieces of a file. Ends at the end of the file unless it is followed.
pub type Frames = BoxStream<'static, Result<LogFrame, LocalError>>;

/// Bytes of a file.
pub type Bytestream = BoxStream<'static, Result<Bytes, LocalError>>;

/// Which tasks of an allocation are restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestartTasks {
    /// Those that run.
    Running,
    /// Those that have finished too.
    All,
    One(String),
}

/// A command that runs in a task. It is ended when the output is dropped before its exit was told.
#[derive(Debug)]
pub struct ExecSession {
    pub input: mpsc::Sender<ExecInput>,
    /// Ends with [`ExecOutput::Exited`], or without it if the command was lost.
    pub output: mpsc::Receiver<ExecOutput>,
}

/// The node agent of this process. Paths are below the allocation's directory; leaving it is an error.
#[async_trait]
pub trait LocalAgent: Send + Sync + 'static {
    /// The node that it is.
    fn node_id(&self) -> NodeId;

    /// True for allocations whose directory is here.
    fn has_allocation(&self, alloc: AllocId) -> bool;

    /// The entries of a directory.
    async fn list(&self, alloc: AllocId, path: &str) -> Result<Vec<FileInfo>, LocalError>;

    /// What a path leads to.
    async fn stat(&self, alloc: AllocId, path: &str) -> Result<FileInfo, LocalError>;

    /// A file from `offset` on, at most `limit` bytes of it.
    async fn read(
        &self,
        alloc: AllocId,
        path: &str,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Bytestream, LocalError>;

    /// The data of an allocation that moves to its replacement, as a tar.
    async fn snapshot(&self, alloc: AllocId) -> Result<Bytestream, LocalError>;

    /// A file in frames.
    async fn stream(&self, alloc: AllocId, path: &str, at: Position) -> Result<Frames, LocalError>;

    /// A task's output over all of its rotated files, in frames.
    async fn logs(
        &self,
        alloc: AllocId,
        task: &str,
        kind: LogKind,
        at: Position,
    ) -> Result<Frames, LocalError>;

    /// Runs a command in a task with somebody at the other end.
    async fn exec(
        &self,
        alloc: AllocId,
        task: &str,
        command: &[String],
        tty: bool,
    ) -> Result<ExecSession, LocalError>;

    /// Nomad's `AllocResourceUsage`, of one task or of all.
    async fn alloc_stats(&self, alloc: AllocId, task: Option<&str>) -> Result<Value, LocalError>;

    /// Nomad's `HostStats`.
    async fn host_stats(&self) -> Result<Value, LocalError>;

    /// What metrics say about this node and its tasks.
    async fn figures(&self) -> Vec<Figure>;

    /// Restarts tasks of an allocation.
    async fn restart(&self, alloc: AllocId, tasks: RestartTasks) -> Result<(), LocalError>;

    /// Sends a signal to a task, or to all.
    async fn signal(&self, alloc: AllocId, task: Option<&str>, signal: &str) -> Result<(), LocalError>;

    /// Removes what is left of an ended allocation, or of all.
    async fn collect(&self, alloc: Option<AllocId>) -> Result<(), LocalError>;

    /// The `client` section of `agent-info`.
    fn info(&self) -> BTreeMap<String, String>;
}
