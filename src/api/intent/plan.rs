//! What a registration would do, shown before it is done.

use std::collections::BTreeMap;

use serde::Serialize;

use super::admission;
use super::current;
use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::views;
use crate::api::views::allocation::AllocListStub;
use crate::api::views::allocation::StubOptions;
use crate::api::views::evaluation::EvaluationView;
use crate::jobspec;
use crate::mirror::dry_run::DryRunResult;
use crate::mirror::state::State;
use crate::mirror::state::Stored;
use crate::model::allocation::AllocMetric;
use crate::model::diff::JobDiff;
use crate::model::diff::diff;
use crate::model::evaluation::DesiredUpdates;
use crate::model::job::Job;
use crate::model::schedule;
use crate::store::Revision;

/// The answer to `job plan`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Planned {
    pub annotations: Annotations,
    #[serde(rename = "FailedTGAllocs")]
    pub failed_groups: Option<BTreeMap<String, AllocMetric>>,
    pub job_modify_index: u64,
    pub created_evals: Option<Vec<EvaluationView>>,
    pub diff: Option<JobDiff>,
    pub next_periodic_launch: Option<String>,
    pub warnings: String,
    pub index: u64,
}

/// What would happen, per group.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Annotations {
    #[serde(rename = "DesiredTGUpdates")]
    pub desired_updates: BTreeMap<String, DesiredUpdates>,
    pub preempted_allocs: Option<Vec<AllocListStub>>,
}

/// Plans the registration of `job`.
///
/// # Errors
/// With Nomad's texts when the job is invalid.
pub async fn plan(api: &Api, mut job: Job, with_diff: bool) -> Result<(Revision, Planned), ApiError> {
    api.catch_up().await?;
    let warnings = admission::admit(api, &mut job)?;
    let id = job.job_id();
    let current = current(api, &id).await?;
    let existing = current.visible();
    if let Some(existing) = existing {
        admission::check_update(existing, &job)?;
    }
    let is_same = existing.is_some_and(|existing| existing.same_spec(&job));
    job.version = match &current.job {
        Some(existing) if is_same => existing.version,
        Some(existing) => existing.version + 1,
        None => 0,
    };
    let now = api.now();
    let next = job.periodic.as_ref().filter(|_| !job.stop).and_then(|periodic| {
        let instant = schedule::next_launch(periodic, now).ok()??;
        Some(schedule::in_time_zone(periodic, instant))
    });
    let state = api.context.mirror.read();
    let result = if job.is_template() {
        DryRunResult::default()
    } else {
        api.context.planner.dry_run(&state, &job, now)
    };
    let shown = |job: &Job, created, modified| {
        let stored = Stored { value: std::sync::Arc::new(job.clone()), created, modified };
        views::job::job(&state, &id, &stored)
    };
    let diff = with_diff.then(|| {
        let old = existing.map(|existing| shown(existing, current.created, current.revision));
        let mut found = diff(old.as_ref(), &shown(&job, current.created, current.revision), true);
        annotate(&mut found, &result.updates);
        found
    });
    let index = u64::try_from(existing.map_or(0, |_| current.revision)).unwrap_or(0);
    let planned = Planned {
        annotations: Annotations {
            desired_updates: result.updates.clone(),
            preempted_allocs: preempted(&state, &result),
        },
        failed_groups: (!result.failed_groups.is_empty()).then_some(result.failed_groups),
        job_modify_index: index,
        created_evals: created_evals(&state, result.created_evals),
        diff,
        next_periodic_launch: next,
        warnings: jobspec::warnings_text(&warnings),
        index,
    };
    Ok((existing.map_or(0, |_| current.revision), planned))
}

fn preempted(state: &State, result: &DryRunResult) -> Option<Vec<AllocListStub>> {
    let options = StubOptions { resources: true, task_states: false };
    let stub = |id| views::allocation::stub(state, id, state.allocs.get(&id)?, options);
    let stubs: Vec<_> = result.preempted.iter().filter_map(|id| stub(*id)).collect();
    (!stubs.is_empty()).then_some(stubs)
}

fn created_evals(
    state: &State,
    evals: Vec<crate::model::evaluation::Evaluation>,
) -> Option<Vec<EvaluationView>> {
    let stored = |eval| Stored { value: std::sync::Arc::new(eval), created: 0, modified: 0 };
    let views: Vec<_> =
        evals.into_iter().map(|eval| views::evaluation::evaluation(state, &stored(eval))).collect();
    (!views.is_empty()).then_some(views)
}

/// Adds to a diff what would be done with each group.
fn annotate(diff: &mut JobDiff, updates: &BTreeMap<String, DesiredUpdates>) {
    for group in &mut diff.task_groups {
        if let Some(counts) = updates.get(&group.name) {
            group.set_updates([
                ("ignore", counts.ignore),
                ("create", counts.place),
                ("destroy", counts.stop),
                ("migrate", counts.migrate),
                ("canary", counts.canary),
                ("in-place update", counts.in_place_update),
                ("create/destroy update", counts.destructive_update),
            ]);
        }
    }
}
