//! What running tasks use.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::StreamExt;
use futures::future::BoxFuture;

use crate::agent::real::RealWorkload;
use crate::agent::real::RequestError;
use crate::drivers::Driver;
use crate::drivers::TaskHandle;
use crate::drivers::TaskId;
use crate::drivers::TaskStats;
use crate::model::id::AllocId;

/// Tasks that are looked at together: those of Docker take a request each.
const AT_ONCE: usize = 16;

impl RealWorkload {
    /// Resource use of the running tasks of one allocation.
    ///
    /// # Errors
    /// When the allocation is not known here.
    pub async fn stats(&self, alloc: AllocId) -> Result<BTreeMap<TaskId, TaskStats>, RequestError> {
        self.shared(alloc)?;
        Ok(self.stats_of(&[alloc]).await)
    }

    /// Resource use of the running tasks of these allocations. What cannot be looked at is left out.
    pub fn stats_of(&self, allocs: &[AllocId]) -> BoxFuture<'static, BTreeMap<TaskId, TaskStats>> {
        let known = allocs.iter().filter_map(|alloc| self.shared(*alloc).ok());
        let handles = known.flat_map(|shared| {
            let record = shared.record.lock();
            record.tasks.values().filter_map(|task| task.handle.clone()).collect::<Vec<_>>()
        });
        let driven = handles.filter_map(|handle| {
            let driver = self.config.drivers.get(handle.driver.as_str())?;
            Some((Arc::clone(driver), handle))
        });
        let looks: Vec<_> = driven.map(|(driver, handle)| look(driver, handle)).collect();
        let looks = futures::stream::iter(looks).buffer_unordered(AT_ONCE);
        looks.filter_map(std::future::ready).collect().boxed()
    }
}

async fn look(driver: Arc<dyn Driver>, handle: TaskHandle) -> Option<(TaskId, TaskStats)> {
    driver.stats(&handle).await.ok().map(|stats| (handle.id, stats))
}
