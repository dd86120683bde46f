//! The services of a group: registered from its start until it is to end.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::agent::allocation::group::Group;
use crate::agent::env;
use crate::agent::env::EnvSource;
use crate::agent::hooks::ServiceContext;
use crate::agent::machine::OutboxSink;
use crate::agent::machine::WeakExec;
use crate::drivers::TaskDirs;
use crate::model::task::Task;

impl Group {
    pub(super) fn register_services(&self) {
        let Some(group) = self.setup.group() else { return };
        let node = self.machine.node();
        let names = self.machine.node_names();
        let nothing = (Task::default(), TaskDirs::default(), BTreeMap::new());
        let network = self.shared.record.lock().network.clone();
        let env = env::group_env(&EnvSource {
            allocation: &self.setup.allocation,
            job: &self.setup.job,
            group,
            task: &nothing.0,
            node: &node,
            node_names: &names,
            region: &self.machine.config.region,
            dirs: &nothing.1,
            network: network.as_ref(),
            host_env: &nothing.2,
        });
        let resolve = |name: &str| env::lookup(&env, &names, name);
        let services: Vec<_> =
            group.services.iter().map(|service| env::interpolate_block(service, &resolve)).collect();
        let context = ServiceContext {
            alloc: self.setup.allocation.id,
            namespace: self.setup.allocation.namespace.clone(),
            job_id: self.setup.allocation.job_id.clone(),
            group: group.name.clone(),
            task: None,
            node_id: node.id,
            datacenter: node.datacenter.clone(),
            canary: self.setup.allocation.canary,
            ports: self.setup.allocation.resources.shared.ports.clone(),
            task_networks: Vec::new(),
            node_ip: env::node_ip(&node),
            network_status: network,
            driver_address: None,
            driver_advertises: false,
            driver_ports: BTreeMap::new(),
            exec: Arc::new(WeakExec(Arc::downgrade(&self.shared))),
            clock: Arc::clone(&self.machine.context.clock),
        };
        let before = self.shared.record.lock().checks.clone();
        let mut table = self.shared.services.lock();
        match table.get("") {
            Some(known) => known.update(context, services),
            None if services.is_empty() => {}
            None => {
                let sink = Arc::new(OutboxSink(self.machine.context.outbox.clone()));
                let restarts = self.check_restarts.0.clone();
                let started = self
                    .machine
                    .config
                    .surroundings
                    .start_services(context, services, sink, restarts, before);
                table.insert(String::new(), started);
            }
        }
    }

    pub(super) fn deregister_services(&self) {
        if let Some(services) = self.shared.services.lock().remove("") {
            services.deregister();
        }
    }
}
