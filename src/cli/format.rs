//! How ids, times and sizes are written.

use chrono::DateTime;
use chrono::Local;
use chrono::SecondsFormat;
use serde_json::Value;

use crate::model::time::Span;
use crate::model::time::Time;

/// Characters of a short id.
const SHORT_ID: usize = 8;

/// The first eight characters of an id, or all of it.
pub fn id(full: &str, verbose: bool) -> String {
    if verbose { full.to_owned() } else { full.chars().take(SHORT_ID).collect() }
}

/// `2006-01-02T15:04:05Z07:00` in the local zone; empty for never.
pub fn time(at: Time) -> String {
    if at.0 <= 0 {
        return String::new();
    }
    at.to_chrono().with_timezone(&Local).to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// As [`time`], from unix nanoseconds.
pub fn nanos(at: i64) -> String {
    time(Time(at))
}

/// Reads an RFC 3339 time; never when absent or zero.
pub fn parse_time(value: &Value) -> Time {
    let text = value.as_str().unwrap_or_default();
    let Ok(parsed) = DateTime::parse_from_rfc3339(text) else { return Time::NEVER };
    // Go's zero time is out of the range of nanoseconds, hence "never" too.
    parsed.timestamp_nanos_opt().filter(|nanos| *nanos > 0).map_or(Time::NEVER, Time)
}

/// A task's time: `N/A` for never.
pub fn task_time(value: &Value) -> String {
    let at = parse_time(value);
    if at.is_never() { "N/A".to_owned() } else { time(at) }
}

/// The two most significant units of the distance to now: `5m3s ago`; empty for never.
pub fn relative(at: Time, now: Time) -> String {
    if at.0 <= 0 {
        return String::new();
    }
    let (distance, word) = if at > now { (at.since(now), "from now") } else { (now.since(at), "ago") };
    format!("{} {word}", two_units(distance))
}

/// As [`relative`] or, when `verbose`, as [`time`].
pub fn when(at: i64, now: Time, verbose: bool) -> String {
    if verbose { nanos(at) } else { relative(Time(at), now) }
}

fn two_units(span: Span) -> String {
    const UNITS: [(&str, i64); 6] =
        [("y", 12 * 30 * 86_400), ("mo", 30 * 86_400), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
    let mut rest = span.0 / 1_000_000_000;
    let mut text = String::new();
    let mut shown = 0;
    for (unit, seconds) in UNITS {
        let count = rest / seconds;
        rest %= seconds;
        if count > 0 && shown < 2 {
            text.push_str(&format!("{count}{unit}"));
            shown += 1;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// A Go duration cut to whole seconds: `14h32m5s`.
pub fn whole_seconds(span: Span) -> String {
    Span(span.0 / 1_000_000_000 * 1_000_000_000).to_string()
}

/// A size in IEC units: `256 MiB`, `1.5 GiB`, `0 B`.
pub fn size(bytes: i64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 10 {
        return format!("{} B", bytes.max(0));
    }
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let value = (value * 10.0 + 0.5).floor() / 10.0;
    if value < 10.0 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

/// A size in mebibytes.
pub fn mebibytes(count: i64) -> String {
    size(count * 1024 * 1024)
}

/// A Go-quoted text.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control.is_control() && (control as u32) < 0x100 => {
                out.push_str(&format!("\\x{:02x}", control as u32));
            }
            control if control.is_control() => out.push_str(&format!("\\u{:04x}", control as u32)),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// `s` unless the count is one.
pub fn plural(count: i64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_times_show_two_units() {
        let now = Time::from_secs(10_000_000_000 / 10);
        for (seconds, shown) in [
            (0, "0s ago"),
            (303, "5m3s ago"),
            (7200, "2h ago"),
            (42 * 86_400, "1mo12d ago"),
            (3600 + 5, "1h5s ago"),
            (-60, "1m from now"),
        ] {
            assert_eq!(relative(now - Span::from_secs(seconds), now), shown);
        }
        assert_eq!(relative(Time::NEVER, now), "");
    }

    #[test]
    fn sizes_are_written_in_iec_units() {
        for (bytes, shown) in [
            (0, "0 B"),
            (256 << 20, "256 MiB"),
            (3 << 29, "1.5 GiB"),
            (1 << 30, "1.0 GiB"),
            (15 << 30, "15 GiB"),
            (999, "999 B"),
        ] {
            assert_eq!(size(bytes), shown);
        }
    }

    #[test]
    fn quotes_as_go_does() {
        assert_eq!(quoted("a\"b\n\u{7f}"), "\"a\\\"b\\n\\x7f\"");
    }

    #[test]
    fn go_zero_time_is_never() {
        assert_eq!(parse_time(&Value::from("0001-01-01T00:00:00Z")), Time::NEVER);
        assert_eq!(task_time(&Value::Null), "N/A");
    }
}
