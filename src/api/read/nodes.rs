//! Nodes and node pools.

use serde_json::Value;
use serde_json::json;

use super::Found;
use super::jobs;
use crate::api::View;
use crate::api::call::Call;
use crate::api::error::ApiError;
use crate::api::page::Order;
use crate::api::page::PageKey;
use crate::api::page::paginate;
use crate::api::page::value_of;
use crate::api::views;
use crate::api::views::allocation::JobViews;
use crate::api::views::index;
use crate::api::views::node::StubOptions;
use crate::mirror::derive::BUILT_IN_POOLS;
use crate::mirror::state::AllocEntry;
use crate::mirror::state::NodeEntry;
use crate::mirror::state::State;
use crate::mirror::state::Table;
use crate::model::id::NodeId;
use crate::store::Revision;

pub(in crate::api) fn list_index(view: &View<'_>, _: &Call) -> Revision {
    view.state.table(Table::Nodes)
}

/// The node's newest change; of a missing one that of all nodes.
pub(in crate::api) fn get_index(view: &View<'_>, call: &Call) -> Revision {
    let entry = call.subject().parse().ok().and_then(|id: NodeId| view.state.nodes.get(&id));
    entry.map_or_else(|| view.state.table(Table::Nodes), |entry| entry.indexes().1)
}

/// Newest change of anything on the node.
pub(in crate::api) fn allocations_index(view: &View<'_>, call: &Call) -> Revision {
    let Ok(id) = call.subject().parse::<NodeId>() else { return view.state.table(Table::Allocs) };
    let newest = view.state.allocs_of_node(id).map(|(_, entry)| entry.modified()).max();
    newest.unwrap_or(0).max(get_index(view, call))
}

/// Parses the id of a node with Nomad's error.
pub(in crate::api) fn parse_id(text: &str) -> Result<NodeId, ApiError> {
    if text.is_empty() {
        return Err(ApiError::internal("missing node ID"));
    }
    text.parse()
        .map_err(|_| ApiError::internal("node lookup failed: index error: UUID must be 36 characters"))
}

pub(in crate::api) fn list(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    lines(view, call, |_| true)
}

fn lines(view: &View<'_>, call: &Call, wanted: impl Fn(&NodeEntry) -> bool) -> Result<Found, ApiError> {
    let flag = |name: &str| {
        call.flag(name).map_err(|error| {
            ApiError::bad_request(format!("Failed to parse node list fields: {}", error.text()))
        })
    };
    let options = StubOptions { resources: flag("resources")?, os: flag("os")? };
    let prefix = call.prefix().to_ascii_lowercase();
    let nodes =
        view.state.nodes.iter().filter(|(id, entry)| {
            entry.info.is_some() && id.to_string().starts_with(&prefix) && wanted(entry)
        });
    let items = nodes.map(|(id, entry)| (PageKey::text(id.to_string()), (*id, entry))).collect();
    paginate(
        call,
        Order::Text,
        items,
        |(id, entry)| value_of(&views::node::full(*id, entry)),
        |(id, entry)| views::node::stub(*id, entry, options),
    )
}

pub(in crate::api) fn get(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let id = parse_id(call.subject())?;
    let node = view.state.nodes.get(&id).and_then(|entry| views::node::full(id, entry));
    node.map(Found::json).ok_or_else(|| ApiError::not_found("node not found"))
}

/// Full allocations of a node, each with its job.
pub(in crate::api) fn allocations(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let id = parse_id(call.subject())?;
    let mut jobs = JobViews::default();
    let mut full: Vec<_> = view
        .state
        .allocs_of_node(id)
        .filter_map(|(alloc, entry): (_, &AllocEntry)| {
            views::allocation::full(view.state, alloc, entry, &mut jobs)
        })
        .collect();
    full.sort_by(|a, b| (a.stub.create_index, &a.stub.id).cmp(&(b.stub.create_index, &b.stub.id)));
    Ok(Found::json(full))
}

pub(in crate::api) fn pools_index(view: &View<'_>, _: &Call) -> Revision {
    view.state.table(Table::Config)
}

/// A pool as shown; `None` if there is no such pool.
pub(in crate::api) fn pool(state: &State, name: &str) -> Option<Value> {
    let built_in = BUILT_IN_POOLS.iter().find(|(own, _)| *own == name).map(|(_, description)| *description);
    let stored = state.pools.get(name);
    if built_in.is_none() && stored.is_none() {
        return None;
    }
    let text = |key: &str| stored.and_then(|pool| pool.value.get(key)?.as_str().map(String::from));
    Some(json!({
        "Name": name,
        "Description": built_in.map(String::from).or_else(|| text("Description")).unwrap_or_default(),
        "Meta": stored.and_then(|pool| pool.value.get("Meta").cloned()),
        "SchedulerConfiguration": stored.and_then(|pool| pool.value.get("SchedulerConfiguration").cloned()),
        "Hash": null,
        "CreateIndex": stored.map_or(1, |pool| index(pool.created)),
        "ModifyIndex": stored.map_or(1, |pool| index(pool.modified)),
    }))
}

pub(in crate::api) fn pools(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let built_in = BUILT_IN_POOLS.iter().map(|(name, _)| (*name).to_owned());
    let names: std::collections::BTreeSet<String> =
        built_in.chain(view.state.pools.keys().cloned()).collect();
    let items = names.into_iter().filter(|name| name.starts_with(call.prefix()));
    let items = items.filter_map(|name| Some((PageKey::text(name.clone()), pool(view.state, &name)?)));
    paginate(call, Order::Text, items.collect(), |pool| Ok(pool.clone()), |pool| Some(pool.clone()))
}

pub(in crate::api) fn get_pool(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let found = pool(view.state, call.subject());
    found.map(Found::json).ok_or_else(|| ApiError::not_found("node pool not found"))
}

pub(in crate::api) fn pool_nodes(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    if call.text("prefix").is_some() {
        return Err(ApiError::bad_request("prefix argument not allowed"));
    }
    let name = call.subject();
    let is_member = |entry: &NodeEntry| {
        name == "all" || entry.info.as_ref().is_some_and(|info| info.value.node_pool == name)
    };
    lines(view, call, is_member)
}

pub(in crate::api) fn pool_jobs(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    if call.text("prefix").is_some() {
        return Err(ApiError::bad_request("prefix argument not allowed"));
    }
    jobs::lines(view, call, |job| job.node_pool == call.subject())
}
