//! Differences of JSON objects, with the names that people know from job files and plans.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::DiffType;
use super::FieldDiff;
use super::ObjectDiff;
use super::kind_of;

/// The fields and objects of something.
#[derive(Default)]
pub(super) struct Members {
    pub(super) fields: Vec<FieldDiff>,
    pub(super) objects: Vec<ObjectDiff>,
}

impl Members {
    pub(super) fn is_changed(&self) -> bool {
        self.fields.iter().any(|field| field.kind != DiffType::None)
            || self.objects.iter().any(|object| object.kind != DiffType::None)
    }
}

/// A value as JSON, with networks in the form in which they are compared.
pub(super) fn tree<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// What an entry of an object is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// One value.
    Field,
    /// A map of texts: one field per key.
    Map,
    /// A list of texts: an object with one field per element.
    Set,
    /// An object, or a list or map of objects.
    Objects,
    /// Data without a schema: one object with flattened fields.
    Flat,
}

/// Lists whose elements are called otherwise than the list, and those that are matched by a key.
const SINGULAR: &[(&str, &str)] = &[
    ("Constraints", "Constraint"),
    ("Affinities", "Affinity"),
    ("Spreads", "Spread"),
    ("Networks", "Network"),
    ("Services", "Service"),
    ("Checks", "Check"),
    ("Templates", "Template"),
    ("Artifacts", "Artifact"),
    ("VolumeMounts", "VolumeMount"),
    ("Volumes", "Volume"),
    ("Devices", "Device"),
    ("ReservedPorts", "Static Port"),
    ("DynamicPorts", "Dynamic Port"),
    ("Identities", "Identity"),
    ("Actions", "Action"),
    ("ScalingPolicies", "Scaling"),
    ("Connect", "ConsulConnect"),
    ("CSIPluginConfig", "CSIPlugin"),
    ("Links", "Link"),
    ("Regions", "Region"),
];

/// Objects of these lists keep their identity by name: a change is an edit. Others are replaced.
const NAMED: &[&str] = &["Services", "Checks", "Volumes", "Actions", "Identities", "Devices", "Regions"];

/// Maps of texts.
const MAPS: &[&str] =
    &["Meta", "Env", "CanaryMeta", "TaggedAddresses", "GetterOptions", "GetterHeaders", "Args"];

/// Objects without a schema.
const FREE: &[&str] = &["Policy", "Target", "Connect", "Header"];

fn entry(key: &str, value: &Value) -> Entry {
    match value {
        _ if FREE.contains(&key) => Entry::Flat,
        Value::Object(_) if MAPS.contains(&key) => Entry::Map,
        Value::Array(items) if items.iter().all(|item| !item.is_object()) => Entry::Set,
        Value::Object(_) | Value::Array(_) => Entry::Objects,
        _ => Entry::Field,
    }
}

/// Compares two objects; keys in `hidden` are passed over. Fields at this level appear only when they differ.
pub(super) fn members(
    old: Option<&Value>,
    new: Option<&Value>,
    hidden: &[&str],
    contextual: bool,
) -> Members {
    compare(old, new, hidden, false, contextual)
}

/// `show_fields`: whether unchanged fields appear; `contextual`: the same for nested objects.
fn compare(
    old: Option<&Value>,
    new: Option<&Value>,
    hidden: &[&str],
    show_fields: bool,
    contextual: bool,
) -> Members {
    let mut out = Members::default();
    let entries = |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
    let (old, new) = (entries(old), entries(new));
    let keys: BTreeSet<&String> =
        old.keys().chain(new.keys()).filter(|key| !hidden.contains(&key.as_str())).collect();
    for key in keys {
        let (old, new) = (old.get(key), new.get(key));
        let present = [new, old].into_iter().flatten().find(|value| !value.is_null());
        // Absent lists and maps are not shown; absent numbers and times are.
        let kind = match present {
            Some(value) => entry(key, value),
            None if OPTIONAL.contains(&key.as_str()) => Entry::Field,
            None => continue,
        };
        match kind {
            Entry::Field => out.fields.extend(field(key, old, new, show_fields)),
            Entry::Map => out.fields.extend(map_fields(key, old, new, show_fields)),
            Entry::Set => out.objects.extend(text_set(key, old, new, contextual)),
            Entry::Flat => out.objects.extend(flat(singular(key), old.cloned(), new.cloned(), contextual)),
            Entry::Objects => out.objects.extend(objects(key, old, new, contextual)),
        }
    }
    out.fields.sort_by(|a, b| a.name.cmp(&b.name));
    out.objects.sort_by(|a, b| (&a.name, a.kind).cmp(&(&b.name, b.kind)));
    out
}

fn singular(key: &str) -> &str {
    SINGULAR.iter().find(|(plural, _)| *plural == key).map_or(key, |(_, single)| single)
}

/// Values that may be unset, which is not the same as zero.
const OPTIONAL: &[&str] = &["StopOnClientAfter", "Uid", "Gid"];

/// The text of a value in a diff. Optional times that are not set are `nil`.
fn text(key: &str, value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) if OPTIONAL.contains(&key) => "nil".to_owned(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

fn field(key: &str, old: Option<&Value>, new: Option<&Value>, show: bool) -> Option<FieldDiff> {
    field_of_texts(key.to_owned(), text(key, old), text(key, new), show)
}

fn field_of_texts(name: String, old: String, new: String, show: bool) -> Option<FieldDiff> {
    let kind = match (old.as_str(), new.as_str()) {
        (old, new) if old == new => DiffType::None,
        ("", _) => DiffType::Added,
        (_, "") => DiffType::Deleted,
        _ => DiffType::Edited,
    };
    (show || kind != DiffType::None).then(|| FieldDiff { kind, name, old, new, annotations: Vec::new() })
}

fn map_fields(key: &str, old: Option<&Value>, new: Option<&Value>, show: bool) -> Vec<FieldDiff> {
    let entries = |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
    let (old, new) = (entries(old), entries(new));
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    keys.into_iter()
        .filter_map(|inner| {
            let name = format!("{key}[{inner}]");
            field_of_texts(name, text(inner, old.get(inner)), text(inner, new.get(inner)), show)
        })
        .collect()
}

/// A list of texts as a set: an object whose fields all have its name.
fn text_set(key: &str, old: Option<&Value>, new: Option<&Value>, contextual: bool) -> Option<ObjectDiff> {
    let texts = |value: Option<&Value>| -> BTreeSet<String> {
        let items = value.and_then(Value::as_array);
        items.into_iter().flatten().map(|item| text(key, Some(item))).collect()
    };
    let (old_texts, new_texts) = (texts(old), texts(new));
    if old_texts == new_texts {
        // The order of arguments matters, that of tags does not.
        let indexed = |value: Option<&Value>| value.map(|value| json!({ key: value }));
        let ordered = key == "Args" && old != new;
        return if ordered { flat(key, indexed(old), indexed(new), contextual) } else { None };
    }
    let fields = old_texts.union(&new_texts).filter_map(|item| {
        let side = |set: &BTreeSet<String>| if set.contains(item) { item.clone() } else { String::new() };
        field_of_texts(key.to_owned(), side(&old_texts), side(&new_texts), contextual)
    });
    let mut fields: Vec<FieldDiff> = fields.collect();
    fields.sort_by(|a, b| (a.kind, &a.old, &a.new).cmp(&(b.kind, &b.old, &b.new)));
    let kind = kind_of(!old_texts.is_empty(), !new_texts.is_empty(), true);
    Some(ObjectDiff { kind, name: key.to_owned(), fields, objects: Vec::new() })
}

/// Data without a schema, flattened to fields such as `args[0]` and `labels[0][owner]`.
pub(super) fn flat(
    name: &str,
    old: Option<Value>,
    new: Option<Value>,
    contextual: bool,
) -> Option<ObjectDiff> {
    let flattened = |value: &Option<Value>| {
        let mut out = BTreeMap::new();
        for (key, value) in value.iter().filter_map(Value::as_object).flatten() {
            flatten(key.clone(), value, &mut out);
        }
        out
    };
    let (old, new) = (flattened(&old), flattened(&new));
    if old == new {
        return None;
    }
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let side = |map: &BTreeMap<String, String>, key: &String| map.get(key).cloned().unwrap_or_default();
    let fields = keys
        .into_iter()
        .filter_map(|key| field_of_texts(key.clone(), side(&old, key), side(&new, key), contextual));
    let kind = kind_of(!old.is_empty(), !new.is_empty(), true);
    Some(ObjectDiff { kind, name: name.to_owned(), fields: fields.collect(), objects: Vec::new() })
}

fn flatten(prefix: String, value: &Value, out: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                flatten(format!("{prefix}[{key}]"), value, out);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                flatten(format!("{prefix}[{index}]"), value, out);
            }
        }
        Value::Null => {}
        other => {
            out.insert(prefix, text("", Some(other)));
        }
    }
}

/// A single object, a list of objects, or objects by name.
fn objects(key: &str, old: Option<&Value>, new: Option<&Value>, contextual: bool) -> Vec<ObjectDiff> {
    let name = singular(key);
    let is_named_map = key == "Volumes";
    let single = |value: Option<&Value>| matches!(value, Some(Value::Object(_))) && !is_named_map;
    if single(old) || single(new) {
        let (old, new) = (old.filter(|value| !value.is_null()), new.filter(|value| !value.is_null()));
        return one(name, old, new, contextual).into_iter().collect();
    }
    let list = |value: Option<&Value>| -> Vec<Value> {
        match value {
            Some(Value::Array(items)) => items.iter().map(|item| comparable(key, item)).collect(),
            Some(Value::Object(map)) => map.values().cloned().collect(),
            _ => Vec::new(),
        }
    };
    let (mut old, mut new) = (list(old), list(new));
    // Equal ones cancel each other out, one for one.
    old.retain(|item| match new.iter().position(|other| other == item) {
        Some(index) => {
            new.remove(index);
            false
        }
        None => true,
    });
    let mut out = Vec::new();
    if NAMED.contains(&key) {
        let name_of = |item: &Value| item.get("Name").and_then(Value::as_str).unwrap_or_default().to_owned();
        old.retain(|item| match new.iter().position(|other| name_of(other) == name_of(item)) {
            Some(index) => {
                out.extend(one(name, Some(item), Some(&new.remove(index)), contextual));
                false
            }
            None => true,
        });
    }
    out.extend(new.iter().filter_map(|item| one(name, None, Some(item), contextual)));
    out.extend(old.iter().filter_map(|item| one(name, Some(item), None, contextual)));
    out
}

fn one(name: &str, old: Option<&Value>, new: Option<&Value>, contextual: bool) -> Option<ObjectDiff> {
    if old == new {
        return None;
    }
    let members = compare(old, new, &[], contextual, contextual);
    let changed = members.is_changed();
    if !changed && old.is_some() && new.is_some() {
        return None;
    }
    let kind = kind_of(old.is_some(), new.is_some(), changed);
    Some(ObjectDiff { kind, name: name.to_owned(), fields: members.fields, objects: members.objects })
}

/// Networks and ports leave out zeros on the wire; in a diff their fields are always there.
fn comparable(key: &str, item: &Value) -> Value {
    if key != "Networks" {
        return item.clone();
    }
    let read = |value: &Value, key: &str, default: Value| value.get(key).cloned().unwrap_or(default);
    let ports = |key: &str| -> Value {
        let items = item.get(key).and_then(Value::as_array);
        let port = |port: &Value| {
            let mut out = Map::new();
            out.insert("Label".to_owned(), read(port, "Label", json!("")));
            out.insert("To".to_owned(), read(port, "To", json!(0)));
            out.insert("HostNetwork".to_owned(), read(port, "HostNetwork", json!("default")));
            if key == "ReservedPorts" {
                out.insert("Value".to_owned(), read(port, "Value", json!(0)));
                out.insert("IgnoreCollision".to_owned(), read(port, "IgnoreCollision", json!(false)));
            }
            Value::Object(out)
        };
        Value::Array(items.into_iter().flatten().map(port).collect())
    };
    let mut out = Map::new();
    out.insert("Mode".to_owned(), read(item, "Mode", json!("")));
    out.insert("Hostname".to_owned(), read(item, "Hostname", json!("")));
    out.insert("MBits".to_owned(), read(item, "MBits", json!(0)));
    for key in ["ReservedPorts", "DynamicPorts"] {
        out.insert(key.to_owned(), ports(key));
    }
    for key in ["DNS", "CNI"] {
        if let Some(value) = item.get(key) {
            out.insert(key.to_owned(), value.clone());
        }
    }
    Value::Object(out)
}
