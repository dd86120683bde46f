//! Durations and instants in Nomad's wire forms.

use std::fmt;
use std::ops::Add;
use std::ops::Sub;
use std::time::Duration;

use chrono::DateTime;
use chrono::SecondsFormat;
use chrono::Utc;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de::Error as _;

/// A span of time in nanoseconds; may be negative. On the wire: an integer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(pub i64);

impl Span {
    pub const ZERO: Span = Span(0);

    pub const fn from_millis(millis: i64) -> Self {
        Self(millis * 1_000_000)
    }

    pub const fn from_secs(secs: i64) -> Self {
        Self(secs * 1_000_000_000)
    }

    /// As a std duration; negative spans are zero.
    pub fn to_std(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }

    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// Parses Go's duration grammar: `1h30m`, `300ms`, `-1.5h`, `0`.
    ///
    /// # Errors
    /// With Go's wording: `time: unknown unit "d" in duration "1d"` and the like.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse_go_duration(text).map(Self)
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

/// Go's text form: `1h0m0s`, `1.5s`, `300ms`, `0s`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let negative = self.0 < 0;
        let nanos = self.0.unsigned_abs();
        if nanos == 0 {
            return f.write_str("0s");
        }
        if negative {
            f.write_str("-")?;
        }
        let fraction = |value: u64, unit: u64| -> String {
            let whole = value / unit;
            let rest = value % unit;
            if rest == 0 {
                return whole.to_string();
            }
            let width = unit.to_string().len() - 1;
            format!("{whole}.{}", format!("{rest:0width$}").trim_end_matches('0'))
        };
        match nanos {
            n if n < 1_000 => write!(f, "{n}ns"),
            n if n < 1_000_000 => write!(f, "{}µs", fraction(n, 1_000)),
            n if n < 1_000_000_000 => write!(f, "{}ms", fraction(n, 1_000_000)),
            n => {
                let seconds = n / 1_000_000_000;
                let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
                let tail = fraction(n % 60_000_000_000, 1_000_000_000);
                if hours > 0 {
                    write!(f, "{hours}h{minutes}m{tail}s")
                } else if minutes > 0 {
                    write!(f, "{minutes}m{tail}s")
                } else {
                    write!(f, "{tail}s")
                }
            }
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn parse_go_duration(original: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {original:?}");
    let (negative, mut rest) = match original.as_bytes().first() {
        Some(b'-') => (true, &original[1..]),
        Some(b'+') => (false, &original[1..]),
        Some(_) => (false, original),
        None => return Err(invalid()),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: f64 = 0.0;
    let mut exact: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number = &rest[..digits];
        if number.is_empty() || number == "." || number.matches('.').count() > 1 {
            return Err(invalid());
        }
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = &rest[..unit_end];
        rest = &rest[unit_end..];
        let scale: i128 = match unit {
            "" => return Err(format!("time: missing unit in duration {original:?}")),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            other => return Err(format!("time: unknown unit {other:?} in duration {original:?}")),
        };
        match number.split_once('.') {
            None => exact += number.parse::<i128>().map_err(|_| invalid())?.saturating_mul(scale),
            Some((whole, fraction)) => {
                let whole =
                    if whole.is_empty() { 0 } else { whole.parse::<i128>().map_err(|_| invalid())? };
                exact += whole.saturating_mul(scale);
                if !fraction.is_empty() {
                    total += format!("0.{fraction}").parse::<f64>().map_err(|_| invalid())? * scale as f64;
                }
            }
        }
    }
    let sum = exact + total.round() as i128;
    let nanos = i64::try_from(sum).map_err(|_| invalid())?;
    Ok(if negative { -nanos } else { nanos })
}

/// An instant: nanoseconds since the Unix epoch. Zero stands for "never" and is written as Go's zero time.
/// On the wire: RFC 3339 text. Fields that Nomad writes as integers are plain `i64`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub i64);

/// Go's zero time, "never".
pub const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

impl Time {
    pub const NEVER: Time = Time(0);

    pub const fn from_secs(secs: i64) -> Self {
        Self(secs * 1_000_000_000)
    }

    pub fn is_never(self) -> bool {
        self.0 == 0
    }

    /// Whole seconds since the Unix epoch.
    pub fn secs(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    pub fn to_chrono(self) -> DateTime<Utc> {
        DateTime::from_timestamp_nanos(self.0)
    }

    /// Time from `earlier` to `self`.
    pub fn since(self, earlier: Time) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Span> for Time {
    type Output = Time;

    fn add(self, span: Span) -> Time {
        Time(self.0.saturating_add(span.0))
    }
}

impl Sub<Span> for Time {
    type Output = Time;

    fn sub(self, span: Span) -> Time {
        Time(self.0.saturating_sub(span.0))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_never() {
            f.write_str(ZERO_TIME)
        } else {
            f.write_str(&self.to_chrono().to_rfc3339_opts(SecondsFormat::AutoSi, true))
        }
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() || text == ZERO_TIME {
            return Ok(Time::NEVER);
        }
        let parsed = DateTime::parse_from_rfc3339(&text).map_err(D::Error::custom)?;
        parsed.timestamp_nanos_opt().map(Time).ok_or_else(|| D::Error::custom("time out of range"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_and_print_as_go_does() {
        for (text, nanos, shown) in [
            ("1h30m", 5_400_000_000_000, "1h30m0s"),
            ("1.5s", 1_500_000_000, "1.5s"),
            ("300ms", 300_000_000, "300ms"),
            ("0", 0, "0s"),
            ("-2m", -120_000_000_000, "-2m0s"),
            ("1us", 1_000, "1µs"),
            (".5s", 500_000_000, "500ms"),
        ] {
            let span = Span::parse(text).expect(text);
            assert_eq!(span.0, nanos, "{text}");
            assert_eq!(span.to_string(), shown, "{text}");
        }
    }

    #[test]
    fn bad_spans_say_why() {
        assert_eq!(Span::parse("1d").unwrap_err(), "time: unknown unit \"d\" in duration \"1d\"");
        assert_eq!(Span::parse("5").unwrap_err(), "time: missing unit in duration \"5\"");
        assert_eq!(Span::parse("").unwrap_err(), "time: invalid duration \"\"");
    }

    #[test]
    fn never_is_the_zero_time_on_the_wire() {
        assert_eq!(serde_json::to_string(&Time::NEVER).unwrap(), format!("\"{ZERO_TIME}\""));
        let back: Time = serde_json::from_str("\"2026-11-21T08:00:00.5Z\"").unwrap();
        assert_eq!(back.to_string(), "2026-11-21T08:00:00.500Z");
    }
}
