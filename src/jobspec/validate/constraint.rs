//! Constraints, affinities and spreads.

use std::collections::BTreeSet;

use regex::Regex;

use crate::model::constraint::Affinity;
use crate::model::constraint::Constraint;
use crate::model::constraint::Spread;
use crate::model::job::JobType;

use super::multierror;

/// Checks constraints; `in_task`: whether operators that look at other allocations are refused.
pub(super) fn constraints(all: &[Constraint], in_task: bool, errors: &mut Vec<String>) {
    for (index, constraint) in all.iter().enumerate() {
        let number = index + 1;
        let own = constraint_errors(constraint);
        if !own.is_empty() {
            errors.push(format!("Constraint {number} validation failed: {}", multierror(&own)));
        }
        let operand = constraint.operand.as_str();
        if in_task && matches!(operand, "distinct_hosts" | "distinct_property") {
            errors.push(format!("Constraint {number} has disallowed Operand at task level: {operand}"));
        }
    }
}

/// Problems of one constraint.
pub(super) fn constraint_errors(constraint: &Constraint) -> Vec<String> {
    let Constraint { left, right, operand } = constraint;
    let mut out = Vec::new();
    if operand.is_empty() {
        out.push("Missing constraint operand".to_owned());
    }
    let mut needs_left = true;
    match operand.as_str() {
        "distinct_hosts" => needs_left = false,
        "distinct_property" if !right.is_empty() => match right.parse::<u64>() {
            Ok(0) => out.push("Distinct Property must have an allowed count of 1 or greater: 0 < 1".to_owned()),
            Ok(_) => {}
            Err(_) => out.push(format!(
                "Failed to convert RTarget {right:?} to uint64: strconv.ParseUint: parsing {right:?}: invalid syntax"
            )),
        },
        "distinct_property" => {}
        "set_contains" | "set_contains_all" | "set_contains_any" if right.is_empty() => {
            out.push("Set contains constraint requires an RTarget".to_owned());
        }
        "set_contains" | "set_contains_all" | "set_contains_any" => {}
        "regexp" => {
            if let Err(why) = Regex::new(right) {
                out.push(format!("Regular expression failed to compile: {why}"));
            }
        }
        "version" => out.extend(version_problem(right, true).map(|why| format!("Version constraint is invalid: {why}"))),
        "semver" => out.extend(version_problem(right, false).map(|why| format!("Semver constraint is invalid: {why}"))),
        "=" | "==" | "is" | "!=" | "not" | "<" | "<=" | ">" | ">=" => {
            if right.is_empty() {
                out.push(format!("Operator {operand:?} requires an RTarget"));
            }
        }
        "is_set" | "is_not_set" => {
            if !right.is_empty() {
                out.push(format!("Operator {operand:?} does not support an RTarget"));
            }
        }
        other => out.push(format!("Unknown constraint type {other:?}")),
    }
    if needs_left && left.is_empty() {
        out.push("No LTarget provided but is required by constraint".to_owned());
    }
    out
}

/// Checks affinities.
pub(super) fn affinities(all: &[Affinity], kind: JobType, errors: &mut Vec<String>) {
    if kind == JobType::System && !all.is_empty() {
        errors.push("System jobs may not have an affinity block".to_owned());
        return;
    }
    for (index, affinity) in all.iter().enumerate() {
        let own = affinity_errors(affinity);
        if !own.is_empty() {
            errors.push(format!("Affinity {} validation failed: {}", index + 1, multierror(&own)));
        }
    }
}

fn affinity_errors(affinity: &Affinity) -> Vec<String> {
    let Affinity { left, right, operand, weight } = affinity;
    let mut out = Vec::new();
    if operand.is_empty() {
        out.push("Missing affinity operand".to_owned());
    }
    match operand.as_str() {
        "set_contains" | "set_contains_all" | "set_contains_any" => {
            if right.is_empty() {
                out.push("Set contains operators require an RTarget".to_owned());
            }
        }
        "regexp" => {
            if let Err(why) = Regex::new(right) {
                out.push(format!("Regular expression failed to compile: {why}"));
            }
        }
        "version" => {
            out.extend(version_problem(right, true).map(|why| format!("Version affinity is invalid: {why}")))
        }
        "semver" => {
            out.extend(version_problem(right, false).map(|why| format!("Semver affinity is invalid: {why}")))
        }
        "=" | "==" | "is" | "!=" | "not" | "<" | "<=" | ">" | ">=" => {
            if right.is_empty() {
                out.push(format!("Operator {operand:?} requires an RTarget"));
            }
        }
        other => out.push(format!("Unknown affinity operator {other:?}")),
    }
    if left.is_empty() {
        out.push("No LTarget provided but is required".to_owned());
    }
    if !(-100..=100).contains(weight) {
        out.push("Affinity weight must be within the range [-100,100]".to_owned());
    } else if *weight == 0 {
        out.push("Affinity weight cannot be zero".to_owned());
    }
    out
}

/// Checks spreads.
pub(super) fn spreads(all: &[Spread], kind: JobType, errors: &mut Vec<String>) {
    if kind == JobType::System && !all.is_empty() {
        errors.push("System jobs may not have a spread block".to_owned());
        return;
    }
    for (index, spread) in all.iter().enumerate() {
        let own = spread_errors(spread);
        if !own.is_empty() {
            errors.push(format!("Spread {} validation failed: {}", index + 1, multierror(&own)));
        }
    }
}

fn spread_errors(spread: &Spread) -> Vec<String> {
    let mut out = Vec::new();
    if spread.attribute.is_empty() {
        out.push("Missing spread attribute".to_owned());
    }
    if !(1..=100).contains(&spread.weight) {
        out.push("Spread block must have a positive weight from 0 to 100".to_owned());
    }
    let mut seen = BTreeSet::new();
    let mut sum: u64 = 0;
    for target in &spread.spread_target {
        if !seen.insert(&target.value) {
            out.push(format!("Spread target value {:?} already defined", target.value));
        }
        if target.percent > 100 {
            out.push(format!(
                "Spread target percentage for value {:?} must be between 0 and 100",
                target.value
            ));
        }
        sum += u64::from(target.percent);
    }
    if sum > 100 {
        out.push(format!("Sum of spread target percentages must not be greater than 100%; got {sum}%"));
    }
    out
}

/// Why a list of version bounds cannot be read; `pessimistic`: whether `~>` is an operator.
fn version_problem(written: &str, pessimistic: bool) -> Option<String> {
    written.split(',').find_map(|bound| {
        let bound = bound.trim();
        let digits =
            bound.find(|c: char| !matches!(c, '=' | '!' | '<' | '>' | '~' | ' ')).unwrap_or(bound.len());
        let operator = bound[..digits].trim();
        let known = matches!(operator, "" | "=" | "!=" | ">" | ">=" | "<" | "<=")
            || (pessimistic && operator == "~>");
        let version = bound[digits..].strip_prefix('v').unwrap_or(&bound[digits..]);
        let readable = known && is_version(version);
        (!readable).then(|| format!("Malformed constraint: {bound}"))
    })
}

fn is_version(version: &str) -> bool {
    let core_end = version.find(['-', '+']).unwrap_or(version.len());
    let (core, rest) = version.split_at(core_end);
    let numbers =
        core.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    let suffix =
        rest.chars().skip(1).all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '~'));
    numbers && suffix && rest.len() != 1
}
