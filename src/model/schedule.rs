//! When periodic jobs launch.
//!
//! The grammar is that of Nomad: five fields are minute to day of week, a sixth is the year (not seconds), and only with
//! seven fields does the first one stand for seconds. Fields beyond the seventh are ignored.

use chrono::DateTime;
use chrono::Datelike;
use chrono::Offset;
use chrono::TimeDelta;
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::CronParser;
use croner::parser::Seconds;
use croner::parser::Year;

use super::job::PeriodicConfig;
use super::time::Time;

/// Names of the fields, in order, for messages.
const FIELDS: [&str; 7] = ["second", "minute", "hour", "day-of-month", "month", "day-of-week", "year"];

/// The next launch strictly after `after`: the earliest of all expressions. `None` when there is none.
///
/// # Errors
/// When an expression or the time zone cannot be read.
pub fn next_launch(config: &PeriodicConfig, after: Time) -> Result<Option<Time>, String> {
    if !config.enabled.unwrap_or(true) {
        return Ok(None);
    }
    let zone = time_zone(config)?;
    let mut earliest: Option<Time> = None;
    for spec in specs(config) {
        let next = next_of(spec, zone, after).map_err(|why| format!("Invalid cron spec {spec:?}: {why}"))?;
        earliest = match (earliest, next) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    Ok(earliest)
}

/// The instant in the job's time zone, for display.
pub fn in_time_zone(config: &PeriodicConfig, time: Time) -> String {
    match time_zone(config) {
        Ok(zone) => time.to_chrono().with_timezone(&zone).to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        Err(_) => time.to_string(),
    }
}

/// Everything that is wrong with a periodic block. A disabled one is not looked at.
pub fn validate_periodic(config: &PeriodicConfig) -> Vec<String> {
    let mut errors = Vec::new();
    if !config.enabled.unwrap_or(true) {
        return errors;
    }
    if !config.spec.is_empty() && !config.specs.is_empty() {
        errors.push("Only cron or crons may be used".to_owned());
    }
    if config.spec.is_empty() && config.specs.is_empty() {
        errors.push("Must specify a spec".to_owned());
    }
    if let Err(why) = time_zone(config) {
        errors.push(why);
    }
    if !matches!(config.spec_type.as_str(), "" | "cron") {
        errors.push(format!("Unknown periodic specification type {:?}", config.spec_type));
        return errors;
    }
    for spec in specs(config) {
        if let Err(why) = parse(spec) {
            errors.push(format!("Invalid cron spec {spec:?}: {why}"));
        }
    }
    errors
}

fn specs(config: &PeriodicConfig) -> impl Iterator<Item = &str> {
    let single = Some(config.spec.as_str()).filter(|spec| !spec.is_empty());
    single.into_iter().chain(config.specs.iter().map(String::as_str))
}

fn time_zone(config: &PeriodicConfig) -> Result<Tz, String> {
    let name = config.time_zone.as_str();
    if name.is_empty() || name == "UTC" {
        return Ok(Tz::UTC);
    }
    name.parse().map_err(|_| format!("Invalid time zone {name:?}: unknown time zone {name}"))
}

/// What an expression says, and the years it is limited to by being impossible otherwise.
enum Schedule {
    Cron(Box<Cron>),
    /// A range that runs backwards never fires.
    Never,
}

fn next_of(spec: &str, zone: Tz, after: Time) -> Result<Option<Time>, String> {
    let Schedule::Cron(cron) = parse(spec)? else { return Ok(None) };
    // A fraction of a second may not hide the second that follows.
    let from: DateTime<Tz> = Time::from_secs(after.secs()).to_chrono().with_timezone(&zone);
    let plain = next_plain(&cron, from);
    let repeated = next_repeated(&cron, from);
    Ok([plain, repeated].into_iter().flatten().min())
}

/// The next occurrence, without those that the library moves out of a skipped hour.
fn next_plain(cron: &Cron, from: DateTime<Tz>) -> Option<Time> {
    let mut next = from;
    for _ in 0..MAX_SKIPPED {
        // An error means that the search gave up after years: there is no next launch.
        next = cron.find_next_occurrence(&next, false).ok()?;
        if next.year() > MAX_YEAR {
            return None;
        }
        if cron.is_time_matching(&next).unwrap_or(false) {
            return Some(Time(next.timestamp_nanos_opt().unwrap_or(i64::MAX)));
        }
    }
    None
}

/// When clocks go back, times of the repeated hour occur twice; the library knows only the first.
fn next_repeated(cron: &Cron, from: DateTime<Tz>) -> Option<Time> {
    let zone = from.timezone();
    let offset = from.checked_add_signed(CLOCK_CHANGE)?.offset().fix();
    if offset == from.offset().fix() {
        return None;
    }
    let next = cron.find_next_occurrence(&from.with_timezone(&offset), false).ok()?.with_timezone(&zone);
    let matches = next.offset().fix() == offset && cron.is_time_matching(&next).unwrap_or(false);
    matches.then(|| Time(next.timestamp_nanos_opt().unwrap_or(i64::MAX)))
}

/// A change of clocks further away than this does not concern the next occurrence.
const CLOCK_CHANGE: TimeDelta = TimeDelta::hours(3);
/// Launches moved by a change of clocks are passed over; there are few in a row.
const MAX_SKIPPED: usize = 10_000;
const MAX_YEAR: i32 = 2099;

fn parse(spec: &str) -> Result<Schedule, String> {
    let expanded = match spec.trim() {
        "@yearly" | "@annually" => "0 0 0 1 1 * *",
        "@monthly" => "0 0 0 1 * * *",
        "@weekly" => "0 0 0 * * 0 *",
        "@daily" => "0 0 0 * * * *",
        "@hourly" => "0 0 * * * * *",
        other => other,
    };
    let mut fields: Vec<&str> = expanded.split_whitespace().take(FIELDS.len()).collect();
    if fields.len() < 5 {
        return Err("missing field(s)".to_owned());
    }
    if fields.len() < 7 {
        fields.insert(0, "0");
    }
    if fields.len() < 7 {
        fields.push("*");
    }
    let mut never = false;
    let mut normal = Vec::with_capacity(FIELDS.len());
    for (index, field) in fields.iter().enumerate() {
        let field = Field { index, written: field };
        never |= field.runs_backwards()?;
        normal.push(field.normal());
    }
    if never {
        return Ok(Schedule::Never);
    }
    let parser =
        CronParser::builder().seconds(Seconds::Required).year(Year::Required).sloppy_ranges(true).build();
    let cron = parser.parse(&normal.join(" ")).map_err(|error| error.to_string())?;
    Ok(Schedule::Cron(Box::new(cron)))
}

/// One field of an expression.
struct Field<'a> {
    index: usize,
    written: &'a str,
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const DAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];

impl Field<'_> {
    fn error(&self, part: &str) -> String {
        format!("syntax error in {} field: '{part}'", FIELDS[self.index])
    }

    fn limits(&self) -> (u32, u32) {
        [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7), (1970, 2099)][self.index]
    }

    fn value(&self, text: &str) -> Option<u32> {
        let lower = text.to_lowercase();
        let named = |names: &[&str], first: u32| {
            let index = names.iter().position(|name| lower == **name || lower == name[..3]);
            index.and_then(|index| u32::try_from(index).ok()).map(|index| index + first)
        };
        let number = text.parse::<u32>().ok().or_else(|| match self.index {
            4 => named(&MONTHS, 1),
            5 => named(&DAYS, 0),
            _ => None,
        })?;
        let (least, most) = self.limits();
        (least..=most).contains(&number).then_some(number)
    }

    /// Checks the syntax; true when a range runs from high to low.
    fn runs_backwards(&self) -> Result<bool, String> {
        let mut backwards = false;
        let mut any_forward = false;
        for part in self.written.split(',') {
            let descending = self.part(part)?;
            backwards |= descending;
            any_forward |= !descending;
        }
        Ok(backwards && !any_forward)
    }

    fn part(&self, part: &str) -> Result<bool, String> {
        let wrong = || self.error(part);
        let special = match self.index {
            3 => {
                part.eq_ignore_ascii_case("l")
                    || part.eq_ignore_ascii_case("lw")
                    || part.strip_suffix(['w', 'W']).is_some_and(|day| self.value(day).is_some())
            }
            5 => {
                part.strip_suffix(['l', 'L']).is_some_and(|day| self.value(day).is_some())
                    || part.split_once('#').is_some_and(|(day, nth)| {
                        self.value(day).is_some()
                            && nth.parse::<u32>().is_ok_and(|nth| (1..=5).contains(&nth))
                    })
            }
            _ => false,
        };
        if special {
            return Ok(false);
        }
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        if let Some(step) = step {
            let number: u32 = step.parse().map_err(|_| wrong())?;
            if number == 0 {
                return Err(format!("invalid interval {part}"));
            }
        }
        if matches!(range, "*" | "?") {
            return Ok(false);
        }
        match range.split_once('-') {
            Some((from, to)) => {
                let (from, to) = (self.value(from).ok_or_else(wrong)?, self.value(to).ok_or_else(wrong)?);
                Ok(from > to)
            }
            None => self.value(range).map(|_| false).ok_or_else(wrong),
        }
    }

    /// The field in the library's spelling: numbers for names, `*` for `?`.
    fn normal(&self) -> String {
        let parts = self.written.split(',').filter(|part| !self.part(part).unwrap_or(false));
        let parts = parts.map(|part| {
            let (range, step) =
                part.split_once('/').map_or((part, String::new()), |(r, s)| (r, format!("/{s}")));
            let range = match range {
                "?" => "*".to_owned(),
                other => other.split('-').map(|text| self.plain(text)).collect::<Vec<_>>().join("-"),
            };
            format!("{range}{step}")
        });
        parts.collect::<Vec<_>>().join(",")
    }

    fn plain(&self, text: &str) -> String {
        if let Some(number) = self.value(text) {
            return number.to_string();
        }
        if self.index == 5 {
            if let Some((day, nth)) = text.split_once('#')
                && let Some(day) = self.value(day)
            {
                return format!("{}#{nth}", day % 7);
            }
            if let Some(day) = text.strip_suffix(['l', 'L']).and_then(|day| self.value(day)) {
                return format!("{}L", day % 7);
            }
        }
        text.to_uppercase()
    }
}

#[cfg(test)]
mod tests;
