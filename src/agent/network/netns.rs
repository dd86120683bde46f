//! Network namespaces that live as files below `/var/run/netns`, where `ip netns` finds them, too.

use std::fs;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::Flock;
use nix::fcntl::FlockArg;
use nix::mount::MntFlags;
use nix::mount::MsFlags;
use nix::mount::mount;
use nix::mount::umount2;
use nix::sched::CloneFlags;
use nix::sched::unshare;

const NONE: Option<&str> = None;
/// The file system type of namespaces.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Makes a namespace with its loopback up, kept alive by a mount at `path`. `lock` keeps agents apart that prepare
/// the directory at the same time.
///
/// # Errors
/// Names the step that failed; nothing is left behind then.
pub(super) fn create(path: &Path, lock: &Path) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    prepare(dir, lock)?;
    File::create(path)?;
    let target = path.to_owned();
    // A thread of its own: it moves into the new namespace and must not serve anything else afterwards.
    let made = std::thread::spawn(move || -> io::Result<()> {
        step("make a network namespace", unshare(CloneFlags::CLONE_NEWNET))?;
        loopback_up().map_err(|error| io::Error::other(format!("bring up the loopback: {error}")))?;
        let own = Some("/proc/thread-self/ns/net");
        step("keep the network namespace", mount(own, &target, NONE, MsFlags::MS_BIND, NONE))
    });
    let made = made.join().unwrap_or_else(|_| Err(io::Error::other("the thread died")));
    if made.is_err() {
        let _ = fs::remove_file(path);
    }
    made
}

/// Keeps a namespace alive that somebody else has made, by a mount at `path`; `lock` as for [`create`].
///
/// # Errors
/// There is none at `made`, or it cannot be mounted; nothing is left behind then.
pub(super) fn adopt(made: &Path, path: &Path, lock: &Path) -> io::Result<()> {
    if !is_there(made) {
        return Err(io::Error::other(format!("find a network namespace at {}", made.display())));
    }
    prepare(path.parent().unwrap_or(Path::new("/")), lock)?;
    File::create(path)?;
    let kept = mount(Some(made), path, NONE, MsFlags::MS_BIND, NONE);
    if kept.is_err() {
        let _ = fs::remove_file(path);
    }
    step("keep the network namespace", kept)
}

/// True if a namespace is mounted at `path`.
pub(super) fn is_there(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|stat| u64::try_from(stat.filesystem_type().0) == Ok(NSFS_MAGIC))
}

/// Some process in the namespace at `path`, other than those that `hold` it and do nothing else.
pub(super) fn inhabitant(path: &Path, hold: &str) -> Option<i32> {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let wanted = identity(path)?;
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.find(|pid| {
        let own = Path::new("/proc").join(pid.to_string());
        let command = || fs::read_to_string(own.join("cmdline")).unwrap_or_default();
        identity(&own.join("ns/net")) == Some(wanted) && command().trim_end_matches('\0') != hold
    })
}

/// Lets go of a namespace: it vanishes with its last process. Idempotent.
///
/// # Errors
/// The mount or its file cannot be removed.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    loop {
        // Mounts may be stacked where two programs have prepared the directory.
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(error) => return Err(io::Error::other(format!("unmount {}: {error}", path.display()))),
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn step<T>(what: &str, result: nix::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::other(format!("{what}: {error}")))
}

/// Makes the directory a shared mount, so that what is mounted in it is seen, and later gone, everywhere.
fn prepare(dir: &Path, lock: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let lock = File::options().create(true).truncate(false).write(true).open(lock)?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| io::Error::from(error))?;
    let shared = MsFlags::MS_SHARED | MsFlags::MS_REC;
    match mount(NONE, dir, NONE, shared, NONE) {
        Err(Errno::EINVAL) => {
            let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
            step("prepare the directory of namespaces", mount(Some(dir), dir, NONE, bind, NONE))?;
            step("share the directory of namespaces", mount(NONE, dir, NONE, shared, NONE))
        }
        result => step("share the directory of namespaces", result),
    }
}

/// Of the calling thread's namespace.
fn loopback_up() -> io::Result<()> {
    // SAFETY: a plain system call; the result is checked.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened and owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: a structure of plain numbers, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the kernel reads the structure during the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_made_found_and_removed() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("netns/one");
        let lock = dir.path().join("lock");
        create(&path, &lock).unwrap();
        assert!(is_there(&path));
        let own = nix::sys::stat::stat("/proc/self/ns/net").unwrap().st_ino;
        assert_ne!(nix::sys::stat::stat(&path).unwrap().st_ino, own);
        assert_eq!(inhabitant(&path, "/pause"), None);
        assert!(inhabitant(Path::new("/proc/self/ns/net"), "/pause").is_some());
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!is_there(&path));
        umount2(&dir.path().join("netns"), MntFlags::MNT_DETACH).unwrap();
    }
}
