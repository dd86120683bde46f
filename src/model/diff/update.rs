//! Whether running allocations can carry a new version of their job, or must be replaced.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::constraint::Constraint;
use crate::model::group::TaskGroup;
use crate::model::job::Job;
use crate::model::network::Network;
use crate::model::network::Port;
use crate::model::resources::Resources;
use crate::model::service::Service;
use crate::model::task::Task;

/// What a new version means for a running allocation of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateKind {
    /// Nothing changed.
    None,
    /// The allocation goes on and follows the new version.
    InPlace {
        /// Constraints, datacenters or pool changed: this holds only where the node still satisfies them.
        recheck_node: bool,
    },
    /// The allocation must be replaced.
    Destructive,
}

/// Compares what concerns `group`. A group that is gone counts as destructive.
pub fn update_kind(old: &Job, new: &Job, group: &str) -> UpdateKind {
    let (Some(old_group), Some(new_group)) = (old.group(group), new.group(group)) else {
        return UpdateKind::Destructive;
    };
    if old.same_spec(new) {
        return UpdateKind::None;
    }
    if is_destructive((old, old_group), (new, new_group)) {
        return UpdateKind::Destructive;
    }
    let recheck_node = old.datacenters != new.datacenters
        || old.node_pool != new.node_pool
        || old.region != new.region
        || constraints(old, old_group) != constraints(new, new_group);
    UpdateKind::InPlace { recheck_node }
}

fn constraints<'a>(job: &'a Job, group: &'a TaskGroup) -> Vec<&'a Constraint> {
    let of_tasks = group.tasks.iter().flat_map(|task| &task.constraints);
    job.constraints.iter().chain(&group.constraints).chain(of_tasks).collect()
}

fn is_destructive((old_job, old): (&Job, &TaskGroup), (new_job, new): (&Job, &TaskGroup)) -> bool {
    let renders =
        |group: &TaskGroup| group.restart_policy.as_ref().is_some_and(|policy| policy.render_templates);
    if old.tasks.len() != new.tasks.len()
        || old.ephemeral_disk != new.ephemeral_disk
        || old.volumes != new.volumes
        || renders(old) != renders(new)
        || networks(&old.networks) != networks(&new.networks)
        || meshes(&old.services) != meshes(&new.services)
    {
        return true;
    }
    old.tasks.iter().any(|old_task| match new.task(&old_task.name) {
        None => true,
        Some(new_task) => {
            merged_meta(old_job, old, old_task) != merged_meta(new_job, new, new_task)
                || is_destructive_task(old_task, new_task)
        }
    })
}

fn is_destructive_task(old: &Task, new: &Task) -> bool {
    let quiet = |task: &Task| task.log_config.as_ref().is_some_and(|logs| logs.disabled);
    let renders = |task: &Task| task.restart_policy.as_ref().is_some_and(|policy| policy.render_templates);
    old.driver != new.driver
        || old.user != new.user
        || old.config != new.config
        || old.env != new.env
        || old.artifacts != new.artifacts
        || old.templates != new.templates
        || old.vault != new.vault
        || consul_differs(old.consul.as_ref(), new.consul.as_ref())
        || old.identity != new.identity
        || old.identities != new.identities
        || old.csi_plugin_config != new.csi_plugin_config
        || old.volume_mounts != new.volume_mounts
        || quiet(old) != quiet(new)
        || renders(old) != renders(new)
        || resources_differ(&old.resources(), &new.resources())
}

/// Input/output operations and disk of a task have no effect; the rest is a grant that a running task cannot change.
fn resources_differ(old: &Resources, new: &Resources) -> bool {
    old.cpu_mhz != new.cpu_mhz
        || old.cores != new.cores
        || old.memory_mb != new.memory_mb
        || old.memory_max_mb != new.memory_max_mb
        || old.secrets_mb != new.secrets_mb
        || old.devices != new.devices
        || old.numa != new.numa
        || networks(&old.networks) != networks(&new.networks)
}

/// Task over group over job: where a key stands does not matter, only what the task sees.
fn merged_meta<'a>(job: &'a Job, group: &'a TaskGroup, task: &'a Task) -> BTreeMap<&'a str, &'a str> {
    let all = job.meta.iter().chain(&group.meta).chain(&task.meta);
    all.map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// What a network asks for, apart from how it is spelled.
#[derive(PartialEq)]
struct NetworkKey<'a> {
    mode: &'a str,
    mbits: i64,
    hostname: &'a str,
    dns: Value,
    cni: Value,
    reserved: Vec<PortKey<'a>>,
    dynamic: Vec<PortKey<'a>>,
}

#[derive(PartialEq)]
struct PortKey<'a> {
    label: &'a str,
    value: i64,
    to: i64,
    host_network: &'a str,
}

fn networks(networks: &[Network]) -> Vec<NetworkKey<'_>> {
    networks
        .iter()
        .map(|network| NetworkKey {
            mode: if network.mode.is_empty() { "host" } else { &network.mode },
            mbits: network.mbits,
            hostname: &network.hostname,
            dns: serde_json::to_value(&network.dns).unwrap_or_default(),
            cni: serde_json::to_value(&network.cni).unwrap_or_default(),
            reserved: network.reserved_ports.iter().map(|port| port_key(port, port.value)).collect(),
            // A dynamic port's number is chosen at placement.
            dynamic: network.dynamic_ports.iter().map(|port| port_key(port, 0)).collect(),
        })
        .collect()
}

fn port_key(port: &Port, value: i64) -> PortKey<'_> {
    let host_network = if port.host_network.is_empty() { "default" } else { &port.host_network };
    PortKey { label: &port.label, value, to: port.to, host_network }
}

/// The namespace always counts, cluster and partition only when both sides say something.
fn consul_differs(old: Option<&Value>, new: Option<&Value>) -> bool {
    let text = |block: Option<&Value>, key: &str| {
        block.and_then(|block| block.get(key)).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    if text(old, "Namespace") != text(new, "Namespace") {
        return true;
    }
    let both = old.is_some() && new.is_some();
    both && ["Cluster", "Partition"].iter().any(|key| text(old, key) != text(new, key))
}

/// Services of a mesh bring a proxy along.
fn meshes(services: &[Service]) -> Vec<(&str, &str, &str, &Value)> {
    let meshed = services.iter().filter_map(|service| Some((service, service.connect.as_ref()?)));
    meshed
        .map(|(service, connect)| {
            (service.name.as_str(), service.port_label.as_str(), service.cluster.as_str(), connect)
        })
        .collect()
}
