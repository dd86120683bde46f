//! Deployments.

use std::collections::BTreeMap;

use super::Found;
use crate::api::View;
use crate::api::call::Call;
use crate::api::error::ApiError;
use crate::api::page::Order;
use crate::api::page::PageKey;
use crate::api::page::paginate;
use crate::api::page::value_of;
use crate::api::views;
use crate::api::views::allocation::StubOptions;
use crate::api::views::index;
use crate::mirror::state::Table;
use crate::model::id::DeploymentId;
use crate::store::Revision;

/// Index of deployment lists: their counters come from allocations.
pub(in crate::api) fn list_index(view: &View<'_>, _: &Call) -> Revision {
    view.state.table(Table::Deployments).max(view.state.table(Table::Allocs))
}

/// Index of one deployment: that of its job, since its counters come from the job's allocations.
pub(in crate::api) fn get_index(view: &View<'_>, call: &Call) -> Revision {
    let job = call.subject().parse().ok().and_then(|id: DeploymentId| view.state.deployment_jobs.get(&id));
    job.map_or_else(|| view.state.table(Table::Deployments), |job| view.api.changes.of(job))
}

pub(in crate::api) fn list(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let prefix = call.prefix().to_ascii_lowercase();
    let order = if prefix.is_empty() { Order::Creation } else { Order::Text };
    let all = view.state.deployments.values().flat_map(BTreeMap::values);
    let items = all
        .filter(|deployment| call.covers(&deployment.value.namespace))
        .filter(|deployment| deployment.value.id.to_string().starts_with(&prefix))
        .map(|deployment| match order {
            Order::Creation => {
                (PageKey::creation(index(deployment.created), deployment.value.id), deployment)
            }
            Order::Text => (PageKey::text(deployment.value.id.to_string()), deployment),
        });
    paginate(
        call,
        order,
        items.collect(),
        |deployment| value_of(&views::deployment::deployment(view.state, deployment)),
        |deployment| Some(views::deployment::deployment(view.state, deployment)),
    )
}

pub(in crate::api) fn get(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    if call.subject().is_empty() {
        return Err(ApiError::internal("missing deployment ID"));
    }
    let id: DeploymentId = call.subject().parse().map_err(|_| {
        ApiError::internal("deployment lookup failed: index error: UUID must be 36 characters")
    })?;
    let found = view.state.deployment(id).ok_or_else(|| ApiError::not_found("deployment not found"))?;
    Ok(Found::json(views::deployment::deployment(view.state, found)))
}

pub(in crate::api) fn allocations(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let id: DeploymentId =
        call.subject().parse().map_err(|_| ApiError::internal("index error: UUID must be 36 characters"))?;
    let options = StubOptions { resources: false, task_states: true };
    let allocs =
        view.state.deployment_jobs.get(&id).into_iter().flat_map(|job| view.state.allocs_of_job(job));
    let own =
        allocs.filter(|(_, entry)| entry.desired.as_ref().is_some_and(|d| d.value.deployment_id == Some(id)));
    let stubs = own.filter_map(|(alloc, entry)| views::allocation::stub(view.state, alloc, entry, options));
    Ok(Found::json(stubs.collect::<Vec<_>>()))
}
