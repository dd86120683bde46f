//! The thread that puts changes on disk, many per flush. A disk that takes nothing is asked again and again; what waits
//! meanwhile is bounded by the number of records, because a newer change of a record replaces the older one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use redb::Database;
use redb::TableDefinition;
use redb::TableHandle as _;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::time::Instant;

use super::CACHE_BYTES;

/// Changes that share one flush to disk at most.
const GROUP: usize = 256;
/// A disk that took nothing is asked again after this time.
const RETRY: Duration = Duration::from_secs(1);

pub(super) type Table = TableDefinition<'static, &'static str, &'static [u8]>;

/// One change, and whom to tell when it is on disk, or why it is not yet.
pub(super) struct Write {
    pub table: Table,
    pub key: String,
    /// Removed when absent.
    pub value: Option<Vec<u8>>,
    pub done: Option<oneshot::Sender<Result<(), String>>>,
}

/// Changes by table and key, the newest of each.
type Changes = BTreeMap<(String, String), (Table, Option<Vec<u8>>)>;

/// Owns the database.
pub(super) struct Writer {
    pub path: PathBuf,
    /// Absent between a failed write and the next attempt: after an error it has to be opened anew.
    pub database: Option<Database>,
    pub trouble: Arc<watch::Sender<Option<String>>>,
}

impl Writer {
    /// Writes until nobody can write to the ledger any more.
    pub(super) fn run(mut self, queue: &mpsc::Receiver<Write>) {
        let mut changes = Changes::new();
        while let Ok(first) = queue.recv() {
            let mut waiting = Vec::new();
            take(first, &mut changes, &mut waiting);
            while changes.len() < GROUP
                && let Ok(next) = queue.try_recv()
            {
                take(next, &mut changes, &mut waiting);
            }
            let outcome = self.write(&changes);
            match &outcome {
                Ok(()) => changes.clear(),
                // Known before anybody hears of it: no task starts that could not be remembered.
                Err(cause) => drop(self.trouble.send_replace(Some(cause.clone()))),
            }
            for done in waiting {
                // Nobody waits any more: fine.
                let _ = done.send(outcome.clone());
            }
            if let Err(cause) = outcome
                && !self.persist(cause, &mut changes, queue)
            {
                return;
            }
        }
    }

    /// Tries again until everything is on disk; false if the agent ended meanwhile.
    fn persist(&mut self, cause: String, changes: &mut Changes, queue: &mpsc::Receiver<Write>) -> bool {
        tracing::error!(path = %self.path.display(), error = %cause, "cannot write the ledger, trying again");
        let mut newest = cause;
        let mut due = Instant::now() + RETRY;
        loop {
            match queue.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(write) => {
                    let mut waiting = Vec::new();
                    take(write, changes, &mut waiting);
                    waiting.into_iter().for_each(|done| drop(done.send(Err(newest.clone()))));
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => due = Instant::now() + RETRY,
                Err(RecvTimeoutError::Disconnected) => {
                    if let Err(cause) = self.write(changes) {
                        tracing::error!(path = %self.path.display(), error = %cause, "the newest changes are lost");
                    }
                    return false;
                }
            }
            match self.write(changes) {
                Ok(()) => {
                    changes.clear();
                    self.trouble.send_replace(None);
                    tracing::info!(path = %self.path.display(), "the ledger can be written again");
                    return true;
                }
                Err(cause) => {
                    self.trouble.send_replace(Some(cause.clone()));
                    newest = cause;
                }
            }
        }
    }

    fn write(&mut self, changes: &Changes) -> Result<(), String> {
        let database = match self.database.take() {
            Some(database) => database,
            None => Database::builder()
                .set_cache_size(CACHE_BYTES)
                .create(&self.path)
                .map_err(|error| error.to_string())?,
        };
        // After an error the database refuses everything: it is opened anew for the next attempt.
        write_all(&database, changes).map_err(|error| error.to_string())?;
        self.database = Some(database);
        Ok(())
    }
}

fn take(write: Write, changes: &mut Changes, waiting: &mut Vec<oneshot::Sender<Result<(), String>>>) {
    changes.insert((write.table.name().to_owned(), write.key), (write.table, write.value));
    waiting.extend(write.done);
}

fn write_all(database: &Database, changes: &Changes) -> Result<(), redb::Error> {
    let txn = database.begin_write()?;
    for ((_, key), (table, value)) in changes {
        let mut table = txn.open_table(*table)?;
        match value {
            Some(value) => table.insert(key.as_str(), value.as_slice())?,
            None => table.remove(key.as_str())?,
        };
    }
    txn.commit()?;
    Ok(())
}
