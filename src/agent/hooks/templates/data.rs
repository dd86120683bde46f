//! Template functions on numbers, lists, maps and JSON.

use std::collections::BTreeMap;
use std::collections::HashMap;

use gtmpl_ng::FuncError;
use gtmpl_ng::Number;
use gtmpl_ng::NumberKind;
use gtmpl_ng::Value;
use serde_json::Value as Json;

use super::engine::on_stage;
use super::functions::exactly;
use super::functions::fail;
use super::functions::text_of;

type Answered = Result<Value, FuncError>;

/// Longest list that `loop` makes.
const LOOP_MAX: i64 = 1_000_000;

/// A number that may be whole.
#[derive(Clone, Copy)]
enum Figure {
    Whole(i64),
    Real(f64),
}

impl Figure {
    fn of(function: &str, value: &Value) -> Result<Self, FuncError> {
        match value {
            Value::Number(number) => Ok(match number.kind() {
                NumberKind::Signed(whole) => Self::Whole(whole),
                NumberKind::Unsigned(whole) => Self::Whole(i64::try_from(whole).unwrap_or(i64::MAX)),
                NumberKind::Float(real) => Self::Real(real),
            }),
            other => fail(function, format_args!("unknown type for {:?}", text_of(other))),
        }
    }

    fn real(self) -> f64 {
        match self {
            Self::Whole(whole) => whole as f64,
            Self::Real(real) => real,
        }
    }
}

/// An integer argument.
pub(super) fn integer(function: &str, value: &Value) -> Result<i64, FuncError> {
    match Figure::of(function, value)? {
        Figure::Whole(whole) => Ok(whole),
        Figure::Real(real) => Ok(real as i64),
    }
}

fn arithmetic(
    function: &str,
    arguments: &[Value],
    whole: impl Fn(i64, i64) -> Option<i64>,
    real: impl Fn(f64, f64) -> f64,
) -> Answered {
    // The subject comes last: `subtract 1 5` is 5 - 1.
    let [right, left] = exactly(function, arguments)?;
    match (Figure::of(function, left)?, Figure::of(function, right)?) {
        (Figure::Whole(left), Figure::Whole(right)) => match whole(left, right) {
            Some(result) => Ok(Value::from(result)),
            None => fail(function, "integer divide by zero or overflow"),
        },
        (left, right) => Ok(Value::Number(Number::float(real(left.real(), right.real())))),
    }
}

pub(super) fn add(arguments: &[Value]) -> Answered {
    arithmetic("add", arguments, i64::checked_add, |left, right| left + right)
}

pub(super) fn subtract(arguments: &[Value]) -> Answered {
    arithmetic("subtract", arguments, i64::checked_sub, |left, right| left - right)
}

pub(super) fn multiply(arguments: &[Value]) -> Answered {
    arithmetic("multiply", arguments, i64::checked_mul, |left, right| left * right)
}

pub(super) fn divide(arguments: &[Value]) -> Answered {
    arithmetic("divide", arguments, i64::checked_div, |left, right| left / right)
}

pub(super) fn modulo(arguments: &[Value]) -> Answered {
    arithmetic("modulo", arguments, i64::checked_rem, |left, right| left % right)
}

pub(super) fn minimum(arguments: &[Value]) -> Answered {
    arithmetic("minimum", arguments, |left, right| Some(left.min(right)), f64::min)
}

pub(super) fn maximum(arguments: &[Value]) -> Answered {
    arithmetic("maximum", arguments, |left, right| Some(left.max(right)), f64::max)
}

/// `loop 3` is 0 1 2, `loop 5 8` is 5 6 7.
pub(super) fn loop_numbers(arguments: &[Value]) -> Answered {
    let (start, end) = match arguments {
        [end] => (0, whole_or_text(end)?),
        [start, end] => (whole_or_text(start)?, whole_or_text(end)?),
        _ => {
            return fail(
                "loop",
                format_args!("loop: wrong number of arguments, expected 1 or 2, but got {}", arguments.len()),
            );
        }
    };
    if end.saturating_sub(start) > LOOP_MAX {
        return fail("loop", format_args!("more than {LOOP_MAX} steps"));
    }
    Ok(Value::Array((start..end).map(Value::from).collect()))
}

fn whole_or_text(value: &Value) -> Result<i64, FuncError> {
    match value {
        Value::String(text) => {
            text.trim().parse().or_else(|_| fail("loop", format_args!("not a number: {text:?}")))
        }
        other => integer("loop", other),
    }
}

fn items<'a>(function: &str, list: &'a Value) -> Result<&'a [Value], FuncError> {
    match list {
        Value::Array(items) => Ok(items),
        Value::NoValue | Value::Nil => Ok(&[]),
        other => fail(function, format_args!("expected a list, got {other}")),
    }
}

fn same(left: &Value, right: &Value) -> bool {
    left == right
        || (matches!((left, right), (Value::Number(_), Value::Number(_))) && text_of(left) == text_of(right))
}

fn has(list: &Value, wanted: &Value) -> Result<bool, FuncError> {
    match list {
        Value::Map(entries) | Value::Object(entries) => Ok(entries.contains_key(&text_of(wanted))),
        Value::String(text) => Ok(text.contains(&text_of(wanted))),
        other => Ok(items("in", other)?.iter().any(|item| same(item, wanted))),
    }
}

/// `in list value`.
pub(super) fn is_in(arguments: &[Value]) -> Answered {
    let [list, wanted] = exactly("in", arguments)?;
    Ok(Value::from(has(list, wanted)?))
}

/// `contains value list`: for pipes and `if .Tags | contains "x"`.
pub(super) fn contains(arguments: &[Value]) -> Answered {
    let [wanted, list] = exactly("contains", arguments)?;
    Ok(Value::from(has(list, wanted)?))
}

/// How many of the wanted values are in the list, and how many are wanted.
fn overlap(function: &str, arguments: &[Value]) -> Result<(usize, usize), FuncError> {
    let [wanted, list] = exactly(function, arguments)?;
    let (wanted, list) = (items(function, wanted)?, items(function, list)?);
    let found = wanted.iter().filter(|wanted| list.iter().any(|item| same(item, wanted))).count();
    Ok((found, wanted.len()))
}

pub(super) fn contains_all(arguments: &[Value]) -> Answered {
    overlap("containsAll", arguments).map(|(found, wanted)| Value::from(found == wanted))
}

pub(super) fn contains_any(arguments: &[Value]) -> Answered {
    overlap("containsAny", arguments).map(|(found, _)| Value::from(found > 0))
}

pub(super) fn contains_none(arguments: &[Value]) -> Answered {
    overlap("containsNone", arguments).map(|(found, _)| Value::from(found == 0))
}

pub(super) fn contains_not_all(arguments: &[Value]) -> Answered {
    overlap("containsNotAll", arguments).map(|(found, wanted)| Value::from(found < wanted))
}

fn group(list: &[Value], keys: impl Fn(&HashMap<String, Value>) -> Vec<String>) -> Value {
    let mut groups: HashMap<String, Vec<Value>> = HashMap::new();
    for item in list {
        if let Value::Object(fields) | Value::Map(fields) = item {
            for key in keys(fields) {
                groups.entry(key).or_default().push(item.clone());
            }
        }
    }
    Value::Map(groups.into_iter().map(|(key, members)| (key, Value::Array(members))).collect())
}

pub(super) fn by_tag(arguments: &[Value]) -> Answered {
    let [list] = exactly("byTag", arguments)?;
    Ok(group(items("byTag", list)?, |fields| match fields.get("Tags") {
        Some(Value::Array(tags)) => tags.iter().map(text_of).collect(),
        _ => Vec::new(),
    }))
}

pub(super) fn by_port(arguments: &[Value]) -> Answered {
    let [list] = exactly("byPort", arguments)?;
    Ok(group(items("byPort", list)?, |fields| fields.get("Port").map(text_of).into_iter().collect()))
}

fn entries<'a>(function: &str, map: &'a Value) -> Result<&'a HashMap<String, Value>, FuncError> {
    match map {
        Value::Map(entries) | Value::Object(entries) => Ok(entries),
        other => fail(function, format_args!("expected a map, got {other}")),
    }
}

fn merged(function: &str, base: &Value, over: &Value) -> Answered {
    let mut all = entries(function, base)?.clone();
    all.extend(entries(function, over)?.clone());
    Ok(Value::Map(all))
}

/// The piped map wins.
pub(super) fn merge_map(arguments: &[Value]) -> Answered {
    let [other, subject] = exactly("mergeMap", arguments)?;
    merged("mergeMap", other, subject)
}

/// The argument wins over the piped map.
pub(super) fn merge_map_with_override(arguments: &[Value]) -> Answered {
    let [other, subject] = exactly("mergeMapWithOverride", arguments)?;
    merged("mergeMapWithOverride", subject, other)
}

fn parsed<T: Into<Value> + std::str::FromStr + Default>(function: &str, arguments: &[Value]) -> Answered {
    let [text] = exactly(function, arguments)?;
    let text = text_of(text);
    if text.is_empty() {
        return Ok(T::default().into());
    }
    match text.parse::<T>() {
        Ok(value) => Ok(value.into()),
        Err(_) => fail(function, format_args!("parsing {text:?}: invalid syntax")),
    }
}

pub(super) fn parse_bool(arguments: &[Value]) -> Answered {
    let [text] = exactly("parseBool", arguments)?;
    match text_of(text).as_str() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::from(true)),
        "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::from(false)),
        other => fail("parseBool", format_args!("strconv.ParseBool: parsing {other:?}: invalid syntax")),
    }
}

pub(super) fn parse_float(arguments: &[Value]) -> Answered {
    parsed::<f64>("parseFloat", arguments)
}

pub(super) fn parse_int(arguments: &[Value]) -> Answered {
    parsed::<i64>("parseInt", arguments)
}

pub(super) fn parse_uint(arguments: &[Value]) -> Answered {
    parsed::<u64>("parseUint", arguments)
}

pub(super) fn parse_json(arguments: &[Value]) -> Answered {
    let [text] = exactly("parseJSON", arguments)?;
    let text = text_of(text);
    let text = if text.trim().is_empty() { "{}" } else { &text };
    match serde_json::from_str(text) {
        Ok(json) => Ok(value_of(json)),
        Err(error) => fail("parseJSON", error),
    }
}

/// Numbers become floating point, as in Go.
fn value_of(json: Json) -> Value {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(truth) => Value::Bool(truth),
        Json::Number(number) => Value::Number(Number::float(number.as_f64().unwrap_or(f64::NAN))),
        Json::String(text) => Value::String(text),
        Json::Array(items) => Value::Array(items.into_iter().map(value_of).collect()),
        Json::Object(fields) => {
            let fields: HashMap<String, Value> =
                fields.into_iter().map(|(key, value)| (key, value_of(value))).collect();
            on_stage(|stage| stage.map(fields)).unwrap_or(Value::NoValue)
        }
    }
}

fn json_of(value: &Value) -> Json {
    match value {
        Value::NoValue | Value::Nil | Value::Function(_) => Json::Null,
        Value::Bool(truth) => Json::Bool(*truth),
        Value::String(text) => Json::String(text.clone()),
        Value::Number(number) => match number.kind() {
            NumberKind::Unsigned(whole) => whole.into(),
            NumberKind::Signed(whole) => whole.into(),
            // Go writes whole floats without a fraction.
            NumberKind::Float(real) if real.fract() == 0.0 && real.abs() < 1e15 => (real as i64).into(),
            NumberKind::Float(real) => real.into(),
        },
        Value::Array(items) => Json::Array(items.iter().map(json_of).collect()),
        Value::Map(entries) | Value::Object(entries) => {
            let sorted: BTreeMap<&String, &Value> = entries.iter().collect();
            Json::Object(sorted.into_iter().map(|(key, value)| (key.clone(), json_of(value))).collect())
        }
    }
}

fn json_text(function: &str, arguments: &[Value], pretty: bool, escape: bool) -> Answered {
    let [value] = exactly(function, arguments)?;
    let json = json_of(value);
    let text = if pretty { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) };
    let text = text.or_else(|error| fail(function, error))?;
    // Go's encoder makes JSON safe for HTML.
    let text = if escape {
        text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
    } else {
        text
    };
    Ok(Value::from(text))
}

pub(super) fn to_json(arguments: &[Value]) -> Answered {
    json_text("toJSON", arguments, false, true)
}

pub(super) fn to_json_pretty(arguments: &[Value]) -> Answered {
    json_text("toJSONPretty", arguments, true, true)
}

pub(super) fn to_unescaped_json(arguments: &[Value]) -> Answered {
    json_text("toUnescapedJSON", arguments, false, false)
}

pub(super) fn to_unescaped_json_pretty(arguments: &[Value]) -> Answered {
    json_text("toUnescapedJSONPretty", arguments, true, false)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::NoValue | Value::Nil => true,
        Value::Bool(truth) => !truth,
        Value::String(text) => text.is_empty(),
        Value::Number(_) => text_of(value) == "0",
        Value::Array(items) => items.is_empty(),
        Value::Map(entries) | Value::Object(entries) => entries.is_empty(),
        Value::Function(_) => false,
    }
}

/// `default fallback value`.
pub(super) fn default(arguments: &[Value]) -> Answered {
    match arguments {
        [fallback] => Ok(fallback.clone()),
        [fallback, value] => Ok(if is_empty(value) { fallback.clone() } else { value.clone() }),
        _ => fail("default", "expected a default and a value"),
    }
}

pub(super) fn coalesce(arguments: &[Value]) -> Answered {
    Ok(arguments.iter().find(|value| !is_empty(value)).cloned().unwrap_or(Value::Nil))
}

pub(super) fn empty(arguments: &[Value]) -> Answered {
    let [value] = exactly("empty", arguments)?;
    Ok(Value::from(is_empty(value)))
}

/// `ternary yes no condition`.
pub(super) fn ternary(arguments: &[Value]) -> Answered {
    let [yes, no, condition] = exactly("ternary", arguments)?;
    Ok(if is_empty(condition) { no.clone() } else { yes.clone() })
}

pub(super) fn list(arguments: &[Value]) -> Answered {
    Ok(Value::Array(arguments.to_vec()))
}

pub(super) fn dict(arguments: &[Value]) -> Answered {
    let pairs =
        arguments.chunks(2).map(|pair| (text_of(&pair[0]), pair.get(1).cloned().unwrap_or(Value::from(""))));
    Ok(Value::Map(pairs.collect()))
}

pub(super) fn get(arguments: &[Value]) -> Answered {
    let [map, key] = exactly("get", arguments)?;
    Ok(entries("get", map)?.get(&text_of(key)).cloned().unwrap_or(Value::from("")))
}

pub(super) fn has_key(arguments: &[Value]) -> Answered {
    let [map, key] = exactly("hasKey", arguments)?;
    Ok(Value::from(entries("hasKey", map)?.contains_key(&text_of(key))))
}

pub(super) fn keys(arguments: &[Value]) -> Answered {
    let [map] = exactly("keys", arguments)?;
    let mut keys: Vec<&String> = entries("keys", map)?.keys().collect();
    keys.sort();
    Ok(Value::Array(keys.into_iter().map(Value::from).collect()))
}

pub(super) fn first(arguments: &[Value]) -> Answered {
    let [list] = exactly("first", arguments)?;
    Ok(items("first", list)?.first().cloned().unwrap_or(Value::Nil))
}

pub(super) fn last(arguments: &[Value]) -> Answered {
    let [list] = exactly("last", arguments)?;
    Ok(items("last", list)?.last().cloned().unwrap_or(Value::Nil))
}
