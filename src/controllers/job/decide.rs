//! One pass over a job, up to the writes: plan, place, record. Pure but for the ids that the caller draws and the
//! cluster in which placements are assumed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::controllers::commit::Unit;
use crate::mirror::derive::DECLARED_STABLE;
use crate::mirror::derive::FORCE_RESCHEDULE;
use crate::mirror::state::Stored;
use crate::model::allocation::AllocMetric;
use crate::model::allocation::Allocation;
use crate::model::allocation::ClientStatus;
use crate::model::allocation::DesiredStatus;
use crate::model::deployment::Deployment;
use crate::model::evaluation::DesiredUpdates;
use crate::model::group::TaskGroup;
use crate::model::id::AllocId;
use crate::model::id::DeploymentId;
use crate::model::id::EvalId;
use crate::model::job::Job;
use crate::model::job::JobStatus;
use crate::model::time::Time;
use crate::scheduler;
use crate::scheduler::Cluster;
use crate::scheduler::Placement;
use crate::store::Guard;
use crate::store::Op;
use crate::store::key::Key;
use crate::store::key::Keys;

use super::plan;
use super::plan::Plan;
use super::plan::Slot;
use super::plan::Stop;
use super::record;
use super::view::View;

/// Operations per unit: four fill a transaction to etcd's default limit of 128.
const OPS_PER_UNIT: usize = 32;
/// Bytes per unit.
const BYTES_PER_UNIT: usize = 256 * 1024;
/// Healthy versions remembered per job.
const STABLE_KEPT: usize = 6;

/// Draws random bytes for ids.
pub type Ids<'a> = &'a mut dyn FnMut() -> [u8; 16];

/// Cluster-wide scheduling settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub algorithm: scheduler::Algorithm,
    pub memory_oversubscription: bool,
}

/// The writes of a pass, in the order in which they must become durable.
#[derive(Debug, Default)]
pub struct Pass {
    /// The deployment that the allocations belong to.
    pub head: Option<Unit>,
    /// Allocations. Any subset of them is a valid state.
    pub body: Vec<Unit>,
    /// Evaluations, deployments, status: derived from the above.
    pub tail: Option<Unit>,
    /// A new version of the job, made by going back to an older one; fails if the user was faster.
    pub revert: Option<Unit>,
    /// Placements assumed in the cluster: forget them if the writes fail.
    pub assumed: Vec<AllocId>,
    /// Look again at this time.
    pub next: Option<Time>,
    /// Per group, for dry runs and records.
    pub outcome: Outcome,
}

impl Pass {
    /// Nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.head.is_none() && self.body.is_empty() && self.tail.is_none() && self.revert.is_none()
    }
}

/// What a pass achieves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub updates: BTreeMap<String, DesiredUpdates>,
    pub failed: BTreeMap<String, AllocMetric>,
    pub placed: BTreeMap<String, AllocMetric>,
    pub queued: BTreeMap<String, u64>,
}

/// Decides everything about one job.
pub fn decide(
    view: &View,
    cluster: &mut Cluster,
    keys: &Keys,
    now: Time,
    ids: Ids<'_>,
    settings: Settings,
) -> Pass {
    let plan = {
        let cluster = &*cluster;
        plan::plan(view, now, &|alloc, job, group| {
            scheduler::still_fits(cluster, job, group, alloc.desired.node_id, alloc.id())
        })
    };
    let mut deciding = Deciding {
        view,
        keys,
        now,
        settings,
        eval: record::choose(view, &plan, now, ids),
        deployment: None,
        atoms: Vec::new(),
        pass: Pass { next: plan.next(), ..Pass::default() },
    };
    deciding.head(&plan, ids);
    deciding.stop(&plan);
    deciding.update_in_place(&plan);
    deciding.place(&plan, cluster, ids);
    deciding.tail(&plan, ids);
    deciding.finish()
}

struct Deciding<'a> {
    view: &'a View,
    keys: &'a Keys,
    now: Time,
    settings: Settings,
    eval: EvalId,
    deployment: Option<DeploymentId>,
    /// Groups of operations that must not be torn apart.
    atoms: Vec<Vec<Op>>,
    pass: Pass,
}

impl Deciding<'_> {
    fn head(&mut self, plan: &Plan, ids: Ids<'_>) {
        self.deployment = plan.rollout.current;
        if let Some(create) = &plan.rollout.create {
            let deployment = Deployment { id: DeploymentId::from_random(ids()), ..create.clone() };
            self.deployment = Some(deployment.id);
            let key = Key::Deployment(self.view.id.clone(), deployment.id);
            self.pass.head = Some(Unit::of(vec![self.put(&key, &deployment)]));
        }
    }

    fn put(&self, key: &Key, value: &impl Serialize) -> Op {
        Op::put(self.keys.text(key), encode(value))
    }

    fn put_alloc(&self, alloc: &Allocation) -> Op {
        self.put(&Key::Alloc(alloc.node_id, alloc.id), alloc)
    }

    fn existing(&self, id: AllocId) -> Option<&Arc<Allocation>> {
        self.view.allocs.iter().find(|alloc| alloc.id() == id).map(|alloc| &alloc.desired)
    }

    fn stopped(&self, stop: &Stop) -> Option<Op> {
        let old = self.existing(stop.alloc)?;
        let changed = Allocation {
            desired_status: match old.desired_status {
                DesiredStatus::Run => DesiredStatus::Stop,
                other => other,
            },
            desired_description: stop.reason.to_owned(),
            forced_status: if stop.lost { Some(ClientStatus::Lost) } else { old.forced_status },
            no_shutdown_delay: old.no_shutdown_delay || self.view.hurries(old.id),
            modify_time: self.now.0,
            ..Allocation::clone(old)
        };
        Some(self.put_alloc(&changed))
    }

    fn stop(&mut self, plan: &Plan) {
        let ops: Vec<Vec<Op>> = plan
            .groups
            .values()
            .flat_map(|group| &group.stop)
            .filter_map(|stop| self.stopped(stop).map(|op| vec![op]))
            .collect();
        self.atoms.extend(ops);
    }

    fn update_in_place(&mut self, plan: &Plan) {
        let Some(job) = self.view.running_job() else { return };
        for id in plan.groups.values().flat_map(|group| &group.in_place) {
            let Some(old) = self.existing(*id) else { continue };
            let changed = Allocation {
                job_version: job.value.version,
                job_create_index: job.created as u64,
                eval_id: self.eval,
                deployment_id: self.deployment,
                modify_time: self.now.0,
                ..Allocation::clone(old)
            };
            let op = self.put_alloc(&changed);
            self.atoms.push(vec![op]);
        }
    }

    fn place(&mut self, plan: &Plan, cluster: &mut Cluster, ids: Ids<'_>) {
        let Some(job) = self.view.running_job().cloned() else { return };
        for (name, group_plan) in &plan.groups {
            if group_plan.place.is_empty() {
                continue;
            }
            let Some(group) = job.value.group(name) else { continue };
            // Replacements that take over resources first: what they free is then seen by the others.
            let mut slots: Vec<&Slot> = group_plan.place.iter().collect();
            slots.sort_by_key(|slot| (!slot.takes_over, slot.index));
            let asked: Vec<scheduler::Slot> = slots.iter().map(|slot| asked(slot, ids)).collect();
            let request = scheduler::Request {
                job: &job.value,
                group,
                slots: &asked,
                algorithm: self.settings.algorithm,
                memory_oversubscription: self.settings.memory_oversubscription,
            };
            let decision = scheduler::place(cluster, &request);
            let by_id: BTreeMap<AllocId, &Slot> =
                asked.iter().zip(&slots).map(|(asked, slot)| (asked.alloc_id, *slot)).collect();
            for placement in &decision.placements {
                self.placed(&job, group, by_id[&placement.alloc_id], placement);
            }
            if !decision.placements.is_empty() {
                self.pass.outcome.placed.insert(name.clone(), decision.metric);
            }
            if let Some((metric, unplaced)) = decision.failed {
                // Work on every node is not wanted on nodes that its constraints exclude.
                let unplaced = if job.value.job_type().is_on_every_node() {
                    decision.refusals.iter().filter(|refusal| refusal.reason.is_exhausted()).count()
                } else {
                    unplaced.len()
                };
                if unplaced > 0 {
                    self.pass.outcome.queued.insert(name.clone(), unplaced as u64);
                    self.pass.outcome.failed.insert(name.clone(), metric);
                }
            }
        }
    }

    fn placed(&mut self, job: &Stored<Job>, group: &TaskGroup, slot: &Slot, placement: &Placement) {
        let alloc = Allocation {
            id: placement.alloc_id,
            node_id: placement.node,
            namespace: self.view.id.namespace.to_string(),
            job_id: self.view.id.id.to_string(),
            job_version: job.value.version,
            job_create_index: job.created as u64,
            task_group: group.name.clone(),
            index: slot.index,
            eval_id: self.eval,
            deployment_id: self.deployment,
            resources: placement.resources.clone(),
            previous: slot.previous.map(|(previous, _)| previous),
            previous_node: slot.previous.map(|(_, node)| node),
            reschedule_tracker: slot.tracker.clone(),
            create_time: self.now.0,
            modify_time: self.now.0,
            ..Allocation::default()
        };
        self.pass.assumed.push(alloc.id);
        let mut atom = vec![self.put_alloc(&alloc)];
        if let (Some(reason), Some((previous, _))) = (slot.stop_previous, slot.previous) {
            atom.extend(self.stopped(&Stop { alloc: previous, reason, lost: false }));
        }
        self.atoms.push(atom);
    }

    fn tail(&mut self, plan: &Plan, ids: Ids<'_>) {
        for (name, group) in &plan.groups {
            self.pass.outcome.updates.insert(name.clone(), group.updates.clone());
        }
        let acts = !self.atoms.is_empty() || self.pass.head.is_some() || !plan.rollout.changed.is_empty();
        let mut ops = Vec::new();
        for evaluation in record::evaluations(
            &record::Facts {
                view: self.view,
                plan,
                outcome: &self.pass.outcome,
                eval: self.eval,
                deployment: self.deployment,
                acts,
                now: self.now,
            },
            ids,
        ) {
            ops.push(self.put(&Key::Evaluation(self.view.id.clone(), evaluation.id), &evaluation));
        }
        for deployment in &plan.rollout.changed {
            ops.push(self.put(&Key::Deployment(self.view.id.clone(), deployment.id), deployment));
        }
        if let Some(version) = plan.rollout.stable {
            ops.push(self.remember_stable(version));
        }
        // An order to replace what failed stands until everything has found its place.
        let stands = |intent: &str| intent == FORCE_RESCHEDULE && !self.pass.outcome.failed.is_empty();
        for intent in plan.consumed.iter().filter(|intent| !stands(intent)) {
            ops.push(Op::delete(self.keys.text(&Key::Intent(self.view.id.clone(), intent.clone()))));
        }
        if let Some(older) = &plan.rollout.revert_to {
            self.pass.revert = self.revert(older, ids);
        }
        self.pass.tail = (!ops.is_empty()).then(|| Unit::of(ops));
    }

    fn remember_stable(&self, version: u64) -> Op {
        let mut status =
            self.view.status.as_ref().map_or_else(JobStatus::default, |s| JobStatus::clone(&s.value));
        status.stable_versions.retain(|known| *known != version);
        status.stable_versions.push(version);
        let surplus = status.stable_versions.len().saturating_sub(STABLE_KEPT);
        status.stable_versions.drain(..surplus);
        self.put(&Key::Status(self.view.id.clone()), &status)
    }

    /// The older specification becomes the newest version.
    fn revert(&self, older: &Job, ids: Ids<'_>) -> Option<Unit> {
        let current = self.view.job.as_ref()?;
        let mut job = Job {
            version: current.value.version + 1,
            submit_time: self.now.0,
            version_tag: None,
            ..older.clone()
        };
        job.unknown.remove(DECLARED_STABLE);
        job.seal();
        let kept = record::kept(current, self.view.copy.as_deref());
        let evaluation = record::registered(&job, EvalId::from_random(ids()), self.now);
        let key = self.keys.text(&Key::Job(self.view.id.clone()));
        Some(Unit {
            guards: vec![Guard::ModRevision(key, current.modified)],
            ops: vec![
                self.put(&Key::Job(self.view.id.clone()), &job),
                self.put(&Key::Version(self.view.id.clone(), current.value.version), &kept),
                self.put(&Key::Evaluation(self.view.id.clone(), evaluation.id), &evaluation),
            ],
        })
    }

    fn finish(mut self) -> Pass {
        let mut unit = Unit::default();
        let mut bytes = 0;
        for atom in self.atoms {
            let size: usize = atom.iter().map(Op::size).sum();
            if !unit.ops.is_empty()
                && (unit.ops.len() + atom.len() > OPS_PER_UNIT || bytes + size > BYTES_PER_UNIT)
            {
                self.pass.body.push(std::mem::take(&mut unit));
                bytes = 0;
            }
            bytes += size;
            unit.ops.extend(atom);
        }
        if !unit.ops.is_empty() {
            self.pass.body.push(unit);
        }
        self.pass
    }
}

fn asked(slot: &Slot, ids: Ids<'_>) -> scheduler::Slot {
    scheduler::Slot {
        index: slot.index,
        alloc_id: AllocId::from_random(ids()),
        previous: slot.previous,
        replaces: slot.takes_over,
        penalty_nodes: slot.penalty_nodes.clone(),
        preferred_node: slot.preferred_node,
        pinned_node: slot.pinned_node,
    }
}

/// The stored form of a value.
pub fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("model types are plain data")
}
