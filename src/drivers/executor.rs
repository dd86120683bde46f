//! What `raw_exec`, `exec` and `java` have in common: a supervised process with control groups.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::Deserialize;
use serde::Serialize;

use super::DriverError;
use super::ExitStatus;
use super::TaskConfig;
use super::TaskHandle;
use super::TaskStats;
use super::cgroup;
use super::cgroup::Hierarchy;
use super::cgroup::Overrides;
use super::cgroup::Scope;
use super::cgroup::TaskCgroups;
use super::cgroup::Wish;
use super::logs::LogFiles;
use super::process::parse_signal;
use super::session::ExecRequest;
use super::session::ExecSession;
use super::supervisor::Supervisor;
use super::supervisor::exit_file;
use super::supervisor::spec::Capabilities;
use super::supervisor::spec::CommandSpec;
use super::supervisor::spec::ExecReply;
use super::supervisor::spec::ExecSpec;
use super::supervisor::spec::Isolation;
use super::supervisor::spec::RunReply;
use super::supervisor::spec::Running;
use super::supervisor::spec::SessionSpec;
use super::supervisor::spec::TaskSpec;
use super::supervisor::spec::UserIds;
use super::supervisor::state_file;
use super::usage;

/// The signal that ends a task when the job file names none.
const DEFAULT_SIGNAL: Signal = Signal::SIGINT;
/// How long a killed task may take to vanish.
const KILL_LIMIT: Duration = Duration::from_secs(15);

/// Starts and handles supervised processes.
#[derive(Clone, Debug)]
pub struct Executor {
    pub supervisor: Supervisor,
    /// Directory of control groups, such as `nomad`.
    pub cgroup_parent: String,
}

/// What the handle of a supervised task remembers.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    running: Running,
    prefix: PathBuf,
    isolated: bool,
    kill_signal: String,
    cwd: PathBuf,
    user: Option<UserIds>,
    capabilities: Option<Capabilities>,
}

/// How a driver wants its task run.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    pub command: CommandSpec,
    pub isolation: Option<Isolation>,
    pub cgroups_optional: bool,
    /// The task stays where its supervisor is.
    pub no_cgroups: bool,
    pub scope: Scope,
    pub overrides: Overrides,
    /// The most processes and threads that the task may have.
    pub pids_limit: Option<u32>,
    pub oom_score_adj: i32,
}

fn state_of(handle: &TaskHandle) -> Result<State, DriverError> {
    serde_json::from_value(handle.state.clone()).map_err(|error| {
        DriverError::Fatal(format!("task handle of {} is unreadable: {error}", handle.id.task))
    })
}

fn broken(error: io::Error) -> DriverError {
    DriverError::Recoverable(format!("supervisor: {error}"))
}

impl Executor {
    /// Starts the task; a run that is already there is taken over.
    ///
    /// # Errors
    /// The program cannot be executed (fatal), or no supervisor could be started (recoverable).
    pub async fn start(
        &self,
        driver: &str,
        config: &TaskConfig,
        launch: Launch,
    ) -> Result<TaskHandle, DriverError> {
        if !config.kill_signal.is_empty() {
            parse_signal(&config.kill_signal)?;
        }
        let prefix = config.dirs.private.join(format!("{}.run", config.id.run));
        let mut state = State {
            running: Running::default(),
            prefix: prefix.clone(),
            isolated: launch.isolation.is_some(),
            kill_signal: config.kill_signal.clone(),
            cwd: launch.command.cwd.clone(),
            user: launch.command.user.clone(),
            capabilities: launch.command.capabilities.clone(),
        };
        let mut name = format!("{}.{}", config.id.alloc, config.id.task);
        if config.id.run > 1 {
            // Removing an earlier run late must not touch this one.
            name = format!("{name}.{}", config.id.run);
        }
        let wish = Wish {
            parent: &self.cgroup_parent,
            name: &name,
            grant: &config.grant,
            pids_limit: launch.pids_limit,
            scope: launch.scope,
            overrides: &launch.overrides,
        };
        let spec = TaskSpec {
            cgroups: if launch.no_cgroups {
                TaskCgroups::default()
            } else {
                cgroup::plan(Hierarchy::of_this_machine(), &wish)
            },
            prefix: prefix.clone(),
            command: launch.command,
            isolation: launch.isolation,
            cgroups_optional: launch.cgroups_optional,
            logs: LogFiles::new(&config.dirs.logs, &config.id.task, &config.logs),
            network_namespace: config.network_namespace.clone(),
            oom_score_adj: launch.oom_score_adj,
        };
        state.running = match running_already(&prefix) {
            Some(running) => running,
            None => match self.supervisor.run(spec).await.map_err(broken)? {
                RunReply::Started(running) => running,
                RunReply::Failed(text) => return Err(DriverError::Fatal(text)),
            },
        };
        let state = serde_json::to_value(state).map_err(|error| DriverError::Fatal(error.to_string()))?;
        Ok(TaskHandle { driver: driver.to_owned(), id: config.id.clone(), state })
    }

    /// Is the task, or its exit status, still there?
    ///
    /// # Errors
    /// [`DriverError::NotFound`].
    pub fn recover(&self, handle: &TaskHandle) -> Result<(), DriverError> {
        let state = state_of(handle)?;
        if state.running.supervisor.exists() || exit_file(&state.prefix).exists() {
            return Ok(());
        }
        // Without its supervisor nobody would ever learn how it ended.
        state.running.cgroups.kill();
        state.running.task.signal(Signal::SIGKILL);
        Err(DriverError::NotFound)
    }

    /// Waits for the supervisor to end and reads what it left.
    ///
    /// # Errors
    /// The process cannot be watched.
    pub async fn wait(&self, handle: &TaskHandle) -> Result<ExitStatus, DriverError> {
        let state = state_of(handle)?;
        state.running.supervisor.ended().await.map_err(broken)?;
        if let Ok(text) = fs::read_to_string(exit_file(&state.prefix))
            && let Ok(status) = serde_json::from_str(&text)
        {
            return Ok(status);
        }
        state.running.cgroups.kill();
        state.running.task.signal(Signal::SIGKILL);
        let message = "the task's supervisor ended without leaving an exit status".to_owned();
        Ok(ExitStatus { code: -1, message, ..ExitStatus::default() })
    }

    /// Sends a signal to the task's first process.
    ///
    /// # Errors
    /// The signal is unknown, or the task has ended.
    pub fn signal(&self, handle: &TaskHandle, signal: &str) -> Result<(), DriverError> {
        let sent = state_of(handle)?.running.task.signal(parse_signal(signal)?);
        if sent { Ok(()) } else { Err(DriverError::NotFound) }
    }

    /// See [`super::Driver::stop`].
    ///
    /// # Errors
    /// The task survives being killed.
    pub async fn stop(
        &self,
        handle: &TaskHandle,
        signal: &str,
        timeout: Duration,
    ) -> Result<(), DriverError> {
        let state = state_of(handle)?;
        let Running { supervisor, task, .. } = &state.running;
        let name = if signal.is_empty() { state.kill_signal.as_str() } else { signal };
        let signal = if name.is_empty() { DEFAULT_SIGNAL } else { parse_signal(name)? };
        // The first process of a pid namespace never sees a signal it does not handle. Waiting for it is in vain.
        let in_vain = task.drops_as_init(signal);
        if !in_vain && task.signal(signal) && tokio::time::timeout(timeout, supervisor.ended()).await.is_ok()
        {
            return Ok(());
        }
        if !supervisor.signal(Signal::SIGUSR1) {
            return Ok(());
        }
        match tokio::time::timeout(KILL_LIMIT, supervisor.ended()).await {
            Ok(result) => result.map_err(broken),
            Err(_) => Err(DriverError::Recoverable(format!("process {} cannot be killed", task.pid))),
        }
    }

    /// See [`super::Driver::remove`].
    ///
    /// # Errors
    /// The task still runs, or a control group cannot be removed.
    pub async fn remove(&self, handle: &TaskHandle) -> Result<(), DriverError> {
        let state = state_of(handle)?;
        if state.running.supervisor.exists() {
            self.stop(handle, "SIGKILL", Duration::ZERO).await?;
        }
        let removed = tokio::task::spawn_blocking(move || {
            state.running.cgroups.kill();
            state.running.cgroups.remove()?;
            for file in [exit_file(&state.prefix), state_file(&state.prefix)] {
                match fs::remove_file(file) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            Ok(())
        });
        removed.await.map_err(|error| DriverError::Fatal(error.to_string()))?.map_err(broken)
    }

    /// Present use, from the control groups or else from its processes.
    ///
    /// # Errors
    /// The task has ended.
    pub fn stats(&self, handle: &TaskHandle) -> Result<TaskStats, DriverError> {
        let running = state_of(handle)?.running;
        if !running.task.exists() {
            return Err(DriverError::NotFound);
        }
        if running.cgroups.dirs.is_empty() {
            return Ok(usage::of_tree(running.task.pid));
        }
        let mut stats = running.cgroups.stats();
        let processes = stats.pids.iter().filter_map(|pid| Some((*pid, usage::of_process(*pid)?)));
        stats.processes = processes.collect();
        Ok(stats)
    }

    /// Runs a command with the task's environment, user, namespaces and limits.
    ///
    /// # Errors
    /// It cannot be run, or takes longer than `timeout`.
    pub async fn exec(
        &self,
        handle: &TaskHandle,
        command: &[String],
        timeout: Duration,
    ) -> Result<(i32, Vec<u8>), DriverError> {
        let mut spec = exec_spec(handle, command)?;
        spec.timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let program = spec.command.name.clone();
        match self.supervisor.exec(spec).await.map_err(broken)? {
            ExecReply::Done { code, output } => Ok((code, output)),
            ExecReply::TimedOut => {
                Err(DriverError::Recoverable(format!("{program} did not end within {timeout:?}")))
            }
            ExecReply::Failed(text) => Err(DriverError::Recoverable(text)),
        }
    }

    /// Runs a command as [`Executor::exec`] does, with somebody at the other end.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn session(
        &self,
        handle: &TaskHandle,
        request: &ExecRequest,
    ) -> Result<ExecSession, DriverError> {
        let spec = SessionSpec { exec: exec_spec(handle, &request.command)?, tty: request.tty };
        let started = self.supervisor.session(spec).await.map_err(broken)?;
        started.map_err(|text| {
            let text = format!("rpc error: code = Unknown desc = failed to start command: {text}");
            DriverError::Fatal(text)
        })
    }
}

/// A command in the place of a task: its directory, user and rights.
fn exec_spec(handle: &TaskHandle, command: &[String]) -> Result<ExecSpec, DriverError> {
    let state = state_of(handle)?;
    let Some((program, args)) = command.split_first() else {
        return Err(DriverError::BadConfig("no command to run".to_owned()));
    };
    let root = if state.isolated { PathBuf::from("/") } else { state.cwd.clone() };
    let not_found = if program.contains('/') {
        format!("fork/exec {program}: no such file or directory")
    } else {
        format!("exec: {program:?}: executable file not found in $PATH")
    };
    Ok(ExecSpec {
        task: state.running.task,
        command: CommandSpec {
            candidates: candidates(program, &root),
            not_found,
            args: args.to_vec(),
            name: program.clone(),
            cwd: state.cwd,
            user: state.user,
            capabilities: state.capabilities,
            ..CommandSpec::default()
        },
        cgroups: state.running.cgroups,
        isolated: state.isolated,
        timeout_ms: 0,
    })
}

/// A supervisor that an agent started before it died.
fn running_already(prefix: &std::path::Path) -> Option<Running> {
    let text = fs::read_to_string(state_file(prefix)).ok()?;
    let running: Running = serde_json::from_str(&text).ok()?;
    running.supervisor.exists().then_some(running)
}

/// Where a command of the job file may be, in order: the task's own files first, then the search path.
pub fn candidates(command: &str, task_dir: &std::path::Path) -> Vec<PathBuf> {
    let relative = command.trim_start_matches('/');
    let mut found = vec![task_dir.join("local").join(relative), task_dir.join(relative)];
    if command.starts_with('/') {
        found.push(PathBuf::from(command));
    } else if !command.contains('/') {
        let path = std::env::var("PATH").unwrap_or_default();
        let standard = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"];
        let dirs = path.split(':').filter(|dir| dir.starts_with('/')).chain(standard);
        found.extend(dirs.map(|dir| PathBuf::from(dir).join(command)));
    }
    found
}
