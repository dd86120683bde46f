//! `job run`

use serde_json::Value;
use serde_json::json;

use super::print_warnings;
use super::source::JobFile;
use super::source::SourceFlags;
use crate::cli::context::Context;
use crate::cli::context::Failure;
use crate::cli::context::Outcome;
use crate::cli::format::quoted;
use crate::cli::monitor;
use crate::cli::output::Output;
use crate::cli::present;
use crate::cli::registry::Run;
use crate::cli::resolve::job_path;
use crate::cli::view::View;
use crate::client::Client;
use crate::client::ClientError;

/// Registers a job and follows what comes of it.
#[derive(clap::Args, Clone, Debug)]
pub struct RunJob {
    #[command(flatten)]
    source: SourceFlags,
    /// Register only if the job's modify index is this one; 0 for a job that must not exist.
    #[arg(long, value_name = "index")]
    check_index: Option<String>,
    /// Do not follow the evaluation and the deployment.
    #[arg(long)]
    detach: bool,
    /// The priority of the evaluation; the job's where not given.
    #[arg(long, value_name = "priority")]
    eval_priority: Option<i64>,
    /// Print the job as JSON and submit nothing.
    #[arg(long)]
    output: bool,
    /// Accepted for compatibility.
    #[arg(long, hide = true)]
    policy_override: bool,
    /// Keep the counts of groups that exist already.
    #[arg(long)]
    preserve_counts: bool,
    /// Show full ids.
    #[arg(long)]
    verbose: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for RunJob {
    async fn run(self, context: &Context) -> Outcome {
        Context::expect_args(&self.args, 1, "<path>")?;
        let path = &self.args[0];
        let check_index = match &self.check_index {
            None => None,
            Some(text) => Some(text.parse::<u64>().map_err(|_| {
                let why = format!("strconv.ParseUint: parsing {}: invalid syntax", quoted(text));
                format!("Error parsing check-index value {}: {why}", quoted(text))
            })?),
        };
        let file = self.source.load(context, path)?;
        if self.output {
            let text = present::pretty(&json!({ "Job": file.parsed.request() }));
            // These stand only within texts.
            let text = text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
            context.out.line(text);
            return Ok(0);
        }
        let client = context.client().await?.in_region(&written(&file.wire, "Region"));
        let client = client.in_namespace(&written(&file.wire, "Namespace"));
        let mut request = json!({ "Job": file.wire, "Submission": file.submission });
        if let Some(index) = check_index {
            request["EnforceIndex"] = true.into();
            request["JobModifyIndex"] = index.into();
        }
        if let Some(priority) = self.eval_priority {
            request["EvalPriority"] = priority.into();
        }
        if self.preserve_counts {
            request["PreserveCounts"] = true.into();
        }
        if self.policy_override {
            request["PolicyOverride"] = true.into();
        }
        let answer = client.put("/v1/jobs", &[], &request).await;
        let answer = answer.map_err(|why| submit_failure(&file, context.out, &why))?.value;
        print_warnings(context.out, &file.warnings, &answer);
        let is_periodic = file.parsed.job.periodic.is_some();
        let is_parameterized = file.parsed.job.parameterized.is_some();
        let watched =
            !(self.detach || is_periodic || is_parameterized || file.parsed.job.multiregion.is_some());
        let eval = answer.text("EvalID");
        if watched && !eval.is_empty() {
            return monitor::follow(context, &client, eval, self.verbose).await;
        }
        context.out.line("Job registration successful");
        if is_periodic && !is_parameterized {
            if let Some(next) = next_launch(context, &client, &file.parsed.job.id).await {
                context.out.line(format!("Approximate next launch time: {next}"));
            }
        } else if !is_parameterized {
            context.out.line(format!("Evaluation ID: {eval}"));
        }
        Ok(0)
    }
}

/// A text that the job file says.
pub(super) fn written(wire: &Value, key: &str) -> String {
    wire.text(key).to_owned()
}

/// When a periodic job is launched next: asked of the server by a dry run of the job that it has.
pub(super) async fn next_launch(context: &Context, client: &Client, id: &str) -> Option<String> {
    let job = client.get(&job_path(id, ""), &[]).await.ok()?.value;
    let plan =
        client.put(&job_path(id, "/plan"), &[], &json!({ "Job": job, "Diff": false })).await.ok()?.value;
    let at = crate::cli::format::parse_time(plan.field("NextPeriodicLaunch"));
    let zone = job.field("Periodic").text("TimeZone").to_owned();
    (!at.is_never()).then(|| in_zone(at, context.now(), &zone))
}

/// A time in a job's own zone and how far away it is.
pub(super) fn in_zone(at: crate::model::time::Time, now: crate::model::time::Time, zone: &str) -> String {
    let distance = crate::cli::format::whole_seconds(at.since(now));
    let shown = match zone.parse::<chrono_tz::Tz>() {
        Ok(zone) => at.to_chrono().with_timezone(&zone).to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        Err(_) => at.to_chrono().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
    };
    format!("{shown} ({distance} from now)")
}

/// What the server said against a job; a conflict of indexes is told apart.
fn submit_failure(file: &JobFile, out: Output, why: &ClientError) -> Failure {
    let text = why.to_string();
    match text.find("Enforcing job modify index") {
        Some(at) => {
            let text = text[at..].trim_end_matches(')');
            format!("{text}\nJob not updated").into()
        }
        None => format!("Error submitting job: {text}{}", file.drawings(out, &text)).into(),
    }
}
