//! Processors of containers. Docker makes the containers' control groups, so tasks of other drivers would know nothing
//! of the cores that containers have to themselves, nor containers of those that are taken from all: both are told.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use bollard::models::ContainerUpdateBody;
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use crate::drivers::DriverError;
use crate::drivers::TaskId;
use crate::drivers::cgroup::Cores;
use crate::model::resources::AllocatedTask;

use super::connection::Connection;
use super::status;
use super::words;

/// How often it is looked whether other cores are left for all.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// For one change of one container, seconds.
const CHANGE_LIMIT: u64 = 30;

/// Containers without cores of their own, and the cores on which each runs.
type Sharing = Arc<Mutex<BTreeMap<String, Option<String>>>>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct CoreKeeper {
    cores: Option<Cores>,
    sharing: Sharing,
    /// Names of reservations that belong to tasks.
    owned: Mutex<BTreeSet<String>>,
    work: OnceLock<AbortOnDropHandle<()>>,
}

/// The name under which the cores of a task are reserved.
fn name_of(id: &TaskId) -> String {
    let name = format!("{}.{}", id.alloc, id.task.replace('/', "_"));
    // Removing an earlier run late must not touch this one.
    if id.run > 1 { format!("{name}.{}", id.run) } else { name }
}

impl CoreKeeper {
    /// Without `cores` the machine cannot divide its processors.
    pub(super) fn new(cores: Option<Cores>) -> Self {
        Self { cores, ..Self::default() }
    }

    /// The cores on which a new container runs: its own, which nobody else has from now on, or those left for all;
    /// `None` for all that there are.
    ///
    /// # Errors
    /// Cores cannot be reserved.
    pub(super) fn of_task(&self, id: &TaskId, grant: &AllocatedTask) -> Result<Option<String>, DriverError> {
        let own: Vec<String> = grant.cpu.reserved_cores.iter().map(u16::to_string).collect();
        let Some(cores) = &self.cores else { return Ok(Some(own.join(",")).filter(|own| !own.is_empty())) };
        if own.is_empty() {
            return Ok(cores.shared().filter(|shared| !cores.is_everything(shared)));
        }
        let own = own.join(",");
        self.own(id);
        cores
            .reserve(&name_of(id), &own)
            .map_err(|error| DriverError::Recoverable(format!("cannot reserve the cores {own}: {error}")))?;
        Ok(Some(own))
    }

    /// The cores that were reserved for this task are still needed.
    pub(super) fn own(&self, id: &TaskId) {
        self.owned.lock().insert(name_of(id));
    }

    /// Gives back the cores of tasks that nobody knows: the agent was killed between reserving them and noting that it
    /// did. Its own allocations are those with a directory below `root`.
    pub(super) fn sweep(&self, root: &Path, age: Duration) {
        let Some(cores) = &self.cores else { return };
        for name in cores.idle(age) {
            let ours = name.split_once('.').is_some_and(|(alloc, _)| root.join(alloc).is_dir());
            if ours && !self.owned.lock().contains(&name) {
                tracing::info!(%name, "giving back the cores of a task that nobody knows");
                cores.release(&name);
            }
        }
    }

    /// Follows a container that runs on these cores.
    pub(super) fn follow(&self, container: &str, runs_on: Option<String>, connection: &Arc<Connection>) {
        let Some(cores) = self.cores.clone() else { return };
        self.sharing.lock().insert(container.to_owned(), runs_on);
        self.work.get_or_init(|| {
            let (sharing, connection) = (Arc::clone(&self.sharing), Arc::clone(connection));
            AbortOnDropHandle::new(tokio::spawn(async move {
                loop {
                    tokio::time::sleep(LOOK_EVERY).await;
                    adjust(&cores, &sharing, &connection).await;
                }
            }))
        });
    }

    /// A container is gone, and so are its cores.
    pub(super) fn release(&self, container: &str, id: &TaskId) {
        self.sharing.lock().remove(container);
        self.owned.lock().remove(&name_of(id));
        if let Some(cores) = &self.cores {
            cores.release(&name_of(id));
        }
    }
}

/// Moves containers to the cores that are left for all.
async fn adjust(cores: &Cores, sharing: &Sharing, connection: &Connection) {
    if sharing.lock().is_empty() {
        return;
    }
    let Some(shared) = cores.shared() else { return };
    let everything = cores.is_everything(&shared);
    let is_right = |runs_on: &Option<String>| match runs_on.as_deref() {
        None | Some("") => everything,
        Some(list) => list == shared,
    };
    let wrong: Vec<String> = {
        let sharing = sharing.lock();
        let wrong = sharing.iter().filter(|(_, runs_on)| !is_right(runs_on));
        wrong.map(|(container, _)| container.clone()).collect()
    };
    for container in wrong {
        let Ok(client) = connection.client(CHANGE_LIMIT) else { return };
        let body =
            ContainerUpdateBody { cpuset_cpus: Some(shared.clone()), ..ContainerUpdateBody::default() };
        let changed = client.update_container(&container, body).await;
        let mut sharing = sharing.lock();
        match changed {
            Ok(()) => {
                if let Some(runs_on) = sharing.get_mut(&container) {
                    *runs_on = Some(shared.clone());
                }
            }
            // It has ended: there is nothing to be moved.
            Err(error) if matches!(status(&error), Some(404 | 409)) => drop(sharing.remove(&container)),
            Err(error) => {
                tracing::warn!(%container, error = %words(&error), "cannot move a container to other cores");
            }
        }
    }
}
