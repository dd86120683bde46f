//! A machine, in four records with one writer each: `NodeInfo` and `NodeLive` (its agent), `NodeSpec` (operators),
//! `NodeStatus` (the node controller).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use super::id::NodeId;
use super::network::Network;
use super::time::Span;
use super::time::Time;
use super::wire::is_default;
use super::wire::null;

/// `agents/<node>/reported/info`: what the agent found on its machine. Rewritten only when it changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeInfo {
    #[serde(rename = "ID")]
    pub id: NodeId,
    #[serde(rename = "Name")]
    pub name: String,
    #[serde(rename = "Datacenter")]
    pub datacenter: String,
    #[serde(rename = "NodeClass")]
    pub node_class: String,
    #[serde(rename = "NodePool")]
    pub node_pool: String,
    /// `ip:port` of the agent's HTTP API.
    #[serde(rename = "HTTPAddr")]
    pub http_addr: String,
    #[serde(rename = "TLSEnabled")]
    pub tls_enabled: bool,
    #[serde(rename = "CgroupParent")]
    pub cgroup_parent: String,
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
    #[serde(rename = "Meta", with = "null")]
    pub meta: BTreeMap<String, String>,
    #[serde(rename = "Links", with = "null")]
    pub links: BTreeMap<String, String>,
    #[serde(rename = "NodeResources")]
    pub resources: NodeResources,
    #[serde(rename = "ReservedResources")]
    pub reserved: NodeReserved,
    #[serde(rename = "Drivers")]
    pub drivers: BTreeMap<String, DriverInfo>,
    #[serde(rename = "HostVolumes", with = "null")]
    pub host_volumes: BTreeMap<String, HostVolume>,
    #[serde(rename = "HostNetworks", with = "null")]
    pub host_networks: BTreeMap<String, HostNetwork>,
    /// Fields of newer versions, kept through a round trip.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// `agents/<node>/reported/live`: exists while the agent's lease does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeLive {
    /// Of the machine: changes with a reboot.
    #[serde(rename = "BootID")]
    pub boot_id: String,
    /// Of the agent process: tells two agents with one node id apart.
    #[serde(rename = "SessionID")]
    pub session_id: String,
    #[serde(rename = "Version")]
    pub version: String,
    #[serde(rename = "HTTPAddr")]
    pub http_addr: String,
}

/// `nodes/<node>/spec`: what operators decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeSpec {
    pub scheduling_eligibility: Eligibility,
    pub drain_strategy: Option<DrainStrategy>,
    /// Overrides of the agent's metadata; `null` removes a key.
    #[serde(with = "null")]
    pub meta: BTreeMap<String, Option<String>>,
    /// Set by an operator to let the controller mark this node down although many others are silent too.
    pub confirm_down: bool,
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// May new work come here?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Eligibility {
    #[default]
    Eligible,
    Ineligible,
}

impl Eligibility {
    /// The word used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eligible => "eligible",
            Self::Ineligible => "ineligible",
        }
    }
}

/// A drain in progress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DrainStrategy {
    pub deadline: Span,
    pub ignore_system_jobs: bool,
    pub force_deadline: Time,
    pub started_at: Time,
}

/// `nodes/<node>/status`: what the node controller decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeStatus {
    pub status: NodeState,
    pub status_description: String,
    /// Unix seconds.
    pub status_updated_at: i64,
    /// Newest last, at most ten.
    #[serde(with = "null")]
    pub events: Vec<NodeEvent>,
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// Can the node be reached?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    #[default]
    Initializing,
    Ready,
    Down,
    Disconnected,
}

impl NodeState {
    /// The word used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Initializing => "initializing",
            Self::Ready => "ready",
            Self::Down => "down",
            Self::Disconnected => "disconnected",
        }
    }
}

/// Something that happened to a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeEvent {
    pub message: String,
    pub subsystem: String,
    #[serde(with = "null")]
    pub details: BTreeMap<String, String>,
    pub timestamp: Time,
}

/// `agents/<node>/desired/control`: orders for the agent, and the proof that a listing comes from its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeControl {
    #[serde(rename = "ClusterID")]
    pub cluster_id: String,
    /// Grows when an operator restores the store from a backup; an agent refuses to stop work on an older one.
    #[serde(rename = "Epoch")]
    pub epoch: u64,
}

/// State of a task driver on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DriverInfo {
    #[serde(with = "null")]
    pub attributes: BTreeMap<String, String>,
    pub detected: bool,
    pub healthy: bool,
    pub health_description: String,
    pub update_time: Time,
}

/// A directory of the host that jobs may mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HostVolume {
    pub name: String,
    pub path: String,
    pub read_only: bool,
}

/// A named network of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostNetwork {
    #[serde(rename = "Name")]
    pub name: String,
    #[serde(rename = "CIDR")]
    pub cidr: String,
    #[serde(rename = "Interface")]
    pub interface: String,
    #[serde(rename = "ReservedPorts")]
    pub reserved_ports: String,
}

/// Everything a node has. CPU in MHz, memory and disk in MiB.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeResources {
    pub cpu: NodeCpu,
    pub memory: NodeMemory,
    pub disk: NodeDisk,
    #[serde(with = "null")]
    pub devices: Vec<NodeDevice>,
    #[serde(with = "null")]
    pub node_networks: Vec<NodeNetwork>,
    #[serde(with = "null")]
    pub networks: Vec<Network>,
    pub min_dynamic_port: u16,
    pub max_dynamic_port: u16,
}

/// Processors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeCpu {
    /// Total MHz of usable cores.
    pub cpu_shares: i64,
    pub total_cpu_cores: u16,
    #[serde(with = "null")]
    pub reservable_cpu_cores: Vec<u16>,
}

/// Memory in MiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeMemory {
    #[serde(rename = "MemoryMB")]
    pub memory_mb: i64,
}

/// Disk in MiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeDisk {
    #[serde(rename = "DiskMB")]
    pub disk_mb: i64,
}

/// A group of equal devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeDevice {
    pub vendor: String,
    #[serde(rename = "Type")]
    pub kind: String,
    pub name: String,
    #[serde(with = "null")]
    pub instances: Vec<DeviceInstance>,
    #[serde(with = "null")]
    pub attributes: BTreeMap<String, Value>,
}

/// One device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceInstance {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Healthy")]
    pub healthy: bool,
    #[serde(rename = "HealthDescription")]
    pub health_description: String,
}

/// A network that the node offers to groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeNetwork {
    pub mode: String,
    pub device: String,
    pub mac_address: String,
    pub speed: i64,
    #[serde(with = "null")]
    pub addresses: Vec<NodeAddress>,
}

/// One address of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeAddress {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// The host network's name; `default` for the ordinary one.
    pub alias: String,
    pub address: String,
    #[serde(skip_serializing_if = "is_default")]
    pub reserved_ports: String,
    #[serde(skip_serializing_if = "is_default")]
    pub gateway: String,
}

/// What operators keep for the machine itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeReserved {
    pub cpu: ReservedCpu,
    pub memory: NodeMemory,
    pub disk: NodeDisk,
    pub networks: ReservedNetworks,
}

/// Reserved MHz and cores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ReservedCpu {
    pub cpu_shares: i64,
    #[serde(with = "null")]
    pub reserved_cpu_cores: Vec<u16>,
}

/// Reserved host ports, as `22,80,8000-8100`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ReservedNetworks {
    pub reserved_host_ports: String,
}

/// Parses `22,80,8000-8100` into port numbers.
///
/// # Errors
/// Names the part that is not a port or a range.
pub fn parse_port_ranges(text: &str) -> Result<Vec<u16>, String> {
    let mut ports = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let bad = || format!("invalid port or range {part:?}");
        match part.split_once('-') {
            None => ports.push(part.parse().map_err(|_| bad())?),
            Some((low, high)) => {
                let low: u16 = low.trim().parse().map_err(|_| bad())?;
                let high: u16 = high.trim().parse().map_err(|_| bad())?;
                if low > high {
                    return Err(bad());
                }
                ports.extend(low..=high);
            }
        }
    }
    Ok(ports)
}
