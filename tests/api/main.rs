//! The HTTP API against an embedded store and a mirror that follows it, in one process.

mod harness;
mod jobs;
