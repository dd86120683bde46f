//! Why a group could not be placed, line by line.

use serde_json::Value;

use super::format::plural;
use super::format::quoted;
use super::output::Table;
use super::view::View;

/// The lines about the metric of a failed (or, with scores, of any) placement, each behind `prefix`.
pub fn lines(metric: &Value, scores: bool, prefix: &str) -> Vec<String> {
    let mut lines = Vec::new();
    if metric.int("NodesEvaluated") == 0 {
        lines.push("* No nodes were eligible for evaluation".to_owned());
    }
    for (datacenter, available) in metric.entries("NodesAvailable") {
        if available.as_i64() == Some(0) {
            lines.push(format!("* No nodes are available in datacenter {}", quoted(datacenter)));
        }
    }
    let counted = |key: &str, word: &str, rest: &str| -> Vec<String> {
        let line = |(name, count): (&str, &Value)| {
            let count = count.as_i64().unwrap_or(0);
            format!("* {word} {}{}", quoted(name), rest.replace("%d", &count.to_string()))
        };
        metric.entries(key).into_iter().map(line).collect()
    };
    lines.extend(counted("ClassFiltered", "Class", ": %d nodes excluded by filter"));
    lines.extend(counted("ConstraintFiltered", "Constraint", ": %d nodes excluded by filter"));
    if metric.int("NodesExhausted") > 0 {
        lines.push(format!("* Resources exhausted on {} nodes", metric.int("NodesExhausted")));
    }
    lines.extend(counted("ClassExhausted", "Class", " exhausted on %d nodes"));
    lines.extend(counted("DimensionExhausted", "Dimension", " exhausted on %d nodes"));
    for quota in metric.texts("QuotaExhausted") {
        lines.push(format!("* Quota limit hit {}", quoted(&quota)));
    }
    let mut lines: Vec<String> = lines.into_iter().map(|line| format!("{prefix}{line}")).collect();
    if scores && let Some(table) = score_table(metric) {
        lines.extend(table.render().lines().map(|line| format!("{prefix}{line}")));
    }
    lines
}

fn score_table(metric: &Value) -> Option<Table> {
    let entries = metric.list("ScoreMetaData");
    let mut names: Vec<&str> =
        entries.iter().flat_map(|entry| entry.entries("Scores")).map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| *name != "normalized-score");
    if entries.is_empty() {
        return None;
    }
    let header: Vec<&str> =
        ["Node"].into_iter().chain(names.iter().copied()).chain(["final score"]).collect();
    let mut table = Table::new(&header);
    for entry in entries {
        let scores = entry.field("Scores");
        let mut row = vec![entry.text("NodeID").to_owned()];
        row.extend(names.iter().map(|name| three_digits(scores.float(name))));
        row.push(three_digits(entry.float("NormScore")));
        table.row(row);
    }
    Some(table)
}

/// Go's `%.3g`.
fn three_digits(number: f64) -> String {
    if number == 0.0 {
        return "0".to_owned();
    }
    let magnitude = number.abs().log10().floor() as i32;
    let decimals = usize::try_from(2 - magnitude).unwrap_or(0);
    let text = format!("{number:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// `Task Group "web" (failed to place 2 allocations):`
pub fn failed_heading(group: &str, metric: &Value) -> String {
    let count = metric.int("CoalescedFailures") + 1;
    format!("Task Group {} (failed to place {count} allocation{}):", quoted(group), plural(count))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_reason_is_a_line() {
        let metric = json!({
            "NodesEvaluated": 3, "NodesExhausted": 2, "CoalescedFailures": 1,
            "NodesAvailable": {"dc1": 3, "dc2": 0},
            "ConstraintFiltered": {"${attr.cpu.arch} = arm64": 1},
            "DimensionExhausted": {"memory": 2},
        });
        assert_eq!(
            lines(&metric, false, "  "),
            [
                "  * No nodes are available in datacenter \"dc2\"",
                "  * Constraint \"${attr.cpu.arch} = arm64\": 1 nodes excluded by filter",
                "  * Resources exhausted on 2 nodes",
                "  * Dimension \"memory\" exhausted on 2 nodes",
            ]
        );
        assert_eq!(failed_heading("web", &metric), "Task Group \"web\" (failed to place 2 allocations):");
    }

    #[test]
    fn scores_have_three_digits() {
        assert_eq!([0.5, 0.123_456, 18.0, 0.0].map(three_digits), ["0.5", "0.123", "18", "0"]);
    }
}
