//! `job history` and `job inspect`

use serde_json::Value;
use serde_json::json;

use super::actions::newest_first;
use super::diff;
use crate::cli::context::Context;
use crate::cli::context::Failure;
use crate::cli::context::Outcome;
use crate::cli::format;
use crate::cli::output::Pairs;
use crate::cli::present;
use crate::cli::present::Format;
use crate::cli::registry::Run;
use crate::cli::resolve;
use crate::cli::resolve::Accept;
use crate::cli::resolve::job_path;
use crate::cli::view::View;
use crate::client::Client;

/// Shows the versions of a job.
#[derive(clap::Args, Clone, Debug)]
pub struct JobHistory {
    /// Show what each version changed.
    #[arg(long = "p")]
    diffs: bool,
    /// Show the whole job of each version.
    #[arg(long)]
    full: bool,
    /// Only this version.
    #[arg(long, value_name = "version")]
    version: Option<u64>,
    /// Compare with the version of this tag. Needs -p.
    #[arg(long, value_name = "tag")]
    diff_tag: Option<String>,
    /// Compare with this version. Needs -p.
    #[arg(long, value_name = "version")]
    diff_version: Option<u64>,
    #[command(flatten)]
    format: Format,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for JobHistory {
    async fn run(self, context: &Context) -> Outcome {
        Context::expect_args(&self.args, 1, "<job>")?;
        if self.format.is_asked() && (self.diffs || self.full) {
            return Err("-json and -t are exclusive with -p and -full".into());
        }
        let against = self.diff_tag.is_some() || self.diff_version.is_some();
        if against && !self.diffs {
            return Err("-diff-tag and -diff-version can only be used with -p".into());
        }
        if self.diff_tag.is_some() && self.diff_version.is_some() {
            return Err("-diff-tag and -diff-version are mutually exclusive".into());
        }
        let client = context.client().await?;
        let found = resolve::job(client, &self.args[0], Accept::Any).await?;
        let client = client.in_namespace(&found.namespace);
        let (versions, diffs) = self.read(&client, &found.id).await?;
        let chosen: Vec<usize> = match self.version {
            None => (0..versions.len()).collect(),
            Some(wanted) => {
                let at = versions.iter().position(|one| one.int("Version").unsigned_abs() == wanted);
                vec![at.ok_or("Error printing job history for non-existing job or job version")?]
            }
        };
        if self.format.is_asked() {
            let shown = match self.version {
                Some(_) => versions[chosen[0]].clone(),
                None => Value::Array(versions),
            };
            self.format.print(context.out, &shown)?;
            return Ok(0);
        }
        let blocks: Vec<String> =
            chosen.into_iter().map(|at| self.block(context, &versions[at], diffs.get(at))).collect();
        context.out.line(blocks.join("\n\n"));
        Ok(0)
    }
}

impl JobHistory {
    async fn read(&self, client: &Client, id: &str) -> Result<(Vec<Value>, Vec<Value>), Failure> {
        let version = self.diff_version.map(|version| version.to_string());
        let mut query = vec![("diffs", if self.diffs { "true" } else { "false" })];
        if let Some(tag) = &self.diff_tag {
            query.push(("diff_tag", tag));
        }
        if let Some(version) = &version {
            query.push(("diff_version", version));
        }
        let answer = client.get(&job_path(id, "/versions"), &query).await;
        let answer = answer.map_err(|why| format!("Error retrieving job versions: {why}"))?.value;
        Ok((newest_first(answer.field("Versions")), answer.list("Diffs").to_vec()))
    }

    fn block(&self, context: &Context, version: &Value, change: Option<&Value>) -> String {
        let mut pairs = Pairs::new();
        pairs.add("Version", version.int("Version").to_string());
        pairs.add("Stable", version.flag("Stable").to_string());
        pairs.add("Submit Date", format::nanos(version.int("SubmitTime")));
        let tag = version.field("VersionTag");
        if !tag.is_null() {
            pairs.add("Tag Name", tag.text("Name"));
            if !tag.text("Description").is_empty() {
                pairs.add("Tag Description", tag.text("Description"));
            }
        }
        if let Some(change) = change.filter(|_| self.diffs) {
            let drawn = diff::job(change, false, context.out);
            pairs.add("Diff", format!("\n{}", drawn.trim_end()));
        }
        if self.full {
            pairs.add("Full", format!("JSON Job:\n{}", present::pretty(&present::sorted(version))));
        }
        pairs.render()
    }
}

/// Shows a job as the server keeps it.
#[derive(clap::Args, Clone, Debug)]
pub struct InspectJob {
    /// This version instead of the current one.
    #[arg(long, value_name = "version")]
    version: Option<u64>,
    /// Show the file that was submitted.
    #[arg(long)]
    hcl: bool,
    /// With -hcl: show the variables too.
    #[arg(long)]
    with_vars: bool,
    #[command(flatten)]
    format: Format,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for InspectJob {
    async fn run(self, context: &Context) -> Outcome {
        let client = context.client().await?;
        if self.args.is_empty() && self.format.is_asked() {
            let answer =
                client.get("/v1/jobs", &[]).await.map_err(|why| format!("Error querying jobs: {why}"))?;
            self.format.print(context.out, &answer.value)?;
            return Ok(0);
        }
        Context::expect_args(&self.args, 1, "<job>")?;
        if self.with_vars && !self.hcl {
            return Err("can only use -with-vars with -hcl".into());
        }
        let found = resolve::job(client, &self.args[0], Accept::Any).await?;
        let client = client.in_namespace(&found.namespace);
        let job = self.read(&client, &found.id).await?;
        if self.hcl {
            return self.source(context, &client, &job).await;
        }
        if !self.format.print(context.out, &job)? {
            context.out.line(present::pretty(&json!({ "Job": present::sorted(&job) })));
        }
        Ok(0)
    }
}

impl InspectJob {
    async fn read(&self, client: &Client, id: &str) -> Result<Value, Failure> {
        let failed = |why: &dyn std::fmt::Display| Failure::from(format!("Error inspecting job: {why}"));
        let Some(wanted) = self.version else {
            return Ok(client.get(&job_path(id, ""), &[]).await.map_err(|why| failed(&why))?.value);
        };
        let answer = client.get(&job_path(id, "/versions"), &[]).await.map_err(|why| failed(&why))?.value;
        let version = answer.list("Versions").iter().find(|one| one.int("Version").unsigned_abs() == wanted);
        let missing =
            || failed(&format!("job {} with version {wanted} couldn't be found", format::quoted(id)));
        version.cloned().ok_or_else(missing)
    }

    async fn source(&self, context: &Context, client: &Client, job: &Value) -> Outcome {
        let version = job.int("Version").to_string();
        let path = job_path(job.text("ID"), "/submission");
        let answer = client.get(&path, &[("version", &version)]).await;
        let submission = answer.map_err(|why| format!("Error inspecting job: {why}"))?.value;
        if self.with_vars {
            let id = job.text("ID");
            let vars: Vec<String> = submission
                .entries("VariableFlags")
                .into_iter()
                .map(|(name, value)| format!("-var {name}={} ", value.as_str().unwrap_or_default()))
                .collect();
            let program = &context.program;
            context.out.error(format!(
                "To run this job as originally submitted:\n\n    $ {program} job inspect -namespace {} -hcl {id} |\n    {program} job run {}{id}\n",
                job.text("Namespace"),
                vars.concat(),
            ));
        }
        context.out.line(submission.text("Source"));
        Ok(0)
    }
}
