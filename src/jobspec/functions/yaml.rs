//! YAML in both directions.

use super::Answer;
use super::Args;
use super::Value;
use super::text;
use super::time;
use crate::jobspec::outline;
use crate::jobspec::outline::tree::Kind;
use crate::jobspec::outline::tree::Tree;
use crate::jobspec::values;

const MAX_NODES: usize = 100_000;
const MAX_DEPTH: usize = 64;

pub(super) fn decode(args: &Args) -> Answer {
    let written = text(args, 0)?;
    if written.trim().is_empty() {
        return Err("on line 1, column 1: missing start of document".into());
    }
    let options = serde_yaml::options! {
        budget: serde_yaml::budget! { max_nodes: MAX_NODES, max_depth: MAX_DEPTH },
        duplicate_keys: serde_yaml::options::DuplicateKeyPolicy::LastWins,
        with_snippet: false,
    };
    let value: Result<serde_json::Value, _> = serde_yaml::from_str_with_options(&written, options.clone());
    let mut value = value.map_err(|error| error.to_string())?;
    if let Some(tree) = outline::yaml::tree(&written, options) {
        normalize_dates(&mut value, &tree);
    }
    Ok(values::from_json(&value))
}

/// Dates that are written without quotes become time stamps in the form of RFC 3339.
fn normalize_dates(value: &mut serde_json::Value, written: &Tree) {
    match (value, &written.kind) {
        (serde_json::Value::String(text), Kind::Bare(_)) => {
            if let Some(stamp) = time::from_yaml(text) {
                *text = stamp;
            }
        }
        (serde_json::Value::Array(items), Kind::Array(written)) => {
            items.iter_mut().zip(written).for_each(|(item, written)| normalize_dates(item, written));
        }
        (serde_json::Value::Object(map), Kind::Object(written)) => {
            for (key, value) in map {
                // Of equal keys, the last one counts.
                if let Some(written) = written.iter().rfind(|entry| entry.key == *key) {
                    normalize_dates(value, &written.value);
                }
            }
        }
        _ => {}
    }
}

pub(super) fn encode(args: &Args) -> Answer {
    let mut out = String::new();
    write(&args[0], 0, false, &mut out);
    // A bare word at the end of a document needs its end marked.
    if matches!(args[0], Value::Null | Value::Bool(_) | Value::Number(_)) {
        out.push_str("...\n");
    }
    Ok(Value::String(out))
}

/// Block style with quoted keys and texts. `inside`: the first line is continued, not begun.
fn write(value: &Value, depth: usize, inside: bool, out: &mut String) {
    let pad = "  ".repeat(depth);
    match value {
        Value::Object(map) | Value::Map(map) if !map.is_empty() => {
            for (index, (key, child)) in map.iter().enumerate() {
                let lead = if inside && index == 0 { "" } else { pad.as_str() };
                out.push_str(&format!("{lead}{}:", quoted(key)));
                let is_empty = |value: &Value| {
                    value.entries().is_some_and(|map| map.is_empty())
                        || value.as_array().is_some_and(Vec::is_empty)
                };
                match child {
                    child if is_empty(child) || !child.is_collection() => {
                        out.push(' ');
                        write(child, depth + 1, true, out);
                    }
                    Value::Array(_) => {
                        out.push('\n');
                        write(child, depth, false, out);
                    }
                    _ => {
                        out.push('\n');
                        write(child, depth + 1, false, out);
                    }
                }
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                let lead = if inside && index == 0 { "" } else { pad.as_str() };
                out.push_str(&format!("{lead}- "));
                write(item, depth + 1, true, out);
            }
        }
        Value::Object(_) | Value::Map(_) => out.push_str("{}\n"),
        Value::String(text) => scalar(text, depth.max(1), out),
        other => {
            out.push_str(&super::encoding::json(other));
            out.push('\n');
        }
    }
}

/// A text: quoted, or literal lines where there are several.
fn scalar(text: &str, depth: usize, out: &mut String) {
    let plain = |c: char| c == '\n' || c == '\t' || !c.is_control();
    let body = text.trim_end_matches('\n');
    let lines = body.contains('\n') || (text.ends_with('\n') && !body.is_empty());
    if !lines
        || !text.chars().all(plain)
        || body.lines().next().is_none_or(|line| line.starts_with([' ', '\t']))
    {
        out.push_str(&quoted(text));
        out.push('\n');
        return;
    }
    out.push_str(match text.len() - body.len() {
        0 => "|-\n",
        1 => "|\n",
        _ => "|+\n",
    });
    let pad = "  ".repeat(depth);
    for line in text.split_inclusive('\n') {
        if line != "\n" {
            out.push_str(&pad);
        }
        out.push_str(line);
    }
    if !text.ends_with('\n') {
        out.push('\n');
    }
}

/// In double quotes; unlike in JSON, `<` and the like stay.
fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}
