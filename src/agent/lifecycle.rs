//! The order of a group's tasks: who may start, who must end, and what the allocation's status is. Pure.

use std::collections::BTreeMap;

use crate::agent::restart::OnSuccess;
use crate::model::allocation::ClientStatus;
use crate::model::allocation::TaskRunState;
use crate::model::allocation::TaskState;
use crate::model::group::TaskGroup;
use crate::model::job::JobType;
use crate::model::task::Task;

/// A task's place in its group's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Main,
    Prestart { sidecar: bool },
    Poststart { sidecar: bool },
    Poststop,
}

impl Role {
    /// The place that the job file gives to a task.
    pub fn of(task: &Task) -> Self {
        match task.lifecycle.as_ref().map(|lifecycle| (lifecycle.hook.as_str(), lifecycle.sidecar)) {
            Some(("prestart", sidecar)) => Self::Prestart { sidecar },
            Some(("poststart", sidecar)) => Self::Poststart { sidecar },
            Some(("poststop", _)) => Self::Poststop,
            _ => Self::Main,
        }
    }

    /// Runs beside the main tasks and ends with them.
    pub fn is_sidecar(self) -> bool {
        matches!(self, Self::Prestart { sidecar: true } | Self::Poststart { sidecar: true })
    }

    /// What a successful end of such a task means in a job of this type.
    pub fn on_success(self, kind: JobType) -> OnSuccess {
        match self {
            Self::Main if !kind.is_batch() => OnSuccess::Restart,
            role if role.is_sidecar() => OnSuccess::Restart,
            _ => OnSuccess::Finish,
        }
    }
}

/// Why the rest of a group has to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doom {
    /// The cluster wants it.
    Stopped,
    /// This task failed.
    SiblingFailed(String),
    LeaderDead,
    /// Only sidecars are left.
    MainDead,
}

/// What may and must be done now. Names in the group's order; already started or ending tasks may be named again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    pub start: Vec<String>,
    pub kill: Vec<String>,
    pub doom: Option<Doom>,
}

/// Picks tasks.
type Wish<'a> = dyn Fn(&Task, Role, &TaskState) -> bool + 'a;

/// Looks at a group once. Tasks without a state are pending.
pub fn next_steps(group: &TaskGroup, states: &BTreeMap<String, TaskState>, stop: bool) -> Steps {
    let pending = TaskState::default();
    let view: Vec<(&Task, Role, &TaskState)> = group
        .tasks
        .iter()
        .map(|task| (task, Role::of(task), states.get(&task.name).unwrap_or(&pending)))
        .collect();
    let is_dead = |state: &TaskState| state.state == TaskRunState::Dead;
    let doom = doom(&view, stop);
    let mut steps = Steps { doom, ..Steps::default() };
    let names = |wanted: &Wish<'_>| -> Vec<String> {
        let chosen = view.iter().filter(|(task, role, state)| wanted(task, *role, state));
        chosen.map(|(task, ..)| task.name.clone()).collect()
    };
    if view.iter().all(|(_, role, state)| *role == Role::Poststop || is_dead(state)) {
        steps.start = names(&|_, role, state| role == Role::Poststop && !is_dead(state));
        return steps;
    }
    if steps.doom.is_some() {
        let alive = |role: Role, state: &TaskState| role != Role::Poststop && !is_dead(state);
        // One rank after the other: the leader, what does the work, what supports it.
        let ranks: [&Wish<'_>; 3] = [
            &|task, role, state| alive(role, state) && task.leader,
            &|_, role, state| alive(role, state) && !role.is_sidecar(),
            &|_, role, state| alive(role, state),
        ];
        steps.kill = ranks.iter().map(|rank| names(rank)).find(|rank| !rank.is_empty()).unwrap_or_default();
        return steps;
    }
    let prestarted = view.iter().all(|(_, role, state)| match role {
        Role::Prestart { sidecar: false } => state.is_successful(),
        Role::Prestart { sidecar: true } => {
            state.state != TaskRunState::Pending || !state.started_at.is_never()
        }
        _ => true,
    });
    let main_started = view.iter().all(|(_, role, state)| {
        *role != Role::Main || state.state != TaskRunState::Pending || !state.started_at.is_never()
    });
    steps.start = names(&|_, role, state| {
        !is_dead(state)
            && match role {
                Role::Prestart { .. } => true,
                Role::Main => prestarted,
                Role::Poststart { .. } => prestarted && main_started,
                Role::Poststop => false,
            }
    });
    steps
}

fn doom(view: &[(&Task, Role, &TaskState)], stop: bool) -> Option<Doom> {
    if stop {
        return Some(Doom::Stopped);
    }
    if let Some((task, ..)) = view.iter().find(|(_, _, state)| state.failed) {
        return Some(Doom::SiblingFailed(task.name.clone()));
    }
    let is_dead = |state: &TaskState| state.state == TaskRunState::Dead;
    if view.iter().any(|(task, _, state)| task.leader && is_dead(state)) {
        return Some(Doom::LeaderDead);
    }
    let worked = |role: Role| !role.is_sidecar() && role != Role::Poststop;
    let done = view.iter().filter(|(_, role, _)| worked(*role)).all(|(.., state)| is_dead(state));
    (done && view.iter().any(|(_, role, _)| role.is_sidecar())).then_some(Doom::MainDead)
}

/// The status of an allocation and its description, from its tasks' states. A failed task counts once every task
/// has ended: before that, the allocation still holds its resources.
pub fn client_status(
    group: &TaskGroup,
    states: &BTreeMap<String, TaskState>,
) -> (ClientStatus, &'static str) {
    let pending = TaskState::default();
    let mut all = group.tasks.iter().map(|task| states.get(&task.name).unwrap_or(&pending));
    let (mut running, mut waiting, mut failed) = (false, false, false);
    for state in &mut all {
        running |= state.state == TaskRunState::Running;
        waiting |= state.state == TaskRunState::Pending;
        failed |= state.failed;
    }
    match (running, waiting, failed) {
        (true, ..) => (ClientStatus::Running, "Tasks are running"),
        // Between a failure and the end of its siblings, "pending" would look like a start.
        (_, true, true) => (ClientStatus::Running, "Failed tasks"),
        (_, true, false) => (ClientStatus::Pending, "No tasks have started"),
        (.., true) => (ClientStatus::Failed, "Failed tasks"),
        (.., false) => (ClientStatus::Complete, "All tasks have completed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::task::Lifecycle;
    use crate::model::time::Time;

    /// `name:role`, with a leading `*` for the leader.
    fn group(tasks: &[&str]) -> TaskGroup {
        let tasks = tasks.iter().map(|text| {
            let (name, role) = text.split_once(':').unwrap_or((text, "main"));
            let (hook, sidecar) = role.strip_suffix("+").map_or((role, false), |hook| (hook, true));
            Task {
                name: name.trim_start_matches('*').to_owned(),
                leader: name.starts_with('*'),
                lifecycle: (hook != "main").then(|| Lifecycle { hook: hook.to_owned(), sidecar }),
                ..Task::default()
            }
        });
        TaskGroup { tasks: tasks.collect(), ..TaskGroup::default() }
    }

    /// `p` pending, `r` running, `d` dead, `f` failed.
    fn states(group: &TaskGroup, letters: &str) -> BTreeMap<String, TaskState> {
        let states = group.tasks.iter().zip(letters.chars()).map(|(task, letter)| {
            let state = match letter {
                'p' => TaskRunState::Pending,
                'r' => TaskRunState::Running,
                _ => TaskRunState::Dead,
            };
            let started_at = if letter == 'p' { Time::NEVER } else { Time::from_secs(1) };
            (
                task.name.clone(),
                TaskState { state, failed: letter == 'f', started_at, ..TaskState::default() },
            )
        });
        states.collect()
    }

    #[test]
    fn tasks_start_and_end_in_the_documented_order() {
        let all = ["init:prestart", "side:prestart+", "web", "hello:poststart", "bye:poststop"];
        let led = ["*web", "log", "side:prestart+"];
        type Case<'a> = (&'a [&'a str], &'a str, bool, &'a [&'a str], &'a [&'a str]);
        let cases: &[Case<'_>] = &[
            (&all, "ppppp", false, &["init", "side"], &[]),
            (&all, "drppp", false, &["side", "web"], &[]),
            (&all, "rrppp", false, &["init", "side"], &[]),
            (&all, "drrpp", false, &["side", "web", "hello"], &[]),
            (&all, "drrdp", true, &[], &["web"]),
            (&all, "drddp", true, &[], &["side"]),
            (&all, "ddddp", true, &["bye"], &[]),
            (&all, "ddddd", true, &[], &[]),
            (&all, "drddp", false, &[], &["side"]),
            (&all, "frppp", false, &[], &["web", "hello"]),
            (&all, "frddp", false, &[], &["side"]),
            (&all, "drfrp", false, &[], &["hello"]),
            (&led, "rrr", true, &[], &["web"]),
            (&led, "drr", false, &[], &["log"]),
            (&led, "ddr", false, &[], &["side"]),
            (&["a", "b"], "dr", false, &["b"], &[]),
            (&["a", "b"], "fr", false, &[], &["b"]),
        ];
        for (tasks, letters, stop, start, kill) in cases {
            let group = group(tasks);
            let steps = next_steps(&group, &states(&group, letters), *stop);
            assert_eq!(
                (&steps.start[..], &steps.kill[..]),
                (to_text(start), to_text(kill)).as_slices(),
                "{letters} {stop}"
            );
        }
    }

    fn to_text(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    trait AsSlices {
        fn as_slices(&self) -> (&[String], &[String]);
    }

    impl AsSlices for (Vec<String>, Vec<String>) {
        fn as_slices(&self) -> (&[String], &[String]) {
            (&self.0, &self.1)
        }
    }

    #[test]
    fn an_allocation_has_failed_only_once_nothing_runs() {
        let group = group(&["a", "b"]);
        for (letters, expected) in [
            ("pp", ClientStatus::Pending),
            ("rp", ClientStatus::Running),
            ("fr", ClientStatus::Running),
            ("fd", ClientStatus::Failed),
            ("dd", ClientStatus::Complete),
            ("dp", ClientStatus::Pending),
        ] {
            assert_eq!(client_status(&group, &states(&group, letters)).0, expected, "{letters}");
        }
    }
}
