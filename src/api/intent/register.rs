//! Registering, stopping and evaluating jobs.

use serde::Deserialize;
use serde::Serialize;
use serde_json::json;

use super::ATTEMPTS;
use super::Committed;
use super::Written;
use super::admission;
use super::commit;
use super::commit_replacement;
use super::current;
use super::evaluation;
use super::put;
use super::put_evaluation;
use super::replace;
use super::too_busy;
use crate::api::Api;
use crate::api::error::ApiError;
use crate::jobspec;
use crate::mirror::derive::FORCE_RESCHEDULE;
use crate::mirror::derive::hurry_intent;
use crate::model::evaluation::trigger;
use crate::model::id::JobId;
use crate::model::job::Job;
use crate::store::Guard;
use crate::store::Op;
use crate::store::Txn;
use crate::store::key::Key;

/// The text that a job was made from, kept beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Submission {
    pub source: String,
    /// `hcl2`, `hcl1` or `json`.
    pub format: String,
    pub variable_flags: std::collections::BTreeMap<String, String>,
    pub variables: String,
}

/// How a job is registered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegisterOptions {
    /// Only if the job's index is this one; 0: only if it does not exist.
    pub enforce_index: Option<u64>,
    /// Groups keep the counts that they have.
    pub preserve_counts: bool,
    /// 0: the job's.
    pub eval_priority: i64,
    pub submission: Option<Submission>,
    /// `job-register` unless said otherwise.
    pub trigger: Option<&'static str>,
}

/// Registers a job: checks it, gives a changed one its next version, and asks for an evaluation.
///
/// # Errors
/// With Nomad's texts when the job is invalid, or not what the caller expects it to be.
pub async fn register(api: &Api, mut job: Job, options: &RegisterOptions) -> Result<Written, ApiError> {
    api.catch_up().await?;
    let mut warnings = admission::admit(api, &mut job)?;
    let submission = match &options.submission {
        Some(submission) if submission.source.len() > api.context.config.source_bytes => {
            warnings.push(format!(
                "job source size of {} exceeds maximum of {} and will be discarded",
                megabytes(submission.source.len()),
                megabytes(api.context.config.source_bytes)
            ));
            None
        }
        other => other.as_ref(),
    };
    let id = job.job_id();
    for _ in 0..ATTEMPTS {
        if let Some(written) = try_register(api, job.clone(), options, submission).await? {
            return Ok(Written { warnings: jobspec::warnings_text(&warnings), ..written });
        }
    }
    Err(too_busy(format_args!("job {:?}", id.id)))
}

fn megabytes(bytes: usize) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// One attempt; `None` when somebody else was quicker.
async fn try_register(
    api: &Api,
    mut job: Job,
    options: &RegisterOptions,
    submission: Option<&Submission>,
) -> Result<Option<Written>, ApiError> {
    let id = job.job_id();
    let current = current(api, &id).await?;
    let existing = current.visible();
    if let Some(wanted) = options.enforce_index {
        enforce(wanted, existing.map(|_| u64::try_from(current.revision).unwrap_or(0)))?;
    }
    // Only the server dispatches.
    job.dispatched &= existing.is_some();
    if let Some(existing) = existing {
        admission::check_update(existing, &job)?;
        if options.preserve_counts {
            for group in &mut job.task_groups {
                if let Some(old) = existing.group(&group.name) {
                    group.count = old.count;
                }
            }
        }
    }
    let eval = evaluation(api, &job, options.trigger.unwrap_or(trigger::JOB_REGISTER), options.eval_priority);
    let places = !job.is_template();
    if existing.is_some_and(|existing| existing.same_spec(&job)) {
        return Ok(Some(only_evaluate(api, places.then_some(&eval), current.revision).await?));
    }
    let replacement = replace(api, &current, &mut job)?;
    let mut further = Vec::new();
    if places {
        further.push(put_evaluation(api, &eval)?);
    }
    if let Some(submission) = submission {
        further.push(Op::put(api.context.keys.submission(&id, job.version), super::json(submission)?));
    }
    match commit_replacement(api, &id, &current, replacement, further).await? {
        Committed::Conflict => Ok(None),
        Committed::At(revision) => Ok(Some(Written {
            eval: places.then_some(eval.id),
            eval_index: if places { revision } else { 0 },
            job_index: revision,
            index: revision,
            warnings: String::new(),
        })),
    }
}

/// Writes an evaluation of a job whose specification stays.
async fn only_evaluate(
    api: &Api,
    eval: Option<&crate::model::evaluation::Evaluation>,
    job_index: crate::store::Revision,
) -> Result<Written, ApiError> {
    let Some(eval) = eval else {
        return Ok(Written { job_index, index: job_index, ..Written::default() });
    };
    let key = api.context.keys.text(&Key::Evaluation(eval.job(), eval.id));
    let txn = Txn::when([Guard::absent(key)]).and_then(put_evaluation(api, eval)?);
    match commit(api, txn).await? {
        Committed::At(revision) => Ok(Written {
            eval: Some(eval.id),
            eval_index: revision,
            job_index,
            index: revision,
            warnings: String::new(),
        }),
        Committed::Conflict => Err(too_busy(format_args!("evaluation {}", eval.id))),
    }
}

fn enforce(wanted: u64, existing: Option<u64>) -> Result<(), ApiError> {
    let why = match (wanted, existing) {
        (0, None) => return Ok(()),
        (0, Some(_)) => "job already exists".to_owned(),
        (_, None) => "job does not exist".to_owned(),
        (wanted, Some(index)) if wanted == index => return Ok(()),
        (_, Some(index)) => format!("job exists with conflicting job modify index: {index}"),
    };
    Err(ApiError::internal(format!("Enforcing job modify index {wanted}: {why}")))
}

/// How a job is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StopOptions {
    /// Forget the job once its allocations have ended.
    pub purge: bool,
    /// 0: the job's.
    pub eval_priority: i64,
    pub no_shutdown_delay: bool,
}

/// Stops a job. An unknown one is no error: nothing is written, and all indexes are 0.
///
/// # Errors
/// Those of the store.
pub async fn deregister(api: &Api, id: &JobId, options: StopOptions) -> Result<Written, ApiError> {
    for _ in 0..ATTEMPTS {
        let current = current(api, id).await?;
        let Some(existing) = current.visible() else { return Ok(Written::default()) };
        let eval = evaluation(api, existing, trigger::JOB_DEREGISTER, options.eval_priority);
        let places = !existing.is_template();
        if existing.stop && !options.purge {
            return only_evaluate(api, places.then_some(&eval), current.revision).await;
        }
        let mut next = Job { stop: true, purge: options.purge, version_tag: None, ..existing.clone() };
        let mut replacement = replace(api, &current, &mut next)?;
        if options.purge {
            // The history goes with the job.
            replacement.keep = None;
        }
        let mut further = Vec::new();
        if places {
            further.push(put_evaluation(api, &eval)?);
        }
        if options.no_shutdown_delay {
            let intent = Key::Intent(id.clone(), hurry_intent(next.version));
            further.push(put(api, &intent, &json!({"EvalID": eval.id}))?);
        }
        if let Committed::At(revision) = commit_replacement(api, id, &current, replacement, further).await? {
            return Ok(Written {
                eval: places.then_some(eval.id),
                eval_index: revision,
                job_index: revision,
                index: revision,
                warnings: String::new(),
            });
        }
    }
    Err(too_busy(format_args!("job {:?}", id.id)))
}

/// Asks for an evaluation; with `force_reschedule` failed allocations are replaced without waiting.
///
/// # Errors
/// When the job is unknown or a template.
pub async fn evaluate(api: &Api, id: &JobId, force_reschedule: bool) -> Result<Written, ApiError> {
    let current = current(api, id).await?;
    let job = current.visible().ok_or_else(|| ApiError::internal("job not found"))?;
    if job.periodic.is_some() {
        return Err(ApiError::internal("can't evaluate periodic job"));
    }
    if job.is_template() {
        return Err(ApiError::internal("can't evaluate parameterized job"));
    }
    let eval = evaluation(api, job, trigger::JOB_REGISTER, 0);
    let key = api.context.keys.text(&Key::Evaluation(id.clone(), eval.id));
    let mut txn = Txn::when([Guard::absent(key)]).and_then(put_evaluation(api, &eval)?);
    if force_reschedule {
        let intent = Key::Intent(id.clone(), FORCE_RESCHEDULE.to_owned());
        txn = txn.and_then(put(api, &intent, &json!({"EvalID": eval.id}))?);
    }
    match commit(api, txn).await? {
        Committed::Conflict => Err(too_busy(format_args!("evaluation {}", eval.id))),
        Committed::At(revision) => Ok(Written {
            eval: Some(eval.id),
            eval_index: revision,
            job_index: current.revision,
            index: revision,
            warnings: String::new(),
        }),
    }
}
