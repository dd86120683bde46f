//! Evaluations as Nomad shows them, with every key written so that filters and clients find it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::Serializer;

use super::index;
use super::text_of;
use crate::mirror::state::State;
use crate::mirror::state::Stored;
use crate::model::allocation::AllocMetric;
use crate::model::evaluation::DesiredUpdates;
use crate::model::evaluation::Evaluation;
use crate::model::time::Time;

/// An evaluation.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct EvaluationView {
    #[serde(rename = "ID")]
    pub id: String,
    pub namespace: String,
    pub priority: i64,
    #[serde(rename = "Type")]
    pub kind: String,
    pub triggered_by: String,
    #[serde(rename = "JobID")]
    pub job_id: String,
    pub job_modify_index: u64,
    #[serde(rename = "NodeID")]
    pub node_id: String,
    #[serde(rename = "DeploymentID")]
    pub deployment_id: String,
    pub status: &'static str,
    pub status_description: String,
    pub wait_until: Time,
    pub next_eval: String,
    pub previous_eval: String,
    pub blocked_eval: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub related_evals: Option<Vec<EvaluationStub>>,
    #[serde(rename = "FailedTGAllocs", serialize_with = "empty_as_null")]
    pub failed_groups: BTreeMap<String, AllocMetric>,
    /// Herder's own field: where allocations went and why.
    #[serde(rename = "PlacedTGAllocs", serialize_with = "empty_as_null")]
    pub placed_groups: BTreeMap<String, AllocMetric>,
    #[serde(serialize_with = "empty_as_null")]
    pub queued_allocations: BTreeMap<String, u64>,
    /// Herder's own field: what the pass did.
    #[serde(rename = "DesiredTGUpdates", serialize_with = "empty_as_null")]
    pub desired_updates: BTreeMap<String, DesiredUpdates>,
    /// What waits for capacity is woken by the capacity itself, so no classes are remembered.
    pub class_eligibility: Option<BTreeMap<String, bool>>,
    pub snapshot_index: u64,
    pub create_index: u64,
    pub modify_index: u64,
    pub create_time: i64,
    pub modify_time: i64,
}

/// An evaluation that another one refers to.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct EvaluationStub {
    #[serde(rename = "ID")]
    pub id: String,
    pub namespace: String,
    pub priority: i64,
    #[serde(rename = "Type")]
    pub kind: String,
    pub triggered_by: String,
    #[serde(rename = "JobID")]
    pub job_id: String,
    #[serde(rename = "NodeID")]
    pub node_id: String,
    #[serde(rename = "DeploymentID")]
    pub deployment_id: String,
    pub status: &'static str,
    pub status_description: String,
    pub wait_until: Time,
    pub next_eval: String,
    pub previous_eval: String,
    pub blocked_eval: String,
    pub create_index: u64,
    pub modify_index: u64,
    pub create_time: i64,
    pub modify_time: i64,
}

fn empty_as_null<V: Serialize, S: Serializer>(
    map: &BTreeMap<String, V>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    if map.is_empty() { serializer.serialize_none() } else { map.serialize(serializer) }
}

/// One evaluation.
pub fn evaluation(state: &State, stored: &Stored<Evaluation>) -> EvaluationView {
    let eval = &stored.value;
    let job = state.job(&eval.job());
    EvaluationView {
        id: eval.id.to_string(),
        namespace: eval.namespace.clone(),
        priority: eval.priority,
        kind: eval.kind.clone(),
        triggered_by: eval.triggered_by.clone(),
        job_id: eval.job_id.clone(),
        // The newest change of the job that the evaluation can have seen.
        job_modify_index: job.map_or(0, |job| index(job.modified.min(stored.modified))),
        node_id: text_of(eval.node_id.as_ref()),
        deployment_id: text_of(eval.deployment_id.as_ref()),
        status: eval.status.as_str(),
        status_description: eval.status_description.clone(),
        wait_until: eval.wait_until,
        next_eval: text_of(eval.next_eval.as_ref()),
        previous_eval: text_of(eval.previous_eval.as_ref()),
        blocked_eval: text_of(eval.blocked_eval.as_ref()),
        related_evals: None,
        failed_groups: eval.failed_groups.clone(),
        placed_groups: eval.placed_groups.clone(),
        queued_allocations: eval.queued_allocations.clone(),
        desired_updates: eval.desired_updates.clone(),
        class_eligibility: None,
        snapshot_index: eval.snapshot_index,
        create_index: index(stored.created),
        modify_index: index(stored.modified),
        create_time: eval.create_time,
        modify_time: eval.modify_time,
    }
}

/// The evaluations that `eval` is linked with, directly or through others.
pub fn related(state: &State, eval: &Evaluation) -> Vec<EvaluationStub> {
    let all = state.evaluations.get(&eval.job());
    let mut found = std::collections::BTreeSet::from([eval.id]);
    let mut open = vec![eval.id];
    while let (Some(all), Some(id)) = (all, open.pop()) {
        let links = |eval: &Evaluation| [eval.next_eval, eval.previous_eval, eval.blocked_eval];
        let out = all.get(&id).into_iter().flat_map(|eval| links(&eval.value)).flatten();
        let back =
            all.values().filter(|eval| links(&eval.value).contains(&Some(id))).map(|eval| eval.value.id);
        for next in out.chain(back) {
            if found.insert(next) {
                open.push(next);
            }
        }
    }
    found.remove(&eval.id);
    found.into_iter().filter_map(|id| Some(stub(all?.get(&id)?))).collect()
}

fn stub(stored: &Stored<Evaluation>) -> EvaluationStub {
    let eval = &stored.value;
    EvaluationStub {
        id: eval.id.to_string(),
        namespace: eval.namespace.clone(),
        priority: eval.priority,
        kind: eval.kind.clone(),
        triggered_by: eval.triggered_by.clone(),
        job_id: eval.job_id.clone(),
        node_id: text_of(eval.node_id.as_ref()),
        deployment_id: text_of(eval.deployment_id.as_ref()),
        status: eval.status.as_str(),
        status_description: eval.status_description.clone(),
        wait_until: eval.wait_until,
        next_eval: text_of(eval.next_eval.as_ref()),
        previous_eval: text_of(eval.previous_eval.as_ref()),
        blocked_eval: text_of(eval.blocked_eval.as_ref()),
        create_index: index(stored.created),
        modify_index: index(stored.modified),
        create_time: eval.create_time,
        modify_time: eval.modify_time,
    }
}
