//! Jobs in the JSON of the API, read as leniently as Nomad's clients expect: keys in any case, `null` for a default.

use std::sync::LazyLock;

use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::model::constraint::Affinity;
use crate::model::constraint::Constraint;
use crate::model::constraint::Spread;
use crate::model::constraint::SpreadTarget;
use crate::model::group::DisconnectStrategy;
use crate::model::group::EphemeralDisk;
use crate::model::group::MigrateStrategy;
use crate::model::group::ReschedulePolicy;
use crate::model::group::RestartPolicy;
use crate::model::group::TaskGroup;
use crate::model::group::UpdateStrategy;
use crate::model::group::VolumeRequest;
use crate::model::job::Job;
use crate::model::job::ParameterizedConfig;
use crate::model::job::PeriodicConfig;
use crate::model::job::VersionTag;
use crate::model::network::DnsConfig;
use crate::model::resources::Numa;
use crate::model::resources::RequestedDevice;
use crate::model::resources::Resources;
use crate::model::service::CheckRestart;
use crate::model::service::Service;
use crate::model::service::ServiceCheck;
use crate::model::service::ServiceWeights;
use crate::model::task::Action;
use crate::model::task::Artifact;
use crate::model::task::ChangeScript;
use crate::model::task::DispatchPayload;
use crate::model::task::Lifecycle;
use crate::model::task::LogConfig;
use crate::model::task::Task;
use crate::model::task::Template;
use crate::model::task::VolumeMount;
use crate::model::task::WaitConfig;
use crate::model::task::WorkloadIdentity;

use super::fill;

/// The key that stands for "every key" in the table of known names.
const ANY: &str = "*";

/// Reads a job of the API: the job itself, or `{"Job": {…}}`.
///
/// # Errors
/// Names the place: `TaskGroups[0].Count: invalid type: string "x", expected i64`.
pub fn decode_json(bytes: &[u8]) -> Result<Job, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    fill::job(unwrap_job(value))
}

/// A number is off by one unit of its last digit at most, so it comes to rest soon.
const SETTLING_STEPS: usize = 16;

/// JSON that is none, and where.
pub(super) struct Failure {
    pub(super) message: String,
    pub(super) offset: usize,
}

/// Parses text, with the byte offset of an error.
pub(super) fn parse(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| {
        let start: usize = text.lines().take(error.line().saturating_sub(1)).map(|line| line.len() + 1).sum();
        let offset = (start + error.column().saturating_sub(1)).min(text.len().saturating_sub(1));
        Failure { message: error.to_string(), offset }
    })
}

/// The job inside `{"Job": {…}}`, or the value itself.
pub(super) fn unwrap_job(value: Value) -> Value {
    let Value::Object(mut map) = value else { return value };
    let key = map.keys().find(|key| key.eq_ignore_ascii_case("job")).cloned();
    match key.and_then(|key| map.shift_remove(&key)) {
        Some(job @ Value::Object(_)) => job,
        _ => Value::Object(map),
    }
}

/// Numbers with a fraction, or too large for whole ones, are read with a little less precision than they are written with.
/// This makes them numbers that stay the same, so that a stored job is the job that was submitted.
pub(super) fn settle(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            for _ in 0..SETTLING_STEPS {
                match serde_json::from_str::<serde_json::Number>(&number.to_string()) {
                    Ok(next) if next != *number => *number = next,
                    _ => break,
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(settle),
        Value::Object(map) => map.values_mut().for_each(settle),
        _ => {}
    }
}

/// Gives known keys their spelling and drops nulls. Maps of the user (`Config`, `Meta`, `Env`, …) stay as they are.
pub(super) fn normalize(value: Value) -> Value {
    aligned(value, &KNOWN)
}

fn aligned(value: Value, known: &Value) -> Value {
    match (value, known) {
        (Value::Object(map), Value::Object(names)) if !names.is_empty() => {
            let mut out = Map::new();
            for (key, value) in map {
                if value.is_null() {
                    continue;
                }
                let known = names
                    .get_key_value(&key)
                    .or_else(|| names.iter().find(|(name, _)| name.eq_ignore_ascii_case(&key)));
                match known.or_else(|| names.get_key_value(ANY)) {
                    Some((name, known)) => {
                        let name = if name == ANY { key } else { name.clone() };
                        out.insert(name, aligned(value, known));
                    }
                    None => {
                        out.insert(key, value);
                    }
                }
            }
            Value::Object(out)
        }
        (Value::Array(items), Value::Array(known)) => {
            let known = known.first().unwrap_or(&Value::Null);
            Value::Array(
                items.into_iter().filter(|item| !item.is_null()).map(|item| aligned(item, known)).collect(),
            )
        }
        (value, _) => value,
    }
}

/// The path of the first key that no job has, in a normalized job.
pub(super) fn unknown(value: &Value) -> Option<String> {
    unknown_in(value, &KNOWN)
}

fn unknown_in(value: &Value, known: &Value) -> Option<String> {
    match (value, known) {
        (Value::Object(map), Value::Object(names)) if !names.is_empty() => {
            map.iter().find_map(|(key, value)| match names.get(key).or_else(|| names.get(ANY)) {
                None => Some(key.clone()),
                Some(known) => unknown_in(value, known).map(|path| join(key, &path)),
            })
        }
        (Value::Array(items), Value::Array(known)) => {
            let known = known.first().unwrap_or(&Value::Null);
            items.iter().enumerate().find_map(|(index, item)| {
                unknown_in(item, known).map(|path| join(&format!("[{index}]"), &path))
            })
        }
        _ => None,
    }
}

fn join(step: &str, path: &str) -> String {
    if path.starts_with('[') { format!("{step}{path}") } else { format!("{step}.{path}") }
}

/// Every name that a job may hold, as a tree. An object without names is a map of the user.
static KNOWN: LazyLock<Value> = LazyLock::new(|| {
    let mut job = names::<Job>();
    set(&mut job, "Constraints", json!([names::<Constraint>()]));
    set(&mut job, "Affinities", json!([names::<Affinity>()]));
    set(&mut job, "Spreads", spreads());
    set(&mut job, "TaskGroups", json!([group()]));
    set(&mut job, "Update", names::<UpdateStrategy>());
    set(&mut job, "Reschedule", names::<ReschedulePolicy>());
    set(&mut job, "Migrate", names::<MigrateStrategy>());
    set(&mut job, "Periodic", names::<PeriodicConfig>());
    set(&mut job, "ParameterizedJob", names::<ParameterizedConfig>());
    set(&mut job, "Meta", texts());
    set(&mut job, "VersionTag", names::<VersionTag>());
    set(&mut job, "UI", json!({"Description": null, "Links": [{"Label": null, "Url": null}]}));
    job
});

fn names<T: Serialize + Default>() -> Value {
    serde_json::to_value(T::default()).unwrap_or_default()
}

/// A map of the user that holds texts; an entry that is null counts as absent.
fn texts() -> Value {
    json!({ ANY: "" })
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(map) = object {
        map.insert(key.to_owned(), value);
    }
}

fn spreads() -> Value {
    let mut spread = names::<Spread>();
    set(&mut spread, "SpreadTarget", json!([names::<SpreadTarget>()]));
    json!([spread])
}

fn group() -> Value {
    let mut group = names::<TaskGroup>();
    set(&mut group, "Constraints", json!([names::<Constraint>()]));
    set(&mut group, "Affinities", json!([names::<Affinity>()]));
    set(&mut group, "Spreads", spreads());
    set(&mut group, "Update", names::<UpdateStrategy>());
    set(&mut group, "Migrate", names::<MigrateStrategy>());
    set(&mut group, "RestartPolicy", names::<RestartPolicy>());
    set(&mut group, "ReschedulePolicy", names::<ReschedulePolicy>());
    set(&mut group, "Disconnect", names::<DisconnectStrategy>());
    set(&mut group, "EphemeralDisk", names::<EphemeralDisk>());
    set(&mut group, "Networks", json!([network()]));
    set(&mut group, "Services", json!([service()]));
    set(&mut group, "Volumes", json!({ ANY: names::<VolumeRequest>() }));
    set(&mut group, "Scaling", scaling());
    set(&mut group, "Consul", consul());
    set(&mut group, "Tasks", json!([task()]));
    set(&mut group, "Meta", texts());
    group
}

fn scaling() -> Value {
    json!({"ID": null, "Type": null, "Enabled": null, "Min": null, "Max": null, "Policy": {}, "Target": {}})
}

fn consul() -> Value {
    json!({"Namespace": null, "Cluster": null, "Partition": null})
}

fn task() -> Value {
    let mut template = names::<Template>();
    set(&mut template, "ChangeScript", names::<ChangeScript>());
    set(&mut template, "Wait", names::<WaitConfig>());
    set(&mut template, "VaultGrace", Value::Null);
    set(&mut template, "Once", Value::Null);
    let mut artifact = names::<Artifact>();
    set(&mut artifact, "GetterOptions", texts());
    set(&mut artifact, "GetterHeaders", texts());
    let mut task = names::<Task>();
    set(&mut task, "Config", json!({}));
    for key in ["Env", "Meta"] {
        set(&mut task, key, texts());
    }
    set(&mut task, "Services", json!([service()]));
    set(&mut task, "Templates", json!([template]));
    set(&mut task, "Artifacts", json!([artifact]));
    set(&mut task, "Constraints", json!([names::<Constraint>()]));
    set(&mut task, "Affinities", json!([names::<Affinity>()]));
    set(&mut task, "Resources", resources());
    set(&mut task, "RestartPolicy", names::<RestartPolicy>());
    set(&mut task, "DispatchPayload", names::<DispatchPayload>());
    set(&mut task, "Lifecycle", names::<Lifecycle>());
    set(&mut task, "LogConfig", names::<LogConfig>());
    set(&mut task, "VolumeMounts", json!([names::<VolumeMount>()]));
    set(&mut task, "Identity", names::<WorkloadIdentity>());
    set(&mut task, "Identities", json!([names::<WorkloadIdentity>()]));
    set(&mut task, "Actions", json!([names::<Action>()]));
    set(&mut task, "ScalingPolicies", json!([scaling()]));
    set(&mut task, "Consul", consul());
    let vault = json!({
        "Role": null, "Policies": null, "Namespace": null, "Cluster": null, "Env": null, "DisableFile": null,
        "ChangeMode": null, "ChangeSignal": null, "AllowTokenExpiration": null,
    });
    set(&mut task, "Vault", vault);
    let plugin = json!({
        "ID": null, "Type": null, "MountDir": null, "StagePublishBaseDir": null, "HealthTimeout": null,
    });
    set(&mut task, "CSIPluginConfig", plugin);
    task
}

fn resources() -> Value {
    let mut device = names::<RequestedDevice>();
    set(&mut device, "Constraints", json!([names::<Constraint>()]));
    set(&mut device, "Affinities", json!([names::<Affinity>()]));
    let mut resources = names::<Resources>();
    set(&mut resources, "Networks", json!([network()]));
    set(&mut resources, "Devices", json!([device]));
    set(&mut resources, "NUMA", names::<Numa>());
    resources
}

fn network() -> Value {
    let port =
        json!({"Label": null, "Value": null, "To": null, "HostNetwork": null, "IgnoreCollision": null});
    json!({
        "Mode": null, "Device": null, "CIDR": null, "IP": null, "Hostname": null, "MBits": null,
        "DNS": names::<DnsConfig>(), "ReservedPorts": [port], "DynamicPorts": [port], "CNI": {"Args": texts()},
    })
}

fn service() -> Value {
    let mut check = names::<ServiceCheck>();
    set(&mut check, "Header", json!({}));
    set(&mut check, "CheckRestart", names::<CheckRestart>());
    // Read and kept by nobody.
    set(&mut check, "Advertise", Value::Null);
    let mut service = names::<Service>();
    set(&mut service, "Checks", json!([check]));
    set(&mut service, "Weights", names::<ServiceWeights>());
    set(&mut service, "Identity", names::<WorkloadIdentity>());
    for key in ["Meta", "CanaryMeta", "TaggedAddresses"] {
        set(&mut service, key, texts());
    }
    service
}

/// The typed job, or the place of the value that does not fit.
pub(super) fn typed(value: Value) -> Result<Job, String> {
    let error = match serde_json::from_value::<Job>(value.clone()) {
        Ok(job) => return Ok(job),
        Err(error) => error.to_string(),
    };
    let mut place = String::new();
    let mut path: Vec<Step> = Vec::new();
    let mut rest = value;
    while let Some((step, child)) = culprit(&rest, &path, &error) {
        match &step {
            Step::Key(key) if place.is_empty() => place.push_str(key),
            Step::Key(key) => place.push_str(&format!(".{key}")),
            Step::Index(index) => place.push_str(&format!("[{index}]")),
        }
        path.push(step);
        rest = child;
    }
    Err(if place.is_empty() { error } else { format!("{place}: {error}") })
}

/// One step into a JSON value.
#[derive(Clone)]
enum Step {
    Key(String),
    Index(usize),
}

/// The child of `value` that alone causes the error. `path` leads from the job to `value`. Every candidate is tried
/// without its siblings, so the work grows with the size of the request and not with its square.
fn culprit(value: &Value, path: &[Step], error: &str) -> Option<(Step, Value)> {
    let children: Vec<(Step, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, child)| (Step::Key(key.clone()), child)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().map(|(index, child)| (Step::Index(index), child)).collect()
        }
        _ => return None,
    };
    let fails = |innermost: Value, step: Option<&Step>| {
        let steps = step.into_iter().chain(path.iter().rev());
        let alone = steps.fold(innermost, |inner, step| match step {
            Step::Key(key) => Value::Object(Map::from_iter([(key.clone(), inner)])),
            Step::Index(_) => Value::Array(vec![inner]),
        });
        serde_json::from_value::<Job>(alone).is_err_and(|now| now.to_string() == error)
    };
    // When it fails even without children, the value itself is of the wrong kind.
    let empty = if value.is_object() { Value::Object(Map::new()) } else { Value::Array(Vec::new()) };
    if fails(empty, None) {
        return None;
    }
    let found = children.into_iter().find(|(step, child)| fails((*child).clone(), Some(step)));
    found.map(|(step, child)| (step, child.clone()))
}

/// The form that clients are shown before defaults are applied: every known key, `null` where nothing was said.
pub(super) fn with_nulls(value: &Value) -> Value {
    let mut out = completed(value, &KNOWN);
    unset(&mut out, &[("Dispatched", json!(false))]);
    let groups = out.get_mut("TaskGroups").and_then(Value::as_array_mut);
    for group in groups.into_iter().flatten() {
        for task in group.get_mut("Tasks").and_then(Value::as_array_mut).into_iter().flatten() {
            let zeros = [
                ("User", json!("")),
                ("KillSignal", json!("")),
                ("Kind", json!("")),
                ("Leader", json!(false)),
                ("ShutdownDelay", json!(0)),
            ];
            unset(task, &zeros);
        }
    }
    out
}

/// Some keys have a zero value where nothing was said, and not `null`.
fn unset(object: &mut Value, zeros: &[(&str, Value)]) {
    for (key, zero) in zeros {
        if let Some(value) = object.get_mut(*key).filter(|value| value.is_null()) {
            *value = zero.clone();
        }
    }
}

fn completed(value: &Value, known: &Value) -> Value {
    match (value, known) {
        (Value::Object(map), Value::Object(names)) if !names.is_empty() && !names.contains_key(ANY) => {
            let mut out = Map::new();
            for (name, known) in names {
                out.insert(name.clone(), map.get(name).map_or(Value::Null, |value| completed(value, known)));
            }
            let others = map.iter().filter(|(key, _)| !names.contains_key(*key));
            out.extend(others.map(|(key, value)| (key.clone(), value.clone())));
            Value::Object(out)
        }
        (Value::Object(map), Value::Object(names)) => {
            let known = names.get(ANY).unwrap_or(&Value::Null);
            Value::Object(map.iter().map(|(key, value)| (key.clone(), completed(value, known))).collect())
        }
        (Value::Array(items), Value::Array(known)) => {
            let known = known.first().unwrap_or(&Value::Null);
            Value::Array(items.iter().map(|item| completed(item, known)).collect())
        }
        (value, _) => value.clone(),
    }
}
