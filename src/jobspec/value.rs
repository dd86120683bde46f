//! What expressions evaluate to.
//!
//! Objects, written as `{ … }`, and maps, whose values all have one type, hold the same; they are told apart because some
//! functions take only one of them.

use std::collections::BTreeMap;
use std::fmt;

/// Attributes by name, always in the order of their names.
pub(super) type Map = BTreeMap<String, Value>;

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    /// A list, tuple or set.
    Array(Vec<Value>),
    Object(Map),
    /// An object that came out of a map type.
    Map(Map),
}

/// A number: exact when it is whole.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Whole(i128),
    Fraction(f64),
}

/// The largest magnitude at which every whole number of a float is exact.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Number {
    /// Whole when it can be without loss.
    pub(super) fn from_f64(number: f64) -> Self {
        if number.fract() == 0.0 && number.abs() <= EXACT {
            Self::Whole(number as i128)
        } else {
            Self::Fraction(number)
        }
    }

    /// The result of an operation on floats, without the last digits, which are noise: `0.1 + 0.2` is `0.3`.
    pub(super) fn computed(number: f64) -> Self {
        let shortened = format!("{number:.14e}").parse().unwrap_or(number);
        Self::from_f64(shortened)
    }

    pub(super) fn as_f64(self) -> f64 {
        match self {
            Self::Whole(whole) => whole as f64,
            Self::Fraction(number) => number,
        }
    }

    pub(super) fn as_whole(self) -> Option<i128> {
        match self {
            Self::Whole(whole) => Some(whole),
            Self::Fraction(number) if number.fract() == 0.0 && number.abs() < 1.0e38 => Some(number as i128),
            Self::Fraction(_) => None,
        }
    }

    /// The number that a text spells in decimal.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let plain = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
        if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') || !digits.chars().all(plain) {
            return None;
        }
        match text.parse::<i128>() {
            Ok(whole) => Some(Self::Whole(whole)),
            Err(_) => text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Self::from_f64),
        }
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        match (self.as_whole(), other.as_whole()) {
            (Some(one), Some(other)) => one == other,
            (None, None) => self.as_f64() == other.as_f64(),
            _ => false,
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        match (self.as_whole(), other.as_whole()) {
            (Some(one), Some(other)) => Some(one.cmp(&other)),
            _ => self.as_f64().partial_cmp(&other.as_f64()),
        }
    }
}

/// In decimal, without an exponent.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(whole) => whole.fmt(f),
            Self::Fraction(number) => number.fmt(f),
        }
    }
}

/// Values of different types are never equal; objects and maps are when they hold the same.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(one), Self::Bool(other)) => one == other,
            (Self::Number(one), Self::Number(other)) => one == other,
            (Self::String(one), Self::String(other)) => one == other,
            (Self::Array(one), Self::Array(other)) => one == other,
            (Self::Object(one) | Self::Map(one), Self::Object(other) | Self::Map(other)) => one == other,
            _ => false,
        }
    }
}

impl Value {
    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    pub(super) fn is_string(&self) -> bool {
        matches!(self, Self::String(_))
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    pub(super) fn as_array(&self) -> Option<&Vec<Self>> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }

    /// The entries of an object or a map.
    pub(super) fn entries(&self) -> Option<&Map> {
        match self {
            Self::Object(map) | Self::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(super) fn is_collection(&self) -> bool {
        matches!(self, Self::Array(_) | Self::Object(_) | Self::Map(_))
    }

    /// The text that a primitive value converts to.
    pub(super) fn to_text(&self) -> Option<String> {
        match self {
            Self::String(text) => Some(text.clone()),
            Self::Number(number) => Some(number.to_string()),
            Self::Bool(flag) => Some(flag.to_string()),
            _ => None,
        }
    }

    /// The number that a value converts to.
    ///
    /// # Errors
    /// In the words of HCL.
    pub(super) fn to_number(&self) -> Result<Number, &'static str> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::String(text) => Number::parse(text).ok_or("a number is required"),
            _ => Err("number required"),
        }
    }

    /// The boolean that a value converts to.
    ///
    /// # Errors
    /// In the words of HCL.
    pub(super) fn to_bool(&self) -> Result<bool, &'static str> {
        match self {
            Self::Bool(flag) => Ok(*flag),
            Self::String(text) => match text.as_str() {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err("a bool is required"),
            },
            _ => Err("bool required"),
        }
    }

    /// The word for the type of a value.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "dynamic",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "tuple",
            Self::Object(_) => "object",
            Self::Map(_) => "map",
        }
    }

    /// Roughly the bytes of memory that a value takes.
    pub(super) fn size(&self) -> usize {
        const EACH: usize = 32;
        EACH + match self {
            Self::String(text) => text.len(),
            Self::Array(items) => items.iter().map(Self::size).sum(),
            Self::Object(map) | Self::Map(map) => {
                map.iter().map(|(key, value)| EACH + key.len() + value.size()).sum()
            }
            _ => 0,
        }
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(Number::Whole(i128::try_from(number).unwrap_or(i128::MAX)))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(Number::Whole(i128::from(number)))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}
