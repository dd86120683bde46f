//! What a task sees of a network that its group has to itself.

use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

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
}

impl NetworkFiles {
    /// The files with the places where tasks look for them.
    pub fn places(&self) -> impl Iterator<Item = (&Path, &'static str)> {
        let hosts = self.hosts.as_deref().map(|file| (file, "/etc/hosts"));
        let resolver = self.resolv_conf.as_deref().map(|file| (file, "/etc/resolv.conf"));
        hosts.into_iter().chain(resolver)
    }
}
