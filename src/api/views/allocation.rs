//! Allocations as Nomad shows them: decision, report, job and placement metric in one object.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde::Serializer;

use super::index;
use super::job;
use super::task;
use super::task::TaskStateView;
use super::text_of;
use crate::mirror::derive::alloc_health;
use crate::mirror::derive::preempted_by;
use crate::mirror::derive::stop_intent;
use crate::mirror::state::AllocEntry;
use crate::mirror::state::State;
use crate::mirror::state::Stored;
use crate::model::allocation::AllocMetric;
use crate::model::allocation::Allocation;
use crate::model::allocation::ClientStatus;
use crate::model::allocation::NetworkStatus;
use crate::model::allocation::RescheduleTracker;
use crate::model::id::AllocId;
use crate::model::id::JobId;
use crate::model::job::Job;
use crate::model::network::Network;
use crate::model::network::PortMapping;
use crate::model::resources::AllocatedDevice;
use crate::model::resources::AllocatedResources;
use crate::model::resources::AllocatedTask;
use crate::model::resources::Resources;
use crate::model::task::Lifecycle;
use crate::model::time::Time;

/// Health within a deployment.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeploymentStatusView {
    pub healthy: Option<bool>,
    pub timestamp: Time,
    pub canary: bool,
    pub modify_index: u64,
}

/// What shall become of an allocation besides its desired status.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DesiredTransition {
    pub migrate: Option<bool>,
    pub reschedule: Option<bool>,
    pub force_reschedule: Option<bool>,
    pub no_shutdown_delay: Option<bool>,
}

/// A change of the client status that controllers made.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AllocState {
    pub field: u8,
    pub value: &'static str,
    pub time: Time,
}

/// A line of an allocation list.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AllocListStub {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "EvalID")]
    pub eval_id: String,
    pub name: String,
    pub namespace: String,
    #[serde(rename = "NodeID")]
    pub node_id: String,
    pub node_name: String,
    #[serde(rename = "JobID")]
    pub job_id: String,
    pub job_type: String,
    pub job_version: u64,
    pub task_group: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocated_resources: Option<AllocatedResourcesView>,
    pub desired_status: &'static str,
    pub desired_description: String,
    pub client_status: &'static str,
    pub client_description: String,
    pub desired_transition: DesiredTransition,
    #[serde(serialize_with = "empty_as_null")]
    pub task_states: BTreeMap<String, TaskStateView>,
    pub deployment_status: Option<DeploymentStatusView>,
    #[serde(rename = "FollowupEvalID")]
    pub followup_eval_id: String,
    pub next_allocation: String,
    pub reschedule_tracker: Option<RescheduleTracker>,
    #[serde(serialize_with = "no_ids_as_null")]
    pub preempted_allocations: Vec<String>,
    pub preempted_by_allocation: String,
    pub create_index: u64,
    pub modify_index: u64,
    pub create_time: i64,
    pub modify_time: i64,
}

/// One allocation in full.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AllocationView {
    #[serde(flatten)]
    pub stub: AllocListStub,
    pub job: Option<Arc<Job>>,
    pub resources: Resources,
    pub shared_resources: Resources,
    pub task_resources: BTreeMap<String, Resources>,
    pub metrics: Option<AllocMetric>,
    pub alloc_states: Option<Vec<AllocState>>,
    pub previous_allocation: String,
    #[serde(rename = "DeploymentID")]
    pub deployment_id: String,
    pub network_status: Option<NetworkStatus>,
    #[serde(rename = "SigningKeyID")]
    pub signing_key_id: &'static str,
    pub alloc_modify_index: u64,
}

fn empty_as_null<K: Serialize, V: Serialize, S: Serializer>(
    map: &BTreeMap<K, V>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    if map.is_empty() { serializer.serialize_none() } else { map.serialize(serializer) }
}

fn no_ids_as_null<S: Serializer>(ids: &Vec<String>, serializer: S) -> Result<S::Ok, S::Error> {
    if ids.is_empty() { serializer.serialize_none() } else { ids.serialize(serializer) }
}

/// What a list shall show.
#[derive(Clone, Copy, Debug)]
pub struct StubOptions {
    pub resources: bool,
    pub task_states: bool,
}

/// The line of one allocation; `None` if only a report of it is left.
pub fn stub(state: &State, id: AllocId, entry: &AllocEntry, options: StubOptions) -> Option<AllocListStub> {
    let desired = entry.desired.as_ref()?;
    let alloc = &desired.value;
    let report = entry.report.as_ref().map(|report| &report.value);
    let job = state.job_version(&alloc.job(), alloc.job_version);
    let node = state.nodes.get(&alloc.node_id).and_then(|node| node.info.as_ref());
    let job_type = job.as_ref().map(|job| job.value.kind.clone()).unwrap_or_default();
    let stops = state.intents.get(&alloc.job()).is_some_and(|all| all.contains_key(&stop_intent(id)));
    let resources = || allocated(&alloc.resources, alloc, job.as_ref());
    Some(AllocListStub {
        id: id.to_string(),
        eval_id: alloc.eval_id.to_string(),
        name: alloc.name(),
        namespace: alloc.namespace.clone(),
        node_id: alloc.node_id.to_string(),
        node_name: node.map(|info| info.value.name.clone()).unwrap_or_default(),
        job_id: alloc.job_id.clone(),
        job_type,
        job_version: alloc.job_version,
        task_group: alloc.task_group.clone(),
        allocated_resources: options.resources.then(resources),
        desired_status: alloc.desired_status.as_str(),
        desired_description: alloc.desired_description.clone(),
        client_status: entry.status().as_str(),
        client_description: client_description(entry),
        desired_transition: DesiredTransition {
            migrate: stops.then_some(true),
            no_shutdown_delay: alloc.no_shutdown_delay.then_some(true),
            ..DesiredTransition::default()
        },
        task_states: match report {
            Some(report) if options.task_states => task::states(&report.task_states),
            _ => BTreeMap::new(),
        },
        deployment_status: deployment_status(state, entry),
        followup_eval_id: String::new(),
        next_allocation: text_of(state.next_alloc(id).as_ref()),
        reschedule_tracker: alloc.reschedule_tracker.clone(),
        preempted_allocations: preempted_by(state, id).iter().map(ToString::to_string).collect(),
        preempted_by_allocation: text_of(alloc.preempted_by.as_ref()),
        create_index: index(desired.created),
        modify_index: index(entry.modified()),
        create_time: alloc.create_time,
        modify_time: alloc.modify_time.max(report.map_or(0, |report| report.modify_time)),
    })
}

/// One allocation in full. `jobs` keeps the job views of one answer, so that many allocations share one.
pub fn full(state: &State, id: AllocId, entry: &AllocEntry, jobs: &mut JobViews) -> Option<AllocationView> {
    let desired = entry.desired.as_ref()?;
    let alloc = &desired.value;
    let stub = stub(state, id, entry, StubOptions { resources: true, task_states: true })?;
    let job = jobs.get(state, &alloc.job(), alloc.job_version);
    let evaluation = state.evaluation(alloc.eval_id);
    let metrics = evaluation.and_then(|eval| eval.value.placed_groups.get(&alloc.task_group).cloned());
    let task_resources = legacy_tasks(alloc);
    let shared = Resources {
        disk_mb: alloc.resources.shared.disk_mb,
        networks: alloc.resources.shared.networks.clone(),
        ..Resources::default()
    };
    let mut total = shared.clone();
    for task in task_resources.values() {
        total.cpu_mhz += task.cpu_mhz;
        total.cores += task.cores;
        total.memory_mb += task.memory_mb;
        total.memory_max_mb += if task.memory_max_mb > 0 { task.memory_max_mb } else { task.memory_mb };
    }
    let forced = alloc.forced_status.map(|status| AllocState {
        field: 0,
        value: status.as_str(),
        time: Time(alloc.modify_time),
    });
    Some(AllocationView {
        stub,
        job,
        resources: total,
        shared_resources: shared,
        task_resources,
        metrics,
        alloc_states: forced.map(|state| vec![state]),
        previous_allocation: text_of(alloc.previous.as_ref()),
        deployment_id: text_of(alloc.deployment_id.as_ref()),
        network_status: entry.report.as_ref().and_then(|report| report.value.network_status.clone()),
        signing_key_id: "",
        alloc_modify_index: index(desired.modified),
    })
}

/// The job views of one answer.
#[derive(Debug, Default)]
pub struct JobViews(BTreeMap<(JobId, u64), Option<Arc<Job>>>);

impl JobViews {
    fn get(&mut self, state: &State, id: &JobId, version: u64) -> Option<Arc<Job>> {
        let make = || state.job_version(id, version).map(|stored| Arc::new(job::job(state, id, &stored)));
        self.0.entry((id.clone(), version)).or_insert_with(make).clone()
    }
}

fn client_description(entry: &AllocEntry) -> String {
    if entry.status() == ClientStatus::Unknown {
        return "alloc is unknown since its node is disconnected".to_owned();
    }
    match &entry.report {
        Some(report) if !report.value.rejected.is_empty() => report.value.rejected.clone(),
        Some(report) => report.value.client_description.clone(),
        None => String::new(),
    }
}

fn deployment_status(state: &State, entry: &AllocEntry) -> Option<DeploymentStatusView> {
    let desired = entry.desired.as_ref()?;
    let report = entry.report.as_ref();
    let reported = report.and_then(|report| report.value.deployment_status.as_ref());
    let healthy = alloc_health(state, entry);
    if healthy.is_none() && reported.is_none() && !desired.value.canary {
        return None;
    }
    Some(DeploymentStatusView {
        healthy,
        timestamp: reported.map_or(Time::NEVER, |health| health.timestamp),
        canary: desired.value.canary,
        modify_index: index(report.map_or(desired.modified, |report| report.modified)),
    })
}

/// The grant with every key that Nomad sends.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AllocatedResourcesView {
    pub tasks: BTreeMap<String, AllocatedTaskView>,
    pub task_lifecycles: BTreeMap<String, Option<Lifecycle>>,
    pub shared: AllocatedSharedView,
}

/// The grant of one task.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AllocatedTaskView {
    pub cpu: CpuView,
    pub memory: MemoryView,
    pub networks: Option<Vec<Network>>,
    pub devices: Option<Vec<AllocatedDevice>>,
}

/// CPU grant.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CpuView {
    pub cpu_shares: i64,
    pub reserved_cores: Option<Vec<u16>>,
}

/// Memory grant in MiB.
#[derive(Clone, Debug, Serialize)]
pub struct MemoryView {
    #[serde(rename = "MemoryMB")]
    pub memory_mb: i64,
    #[serde(rename = "MemoryMaxMB")]
    pub memory_max_mb: i64,
}

/// What the tasks share.
#[derive(Clone, Debug, Serialize)]
pub struct AllocatedSharedView {
    #[serde(rename = "Networks")]
    pub networks: Option<Vec<Network>>,
    #[serde(rename = "DiskMB")]
    pub disk_mb: i64,
    #[serde(rename = "Ports")]
    pub ports: Option<Vec<PortMapping>>,
}

fn filled<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn allocated(
    granted: &AllocatedResources,
    alloc: &Allocation,
    job: Option<&Stored<Job>>,
) -> AllocatedResourcesView {
    let group = job.and_then(|job| job.value.group(&alloc.task_group).cloned());
    let lifecycle = |task: &str| group.as_ref()?.task(task)?.lifecycle.clone();
    let task = |task: &AllocatedTask| AllocatedTaskView {
        cpu: CpuView { cpu_shares: task.cpu.cpu_shares, reserved_cores: filled(&task.cpu.reserved_cores) },
        memory: MemoryView { memory_mb: task.memory.memory_mb, memory_max_mb: task.memory.memory_max_mb },
        networks: filled(&task.networks),
        devices: filled(&task.devices),
    };
    AllocatedResourcesView {
        tasks: granted.tasks.iter().map(|(name, grant)| (name.clone(), task(grant))).collect(),
        task_lifecycles: granted.tasks.keys().map(|name| (name.clone(), lifecycle(name))).collect(),
        shared: AllocatedSharedView {
            networks: filled(&granted.shared.networks),
            disk_mb: granted.shared.disk_mb,
            ports: filled(&granted.shared.ports),
        },
    }
}

fn legacy_tasks(alloc: &Allocation) -> BTreeMap<String, Resources> {
    let legacy = |task: &AllocatedTask| Resources {
        cpu_mhz: task.cpu.cpu_shares,
        cores: i64::try_from(task.cpu.reserved_cores.len()).unwrap_or(i64::MAX),
        memory_mb: task.memory.memory_mb,
        memory_max_mb: task.memory.memory_max_mb,
        networks: task.networks.clone(),
        ..Resources::default()
    };
    alloc.resources.tasks.iter().map(|(name, task)| (name.clone(), legacy(task))).collect()
}
