//! Policies that a job of a given type has when its file says nothing.

use crate::model::group::MigrateStrategy;
use crate::model::group::ReschedulePolicy;
use crate::model::group::RestartPolicy;
use crate::model::group::UpdateStrategy;
use crate::model::job::JobType;
use crate::model::time::Span;

/// The number of fields of an update policy.
pub(super) const UPDATE_FIELDS: usize = 9;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;

/// The update policy that incomplete ones are completed with.
pub(super) fn full_update() -> UpdateStrategy {
    UpdateStrategy {
        stagger: Span::from_secs(30),
        max_parallel: 1,
        health_check: "checks".to_owned(),
        min_healthy_time: Span::from_secs(10),
        healthy_deadline: Span::from_secs(5 * MINUTE),
        progress_deadline: Span::from_secs(10 * MINUTE),
        auto_revert: false,
        auto_promote: false,
        canary: 0,
    }
}

/// Only services have an update policy of their own.
pub(super) fn update(kind: JobType) -> Option<UpdateStrategy> {
    (kind == JobType::Service).then(full_update)
}

/// The migrate policy that incomplete ones are completed with.
pub(super) fn full_migrate() -> MigrateStrategy {
    MigrateStrategy {
        max_parallel: 1,
        health_check: "checks".to_owned(),
        min_healthy_time: Span::from_secs(10),
        healthy_deadline: Span::from_secs(5 * MINUTE),
    }
}

/// Only services migrate.
pub(super) fn migrate(kind: JobType) -> Option<MigrateStrategy> {
    (kind == JobType::Service).then(full_migrate)
}

/// System jobs are never placed elsewhere, hence have no policy; for sysbatch it is all zero.
pub(super) fn reschedule(kind: JobType) -> Option<ReschedulePolicy> {
    match kind {
        JobType::Service => Some(ReschedulePolicy {
            delay: Span::from_secs(30),
            delay_function: "exponential".to_owned(),
            max_delay: Span::from_secs(HOUR),
            unlimited: true,
            ..ReschedulePolicy::default()
        }),
        JobType::Batch => Some(ReschedulePolicy {
            attempts: 1,
            interval: Span::from_secs(24 * HOUR),
            delay: Span::from_secs(5),
            delay_function: "constant".to_owned(),
            ..ReschedulePolicy::default()
        }),
        JobType::Sysbatch => Some(ReschedulePolicy::default()),
        JobType::System => None,
    }
}

/// How often tasks are started again on their node.
pub(super) fn restart(kind: JobType) -> RestartPolicy {
    let (attempts, interval) = if kind.is_batch() { (3, 24 * HOUR) } else { (2, 30 * MINUTE) };
    RestartPolicy {
        attempts,
        interval: Span::from_secs(interval),
        delay: Span::from_secs(15),
        mode: "fail".to_owned(),
        render_templates: false,
    }
}
