//! The HTTP API against an embedded store and a mirror that follows it, in one process.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod admission;
mod exec;
mod harness;
mod jobs;
mod nodes;
mod orders;
mod serving;
mod versions;
