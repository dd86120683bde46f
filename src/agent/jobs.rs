//! Job versions that allocations belong to: read from the store in batches, shared in memory.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Weak;

use parking_lot::Mutex;
use serde::Deserialize;
use serde::Serialize;

use crate::model::allocation::Allocation;
use crate::model::id::JobId;
use crate::model::job::Job;
use crate::store::KeyValue;
use crate::store::Listing;
use crate::store::Op;
use crate::store::Range;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::Txn;
use crate::store::key::Key;
use crate::store::key::Keys;

/// One version of one incarnation of a job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobKey {
    pub namespace: Arc<str>,
    pub id: Arc<str>,
    pub version: u64,
    /// Create revision of the job's key; 0: any.
    pub create_index: u64,
}

impl JobKey {
    /// The version that an allocation belongs to.
    pub fn of(allocation: &Allocation) -> Self {
        let JobId { namespace, id } = allocation.job();
        Self { namespace, id, version: allocation.job_version, create_index: allocation.job_create_index }
    }

    fn job(&self) -> JobId {
        JobId { namespace: Arc::clone(&self.namespace), id: Arc::clone(&self.id) }
    }
}

impl std::fmt::Display for JobKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} version {}", self.job(), self.version)
    }
}

/// Jobs in use. Clones share their contents, so agents in one process can share jobs, too.
#[derive(Clone, Debug, Default)]
pub struct JobCache {
    jobs: Arc<Mutex<BTreeMap<JobKey, Weak<Job>>>>,
}

/// The cache is swept of unused entries when it has grown to this many.
const SWEEP_AT: usize = 256;

impl JobCache {
    /// The job, if somebody still uses it.
    pub fn get(&self, key: &JobKey) -> Option<Arc<Job>> {
        self.jobs.lock().get(key)?.upgrade()
    }

    /// Shares a job that somebody holds already.
    pub fn adopt(&self, key: JobKey, job: Arc<Job>) {
        self.jobs.lock().insert(key, Arc::downgrade(&job));
    }

    /// Shares a job: returns the one that was there first, if any.
    pub fn insert(&self, key: JobKey, job: Job) -> Arc<Job> {
        let mut jobs = self.jobs.lock();
        if let Some(known) = jobs.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        if jobs.len() >= SWEEP_AT && jobs.len().is_power_of_two() {
            jobs.retain(|_, job| job.strong_count() > 0);
        }
        let job = Arc::new(job);
        jobs.insert(key, Arc::downgrade(&job));
        job
    }
}

/// Finds the jobs of all `keys`, reading what is not in the cache. A key without entry in the answer does not
/// exist in the store (any more).
///
/// # Errors
/// Those of the store.
pub async fn fetch(
    store: &dyn Store,
    layout: &Keys,
    cache: &JobCache,
    keys: BTreeSet<JobKey>,
) -> Result<BTreeMap<JobKey, Arc<Job>>, StoreError> {
    let mut found = BTreeMap::new();
    let mut missing = Vec::new();
    for key in keys {
        match cache.get(&key) {
            Some(job) => {
                found.insert(key, job);
            }
            None => missing.push(key),
        }
    }
    // Both places in one transaction: an update moves the current version to `versions/` in one, too.
    for batch in missing.chunks((store.limits().txn_ops / 2).max(1)) {
        let mut txn = Txn::default();
        for key in batch {
            let current = layout.text(&Key::Job(key.job()));
            let older = layout.text(&Key::Version(key.job(), key.version));
            txn = txn.and_then(Op::Get(Range::Key(current))).and_then(Op::Get(Range::Key(older)));
        }
        let answers = store.commit(txn).await?.gets;
        for (key, pair) in batch.iter().zip(answers.chunks(2)) {
            if let Some(job) = choose(key, pair) {
                found.insert(key.clone(), cache.insert(key.clone(), job));
            }
        }
    }
    Ok(found)
}

/// The answer to one key: the job's own key if it holds that version, else the older version.
fn choose(key: &JobKey, pair: &[Listing]) -> Option<Job> {
    let first = |index: usize| pair.get(index).and_then(|listing: &Listing| listing.items.first());
    let current = first(0);
    if let Some(item) = current
        && key.create_index != 0
        && !i64::try_from(key.create_index).is_ok_and(|created| created == item.create_revision)
    {
        // The id belongs to another job now; its older versions are none of ours either.
        return None;
    }
    current
        .and_then(read)
        .filter(|job| job.version == key.version)
        .or_else(|| first(1).and_then(read).filter(|job| job.version == key.version))
}

fn read(item: &KeyValue) -> Option<Job> {
    match serde_json::from_slice::<Job>(&item.value) {
        Ok(mut job) => {
            job.create_index = u64::try_from(item.create_revision).unwrap_or(0);
            job.modify_index = u64::try_from(item.mod_revision).unwrap_or(0);
            job.job_modify_index = job.modify_index;
            Some(job)
        }
        Err(error) => {
            tracing::error!(key = %item.key, %error, "the store holds a job that cannot be read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::EmbeddedStore;

    fn job(version: u64) -> Vec<u8> {
        let job = Job { id: "web".into(), namespace: "default".into(), version, ..Job::default() };
        serde_json::to_vec(&job).unwrap()
    }

    fn key(version: u64, create_index: u64) -> JobKey {
        JobKey { namespace: "default".into(), id: "web".into(), version, create_index }
    }

    #[tokio::test]
    async fn a_version_is_found_in_its_incarnation_only() {
        let store = EmbeddedStore::new();
        let layout = Keys::default();
        let id = JobId::new("default", "web");
        let put = Txn::default()
            .and_then(Op::put(layout.text(&Key::Job(id.clone())), job(3)))
            .and_then(Op::put(layout.text(&Key::Version(id, 2)), job(2)));
        let created = u64::try_from(store.commit(put).await.unwrap().revision).unwrap();
        for (wanted, expected) in [
            (key(3, created), Some(3)),
            (key(3, 0), Some(3)),
            (key(2, created), Some(2)),
            (key(1, created), None),
            (key(3, created + 1), None),
            (key(2, created + 1), None),
        ] {
            let found =
                fetch(&store, &layout, &JobCache::default(), BTreeSet::from([wanted.clone()])).await.unwrap();
            assert_eq!(found.get(&wanted).map(|job| job.version), expected, "{wanted:?}");
        }
    }
}
