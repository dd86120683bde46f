//! A job: what a user wants to run.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use sha2::Digest;
use sha2::Sha256;

use super::constraint::Affinity;
use super::constraint::Constraint;
use super::constraint::Spread;
use super::group::TaskGroup;
use super::group::UpdateStrategy;
use super::id::DEFAULT_NAMESPACE;
use super::id::JobId;
use super::wire::is_default;
use super::wire::null;

/// The four kinds of job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobType {
    Service,
    Batch,
    System,
    Sysbatch,
}

impl JobType {
    /// Reads `service`, `batch`, `system` or `sysbatch`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "service" => Self::Service,
            "batch" => Self::Batch,
            "system" => Self::System,
            "sysbatch" => Self::Sysbatch,
            _ => return None,
        })
    }

    /// One allocation on every node that fits, whatever the count.
    pub fn is_on_every_node(self) -> bool {
        matches!(self, Self::System | Self::Sysbatch)
    }

    /// Batch-like work ends; the others run until stopped.
    pub fn is_batch(self) -> bool {
        matches!(self, Self::Batch | Self::Sysbatch)
    }
}

/// A job as stored at `jobs/<ns>/<job>` and at `versions/…`. The index fields (`CreateIndex`, `ModifyIndex`,
/// `JobModifyIndex`) are not stored: they are revisions of the key, filled in when a job is read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Job {
    #[serde(rename = "Stop")]
    pub stop: bool,
    #[serde(rename = "Region")]
    pub region: String,
    #[serde(rename = "Namespace")]
    pub namespace: String,
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "ParentID")]
    pub parent_id: String,
    #[serde(rename = "Name")]
    pub name: String,
    #[serde(rename = "Type")]
    pub kind: String,
    #[serde(rename = "Priority")]
    pub priority: i64,
    #[serde(rename = "AllAtOnce")]
    pub all_at_once: bool,
    #[serde(rename = "Datacenters", with = "null")]
    pub datacenters: Vec<String>,
    #[serde(rename = "NodePool")]
    pub node_pool: String,
    #[serde(rename = "Constraints", with = "null")]
    pub constraints: Vec<Constraint>,
    #[serde(rename = "Affinities", with = "null")]
    pub affinities: Vec<Affinity>,
    #[serde(rename = "Spreads", with = "null")]
    pub spreads: Vec<Spread>,
    #[serde(rename = "TaskGroups", with = "null")]
    pub task_groups: Vec<TaskGroup>,
    #[serde(rename = "Update")]
    pub update: Option<UpdateStrategy>,
    #[serde(rename = "Multiregion")]
    pub multiregion: Option<Value>,
    #[serde(rename = "Periodic")]
    pub periodic: Option<PeriodicConfig>,
    #[serde(rename = "ParameterizedJob")]
    pub parameterized: Option<ParameterizedConfig>,
    #[serde(rename = "Dispatched")]
    pub dispatched: bool,
    #[serde(rename = "DispatchIdempotencyToken")]
    pub dispatch_idempotency_token: String,
    /// Dispatch payload, base64.
    #[serde(rename = "Payload")]
    pub payload: Option<String>,
    #[serde(rename = "Meta", with = "null")]
    pub meta: BTreeMap<String, String>,
    #[serde(rename = "ConsulToken")]
    pub consul_token: String,
    #[serde(rename = "ConsulNamespace")]
    pub consul_namespace: String,
    #[serde(rename = "VaultToken")]
    pub vault_token: String,
    #[serde(rename = "VaultNamespace")]
    pub vault_namespace: String,
    #[serde(rename = "NomadTokenID")]
    pub nomad_token_id: String,
    /// Derived when read; empty in the store.
    #[serde(rename = "Status")]
    pub status: String,
    #[serde(rename = "StatusDescription")]
    pub status_description: String,
    /// Whether this version was proven healthy; derived from its deployment when read.
    #[serde(rename = "Stable")]
    pub stable: bool,
    #[serde(rename = "Version")]
    pub version: u64,
    /// Unix nanoseconds.
    #[serde(rename = "SubmitTime")]
    pub submit_time: i64,
    #[serde(rename = "CreateIndex")]
    pub create_index: u64,
    #[serde(rename = "ModifyIndex")]
    pub modify_index: u64,
    #[serde(rename = "JobModifyIndex")]
    pub job_modify_index: u64,
    #[serde(rename = "UI")]
    pub ui: Option<Value>,
    #[serde(rename = "VersionTag")]
    pub version_tag: Option<VersionTag>,
    /// A stopped job whose keys go once every agent has confirmed the end of its allocations.
    #[serde(rename = "Purge", skip_serializing_if = "is_default")]
    pub purge: bool,
    /// Marks a value that was validated and given its version; see [`Job::seal`]. Herder's own field.
    #[serde(rename = "SpecDigest", skip_serializing_if = "is_default")]
    pub spec_digest: String,
    /// Fields of newer versions, kept through a round trip.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

impl Job {
    /// Namespace and id.
    pub fn job_id(&self) -> JobId {
        let namespace = if self.namespace.is_empty() { DEFAULT_NAMESPACE } else { &self.namespace };
        JobId::new(namespace, self.id.as_str())
    }

    /// The parsed type; an unknown one counts as service (validation refuses it before it is stored).
    pub fn job_type(&self) -> JobType {
        JobType::parse(&self.kind).unwrap_or(JobType::Service)
    }

    /// The group called `name`.
    pub fn group(&self, name: &str) -> Option<&TaskGroup> {
        self.task_groups.iter().find(|group| group.name == name)
    }

    /// A template for children (periodic, or parameterized and not yet dispatched) places nothing itself.
    pub fn is_template(&self) -> bool {
        self.periodic.is_some() || (self.parameterized.is_some() && !self.dispatched)
    }

    /// Equal as a specification: ignores version, indexes, status and submit time.
    pub fn same_spec(&self, other: &Job) -> bool {
        let plain = |job: &Job| Job {
            status: String::new(),
            status_description: String::new(),
            stable: false,
            version: 0,
            create_index: 0,
            modify_index: 0,
            job_modify_index: 0,
            submit_time: 0,
            version_tag: None,
            purge: false,
            spec_digest: String::new(),
            ..job.clone()
        };
        plain(self) == plain(other)
    }

    /// Marks this value as accepted. Anything may `put` a job at its key; a value whose digest does not match
    /// its contents was written or edited by hand, and waits for the intake controller.
    pub fn seal(&mut self) {
        self.spec_digest = self.digest();
    }

    /// True if the value is as it was when it was sealed.
    pub fn is_sealed(&self) -> bool {
        !self.spec_digest.is_empty() && self.spec_digest == self.digest()
    }

    fn digest(&self) -> String {
        let stored = Job { spec_digest: String::new(), ..self.clone() };
        let bytes = serde_json::to_vec(&stored).expect("a job is plain data");
        hex::encode(&Sha256::digest(&bytes)[..16])
    }
}

/// When children are launched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PeriodicConfig {
    /// Absent means enabled.
    pub enabled: Option<bool>,
    pub spec: String,
    #[serde(with = "null")]
    pub specs: Vec<String>,
    /// `cron`.
    pub spec_type: String,
    pub prohibit_overlap: bool,
    pub time_zone: String,
}

/// What a dispatch must and may bring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ParameterizedConfig {
    /// `optional`, `required` or `forbidden`.
    pub payload: String,
    #[serde(with = "null")]
    pub meta_required: Vec<String>,
    #[serde(with = "null")]
    pub meta_optional: Vec<String>,
}

/// A name for a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VersionTag {
    pub name: String,
    pub description: String,
    pub tagged_time: i64,
}

/// What a controller remembers of a job beyond its allocations, at `status/<ns>/<job>`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct JobStatus {
    /// Why the newest value at the job's key is not being run; empty when it is.
    pub refused: String,
    /// The mod revision of the refused value.
    pub refused_revision: i64,
    /// Batch indexes that completed, per version and group: they never run again in that version.
    #[serde(with = "null")]
    pub completed: BTreeMap<String, Vec<u32>>,
    /// Versions proven healthy by their deployment.
    #[serde(with = "null")]
    pub stable_versions: Vec<u64>,
}
