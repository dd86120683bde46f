//! Stays with a running task: orders, requests and changes of templates until it ends or is to end.

use std::sync::Arc;

use futures::future::OptionFuture;

use crate::agent::events;
use crate::agent::hooks::HookError;
use crate::agent::hooks::TemplateChange;
use crate::agent::restart::Cause;
use crate::agent::surroundings::TemplateTask;
use crate::agent::task::RunningTemplates;
use crate::agent::task::Seen;
use crate::agent::task::TaskRequest;
use crate::agent::task::TaskRunner;
use crate::agent::task::Wanted;
use crate::agent::task::identities::Renewal;
use crate::drivers::Driver;
use crate::drivers::DriverError;
use crate::drivers::ExitStatus;
use crate::drivers::TaskHandle;
use crate::model::allocation::TaskEvent;

/// How watching a running task ended.
enum Outcome {
    Exited(Result<ExitStatus, DriverError>),
    /// Orders changed to stop.
    Ordered,
    Restart {
        reason: String,
        counted: bool,
    },
    /// A template or its script failed: the event says how.
    Broken(TaskEvent),
}

impl TaskRunner {
    /// Stays with the running task until it ends or something else is to be done.
    pub(super) async fn watch(&mut self) -> Seen {
        match self.await_outcome().await {
            Outcome::Ordered => Seen::Running,
            Outcome::Exited(result) => {
                let exit = self.take_exit(result).await;
                self.settle(Cause::Ended { success: exit.is_success() }).await
            }
            Outcome::Restart { reason, counted } => {
                self.event(events::restart_signaled(&reason));
                self.note().await;
                self.deregister_services();
                let exit = self.end_process().await;
                self.take_exit(exit).await;
                self.settle(if counted { Cause::Unhealthy } else { Cause::Requested }).await
            }
            Outcome::Broken(event) => {
                self.event(event);
                self.note().await;
                self.deregister_services();
                let exit = self.end_process().await;
                self.take_exit(exit).await;
                self.die(true).await
            }
        }
    }

    async fn await_outcome(&mut self) -> Outcome {
        let Some(handle) = self.record.handle.clone() else {
            return Outcome::Exited(Err(DriverError::NotFound));
        };
        let Some(driver) = self.machine.config.drivers.get(handle.driver.as_str()).map(Arc::clone) else {
            return Outcome::Exited(Err(DriverError::NotFound));
        };
        let mut exit = {
            let (driver, handle) = (Arc::clone(&driver), handle.clone());
            Box::pin(async move { driver.wait(&handle).await })
        };
        let setup = self.setup();
        let task = Self::spec(&setup, &self.name);
        let resume = !task.templates.is_empty() && self.templates.is_none();
        let mut resumed =
            OptionFuture::from(resume.then(|| self.templates_for(&setup, &task, TemplateTask::Running)));
        loop {
            let change = async {
                match &mut self.templates {
                    Some((_, changes)) => changes.recv().await,
                    None => None,
                }
            };
            tokio::select! {
                biased;
                result = &mut exit => return Outcome::Exited(result),
                changed = self.orders.changed() => {
                    if changed.is_err() || matches!(self.orders.borrow().wanted, Wanted::Stop(_)) {
                        return Outcome::Ordered;
                    }
                    let setup = self.setup();
                    let task = Self::spec(&setup, &self.name);
                    self.register_services(&setup, &task);
                }
                Some(request) = self.requests.recv() => match request {
                    TaskRequest::Restart { reason, counted } => return Outcome::Restart { reason, counted },
                    TaskRequest::Signal { signal, reply } => {
                        self.event(events::signaling(&signal, ""));
                        self.note().await;
                        // The caller may have gone away.
                        let _ = reply.send(driver.signal(&handle, &signal).await);
                    }
                },
                Some(result) = &mut resumed => {
                    resumed = None.into();
                    self.resume_templates(result).await;
                }
                Some(change) = change => {
                    if let Some(outcome) = self.follow_template(&driver, &handle, change).await {
                        return outcome;
                    }
                }
                // Without a sender the agent is going.
                Ok(()) = self.identities.changed() => {
                    if let Some(outcome) = self.follow_identities(&driver, &handle).await {
                        return outcome;
                    }
                }
                Some(event) = self.progress.1.recv() => {
                    self.event(event);
                    self.note().await;
                }
            }
        }
    }

    /// Templates of a task that an earlier agent started are at work again, or cannot be.
    async fn resume_templates(&mut self, started: Result<RunningTemplates, HookError>) {
        match started {
            Ok(running) => self.templates = Some(running),
            Err(error) => {
                tracing::warn!(task = %self.name, %error, "templates of a running task do not work");
                self.event(events::hook_failed(&format!("template: {error}")));
                self.note().await;
            }
        }
    }

    /// Exchanges tokens that the cluster has renewed, and does what their identities ask for.
    async fn follow_identities(&mut self, driver: &Arc<dyn Driver>, handle: &TaskHandle) -> Option<Outcome> {
        let setup = self.setup();
        let task = Self::spec(&setup, &self.name);
        for renewal in self.write_identities(&setup, &task) {
            match renewal {
                Renewal::Restart => {
                    let reason = "Identity with change_mode restart renewed".to_owned();
                    return Some(Outcome::Restart { reason, counted: false });
                }
                Renewal::Signal(signal) => {
                    self.event(events::signaling(events::signal_word(&signal), "Identity renewed"));
                    self.note().await;
                    if let Err(error) = driver.signal(handle, &signal).await {
                        tracing::warn!(task = %self.name, %error, "cannot tell the task of a renewed identity");
                    }
                }
            }
        }
        None
    }

    /// Does what a changed template asks for; tells how watching ends, if it does.
    async fn follow_template(
        &mut self,
        driver: &Arc<dyn Driver>,
        handle: &TaskHandle,
        change: TemplateChange,
    ) -> Option<Outcome> {
        match change {
            TemplateChange::Restart => {
                let reason = "Template with change_mode restart re-rendered".to_owned();
                return Some(Outcome::Restart { reason, counted: false });
            }
            TemplateChange::Failed(text) => return Some(Outcome::Broken(events::killing_because(&text))),
            TemplateChange::Signal(signal) => {
                let word = events::signal_word(&signal);
                self.event(events::signaling(word, "Template re-rendered"));
                self.note().await;
                if let Err(error) = driver.signal(handle, &signal).await {
                    let text =
                        format!("Template failed to send signals [{word}]: 1 error occurred:\n\t* {error}");
                    return Some(Outcome::Broken(events::killing_because(&text)));
                }
            }
            TemplateChange::Script(script) => {
                let mut command = vec![script.command.clone()];
                command.extend(script.args.iter().cloned());
                let result = driver.exec(handle, &command, script.timeout.to_std()).await;
                let (event, failed) = events::script_ran(&script.command, &script.args, result);
                self.event(event);
                self.note().await;
                if failed && script.fail_on_error {
                    let text = "Template script failed, task is being killed";
                    return Some(Outcome::Broken(events::killing_because(text)));
                }
            }
        }
        None
    }
}
