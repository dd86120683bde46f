//! `node eligibility`

use serde_json::json;

use super::find;
use crate::cli::context::Context;
use crate::cli::context::Failure;
use crate::cli::context::Outcome;
use crate::cli::format::quoted;
use crate::cli::registry::Run;
use crate::cli::view::View;

/// Lets a node get new work, or not.
#[derive(clap::Args, Clone, Debug)]
pub struct NodeEligibility {
    /// The node may get work.
    #[arg(long)]
    enable: bool,
    /// The node gets no further work.
    #[arg(long)]
    disable: bool,
    /// The node of the agent that is asked.
    #[arg(long = "self")]
    own: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for NodeEligibility {
    async fn run(self, context: &Context) -> Outcome {
        if self.enable == self.disable {
            return Err(Failure::usage("Either the '-enable' or '-disable' flag must be set"));
        }
        let (node, _) = find(context, &self.args, self.own, false).await?;
        let id = node.text("ID");
        let word = if self.enable { "eligible" } else { "ineligible" };
        let request = json!({ "NodeID": id, "Eligibility": word });
        let client = context.client().await?;
        let sent = client.put(&format!("/v1/node/{id}/eligibility"), &[], &request).await;
        sent.map_err(|why| format!("Error updating scheduling eligibility: {why}"))?;
        context.out.line(format!("Node {} scheduling eligibility set: {word} for scheduling", quoted(id)));
        Ok(0)
    }
}
