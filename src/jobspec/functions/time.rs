//! Time stamps, as RFC 3339 text.

use chrono::DateTime;
use chrono::FixedOffset;
use chrono::SecondsFormat;
use chrono::TimeDelta;
use hcl::Value;
use hcl::eval::FuncArgs;

use crate::model::time::Span;

use super::Answer;
use super::Entry;
use super::arity;
use super::text;

pub(super) const FUNCTIONS: &[Entry] = &[("formatdate", formatdate), ("timeadd", timeadd)];

fn stamp(written: &str) -> Result<DateTime<FixedOffset>, String> {
    DateTime::parse_from_rfc3339(written).map_err(|_| format!("not a valid RFC3339 timestamp: {written:?}"))
}

fn timeadd(args: FuncArgs) -> Answer {
    arity(&args, 2, 2)?;
    let span = Span::parse(&text(&args, 1)?)?;
    let sum = stamp(&text(&args, 0)?)?.checked_add_signed(TimeDelta::nanoseconds(span.0));
    let sum = sum.ok_or("the result is out of range")?;
    Ok(Value::String(sum.to_rfc3339_opts(SecondsFormat::AutoSi, true)))
}

fn formatdate(args: FuncArgs) -> Answer {
    arity(&args, 2, 2)?;
    let (pattern, time) = (text(&args, 0)?, stamp(&text(&args, 1)?)?);
    let chars: Vec<char> = pattern.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        if c == '\'' {
            at += 1;
            while at < chars.len() {
                if chars[at] != '\'' {
                    out.push(chars[at]);
                } else if chars.get(at + 1) == Some(&'\'') {
                    out.push('\'');
                    at += 1;
                } else {
                    break;
                }
                at += 1;
            }
            at += 1;
            continue;
        }
        let length = chars[at..].iter().take_while(|other| **other == c).count();
        if c.is_ascii_alphabetic() {
            out.push_str(&sequence(c, length, &time)?);
        } else {
            out.extend(std::iter::repeat_n(c, length));
        }
        at += length;
    }
    Ok(Value::String(out))
}

fn sequence(letter: char, length: usize, time: &DateTime<FixedOffset>) -> Result<String, String> {
    let format = match (letter, length) {
        ('Y', 4) => "%Y",
        ('Y', 2) => "%y",
        ('M', 1) => "%-m",
        ('M', 2) => "%m",
        ('M', 3) => "%b",
        ('M', 4) => "%B",
        ('D', 1) => "%-d",
        ('D', 2) => "%d",
        ('E', 3) => "%a",
        ('E', 4) => "%A",
        ('h', 1) => "%-H",
        ('h', 2) => "%H",
        ('H', 1) => "%-I",
        ('H', 2) => "%I",
        ('A', 2) => "%p",
        ('a', 2) => "%P",
        ('m', 1) => "%-M",
        ('m', 2) => "%M",
        ('s', 1) => "%-S",
        ('s', 2) => "%S",
        ('Z', 4) => "%z",
        ('Z', 5) => "%:z",
        ('Z', 1 | 3) if time.offset().local_minus_utc() == 0 => {
            return Ok(["Z", "", "UTC"][length - 1].to_owned());
        }
        ('Z', 1) => "%:z",
        ('Z', 3) => "%z",
        _ => return Err(format!("unsupported format sequence of {length} times {letter:?}")),
    };
    Ok(time.format(format).to_string())
}
