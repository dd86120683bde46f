//! The runner of one allocation: waits for its predecessor, checks that it fits, makes directories, starts and ends
//! its tasks in order, decides health, and is the only one to write the allocation's record and report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::agent::arrival;
use crate::agent::dirs;
use crate::agent::env;
use crate::agent::env::EnvSource;
use crate::agent::events;
use crate::agent::health;
use crate::agent::health::Rules;
use crate::agent::hooks::CheckRestartRequest;
use crate::agent::hooks::ServiceContext;
use crate::agent::ledger::AllocRecord;
use crate::agent::ledger::TaskRecord;
use crate::agent::lifecycle;
use crate::agent::lifecycle::Doom;
use crate::agent::lifecycle::Role;
use crate::agent::lifecycle::next_steps;
use crate::agent::machine::AllocShared;
use crate::agent::machine::Machine;
use crate::agent::machine::OutboxSink;
use crate::agent::machine::Setup;
use crate::agent::machine::WeakExec;
use crate::agent::machine::kill_timeout;
use crate::agent::network;
use crate::agent::network::hook::NetworkError;
use crate::agent::real::Slots;
use crate::agent::register::Contact;
use crate::agent::task::Note;
use crate::agent::task::TaskOrders;
use crate::agent::task::TaskRequest;
use crate::agent::task::TaskRunner;
use crate::agent::task::Wanted;
use crate::drivers::TaskDirs;
use crate::model::allocation::AllocationReport;
use crate::model::allocation::ClientStatus;
use crate::model::allocation::DeploymentHealth;
use crate::model::allocation::TaskEvent;
use crate::model::allocation::TaskRunState;
use crate::model::allocation::TaskState;
use crate::model::group::TaskGroup;
use crate::model::job::JobType;
use crate::model::task::Task;
use crate::model::time::Span;
use crate::model::time::Time;

/// Notes and requests that may wait.
const QUEUE: usize = 64;
/// Checks are looked at this often while health is undecided.
const CHECK_PACE: Duration = Duration::from_millis(500);

/// Standing orders for an allocation.
#[derive(Clone, Debug)]
pub struct AllocOrders {
    pub setup: Setup,
    pub stop: bool,
    /// Drop everything once it has ended.
    pub forget: bool,
}

/// A request of a person to one or all tasks.
#[derive(Debug)]
pub struct AllocRequest {
    /// All running tasks when absent.
    pub task: Option<String>,
    pub request: TaskRequest,
}

/// A task and the wires to its runner.
struct TaskWires {
    orders: watch::Sender<TaskOrders>,
    requests: mpsc::Sender<TaskRequest>,
    /// `None` once dead on arrival.
    _runner: AbortOnDropHandle<()>,
}

/// Runs one allocation to its end.
pub struct AllocRunner {
    pub shared: Arc<AllocShared>,
    pub machine: Arc<Machine>,
    pub slots: Slots,
    pub orders: watch::Receiver<AllocOrders>,
    pub requests: mpsc::Receiver<AllocRequest>,
}

/// A runner whose tasks have been set up.
struct Group {
    shared: Arc<AllocShared>,
    machine: Arc<Machine>,
    setup: Setup,
    tasks: BTreeMap<String, TaskWires>,
    notes: mpsc::Receiver<Note>,
    check_restarts: (mpsc::Sender<CheckRestartRequest>, mpsc::Receiver<CheckRestartRequest>),
    contact: watch::Receiver<Contact>,
    /// The order to stop has come (from the cluster, or because contact was lost for too long).
    stop: bool,
    /// After a stop, tasks end from this moment on.
    kill_from: Option<Instant>,
    doom: Option<Doom>,
    health_began: Time,
    passing_since: Option<Time>,
    look_again: Option<Instant>,
}

impl AllocRunner {
    /// Runs until the allocation has ended.
    pub async fn run(mut self) {
        let fresh = self.shared.record.lock().started_at.is_never();
        if fresh && !self.arrive().await {
            return self.finish().await;
        }
        let setup = self.orders.borrow().setup.clone();
        if !fresh && let Err(error) = network::hook::restore(&self.shared, &setup).await {
            self.fail_network(&error);
            return self.finish().await;
        }
        let mut group = Group::new(&self.shared, &self.machine, setup);
        group.stop = self.orders.borrow().stop;
        group.run(&mut self.orders, &mut self.requests).await;
        drop(group);
        self.finish().await;
    }

    /// Everything before the first task; false if the allocation ends here.
    async fn arrive(&mut self) -> bool {
        let setup = self.orders.borrow().setup.clone();
        self.prepare_record(&setup);
        self.save_and_report().await;
        let setup = loop {
            let AllocOrders { setup, stop, .. } = self.orders.borrow_and_update().clone();
            if stop {
                self.bury("");
                return false;
            }
            let obstacle =
                self.slots.predecessor(&setup.allocation).map_or_else(|| self.obstacle(&setup), Ok);
            let mut ended = match obstacle {
                Ok(ended) => ended,
                Err(None) => break setup,
                Err(Some(reason)) => {
                    tracing::warn!(alloc = %setup.allocation.id, reason, "refused");
                    self.bury(&reason);
                    return false;
                }
            };
            tokio::select! {
                // Either way the situation is looked at anew.
                _ = ended.wait_for(|ended| *ended) => {}
                changed = self.orders.changed() => if changed.is_err() { return false },
            }
        };
        if let Err(reason) = self.make_directories(&setup).await {
            self.fail_all(&reason);
            return false;
        }
        if let Err(error) = network::hook::set_up(&self.shared, &setup).await {
            self.fail_network(&error);
            return false;
        }
        self.shared.record.lock().started_at = self.machine.now();
        self.save_and_report().await;
        true
    }

    /// What stands against a start: something that will end, a reason to refuse (`Some`), or nothing (`None`).
    fn obstacle(&self, setup: &Setup) -> Result<watch::Receiver<bool>, Option<String>> {
        let neighbours = self.slots.neighbours(setup.allocation.id);
        match arrival::check(setup, &self.machine.node(), &self.machine.config.drivers, &neighbours) {
            Ok(()) => Err(None),
            Err(reason) => self.slots.leaving(setup.allocation.id).ok_or(Some(reason)),
        }
    }

    fn prepare_record(&self, setup: &Setup) {
        let now = self.machine.now();
        let mut record = self.shared.record.lock();
        for task in setup.group().map(|group| &group.tasks[..]).unwrap_or_default() {
            let entry = record.tasks.entry(task.name.clone()).or_insert_with(|| {
                let mut fresh = TaskRecord::default();
                events::record(&mut fresh.state, now, events::received());
                fresh
            });
            entry.restarts.window_start = now;
        }
    }

    async fn make_directories(&self, setup: &Setup) -> Result<(), String> {
        let root = self.machine.config.alloc_root.clone();
        let id = setup.allocation.id;
        let sticky =
            setup.group().and_then(|group| group.ephemeral_disk.as_ref()).is_some_and(|disk| disk.sticky);
        let former = setup.allocation.previous.filter(|former| sticky && self.slots.has(*former));
        let tasks: Vec<String> = setup
            .group()
            .map(|group| group.tasks.iter().map(|task| task.name.clone()).collect())
            .unwrap_or_default();
        let made = tokio::task::spawn_blocking(move || {
            dirs::build_shared(&root, id)?;
            former.map_or(Ok(()), |former| dirs::inherit(&root, former, id, &tasks))
        });
        match made.await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Ends an allocation that never started. With a reason it was refused.
    fn bury(&self, reason: &str) {
        let now = self.machine.now();
        let mut record = self.shared.record.lock();
        record.rejected = reason.to_owned();
        for task in record.tasks.values_mut() {
            task.state.state = TaskRunState::Dead;
            task.state.finished_at = now;
        }
    }

    fn fail_all(&self, reason: &str) {
        let now = self.machine.now();
        let mut record = self.shared.record.lock();
        for task in record.tasks.values_mut() {
            events::record(&mut task.state, now, events::plain("Setup Failure", reason));
            task.state.state = TaskRunState::Dead;
            task.state.failed = true;
            task.state.finished_at = now;
        }
    }

    fn fail_network(&self, error: &NetworkError) {
        match error {
            NetworkError::Refused(_) => {
                self.bury("");
                self.shared.record.lock().setup_error = error.to_string();
            }
            NetworkError::Failed(_) => self.fail_all(&error.to_string()),
        }
    }

    async fn save_and_report(&self) {
        let setup = self.orders.borrow().setup.clone();
        save_and_report(&self.shared, &self.machine, &setup).await;
    }

    async fn finish(&mut self) {
        let setup = self.orders.borrow().setup.clone();
        network::hook::tear_down(&self.shared, &setup).await;
        self.shared.record.lock().ended_at = self.machine.now();
        self.save_and_report().await;
        let id = self.shared.record.lock().allocation.id;
        tracing::debug!(alloc = %id, "ended");
        self.shared.ended.send_replace(true);
        self.slots.settle(id);
    }
}

/// Writes the record, then the report: never the other way round.
async fn save_and_report(shared: &AllocShared, machine: &Machine, setup: &Setup) {
    let checks: BTreeMap<_, _> =
        shared.services.lock().values().flat_map(|services| services.results()).collect();
    let record = {
        let mut record = shared.record.lock();
        record.checks = checks;
        record.clone()
    };
    if let Err(error) = machine.context.ledger.save(&record).await {
        tracing::error!(alloc = %record.allocation.id, %error, "cannot save the allocation: it is not reported");
        return;
    }
    machine.context.outbox.put_alloc(record.allocation.id, report_of(&record, setup.group()));
}

/// What the cluster is told about an allocation.
pub fn report_of(record: &AllocRecord, group: Option<&TaskGroup>) -> AllocationReport {
    let states: BTreeMap<String, TaskState> =
        record.tasks.iter().map(|(name, task)| (name.clone(), task.state.clone())).collect();
    let nothing = TaskGroup::default();
    let (mut status, mut text) = lifecycle::client_status(group.unwrap_or(&nothing), &states);
    if !record.rejected.is_empty() {
        (status, text) = (ClientStatus::Failed, record.rejected.as_str());
    } else if !record.setup_error.is_empty() {
        (status, text) = (ClientStatus::Failed, record.setup_error.as_str());
    } else if record.started_at.is_never() && status == ClientStatus::Pending {
        text = "";
    }
    AllocationReport {
        client_status: status,
        client_description: text.to_owned(),
        task_states: states,
        deployment_status: record.health.clone(),
        network_status: record.network.clone(),
        rejected: record.rejected.clone(),
        ..AllocationReport::default()
    }
}

impl Group {
    fn new(shared: &Arc<AllocShared>, machine: &Arc<Machine>, setup: Setup) -> Self {
        let (note_sender, notes) = mpsc::channel(QUEUE);
        let check_restarts = mpsc::channel(QUEUE);
        let mut tasks = BTreeMap::new();
        let records = shared.record.lock().tasks.clone();
        let began = shared.record.lock().started_at;
        for task in setup.group().map(|group| &group.tasks[..]).unwrap_or_default() {
            let record = records.get(&task.name).cloned().unwrap_or_default();
            let first = TaskOrders { wanted: Wanted::Hold, setup: setup.clone(), hurry: false };
            let (orders, orders_seen) = watch::channel(first);
            let (requests, requests_seen) = mpsc::channel(QUEUE);
            let runner = TaskRunner {
                name: task.name.clone(),
                shared: Arc::clone(shared),
                machine: Arc::clone(machine),
                orders: orders_seen,
                requests: requests_seen,
                notes: note_sender.clone(),
                progress: mpsc::unbounded_channel(),
                check_restarts: check_restarts.0.clone(),
                record,
                templates: None,
                delay_until: Instant::now(),
                driver_address: None,
            };
            let runner = AbortOnDropHandle::new(tokio::spawn(runner.run()));
            tasks.insert(task.name.clone(), TaskWires { orders, requests, _runner: runner });
        }
        Self {
            shared: Arc::clone(shared),
            machine: Arc::clone(machine),
            setup,
            tasks,
            notes,
            check_restarts,
            contact: machine.context.contact.clone(),
            stop: false,
            kill_from: None,
            doom: None,
            health_began: began,
            passing_since: None,
            look_again: None,
        }
    }

    fn states(&self) -> BTreeMap<String, TaskState> {
        let record = self.shared.record.lock();
        record.tasks.iter().map(|(name, task)| (name.clone(), task.state.clone())).collect()
    }

    async fn run(
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
                    self.pass_on(AllocRequest { task, request });
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
                events::record(&mut entry.state, now, events::killing(kill_timeout(task)));
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

    fn pass_on(&self, request: AllocRequest) {
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
                for (name, wires) in &self.tasks {
                    if states.get(name).is_some_and(|state| state.state == TaskRunState::Running) {
                        let request = TaskRequest::Restart { reason: reason.clone(), counted };
                        let _ = wires.requests.try_send(request);
                    }
                }
            }
        }
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

    fn register_services(&self) {
        let Some(group) = self.setup.group() else { return };
        let node = self.machine.node();
        let names = self.machine.node_names();
        let nothing = (Task::default(), TaskDirs::default(), BTreeMap::new());
        let network = self.shared.record.lock().network.clone();
        let env = env::group_env(&EnvSource {
            allocation: &self.setup.allocation,
            job: &self.setup.job,
            group,
            task: &nothing.0,
            node: &node,
            node_names: &names,
            region: &self.machine.config.region,
            dirs: &nothing.1,
            network: network.as_ref(),
            host_env: &nothing.2,
        });
        let resolve = |name: &str| env::lookup(&env, &names, name);
        let services: Vec<_> =
            group.services.iter().map(|service| env::interpolate_block(service, &resolve)).collect();
        let context = ServiceContext {
            alloc: self.setup.allocation.id,
            namespace: self.setup.allocation.namespace.clone(),
            job_id: self.setup.allocation.job_id.clone(),
            group: group.name.clone(),
            task: None,
            node_id: node.id,
            datacenter: node.datacenter.clone(),
            canary: self.setup.allocation.canary,
            ports: self.setup.allocation.resources.shared.ports.clone(),
            task_networks: Vec::new(),
            node_ip: env::node_ip(&node),
            network_status: network,
            driver_address: None,
            exec: Arc::new(WeakExec(Arc::downgrade(&self.shared))),
            clock: Arc::clone(&self.machine.context.clock),
        };
        let before = self.shared.record.lock().checks.clone();
        let mut table = self.shared.services.lock();
        match table.get("") {
            Some(known) => known.update(context, services),
            None if services.is_empty() => {}
            None => {
                let sink = Arc::new(OutboxSink(self.machine.context.outbox.clone()));
                let restarts = self.check_restarts.0.clone();
                let started = self
                    .machine
                    .config
                    .surroundings
                    .start_services(context, services, sink, restarts, before);
                table.insert(String::new(), started);
            }
        }
    }

    fn deregister_services(&self) {
        if let Some(services) = self.shared.services.lock().remove("") {
            services.deregister();
        }
    }

    /// The rules in force, while health is to be decided.
    fn health_rules(&self) -> Option<Rules> {
        self.setup.allocation.deployment_id?;
        if self.shared.record.lock().health.is_some() || self.setup.job.job_type() != JobType::Service {
            return None;
        }
        let group = self.setup.group()?;
        Rules::of(group.update.as_ref().or(self.setup.job.update.as_ref())?)
    }

    /// Decides health if that is possible now; true if it was.
    fn assess_health(&mut self) -> bool {
        self.look_again = None;
        let Some(group) = self.setup.group().cloned() else { return false };
        let states = self.states();
        let failed = states.values().any(|state| state.failed);
        let now = self.machine.now();
        let Some(rules) = self.health_rules() else {
            // People decide about the healthy ones; a failed one is unhealthy without asking.
            let open =
                self.setup.allocation.deployment_id.is_some() && self.shared.record.lock().health.is_none();
            if failed && open {
                self.decide(false, now);
            }
            return failed && open;
        };
        if self.stop {
            return false;
        }
        let checks = all_checks(&group);
        if rules.checks && checks > 0 {
            let passing: usize =
                self.shared.services.lock().values().map(|services| services.health().passing).sum();
            self.passing_since = if passing >= checks { self.passing_since.or(Some(now)) } else { None };
        } else {
            self.passing_since = Some(self.health_began);
        }
        match health::assess(rules, &group, &states, self.passing_since, self.health_began, now) {
            health::Verdict::Undecided { look_again } => {
                let mut wait = look_again.since(now).to_std();
                if rules.checks && checks > 0 {
                    wait = wait.min(CHECK_PACE);
                }
                self.look_again = Some(Instant::now() + wait);
                false
            }
            health::Verdict::Healthy => {
                self.decide(true, now);
                true
            }
            health::Verdict::Unhealthy(texts) => {
                for (task, text) in texts {
                    if let Some(entry) = self.shared.record.lock().tasks.get_mut(&task) {
                        events::record(&mut entry.state, now, events::unhealthy(&text));
                    }
                }
                self.decide(false, now);
                true
            }
        }
    }

    fn decide(&self, healthy: bool, now: Time) {
        self.shared.record.lock().health = Some(DeploymentHealth {
            healthy: Some(healthy),
            timestamp: now,
            deployment_id: self.setup.allocation.deployment_id,
        });
    }
}

fn all_checks(group: &TaskGroup) -> usize {
    let tasks = group.tasks.iter().flat_map(|task| &task.services);
    group.services.iter().chain(tasks).map(|service| service.checks.len()).sum()
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
