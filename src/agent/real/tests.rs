//! Real allocations with a scripted driver, an embedded store and paused time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::sync::watch;

use crate::agent::Agent;
use crate::agent::AgentConfig;
use crate::agent::AgentHandle;
use crate::agent::Memory;
use crate::agent::catalog::StoreCatalog;
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
use crate::agent::real::RealWorkload;
use crate::agent::real::RequestError;
use crate::agent::surroundings::Services;
use crate::agent::surroundings::Surroundings;
use crate::agent::surroundings::TemplateTask;
use crate::agent::surroundings::Templates;
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
use crate::model::allocation::ClientStatus;
use crate::model::allocation::DesiredStatus;
use crate::model::group::TaskGroup;
use crate::model::id::AllocId;
use crate::model::id::DeploymentId;
use crate::model::id::JobId;
use crate::model::id::NodeId;
use crate::model::job::Job;
use crate::model::network::PortMapping;
use crate::model::node::DriverInfo;
use crate::model::node::NodeControl;
use crate::model::node::NodeInfo;
use crate::model::service::CheckResult;
use crate::model::service::Service;
use crate::model::service::ServiceRegistration;
use crate::model::task::Artifact;
use crate::model::task::Template;
use crate::model::time::Time;
use crate::store::Op;
use crate::store::Store;
use crate::store::Txn;
use crate::store::embedded::EmbeddedStore;
use crate::store::key::Key;
use crate::store::key::Keys;

/// One process of the scripted driver.
struct Process {
    config: TaskConfig,
    exit: watch::Sender<Option<ExitStatus>>,
    signals: Vec<String>,
}

/// Runs nothing. Options: `run_for` (seconds), `exit_code`, `start_error`, `stop_takes` (seconds).
#[derive(Default)]
struct Scripted {
    processes: Mutex<BTreeMap<String, Process>>,
}

impl Scripted {
    fn key(handle: &TaskHandle) -> String {
        format!("{}/{}/{}", handle.id.alloc, handle.id.task, handle.id.run)
    }

    fn end(&self, handle: &TaskHandle, exit: ExitStatus) {
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
    fn alive(&self) -> Vec<String> {
        let processes = self.processes.lock();
        let alive = processes.iter().filter(|(_, process)| process.exit.borrow().is_none());
        alive.map(|(key, _)| key.clone()).collect()
    }

    fn with<T>(&self, task: &str, look: impl FnOnce(&Process) -> T) -> T {
        let processes = self.processes.lock();
        let found = processes.values().rfind(|process| process.config.id.task == task);
        look(found.expect("started"))
    }
}

fn seconds(config: &TaskConfig, key: &str) -> Option<Duration> {
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
        // Kept if it was the last run: tests look at it.
        let _ = handle;
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
struct Quiet {
    changes: Mutex<Option<mpsc::Sender<TemplateChange>>>,
    checks_pass: Arc<Mutex<bool>>,
    restarts: Mutex<Option<mpsc::Sender<CheckRestartRequest>>>,
}

struct QuietTemplates;

impl Templates for QuietTemplates {
    fn env(&self) -> Result<BTreeMap<String, String>, HookError> {
        Ok(BTreeMap::from([("FROM_TEMPLATE".to_owned(), "1".to_owned())]))
    }
}

struct QuietServices {
    context: ServiceContext,
    services: Vec<Service>,
    sink: Arc<dyn ServiceSink>,
    pass: Arc<Mutex<bool>>,
}

impl QuietServices {
    fn put(&self) {
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
        if artifact.getter_source.contains("missing") {
            return Err(HookError::recoverable(format!("cannot get {}", artifact.getter_source)));
        }
        Ok(())
    }

    async fn start_templates(
        &self,
        _: Vec<Template>,
        _: TemplateContext,
        _: HookProgress,
        _: TemplateTask,
    ) -> Result<(Box<dyn Templates>, mpsc::Receiver<TemplateChange>), HookError> {
        let (sender, receiver) = mpsc::channel(4);
        *self.changes.lock() = Some(sender);
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

/// One machine whose agents come and go.
struct Bench {
    store: EmbeddedStore,
    keys: Keys,
    clock: Arc<TokioClock>,
    node: NodeId,
    ledger: Ledger,
    driver: Arc<Scripted>,
    hooks: Arc<Quiet>,
    dir: tempfile::TempDir,
    info: watch::Sender<Arc<NodeInfo>>,
}

struct Running {
    handle: AgentHandle,
    tasks: Arc<RealWorkload>,
}

const WEB: u8 = 1;

fn id(number: u8) -> AllocId {
    AllocId::from_random([number; 16])
}

impl Bench {
    async fn new(group: Value) -> Self {
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
        };
        bench.put(&Key::Control(node), &NodeControl { cluster_id: "c".into(), epoch: 1 }).await;
        bench.job("service", 0, group).await;
        bench
    }

    async fn job(&self, kind: &str, version: u64, group: Value) {
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

    async fn put<T: serde::Serialize>(&self, key: &Key, value: &T) {
        let put = Op::put(self.keys.text(key), serde_json::to_vec(value).unwrap());
        self.store.commit(Txn::default().and_then(put)).await.unwrap();
    }

    async fn assign(&self, number: u8, change: impl FnOnce(&mut Allocation)) {
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

    async fn stop(&self, number: u8) {
        self.assign(number, |allocation| allocation.desired_status = DesiredStatus::Stop).await;
    }

    async fn agent(&self) -> Running {
        let drivers: BTreeMap<&'static str, Arc<dyn Driver>> =
            BTreeMap::from([("scripted", Arc::new(Arc::clone(&self.driver)) as Arc<dyn Driver>)]);
        let store = Arc::new(self.store.clone());
        let tasks = Arc::new(RealWorkload::new(MachineConfig {
            alloc_root: self.dir.path().join("alloc"),
            region: "global".into(),
            drivers,
            surroundings: Arc::new(Arc::clone(&self.hooks)),
            catalog: Arc::new(StoreCatalog::new(store.clone(), self.keys.clone())),
            node: self.info.subscribe(),
            host_env: BTreeMap::new(),
            artifacts: ArtifactOptions::default(),
            keep_allocs: 50,
            keep_for: None,
        }));
        let memory = Memory::Given { node: self.node, boot_id: "b".into(), ledger: self.ledger.clone() };
        let config = AgentConfig::new(memory, (**self.info.borrow()).clone());
        let workload = Arc::clone(&tasks);
        let handle =
            Agent::start(config, store, self.keys.clone(), self.clock.clone(), workload).await.unwrap();
        Running { handle, tasks }
    }

    async fn report(&self, number: u8) -> AllocationReport {
        let (_, item) =
            self.store.get(&self.keys.text(&Key::AllocReport(self.node, id(number)))).await.unwrap();
        item.map(|item| serde_json::from_slice(&item.value).unwrap()).expect("reported")
    }

    /// `Type: text` of a task's events.
    async fn events(&self, task: &str) -> Vec<String> {
        let report = self.report(WEB).await;
        let events = &report.task_states[task].events;
        events.iter().map(|event| format!("{}: {}", event.kind, event.display_message)).collect()
    }

    async fn services(&self) -> i64 {
        let range = crate::store::Range::Prefix(format!("{}services/", self.keys.reported(self.node)));
        self.store.list(range, crate::store::ListOptions::default()).await.unwrap().count
    }
}

async fn pass(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_runs_and_is_stopped_with_nomads_events() {
    let bench = Bench::new(json!({"Tasks": [{
        "Name": "main", "KillTimeout": 2_000_000_000i64, "ShutdownDelay": 1_000_000_000i64,
        "Config": {"command": "${NOMAD_TASK_NAME}-${node.unique.name}", "stop_takes": 0.5},
        "Templates": [{"EmbeddedTmpl": "x"}],
        "Services": [{"Name": "svc"}],
    }]}))
    .await;
    let agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(1.0).await;
    let report = bench.report(WEB).await;
    assert_eq!(
        (report.client_status, report.client_description.as_str()),
        (ClientStatus::Running, "Tasks are running")
    );
    assert_eq!(bench.services().await, 1);
    bench.driver.with("main", |process| {
        assert_eq!(process.config.config["command"], "main-n1");
        assert_eq!(process.config.env["FROM_TEMPLATE"], "1");
        assert!(process.config.dirs.local.is_dir());
    });
    assert_eq!(agent.tasks.stats(id(WEB)).await.unwrap().into_values().next().unwrap().rss_bytes, 7);
    bench.stop(WEB).await;
    pass(0.5).await;
    assert_eq!(bench.services().await, 0, "deregistered before the delay has passed");
    assert_eq!(bench.report(WEB).await.client_status, ClientStatus::Running);
    pass(3.0).await;
    assert_eq!(bench.report(WEB).await.client_status, ClientStatus::Complete);
    assert_eq!(
        bench.events("main").await,
        [
            "Received: Task received by client",
            "Task Setup: Building Task Directory",
            "Started: Task started by client",
            "Killing: Sent interrupt. Waiting 2s before force killing",
            "Waiting for shutdown delay: Waiting for shutdown_delay of 1s before killing the task.",
            "Terminated: Exit Code: 130, Signal: 2",
            "Killed: Task successfully killed",
        ]
    );
    let dir = agent.tasks.alloc_dir(id(WEB)).unwrap();
    assert!(dir.is_dir());
    let gone = Op::delete(bench.keys.text(&Key::Alloc(bench.node, id(WEB))));
    bench.store.commit(Txn::default().and_then(gone)).await.unwrap();
    pass(1.0).await;
    assert!(!dir.exists());
    assert!(bench.ledger.take_contents().allocs.is_empty());
}

#[tokio::test(start_paused = true)]
async fn failures_are_restarted_by_policy_and_then_fail_the_allocation() {
    let bench = Bench::new(json!({
        "RestartPolicy": {"Attempts": 1, "Interval": 60_000_000_000i64, "Delay": 1_000_000_000, "Mode": "fail"},
        "Tasks": [
            {"Name": "main", "Config": {"run_for": 2, "exit_code": 3}},
            {"Name": "other", "Config": {"stop_takes": 1}},
        ]
    }))
    .await;
    let _agent = bench.agent().await;
    bench.assign(WEB, |allocation| allocation.deployment_id = Some(DeploymentId::from_random([5; 16]))).await;
    pass(2.5).await;
    let report = bench.report(WEB).await;
    assert_eq!(report.client_status, ClientStatus::Running);
    assert_eq!(report.task_states["main"].restarts, 1);
    pass(3.5).await;
    // The sibling is still ending: the allocation has not failed yet.
    pass(10.0).await;
    let report = bench.report(WEB).await;
    assert_eq!(
        (report.client_status, report.client_description.as_str()),
        (ClientStatus::Failed, "Failed tasks")
    );
    assert_eq!(report.deployment_status.unwrap().healthy, Some(false));
    let events = bench.events("main").await;
    assert!(events[4].starts_with("Restarting: Task restarting in 1."), "{events:?}");
    assert_eq!(
        events[7..],
        [
            "Not Restarting: Exceeded allowed attempts 1 in interval 1m0s and mode is \"fail\"",
            "Killing: Sent interrupt. Waiting 5s before force killing",
        ]
    );
    assert_eq!(
        bench.events("other").await[3..],
        [
            "Sibling Task Failed: Task's sibling \"main\" failed",
            "Killing: Sent interrupt. Waiting 5s before force killing",
            "Terminated: Exit Code: 130, Signal: 2",
            "Killed: Task successfully killed",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn lifecycle_tasks_run_in_order() {
    let bench = Bench::new(json!({"Tasks": [
        {"Name": "init", "Lifecycle": {"Hook": "prestart"}, "Config": {"run_for": 2}},
        {"Name": "side", "Lifecycle": {"Hook": "prestart", "Sidecar": true}},
        {"Name": "main", "Config": {"run_for": 5}},
        {"Name": "bye", "Lifecycle": {"Hook": "poststop"}, "Config": {"run_for": 1}},
    ]}))
    .await;
    bench
        .job(
            "batch",
            0,
            json!({"Tasks": [
                {"Name": "init", "Lifecycle": {"Hook": "prestart"}, "Config": {"run_for": 2}},
                {"Name": "side", "Lifecycle": {"Hook": "prestart", "Sidecar": true}},
                {"Name": "main", "Config": {"run_for": 5}},
                {"Name": "bye", "Lifecycle": {"Hook": "poststop"}, "Config": {"run_for": 1}},
            ]}),
        )
        .await;
    let _agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(1.0).await;
    let names = |alive: Vec<String>| -> Vec<String> {
        alive.iter().filter_map(|key| key.split('/').nth(1).map(str::to_owned)).collect()
    };
    assert_eq!(names(bench.driver.alive()), ["init", "side"]);
    pass(2.0).await;
    assert_eq!(names(bench.driver.alive()), ["main", "side"]);
    pass(4.5).await;
    assert_eq!(names(bench.driver.alive()), ["bye"]);
    pass(5.0).await;
    assert_eq!(bench.report(WEB).await.client_status, ClientStatus::Complete);
    let side = bench.events("side").await;
    assert_eq!(side[3], "Main Tasks Dead: Main tasks in the group died");
}

#[tokio::test(start_paused = true)]
async fn tasks_survive_a_killed_and_a_stopped_agent() {
    let bench = Bench::new(json!({"Tasks": [{"Name": "main", "Services": [{"Name": "svc"}]}]})).await;
    let first = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(1.0).await;
    let processes = bench.driver.alive();
    // Killed: everything is dropped at once.
    drop(first);
    pass(1.0).await;
    let second = bench.agent().await;
    pass(1.0).await;
    assert_eq!(bench.driver.alive(), processes);
    assert_eq!(bench.services().await, 1);
    second.handle.shutdown().await;
    drop(second);
    // The task ends while no agent is there.
    let exit = ExitStatus { code: 0, ..ExitStatus::default() };
    let handle = bench.ledger.take_contents().allocs[&id(WEB)].tasks["main"].handle.clone().unwrap();
    bench.driver.end(&handle, exit);
    let third = bench.agent().await;
    pass(1.0).await;
    assert_eq!(bench.events("main").await[3], "Terminated: Exit Code: 0");
    bench.stop(WEB).await;
    pass(20.0).await;
    assert_eq!(bench.report(WEB).await.client_status, ClientStatus::Complete);
    third.handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_vanished_is_started_anew() {
    let bench = Bench::new(json!({"Tasks": [{"Name": "main"}]})).await;
    let first = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(1.0).await;
    first.handle.shutdown().await;
    drop(first);
    bench.driver.processes.lock().clear();
    let _second = bench.agent().await;
    pass(1.0).await;
    assert_eq!(bench.driver.alive().len(), 1);
    assert_eq!(bench.report(WEB).await.client_status, ClientStatus::Running);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_refused_with_a_reason() {
    let bench = Bench::new(json!({"Tasks": [{"Name": "main"}]})).await;
    let _agent = bench.agent().await;
    let port = |allocation: &mut Allocation| {
        allocation.resources.shared.ports =
            vec![PortMapping { label: "http".into(), value: 80, ..PortMapping::default() }];
    };
    bench.assign(WEB, port).await;
    pass(1.0).await;
    bench.assign(2, port).await;
    bench.assign(3, |allocation| allocation.task_group = "nope".into()).await;
    pass(1.0).await;
    let refused = bench.report(2).await;
    assert_eq!(refused.client_status, ClientStatus::Failed);
    assert_eq!(refused.rejected, format!("port 80 is in use by allocation {}", id(WEB)));
    assert_eq!(bench.report(3).await.rejected, "job default/web has no group \"nope\"");
    // While the holder is leaving, a successor waits instead.
    bench.stop(WEB).await;
    bench.assign(4, port).await;
    pass(1.0).await;
    assert_eq!(bench.report(4).await.client_status, ClientStatus::Running);
}

#[tokio::test(start_paused = true)]
async fn a_replacement_waits_for_its_predecessor() {
    let bench = Bench::new(json!({"Tasks": [{"Name": "main", "Config": {"stop_takes": 3}}]})).await;
    let _agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(1.0).await;
    bench.stop(WEB).await;
    bench.assign(2, |allocation| allocation.previous = Some(id(WEB))).await;
    pass(1.0).await;
    let waiting = bench.report(2).await;
    assert_eq!((waiting.client_status, waiting.client_description.as_str()), (ClientStatus::Pending, ""));
    pass(3.0).await;
    assert_eq!(bench.report(2).await.client_status, ClientStatus::Running);
}

#[tokio::test(start_paused = true)]
async fn health_needs_running_tasks_and_passing_checks() {
    let bench = Bench::new(json!({
        "Update": {"HealthCheck": "checks", "MinHealthyTime": 10_000_000_000i64, "HealthyDeadline": 60_000_000_000i64},
        "Tasks": [{"Name": "main", "Services": [{"Name": "svc", "Checks": [{"Name": "alive"}]}]}],
    }))
    .await;
    let _agent = bench.agent().await;
    bench.assign(WEB, |allocation| allocation.deployment_id = Some(DeploymentId::from_random([5; 16]))).await;
    pass(20.0).await;
    assert_eq!(bench.report(WEB).await.deployment_status, None);
    *bench.hooks.checks_pass.lock() = true;
    pass(9.0).await;
    assert_eq!(bench.report(WEB).await.deployment_status, None);
    pass(2.0).await;
    assert_eq!(bench.report(WEB).await.deployment_status.unwrap().healthy, Some(true));
    // A new deployment decides anew.
    *bench.hooks.checks_pass.lock() = false;
    bench.assign(WEB, |allocation| allocation.deployment_id = Some(DeploymentId::from_random([6; 16]))).await;
    pass(30.0).await;
    assert_eq!(bench.report(WEB).await.deployment_status, None);
    pass(40.0).await;
    assert_eq!(bench.report(WEB).await.deployment_status.unwrap().healthy, Some(false));
    let last = bench.events("main").await.pop().unwrap();
    assert!(last.starts_with("Alloc Unhealthy: Task not running for min_healthy_time of 10s"), "{last}");
    assert_eq!(bench.driver.alive().len(), 1, "unhealthy, not stopped");
}

#[tokio::test(start_paused = true)]
async fn an_update_in_place_leaves_the_task_alone() {
    let bench = Bench::new(json!({"Tasks": [{"Name": "main"}]})).await;
    let agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(1.0).await;
    let processes = bench.driver.alive();
    bench.job("service", 1, json!({"Tasks": [{"Name": "main", "KillTimeout": 9_000_000_000i64, "Services": [{"Name": "new"}]}]})).await;
    bench.assign(WEB, |allocation| allocation.job_version = 1).await;
    pass(1.0).await;
    assert_eq!(bench.driver.alive(), processes);
    assert_eq!(bench.services().await, 1);
    assert_eq!(agent.tasks.job(id(WEB)).unwrap().version, 1);
    bench
        .assign(WEB, |allocation| {
            allocation.job_version = 1;
            allocation.desired_status = DesiredStatus::Stop;
        })
        .await;
    pass(1.0).await;
    assert!(
        bench
            .events("main")
            .await
            .contains(&"Killing: Sent interrupt. Waiting 9s before force killing".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn people_checks_and_templates_restart_and_signal_tasks() {
    let bench = Bench::new(json!({"Tasks": [
        {"Name": "main", "Templates": [{"EmbeddedTmpl": "x"}], "Services": [{"Name": "svc"}]},
    ]}))
    .await;
    let agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(1.0).await;
    agent.tasks.restart(id(WEB), None).unwrap();
    pass(1.0).await;
    assert_eq!(
        bench.events("main").await[3..],
        [
            "Restart Signaled: User requested task to restart",
            "Terminated: Exit Code: 130, Signal: 2",
            "Restarting: Task restarting in 0s",
            "Started: Task started by client",
        ]
    );
    agent.tasks.signal(id(WEB), None, "SIGHUP").await.unwrap();
    let changes = bench.hooks.changes.lock().clone().unwrap();
    changes.send(TemplateChange::Signal("SIGUSR1".into())).await.unwrap();
    pass(1.0).await;
    bench.driver.with("main", |process| assert_eq!(process.signals, ["SIGHUP", "SIGUSR1"]));
    let restarts = bench.hooks.restarts.lock().clone().unwrap();
    let reason = "healthcheck: check \"alive\" unhealthy".to_owned();
    restarts.send(CheckRestartRequest { task: "main".into(), reason }).await.unwrap();
    pass(1.0).await;
    let report = bench.report(WEB).await;
    assert_eq!(report.client_status, ClientStatus::Pending, "counted by the policy, which waits");
    assert!(matches!(agent.tasks.restart(id(WEB), Some("main")), Err(RequestError::NotRunning)));
    assert!(matches!(agent.tasks.restart(id(WEB), Some("x")), Err(RequestError::UnknownTask(_))));
    pass(20.0).await;
    changes.send(TemplateChange::Failed("Template failed: boom".into())).await.unwrap();
    pass(1.0).await;
    let report = bench.report(WEB).await;
    assert_eq!(report.client_status, ClientStatus::Failed);
    assert!(bench.events("main").await.contains(&"Killing: Template failed: boom".to_owned()));
    assert!(matches!(agent.tasks.restart(id(WEB), Some("main")), Err(RequestError::NotRunning)));
}

#[tokio::test(start_paused = true)]
async fn troubles_before_the_start_follow_the_policy() {
    let policy =
        json!({"Attempts": 1, "Interval": 60_000_000_000i64, "Delay": 1_000_000_000, "Mode": "fail"});
    for (task, expected) in [
        (
            json!({"Artifacts": [{"GetterSource": "http://missing"}]}),
            "Failed Artifact Download: cannot get http://missing",
        ),
        (json!({"Config": {"start_error": "no daemon"}}), "Driver Failure: no daemon"),
        (json!({"Config": {"nonsense": 1}}), "Failed Validation: unknown option nonsense"),
        (
            json!({"Config": {"args": ["${HOME}"]}}),
            "Failed Validation: 2 errors occurred:\n\t* failed to parse config: \n\t* Unknown variable: There is no variable named \"HOME\".\n\n",
        ),
    ] {
        let mut task = task;
        task["Name"] = json!("main");
        let bench = Bench::new(json!({"RestartPolicy": policy.clone(), "Tasks": [task]})).await;
        let _agent = bench.agent().await;
        bench.assign(WEB, |_| {}).await;
        pass(10.0).await;
        assert_eq!(bench.report(WEB).await.client_status, ClientStatus::Failed, "{expected}");
        let events = bench.events("main").await;
        assert!(events.contains(&expected.to_owned()), "{events:?}");
        let unrecoverable = expected.starts_with("Failed Validation");
        assert_eq!(
            events.contains(&"Not Restarting: Error was unrecoverable".to_owned()),
            unrecoverable,
            "{events:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn silence_of_the_cluster_stops_only_those_who_ask_for_it() {
    let group = json!({"StopAfterClientDisconnect": 30_000_000_000i64, "Tasks": [{"Name": "main"}]});
    let bench = Bench::new(group).await;
    let _agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(100.0).await;
    assert_eq!(bench.driver.alive().len(), 1);
}
