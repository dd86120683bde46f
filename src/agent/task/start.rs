//! Starts a task with its driver, or finds one again that an earlier agent started.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::agent::env;
use crate::agent::events;
use crate::agent::expand::Names;
use crate::agent::hooks::HookError;
use crate::agent::machine::Setup;
use crate::agent::network;
use crate::agent::task::Seen;
use crate::agent::task::TaskRunner;
use crate::agent::task::Trouble;
use crate::drivers::DriverError;
use crate::drivers::TaskConfig;
use crate::drivers::TaskId;
use crate::model::allocation::TaskRunState;
use crate::model::network::PortMapping;
use crate::model::task::Task;
use crate::model::time::Span;
use crate::model::time::Time;

impl TaskRunner {
    /// Finds a task again that an earlier agent started.
    pub(super) async fn recover(&mut self) -> Seen {
        if self.record.state.state == TaskRunState::Dead {
            return Seen::Dead;
        }
        let Some(handle) = self.record.handle.clone() else { return self.recover_delay() };
        let setup = self.setup();
        let task = Self::spec(&setup, &self.name);
        let Some(driver) = self.driver(&task) else { return Seen::Idle };
        let mut pause = Duration::from_millis(200);
        loop {
            match driver.recover(&handle).await {
                Ok(started) => {
                    self.driver_network = started;
                    // Its templates are taken up while it is watched.
                    self.register_services(&setup, &task);
                    return Seen::Running;
                }
                Err(DriverError::Recoverable(error)) => {
                    tracing::warn!(task = %self.name, %error, "cannot look for the task yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                Err(error) => {
                    tracing::warn!(alloc = %setup.allocation.id, task = %self.name, %error, "the task is gone");
                    let _ = driver.remove(&handle).await;
                    self.record.handle = None;
                    self.record.state.state = TaskRunState::Pending;
                    self.event(events::restore_failed());
                    self.note().await;
                    return Seen::Idle;
                }
            }
        }
    }

    /// A task that waited for its next start goes on waiting: the agent's own restart is no reason to hurry.
    fn recover_delay(&mut self) -> Seen {
        let left = self.record.resume_at.since(self.machine.now());
        if self.record.run == 0 || left <= Span::ZERO {
            return Seen::Idle;
        }
        self.delay_until = Instant::now() + left.to_std();
        Seen::Delayed
    }

    fn config(&self, setup: &Setup, task: &Task) -> Result<TaskConfig, Trouble> {
        let env = self.full_env(setup, task).map_err(|error| Trouble {
            event: events::killing_because(&error.message),
            recoverable: false,
            fatal: true,
        })?;
        let invalid = |text: String| Trouble {
            event: events::options_refused(vec![text]),
            recoverable: false,
            fatal: false,
        };
        let config = Names::new(&env, &self.machine.node_names()).expand(&task.config).map_err(invalid)?;
        let group = setup.group();
        let network_mode = group.and_then(|group| group.networks.first()).map(|network| network.mode.clone());
        let grant = setup.allocation.resources.tasks.get(&self.name).cloned().unwrap_or_default();
        let mut ports = setup.allocation.resources.shared.ports.clone();
        // The older networks of tasks give ports too, to this task only.
        for network in &grant.networks {
            let host_ip = env::network_ip(network, &self.machine.node());
            ports.extend(network.ports().map(|port| PortMapping {
                label: port.label.clone(),
                value: u16::try_from(port.value).unwrap_or_default(),
                to: port.to,
                host_ip: host_ip.clone(),
                ignore_collision: port.ignore_collision,
            }));
        }
        let dirs = self.dirs(setup);
        let (network_namespace, network_files) = network::hook::of_task(&self.shared, setup, &dirs)
            .map_err(|text| Trouble::hook("network", &HookError::recoverable(text)))?;
        Ok(TaskConfig {
            id: TaskId { alloc: setup.allocation.id, task: self.name.clone(), run: self.record.run },
            namespace: setup.allocation.namespace.clone(),
            job: setup.job.id.clone(),
            job_name: setup.job.name.clone(),
            parent_job: setup.job.parent_id.clone(),
            group: setup.allocation.task_group.clone(),
            alloc_name: setup.allocation.name(),
            node_name: self.machine.node().name.clone(),
            node_id: self.machine.node().id.to_string(),
            node_mhz: self.machine.usable_mhz(),
            user: task.user.clone(),
            config,
            env,
            dirs,
            logs: task.log_config.clone().unwrap_or_default(),
            ports,
            network_mode: network_mode.unwrap_or_default(),
            network_namespace,
            network_files,
            kill_signal: task.kill_signal.clone(),
            mounts: self.mounts(setup, task)?,
            grant,
        })
    }

    pub(super) async fn start(&mut self) -> Result<(), Trouble> {
        let setup = self.setup();
        let task = Self::spec(&setup, &self.name);
        let driver = self.driver(&task).ok_or_else(|| Trouble {
            event: events::driver_failed(&format!("driver {:?} is not available on this node", task.driver)),
            recoverable: false,
            fatal: false,
        })?;
        if let Some(cause) = self.machine.context.ledger.trouble() {
            // Unremembered, it could not be found again by the next agent.
            let text = format!("the agent cannot remember a new task: {cause}");
            return Err(Trouble { event: events::driver_failed(&text), recoverable: true, fatal: false });
        }
        if let Some(clearing) = self.clearing.take() {
            // Fails only if it panicked; what is left is then found by the next agent.
            let _ = clearing.await;
        }
        self.record.run += 1;
        self.record.resume_at = Time::NEVER;
        let config = self.config(&setup, &task)?;
        let problems = driver.validate(&config.config);
        if !problems.is_empty() {
            let event = events::options_refused(problems);
            return Err(Trouble { event, recoverable: false, fatal: false });
        }
        let machine = Arc::clone(&self.machine);
        // From here until the handle is safe the agent must not go away in peace.
        let _starting = machine.starting.read().await;
        let progress = self.hook_progress(events::driver);
        let started = driver.start(&config, progress);
        tokio::pin!(started);
        let result = loop {
            tokio::select! {
                result = &mut started => break result,
                event = self.progress.1.recv() => {
                    if let Some(event) = event {
                        self.event(event);
                        self.note().await;
                    }
                }
            }
        };
        match result {
            Ok((handle, started)) => {
                let now = self.machine.now();
                self.driver_network = started;
                self.record.handle = Some(handle);
                self.record.state.state = TaskRunState::Running;
                if self.record.state.started_at.is_never() {
                    self.record.state.started_at = now;
                }
                self.event(events::started());
                self.note_safely().await;
                self.register_services(&setup, &task);
                Ok(())
            }
            Err(error) => Err(Trouble {
                event: events::driver_failed(&error.to_string()),
                recoverable: error.is_recoverable(),
                fatal: false,
            }),
        }
    }
}
