//! Writes about jobs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use serde_json::json;

use crate::api::Api;
use crate::api::View;
use crate::api::call::Call;
use crate::api::call::Fields;
use crate::api::error::ApiError;
use crate::api::intent::Written;
use crate::api::intent::admission;
use crate::api::intent::change;
use crate::api::intent::change::Scaling;
use crate::api::intent::launch;
use crate::api::intent::launch::Dispatch;
use crate::api::intent::launch::Launched;
use crate::api::intent::plan;
use crate::api::intent::register;
use crate::api::intent::register::RegisterOptions;
use crate::api::intent::register::StopOptions;
use crate::api::intent::register::Submission;
use crate::api::read;
use crate::api::reply;
use crate::api::reply::Reply;
use crate::api::views::index;
use crate::api::views::text_of;
use crate::jobspec;
use crate::jobspec::Source;
use crate::jobspec::Variables;
use crate::model::id::DEFAULT_NAMESPACE;
use crate::model::job::Job;
use crate::model::multierror::multierror;

/// The answer to writes about a job.
pub(in crate::api) fn written(call: &Call, written: &Written) -> Result<Reply, ApiError> {
    reply::written(
        call,
        written.index,
        &json!({
            "EvalID": text_of(written.eval.as_ref()),
            "EvalCreateIndex": index(written.eval_index),
            "JobModifyIndex": index(written.job_index),
            "Warnings": written.warnings,
            "Index": index(written.index), "LastContact": 0, "KnownLeader": false, "NextToken": "",
        }),
    )
}

/// The job of a request body, with namespace and region resolved: query, then body, then job.
pub(in crate::api) fn job_of(api: &Api, call: &Call, fields: &Fields) -> Result<Job, ApiError> {
    let value = fields.get("Job").ok_or_else(|| ApiError::bad_request("Job must be specified"))?;
    if Fields::of(value.clone()).get("ID").is_none() {
        return Err(ApiError::bad_request("Job ID hasn't been provided"));
    }
    let mut job = admission::decode(value)?;
    let first =
        |texts: [&str; 4]| texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default().to_owned();
    job.namespace = first([
        call.text("namespace").unwrap_or_default(),
        fields.text("Namespace")?,
        &job.namespace,
        DEFAULT_NAMESPACE,
    ]);
    job.region = first([
        call.text("region").unwrap_or_default(),
        fields.text("Region")?,
        &job.region,
        &api.context.region,
    ]);
    if job.region == "global" {
        job.region.clone_from(&api.context.region);
    }
    if job.region != api.context.region {
        return Err(ApiError::internal("No path to region"));
    }
    Ok(job)
}

/// An evaluation priority: 0, or 1 to 100.
fn priority(given: Option<i64>) -> Result<i64, ApiError> {
    match given.unwrap_or(0) {
        priority @ 0..=100 => Ok(priority),
        _ => Err(ApiError::bad_request("Eval priority must be between 1 and 100 inclusively")),
    }
}

pub(in crate::api) async fn register(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let fields = call.fields()?;
    let job = job_of(api, call, &fields)?;
    if !call.subject().is_empty() && job.id != call.subject() {
        return Err(ApiError::bad_request("Job ID does not match name"));
    }
    let submission = fields.get("Submission").map(source_of).transpose()?;
    let options = RegisterOptions {
        enforce_index: if fields.flag("EnforceIndex")? {
            Some(fields.unsigned("JobModifyIndex")?)
        } else {
            None
        },
        preserve_counts: fields.flag("PreserveCounts")?,
        eval_priority: priority(fields.integer("EvalPriority")?)?,
        submission,
        trigger: None,
    };
    written(call, &register::register(api, job, &options).await?)
}

fn source_of(value: &Value) -> Result<Submission, ApiError> {
    let fields = Fields::of(value.clone());
    Ok(Submission {
        source: fields.text("Source")?.to_owned(),
        format: fields.text("Format")?.to_owned(),
        variable_flags: fields.text_map("VariableFlags")?,
        variables: fields.text("Variables")?.to_owned(),
    })
}

pub(in crate::api) async fn deregister(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    call.flag("global")?;
    let options = StopOptions {
        purge: call.flag("purge")?,
        eval_priority: priority(call.integer("eval_priority")?)?,
        no_shutdown_delay: call.flag("no_shutdown_delay")?,
    };
    let done = register::deregister(api, &call.job(), options).await?;
    reply::written(
        call,
        done.index,
        &json!({
            "EvalID": text_of(done.eval.as_ref()),
            "EvalCreateIndex": index(done.eval_index),
            "JobModifyIndex": index(done.job_index),
            "VolumeEvalID": "", "VolumeEvalIndex": 0,
            "Index": index(done.index), "LastContact": 0, "KnownLeader": false, "NextToken": "",
        }),
    )
}

pub(in crate::api) async fn evaluate(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let mut force = false;
    if !call.body.is_empty() {
        let fields = call.fields()?;
        match fields.text("JobID")? {
            "" => return Err(ApiError::bad_request("Job ID must be specified")),
            id if id != call.subject() => return Err(ApiError::bad_request("JobID not same as job name")),
            _ => {}
        }
        let options = fields.get("EvalOptions").cloned().unwrap_or_default();
        force = Fields::of(options).flag("ForceReschedule")?;
    }
    written(call, &register::evaluate(api, &call.job(), force).await?)
}

pub(in crate::api) async fn plan(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let fields = call.fields()?;
    let given = fields.get("Job").ok_or_else(|| ApiError::bad_request("Job must be specified"))?;
    if Fields::of(given.clone()).text("ID")?.is_empty() {
        return Err(ApiError::bad_request("Job must have a valid ID"));
    }
    let job = job_of(api, call, &fields)?;
    if job.id != call.subject() {
        return Err(ApiError::bad_request("Job ID does not match"));
    }
    let (index, planned) = plan::plan(api, job, fields.flag("Diff")?).await?;
    reply::written(call, index, &planned)
}

pub(in crate::api) async fn validate(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let fields = call.fields()?;
    let mut job = job_of(api, call, &fields)?;
    api.catch_up().await?;
    let (problems, warnings) = admission::examine(api, &mut job);
    let error = if problems.is_empty() { String::new() } else { multierror(&problems) };
    reply::json(
        call,
        &json!({
            "DriverConfigValidated": true,
            "ValidationErrors": if problems.is_empty() { Value::Null } else { json!(problems) },
            "Error": error,
            "Warnings": jobspec::warnings_text(&warnings),
        }),
    )
}

pub(in crate::api) async fn parse(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let fields = call.fields()?;
    let text = fields.text("JobHCL")?;
    if text.trim().is_empty() {
        return Err(ApiError::bad_request("Job spec is empty"));
    }
    let mut variables = Variables::default();
    let file = fields.text("Variables")?;
    if !file.is_empty() {
        variables.files.push(("input.vars".to_owned(), file.to_owned()));
    }
    let source = Source { name: "input.hcl", text };
    let parsed = jobspec::parse(&source, &variables)
        .map_err(|problems| ApiError::bad_request(format!("Failed to parse job: {problems}")))?;
    if !fields.flag("Canonicalize")? {
        return reply::json(call, &parsed.request());
    }
    reply::json(call, &parsed.canonical(&admission::defaults(api)))
}

fn launched(call: &Call, launched: &Launched) -> Result<Reply, ApiError> {
    reply::written(
        call,
        launched.index,
        &json!({
            "DispatchedJobID": launched.job_id,
            "EvalID": text_of(launched.eval.as_ref()),
            "EvalCreateIndex": index(launched.eval_index),
            "JobCreateIndex": index(launched.job_index),
            "Index": index(launched.index),
        }),
    )
}

pub(in crate::api) async fn dispatch(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let fields = if call.body.is_empty() { Fields::default() } else { call.fields()? };
    let named = fields.text("JobID")?;
    if !named.is_empty() && named != call.subject() {
        return Err(ApiError::bad_request("Job ID does not match"));
    }
    let payload = STANDARD.decode(fields.text("Payload")?).map_err(|error| {
        let at = match error {
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            _ => 0,
        };
        ApiError::bad_request(format!("illegal base64 data at input byte {at}"))
    })?;
    let request = Dispatch {
        payload,
        meta: fields.text_map("Meta")?,
        id_prefix: fields.text("IdPrefixTemplate")?.to_owned(),
        token: call.param("idempotency_token").unwrap_or_default().to_owned(),
    };
    launched(call, &launch::dispatch(api, &call.job(), &request).await?)
}

pub(in crate::api) async fn dispatch_payload(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let token = call.param("idempotency_token").unwrap_or_default().to_owned();
    let request = Dispatch { payload: call.body.to_vec(), token, ..Dispatch::default() };
    launched(call, &launch::dispatch(api, &call.job(), &request).await?)
}

pub(in crate::api) async fn force_periodic(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let done = launch::force_periodic(api, &call.job()).await?;
    reply::written(
        call,
        done.index,
        &json!({
            "EvalID": text_of(done.eval.as_ref()),
            "EvalCreateIndex": index(done.eval_index),
            "Index": index(done.index),
        }),
    )
}

/// Checks the job that a body names against the path.
fn check_named(call: &Call, fields: &Fields) -> Result<(), ApiError> {
    match fields.text("JobID")? {
        "" => Err(ApiError::bad_request("JobID must be specified")),
        id if id != call.subject() => Err(ApiError::bad_request("Job ID does not match")),
        _ => Ok(()),
    }
}

pub(in crate::api) async fn revert(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let fields = call.fields()?;
    check_named(call, &fields)?;
    let enforce = fields.get("EnforcePriorVersion").and_then(Value::as_u64);
    let done = change::revert(api, &call.job(), fields.unsigned("JobVersion")?, enforce).await?;
    written(call, &done)
}

pub(in crate::api) async fn stable(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let fields = call.fields()?;
    check_named(call, &fields)?;
    let (version, stable) = (fields.unsigned("JobVersion")?, fields.flag("Stable")?);
    let revision = change::set_stable(api, &call.job(), version, stable).await?;
    reply::written(call, revision, &json!({ "Index": index(revision) }))
}

pub(in crate::api) async fn tag(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let name = call.captures.get(1).map_or("", String::as_str);
    let fields = call.fields()?;
    let (version, description) = (fields.unsigned("Version")?, fields.text("Description")?);
    let (revision, tag) = change::tag(api, &call.job(), version, name, description).await?;
    reply::json(
        call,
        &json!({
            "Name": tag.name, "Description": tag.description, "TaggedTime": tag.tagged_time,
            "Index": index(revision), "LastContact": 0, "KnownLeader": false, "NextToken": "",
        }),
    )
}

pub(in crate::api) async fn untag(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let name = call.captures.get(1).map_or("", String::as_str);
    let revision = change::untag(api, &call.job(), name).await?;
    reply::json(
        call,
        &json!({
            "Name": "", "Description": "", "TaggedTime": 0,
            "Index": index(revision), "LastContact": 0, "KnownLeader": false, "NextToken": "",
        }),
    )
}

pub(in crate::api) async fn scale(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let fields = call.fields()?;
    let target = fields.text_map("Target")?;
    let aimed = |key: &str| target.get(key).map(String::as_str).filter(|text| !text.is_empty());
    if aimed("Namespace").is_some_and(|namespace| namespace != call.namespace()) {
        return Err(ApiError::bad_request("namespace in payload did not match header"));
    }
    if aimed("Job").is_some_and(|job| job != call.subject()) {
        return Err(ApiError::bad_request("job ID in payload did not match URL"));
    }
    let group =
        aimed("Group").ok_or_else(|| ApiError::bad_request("missing task group name for scaling action"))?;
    let count = fields.integer("Count")?;
    if count.is_some_and(|count| count < 0) {
        return Err(ApiError::bad_request("scaling action count can't be negative"));
    }
    let error = fields.flag("Error")?;
    if error && count.is_some() {
        return Err(ApiError::bad_request("scaling action should not contain count if error is true"));
    }
    let request = Scaling {
        group: group.to_owned(),
        count,
        message: fields.text("Message")?.to_owned(),
        error,
        meta: fields.get("Meta").cloned().unwrap_or_default(),
        job_index: fields.unsigned("JobModifyIndex")?,
    };
    written(call, &change::scale(api, &call.job(), &request).await?)
}

/// How far the groups are, with the scaling events that stand beside the job in the store.
pub(in crate::api) async fn scale_status(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let id = call.job();
    let (_, mut events) = change::scaling_events(api, &id).await?;
    let find = |view: &View<'_>, call: &Call| {
        let missing = || ApiError::not_found("job not found");
        let job = read::jobs::visible(view.state, &call.job()).ok_or_else(missing)?;
        Ok(read::jobs::scale_status(view, &call.job(), &job))
    };
    // Blocks like a read, then adds what only the store has.
    let (index, status) = read::settled(api, call, read::jobs::job_index, find).await?;
    let reply = match status {
        Ok(mut status) => {
            for (name, group) in &mut status.task_groups {
                let own = events.remove(name).unwrap_or_default();
                group.events = own.iter().filter_map(|event| serde_json::to_value(event).ok()).collect();
            }
            reply::json(call, &status)?
        }
        Err(error) => reply::refusal(&error),
    };
    Ok(read::read_headers(api, reply, index))
}

/// The text that a version was made from.
pub(in crate::api) async fn submission(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let wrong = || ApiError::bad_request("Unable to parse job submission version parameter");
    let version: u64 = call.text("version").ok_or_else(wrong)?.parse().map_err(|_| wrong())?;
    let id = call.job();
    let (_, item) = api.context.store.get(&api.context.keys.submission(&id, version)).await?;
    let stored = item
        .and_then(|item| Some((item.mod_revision, serde_json::from_slice::<Submission>(&item.value).ok()?)));
    let Some((revision, submission)) = stored else {
        let reply = reply::refusal(&ApiError::not_found("job source not found"));
        return Ok(read::read_headers(api, reply, 1));
    };
    let shown = json!({
        "Source": submission.source, "Format": submission.format,
        "VariableFlags": submission.variable_flags, "Variables": submission.variables,
        "Namespace": &*id.namespace, "JobID": &*id.id, "Version": version, "JobModifyIndex": revision,
    });
    Ok(read::read_headers(api, reply::json(call, &shown)?, revision))
}
