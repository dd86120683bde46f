//! Reading fields of answers. Absent, null and wrongly typed fields read as zero values, as in Go.

use serde_json::Value;

/// Access to fields by name.
pub trait View {
    /// A text, or the empty one.
    fn text(&self, key: &str) -> &str;
    /// An integer, or zero.
    fn int(&self, key: &str) -> i64;
    /// A number, or zero.
    fn float(&self, key: &str) -> f64;
    /// A flag, or false.
    fn flag(&self, key: &str) -> bool;
    /// A list, or the empty one.
    fn list(&self, key: &str) -> &[Value];
    /// The texts of a list.
    fn texts(&self, key: &str) -> Vec<String>;
    /// The entries of an object, sorted by name.
    fn entries(&self, key: &str) -> Vec<(&str, &Value)>;
    /// A field, or null.
    fn field(&self, key: &str) -> &Value;
}

static NULL: Value = Value::Null;

impl View for Value {
    fn text(&self, key: &str) -> &str {
        self.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn int(&self, key: &str) -> i64 {
        let number = self.get(key);
        number.and_then(Value::as_i64).or_else(|| number?.as_f64().map(|float| float as i64)).unwrap_or(0)
    }

    fn float(&self, key: &str) -> f64 {
        self.get(key).and_then(Value::as_f64).unwrap_or(0.0)
    }

    fn flag(&self, key: &str) -> bool {
        self.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    fn list(&self, key: &str) -> &[Value] {
        self.get(key).map_or(&[], rows)
    }

    fn texts(&self, key: &str) -> Vec<String> {
        self.list(key).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    fn entries(&self, key: &str) -> Vec<(&str, &Value)> {
        let mut found: Vec<(&str, &Value)> = match self.get(key) {
            Some(Value::Object(map)) => map.iter().map(|(name, value)| (name.as_str(), value)).collect(),
            _ => Vec::new(),
        };
        found.sort_by_key(|(name, _)| *name);
        found
    }

    fn field(&self, key: &str) -> &Value {
        self.get(key).unwrap_or(&NULL)
    }
}

/// The items of a list; none for anything else.
pub fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
