//! Children: dispatched instances of parameterized jobs, and periodic launches that a user forces.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::ATTEMPTS;
use super::Committed;
use super::commit;
use super::current;
use super::evaluation;
use super::put;
use super::put_evaluation;
use super::too_busy;
use crate::api::Api;
use crate::api::error::ApiError;
use crate::model::children::dispatched_child;
use crate::model::children::periodic_child;
use crate::model::evaluation::trigger;
use crate::model::id::EvalId;
use crate::model::id::JobId;
use crate::model::job::Job;
use crate::model::job::ParameterizedConfig;
use crate::model::time::Time;
use crate::store::Guard;
use crate::store::Revision;
use crate::store::Txn;
use crate::store::key::Key;

/// Bytes of a dispatch payload.
const PAYLOAD_MAX: usize = 16_384;

/// A child that was launched, now or by an earlier request with the same token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launched {
    pub job_id: String,
    /// Absent when the child was there already.
    pub eval: Option<EvalId>,
    pub eval_index: Revision,
    /// Create revision of the child.
    pub job_index: Revision,
    pub index: Revision,
}

/// What a dispatch brings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dispatch {
    pub payload: Vec<u8>,
    pub meta: BTreeMap<String, String>,
    /// Stands before the time in the child's id.
    pub id_prefix: String,
    /// Requests with the same token launch one child together.
    pub token: String,
}

/// Launches an instance of a parameterized job.
///
/// # Errors
/// When the job is not parameterized, is stopped, or the request does not bring what it wants.
pub async fn dispatch(api: &Api, id: &JobId, dispatch: &Dispatch) -> Result<Launched, ApiError> {
    let current = current(api, id).await?;
    let parent = current.visible().ok_or_else(|| ApiError::internal("parameterized job not found"))?;
    let Some(config) = parent.parameterized.as_ref().filter(|_| !parent.dispatched) else {
        return Err(ApiError::internal(format!("Specified job {:?} is not a parameterized job", parent.id)));
    };
    if parent.stop {
        return Err(ApiError::internal(format!("Specified job {:?} is stopped", parent.id)));
    }
    check(config, dispatch)?;
    for _ in 0..ATTEMPTS {
        if let Some(launched) = earlier(api, id, &dispatch.token).await? {
            return Ok(launched);
        }
        let mut child = dispatched_child(parent, &unique(api, &dispatch.id_prefix));
        child.payload = (!dispatch.payload.is_empty()).then(|| STANDARD.encode(&dispatch.payload));
        child.meta.extend(dispatch.meta.clone());
        child.dispatch_idempotency_token.clone_from(&dispatch.token);
        let token =
            (!dispatch.token.is_empty()).then(|| Key::Launch(id.clone(), token_name(&dispatch.token)));
        if let Some(launched) = launch(api, child, token, trigger::JOB_REGISTER).await? {
            return Ok(launched);
        }
    }
    Err(too_busy(format_args!("job {:?}", id.id)))
}

/// Launches a child of a periodic job now, even where overlap is prohibited.
///
/// # Errors
/// When the job is not periodic, or not active.
pub async fn force_periodic(api: &Api, id: &JobId) -> Result<Launched, ApiError> {
    let current = current(api, id).await?;
    let parent = current.visible().ok_or_else(|| ApiError::internal("job not found"))?;
    let Some(periodic) = &parent.periodic else {
        return Err(ApiError::internal("can't force launch non-periodic job"));
    };
    if parent.stop || periodic.enabled == Some(false) || parent.parameterized.is_some() && !parent.dispatched
    {
        return Err(ApiError::internal(format!(
            "force launch for job {0:?} failed: can't force run non-tracked job {0:?} ({1})",
            parent.id, id.namespace
        )));
    }
    let now = Time::from_secs(api.now().secs());
    let name = now.secs().to_string();
    let key = Key::Launch(id.clone(), name.clone());
    match launch(api, periodic_child(parent, now), Some(key), trigger::PERIODIC_JOB).await? {
        Some(launched) => Ok(launched),
        // This second was launched already, by the schedule or by another user: that child is the answer.
        None => {
            let child = JobId::new(id.namespace.clone(), periodic_child(parent, now).id);
            existing(api, &child).await?.ok_or_else(|| too_busy(format_args!("job {:?}", id.id)))
        }
    }
}

/// Creates a child with its evaluation; `None` if the launch or the child exists already.
async fn launch(
    api: &Api,
    mut child: Job,
    record: Option<Key>,
    trigger: &str,
) -> Result<Option<Launched>, ApiError> {
    let now = api.now();
    child.submit_time = now.0;
    child.seal();
    let child_key = Key::Job(child.job_id());
    // A parameterized job with a schedule dispatches a child that waits for its own instants.
    let eval = (!child.is_template()).then(|| evaluation(api, &child, trigger, 0));
    let mut txn =
        Txn::when([Guard::absent(api.context.keys.text(&child_key))]).and_then(put(api, &child_key, &child)?);
    if let Some(eval) = &eval {
        txn = txn.and_then(put_evaluation(api, eval)?);
    }
    if let Some(record) = record {
        txn.guards.push(Guard::absent(api.context.keys.text(&record)));
        txn = txn.and_then(put(api, &record, &json!({"Child": child.id, "Time": now.0}))?);
    }
    match commit(api, txn).await? {
        Committed::Conflict => Ok(None),
        Committed::At(revision) => Ok(Some(Launched {
            job_id: child.id,
            eval: eval.as_ref().map(|eval| eval.id),
            eval_index: if eval.is_some() { revision } else { 0 },
            job_index: revision,
            index: revision,
        })),
    }
}

/// The name of a launch record that stands for a dispatch token. Periodic launches are plain numbers.
fn token_name(token: &str) -> String {
    format!("token:{token}")
}

/// The child of an earlier dispatch with the same token, if it still exists.
async fn earlier(api: &Api, id: &JobId, token: &str) -> Result<Option<Launched>, ApiError> {
    if token.is_empty() {
        return Ok(None);
    }
    let key = api.context.keys.text(&Key::Launch(id.clone(), token_name(token)));
    let (_, record) = api.context.store.get(&key).await?;
    let Some(record) = record else { return Ok(None) };
    let value: serde_json::Value = serde_json::from_slice(&record.value).unwrap_or_default();
    let child = value.get("Child").and_then(serde_json::Value::as_str).unwrap_or_default();
    if let Some(launched) = existing(api, &JobId::new(id.namespace.clone(), child)).await? {
        return Ok(Some(launched));
    }
    // The child was collected, so the token is free again.
    let txn = Txn::when([Guard::unchanged(&record)]).and_then(crate::store::Op::delete(key));
    commit(api, txn).await?;
    Ok(None)
}

async fn existing(api: &Api, id: &JobId) -> Result<Option<Launched>, ApiError> {
    let current = current(api, id).await?;
    Ok(current.visible().map(|child| Launched {
        job_id: child.id.clone(),
        eval: None,
        eval_index: 0,
        job_index: current.created,
        index: current.created,
    }))
}

/// `[<prefix>-]<unix seconds>-<8 hex digits>`.
fn unique(api: &Api, prefix: &str) -> String {
    let tail = format!("{}-{}", api.now().secs(), hex::encode(&api.context.dice.bytes()[..4]));
    if prefix.is_empty() { tail } else { format!("{prefix}-{tail}") }
}

fn check(config: &ParameterizedConfig, dispatch: &Dispatch) -> Result<(), ApiError> {
    let size = dispatch.payload.len();
    match config.payload.as_str() {
        "required" if size == 0 => {
            return Err(ApiError::internal("Payload is not provided but required by parameterized job"));
        }
        "forbidden" if size > 0 => {
            return Err(ApiError::internal("Payload provided but forbidden by parameterized job"));
        }
        _ => {}
    }
    if size > PAYLOAD_MAX {
        return Err(ApiError::internal(format!("Payload exceeds maximum size; {size} > {PAYLOAD_MAX}")));
    }
    let known = |key: &&String| config.meta_required.contains(key) || config.meta_optional.contains(key);
    let unpermitted: Vec<&str> = dispatch.meta.keys().filter(|key| !known(key)).map(String::as_str).collect();
    if !unpermitted.is_empty() {
        return Err(ApiError::internal(format!(
            "Dispatch request included unpermitted metadata keys: [{}]",
            unpermitted.join(" ")
        )));
    }
    let missing = config.meta_required.iter().filter(|key| !dispatch.meta.contains_key(*key));
    let missing: Vec<&str> = missing.map(String::as_str).collect();
    if !missing.is_empty() {
        return Err(ApiError::internal(format!(
            "Dispatch did not provide required meta keys: [{}]",
            missing.join(" ")
        )));
    }
    Ok(())
}
