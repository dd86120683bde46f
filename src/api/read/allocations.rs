//! Allocations.

use serde_json::Value;

use super::Found;
use crate::api::View;
use crate::api::call::Call;
use crate::api::error::ApiError;
use crate::api::page::Order;
use crate::api::page::PageKey;
use crate::api::page::paginate;
use crate::api::page::value_of;
use crate::api::views;
use crate::api::views::allocation::JobViews;
use crate::api::views::allocation::StubOptions;
use crate::api::views::index;
use crate::mirror::state::AllocEntry;
use crate::mirror::state::Table;
use crate::model::id::AllocId;
use crate::store::Revision;

pub(in crate::api) fn list_index(view: &View<'_>, _: &Call) -> Revision {
    view.state.table(Table::Allocs)
}

/// The allocation's newest change; of a missing one that of all allocations.
pub(in crate::api) fn get_index(view: &View<'_>, call: &Call) -> Revision {
    let entry = call.subject().parse().ok().and_then(|id: AllocId| view.state.allocs.get(&id));
    entry.map_or_else(|| view.state.table(Table::Allocs), AllocEntry::modified)
}

/// Parses the id of an allocation with Nomad's error.
pub(in crate::api) fn parse_id(text: &str) -> Result<AllocId, ApiError> {
    text.parse()
        .map_err(|_| ApiError::internal("alloc lookup failed: index error: UUID must be 36 characters"))
}

pub(in crate::api) fn list(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let options = StubOptions {
        resources: call.flag("resources")?,
        task_states: call.optional_flag("task_states")?.unwrap_or(true),
    };
    lines(view, call, options, |_, _| true)
}

/// Allocation lines that pass `wanted`.
pub(in crate::api) fn lines(
    view: &View<'_>,
    call: &Call,
    options: StubOptions,
    wanted: impl Fn(AllocId, &AllocEntry) -> bool,
) -> Result<Found, ApiError> {
    let prefix = call.prefix().to_ascii_lowercase();
    let order = if prefix.is_empty() { Order::Creation } else { Order::Text };
    let items = view.state.allocs.iter().filter_map(|(id, entry)| {
        let desired = entry.desired.as_ref()?;
        let text = id.to_string();
        if !call.covers(&desired.value.namespace) || !text.starts_with(&prefix) || !wanted(*id, entry) {
            return None;
        }
        let key = match order {
            Order::Creation => PageKey::creation(index(desired.created), text),
            Order::Text => PageKey::text(text),
        };
        Some((key, (*id, entry)))
    });
    paginate(
        call,
        order,
        items.collect(),
        |(id, entry)| subject(view, *id, entry),
        |(id, entry)| views::allocation::stub(view.state, *id, entry, options),
    )
}

/// What a filter sees of an allocation: the whole of it.
fn subject(view: &View<'_>, id: AllocId, entry: &AllocEntry) -> Result<Value, ApiError> {
    value_of(&views::allocation::full(view.state, id, entry, &mut JobViews::default()))
}

pub(in crate::api) fn get(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let id = parse_id(call.subject())?;
    let entry = view.state.allocs.get(&id);
    let full = entry.and_then(|e| views::allocation::full(view.state, id, e, &mut JobViews::default()));
    full.map(Found::json).ok_or_else(|| ApiError::not_found("alloc not found"))
}

pub(in crate::api) fn services_index(view: &View<'_>, _: &Call) -> Revision {
    view.state.table(Table::Services)
}

pub(in crate::api) fn services(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let id = parse_id(call.subject())?;
    if view.state.allocs.get(&id).is_none_or(|entry| entry.desired.is_none()) {
        return Err(ApiError::not_found("allocation not found"));
    }
    let all = view.state.services.values().flat_map(std::collections::BTreeMap::values);
    let own = all.filter(|service| service.value.alloc_id == id);
    Ok(Found::json(own.map(views::service::service).collect::<Vec<_>>()))
}

/// Newest results of the checks of an allocation's services, or `null`.
pub(in crate::api) fn checks(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let id = parse_id(call.subject())?;
    if !view.state.allocs.contains_key(&id) {
        return Err(ApiError::not_found(format!("Unknown allocation \"{id}\"")));
    }
    let all = view.state.services.values().flat_map(std::collections::BTreeMap::values);
    let own = all.filter(|service| service.value.alloc_id == id);
    let checks: std::collections::BTreeMap<_, _> =
        own.flat_map(|service| service.value.checks.clone()).collect();
    Ok(Found::json((!checks.is_empty()).then_some(checks)))
}
