//! What users want, written down: each function is one intent and one guarded transaction, tried again a few times
//! when somebody else was quicker.

pub mod admission;
pub mod change;
pub mod launch;
pub mod order;
pub mod plan;
pub mod register;
pub mod setting;

use bytes::Bytes;
use serde::Serialize;

use super::Api;
use super::error::ApiError;
use crate::mirror::derive::DECLARED_STABLE;
use crate::mirror::derive::is_stable;
use crate::model::evaluation::EvalStatus;
use crate::model::evaluation::Evaluation;
use crate::model::id::EvalId;
use crate::model::id::JobId;
use crate::model::job::Job;
use crate::store::Guard;
use crate::store::Op;
use crate::store::Revision;
use crate::store::StoreError;
use crate::store::Txn;
use crate::store::key::Key;

/// How often a write is tried again after losing against another one.
pub(super) const ATTEMPTS: usize = 8;

/// What an intent about a job led to. Revisions are 0 where nothing was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Absent for templates, which place nothing themselves.
    pub eval: Option<EvalId>,
    /// Revision of the evaluation.
    pub eval_index: Revision,
    /// Revision of the job's newest specification.
    pub job_index: Revision,
    /// Revision of the write.
    pub index: Revision,
    /// Formatted for people; empty if there are none.
    pub warnings: String,
}

/// What stands at a job's key.
pub(super) struct Current {
    /// Mod revision of the key; 0: there is none.
    pub revision: Revision,
    /// Create revision of the key.
    pub created: Revision,
    /// The newest accepted value, tombstones included.
    pub job: Option<Job>,
}

impl Current {
    /// The job as readers see it: not when it is being purged.
    pub fn visible(&self) -> Option<&Job> {
        self.job.as_ref().filter(|job| !job.purge)
    }
}

/// Reads what stands at a job's key now. A value that nobody accepted yet is answered by the one that runs.
pub(super) async fn current(api: &Api, id: &JobId) -> Result<Current, ApiError> {
    let key = api.context.keys.text(&Key::Job(id.clone()));
    let (_, item) = api.context.store.get(&key).await?;
    let Some(item) = item else { return Ok(Current { revision: 0, created: 0, job: None }) };
    let written: Option<Job> = serde_json::from_slice(&item.value).ok().filter(Job::is_sealed);
    let job = match written {
        Some(job) => Some(job),
        None => {
            api.catch_up().await?;
            api.context.mirror.read().job(id).map(|job| (*job.value).clone())
        }
    };
    Ok(Current { revision: item.mod_revision, created: item.create_revision, job })
}

/// The outcome of a guarded transaction.
pub(super) enum Committed {
    At(Revision),
    /// Somebody else was quicker.
    Conflict,
}

/// Commits. When the answer is lost, the first key that would have been put tells whether it was done; if not,
/// trying again is safe, since the guards fail should it be done late.
pub(super) async fn commit(api: &Api, txn: Txn) -> Result<Committed, ApiError> {
    let first = txn.then.iter().find_map(|op| match op {
        Op::Put { key, value, .. } => Some((key.clone(), value.clone())),
        _ => None,
    });
    match api.context.store.commit(txn).await {
        Ok(outcome) if outcome.succeeded => Ok(Committed::At(outcome.revision)),
        Ok(_) => Ok(Committed::Conflict),
        Err(StoreError::Ambiguous(why)) => {
            let Some((key, value)) = first else { return Err(StoreError::Ambiguous(why).into()) };
            let (_, item) = api.context.store.get(&key).await?;
            match item.filter(|item| item.value == value) {
                Some(item) => Ok(Committed::At(item.mod_revision)),
                None => Ok(Committed::Conflict),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// The error after [`ATTEMPTS`] conflicts.
pub(super) fn too_busy(what: impl std::fmt::Display) -> ApiError {
    ApiError::internal(format!("{what} is being changed by others, try again"))
}

/// A put of a JSON value.
pub(super) fn put<T: Serialize>(api: &Api, key: &Key, value: &T) -> Result<Op, ApiError> {
    Ok(Op::put(api.context.keys.text(key), json(value)?))
}

/// JSON for the store.
pub(super) fn json<T: Serialize>(value: &T) -> Result<Bytes, ApiError> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| ApiError::internal(format!("cannot encode a value for the store: {error}")))
}

/// A new pending evaluation of `job`; `priority` 0 means the job's.
pub(super) fn evaluation(api: &Api, job: &Job, trigger: &str, priority: i64) -> Evaluation {
    let now = api.now().0;
    let id = job.job_id();
    Evaluation {
        id: EvalId::from_random(api.context.dice.bytes()),
        namespace: id.namespace.to_string(),
        priority: if priority > 0 { priority } else { job.priority },
        kind: job.kind.clone(),
        triggered_by: trigger.to_owned(),
        job_id: id.id.to_string(),
        status: EvalStatus::Pending,
        create_time: now,
        modify_time: now,
        ..Evaluation::default()
    }
}

/// The put of an evaluation.
pub(super) fn put_evaluation(api: &Api, eval: &Evaluation) -> Result<Op, ApiError> {
    put(api, &Key::Evaluation(eval.job(), eval.id), eval)
}

/// What replaces a job's value: the new value sealed, the replaced one among the older versions, and fewer of those
/// if there are too many. The steps are valid one after the other, should they not fit into one transaction.
pub(super) struct Replacement {
    /// Keeps the replaced version; first, so that it is never lost.
    pub keep: Option<Op>,
    pub put: Op,
    pub prune: Vec<Op>,
}

/// Prepares to replace what stands at the job's key by `next`, whose version is set and which is sealed here.
pub(super) fn replace(api: &Api, current: &Current, next: &mut Job) -> Result<Replacement, ApiError> {
    let id = next.job_id();
    let replaced = current.job.as_ref().filter(|job| !job.purge);
    next.version = current.job.as_ref().map_or(0, |job| job.version + 1);
    next.create_index = 0;
    next.modify_index = 0;
    next.job_modify_index = 0;
    next.status.clear();
    next.status_description.clear();
    next.submit_time = api.now().0;
    next.seal();
    let put = put(api, &Key::Job(id.clone()), next)?;
    let Some(replaced) = replaced else { return Ok(Replacement { keep: None, put, prune: Vec::new() }) };
    let mut kept = replaced.clone();
    // What users said of the current version stands in a copy of it.
    if let Some(copy) = copy_of(api, &id, kept.version) {
        kept.version_tag.clone_from(&copy.version_tag);
        let declared = copy.unknown.get(DECLARED_STABLE).cloned();
        kept.unknown.extend(declared.map(|said| (DECLARED_STABLE.to_owned(), said)));
    }
    // An older version remembers the indexes that its key had.
    kept.create_index = u64::try_from(current.created).unwrap_or(0);
    kept.job_modify_index = u64::try_from(current.revision).unwrap_or(0);
    kept.seal();
    let keep = self::put(api, &Key::Version(id.clone(), kept.version), &kept)?;
    Ok(Replacement { keep: Some(keep), put, prune: prune(api, &id, kept.version) })
}

/// The copy of a version among the older versions.
fn copy_of(api: &Api, id: &JobId, version: u64) -> Option<std::sync::Arc<Job>> {
    let state = api.context.mirror.read();
    Some(state.versions.get(id)?.get(&version)?.value.clone())
}

/// Deletes the oldest untagged versions beyond the limit, but never the newest stable one. `kept` is about to join
/// the older versions, and the next one is current.
fn prune(api: &Api, id: &JobId, kept: u64) -> Vec<Op> {
    let state = api.context.mirror.read();
    let older = state.versions.get(id);
    let mut untagged: Vec<u64> = older
        .into_iter()
        .flatten()
        .filter(|(version, job)| **version != kept && job.value.version_tag.is_none())
        .map(|(version, _)| *version)
        .collect();
    untagged.push(kept);
    let excess = (untagged.len() + 1).saturating_sub(api.context.config.job_tracked_versions.max(2));
    let newest_stable = untagged.iter().copied().filter(|version| is_stable(&state, id, *version)).max();
    let doomed = untagged.into_iter().filter(|version| Some(*version) != newest_stable && *version != kept);
    let keys = &api.context.keys;
    doomed
        .take(excess)
        .flat_map(|version| {
            [keys.text(&Key::Version(id.clone(), version)), keys.submission(id, version)].map(Op::delete)
        })
        .collect()
}

/// Commits a replacement with further steps under the condition that the job's key is as it was seen. If old and new
/// value together are too large for one transaction, the old one is kept first.
pub(super) async fn commit_replacement(
    api: &Api,
    id: &JobId,
    current: &Current,
    replacement: Replacement,
    further: Vec<Op>,
) -> Result<Committed, ApiError> {
    let guard = Guard::ModRevision(api.context.keys.text(&Key::Job(id.clone())), current.revision);
    let limit = api.context.store.limits().request_bytes;
    let size: usize =
        further.iter().chain(&replacement.prune).map(Op::size).sum::<usize>() + replacement.put.size();
    if size > limit {
        let text = format!("job {:?} is too large for the store: {size} bytes, the limit is {limit}", id.id);
        return Err(ApiError::Refused { status: http::StatusCode::PAYLOAD_TOO_LARGE, text });
    }
    let mut txn = Txn::when([guard.clone()]).and_then(replacement.put);
    txn.then.extend(further);
    txn.then.extend(replacement.prune);
    if let Some(keep) = replacement.keep {
        if size + keep.size() <= limit {
            txn.then.push(keep);
        } else if let Committed::Conflict = commit(api, Txn::when([guard]).and_then(keep)).await? {
            return Ok(Committed::Conflict);
        }
    }
    commit(api, txn).await
}
