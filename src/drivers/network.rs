//! What a task sees of a network that its group has to itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::model::network::DnsConfig;

/// A network namespace that a driver has made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeNetwork {
    pub driver: String,
    /// The driver's own way to the namespace; empty until it has been made.
    pub path: PathBuf,
    /// What the driver wants to be reminded of.
    pub labels: BTreeMap<String, String>,
}

/// Files that are shown to the task in place of the machine's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkFiles {
    /// Stands in for `/etc/hosts`.
    pub hosts: Option<PathBuf>,
    /// Stands in for `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
    /// The name of the machine that the task sees; empty for the driver's default.
    pub hostname: String,
    /// Of the allocation in that network; empty without one.
    pub address: String,
    /// What `resolv_conf` was written from, as far as the job or its network says something.
    pub dns: Option<DnsConfig>,
    /// The namespace, if a driver has made it.
    pub made: Option<MadeNetwork>,
}

impl NetworkFiles {
    /// The files with the places where tasks look for them.
    pub fn places(&self) -> impl Iterator<Item = (&Path, &'static str)> {
        let hosts = self.hosts.as_deref().map(|file| (file, "/etc/hosts"));
        let resolver = self.resolv_conf.as_deref().map(|file| (file, "/etc/resolv.conf"));
        hosts.into_iter().chain(resolver)
    }
}
