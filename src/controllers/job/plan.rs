//! What should happen to a job's allocations. Pure: takes a view and the time, returns a value.
//!
//! Count, update, replacement of lost and failed work, stop requests and drain are inputs of this one function.
//! Where new allocations go is decided afterwards, by the scheduler, in `place`.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::mirror::derive::FORCE_RESCHEDULE;
use crate::mirror::derive::stop_intent;
use crate::model::allocation::ClientStatus;
use crate::model::allocation::RescheduleTracker;
use crate::model::diff::UpdateKind;
use crate::model::diff::update_kind;
use crate::model::evaluation::DesiredUpdates;
use crate::model::evaluation::trigger;
use crate::model::group::ReschedulePolicy;
use crate::model::group::TaskGroup;
use crate::model::id::AllocId;
use crate::model::id::NodeId;
use crate::model::job::Job;
use crate::model::job::JobType;
use crate::model::time::Span;
use crate::model::time::Time;

use super::reschedule;
use super::reschedule::Reschedule;
use super::rollout;
use super::rollout::Rollout;
use super::view::Alloc;
use super::view::NodeCondition;
use super::view::View;

/// Nomad's words for why an allocation is stopped.
pub mod reason {
    pub const NOT_NEEDED: &str = "alloc not needed due to job update";
    pub const MIGRATING: &str = "alloc is being migrated";
    pub const UPDATING: &str = "alloc is being updated due to job update";
    pub const TAINTED: &str = "alloc not needed as node is tainted";
    pub const LOST: &str = "alloc is lost since its node is down";
    pub const RESCHEDULED: &str = "alloc was rescheduled because it failed";
}

/// First and longest pause before failed work is tried again on its node.
const SYSTEM_RETRY: (Span, Span) = (Span::from_secs(30), Span::from_secs(3600));

/// A change of an existing allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    pub alloc: AllocId,
    pub reason: &'static str,
    /// The node is gone: nobody will report the end.
    pub lost: bool,
}

/// An allocation to be placed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slot {
    pub index: u32,
    /// The one it replaces.
    pub previous: Option<(AllocId, NodeId)>,
    /// Stop the previous one for this reason in the same transaction, once a node was found.
    pub stop_previous: Option<&'static str>,
    /// The replacement may take over the resources of the previous one (it starts after its end).
    pub takes_over: bool,
    pub penalty_nodes: Vec<NodeId>,
    pub preferred_node: Option<NodeId>,
    /// The only node that will do (system jobs).
    pub pinned_node: Option<NodeId>,
    pub tracker: Option<RescheduleTracker>,
}

/// The plan of one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupPlan {
    pub stop: Vec<Stop>,
    pub place: Vec<Slot>,
    /// Allocations that go on under the new version.
    pub in_place: Vec<AllocId>,
    pub updates: DesiredUpdates,
    /// The next time at which something becomes due.
    pub next: Option<Time>,
    /// When a waiting replacement becomes due.
    pub reschedule_at: Option<Time>,
    /// Further destructive updates that wait for their turn.
    pub updates_left: bool,
    /// Why the pass has something to do, in Nomad's words; the first that applies is shown.
    pub causes: BTreeSet<&'static str>,
}

/// The plan of a job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub groups: BTreeMap<String, GroupPlan>,
    pub rollout: Rollout,
    /// Intents that were followed.
    pub consumed: Vec<String>,
}

impl Plan {
    /// The earliest time at which a pass would do something more.
    pub fn next(&self) -> Option<Time> {
        self.groups.values().filter_map(|group| group.next).chain(self.rollout.next).min()
    }
}

/// Does an allocation's node still satisfy a new version of its job?
pub type StillFits<'a> = &'a dyn Fn(&Alloc, &Job, &TaskGroup) -> bool;

/// Decides. `still_fits` answers for updates in place that change requirements on the node.
pub fn plan(view: &View, now: Time, still_fits: StillFits<'_>) -> Plan {
    let mut by_group: BTreeMap<&str, Vec<&Alloc>> = BTreeMap::new();
    for alloc in &view.allocs {
        by_group.entry(alloc.desired.task_group.as_str()).or_default().push(alloc);
    }
    let Some(job) = view.running_job() else {
        let groups = by_group.iter().map(|(name, allocs)| ((*name).to_owned(), stop_all(allocs))).collect();
        return Plan {
            groups,
            rollout: rollout::when_stopped(view),
            consumed: view.intents.keys().cloned().collect(),
        };
    };
    for group in &job.value.task_groups {
        by_group.entry(group.name.as_str()).or_default();
    }
    let gate = rollout::gate(view, job);
    let mut groups = BTreeMap::new();
    for (name, allocs) in &by_group {
        let planned = match job.value.group(name) {
            None => stop_all(allocs),
            Some(group) => {
                let pass =
                    GroupPass { view, job: &job.value, incarnation: job.created as u64, group, gate, now };
                if job.value.job_type().is_on_every_node() {
                    pass.plan_every_node(allocs, still_fits)
                } else {
                    pass.plan(allocs, still_fits)
                }
            }
        };
        groups.insert((*name).to_owned(), planned);
    }
    let rollout = rollout::plan(view, job, &groups, now);
    Plan { groups, rollout, consumed: followed_intents(view) }
}

fn followed_intents(view: &View) -> Vec<String> {
    view.intents.keys().cloned().collect()
}

/// Nothing of the group is wanted any more.
fn stop_all(allocs: &[&Alloc]) -> GroupPlan {
    let mut plan = GroupPlan::default();
    for alloc in allocs {
        if let Some(stop) = lost_while_stopping(alloc) {
            plan.stop.push(stop);
        } else if alloc.desired.is_wanted() && !alloc.status.is_terminal() {
            let lost = alloc.node == NodeCondition::Gone;
            plan.stop.push(Stop { alloc: alloc.id(), reason: reason::NOT_NEEDED, lost });
            plan.updates.stop += 1;
            plan.causes.insert(trigger::JOB_DEREGISTER);
        }
    }
    plan
}

/// An allocation that was told to stop on a node that is gone: nobody will confirm its end.
fn lost_while_stopping(alloc: &Alloc) -> Option<Stop> {
    let waits = !alloc.desired.is_wanted() && !alloc.status.is_terminal();
    (waits && alloc.node == NodeCondition::Gone && alloc.desired.forced_status != Some(ClientStatus::Lost))
        .then(|| Stop { alloc: alloc.id(), reason: reason::LOST, lost: true })
}

/// The policies of the rollout that a pass must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// New work and updates may be made; false while a rollout is paused or after it failed.
    pub open: bool,
    pub failed: bool,
}

struct GroupPass<'a> {
    view: &'a View,
    job: &'a Arc<Job>,
    incarnation: u64,
    group: &'a TaskGroup,
    gate: Gate,
    now: Time,
}

impl GroupPass<'_> {
    fn plan(&self, allocs: &[&Alloc], still_fits: StillFits<'_>) -> GroupPlan {
        let mut plan = GroupPlan::default();
        let count = u32::try_from(self.group.count()).unwrap_or(u32::MAX);
        // Slot to the allocation that fills it. Slots that must be filled anew, with what is known of the loss.
        let mut filled: BTreeMap<u32, &Alloc> = BTreeMap::new();
        let mut refill: BTreeMap<u32, Slot> = BTreeMap::new();
        for alloc in by_worth(allocs) {
            plan.stop.extend(lost_while_stopping(alloc));
            if !alloc.desired.is_wanted() {
                self.remember_loss(alloc, &mut refill);
                continue;
            }
            match self.classify(alloc) {
                Class::Ignored => {}
                Class::Filled => {
                    let surplus = alloc.desired.index >= count || filled.contains_key(&alloc.desired.index);
                    if surplus && !alloc.status.is_terminal() {
                        plan.stop.push(Stop { alloc: alloc.id(), reason: reason::NOT_NEEDED, lost: false });
                        plan.updates.stop += 1;
                        plan.causes.insert(trigger::JOB_REGISTER);
                    } else if !surplus {
                        filled.insert(alloc.desired.index, alloc);
                    }
                }
                Class::Waits(at) => {
                    plan.next = plan.next.into_iter().chain([at]).min();
                    plan.reschedule_at = plan.reschedule_at.into_iter().chain([at]).min();
                    filled.insert(alloc.desired.index, alloc);
                }
                Class::Lost => {
                    plan.stop.push(Stop { alloc: alloc.id(), reason: reason::LOST, lost: true });
                    plan.updates.stop += 1;
                    plan.causes.insert(trigger::NODE_UPDATE);
                    refill.insert(alloc.desired.index, self.replacement(alloc));
                }
                Class::Failed => {
                    plan.causes.insert(trigger::ALLOC_FAILURE);
                    let slot = Slot { stop_previous: Some(reason::RESCHEDULED), ..self.rescheduled(alloc) };
                    refill.insert(alloc.desired.index, slot);
                }
            }
        }
        self.fill_slots(count, &filled, refill, &mut plan);
        self.update(&filled, still_fits, &mut plan);
        self.migrate(&filled, &mut plan);
        plan
    }

    fn is_current(&self, alloc: &Alloc) -> bool {
        alloc.desired.job_version == self.job.version && alloc.desired.job_create_index == self.incarnation
    }

    fn classify(&self, alloc: &Alloc) -> Class {
        match alloc.status {
            ClientStatus::Complete if self.job.job_type().is_batch() && self.is_current(alloc) => {
                Class::Filled
            }
            ClientStatus::Complete | ClientStatus::Lost => Class::Ignored,
            ClientStatus::Failed => self.classify_failed(alloc),
            ClientStatus::Pending | ClientStatus::Running | ClientStatus::Unknown => {
                if alloc.node == NodeCondition::Gone { Class::Lost } else { Class::Filled }
            }
        }
    }

    fn classify_failed(&self, alloc: &Alloc) -> Class {
        if !self.is_current(alloc) {
            // A new version is a new chance: batch work starts over, a service's slot is updated.
            return if self.job.job_type().is_batch() { Class::Ignored } else { Class::Failed };
        }
        let in_failed_rollout = self.gate.failed && alloc.desired.deployment_id.is_some();
        if in_failed_rollout && !alloc.was_rejected() {
            return Class::Filled;
        }
        if self.view.intents.contains_key(FORCE_RESCHEDULE) {
            return Class::Failed;
        }
        let policy = self.reschedule_policy();
        match reschedule::decide(policy.as_ref(), &alloc.desired, alloc.report.as_deref(), self.now) {
            Reschedule::Now => Class::Failed,
            Reschedule::At(time) => Class::Waits(time),
            Reschedule::Never => Class::Filled,
        }
    }

    /// The group's policy. Work on every node has none of its own and is retried with growing pauses.
    fn reschedule_policy(&self) -> Option<ReschedulePolicy> {
        if self.job.job_type() == JobType::System {
            return Some(ReschedulePolicy {
                delay: SYSTEM_RETRY.0,
                max_delay: SYSTEM_RETRY.1,
                delay_function: "exponential".to_owned(),
                unlimited: true,
                ..ReschedulePolicy::default()
            });
        }
        self.group.reschedule_policy.clone()
    }

    /// As `plan`, for jobs that run on every node: a node takes the place of an index.
    fn plan_every_node(&self, allocs: &[&Alloc], still_fits: StillFits<'_>) -> GroupPlan {
        let mut plan = GroupPlan::default();
        let mut filled: BTreeMap<NodeId, &Alloc> = BTreeMap::new();
        let mut indexes: BTreeSet<u32> = BTreeSet::new();
        for alloc in by_worth(allocs) {
            plan.stop.extend(lost_while_stopping(alloc));
            if !alloc.desired.is_wanted() {
                continue;
            }
            let node = alloc.desired.node_id;
            let stopped = match self.classify(alloc) {
                Class::Ignored => continue,
                Class::Lost => Some((reason::LOST, true)),
                Class::Failed => {
                    indexes.insert(alloc.desired.index);
                    filled.insert(node, alloc);
                    plan.causes.insert(trigger::ALLOC_FAILURE);
                    let slot = Slot { stop_previous: Some(reason::RESCHEDULED), ..self.rescheduled(alloc) };
                    plan.place.push(Slot { pinned_node: Some(node), ..slot });
                    plan.updates.place += 1;
                    None
                }
                Class::Waits(at) => {
                    plan.next = plan.next.into_iter().chain([at]).min();
                    plan.reschedule_at = plan.reschedule_at.into_iter().chain([at]).min();
                    filled.insert(node, alloc);
                    None
                }
                Class::Filled if filled.contains_key(&node) => Some((reason::NOT_NEEDED, false)),
                Class::Filled if alloc.node == NodeCondition::Draining => Some((reason::TAINTED, false)),
                Class::Filled => {
                    filled.insert(node, alloc);
                    None
                }
            };
            indexes.insert(alloc.desired.index);
            if let Some((reason, lost)) = stopped.filter(|_| !alloc.status.is_terminal()) {
                plan.stop.push(Stop { alloc: alloc.id(), reason, lost });
                plan.updates.stop += 1;
                plan.causes.insert(trigger::NODE_UPDATE);
            }
        }
        let mut free = (0..).filter(|index| !indexes.contains(index));
        for node in self.view.ready_nodes.iter().filter(|node| !filled.contains_key(node)) {
            let index = free.next().unwrap_or(u32::MAX);
            plan.place.push(Slot { index, pinned_node: Some(*node), ..Slot::default() });
            plan.updates.place += 1;
            plan.causes.insert(trigger::JOB_REGISTER);
        }
        let by_index = filled.values().map(|alloc| (alloc.desired.index, *alloc)).collect();
        self.update_every_node(&by_index, still_fits, &mut plan);
        plan
    }

    /// Updates on every node go a few at a time too: as many as may start at once, less those still starting.
    fn update_every_node(
        &self,
        filled: &BTreeMap<u32, &Alloc>,
        still_fits: StillFits<'_>,
        plan: &mut GroupPlan,
    ) {
        let before = plan.place.len();
        self.update(filled, still_fits, plan);
        let parallel = self.group.update.as_ref().map_or(0, |update| update.max_parallel);
        let starting =
            filled.values().filter(|a| self.is_current(a) && a.status == ClientStatus::Pending).count();
        if let Ok(parallel @ 1..) = usize::try_from(parallel) {
            let kept = before + parallel.saturating_sub(starting);
            let dropped = plan.place.len().saturating_sub(kept);
            plan.place.truncate(kept.max(before));
            plan.updates.destructive_update -= dropped as u64;
            plan.updates.ignore += dropped as u64;
            plan.updates_left |= dropped > 0;
        }
        for slot in &mut plan.place[before..] {
            slot.pinned_node = slot.previous.map(|(_, node)| node);
        }
    }

    /// A slot whose allocation was lost keeps the right to be filled, even while the gate is closed and even if
    /// no node was found at first.
    fn remember_loss(&self, alloc: &Alloc, refill: &mut BTreeMap<u32, Slot>) {
        if alloc.desired.forced_status == Some(ClientStatus::Lost)
            && alloc.desired.desired_description == reason::LOST
            && self.is_current(alloc)
        {
            refill.entry(alloc.desired.index).or_insert_with(|| self.replacement(alloc));
        }
    }

    fn replacement(&self, alloc: &Alloc) -> Slot {
        Slot {
            index: alloc.desired.index,
            previous: Some((alloc.id(), alloc.desired.node_id)),
            preferred_node: self.sticky_node(alloc),
            ..Slot::default()
        }
    }

    fn rescheduled(&self, alloc: &Alloc) -> Slot {
        let events = alloc.desired.reschedule_tracker.iter().flat_map(|tracker| &tracker.events);
        let earlier: BTreeSet<NodeId> = events.map(|event| event.previous_node).collect();
        let policy = self.reschedule_policy();
        let report = alloc.report.as_deref();
        Slot {
            penalty_nodes: earlier.into_iter().chain([alloc.desired.node_id]).collect(),
            preferred_node: None,
            tracker: reschedule::tracker_of_replacement(policy.as_ref(), &alloc.desired, report, self.now),
            ..self.replacement(alloc)
        }
    }

    fn sticky_node(&self, alloc: &Alloc) -> Option<NodeId> {
        let sticky = self.group.ephemeral_disk.as_ref().is_some_and(|disk| disk.sticky || disk.migrate);
        (sticky && alloc.node == NodeCondition::Up).then_some(alloc.desired.node_id)
    }

    fn fill_slots(
        &self,
        count: u32,
        filled: &BTreeMap<u32, &Alloc>,
        mut refill: BTreeMap<u32, Slot>,
        plan: &mut GroupPlan,
    ) {
        for index in 0..count {
            if filled.contains_key(&index) {
                continue;
            }
            match refill.remove(&index) {
                Some(slot) => plan.place.push(slot),
                None if self.gate.open => {
                    plan.causes.insert(trigger::JOB_REGISTER);
                    plan.place.push(Slot { index, ..Slot::default() });
                }
                None => continue,
            }
            plan.updates.place += 1;
        }
        // What failed beyond the present count is not replaced, and no longer wanted.
        for slot in refill.into_values().filter(|slot| slot.index >= count && slot.stop_previous.is_some()) {
            let (alloc, _) = slot.previous.expect("set together with the reason to stop it");
            plan.stop.push(Stop { alloc, reason: reason::NOT_NEEDED, lost: false });
        }
    }

    fn update(&self, filled: &BTreeMap<u32, &Alloc>, still_fits: StillFits<'_>, plan: &mut GroupPlan) {
        let mut destructive = Vec::new();
        for alloc in filled.values() {
            if self.is_current(alloc) || alloc.status.is_terminal() {
                plan.updates.ignore += 1;
                continue;
            }
            if self.can_stay(alloc, still_fits) {
                plan.in_place.push(alloc.id());
                plan.updates.in_place_update += 1;
                plan.causes.insert(trigger::JOB_REGISTER);
            } else {
                destructive.push(*alloc);
            }
        }
        let allowed = rollout::parallel_updates(self.view, self.group, self.gate, filled.values().copied());
        let allowed = allowed.saturating_sub(plan.place.len().min(allowed));
        plan.updates_left = destructive.len() > allowed;
        for alloc in destructive.iter().take(allowed) {
            plan.place.push(Slot {
                stop_previous: Some(reason::UPDATING),
                takes_over: true,
                ..self.replacement(alloc)
            });
            plan.updates.destructive_update += 1;
            plan.causes.insert(trigger::DEPLOYMENT_WATCHER);
        }
        plan.updates.ignore += destructive.len().saturating_sub(allowed) as u64;
    }

    fn can_stay(&self, alloc: &Alloc, still_fits: StillFits<'_>) -> bool {
        let Some(old) = &alloc.job else { return false };
        match update_kind(old, self.job, &self.group.name) {
            UpdateKind::None => true,
            UpdateKind::Destructive => false,
            UpdateKind::InPlace { recheck_node } => !recheck_node || still_fits(alloc, self.job, self.group),
        }
    }

    /// It has not begun, or nobody knows yet whether it is well. What is on a draining node is not waited for.
    fn is_unready(&self, alloc: &Alloc) -> bool {
        let judged = self.job.job_type() == JobType::Service
            && self.group.migrate.is_some()
            && alloc.desired.deployment_id.is_none();
        let awaited = judged && alloc.node != NodeCondition::Draining && !alloc.status.is_terminal();
        alloc.status == ClientStatus::Pending || (awaited && alloc.healthy().is_none())
    }

    /// Moves allocations that users asked to move, and those of draining nodes a few at a time.
    fn migrate(&self, filled: &BTreeMap<u32, &Alloc>, plan: &mut GroupPlan) {
        let busy: BTreeSet<AllocId> =
            plan.place.iter().filter_map(|slot| slot.previous.map(|previous| previous.0)).collect();
        let parallel = self.group.migrate.as_ref().map_or(1, |migrate| migrate.max_parallel.max(1));
        let unready = filled.values().filter(|alloc| self.is_unready(alloc)).count();
        let mut budget = usize::try_from(parallel).unwrap_or(1).saturating_sub(unready + plan.place.len());
        for alloc in
            filled.values().filter(|alloc| !alloc.status.is_terminal() && !busy.contains(&alloc.id()))
        {
            let asked = self.view.intents.contains_key(&stop_intent(alloc.id()));
            let drains = alloc.node == NodeCondition::Draining;
            if !asked && (!drains || budget == 0) {
                continue;
            }
            if !asked {
                budget -= 1;
            }
            plan.causes.insert(if asked { trigger::ALLOC_STOP } else { trigger::NODE_DRAIN });
            plan.place.push(Slot { stop_previous: Some(reason::MIGRATING), ..self.replacement(alloc) });
            plan.updates.migrate += 1;
            plan.updates.ignore = plan.updates.ignore.saturating_sub(1);
        }
    }
}

/// What to do about one wanted allocation.
enum Class {
    /// Fills its slot as it is.
    Filled,
    /// Failed, and will be replaced at this time.
    Waits(Time),
    /// Failed, to be replaced now.
    Failed,
    /// Its node is gone.
    Lost,
    /// Counts for nothing: its slot is free.
    Ignored,
}

/// When two allocations claim one slot the running one of the newest version wins.
fn by_worth<'a>(allocs: &[&'a Alloc]) -> Vec<&'a Alloc> {
    let mut sorted = allocs.to_vec();
    let worth = |alloc: &Alloc| {
        let status = match alloc.status {
            ClientStatus::Running => 0,
            ClientStatus::Pending => 1,
            ClientStatus::Unknown => 2,
            ClientStatus::Complete => 3,
            ClientStatus::Failed | ClientStatus::Lost => 4,
        };
        (status, std::cmp::Reverse(alloc.desired.job_version), alloc.desired.create_time, alloc.id())
    };
    sorted.sort_by_key(|alloc| worth(alloc));
    sorted
}
