//! `alloc checks`

use serde_json::Value;

use super::find;
use crate::cli::context::Context;
use crate::cli::context::Outcome;
use crate::cli::format;
use crate::cli::output::Pairs;
use crate::cli::present::Format;
use crate::cli::registry::Run;
use crate::cli::view::View;
use crate::model::time::Time;

/// Shows the results of the checks that Herder itself runs for an allocation.
#[derive(clap::Args, Clone, Debug)]
pub struct AllocChecks {
    /// Show full ids.
    #[arg(long)]
    verbose: bool,
    #[command(flatten)]
    format: Format,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for AllocChecks {
    async fn run(self, context: &Context) -> Outcome {
        Context::expect_args(&self.args, 1, "<allocation>")?;
        let (client, alloc) = find(context, &self.args[0], self.verbose).await?;
        let path = format!("/v1/client/allocation/{}/checks", alloc.text("ID"));
        let answer = client.get(&path, &[]).await;
        let checks = answer.map_err(|why| format!("Failed to query allocation checks: {why}"))?.value;
        if self.format.print(context.out, &checks)? {
            return Ok(0);
        }
        let mut found: Vec<&Value> =
            checks.as_object().map(|checks| checks.values().collect()).unwrap_or_default();
        found.sort_by_key(|check| (check.text("Group"), check.text("Task"), check.text("Check")));
        context.out.line(format!("Status of {} Nomad Service Checks\n", found.len()));
        for check in found {
            context.out.line(format!("{}\n", block(check)));
        }
        Ok(0)
    }
}

fn block(check: &Value) -> String {
    let mut pairs = Pairs::new();
    pairs.add("ID", check.text("ID"));
    pairs.add("Name", check.text("Check"));
    pairs.add("Group", check.text("Group"));
    pairs.add("Task", if check.text("Task").is_empty() { "(group)" } else { check.text("Task") });
    pairs.add("Service", check.text("Service"));
    pairs.add("Status", check.text("Status"));
    if check.int("StatusCode") > 0 {
        pairs.add("StatusCode", check.int("StatusCode").to_string());
    }
    pairs.add("Mode", check.text("Mode"));
    pairs.add("Timestamp", format::time(Time(check.int("Timestamp").saturating_mul(1_000_000_000))));
    pairs.add("Output", check.text("Output"));
    // The sign is set apart by two blanks here.
    pairs.render().lines().map(|line| line.replacen(" = ", "  =  ", 1)).collect::<Vec<_>>().join("\n")
}
