//! Template functions that read from Consul: its keys, its services, its nodes.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::AsciiSet;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;
use serde_json::Value as Json;

use super::engine::Answer as Known;
use super::engine::Dependency;
use super::engine::Stage;
use crate::gotemplate::Answer;
use crate::gotemplate::Failure;
use crate::gotemplate::Functions;
use crate::gotemplate::between;
use crate::gotemplate::exactly;
use crate::gotemplate::text_of;
use crate::gotemplate::value::Key;
use crate::gotemplate::value::Value;

/// Functions that need a Consul and are answered from it.
const FUNCTIONS: [(&str, Ask); 12] = [
    ("key", key),
    ("keyExists", key_exists),
    ("keyOrDefault", key_or_default),
    ("ls", |stage, a| pairs(stage, "ls", a)),
    ("safeLs", |stage, a| pairs(stage, "safeLs", a)),
    ("tree", |stage, a| pairs(stage, "tree", a)),
    ("safeTree", |stage, a| pairs(stage, "safeTree", a)),
    ("service", service),
    ("services", services),
    ("nodes", nodes),
    ("node", node),
    ("datacenters", datacenters),
];
/// Functions of Consul's that Herder does not have.
const LEFT_OUT: [&str; 9] = [
    "byMeta",
    "caLeaf",
    "caRoots",
    "connect",
    "explode",
    "exportedServices",
    "keyExistsGet",
    "partitions",
    "peerings",
];

/// What stays as it is in the path of a key.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

type Ask = fn(&Stage, &[Value]) -> Answer;

/// Adds the functions; without a Consul they fail.
pub(super) fn add<'a>(functions: &mut Functions<'a>, stage: &'a Stage) {
    let configured = stage.scene.options.consul.is_some();
    for (name, ask) in FUNCTIONS {
        functions.bind(
            name,
            move |arguments| {
                if configured { ask(stage, arguments) } else { Err(not_configured()) }
            },
        );
    }
    for name in LEFT_OUT {
        functions.bind(name, move |_| {
            let missing = || Failure::called(format_args!("{name} is not available in Herder"));
            Err(if configured { missing() } else { not_configured() })
        });
    }
    functions.add(&[("byKey", by_key)]);
}

fn not_configured() -> Failure {
    Failure::called("Consul is not configured; use nomadService or nomadVar")
}

/// The path of a question, and its datacenter (`x@dc`) as a query.
fn split(text: &str) -> (&str, String) {
    let (path, datacenter) = text.split_once('@').unwrap_or((text, ""));
    (path, if datacenter.is_empty() { String::new() } else { format!("dc={}", encoded(datacenter)) })
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PATH).to_string()
}

fn question(path: &str, queries: &[&str]) -> Dependency {
    let queries: Vec<&str> = queries.iter().copied().filter(|query| !query.is_empty()).collect();
    let mark = if queries.is_empty() { "" } else { "?" };
    Dependency::Consul(format!("/v1/{path}{mark}{}", queries.join("&")))
}

/// Consul's answer; nothing if it is not known yet, null if there is no such thing.
fn ask(stage: &Stage, dependency: Dependency) -> Option<Json> {
    match stage.ask(dependency)? {
        Known::Consul(json) => Some(json),
        _ => None,
    }
}

fn text(json: &Json, field: &str) -> Value {
    Value::from(json[field].as_str().unwrap_or_default())
}

fn decoded(pair: &Json) -> String {
    let bytes = STANDARD.decode(pair["Value"].as_str().unwrap_or_default()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The value of a key, if it is known and there is one.
fn look_up(stage: &Stage, path: &str) -> (Dependency, Option<String>) {
    let (path, datacenter) = split(path);
    let dependency = question(&format!("kv/{}", encoded(path.trim_matches('/'))), &[&datacenter]);
    let found = ask(stage, dependency.clone()).and_then(|json| json.get(0).map(decoded));
    (dependency, found)
}

/// Waits for a key that does not exist.
fn key(stage: &Stage, arguments: &[Value]) -> Answer {
    let [path] = exactly("key", arguments)?;
    let (dependency, found) = look_up(stage, &text_of(path)?);
    match found {
        Some(value) => Ok(Value::from(value)),
        None => {
            stage.lacks(dependency);
            Ok(Value::from(""))
        }
    }
}

fn key_exists(stage: &Stage, arguments: &[Value]) -> Answer {
    let [path] = exactly("keyExists", arguments)?;
    Ok(Value::Bool(look_up(stage, &text_of(path)?).1.is_some()))
}

fn key_or_default(stage: &Stage, arguments: &[Value]) -> Answer {
    let [path, default] = exactly("keyOrDefault", arguments)?;
    let found = look_up(stage, &text_of(path)?).1.filter(|value| !value.is_empty());
    Ok(found.map_or_else(|| default.clone(), Value::from))
}

/// The keys below a prefix: those directly there (`ls`), or all (`tree`). The safe ones wait until there is one.
fn pairs(stage: &Stage, function: &str, arguments: &[Value]) -> Answer {
    let [prefix] = exactly(function, arguments)?;
    let prefix = text_of(prefix)?;
    let (prefix, datacenter) = split(&prefix);
    let prefix = match prefix.trim_matches('/') {
        "" => String::new(),
        prefix => format!("{prefix}/"),
    };
    let dependency = question(&format!("kv/{}", encoded(&prefix)), &["recurse=true", &datacenter]);
    let Some(json) = ask(stage, dependency.clone()) else { return Ok(Value::from(Vec::new())) };
    let shallow = matches!(function, "ls" | "safeLs");
    let mut found = Vec::new();
    for pair in json.as_array().into_iter().flatten() {
        let path = pair["Key"].as_str().unwrap_or_default();
        let below = path.strip_prefix(&prefix).unwrap_or(path);
        if below.is_empty() || below.ends_with('/') || (shallow && below.contains('/')) {
            continue;
        }
        let index = |field: &str| Value::Uint(pair[field].as_u64().unwrap_or_default());
        found.push(Value::fields(
            "*dependency.KeyPair",
            vec![
                ("Path", Value::from(path)),
                ("Key", Value::from(below)),
                ("Value", Value::from(decoded(pair))),
                ("CreateIndex", index("CreateIndex")),
                ("ModifyIndex", index("ModifyIndex")),
                ("LockIndex", index("LockIndex")),
                ("Flags", index("Flags")),
                ("Session", text(pair, "Session")),
            ],
        ));
    }
    if found.is_empty() && function.starts_with("safe") {
        stage.lacks(dependency);
    }
    Ok(Value::from(found))
}

/// Groups the pairs of `tree` by the first part of their keys; the rest of a key is its key in the group.
fn by_key(arguments: &[Value]) -> Answer {
    let [list] = exactly("byKey", arguments)?;
    let Value::List(items) = list.viewed() else { return Ok(Value::map([])) };
    let mut groups: BTreeMap<Key, Vec<(Key, Value)>> = BTreeMap::new();
    for item in items.iter() {
        let Value::Struct(pair) = item.viewed() else { continue };
        let key = pair.field("Key").map(Value::to_text).unwrap_or_default();
        if let Some((group, rest)) = key.split_once('/') {
            groups.entry(Key::from(group)).or_default().push((Key::from(rest), item.clone()));
        }
    }
    Ok(Value::map(groups.into_iter().map(|(group, members)| (group, Value::map(members)))))
}

/// The worst of an instance's checks.
fn status(instance: &Json) -> &'static str {
    let checks = instance["Checks"].as_array().into_iter().flatten();
    let rank = |check: &Json| match check["Status"].as_str() {
        Some("passing") => 0,
        Some("warning") => 1,
        _ => 2,
    };
    ["passing", "warning", "critical"][checks.map(rank).max().unwrap_or(0)]
}

/// `[tag.]name[@datacenter][~near][|filter]`, as `any` or `passing,warning`; without a filter the passing ones.
fn service(stage: &Stage, arguments: &[Value]) -> Answer {
    between("service", arguments, 1, 2)?;
    let query = text_of(&arguments[0])?;
    let filter = arguments.get(1).map(text_of).transpose()?;
    let (query, own_filter) = query.split_once('|').unwrap_or((&query, ""));
    let filter =
        filter.filter(|text| !text.is_empty()).map_or(own_filter.to_owned(), |text| text.to_string());
    let (query, near) = query.split_once('~').unwrap_or((query, ""));
    let (name, datacenter) = split(query);
    let (tag, name) = name.rsplit_once('.').map_or(("", name), |(tag, name)| (tag, name));
    if name.is_empty() {
        return Err(Failure::called(format_args!("health.service: invalid format: {query:?}")));
    }
    let option = |name: &str, value: &str| {
        if value.is_empty() { String::new() } else { format!("{name}={}", encoded(value)) }
    };
    let dependency = question(
        &format!("health/service/{}", encoded(name)),
        &[&datacenter, &option("tag", tag), &option("near", near)],
    );
    let Some(json) = ask(stage, dependency) else { return Ok(Value::from(Vec::new())) };
    let wanted: Vec<&str> = filter.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    let shown = |status: &str| match wanted[..] {
        [] => status == "passing",
        _ => wanted.contains(&"any") || wanted.contains(&status),
    };
    let instances = json.as_array().into_iter().flatten().filter(|instance| shown(status(instance)));
    let value = |instance: &Json| {
        let (own, node) = (&instance["Service"], &instance["Node"]);
        let address = if own["Address"].as_str().unwrap_or_default().is_empty() { node } else { own };
        Value::fields(
            "*dependency.HealthService",
            vec![
                ("Node", text(node, "Node")),
                ("NodeID", text(node, "ID")),
                ("NodeAddress", text(node, "Address")),
                ("NodeDatacenter", text(node, "Datacenter")),
                ("NodeMeta", Value::from_json(&node["Meta"], true)),
                ("ServiceMeta", Value::from_json(&own["Meta"], true)),
                ("Address", text(address, "Address")),
                ("ID", text(own, "ID")),
                ("Name", text(own, "Service")),
                ("Port", Value::Int(own["Port"].as_i64().unwrap_or_default())),
                ("Status", Value::from(status(instance))),
                ("Tags", Value::from_json(&own["Tags"], true)),
            ],
        )
    };
    Ok(Value::from(instances.map(value).collect::<Vec<_>>()))
}

/// The datacenter that a function may be given as `@dc`.
fn only_datacenter(function: &str, arguments: &[Value]) -> Result<String, Failure> {
    between(function, arguments, 0, 1)?;
    match arguments.first() {
        Some(argument) => Ok(split(&text_of(argument)?).1),
        None => Ok(String::new()),
    }
}

fn services(stage: &Stage, arguments: &[Value]) -> Answer {
    let datacenter = only_datacenter("services", arguments)?;
    let json = ask(stage, question("catalog/services", &[&datacenter])).unwrap_or_default();
    let names: BTreeMap<&String, &Json> = json.as_object().into_iter().flatten().collect();
    let value = |(name, tags): (&String, &Json)| {
        Value::fields(
            "*dependency.CatalogSnippet",
            vec![("Name", Value::from(name)), ("Tags", Value::from_json(tags, true))],
        )
    };
    Ok(Value::from(names.into_iter().map(value).collect::<Vec<_>>()))
}

fn node_value(node: &Json) -> Value {
    Value::fields(
        "*dependency.Node",
        vec![
            ("ID", text(node, "ID")),
            ("Node", text(node, "Node")),
            ("Address", text(node, "Address")),
            ("Datacenter", text(node, "Datacenter")),
            ("TaggedAddresses", Value::from_json(&node["TaggedAddresses"], true)),
            ("Meta", Value::from_json(&node["Meta"], true)),
        ],
    )
}

fn nodes(stage: &Stage, arguments: &[Value]) -> Answer {
    let datacenter = only_datacenter("nodes", arguments)?;
    let json = ask(stage, question("catalog/nodes", &[&datacenter])).unwrap_or_default();
    Ok(Value::from(json.as_array().into_iter().flatten().map(node_value).collect::<Vec<_>>()))
}

fn node(stage: &Stage, arguments: &[Value]) -> Answer {
    let [name] = exactly("node", arguments)?;
    let name = text_of(name)?;
    let (name, datacenter) = split(&name);
    let json =
        ask(stage, question(&format!("catalog/node/{}", encoded(name)), &[&datacenter])).unwrap_or_default();
    if json["Node"].is_null() {
        return Ok(Value::Nil);
    }
    let own = json["Services"].as_object().into_iter().flatten().map(|(_, service)| {
        Value::fields(
            "*dependency.CatalogNodeService",
            vec![
                ("ID", text(service, "ID")),
                ("Service", text(service, "Service")),
                ("Tags", Value::from_json(&service["Tags"], true)),
                ("Meta", Value::from_json(&service["Meta"], true)),
                ("Port", Value::Int(service["Port"].as_i64().unwrap_or_default())),
                ("Address", text(service, "Address")),
            ],
        )
    });
    let services = Value::from(own.collect::<Vec<_>>());
    Ok(Value::fields(
        "*dependency.CatalogNode",
        vec![("Node", node_value(&json["Node"])), ("Services", services)],
    ))
}

fn datacenters(stage: &Stage, arguments: &[Value]) -> Answer {
    between("datacenters", arguments, 0, 1)?;
    let json = ask(stage, question("catalog/datacenters", &[])).unwrap_or_default();
    Ok(Value::texts(json.as_array().into_iter().flatten().filter_map(Json::as_str)))
}
