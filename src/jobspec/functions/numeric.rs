//! Numbers.

use super::Answer;
use super::Args;
use super::Function;
use super::Number;
use super::Value;
use super::Wrong;
use super::function;
use super::number;
use super::whole;

pub(super) const FUNCTIONS: &[Function] = &[
    function("abs", &["num"], |args| {
        Ok(Value::Number(match number(args, 0)? {
            Number::Whole(whole) => Number::Whole(whole.saturating_abs()),
            Number::Fraction(number) => Number::Fraction(number.abs()),
        }))
    }),
    function("ceil", &["num"], |args| rounded(args, f64::ceil)),
    function("floor", &["num"], |args| rounded(args, f64::floor)),
    function("signum", &["num"], |args| Ok(Value::from(whole(args, 0)?.signum()))),
    function("log", &["num", "base"], log),
    function("pow", &["num", "power"], pow),
    function("max", &["*numbers"], |args| chosen(args, |one, best| one > best)),
    function("min", &["*numbers"], |args| chosen(args, |one, best| one < best)),
    function("parseint", &["number", "base"], parseint),
];

fn rounded(args: &Args, round: fn(f64) -> f64) -> Answer {
    Ok(Value::Number(match number(args, 0)? {
        Number::Fraction(number) => Number::from_f64(round(number)),
        whole => whole,
    }))
}

fn finite(number: f64) -> Answer {
    if number.is_finite() {
        Ok(Value::Number(Number::computed(number)))
    } else {
        Err("the result is not a finite number".into())
    }
}

fn log(args: &Args) -> Answer {
    finite(number(args, 0)?.as_f64().ln() / number(args, 1)?.as_f64().ln())
}

fn pow(args: &Args) -> Answer {
    let (base, power) = (number(args, 0)?, number(args, 1)?);
    if let (Some(base), Some(power)) = (base.as_whole(), power.as_whole())
        && let Ok(power) = u32::try_from(power)
        && let Some(exact) = base.checked_pow(power)
    {
        return Ok(Value::Number(Number::Whole(exact)));
    }
    let result = base.as_f64().powf(power.as_f64());
    if result.is_finite() { Ok(Value::Number(Number::from_f64(result))) } else { finite(result) }
}

fn chosen(args: &Args, better: fn(Number, Number) -> bool) -> Answer {
    let mut best = None;
    for index in 0..args.len() {
        let one = number(args, index)?;
        if best.is_none_or(|best| better(one, best)) {
            best = Some(one);
        }
    }
    best.map(Value::Number).ok_or_else(|| "must pass at least one number".into())
}

/// Digits beyond those of base 36 are upper-case letters.
fn digit(c: char, base: u32) -> Option<u32> {
    if base <= 36 {
        return c.to_digit(base);
    }
    let value = match c {
        '0'..='9' => c as u32 - '0' as u32,
        'a'..='z' => c as u32 - 'a' as u32 + 10,
        'A'..='Z' => c as u32 - 'A' as u32 + 36,
        _ => return None,
    };
    (value < base).then_some(value)
}

fn parseint(args: &Args) -> Answer {
    let Some(written) = args[0].as_str() else {
        return Err(Wrong::Argument(
            0,
            format!("first argument must be a string, not {}", args[0].type_name()),
        ));
    };
    let base = u32::try_from(whole(args, 1)?).ok().filter(|base| (2..=62).contains(base));
    let base = base.ok_or_else(|| {
        Wrong::Argument(1, "base must be a whole number between 2 and 62 inclusive".to_owned())
    })?;
    let (negative, digits) = match written.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, written.strip_prefix('+').unwrap_or(written)),
    };
    let add =
        |sum: i128, c: char| sum.checked_mul(i128::from(base))?.checked_add(i128::from(digit(c, base)?));
    let parsed = digits.chars().try_fold(0, add).filter(|_| !digits.is_empty());
    let parsed = parsed
        .ok_or_else(|| Wrong::Argument(0, format!("cannot parse {written:?} as a base {base} integer")))?;
    Ok(Value::Number(Number::Whole(if negative { -parsed } else { parsed })))
}
