//! Children of periodic and parameterized jobs. Pure.

use super::job::Job;
use super::time::Time;

/// Between a periodic job's id and the unix second of the launch.
pub const PERIODIC_INFIX: &str = "/periodic-";
/// Between a parameterized job's id and what makes the dispatch unique.
pub const DISPATCH_INFIX: &str = "/dispatch-";

/// The job that a periodic job launches for an instant. Neither version nor submit time is set.
pub fn periodic_child(parent: &Job, at: Time) -> Job {
    let id = format!("{}{PERIODIC_INFIX}{}", parent.id, at.secs());
    Job { periodic: None, ..child(parent, id) }
}

/// A dispatched instance of a parameterized job; `unique` is `<unix seconds>-<8 hex digits>`.
pub fn dispatched_child(parent: &Job, unique: &str) -> Job {
    let id = format!("{}{DISPATCH_INFIX}{unique}", parent.id);
    Job { dispatched: true, ..child(parent, id) }
}

fn child(parent: &Job, id: String) -> Job {
    Job {
        name: id.clone(),
        parent_id: parent.id.clone(),
        id,
        version: 0,
        submit_time: 0,
        stable: false,
        version_tag: None,
        status: String::new(),
        status_description: String::new(),
        spec_digest: String::new(),
        ..parent.clone()
    }
}
