//! The directories of an allocation: made with the permissions tasks expect, handed to a successor, removed.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use nix::mount::MsFlags;
use nix::unistd::Gid;
use nix::unistd::Uid;

use crate::agent::files::beneath::Directory;
use crate::agent::files::beneath::Links;
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

/// Makes the directories of one task. Idempotent. `own_root`: the task will see its directory as `/`. True if the
/// place for secrets is a new one, so that whatever was put there before is gone.
///
/// The task may have run before, and may have put links where its directories should be: none is followed.
///
/// # Errors
/// Names the directory.
pub fn build_task(dirs: &TaskDirs, own_root: bool, secrets_mb: i64) -> Result<bool, DirsError> {
    make(&dirs.task, 0o777)?;
    if !own_root {
        give_to_nobody(&dirs.task)?;
    }
    let task = Directory::open(&dirs.task).map_err(failed("open", &dirs.task))?;
    let part = |name: &str, mode: u32| {
        let full = dirs.task.join(name);
        let made = task
            .create_all(Path::new(name), mode)
            .and_then(|_| task.directory(Path::new(name), Links::Refuse));
        let directory = made.map_err(failed("create", &full))?;
        fs::set_permissions(directory.as_path(), fs::Permissions::from_mode(mode))
            .map_err(failed("set the mode of", &full))?;
        Ok(directory)
    };
    give_to_nobody(&part("local", 0o777)?.as_path())?;
    let secrets = part("secrets", 0o777)?;
    let fresh = mount_secrets(&task, &secrets, if secrets_mb > 0 { secrets_mb } else { SECRETS_MB });
    // What is mounted now lies over what was opened before.
    give_to_nobody(&part("secrets", 0o777)?.as_path())?;
    let private = part("private", 0o700)?;
    if fs::metadata(private.as_path()).map_err(failed("look at", &dirs.private))?.uid()
        != Uid::effective().as_raw()
    {
        // A task without a root of its own can rename what is in its directory. What it says there is not believed.
        return Err(failed("use", &dirs.private)(io::Error::other(
            "the task has put a directory of its own there",
        )));
    }
    part("tmp", 0o1777)?;
    Ok(fresh)
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

/// Keeps secrets off the disk where that is possible: only root may mount, and not in every container. True if it
/// mounted something.
fn mount_secrets(task: &Directory, secrets: &Directory, size_mb: i64) -> bool {
    if !Uid::effective().is_root() || is_mount_point(task, secrets) {
        return false;
    }
    let place = secrets.as_path();
    let flags = MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let mount = |more: &str| {
        let options = format!("size={size_mb}m,mode=777{more}");
        nix::mount::mount(Some("tmpfs"), &place, Some("tmpfs"), flags, Some(options.as_str()))
    };
    // Kernels before 6.4 do not know how to keep such memory out of the swap space.
    let mounted = mount(",noswap").or_else(|_| mount(""));
    if let Err(error) = &mounted {
        tracing::debug!(%error, "secrets are kept in a plain directory");
    }
    mounted.is_ok()
}

fn is_mount_point(parent: &Directory, directory: &Directory) -> bool {
    let device = |directory: &Directory| fs::metadata(directory.as_path()).map(|meta| meta.dev()).ok();
    device(parent) != device(directory)
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
        // A link would hand its target to the successor: only what the tasks have written goes over.
        let real = Directory::open(&from).and_then(|former| former.directory(&part, Links::Refuse)).is_ok();
        if !real {
            continue;
        }
        let (from, to) = (from.join(&part), to.join(&part));
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
    detach(root, alloc)?;
    let dir = alloc_dir(root, alloc);
    match fs::remove_dir_all(&dir) {
        // Two may be at it.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !dir.exists() => Ok(()),
        other => other.map_err(failed("remove", &dir)),
    }
}

/// Unmounts what is mounted in the directory of an ended allocation: the memory that held its secrets, and whatever
/// else was left. The directory and its files stay.
///
/// # Errors
/// Something cannot be unmounted. The directory must then not be removed: that would reach the host's files.
pub fn detach(root: &Path, alloc: AllocId) -> Result<(), DirsError> {
    let dir = alloc_dir(root, alloc);
    crate::drivers::unmount_all_below(&dir).map_err(failed("unmount what is in", &dir))
}

/// Directories below `root` that are named like allocations.
///
/// # Errors
/// The directory exists and cannot be read.
pub fn present(root: &Path) -> Result<Vec<AllocId>, DirsError> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed("read", root))?,
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.parse().ok()).collect())
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

    #[test]
    fn links_that_a_task_left_behind_lead_nowhere() {
        let root = tempfile::tempdir().unwrap();
        let outside = root.path().join("outside");
        make(&outside, 0o750).unwrap();
        fs::write(outside.join("file"), "x").unwrap();
        let (former, next) = (AllocId::from_random([1; 16]), AllocId::from_random([2; 16]));
        let dirs = task_dirs(root.path(), former, "web");
        for alloc in [former, next] {
            build_shared(root.path(), alloc).unwrap();
        }
        build_task(&dirs, true, 0).unwrap();
        fs::remove_dir(&dirs.local).unwrap();
        std::os::unix::fs::symlink(&outside, &dirs.local).unwrap();
        let error = build_task(&dirs, true, 0).unwrap_err().to_string();
        assert!(error.starts_with("cannot create ") && error.contains("/local: "), "{error}");
        assert_eq!(fs::metadata(&outside).unwrap().permissions().mode() & 0o777, 0o750, "untouched");
        inherit(root.path(), former, next, &["web".into()]).unwrap();
        assert!(!task_dirs(root.path(), next, "web").local.exists(), "links are not handed over");
        remove(root.path(), former).unwrap();
        remove(root.path(), next).unwrap();
        assert!(outside.join("file").exists());
    }

    #[test]
    fn a_private_directory_of_the_tasks_own_is_not_used() {
        if !Uid::effective().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let alloc = AllocId::from_random([4; 16]);
        let dirs = task_dirs(root.path(), alloc, "web");
        build_shared(root.path(), alloc).unwrap();
        build_task(&dirs, false, 0).unwrap();
        fs::rename(&dirs.private, dirs.task.join("moved")).unwrap();
        fs::create_dir(&dirs.private).unwrap();
        give_to_nobody(&dirs.private).unwrap();
        let error = build_task(&dirs, false, 0).unwrap_err().to_string();
        assert!(error.ends_with("/web/private: the task has put a directory of its own there"), "{error}");
        remove(root.path(), alloc).unwrap();
    }

    #[test]
    fn directories_have_the_documented_owners_and_modes() {
        let root = tempfile::tempdir().unwrap();
        let alloc = AllocId::from_random([3; 16]);
        build_shared(root.path(), alloc).unwrap();
        for (task, own_root) in [("plain", false), ("rooted", true)] {
            assert_eq!(
                build_task(&task_dirs(root.path(), alloc, task), own_root, 3).unwrap(),
                Uid::effective().is_root()
            );
        }
        let dir = alloc_dir(root.path(), alloc);
        for (path, mode, owner) in [
            (".", 0o755, 0),
            ("alloc", 0o777, NOBODY),
            ("alloc/logs", 0o777, NOBODY),
            ("alloc/data", 0o777, NOBODY),
            ("alloc/tmp", 0o777, NOBODY),
            ("plain", 0o777, NOBODY),
            ("rooted", 0o777, 0),
            ("plain/local", 0o777, NOBODY),
            ("plain/secrets", 0o777, NOBODY),
            ("plain/private", 0o700, 0),
            ("plain/tmp", 0o1777, 0),
        ] {
            let meta = fs::metadata(dir.join(path)).unwrap();
            assert_eq!(meta.permissions().mode() & 0o7777, mode, "{path}");
            assert!(!Uid::effective().is_root() || meta.uid() == owner, "{path}: {}", meta.uid());
        }
        if Uid::effective().is_root() {
            let size = nix::sys::statvfs::statvfs(&dir.join("plain/secrets")).unwrap();
            assert_eq!(size.blocks() * size.fragment_size(), 3 << 20);
        }
        remove(root.path(), alloc).unwrap();
    }
}
