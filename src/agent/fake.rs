//! A workload without tasks: allocations start, end and fail as told, with no process and no disk. Simulations and
//! load tests run thousands of these in one process, one timer task each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::agent::dice::Dice;
use crate::agent::ledger::LedgerError;
use crate::agent::workload::Workload;
use crate::agent::workload::WorkloadContext;
use crate::model::allocation::Allocation;
use crate::model::allocation::AllocationReport;
use crate::model::allocation::ClientStatus;
use crate::model::allocation::DeploymentHealth;
use crate::model::allocation::TaskRunState;
use crate::model::allocation::TaskState;
use crate::model::id::AllocId;
use crate::model::id::DeploymentId;
use crate::model::identity::Tokens;
use crate::model::job::Job;
use crate::model::time::Time;

/// How one fake allocation lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// From arrival to running.
    pub start_after: Duration,
    /// Its end by itself, counted from running; `None`: it runs until it is stopped.
    pub end: Option<End>,
    /// From the order to stop to its end.
    pub stop_takes: Duration,
    /// From running to healthy, for allocations of a deployment; `None`: never decided.
    pub healthy_after: Option<Duration>,
}

/// An end without an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub after: Duration,
    pub failed: bool,
}

impl Life {
    /// Starts at once and runs until stopped; healthy after the group's `min_healthy_time`.
    pub fn plain(allocation: &Allocation, job: &Job) -> Self {
        let update = job.group(&allocation.task_group).and_then(|group| group.update.as_ref());
        Self {
            start_after: Duration::ZERO,
            end: None,
            stop_takes: Duration::ZERO,
            healthy_after: Some(update.map_or(Duration::ZERO, |update| update.min_healthy_time.to_std())),
        }
    }
}

/// Decides how an allocation lives. Called once per allocation.
pub type Fate = Arc<dyn Fn(&Allocation, &Job, &mut Dice) -> Life + Send + Sync>;

/// The fake machine. It lives on when its agent dies: open the same one again with the next agent.
pub struct FakeWorkload {
    inner: Arc<Inner>,
    timer: Mutex<Option<AbortOnDropHandle<()>>>,
}

struct Inner {
    fate: Fate,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    context: Option<WorkloadContext>,
    dice: Option<Dice>,
    allocs: BTreeMap<AllocId, FakeAlloc>,
    timers: BTreeMap<(Instant, AllocId), Due>,
    /// Allocations that start once another has ended.
    waiting: BTreeMap<AllocId, Vec<AllocId>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Start,
    Healthy,
    End { failed: bool },
}

struct FakeAlloc {
    status: ClientStatus,
    job: Arc<Job>,
    group: usize,
    version: u64,
    life: Life,
    deployment: Option<DeploymentId>,
    health: Option<DeploymentHealth>,
    started_at: Time,
    finished_at: Time,
    stopping: bool,
    forgotten: bool,
}

impl FakeWorkload {
    /// A machine on which allocations live as `fate` decides.
    pub fn new(fate: Fate) -> Self {
        let inner = Inner { fate, state: Mutex::default(), wake: Notify::new() };
        Self { inner: Arc::new(inner), timer: Mutex::default() }
    }

    /// A machine on which everything starts at once and runs until it is stopped.
    pub fn plain() -> Self {
        Self::new(Arc::new(|allocation, job, _| Life::plain(allocation, job)))
    }

    /// Allocations that run now.
    pub fn running(&self) -> Vec<AllocId> {
        let state = self.inner.state.lock();
        let running = state.allocs.iter().filter(|(_, alloc)| alloc.status == ClientStatus::Running);
        running.map(|(id, _)| *id).collect()
    }

    /// Everything that runs is gone without a word, as when the machine loses power. The agent must be gone, too.
    pub fn power_off(&self) {
        let mut state = self.inner.state.lock();
        state.allocs.retain(|_, alloc| alloc.status.is_terminal());
        state.timers.clear();
        state.waiting.clear();
        state.context = None;
    }
}

impl State {
    fn report(&self, id: AllocId) {
        let (Some(context), Some(alloc)) = (&self.context, self.allocs.get(&id)) else { return };
        context.outbox.put_alloc(id, alloc.report());
    }

    fn now(&self) -> Time {
        self.context.as_ref().map_or(Time::NEVER, |context| context.clock.now())
    }

    fn start(&mut self, id: AllocId) {
        let now = self.now();
        let Some(alloc) = self.allocs.get_mut(&id) else { return };
        if alloc.status != ClientStatus::Pending || alloc.stopping {
            return;
        }
        alloc.status = ClientStatus::Running;
        alloc.started_at = now;
        let life = alloc.life;
        if let Some(end) = life.end {
            self.timers.insert((Instant::now() + end.after, id), Due::End { failed: end.failed });
        }
        self.await_health(id);
        self.report(id);
    }

    fn await_health(&mut self, id: AllocId) {
        let Some(alloc) = self.allocs.get_mut(&id) else { return };
        if alloc.health.is_some() || alloc.status != ClientStatus::Running {
            return;
        }
        // Outside deployments health matters to drains only, which need some verdict.
        let after = if alloc.deployment.is_none() { Some(Duration::ZERO) } else { alloc.life.healthy_after };
        match after {
            Some(Duration::ZERO) => {
                alloc.health = Some(DeploymentHealth {
                    healthy: Some(true),
                    timestamp: alloc.started_at,
                    deployment_id: alloc.deployment,
                });
            }
            // An end at the very same moment wins: only one timer fits the slot.
            Some(after) => {
                self.timers.entry((Instant::now() + after, id)).or_insert(Due::Healthy);
            }
            None => {}
        }
    }

    fn end(&mut self, id: AllocId, failed: bool) {
        let now = self.now();
        let Some(alloc) = self.allocs.get_mut(&id) else { return };
        if alloc.status.is_terminal() {
            return;
        }
        alloc.status = if failed { ClientStatus::Failed } else { ClientStatus::Complete };
        alloc.finished_at = now;
        if failed && alloc.deployment.is_some() && alloc.health.is_none() {
            alloc.health = Some(DeploymentHealth {
                healthy: Some(false),
                timestamp: now,
                deployment_id: alloc.deployment,
            });
        }
        let forgotten = alloc.forgotten;
        self.timers.retain(|(_, owner), _| *owner != id);
        if forgotten {
            self.drop_alloc(id);
        } else {
            self.report(id);
        }
        for next in self.waiting.remove(&id).unwrap_or_default() {
            self.schedule_start(next);
        }
    }

    fn schedule_start(&mut self, id: AllocId) {
        match self.allocs.get(&id).map(|alloc| alloc.life.start_after) {
            Some(Duration::ZERO) => self.start(id),
            Some(delay) => {
                self.timers.insert((Instant::now() + delay, id), Due::Start);
            }
            None => {}
        }
    }

    fn drop_alloc(&mut self, id: AllocId) {
        self.allocs.remove(&id);
        if let Some(context) = &self.context {
            context.outbox.delete_alloc(id);
        }
    }

    fn stop(&mut self, id: AllocId) {
        let Some(alloc) = self.allocs.get_mut(&id) else { return };
        if alloc.stopping || alloc.status.is_terminal() {
            return;
        }
        alloc.stopping = true;
        let delay = alloc.life.stop_takes;
        if delay.is_zero() || alloc.status == ClientStatus::Pending {
            self.end(id, false);
        } else {
            self.timers.retain(|(_, owner), _| *owner != id);
            self.timers.insert((Instant::now() + delay, id), Due::End { failed: false });
        }
    }

    /// Does what is due and tells when to look again.
    fn tick(&mut self) -> Option<Instant> {
        loop {
            let (&(at, id), &due) = self.timers.first_key_value()?;
            if at > Instant::now() {
                return Some(at);
            }
            self.timers.remove(&(at, id));
            match due {
                Due::Start => self.start(id),
                Due::End { failed } => self.end(id, failed),
                Due::Healthy => {
                    let now = self.now();
                    if let Some(alloc) = self.allocs.get_mut(&id) {
                        alloc.health = Some(DeploymentHealth {
                            healthy: Some(true),
                            timestamp: now,
                            deployment_id: alloc.deployment,
                        });
                    }
                    self.report(id);
                }
            }
        }
    }
}

impl FakeAlloc {
    fn report(&self) -> AllocationReport {
        let run_state = match self.status {
            ClientStatus::Running => TaskRunState::Running,
            ClientStatus::Complete | ClientStatus::Failed => TaskRunState::Dead,
            _ => TaskRunState::Pending,
        };
        let state = TaskState {
            state: run_state,
            failed: self.status == ClientStatus::Failed,
            started_at: self.started_at,
            finished_at: self.finished_at,
            ..TaskState::default()
        };
        let tasks = self.job.task_groups.get(self.group).map_or(&[][..], |group| &group.tasks);
        AllocationReport {
            client_status: self.status,
            task_states: tasks.iter().map(|task| (task.name.clone(), state.clone())).collect(),
            deployment_status: self.health.clone(),
            ..AllocationReport::default()
        }
    }
}

#[async_trait]
impl Workload for FakeWorkload {
    fn take_tokens(&self, _: AllocId, _: Tokens) {}

    async fn open(&self, context: WorkloadContext) -> Result<(), LedgerError> {
        {
            let mut state = self.inner.state.lock();
            state.dice.get_or_insert_with(|| context.dice.clone());
            state.context = Some(context);
            let ids: Vec<AllocId> = state.allocs.keys().copied().collect();
            ids.into_iter().for_each(|id| state.report(id));
        }
        let mut timer = self.timer.lock();
        if timer.as_ref().is_none_or(AbortOnDropHandle::is_finished) {
            let inner = Arc::clone(&self.inner);
            *timer = Some(AbortOnDropHandle::new(tokio::spawn(async move { inner.keep_time().await })));
        }
        Ok(())
    }

    fn knows(&self, alloc: AllocId) -> bool {
        self.inner.state.lock().allocs.contains_key(&alloc)
    }

    fn known(&self) -> Vec<AllocId> {
        self.inner.state.lock().allocs.keys().copied().collect()
    }

    fn run(&self, allocation: Arc<Allocation>, job: Arc<Job>) {
        let id = allocation.id;
        let mut state = self.inner.state.lock();
        if let Some(known) = state.allocs.get_mut(&id) {
            known.version = allocation.job_version;
            known.job = job;
            if known.deployment != allocation.deployment_id {
                known.deployment = allocation.deployment_id;
                known.health = None;
                state.await_health(id);
                state.report(id);
            }
        } else {
            let mut dice = state.dice.take().unwrap_or_else(Dice::random);
            let life = (self.inner.fate)(&allocation, &job, &mut dice);
            state.dice = Some(dice);
            let group = job.task_groups.iter().position(|group| group.name == allocation.task_group);
            let alloc = FakeAlloc {
                status: ClientStatus::Pending,
                group: group.unwrap_or(usize::MAX),
                version: allocation.job_version,
                job,
                life,
                deployment: allocation.deployment_id,
                health: None,
                started_at: Time::NEVER,
                finished_at: Time::NEVER,
                stopping: false,
                forgotten: false,
            };
            state.allocs.insert(id, alloc);
            let former = allocation
                .previous
                .filter(|former| state.allocs.get(former).is_some_and(|alloc| !alloc.status.is_terminal()));
            match former {
                Some(former) => state.waiting.entry(former).or_default().push(id),
                None => state.schedule_start(id),
            }
        }
        drop(state);
        self.inner.wake.notify_one();
    }

    fn stop(&self, allocation: Arc<Allocation>) {
        self.inner.state.lock().stop(allocation.id);
        self.inner.wake.notify_one();
    }

    fn forget(&self, alloc: AllocId) {
        let mut state = self.inner.state.lock();
        let Some(known) = state.allocs.get_mut(&alloc) else { return };
        known.forgotten = true;
        if known.status.is_terminal() {
            state.drop_alloc(alloc);
        } else {
            state.stop(alloc);
        }
        drop(state);
        self.inner.wake.notify_one();
    }

    async fn detach(&self) {
        self.inner.state.lock().context = None;
    }
}

impl Inner {
    async fn keep_time(&self) {
        loop {
            let woken = self.wake.notified();
            let next = self.state.lock().tick();
            match next {
                Some(at) => {
                    tokio::select! {
                        () = woken => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => woken.await,
            }
        }
    }
}
