//! Drivers against real processes, Docker and Java. Runs as root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod daemon;
mod docker;
mod isolated;
mod mock;
mod options;
mod qemu;
mod raw_exec;
mod registry;
mod support;
