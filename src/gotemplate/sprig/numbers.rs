//! Sprig's functions on numbers. Whatever is given counts as a number, texts too.

use rand::RngExt;

use super::Row;
use super::answer;
use super::float;
use super::int;
use crate::gotemplate::Answer;
use crate::gotemplate::Failure;
use crate::gotemplate::between;
use crate::gotemplate::exactly;
use crate::gotemplate::int_of;
use crate::gotemplate::value::Value;

pub(super) const TABLE: &[Row] = &[
    ("sprig_atoi", |a| answer(exactly::<1>("atoi", a)?[0].to_text().parse::<i64>().unwrap_or(0))),
    ("sprig_int", |a| answer(int(&exactly::<1>("int", a)?[0]))),
    ("sprig_int64", |a| answer(int(&exactly::<1>("int64", a)?[0]))),
    ("sprig_float64", |a| answer(float(&exactly::<1>("float64", a)?[0]))),
    ("sprig_toDecimal", |a| {
        answer(i64::from_str_radix(&exactly::<1>("toDecimal", a)?[0].to_text(), 8).unwrap_or(0))
    }),
    ("sprig_add1", |a| answer(int(&exactly::<1>("add1", a)?[0]).wrapping_add(1))),
    ("sprig_add", |a| answer(a.iter().map(int).fold(0, i64::wrapping_add))),
    ("sprig_sub", |a| both("sub", a, |left, right| Some(left.wrapping_sub(right)))),
    ("sprig_div", |a| both("div", a, i64::checked_div)),
    ("sprig_mod", |a| both("mod", a, i64::checked_rem)),
    ("sprig_mul", |a| folded("mul", a, i64::wrapping_mul)),
    ("sprig_max", |a| folded("max", a, i64::max)),
    ("sprig_biggest", |a| folded("biggest", a, i64::max)),
    ("sprig_min", |a| folded("min", a, i64::min)),
    ("sprig_add1f", |a| answer(float(&exactly::<1>("add1f", a)?[0]) + 1.0)),
    ("sprig_addf", |a| real("addf", a, |left, right| left + right)),
    ("sprig_subf", |a| real("subf", a, |left, right| left - right)),
    ("sprig_mulf", |a| real("mulf", a, |left, right| left * right)),
    ("sprig_divf", |a| real("divf", a, |left, right| left / right)),
    ("sprig_maxf", |a| real("maxf", a, f64::max)),
    ("sprig_minf", |a| real("minf", a, f64::min)),
    ("sprig_ceil", |a| answer(float(&exactly::<1>("ceil", a)?[0]).ceil())),
    ("sprig_floor", |a| answer(float(&exactly::<1>("floor", a)?[0]).floor())),
    ("sprig_round", round),
    ("sprig_randInt", |a| {
        let [low, high] = exactly("randInt", a)?;
        let (low, high) = (int_of(low)?, int_of(high)?);
        if low >= high {
            return Err(Failure::called(format_args!("no number between {low} and {high}")));
        }
        answer(rand::rng().random_range(low..high))
    }),
];

fn both(name: &str, arguments: &[Value], of: impl Fn(i64, i64) -> Option<i64>) -> Answer {
    let [left, right] = exactly(name, arguments)?;
    match of(int(left), int(right)) {
        Some(result) => answer(result),
        None => Err(Failure::called("runtime error: integer divide by zero")),
    }
}

fn folded(name: &str, arguments: &[Value], of: impl Fn(i64, i64) -> i64) -> Answer {
    match arguments.iter().map(int).reduce(of) {
        Some(result) => answer(result),
        None => Err(Failure::Arguments(format!("wrong number of args for {name}: want at least 1 got 0"))),
    }
}

fn real(name: &str, arguments: &[Value], of: impl Fn(f64, f64) -> f64) -> Answer {
    match arguments.iter().map(float).reduce(of) {
        Some(result) => answer(result),
        None => Err(Failure::Arguments(format!("wrong number of args for {name}: want at least 1 got 0"))),
    }
}

/// `round value digits [from]`: fractions from `from` on (0.5) count up.
fn round(arguments: &[Value]) -> Answer {
    between("round", arguments, 2, 3)?;
    let value = float(&arguments[0]);
    let digits = i32::try_from(int(&arguments[1]).clamp(-300, 300)).unwrap_or(0);
    let from = arguments.get(2).map_or(0.5, float);
    let power = 10f64.powi(digits);
    let scaled = value * power;
    let up = if scaled.fract().abs() >= from { scaled.abs().ceil() } else { scaled.abs().floor() };
    answer(up.copysign(scaled) / power)
}
