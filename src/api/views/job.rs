//! Jobs as Nomad shows them: one job, a line of a list, its summary.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::index;
use crate::mirror::derive::ChildrenSummary;
use crate::mirror::derive::DECLARED_STABLE;
use crate::mirror::derive::GroupSummary;
use crate::mirror::derive::REFUSED;
use crate::mirror::derive::children_summary;
use crate::mirror::derive::is_stable;
use crate::mirror::derive::job_state;
use crate::mirror::derive::job_summary;
use crate::mirror::derive::newest_change;
use crate::mirror::derive::refused;
use crate::mirror::state::State;
use crate::mirror::state::Stored;
use crate::model::group::UpdateStrategy;
use crate::model::id::JobId;
use crate::model::job::Job;
use crate::model::wire::is_default;

/// A job with its indexes and everything derived. Also right for older versions.
pub fn job(state: &State, id: &JobId, stored: &Stored<Job>) -> Job {
    let key = state.jobs.get(id);
    let created = key.and_then(|entry| {
        let current = entry.current.as_ref().map(|current| current.created);
        current.or_else(|| entry.raw.as_ref().map(|raw| raw.created))
    });
    let mut job = (*stored.value).clone();
    job.status = job_state(state, id, &job).as_str().to_owned();
    job.stable = job.stable || is_stable(state, id, job.version);
    job.create_index = match job.create_index {
        0 => index(created.unwrap_or(stored.created)),
        kept => kept,
    };
    // An older version carries the index that it had while it was current.
    if job.job_modify_index == 0 {
        job.job_modify_index = index(stored.modified);
    }
    job.modify_index = job.job_modify_index;
    let copy = state.versions.get(id).and_then(|versions| versions.get(&job.version));
    if let Some(tag) = copy.and_then(|copy| copy.value.version_tag.clone()) {
        job.version_tag = Some(tag);
    }
    job.unknown.remove(DECLARED_STABLE);
    let is_current = state.job(id).is_some_and(|current| current.value.version == job.version);
    if let Some(why) = refused(state, id).filter(|_| is_current) {
        job.unknown.insert(REFUSED.to_owned(), why.into());
    }
    job.update.get_or_insert_with(UpdateStrategy::default);
    job.consul_token.clear();
    job.vault_token.clear();
    job.spec_digest.clear();
    job.purge = false;
    job
}

/// A line of a job list.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct JobListStub {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "ParentID")]
    pub parent_id: String,
    pub name: String,
    pub namespace: String,
    pub datacenters: Vec<String>,
    pub node_pool: String,
    pub multiregion: Option<Value>,
    #[serde(rename = "Type")]
    pub kind: String,
    pub priority: i64,
    pub periodic: bool,
    pub parameterized_job: bool,
    pub stop: bool,
    pub status: &'static str,
    pub status_description: String,
    pub job_summary: JobSummary,
    pub create_index: u64,
    pub modify_index: u64,
    pub job_modify_index: u64,
    pub submit_time: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub meta: BTreeMap<String, String>,
    /// Herder's own field: the version that is current.
    pub version: u64,
}

/// The line of one job; `with_meta` adds its metadata.
pub fn list_stub(state: &State, id: &JobId, stored: &Stored<Job>, with_meta: bool) -> JobListStub {
    let job = &stored.value;
    JobListStub {
        id: job.id.clone(),
        parent_id: job.parent_id.clone(),
        name: job.name.clone(),
        namespace: id.namespace.to_string(),
        datacenters: job.datacenters.clone(),
        node_pool: job.node_pool.clone(),
        multiregion: job.multiregion.clone(),
        kind: job.kind.clone(),
        priority: job.priority,
        periodic: job.periodic.is_some(),
        parameterized_job: job.parameterized.is_some(),
        stop: job.stop,
        status: job_state(state, id, job).as_str(),
        status_description: job.status_description.clone(),
        job_summary: summary(state, id, stored),
        create_index: index(stored.created),
        modify_index: index(stored.modified),
        job_modify_index: index(stored.modified),
        submit_time: job.submit_time,
        meta: if with_meta { job.meta.clone() } else { BTreeMap::new() },
        version: job.version,
    }
}

/// Allocations per group by status, and children by state.
#[derive(Clone, Debug, Serialize)]
pub struct JobSummary {
    #[serde(rename = "JobID")]
    pub job_id: String,
    #[serde(rename = "Namespace")]
    pub namespace: String,
    #[serde(rename = "Summary")]
    pub summary: BTreeMap<String, GroupSummary>,
    /// Only of templates.
    #[serde(rename = "Children")]
    pub children: Option<ChildrenSummary>,
    #[serde(rename = "CreateIndex")]
    pub create_index: u64,
    #[serde(rename = "ModifyIndex")]
    pub modify_index: u64,
}

/// The summary of one job.
pub fn summary(state: &State, id: &JobId, stored: &Stored<Job>) -> JobSummary {
    JobSummary {
        job_id: id.id.to_string(),
        namespace: id.namespace.to_string(),
        summary: job_summary(state, id, stored),
        children: stored.value.is_template().then(|| children_summary(state, id)),
        create_index: index(stored.created),
        modify_index: index(newest_change(state, id)),
    }
}

/// How far each group of a job is from what is wanted.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct JobScaleStatus {
    #[serde(rename = "JobID")]
    pub job_id: String,
    pub namespace: String,
    pub job_create_index: u64,
    pub job_modify_index: u64,
    pub job_stopped: bool,
    pub task_groups: BTreeMap<String, GroupScaleStatus>,
}

/// Counts of one group, with its scaling events, newest first.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GroupScaleStatus {
    pub desired: i64,
    pub placed: u64,
    pub running: u64,
    pub healthy: u64,
    pub unhealthy: u64,
    pub events: Vec<Value>,
}
