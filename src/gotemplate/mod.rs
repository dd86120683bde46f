//! Go's template language (`text/template`): what templates of tasks and the `-t` flag of commands are written in.
//!
//! `lex` and `parse` make a tree, `exec` walks it, `format` prints values and is Go's `fmt`, `builtins` has the
//! language's own functions and `sprig` the library that Nomad adds to it. Everything is bounded, because templates
//! come from users: nesting, steps, and the size of texts.

mod builtins;
mod exec;
pub mod format;
pub mod json;
mod lex;
mod parse;
pub mod sockaddr;
pub mod sprig;
pub mod time;
mod tree;
pub mod value;

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

pub use lex::Delimiters;
pub use sprig::regex_replaced;
pub use sprig::replaced;
use value::Value;

/// Largest text that a template or one of its functions makes, bytes.
pub const TEXT_MAX: usize = 16 << 20;
/// Longest list that a function makes.
pub const ITEMS_MAX: usize = 1_000_000;

/// Why a function gave no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Its arguments do not fit: `wrong number of args for …`.
    Arguments(String),
    /// It failed; the name of the function is put before this.
    Called(String),
}

impl Failure {
    /// Called with fitting arguments, and failed.
    pub fn called(reason: impl std::fmt::Display) -> Self {
        Self::Called(reason.to_string())
    }
}

/// What a function gives.
pub type Answer = Result<Value, Failure>;
/// A function that depends on its arguments only.
pub type Plain = fn(&[Value]) -> Answer;

type Bound<'a> = Rc<dyn Fn(&[Value]) -> Answer + 'a>;

#[derive(Clone)]
enum Function<'a> {
    Plain(Plain),
    Bound(Bound<'a>),
}

/// The functions that a template may call besides the language's own.
#[derive(Clone, Default)]
pub struct Functions<'a> {
    by_name: HashMap<Cow<'static, str>, Function<'a>>,
}

impl<'a> Functions<'a> {
    /// Adds functions; a later one of the same name counts.
    pub fn add(&mut self, functions: &[(&'static str, Plain)]) {
        self.by_name.extend(
            functions.iter().map(|(name, function)| (Cow::Borrowed(*name), Function::Plain(*function))),
        );
    }

    /// Adds a function that looks at its surroundings.
    pub fn bind(&mut self, name: impl Into<Cow<'static, str>>, function: impl Fn(&[Value]) -> Answer + 'a) {
        self.by_name.insert(name.into(), Function::Bound(Rc::new(function)));
    }

    /// Whether there is such a function, the language's own included.
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name) || builtins::find(name).is_some()
    }

    fn call(&self, name: &str, arguments: &[Value]) -> Answer {
        match self.by_name.get(name) {
            Some(Function::Plain(function)) => function(arguments),
            Some(Function::Bound(function)) => function(arguments),
            None => match builtins::find(name) {
                Some(function) => function(arguments),
                None => Err(Failure::Arguments(format!("{name:?} is not a defined function"))),
            },
        }
    }
}

/// How a template is read and run.
#[derive(Clone, Debug)]
pub struct Options {
    pub delimiters: Delimiters,
    /// A missing key of a map is an error (`missingkey=error`).
    pub strict: bool,
    /// Nodes and function calls of one run; calls on large values count for more.
    pub steps: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { delimiters: Delimiters::default(), strict: false, steps: 10_000_000 }
    }
}

/// A template that was parsed.
#[derive(Debug)]
pub struct Template {
    name: String,
    source: String,
    strict: bool,
    steps: usize,
    tree: parse::Tree,
}

impl Template {
    /// Parses `source`. The name is for error texts, and may be empty.
    ///
    /// # Errors
    /// In Go's words: `template: <name>:<line>: …`.
    pub fn parse(
        name: &str,
        source: &str,
        options: &Options,
        functions: &Functions<'_>,
    ) -> Result<Self, String> {
        let tree = parse::parse(source, &options.delimiters, &|function| functions.has(function))
            .map_err(|(line, message)| format!("template: {name}:{line}: {message}"))?;
        let (strict, steps) = (options.strict, options.steps);
        Ok(Self { name: name.to_owned(), source: source.to_owned(), strict, steps, tree })
    }

    /// Runs the template on `data`.
    ///
    /// # Errors
    /// In Go's words: `template: <name>:<line>:<column>: executing "<template>" at <what>: …`.
    pub fn render(&self, data: &Value, functions: &Functions<'_>) -> Result<String, String> {
        exec::run(self, data, functions)
    }
}

/// Exactly `N` arguments.
///
/// # Errors
/// Go's words for another number.
pub fn exactly<'a, const N: usize>(name: &str, arguments: &'a [Value]) -> Result<&'a [Value; N], Failure> {
    let count = arguments.len();
    arguments
        .try_into()
        .map_err(|_| Failure::Arguments(format!("wrong number of args for {name}: want {N} got {count}")))
}

/// Between `least` and `most` arguments.
///
/// # Errors
/// Go's words for another number.
pub fn between(name: &str, arguments: &[Value], least: usize, most: usize) -> Result<(), Failure> {
    let count = arguments.len();
    if (least..=most).contains(&count) {
        return Ok(());
    }
    let want = if count < least { format!("at least {least}") } else { format!("at most {most}") };
    Err(Failure::Arguments(format!("wrong number of args for {name}: want {want} got {count}")))
}

/// An argument that must be a text.
///
/// # Errors
/// Go's words for another type.
pub fn text_of(value: &Value) -> Result<Rc<str>, Failure> {
    match value.viewed() {
        Value::Text(text) => Ok(text),
        Value::Missing | Value::Nil => Err(Failure::Arguments("invalid value; expected string".to_owned())),
        other => Err(Failure::Arguments(format!(
            "wrong type for value; expected string; got {}",
            other.type_name()
        ))),
    }
}

/// An argument that must be a whole number.
///
/// # Errors
/// Go's words for another type.
pub fn int_of(value: &Value) -> Result<i64, Failure> {
    match value.viewed() {
        Value::Int(number) => Ok(number),
        Value::Uint(number) => {
            i64::try_from(number).map_err(|_| Failure::called(format!("{number} overflows int")))
        }
        Value::Missing | Value::Nil => Err(Failure::Arguments("invalid value; expected int".to_owned())),
        other => {
            Err(Failure::Arguments(format!("wrong type for value; expected int; got {}", other.type_name())))
        }
    }
}

/// Fails when a text of so many bytes would be too large.
///
/// # Errors
/// Names the bound.
pub fn fits(bytes: usize) -> Result<(), Failure> {
    if bytes <= TEXT_MAX {
        return Ok(());
    }
    Err(Failure::Called(format!("the text would be larger than {TEXT_MAX} bytes")))
}

#[cfg(test)]
mod tests;
