//! Jobs, and everything that is asked about one job.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use super::Found;
use crate::api::View;
use crate::api::call::Call;
use crate::api::error::ApiError;
use crate::api::page::Order;
use crate::api::page::PageKey;
use crate::api::page::paginate;
use crate::api::page::value_of;
use crate::api::views;
use crate::api::views::allocation::StubOptions;
use crate::api::views::index;
use crate::api::views::job::GroupScaleStatus;
use crate::api::views::job::JobScaleStatus;
use crate::mirror::derive;
use crate::mirror::state::State;
use crate::mirror::state::Stored;
use crate::mirror::state::Table;
use crate::model::allocation::ClientStatus;
use crate::model::diff::JobDiff;
use crate::model::diff::diff;
use crate::model::id::JobId;
use crate::model::job::Job;
use crate::store::Revision;

/// Index of job lists: their lines show statuses and summaries too.
pub(in crate::api) fn list_index(view: &View<'_>, _: &Call) -> Revision {
    let tables = [Table::Jobs, Table::Allocs, Table::Evaluations, Table::Deployments];
    tables.into_iter().map(|table| view.state.table(table)).max().unwrap_or(1)
}

/// Index of anything about one job: its newest change, or that of anything it owns.
pub(in crate::api) fn job_index(view: &View<'_>, call: &Call) -> Revision {
    view.api.changes.of(&call.job())
}

/// A job that exists for readers: one that is being purged does not.
pub(in crate::api) fn visible(state: &State, id: &JobId) -> Option<Stored<Job>> {
    state.job(id).filter(|job| !job.value.purge)
}

/// The job that the path names.
fn named(view: &View<'_>, call: &Call) -> Result<(JobId, Stored<Job>), ApiError> {
    let id = call.job();
    let unknown = || match derive::refused(view.state, &id) {
        Some(why) => {
            ApiError::not_found(format!("job not found; what was put at its key was refused: {why}"))
        }
        None => ApiError::not_found("job not found"),
    };
    let job = visible(view.state, &id).ok_or_else(unknown)?;
    Ok((id, job))
}

pub(in crate::api) fn list(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    lines(view, call, |_| true)
}

/// Job lines that pass `wanted`.
pub(in crate::api) fn lines(
    view: &View<'_>,
    call: &Call,
    wanted: impl Fn(&Job) -> bool,
) -> Result<Found, ApiError> {
    let with_meta = call.flag("meta")?;
    let jobs = view.state.all_jobs().filter(|(id, job)| {
        call.covers(&id.namespace)
            && id.id.starts_with(call.prefix())
            && !job.value.purge
            && wanted(&job.value)
    });
    let items =
        jobs.map(|(id, job)| (PageKey::text(format!("{}.{}", id.namespace, id.id)), (id, job))).collect();
    paginate(
        call,
        Order::Text,
        items,
        |(id, job)| value_of(&views::job::job(view.state, id, job)),
        |(id, job)| Some(views::job::list_stub(view.state, id, job, with_meta)),
    )
}

pub(in crate::api) fn get(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let (id, job) = named(view, call)?;
    Ok(Found::json(views::job::job(view.state, &id, &job)))
}

pub(in crate::api) fn summary(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let (id, job) = named(view, call)?;
    Ok(Found::json(views::job::summary(view.state, &id, &job)))
}

/// All kept versions of a job, newest first.
pub(in crate::api) fn all_versions(state: &State, id: &JobId) -> Vec<Job> {
    let Some(current) = visible(state, id) else { return Vec::new() };
    let older = state.versions.get(id).into_iter().flat_map(BTreeMap::values);
    let older = older.filter(|job| job.value.version < current.value.version);
    let mut all: Vec<Job> = older.map(|job| views::job::job(state, id, job)).collect();
    all.push(views::job::job(state, id, &current));
    all.sort_by_key(|job| std::cmp::Reverse(job.version));
    all
}

pub(in crate::api) fn versions(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let id = call.job();
    let versions = all_versions(view.state, &id);
    if versions.is_empty() {
        return Err(ApiError::not_found("job versions not found"));
    }
    let diffs = if call.flag("diffs")? { Some(version_diffs(call, &versions)?) } else { None };
    let index = view.api.changes.of(&id);
    Ok(Found::json(json!({
        "Versions": versions, "Diffs": diffs,
        "Index": index, "LastContact": 0, "KnownLeader": view.state.leaders.contains_key("scheduler"),
        "NextToken": "",
    })))
}

/// Each version against the one before it, or all against the one that the caller names.
fn version_diffs(call: &Call, versions: &[Job]) -> Result<Vec<JobDiff>, ApiError> {
    let base = if let Some(tag) = call.text("diff_tag") {
        let tagged = |job: &&Job| job.version_tag.as_ref().is_some_and(|own| own.name == tag);
        let found = versions.iter().find(tagged);
        Some(found.ok_or_else(|| ApiError::internal(format!("tag {tag:?} not found")))?)
    } else if let Some(version) = call.integer("diff_version")? {
        let found = versions.iter().find(|job| i64::try_from(job.version) == Ok(version));
        Some(found.ok_or_else(|| ApiError::internal(format!("version {version} not found")))?)
    } else {
        None
    };
    let pairs: Vec<(&Job, &Job)> = match base {
        Some(base) => versions.iter().map(|job| (base, job)).collect(),
        None => versions.windows(2).map(|pair| (&pair[1], &pair[0])).collect(),
    };
    // What a change would force is for plans to say: these have happened.
    let plain = |(old, new): (&Job, &Job)| diff(Some(old), new, true).without_annotations();
    Ok(pairs.into_iter().map(plain).collect())
}

pub(in crate::api) fn allocations(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let id = call.job();
    let all = call.text("all").and_then(crate::api::call::parse_bool).unwrap_or(false);
    let incarnation = view.state.job(&id).map(|job| index(job.created));
    let options = StubOptions { resources: call.flag("resources")?, task_states: true };
    let mut stubs: Vec<_> = view
        .state
        .allocs_of_job(&id)
        .filter(|(_, entry)| {
            let own = entry.desired.as_ref().map(|desired| desired.value.job_create_index);
            all || incarnation.is_none() || own == incarnation
        })
        .filter_map(|(alloc, entry)| views::allocation::stub(view.state, alloc, entry, options))
        .collect();
    stubs.sort_by(|a, b| (a.create_index, &a.id).cmp(&(b.create_index, &b.id)));
    Ok(Found::json(stubs))
}

pub(in crate::api) fn evaluations(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let all = view.state.evaluations.get(&call.job()).into_iter().flat_map(BTreeMap::values);
    let mut evals: Vec<_> = all.map(|eval| views::evaluation::evaluation(view.state, eval)).collect();
    evals.sort_by(|a, b| (b.create_index, &b.id).cmp(&(a.create_index, &a.id)));
    Ok(Found::json(evals))
}

pub(in crate::api) fn deployments(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let id = call.job();
    let all = call.text("all").and_then(crate::api::call::parse_bool).unwrap_or(false);
    let incarnation = view.state.job(&id).map(|job| index(job.created));
    let found = view.state.deployments.get(&id).into_iter().flat_map(BTreeMap::values);
    let own = found
        .filter(|deployment| all || incarnation.is_none_or(|own| own == deployment.value.job_create_index));
    let mut deployments: Vec<_> =
        own.map(|deployment| views::deployment::deployment(view.state, deployment)).collect();
    deployments.sort_by(|a, b| (b.create_index, &b.id).cmp(&(a.create_index, &a.id)));
    Ok(Found::json(deployments))
}

/// The newest deployment, or `null`: clients rely on that.
pub(in crate::api) fn deployment(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let latest = view.state.latest_deployment(&call.job());
    Ok(Found::json(latest.map(|deployment| views::deployment::deployment(view.state, deployment))))
}

pub(in crate::api) fn services(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let (id, _) = named(view, call)?;
    let all = view.state.services.values().flat_map(BTreeMap::values);
    let own =
        all.filter(|service| service.value.namespace == *id.namespace && service.value.job_id == *id.id);
    Ok(Found::json(own.map(views::service::service).collect::<Vec<_>>()))
}

/// A command that operators may run inside a task.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ActionView {
    name: String,
    command: String,
    args: Vec<String>,
    task_name: String,
    task_group_name: String,
}

pub(in crate::api) fn actions(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let unknown = || ApiError::internal(format!("Unknown job {:?}", call.subject()));
    let job = visible(view.state, &call.job()).ok_or_else(unknown)?;
    let mut actions = Vec::new();
    for group in &job.value.task_groups {
        for task in &group.tasks {
            actions.extend(task.actions.iter().map(|action| ActionView {
                name: action.name.clone(),
                command: action.command.clone(),
                args: action.args.clone(),
                task_name: task.name.clone(),
                task_group_name: group.name.clone(),
            }));
        }
    }
    Ok(Found::json(actions))
}

/// A line of the job overview that user interfaces show.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct JobStatusesJob {
    #[serde(rename = "ID")]
    id: String,
    namespace: String,
    name: String,
    #[serde(rename = "Type")]
    kind: String,
    node_pool: String,
    datacenters: Vec<String>,
    priority: i64,
    version: u64,
    submit_time: i64,
    modify_index: u64,
    allocs: Vec<serde_json::Value>,
    group_count_sum: usize,
    child_statuses: Option<Vec<&'static str>>,
    #[serde(rename = "ParentID")]
    parent_id: String,
    latest_deployment: Option<serde_json::Value>,
    stop: bool,
    is_pack: bool,
    status: &'static str,
}

pub(in crate::api) fn statuses(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let mut include_children = call.flag("include_children")?;
    let mut wanted: Option<Vec<JobId>> = None;
    if !call.body.is_empty() {
        let fields = call.fields()?;
        include_children |= fields.flag("IncludeChildren")?;
        let jobs = fields.get("Jobs").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
        if jobs.is_empty() {
            return Err(ApiError::bad_request("no jobs in request"));
        }
        let mut ids = Vec::new();
        for job in jobs {
            let job = crate::api::call::Fields::of(job);
            let namespace = job.text("Namespace")?;
            let namespace = if namespace.is_empty() { "default" } else { namespace };
            ids.push(JobId::new(namespace, job.text("ID")?));
        }
        wanted = Some(ids);
    }
    let is_wanted = |id: &JobId, job: &Job| match &wanted {
        Some(ids) => ids.contains(id),
        None => call.covers(&id.namespace) && (include_children || job.parent_id.is_empty()),
    };
    let jobs = view.state.all_jobs().filter(|(id, job)| {
        !job.value.purge && is_wanted(id, &job.value) && id.id.starts_with(call.prefix())
    });
    let items = jobs
        .map(|(id, job)| {
            let newest = index(crate::mirror::derive::newest_change(view.state, id));
            // Newest first unless the caller wants it reversed: the key counts down.
            (PageKey::creation(u64::MAX - newest, format!("{}.{}", id.namespace, id.id)), (id, job))
        })
        .collect();
    paginate(
        call,
        Order::Creation,
        items,
        |(id, job)| value_of(&views::job::job(view.state, id, job)),
        |(id, job)| Some(statuses_job(view, id, job)),
    )
}

fn statuses_job(view: &View<'_>, id: &JobId, stored: &Stored<Job>) -> JobStatusesJob {
    use crate::mirror::derive;
    let job = &stored.value;
    let allocs = view.state.allocs_of_job(id).filter_map(|(alloc, entry)| {
        let desired = &entry.desired.as_ref()?.value;
        Some(json!({
            "ID": alloc, "Group": desired.task_group, "ClientStatus": entry.status(),
            "NodeID": desired.node_id, "JobVersion": desired.job_version, "FollowupEvalID": "",
            "HasPausedTask": false,
            "DeploymentStatus": {
                "Canary": desired.canary, "Healthy": derive::alloc_health(view.state, entry),
            },
        }))
    });
    let children = || derive::children(view.state, id).collect::<Vec<_>>();
    let child_statuses = job.is_template().then(|| {
        children().iter().map(|(id, job)| derive::job_state(view.state, id, &job.value).as_str()).collect()
    });
    let latest_deployment = view.state.latest_deployment(id).map(|deployment| {
        let deployment = &deployment.value;
        let groups = &deployment.task_groups;
        json!({
            "ID": deployment.id, "IsActive": deployment.status.is_active(),
            "JobVersion": deployment.job_version, "Status": deployment.status.as_str(),
            "StatusDescription": deployment.status_description,
            "AllAutoPromote": !groups.is_empty() && groups.values().all(|group| group.auto_promote),
            "RequiresPromotion": groups.values().any(|group| group.desired_canaries > 0 && !group.promoted),
        })
    });
    JobStatusesJob {
        id: id.id.to_string(),
        namespace: id.namespace.to_string(),
        name: job.name.clone(),
        kind: job.kind.clone(),
        node_pool: job.node_pool.clone(),
        datacenters: job.datacenters.clone(),
        priority: job.priority,
        version: job.version,
        submit_time: job.submit_time,
        modify_index: index(derive::newest_change(view.state, id)),
        allocs: allocs.collect(),
        group_count_sum: job.task_groups.iter().map(crate::model::group::TaskGroup::count).sum(),
        child_statuses,
        parent_id: job.parent_id.clone(),
        latest_deployment,
        stop: job.stop,
        is_pack: job.meta.contains_key("pack.name"),
        status: derive::job_state(view.state, id, job).as_str(),
    }
}

/// How far each group is, without its scaling events.
pub(in crate::api) fn scale_status(view: &View<'_>, id: &JobId, stored: &Stored<Job>) -> JobScaleStatus {
    use crate::mirror::derive::alloc_health;
    let job = &stored.value;
    let mut groups: BTreeMap<String, GroupScaleStatus> = BTreeMap::new();
    for group in &job.task_groups {
        let desired = group.count.unwrap_or(1);
        groups.insert(group.name.clone(), GroupScaleStatus { desired, ..GroupScaleStatus::default() });
    }
    for (_, entry) in view.state.allocs_of_job(id) {
        let Some(desired) = entry.desired.as_ref().filter(|desired| desired.value.is_wanted()) else {
            continue;
        };
        let Some(group) = groups.get_mut(&desired.value.task_group) else { continue };
        if entry.status().is_terminal() {
            continue;
        }
        group.placed += 1;
        group.running += u64::from(entry.status() == ClientStatus::Running);
        match alloc_health(view.state, entry) {
            Some(true) => group.healthy += 1,
            Some(false) => group.unhealthy += 1,
            None => {}
        }
    }
    JobScaleStatus {
        job_id: id.id.to_string(),
        namespace: id.namespace.to_string(),
        job_create_index: index(stored.created),
        job_modify_index: index(stored.modified),
        job_stopped: job.stop,
        task_groups: groups,
    }
}
