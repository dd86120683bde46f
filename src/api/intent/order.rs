//! Orders about running things: allocations, deployments and nodes. Controllers carry them out.

use serde_json::Value;
use serde_json::json;

use super::ATTEMPTS;
use super::Committed;
use super::Written;
use super::commit;
use super::evaluation;
use super::put;
use super::put_evaluation;
use super::too_busy;
use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::views::node::LAST_DRAIN;
use crate::mirror::derive::alloc_health;
use crate::mirror::derive::health_intent;
use crate::mirror::derive::stop_intent;
use crate::mirror::state::State;
use crate::mirror::state::Stored;
use crate::model::deployment::Deployment;
use crate::model::evaluation::Evaluation;
use crate::model::evaluation::trigger;
use crate::model::id::AllocId;
use crate::model::id::DeploymentId;
use crate::model::id::EvalId;
use crate::model::id::JobId;
use crate::model::id::NodeId;
use crate::model::job::Job;
use crate::model::multierror::multierror;
use crate::model::node::DrainStrategy;
use crate::model::node::Eligibility;
use crate::model::node::NodeSpec;
use crate::model::time::Span;
use crate::model::time::Time;
use crate::store::Guard;
use crate::store::Op;
use crate::store::Range;
use crate::store::Revision;
use crate::store::Txn;
use crate::store::key::Key;

/// Evaluations written in one transaction when many jobs are concerned.
const EVALUATIONS_PER_TXN: usize = 64;

/// An evaluation of a job about which something is ordered; the job may be gone, what it left behind is not.
fn eval_for(api: &Api, state: &State, id: &JobId, trigger: &str) -> Evaluation {
    let stand_in = || Job {
        namespace: id.namespace.to_string(),
        id: id.id.to_string(),
        kind: "service".to_owned(),
        priority: 50,
        ..Job::default()
    };
    match state.job(id) {
        Some(job) => evaluation(api, &job.value, trigger, 0),
        None => evaluation(api, &stand_in(), trigger, 0),
    }
}

/// Orders one allocation to be stopped and replaced.
///
/// # Errors
/// When it is unknown.
pub async fn stop_allocation(api: &Api, id: AllocId, no_shutdown_delay: bool) -> Result<Written, ApiError> {
    api.catch_up().await?;
    let (job, eval) = {
        let state = api.context.mirror.read();
        let desired = state.allocs.get(&id).and_then(|entry| entry.desired.as_ref());
        let desired = desired.ok_or_else(|| ApiError::not_found("allocation not found"))?;
        let job = desired.value.job();
        let eval = eval_for(api, &state, &job, trigger::ALLOC_STOP);
        (job, eval)
    };
    let order = json!({"EvalID": eval.id, "NoShutdownDelay": no_shutdown_delay});
    let txn = Txn::default()
        .and_then(put(api, &Key::Intent(job, stop_intent(id)), &order)?)
        .and_then(put_evaluation(api, &eval)?);
    match commit(api, txn).await? {
        Committed::At(revision) => {
            Ok(Written { eval: Some(eval.id), eval_index: revision, index: revision, ..Written::default() })
        }
        Committed::Conflict => Err(too_busy(format_args!("allocation {id}"))),
    }
}

/// What a user orders about a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeploymentOrder {
    Fail,
    Pause,
    Resume,
    /// Absent: all groups.
    Promote(Option<Vec<String>>),
    SetHealth {
        healthy: Vec<AllocId>,
        unhealthy: Vec<AllocId>,
    },
}

impl DeploymentOrder {
    fn verb(&self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Promote(_) => "promote",
            Self::SetHealth { .. } => "set health of allocations for a",
        }
    }

    /// Name of the intent, and the intents that it takes back.
    fn names(&self, id: DeploymentId) -> (String, Vec<String>) {
        let name = |word: &str| format!("deployment/{id}/{word}");
        match self {
            Self::Fail => (name("fail"), vec![]),
            Self::Pause => (name("pause"), vec![name("resume")]),
            Self::Resume => (name("resume"), vec![name("pause")]),
            Self::Promote(_) => (name("promote"), vec![]),
            Self::SetHealth { .. } => (health_intent(id), vec![]),
        }
    }
}

/// What became of an order about a deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ordered {
    pub eval: Option<EvalId>,
    pub index: Revision,
    /// The version that failing the deployment goes back to.
    pub reverted_version: Option<u64>,
}

/// Writes an order about a deployment.
///
/// # Errors
/// With Nomad's texts when the deployment is unknown or finished, or the order does not fit it.
pub async fn order(api: &Api, id: DeploymentId, order: &DeploymentOrder) -> Result<Ordered, ApiError> {
    for _ in 0..ATTEMPTS {
        api.catch_up().await?;
        let (deployment, eval, value, seen, reverted_version) = {
            let state = api.context.mirror.read();
            let found = state.deployment(id).ok_or_else(|| ApiError::internal("deployment not found"))?;
            if !found.value.status.is_active() {
                return Err(ApiError::internal(format!("can't {} terminal deployment", order.verb())));
            }
            check_order(&state, &found.value, order)?;
            let job = found.value.job();
            let eval = eval_for(api, &state, &job, trigger::DEPLOYMENT_WATCHER);
            let earlier = state.intents.get(&job).and_then(|intents| intents.get(&order.names(id).0));
            let value = merged(order, earlier.map(|intent| &*intent.value), &eval);
            let seen = earlier.map_or(0, |intent| intent.modified);
            (found.clone(), eval, value, seen, reverts_to(&state, &found.value, order))
        };
        let job = deployment.value.job();
        let keys = &api.context.keys;
        let (name, taken_back) = order.names(id);
        let guards = [
            Guard::ModRevision(keys.text(&Key::Intent(job.clone(), name.clone())), seen),
            Guard::ModRevision(keys.text(&Key::Deployment(job.clone(), id)), deployment.modified),
        ];
        let mut txn = Txn::when(guards).and_then(put(api, &Key::Intent(job.clone(), name), &value)?);
        for name in taken_back {
            txn = txn.and_then(Op::delete(keys.text(&Key::Intent(job.clone(), name))));
        }
        // Nothing has to be planned because of a pause, but somebody must carry the order out all the same.
        txn = txn.and_then(put_evaluation(api, &eval)?);
        if let Committed::At(index) = commit(api, txn).await? {
            return Ok(Ordered { eval: Some(eval.id), index, reverted_version });
        }
    }
    Err(too_busy(format_args!("deployment {id}")))
}

fn check_order(state: &State, deployment: &Deployment, order: &DeploymentOrder) -> Result<(), ApiError> {
    match order {
        DeploymentOrder::Promote(groups) => {
            let is_meant = |name: &String| groups.as_ref().is_none_or(|groups| groups.contains(name));
            let mut problems = Vec::new();
            let rollouts = deployment.task_groups.iter();
            for (name, rollout) in
                rollouts.filter(|(name, rollout)| rollout.desired_canaries > 0 && is_meant(name))
            {
                let is_healthy = |id: &&AllocId| {
                    let entry = state.allocs.get(id);
                    entry.is_some_and(|entry| {
                        !entry.status().is_terminal() && alloc_health(state, entry) == Some(true)
                    })
                };
                let healthy = rollout.placed_canaries.iter().filter(is_healthy).count() as u64;
                if healthy < rollout.desired_canaries && !rollout.promoted {
                    let wanted = rollout.desired_canaries;
                    problems.push(format!("Task group {name:?} has {healthy}/{wanted} healthy allocations"));
                }
            }
            if problems.is_empty() { Ok(()) } else { Err(ApiError::internal(multierror(&problems))) }
        }
        DeploymentOrder::SetHealth { healthy, unhealthy } => {
            if healthy.is_empty() && unhealthy.is_empty() {
                return Err(ApiError::internal("must specify at least one healthy/unhealthy allocation ID"));
            }
            let unknown = healthy.iter().chain(unhealthy).find(|id| !state.allocs.contains_key(id));
            unknown.map_or(Ok(()), |id| Err(ApiError::internal(format!("unknown alloc \"{id}\""))))
        }
        _ => Ok(()),
    }
}

/// The value of an intent: the order, together with what was ordered before and not carried out yet.
fn merged(order: &DeploymentOrder, earlier: Option<&Value>, eval: &Evaluation) -> Value {
    let list = |key: &str| -> Vec<String> {
        let texts = earlier.and_then(|earlier| earlier.get(key)?.as_array());
        texts.into_iter().flatten().filter_map(|text| text.as_str().map(String::from)).collect()
    };
    match order {
        DeploymentOrder::Fail | DeploymentOrder::Pause | DeploymentOrder::Resume => {
            json!({"EvalID": eval.id})
        }
        DeploymentOrder::Promote(groups) => {
            let all = groups.is_none() || earlier.and_then(|e| e.get("All")?.as_bool()).unwrap_or(false);
            let mut names = list("Groups");
            names.extend(groups.iter().flatten().cloned());
            names.sort();
            names.dedup();
            json!({"EvalID": eval.id, "All": all, "Groups": names})
        }
        DeploymentOrder::SetHealth { healthy, unhealthy } => {
            // The last word about an allocation counts.
            let update = |key: &str, more: &[AllocId], less: &[AllocId]| {
                let less: Vec<String> = less.iter().map(ToString::to_string).collect();
                let mut ids = list(key);
                ids.extend(more.iter().map(ToString::to_string));
                ids.retain(|id| !less.contains(id));
                ids.sort();
                ids.dedup();
                ids
            };
            json!({
                "EvalID": eval.id,
                "Healthy": update("Healthy", healthy, unhealthy),
                "Unhealthy": update("Unhealthy", unhealthy, healthy),
            })
        }
    }
}

/// The version that a failed deployment will be replaced by, as far as can be told now.
fn reverts_to(state: &State, deployment: &Deployment, order: &DeploymentOrder) -> Option<u64> {
    let reverts = deployment.task_groups.values().any(|group| group.auto_revert);
    if *order != DeploymentOrder::Fail || !reverts {
        return None;
    }
    let id = deployment.job();
    let current = state.job(&id)?;
    let versions = state.versions.get(&id)?;
    let stable = versions.iter().rev().find(|(version, job)| {
        **version < current.value.version
            && !job.value.stop
            && crate::mirror::derive::is_stable(state, &id, **version)
    })?;
    (!stable.1.value.same_spec(&current.value)).then_some(*stable.0)
}

/// Changes what operators say of a node; `change` returns false if there is nothing to change. Returns the revision,
/// 0 if nothing was written.
async fn change_node(
    api: &Api,
    id: NodeId,
    change: impl Fn(&mut NodeSpec, Time) -> Result<bool, ApiError>,
) -> Result<Revision, ApiError> {
    let key = Key::NodeSpec(id);
    let text = api.context.keys.text(&key);
    api.catch_up().await?;
    if api.context.mirror.read().nodes.get(&id).is_none_or(|node| node.info.is_none()) {
        return Err(ApiError::internal("node not found"));
    }
    for _ in 0..ATTEMPTS {
        let (_, item) = api.context.store.get(&text).await?;
        let seen = item.as_ref().map_or(0, |item| item.mod_revision);
        let mut spec: NodeSpec =
            item.and_then(|item| serde_json::from_slice(&item.value).ok()).unwrap_or_default();
        if !change(&mut spec, api.now())? {
            return Ok(0);
        }
        let txn = Txn::when([Guard::ModRevision(text.clone(), seen)]).and_then(put(api, &key, &spec)?);
        if let Committed::At(revision) = commit(api, txn).await? {
            return Ok(revision);
        }
    }
    Err(too_busy(format_args!("node {id}")))
}

/// Lets new work come to a node, or not.
///
/// # Errors
/// When the node is unknown, or draining and shall become eligible.
pub async fn set_eligibility(api: &Api, id: NodeId, eligibility: Eligibility) -> Result<Revision, ApiError> {
    change_node(api, id, |spec, _| {
        if eligibility == Eligibility::Eligible && spec.drain_strategy.is_some() {
            return Err(ApiError::internal(
                "can not set node's scheduling eligibility to eligible while it is draining",
            ));
        }
        let changed = spec.scheduling_eligibility != eligibility;
        spec.scheduling_eligibility = eligibility;
        Ok(changed)
    })
    .await
}

/// A drain as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Negative: at once; zero: without end.
    pub deadline: Span,
    pub ignore_system_jobs: bool,
}

/// Starts, changes or ends a drain.
///
/// # Errors
/// When the node is unknown.
pub async fn drain(
    api: &Api,
    id: NodeId,
    drain: Option<&Drain>,
    mark_eligible: bool,
    meta: &Value,
) -> Result<Revision, ApiError> {
    change_node(api, id, |spec, now| {
        let was_draining = spec.drain_strategy.is_some();
        let started = spec.drain_strategy.as_ref().map_or(now, |strategy| strategy.started_at);
        let record = |status: &str| {
            json!({
                "StartedAt": started, "UpdatedAt": now, "Status": status, "AccessorID": "", "Meta": meta,
            })
        };
        match drain {
            Some(drain) => {
                spec.drain_strategy = Some(DrainStrategy {
                    deadline: drain.deadline,
                    ignore_system_jobs: drain.ignore_system_jobs,
                    force_deadline: match drain.deadline {
                        Span::ZERO => Time::NEVER,
                        // Negative means at once.
                        deadline => now + deadline.max(Span::ZERO),
                    },
                    started_at: started,
                });
                spec.scheduling_eligibility = Eligibility::Ineligible;
                spec.unknown.insert(LAST_DRAIN.to_owned(), record("draining"));
            }
            None => {
                if was_draining {
                    spec.unknown.insert(LAST_DRAIN.to_owned(), record("canceled"));
                }
                spec.drain_strategy = None;
                if mark_eligible {
                    spec.scheduling_eligibility = Eligibility::Eligible;
                }
            }
        }
        Ok(true)
    })
    .await
}

/// Sets or removes metadata of a node on top of what its agent reports; `None` removes a key.
///
/// # Errors
/// When the node is unknown.
pub async fn set_meta(
    api: &Api,
    id: NodeId,
    meta: &std::collections::BTreeMap<String, Option<String>>,
) -> Result<Revision, ApiError> {
    change_node(api, id, |spec, _| {
        spec.meta.extend(meta.clone());
        Ok(true)
    })
    .await
}

/// Forgets a node. A living agent registers anew; the jobs of a dead one find other nodes.
///
/// # Errors
/// When the node is unknown.
pub async fn purge_node(api: &Api, id: NodeId) -> Result<(Revision, Vec<EvalId>), ApiError> {
    let (_, evals) = evaluate_node(api, id).await?;
    let keys = &api.context.keys;
    let doomed = [Key::NodeSpec(id), Key::NodeStatus(id), Key::NodeInfo(id)];
    let mut txn = Txn::default();
    for key in doomed {
        txn = txn.and_then(Op::Delete(Range::Key(keys.text(&key))));
    }
    match commit(api, txn).await? {
        Committed::At(revision) => Ok((revision, evals)),
        Committed::Conflict => Err(too_busy(format_args!("node {id}"))),
    }
}

/// Asks for an evaluation of every job that has something on the node.
///
/// # Errors
/// When the node is unknown.
pub async fn evaluate_node(api: &Api, id: NodeId) -> Result<(Revision, Vec<EvalId>), ApiError> {
    api.catch_up().await?;
    let evals: Vec<Evaluation> = {
        let state = api.context.mirror.read();
        if state.nodes.get(&id).is_none_or(|node| node.info.is_none()) {
            return Err(ApiError::internal("node not found"));
        }
        let jobs: std::collections::BTreeSet<JobId> = state
            .allocs_of_node(id)
            .filter_map(|(_, entry)| entry.desired.as_ref())
            .filter(|desired: &&Stored<_>| desired.value.is_wanted())
            .map(|desired| desired.value.job())
            .collect();
        let eval = |job: &JobId| Evaluation {
            node_id: Some(id),
            ..eval_for(api, &state, job, trigger::NODE_UPDATE)
        };
        jobs.iter().map(eval).collect()
    };
    let mut index = 0;
    for some in evals.chunks(EVALUATIONS_PER_TXN) {
        let mut txn = Txn::default();
        for eval in some {
            txn = txn.and_then(put_evaluation(api, eval)?);
        }
        if let Committed::At(revision) = commit(api, txn).await? {
            index = revision;
        }
    }
    Ok((index, evals.into_iter().map(|eval| eval.id).collect()))
}
