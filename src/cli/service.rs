//! `service …`

use serde_json::Value;

use super::context::Context;
use super::context::Outcome;
use super::eval::paginated;
use super::format::id;
use super::format::quoted;
use super::output::Pairs;
use super::output::Table;
use super::present::Format;
use super::registry::Run;
use super::view::View;
use super::view::rows;
use crate::client::escape;

/// Lists the names of registered services.
#[derive(clap::Args, Clone, Debug)]
pub struct ListServices {
    #[command(flatten)]
    format: Format,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for ListServices {
    async fn run(self, context: &Context) -> Outcome {
        Context::expect_args(&self.args, 0, "")?;
        let client = context.client().await?;
        let answer = client.get("/v1/services", &[]).await;
        let list = answer.map_err(|why| format!("Error listing service registrations: {why}"))?.value;
        if self.format.print(context.out, &list)? {
            return Ok(0);
        }
        let all = client.namespace() == Some("*");
        let header: &[&str] =
            if all { &["Service Name", "Namespace", "Tags"] } else { &["Service Name", "Tags"] };
        let mut found: Vec<(String, String, String)> = Vec::new();
        for namespace in rows(&list) {
            for service in namespace.list("Services") {
                let tags = format!("[{}]", sorted_tags(service));
                found.push((
                    service.text("ServiceName").to_owned(),
                    namespace.text("Namespace").to_owned(),
                    tags,
                ));
            }
        }
        if found.is_empty() {
            context.out.line("No service registrations found");
            return Ok(0);
        }
        found.sort();
        let mut table = Table::new(header);
        for (name, namespace, tags) in found {
            table.row(if all { vec![name, namespace, tags] } else { vec![name, tags] });
        }
        context.out.line(table.render());
        Ok(0)
    }
}

fn sorted_tags(service: &Value) -> String {
    let mut tags = service.texts("Tags");
    tags.sort();
    tags.join(",")
}

/// Shows the registrations of one service.
#[derive(clap::Args, Clone, Debug)]
pub struct ServiceInfo {
    /// Show all fields.
    #[arg(long)]
    verbose: bool,
    /// The most rows to show.
    #[arg(long, value_name = "count")]
    per_page: Option<u64>,
    /// Where to go on.
    #[arg(long, value_name = "token")]
    page_token: Option<String>,
    /// Only those that this expression selects.
    #[arg(long, value_name = "expression")]
    filter: Option<String>,
    #[command(flatten)]
    format: Format,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for ServiceInfo {
    async fn run(self, context: &Context) -> Outcome {
        Context::expect_args(&self.args, 1, "<service_name>")?;
        let client = context.client().await?;
        let per_page = self.per_page.map(|count| count.to_string());
        let mut query = Vec::new();
        for (name, value) in
            [("per_page", &per_page), ("next_token", &self.page_token), ("filter", &self.filter)]
        {
            query.extend(value.as_deref().map(|value| (name, value)));
        }
        let answer = client.get(&format!("/v1/service/{}", escape(&self.args[0])), &query).await;
        let answer = answer.map_err(|why| format!("Error listing service registrations: {why}"))?;
        let found = rows(&answer.value);
        if found.is_empty() {
            return Err(format!("No service registrations found for {}", quoted(&self.args[0])).into());
        }
        if self.format.print(context.out, &answer.value)? {
            return Ok(0);
        }
        if self.verbose {
            for service in found {
                context.out.line(format!("{}\n", block(service)));
            }
        } else {
            let mut table = Table::new(&["Job ID", "Address", "Tags", "Node ID", "Alloc ID"]);
            for service in found {
                table.row([
                    service.text("JobID").to_owned(),
                    address(service),
                    format!("[{}]", sorted_tags(service)),
                    id(service.text("NodeID"), false),
                    id(service.text("AllocID"), false),
                ]);
            }
            context.out.line(table.render());
        }
        paginated(context, answer.next_token.as_deref());
        Ok(0)
    }
}

/// `host:port`, or the host alone for a service without port.
fn address(service: &Value) -> String {
    let (host, port) = (service.text("Address"), service.int("Port"));
    match (port, host.contains(':')) {
        (0, _) => host.to_owned(),
        (port, true) => format!("[{host}]:{port}"),
        (port, false) => format!("{host}:{port}"),
    }
}

fn block(service: &Value) -> String {
    let mut pairs = Pairs::new();
    for (key, field) in [
        ("ID", "ID"),
        ("Service Name", "ServiceName"),
        ("Namespace", "Namespace"),
        ("Job ID", "JobID"),
        ("Alloc ID", "AllocID"),
        ("Node ID", "NodeID"),
        ("Datacenter", "Datacenter"),
    ] {
        pairs.add(key, service.text(field));
    }
    pairs.add("Address", address(service));
    pairs.add("Tags", format!("[{}]", sorted_tags(service)));
    pairs.render()
}
