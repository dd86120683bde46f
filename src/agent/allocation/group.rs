//! The tasks of an allocation that has arrived: who starts and ends when, orders and notes.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::agent::allocation::AllocOrders;
use crate::agent::allocation::AllocRequest;
use crate::agent::allocation::report::save_and_report;
use crate::agent::events;
use crate::agent::hooks::CheckRestartRequest;
use crate::agent::ledger::TaskRecord;
use crate::agent::lifecycle::Doom;
use crate::agent::lifecycle::Role;
use crate::agent::lifecycle::next_steps;
use crate::agent::machine::AllocShared;
use crate::agent::machine::Machine;
use crate::agent::machine::Setup;
use crate::agent::register::Contact;
use crate::agent::task::Note;
use crate::agent::task::TaskOrders;
use crate::agent::task::TaskRequest;
use crate::agent::task::TaskRunner;
use crate::agent::task::Wanted;
use crate::drivers::Started;
use crate::model::allocation::TaskEvent;
use crate::model::allocation::TaskRunState;
use crate::model::allocation::TaskState;
use crate::model::group::TaskGroup;
use crate::model::task::Task;
use crate::model::time::Span;
use crate::model::time::Time;

/// Notes and requests that may wait.
const QUEUE: usize = 64;

/// A task and the wires to its runner.
struct TaskWires {
    orders: watch::Sender<TaskOrders>,
    requests: mpsc::Sender<TaskRequest>,
    /// `None` once dead on arrival.
    _runner: AbortOnDropHandle<()>,
}

/// A runner whose tasks have been set up.
pub(super) struct Group {
    pub(super) shared: Arc<AllocShared>,
    pub(super) machine: Arc<Machine>,
    pub(super) setup: Setup,
    tasks: BTreeMap<String, TaskWires>,
    notes: mpsc::Receiver<Note>,
    /// For runners that are started later.
    note_sender: mpsc::Sender<Note>,
    pub(super) check_restarts: (mpsc::Sender<CheckRestartRequest>, mpsc::Receiver<CheckRestartRequest>),
    contact: watch::Receiver<Contact>,
    /// The order to stop has come (from the cluster, or because contact was lost for too long).
    pub(super) stop: bool,
    /// After a stop, tasks end from this moment on.
    kill_from: Option<Instant>,
    doom: Option<Doom>,
    pub(super) health_began: Time,
    pub(super) passing_since: Option<Time>,
    pub(super) look_again: Option<Instant>,
}

impl Group {
    pub(super) fn new(shared: &Arc<AllocShared>, machine: &Arc<Machine>, setup: Setup) -> Self {
        let (note_sender, notes) = mpsc::channel(QUEUE);
        let check_restarts = mpsc::channel(QUEUE);
        let records = shared.record.lock().tasks.clone();
        let began = shared.record.lock().started_at;
        let mut group = Self {
            shared: Arc::clone(shared),
            machine: Arc::clone(machine),
            setup,
            tasks: BTreeMap::new(),
            notes,
            note_sender,
            check_restarts,
            contact: machine.context.contact.clone(),
            stop: false,
            kill_from: None,
            doom: None,
            health_began: began,
            passing_since: None,
            look_again: None,
        };
        let names = group.setup.group().map(|group| &group.tasks[..]).unwrap_or_default().iter();
        let names: Vec<String> = names.map(|task| task.name.clone()).collect();
        for name in names {
            let record = records.get(&name).cloned().unwrap_or_default();
            let wires = group.wires_of(&name, record);
            group.tasks.insert(name, wires);
        }
        group
    }

    pub(super) fn states(&self) -> BTreeMap<String, TaskState> {
        let record = self.shared.record.lock();
        record.tasks.iter().map(|(name, task)| (name.clone(), task.state.clone())).collect()
    }

    pub(super) async fn run(
        &mut self,
        orders: &mut watch::Receiver<AllocOrders>,
        requests: &mut mpsc::Receiver<AllocRequest>,
    ) {
        if !self.stop {
            self.register_services();
        }
        self.assess_health();
        loop {
            if self.act() {
                return;
            }
            let wake = self.next_wake();
            tokio::select! {
                Some(note) = self.notes.recv() => self.take_notes(note).await,
                changed = orders.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let new = orders.borrow_and_update().clone();
                    self.take_orders(new).await;
                }
                Some(request) = requests.recv() => self.pass_on(request),
                Some(request) = self.check_restarts.1.recv() => {
                    let task = (!request.task.is_empty()).then_some(request.task);
                    let request = TaskRequest::Restart { reason: request.reason, counted: true };
                    self.pass_on(AllocRequest { task, ended: false, request });
                }
                // A closed channel means that the core is gone, and this runner soon, too.
                Ok(()) = self.contact.changed() => {}
                () = sleep_until(wake) => {}
            }
            if self.assess_health() {
                save_and_report(&self.shared, &self.machine, &self.setup).await;
            }
            self.notice_silence();
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let kill = self.kill_from.filter(|at| *at > Instant::now());
        [kill, self.look_again, self.silence_deadline()].into_iter().flatten().min()
    }

    /// Gives tasks their orders; true when everything has ended.
    fn act(&mut self) -> bool {
        let Some(group) = self.setup.group().cloned() else { return true };
        let states = self.states();
        let alive = |state: &TaskState| state.state != TaskRunState::Dead;
        if group.tasks.iter().all(|task| states.get(&task.name).is_some_and(|state| !alive(state))) {
            self.deregister_services();
            return true;
        }
        if self.stop && self.kill_from.is_none() {
            self.deregister_services();
            let delay = group.shutdown_delay.filter(|_| !self.setup.allocation.no_shutdown_delay);
            self.kill_from = Some(Instant::now() + delay.unwrap_or(Span::ZERO).to_std());
        }
        let may_stop = self.kill_from.is_some_and(|at| at <= Instant::now());
        let steps = next_steps(&group, &states, self.stop && may_stop);
        if let Some(doom) = &steps.doom
            && self.doom.as_ref() != Some(doom)
        {
            self.deregister_services();
            self.mark_dead(&group, &states);
            self.doom = Some(doom.clone());
        }
        // While the group's delay runs nothing new begins.
        let held = self.stop && !may_stop;
        for name in steps.start.iter().filter(|_| !held) {
            self.order(name, Wanted::Run);
        }
        for name in &steps.kill {
            let event = self.doom.as_ref().and_then(|doom| doom_event(doom, name));
            self.order(name, Wanted::Stop(event));
        }
        false
    }

    /// Tasks that ended earlier are told about the end of their group, too.
    fn mark_dead(&self, group: &TaskGroup, states: &BTreeMap<String, TaskState>) {
        let now = self.machine.now();
        let mut record = self.shared.record.lock();
        for task in group.tasks.iter().filter(|task| Role::of(task) != Role::Poststop) {
            if states.get(&task.name).is_some_and(|state| state.state == TaskRunState::Dead)
                && let Some(entry) = record.tasks.get_mut(&task.name)
            {
                events::record(&mut entry.state, now, events::killing(self.machine.kill_timeout(task)));
            }
        }
    }

    fn order(&self, name: &str, wanted: Wanted) {
        let Some(wires) = self.tasks.get(name) else { return };
        wires.orders.send_if_modified(|orders| {
            // The first reason to end stays.
            let settled = matches!(orders.wanted, Wanted::Stop(_)) || orders.wanted == wanted;
            if !settled {
                orders.wanted = wanted;
                orders.hurry = self.setup.allocation.no_shutdown_delay;
            }
            !settled
        });
    }

    async fn take_notes(&mut self, first: Note) {
        let mut waiting = Vec::new();
        let mut next = Some(first);
        while let Some(note) = next {
            waiting.extend(note.saved);
            self.shared.record.lock().tasks.insert(note.task, note.record);
            next = self.notes.try_recv().ok();
        }
        self.assess_health();
        save_and_report(&self.shared, &self.machine, &self.setup).await;
        for saved in waiting {
            // A runner that was aborted does not wait any more.
            let _ = saved.send(());
        }
    }

    async fn take_orders(&mut self, orders: AllocOrders) {
        self.stop |= orders.stop;
        let before = std::mem::replace(&mut self.setup, orders.setup);
        let new_deployment = before.allocation.deployment_id != self.setup.allocation.deployment_id;
        {
            let mut record = self.shared.record.lock();
            record.allocation = (*self.setup.allocation).clone();
            record.job = crate::agent::jobs::JobKey::of(&self.setup.allocation);
            if new_deployment {
                record.health = None;
            }
        }
        if new_deployment {
            self.health_began = self.machine.now();
            self.passing_since = None;
        }
        for wires in self.tasks.values() {
            wires.orders.send_modify(|orders| {
                orders.setup = self.setup.clone();
                orders.hurry = self.setup.allocation.no_shutdown_delay;
            });
        }
        if !self.stop {
            self.register_services();
        }
        self.assess_health();
        save_and_report(&self.shared, &self.machine, &self.setup).await;
    }

    fn pass_on(&mut self, request: AllocRequest) {
        match request.task {
            Some(task) => {
                if let Some(wires) = self.tasks.get(&task) {
                    // A full queue means that the task has many orders already.
                    let _ = wires.requests.try_send(request.request);
                }
            }
            None => {
                let TaskRequest::Restart { reason, counted } = request.request else { return };
                let states = self.states();
                if request.ended {
                    self.revive(&states, &reason);
                }
                for (name, wires) in &self.tasks {
                    if states.get(name).is_some_and(|state| state.state == TaskRunState::Running) {
                        let request = TaskRequest::Restart { reason: reason.clone(), counted };
                        let _ = wires.requests.try_send(request);
                    }
                }
            }
        }
    }

    /// Lets tasks that have ended begin anew, when their turn comes.
    fn revive(&mut self, states: &BTreeMap<String, TaskState>, reason: &str) {
        if self.stop || self.doom.is_some() {
            return;
        }
        let Some(group) = self.setup.group().cloned() else { return };
        let began = |task: &&Task| Role::of(task) != Role::Poststop;
        let dead =
            |task: &&Task| states.get(&task.name).is_some_and(|state| state.state == TaskRunState::Dead);
        for task in group.tasks.iter().filter(began).filter(dead) {
            let now = self.machine.now();
            let record = {
                let mut all = self.shared.record.lock();
                let Some(record) = all.tasks.get_mut(&task.name) else { continue };
                events::record(&mut record.state, now, events::restart_signaled(reason));
                record.state.state = TaskRunState::Pending;
                record.state.failed = false;
                record.state.restarts += 1;
                record.state.last_restart = now;
                (record.state.started_at, record.state.finished_at) = (Time::NEVER, Time::NEVER);
                record.clone()
            };
            let wires = self.wires_of(&task.name, record);
            self.tasks.insert(task.name.clone(), wires);
        }
    }

    /// Starts a runner for a task.
    fn wires_of(&self, name: &str, record: TaskRecord) -> TaskWires {
        let first = TaskOrders { wanted: Wanted::Hold, setup: self.setup.clone(), hurry: false };
        let (orders, orders_seen) = watch::channel(first);
        let (requests, requests_seen) = mpsc::channel(QUEUE);
        let mut identities = self.shared.tokens.subscribe();
        let given = Arc::clone(&identities.borrow_and_update());
        let runner = TaskRunner {
            identities,
            given,
            name: name.to_owned(),
            shared: Arc::clone(&self.shared),
            machine: Arc::clone(&self.machine),
            orders: orders_seen,
            requests: requests_seen,
            notes: self.note_sender.clone(),
            progress: mpsc::unbounded_channel(),
            check_restarts: self.check_restarts.0.clone(),
            record,
            templates: None,
            delay_until: Instant::now(),
            clearing: None,
            driver_network: Started::default(),
        };
        let runner = AbortOnDropHandle::new(tokio::spawn(runner.run()));
        TaskWires { orders, requests, _runner: runner }
    }

    /// When the tasks end because the cluster has been silent for too long.
    fn silence_deadline(&self) -> Option<Instant> {
        let group = self.setup.group()?;
        let limit = group
            .disconnect
            .as_ref()
            .and_then(|disconnect| disconnect.stop_on_client_after)
            .or(group.stop_after_client_disconnect)
            .filter(|limit| *limit > Span::ZERO)?;
        match *self.contact.borrow() {
            Contact::Lost(since) if !self.stop => Some(since + limit.to_std()),
            _ => None,
        }
    }

    fn notice_silence(&mut self) {
        if self.silence_deadline().is_some_and(|deadline| deadline <= Instant::now()) {
            tracing::warn!(alloc = %self.setup.allocation.id, "stopped: no contact with the cluster for too long");
            self.stop = true;
        }
    }
}

fn doom_event(doom: &Doom, task: &str) -> Option<TaskEvent> {
    match doom {
        Doom::Stopped => None,
        Doom::SiblingFailed(sibling) => (sibling != task).then(|| events::sibling_failed(sibling)),
        Doom::LeaderDead => Some(events::leader_dead()),
        Doom::MainDead => Some(events::main_dead()),
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
