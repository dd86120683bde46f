//! One placement of one group: what is wanted of it (`Allocation`, written by controllers) and what its agent
//! reports (`AllocationReport`). The two never share a key, so neither writer can undo the other's words.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use super::id::AllocId;
use super::id::DeploymentId;
use super::id::EvalId;
use super::id::JobId;
use super::id::NodeId;
use super::network::DnsConfig;
use super::resources::AllocatedResources;
use super::resources::Resources;
use super::time::Span;
use super::time::Time;
use super::wire::is_default;
use super::wire::null;
use super::wire::optional_id;

/// What controllers want of an allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DesiredStatus {
    #[default]
    Run,
    Stop,
    /// Stopped to make room for work of higher priority.
    Evict,
}

impl DesiredStatus {
    /// The word used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Stop => "stop",
            Self::Evict => "evict",
        }
    }
}

/// What became of an allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientStatus {
    #[default]
    Pending,
    Running,
    Complete,
    Failed,
    /// The node is gone; set by controllers only.
    Lost,
    /// The node cannot be reached for now; set by controllers only.
    Unknown,
}

impl ClientStatus {
    /// The word used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        }
    }

    /// Ended: nothing of it runs any more, as far as anybody can know.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Complete | Self::Failed | Self::Lost)
    }
}

/// The stored decision: `agents/<node>/desired/allocs/<alloc>`. Kept small, since every placement writes one:
/// node and id come from the key, the name is derived, zero fields are omitted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Allocation {
    #[serde(rename = "ID")]
    pub id: AllocId,
    /// From the key.
    #[serde(skip)]
    pub node_id: NodeId,
    #[serde(rename = "Namespace")]
    pub namespace: String,
    #[serde(rename = "JobID")]
    pub job_id: String,
    #[serde(rename = "JobVersion")]
    pub job_version: u64,
    /// Create revision of the job's key: tells incarnations of one job id apart.
    #[serde(rename = "JobCreateIndex")]
    pub job_create_index: u64,
    #[serde(rename = "TaskGroup")]
    pub task_group: String,
    /// Index within the group; unique among live allocations of one version, canaries aside.
    #[serde(rename = "Index")]
    pub index: u32,
    #[serde(rename = "EvalID")]
    pub eval_id: EvalId,
    #[serde(rename = "DeploymentID", skip_serializing_if = "is_default", with = "optional_id")]
    pub deployment_id: Option<DeploymentId>,
    #[serde(rename = "Canary", skip_serializing_if = "is_default")]
    pub canary: bool,
    #[serde(rename = "DesiredStatus")]
    pub desired_status: DesiredStatus,
    #[serde(rename = "DesiredDescription", skip_serializing_if = "is_default")]
    pub desired_description: String,
    /// A status that controllers put in force whatever the agent reports: `lost` or `unknown`.
    #[serde(rename = "ForcedStatus", skip_serializing_if = "is_default")]
    pub forced_status: Option<ClientStatus>,
    #[serde(rename = "AllocatedResources")]
    pub resources: AllocatedResources,
    /// The allocation that this one replaces; it starts once that one has ended, if on the same node.
    #[serde(rename = "PreviousAllocation", skip_serializing_if = "is_default", with = "optional_id")]
    pub previous: Option<AllocId>,
    /// Where that one was: its data may have to be fetched from there.
    #[serde(rename = "PreviousNode", skip_serializing_if = "is_default", with = "optional_id")]
    pub previous_node: Option<NodeId>,
    #[serde(rename = "RescheduleTracker", skip_serializing_if = "is_default")]
    pub reschedule_tracker: Option<RescheduleTracker>,
    #[serde(rename = "PreemptedByAllocation", skip_serializing_if = "is_default", with = "optional_id")]
    pub preempted_by: Option<AllocId>,
    /// Skip the tasks' shutdown delay when stopping.
    #[serde(rename = "NoShutdownDelay", skip_serializing_if = "is_default")]
    pub no_shutdown_delay: bool,
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

impl Allocation {
    /// `<job>.<group>[<index>]`.
    pub fn name(&self) -> String {
        format!("{}.{}[{}]", self.job_id, self.task_group, self.index)
    }

    /// The job it belongs to.
    pub fn job(&self) -> JobId {
        JobId::new(self.namespace.as_str(), self.job_id.as_str())
    }

    /// Controllers want it to run.
    pub fn is_wanted(&self) -> bool {
        self.desired_status == DesiredStatus::Run
    }
}

/// The status that counts: what controllers forced, else what the agent reported, else pending.
pub fn client_status(desired: &Allocation, report: Option<&AllocationReport>) -> ClientStatus {
    let reported = report.map_or(ClientStatus::Pending, |report| report.client_status);
    match desired.forced_status {
        // An agent that came back and confirmed the end has the last word.
        Some(_) if reported.is_terminal() => reported,
        Some(forced) => forced,
        None => reported,
    }
}

/// True while the node must keep the grant reserved: until the agent confirmed the end, or the node is gone.
pub fn holds_resources(desired: &Allocation, report: Option<&AllocationReport>) -> bool {
    !client_status(desired, report).is_terminal()
}

/// What an agent writes at `agents/<node>/reported/allocs/<alloc>`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AllocationReport {
    #[serde(rename = "ClientStatus")]
    pub client_status: ClientStatus,
    #[serde(rename = "ClientDescription", skip_serializing_if = "is_default")]
    pub client_description: String,
    #[serde(rename = "TaskStates", with = "null")]
    pub task_states: BTreeMap<String, TaskState>,
    #[serde(rename = "DeploymentStatus", skip_serializing_if = "is_default")]
    pub deployment_status: Option<DeploymentHealth>,
    #[serde(rename = "NetworkStatus", skip_serializing_if = "is_default")]
    pub network_status: Option<NetworkStatus>,
    /// The agent found on arrival that the allocation does not fit, with the reason. Nothing was started, and
    /// the failure costs no reschedule attempt.
    #[serde(rename = "Rejected", skip_serializing_if = "is_default")]
    pub rejected: String,
    /// Unix nanoseconds, agent's clock.
    #[serde(rename = "ModifyTime")]
    pub modify_time: i64,
    /// Fields of newer versions, kept through a round trip.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// Health of an allocation within its deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DeploymentHealth {
    /// Absent while undecided.
    pub healthy: Option<bool>,
    pub timestamp: Time,
    /// The deployment that the verdict is about: an allocation updated in place joins a new one and is judged
    /// anew. Herder's own field.
    #[serde(rename = "DeploymentID", skip_serializing_if = "is_default", with = "optional_id")]
    pub deployment_id: Option<DeploymentId>,
}

/// The address of an allocation with a network of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkStatus {
    #[serde(rename = "InterfaceName")]
    pub interface_name: String,
    #[serde(rename = "Address")]
    pub address: String,
    #[serde(rename = "AddressIPv6")]
    pub address_ipv6: String,
    #[serde(rename = "DNS")]
    pub dns: Option<DnsConfig>,
}

/// State of one task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskRunState {
    #[default]
    Pending,
    Running,
    Dead,
}

impl TaskRunState {
    /// The word used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Dead => "dead",
        }
    }
}

/// The newest events kept per task.
pub const TASK_EVENTS_KEPT: usize = 10;

/// What an agent knows of one task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskState {
    #[serde(rename = "State")]
    pub state: TaskRunState,
    #[serde(rename = "Failed", skip_serializing_if = "is_default")]
    pub failed: bool,
    #[serde(rename = "Restarts", skip_serializing_if = "is_default")]
    pub restarts: u64,
    #[serde(rename = "LastRestart", skip_serializing_if = "is_default")]
    pub last_restart: Time,
    #[serde(rename = "StartedAt", skip_serializing_if = "is_default")]
    pub started_at: Time,
    #[serde(rename = "FinishedAt", skip_serializing_if = "is_default")]
    pub finished_at: Time,
    /// Oldest first, at most [`TASK_EVENTS_KEPT`].
    #[serde(rename = "Events", with = "null")]
    pub events: Vec<TaskEvent>,
}

impl TaskState {
    /// Dead without failure.
    pub fn is_successful(&self) -> bool {
        self.state == TaskRunState::Dead && !self.failed
    }
}

/// Something that happened to a task. `details` is the canonical place for data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskEvent {
    /// One of Nomad's event types: `Received`, `Started`, `Terminated`, …
    #[serde(rename = "Type")]
    pub kind: String,
    /// Unix nanoseconds.
    #[serde(rename = "Time")]
    pub time: i64,
    #[serde(rename = "DisplayMessage")]
    pub display_message: String,
    #[serde(rename = "Details", skip_serializing_if = "is_default", with = "null")]
    pub details: BTreeMap<String, String>,
    #[serde(rename = "FailsTask", skip_serializing_if = "is_default")]
    pub fails_task: bool,
    #[serde(rename = "ExitCode", skip_serializing_if = "is_default")]
    pub exit_code: i64,
    #[serde(rename = "Signal", skip_serializing_if = "is_default")]
    pub signal: i64,
}

/// Earlier failures of the same slot, carried from allocation to replacement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RescheduleTracker {
    #[serde(with = "null")]
    pub events: Vec<RescheduleEvent>,
    /// `ok` or `no placement`.
    pub last_reschedule: String,
}

/// One replacement after a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RescheduleEvent {
    /// Unix nanoseconds.
    #[serde(rename = "RescheduleTime")]
    pub time: i64,
    #[serde(rename = "PrevAllocID")]
    pub previous: AllocId,
    #[serde(rename = "PrevNodeID")]
    pub previous_node: NodeId,
    #[serde(rename = "Delay")]
    pub delay: Span,
}

/// Why a group was placed where it was, or not at all. Zero fields are written: clients read them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AllocMetric {
    pub nodes_evaluated: u64,
    pub nodes_filtered: u64,
    pub nodes_in_pool: u64,
    /// Ready nodes per datacenter.
    #[serde(with = "null")]
    pub nodes_available: BTreeMap<String, u64>,
    #[serde(with = "null")]
    pub class_filtered: BTreeMap<String, u64>,
    /// Filter reason to number of nodes.
    #[serde(with = "null")]
    pub constraint_filtered: BTreeMap<String, u64>,
    pub nodes_exhausted: u64,
    #[serde(with = "null")]
    pub class_exhausted: BTreeMap<String, u64>,
    /// `cpu`, `memory`, `disk`, `network: …` to number of nodes.
    #[serde(with = "null")]
    pub dimension_exhausted: BTreeMap<String, u64>,
    #[serde(with = "null")]
    pub quota_exhausted: Vec<String>,
    /// Task to the resources that could not be had.
    #[serde(with = "null")]
    pub resources_exhausted: BTreeMap<String, Resources>,
    #[serde(with = "null")]
    pub scores: BTreeMap<String, f64>,
    /// The best nodes, best first; at most five.
    #[serde(with = "null")]
    pub score_meta_data: Vec<NodeScore>,
    pub allocation_time: Span,
    /// Further allocations of the group that failed for the same reason.
    pub coalesced_failures: u64,
}

/// Scores of one node: component name to value, and their mean.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeScore {
    #[serde(rename = "NodeID")]
    pub node_id: NodeId,
    #[serde(rename = "Scores", with = "null")]
    pub scores: BTreeMap<String, f64>,
    #[serde(rename = "NormScore")]
    pub norm_score: f64,
}
