//! Saves what is known of an allocation, and tells the cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::agent::ledger::AllocRecord;
use crate::agent::ledger::LedgerError;
use crate::agent::lifecycle;
use crate::agent::machine::AllocShared;
use crate::agent::machine::LateReport;
use crate::agent::machine::Machine;
use crate::agent::machine::Setup;
use crate::model::allocation::AllocationReport;
use crate::model::allocation::ClientStatus;
use crate::model::allocation::TaskState;
use crate::model::group::TaskGroup;

/// Writes the record, then the report: never the other way round. What cannot be written now is reported later.
pub(super) async fn save_and_report(shared: &Arc<AllocShared>, machine: &Machine, setup: &Setup) {
    // Two at once could leave the older record in the ledger.
    let _turn = shared.saving.lock().await;
    let checks: BTreeMap<_, _> =
        shared.services.lock().values().flat_map(|services| services.results()).collect();
    let record = {
        let mut record = shared.record.lock();
        record.checks = checks;
        record.tokens = (**shared.tokens.borrow()).clone();
        record.clone()
    };
    match machine.context.ledger.save(&record).await {
        Ok(()) => {}
        // An agent that was killed now would not know of it, and say something else than this one did.
        Err(error @ LedgerError::Delayed { .. }) => {
            tracing::debug!(alloc = %record.allocation.id, %error, "reported once it is safe");
            return report_when_possible(shared, machine, setup);
        }
        Err(error) => {
            tracing::error!(alloc = %record.allocation.id, %error, "cannot save the allocation: it is not reported");
            return;
        }
    }
    let late = shared.late.lock();
    if !matches!(*late, LateReport::Never) {
        machine.context.outbox.put_alloc(record.allocation.id, report_of(&record, setup.group()));
    }
}

fn report_when_possible(shared: &Arc<AllocShared>, machine: &Machine, setup: &Setup) {
    let mut late = shared.late.lock();
    let Some(troubles) = machine.context.ledger.troubles() else { return };
    match &mut *late {
        LateReport::Never => {}
        LateReport::Due(newest) => *newest = setup.clone(),
        LateReport::Nothing => {
            *late = LateReport::Due(setup.clone());
            tokio::spawn(report_late(Arc::downgrade(shared), troubles));
        }
    }
}

/// Boxed because it may come back to itself.
fn report_late(
    shared: std::sync::Weak<AllocShared>,
    mut troubles: watch::Receiver<Option<String>>,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        // An error means that the agent has gone.
        if troubles.wait_for(Option::is_none).await.is_err() {
            return;
        }
        let Some(shared) = shared.upgrade() else { return };
        let due = {
            let mut late = shared.late.lock();
            match std::mem::take(&mut *late) {
                LateReport::Due(setup) => setup,
                other => {
                    *late = other;
                    return;
                }
            }
        };
        let machine = Arc::clone(&shared.machine);
        save_and_report(&shared, &machine, &due).await;
    })
}

/// What the cluster is told about an allocation.
pub fn report_of(record: &AllocRecord, group: Option<&TaskGroup>) -> AllocationReport {
    let states: BTreeMap<String, TaskState> =
        record.tasks.iter().map(|(name, task)| (name.clone(), task.state.clone())).collect();
    let nothing = TaskGroup::default();
    let (mut status, mut text) = lifecycle::client_status(group.unwrap_or(&nothing), &states);
    if !record.rejected.is_empty() {
        (status, text) = (ClientStatus::Failed, record.rejected.as_str());
    } else if !record.setup_error.is_empty() {
        (status, text) = (ClientStatus::Failed, record.setup_error.as_str());
    } else if record.started_at.is_never() && status == ClientStatus::Pending {
        text = "";
    }
    AllocationReport {
        client_status: status,
        client_description: text.to_owned(),
        task_states: states,
        deployment_status: record.health.clone(),
        network_status: record.network.clone(),
        rejected: record.rejected.clone(),
        ..AllocationReport::default()
    }
}
