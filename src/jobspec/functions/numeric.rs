//! Numbers.

use hcl::Value;
use hcl::eval::FuncArgs;

use super::Answer;
use super::Entry;
use super::arity;
use super::from_number;
use super::number;
use super::text;
use super::whole;

pub(super) const FUNCTIONS: &[Entry] = &[
    ("abs", |args| one(&args, f64::abs)),
    ("ceil", |args| one(&args, f64::ceil)),
    ("floor", |args| one(&args, f64::floor)),
    ("signum", |args| one(&args, |n| if n == 0.0 { 0.0 } else { n.signum() })),
    ("log", log),
    ("pow", pow),
    ("max", |args| fold(&args, f64::max)),
    ("min", |args| fold(&args, f64::min)),
    ("parseint", parseint),
];

fn one(args: &FuncArgs, function: fn(f64) -> f64) -> Answer {
    arity(args, 1, 1)?;
    Ok(from_number(function(number(args, 0)?)))
}

fn log(args: FuncArgs) -> Answer {
    arity(&args, 2, 2)?;
    Ok(from_number(number(&args, 0)?.ln() / number(&args, 1)?.ln()))
}

fn pow(args: FuncArgs) -> Answer {
    arity(&args, 2, 2)?;
    Ok(from_number(number(&args, 0)?.powf(number(&args, 1)?)))
}

fn fold(args: &FuncArgs, choose: fn(f64, f64) -> f64) -> Answer {
    let mut chosen = number(args, 0).map_err(|_| "must pass at least one number".to_owned())?;
    for index in 1..args.len() {
        chosen = choose(chosen, number(args, index)?);
    }
    Ok(from_number(chosen))
}

fn parseint(args: FuncArgs) -> Answer {
    arity(&args, 2, 2)?;
    let written = text(&args, 0)?;
    let base = whole(&args, 1)?;
    let base = u32::try_from(base).ok().filter(|base| (2..=36).contains(base));
    let base = base.ok_or("base must be a whole number between 2 and 36 inclusive")?;
    let parsed = i64::from_str_radix(&written, base);
    parsed.map(Value::from).map_err(|_| format!("cannot parse {written:?} as a base {base} integer"))
}
