//! What an allocation takes from its node.

use crate::model::group::TaskGroup;
use crate::model::resources::AllocatedResources;
use crate::model::task::Task;

use super::ports::PortGrant;

/// MHz, MiB of memory, MiB of disk.
pub type Charge = [i64; 3];

/// Resources of one allocation, as its node is charged for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    pub charge: Charge,
    /// Numbers of the reserved cores.
    pub cores: Box<[u16]>,
    pub ports: Box<[PortGrant]>,
    /// `<vendor>/<type>/<name>/<instance>`.
    pub devices: Box<[Box<str>]>,
}

/// When a task runs, for the question which tasks run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Before,
    BeforeAndMain,
    Main,
    After,
}

impl Phase {
    pub(super) fn of(task: &Task) -> Self {
        match &task.lifecycle {
            Some(lifecycle) if lifecycle.hook == "prestart" && lifecycle.sidecar => Self::BeforeAndMain,
            Some(lifecycle) if lifecycle.hook == "prestart" => Self::Before,
            Some(lifecycle) if lifecycle.hook == "poststop" => Self::After,
            _ => Self::Main,
        }
    }
}

/// The most CPU and memory in use at any time by tasks that run in these phases.
pub(super) fn peak(tasks: impl Iterator<Item = (Phase, [i64; 2])>) -> [i64; 2] {
    let mut sums = [[0; 2]; 3];
    for (phase, need) in tasks {
        let during: &[usize] = match phase {
            Phase::Before => &[0],
            Phase::BeforeAndMain => &[0, 1],
            Phase::Main => &[1],
            Phase::After => &[2],
        };
        for at in during {
            sums[*at][0] += need[0];
            sums[*at][1] += need[1];
        }
    }
    [0, 1].map(|resource| sums.iter().map(|sum| sum[resource]).max().unwrap_or(0))
}

/// What an allocation with this grant takes. Tasks that never run at once share CPU and memory when `group`, which
/// must be that of the allocation's job version, is known; otherwise all are added up.
pub fn footprint(group: Option<&TaskGroup>, resources: &AllocatedResources) -> Footprint {
    let mut cores = Vec::new();
    let mut core_mhz = 0;
    let mut ports = Vec::new();
    let mut devices = Vec::new();
    let mut needs = Vec::with_capacity(resources.tasks.len());
    for (name, granted) in &resources.tasks {
        let phase = group.and_then(|group| group.task(name)).map_or(Phase::Main, Phase::of);
        // Reserved cores stay reserved in every phase.
        let shared_mhz = if granted.cpu.reserved_cores.is_empty() {
            granted.cpu.cpu_shares
        } else {
            core_mhz += granted.cpu.cpu_shares;
            0
        };
        cores.extend_from_slice(&granted.cpu.reserved_cores);
        needs.push((phase, [shared_mhz, granted.memory.memory_mb]));
        for network in &granted.networks {
            let address = network.ip.parse().ok();
            let values = network.ports().filter_map(|port| u16::try_from(port.value).ok());
            ports.extend(values.filter(|port| *port != 0).map(|port| PortGrant { port, address }));
        }
        for device in &granted.devices {
            let group = format!("{}/{}/{}", device.vendor, device.kind, device.name);
            devices.extend(device.device_ids.iter().map(|id| format!("{group}/{id}").into_boxed_str()));
        }
    }
    for port in resources.shared.ports.iter().filter(|port| port.value != 0) {
        ports.push(PortGrant { port: port.value, address: port.host_ip.parse().ok() });
    }
    let [cpu, memory] = peak(needs.into_iter());
    Footprint {
        charge: [cpu + core_mhz, memory, resources.shared.disk_mb],
        cores: cores.into(),
        ports: ports.into(),
        devices: devices.into(),
    }
}
