//! What the node agent costs: starting a task over the bare operation, memory and CPU while tasks sleep, and how soon
//! an agent that was killed has its tasks again. Each start is measured next to the bare operation, in turns, so that
//! a busy machine slows both. `docs/performance.md` says how to read the figures.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod cluster;
mod processes;
mod starts;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "each bench needs a part of it")]
mod support;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser, Clone, Debug)]
struct Options {
    /// Starts per driver.
    #[arg(long, default_value_t = 100)]
    starts: usize,
    /// Starts of containers.
    #[arg(long, default_value_t = 20)]
    containers: usize,
    /// Sleeping tasks whose memory and CPU are measured.
    #[arg(long, default_value_t = 30)]
    sleepers: usize,
    /// For how long, seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Tasks to find again after kill -9.
    #[arg(long, default_value_t = 1000)]
    found: usize,
    /// The program to measure, instead of the one that was built with the bench.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_herder"))]
    program: std::path::PathBuf,
    /// Only this part: `starts` or `cluster`.
    #[arg(long, default_value = "")]
    part: String,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = Options::parse();
    let result = async {
        if options.part != "cluster" {
            starts::measure(&options).await?;
        }
        if options.part != "starts" {
            cluster::measure(&options).await?;
        }
        Ok::<(), String>(())
    };
    match result.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            println!("void: {text}");
            ExitCode::FAILURE
        }
    }
}
