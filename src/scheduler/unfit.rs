//! Why a node cannot take an allocation. The texts are Nomad's: users and their scripts know them.

use std::fmt;

/// A refusal of one node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unfit {
    /// The node is unknown.
    UnknownNode,
    /// Down, draining or ineligible.
    NotReady,
    WrongPool,
    WrongDatacenter,
    /// The constraint's text: `<left> <operator> <right>`.
    Constraint(Box<str>),
    MissingDriver,
    MissingDevices,
    /// No network of the wanted mode.
    MissingNetwork,
    MissingHostNetwork {
        network: Box<str>,
        port: Box<str>,
    },
    InvalidHostNetwork {
        network: Box<str>,
        port: Box<str>,
    },
    MissingHostVolumes,
    MissingCsiVolume(Box<str>),
    DistinctHosts,
    DistinctProperty {
        attribute: Box<str>,
        value: Box<str>,
        used: u64,
    },
    MissingProperty(Box<str>),
    /// A `distinct_property` whose count is not a number.
    InvalidProperty(Box<str>),
    CpuExhausted,
    CoresExhausted,
    MemoryExhausted,
    DiskExhausted,
    PortCollision {
        label: Box<str>,
        port: u16,
    },
    DynamicPortsExhausted,
    NoAddress(Box<str>),
    /// No address for the older task networks.
    NoTaskNetwork,
    DevicesExhausted,
}

impl Unfit {
    /// The node would do if it had more room; the others are filters.
    pub fn is_exhausted(&self) -> bool {
        matches!(
            self,
            Self::CpuExhausted
                | Self::CoresExhausted
                | Self::MemoryExhausted
                | Self::DiskExhausted
                | Self::PortCollision { .. }
                | Self::DynamicPortsExhausted
                | Self::NoAddress(_)
                | Self::NoTaskNetwork
                | Self::DevicesExhausted
        )
    }

    /// The node is not even looked at: it is not ready, or in another pool or datacenter.
    pub fn is_no_candidate(&self) -> bool {
        matches!(self, Self::UnknownNode | Self::NotReady | Self::WrongPool | Self::WrongDatacenter)
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownNode => f.write_str("unknown node"),
            Self::NotReady => f.write_str("node is not ready"),
            Self::WrongPool => f.write_str("node is in another pool"),
            Self::WrongDatacenter => f.write_str("node is in another datacenter"),
            Self::Constraint(text) => f.write_str(text),
            Self::MissingDriver => f.write_str("missing drivers"),
            Self::MissingDevices => f.write_str("missing devices"),
            Self::MissingNetwork => f.write_str("missing network"),
            Self::MissingHostNetwork { network, port } => {
                write!(f, "missing host network {network:?} for port {port:?}")
            }
            Self::InvalidHostNetwork { network, port } => {
                write!(f, "invalid host network {network:?} template for port {port:?}")
            }
            Self::MissingHostVolumes => f.write_str("missing compatible host volumes"),
            Self::MissingCsiVolume(volume) => write!(f, "missing CSI Volume {volume}"),
            Self::DistinctHosts => f.write_str("distinct_hosts"),
            Self::DistinctProperty { attribute, value, used } => {
                write!(f, "distinct_property: {attribute}={value} used by {used} allocs")
            }
            Self::MissingProperty(attribute) => write!(f, "missing property {attribute:?}"),
            Self::InvalidProperty(count) => {
                write!(f, "failed to convert RTarget {count:?} to uint64")
            }
            Self::CpuExhausted => f.write_str("cpu"),
            Self::CoresExhausted => f.write_str("cores"),
            Self::MemoryExhausted => f.write_str("memory"),
            Self::DiskExhausted => f.write_str("disk"),
            Self::PortCollision { label, port } => {
                write!(f, "network: reserved port collision {label}={port}")
            }
            Self::DynamicPortsExhausted => f.write_str("network: dynamic port selection failed"),
            Self::NoAddress(network) => write!(f, "network: no addresses available for {network} network"),
            Self::NoTaskNetwork => f.write_str("network: no networks available"),
            Self::DevicesExhausted => f.write_str("devices: no devices match request"),
        }
    }
}
