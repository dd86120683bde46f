//! Conversion of evaluated values to the types of attributes, by the rules of HCL's type system.

use serde_json::Map;
use serde_json::Value as Json;

use crate::model::time::Span;

use super::schema::Kind;
use super::value::Number;
use super::value::Value;

/// A value that does not fit: summary and detail.
pub(super) type Misfit = (String, String);

pub(super) fn misfit(detail: &str) -> Misfit {
    ("Unsuitable value type".to_owned(), format!("Unsuitable value: {detail}"))
}

/// The JSON form of an evaluated value; whole numbers become integers.
pub(super) fn to_json(value: Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(flag) => Json::Bool(flag),
        Value::Number(number) => number_to_json(number),
        Value::String(text) => Json::String(text),
        Value::Array(items) => Json::Array(items.into_iter().map(to_json).collect()),
        Value::Object(map) | Value::Map(map) => {
            Json::Object(map.into_iter().map(|(key, value)| (key, to_json(value))).collect())
        }
    }
}

fn number_to_json(number: Number) -> Json {
    if let Some(whole) = number.as_whole() {
        if let Ok(whole) = i64::try_from(whole) {
            return Json::from(whole);
        }
        if let Ok(whole) = u64::try_from(whole) {
            return Json::from(whole);
        }
    }
    serde_json::Number::from_f64(number.as_f64()).map_or(Json::Null, Json::Number)
}

/// The evaluated form of a JSON value.
pub(super) fn from_json(value: &Json) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => Value::Number(match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Number::Whole(i128::from(whole)),
            (None, Some(whole)) => Number::Whole(i128::from(whole)),
            (None, None) => Number::from_f64(number.as_f64().unwrap_or_default()),
        }),
        Json::String(text) => Value::String(text.clone()),
        Json::Array(items) => Value::Array(items.iter().map(from_json).collect()),
        Json::Object(map) => {
            Value::Object(map.iter().map(|(key, value)| (key.clone(), from_json(value))).collect())
        }
    }
}

/// Converts a value to the type of an attribute. `None`: the attribute counts as absent.
///
/// # Errors
/// When there is no conversion.
pub(super) fn convert(value: Json, kind: Kind) -> Result<Option<Json>, Misfit> {
    if value.is_null() {
        if kind == Kind::Duration {
            return Err(("Unsuitable value".to_owned(), "Unsuitable duration value: nil".to_owned()));
        }
        return Ok(None);
    }
    match kind {
        Kind::Text => text(value).map(Json::String),
        Kind::Number => number(&value).map(Json::from),
        Kind::Flag => flag(&value).map(Json::Bool),
        Kind::Duration => duration(&value).map(Json::from),
        Kind::Texts => match value {
            Json::Array(items) => {
                let items = items.into_iter().map(text);
                let items: Result<Vec<_>, _> = items.map(|item| item.map(Json::String)).collect();
                items.map(Json::Array).map_err(|_| misfit("list of string required"))
            }
            _ => Err(misfit("list of string required")),
        },
        Kind::Numbers => match value {
            Json::Array(items) => {
                let items: Result<Vec<_>, _> =
                    items.iter().map(|item| number(item).map(Json::from)).collect();
                items.map(Json::Array).map_err(|_| misfit("list of number required"))
            }
            _ => Err(misfit("list of number required")),
        },
        Kind::TextMap => text_map(value).map(Json::Object),
    }
    .map(Some)
}

/// A text; numbers and booleans are written out.
pub(super) fn text(value: Json) -> Result<String, Misfit> {
    match value {
        Json::String(text) => Ok(text),
        Json::Bool(flag) => Ok(flag.to_string()),
        Json::Number(number) => Ok(number.to_string()),
        _ => Err(misfit("string required")),
    }
}

/// A map of texts.
pub(super) fn text_map(value: Json) -> Result<Map<String, Json>, Misfit> {
    let Json::Object(map) = value else { return Err(misfit("map of string required")) };
    let mut out = Map::new();
    for (key, value) in map {
        if value.is_null() {
            return Err(misfit(&format!("element {key:?}: null value is not allowed")));
        }
        let value = text(value).map_err(|_| misfit(&format!("element {key:?}: string required")))?;
        out.insert(key, Json::String(value));
    }
    Ok(out)
}

fn number(value: &Json) -> Result<i64, Misfit> {
    const WHOLE: &str = "value must be a whole number, between -9223372036854775808 and 9223372036854775807";
    match value {
        Json::Number(number) => number.as_i64().ok_or_else(|| misfit(WHOLE)),
        Json::String(text) => match text.trim().parse::<i64>() {
            Ok(number) => Ok(number),
            Err(_) if text.trim().parse::<f64>().is_ok() => Err(misfit(WHOLE)),
            Err(_) => Err(misfit("a number is required")),
        },
        _ => Err(misfit("number required")),
    }
}

fn flag(value: &Json) -> Result<bool, Misfit> {
    match value {
        Json::Bool(flag) => Ok(*flag),
        Json::String(text) => match text.as_str() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(misfit("a bool is required")),
        },
        _ => Err(misfit("bool required")),
    }
}

/// Nanoseconds.
fn duration(value: &Json) -> Result<i64, Misfit> {
    let wrong = |detail: String| ("Unsuitable value type".to_owned(), detail);
    match value {
        Json::String(text) => {
            let span = Span::parse(text);
            span.map(|span| span.0).map_err(|why| wrong(format!("Unsuitable duration value: {why}")))
        }
        Json::Number(_) => number(value),
        Json::Bool(_) => Err(wrong("Unsuitable value: expected a string but found bool".to_owned())),
        _ => Err(wrong("Unsuitable value: expected a string but found a collection".to_owned())),
    }
}
