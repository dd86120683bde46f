//! The services of a task: registered while it runs.

use std::sync::Arc;

use crate::agent::env;
use crate::agent::hooks::ServiceContext;
use crate::agent::machine::OutboxSink;
use crate::agent::machine::Setup;
use crate::agent::machine::WeakExec;
use crate::agent::task::TaskRunner;
use crate::model::task::Task;

impl TaskRunner {
    fn service_context(&self, setup: &Setup) -> ServiceContext {
        let node = self.machine.node();
        let grant = setup.allocation.resources.tasks.get(&self.name);
        ServiceContext {
            alloc: setup.allocation.id,
            namespace: setup.allocation.namespace.clone(),
            job_id: setup.allocation.job_id.clone(),
            group: setup.allocation.task_group.clone(),
            task: Some(self.name.clone()),
            node_id: node.id,
            datacenter: node.datacenter.clone(),
            canary: setup.allocation.canary,
            ports: setup.allocation.resources.shared.ports.clone(),
            task_networks: grant.map(|grant| grant.networks.clone()).unwrap_or_default(),
            node_ip: env::node_ip(&node),
            network_status: self.shared.record.lock().network.clone(),
            driver_address: self.driver_network.address.clone(),
            driver_advertises: self.driver_network.advertise,
            driver_ports: self.driver_network.ports.clone(),
            exec: Arc::new(WeakExec(Arc::downgrade(&self.shared))),
            clock: Arc::clone(&self.machine.context.clock),
        }
    }

    /// Registers the task's services, or brings them up to date.
    pub(super) fn register_services(&self, setup: &Setup, task: &Task) {
        let mut env = self.full_env(setup, task).unwrap_or_default();
        let networks = setup.allocation.resources.tasks.get(&self.name).map(|grant| &grant.networks[..]);
        env::put_driver_ports(&mut env, networks.unwrap_or_default(), &self.driver_network.ports);
        let names = self.machine.node_names();
        let resolve = |name: &str| env::lookup(&env, &names, name);
        let services: Vec<_> =
            task.services.iter().map(|service| env::interpolate_block(service, &resolve)).collect();
        let context = self.service_context(setup);
        let before = self.shared.record.lock().checks.clone();
        let mut table = self.shared.services.lock();
        match table.get(&self.name) {
            Some(known) => {
                known.update(context, services);
                known.task_restarted();
            }
            None if services.is_empty() => {}
            None => {
                let sink = Arc::new(OutboxSink(self.machine.context.outbox.clone()));
                let restarts = self.check_restarts.clone();
                let started = self
                    .machine
                    .config
                    .surroundings
                    .start_services(context, services, sink, restarts, before);
                table.insert(self.name.clone(), started);
            }
        }
    }

    pub(super) fn deregister_services(&self) {
        if let Some(services) = self.shared.services.lock().remove(&self.name) {
            services.deregister();
        }
    }
}
