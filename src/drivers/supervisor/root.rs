//! Builds the root of an isolated task. All mounts live in the task's own mount namespace: they vanish with it, and the
//! host never sees them. Every path of the new root is resolved inside it, so links that an earlier run of the task
//! left behind cannot lead out.

use std::fs;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::NixPath;
use nix::mount::MntFlags;
use nix::mount::MsFlags;
use nix::mount::mount;
use nix::mount::umount2;
use nix::sched::CloneFlags;
use nix::sched::unshare;
use nix::unistd::chroot;
use nix::unistd::fchdir;
use nix::unistd::pivot_root;

use super::spec::Bind;
use super::spec::Isolation;

const NONE: Option<&str> = None;
const DEVICES: &[&str] = &["full", "null", "random", "tty", "urandom", "zero"];
const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];
/// Parts of `/proc` through which a task could change the machine.
const PROC_READ_ONLY: &[&str] = &["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"];
const PROC_HIDDEN: &[&str] = &["/proc/kcore", "/proc/keys", "/proc/timer_list"];

/// Gives the calling process its own namespaces and root. It must already be in its new pid namespace.
///
/// # Errors
/// Names the step that failed.
pub(super) fn enter(isolation: &Isolation) -> Result<(), String> {
    let ipc = if isolation.private_ipc { CloneFlags::CLONE_NEWIPC } else { CloneFlags::empty() };
    step("unshare", unshare(CloneFlags::CLONE_NEWNS | ipc))?;
    let follows = isolation.binds.iter().any(|bind| bind.follows_host);
    let kind = if follows { MsFlags::MS_SLAVE } else { MsFlags::MS_PRIVATE };
    step("make mounts private", mount(NONE, "/", NONE, MsFlags::MS_REC | kind, NONE))?;
    let root = &isolation.root;
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    step("bind the task directory", mount(Some(root), root, NONE, bind, NONE))?;
    step("make it private", mount(NONE, root, NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE))?;
    // Devices that a task makes for itself must not open the machine's disks.
    step("forbid devices", set_attributes(root, NO_DEV | NO_SUID, AT_RECURSIVE))?;
    let old_root = io_step("open /", open_path(Path::new("/")))?;
    let new_root = io_step("open the task directory", open_path(root))?;
    let mut sources = Vec::new();
    for bind in &isolation.binds {
        match open_path(&bind.from) {
            Ok(source) => sources.push((source, bind)),
            Err(_) if !bind.required => {}
            Err(error) => return io_step(&format!("open {}", bind.from.display()), Err(error)),
        }
    }
    let mut devices = Vec::new();
    for name in DEVICES {
        devices.push((io_step("open a device", open_path(&Path::new("/dev").join(name)))?, name));
    }
    // From here on every path is one of the new root.
    step("enter the task directory", fchdir(&new_root).and_then(|()| chroot(".")))?;
    mount_proc()?;
    for (source, bind) in &sources {
        show(source, bind)?;
    }
    mount_dev(&devices)?;
    mount_sys()?;
    protect_proc();
    for hidden in &isolation.hidden {
        make_dir(hidden)?;
        tmpfs(hidden, "size=0,mode=000", MsFlags::MS_RDONLY)?;
    }
    // Back out once more: only now can the old root be dropped for good.
    step("return", fchdir(&old_root).and_then(|()| chroot(".")).and_then(|()| fchdir(&new_root)))?;
    if isolation.no_pivot_root {
        // The old root cannot be dropped, but covered: nothing below it can be named any more.
        step("cover the old root", mount(Some("."), "/", NONE, MsFlags::MS_MOVE, NONE))?;
        step("chroot", chroot("."))?;
    } else {
        step("pivot_root", pivot_root(".", "."))?;
        step("drop the old root", umount2(".", MntFlags::MNT_DETACH))?;
    }
    step("chdir /", nix::unistd::chdir("/"))
}

fn step<T>(what: &str, result: nix::Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("cannot isolate the task: {what}: {error}"))
}

fn io_step<T>(what: &str, result: io::Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("cannot isolate the task: {what}: {error}"))
}

fn open_path(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)
}

/// The name under which an open file can be mounted although its path is out of reach.
fn by_descriptor(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn make_dir(path: &Path) -> Result<(), String> {
    io_step(&format!("make {}", path.display()), fs::create_dir_all(path))
}

fn tmpfs(path: &Path, options: &str, flags: MsFlags) -> Result<(), String> {
    let flags = flags | MsFlags::MS_NOSUID;
    step(
        &format!("mount {}", path.display()),
        mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options)),
    )
}

fn mount_proc() -> Result<(), String> {
    let path = Path::new("/proc");
    make_dir(path)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    step("mount /proc", mount(Some("proc"), path, Some("proc"), flags, NONE))
}

fn show(source: &File, bind: &Bind) -> Result<(), String> {
    let is_dir = io_step(&format!("look at {}", bind.from.display()), source.metadata())?.is_dir();
    if is_dir {
        make_dir(&bind.to)?;
    } else {
        if let Some(parent) = bind.to.parent() {
            make_dir(parent)?;
        }
        if !bind.to.exists() {
            io_step(&format!("make {}", bind.to.display()), File::create(&bind.to).map(drop))?;
        }
    }
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    let what = format!("mount {} at {}", bind.from.display(), bind.to.display());
    step(&what, mount(Some(by_descriptor(source).as_str()), &bind.to, NONE, flags, NONE))?;
    if !bind.follows_host {
        step(&what, mount(NONE, &bind.to, NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE))?;
    }
    let read_only = if bind.read_only { READ_ONLY } else { 0 };
    // Devices made in a directory that is shared must not open the machine's disks either.
    step(&what, set_attributes(&bind.to, read_only | NO_SUID | NO_DEV, AT_RECURSIVE))
}

const READ_ONLY: u64 = 1;
const NO_SUID: u64 = 2;
const NO_DEV: u64 = 4;
const AT_RECURSIVE: libc::c_uint = 0x8000;

/// Makes a mount read-only with everything mounted below it: the ordinary remount would leave those writable.
fn make_read_only(path: &Path) -> nix::Result<()> {
    set_attributes(path, READ_ONLY | NO_SUID, AT_RECURSIVE)
}

/// `mount_setattr`, of Linux 5.12 and later.
fn set_attributes(path: &Path, set: u64, flags: libc::c_uint) -> nix::Result<()> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let attr = MountAttr { set, clear: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path ends in a zero byte and the structure lives for the whole call.
    let result = path.with_nix_path(|path| unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })?;
    nix::errno::Errno::result(result).map(drop)
}

fn mount_dev(devices: &[(File, &&str)]) -> Result<(), String> {
    let dev = Path::new("/dev");
    make_dir(dev)?;
    tmpfs(dev, "size=64k,mode=755", MsFlags::MS_NOEXEC)?;
    for (source, name) in devices {
        let path = dev.join(name);
        io_step("make a device", File::create(&path).map(drop))?;
        let source = by_descriptor(source);
        step("mount a device", mount(Some(source.as_str()), &path, NONE, MsFlags::MS_BIND, NONE))?;
    }
    for directory in ["shm", "pts", "mqueue"] {
        make_dir(&dev.join(directory))?;
    }
    tmpfs(&dev.join("shm"), "size=65536k,mode=1777", MsFlags::MS_NODEV | MsFlags::MS_NOEXEC)?;
    let options = Some("newinstance,ptmxmode=0666,mode=0620");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    step("mount /dev/pts", mount(Some("devpts"), &dev.join("pts"), Some("devpts"), flags, options))?;
    // Message queues exist only where the kernel was built with them.
    let _ = mount(Some("mqueue"), &dev.join("mqueue"), Some("mqueue"), flags | MsFlags::MS_NODEV, NONE);
    for (target, link) in LINKS {
        io_step("make a link in /dev", symlink(target, link))?;
    }
    // What stands below is mounted separately and stays writable.
    step("make /dev read-only", set_attributes(dev, READ_ONLY, 0))?;
    let tmp = Path::new("/tmp");
    make_dir(tmp)?;
    io_step("set the mode of /tmp", fs::set_permissions(tmp, fs::Permissions::from_mode(0o1777)))
}

fn mount_sys() -> Result<(), String> {
    let sys = Path::new("/sys");
    make_dir(sys)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    step("mount /sys", mount(Some("sysfs"), sys, Some("sysfs"), flags, NONE))?;
    let _ = tmpfs(Path::new("/sys/firmware"), "size=0,mode=755", MsFlags::MS_RDONLY);
    Ok(())
}

/// Best effort: which of these exist depends on the kernel.
fn protect_proc() {
    for path in PROC_READ_ONLY {
        if mount(Some(*path), *path, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE).is_ok() {
            let _ = make_read_only(Path::new(path));
        }
    }
    for path in PROC_HIDDEN {
        let _ = mount(Some("/dev/null"), *path, NONE, MsFlags::MS_BIND, NONE);
    }
}
