//! A group: tasks that are placed together, and the policies for starting, updating and replacing them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use super::constraint::Affinity;
use super::constraint::Constraint;
use super::constraint::Spread;
use super::network::Network;
use super::service::Service;
use super::task::Task;
use super::time::Span;
use super::wire::null;

/// A set of tasks that share a node, a network and a fate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskGroup {
    pub name: String,
    /// Wanted number of allocations; 1 when absent in the job file.
    pub count: Option<i64>,
    pub update: Option<UpdateStrategy>,
    pub migrate: Option<MigrateStrategy>,
    #[serde(with = "null")]
    pub constraints: Vec<Constraint>,
    pub scaling: Option<Value>,
    pub restart_policy: Option<RestartPolicy>,
    pub disconnect: Option<DisconnectStrategy>,
    #[serde(with = "null")]
    pub tasks: Vec<Task>,
    pub ephemeral_disk: Option<EphemeralDisk>,
    #[serde(with = "null")]
    pub meta: BTreeMap<String, String>,
    pub reschedule_policy: Option<ReschedulePolicy>,
    #[serde(with = "null")]
    pub affinities: Vec<Affinity>,
    #[serde(with = "null")]
    pub spreads: Vec<Spread>,
    #[serde(with = "null")]
    pub networks: Vec<Network>,
    pub consul: Option<Value>,
    #[serde(with = "null")]
    pub services: Vec<Service>,
    #[serde(with = "null")]
    pub volumes: BTreeMap<String, VolumeRequest>,
    pub shutdown_delay: Option<Span>,
    pub stop_after_client_disconnect: Option<Span>,
    pub max_client_disconnect: Option<Span>,
    pub prevent_reschedule_on_lost: bool,
    /// Fields of newer versions, kept through a round trip.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

impl TaskGroup {
    /// Wanted number of allocations, never negative.
    pub fn count(&self) -> usize {
        usize::try_from(self.count.unwrap_or(1)).unwrap_or(0)
    }

    /// The task called `name`.
    pub fn task(&self, name: &str) -> Option<&Task> {
        self.tasks.iter().find(|task| task.name == name)
    }

    /// Ephemeral disk in MiB.
    pub fn disk_mb(&self) -> i64 {
        self.ephemeral_disk.as_ref().map_or(300, |disk| disk.size_mb)
    }
}

/// How a new version replaces the old one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UpdateStrategy {
    pub stagger: Span,
    pub max_parallel: i64,
    /// `checks`, `task_states` or `manual`.
    pub health_check: String,
    pub min_healthy_time: Span,
    pub healthy_deadline: Span,
    pub progress_deadline: Span,
    pub auto_revert: bool,
    pub auto_promote: bool,
    pub canary: i64,
}

/// How allocations leave a draining node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct MigrateStrategy {
    pub max_parallel: i64,
    pub health_check: String,
    pub min_healthy_time: Span,
    pub healthy_deadline: Span,
}

/// When a failed task is started again on its node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RestartPolicy {
    pub attempts: i64,
    pub interval: Span,
    pub delay: Span,
    /// `fail` or `delay`.
    pub mode: String,
    pub render_templates: bool,
}

/// When a failed allocation is replaced, possibly on another node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ReschedulePolicy {
    pub attempts: i64,
    pub interval: Span,
    pub delay: Span,
    /// `constant`, `exponential` or `fibonacci`.
    pub delay_function: String,
    pub max_delay: Span,
    pub unlimited: bool,
}

/// What happens while a node cannot be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DisconnectStrategy {
    pub lost_after: Span,
    pub stop_on_client_after: Option<Span>,
    pub replace: Option<bool>,
    pub reconcile: String,
}

/// The group's scratch disk, MiB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EphemeralDisk {
    #[serde(rename = "Sticky")]
    pub sticky: bool,
    #[serde(rename = "SizeMB")]
    pub size_mb: i64,
    #[serde(rename = "Migrate")]
    pub migrate: bool,
}

impl Default for EphemeralDisk {
    fn default() -> Self {
        Self { sticky: false, size_mb: 300, migrate: false }
    }
}

/// A volume that the group's tasks may mount.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VolumeRequest {
    pub name: String,
    #[serde(rename = "Type")]
    pub kind: String,
    pub source: String,
    pub read_only: bool,
    pub access_mode: String,
    pub attachment_mode: String,
    pub mount_options: Option<Value>,
    pub per_alloc: bool,
}
