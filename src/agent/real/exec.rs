//! Commands that people run in tasks.

use crate::agent::real::RealWorkload;
use crate::agent::real::RequestError;
use crate::drivers::DriverError;
use crate::drivers::session::ExecRequest;
use crate::drivers::session::ExecSession;
use crate::model::allocation::TaskRunState;
use crate::model::id::AllocId;

impl RealWorkload {
    /// Runs a command in a task with somebody at the other end.
    ///
    /// # Errors
    /// When the task does not run, or its driver cannot do this.
    pub async fn session(
        &self,
        alloc: AllocId,
        task: &str,
        request: &ExecRequest,
    ) -> Result<ExecSession, RequestError> {
        let shared = self.shared(alloc)?;
        self.started(alloc, task)?;
        let state = shared.record.lock().tasks.get(task).map(|task| task.state.state);
        if state != Some(TaskRunState::Running) {
            return Err(RequestError::Ended(task.to_owned()));
        }
        let ended = || RequestError::Ended(task.to_owned());
        let handle = shared.handle(task).ok_or_else(ended)?;
        let driver = self.config.drivers.get(handle.driver.as_str()).ok_or_else(ended)?;
        match driver.session(&handle, request).await {
            Err(DriverError::NotFound) => Err(ended()),
            result => Ok(result?),
        }
    }

    /// Has the task been started at least once?
    ///
    /// # Errors
    /// It has not, or there is no such task.
    pub fn started(&self, alloc: AllocId, task: &str) -> Result<(), RequestError> {
        let shared = self.shared(alloc)?;
        let started = shared.record.lock().tasks.get(task).map(|task| task.run > 0);
        match started {
            Some(true) => Ok(()),
            None if !self.job(alloc).is_some_and(|job| has_task(&job, task)) => {
                Err(RequestError::NoSuchTask(task.to_owned()))
            }
            Some(false) | None => Err(RequestError::NotStarted(task.to_owned())),
        }
    }
}

fn has_task(job: &crate::model::job::Job, task: &str) -> bool {
    job.task_groups.iter().any(|group| group.task(task).is_some())
}
