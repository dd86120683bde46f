//! Job files as people write them, from text to a complete job.

mod broken;
mod canonical;
mod corpus;
mod expressions;
mod formats;
mod fuzz;
mod language;
mod mistakes;
mod requests;
mod rules;
mod traps;

use herder::jobspec;
use herder::jobspec::Defaults;
use herder::jobspec::Parsed;
use herder::jobspec::Source;
use herder::jobspec::Variables;
use herder::model::job::Job;

/// Reads `text` as `test.nomad`.
fn parse_with(text: &str, variables: &Variables) -> Result<Parsed, String> {
    let source = Source { name: "test.nomad", text };
    jobspec::parse(&source, variables).map_err(|problems| problems.to_string())
}

fn parse(text: &str) -> Result<Parsed, String> {
    parse_with(text, &Variables::default())
}

/// The complete job of a file that must be valid HCL.
fn job(text: &str) -> Job {
    let mut job = parse(text).expect("the file is fine").job;
    jobspec::canonicalize(&mut job, &Defaults::default());
    job
}

/// A job with one task, into whose blocks more is put.
fn with(job: &str, group: &str, task: &str) -> String {
    format!(
        "job \"j\" {{\n{job}\n  group \"g\" {{\n{group}\n    task \"t\" {{\n      driver = \"raw_exec\"\n      \
         config {{\n        command = \"true\"\n      }}\n{task}\n    }}\n  }}\n}}\n"
    )
}
