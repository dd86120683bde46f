//! Sprig's functions on dates. Each is told what time it is.

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use chrono_tz::Tz;

use super::answer;
use super::int;
use crate::gotemplate::Answer;
use crate::gotemplate::Failure;
use crate::gotemplate::exactly;
use crate::gotemplate::text_of;
use crate::gotemplate::time;
use crate::gotemplate::time::Moment;
use crate::gotemplate::value::Value;

type Dated = fn(&[Value], DateTime<Utc>) -> Answer;

pub(super) const TABLE: &[(&str, Dated)] = &[
    ("sprig_ago", ago),
    ("sprig_date", |a, now| {
        let [layout, date] = exactly("date", a)?;
        answer(time::format(&moment(date, now)?, &text_of(layout)?))
    }),
    ("sprig_dateInZone", date_in_zone),
    ("sprig_date_in_zone", date_in_zone),
    ("sprig_dateModify", modify),
    ("sprig_date_modify", modify),
    ("sprig_mustDateModify", modify),
    ("sprig_must_date_modify", modify),
    ("sprig_duration", |a, _| {
        let [seconds] = exactly("duration", a)?;
        answer(shown(i128::from(int(seconds)) * SECOND))
    }),
    ("sprig_durationRound", rounded),
    ("sprig_htmlDate", |a, now| {
        let [date] = exactly("htmlDate", a)?;
        answer(time::format(&moment(date, now)?, "2006-01-02"))
    }),
    ("sprig_htmlDateInZone", |a, now| {
        let [date, zone] = exactly("htmlDateInZone", a)?;
        answer(time::format(&moved(&moment(date, now)?, &text_of(zone)?), "2006-01-02"))
    }),
    ("sprig_toDate", |a, _| read(a, false)),
    ("sprig_mustToDate", |a, _| read(a, true)),
    ("sprig_unixEpoch", |a, now| {
        let [date] = exactly("unixEpoch", a)?;
        answer(moment(date, now)?.at.timestamp().to_string())
    }),
];

/// Nanoseconds.
const SECOND: i128 = 1_000_000_000;

/// A time, seconds since 1970, or else now.
fn moment(value: &Value, now: DateTime<Utc>) -> Result<Moment, Failure> {
    match value {
        Value::Int(seconds) => DateTime::from_timestamp(*seconds, 0)
            .map(Moment::utc)
            .ok_or_else(|| Failure::called(format_args!("{seconds} is no time"))),
        Value::Object(object) => {
            let nanos = object.member("UnixNano", &[]).and_then(Result::ok);
            let zone = object.member("Format", &[Value::from("2006-01-02T15:04:05.999999999-07:00|MST")]);
            match (nanos, zone.and_then(Result::ok)) {
                (Some(_), Some(Value::Text(text))) => {
                    let (at, zone) = text.split_once('|').unwrap_or((&text, "UTC"));
                    let at = DateTime::parse_from_rfc3339(at).map_err(Failure::called)?;
                    Ok(Moment { at, zone: zone.to_owned() })
                }
                _ => Ok(Moment::utc(now)),
            }
        }
        _ => Ok(Moment::utc(now)),
    }
}

/// In a zone, or in UTC when there is no such zone.
fn moved(moment: &Moment, zone: &str) -> Moment {
    moment.in_zone(zone).unwrap_or_else(|| Moment::utc(moment.at.to_utc()))
}

fn date_in_zone(arguments: &[Value], now: DateTime<Utc>) -> Answer {
    let [layout, date, zone] = exactly("dateInZone", arguments)?;
    answer(time::format(&moved(&moment(date, now)?, &text_of(zone)?), &text_of(layout)?))
}

fn modify(arguments: &[Value], now: DateTime<Utc>) -> Answer {
    let [by, date] = exactly("dateModify", arguments)?;
    let (by, moment) = (text_of(by)?, moment(date, now)?);
    let nanos =
        duration(&by).ok_or_else(|| Failure::called(format_args!("time: invalid duration {by:?}")))?;
    let nanos = i64::try_from(nanos).map_err(|_| Failure::called(format_args!("{by} is too long")))?;
    let at = moment.at.checked_add_signed(TimeDelta::nanoseconds(nanos));
    let at = at.ok_or_else(|| Failure::called("the time is out of range"))?;
    Ok(Moment { at, zone: moment.zone }.value())
}

fn ago(arguments: &[Value], now: DateTime<Utc>) -> Answer {
    let [date] = exactly("ago", arguments)?;
    let seconds = (now - moment(date, now)?.at.to_utc()).num_seconds();
    answer(shown(i128::from(seconds) * SECOND))
}

fn read(arguments: &[Value], must: bool) -> Answer {
    let [layout, text] = exactly("toDate", arguments)?;
    let (layout, text) = (text_of(layout)?, text_of(text)?);
    match time::parse(&layout, &text, Tz::UTC) {
        Some(moment) => Ok(moment.value()),
        None if must => {
            Err(Failure::called(format_args!("parsing time {text:?} as {layout:?}: cannot parse {text:?}")))
        }
        None => DateTime::parse_from_rfc3339(time::ZERO)
            .map(|zero| Moment::utc(zero.to_utc()).value())
            .map_err(Failure::called),
    }
}

fn rounded(arguments: &[Value], now: DateTime<Utc>) -> Answer {
    let [value] = exactly("durationRound", arguments)?;
    let nanos = match value.viewed() {
        Value::Int(nanos) => i128::from(nanos),
        Value::Text(_) if matches!(value, Value::Object(_)) => {
            i128::from((now - moment(value, now)?.at.to_utc()).num_seconds()) * SECOND
        }
        Value::Text(text) => duration(&text).unwrap_or(0),
        _ => 0,
    };
    let seconds = nanos.abs() / SECOND;
    let year = 365 * 24 * 3600;
    for (size, unit) in
        [(year, "y"), (30 * 24 * 3600, "mo"), (24 * 3600, "d"), (3600, "h"), (60, "m"), (1, "s")]
    {
        if seconds >= size {
            return answer(format!("{}{unit}", (seconds + size / 2) / size));
        }
    }
    answer("0s")
}

/// Nanoseconds of a duration of Go's, such as `-1h30m`.
fn duration(text: &str) -> Option<i128> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| c != '.' && !c.is_ascii_digit())?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
        nanos += number
            * match &rest[..end] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 6e10,
                "h" => 3.6e12,
                _ => return None,
            };
        rest = &rest[end..];
    }
    (!text.is_empty()).then_some((nanos * sign) as i128)
}

/// As Go prints whole seconds: `1h0m5s`.
fn shown(nanos: i128) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let seconds = nanos.abs() / SECOND;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{sign}{hours}h{minutes}m{seconds}s")
    } else if minutes > 0 {
        format!("{sign}{minutes}m{seconds}s")
    } else {
        format!("{sign}{seconds}s")
    }
}
