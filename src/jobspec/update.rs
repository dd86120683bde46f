//! What may not change between two versions of a job.

use crate::model::job::Job;

/// Checks a submitted job against the stored one of the same id.
///
/// # Errors
/// With the reason in one sentence.
pub fn check_update(existing: &Job, new: &Job) -> Result<(), String> {
    if existing.kind != new.kind {
        return Err(format!("cannot update job from type {:?} to {:?}", existing.kind, new.kind));
    }
    match (existing.periodic.is_some(), new.periodic.is_some()) {
        (true, false) => return Err("cannot update periodic job to being non-periodic".to_owned()),
        (false, true) => return Err("cannot update non-periodic job to being periodic".to_owned()),
        _ => {}
    }
    match (existing.parameterized.is_some(), new.parameterized.is_some()) {
        (true, false) => return Err("cannot update parameterized job to being non-parameterized".to_owned()),
        (false, true) => return Err("cannot update non-parameterized job to being parameterized".to_owned()),
        _ => {}
    }
    if existing.dispatched != new.dispatched {
        return Err("field 'Dispatched' is read-only".to_owned());
    }
    Ok(())
}
