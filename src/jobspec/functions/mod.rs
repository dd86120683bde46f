//! The functions that job files may call. All are pure, except those that read files, which only the CLI enables.

mod collection;
mod crypto;
mod encoding;
mod files;
mod network;
mod numeric;
mod string;
mod time;

use hcl::Value;
use hcl::eval::Context;
use hcl::eval::Func;
use hcl::eval::FuncArgs;
use hcl::eval::FuncDef;
use hcl::eval::ParamType;

/// What a function gives back: a value, or why there is none.
type Answer = Result<Value, String>;

/// Name and implementation. Arguments are checked by the functions, so that the words are the same everywhere.
type Entry = (&'static str, Func);

/// Makes all functions known. `filesystem`: whether those that read files work.
pub(super) fn declare_all(context: &mut Context<'_>, filesystem: bool) {
    let pure = [
        numeric::FUNCTIONS,
        string::FUNCTIONS,
        collection::FUNCTIONS,
        encoding::FUNCTIONS,
        crypto::FUNCTIONS,
        time::FUNCTIONS,
        network::FUNCTIONS,
    ];
    for (name, function) in pure.into_iter().flatten() {
        declare(context, name, *function);
    }
    for (name, function) in files::FUNCTIONS {
        declare(context, name, if filesystem { *function } else { files::disabled });
    }
}

fn declare(context: &mut Context<'_>, name: &str, function: Func) {
    if let Ok(identifier) = hcl::Identifier::new(name) {
        let definition = FuncDef::builder().variadic_param(ParamType::Any).build(function);
        context.declare_func(identifier, definition);
    }
}

/// Checks the number of arguments.
fn arity(args: &FuncArgs, least: usize, most: usize) -> Result<(), String> {
    if args.len() < least {
        return Err(format!("not enough function arguments: expected at least {least}, got {}", args.len()));
    }
    if args.len() > most {
        return Err(format!("too many function arguments: expected at most {most}, got {}", args.len()));
    }
    Ok(())
}

/// The argument at `index` as a text; numbers and booleans are written out.
fn text(args: &FuncArgs, index: usize) -> Result<String, String> {
    match args.get(index) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(Value::Bool(flag)) => Ok(flag.to_string()),
        Some(_) => Err(format!("argument {}: string required", index + 1)),
        None => Err(format!("argument {} is missing", index + 1)),
    }
}

/// The argument at `index` as a number; texts that hold one are converted.
fn number(args: &FuncArgs, index: usize) -> Result<f64, String> {
    let value = args.get(index).ok_or_else(|| format!("argument {} is missing", index + 1))?;
    as_number(value).ok_or_else(|| format!("argument {}: a number is required", index + 1))
}

fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// The argument at `index` as a whole number.
fn whole(args: &FuncArgs, index: usize) -> Result<i64, String> {
    let number = number(args, index)?;
    if number.fract() != 0.0 || number.abs() > 9.0e15 {
        return Err(format!("argument {}: value must be a whole number", index + 1));
    }
    Ok(number as i64)
}

/// The argument at `index` as a list.
fn list(args: &FuncArgs, index: usize) -> Result<Vec<Value>, String> {
    match args.get(index) {
        Some(Value::Array(items)) => Ok(items.clone()),
        Some(_) => Err(format!("argument {}: list required", index + 1)),
        None => Err(format!("argument {} is missing", index + 1)),
    }
}

/// The argument at `index` as a map.
fn map(args: &FuncArgs, index: usize) -> Result<hcl::Map<String, Value>, String> {
    match args.get(index) {
        Some(Value::Object(map)) => Ok(map.clone()),
        Some(_) => Err(format!("argument {}: map required", index + 1)),
        None => Err(format!("argument {} is missing", index + 1)),
    }
}

/// A number that is whole when it can be.
fn from_number(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 9.0e15 {
        Value::from(number as i64)
    } else {
        Value::from(number)
    }
}

fn texts(items: impl IntoIterator<Item = String>) -> Value {
    Value::Array(items.into_iter().map(Value::String).collect())
}
