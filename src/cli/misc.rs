//! `version`, `system gc`, `ui`

use serde_json::Value;

use super::agent::COMPATIBLE;
use super::context::Context;
use super::context::Outcome;
use super::format::quoted;
use super::registry::Run;
use super::view::View;
use crate::client::escape;

/// What `version` prints. Scripts that call the program `nomad` look for Nomad's line.
pub fn version_text(program: &str) -> String {
    let own = env!("CARGO_PKG_VERSION");
    if program == "nomad" {
        format!("Nomad v{COMPATIBLE}\nHerder v{own}")
    } else {
        format!("Herder v{own}\nCompatible with Nomad v{COMPATIBLE}")
    }
}

/// Prints the version.
#[derive(clap::Args, Clone, Debug)]
pub struct Version {
    /// Arguments are ignored.
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for Version {
    async fn run(self, context: &Context) -> Outcome {
        context.out.line(version_text(&context.program));
        Ok(0)
    }
}

/// Removes what is done and old.
#[derive(clap::Args, Clone, Debug)]
pub struct SystemGc {
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for SystemGc {
    async fn run(self, context: &Context) -> Outcome {
        Context::expect_args(&self.args, 0, "")?;
        let client = context.client().await?;
        client
            .put("/v1/system/gc", &[], &Value::Null)
            .await
            .map_err(|why| format!("Error running system garbage-collection: {why}"))?;
        Ok(0)
    }
}

/// Shows where the web interface is.
#[derive(clap::Args, Clone, Debug)]
pub struct Ui {
    /// Accepted: the address is always shown.
    #[arg(long)]
    show_url: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for Ui {
    async fn run(self, context: &Context) -> Outcome {
        let client = context.client().await?;
        let base = format!("{}/ui/", client.address());
        let path = match self.args.as_slice() {
            [] => String::new(),
            [id] => {
                let request = serde_json::json!({ "Prefix": id, "Context": "all" });
                let answer = client.put("/v1/search", &[], &request).await;
                let found =
                    answer.map_err(|why| format!("Error querying search with id: {}: {why}", quoted(id)))?;
                path_of(found.value.field("Matches"), id)
                    .ok_or_else(|| format!("Unable to resolve ID: {}", quoted(id)))?
            }
            _ => {
                return Err(super::context::Failure::usage(
                    "This command takes no or one optional argument, [<identifier>]",
                ));
            }
        };
        let mut query = Vec::new();
        query.extend(client.namespace().map(|namespace| format!("namespace={}", escape(namespace))));
        query.extend(client.region().map(|region| format!("region={}", escape(region))));
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        context.out.line(format!("URL for web UI: {base}{path}{query}"));
        Ok(0)
    }
}

fn path_of(matches: &Value, id: &str) -> Option<String> {
    for (context, path) in [("jobs", "jobs"), ("allocs", "allocations"), ("nodes", "clients")] {
        let ids = matches.texts(context);
        let found = ids.iter().find(|one| *one == id).or(ids.first().filter(|_| ids.len() == 1));
        if let Some(found) = found {
            return Some(format!("{path}/{}", escape(found)));
        }
    }
    None
}
