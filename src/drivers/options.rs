//! Checks a driver's options against a table of names and types.

use serde_json::Map;
use serde_json::Value;

/// The type of an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// A whole number, also as text.
    Number,
    Bool,
    TextList,
    /// A map of scalars, or a list of such maps that are merged.
    Map,
    /// A block: a map of anything, or a list of them.
    Block,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
}

/// An option that may be absent.
pub const fn opt(name: &'static str, kind: Kind) -> Opt {
    Opt { name, kind, required: false }
}

/// An option that must be there.
pub const fn required(name: &'static str, kind: Kind) -> Opt {
    Opt { name, kind, required: true }
}

/// Every problem with names and types, in the table's order.
pub fn check(table: &[Opt], config: &Map<String, Value>) -> Vec<String> {
    let mut problems = Vec::new();
    for option in table {
        match config.get(option.name) {
            None | Some(Value::Null) if option.required => {
                let name = option.name;
                problems.push(format!("missing required option {name:?}"));
            }
            Some(value) if !fits(option.kind, value) => {
                problems.push(format!("option {:?} must be {}", option.name, describe(option.kind)));
            }
            _ => {}
        }
    }
    for name in config.keys().filter(|name| !table.iter().any(|option| option.name == **name)) {
        problems.push(format!("unsupported option {name:?}"));
    }
    problems
}

fn describe(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "a string",
        Kind::Number => "a number",
        Kind::Bool => "a bool",
        Kind::TextList => "a list of strings",
        Kind::Map => "a map, or a list of maps",
        Kind::Block => "a block",
    }
}

/// Texts that stand for a bool.
fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// Names of capabilities in an option, lower case and without `CAP_`.
pub fn capabilities(config: &Map<String, Value>, option: &str) -> Vec<String> {
    let plain = |name: String| name.to_lowercase().trim_start_matches("cap_").to_owned();
    config.list(option).into_iter().map(plain).collect()
}

fn is_scalar(value: &Value) -> bool {
    matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_))
}

fn fits(kind: Kind, value: &Value) -> bool {
    match (kind, value) {
        (_, Value::Null) => true,
        (Kind::Text, value) => is_scalar(value),
        (Kind::Number, Value::Number(_)) => true,
        (Kind::Number, Value::String(text)) => text.parse::<i64>().is_ok(),
        (Kind::Bool, Value::Bool(_)) => true,
        (Kind::Bool, Value::String(text)) => truth(text).is_some(),
        (Kind::TextList, Value::Array(items)) => items.iter().all(is_scalar),
        (Kind::Map, Value::Object(map)) => map.values().all(is_scalar),
        (Kind::Map, Value::Array(items)) => items.iter().all(|item| item.is_object() && fits(kind, item)),
        (Kind::Block, Value::Object(_)) => true,
        (Kind::Block, Value::Array(items)) => items.iter().all(Value::is_object),
        _ => false,
    }
}

/// Typed access to options that [`check`] has accepted.
pub trait Options {
    /// The text; empty when absent.
    fn text(&self, name: &str) -> String;
    /// The number, if present.
    fn number(&self, name: &str) -> Option<i64>;
    /// The switch; off when absent.
    fn switch(&self, name: &str) -> bool;
    /// The list; empty when absent.
    fn list(&self, name: &str) -> Vec<String>;
    /// The merged map, as text, in order of appearance.
    fn pairs(&self, name: &str) -> Vec<(String, String)>;
    /// The blocks of this name.
    fn blocks(&self, name: &str) -> Vec<Map<String, Value>>;
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

impl Options for Map<String, Value> {
    fn text(&self, name: &str) -> String {
        self.get(name).map(scalar).unwrap_or_default()
    }

    fn number(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|float| float as i64)),
            Value::String(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn switch(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| truth(&scalar(value)) == Some(true))
    }

    fn list(&self, name: &str) -> Vec<String> {
        self.get(name).and_then(Value::as_array).into_iter().flatten().map(scalar).collect()
    }

    fn pairs(&self, name: &str) -> Vec<(String, String)> {
        let maps = self.blocks(name);
        maps.iter().flatten().map(|(key, value)| (key.clone(), scalar(value))).collect()
    }

    fn blocks(&self, name: &str) -> Vec<Map<String, Value>> {
        match self.get(name) {
            Some(Value::Object(map)) => vec![map.clone()],
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_object).cloned().collect(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TABLE: &[Opt] =
        &[required("command", Kind::Text), opt("args", Kind::TextList), opt("port_map", Kind::Map)];

    fn problems(value: Value) -> String {
        check(TABLE, value.as_object().unwrap()).join("; ")
    }

    #[test]
    fn every_problem_is_named() {
        assert_eq!(problems(json!({"command": "x", "args": ["a", 1], "port_map": [{"db": 1}]})), "");
        assert_eq!(
            problems(json!({"args": "a", "comand": "x"})),
            "missing required option \"command\"; option \"args\" must be a list of strings; \
             unsupported option \"comand\""
        );
    }

    #[test]
    fn maps_and_lists_of_maps_read_the_same() {
        for value in [json!({"m": {"a": 1, "b": "x"}}), json!({"m": [{"a": 1}, {"b": "x"}]})] {
            let pairs = value.as_object().unwrap().pairs("m");
            assert_eq!(pairs, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "x".to_owned())]);
        }
    }
}
