//! The directories of an allocation: made with the permissions tasks expect, handed to a successor, removed.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use nix::mount::MntFlags;
use nix::mount::MsFlags;
use nix::unistd::Gid;
use nix::unistd::Uid;

use crate::drivers::TaskDirs;
use crate::model::id::AllocId;

/// The user and group `nobody`, who own what every task may write to.
const NOBODY: u32 = 65534;
/// Size of the memory file system for secrets when the job does not say, MiB.
const SECRETS_MB: i64 = 1;

/// Why directories cannot be made or removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path}: {source}", path = path.display())]
pub struct DirsError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirsError {
    let path = path.to_owned();
    move |source| DirsError { what, path, source }
}

/// The directory of an allocation below `root`.
pub fn alloc_dir(root: &Path, alloc: AllocId) -> PathBuf {
    root.join(alloc.to_string())
}

/// Where the directories of a task are.
pub fn task_dirs(root: &Path, alloc: AllocId, task: &str) -> TaskDirs {
    let alloc = alloc_dir(root, alloc);
    let shared = alloc.join("alloc");
    let task = alloc.join(task);
    TaskDirs {
        logs: shared.join("logs"),
        local: task.join("local"),
        secrets: task.join("secrets"),
        private: task.join("private"),
        shared,
        task,
        alloc,
    }
}

/// Makes the directories that tasks share. Idempotent.
///
/// # Errors
/// Names the directory.
pub fn build_shared(root: &Path, alloc: AllocId) -> Result<(), DirsError> {
    make(root, 0o711)?;
    let dir = alloc_dir(root, alloc);
    make(&dir, 0o755)?;
    let shared = dir.join("alloc");
    for dir in [&shared, &shared.join("logs"), &shared.join("data"), &shared.join("tmp")] {
        make(dir, 0o777)?;
        give_to_nobody(dir)?;
    }
    Ok(())
}

/// Makes the directories of one task. Idempotent. `own_root`: the task will see its directory as `/`.
///
/// # Errors
/// Names the directory.
pub fn build_task(dirs: &TaskDirs, own_root: bool, secrets_mb: i64) -> Result<(), DirsError> {
    make(&dirs.task, 0o777)?;
    if !own_root {
        give_to_nobody(&dirs.task)?;
    }
    make(&dirs.local, 0o777)?;
    give_to_nobody(&dirs.local)?;
    make(&dirs.secrets, 0o777)?;
    mount_secrets(&dirs.secrets, if secrets_mb > 0 { secrets_mb } else { SECRETS_MB })?;
    make(&dirs.private, 0o700)?;
    make(&dirs.task.join("tmp"), 0o1777)
}

fn make(dir: &Path, mode: u32) -> Result<(), DirsError> {
    fs::create_dir_all(dir).map_err(failed("create", dir))?;
    // Explicitly, since the umask took bits away.
    fs::set_permissions(dir, fs::Permissions::from_mode(mode)).map_err(failed("set the mode of", dir))
}

fn give_to_nobody(dir: &Path) -> Result<(), DirsError> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    nix::unistd::chown(dir, Some(Uid::from_raw(NOBODY)), Some(Gid::from_raw(NOBODY)))
        .map_err(|errno| failed("change the owner of", dir)(errno.into()))
}

/// Keeps secrets off the disk where that is possible: only root may mount, and not in every container.
fn mount_secrets(dir: &Path, size_mb: i64) -> Result<(), DirsError> {
    if Uid::effective().is_root() && !is_mount_point(dir) {
        let options = format!("size={size_mb}m,mode=777");
        let flags = MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        if let Err(error) =
            nix::mount::mount(Some("tmpfs"), dir, Some("tmpfs"), flags, Some(options.as_str()))
        {
            tracing::debug!(dir = %dir.display(), %error, "secrets are kept in a plain directory");
        }
    }
    give_to_nobody(dir)
}

fn is_mount_point(dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    dir.parent().is_some_and(|parent| device(dir) != device(parent))
}

/// Moves the data of an ended allocation to its successor: `alloc/data` and each task's `local`.
///
/// # Errors
/// Names the directory. What was moved before stays moved.
pub fn inherit(root: &Path, former: AllocId, alloc: AllocId, tasks: &[String]) -> Result<(), DirsError> {
    let (from, to) = (alloc_dir(root, former), alloc_dir(root, alloc));
    let mut parts = vec![PathBuf::from("alloc/data")];
    parts.extend(tasks.iter().map(|task| Path::new(task).join("local")));
    for part in parts {
        let (from, to) = (from.join(&part), to.join(&part));
        if !from.is_dir() {
            continue;
        }
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(failed("create", parent))?;
        }
        // An empty directory made by `build_shared` may be there already.
        if to.exists() {
            fs::remove_dir(&to).map_err(failed("replace", &to))?;
        }
        fs::rename(&from, &to).map_err(failed("move the data to", &to))?;
    }
    Ok(())
}

/// Removes everything of an ended allocation.
///
/// # Errors
/// Names the directory.
pub fn remove(root: &Path, alloc: AllocId) -> Result<(), DirsError> {
    let dir = alloc_dir(root, alloc);
    if !dir.exists() {
        return Ok(());
    }
    unmount_below(&dir);
    fs::remove_dir_all(&dir).map_err(failed("remove", &dir))
}

/// Detaches whatever is still mounted in a directory, deepest first: removal must never reach the host's files.
fn unmount_below(dir: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| PathBuf::from(field.replace("\\040", " ")))
        .filter(|point| point.starts_with(dir))
        .collect();
    points.sort();
    for point in points.iter().rev() {
        if let Err(error) = nix::mount::umount2(point, MntFlags::MNT_DETACH) {
            tracing::warn!(mount = %point.display(), %error, "cannot unmount");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_made_handed_over_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let (former, next) = (AllocId::from_random([1; 16]), AllocId::from_random([2; 16]));
        let dirs = task_dirs(root.path(), former, "web");
        build_shared(root.path(), former).unwrap();
        build_task(&dirs, false, 0).unwrap();
        build_task(&dirs, false, 0).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&dirs.local), 0o777);
        assert_eq!(mode(&dirs.alloc), 0o755);
        fs::write(dirs.shared.join("data/kept"), "x").unwrap();
        fs::write(dirs.local.join("kept"), "y").unwrap();
        build_shared(root.path(), next).unwrap();
        inherit(root.path(), former, next, &["web".into()]).unwrap();
        let new = task_dirs(root.path(), next, "web");
        assert_eq!(fs::read_to_string(new.shared.join("data/kept")).unwrap(), "x");
        assert_eq!(fs::read_to_string(new.local.join("kept")).unwrap(), "y");
        remove(root.path(), former).unwrap();
        remove(root.path(), former).unwrap();
        assert!(!dirs.alloc.exists());
        remove(root.path(), next).unwrap();
    }
}
