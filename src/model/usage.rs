//! What tasks and machines use, in the spelling of Nomad's statistics.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Serialize;

use super::time::Time;

/// Memory, bytes. Only the fields that `measured` names mean anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MemoryStats {
    #[serde(rename = "RSS")]
    pub rss: u64,
    pub cache: u64,
    pub swap: u64,
    pub usage: u64,
    pub max_usage: u64,
    pub kernel_usage: u64,
    pub kernel_max_usage: u64,
    pub measured: BTreeSet<&'static str>,
}

/// Processor time. Only the fields that `measured` names mean anything, and the ticks.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CpuStats {
    /// Percent of one core.
    pub system_mode: f64,
    /// Percent of one core.
    pub user_mode: f64,
    /// MHz.
    pub total_ticks: f64,
    pub throttled_periods: u64,
    /// Nanoseconds.
    pub throttled_time: u64,
    /// Of one core; two busy cores are 200.
    pub percent: f64,
    pub measured: BTreeSet<&'static str>,
}

/// Both.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ResourceUsage {
    pub memory_stats: MemoryStats,
    pub cpu_stats: CpuStats,
    /// Nothing counts devices yet.
    pub device_stats: [(); 0],
}

/// What one task uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskUsage {
    pub resource_usage: ResourceUsage,
    /// Nanoseconds since the epoch.
    pub timestamp: i64,
    /// By process, where the driver knows them.
    pub pids: Option<BTreeMap<String, ResourceUsage>>,
    /// MHz times seconds; for metrics.
    #[serde(skip)]
    pub ticks_since_start: f64,
}

/// What an allocation uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AllocUsage {
    /// The sum over its tasks.
    pub resource_usage: ResourceUsage,
    pub tasks: BTreeMap<String, TaskUsage>,
    /// Nanoseconds since the epoch.
    pub timestamp: i64,
}

impl AllocUsage {
    /// The usage of these tasks and their sum.
    pub fn of(tasks: BTreeMap<String, TaskUsage>, now: Time) -> Self {
        let mut sum = ResourceUsage::default();
        for task in tasks.values() {
            sum.add(&task.resource_usage);
        }
        Self { resource_usage: sum, tasks, timestamp: now.0 }
    }
}

impl ResourceUsage {
    fn add(&mut self, other: &Self) {
        let (memory, more) = (&mut self.memory_stats, &other.memory_stats);
        memory.rss += more.rss;
        memory.cache += more.cache;
        memory.swap += more.swap;
        memory.usage += more.usage;
        memory.max_usage += more.max_usage;
        memory.kernel_usage += more.kernel_usage;
        memory.kernel_max_usage += more.kernel_max_usage;
        memory.measured.extend(&more.measured);
        let (cpu, more) = (&mut self.cpu_stats, &other.cpu_stats);
        cpu.system_mode += more.system_mode;
        cpu.user_mode += more.user_mode;
        cpu.total_ticks += more.total_ticks;
        cpu.throttled_periods += more.throttled_periods;
        cpu.throttled_time += more.throttled_time;
        cpu.percent += more.percent;
        cpu.measured.extend(&more.measured);
    }
}

/// Memory of a machine, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HostMemory {
    pub total: u64,
    /// What new programs could have.
    pub available: u64,
    pub used: u64,
    pub free: u64,
}

/// A core of a machine, percent of its time.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HostCpu {
    /// `cpu0`.
    #[serde(rename = "CPU")]
    pub cpu: String,
    pub user: f64,
    pub system: f64,
    pub idle: f64,
    pub total_percent: f64,
    /// MHz.
    pub total_ticks: f64,
    /// MHz times seconds; for metrics.
    #[serde(skip)]
    pub ticks_since_boot: f64,
}

/// A disk of a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HostDisk {
    pub device: String,
    pub mountpoint: String,
    /// Bytes.
    pub size: u64,
    /// Bytes.
    pub used: u64,
    /// Bytes that users without privileges can have.
    pub available: u64,
    pub used_percent: f64,
    pub inodes_used_percent: f64,
}

/// What a machine uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HostUsage {
    #[serde(rename = "Memory")]
    pub memory: HostMemory,
    #[serde(rename = "CPU")]
    pub cpu: Vec<HostCpu>,
    #[serde(rename = "DiskStats")]
    pub disks: Vec<HostDisk>,
    /// The disk that allocations are on.
    #[serde(rename = "AllocDirStats")]
    pub alloc_dir: Option<HostDisk>,
    #[serde(rename = "DeviceStats")]
    pub devices: [(); 0],
    /// Seconds.
    #[serde(rename = "Uptime")]
    pub uptime: u64,
    /// Nanoseconds since the epoch.
    #[serde(rename = "Timestamp")]
    pub timestamp: i64,
    /// MHz, of all cores.
    #[serde(rename = "CPUTicksConsumed")]
    pub ticks: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_uses_what_its_tasks_use() {
        let task = |rss, percent, measured| {
            let mut task = TaskUsage::default();
            task.resource_usage.memory_stats.rss = rss;
            task.resource_usage.memory_stats.measured = BTreeSet::from([measured]);
            task.resource_usage.cpu_stats.percent = percent;
            task
        };
        let tasks =
            BTreeMap::from([("a".to_owned(), task(5, 1.5, "RSS")), ("b".to_owned(), task(7, 20.0, "Usage"))]);
        let sum = AllocUsage::of(tasks, Time(9));
        assert_eq!(sum.resource_usage.memory_stats.rss, 12);
        assert_eq!(sum.resource_usage.cpu_stats.percent, 21.5);
        let wire = serde_json::to_value(&sum).unwrap();
        assert_eq!(wire["ResourceUsage"]["MemoryStats"]["Measured"], serde_json::json!(["RSS", "Usage"]));
        assert_eq!(wire["Tasks"]["a"]["Pids"], serde_json::Value::Null);
        assert_eq!(wire["ResourceUsage"]["DeviceStats"], serde_json::json!([]));
    }
}
