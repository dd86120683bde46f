//! Events of tasks, in Nomad's types and texts.

use std::collections::BTreeMap;

use crate::agent::restart::WITHIN_POLICY;
use crate::drivers::DriverError;
use crate::drivers::ExitStatus;
use crate::model::allocation::TASK_EVENTS_KEPT;
use crate::model::allocation::TaskEvent;
use crate::model::allocation::TaskState;
use crate::model::multierror::multierror;
use crate::model::time::Span;
use crate::model::time::Time;

/// Adds an event and drops the oldest beyond the limit.
pub fn record(state: &mut TaskState, now: Time, mut event: TaskEvent) {
    event.time = now.0;
    let surplus = (state.events.len() + 1).saturating_sub(TASK_EVENTS_KEPT);
    state.events.drain(..surplus);
    state.events.push(event);
}

/// An event with a text of its own.
pub fn plain(kind: &str, message: impl Into<String>) -> TaskEvent {
    TaskEvent { kind: kind.to_owned(), display_message: message.into(), ..TaskEvent::default() }
}

fn detailed(kind: &str, message: String, details: &[(&str, String)]) -> TaskEvent {
    let details: BTreeMap<String, String> =
        details.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    TaskEvent { details, ..plain(kind, message) }
}

pub fn received() -> TaskEvent {
    plain("Received", "Task received by client")
}

pub fn setup() -> TaskEvent {
    detailed("Task Setup", "Building Task Directory".into(), &[("message", "Building Task Directory".into())])
}

pub fn started() -> TaskEvent {
    plain("Started", "Task started by client")
}

pub fn downloading() -> TaskEvent {
    plain("Downloading Artifacts", "Client is downloading artifacts")
}

pub fn download_failed(error: &str) -> TaskEvent {
    detailed("Failed Artifact Download", error.to_owned(), &[("download_error", error.to_owned())])
}

pub fn hook_failed(text: &str) -> TaskEvent {
    detailed("Task hook failed", text.to_owned(), &[("message", text.to_owned())])
}

pub fn hook_message(text: &str) -> TaskEvent {
    detailed("Task hook message", text.to_owned(), &[("message", text.to_owned())])
}

pub fn template(text: &str) -> TaskEvent {
    detailed("Template", text.to_owned(), &[("message", text.to_owned())])
}

pub fn driver(text: &str) -> TaskEvent {
    detailed("Driver", text.to_owned(), &[("driver_message", text.to_owned())])
}

/// Names and types of a driver's options are wrong.
pub fn options_refused(problems: Vec<String>) -> TaskEvent {
    let all = std::iter::once("failed to parse config: ".to_owned()).chain(problems);
    let error = multierror(&all.collect::<Vec<_>>());
    detailed("Failed Validation", error.clone(), &[("validation_error", error)])
}

pub fn driver_failed(error: &str) -> TaskEvent {
    detailed("Driver Failure", error.to_owned(), &[("driver_error", error.to_owned())])
}

pub fn restore_failed() -> TaskEvent {
    let text = "failed to restore task; it is started anew";
    detailed("Failed Restoring Task", text.into(), &[("message", text.into())])
}

pub fn terminated(exit: &ExitStatus) -> TaskEvent {
    let mut text = format!("Exit Code: {}", exit.code);
    if exit.signal != 0 {
        text.push_str(&format!(", Signal: {}", exit.signal));
    }
    if !exit.message.is_empty() {
        text.push_str(&format!(", Exit Message: {:?}", exit.message));
    }
    let mut details = vec![
        ("exit_code", exit.code.to_string()),
        ("signal", exit.signal.to_string()),
        ("oom_killed", exit.oom_killed.to_string()),
    ];
    if !exit.message.is_empty() {
        details.push(("exit_message", exit.message.clone()));
    }
    let event = detailed("Terminated", text, &details);
    TaskEvent { exit_code: exit.code.into(), signal: exit.signal.into(), ..event }
}

pub fn restarting(after: Span, reason: &str) -> TaskEvent {
    let text = format!("Task restarting in {after}");
    let text = if reason.is_empty() || reason == WITHIN_POLICY { text } else { format!("{reason} - {text}") };
    detailed(
        "Restarting",
        text,
        &[("start_delay", after.0.to_string()), ("restart_reason", reason.to_owned())],
    )
}

pub fn not_restarting(reason: &str) -> TaskEvent {
    let event = detailed(
        "Not Restarting",
        reason.to_owned(),
        &[("restart_reason", reason.to_owned()), ("fails_task", "true".into())],
    );
    TaskEvent { fails_task: true, ..event }
}

pub fn restart_signaled(reason: &str) -> TaskEvent {
    detailed("Restart Signaled", reason.to_owned(), &[("restart_reason", reason.to_owned())])
}

pub fn signaling(signal: &str, reason: &str) -> TaskEvent {
    let text = if reason.is_empty() { "Task being sent a signal" } else { reason };
    detailed(
        "Signaling",
        text.to_owned(),
        &[("task_signal", signal.to_owned()), ("task_signal_reason", reason.to_owned())],
    )
}

/// Go's word for a signal, as Nomad's events have it.
pub fn signal_word(signal: &str) -> &str {
    match signal {
        "SIGABRT" => "aborted",
        "SIGALRM" => "alarm clock",
        "SIGHUP" => "hangup",
        "SIGINT" => "interrupt",
        "SIGKILL" => "killed",
        "SIGPIPE" => "broken pipe",
        "SIGQUIT" => "quit",
        "SIGTERM" => "terminated",
        "SIGUSR1" => "user defined signal 1",
        "SIGUSR2" => "user defined signal 2",
        other => other,
    }
}

pub fn killing(timeout: Span) -> TaskEvent {
    let text = format!("Sent interrupt. Waiting {timeout} before force killing");
    detailed("Killing", text, &[("kill_timeout", timeout.to_string())])
}

pub fn killing_because(reason: &str) -> TaskEvent {
    let event = detailed("Killing", reason.to_owned(), &[("kill_reason", reason.to_owned())]);
    TaskEvent { fails_task: true, ..event }
}

pub fn killed() -> TaskEvent {
    plain("Killed", "Task successfully killed")
}

pub fn shutdown_delay(delay: Span) -> TaskEvent {
    plain(
        "Waiting for shutdown delay",
        format!("Waiting for shutdown_delay of {delay} before killing the task."),
    )
}

pub fn sibling_failed(sibling: &str) -> TaskEvent {
    let text = format!("Task's sibling {sibling:?} failed");
    detailed("Sibling Task Failed", text, &[("failed_sibling", sibling.to_owned())])
}

pub fn leader_dead() -> TaskEvent {
    plain("Leader Task Dead", "Leader Task in Group dead")
}

pub fn main_dead() -> TaskEvent {
    plain("Main Tasks Dead", "Main tasks in the group died")
}

pub fn unhealthy(text: &str) -> TaskEvent {
    detailed("Alloc Unhealthy", text.to_owned(), &[("message", text.to_owned())])
}

/// How a template's change script went, and whether that is a failure.
pub fn script_ran(
    command: &str,
    args: &[String],
    result: Result<(i32, Vec<u8>), DriverError>,
) -> (TaskEvent, bool) {
    let args = args.join(" ");
    match result {
        Ok((0, _)) => {
            let text =
                format!("Template successfully ran script {command} with arguments: [{args}]. Exit code: 0");
            (hook_message(&text), false)
        }
        Ok((code, _)) => {
            let text = format!(
                "Template ran script {command} with arguments [{args}] on change but it exited with code: {code}"
            );
            (hook_failed(&text), true)
        }
        Err(error) => {
            let text =
                format!("Template failed to run script {command} with arguments [{args}] on change: {error}");
            (hook_failed(&text), true)
        }
    }
}
