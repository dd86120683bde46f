//! The runner of one task: prepares, starts, watches, restarts and ends it, and notes every change.

mod end;
mod identities;
mod prepare;
mod running;
mod services;
mod settle;
mod start;
mod templates;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::agent::dirs;
use crate::agent::env;
use crate::agent::env::EnvSource;
use crate::agent::events;
use crate::agent::hooks::CheckRestartRequest;
use crate::agent::hooks::HookError;
use crate::agent::hooks::HookProgress;
use crate::agent::hooks::TemplateChange;
use crate::agent::ledger::TaskRecord;
use crate::agent::machine::AllocShared;
use crate::agent::machine::Machine;
use crate::agent::machine::Setup;
use crate::agent::surroundings::Templates;
use crate::drivers::Driver;
use crate::drivers::DriverError;
use crate::drivers::Started;
use crate::drivers::TaskDirs;
use crate::model::allocation::TaskEvent;
use crate::model::identity::Tokens;
use crate::model::task::Task;

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
    /// What an earlier run left is removed as soon as its end can be remembered.
    pub clearing: Option<JoinHandle<()>>,
    /// The tokens of the task's identities, and those that it was given last.
    pub identities: watch::Receiver<Arc<Tokens>>,
    pub given: Arc<Tokens>,
    /// Where the task is found in its driver's own network.
    pub driver_network: Started,
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

    fn dirs(&self, setup: &Setup) -> TaskDirs {
        dirs::task_dirs(&self.machine.config.alloc_root, setup.allocation.id, &self.name)
    }

    /// The directories as the tasks of plugins see them; built-in drivers are known to [`env::build`].
    fn dirs_inside(&self, setup: &Setup, task: &Task) -> TaskDirs {
        let dirs = self.dirs(setup);
        if !self.driver(task).is_some_and(|driver| driver.own_root()) {
            return dirs;
        }
        let [shared, local, secrets] = ["/alloc", "/local", "/secrets"].map(Into::into);
        TaskDirs { shared, local, secrets, ..dirs }
    }

    /// The environment without what templates add; not yet cleaned.
    fn base_env(&self, setup: &Setup, task: &Task) -> BTreeMap<String, String> {
        let Some(group) = setup.group() else { return BTreeMap::new() };
        let network = self.shared.record.lock().network.clone();
        let mut env = env::build(&EnvSource {
            allocation: &setup.allocation,
            job: &setup.job,
            group,
            task,
            node: &self.machine.node(),
            node_names: &self.machine.node_names(),
            region: &self.machine.config.region,
            dirs: &self.dirs_inside(setup, task),
            network: network.as_ref(),
            host_env: &self.machine.config.host_env,
        });
        env.extend(identities::env(task, &self.given));
        env
    }

    fn hook_progress(&self, event: fn(&str) -> TaskEvent) -> HookProgress {
        let sender = self.progress.0.clone();
        Arc::new(move |text: &str| {
            // The runner is gone with its receiver: nobody to tell.
            let _ = sender.send(event(text));
        })
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
