//! Defaults of blocks that are there but not complete, and of blocks that inherit from the job or the group.
//!
//! This works on JSON, where an attribute that is absent can still be told from one that is zero.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::model::job::Job;
use crate::model::job::JobType;

use super::defaults;
use super::json;

type Object = Map<String, Value>;

const SECOND: i64 = 1_000_000_000;

/// A typed job from the JSON of a request or a job file.
///
/// # Errors
/// Names the place of a value that does not fit.
pub(super) fn job(raw: Value) -> Result<Job, String> {
    let mut value = json::normalize(raw);
    json::settle(&mut value);
    if let Value::Object(job) = &mut value {
        fill_job(job);
    }
    json::typed(value)
}

fn fill_job(job: &mut Object) {
    let kind = job.get("Type").and_then(Value::as_str).and_then(JobType::parse).unwrap_or(JobType::Service);
    let update = take(job, "Update").filter(|update| !is_unset_update(update)).map(without_derived);
    let reschedule = take(job, "Reschedule");
    let migrate = take(job, "Migrate");
    weights(job);
    if let Some(Value::Object(periodic)) = job.get_mut("Periodic") {
        let defaults = json!({"Enabled": true, "SpecType": "cron", "TimeZone": "UTC"});
        under(periodic, &defaults);
    }
    if let Some(Value::Object(parameterized)) = job.get_mut("ParameterizedJob") {
        under(parameterized, &json!({"Payload": "optional"}));
    }
    for group in objects(job, "TaskGroups") {
        let policies = [
            ("Update", written(defaults::update(kind)), update.as_ref(), json(&defaults::full_update())),
            (
                "ReschedulePolicy",
                written(defaults::reschedule(kind)),
                reschedule.as_ref(),
                full_reschedule(kind),
            ),
            ("Migrate", written(defaults::migrate(kind)), migrate.as_ref(), json(&defaults::full_migrate())),
        ];
        for (key, default, inherited, full) in policies {
            let own = take(group, key);
            let wanted = default.is_some() || inherited.is_some() || own.is_some();
            if wanted {
                let mut merged = own.unwrap_or_default();
                if let Some(inherited) = inherited {
                    under(&mut merged, &Value::Object(inherited.clone()));
                }
                under(&mut merged, &default.unwrap_or(full));
                group.insert(key.to_owned(), Value::Object(merged));
            }
        }
        fill_group(group, kind);
    }
    if let Some(mut update) = update {
        under(&mut update, &json(&defaults::full_update()));
        update.retain(|key, _| key == "Stagger" || key == "MaxParallel");
        job.insert("Update".to_owned(), Value::Object(update));
    }
}

/// What an incomplete block is completed with where the type of the job has no default block.
fn full_reschedule(kind: JobType) -> Value {
    defaults::reschedule(kind).as_ref().map_or_else(|| json!({}), json)
}

fn fill_group(group: &mut Object, kind: JobType) {
    weights(group);
    let count = group.get("Count").and_then(Value::as_i64);
    let mut least = None;
    if let Some(Value::Object(scaling)) = group.get_mut("Scaling") {
        under(scaling, &json!({"Enabled": true, "Type": "horizontal", "Min": count.unwrap_or(1)}));
        least = scaling.get("Min").and_then(Value::as_i64);
    }
    group.entry("Count").or_insert_with(|| json!(least.unwrap_or(1)));
    merge(group, "RestartPolicy", &json(&defaults::restart(kind)));
    merge(group, "EphemeralDisk", &json!({"SizeMB": 300}));
    merge(group, "Consul", &json!({"Namespace": "", "Cluster": "default", "Partition": ""}));
    if let Some(Value::Object(disconnect)) = group.get_mut("Disconnect") {
        under(disconnect, &json!({"LostAfter": 0, "Replace": true, "Reconcile": "best_score"}));
    }
    objects(group, "Networks").into_iter().for_each(fill_network);
    objects(group, "Services").into_iter().for_each(fill_service);
    if let Some(Value::Object(volumes)) = group.get_mut("Volumes") {
        for (name, volume) in volumes.iter_mut() {
            if let Value::Object(volume) = volume {
                volume.entry("Name").or_insert_with(|| name.as_str().into());
            }
        }
    }
    let restart = group.get("RestartPolicy").cloned().unwrap_or_default();
    for task in objects(group, "Tasks") {
        merge(task, "RestartPolicy", &restart);
        fill_task(task);
    }
}

fn fill_network(network: &mut Object) {
    for key in ["ReservedPorts", "DynamicPorts"] {
        for port in objects(network, key) {
            blank(port, "HostNetwork", "default");
        }
    }
}

fn fill_service(service: &mut Object) {
    blank(service, "AddressMode", "auto");
    blank(service, "OnUpdate", "require_healthy");
    blank(service, "Cluster", "default");
    let on_update = service.get("OnUpdate").cloned().unwrap_or_default();
    for check in objects(service, "Checks") {
        if check.get("OnUpdate").is_none_or(|own| own == "") {
            check.insert("OnUpdate".to_owned(), on_update.clone());
        }
        if let Some(Value::Object(restart)) = check.get_mut("CheckRestart") {
            under(restart, &json!({"Grace": SECOND}));
        }
    }
    if let Some(Value::Object(weights)) = service.get_mut("Weights") {
        for key in ["Passing", "Warning"] {
            if weights.get(key).and_then(Value::as_i64).is_none_or(|weight| weight <= 0) {
                weights.insert(key.to_owned(), json!(1));
            }
        }
    }
}

fn fill_task(task: &mut Object) {
    weights(task);
    if task.get("KillTimeout").is_none_or(|timeout| *timeout == json!(0)) {
        task.insert("KillTimeout".to_owned(), json!(5 * SECOND));
    }
    merge(task, "LogConfig", &json!({"MaxFiles": 10, "MaxFileSizeMB": 10, "Disabled": false}));
    let cores = task.get("Resources").and_then(|resources| resources.get("Cores")).and_then(Value::as_i64);
    let cpu = if cores.is_some_and(|cores| cores > 0) { 0 } else { 100 };
    merge(task, "Resources", &json!({"CPU": cpu, "MemoryMB": 300}));
    if let Some(Value::Object(resources)) = task.get_mut("Resources") {
        objects(resources, "Networks").into_iter().for_each(fill_network);
        for device in objects(resources, "Devices") {
            under(device, &json!({"Count": 1}));
            weights(device);
        }
        if let Some(Value::Object(numa)) = resources.get_mut("NUMA") {
            blank(numa, "Affinity", "none");
        }
    }
    objects(task, "Services").into_iter().for_each(fill_service);
    objects(task, "Templates").into_iter().for_each(fill_template);
    objects(task, "Artifacts").into_iter().for_each(fill_artifact);
    for mount in objects(task, "VolumeMounts") {
        blank(mount, "PropagationMode", "private");
    }
    if let Some(Value::Object(consul)) = task.get_mut("Consul") {
        under(consul, &json!({"Namespace": "", "Cluster": "default", "Partition": ""}));
    }
    if let Some(Value::Object(vault)) = task.get_mut("Vault") {
        let defaults = json!({
            "Role": "", "Policies": null, "Namespace": "", "Cluster": "default", "Env": true, "DisableFile": false,
            "ChangeMode": "restart", "ChangeSignal": "", "AllowTokenExpiration": false,
        });
        under(vault, &defaults);
        fill_signal(vault);
    }
    if let Some(Value::Object(plugin)) = task.get_mut("CSIPluginConfig") {
        let defaults = json!({
            "MountDir": "/csi", "StagePublishBaseDir": "/local/csi", "HealthTimeout": 30 * SECOND,
        });
        under(plugin, &defaults);
    }
}

fn fill_template(template: &mut Object) {
    let defaults = json!({
        "ChangeMode": "restart", "Splay": 5 * SECOND, "Perms": "0644", "LeftDelim": "{{", "RightDelim": "}}",
    });
    under(template, &defaults);
    fill_signal(template);
    if let Some(Value::Object(script)) = template.get_mut("ChangeScript") {
        under(script, &json!({"Timeout": 5 * SECOND}));
    }
}

/// `ChangeSignal` is in upper case, and `SIGHUP` where one is needed and none is given.
fn fill_signal(block: &mut Object) {
    let signal = block.get("ChangeSignal").and_then(Value::as_str).unwrap_or_default().to_uppercase();
    let wanted = block.get("ChangeMode").is_some_and(|mode| mode == "signal");
    let signal = if signal.is_empty() && wanted { "SIGHUP".to_owned() } else { signal };
    block.insert("ChangeSignal".to_owned(), signal.into());
}

fn fill_artifact(artifact: &mut Object) {
    blank(artifact, "GetterMode", "any");
    let source = artifact.get("GetterSource").and_then(Value::as_str).unwrap_or_default();
    let is_file = artifact.get("GetterMode").is_some_and(|mode| mode == "file");
    let name = source.rsplit('/').next().unwrap_or_default();
    let destination = if is_file { format!("local/{name}") } else { "local/".to_owned() };
    blank(artifact, "RelativeDest", &destination);
}

/// Affinities and spreads weigh 50 when nothing is said.
fn weights(object: &mut Object) {
    for key in ["Affinities", "Spreads"] {
        for item in objects(object, key) {
            under(item, &json!({"Weight": 50}));
        }
    }
}

fn json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn written<T: serde::Serialize>(value: Option<T>) -> Option<Value> {
    value.as_ref().map(json)
}

fn take(object: &mut Object, key: &str) -> Option<Object> {
    match object.shift_remove(key) {
        Some(Value::Object(map)) => Some(map),
        Some(Value::Null) | None => None,
        // Something else is left for the typed reader to complain about.
        Some(other) => {
            object.insert(key.to_owned(), other);
            None
        }
    }
}

fn objects<'a>(object: &'a mut Object, key: &str) -> Vec<&'a mut Object> {
    let items = object.get_mut(key).and_then(Value::as_array_mut);
    items.into_iter().flatten().filter_map(Value::as_object_mut).collect()
}

/// Adds the entries of `defaults` that `object` lacks.
fn under(object: &mut Object, defaults: &Value) {
    for (key, value) in defaults.as_object().into_iter().flatten() {
        object.entry(key).or_insert_with(|| value.clone());
    }
}

/// Completes the object at `key`, or makes it. Leaves a value of another type for the typed reader.
fn merge(object: &mut Object, key: &str, defaults: &Value) {
    if let Value::Object(inner) = object.entry(key).or_insert_with(|| json!({})) {
        under(inner, defaults);
    }
}

/// Sets a text that is absent or empty.
fn blank(object: &mut Object, key: &str, default: &str) {
    if object.get(key).is_none_or(|value| value == "") {
        object.insert(key.to_owned(), default.into());
    }
}

/// The all-zero block that jobs without an update policy are shown with.
fn is_unset_update(update: &Object) -> bool {
    let zero = |value: &Value| *value == json!(0) || *value == json!("") || *value == json!(false);
    update.len() >= defaults::UPDATE_FIELDS && update.values().all(zero)
}

/// Of a stored job's policy only two fields mean something; the groups hold the rest.
fn without_derived(mut update: Object) -> Object {
    if update.get("HealthCheck").is_some_and(|check| check == "") {
        update.retain(|key, _| key == "Stagger" || key == "MaxParallel");
    }
    update
}
