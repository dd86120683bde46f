//! CPU seconds as the kernel counts them, and the load average.

use std::collections::BTreeMap;
use std::fs;

/// Clock ticks per second in `/proc`: fixed at 100 on Linux for user programs.
const TICKS: f64 = 100.0;

/// CPU seconds of a `/proc/<pid>/stat` or `/proc/<pid>/task/<tid>/stat`: the sum of so many of the fields own user and
/// system time, and those of ended children; 0 if it is gone.
fn of_stat(path: &str, fields_summed: usize) -> f64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    // The name stands in parentheses and may hold anything; the times begin with the 12th field after it.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let times = fields.iter().skip(11).take(fields_summed);
    times.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// CPU seconds of a process so far.
pub fn of_process(pid: u32) -> f64 {
    of_stat(&format!("/proc/{pid}/stat"), 2)
}

/// CPU seconds of a process and of those of its children that have ended.
pub fn of_process_and_ended(pid: u32) -> f64 {
    of_stat(&format!("/proc/{pid}/stat"), 4)
}

/// CPU seconds of this process so far, by name of thread.
pub fn of_threads() -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for thread in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let path = thread.path();
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default().trim().to_owned();
        *sums.entry(name).or_default() += of_stat(&path.join("stat").display().to_string(), 2);
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
