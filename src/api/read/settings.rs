//! Namespaces, scheduler configuration, scaling policies.

use serde_json::Value;
use serde_json::json;

use super::Found;
use crate::api::View;
use crate::api::call::Call;
use crate::api::error::ApiError;
use crate::api::views::index;
use crate::mirror::state::State;
use crate::mirror::state::Table;
use crate::model::id::DEFAULT_NAMESPACE;
use crate::store::Revision;

/// Name of the configuration that the scheduler follows.
pub(in crate::api) const SCHEDULER: &str = "scheduler";

pub(in crate::api) fn config_index(view: &View<'_>, _: &Call) -> Revision {
    view.state.table(Table::Config)
}

/// A namespace as shown; `None` if there is none with this name.
pub(in crate::api) fn namespace(state: &State, name: &str) -> Option<Value> {
    let stored = state.namespaces.get(name);
    if stored.is_none() && name != DEFAULT_NAMESPACE {
        return None;
    }
    let field = |key: &str| stored.and_then(|namespace| namespace.value.get(key).cloned());
    let described = if name == DEFAULT_NAMESPACE { "Default shared namespace" } else { "" };
    Some(json!({
        "Name": name,
        "Description": field("Description").unwrap_or_else(|| described.into()),
        "Quota": field("Quota").unwrap_or_else(|| "".into()),
        "Capabilities": field("Capabilities"),
        "NodePoolConfiguration": field("NodePoolConfiguration"),
        "VaultConfiguration": field("VaultConfiguration"),
        "ConsulConfiguration": field("ConsulConfiguration"),
        "Meta": field("Meta"),
        "Hash": "",
        "CreateIndex": stored.map_or(1, |namespace| index(namespace.created)),
        "ModifyIndex": stored.map_or(1, |namespace| index(namespace.modified)),
    }))
}

pub(in crate::api) fn namespaces(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let mut names: std::collections::BTreeSet<&str> =
        view.state.namespaces.keys().map(String::as_str).collect();
    names.insert(DEFAULT_NAMESPACE);
    let names = names.into_iter().filter(|name| name.starts_with(call.prefix()));
    Ok(Found::json(names.filter_map(|name| namespace(view.state, name)).collect::<Vec<_>>()))
}

pub(in crate::api) fn get_namespace(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let found = namespace(view.state, call.subject());
    found.map(Found::json).ok_or_else(|| ApiError::not_found("Namespace not found"))
}

/// The scheduler's configuration with its indexes; defaults until somebody sets one.
pub(in crate::api) fn scheduler_config(state: &State) -> Value {
    let mut config = json!({
        "SchedulerAlgorithm": "binpack",
        "PreemptionConfig": {
            "SystemSchedulerEnabled": true, "SysBatchSchedulerEnabled": false,
            "BatchSchedulerEnabled": false, "ServiceSchedulerEnabled": false,
        },
        "MemoryOversubscriptionEnabled": false,
        "RejectJobRegistration": false,
        "PauseEvalBroker": false,
        "CreateIndex": 1,
        "ModifyIndex": 1,
    });
    if let Some(stored) = state.configs.get(SCHEDULER) {
        if let Some(fields) = stored.value.as_object() {
            for (key, value) in fields {
                config[key] = value.clone();
            }
        }
        config["CreateIndex"] = json!(stored.created);
        config["ModifyIndex"] = json!(stored.modified);
    }
    config
}

pub(in crate::api) fn scheduler(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    Ok(Found::json(json!({
        "SchedulerConfig": scheduler_config(view.state),
        "Index": config_index(view, call), "LastContact": 0,
        "KnownLeader": view.state.leaders.contains_key("scheduler"), "NextToken": "",
    })))
}

pub(in crate::api) fn policies_index(view: &View<'_>, _: &Call) -> Revision {
    view.state.table(Table::Jobs)
}

/// The scaling policies of all groups. Their id is made of what they are for, so that it needs no storage.
pub(in crate::api) fn policies(state: &State) -> Vec<Value> {
    let mut found = Vec::new();
    for (id, job) in state.all_jobs().filter(|(_, job)| !job.value.purge) {
        for group in &job.value.task_groups {
            let Some(policy) = &group.scaling else { continue };
            let target = json!({"Namespace": &*id.namespace, "Job": &*id.id, "Group": group.name});
            found.push(json!({
                "ID": policy_id(&id.namespace, &id.id, &group.name),
                "Type": policy.get("Type").and_then(Value::as_str).filter(|t| !t.is_empty()).unwrap_or("horizontal"),
                "Target": target,
                "Policy": policy.get("Policy"),
                "Min": policy.get("Min"),
                "Max": policy.get("Max"),
                "Enabled": policy.get("Enabled").and_then(Value::as_bool).unwrap_or(true),
                "CreateIndex": job.created,
                "ModifyIndex": job.modified,
            }));
        }
    }
    found
}

fn policy_id(namespace: &str, job: &str, group: &str) -> String {
    use sha2::Digest;
    let digest: [u8; 32] = sha2::Sha256::digest(format!("{namespace}\0{job}\0{group}")).into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

pub(in crate::api) fn list_policies(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let text = |policy: &Value, key: &str| policy["Target"][key].as_str().unwrap_or_default().to_owned();
    let is_wanted = |policy: &Value| {
        call.covers(&text(policy, "Namespace"))
            && call.text("job").is_none_or(|job| text(policy, "Job") == job)
            && call.text("type").is_none_or(|kind| policy["Type"] == kind)
            && policy["ID"].as_str().is_some_and(|id| id.starts_with(call.prefix()))
    };
    let stubs = policies(view.state).into_iter().filter(is_wanted).map(|policy| {
        let keys = ["ID", "Enabled", "Type", "Target", "CreateIndex", "ModifyIndex"];
        Value::Object(keys.into_iter().map(|key| (key.to_owned(), policy[key].clone())).collect())
    });
    Ok(Found::json(stubs.collect::<Vec<_>>()))
}

pub(in crate::api) fn get_policy(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let found = policies(view.state).into_iter().find(|policy| policy["ID"] == call.subject());
    found.map(Found::json).ok_or_else(|| ApiError::not_found("policy not found"))
}

/// A list that is always empty here: what it would hold cannot be made.
pub(in crate::api) fn nothing(_: &View<'_>, _: &Call) -> Result<Found, ApiError> {
    Ok(Found::json(Vec::<Value>::new()))
}
