//! The supervisor of one task: starts it, copies its output, reaps it, and writes down how it ended.

use std::fs;
use std::io;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use nix::fcntl::OFlag;
use nix::fcntl::open;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sched::CloneFlags;
use nix::sched::unshare;
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::sys::signalfd::SfdFlags;
use nix::sys::signalfd::SignalFd;
use nix::sys::stat::Mode;
use nix::sys::wait::WaitPidFlag;
use nix::sys::wait::WaitStatus;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use nix::unistd::pipe2;

use crate::drivers::ExitStatus;
use crate::drivers::cgroup::TaskCgroups;
use crate::drivers::logs::RotatingFile;
use crate::drivers::process::Process;

use super::child;
use super::child::Streams;
use super::root;
use super::spec;
use super::spec::RunReply;
use super::spec::Running;
use super::spec::TaskSpec;

/// Read at a time from the task's output.
const CHUNK: usize = 16 * 1024;
/// How long killed processes may take to vanish before the supervisor gives up on them.
const REAP_LIMIT: Duration = Duration::from_secs(10);
/// The supervisor must be the last to go when memory is short.
const OWN_OOM_SCORE: i32 = -900;

/// The file in which the supervisor leaves the exit status.
pub fn exit_file(prefix: &Path) -> PathBuf {
    prefix.with_extension("exit")
}

/// The file that says who runs, for an agent that died before it could write that down itself.
pub fn state_file(prefix: &Path) -> PathBuf {
    prefix.with_extension("state")
}

/// Runs in a process of its own until the task has ended.
pub(super) fn supervise(mut spec: TaskSpec, connection: UnixStream) -> i32 {
    let _ = prctl::set_name(c"herder-task");
    let held = hold(&spec.prefix);
    let started = match &held {
        Ok((_, files)) => start(&mut spec, files),
        Err(error) => Err(format!("cannot open the directory of {}: {error}", spec.prefix.display())),
    };
    let (reply, task) = match started {
        Ok((running, task)) => (RunReply::Started(running), Some(task)),
        Err(text) => {
            spec.cgroups.kill();
            let _ = spec.cgroups.remove();
            (RunReply::Failed(text), None)
        }
    };
    // If the agent is gone by now it will find the task by its files.
    let _ = spec::send(&connection, &reply);
    drop(connection);
    let Some(task) = task else { return 1 };
    let Ok((_directory, files)) = held else { return 1 };
    let cgroups = spec.cgroups.clone();
    // Environment and paths are not needed again.
    drop(spec);
    let status = task.run(&cgroups);
    let written = write_json(&exit_file(&files), &status);
    let _ = fs::remove_file(state_file(&files));
    cgroups.clear();
    i32::from(written.is_err())
}

/// A running task, as its supervisor sees it.
struct Task {
    pid: Pid,
    signals: SignalFd,
    streams: Vec<Stream>,
}

struct Stream {
    pipe: fs::File,
    file: Option<RotatingFile>,
}

/// The files' prefix by way of their directory, which is held open: a task without a root of its own could put
/// something else in its place.
fn hold(prefix: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let (Some(directory), Some(name)) = (prefix.parent(), prefix.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = open(directory, flags, Mode::empty())?;
    let files = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    Ok((directory, files))
}

/// The files that tell of the task are named `files`, with different ends.
fn start(spec: &mut TaskSpec, files: &Path) -> Result<(Running, Task), String> {
    prctl::set_child_subreaper(true).map_err(|error| format!("cannot become a subreaper: {error}"))?;
    let previous_score = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.add(Signal::SIGUSR1);
    mask.thread_block().map_err(|error| format!("cannot block signals: {error}"))?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(|error| format!("cannot watch signals: {error}"))?;
    spec.cgroups.kill();
    if let Err(error) = spec.cgroups.create() {
        if !spec.cgroups_optional {
            return Err(format!("cannot limit the task: {error}"));
        }
        let _ = spec.cgroups.remove();
        spec.cgroups = TaskCgroups::default();
    }
    let (out, err, streams) = open_streams(spec)?;
    if spec.isolation.as_ref().is_some_and(|isolation| isolation.private_pids) {
        // Applies to children only: the task becomes the first process of the namespace.
        unshare(CloneFlags::CLONE_NEWPID).map_err(|error| format!("cannot make a pid namespace: {error}"))?;
    }
    let score = spec.oom_score_adj;
    let pid = child::spawn(&spec.command, &Streams { stdin: None, stdout: &out, stderr: &err }, || {
        let _ = fs::write("/proc/self/oom_score_adj", score.to_string());
        if let Err(error) = spec.cgroups.join()
            && !spec.cgroups_optional
        {
            return Err(error.to_string());
        }
        if let Some(path) = &spec.network_namespace {
            child::enter_network(path)?;
        }
        match &spec.isolation {
            Some(isolation) => root::enter(isolation),
            None => Ok(()),
        }
    })?;
    if fs::write("/proc/self/oom_score_adj", OWN_OOM_SCORE.to_string()).is_err() {
        let _ = fs::write("/proc/self/oom_score_adj", previous_score.trim());
    }
    let identify =
        |pid| Process::of_pid(pid).map_err(|error| format!("cannot look at process {pid}: {error}"));
    // A task that has ended already is a zombie of ours and still has its start time.
    let own = i32::try_from(std::process::id()).map_err(|_| "own pid out of range".to_owned())?;
    let running =
        Running { supervisor: identify(own)?, task: identify(pid.as_raw())?, cgroups: spec.cgroups.clone() };
    if let Err(error) = write_json(&state_file(files), &running) {
        let _ = kill(pid, Signal::SIGKILL);
        return Err(format!("cannot write {}: {error}", state_file(&spec.prefix).display()));
    }
    Ok((running, Task { pid, signals, streams }))
}

fn open_streams(spec: &TaskSpec) -> Result<(OwnedFd, OwnedFd, Vec<Stream>), String> {
    let Some(logs) = &spec.logs else {
        let null = || fs::OpenOptions::new().write(true).open("/dev/null").map(OwnedFd::from);
        let null = || null().map_err(|error| format!("cannot open /dev/null: {error}"));
        return Ok((null()?, null()?, Vec::new()));
    };
    let open = |name: &str| {
        let file = logs.open(name).map_err(|error| format!("cannot open log file of {name}: {error}"))?;
        let (from, to) = pipe2(OFlag::O_CLOEXEC).map_err(|error| format!("cannot make a pipe: {error}"))?;
        let flags = nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
        nix::fcntl::fcntl(&from, flags).map_err(|error| format!("cannot set up a pipe: {error}"))?;
        Ok::<_, String>((to, Stream { pipe: fs::File::from(from), file: Some(file) }))
    };
    let (out, stdout) = open("stdout")?;
    let (err, stderr) = open("stderr")?;
    Ok((out, err, vec![stdout, stderr]))
}

impl Task {
    /// Copies output and reaps until the task ends; then ends everything it left behind.
    fn run(mut self, cgroups: &TaskCgroups) -> ExitStatus {
        let ended = loop {
            self.wait_for_news(PollTimeout::NONE);
            self.copy_output();
            if self.was_told_to_kill() {
                let _ = kill(self.pid, Signal::SIGKILL);
                kill_all(self.pid, cgroups);
            }
            if let Some(status) = self.reap() {
                break status;
            }
        };
        self.end_stragglers(cgroups);
        self.copy_output();
        let mut status = ended;
        status.oom_killed = cgroups.oom_kills() > 0 && status.signal == libc::SIGKILL
            || cgroups.oom_kills() > 0 && status.code == 128 + libc::SIGKILL;
        if status.oom_killed {
            status.message = "OOM Killed".to_owned();
        }
        status
    }

    fn wait_for_news(&self, timeout: PollTimeout) {
        let mut watched = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        watched.extend(self.streams.iter().map(|stream| PollFd::new(stream.pipe.as_fd(), PollFlags::POLLIN)));
        // An interrupted wait is only an early look.
        let _ = poll(&mut watched, timeout);
    }

    /// Copies what is there. A stream that has ended is closed.
    fn copy_output(&mut self) {
        let mut buffer = [0; CHUNK];
        self.streams.retain_mut(|stream| {
            loop {
                match stream.pipe.read(&mut buffer) {
                    Ok(0) => return false,
                    // A full disk must not block the task: what cannot be written is dropped.
                    Ok(len) => {
                        if let Some(file) = &mut stream.file {
                            let _ = file.write(&buffer[..len]);
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
                }
            }
        });
    }

    fn was_told_to_kill(&mut self) -> bool {
        let mut told = false;
        while let Ok(Some(info)) = self.signals.read_signal() {
            told |= info.ssi_signo == Signal::SIGUSR1 as u32;
        }
        told
    }

    /// Takes in every ended child; the status if the task itself was among them.
    fn reap(&self) -> Option<ExitStatus> {
        let mut ended = None;
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == self.pid => {
                    ended = Some(ExitStatus { code, ..ExitStatus::default() });
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.pid => {
                    let signal = signal as i32;
                    ended = Some(ExitStatus { code: 128 + signal, signal, ..ExitStatus::default() });
                }
                Ok(WaitStatus::StillAlive) | Err(_) => return ended,
                Ok(_) => {}
            }
        }
    }

    fn end_stragglers(&mut self, cgroups: &TaskCgroups) {
        let begun = Instant::now();
        while begun.elapsed() < REAP_LIMIT {
            kill_all(self.pid, cgroups);
            self.copy_output();
            self.reap();
            if children().is_empty() && cgroups.pids().is_empty() {
                return;
            }
            // Wakes when the next one has ended; the limit is for one that cannot be killed.
            self.wait_for_news(PollTimeout::from(50u8));
            self.was_told_to_kill();
        }
    }
}

/// Kills the task's group and session members, its control groups, and orphans that came to us.
fn kill_all(task: Pid, cgroups: &TaskCgroups) {
    cgroups.kill();
    let _ = nix::sys::signal::killpg(task, Signal::SIGKILL);
    for child in children() {
        let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
    }
}

/// Our direct children: the task, and whatever lost its parent inside it.
fn children() -> Vec<i32> {
    let own = std::process::id();
    let text = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Writes a file so that readers see all of it or nothing.
fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    serde_json::to_writer(&file, value)?;
    fs::rename(&temporary, path)
}
