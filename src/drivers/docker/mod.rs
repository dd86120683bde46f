//! `docker`: containers, through Docker's own API.

mod archive;
mod auth;
mod check;
mod config;
mod connection;
mod cores;
mod dangling;
mod health;
mod images;
mod logs;
mod network;
mod options;
mod pause;
mod session;
mod view;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker as Client;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::CreateExecOptions;
use bollard::exec::StartExecResults;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::CreateContainerOptionsBuilder;
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
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use crate::model::id::AllocId;
use crate::model::node::DriverInfo;

use self::config::ALLOC_LABEL;
use self::config::RUN_LABEL;
use self::connection::Connection;
pub use self::connection::TlsFiles;
use self::cores::CoreKeeper;
use self::dangling::Known;
use self::health::Health;
use self::images::Held;
use self::images::Images;
use self::images::Pull;
use self::logs::Follower;
pub use self::options::DockerOptions;
pub use self::options::GcOptions;
pub use self::options::Logging;
use super::Driver;
use super::DriverError;
use super::ExitStatus;
use super::Progress;
use super::Started;
use super::TaskConfig;
use super::TaskHandle;
use super::TaskId;
use super::TaskStats;
use super::cgroup::Cores;
use super::logs::LogFiles;
use super::options::Options;
use super::process::parse_signal;
use super::refuse;
use super::session::ExecRequest;
use super::session::ExecSession;

/// For requests as a whole; seconds.
const REQUEST_LIMIT: u64 = 120;
const PULL_LIMIT: Duration = Duration::from_secs(300);
/// After which a follower that should have ended by itself is given up.
const LOG_LIMIT: Duration = Duration::from_secs(5);
/// How long a killed container may take to vanish.
const KILL_LIMIT: Duration = Duration::from_secs(30);
/// Between tries to reach a Docker that went away.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Before a container whose name is taken is created again; doubled every time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_OUTPUT: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub struct Docker {
    options: DockerOptions,
    connection: Arc<Connection>,
    cores: Arc<CoreKeeper>,
    followers: Mutex<BTreeMap<TaskId, JoinHandle<()>>>,
    images: Images,
    /// Containers that tasks know.
    known: Known,
    health: Health,
    sweeper: OnceLock<AbortOnDropHandle<()>>,
    /// Held while the container is made that holds a namespace.
    holding: tokio::sync::Mutex<()>,
}

/// What the handle of a container remembers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    container: String,
    #[serde(default)]
    image: Held,
    kill_signal: String,
    logs: Option<LogFiles>,
    /// Where the log position is stored.
    position_file: PathBuf,
    /// Tell the address of IPv6 instead of the other.
    #[serde(default)]
    prefer_ipv6: bool,
    /// Ports inside by label.
    #[serde(default)]
    ports: BTreeMap<String, u16>,
    /// It has no cores of its own.
    #[serde(default)]
    shares_cores: bool,
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
    pub fn new(options: DockerOptions, cores: Option<Cores>) -> Self {
        Self {
            connection: Arc::new(Connection::new(&options.endpoint, options.tls.clone())),
            cores: Arc::new(CoreKeeper::new(cores)),
            options,
            followers: Mutex::default(),
            images: Images::default(),
            known: Known::default(),
            health: Health::default(),
            sweeper: OnceLock::new(),
            holding: tokio::sync::Mutex::default(),
        }
    }

    fn client(&self) -> Result<Client, DriverError> {
        self.connection.client(REQUEST_LIMIT)
    }

    async fn inspect(&self, container: &str) -> Result<ContainerInspectResponse, DriverError> {
        self.client()?
            .inspect_container(container, None::<InspectContainerOptions>)
            .await
            .map_err(recoverable)
    }

    /// Makes the image available and keeps it from being removed.
    async fn image(&self, task: &TaskConfig, progress: &Progress) -> Result<Held, DriverError> {
        let client = self.client()?;
        let image = config::image_of(&task.config);
        let unreachable = |error: Error| {
            DriverError::Recoverable(format!("Failed to connect to docker daemon: {}", words(&error)))
        };
        let archive = task.config.text("load");
        let must_fetch = !archive.is_empty() || config::must_pull(&task.config);
        if !must_fetch {
            let present = self.images.hold(&client, &image, &task.id, |_| false).await;
            if let Some(held) = present.map_err(unreachable)? {
                return Ok(held);
            }
        }
        // What turns out to have been there already was not fetched for this task.
        let before = client.inspect_image(&image).await.ok().and_then(|found| found.id);
        if archive.is_empty() {
            self.pull(&image, task, progress).await?;
        } else {
            archive::load(&client, &task.dirs, &archive).await.map_err(DriverError::Recoverable)?;
        }
        let is_new = |id: &str| before.as_deref() != Some(id);
        let found = self.images.hold(&client, &image, &task.id, is_new).await.map_err(unreachable)?;
        let from = if archive.is_empty() { image.clone() } else { archive };
        found.ok_or_else(|| {
            DriverError::Recoverable(format!("Failed to find image {image:?} after {from:?} was fetched"))
        })
    }

    async fn pull(&self, image: &str, task: &TaskConfig, progress: &Progress) -> Result<(), DriverError> {
        let credentials = match auth::find(&self.options, &task.config, image).await {
            Ok(found) => found,
            Err(error) if task.config.switch("auth_soft_fail") => {
                tracing::warn!(%image, %error, "pulling without credentials");
                None
            }
            Err(error) => {
                let text = format!("Failed to find docker auth for repo {image:?}: {error}");
                return Err(DriverError::Recoverable(text));
            }
        };
        progress("Downloading image");
        let wanted = crate::model::time::Span::parse(&task.config.text("image_pull_timeout")).ok();
        let limit = wanted.map(|span| span.to_std()).filter(|limit| !limit.is_zero()).unwrap_or(PULL_LIMIT);
        let pull = Pull {
            client: self.connection.client(limit.as_secs() + 1)?,
            image: image.to_owned(),
            credentials,
            activity_limit: self.options.pull_activity_timeout,
        };
        self.images.pull(pull, limit, progress).await.map_err(|why| {
            let text = format!("Failed to pull `{image}`: {why}");
            // A name that the registry does not have will not appear by asking again.
            let hopeless = why.find("Error: image ").is_some_and(|at| why[at..].contains(" not found"));
            if hopeless { DriverError::Fatal(text) } else { DriverError::Recoverable(text) }
        })
    }

    /// Creates the container, or finds the one that an agent made for this very run before it died.
    async fn create(
        &self,
        task: &TaskConfig,
        image_id: &str,
        cores: Option<&str>,
    ) -> Result<String, DriverError> {
        let client = self.client()?;
        let name = config::container_name(task);
        let image = config::image_of(&task.config);
        let mut body = config::container(&self.options, task, cores).map_err(|why| {
            DriverError::Recoverable(format!(
                "Failed to create container configuration for image {image:?} ({image_id:?}): {why}"
            ))
        })?;
        network::adapt(&mut body, task)?;
        let client = connection::with_mac_address(client, &body, &task.config.text("mac_address"));
        let own = task.config.number("container_exists_attempts").and_then(|own| u32::try_from(own).ok());
        let attempts = own.unwrap_or(self.options.container_exists_attempts).max(1);
        let mut pause = FIRST_PAUSE;
        for _ in 0..attempts {
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            let error = match client.create_container(Some(options), body.clone()).await {
                Ok(created) => return Ok(created.id),
                Err(error) => error,
            };
            if status(&error) != Some(409) {
                let text = format!("Failed to create container: {}", words(&error));
                return Err(DriverError::Recoverable(text));
            }
            if let Some(id) = self.take_over(&name, task).await? {
                return Ok(id);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Err(DriverError::Recoverable(format!(
            "Failed to create container: its name {name} is still taken after {attempts} attempts"
        )))
    }

    /// The name is taken: by this run, which goes on, or by an earlier one, which is removed.
    async fn take_over(&self, name: &str, task: &TaskConfig) -> Result<Option<String>, DriverError> {
        let found = match self.inspect(name).await {
            Err(DriverError::NotFound) => return Ok(None),
            found => found?,
        };
        let label = |key: &str| found.config.as_ref()?.labels.as_ref()?.get(key).cloned();
        let running = found.state.as_ref().and_then(|state| state.running) == Some(true);
        let same = label(RUN_LABEL) == Some(task.id.run.to_string());
        if label(ALLOC_LABEL).is_none() {
            return Err(DriverError::Fatal(format!("a container named {name} exists that is not ours")));
        }
        if running && same {
            return Ok(Some(found.id.unwrap_or_else(|| name.to_owned())));
        }
        self.discard(name).await.map(|()| None)
    }

    async fn run(&self, task: &TaskConfig, image: &Held) -> Result<(TaskHandle, Started), DriverError> {
        self.hold_network(task).await?;
        let cores = self.cores.of_task(&task.id, &task.grant)?;
        let container = match self.create(task, &image.id, cores.as_deref()).await {
            Ok(container) => container,
            Err(error) => {
                self.cores.release("", &task.id);
                return Err(error);
            }
        };
        let shares_cores = task.grant.cpu.reserved_cores.is_empty();
        self.known.lock().insert(container.clone());
        if let Err(error) = self.client()?.start_container(&container, None::<StartContainerOptions>).await {
            self.give_up(&container, &task.id).await;
            let text = format!("Failed to start container {container}: {}", words(&error));
            return Err(match status(&error) {
                Some(_) => DriverError::Fatal(text),
                None => DriverError::Recoverable(text),
            });
        }
        if let Err(error) = self.check_network(task, &container).await {
            self.give_up(&container, &task.id).await;
            return Err(error);
        }
        let collected = !self.options.disable_log_collection;
        let state = State {
            logs: LogFiles::new(&task.dirs.logs, &task.id.task, &task.logs).filter(|_| collected),
            position_file: task.dirs.private.join(format!("{}.logs", task.id.run)),
            kill_signal: task.kill_signal.clone(),
            image: image.clone(),
            prefer_ipv6: task.config.switch("advertise_ipv6_address"),
            ports: config::ports_inside(task),
            shares_cores,
            container,
        };
        let value = serde_json::to_value(&state).map_err(|error| DriverError::Fatal(error.to_string()))?;
        let handle = TaskHandle { driver: self.name().to_owned(), id: task.id.clone(), state: value };
        self.follow(&handle, &state)?;
        if shares_cores {
            self.cores.follow(&state.container, cores, &self.connection);
        }
        let found = self.inspect(&state.container).await?;
        Ok((handle, view::own_network(&found, &state)))
    }

    async fn give_up(&self, container: &str, id: &TaskId) {
        let _ = self.discard(container).await;
        self.known.lock().remove(container);
        self.cores.release(container, id);
    }

    fn release_image(&self, image: &str, task: &TaskId) {
        let delay = Some(self.options.gc.image_delay).filter(|_| self.options.gc.image);
        if let Ok(client) = self.client() {
            self.images.release(client, image, task, delay);
        }
    }

    /// What Docker says of itself; nothing when it cannot be reached.
    async fn ask(&self) -> Option<DriverInfo> {
        let info = self.client().ok()?.info().await.ok()?;
        self.begin_sweeping();
        let mut attributes = BTreeMap::new();
        let mut set = |name: &str, value: String| attributes.insert(format!("driver.docker.{name}"), value);
        set("version", info.server_version.unwrap_or_default());
        set("os_type", info.os_type.unwrap_or_else(|| "linux".to_owned()));
        let mut runtimes: Vec<String> = info.runtimes.unwrap_or_default().into_keys().collect();
        runtimes.sort();
        set("runtimes", runtimes.join(","));
        set("volumes.enabled", self.options.volumes_enabled.to_string());
        set("privileged.enabled", self.options.allow_privileged.to_string());
        if let Some(limit) = self.options.pids_limit {
            set("pids.limit", limit.to_string());
        }
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        if let Some(bridge) = interfaces.iter().find(|one| one.name == "docker0" && one.ip().is_ipv4()) {
            set("bridge_ip", bridge.ip().to_string());
        }
        Some(super::healthy("docker", attributes))
    }

    /// Begins to look for containers that were left behind; once.
    fn begin_sweeping(&self) {
        if !self.options.gc.dangling || self.options.alloc_root.as_os_str().is_empty() {
            return;
        }
        self.sweeper.get_or_init(|| {
            let connection = Arc::clone(&self.connection);
            let connect = move || connection.client(REQUEST_LIMIT).ok();
            let (options, known) = (self.options.clone(), Known::clone(&self.known));
            let work = dangling::sweep(options, known, Arc::clone(&self.cores), connect);
            AbortOnDropHandle::new(tokio::spawn(work))
        });
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

#[async_trait]
impl Driver for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn sets_hostname(&self) -> bool {
        true
    }

    async fn leave_network(&self, alloc: AllocId) -> Result<(), DriverError> {
        if self.connection.socket().is_some_and(|socket| !socket.exists()) {
            // Without Docker nothing of it can be left.
            return Ok(());
        }
        self.discard(&network::holder(alloc)).await
    }

    async fn fingerprint(&self) -> DriverInfo {
        self.health.judge(self.ask()).await
    }

    fn mounts_volumes(&self) -> bool {
        true
    }

    async fn start(
        &self,
        task: &TaskConfig,
        progress: Progress,
    ) -> Result<(TaskHandle, Started), DriverError> {
        refuse(self.validate(&task.config))?;
        if !task.config.text("cpuset_cpus").is_empty() {
            progress("cpuset_cpus is ignored: cores are given by resources.cores");
        }
        let image = self.image(task, &progress).await?;
        let result = self.run(task, &image).await;
        if result.is_err() {
            self.release_image(&image.id, &task.id);
        }
        result
    }

    async fn recover(&self, handle: &TaskHandle) -> Result<Started, DriverError> {
        let state = state_of(handle)?;
        let found = self.inspect(&state.container).await?;
        self.known.lock().insert(state.container.clone());
        if !state.image.id.is_empty() {
            self.images.hold_again(&state.image, &handle.id);
        }
        self.follow(handle, &state)?;
        if state.shares_cores {
            let runs_on = found.host_config.as_ref().and_then(|host| host.cpuset_cpus.clone());
            self.cores.follow(&state.container, runs_on, &self.connection);
        } else {
            self.cores.own(&handle.id);
        }
        Ok(view::own_network(&found, &state))
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
        if self.options.gc.container {
            self.discard(&state.container).await?;
            self.known.lock().remove(&state.container);
        } else {
            // It stays for whoever wants to look at it, but never runs on.
            self.kill(&state.container, "SIGKILL").await?;
        }
        self.cores.release(&state.container, &handle.id);
        self.release_image(&state.image.id, &handle.id);
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
        Ok(view::usage(stats, pid.and_then(|pid| i32::try_from(pid).ok())))
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
