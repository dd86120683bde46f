//! Control groups of tasks, version 1 and 2. Where they are mounted is read from the kernel, never assumed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde::Deserialize;
use serde::Serialize;

use crate::model::resources::AllocatedTask;

use super::TaskStats;

/// The kernel gives a group free a moment after its last process has ended.
const REMOVE_TRIES: u32 = 50;
const REMOVE_PAUSE: Duration = Duration::from_millis(10);
/// Rounds of killing before a group counts as stuck.
const KILL_ROUNDS: u32 = 20;
/// The range that the kernel accepts for `cpu.shares`.
const SHARES: (i64, i64) = (2, 262_144);

/// How this machine's control groups are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hierarchy {
    /// Mount point per controller.
    V1(BTreeMap<String, PathBuf>),
    /// The one mount point.
    V2(PathBuf),
    /// No controllers at all.
    None,
}

impl Hierarchy {
    /// What `/proc/self/mountinfo` says; read once.
    pub fn of_this_machine() -> &'static Self {
        static FOUND: OnceLock<Hierarchy> = OnceLock::new();
        FOUND.get_or_init(|| {
            let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            Self::from_mountinfo(&text, |path| fs::read_to_string(path).unwrap_or_default())
        })
    }

    /// Reads mounts from `mountinfo`; `read` gives the content of a file.
    pub fn from_mountinfo(mountinfo: &str, read: impl Fn(&Path) -> String) -> Self {
        let mut v1 = BTreeMap::new();
        let mut v2 = None;
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(point) = left.split(' ').nth(4).map(|point| point.replace("\\040", " ")) else {
                continue;
            };
            let mut fields = right.split(' ');
            match fields.next() {
                Some("cgroup") => {
                    let options = fields.nth(1).unwrap_or_default();
                    for controller in options.split(',').filter(|name| CONTROLLERS.contains(name)) {
                        v1.entry(controller.to_owned()).or_insert_with(|| PathBuf::from(&point));
                    }
                }
                Some("cgroup2") => v2 = v2.or(Some(PathBuf::from(point))),
                _ => {}
            }
        }
        // Both may be mounted: each controller belongs to one of them, and memory is the one that matters.
        let has_memory = |root: &PathBuf| {
            let controllers = read(&root.join("cgroup.controllers"));
            controllers.split_ascii_whitespace().any(|name| name == "memory")
        };
        match v2.filter(has_memory) {
            Some(root) => Self::V2(root),
            None if v1.is_empty() => Self::None,
            None => Self::V1(v1),
        }
    }

    /// `1`, `2`, or nothing: the value of `os.cgroups.version`.
    pub fn version(&self) -> Option<&'static str> {
        match self {
            Self::V1(_) => Some("1"),
            Self::V2(_) => Some("2"),
            Self::None => None,
        }
    }

    /// Where controllers are mounted: the value of `unique.cgroup.mountpoint`.
    pub fn mountpoint(&self) -> Option<PathBuf> {
        match self {
            Self::V1(mounts) => mounts.values().next().and_then(|path| path.parent()).map(Path::to_path_buf),
            Self::V2(root) => Some(root.clone()),
            Self::None => None,
        }
    }
}

const CONTROLLERS: &[&str] = &["cpu", "cpuacct", "cpuset", "memory", "pids", "freezer"];

/// The groups of one task, with their limits. Written by the supervisor, which also joins and removes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCgroups {
    /// On version 1 one directory per controller, on version 2 exactly one named `unified`.
    pub dirs: BTreeMap<String, PathBuf>,
    /// Files to write, in order; a required one that fails fails the start.
    pub limits: Vec<Limit>,
}

/// A value for a control file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    pub file: PathBuf,
    pub value: String,
    pub required: bool,
}

/// Plans the groups of a task. `parent` is a path below the mount points, such as `nomad` or `/nomad`.
pub fn plan(
    hierarchy: &Hierarchy,
    parent: &str,
    name: &str,
    grant: &AllocatedTask,
    pids_limit: Option<u32>,
) -> TaskCgroups {
    let mut plan = TaskCgroups::default();
    // Joining an absolute path would leave the mount point and put the limits into plain files.
    let parent = parent.trim_matches('/');
    let (soft, hard) = memory_bytes(grant);
    let shares = grant.cpu.cpu_shares.clamp(SHARES.0, SHARES.1);
    let cores = &grant.cpu.reserved_cores;
    let cores = cores.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let mut limit =
        |file: PathBuf, value: String, required| plan.limits.push(Limit { file, value, required });
    match hierarchy {
        Hierarchy::None => {}
        Hierarchy::V1(mounts) => {
            for (controller, mount) in mounts {
                if controller == "cpuset" && cores.is_empty() {
                    continue;
                }
                let dir = mount.join(parent).join(name);
                match controller.as_str() {
                    "memory" => {
                        if let Some(hard) = hard {
                            limit(dir.join("memory.limit_in_bytes"), hard.to_string(), true);
                        }
                        if let Some(soft) = soft {
                            limit(dir.join("memory.soft_limit_in_bytes"), soft.to_string(), false);
                        }
                        limit(dir.join("memory.swappiness"), "0".to_owned(), false);
                    }
                    "cpu" => limit(dir.join("cpu.shares"), shares.to_string(), true),
                    "cpuset" => limit(dir.join("cpuset.cpus"), cores.clone(), true),
                    "pids" => {
                        if let Some(pids) = pids_limit {
                            limit(dir.join("pids.max"), pids.to_string(), true);
                        }
                    }
                    _ => {}
                }
                plan.dirs.insert(controller.clone(), dir);
            }
        }
        Hierarchy::V2(root) => {
            let slice = parent.strip_suffix(".slice").unwrap_or(parent);
            let dir = root.join(format!("{slice}.slice")).join(format!("{name}.scope"));
            let weight = 1 + (shares - 2) * 9999 / 262_142;
            if let Some(hard) = hard {
                limit(dir.join("memory.max"), hard.to_string(), true);
                limit(dir.join("memory.swap.max"), "0".to_owned(), false);
            }
            if let Some(soft) = soft {
                limit(dir.join("memory.low"), soft.to_string(), false);
            }
            limit(dir.join("cpu.weight"), weight.to_string(), true);
            if !cores.is_empty() {
                limit(dir.join("cpuset.cpus"), cores, true);
            }
            if let Some(pids) = pids_limit {
                limit(dir.join("pids.max"), pids.to_string(), true);
            }
            plan.dirs.insert("unified".to_owned(), dir);
        }
    }
    plan
}

/// Soft and hard limit in bytes. A soft one exists only beside a higher maximum.
fn memory_bytes(grant: &AllocatedTask) -> (Option<i64>, Option<i64>) {
    let (memory, max) = (grant.memory.memory_mb, grant.memory.memory_max_mb);
    let soft = (memory > 0 && max != 0).then_some(memory << 20);
    let hard = match max {
        -1 => None,
        0 => (memory > 0).then_some(memory << 20),
        max => Some(max.max(memory) << 20),
    };
    (soft, hard)
}

impl TaskCgroups {
    /// Creates the groups and writes their limits.
    ///
    /// # Errors
    /// Names the file that could not be written.
    pub fn create(&self) -> io::Result<()> {
        let named = |path: &Path, error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        };
        for (controller, dir) in &self.dirs {
            if let Some(parent) = dir.parent() {
                fs::create_dir_all(parent).map_err(|error| named(parent, error))?;
                match controller.as_str() {
                    "unified" => delegate(parent),
                    "cpuset" => inherit_cpuset(parent),
                    _ => {}
                }
            }
            fs::create_dir_all(dir).map_err(|error| named(dir, error))?;
            if controller == "cpuset" {
                inherit_cpuset(dir);
            }
        }
        for limit in &self.limits {
            if let Err(error) = write_control(&limit.file, &limit.value)
                && limit.required
            {
                return Err(named(&limit.file, error));
            }
        }
        Ok(())
    }

    /// Moves the calling process into the groups.
    ///
    /// # Errors
    /// Names the group that could not be joined.
    pub fn join(&self) -> io::Result<()> {
        for dir in self.dirs.values() {
            write_control(&dir.join("cgroup.procs"), "0").map_err(|error| {
                io::Error::new(error.kind(), format!("cannot join {}: {error}", dir.display()))
            })?;
        }
        Ok(())
    }

    /// Processes in the groups.
    pub fn pids(&self) -> Vec<i32> {
        let dir = self.dirs.get("freezer").or_else(|| self.dirs.values().next());
        let text = dir.and_then(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok()).unwrap_or_default();
        // A process that is just being reaped is listed as 0, and signalling 0 means one's own process group.
        text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
    }

    /// Kills every process in the groups; those that fork faster than they are killed are frozen first.
    pub fn kill(&self) {
        if let Some(dir) = self.dirs.get("unified")
            && fs::write(dir.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        let freezer = self.dirs.get("freezer").map(|dir| dir.join("freezer.state"));
        for _ in 0..KILL_ROUNDS {
            let pids = self.pids();
            if pids.is_empty() {
                break;
            }
            if let Some(freezer) = &freezer {
                let _ = fs::write(freezer, "FROZEN");
            }
            for pid in pids {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            if let Some(freezer) = &freezer {
                let _ = fs::write(freezer, "THAWED");
            }
        }
    }

    /// How often the kernel killed a process of these groups for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let file = match (self.dirs.get("memory"), self.dirs.get("unified")) {
            (Some(dir), _) => dir.join("memory.oom_control"),
            (None, Some(dir)) => dir.join("memory.events"),
            (None, None) => return 0,
        };
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }

    /// Present use, of all processes together.
    pub fn stats(&self) -> TaskStats {
        let read = |controller: &str, file: &str| {
            let dir = self.dirs.get(controller)?;
            fs::read_to_string(dir.join(file)).ok()
        };
        let mut stats = if self.dirs.contains_key("unified") {
            stats_v2(|file| read("unified", file))
        } else {
            stats_v1(read)
        };
        stats.pids = self.pids();
        stats
    }

    /// Removes empty groups, waiting a little for the kernel. Blocks up to half a second per group.
    ///
    /// # Errors
    /// A group still has processes.
    pub fn remove(&self) -> io::Result<()> {
        for dir in self.dirs.values() {
            let mut tries = 0;
            loop {
                match fs::remove_dir(dir) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                    Err(error) if tries >= REMOVE_TRIES => {
                        let text = format!("cannot remove {}: {error}", dir.display());
                        return Err(io::Error::new(error.kind(), text));
                    }
                    Err(_) => {
                        tries += 1;
                        thread::sleep(REMOVE_PAUSE);
                    }
                    Ok(()) => break,
                }
            }
        }
        Ok(())
    }
}

fn number(text: String) -> Option<u64> {
    text.trim().parse().ok()
}

/// The value of a line `name value`.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

fn stats_v1(read: impl Fn(&str, &str) -> Option<String>) -> TaskStats {
    let memory = |file: &str| read("memory", file).and_then(number);
    let time = |file: &str| read("cpuacct", file).and_then(number);
    let details = read("memory", "memory.stat").unwrap_or_default();
    let throttling = read("cpu", "cpu.stat").unwrap_or_default();
    TaskStats {
        cpu_time_ns: time("cpuacct.usage").unwrap_or(0),
        user_ns: time("cpuacct.usage_user"),
        system_ns: time("cpuacct.usage_sys"),
        throttled_periods: field(&throttling, "nr_throttled"),
        throttled_ns: field(&throttling, "throttled_time"),
        rss_bytes: field(&details, "rss").unwrap_or(0),
        cache_bytes: field(&details, "cache"),
        // Counted only where the kernel counts swap per group.
        swap_bytes: field(&details, "swap"),
        usage_bytes: memory("memory.usage_in_bytes"),
        max_usage_bytes: memory("memory.max_usage_in_bytes"),
        kernel_bytes: memory("memory.kmem.usage_in_bytes"),
        max_kernel_bytes: memory("memory.kmem.max_usage_in_bytes"),
        ..TaskStats::default()
    }
}

fn stats_v2(read: impl Fn(&str) -> Option<String>) -> TaskStats {
    let memory = |file: &str| read(file).and_then(number);
    let cpu = read("cpu.stat").unwrap_or_default();
    let nanos = |name: &str| field(&cpu, name).map(|micros| micros * 1000);
    let details = read("memory.stat").unwrap_or_default();
    TaskStats {
        cpu_time_ns: nanos("usage_usec").unwrap_or(0),
        user_ns: nanos("user_usec"),
        system_ns: nanos("system_usec"),
        throttled_periods: field(&cpu, "nr_throttled"),
        throttled_ns: nanos("throttled_usec"),
        rss_bytes: field(&details, "anon").unwrap_or(0),
        cache_bytes: field(&details, "file"),
        swap_bytes: memory("memory.swap.current"),
        usage_bytes: memory("memory.current"),
        max_usage_bytes: memory("memory.peak"),
        kernel_bytes: field(&details, "kernel"),
        ..TaskStats::default()
    }
}

/// Writes a file of the kernel's; one that is missing is an error, never a new plain file without effect.
fn write_control(file: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

/// Switches the controllers on for the children of `dir`, from the root downwards. What the machine does not
/// allow shows up when the limit is written.
fn delegate(dir: &Path) {
    for ancestor in [dir.parent(), Some(dir)].into_iter().flatten() {
        for controller in ["+cpu", "+memory", "+pids", "+cpuset"] {
            let _ = fs::write(ancestor.join("cgroup.subtree_control"), controller);
        }
    }
}

/// A new cpuset is empty and cannot be joined until it has processors and memory nodes.
fn inherit_cpuset(dir: &Path) {
    let Some(parent) = dir.parent() else { return };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = fs::read_to_string(dir.join(file)).unwrap_or_default();
        if own.trim().is_empty()
            && let Ok(value) = fs::read_to_string(parent.join(file))
        {
            let _ = fs::write(dir.join(file), value.trim());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    fn grant(mhz: i64, memory: i64, max: i64) -> AllocatedTask {
        let mut grant = AllocatedTask::default();
        grant.cpu.cpu_shares = mhz;
        grant.memory.memory_mb = memory;
        grant.memory.memory_max_mb = max;
        grant
    }

    fn lines(plan: &TaskCgroups) -> Vec<String> {
        plan.limits.iter().map(|limit| format!("{}={}", limit.file.display(), limit.value)).collect()
    }

    #[test]
    fn a_version_2_mount_without_memory_beside_version_1_is_ignored() {
        let found = Hierarchy::from_mountinfo(V1, |_| "hugetlb misc\n".to_owned());
        assert_eq!(found.version(), Some("1"));
        let plan = plan(&found, "/nomad", "a.web", &grant(500, 64, 0), Some(9));
        assert_eq!(plan.dirs["cpu"], Path::new("/sys/fs/cgroup/cpu/nomad/a.web"));
        assert!(!plan.dirs.contains_key("cpuset"));
        let lines = lines(&plan);
        assert!(
            lines.contains(&"/sys/fs/cgroup/memory/nomad/a.web/memory.limit_in_bytes=67108864".to_owned())
        );
        assert!(lines.contains(&"/sys/fs/cgroup/cpu/nomad/a.web/cpu.shares=500".to_owned()));
    }

    #[test]
    fn version_2_uses_weights_and_one_directory() {
        let mountinfo = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = Hierarchy::from_mountinfo(mountinfo, |_| "cpu memory pids\n".to_owned());
        let plan = plan(&found, "nomad", "a.web", &grant(1024, 64, 128), None);
        let dir = "/sys/fs/cgroup/nomad.slice/a.web.scope";
        assert_eq!(
            lines(&plan),
            [
                format!("{dir}/memory.max=134217728"),
                format!("{dir}/memory.swap.max=0"),
                format!("{dir}/memory.low=67108864"),
                format!("{dir}/cpu.weight=39"),
            ]
        );
    }

    #[test]
    fn limits_outside_of_a_control_group_mount_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let found = Hierarchy::V2(dir.path().to_owned());
        let plan = plan(&found, "nomad.slice", "a.web", &grant(500, 64, 0), None);
        assert_eq!(plan.dirs["unified"], dir.path().join("nomad.slice/a.web.scope"));
        let text = plan.create().expect_err("there are no control files").to_string();
        assert!(text.contains("memory.max"), "{text}");
        assert!(!dir.path().join("nomad.slice/a.web.scope/memory.max").exists());
    }

    #[test]
    fn both_versions_are_counted() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |file: &str, text: &str| fs::write(dir.path().join(file), text).expect("a file");
        let group = |names: &[&str]| TaskCgroups {
            dirs: names.iter().map(|name| ((*name).to_owned(), dir.path().to_owned())).collect(),
            limits: Vec::new(),
        };
        write("cgroup.procs", "7\n0\n");
        write("cpuacct.usage", "3000\n");
        write("cpuacct.usage_user", "2000\n");
        write("cpuacct.usage_sys", "1000\n");
        write("cpu.stat", "nr_periods 9\nnr_throttled 4\nthrottled_time 55\n");
        write("memory.stat", "cache 10\nrss 20\nrss_huge 99\n");
        write("memory.usage_in_bytes", "40\n");
        write("memory.max_usage_in_bytes", "80\n");
        let stats = group(&["cpu", "cpuacct", "memory"]).stats();
        assert_eq!((stats.cpu_time_ns, stats.user_ns, stats.system_ns), (3000, Some(2000), Some(1000)));
        assert_eq!((stats.throttled_periods, stats.throttled_ns), (Some(4), Some(55)));
        assert_eq!((stats.rss_bytes, stats.cache_bytes, stats.swap_bytes), (20, Some(10), None));
        assert_eq!(
            (stats.usage_bytes, stats.max_usage_bytes, stats.kernel_bytes),
            (Some(40), Some(80), None)
        );
        assert_eq!(stats.pids, [7]);
        write("cpu.stat", "usage_usec 3\nuser_usec 2\nsystem_usec 1\nnr_throttled 5\nthrottled_usec 6\n");
        write("memory.stat", "anon 20\nfile 10\nkernel 3\n");
        write("memory.current", "41\n");
        write("memory.peak", "81\n");
        write("memory.swap.current", "0\n");
        let stats = group(&["unified"]).stats();
        assert_eq!((stats.cpu_time_ns, stats.user_ns, stats.system_ns), (3000, Some(2000), Some(1000)));
        assert_eq!((stats.throttled_periods, stats.throttled_ns), (Some(5), Some(6000)));
        assert_eq!((stats.rss_bytes, stats.cache_bytes, stats.swap_bytes), (20, Some(10), Some(0)));
        assert_eq!(
            (stats.usage_bytes, stats.max_usage_bytes, stats.kernel_bytes),
            (Some(41), Some(81), Some(3))
        );
    }

    #[test]
    fn an_unlimited_maximum_leaves_only_the_soft_limit() {
        assert_eq!(memory_bytes(&grant(1, 64, -1)), (Some(64 << 20), None));
        assert_eq!(memory_bytes(&grant(1, 64, 0)), (None, Some(64 << 20)));
    }
}
