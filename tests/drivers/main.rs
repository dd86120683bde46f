//! Drivers against real processes, Docker and Java. Runs as root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod docker;
mod isolated;
mod raw_exec;
mod support;
