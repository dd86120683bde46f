//! `job …`

pub mod actions;
pub mod diff;
pub mod dispatch;
pub mod history;
pub mod init;
pub mod lists;
pub mod plan;
pub mod run;
mod source;
pub mod status;
pub mod stop;
pub mod validate;

use serde_json::Value;

use super::context::Context;
use super::context::Outcome;
use super::format::plural;
use super::monitor;
use super::output::Output;
use super::output::Style;
use super::view::View;
use crate::client::Client;

/// Prints `Job Warnings:` and what the server said, if it said anything.
fn print_warnings(out: Output, answer: &Value) {
    let text = answer.text("Warnings").trim();
    if !text.is_empty() {
        out.line(out.paint(Style::BoldYellow, &format!("Job Warnings:\n{text}\n")));
    }
}

/// `N warning(s):` and a line for each.
fn count_warnings(warnings: &[String]) -> String {
    let lines: Vec<String> = warnings.iter().map(|warning| format!("* {warning}")).collect();
    let count = warnings.len();
    format!("{count} warning{}:\n\n{}", plural(count as i64), lines.join("\n"))
}

/// Follows the evaluation of an answer, or prints its id when detached.
async fn follow_or_print(
    context: &Context,
    client: &Client,
    answer: &Value,
    detach: bool,
    verbose: bool,
) -> Outcome {
    let eval = answer.text("EvalID");
    if detach {
        context.out.line(format!("Evaluation ID: {eval}"));
        return Ok(0);
    }
    if eval.is_empty() {
        return Ok(0);
    }
    monitor::follow(context, client, eval, verbose).await
}
