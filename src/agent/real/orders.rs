//! What people order for running tasks: restarts and signals.

use tokio::sync::oneshot;

use crate::agent::allocation::AllocRequest;
use crate::agent::real::RealWorkload;
use crate::agent::real::RequestError;
use crate::agent::task::TaskRequest;
use crate::drivers::DriverError;
use crate::model::allocation::TaskRunState;
use crate::model::id::AllocId;

/// Why tasks restart, as their events say it.
const REASON: &str = "User requested task to restart";

impl RealWorkload {
    /// Restarts one task, or all running ones.
    ///
    /// # Errors
    /// When there is nothing to restart.
    pub fn restart(&self, alloc: AllocId, task: Option<&str>) -> Result<(), RequestError> {
        self.order_restart(alloc, task, false)
    }

    /// Restarts all tasks, those that have ended too, in the order of their lifecycle.
    ///
    /// # Errors
    /// When the allocation has ended, or is to.
    pub fn restart_all(&self, alloc: AllocId) -> Result<(), RequestError> {
        self.order_restart(alloc, None, true)
    }

    fn order_restart(&self, alloc: AllocId, task: Option<&str>, ended: bool) -> Result<(), RequestError> {
        let table = self.slots.table.lock();
        let slot = table.get(&alloc).ok_or(RequestError::UnknownAllocation)?;
        if slot.orders.borrow().stop {
            return Err(RequestError::NotWanted);
        }
        let record = slot.shared.record.lock();
        let running =
            |name: &str| record.tasks.get(name).is_some_and(|task| task.state.state == TaskRunState::Running);
        match task {
            Some(name) if !record.tasks.contains_key(name) => {
                return Err(RequestError::UnknownTask(name.to_owned()));
            }
            Some(name) if !running(name) => return Err(RequestError::NotRunning),
            None if !record.tasks.keys().any(|name| running(name)) => return Err(RequestError::NotRunning),
            _ => {}
        }
        let request = TaskRequest::Restart { reason: REASON.to_owned(), counted: false };
        let request = AllocRequest { task: task.map(str::to_owned), ended, request };
        slot.requests.try_send(request).map_err(|_| RequestError::NotRunning)
    }

    /// Sends a signal to one task, or to all. Those that can be reached get it whatever becomes of the others.
    ///
    /// # Errors
    /// When a task does not run or its driver cannot send signals.
    pub async fn signal(&self, alloc: AllocId, task: Option<&str>, signal: &str) -> Result<(), RequestError> {
        let shared = self.shared(alloc)?;
        let names: Vec<String> = shared.record.lock().tasks.keys().cloned().collect();
        let chosen: Vec<String> = match task {
            Some(name) if !names.iter().any(|known| known == name) => {
                return Err(RequestError::TaskNotFound);
            }
            Some(name) => vec![name.to_owned()],
            None => names,
        };
        let mut failed = Vec::new();
        for task in chosen {
            let sent = match shared.handle(&task) {
                Some(_) => self.signal_one(alloc, &task, signal).await,
                None => Err(DriverError::NotFound),
            };
            if let Err(error) = sent {
                let why = if error == DriverError::NotFound {
                    "Task not running".to_owned()
                } else {
                    error.to_string()
                };
                failed.push(format!("Failed to signal task: {task}, err: {why}"));
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(RequestError::Signal(failed)) }
    }

    async fn signal_one(&self, alloc: AllocId, task: &str, signal: &str) -> Result<(), DriverError> {
        let (reply, answer) = oneshot::channel();
        let request = TaskRequest::Signal { signal: signal.to_owned(), reply };
        let request = AllocRequest { task: Some(task.to_owned()), ended: false, request };
        let requests = self.slots.table.lock().get(&alloc).map(|slot| slot.requests.clone());
        let requests = requests.ok_or(DriverError::NotFound)?;
        requests.try_send(request).map_err(|_| DriverError::NotFound)?;
        // A runner that is gone has no task any more.
        answer.await.unwrap_or(Err(DriverError::NotFound))
    }
}
