//! What templates compute with: Go's dynamic values as far as templates can see them.
//!
//! Values live in one thread and during one rendering. Maps are shared when copied, as in Go, so that `set` on a map
//! is seen by everybody who holds it. A map never contains itself.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

/// Deepest nesting that is printed, compared or put into a map.
pub const DEPTH_MAX: usize = 200;
/// Values that one comparison or check looks at.
const VISITS_MAX: usize = 20_000;

/// A value. Copies are cheap.
#[derive(Clone, Default)]
pub enum Value {
    /// Nothing, not even nil: the value of a key that a map does not have. Prints `<no value>`.
    #[default]
    Missing,
    Nil,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(Rc<str>),
    List(Rc<List>),
    Map(Rc<Map>),
    Struct(Rc<Struct>),
    Object(Rc<dyn Object>),
}

/// Something with methods.
pub trait Object {
    /// Go's name of its type, for errors.
    fn type_name(&self) -> &'static str;

    /// The field or the result of the method `name`; `None` when there is neither.
    fn member(&self, name: &str, arguments: &[Value]) -> Option<Result<Value, String>>;

    /// What it is where it is printed, compared, iterated over.
    fn view(&self) -> Value;
}

/// A key of a map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Int(i64),
    Text(Rc<str>),
}

/// Items of a list.
#[derive(Default)]
pub struct List(Vec<Value>);

/// Entries of a map, in the order in which Go prints and iterates them.
#[derive(Default)]
pub struct Map(RefCell<BTreeMap<Key, Value>>);

/// A value with fixed fields.
pub struct Struct {
    type_name: &'static str,
    fields: Vec<(&'static str, Value)>,
}

/// Ends nested values without a call per level: a template could nest them deeper than a stack is.
fn end(mut waiting: Vec<Value>) {
    while let Some(value) = waiting.pop() {
        match value {
            Value::List(list) => {
                if let Some(mut list) = Rc::into_inner(list) {
                    waiting.append(&mut list.0);
                }
            }
            Value::Map(map) => {
                if let Some(map) = Rc::into_inner(map) {
                    waiting.extend(map.0.take().into_values());
                }
            }
            _ => {}
        }
    }
}

impl Drop for List {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            end(std::mem::take(&mut self.0));
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        let entries = self.0.take();
        if !entries.is_empty() {
            end(entries.into_values().collect());
        }
    }
}

impl std::ops::Deref for List {
    type Target = [Value];

    fn deref(&self) -> &[Value] {
        &self.0
    }
}

impl Map {
    /// The value at `key`.
    pub fn get(&self, key: &Key) -> Option<Value> {
        self.0.borrow().get(key).cloned()
    }

    /// The value at the text `key`.
    pub fn text(&self, key: &str) -> Option<Value> {
        self.get(&Key::Text(key.into()))
    }

    /// Sets an entry of this map, for all who hold it.
    ///
    /// # Errors
    /// When the map would then contain itself, or nests too deeply.
    pub fn insert(self: &Rc<Self>, key: Key, value: Value) -> Result<(), String> {
        let mut visits = 0;
        if reaches(&value, self, 0, &mut visits) {
            return Err("a map cannot contain itself, or be nested this deeply".to_owned());
        }
        self.0.borrow_mut().insert(key, value);
        Ok(())
    }

    /// Takes an entry out, for all who hold the map.
    pub fn remove(&self, key: &Key) {
        let removed = self.0.borrow_mut().remove(key);
        // Not while the map is borrowed: the end of the value may look at it.
        drop(removed);
    }

    /// A copy of the entries, in order.
    pub fn entries(&self) -> Vec<(Key, Value)> {
        self.0.borrow().iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// No entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// True when `map` is somewhere in `value`, or that cannot be told within bounds.
fn reaches(value: &Value, map: &Rc<Map>, depth: usize, visits: &mut usize) -> bool {
    *visits += 1;
    if depth > DEPTH_MAX || *visits > VISITS_MAX {
        return true;
    }
    match value {
        Value::Map(other) => {
            Rc::ptr_eq(other, map)
                || other.entries().iter().any(|(_, inner)| reaches(inner, map, depth + 1, visits))
        }
        Value::List(items) => items.iter().any(|inner| reaches(inner, map, depth + 1, visits)),
        Value::Struct(of) => of.fields.iter().any(|(_, inner)| reaches(inner, map, depth + 1, visits)),
        _ => false,
    }
}

impl Struct {
    /// Go's name of the type.
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }

    /// The field `name`.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// All fields, in order.
    pub fn fields(&self) -> &[(&'static str, Value)] {
        &self.fields
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<Key> for Value {
    fn from(key: Key) -> Self {
        match key {
            Key::Int(number) => Self::Int(number),
            Key::Text(text) => Self::Text(text),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(text.as_str().into())
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl From<Vec<Value>> for Value {
    fn from(items: Vec<Value>) -> Self {
        Self::List(Rc::new(List(items)))
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl Value {
    /// A map of these entries.
    pub fn map(entries: impl IntoIterator<Item = (Key, Value)>) -> Self {
        Self::Map(Rc::new(Map(RefCell::new(entries.into_iter().collect()))))
    }

    /// A list of texts.
    pub fn texts<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> Self {
        Self::from(items.into_iter().map(|item| Self::from(item.as_ref())).collect::<Vec<_>>())
    }

    /// A value of the Go type `type_name` with these fields.
    pub fn fields(type_name: &'static str, fields: Vec<(&'static str, Value)>) -> Self {
        Self::Struct(Rc::new(Struct { type_name, fields }))
    }

    /// What an object stands for; other values are themselves.
    pub fn viewed(&self) -> Value {
        let mut value = self.clone();
        for _ in 0..4 {
            match value {
                Self::Object(object) => value = object.view(),
                other => return other,
            }
        }
        value
    }

    /// Missing or nil.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Missing | Self::Nil)
    }

    /// What `if` thinks of it: false for nothing, zero, and what is empty.
    pub fn truth(&self) -> bool {
        match self {
            Self::Missing | Self::Nil => false,
            Self::Bool(truth) => *truth,
            Self::Int(number) => *number != 0,
            Self::Uint(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Map(map) => !map.is_empty(),
            Self::Struct(_) => true,
            Self::Object(_) => self.viewed().truth(),
        }
    }

    /// Go's name of the type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Missing | Self::Nil => "interface {}",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::List(_) => "[]interface {}",
            Self::Map(_) => "map[string]interface {}",
            Self::Struct(of) => of.type_name(),
            Self::Object(object) => object.type_name(),
        }
    }

    /// Go's name of the kind of type.
    pub fn kind(&self) -> &'static str {
        match self.viewed() {
            Self::Missing | Self::Nil => "invalid",
            Self::List(_) => "slice",
            Self::Map(_) => "map",
            Self::Struct(_) | Self::Object(_) => "struct",
            other => other.type_name(),
        }
    }

    /// Equal in type and content; numbers also across their types. What is too large to tell is not equal.
    pub fn same(&self, other: &Value) -> bool {
        same(self, other, 0, &mut 0)
    }

    /// A value of JSON's. Whole numbers are integers only when `integers` is wanted; Go's own reader makes all of
    /// them floating.
    pub fn from_json(json: &serde_json::Value, integers: bool) -> Self {
        match json {
            serde_json::Value::Null => Self::Nil,
            serde_json::Value::Bool(truth) => Self::Bool(*truth),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(whole), _) if integers => Self::Int(whole),
                (None, Some(whole)) if integers => Self::Uint(whole),
                _ => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Self::from(text),
            serde_json::Value::Array(items) => {
                Self::from(items.iter().map(|item| Self::from_json(item, integers)).collect::<Vec<_>>())
            }
            serde_json::Value::Object(fields) => Self::map(
                fields.iter().map(|(key, value)| (Key::from(key.as_str()), Self::from_json(value, integers))),
            ),
        }
    }
}

/// A number as floating point, if it is one.
pub fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(number) => Some(*number as f64),
        Value::Uint(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        _ => None,
    }
}

fn same(left: &Value, right: &Value, depth: usize, visits: &mut usize) -> bool {
    *visits += 1;
    if depth > DEPTH_MAX || *visits > VISITS_MAX {
        return false;
    }
    match (&left.viewed(), &right.viewed()) {
        (Value::Missing | Value::Nil, Value::Missing | Value::Nil) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Text(left), Value::Text(right)) => left == right,
        (Value::Int(left), Value::Int(right)) => left == right,
        (Value::Uint(left), Value::Uint(right)) => left == right,
        (Value::List(left), Value::List(right)) => {
            left.len() == right.len()
                && left.iter().zip(right.iter()).all(|(left, right)| same(left, right, depth + 1, visits))
        }
        (Value::Map(left), Value::Map(right)) => {
            let (left, right) = (left.entries(), right.entries());
            left.len() == right.len()
                && left
                    .iter()
                    .zip(&right)
                    .all(|(left, right)| left.0 == right.0 && same(&left.1, &right.1, depth + 1, visits))
        }
        (Value::Struct(left), Value::Struct(right)) => {
            left.type_name == right.type_name
                && left
                    .fields
                    .iter()
                    .zip(&right.fields)
                    .all(|(left, right)| left.0 == right.0 && same(&left.1, &right.1, depth + 1, visits))
        }
        (left, right) => match (number(left), number(right)) {
            (Some(left), Some(right)) => left == right,
            _ => false,
        },
    }
}
