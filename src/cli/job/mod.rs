//! `job …`

pub mod action;
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
fn print_warnings(out: Output, of_file: &[String], answer: &Value) {
    let text = all_warnings(of_file, answer.text("Warnings"));
    if !text.is_empty() {
        out.line(out.paint(Style::BoldYellow, &format!("Job Warnings:\n{text}\n")));
    }
}

/// What was noticed in the job file and the server's `N warning(s):` text as one such text.
fn all_warnings(of_file: &[String], of_server: &str) -> String {
    let of_server = of_server.trim();
    if of_file.is_empty() {
        return of_server.to_owned();
    }
    let (heading, lines) = of_server.split_once("\n\n").unwrap_or_default();
    let count: usize = heading.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
    let count = count + of_file.len();
    let mut text = format!("{count} warning{}:\n", plural(i64::try_from(count).unwrap_or(i64::MAX)));
    for warning in of_file {
        text.push_str(&format!("\n* {warning}"));
    }
    if !lines.is_empty() {
        text.push_str(&format!("\n{lines}"));
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_of_the_file_and_of_the_server_make_one_list() {
        let of_file = ["a comma".to_owned()];
        assert_eq!(all_warnings(&of_file, "1 warning:\n\n* old"), "2 warnings:\n\n* a comma\n* old");
        assert_eq!(all_warnings(&of_file, ""), "1 warning:\n\n* a comma");
        assert_eq!(all_warnings(&[], "1 warning:\n\n* old\n"), "1 warning:\n\n* old");
    }
}
