//! Labels and numbers of ports, over the group's networks and the older ones of its tasks.

use std::collections::BTreeMap;

use crate::model::group::TaskGroup;
use crate::model::network::Network;
use crate::model::network::Port;

const MAX_PORT: i64 = 65_535;

/// Who holds a label or a static port.
#[derive(Default)]
struct Taken<'a> {
    labels: BTreeMap<&'a str, String>,
    /// By host network and number.
    numbers: BTreeMap<(&'a str, i64), String>,
}

/// Problems of the group's networks, and those of each task that has networks of its own.
pub(super) fn check(group: &TaskGroup) -> (Vec<String>, BTreeMap<&str, Vec<String>>) {
    let mut taken = Taken::default();
    let mut of_group = Vec::new();
    for network in &group.networks {
        check_network(network, "taskgroup network", &mut taken, &mut of_group);
        check_cni(network, &mut of_group);
    }
    let mut of_tasks = BTreeMap::new();
    for task in &group.tasks {
        let mut errors = Vec::new();
        let networks = task.resources.iter().flat_map(|resources| &resources.networks);
        for network in networks {
            check_network(network, &format!("{} network", task.name), &mut taken, &mut errors);
        }
        of_tasks.insert(task.name.as_str(), errors);
    }
    (of_group, of_tasks)
}

fn check_network<'a>(network: &'a Network, who: &str, taken: &mut Taken<'a>, errors: &mut Vec<String>) {
    for port in network.ports() {
        let label = &port.label;
        match taken.labels.get(label.as_str()) {
            Some(owner) => errors.push(format!("Port label {label} already in use by {owner}")),
            None => {
                taken.labels.insert(label, who.to_owned());
            }
        }
        if port.ignore_collision && !matches!(network.mode.as_str(), "" | "host") {
            let mode = &network.mode;
            errors.push(format!(
                "Port {label:?} collision may not be ignored on non-host network mode {mode:?}"
            ));
        }
        check_target(port, errors);
    }
    for port in &network.reserved_ports {
        let label = &port.label;
        let number = port.value;
        if number > MAX_PORT {
            errors.push(format!("Port {label} ({number}) cannot be greater than {MAX_PORT}"));
            continue;
        }
        if port.ignore_collision || number == 0 {
            continue;
        }
        let key = (host_network(port), number);
        match taken.numbers.get(&key) {
            Some(owner) => errors.push(format!("Static port {number} already reserved by {owner}")),
            None => {
                taken.numbers.insert(key, format!("{who}:{label}"));
            }
        }
    }
}

fn host_network(port: &Port) -> &str {
    if port.host_network.is_empty() { "default" } else { &port.host_network }
}

fn check_target(port: &Port, errors: &mut Vec<String>) {
    let Port { label, to, .. } = port;
    if *to < -1 {
        errors.push(format!("Port {label:?} cannot be mapped to negative value {to}"));
    } else if *to > MAX_PORT {
        errors.push(format!("Port {label:?} cannot be mapped to a port ({to}) greater than {MAX_PORT}"));
    }
}

fn check_cni(network: &Network, errors: &mut Vec<String>) {
    for value in network.cni.iter().flat_map(|cni| cni.args.iter()).flat_map(|(key, value)| [key, value]) {
        if value.contains(';') {
            errors.push(format!("invalid ';' character in CNI arg value {value:?}"));
        }
    }
}
