//! The machine's interfaces and addresses, and the networks that allocations can have of their own.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::agent::network;
use crate::agent::network::BRIDGE_PLUGINS;
use crate::drivers::program;
use crate::gotemplate::sockaddr::default_interface;
use crate::model::network::Network;
use crate::model::node::HostNetwork;
use crate::model::node::NodeAddress;
use crate::model::node::NodeNetwork;

use super::Fingerprint;
use super::FingerprintOptions;
use super::trimmed;
use super::warn_once;

/// Mbit/s assumed for an interface that does not tell its speed.
const UNKNOWN_SPEED: i64 = 1000;
/// The host network of ports that name none.
const DEFAULT: &str = "default";
/// A plugin that does not say its version within this time has none.
const PLUGIN_LIMIT: Duration = Duration::from_secs(5);

/// One address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Here {
    interface: String,
    ip: IpAddr,
}

/// The addresses that can be used, best first. Link-local ones mean little to other machines: they come last, if at all.
fn in_order(mut all: Vec<Here>, options: &FingerprintOptions) -> Vec<Here> {
    let is_local = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    all.retain(|here| !(options.disallow_link_local && is_local(&here.ip)));
    all.sort_by_key(|here| (is_local(&here.ip), here.ip.is_ipv6() != options.prefer_ipv6));
    all
}

pub(super) fn interfaces(options: &FingerprintOptions, found: &mut Fingerprint) {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let device = if options.network_interface.is_empty() {
        default_interface(&routes).unwrap_or_else(|| "lo".to_owned())
    } else {
        options.network_interface.clone()
    };
    let found_here = if_addrs::get_if_addrs().unwrap_or_default();
    let here = found_here.iter().map(|one| Here { interface: one.name.clone(), ip: one.ip() });
    let all = in_order(here.collect(), options);
    let speed = |device: &str| options.network_speed.unwrap_or_else(|| speed_of(device));
    let chosen = all.iter().find(|here| here.interface == device);
    if chosen.is_none() {
        warn_once(format!("network interface {device:?} has no address; 127.0.0.1 is used"));
    }
    let ip = chosen.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |here| here.ip);
    found.ip = ip.to_string();
    found.set("unique.network.ip-address", ip);
    let width = if ip.is_ipv4() { 32 } else { 128 };
    found.resources.networks = vec![Network {
        mode: "host".to_owned(),
        device: device.clone(),
        cidr: format!("{ip}/{width}"),
        ip: ip.to_string(),
        mbits: speed(&device),
        ..Network::default()
    }];
    // One address per name: with two, a static port could be granted twice, once on each, and whatever listens on
    // all addresses would then fail to start.
    let mut named: Vec<(String, Here)> = Vec::new();
    if !options.host_networks.contains_key(DEFAULT) {
        named.extend(chosen.map(|here| (DEFAULT.to_owned(), here.clone())));
    }
    for (name, network) in &options.host_networks {
        match all.iter().find(|here| matches(network, here)) {
            Some(here) => named.push((name.clone(), here.clone())),
            None => warn_once(format!("no address of this machine belongs to host network {name:?}")),
        }
    }
    found.resources.node_networks = node_networks(&device, named, &options.host_networks);
    for network in &mut found.resources.node_networks {
        network.speed = speed(&network.device);
    }
    (found.resources.min_dynamic_port, found.resources.max_dynamic_port) = options.dynamic_ports;
}

/// The named addresses by interface, the chosen interface first.
fn node_networks(
    device: &str,
    named: Vec<(String, Here)>,
    host_networks: &BTreeMap<String, HostNetwork>,
) -> Vec<NodeNetwork> {
    let host = |device: &str| NodeNetwork {
        mode: "host".to_owned(),
        mac_address: trimmed(format!("/sys/class/net/{device}/address")),
        device: device.to_owned(),
        speed: speed_of(device),
        addresses: Vec::new(),
    };
    let mut networks = vec![host(device)];
    for (name, here) in named {
        let reserved = host_networks.get(&name).map(|network| network.reserved_ports.clone());
        let address = NodeAddress {
            family: if here.ip.is_ipv4() { "ipv4" } else { "ipv6" }.to_owned(),
            alias: name,
            address: here.ip.to_string(),
            reserved_ports: reserved.unwrap_or_default(),
            ..NodeAddress::default()
        };
        match networks.iter_mut().find(|network| network.device == here.interface) {
            Some(network) => network.addresses.push(address),
            None => networks.push(NodeNetwork { addresses: vec![address], ..host(&here.interface) }),
        }
    }
    networks
}

fn speed_of(device: &str) -> i64 {
    let speed = trimmed(format!("/sys/class/net/{device}/speed")).parse().ok().filter(|speed| *speed > 0);
    speed.unwrap_or(UNKNOWN_SPEED)
}

fn matches(network: &HostNetwork, here: &Here) -> bool {
    let by_interface = network.interface.is_empty() || network.interface == here.interface;
    let by_address = network.cidr.is_empty() || is_within(here.ip, &network.cidr);
    by_interface && by_address && !(network.interface.is_empty() && network.cidr.is_empty())
}

/// Is the address in the block? A block that cannot be read holds none.
fn is_within(ip: IpAddr, cidr: &str) -> bool {
    let Some((base, length)) = cidr.split_once('/') else { return cidr.parse() == Ok(ip) };
    let (Ok(base), Ok(length)) = (base.parse::<IpAddr>(), length.parse::<u32>()) else { return false };
    match (ip, base) {
        (IpAddr::V4(ip), IpAddr::V4(base)) if length <= 32 => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            u32::from(ip) & mask == u32::from(base) & mask
        }
        (IpAddr::V6(ip), IpAddr::V6(base)) if length <= 128 => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            u128::from(ip) & mask == u128::from(base) & mask
        }
        _ => false,
    }
}

/// What allocations can be attached to. Without its plugins, bridge networking would fail on every start: it is
/// offered only where they are.
pub(super) async fn plugins(options: &FingerprintOptions, found: &mut Fingerprint) {
    for program in programs(&options.cni_path) {
        let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if let Some(version) = version(&program).await {
            found.set(&format!("plugins.cni.version.{name}"), version);
        }
    }
    found.set("nomad.bridge.hairpin_mode", options.bridge_hairpin);
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let mut offer = |mode: String, device: String| {
        found.resources.networks.push(Network {
            mode: mode.clone(),
            device: device.clone(),
            ..Network::default()
        });
        found.resources.node_networks.push(NodeNetwork { mode, device, ..NodeNetwork::default() });
    };
    if BRIDGE_PLUGINS.iter().all(|name| network::plugin(name, &options.cni_path).is_some()) {
        offer("bridge".to_owned(), options.bridge_name.clone());
    }
    for name in network::configured(&options.cni_config_dir) {
        offer(format!("cni/{name}"), String::new());
    }
}

/// Everything executable in the directories, the first of each name.
fn programs(path: &[PathBuf]) -> Vec<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let mut by_name: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
    for dir in path {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let executable = fs::metadata(entry.path())
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
            if executable {
                by_name.entry(entry.file_name()).or_insert_with(|| entry.path());
            }
        }
    }
    by_name.into_values().collect()
}

async fn version(plugin: &Path) -> Option<String> {
    let output = program::said(plugin, &[], PLUGIN_LIMIT).await?;
    version_in(&String::from_utf8_lossy(&output.stderr))
}

/// `CNI bridge plugin v1.3.0`. Distributions build plugins that do not know their version; they list the versions of
/// the protocol that they speak, whose newest stands in for it.
fn version_in(text: &str) -> Option<String> {
    let first = text.lines().next()?.strip_prefix("CNI ")?;
    let last = first.rsplit(' ').next()?;
    if last.starts_with('v') && last.contains('.') {
        return Some(last.to_owned());
    }
    let spoken = text.lines().find_map(|line| line.strip_prefix("CNI protocol versions supported:"))?;
    let newest = spoken.split(',').map(str::trim).rfind(|version| !version.is_empty())?;
    Some(format!("v{newest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_addresses_are_used_last_or_not_at_all() {
        let here = |ip: &str| Here { interface: "eth0".into(), ip: ip.parse().unwrap() };
        let all = ["fe80::1", "169.254.1.2", "fd00::2", "192.0.2.2"].map(here);
        let order = |prefer_ipv6, disallow_link_local| {
            let options =
                FingerprintOptions { prefer_ipv6, disallow_link_local, ..FingerprintOptions::default() };
            in_order(all.to_vec(), &options).iter().map(|here| here.ip.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(order(false, false), ["192.0.2.2", "fd00::2", "169.254.1.2", "fe80::1"]);
        assert_eq!(order(true, false), ["fd00::2", "192.0.2.2", "fe80::1", "169.254.1.2"]);
        assert_eq!(order(false, true), ["192.0.2.2", "fd00::2"]);
    }

    #[test]
    fn the_default_route_with_the_lowest_metric_wins() {
        let routes = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
            wlan0 00000000 01 0003 0 0 600 00000000 0 0 0\n\
            eth0 00000000 01 0003 0 0 100 00000000 0 0 0\n\
            docker0 000011AC 00 0001 0 0 0 0000FFFF 0 0 0\n";
        assert_eq!(default_interface(routes).as_deref(), Some("eth0"));
        assert_eq!(default_interface("Iface\n"), None);
    }

    #[test]
    fn plugins_tell_their_version_or_that_of_their_protocol() {
        let told = "CNI bridge plugin v1.3.0\nCNI protocol versions supported: 0.1.0, 1.0.0\n";
        assert_eq!(version_in(told).as_deref(), Some("v1.3.0"));
        let untold = "CNI bridge plugin version unknown\nCNI protocol versions supported: 0.4.0, 1.0.0\n";
        assert_eq!(version_in(untold).as_deref(), Some("v1.0.0"));
        assert_eq!(version_in("usage: something else\n"), None);
    }

    #[test]
    fn host_networks_find_their_addresses() {
        let here = |interface: &str, ip: &str| Here { interface: interface.into(), ip: ip.parse().unwrap() };
        let network = |cidr: &str, interface: &str| HostNetwork {
            cidr: cidr.into(),
            interface: interface.into(),
            ..HostNetwork::default()
        };
        let private = here("eth1", "10.1.2.3");
        assert!(matches(&network("10.0.0.0/8", ""), &private));
        assert!(matches(&network("", "eth1"), &private));
        assert!(!matches(&network("10.0.0.0/8", "eth0"), &private));
        assert!(!matches(&network("192.168.0.0/16", ""), &private));
        assert!(!matches(&network("", ""), &private), "a network that names nothing matches nothing");
        assert!(matches(&network("fd00::/8", ""), &here("eth0", "fd00::2")));
        let reserved = HostNetwork { reserved_ports: "22".into(), ..network("10.0.0.0/8", "") };
        let networks = node_networks(
            "eth0",
            vec![("default".into(), here("eth0", "192.0.2.2")), ("private".into(), private)],
            &BTreeMap::from([("private".to_owned(), reserved)]),
        );
        assert_eq!(networks.len(), 2);
        assert_eq!(networks[1].addresses[0].alias, "private");
        assert_eq!(networks[1].addresses[0].reserved_ports, "22");
    }
}
