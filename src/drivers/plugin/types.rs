//! Type expressions of plugin schemas (`list(map(string))`), and the conversion of a job file's values to them.

use std::collections::BTreeMap;
use std::str::FromStr;

use hcl::Expression;
use hcl::expr::ObjectKey;
use serde_json::Value;

/// A parsed type expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    Any,
    Text,
    Number,
    Bool,
    List(Box<Type>),
    /// Like a list, without repetitions.
    Set(Box<Type>),
    Map(Box<Type>),
    Object(BTreeMap<String, Type>),
    Tuple(Vec<Type>),
}

impl FromStr for Type {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Older plugins leave the type away and mean a string.
        if text.trim().is_empty() {
            return Ok(Self::Text);
        }
        let wrong = |error: hcl::Error| format!("the plugin's schema has the type {text:?}: {error}");
        Self::of(&text.parse::<Expression>().map_err(wrong)?)
            .ok_or_else(|| format!("the plugin's schema has the unknown type {text:?}"))
    }
}

impl Type {
    fn of(expression: &Expression) -> Option<Self> {
        match expression {
            Expression::Variable(name) => match name.as_str() {
                "any" => Some(Self::Any),
                "string" => Some(Self::Text),
                "number" => Some(Self::Number),
                "bool" => Some(Self::Bool),
                _ => None,
            },
            Expression::FuncCall(call) if call.name.namespace.is_empty() && call.args.len() == 1 => {
                let inner = &call.args[0];
                let boxed = || Self::of(inner).map(Box::new);
                match call.name.name.as_str() {
                    "list" => boxed().map(Self::List),
                    "set" => boxed().map(Self::Set),
                    "map" => boxed().map(Self::Map),
                    "object" => Self::fields_of(inner).map(Self::Object),
                    "tuple" => match inner {
                        Expression::Array(items) => {
                            items.iter().map(Self::of).collect::<Option<_>>().map(Self::Tuple)
                        }
                        _ => None,
                    },
                    _ => None,
                }
            }
            Expression::Parenthesis(inner) => Self::of(inner),
            _ => None,
        }
    }

    fn fields_of(expression: &Expression) -> Option<BTreeMap<String, Self>> {
        let Expression::Object(object) = expression else { return None };
        let name = |key: &ObjectKey| match key {
            ObjectKey::Identifier(name) => Some(name.to_string()),
            ObjectKey::Expression(Expression::String(name)) => Some(name.clone()),
            _ => None,
        };
        object.iter().map(|(key, value)| Some((name(key)?, Self::of(value)?))).collect()
    }

    /// The type in words, for errors.
    fn describe(&self) -> String {
        match self {
            Self::Any => "any value".to_owned(),
            Self::Text => "string".to_owned(),
            Self::Number => "number".to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::List(inner) => format!("list of {}", inner.describe()),
            Self::Set(inner) => format!("set of {}", inner.describe()),
            Self::Map(inner) => format!("map of {}", inner.describe()),
            Self::Object(_) => "object".to_owned(),
            Self::Tuple(_) => "tuple".to_owned(),
        }
    }

    /// Converts a value; null stays null.
    ///
    /// # Errors
    /// Says what is required.
    pub fn convert(&self, value: &Value) -> Result<Value, String> {
        match (self, value) {
            (_, Value::Null) | (Self::Any, _) => Ok(value.clone()),
            (Self::Text, Value::String(_)) => Ok(value.clone()),
            (Self::Text, Value::Bool(flag)) => Ok(Value::String(flag.to_string())),
            (Self::Text, Value::Number(number)) => Ok(Value::String(number.to_string())),
            (Self::Number, Value::Number(_)) => Ok(value.clone()),
            (Self::Number, Value::String(text)) => number(text).ok_or_else(|| self.required()),
            (Self::Bool, Value::Bool(_)) => Ok(value.clone()),
            (Self::Bool, Value::String(text)) => match text.as_str() {
                "true" | "1" => Ok(Value::Bool(true)),
                "false" | "0" => Ok(Value::Bool(false)),
                _ => Err(self.required()),
            },
            (Self::List(inner), _) => inner.convert_all(value, self).map(Value::Array),
            (Self::Set(inner), _) => {
                let mut items: Vec<Value> = Vec::new();
                for item in inner.convert_all(value, self)? {
                    if !items.contains(&item) {
                        items.push(item);
                    }
                }
                Ok(Value::Array(items))
            }
            (Self::Map(inner), _) => {
                let map = the_map(value).ok_or_else(|| self.required())?;
                let entry = |(name, value): (&String, &Value)| {
                    let converted = inner.convert(value);
                    Ok((name.clone(), converted.map_err(|error| format!("element {name:?}: {error}"))?))
                };
                map.iter().map(entry).collect::<Result<_, String>>().map(Value::Object)
            }
            (Self::Object(fields), _) => self.convert_fields(fields, value),
            (Self::Tuple(types), Value::Array(items)) if types.len() == items.len() => {
                let items = types.iter().zip(items).map(|(one, item)| one.convert(item));
                items.collect::<Result<_, String>>().map(Value::Array)
            }
            _ => Err(self.required()),
        }
    }

    fn required(&self) -> String {
        format!("{} required", self.describe())
    }

    fn convert_all(&self, value: &Value, whole: &Self) -> Result<Vec<Value>, String> {
        let convert = |(index, item): (usize, &Value)| {
            self.convert(item).map_err(|error| format!("element {index}: {error}"))
        };
        match value {
            Value::Array(items) => items.iter().enumerate().map(convert).collect(),
            // Jobs in JSON often leave the list around a single map away.
            Value::Object(_) if matches!(self, Self::Map(_) | Self::Object(_)) => {
                Ok(vec![self.convert(value)?])
            }
            _ => Err(whole.required()),
        }
    }

    fn convert_fields(&self, fields: &BTreeMap<String, Self>, value: &Value) -> Result<Value, String> {
        let map = the_map(value).ok_or_else(|| self.required())?;
        if let Some(name) = map.keys().find(|name| !fields.contains_key(*name)) {
            return Err(format!("unsupported attribute {name:?}"));
        }
        let field = |(name, one): (&String, &Self)| {
            let value = map.get(name).ok_or_else(|| format!("attribute {name:?} is required"))?;
            let converted = one.convert(value).map_err(|error| format!("attribute {name:?}: {error}"))?;
            Ok((name.clone(), converted))
        };
        fields.iter().map(field).collect::<Result<_, String>>().map(Value::Object)
    }
}

/// The map itself, or the only one of a list: job files write `labels { … }` and mean either.
fn the_map(value: &Value) -> Option<&serde_json::Map<String, Value>> {
    match value {
        Value::Object(map) => Some(map),
        Value::Array(items) => match items.as_slice() {
            [Value::Object(map)] => Some(map),
            _ => None,
        },
        _ => None,
    }
}

fn number(text: &str) -> Option<Value> {
    if let Ok(whole) = text.parse::<i64>() {
        return Some(whole.into());
    }
    let float = text.parse::<f64>().ok().filter(|float| float.is_finite())?;
    serde_json::Number::from_f64(float).map(Value::Number)
}

/// The value as plugins read it.
pub fn to_msgpack(value: &Value) -> rmpv::Value {
    match value {
        Value::Null => rmpv::Value::Nil,
        Value::Bool(flag) => (*flag).into(),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(whole), ..) => whole.into(),
            (None, Some(whole), _) => whole.into(),
            // A whole number written as `1.0` is whole for the plugin too.
            (None, None, Some(float)) if float.fract() == 0.0 && float.abs() < 9e15 => (float as i64).into(),
            (None, None, float) => float.unwrap_or_default().into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => rmpv::Value::Array(items.iter().map(to_msgpack).collect()),
        Value::Object(map) => {
            let pairs = map.iter().map(|(name, value)| (name.as_str().into(), to_msgpack(value)));
            rmpv::Value::Map(pairs.collect())
        }
    }
}

/// Encodes a value.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to memory cannot fail.
    let _ = rmpv::encode::write_value(&mut bytes, &to_msgpack(value));
    bytes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn convert(expression: &str, value: Value) -> Result<Value, String> {
        expression.parse::<Type>()?.convert(&value)
    }

    #[test]
    fn values_become_what_the_plugin_asks_for() {
        for (expression, given, wanted) in [
            ("string", json!(80), json!("80")),
            ("string", json!(true), json!("true")),
            ("number", json!("2.5"), json!(2.5)),
            ("number", json!("80"), json!(80)),
            ("bool", json!("true"), json!(true)),
            ("list(string)", json!([1, "b"]), json!(["1", "b"])),
            ("set(string)", json!(["a", "a", "b"]), json!(["a", "b"])),
            ("list(map(string))", json!([{"http": 80}]), json!([{"http": "80"}])),
            ("list(map(string))", json!({"http": 80}), json!([{"http": "80"}])),
            ("map(number)", json!([{"http": "80"}]), json!({"http": 80})),
            (
                "object({name = string, size = number})",
                json!([{"name": 1, "size": 2}]),
                json!({"name": "1", "size": 2}),
            ),
            ("tuple([string, bool])", json!(["a", "0"]), json!(["a", false])),
            ("any", json!({"a": [1]}), json!({"a": [1]})),
            ("number", Value::Null, Value::Null),
        ] {
            assert_eq!(convert(expression, given), Ok(wanted), "{expression}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (expression, given, text) in [
            ("number", json!("many"), "number required"),
            ("bool", json!(1), "bool required"),
            ("list(string)", json!("a"), "list of string required"),
            ("list(number)", json!([1, "x"]), "element 1: number required"),
            ("map(number)", json!({"a": "x"}), "element \"a\": number required"),
            ("object({a = string})", json!({"b": 1}), "unsupported attribute \"b\""),
            ("tuple([string])", json!(["a", "b"]), "tuple required"),
            ("banana", json!(1), "the plugin's schema has the unknown type \"banana\""),
        ] {
            assert_eq!(convert(expression, given), Err(text.to_owned()), "{expression}");
        }
    }

    #[test]
    fn whole_numbers_are_encoded_as_such() {
        assert_eq!(encode(&json!([1, 2.0, 0.5])), [0x93, 1, 2, 0xcb, 0x3f, 0xe0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(encode(&json!({"a": null})), [0x81, 0xa1, b'a', 0xc0]);
    }
}
