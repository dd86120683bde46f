//! `job eval`, `job promote`, `job periodic force`, `job revert`, `job scale`

use serde_json::json;

use super::follow_or_print;
use super::run::next_launch;
use crate::cli::context::Context;
use crate::cli::context::Failure;
use crate::cli::context::Outcome;
use crate::cli::format::id;
use crate::cli::format::quoted;
use crate::cli::monitor;
use crate::cli::registry::Run;
use crate::cli::resolve;
use crate::cli::resolve::Accept;
use crate::cli::resolve::job_path;
use crate::cli::view::View;
use crate::cli::view::rows;
use crate::client::Client;

/// Finds the job of the first argument; gives it with a client for its namespace.
async fn find(context: &Context, wanted: &str, accept: Accept) -> Result<(Client, String), Failure> {
    let client = context.client().await?;
    let found = resolve::job(client, wanted, accept).await?;
    Ok((client.in_namespace(&found.namespace), found.id))
}

/// Forces an evaluation.
#[derive(clap::Args, Clone, Debug)]
pub struct EvalJob {
    /// Reschedule failed allocations even if their policy forbids it.
    #[arg(long)]
    force_reschedule: bool,
    /// Do not follow the evaluation.
    #[arg(long)]
    detach: bool,
    /// Show full ids.
    #[arg(long)]
    verbose: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for EvalJob {
    async fn run(self, context: &Context) -> Outcome {
        Context::expect_args(&self.args, 1, "<job>")?;
        let (client, job) = find(context, &self.args[0], Accept::Any).await?;
        let request = json!({ "JobID": job, "EvalOptions": { "ForceReschedule": self.force_reschedule } });
        let answer = client.put(&job_path(&job, "/evaluate"), &[], &request).await;
        let answer = answer.map_err(|why| format!("Error evaluating job: {why}"))?.value;
        let eval = answer.text("EvalID");
        if self.detach {
            context.out.line(format!("Created eval ID: {} ", quoted(&id(eval, self.verbose))));
            return Ok(0);
        }
        monitor::follow(context, &client, eval, self.verbose).await
    }
}

/// Promotes the canaries of a job's latest deployment.
#[derive(clap::Args, Clone, Debug)]
pub struct PromoteJob {
    /// Only this group. May be given several times.
    #[arg(long, value_name = "group", action = clap::ArgAction::Append)]
    group: Vec<String>,
    /// Do not follow the evaluation.
    #[arg(long)]
    detach: bool,
    /// Show full ids.
    #[arg(long)]
    verbose: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for PromoteJob {
    async fn run(self, context: &Context) -> Outcome {
        Context::expect_args(&self.args, 1, "<job>")?;
        let (client, job) = find(context, &self.args[0], Accept::Any).await?;
        let latest = client.get(&job_path(&job, "/deployment"), &[]).await;
        let latest = latest.map_err(|why| format!("Error retrieving deployments: {why}"))?.value;
        let deployment = latest.text("ID");
        if deployment.is_empty() {
            return Err(format!("Job {} has no deployment to promote", quoted(&job)).into());
        }
        let request =
            json!({ "DeploymentID": deployment, "All": self.group.is_empty(), "Groups": self.group });
        let answer = client.put(&format!("/v1/deployment/promote/{deployment}"), &[], &request).await;
        let answer = answer.map_err(|why| {
            format!("Error promoting deployment {} for job {}: {why}", quoted(deployment), quoted(&job))
        })?;
        follow_or_print(context, &client, &answer.value, self.detach, self.verbose).await
    }
}

/// Launches a periodic job now.
#[derive(clap::Args, Clone, Debug)]
pub struct ForcePeriodic {
    /// Do not follow the evaluation.
    #[arg(long)]
    detach: bool,
    /// Show full ids.
    #[arg(long)]
    verbose: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for ForcePeriodic {
    async fn run(self, context: &Context) -> Outcome {
        Context::expect_args(&self.args, 1, "<job id>")?;
        let (client, job) = find(context, &self.args[0], Accept::Periodic).await?;
        let answer = client.put(&job_path(&job, "/periodic/force"), &[], &json!({})).await;
        let answer =
            answer.map_err(|why| format!("Error forcing periodic job {}: {why}", quoted(&job)))?.value;
        if self.detach {
            context.out.line("Force periodic successful");
        }
        follow_or_print(context, &client, &answer, self.detach, self.verbose).await
    }
}

/// Goes back to an earlier version.
#[derive(clap::Args, Clone, Debug)]
pub struct RevertJob {
    /// Do not follow the evaluation.
    #[arg(long)]
    detach: bool,
    /// The Consul token to submit with the job.
    #[arg(long, value_name = "token", hide = true)]
    consul_token: Option<String>,
    /// The Vault token to submit with the job.
    #[arg(long, value_name = "token", hide = true)]
    vault_token: Option<String>,
    /// Show full ids.
    #[arg(long)]
    verbose: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for RevertJob {
    async fn run(self, context: &Context) -> Outcome {
        Context::expect_args(&self.args, 2, "<job> <version>")?;
        let (client, job) = find(context, &self.args[0], Accept::Any).await?;
        let failed =
            |why: &dyn std::fmt::Display| Failure::from(format!("Error retrieving job versions: {why}"));
        let wanted = &self.args[1];
        let version = match wanted.parse::<u64>() {
            Ok(version) => version,
            Err(_) => {
                let answer =
                    client.get(&job_path(&job, "/versions"), &[]).await.map_err(|why| failed(&why))?;
                let versions = answer.value.list("Versions");
                let tagged = versions.iter().find(|one| one.field("VersionTag").text("Name") == wanted);
                let missing = || failed(&format!("version tag {wanted} not found for job {job}"));
                tagged.ok_or_else(missing)?.int("Version").unsigned_abs()
            }
        };
        let request = json!({
            "JobID": job, "JobVersion": version,
            "ConsulToken": self.consul_token.unwrap_or_default(), "VaultToken": self.vault_token.unwrap_or_default(),
        });
        let answer =
            client.put(&job_path(&job, "/revert"), &[], &request).await.map_err(|why| failed(&why))?;
        follow_or_print(context, &client, &answer.value, self.detach, self.verbose).await
    }
}

/// Changes the count of a group.
#[derive(clap::Args, Clone, Debug)]
pub struct ScaleJob {
    /// Scale only if the job's modify index is this one.
    #[arg(long, value_name = "index")]
    check_index: Option<u64>,
    /// Do not follow the evaluation.
    #[arg(long)]
    detach: bool,
    /// Show full ids.
    #[arg(long)]
    verbose: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for ScaleJob {
    async fn run(self, context: &Context) -> Outcome {
        let (wanted, group, count) = match self.args.as_slice() {
            [job, count] => (job, None, count),
            [job, group, count] => (job, Some(group.clone()), count),
            _ => {
                return Err(Failure::usage(
                    "This command requires at least two arguments and no more than three",
                ));
            }
        };
        let count: i64 =
            count.parse().map_err(|_| format!("Failed to convert count string to int: {}", quoted(count)))?;
        let (client, id) = find(context, wanted, Accept::Any).await?;
        let read = client.get(&job_path(&id, ""), &[]).await;
        let job = read.map_err(|why| format!("Error querying job: {why}"))?.value;
        let names: Vec<&str> = job.list("TaskGroups").iter().map(|group| group.text("Name")).collect();
        let group = match (group, names.as_slice()) {
            (Some(group), names) if names.contains(&group.as_str()) => group,
            (Some(group), _) => return Err(format!("Group {group} not found within job").into()),
            (None, [only]) => (*only).to_owned(),
            (None, _) => return Err("Group name required".into()),
        };
        let mut request = json!({
            "Count": count, "Target": { "Group": group }, "Message": "submitted using the Nomad CLI",
            "Error": false,
        });
        if let Some(index) = self.check_index {
            request["JobModifyIndex"] = index.into();
        }
        let answer = client.put(&job_path(&id, "/scale"), &[], &request).await;
        let answer = answer.map_err(|why| format!("Error submitting scaling request: {why}"))?.value;
        super::print_warnings(context.out, &[], &answer);
        let periodic = !job.field("Periodic").is_null();
        let parameterized = !job.field("ParameterizedJob").is_null();
        let eval = answer.text("EvalID");
        if !(self.detach || periodic || parameterized || eval.is_empty()) {
            return monitor::follow(context, &client, eval, self.verbose).await;
        }
        context.out.line("Job scale successful");
        if periodic && !parameterized {
            if let Some(next) = next_launch(context, &client, &id).await {
                context.out.line(format!("Approximate next launch time: {next}"));
            }
        } else if !parameterized {
            context.out.line(format!("Evaluation ID: {eval}"));
        }
        Ok(0)
    }
}

/// The versions of a job, newest first.
pub(super) fn newest_first(versions: &serde_json::Value) -> Vec<serde_json::Value> {
    let mut sorted = rows(versions).to_vec();
    sorted.sort_by_key(|version| std::cmp::Reverse(version.int("Version")));
    sorted
}
