//! What tasks use at present. A share of processor time needs two looks; they are taken only when somebody asks, so
//! that tasks cost nothing while nobody does.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::drivers::CpuShare;
use crate::drivers::ProcessStats;
use crate::drivers::TaskId;
use crate::drivers::TaskStats;
use crate::model::id::AllocId;
use crate::model::time::Time;
use crate::model::usage::CpuStats;
use crate::model::usage::MemoryStats;
use crate::model::usage::ResourceUsage;
use crate::model::usage::TaskUsage;

/// Two looks less than this apart say too little.
const APART_MIN: Duration = Duration::from_millis(200);
/// A look older than this says nothing about the present.
const APART_MAX: Duration = Duration::from_secs(10);

/// A task as it was at some moment.
#[derive(Clone, Debug)]
pub struct Look {
    pub at: Instant,
    pub stats: TaskStats,
}

/// Remembers the last look at each task.
#[derive(Debug, Default)]
pub struct Meter {
    last: Mutex<BTreeMap<TaskId, Look>>,
}

impl Meter {
    /// What these tasks use. `look` is called once, or twice with a pause.
    pub async fn measure<F>(
        &self,
        mhz_per_core: f64,
        now: Time,
        look: impl Fn() -> F,
    ) -> BTreeMap<(AllocId, String), TaskUsage>
    where
        F: Future<Output = BTreeMap<TaskId, TaskStats>>,
    {
        let mut new = stamped(look().await);
        let mut before = self.usable(&new);
        if before.len() < new.len() {
            for (id, look) in &new {
                before.entry(id.clone()).or_insert_with(|| look.clone());
            }
            tokio::time::sleep(APART_MIN).await;
            new = stamped(look().await);
        }
        self.remember(&new);
        let used = new.into_iter().map(|(id, look)| {
            let usage = usage(before.get(&id), &look, mhz_per_core, now);
            ((id.alloc, id.task), usage)
        });
        used.collect()
    }

    /// Earlier looks that are neither too young nor too old.
    fn usable(&self, new: &BTreeMap<TaskId, Look>) -> BTreeMap<TaskId, Look> {
        let last = self.last.lock();
        let known = new.iter().filter_map(|(id, look)| Some((id, look, last.get(id)?)));
        let fit = known.filter(|(_, look, before)| {
            let apart = look.at.duration_since(before.at);
            apart >= APART_MIN && apart <= APART_MAX
        });
        fit.map(|(id, _, before)| (id.clone(), before.clone())).collect()
    }

    fn remember(&self, new: &BTreeMap<TaskId, Look>) {
        let mut last = self.last.lock();
        last.retain(|_, look| look.at.elapsed() <= APART_MAX);
        last.extend(new.iter().map(|(id, look)| (id.clone(), look.clone())));
    }
}

fn stamped(looks: BTreeMap<TaskId, TaskStats>) -> BTreeMap<TaskId, Look> {
    let at = Instant::now();
    looks.into_iter().map(|(id, stats)| (id, Look { at, stats })).collect()
}

/// What was used between two looks, and what is used now.
fn usage(before: Option<&Look>, now: &Look, mhz_per_core: f64, stamp: Time) -> TaskUsage {
    let apart = before.map_or(0.0, |before| now.at.duration_since(before.at).as_secs_f64() * 1e9);
    let share = |then: Option<u64>, now: Option<u64>| match (then, now) {
        (Some(then), Some(now)) if apart > 0.0 => now.saturating_sub(then) as f64 / apart * 100.0,
        _ => 0.0,
    };
    let then = before.map(|before| &before.stats);
    let stats = &now.stats;
    let mut cpu = CpuStats {
        percent: share(then.map(|then| then.cpu_time_ns), Some(stats.cpu_time_ns)),
        user_mode: share(then.and_then(|then| then.user_ns), stats.user_ns),
        system_mode: share(then.and_then(|then| then.system_ns), stats.system_ns),
        throttled_periods: stats.throttled_periods.unwrap_or(0),
        throttled_time: stats.throttled_ns.unwrap_or(0),
        measured: names(&[
            ("Percent", before.is_some()),
            ("User Mode", before.is_some() && stats.user_ns.is_some()),
            ("System Mode", before.is_some() && stats.system_ns.is_some()),
            ("Throttled Periods", stats.throttled_periods.is_some()),
            ("Throttled Time", stats.throttled_ns.is_some()),
        ]),
        total_ticks: 0.0,
    };
    cpu.total_ticks = cpu.percent / 100.0 * mhz_per_core;
    if let Some(present) = stats.present {
        as_told(&mut cpu, present, mhz_per_core);
    }
    let pids = stats.processes.iter().map(|(pid, process)| {
        let then = then.and_then(|then| then.processes.get(pid));
        let used = |of: fn(&ProcessStats) -> u64| share(then.map(of), Some(of(process)));
        (pid.to_string(), process_usage(process, used(|p| p.user_ns), used(|p| p.system_ns), mhz_per_core))
    });
    let pids: BTreeMap<String, ResourceUsage> = pids.collect();
    TaskUsage {
        resource_usage: ResourceUsage { memory_stats: memory(stats), cpu_stats: cpu, device_stats: [] },
        timestamp: stamp.0,
        pids: (!pids.is_empty()).then_some(pids),
        ticks_since_start: stats.cpu_time_ns as f64 / 1e9 * mhz_per_core,
    }
}

/// What the driver itself has measured counts.
fn as_told(cpu: &mut CpuStats, present: CpuShare, mhz_per_core: f64) {
    cpu.percent = present.percent;
    cpu.total_ticks = present.ticks.unwrap_or(present.percent / 100.0 * mhz_per_core);
    cpu.measured.insert("Percent");
    if present.ticks.is_some() {
        cpu.measured.insert("Total Ticks");
    }
    for (name, told, into) in [
        ("User Mode", present.user, &mut cpu.user_mode),
        ("System Mode", present.system, &mut cpu.system_mode),
    ] {
        if let Some(told) = told {
            *into = told;
            cpu.measured.insert(name);
        }
    }
}

fn process_usage(process: &ProcessStats, user: f64, system: f64, mhz_per_core: f64) -> ResourceUsage {
    ResourceUsage {
        memory_stats: MemoryStats {
            rss: process.rss_bytes,
            swap: process.swap_bytes,
            measured: BTreeSet::from(["RSS", "Swap"]),
            ..MemoryStats::default()
        },
        cpu_stats: CpuStats {
            user_mode: user,
            system_mode: system,
            percent: user + system,
            total_ticks: (user + system) / 100.0 * mhz_per_core,
            measured: BTreeSet::from(["Percent", "System Mode", "User Mode"]),
            ..CpuStats::default()
        },
        device_stats: [],
    }
}

fn memory(stats: &TaskStats) -> MemoryStats {
    MemoryStats {
        rss: stats.rss_bytes,
        cache: stats.cache_bytes.unwrap_or(0),
        swap: stats.swap_bytes.unwrap_or(0),
        usage: stats.usage_bytes.unwrap_or(0),
        max_usage: stats.max_usage_bytes.unwrap_or(0),
        kernel_usage: stats.kernel_bytes.unwrap_or(0),
        kernel_max_usage: stats.max_kernel_bytes.unwrap_or(0),
        measured: names(&[
            ("RSS", true),
            ("Cache", stats.cache_bytes.is_some()),
            ("Swap", stats.swap_bytes.is_some()),
            ("Usage", stats.usage_bytes.is_some()),
            ("Max Usage", stats.max_usage_bytes.is_some()),
            ("Kernel Usage", stats.kernel_bytes.is_some()),
            ("Kernel Max Usage", stats.max_kernel_bytes.is_some()),
        ]),
    }
}

fn names(measured: &[(&'static str, bool)]) -> BTreeSet<&'static str> {
    measured.iter().filter(|(_, is_measured)| *is_measured).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering;

    use super::*;

    fn id() -> TaskId {
        TaskId { alloc: AllocId::from_random([7; 16]), task: "web".to_owned(), run: 1 }
    }

    /// A task that keeps one core half busy, by the clock of the test.
    struct Busy {
        since: Instant,
        looks: AtomicU64,
    }

    impl Busy {
        fn look(&self) -> BTreeMap<TaskId, TaskStats> {
            self.looks.fetch_add(1, Ordering::Relaxed);
            let used = u64::try_from(self.since.elapsed().as_nanos()).unwrap() / 2;
            let stats = TaskStats {
                cpu_time_ns: used,
                user_ns: Some(used),
                rss_bytes: 5,
                usage_bytes: Some(9),
                ..TaskStats::default()
            };
            BTreeMap::from([(id(), stats)])
        }
    }

    #[tokio::test(start_paused = true)]
    async fn two_looks_are_taken_only_when_the_last_is_too_old_or_too_young() {
        let meter = Meter::default();
        let task = Busy { since: Instant::now(), looks: AtomicU64::new(0) };
        let measure = async || {
            let used = meter.measure(2000.0, Time(1), || async { task.look() }).await;
            let usage = used.into_values().next().unwrap().resource_usage;
            assert!((usage.cpu_stats.percent - 50.0).abs() < 0.01, "{usage:?}");
            assert!((usage.cpu_stats.total_ticks - 1000.0).abs() < 0.1, "{usage:?}");
            assert_eq!(usage.cpu_stats.measured, BTreeSet::from(["Percent", "User Mode"]));
            assert_eq!(usage.memory_stats.measured, BTreeSet::from(["RSS", "Usage"]));
            task.looks.swap(0, Ordering::Relaxed)
        };
        assert_eq!(measure().await, 2);
        tokio::time::advance(APART_MIN).await;
        assert_eq!(measure().await, 1);
        assert_eq!(measure().await, 2, "too young");
        tokio::time::advance(APART_MAX * 2).await;
        assert_eq!(measure().await, 2, "too old");
        assert_eq!(meter.last.lock().len(), 1);
    }

    #[test]
    fn what_a_driver_measures_itself_counts() {
        let told = CpuShare { percent: 150.0, user: Some(100.0), system: None, ticks: None };
        let stats = TaskStats { present: Some(told), ..TaskStats::default() };
        let cpu = usage(None, &Look { at: Instant::now(), stats: stats.clone() }, 2000.0, Time(1));
        let cpu = cpu.resource_usage.cpu_stats;
        assert_eq!((cpu.percent, cpu.total_ticks, cpu.user_mode), (150.0, 3000.0, 100.0));
        assert_eq!(cpu.measured, BTreeSet::from(["Percent", "User Mode"]));
        let told = CpuShare { ticks: Some(2900.0), ..told };
        let stats = TaskStats { present: Some(told), ..stats };
        let cpu = usage(None, &Look { at: Instant::now(), stats }, 2000.0, Time(1)).resource_usage.cpu_stats;
        assert_eq!(cpu.total_ticks, 2900.0);
        assert!(cpu.measured.contains("Total Ticks"));
    }
}
