//! A task: what is run, and how its surroundings are prepared.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use super::constraint::Affinity;
use super::constraint::Constraint;
use super::group::RestartPolicy;
use super::resources::Resources;
use super::service::Service;
use super::time::Span;
use super::wire::null;

/// One process, container or machine of a group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Task {
    pub name: String,
    pub driver: String,
    pub user: String,
    /// The driver's own options; checked against the driver's schema.
    #[serde(with = "null")]
    pub config: Map<String, Value>,
    #[serde(with = "null")]
    pub env: BTreeMap<String, String>,
    #[serde(with = "null")]
    pub services: Vec<Service>,
    pub vault: Option<Value>,
    pub consul: Option<Value>,
    #[serde(with = "null")]
    pub templates: Vec<Template>,
    #[serde(with = "null")]
    pub constraints: Vec<Constraint>,
    #[serde(with = "null")]
    pub affinities: Vec<Affinity>,
    pub resources: Option<Resources>,
    pub restart_policy: Option<RestartPolicy>,
    pub dispatch_payload: Option<DispatchPayload>,
    pub lifecycle: Option<Lifecycle>,
    #[serde(with = "null")]
    pub meta: BTreeMap<String, String>,
    pub kill_timeout: Option<Span>,
    pub log_config: Option<LogConfig>,
    #[serde(with = "null")]
    pub artifacts: Vec<Artifact>,
    pub leader: bool,
    pub shutdown_delay: Span,
    #[serde(with = "null")]
    pub volume_mounts: Vec<VolumeMount>,
    #[serde(with = "null")]
    pub scaling_policies: Vec<Value>,
    pub kill_signal: String,
    pub kind: String,
    #[serde(rename = "CSIPluginConfig")]
    pub csi_plugin_config: Option<Value>,
    pub identity: Option<WorkloadIdentity>,
    #[serde(with = "null")]
    pub identities: Vec<WorkloadIdentity>,
    #[serde(with = "null")]
    pub actions: Vec<Action>,
    pub schedule: Option<Value>,
    /// Fields of newer versions, kept through a round trip.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

impl Task {
    /// The resources asked for; defaults when the block is absent.
    pub fn resources(&self) -> Resources {
        self.resources.clone().unwrap_or_default()
    }
}

/// When a task runs relative to the main tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Lifecycle {
    /// `prestart`, `poststart` or `poststop`.
    pub hook: String,
    pub sidecar: bool,
}

/// Log files: `max_files` of `max_file_size_mb` MiB each, per stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    #[serde(rename = "MaxFiles")]
    pub max_files: i64,
    #[serde(rename = "MaxFileSizeMB")]
    pub max_file_size_mb: i64,
    #[serde(rename = "Disabled")]
    pub disabled: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { max_files: 10, max_file_size_mb: 10, disabled: false }
    }
}

/// A file rendered from a Go template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Template {
    pub source_path: String,
    pub dest_path: String,
    pub embedded_tmpl: String,
    /// `noop`, `signal`, `restart` or `script`.
    pub change_mode: String,
    pub change_signal: String,
    pub change_script: Option<ChangeScript>,
    pub splay: Span,
    pub perms: String,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    pub left_delim: String,
    pub right_delim: String,
    pub envvars: bool,
    pub vault_grace: Span,
    pub wait: Option<WaitConfig>,
    pub err_missing_key: bool,
    /// Rendered before the task starts and never again. Of later versions of Nomad: absent unless it is set.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
}

/// The script of `change_mode = "script"`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ChangeScript {
    pub command: String,
    #[serde(with = "null")]
    pub args: Vec<String>,
    pub timeout: Span,
    pub fail_on_error: bool,
}

/// Quiescence of a template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WaitConfig {
    pub min: Option<Span>,
    pub max: Option<Span>,
}

/// Something downloaded before the task starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Artifact {
    pub getter_source: String,
    #[serde(with = "null")]
    pub getter_options: BTreeMap<String, String>,
    #[serde(with = "null")]
    pub getter_headers: BTreeMap<String, String>,
    /// `any`, `file` or `dir`.
    pub getter_mode: String,
    pub getter_insecure: bool,
    pub relative_dest: String,
    pub chown: bool,
}

/// The name of the file that a dispatch payload is written to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DispatchPayload {
    pub file: String,
}

/// Where a group volume appears in a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeMount {
    #[serde(rename = "Volume")]
    pub volume: String,
    #[serde(rename = "Destination")]
    pub destination: String,
    #[serde(rename = "ReadOnly")]
    pub read_only: bool,
    #[serde(rename = "PropagationMode")]
    pub propagation_mode: String,
    #[serde(rename = "SELinuxLabel")]
    pub selinux_label: String,
}

/// An identity document for a task or service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkloadIdentity {
    #[serde(rename = "Name")]
    pub name: String,
    #[serde(rename = "Audience", with = "null")]
    pub audience: Vec<String>,
    #[serde(rename = "ChangeMode")]
    pub change_mode: String,
    #[serde(rename = "ChangeSignal")]
    pub change_signal: String,
    #[serde(rename = "Env")]
    pub env: bool,
    #[serde(rename = "File")]
    pub file: bool,
    #[serde(rename = "Filepath")]
    pub filepath: String,
    #[serde(rename = "ServiceName")]
    pub service_name: String,
    #[serde(rename = "TTL")]
    pub ttl: Span,
}

/// A command that operators may run inside a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Action {
    pub name: String,
    pub command: String,
    #[serde(with = "null")]
    pub args: Vec<String>,
}
