//! Evaluations.

use std::collections::BTreeMap;

use serde_json::json;

use super::Found;
use crate::api::View;
use crate::api::call::Call;
use crate::api::error::ApiError;
use crate::api::filter::Filter;
use crate::api::page::Order;
use crate::api::page::PageKey;
use crate::api::page::paginate;
use crate::api::page::value_of;
use crate::api::views;
use crate::api::views::allocation::StubOptions;
use crate::api::views::index;
use crate::mirror::state::Stored;
use crate::mirror::state::Table;
use crate::model::evaluation::Evaluation;
use crate::model::id::EvalId;
use crate::store::Revision;

pub(in crate::api) fn list_index(view: &View<'_>, _: &Call) -> Revision {
    view.state.table(Table::Evaluations)
}

/// The evaluation's newest change; of a missing one that of all evaluations.
pub(in crate::api) fn get_index(view: &View<'_>, call: &Call) -> Revision {
    let eval = call.subject().parse().ok().and_then(|id: EvalId| view.state.evaluation(id));
    eval.map_or_else(|| view.state.table(Table::Evaluations), |eval| eval.modified)
}

fn parse_id(text: &str) -> Result<EvalId, ApiError> {
    text.parse().map_err(|_| {
        ApiError::internal(
            "failed to lookup eval: eval lookup failed: index error: UUID must be 36 characters",
        )
    })
}

fn all<'a>(view: &'a View<'_>, call: &'a Call) -> impl Iterator<Item = &'a Stored<Evaluation>> {
    let evals = view.state.evaluations.values().flat_map(BTreeMap::values);
    evals.filter(|eval| call.covers(&eval.value.namespace))
}

pub(in crate::api) fn list(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let (job, status) = (call.text("job"), call.text("status"));
    if call.text("filter").is_some() && (job.is_some() || status.is_some()) {
        return Err(ApiError::bad_request("Filter expression cannot be used with other filter parameters"));
    }
    let prefix = call.prefix().to_ascii_lowercase();
    let order = if prefix.is_empty() { Order::Creation } else { Order::Text };
    let items = all(view, call)
        .filter(|eval| job.is_none_or(|job| eval.value.job_id == job))
        .filter(|eval| status.is_none_or(|status| eval.value.status.as_str() == status))
        .filter(|eval| eval.value.id.to_string().starts_with(&prefix))
        .map(|eval| match order {
            Order::Creation => (PageKey::creation(index(eval.created), eval.value.id), eval),
            Order::Text => (PageKey::text(eval.value.id.to_string()), eval),
        });
    paginate(
        call,
        order,
        items.collect(),
        |eval| value_of(&views::evaluation::evaluation(view.state, eval)),
        |eval| Some(views::evaluation::evaluation(view.state, eval)),
    )
}

pub(in crate::api) fn count(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let filter = Filter::of(call)?;
    let mut count = 0;
    for eval in all(view, call).filter(|eval| eval.value.id.to_string().starts_with(call.prefix())) {
        let is_counted = match &filter {
            Some(filter) => filter.matches(&value_of(&views::evaluation::evaluation(view.state, eval))?)?,
            None => true,
        };
        count += u64::from(is_counted);
    }
    Ok(Found::json(json!({
        "Count": count, "Index": list_index(view, call), "LastContact": 0,
        "KnownLeader": view.state.leaders.contains_key("scheduler"), "NextToken": "",
    })))
}

pub(in crate::api) fn get(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let id = parse_id(call.subject())?;
    let eval = view.state.evaluation(id).ok_or_else(|| ApiError::not_found("eval not found"))?;
    let mut shown = views::evaluation::evaluation(view.state, eval);
    if call.flag("related")? {
        shown.related_evals = Some(views::evaluation::related(view.state, &eval.value));
    }
    Ok(Found::json(shown))
}

/// The allocations that a pass made or touched last.
pub(in crate::api) fn allocations(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let id = parse_id(call.subject())?;
    let options = StubOptions { resources: false, task_states: true };
    let job = view.state.evaluation_jobs.get(&id);
    let allocs = job.into_iter().flat_map(|job| view.state.allocs_of_job(job));
    let own = allocs.filter(|(_, e)| e.desired.as_ref().is_some_and(|desired| desired.value.eval_id == id));
    let stubs = own.filter_map(|(alloc, entry)| views::allocation::stub(view.state, alloc, entry, options));
    Ok(Found::json(stubs.collect::<Vec<_>>()))
}

/// Index of an evaluation's allocations: that of its job, so that other jobs do not wake the caller.
pub(in crate::api) fn allocations_index(view: &View<'_>, call: &Call) -> Revision {
    let job = call.subject().parse().ok().and_then(|id: EvalId| view.state.evaluation_jobs.get(&id));
    job.map_or_else(|| view.state.table(Table::Allocs), |job| view.api.changes.of(job))
}
