//! Labels and numbers of ports, over the group's networks and the older ones of its tasks.

use std::collections::BTreeMap;

use crate::model::group::TaskGroup;
use crate::model::network::Network;
use crate::model::network::Port;

use super::problem::Findings;
use super::problem::Pick;

const MAX_PORT: i64 = 65_535;

/// Who holds a label or a static port.
#[derive(Default)]
struct Taken<'a> {
    labels: BTreeMap<&'a str, String>,
    /// By host network and number.
    numbers: BTreeMap<(&'a str, i64), String>,
}

/// Problems of the group's networks, and those of each task that has networks of its own.
pub(super) fn check<'a>(group: &'a TaskGroup, found: &Findings) -> (Findings, BTreeMap<&'a str, Findings>) {
    let mut taken = Taken::default();
    let mut of_group = found.block("network", 0);
    let mut inside = Vec::new();
    for (index, network) in group.networks.iter().enumerate() {
        let mut own = found.block("network", index);
        check_network(network, "taskgroup network", &mut taken, &mut own);
        check_cni(network, &mut own);
        inside.push(own);
    }
    inside.into_iter().for_each(|own| of_group.absorb(own));
    let mut of_tasks = BTreeMap::new();
    for task in &group.tasks {
        let resources = found.block("task", &task.name).block("resources", 0);
        let mut errors = resources.same();
        let networks = task.resources.iter().flat_map(|resources| &resources.networks);
        for (index, network) in networks.enumerate() {
            let mut own = resources.block("network", index);
            check_network(network, &format!("{} network", task.name), &mut taken, &mut own);
            errors.absorb(own);
        }
        of_tasks.insert(task.name.as_str(), errors);
    }
    (of_group, of_tasks)
}

fn check_network<'a>(network: &'a Network, who: &str, taken: &mut Taken<'a>, errors: &mut Findings) {
    for port in network.ports() {
        let label = &port.label;
        let mut own = errors.block("port", label);
        match taken.labels.get(label.as_str()) {
            Some(owner) => {
                let mut second = errors.block("port", Pick::Again(label.clone()));
                second.push(format!("Port label {label} already in use by {owner}"));
                own.absorb(second);
            }
            None => {
                taken.labels.insert(label, who.to_owned());
            }
        }
        if port.ignore_collision && !matches!(network.mode.as_str(), "" | "host") {
            let mode = &network.mode;
            own.at(
                "ignore_collision",
                format!("Port {label:?} collision may not be ignored on non-host network mode {mode:?}"),
            );
        }
        check_target(port, &mut own);
        errors.absorb(own);
    }
    for port in &network.reserved_ports {
        let label = &port.label;
        let number = port.value;
        let mut own = errors.block("port", label);
        if number > MAX_PORT {
            own.at("static", format!("Port {label} ({number}) cannot be greater than {MAX_PORT}"));
        } else if !port.ignore_collision && number != 0 {
            let key = (host_network(port), number);
            match taken.numbers.get(&key) {
                Some(owner) => {
                    own.at("static", format!("Static port {number} already reserved by {owner}"));
                }
                None => {
                    taken.numbers.insert(key, format!("{who}:{label}"));
                }
            }
        }
        errors.absorb(own);
    }
}

fn host_network(port: &Port) -> &str {
    if port.host_network.is_empty() { "default" } else { &port.host_network }
}

fn check_target(port: &Port, errors: &mut Findings) {
    let Port { label, to, .. } = port;
    if *to < -1 {
        errors.at("to", format!("Port {label:?} cannot be mapped to negative value {to}"));
    } else if *to > MAX_PORT {
        errors.at("to", format!("Port {label:?} cannot be mapped to a port ({to}) greater than {MAX_PORT}"));
    }
}

fn check_cni(network: &Network, errors: &mut Findings) {
    for value in network.cni.iter().flat_map(|cni| cni.args.iter()).flat_map(|(key, value)| [key, value]) {
        if value.contains(';') {
            let mut own = errors.block("cni", 0);
            own.at("args", format!("invalid ';' character in CNI arg value {value:?}"));
            errors.absorb(own);
        }
    }
}
