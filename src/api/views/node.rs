//! Nodes as Nomad shows them: what the agent found, what operators decided, what the controller saw.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use super::index;
use crate::mirror::state::NodeEntry;
use crate::model::id::NodeId;
use crate::model::network::Network;
use crate::model::node::DrainStrategy;
use crate::model::node::DriverInfo;
use crate::model::node::HostNetwork;
use crate::model::node::HostVolume;
use crate::model::node::NodeAddress;
use crate::model::node::NodeCpu;
use crate::model::node::NodeDevice;
use crate::model::node::NodeDisk;
use crate::model::node::NodeInfo;
use crate::model::node::NodeMemory;
use crate::model::node::NodeReserved;
use crate::model::node::NodeResources;
use crate::model::node::NodeStatus;
use crate::model::resources::Resources;
use crate::model::time::Time;

/// Key in the operator's record that keeps the newest drain: Nomad's `LastDrain`.
pub const LAST_DRAIN: &str = "LastDrain";

/// One node in full.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeView {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "SecretID")]
    pub secret_id: &'static str,
    pub datacenter: String,
    pub name: String,
    pub cgroup_parent: String,
    #[serde(rename = "HTTPAddr")]
    pub http_addr: String,
    #[serde(rename = "TLSEnabled")]
    pub tls_enabled: bool,
    pub attributes: BTreeMap<String, String>,
    pub node_resources: NodeResourcesView,
    pub reserved_resources: NodeReserved,
    pub resources: Resources,
    pub reserved: Resources,
    pub links: BTreeMap<String, String>,
    pub meta: BTreeMap<String, String>,
    pub node_class: String,
    pub node_pool: String,
    pub computed_class: String,
    pub drain_strategy: Option<DrainStrategy>,
    pub drain: bool,
    pub scheduling_eligibility: &'static str,
    pub status: &'static str,
    pub status_description: String,
    pub status_updated_at: i64,
    pub events: Vec<NodeEventView>,
    pub drivers: BTreeMap<String, DriverInfo>,
    #[serde(rename = "CSIControllerPlugins")]
    pub csi_controller_plugins: BTreeMap<String, Value>,
    #[serde(rename = "CSINodePlugins")]
    pub csi_node_plugins: BTreeMap<String, Value>,
    pub host_volumes: Option<BTreeMap<String, HostVolume>>,
    pub host_networks: Option<BTreeMap<String, HostNetwork>>,
    pub last_drain: Value,
    pub last_missed_heartbeat_index: u64,
    pub last_alloc_update_index: u64,
    pub create_index: u64,
    pub modify_index: u64,
}

/// Something that happened to a node.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeEventView {
    pub message: String,
    pub subsystem: String,
    pub details: Option<BTreeMap<String, String>>,
    pub timestamp: Time,
    pub create_index: u64,
}

/// A line of a node list.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeListStub {
    pub address: String,
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attributes: Option<BTreeMap<String, String>>,
    pub datacenter: String,
    pub name: String,
    pub node_pool: String,
    pub node_class: String,
    pub version: String,
    pub drain: bool,
    pub scheduling_eligibility: &'static str,
    pub status: &'static str,
    pub status_description: String,
    pub drivers: BTreeMap<String, DriverInfo>,
    pub host_volumes: Option<BTreeMap<String, HostVolume>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_resources: Option<NodeResourcesView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved_resources: Option<NodeReserved>,
    pub last_drain: Value,
    pub create_index: u64,
    pub modify_index: u64,
}

/// Everything a node has, with the processors in Nomad's newer form too.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeResourcesView {
    pub cpu: NodeCpu,
    pub processors: Value,
    pub memory: NodeMemory,
    pub disk: NodeDisk,
    pub devices: Option<Vec<NodeDevice>>,
    pub node_networks: Vec<NodeNetworkView>,
    pub networks: Vec<Network>,
    pub min_dynamic_port: u16,
    pub max_dynamic_port: u16,
}

/// A network that a node offers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeNetworkView {
    pub mode: String,
    pub device: String,
    pub mac_address: String,
    pub speed: i64,
    pub addresses: Vec<NodeAddressView>,
}

/// One address of a node.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeAddressView {
    pub family: String,
    pub alias: String,
    pub address: String,
    pub reserved_ports: String,
    pub gateway: String,
}

/// What a list shall show.
#[derive(Clone, Copy, Debug)]
pub struct StubOptions {
    pub resources: bool,
    pub os: bool,
}

/// The line of one node; `None` until its agent has said what it is.
pub fn stub(id: NodeId, entry: &NodeEntry, options: StubOptions) -> Option<NodeListStub> {
    let info = &entry.info.as_ref()?.value;
    let (created, modified) = entry.indexes();
    let os = || info.attributes.iter().filter(|(key, _)| *key == "os.name");
    Some(NodeListStub {
        address: http_addr(entry).rsplit_once(':').map(|(host, _)| host.to_owned()).unwrap_or_default(),
        id: id.to_string(),
        attributes: options.os.then(|| os().map(|(key, value)| (key.clone(), value.clone())).collect()),
        datacenter: info.datacenter.clone(),
        name: info.name.clone(),
        node_pool: info.node_pool.clone(),
        node_class: info.node_class.clone(),
        version: version(entry),
        drain: entry.is_draining(),
        scheduling_eligibility: entry.eligibility().as_str(),
        status: entry.state().as_str(),
        status_description: status(entry).status_description,
        drivers: info.drivers.clone(),
        host_volumes: some_map(&info.host_volumes),
        node_resources: options.resources.then(|| resources(&info.resources)),
        reserved_resources: options.resources.then(|| info.reserved.clone()),
        last_drain: last_drain(entry),
        create_index: index(created),
        modify_index: index(modified),
    })
}

/// One node in full; `None` until its agent has said what it is.
pub fn full(id: NodeId, entry: &NodeEntry) -> Option<NodeView> {
    let info = &entry.info.as_ref()?.value;
    let (created, modified) = entry.indexes();
    let status = status(entry);
    Some(NodeView {
        id: id.to_string(),
        secret_id: "",
        datacenter: info.datacenter.clone(),
        name: info.name.clone(),
        cgroup_parent: info.cgroup_parent.clone(),
        http_addr: http_addr(entry).to_owned(),
        tls_enabled: info.tls_enabled,
        attributes: info.attributes.clone(),
        node_resources: resources(&info.resources),
        reserved_resources: info.reserved.clone(),
        resources: Resources {
            cpu_mhz: info.resources.cpu.cpu_shares,
            memory_mb: info.resources.memory.memory_mb,
            disk_mb: info.resources.disk.disk_mb,
            ..Resources::default()
        },
        reserved: Resources {
            cpu_mhz: info.reserved.cpu.cpu_shares,
            memory_mb: info.reserved.memory.memory_mb,
            disk_mb: info.reserved.disk.disk_mb,
            ..Resources::default()
        },
        links: info.links.clone(),
        meta: merged_meta(entry),
        node_class: info.node_class.clone(),
        node_pool: info.node_pool.clone(),
        computed_class: String::new(),
        drain_strategy: entry.spec.as_ref().and_then(|spec| spec.value.drain_strategy.clone()),
        drain: entry.is_draining(),
        scheduling_eligibility: entry.eligibility().as_str(),
        status: entry.state().as_str(),
        status_description: status.status_description,
        status_updated_at: status.status_updated_at,
        events: status
            .events
            .into_iter()
            .map(|event| NodeEventView {
                message: event.message,
                subsystem: event.subsystem,
                details: some_map(&event.details),
                timestamp: event.timestamp,
                create_index: 0,
            })
            .collect(),
        drivers: info.drivers.clone(),
        csi_controller_plugins: BTreeMap::new(),
        csi_node_plugins: BTreeMap::new(),
        host_volumes: some_map(&info.host_volumes),
        host_networks: some_map(&info.host_networks),
        last_drain: last_drain(entry),
        last_missed_heartbeat_index: 0,
        last_alloc_update_index: 0,
        create_index: index(created),
        modify_index: index(modified),
    })
}

/// `ip:port` of the node's agent: where it listens now, else where it said it would.
pub fn http_addr(entry: &NodeEntry) -> &str {
    let live = entry.live.as_ref().map(|live| live.value.http_addr.as_str()).filter(|addr| !addr.is_empty());
    live.or_else(|| entry.info.as_ref().map(|info| info.value.http_addr.as_str())).unwrap_or_default()
}

/// The agent's metadata with the operator's overrides applied.
pub fn merged_meta(entry: &NodeEntry) -> BTreeMap<String, String> {
    let mut meta = entry.info.as_ref().map(|info| info.value.meta.clone()).unwrap_or_default();
    for (key, value) in entry.spec.iter().flat_map(|spec| &spec.value.meta) {
        match value {
            Some(value) => drop(meta.insert(key.clone(), value.clone())),
            None => drop(meta.remove(key)),
        }
    }
    meta
}

fn status(entry: &NodeEntry) -> NodeStatus {
    entry.status.as_ref().map(|status| (*status.value).clone()).unwrap_or_default()
}

fn version(entry: &NodeEntry) -> String {
    let info = |info: &NodeInfo| info.attributes.get("nomad.version").cloned();
    let live = entry.live.as_ref().map(|live| live.value.version.clone());
    entry.info.as_ref().and_then(|stored| info(&stored.value)).or(live).unwrap_or_default()
}

fn some_map<V: Clone>(map: &BTreeMap<String, V>) -> Option<BTreeMap<String, V>> {
    (!map.is_empty()).then(|| map.clone())
}

/// The newest drain. Whoever ends one only removes the strategy, so an ended one still says `draining`.
fn last_drain(entry: &NodeEntry) -> Value {
    let spec = entry.spec.as_ref().map(|spec| &spec.value);
    let Some(mut drain) = spec.and_then(|spec| spec.unknown.get(LAST_DRAIN).cloned()) else {
        return Value::Null;
    };
    let ended = spec.is_some_and(|spec| spec.drain_strategy.is_none());
    if ended && drain.get("Status") == Some(&json!("draining")) {
        drain["Status"] = json!("complete");
    }
    drain
}

fn resources(own: &NodeResources) -> NodeResourcesView {
    let cores = usize::from(own.cpu.total_cpu_cores);
    let speed = own.cpu.cpu_shares / i64::from(own.cpu.total_cpu_cores.max(1));
    let core = |id: usize| {
        json!({
            "ID": id, "SocketID": 0, "NodeID": 0, "Grade": true, "Disable": false,
            "BaseSpeed": 0, "MaxSpeed": 0, "GuessSpeed": speed,
        })
    };
    let address = |address: &NodeAddress| NodeAddressView {
        family: address.family.clone(),
        alias: address.alias.clone(),
        address: address.address.clone(),
        reserved_ports: address.reserved_ports.clone(),
        gateway: address.gateway.clone(),
    };
    NodeResourcesView {
        cpu: own.cpu.clone(),
        processors: json!({"Topology": {
            "Nodes": [0], "Distances": null, "Cores": (0..cores).map(core).collect::<Vec<_>>(),
            "OverrideTotalCompute": 0, "OverrideWitholdCompute": 0,
        }}),
        memory: own.memory.clone(),
        disk: own.disk.clone(),
        devices: (!own.devices.is_empty()).then(|| own.devices.clone()),
        node_networks: own
            .node_networks
            .iter()
            .map(|network| NodeNetworkView {
                mode: network.mode.clone(),
                device: network.device.clone(),
                mac_address: network.mac_address.clone(),
                speed: network.speed,
                addresses: network.addresses.iter().map(address).collect(),
            })
            .collect(),
        networks: own.networks.clone(),
        min_dynamic_port: own.min_dynamic_port,
        max_dynamic_port: own.max_dynamic_port,
    }
}
