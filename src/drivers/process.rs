//! Names a process for good: a pid with its start time, so that a reused pid is never taken for the task.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::str::FromStr;

use nix::sys::signal::Signal;
use serde::Deserialize;
use serde::Serialize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::DriverError;

/// A process of this boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks since boot.
    pub start: u64,
}

impl Process {
    /// Looks a process up; one that has ended but was not yet waited for counts.
    ///
    /// # Errors
    /// There is no such process, or `/proc` is not readable.
    pub fn of_pid(pid: i32) -> io::Result<Self> {
        Self::with_state(pid).map(|(process, _)| process)
    }

    fn with_state(pid: i32) -> io::Result<(Self, u8)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The second field is a free text in parentheses; after it come the state and, as the 20th, the start time.
        let rest = stat.rsplit(')').next().unwrap_or_default();
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next().and_then(|field| field.bytes().next());
        let start = fields.nth(18).and_then(|field| field.parse().ok());
        match (state, start) {
            (Some(state), Some(start)) => Ok((Self { pid, start }, state)),
            _ => Err(io::Error::other(format!("cannot read /proc/{pid}/stat"))),
        }
    }

    /// Does this very process still run? One that has ended does not, even if nobody has waited for it.
    pub fn exists(self) -> bool {
        Self::with_state(self.pid).is_ok_and(|(found, state)| found == self && !b"ZX".contains(&state))
    }

    /// Opens a file descriptor that becomes readable when the process ends; `None` if it is gone.
    pub fn open(self) -> Option<OwnedFd> {
        let fd = open_pid(self.pid).ok()?;
        // Checked after opening: from now on the descriptor cannot move to another process.
        self.exists().then_some(fd)
    }

    /// Sends a signal; false if the process is gone.
    pub fn signal(self, signal: Signal) -> bool {
        let Some(fd) = self.open() else { return false };
        // SAFETY: a plain system call on a descriptor that is open.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                fd.as_raw_fd(),
                signal as libc::c_int,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        sent == 0
    }

    /// Waits until the process has ended; returns at once if it is gone.
    ///
    /// # Errors
    /// The descriptor cannot be registered with the runtime.
    pub async fn ended(self) -> io::Result<()> {
        let Some(fd) = self.open() else { return Ok(()) };
        // SAFETY: an owned descriptor stays open and is the same until it is dropped, after its registration.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? };
        fd.readable().await?.retain_ready();
        Ok(())
    }

    /// Would the signal be dropped because the process is the first of a pid namespace and does not handle it?
    pub fn drops_as_init(self, signal: Signal) -> bool {
        let Ok(status) = fs::read_to_string(format!("/proc/{}/status", self.pid)) else { return false };
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let inner = field("NSpid:").and_then(|pids| pids.split_ascii_whitespace().last());
        let mask = |name| field(name).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
        let bit = 1u64 << (signal as u32 - 1);
        inner == Some("1") && (mask("SigCgt:") | mask("SigIgn:") | mask("SigBlk:")) & bit == 0
    }
}

/// Opens a file descriptor of whatever process has this number now. Safe for a child that was not waited for.
///
/// # Errors
/// There is none, or no descriptor is left.
pub fn open_pid(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call; the descriptor it returns is owned by nobody else.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(i32::try_from(fd).map_err(io::Error::other)?))
    }
}

/// Reads a signal's name, with or without `SIG`.
///
/// # Errors
/// Names the unknown signal.
pub fn parse_signal(name: &str) -> Result<Signal, DriverError> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    Signal::from_str(&full).map_err(|_| DriverError::BadConfig(format!("unknown signal {name:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_another_start_time_is_not_the_same() {
        let me = Process::of_pid(std::process::id() as i32).unwrap();
        assert!(me.exists());
        assert!(me.open().is_some());
        let other = Process { start: me.start + 1, ..me };
        assert!(!other.exists());
        assert!(other.open().is_none());
        assert!(!other.signal(Signal::SIGKILL));
    }

    #[test]
    fn signals_are_known_with_and_without_their_prefix() {
        assert_eq!(parse_signal("SIGHUP").unwrap(), Signal::SIGHUP);
        assert_eq!(parse_signal("usr1").unwrap(), Signal::SIGUSR1);
        assert!(parse_signal("SIGFOO").unwrap_err().to_string().contains("SIGFOO"));
    }
}
