//! The functions of the language itself.

use super::Answer;
use super::Failure;
use super::Plain;
use super::TEXT_MAX;
use super::exactly;
use super::fits;
use super::format::Out;
use super::format::TooLarge;
use super::format::sprint;
use super::format::sprintf;
use super::format::sprintln;
use super::text_of;
use super::value::Key;
use super::value::Value;
use super::value::number;

/// The function of that name.
pub(super) fn find(name: &str) -> Option<Plain> {
    Some(match name {
        // Their arguments are looked at one by one where they are called.
        "and" | "or" => last,
        "call" => call,
        "eq" => eq,
        "ge" => ge,
        "gt" => gt,
        "html" => html,
        "index" => index,
        "js" => js,
        "le" => le,
        "len" => len,
        "lt" => lt,
        "ne" => ne,
        "not" => not,
        "print" => |arguments| printed(|out| sprint(out, arguments)),
        "printf" => printf,
        "println" => |arguments| printed(|out| sprintln(out, arguments)),
        "slice" => slice,
        "urlquery" => urlquery,
        _ => return None,
    })
}

fn last(arguments: &[Value]) -> Answer {
    Ok(arguments.last().cloned().unwrap_or_default())
}

fn call(arguments: &[Value]) -> Answer {
    match arguments.first() {
        None => Err(Failure::Arguments("wrong number of args for call: want at least 1 got 0".to_owned())),
        Some(value) if value.is_nothing() => Err(Failure::called("call of nil")),
        Some(other) => Err(Failure::called(format_args!("non-function of type {}", other.type_name()))),
    }
}

fn not(arguments: &[Value]) -> Answer {
    let [value] = exactly("not", arguments)?;
    Ok(Value::Bool(!value.truth()))
}

fn printed(print: impl FnOnce(&mut Out) -> Result<(), TooLarge>) -> Answer {
    let mut out = Out::new(TEXT_MAX);
    print(&mut out).map_err(Failure::called)?;
    Ok(Value::from(out.into_text()))
}

fn printf(arguments: &[Value]) -> Answer {
    let Some((format, values)) = arguments.split_first() else {
        return Err(Failure::Arguments("wrong number of args for printf: want at least 1 got 0".to_owned()));
    };
    let format = text_of(format)?;
    printed(|out| sprintf(out, &format, values))
}

fn len(arguments: &[Value]) -> Answer {
    let [value] = exactly("len", arguments)?;
    let len = match value.viewed() {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        Value::Map(map) => map.len(),
        Value::Missing | Value::Nil => return Err(Failure::called("len of nil pointer")),
        other => return Err(Failure::called(format_args!("len of type {}", other.type_name()))),
    };
    Ok(Value::Int(len as i64))
}

/// A position in something of `len` items; one past the end counts only where `end` is wanted.
fn position(value: &Value, len: usize, end: bool) -> Result<usize, Failure> {
    let at = match value.viewed() {
        Value::Int(at) => i128::from(at),
        Value::Uint(at) => i128::from(at),
        Value::Missing | Value::Nil => {
            return Err(Failure::called("cannot index slice/array with nil"));
        }
        other => {
            return Err(Failure::called(format_args!(
                "cannot index slice/array with type {}",
                other.type_name()
            )));
        }
    };
    let most = if end { len } else { len.saturating_sub(1) };
    match usize::try_from(at).ok().filter(|at| *at <= most && (end || len > 0)) {
        Some(at) => Ok(at),
        None => Err(Failure::called(format_args!("index out of range: {at}"))),
    }
}

fn index(arguments: &[Value]) -> Answer {
    let Some((value, keys)) = arguments.split_first() else {
        return Err(Failure::Arguments("wrong number of args for index: want at least 1 got 0".to_owned()));
    };
    if value.is_nothing() {
        return Err(Failure::called("index of untyped nil"));
    }
    let mut value = value.clone();
    for key in keys {
        value = match value.viewed() {
            Value::List(items) => items[position(key, items.len(), false)?].clone(),
            Value::Text(text) => Value::Int(i64::from(text.as_bytes()[position(key, text.len(), false)?])),
            Value::Map(map) => {
                let key = match key.viewed() {
                    Value::Text(text) => Key::Text(text),
                    Value::Int(number) => Key::Int(number),
                    other => {
                        return Err(Failure::called(format_args!(
                            "value has type {}; should be string",
                            other.type_name()
                        )));
                    }
                };
                map.get(&key).unwrap_or_default()
            }
            Value::Missing | Value::Nil => return Err(Failure::called("index of nil pointer")),
            other => {
                return Err(Failure::called(format_args!("can't index item of type {}", other.type_name())));
            }
        };
    }
    Ok(value)
}

fn slice(arguments: &[Value]) -> Answer {
    let Some((value, bounds)) = arguments.split_first() else {
        return Err(Failure::Arguments("wrong number of args for slice: want at least 1 got 0".to_owned()));
    };
    let value = value.viewed();
    let len = match &value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        Value::Missing | Value::Nil => return Err(Failure::called("slice of untyped nil")),
        other => return Err(Failure::called(format_args!("can't slice item of type {}", other.type_name()))),
    };
    if bounds.len() > 3 {
        return Err(Failure::called(format_args!("too many slice indexes: {}", bounds.len())));
    }
    if bounds.len() == 3 && matches!(value, Value::Text(_)) {
        return Err(Failure::called("cannot 3-index slice a string"));
    }
    let mut range = [0, len, len];
    for (at, bound) in bounds.iter().enumerate() {
        range[at] = position(bound, len, true)?;
    }
    let [from, to, most] = range;
    if from > to || to > most {
        return Err(Failure::called(format_args!("invalid slice index: {from} > {to}")));
    }
    Ok(match value {
        // Cut within a character, as Go may: what is left of it is replaced.
        Value::Text(text) => Value::from(String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned()),
        Value::List(items) => Value::from(items[from..to].to_vec()),
        _ => Value::Missing,
    })
}

fn joined(arguments: &[Value]) -> Result<String, Failure> {
    if let [Value::Text(text)] = arguments {
        return Ok(text.to_string());
    }
    let mut out = Out::new(TEXT_MAX);
    sprint(&mut out, arguments).map_err(Failure::called)?;
    Ok(out.into_text())
}

fn escaped(arguments: &[Value], escape: impl Fn(char, &mut String)) -> Answer {
    let text = joined(arguments)?;
    fits(text.len() * 2)?;
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| escape(c, &mut out));
    Ok(Value::from(out))
}

fn html(arguments: &[Value]) -> Answer {
    escaped(arguments, |c, out| match c {
        '\0' => out.push('\u{fffd}'),
        '"' => out.push_str("&#34;"),
        '\'' => out.push_str("&#39;"),
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        other => out.push(other),
    })
}

fn js(arguments: &[Value]) -> Answer {
    escaped(arguments, |c, out| match c {
        '\\' => out.push_str("\\\\"),
        '\'' => out.push_str("\\'"),
        '"' => out.push_str("\\\""),
        '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
        c if c < ' ' || (c > '\u{7f}' && c.is_control()) => {
            out.push_str(&format!("\\u{:04X}", u32::from(c)));
        }
        other => out.push(other),
    })
}

fn urlquery(arguments: &[Value]) -> Answer {
    let text = joined(arguments)?;
    fits(text.len() * 3)?;
    Ok(Value::from(query_escaped(&text)))
}

/// A text as a part of a query: blanks become `+`.
pub(super) fn query_escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// What kinds of values can be compared with each other.
#[derive(PartialEq)]
enum Class {
    Nothing,
    Bool,
    Int,
    Float,
    Text,
    Other,
}

fn class(value: &Value) -> Class {
    match value {
        Value::Missing | Value::Nil => Class::Nothing,
        Value::Bool(_) => Class::Bool,
        Value::Int(_) | Value::Uint(_) => Class::Int,
        Value::Float(_) => Class::Float,
        Value::Text(_) => Class::Text,
        _ => Class::Other,
    }
}

const INCOMPATIBLE: &str = "incompatible types for comparison";

fn equal(left: &Value, right: &Value) -> Result<bool, Failure> {
    let (left, right) = (left.viewed(), right.viewed());
    let (a, b) = (class(&left), class(&right));
    if a == Class::Nothing || b == Class::Nothing {
        return Ok(a == b);
    }
    if a != b {
        return Err(Failure::called(INCOMPATIBLE));
    }
    if matches!(left, Value::List(_) | Value::Map(_)) {
        return Err(Failure::called(format_args!("non-comparable type {}", left.type_name())));
    }
    Ok(match (&left, &right) {
        (Value::Int(left), Value::Uint(right)) | (Value::Uint(right), Value::Int(left)) => {
            i128::from(*left) == i128::from(*right)
        }
        _ => left.same(&right),
    })
}

fn eq(arguments: &[Value]) -> Answer {
    let Some((first, others)) = arguments.split_first() else {
        return Err(Failure::Arguments("wrong number of args for eq: want at least 1 got 0".to_owned()));
    };
    if others.is_empty() {
        return Err(Failure::called("missing argument for comparison"));
    }
    for other in others {
        if equal(first, other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn ne(arguments: &[Value]) -> Answer {
    let [left, right] = exactly("ne", arguments)?;
    Ok(Value::Bool(!equal(left, right)?))
}

fn less(left: &Value, right: &Value) -> Result<bool, Failure> {
    let (left, right) = (left.viewed(), right.viewed());
    match (&left, &right) {
        (Value::Text(left), Value::Text(right)) => Ok(left < right),
        (Value::Float(left), Value::Float(right)) => Ok(left < right),
        (Value::Int(left), Value::Int(right)) => Ok(left < right),
        (Value::Uint(left), Value::Uint(right)) => Ok(left < right),
        (Value::Int(left), Value::Uint(right)) => Ok(i128::from(*left) < i128::from(*right)),
        (Value::Uint(left), Value::Int(right)) => Ok(i128::from(*left) < i128::from(*right)),
        _ if class(&left) == Class::Bool || class(&left) == Class::Other || left.is_nothing() => {
            Err(Failure::called("invalid type for comparison"))
        }
        _ => Err(Failure::called(INCOMPATIBLE)),
    }
}

fn lt(arguments: &[Value]) -> Answer {
    let [left, right] = exactly("lt", arguments)?;
    Ok(Value::Bool(less(left, right)?))
}

fn le(arguments: &[Value]) -> Answer {
    let [left, right] = exactly("le", arguments)?;
    Ok(Value::Bool(less(left, right)? || equal(left, right)?))
}

fn gt(arguments: &[Value]) -> Answer {
    let [left, right] = exactly("gt", arguments)?;
    let unordered = [left, right].iter().any(|value| number(value).is_some_and(f64::is_nan));
    Ok(Value::Bool(!less(left, right)? && !equal(left, right)? && !unordered))
}

fn ge(arguments: &[Value]) -> Answer {
    let [left, right] = exactly("ge", arguments)?;
    let unordered = [left, right].iter().any(|value| number(value).is_some_and(f64::is_nan));
    Ok(Value::Bool(!less(left, right)? && !unordered))
}
