//! `job init`

use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use crate::cli::context::Context;
use crate::cli::context::Failure;
use crate::cli::context::Outcome;
use crate::cli::registry::Run;

const DEFAULT_FILE: &str = "example.nomad.hcl";
/// Owner and group may read and write.
const MODE: u32 = 0o660;

/// Writes an example job file.
#[derive(clap::Args, Clone, Debug)]
pub struct InitJob {
    /// A short example without comments.
    #[arg(long)]
    short: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for InitJob {
    async fn run(self, context: &Context) -> Outcome {
        let file = match self.args.as_slice() {
            [] => DEFAULT_FILE,
            [file] => file,
            _ => return Err(Failure::usage("This command takes no arguments or one: <filename>")),
        };
        let text = if self.short { SHORT } else { FULL };
        let created = OpenOptions::new().write(true).create_new(true).mode(MODE).open(file);
        let mut created = created.map_err(|why| match why.kind() {
            io::ErrorKind::AlreadyExists => format!("Job '{file}' already exists"),
            _ => format!("Failed to write '{file}': {why}"),
        })?;
        created.write_all(text.as_bytes()).map_err(|why| format!("Failed to write '{file}': {why}"))?;
        context.out.line(format!("Example job file written to {file}"));
        Ok(0)
    }
}

const SHORT: &str = include_str!("example-short.nomad.hcl");
const FULL: &str = include_str!("example.nomad.hcl");
