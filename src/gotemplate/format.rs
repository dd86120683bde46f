//! Go's `fmt`: how values look when printed, and `printf` with its verbs and flags.

use std::fmt;
use std::fmt::Write;
use std::rc::Rc;

use super::value::DEPTH_MAX;
use super::value::Value;

/// Widest field and longest precision, as in Go.
const WIDTH_MAX: usize = 1_000_000;

/// A text that grows up to a bound.
#[derive(Debug)]
pub struct Out {
    text: String,
    max: usize,
}

/// The text would be too long, or a value nests too deeply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text would be too long, or a value is nested too deeply")]
pub struct TooLarge;

impl From<fmt::Error> for TooLarge {
    fn from(_: fmt::Error) -> Self {
        Self
    }
}

impl Out {
    /// An empty text of at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { text: String::new(), max }
    }

    /// Appends.
    ///
    /// # Errors
    /// When it would be too long.
    pub fn push(&mut self, text: &str) -> Result<(), TooLarge> {
        if self.text.len() + text.len() > self.max {
            return Err(TooLarge);
        }
        self.text.push_str(text);
        Ok(())
    }

    /// What was appended.
    pub fn into_text(self) -> String {
        self.text
    }

    fn pad(&mut self, c: char, count: usize) -> Result<(), TooLarge> {
        (0..count).try_for_each(|_| self.push(c.encode_utf8(&mut [0; 4])))
    }
}

impl Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text).map_err(|_| fmt::Error)
    }
}

/// Flags between `%` and the verb.
#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    plus: bool,
    minus: bool,
    sharp: bool,
    /// `%+v`: names of fields.
    plus_v: bool,
    /// `%#v`: in the syntax of Go.
    sharp_v: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

impl Value {
    /// As printed by `%v`; empty when there is nothing. Very long texts are cut off.
    pub fn to_text(&self) -> String {
        if self.is_nothing() {
            return String::new();
        }
        let mut out = Out::new(super::TEXT_MAX);
        // Cut off where the bound is.
        let _ = one(&mut out, 'v', Flags::default(), self, 0);
        out.into_text()
    }
}

/// Prints what a template prints for a value.
///
/// # Errors
/// When `out` is full.
pub fn print(out: &mut Out, value: &Value) -> Result<(), TooLarge> {
    match value {
        Value::Missing | Value::Nil => out.push("<no value>"),
        Value::Text(text) => out.push(text),
        other => one(out, 'v', Flags::default(), other, 0),
    }
}

/// `fmt.Sprint`: blanks between operands of which neither is a text.
///
/// # Errors
/// When `out` is full.
pub fn sprint(out: &mut Out, values: &[Value]) -> Result<(), TooLarge> {
    for (index, value) in values.iter().enumerate() {
        let text = |value: &Value| matches!(value, Value::Text(_));
        if index > 0 && !text(value) && !text(&values[index - 1]) {
            out.push(" ")?;
        }
        one(out, 'v', Flags::default(), value, 0)?;
    }
    Ok(())
}

/// `fmt.Sprintln`: blanks between all operands, and a newline.
///
/// # Errors
/// When `out` is full.
pub fn sprintln(out: &mut Out, values: &[Value]) -> Result<(), TooLarge> {
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(" ")?;
        }
        one(out, 'v', Flags::default(), value, 0)?;
    }
    out.push("\n")
}

/// The arguments of a `printf`, and which comes next.
struct Arguments<'a> {
    values: &'a [Value],
    next: usize,
    reordered: bool,
}

impl<'a> Arguments<'a> {
    fn take(&mut self) -> Option<&'a Value> {
        let value = self.values.get(self.next)?;
        self.next += 1;
        Some(value)
    }

    /// `[3]`: the third argument comes next. False when that is no argument.
    fn index(&mut self, chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> bool {
        if chars.peek() != Some(&'[') {
            return true;
        }
        chars.next();
        let inner: String = chars.by_ref().take_while(|c| *c != ']').collect();
        self.reordered = true;
        match inner.parse::<usize>() {
            Ok(number) if (1..=self.values.len()).contains(&number) => {
                self.next = number - 1;
                true
            }
            _ => false,
        }
    }
}

/// `fmt.Sprintf`.
///
/// # Errors
/// When `out` is full. What is wrong with the format or the arguments is said in the text, as in Go.
pub fn sprintf(out: &mut Out, format: &str, values: &[Value]) -> Result<(), TooLarge> {
    let mut arguments = Arguments { values, next: 0, reordered: false };
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push(&rest[..at])?;
        let mut chars = rest[at + 1..].chars().peekable();
        verb(out, &mut chars, &mut arguments)?;
        let left: usize = chars.map(char::len_utf8).sum();
        rest = &rest[rest.len() - left..];
    }
    out.push(rest)?;
    if !arguments.reordered && arguments.next < values.len() {
        out.push("%!(EXTRA ")?;
        for (index, value) in values[arguments.next..].iter().enumerate() {
            if index > 0 {
                out.push(", ")?;
            }
            if value.is_nothing() {
                out.push("<nil>")?;
            } else {
                write!(out, "{}=", value.type_name())?;
                one(out, 'v', Flags::default(), value, 0)?;
            }
        }
        out.push(")")?;
    }
    Ok(())
}

/// One verb with its flags, after the `%`.
fn verb(
    out: &mut Out,
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    arguments: &mut Arguments<'_>,
) -> Result<(), TooLarge> {
    let mut flags = Flags::default();
    while let Some(flag) = chars.next_if(|c| matches!(c, '+' | '-' | '#' | ' ' | '0')) {
        match flag {
            '+' => flags.plus = true,
            '-' => flags.minus = true,
            '#' => flags.sharp = true,
            '0' => flags.zero = true,
            _ => flags.space = true,
        }
    }
    let mut good_index = arguments.index(chars);
    if chars.next_if_eq(&'*').is_some() {
        match arguments.take() {
            Some(Value::Int(width)) if width.unsigned_abs() <= WIDTH_MAX as u64 => {
                flags.minus |= *width < 0;
                flags.width = Some(width.unsigned_abs() as usize);
            }
            _ => out.push("%!(BADWIDTH)")?,
        }
        good_index &= arguments.index(chars);
    } else {
        flags.width = digits(chars);
    }
    if chars.next_if_eq(&'.').is_some() {
        good_index &= arguments.index(chars);
        if chars.next_if_eq(&'*').is_some() {
            match arguments.take() {
                Some(Value::Int(number)) if (0..=WIDTH_MAX as i64).contains(number) => {
                    flags.precision = Some(*number as usize);
                }
                _ => out.push("%!(BADPREC)")?,
            }
            good_index &= arguments.index(chars);
        } else {
            flags.precision = Some(digits(chars).unwrap_or(0));
        }
    }
    good_index &= arguments.index(chars);
    flags.zero &= !flags.minus;
    match chars.next() {
        None => out.push("%!(NOVERB)"),
        Some('%') => out.push("%"),
        Some(verb) if !good_index => Ok(write!(out, "%!{verb}(BADINDEX)")?),
        Some(verb) => match arguments.take() {
            None => Ok(write!(out, "%!{verb}(MISSING)")?),
            Some(value) if verb == 'T' => {
                let name = if value.is_nothing() { "<nil>" } else { value.type_name() };
                pad(out, flags, name)
            }
            Some(value) => {
                if verb == 'v' {
                    (flags.plus_v, flags.sharp_v) = (flags.plus, flags.sharp);
                    (flags.plus, flags.sharp) = (false, false);
                }
                one(out, verb, flags, value, 0)
            }
        },
    }
}

fn digits(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<usize> {
    let mut number = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        number = Some((number.unwrap_or(0) * 10 + digit as usize).min(WIDTH_MAX));
    }
    number
}

fn pad(out: &mut Out, flags: Flags, text: &str) -> Result<(), TooLarge> {
    let missing = flags.width.unwrap_or(0).saturating_sub(text.chars().count());
    if flags.minus {
        out.push(text)?;
        return out.pad(' ', missing);
    }
    out.pad(if flags.zero { '0' } else { ' ' }, missing)?;
    out.push(text)
}

/// One value by one verb.
fn one(out: &mut Out, verb: char, flags: Flags, value: &Value, depth: usize) -> Result<(), TooLarge> {
    if depth > DEPTH_MAX {
        return Err(TooLarge);
    }
    match (value, verb) {
        (Value::Missing | Value::Nil, 'v') => pad(out, flags, "<nil>"),
        (Value::Missing | Value::Nil, _) => Ok(write!(out, "%!{verb}(<nil>)")?),
        (Value::Bool(truth), 't' | 'v') => pad(out, flags, if *truth { "true" } else { "false" }),
        (Value::Int(number), _) => whole(out, verb, flags, i128::from(*number), value),
        (Value::Uint(number), _) => whole(out, verb, flags, i128::from(*number), value),
        (Value::Float(number), 'v' | 'g' | 'G' | 'e' | 'E' | 'f' | 'F') => float(out, verb, flags, *number),
        (Value::Text(text), _) => string(out, verb, flags, text, value),
        (Value::List(items), _) => {
            let sharp = flags.sharp_v;
            out.push(if sharp { "[]interface {}{" } else { "[" })?;
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(if sharp { ", " } else { " " })?;
                }
                one(out, verb, flags, item, depth + 1)?;
            }
            out.push(if sharp { "}" } else { "]" })
        }
        (Value::Map(map), _) => {
            let sharp = flags.sharp_v;
            out.push(if sharp { "map[string]interface {}{" } else { "map[" })?;
            for (index, (key, item)) in map.entries().into_iter().enumerate() {
                if index > 0 {
                    out.push(if sharp { ", " } else { " " })?;
                }
                one(out, verb, flags, &Value::from(key), depth + 1)?;
                out.push(":")?;
                one(out, verb, flags, &item, depth + 1)?;
            }
            out.push(if sharp { "}" } else { "]" })
        }
        (Value::Struct(of), _) => {
            let named = flags.plus_v || flags.sharp_v;
            if flags.sharp_v {
                out.push(of.type_name())?;
            }
            out.push("{")?;
            for (index, (name, item)) in of.fields().iter().enumerate() {
                if index > 0 {
                    out.push(if flags.sharp_v { ", " } else { " " })?;
                }
                if named {
                    write!(out, "{name}:")?;
                }
                one(out, verb, flags, item, depth + 1)?;
            }
            out.push("}")
        }
        (Value::Object(_), _) => one(out, verb, flags, &value.viewed(), depth + 1),
        (Value::Bool(_) | Value::Float(_), _) => bad(out, verb, value),
    }
}

fn bad(out: &mut Out, verb: char, value: &Value) -> Result<(), TooLarge> {
    write!(out, "%!{verb}({}=", value.type_name())?;
    one(out, 'v', Flags::default(), value, 0)?;
    out.push(")")
}

fn whole(out: &mut Out, verb: char, mut flags: Flags, number: i128, value: &Value) -> Result<(), TooLarge> {
    let magnitude = number.unsigned_abs();
    let (prefix, digits) = match verb {
        'v' | 'd' => ("", magnitude.to_string()),
        'b' => ("0b", format!("{magnitude:b}")),
        'o' => ("0", format!("{magnitude:o}")),
        'O' => ("0o", format!("{magnitude:o}")),
        'x' => ("0x", format!("{magnitude:x}")),
        'X' => ("0X", format!("{magnitude:X}")),
        'c' => return pad(out, flags, &character(number).to_string()),
        'q' => return pad(out, flags, &format!("'{}'", character(number).escape_debug())),
        'U' => {
            let shown = if flags.sharp { format!(" '{}'", character(number)) } else { String::new() };
            return pad(out, flags, &format!("U+{magnitude:04X}{shown}"));
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' | 's' | 't' => return bad(out, verb, value),
        _ => return bad(out, verb, value),
    };
    let sign = match (number < 0, flags.plus, flags.space) {
        (true, ..) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        _ => "",
    };
    let prefix = if flags.sharp || verb == 'O' { prefix } else { "" };
    let digits = match flags.precision {
        Some(0) if number == 0 => String::new(),
        Some(precision) => format!("{}{digits}", "0".repeat(precision.saturating_sub(digits.len()))),
        None if flags.zero => {
            let wanted = flags.width.unwrap_or(0).saturating_sub(sign.len() + prefix.len());
            format!("{}{digits}", "0".repeat(wanted.saturating_sub(digits.len())))
        }
        None => digits,
    };
    flags.zero = false;
    pad(out, flags, &format!("{sign}{prefix}{digits}"))
}

fn character(number: i128) -> char {
    u32::try_from(number).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn string(out: &mut Out, verb: char, flags: Flags, text: &Rc<str>, value: &Value) -> Result<(), TooLarge> {
    let cut: &str = match flags.precision {
        Some(precision) if verb != 'x' && verb != 'X' => {
            text.char_indices().nth(precision).map_or(text, |(end, _)| &text[..end])
        }
        Some(precision) => text.get(..precision.min(text.len())).unwrap_or(text),
        None => text,
    };
    match verb {
        'v' if flags.sharp_v => pad(out, flags, &quoted(cut, false)),
        'v' | 's' => pad(out, flags, cut),
        'q' if flags.sharp && !cut.contains(['`', '\n']) => pad(out, flags, &format!("`{cut}`")),
        'q' => pad(out, flags, &quoted(cut, flags.plus)),
        'x' | 'X' => {
            super::fits(cut.len() * 5).map_err(|_| TooLarge)?;
            let bytes = cut
                .bytes()
                .map(|byte| if verb == 'x' { format!("{byte:02x}") } else { format!("{byte:02X}") });
            let bytes: Vec<String> = bytes.collect();
            let prefix = match (flags.sharp, verb) {
                (true, 'x') => "0x",
                (true, _) => "0X",
                _ => "",
            };
            let text = if flags.space {
                let separator = format!(" {prefix}");
                bytes.join(&separator)
            } else {
                bytes.concat()
            };
            pad(out, flags, &format!("{}{text}", if bytes.is_empty() { "" } else { prefix }))
        }
        _ => bad(out, verb, value),
    }
}

/// A text in quotes, as Go writes it.
pub fn quoted(text: &str, ascii: bool) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if c < ' ' || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_ascii() => out.push(c),
            c if ascii || c.is_control() => {
                let code = u32::from(c);
                let text = if code > 0xffff { format!("\\U{code:08x}") } else { format!("\\u{code:04x}") };
                out.push_str(&text);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn float(out: &mut Out, verb: char, mut flags: Flags, number: f64) -> Result<(), TooLarge> {
    let text = match verb {
        'e' | 'E' => exponent(number.abs(), Some(flags.precision.unwrap_or(6))),
        'f' | 'F' => {
            let precision = flags.precision.unwrap_or(6).min(WIDTH_MAX);
            go_special(number).unwrap_or_else(|| format!("{:.precision$}", number.abs()))
        }
        _ => general(number.abs(), flags.precision),
    };
    let text = if matches!(verb, 'E' | 'G') { text.to_uppercase() } else { text };
    let sign = match (number.is_sign_negative() && !number.is_nan(), flags.plus, flags.space) {
        (true, ..) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        _ if number.is_infinite() => "+",
        _ => "",
    };
    if flags.zero && number.is_finite() {
        let wanted = flags.width.unwrap_or(0).saturating_sub(sign.len() + text.len());
        out.push(sign)?;
        out.pad('0', wanted)?;
        return out.push(&text);
    }
    flags.zero = false;
    pad(out, flags, &format!("{sign}{text}"))
}

fn go_special(number: f64) -> Option<String> {
    if number.is_nan() {
        Some("NaN".to_owned())
    } else if number.is_infinite() {
        Some("Inf".to_owned())
    } else {
        None
    }
}

/// `%e` of a number that is not negative; without a precision as many digits as are needed.
fn exponent(number: f64, precision: Option<usize>) -> String {
    if let Some(special) = go_special(number) {
        return special;
    }
    let text = match precision {
        Some(precision) => format!("{number:.precision$e}"),
        None => format!("{number:e}"),
    };
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// `%g` of a number that is not negative.
fn general(number: f64, precision: Option<usize>) -> String {
    if let Some(special) = go_special(number) {
        return special;
    }
    let text = match precision {
        None => format!("{number:e}"),
        Some(precision) => format!("{number:.*e}", precision.max(1) - 1),
    };
    let (mantissa, at) = text.split_once('e').unwrap_or((&text, "0"));
    let at: i32 = at.parse().unwrap_or(0);
    let digits = mantissa.replace('.', "");
    let digits = digits.trim_end_matches('0').to_owned();
    let count = digits.len().max(1) as i32;
    let bound = match precision {
        // As if six digits were wanted, but no number is cut.
        None => 6,
        Some(precision) => {
            let precision = precision.max(1) as i32;
            if precision > count && count > at { count } else { precision }
        }
    };
    if at < -4 || at >= bound {
        return exponent(number, Some((count - 1) as usize));
    }
    let decimals = (count - 1 - at).max(0) as usize;
    format!("{number:.decimals$}")
}

/// A floating number as `%v` prints it.
pub fn float_text(number: f64) -> String {
    let sign = if number.is_sign_negative() && !number.is_nan() { "-" } else { "" };
    let sign = if number == f64::INFINITY { "+" } else { sign };
    format!("{sign}{}", general(number.abs(), None))
}
