//! What may be deleted at this moment. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::mirror::derive;
use crate::mirror::state::State;
use crate::mirror::state::Stored;
use crate::model::allocation::ClientStatus;
use crate::model::evaluation::EvalStatus;
use crate::model::id::AllocId;
use crate::model::id::JobId;
use crate::model::id::NodeId;
use crate::model::job::Job;
use crate::model::node::NodeState;
use crate::model::time::Span;
use crate::model::time::Time;
use crate::store::Revision;
use crate::store::key::Key;

use super::Thresholds;

/// `config/<this>` asks for a collection of everything finished, whatever its age (`system gc`).
pub const FORCE: &str = "gc";

/// Older versions kept per job beside the current one.
const VERSIONS_KEPT: usize = 6;
/// Launch records kept per periodic job: enough to know the last one, and to show some history.
const LAUNCHES_KEPT: usize = 20;

/// A key to delete.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Doomed {
    pub key: Key,
    /// For keys that users write: only if nobody wrote since. 0: only if there is no such key.
    pub unless_changed_since: Option<Revision>,
}

fn ours(key: Key) -> Doomed {
    Doomed { key, unless_changed_since: None }
}

/// Everything of a purged or vanished job, once all its allocations have ended. Until then nothing: an agent that
/// still winds down a task must find its allocation.
pub fn purged(state: &State, id: &JobId) -> Vec<Doomed> {
    let entry = state.jobs.get(id);
    let current = state.job(id);
    let is_purged = current.as_ref().is_some_and(|job| job.value.purge);
    let is_gone = entry.is_none();
    if !is_purged && !is_gone {
        return Vec::new();
    }
    if state.allocs_of_job(id).any(|(_, alloc)| !alloc.status().is_terminal()) {
        return Vec::new();
    }
    let mut doomed = belongings(state, id);
    // Whoever ordered the purge still follows its evaluation: those go by age.
    doomed.retain(|doomed| !matches!(doomed.key, Key::Evaluation(..)));
    if let (true, Some(job)) = (is_purged, current) {
        doomed.push(Doomed { key: Key::Job(id.clone()), unless_changed_since: Some(job.modified) });
    } else if !doomed.is_empty() {
        // The key itself is gone already, but what lies beside it is known by the key only.
        doomed.push(Doomed { key: Key::Job(id.clone()), unless_changed_since: Some(0) });
    }
    doomed
}

/// All keys of a job but its own.
fn belongings(state: &State, id: &JobId) -> Vec<Doomed> {
    let mut keys = Vec::new();
    for (alloc, entry) in state.allocs_of_job(id) {
        let nodes = entry.desired.iter().map(|desired| desired.value.node_id);
        keys.extend(nodes.flat_map(|node| alloc_keys(state, node, alloc)));
    }
    keys.extend(
        state.evaluations.get(id).into_iter().flatten().map(|(eval, _)| Key::Evaluation(id.clone(), *eval)),
    );
    keys.extend(
        state
            .deployments
            .get(id)
            .into_iter()
            .flatten()
            .map(|(deployment, _)| Key::Deployment(id.clone(), *deployment)),
    );
    keys.extend(
        state.versions.get(id).into_iter().flatten().map(|(version, _)| Key::Version(id.clone(), *version)),
    );
    keys.extend(
        state.intents.get(id).into_iter().flatten().map(|(what, _)| Key::Intent(id.clone(), what.clone())),
    );
    keys.extend(
        state.launches.get(id).into_iter().flatten().map(|(what, _)| Key::Launch(id.clone(), what.clone())),
    );
    keys.extend(state.statuses.get(id).map(|_| Key::Status(id.clone())));
    keys.into_iter().map(ours).collect()
}

/// Everything finished that is too old, or one too many.
pub fn sweep(state: &State, now: Time, thresholds: &Thresholds) -> Vec<Doomed> {
    let force = state.configs.get(FORCE);
    let forced = Thresholds {
        evaluation: Span::ZERO,
        deployment: Span::ZERO,
        job: Span::ZERO,
        node: Span::ZERO,
        allocs_per_job: 0,
        evaluations_per_job: 0,
        children_per_job: 0,
    };
    let sweep = Sweep { state, now, thresholds: if force.is_some() { &forced } else { thresholds } };
    let mut doomed = Vec::new();
    let jobs: BTreeSet<&JobId> = state
        .jobs
        .keys()
        .chain(state.job_allocs.keys())
        .chain(state.evaluations.keys())
        .chain(state.deployments.keys())
        .chain(state.versions.keys())
        .chain(state.statuses.keys())
        .collect();
    for id in jobs {
        match state.job(id) {
            Some(job) if !job.value.purge => sweep.job(id, &job, &mut doomed),
            None if state.jobs.contains_key(id) => {}
            Some(_) | None => {
                doomed.extend(purged(state, id));
                sweep.evaluations_of_gone(id, &mut doomed);
            }
        }
    }
    sweep.children(&mut doomed);
    sweep.nodes(&mut doomed);
    if let Some(force) = force {
        let key = Key::Config(FORCE.to_owned());
        doomed.push(Doomed { key, unless_changed_since: Some(force.modified) });
    }
    let is_gone = |alloc: &AllocId| state.allocs.get(alloc).is_none_or(|entry| entry.desired.is_none());
    let orphans = state.tokens.iter().filter(|(alloc, _)| is_gone(alloc));
    doomed.extend(orphans.map(|(alloc, (node, _))| ours(Key::AllocTokens(*node, *alloc))));
    doomed.sort();
    doomed.dedup();
    doomed
}

/// An allocation's keys: it, and its tokens.
fn alloc_keys(state: &State, node: NodeId, alloc: AllocId) -> impl Iterator<Item = Key> {
    let tokens = state.tokens.contains_key(&alloc).then_some(Key::AllocTokens(node, alloc));
    std::iter::once(Key::Alloc(node, alloc)).chain(tokens)
}

struct Sweep<'a> {
    state: &'a State,
    now: Time,
    thresholds: &'a Thresholds,
}

impl Sweep<'_> {
    fn is_old(&self, since_ns: i64, threshold: Span) -> bool {
        self.now.since(Time(since_ns)) >= threshold
    }

    /// Nothing of it runs or will run by itself.
    fn is_dead(&self, id: &JobId, job: &Job) -> bool {
        let quiet = self.state.allocs_of_job(id).all(|(_, alloc)| alloc.status().is_terminal())
            && self
                .state
                .evaluations
                .get(id)
                .into_iter()
                .flatten()
                .all(|(_, eval)| eval.value.status.is_terminal());
        let finished = job.stop || (job.job_type().is_batch() && !job.is_template());
        quiet && finished && (job.stop || self.ran(id))
    }

    /// A batch job without any trace of having run has only just been written.
    fn ran(&self, id: &JobId) -> bool {
        self.state.evaluations.contains_key(id) || self.state.job_allocs.contains_key(id)
    }

    fn job(&self, id: &JobId, job: &Stored<Job>, doomed: &mut Vec<Doomed>) {
        if self.is_dead(id, &job.value) && self.is_old(self.last_change(id, &job.value), self.thresholds.job)
        {
            doomed.extend(belongings(self.state, id));
            doomed.push(Doomed { key: Key::Job(id.clone()), unless_changed_since: Some(job.modified) });
            return;
        }
        self.allocs(id, &job.value, doomed);
        self.evaluations(id, doomed);
        self.deployments(id, doomed);
        self.versions(id, &job.value, doomed);
        self.launches(id, doomed);
    }

    /// When anything of the job last moved. Nomad counts from the submission, which collects a job that ran for
    /// days the minute it ends.
    fn last_change(&self, id: &JobId, job: &Job) -> i64 {
        let allocs = self.state.allocs_of_job(id).map(|(_, alloc)| {
            let desired = alloc.desired.as_ref().map_or(0, |desired| desired.value.modify_time);
            desired.max(alloc.report.as_ref().map_or(0, |report| report.value.modify_time))
        });
        let evals =
            self.state.evaluations.get(id).into_iter().flatten().map(|(_, eval)| eval.value.modify_time);
        allocs.chain(evals).max().unwrap_or(0).max(job.submit_time)
    }

    fn allocs(&self, id: &JobId, job: &Job, doomed: &mut Vec<Doomed>) {
        let mut finished: Vec<(i64, AllocId)> = Vec::new();
        for (alloc, entry) in self.state.allocs_of_job(id) {
            let Some(desired) = &entry.desired else { continue };
            if !entry.status().is_terminal() {
                continue;
            }
            // What still wants to run fills a slot: completed batch work must not run again, a failed allocation
            // may wait for its replacement.
            let fills_slot = desired.value.is_wanted()
                && (entry.status() == ClientStatus::Failed || job.job_type().is_batch())
                && desired.value.job_version == job.version;
            // A newer one may still wait for its predecessor's end, or carry on its history.
            if fills_slot {
                continue;
            }
            finished.push((desired.value.modify_time, alloc));
        }
        finished.sort_by_key(|(time, alloc)| (Reverse(*time), *alloc));
        for (position, (time, alloc)) in finished.into_iter().enumerate() {
            if position >= self.thresholds.allocs_per_job || self.is_old(time, self.thresholds.evaluation) {
                let node = self.state.alloc_nodes.get(&alloc).copied();
                doomed
                    .extend(node.into_iter().flat_map(|node| alloc_keys(self.state, node, alloc)).map(ours));
            }
        }
    }

    fn evaluations(&self, id: &JobId, doomed: &mut Vec<Doomed>) {
        let Some(all) = self.state.evaluations.get(id) else { return };
        let finished = |status: EvalStatus| status.is_terminal();
        let mut finished: Vec<_> = all.values().filter(|eval| finished(eval.value.status)).collect();
        finished.sort_by_key(|eval| (Reverse(eval.value.modify_time), eval.value.id));
        for (position, eval) in finished.into_iter().enumerate() {
            let old = self.is_old(eval.value.modify_time, self.thresholds.evaluation);
            // The newest is kept: it says why the job is as it is.
            if (position > 0 && old) || position >= self.thresholds.evaluations_per_job.max(1) {
                doomed.push(ours(Key::Evaluation(id.clone(), eval.value.id)));
            }
        }
    }

    fn evaluations_of_gone(&self, id: &JobId, doomed: &mut Vec<Doomed>) {
        for (eval, evaluation) in self.state.evaluations.get(id).into_iter().flatten() {
            let old = self.is_old(evaluation.value.modify_time, self.thresholds.evaluation);
            if evaluation.value.status.is_terminal() && old {
                doomed.push(ours(Key::Evaluation(id.clone(), *eval)));
            }
        }
    }

    fn deployments(&self, id: &JobId, doomed: &mut Vec<Doomed>) {
        let Some(all) = self.state.deployments.get(id) else { return };
        let newest = self.state.latest_deployment(id).map(|deployment| deployment.value.id);
        for deployment in all.values() {
            let in_use = self.state.allocs_of_job(id).any(|(_, alloc)| {
                !alloc.status().is_terminal()
                    && alloc.desired.as_ref().and_then(|desired| desired.value.deployment_id)
                        == Some(deployment.value.id)
            });
            let old = self.is_old(deployment.value.modify_time, self.thresholds.deployment);
            if !deployment.value.status.is_active() && !in_use && old && newest != Some(deployment.value.id) {
                doomed.push(ours(Key::Deployment(id.clone(), deployment.value.id)));
            }
        }
    }

    fn versions(&self, id: &JobId, job: &Job, doomed: &mut Vec<Doomed>) {
        let Some(all) = self.state.versions.get(id) else { return };
        let stable = all.keys().rev().copied().find(|version| derive::is_stable(self.state, id, *version));
        let in_use: BTreeSet<u64> = self
            .state
            .allocs_of_job(id)
            .filter(|(_, alloc)| !alloc.status().is_terminal())
            .filter_map(|(_, alloc)| alloc.desired.as_ref().map(|desired| desired.value.job_version))
            .collect();
        let surplus = all.len().saturating_sub(VERSIONS_KEPT);
        for (version, stored) in all.iter().take(surplus) {
            let kept = stored.value.version_tag.is_some()
                || in_use.contains(version)
                || stable == Some(*version)
                || *version == job.version;
            if !kept {
                let key = Key::Version(id.clone(), *version);
                doomed.push(Doomed { key, unless_changed_since: Some(stored.modified) });
            }
        }
    }

    fn launches(&self, id: &JobId, doomed: &mut Vec<Doomed>) {
        let Some(all) = self.state.launches.get(id) else { return };
        let mut instants: Vec<(i64, &String)> =
            all.keys().filter_map(|name| Some((name.parse().ok()?, name))).collect();
        instants.sort_unstable();
        let surplus = instants.len().saturating_sub(LAUNCHES_KEPT);
        for (_, name) in instants.into_iter().take(surplus) {
            doomed.push(ours(Key::Launch(id.clone(), name.clone())));
        }
    }

    /// Finished children beyond the number that is kept.
    fn children(&self, doomed: &mut Vec<Doomed>) {
        // Submit time, id and revision of the finished children of each parent.
        let mut by_parent: BTreeMap<JobId, Vec<(i64, JobId, Revision)>> = BTreeMap::new();
        for (id, job) in self.state.all_jobs() {
            if !job.value.parent_id.is_empty() && self.is_dead(id, &job.value) {
                let parent = JobId::new(std::sync::Arc::clone(&id.namespace), job.value.parent_id.as_str());
                by_parent.entry(parent).or_default().push((job.value.submit_time, id.clone(), job.modified));
            }
        }
        for children in by_parent.values_mut() {
            children.sort_by_key(|(time, id, _)| (Reverse(*time), id.clone()));
            for (_, id, modified) in children.iter().skip(self.thresholds.children_per_job) {
                doomed.extend(belongings(self.state, id));
                doomed.push(Doomed { key: Key::Job(id.clone()), unless_changed_since: Some(*modified) });
            }
        }
    }

    /// Nodes that have been down for long and hold nothing.
    fn nodes(&self, doomed: &mut Vec<Doomed>) {
        for (id, node) in &self.state.nodes {
            let Some(status) = &node.status else { continue };
            let down = status.value.status == NodeState::Down && node.live.is_none();
            let since = Time::from_secs(status.value.status_updated_at).0;
            let holds = self.state.allocs_of_node(*id).any(|(_, alloc)| !alloc.status().is_terminal());
            if down && !holds && self.is_old(since, self.thresholds.node) {
                let keys = [Key::NodeInfo(*id), Key::NodeStatus(*id), Key::NodeSpec(*id), Key::Control(*id)];
                doomed.extend(keys.map(ours));
            }
        }
    }
}
