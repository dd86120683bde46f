//! Writes about jobs.

use serde_json::Value;
use serde_json::json;

use crate::api::Api;
use crate::api::call::Call;
use crate::api::call::Fields;
use crate::api::error::ApiError;
use crate::api::intent::Written;
use crate::api::intent::admission;
use crate::api::intent::register;
use crate::api::intent::register::RegisterOptions;
use crate::api::intent::register::StopOptions;
use crate::api::intent::register::Submission;
use crate::api::reply;
use crate::api::reply::Reply;
use crate::api::views::index;
use crate::api::views::text_of;
use crate::model::id::DEFAULT_NAMESPACE;
use crate::model::job::Job;

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
    let submission = fields.get("Submission").map(submission).transpose()?;
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

fn submission(value: &Value) -> Result<Submission, ApiError> {
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
