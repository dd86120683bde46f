//! What is prepared around a task and kept up while it runs: artifacts, templates, services with their checks.
//!
//! Each concern has one file; this one holds the types they share with the runners. Hooks are given interpolated
//! blocks of the job and never look at the job itself.

pub mod artifacts;
pub mod checks;
pub mod destination;
pub(in crate::agent) mod http;
pub mod services;
pub mod templates;

pub(in crate::agent) use self::http::install_tls;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::agent::consul;
use crate::clock::Clock;
use crate::drivers::TaskDirs;
use crate::model::allocation::NetworkStatus;
use crate::model::id::AllocId;
use crate::model::id::NodeId;
use crate::model::network::Network;
use crate::model::network::PortMapping;
use crate::model::service::ServiceRegistration;
use crate::model::task::ChangeScript;

/// Why a hook could not do its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct HookError {
    /// For the task's event, in Nomad's words where it has some.
    pub message: String,
    /// The restart policy may try again.
    pub recoverable: bool,
}

impl HookError {
    /// Trying again may help.
    pub fn recoverable(message: impl Into<String>) -> Self {
        Self { message: message.into(), recoverable: true }
    }

    /// Trying again cannot help: the job file is wrong.
    pub fn fatal(message: impl Into<String>) -> Self {
        Self { message: message.into(), recoverable: false }
    }
}

/// Progress of a hook: a text for an event of the task.
pub type HookProgress = Arc<dyn Fn(&str) + Send + Sync>;

/// Limits of artifact downloads, and who will own the files.
#[derive(Clone, Debug)]
pub struct ArtifactOptions {
    /// The task's user, for artifacts with `chown`; empty: leave the owner alone.
    pub user: String,
    /// An HTTP download that has not ended after this time fails.
    pub http_read_timeout: Duration,
    /// Largest HTTP download, bytes.
    pub http_max_bytes: u64,
    pub gcs_timeout: Duration,
    pub git_timeout: Duration,
    pub s3_timeout: Duration,
    /// Variables of the agent that downloads may use: credentials, proxies.
    pub env: BTreeMap<String, String>,
    /// How long a download may take before the task's events tell how far it is.
    pub progress_after: Duration,
    /// Largest number of files in one archive.
    pub decompression_files: usize,
    /// Largest unpacked size of one archive, bytes.
    pub decompression_bytes: u64,
}

impl Default for ArtifactOptions {
    fn default() -> Self {
        Self {
            user: String::new(),
            http_read_timeout: Duration::from_secs(30 * 60),
            http_max_bytes: 100 << 30,
            gcs_timeout: Duration::from_secs(30 * 60),
            git_timeout: Duration::from_secs(30 * 60),
            s3_timeout: Duration::from_secs(30 * 60),
            env: BTreeMap::new(),
            progress_after: Duration::from_secs(10),
            decompression_files: 4096,
            decompression_bytes: 100 << 30,
        }
    }
}

/// What the agent's configuration says about templates.
#[derive(Clone, Debug)]
pub struct TemplateOptions {
    /// Functions that fail with `function is disabled`.
    pub denied: Vec<String>,
    /// The function `file` may read any file of the machine.
    pub disable_file_sandbox: bool,
    /// Quiet time before a template is rendered again, when it does not say: at least, and at most.
    pub wait: (Duration, Duration),
    /// What templates may ask for: least and longest.
    pub wait_bounds: (Option<Duration>, Option<Duration>),
    /// Where `key`, `service` and the like are answered; without it they fail.
    pub consul: Option<consul::Client>,
}

impl Default for TemplateOptions {
    fn default() -> Self {
        Self {
            denied: vec!["plugin".to_owned(), "writeToFile".to_owned()],
            disable_file_sandbox: false,
            wait: (Duration::from_secs(5), Duration::from_secs(4 * 60)),
            wait_bounds: (None, None),
            consul: None,
        }
    }
}

/// What is known about a variable besides its items.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VariableMeta {
    pub namespace: String,
    pub path: String,
    pub create_index: u64,
    pub modify_index: u64,
    /// Nanoseconds since 1970, as the next.
    pub create_time: i64,
    pub modify_time: i64,
}

/// A variable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variable {
    pub meta: VariableMeta,
    pub items: BTreeMap<String, String>,
}

/// Everything templates of one task may look at.
#[derive(Clone)]
pub struct TemplateContext {
    /// The task's environment, as it is before templates add to it.
    pub env: BTreeMap<String, String>,
    /// `node.unique.id`, `attr.kernel.name`, `meta.rack`, …: also readable with the `env` function.
    pub node: BTreeMap<String, String>,
    pub dirs: TaskDirs,
    pub namespace: String,
    pub region: String,
    pub alloc: AllocId,
    pub task: String,
    pub catalog: Arc<dyn Catalog>,
    pub options: Arc<TemplateOptions>,
    pub clock: Arc<dyn Clock>,
    /// Seeds the choice of a splay, so that a simulation repeats itself.
    pub seed: u64,
}

/// What a running task must be told after templates changed. Several templates that change together yield one
/// restart, or all their signals and scripts.
#[derive(Clone, Debug, PartialEq)]
pub enum TemplateChange {
    /// Restart the task; not counted by the restart policy.
    Restart,
    /// Send this signal (`SIGHUP`).
    Signal(String),
    /// Run this script in the task.
    Script(ChangeScript),
    /// A template cannot be rendered any more: the task is killed and fails. The text begins `Template failed: `.
    Failed(String),
}

/// Registered services, as templates see them.
#[async_trait]
pub trait Catalog: Send + Sync + 'static {
    /// The registrations of `name` in `namespace` whose checks pass, ordered by id, and the index of the catalog they
    /// were read at. For `<name>|any` those with failing or undecided checks, too.
    ///
    /// # Errors
    /// When the catalog cannot be read at all yet; trying again helps.
    async fn services(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<(u64, Vec<ServiceRegistration>), HookError>;

    /// Names of all services of `namespace` with the union of their tags, ordered, and the index.
    ///
    /// # Errors
    /// As for `services`.
    async fn names(&self, namespace: &str) -> Result<(u64, BTreeMap<String, Vec<String>>), HookError>;

    /// The variable at `path`, `None` when there is no such variable, and the index.
    ///
    /// # Errors
    /// As for `services`; not recoverable when this catalog has no variables.
    async fn variable(&self, namespace: &str, path: &str) -> Result<(u64, Option<Variable>), HookError> {
        Err(HookError::fatal(format!("nomad.var.block({path}@{namespace}): variables cannot be read here")))
    }

    /// What is known of all variables whose path begins with `prefix`, by path, and the index.
    ///
    /// # Errors
    /// As for `variable`.
    async fn variables(&self, namespace: &str, prefix: &str) -> Result<(u64, Vec<VariableMeta>), HookError> {
        Err(HookError::fatal(format!("nomad.var.list({prefix}@{namespace}): variables cannot be read here")))
    }

    /// Waits until the catalog has changed after index `since`, and returns its index then. Cancel-safe.
    async fn changed(&self, since: u64) -> u64;
}

/// Where registrations go: the agent writes them at `reported/services/<id>`, batched. Equal values are dropped.
pub trait ServiceSink: Send + Sync + 'static {
    /// Registers, or changes a registration (also the results of its checks).
    fn put(&self, registration: ServiceRegistration);

    /// Removes a registration by its id.
    fn delete(&self, id: &str);
}

/// Runs a command inside a running task.
#[async_trait]
pub trait TaskExec: Send + Sync + 'static {
    /// Exit code and output.
    ///
    /// # Errors
    /// When the task does not run, its driver cannot do this, or `timeout` has passed.
    async fn exec(
        &self,
        task: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<(i32, Vec<u8>), HookError>;
}

/// Whose services are registered, and at which addresses.
#[derive(Clone)]
pub struct ServiceContext {
    pub alloc: AllocId,
    pub namespace: String,
    pub job_id: String,
    pub group: String,
    /// The task for services of a task, `None` for the group's.
    pub task: Option<String>,
    pub node_id: NodeId,
    pub datacenter: String,
    /// An unpromoted canary: `canary_tags` count instead of `tags` when there are any.
    pub canary: bool,
    /// The group's ports.
    pub ports: Vec<PortMapping>,
    /// The task's older networks, with granted ports.
    pub task_networks: Vec<Network>,
    /// The node's ordinary address.
    pub node_ip: String,
    /// Of allocations with a network of their own.
    pub network_status: Option<NetworkStatus>,
    /// Address of the task in the driver's own network.
    pub driver_address: Option<String>,
    /// Others reach the task there: services without an address mode are registered with that address.
    pub driver_advertises: bool,
    /// Ports at that address by label, where the driver chose them.
    pub driver_ports: BTreeMap<String, u16>,
    /// For script checks.
    pub exec: Arc<dyn TaskExec>,
    pub clock: Arc<dyn Clock>,
}

/// A demand of a check with `check_restart`: restart this task. Counted by the restart policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckRestartRequest {
    /// The task named by the check or service; empty: every task of the group.
    pub task: String,
    /// For the event: `healthcheck: check "<name>" unhealthy`.
    pub reason: String,
}

/// How the checks of a set of services stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckHealth {
    /// Checks that the job has.
    pub total: usize,
    /// Checks that pass, counting failures that `on_update` tolerates.
    pub passing: usize,
}

impl CheckHealth {
    /// No check is failing or undecided.
    pub fn is_passing(&self) -> bool {
        self.passing == self.total
    }
}

// Entry points of the hooks. The runners call exactly these:
//
// artifacts.rs
//   pub async fn fetch(artifact: &Artifact, dirs: &TaskDirs, options: &ArtifactOptions, progress: &HookProgress)
//       -> Result<(), HookError>
//   The artifact is interpolated. Called once per artifact, in order. A dropped future leaves no half-written file.
//
// templates.rs
//   pub struct TemplateManager
//   impl TemplateManager {
//       pub async fn start(templates: Vec<Template>, context: TemplateContext, progress: HookProgress)
//           -> Result<(TemplateManager, tokio::sync::mpsc::Receiver<TemplateChange>), HookError>
//         Returns once every template has been rendered. `progress` gets texts such as `Missing: nomad.var…`.
//         A template error is `HookError::fatal("Template failed: …")`; source and destination trouble has
//         the text `template: …`.
//       pub fn env(&self) -> Result<BTreeMap<String, String>, HookError>
//         Variables from the files of templates with `envvars`, read anew: before each start of the task.
//   }
//   Dropping the manager ends its work. The receiver is bounded and read while the task runs or restarts.
//
// services.rs
//   pub struct ServiceManager
//   impl ServiceManager {
//       pub fn start(context: ServiceContext, services: Vec<Service>, sink: Arc<dyn ServiceSink>,
//           restarts: tokio::sync::mpsc::Sender<CheckRestartRequest>) -> ServiceManager
//         Registers at once (only services with provider `nomad` and `consul` alike go to the sink) and starts
//         the checks. Needs a tokio runtime. Services are interpolated.
//       pub fn update(&self, context: ServiceContext, services: Vec<Service>)
//         After an in-place update or a new driver address: registers what is new or changed, deletes what went.
//       pub fn task_restarted(&self)
//         Starts the grace periods of `check_restart` again.
//       pub fn deregister(&self)
//         Deletes every registration and ends the checks. Idempotent.
//       pub fn health(&self) -> CheckHealth
//       pub fn results(&self) -> BTreeMap<String, CheckResult>
//         By check id, for `/v1/client/allocation/<id>/checks`.
//   }
//   Dropping the manager ends the checks but leaves the registrations: an agent that shuts down keeps them.
//   An allocation has one manager for its group's services and one per task with services.
