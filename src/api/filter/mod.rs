//! Filter expressions of lists, in the grammar of Nomad's clients: `Status == "running" and Meta.owner is not empty`.

mod parse;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use regex::Regex;
use serde_json::Value;

use super::call::Call;
use super::error::ApiError;

/// A parsed expression.
#[derive(Debug)]
pub(super) struct Filter(Expr);

#[derive(Debug)]
enum Expr {
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    Match(Selector, Test),
    /// `any` or `all` elements; the names that they are bound to.
    Quantified {
        all: bool,
        of: Selector,
        names: Vec<String>,
        each: Box<Expr>,
    },
}

/// A path into an object: `Meta.owner`, `Meta["a-b"]`, `"/Meta/a-b"`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Selector(Vec<String>);

#[derive(Debug)]
enum Test {
    Equal(String, bool),
    Empty(bool),
    /// The element, key or substring that the selected value contains.
    Contains(String, bool),
    Matches(Regex, bool),
}

/// What a selector leads to.
enum Selected<'a> {
    Value(Cow<'a, Value>),
    /// A missing key of a map or index of a list: no error, it just does not match.
    Absent,
}

/// Values that quantifiers bound to names, innermost last.
type Scope<'a> = Vec<(&'a str, Cow<'a, Value>)>;

impl Filter {
    /// The expression of a request, if it has one.
    pub(super) fn of(call: &Call) -> Result<Option<Self>, ApiError> {
        let Some(text) = call.text("filter") else { return Ok(None) };
        Self::parse(text).map(Some).map_err(|why| {
            ApiError::bad_request(format!(
                "failed to create result paginator: failed to read filter expression: {why}"
            ))
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        parse::parse(text).map(Self)
    }

    /// Whether the filter lets `subject` pass.
    pub(super) fn matches(&self, subject: &Value) -> Result<bool, ApiError> {
        self.0
            .eval(subject, &mut Vec::new())
            .map_err(|why| ApiError::bad_request(format!("failed to read result page: {why}")))
    }
}

impl Expr {
    fn eval<'a>(&'a self, subject: &'a Value, scope: &mut Scope<'a>) -> Result<bool, String> {
        Ok(match self {
            Self::And(a, b) => a.eval(subject, scope)? && b.eval(subject, scope)?,
            Self::Or(a, b) => a.eval(subject, scope)? || b.eval(subject, scope)?,
            Self::Not(inner) => !inner.eval(subject, scope)?,
            Self::Match(selector, test) => match selector.select(subject, scope)? {
                Selected::Value(value) => test.holds(&value)?,
                Selected::Absent => test.holds_for_nothing(),
            },
            Self::Quantified { all, of, names, each } => {
                match of.select(subject, scope)? {
                    Selected::Value(Cow::Borrowed(value)) => {
                        return quantify(*all, value, names, each, subject, scope);
                    }
                    // A key or an index: there is nothing inside.
                    Selected::Value(Cow::Owned(_)) | Selected::Absent => *all,
                }
            }
        })
    }
}

/// Evaluates `each` for the elements of a list, or for the keys (and values) of a map.
fn quantify<'a>(
    all: bool,
    value: &'a Value,
    names: &'a [String],
    each: &'a Expr,
    subject: &'a Value,
    scope: &mut Scope<'a>,
) -> Result<bool, String> {
    let mut holds = |bound: Vec<Cow<'a, Value>>| -> Result<bool, String> {
        let before = scope.len();
        scope.extend(names.iter().map(String::as_str).zip(bound));
        let outcome = each.eval(subject, scope);
        scope.truncate(before);
        outcome
    };
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let item = Cow::Borrowed(item);
                let bound = if names.len() > 1 { vec![Cow::Owned(index.into()), item] } else { vec![item] };
                if holds(bound)? != all {
                    return Ok(!all);
                }
            }
        }
        // A single name stands for the key of a map.
        Value::Object(map) => {
            for (key, item) in map {
                if holds(vec![Cow::Owned(key.as_str().into()), Cow::Borrowed(item)])? != all {
                    return Ok(!all);
                }
            }
        }
        Value::Null => {}
        _ => return Err("any and all need a list or a map".to_owned()),
    }
    Ok(all)
}

impl Selector {
    fn select<'a>(&'a self, subject: &'a Value, scope: &Scope<'a>) -> Result<Selected<'a>, String> {
        let mut path = self.0.as_slice();
        let mut at = subject;
        let bound = scope.iter().rev().find(|(name, _)| path.first().is_some_and(|first| first == name));
        let is_bound = bound.is_some();
        match bound {
            Some((_, Cow::Borrowed(value))) => {
                at = value;
                path = &path[1..];
            }
            Some((_, Cow::Owned(value))) if path.len() == 1 => {
                return Ok(Selected::Value(Cow::Owned(value.clone())));
            }
            Some((_, Cow::Owned(_))) => return Ok(Selected::Absent),
            None => {}
        }
        for (depth, name) in path.iter().enumerate() {
            let found = match at {
                Value::Object(map) => map.get(name),
                Value::Array(items) => name.parse().ok().and_then(|index: usize| items.get(index)),
                _ => None,
            };
            match found {
                Some(found) => at = found,
                // The fields of an object are all there; below them a missing one may be a map's key.
                None if depth == 0 && !is_bound => {
                    return Err(format!(
                        "error finding value in datum: /{} at part 0: couldn't find key: struct field with name \
                         {name:?}",
                        self.0.join("/")
                    ));
                }
                None => return Ok(Selected::Absent),
            }
        }
        Ok(Selected::Value(Cow::Borrowed(at)))
    }
}

impl Test {
    fn holds(&self, value: &Value) -> Result<bool, String> {
        Ok(match self {
            Self::Equal(wanted, positive) => is_equal(value, wanted)? == *positive,
            Self::Empty(positive) => is_empty(value) == *positive,
            Self::Contains(wanted, positive) => contains(value, wanted)? == *positive,
            Self::Matches(regex, positive) => match value {
                Value::String(text) => regex.is_match(text) == *positive,
                Value::Null => !*positive,
                _ => return Err("error getting match value in expression: not a string".to_owned()),
            },
        })
    }

    fn holds_for_nothing(&self) -> bool {
        match self {
            Self::Empty(positive) => *positive,
            Self::Equal(_, positive) | Self::Contains(_, positive) | Self::Matches(_, positive) => !positive,
        }
    }
}

/// Compares with the written value, read as the type of the selected one.
fn is_equal(value: &Value, wanted: &str) -> Result<bool, String> {
    let cannot = |function: &str| {
        format!(
            "error getting match value in expression: strconv.{function}: parsing {wanted:?}: invalid syntax"
        )
    };
    Ok(match value {
        Value::String(text) => text == wanted,
        Value::Bool(own) => super::call::parse_bool(wanted).ok_or_else(|| cannot("ParseBool"))? == *own,
        Value::Number(number) => match (number.as_i64(), wanted.parse::<i64>()) {
            (Some(own), Ok(wanted)) => own == wanted,
            (Some(_), Err(_)) => return Err(cannot("ParseInt")),
            (None, _) => number.as_f64() == Some(wanted.parse().map_err(|_| cannot("ParseFloat"))?),
        },
        // An optional value that is not there equals nothing.
        Value::Null => false,
        Value::Array(_) | Value::Object(_) => {
            return Err("error getting match value in expression: not a single value".to_owned());
        }
    })
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn contains(value: &Value, wanted: &str) -> Result<bool, String> {
    Ok(match value {
        Value::String(text) => text.contains(wanted),
        Value::Object(map) => map.contains_key(wanted),
        Value::Array(items) => {
            for item in items {
                if is_equal(item, wanted)? {
                    return Ok(true);
                }
            }
            false
        }
        Value::Null => false,
        _ => return Err("error getting match value in expression: contains nothing".to_owned()),
    })
}
