//! What an agent must remember on its own machine: its allocations, how to find their tasks again, and the cluster
//! it belongs to. Written before anything is reported, so a killed agent never contradicts its own words. What a full disk
//! does not take is kept in memory, and written and reported as soon as there is room.

mod writer;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;

use parking_lot::Mutex;
use redb::Database;
use redb::DatabaseError;
use redb::ReadableDatabase;
use redb::ReadableTable;
use redb::TableDefinition;
use serde::Deserialize;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::sync::watch;

use self::writer::Write;
use self::writer::Writer;
use crate::agent::jobs::JobKey;
use crate::drivers::TaskHandle;
use crate::model::allocation::Allocation;
use crate::model::allocation::DeploymentHealth;
use crate::model::allocation::NetworkStatus;
use crate::model::allocation::TaskState;
use crate::model::id::AllocId;
use crate::model::identity::Tokens;
use crate::model::job::Job;
use crate::model::service::CheckResult;
use crate::model::time::Time;

const FILE: &str = "ledger.redb";
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const ALLOCS: TableDefinition<&str, &[u8]> = TableDefinition::new("allocs");
const JOBS: TableDefinition<&str, &[u8]> = TableDefinition::new("jobs");
/// Version of the layout of the tables and records.
const LAYOUT: u32 = 1;
/// The records are small and read once; more cache would only cost memory.
const CACHE_BYTES: usize = 1 << 20;

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error(
        "cannot open {path}: {source}; if it is damaged, move it away: the agent then starts without \
         memory of its running tasks", path = path.display()
    )]
    Open { path: PathBuf, source: DatabaseError },
    #[error("{path} is in use by another agent", path = path.display())]
    InUse { path: PathBuf },
    #[error("{path} was written by another version (layout {found}, this one needs {LAYOUT})", path = path.display())]
    Layout { path: PathBuf, found: u32 },
    #[error("{path} holds a record {record} that cannot be read: {source}; move the file away to go on without it", path = path.display())]
    Record { path: PathBuf, record: String, source: serde_json::Error },
    #[error("cannot read or write {path}: {source}", path = path.display())]
    Storage { path: PathBuf, source: Box<redb::Error> },
    #[error("cannot create {path}: {source}", path = path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("{path} cannot be written now: {cause}; it is tried again", path = path.display())]
    Delayed { path: PathBuf, cause: String },
    #[error("the ledger's writer has ended")]
    Closed,
}

/// What is remembered of the cluster and of the last agent process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LedgerMeta {
    pub layout: u32,
    /// The cluster seen first; orders of any other are ignored. Empty until then.
    pub cluster_id: String,
    /// The newest epoch seen.
    pub epoch: u64,
    /// That cluster's state is in the memory of the process that wrote this.
    pub volatile_cluster: bool,
    /// The session and boot that registered last.
    pub session_id: String,
    pub boot_id: String,
}

impl LedgerMeta {
    /// What is left to know when a process begins. A cluster that ended with its process can never give orders again, so
    /// it is forgotten, and the first one seen says what becomes of its tasks. Any other is kept.
    pub fn begin(&mut self, volatile_cluster: bool) {
        if self.volatile_cluster {
            self.cluster_id.clear();
            self.epoch = 0;
        }
        if self.cluster_id.is_empty() {
            self.volatile_cluster = volatile_cluster;
        }
    }
}

/// Restarts within the present window of the restart policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartCount {
    pub count: i64,
    pub window_start: Time,
}

/// What is remembered of one task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskRecord {
    pub state: TaskState,
    /// Present while the task may be running.
    pub handle: Option<TaskHandle>,
    /// Number of the present or last run, from 1; 0 before the first.
    pub run: u64,
    pub restarts: RestartCount,
    /// Artifacts and payload are in place.
    pub prepared: bool,
    /// Marks of the artifacts that are in place.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub artifacts: BTreeSet<String>,
    /// While it waits for its next start: when that may be.
    pub resume_at: Time,
}

/// What is remembered of one allocation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AllocRecord {
    pub allocation: Allocation,
    pub job: JobKey,
    pub tasks: BTreeMap<String, TaskRecord>,
    #[serde(default)]
    pub health: Option<DeploymentHealth>,
    #[serde(default)]
    pub network: Option<NetworkStatus>,
    /// Why it was refused on arrival; empty if it was not.
    #[serde(default)]
    pub rejected: String,
    /// Why it failed before anything of it began: its description then. Empty if it did not.
    #[serde(default)]
    pub setup_error: String,
    /// When the allocation began here; deadlines of its health count from then.
    #[serde(default)]
    pub started_at: Time,
    /// When everything of it had ended; never while it runs.
    #[serde(default)]
    pub ended_at: Time,
    /// Results of its checks when it was saved, by check id.
    #[serde(default)]
    pub checks: BTreeMap<String, CheckResult>,
    /// The tokens of its tasks: they can be started again while the store is away.
    #[serde(default)]
    pub tokens: Tokens,
    /// Its directory has been removed.
    #[serde(default)]
    pub reaped: bool,
}

/// The agent's memory. Clones share it.
#[derive(Clone)]
pub enum Ledger {
    /// A database in the data directory.
    Disk(Arc<DiskLedger>),
    /// For simulation: outlives the agent as long as somebody holds it.
    Memory(Arc<Mutex<Contents>>),
}

/// Everything a ledger holds.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    pub meta: LedgerMeta,
    pub allocs: BTreeMap<AllocId, AllocRecord>,
    pub jobs: BTreeMap<JobKey, Arc<Job>>,
}

/// The database and the thread that writes to it.
pub struct DiskLedger {
    path: PathBuf,
    meta: Mutex<LedgerMeta>,
    writes: mpsc::Sender<Write>,
    /// Why the newest changes are not on disk; `None` while all is well.
    trouble: Arc<watch::Sender<Option<String>>>,
    /// What was found when the ledger was opened, until somebody takes it.
    found: Mutex<Option<Contents>>,
}

impl Ledger {
    /// An empty ledger in memory.
    pub fn memory() -> Self {
        Self::Memory(Arc::default())
    }

    /// Opens the ledger in `data_dir`, or makes an empty one.
    ///
    /// # Errors
    /// Names the file when it is damaged, in use or of another version.
    pub fn open(data_dir: &Path) -> Result<Self, LedgerError> {
        std::fs::create_dir_all(data_dir)
            .map_err(|source| LedgerError::Directory { path: data_dir.to_owned(), source })?;
        let path = data_dir.join(FILE);
        let database =
            Database::builder().set_cache_size(CACHE_BYTES).create(&path).map_err(|source| match source {
                DatabaseError::DatabaseAlreadyOpen => LedgerError::InUse { path: path.clone() },
                source => LedgerError::Open { path: path.clone(), source },
            })?;
        let mut contents = read_all(&path, &database)?;
        if contents.meta.layout == 0 {
            contents.meta.layout = LAYOUT;
        } else if contents.meta.layout != LAYOUT {
            return Err(LedgerError::Layout { path, found: contents.meta.layout });
        }
        let (writes, queue) = mpsc::channel();
        let meta = Mutex::new(contents.meta.clone());
        let trouble = Arc::new(watch::Sender::new(None));
        let writer = Writer { path: path.clone(), database: Some(database), trouble: Arc::clone(&trouble) };
        let thread = std::thread::Builder::new().name("ledger".into());
        thread
            .spawn(move || writer.run(&queue))
            .map_err(|source| LedgerError::Directory { path: path.clone(), source })?;
        let found = Mutex::new(Some(contents));
        Ok(Self::Disk(Arc::new(DiskLedger { path, meta, writes, trouble, found })))
    }

    /// The file, for messages.
    pub fn describe(&self) -> String {
        match self {
            Self::Disk(disk) => disk.path.display().to_string(),
            Self::Memory(_) => "memory".to_owned(),
        }
    }

    /// Why the newest changes cannot be put on disk, if so.
    pub fn trouble(&self) -> Option<String> {
        match self {
            Self::Disk(disk) => disk.trouble.borrow().clone(),
            Self::Memory(_) => None,
        }
    }

    /// Follows [`Self::trouble`]; closed once nobody uses the ledger any more. `None` if there never is any.
    pub fn troubles(&self) -> Option<watch::Receiver<Option<String>>> {
        match self {
            Self::Disk(disk) => Some(disk.trouble.subscribe()),
            Self::Memory(_) => None,
        }
    }

    /// What is remembered of the cluster.
    pub fn meta(&self) -> LedgerMeta {
        match self {
            Self::Disk(disk) => disk.meta.lock().clone(),
            Self::Memory(contents) => contents.lock().meta.clone(),
        }
    }

    /// Changes what is remembered of the cluster; writes only if something is new.
    ///
    /// # Errors
    /// When the ledger cannot be written any more.
    pub async fn update_meta(&self, change: impl FnOnce(&mut LedgerMeta)) -> Result<(), LedgerError> {
        match self {
            Self::Memory(contents) => {
                change(&mut contents.lock().meta);
                Ok(())
            }
            Self::Disk(disk) => {
                let bytes = {
                    let mut meta = disk.meta.lock();
                    let before = meta.clone();
                    change(&mut meta);
                    if *meta == before {
                        return Ok(());
                    }
                    encode(&*meta)
                };
                disk.write(META, "meta".to_owned(), Some(bytes)).await
            }
        }
    }

    /// Takes what was remembered when the ledger was opened; empty the second time.
    pub fn take_contents(&self) -> Contents {
        match self {
            Self::Disk(disk) => disk.found.lock().take().unwrap_or_default(),
            Self::Memory(contents) => contents.lock().clone(),
        }
    }

    /// Remembers an allocation; returns once that is safe.
    ///
    /// # Errors
    /// [`LedgerError::Delayed`] while the disk takes nothing: the change is kept and tried again.
    pub async fn save(&self, record: &AllocRecord) -> Result<(), LedgerError> {
        let id = record.allocation.id;
        match self {
            Self::Memory(contents) => {
                contents.lock().allocs.insert(id, record.clone());
                Ok(())
            }
            Self::Disk(disk) => disk.write(ALLOCS, id.to_string(), Some(encode(record))).await,
        }
    }

    /// Remembers a job version that allocations refer to.
    pub fn save_job(&self, key: &JobKey, job: &Arc<Job>) {
        match self {
            Self::Memory(contents) => {
                contents.lock().jobs.insert(key.clone(), Arc::clone(job));
            }
            Self::Disk(disk) => disk.write_later(JOBS, job_text(key), Some(encode(&**job))),
        }
    }

    /// Forgets an allocation.
    pub fn remove(&self, alloc: AllocId) {
        match self {
            Self::Memory(contents) => {
                contents.lock().allocs.remove(&alloc);
            }
            Self::Disk(disk) => disk.write_later(ALLOCS, alloc.to_string(), None),
        }
    }

    /// Forgets a job version that no allocation refers to any more.
    pub fn remove_job(&self, key: &JobKey) {
        match self {
            Self::Memory(contents) => {
                contents.lock().jobs.remove(key);
            }
            Self::Disk(disk) => disk.write_later(JOBS, job_text(key), None),
        }
    }

    /// Returns once every earlier change is on disk.
    pub async fn flush(&self) {
        if let Self::Disk(disk) = self {
            let meta = encode(&*disk.meta.lock());
            // A failed write is logged by the writer.
            let _ = disk.write(META, "meta".to_owned(), Some(meta)).await;
        }
    }
}

impl DiskLedger {
    async fn write(
        &self,
        table: TableDefinition<'static, &'static str, &'static [u8]>,
        key: String,
        value: Option<Vec<u8>>,
    ) -> Result<(), LedgerError> {
        let (done, written) = oneshot::channel();
        let write = Write { table, key, value, done: Some(done) };
        self.writes.send(write).map_err(|_| LedgerError::Closed)?;
        let outcome = written.await.map_err(|_| LedgerError::Closed)?;
        outcome.map_err(|cause| LedgerError::Delayed { path: self.path.clone(), cause })
    }

    fn write_later(
        &self,
        table: TableDefinition<'static, &'static str, &'static [u8]>,
        key: String,
        value: Option<Vec<u8>>,
    ) {
        // Fails only if the writer ended, which it has logged.
        let _ = self.writes.send(Write { table, key, value, done: None });
    }
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("records have text keys only")
}

fn job_text(key: &JobKey) -> String {
    serde_json::to_string(key).expect("a key is plain data")
}

fn read_all(path: &Path, database: &Database) -> Result<Contents, LedgerError> {
    let storage =
        |source: redb::Error| LedgerError::Storage { path: path.to_owned(), source: Box::new(source) };
    let mut raw: [Vec<(String, Vec<u8>)>; 3] = Default::default();
    let create = database.begin_write().map_err(|error| storage(error.into()))?;
    for (definition, rows) in [META, ALLOCS, JOBS].into_iter().zip(&mut raw) {
        create.open_table(definition).map_err(|error| storage(error.into()))?;
        rows.clear();
    }
    create.commit().map_err(|error| storage(error.into()))?;
    let txn = database.begin_read().map_err(|error| storage(error.into()))?;
    for (definition, rows) in [META, ALLOCS, JOBS].into_iter().zip(&mut raw) {
        let table = txn.open_table(definition).map_err(|error| storage(error.into()))?;
        for row in table.iter().map_err(|error| storage(error.into()))? {
            let (key, value) = row.map_err(|error| storage(error.into()))?;
            rows.push((key.value().to_owned(), value.value().to_vec()));
        }
    }
    let bad = |record: &str, source| LedgerError::Record {
        path: path.to_owned(),
        record: record.to_owned(),
        source,
    };
    let mut contents = Contents::default();
    let [meta, allocs, jobs] = raw;
    for (key, value) in meta {
        contents.meta = serde_json::from_slice(&value).map_err(|error| bad(&key, error))?;
    }
    for (key, value) in allocs {
        let record: AllocRecord = serde_json::from_slice(&value).map_err(|error| bad(&key, error))?;
        contents.allocs.insert(record.allocation.id, record);
    }
    for (key, value) in jobs {
        let id: JobKey = serde_json::from_str(&key).map_err(|error| bad(&key, error))?;
        let job: Job = serde_json::from_slice(&value).map_err(|error| bad(&key, error))?;
        contents.jobs.insert(id, Arc::new(job));
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u8) -> AllocRecord {
        let allocation = Allocation {
            id: AllocId::from_random([id; 16]),
            job_id: "web".into(),
            namespace: "default".into(),
            ..Allocation::default()
        };
        AllocRecord {
            job: JobKey::of(&allocation),
            allocation,
            tasks: BTreeMap::from([("main".to_owned(), TaskRecord { run: 3, ..TaskRecord::default() })]),
            health: None,
            network: None,
            rejected: String::new(),
            setup_error: String::new(),
            started_at: Time::NEVER,
            ended_at: Time::NEVER,
            checks: BTreeMap::new(),
            tokens: Tokens::default(),
            reaped: false,
        }
    }

    #[tokio::test]
    async fn a_reopened_ledger_remembers_everything() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let (kept, dropped) = (record(1), record(2));
        let job = Arc::new(Job { id: "web".into(), ..Job::default() });
        ledger.save_job(&kept.job, &job);
        ledger.save(&kept).await.unwrap();
        ledger.save(&dropped).await.unwrap();
        ledger.remove(dropped.allocation.id);
        ledger.update_meta(|meta| meta.cluster_id = "c".into()).await.unwrap();
        drop(ledger);
        // The writer holds the file until it has seen that nobody writes any more.
        let ledger = loop {
            match Ledger::open(dir.path()) {
                Err(LedgerError::InUse { .. }) => tokio::task::yield_now().await,
                other => break other.unwrap(),
            }
        };
        let contents = ledger.take_contents();
        assert_eq!(contents.meta.cluster_id, "c");
        assert_eq!(contents.allocs.into_values().collect::<Vec<_>>(), std::slice::from_ref(&kept));
        assert_eq!(contents.jobs.get(&kept.job), Some(&job));
    }

    #[test]
    fn only_a_cluster_that_ended_with_its_process_is_forgotten() {
        let seen = |volatile_cluster| LedgerMeta {
            cluster_id: "c".into(),
            epoch: 3,
            volatile_cluster,
            ..LedgerMeta::default()
        };
        for (before, volatile, after) in [(true, true, true), (true, false, false)] {
            let mut meta = seen(before);
            meta.begin(volatile);
            assert_eq!((meta.cluster_id.as_str(), meta.epoch, meta.volatile_cluster), ("", 0, after));
        }
        for volatile in [true, false] {
            let mut meta = seen(false);
            meta.begin(volatile);
            assert_eq!(meta, seen(false), "the tasks of a cluster that lasts wait for its orders");
        }
    }

    #[test]
    fn a_damaged_ledger_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), b"rubbish that is no database at all").unwrap();
        let error = Ledger::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains(FILE), "{error}");
        assert_eq!(std::fs::read(dir.path().join(FILE)).unwrap(), b"rubbish that is no database at all");
    }

    /// Fills a small file system of its own (made only if the tests run as root).
    #[tokio::test]
    async fn a_full_disk_delays_the_ledger_and_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let flags = nix::mount::MsFlags::empty();
        let small = nix::mount::mount(Some("tmpfs"), dir.path(), Some("tmpfs"), flags, Some("size=4m"));
        if !nix::unistd::Uid::effective().is_root() {
            return;
        }
        small.expect("a small file system");
        let ledger = Ledger::open(dir.path()).unwrap();
        ledger.save(&record(1)).await.unwrap();
        let filler = dir.path().join("filler");
        let mut file = std::fs::File::create(&filler).unwrap();
        while std::io::Write::write(&mut file, &[0; 4096]).is_ok() {}
        drop(file);
        // More than fits into what the file has set aside.
        let mut big = record(2);
        big.rejected = "x".repeat(3 << 20);
        let error = ledger.save(&big).await.unwrap_err();
        assert!(matches!(&error, LedgerError::Delayed { .. }), "{error}");
        assert!(ledger.trouble().is_some());
        big.rejected.truncate(100);
        assert!(matches!(ledger.save(&big).await, Err(LedgerError::Delayed { .. })), "still full");
        std::fs::remove_file(&filler).unwrap();
        while ledger.trouble().is_some() {
            tokio::task::yield_now().await;
        }
        ledger.save(&record(3)).await.unwrap();
        drop(ledger);
        let contents = loop {
            match Ledger::open(dir.path()) {
                Err(LedgerError::InUse { .. }) => tokio::task::yield_now().await,
                other => break other.unwrap().take_contents(),
            }
        };
        let kept: Vec<AllocRecord> = contents.allocs.into_values().collect();
        assert_eq!(kept, [record(1), big, record(3)]);
        nix::mount::umount2(dir.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }

    #[test]
    fn two_agents_cannot_share_a_ledger() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Ledger::open(dir.path()).unwrap();
        assert!(matches!(Ledger::open(dir.path()), Err(LedgerError::InUse { .. })));
    }
}
