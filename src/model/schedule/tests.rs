use super::*;

fn at(text: &str) -> Time {
    let time = DateTime::parse_from_rfc3339(text).expect(text);
    Time(time.timestamp_nanos_opt().expect("in range"))
}

fn cron(spec: &str) -> PeriodicConfig {
    PeriodicConfig { spec: spec.to_owned(), ..PeriodicConfig::default() }
}

fn next(spec: &str, zone: &str, after: &str) -> String {
    let config = PeriodicConfig { time_zone: zone.to_owned(), ..cron(spec) };
    next_launch(&config, at(after)).expect(spec).map_or_else(|| "none".to_owned(), |time| time.to_string())
}

#[test]
fn the_golden_table_holds() {
    let now = "2026-11-21T07:37:00Z";
    for (spec, after, expected) in [
        ("0/3 * * * * * *", "2026-11-21T12:00:01Z", "2026-11-21T12:00:03Z"),
        ("0/1 * * * * * *", "2026-11-21T12:00:01.2Z", "2026-11-21T12:00:02Z"),
        ("*/15 * * * * *", "2026-11-21T12:01:00Z", "2026-11-21T12:15:00Z"),
        ("*/15 * * * *", "2026-11-21T12:01:00Z", "2026-11-21T12:15:00Z"),
        ("@hourly", "2026-11-21T12:00:00Z", "2026-11-21T13:00:00Z"),
        ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
        ("0 9 1 * 1", "2026-01-02T00:00:00Z", "2026-01-05T09:00:00Z"),
        ("0 0 * * 5L", "2026-01-01T00:00:00Z", "2026-01-30T00:00:00Z"),
        ("0 0 * * * 2020", "2026-01-01T00:00:00Z", "none"),
        ("0 0 29 2 *", now, "2028-02-29T00:00:00Z"),
        ("* * * * * 2030", now, "2030-01-01T00:00:00Z"),
        ("0 9 1 * 1", now, "2026-11-23T09:00:00Z"),
        ("0 0 * * 1#2", now, "2026-12-14T00:00:00Z"),
        ("0 0 * * 5L", now, "2026-11-27T00:00:00Z"),
        ("0 0 L * *", now, "2026-11-30T00:00:00Z"),
        ("0 0 LW * *", now, "2026-11-30T00:00:00Z"),
        ("0 0 15W * *", now, "2026-12-15T00:00:00Z"),
        ("0 0 31 * *", now, "2026-12-31T00:00:00Z"),
        ("0 0 * * 7", now, "2026-11-22T00:00:00Z"),
        ("@weekly", now, "2026-11-22T00:00:00Z"),
        ("0 0 ? * MON-FRI", now, "2026-11-23T00:00:00Z"),
        ("30 4 1,15 jan *", now, "2027-01-01T04:30:00Z"),
        ("5/20 * * * *", now, "2026-11-21T07:45:00Z"),
        ("0 22-6 * * *", now, "none"),
        ("0 0 30 2 *", now, "none"),
        ("@yearly", now, "2027-01-01T00:00:00Z"),
        ("@monthly", now, "2026-12-01T00:00:00Z"),
        ("@daily", now, "2026-11-22T00:00:00Z"),
        ("  0   12  * * *  ", now, "2026-11-21T12:00:00Z"),
        ("0 0 0 * * saturday * extra fields", "2026-11-21T00:00:00Z", "2026-11-28T00:00:00Z"),
    ] {
        assert_eq!(next(spec, "UTC", after), expected, "{spec}");
    }
}

#[test]
fn a_time_zone_moves_the_hour() {
    assert_eq!(next("30 9 * * *", "Europe/Berlin", "2026-01-10T00:00:00Z"), "2026-01-10T08:30:00Z");
    assert_eq!(next("30 9 * * *", "Europe/Berlin", "2026-07-10T00:00:00Z"), "2026-07-10T07:30:00Z");
}

#[test]
fn a_time_in_the_skipped_hour_does_not_run_that_day() {
    // New York jumps from 02:00 to 03:00 on 2026-03-08.
    let after = "2026-03-08T05:00:00Z";
    assert_eq!(next("30 2 * * *", "America/New_York", after), "2026-03-09T06:30:00Z");
}

#[test]
fn a_time_in_the_repeated_hour_runs_twice() {
    // New York falls back from 02:00 to 01:00 on 2026-11-01.
    let first = next("30 1 * * *", "America/New_York", "2026-11-01T04:00:00Z");
    let second = next("30 1 * * *", "America/New_York", "2026-11-01T05:30:00Z");
    let every = next("0 * * * *", "America/New_York", "2026-11-01T05:30:00Z");
    assert_eq!((first.as_str(), second.as_str()), ("2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z"));
    assert_eq!(every, "2026-11-01T06:00:00Z");
    let third = next("30 1 * * *", "America/New_York", "2026-11-01T06:30:00Z");
    assert_eq!(third, "2026-11-02T06:30:00Z");
}

#[test]
fn the_earliest_of_several_expressions_wins() {
    let specs = ["0 12 * * *", "0 9 * * *"].map(str::to_owned).to_vec();
    let config = PeriodicConfig { specs, ..PeriodicConfig::default() };
    let launch = next_launch(&config, at("2026-11-21T07:00:00Z")).expect("valid");
    assert_eq!(launch, Some(at("2026-11-21T09:00:00Z")));
}

#[test]
fn a_disabled_block_never_launches_and_is_not_checked() {
    let config = PeriodicConfig { enabled: Some(false), ..cron("nonsense") };
    assert_eq!(next_launch(&config, at("2026-11-21T07:00:00Z")), Ok(None));
    assert_eq!(validate_periodic(&config), Vec::<String>::new());
}

#[test]
fn bad_expressions_say_what_is_wrong() {
    for (spec, expected) in [
        ("*/5 * * *", "missing field(s)"),
        ("@Daily", "missing field(s)"),
        ("@every 5m", "missing field(s)"),
        ("x * * * *", "syntax error in minute field: 'x'"),
        ("* 25 * * *", "syntax error in hour field: '25'"),
        ("* * 0 * *", "syntax error in day-of-month field: '0'"),
        ("* * * foo *", "syntax error in month field: 'foo'"),
        ("* * * * 8", "syntax error in day-of-week field: '8'"),
        ("*/0 * * * *", "invalid interval */0"),
    ] {
        let expected = format!("Invalid cron spec {spec:?}: {expected}");
        assert_eq!(validate_periodic(&cron(spec)), vec![expected]);
    }
    let zone = PeriodicConfig { time_zone: "Mars/Base".to_owned(), ..cron("@daily") };
    assert!(validate_periodic(&zone)[0].starts_with("Invalid time zone \"Mars/Base\": "));
    assert_eq!(validate_periodic(&PeriodicConfig::default()), vec!["Must specify a spec".to_owned()]);
}
