//! Writes about namespaces, node pools, the scheduler's configuration, and collecting garbage.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::api::Api;
use crate::api::call::Call;
use crate::api::call::Fields;
use crate::api::error::ApiError;
use crate::api::intent::setting;
use crate::api::read::settings;
use crate::api::reply;
use crate::api::reply::Reply;
use crate::api::views::index;
use crate::mirror::derive::BUILT_IN_POOLS;
use crate::model::id::DEFAULT_NAMESPACE;
use crate::model::multierror::multierror;
use crate::store::Revision;
use crate::store::key::Key;

const NAME_MAX: usize = 128;
const DESCRIPTION_MAX: usize = 256;

fn done(revision: Revision) -> Reply {
    reply::with_header(reply::empty(), "x-nomad-index", &revision.to_string())
}

fn check_name(name: &str, extra: &[char]) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || extra.contains(&c);
    !name.is_empty() && name.len() <= NAME_MAX && name.chars().all(fits)
}

/// Keeps the given fields, spelled as in `keys`.
fn kept(fields: &Fields, keys: &[&str]) -> Map<String, Value> {
    keys.iter().filter_map(|key| Some(((*key).to_owned(), fields.get(key)?.clone()))).collect()
}

pub(in crate::api) async fn put_namespace(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let fields = call.fields()?;
    let name = fields.text("Name")?;
    if !call.subject().is_empty() && name != call.subject() {
        return Err(ApiError::bad_request("Namespace name does not match request path"));
    }
    if !check_name(name, &[]) {
        return Err(ApiError::internal(multierror(&[format!(
            "invalid name {name:?}. Must match regex ^[a-zA-Z0-9-]{{1,128}}$"
        )])));
    }
    if fields.text("Description")?.len() > DESCRIPTION_MAX {
        return Err(ApiError::internal(multierror(&["description longer than 256".to_owned()])));
    }
    fields.text_map("Meta")?;
    let keys = [
        "Name",
        "Description",
        "Quota",
        "Capabilities",
        "NodePoolConfiguration",
        "VaultConfiguration",
        "ConsulConfiguration",
        "Meta",
    ];
    let revision = setting::write(api, &Key::Namespace(name.to_owned()), &kept(&fields, &keys)).await?;
    Ok(done(revision))
}

pub(in crate::api) async fn delete_namespace(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let name = call.subject();
    if name == DEFAULT_NAMESPACE {
        return Err(ApiError::internal("can not delete default namespace"));
    }
    api.catch_up().await?;
    {
        let state = api.context.mirror.read();
        if !state.namespaces.contains_key(name) {
            return Err(ApiError::internal("namespace not found"));
        }
        let region = &api.context.region;
        let jobs = state.all_jobs().filter(|(id, _)| *id.namespace == *name);
        if jobs.into_iter().any(|(_, job)| !job.value.stop) {
            let why = format!("namespace {name:?} has non-terminal jobs in regions: [{region}]");
            return Err(ApiError::internal(multierror(&[why])));
        }
        let lives = |entry: &crate::mirror::state::AllocEntry| {
            entry.desired.as_ref().is_some_and(|desired| desired.value.namespace == name)
                && !entry.status().is_terminal()
        };
        if state.allocs.values().any(lives) {
            let why = format!("namespace {name:?} has non-terminal allocations in regions: [{region}]");
            return Err(ApiError::internal(multierror(&[why])));
        }
    }
    Ok(done(setting::delete(api, &Key::Namespace(name.to_owned())).await?))
}

pub(in crate::api) async fn put_pool(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let fields = call.fields()?;
    let name = fields.text("Name")?;
    if !call.subject().is_empty() && name != call.subject() {
        return Err(ApiError::bad_request("Node pool name does not match request path"));
    }
    if !check_name(name, &['_']) {
        let why = format!("invalid name {name:?}, must match regex ^[a-zA-Z0-9-_]{{1,128}}$");
        return Err(ApiError::bad_request(format!("invalid node pool {name:?}: {}", multierror(&[why]))));
    }
    if BUILT_IN_POOLS.iter().any(|(own, _)| *own == name) {
        return Err(ApiError::bad_request(format!("modifying node pool {name:?} is not allowed")));
    }
    if fields.get("SchedulerConfiguration").is_some() {
        return Err(ApiError::internal("Feature \"Node Pools Governance\" is unlicensed"));
    }
    fields.text_map("Meta")?;
    let value = kept(&fields, &["Name", "Description", "Meta"]);
    Ok(done(setting::write(api, &Key::Pool(name.to_owned()), &value).await?))
}

pub(in crate::api) async fn delete_pool(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let name = call.subject();
    if BUILT_IN_POOLS.iter().any(|(own, _)| *own == name) {
        return Err(ApiError::internal(format!("deleting node pool {name:?} is not allowed")));
    }
    api.catch_up().await?;
    {
        let state = api.context.mirror.read();
        if !state.pools.contains_key(name) {
            return Err(ApiError::internal(format!("node pool {name} not found")));
        }
        let region = &api.context.region;
        if state.all_jobs().any(|(_, job)| job.value.node_pool == name && !job.value.stop) {
            let why = format!("node pool {name:?} has non-terminal jobs in regions: [{region}]");
            return Err(ApiError::internal(multierror(&[why])));
        }
        let is_member = |node: &crate::mirror::state::NodeEntry| {
            node.info.as_ref().is_some_and(|info| info.value.node_pool == name)
        };
        if state.nodes.values().any(is_member) {
            let why = format!("node pool {name:?} has nodes in regions: [{region}]");
            return Err(ApiError::internal(multierror(&[why])));
        }
    }
    Ok(done(setting::delete(api, &Key::Pool(name.to_owned())).await?))
}

pub(in crate::api) async fn put_scheduler(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let wrong =
        |error: ApiError| ApiError::bad_request(format!("Error parsing scheduler config: {}", error.text()));
    let fields = call.fields().map_err(wrong)?;
    let algorithm = match fields.text("SchedulerAlgorithm").map_err(wrong)? {
        "" => "binpack",
        known @ ("binpack" | "spread") => known,
        other => return Err(ApiError::bad_request(format!("invalid scheduler algorithm: {other}"))),
    };
    let preemption = Fields::of(fields.get("PreemptionConfig").cloned().unwrap_or_default());
    let flag = |of: &Fields, name: &str| of.flag(name).map_err(wrong);
    let value = json!({
        "SchedulerAlgorithm": algorithm,
        "PreemptionConfig": {
            "SystemSchedulerEnabled": flag(&preemption, "SystemSchedulerEnabled")?,
            "SysBatchSchedulerEnabled": flag(&preemption, "SysBatchSchedulerEnabled")?,
            "BatchSchedulerEnabled": flag(&preemption, "BatchSchedulerEnabled")?,
            "ServiceSchedulerEnabled": flag(&preemption, "ServiceSchedulerEnabled")?,
        },
        "MemoryOversubscriptionEnabled": flag(&fields, "MemoryOversubscriptionEnabled")?,
        "RejectJobRegistration": flag(&fields, "RejectJobRegistration")?,
        "PauseEvalBroker": flag(&fields, "PauseEvalBroker")?,
    });
    let key = Key::Config(settings::SCHEDULER.to_owned());
    let revision = match call.text("cas") {
        None => Some(setting::write(api, &key, &value).await?),
        Some(text) => {
            let cas: Revision = text
                .parse()
                .map_err(|error| ApiError::bad_request(format!("Error parsing cas value: {error}")))?;
            // Until somebody sets a configuration the defaults are shown with index 1.
            api.catch_up().await?;
            let is_unset = !api.context.mirror.read().configs.contains_key(settings::SCHEDULER);
            let seen = if is_unset && cas == 1 { 0 } else { cas };
            setting::write_if(api, &key, &value, seen).await?
        }
    };
    let written = revision.unwrap_or(0);
    reply::written(call, written, &json!({"Updated": revision.is_some(), "Index": index(written)}))
}

/// Asks the collector for a sweep now, without minding how long things have been over.
pub(in crate::api) async fn collect_garbage(api: &Api, _: &Call) -> Result<Reply, ApiError> {
    setting::write(api, &Key::Config("gc".to_owned()), &json!({"AskedAt": api.now()})).await?;
    Ok(reply::empty())
}

/// Summaries are derived whenever they are read, so they are always reconciled.
pub(in crate::api) async fn reconcile_summaries(_: &Api, _: &Call) -> Result<Reply, ApiError> {
    Ok(reply::empty())
}

/// The answer to everything about access control while there is none.
pub(in crate::api) async fn acl_disabled(_: &Api, _: &Call) -> Result<Reply, ApiError> {
    Err(ApiError::bad_request("ACL support disabled"))
}

/// The answer to what only Nomad's paid edition has.
pub(in crate::api) async fn enterprise_only(_: &Api, _: &Call) -> Result<Reply, ApiError> {
    Err(ApiError::not_built("Nomad Enterprise only endpoint"))
}

/// There is no license to show.
pub(in crate::api) async fn license(_: &Api, _: &Call) -> Result<Reply, ApiError> {
    Ok(reply::full(http::StatusCode::NO_CONTENT, reply::TEXT, bytes::Bytes::new()))
}
