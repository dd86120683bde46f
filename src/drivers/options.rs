//! Reads a driver's options after they were checked along their table.

use serde_json::Map;
use serde_json::Value;

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

/// Typed access to options that the check along their table has accepted.
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

    #[test]
    fn maps_and_lists_of_maps_read_the_same() {
        for value in [json!({"m": {"a": 1, "b": "x"}}), json!({"m": [{"a": 1}, {"b": "x"}]})] {
            let pairs = value.as_object().unwrap().pairs("m");
            assert_eq!(pairs, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "x".to_owned())]);
        }
    }
}
