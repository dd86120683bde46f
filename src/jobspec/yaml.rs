//! Jobs in YAML: the job in the form of the API's JSON, or a manifest with the job as its `spec`.
//!
//! ```yaml
//! apiVersion: herder.dev/v1
//! kind: Job
//! metadata: { name: web, namespace: default, labels: { team: shop } }
//! spec: { type: service, taskGroups: [ … ] }
//! ```
//!
//! People write YAML by hand, so durations may be written as text here (`30s`), which the JSON of the API does not allow.

use std::ops::Range;
use std::sync::Arc;

use serde_json::Map;
use serde_json::Value;

use crate::model::time::Span;

use super::diagnostic::Diagnostic;
use super::diagnostic::SourceText;
use super::json;
use super::outline;
use super::outline::tree::Tree;

/// The only version of manifests.
const API_VERSION: &str = "herder.dev/v1";
const KIND: &str = "Job";

/// Limits of one file: far beyond what a job needs, far below what could hurt a server.
const MAX_NODES: usize = 100_000;
const MAX_EVENTS: usize = 400_000;
const MAX_DEPTH: usize = 64;
const MAX_SCALAR_BYTES: usize = 8 * 1024 * 1024;

/// Keys of the job whose values are durations.
const DURATIONS: &[&str] = &[
    "ConnectTimeout",
    "Delay",
    "Grace",
    "HealthTimeout",
    "HealthyDeadline",
    "Interval",
    "KillTimeout",
    "LostAfter",
    "MaxClientDisconnect",
    "MaxDelay",
    "MinHealthyTime",
    "ProgressDeadline",
    "ShutdownDelay",
    "Splay",
    "Stagger",
    "StopAfterClientDisconnect",
    "StopOnClientAfter",
    "TTL",
    "Timeout",
    "VaultGrace",
];
/// Keys whose values belong to the user, where nothing is a duration.
const FOREIGN: &[&str] = &[
    "CanaryMeta",
    "Config",
    "Env",
    "GetterHeaders",
    "GetterOptions",
    "Header",
    "Meta",
    "Policy",
    "TaggedAddresses",
];

/// True when a file is YAML, judging by its name or by its first line that says something: `key:` cannot begin a file in
/// HCL, and `---` neither.
pub(super) fn is_file(name: &str, text: &str) -> bool {
    if name.ends_with(".yaml") || name.ends_with(".yml") {
        return true;
    }
    let line = text.lines().map(str::trim_end).find(|line| {
        let start = line.trim_start();
        !start.is_empty() && !start.starts_with('#')
    });
    let Some(line) = line else { return false };
    if line == "---" || line.starts_with("--- ") || line.starts_with("%YAML") {
        return true;
    }
    let key = line.split_once(':').filter(|(_, rest)| rest.is_empty() || rest.starts_with(' '));
    key.is_some_and(|(key, _)| {
        let key = key.trim_matches(['"', '\'']);
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    })
}

/// The job of a file as the JSON of the API, and where it stands in the file.
///
/// # Errors
/// With the line and column where the text is no YAML, or the key that does not belong there.
pub(super) fn parse(source: &Arc<SourceText>) -> Result<(Value, Tree), Box<Diagnostic>> {
    let wrong = |place: Range<usize>, summary: &str, detail: String| {
        Box::new(Diagnostic::at(source, place, summary, detail))
    };
    let value: Value = serde_yaml::from_str_with_options(&source.text, options())
        .map_err(|error| Box::new(located(source, &error)))?;
    let Value::Object(map) = value else {
        return Err(wrong(0..0, "Invalid YAML", "A job is a mapping of keys to values.".to_owned()));
    };
    let places = outline::yaml::tree(&source.text, options())
        .ok_or_else(|| wrong(0..0, "Invalid YAML", "The places of its values cannot be told.".to_owned()))?;
    let manifest = key_of(&map, "apiVersion").is_some() || key_of(&map, "kind").is_some();
    let (job, places) = if manifest {
        let job =
            manifest_job(map).map_err(|(path, why)| wrong(places.place(&path), "Invalid manifest", why))?;
        (job, places.manifest_job())
    } else {
        (json::unwrap_job(Value::Object(map)), places.below("job"))
    };
    let mut job = json::normalize(job);
    if let Some(path) = json::unknown(&job) {
        let detail = format!("There is no key {path:?} in a job.");
        return Err(wrong(places.place(&path), "Unsupported key", detail));
    }
    durations(&mut job, "", &mut String::new())
        .map_err(|(path, why)| wrong(places.place(&path), "Unsuitable value type", why))?;
    Ok((job, places))
}

fn options() -> serde_yaml::Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_nodes: MAX_NODES,
            max_events: MAX_EVENTS,
            max_depth: MAX_DEPTH,
            max_total_scalar_bytes: MAX_SCALAR_BYTES,
        },
        with_snippet: false,
        // A job may be called "y" or "on".
        strict_booleans: true,
    }
}

fn located(source: &Arc<SourceText>, error: &serde_yaml::Error) -> Diagnostic {
    let error = error.without_snippet();
    let offset = error.location().map_or(0, |at| {
        let (line, column) = (at.line().max(1), at.column().max(1));
        offset_of(&source.text, usize::try_from(line).unwrap_or(1), usize::try_from(column).unwrap_or(1))
    });
    let written = error.to_string();
    // The place is said by the diagnostic already.
    let message = written.lines().next().unwrap_or_default();
    let message = match (message.strip_prefix("error: line "), message.split_once(": ")) {
        (Some(_), Some((_, rest))) => rest.split_once(": ").map_or(rest, |(_, rest)| rest),
        _ => message.rsplit_once(" at line ").map_or(message, |(before, _)| before),
    };
    Diagnostic::at(source, offset..offset + 1, "Invalid YAML", message.to_owned())
}

/// The byte offset of a line and a column, both from 1.
fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let rest = text[start..].lines().next().unwrap_or_default();
    start + rest.char_indices().nth(column - 1).map_or(rest.len(), |(offset, _)| offset)
}

fn key_of<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    map.get(key).or_else(|| map.iter().find(|(own, _)| own.eq_ignore_ascii_case(key)).map(|(_, value)| value))
}

/// The job of a manifest: its `spec`, with name, namespace and labels from `metadata`.
fn manifest_job(map: Map<String, Value>) -> Result<Value, (String, String)> {
    let version = key_of(&map, "apiVersion").and_then(Value::as_str).unwrap_or_default();
    if version != API_VERSION {
        let why = format!("The value of \"apiVersion\" must be \"{API_VERSION}\", not {version:?}.");
        return Err(("apiVersion".to_owned(), why));
    }
    let kind = key_of(&map, "kind").and_then(Value::as_str).unwrap_or_default();
    if kind != KIND {
        return Err(("kind".to_owned(), format!("The value of \"kind\" must be \"{KIND}\", not {kind:?}.")));
    }
    if let Some(other) = map.keys().find(|key| {
        !["apiVersion", "kind", "metadata", "spec"].iter().any(|known| known.eq_ignore_ascii_case(key))
    }) {
        return Err((
            other.clone(),
            format!("A manifest has no key {other:?}; the job belongs below \"spec\"."),
        ));
    }
    let Some(Value::Object(spec)) = key_of(&map, "spec") else {
        return Err((String::new(), "The key \"spec\", which holds the job, is required.".to_owned()));
    };
    let Value::Object(mut job) = json::normalize(Value::Object(spec.clone())) else {
        return Err(("spec".to_owned(), "The value of \"spec\" must be a mapping.".to_owned()));
    };
    let Some(Value::Object(metadata)) = key_of(&map, "metadata") else {
        return Err((String::new(), "The key \"metadata\" with the name of the job is required.".to_owned()));
    };
    add_metadata(&mut job, metadata)?;
    if !job.contains_key("ID") {
        return Err(("metadata".to_owned(), "The key \"metadata.name\" is required.".to_owned()));
    }
    Ok(Value::Object(job))
}

/// Name, namespace and labels.
fn add_metadata(job: &mut Map<String, Value>, metadata: &Map<String, Value>) -> Result<(), (String, String)> {
    let text = |value: &Value, place: &'static str| {
        let text = value.as_str().map(str::to_owned);
        text.ok_or_else(|| (place.to_owned(), format!("The value of {place:?} must be a text.")))
    };
    for (key, value) in metadata {
        match key.as_str() {
            "name" => {
                let place = "metadata.name";
                let name = text(value, place)?;
                agree(job, "ID", &name, "name").map_err(|why| (place.to_owned(), why))?;
                job.entry("Name").or_insert_with(|| name.into());
            }
            "namespace" => {
                let place = "metadata.namespace";
                let name = text(value, place)?;
                agree(job, "Namespace", &name, "namespace").map_err(|why| (place.to_owned(), why))?;
            }
            "labels" => labels(job, value).map_err(|why| ("metadata.labels".to_owned(), why))?,
            other => {
                let known = "it may hold \"name\", \"namespace\" and \"labels\"";
                return Err((
                    format!("metadata.{other}"),
                    format!("There is no key {other:?} in \"metadata\": {known}."),
                ));
            }
        }
    }
    Ok(())
}

/// Sets a key of the job from the metadata; it is an error when the job says something else.
fn agree(job: &mut Map<String, Value>, key: &str, value: &str, name: &str) -> Result<(), String> {
    match job.get(key).and_then(Value::as_str).filter(|own| !own.is_empty()) {
        Some(own) if own != value => {
            Err(format!("\"spec\" says {key} {own:?}, but \"metadata.{name}\" says {value:?}."))
        }
        _ => {
            job.insert(key.to_owned(), value.into());
            Ok(())
        }
    }
}

/// Labels become metadata of the job.
fn labels(job: &mut Map<String, Value>, labels: &Value) -> Result<(), String> {
    let labels = labels.as_object().ok_or("The value of \"metadata.labels\" must be a mapping.")?;
    let meta = job.entry("Meta").or_insert_with(|| Value::Object(Map::new()));
    let meta = meta.as_object_mut().ok_or("The value of \"meta\" must be a mapping.")?;
    for (key, value) in labels {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => return Err(format!("The label {key:?} must be a text.")),
        };
        if meta.get(key).is_some_and(|own| *own != text.as_str()) {
            return Err(format!("The label {key:?} is also a key of \"meta\", with another value."));
        }
        meta.insert(key.clone(), text.into());
    }
    Ok(())
}

/// Turns durations that are written as text into nanoseconds; numbers and booleans of text maps into text. An error comes
/// with its path.
fn durations(value: &mut Value, parent: &str, path: &mut String) -> Result<(), (String, String)> {
    let before = path.len();
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                if FOREIGN.contains(&key.as_str()) {
                    if matches!(key.as_str(), "Meta" | "Env" | "CanaryMeta") {
                        as_texts(value);
                    }
                    continue;
                }
                path.push('.');
                path.push_str(key);
                let is_duration = DURATIONS.contains(&key.as_str())
                    || (parent == "Wait" && matches!(key.as_str(), "Min" | "Max"));
                match value {
                    Value::String(text) if is_duration => {
                        let span = Span::parse(text);
                        let span = span.map_err(|why| {
                            (path.clone(), format!("Unsuitable duration value of {key}: {why}"))
                        })?;
                        *value = span.0.into();
                    }
                    _ => durations(value, key, path)?,
                }
                path.truncate(before);
            }
            Ok(())
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                path.push_str(&format!("[{index}]"));
                durations(item, parent, path)?;
                path.truncate(before);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn as_texts(value: &mut Value) {
    for value in value.as_object_mut().into_iter().flat_map(Map::values_mut) {
        if value.is_number() || value.is_boolean() {
            *value = value.to_string().into();
        }
    }
}
