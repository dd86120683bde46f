//! The last steps before a task's program takes over: join groups and namespaces, give up rights, execute.

use std::ffi::CString;
use std::fs;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::fcntl::OpenHow;
use nix::fcntl::ResolveFlag;
use nix::fcntl::openat2;
use nix::sched::CloneFlags;
use nix::sched::setns;
use nix::sys::prctl;
use nix::sys::signal::SigHandler;
use nix::sys::signal::SigSet;
use nix::sys::signal::SigmaskHow;
use nix::sys::signal::Signal;
use nix::sys::signal::signal;
use nix::sys::signal::sigprocmask;
use nix::unistd::ForkResult;
use nix::unistd::Gid;
use nix::unistd::Pid;
use nix::unistd::Uid;
use nix::unistd::fork;
use nix::unistd::pipe2;
use nix::unistd::setgid;
use nix::unistd::setgroups;
use nix::unistd::setuid;

use super::spec::CommandSpec;

/// Standard input, output and error of a new process.
pub(super) struct Streams<'a> {
    /// Nothing to read when absent.
    pub(super) stdin: Option<&'a OwnedFd>,
    pub(super) stdout: &'a OwnedFd,
    pub(super) stderr: &'a OwnedFd,
}

/// Forks, lets the child `prepare`, and executes the command. Returns once the program runs.
///
/// # Errors
/// The text says which step failed and why.
pub(super) fn spawn(
    command: &CommandSpec,
    streams: &Streams<'_>,
    prepare: impl FnOnce() -> Result<(), String>,
) -> Result<Pid, String> {
    let (errors_out, errors_in) =
        pipe2(OFlag::O_CLOEXEC).map_err(|error| format!("cannot make a pipe: {error}"))?;
    // SAFETY: the supervisor has a single thread.
    match unsafe { fork() }.map_err(|error| format!("cannot fork: {error}"))? {
        ForkResult::Child => {
            drop(errors_out);
            let Err(text) = become_program(command, streams, prepare);
            let _ = fs::File::from(errors_in).write_all(text.as_bytes());
            // SAFETY: ends this child without running anything that belongs to its parent.
            unsafe { libc::_exit(127) }
        }
        ForkResult::Parent { child } => {
            drop(errors_in);
            // The pipe closes by itself when the program is executed.
            let mut text = String::new();
            let read = fs::File::from(errors_out).read_to_string(&mut text);
            if read.is_ok() && text.is_empty() {
                return Ok(child);
            }
            let _ = nix::sys::wait::waitpid(child, None);
            Err(text)
        }
    }
}

enum Never {}

fn become_program(
    command: &CommandSpec,
    streams: &Streams<'_>,
    prepare: impl FnOnce() -> Result<(), String>,
) -> Result<Never, String> {
    redirect(streams).map_err(|error| format!("cannot redirect input and output: {error}"))?;
    reset_signals();
    let _ = nix::unistd::setsid();
    prepare()?;
    nix::unistd::chdir(&command.cwd)
        .map_err(|error| format!("cannot change to directory {}: {error}", command.cwd.display()))?;
    let program = find_program(command)?;
    give_up_rights(command)?;
    execute(command, &program)
}

fn redirect(streams: &Streams<'_>) -> io::Result<()> {
    let null = fs::File::open("/dev/null")?;
    let stdin = streams.stdin.map_or(null.as_raw_fd(), AsRawFd::as_raw_fd);
    let ours = [stdin, streams.stdout.as_raw_fd(), streams.stderr.as_raw_fd()];
    // Descriptors may already have the numbers that are to be replaced: move them out of the way first.
    let mut moved = [0; 3];
    for (fd, moved) in ours.iter().zip(&mut moved) {
        // SAFETY: plain system calls on descriptors that are open.
        *moved = unsafe { libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, 10) };
        if *moved < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    for (fd, number) in moved.iter().zip(0..) {
        // SAFETY: as above; the copy stays open across the execution.
        if unsafe { libc::dup2(*fd, number) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Rust ignores SIGPIPE, the supervisor blocks some signals, and whoever started the agent may have had others ignored
/// (`nohup`, `&` in a script). Programs expect none of that: a shell cannot even trap what it finds ignored.
fn reset_signals() {
    for ignored in Signal::iterator() {
        // SAFETY: restores default dispositions. Fails for those that cannot be ignored.
        let _ = unsafe { signal(ignored, SigHandler::SigDfl) };
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

fn find_program(command: &CommandSpec) -> Result<std::path::PathBuf, String> {
    let found = command.candidates.iter().find(|path| path.is_file());
    let path = found.ok_or_else(|| command.not_found.clone())?;
    if let Some(own) = &command.own {
        // Downloaded programs often lack the bit. If it cannot be set, executing says so.
        let _ = make_executable(own, path);
    }
    Ok(path.clone())
}

/// Sets the bits of a file below `own`. Rights are not yet given up here, so what could be something else than the task's
/// own file is left alone: whatever is behind a link or a mount, or has another name elsewhere.
fn make_executable(own: &Path, path: &Path) -> io::Result<()> {
    let Ok(inside) = path.strip_prefix(own) else { return Ok(()) };
    let dir = fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(own)?;
    let how = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).resolve(
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV,
    );
    let file = fs::File::from(openat2(&dir, inside, how)?);
    let metadata = file.metadata()?;
    let mode = metadata.permissions().mode();
    if metadata.is_file() && metadata.nlink() == 1 && mode & 0o111 == 0 {
        file.set_permissions(fs::Permissions::from_mode(mode | 0o555))?;
    }
    Ok(())
}

fn give_up_rights(command: &CommandSpec) -> Result<(), String> {
    if let Some(kept) = &command.capabilities {
        for capability in 0..64u8 {
            if !kept.bounding.contains(&capability) {
                // SAFETY: a plain system call; numbers the kernel does not know are refused, which is fine.
                unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
            }
        }
        prctl::set_no_new_privs().map_err(|error| format!("cannot set no_new_privs: {error}"))?;
    }
    let Some(user) = &command.user else { return Ok(()) };
    let as_user = |error| format!("cannot become user {}: {error}", user.uid);
    let kept = command.capabilities.as_ref().filter(|_| user.uid != 0);
    if kept.is_some() {
        // Without this the kernel clears everything when the user changes.
        // SAFETY: a plain system call.
        unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) };
    }
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).map_err(as_user)?;
    setgid(Gid::from_raw(user.gid)).map_err(as_user)?;
    setuid(Uid::from_raw(user.uid)).map_err(as_user)?;
    if let Some(kept) = kept {
        keep_capabilities(&kept.ambient).map_err(|error| format!("cannot set capabilities: {error}"))?;
    }
    Ok(())
}

/// Makes exactly `kept` permitted, effective, inheritable and ambient.
fn keep_capabilities(kept: &[u8]) -> Result<(), caps::errors::CapsError> {
    let known = caps::all();
    let set: caps::CapsHashSet = known.into_iter().filter(|cap| kept.contains(&cap.index())).collect();
    for kind in [caps::CapSet::Inheritable, caps::CapSet::Effective, caps::CapSet::Permitted] {
        caps::set(None, kind, &set)?;
    }
    caps::set(None, caps::CapSet::Ambient, &set)
}

fn execute(command: &CommandSpec, program: &Path) -> Result<Never, String> {
    let text =
        |bytes: &[u8]| CString::new(bytes).map_err(|_| "a zero byte in arguments or environment".to_owned());
    let path = text(program.as_os_str().as_bytes())?;
    let mut args = vec![text(command.name.as_bytes())?];
    for arg in &command.args {
        args.push(text(arg.as_bytes())?);
    }
    let mut env = Vec::new();
    for (name, value) in &command.env {
        env.push(text(format!("{name}={value}").as_bytes())?);
    }
    let Err(error) = nix::unistd::execve(&path, &args, &env);
    Err(format!("fork/exec {}: {}", program.display(), error.desc().to_lowercase()))
}

/// Enters a network namespace by its path.
pub(super) fn enter_network(path: &Path) -> Result<(), String> {
    let file = fs::File::open(path)
        .map_err(|error| format!("cannot open network namespace {}: {error}", path.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET)
        .map_err(|error| format!("cannot join network namespace {}: {error}", path.display()))
}
