//! Deployments as Nomad shows them, with counters derived from their allocations.

use std::collections::BTreeMap;

use serde::Serialize;

use super::index;
use crate::mirror::derive::deployment_counts;
use crate::mirror::state::State;
use crate::mirror::state::Stored;
use crate::model::deployment::Deployment;
use crate::model::id::AllocId;
use crate::model::time::Span;
use crate::model::time::Time;

/// A deployment.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeploymentView {
    #[serde(rename = "ID")]
    pub id: String,
    pub namespace: String,
    #[serde(rename = "JobID")]
    pub job_id: String,
    pub job_version: u64,
    pub job_modify_index: u64,
    pub job_spec_modify_index: u64,
    pub job_create_index: u64,
    pub is_multiregion: bool,
    pub task_groups: BTreeMap<String, GroupRolloutView>,
    pub status: &'static str,
    pub status_description: String,
    pub eval_priority: i64,
    pub create_index: u64,
    pub modify_index: u64,
    pub create_time: i64,
    pub modify_time: i64,
}

/// Rollout of one group.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GroupRolloutView {
    pub auto_revert: bool,
    pub auto_promote: bool,
    pub progress_deadline: Span,
    pub require_progress_by: Time,
    pub promoted: bool,
    pub placed_canaries: Option<Vec<AllocId>>,
    pub desired_canaries: u64,
    pub desired_total: u64,
    pub placed_allocs: u64,
    pub healthy_allocs: u64,
    pub unhealthy_allocs: u64,
}

/// One deployment.
pub fn deployment(state: &State, stored: &Stored<Deployment>) -> DeploymentView {
    let deployment = &stored.value;
    let counts = deployment_counts(state, deployment);
    let groups = deployment.task_groups.iter().map(|(name, rollout)| {
        let counts = counts.get(name).copied().unwrap_or_default();
        let canaries = &rollout.placed_canaries;
        let view = GroupRolloutView {
            auto_revert: rollout.auto_revert,
            auto_promote: rollout.auto_promote,
            progress_deadline: rollout.progress_deadline,
            require_progress_by: rollout.require_progress_by,
            promoted: rollout.promoted,
            placed_canaries: (!canaries.is_empty()).then(|| canaries.clone()),
            desired_canaries: rollout.desired_canaries,
            desired_total: rollout.desired_total,
            placed_allocs: counts.placed,
            healthy_allocs: counts.healthy,
            unhealthy_allocs: counts.unhealthy,
        };
        (name.clone(), view)
    });
    DeploymentView {
        id: deployment.id.to_string(),
        namespace: deployment.namespace.clone(),
        job_id: deployment.job_id.clone(),
        job_version: deployment.job_version,
        job_modify_index: deployment.job_modify_index,
        job_spec_modify_index: deployment.job_modify_index,
        job_create_index: deployment.job_create_index,
        is_multiregion: false,
        task_groups: groups.collect(),
        status: deployment.status.as_str(),
        status_description: deployment.status_description.clone(),
        eval_priority: deployment.eval_priority,
        create_index: index(stored.created),
        modify_index: index(stored.modified),
        create_time: deployment.create_time,
        modify_time: deployment.modify_time,
    }
}
