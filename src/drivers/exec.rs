//! `exec` and `java`: processes with a root, processes, rights and limits of their own.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Map;
use serde_json::Value;

use crate::model::node::DriverInfo;

use super::Driver;
use super::DriverError;
use super::ExitStatus;
use super::Mount;
use super::Progress;
use super::Propagation;
use super::Started;
use super::TaskConfig;
use super::TaskHandle;
use super::TaskStats;
use super::cgroup::Hierarchy;
use super::cgroup::Overrides;
use super::cgroup::Scope;
use super::executor::Executor;
use super::executor::Launch;
use super::options;
use super::options::Options;
use super::refuse;
use super::session::ExecRequest;
use super::session::ExecSession;
use super::supervisor::spec::Bind;
use super::supervisor::spec::Capabilities;
use super::supervisor::spec::CommandSpec;
use super::supervisor::spec::Isolation;
use super::users;
use super::users::Denied;

/// Directories of the host that a task sees, read-only.
pub const DEFAULT_CHROOT: &[&str] =
    &["/bin", "/etc", "/lib", "/lib32", "/lib64", "/run/resolvconf", "/run/systemd/resolve", "/sbin", "/usr"];
/// Capabilities that tasks may have unless the agent is configured otherwise.
pub const DEFAULT_CAPABILITIES: &[&str] = &[
    "audit_write",
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "mknod",
    "net_bind_service",
    "setfcap",
    "setgid",
    "setpcap",
    "setuid",
    "sys_chroot",
];
/// What stands before the reason when a command cannot be launched; scripts look for these words.
const LAUNCH_FAILED: &str = "failed to launch command with executor: rpc error: code = Unknown desc = ";
/// What a task that shares the host's processes by its own wish does not have: with these it could end them, become their
/// user, or look into tasks that keep to themselves (the kernel compares capabilities before it allows that).
const NOT_AMONG_OTHERS: &[&str] = &["kill", "setgid", "setpcap", "setuid"];
const DEFAULT_USER: &str = "nobody";
/// Where a bare name is looked for when the task's own directories do not have it.
const SEARCH_PATH: &[&str] = &["/usr/local/bin", "/usr/bin", "/bin"];

/// What the agent's configuration says about isolated tasks of one driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsolationOptions {
    /// Names without `CAP_`, lower case.
    pub allowed_capabilities: Vec<String>,
    /// `private` or `host`, for tasks that do not say.
    pub default_pid_mode: String,
    pub default_ipc_mode: String,
    /// For machines whose root file system cannot be exchanged, such as a memory disk.
    pub no_pivot_root: bool,
    pub denied: Denied,
    /// The most processes and threads that a task may have; `None` leaves it to the machine.
    pub pids_limit: Option<u32>,
}

impl Default for IsolationOptions {
    fn default() -> Self {
        Self {
            allowed_capabilities: DEFAULT_CAPABILITIES.iter().map(|&name| name.to_owned()).collect(),
            default_pid_mode: "private".to_owned(),
            default_ipc_mode: "private".to_owned(),
            no_pivot_root: false,
            denied: Denied::default(),
            pids_limit: None,
        }
    }
}

/// A share of this machine's process numbers that no single task may exceed, so that a fork bomb hurts its own task
/// only: a quarter.
pub fn fair_pids_limit() -> Option<u32> {
    let read = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?;
        text.trim().parse::<u32>().ok()
    };
    Some(read("pid_max")?.min(read("threads-max")?) / 4)
}

/// Isolation shared by `exec` and `java`.
#[derive(Clone, Debug)]
pub struct Isolated {
    pub executor: Executor,
    /// Host path to path inside.
    pub chroot: BTreeMap<PathBuf, PathBuf>,
    pub options: IsolationOptions,
}

impl Isolated {
    /// Why isolated tasks cannot run here, if so.
    pub fn obstacle(&self) -> Option<&'static str> {
        if !nix::unistd::geteuid().is_root() {
            return Some("Driver must run as root");
        }
        (*Hierarchy::of_this_machine() == Hierarchy::None).then_some("Failed to discover cgroup mount point")
    }

    /// Problems with values of `driver`'s options, and with what the agent forbids.
    pub(super) fn rules(&self, driver: &str, config: &Map<String, Value>) -> Vec<String> {
        let mut problems = super::value_problems(driver, config);
        problems.extend(self.capabilities(config).err());
        problems
    }

    fn mode(&self, config: &Map<String, Value>, option: &str) -> String {
        let default = match option {
            "pid_mode" => &self.options.default_pid_mode,
            _ => &self.options.default_ipc_mode,
        };
        Some(config.text(option)).filter(|text| !text.is_empty()).unwrap_or_else(|| default.clone())
    }

    fn capabilities(&self, config: &Map<String, Value>) -> Result<Capabilities, String> {
        let (add, drop) =
            (options::capabilities(config, "cap_add"), options::capabilities(config, "cap_drop"));
        let unknown: Vec<&str> = add
            .iter()
            .map(String::as_str)
            .filter(|name| *name != "all" && capability(name).is_none())
            .collect();
        if !unknown.is_empty() {
            let list = unknown.join(", ");
            return Err(format!("cap_add configured with capabilities not supported by system: {list}"));
        }
        let allowed = &self.options.allowed_capabilities;
        // It is for the agent, not for a job, to let tasks reach into each other.
        let intrudes = self.mode(config, "pid_mode") == "host" && self.options.default_pid_mode != "host";
        let may = |name: &str| {
            allowed.iter().any(|one| one == name || one == "all")
                && !(intrudes && NOT_AMONG_OTHERS.contains(&name))
        };
        // To ask for all is to ask for all that the agent allows.
        let refused: Vec<&str> =
            add.iter().map(String::as_str).filter(|name| *name != "all" && !may(name)).collect();
        if !refused.is_empty() {
            let list = refused.join(", ");
            return Err(format!("driver does not allow the following capabilities: {list}"));
        }
        let named = |list: &[String], name: &str| list.iter().any(|one| one == name || one == "all");
        let standard = |name: &str| DEFAULT_CAPABILITIES.contains(&name) && !named(&drop, name);
        let has = |name: &str| may(name) && (named(&add, name) || standard(name));
        let all = caps::all().into_iter().map(|cap| (plain_name(cap), cap.index()));
        let mut kept: Vec<u8> = all.filter(|(name, _)| has(name)).map(|(_, number)| number).collect();
        kept.sort_unstable();
        Ok(Capabilities { bounding: kept.clone(), ambient: kept })
    }

    /// Completes a command into an isolated launch.
    pub(super) fn launch(&self, config: &TaskConfig, command: CommandSpec) -> Result<Launch, DriverError> {
        let options = &config.config;
        let user = if config.user.is_empty() { DEFAULT_USER } else { config.user.as_str() };
        let user = users::resolve(user)?;
        user.as_ref().map_or(Ok(()), |user| self.options.denied.check(user))?;
        let work_dir = options.text("work_dir");
        let bind = |from: &Path, to: &Path, read_only| Bind {
            from: from.into(),
            to: to.into(),
            read_only,
            ..Bind::default()
        };
        // The task's directories live below the root or must be shown in it; secrets may be mounts of their own
        // and come along with the root.
        let mut binds: Vec<Bind> = self.chroot.iter().map(|(from, to)| bind(from, to, true)).collect();
        binds.push(bind(&config.dirs.shared, Path::new("/alloc"), false));
        let standard = [(&config.dirs.local, "/local"), (&config.dirs.secrets, "/secrets")];
        for (dir, inside) in standard {
            if *dir != config.dirs.task.join(&inside[1..]) && dir.exists() {
                binds.push(bind(dir, Path::new(inside), false));
            }
        }
        binds.extend(volume_binds(config)?);
        let files = config.network_files.places();
        binds.extend(files.map(|(from, to)| bind(from, Path::new(to), true)));
        let hidden = config.dirs.private.strip_prefix(&config.dirs.task);
        let hidden = hidden.map(|inside| vec![Path::new("/").join(inside)]).unwrap_or_default();
        Ok(Launch {
            command: CommandSpec {
                env: config.env.clone(),
                cwd: if work_dir.is_empty() { PathBuf::from("/") } else { PathBuf::from(work_dir) },
                user,
                own: Some(PathBuf::from("/")),
                capabilities: Some(self.capabilities(options).map_err(DriverError::BadConfig)?),
                ..command
            },
            isolation: Some(Isolation {
                root: config.dirs.task.clone(),
                binds,
                hidden,
                private_pids: self.mode(options, "pid_mode") != "host",
                private_ipc: self.mode(options, "ipc_mode") != "host",
                no_pivot_root: self.options.no_pivot_root,
            }),
            cgroups_optional: false,
            no_cgroups: false,
            scope: Scope::Isolated,
            overrides: Overrides::default(),
            pids_limit: self.options.pids_limit,
            oom_score_adj: 0,
        })
    }
}

fn capability(name: &str) -> Option<u8> {
    format!("CAP_{}", name.to_uppercase()).parse::<caps::Capability>().ok().map(|cap| cap.index())
}

fn plain_name(capability: caps::Capability) -> String {
    capability.to_string().to_lowercase().trim_start_matches("cap_").to_owned()
}

/// Where a command may be inside the task's root, in order.
fn candidates(command: &str, mounts: &[Mount]) -> Vec<PathBuf> {
    let root = Path::new("/");
    let relative = command.trim_start_matches('/');
    let mut found = vec![root.join("local").join(relative), root.join(relative)];
    found.extend(mounts.iter().map(|mount| mount.to.join(relative)));
    if !command.contains('/') {
        found.extend(SEARCH_PATH.iter().map(|dir| Path::new(dir).join(command)));
    }
    found
}

/// The volumes of a task. Isolated tasks have no way of giving mounts back to the host.
fn volume_binds(config: &TaskConfig) -> Result<Vec<Bind>, DriverError> {
    let bind = |mount: &Mount| {
        if mount.propagation == Propagation::Bidirectional {
            let text = format!("{}: propagation mode \"bidirectional\" is not supported", mount.to.display());
            return Err(DriverError::BadConfig(text));
        }
        Ok(Bind {
            from: mount.from.clone(),
            to: mount.to.clone(),
            read_only: mount.read_only,
            follows_host: mount.propagation == Propagation::HostToTask,
            required: true,
        })
    };
    config.mounts.iter().map(bind).collect()
}

/// See the module.
#[derive(Debug)]
pub struct Exec {
    pub isolated: Isolated,
}

#[async_trait]
impl Driver for Exec {
    fn name(&self) -> &'static str {
        "exec"
    }

    async fn fingerprint(&self) -> DriverInfo {
        match self.isolated.obstacle() {
            Some(text) => super::undetected(text),
            None => super::healthy("exec", []),
        }
    }

    fn mounts_volumes(&self) -> bool {
        true
    }

    async fn start(
        &self,
        config: &TaskConfig,
        _progress: Progress,
    ) -> Result<(TaskHandle, Started), DriverError> {
        refuse(self.validate(&config.config))?;
        super::refuse_values(self.isolated.rules(self.name(), &config.config))?;
        let command = config.config.text("command");
        // For a bare name many places were tried, and none is named.
        let place =
            if command.contains('/') { config.dirs.task.display().to_string() } else { String::new() };
        let command = CommandSpec {
            candidates: candidates(&command, &config.mounts),
            not_found: format!("{LAUNCH_FAILED}file {command} not found under path {place}"),
            args: config.config.list("args"),
            name: command,
            ..CommandSpec::default()
        };
        let launch = self.isolated.launch(config, command)?;
        let handle = self.isolated.executor.start(self.name(), config, launch).await?;
        Ok((handle, Started::default()))
    }

    async fn recover(&self, handle: &TaskHandle) -> Result<Started, DriverError> {
        self.isolated.executor.recover(handle).map(|()| Started::default())
    }

    async fn wait(&self, handle: &TaskHandle) -> Result<ExitStatus, DriverError> {
        self.isolated.executor.wait(handle).await
    }

    async fn signal(&self, handle: &TaskHandle, signal: &str) -> Result<(), DriverError> {
        self.isolated.executor.signal(handle, signal)
    }

    async fn stop(&self, handle: &TaskHandle, signal: &str, timeout: Duration) -> Result<(), DriverError> {
        self.isolated.executor.stop(handle, signal, timeout).await
    }

    async fn remove(&self, handle: &TaskHandle) -> Result<(), DriverError> {
        self.isolated.executor.remove(handle).await
    }

    async fn stats(&self, handle: &TaskHandle) -> Result<TaskStats, DriverError> {
        self.isolated.executor.stats(handle)
    }

    async fn exec(
        &self,
        handle: &TaskHandle,
        command: &[String],
        timeout: Duration,
    ) -> Result<(i32, Vec<u8>), DriverError> {
        self.isolated.executor.exec(handle, command, timeout).await
    }

    async fn session(&self, handle: &TaskHandle, request: &ExecRequest) -> Result<ExecSession, DriverError> {
        self.isolated.executor.session(handle, request).await
    }
}
