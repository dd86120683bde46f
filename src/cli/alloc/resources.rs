//! What a task was given and what it uses.

use serde_json::Value;

use crate::cli::format;
use crate::cli::output::Table;
use crate::cli::view::View;

/// The `Task Resources` table. `usage` is the task's entry of the statistics, or null.
pub fn task(alloc: &Value, name: &str, usage: &Value) -> String {
    let (resources, shared) =
        (alloc.field("AllocatedResources"), alloc.field("AllocatedResources").field("Shared"));
    let granted = resources.field("Tasks").field(name);
    let cpu = granted.field("Cpu");
    let memory = granted.field("Memory");
    let cores = cpu.list("ReservedCores").len();
    let header = if cores > 0 { format!("CPU ({cores} cores)") } else { "CPU".to_owned() };
    let used = usage.field("ResourceUsage");
    let cpu_text = match used.get("CpuStats") {
        Some(stats) if !stats.is_null() => {
            format!("{:.0}/{} MHz", stats.float("TotalTicks").floor(), cpu.int("CpuShares"))
        }
        _ => format!("{} MHz", cpu.int("CpuShares")),
    };
    let limit = format::mebibytes(memory.int("MemoryMB"));
    let memory_text = match used.get("MemoryStats") {
        Some(stats) if !stats.is_null() => {
            let measured = stats.texts("Measured");
            let key = if measured.iter().any(|one| one == "RSS") || stats.int("Usage") == 0 {
                "RSS"
            } else {
                "Usage"
            };
            format!("{}/{limit}", format::size(stats.int(key)))
        }
        _ => limit,
    };
    let disk = format::mebibytes(shared.int("DiskMB"));
    let mut addresses = Vec::new();
    for network in granted.list("Networks") {
        let ports = network.list("DynamicPorts").iter().chain(network.list("ReservedPorts"));
        for port in ports {
            addresses.push(format!("{}: {}:{}", port.text("Label"), network.text("IP"), port.int("Value")));
        }
    }
    let mut table = Table::blank(&[&header, "Memory", "Disk", "Addresses"]);
    let first = addresses.first().cloned().unwrap_or_default();
    table.row([cpu_text, memory_text, disk, first]);
    let most = memory.int("MemoryMaxMB");
    let max = if most > 0 && most != memory.int("MemoryMB") {
        format!("Max: {}", format::mebibytes(most))
    } else {
        String::new()
    };
    let rest: Vec<String> = addresses.into_iter().skip(1).collect();
    if !max.is_empty() || !rest.is_empty() {
        let mut rest = rest.into_iter();
        table.row([String::new(), max, String::new(), rest.next().unwrap_or_default()]);
        for address in rest {
            table.row([String::new(), String::new(), String::new(), address]);
        }
    }
    table.render()
}

/// The statistics of `-stats`: only what the driver measures.
pub fn stats(usage: &Value) -> Vec<(&'static str, String)> {
    let used = usage.field("ResourceUsage");
    let mut found = Vec::new();
    for (title, block, key) in [("Memory Stats", "MemoryStats", "memory"), ("CPU Stats", "CpuStats", "cpu")] {
        let values = used.field(block);
        let mut measured = values.texts("Measured");
        measured.sort();
        if measured.is_empty() {
            continue;
        }
        let names: Vec<&str> = measured.iter().map(String::as_str).collect();
        let mut table = Table::new(&names);
        table.row(measured.iter().map(|name| shown(values, name, key)));
        found.push((title, table.render()));
    }
    found
}

fn shown(values: &Value, measured: &str, kind: &str) -> String {
    let field: String = measured.split(' ').collect();
    match (kind, field.as_str()) {
        ("memory", _) => format::size(values.int(&field)),
        (_, "ThrottledPeriods" | "ThrottledTime") => values.int(&field).to_string(),
        _ => format!("{:.2}%", values.float(&field)),
    }
}
