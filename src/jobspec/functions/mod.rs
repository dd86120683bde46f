//! The functions that job files may call. All are pure, except those that read files, which only the CLI enables.

mod collection;
mod crypto;
mod encoding;
mod files;
mod format;
mod network;
mod numeric;
mod string;
mod time;
mod yaml;

use super::eval::Failure;
use super::types;
use super::value::Map;
use super::value::Number;
use super::value::Value;

/// The longest text that a function gives back.
const MAX_TEXT: usize = 16 * 1024 * 1024;

/// What a function gives back: a value, or why there is none.
type Answer = Result<Value, Wrong>;

/// The arguments of a call.
pub(super) struct Args(pub(super) Vec<Value>);

impl std::ops::Deref for Args {
    type Target = [Value];

    fn deref(&self) -> &[Value] {
        &self.0
    }
}

/// Why a call has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// The call as a whole.
    Call(String),
    /// One argument, counted from 0.
    Argument(usize, String),
    /// The number of arguments: summary and detail.
    Count(String, String),
}

impl From<String> for Wrong {
    fn from(why: String) -> Self {
        Self::Call(why)
    }
}

impl From<&str> for Wrong {
    fn from(why: &str) -> Self {
        Self::Call(why.to_owned())
    }
}

impl Wrong {
    /// The index of the argument that is to blame.
    pub(super) fn argument(&self) -> Option<usize> {
        if let Self::Argument(index, _) = self { Some(*index) } else { None }
    }

    /// In the words of HCL.
    pub(super) fn failure(&self, function: &Function) -> Failure {
        match self {
            Self::Call(why) => {
                let detail = format!("Call to function {:?} failed: {why}.", function.name);
                Failure::new("Error in function call", detail)
            }
            Self::Argument(index, why) => {
                let detail = format!("Invalid value for {:?} parameter: {why}.", function.parameter(*index));
                Failure::new("Invalid function argument", detail)
            }
            Self::Count(summary, detail) => Failure::new(summary, detail),
        }
    }
}

/// A function. A parameter whose name begins with `?` may be null; the last one may begin with `*`, which takes any
/// number of arguments.
pub(super) struct Function {
    pub(super) name: &'static str,
    parameters: &'static [&'static str],
    run: fn(&Args) -> Answer,
}

const fn function(
    name: &'static str,
    parameters: &'static [&'static str],
    run: fn(&Args) -> Answer,
) -> Function {
    Function { name, parameters, run }
}

const TABLES: [&[Function]; 9] = [
    numeric::FUNCTIONS,
    string::FUNCTIONS,
    format::FUNCTIONS,
    collection::FUNCTIONS,
    encoding::FUNCTIONS,
    crypto::FUNCTIONS,
    time::FUNCTIONS,
    network::FUNCTIONS,
    files::FUNCTIONS,
];

/// The function of a name.
pub(super) fn find(name: &str) -> Option<&'static Function> {
    TABLES.iter().copied().flatten().find(|function| function.name == name)
}

/// The names of all functions.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let special = ["can", "try", "convert"];
    TABLES.iter().copied().flatten().map(|function| function.name).chain(special)
}

impl Function {
    /// Checks the arguments and calls. `filesystem`: whether functions that read files work.
    pub(super) fn call(&self, args: &Args, filesystem: bool) -> Answer {
        let is_variadic = self.parameters.last().is_some_and(|name| name.starts_with('*'));
        let least = self.parameters.len() - usize::from(is_variadic);
        if args.len() < least {
            let detail = format!(
                "Function {:?} expects {}{least} argument(s). Missing value for {:?}.",
                self.name,
                if is_variadic { "at least " } else { "" },
                self.parameter(args.len()),
            );
            return Err(Wrong::Count("Not enough function arguments".to_owned(), detail));
        }
        if args.len() > least && !is_variadic {
            let detail = format!("Function {:?} expects only {least} argument(s).", self.name);
            return Err(Wrong::Count("Too many function arguments".to_owned(), detail));
        }
        for (index, _) in args.iter().enumerate().filter(|(_, value)| value.is_null()) {
            let name = self.parameters.get(index).or(self.parameters.last());
            if !name.is_some_and(|name| name.contains('?')) {
                return Err(Wrong::Argument(index, "argument must not be null".to_owned()));
            }
        }
        if !filesystem && files::FUNCTIONS.iter().any(|function| function.name == self.name) {
            return Err("filesystem function disabled".into());
        }
        (self.run)(args)
    }

    fn parameter(&self, index: usize) -> &'static str {
        let name = self.parameters.get(index).or(self.parameters.last()).copied().unwrap_or_default();
        name.trim_start_matches(['*', '?'])
    }
}

/// The argument at `index` as a text; numbers and booleans are written out.
fn text(args: &Args, index: usize) -> Result<String, Wrong> {
    let value = args.get(index).and_then(Value::to_text);
    value.ok_or_else(|| Wrong::Argument(index, "string required".to_owned()))
}

/// The argument at `index` as a number; texts that hold one are converted.
fn number(args: &Args, index: usize) -> Result<Number, Wrong> {
    let value = args.get(index).unwrap_or(&Value::Null);
    value.to_number().map_err(|why| Wrong::Argument(index, why.to_owned()))
}

/// The argument at `index` as a whole number.
fn whole(args: &Args, index: usize) -> Result<i64, Wrong> {
    types::whole(number(args, index)?).ok_or_else(|| {
        "value must be a whole number, between -9223372036854775808 and 9223372036854775807".into()
    })
}

/// The argument at `index` as a list.
fn list<'a>(args: &'a Args, index: usize, required: &str) -> Result<&'a [Value], Wrong> {
    let value = args.get(index).and_then(Value::as_array);
    value.map(Vec::as_slice).ok_or_else(|| Wrong::Argument(index, required.to_owned()))
}

/// The argument at `index` as a list of texts.
fn text_list(args: &Args, index: usize) -> Result<Vec<Option<String>>, Wrong> {
    let required = "list of string required";
    let item = |value: &Value| match value {
        Value::Null => Ok(None),
        value => value.to_text().map(Some).ok_or_else(|| Wrong::Argument(index, required.to_owned())),
    };
    list(args, index, required)?.iter().map(item).collect()
}

fn texts(items: impl IntoIterator<Item = String>) -> Value {
    Value::Array(items.into_iter().map(Value::String).collect())
}

/// Refuses a text before it is made when it would be too long.
fn fits(size: usize) -> Result<(), Wrong> {
    if size > MAX_TEXT {
        Err(format!("the result is larger than {} MiB", MAX_TEXT >> 20).into())
    } else {
        Ok(())
    }
}
