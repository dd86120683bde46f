//! The check on arrival: may this allocation start here at all? Pure. A refusal costs no reschedule attempt.

use std::collections::BTreeSet;

use crate::agent::machine::Setup;
use crate::drivers::Drivers;
use crate::model::allocation::Allocation;
use crate::model::node::NodeInfo;
use crate::model::node::parse_port_ranges;
use crate::model::resources::AllocatedResources;

/// Looks at an allocation that is to start. `neighbours`: allocations on this node that have not ended.
///
/// # Errors
/// The reason, for people.
pub fn check(
    setup: &Setup,
    node: &NodeInfo,
    drivers: &Drivers,
    neighbours: &[std::sync::Arc<Allocation>],
) -> Result<(), String> {
    let allocation = &setup.allocation;
    let Some(group) = setup.group() else {
        return Err(format!("job {} has no group {:?}", allocation.job(), allocation.task_group));
    };
    for task in &group.tasks {
        if !drivers.contains_key(task.driver.as_str()) {
            return Err(format!(
                "driver {:?} of task {:?} is not available on this node",
                task.driver, task.name
            ));
        }
        if let Some(driver) = node.drivers.get(&task.driver)
            && !driver.healthy
        {
            return Err(format!(
                "driver {:?} of task {:?} is unhealthy: {}",
                task.driver, task.name, driver.health_description
            ));
        }
    }
    ports_are_free(allocation, node, neighbours)?;
    fits(allocation, node, neighbours)
}

/// Host ports held, each with its address (empty: all of them). Ports that may collide are left out.
fn held_ports(resources: &AllocatedResources) -> impl Iterator<Item = (u16, &str)> {
    let shared = resources.shared.ports.iter().filter(|port| !port.ignore_collision);
    let shared = shared.map(|port| (port.value, port.host_ip.as_str()));
    let networks = resources.tasks.values().flat_map(|task| &task.networks);
    let of_tasks = networks.flat_map(|network| network.ports().map(|port| (port, network.ip.as_str())));
    let of_tasks = of_tasks.filter_map(|(port, ip)| Some((u16::try_from(port.value).ok()?, ip)));
    shared.chain(of_tasks).filter(|(port, _)| *port != 0)
}

/// The same port may be held once per address of the node, as the scheduler hands them out.
fn ports_are_free(
    allocation: &Allocation,
    node: &NodeInfo,
    neighbours: &[std::sync::Arc<Allocation>],
) -> Result<(), String> {
    let wanted: BTreeSet<(u16, &str)> = held_ports(&allocation.resources).collect();
    let collides = |(port, ip): &(u16, &str)| {
        let mut same_port = wanted.iter().filter(|(other, _)| other == port);
        same_port.any(|(_, other)| ip.is_empty() || other.is_empty() || ip == other)
    };
    for other in neighbours {
        if let Some((port, _)) = held_ports(&other.resources).find(collides) {
            return Err(format!("port {port} is in use by allocation {}", other.id));
        }
    }
    let reserved = parse_port_ranges(&node.reserved.networks.reserved_host_ports).unwrap_or_default();
    match reserved.iter().find(|reserved| wanted.iter().any(|(port, _)| port == *reserved)) {
        Some(port) => Err(format!("port {port} is reserved on this node")),
        None => Ok(()),
    }
}

/// CPU (MHz), memory and disk (MiB).
fn total(resources: &AllocatedResources) -> [i64; 3] {
    let tasks = resources.tasks.values();
    let (cpu, memory) =
        tasks.fold((0, 0), |(cpu, memory), task| (cpu + task.cpu.cpu_shares, memory + task.memory.memory_mb));
    [cpu, memory, resources.shared.disk_mb]
}

fn fits(
    allocation: &Allocation,
    node: &NodeInfo,
    neighbours: &[std::sync::Arc<Allocation>],
) -> Result<(), String> {
    let capacity = [
        node.resources.cpu.cpu_shares - node.reserved.cpu.cpu_shares,
        node.resources.memory.memory_mb - node.reserved.memory.memory_mb,
        node.resources.disk.disk_mb - node.reserved.disk.disk_mb,
    ];
    let mut used = total(&allocation.resources);
    for other in neighbours {
        used.iter_mut().zip(total(&other.resources)).for_each(|(sum, more)| *sum += more);
    }
    let known = [node.resources.cpu.cpu_shares, node.resources.memory.memory_mb, node.resources.disk.disk_mb];
    for (((name, used), capacity), known) in
        ["cpu", "memory", "disk"].into_iter().zip(used).zip(capacity).zip(known)
    {
        if known > 0 && used > capacity {
            return Err(format!("does not fit: {name} exhausted ({used} of {capacity} wanted)"));
        }
    }
    Ok(())
}
