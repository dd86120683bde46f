//! Drivers against real processes, Docker and Java. Runs as root.

mod docker;
mod isolated;
mod raw_exec;
mod support;
