//! Types of variables, and the conversion of values to them.

use hcl_edit::expr::Expression;
use hcl_edit::expr::ObjectKey;

use super::value::Map;
use super::value::Number;
use super::value::Value;

/// The type of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TypeExpr {
    Any,
    Text,
    Number,
    Flag,
    List(Box<TypeExpr>),
    Set(Box<TypeExpr>),
    Map(Box<TypeExpr>),
    Object(Vec<(String, TypeExpr)>),
    Tuple(Vec<TypeExpr>),
}

impl TypeExpr {
    /// Stands for a value that was complained about already, so that what uses it is not complained about as well.
    pub(super) fn placeholder(&self) -> Value {
        match self {
            Self::Any | Self::Text => Value::String(String::new()),
            Self::Number => Value::Number(Number::Whole(1)),
            Self::Flag => Value::Bool(false),
            Self::List(_) | Self::Set(_) => Value::Array(Vec::new()),
            Self::Tuple(items) => Value::Array(items.iter().map(Self::placeholder).collect()),
            Self::Map(_) => Value::Map(Map::new()),
            Self::Object(fields) => {
                Value::Object(fields.iter().map(|(name, kind)| (name.clone(), kind.placeholder())).collect())
            }
        }
    }

    /// Reads `list(string)` and the like.
    ///
    /// # Errors
    /// In the words of HCL.
    pub(super) fn from_expression(expression: &Expression) -> Result<Self, String> {
        match expression {
            Expression::Variable(name) => Self::keyword(name.as_str()),
            Expression::FuncCall(call) => {
                let name = call.name.name.as_str();
                let mut arguments = call.args.iter();
                let (Some(argument), None) = (arguments.next(), arguments.next()) else {
                    return Err(format!("The {name} type constructor requires one argument specifying the {}.", part(name)));
                };
                Self::constructed(name, argument)
            }
            _ => Err("A type specification is either a primitive type keyword (bool, number, string) or a complex type \
                      constructor call, like list(string)."
                .to_owned()),
        }
    }

    fn keyword(name: &str) -> Result<Self, String> {
        match name {
            "any" => Ok(Self::Any),
            "string" => Ok(Self::Text),
            "number" => Ok(Self::Number),
            "bool" => Ok(Self::Flag),
            "list" | "set" | "map" | "object" | "tuple" => Err(format!(
                "The {name} type constructor requires one argument specifying the {}.",
                part(name)
            )),
            _ => Err(format!("The keyword {name:?} is not a valid type specification.")),
        }
    }

    fn constructed(name: &str, argument: &Expression) -> Result<Self, String> {
        let inner = || Self::from_expression(argument).map(Box::new);
        match name {
            "list" => Ok(Self::List(inner()?)),
            "set" => Ok(Self::Set(inner()?)),
            "map" => Ok(Self::Map(inner()?)),
            "tuple" => {
                let items =
                    argument.as_array().ok_or("Tuple type constructor requires a list of element types.")?;
                Ok(Self::Tuple(items.iter().map(Self::from_expression).collect::<Result<_, _>>()?))
            }
            "object" => {
                let object = argument.as_object().ok_or(
                    "Object type constructor requires a map whose keys are attribute names and whose values are the \
                     corresponding attribute types.",
                )?;
                let mut fields = Vec::new();
                for (key, value) in object.iter() {
                    let name = match key {
                        ObjectKey::Ident(name) => name.as_str().to_owned(),
                        ObjectKey::Expression(Expression::Variable(name)) => name.as_str().to_owned(),
                        ObjectKey::Expression(key) => key
                            .as_str()
                            .map(str::to_owned)
                            .ok_or("Object constructor map keys must be attribute names.")?,
                    };
                    fields.push((name, Self::from_expression(value.expr())?));
                }
                Ok(Self::Object(fields))
            }
            "any" | "bool" | "number" | "string" => {
                Err(format!("Primitive type keyword {name:?} does not expect arguments."))
            }
            _ => Err(format!("Keyword {name:?} is not a valid type constructor.")),
        }
    }

    /// Converts a value, as HCL does.
    ///
    /// # Errors
    /// In the words of HCL.
    pub(super) fn convert(&self, value: Value) -> Result<Value, String> {
        if value.is_null() {
            return Ok(value);
        }
        match (self, value) {
            (Self::Any, value) => Ok(value),
            (Self::Text, value) => {
                value.to_text().map(Value::String).ok_or_else(|| "string required".to_owned())
            }
            (Self::Number, value) => value.to_number().map(Value::Number).map_err(str::to_owned),
            (Self::Flag, value) => value.to_bool().map(Value::Bool).map_err(str::to_owned),
            (Self::List(item), Value::Array(items)) => {
                item.all(items).map(Value::Array).map_err(|why| self.wrong(why))
            }
            (Self::Set(item), Value::Array(items)) => {
                let mut out: Vec<Value> = Vec::new();
                for value in item.all(items).map_err(|why| self.wrong(why))? {
                    if !out.contains(&value) {
                        out.push(value);
                    }
                }
                in_order(&mut out);
                Ok(Value::Array(out))
            }
            (Self::Map(item), Value::Object(map) | Value::Map(map)) => {
                let convert = |(key, value)| match item.convert(value) {
                    Ok(value) => Ok((key, value)),
                    Err(why) => Err(format!("element {key:?}: {why}")),
                };
                map.into_iter().map(convert).collect::<Result<_, _>>().map(Value::Map)
            }
            (Self::Object(fields), Value::Object(mut map) | Value::Map(mut map)) => {
                let mut out = super::value::Map::new();
                let missing: Vec<String> = fields
                    .iter()
                    .filter(|(name, _)| !map.contains_key(name))
                    .map(|(name, _)| format!("{name:?}"))
                    .collect();
                match missing.as_slice() {
                    [] => {}
                    [one] => return Err(format!("attribute {one} is required")),
                    [first, second] => return Err(format!("attributes {first} and {second} are required")),
                    [rest @ .., last] => {
                        return Err(format!("attributes {}, and {last} are required", rest.join(", ")));
                    }
                }
                for (name, kind) in fields {
                    let value = map.remove(name).unwrap_or(Value::Null);
                    let value = kind.convert(value).map_err(|why| format!("attribute {name:?}: {why}"))?;
                    out.insert(name.clone(), value);
                }
                Ok(Value::Object(out))
            }
            (Self::Tuple(kinds), Value::Array(items)) if kinds.len() == items.len() => {
                let mut out = Vec::new();
                for (index, (kind, value)) in kinds.iter().zip(items).enumerate() {
                    out.push(kind.convert(value).map_err(|why| format!("element {index}: {why}"))?);
                }
                Ok(Value::Array(out))
            }
            (Self::Tuple(kinds), Value::Array(items)) => Err(format!(
                "tuple of length {} required, but {} elements were given",
                kinds.len(),
                items.len()
            )),
            _ => Err(format!("{} required", self.name())),
        }
    }

    fn all(&self, items: Vec<Value>) -> Result<Vec<Value>, String> {
        let convert = |(index, value)| self.convert(value).map_err(|why| format!("element {index}: {why}"));
        items.into_iter().enumerate().map(convert).collect()
    }

    /// A problem with an element: of primitive ones, the whole type is named.
    fn wrong(&self, why: String) -> String {
        if why.ends_with("string required") { format!("{} required", self.name()) } else { why }
    }

    /// The type in words.
    fn name(&self) -> String {
        match self {
            Self::Any => "any single type".to_owned(),
            Self::Text => "string".to_owned(),
            Self::Number => "number".to_owned(),
            Self::Flag => "bool".to_owned(),
            Self::List(item) => format!("list of {}", item.name()),
            Self::Set(item) => format!("set of {}", item.name()),
            Self::Map(item) => format!("map of {}", item.name()),
            Self::Object(_) => "object".to_owned(),
            Self::Tuple(_) => "tuple".to_owned(),
        }
    }

    /// The type that a default value implies for text from outside.
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::String(_) => Self::Text,
            Value::Number(_) => Self::Number,
            Value::Bool(_) => Self::Flag,
            _ => Self::Any,
        }
    }

    /// True when text from outside is the value itself, and no expression.
    pub(super) fn takes_raw_text(&self) -> bool {
        matches!(self, Self::Text | Self::Number)
    }
}

/// What the argument of a type constructor says.
fn part(name: &str) -> &'static str {
    match name {
        "object" => "attribute types as a map",
        "tuple" => "element types as a list",
        _ => "element type",
    }
}

/// Sets of one primitive type are in the order of their values.
pub(super) fn in_order(items: &mut [Value]) {
    let number = |value: &Value| if let Value::Number(number) = value { Some(*number) } else { None };
    if items.iter().all(Value::is_string) {
        items.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
    } else if items.iter().all(|item| number(item).is_some()) {
        items.sort_by(|one, other| {
            number(one).partial_cmp(&number(other)).unwrap_or(std::cmp::Ordering::Equal)
        });
    }
}

/// The most specific type that all values convert to: texts where one of them is a text.
pub(super) fn unified(items: Vec<Value>) -> Vec<Value> {
    let has_text = items.iter().any(Value::is_string);
    let primitive = items.iter().all(|item| item.is_null() || item.to_text().is_some());
    if !(has_text && primitive) {
        return items;
    }
    items.into_iter().map(|item| item.to_text().map_or(Value::Null, Value::String)).collect()
}

/// Reads a number that may stand for something countable.
pub(super) fn whole(number: Number) -> Option<i64> {
    number.as_whole().and_then(|whole| i64::try_from(whole).ok())
}
