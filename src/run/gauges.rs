//! The figures of a node and of what runs on it, under the names that dashboards of Nomad ask for. They are gathered
//! when metrics are asked for, and never else.

use std::collections::BTreeMap;

use crate::agent::ledger::AllocRecord;
use crate::agent::ledger::TaskRecord;
use crate::model::allocation::TaskRunState;
use crate::model::job::Job;
use crate::model::node::NodeInfo;
use crate::model::resources::AllocatedTask;
use crate::model::usage::CpuStats;
use crate::model::usage::HostUsage;
use crate::model::usage::MemoryStats;
use crate::model::usage::TaskUsage;
use crate::telemetry::Figure;
use crate::telemetry::FigureKind;

/// Stands for a node without a class.
const NO_CLASS: &str = "none";
/// Bytes of a MiB.
const MIB: f64 = 1_048_576.0;

/// What the configuration says about metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Publish {
    pub(super) allocations: bool,
    pub(super) node: bool,
    /// Metadata of jobs become labels.
    pub(super) metadata: bool,
    /// Only these, unless there are none.
    pub(super) metadata_keys: Vec<String>,
}

/// Labels and the figures that bear them.
struct Labelled<'a> {
    labels: BTreeMap<String, String>,
    into: &'a mut Vec<Figure>,
}

impl Labelled<'_> {
    fn add(&mut self, kind: FigureKind, name: &str, value: f64) {
        let name = format!("nomad.client.{name}");
        self.into.push(Figure { name, kind, value, labels: self.labels.clone() });
    }

    fn gauge(&mut self, name: &str, value: f64) {
        self.add(FigureKind::Gauge, name, value);
    }

    fn counter(&mut self, name: &str, value: f64) {
        self.add(FigureKind::Counter, name, value);
    }

    /// The same figures with one more label.
    fn and(&mut self, name: &str, value: &str) -> Labelled<'_> {
        let mut labels = self.labels.clone();
        labels.insert(name.to_owned(), value.to_owned());
        Labelled { labels, into: self.into }
    }
}

/// Figures of the node: what is given away, and what stands where.
pub(super) fn node(info: &NodeInfo, eligibility: &str, status: &str, records: &[AllocRecord]) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut node = Labelled { labels: node_labels(info, eligibility, status), into: &mut figures };
    let (mut cpu, mut memory, mut disk) = (0, 0, 0);
    let mut places: BTreeMap<&str, usize> =
        ["blocked", "migrating", "pending", "running", "start", "terminal"].map(|name| (name, 0)).into();
    let mut tasks: BTreeMap<&str, usize> = ["pending", "running", "dead"].map(|name| (name, 0)).into();
    for record in records {
        *places.entry(place(record)).or_default() += 1;
        for task in record.tasks.values() {
            let state = match task.state.state {
                TaskRunState::Pending => "pending",
                TaskRunState::Running => "running",
                TaskRunState::Dead => "dead",
            };
            *tasks.entry(state).or_default() += 1;
        }
        if record.ended_at.is_never() {
            let granted = &record.allocation.resources;
            cpu += granted.tasks.values().map(|task| task.cpu.cpu_shares).sum::<i64>();
            memory += granted.tasks.values().map(|task| task.memory.memory_mb).sum::<i64>();
            disk += granted.shared.disk_mb;
        }
    }
    let (all, kept) = (&info.resources, &info.reserved);
    for (name, used, total) in [
        ("cpu", cpu, all.cpu.cpu_shares - kept.cpu.cpu_shares),
        ("memory", memory, all.memory.memory_mb - kept.memory.memory_mb),
        ("disk", disk, all.disk.disk_mb - kept.disk.disk_mb),
    ] {
        node.gauge(&format!("allocated.{name}"), used as f64);
        node.gauge(&format!("unallocated.{name}"), (total - used) as f64);
    }
    for (name, count) in places {
        node.gauge(&format!("allocations.{name}"), count as f64);
    }
    for (name, count) in tasks {
        node.gauge(&format!("tasks.{name}"), count as f64);
    }
    figures
}

/// Where an allocation stands on its node.
fn place(record: &AllocRecord) -> &'static str {
    let is = |state| record.tasks.values().any(|task| task.state.state == state);
    if !record.ended_at.is_never() {
        "terminal"
    } else if record.started_at.is_never() {
        // It waits for its predecessor, or for room.
        "blocked"
    } else if is(TaskRunState::Running) {
        "running"
    } else {
        "pending"
    }
}

/// Figures of the machine.
pub(super) fn host(info: &NodeInfo, eligibility: &str, status: &str, usage: &HostUsage) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut node = Labelled { labels: node_labels(info, eligibility, status), into: &mut figures };
    node.gauge("uptime", usage.uptime as f64);
    for (name, bytes) in [
        ("available", usage.memory.available),
        ("free", usage.memory.free),
        ("total", usage.memory.total),
        ("used", usage.memory.used),
    ] {
        node.gauge(&format!("host.memory.{name}"), bytes as f64);
    }
    for core in &usage.cpu {
        let mut labelled = node.and("cpu", &core.cpu);
        labelled.gauge("host.cpu.idle", core.idle);
        labelled.gauge("host.cpu.system", core.system);
        labelled.gauge("host.cpu.user", core.user);
        labelled.gauge("host.cpu.total_percent", core.total_percent);
        labelled.gauge("host.cpu.total_ticks", core.total_ticks);
        labelled.counter("host.cpu.total_ticks_count", core.ticks_since_boot);
    }
    for disk in &usage.disks {
        let mut labelled = node.and("disk", &disk.device);
        labelled.gauge("host.disk.available", disk.available as f64);
        labelled.gauge("host.disk.size", disk.size as f64);
        labelled.gauge("host.disk.used", disk.used as f64);
        labelled.gauge("host.disk.used_percent", disk.used_percent);
        labelled.gauge("host.disk.inodes_percent", disk.inodes_used_percent);
    }
    figures
}

fn node_labels(info: &NodeInfo, eligibility: &str, status: &str) -> BTreeMap<String, String> {
    let class = if info.node_class.is_empty() { NO_CLASS } else { &info.node_class };
    let labels = [
        ("datacenter", info.datacenter.as_str()),
        ("host", &info.name),
        ("node_class", class),
        ("node_id", &info.id.to_string()),
        ("node_pool", &info.node_pool),
        ("node_scheduling_eligibility", eligibility),
        ("node_status", status),
    ];
    labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// Figures of the tasks of one allocation. What they use is known for running ones only.
pub(super) fn alloc(
    host: &str,
    record: &AllocRecord,
    job: &Job,
    usage: &BTreeMap<String, TaskUsage>,
    publish: &Publish,
) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut alloc = Labelled { labels: alloc_labels(host, record, job, publish), into: &mut figures };
    for (name, task) in &record.tasks {
        let mut labelled = alloc.and("task", name);
        lifecycle(&mut labelled, record, task);
        if let Some(usage) = usage.get(name).filter(|_| publish.allocations) {
            let granted = record.allocation.resources.tasks.get(name).cloned().unwrap_or_default();
            cpu(&mut labelled, &granted, usage);
            memory(&mut labelled, &granted, &usage.resource_usage.memory_stats);
        }
    }
    figures
}

fn alloc_labels(host: &str, record: &AllocRecord, job: &Job, publish: &Publish) -> BTreeMap<String, String> {
    let allocation = &record.allocation;
    let labels = [
        ("alloc_id", allocation.id.to_string()),
        ("host", host.to_owned()),
        ("job", if job.name.is_empty() { allocation.job_id.to_string() } else { job.name.clone() }),
        ("namespace", allocation.namespace.to_string()),
        ("task_group", allocation.task_group.clone()),
    ];
    let mut labels: BTreeMap<String, String> =
        labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    if !job.parent_id.is_empty() {
        labels.insert("parent_id".to_owned(), job.parent_id.to_string());
        for (kind, label) in [("/dispatch-", "dispatch_id"), ("/periodic-", "periodic_id")] {
            if let Some((_, id)) = job.id.to_string().rsplit_once(kind) {
                labels.insert(label.to_owned(), id.to_owned());
            }
        }
    }
    if publish.metadata {
        let allowed = |key: &&String| publish.metadata_keys.is_empty() || publish.metadata_keys.contains(key);
        for key in job.meta.keys().filter(allowed) {
            labels.insert(key.replace('-', "_"), job.meta[key].clone());
        }
    }
    labels
}

fn lifecycle(task: &mut Labelled<'_>, alloc: &AllocRecord, record: &TaskRecord) {
    let ended = !alloc.ended_at.is_never();
    let killed = record
        .state
        .events
        .iter()
        .filter(|event| event.details.get("oom_killed").is_some_and(|killed| killed == "true"));
    task.counter("allocs.oom_killed", killed.count() as f64);
    task.counter("allocs.restart", record.state.restarts as f64);
    task.counter("allocs.running", record.run as f64);
    task.counter("allocs.complete", f64::from(u8::from(ended && !record.state.failed)));
    task.counter("allocs.failed", f64::from(u8::from(ended && record.state.failed)));
}

fn cpu(task: &mut Labelled<'_>, granted: &AllocatedTask, usage: &TaskUsage) {
    let stats: &CpuStats = &usage.resource_usage.cpu_stats;
    task.gauge("allocs.cpu.allocated", granted.cpu.cpu_shares as f64);
    task.gauge("allocs.cpu.system", stats.system_mode);
    task.gauge("allocs.cpu.user", stats.user_mode);
    task.gauge("allocs.cpu.throttled_periods", stats.throttled_periods as f64);
    task.gauge("allocs.cpu.throttled_time", stats.throttled_time as f64);
    task.gauge("allocs.cpu.total_percent", stats.percent);
    task.gauge("allocs.cpu.total_ticks", stats.total_ticks);
    task.counter("allocs.cpu.total_ticks_count", usage.ticks_since_start);
}

fn memory(task: &mut Labelled<'_>, granted: &AllocatedTask, stats: &MemoryStats) {
    task.gauge("allocs.memory.allocated", granted.memory.memory_mb as f64 * MIB);
    if granted.memory.memory_max_mb > 0 {
        task.gauge("allocs.memory.max_allocated", granted.memory.memory_max_mb as f64 * MIB);
    }
    for (name, bytes) in [
        ("cache", stats.cache),
        ("kernel_max_usage", stats.kernel_max_usage),
        ("kernel_usage", stats.kernel_usage),
        ("max_usage", stats.max_usage),
        ("rss", stats.rss),
        ("swap", stats.swap),
        ("usage", stats.usage),
    ] {
        task.gauge(&format!("allocs.memory.{name}"), bytes as f64);
    }
}
