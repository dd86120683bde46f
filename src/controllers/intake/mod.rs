//! Jobs that were written straight to the store: anything may `put` a job at its key. A valid one gets its version
//! and an evaluation; an invalid one is refused in the job's status, and what ran before goes on.

use std::sync::Arc;

use bytes::Bytes;

use crate::jobspec;
use crate::jobspec::Defaults;
use crate::mirror::Dirty;
use crate::mirror::derive::DECLARED_STABLE;
use crate::mirror::derive::REFUSED;
use crate::mirror::derive::missing_homes;
use crate::mirror::state::Stored;
use crate::model::id::EvalId;
use crate::model::id::JobId;
use crate::model::job::Job;
use crate::model::job::JobStatus;
use crate::model::time::Time;
use crate::store::Guard;
use crate::store::ListOptions;
use crate::store::Op;
use crate::store::Range;
use crate::store::key::Key;

use super::Context;
use super::Error;
use super::commit::Committer;
use super::commit::Unit;
use super::job::decide::encode;
use super::job::record;
use super::queue::Queue;
use super::runner::Next;
use super::runner::Reconciler;

/// Reconciles raw values at job keys. One instance per reign.
pub struct IntakeReconciler {
    context: Context,
    committer: Committer,
}

/// A value that waits for a decision, and what stood there before it.
struct View {
    raw: Stored<Bytes>,
    current: Option<Stored<Job>>,
    /// The copy of the current version among the older ones: what users said of it stands there.
    copy: Option<Arc<Job>>,
    status: JobStatus,
}

impl IntakeReconciler {
    /// Starts listening to the mirror; every raw value is dirty at first.
    pub fn new(context: Context, committer: Committer, queue: &Arc<Queue<JobId>>) -> Arc<Self> {
        let weak_queue = Arc::downgrade(queue);
        context.mirror.listen(Box::new(move |state, dirty| {
            let Some(queue) = weak_queue.upgrade() else { return false };
            let is_raw = |job: &JobId| state.jobs.get(job).is_some_and(|entry| entry.raw.is_some());
            match dirty {
                Dirty::All => {
                    state.jobs.keys().filter(|job| is_raw(job)).for_each(|job| queue.add(job.clone()));
                }
                Dirty::Keys(touched) => touched.iter().for_each(|touch| match &touch.key {
                    Key::Job(job) if is_raw(job) => queue.add(job.clone()),
                    // What was refused for want of it may be accepted now.
                    Key::Namespace(_) | Key::Pool(_) => {
                        state.jobs.keys().filter(|job| is_raw(job)).for_each(|job| queue.add(job.clone()));
                    }
                    _ => {}
                }),
            }
            true
        }));
        Arc::new(Self { context, committer })
    }

    fn view(&self, id: &JobId) -> Option<View> {
        let state = self.context.mirror.read();
        let entry = state.jobs.get(id)?;
        let raw = entry.raw.clone()?;
        let status = state.statuses.get(id).map(|status| JobStatus::clone(&status.value)).unwrap_or_default();
        let current = state.job(id);
        let copy = current.as_ref().and_then(|job| state.versions.get(id)?.get(&job.value.version));
        let copy = copy.map(|copy| Arc::clone(&copy.value));
        Some(View { raw, current, copy, status })
    }

    /// What the key held before the raw value, if this server has not seen it itself.
    async fn overwritten(&self, id: &JobId, raw: &Stored<Bytes>) -> Option<Stored<Job>> {
        if raw.created == raw.modified {
            return None;
        }
        let range = Range::Key(self.context.keys.text(&Key::Job(id.clone())));
        let options = ListOptions { at: Some(raw.modified - 1), ..ListOptions::default() };
        // Compacted history only means that nothing can be restored.
        let listing = self.context.store.list(range, options).await.ok()?;
        let item = listing.items.into_iter().next()?;
        let job: Job = serde_json::from_slice(&item.value).ok().filter(Job::is_sealed)?;
        Some(Stored { value: Arc::new(job), created: item.create_revision, modified: item.mod_revision })
    }

    fn refusal(&self, id: &JobId, view: &View, why: String) -> Unit {
        tracing::warn!(job = %id, revision = view.raw.modified, %why, "job refused");
        let status = JobStatus { refused: why, refused_revision: view.raw.modified, ..view.status.clone() };
        let mut ops = vec![Op::put(self.context.keys.text(&Key::Status(id.clone())), encode(&status))];
        // The version that runs must be found again by a server that never saw it at the job's key.
        ops.extend(view.current.as_ref().map(|current| self.older(id, current, view)));
        Unit { guards: vec![self.unchanged(id, view)], ops }
    }

    fn unchanged(&self, id: &JobId, view: &View) -> Guard {
        Guard::ModRevision(self.context.keys.text(&Key::Job(id.clone())), view.raw.modified)
    }

    fn older(&self, id: &JobId, job: &Stored<Job>, view: &View) -> Op {
        let kept = record::kept(job, view.copy.as_deref());
        Op::put(self.context.keys.text(&Key::Version(id.clone(), kept.version)), encode(&kept))
    }

    fn acceptance(&self, id: &JobId, view: &View, mut job: Job, now: Time) -> Unit {
        let keys = &self.context.keys;
        let current = view.current.as_ref().map(|current| &current.value);
        let same = current.filter(|current| current.same_spec(&job) && !current.purge);
        job.version = match (same, current) {
            (Some(same), _) => same.version,
            (None, Some(current)) => current.version + 1,
            (None, None) => 0,
        };
        job.submit_time = same.map_or(now.0, |same| same.submit_time);
        job.seal();
        let evaluation = record::registered(&job, EvalId::from_random(self.context.random.bytes()), now);
        let mut ops = vec![Op::put(keys.text(&Key::Job(id.clone())), encode(&job))];
        if same.is_none() {
            ops.extend(view.current.as_ref().map(|current| self.older(id, current, view)));
        }
        if !job.is_template() {
            ops.push(Op::put(keys.text(&Key::Evaluation(id.clone(), evaluation.id)), encode(&evaluation)));
        }
        if !view.status.refused.is_empty() {
            let status = JobStatus { refused: String::new(), refused_revision: 0, ..view.status.clone() };
            ops.push(Op::put(keys.text(&Key::Status(id.clone())), encode(&status)));
        }
        Unit { guards: vec![self.unchanged(id, view)], ops }
    }

    /// Nothing, when the same value was refused for the same reason before.
    fn decide(&self, id: &JobId, view: &View, now: Time) -> Option<Unit> {
        let told =
            |why: &str| view.status.refused_revision == view.raw.modified && view.status.refused == why;
        let accepted = accept(id, view, &self.defaults()).and_then(|job| {
            let missing = missing_homes(&self.context.mirror.read(), &job);
            if missing.is_empty() { Ok(job) } else { Err(missing.join("; ")) }
        });
        match accepted {
            Ok(job) => Some(self.acceptance(id, view, job, now)),
            Err(why) => (!told(&why)).then(|| self.refusal(id, view, why)),
        }
    }

    fn defaults(&self) -> Defaults {
        let consul = self.context.mirror.read().has_consul();
        Defaults { region: self.context.settings.region.clone(), consul, ..Defaults::default() }
    }
}

/// Reads and checks a raw value. Pure.
fn accept(id: &JobId, view: &View, defaults: &Defaults) -> Result<Job, String> {
    let mut job = jobspec::decode_json(&view.raw.value).map_err(|error| format!("not a job: {error}"))?;
    for (field, own, wanted) in
        [("ID", &mut job.id, &id.id), ("Namespace", &mut job.namespace, &id.namespace)]
    {
        if own.is_empty() {
            wanted.as_ref().clone_into(own);
        } else if **own != **wanted {
            return Err(format!("{field} {own:?} does not match the key, which says {wanted:?}"));
        }
    }
    job.purge = false;
    job.unknown.remove(DECLARED_STABLE);
    job.unknown.remove(REFUSED);
    job.status = String::new();
    job.status_description = String::new();
    jobspec::canonicalize(&mut job, defaults);
    let validation = jobspec::validate(&job);
    if let Some(text) = validation.error_text() {
        return Err(text);
    }
    if let Some(current) = view.current.as_ref().filter(|current| !current.value.purge) {
        jobspec::check_update(&current.value, &job)?;
    }
    Ok(job)
}

impl Reconciler for IntakeReconciler {
    type Key = JobId;
    const NAME: &'static str = "intake";

    async fn reconcile(&self, id: &JobId) -> Result<Next, Error> {
        let Some(mut view) = self.view(id) else { return Ok(Next::WhenChanged) };
        if view.current.is_none() {
            view.current = self.overwritten(id, &view.raw).await;
        }
        if let Some(unit) = self.decide(id, &view, self.context.clock.now()) {
            self.committer.commit(unit).await?;
        }
        Ok(Next::WhenChanged)
    }

    fn now(&self) -> Time {
        self.context.clock.now()
    }
}
