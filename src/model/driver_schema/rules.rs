//! Values that drivers refuse, in their words.

use serde_json::Value;

use crate::model::time::Span;

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn outside(value: &Value, least: i64, most: i64) -> bool {
    number(value).is_some_and(|number| !(least..=most).contains(&number))
}

/// A text that must say something.
pub(super) fn not_empty(name: &str, value: &Value) -> Option<String> {
    text(value).is_empty().then(|| format!("{name} must not be empty"))
}

/// A single word: it is not split, so blanks around it are a mistake.
pub(super) fn command(_: &str, value: &Value) -> Option<String> {
    let command = text(value);
    if command.trim().is_empty() {
        Some(format!("command empty: {command:?}"))
    } else {
        (command.trim() != command).then(|| format!("command contains extra white space: {command:?}"))
    }
}

pub(super) fn duration(name: &str, value: &Value) -> Option<String> {
    let written = text(value);
    let why = Span::parse(&written).err()?;
    (!written.is_empty()).then(|| format!("{name} {written} not a valid duration: {why}"))
}

pub(super) fn cfs_period(name: &str, value: &Value) -> Option<String> {
    outside(value, 0, 1_000_000).then(|| format!("invalid value for {name}"))
}

/// `private` or `host`.
pub(super) fn isolation(name: &str, value: &Value) -> Option<String> {
    let mode = text(value);
    (!matches!(mode.as_str(), "" | "private" | "host"))
        .then(|| format!("{name} must be \"private\" or \"host\", got {mode:?}"))
}

pub(super) fn absolute(name: &str, value: &Value) -> Option<String> {
    let path = text(value);
    (!path.is_empty() && !path.starts_with('/'))
        .then(|| format!("{name} must be absolute but got relative path {path:?}"))
}

pub(super) fn positive_score(name: &str, value: &Value) -> Option<String> {
    outside(value, 0, 1000).then(|| format!("{name} must be between 0 and 1000, got {}", text(value)))
}

pub(super) fn score(name: &str, value: &Value) -> Option<String> {
    outside(value, -1000, 1000).then(|| format!("{name} must be between -1000 and 1000, got {}", text(value)))
}

pub(super) fn not_negative(name: &str, value: &Value) -> Option<String> {
    outside(value, 0, i64::MAX).then(|| format!("{name} must not be negative, got {}", text(value)))
}

fn one_of(name: &str, value: &Value, allowed: &[&str]) -> Option<String> {
    let written = text(value);
    let list = allowed.join(", ");
    // An empty text is no choice: the driver takes its default.
    let fine = written.is_empty() || allowed.contains(&written.as_str());
    (!fine).then(|| format!("{name} must be one of {list}, got {written:?}"))
}

pub(super) fn mount_type(_: &str, value: &Value) -> Option<String> {
    one_of("mount type", value, &["volume", "bind", "tmpfs"])
}

pub(super) fn propagation(_: &str, value: &Value) -> Option<String> {
    let mode = text(value);
    let known = ["", "private", "rprivate", "shared", "rshared", "slave", "rslave"];
    (!known.contains(&mode.as_str())).then(|| format!("invalid propagation mode {mode:?}"))
}

pub(super) fn docker_isolation(_: &str, value: &Value) -> Option<String> {
    let mode = text(value);
    (!matches!(mode.as_str(), "" | "default" | "process" | "hyperv"))
        .then(|| format!("invalid isolation {mode:?}"))
}

pub(super) fn drive_interface(name: &str, value: &Value) -> Option<String> {
    one_of(name, value, &["ide", "scsi", "sd", "mtd", "floppy", "pflash", "virtio", "none"])
}

pub(super) fn accelerator(name: &str, value: &Value) -> Option<String> {
    one_of(name, value, &["tcg", "kvm"])
}

/// Any of the letters `r`, `w` and `m`, each at most once.
pub(super) fn device_permissions(_: &str, value: &Value) -> Option<String> {
    let written = text(value);
    let known = written.chars().all(|c| matches!(c, 'r' | 'w' | 'm'));
    let twice = written.char_indices().any(|(at, c)| written[..at].contains(c));
    (!known || twice).then(|| format!("invalid cgroup permission string: {written:?}"))
}

/// `soft` or `soft:hard`, both whole numbers, -1 for no limit.
pub(super) fn ulimits(_: &str, value: &Value) -> Option<String> {
    super::maps(value).into_iter().flatten().find_map(|(name, limit)| {
        let written = text(limit);
        let parts: Vec<&str> = written.split(':').collect();
        let fine = parts.len() <= 2 && parts.iter().all(|part| part.parse::<i64>().is_ok());
        (!fine).then(|| format!("malformed ulimit {name}: {written:?}"))
    })
}

/// Port numbers, by label.
pub(super) fn ports(name: &str, value: &Value) -> Option<String> {
    super::maps(value).into_iter().flatten().find_map(|(label, port)| {
        outside(port, 0, 65_535).then(|| format!("{name} maps {label:?} to {}, which is no port", text(port)))
    })
}
