//! Encodings: base64, JSON, CSV, YAML, URLs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hcl::Value;
use hcl::eval::FuncArgs;
use percent_encoding::AsciiSet;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;

use super::Answer;
use super::Entry;
use super::arity;
use super::text;
use crate::jobspec::values;

pub(super) const FUNCTIONS: &[Entry] = &[
    ("base64encode", |args| {
        arity(&args, 1, 1)?;
        Ok(Value::String(STANDARD.encode(text(&args, 0)?)))
    }),
    ("base64decode", base64decode),
    ("csvdecode", csvdecode),
    ("jsonencode", |args| {
        arity(&args, 1, 1)?;
        Ok(Value::String(json(&args[0])))
    }),
    ("jsondecode", jsondecode),
    ("urlencode", urlencode),
    ("yamlencode", |args| {
        arity(&args, 1, 1)?;
        let mut out = String::new();
        yaml(&args[0], 0, false, &mut out);
        Ok(Value::String(out))
    }),
];

/// What a query string leaves as it is; blanks become `+`.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ');

fn urlencode(args: FuncArgs) -> Answer {
    arity(&args, 1, 1)?;
    let written = text(&args, 0)?;
    Ok(Value::String(utf8_percent_encode(&written, QUERY).to_string().replace(' ', "+")))
}

fn base64decode(args: FuncArgs) -> Answer {
    arity(&args, 1, 1)?;
    let bytes =
        STANDARD.decode(text(&args, 0)?).map_err(|error| format!("failed to decode base64 data: {error}"))?;
    let decoded = String::from_utf8(bytes);
    decoded
        .map(Value::String)
        .map_err(|_| "the result of decoding the provided string is not valid UTF-8".to_owned())
}

/// JSON with sorted keys and with `<`, `>` and `&` escaped.
pub(super) fn json(value: &Value) -> String {
    let plain = sorted(values::to_json(value.clone())).to_string();
    plain.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn sorted(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(map) => {
            let mut pairs: Vec<_> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            serde_json::Value::Object(pairs.into_iter().collect())
        }
        serde_json::Value::Array(items) => serde_json::Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

fn jsondecode(args: FuncArgs) -> Answer {
    arity(&args, 1, 1)?;
    let value: serde_json::Value =
        serde_json::from_str(&text(&args, 0)?).map_err(|error| error.to_string())?;
    Ok(values::from_json(&value))
}

fn csvdecode(args: FuncArgs) -> Answer {
    arity(&args, 1, 1)?;
    let mut rows = csv_rows(&text(&args, 0)?)?.into_iter();
    let header = rows.next().ok_or("missing header line")?;
    let mut out = Vec::new();
    for (index, row) in rows.enumerate() {
        if row.len() != header.len() {
            return Err(format!("wrong number of fields in row {}", index + 2));
        }
        let pairs = header.iter().cloned().zip(row.into_iter().map(Value::String));
        out.push(Value::Object(pairs.collect()));
    }
    Ok(Value::Array(out))
}

fn csv_rows(written: &str) -> Result<Vec<Vec<String>>, String> {
    let mut rows = Vec::new();
    let mut row = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut chars = written.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\r' if !quoted => {}
            '\n' if !quoted => {
                if !(row.is_empty() && field.is_empty()) {
                    row.push(std::mem::take(&mut field));
                    rows.push(std::mem::take(&mut row));
                }
            }
            other => field.push(other),
        }
    }
    if quoted {
        return Err("a quoted field is not closed".to_owned());
    }
    if !(row.is_empty() && field.is_empty()) {
        row.push(field);
        rows.push(row);
    }
    Ok(rows)
}

/// Block-style YAML with quoted keys and texts.
fn yaml(value: &Value, depth: usize, inside: bool, out: &mut String) {
    let pad = "  ".repeat(depth);
    match value {
        Value::Object(map) if !map.is_empty() => {
            let mut keys: Vec<_> = map.keys().collect();
            keys.sort();
            for (index, key) in keys.into_iter().enumerate() {
                let lead = if inside && index == 0 { "" } else { pad.as_str() };
                out.push_str(&format!("{lead}{}:", json(&Value::String(key.clone()))));
                yaml_child(&map[key.as_str()], depth, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                let lead = if inside && index == 0 { "" } else { pad.as_str() };
                out.push_str(&format!("{lead}- "));
                yaml(item, depth + 1, true, out);
            }
        }
        Value::String(text) => {
            out.push_str(&json(&Value::String(text.clone())));
            out.push('\n');
        }
        other => {
            out.push_str(&json(other));
            out.push('\n');
        }
    }
}

fn yaml_child(value: &Value, depth: usize, out: &mut String) {
    let empty =
        value.as_object().is_some_and(|map| map.is_empty()) || value.as_array().is_some_and(Vec::is_empty);
    match value {
        Value::Object(_) if !empty => {
            out.push('\n');
            yaml(value, depth + 1, false, out);
        }
        Value::Array(_) if !empty => {
            out.push('\n');
            yaml(value, depth, false, out);
        }
        other => {
            out.push(' ');
            yaml(other, depth, true, out);
        }
    }
}
