//! How a task runs. A driver knows tasks, not the cluster: it is given everything it needs and keeps no state that
//! a restarted agent could not rebuild from the handle that `start` returned.

pub mod cgroup;
pub mod docker;
pub mod exec;
pub mod executor;
pub mod java;
pub mod logs;
pub mod mock;
pub mod network;
pub mod options;
pub mod plugin;
pub mod process;
pub mod program;
pub mod qemu;
pub mod raw_exec;
pub mod session;
pub mod settings;
pub mod supervisor;
pub mod usage;
pub mod users;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use crate::model::driver_schema;
use crate::model::driver_schema::Fault;
use crate::model::driver_schema::Misfit;
use crate::model::id::AllocId;
use crate::model::network::PortMapping;
use crate::model::node::DriverInfo;
use crate::model::resources::AllocatedTask;
use crate::model::task::LogConfig;

use self::executor::Executor;
use self::network::MadeNetwork;
use self::network::NetworkFiles;
use self::session::ExecRequest;
use self::session::ExecSession;
use self::supervisor::Supervisor;

/// Names one run of one task on this node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    pub alloc: AllocId,
    pub task: String,
    /// Counts restarts, so that a late answer about an earlier run cannot be taken for the present one.
    pub run: u64,
}

/// Everything a driver needs to start a task. All interpolation has been done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskConfig {
    pub id: TaskId,
    pub namespace: String,
    pub job: String,
    pub job_name: String,
    /// The job that this one was made from, for children of periodic and parameterized jobs; else empty.
    pub parent_job: String,
    pub group: String,
    /// `<job>.<group>[<index>]`.
    pub alloc_name: String,
    pub node_name: String,
    pub node_id: String,
    /// MHz of all processors that tasks may use; 0 if unknown.
    pub node_mhz: i64,
    /// The user to run as; empty for the driver's default.
    pub user: String,
    /// The driver's own options from the job file.
    pub config: Map<String, Value>,
    /// The complete environment of the task.
    pub env: BTreeMap<String, String>,
    pub grant: AllocatedTask,
    pub dirs: TaskDirs,
    pub logs: LogConfig,
    /// The group's ports, and those of the older task networks.
    pub ports: Vec<PortMapping>,
    /// The group's network mode (`host`, `bridge`, `none`); empty for the driver's default.
    pub network_mode: String,
    /// Path of the network namespace that the task must join, if the group has one.
    pub network_namespace: Option<PathBuf>,
    #[serde(default)]
    pub network_files: NetworkFiles,
    /// The signal that asks the task to end; the driver's default when empty.
    pub kill_signal: String,
    /// Volumes of the host, for drivers that can mount them (see [`Driver::mounts_volumes`]).
    #[serde(default)]
    pub mounts: Vec<Mount>,
}

/// A directory or file of the host that the task sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub from: PathBuf,
    /// Absolute, as the task sees it.
    pub to: PathBuf,
    pub read_only: bool,
    pub propagation: Propagation,
    /// `z`, `Z`, or empty.
    pub selinux_label: String,
}

/// Which mounts made below a volume later are seen on the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    #[default]
    Private,
    HostToTask,
    Bidirectional,
}

/// Directories of a task on the host. See docs on the allocation directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDirs {
    /// `<data_dir>/alloc/<alloc id>`.
    pub alloc: PathBuf,
    /// `<alloc>/alloc`: shared by the group's tasks (`alloc/data`, `alloc/logs`, `alloc/tmp`).
    pub shared: PathBuf,
    /// `<alloc>/<task>`.
    pub task: PathBuf,
    /// `<alloc>/<task>/local`.
    pub local: PathBuf,
    /// `<alloc>/<task>/secrets`.
    pub secrets: PathBuf,
    /// `<alloc>/alloc/logs`: files `<task>.stdout.0`, `<task>.stderr.0`, …
    pub logs: PathBuf,
    /// `<alloc>/<task>/private`: the supervisor's files (control socket, exit status), not visible to the task.
    pub private: PathBuf,
}

/// What must be remembered to find a running task again. Opaque to everyone but its driver; written to the ledger
/// before the task is reported running.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskHandle {
    pub driver: String,
    pub id: TaskId,
    pub state: Value,
}

/// How a task ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// Exit code; 128 + signal if a signal ended it.
    pub code: i32,
    /// The signal that ended it, or 0.
    pub signal: i32,
    /// The kernel killed it for using too much memory.
    pub oom_killed: bool,
    /// Anything the driver has to say about the end.
    pub message: String,
}

impl ExitStatus {
    /// Ended by itself with code 0.
    pub fn is_success(&self) -> bool {
        self.code == 0 && self.signal == 0 && !self.oom_killed && self.message.is_empty()
    }
}

/// Resource use of a running task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskStats {
    /// CPU time used since the start, nanoseconds.
    pub cpu_time_ns: u64,
    /// Its parts. Here and below, `None` is what cannot be measured.
    pub user_ns: Option<u64>,
    pub system_ns: Option<u64>,
    /// How often and how long the task had to wait because it had used up its share.
    pub throttled_periods: Option<u64>,
    pub throttled_ns: Option<u64>,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    pub cache_bytes: Option<u64>,
    pub swap_bytes: Option<u64>,
    /// All that counts against the limit, now and at most.
    pub usage_bytes: Option<u64>,
    pub max_usage_bytes: Option<u64>,
    pub kernel_bytes: Option<u64>,
    pub max_kernel_bytes: Option<u64>,
    /// Process ids of the task.
    pub pids: Vec<i32>,
    /// Each process, where they are known one by one.
    #[serde(default)]
    pub processes: BTreeMap<i32, ProcessStats>,
    /// Use at present, where the driver measures that itself.
    #[serde(default)]
    pub present: Option<CpuShare>,
}

/// Processor time per time, in percent of one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CpuShare {
    pub percent: f64,
    pub user: Option<f64>,
    pub system: Option<f64>,
    /// MHz.
    pub ticks: Option<f64>,
}

/// Resource use of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStats {
    /// Since its start, nanoseconds.
    pub user_ns: u64,
    pub system_ns: u64,
    /// Bytes.
    pub rss_bytes: u64,
    pub swap_bytes: u64,
}

/// What a started task tells its runner beside the handle.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Started {
    /// The address of the task's own network, for drivers that give it one (docker's bridge).
    pub address: Option<String>,
    /// Services without an address mode are to be found at `address`: others can reach it.
    pub advertise: bool,
    /// Ports at `address` by label, where the driver chose them.
    pub ports: BTreeMap<String, u16>,
}

/// Why a driver could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// The job file's options are wrong: restarting cannot help. The text goes to the user.
    #[error("{0}")]
    BadConfig(String),
    /// Trying again may help: a daemon that does not answer, an image that cannot be pulled right now.
    #[error("{0}")]
    Recoverable(String),
    /// Trying again cannot help.
    #[error("{0}")]
    Fatal(String),
    /// The task of a handle is not there any more and left no exit status.
    #[error("task not found")]
    NotFound,
}

/// Progress of a long start (image pull), shown as task events of type `Driver`.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

/// A way of running tasks. One file each; the table of all is in [`all`].
#[async_trait]
pub trait Driver: Send + Sync + 'static {
    /// The name used in job files.
    fn name(&self) -> &str;

    /// True if its tasks have a root directory of their own, with `/alloc`, `/local` and `/secrets` in it.
    fn own_root(&self) -> bool {
        false
    }

    /// Is it usable on this machine? Attributes are node attributes such as `driver.java.version`.
    async fn fingerprint(&self) -> DriverInfo;

    /// Can its tasks have volumes mounted?
    fn mounts_volumes(&self) -> bool {
        false
    }

    /// Returns when the fingerprint is no longer `known`, for drivers that notice by themselves. The others are
    /// asked from time to time.
    async fn health_changed(&self, known: &DriverInfo) {
        let _ = known;
        std::future::pending().await
    }

    /// The agent goes: ends whatever serves the driver, but no task.
    async fn close(&self) {}

    /// Checks names and types of options without running anything; every problem, in the job file's words. Rules about
    /// their values are for [`Driver::start`]. Built-in drivers have their table; others know their own.
    fn validate(&self, config: &Map<String, Value>) -> Vec<String> {
        problems(self.name(), Fault::Shape, config).iter().map(Misfit::placed).collect()
    }

    /// Starts the task. When this returns the task runs on its own and survives the agent.
    async fn start(
        &self,
        config: &TaskConfig,
        progress: Progress,
    ) -> Result<(TaskHandle, Started), DriverError>;

    /// Finds a task again after a restart of the agent; [`DriverError::NotFound`] if it is gone without trace.
    /// A task that ended meanwhile is found: `wait` then returns its exit status at once.
    async fn recover(&self, handle: &TaskHandle) -> Result<Started, DriverError>;

    /// Waits until the task ends. May be called again and returns the same status.
    async fn wait(&self, handle: &TaskHandle) -> Result<ExitStatus, DriverError>;

    /// Sends a signal, by name (`SIGHUP`).
    async fn signal(&self, handle: &TaskHandle, signal: &str) -> Result<(), DriverError>;

    /// Asks the task to end with `signal` (the driver's default when empty), and ends it by force after `timeout`.
    /// Returns once it has ended; ending a task that has ended is fine.
    async fn stop(&self, handle: &TaskHandle, signal: &str, timeout: Duration) -> Result<(), DriverError>;

    /// Removes everything the ended task left behind (container, cgroup, mounts). Idempotent.
    async fn remove(&self, handle: &TaskHandle) -> Result<(), DriverError>;

    /// Present resource use.
    async fn stats(&self, handle: &TaskHandle) -> Result<TaskStats, DriverError>;

    /// Runs a command inside the task and returns its exit code and output; for script checks and template
    /// change scripts.
    async fn exec(
        &self,
        handle: &TaskHandle,
        command: &[String],
        timeout: Duration,
    ) -> Result<(i32, Vec<u8>), DriverError>;

    /// Whether tasks can join a network namespace that their group has to itself.
    fn joins_networks(&self) -> bool {
        true
    }

    /// Whether tasks in such a namespace can have a hostname of their own.
    fn sets_hostname(&self) -> bool {
        false
    }

    /// Whether the network namespace of a group with tasks of this driver must be made by the driver.
    fn makes_networks(&self) -> bool {
        false
    }

    /// Makes the network namespace of an allocation, without any connection. `hostname` may be empty.
    async fn make_network(&self, alloc: AllocId, hostname: &str) -> Result<MadeNetwork, DriverError> {
        let _ = (alloc, hostname);
        Err(DriverError::Fatal(format!("driver {} makes no networks", self.name())))
    }

    /// Removes such a namespace, or what there is of one whose making was interrupted. Idempotent.
    async fn remove_network(&self, alloc: AllocId, made: &MadeNetwork) -> Result<(), DriverError> {
        let _ = (alloc, made);
        Ok(())
    }

    /// Removes what the driver made for the network namespace of an allocation whose tasks have all ended.
    /// Idempotent.
    async fn leave_network(&self, alloc: AllocId) -> Result<(), DriverError> {
        let _ = alloc;
        Ok(())
    }

    /// Runs a command inside the task with somebody at the other end. Drivers that cannot say so.
    async fn session(&self, handle: &TaskHandle, request: &ExecRequest) -> Result<ExecSession, DriverError> {
        let _ = (handle, request);
        Err(DriverError::Fatal(format!("driver {} does not support exec", self.name())))
    }
}

impl DriverError {
    /// The restart policy may try again.
    pub fn is_recoverable(&self) -> bool {
        matches!(self, Self::Recoverable(_))
    }
}

/// Drivers by name.
pub type Drivers = BTreeMap<String, Arc<dyn Driver>>;

/// What the agent's configuration says about drivers.
#[derive(Clone, Debug)]
pub struct DriverOptions {
    /// Starts supervisors; share one per agent.
    pub supervisor: Supervisor,
    pub raw_exec: bool,
    /// Whom tasks of `raw_exec` must not run as.
    pub raw_exec_denied: users::Denied,
    /// The most processes and threads of a task of `raw_exec`; `None` leaves it to the machine.
    pub raw_exec_pids_limit: Option<u32>,
    /// Tasks of `raw_exec` stay in the agent's control groups.
    pub raw_exec_no_cgroups: bool,
    pub mock: bool,
    /// Directory of control groups below their mount points.
    pub cgroup_parent: String,
    /// Host path to path inside, for `exec` and `java`.
    pub chroot: BTreeMap<PathBuf, PathBuf>,
    pub exec: exec::IsolationOptions,
    pub java: exec::IsolationOptions,
    pub qemu: qemu::QemuOptions,
    pub docker: docker::DockerOptions,
    pub mock_health: mock::Outage,
}

impl Default for DriverOptions {
    fn default() -> Self {
        Self {
            supervisor: Supervisor::default(),
            raw_exec: false,
            raw_exec_denied: users::Denied::default(),
            raw_exec_pids_limit: None,
            raw_exec_no_cgroups: false,
            mock: false,
            cgroup_parent: "nomad".to_owned(),
            chroot: exec::DEFAULT_CHROOT.iter().map(|path| (path.into(), path.into())).collect(),
            exec: exec::IsolationOptions::default(),
            java: exec::IsolationOptions::default(),
            qemu: qemu::QemuOptions::default(),
            docker: docker::DockerOptions::default(),
            mock_health: mock::Outage::default(),
        }
    }
}

/// The table of all drivers; which of them work here is for their fingerprint to say.
pub fn all(options: &DriverOptions) -> Drivers {
    let executor =
        Executor { supervisor: options.supervisor.clone(), cgroup_parent: options.cgroup_parent.clone() };
    let isolated = |own: &exec::IsolationOptions| exec::Isolated {
        executor: executor.clone(),
        chroot: options.chroot.clone(),
        options: own.clone(),
    };
    let raw_exec = raw_exec::RawExec {
        executor: executor.clone(),
        enabled: options.raw_exec,
        denied: options.raw_exec_denied.clone(),
        pids_limit: options.raw_exec_pids_limit,
        no_cgroups: options.raw_exec_no_cgroups,
    };
    let cores = cgroup::Cores::of(cgroup::Hierarchy::of_this_machine(), &options.cgroup_parent);
    let mut table: Vec<Arc<dyn Driver>> = vec![
        Arc::new(docker::Docker::new(options.docker.clone(), cores)),
        Arc::new(raw_exec),
        Arc::new(exec::Exec { isolated: isolated(&options.exec) }),
        Arc::new(java::Java { isolated: isolated(&options.java) }),
        Arc::new(qemu::Qemu { executor: executor.clone(), options: options.qemu.clone() }),
    ];
    if options.mock {
        table.push(Arc::new(mock::Mock::new(options.mock_health)));
    }
    table.into_iter().map(|driver| (driver.name().to_owned(), driver)).collect()
}

/// Detaches everything mounted at or below `path`, deepest first. Call it before a directory is removed: removing
/// through a mount would remove what belongs to others.
///
/// # Errors
/// A mount could not be detached; the directory must then not be removed.
pub fn unmount_all_below(path: &Path) -> io::Result<()> {
    let path = match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")?;
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let points: Vec<PathBuf> = points.filter(|point| point.starts_with(&path)).collect();
    // Later lines were mounted later, so they may hide or hold earlier ones.
    for point in points.iter().rev() {
        let flags = nix::mount::MntFlags::MNT_DETACH | nix::mount::MntFlags::UMOUNT_NOFOLLOW;
        match nix::mount::umount2(point, flags) {
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(error) => {
                return Err(io::Error::other(format!("cannot unmount {}: {error}", point.display())));
            }
        }
    }
    Ok(())
}

/// The kernel writes blanks in mount points as octal numbers.
fn unescape(point: &str) -> PathBuf {
    let plain = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    PathBuf::from(plain.iter().fold(point.to_owned(), |text, (code, sign)| text.replace(code, sign)))
}

/// A driver that can be used.
fn healthy(name: &str, attributes: impl IntoIterator<Item = (String, String)>) -> DriverInfo {
    let own = (format!("driver.{name}"), "1".to_owned());
    DriverInfo {
        attributes: std::iter::once(own).chain(attributes).collect(),
        detected: true,
        healthy: true,
        health_description: "Healthy".to_owned(),
        ..DriverInfo::default()
    }
}

/// A driver that is not there.
fn undetected(why: &str) -> DriverInfo {
    DriverInfo { health_description: why.to_owned(), ..DriverInfo::default() }
}

/// What is wrong with the options of a built-in driver.
fn problems(driver: &str, fault: Fault, config: &Map<String, Value>) -> Vec<Misfit> {
    let table = driver_schema::options_of(driver).unwrap_or_default();
    driver_schema::check(table, config).into_iter().filter(|misfit| misfit.fault == fault).collect()
}

/// Values that a built-in driver refuses.
fn value_problems(driver: &str, config: &Map<String, Value>) -> Vec<String> {
    problems(driver, Fault::Value, config).into_iter().map(|misfit| misfit.text).collect()
}

/// Turns problems into one error.
fn refuse(problems: Vec<String>) -> Result<(), DriverError> {
    if problems.is_empty() { Ok(()) } else { Err(DriverError::BadConfig(problems.join("; "))) }
}

/// The same for values that only starting shows to be wrong.
fn refuse_values(problems: Vec<String>) -> Result<(), DriverError> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(DriverError::BadConfig(format!("failed driver config validation: {}", problems.join("; "))))
}
