//! `namespace …`

use serde_json::Value;

use super::context::Context;
use super::context::Failure;
use super::context::Outcome;
use super::format::quoted;
use super::output::Pairs;
use super::output::Table;
use super::present::Format;
use super::registry::Run;
use super::view::View;
use super::view::rows;

/// Lists namespaces.
#[derive(clap::Args, Clone, Debug)]
pub struct ListNamespaces {
    #[command(flatten)]
    format: Format,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for ListNamespaces {
    async fn run(self, context: &Context) -> Outcome {
        Context::expect_args(&self.args, 0, "")?;
        let client = context.client().await?;
        let answer = client.get("/v1/namespaces", &[]).await;
        let list = answer.map_err(|why| format!("Error retrieving namespaces: {why}"))?.value;
        if self.format.print(context.out, &list)? {
            return Ok(0);
        }
        context.out.line(table(rows(&list)));
        Ok(0)
    }
}

fn table(namespaces: &[Value]) -> String {
    let mut sorted: Vec<&Value> = namespaces.iter().collect();
    sorted.sort_by_key(|namespace| namespace.text("Name"));
    let mut table = Table::new(&["Name", "Description"]);
    for namespace in sorted {
        table.row([namespace.text("Name"), namespace.text("Description")]);
    }
    table.render()
}

/// Shows a namespace.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct NamespaceStatus {
    #[command(flatten)]
    format: Format,
    #[arg(hide = true)]
    pub args: Vec<String>,
}

impl NamespaceStatus {
    /// Shows the one object that `args` name.
    pub fn of(args: Vec<String>) -> Self {
        Self { args, ..Self::default() }
    }
}

impl Run for NamespaceStatus {
    async fn run(self, context: &Context) -> Outcome {
        Context::expect_args(&self.args, 1, "<namespace>")?;
        let client = context.client().await?;
        let wanted = &self.args[0];
        let answer = client.get("/v1/namespaces", &[("prefix", wanted)]).await;
        let list = answer.map_err(|why| format!("Error retrieving namespaces: {why}"))?.value;
        let found = rows(&list);
        let same = found.iter().find(|namespace| namespace.text("Name") == wanted);
        let namespace = match (same, found) {
            (Some(same), _) => same,
            (None, [one]) => one,
            (None, []) => return Err(format!("Namespace {} matched no namespaces", quoted(wanted)).into()),
            (None, many) => {
                return Err(Failure::from(format!("Prefix matched multiple namespaces\n\n{}", table(many))));
            }
        };
        if self.format.print(context.out, namespace)? {
            return Ok(0);
        }
        context.out.line(block(namespace));
        let meta = namespace.entries("Meta");
        if !meta.is_empty() {
            let mut pairs = Pairs::new();
            for (key, value) in meta {
                pairs.add(key, value.as_str().unwrap_or_default());
            }
            context.out.heading("Metadata");
            context.out.line(pairs.render());
        }
        Ok(0)
    }
}

fn block(namespace: &Value) -> String {
    let capabilities = namespace.field("Capabilities");
    let enabled = |key: &str| {
        let list = capabilities.texts(key).join(",");
        if list.is_empty() { "*".to_owned() } else { list }
    };
    let mut pairs = Pairs::new();
    pairs.add("Name", namespace.text("Name"));
    pairs.add("Description", namespace.text("Description"));
    pairs.add("Quota", namespace.text("Quota"));
    pairs.add("Enabled Drivers", enabled("EnabledTaskDrivers"));
    pairs.add("Disabled Drivers", capabilities.texts("DisabledTaskDrivers").join(","));
    pairs.add("Enabled Network Modes", enabled("EnabledNetworkModes"));
    pairs.add("Disabled Network Modes", capabilities.texts("DisabledNetworkModes").join(","));
    pairs.render()
}
