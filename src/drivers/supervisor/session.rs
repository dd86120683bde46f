//! Runs one interactive command inside a running task. It ends with the connection: whoever asked for it and went
//! away must not leave it behind.

use std::fs::File;
use std::io;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::time::Instant;

use nix::fcntl::FcntlArg;
use nix::fcntl::OFlag;
use nix::fcntl::fcntl;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::pty::openpty;
use nix::sys::signal::Signal;
use nix::sys::signal::killpg;
use nix::sys::wait::WaitPidFlag;
use nix::sys::wait::WaitStatus;
use nix::sys::wait::waitpid;
use nix::unistd::Gid;
use nix::unistd::Pid;
use nix::unistd::Uid;
use nix::unistd::pipe2;

use crate::drivers::process::open_pid;
use crate::model::exec::ExecInput;
use crate::model::exec::ExecOutput;

use super::child;
use super::child::Streams;
use super::enter;
use super::frames;
use super::frames::Decoder;
use super::spec;
use super::spec::SessionReply;
use super::spec::SessionSpec;

/// Bytes that may wait for the slower side before the faster one has to.
const AHEAD: usize = 256 * 1024;
/// Read at a time.
const CHUNK: usize = 16 * 1024;
/// A terminal hands over its last output a moment after its command has ended.
const LAST_WORDS: Duration = Duration::from_millis(250);
/// An abandoned command is told to hang up, and killed after this long.
const HANG_UP: Duration = Duration::from_secs(1);
/// End of input, as typed at a terminal.
const END_OF_TRANSMISSION: u8 = 4;

/// Serves one request and ends.
pub(super) fn serve(spec: SessionSpec, connection: UnixStream) -> i32 {
    let (reply, command) = match start(spec) {
        Ok(command) => (SessionReply::Started, Some(command)),
        Err(text) => (SessionReply::Failed(text), None),
    };
    let sent = spec::send(&connection, &reply);
    let Some(command) = command else { return 1 };
    let session = Session {
        command,
        connection,
        decoder: Decoder::default(),
        typed: Vec::new(),
        is_closing: false,
        said: Vec::new(),
    };
    if sent.is_err() || session.connection.set_nonblocking(true).is_err() {
        session.abandon();
        return 1;
    }
    session.run()
}

/// A running command and our ends of its streams.
struct Command {
    pid: Pid,
    process: OwnedFd,
    stdin: Option<File>,
    /// What it says, until the end: standard output, and standard error unless there is a terminal.
    stdout: Option<File>,
    stderr: Option<File>,
    is_terminal: bool,
}

struct Session {
    command: Command,
    connection: UnixStream,
    decoder: Decoder,
    /// Not yet taken by the command.
    typed: Vec<u8>,
    /// Nothing more will be typed.
    is_closing: bool,
    /// Not yet taken by the agent.
    said: Vec<u8>,
}

fn start(mut spec: SessionSpec) -> Result<Command, String> {
    enter::enter(&mut spec.exec)?;
    if spec.tty {
        // Without it no program knows how to move a cursor.
        spec.exec.command.env.entry("TERM".to_owned()).or_insert_with(|| "xterm".to_owned());
        with_terminal(&spec)
    } else {
        with_pipes(&spec)
    }
}

fn with_terminal(spec: &SessionSpec) -> Result<Command, String> {
    let failed = |error: nix::Error| format!("cannot make a terminal: {error}");
    let pair = openpty(None, None).map_err(failed)?;
    if let Some(user) = &spec.exec.command.user {
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        nix::unistd::fchown(&pair.slave, Some(uid), Some(gid)).map_err(failed)?;
    }
    let streams = Streams { stdin: Some(&pair.slave), stdout: &pair.slave, stderr: &pair.slave };
    let pid = child::spawn(&spec.exec.command, &streams, || {
        // SAFETY: a plain system call on the new process's own standard input.
        let taken = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
        if taken < 0 {
            return Err(format!("cannot take the terminal: {}", io::Error::last_os_error()));
        }
        Ok(())
    })?;
    drop(pair.slave);
    let typed = pair.master.try_clone().map_err(|error| format!("cannot use the terminal: {error}"))?;
    running(pid, typed, Some(pair.master), None, true)
}

fn with_pipes(spec: &SessionSpec) -> Result<Command, String> {
    let make = || pipe2(OFlag::O_CLOEXEC).map_err(|error| format!("cannot make a pipe: {error}"));
    let (stdin, typed) = make()?;
    let (output, stdout) = make()?;
    let (errors, stderr) = make()?;
    let streams = Streams { stdin: Some(&stdin), stdout: &stdout, stderr: &stderr };
    let pid = child::spawn(&spec.exec.command, &streams, || Ok(()))?;
    running(pid, typed, Some(output), Some(errors), false)
}

fn running(
    pid: Pid,
    stdin: OwnedFd,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    is_terminal: bool,
) -> Result<Command, String> {
    let ready = |fd: OwnedFd| {
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .map_err(|error| format!("cannot set up a pipe: {error}"))?;
        Ok::<_, String>(File::from(fd))
    };
    // Not waited for yet, so it is there even if it has ended.
    let process = open_pid(pid.as_raw()).map_err(|error| format!("cannot look at process {pid}: {error}"))?;
    Ok(Command {
        pid,
        process,
        stdin: Some(ready(stdin)?),
        stdout: stdout.map(ready).transpose()?,
        stderr: stderr.map(ready).transpose()?,
        is_terminal,
    })
}

impl Command {
    /// The exit code once it has ended. Asked again, it has not.
    fn ended(&self) -> Option<i32> {
        match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => Some(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as i32),
            _ => None,
        }
    }

    fn resize(&self, rows: u16, columns: u16) {
        let Some(terminal) = self.stdout.as_ref().filter(|_| self.is_terminal) else { return };
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the structure lives for the whole call. A refusal only leaves the old size.
        unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    }
}

impl Session {
    fn run(mut self) -> i32 {
        loop {
            if !self.turn() {
                self.abandon();
                return 1;
            }
            if let Some(code) = self.command.ended() {
                return i32::from(self.finish(code).is_err());
            }
        }
    }

    /// Waits for news and moves what can be moved. False once nobody listens any more.
    fn turn(&mut self) -> bool {
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::POLLIN, self.typed.len() < AHEAD);
        wanted.set(PollFlags::POLLOUT, !self.said.is_empty());
        let mut watched = vec![
            PollFd::new(self.connection.as_fd(), wanted),
            PollFd::new(self.command.process.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(stdin) = self.command.stdin.as_ref().filter(|_| !self.typed.is_empty()) {
            watched.push(PollFd::new(stdin.as_fd(), PollFlags::POLLOUT));
        }
        if self.said.len() < AHEAD {
            let sources = self.command.stdout.iter().chain(&self.command.stderr);
            watched.extend(sources.map(|source| PollFd::new(source.as_fd(), PollFlags::POLLIN)));
        }
        // An interrupted wait is only an early look.
        let _ = poll(&mut watched, PollTimeout::NONE);
        let lost = PollFlags::POLLHUP | PollFlags::POLLERR;
        if watched[0].revents().is_some_and(|events| events.intersects(lost)) {
            return false;
        }
        drop(watched);
        if self.listen().is_err() {
            return false;
        }
        self.type_in();
        while self.said.len() < AHEAD && self.copy() {}
        self.tell().is_ok()
    }

    /// Takes in what the agent has sent.
    fn listen(&mut self) -> io::Result<()> {
        let mut buffer = [0; CHUNK];
        while self.typed.len() < AHEAD {
            match self.connection.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.decoder.push(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            self.obey()?;
        }
        Ok(())
    }

    fn obey(&mut self) -> io::Result<()> {
        while let Some(input) = self.decoder.next_input()? {
            match input {
                ExecInput::Data(data) if self.command.stdin.is_some() => self.typed.extend(data),
                // Nobody reads it.
                ExecInput::Data(_) => {}
                ExecInput::Resize { rows, columns } => self.command.resize(rows, columns),
                ExecInput::Close if self.command.is_terminal => self.typed.push(END_OF_TRANSMISSION),
                ExecInput::Close => self.is_closing = true,
            }
        }
        Ok(())
    }

    /// Writes as much as the command takes, and closes its input after the last of it.
    fn type_in(&mut self) {
        let Some(stdin) = &mut self.command.stdin else { return };
        loop {
            if self.typed.is_empty() {
                if self.is_closing {
                    self.command.stdin = None;
                }
                return;
            }
            match stdin.write(&self.typed) {
                Ok(length) => drop(self.typed.drain(..length)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    // It does not want to hear any more.
                    self.typed.clear();
                    self.command.stdin = None;
                    return;
                }
            }
        }
    }

    /// Copies a piece of each stream; true if there was any. A stream that has ended is closed.
    fn copy(&mut self) -> bool {
        let out = copy_one(&mut self.command.stdout, ExecOutput::Stdout, &mut self.said);
        copy_one(&mut self.command.stderr, ExecOutput::Stderr, &mut self.said) || out
    }

    fn tell(&mut self) -> io::Result<()> {
        while !self.said.is_empty() {
            match self.connection.write(&self.said) {
                Ok(length) => drop(self.said.drain(..length)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tells everything that was said until the end, and how it ended.
    fn finish(mut self, code: i32) -> io::Result<()> {
        self.connection.set_nonblocking(false)?;
        let ended = Instant::now();
        loop {
            let copied = self.copy();
            self.connection.write_all(&self.said)?;
            self.said.clear();
            if copied {
                continue;
            }
            // Pipes have everything at once; whoever keeps one open in the background has no more say.
            let open = self.command.is_terminal && self.command.stdout.is_some();
            if !open || ended.elapsed() >= LAST_WORDS {
                break;
            }
            let sources = self.command.stdout.iter();
            let mut watched: Vec<PollFd> =
                sources.map(|source| PollFd::new(source.as_fd(), PollFlags::POLLIN)).collect();
            let _ = poll(&mut watched, PollTimeout::from(20u8));
        }
        frames::encode_output(&ExecOutput::Exited(code), &mut self.said);
        self.connection.write_all(&self.said)
    }

    /// Ends the command as a terminal that is switched off would; then by force.
    fn abandon(self) {
        let Command { pid, process, stdin, stdout, stderr, .. } = self.command;
        drop((stdin, stdout, stderr));
        let _ = killpg(pid, Signal::SIGHUP);
        let mut watched = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(HANG_UP.as_millis()).unwrap_or(PollTimeout::ZERO);
        let _ = poll(&mut watched, limit);
        // Also for those of its group that did not care.
        let _ = killpg(pid, Signal::SIGKILL);
        let _ = waitpid(pid, None);
    }
}

fn copy_one(source: &mut Option<File>, kind: fn(Vec<u8>) -> ExecOutput, said: &mut Vec<u8>) -> bool {
    let Some(file) = source else { return false };
    let mut buffer = [0; CHUNK];
    match file.read(&mut buffer) {
        Ok(length) if length > 0 => {
            frames::encode_output(&kind(buffer[..length].to_vec()), said);
            return true;
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
        // A terminal that nobody has open any more gives an error, not an end.
        Ok(_) | Err(_) => *source = None,
    }
    false
}
