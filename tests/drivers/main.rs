//! Drivers against real processes, Docker and Java. Runs as root.

mod isolated;
mod raw_exec;
mod support;
