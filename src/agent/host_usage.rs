//! What the machine itself uses: processors, memory, disks. As with tasks, looks are taken only when somebody asks.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::model::time::Time;
use crate::model::usage::HostCpu;
use crate::model::usage::HostDisk;
use crate::model::usage::HostMemory;
use crate::model::usage::HostUsage;

/// Two looks less than this apart say too little: the kernel counts in hundredths of a second.
const APART_MIN: Duration = Duration::from_millis(250);
/// A look older than this says nothing about the present.
const APART_MAX: Duration = Duration::from_secs(10);

/// The time that a core has spent, in the kernel's ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Spent {
    user: u64,
    system: u64,
    idle: u64,
    other: u64,
}

/// Remembers the last look at the processors.
#[derive(Debug, Default)]
pub struct HostMeter {
    last: Mutex<Option<(Instant, Vec<Spent>)>>,
}

impl HostMeter {
    /// What the machine uses. `alloc_dir` is where allocations are, `mhz_per_core` what a busy core counts.
    pub async fn measure(&self, alloc_dir: &Path, mhz_per_core: f64, now: Time) -> HostUsage {
        let fit = |at: &Instant| at.elapsed() >= APART_MIN && at.elapsed() <= APART_MAX;
        let last = self.last.lock().clone().filter(|(at, _)| fit(at));
        let before = match last {
            Some((_, before)) => before,
            None => {
                let before = processors();
                tokio::time::sleep(APART_MIN).await;
                before
            }
        };
        let after = processors();
        *self.last.lock() = Some((Instant::now(), after.clone()));
        let cpu = shares(&before, &after, mhz_per_core);
        // A disk on a network that is gone lets whoever asks wait for it.
        let alloc_dir = alloc_dir.to_owned();
        let disks = tokio::task::spawn_blocking(move || (disks(), disk_of(&alloc_dir))).await;
        let (disks, alloc_dir) = disks.unwrap_or_default();
        HostUsage {
            memory: memory(),
            ticks: cpu.iter().map(|core| core.total_ticks).sum(),
            cpu,
            disks,
            alloc_dir,
            uptime: uptime(),
            timestamp: now.0,
            devices: [],
        }
    }
}

fn processors() -> Vec<Spent> {
    parse_processors(&fs::read_to_string("/proc/stat").unwrap_or_default())
}

/// The lines `cpu0 …` of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal.
fn parse_processors(text: &str) -> Vec<Spent> {
    let cores = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("cpu").filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))?;
        let fields: Vec<u64> =
            rest.split_ascii_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
        let field = |at: usize| fields.get(at).copied().unwrap_or(0);
        Some(Spent {
            user: field(0),
            system: field(2),
            idle: field(3),
            other: field(1) + field(4) + field(5) + field(6) + field(7),
        })
    });
    cores.collect()
}

fn shares(before: &[Spent], after: &[Spent], mhz_per_core: f64) -> Vec<HostCpu> {
    let ticks_per_second = procfs::ticks_per_second().max(1) as f64;
    let cores = before.iter().zip(after).enumerate().map(|(number, (before, after))| {
        let spent = |of: fn(&Spent) -> u64| of(after).saturating_sub(of(before));
        let (user, system, idle) = (spent(|s| s.user), spent(|s| s.system), spent(|s| s.idle));
        let all = user + system + idle + spent(|s| s.other);
        let percent = |part: u64| if all == 0 { 0.0 } else { part as f64 * 100.0 / all as f64 };
        let total = percent(all - idle);
        HostCpu {
            cpu: format!("cpu{number}"),
            user: percent(user),
            system: percent(system),
            idle: if all == 0 { 100.0 } else { percent(idle) },
            total_percent: total,
            total_ticks: total / 100.0 * mhz_per_core,
            ticks_since_boot: (after.user + after.system + after.other) as f64 / ticks_per_second
                * mhz_per_core,
        }
    });
    cores.collect()
}

fn memory() -> HostMemory {
    let Ok(found) = <procfs::Meminfo as procfs::Current>::current() else { return HostMemory::default() };
    let available = found.mem_available.unwrap_or(found.mem_free);
    HostMemory {
        total: found.mem_total,
        available,
        used: found.mem_total.saturating_sub(available),
        free: found.mem_free,
    }
}

fn uptime() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
}

/// A mount: its device and where it is.
type Mount = (String, PathBuf);

fn mounts() -> Vec<Mount> {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = text.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        Some((fields.next()?.to_owned(), PathBuf::from(fields.next()?.replace("\\040", " "))))
    });
    fields.collect()
}

/// Disks of the machine; one that is mounted several times counts once, where it was mounted first.
fn disks() -> Vec<HostDisk> {
    let mut seen = BTreeSet::new();
    let real = mounts().into_iter().filter(|(device, _)| device.starts_with("/dev/"));
    real.filter(|(device, _)| seen.insert(device.clone())).filter_map(|mount| disk(&mount)).collect()
}

/// The disk that holds a path.
fn disk_of(path: &Path) -> Option<HostDisk> {
    let holding = mounts().into_iter().filter(|(_, point)| path.starts_with(point));
    disk(&holding.max_by_key(|(_, point)| point.components().count())?)
}

fn disk((device, point): &Mount) -> Option<HostDisk> {
    let stat = nix::sys::statvfs::statvfs(point).ok()?;
    let block = stat.fragment_size();
    let (size, free) = (stat.blocks() * block, stat.blocks_free() * block);
    let (used, available) = (size.saturating_sub(free), stat.blocks_available() * block);
    let percent = |part: u64, all: u64| if all == 0 { 0.0 } else { part as f64 * 100.0 / all as f64 };
    Some(HostDisk {
        device: device.clone(),
        mountpoint: point.display().to_string(),
        size,
        used,
        available,
        // Of what users can have, as `df` counts it.
        used_percent: percent(used, used + available),
        inodes_used_percent: percent(stat.files().saturating_sub(stat.files_free()), stat.files()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_a_core_come_from_two_looks() {
        let before = parse_processors("cpu  9 9 9 9\ncpu0 100 0 50 800 50 0 0 0\ncpu1 0 0 0 0\nintr 5\n");
        let after = parse_processors("cpu  9 9 9 9\ncpu0 150 0 75 820 55 0 0 0\ncpu1 0 0 0 0\nintr 6\n");
        let shares = shares(&before, &after, 2000.0);
        assert_eq!(shares.len(), 2);
        assert_eq!((shares[0].user, shares[0].system, shares[0].idle), (50.0, 25.0, 20.0));
        assert_eq!((shares[0].total_percent, shares[0].total_ticks), (80.0, 1600.0));
        assert_eq!((shares[1].idle, shares[1].total_ticks), (100.0, 0.0));
    }

    #[tokio::test]
    async fn this_machine_uses_something() {
        let meter = HostMeter::default();
        let usage = meter.measure(Path::new("/tmp"), 1000.0, Time(5)).await;
        assert!(usage.uptime > 0 && usage.memory.total > usage.memory.used, "{usage:?}");
        assert_eq!(usage.cpu.len(), processors().len());
        let disk = usage.alloc_dir.unwrap();
        assert!(disk.size >= disk.used && disk.used_percent <= 100.0, "{disk:?}");
    }
}
