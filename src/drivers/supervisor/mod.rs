//! Tasks belong to a small process each, which outlives the agent: it holds the log pipes, reaps, and writes down how
//! the task ended. The agent starts one helper (`herder supervise`), which forks a supervisor per task: forking
//! shares the program's memory, so a task costs a few pages instead of a copy of the program.

mod child;
mod enter;
mod frames;
mod landlock;
mod relay;
mod root;
mod run;
mod session;
pub mod spec;

pub use self::run::exit_file;
pub use self::run::state_file;

use std::io;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::signal::SigHandler;
use nix::sys::signal::Signal;
use nix::sys::signal::signal;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::ControlMessage;
use nix::sys::socket::ControlMessageOwned;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;
use nix::sys::socket::recvmsg;
use nix::sys::socket::sendmsg;
use nix::sys::socket::socketpair;
use nix::unistd::ForkResult;
use nix::unistd::fork;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use self::spec::ExecReply;
use self::spec::ExecSpec;
use self::spec::RelayReply;
use self::spec::RelaySpec;
use self::spec::Request;
use self::spec::RunReply;
use self::spec::SessionReply;
use self::spec::SessionSpec;
use self::spec::TaskSpec;
use super::session::ExecSession;

/// The hidden first argument that makes the program the helper.
pub const ARGUMENT: &str = "supervise";

/// The agent's end: starts the helper when needed and asks it for supervisors. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Supervisor {
    exe: PathBuf,
    helper: Arc<Mutex<Option<Helper>>>,
}

#[derive(Debug)]
struct Helper {
    process: Child,
    socket: OwnedFd,
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Without its socket the helper ends; its supervisors stay.
        let _ = nix::sys::socket::shutdown(self.socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        let _ = self.process.wait();
    }
}

impl Default for Supervisor {
    fn default() -> Self {
        // The link names the running program even after an upgrade has replaced the file.
        Self::new(PathBuf::from("/proc/self/exe"))
    }
}

impl Supervisor {
    /// `exe` is a program that calls [`main`] when its first argument is [`ARGUMENT`].
    pub fn new(exe: PathBuf) -> Self {
        Self { exe, helper: Arc::default() }
    }

    /// Starts the helper now, so that the first task does not wait for it.
    ///
    /// # Errors
    /// The program cannot be executed.
    pub fn warm_up(&self) -> io::Result<()> {
        let mut helper = self.helper.lock();
        if helper.is_none() {
            *helper = Some(self.start_helper()?);
        }
        Ok(())
    }

    /// Starts a task; returns when it has been executed or has failed to.
    ///
    /// # Errors
    /// The helper cannot be started or ended without an answer.
    pub async fn run(&self, spec: TaskSpec) -> io::Result<RunReply> {
        self.ask(Request::Run(Box::new(spec))).await
    }

    /// Runs a command inside a task; returns when it has ended.
    ///
    /// # Errors
    /// The helper cannot be started or ended without an answer.
    pub async fn exec(&self, spec: ExecSpec) -> io::Result<ExecReply> {
        self.ask(Request::Exec(Box::new(spec))).await
    }

    /// Starts a process that writes the output of someone else's task to log files.
    ///
    /// # Errors
    /// The helper cannot be started or ended without an answer.
    pub async fn relay(&self, spec: RelaySpec) -> io::Result<RelayReply> {
        self.ask(Request::Relay(Box::new(spec))).await
    }

    /// Runs a command inside a task with somebody at the other end. The inner error is for that person.
    ///
    /// # Errors
    /// The helper cannot be started or ended without an answer.
    pub async fn session(&self, spec: SessionSpec) -> io::Result<Result<ExecSession, String>> {
        let (reply, connection) = self.converse(Request::Session(Box::new(spec))).await?;
        match reply {
            SessionReply::Failed(text) => Ok(Err(text)),
            SessionReply::Started => frames::attach(connection).map(Ok),
        }
    }

    async fn ask<T: DeserializeOwned + Send + 'static>(&self, request: Request) -> io::Result<T> {
        self.converse(request).await.map(|(answer, _)| answer)
    }

    /// Asks, and keeps the connection.
    async fn converse<T: DeserializeOwned + Send + 'static>(
        &self,
        request: Request,
    ) -> io::Result<(T, UnixStream)> {
        let this = self.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let (ours, theirs) = UnixStream::pair()?;
            this.hand_over(theirs.as_raw_fd())?;
            drop(theirs);
            spec::send(&ours, &request)?;
            Ok((spec::receive(&ours)?, ours))
        });
        answer.await.map_err(io::Error::other)?
    }

    /// Gives the helper one end of a connection; it forks a process that serves it.
    fn hand_over(&self, connection: RawFd) -> io::Result<()> {
        let mut helper = self.helper.lock();
        if let Some(present) = &*helper
            && send_descriptor(present.socket.as_raw_fd(), connection).is_ok()
        {
            return Ok(());
        }
        let fresh = self.start_helper()?;
        let sent = send_descriptor(fresh.socket.as_raw_fd(), connection);
        *helper = Some(fresh);
        Ok(sent?)
    }

    fn start_helper(&self) -> io::Result<Helper> {
        let kind = SockType::SeqPacket;
        let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?;
        let process = Command::new(&self.exe)
            .arg(ARGUMENT)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| {
                io::Error::new(error.kind(), format!("cannot run {}: {error}", self.exe.display()))
            })?;
        Ok(Helper { process, socket: ours })
    }
}

fn send_descriptor(socket: RawFd, descriptor: RawFd) -> Result<(), Errno> {
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket, &[IoSlice::new(b"x")], &[ControlMessage::ScmRights(&[descriptor])], flags, None)?;
    Ok(())
}

/// The helper: serves one agent until that closes its end. Call it before anything else in `main`, while the
/// process has one thread.
pub fn main(_args: &[String]) -> i32 {
    // Own session: an interrupt typed at the agent's terminal must not reach tasks.
    let _ = nix::unistd::setsid();
    // SAFETY: no handler is installed, only dispositions; ended children then vanish without being waited for.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) };
    loop {
        let connection = match receive_descriptor(0) {
            Ok(Some(connection)) => connection,
            Ok(None) => return 0,
            Err(Errno::EINTR) => continue,
            Err(_) => return 1,
        };
        // SAFETY: this process has a single thread, so the child may do anything.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => return serve(connection),
            // The agent sees the connection close without an answer.
            Ok(ForkResult::Parent { .. }) | Err(_) => drop(connection),
        }
    }
}

fn receive_descriptor(socket: RawFd) -> Result<Option<UnixStream>, Errno> {
    let mut byte = [0; 1];
    let mut space = nix::cmsg_space!(RawFd);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(socket, &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control
            && let Some(descriptor) = descriptors.first()
        {
            // SAFETY: the kernel has just made this descriptor for us.
            return Ok(Some(UnixStream::from(unsafe { OwnedFd::from_raw_fd(*descriptor) })));
        }
    }
    Ok(None)
}

/// One connection, in a process of its own.
fn serve(connection: UnixStream) -> i32 {
    // The agent's socket must not be kept open by supervisors. The number stays taken, so that no descriptor that
    // matters gets it and is replaced when the task's own input is put there.
    let Ok(null) = std::fs::File::open("/dev/null") else { return 1 };
    // SAFETY: nothing in this process uses descriptor 0 as an owned value.
    unsafe { libc::dup2(null.as_raw_fd(), 0) };
    drop(null);
    let _ = nix::unistd::setsid();
    // SAFETY: restores the default disposition.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
    match spec::receive(&connection) {
        Ok(Request::Run(task)) => run::supervise(*task, connection),
        Ok(Request::Exec(exec)) => enter::execute(*exec, &connection),
        Ok(Request::Relay(relay)) => relay::relay(*relay, connection),
        Ok(Request::Session(session)) => session::serve(*session, connection),
        Err(_) => 1,
    }
}
