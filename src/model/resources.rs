//! What tasks ask for and what an allocation was granted.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use super::constraint::Affinity;
use super::constraint::Constraint;
use super::network::Network;
use super::network::PortMapping;
use super::wire::is_default;
use super::wire::null;

/// A task's `resources` block. CPU in MHz, memory in MiB.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    #[serde(rename = "CPU")]
    pub cpu_mhz: i64,
    #[serde(rename = "Cores")]
    pub cores: i64,
    #[serde(rename = "MemoryMB")]
    pub memory_mb: i64,
    #[serde(rename = "MemoryMaxMB")]
    pub memory_max_mb: i64,
    #[serde(rename = "DiskMB")]
    pub disk_mb: i64,
    #[serde(rename = "IOPS")]
    pub iops: i64,
    #[serde(rename = "Networks", with = "null")]
    pub networks: Vec<Network>,
    #[serde(rename = "Devices", with = "null")]
    pub devices: Vec<RequestedDevice>,
    #[serde(rename = "NUMA")]
    pub numa: Option<Numa>,
    #[serde(rename = "SecretsMB")]
    pub secrets_mb: i64,
}

/// A wish for devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RequestedDevice {
    /// `type`, `vendor/type` or `vendor/type/model`.
    pub name: String,
    pub count: u64,
    #[serde(with = "null")]
    pub constraints: Vec<Constraint>,
    #[serde(with = "null")]
    pub affinities: Vec<Affinity>,
}

/// NUMA preference.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Numa {
    pub affinity: String,
    #[serde(with = "null")]
    pub devices: Vec<String>,
}

/// An allocation's grant. Zero fields are omitted to keep the stored record small.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AllocatedResources {
    #[serde(rename = "Tasks")]
    pub tasks: BTreeMap<String, AllocatedTask>,
    #[serde(rename = "Shared")]
    pub shared: AllocatedShared,
}

/// The grant of one task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AllocatedTask {
    #[serde(rename = "Cpu")]
    pub cpu: AllocatedCpu,
    #[serde(rename = "Memory")]
    pub memory: AllocatedMemory,
    /// Grants of the older task networks.
    #[serde(rename = "Networks", skip_serializing_if = "is_default", with = "null")]
    pub networks: Vec<Network>,
    #[serde(rename = "Devices", skip_serializing_if = "is_default", with = "null")]
    pub devices: Vec<AllocatedDevice>,
}

/// CPU grant: MHz and, when cores were asked for, their numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AllocatedCpu {
    pub cpu_shares: i64,
    #[serde(skip_serializing_if = "is_default", with = "null")]
    pub reserved_cores: Vec<u16>,
}

/// Memory grant in MiB.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AllocatedMemory {
    #[serde(rename = "MemoryMB")]
    pub memory_mb: i64,
    #[serde(rename = "MemoryMaxMB", skip_serializing_if = "is_default")]
    pub memory_max_mb: i64,
}

/// Granted device instances.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AllocatedDevice {
    #[serde(rename = "Vendor")]
    pub vendor: String,
    #[serde(rename = "Type")]
    pub kind: String,
    #[serde(rename = "Name")]
    pub name: String,
    #[serde(rename = "DeviceIDs", with = "null")]
    pub device_ids: Vec<String>,
}

/// What the tasks of an allocation share: disk (MiB) and the group's ports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AllocatedShared {
    #[serde(rename = "Networks", skip_serializing_if = "is_default", with = "null")]
    pub networks: Vec<Network>,
    #[serde(rename = "DiskMB")]
    pub disk_mb: i64,
    #[serde(rename = "Ports", skip_serializing_if = "is_default", with = "null")]
    pub ports: Vec<PortMapping>,
}

impl AllocatedResources {
    /// Every host port held: the group's, and those of the older task networks.
    pub fn host_ports(&self) -> impl Iterator<Item = u16> {
        let shared = self.shared.ports.iter().map(|port| port.value);
        let legacy = self.tasks.values().flat_map(|task| &task.networks).flat_map(Network::ports);
        shared.chain(legacy.filter_map(|port| u16::try_from(port.value).ok())).filter(|port| *port != 0)
    }
}
