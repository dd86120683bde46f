//! Tokens for tasks that want them: signed here, laid down beside the allocation for its agent to fetch, and renewed
//! in time. The private key never leaves the servers.

pub mod signer;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::mirror::Dirty;
use crate::mirror::state::State;
use crate::mirror::state::Stored;
use crate::model::allocation::Allocation;
use crate::model::id::AllocId;
use crate::model::id::JobId;
use crate::model::identity;
use crate::model::identity::Claims;
use crate::model::identity::SigningKey;
use crate::model::identity::Token;
use crate::model::identity::Tokens;
use crate::model::job::Job;
use crate::model::task::WorkloadIdentity;
use crate::model::time::Span;
use crate::model::time::Time;
use crate::store::Guard;
use crate::store::Op;
use crate::store::key::Key;

use self::signer::SignError;
use self::signer::Signer;

use super::Context;
use super::Error;
use super::commit::Committer;
use super::commit::Unit;
use super::job::decide::encode;
use super::queue::Queue;
use super::runner::Next;
use super::runner::Reconciler;

/// Allocations whose tokens are signed before the next commit: a signature takes about a millisecond, and other
/// controllers wait meanwhile.
const SIGNED_AT_ONCE: usize = 16;
/// Pause after a failure that has nothing to do with the store.
const RETRY: Duration = Duration::from_secs(10);

/// Reconciles the tokens of a job's allocations. One instance per reign.
pub struct IdentityReconciler {
    context: Context,
    committer: Committer,
    /// The newest key, once it was needed.
    signer: Mutex<Option<Arc<Signer>>>,
}

/// An allocation whose tokens are missing or due.
#[derive(Clone, Debug)]
struct Due {
    allocation: Stored<Allocation>,
    job: Arc<Job>,
    /// What it has.
    tokens: Arc<Tokens>,
}

/// What is to be done for a job.
#[derive(Debug, Default)]
struct Work {
    due: Vec<Due>,
    /// The next renewal.
    next: Option<Time>,
}

fn wants_tokens(job: &Job) -> bool {
    let mut tasks = job.task_groups.iter().flat_map(|group| &group.tasks);
    tasks.any(|task| identity::wanted(task).next().is_some())
}

/// Whether a token has to be made. Pure.
fn is_due(token: Option<&Token>, now: Time) -> bool {
    token.is_none_or(|token| token.renewal().is_some_and(|renewal| renewal <= now))
}

/// The tokens of an allocation, each kept unless it is due. Pure but for `sign`.
fn renewed(
    due: &Due,
    now: Time,
    mut sign: impl FnMut(&str, &WorkloadIdentity, Time) -> Result<String, SignError>,
) -> Result<Tokens, SignError> {
    let mut tokens = Tokens::default();
    let group = due.job.group(&due.allocation.value.task_group);
    for task in group.map(|group| &group.tasks[..]).unwrap_or_default() {
        for wanted in identity::wanted(task) {
            let token = match due.tokens.get(&task.name, &wanted.name) {
                Some(token) if !is_due(Some(token), now) => token.clone(),
                _ => {
                    let expires = if wanted.ttl > Span::ZERO { now + wanted.ttl } else { Time::NEVER };
                    Token { jwt: sign(&task.name, wanted, expires)?, issued: now, expires }
                }
            };
            tokens.tasks.entry(task.name.clone()).or_default().insert(wanted.name.clone(), token);
        }
    }
    Ok(tokens)
}

/// Looks at every allocation of a job that may still run. Pure.
fn look(state: &State, id: &JobId, now: Time) -> Work {
    let mut work = Work::default();
    for (alloc, entry) in state.allocs_of_job(id) {
        let Some(allocation) = &entry.desired else { continue };
        if entry.status().is_terminal() || !allocation.value.is_wanted() {
            continue;
        }
        let Some(job) = state.job_version(id, allocation.value.job_version) else { continue };
        let tokens =
            state.tokens.get(&alloc).map(|(_, tokens)| Arc::clone(&tokens.value)).unwrap_or_default();
        let tasks =
            job.value.group(&allocation.value.task_group).map(|group| &group.tasks[..]).unwrap_or_default();
        let mut wanted =
            tasks.iter().flat_map(|task| identity::wanted(task).map(|one| (&task.name, &one.name)));
        if wanted.any(|(task, name)| is_due(tokens.get(task, name), now)) {
            work.due.push(Due { allocation: allocation.clone(), job: Arc::clone(&job.value), tokens });
        } else {
            work.next = [work.next, tokens.renewal()].into_iter().flatten().min();
        }
    }
    work
}

/// Without a key nothing can be signed.
fn unsigned<T>(error: &SignError) -> Option<T> {
    tracing::error!(%error, "no identities can be signed");
    None
}

impl IdentityReconciler {
    /// Starts listening to the mirror; every job is dirty at first.
    pub fn new(context: Context, committer: Committer, queue: &Arc<Queue<JobId>>) -> Arc<Self> {
        let weak_queue = Arc::downgrade(queue);
        context.mirror.listen(Box::new(move |state, dirty| {
            let Some(queue) = weak_queue.upgrade() else { return false };
            match dirty {
                // Older versions may run whose job does not want tokens any more: those are renewed, too.
                Dirty::All => {
                    let wanting = state
                        .all_jobs()
                        .filter(|(_, job)| wants_tokens(&job.value))
                        .map(|(id, _)| id.clone());
                    let having = state.tokens.keys().filter_map(|alloc| state.job_of_alloc(*alloc));
                    wanting.chain(having).for_each(|job| queue.add(job));
                }
                Dirty::Keys(touched) => touched.iter().for_each(|touch| {
                    let Some(job) = &touch.job else { return };
                    let concerns = match &touch.key {
                        Key::AllocTokens(..) => true,
                        Key::Alloc(..) => state.job(job).is_some_and(|job| wants_tokens(&job.value)),
                        _ => false,
                    };
                    if concerns {
                        queue.add(job.clone());
                    }
                }),
            }
            true
        }));
        Arc::new(Self { context, committer, signer: Mutex::new(None) })
    }

    /// The newest key, or a new one if the cluster has none.
    async fn signer(&self) -> Result<Option<Arc<Signer>>, Error> {
        let mut signer = self.signer.lock().await;
        let newest = {
            let state = self.context.mirror.read();
            state.keyring.values().max_by_key(|key| (key.value.create_time, key.created)).cloned()
        };
        if let Some(known) = &*signer
            && newest.as_ref().is_none_or(|newest| newest.value.id == known.id())
        {
            return Ok(Some(Arc::clone(known)));
        }
        let key = match newest {
            Some(key) => Arc::clone(&key.value),
            None => match self.make_key().await? {
                Some(key) => Arc::new(key),
                None => return Ok(None),
            },
        };
        match Signer::new(&key) {
            Ok(new) => *signer = Some(Arc::new(new)),
            Err(error) => return Ok(unsigned(&error)),
        }
        Ok(signer.clone())
    }

    async fn make_key(&self) -> Result<Option<SigningKey>, Error> {
        let id = uuid::Builder::from_random_bytes(self.context.random.bytes()).into_uuid().to_string();
        let now = self.context.clock.now();
        let made = tokio::task::spawn_blocking(move || signer::generate(id, now)).await;
        let key = match made.map_err(|error| SignError::Make(error.to_string())).flatten() {
            Ok(key) => key,
            Err(error) => return Ok(unsigned(&error)),
        };
        let text = self.context.keys.text(&Key::Keyring(key.id.clone()));
        let unit =
            Unit { guards: vec![Guard::absent(text.as_str())], ops: vec![Op::put(text, encode(&key))] };
        self.committer.commit(unit).await?;
        tracing::info!(key = %key.id, "made the cluster's key for the identities of tasks");
        Ok(Some(key))
    }

    fn unit(&self, due: &Due, signer: &Signer, now: Time) -> Result<Unit, SignError> {
        let Context { keys, settings, random, .. } = &self.context;
        let allocation = &due.allocation.value;
        let tokens = renewed(due, now, |task, wanted, expires| {
            let id = uuid::Builder::from_random_bytes(random.bytes()).into_uuid().to_string();
            let claims = Claims {
                region: &settings.region,
                issuer: &settings.oidc_issuer,
                job: &due.job,
                allocation,
                task,
                identity: wanted,
                id: &id,
                issued: now,
                expires,
            };
            signer.sign(&claims.to_json())
        })?;
        let (node, alloc): (_, AllocId) = (allocation.node_id, allocation.id);
        // Beside an allocation only: with it they are deleted.
        let guard = Guard::ModRevision(keys.text(&Key::Alloc(node, alloc)), due.allocation.modified);
        let put = Op::put(keys.text(&Key::AllocTokens(node, alloc)), encode(&tokens));
        Ok(Unit { guards: vec![guard], ops: vec![put] })
    }
}

impl Reconciler for IdentityReconciler {
    type Key = JobId;
    const NAME: &'static str = "identity";

    async fn reconcile(&self, id: &JobId) -> Result<Next, Error> {
        let now = self.context.clock.now();
        let work = look(&self.context.mirror.read(), id, now);
        if !work.due.is_empty() {
            // Whoever mends the key does not touch the job: look again.
            let Some(signer) = self.signer().await? else { return Ok(Next::After(RETRY)) };
            for chunk in work.due.chunks(SIGNED_AT_ONCE) {
                let units: Result<Vec<Unit>, SignError> =
                    chunk.iter().map(|due| self.unit(due, &signer, now)).collect();
                match units {
                    Ok(units) => match self.committer.commit_all(units).await {
                        // The allocation has changed: it is looked at again for that.
                        Ok(()) | Err(Error::Conflict) => {}
                        Err(error) => return Err(error),
                    },
                    Err(error) => {
                        tracing::error!(job = %id, %error, "identities are not signed");
                        return Ok(Next::After(RETRY));
                    }
                }
            }
        }
        Ok(work.next.map_or(Next::WhenChanged, Next::At))
    }

    fn now(&self) -> Time {
        self.context.clock.now()
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::clock::TokioClock;
    use crate::controllers::Random;
    use crate::controllers::Settings;
    use crate::controllers::commit::Fence;
    use crate::mirror::Mirror;
    use crate::mirror::watcher;
    use crate::model::group::TaskGroup;
    use crate::model::id::NodeId;
    use crate::model::task::Task;
    use crate::store::SharedStore;
    use crate::store::Store;
    use crate::store::Txn;
    use crate::store::embedded::EmbeddedStore;
    use crate::store::key::Keys;

    fn at(secs: i64) -> Time {
        Time::from_secs(1_700_000_000 + secs)
    }

    fn due(identities: Vec<WorkloadIdentity>, tokens: Tokens) -> Due {
        let task = Task { name: "main".into(), identities, ..Task::default() };
        let group = TaskGroup { name: "g".into(), tasks: vec![task], ..TaskGroup::default() };
        let allocation = Allocation { task_group: "g".into(), ..Allocation::default() };
        Due {
            allocation: Stored { value: Arc::new(allocation), created: 1, modified: 1 },
            job: Arc::new(Job { task_groups: vec![group], ..Job::default() }),
            tokens: Arc::new(tokens),
        }
    }

    #[test]
    fn only_tokens_that_are_missing_or_half_over_are_signed() {
        let identity = |name: &str, ttl: i64| WorkloadIdentity {
            name: name.into(),
            file: true,
            ttl: Span::from_secs(ttl),
            ..WorkloadIdentity::default()
        };
        let identities = vec![identity("lasting", 0), identity("hour", 3600)];
        let mut signed = Vec::new();
        let mut renew = |tokens: Tokens, now: Time| {
            let due = due(identities.clone(), tokens);
            let renewed = renewed(&due, now, |task, wanted, expires| {
                signed.push((now, wanted.name.clone()));
                Ok(format!("{task}/{}/{}", wanted.name, expires.secs()))
            });
            renewed.unwrap()
        };
        let first = renew(Tokens::default(), at(0));
        assert_eq!(first.get("main", "lasting").unwrap().jwt, format!("main/lasting/{}", Time::NEVER.secs()));
        assert_eq!(first.renewal(), Some(at(1800)));
        assert_eq!(renew(first.clone(), at(1799)), first);
        let second = renew(first.clone(), at(1800));
        assert_eq!(second.get("main", "lasting"), first.get("main", "lasting"));
        assert_eq!(second.get("main", "hour").unwrap().expires, at(1800 + 3600));
        let names: Vec<(Time, &str)> = signed.iter().map(|(now, name)| (*now, name.as_str())).collect();
        assert_eq!(names, [(at(0), "lasting"), (at(0), "hour"), (at(1800), "hour")]);
    }

    #[tokio::test]
    async fn a_key_that_cannot_be_used_is_looked_at_again() {
        let (store, keys) = (EmbeddedStore::new(), Keys::default());
        let shared: SharedStore = Arc::new(store.clone());
        let (mirror, cancel) = (Mirror::new(), CancellationToken::new());
        tokio::spawn(watcher::run(Arc::clone(&mirror), Arc::clone(&shared), keys.clone(), cancel.clone()));
        let put = async |key: &Key, value: Vec<u8>| {
            let txn = Txn::default().and_then(Op::put(keys.text(key), value));
            let revision = store.commit(txn).await.unwrap().revision;
            assert!(mirror.wait_for(revision, Duration::from_secs(60)).await);
            revision
        };
        let leader = Key::Leader("scheduler".into());
        let revision = put(&leader, b"{}".to_vec()).await;
        let fence = Fence::new(keys.text(&leader), b"{}"[..].into(), 0, revision);
        let committer = Committer::start(Arc::clone(&shared), Arc::clone(&mirror), fence, cancel.clone());
        let context = Context {
            store: shared,
            keys: keys.clone(),
            mirror: Arc::clone(&mirror),
            clock: TokioClock::starting_at(at(0)),
            settings: Settings::default(),
            random: Random::seeded(1),
        };
        let identity = WorkloadIdentity { name: "aws".into(), env: true, ..WorkloadIdentity::default() };
        let mut job = (*due(vec![identity], Tokens::default()).job).clone();
        (job.id, job.namespace) = ("web".into(), "default".into());
        job.seal();
        let id = job.job_id();
        let created = put(&Key::Job(id.clone()), encode(&job)).await;
        let (node, alloc) = (NodeId::from_random([1; 16]), AllocId::from_random([2; 16]));
        let allocation = Allocation {
            id: alloc,
            namespace: "default".into(),
            job_id: "web".into(),
            job_create_index: u64::try_from(created).unwrap(),
            task_group: "g".into(),
            ..Allocation::default()
        };
        put(&Key::Alloc(node, alloc), encode(&allocation)).await;
        let damaged = SigningKey { id: "k".into(), ..SigningKey::default() };
        put(&Key::Keyring("k".into()), encode(&damaged)).await;
        let reconciler = IdentityReconciler::new(context, committer, &Arc::new(Queue::default()));
        assert_eq!(reconciler.reconcile(&id).await.unwrap(), Next::After(RETRY));
        assert!(!mirror.read().tokens.contains_key(&alloc));
        let usable = signer::generate("k".into(), at(0)).unwrap();
        put(&Key::Keyring("k".into()), encode(&usable)).await;
        assert_eq!(reconciler.reconcile(&id).await.unwrap(), Next::WhenChanged);
        let jwt = mirror.read().tokens[&alloc].1.value.get("main", "aws").unwrap().jwt.clone();
        assert_eq!(jwt.split('.').count(), 3);
        cancel.cancel();
    }
}
