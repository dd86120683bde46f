//! Networks and ports, as asked for and as granted.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use super::wire::is_default;
use super::wire::null;

/// A network of a group, or the older network inside a task's resources. Zero fields are omitted on the wire.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// `host` (default), `bridge`, `none` or `cni/<name>`.
    #[serde(rename = "Mode", skip_serializing_if = "is_default")]
    pub mode: String,
    #[serde(rename = "Device", skip_serializing_if = "is_default")]
    pub device: String,
    #[serde(rename = "CIDR", skip_serializing_if = "is_default")]
    pub cidr: String,
    #[serde(rename = "IP", skip_serializing_if = "is_default")]
    pub ip: String,
    #[serde(rename = "Hostname", skip_serializing_if = "is_default")]
    pub hostname: String,
    #[serde(rename = "MBits", skip_serializing_if = "is_default")]
    pub mbits: i64,
    #[serde(rename = "DNS", skip_serializing_if = "is_default")]
    pub dns: Option<DnsConfig>,
    /// Ports with a fixed host port.
    #[serde(rename = "ReservedPorts", skip_serializing_if = "is_default", with = "null")]
    pub reserved_ports: Vec<Port>,
    /// Ports whose host port the scheduler chooses.
    #[serde(rename = "DynamicPorts", skip_serializing_if = "is_default", with = "null")]
    pub dynamic_ports: Vec<Port>,
    #[serde(rename = "CNI", skip_serializing_if = "is_default")]
    pub cni: Option<CniConfig>,
}

impl Network {
    /// All ports, static ones first.
    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.reserved_ports.iter().chain(&self.dynamic_ports)
    }
}

/// A labelled port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Port {
    pub label: String,
    /// The host port; 0 while not chosen.
    #[serde(skip_serializing_if = "is_default")]
    pub value: i64,
    /// The port inside; 0: the same as `value` in host mode, -1: the same as `value`.
    #[serde(skip_serializing_if = "is_default")]
    pub to: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub host_network: String,
    #[serde(skip_serializing_if = "is_default")]
    pub ignore_collision: bool,
}

/// Resolver settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DnsConfig {
    #[serde(with = "null")]
    pub servers: Vec<String>,
    #[serde(with = "null")]
    pub searches: Vec<String>,
    #[serde(with = "null")]
    pub options: Vec<String>,
}

/// Arguments for CNI plugins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CniConfig {
    #[serde(with = "null")]
    pub args: BTreeMap<String, String>,
}

/// A granted port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortMapping {
    #[serde(rename = "Label")]
    pub label: String,
    #[serde(rename = "Value")]
    pub value: u16,
    #[serde(rename = "To", skip_serializing_if = "is_default")]
    pub to: i64,
    #[serde(rename = "HostIP", skip_serializing_if = "is_default")]
    pub host_ip: String,
    #[serde(rename = "IgnoreCollision", skip_serializing_if = "is_default")]
    pub ignore_collision: bool,
}
