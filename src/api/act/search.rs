//! Search by prefix, and by any part of a name.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use crate::api::Api;
use crate::api::call::Call;
use crate::api::error::ApiError;
use crate::api::read;
use crate::api::read::settings;
use crate::api::reply;
use crate::api::reply::Reply;
use crate::mirror::derive::BUILT_IN_POOLS;
use crate::mirror::state::State;
use crate::model::id::DEFAULT_NAMESPACE;
use crate::model::job::Job;

/// Matches per context.
const PREFIX_MATCHES_MAX: usize = 20;
const FUZZY_MATCHES_MAX: usize = 100;
/// Shorter texts match too much.
const FUZZY_TEXT_MIN: usize = 2;

const CONTEXTS: [&str; 11] = [
    "allocs",
    "jobs",
    "nodes",
    "node_pools",
    "evals",
    "deployment",
    "plugins",
    "volumes",
    "scaling_policy",
    "vars",
    "namespaces",
];

fn contexts(asked: &str) -> Result<Vec<&'static str>, ApiError> {
    if asked == "all" {
        return Ok(CONTEXTS.to_vec());
    }
    CONTEXTS.iter().find(|own| **own == asked).map(|own| vec![*own]).ok_or_else(|| {
        ApiError::internal(format!(
            "context must be one of [{}] or 'all' for all contexts; got {asked:?}",
            CONTEXTS.join(" ")
        ))
    })
}

pub(in crate::api) async fn prefix(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let fields = call.fields()?;
    let prefix = fields.text("Prefix")?;
    let contexts = contexts(fields.text("Context")?)?;
    if !call.is_stale()? {
        api.catch_up().await?;
    }
    let (revision, matches, truncations) = {
        let state = api.context.mirror.read();
        let mut matches = BTreeMap::new();
        let mut truncations = BTreeMap::new();
        for context in contexts {
            let Some(mut found) = with_prefix(&state, call, context, prefix) else { continue };
            truncations.insert(context, found.len() > PREFIX_MATCHES_MAX);
            found.truncate(PREFIX_MATCHES_MAX);
            matches.insert(context, (!found.is_empty()).then_some(found));
        }
        (state.revision, matches, truncations)
    };
    answer(api, call, revision, &matches, &truncations)
}

fn answer<M: Serialize>(
    api: &Api,
    call: &Call,
    revision: crate::store::Revision,
    matches: &M,
    truncations: &BTreeMap<&'static str, bool>,
) -> Result<Reply, ApiError> {
    let body = json!({
        "Matches": matches, "Truncations": truncations,
        "Index": revision, "LastContact": 0, "KnownLeader": api.knows_leader(), "NextToken": "",
    });
    Ok(read::read_headers(api, reply::json(call, &body)?, revision))
}

/// Ids in a context that begin with `prefix`, one more than are shown; `None` for ids that no such text can begin.
fn with_prefix(state: &State, call: &Call, context: &str, prefix: &str) -> Option<Vec<String>> {
    let lower = prefix.to_ascii_lowercase();
    let is_hex = lower.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    let limit = PREFIX_MATCHES_MAX + 1;
    let ids = |ids: &mut dyn Iterator<Item = String>, prefix: &str| -> Vec<String> {
        ids.filter(|id| id.starts_with(prefix)).take(limit).collect()
    };
    match context {
        "allocs" | "nodes" | "evals" | "deployment" if !is_hex => None,
        "allocs" => {
            let own = state.allocs.iter().filter(|(_, entry)| {
                entry.desired.as_ref().is_some_and(|desired| call.covers(&desired.value.namespace))
            });
            Some(ids(&mut own.map(|(id, _)| id.to_string()), &lower))
        }
        "nodes" => {
            let known = state.nodes.iter().filter(|(_, node)| node.info.is_some());
            Some(ids(&mut known.map(|(id, _)| id.to_string()), &lower))
        }
        "evals" => {
            let own = state.evaluation_jobs.iter().filter(|(_, job)| call.covers(&job.namespace));
            Some(ids(&mut own.map(|(id, _)| id.to_string()), &lower))
        }
        "deployment" => {
            let own = state.deployment_jobs.iter().filter(|(_, job)| call.covers(&job.namespace));
            Some(ids(&mut own.map(|(id, _)| id.to_string()), &lower))
        }
        "jobs" => {
            let own = state.jobs.keys().filter(|id| call.covers(&id.namespace));
            let seen = own.filter(|id| read::jobs::visible(state, id).is_some());
            Some(ids(&mut seen.map(|id| id.id.to_string()), prefix))
        }
        "node_pools" => {
            let built_in = BUILT_IN_POOLS.iter().map(|(name, _)| (*name).to_owned());
            Some(ids(&mut built_in.chain(state.pools.keys().cloned()), prefix))
        }
        "namespaces" => Some(ids(&mut namespaces(state), prefix)),
        "scaling_policy" => {
            let policies = settings::policies(state);
            let own = policies.iter().filter_map(|policy| policy["ID"].as_str().map(String::from));
            Some(ids(&mut { own }, &lower))
        }
        _ => Some(Vec::new()),
    }
}

fn namespaces(state: &State) -> impl Iterator<Item = String> {
    let others = state.namespaces.keys().filter(|name| *name != DEFAULT_NAMESPACE).cloned();
    std::iter::once(DEFAULT_NAMESPACE.to_owned()).chain(others)
}

/// A match by name, and where it belongs.
#[derive(Serialize)]
struct FuzzyMatch {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Scope", skip_serializing_if = "Vec::is_empty")]
    scope: Vec<String>,
}

pub(in crate::api) async fn fuzzy(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let fields = call.fields()?;
    let text = fields.text("Text")?.to_lowercase();
    if text.len() < FUZZY_TEXT_MIN {
        return Err(ApiError::internal(format!(
            "fuzzy search query must be at least {FUZZY_TEXT_MIN} characters, got {}",
            text.len()
        )));
    }
    let contexts = contexts(fields.text("Context")?)?;
    if !call.is_stale()? {
        api.catch_up().await?;
    }
    let (revision, matches, truncations) = {
        let state = api.context.mirror.read();
        let mut matches: BTreeMap<&'static str, Vec<FuzzyMatch>> = BTreeMap::new();
        let mut truncations = BTreeMap::new();
        let mut add = |context: &'static str, name: &str, scope: Vec<String>| {
            if name.to_lowercase().contains(&text) {
                matches.entry(context).or_default().push(FuzzyMatch { id: name.to_owned(), scope });
            }
        };
        for context in contexts {
            truncations.insert(context, false);
            names(&state, call, context, &mut add);
        }
        for (context, found) in &mut matches {
            found.sort_by_key(|one| (one.id.to_lowercase().find(&text), one.id.len()));
            truncations.insert(context, found.len() > FUZZY_MATCHES_MAX);
            found.truncate(FUZZY_MATCHES_MAX);
        }
        (state.revision, matches, truncations)
    };
    answer(api, call, revision, &matches, &truncations)
}

/// Hands every name of a context to `add`.
fn names(
    state: &State,
    call: &Call,
    context: &'static str,
    add: &mut impl FnMut(&'static str, &str, Vec<String>),
) {
    match context {
        "nodes" => {
            for (id, node) in &state.nodes {
                if let Some(info) = &node.info {
                    add("nodes", &info.value.name, vec![id.to_string()]);
                }
            }
        }
        "node_pools" => {
            let built_in = BUILT_IN_POOLS.iter().map(|(name, _)| *name);
            built_in
                .chain(state.pools.keys().map(String::as_str))
                .for_each(|name| add("node_pools", name, vec![name.to_owned()]));
        }
        "namespaces" => namespaces(state).for_each(|name| add("namespaces", &name, Vec::new())),
        "allocs" => {
            for (id, entry) in &state.allocs {
                if let Some(desired) = entry.desired.as_ref().filter(|d| call.covers(&d.value.namespace)) {
                    let scope = vec![desired.value.namespace.clone(), id.to_string()];
                    add("allocs", &desired.value.name(), scope);
                }
            }
        }
        "jobs" => {
            for (id, job) in
                state.all_jobs().filter(|(id, job)| call.covers(&id.namespace) && !job.value.purge)
            {
                job_names(&id.namespace, &job.value, add);
            }
        }
        _ => {}
    }
}

fn job_names(namespace: &str, job: &Job, add: &mut impl FnMut(&'static str, &str, Vec<String>)) {
    let own = vec![namespace.to_owned(), job.id.clone()];
    let within =
        |more: &[&str]| own.iter().cloned().chain(more.iter().map(|name| (*name).to_owned())).collect();
    add("jobs", &job.name, own.clone());
    for group in &job.task_groups {
        add("groups", &group.name, own.clone());
        for service in &group.services {
            add("services", &service.name, within(&[&group.name]));
        }
        for task in &group.tasks {
            add("tasks", &task.name, within(&[&group.name]));
            for service in &task.services {
                add("services", &service.name, within(&[&group.name, &task.name]));
            }
            for (key, context) in [("image", "images"), ("command", "commands"), ("class", "classes")] {
                if let Some(value) = task.config.get(key).and_then(serde_json::Value::as_str) {
                    add(context, value, within(&[&group.name, &task.name]));
                }
            }
        }
    }
}
