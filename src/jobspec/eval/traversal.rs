//! Attributes, indexes and splats, and names that have no value yet.

use hcl_edit::Span;
use hcl_edit::expr::Expression;
use hcl_edit::expr::Traversal;
use hcl_edit::expr::TraversalOperator;

use super::Evaluated;
use super::Evaluator;
use super::Failure;
use super::Scope;
use crate::jobspec::value::Number;
use crate::jobspec::value::Value;

type Operators<'a> = &'a [hcl_edit::Decorated<TraversalOperator>];

impl<'a> Evaluator<'a> {
    pub(super) fn traversal(&mut self, node: &Traversal) -> Evaluated {
        let operators = node.operators.as_slice();
        let Expression::Variable(name) = &node.expr else {
            let value = self.expression(&node.expr)?;
            return self.apply(value, operators);
        };
        if let Some(local) = self.local(name.as_str()).cloned() {
            self.charge(local.size())?;
            return self.apply(local, operators);
        }
        let scope: &'a Scope = self.scope;
        match scope.names.get(name.as_str()) {
            Some(value) => self.walk(value, operators),
            None if scope.closed => Err(super::not_allowed()),
            None => self.placeholder(node, operators),
        }
    }

    /// Goes as far as attributes and elements lead, and copies only what is found there.
    fn walk(&mut self, mut value: &'a Value, mut operators: Operators<'_>) -> Evaluated {
        while let Some((first, rest)) = operators.split_first() {
            let next = match first.value() {
                TraversalOperator::GetAttr(name) => value.entries().and_then(|map| map.get(name.as_str())),
                TraversalOperator::Index(key) => match (value, self.expression(key)?) {
                    (Value::Array(items), Value::Number(Number::Whole(index))) => {
                        usize::try_from(index).ok().and_then(|index| items.get(index))
                    }
                    (Value::Object(map) | Value::Map(map), Value::String(key)) => map.get(&key),
                    _ => None,
                },
                _ => None,
            };
            let Some(next) = next else { break };
            value = next;
            operators = rest;
        }
        self.charge(value.size())?;
        self.apply(value.clone(), operators)
    }

    /// A name of the run time with its attributes, as it was written. What cannot be part of a name is applied to the
    /// text.
    fn placeholder(&mut self, node: &Traversal, operators: Operators<'_>) -> Evaluated {
        let part_of_name = |operator: &TraversalOperator| match operator {
            TraversalOperator::GetAttr(_) | TraversalOperator::LegacyIndex(_) => true,
            TraversalOperator::Index(key) => matches!(key, Expression::String(_) | Expression::Number(_)),
            TraversalOperator::AttrSplat(_) | TraversalOperator::FullSplat(_) => false,
        };
        let length = operators.iter().take_while(|operator| part_of_name(operator.value())).count();
        let named = &operators[..length];
        let start = node.expr.span().map(|span| span.start);
        let end = named.last().map_or_else(|| node.expr.span(), Span::span).map(|span| span.end);
        let span = start.zip(end).map(|(start, end)| start..end);
        let text = self.written(span, || {
            Expression::from(Traversal::new(node.expr.clone(), named.to_vec())).to_string()
        });
        self.apply(Value::String(format!("${{{text}}}")), &operators[length..])
    }

    fn apply(&mut self, value: Value, operators: Operators<'_>) -> Evaluated {
        let Some((first, rest)) = operators.split_first() else { return Ok(value) };
        let next = match first.value() {
            TraversalOperator::GetAttr(name) => attribute(value, name.as_str()),
            TraversalOperator::LegacyIndex(index) => {
                index_of(value, &Value::from(usize::try_from(*index.value()).unwrap_or(usize::MAX)))
            }
            TraversalOperator::Index(key) => {
                let key = self.expression(key)?;
                index_of(value, &key)
            }
            TraversalOperator::AttrSplat(_) => {
                // Goes only as far as attributes do.
                let attributes = |operator: &&hcl_edit::Decorated<TraversalOperator>| {
                    matches!(operator.value(), TraversalOperator::GetAttr(_))
                };
                let length = rest.iter().take_while(attributes).count();
                let list = self.splat(value, &rest[..length])?;
                return self.apply(list, &rest[length..]);
            }
            TraversalOperator::FullSplat(_) => return self.splat(value, rest),
        };
        self.apply(next.map_err(|failure| failure.at(first))?, rest)
    }

    /// Applies operators to every element; a value that is no list counts as a list of one, null as an empty one.
    fn splat(&mut self, value: Value, operators: Operators<'_>) -> Evaluated {
        let items = match value {
            Value::Array(items) => items,
            Value::Null => Vec::new(),
            single => vec![single],
        };
        let applied: Result<Vec<Value>, Failure> =
            items.into_iter().map(|item| self.apply(item, operators)).collect();
        applied.map(Value::Array)
    }
}

fn attribute(value: Value, name: &str) -> Evaluated {
    match value {
        Value::Object(mut map) => map.remove(name).ok_or_else(|| {
            let detail = format!("This object does not have an attribute named {name:?}.");
            Failure::new("Unsupported attribute", detail)
        }),
        Value::Map(mut map) => map.remove(name).ok_or_else(|| {
            let detail = format!("This map does not have an element with the key {name:?}.");
            Failure::new("Missing map element", detail)
        }),
        Value::Null => {
            let detail = "This value is null, so it does not have any attributes.";
            Err(Failure::new("Attempt to get attribute from null value", detail))
        }
        _ => Err(Failure::new("Unsupported attribute", "This value does not have any attributes.")),
    }
}

fn index_of(value: Value, key: &Value) -> Evaluated {
    let wrong = |more: &str| {
        let detail = format!("The given key does not identify an element in this collection value{more}.");
        Failure::new("Invalid index", detail)
    };
    if key.is_null() {
        return Err(Failure::new("Invalid index", "Can't use a null value as an indexing key."));
    }
    match value {
        Value::Array(mut items) => {
            let number = key.to_number().map_err(|why| wrong(&format!(": {why}")))?;
            let index = match number {
                Number::Whole(index) if index < 0 => {
                    return Err(wrong(": a negative number is not a valid index for a sequence"));
                }
                Number::Whole(index) => usize::try_from(index).ok().filter(|index| *index < items.len()),
                Number::Fraction(_) => {
                    let more = ": indexing a sequence requires a whole number, but the given index has a fractional part";
                    return Err(wrong(more));
                }
            };
            index.map(|index| items.swap_remove(index)).ok_or_else(|| wrong(""))
        }
        Value::Object(mut map) | Value::Map(mut map) => {
            let key = key.to_text().ok_or_else(|| wrong(": string required"))?;
            map.remove(&key).ok_or_else(|| wrong(""))
        }
        Value::Null => {
            let detail = "This value is null, so it does not have any indices.";
            Err(Failure::new("Attempt to index null value", detail))
        }
        _ => Err(Failure::new("Invalid index", "This value does not have any indices.")),
    }
}
