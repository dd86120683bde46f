//! Follows an evaluation, and the deployment that it belongs to, to the end.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::context::Context;
use super::context::Failure;
use super::context::Outcome;
use super::format::id;
use super::format::quoted;
use super::metrics;
use super::tables;
use super::view::View;
use super::view::rows;
use crate::client::Client;
use crate::client::ClientError;

/// How long one query waits for a change of an evaluation.
const EVALUATION_WAIT: &str = "1000ms";
/// The least time between two looks, for servers that do not wait.
const POLL: Duration = Duration::from_millis(50);
/// How often the frame of a deployment is drawn again on a terminal.
const REDRAW: Duration = Duration::from_millis(100);
const SPINNER: [&str; 8] = ["⠋", "⠙", "⠸", "⠴", "⠦", "⠇", "⠏", "⠟"];
/// Exit code when something was not placed and no deployment will place it.
const NOT_PLACED: u8 = 2;

/// Follows evaluations with one client.
pub struct Monitor<'a> {
    context: &'a Context,
    client: &'a Client,
    verbose: bool,
}

impl<'a> Monitor<'a> {
    /// Prints full ids when `verbose`.
    pub fn new(context: &'a Context, client: &'a Client, verbose: bool) -> Self {
        Self { context, client, verbose }
    }

    fn info(&self, text: &str) {
        self.context.out.line(format!("==> {}: {text}", self.context.stamp()));
    }

    fn detail(&self, text: &str) {
        self.context.out.line(format!("    {}: {text}", self.context.stamp()));
    }

    fn failed(&self, text: &str) -> Failure {
        format!("==> {}: {text}", self.context.stamp()).into()
    }

    fn short(&self, full: &str) -> String {
        quoted(&id(full, self.verbose))
    }

    /// Follows an evaluation, those that come after it, and its deployment. Gives 0, or 2 when something was not
    /// placed, or 1 when the deployment failed.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn evaluation(&self, eval_id: &str) -> Outcome {
        let mut eval_id = eval_id.to_owned();
        loop {
            self.info(&format!("Monitoring evaluation {}", self.short(&eval_id)));
            let eval = self.until_terminal(&eval_id).await?;
            let placed = self.finished(&eval);
            let next = eval.text("NextEval");
            if !next.is_empty() {
                let wait = crate::model::time::Span(eval.int("Wait"));
                if wait.0 != 0 {
                    self.info(&format!("Monitoring next evaluation {} in {wait}", self.short(next)));
                    tokio::time::sleep(wait.to_std()).await;
                }
                eval_id = next.to_owned();
                continue;
            }
            let deployment = eval.text("DeploymentID");
            if !deployment.is_empty() {
                self.info(&format!("Monitoring deployment {}", self.short(deployment)));
                let status = self.deployment(deployment, None, "    ").await?;
                return Ok(u8::from(status != "successful"));
            }
            return Ok(if placed { 0 } else { NOT_PLACED });
        }
    }

    async fn until_terminal(&self, eval_id: &str) -> Result<Value, Failure> {
        let path = format!("/v1/evaluation/{eval_id}");
        let mut seen = Seen::default();
        let mut index = 0_u64;
        loop {
            let at = index.to_string();
            let query: &[(&str, &str)] =
                if index == 0 { &[] } else { &[("index", &at), ("wait", EVALUATION_WAIT)] };
            let answer = self.client.get(&path, query).await.map_err(|why| match why {
                ClientError::Status { code: 404, .. } => {
                    self.failed(&format!("No evaluation with id {} found", quoted(eval_id)))
                }
                why => self.failed(&format!("Error reading evaluation: {why}")),
            })?;
            let eval = answer.value;
            let allocs = self.client.get(&format!("{path}/allocations"), &[]).await;
            let allocs = allocs.map_err(|why| self.failed(&format!("Error reading allocations: {why}")))?;
            self.show_changes(&mut seen, &eval, rows(&allocs.value));
            if matches!(eval.text("Status"), "complete" | "failed" | "canceled") {
                return Ok(eval);
            }
            // A server that answers at once must not be asked without pause.
            if index == answer.index {
                tokio::time::sleep(POLL).await;
            }
            index = answer.index;
        }
    }

    fn show_changes(&self, seen: &mut Seen, eval: &Value, allocs: &[Value]) {
        if !seen.node && !eval.text("NodeID").is_empty() {
            self.detail(&format!("Evaluation triggered by node {}", self.short(eval.text("NodeID"))));
            seen.node = true;
        }
        if !seen.job && !eval.text("JobID").is_empty() {
            self.detail(&format!("Evaluation triggered by job {}", quoted(eval.text("JobID"))));
            seen.job = true;
        }
        if !seen.deployment && !eval.text("DeploymentID").is_empty() {
            self.detail(&format!("Evaluation within deployment: {}", self.short(eval.text("DeploymentID"))));
            seen.deployment = true;
        }
        for alloc in allocs {
            self.show_alloc(seen, eval, alloc);
        }
        let status = eval.text("Status");
        let before = if seen.status.is_empty() { "pending" } else { &seen.status };
        if status != before && status != "pending" {
            self.detail(&format!("Evaluation status changed: {} -> {}", quoted(before), quoted(status)));
        }
        seen.status = status.to_owned();
    }

    fn show_alloc(&self, seen: &mut Seen, eval: &Value, alloc: &Value) {
        let full = alloc.text("ID");
        let name = self.short(full);
        let status = alloc.text("ClientStatus").to_owned();
        let Some(before) = seen.allocs.insert(full.to_owned(), status.clone()) else {
            let place = format!(
                "node {}, group {}",
                self.short(alloc.text("NodeID")),
                quoted(alloc.text("TaskGroup"))
            );
            if alloc.int("CreateIndex") < eval.int("CreateIndex") {
                self.detail(&format!("Allocation {name} modified: {place}"));
            } else if alloc.text("DesiredStatus") == "run" {
                self.detail(&format!("Allocation {name} created: {place}"));
            }
            return;
        };
        if before != status {
            let why = alloc.text("ClientDescription");
            let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
            let change = format!("{} -> {}", quoted(&before), quoted(&status));
            self.detail(&format!("Allocation {name} status changed: {change}{why}"));
        }
    }

    /// Tells how an evaluation ended; false if something was not placed.
    fn finished(&self, eval: &Value) -> bool {
        let failures = eval.entries("FailedTGAllocs");
        let end = format!(
            "Evaluation {} finished with status {}",
            self.short(eval.text("ID")),
            quoted(eval.text("Status"))
        );
        if failures.is_empty() {
            self.info(&end);
            return true;
        }
        self.info(&format!("{end} but failed to place all allocations:"));
        for (group, metric) in failures {
            self.detail(&metrics::failed_heading(group, metric));
            for line in metrics::lines(metric, false, "      ") {
                self.context.out.line(line);
            }
        }
        if !eval.text("BlockedEval").is_empty() {
            let blocked = self.short(eval.text("BlockedEval"));
            self.detail(&format!("Evaluation {blocked} waiting for additional capacity to place remainder"));
        }
        false
    }

    /// Follows a deployment until it ends, and gives its last status. `separator` is the line before each block.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn deployment(&self, id: &str, wait: Option<&str>, separator: &str) -> Result<String, Failure> {
        let mut frame = Frame::default();
        let mut followed = id.to_owned();
        let mut index = 0_u64;
        loop {
            let deployment = self.next_deployment(&followed, &mut index, wait, &mut frame).await?;
            let status = deployment.text("Status").to_owned();
            let body = self.deployment_body(&deployment).await;
            if self.context.out.is_terminal() {
                frame.body = body;
                self.draw(&mut frame, &followed, &status);
            } else {
                self.context.out.line(format!("{separator}\n{}\n{body}", self.context.stamp()));
            }
            if !matches!(status.as_str(), "successful" | "failed" | "cancelled" | "blocked") {
                continue;
            }
            let reverts = deployment.entries("TaskGroups").iter().any(|(_, group)| group.flag("AutoRevert"));
            if status == "failed"
                && reverts
                && let Some(rollback) = self.rollback_of(&deployment).await
            {
                self.context.out.line("");
                frame = Frame::default();
                followed = rollback;
                index = 0;
                continue;
            }
            // The rollback of a failed deployment does not make it a success.
            return Ok(if followed == id { status } else { "failed".to_owned() });
        }
    }

    async fn next_deployment(
        &self,
        id: &str,
        index: &mut u64,
        wait: Option<&str>,
        frame: &mut Frame,
    ) -> Result<Value, Failure> {
        let path = format!("/v1/deployment/{id}");
        let at = index.to_string();
        let mut query = vec![("stale", "")];
        if *index > 0 {
            query.push(("index", at.as_str()));
            query.extend(wait.map(|wait| ("wait", wait)));
        }
        let ask = self.client.get(&path, &query);
        tokio::pin!(ask);
        let mut ticks = tokio::time::interval(REDRAW);
        let answer = loop {
            tokio::select! {
                answer = &mut ask => break answer,
                _ = ticks.tick() => {
                    if self.context.out.is_terminal() && !frame.body.is_empty() {
                        self.draw(frame, id, "running");
                    }
                }
            }
        };
        let answer = answer.map_err(|why| {
            Failure::from(format!("{}: Error fetching deployment: {why}", self.context.stamp()))
        })?;
        if answer.index <= *index {
            tokio::time::sleep(POLL).await;
        }
        *index = answer.index;
        Ok(answer.value)
    }

    async fn deployment_body(&self, deployment: &Value) -> String {
        let mut body = tables::deployment(deployment, self.verbose);
        if self.verbose {
            let path = format!("/v1/deployment/allocations/{}", deployment.text("ID"));
            let allocs = self.client.get(&path, &[]).await.map(|answer| answer.value).unwrap_or_default();
            let table = tables::allocations(rows(&allocs), self.context.now(), true);
            body.push_str(&format!("\n\nAllocations\n{table}"));
        }
        body
    }

    /// The deployment that undoes a failed one, if there is any after a second.
    async fn rollback_of(&self, failed: &Value) -> Option<String> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let client = self.client.in_namespace(failed.text("Namespace"));
        let path = super::resolve::job_path(failed.text("JobID"), "/deployment");
        let latest = client.get(&path, &[]).await.ok()?.value;
        let id = latest.text("ID");
        (!id.is_empty() && id != failed.text("ID")).then(|| id.to_owned())
    }

    /// Draws the frame over the one before it.
    fn draw(&self, frame: &mut Frame, deployment: &str, status: &str) {
        let name = self.short(deployment);
        let first = match status {
            "successful" => format!("✓ Deployment {name} successful"),
            "failed" | "cancelled" | "blocked" => format!("! Deployment {name} {status}"),
            _ => format!("{} Deployment {name} in progress...", SPINNER[frame.turn % SPINNER.len()]),
        };
        frame.turn += 1;
        let mut text = String::new();
        if frame.lines > 0 {
            text.push_str(&format!("\x1b[{}A\x1b[J", frame.lines));
        }
        text.push_str(&format!("  {first}\n    \n    {}\n", self.context.stamp()));
        for line in frame.body.lines() {
            text.push_str(&format!("    {line}\n"));
        }
        frame.lines = frame.body.lines().count() + 3;
        self.context.out.raw(text.as_bytes());
    }
}

/// What was printed about an evaluation so far.
#[derive(Default)]
struct Seen {
    node: bool,
    job: bool,
    deployment: bool,
    status: String,
    /// Client status by allocation.
    allocs: BTreeMap<String, String>,
}

/// What stands on a terminal.
#[derive(Default)]
struct Frame {
    body: String,
    lines: usize,
    turn: usize,
}

/// Follows an evaluation on behalf of a command.
///
/// # Errors
/// Those of [`Monitor::evaluation`].
pub async fn follow(context: &Context, client: &Client, eval_id: &str, verbose: bool) -> Outcome {
    Monitor::new(context, client, verbose).evaluation(eval_id).await
}
