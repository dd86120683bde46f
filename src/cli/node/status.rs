//! `node status`

use serde_json::Value;

use super::find;
use crate::cli::context::Context;
use crate::cli::context::Failure;
use crate::cli::context::Outcome;
use crate::cli::eval::paginated;
use crate::cli::format;
use crate::cli::format::id;
use crate::cli::output::Pairs;
use crate::cli::output::Table;
use crate::cli::present::Format;
use crate::cli::registry::Run;
use crate::cli::tables;
use crate::cli::view::View;
use crate::cli::view::rows;
use crate::client::Client;
use crate::model::time::Span;

/// Shows nodes, or one of them.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct NodeStatus {
    /// The node of the agent that is asked.
    #[arg(long = "self")]
    own: bool,
    /// Show detailed resource statistics.
    #[arg(long)]
    stats: bool,
    /// In the list: count running allocations.
    #[arg(long)]
    allocs: bool,
    /// Only the most important.
    #[arg(long)]
    short: bool,
    /// Show full ids and everything that is known.
    #[arg(long)]
    pub verbose: bool,
    /// In the list: show operating systems.
    #[arg(long)]
    os: bool,
    /// In the list: ids only.
    #[arg(long)]
    quiet: bool,
    /// Only those that this expression selects.
    #[arg(long, value_name = "expression")]
    filter: Option<String>,
    /// The most rows to show.
    #[arg(long, value_name = "count")]
    per_page: Option<u64>,
    /// Where to go on.
    #[arg(long, value_name = "token")]
    page_token: Option<String>,
    #[command(flatten)]
    format: Format,
    #[arg(hide = true)]
    pub args: Vec<String>,
}

impl NodeStatus {
    /// Shows the one object that `args` name.
    pub fn of(args: Vec<String>, verbose: bool) -> Self {
        Self { verbose, args, ..Self::default() }
    }
}

impl Run for NodeStatus {
    async fn run(self, context: &Context) -> Outcome {
        if self.args.len() > 1 {
            return Err(Failure::usage("This command takes either one or no arguments"));
        }
        let client = context.client().await?;
        if self.args.is_empty() && !self.own {
            return self.list(context, client).await;
        }
        let (node, _) = find(context, &self.args, self.own, self.verbose).await?;
        if self.format.print(context.out, &node)? {
            return Ok(0);
        }
        self.one(context, client, &node).await
    }
}

impl NodeStatus {
    async fn list(&self, context: &Context, client: &Client) -> Outcome {
        if self.quiet && (self.verbose || self.format.json) {
            return Err("-quiet cannot be used with -verbose or -json".into());
        }
        let per_page = self.per_page.map(|count| count.to_string());
        let mut query = Vec::new();
        for (name, value) in
            [("per_page", &per_page), ("next_token", &self.page_token), ("filter", &self.filter)]
        {
            query.extend(value.as_deref().map(|value| (name, value)));
        }
        if self.os {
            query.push(("os", "true"));
        }
        let answer = client.get("/v1/nodes", &query).await;
        let answer = answer.map_err(|why| format!("Error querying node status: {why}"))?;
        if self.format.print(context.out, &answer.value)? {
            return Ok(0);
        }
        let nodes = rows(&answer.value);
        if nodes.is_empty() {
            context.out.line("No nodes registered");
            return Ok(0);
        }
        if self.quiet {
            let ids: Vec<&str> = nodes.iter().map(|node| node.text("ID")).collect();
            context.out.line(ids.join("\n"));
            return Ok(0);
        }
        let mut header = vec!["ID", "Node Pool", "DC", "Name", "Class"];
        if self.os {
            header.push("OS");
        }
        if self.verbose {
            header.extend(["Address", "Version"]);
        }
        header.extend(["Drain", "Eligibility", "Status"]);
        if self.allocs {
            header.push("Running Allocs");
        }
        let mut table = Table::new(&header);
        for node in nodes {
            let mut row = vec![id(node.text("ID"), self.verbose)];
            row.extend(["NodePool", "Datacenter", "Name", "NodeClass"].map(|key| node.text(key).to_owned()));
            if self.os {
                row.push(node.field("Attributes").text("os.name").to_owned());
            }
            if self.verbose {
                row.extend([node.text("Address").to_owned(), node.text("Version").to_owned()]);
            }
            row.push(node.flag("Drain").to_string());
            row.push(node.text("SchedulingEligibility").to_owned());
            row.push(node.text("Status").to_owned());
            if self.allocs {
                let list = self.allocations(client, node.text("ID")).await?;
                row.push(rows(&list).iter().filter(|alloc| is_running(alloc)).count().to_string());
            }
            table.row(row);
        }
        context.out.line(table.render());
        paginated(context, answer.next_token.as_deref());
        Ok(0)
    }

    async fn allocations(&self, client: &Client, node: &str) -> Result<Value, Failure> {
        let answer = client.get(&format!("/v1/node/{node}/allocations"), &[]).await;
        Ok(answer.map_err(|why| format!("Error querying node allocations: {why}"))?.value)
    }

    async fn one(&self, context: &Context, client: &Client, node: &Value) -> Outcome {
        let out = context.out;
        let allocs = self.allocations(client, node.text("ID")).await?;
        let allocs = rows(&allocs);
        let stats = if self.short {
            None
        } else {
            let query = [("node_id", node.text("ID"))];
            client.get("/v1/client/stats", &query).await.ok().map(|answer| answer.value)
        };
        out.line(self.block(node, stats.as_ref()));
        if self.short {
            out.heading("Allocations");
            out.line(tables::allocations(allocs, context.now(), self.verbose));
            return Ok(0);
        }
        if self.verbose {
            self.details(context, node);
        }
        out.heading("Node Events");
        out.line(self.events(node));
        out.heading("Allocated Resources");
        out.line(allocated(node, allocs));
        if let Some(table) = self.utilisation(client, node, allocs).await {
            out.heading("Allocation Resource Utilization");
            out.line(table);
        }
        match &stats {
            Some(stats) => {
                out.heading("Host Resource Utilization");
                out.line(host(node, stats));
                if self.stats {
                    host_stats(context, stats);
                }
            }
            None => {
                out.line("");
                out.error("error fetching node stats: actual resource usage not present");
            }
        }
        out.heading("Allocations");
        out.line(tables::allocations(allocs, context.now(), self.verbose));
        if self.verbose {
            for (heading, key) in [("Attributes", "Attributes"), ("Meta", "Meta")] {
                let mut pairs = Pairs::new();
                for (name, value) in node.entries(key) {
                    pairs.add(name, value.as_str().unwrap_or_default());
                }
                out.heading(heading);
                out.line(pairs.render());
            }
        }
        Ok(0)
    }

    fn block(&self, node: &Value, stats: Option<&Value>) -> String {
        let mut pairs = Pairs::new();
        pairs.add("ID", node.text("ID"));
        pairs.add("Name", node.text("Name"));
        pairs.add("Node Pool", node.text("NodePool"));
        pairs.add("Class", node.text("NodeClass"));
        pairs.add("DC", node.text("Datacenter"));
        pairs.add("Drain", drain(node));
        pairs.add("Eligibility", node.text("SchedulingEligibility"));
        pairs.add("Status", node.text("Status"));
        pairs.add("CSI Controllers", names(node, "CSIControllerPlugins"));
        pairs.add("CSI Drivers", names(node, "CSINodePlugins"));
        if let Some(stats) = stats {
            pairs.add("Uptime", Span::from_secs(stats.int("Uptime")).to_string());
        }
        if self.short {
            pairs.add("Drivers", drivers(node));
        } else if !self.verbose {
            pairs.add("Host Volumes", names(node, "HostVolumes"));
            pairs.add("Host Networks", names(node, "HostNetworks"));
            pairs.add("CSI Volumes", "");
            pairs.add("Driver Status", drivers(node));
        }
        pairs.render()
    }

    fn details(&self, context: &Context, node: &Value) {
        let out = context.out;
        let volumes = node.entries("HostVolumes");
        if !volumes.is_empty() {
            let mut table = Table::new(&["Name", "ReadOnly", "Source"]);
            for (name, volume) in volumes {
                table.row([
                    name.to_owned(),
                    volume.flag("ReadOnly").to_string(),
                    volume.text("Path").to_owned(),
                ]);
            }
            out.heading("Host Volumes");
            out.line(table.render());
        }
        let networks = node.entries("HostNetworks");
        if !networks.is_empty() {
            let mut table = Table::new(&["Name", "CIDR", "Interface", "ReservedPorts"]);
            for (name, network) in networks {
                table.row([
                    name,
                    network.text("CIDR"),
                    network.text("Interface"),
                    network.text("ReservedPorts"),
                ]);
            }
            out.heading("Host Networks");
            out.line(table.render());
        }
        let mut table = Table::new(&["Driver", "Detected", "Healthy", "Message", "Time"]);
        for (name, driver) in node.entries("Drivers") {
            table.row([
                name.to_owned(),
                driver.flag("Detected").to_string(),
                driver.flag("Healthy").to_string(),
                driver.text("HealthDescription").to_owned(),
                format::time(format::parse_time(driver.field("UpdateTime"))),
            ]);
        }
        out.heading("Drivers");
        out.line(table.render());
    }

    fn events(&self, node: &Value) -> String {
        let mut table = if self.verbose {
            Table::new(&["Time", "Subsystem", "Message", "Details"])
        } else {
            Table::new(&["Time", "Subsystem", "Message"])
        };
        for event in node.list("Events").iter().rev() {
            let details = event.field("Details");
            let subsystem = match details.text("driver") {
                driver if !driver.is_empty() && event.text("Subsystem") == "Driver" => {
                    format!("Driver: {driver}")
                }
                _ => event.text("Subsystem").to_owned(),
            };
            let at = format::parse_time(event.field("Timestamp"));
            let mut row = vec![format::time(at), subsystem, event.text("Message").to_owned()];
            if self.verbose {
                let pairs: Vec<String> = event
                    .entries("Details")
                    .into_iter()
                    .map(|(key, value)| format!("{key} = {}", value.as_str().unwrap_or_default()))
                    .collect();
                row.push(pairs.join(", "));
            }
            table.row(row);
        }
        table.render()
    }

    /// What the running allocations use, as their agent measures it.
    async fn utilisation(&self, client: &Client, node: &Value, allocs: &[Value]) -> Option<String> {
        let (mut ticks, mut bytes) = (0.0, 0);
        // Measuring takes a moment, so all of them are asked at once.
        let asked = allocs.iter().filter(|alloc| is_running(alloc)).map(|alloc| {
            let path = format!("/v1/client/allocation/{}/stats", alloc.text("ID"));
            async move { client.get(&path, &[]).await }
        });
        for answer in futures::future::join_all(asked).await.into_iter().flatten() {
            let usage = answer.value.field("ResourceUsage").clone();
            ticks += usage.field("CpuStats").float("TotalTicks");
            let memory = usage.field("MemoryStats");
            bytes += memory.int("RSS").max(memory.int("Usage"));
        }
        let (cpu, memory, _) = totals(node);
        let mut table = Table::new(&["CPU", "Memory"]);
        let used = format::size(bytes);
        table.row([format!("{ticks:.0}/{cpu} MHz"), format!("{used}/{}", format::mebibytes(memory))]);
        Some(table.render())
    }
}

fn is_running(alloc: &Value) -> bool {
    alloc.text("ClientStatus") == "running"
}

fn drain(node: &Value) -> String {
    let strategy = node.field("DrainStrategy");
    if strategy.is_null() {
        return node.flag("Drain").to_string();
    }
    let force = format::parse_time(strategy.field("ForceDeadline"));
    let kind = match strategy.int("Deadline") {
        negative if negative < 0 => "force drain".to_owned(),
        0 => "no deadline".to_owned(),
        _ => format!("{} deadline", format::time(force)),
    };
    let system = if strategy.flag("IgnoreSystemJobs") { "; ignoring system jobs" } else { "" };
    format!("true; {kind}{system}")
}

fn names(node: &Value, key: &str) -> String {
    node.entries(key).into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(",")
}

fn drivers(node: &Value) -> String {
    let detected = node.entries("Drivers").into_iter().filter(|(_, driver)| driver.flag("Detected"));
    let shown =
        detected.map(
            |(name, driver)| {
                if driver.flag("Healthy") { name.to_owned() } else { format!("{name} (unhealthy)") }
            },
        );
    shown.collect::<Vec<_>>().join(",")
}

/// MHz, MiB and MiB that jobs may have.
fn totals(node: &Value) -> (i64, i64, i64) {
    let (all, kept) = (node.field("NodeResources"), node.field("ReservedResources"));
    (
        all.field("Cpu").int("CpuShares") - kept.field("Cpu").int("CpuShares"),
        all.field("Memory").int("MemoryMB") - kept.field("Memory").int("MemoryMB"),
        all.field("Disk").int("DiskMB") - kept.field("Disk").int("DiskMB"),
    )
}

fn allocated(node: &Value, allocs: &[Value]) -> String {
    let (mut cpu, mut memory, mut disk) = (0, 0, 0);
    for alloc in allocs.iter().filter(|alloc| matches!(alloc.text("ClientStatus"), "running" | "pending")) {
        let resources = alloc.field("AllocatedResources");
        for (_, task) in resources.entries("Tasks") {
            cpu += task.field("Cpu").int("CpuShares");
            memory += task.field("Memory").int("MemoryMB");
        }
        disk += resources.field("Shared").int("DiskMB");
    }
    let (all_cpu, all_memory, all_disk) = totals(node);
    let mut table = Table::new(&["CPU", "Memory", "Disk"]);
    table.row([
        format!("{cpu}/{all_cpu} MHz"),
        format!("{}/{}", format::mebibytes(memory), format::mebibytes(all_memory)),
        format!("{}/{}", format::mebibytes(disk), format::mebibytes(all_disk)),
    ]);
    table.render()
}

fn host(node: &Value, stats: &Value) -> String {
    let memory = stats.field("Memory");
    let attributes = node.field("Attributes");
    let device = attributes.text("unique.storage.volume");
    let disk = stats.list("DiskStats").iter().find(|disk| disk.text("Device") == device);
    let disk = match disk {
        Some(disk) => format!("{}/{}", format::size(disk.int("Used")), format::size(disk.int("Size"))),
        None if device.is_empty() => String::new(),
        None => format!("({device})"),
    };
    let total = node.field("NodeResources").field("Cpu").int("CpuShares");
    let mut table = Table::new(&["CPU", "Memory", "Disk"]);
    table.row([
        format!("{:.0}/{total} MHz", stats.float("CPUTicksConsumed")),
        format!("{}/{}", format::size(memory.int("Used")), format::size(memory.int("Total"))),
        disk,
    ]);
    table.render()
}

fn host_stats(context: &Context, stats: &Value) {
    let out = context.out;
    let mut blocks = Vec::new();
    for cpu in stats.list("CPU") {
        let mut pairs = Pairs::new();
        pairs.add("CPU", cpu.text("CPU"));
        for key in ["User", "System", "Idle"] {
            pairs.add(key, format!("{:.2}%", cpu.float(key)));
        }
        blocks.push(pairs.render());
    }
    out.heading("CPU Stats");
    out.line(blocks.join("\n\n"));
    let mut pairs = Pairs::new();
    for key in ["Total", "Available", "Used", "Free"] {
        pairs.add(key, format::size(stats.field("Memory").int(key)));
    }
    out.heading("Memory Stats");
    out.line(pairs.render());
    let mut blocks = Vec::new();
    for disk in stats.list("DiskStats") {
        let mut pairs = Pairs::new();
        pairs.add("Device", disk.text("Device"));
        pairs.add("MountPoint", disk.text("Mountpoint"));
        for key in ["Size", "Used", "Available"] {
            pairs.add(key, format::size(disk.int(key)));
        }
        pairs.add("Used Percent", format!("{:.2}%", disk.float("UsedPercent")));
        pairs.add("Inodes Percent", format!("{:.2}%", disk.float("InodesUsedPercent")));
        blocks.push(pairs.render());
    }
    out.heading("Disk Stats");
    out.line(blocks.join("\n\n"));
}
