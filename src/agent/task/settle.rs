//! What follows a run or a failed start: the restart policy is asked, and its pause waited for.

use tokio::time::Instant;

use crate::agent::events;
use crate::agent::restart::Cause;
use crate::agent::restart::Verdict;
use crate::agent::restart::decide;
use crate::agent::task::Seen;
use crate::agent::task::TaskRequest;
use crate::agent::task::TaskRunner;
use crate::agent::task::Trouble;
use crate::agent::task::Wanted;
use crate::drivers::DriverError;
use crate::model::allocation::TaskRunState;

impl TaskRunner {
    pub(super) async fn settle_trouble(&mut self, trouble: Trouble) -> Seen {
        let Trouble { event, recoverable, fatal } = trouble;
        self.event(event);
        if fatal {
            return self.die(true).await;
        }
        self.settle(Cause::StartFailed { recoverable }).await
    }

    /// Asks the restart policy.
    pub(super) async fn settle(&mut self, cause: Cause) -> Seen {
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
                self.record.resume_at = now + after;
                self.delay_until = Instant::now() + after.to_std();
                self.note().await;
                Seen::Delayed
            }
        }
    }

    pub(super) async fn delay(&mut self) -> Seen {
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
}
