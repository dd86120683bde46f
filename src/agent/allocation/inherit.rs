//! The directories of an allocation, and the data that it takes over from the one it replaces: moved on the same node,
//! fetched from another.

use crate::agent::allocation::AllocRunner;
use crate::agent::dirs;
use crate::agent::events;
use crate::agent::machine::Setup;
use crate::agent::migration;
use crate::model::group::EphemeralDisk;
use crate::model::id::AllocId;
use crate::model::id::NodeId;

impl AllocRunner {
    /// Makes the directories that tasks share. Data of a predecessor on this node moves in.
    pub(super) async fn make_directories(&self, setup: &Setup) -> Result<(), String> {
        let root = self.machine.config.alloc_root.clone();
        let id = setup.allocation.id;
        let sticky = disk(setup).is_some_and(|disk| disk.sticky);
        let former = setup.allocation.previous.filter(|former| sticky && self.slots.has(*former));
        let tasks = task_names(setup);
        let made = tokio::task::spawn_blocking(move || {
            dirs::build_shared(&root, id)?;
            former.map_or(Ok(()), |former| dirs::inherit(&root, former, id, &tasks))
        });
        match made.await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The predecessor, if its data has to come from another node.
    fn former_elsewhere(&self, setup: &Setup) -> Option<(NodeId, AllocId)> {
        disk(setup).filter(|disk| disk.sticky && disk.migrate)?;
        let allocation = &setup.allocation;
        let (former, node) = (allocation.previous?, allocation.previous_node?);
        (node != self.machine.context.node && !self.slots.has(former)).then_some((node, former))
    }

    /// Waits until a predecessor on another node has written its last; false if this allocation is to stop instead.
    pub(super) async fn await_former(&mut self, setup: &Setup) -> bool {
        let Some((node, former)) = self.former_elsewhere(setup) else { return true };
        let elsewhere = &self.machine.config.elsewhere;
        tokio::select! {
            _ = elsewhere.ended(node, former) => true,
            // An error means that the agent is going.
            _ = self.orders.wait_for(|orders| orders.stop) => false,
        }
    }

    /// Fetches the data of a predecessor on another node. Without it the tasks start with empty directories, as
    /// they would if that node had died, and say so.
    pub(super) async fn bring_over(&mut self, setup: &Setup) {
        let Some((node, former)) = self.former_elsewhere(setup) else { return };
        let root = self.machine.config.alloc_root.clone();
        let id = setup.allocation.id;
        let tasks = task_names(setup);
        let parts = migration::parts(tasks.iter().map(String::as_str));
        let into = dirs::alloc_dir(&root, id);
        let fetched = tokio::select! {
            fetched = self.machine.config.elsewhere.fetch(node, former, &parts, &into) => fetched,
            _ = self.orders.wait_for(|orders| orders.stop) => return,
        };
        let Err(reason) = fetched else { return };
        tracing::warn!(alloc = %id, %former, %node, reason, "cannot fetch the data of the previous allocation");
        let emptied = tokio::task::spawn_blocking(move || {
            dirs::remove(&root, id)?;
            dirs::build_shared(&root, id)
        });
        if let Ok(Err(error)) = emptied.await {
            tracing::warn!(alloc = %id, %error, "cannot empty the directories again");
        }
        let text =
            format!("migrating data from the previous allocation failed, starting without it: {reason}");
        let now = self.machine.now();
        for task in self.shared.record.lock().tasks.values_mut() {
            events::record(&mut task.state, now, events::hook_message(&text));
        }
    }
}

fn disk(setup: &Setup) -> Option<&EphemeralDisk> {
    setup.group()?.ephemeral_disk.as_ref()
}

fn task_names(setup: &Setup) -> Vec<String> {
    let tasks = setup.group().map(|group| &group.tasks[..]).unwrap_or_default();
    tasks.iter().map(|task| task.name.clone()).collect()
}
