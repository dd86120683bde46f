//! The only place where stored forms become Nomad's shapes. Every view is composed under the mirror's lock from
//! shared pointers, and encoded after the lock is gone.

pub mod allocation;
pub mod deployment;
pub mod evaluation;
pub mod job;
pub mod node;
pub mod service;
pub mod task;

use crate::store::Revision;

/// A revision as an index on the wire.
pub fn index(revision: Revision) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

/// An absent id is the empty text on the wire.
pub fn text_of<T: ToString>(id: Option<&T>) -> String {
    id.map(ToString::to_string).unwrap_or_default()
}
