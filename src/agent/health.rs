//! Is an allocation of a deployment, or one that was moved, healthy? Pure: looked at whenever something changed, until decided.

use std::collections::BTreeMap;

use crate::agent::lifecycle::Role;
use crate::model::allocation::TaskRunState;
use crate::model::allocation::TaskState;
use crate::model::group::MigrateStrategy;
use crate::model::group::TaskGroup;
use crate::model::group::UpdateStrategy;
use crate::model::time::Span;
use crate::model::time::Time;

/// What makes an allocation healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub min_healthy_time: Span,
    pub healthy_deadline: Span,
    /// Checks count beside task states.
    pub checks: bool,
}

impl Rules {
    /// The rules of an update block; `None` when people decide.
    pub fn of(update: &UpdateStrategy) -> Option<Self> {
        (update.health_check != "manual").then(|| Self {
            min_healthy_time: update.min_healthy_time,
            healthy_deadline: update.healthy_deadline,
            checks: update.health_check != "task_states",
        })
    }

    /// The rules of a migrate block, for allocations outside deployments.
    pub fn of_migration(migrate: &MigrateStrategy) -> Self {
        Self {
            min_healthy_time: migrate.min_healthy_time,
            healthy_deadline: migrate.healthy_deadline,
            checks: migrate.health_check != "task_states",
        }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Look again at this time, or when something changes.
    Undecided {
        look_again: Time,
    },
    Healthy,
    /// Task and text of its event.
    Unhealthy(Vec<(String, String)>),
}

/// Looks once. `began`: when the allocation began here, or got its deployment. `passing_since`: since when all
/// checks have been passing; `None` while one is not (an allocation without checks passes from the beginning).
pub fn assess(
    rules: Rules,
    group: &TaskGroup,
    states: &BTreeMap<String, TaskState>,
    passing_since: Option<Time>,
    began: Time,
    now: Time,
) -> Verdict {
    let pending = TaskState::default();
    let mut since = began;
    let mut all_running = true;
    let deadline = began + rules.healthy_deadline;
    let mut late = Vec::new();
    for task in &group.tasks {
        let role = Role::of(task);
        let state = states.get(&task.name).unwrap_or(&pending);
        if role == Role::Poststop {
            continue;
        }
        let text = |text: &str| Verdict::Unhealthy(vec![(task.name.clone(), text.to_owned())]);
        if state.failed {
            return text("Unhealthy because of failed task");
        }
        let ends = matches!(role, Role::Prestart { sidecar: false } | Role::Poststart { sidecar: false });
        match state.state {
            TaskRunState::Dead if ends => {}
            TaskRunState::Dead => return text("Unhealthy because of dead task"),
            TaskRunState::Running if ends && matches!(role, Role::Poststart { .. }) => {}
            TaskRunState::Running if !ends => {
                let started = state.started_at.max(state.last_restart);
                since = since.max(started);
                late.push((
                    task.name.clone(),
                    format!(
                        "Task not running for min_healthy_time of {} by healthy_deadline of {}",
                        rules.min_healthy_time, rules.healthy_deadline
                    ),
                ));
            }
            TaskRunState::Running | TaskRunState::Pending => {
                all_running = false;
                late.push((
                    task.name.clone(),
                    format!("Task not running by healthy_deadline of {}", rules.healthy_deadline),
                ));
            }
        }
    }
    let passing = if rules.checks { passing_since } else { Some(began) };
    let ready = passing.filter(|_| all_running).map(|passing| passing.max(since) + rules.min_healthy_time);
    match ready {
        Some(ready) if ready <= now => Verdict::Healthy,
        _ if now >= deadline => Verdict::Unhealthy(late),
        Some(ready) => Verdict::Undecided { look_again: ready.min(deadline) },
        None => Verdict::Undecided { look_again: deadline },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::task::Task;

    const RULES: Rules =
        Rules { min_healthy_time: Span::from_secs(10), healthy_deadline: Span::from_secs(60), checks: true };

    fn at(secs: i64) -> Time {
        Time::from_secs(secs)
    }

    fn look(state: TaskRunState, failed: bool, started: i64, passing: Option<i64>, now: i64) -> Verdict {
        let task = Task { name: "web".into(), ..Task::default() };
        let group = TaskGroup { tasks: vec![task], ..TaskGroup::default() };
        let state = TaskState { state, failed, started_at: at(started), ..TaskState::default() };
        assess(RULES, &group, &BTreeMap::from([("web".into(), state)]), passing.map(at), at(100), at(now))
    }

    #[test]
    fn health_is_decided_as_documented() {
        use TaskRunState::Dead;
        use TaskRunState::Pending;
        use TaskRunState::Running;
        let unhealthy = |text: &str| Verdict::Unhealthy(vec![("web".into(), text.into())]);
        let later = |secs| Verdict::Undecided { look_again: at(secs) };
        let short = "Task not running for min_healthy_time of 10s by healthy_deadline of 1m0s";
        for (state, failed, started, passing, now, expected) in [
            (Pending, false, 0, Some(100), 105, later(160)),
            (Running, false, 105, Some(100), 106, later(115)),
            (Running, false, 105, Some(100), 115, Verdict::Healthy),
            (Running, false, 105, Some(110), 115, later(120)),
            (Running, false, 105, None, 150, later(160)),
            (Running, false, 105, None, 160, unhealthy(short)),
            (Running, false, 155, Some(100), 160, unhealthy(short)),
            (Pending, false, 0, Some(100), 160, unhealthy("Task not running by healthy_deadline of 1m0s")),
            (Dead, false, 105, Some(100), 110, unhealthy("Unhealthy because of dead task")),
            (Dead, true, 105, Some(100), 110, unhealthy("Unhealthy because of failed task")),
        ] {
            assert_eq!(
                look(state, failed, started, passing, now),
                expected,
                "{state:?} {started} {passing:?} {now}"
            );
        }
    }
}
