//! What the API asks of the node agent in the same process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::TryStreamExt;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::agent::AgentHandle;
use crate::agent::dirs;
use crate::agent::files;
use crate::agent::files::AllocFiles;
use crate::agent::files::FileError;
use crate::agent::files::Follow;
use crate::agent::files::Origin as FileOrigin;
use crate::agent::host_usage::HostMeter;
use crate::agent::ledger::AllocRecord;
use crate::agent::real::RealWorkload;
use crate::agent::real::RequestError;
use crate::agent::usage::Meter;
use crate::agent::workload::Workload;
use crate::api::local::Bytestream;
use crate::api::local::ExecSession;
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
use crate::drivers::session::ExecRequest;
use crate::model::id::AllocId;
use crate::model::id::NodeId;
use crate::model::node::NodeSpec;
use crate::model::node::NodeStatus;
use crate::model::usage::AllocUsage;
use crate::model::usage::TaskUsage;
use crate::store::ListOptions;
use crate::store::Range;
use crate::store::SharedStore;
use crate::store::key::Key;
use crate::store::key::Keys;
use crate::telemetry::Figure;

use super::gauges;
use super::gauges::Publish;

/// The agent's answers.
pub(super) struct Local {
    agent: Arc<AgentHandle>,
    workload: Arc<RealWorkload>,
    alloc_root: PathBuf,
    store: SharedStore,
    keys: Keys,
    publish: Publish,
    meter: Meter,
    host_meter: HostMeter,
}

impl Local {
    pub(super) fn new(
        agent: Arc<AgentHandle>,
        workload: Arc<RealWorkload>,
        alloc_root: PathBuf,
        store: SharedStore,
        keys: Keys,
        publish: Publish,
    ) -> Self {
        let (meter, host_meter) = (Meter::default(), HostMeter::default());
        Self { agent, workload, alloc_root, store, keys, publish, meter, host_meter }
    }

    /// What a busy core counts.
    fn mhz_per_core(&self) -> f64 {
        let info = self.agent.info();
        let cores = f64::from(info.resources.cpu.total_cpu_cores.max(1));
        info.resources.cpu.cpu_shares as f64 / cores
    }

    /// What the running tasks of these allocations use.
    async fn used(&self, allocs: &[AllocId]) -> BTreeMap<AllocId, BTreeMap<String, TaskUsage>> {
        let look = || self.workload.stats_of(allocs);
        let mut used: BTreeMap<AllocId, BTreeMap<String, TaskUsage>> = BTreeMap::new();
        for ((alloc, task), usage) in self.meter.measure(self.mhz_per_core(), SystemClock.now(), look).await {
            used.entry(alloc).or_default().insert(task, usage);
        }
        used
    }

    /// Eligibility and status of the node, as the cluster has written them down.
    async fn standing(&self) -> (String, String) {
        let node = self.agent.node_id();
        let spec: NodeSpec = self.stored(&Key::NodeSpec(node)).await;
        let status: NodeStatus = self.stored(&Key::NodeStatus(node)).await;
        (spec.scheduling_eligibility.as_str().to_owned(), status.status.as_str().to_owned())
    }

    /// A record of the store; the default if there is none, or no store.
    async fn stored<T: DeserializeOwned + Default>(&self, key: &Key) -> T {
        let found = self.store.list(Range::Key(self.keys.text(key)), ListOptions::default()).await;
        let item = found.ok().and_then(|listing| listing.items.into_iter().next());
        item.and_then(|item| serde_json::from_slice(&item.value).ok()).unwrap_or_default()
    }

    pub(super) fn workload(&self) -> &RealWorkload {
        &self.workload
    }

    fn files(&self, alloc: AllocId) -> Result<AllocFiles, LocalError> {
        if self.workload.alloc_dir(alloc).is_none() {
            return Err(LocalError::NotFound(format!("state for allocation {alloc} not found on client")));
        }
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
        RequestError::NoSuchTask(_) | RequestError::NotStarted(_) | RequestError::Ended(_) => {
            LocalError::Invalid(error.to_string())
        }
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

#[async_trait]
impl LocalAgent for Local {
    fn node_id(&self) -> NodeId {
        self.agent.node_id()
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
        match self.workload.started(alloc, task) {
            Ok(()) => {}
            Err(error @ RequestError::NotStarted(_)) => {
                return Err(LocalError::NotFound(format!("{error} No logs available")));
            }
            Err(error) => return Err(of_request(error)),
        }
        let kind = match kind {
            LogKind::Stdout => files::LogKind::Stdout,
            LogKind::Stderr => files::LogKind::Stderr,
        };
        let follow = if at.follow {
            Follow::Until(self.workload.ended(alloc).map_err(of_request)?)
        } else {
            Follow::No
        };
        let frames =
            files.logs(task, kind, origin_of(at.origin), at.offset, follow).await.map_err(of_file)?;
        Ok(frames.map(|frame| frame.map(frame_of).map_err(of_file)).boxed())
    }

    async fn exec(
        &self,
        alloc: AllocId,
        task: &str,
        command: &[String],
        tty: bool,
    ) -> Result<ExecSession, LocalError> {
        let request = ExecRequest { command: command.to_vec(), tty };
        let session = self.workload.session(alloc, task, &request).await.map_err(of_request)?;
        Ok(ExecSession { input: session.input, output: session.output })
    }

    async fn alloc_stats(&self, alloc: AllocId, task: Option<&str>) -> Result<Value, LocalError> {
        if self.workload.record(alloc).is_none() {
            return Err(of_request(RequestError::UnknownAllocation));
        }
        let used = self.used(&[alloc]).await.remove(&alloc).unwrap_or_default();
        let chosen = used.into_iter().filter(|(name, _)| task.is_none_or(|wanted| wanted == name));
        let usage = AllocUsage::of(chosen.collect(), SystemClock.now());
        serde_json::to_value(usage).map_err(|error| LocalError::Failed(error.to_string()))
    }

    async fn host_stats(&self) -> Result<Value, LocalError> {
        let usage = self.host_meter.measure(&self.alloc_root, self.mhz_per_core(), SystemClock.now()).await;
        serde_json::to_value(usage).map_err(|error| LocalError::Failed(error.to_string()))
    }

    async fn figures(&self) -> Vec<Figure> {
        let info = self.agent.info();
        let (eligibility, status) = self.standing().await;
        let known = self.workload.known();
        let records: Vec<AllocRecord> =
            known.iter().filter_map(|alloc| self.workload.record(*alloc)).collect();
        let mut figures = gauges::node(&info, &eligibility, &status, &records);
        let host = async {
            if !self.publish.node {
                return Vec::new();
            }
            let now = SystemClock.now();
            let usage = self.host_meter.measure(&self.alloc_root, self.mhz_per_core(), now).await;
            gauges::host(&info, &eligibility, &status, &usage)
        };
        let used = async { if self.publish.allocations { self.used(&known).await } else { BTreeMap::new() } };
        let (host, used) = futures::join!(host, used);
        figures.extend(host);
        let nothing = BTreeMap::new();
        for record in records.iter().filter(|record| !record.reaped) {
            let id = record.allocation.id;
            let Some(job) = self.workload.job(id) else { continue };
            let used = used.get(&id).unwrap_or(&nothing);
            figures.extend(gauges::alloc(&info.name, record, &job, used, &self.publish));
        }
        figures
    }

    async fn restart(&self, alloc: AllocId, tasks: RestartTasks) -> Result<(), LocalError> {
        let ordered = match &tasks {
            RestartTasks::Running => self.workload.restart(alloc, None),
            RestartTasks::All => self.workload.restart_all(alloc),
            RestartTasks::One(name) => self.workload.restart(alloc, Some(name)),
        };
        ordered.map_err(of_request)
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
        let known = self.workload.known();
        let lives = known.iter().filter_map(|alloc| self.workload.record(*alloc));
        let lives = lives.filter(|record| record.ended_at.is_never()).count();
        BTreeMap::from([
            ("node_id".to_owned(), self.agent.node_id().to_string()),
            ("num_allocations".to_owned(), lives.to_string()),
        ])
    }
}

fn frame_of(frame: files::StreamFrame) -> LogFrame {
    LogFrame { offset: frame.offset, data: frame.data, file: frame.file, event: frame.file_event.to_owned() }
}
