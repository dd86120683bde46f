//! The record of one reconcile pass: why it ran, what it did, what it could not place and why.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use super::allocation::AllocMetric;
use super::id::DeploymentId;
use super::id::EvalId;
use super::id::JobId;
use super::id::NodeId;
use super::time::Time;
use super::wire::is_default;
use super::wire::null;
use super::wire::optional_id;

/// Where an evaluation stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EvalStatus {
    /// Waits for capacity.
    Blocked,
    #[default]
    Pending,
    Complete,
    Failed,
    Canceled,
}

impl EvalStatus {
    /// The word used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Pending => "pending",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// Nothing more will happen to it.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Complete | Self::Failed | Self::Canceled)
    }
}

/// The trigger words of Nomad that Herder writes.
pub mod trigger {
    pub const JOB_REGISTER: &str = "job-register";
    pub const JOB_DEREGISTER: &str = "job-deregister";
    pub const PERIODIC_JOB: &str = "periodic-job";
    pub const NODE_UPDATE: &str = "node-update";
    pub const NODE_DRAIN: &str = "node-drain";
    pub const ALLOC_STOP: &str = "alloc-stop";
    pub const ALLOC_FAILURE: &str = "alloc-failure";
    pub const DEPLOYMENT_WATCHER: &str = "deployment-watcher";
    pub const QUEUED_ALLOCS: &str = "queued-allocs";
    pub const JOB_SCALING: &str = "job-scaling";
}

/// Stored at `evaluations/<ns>/<job>/<id>`. Zero fields are omitted, as Nomad does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evaluation {
    #[serde(rename = "ID")]
    pub id: EvalId,
    #[serde(rename = "Namespace")]
    pub namespace: String,
    #[serde(rename = "Priority")]
    pub priority: i64,
    /// The job's type.
    #[serde(rename = "Type")]
    pub kind: String,
    #[serde(rename = "TriggeredBy")]
    pub triggered_by: String,
    #[serde(rename = "JobID")]
    pub job_id: String,
    #[serde(rename = "NodeID", skip_serializing_if = "is_default", with = "optional_id")]
    pub node_id: Option<NodeId>,
    #[serde(rename = "DeploymentID", skip_serializing_if = "is_default", with = "optional_id")]
    pub deployment_id: Option<DeploymentId>,
    #[serde(rename = "Status")]
    pub status: EvalStatus,
    #[serde(rename = "StatusDescription", skip_serializing_if = "is_default")]
    pub status_description: String,
    #[serde(rename = "WaitUntil", skip_serializing_if = "is_default")]
    pub wait_until: Time,
    #[serde(rename = "NextEval", skip_serializing_if = "is_default", with = "optional_id")]
    pub next_eval: Option<EvalId>,
    #[serde(rename = "PreviousEval", skip_serializing_if = "is_default", with = "optional_id")]
    pub previous_eval: Option<EvalId>,
    #[serde(rename = "BlockedEval", skip_serializing_if = "is_default", with = "optional_id")]
    pub blocked_eval: Option<EvalId>,
    /// Group to the reasons why it could not be placed.
    #[serde(rename = "FailedTGAllocs", skip_serializing_if = "is_default", with = "null")]
    pub failed_groups: BTreeMap<String, AllocMetric>,
    /// Group to the metric of its placements in this pass. Herder's own field.
    #[serde(rename = "PlacedTGAllocs", skip_serializing_if = "is_default", with = "null")]
    pub placed_groups: BTreeMap<String, AllocMetric>,
    /// Group to the number of allocations still to be placed.
    #[serde(rename = "QueuedAllocations", skip_serializing_if = "is_default", with = "null")]
    pub queued_allocations: BTreeMap<String, u64>,
    /// What the pass did, per group. Herder's own field.
    #[serde(rename = "DesiredTGUpdates", skip_serializing_if = "is_default", with = "null")]
    pub desired_updates: BTreeMap<String, DesiredUpdates>,
    /// The revision that the pass read.
    #[serde(rename = "SnapshotIndex", skip_serializing_if = "is_default")]
    pub snapshot_index: u64,
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

impl Evaluation {
    /// The job that was looked at.
    pub fn job(&self) -> JobId {
        JobId::new(self.namespace.as_str(), self.job_id.as_str())
    }
}

/// Counts of what a pass does to a group, in Nomad's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DesiredUpdates {
    pub ignore: u64,
    pub place: u64,
    pub migrate: u64,
    pub stop: u64,
    pub in_place_update: u64,
    pub destructive_update: u64,
    pub canary: u64,
    pub preemptions: u64,
}
