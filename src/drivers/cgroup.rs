//! Control groups of tasks, version 1 and 2. Where they are mounted is read from the kernel, never assumed.

mod partition;

pub use self::partition::Cores;

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

const CONTROLLERS: &[&str] = &["blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids"];
/// Those that a plain process is put under: enough to limit, count and kill.
const PLAIN_CONTROLLERS: &[&str] = &["cpu", "cpuacct", "cpuset", "freezer", "memory"];
/// Devices that an isolated task may use: those that every program expects, and making (not using) any.
const ALLOWED_DEVICES: &[&str] = &[
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// The groups of one task, with their limits. Written by the supervisor, which also joins and removes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCgroups {
    /// On version 1 one directory per controller, on version 2 exactly one named `unified`.
    pub dirs: BTreeMap<String, PathBuf>,
    /// Groups that the task only joins: others are in them, too, so nobody is killed in there and nothing removed.
    #[serde(default)]
    pub joined: Vec<Joined>,
    /// Files to write, in order; a required one that fails fails the start.
    pub limits: Vec<Limit>,
    /// The group whose processors are divided between tasks with cores of their own and all others.
    #[serde(default)]
    pub partition: Option<PathBuf>,
}

/// A group that is not the task's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    pub dir: PathBuf,
    pub required: bool,
}

/// A value for a control file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    pub file: PathBuf,
    pub value: String,
    pub required: bool,
}

/// How far control groups are to hold a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Limits and counters only.
    #[default]
    Plain,
    /// Every controller, and only harmless devices.
    Isolated,
}

/// Groups of somebody else that a task joins in place of its own. Which of the two counts is for the machine to say, so
/// that one job file can serve machines of both kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Path by controller, below the controller's mount point or absolute.
    pub v1: BTreeMap<String, PathBuf>,
    pub v2: Option<PathBuf>,
}

/// What the groups of a task are planned from.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// A path below the mount points, such as `nomad` or `/nomad`.
    pub parent: &'a str,
    /// `<allocation>.<task>`.
    pub name: &'a str,
    pub grant: &'a AllocatedTask,
    pub pids_limit: Option<u32>,
    pub scope: Scope,
    pub overrides: &'a Overrides,
}

/// Plans the groups of a task.
pub fn plan(hierarchy: &Hierarchy, wish: &Wish<'_>) -> TaskCgroups {
    match hierarchy {
        Hierarchy::None => TaskCgroups::default(),
        Hierarchy::V1(mounts) => plan_v1(mounts, wish),
        Hierarchy::V2(root) => plan_v2(root, wish),
    }
}

/// Joining an absolute path would leave the mount point and put the limits into plain files.
fn below(mount: &Path, path: &Path) -> PathBuf {
    if path.starts_with(mount) { path.to_owned() } else { mount.join(path.strip_prefix("/").unwrap_or(path)) }
}

/// The directory of all tasks on version 2.
fn slice(root: &Path, parent: &str) -> PathBuf {
    let parent = parent.trim_matches('/');
    root.join(format!("{}.slice", parent.strip_suffix(".slice").unwrap_or(parent)))
}

fn cores(grant: &AllocatedTask) -> String {
    grant.cpu.reserved_cores.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}

fn plan_v1(mounts: &BTreeMap<String, PathBuf>, wish: &Wish<'_>) -> TaskCgroups {
    let mut plan = TaskCgroups::default();
    let (soft, hard) = memory_bytes(wish.grant);
    let shares = wish.grant.cpu.cpu_shares.clamp(SHARES.0, SHARES.1);
    let cores = cores(wish.grant);
    for (controller, mount) in mounts {
        if let Some(path) = wish.overrides.v1.get(controller) {
            plan.joined.push(Joined { dir: below(mount, path), required: true });
            continue;
        }
        let limits_pids = controller == "pids" && wish.pids_limit.is_some();
        if wish.scope == Scope::Plain && !limits_pids && !PLAIN_CONTROLLERS.contains(&controller.as_str()) {
            continue;
        }
        let parent = below(mount, Path::new(wish.parent));
        let mut dir = parent.join(wish.name);
        if controller == "cpuset" {
            plan.partition = Some(parent.clone());
            if cores.is_empty() {
                plan.joined.push(Joined { dir: parent.join(partition::SHARE), required: false });
                continue;
            }
            dir = parent.join(partition::RESERVE).join(wish.name);
        }
        let mut limit = |file: &str, value: &dyn ToString, required| {
            plan.limits.push(Limit { file: dir.join(file), value: value.to_string(), required });
        };
        match controller.as_str() {
            "memory" => {
                if let Some(hard) = hard {
                    limit("memory.limit_in_bytes", &hard, true);
                }
                if let Some(soft) = soft {
                    limit("memory.soft_limit_in_bytes", &soft, false);
                }
                limit("memory.swappiness", &0, false);
            }
            "cpu" => limit("cpu.shares", &shares, true),
            "cpuset" => limit("cpuset.cpus", &cores, true),
            "devices" => {
                limit("devices.deny", &"a", false);
                for device in ALLOWED_DEVICES {
                    limit("devices.allow", device, false);
                }
            }
            "pids" => {
                if let Some(pids) = wish.pids_limit {
                    limit("pids.max", &pids, true);
                }
            }
            _ => {}
        }
        plan.dirs.insert(controller.clone(), dir);
    }
    plan
}

fn plan_v2(root: &Path, wish: &Wish<'_>) -> TaskCgroups {
    let mut plan = TaskCgroups::default();
    if let Some(path) = &wish.overrides.v2 {
        plan.joined.push(Joined { dir: below(root, path), required: true });
        return plan;
    }
    let (soft, hard) = memory_bytes(wish.grant);
    let cores = cores(wish.grant);
    let slice = slice(root, wish.parent);
    let part = if cores.is_empty() { partition::SHARE_SLICE } else { partition::RESERVE_SLICE };
    let dir = slice.join(part).join(format!("{}.scope", wish.name));
    let shares = wish.grant.cpu.cpu_shares.clamp(SHARES.0, SHARES.1);
    let weight = 1 + (shares - 2) * 9999 / 262_142;
    let mut limit = |file: &str, value: &dyn ToString, required| {
        plan.limits.push(Limit { file: dir.join(file), value: value.to_string(), required });
    };
    if let Some(hard) = hard {
        limit("memory.max", &hard, true);
        limit("memory.swap.max", &0, false);
    }
    if let Some(soft) = soft {
        limit("memory.low", &soft, false);
    }
    limit("cpu.weight", &weight, true);
    if !cores.is_empty() {
        limit("cpuset.cpus", &cores, true);
    }
    if let Some(pids) = wish.pids_limit {
        limit("pids.max", &pids, true);
    }
    plan.partition = Some(slice);
    plan.dirs.insert("unified".to_owned(), dir);
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
        if let Some(partition) = &self.partition {
            // Without it limits of memory and the like still work; cores of its own are a limit that is required.
            let _ = partition::prepare(partition);
        }
        for (controller, dir) in &self.dirs {
            if let Some(parent) = dir.parent() {
                fs::create_dir_all(parent).map_err(|error| named(parent, error))?;
                if controller == "unified" {
                    delegate(parent);
                }
            }
            fs::create_dir_all(dir).map_err(|error| named(dir, error))?;
            if controller == "cpuset" {
                partition::inherit(dir);
            }
        }
        for limit in &self.limits {
            if let Err(error) = write_control(&limit.file, &limit.value)
                && limit.required
            {
                return Err(named(&limit.file, error));
            }
        }
        self.rebalance();
        Ok(())
    }

    /// Has the task cores of its own?
    fn reserves(&self) -> bool {
        self.limits.iter().any(|limit| limit.file.ends_with("cpuset.cpus"))
    }

    /// Takes the cores of tasks that have their own away from all others, or gives them back.
    fn rebalance(&self) {
        if let Some(partition) = self.partition.as_ref().filter(|_| self.reserves()) {
            // Others only lose speed when this fails.
            let _ = partition::rebalance(partition);
        }
    }

    /// Moves the calling process into the groups.
    ///
    /// # Errors
    /// Names the group that could not be joined.
    pub fn join(&self) -> io::Result<()> {
        let own = self.dirs.values().map(|dir| (dir, true));
        let joined = self.joined.iter().map(|joined| (&joined.dir, joined.required));
        for (dir, required) in own.chain(joined) {
            let result = write_control(&dir.join("cgroup.procs"), "0");
            if let Err(error) = result
                && required
            {
                let text = format!("cannot join {}: {error}", dir.display());
                return Err(io::Error::new(error.kind(), text));
            }
        }
        Ok(())
    }

    /// Processes in the groups, and in groups that the task made below them.
    pub fn pids(&self) -> Vec<i32> {
        let dir = self.dirs.get("freezer").or_else(|| self.dirs.values().next());
        let mut found = Vec::new();
        for dir in dir.into_iter().flat_map(|dir| with_children(dir)) {
            let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            // A process that is just being reaped is listed as 0, and signalling 0 means one's own process group.
            found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
        }
        found
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
                match remove_group(dir) {
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
        self.rebalance();
        Ok(())
    }

    /// Removes those groups that are empty by now.
    pub fn clear(&self) {
        for dir in self.dirs.values() {
            let _ = remove_group(dir);
        }
        self.rebalance();
    }
}

/// A group and all groups below it, parents first. Most tasks make none.
fn with_children(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    let mut next = 0;
    while let Some(dir) = found.get(next) {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let children = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let children: Vec<PathBuf> = children.map(|entry| entry.path()).collect();
        found.extend(children);
        next += 1;
    }
    found
}

/// Removes a group with those that its task made below it. The files in a group go with it.
fn remove_group(dir: &Path) -> io::Result<()> {
    for child in with_children(dir).iter().skip(1).rev() {
        // What keeps one from going is told by the removal of its parent.
        let _ = fs::remove_dir(child);
    }
    fs::remove_dir(dir)
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
    let ancestors: Vec<&Path> =
        dir.ancestors().take_while(|dir| dir.join("cgroup.subtree_control").exists()).collect();
    for ancestor in ancestors.into_iter().rev() {
        for controller in ["+cpu", "+memory", "+pids", "+cpuset"] {
            let _ = fs::write(ancestor.join("cgroup.subtree_control"), controller);
        }
    }
}

#[cfg(test)]
mod tests;
