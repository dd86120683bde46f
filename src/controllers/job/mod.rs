//! Jobs: the right number of allocations of the right version on the right nodes.

pub mod decide;
pub mod dry_run;
pub mod plan;
pub mod record;
pub mod reschedule;
pub mod rollout;
pub mod view;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::mirror::Dirty;
use crate::mirror::state::NodeEntry;
use crate::mirror::state::State;
use crate::model::allocation::client_status;
use crate::model::evaluation::EvalStatus;
use crate::model::id::AllocId;
use crate::model::id::JobId;
use crate::model::id::NodeId;
use crate::model::job::Job;
use crate::model::time::Time;
use crate::scheduler;
use crate::scheduler::AllocFacts;
use crate::scheduler::Cluster;
use crate::scheduler::NodeFacts;
use crate::store::key::Key;

use super::Context;
use super::Error;
use super::commit::Committer;
use super::queue::Queue;
use super::runner::Next;
use super::runner::Reconciler;

use self::decide::Pass;
use self::decide::Settings;
use self::view::View;

/// Blocked jobs look again at most this often while capacity changes.
const BLOCKED_PAUSE: Duration = Duration::from_millis(100);

/// Reconciles jobs. One instance per reign.
pub struct JobReconciler {
    context: Context,
    committer: Committer,
    placement: Arc<Placing>,
}

/// The scheduler's picture of the cluster: what the mirror shows, and placements on their way.
#[derive(Default)]
struct Placing {
    cluster: Mutex<Cluster>,
    /// Jobs with a blocked evaluation, and those that want to be on every node.
    blocked: Mutex<BTreeSet<JobId>>,
}

impl JobReconciler {
    /// Starts listening to the mirror; everything is dirty at first.
    pub fn new(context: Context, committer: Committer, queue: &Arc<Queue<JobId>>) -> Arc<Self> {
        let placement = Arc::new(Placing::default());
        let listening = Arc::downgrade(&placement);
        let weak_queue = Arc::downgrade(queue);
        context.mirror.listen(Box::new(move |state, dirty| {
            let (Some(placing), Some(queue)) = (listening.upgrade(), weak_queue.upgrade()) else {
                return false;
            };
            placing.follow(state, dirty, &queue);
            true
        }));
        Arc::new(Self { context, committer, placement })
    }

    fn decide(&self, job: &JobId) -> Pass {
        let (view, settings) = {
            let state = self.context.mirror.read();
            (View::of(&state, job), settings_of(&state))
        };
        let mut ids = || self.context.random.bytes();
        let mut cluster = self.placement.cluster.lock();
        decide::decide(&view, &mut cluster, &self.context.keys, self.context.clock.now(), &mut ids, settings)
    }

    async fn commit(&self, pass: &mut Pass) -> Result<(), Error> {
        if let Some(head) = pass.head.take() {
            self.committer.commit(head).await?;
        }
        if !pass.body.is_empty() {
            self.committer.commit_all(std::mem::take(&mut pass.body)).await?;
        }
        if let Some(tail) = pass.tail.take() {
            self.committer.commit(tail).await?;
        }
        if let Some(revert) = pass.revert.take() {
            match self.committer.commit(revert).await {
                // The user wrote a newer version in the meantime: theirs counts.
                Err(Error::Conflict) => {}
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// Placements that did not become durable must not go on holding room.
    fn forget(&self, assumed: &[AllocId]) {
        let state = self.context.mirror.read();
        let mut cluster = self.placement.cluster.lock();
        for id in assumed.iter().filter(|id| !state.allocs.contains_key(id)) {
            cluster.forget_alloc(*id);
        }
    }
}

impl Reconciler for JobReconciler {
    type Key = JobId;
    const NAME: &'static str = "job";

    async fn reconcile(&self, job: &JobId) -> Result<Next, Error> {
        let mut pass = self.decide(job);
        let next = pass.next.map_or(Next::WhenChanged, Next::At);
        if pass.is_empty() {
            return Ok(next);
        }
        let committed = self.commit(&mut pass).await;
        if committed.is_err() {
            self.forget(&pass.assumed);
        }
        committed.map(|()| next)
    }

    fn now(&self) -> Time {
        self.context.clock.now()
    }
}

/// The scheduler configuration that operators may set.
pub fn settings_of(state: &State) -> Settings {
    let config = state.configs.get("scheduler").map(|config| &config.value);
    let text = config.and_then(|config| config.get("SchedulerAlgorithm")?.as_str());
    let flag = config.and_then(|config| config.get("MemoryOversubscriptionEnabled")?.as_bool());
    Settings {
        algorithm: if text == Some("spread") {
            scheduler::Algorithm::Spread
        } else {
            scheduler::Algorithm::Binpack
        },
        memory_oversubscription: flag.unwrap_or(false),
    }
}

/// A cluster model of everything in a state; what `job plan` tries its placements on.
pub fn cluster_of(state: &State) -> Cluster {
    let mut cluster = Cluster::default();
    fill(&mut cluster, state);
    cluster
}

fn fill(cluster: &mut Cluster, state: &State) {
    for (id, entry) in &state.nodes {
        set_node(cluster, *id, entry);
    }
    for id in state.allocs.keys() {
        set_alloc(cluster, state, *id);
    }
}

fn set_node(cluster: &mut Cluster, id: NodeId, entry: &NodeEntry) {
    match &entry.info {
        None => cluster.remove_node(id),
        Some(info) => cluster.set_node(
            id,
            NodeFacts {
                info: Arc::clone(&info.value),
                meta: entry.spec.as_ref().map(|spec| spec.value.meta.clone()).unwrap_or_default(),
                ready: entry.is_schedulable(),
            },
        ),
    }
}

fn set_alloc(cluster: &mut Cluster, state: &State, id: AllocId) {
    let desired = state.allocs.get(&id).and_then(|entry| Some((entry, entry.desired.as_ref()?)));
    let Some((entry, desired)) = desired else { return cluster.forget_alloc(id) };
    let alloc = &desired.value;
    let report = entry.report.as_ref().map(|report| &*report.value);
    let job = alloc.job();
    let version = state.job_version(&job, alloc.job_version);
    cluster.set_alloc(&AllocFacts {
        id,
        node: alloc.node_id,
        job: &job,
        group: &alloc.task_group,
        tasks: version.as_ref().and_then(|version| version.value.group(&alloc.task_group)),
        resources: &alloc.resources,
        previous: alloc.previous,
        holding: !client_status(alloc, report).is_terminal(),
        stopping: !alloc.is_wanted(),
    });
}

impl Placing {
    /// Follows the mirror: keeps the cluster exact and marks jobs that may have something to do.
    fn follow(&self, state: &State, dirty: Dirty<'_>, queue: &Queue<JobId>) {
        let mut cluster = self.cluster.lock();
        let mut blocked = self.blocked.lock();
        let touched = match dirty {
            Dirty::All => {
                *cluster = Cluster::default();
                fill(&mut cluster, state);
                *blocked = state.jobs.keys().filter(|job| waits_for_capacity(state, job)).cloned().collect();
                let jobs: BTreeSet<&JobId> = state
                    .jobs
                    .keys()
                    .chain(state.job_allocs.keys())
                    .chain(state.evaluations.keys())
                    .collect();
                jobs.into_iter().for_each(|job| queue.add(job.clone()));
                return;
            }
            Dirty::Keys(touched) => touched,
        };
        let mut capacity_changed = false;
        for touch in touched {
            match &touch.key {
                Key::Alloc(_, alloc) | Key::AllocReport(_, alloc) => {
                    capacity_changed |= cluster.has_alloc(*alloc);
                    set_alloc(&mut cluster, state, *alloc);
                    capacity_changed &= !cluster.has_alloc(*alloc);
                }
                Key::NodeInfo(node) | Key::NodeSpec(node) | Key::NodeStatus(node) | Key::NodeLive(node) => {
                    let entry = state.nodes.get(node).cloned().unwrap_or_default();
                    set_node(&mut cluster, *node, &entry);
                    capacity_changed |= entry.is_schedulable() && !matches!(touch.key, Key::NodeLive(_));
                    // Node status and drain decide about the work that is there.
                    if matches!(touch.key, Key::NodeStatus(_) | Key::NodeSpec(_)) {
                        for (_, alloc) in state.allocs_of_node(*node) {
                            alloc.desired.iter().for_each(|desired| queue.add(desired.value.job()));
                        }
                    }
                }
                Key::Config(_) => capacity_changed = true,
                Key::Job(job) | Key::Evaluation(job, _) => {
                    if waits_for_capacity(state, job) {
                        blocked.insert(job.clone());
                    } else {
                        blocked.remove(job);
                    }
                }
                _ => {}
            }
            let concerns_jobs = matches!(
                touch.key,
                Key::Job(_)
                    | Key::Intent(..)
                    | Key::Deployment(..)
                    | Key::Evaluation(..)
                    | Key::Alloc(..)
                    | Key::AllocReport(..)
            );
            if let (true, Some(job)) = (concerns_jobs, &touch.job) {
                queue.add(job.clone());
            }
        }
        if capacity_changed {
            blocked.iter().for_each(|job| queue.add_after(job.clone(), BLOCKED_PAUSE));
        }
    }
}

/// New capacity may give this job something to do.
fn waits_for_capacity(state: &State, job: &JobId) -> bool {
    let everywhere = |job: &Job| job.job_type().is_on_every_node() && !job.stop && !job.is_template();
    has_blocked(state, job) || state.job(job).is_some_and(|job| everywhere(&job.value))
}

fn has_blocked(state: &State, job: &JobId) -> bool {
    let evaluations = state.evaluations.get(job).into_iter().flat_map(|evaluations| evaluations.values());
    evaluations.into_iter().any(|evaluation| evaluation.value.status == EvalStatus::Blocked)
}
