//! Invariants over a whole cluster state; used by tests, the simulator and benches.
