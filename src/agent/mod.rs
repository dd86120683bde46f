//! The node agent: finds out about its machine, registers, watches its own `desired/` keys, runs the allocations it
//! finds there, and reports what became of them. It keeps tasks running when the store and every server are gone.

pub mod files;
pub mod hooks;
