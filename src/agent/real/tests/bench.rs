//! A machine with a scripted driver, an embedded store and paused time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Map;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::sync::watch;

use crate::agent::Agent;
use crate::agent::AgentConfig;
use crate::agent::AgentHandle;
use crate::agent::Memory;
use crate::agent::catalog::StoreCatalog;
use crate::agent::gc::CollectionLimits;
use crate::agent::gc::DiskUse;
use crate::agent::hooks::ArtifactOptions;
use crate::agent::hooks::CheckHealth;
use crate::agent::hooks::CheckRestartRequest;
use crate::agent::hooks::HookError;
use crate::agent::hooks::HookProgress;
use crate::agent::hooks::ServiceContext;
use crate::agent::hooks::ServiceSink;
use crate::agent::hooks::TemplateChange;
use crate::agent::hooks::TemplateContext;
use crate::agent::ledger::Ledger;
use crate::agent::machine::MachineConfig;
use crate::agent::migration::OverHttp;
use crate::agent::real::RealWorkload;
use crate::agent::surroundings::Services;
use crate::agent::surroundings::Surroundings;
use crate::agent::surroundings::TemplateTask;
use crate::agent::surroundings::Templates;
use crate::agent::users::UserRules;
use crate::clock::TokioClock;
use crate::drivers::Driver;
use crate::drivers::DriverError;
use crate::drivers::ExitStatus;
use crate::drivers::Progress;
use crate::drivers::Started;
use crate::drivers::TaskConfig;
use crate::drivers::TaskDirs;
use crate::drivers::TaskHandle;
use crate::drivers::TaskStats;
use crate::model::allocation::Allocation;
use crate::model::allocation::AllocationReport;
use crate::model::allocation::DesiredStatus;
use crate::model::group::TaskGroup;
use crate::model::id::AllocId;
use crate::model::id::JobId;
use crate::model::id::NodeId;
use crate::model::job::Job;
use crate::model::node::DriverInfo;
use crate::model::node::NodeControl;
use crate::model::node::NodeInfo;
use crate::model::service::CheckResult;
use crate::model::service::Service;
use crate::model::service::ServiceRegistration;
use crate::model::task::Artifact;
use crate::model::task::Template;
use crate::model::time::Span;
use crate::model::time::Time;
use crate::store::Op;
use crate::store::Store;
use crate::store::Txn;
use crate::store::embedded::EmbeddedStore;
use crate::store::key::Key;
use crate::store::key::Keys;

/// One process of the scripted driver.
pub(super) struct Process {
    pub(super) config: TaskConfig,
    pub(super) exit: watch::Sender<Option<ExitStatus>>,
    pub(super) signals: Vec<String>,
}

/// Runs nothing. Options: `run_for` (seconds), `exit_code`, `start_error`, `stop_takes` (seconds).
#[derive(Default)]
pub(super) struct Scripted {
    pub(super) processes: Mutex<BTreeMap<String, Process>>,
    /// Keys of the runs that were cleared up after.
    pub(super) removed: Mutex<Vec<String>>,
}

impl Scripted {
    pub(super) fn key(handle: &TaskHandle) -> String {
        format!("{}/{}/{}", handle.id.alloc, handle.id.task, handle.id.run)
    }

    pub(super) fn end(&self, handle: &TaskHandle, exit: ExitStatus) {
        if let Some(process) = self.processes.lock().get(&Self::key(handle)) {
            process.exit.send_if_modified(|current| {
                current.is_none() && {
                    *current = Some(exit);
                    true
                }
            });
        }
    }

    /// Keys of processes that have not ended.
    pub(super) fn alive(&self) -> Vec<String> {
        let processes = self.processes.lock();
        let alive = processes.iter().filter(|(_, process)| process.exit.borrow().is_none());
        alive.map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn with<T>(&self, task: &str, look: impl FnOnce(&Process) -> T) -> T {
        let processes = self.processes.lock();
        let found = processes.values().rfind(|process| process.config.id.task == task);
        look(found.expect("started"))
    }
}

pub(super) fn seconds(config: &TaskConfig, key: &str) -> Option<Duration> {
    config.config.get(key).and_then(Value::as_f64).map(Duration::from_secs_f64)
}

#[async_trait]
impl Driver for Arc<Scripted> {
    fn name(&self) -> &'static str {
        "scripted"
    }

    async fn fingerprint(&self) -> DriverInfo {
        DriverInfo { detected: true, healthy: true, ..DriverInfo::default() }
    }

    fn validate(&self, config: &Map<String, Value>) -> Vec<String> {
        config.contains_key("nonsense").then(|| "unknown option nonsense".to_owned()).into_iter().collect()
    }

    async fn start(&self, config: &TaskConfig, _: Progress) -> Result<(TaskHandle, Started), DriverError> {
        if let Some(error) = config.config.get("start_error").and_then(Value::as_str) {
            return Err(DriverError::Recoverable(error.to_owned()));
        }
        let handle = TaskHandle { driver: "scripted".into(), id: config.id.clone(), state: Value::Null };
        let process = Process { config: config.clone(), exit: watch::Sender::new(None), signals: Vec::new() };
        self.processes.lock().insert(Scripted::key(&handle), process);
        if let Some(run_for) = seconds(config, "run_for") {
            let (driver, handle) = (Arc::clone(self), handle.clone());
            let code = config.config.get("exit_code").and_then(Value::as_i64).unwrap_or(0);
            tokio::spawn(async move {
                tokio::time::sleep(run_for).await;
                driver.end(&handle, ExitStatus { code: code as i32, ..ExitStatus::default() });
            });
        }
        Ok((handle, Started::default()))
    }

    async fn recover(&self, handle: &TaskHandle) -> Result<Started, DriverError> {
        let known = self.processes.lock().contains_key(&Scripted::key(handle));
        if known { Ok(Started::default()) } else { Err(DriverError::NotFound) }
    }

    async fn wait(&self, handle: &TaskHandle) -> Result<ExitStatus, DriverError> {
        let exit = self.processes.lock().get(&Scripted::key(handle)).map(|process| process.exit.subscribe());
        let mut exit = exit.ok_or(DriverError::NotFound)?;
        let status = exit.wait_for(Option::is_some).await.map_err(|_| DriverError::NotFound)?.clone();
        Ok(status.unwrap_or_default())
    }

    async fn signal(&self, handle: &TaskHandle, signal: &str) -> Result<(), DriverError> {
        let mut processes = self.processes.lock();
        let process = processes.get_mut(&Scripted::key(handle)).ok_or(DriverError::NotFound)?;
        process.signals.push(signal.to_owned());
        Ok(())
    }

    async fn stop(&self, handle: &TaskHandle, _: &str, timeout: Duration) -> Result<(), DriverError> {
        let takes = {
            let processes = self.processes.lock();
            let process = processes.get(&Scripted::key(handle)).ok_or(DriverError::NotFound)?;
            seconds(&process.config, "stop_takes")
        };
        let takes = takes.unwrap_or_default();
        tokio::time::sleep(takes.min(timeout)).await;
        let exit = if takes > timeout {
            ExitStatus { code: 137, signal: 9, ..ExitStatus::default() }
        } else {
            ExitStatus { code: 130, signal: 2, ..ExitStatus::default() }
        };
        self.end(handle, exit);
        Ok(())
    }

    async fn remove(&self, handle: &TaskHandle) -> Result<(), DriverError> {
        // The process itself is kept: tests look at it.
        self.removed.lock().push(Scripted::key(handle));
        Ok(())
    }

    async fn stats(&self, _: &TaskHandle) -> Result<TaskStats, DriverError> {
        Ok(TaskStats { rss_bytes: 7, ..TaskStats::default() })
    }

    async fn exec(
        &self,
        _: &TaskHandle,
        command: &[String],
        _: Duration,
    ) -> Result<(i32, Vec<u8>), DriverError> {
        Ok((0, command.join(" ").into_bytes()))
    }
}

/// Hooks that do nothing but can be told to.
#[derive(Default)]
pub(super) struct Quiet {
    pub(super) changes: Mutex<Option<mpsc::Sender<TemplateChange>>>,
    pub(super) checks_pass: Arc<Mutex<bool>>,
    pub(super) restarts: Mutex<Option<mpsc::Sender<CheckRestartRequest>>>,
    /// What the newest templates were told of the environment.
    pub(super) template_env: Mutex<BTreeMap<String, String>>,
    /// Sources of all downloads, as they began.
    pub(super) fetched: Mutex<Vec<String>>,
    /// Downloads under way: now, and at most.
    pub(super) fetching: Mutex<(usize, usize)>,
}

pub(super) struct QuietTemplates;

impl Templates for QuietTemplates {
    fn env(&self) -> Result<BTreeMap<String, String>, HookError> {
        Ok(BTreeMap::from([("FROM_TEMPLATE".to_owned(), "1".to_owned())]))
    }
}

pub(super) struct QuietServices {
    pub(super) context: ServiceContext,
    pub(super) services: Vec<Service>,
    pub(super) sink: Arc<dyn ServiceSink>,
    pub(super) pass: Arc<Mutex<bool>>,
}

impl QuietServices {
    pub(super) fn put(&self) {
        for service in &self.services {
            self.sink.put(ServiceRegistration {
                id: service.name.clone(),
                service_name: service.name.clone(),
                namespace: self.context.namespace.clone(),
                alloc_id: self.context.alloc,
                ..ServiceRegistration::default()
            });
        }
    }
}

impl Services for QuietServices {
    fn update(&self, _: ServiceContext, _: Vec<Service>) {}

    fn task_restarted(&self) {}

    fn deregister(&self) {
        self.services.iter().for_each(|service| self.sink.delete(&service.name));
    }

    fn health(&self) -> CheckHealth {
        let total = self.services.iter().map(|service| service.checks.len()).sum();
        CheckHealth { total, passing: if *self.pass.lock() { total } else { 0 } }
    }

    fn results(&self) -> BTreeMap<String, CheckResult> {
        BTreeMap::new()
    }
}

#[async_trait]
impl Surroundings for Arc<Quiet> {
    async fn fetch(
        &self,
        artifact: &Artifact,
        _: &TaskDirs,
        _: &ArtifactOptions,
        _: &HookProgress,
    ) -> Result<(), HookError> {
        self.fetched.lock().push(artifact.getter_source.clone());
        if artifact.getter_source.contains("slow") {
            {
                let mut fetching = self.fetching.lock();
                fetching.0 += 1;
                fetching.1 = fetching.1.max(fetching.0);
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
            self.fetching.lock().0 -= 1;
        }
        if artifact.getter_source.contains("missing") {
            return Err(HookError::recoverable(format!("cannot get {}", artifact.getter_source)));
        }
        Ok(())
    }

    async fn start_templates(
        &self,
        _: Vec<Template>,
        context: TemplateContext,
        _: HookProgress,
        _: TemplateTask,
    ) -> Result<(Box<dyn Templates>, mpsc::Receiver<TemplateChange>), HookError> {
        let (sender, receiver) = mpsc::channel(4);
        *self.changes.lock() = Some(sender);
        *self.template_env.lock() = context.env;
        Ok((Box::new(QuietTemplates), receiver))
    }

    fn start_services(
        &self,
        context: ServiceContext,
        services: Vec<Service>,
        sink: Arc<dyn ServiceSink>,
        restarts: mpsc::Sender<CheckRestartRequest>,
        _: BTreeMap<String, CheckResult>,
    ) -> Box<dyn Services> {
        *self.restarts.lock() = Some(restarts);
        let services = QuietServices { context, services, sink, pass: Arc::clone(&self.checks_pass) };
        services.put();
        Box::new(services)
    }
}

/// Tells how full the disk is, percent.
pub(super) type DiskGauge = Box<dyn Fn() -> f64 + Send>;

/// One machine whose agents come and go.
pub(super) struct Bench {
    pub(super) store: EmbeddedStore,
    pub(super) keys: Keys,
    pub(super) clock: Arc<TokioClock>,
    pub(super) node: NodeId,
    pub(super) ledger: Ledger,
    pub(super) driver: Arc<Scripted>,
    pub(super) hooks: Arc<Quiet>,
    pub(super) dir: tempfile::TempDir,
    pub(super) info: watch::Sender<Arc<NodeInfo>>,
    /// Percent of the disk in use; nothing while unset.
    pub(super) disk: Arc<Mutex<Option<DiskGauge>>>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        // What still runs when a test ends keeps its secrets mounted, and they would outlive the directory.
        if let Err(error) = crate::drivers::unmount_all_below(self.dir.path()) {
            assert!(std::thread::panicking(), "{error}");
        }
    }
}

pub(super) struct Running {
    pub(super) handle: AgentHandle,
    pub(super) tasks: Arc<RealWorkload>,
}

pub(super) const WEB: u8 = 1;

pub(super) fn id(number: u8) -> AllocId {
    AllocId::from_random([number; 16])
}

impl Bench {
    pub(super) async fn new(group: Value) -> Self {
        let node = NodeId::from_random([9; 16]);
        let bench = Self {
            store: EmbeddedStore::new(),
            keys: Keys::default(),
            clock: TokioClock::starting_at(Time::from_secs(1_700_000_000)),
            node,
            ledger: Ledger::memory(),
            driver: Arc::default(),
            hooks: Arc::default(),
            dir: tempfile::tempdir().unwrap(),
            info: watch::Sender::new(Arc::new(NodeInfo {
                id: node,
                name: "n1".into(),
                ..NodeInfo::default()
            })),
            disk: Arc::default(),
        };
        bench.put(&Key::Control(node), &NodeControl { cluster_id: "c".into(), epoch: 1 }).await;
        bench.job("service", 0, group).await;
        bench
    }

    pub(super) async fn job(&self, kind: &str, version: u64, group: Value) {
        let mut group: TaskGroup = serde_json::from_value(group).unwrap();
        group.name = "web".into();
        for task in &mut group.tasks {
            if task.driver.is_empty() {
                task.driver = "scripted".into();
            }
        }
        let job = Job {
            id: "web".into(),
            namespace: "default".into(),
            kind: kind.into(),
            version,
            task_groups: vec![group],
            ..Job::default()
        };
        self.put(&Key::Job(JobId::new("default", "web")), &job).await;
    }

    pub(super) async fn put<T: serde::Serialize>(&self, key: &Key, value: &T) {
        let put = Op::put(self.keys.text(key), serde_json::to_vec(value).unwrap());
        self.store.commit(Txn::default().and_then(put)).await.unwrap();
    }

    pub(super) async fn assign(&self, number: u8, change: impl FnOnce(&mut Allocation)) {
        let mut allocation = Allocation {
            id: id(number),
            namespace: "default".into(),
            job_id: "web".into(),
            task_group: "web".into(),
            ..Allocation::default()
        };
        change(&mut allocation);
        self.put(&Key::Alloc(self.node, id(number)), &allocation).await;
    }

    pub(super) async fn stop(&self, number: u8) {
        self.assign(number, |allocation| allocation.desired_status = DesiredStatus::Stop).await;
    }

    pub(super) async fn agent(&self) -> Running {
        let drivers: BTreeMap<String, Arc<dyn Driver>> =
            BTreeMap::from([("scripted".to_owned(), Arc::new(Arc::clone(&self.driver)) as Arc<dyn Driver>)]);
        let store = Arc::new(self.store.clone());
        let disk = Arc::clone(&self.disk);
        let tasks = Arc::new(RealWorkload::new(MachineConfig {
            alloc_root: self.dir.path().join("alloc"),
            region: "global".into(),
            drivers,
            surroundings: Arc::new(Arc::clone(&self.hooks)),
            catalog: Arc::new(StoreCatalog::new(store.clone(), self.keys.clone())),
            node: self.info.subscribe(),
            host_env: BTreeMap::new(),
            artifacts: ArtifactOptions::default(),
            templates: Arc::default(),
            networks: Arc::default(),
            elsewhere: Arc::new(OverHttp::new(store.clone(), self.keys.clone())),
            users: UserRules { drivers: ["scripted".to_owned()].into(), ..UserRules::default() },
            max_kill_timeout: Span::from_secs(30),
            collection: CollectionLimits {
                measure: Arc::new(move |_| {
                    let blocks = disk.lock().as_ref().map_or(0.0, |used| used());
                    Some(DiskUse { blocks, inodes: 0.0 })
                }),
                ..CollectionLimits::default()
            },
        }));
        let memory = Memory::Given { node: self.node, boot_id: "b".into(), ledger: self.ledger.clone() };
        let config = AgentConfig::new(memory, (**self.info.borrow()).clone());
        let workload = Arc::clone(&tasks);
        let handle =
            Agent::start(config, store, self.keys.clone(), self.clock.clone(), workload).await.unwrap();
        Running { handle, tasks }
    }

    pub(super) async fn report(&self, number: u8) -> AllocationReport {
        let (_, item) =
            self.store.get(&self.keys.text(&Key::AllocReport(self.node, id(number)))).await.unwrap();
        item.map(|item| serde_json::from_slice(&item.value).unwrap()).expect("reported")
    }

    /// `Type: text` of a task's events.
    pub(super) async fn events(&self, task: &str) -> Vec<String> {
        let report = self.report(WEB).await;
        let events = &report.task_states[task].events;
        events.iter().map(|event| format!("{}: {}", event.kind, event.display_message)).collect()
    }

    pub(super) async fn service_names(&self) -> Vec<String> {
        let range = crate::store::Range::Prefix(format!("{}services/", self.keys.reported(self.node)));
        let listing = self.store.list(range, crate::store::ListOptions::default()).await.unwrap();
        let read = |item: &crate::store::KeyValue| {
            serde_json::from_slice::<ServiceRegistration>(&item.value).unwrap()
        };
        listing.items.iter().map(|item| read(item).service_name).collect()
    }

    pub(super) async fn services(&self) -> i64 {
        let range = crate::store::Range::Prefix(format!("{}services/", self.keys.reported(self.node)));
        self.store.list(range, crate::store::ListOptions::default()).await.unwrap().count
    }
}

pub(super) async fn pass(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}
