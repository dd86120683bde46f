//! The person's terminal: its size, and the mode in which every key goes to the command at once.

use std::io;
use std::io::IsTerminal;
use std::os::fd::AsRawFd;

use nix::sys::termios;
use nix::sys::termios::SetArg;
use nix::sys::termios::Termios;

/// Standard input in raw mode, until this is dropped.
pub(super) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Switches; nothing to do where standard input is no terminal.
    ///
    /// # Errors
    /// The terminal refuses.
    pub(super) fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = termios::tcgetattr(&stdin)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(&stdin, SetArg::TCSANOW, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // There is nobody left to tell that it failed.
        let _ = termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before);
    }
}

/// Rows and columns of the terminal that standard output is, if it is one.
pub(super) fn size() -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the structure lives for the whole call.
    let result = unsafe { libc::ioctl(io::stdout().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}
