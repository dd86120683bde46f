//! Version constraints as `version` and `semver` operators understand them.
//!
//! Lenient versions have any number of numeric segments, an optional `v`, a pre-release and metadata; a constraint
//! without pre-release never accepts a pre-release version. Semver versions are strict and ordered by the standard.

use std::cmp::Ordering;

/// Which rules apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Lenient,
    Semver,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    segments: Vec<u64>,
    /// Number of segments as written.
    written: usize,
    pre: String,
}

/// Does the version satisfy every one of the comma-separated constraints (`>= 1.2, < 2`)? False if either cannot
/// be read.
pub fn satisfies(version: &str, constraints: &str, mode: Mode) -> bool {
    let Some(version) = parse(version.trim(), mode) else { return false };
    constraints.split(',').all(|constraint| check(&version, constraint.trim(), mode))
}

/// True if every constraint can be read.
pub fn is_valid_constraint(constraints: &str, mode: Mode) -> bool {
    constraints.split(',').all(|constraint| parse(split(constraint.trim()).1, mode).is_some())
}

fn split(constraint: &str) -> (&str, &str) {
    for operator in ["!=", ">=", "<=", "~>", "=", ">", "<"] {
        if let Some(rest) = constraint.strip_prefix(operator) {
            return (operator, rest.trim());
        }
    }
    ("=", constraint)
}

fn check(version: &Version, constraint: &str, mode: Mode) -> bool {
    let (operator, text) = split(constraint);
    let Some(wanted) = parse(text, mode) else { return false };
    let order = compare(version, &wanted);
    let allowed = mode == Mode::Semver || prerelease_allowed(version, &wanted);
    match operator {
        "=" => order == Ordering::Equal,
        "!=" => order != Ordering::Equal,
        ">" => allowed && order == Ordering::Greater,
        ">=" => allowed && order != Ordering::Less,
        "<" => allowed && order == Ordering::Less,
        "<=" => allowed && order != Ordering::Greater,
        "~>" => pessimistic(version, &wanted, allowed, order),
        _ => false,
    }
}

/// Only the last written segment may grow.
fn pessimistic(version: &Version, wanted: &Version, allowed: bool, order: Ordering) -> bool {
    let fixed = wanted.written.saturating_sub(1);
    allowed
        && order != Ordering::Less
        && version.written >= wanted.written.min(version.segments.len())
        && version.segments.iter().take(fixed).eq(wanted.segments.iter().take(fixed))
}

fn prerelease_allowed(version: &Version, wanted: &Version) -> bool {
    match (version.pre.is_empty(), wanted.pre.is_empty()) {
        (true, _) => true,
        (false, true) => false,
        (false, false) => version.segments == wanted.segments,
    }
}

fn parse(text: &str, mode: Mode) -> Option<Version> {
    let text = if mode == Mode::Lenient { text.strip_prefix('v').unwrap_or(text) } else { text };
    let text = text.split_once('+').map_or(text, |(before, _)| before);
    let (numbers, pre) = match text.find(|c: char| c != '.' && !c.is_ascii_digit()) {
        None => (text, ""),
        Some(at) => {
            let (numbers, rest) = text.split_at(at);
            let pre = rest.strip_prefix('-').or((mode == Mode::Lenient).then_some(rest))?;
            (numbers, pre)
        }
    };
    let mut segments: Vec<u64> = Vec::new();
    for segment in numbers.split('.') {
        segments.push(segment.parse().ok()?);
    }
    let written = segments.len();
    if mode == Mode::Semver && written > 3 {
        return None;
    }
    segments.resize(written.max(3), 0);
    Some(Version { segments, written, pre: pre.to_owned() })
}

fn compare(left: &Version, right: &Version) -> Ordering {
    let length = left.segments.len().max(right.segments.len());
    let segment = |version: &Version, at: usize| version.segments.get(at).copied().unwrap_or(0);
    let numbers =
        (0..length).map(|at| segment(left, at).cmp(&segment(right, at))).find(|order| order.is_ne());
    numbers.unwrap_or_else(|| compare_pre(&left.pre, &right.pre))
}

/// A release is newer than its pre-releases; dotted parts compare as numbers where both are.
fn compare_pre(left: &str, right: &str) -> Ordering {
    match (left.is_empty(), right.is_empty()) {
        (true, true) => return Ordering::Equal,
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    let (mut lefts, mut rights) = (left.split('.'), right.split('.'));
    loop {
        let order = match (lefts.next(), rights.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(left), Some(right)) => match (left.parse::<u64>(), right.parse::<u64>()) {
                (Ok(left), Ok(right)) => left.cmp(&right),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => left.cmp(right),
            },
        };
        if order.is_ne() {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_are_judged_as_go_version_does() {
        for (version, constraint, lenient, semver) in [
            ("1.2.3", ">= 1.2, < 2", true, true),
            ("1.2.3", "~> 1.2", true, true),
            ("2.0.0", "~> 1.2", false, false),
            ("1.3.0", "~> 1.2.0", false, false),
            ("1.7.0-beta", ">= 1.6", false, true),
            ("1.7.0-beta", ">= 1.7.0-a", true, true),
            ("v1.2.3", "= 1.2.3", true, false),
            ("1.2", "1.2.0", true, true),
            ("17.0.8", "> 11", true, true),
            ("x", "> 1", false, false),
            ("1.2", "> y", false, false),
        ] {
            assert_eq!(
                satisfies(version, constraint, Mode::Lenient),
                lenient,
                "{version} {constraint} lenient"
            );
            assert_eq!(satisfies(version, constraint, Mode::Semver), semver, "{version} {constraint} semver");
        }
    }
}
