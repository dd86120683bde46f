//! What all runners on this machine share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::agent::dice::Dice;
use crate::agent::env::node_names;
use crate::agent::gc::CollectionLimits;
use crate::agent::hooks::ArtifactOptions;
use crate::agent::hooks::Catalog;
use crate::agent::hooks::HookError;
use crate::agent::hooks::ServiceSink;
use crate::agent::hooks::TaskExec;
use crate::agent::hooks::TemplateOptions;
use crate::agent::ledger::AllocRecord;
use crate::agent::lifecycle::Role;
use crate::agent::migration::Elsewhere;
use crate::agent::network::Networks;
use crate::agent::report::Outbox;
use crate::agent::surroundings::Services;
use crate::agent::surroundings::Surroundings;
use crate::agent::users::UserRules;
use crate::agent::workload::WorkloadContext;
use crate::drivers::DriverError;
use crate::drivers::Drivers;
use crate::drivers::TaskHandle;
use crate::model::allocation::Allocation;
use crate::model::group::RestartPolicy;
use crate::model::group::TaskGroup;
use crate::model::identity::Tokens;
use crate::model::job::Job;
use crate::model::node::NodeInfo;
use crate::model::service::ServiceRegistration;
use crate::model::task::Task;
use crate::model::time::Span;
use crate::model::time::Time;

const DEFAULT_KILL_TIMEOUT: Span = Span::from_secs(5);

/// Settings of real tasks.
#[derive(Clone)]
pub struct MachineConfig {
    /// Allocation directories are made in here.
    pub alloc_root: PathBuf,
    pub region: String,
    pub drivers: Drivers,
    pub surroundings: Arc<dyn Surroundings>,
    pub catalog: Arc<dyn Catalog>,
    /// What is known about the machine; the agent's newest.
    pub node: watch::Receiver<Arc<NodeInfo>>,
    /// Inherited by tasks of some drivers; see `env::host_env`.
    pub host_env: BTreeMap<String, String>,
    pub artifacts: ArtifactOptions,
    pub templates: Arc<TemplateOptions>,
    pub users: UserRules,
    /// How data of allocations on other nodes is had.
    pub elsewhere: Arc<dyn Elsewhere>,
    /// The longest `kill_timeout` in force; longer ones are cut.
    pub max_kill_timeout: Span,
    /// When directories of ended allocations are removed.
    pub collection: CollectionLimits,
    pub networks: Arc<Networks>,
}

/// The machine while an agent is at work.
pub struct Machine {
    pub config: MachineConfig,
    pub context: WorkloadContext,
    pub dice: Mutex<Dice>,
    /// Held (for reading) between the start of a task and the moment its handle is safe.
    pub starting: tokio::sync::RwLock<()>,
    /// So many directories may be removed at the same time.
    pub removals: tokio::sync::Semaphore,
}

impl Machine {
    pub fn now(&self) -> Time {
        self.context.clock.now()
    }

    pub fn node(&self) -> Arc<NodeInfo> {
        self.config.node.borrow().clone()
    }

    pub fn node_names(&self) -> BTreeMap<String, String> {
        node_names(&self.node(), &self.config.region)
    }

    /// MHz of all processors that tasks may use; 0 if unknown.
    pub fn usable_mhz(&self) -> i64 {
        let node = self.node();
        node.attributes.get("cpu.usablecompute").and_then(|mhz| mhz.parse().ok()).unwrap_or(0)
    }

    /// How long a task may take to end.
    pub fn kill_timeout(&self, task: &Task) -> Span {
        task.kill_timeout.unwrap_or(DEFAULT_KILL_TIMEOUT).min(self.config.max_kill_timeout)
    }

    pub fn chance(&self) -> f64 {
        self.dice.lock().fraction()
    }

    pub fn seed(&self) -> u64 {
        self.dice.lock().next_u64()
    }
}

/// An allocation and the version of its job that is in force.
#[derive(Clone, Debug)]
pub struct Setup {
    pub allocation: Arc<Allocation>,
    pub job: Arc<Job>,
}

impl Setup {
    /// The allocation's group.
    pub fn group(&self) -> Option<&TaskGroup> {
        self.job.group(&self.allocation.task_group)
    }

    /// A task of the group.
    pub fn task(&self, name: &str) -> Option<&Task> {
        self.group()?.task(name)
    }

    /// The restart policy of a task: its own or its group's.
    pub fn restart_policy(&self, task: &Task) -> RestartPolicy {
        let own = task.restart_policy.clone();
        own.or_else(|| self.group().and_then(|group| group.restart_policy.clone())).unwrap_or_else(|| {
            let batch = self.job.job_type().is_batch();
            RestartPolicy {
                attempts: if batch { 3 } else { 2 },
                interval: Span::from_secs(if batch { 24 * 3600 } else { 30 * 60 }),
                delay: Span::from_secs(15),
                mode: "fail".to_owned(),
                render_templates: false,
            }
        })
    }

    /// Does the task's role let it be?
    pub fn role(&self, task: &Task) -> Role {
        Role::of(task)
    }
}

/// What the runners of one allocation and the API share.
pub struct AllocShared {
    pub machine: Arc<Machine>,
    /// The newest state; written by the allocation's runner only.
    pub record: Mutex<AllocRecord>,
    /// The newest tokens of its tasks.
    pub tokens: watch::Sender<Arc<Tokens>>,
    /// Services at work, by task; the group's under the empty name.
    pub services: Mutex<BTreeMap<String, Box<dyn Services>>>,
    /// The allocation has ended.
    pub ended: watch::Sender<bool>,
    pub handover: Arc<Handover>,
    /// Held while the record is written and reported.
    pub saving: tokio::sync::Mutex<()>,
    pub late: Mutex<LateReport>,
}

/// The report of an allocation whose record could not be written yet.
#[derive(Debug, Default)]
pub enum LateReport {
    #[default]
    Nothing,
    /// Made, with this setup, as soon as the record can be written.
    Due(Setup),
    /// The allocation was forgotten: it has no report any more.
    Never,
}

/// Whether the data of an ended allocation is being, or has been, fetched by its replacement.
#[derive(Debug, Default)]
pub struct Handover {
    sending: AtomicUsize,
    sent: AtomicBool,
}

/// Data is on its way as long as this lives.
pub struct Sending(Arc<Handover>);

impl Handover {
    /// From now on data is on its way.
    pub fn begin(self: &Arc<Self>) -> Sending {
        self.sending.fetch_add(1, Ordering::SeqCst);
        Sending(Arc::clone(self))
    }

    /// True while data is on its way.
    pub fn is_under_way(&self) -> bool {
        self.sending.load(Ordering::SeqCst) > 0
    }

    /// True once somebody has fetched the data, or given up on it.
    pub fn is_over(&self) -> bool {
        self.sent.load(Ordering::SeqCst) && !self.is_under_way()
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.sent.store(true, Ordering::SeqCst);
        self.0.sending.fetch_sub(1, Ordering::SeqCst);
    }
}

impl AllocShared {
    /// The handle of a task that may be running.
    pub fn handle(&self, task: &str) -> Option<TaskHandle> {
        self.record.lock().tasks.get(task).and_then(|task| task.handle.clone())
    }

    /// Runs a command in a task.
    ///
    /// # Errors
    /// Those of the driver; [`DriverError::NotFound`] if the task does not run.
    pub async fn exec_in(
        &self,
        task: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<(i32, Vec<u8>), DriverError> {
        let handle = self.handle(task).ok_or(DriverError::NotFound)?;
        let driver = self.machine.config.drivers.get(handle.driver.as_str()).ok_or(DriverError::NotFound)?;
        driver.exec(&handle, command, timeout).await
    }
}

/// Lets checks run commands in tasks without keeping the allocation alive.
pub struct WeakExec(pub std::sync::Weak<AllocShared>);

#[async_trait]
impl TaskExec for WeakExec {
    async fn exec(
        &self,
        task: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<(i32, Vec<u8>), HookError> {
        let shared = self.0.upgrade().ok_or_else(|| HookError::fatal("the allocation has ended"))?;
        let result = shared.exec_in(task, command, timeout).await;
        result.map_err(|error| HookError::recoverable(error.to_string()))
    }
}

/// Registrations go to the outbox.
pub struct OutboxSink(pub Outbox);

impl ServiceSink for OutboxSink {
    fn put(&self, registration: ServiceRegistration) {
        self.0.put_service(&registration);
    }

    fn delete(&self, id: &str) {
        self.0.delete_service(id);
    }
}
