//! A command inside a task with somebody at the other end: input, output as it comes, and perhaps a terminal.

use tokio::sync::mpsc;

use crate::model::exec::ExecInput;
use crate::model::exec::ExecOutput;

/// Messages that may wait in either direction, before the faster side has to.
const AHEAD: usize = 16;

/// What to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    /// Give it a terminal.
    pub tty: bool,
}

/// A running command. It is ended when the output is dropped before its exit was told.
#[derive(Debug)]
pub struct ExecSession {
    pub input: mpsc::Sender<ExecInput>,
    /// Ends with [`ExecOutput::Exited`], or without it if the command was lost.
    pub output: mpsc::Receiver<ExecOutput>,
}

/// The driver's side of a session.
#[derive(Debug)]
pub(super) struct SessionEnds {
    pub(super) input: mpsc::Receiver<ExecInput>,
    pub(super) output: mpsc::Sender<ExecOutput>,
}

impl ExecSession {
    /// Both sides of a new session.
    pub(super) fn pair() -> (Self, SessionEnds) {
        let (input, input_seen) = mpsc::channel(AHEAD);
        let (output_told, output) = mpsc::channel(AHEAD);
        (Self { input, output }, SessionEnds { input: input_seen, output: output_told })
    }
}
