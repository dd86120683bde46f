//! The real workload: tasks run by drivers, with hooks around them and directories on disk.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;
use tokio_util::task::TaskTracker;

use crate::agent::allocation::AllocOrders;
use crate::agent::allocation::AllocRequest;
use crate::agent::allocation::AllocRunner;
use crate::agent::allocation::report_of;
use crate::agent::dirs;
use crate::agent::jobs::JobKey;
use crate::agent::ledger::AllocRecord;
use crate::agent::ledger::LedgerError;
use crate::agent::leftovers;
use crate::agent::machine::AllocShared;
use crate::agent::machine::LateReport;
use crate::agent::machine::Machine;
use crate::agent::machine::MachineConfig;
use crate::agent::machine::Setup;
use crate::agent::migration;
use crate::agent::network;
use crate::agent::workload::Workload;
use crate::agent::workload::WorkloadContext;
use crate::drivers::DriverError;
use crate::model::allocation::Allocation;
use crate::model::id::AllocId;
use crate::model::identity::Tokens;
use crate::model::job::Job;
use crate::model::service::CheckResult;
use crate::model::time::Span;
use crate::model::time::Time;

/// Requests of people that may wait per allocation.
const QUEUE: usize = 16;
/// A graceful end waits this long for tasks that are just being started.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// A graceful end waits this long for directories that are being removed.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(10);
/// A replacement on another node comes for the data of an ended allocation within this time, or not at all.
const HANDOVER_PATIENCE: Span = Span::from_secs(20);

/// Why a request of a person cannot be carried out. Texts are Nomad's.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("allocation not found")]
    UnknownAllocation,
    #[error("Could not find task runner for task: {0}")]
    UnknownTask(String),
    #[error("Task not running")]
    NotRunning,
    #[error("unknown task name {0:?}")]
    NoSuchTask(String),
    #[error("task {0:?} not started yet.")]
    NotStarted(String),
    #[error("task {0:?} is not running.")]
    Ended(String),
    #[error("restart of an alloc that should not run")]
    NotWanted,
    #[error("Task not found")]
    TaskNotFound,
    /// One sentence for each task that was not reached.
    #[error("{}", several(.0))]
    Signal(Vec<String>),
    #[error("No such allocation on client, or allocation not eligible for GC")]
    NotEnded,
    #[error(transparent)]
    Driver(#[from] DriverError),
}

/// Several errors in the form that Nomad's clients know.
fn several(errors: &[String]) -> String {
    let count = if errors.len() == 1 { "1 error".to_owned() } else { format!("{} errors", errors.len()) };
    let lines: String = errors.iter().map(|error| format!("\t* {error}\n")).collect();
    format!("{count} occurred:\n{lines}\n")
}

/// One known allocation.
struct Slot {
    shared: Arc<AllocShared>,
    orders: watch::Sender<AllocOrders>,
    requests: mpsc::Sender<AllocRequest>,
    /// `None` once it has ended.
    runner: Option<AbortOnDropHandle<()>>,
}

/// All known allocations. Clones share them.
#[derive(Clone, Default)]
pub struct Slots {
    table: Arc<Mutex<BTreeMap<AllocId, Slot>>>,
    /// Directories of forgotten allocations that are being removed.
    removals: TaskTracker,
}

impl Slots {
    /// True if the allocation is known.
    pub fn has(&self, alloc: AllocId) -> bool {
        self.table.lock().contains_key(&alloc)
    }

    /// The predecessor of an allocation, if it has not ended yet.
    pub fn predecessor(&self, allocation: &Allocation) -> Option<watch::Receiver<bool>> {
        let table = self.table.lock();
        let slot = allocation.previous.and_then(|former| table.get(&former))?;
        (!*slot.shared.ended.borrow()).then(|| slot.shared.ended.subscribe())
    }

    /// Some other allocation that is about to end and will leave room.
    pub fn leaving(&self, alloc: AllocId) -> Option<watch::Receiver<bool>> {
        let table = self.table.lock();
        let mut others = table.iter().filter(|(id, slot)| **id != alloc && !*slot.shared.ended.borrow());
        let (_, slot) = others.find(|(_, slot)| slot.orders.borrow().stop)?;
        Some(slot.shared.ended.subscribe())
    }

    /// Allocations beside this one that have not ended and do not wait themselves.
    pub fn neighbours(&self, alloc: AllocId) -> Vec<Arc<Allocation>> {
        let table = self.table.lock();
        let others = table.iter().filter(|(id, slot)| **id != alloc && !*slot.shared.ended.borrow());
        let begun = others.filter(|(_, slot)| !slot.shared.record.lock().started_at.is_never());
        begun.map(|(_, slot)| Arc::clone(&slot.orders.borrow().setup.allocation)).collect()
    }

    /// The allocation has ended: its runner goes, and what is too much on disk.
    pub fn settle(&self, alloc: AllocId) {
        let (machine, forget) = {
            let mut table = self.table.lock();
            let Some(slot) = table.get_mut(&alloc) else { return };
            // The runner calls this as its last act; dropping its handle would abort it before it returned.
            if let Some(runner) = slot.runner.take() {
                drop(runner.detach());
            }
            // Read under the lock of the table: an order to forget that comes later finds no runner.
            (Arc::clone(&slot.shared.machine), slot.orders.borrow().forget)
        };
        if forget {
            self.erase(alloc);
        }
        self.collect(&machine);
    }

    /// Drops everything of an ended allocation: report, record, directories.
    fn erase(&self, alloc: AllocId) {
        let Some(slot) = self.table.lock().remove(&alloc) else { return };
        let machine = Arc::clone(&slot.shared.machine);
        let job = slot.shared.record.lock().job.clone();
        for services in slot.shared.services.lock().values() {
            services.deregister();
        }
        *slot.shared.late.lock() = LateReport::Never;
        machine.context.outbox.delete_alloc(alloc);
        machine.context.ledger.remove(alloc);
        let used = self.table.lock().values().any(|slot| slot.shared.record.lock().job == job);
        if !used {
            machine.context.ledger.remove_job(&job);
        }
        let removal = remove_directory(machine.config.alloc_root.clone(), alloc);
        self.removals.spawn(removal);
    }

    /// Ended allocations whose directories are there, and the number of those that have not ended.
    fn ended(&self) -> (Vec<(Time, AllocId)>, usize) {
        let table = self.table.lock();
        let mut live = 0;
        let mut ended = Vec::new();
        for slot in table.values() {
            let record = slot.shared.record.lock();
            if record.ended_at.is_never() {
                live += 1;
            } else if !record.reaped {
                ended.push((record.ended_at, record.allocation.id));
            }
        }
        ended.sort_unstable();
        (ended, live)
    }

    /// Removes directories of ended allocations that are too many or too old.
    fn collect(&self, machine: &Arc<Machine>) {
        let (ended, live) = self.ended();
        for alloc in machine.config.collection.choose(ended, live, machine.now()) {
            drop(self.reap(alloc));
        }
    }

    /// Looks now and then whether directories have to go, until it is dropped.
    async fn keep_collecting(self, machine: Arc<Machine>) {
        loop {
            tokio::time::sleep(machine.config.collection.interval).await;
            self.collect(&machine);
            self.make_room(&machine).await;
        }
    }

    /// Removes the oldest directories while the disk is too full.
    async fn make_room(&self, machine: &Arc<Machine>) {
        let limits = &machine.config.collection;
        loop {
            let (root, measure) = (machine.config.alloc_root.clone(), Arc::clone(&limits.measure));
            let used = tokio::task::spawn_blocking(move || measure(&root)).await;
            let Some(why) = used.ok().flatten().and_then(|used| limits.pressure(used)) else { return };
            let (ended, _) = self.ended();
            // One by one: each may be enough.
            let Some((_, oldest)) = ended.first().copied() else {
                tracing::warn!(why, "garbage collection: no ended allocation is left to remove");
                return;
            };
            tracing::info!(why, alloc = %oldest, "garbage collection: removing an ended allocation");
            let Some(removal) = self.reap(oldest) else { continue };
            if !matches!(removal.await, Ok(true)) {
                return;
            }
        }
    }

    /// Removes the directory of an ended allocation, and remembers that once it is done; the answer says if it was.
    fn reap(&self, alloc: AllocId) -> Option<JoinHandle<bool>> {
        let shared = self.table.lock().get(&alloc).map(|slot| Arc::clone(&slot.shared))?;
        let machine = Arc::clone(&shared.machine);
        Some(tokio::spawn(async move {
            // Closed never: an error cannot happen, and would only mean more at once.
            let turn = machine.removals.acquire().await;
            let removal = remove_directory(machine.config.alloc_root.clone(), alloc);
            let removed = removal.await;
            drop(turn);
            if !matches!(removed, Ok(true)) {
                return false;
            }
            let record = {
                let mut record = shared.record.lock();
                record.reaped = true;
                record.clone()
            };
            if let Err(error) = machine.context.ledger.save(&record).await {
                tracing::warn!(%alloc, %error, "cannot remember that a directory was removed");
            }
            true
        }))
    }
}

/// What cannot be removed stays for the next attempt, and is told in the log.
fn remove_directory(root: PathBuf, alloc: AllocId) -> JoinHandle<bool> {
    tokio::task::spawn_blocking(move || match dirs::remove(&root, alloc) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%alloc, %error, "cannot remove an allocation's directory");
            false
        }
    })
}

/// Tasks of this machine.
pub struct RealWorkload {
    config: MachineConfig,
    machine: Mutex<Option<Arc<Machine>>>,
    slots: Slots,
    collecting: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl RealWorkload {
    /// Nothing runs before the agent opens it.
    pub fn new(config: MachineConfig) -> Self {
        Self { config, machine: Mutex::default(), slots: Slots::default(), collecting: Mutex::default() }
    }

    fn machine(&self) -> Option<Arc<Machine>> {
        self.machine.lock().clone()
    }

    fn insert(&self, machine: &Arc<Machine>, record: AllocRecord, setup: Setup, stop: bool) {
        let id = record.allocation.id;
        let ended = !record.ended_at.is_never();
        let tokens = watch::Sender::new(Arc::new(record.tokens.clone()));
        let shared = Arc::new(AllocShared {
            machine: Arc::clone(machine),
            tokens,
            record: Mutex::new(record),
            services: Mutex::default(),
            ended: watch::Sender::new(ended),
            handover: Arc::default(),
            saving: tokio::sync::Mutex::default(),
            late: Mutex::default(),
        });
        let (orders, orders_seen) = watch::channel(AllocOrders { setup, stop, forget: false });
        let (requests, requests_seen) = mpsc::channel(QUEUE);
        // Held while the runner is spawned: a short-lived one must find its slot.
        let mut table = self.slots.table.lock();
        let runner = (!ended).then(|| {
            let runner = AllocRunner {
                shared: Arc::clone(&shared),
                machine: Arc::clone(machine),
                slots: self.slots.clone(),
                orders: orders_seen,
                requests: requests_seen,
            };
            AbortOnDropHandle::new(tokio::spawn(runner.run()))
        });
        table.insert(id, Slot { shared, orders, requests, runner });
    }

    fn clear_leftovers(&self, remembered: &BTreeMap<AllocId, AllocRecord>) {
        let known: BTreeSet<AllocId> = remembered.keys().copied().collect();
        let over = remembered.iter().filter(|(_, record)| !record.ended_at.is_never());
        let ended: BTreeSet<AllocId> = over.map(|(alloc, _)| *alloc).collect();
        let root = self.config.alloc_root.clone();
        // Looked at before the first new allocation can come: those directories must not count as unknown.
        leftovers::clear(&root, &known, &ended);
    }

    fn shared(&self, alloc: AllocId) -> Result<Arc<AllocShared>, RequestError> {
        let table = self.slots.table.lock();
        table.get(&alloc).map(|slot| Arc::clone(&slot.shared)).ok_or(RequestError::UnknownAllocation)
    }

    /// Turns true when the allocation has ended; closed once it is forgotten.
    ///
    /// # Errors
    /// When the allocation is not known here.
    pub fn ended(&self, alloc: AllocId) -> Result<watch::Receiver<bool>, RequestError> {
        Ok(self.shared(alloc)?.ended.subscribe())
    }

    /// The directory of an allocation on this machine, while it exists.
    pub fn alloc_dir(&self, alloc: AllocId) -> Option<PathBuf> {
        let shared = self.shared(alloc).ok()?;
        let reaped = shared.record.lock().reaped;
        (!reaped).then(|| dirs::alloc_dir(&self.config.alloc_root, alloc))
    }

    /// The newest record of an allocation.
    pub fn record(&self, alloc: AllocId) -> Option<AllocRecord> {
        self.shared(alloc).ok().map(|shared| shared.record.lock().clone())
    }

    /// Allocations that have not ended; those of jobs that run on every node may be left out.
    pub fn working(&self, ignore_system: bool) -> Vec<AllocId> {
        let table = self.slots.table.lock();
        let left = table.iter().filter(|(_, slot)| !*slot.shared.ended.borrow());
        let system = |slot: &Slot| slot.orders.borrow().setup.job.job_type().is_on_every_node();
        left.filter(|(_, slot)| !(ignore_system && system(slot))).map(|(id, _)| *id).collect()
    }

    /// True while the replacement of a stopped allocation may still come for its data.
    pub fn is_handing_over(&self) -> bool {
        let Some(machine) = self.machine() else { return false };
        let now = machine.now();
        let table = self.slots.table.lock();
        table.values().any(|slot| {
            let orders = slot.orders.borrow();
            let disk = orders.setup.group().and_then(|group| group.ephemeral_disk.as_ref());
            let ended_at = slot.shared.record.lock().ended_at;
            let fresh = !ended_at.is_never() && now.since(ended_at) < HANDOVER_PATIENCE;
            let handover = &slot.shared.handover;
            orders.stop
                && disk.is_some_and(|disk| disk.sticky && disk.migrate)
                && (handover.is_under_way() || (fresh && !handover.is_over()))
        })
    }

    /// The data of an allocation that moves to its replacement, as a tar.
    ///
    /// # Errors
    /// When the allocation, or its directory, is not here any more.
    pub fn snapshot(&self, alloc: AllocId) -> Result<BoxStream<'static, io::Result<Bytes>>, RequestError> {
        let shared = self.shared(alloc)?;
        let dir = self.alloc_dir(alloc).ok_or(RequestError::UnknownAllocation)?;
        let parts = migration::parts(shared.record.lock().tasks.keys().map(String::as_str));
        let sending = shared.handover.begin();
        let pieces = migration::pack::pack(dir, parts);
        let held = move |piece| {
            let _ = &sending;
            piece
        };
        Ok(pieces.map(held).boxed())
    }

    /// The job version that an allocation runs.
    pub fn job(&self, alloc: AllocId) -> Option<Arc<Job>> {
        let table = self.slots.table.lock();
        table.get(&alloc).map(|slot| Arc::clone(&slot.orders.borrow().setup.job))
    }

    /// Results of all checks of an allocation, by check id.
    ///
    /// # Errors
    /// When the allocation is not known here.
    pub fn checks(&self, alloc: AllocId) -> Result<BTreeMap<String, CheckResult>, RequestError> {
        let shared = self.shared(alloc)?;
        let services = shared.services.lock();
        Ok(services.values().flat_map(|services| services.results()).collect())
    }

    /// Runs a command in a task.
    ///
    /// # Errors
    /// When the task does not run, or its driver cannot do this.
    pub async fn exec(
        &self,
        alloc: AllocId,
        task: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<(i32, Vec<u8>), RequestError> {
        Ok(self.shared(alloc)?.exec_in(task, command, timeout).await?)
    }

    /// Removes the directory of an ended allocation.
    ///
    /// # Errors
    /// When it has not ended.
    pub fn collect(&self, alloc: AllocId) -> Result<(), RequestError> {
        let ended = self.shared(alloc).is_ok_and(|shared| !shared.record.lock().ended_at.is_never());
        if !ended {
            return Err(RequestError::NotEnded);
        }
        drop(self.slots.reap(alloc));
        Ok(())
    }

    /// Removes the directories of all ended allocations.
    pub fn collect_all(&self) {
        let all: Vec<AllocId> = self.slots.table.lock().keys().copied().collect();
        for alloc in all {
            // Those that have not ended stay.
            let _ = self.collect(alloc);
        }
    }
}

impl Drop for RealWorkload {
    fn drop(&mut self) {
        // Runners hold the table and the table holds the runners: cut the circle. Tasks themselves stay.
        let slots = std::mem::take(&mut *self.slots.table.lock());
        drop(slots);
    }
}

fn new_record(setup: &Setup) -> AllocRecord {
    AllocRecord {
        allocation: (*setup.allocation).clone(),
        job: JobKey::of(&setup.allocation),
        tasks: BTreeMap::new(),
        health: None,
        network: None,
        rejected: String::new(),
        setup_error: String::new(),
        started_at: Time::NEVER,
        ended_at: Time::NEVER,
        checks: BTreeMap::new(),
        tokens: Tokens::default(),
        reaped: false,
    }
}

#[async_trait]
impl Workload for RealWorkload {
    async fn open(&self, context: WorkloadContext) -> Result<(), LedgerError> {
        let contents = context.ledger.take_contents();
        let machine = Arc::new(Machine {
            config: self.config.clone(),
            dice: Mutex::new(context.dice.clone()),
            context,
            starting: tokio::sync::RwLock::new(()),
            removals: Semaphore::new(self.config.collection.parallel.max(1)),
        });
        *self.machine.lock() = Some(Arc::clone(&machine));
        for (key, job) in &contents.jobs {
            machine.context.jobs.adopt(key.clone(), Arc::clone(job));
        }
        self.clear_leftovers(&contents.allocs);
        let missing = Arc::new(Job::default());
        let unended = contents.allocs.iter().filter(|(_, record)| record.ended_at.is_never());
        let needed = unended.map(|(id, _)| *id).collect();
        // Found before anything new can begin, removed while it does.
        let leftovers = machine.config.networks.leftovers(&needed);
        tokio::spawn(network::hook::sweep(Arc::clone(&machine), leftovers));
        for (id, record) in contents.allocs {
            let job = contents.jobs.get(&record.job).unwrap_or(&missing);
            let setup = Setup { allocation: Arc::new(record.allocation.clone()), job: Arc::clone(job) };
            machine.context.outbox.put_alloc(id, report_of(&record, setup.group()));
            let stop = !record.allocation.is_wanted();
            self.insert(&machine, record, setup, stop);
        }
        let collecting = tokio::spawn(self.slots.clone().keep_collecting(machine));
        *self.collecting.lock() = Some(AbortOnDropHandle::new(collecting));
        Ok(())
    }

    fn knows(&self, alloc: AllocId) -> bool {
        self.slots.has(alloc)
    }

    fn known(&self) -> Vec<AllocId> {
        self.slots.table.lock().keys().copied().collect()
    }

    fn run(&self, allocation: Arc<Allocation>, job: Arc<Job>) {
        let Some(machine) = self.machine() else { return };
        let setup = Setup { allocation, job };
        {
            let table = self.slots.table.lock();
            if let Some(slot) = table.get(&setup.allocation.id) {
                let key = JobKey::of(&setup.allocation);
                machine.context.ledger.save_job(&key, &setup.job);
                slot.orders.send_modify(|orders| orders.setup = setup);
                return;
            }
        }
        let record = new_record(&setup);
        machine.context.ledger.save_job(&record.job, &setup.job);
        self.insert(&machine, record, setup, false);
    }

    fn take_tokens(&self, alloc: AllocId, tokens: Tokens) {
        if let Some(slot) = self.slots.table.lock().get(&alloc) {
            slot.shared.tokens.send_if_modified(|known| {
                let new = **known != tokens;
                if new {
                    *known = Arc::new(tokens);
                }
                new
            });
        }
    }

    fn stop(&self, allocation: Arc<Allocation>) {
        if let Some(slot) = self.slots.table.lock().get(&allocation.id) {
            slot.orders.send_modify(|orders| {
                orders.setup.allocation = allocation;
                orders.stop = true;
            });
        }
    }

    fn forget(&self, alloc: AllocId) {
        let ended = {
            let table = self.slots.table.lock();
            let Some(slot) = table.get(&alloc) else { return };
            slot.orders.send_modify(|orders| {
                orders.stop = true;
                orders.forget = true;
            });
            slot.runner.is_none()
        };
        if ended {
            self.slots.erase(alloc);
        }
    }

    async fn detach(&self) {
        let Some(machine) = self.machine.lock().take() else { return };
        // Tasks that are just being started get their handles saved; no new ones start.
        let quiet = tokio::time::timeout(START_PATIENCE, machine.starting.write()).await;
        if quiet.is_err() {
            tracing::warn!("a task is still being started: it may have to be started again");
        }
        let slots = std::mem::take(&mut *self.slots.table.lock());
        for slot in slots.into_values() {
            if let Some(runner) = slot.runner {
                runner.abort();
            }
        }
        self.slots.removals.close();
        if tokio::time::timeout(REMOVAL_PATIENCE, self.slots.removals.wait()).await.is_err() {
            tracing::warn!("directories of forgotten allocations are left: the next agent removes them");
        }
        machine.context.ledger.flush().await;
    }
}

mod exec;
mod orders;
mod stats;
#[cfg(test)]
mod tests;
