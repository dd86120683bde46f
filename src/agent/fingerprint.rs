//! Finds out what this machine is and has: node attributes, resources and drivers.

mod network;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use parking_lot::Mutex;

use crate::agent::consul;
use crate::agent::consul::Client;
use crate::agent::network::NetworkOptions;
use crate::drivers::Drivers;
use crate::drivers::cgroup::Hierarchy;
use crate::model::node::DriverInfo;
use crate::model::node::HostNetwork;
use crate::model::node::NodeCpu;
use crate::model::node::NodeDisk;
use crate::model::node::NodeMemory;
use crate::model::node::NodeResources;

/// The Nomad release whose behaviour jobs may rely on in constraints.
const COMPATIBLE_VERSION: &str = "1.9.7";
/// MHz assumed where the machine says nothing at all.
const UNKNOWN_MHZ: u64 = 1000;
const SIGNALS: &str = "SIGABRT,SIGALRM,SIGBUS,SIGCONT,SIGFPE,SIGHUP,SIGILL,SIGINT,SIGIO,SIGIOT,SIGKILL,SIGNULL,\
    SIGPIPE,SIGPROF,SIGQUIT,SIGSEGV,SIGSTOP,SIGSYS,SIGTERM,SIGTRAP,SIGTSTP,SIGTTIN,SIGTTOU,SIGUSR1,SIGUSR2,\
    SIGWINCH,SIGXCPU,SIGXFSZ";

/// What the agent's configuration says about the machine.
#[derive(Clone, Debug)]
pub struct FingerprintOptions {
    /// Where allocations live; decides which disk counts.
    pub alloc_dir: PathBuf,
    /// The interface to offer; empty chooses the one of the default route.
    pub network_interface: String,
    /// Of an interface's addresses, one of IPv6 is taken first.
    pub prefer_ipv6: bool,
    /// Mbit/s, instead of what the interface tells.
    pub network_speed: Option<i64>,
    /// MHz of the whole machine, instead of what was found.
    pub cpu_total_compute: Option<i64>,
    /// MiB, instead of what was found.
    pub memory_total_mb: Option<i64>,
    /// MiB, instead of what was found.
    pub disk_total_mb: Option<i64>,
    /// Inclusive range of ports that the scheduler may choose.
    pub dynamic_ports: (u16, u16),
    /// Directories of CNI plugins, in order.
    pub cni_path: Vec<PathBuf>,
    /// Directory of the networks that jobs call `cni/<name>`.
    pub cni_config_dir: PathBuf,
    pub bridge_name: String,
    pub bridge_hairpin: bool,
    pub host_networks: BTreeMap<String, HostNetwork>,
    /// `ip:port` of the agent's HTTP API.
    pub advertise: String,
    /// The machine's Consul agent.
    pub consul: Option<Client>,
}

impl Default for FingerprintOptions {
    fn default() -> Self {
        let networks = NetworkOptions::default();
        Self {
            alloc_dir: PathBuf::from("/"),
            network_interface: String::new(),
            prefer_ipv6: false,
            network_speed: None,
            cpu_total_compute: None,
            memory_total_mb: None,
            disk_total_mb: None,
            dynamic_ports: (20_000, 32_000),
            cni_path: networks.cni_path,
            cni_config_dir: networks.cni_config_dir,
            bridge_name: networks.bridge,
            bridge_hairpin: networks.hairpin,
            host_networks: BTreeMap::new(),
            advertise: String::new(),
            consul: None,
        }
    }
}

impl FingerprintOptions {
    /// What `agent -dev` uses: everything on the loopback interface.
    pub fn dev(alloc_dir: PathBuf) -> Self {
        Self { alloc_dir, network_interface: "lo".to_owned(), ..Self::default() }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fingerprint {
    pub attributes: BTreeMap<String, String>,
    pub resources: NodeResources,
    pub drivers: BTreeMap<String, DriverInfo>,
    /// The address of the chosen interface.
    pub ip: String,
    /// Of the kernel: changes with a reboot.
    pub boot_id: String,
}

/// Looks at the machine. What cannot be found out is left out.
pub async fn fingerprint(options: &FingerprintOptions, drivers: &Drivers) -> Fingerprint {
    let mut found =
        Fingerprint { boot_id: trimmed("/proc/sys/kernel/random/boot_id"), ..Fingerprint::default() };
    processors(options, &mut found);
    memory(options, &mut found);
    kernel(&mut found);
    storage(options, &mut found);
    network::interfaces(options, &mut found);
    network::plugins(options, &mut found).await;
    if let Some(consul) = &options.consul {
        match consul::fingerprint::attributes(consul).await {
            Ok(attributes) => found.attributes.extend(attributes),
            Err(error) => warn_once(format!("no attributes of Consul: {error}")),
        }
    }
    versions(options, &mut found);
    for (name, driver) in drivers {
        let info = driver.fingerprint().await;
        if info.detected && info.healthy {
            found.attributes.extend(info.attributes.clone());
        }
        found.drivers.insert((*name).to_owned(), info);
    }
    found
}

impl Fingerprint {
    fn set(&mut self, name: &str, value: impl ToString) {
        let value = value.to_string();
        if !value.is_empty() {
            self.attributes.insert(name.to_owned(), value);
        }
    }
}

/// Warns of something that is found with every look at the machine: once.
fn warn_once(text: String) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if SAID.lock().insert(text.clone()) {
        tracing::warn!("{text}");
    }
}

fn trimmed(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

fn processors(options: &FingerprintOptions, found: &mut Fingerprint) {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cores = online_cores();
    let mhz = maximum_mhz(&text);
    let total = i64::try_from(mhz).unwrap_or(0) * i64::try_from(cores.len()).unwrap_or(1);
    let total = options.cpu_total_compute.unwrap_or(total);
    found.set("cpu.arch", go_arch(std::env::consts::ARCH));
    found.set("cpu.modelname", field(&text, "model name").unwrap_or_default());
    found.set("cpu.frequency", mhz);
    found.set("cpu.numcores", cores.len());
    found.set("cpu.reservablecores", cores.len());
    found.set("cpu.totalcompute", total);
    found.set("cpu.usablecompute", total);
    let nodes = fs::read_dir("/sys/devices/system/node").into_iter().flatten().flatten();
    let mut numa: Vec<u32> =
        nodes.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()).collect();
    numa.sort_unstable();
    found.set("numa.node.count", numa.len().max(1));
    for node in numa {
        let list = trimmed(format!("/sys/devices/system/node/node{node}/cpulist"));
        found.set(&format!("numa.node{node}.cores"), list);
    }
    found.resources.cpu = NodeCpu {
        cpu_shares: total,
        total_cpu_cores: u16::try_from(cores.len()).unwrap_or(u16::MAX),
        reservable_cpu_cores: cores,
    };
}

fn online_cores() -> Vec<u16> {
    let list = crate::model::node::parse_port_ranges(&trimmed("/sys/devices/system/cpu/online"));
    list.ok().filter(|cores| !cores.is_empty()).unwrap_or_else(|| {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        (0..u16::try_from(count).unwrap_or(1)).collect()
    })
}

/// The highest frequency that the machine admits to: cpufreq in kHz, or else what `/proc/cpuinfo` measured.
fn maximum_mhz(cpuinfo: &str) -> u64 {
    let khz = trimmed("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq").parse::<u64>();
    let measured = || field(cpuinfo, "cpu MHz").and_then(|mhz| mhz.parse::<f64>().ok()).map(|mhz| mhz as u64);
    khz.ok().map(|khz| khz / 1000).or_else(measured).filter(|mhz| *mhz > 0).unwrap_or(UNKNOWN_MHZ)
}

/// The names that Go gives to architectures.
fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

fn memory(options: &FingerprintOptions, found: &mut Fingerprint) {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        field(&text, "MemTotal").and_then(|value| value.strip_suffix(" kB")?.trim().parse::<i64>().ok());
    let bytes = options.memory_total_mb.map(|mib| mib << 20).or_else(|| Some(kib? << 10)).unwrap_or(0);
    found.set("memory.totalbytes", bytes);
    found.resources.memory = NodeMemory { memory_mb: bytes >> 20 };
}

fn kernel(found: &mut Fingerprint) {
    found.set("kernel.name", "linux");
    found.set("kernel.version", trimmed("/proc/sys/kernel/osrelease"));
    found.set("kernel.arch", std::env::consts::ARCH);
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = |name: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    found.set("os.name", value("ID"));
    found.set("os.version", value("VERSION_ID"));
    found.set("os.signals", SIGNALS);
    found.set("unique.hostname", trimmed("/proc/sys/kernel/hostname"));
    let hierarchy = Hierarchy::of_this_machine();
    if let (Some(version), Some(point)) = (hierarchy.version(), hierarchy.mountpoint()) {
        found.set("os.cgroups.version", version);
        found.set("unique.cgroup.version", format!("v{version}"));
        found.set("unique.cgroup.mountpoint", point.display());
    }
}

fn storage(options: &FingerprintOptions, found: &mut Fingerprint) {
    // The directory may not have been made yet: its nearest ancestor is on the same disk.
    let existing = options.alloc_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let Ok(stat) = nix::sys::statvfs::statvfs(existing) else { return };
    let size = stat.fragment_size();
    let (total, free) = (stat.blocks() * size, stat.blocks_available() * size);
    found.set("unique.storage.volume", volume_of(existing));
    found.set("unique.storage.bytestotal", total);
    found.set("unique.storage.bytesfree", free);
    let free_mb = i64::try_from(free >> 20).unwrap_or(i64::MAX);
    found.resources.disk = NodeDisk { disk_mb: options.disk_total_mb.unwrap_or(free_mb) };
}

/// The device of the mount that holds `path`.
fn volume_of(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        Some((PathBuf::from(left.split(' ').nth(4)?), right.split(' ').nth(1)?))
    });
    let holding = mounts.filter(|(point, _)| path.starts_with(point));
    holding
        .max_by_key(|(point, _)| point.components().count())
        .map(|(_, device)| device.to_owned())
        .unwrap_or_default()
}

fn versions(options: &FingerprintOptions, found: &mut Fingerprint) {
    found.set("nomad.version", COMPATIBLE_VERSION);
    found.set("herder.version", env!("CARGO_PKG_VERSION"));
    found.set("nomad.service_discovery", "true");
    found.set("unique.advertise.address", &options.advertise);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machine_has_what_jobs_ask_for() {
        let dir = tempfile::tempdir().unwrap();
        let options = FingerprintOptions::dev(dir.path().join("alloc"));
        let found = fingerprint(&options, &Drivers::new()).await;
        assert_eq!(found.ip, "127.0.0.1");
        assert_eq!(found.attributes["kernel.name"], "linux");
        for name in ["cpu.frequency", "cpu.totalcompute", "memory.totalbytes", "unique.storage.bytesfree"] {
            assert!(found.attributes[name].parse::<u64>().unwrap() > 0, "{name}");
        }
        for name in ["cpu.arch", "os.name", "unique.hostname", "kernel.version", "unique.storage.volume"] {
            assert!(!found.attributes[name].is_empty(), "{name}");
        }
        let resources = &found.resources;
        assert!(resources.cpu.cpu_shares > 0 && resources.memory.memory_mb > 0 && resources.disk.disk_mb > 0);
        assert_eq!((resources.min_dynamic_port, resources.max_dynamic_port), (20_000, 32_000));
        assert_eq!(resources.node_networks[0].addresses[0].address, "127.0.0.1");
    }
}
