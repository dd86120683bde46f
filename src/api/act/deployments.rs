//! Orders about deployments and single allocations.

use serde_json::json;

use crate::api::Api;
use crate::api::call::Call;
use crate::api::call::Fields;
use crate::api::error::ApiError;
use crate::api::intent::order;
use crate::api::intent::order::DeploymentOrder;
use crate::api::read::allocations;
use crate::api::reply;
use crate::api::reply::Reply;
use crate::api::views::index;
use crate::api::views::text_of;
use crate::model::id::AllocId;
use crate::model::id::DeploymentId;

fn parse_id(call: &Call) -> Result<DeploymentId, ApiError> {
    call.subject()
        .parse()
        .map_err(|_| ApiError::internal("deployment lookup failed: index error: UUID must be 36 characters"))
}

async fn carry_out(api: &Api, call: &Call, wanted: &DeploymentOrder) -> Result<Reply, ApiError> {
    let done = order::order(api, parse_id(call)?, wanted).await?;
    reply::written(
        call,
        done.index,
        &json!({
            "EvalID": text_of(done.eval.as_ref()), "EvalCreateIndex": index(done.index),
            "DeploymentModifyIndex": index(done.index), "RevertedJobVersion": done.reverted_version,
            "Index": index(done.index),
        }),
    )
}

fn checked(call: &Call) -> Result<Fields, ApiError> {
    let fields = call.fields()?;
    match fields.text("DeploymentID")? {
        "" => Err(ApiError::bad_request("DeploymentID must be specified")),
        id if id != call.subject() => Err(ApiError::bad_request("Deployment ID does not match")),
        _ => Ok(fields),
    }
}

pub(in crate::api) async fn fail(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    carry_out(api, call, &DeploymentOrder::Fail).await
}

pub(in crate::api) async fn pause(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let pause = checked(call)?.flag("Pause")?;
    carry_out(api, call, if pause { &DeploymentOrder::Pause } else { &DeploymentOrder::Resume }).await
}

pub(in crate::api) async fn promote(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let fields = checked(call)?;
    let groups = if fields.flag("All")? { None } else { Some(fields.texts("Groups")?) };
    carry_out(api, call, &DeploymentOrder::Promote(groups)).await
}

pub(in crate::api) async fn set_health(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let fields = checked(call)?;
    let ids = |name: &str| -> Result<Vec<AllocId>, ApiError> {
        let unknown = |id: &String| ApiError::internal(format!("unknown alloc {id:?}"));
        fields.texts(name)?.iter().map(|id| id.parse().map_err(|_| unknown(id))).collect()
    };
    let wanted = DeploymentOrder::SetHealth {
        healthy: ids("HealthyAllocationIDs")?,
        unhealthy: ids("UnhealthyAllocationIDs")?,
    };
    carry_out(api, call, &wanted).await
}

/// Only deployments over several regions are ever blocked, and there are none: nothing to do.
pub(in crate::api) async fn unblock(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    checked(call)?;
    api.catch_up().await?;
    if api.context.mirror.read().deployment(parse_id(call)?).is_none() {
        return Err(ApiError::internal("deployment not found"));
    }
    let nothing = json!({
        "EvalID": "", "EvalCreateIndex": 0, "DeploymentModifyIndex": 0, "RevertedJobVersion": null, "Index": 0,
    });
    reply::written(call, 0, &nothing)
}

pub(in crate::api) async fn stop_allocation(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let id = allocations::parse_id(call.subject())?;
    let done = order::stop_allocation(api, id, call.flag("no_shutdown_delay")?).await?;
    let body = json!({"EvalID": text_of(done.eval.as_ref()), "Index": index(done.index)});
    reply::written(call, done.index, &body)
}
