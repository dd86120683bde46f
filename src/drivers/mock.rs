//! `mock_driver`: does nothing, as told, for tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Map;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::exec::ExecInput;
use crate::model::exec::ExecOutput;
use crate::model::node::DriverInfo;

use super::Driver;
use super::DriverError;
use super::ExitStatus;
use super::Progress;
use super::Started;
use super::TaskConfig;
use super::TaskHandle;
use super::TaskId;
use super::TaskStats;
use super::logs::LogFiles;
use super::options;
use super::options::Kind;
use super::options::Opt;
use super::options::Options;
use super::options::opt;
use super::process::parse_signal;
use super::refuse;
use super::session::ExecRequest;
use super::session::ExecSession;

const OPTIONS: &[Opt] = &[
    opt("run_for", Kind::Text),
    opt("exit_code", Kind::Number),
    opt("exit_signal", Kind::Number),
    opt("exit_err_msg", Kind::Text),
    opt("signal_error", Kind::Text),
    opt("start_error", Kind::Text),
    opt("start_error_recoverable", Kind::Bool),
    opt("start_block_for", Kind::Text),
    opt("kill_after", Kind::Text),
    opt("plugin_exit_after", Kind::Text),
    opt("driver_ip", Kind::Text),
    opt("driver_advertise", Kind::Bool),
    opt("driver_port_map", Kind::Text),
    opt("stdout_string", Kind::Text),
    opt("stdout_repeat", Kind::Number),
    opt("stdout_repeat_duration", Kind::Text),
    opt("stderr_string", Kind::Text),
    opt("stderr_repeat", Kind::Number),
    opt("stderr_repeat_duration", Kind::Text),
    opt("exec_command", Kind::Block),
];
const DURATIONS: &[&str] = &[
    "run_for",
    "start_block_for",
    "kill_after",
    "plugin_exit_after",
    "stdout_repeat_duration",
    "stderr_repeat_duration",
];

/// Keeps its tasks in memory: they end with the agent.
#[derive(Debug, Default)]
pub struct Mock {
    tasks: Mutex<BTreeMap<TaskId, Arc<Task>>>,
}

#[derive(Debug)]
struct Task {
    ends_at: Instant,
    own_end: ExitStatus,
    kill_after: Duration,
    signal_error: String,
    stopped: watch::Sender<bool>,
    killed: Mutex<Option<ExitStatus>>,
}

fn duration(config: &Map<String, Value>, name: &str) -> Result<Duration, String> {
    let text = config.text(name);
    if text.is_empty() {
        return Ok(Duration::ZERO);
    }
    let span = crate::model::time::Span::parse(&text);
    let span = span.map_err(|error| format!("{name} {text} not a valid duration: {error}"))?;
    Ok(Duration::from_nanos(u64::try_from(span.0).unwrap_or(0)))
}

impl Task {
    async fn end(&self) -> ExitStatus {
        let mut stopped = self.stopped.subscribe();
        tokio::select! {
            () = tokio::time::sleep_until(self.ends_at) => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
        self.killed.lock().clone().unwrap_or_else(|| self.own_end.clone())
    }

    fn kill(&self) {
        if Instant::now() < self.ends_at {
            let signal = libc::SIGKILL;
            let status = ExitStatus { code: 128 + signal, signal, ..ExitStatus::default() };
            self.killed.lock().get_or_insert(status);
        }
        self.stopped.send_replace(true);
    }
}

impl Mock {
    fn find(&self, handle: &TaskHandle) -> Result<Arc<Task>, DriverError> {
        self.tasks.lock().get(&handle.id).cloned().ok_or(DriverError::NotFound)
    }
}

fn write_output(config: &TaskConfig) -> Result<(), DriverError> {
    let Some(logs) = LogFiles::new(&config.dirs.logs, &config.id.task, &config.logs) else { return Ok(()) };
    for stream in ["stdout", "stderr"] {
        let text = config.config.text(&format!("{stream}_string"));
        let repeats = config.config.number(&format!("{stream}_repeat")).unwrap_or(0).max(0);
        if text.is_empty() {
            continue;
        }
        let written = logs
            .open(stream)
            .and_then(|mut file| (0..=repeats).try_for_each(|_| file.write(text.as_bytes())));
        written.map_err(|error| DriverError::Recoverable(format!("cannot write {stream}: {error}")))?;
    }
    Ok(())
}

#[async_trait]
impl Driver for Mock {
    fn joins_networks(&self) -> bool {
        false
    }

    fn name(&self) -> &'static str {
        "mock_driver"
    }

    async fn fingerprint(&self) -> DriverInfo {
        super::healthy("mock_driver", [])
    }

    fn validate(&self, config: &Map<String, Value>) -> Vec<String> {
        let mut problems = options::check(OPTIONS, config);
        problems.extend(DURATIONS.iter().filter_map(|name| duration(config, name).err()));
        problems
    }

    async fn start(
        &self,
        config: &TaskConfig,
        _progress: Progress,
    ) -> Result<(TaskHandle, Started), DriverError> {
        let options = &config.config;
        refuse(self.validate(options))?;
        let duration = |name| duration(options, name).map_err(DriverError::BadConfig);
        tokio::time::sleep(duration("start_block_for")?).await;
        let error = options.text("start_error");
        if !error.is_empty() {
            let recoverable = options.switch("start_error_recoverable");
            return Err(if recoverable {
                DriverError::Recoverable(error)
            } else {
                DriverError::Fatal(error)
            });
        }
        write_output(config)?;
        let number = |name| options.number(name).and_then(|value| i32::try_from(value).ok()).unwrap_or(0);
        let task = Task {
            ends_at: Instant::now() + duration("run_for")?,
            own_end: ExitStatus {
                code: number("exit_code"),
                signal: number("exit_signal"),
                oom_killed: false,
                message: options.text("exit_err_msg"),
            },
            kill_after: duration("kill_after")?,
            signal_error: options.text("signal_error"),
            stopped: watch::Sender::new(false),
            killed: Mutex::new(None),
        };
        self.tasks.lock().insert(config.id.clone(), Arc::new(task));
        let handle = TaskHandle { driver: self.name().to_owned(), id: config.id.clone(), state: Value::Null };
        let address = Some(options.text("driver_ip")).filter(|address| !address.is_empty());
        Ok((handle, Started { address }))
    }

    async fn recover(&self, handle: &TaskHandle) -> Result<Started, DriverError> {
        self.find(handle).map(|_| Started::default())
    }

    async fn wait(&self, handle: &TaskHandle) -> Result<ExitStatus, DriverError> {
        Ok(self.find(handle)?.end().await)
    }

    async fn signal(&self, handle: &TaskHandle, signal: &str) -> Result<(), DriverError> {
        let task = self.find(handle)?;
        parse_signal(signal)?;
        if task.signal_error.is_empty() {
            Ok(())
        } else {
            Err(DriverError::Recoverable(task.signal_error.clone()))
        }
    }

    async fn stop(&self, handle: &TaskHandle, _signal: &str, timeout: Duration) -> Result<(), DriverError> {
        let Ok(task) = self.find(handle) else { return Ok(()) };
        let _ = tokio::time::timeout(task.kill_after.min(timeout), task.end()).await;
        task.kill();
        Ok(())
    }

    async fn remove(&self, handle: &TaskHandle) -> Result<(), DriverError> {
        if let Some(task) = self.tasks.lock().remove(&handle.id) {
            task.kill();
        }
        Ok(())
    }

    async fn stats(&self, handle: &TaskHandle) -> Result<TaskStats, DriverError> {
        self.find(handle).map(|_| TaskStats::default())
    }

    async fn exec(
        &self,
        handle: &TaskHandle,
        command: &[String],
        _timeout: Duration,
    ) -> Result<(i32, Vec<u8>), DriverError> {
        self.find(handle)?;
        Ok((0, command.join(" ").into_bytes()))
    }

    /// Says its command line, then what is typed, until that ends.
    async fn session(&self, handle: &TaskHandle, request: &ExecRequest) -> Result<ExecSession, DriverError> {
        self.find(handle)?;
        let (session, mut ends) = ExecSession::pair();
        let first = ExecOutput::Stdout(format!("{}\n", request.command.join(" ")).into_bytes());
        tokio::spawn(async move {
            let mut says = vec![first];
            loop {
                for message in says.drain(..) {
                    if ends.output.send(message).await.is_err() {
                        return;
                    }
                }
                match ends.input.recv().await {
                    Some(ExecInput::Data(data)) => says.push(ExecOutput::Stdout(data)),
                    Some(ExecInput::Resize { rows, columns }) => {
                        says.push(ExecOutput::Stderr(format!("{rows}x{columns}\n").into_bytes()));
                    }
                    Some(ExecInput::Close) | None => {
                        // Whoever has gone away does not need to know.
                        let _ = ends.output.send(ExecOutput::Exited(0)).await;
                        return;
                    }
                }
            }
        });
        Ok(session)
    }
}
