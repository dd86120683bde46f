//! Orders about nodes.

use serde_json::Value;
use serde_json::json;

use crate::api::Api;
use crate::api::call::Call;
use crate::api::call::Fields;
use crate::api::error::ApiError;
use crate::api::intent::order;
use crate::api::intent::order::Drain;
use crate::api::read::nodes;
use crate::api::reply;
use crate::api::reply::Reply;
use crate::api::views::index;
use crate::model::id::EvalId;
use crate::model::node::Eligibility;
use crate::model::time::Span;
use crate::store::Revision;

pub(in crate::api) async fn eligibility(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let fields = call.fields()?;
    let named = fields.text("NodeID")?;
    let id = nodes::parse_id(if named.is_empty() { call.subject() } else { named })?;
    let wanted = match fields.text("Eligibility")? {
        "eligible" => Eligibility::Eligible,
        "ineligible" => Eligibility::Ineligible,
        other => {
            return Err(ApiError::internal(format!("invalid scheduling eligibility {other:?}")));
        }
    };
    let revision = order::set_eligibility(api, id, wanted).await?;
    // A node that becomes eligible wakes what waits for capacity; those passes write their own evaluations.
    reply::written(call, revision, &node_written(revision))
}

fn node_written(revision: Revision) -> Value {
    json!({
        "NodeModifyIndex": index(revision), "EvalIDs": null, "EvalCreateIndex": 0, "Index": index(revision),
    })
}

pub(in crate::api) async fn drain(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let id = nodes::parse_id(call.subject())?;
    let fields = call.fields()?;
    let spec = fields.get("DrainSpec").cloned().map(Fields::of);
    let wanted = match spec {
        None => None,
        Some(spec) => Some(Drain {
            deadline: Span(spec.integer("Deadline")?.unwrap_or(0)),
            ignore_system_jobs: spec.flag("IgnoreSystemJobs")?,
        }),
    };
    let meta = fields.get("Meta").cloned().unwrap_or_default();
    let revision = order::drain(api, id, wanted.as_ref(), fields.flag("MarkEligible")?, &meta).await?;
    reply::written(call, revision, &node_written(revision))
}

fn updated(api: &Api, call: &Call, revision: Revision, evals: &[EvalId]) -> Result<Reply, ApiError> {
    let nodes = api.context.mirror.read().nodes.values().filter(|node| node.info.is_some()).count();
    reply::written(
        call,
        revision,
        &json!({
            "HeartbeatTTL": 0, "EvalIDs": if evals.is_empty() { Value::Null } else { json!(evals) },
            "EvalCreateIndex": if evals.is_empty() { 0 } else { index(revision) },
            "NodeModifyIndex": index(revision), "Features": 0, "LeaderRPCAddr": "", "NumNodes": nodes,
            "Servers": null, "SchedulingEligibility": "",
            "Index": index(revision), "LastContact": 0, "KnownLeader": false, "NextToken": "",
        }),
    )
}

pub(in crate::api) async fn purge(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let (revision, evals) = order::purge_node(api, nodes::parse_id(call.subject())?).await?;
    updated(api, call, revision, &evals)
}

pub(in crate::api) async fn evaluate(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let (revision, evals) = order::evaluate_node(api, nodes::parse_id(call.subject())?).await?;
    updated(api, call, revision, &evals)
}
