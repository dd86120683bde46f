//! Ends a task: on order, or for good; and clears up after each run.

use std::sync::Arc;
use std::time::Duration;

use crate::agent::events;
use crate::agent::task::Seen;
use crate::agent::task::TaskRunner;
use crate::agent::task::Wanted;
use crate::drivers::DriverError;
use crate::drivers::ExitStatus;
use crate::model::allocation::TaskRunState;
use crate::model::time::Span;

/// A driver that cannot end a task is asked again this often, with growing pauses.
const STOP_ATTEMPTS: u32 = 5;
const FIRST_STOP_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_STOP_PAUSE: Duration = Duration::from_secs(120);

impl TaskRunner {
    /// Ends the process of the task and waits for it.
    pub(super) async fn end_process(&mut self) -> Result<ExitStatus, DriverError> {
        let handle = self.record.handle.clone().ok_or(DriverError::NotFound)?;
        let driver = self.machine.config.drivers.get(handle.driver.as_str()).ok_or(DriverError::NotFound)?;
        let task = Self::spec(&self.setup(), &self.name);
        let timeout = self.machine.kill_timeout(&task).to_std();
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
    pub(super) async fn take_exit(&mut self, result: Result<ExitStatus, DriverError>) -> ExitStatus {
        let exit = result.unwrap_or_else(|error| ExitStatus {
            code: -1,
            message: error.to_string(),
            ..ExitStatus::default()
        });
        self.event(events::terminated(&exit));
        self.deregister_services();
        self.clear_up().await;
        self.record.state.finished_at = self.machine.now();
        exit
    }

    /// Removes what the driver keeps of a run that has ended. While that end cannot be remembered it stays, because
    /// the next agent would have to ask the driver how the run ended.
    async fn clear_up(&mut self) {
        let Some(handle) = self.record.handle.take() else { return };
        let Some(driver) = self.machine.config.drivers.get(handle.driver.as_str()).map(Arc::clone) else {
            return;
        };
        let ledger = &self.machine.context.ledger;
        let troubles = ledger.troubles().filter(|troubles| troubles.borrow().is_some());
        let task = self.name.clone();
        let remove = async move {
            if let Some(mut troubles) = troubles
                && troubles.wait_for(Option::is_none).await.is_err()
            {
                // The agent has gone: it is the next one's business.
                return;
            }
            if let Err(error) = driver.remove(&handle).await {
                tracing::warn!(%task, %error, "cannot clear up after the task");
            }
        };
        if ledger.trouble().is_some() {
            self.clearing = Some(tokio::spawn(remove));
        } else {
            remove.await;
        }
    }

    pub(super) async fn die(&mut self, failed: bool) -> Seen {
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

    pub(super) async fn abandon(&mut self, wanted: &Wanted) -> Seen {
        if let Wanted::Stop(Some(event)) = wanted {
            self.event(event.clone());
        }
        let task = Self::spec(&self.setup(), &self.name);
        self.event(events::killing(self.machine.kill_timeout(&task)));
        self.die(false).await
    }

    /// Ends the running task on order.
    pub(super) async fn stop(&mut self, wanted: &Wanted) -> Seen {
        let task = Self::spec(&self.setup(), &self.name);
        if let Wanted::Stop(Some(event)) = wanted {
            self.event(event.clone());
        }
        self.event(events::killing(self.machine.kill_timeout(&task)));
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
