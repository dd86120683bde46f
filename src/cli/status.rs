//! `status`: finds out what an id names and shows that.

use serde_json::json;

use super::alloc::status::AllocStatus;
use super::context::Context;
use super::context::Outcome;
use super::deployment::DeploymentStatus;
use super::eval::EvalStatus;
use super::format::quoted;
use super::job::status::JobStatus;
use super::namespace::NamespaceStatus;
use super::node::status::NodeStatus;
use super::registry::Run;
use super::view::View;

/// Shows whatever an id names.
#[derive(clap::Args, Clone, Debug)]
pub struct Status {
    #[command(flatten)]
    job: JobStatus,
}

/// What can be shown: the context of the search, and its name in messages.
const CONTEXTS: [&str; 6] = ["evals", "nodes", "allocs", "jobs", "deployment", "namespaces"];

impl Run for Status {
    async fn run(self, context: &Context) -> Outcome {
        let [id] = self.job.args.as_slice() else { return self.job.run(context).await };
        let client = context.client().await?;
        let request = json!({ "Prefix": id, "Context": "all" });
        let answer = client.put("/v1/search", &[], &request).await;
        let answer = answer.map_err(|why| format!("Error querying search with id: {}: {why}", quoted(id)))?;
        let matches = answer.value.field("Matches").clone();
        let found: Vec<(&str, Vec<String>)> = CONTEXTS
            .iter()
            .map(|kind| (*kind, matches.texts(kind)))
            .filter(|(_, ids)| !ids.is_empty())
            .collect();
        let exact: Vec<&str> =
            found.iter().filter(|(_, ids)| ids.contains(id)).map(|(kind, _)| *kind).collect();
        let total: usize = found.iter().map(|(_, ids)| ids.len()).sum();
        let kind = match (exact.as_slice(), total) {
            ([kind], _) => *kind,
            (_, 0) => return Err(format!("Unable to resolve ID: {}", quoted(id)).into()),
            (_, 1) => found[0].0,
            _ => {
                let lists: Vec<String> = found
                    .iter()
                    .map(|(kind, ids)| format!("\n{}:\n{}", title(kind), ids.join(", ")))
                    .collect();
                let text = format!("Multiple matches found for id {}\n{}", quoted(id), lists.join("\n"));
                return Err(text.into());
            }
        };
        let args = self.job.args.clone();
        let verbose = self.job.verbose;
        match kind {
            "evals" => EvalStatus::of(args, verbose).run(context).await,
            "nodes" => NodeStatus::of(args, verbose).run(context).await,
            "allocs" => AllocStatus::of(args, verbose).run(context).await,
            "deployment" => DeploymentStatus::of(args, verbose).run(context).await,
            "namespaces" => NamespaceStatus::of(args).run(context).await,
            _ => self.job.run(context).await,
        }
    }
}

/// `jobs` as `Jobs`.
fn title(kind: &str) -> String {
    let (first, rest) = kind.split_at(1);
    format!("{}{rest}", first.to_uppercase())
}
