//! `eval …`

use serde_json::Value;

use super::context::Context;
use super::context::Outcome;
use super::format;
use super::format::id;
use super::format::quoted;
use super::job::status::placement_failures;
use super::metrics;
use super::monitor;
use super::output::Pairs;
use super::output::Table;
use super::present::Format;
use super::registry::Run;
use super::resolve;
use super::resolve::Kind;
use super::view::View;
use super::view::rows;

fn table(evals: &[Value], verbose: bool) -> String {
    let mut table = Table::new(&[
        "ID",
        "Priority",
        "Triggered By",
        "Job ID",
        "Namespace",
        "Node ID",
        "Status",
        "Placement Failures",
    ]);
    for eval in evals {
        table.row([
            id(eval.text("ID"), verbose),
            eval.int("Priority").to_string(),
            eval.text("TriggeredBy").to_owned(),
            eval.text("JobID").to_owned(),
            eval.text("Namespace").to_owned(),
            id(eval.text("NodeID"), verbose),
            eval.text("Status").to_owned(),
            placement_failures(eval),
        ]);
    }
    table.render()
}

/// Lists evaluations.
#[derive(clap::Args, Clone, Debug)]
pub struct ListEvals {
    /// Show full ids.
    #[arg(long)]
    verbose: bool,
    /// The most rows to show.
    #[arg(long, value_name = "count")]
    per_page: Option<u64>,
    /// Where to go on.
    #[arg(long, value_name = "token")]
    page_token: Option<String>,
    /// Only those that this expression selects.
    #[arg(long, value_name = "expression")]
    filter: Option<String>,
    /// Only those of this job.
    #[arg(long, value_name = "job")]
    job: Option<String>,
    /// Only those with this status.
    #[arg(long, value_name = "status")]
    status: Option<String>,
    #[command(flatten)]
    format: Format,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for ListEvals {
    async fn run(self, context: &Context) -> Outcome {
        Context::expect_args(&self.args, 0, "")?;
        let client = context.client().await?;
        let per_page = self.per_page.map(|count| count.to_string());
        let mut query = Vec::new();
        for (name, value) in [
            ("per_page", &per_page),
            ("next_token", &self.page_token),
            ("filter", &self.filter),
            ("job", &self.job),
            ("status", &self.status),
        ] {
            query.extend(value.as_deref().map(|value| (name, value)));
        }
        let answer = client.get("/v1/evaluations", &query).await;
        let answer = answer.map_err(|why| format!("Error querying evaluations: {why}"))?;
        if self.format.print(context.out, &answer.value)? {
            return Ok(0);
        }
        let evals = rows(&answer.value);
        if evals.is_empty() {
            context.out.line("No evals found");
            return Ok(0);
        }
        context.out.line(table(evals, self.verbose));
        paginated(context, answer.next_token.as_deref());
        Ok(0)
    }
}

/// Tells how to see the next page.
pub fn paginated(context: &Context, token: Option<&str>) {
    let Some(token) = token else { return };
    let mut words: Vec<&str> = Vec::new();
    let mut args = context.args.iter();
    while let Some(arg) = args.next() {
        match arg.trim_start_matches('-') {
            "page-token" if arg.starts_with('-') => {
                args.next();
            }
            name if arg.starts_with('-') && name.starts_with("page-token=") => {}
            _ => words.push(arg),
        }
    }
    context.out.line("\nResults have been paginated. To get the next page run:\n");
    context.out.line(format!("{} {} -page-token {token}", context.program, words.join(" ")));
}

/// Shows an evaluation.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct EvalStatus {
    /// Follow the evaluation to its end.
    #[arg(long)]
    monitor: bool,
    /// Show full ids and absolute times.
    #[arg(long)]
    pub verbose: bool,
    #[command(flatten)]
    format: Format,
    #[arg(hide = true)]
    pub args: Vec<String>,
}

impl EvalStatus {
    /// Shows the one object that `args` name.
    pub fn of(args: Vec<String>, verbose: bool) -> Self {
        Self { verbose, args, ..Self::default() }
    }
}

impl Run for EvalStatus {
    async fn run(self, context: &Context) -> Outcome {
        let client = context.client().await?;
        if self.args.is_empty() && self.format.is_asked() {
            let answer = client.get("/v1/evaluations", &[]).await;
            let list = answer.map_err(|why| format!("Error querying evaluations: {why}"))?.value;
            self.format.print(context.out, &list)?;
            return Ok(0);
        }
        Context::expect_args(&self.args, 1, "<evaluation>")?;
        let verbose = self.verbose;
        let stub =
            resolve::one(client, Kind::Evaluation, &self.args[0], "Identifier", |many| table(many, verbose))
                .await?;
        let client = client.in_namespace(stub.text("Namespace"));
        if self.monitor {
            return monitor::follow(context, &client, stub.text("ID"), self.verbose).await;
        }
        let answer = client.get(&format!("/v1/evaluation/{}", stub.text("ID")), &[]).await;
        let eval = answer.map_err(|why| format!("Error querying evaluation: {why}"))?.value;
        if self.format.print(context.out, &eval)? {
            return Ok(0);
        }
        self.show(context, &eval);
        Ok(0)
    }
}

impl EvalStatus {
    fn show(&self, context: &Context, eval: &Value) {
        let out = context.out;
        let status = eval.text("Status");
        let description = eval.text("StatusDescription");
        let mut pairs = Pairs::new();
        pairs.add("ID", id(eval.text("ID"), self.verbose));
        pairs.add("Create Time", format::when(eval.int("CreateTime"), context.now(), self.verbose));
        pairs.add("Modify Time", format::when(eval.int("ModifyTime"), context.now(), self.verbose));
        pairs.add("Status", status);
        pairs.add("Status Description", if description.is_empty() { status } else { description });
        pairs.add("Type", eval.text("Type"));
        pairs.add("TriggeredBy", eval.text("TriggeredBy"));
        pairs.add("Job ID", eval.text("JobID"));
        pairs.add("Namespace", eval.text("Namespace"));
        match eval.text("TriggeredBy") {
            "node-update" => {
                pairs.add("Node ID", id(eval.text("NodeID"), self.verbose));
            }
            "max-plan-attempts" => {
                pairs.add("Previous Eval", id(eval.text("PreviousEval"), self.verbose));
            }
            _ => {}
        }
        pairs.add("Priority", eval.int("Priority").to_string());
        pairs.add("Placement Failures", placement_failures(eval));
        let until = format::parse_time(eval.field("WaitUntil"));
        if !until.is_never() {
            pairs.add("Wait Until", format::time(until));
        }
        if self.verbose {
            pairs.add("Previous Eval", eval.text("PreviousEval"));
            pairs.add("Next Eval", eval.text("NextEval"));
            pairs.add("Blocked Eval", eval.text("BlockedEval"));
        }
        out.line(pairs.render());
        let failures = eval.entries("FailedTGAllocs");
        if failures.is_empty() {
            return;
        }
        out.heading("Failed Placements");
        for (group, metric) in failures {
            out.line(metrics::failed_heading(group, metric));
            for line in metrics::lines(metric, false, "  ") {
                out.line(line);
            }
            out.line("");
        }
        if !eval.text("BlockedEval").is_empty() {
            let blocked = quoted(&id(eval.text("BlockedEval"), self.verbose));
            out.line(format!("Evaluation {blocked} waiting for additional capacity to place remainder"));
        }
    }
}
