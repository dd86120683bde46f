//! What the benches share: an etcd of their own, CPU seconds of processes and threads, and medians.

pub mod cpu;
pub mod etcd;
pub mod stats;
