//! Task states and events with all of Nomad's keys, the older ones filled from the event's details.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::allocation::TaskEvent;
use crate::model::allocation::TaskState;
use crate::model::time::Span;
use crate::model::time::Time;

/// State of one task.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskStateView {
    pub state: &'static str,
    pub failed: bool,
    pub restarts: u64,
    pub last_restart: Time,
    pub started_at: Time,
    pub finished_at: Time,
    pub events: Vec<TaskEventView>,
    pub task_handle: Option<()>,
    pub paused: &'static str,
}

/// Something that happened to a task.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskEventView {
    #[serde(rename = "Type")]
    pub kind: String,
    pub time: i64,
    pub message: String,
    pub display_message: String,
    pub details: BTreeMap<String, String>,
    pub fails_task: bool,
    pub restart_reason: String,
    pub setup_error: String,
    pub driver_error: String,
    pub exit_code: i64,
    pub signal: i64,
    /// Nanoseconds.
    pub kill_timeout: i64,
    pub kill_error: String,
    pub kill_reason: String,
    /// Nanoseconds.
    pub start_delay: i64,
    pub download_error: String,
    pub validation_error: String,
    pub disk_limit: i64,
    pub failed_sibling: String,
    pub vault_error: String,
    pub task_signal_reason: String,
    pub task_signal: String,
    pub driver_message: String,
    pub generic_source: String,
}

/// The states of all tasks of an allocation.
pub fn states(tasks: &BTreeMap<String, TaskState>) -> BTreeMap<String, TaskStateView> {
    tasks.iter().map(|(name, state)| (name.clone(), view(state))).collect()
}

fn view(state: &TaskState) -> TaskStateView {
    TaskStateView {
        state: state.state.as_str(),
        failed: state.failed,
        restarts: state.restarts,
        last_restart: state.last_restart,
        started_at: state.started_at,
        finished_at: state.finished_at,
        events: state.events.iter().map(event).collect(),
        task_handle: None,
        paused: "",
    }
}

fn event(event: &TaskEvent) -> TaskEventView {
    let detail = |key: &str| event.details.get(key).cloned().unwrap_or_default();
    let number = |key: &str| event.details.get(key).and_then(|text| text.parse().ok()).unwrap_or(0);
    let span = |key: &str| {
        let text = event.details.get(key)?;
        text.parse().ok().or_else(|| Span::parse(text).ok().map(|span| span.0))
    };
    TaskEventView {
        kind: event.kind.clone(),
        time: event.time,
        message: detail("message"),
        display_message: event.display_message.clone(),
        details: event.details.clone(),
        fails_task: event.fails_task,
        restart_reason: detail("restart_reason"),
        setup_error: detail("setup_error"),
        driver_error: detail("driver_error"),
        exit_code: event.exit_code,
        signal: event.signal,
        kill_timeout: span("kill_timeout").unwrap_or(0),
        kill_error: detail("kill_error"),
        kill_reason: detail("kill_reason"),
        start_delay: span("start_delay").unwrap_or(0),
        download_error: detail("download_error"),
        validation_error: detail("validation_error"),
        disk_limit: number("disk_limit"),
        failed_sibling: detail("failed_sibling"),
        vault_error: detail("vault_renewal_error"),
        task_signal_reason: detail("task_signal_reason"),
        task_signal: detail("task_signal"),
        driver_message: detail("driver_message"),
        generic_source: String::new(),
    }
}
