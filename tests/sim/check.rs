//! Invariants, checked on what the store holds, with arithmetic of its own.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use herder::mirror::Mirror;
use herder::mirror::state::State;
use herder::model::allocation::ClientStatus;
use herder::model::deployment::DeploymentStatus;
use herder::model::evaluation::EvalStatus;
use herder::model::id::DeploymentId;
use herder::model::id::JobId;

use crate::world::World;

/// What earlier checks saw.
#[derive(Default)]
pub struct History {
    finished: BTreeMap<DeploymentId, DeploymentStatus>,
}

/// A copy of the store's contents, through a mirror of our own that nothing disturbs.
pub async fn snapshot(world: &World) -> State {
    let mirror = Mirror::new();
    let store: herder::store::SharedStore = std::sync::Arc::new(world.store.clone());
    let cancel = tokio_util::sync::CancellationToken::new();
    let task =
        tokio::spawn(herder::mirror::watcher::run(mirror.clone(), store, world.keys.clone(), cancel.clone()));
    mirror.wait_for(1, std::time::Duration::from_secs(5)).await;
    cancel.cancel();
    let _ = task.await;
    mirror.read().clone()
}

/// What must hold at every moment.
pub fn safety(state: &State, history: &mut History) -> Vec<String> {
    let mut broken = Vec::new();
    capacity(state, &mut broken);
    indexes(state, &mut broken);
    deployments(state, history, &mut broken);
    broken
}

/// Grants of allocations that were not confirmed ended fit into their node; a replacement on the same node waits
/// for its predecessor, so the two need the larger grant.
fn capacity(state: &State, broken: &mut Vec<String>) {
    let mut used: BTreeMap<_, (i64, i64)> = BTreeMap::new();
    let mut ports: BTreeMap<_, Vec<herder::model::id::AllocId>> = BTreeMap::new();
    for (id, entry) in &state.allocs {
        let Some(desired) = &entry.desired else { continue };
        if entry.status().is_terminal() {
            continue;
        }
        let amounts = |alloc: &herder::model::allocation::Allocation| {
            let tasks = alloc.resources.tasks.values();
            let cpu: i64 = tasks.clone().map(|task| task.cpu.cpu_shares).sum();
            (cpu, tasks.map(|task| task.memory.memory_mb).sum::<i64>())
        };
        let (mut cpu, mut memory) = amounts(&desired.value);
        let before = desired.value.previous.and_then(|previous| state.allocs.get(&previous));
        if let Some(before) = before.filter(|before| !before.status().is_terminal())
            && let Some(before) = &before.desired
            && before.value.node_id == desired.value.node_id
        {
            let taken = amounts(&before.value);
            cpu = (cpu - taken.0).max(0);
            memory = (memory - taken.1).max(0);
        }
        let sum = used.entry(desired.value.node_id).or_default();
        sum.0 += cpu;
        sum.1 += memory;
        for port in desired.value.resources.host_ports() {
            ports.entry((desired.value.node_id, port)).or_default().push(*id);
        }
    }
    for (node, (cpu, memory)) in used {
        let Some(info) = state.nodes.get(&node).and_then(|node| node.info.as_ref()) else { continue };
        let resources = &info.value.resources;
        if cpu > resources.cpu.cpu_shares || memory > resources.memory.memory_mb {
            broken.push(format!("1: node {node} is overcommitted: {cpu} MHz, {memory} MiB"));
        }
    }
}

/// One live allocation per index of a version.
fn indexes(state: &State, broken: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (id, entry) in &state.allocs {
        let Some(desired) = &entry.desired else { continue };
        let alloc = &desired.value;
        if !alloc.is_wanted() || entry.status().is_terminal() {
            continue;
        }
        let slot =
            (alloc.job(), alloc.task_group.clone(), alloc.job_version, alloc.job_create_index, alloc.index);
        if !seen.insert(slot) {
            broken.push(format!("2: {id} {} is there twice in version {}", alloc.name(), alloc.job_version));
        }
    }
}

fn deployments(state: &State, history: &mut History, broken: &mut Vec<String>) {
    for (job, all) in &state.deployments {
        let active = all.values().filter(|deployment| deployment.value.status.is_active()).count();
        // A newer version's deployment is created just before the old one is cancelled.
        if active > 2 {
            broken.push(format!("7: {job} has {active} active deployments"));
        }
        for (id, deployment) in all {
            let status = deployment.value.status;
            if let Some(before) = history.finished.get(id)
                && *before != status
            {
                broken.push(format!("7: finished deployment {id} went from {before:?} to {status:?}"));
            }
            if !status.is_active() {
                history.finished.insert(*id, status);
            }
        }
    }
}

/// What must hold once everything is quiet.
pub fn liveness(world: &World, state: &State) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, wish) in &world.wishes {
        let id = JobId::new("default", name.as_str());
        let Some(job) = state.job(&id) else {
            broken.push(format!("14: {name} is lost"));
            continue;
        };
        let reverted = state
            .deployments
            .get(&id)
            .into_iter()
            .flatten()
            .any(|(_, deployment)| deployment.value.status_description.contains("rolling back"));
        let generation = job.value.task_groups[0].tasks[0].env.get("GENERATION").cloned().unwrap_or_default();
        if !reverted && (generation != wish.generation.to_string() || job.value.stop != wish.stop) {
            broken.push(format!("14: {name} runs generation {generation}, wanted {wish:?}"));
        }
        let live: Vec<_> = state
            .allocs_of_job(&id)
            .filter_map(|(_, entry)| Some((entry.desired.as_ref()?.value.clone(), entry.status())))
            .filter(|(alloc, _)| alloc.is_wanted())
            .collect();
        let filled = |status: &ClientStatus| match status {
            ClientStatus::Running | ClientStatus::Pending => true,
            ClientStatus::Complete => wish.kind == "batch",
            ClientStatus::Failed => true,
            _ => false,
        };
        let current = live
            .iter()
            .filter(|(alloc, status)| alloc.job_version == job.value.version && filled(status))
            .count();
        let blocked = state.evaluations.get(&id).into_iter().flatten().any(|(_, evaluation)| {
            evaluation.value.status == EvalStatus::Blocked && !evaluation.value.failed_groups.is_empty()
        });
        let failed = state
            .latest_deployment(&id)
            .is_some_and(|deployment| deployment.value.status == DeploymentStatus::Failed);
        let wanted = match job.value.kind.as_str() {
            _ if job.value.stop => 0,
            "system" => state.nodes.values().filter(|node| node.is_schedulable()).count(),
            _ => job.value.task_groups[0].count(),
        };
        let unfinished = live.iter().filter(|(_, status)| !status.is_terminal()).count();
        if job.value.stop && unfinished > 0 {
            broken.push(format!("3: {name} is stopped, {unfinished} allocations are still wanted"));
        }
        if !job.value.stop && current != wanted && !blocked && !failed {
            let work: Vec<String> = live
                .iter()
                .map(|(alloc, status)| {
                    format!("{} v{} {} {status:?}", alloc.name(), alloc.job_version, alloc.id.short())
                })
                .collect();
            broken.push(format!("3: {name} has {current} of {wanted} and nobody says why: {work:?}"));
        }
    }
    for (id, evaluations) in &state.evaluations {
        for evaluation in evaluations.values() {
            let value = &evaluation.value;
            if value.status == EvalStatus::Pending && value.wait_until.is_never() {
                broken.push(format!("13: evaluation {} of {id} is pending for ever", value.id));
            }
        }
    }
    for (id, entry) in &state.allocs {
        let Some(desired) = &entry.desired else { continue };
        let gone = !world.powered().contains(&desired.value.node_id);
        if !desired.value.is_wanted() && !entry.status().is_terminal() {
            broken.push(format!(
                "alloc {id} was told to stop and never ended ({:?}, node gone: {gone})",
                entry.status()
            ));
        }
    }
    broken
}

/// Every server's mirror is what the store holds at that revision.
pub fn mirrors(world: &World, truth: &State) -> Vec<String> {
    let mut broken = Vec::new();
    for (server, running) in &world.servers {
        let Some(running) = running else { continue };
        let state = running.mirror.read();
        if state.revision != truth.revision {
            broken.push(format!("11: server {server} is at {} of {}", state.revision, truth.revision));
        } else if let Some(difference) = difference(&describe(&state), &describe(truth)) {
            broken.push(format!("11: server {server}'s mirror differs at {}: {difference}", state.revision));
        }
    }
    broken
}

/// The surroundings of the first difference.
fn difference(own: &str, truth: &str) -> Option<String> {
    let at = own
        .bytes()
        .zip(truth.bytes())
        .position(|(a, b)| a != b)
        .or((own.len() != truth.len()).then_some(0))?;
    let around = |text: &str| text[at.saturating_sub(200)..(at + 100).min(text.len())].to_owned();
    Some(format!("has …{}…, the store has …{}…", around(own), around(truth)))
}

fn describe(state: &State) -> String {
    let mut copy = state.clone();
    copy.tables.clear();
    for entry in copy.jobs.values_mut() {
        // Kept by a server that saw it; unknown to one that came later.
        if entry.raw.is_some() {
            entry.current = None;
        }
    }
    format!("{copy:?}")
}

/// Keys that still exist and were changed after a revision.
pub async fn keys_changed_since(world: &World, revision: i64) -> Vec<String> {
    use herder::store::Store;
    let range = herder::store::Range::Prefix(world.keys.root().to_owned());
    let listing = world.store.list(range, herder::store::ListOptions::default()).await.expect("embedded");
    let changed = listing.items.iter().filter(|item| item.mod_revision > revision);
    changed.map(|item| format!("{} = {}", item.key, String::from_utf8_lossy(&item.value))).collect()
}
