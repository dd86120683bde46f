//! What a registration would do, without doing it: asked by `job plan`, answered by the job controller.

use std::collections::BTreeMap;

use crate::model::allocation::AllocMetric;
use crate::model::evaluation::DesiredUpdates;
use crate::model::evaluation::Evaluation;
use crate::model::id::AllocId;
use crate::model::job::Job;
use crate::model::time::Time;

use super::state::State;

/// Runs a job's reconcile pass on a state without committing anything.
pub trait DryRun: Send + Sync + 'static {
    /// What would happen if `job`, with its next version number already set, replaced the stored one now.
    fn dry_run(&self, state: &State, job: &Job, now: Time) -> DryRunResult;
}

/// What a pass would do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DryRunResult {
    /// Counts per group.
    pub updates: BTreeMap<String, DesiredUpdates>,
    /// Group to the reasons why it could not be placed.
    pub failed_groups: BTreeMap<String, AllocMetric>,
    /// Evaluations that would be written for later.
    pub created_evals: Vec<Evaluation>,
    /// Allocations that would have to go.
    pub preempted: Vec<AllocId>,
}
