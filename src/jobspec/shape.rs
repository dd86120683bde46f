//! The last step of a block: short forms, labels and inherited blocks become the form that the job has.

use serde_json::Map;
use serde_json::Value;

type Object = Map<String, Value>;
type Problems = Vec<(String, String)>;

/// Tasks directly in the job each get a group of their own, before the other groups; `vault` is inherited.
pub(super) fn job(job: &mut Object) -> Problems {
    if let Some(Value::Array(tasks)) = job.remove("task") {
        let wrap = |task: Value| {
            let name = task.get("Name").cloned().unwrap_or_default();
            let group = [("Name".to_owned(), name), ("Tasks".to_owned(), Value::Array(vec![task]))];
            Value::Object(Object::from_iter(group))
        };
        let mut groups: Vec<Value> = tasks.into_iter().map(wrap).collect();
        if let Some(Value::Array(explicit)) = job.remove("TaskGroups") {
            groups.extend(explicit);
        }
        job.insert("TaskGroups".to_owned(), Value::Array(groups));
    }
    let inherited = job.remove("vault");
    if let Some(Value::Array(groups)) = job.get_mut("TaskGroups") {
        for group in groups.iter_mut().filter_map(Value::as_object_mut) {
            hand_down_vault(group, inherited.as_ref());
        }
    }
    Problems::new()
}

fn hand_down_vault(group: &mut Object, inherited: Option<&Value>) {
    let Some(vault) = group.remove("vault").or_else(|| inherited.cloned()) else { return };
    if let Some(Value::Array(tasks)) = group.get_mut("Tasks") {
        for task in tasks.iter_mut().filter_map(Value::as_object_mut) {
            task.entry("Vault").or_insert_with(|| vault.clone());
        }
    }
}

/// A group's scaling policy is horizontal and needs a maximum.
pub(super) fn group(group: &mut Object) -> Problems {
    let mut problems = Problems::new();
    if let Some(Value::Object(scaling)) = group.get_mut("Scaling") {
        if !scaling.contains_key("Max") {
            let detail = "The argument \"max\" is required, but no definition was found.";
            problems.push(("Missing required argument".to_owned(), detail.to_owned()));
        }
        scaling.insert("Type".to_owned(), "horizontal".into());
    }
    problems
}

/// The default identity is apart from the others; scaling policies of tasks are for `cpu` or `mem`.
pub(super) fn task(task: &mut Object) -> Problems {
    if let Some(Value::Array(identities)) = task.remove("identity") {
        let mut others = Vec::new();
        for identity in identities {
            let name = identity.get("Name").and_then(Value::as_str).unwrap_or_default();
            let is_default = name.is_empty() || name == "default";
            if is_default && !task.contains_key("Identity") {
                task.insert("Identity".to_owned(), identity);
            } else {
                others.push(identity);
            }
        }
        if !others.is_empty() {
            task.insert("Identities".to_owned(), Value::Array(others));
        }
    }
    // An empty block means a main task.
    if task.get("Lifecycle").and_then(Value::as_object).is_some_and(Object::is_empty) {
        task.remove("Lifecycle");
    }
    if let Some(Value::Object(logs)) = task.get_mut("LogConfig") {
        logs.remove("Enabled");
    }
    let mut problems = Problems::new();
    if let Some(Value::Array(policies)) = task.get_mut("ScalingPolicies") {
        for policy in policies.iter_mut().filter_map(Value::as_object_mut) {
            match policy.get("Type").and_then(Value::as_str) {
                Some(label @ ("cpu" | "mem")) => {
                    let kind = format!("vertical_{label}");
                    policy.insert("Type".to_owned(), kind.into());
                }
                _ => {
                    let detail = "scaling policy name must be \"cpu\" or \"mem\"";
                    problems.push(("Invalid scaling policy name".to_owned(), detail.to_owned()));
                }
            }
        }
    }
    problems
}

/// Short forms such as `version = "…"` set the operator and the value.
pub(super) fn constraint(constraint: &mut Object) -> Problems {
    for operator in ["version", "semver", "regexp", "set_contains"] {
        if let Some(value) = constraint.remove(operator) {
            constraint.insert("Operand".to_owned(), operator.into());
            constraint.insert("RTarget".to_owned(), value);
        }
    }
    // These are accepted and mean nothing, as in Nomad: the operator stays what it is.
    for ignored in ["set_contains_all", "set_contains_any", "is_set", "is_not_set"] {
        constraint.remove(ignored);
    }
    if let Some(value) = constraint.remove("distinct_hosts") {
        constraint.insert("Operand".to_owned(), "distinct_hosts".into());
        if value != "true" {
            constraint.insert("RTarget".to_owned(), value);
        }
    }
    if let Some(attribute) = constraint.remove("distinct_property") {
        constraint.insert("Operand".to_owned(), "distinct_property".into());
        constraint.insert("LTarget".to_owned(), attribute);
    }
    default_operator(constraint);
    Problems::new()
}

/// As for constraints; here the short forms of the set operators do work.
pub(super) fn affinity(affinity: &mut Object) -> Problems {
    let operators = ["version", "semver", "regexp", "set_contains", "set_contains_all", "set_contains_any"];
    for operator in operators {
        if let Some(value) = affinity.remove(operator) {
            affinity.insert("Operand".to_owned(), operator.into());
            affinity.insert("RTarget".to_owned(), value);
        }
    }
    default_operator(affinity);
    Problems::new()
}

fn default_operator(object: &mut Object) {
    let operator = object.entry("Operand").or_insert_with(|| "=".into());
    if operator == "" {
        *operator = "=".into();
    }
}

/// Ports with a static number are reserved ones.
pub(super) fn network(network: &mut Object) -> Problems {
    let mut reserved = Vec::new();
    let mut dynamic = Vec::new();
    for port in take_list(network, "port") {
        let is_static = port.get("Value").and_then(Value::as_i64).is_some_and(|value| value != 0);
        if is_static { reserved.push(port) } else { dynamic.push(port) }
    }
    reserved.extend(take_list(network, "reserved_ports"));
    if !reserved.is_empty() {
        network.insert("ReservedPorts".to_owned(), Value::Array(reserved));
    }
    if !dynamic.is_empty() {
        network.insert("DynamicPorts".to_owned(), Value::Array(dynamic));
    }
    Problems::new()
}

fn take_list(object: &mut Object, key: &str) -> Vec<Value> {
    match object.remove(key) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

/// `disk` of old files is accepted and has no effect.
pub(super) fn resources(resources: &mut Object) -> Problems {
    resources.remove("disk");
    Problems::new()
}

/// A service's `check_restart` is merged under that of each check.
pub(super) fn service(service: &mut Object) -> Problems {
    let Some(Value::Object(shared)) = service.remove("check_restart") else { return Problems::new() };
    if let Some(Value::Array(checks)) = service.get_mut("Checks") {
        for check in checks.iter_mut().filter_map(Value::as_object_mut) {
            let own = check.entry("CheckRestart").or_insert_with(|| Value::Object(Object::new()));
            if let Value::Object(own) = own {
                for (key, value) in &shared {
                    own.entry(key).or_insert_with(|| value.clone());
                }
            }
        }
    }
    Problems::new()
}
