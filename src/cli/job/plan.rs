//! `job plan`

use serde_json::Value;
use serde_json::json;

use super::diff;
use super::print_warnings;
use super::run::in_zone;
use super::run::written;
use super::source::SourceFlags;
use crate::cli::argv::parse_bool;
use crate::cli::context::Context;
use crate::cli::context::Failure;
use crate::cli::context::Outcome;
use crate::cli::format;
use crate::cli::metrics;
use crate::cli::output::Style;
use crate::cli::output::Table;
use crate::cli::registry::Run;
use crate::cli::resolve::job_path;
use crate::cli::view::View;
use crate::client::ClientError;
use crate::model::time::Span;

/// Tables of preempted allocations are summed up from this many rows.
const MANY: usize = 10;

/// Shows what a job would change.
#[derive(clap::Args, Clone, Debug)]
pub struct PlanJob {
    #[command(flatten)]
    source: SourceFlags,
    /// Whether to show the differences to the running job: true or false. Default = true
    #[arg(long, value_name = "bool", require_equals = true)]
    diff: Option<String>,
    /// Accepted for compatibility.
    #[arg(long, hide = true)]
    policy_override: bool,
    /// Show unchanged fields too.
    #[arg(long)]
    verbose: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for PlanJob {
    async fn run(self, context: &Context) -> Outcome {
        Context::expect_args(&self.args, 1, "<path>")?;
        let path = &self.args[0];
        let show_diff = match self.diff.as_deref() {
            None => true,
            Some(text) => parse_bool(text).ok_or_else(|| {
                Failure::from(format!("invalid boolean value {text:?} for -diff: parse error"))
            })?,
        };
        let file = self.source.load(context, path)?;
        let client = context.client().await?.in_region(&written(&file.wire, "Region"));
        let client = client.in_namespace(&written(&file.wire, "Namespace"));
        let request = json!({ "Job": file.wire, "Diff": true, "PolicyOverride": self.policy_override });
        let answer = client.put(&job_path(&file.parsed.job.id, "/plan"), &[], &request).await;
        let out = context.out;
        let refused = |why: ClientError| {
            let why = why.to_string();
            format!("Error during plan: {why}{}", file.drawings(out, &why))
        };
        let plan = answer.map_err(refused)?.value;
        if show_diff {
            out.raw(diff::job(plan.field("Diff"), self.verbose, out).as_bytes());
        }
        out.line(out.paint(Style::Bold, "Scheduler dry-run:"));
        let job = &file.parsed.job;
        let periodic = job.periodic.as_ref().filter(|_| job.parameterized.is_none());
        for line in self.dry_run(context, &plan, &job.kind, periodic) {
            out.line(line);
        }
        out.line("");
        print_warnings(out, &file.warnings, &plan);
        let preempted = plan.field("Annotations").list("PreemptedAllocs");
        if !preempted.is_empty() {
            out.line(out.paint(Style::BoldYellow, "Preemptions:\n"));
            out.line(format!("{}\n", preemptions(preempted)));
        }
        out.line(self.footer(context, plan.int("JobModifyIndex"), path));
        Ok(exit_code(&plan))
    }
}

impl PlanJob {
    fn dry_run(
        &self,
        context: &Context,
        plan: &Value,
        kind: &str,
        periodic: Option<&crate::model::job::PeriodicConfig>,
    ) -> Vec<String> {
        let out = context.out;
        let failed = plan.entries("FailedTGAllocs");
        let mut lines = Vec::new();
        if failed.is_empty() {
            lines.push(out.paint(Style::BoldGreen, "- All tasks successfully allocated."));
        } else {
            let text = if kind == "system" {
                "- WARNING: Failed to place allocations on all nodes."
            } else {
                "- WARNING: Failed to place all allocations."
            };
            lines.push(out.paint(Style::BoldYellow, text));
            for (group, metric) in failed {
                lines.push(format!("  {}", metrics::failed_heading(group, metric)));
                lines.extend(metrics::lines(metric, false, "    "));
            }
        }
        for eval in plan.list("CreatedEvals") {
            if eval.text("TriggeredBy") == "rolling-update" {
                let wait = Span(eval.int("Wait"));
                let text = format!("- Rolling update, next evaluation will be in {wait}.");
                lines.push(out.paint(Style::Green, &text));
            }
        }
        let next = format::parse_time(plan.field("NextPeriodicLaunch"));
        if let Some(periodic) = periodic.filter(|_| !next.is_never()) {
            let at = in_zone(next, context.now(), &periodic.time_zone);
            let text = format!("- If submitted now, next periodic launch would be at {at}.");
            lines.push(out.paint(Style::Green, &text));
        }
        lines
    }

    fn footer(&self, context: &Context, index: i64, path: &str) -> String {
        let mut extra = String::new();
        for var in &self.source.var {
            extra.push_str(&format!("-var={} ", format::quoted(var)));
        }
        for file in &self.source.var_file {
            extra.push_str(&format!("-var-file={} ", format::quoted(file)));
        }
        if let Some(namespace) = &context.general.namespace {
            extra.push_str(&format!("-namespace={} ", format::quoted(namespace)));
        }
        let heading = context.out.paint(Style::Bold, &format!("Job Modify Index: {index}"));
        let program = &context.program;
        format!(
            "{heading}\nTo submit the job with version verification run:\n\n\
             {program} job run -check-index {index} {extra}{path}\n\n\
             With the check-index flag the job is only accepted if its modify index on the\n\
             server is still the one above. If the job was changed in the meantime, another\n\
             user may have submitted a newer version: the plan's results may then no longer\n\
             hold, so plan again."
        )
    }
}

fn preemptions(allocs: &[Value]) -> String {
    if allocs.len() < MANY {
        let mut table = Table::new(&["Alloc ID", "Job ID", "Task Group"]);
        for alloc in allocs {
            table.row([alloc.text("ID"), alloc.text("JobID"), alloc.text("TaskGroup")]);
        }
        return table.render();
    }
    let mut by_job = std::collections::BTreeMap::new();
    let mut by_type = std::collections::BTreeMap::new();
    for alloc in allocs {
        let job = (alloc.text("JobID"), alloc.text("Namespace"), alloc.text("JobType"));
        *by_job.entry(job).or_insert(0) += 1;
        *by_type.entry(alloc.text("JobType")).or_insert(0) += 1;
    }
    if by_job.len() < MANY {
        let mut table = Table::new(&["Job ID", "Namespace", "Job Type", "Preemptions"]);
        for ((job, namespace, kind), count) in by_job {
            table.row([job.to_owned(), namespace.to_owned(), kind.to_owned(), count.to_string()]);
        }
        return table.render();
    }
    let mut table = Table::new(&["Job Type", "Preemptions"]);
    for (kind, count) in by_type {
        table.row([kind.to_owned(), count.to_string()]);
    }
    table.render()
}

/// 1 if anything would be created or destroyed.
fn exit_code(plan: &Value) -> u8 {
    if plan.field("Diff").text("Type") == "None" {
        return 0;
    }
    let changes = |updates: &Value| {
        ["Stop", "Place", "Migrate", "DestructiveUpdate", "Canary"].iter().any(|key| updates.int(key) > 0)
    };
    let groups = plan.field("Annotations").entries("DesiredTGUpdates");
    u8::from(groups.into_iter().any(|(_, updates)| changes(updates)))
}
