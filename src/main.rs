//! The one program: agent, command line, and the hidden helper that looks after tasks.

use std::process::ExitCode;
use std::sync::Arc;

use herder::cli;
use herder::drivers::supervisor;
use herder::run::Program;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // First of all, while there is a single thread and nothing has been allocated that tasks would pay for.
    if args.first().is_some_and(|arg| arg == supervisor::ARGUMENT) {
        return ExitCode::from(u8::try_from(supervisor::main(&args[1..])).unwrap_or(1));
    }
    ExitCode::from(cli::main(std::env::args_os(), Arc::new(Program)))
}
