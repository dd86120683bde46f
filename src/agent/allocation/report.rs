//! Saves what is known of an allocation, and tells the cluster.

use std::collections::BTreeMap;

use crate::agent::ledger::AllocRecord;
use crate::agent::ledger::LedgerError;
use crate::agent::lifecycle;
use crate::agent::machine::AllocShared;
use crate::agent::machine::Machine;
use crate::agent::machine::Setup;
use crate::model::allocation::AllocationReport;
use crate::model::allocation::ClientStatus;
use crate::model::allocation::TaskState;
use crate::model::group::TaskGroup;

/// Writes the record, then the report: never the other way round.
pub(super) async fn save_and_report(shared: &AllocShared, machine: &Machine, setup: &Setup) {
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
        // The cluster must hear of it all the same: with a full disk somebody may be waiting for just that.
        Err(error @ LedgerError::Delayed { .. }) => {
            tracing::debug!(alloc = %record.allocation.id, %error, "reported before it is safe");
        }
        Err(error) => {
            tracing::error!(alloc = %record.allocation.id, %error, "cannot save the allocation: it is not reported");
            return;
        }
    }
    machine.context.outbox.put_alloc(record.allocation.id, report_of(&record, setup.group()));
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
