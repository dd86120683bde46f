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
use super::executor::Executor;
use super::executor::Launch;
use super::executor::candidates;
use super::executor::resolve_user;
use super::options;
use super::options::Kind;
use super::options::Opt;
use super::options::Options;
use super::options::opt;
use super::options::required;
use super::refuse;
use super::session::ExecRequest;
use super::session::ExecSession;
use super::supervisor::spec::Bind;
use super::supervisor::spec::Capabilities;
use super::supervisor::spec::CommandSpec;
use super::supervisor::spec::Isolation;

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
/// The one capability that a task has without asking and without being root: low ports.
const AMBIENT: &str = "net_bind_service";
const DEFAULT_USER: &str = "nobody";

pub(super) const OPTIONS: &[Opt] = &[
    required("command", Kind::Text),
    opt("args", Kind::TextList),
    opt("pid_mode", Kind::Text),
    opt("ipc_mode", Kind::Text),
    opt("cap_add", Kind::TextList),
    opt("cap_drop", Kind::TextList),
    opt("work_dir", Kind::Text),
];

/// Isolation shared by `exec` and `java`.
#[derive(Clone, Debug)]
pub struct Isolated {
    pub executor: Executor,
    /// Host path to path inside.
    pub chroot: BTreeMap<PathBuf, PathBuf>,
    /// Names without `CAP_`, lower case.
    pub allowed_capabilities: Vec<String>,
}

impl Isolated {
    /// Why isolated tasks cannot run here, if so.
    pub fn obstacle(&self) -> Option<&'static str> {
        if !nix::unistd::geteuid().is_root() {
            return Some("Driver must run as root");
        }
        (*Hierarchy::of_this_machine() == Hierarchy::None).then_some("Failed to discover cgroup mount point")
    }

    /// Problems of the options that `exec` and `java` share.
    pub(super) fn validate(&self, config: &Map<String, Value>) -> Vec<String> {
        let mut problems = Vec::new();
        for name in ["pid_mode", "ipc_mode"] {
            let mode = config.text(name);
            if !["", "private", "host"].contains(&mode.as_str()) {
                problems.push(format!("{name} must be \"private\" or \"host\", got {mode:?}"));
            }
        }
        let work_dir = config.text("work_dir");
        if !work_dir.is_empty() && !work_dir.starts_with('/') {
            problems.push(format!("work_dir must be absolute but got relative path {work_dir:?}"));
        }
        if let Err(text) = self.capabilities(config) {
            problems.push(text);
        }
        problems
    }

    fn capabilities(&self, config: &Map<String, Value>) -> Result<Capabilities, String> {
        let names = |option: &str| -> Vec<String> {
            let plain = |name: String| name.to_lowercase().trim_start_matches("cap_").to_owned();
            config.list(option).into_iter().map(plain).collect()
        };
        let (add, drop) = (names("cap_add"), names("cap_drop"));
        let number = |name: &str| {
            let full = format!("CAP_{}", name.to_uppercase());
            full.parse::<caps::Capability>().ok().map(|cap| cap.index())
        };
        let allowed = &self.allowed_capabilities;
        let refused: Vec<&str> = add
            .iter()
            .map(String::as_str)
            .filter(|name| {
                *name != "all" && (number(name).is_none() || !allowed.iter().any(|one| one == name))
            })
            .collect();
        if !refused.is_empty() {
            let list = refused.join(", ");
            return Err(format!("driver does not allow the following capabilities: {list}"));
        }
        let dropped = |name: &str| drop.iter().any(|one| one == name || one == "all");
        let added = |name: &str| add.iter().any(|one| one == name || one == "all");
        let standard = |name: &str| DEFAULT_CAPABILITIES.contains(&name);
        let has = |name: &&String| added(name) || (standard(name) && !dropped(name));
        let bounding: Vec<u8> = allowed.iter().filter(has).filter_map(|name| number(name)).collect();
        let wanted = |name: &&String| added(name) || name.as_str() == AMBIENT;
        let ambient = allowed.iter().filter(has).filter(wanted).filter_map(|name| number(name)).collect();
        Ok(Capabilities { bounding, ambient })
    }

    /// Completes a command into an isolated launch.
    pub(super) fn launch(&self, config: &TaskConfig, command: CommandSpec) -> Result<Launch, DriverError> {
        let options = &config.config;
        let user = if config.user.is_empty() { DEFAULT_USER } else { config.user.as_str() };
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
                user: resolve_user(user)?,
                capabilities: Some(self.capabilities(options).map_err(DriverError::BadConfig)?),
                ..command
            },
            isolation: Some(Isolation {
                root: config.dirs.task.clone(),
                binds,
                hidden,
                private_pids: options.text("pid_mode") != "host",
                private_ipc: options.text("ipc_mode") != "host",
            }),
            cgroups_optional: false,
            oom_score_adj: 0,
        })
    }
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

    fn validate(&self, config: &Map<String, Value>) -> Vec<String> {
        let mut problems = options::check(OPTIONS, config);
        problems.extend(self.isolated.validate(config));
        problems
    }

    async fn start(
        &self,
        config: &TaskConfig,
        _progress: Progress,
    ) -> Result<(TaskHandle, Started), DriverError> {
        refuse(self.validate(&config.config))?;
        let command = config.config.text("command");
        let place = Path::new(&command).parent().filter(|parent| !parent.as_os_str().is_empty());
        let place = place.map(|parent| parent.display().to_string()).unwrap_or_default();
        let command = CommandSpec {
            candidates: candidates(&command, Path::new("/")),
            not_found: format!("file {command} not found under path {place}"),
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
