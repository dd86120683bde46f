//! Services and their checks, and what an agent registers for them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use super::id::AllocId;
use super::id::NodeId;
use super::task::WorkloadIdentity;
use super::time::Span;
use super::wire::null;

/// A `service` block of a group or task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Service {
    pub name: String,
    pub task_name: String,
    pub port_label: String,
    /// `auto`, `alloc`, `alloc_ipv6`, `driver` or `host`.
    pub address_mode: String,
    pub address: String,
    pub enable_tag_override: bool,
    #[serde(with = "null")]
    pub tags: Vec<String>,
    #[serde(with = "null")]
    pub canary_tags: Vec<String>,
    #[serde(with = "null")]
    pub checks: Vec<ServiceCheck>,
    /// Service mesh settings: kept as written, not interpreted.
    pub connect: Option<Value>,
    #[serde(with = "null")]
    pub meta: BTreeMap<String, String>,
    #[serde(with = "null")]
    pub canary_meta: BTreeMap<String, String>,
    pub weights: Option<ServiceWeights>,
    #[serde(with = "null")]
    pub tagged_addresses: BTreeMap<String, String>,
    pub namespace: String,
    /// `require_healthy`, `ignore_warnings` or `ignore`.
    pub on_update: String,
    /// `consul` (default) or `nomad`.
    pub provider: String,
    pub cluster: String,
    pub identity: Option<WorkloadIdentity>,
}

/// DNS weights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceWeights {
    pub passing: i64,
    pub warning: i64,
}

/// A `check` block.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceCheck {
    pub name: String,
    #[serde(rename = "Type")]
    pub kind: String,
    pub command: String,
    #[serde(with = "null")]
    pub args: Vec<String>,
    pub path: String,
    pub protocol: String,
    pub port_label: String,
    pub expose: bool,
    pub address_mode: String,
    pub interval: Span,
    pub timeout: Span,
    pub initial_status: String,
    pub notes: String,
    #[serde(rename = "TLSServerName")]
    pub tls_server_name: String,
    #[serde(rename = "TLSSkipVerify")]
    pub tls_skip_verify: bool,
    pub method: String,
    #[serde(with = "null")]
    pub header: BTreeMap<String, Vec<String>>,
    pub check_restart: Option<CheckRestart>,
    #[serde(rename = "GRPCService")]
    pub grpc_service: String,
    #[serde(rename = "GRPCUseTLS")]
    pub grpc_use_tls: bool,
    pub task_name: String,
    pub success_before_passing: i64,
    pub failures_before_critical: i64,
    pub failures_before_warning: i64,
    pub body: String,
    pub on_update: String,
}

/// When failing checks restart a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CheckRestart {
    pub limit: i64,
    pub grace: Span,
    pub ignore_warnings: bool,
}

/// What an agent writes at `agents/<node>/reported/services/<id>`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceRegistration {
    /// `_nomad-task-<alloc>-<group or task>-<service>-<port label>`.
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "ServiceName")]
    pub service_name: String,
    #[serde(rename = "Namespace")]
    pub namespace: String,
    #[serde(rename = "NodeID")]
    pub node_id: NodeId,
    #[serde(rename = "Datacenter")]
    pub datacenter: String,
    #[serde(rename = "JobID")]
    pub job_id: String,
    #[serde(rename = "AllocID")]
    pub alloc_id: AllocId,
    #[serde(rename = "Tags", with = "null")]
    pub tags: Vec<String>,
    #[serde(rename = "Address")]
    pub address: String,
    #[serde(rename = "Port")]
    pub port: i64,
    /// Results of the service's checks, keyed by check id. Herder's own field.
    #[serde(rename = "Checks", with = "null")]
    pub checks: BTreeMap<String, CheckResult>,
}

impl ServiceRegistration {
    /// True when no check is failing or undecided.
    pub fn is_passing(&self) -> bool {
        self.checks.values().all(|check| check.status == CheckStatus::Success)
    }
}

/// State of one check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    #[default]
    Pending,
    Success,
    Failure,
}

/// The newest result of one check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckResult {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Check")]
    pub check: String,
    #[serde(rename = "Group")]
    pub group: String,
    #[serde(rename = "Task")]
    pub task: String,
    #[serde(rename = "Service")]
    pub service: String,
    /// `healthiness` or `readiness`.
    #[serde(rename = "Mode")]
    pub mode: String,
    #[serde(rename = "Status")]
    pub status: CheckStatus,
    #[serde(rename = "StatusCode")]
    pub status_code: u16,
    #[serde(rename = "Output")]
    pub output: String,
    /// Unix seconds.
    #[serde(rename = "Timestamp")]
    pub timestamp: i64,
}
