//! What the API asks of the node agent in the same process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::TryStreamExt;
use serde_json::Value;
use serde_json::json;

use crate::agent::dirs;
use crate::agent::files;
use crate::agent::files::AllocFiles;
use crate::agent::files::FileError;
use crate::agent::files::Origin as FileOrigin;
use crate::agent::real::RealWorkload;
use crate::agent::real::RequestError;
use crate::api::local::Bytestream;
use crate::api::local::FileInfo;
use crate::api::local::Frames;
use crate::api::local::LocalAgent;
use crate::api::local::LocalError;
use crate::api::local::LogFrame;
use crate::api::local::LogKind;
use crate::api::local::Origin;
use crate::api::local::Position;
use crate::api::local::RestartTasks;
use crate::clock::Clock;
use crate::clock::SystemClock;
use crate::drivers::TaskStats;
use crate::model::id::AllocId;
use crate::model::id::NodeId;

/// The agent's answers.
pub(super) struct Local {
    node: NodeId,
    workload: Arc<RealWorkload>,
    alloc_root: PathBuf,
}

impl Local {
    pub(super) fn new(node: NodeId, workload: Arc<RealWorkload>, alloc_root: PathBuf) -> Self {
        Self { node, workload, alloc_root }
    }

    pub(super) fn workload(&self) -> &RealWorkload {
        &self.workload
    }

    fn files(&self, alloc: AllocId) -> Result<AllocFiles, LocalError> {
        AllocFiles::open(&dirs::alloc_dir(&self.alloc_root, alloc)).map_err(of_file)
    }
}

fn of_file(error: FileError) -> LocalError {
    match error {
        FileError::NotFound(..) => LocalError::NotFound(error.to_string()),
        FileError::IsDirectory(_) | FileError::NotDirectory(_) => LocalError::Invalid(error.to_string()),
        other => LocalError::Failed(other.to_string()),
    }
}

fn of_request(error: RequestError) -> LocalError {
    match error {
        RequestError::UnknownAllocation => LocalError::NotFound(error.to_string()),
        other => LocalError::Failed(other.to_string()),
    }
}

fn info_of(info: files::FileInfo) -> FileInfo {
    FileInfo {
        name: info.name,
        is_dir: info.is_dir,
        size: info.size,
        file_mode: info.file_mode,
        mod_time: info.mod_time,
        content_type: info.content_type.to_owned(),
    }
}

fn origin_of(origin: Origin) -> FileOrigin {
    match origin {
        Origin::Start => FileOrigin::Start,
        Origin::End => FileOrigin::End,
    }
}

fn usage(stats: &TaskStats, now: i64) -> Value {
    let memory = json!({"RSS": stats.rss_bytes, "Usage": stats.rss_bytes, "Measured": ["RSS", "Usage"]});
    // A share needs two looks at the used time; one look gives only what was measured.
    let cpu = json!({"TotalTicks": 0.0, "Percent": 0.0, "Measured": []});
    json!({
        "ResourceUsage": {"MemoryStats": memory, "CpuStats": cpu, "DeviceStats": []},
        "Timestamp": now, "Pids": null,
    })
}

#[async_trait]
impl LocalAgent for Local {
    fn node_id(&self) -> NodeId {
        self.node
    }

    fn has_allocation(&self, alloc: AllocId) -> bool {
        self.workload.record(alloc).is_some()
    }

    async fn list(&self, alloc: AllocId, path: &str) -> Result<Vec<FileInfo>, LocalError> {
        let entries = self.files(alloc)?.list(path).await.map_err(of_file)?;
        Ok(entries.into_iter().map(info_of).collect())
    }

    async fn stat(&self, alloc: AllocId, path: &str) -> Result<FileInfo, LocalError> {
        self.files(alloc)?.stat(path).await.map(info_of).map_err(of_file)
    }

    async fn read(
        &self,
        alloc: AllocId,
        path: &str,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Bytestream, LocalError> {
        let (_, pieces) = self.files(alloc)?.read(path, offset, limit).await.map_err(of_file)?;
        Ok(pieces.map_err(|error| LocalError::Failed(error.to_string())).boxed())
    }

    async fn snapshot(&self, alloc: AllocId) -> Result<Bytestream, LocalError> {
        let pieces = self.workload.snapshot(alloc).map_err(|error| LocalError::Failed(error.to_string()))?;
        Ok(pieces.map_err(|error| LocalError::Failed(error.to_string())).boxed())
    }

    async fn stream(&self, alloc: AllocId, path: &str, at: Position) -> Result<Frames, LocalError> {
        let files = self.files(alloc)?;
        let frames = files.stream(path, origin_of(at.origin), at.offset, at.follow).await.map_err(of_file)?;
        Ok(frames.map(|frame| frame.map(frame_of).map_err(of_file)).boxed())
    }

    async fn logs(
        &self,
        alloc: AllocId,
        task: &str,
        kind: LogKind,
        at: Position,
    ) -> Result<Frames, LocalError> {
        let files = self.files(alloc)?;
        let kind = match kind {
            LogKind::Stdout => files::LogKind::Stdout,
            LogKind::Stderr => files::LogKind::Stderr,
        };
        let frames =
            files.logs(task, kind, origin_of(at.origin), at.offset, at.follow).await.map_err(of_file)?;
        Ok(frames.map(|frame| frame.map(frame_of).map_err(of_file)).boxed())
    }

    async fn alloc_stats(&self, alloc: AllocId, task: Option<&str>) -> Result<Value, LocalError> {
        let now = SystemClock.now().0;
        let stats = self.workload.stats(alloc).await.map_err(of_request)?;
        let chosen = stats.iter().filter(|(name, _)| task.is_none_or(|wanted| wanted == name.as_str()));
        let tasks: BTreeMap<&String, Value> = chosen.map(|(name, stats)| (name, usage(stats, now))).collect();
        let rss: u64 = stats.values().map(|stats| stats.rss_bytes).sum();
        let total = TaskStats { rss_bytes: rss, ..TaskStats::default() };
        Ok(json!({
            "ResourceUsage": usage(&total, now)["ResourceUsage"], "Tasks": tasks, "Timestamp": now,
        }))
    }

    async fn host_stats(&self) -> Result<Value, LocalError> {
        let memory = <procfs::Meminfo as procfs::Current>::current();
        let (total, available, free) = memory.map_or((0, 0, 0), |memory| {
            (memory.mem_total, memory.mem_available.unwrap_or(memory.mem_free), memory.mem_free)
        });
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
        let uptime: f64 = uptime.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
        Ok(json!({
            "Memory": {"Total": total, "Available": available, "Used": total.saturating_sub(available), "Free": free},
            "CPU": [], "DiskStats": [], "AllocDirStats": null, "DeviceStats": [],
            "Uptime": uptime as u64, "Timestamp": SystemClock.now().0, "CPUTicksConsumed": 0.0,
        }))
    }

    async fn restart(&self, alloc: AllocId, tasks: RestartTasks) -> Result<(), LocalError> {
        let task = match &tasks {
            RestartTasks::Running | RestartTasks::All => None,
            RestartTasks::One(name) => Some(name.as_str()),
        };
        self.workload.restart(alloc, task).map_err(of_request)
    }

    async fn signal(&self, alloc: AllocId, task: Option<&str>, signal: &str) -> Result<(), LocalError> {
        self.workload.signal(alloc, task, signal).await.map_err(of_request)
    }

    async fn collect(&self, alloc: Option<AllocId>) -> Result<(), LocalError> {
        match alloc {
            Some(alloc) => self.workload.collect(alloc).map_err(of_request),
            None => {
                self.workload.collect_all();
                Ok(())
            }
        }
    }

    fn info(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("node_id".to_owned(), self.node.to_string())])
    }
}

fn frame_of(frame: files::StreamFrame) -> LogFrame {
    LogFrame { offset: frame.offset, data: frame.data, file: frame.file, event: frame.file_event.to_owned() }
}
