//! The calls of the protocol.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use herder::drivers::plugin::proto::grpc::health::v1 as health;
use herder::drivers::plugin::proto::hashicorp::nomad::plugins::base::proto as base;
use herder::drivers::plugin::proto::hashicorp::nomad::plugins::drivers::proto as driver;
use herder::drivers::plugin::proto::hashicorp::nomad::plugins::drivers::proto::network_isolation_spec::Mode;
use herder::drivers::plugin::proto::hashicorp::nomad::plugins::shared::hclspec;
use herder::drivers::plugin::proto::hashicorp::nomad::plugins::shared::structs;
use herder::drivers::plugin::proto::plugin as framework;
use herder::drivers::process::Process;
use herder::drivers::process::parse_signal;
use nix::sys::signal::Signal;
use nix::sys::signal::killpg;
use nix::unistd::Pid;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::broadcast;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::Streaming;

use crate::network;
use crate::watch::ARGUMENT;
use crate::watch::exit_file;
use crate::watch::pid_file;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

/// How often the health is looked at, and how long a process may take to appear.
const LOOK: Duration = Duration::from_millis(100);

/// The plugin. Clones are the same.
#[derive(Clone)]
pub struct Sample {
    name: String,
    makes_networks: bool,
    tasks: Arc<Mutex<BTreeMap<String, Task>>>,
    events: broadcast::Sender<driver::DriverTaskEvent>,
    unhealthy_file: Arc<Mutex<String>>,
    ended: watch::Sender<bool>,
}

#[derive(Clone)]
struct Task {
    config: driver::TaskConfig,
    /// Stays with the task.
    watcher: Process,
    /// Of the files that the watcher writes.
    prefix: PathBuf,
}

impl Sample {
    pub fn new(name: &str, makes_networks: bool) -> Self {
        Self {
            name: name.to_owned(),
            makes_networks,
            tasks: Arc::default(),
            events: broadcast::Sender::new(64),
            unhealthy_file: Arc::default(),
            ended: watch::Sender::new(false),
        }
    }

    /// Completes when the host wants the plugin to end.
    pub fn ended(&self) -> impl Future<Output = ()> + use<> {
        let mut ended = self.ended.subscribe();
        async move { drop(ended.wait_for(|ended| *ended).await) }
    }

    fn task(&self, id: &str) -> Result<Task, Status> {
        let found = self.tasks.lock().get(id).cloned();
        found.ok_or_else(|| Status::unknown("task not found for given id"))
    }

    fn tell(&self, task: &driver::TaskConfig, message: String) {
        // Nobody may be listening.
        let _ = self.events.send(driver::DriverTaskEvent {
            task_id: task.id.clone(),
            alloc_id: task.alloc_id.clone(),
            task_name: task.name.clone(),
            message,
            ..driver::DriverTaskEvent::default()
        });
    }
}

fn failed(error: impl std::fmt::Display) -> Status {
    Status::unknown(error.to_string())
}

fn text(value: &rmpv::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn read(options: &[u8]) -> Result<BTreeMap<String, rmpv::Value>, Status> {
    let value = rmpv::decode::read_value(&mut &*options).map_err(failed)?;
    let rmpv::Value::Map(pairs) = value else { return Err(failed("the configuration is not a map")) };
    let present = pairs.into_iter().filter(|(_, value)| !value.is_nil());
    Ok(present.map(|(name, value)| (text(&name), value)).collect())
}

/// A program, in the network of the task's group if that has one.
fn inside(config: &driver::TaskConfig, program: PathBuf) -> Command {
    match config.network_isolation_spec.as_ref().filter(|spec| !spec.path.is_empty()) {
        None => Command::new(program),
        Some(spec) => {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={}", spec.path)).arg(program);
            command
        }
    }
}

/// What the host has told about a task beside its options.
fn told(config: &driver::TaskConfig) -> Vec<(&'static str, String)> {
    let limits = config.resources.as_ref().and_then(|resources| resources.linux_resources.as_ref());
    let hosts = config.network_isolation_spec.as_ref().and_then(|spec| spec.hosts_config.as_ref());
    let servers = config.dns.as_ref().map(|dns| dns.servers.join(","));
    vec![
        ("SAMPLE_JOB", format!("{}/{}", config.job_id, config.job_name)),
        ("SAMPLE_NODE", config.node_id.clone()),
        ("SAMPLE_TICKS", limits.map(|limits| limits.percent_ticks.to_string()).unwrap_or_default()),
        ("SAMPLE_DNS", servers.unwrap_or_default()),
        (
            "SAMPLE_HOST",
            hosts.map(|hosts| format!("{} {}", hosts.hostname, hosts.address)).unwrap_or_default(),
        ),
    ]
}

impl Task {
    /// Starts the command below a watcher.
    fn start(config: driver::TaskConfig) -> Result<Self, Status> {
        let options = read(&config.msgpack_driver_config)?;
        let get = |name: &str| options.get(name).map(text).unwrap_or_default();
        let list =
            |name: &str| options.get(name).and_then(|value| value.as_array().cloned()).unwrap_or_default();
        let dir = PathBuf::from(&config.alloc_dir).join(&config.name);
        let prefix = dir.join(format!(".sample-{}", config.id.rsplit('/').next().unwrap_or_default()));
        let output = |path: &str| fs::OpenOptions::new().write(true).open(path).map_err(failed);
        let mut command = inside(&config, std::env::current_exe().map_err(failed)?);
        command.arg(ARGUMENT).arg(&prefix).arg(get("command")).args(list("args").iter().map(text));
        command.env_clear().envs(search_path()).envs(&config.env).env("SAMPLE_IMAGE", get("image"));
        command.envs(told(&config));
        for map in list("port_map") {
            let pairs = map.as_map().cloned().unwrap_or_default();
            command
                .envs(pairs.iter().map(|(label, port)| (format!("SAMPLE_PORT_{}", text(label)), text(port))));
        }
        command.current_dir(&dir).process_group(0).stdin(Stdio::null());
        command.stdout(output(&config.stdout_path)?).stderr(output(&config.stderr_path)?);
        let mut child = command.spawn().map_err(failed)?;
        let watcher = Process::of_pid(i32::try_from(child.id()).map_err(failed)?).map_err(failed)?;
        // Reaped when it ends; nothing else is done with it.
        std::thread::spawn(move || drop(child.wait()));
        Ok(Self { config, watcher, prefix })
    }

    /// Where others find the task, if its job says so.
    fn place(&self) -> Result<Option<driver::NetworkOverride>, Status> {
        let options = read(&self.config.msgpack_driver_config)?;
        let Some(address) = options.get("address").map(text) else { return Ok(None) };
        let maps = options.get("port_map").and_then(|maps| maps.as_array().cloned()).unwrap_or_default();
        let pairs = maps.iter().filter_map(|map| map.as_map()).flatten();
        let ports = pairs.filter_map(|(label, port)| Some((text(label), text(port).parse().ok()?)));
        let port_map = ports.collect();
        Ok(Some(driver::NetworkOverride { port_map, addr: address, auto_advertise: true }))
    }

    fn handle(&self) -> driver::TaskHandle {
        driver::TaskHandle {
            version: 1,
            config: Some(self.config.clone()),
            state: driver::TaskState::Running.into(),
            driver_state: serde_json::to_vec(&self.watcher).unwrap_or_default(),
        }
    }

    fn find(handle: driver::TaskHandle) -> Result<Self, Status> {
        let watcher = serde_json::from_slice(&handle.driver_state).map_err(failed)?;
        let config = handle.config.ok_or_else(|| failed("the handle has no configuration"))?;
        let dir = PathBuf::from(&config.alloc_dir).join(&config.name);
        let prefix = dir.join(format!(".sample-{}", config.id.rsplit('/').next().unwrap_or_default()));
        let task = Self { config, watcher, prefix };
        let known = watcher.exists() || exit_file(&task.prefix).exists();
        if known { Ok(task) } else { Err(failed("neither the task nor its end can be found")) }
    }

    /// The task's first process, once the watcher has started it.
    async fn pid(&self) -> Result<Pid, Status> {
        loop {
            if let Ok(text) = fs::read_to_string(pid_file(&self.prefix)) {
                return text.parse().map(Pid::from_raw).map_err(failed);
            }
            if !self.watcher.exists() {
                return Err(failed("the task could not be started"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn signal(&self, name: &str) -> Result<(), Status> {
        let signal = if name.is_empty() { Signal::SIGTERM } else { parse_signal(name).map_err(failed)? };
        killpg(self.pid().await?, signal).map_err(failed)
    }

    async fn end(&self) -> driver::ExitResult {
        let _ = self.watcher.ended().await;
        let text = fs::read_to_string(exit_file(&self.prefix)).unwrap_or_else(|_| "-1 0".to_owned());
        let (code, signal) = text.split_once(' ').unwrap_or(("-1", "0"));
        driver::ExitResult {
            exit_code: code.parse().unwrap_or(-1),
            signal: signal.parse().unwrap_or_default(),
            oom_killed: false,
        }
    }

    fn command(&self, command: &[String]) -> Result<tokio::process::Command, Status> {
        let (program, args) = command.split_first().ok_or_else(|| failed("no command"))?;
        let mut command = tokio::process::Command::new(program);
        command.args(args).env_clear().envs(search_path()).envs(&self.config.env).kill_on_drop(true);
        command.current_dir(PathBuf::from(&self.config.alloc_dir).join(&self.config.name));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }
}

/// Where programs are, unless the job says it. Tasks of plugins get nothing of the agent's environment: an image would
/// have a search path of its own, and this driver's image is the machine.
fn search_path() -> Option<(&'static str, std::ffi::OsString)> {
    std::env::var_os("PATH").map(|path| ("PATH", path))
}

fn attr(kind: &str, required: bool) -> hclspec::Spec {
    let attr = hclspec::Attr { name: String::new(), r#type: kind.to_owned(), required };
    hclspec::Spec { kind: Some(hclspec::spec::Kind::Attr(attr)) }
}

fn object(fields: &[(&str, &str, bool)]) -> hclspec::Spec {
    let fields = fields.iter().map(|(name, kind, required)| ((*name).to_owned(), attr(kind, *required)));
    let object = hclspec::Object { attributes: fields.collect() };
    hclspec::Spec { kind: Some(hclspec::spec::Kind::Object(object)) }
}

#[tonic::async_trait]
impl health::health_server::Health for Sample {
    async fn check(&self, _: Request<health::HealthCheckRequest>) -> Answer<health::HealthCheckResponse> {
        let status = health::health_check_response::ServingStatus::Serving.into();
        Ok(Response::new(health::HealthCheckResponse { status }))
    }
}

#[tonic::async_trait]
impl framework::grpc_controller_server::GrpcController for Sample {
    async fn shutdown(&self, _: Request<framework::Nothing>) -> Answer<framework::Nothing> {
        self.ended.send_replace(true);
        Ok(Response::new(framework::Nothing {}))
    }
}

#[tonic::async_trait]
impl base::base_plugin_server::BasePlugin for Sample {
    async fn plugin_info(&self, _: Request<base::PluginInfoRequest>) -> Answer<base::PluginInfoResponse> {
        Ok(Response::new(base::PluginInfoResponse {
            r#type: base::PluginType::Driver.into(),
            plugin_api_versions: vec!["v0.1.0".to_owned()],
            plugin_version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.name.clone(),
        }))
    }

    async fn config_schema(
        &self,
        _: Request<base::ConfigSchemaRequest>,
    ) -> Answer<base::ConfigSchemaResponse> {
        let spec = Some(object(&[("unhealthy_file", "string", false)]));
        Ok(Response::new(base::ConfigSchemaResponse { spec }))
    }

    async fn set_config(&self, request: Request<base::SetConfigRequest>) -> Answer<base::SetConfigResponse> {
        let options = read(&request.into_inner().msgpack_config)?;
        *self.unhealthy_file.lock() = options.get("unhealthy_file").map(text).unwrap_or_default();
        Ok(Response::new(base::SetConfigResponse {}))
    }
}

#[tonic::async_trait]
impl driver::driver_server::Driver for Sample {
    type FingerprintStream = Answers<driver::FingerprintResponse>;
    type TaskStatsStream = Answers<driver::TaskStatsResponse>;
    type TaskEventsStream = Answers<driver::DriverTaskEvent>;
    type ExecTaskStreamingStream = Answers<driver::ExecTaskStreamingResponse>;

    async fn task_config_schema(
        &self,
        _: Request<driver::TaskConfigSchemaRequest>,
    ) -> Answer<driver::TaskConfigSchemaResponse> {
        let spec = Some(object(&[
            ("command", "string", true),
            ("args", "list(string)", false),
            ("image", "string", false),
            ("pot", "string", false),
            ("tag", "string", false),
            ("network_mode", "string", false),
            ("port_map", "list(map(string))", false),
            ("mount", "list(string)", false),
            ("copy", "list(string)", false),
            ("address", "string", false),
        ]));
        Ok(Response::new(driver::TaskConfigSchemaResponse { spec }))
    }

    async fn capabilities(
        &self,
        _: Request<driver::CapabilitiesRequest>,
    ) -> Answer<driver::CapabilitiesResponse> {
        let capabilities = driver::DriverCapabilities {
            send_signals: true,
            exec: true,
            network_isolation_modes: [Mode::Host, Mode::Group].map(Into::into).into(),
            must_create_network: self.makes_networks,
            // Tasks see the host's files as they are: there is nowhere to mount anything.
            mount_configs: driver::driver_capabilities::MountConfigs::NoMounts.into(),
            ..driver::DriverCapabilities::default()
        };
        Ok(Response::new(driver::CapabilitiesResponse { capabilities: Some(capabilities) }))
    }

    async fn fingerprint(&self, _: Request<driver::FingerprintRequest>) -> Answer<Self::FingerprintStream> {
        let (answers, seen) = mpsc::channel(1);
        let (name, file) = (self.name.clone(), self.unhealthy_file.lock().clone());
        tokio::spawn(async move {
            let mut told = None;
            while !answers.is_closed() {
                let healthy = file.is_empty() || !fs::exists(&file).unwrap_or(false);
                if told.replace(healthy) != Some(healthy) {
                    // The host may be gone; the loop then ends.
                    let _ = answers.send(Ok(health_of(&name, healthy, &file))).await;
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(seen))))
    }

    async fn recover_task(
        &self,
        request: Request<driver::RecoverTaskRequest>,
    ) -> Answer<driver::RecoverTaskResponse> {
        let request = request.into_inner();
        let task = Task::find(request.handle.ok_or_else(|| failed("no handle"))?)?;
        self.tasks.lock().insert(request.task_id, task);
        Ok(Response::new(driver::RecoverTaskResponse {}))
    }

    async fn start_task(
        &self,
        request: Request<driver::StartTaskRequest>,
    ) -> Answer<driver::StartTaskResponse> {
        let config = request.into_inner().task.ok_or_else(|| failed("no task"))?;
        self.tell(&config, format!("The driver {:?} starts a process", self.name));
        let id = config.id.clone();
        let started = Task::start(config);
        // Not before the process runs, so that a command that does not exist is the start's failure.
        let running = match &started {
            Ok(task) => task.pid().await.map(drop),
            Err(status) => Err(status.clone()),
        };
        let answer = match (started, running) {
            (Ok(task), Ok(())) => {
                let (handle, network_override) = (Some(task.handle()), task.place()?);
                self.tasks.lock().insert(id, task);
                driver::StartTaskResponse { handle, network_override, ..driver::StartTaskResponse::default() }
            }
            (_, failure) => driver::StartTaskResponse {
                result: driver::start_task_response::Result::Fatal.into(),
                driver_error_msg: failure.err().map(|status| status.message().to_owned()).unwrap_or_default(),
                ..driver::StartTaskResponse::default()
            },
        };
        Ok(Response::new(answer))
    }

    async fn wait_task(&self, request: Request<driver::WaitTaskRequest>) -> Answer<driver::WaitTaskResponse> {
        let result = Some(self.task(&request.into_inner().task_id)?.end().await);
        Ok(Response::new(driver::WaitTaskResponse { result, err: String::new() }))
    }

    async fn stop_task(&self, request: Request<driver::StopTaskRequest>) -> Answer<driver::StopTaskResponse> {
        let request = request.into_inner();
        let task = self.task(&request.task_id)?;
        // One that has ended cannot be signalled.
        let _ = task.signal(&request.signal).await;
        let timeout = request.timeout.and_then(|span| Duration::try_from(span).ok()).unwrap_or_default();
        if tokio::time::timeout(timeout, task.end()).await.is_err() {
            let _ = task.signal("SIGKILL").await;
            task.end().await;
        }
        Ok(Response::new(driver::StopTaskResponse {}))
    }

    async fn destroy_task(
        &self,
        request: Request<driver::DestroyTaskRequest>,
    ) -> Answer<driver::DestroyTaskResponse> {
        let request = request.into_inner();
        let task = self.task(&request.task_id)?;
        if task.watcher.exists() {
            if !request.force {
                return Err(failed("the task still runs"));
            }
            let _ = task.signal("SIGKILL").await;
            task.end().await;
        }
        for file in [pid_file(&task.prefix), exit_file(&task.prefix)] {
            let _ = fs::remove_file(file);
        }
        self.tasks.lock().remove(&request.task_id);
        Ok(Response::new(driver::DestroyTaskResponse {}))
    }

    async fn inspect_task(
        &self,
        request: Request<driver::InspectTaskRequest>,
    ) -> Answer<driver::InspectTaskResponse> {
        let task = self.task(&request.into_inner().task_id)?;
        let runs = task.watcher.exists();
        let state = if runs { driver::TaskState::Running } else { driver::TaskState::Exited };
        let status = driver::TaskStatus {
            id: task.config.id.clone(),
            name: task.config.name.clone(),
            state: state.into(),
            result: if runs { None } else { Some(task.end().await) },
            ..driver::TaskStatus::default()
        };
        let network_override = task.place()?;
        Ok(Response::new(driver::InspectTaskResponse {
            task: Some(status),
            network_override,
            ..Default::default()
        }))
    }

    async fn task_stats(&self, request: Request<driver::TaskStatsRequest>) -> Answer<Self::TaskStatsStream> {
        let request = request.into_inner();
        let task = self.task(&request.task_id)?;
        let pid = task.pid().await?;
        let period = request.collection_interval.and_then(|span| Duration::try_from(span).ok());
        let ticks = tokio::time::interval(period.unwrap_or(LOOK).max(LOOK));
        let stats = tokio_stream::wrappers::IntervalStream::new(ticks)
            .map(move |_| Ok(stats_of(&request.task_id, pid)))
            .take_while(move |_| task.watcher.exists());
        Ok(Response::new(Box::pin(stats)))
    }

    async fn task_events(&self, _: Request<driver::TaskEventsRequest>) -> Answer<Self::TaskEventsStream> {
        let events = BroadcastStream::new(self.events.subscribe());
        Ok(Response::new(Box::pin(events.filter_map(Result::ok).map(Ok))))
    }

    async fn signal_task(
        &self,
        request: Request<driver::SignalTaskRequest>,
    ) -> Answer<driver::SignalTaskResponse> {
        let request = request.into_inner();
        self.task(&request.task_id)?.signal(&request.signal).await?;
        Ok(Response::new(driver::SignalTaskResponse {}))
    }

    async fn exec_task(&self, request: Request<driver::ExecTaskRequest>) -> Answer<driver::ExecTaskResponse> {
        let request = request.into_inner();
        let mut command = self.task(&request.task_id)?.command(&request.command)?;
        let output = command.stdin(Stdio::null()).output();
        let timeout = request.timeout.and_then(|span| Duration::try_from(span).ok());
        let output = match timeout.filter(|timeout| !timeout.is_zero()) {
            Some(timeout) => tokio::time::timeout(timeout, output).await.map_err(failed)?,
            None => output.await,
        };
        let output = output.map_err(failed)?;
        let result = Some(result_of(output.status));
        Ok(Response::new(driver::ExecTaskResponse { stdout: output.stdout, stderr: output.stderr, result }))
    }

    async fn exec_task_streaming(
        &self,
        request: Request<Streaming<driver::ExecTaskStreamingRequest>>,
    ) -> Answer<Self::ExecTaskStreamingStream> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|first| first.setup);
        let setup = first.ok_or_else(|| failed("the first message must say what to run"))?;
        if setup.tty {
            return Err(Status::unimplemented("the sample driver has no terminals"));
        }
        let mut child = self.task(&setup.task_id)?.command(&setup.command)?.spawn().map_err(failed)?;
        let (answers, seen) = mpsc::channel(16);
        let stdin = child.stdin.take();
        tokio::spawn(async move {
            let mut stdin = stdin;
            while let Ok(Some(request)) = requests.message().await {
                let Some(part) = request.stdin else { continue };
                if let Some(pipe) = &mut stdin {
                    let _ = pipe.write_all(&part.data).await;
                }
                if part.close {
                    stdin = None;
                }
            }
        });
        let part = |data: &[u8], close| Some(driver::StreamPart { data: data.to_vec(), close });
        let out = pump(child.stdout.take(), answers.clone(), move |data, close| {
            driver::ExecTaskStreamingResponse { stdout: part(data, close), ..Default::default() }
        });
        let err = pump(child.stderr.take(), answers.clone(), move |data, close| {
            driver::ExecTaskStreamingResponse { stderr: part(data, close), ..Default::default() }
        });
        tokio::spawn(async move {
            tokio::join!(out, err);
            let result = child.wait().await.ok().map(result_of);
            let last = driver::ExecTaskStreamingResponse { exited: true, result, ..Default::default() };
            let _ = answers.send(Ok(last)).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(seen))))
    }

    async fn create_network(
        &self,
        request: Request<driver::CreateNetworkRequest>,
    ) -> Answer<driver::CreateNetworkResponse> {
        let spec = network::make(&request.into_inner().hostname).await?;
        Ok(Response::new(driver::CreateNetworkResponse { isolation_spec: Some(spec), created: true }))
    }

    async fn destroy_network(
        &self,
        request: Request<driver::DestroyNetworkRequest>,
    ) -> Answer<driver::DestroyNetworkResponse> {
        network::remove(&request.into_inner().isolation_spec.unwrap_or_default())?;
        Ok(Response::new(driver::DestroyNetworkResponse {}))
    }
}

fn health_of(name: &str, healthy: bool, file: &str) -> driver::FingerprintResponse {
    use driver::fingerprint_response::HealthState;
    let version = structs::Attribute {
        unit: String::new(),
        value: Some(structs::attribute::Value::StringVal(env!("CARGO_PKG_VERSION").to_owned())),
    };
    let (health, description) = if healthy {
        (HealthState::Healthy, "Healthy".to_owned())
    } else {
        (HealthState::Unhealthy, format!("the file {file} exists"))
    };
    driver::FingerprintResponse {
        attributes: [(format!("driver.{name}.version"), version)].into(),
        health: health.into(),
        health_description: description,
    }
}

fn stats_of(id: &str, pid: Pid) -> driver::TaskStatsResponse {
    let pages = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let resident = pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    let memory = driver::MemoryUsage {
        rss: resident * 4096,
        measured_fields: vec![driver::memory_usage::Fields::Rss.into()],
        ..driver::MemoryUsage::default()
    };
    let usage = driver::TaskResourceUsage { cpu: None, memory: Some(memory) };
    driver::TaskStatsResponse {
        stats: Some(driver::TaskStats {
            id: id.to_owned(),
            timestamp: None,
            agg_resource_usage: Some(usage.clone()),
            resource_usage_by_pid: [(pid.to_string(), usage)].into(),
        }),
    }
}

fn result_of(status: std::process::ExitStatus) -> driver::ExitResult {
    use std::os::unix::process::ExitStatusExt;
    let signal = status.signal().unwrap_or_default();
    driver::ExitResult { exit_code: status.code().unwrap_or(128 + signal), signal, oom_killed: false }
}

/// Sends on what a process writes, and that it has closed its end.
async fn pump(
    from: Option<impl tokio::io::AsyncRead + Unpin>,
    answers: mpsc::Sender<Result<driver::ExecTaskStreamingResponse, Status>>,
    wrap: impl Fn(&[u8], bool) -> driver::ExecTaskStreamingResponse,
) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 4096];
    loop {
        let len = from.read(&mut buffer).await.unwrap_or(0);
        // Nobody listens any more when this fails, and the process ends with the last sender.
        if answers.send(Ok(wrap(&buffer[..len], len == 0))).await.is_err() || len == 0 {
            return;
        }
    }
}
