//! Keeps the output of a task that this program did not start: reads its named pipes and writes the log files. It
//! outlives the agent, as a task's supervisor does, so that the task never writes into the void.

use std::fs;
use std::io;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SfdFlags;
use nix::sys::signalfd::SignalFd;

use crate::drivers::logs::RotatingFile;
use crate::drivers::process::Process;

use super::spec;
use super::spec::RelayReply;
use super::spec::RelaySpec;

const CHUNK: usize = 16 * 1024;

struct Pipe {
    from: fs::File,
    to: RotatingFile,
}

/// Runs in a process of its own until it is sent SIGTERM; what has been written by then is still kept.
pub(super) fn relay(spec: RelaySpec, connection: UnixStream) -> i32 {
    let _ = prctl::set_name(c"herder-log");
    let begun = begin(&spec);
    let (reply, begun) = match begun {
        Ok((process, pipes, signals)) => (RelayReply::Started(process), Some((pipes, signals))),
        Err(error) => (RelayReply::Failed(error.to_string()), None),
    };
    let told = spec::send(&connection, &reply).is_ok();
    drop(connection);
    drop(spec);
    // Whoever did not hear that it works would start another one.
    let Some((mut pipes, signals)) = begun.filter(|_| told) else { return 1 };
    while !ended(&signals, &pipes) {
        pipes.iter_mut().for_each(|pipe| drop(pipe.copy()));
    }
    while pipes.iter_mut().any(|pipe| pipe.copy().is_ok_and(|len| len > 0)) {}
    0
}

fn begin(spec: &RelaySpec) -> io::Result<(Process, Vec<Pipe>, SignalFd)> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGTERM);
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let pipes = [
        Pipe { from: open(&spec.stdout)?, to: spec.logs.open("stdout")? },
        Pipe { from: open(&spec.stderr)?, to: spec.logs.open("stderr")? },
    ];
    let process = Process::of_pid(i32::try_from(std::process::id()).map_err(io::Error::other)?)?;
    Ok((process, pipes.into(), signals))
}

/// Opened for writing too, so that the pipe does not end when a writer closes it: another may come.
fn open(path: &Path) -> io::Result<fs::File> {
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    fs::OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
}

/// Waits for output or the order to end.
fn ended(signals: &SignalFd, pipes: &[Pipe]) -> bool {
    let mut watched = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    watched.extend(pipes.iter().map(|pipe| PollFd::new(pipe.from.as_fd(), PollFlags::POLLIN)));
    let _ = poll(&mut watched, PollTimeout::NONE);
    matches!(signals.read_signal(), Ok(Some(_)))
}

impl Pipe {
    /// Copies what is there; the number of bytes read.
    fn copy(&mut self) -> io::Result<usize> {
        let mut chunk = [0; CHUNK];
        let len = self.from.read(&mut chunk)?;
        // A full disk loses output; it must not stop the task.
        let _ = self.to.write(&chunk[..len]);
        Ok(len)
    }
}
