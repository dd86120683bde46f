//! The job of a file in the form of the API, before a server has seen it.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::model::job::Job;

use super::Defaults;
use super::Parsed;
use super::canonicalize;
use super::json;

/// What the file says; `null` elsewhere. Only what reading itself fills in is there: texts and flags that cannot be unset,
/// and the defaults of templates and of Vault.
pub(super) fn as_written(parsed: &Parsed) -> Value {
    let mut value = json::with_nulls(&json::normalize(parsed.raw.clone()));
    fill(&mut value, &json!({"Dispatched": false}));
    let groups = parsed.job.task_groups.iter().zip(items(&mut value, "TaskGroups"));
    for (group, value) in groups {
        for (task, value) in group.tasks.iter().zip(items(value, "Tasks")) {
            let unset =
                json!({"User": "", "KillSignal": "", "Kind": "", "Leader": false, "ShutdownDelay": 0});
            fill(value, &unset);
            if !task.templates.is_empty() {
                value["Templates"] = serde_json::to_value(&task.templates).unwrap_or_default();
            }
            if let Some(vault) = &task.vault {
                value["Vault"] = vault.clone();
            }
        }
    }
    value
}

/// The defaults that follow from the job alone. Datacenters, node pool, the default identity and implied constraints are the
/// server's.
pub(super) fn canonical(parsed: &Parsed, cluster: &Defaults) -> Value {
    let mut job = parsed.job.clone();
    canonicalize(&mut job, &Defaults { consul: true, ..cluster.clone() });
    restore(&mut job, &parsed.job);
    let mut value = serde_json::to_value(&job).unwrap_or_default();
    if job.datacenters.is_empty() {
        value["Datacenters"] = Value::Null;
    }
    value
}

/// Takes back what only a server adds.
fn restore(job: &mut Job, written: &Job) {
    job.datacenters.clone_from(&written.datacenters);
    job.node_pool.clone_from(&written.node_pool);
    for (group, written) in job.task_groups.iter_mut().zip(&written.task_groups) {
        group.constraints.clone_from(&written.constraints);
        for (task, written) in group.tasks.iter_mut().zip(&written.tasks) {
            task.identity.clone_from(&written.identity);
        }
    }
}

fn items<'a>(value: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Sets what is not set.
fn fill(value: &mut Value, defaults: &Value) {
    let empty = Map::new();
    for (key, default) in defaults.as_object().unwrap_or(&empty) {
        if value.get(key).is_none_or(Value::is_null) {
            value[key] = default.clone();
        }
    }
}
