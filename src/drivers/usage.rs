//! What processes use, as the kernel counts it for each of them: for tasks without control groups, and one by one.

use std::collections::BTreeSet;
use std::fs;

use super::ProcessStats;
use super::TaskStats;

/// Descendants beyond this number are not looked for: something is forking faster than anyone can count.
const MAX_PROCESSES: usize = 100_000;

/// A process and everything below it.
pub fn of_tree(root: i32) -> TaskStats {
    let mut waiting = vec![root];
    let mut pids = BTreeSet::new();
    while let Some(pid) = waiting.pop() {
        if pids.len() < MAX_PROCESSES && pids.insert(pid) {
            waiting.extend(children(pid));
        }
    }
    let mut stats =
        TaskStats { user_ns: Some(0), system_ns: Some(0), swap_bytes: Some(0), ..TaskStats::default() };
    for pid in pids {
        let Some((one, of_ended)) = look(pid) else { continue };
        // What ended children used would otherwise vanish with them.
        let (user, system) = (one.user_ns + of_ended.user_ns, one.system_ns + of_ended.system_ns);
        stats.cpu_time_ns += user + system;
        stats.user_ns = stats.user_ns.map(|sum| sum + user);
        stats.system_ns = stats.system_ns.map(|sum| sum + system);
        stats.rss_bytes += one.rss_bytes;
        stats.swap_bytes = stats.swap_bytes.map(|sum| sum + one.swap_bytes);
        stats.pids.push(pid);
        stats.processes.insert(pid, one);
    }
    stats
}

/// One process.
pub fn of_process(pid: i32) -> Option<ProcessStats> {
    look(pid).map(|(own, _)| own)
}

fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let pids = lists.flat_map(|list| {
        list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>()
    });
    pids.collect()
}

/// What a process uses, and the time that its ended children have used.
fn look(pid: i32) -> Option<(ProcessStats, ProcessStats)> {
    let process = procfs::process::Process::new(pid).ok()?;
    let stat = process.stat().ok()?;
    let nanos = 1_000_000_000 / procfs::ticks_per_second().max(1);
    let swap = fs::read_to_string(format!("/proc/{pid}/status")).ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("VmSwap:"))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    });
    let own = ProcessStats {
        user_ns: stat.utime * nanos,
        system_ns: stat.stime * nanos,
        rss_bytes: stat.rss * procfs::page_size(),
        swap_bytes: swap.unwrap_or(0) * 1024,
    };
    let ended = |ticks: i64| u64::try_from(ticks).unwrap_or(0) * nanos;
    let of_ended = ProcessStats {
        user_ns: ended(stat.cutime),
        system_ns: ended(stat.cstime),
        ..ProcessStats::default()
    };
    Some((own, of_ended))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn children_count_with_their_parents() {
        let mut child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        // Looked at first: other tests of this process may ask for more memory at any moment.
        let alone = of_process(own).unwrap().rss_bytes;
        let stats = of_tree(own);
        assert!(stats.pids.contains(&own), "{stats:?}");
        assert!(stats.pids.contains(&i32::try_from(child.id()).unwrap()), "{stats:?}");
        assert!(stats.rss_bytes > alone);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
