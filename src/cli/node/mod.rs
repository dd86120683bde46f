//! `node …`

pub mod drain;
pub mod eligibility;
pub mod status;

use serde_json::Value;

use super::context::Context;
use super::context::Failure;
use super::format::id;
use super::output::Table;
use super::resolve;
use super::resolve::Kind;
use super::view::View;
use crate::client::Client;

/// The table about several nodes with one prefix.
fn matches(nodes: &[Value], verbose: bool) -> String {
    let mut table = Table::new(&["ID", "DC", "Name", "Class", "Drain", "Eligibility", "Status"]);
    for node in nodes {
        table.row([
            id(node.text("ID"), verbose),
            node.text("Datacenter").to_owned(),
            node.text("Name").to_owned(),
            node.text("NodeClass").to_owned(),
            node.flag("Drain").to_string(),
            node.text("SchedulingEligibility").to_owned(),
            node.text("Status").to_owned(),
        ]);
    }
    table.render()
}

/// The id of this agent's own node.
async fn own_id(client: &Client) -> Result<String, Failure> {
    let answer = client.get("/v1/agent/self", &[]).await;
    let answer =
        answer.map_err(|why| format!("Error querying agent info: failed querying self endpoint: {why}"))?;
    let id = answer.value.field("stats").field("client").text("node_id");
    if id.is_empty() { Err("Nomad not running in client mode".into()) } else { Ok(id.to_owned()) }
}

/// The node of the argument, or this agent's own; read whole. Tells whether the id was complete.
async fn find(
    context: &Context,
    args: &[String],
    own: bool,
    verbose: bool,
) -> Result<(Value, bool), Failure> {
    let client = context.client().await?;
    let (full, exact) = if own {
        (own_id(client).await?, true)
    } else {
        Context::expect_args(args, 1, "<node>")?;
        let table = |many: &[Value]| matches(many, verbose);
        let stub = resolve::one(client, Kind::Node, &args[0], "Identifier", table).await?;
        (stub.text("ID").to_owned(), stub.text("ID") == args[0])
    };
    let answer = client.get(&format!("/v1/node/{full}"), &[]).await;
    Ok((answer.map_err(|why| format!("Error querying node info: {why}"))?.value, exact))
}
