//! `raw_exec`: a plain process of the host, as the agent's user, without isolation.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use crate::model::node::DriverInfo;

use super::Driver;
use super::DriverError;
use super::ExitStatus;
use super::Progress;
use super::Started;
use super::TaskConfig;
use super::TaskHandle;
use super::TaskStats;
use super::cgroup::Overrides;
use super::cgroup::Scope;
use super::executor::Executor;
use super::executor::Launch;
use super::executor::candidates;
use super::options::Options;
use super::refuse;
use super::session::ExecRequest;
use super::session::ExecSession;
use super::supervisor::spec::CommandSpec;
use super::users;
use super::users::Denied;

/// See the module.
#[derive(Debug)]
pub struct RawExec {
    pub executor: Executor,
    pub enabled: bool,
    pub denied: Denied,
    /// The most processes and threads that a task may have; `None` leaves it to the machine.
    pub pids_limit: Option<u32>,
    /// Tasks stay in the agent's control groups: nothing of theirs is limited.
    pub no_cgroups: bool,
}

#[async_trait]
impl Driver for RawExec {
    fn name(&self) -> &'static str {
        "raw_exec"
    }

    async fn fingerprint(&self) -> DriverInfo {
        if self.enabled { super::healthy("raw_exec", []) } else { super::undetected("disabled") }
    }

    async fn start(
        &self,
        config: &TaskConfig,
        _progress: Progress,
    ) -> Result<(TaskHandle, Started), DriverError> {
        if !self.enabled {
            return Err(DriverError::Fatal("raw_exec is disabled".to_owned()));
        }
        refuse(self.validate(&config.config))?;
        super::refuse_values(super::value_problems(self.name(), &config.config))?;
        let command = config.config.text("command");
        let work_dir = config.config.text("work_dir");
        let user = users::resolve(&config.user)?;
        user.as_ref().map_or(Ok(()), |user| self.denied.check(user))?;
        let unified = config.config.text("cgroup_v2_override");
        let controllers = config.config.pairs("cgroup_v1_override");
        if self.no_cgroups && !(unified.is_empty() && controllers.is_empty()) {
            let text = "this agent uses no control groups for raw_exec, so the job cannot choose any";
            return Err(DriverError::BadConfig(text.to_owned()));
        }
        let launch = Launch {
            no_cgroups: self.no_cgroups,
            command: CommandSpec {
                candidates: candidates(&command, &config.dirs.task),
                not_found: format!("binary {command:?} could not be found"),
                args: config.config.list("args"),
                name: command,
                env: config.env.clone(),
                cwd: if work_dir.is_empty() { config.dirs.task.clone() } else { PathBuf::from(work_dir) },
                user,
                own: Some(config.dirs.task.clone()),
                ..CommandSpec::default()
            },
            isolation: None,
            // Groups that the job names must be there; our own are done without where they cannot be made.
            cgroups_optional: unified.is_empty() && controllers.is_empty(),
            scope: Scope::Plain,
            overrides: Overrides {
                v1: controllers.into_iter().map(|(name, path)| (name, PathBuf::from(path))).collect(),
                v2: Some(PathBuf::from(unified)).filter(|path| !path.as_os_str().is_empty()),
            },
            pids_limit: self.pids_limit,
            oom_score_adj: config
                .config
                .number("oom_score_adj")
                .and_then(|score| score.try_into().ok())
                .unwrap_or(0),
        };
        let handle = self.executor.start(self.name(), config, launch).await?;
        Ok((handle, Started::default()))
    }

    async fn recover(&self, handle: &TaskHandle) -> Result<Started, DriverError> {
        self.executor.recover(handle).map(|()| Started::default())
    }

    async fn wait(&self, handle: &TaskHandle) -> Result<ExitStatus, DriverError> {
        self.executor.wait(handle).await
    }

    async fn signal(&self, handle: &TaskHandle, signal: &str) -> Result<(), DriverError> {
        self.executor.signal(handle, signal)
    }

    async fn stop(&self, handle: &TaskHandle, signal: &str, timeout: Duration) -> Result<(), DriverError> {
        self.executor.stop(handle, signal, timeout).await
    }

    async fn remove(&self, handle: &TaskHandle) -> Result<(), DriverError> {
        self.executor.remove(handle).await
    }

    async fn stats(&self, handle: &TaskHandle) -> Result<TaskStats, DriverError> {
        let stats = self.executor.stats(handle)?;
        // Nomad measures only this much for tasks without isolation, and people compare.
        Ok(TaskStats {
            throttled_periods: None,
            throttled_ns: None,
            cache_bytes: None,
            swap_bytes: stats.swap_bytes.or_else(|| {
                let processes = stats.processes.values();
                Some(processes.map(|process| process.swap_bytes).sum())
            }),
            usage_bytes: None,
            max_usage_bytes: None,
            kernel_bytes: None,
            max_kernel_bytes: None,
            ..stats
        })
    }

    async fn exec(
        &self,
        handle: &TaskHandle,
        command: &[String],
        timeout: Duration,
    ) -> Result<(i32, Vec<u8>), DriverError> {
        self.executor.exec(handle, command, timeout).await
    }

    async fn session(&self, handle: &TaskHandle, request: &ExecRequest) -> Result<ExecSession, DriverError> {
        self.executor.session(handle, request).await
    }
}
