//! `server members`

use serde_json::Value;

use super::context::Context;
use super::context::Outcome;
use super::output::Table;
use super::present::Format;
use super::registry::Run;
use super::view::View;

/// Lists the servers.
#[derive(clap::Args, Clone, Debug)]
pub struct ServerMembers {
    /// Show tags too.
    #[arg(long, alias = "detailed")]
    verbose: bool,
    #[command(flatten)]
    format: Format,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for ServerMembers {
    async fn run(self, context: &Context) -> Outcome {
        Context::expect_args(&self.args, 0, "")?;
        let client = context.client().await?;
        let answer = client.get("/v1/agent/members", &[]).await;
        let answer = answer.map_err(|why| format!("Error querying servers: {why}"))?.value;
        let mut members = answer.list("Members").to_vec();
        members
            .sort_by_key(|member| (tag(member, "region"), tag(member, "dc"), member.text("Name").to_owned()));
        let leader = client.get("/v1/status/leader", &[]).await;
        let known = leader.as_ref().ok().and_then(|answer| answer.value.as_str()).unwrap_or_default();
        let leads = |member: &Value| {
            let address = tag(member, "rpc_addr");
            let host = if address.is_empty() { member.text("Addr").to_owned() } else { address };
            let port = tag(member, "port");
            !known.is_empty() && (known == format!("{host}:{port}") || known == format!("[{host}]:{port}"))
        };
        if self.format.is_asked() {
            for member in &mut members {
                let word = leads(member).to_string();
                member["Tags"]["Leader"] = word.into();
            }
            self.format.print(context.out, &Value::Array(members))?;
            return Ok(0);
        }
        let mut table = if self.verbose {
            Table::blank(&[
                "Name",
                "Address",
                "Port",
                "Status",
                "Leader",
                "Protocol",
                "Raft Version",
                "Build",
                "Datacenter",
                "Region",
                "Tags",
            ])
        } else {
            Table::blank(&[
                "Name",
                "Address",
                "Port",
                "Status",
                "Leader",
                "Raft Version",
                "Build",
                "Datacenter",
                "Region",
            ])
        };
        for member in &members {
            table.row(row(member, leads(member), self.verbose));
        }
        context.out.line(table.render());
        if let Err(why) = leader {
            context.out.line("");
            context.out.error(format!("Error determining leaders: {why}"));
        }
        Ok(0)
    }
}

fn tag(member: &Value, name: &str) -> String {
    member.field("Tags").text(name).to_owned()
}

fn row(member: &Value, leads: bool, verbose: bool) -> Vec<String> {
    let mut row = vec![
        member.text("Name").to_owned(),
        member.text("Addr").to_owned(),
        member.int("Port").to_string(),
        member.text("Status").to_owned(),
        leads.to_string(),
    ];
    if verbose {
        row.push(member.int("ProtocolCur").to_string());
    }
    row.extend([tag(member, "raft_vsn"), tag(member, "build"), tag(member, "dc"), tag(member, "region")]);
    if verbose {
        let tags = member.entries("Tags");
        let pairs: Vec<String> = tags
            .into_iter()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect();
        row.push(pairs.join(","));
    }
    row
}
