//! Driver options: a body without a schema becomes JSON that drivers read by their own.
//!
//! A map may be written as a block or as an attribute; both become a list with one map, since drivers merge such lists.

use hcl_edit::structure::Body;
use hcl_edit::structure::Structure;
use serde_json::Map;
use serde_json::Value;

use super::decode::Decoder;
use super::eval::Scope;
use super::validate::Step;
use super::values;

impl Decoder {
    /// Decodes a body by the rules of driver options.
    pub(super) fn free(&mut self, body: &Body, scope: &Scope) -> Map<String, Value> {
        let mut out = Map::new();
        for structure in body {
            match structure {
                Structure::Attribute(attribute) => {
                    self.way.push(Step::Attribute(attribute.key.as_str().to_owned()));
                    let value = self.evaluate(&attribute.value, scope);
                    self.way.pop();
                    let Some(value) = value else { continue };
                    let value = values::to_json(value);
                    if !value.is_null() {
                        let value = if self.json.is_some() { value } else { wrapped(value) };
                        out.insert(attribute.key.as_str().to_owned(), value);
                    }
                }
                Structure::Block(block) => {
                    let mut value = Value::Object(self.free(&block.body, scope));
                    for label in block.labels.iter().rev() {
                        let inner = Value::Array(vec![value]);
                        value = Value::Object(Map::from_iter([(label.as_str().to_owned(), inner)]));
                    }
                    let entry = out.entry(block.ident.as_str()).or_insert_with(|| Value::Array(Vec::new()));
                    match entry {
                        Value::Array(items) => items.push(value),
                        other => *other = Value::Array(vec![value]),
                    }
                }
            }
        }
        out
    }
}

/// Wraps every map that is a value, at any depth, into a list of one.
fn wrapped(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Array(vec![inside(map)]),
        Value::Array(items) => {
            let items = items.into_iter().map(|item| match item {
                Value::Object(map) => inside(map),
                other => wrapped(other),
            });
            Value::Array(items.collect())
        }
        other => other,
    }
}

fn inside(map: Map<String, Value>) -> Value {
    Value::Object(map.into_iter().map(|(key, value)| (key, wrapped(value))).collect())
}
