//! A rollout of one job version. Counters are derived from allocations when read, never stored.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use super::id::AllocId;
use super::id::DeploymentId;
use super::id::JobId;
use super::time::Span;
use super::time::Time;
use super::wire::null;

/// Where a rollout stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeploymentStatus {
    #[default]
    Running,
    Paused,
    Failed,
    Successful,
    Cancelled,
}

impl DeploymentStatus {
    /// The word used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Failed => "failed",
            Self::Successful => "successful",
            Self::Cancelled => "cancelled",
        }
    }

    /// Not finished yet.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// The stored state of a rollout: `deployments/<ns>/<job>/<id>`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Deployment {
    #[serde(rename = "ID")]
    pub id: DeploymentId,
    #[serde(rename = "Namespace")]
    pub namespace: String,
    #[serde(rename = "JobID")]
    pub job_id: String,
    #[serde(rename = "JobVersion")]
    pub job_version: u64,
    #[serde(rename = "JobCreateIndex")]
    pub job_create_index: u64,
    #[serde(rename = "JobModifyIndex")]
    pub job_modify_index: u64,
    #[serde(rename = "TaskGroups", with = "null")]
    pub task_groups: BTreeMap<String, GroupRollout>,
    #[serde(rename = "Status")]
    pub status: DeploymentStatus,
    #[serde(rename = "StatusDescription")]
    pub status_description: String,
    #[serde(rename = "EvalPriority")]
    pub eval_priority: i64,
    /// Unix nanoseconds.
    #[serde(rename = "CreateTime")]
    pub create_time: i64,
    /// Unix nanoseconds.
    #[serde(rename = "ModifyTime")]
    pub modify_time: i64,
    /// Fields of newer versions, kept through a round trip.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

impl Deployment {
    /// The job that is rolled out.
    pub fn job(&self) -> JobId {
        JobId::new(self.namespace.as_str(), self.job_id.as_str())
    }
}

/// Rollout of one group: its settings and deadlines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct GroupRollout {
    pub auto_revert: bool,
    pub auto_promote: bool,
    pub progress_deadline: Span,
    /// Absolute; never until something was placed.
    pub require_progress_by: Time,
    pub promoted: bool,
    #[serde(with = "null")]
    pub placed_canaries: Vec<AllocId>,
    pub desired_canaries: u64,
    pub desired_total: u64,
    /// Healthy allocations when the deadline was last moved; a mark to notice progress by, not a counter.
    /// Herder's own field.
    pub healthy_seen: u64,
}
