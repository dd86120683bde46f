//! Divides a machine's processors: tasks with cores of their own have those in `reserve`, all others share the rest in
//! `share`. What is reserved is read from the groups that exist, so nothing needs to be remembered.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::Flock;
use nix::fcntl::FlockArg;

use super::Hierarchy;

/// Names of the parts on version 1.
pub(super) const SHARE: &str = "share";
pub(super) const RESERVE: &str = "reserve";
/// Names of the parts on version 2.
pub(super) const SHARE_SLICE: &str = "share.slice";
pub(super) const RESERVE_SLICE: &str = "reserve.slice";

/// The division of a machine's processors, for tasks whose control groups somebody else makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    partition: PathBuf,
}

impl Cores {
    /// Below the directory that all tasks of an agent have; `None` on a machine that cannot divide them.
    pub fn of(hierarchy: &Hierarchy, parent: &str) -> Option<Self> {
        let partition = match hierarchy {
            Hierarchy::V1(mounts) => super::below(mounts.get("cpuset")?, Path::new(parent)),
            Hierarchy::V2(root) => super::slice(root, parent),
            Hierarchy::None => return None,
        };
        Some(Self { partition })
    }

    fn group(&self, name: &str) -> PathBuf {
        let (_, reserve) = parts(&self.partition);
        if is_v2(&self.partition) { reserve.join(format!("{name}.scope")) } else { reserve.join(name) }
    }

    /// Takes these cores, as a list, away from all others until they are released.
    ///
    /// # Errors
    /// Names the group that cannot be made.
    pub fn reserve(&self, name: &str, cores: &str) -> io::Result<()> {
        let group = self.group(name);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", group.display()));
        prepare(&self.partition)?;
        if is_v2(&self.partition) {
            super::delegate(&parts(&self.partition).1);
        }
        fs::create_dir_all(&group).map_err(named)?;
        inherit(&group);
        super::write_control(&group.join("cpuset.cpus"), cores).map_err(named)?;
        // Others only lose speed when this fails.
        let _ = rebalance(&self.partition);
        Ok(())
    }

    /// Gives them back. Idempotent.
    pub fn release(&self, name: &str) {
        if fs::remove_dir(self.group(name)).is_ok() {
            let _ = rebalance(&self.partition);
        }
    }

    /// Names of reservations without processes that are older than `age`.
    pub fn idle(&self, age: Duration) -> Vec<String> {
        let (_, reserve) = parts(&self.partition);
        let groups = fs::read_dir(reserve).into_iter().flatten().flatten();
        let idle = groups.filter(|group| {
            let old = group.metadata().and_then(|meta| meta.modified()).ok();
            let old = old.and_then(|made| made.elapsed().ok()).is_some_and(|elapsed| elapsed >= age);
            let processes = fs::read_to_string(group.path().join("cgroup.procs"));
            old && processes.is_ok_and(|processes| processes.is_empty())
        });
        let names = idle.filter_map(|group| group.file_name().into_string().ok());
        names.map(|name| name.trim_end_matches(".scope").to_owned()).collect()
    }

    /// The cores left for all, as a list; `None` while they have never been divided.
    pub fn shared(&self) -> Option<String> {
        let (share, _) = parts(&self.partition);
        let own = fs::read_to_string(share.join("cpuset.cpus")).ok()?;
        Some(own.trim().to_owned()).filter(|list| !list.is_empty())
    }

    /// Are these all cores that tasks can have?
    pub fn is_everything(&self, list: &str) -> bool {
        usable(&self.partition).is_ok_and(|usable| parse(list) == usable)
    }
}

/// Makes both parts. `partition` is the group that holds them.
///
/// # Errors
/// Groups cannot be made here.
pub(super) fn prepare(partition: &Path) -> io::Result<()> {
    let (share, reserve) = parts(partition);
    if share.is_dir() && reserve.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(partition)?;
    inherit(partition);
    for part in [share, reserve] {
        fs::create_dir_all(&part)?;
        inherit(&part);
    }
    Ok(())
}

fn is_v2(partition: &Path) -> bool {
    partition.extension().is_some_and(|end| end == "slice")
}

fn parts(partition: &Path) -> (PathBuf, PathBuf) {
    let (share, reserve) = if is_v2(partition) { (SHARE_SLICE, RESERVE_SLICE) } else { (SHARE, RESERVE) };
    (partition.join(share), partition.join(reserve))
}

/// A new group of version 1 is empty and cannot be joined until it has processors and memory nodes. Those of version 2
/// have their parent's.
pub(super) fn inherit(dir: &Path) {
    let Some(parent) = dir.parent() else { return };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = fs::read_to_string(dir.join(file)).unwrap_or_default();
        if own.trim().is_empty()
            && let Ok(value) = fs::read_to_string(parent.join(file))
            && !value.trim().is_empty()
        {
            let _ = super::write_control(&dir.join(file), value.trim());
        }
    }
}

/// Gives `share` all processors that no group in `reserve` has; all of them when none would be left.
///
/// # Errors
/// A control file cannot be read or written.
pub(super) fn rebalance(partition: &Path) -> io::Result<()> {
    // Supervisors do this side by side: the last one must see what all others did.
    let lock = Flock::lock(fs::File::open(partition)?, FlockArg::LockExclusive);
    let _lock = lock.map_err(|(_, error)| io::Error::from(error))?;
    let (share, reserve) = parts(partition);
    let usable = usable(partition)?;
    let mut left = usable.clone();
    for entry in fs::read_dir(reserve)? {
        let cores = fs::read_to_string(entry?.path().join("cpuset.cpus")).unwrap_or_default();
        for core in parse(&cores) {
            left.remove(&core);
        }
    }
    let wanted = if left.is_empty() { &usable } else { &left };
    let text = wanted.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    super::write_control(&share.join("cpuset.cpus"), &text)
}

/// What is there to be divided.
fn usable(partition: &Path) -> io::Result<BTreeSet<u32>> {
    let all = if is_v2(partition) { "cpuset.cpus.effective" } else { "cpuset.cpus" };
    Ok(parse(&fs::read_to_string(partition.join(all))?))
}

/// Reads a list such as `0-3,8`.
fn parse(list: &str) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            found.extend(first..=last);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(path: &Path) -> String {
        // Control files are overwritten from their beginning; plain ones keep what was longer.
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn shared_tasks_lose_reserved_cores_and_get_them_back() {
        for (name, share, reserve, all) in [
            ("nomad", SHARE, RESERVE, "cpuset.cpus"),
            ("nomad.slice", SHARE_SLICE, RESERVE_SLICE, "cpuset.cpus.effective"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let partition = dir.path().join(name);
            file(&partition.join(all), "0-3\n");
            file(&partition.join(share).join("cpuset.cpus"), "");
            file(&partition.join(reserve).join("a/cpuset.cpus"), "1,3\n");
            rebalance(&partition).unwrap();
            assert_eq!(read(&partition.join(share).join("cpuset.cpus")), "0,2");
            fs::remove_dir_all(partition.join(reserve).join("a")).unwrap();
            rebalance(&partition).unwrap();
            assert_eq!(read(&partition.join(share).join("cpuset.cpus")), "0,1,2,3");
        }
    }

    #[test]
    fn somebody_must_keep_a_core() {
        let dir = tempfile::tempdir().unwrap();
        let partition = dir.path().join("nomad");
        file(&partition.join("cpuset.cpus"), "0-1\n");
        file(&partition.join("share/cpuset.cpus"), "");
        file(&partition.join("reserve/a/cpuset.cpus"), "0-1\n");
        rebalance(&partition).unwrap();
        assert_eq!(read(&partition.join("share/cpuset.cpus")), "0,1");
    }

    #[test]
    fn new_groups_take_over_processors_and_memory() {
        let dir = tempfile::tempdir().unwrap();
        file(&dir.path().join("cpuset.cpus"), "0-1\n");
        file(&dir.path().join("cpuset.mems"), "0\n");
        let group = dir.path().join("nomad");
        file(&group.join("cpuset.cpus"), "");
        file(&group.join("cpuset.mems"), "");
        inherit(&group);
        assert_eq!(
            (read(&group.join("cpuset.cpus")), read(&group.join("cpuset.mems"))),
            ("0-1".into(), "0".into())
        );
    }
}
