//! Runs one command inside a running task, with the task's namespaces, groups and rights.

use std::fs;
use std::io;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::time::Instant;

use nix::fcntl::FcntlArg;
use nix::fcntl::OFlag;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sched::CloneFlags;
use nix::sched::setns;
use nix::sys::signal::Signal;
use nix::sys::signal::killpg;
use nix::sys::wait::WaitStatus;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use nix::unistd::pipe2;

use super::child;
use super::child::Streams;
use super::landlock;
use super::spec;
use super::spec::ExecReply;
use super::spec::ExecSpec;

/// Output beyond this is read and dropped: scripts and checks say what they have to say in less.
const MAX_OUTPUT: usize = 1 << 20;

/// Serves one request and ends.
pub(super) fn execute(spec: ExecSpec, connection: &UnixStream) -> i32 {
    let reply = run(spec, connection).unwrap_or_else(ExecReply::Failed);
    i32::from(spec::send(connection, &reply).is_err())
}

/// Moves this process into the task, and completes the command's environment with the task's.
///
/// # Errors
/// The task is gone, or cannot be entered.
pub(super) fn enter(spec: &mut ExecSpec) -> Result<(), String> {
    let gone = || "the task is not running".to_owned();
    let task = spec.task.open().ok_or_else(gone)?;
    if spec.command.env.is_empty() {
        spec.command.env = environment_of(spec.task.pid).ok_or_else(gone)?;
    }
    // Groups are joined before the mounts change, while their files can still be seen.
    if let Err(error) = spec.cgroups.join() {
        return Err(error.to_string());
    }
    let processes = |of: &str| fs::read_link(format!("/proc/{of}/ns/pid")).ok();
    let among_all = spec.isolated && processes("self") == processes(&spec.task.pid.to_string());
    enter_namespaces(&task, spec.isolated)?;
    if among_all {
        landlock::keep_apart().map_err(|error| format!("cannot keep processes apart: {error}"))?;
    }
    Ok(())
}

fn run(mut spec: ExecSpec, connection: &UnixStream) -> Result<ExecReply, String> {
    enter(&mut spec)?;
    let (from, to) = pipe2(OFlag::O_CLOEXEC).map_err(|error| format!("cannot make a pipe: {error}"))?;
    let pid = child::spawn(&spec.command, &Streams { stdin: None, stdout: &to, stderr: &to }, || Ok(()))?;
    drop(to);
    let deadline = Instant::now() + Duration::from_millis(spec.timeout_ms);
    let output = collect(from, connection, deadline);
    // Whoever still writes after the deadline, or after the agent has gone, is ended with its whole session.
    if output.is_none() {
        // It may have ended just now.
        let _ = killpg(pid, Signal::SIGKILL);
    }
    let code = exit_code(pid, deadline, output.is_none());
    match (output, code) {
        (Some(output), Some(code)) => Ok(ExecReply::Done { code, output }),
        _ => Ok(ExecReply::TimedOut),
    }
}

fn enter_namespaces(task: &OwnedFd, isolated: bool) -> Result<(), String> {
    let own = CloneFlags::CLONE_NEWNET;
    let all = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC | own;
    let wanted = if isolated { all } else { own };
    match setns(task, wanted) {
        // Without rights there are no namespaces to enter either.
        Err(nix::errno::Errno::EPERM) if !isolated => Ok(()),
        result => result.map_err(|error| format!("cannot enter the task: {error}")),
    }
}

/// The environment that the task was started with.
fn environment_of(pid: i32) -> Option<std::collections::BTreeMap<String, String>> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
    Some(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// Reads until everything has been said; `None` when the time is over or nobody listens any more.
fn collect(from: OwnedFd, connection: &UnixStream, deadline: Instant) -> Option<Vec<u8>> {
    nix::fcntl::fcntl(&from, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).ok()?;
    let mut pipe = fs::File::from(from);
    let mut output = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        let mut watched = [
            PollFd::new(pipe.as_fd(), PollFlags::POLLIN),
            PollFd::new(connection.as_fd(), PollFlags::empty()),
        ];
        let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut watched, timeout);
        if watched[1].revents().is_some_and(|events| !events.is_empty()) {
            return None;
        }
        match pipe.read(&mut buffer) {
            Ok(0) => return Some(output),
            Ok(len) => {
                let room = MAX_OUTPUT - output.len();
                output.extend_from_slice(&buffer[..len.min(room)]);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => return Some(output),
        }
    }
}

/// A command may close its output and go on: it has until the deadline too.
fn exit_code(pid: Pid, deadline: Instant, mut killed: bool) -> Option<i32> {
    let process = crate::drivers::process::Process::of_pid(pid.as_raw()).ok().and_then(|found| found.open());
    if let Some(process) = process
        && !killed
    {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut watched = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX);
        if matches!(poll(&mut watched, timeout), Ok(0)) {
            let _ = killpg(pid, Signal::SIGKILL);
            killed = true;
        }
    }
    match waitpid(pid, None) {
        Ok(WaitStatus::Exited(_, code)) if !killed => Some(code),
        Ok(WaitStatus::Signaled(_, signal, _)) if !killed => Some(128 + signal as i32),
        _ => None,
    }
}
