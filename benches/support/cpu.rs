//! CPU seconds as the kernel counts them, and the load average.

use std::collections::BTreeMap;
use std::fs;

/// Clock ticks per second in `/proc`: fixed at 100 on Linux for user programs.
const TICKS: f64 = 100.0;

/// CPU seconds, user and system, of a `/proc/<pid>/stat` or `/proc/<pid>/task/<tid>/stat`; 0 if it is gone.
fn of_stat(path: &str) -> f64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    // The name stands in parentheses and may hold anything; utime and stime are the 12th and 13th field after it.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / TICKS
}

/// CPU seconds of a process so far.
pub fn of_process(pid: u32) -> f64 {
    of_stat(&format!("/proc/{pid}/stat"))
}

/// CPU seconds of this process so far, by name of thread.
pub fn of_threads() -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for thread in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let path = thread.path();
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default().trim().to_owned();
        *sums.entry(name).or_default() += of_stat(&path.join("stat").display().to_string());
    }
    sums
}

/// The load averages of 1, 5 and 15 minutes.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// Resident memory of a process in MiB.
pub fn resident_mib(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
