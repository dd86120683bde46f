//! What options of the built-in drivers may say: names, types and values as data, and the check along them.
//!
//! Servers check a job when it is submitted, agents when a task starts. Values that contain `${…}` are known only on the
//! node: until then their type and content pass. Agents check their own configuration of drivers the same way.

mod rules;
mod tables;

use std::borrow::Cow;

use serde_json::Map;
use serde_json::Value;

/// The type of an option's value.
#[derive(Clone, Copy)]
pub enum Kind {
    Text,
    /// A whole number, also as text.
    Number,
    Flag,
    Texts,
    /// A map of scalars, or a list of such maps that are merged.
    Map,
    /// The same with numbers only.
    NumberMap,
    /// A block, or several, with these options.
    Block(&'static [Opt]),
}

/// What a value must be beside its type: gets the option's name and the value, gives the complaint.
pub type Rule = fn(&str, &Value) -> Option<String>;

/// One option.
#[derive(Clone, Copy)]
pub struct Opt {
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
    pub rule: Option<Rule>,
}

/// An option that may be absent.
pub const fn opt(name: &'static str, kind: Kind) -> Opt {
    Opt { name, kind, required: false, rule: None }
}

/// An option that must be there.
pub const fn required(name: &'static str, kind: Kind) -> Opt {
    Opt { name, kind, required: true, rule: None }
}

impl Opt {
    /// The same with a rule for its value.
    #[must_use]
    pub const fn with(mut self, rule: Rule) -> Self {
        self.rule = Some(rule);
        self
    }
}

/// What is wrong with an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The blocks around the option, each with its number among those of its name.
    pub blocks: Vec<(&'static str, usize)>,
    /// The option.
    pub option: String,
    pub fault: Fault,
    /// In the words of HCL's decoder, or of the driver.
    pub text: String,
}

/// What kind of mistake it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A name, a type, or something that is missing.
    Shape,
    /// A value that the driver refuses.
    Value,
}

impl Misfit {
    /// The text behind the names of the blocks around the option.
    pub fn placed(&self) -> String {
        let blocks = self.blocks.iter().map(|(name, _)| format!("{name}: "));
        blocks.chain([self.text.clone()]).collect()
    }
}

/// Whether texts with `${…}` still stand for something else.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Submitted,
    Final,
}

/// The options of a driver; `None` for one that is not built in.
pub fn options_of(driver: &str) -> Option<&'static [Opt]> {
    tables::DRIVERS.iter().find(|(name, _)| *name == driver).map(|(_, options)| *options)
}

/// Every problem of `config`, all of whose values are known, in the order of the table, unknown names last.
pub fn check(table: &'static [Opt], config: &Map<String, Value>) -> Vec<Misfit> {
    let mut out = Vec::new();
    check_block(table, config, Stage::Final, &[], &mut out);
    out
}

/// The same before a node is chosen: what only a node knows is not judged.
pub fn check_submitted(table: &'static [Opt], config: &Map<String, Value>) -> Vec<Misfit> {
    let mut out = Vec::new();
    check_block(table, config, Stage::Submitted, &[], &mut out);
    out
}

fn check_block(
    table: &'static [Opt],
    config: &Map<String, Value>,
    stage: Stage,
    blocks: &[(&'static str, usize)],
    out: &mut Vec<Misfit>,
) {
    let is_open = |value: &Value| stage == Stage::Submitted && is_open(value);
    let mut say = |option: &str, fault, text: String| {
        out.push(Misfit { blocks: blocks.to_vec(), option: option.to_owned(), fault, text });
    };
    let mut inner = Vec::new();
    for option in table {
        let name = option.name;
        let Some(value) = config.get(name).filter(|value| !value.is_null()) else {
            if option.required {
                let text = format!(
                    "Missing required argument: The argument {name:?} is required, but no definition was found."
                );
                say(name, Fault::Shape, text);
            }
            continue;
        };
        if is_open(value) {
            continue;
        }
        if !fits(option.kind, value, &is_open) {
            let wanted = wanted(option.kind);
            let text = format!(
                "Incorrect attribute value type: Inappropriate value for attribute {name:?}: {wanted} required."
            );
            say(name, Fault::Shape, text);
            continue;
        }
        if let Some(text) = option.rule.and_then(|rule| rule(name, &known_part(value, &is_open))) {
            say(name, Fault::Value, text);
        }
        if let Kind::Block(table) = option.kind {
            inner.push((name, table, maps(value)));
        }
    }
    for name in config.keys().filter(|name| !table.iter().any(|option| option.name == **name)) {
        let text = format!("Invalid label: No argument or block type is named {name:?}.");
        say(name, Fault::Shape, text);
    }
    for (name, table, maps) in inner {
        for (index, map) in maps.into_iter().enumerate() {
            let mut path = blocks.to_vec();
            path.push((name, index));
            check_block(table, map, stage, &path, out);
        }
    }
}

/// True for a text that is only known on the node.
fn is_open(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.contains("${"))
}

/// Maps without the values that are not known yet.
fn known_part<'a>(value: &'a Value, is_open: &dyn Fn(&Value) -> bool) -> Cow<'a, Value> {
    if !maps(value).iter().any(|map| map.values().any(is_open)) {
        return Cow::Borrowed(value);
    }
    let known = |map: &Map<String, Value>| {
        let pairs = map.iter().filter(|(_, value)| !is_open(value));
        Value::Object(pairs.map(|(key, value)| (key.clone(), value.clone())).collect())
    };
    Cow::Owned(Value::Array(maps(value).into_iter().map(known).collect()))
}

fn wanted(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "string",
        Kind::Number => "number",
        Kind::Flag => "bool",
        Kind::Texts => "list of string",
        Kind::Map => "list of map of string",
        Kind::NumberMap => "list of map of number",
        Kind::Block(_) => "object",
    }
}

fn is_scalar(value: &Value) -> bool {
    matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_))
}

fn is_number(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            number.as_i64().is_some() || number.as_f64().is_some_and(|n| n.fract() == 0.0)
        }
        Value::String(text) => text.parse::<i64>().is_ok(),
        _ => false,
    }
}

fn fits(kind: Kind, value: &Value, is_open: &dyn Fn(&Value) -> bool) -> bool {
    match kind {
        Kind::Text => is_scalar(value),
        Kind::Number => is_number(value),
        Kind::Flag => match value {
            Value::Bool(_) => true,
            Value::String(text) => matches!(text.as_str(), "true" | "false" | "1" | "0"),
            _ => false,
        },
        Kind::Texts => value.as_array().is_some_and(|items| items.iter().all(is_scalar)),
        Kind::Map => all_maps(value) && maps(value).iter().all(|map| map.values().all(is_scalar)),
        Kind::NumberMap => {
            let fine = |value: &Value| is_number(value) || is_open(value);
            all_maps(value) && maps(value).iter().all(|map| map.values().all(fine))
        }
        Kind::Block(_) => all_maps(value),
    }
}

fn all_maps(value: &Value) -> bool {
    match value {
        Value::Object(_) => true,
        Value::Array(items) => items.iter().all(Value::is_object),
        _ => false,
    }
}

/// A map, or the maps of a list.
fn maps(value: &Value) -> Vec<&Map<String, Value>> {
    match value {
        Value::Object(map) => vec![map],
        Value::Array(items) => items.iter().filter_map(Value::as_object).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
