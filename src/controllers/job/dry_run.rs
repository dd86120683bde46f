//! `job plan`: the very pass that a registration would cause, on a copy, without committing anything.

use std::sync::Arc;

use crate::mirror::dry_run::DryRun;
use crate::mirror::dry_run::DryRunResult;
use crate::mirror::state::State;
use crate::mirror::state::Stored;
use crate::model::evaluation::EvalStatus;
use crate::model::evaluation::Evaluation;
use crate::model::id::EvalId;
use crate::model::job::Job;
use crate::model::time::Time;
use crate::store::Op;
use crate::store::key::Key;
use crate::store::key::Keys;

use super::cluster_of;
use super::decide;
use super::record;
use super::settings_of;
use super::view::View;

/// Answers what a registration would do.
#[derive(Clone, Copy, Debug, Default)]
pub struct JobDryRun;

impl DryRun for JobDryRun {
    fn dry_run(&self, state: &State, job: &Job, now: Time) -> DryRunResult {
        let id = job.job_id();
        let existing = state.job(&id);
        let mut view = View::of(state, &id);
        let created = existing.map_or(state.revision + 1, |existing| existing.created);
        view.job = Some(Stored { value: Arc::new(job.clone()), created, modified: state.revision + 1 });
        let mut drawn: u64 = 0;
        let mut ids = || {
            drawn += 1;
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&drawn.to_be_bytes());
            bytes
        };
        let evaluation = record::registered(job, EvalId::from_random(ids()), now);
        view.evaluations.push(Stored {
            value: Arc::new(evaluation),
            created: state.revision + 1,
            modified: state.revision + 1,
        });
        let mut cluster = cluster_of(state);
        let keys = Keys::default();
        let pass = decide::decide(&view, &mut cluster, &keys, now, &mut ids, settings_of(state));
        let ops = pass.tail.iter().flat_map(|unit| &unit.ops);
        let blocked = |evaluation: &Evaluation| evaluation.status == EvalStatus::Blocked;
        DryRunResult {
            created_evals: ops.filter_map(|op| written_evaluation(&keys, op)).filter(blocked).collect(),
            updates: pass.outcome.updates,
            failed_groups: pass.outcome.failed,
            preempted: Vec::new(),
        }
    }
}

fn written_evaluation(keys: &Keys, op: &Op) -> Option<Evaluation> {
    let Op::Put { key, value, .. } = op else { return None };
    matches!(keys.parse(key)?, Key::Evaluation(..)).then(|| serde_json::from_slice(value).ok())?
}
