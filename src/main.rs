//! The program `herder`, which also answers to the name `nomad`.

use std::process::ExitCode;
use std::sync::Arc;

use herder::cli;

fn main() -> ExitCode {
    ExitCode::from(cli::main(std::env::args_os(), Arc::new(cli::HttpOnly)))
}
