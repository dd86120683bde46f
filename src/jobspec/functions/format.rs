//! `format` and `formatlist`: the verbs of `printf`, for values of HCL.

use super::Answer;
use super::Args;
use super::Function;
use super::Number;
use super::Value;
use super::Wrong;
use super::fits;
use super::function;
use super::text;
use super::texts;

pub(super) const FUNCTIONS: &[Function] = &[
    function("format", &["format", "*?args"], format),
    function("formatlist", &["format", "*?args"], formatlist),
];

/// Wider fields than this are refused, and numbers with more digits.
const MAX_WIDTH: usize = 1024;
/// Lists that `formatlist` makes are no longer than this.
const MAX_ROWS: usize = 65_536;

fn format(args: &Args) -> Answer {
    let pattern = text(args, 0)?;
    formatted(&pattern, &args[1..]).map(Value::String)
}

fn formatlist(args: &Args) -> Answer {
    let pattern = text(args, 0)?;
    let values = &args[1..];
    let mut length: Option<(usize, usize)> = None;
    for (index, items) in
        values.iter().enumerate().filter_map(|(index, value)| Some((index, value.as_array()?)))
    {
        match length {
            None => length = Some((index, items.len())),
            Some((first, wanted)) if wanted != items.len() => {
                let why = format!(
                    "argument {} has length {}, which is inconsistent with argument {} of length {wanted}",
                    index + 1,
                    items.len(),
                    first + 1
                );
                return Err(Wrong::Argument(index + 1, why));
            }
            Some(_) => {}
        }
    }
    let rows = length.map_or(1, |(_, length)| length);
    if rows > MAX_ROWS {
        return Err(format!("more than {MAX_ROWS} values").into());
    }
    let mut out = Vec::new();
    let mut size = 0;
    for row in 0..rows {
        let pick = |value: &Value| match value {
            Value::Array(items) => items.get(row).cloned().unwrap_or(Value::Null),
            single => single.clone(),
        };
        let row: Vec<Value> = values.iter().map(pick).collect();
        let line = formatted(&pattern, &row)?;
        size += line.len();
        fits(size)?;
        out.push(line);
    }
    Ok(texts(out))
}

/// A verb: flags, width, precision.
struct Verb<'a> {
    /// As written, with the percent sign.
    written: &'a str,
    offset: usize,
    zero: bool,
    left: bool,
    plus: bool,
    space: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
    letter: char,
}

/// Reads digits at the start of `text`; the number and their length.
fn digits(text: &str) -> (usize, usize) {
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    (text[..length].parse().unwrap_or(usize::MAX), length)
}

fn formatted(pattern: &str, values: &[Value]) -> Result<String, Wrong> {
    let mut out = String::new();
    let mut rest = pattern;
    let (mut next, mut highest) = (0, 0);
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let offset = pattern.len() - rest.len();
        if let Some(after) = rest.strip_prefix("%%") {
            out.push('%');
            rest = after;
            continue;
        }
        let (verb, index) = parse_verb(rest, offset)?;
        rest = &rest[verb.written.len()..];
        next = index.unwrap_or(next + 1);
        highest = highest.max(next);
        let value = next.checked_sub(1).and_then(|index| values.get(index)).ok_or_else(|| {
            let written = verb.written;
            format!(
                "not enough arguments for {written:?} at {offset}: need index {next} but have {} total",
                values.len()
            )
        })?;
        out.push_str(&verb.apply(value)?);
        fits(out.len())?;
    }
    out.push_str(rest);
    if highest < values.len() {
        let why = match highest {
            0 => "too many arguments; no verbs in format string".to_owned(),
            used => format!("too many arguments; only {used} used by format string"),
        };
        return Err(Wrong::Argument(highest + 1, why));
    }
    Ok(out)
}

/// The verb at the start of `rest`, and the number of the argument that it names, from 1.
fn parse_verb(rest: &str, offset: usize) -> Result<(Verb<'_>, Option<usize>), Wrong> {
    let mut verb = Verb {
        written: rest,
        offset,
        zero: false,
        left: false,
        plus: false,
        space: false,
        alternate: false,
        width: 0,
        precision: None,
        letter: ' ',
    };
    let mut at = 1;
    let mut index = None;
    while let Some(flag) = rest[at..].chars().next() {
        match flag {
            '0' => verb.zero = true,
            '-' => verb.left = true,
            '+' => verb.plus = true,
            ' ' => verb.space = true,
            '#' => verb.alternate = true,
            _ => break,
        }
        at += 1;
    }
    let (width, length) = digits(&rest[at..]);
    if length > 0 {
        verb.width = width;
        at += length;
    }
    if rest[at..].starts_with('.') {
        let (precision, length) = digits(&rest[at + 1..]);
        verb.precision = Some(if length == 0 { 0 } else { precision });
        at += 1 + length;
    }
    if verb.width > MAX_WIDTH || verb.precision.is_some_and(|precision| precision > MAX_WIDTH) {
        return Err(format!("width or precision at offset {offset} is larger than {MAX_WIDTH}").into());
    }
    if rest[at..].starts_with('[') {
        let (number, length) = digits(&rest[at + 1..]);
        if length == 0 || !rest[at + 1 + length..].starts_with(']') {
            return Err(format!("invalid format string starting at offset {offset}").into());
        }
        index = Some(number);
        at += length + 2;
    }
    let Some(letter) = rest[at..].chars().next() else {
        return Err(format!("invalid format string starting at offset {}", offset + at).into());
    };
    if !letter.is_ascii_alphabetic() {
        return Err(format!("unrecognized format character {letter:?} at offset {}", offset + at).into());
    }
    verb.letter = letter;
    verb.written = &rest[..at + 1];
    Ok((verb, index))
}

impl Verb<'_> {
    fn apply(&self, value: &Value) -> Result<String, Wrong> {
        let unsupported = |why: &str| {
            Wrong::Call(format!("unsupported value for {:?} at {}: {why}", self.written, self.offset))
        };
        if !matches!(
            self.letter,
            'v' | 's' | 'q' | 't' | 'd' | 'b' | 'o' | 'x' | 'X' | 'e' | 'E' | 'f' | 'g' | 'G'
        ) {
            let written = self.written;
            let letter = self.letter;
            return Err(format!(
                "unsupported format verb {letter:?} in {written:?} at offset {}",
                self.offset
            )
            .into());
        }
        if value.is_null() && self.letter != 'v' {
            return Err(unsupported("null value cannot be formatted"));
        }
        let number = || value.to_number().map_err(&unsupported);
        let whole = || number()?.as_whole().ok_or_else(|| unsupported("an integer is required"));
        let written = || value.to_text().ok_or_else(|| unsupported("string required"));
        let body = match self.letter {
            'v' => match value {
                Value::Number(number) if self.alternate => number.to_string(),
                Value::Number(number) => general(*number, None, 'g'),
                Value::String(text) if !self.alternate => self.cut(text),
                other => super::encoding::json(other),
            },
            's' => self.cut(&written()?),
            'q' => super::encoding::json(&Value::String(self.cut(&written()?))),
            't' => value.to_bool().map_err(&unsupported)?.to_string(),
            'd' => whole()?.to_string(),
            'b' => self.radix(whole()?, 2),
            'o' => self.radix(whole()?, 8),
            'x' => self.radix(whole()?, 16),
            'X' => self.radix(whole()?, 16).to_uppercase(),
            'f' => format!("{:.*}", self.precision.unwrap_or(6), number()?.as_f64()),
            'e' | 'E' => exponential(number()?.as_f64(), self.precision.unwrap_or(6), self.letter),
            _ => general(number()?, self.precision, self.letter),
        };
        let is_number = !matches!(self.letter, 's' | 'q' | 't') && !value.is_string() || self.letter == 'd';
        Ok(self.padded(body, is_number))
    }

    fn radix(&self, number: i128, base: u32) -> String {
        let sign = if number < 0 { "-" } else { "" };
        let size = number.unsigned_abs();
        let prefix = match (self.alternate, base) {
            (true, 2) => "0b",
            (true, 8) => "0",
            (true, _) => "0x",
            (false, _) => "",
        };
        let digits = match base {
            2 => format!("{size:b}"),
            8 => format!("{size:o}"),
            _ => format!("{size:x}"),
        };
        format!("{sign}{prefix}{digits}")
    }

    fn cut(&self, text: &str) -> String {
        self.precision.map_or_else(|| text.to_owned(), |precision| text.chars().take(precision).collect())
    }

    fn padded(&self, mut body: String, is_number: bool) -> String {
        if is_number && !body.starts_with('-') {
            if self.plus {
                body.insert(0, '+');
            } else if self.space {
                body.insert(0, ' ');
            }
        }
        let missing = self.width.saturating_sub(body.chars().count());
        if self.left {
            return body + &" ".repeat(missing);
        }
        if self.zero && is_number {
            let at = usize::from(body.starts_with(['-', '+', ' ']));
            body.insert_str(at, &"0".repeat(missing));
            return body;
        }
        " ".repeat(missing) + &body
    }
}

/// `1.234568e+05`: at least two digits of exponent, with its sign.
fn exponential(number: f64, precision: usize, letter: char) -> String {
    let written = format!("{number:.precision$e}");
    let (mantissa, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}{letter}{sign}{:02}", exponent.abs())
}

/// The shortest form: with an exponent only for very large and very small numbers.
fn general(number: Number, precision: Option<usize>, letter: char) -> String {
    const LARGE: i32 = 21;
    let value = number.as_f64();
    let exponent = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    let limit = precision.map_or(LARGE, |precision| i32::try_from(precision.max(1)).unwrap_or(LARGE));
    if (-4..limit).contains(&exponent) {
        return match precision {
            None => number.to_string(),
            Some(precision) => {
                let decimals = i32::try_from(precision.max(1)).unwrap_or(LARGE) - 1 - exponent;
                let written = format!("{value:.*}", usize::try_from(decimals).unwrap_or(0));
                if written.contains('.') {
                    written.trim_end_matches('0').trim_end_matches('.').to_owned()
                } else {
                    written
                }
            }
        };
    }
    let letter = if letter == 'G' { 'E' } else { 'e' };
    let written = match precision {
        None => format!("{value:e}"),
        Some(precision) => format!("{value:.*e}", precision.max(1) - 1),
    };
    let (mantissa, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}{letter}{sign}{:02}", exponent.abs())
}
