//! Time stamps, as RFC 3339 text.

use chrono::DateTime;
use chrono::FixedOffset;
use chrono::NaiveDate;
use chrono::NaiveTime;
use chrono::SecondsFormat;
use chrono::TimeDelta;

use crate::model::time::Span;

use super::Answer;
use super::Args;
use super::Function;
use super::Value;
use super::Wrong;
use super::function;
use super::text;

pub(super) const FUNCTIONS: &[Function] = &[
    function("formatdate", &["format", "time"], formatdate),
    function("timeadd", &["timestamp", "duration"], timeadd),
];

/// The argument at `index` as a point in time.
fn stamp(args: &Args, index: usize) -> Result<DateTime<FixedOffset>, Wrong> {
    let written = text(args, index)?;
    DateTime::parse_from_rfc3339(&written).map_err(|error| {
        Wrong::Argument(index, format!("not a valid RFC3339 timestamp: {written:?}: {error}"))
    })
}

/// A date or time as YAML allows it (`2001-12-14`, `2001-12-14 21:59:43.1`, `2001-12-14t21:59:43-05:00`), in RFC 3339.
pub(super) fn from_yaml(text: &str) -> Option<String> {
    let (year, rest) = (text.get(..4)?, text.get(4..)?);
    if !year.bytes().all(|byte| byte.is_ascii_digit()) || !rest.starts_with('-') {
        return None;
    }
    let (date, time) = match text.find(['T', 't', ' ']) {
        None => (text, None),
        Some(at) => (&text[..at], Some((&text[at..=at], &text[at + 1..]))),
    };
    let date = NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?;
    let clock = |text: &str| NaiveTime::parse_from_str(text, "%H:%M:%S%.f").ok();
    let stamp = match time {
        None => date.and_time(NaiveTime::MIN).and_utc().fixed_offset(),
        // With a blank there is no zone, with a letter there must be one.
        Some((" ", time)) => date.and_time(clock(time)?).and_utc().fixed_offset(),
        Some((_, time)) => match time.strip_suffix('Z') {
            Some(time) => date.and_time(clock(time)?).and_utc().fixed_offset(),
            None => {
                let (time, zone) = time.split_at(time.rfind(['+', '-'])?);
                let written = format!("{}{zone}", date.and_time(clock(time)?).format("%FT%T"));
                DateTime::parse_from_rfc3339(&written).ok()?
            }
        },
    };
    Some(stamp.to_rfc3339_opts(SecondsFormat::Secs, true))
}

fn timeadd(args: &Args) -> Answer {
    let span = Span::parse(&text(args, 1)?)?;
    let sum = stamp(args, 0)?.checked_add_signed(TimeDelta::nanoseconds(span.0));
    let sum = sum.ok_or("the result is out of range")?;
    Ok(Value::String(sum.to_rfc3339_opts(SecondsFormat::Secs, true)))
}

fn formatdate(args: &Args) -> Answer {
    let (pattern, time) = (text(args, 0)?, stamp(args, 1)?);
    let chars: Vec<char> = pattern.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        if c == '\'' {
            at = literal(&chars, at + 1, &mut out)?;
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

/// Copies quoted text up to its closing quote; a quote within it is written twice. Gives the place behind.
fn literal(chars: &[char], start: usize, out: &mut String) -> Result<usize, Wrong> {
    let mut at = start;
    while let Some(c) = chars.get(at) {
        match c {
            '\'' if chars.get(at + 1) == Some(&'\'') => {
                out.push('\'');
                at += 2;
            }
            '\'' => return Ok(at + 1),
            other => {
                out.push(*other);
                at += 1;
            }
        }
    }
    Err(Wrong::Argument(0, "unterminated literal '".to_owned()))
}

fn sequence(letter: char, length: usize, time: &DateTime<FixedOffset>) -> Result<String, Wrong> {
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
        _ => {
            let verb: String = std::iter::repeat_n(letter, length).collect();
            let hint = hint(letter).map(|hint| format!(": {hint}")).unwrap_or_default();
            return Err(Wrong::Argument(0, format!("invalid date format verb {verb:?}{hint}")));
        }
    };
    Ok(time.format(format).to_string())
}

/// What the lengths of a letter may be.
fn hint(letter: char) -> Option<&'static str> {
    Some(match letter {
        'Y' => "year must either be \"YY\" or \"YYYY\"",
        'M' => "month must be \"M\", \"MM\", \"MMM\", or \"MMMM\"",
        'D' => "day of month must either be \"D\" or \"DD\"",
        'E' => "day of week must either be \"EEE\" or \"EEEE\"",
        'h' => "24-hour must either be \"h\" or \"hh\"",
        'H' => "12-hour must either be \"H\" or \"HH\"",
        'A' => "must be \"AA\"",
        'a' => "must be \"aa\"",
        'm' => "minute must either be \"m\" or \"mm\"",
        's' => "second must either be \"s\" or \"ss\"",
        'Z' => "timezone must be Z, ZZZZ, or ZZZZZ",
        _ => return None,
    })
}
