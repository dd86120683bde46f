//! Points in time as templates see them, and Go's layouts such as `2006-01-02T15:04:05Z07:00`.

use std::rc::Rc;

use chrono::DateTime;
use chrono::Datelike;
use chrono::FixedOffset;
use chrono::NaiveDate;
use chrono::NaiveDateTime;
use chrono::NaiveTime;
use chrono::Offset;
use chrono::TimeZone;
use chrono::Timelike;
use chrono::Utc;
use chrono_tz::Tz;

use super::text_of;
use super::value::Object;
use super::value::Value;

/// Go's zero time, what it makes of a text that is no date.
pub const ZERO: &str = "0001-01-01T00:00:00Z";

/// A point in time with its zone.
#[derive(Clone, Debug)]
pub struct Moment {
    pub at: DateTime<FixedOffset>,
    /// `UTC`, `CET`, …
    pub zone: String,
}

impl Moment {
    /// In UTC.
    pub fn utc(at: DateTime<Utc>) -> Self {
        Self { at: at.fixed_offset(), zone: "UTC".to_owned() }
    }

    /// The same instant in a zone of the time zone database; the empty name is UTC, as in Go.
    pub fn in_zone(&self, name: &str) -> Option<Self> {
        let zone: Tz = if name.is_empty() || name == "Local" { Tz::UTC } else { name.parse().ok()? };
        let there = self.at.with_timezone(&zone);
        Some(Self { zone: there.format("%Z").to_string(), at: there.with_timezone(&there.offset().fix()) })
    }

    /// As a value with methods.
    pub fn value(self) -> Value {
        Value::Object(Rc::new(self))
    }
}

impl Object for Moment {
    fn type_name(&self) -> &'static str {
        "time.Time"
    }

    fn member(&self, name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
        let int = |number: i64| Some(Ok(Value::Int(number)));
        match name {
            "Format" => Some(match arguments {
                [layout] => match text_of(layout) {
                    Ok(layout) => Ok(Value::from(format(self, &layout))),
                    Err(_) => Err("expected a layout".to_owned()),
                },
                _ => Err(format!("wrong number of args for Format: want 1 got {}", arguments.len())),
            }),
            "Unix" => int(self.at.timestamp()),
            "UnixMilli" => int(self.at.timestamp_millis()),
            "UnixNano" => int(self.at.timestamp_nanos_opt().unwrap_or(i64::MAX)),
            "Year" => int(i64::from(self.at.year())),
            "Month" => Some(Ok(Value::from(format(self, "January")))),
            "Day" => int(i64::from(self.at.day())),
            "Hour" => int(i64::from(self.at.hour())),
            "Minute" => int(i64::from(self.at.minute())),
            "Second" => int(i64::from(self.at.second())),
            "YearDay" => int(i64::from(self.at.ordinal())),
            "Weekday" => Some(Ok(Value::from(format(self, "Monday")))),
            "UTC" => Some(Ok(Self::utc(self.at.to_utc()).value())),
            _ => None,
        }
    }

    fn view(&self) -> Value {
        Value::from(format(self, "2006-01-02 15:04:05.999999999 -0700 MST"))
    }
}

/// A part of a layout.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part<'a> {
    Text(&'a str),
    /// A word of Go's, one of `WORDS`.
    Word(&'static str),
    /// Digits of a second: the separator, how many, and whether zeros at the end are left out.
    Fraction(char, usize, bool),
}

/// Words of layouts, longer ones before those that begin like them.
const WORDS: [&str; 33] = [
    "January",
    "Jan",
    "Monday",
    "Mon",
    "MST",
    "2006",
    "002",
    "01",
    "02",
    "03",
    "04",
    "05",
    "06",
    "15",
    "_2",
    "PM",
    "pm",
    "Z070000",
    "Z07:00:00",
    "Z0700",
    "Z07:00",
    "Z07",
    "-070000",
    "-07:00:00",
    "-0700",
    "-07:00",
    "-07",
    "1",
    "2",
    "3",
    "4",
    "5",
    "__2",
];

fn parts(layout: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = layout;
    let mut text = 0;
    while text < rest.len() {
        let here = &rest[text..];
        let Some((part, length)) = part(here) else {
            text += here.chars().next().map_or(1, char::len_utf8);
            continue;
        };
        if text > 0 {
            parts.push(Part::Text(&rest[..text]));
        }
        parts.push(part);
        rest = &here[length..];
        text = 0;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest));
    }
    parts
}

fn part(here: &str) -> Option<(Part<'static>, usize)> {
    if let Some(separator @ ('.' | ',')) = here.chars().next() {
        let digit = here[1..].chars().next().filter(|c| matches!(c, '0' | '9'))?;
        let digits = here[1..].chars().take_while(|c| *c == digit).count();
        let ends = !here[1 + digits..].starts_with(|c: char| c.is_ascii_digit());
        return ends.then_some((Part::Fraction(separator, digits, digit == '9'), 1 + digits));
    }
    let word = WORDS.iter().filter(|word| here.starts_with(**word)).max_by_key(|word| word.len())?;
    // `Jan` within `Janet` is no month.
    if matches!(*word, "Jan" | "Mon") && here[3..].starts_with(|c: char| c.is_ascii_lowercase()) {
        return None;
    }
    Some((Part::Word(word), word.len()))
}

/// A time in one of Go's layouts.
pub fn format(moment: &Moment, layout: &str) -> String {
    let mut out = String::new();
    for part in parts(layout) {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Fraction(separator, digits, trims) => {
                let nanos = format!("{:09}", moment.at.nanosecond() % 1_000_000_000);
                let shown = &nanos[..digits.min(9)];
                let shown = if trims { shown.trim_end_matches('0') } else { shown };
                if !shown.is_empty() {
                    out.push(separator);
                    out.push_str(shown);
                }
            }
            Part::Word(word) => out.push_str(&shown(moment, word)),
        }
    }
    out
}

fn shown(moment: &Moment, word: &str) -> String {
    let at = &moment.at;
    if let Some(form) = word.strip_prefix('Z') {
        return if at.offset().local_minus_utc() == 0 { "Z".to_owned() } else { offset(at, form) };
    }
    if let Some(form) = word.strip_prefix('-') {
        return offset(at, form);
    }
    if word == "MST" {
        return moment.zone.clone();
    }
    at.format(strftime(word)).to_string()
}

fn offset(at: &DateTime<FixedOffset>, form: &str) -> String {
    let seconds = at.offset().local_minus_utc();
    let sign = if seconds < 0 { '-' } else { '+' };
    let (hours, minutes, rest) = (seconds.abs() / 3600, seconds.abs() / 60 % 60, seconds.abs() % 60);
    match form {
        "07" => format!("{sign}{hours:02}"),
        "0700" => format!("{sign}{hours:02}{minutes:02}"),
        "07:00" => format!("{sign}{hours:02}:{minutes:02}"),
        "070000" => format!("{sign}{hours:02}{minutes:02}{rest:02}"),
        _ => format!("{sign}{hours:02}:{minutes:02}:{rest:02}"),
    }
}

/// A word in chrono's notation.
fn strftime(word: &str) -> &'static str {
    match word {
        "2006" => "%Y",
        "06" => "%y",
        "January" => "%B",
        "Jan" => "%b",
        "01" => "%m",
        "1" => "%-m",
        "02" => "%d",
        "_2" => "%e",
        "2" => "%-d",
        "002" => "%j",
        "__2" => "%_j",
        "Monday" => "%A",
        "Mon" => "%a",
        "15" => "%H",
        "03" => "%I",
        "3" => "%-I",
        "04" => "%M",
        "4" => "%-M",
        "05" => "%S",
        "5" => "%-S",
        "PM" => "%p",
        "pm" => "%P",
        "MST" => "%Z",
        "Z07:00" | "-07:00" | "Z07:00:00" | "-07:00:00" => "%:z",
        _ => "%z",
    }
}

/// Reads a time in one of Go's layouts; without a zone it is in `zone`.
pub fn parse(layout: &str, text: &str, zone: Tz) -> Option<Moment> {
    let mut pattern = String::new();
    let mut offset = false;
    for part in parts(layout) {
        match part {
            Part::Text(text) => pattern.push_str(&text.replace('%', "%%")),
            Part::Fraction(..) => pattern.push_str("%.f"),
            Part::Word("MST") => pattern.push_str("UTC"),
            Part::Word(word) => {
                offset |= word.starts_with(['Z', '-']);
                pattern.push_str(strftime(word));
            }
        }
    }
    if offset {
        let at = DateTime::parse_from_str(&text.replace('Z', "+00:00"), &pattern).ok()?;
        return Some(Moment { zone: at.offset().to_string(), at });
    }
    let naive = NaiveDateTime::parse_from_str(text, &pattern)
        .or_else(|_| NaiveDate::parse_from_str(text, &pattern).map(|date| date.and_time(NaiveTime::MIN)))
        .ok()?;
    let there = zone.from_local_datetime(&naive).earliest()?;
    Some(Moment { zone: there.format("%Z").to_string(), at: there.with_timezone(&there.offset().fix()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment() -> Moment {
        Moment::utc(DateTime::parse_from_rfc3339("2023-11-04T22:03:20.050Z").unwrap().to_utc())
    }

    #[test]
    fn layouts_are_gos() {
        for (layout, expected) in [
            ("2006-01-02T15:04:05Z07:00", "2023-11-04T22:03:20Z"),
            ("2006-01-02T15:04:05-07:00", "2023-11-04T22:03:20+00:00"),
            ("Mon, 02 Jan 2006 15:04:05 MST", "Sat, 04 Nov 2023 22:03:20 UTC"),
            ("Monday January 2 _2 3:4:5 PM pm 06", "Saturday November 4  4 10:3:20 PM pm 23"),
            ("15:04:05.000 .999", "22:03:20.050 .05"),
            ("1/2 002 Z0700 -0700 -07", "11/4 308 Z +0000 +00"),
            ("at 100% Janet", "at 1100% Janet"),
        ] {
            assert_eq!(format(&moment(), layout), expected, "{layout}");
        }
        let berlin = moment().in_zone("Europe/Berlin").unwrap();
        assert_eq!(format(&berlin, "2006-01-02 15:04 Z07:00 MST"), "2023-11-04 23:03 +01:00 CET");
        assert!(moment().in_zone("Nowhere/Else").is_none());
    }

    #[test]
    fn times_are_read_in_gos_layouts() {
        for (layout, text, expected) in [
            ("2006-01-02", "2017-12-31", Some("2017-12-31T00:00:00Z")),
            ("2006-01-02T15:04:05Z07:00", "2017-12-31T10:00:00+02:00", Some("2017-12-31T10:00:00+02:00")),
            ("Jan 2, 2006 3:04 PM", "Mar 5, 2020 1:02 PM", Some("2020-03-05T13:02:00Z")),
            ("2006-01-02", "yesterday", None),
        ] {
            let parsed =
                parse(layout, text, Tz::UTC).map(|moment| format(&moment, "2006-01-02T15:04:05Z07:00"));
            assert_eq!(parsed.as_deref(), expected, "{text}");
        }
    }
}
