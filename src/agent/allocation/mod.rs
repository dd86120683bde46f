//! The runner of one allocation: waits for its predecessor, checks that it fits, makes directories, starts and ends
//! its tasks in order, decides health, and is the only one to write the allocation's record and report.

mod group;
mod health;
mod inherit;
mod report;
mod services;

pub use report::report_of;

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::watch;

use crate::agent::allocation::group::Group;
use crate::agent::allocation::report::save_and_report;
use crate::agent::arrival;
use crate::agent::dirs;
use crate::agent::events;
use crate::agent::ledger::TaskRecord;
use crate::agent::machine::AllocShared;
use crate::agent::machine::Machine;
use crate::agent::machine::Setup;
use crate::agent::network;
use crate::agent::network::hook::NetworkError;
use crate::agent::real::Slots;
use crate::agent::task::TaskRequest;
use crate::model::allocation::TaskRunState;

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
    /// With a restart of all: also tasks that have ended.
    pub ended: bool,
    pub request: TaskRequest,
}

/// Runs one allocation to its end.
pub struct AllocRunner {
    pub shared: Arc<AllocShared>,
    pub machine: Arc<Machine>,
    pub slots: Slots,
    pub orders: watch::Receiver<AllocOrders>,
    pub requests: mpsc::Receiver<AllocRequest>,
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
        if !self.await_former(&setup).await {
            self.bury("");
            return false;
        }
        if let Err(reason) = self.make_directories(&setup).await {
            self.fail_all(&reason);
            return false;
        }
        if let Err(error) = network::hook::set_up(&self.shared, &setup).await {
            self.fail_network(&error);
            return false;
        }
        self.bring_over(&setup).await;
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
        let id = self.shared.record.lock().allocation.id;
        let root = self.machine.config.alloc_root.clone();
        // What stays for people to look at holds no secrets, and no memory.
        let detached = tokio::task::spawn_blocking(move || dirs::detach(&root, id)).await;
        if let Ok(Err(error)) = detached {
            tracing::warn!(alloc = %id, %error, "cannot unmount the secrets of an ended allocation");
        }
        self.shared.record.lock().ended_at = self.machine.now();
        self.save_and_report().await;
        tracing::debug!(alloc = %id, "ended");
        self.shared.ended.send_replace(true);
        self.slots.settle(id);
    }
}
