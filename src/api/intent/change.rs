//! Changes of a registered job: its counts, going back to an older version, and what users say about versions.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use super::ATTEMPTS;
use super::Committed;
use super::Current;
use super::Written;
use super::commit;
use super::commit_replacement;
use super::current;
use super::evaluation;
use super::put;
use super::put_evaluation;
use super::register;
use super::register::RegisterOptions;
use super::replace;
use super::too_busy;
use crate::api::Api;
use crate::api::error::ApiError;
use crate::mirror::derive::DECLARED_STABLE;
use crate::mirror::derive::is_stable;
use crate::model::evaluation::trigger;
use crate::model::id::EvalId;
use crate::model::id::JobId;
use crate::model::job::Job;
use crate::model::job::JobType;
use crate::model::job::VersionTag;
use crate::store::Guard;
use crate::store::Op;
use crate::store::Revision;
use crate::store::Txn;
use crate::store::key::Key;

/// Scaling events kept per group.
const SCALING_EVENTS_KEPT: usize = 20;

/// A request to scale one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scaling {
    pub group: String,
    /// Absent: only note an event.
    pub count: Option<i64>,
    pub message: String,
    pub error: bool,
    pub meta: Value,
    /// Only if the job's index is this one; 0: whatever it is.
    pub job_index: u64,
}

/// Something that was said or done about a group's count. Stored per job, newest first per group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ScalingEvent {
    /// Unix nanoseconds.
    pub time: i64,
    pub count: Option<i64>,
    pub previous_count: i64,
    pub message: String,
    pub error: bool,
    pub meta: Value,
    #[serde(rename = "EvalID")]
    pub eval_id: Option<EvalId>,
    pub create_index: u64,
}

/// The scaling events of a job by group.
pub type ScalingEvents = BTreeMap<String, Vec<ScalingEvent>>;

/// Reads the scaling events of a job, with the mod revision of their key.
///
/// # Errors
/// Those of the store.
pub async fn scaling_events(api: &Api, id: &JobId) -> Result<(Revision, ScalingEvents), ApiError> {
    let (_, item) = api.context.store.get(&api.context.keys.scaling_events(id)).await?;
    let Some(item) = item else { return Ok((0, ScalingEvents::new())) };
    Ok((item.mod_revision, serde_json::from_slice(&item.value).unwrap_or_default()))
}

/// Sets the count of a group, or only notes an event about it.
///
/// # Errors
/// With Nomad's texts when the job, the group or the count is not right, or a rollout is under way.
pub async fn scale(api: &Api, id: &JobId, scaling: &Scaling) -> Result<Written, ApiError> {
    api.catch_up().await?;
    for _ in 0..ATTEMPTS {
        let current = current(api, id).await?;
        let unknown = || ApiError::not_found(format!("job {:?} not found", id.id));
        let job = current.visible().ok_or_else(unknown)?;
        let previous = check_scaling(api, job, &current, scaling)?;
        let mut written =
            Written { job_index: current.revision, index: current.revision, ..Written::default() };
        if let Some(count) = scaling.count {
            let Some(done) = set_count(api, id, &current, &scaling.group, count).await? else { continue };
            written = done;
        }
        written.index = note(api, id, scaling, previous, &written).await?.max(written.index);
        return Ok(written);
    }
    Err(too_busy(format_args!("job {:?}", id.id)))
}

/// Checks a request and returns the group's count.
fn check_scaling(api: &Api, job: &Job, current: &Current, scaling: &Scaling) -> Result<i64, ApiError> {
    if scaling.job_index != 0 && i64::try_from(scaling.job_index) != Ok(current.revision) {
        return Err(ApiError::internal(format!(
            "Enforcing job modify index {}: job exists with conflicting job modify index: {}",
            scaling.job_index, current.revision
        )));
    }
    let group = job.group(&scaling.group).ok_or_else(|| {
        let name = &scaling.group;
        ApiError::bad_request(format!("task group {name:?} specified for scaling does not exist in job"))
    })?;
    let previous = group.count.unwrap_or(1);
    let Some(count) = scaling.count else { return Ok(previous) };
    let bound = |key: &str| group.scaling.as_ref().and_then(|policy| policy.get(key)?.as_i64());
    if let Some(min) = bound("Min").filter(|min| count < *min) {
        return Err(ApiError::bad_request(format!(
            "group count was less than scaling policy minimum: {count} < {min}"
        )));
    }
    if let Some(max) = bound("Max").filter(|max| count > *max) {
        return Err(ApiError::bad_request(format!(
            "group count was greater than scaling policy maximum: {count} > {max}"
        )));
    }
    if job.job_type() == JobType::System && !(0..=1).contains(&count) {
        return Err(ApiError::bad_request("jobs of type \"system\" can only be scaled between 0 and 1"));
    }
    let state = api.context.mirror.read();
    let rollout = state.latest_deployment(&job.job_id());
    let incarnation = u64::try_from(current.created).unwrap_or(0);
    if rollout.is_some_and(|rollout| {
        rollout.value.status.is_active() && rollout.value.job_create_index == incarnation
    }) {
        return Err(ApiError::bad_request("job scaling blocked due to active deployment"));
    }
    Ok(previous)
}

async fn set_count(
    api: &Api,
    id: &JobId,
    current: &Current,
    group: &str,
    count: i64,
) -> Result<Option<Written>, ApiError> {
    let Some(job) = current.visible() else { return Ok(None) };
    let mut next = Job { version_tag: None, ..job.clone() };
    for own in next.task_groups.iter_mut().filter(|own| own.name == group) {
        own.count = Some(count);
    }
    next.stable = is_stable(&api.context.mirror.read(), id, job.version);
    let eval = (!next.is_template()).then(|| evaluation(api, &next, trigger::JOB_SCALING, 0));
    let replacement = replace(api, current, &mut next)?;
    let further: Vec<Op> = eval.iter().map(|eval| put_evaluation(api, eval)).collect::<Result<_, _>>()?;
    match commit_replacement(api, id, current, replacement, further).await? {
        Committed::Conflict => Ok(None),
        Committed::At(revision) => Ok(Some(Written {
            eval: eval.as_ref().map(|eval| eval.id),
            eval_index: if eval.is_some() { revision } else { 0 },
            job_index: revision,
            index: revision,
            warnings: String::new(),
        })),
    }
}

/// Adds an event to the group's list and returns the revision.
async fn note(
    api: &Api,
    id: &JobId,
    scaling: &Scaling,
    previous: i64,
    written: &Written,
) -> Result<Revision, ApiError> {
    let key = api.context.keys.scaling_events(id);
    for _ in 0..ATTEMPTS {
        let (revision, mut events) = scaling_events(api, id).await?;
        let own = events.entry(scaling.group.clone()).or_default();
        let event = ScalingEvent {
            time: api.now().0,
            count: scaling.count,
            previous_count: previous,
            message: scaling.message.clone(),
            error: scaling.error,
            meta: scaling.meta.clone(),
            eval_id: written.eval,
            create_index: u64::try_from(written.index).unwrap_or(0),
        };
        own.insert(0, event);
        own.truncate(SCALING_EVENTS_KEPT);
        let put = Op::put(key.clone(), super::json(&events)?);
        let txn = Txn::when([Guard::ModRevision(key.clone(), revision)]).and_then(put);
        if let Committed::At(revision) = commit(api, txn).await? {
            return Ok(revision);
        }
    }
    Err(too_busy(format_args!("the scaling history of job {:?}", id.id)))
}

/// Registers an older version again, as the next one.
///
/// # Errors
/// With Nomad's texts when there is nothing to go back to.
pub async fn revert(api: &Api, id: &JobId, version: u64, enforce: Option<u64>) -> Result<Written, ApiError> {
    api.catch_up().await?;
    let current = current(api, id).await?;
    let unknown = || ApiError::internal(format!("job {:?} not found", id.id));
    let existing = current.visible().ok_or_else(unknown)?;
    if let Some(enforced) = enforce.filter(|enforced| *enforced != existing.version) {
        return Err(ApiError::internal(format!(
            "Current job has version {}; enforcing version {enforced}",
            existing.version
        )));
    }
    if existing.version == version {
        return Err(ApiError::internal("can't revert to current version"));
    }
    let older = api.context.mirror.read().job_version(id, version);
    let older = older.ok_or_else(|| no_version(id, version))?;
    let mut job =
        Job { stop: false, purge: false, stable: false, version_tag: None, ..(*older.value).clone() };
    job.unknown.remove(DECLARED_STABLE);
    let options = RegisterOptions {
        enforce_index: Some(u64::try_from(current.revision).unwrap_or(0)),
        ..RegisterOptions::default()
    };
    register::register(api, job, &options).await
}

fn no_version(id: &JobId, version: u64) -> ApiError {
    ApiError::internal(format!(
        "job {:?} in namespace {:?} at version {version} not found",
        id.id, id.namespace
    ))
}

/// Declares a version stable or not. Its specification and index stay as they are.
///
/// # Errors
/// When there is no such version.
pub async fn set_stable(api: &Api, id: &JobId, version: u64, stable: bool) -> Result<Revision, ApiError> {
    let mark = |job: &mut Job| {
        job.unknown.insert(DECLARED_STABLE.to_owned(), Value::Bool(stable));
        Ok(())
    };
    annotate(api, id, version, || no_version(id, version), mark).await
}

/// Longer descriptions of versions are refused.
const MAX_DESCRIPTION_CHARS: usize = 1000;

/// Gives a version a name, unique within the job.
///
/// # Errors
/// When there is no such version, another one has the name, or the description is too long.
pub async fn tag(
    api: &Api,
    id: &JobId,
    version: u64,
    name: &str,
    description: &str,
) -> Result<(Revision, VersionTag), ApiError> {
    let length = description.chars().count();
    if length > MAX_DESCRIPTION_CHARS {
        return Err(ApiError::internal(format!(
            "Tagged version description must be under {MAX_DESCRIPTION_CHARS} characters, currently {length}"
        )));
    }
    api.catch_up().await?;
    let taken = {
        let state = api.context.mirror.read();
        tagged(&state, id, name).is_some_and(|owner| owner != version)
    };
    if taken {
        return Err(ApiError::internal(format!(
            "tag {name:?} already exists on a different version of job {:?}",
            id.id
        )));
    }
    let tag =
        VersionTag { name: name.to_owned(), description: description.to_owned(), tagged_time: api.now().0 };
    let missing = || ApiError::internal(format!("job {:?} version {version} not found", id.id));
    let revision = annotate(api, id, version, missing, |job| {
        job.version_tag = Some(tag.clone());
        Ok(())
    })
    .await?;
    Ok((revision, tag))
}

/// Takes a name away.
///
/// # Errors
/// When no version has it.
pub async fn untag(api: &Api, id: &JobId, name: &str) -> Result<Revision, ApiError> {
    api.catch_up().await?;
    let missing = || ApiError::internal(format!("tag {name:?} not found on job {:?}", id.id));
    let version = tagged(&api.context.mirror.read(), id, name).ok_or_else(missing)?;
    annotate(api, id, version, missing, |job| {
        job.version_tag = None;
        Ok(())
    })
    .await
}

fn tagged(state: &crate::mirror::state::State, id: &JobId, name: &str) -> Option<u64> {
    let versions = state.versions.get(id)?;
    let owner = |job: &Job| job.version_tag.as_ref().is_some_and(|tag| tag.name == name);
    versions.iter().find(|(_, job)| owner(&job.value)).map(|(version, _)| *version)
}

/// Changes the copy of a version among the older versions, making one of the current version if need be.
async fn annotate(
    api: &Api,
    id: &JobId,
    version: u64,
    missing: impl Fn() -> ApiError,
    change: impl Fn(&mut Job) -> Result<(), ApiError>,
) -> Result<Revision, ApiError> {
    let key = Key::Version(id.clone(), version);
    let text = api.context.keys.text(&key);
    for _ in 0..ATTEMPTS {
        let current = current(api, id).await?;
        let existing = current.visible().ok_or_else(&missing)?;
        let (_, copy) = api.context.store.get(&text).await?;
        let mut guards =
            vec![Guard::ModRevision(text.clone(), copy.as_ref().map_or(0, |copy| copy.mod_revision))];
        let stored = copy.and_then(|copy| serde_json::from_slice::<Job>(&copy.value).ok());
        let mut job = match stored {
            Some(job) if existing.version >= version => job,
            None if existing.version == version => {
                let key = api.context.keys.text(&Key::Job(id.clone()));
                guards.push(Guard::ModRevision(key, current.revision));
                Job {
                    create_index: u64::try_from(current.created).unwrap_or(0),
                    job_modify_index: u64::try_from(current.revision).unwrap_or(0),
                    ..existing.clone()
                }
            }
            _ => return Err(missing()),
        };
        change(&mut job)?;
        job.seal();
        let txn = Txn::when(guards).and_then(put(api, &key, &job)?);
        if let Committed::At(revision) = commit(api, txn).await? {
            return Ok(revision);
        }
    }
    Err(too_busy(format_args!("job {:?}", id.id)))
}
