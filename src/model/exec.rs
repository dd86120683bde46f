//! What passes between somebody at a terminal and a command that runs inside a task.

/// From the person to the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecInput {
    Data(Vec<u8>),
    /// Nothing more will be typed.
    Close,
    /// The size of the person's terminal, in characters.
    Resize {
        rows: u16,
        columns: u16,
    },
}

/// From the command to the person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecOutput {
    Stdout(Vec<u8>),
    /// Never seen with a terminal, where everything is standard output.
    Stderr(Vec<u8>),
    /// The last message: the exit code, 128 + signal if a signal ended the command.
    Exited(i32),
}
