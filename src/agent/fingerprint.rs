//! What the agent finds on its machine: attributes, resources, the address to use, and the drivers' health.

use std::net::IpAddr;
use std::path::Path;

use sysinfo::CpuRefreshKind;
use sysinfo::MemoryRefreshKind;
use sysinfo::RefreshKind;
use sysinfo::System;

use crate::clock::Clock;
use crate::drivers::Drivers;
use crate::model::node::NodeAddress;
use crate::model::node::NodeInfo;
use crate::model::node::NodeNetwork;

/// Frequency assumed where the kernel does not tell, MHz.
const UNKNOWN_FREQUENCY_MHZ: u64 = 1000;
/// Ports that the scheduler may choose from.
const DYNAMIC_PORTS: (u16, u16) = (20_000, 32_000);
const SIGNALS: &str = "SIGABRT,SIGALRM,SIGBUS,SIGCONT,SIGFPE,SIGHUP,SIGILL,SIGINT,SIGIO,SIGIOT,SIGKILL,SIGNULL,\
    SIGPIPE,SIGPROF,SIGQUIT,SIGSEGV,SIGSTOP,SIGSYS,SIGTERM,SIGTRAP,SIGTSTP,SIGTTIN,SIGTTOU,SIGUSR1,SIGUSR2,SIGWINCH,\
    SIGXCPU,SIGXFSZ";

/// Settings that override what is found. Zero and empty: use what is found.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The interface whose address is used.
    pub interface: String,
    pub cpu_total_mhz: i64,
    pub memory_total_mb: i64,
    pub disk_total_mb: i64,
}

/// Adds what is found on the machine to what the configuration says (name, datacenter, meta, reservations).
/// Blocking, takes a few milliseconds.
pub fn machine(info: &mut NodeInfo, alloc_root: &Path, overrides: &Overrides) {
    if info.name.is_empty() {
        info.name = System::host_name().unwrap_or_else(|| "localhost".to_owned());
    }
    let refresh = RefreshKind::nothing()
        .with_cpu(CpuRefreshKind::nothing().with_frequency())
        .with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(refresh);
    processors(info, &system, overrides);
    memory(info, &system, overrides);
    disk(info, alloc_root, overrides);
    kernel(info);
    network(info, overrides);
    info.resources.min_dynamic_port = DYNAMIC_PORTS.0;
    info.resources.max_dynamic_port = DYNAMIC_PORTS.1;
    for (name, value) in [
        ("nomad.version", env!("CARGO_PKG_VERSION")),
        ("nomad.service_discovery", "true"),
        ("os.signals", SIGNALS),
    ] {
        set(info, name, value);
    }
    let advertised = info.http_addr.clone();
    set(info, "unique.advertise.address", advertised);
}

fn set(info: &mut NodeInfo, name: &str, value: impl ToString) {
    info.attributes.insert(name.to_owned(), value.to_string());
}

fn processors(info: &mut NodeInfo, system: &System, overrides: &Overrides) {
    let cpus = system.cpus();
    let cores = cpus.len().max(1) as u64;
    let slowest_known = cpus.iter().map(sysinfo::Cpu::frequency).filter(|mhz| *mhz > 0).max();
    let frequency = slowest_known.unwrap_or(UNKNOWN_FREQUENCY_MHZ);
    let found = i64::try_from(cores * frequency).unwrap_or(i64::MAX);
    let total = if overrides.cpu_total_mhz > 0 { overrides.cpu_total_mhz } else { found };
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    };
    set(info, "cpu.arch", arch);
    set(info, "cpu.modelname", cpus.first().map_or("", |cpu| cpu.brand()));
    set(info, "cpu.frequency", frequency);
    set(info, "cpu.numcores", cores);
    set(info, "cpu.reservablecores", cores);
    set(info, "cpu.totalcompute", total);
    set(info, "cpu.usablecompute", total - info.reserved.cpu.cpu_shares);
    info.resources.cpu.cpu_shares = total;
    info.resources.cpu.total_cpu_cores = u16::try_from(cores).unwrap_or(u16::MAX);
    info.resources.cpu.reservable_cpu_cores = (0..info.resources.cpu.total_cpu_cores).collect();
}

fn memory(info: &mut NodeInfo, system: &System, overrides: &Overrides) {
    let bytes = system.total_memory();
    set(info, "memory.totalbytes", bytes);
    let found = i64::try_from(bytes >> 20).unwrap_or(i64::MAX);
    info.resources.memory.memory_mb =
        if overrides.memory_total_mb > 0 { overrides.memory_total_mb } else { found };
}

fn disk(info: &mut NodeInfo, alloc_root: &Path, overrides: &Overrides) {
    let existing = alloc_root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let disks = sysinfo::Disks::new_with_refreshed_list();
    let holder = disks
        .iter()
        .filter(|disk| existing.starts_with(disk.mount_point()))
        .max_by_key(|disk| disk.mount_point().as_os_str().len());
    let (name, total, free) = match holder {
        Some(disk) => {
            (disk.name().to_string_lossy().into_owned(), disk.total_space(), disk.available_space())
        }
        None => {
            let found = nix::sys::statvfs::statvfs(existing);
            found.map_or((String::new(), 0, 0), |stat| {
                let block = stat.fragment_size();
                (String::new(), stat.blocks() * block, stat.blocks_available() * block)
            })
        }
    };
    set(info, "unique.storage.volume", name);
    set(info, "unique.storage.bytestotal", total);
    set(info, "unique.storage.bytesfree", free);
    let found = i64::try_from(free >> 20).unwrap_or(i64::MAX);
    info.resources.disk.disk_mb = if overrides.disk_total_mb > 0 { overrides.disk_total_mb } else { found };
}

fn kernel(info: &mut NodeInfo) {
    set(info, "kernel.name", "linux");
    set(info, "kernel.version", System::kernel_version().unwrap_or_default());
    set(info, "kernel.arch", std::env::consts::ARCH);
    set(info, "os.name", System::distribution_id());
    set(info, "os.version", System::os_version().unwrap_or_default());
    set(info, "unique.hostname", System::host_name().unwrap_or_default());
    let cgroups = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "2" } else { "1" };
    if Path::new("/sys/fs/cgroup").exists() {
        set(info, "os.cgroups.version", cgroups);
    }
}

/// The chosen interface's address; else the first that is not the loopback's; else the loopback's.
fn network(info: &mut NodeInfo, overrides: &Overrides) {
    let mut interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    // Bridges of container engines come and go and lead nowhere.
    let rank = |interface: &if_addrs::Interface| {
        let inner = ["docker", "br-", "veth", "nomad", "cni", "virbr"];
        (
            !overrides.interface.is_empty() && interface.name != overrides.interface,
            interface.is_loopback(),
            inner.iter().any(|prefix| interface.name.starts_with(prefix)),
            interface.ip().is_ipv6(),
            interface.ip(),
        )
    };
    interfaces.sort_by_key(rank);
    let Some(first) = interfaces.first() else { return };
    let ip = first.ip();
    set(info, "unique.network.ip-address", ip);
    let addresses = interfaces.iter().filter(|interface| interface.name == first.name).map(|interface| {
        let family = if matches!(interface.ip(), IpAddr::V4(_)) { "ipv4" } else { "ipv6" };
        NodeAddress {
            family: family.to_owned(),
            alias: "default".to_owned(),
            address: interface.ip().to_string(),
            ..NodeAddress::default()
        }
    });
    info.resources.node_networks = vec![NodeNetwork {
        mode: "host".to_owned(),
        device: first.name.clone(),
        addresses: addresses.collect(),
        ..NodeNetwork::default()
    }];
    info.resources.networks = vec![crate::model::network::Network {
        mode: "host".to_owned(),
        device: first.name.clone(),
        cidr: format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 }),
        ip: ip.to_string(),
        ..Default::default()
    }];
}

/// Asks every driver how it is, and adds its attributes. `update_time` moves only when something changed, so that
/// an unchanged machine is not written again.
pub async fn drivers(info: &mut NodeInfo, drivers: &Drivers, clock: &dyn Clock) {
    for (name, driver) in drivers {
        let mut found = driver.fingerprint().await;
        let before = info.drivers.get(*name);
        found.update_time = before.map_or_else(|| clock.now(), |before| before.update_time);
        if before != Some(&found) {
            found.update_time = clock.now();
        }
        let prefix = format!("driver.{name}");
        info.attributes.retain(|key, _| *key != prefix && !key.starts_with(&format!("{prefix}.")));
        if found.detected {
            info.attributes.insert(prefix, "1".to_owned());
            info.attributes.extend(found.attributes.clone());
        }
        info.drivers.insert((*name).to_owned(), found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_processors_memory_disk_and_an_address() {
        let dir = tempfile::tempdir().unwrap();
        let mut info = NodeInfo::default();
        machine(&mut info, &dir.path().join("not/there/yet"), &Overrides::default());
        assert!(!info.name.is_empty());
        assert!(info.resources.cpu.cpu_shares > 0);
        assert!(info.resources.memory.memory_mb > 0);
        assert!(info.resources.disk.disk_mb > 0);
        assert_eq!(info.attributes["kernel.name"], "linux");
        assert!(info.attributes["unique.network.ip-address"].parse::<IpAddr>().is_ok());
        let overrides = Overrides { cpu_total_mhz: 4000, memory_total_mb: 64, ..Overrides::default() };
        machine(&mut info, dir.path(), &overrides);
        assert_eq!((info.resources.cpu.cpu_shares, info.resources.memory.memory_mb), (4000, 64));
    }
}
