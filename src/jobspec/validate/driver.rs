//! The options of a task's driver, as far as they can be judged before a node is chosen.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::jobspec::suggest::did_you_mean;
use crate::model::driver_schema;
use crate::model::driver_schema::Fault;
use crate::model::group::TaskGroup;
use crate::model::task::Task;

use super::problem::Findings;

/// MiB that a virtual machine may have.
const QEMU_MEMORY: std::ops::RangeInclusive<i64> = 128..=4_000_000;

/// Adds the problems of a built-in driver's options; other drivers know theirs only on the node.
pub(super) fn options(group: &TaskGroup, task: &Task, out: &mut Findings) {
    let Some(table) = driver_schema::options_of(&task.driver) else { return };
    let config = out.block("config", 0);
    let (mut shape, mut values) = (config.same(), config.same());
    for misfit in driver_schema::check_submitted(table, &task.config) {
        let place = misfit.blocks.iter().fold(config.same(), |place, (name, at)| place.block(name, *at));
        let mut own = place.same();
        own.at(&misfit.option, misfit.text);
        match misfit.fault {
            Fault::Shape => {
                let known = table.iter().map(|option| option.name);
                let near = did_you_mean(&misfit.option, known.filter(|_| misfit.blocks.is_empty()));
                if let Some(near) = near.filter(|near| *near != misfit.option) {
                    own = own.hinted(&format!("did you mean {near:?}?"));
                }
                shape.absorb(own);
            }
            Fault::Value => values.absorb(own),
        }
    }
    match task.driver.as_str() {
        "docker" => docker_ports(group, task, &mut values),
        "java" if task.config.get("class").is_none() && task.config.get("jar_path").is_none() => {
            values.push("jar_path or class must be specified");
        }
        "qemu" => {
            let memory = task.resources.as_ref().map_or(0, |resources| resources.memory_mb);
            if !QEMU_MEMORY.contains(&memory) {
                values.push("QEMU memory assignment out of bounds");
            }
        }
        _ => {}
    }
    out.nest("failed to parse config: ", shape);
    out.nest("failed driver config validation: ", values);
}

/// Labels of ports that the container publishes: `ports` speaks of the group's network, `port_map` of the task's own.
fn docker_ports(group: &TaskGroup, task: &Task, out: &mut Findings) {
    let labels: BTreeSet<&str> =
        group.networks.iter().flat_map(|network| network.ports()).map(|port| port.label.as_str()).collect();
    let wanted = task.config.get("ports").and_then(Value::as_array).into_iter().flatten();
    for label in wanted.filter_map(Value::as_str).filter(|label| !label.contains("${")) {
        if !labels.contains(label) {
            out.at("ports", format!("Port {label:?} not found, check network block"));
        }
    }
    let own = task.resources.as_ref().is_some_and(|resources| !resources.networks.is_empty());
    if task.config.contains_key("port_map") && !own && !labels.is_empty() {
        out.at("port_map", "'port_map' cannot map group network ports, use 'ports' instead");
    }
}
