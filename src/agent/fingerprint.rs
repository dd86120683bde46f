//! Finds out what this machine is and has: node attributes, resources and drivers.

mod cloud;
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
/// What stands for the revision of that version: which program says so.
const REVISION: &str = concat!("herder-", env!("CARGO_PKG_VERSION"));
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
    /// An interface that has only link-local addresses has none.
    pub disallow_link_local: bool,
    /// Mbit/s, instead of what the interface tells.
    pub network_speed: Option<i64>,
    /// MHz of the whole machine, instead of what was found.
    pub cpu_total_compute: Option<i64>,
    /// MiB, instead of what was found.
    pub memory_total_mb: Option<i64>,
    /// MiB, instead of what was found.
    pub disk_total_mb: Option<i64>,
    /// MiB, instead of what was found.
    pub disk_free_mb: Option<i64>,
    /// MHz that jobs do not get; counts only without `reserved_cores`.
    pub reserved_mhz: i64,
    /// Cores that jobs do not get.
    pub reserved_cores: Vec<u16>,
    /// The only cores that jobs may reserve; `None` for all.
    pub reservable_cores: Option<Vec<u16>>,
    /// Names of parts that are looked at, as in the client options `fingerprint.allowlist` and `.denylist`.
    pub parts: PartFilter,
    /// The cloud around a machine says the same all the time: it is asked once.
    pub ask_cloud: bool,
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
            disallow_link_local: false,
            network_speed: None,
            cpu_total_compute: None,
            memory_total_mb: None,
            disk_total_mb: None,
            disk_free_mb: None,
            reserved_mhz: 0,
            reserved_cores: Vec::new(),
            reservable_cores: None,
            parts: PartFilter::default(),
            ask_cloud: true,
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
    /// MHz that jobs do not get, of `total` on this many cores.
    pub fn reserved_compute(&self, total: i64, cores: usize) -> i64 {
        if self.reserved_cores.is_empty() || cores == 0 {
            return self.reserved_mhz;
        }
        let share = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        total / share(cores) * share(self.reserved_cores.len())
    }

    /// What `agent -dev` uses: everything on the loopback interface.
    pub fn dev(alloc_dir: PathBuf) -> Self {
        Self { alloc_dir, network_interface: "lo".to_owned(), ..Self::default() }
    }
}

/// Which parts of the machine are looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartFilter {
    allowed: Option<Vec<String>>,
    denied: Vec<String>,
}

impl PartFilter {
    /// From a client's options.
    pub fn from_options(options: &BTreeMap<String, String>) -> Self {
        let list = |names: [&str; 2]| {
            let list = names.iter().find_map(|name| options.get(*name))?;
            Some(list.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>())
        };
        Self {
            allowed: list(["fingerprint.allowlist", "fingerprint.whitelist"]),
            denied: list(["fingerprint.denylist", "fingerprint.blacklist"]).unwrap_or_default(),
        }
    }

    /// Is this part looked at?
    pub fn has(&self, part: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|name| name == part);
        self.allowed.as_deref().is_none_or(named) && !named(&self.denied)
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

/// Finds out about one part of the machine.
type Look = fn(&FingerprintOptions, &mut Fingerprint);

/// Looks at the machine. What cannot be found out is left out.
pub async fn fingerprint(options: &FingerprintOptions, drivers: &Drivers) -> Fingerprint {
    let mut found =
        Fingerprint { boot_id: trimmed("/proc/sys/kernel/random/boot_id"), ..Fingerprint::default() };
    let parts: &[(&str, Look)] = &[
        ("cpu", processors),
        ("memory", memory),
        ("host", kernel),
        ("signal", |_, found| found.set("os.signals", SIGNALS)),
        ("cgroup", cgroups),
        ("landlock", landlock),
        ("storage", storage),
        ("network", network::interfaces),
        ("nomad", versions),
    ];
    for (name, look) in parts {
        if options.parts.has(name) {
            look(options, &mut found);
        }
    }
    let firmware = ["sys_vendor", "product_name", "board_vendor", "bios_vendor"];
    let firmware = firmware.map(|name| trimmed(format!("/sys/class/dmi/id/{name}")));
    let wanted = |part: &str| options.ask_cloud && options.parts.has(part);
    found.attributes.extend(cloud::attributes(&firmware, cloud::METADATA, wanted).await);
    if options.parts.has("plugins_cni") {
        network::plugins(options, &mut found).await;
    }
    if let Some(consul) = options.consul.as_ref().filter(|_| options.parts.has("consul")) {
        match consul::fingerprint::attributes(consul).await {
            Ok(attributes) => found.attributes.extend(attributes),
            Err(error) => warn_once(format!("no attributes of Consul: {error}")),
        }
    }
    for (name, driver) in drivers {
        let info = driver.fingerprint().await;
        if info.detected && info.healthy {
            found.attributes.extend(info.attributes.clone());
        }
        found.drivers.insert(name.clone(), info);
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
    let count = |cores: &[u16]| i64::try_from(cores.len()).unwrap_or(1);
    let mhz = i64::try_from(maximum_mhz(0, &text)).unwrap_or(0);
    let kinds = kinds_of_cores();
    let total = match &kinds {
        Some(kinds) => {
            for (kind, cores) in kinds {
                let mhz = cores.first().map_or(0, |core| maximum_mhz(*core, &text));
                found.set(&format!("cpu.frequency.{kind}"), mhz);
                found.set(&format!("cpu.numcores.{kind}"), cores.len());
            }
            let of_kind = |cores: &Vec<u16>| {
                let mhz = cores.first().map_or(0, |core| maximum_mhz(*core, &text));
                i64::try_from(mhz).unwrap_or(0) * count(cores)
            };
            kinds.iter().map(|(_, cores)| of_kind(cores)).sum()
        }
        None => {
            found.set("cpu.frequency", mhz);
            mhz * count(&cores)
        }
    };
    let total = options.cpu_total_compute.unwrap_or(total);
    let mut reservable = options.reservable_cores.clone().unwrap_or_else(|| cores.clone());
    reservable.retain(|core| cores.contains(core));
    let free = reservable.iter().filter(|core| !options.reserved_cores.contains(core)).count();
    found.set("cpu.arch", go_arch(std::env::consts::ARCH));
    found.set("cpu.modelname", field(&text, "model name").unwrap_or_default());
    found.set("cpu.numcores", cores.len());
    found.set("cpu.reservablecores", free);
    found.set("cpu.totalcompute", total);
    found.set("cpu.usablecompute", (total - options.reserved_compute(total, cores.len())).max(0));
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
        reservable_cpu_cores: reservable,
    };
}

/// Machines with two kinds of cores tell which are which; `None` for the others.
fn kinds_of_cores() -> Option<[(&'static str, Vec<u16>); 2]> {
    let list = |kind: &str| {
        let cores =
            crate::model::node::parse_port_ranges(&trimmed(format!("/sys/devices/{kind}/cpus"))).ok()?;
        (!cores.is_empty()).then_some(cores)
    };
    Some([("performance", list("cpu_core")?), ("efficiency", list("cpu_atom")?)])
}

fn online_cores() -> Vec<u16> {
    let list = crate::model::node::parse_port_ranges(&trimmed("/sys/devices/system/cpu/online"));
    list.ok().filter(|cores| !cores.is_empty()).unwrap_or_else(|| {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        (0..u16::try_from(count).unwrap_or(1)).collect()
    })
}

/// The highest frequency that the machine admits to: cpufreq in kHz, or else what `/proc/cpuinfo` measured.
fn maximum_mhz(core: u16, cpuinfo: &str) -> u64 {
    let khz = trimmed(format!("/sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq")).parse::<u64>();
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

fn kernel(_: &FingerprintOptions, found: &mut Fingerprint) {
    found.set("kernel.name", "linux");
    found.set("kernel.version", trimmed("/proc/sys/kernel/osrelease"));
    found.set("kernel.arch", std::env::consts::ARCH);
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = |name: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    found.set("os.name", value("ID"));
    // Debian's own file knows the point release.
    let debian = if value("ID") == "debian" { trimmed("/etc/debian_version") } else { String::new() };
    found.set("os.version", if debian.is_empty() { value("VERSION_ID") } else { debian });
    found.set("unique.hostname", trimmed("/proc/sys/kernel/hostname"));
}

fn cgroups(_: &FingerprintOptions, found: &mut Fingerprint) {
    let hierarchy = Hierarchy::of_this_machine();
    if let (Some(version), Some(point)) = (hierarchy.version(), hierarchy.mountpoint()) {
        found.set("os.cgroups.version", version);
        found.set("unique.cgroup.version", format!("v{version}"));
        found.set("unique.cgroup.mountpoint", point.display());
    }
}

/// The version of the kernel's Landlock interface.
fn landlock(_: &FingerprintOptions, found: &mut Fingerprint) {
    const ONLY_THE_VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the call takes no ruleset and changes nothing.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, ONLY_THE_VERSION)
    };
    if version > 0 {
        found.set("kernel.landlock", format!("v{version}"));
    }
}

fn storage(options: &FingerprintOptions, found: &mut Fingerprint) {
    // The directory may not have been made yet: its nearest ancestor is on the same disk.
    let existing = options.alloc_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let Ok(stat) = nix::sys::statvfs::statvfs(existing) else { return };
    let size = stat.fragment_size();
    let given = |mib: Option<i64>| mib.and_then(|mib| u64::try_from(mib).ok()).map(|mib| mib << 20);
    let total = given(options.disk_total_mb).unwrap_or(stat.blocks() * size);
    let free = given(options.disk_free_mb).unwrap_or(stat.blocks_available() * size);
    found.set("unique.storage.volume", volume_of(existing));
    found.set("unique.storage.bytestotal", total);
    found.set("unique.storage.bytesfree", free);
    let free_mb = i64::try_from(free >> 20).unwrap_or(i64::MAX);
    found.resources.disk = NodeDisk {
        disk_mb: options.disk_total_mb.filter(|_| options.disk_free_mb.is_none()).unwrap_or(free_mb),
    };
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
    found.set("nomad.revision", REVISION);
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
        for name in [
            "nomad.revision",
            "cpu.arch",
            "os.name",
            "unique.hostname",
            "kernel.version",
            "unique.storage.volume",
        ] {
            assert!(!found.attributes[name].is_empty(), "{name}");
        }
        let resources = &found.resources;
        assert!(resources.cpu.cpu_shares > 0 && resources.memory.memory_mb > 0 && resources.disk.disk_mb > 0);
        assert_eq!((resources.min_dynamic_port, resources.max_dynamic_port), (20_000, 32_000));
        assert_eq!(resources.node_networks[0].addresses[0].address, "127.0.0.1");
    }

    #[tokio::test]
    async fn what_the_operator_keeps_is_not_offered() {
        let options = FingerprintOptions {
            cpu_total_compute: Some(4000),
            reserved_mhz: 500,
            disk_free_mb: Some(7),
            ..FingerprintOptions::default()
        };
        let found = fingerprint(&options, &Drivers::new()).await;
        assert_eq!(found.attributes["cpu.totalcompute"], "4000");
        assert_eq!(found.attributes["cpu.usablecompute"], "3500");
        assert_eq!(found.attributes["unique.storage.bytesfree"], (7 << 20).to_string());
        assert_eq!(found.resources.disk.disk_mb, 7);
        let cores =
            FingerprintOptions { reserved_cores: vec![0], reservable_cores: Some(vec![0, 900]), ..options };
        let found = fingerprint(&cores, &Drivers::new()).await;
        let count: i64 = found.attributes["cpu.numcores"].parse().unwrap();
        assert_eq!(found.attributes["cpu.usablecompute"], (4000 - 4000 / count).to_string());
        assert_eq!(found.attributes["cpu.reservablecores"], "0");
        assert_eq!(
            found.resources.cpu.reservable_cpu_cores,
            [0],
            "cores that the machine does not have are left out"
        );
    }

    #[tokio::test]
    async fn parts_can_be_left_out() {
        let options = BTreeMap::from([("fingerprint.denylist".to_owned(), "storage, signal".to_owned())]);
        let options =
            FingerprintOptions { parts: PartFilter::from_options(&options), ..FingerprintOptions::default() };
        let found = fingerprint(&options, &Drivers::new()).await;
        let has = |name: &str| found.attributes.contains_key(name);
        assert!(has("cpu.arch") && !has("os.signals") && !has("unique.storage.volume"));
        let only = BTreeMap::from([("fingerprint.allowlist".to_owned(), "nomad".to_owned())]);
        let filter = PartFilter::from_options(&only);
        assert!(filter.has("nomad") && !filter.has("cpu"));
    }
}
