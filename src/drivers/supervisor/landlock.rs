//! Keeps a task that sees the processes of the machine from looking through those of its own user: by way of
//! `/proc/<pid>/root` it would reach that process's files, with its own rights, and by `/proc/<pid>/mem` its memory.
//!
//! A process in a domain of Landlock can do that to processes of the same domain only. Nothing else is restricted.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::raw::c_void;
use std::os::unix::fs::OpenOptionsExt;

/// Asks `landlock_create_ruleset` for the version of the interface.
const VERSION: libc::c_uint = 1;
/// `LANDLOCK_RULE_PATH_BENEATH`.
const PATH_BENEATH: libc::c_int = 1;
/// `LANDLOCK_ACCESS_FS_REFER`: to move files between directories, which every domain forbids unless a rule allows it.
const REFER: u64 = 1 << 13;
/// The first version that knows [`REFER`]. With an older one, moving files could not be allowed.
const FIRST_WITH_REFER: libc::c_long = 2;

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// Puts the calling process, and all that it starts, into a domain of their own. On kernels without Landlock (before
/// 5.19, or where it is switched off) nothing happens. Needs the right to administer the system.
///
/// # Errors
/// The kernel refuses.
pub(super) fn keep_apart() -> io::Result<()> {
    // SAFETY: asks for a number; no memory is involved.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<c_void>(), 0_usize, VERSION)
    };
    if version < FIRST_WITH_REFER {
        return Ok(());
    }
    let root = File::options().read(true).custom_flags(libc::O_PATH).open("/")?;
    let handled = REFER;
    // SAFETY: `handled` is the whole of the smallest `landlock_ruleset_attr`, and its size is given.
    let ruleset = checked(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, size_of_val(&handled), 0)
    })?;
    let ruleset = i32::try_from(ruleset).map_err(io::Error::other)?;
    // SAFETY: the call has just returned this descriptor, and nobody else knows it.
    let ruleset = unsafe { OwnedFd::from_raw_fd(ruleset) };
    let rule = PathBeneath { allowed: REFER, parent: root.as_raw_fd() };
    // SAFETY: `rule` has the layout of its kind and outlives the call.
    checked(unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), PATH_BENEATH, &raw const rule, 0)
    })?;
    // SAFETY: no memory is involved.
    checked(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })?;
    Ok(())
}

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
