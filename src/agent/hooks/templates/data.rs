//! Template functions on numbers, lists, maps, and on JSON, YAML and TOML.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::gotemplate::Answer;
use crate::gotemplate::Failure;
use crate::gotemplate::ITEMS_MAX;
use crate::gotemplate::Plain;
use crate::gotemplate::TEXT_MAX;
use crate::gotemplate::exactly;
use crate::gotemplate::format::Out;
use crate::gotemplate::format::TooLarge;
use crate::gotemplate::format::quoted;
use crate::gotemplate::format::sprintf;
use crate::gotemplate::json;
use crate::gotemplate::json::Style;
use crate::gotemplate::text_of;
use crate::gotemplate::value::DEPTH_MAX;
use crate::gotemplate::value::Key;
use crate::gotemplate::value::Map;
use crate::gotemplate::value::Value;

pub(super) const FUNCTIONS: &[(&str, Plain)] = &[
    ("add", |a| arithmetic("add", a, i64::checked_add, |left, right| left + right)),
    ("subtract", |a| arithmetic("subtract", a, i64::checked_sub, |left, right| left - right)),
    ("multiply", |a| arithmetic("multiply", a, i64::checked_mul, |left, right| left * right)),
    ("divide", |a| arithmetic("divide", a, i64::checked_div, |left, right| left / right)),
    ("modulo", |a| arithmetic("modulo", a, i64::checked_rem, |left, right| left % right)),
    ("minimum", |a| arithmetic("minimum", a, |left, right| Some(left.min(right)), f64::min)),
    ("maximum", |a| arithmetic("maximum", a, |left, right| Some(left.max(right)), f64::max)),
    ("loop", loop_numbers),
    ("in", |a| {
        let [list, wanted] = exactly("in", a)?;
        Ok(Value::Bool(has(list, wanted)?))
    }),
    ("contains", |a| {
        let [wanted, list] = exactly("contains", a)?;
        Ok(Value::Bool(has(list, wanted)?))
    }),
    ("containsAll", |a| overlap("containsAll", a, |found, wanted| found == wanted)),
    ("containsAny", |a| overlap("containsAny", a, |found, _| found > 0)),
    ("containsNone", |a| overlap("containsNone", a, |found, _| found == 0)),
    ("containsNotAll", |a| overlap("containsNotAll", a, |found, wanted| found < wanted)),
    ("byTag", by_tag),
    ("byPort", by_port),
    ("explodeMap", explode_map),
    // The piped map wins.
    ("mergeMap", |a| {
        let [other, subject] = exactly("mergeMap", a)?;
        let (other, subject) = (map(other)?, map(subject)?);
        merged(&other, &subject, 0)
    }),
    // The argument wins over the piped map.
    ("mergeMapWithOverride", |a| {
        let [other, subject] = exactly("mergeMapWithOverride", a)?;
        let (other, subject) = (map(other)?, map(subject)?);
        merged(&subject, &other, 0)
    }),
    ("parseBool", parse_bool),
    ("parseFloat", |a| parsed("parseFloat", "ParseFloat", a, |text| text.parse().map(Value::Float).ok())),
    ("parseInt", |a| parsed("parseInt", "ParseInt", a, |text| text.parse().map(Value::Int).ok())),
    ("parseUint", |a| parsed("parseUint", "ParseUint", a, |text| text.parse().map(Value::Uint).ok())),
    ("parseJSON", parse_json),
    ("parseYAML", parse_yaml),
    ("toJSON", |a| to_json("toJSON", a, Style { html: true, indent: None })),
    ("toJSONPretty", |a| to_json("toJSONPretty", a, Style { html: true, indent: Some(2) })),
    ("toUnescapedJSON", |a| to_json("toUnescapedJSON", a, Style::default())),
    ("toUnescapedJSONPretty", |a| {
        to_json("toUnescapedJSONPretty", a, Style { html: false, indent: Some(2) })
    }),
    ("toTOML", to_toml),
    ("toYAML", to_yaml),
    ("spew_dump", spew),
    ("spew_sdump", spew),
    ("spew_printf", spew_printf),
    ("spew_sprintf", spew_printf),
];

/// A number that may be whole.
#[derive(Clone, Copy)]
enum Figure {
    Whole(i64),
    Real(f64),
}

impl Figure {
    fn of(function: &str, value: &Value) -> Result<Self, Failure> {
        match value.viewed() {
            Value::Int(whole) => Ok(Self::Whole(whole)),
            Value::Uint(whole) => Ok(Self::Whole(i64::try_from(whole).unwrap_or(i64::MAX))),
            Value::Float(real) => Ok(Self::Real(real)),
            other => Err(Failure::called(format_args!(
                "{function}: unknown type for {:?} ({})",
                other.to_text(),
                other.type_name()
            ))),
        }
    }

    fn real(self) -> f64 {
        match self {
            Self::Whole(whole) => whole as f64,
            Self::Real(real) => real,
        }
    }
}

fn arithmetic(
    function: &str,
    arguments: &[Value],
    whole: impl Fn(i64, i64) -> Option<i64>,
    real: impl Fn(f64, f64) -> f64,
) -> Answer {
    // The subject comes last: `subtract 1 5` is 5 - 1.
    let [right, left] = exactly(function, arguments)?;
    match (Figure::of(function, left)?, Figure::of(function, right)?) {
        (Figure::Whole(left), Figure::Whole(right)) => match whole(left, right) {
            Some(result) => Ok(Value::Int(result)),
            None if right == 0 => Err(Failure::called("runtime error: integer divide by zero")),
            None => Err(Failure::called(format_args!("{function}: the result is no 64 bit integer"))),
        },
        (left, right) => Ok(Value::Float(real(left.real(), right.real()))),
    }
}

/// `loop 3` is 0 1 2, `loop 5 8` is 5 6 7.
fn loop_numbers(arguments: &[Value]) -> Answer {
    let (start, end) = match arguments {
        [end] => (0, whole_or_text(end)?),
        [start, end] => (whole_or_text(start)?, whole_or_text(end)?),
        _ => {
            return Err(Failure::called(format_args!(
                "loop: wrong number of arguments, expected 1 or 2, but got {}",
                arguments.len()
            )));
        }
    };
    if end.saturating_sub(start) > ITEMS_MAX as i64 {
        return Err(Failure::called(format_args!("loop: more than {ITEMS_MAX} steps")));
    }
    Ok(Value::from((start..end).map(Value::Int).collect::<Vec<_>>()))
}

fn whole_or_text(value: &Value) -> Result<i64, Failure> {
    match value.viewed() {
        Value::Text(text) => {
            text.trim().parse().map_err(|_| Failure::called(format_args!("loop: not a number: {text:?}")))
        }
        other => match Figure::of("loop", &other)? {
            Figure::Whole(whole) => Ok(whole),
            Figure::Real(real) => Ok(real as i64),
        },
    }
}

fn items(value: &Value) -> Result<Vec<Value>, Failure> {
    match value.viewed() {
        Value::List(items) => Ok(items.to_vec()),
        Value::Missing | Value::Nil => Ok(Vec::new()),
        other => Err(Failure::called(format_args!("expected a list, got {}", other.type_name()))),
    }
}

fn map(value: &Value) -> Result<Rc<Map>, Failure> {
    match value.viewed() {
        Value::Map(map) => Ok(map),
        other => Err(Failure::called(format_args!("expected a map, got {}", other.type_name()))),
    }
}

fn has(list: &Value, wanted: &Value) -> Result<bool, Failure> {
    match list.viewed() {
        Value::Map(map) => Ok(map.text(&wanted.to_text()).is_some()),
        Value::Text(text) => Ok(text.contains(&wanted.to_text())),
        other => Ok(items(&other)?.iter().any(|item| item.same(wanted))),
    }
}

/// Decides by how many of the wanted values are in the list, and how many are wanted.
fn overlap(function: &str, arguments: &[Value], decide: impl Fn(usize, usize) -> bool) -> Answer {
    let [wanted, list] = exactly(function, arguments)?;
    let (wanted, list) = (items(wanted)?, items(list)?);
    if wanted.len().saturating_mul(list.len()) > 10 * ITEMS_MAX {
        return Err(Failure::called(format_args!("{function}: the lists are too long")));
    }
    let found = wanted.iter().filter(|wanted| list.iter().any(|item| item.same(wanted))).count();
    Ok(Value::Bool(decide(found, wanted.len())))
}

fn grouped(list: &[Value], keys: impl Fn(&Value) -> Vec<Key>) -> Value {
    let mut groups: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
    for item in list {
        for key in keys(item) {
            groups.entry(key).or_default().push(item.clone());
        }
    }
    Value::map(groups.into_iter().map(|(key, members)| (key, Value::from(members))))
}

fn field(item: &Value, name: &str) -> Option<Value> {
    match item {
        Value::Struct(of) => of.field(name).cloned(),
        Value::Map(map) => map.text(name),
        _ => None,
    }
}

fn by_tag(arguments: &[Value]) -> Answer {
    let [list] = exactly("byTag", arguments)?;
    Ok(grouped(&items(list)?, |item| match field(item, "Tags").map(|tags| tags.viewed()) {
        Some(Value::List(tags)) => tags.iter().map(|tag| Key::from(tag.to_text().as_str())).collect(),
        _ => Vec::new(),
    }))
}

fn by_port(arguments: &[Value]) -> Answer {
    let [list] = exactly("byPort", arguments)?;
    Ok(grouped(&items(list)?, |item| match field(item, "Port") {
        Some(Value::Int(port)) => vec![Key::Int(port)],
        _ => Vec::new(),
    }))
}

/// `a/b` becomes a map `a` with the key `b`.
fn explode_map(arguments: &[Value]) -> Answer {
    let [of] = exactly("explodeMap", arguments)?;
    let root = Rc::new(Map::default());
    for (key, value) in map(of)?.entries() {
        let path = key.to_string();
        let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if parts.len() > DEPTH_MAX {
            return Err(Failure::called("explodeMap: a key has too many parts"));
        }
        let Some(last) = parts.pop() else { continue };
        let mut at = Rc::clone(&root);
        for part in parts {
            let next = match at.text(part) {
                None => {
                    let next = Rc::new(Map::default());
                    at.insert(Key::from(part), Value::Map(Rc::clone(&next))).map_err(Failure::called)?;
                    next
                }
                Some(Value::Map(next)) => next,
                Some(_) => {
                    return Err(Failure::called(format_args!("explodeMap: {part:?} is no map in {path:?}")));
                }
            };
            at = next;
        }
        at.insert(Key::from(last), value).map_err(Failure::called)?;
    }
    Ok(Value::Map(root))
}

fn merged(base: &Map, over: &Map, depth: usize) -> Answer {
    if depth > DEPTH_MAX {
        return Err(Failure::called("the maps are nested too deeply"));
    }
    let mut all: BTreeMap<Key, Value> = base.entries().into_iter().collect();
    for (key, value) in over.entries() {
        let value = match (all.get(&key), &value) {
            (Some(Value::Map(base)), Value::Map(over)) => merged(base, over, depth + 1)?,
            // What is empty does not replace anything.
            (Some(present), new) if !new.truth() => present.clone(),
            _ => value,
        };
        all.insert(key, value);
    }
    Ok(Value::map(all))
}

fn parsed(function: &str, go: &str, arguments: &[Value], parse: impl Fn(&str) -> Option<Value>) -> Answer {
    let [text] = exactly(function, arguments)?;
    let text = text_of(text)?;
    let zero = if text.is_empty() { "0" } else { &text };
    parse(zero).ok_or_else(|| {
        Failure::called(format_args!("{function}: strconv.{go}: parsing {text:?}: invalid syntax"))
    })
}

fn parse_bool(arguments: &[Value]) -> Answer {
    parsed("parseBool", "ParseBool", arguments, |text| match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(Value::Bool(true)),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(Value::Bool(false)),
        _ => None,
    })
}

fn parse_json(arguments: &[Value]) -> Answer {
    let [text] = exactly("parseJSON", arguments)?;
    let text = text_of(text)?;
    let text = if text.trim().is_empty() { "{}" } else { &text };
    let json = serde_json::from_str(text).map_err(Failure::called)?;
    // As in Go, all numbers become floating.
    Ok(Value::from_json(&json, false))
}

fn parse_yaml(arguments: &[Value]) -> Answer {
    let [text] = exactly("parseYAML", arguments)?;
    let text = text_of(text)?;
    let text = if text.trim().is_empty() { "{}" } else { &text };
    let yaml: serde_json::Value = serde_yaml::from_str(text).map_err(Failure::called)?;
    Ok(Value::from_json(&yaml, true))
}

fn to_json(function: &str, arguments: &[Value], style: Style) -> Answer {
    let [value] = exactly(function, arguments)?;
    Ok(Value::from(json::write(value, style)?))
}

/// Through JSON, which bounds size and depth.
fn serial(value: &Value) -> Result<serde_json::Value, Failure> {
    serde_json::from_str(&json::write(value, Style::default())?).map_err(Failure::called)
}

fn to_toml(arguments: &[Value]) -> Answer {
    let [value] = exactly("toTOML", arguments)?;
    let text =
        toml::to_string(&serial(value)?).map_err(|error| Failure::called(format_args!("toTOML: {error}")))?;
    Ok(Value::from(text.trim()))
}

fn to_yaml(arguments: &[Value]) -> Answer {
    let [value] = exactly("toYAML", arguments)?;
    let text = serde_yaml::to_string(&serial(value)?)
        .map_err(|error| Failure::called(format_args!("toYAML: {error}")))?;
    Ok(Value::from(text.trim()))
}

/// For those who debug a template: every value with its type.
fn spew(arguments: &[Value]) -> Answer {
    let mut out = Out::new(TEXT_MAX);
    for argument in arguments {
        dump(&mut out, argument, 0).and_then(|()| out.push("\n")).map_err(Failure::called)?;
    }
    Ok(Value::from(out.into_text()))
}

fn dump(out: &mut Out, value: &Value, depth: usize) -> Result<(), TooLarge> {
    if depth > DEPTH_MAX {
        return Err(TooLarge);
    }
    let indent = " ".repeat(depth + 1);
    let many = |out: &mut Out, title: String, entries: Vec<(String, Value)>| {
        out.push(&format!("{title} {{\n"))?;
        let last = entries.len();
        for (at, (label, value)) in entries.into_iter().enumerate() {
            out.push(&format!("{indent}{label}"))?;
            dump(out, &value, depth + 1)?;
            out.push(if at + 1 < last { ",\n" } else { "\n" })?;
        }
        out.push(&format!("{}}}", " ".repeat(depth)))
    };
    match value {
        Value::Missing | Value::Nil => out.push("(interface {}) <nil>"),
        Value::Text(text) => out.push(&format!("(string) (len={}) {}", text.len(), quoted(text, false))),
        Value::List(items) => {
            let title = format!("([]interface {{}}) (len={0} cap={0})", items.len());
            many(out, title, items.iter().map(|item| (String::new(), item.clone())).collect())
        }
        Value::Map(map) => {
            let title = format!("(map[string]interface {{}}) (len={})", map.len());
            let label = |key: &Key| match key {
                Key::Int(number) => format!("(int) {number}: "),
                Key::Text(text) => format!("(string) (len={}) {}: ", text.len(), quoted(text, false)),
            };
            many(out, title, map.entries().into_iter().map(|(key, value)| (label(&key), value)).collect())
        }
        Value::Struct(of) => {
            let fields = of.fields().iter();
            let entries = fields.map(|(name, value)| (format!("{name}: "), value.clone())).collect();
            many(out, format!("({})", of.type_name()), entries)
        }
        Value::Object(object) => {
            out.push(&format!("({}) ", object.type_name()))?;
            dump(out, &value.viewed(), depth + 1)
        }
        other => out.push(&format!("({}) {}", other.type_name(), other.to_text())),
    }
}

fn spew_printf(arguments: &[Value]) -> Answer {
    let Some((format, values)) = arguments.split_first() else {
        return Err(Failure::called("spew_printf: a format is needed"));
    };
    let mut out = Out::new(TEXT_MAX);
    sprintf(&mut out, &text_of(format)?, values).map_err(Failure::called)?;
    Ok(Value::from(out.into_text()))
}
