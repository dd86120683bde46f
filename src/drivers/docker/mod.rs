//! `docker`: containers, through Docker's own API.

mod config;
mod logs;
mod network;
mod pause;
mod session;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bollard::API_DEFAULT_VERSION;
use bollard::Docker as Client;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::CreateExecOptions;
use bollard::exec::StartExecResults;
use bollard::models::ContainerInspectResponse;
use bollard::models::ContainerStatsResponse;
use bollard::query_parameters::CreateContainerOptionsBuilder;
use bollard::query_parameters::CreateImageOptionsBuilder;
use bollard::query_parameters::InspectContainerOptions;
use bollard::query_parameters::KillContainerOptionsBuilder;
use bollard::query_parameters::RemoveContainerOptionsBuilder;
use bollard::query_parameters::StartContainerOptions;
use bollard::query_parameters::StatsOptionsBuilder;
use bollard::query_parameters::WaitContainerOptionsBuilder;
use futures::StreamExt;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::model::id::AllocId;
use crate::model::node::DriverInfo;

use self::config::ALLOC_LABEL;
use self::config::RUN_LABEL;
use self::logs::Follower;
use super::Driver;
use super::DriverError;
use super::ExitStatus;
use super::Progress;
use super::Started;
use super::TaskConfig;
use super::TaskHandle;
use super::TaskId;
use super::TaskStats;
use super::logs::LogFiles;
use super::options::Options;
use super::process::parse_signal;
use super::refuse;
use super::session::ExecRequest;
use super::session::ExecSession;

/// For answers that Docker gives at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// For requests as a whole; seconds.
const REQUEST_LIMIT: u64 = 120;
const PULL_LIMIT: Duration = Duration::from_secs(300);
/// After which a follower that should have ended by itself is given up.
const LOG_LIMIT: Duration = Duration::from_secs(5);
/// How long a killed container may take to vanish.
const KILL_LIMIT: Duration = Duration::from_secs(30);
/// Between tries to reach a Docker that went away.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
const MAX_OUTPUT: usize = 1 << 20;

/// What the agent's configuration says about Docker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerOptions {
    /// `unix:///var/run/docker.sock`.
    pub endpoint: String,
    /// May tasks mount directories of the host?
    pub volumes_enabled: bool,
    pub allow_privileged: bool,
    /// Names without `CAP_`, lower case.
    pub allowed_capabilities: Vec<String>,
    pub pids_limit: Option<u32>,
    /// MHz of the whole machine, of which `cpu_hard_limit` is a share; 0 if unknown.
    pub total_mhz: i64,
}

impl Default for DockerOptions {
    fn default() -> Self {
        Self {
            endpoint: "unix:///var/run/docker.sock".to_owned(),
            volumes_enabled: false,
            allow_privileged: false,
            allowed_capabilities: super::exec::DEFAULT_CAPABILITIES
                .iter()
                .map(|&name| name.to_owned())
                .collect(),
            pids_limit: None,
            total_mhz: 0,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Docker {
    options: DockerOptions,
    followers: Mutex<BTreeMap<TaskId, JoinHandle<()>>>,
    /// Held while the container is made that holds a namespace.
    holding: tokio::sync::Mutex<()>,
}

/// What the handle of a container remembers.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    container: String,
    kill_signal: String,
    logs: Option<LogFiles>,
    /// Where the log position is stored.
    position_file: PathBuf,
}

fn state_of(handle: &TaskHandle) -> Result<State, DriverError> {
    serde_json::from_value(handle.state.clone()).map_err(|error| {
        DriverError::Fatal(format!("task handle of {} is unreadable: {error}", handle.id.task))
    })
}

/// The words of Docker without those of the client.
fn words(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => format!("Error response from daemon: {message}"),
        other => other.to_string(),
    }
}

fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

fn recoverable(error: Error) -> DriverError {
    match status(&error) {
        Some(404) => DriverError::NotFound,
        _ => DriverError::Recoverable(words(&error)),
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        for follower in std::mem::take(&mut *self.followers.lock()).into_values() {
            follower.abort();
        }
    }
}

impl Docker {
    /// Contacts nobody yet.
    pub fn new(options: DockerOptions) -> Self {
        Self { options, followers: Mutex::default(), holding: tokio::sync::Mutex::default() }
    }

    fn client(&self) -> Result<Client, DriverError> {
        let path = config::socket_path(&self.options.endpoint).display().to_string();
        Client::connect_with_unix(&path, REQUEST_LIMIT, API_DEFAULT_VERSION)
            .map_err(|error| DriverError::Recoverable(format!("Failed to connect to docker daemon: {error}")))
    }

    async fn inspect(&self, container: &str) -> Result<ContainerInspectResponse, DriverError> {
        self.client()?
            .inspect_container(container, None::<InspectContainerOptions>)
            .await
            .map_err(recoverable)
    }

    /// Makes the image available.
    async fn image(&self, task: &TaskConfig, progress: &Progress) -> Result<(), DriverError> {
        let client = self.client()?;
        let image = config::image_of(&task.config);
        let present = match client.inspect_image(&image).await {
            Ok(_) => true,
            Err(error) if status(&error) == Some(404) => false,
            Err(error) => {
                return Err(DriverError::Recoverable(format!(
                    "Failed to connect to docker daemon: {}",
                    words(&error)
                )));
            }
        };
        if present && !task.config.switch("force_pull") {
            return Ok(());
        }
        progress("Downloading image");
        let wanted = crate::model::time::Span::parse(&task.config.text("image_pull_timeout")).ok();
        let limit = wanted.map(|span| span.to_std()).filter(|limit| !limit.is_zero()).unwrap_or(PULL_LIMIT);
        let pulled = tokio::time::timeout(limit, self.pull(&client, &image, task)).await;
        let why = match pulled {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => why,
            Err(_) => format!("timed out after {limit:?}"),
        };
        Err(DriverError::Recoverable(format!("Failed to pull `{image}`: {why}")))
    }

    async fn pull(&self, client: &Client, image: &str, task: &TaskConfig) -> Result<(), String> {
        let options = CreateImageOptionsBuilder::default().from_image(image).build();
        let credentials = config::credentials(&task.config);
        let mut stream = Box::pin(client.create_image(Some(options), None, credentials));
        while let Some(step) = stream.next().await {
            let step = step.map_err(|error| words(&error))?;
            if let Some(error) = step.error_detail {
                return Err(error.message.unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Creates the container, or finds the one that an agent made for this very run before it died.
    async fn create(&self, task: &TaskConfig) -> Result<String, DriverError> {
        let client = self.client()?;
        let name = config::container_name(task);
        let mut body = config::container(&self.options, task).map_err(DriverError::Fatal)?;
        network::adapt(&mut body, task)?;
        for attempt in 0..2 {
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            let error = match client.create_container(Some(options), body.clone()).await {
                Ok(created) => return Ok(created.id),
                Err(error) => error,
            };
            if status(&error) != Some(409) || attempt > 0 {
                let image = config::image_of(&task.config);
                let text = format!(
                    "Failed to create container configuration for image {image:?}: {}",
                    words(&error)
                );
                return Err(DriverError::Recoverable(text));
            }
            // The name is taken, by this run or by an earlier one.
            let found = self.inspect(&name).await?;
            let label = |key: &str| found.config.as_ref()?.labels.as_ref()?.get(key).cloned();
            let running = found.state.as_ref().and_then(|state| state.running) == Some(true);
            let same = label(RUN_LABEL) == Some(task.id.run.to_string());
            if label(ALLOC_LABEL).is_none() {
                return Err(DriverError::Fatal(format!("a container named {name} exists that is not ours")));
            }
            if running && same {
                return Ok(found.id.unwrap_or(name));
            }
            self.discard(&name).await?;
        }
        Err(DriverError::Recoverable(format!("container {name} cannot be created")))
    }

    async fn discard(&self, container: &str) -> Result<(), DriverError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.client()?.remove_container(container, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(404) => Ok(()),
            // Somebody else is removing it already.
            Err(error) if status(&error) == Some(409) => Ok(()),
            Err(error) => Err(recoverable(error)),
        }
    }

    /// Begins to copy the output, unless that is being done already.
    fn follow(&self, handle: &TaskHandle, state: &State) -> Result<(), DriverError> {
        let Some(files) = &state.logs else { return Ok(()) };
        let mut followers = self.followers.lock();
        if followers.get(&handle.id).is_some_and(|follower| !follower.is_finished()) {
            return Ok(());
        }
        let client = self.client()?;
        let mut follower = Follower::open(client, &state.container, files, &state.position_file)
            .map_err(|error| DriverError::Recoverable(format!("cannot open log files: {error}")))?;
        let docker = self.client()?;
        let container = state.container.clone();
        let work = tokio::spawn(async move {
            loop {
                follower.run().await;
                let found = docker.inspect_container(&container, None::<InspectContainerOptions>).await;
                match found.map(|found| found.state.and_then(|state| state.running)) {
                    Ok(Some(true)) => {}
                    Ok(_) => return,
                    Err(error) if status(&error) == Some(404) => return,
                    Err(_) => {}
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        });
        followers.insert(handle.id.clone(), work);
        Ok(())
    }

    /// Waits until the output has been copied completely.
    async fn finish_logs(&self, id: &TaskId) {
        let follower = self.followers.lock().remove(id);
        if let Some(mut follower) = follower
            && tokio::time::timeout(LOG_LIMIT, &mut follower).await.is_err()
        {
            follower.abort();
        }
    }

    /// Waits until the container does not run any more. Survives a restart of Docker.
    async fn not_running(&self, container: &str) -> Result<ContainerInspectResponse, DriverError> {
        loop {
            let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
            if let Ok(client) = self.client() {
                // Whatever it says: the state that is looked up afterwards is what counts.
                let _ = Box::pin(client.wait_container(container, Some(options))).next().await;
            }
            match self.inspect(container).await {
                Ok(found) if found.state.as_ref().and_then(|state| state.running) != Some(true) => {
                    return Ok(found);
                }
                Err(DriverError::NotFound) => return Err(DriverError::NotFound),
                Ok(_) | Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
            }
        }
    }

    async fn kill(&self, container: &str, signal: &str) -> Result<(), DriverError> {
        let options = KillContainerOptionsBuilder::default().signal(signal).build();
        match self.client()?.kill_container(container, Some(options)).await {
            Ok(()) => Ok(()),
            // It has ended in the meantime.
            Err(error) if matches!(status(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(recoverable(error)),
        }
    }
}

/// Docker's figures; their names depend on the version of control groups.
fn usage(found: ContainerStatsResponse, pid: Option<i32>) -> TaskStats {
    let cpu = found.cpu_stats.unwrap_or_default();
    let time = cpu.cpu_usage.unwrap_or_default();
    let throttling = cpu.throttling_data.unwrap_or_default();
    let memory = found.memory_stats.unwrap_or_default();
    let details = memory.stats.unwrap_or_default();
    let detail = |names: [&str; 2]| names.iter().find_map(|name| details.get(*name).copied());
    TaskStats {
        cpu_time_ns: time.total_usage.unwrap_or(0),
        user_ns: time.usage_in_usermode,
        system_ns: time.usage_in_kernelmode,
        throttled_periods: throttling.throttled_periods,
        throttled_ns: throttling.throttled_time,
        rss_bytes: detail(["rss", "anon"]).or(memory.usage).unwrap_or(0),
        cache_bytes: detail(["cache", "file"]),
        swap_bytes: details.get("swap").copied(),
        usage_bytes: memory.usage,
        max_usage_bytes: memory.max_usage,
        pids: pid.into_iter().collect(),
        ..TaskStats::default()
    }
}

/// The first address of the container's networks.
fn address(found: &ContainerInspectResponse) -> Option<String> {
    let networks = found.network_settings.as_ref()?.networks.as_ref()?;
    let sorted: BTreeMap<_, _> = networks.iter().collect();
    sorted.values().find_map(|network| network.ip_address.clone().filter(|ip| !ip.is_empty()))
}

#[async_trait]
impl Driver for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn sets_hostname(&self) -> bool {
        true
    }

    async fn leave_network(&self, alloc: AllocId) -> Result<(), DriverError> {
        if !config::socket_path(&self.options.endpoint).exists() {
            // Without Docker nothing of it can be left.
            return Ok(());
        }
        self.discard(&network::holder(alloc)).await
    }

    async fn fingerprint(&self) -> DriverInfo {
        let asked = async { self.client().ok()?.info().await.ok() };
        let Ok(Some(info)) = tokio::time::timeout(ANSWER_LIMIT, asked).await else {
            return super::undetected("Failed to connect to docker daemon");
        };
        let mut attributes = BTreeMap::new();
        let mut set = |name: &str, value: String| attributes.insert(format!("driver.docker.{name}"), value);
        set("version", info.server_version.unwrap_or_default());
        set("os_type", info.os_type.unwrap_or_else(|| "linux".to_owned()));
        let mut runtimes: Vec<String> = info.runtimes.unwrap_or_default().into_keys().collect();
        runtimes.sort();
        set("runtimes", runtimes.join(","));
        set("volumes.enabled", self.options.volumes_enabled.to_string());
        set("privileged.enabled", self.options.allow_privileged.to_string());
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        if let Some(bridge) = interfaces.iter().find(|one| one.name == "docker0" && one.ip().is_ipv4()) {
            set("bridge_ip", bridge.ip().to_string());
        }
        super::healthy("docker", attributes)
    }

    fn mounts_volumes(&self) -> bool {
        true
    }

    fn validate(&self, config: &Map<String, Value>) -> Vec<String> {
        config::validate(&self.options, config)
    }

    async fn start(
        &self,
        task: &TaskConfig,
        progress: Progress,
    ) -> Result<(TaskHandle, Started), DriverError> {
        refuse(self.validate(&task.config))?;
        self.image(task, &progress).await?;
        self.hold_network(task).await?;
        let container = self.create(task).await?;
        if let Err(error) = self.client()?.start_container(&container, None::<StartContainerOptions>).await {
            let _ = self.discard(&container).await;
            let text = format!("Failed to start container {container}: {}", words(&error));
            return Err(match status(&error) {
                Some(_) => DriverError::Fatal(text),
                None => DriverError::Recoverable(text),
            });
        }
        if let Err(error) = self.check_network(task, &container).await {
            let _ = self.discard(&container).await;
            return Err(error);
        }
        let state = State {
            logs: LogFiles::new(&task.dirs.logs, &task.id.task, &task.logs),
            position_file: task.dirs.private.join(format!("{}.logs", task.id.run)),
            kill_signal: task.kill_signal.clone(),
            container,
        };
        let value = serde_json::to_value(&state).map_err(|error| DriverError::Fatal(error.to_string()))?;
        let handle = TaskHandle { driver: self.name().to_owned(), id: task.id.clone(), state: value };
        self.follow(&handle, &state)?;
        let found = self.inspect(&state.container).await?;
        Ok((handle, Started { address: address(&found) }))
    }

    async fn recover(&self, handle: &TaskHandle) -> Result<Started, DriverError> {
        let state = state_of(handle)?;
        let found = self.inspect(&state.container).await?;
        self.follow(handle, &state)?;
        Ok(Started { address: address(&found) })
    }

    async fn wait(&self, handle: &TaskHandle) -> Result<ExitStatus, DriverError> {
        let found = self.not_running(&state_of(handle)?.container).await?;
        self.finish_logs(&handle.id).await;
        let state = found.state.unwrap_or_default();
        let code = state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(-1);
        let oom_killed = state.oom_killed == Some(true);
        let message = match (oom_killed, code) {
            (true, _) => "OOM Killed".to_owned(),
            (false, 0) => String::new(),
            (false, code) => format!("Docker container exited with non-zero exit code: {code}"),
        };
        Ok(ExitStatus { code, signal: 0, oom_killed, message })
    }

    async fn signal(&self, handle: &TaskHandle, signal: &str) -> Result<(), DriverError> {
        let signal = parse_signal(signal)?;
        self.kill(&state_of(handle)?.container, signal.as_str()).await
    }

    async fn stop(&self, handle: &TaskHandle, signal: &str, timeout: Duration) -> Result<(), DriverError> {
        let state = state_of(handle)?;
        let found = match self.inspect(&state.container).await {
            Err(DriverError::NotFound) => return Ok(()),
            found => found?,
        };
        let of_image = found.config.and_then(|config| config.stop_signal).unwrap_or_default();
        let wanted = [signal, &state.kill_signal, &of_image].into_iter().find(|name| !name.is_empty());
        self.kill(&state.container, wanted.unwrap_or("SIGTERM")).await?;
        let waited = tokio::time::timeout(timeout, self.not_running(&state.container)).await;
        let ended = match waited {
            Ok(ended) => ended,
            Err(_) => {
                self.kill(&state.container, "SIGKILL").await?;
                let waited = tokio::time::timeout(KILL_LIMIT, self.not_running(&state.container)).await;
                let stuck =
                    || DriverError::Recoverable(format!("container {} cannot be killed", state.container));
                waited.map_err(|_| stuck())?
            }
        };
        match ended {
            Ok(_) | Err(DriverError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn remove(&self, handle: &TaskHandle) -> Result<(), DriverError> {
        let state = state_of(handle)?;
        self.discard(&state.container).await?;
        self.finish_logs(&handle.id).await;
        let _ = std::fs::remove_file(&state.position_file);
        Ok(())
    }

    async fn stats(&self, handle: &TaskHandle) -> Result<TaskStats, DriverError> {
        let container = state_of(handle)?.container;
        let client = self.client()?;
        let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        let stats =
            Box::pin(client.stats(&container, Some(options))).next().await.ok_or(DriverError::NotFound)?;
        let stats = stats.map_err(recoverable)?;
        let pid = self.inspect(&container).await?.state.and_then(|state| state.pid);
        Ok(usage(stats, pid.and_then(|pid| i32::try_from(pid).ok())))
    }

    async fn exec(
        &self,
        handle: &TaskHandle,
        command: &[String],
        timeout: Duration,
    ) -> Result<(i32, Vec<u8>), DriverError> {
        let container = state_of(handle)?.container;
        let client = self.client()?;
        let run = async {
            let options = CreateExecOptions {
                cmd: Some(command.to_vec()),
                attach_stdout: Some(true),
                attach_stderr: Some(true),
                ..CreateExecOptions::default()
            };
            let exec = client.create_exec(&container, options).await.map_err(recoverable)?;
            let mut output = Vec::new();
            let begun = client.start_exec(&exec.id, None).await.map_err(recoverable)?;
            if let StartExecResults::Attached { output: mut stream, .. } = begun {
                while let Some(Ok(part)) = stream.next().await {
                    let part = LogOutput::into_bytes(part);
                    let room = MAX_OUTPUT - output.len();
                    output.extend_from_slice(&part[..part.len().min(room)]);
                }
            }
            let code = client.inspect_exec(&exec.id).await.map_err(recoverable)?.exit_code;
            Ok((code.and_then(|code| i32::try_from(code).ok()).unwrap_or(-1), output))
        };
        let late = |_| DriverError::Recoverable(format!("command did not end within {timeout:?}"));
        tokio::time::timeout(timeout, run).await.map_err(late)?
    }

    async fn session(&self, handle: &TaskHandle, request: &ExecRequest) -> Result<ExecSession, DriverError> {
        session::start(self.client()?, &state_of(handle)?.container, request).await
    }
}
