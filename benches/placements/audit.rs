//! Checks the end state as etcd holds it: nothing lost, doubled or overcommitted. Reads values with serde alone and
//! counts with arithmetic of its own, then asks the project's audit as well.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use herder::model::allocation::Allocation;
use herder::model::allocation::AllocationReport;
use herder::model::allocation::ClientStatus;
use herder::model::audit::AuditAlloc;
use herder::model::audit::AuditInput;
use herder::model::audit::AuditNode;
use herder::model::audit::audit;
use herder::model::deployment::Deployment;
use herder::model::evaluation::Evaluation;
use herder::model::id::AllocId;
use herder::model::id::NodeId;
use herder::model::job::Job;
use herder::model::node::NodeInfo;
use herder::store::KeyValue;
use herder::store::key::Key;
use herder::store::key::Keys;
use serde::de::DeserializeOwned;

use crate::Options;

#[derive(Default)]
struct Found {
    nodes: BTreeMap<NodeId, NodeInfo>,
    jobs: Vec<Job>,
    allocs: BTreeMap<AllocId, Allocation>,
    reports: BTreeMap<AllocId, AllocationReport>,
    deployments: Vec<Deployment>,
    evaluations: Vec<Evaluation>,
}

/// An error says what is wrong.
pub fn check(options: &Options, keys: &Keys, items: &[KeyValue]) -> Result<(), String> {
    let found = read(keys, items)?;
    count(options, &found)?;
    weigh(&found)?;
    let meta = BTreeMap::new();
    let input = AuditInput {
        nodes: found.nodes.values().map(|info| AuditNode { info, meta: &meta }).collect(),
        jobs: found.jobs.iter().collect(),
        allocs: found
            .allocs
            .values()
            .map(|desired| AuditAlloc { desired, report: found.reports.get(&desired.id) })
            .collect(),
        deployments: found.deployments.iter().collect(),
        evaluations: found.evaluations.iter().collect(),
        is_quiet: true,
        nodes_unchanged: true,
        ..AuditInput::default()
    };
    match audit(&input).first() {
        Some(violation) => Err(violation.to_string()),
        None => Ok(()),
    }
}

fn read(keys: &Keys, items: &[KeyValue]) -> Result<Found, String> {
    fn json<T: DeserializeOwned>(item: &KeyValue) -> Result<T, String> {
        serde_json::from_slice(&item.value).map_err(|error| format!("{}: {error}", item.key))
    }
    let mut found = Found::default();
    for item in items {
        match keys.parse(&item.key) {
            Some(Key::NodeInfo(node)) => drop(found.nodes.insert(node, json(item)?)),
            Some(Key::Job(_)) => found.jobs.push(json(item)?),
            Some(Key::Alloc(node, id)) => {
                let alloc = Allocation { id, node_id: node, ..json(item)? };
                if found.allocs.insert(id, alloc).is_some() {
                    return Err(format!("allocation {id} is on two nodes"));
                }
            }
            Some(Key::AllocReport(_, id)) => drop(found.reports.insert(id, json(item)?)),
            Some(Key::Deployment(..)) => found.deployments.push(json(item)?),
            Some(Key::Evaluation(..)) => found.evaluations.push(json(item)?),
            _ => {}
        }
    }
    Ok(found)
}

/// Every index of every job once, each reported running by the node that it is on.
fn count(options: &Options, found: &Found) -> Result<(), String> {
    let mut indexes: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    let (wanted, stopped): (Vec<_>, Vec<_>) = found.allocs.values().partition(|alloc| alloc.is_wanted());
    if let Some(first) = stopped.first() {
        println!("  {} allocations were replaced or stopped: {}", stopped.len(), first.desired_description);
    }
    for alloc in wanted {
        if !indexes.entry(&alloc.job_id).or_default().insert(alloc.index) {
            return Err(format!("{} index {} is there twice", alloc.job_id, alloc.index));
        }
        let status = found.reports.get(&alloc.id).map(|report| report.client_status);
        if !options.frozen && status != Some(ClientStatus::Running) {
            return Err(format!("allocation {} is {status:?}", alloc.id));
        }
    }
    if indexes.len() != options.jobs {
        return Err(format!("{} jobs have allocations", indexes.len()));
    }
    let wanted: BTreeSet<u32> = (0..u32::try_from(options.count).unwrap_or(u32::MAX)).collect();
    match indexes.iter().find(|(_, found)| **found != wanted) {
        Some((job, found)) => Err(format!("{job} has {} of {} indexes", found.len(), wanted.len())),
        None => Ok(()),
    }
}

/// The grants on each node fit into it.
fn weigh(found: &Found) -> Result<(), String> {
    let mut used: BTreeMap<NodeId, (i64, i64)> = BTreeMap::new();
    for alloc in found.allocs.values().filter(|alloc| alloc.is_wanted()) {
        let sum = used.entry(alloc.node_id).or_default();
        for task in alloc.resources.tasks.values() {
            sum.0 += task.cpu.cpu_shares;
            sum.1 += task.memory.memory_mb;
        }
    }
    for (node, (cpu, memory)) in used {
        let Some(info) = found.nodes.get(&node) else { return Err(format!("node {node} does not exist")) };
        if cpu > info.resources.cpu.cpu_shares || memory > info.resources.memory.memory_mb {
            return Err(format!("node {node} is overcommitted: {cpu} MHz, {memory} MiB"));
        }
        if cpu == 0 {
            return Err(format!("grants on node {node} are empty"));
        }
    }
    Ok(())
}
