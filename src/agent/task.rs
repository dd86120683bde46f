//! The runner of one task: prepares, starts, watches, restarts and ends it, and notes every change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use futures::future::BoxFuture;
use futures::future::OptionFuture;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::agent::dirs;
use crate::agent::env;
use crate::agent::env::EnvSource;
use crate::agent::events;
use crate::agent::expand::Names;
use crate::agent::hooks::ArtifactOptions;
use crate::agent::hooks::CheckRestartRequest;
use crate::agent::hooks::HookError;
use crate::agent::hooks::HookProgress;
use crate::agent::hooks::ServiceContext;
use crate::agent::hooks::TemplateChange;
use crate::agent::hooks::TemplateContext;
use crate::agent::ledger::TaskRecord;
use crate::agent::machine::AllocShared;
use crate::agent::machine::Machine;
use crate::agent::machine::OutboxSink;
use crate::agent::machine::Setup;
use crate::agent::machine::WeakExec;
use crate::agent::machine::kill_timeout;
use crate::agent::network;
use crate::agent::restart::Cause;
use crate::agent::restart::Verdict;
use crate::agent::restart::decide;
use crate::agent::surroundings::TemplateTask;
use crate::agent::surroundings::Templates;
use crate::drivers::Driver;
use crate::drivers::DriverError;
use crate::drivers::ExitStatus;
use crate::drivers::Started;
use crate::drivers::TaskConfig;
use crate::drivers::TaskDirs;
use crate::drivers::TaskId;
use crate::model::allocation::TaskEvent;
use crate::model::allocation::TaskRunState;
use crate::model::network::PortMapping;
use crate::model::task::Task;
use crate::model::task::Template;
use crate::model::time::Span;

/// A driver that cannot end a task is asked again this often, with growing pauses.
const STOP_ATTEMPTS: u32 = 5;
const FIRST_STOP_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_STOP_PAUSE: Duration = Duration::from_secs(120);

/// What the allocation wants of a task.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// Its turn has not come.
    Hold,
    Run,
    /// End, for the reason told by the event, if any.
    Stop(Option<TaskEvent>),
}

/// Standing orders, newest counts.
#[derive(Clone, Debug)]
pub struct TaskOrders {
    pub wanted: Wanted,
    pub setup: Setup,
    /// Skip the task's `shutdown_delay`.
    pub hurry: bool,
}

/// Single orders.
#[derive(Debug)]
pub enum TaskRequest {
    /// `counted`: a check asked, so it counts as a failure.
    Restart {
        reason: String,
        counted: bool,
    },
    Signal {
        signal: String,
        reply: oneshot::Sender<Result<(), DriverError>>,
    },
}

/// A change of a task, told to its allocation.
pub struct Note {
    pub task: String,
    pub record: TaskRecord,
    /// Told when the change is safe in the ledger.
    pub saved: Option<oneshot::Sender<()>>,
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing has been done for the next run.
    Idle,
    Prepared,
    Running,
    /// Waiting until it may start again.
    Delayed,
    Dead,
}

/// What to do with a task now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait for other orders.
    Hold,
    Prepare,
    Start,
    /// Stay with the running task.
    Watch,
    /// Wait for the end of the delay, or other orders.
    Delay,
    /// End what runs.
    Stop,
    /// Give up what does not run.
    Abandon,
    /// Nothing is left to do.
    End,
}

/// The next step of a task.
pub fn next_step(wanted: &Wanted, seen: Seen) -> Step {
    match (wanted, seen) {
        (_, Seen::Dead) => Step::End,
        (Wanted::Stop(_), Seen::Running) => Step::Stop,
        (Wanted::Stop(_), Seen::Idle | Seen::Prepared | Seen::Delayed) => Step::Abandon,
        (Wanted::Hold | Wanted::Run, Seen::Running) => Step::Watch,
        (Wanted::Hold, Seen::Idle | Seen::Prepared | Seen::Delayed) => Step::Hold,
        (Wanted::Run, Seen::Idle) => Step::Prepare,
        (Wanted::Run, Seen::Prepared) => Step::Start,
        (Wanted::Run, Seen::Delayed) => Step::Delay,
    }
}

/// Why a task could not be brought to run.
struct Trouble {
    event: TaskEvent,
    recoverable: bool,
    /// Fails at once, without asking the restart policy.
    fatal: bool,
}

impl Trouble {
    fn hook(name: &str, error: &HookError) -> Self {
        let text = if error.message.starts_with(name) {
            error.message.clone()
        } else {
            format!("{name}: {}", error.message)
        };
        Self { event: events::hook_failed(&text), recoverable: error.recoverable, fatal: false }
    }

    fn template(error: &HookError) -> Self {
        if error.message.starts_with("Template failed") {
            Self { event: events::killing_because(&error.message), recoverable: false, fatal: true }
        } else {
            Self::hook("template", error)
        }
    }
}

/// How watching a running task ended.
enum Outcome {
    Exited(Result<ExitStatus, DriverError>),
    /// Orders changed to stop.
    Ordered,
    Restart {
        reason: String,
        counted: bool,
    },
    /// A template or its script failed: the event says how.
    Broken(TaskEvent),
}

/// Templates at work and what they tell.
pub type RunningTemplates = (Box<dyn Templates>, mpsc::Receiver<TemplateChange>);

/// Runs one task until it is dead.
pub struct TaskRunner {
    pub name: String,
    pub shared: Arc<AllocShared>,
    pub machine: Arc<Machine>,
    pub orders: watch::Receiver<TaskOrders>,
    pub requests: mpsc::Receiver<TaskRequest>,
    pub notes: mpsc::Sender<Note>,
    /// Progress of hooks and drivers, as events.
    pub progress: (mpsc::UnboundedSender<TaskEvent>, mpsc::UnboundedReceiver<TaskEvent>),
    pub check_restarts: mpsc::Sender<CheckRestartRequest>,
    pub record: TaskRecord,
    pub templates: Option<RunningTemplates>,
    pub delay_until: Instant,
    /// Address in the driver's own network.
    pub driver_address: Option<String>,
}

impl TaskRunner {
    /// Runs until the task is dead and that is noted.
    pub async fn run(mut self) {
        let mut seen = self.recover().await;
        loop {
            let wanted = self.orders.borrow_and_update().wanted.clone();
            seen = match next_step(&wanted, seen) {
                Step::Hold => {
                    if self.orders.changed().await.is_err() {
                        return;
                    }
                    seen
                }
                Step::Prepare => match self.until_stopped(Self::prepare).await {
                    None => seen,
                    Some(Ok(())) => Seen::Prepared,
                    Some(Err(trouble)) => self.settle_trouble(trouble).await,
                },
                Step::Start => match self.start().await {
                    Ok(()) => Seen::Running,
                    Err(trouble) => self.settle_trouble(trouble).await,
                },
                Step::Watch => self.watch().await,
                Step::Delay => self.delay().await,
                Step::Stop => self.stop(&wanted).await,
                Step::Abandon => self.abandon(&wanted).await,
                Step::End => return,
            };
        }
    }

    fn setup(&self) -> Setup {
        self.orders.borrow().setup.clone()
    }

    /// The task's block in the newest version; `None` cannot happen while the group keeps its tasks.
    fn spec(setup: &Setup, name: &str) -> Task {
        setup.task(name).cloned().unwrap_or_default()
    }

    fn driver(&self, task: &Task) -> Option<Arc<dyn Driver>> {
        self.machine.config.drivers.get(task.driver.as_str()).map(Arc::clone)
    }

    fn event(&mut self, event: TaskEvent) {
        events::record(&mut self.record.state, self.machine.now(), event);
    }

    /// Tells the allocation what is new.
    async fn note(&mut self) {
        while let Ok(event) = self.progress.1.try_recv() {
            self.event(event);
        }
        let note = Note { task: self.name.clone(), record: self.record.clone(), saved: None };
        // Without its allocation's runner the task has nobody to tell: the agent is going.
        let _ = self.notes.send(note).await;
    }

    async fn note_safely(&mut self) {
        let (saved, done) = oneshot::channel();
        let note = Note { task: self.name.clone(), record: self.record.clone(), saved: Some(saved) };
        if self.notes.send(note).await.is_ok() {
            let _ = done.await;
        }
    }

    /// Runs `work` unless the order to stop comes first.
    async fn until_stopped<T>(&mut self, work: impl AsyncFnOnce(&mut Self) -> T) -> Option<T> {
        let mut orders = self.orders.clone();
        let stopped = async move {
            // An error means that the allocation's runner is gone, and with it this task's.
            let _ = orders.wait_for(|orders| matches!(orders.wanted, Wanted::Stop(_))).await;
        };
        tokio::select! {
            result = work(self) => Some(result),
            () = stopped => None,
        }
    }

    /// Finds a task again that an earlier agent started.
    async fn recover(&mut self) -> Seen {
        if self.record.state.state == TaskRunState::Dead {
            return Seen::Dead;
        }
        let Some(handle) = self.record.handle.clone() else { return Seen::Idle };
        let setup = self.setup();
        let task = Self::spec(&setup, &self.name);
        let Some(driver) = self.driver(&task) else { return Seen::Idle };
        let mut pause = Duration::from_millis(200);
        loop {
            match driver.recover(&handle).await {
                Ok(Started { address }) => {
                    self.driver_address = address;
                    // Its templates are taken up while it is watched.
                    self.register_services(&setup, &task);
                    return Seen::Running;
                }
                Err(DriverError::Recoverable(error)) => {
                    tracing::warn!(task = %self.name, %error, "cannot look for the task yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                Err(error) => {
                    tracing::warn!(alloc = %setup.allocation.id, task = %self.name, %error, "the task is gone");
                    let _ = driver.remove(&handle).await;
                    self.record.handle = None;
                    self.record.state.state = TaskRunState::Pending;
                    self.event(events::restore_failed());
                    self.note().await;
                    return Seen::Idle;
                }
            }
        }
    }

    fn dirs(&self, setup: &Setup) -> TaskDirs {
        dirs::task_dirs(&self.machine.config.alloc_root, setup.allocation.id, &self.name)
    }

    /// The environment without what templates add; not yet cleaned.
    fn base_env(&self, setup: &Setup, task: &Task) -> BTreeMap<String, String> {
        let Some(group) = setup.group() else { return BTreeMap::new() };
        let network = self.shared.record.lock().network.clone();
        env::build(&EnvSource {
            allocation: &setup.allocation,
            job: &setup.job,
            group,
            task,
            node: &self.machine.node(),
            node_names: &self.machine.node_names(),
            region: &self.machine.config.region,
            dirs: &self.dirs(setup),
            network: network.as_ref(),
            host_env: &self.machine.config.host_env,
        })
    }

    /// Directories, payload, artifacts (once), templates (once, or as the restart policy says).
    async fn prepare(&mut self) -> Result<(), Trouble> {
        let setup = self.setup();
        let task = Self::spec(&setup, &self.name);
        if !self.record.prepared {
            self.event(events::setup());
            self.note().await;
            self.build_directories(&setup, &task).await?;
            self.write_payload(&setup, &task)?;
            self.fetch_artifacts(&setup, &task).await?;
            self.record.prepared = true;
        }
        if self.record.run > 0 && setup.restart_policy(&task).render_templates {
            self.templates = None;
        }
        self.start_templates(&setup, &task).await.map_err(|error| Trouble::template(&error))
    }

    async fn build_directories(&mut self, setup: &Setup, task: &Task) -> Result<(), Trouble> {
        let dirs = self.dirs(setup);
        let own_root = env::has_own_root(&task.driver) && task.driver != "docker";
        let secrets_mb = task.resources().secrets_mb;
        let made = tokio::task::spawn_blocking(move || dirs::build_task(&dirs, own_root, secrets_mb)).await;
        match made {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Trouble::hook("task_dir", &HookError::recoverable(error.to_string()))),
            Err(error) => Err(Trouble::hook("task_dir", &HookError::fatal(error.to_string()))),
        }
    }

    fn write_payload(&self, setup: &Setup, task: &Task) -> Result<(), Trouble> {
        let (Some(block), Some(payload)) = (&task.dispatch_payload, &setup.job.payload) else {
            return Ok(());
        };
        if block.file.is_empty() || payload.is_empty() {
            return Ok(());
        }
        let trouble = |text: String| Trouble::hook("dispatch_payload", &HookError::fatal(text));
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(payload)
            .map_err(|error| trouble(format!("payload is not base64: {error}")))?;
        let local = self.dirs(setup).local;
        let inside = std::path::Path::new(&block.file)
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir));
        if !inside {
            return Err(trouble(format!(
                "dispatch payload file {:?} escapes the task directory",
                block.file
            )));
        }
        let path = local.join(&block.file);
        let written =
            path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, bytes));
        written.map_err(|error| trouble(format!("cannot write {}: {error}", path.display())))
    }

    async fn fetch_artifacts(&mut self, setup: &Setup, task: &Task) -> Result<(), Trouble> {
        if task.artifacts.is_empty() {
            return Ok(());
        }
        self.event(events::downloading());
        self.note().await;
        let env = self.base_env(setup, task);
        let names = self.machine.node_names();
        let resolve = |name: &str| env::lookup(&env, &names, name);
        let options = ArtifactOptions { user: task.user.clone(), ..self.machine.config.artifacts.clone() };
        let progress = self.hook_progress(events::hook_message);
        let surroundings = &self.machine.config.surroundings;
        let dirs = self.dirs(setup);
        for artifact in &task.artifacts {
            let artifact = env::interpolate_block(artifact, &resolve);
            let fetched = surroundings.fetch(&artifact, &dirs, &options, &progress);
            fetched.await.map_err(|error| Trouble {
                event: events::download_failed(&error.message),
                recoverable: error.recoverable,
                fatal: false,
            })?;
        }
        Ok(())
    }

    fn hook_progress(&self, event: fn(&str) -> TaskEvent) -> HookProgress {
        let sender = self.progress.0.clone();
        Arc::new(move |text: &str| {
            // The runner is gone with its receiver: nobody to tell.
            let _ = sender.send(event(text));
        })
    }

    /// The start of the task's templates, as a future that holds nothing of the runner.
    fn templates_for(
        &self,
        setup: &Setup,
        task: &Task,
        whom: TemplateTask,
    ) -> BoxFuture<'static, Result<RunningTemplates, HookError>> {
        let env = self.base_env(setup, task);
        let node = self.machine.node_names();
        let resolve = |name: &str| env::lookup(&env, &node, name);
        // Only places are interpolated: the text of a template has its own language.
        let templates: Vec<Template> = task
            .templates
            .iter()
            .map(|template| {
                let mut template = template.clone();
                for text in [&mut template.source_path, &mut template.dest_path] {
                    *text = crate::model::interpolate::interpolate(text, resolve);
                }
                template
            })
            .collect();
        let context = TemplateContext {
            node: node.clone(),
            dirs: self.dirs(setup),
            namespace: setup.allocation.namespace.clone(),
            region: self.machine.config.region.clone(),
            alloc: setup.allocation.id,
            task: self.name.clone(),
            catalog: Arc::clone(&self.machine.config.catalog),
            clock: Arc::clone(&self.machine.context.clock),
            seed: self.machine.seed(),
            env: env::finish(env.clone()),
        };
        let progress = self.hook_progress(events::template);
        let surroundings = Arc::clone(&self.machine.config.surroundings);
        Box::pin(async move { surroundings.start_templates(templates, context, progress, whom).await })
    }

    async fn start_templates(&mut self, setup: &Setup, task: &Task) -> Result<(), HookError> {
        if task.templates.is_empty() || self.templates.is_some() {
            return Ok(());
        }
        let started = self.templates_for(setup, task, TemplateTask::Coming);
        // Rendering may wait for data for a long time: what it waits for must be seen meanwhile.
        tokio::pin!(started);
        let running = loop {
            tokio::select! {
                result = &mut started => break result?,
                event = self.progress.1.recv() => {
                    if let Some(event) = event {
                        self.event(event);
                        self.note().await;
                    }
                }
            }
        };
        self.templates = Some(running);
        Ok(())
    }

    /// The complete environment, cleaned.
    fn full_env(&self, setup: &Setup, task: &Task) -> Result<BTreeMap<String, String>, HookError> {
        let mut env = self.base_env(setup, task);
        if let Some((templates, _)) = &self.templates {
            env.extend(templates.env()?);
        }
        Ok(env::finish(env))
    }

    fn config(&self, setup: &Setup, task: &Task) -> Result<TaskConfig, Trouble> {
        let env = self.full_env(setup, task).map_err(|error| Trouble {
            event: events::killing_because(&format!(
                "Template failed to read environment variables: {error}"
            )),
            recoverable: false,
            fatal: true,
        })?;
        let invalid = |text: String| Trouble {
            event: events::validation_failed(&text),
            recoverable: false,
            fatal: false,
        };
        let config = Names::new(&env, &self.machine.node_names()).expand(&task.config).map_err(invalid)?;
        let group = setup.group();
        let network_mode = group.and_then(|group| group.networks.first()).map(|network| network.mode.clone());
        let grant = setup.allocation.resources.tasks.get(&self.name).cloned().unwrap_or_default();
        let mut ports = setup.allocation.resources.shared.ports.clone();
        // The older networks of tasks give ports too, to this task only.
        for network in &grant.networks {
            let host_ip = env::network_ip(network, &self.machine.node());
            ports.extend(network.ports().map(|port| PortMapping {
                label: port.label.clone(),
                value: u16::try_from(port.value).unwrap_or_default(),
                to: port.to,
                host_ip: host_ip.clone(),
                ignore_collision: port.ignore_collision,
            }));
        }
        let user = crate::model::interpolate::interpolate(&task.user, |name| {
            env::lookup(&env, &self.machine.node_names(), name)
        });
        let dirs = self.dirs(setup);
        let (network_namespace, network_files) = network::hook::of_task(&self.shared, setup, &dirs)
            .map_err(|text| Trouble::hook("network", &HookError::recoverable(text)))?;
        Ok(TaskConfig {
            id: TaskId { alloc: setup.allocation.id, task: self.name.clone(), run: self.record.run },
            namespace: setup.allocation.namespace.clone(),
            job: setup.job.id.clone(),
            group: setup.allocation.task_group.clone(),
            alloc_name: setup.allocation.name(),
            node_name: self.machine.node().name.clone(),
            user,
            config,
            env,
            dirs,
            logs: task.log_config.clone().unwrap_or_default(),
            ports,
            network_mode: network_mode.unwrap_or_default(),
            network_namespace,
            network_files,
            kill_signal: task.kill_signal.clone(),
            grant,
        })
    }

    async fn start(&mut self) -> Result<(), Trouble> {
        let setup = self.setup();
        let task = Self::spec(&setup, &self.name);
        let driver = self.driver(&task).ok_or_else(|| Trouble {
            event: events::driver_failed(&format!("driver {:?} is not available on this node", task.driver)),
            recoverable: false,
            fatal: false,
        })?;
        self.record.run += 1;
        let config = self.config(&setup, &task)?;
        let problems = driver.validate(&config.config);
        if !problems.is_empty() {
            let event = events::validation_failed(&problems.join("; "));
            return Err(Trouble { event, recoverable: false, fatal: false });
        }
        let machine = Arc::clone(&self.machine);
        // From here until the handle is safe the agent must not go away in peace.
        let _starting = machine.starting.read().await;
        let progress = self.hook_progress(events::driver);
        let started = driver.start(&config, progress);
        tokio::pin!(started);
        let result = loop {
            tokio::select! {
                result = &mut started => break result,
                event = self.progress.1.recv() => {
                    if let Some(event) = event {
                        self.event(event);
                        self.note().await;
                    }
                }
            }
        };
        match result {
            Ok((handle, Started { address })) => {
                let now = self.machine.now();
                self.driver_address = address;
                self.record.handle = Some(handle);
                self.record.state.state = TaskRunState::Running;
                if self.record.state.started_at.is_never() {
                    self.record.state.started_at = now;
                }
                self.event(events::started());
                self.note_safely().await;
                self.register_services(&setup, &task);
                Ok(())
            }
            Err(error) => Err(Trouble {
                event: events::driver_failed(&error.to_string()),
                recoverable: error.is_recoverable(),
                fatal: false,
            }),
        }
    }

    fn service_context(&self, setup: &Setup) -> ServiceContext {
        let node = self.machine.node();
        let grant = setup.allocation.resources.tasks.get(&self.name);
        ServiceContext {
            alloc: setup.allocation.id,
            namespace: setup.allocation.namespace.clone(),
            job_id: setup.allocation.job_id.clone(),
            group: setup.allocation.task_group.clone(),
            task: Some(self.name.clone()),
            node_id: node.id,
            datacenter: node.datacenter.clone(),
            canary: setup.allocation.canary,
            ports: setup.allocation.resources.shared.ports.clone(),
            task_networks: grant.map(|grant| grant.networks.clone()).unwrap_or_default(),
            node_ip: env::node_ip(&node),
            network_status: self.shared.record.lock().network.clone(),
            driver_address: self.driver_address.clone(),
            exec: Arc::new(WeakExec(Arc::downgrade(&self.shared))),
            clock: Arc::clone(&self.machine.context.clock),
        }
    }

    /// Registers the task's services, or brings them up to date.
    fn register_services(&self, setup: &Setup, task: &Task) {
        let env = self.full_env(setup, task).unwrap_or_default();
        let names = self.machine.node_names();
        let resolve = |name: &str| env::lookup(&env, &names, name);
        let services: Vec<_> =
            task.services.iter().map(|service| env::interpolate_block(service, &resolve)).collect();
        let context = self.service_context(setup);
        let before = self.shared.record.lock().checks.clone();
        let mut table = self.shared.services.lock();
        match table.get(&self.name) {
            Some(known) => {
                known.update(context, services);
                known.task_restarted();
            }
            None if services.is_empty() => {}
            None => {
                let sink = Arc::new(OutboxSink(self.machine.context.outbox.clone()));
                let restarts = self.check_restarts.clone();
                let started = self
                    .machine
                    .config
                    .surroundings
                    .start_services(context, services, sink, restarts, before);
                table.insert(self.name.clone(), started);
            }
        }
    }

    fn deregister_services(&self) {
        if let Some(services) = self.shared.services.lock().remove(&self.name) {
            services.deregister();
        }
    }

    /// Stays with the running task until it ends or something else is to be done.
    async fn watch(&mut self) -> Seen {
        match self.await_outcome().await {
            Outcome::Ordered => Seen::Running,
            Outcome::Exited(result) => {
                let exit = self.take_exit(result).await;
                self.settle(Cause::Ended { success: exit.is_success() }).await
            }
            Outcome::Restart { reason, counted } => {
                self.event(events::restart_signaled(&reason));
                self.note().await;
                self.deregister_services();
                let exit = self.end_process().await;
                self.take_exit(exit).await;
                self.settle(if counted { Cause::Unhealthy } else { Cause::Requested }).await
            }
            Outcome::Broken(event) => {
                self.event(event);
                self.note().await;
                self.deregister_services();
                let exit = self.end_process().await;
                self.take_exit(exit).await;
                self.die(true).await
            }
        }
    }

    async fn await_outcome(&mut self) -> Outcome {
        let Some(handle) = self.record.handle.clone() else {
            return Outcome::Exited(Err(DriverError::NotFound));
        };
        let Some(driver) = self.machine.config.drivers.get(handle.driver.as_str()).map(Arc::clone) else {
            return Outcome::Exited(Err(DriverError::NotFound));
        };
        let mut exit = {
            let (driver, handle) = (Arc::clone(&driver), handle.clone());
            Box::pin(async move { driver.wait(&handle).await })
        };
        let setup = self.setup();
        let task = Self::spec(&setup, &self.name);
        let resume = !task.templates.is_empty() && self.templates.is_none();
        let mut resumed =
            OptionFuture::from(resume.then(|| self.templates_for(&setup, &task, TemplateTask::Running)));
        loop {
            let change = async {
                match &mut self.templates {
                    Some((_, changes)) => changes.recv().await,
                    None => None,
                }
            };
            tokio::select! {
                biased;
                result = &mut exit => return Outcome::Exited(result),
                changed = self.orders.changed() => {
                    if changed.is_err() || matches!(self.orders.borrow().wanted, Wanted::Stop(_)) {
                        return Outcome::Ordered;
                    }
                    let setup = self.setup();
                    let task = Self::spec(&setup, &self.name);
                    self.register_services(&setup, &task);
                }
                Some(request) = self.requests.recv() => match request {
                    TaskRequest::Restart { reason, counted } => return Outcome::Restart { reason, counted },
                    TaskRequest::Signal { signal, reply } => {
                        self.event(events::signaling(&signal, ""));
                        self.note().await;
                        // The caller may have gone away.
                        let _ = reply.send(driver.signal(&handle, &signal).await);
                    }
                },
                Some(result) = &mut resumed => match result {
                    Ok(running) => {
                        self.templates = Some(running);
                        resumed = None.into();
                    }
                    Err(error) => {
                        resumed = None.into();
                        tracing::warn!(task = %self.name, %error, "templates of a running task do not work");
                        self.event(events::hook_failed(&format!("template: {error}")));
                        self.note().await;
                    }
                },
                Some(change) = change => match change {
                    TemplateChange::Restart => {
                        let reason = "Template with change_mode restart re-rendered".to_owned();
                        return Outcome::Restart { reason, counted: false };
                    }
                    TemplateChange::Failed(text) => return Outcome::Broken(events::killing_because(&text)),
                    TemplateChange::Signal(signal) => {
                        self.event(events::signaling(&signal, "Template re-rendered"));
                        self.note().await;
                        if let Err(error) = driver.signal(&handle, &signal).await {
                            let text = format!(
                                "Template failed to send signals [{signal}]: 1 error occurred:\n\t* {error}"
                            );
                            return Outcome::Broken(events::killing_because(&text));
                        }
                    }
                    TemplateChange::Script(script) => {
                        let mut command = vec![script.command.clone()];
                        command.extend(script.args.iter().cloned());
                        let result = driver.exec(&handle, &command, script.timeout.to_std()).await;
                        let (event, failed) = events::script_ran(&script.command, &script.args, result);
                        self.event(event);
                        self.note().await;
                        if failed && script.fail_on_error {
                            let text = "Template script failed, task is being killed";
                            return Outcome::Broken(events::killing_because(text));
                        }
                    }
                },
                Some(event) = self.progress.1.recv() => {
                    self.event(event);
                    self.note().await;
                }
            }
        }
    }

    /// Ends the process of the task and waits for it.
    async fn end_process(&mut self) -> Result<ExitStatus, DriverError> {
        let handle = self.record.handle.clone().ok_or(DriverError::NotFound)?;
        let driver = self.machine.config.drivers.get(handle.driver.as_str()).ok_or(DriverError::NotFound)?;
        let task = Self::spec(&self.setup(), &self.name);
        let timeout = kill_timeout(&task).to_std();
        let mut pause = FIRST_STOP_PAUSE;
        for attempt in 1..=STOP_ATTEMPTS {
            match driver.stop(&handle, &task.kill_signal, timeout).await {
                Ok(()) => return driver.wait(&handle).await,
                Err(DriverError::NotFound) => return Err(DriverError::NotFound),
                Err(error) if attempt == STOP_ATTEMPTS => return Err(error),
                Err(error) => {
                    tracing::warn!(task = %self.name, %error, attempt, "cannot end the task yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 4).min(LONGEST_STOP_PAUSE);
                }
            }
        }
        Err(DriverError::NotFound)
    }

    /// Records the end of a run and clears up after it.
    async fn take_exit(&mut self, result: Result<ExitStatus, DriverError>) -> ExitStatus {
        let exit = result.unwrap_or_else(|error| ExitStatus {
            code: -1,
            message: error.to_string(),
            ..ExitStatus::default()
        });
        self.event(events::terminated(&exit));
        self.deregister_services();
        if let Some(handle) = self.record.handle.take()
            && let Some(driver) = self.machine.config.drivers.get(handle.driver.as_str())
            && let Err(error) = driver.remove(&handle).await
        {
            tracing::warn!(task = %self.name, %error, "cannot clear up after the task");
        }
        self.record.state.finished_at = self.machine.now();
        exit
    }

    async fn settle_trouble(&mut self, trouble: Trouble) -> Seen {
        let Trouble { event, recoverable, fatal } = trouble;
        self.event(event);
        if fatal {
            return self.die(true).await;
        }
        self.settle(Cause::StartFailed { recoverable }).await
    }

    /// Asks the restart policy.
    async fn settle(&mut self, cause: Cause) -> Seen {
        if matches!(self.orders.borrow().wanted, Wanted::Stop(_)) {
            // The end was wished for, and came by itself.
            return self.die(false).await;
        }
        let setup = self.setup();
        let task = Self::spec(&setup, &self.name);
        let on_success = setup.role(&task).on_success(setup.job.job_type());
        let now = self.machine.now();
        let policy = setup.restart_policy(&task);
        match decide(&policy, on_success, &mut self.record.restarts, cause, now, self.machine.chance()) {
            Verdict::Finish => self.die(false).await,
            Verdict::Fail { reason } => {
                self.event(events::not_restarting(&reason));
                self.die(true).await
            }
            Verdict::Restart { after, reason } => {
                self.event(events::restarting(after, &reason));
                self.record.state.state = TaskRunState::Pending;
                self.record.state.restarts += 1;
                self.record.state.last_restart = now;
                self.delay_until = Instant::now() + after.to_std();
                self.note().await;
                Seen::Delayed
            }
        }
    }

    async fn delay(&mut self) -> Seen {
        let until = self.delay_until;
        self.until_stopped(async |runner: &mut Self| {
            let wake = tokio::time::sleep_until(until);
            tokio::pin!(wake);
            loop {
                tokio::select! {
                    () = &mut wake => return,
                    // A restart by hand needs no further waiting; signals have no addressee.
                    Some(request) = runner.requests.recv() => match request {
                        TaskRequest::Restart { counted: false, .. } => return,
                        TaskRequest::Restart { .. } => {}
                        TaskRequest::Signal { reply, .. } => { let _ = reply.send(Err(DriverError::NotFound)); }
                    }
                }
            }
        })
        .await
        .map_or(Seen::Delayed, |()| Seen::Idle)
    }

    async fn die(&mut self, failed: bool) -> Seen {
        let state = &mut self.record.state;
        state.state = TaskRunState::Dead;
        state.failed = failed;
        if state.finished_at.is_never() || state.finished_at < state.last_restart {
            state.finished_at = self.machine.now();
        }
        self.record.handle = None;
        self.templates = None;
        self.deregister_services();
        self.note().await;
        Seen::Dead
    }

    async fn abandon(&mut self, wanted: &Wanted) -> Seen {
        if let Wanted::Stop(Some(event)) = wanted {
            self.event(event.clone());
        }
        let task = Self::spec(&self.setup(), &self.name);
        self.event(events::killing(kill_timeout(&task)));
        self.die(false).await
    }

    /// Ends the running task on order.
    async fn stop(&mut self, wanted: &Wanted) -> Seen {
        let task = Self::spec(&self.setup(), &self.name);
        if let Wanted::Stop(Some(event)) = wanted {
            self.event(event.clone());
        }
        self.event(events::killing(kill_timeout(&task)));
        self.note().await;
        self.deregister_services();
        let hurry = self.orders.borrow().hurry;
        if task.shutdown_delay > Span::ZERO && !hurry {
            self.event(events::shutdown_delay(task.shutdown_delay));
            self.note().await;
            self.wait_or_exit(task.shutdown_delay.to_std()).await;
        }
        let exit = self.end_process().await;
        if let Err(error) = &exit
            && *error != DriverError::NotFound
        {
            tracing::error!(task = %self.name, %error, "the task could not be ended");
        }
        self.take_exit(exit).await;
        self.event(events::killed());
        self.die(false).await
    }

    /// Waits, but not longer than the task runs.
    async fn wait_or_exit(&self, delay: Duration) {
        let Some(handle) = &self.record.handle else { return };
        let Some(driver) = self.machine.config.drivers.get(handle.driver.as_str()) else { return };
        // Whether it ended or the time passed does not matter here.
        let _ = tokio::time::timeout(delay, driver.wait(handle)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_situation_has_one_next_step() {
        let stop = Wanted::Stop(None);
        for (wanted, expected) in [
            (Wanted::Hold, [Step::Hold, Step::Hold, Step::Watch, Step::Hold, Step::End]),
            (Wanted::Run, [Step::Prepare, Step::Start, Step::Watch, Step::Delay, Step::End]),
            (stop, [Step::Abandon, Step::Abandon, Step::Stop, Step::Abandon, Step::End]),
        ] {
            let seen = [Seen::Idle, Seen::Prepared, Seen::Running, Seen::Delayed, Seen::Dead];
            assert_eq!(seen.map(|seen| next_step(&wanted, seen)), expected, "{wanted:?}");
        }
    }
}
