//! Constraints, affinities and spreads.

use std::collections::BTreeSet;

use regex::Regex;

use crate::model::constraint::Affinity;
use crate::model::constraint::Constraint;
use crate::model::constraint::Spread;
use crate::model::job::JobType;

use super::problem::Findings;

/// Checks constraints; `in_task`: whether operators that look at other allocations are refused.
pub(super) fn constraints(all: &[Constraint], in_task: bool, errors: &mut Findings) {
    for (index, constraint) in all.iter().enumerate() {
        let number = index + 1;
        let mut own = errors.block("constraint", index);
        let mut misplaced = own.same();
        constraint_errors(constraint, &mut own);
        errors.nest(format!("Constraint {number} validation failed: "), own);
        let operand = constraint.operand.as_str();
        if in_task && matches!(operand, "distinct_hosts" | "distinct_property") {
            misplaced.at(
                "operator",
                format!("Constraint {number} has disallowed Operand at task level: {operand}"),
            );
            errors.absorb(misplaced);
        }
    }
}

/// Problems of one constraint.
pub(super) fn constraint_errors(constraint: &Constraint, out: &mut Findings) {
    let Constraint { left, right, operand } = constraint;
    if operand.is_empty() {
        out.push("Missing constraint operand");
    }
    let mut needs_left = true;
    match operand.as_str() {
        "distinct_hosts" => needs_left = false,
        "distinct_property" if !right.is_empty() => match right.parse::<u64>() {
            Ok(0) => {
                out.at("value", "Distinct Property must have an allowed count of 1 or greater: 0 < 1");
            }
            Ok(_) => {}
            Err(_) => out.at(
                "value",
                format!(
                    "Failed to convert RTarget {right:?} to uint64: strconv.ParseUint: parsing {right:?}: invalid syntax"
                ),
            ),
        },
        "distinct_property" => {}
        "set_contains" | "set_contains_all" | "set_contains_any" if right.is_empty() => {
            out.at("value", "Set contains constraint requires an RTarget");
        }
        "set_contains" | "set_contains_all" | "set_contains_any" => {}
        "regexp" => {
            if let Some(why) = regexp_problem(right) {
                out.at("value", format!("Regular expression failed to compile: {why}"));
            }
        }
        "version" => {
            if let Some(why) = version_problem(right, true) {
                out.at("value", format!("Version constraint is invalid: {why}"));
            }
        }
        "semver" => {
            if let Some(why) = version_problem(right, false) {
                out.at("value", format!("Semver constraint is invalid: {why}"));
            }
        }
        "=" | "==" | "is" | "!=" | "not" | "<" | "<=" | ">" | ">=" => {
            if right.is_empty() {
                out.at("value", format!("Operator {operand:?} requires an RTarget"));
            }
        }
        "is_set" | "is_not_set" => {
            if !right.is_empty() {
                out.at("value", format!("Operator {operand:?} does not support an RTarget"));
            }
        }
        other => out.at("operator", format!("Unknown constraint type {other:?}")),
    }
    if needs_left && left.is_empty() {
        out.at("attribute", "No LTarget provided but is required by constraint");
    }
}

/// Checks affinities.
pub(super) fn affinities(all: &[Affinity], kind: JobType, errors: &mut Findings) {
    if kind == JobType::System && !all.is_empty() {
        let mut own = errors.block("affinity", 0);
        own.push("System jobs may not have an affinity block");
        errors.absorb(own);
        return;
    }
    for (index, affinity) in all.iter().enumerate() {
        let mut own = errors.block("affinity", index);
        affinity_errors(affinity, &mut own);
        errors.nest(format!("Affinity {} validation failed: ", index + 1), own);
    }
}

fn affinity_errors(affinity: &Affinity, out: &mut Findings) {
    let Affinity { left, right, operand, weight } = affinity;
    if operand.is_empty() {
        out.push("Missing affinity operand");
    }
    match operand.as_str() {
        "set_contains" | "set_contains_all" | "set_contains_any" => {
            if right.is_empty() {
                out.at("value", "Set contains operators require an RTarget");
            }
        }
        "regexp" => {
            if let Some(why) = regexp_problem(right) {
                out.at("value", format!("Regular expression failed to compile: {why}"));
            }
        }
        "version" => {
            if let Some(why) = version_problem(right, true) {
                out.at("value", format!("Version affinity is invalid: {why}"));
            }
        }
        "semver" => {
            if let Some(why) = version_problem(right, false) {
                out.at("value", format!("Semver affinity is invalid: {why}"));
            }
        }
        "=" | "==" | "is" | "!=" | "not" | "<" | "<=" | ">" | ">=" => {
            if right.is_empty() {
                out.at("value", format!("Operator {operand:?} requires an RTarget"));
            }
        }
        other => out.at("operator", format!("Unknown affinity operator {other:?}")),
    }
    if left.is_empty() {
        out.at("attribute", "No LTarget provided but is required");
    }
    if !(-100..=100).contains(weight) {
        out.at("weight", "Affinity weight must be within the range [-100,100]");
    } else if *weight == 0 {
        out.at("weight", "Affinity weight cannot be zero");
    }
}

/// Checks spreads.
pub(super) fn spreads(all: &[Spread], kind: JobType, errors: &mut Findings) {
    if kind == JobType::System && !all.is_empty() {
        let mut own = errors.block("spread", 0);
        own.push("System jobs may not have a spread block");
        errors.absorb(own);
        return;
    }
    for (index, spread) in all.iter().enumerate() {
        let mut own = errors.block("spread", index);
        spread_errors(spread, &mut own);
        errors.nest(format!("Spread {} validation failed: ", index + 1), own);
    }
}

fn spread_errors(spread: &Spread, out: &mut Findings) {
    if spread.attribute.is_empty() {
        out.at("attribute", "Missing spread attribute");
    }
    if !(1..=100).contains(&spread.weight) {
        out.at("weight", "Spread block must have a positive weight from 0 to 100");
    }
    let mut seen = BTreeSet::new();
    let mut sum: u64 = 0;
    for (index, target) in spread.spread_target.iter().enumerate() {
        let mut own = out.block("target", index);
        if !seen.insert(&target.value) {
            own.push(format!("Spread target value {:?} already defined", target.value));
        }
        if target.percent > 100 {
            let value = &target.value;
            own.at(
                "percent",
                format!("Spread target percentage for value {value:?} must be between 0 and 100"),
            );
        }
        out.absorb(own);
        sum += u64::from(target.percent);
    }
    if sum > 100 {
        out.push(format!("Sum of spread target percentages must not be greater than 100%; got {sum}%"));
    }
}

/// Why a regular expression cannot be read, on one line.
fn regexp_problem(pattern: &str) -> Option<String> {
    let why = Regex::new(pattern).err()?.to_string();
    let reason = why.lines().last().unwrap_or_default();
    Some(format!("error parsing regexp: {}: `{pattern}`", reason.trim_start_matches("error: ")))
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
