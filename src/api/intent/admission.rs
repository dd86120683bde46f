//! What a job must pass before it is written: defaults, validation, its namespace and pool.

use serde_json::Value;

use crate::api::Api;
use crate::api::error::ApiError;
use crate::jobspec;
use crate::jobspec::Defaults;
use crate::jobspec::Facts;
use crate::mirror::derive::REFUSED;
use crate::mirror::derive::missing_homes;
use crate::mirror::state::State;
use crate::model::job::Job;
use crate::model::multierror::multierror;

/// Reads a job in the form of the API.
///
/// # Errors
/// 400 with what is wrong.
pub fn decode(value: &Value) -> Result<Job, ApiError> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| ApiError::bad_request(format!("job cannot be read: {error}")))?;
    let mut job = jobspec::decode_json(&bytes).map_err(ApiError::bad_request)?;
    // What only the server says about a job.
    job.purge = false;
    job.status.clear();
    job.status_description.clear();
    job.stable = false;
    job.version_tag = None;
    Ok(job)
}

/// What a job gets in this cluster where it says nothing.
pub fn defaults(api: &Api) -> Defaults {
    let consul = api.context.mirror.read().has_consul();
    Defaults { region: api.context.region.clone(), consul, ..Defaults::default() }
}

/// The problems and warnings of a job, after its defaults were filled in.
pub fn examine(api: &Api, job: &mut Job) -> (Vec<String>, Vec<String>) {
    job.unknown.remove(REFUSED);
    let mut warnings = jobspec::canonicalize(job, &defaults(api));
    let validation = jobspec::validate_in(job, &facts(&api.context.mirror.read(), job));
    warnings.extend(validation.warnings);
    (validation.errors, warnings)
}

/// What the cluster knows about a job.
fn facts(state: &State, job: &Job) -> Facts {
    let offered = state.nodes.values().filter_map(|node| node.info.as_ref()).flat_map(|info| {
        info.value.drivers.iter().filter(|(_, driver)| driver.detected).map(|(name, _)| name.clone())
    });
    let scheduler = state
        .configs
        .get("scheduler")
        .and_then(|config| config.value.get("MemoryOversubscriptionEnabled").and_then(Value::as_bool));
    Facts {
        missing_homes: missing_homes(state, job),
        memory_oversubscription: Some(scheduler.unwrap_or(false)),
        // Before the first node has registered, nothing can be said about drivers.
        drivers: (!state.nodes.is_empty()).then(|| offered.collect()),
    }
}

/// Fills the defaults in and checks everything; returns warnings.
///
/// # Errors
/// 500 with all problems, as Nomad does.
pub fn admit(api: &Api, job: &mut Job) -> Result<Vec<String>, ApiError> {
    let (problems, warnings) = examine(api, job);
    if problems.is_empty() { Ok(warnings) } else { Err(ApiError::internal(multierror(&problems))) }
}

/// Refuses changes that a job cannot go through.
///
/// # Errors
/// 500 with the reason alone.
pub fn check_update(old: &Job, new: &Job) -> Result<(), ApiError> {
    jobspec::check_update(old, new).map_err(ApiError::internal)
}
