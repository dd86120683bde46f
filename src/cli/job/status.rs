//! `job status`

use serde_json::Value;
use serde_json::json;

use super::run::in_zone;
use crate::cli::context::Context;
use crate::cli::context::Failure;
use crate::cli::context::Outcome;
use crate::cli::format;
use crate::cli::format::id;
use crate::cli::format::quoted;
use crate::cli::metrics;
use crate::cli::output::Pairs;
use crate::cli::output::Style;
use crate::cli::output::Table;
use crate::cli::present::Format;
use crate::cli::registry::Run;
use crate::cli::resolve;
use crate::cli::resolve::Accept;
use crate::cli::resolve::job_path;
use crate::cli::tables;
use crate::cli::view::View;
use crate::cli::view::rows;
use crate::client::Client;
use crate::model::time::Time;

/// Groups whose placement failures are shown.
const MAX_FAILED_GROUPS: usize = 5;

/// Shows jobs, or one of them.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct JobStatus {
    /// Only the job's own block.
    #[arg(long)]
    pub short: bool,
    /// Show the evaluations too.
    #[arg(long)]
    pub evals: bool,
    /// Also allocations of earlier jobs with the same id.
    #[arg(long)]
    pub all_allocs: bool,
    /// Show full ids and absolute times.
    #[arg(long)]
    pub verbose: bool,
    #[command(flatten)]
    pub format: Format,
    #[arg(hide = true)]
    pub args: Vec<String>,
}

impl Run for JobStatus {
    async fn run(self, context: &Context) -> Outcome {
        if self.args.len() > 1 {
            return Err(Failure::usage("This command takes either no arguments or one: <job>"));
        }
        let client = context.client().await?;
        let Some(wanted) = self.args.first() else { return self.list(context, client).await };
        let found = resolve::job(client, wanted, Accept::Any).await?;
        let client = client.in_namespace(&found.namespace);
        if self.format.is_asked() {
            let one = collect(&client, &found.id).await?;
            self.format.print(context.out, &Value::Array(vec![one]))?;
            return Ok(0);
        }
        let read = client.get(&job_path(&found.id, ""), &[]).await;
        let job = read.map_err(|why| format!("Error querying job: {why}"))?.value;
        self.one(context, &client, &job).await
    }
}

impl JobStatus {
    async fn list(&self, context: &Context, client: &Client) -> Outcome {
        let answer =
            client.get("/v1/jobs", &[]).await.map_err(|why| format!("Error querying jobs: {why}"))?;
        let jobs = rows(&answer.value);
        if jobs.is_empty() {
            context.out.line("No running jobs");
            return Ok(0);
        }
        if self.format.is_asked() {
            let mut all = Vec::new();
            for job in jobs {
                all.push(collect(&client.in_namespace(job.text("Namespace")), job.text("ID")).await?);
            }
            self.format.print(context.out, &Value::Array(all))?;
            return Ok(0);
        }
        context.out.line(tables::jobs(jobs, client.namespace() == Some("*")));
        Ok(0)
    }

    async fn one(&self, context: &Context, client: &Client, job: &Value) -> Outcome {
        let out = context.out;
        let is_periodic = !job.field("Periodic").is_null();
        let is_parameterized = !job.field("ParameterizedJob").is_null() && !job.flag("Dispatched");
        out.line(basic(context, client, job, is_periodic, is_parameterized).await);
        if !job.text("Refused").is_empty() {
            out.heading("Refused Change");
            let why = job.text("Refused").trim_end();
            out.line(format!("The newest value at the job's key is not being run: {why}"));
        }
        if self.short {
            return Ok(0);
        }
        if is_periodic && !is_parameterized {
            return children(context, client, job, "periodic").await;
        }
        if is_parameterized {
            let parameters = job.field("ParameterizedJob");
            let mut pairs = Pairs::new();
            pairs.add("Payload", parameters.text("Payload"));
            pairs.add("Required Metadata", parameters.texts("MetaRequired").join(", "));
            pairs.add("Optional Metadata", parameters.texts("MetaOptional").join(", "));
            out.heading("Parameterized Job");
            out.line(pairs.render());
            return children(context, client, job, "dispatch").await;
        }
        self.running(context, client, job).await
    }

    async fn running(&self, context: &Context, client: &Client, job: &Value) -> Outcome {
        let out = context.out;
        let id_text = job.text("ID");
        let read = |rest: &'static str, query: &'static [(&'static str, &'static str)]| async move {
            client.get(&job_path(id_text, rest), query).await.map(|answer| answer.value)
        };
        let all: &[(&str, &str)] = if self.all_allocs { &[("all", "true")] } else { &[("all", "false")] };
        let allocs = read("/allocations", all).await;
        let allocs = allocs.map_err(|why| format!("Error querying job allocations: {why}"))?;
        let evals = read("/evaluations", &[]).await;
        let evals = evals.map_err(|why| format!("Error querying job evaluations: {why}"))?;
        let deployment = read("/deployment", &[]).await;
        let deployment = deployment.map_err(|why| format!("Error querying latest job deployment: {why}"))?;
        let summary = read("/summary", &[]).await;
        let summary = summary.map_err(|why| format!("Error querying job summary: {why}"))?;
        out.heading("Summary");
        out.line(summary_table(&summary));
        let children = summary.field("Children");
        if !children.is_null() && ["Pending", "Running", "Dead"].iter().any(|key| children.int(key) > 0) {
            out.heading("Children Job Summary");
            out.line(children_table(children));
        }
        let mut sorted: Vec<&Value> = rows(&evals).iter().collect();
        sorted.sort_by_key(|eval| std::cmp::Reverse(eval.int("CreateIndex")));
        if (self.evals || self.verbose) && !sorted.is_empty() {
            out.heading("Evaluations");
            out.line(evaluations(&sorted, self.verbose));
        }
        self.failures(context, &sorted);
        self.follow_ups(context, client, job, rows(&allocs)).await;
        if !deployment.text("ID").is_empty() {
            out.heading("Latest Deployment");
            let mut pairs = Pairs::new();
            pairs.add("ID", id(deployment.text("ID"), self.verbose));
            pairs.add("Status", deployment.text("Status"));
            pairs.add("Description", deployment.text("StatusDescription"));
            out.line(pairs.render());
            let groups = tables::deployed(&deployment);
            if !groups.is_empty() {
                out.heading("Deployed");
                out.line(groups);
            }
        }
        if let Some(actions) = actions(job) {
            out.heading("Actions");
            out.line(actions);
        }
        out.heading("Allocations");
        out.line(tables::allocations(rows(&allocs), context.now(), self.verbose));
        Ok(0)
    }

    /// Why the newest failed evaluation could not place, while one is blocked.
    fn failures(&self, context: &Context, evals: &[&Value]) {
        let out = context.out;
        let blocked = evals.iter().any(|eval| eval.text("Status") == "blocked");
        let failed = evals.iter().find(|eval| !eval.entries("FailedTGAllocs").is_empty());
        let (true, Some(failed)) = (blocked, failed) else { return };
        out.heading("Placement Failure");
        let groups = failed.entries("FailedTGAllocs");
        for (group, metric) in groups.iter().take(MAX_FAILED_GROUPS) {
            out.line(format!("Task Group {}:", quoted(group)));
            for line in metrics::lines(metric, false, "  ") {
                out.line(line);
            }
            if groups.len() > 1 {
                out.line("");
            }
        }
        if groups.len() > MAX_FAILED_GROUPS {
            let eval = id(failed.text("ID"), self.verbose);
            out.line("\nPlacement failures truncated. To see remainder run:");
            out.line(format!("{} eval-status {eval}", context.program));
        }
    }

    /// When failed allocations are tried again.
    async fn follow_ups(&self, context: &Context, client: &Client, job: &Value, allocs: &[Value]) {
        let mut table = if self.verbose {
            Table::new(&["Task Group", "Reschedule Policy", "Eval ID", "Eval Time"])
        } else {
            Table::new(&["Task Group", "Eval ID", "Eval Time"])
        };
        let waiting = allocs.iter().filter(|alloc| !alloc.text("FollowupEvalID").is_empty());
        for alloc in waiting.filter(|alloc| alloc.text("NextAllocation").is_empty()) {
            let eval_id = alloc.text("FollowupEvalID");
            let Ok(eval) = client.get(&format!("/v1/evaluation/{eval_id}"), &[]).await else { continue };
            let at = format::parse_time(eval.value.field("WaitUntil"));
            if at <= context.now() {
                continue;
            }
            let mut row = vec![alloc.text("TaskGroup").to_owned()];
            if self.verbose {
                row.push(reschedule_policy(job, alloc.text("TaskGroup")));
            }
            row.push(id(eval_id, self.verbose));
            row.push(format::relative(at, context.now()));
            table.row(row);
        }
        if !table.is_empty() {
            context.out.heading("Future Rescheduling Attempts");
            context.out.line(table.render());
        }
    }
}

async fn basic(
    context: &Context,
    client: &Client,
    job: &Value,
    is_periodic: bool,
    is_parameterized: bool,
) -> String {
    let mut pairs = Pairs::new();
    pairs.add("ID", job.text("ID"));
    pairs.add("Name", job.text("Name"));
    pairs.add("Submit Date", format::nanos(job.int("SubmitTime")));
    pairs.add("Type", job.text("Type"));
    pairs.add("Priority", job.int("Priority").to_string());
    pairs.add("Datacenters", job.texts("Datacenters").join(","));
    pairs.add("Namespace", job.text("Namespace"));
    pairs.add("Node Pool", job.text("NodePool"));
    pairs.add("Status", tables::status(job));
    pairs.add("Periodic", is_periodic.to_string());
    pairs.add("Parameterized", is_parameterized.to_string());
    let token = job.text("DispatchIdempotencyToken");
    if !token.is_empty() {
        pairs.add("Idempotency Token", token);
    }
    if is_periodic && !is_parameterized {
        if job.flag("Stop") {
            pairs.add("Next Periodic Launch", "none (job stopped)");
        } else if let Some(next) = next_launch(context, client, job).await {
            pairs.add("Next Periodic Launch", next);
        }
    }
    pairs.render()
}

async fn next_launch(context: &Context, client: &Client, job: &Value) -> Option<String> {
    let request = json!({ "Job": job, "Diff": false });
    let plan = client.put(&job_path(job.text("ID"), "/plan"), &[], &request).await.ok()?.value;
    let at = format::parse_time(plan.field("NextPeriodicLaunch"));
    (at != Time::NEVER).then(|| in_zone(at, context.now(), job.field("Periodic").text("TimeZone")))
}

fn summary_table(summary: &Value) -> String {
    let mut table =
        Table::new(&["Task Group", "Queued", "Starting", "Running", "Failed", "Complete", "Lost", "Unknown"]);
    for (group, counts) in summary.entries("Summary") {
        let mut row = vec![group.to_owned()];
        for key in ["Queued", "Starting", "Running", "Failed", "Complete", "Lost", "Unknown"] {
            row.push(counts.int(key).to_string());
        }
        table.row(row);
    }
    table.render()
}

fn children_table(children: &Value) -> String {
    let mut table = Table::new(&["Pending", "Running", "Dead"]);
    table.row(["Pending", "Running", "Dead"].map(|key| children.int(key).to_string()));
    table.render()
}

/// The children of a periodic or parameterized job.
async fn children(context: &Context, client: &Client, job: &Value, word: &str) -> Outcome {
    let out = context.out;
    let read = client.get(&job_path(job.text("ID"), "/summary"), &[]).await;
    let summary = read.map_err(|why| format!("Error querying job summary: {why}"))?.value;
    let periodic = word == "periodic";
    if !summary.field("Children").is_null() {
        out.heading(if periodic { "Children Job Summary" } else { "Parameterized Job Summary" });
        out.line(children_table(summary.field("Children")));
    }
    let prefix = format!("{}/{word}-", job.text("ID"));
    let listed = client.get("/v1/jobs", &[("prefix", &prefix)]).await;
    let listed = listed.map_err(|why| format!("Error querying job: {why}"))?.value;
    let mut table = Table::new(&["ID", "Status"]);
    for child in rows(&listed).iter().filter(|child| child.text("ParentID") == job.text("ID")) {
        table.row([child.text("ID"), child.text("Status")]);
    }
    let (heading, none) = if periodic {
        ("Previously Launched Jobs", "No instances of periodic job found")
    } else {
        ("Dispatched Jobs", "No dispatched instances of parameterized job found")
    };
    if table.is_empty() {
        out.line(format!("\n{none}"));
    } else {
        out.line(format!("\n{}", out.paint(Style::Bold, heading)));
        out.line(table.render());
    }
    Ok(0)
}

fn evaluations(evals: &[&Value], verbose: bool) -> String {
    let mut table = Table::new(&["ID", "Priority", "Triggered By", "Status", "Placement Failures"]);
    for eval in evals {
        table.row([
            id(eval.text("ID"), verbose),
            eval.int("Priority").to_string(),
            eval.text("TriggeredBy").to_owned(),
            eval.text("Status").to_owned(),
            placement_failures(eval),
        ]);
    }
    table.render()
}

/// Whether an evaluation left something unplaced.
pub fn placement_failures(eval: &Value) -> String {
    match eval.text("Status") {
        "pending" => "N/A - In Progress".to_owned(),
        _ => (!eval.entries("FailedTGAllocs").is_empty()).to_string(),
    }
}

fn actions(job: &Value) -> Option<String> {
    let mut table = Table::new(&["Action Name", "Task Group", "Task"]);
    for group in job.list("TaskGroups") {
        for task in group.list("Tasks") {
            for action in task.list("Actions") {
                table.row([action.text("Name"), group.text("Name"), task.text("Name")]);
            }
        }
    }
    (!table.is_empty()).then(|| table.render())
}

fn reschedule_policy(job: &Value, group: &str) -> String {
    let groups = job.list("TaskGroups");
    let policy = groups.iter().find(|one| one.text("Name") == group).map(|one| one.field("ReschedulePolicy"));
    let Some(policy) = policy else { return String::new() };
    let delay = crate::model::time::Span(policy.int("Delay"));
    let limit = crate::model::time::Span(policy.int("MaxDelay"));
    let function = policy.text("DelayFunction");
    if policy.flag("Unlimited") {
        format!("unlimited with {function} delay, max_delay = {limit}")
    } else {
        let interval = crate::model::time::Span(policy.int("Interval"));
        format!("{} in {interval} with {function} delay, delay = {delay}", policy.int("Attempts"))
    }
}

/// The object of `-json` and `-t`.
async fn collect(client: &Client, id: &str) -> Result<Value, Failure> {
    let mut object = serde_json::Map::new();
    for (name, rest) in [
        ("Allocations", "/allocations"),
        ("Evaluations", "/evaluations"),
        ("LatestDeployment", "/deployment"),
        ("Summary", "/summary"),
    ] {
        let answer = client.get(&job_path(id, rest), &[]).await;
        object.insert(name.to_owned(), answer.map_err(|why| format!("Error querying job: {why}"))?.value);
    }
    Ok(Value::Object(object))
}
