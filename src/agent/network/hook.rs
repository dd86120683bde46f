//! Where the runner of an allocation meets its network: before its tasks, after them, and in each task's view.

use std::path::PathBuf;
use std::sync::Arc;

use crate::agent::env;
use crate::agent::env::EnvSource;
use crate::agent::machine::AllocShared;
use crate::agent::machine::Machine;
use crate::agent::machine::Setup;
use crate::drivers::TaskDirs;
use crate::drivers::network::NetworkFiles;
use crate::model::allocation::NetworkStatus;
use crate::model::group::TaskGroup;
use crate::model::id::AllocId;
use crate::model::network::DnsConfig;
use crate::model::network::Network;
use crate::model::network::PortMapping;
use crate::model::task::Task;

use super::Plan;
use super::PortMap;
use super::files;
use super::is_isolated;

/// The longest name of a machine, and of a part between dots.
const HOSTNAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;
/// A network whose removal fails is tried again after this time, growing, until it succeeds or the agent ends.
const REMOVAL_PAUSE: std::time::Duration = std::time::Duration::from_secs(5);
const REMOVAL_ATTEMPTS: u32 = 3;

/// Why an allocation cannot have its network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// The job asks for what cannot be: told as the allocation's description, without events.
    #[error("Unable to add allocation due to error: failed to configure network manager: {0}")]
    Refused(String),
    /// Told as an event of every task.
    #[error(
        "failed to setup alloc: pre-run hook \"network\" failed: failed to configure networking for alloc: \
         failed to configure network: {0}"
    )]
    Failed(String),
}

/// The network of a group: only the first counts.
fn network_of(setup: &Setup) -> Option<&Network> {
    setup.group()?.networks.first()
}

/// True if the group's tasks have a namespace of their own.
pub fn has_own(setup: &Setup) -> bool {
    network_of(setup).is_some_and(|network| is_isolated(&network.mode))
}

/// The group's network with its references resolved.
fn resolved(shared: &AllocShared, setup: &Setup) -> Option<Network> {
    let mut network = network_of(setup)?.clone();
    let group = setup.group()?;
    let machine = &shared.machine;
    let node = machine.node();
    let names = machine.node_names();
    let (task, dirs) = (Task::default(), TaskDirs::default());
    let nothing = std::collections::BTreeMap::new();
    let env = env::group_env(&EnvSource {
        allocation: &setup.allocation,
        job: &setup.job,
        group,
        task: &task,
        node: &node,
        node_names: &names,
        region: &machine.config.region,
        dirs: &dirs,
        network: None,
        host_env: &nothing,
    });
    let resolve = |name: &str| env::lookup(&env, &names, name);
    network.hostname = crate::model::interpolate::interpolate(&network.hostname, resolve);
    network.dns = network.dns.as_ref().map(|dns| env::interpolate_block(dns, &resolve));
    network.cni = network.cni.as_ref().map(|cni| env::interpolate_block(cni, &resolve));
    Some(network)
}

/// Makes the network of an allocation that has one of its own, and remembers its address.
///
/// # Errors
/// See [`NetworkError`].
pub async fn set_up(shared: &AllocShared, setup: &Setup) -> Result<(), NetworkError> {
    let Some(network) = resolved(shared, setup) else { return Ok(()) };
    let Some(group) = setup.group() else { return Ok(()) };
    check(&shared.machine, group, &network).map_err(NetworkError::Refused)?;
    if !is_isolated(&network.mode) {
        return Ok(());
    }
    let plan = plan(&shared.machine, setup, &network);
    let config = &shared.machine.config;
    let made = config.networks.set_up(setup.allocation.id, &plan, &config.drivers).await;
    let status = made.map_err(NetworkError::Failed)?;
    shared.record.lock().network = (status != NetworkStatus::default()).then_some(status);
    Ok(())
}

/// After a restart of the agent: makes the network anew if it is gone, as after a reboot.
///
/// # Errors
/// See [`NetworkError`].
pub async fn restore(shared: &AllocShared, setup: &Setup) -> Result<(), NetworkError> {
    let id = setup.allocation.id;
    if !has_own(setup) || shared.machine.config.networks.stands(id) {
        return Ok(());
    }
    tracing::warn!(alloc = %id, "the network is gone and is made anew");
    set_up(shared, setup).await
}

/// What cannot be, in Nomad's words.
fn check(machine: &Machine, group: &TaskGroup, network: &Network) -> Result<(), String> {
    let mode = if network.mode.is_empty() { "host" } else { network.mode.as_str() };
    let driver = |task: &Task| machine.config.drivers.get(task.driver.as_str()).map(Arc::clone);
    if !network.hostname.is_empty() {
        let mode_allows = matches!(mode.to_ascii_lowercase().as_str(), "bridge" | "none");
        if !mode_allows {
            return Err(format!("hostname cannot be set on task group using {mode:?} networking mode"));
        }
        if !is_hostname(&network.hostname) {
            return Err(format!("Hostname is not a valid DNS name: {:?}", network.hostname));
        }
        if let Some(task) =
            group.tasks.iter().find(|task| driver(task).is_some_and(|driver| !driver.sets_hostname()))
        {
            return Err(format!("hostname is not currently supported on driver {}", task.driver));
        }
    }
    if is_isolated(mode)
        && let Some(task) =
            group.tasks.iter().find(|task| driver(task).is_some_and(|driver| !driver.joins_networks()))
    {
        return Err(format!("task {} does not support {mode:?} networking mode", task.name));
    }
    let mut makers = makers(machine, Some(group));
    if is_isolated(mode)
        && let Some((first, own)) = makers.next()
        && let Some((second, _)) = makers.find(|(_, driver)| *driver != own)
    {
        return Err(format!(
            "tasks {first} and {second} want to initiate networking but only one driver can do so"
        ));
    }
    Ok(())
}

fn is_hostname(name: &str) -> bool {
    let is_label = |label: &str| {
        let plain = label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        plain
            && !label.is_empty()
            && label.len() <= LABEL_MAX
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= HOSTNAME_MAX && name.trim_end_matches('.').split('.').all(is_label)
}

fn plan(machine: &Machine, setup: &Setup, network: &Network) -> Plan {
    let allocation = &setup.allocation;
    let mut args: Vec<(String, String)> = [
        ("NOMAD_REGION", machine.config.region.clone()),
        ("NOMAD_NAMESPACE", allocation.namespace.clone()),
        ("NOMAD_JOB_ID", setup.job.id.clone()),
        ("NOMAD_GROUP_NAME", allocation.task_group.clone()),
        ("NOMAD_ALLOC_ID", allocation.id.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    args.extend(network.cni.iter().flat_map(|cni| cni.args.clone()));
    let wildcard = machine.config.networks.options().bind_wildcard;
    Plan {
        mode: network.mode.clone(),
        ports: port_maps(&allocation.resources.shared.ports, network, wildcard),
        args,
        dns: network.dns.clone(),
        maker: makers(machine, setup.group()).next().map(|(_, driver)| driver).unwrap_or_default(),
        hostname: network.hostname.clone(),
    }
}

/// Tasks whose drivers make networks, with those drivers.
fn makers<'a>(machine: &'a Machine, group: Option<&'a TaskGroup>) -> impl Iterator<Item = (&'a str, String)> {
    let tasks = group.map(|group| &group.tasks[..]).unwrap_or_default().iter();
    tasks.filter_map(|task| {
        let driver = machine.config.drivers.get(task.driver.as_str())?;
        driver.makes_networks().then(|| (task.name.as_str(), task.driver.clone()))
    })
}

/// Both protocols of every granted port. `wildcard`: those of the default host network on all addresses.
fn port_maps(granted: &[PortMapping], network: &Network, wildcard: bool) -> Vec<PortMap> {
    let named = |label: &str| {
        let port = network.ports().find(|port| port.label == label);
        port.is_some_and(|port| !matches!(port.host_network.as_str(), "" | "default"))
    };
    let both = granted.iter().flat_map(|port| {
        let inside = u16::try_from(port.to).ok().filter(|to| *to > 0).unwrap_or(port.value);
        let host_ip = if wildcard && !named(&port.label) { String::new() } else { port.host_ip.clone() };
        ["tcp", "udp"].map(|protocol| PortMap {
            host_port: port.value,
            container_port: inside,
            protocol: protocol.to_owned(),
            host_ip: host_ip.clone(),
        })
    });
    both.collect()
}

/// Removes the network of an ended allocation. What cannot be removed now is removed by the next agent's start.
pub async fn tear_down(shared: &AllocShared, setup: &Setup) {
    if !has_own(setup) {
        return;
    }
    remove(&shared.machine, setup.allocation.id).await;
}

async fn remove(machine: &Machine, id: AllocId) {
    for driver in machine.config.drivers.values() {
        if let Err(error) = driver.leave_network(id).await {
            tracing::warn!(alloc = %id, driver = driver.name(), %error, "cannot leave the network");
        }
    }
    for attempt in 1..=REMOVAL_ATTEMPTS {
        match machine.config.networks.tear_down(id, &machine.config.drivers).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(alloc = %id, error, attempt, "cannot remove the network"),
        }
        if attempt < REMOVAL_ATTEMPTS {
            tokio::time::sleep(REMOVAL_PAUSE).await;
        }
    }
}

/// Removes networks of allocations that ended, or were forgotten, while no agent was there.
pub async fn sweep(machine: Arc<Machine>, leftovers: Vec<AllocId>) {
    for id in leftovers {
        if let Some(pid) = machine.config.networks.inhabitant(id) {
            // As with directories: without the ledger's memory of it nobody may say that it has to end.
            tracing::warn!(alloc = %id, pid, "the network of an unknown allocation is left alone: a process uses it");
            continue;
        }
        tracing::info!(alloc = %id, "removing the network of an allocation that is gone");
        remove(&machine, id).await;
    }
}

/// The namespace that a task must join, and the files that it sees there.
///
/// # Errors
/// A file cannot be written.
pub fn of_task(
    shared: &AllocShared,
    setup: &Setup,
    dirs: &TaskDirs,
) -> Result<(Option<PathBuf>, NetworkFiles), String> {
    let Some(network) = resolved(shared, setup) else { return Ok(Default::default()) };
    let isolated = is_isolated(&network.mode);
    let status = shared.record.lock().network.clone().unwrap_or_default();
    let write = |name: &str, text: &str| {
        let path = dirs.private.join(name);
        files::write(path.clone(), text).map_err(|error| format!("cannot write {}: {error}", path.display()))
    };
    let mut found = NetworkFiles {
        hostname: network.hostname.clone(),
        address: status.address.clone(),
        ..NetworkFiles::default()
    };
    if isolated {
        found.made = shared.machine.config.networks.made(setup.allocation.id);
        let id = setup.allocation.id.short();
        let own = if network.hostname.is_empty() { id.as_str() } else { network.hostname.as_str() };
        let machine = files::machine_name();
        found.hostname = own.to_owned();
        found.hosts = Some(write("hosts", &files::hosts(&status.address, &[own, &machine]))?);
    }
    let dns = network.dns.or(status.dns).filter(|dns| *dns != DnsConfig::default());
    found.dns.clone_from(&dns);
    if dns.is_some() || isolated {
        let machine = files::machine_resolver();
        let text =
            dns.map_or_else(|| machine.clone(), |dns| files::resolver(&files::complete(&dns, &machine)));
        found.resolv_conf = Some(write("resolv.conf", &text)?);
    }
    let namespace = isolated.then(|| shared.machine.config.networks.namespace(setup.allocation.id));
    Ok((namespace, found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::network::Port;

    #[test]
    fn ports_are_mapped_for_both_protocols() {
        let port = |label: &str, host_network: &str| Port {
            label: label.into(),
            host_network: host_network.into(),
            ..Port::default()
        };
        let network =
            Network { dynamic_ports: vec![port("http", ""), port("public", "wan")], ..Network::default() };
        let granted = |label: &str, value, to| PortMapping {
            label: label.into(),
            value,
            to,
            host_ip: "192.0.2.2".into(),
            ..PortMapping::default()
        };
        let granted = [granted("http", 20001, 80), granted("public", 20002, -1)];
        let maps = port_maps(&granted, &network, true);
        let short: Vec<_> = maps
            .iter()
            .map(|map| (map.host_port, map.container_port, map.protocol.as_str(), map.host_ip.as_str()))
            .collect();
        assert_eq!(
            short,
            [
                (20001, 80, "tcp", ""),
                (20001, 80, "udp", ""),
                (20002, 20002, "tcp", "192.0.2.2"),
                (20002, 20002, "udp", "192.0.2.2")
            ]
        );
        assert_eq!(port_maps(&granted, &network, false)[0].host_ip, "192.0.2.2");
    }

    #[test]
    fn names_of_machines_are_told_from_other_texts() {
        assert!(is_hostname("web-1.example"));
        for wrong in ["", "-x", "a_b", "a..b", "${meta.x}"] {
            assert!(!is_hostname(wrong), "{wrong}");
        }
    }
}
