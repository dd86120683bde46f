//! Encodings: base64, JSON, CSV, YAML, URLs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::AsciiSet;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;

use super::Answer;
use super::Args;
use super::Function;
use super::Value;
use super::function;
use super::text;
use super::yaml;
use crate::jobspec::values;

pub(super) const FUNCTIONS: &[Function] = &[
    function("base64encode", &["str"], |args| Ok(Value::String(STANDARD.encode(text(args, 0)?)))),
    function("base64decode", &["str"], base64decode),
    function("csvdecode", &["str"], csvdecode),
    function("jsonencode", &["?val"], |args| Ok(Value::String(json(&args[0])))),
    function("jsondecode", &["str"], jsondecode),
    function("urlencode", &["str"], urlencode),
    function("yamldecode", &["src"], yaml::decode),
    function("yamlencode", &["?value"], yaml::encode),
];

/// What a query string leaves as it is; blanks become `+`.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ');

fn urlencode(args: &Args) -> Answer {
    let written = text(args, 0)?;
    Ok(Value::String(utf8_percent_encode(&written, QUERY).to_string().replace(' ', "+")))
}

fn base64decode(args: &Args) -> Answer {
    let bytes =
        STANDARD.decode(text(args, 0)?).map_err(|error| format!("failed to decode base64 data: {error}"))?;
    let decoded = String::from_utf8(bytes);
    decoded
        .map(Value::String)
        .map_err(|_| "the result of decoding the provided string is not valid UTF-8".into())
}

/// JSON with sorted keys and with `<`, `>` and `&` escaped.
pub(super) fn json(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(json).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(map) | Value::Map(map) => {
            let entries: Vec<String> =
                map.iter().map(|(key, value)| format!("{}:{}", json_text(key), json(value))).collect();
            format!("{{{}}}", entries.join(","))
        }
        Value::String(text) => json_text(text),
        Value::Bool(flag) => flag.to_string(),
        Value::Null => "null".to_owned(),
    }
}

fn json_text(text: &str) -> String {
    let plain = serde_json::Value::String(text.to_owned()).to_string();
    let mut out = String::with_capacity(plain.len());
    for c in plain.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", c as u32)),
            other => out.push(other),
        }
    }
    out
}

fn jsondecode(args: &Args) -> Answer {
    let value: serde_json::Value =
        serde_json::from_str(&text(args, 0)?).map_err(|error| error.to_string())?;
    Ok(values::from_json(&value))
}

fn csvdecode(args: &Args) -> Answer {
    let mut rows = csv_rows(&text(args, 0)?)?.into_iter();
    let header = rows.next().ok_or("missing header line")?;
    for (index, name) in header.iter().enumerate() {
        if header[..index].contains(name) {
            return Err(format!("duplicate column name {name:?}").into());
        }
    }
    let mut out = Vec::new();
    for (index, row) in rows.enumerate() {
        if row.len() != header.len() {
            return Err(format!("CSV parse error on line {}: wrong number of fields", index + 2).into());
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
