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
use super::options::Options;
use super::process::parse_signal;
use super::refuse;
use super::session::ExecRequest;
use super::session::ExecSession;

/// Makes the driver unhealthy now and then, as its configuration wishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outage {
    /// It is well for so long, then ill for so long, and so on.
    pub period: Option<Duration>,
}

impl Outage {
    fn is_on(self, running_for: Duration) -> bool {
        let periods = self.period.filter(|period| !period.is_zero());
        periods.is_some_and(|period| running_for.as_nanos() / period.as_nanos() % 2 == 1)
    }
}

/// Keeps its tasks in memory: they end with the agent.
#[derive(Debug)]
pub struct Mock {
    tasks: Mutex<BTreeMap<TaskId, Arc<Task>>>,
    outage: Outage,
    begun: Instant,
}

#[derive(Debug)]
struct Task {
    ends_at: Instant,
    own_end: ExitStatus,
    kill_after: Duration,
    signal_error: String,
    /// The driver forgets the task at this moment, as a plugin that crashed would.
    forgotten_at: Option<Instant>,
    exec: Map<String, Value>,
    started: Started,
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
    /// No tasks yet.
    pub fn new(outage: Outage) -> Self {
        Self { tasks: Mutex::default(), outage, begun: Instant::now() }
    }

    fn find(&self, handle: &TaskHandle) -> Result<Arc<Task>, DriverError> {
        let found = self.tasks.lock().get(&handle.id).cloned().ok_or(DriverError::NotFound)?;
        let forgotten = found.forgotten_at.is_some_and(|moment| moment <= Instant::now());
        if forgotten { Err(DriverError::NotFound) } else { Ok(found) }
    }
}

/// One stream's text, as often as wanted.
struct Speech {
    stream: &'static str,
    text: String,
    times: i64,
    pause: Duration,
}

fn speeches(options: &Map<String, Value>) -> Result<Vec<Speech>, String> {
    let mut found = Vec::new();
    for stream in ["stdout", "stderr"] {
        found.push(Speech {
            stream,
            text: options.text(&format!("{stream}_string")),
            times: options.number(&format!("{stream}_repeat")).unwrap_or(0).max(0) + 1,
            pause: duration(options, &format!("{stream}_repeat_duration"))?,
        });
    }
    found.retain(|speech| !speech.text.is_empty());
    Ok(found)
}

/// Says everything that needs no pause at once, and the rest while the task runs.
fn write_output(config: &TaskConfig, task: &Arc<Task>) -> Result<(), DriverError> {
    let Some(logs) = LogFiles::new(&config.dirs.logs, &config.id.task, &config.logs) else { return Ok(()) };
    for Speech { stream, text, times, pause } in speeches(&config.config).map_err(DriverError::BadConfig)? {
        let broken = |error| DriverError::Recoverable(format!("cannot write {stream}: {error}"));
        let mut file = logs.open(stream).map_err(broken)?;
        if pause.is_zero() {
            (0..times).try_for_each(|_| file.write(text.as_bytes())).map_err(broken)?;
            continue;
        }
        let task = Arc::clone(task);
        tokio::spawn(async move {
            for time in 0..times {
                if time > 0 && tokio::time::timeout(pause, task.end()).await.is_ok() {
                    return;
                }
                // A full disk loses output, but never stops the task.
                let _ = file.write(text.as_bytes());
            }
        });
    }
    Ok(())
}

/// `label:port`, separated by blanks.
fn port_map(text: &str) -> Result<BTreeMap<String, u16>, String> {
    let pair = |part: &str| {
        let (label, port) = part.split_once(':')?;
        Some((label.to_owned(), port.parse().ok()?))
    };
    let parts = text.split_ascii_whitespace();
    parts.map(|part| pair(part).ok_or_else(|| format!("malformed driver_port_map: {part:?}"))).collect()
}

fn exit_of(options: &Map<String, Value>) -> ExitStatus {
    let number = |name| options.number(name).and_then(|value| i32::try_from(value).ok()).unwrap_or(0);
    ExitStatus {
        code: number("exit_code"),
        signal: number("exit_signal"),
        oom_killed: false,
        message: options.text("exit_err_msg"),
    }
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
        if self.outage.is_on(self.begun.elapsed()) {
            return super::undetected("mock driver is shut down for a while");
        }
        super::healthy("mock_driver", [])
    }

    async fn start(
        &self,
        config: &TaskConfig,
        _progress: Progress,
    ) -> Result<(TaskHandle, Started), DriverError> {
        let options = &config.config;
        refuse(self.validate(options))?;
        refuse(super::value_problems(self.name(), options))?;
        let exec = options.blocks("exec_command").into_iter().next().unwrap_or_default();
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
        let forgotten = duration("plugin_exit_after")?;
        let started = Started {
            address: Some(options.text("driver_ip")).filter(|address| !address.is_empty()),
            advertise: options.switch("driver_advertise"),
            ports: port_map(&options.text("driver_port_map")).map_err(DriverError::BadConfig)?,
        };
        let task = Arc::new(Task {
            ends_at: Instant::now() + duration("run_for")?,
            own_end: exit_of(options),
            kill_after: duration("kill_after")?,
            signal_error: options.text("signal_error"),
            forgotten_at: Some(forgotten)
                .filter(|after| !after.is_zero())
                .map(|after| Instant::now() + after),
            exec,
            started: started.clone(),
            stopped: watch::Sender::new(false),
            killed: Mutex::new(None),
        });
        write_output(config, &task)?;
        self.tasks.lock().insert(config.id.clone(), task);
        let handle = TaskHandle { driver: self.name().to_owned(), id: config.id.clone(), state: Value::Null };
        Ok((handle, started))
    }

    async fn recover(&self, handle: &TaskHandle) -> Result<Started, DriverError> {
        self.find(handle).map(|task| task.started.clone())
    }

    async fn wait(&self, handle: &TaskHandle) -> Result<ExitStatus, DriverError> {
        let task = self.find(handle)?;
        match task.forgotten_at {
            None => Ok(task.end().await),
            Some(moment) => {
                tokio::time::timeout_at(moment, task.end()).await.map_err(|_| DriverError::NotFound)
            }
        }
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
        timeout: Duration,
    ) -> Result<(i32, Vec<u8>), DriverError> {
        let task = self.find(handle)?;
        if task.exec.is_empty() {
            return Ok((0, command.join(" ").into_bytes()));
        }
        let run_for = duration(&task.exec, "run_for").map_err(DriverError::BadConfig)?;
        tokio::time::sleep(run_for.min(timeout)).await;
        if run_for > timeout {
            return Err(DriverError::Recoverable(format!("command did not end within {timeout:?}")));
        }
        let end = exit_of(&task.exec);
        if !end.message.is_empty() {
            return Err(DriverError::Recoverable(end.message));
        }
        let mut output = String::new();
        for speech in speeches(&task.exec).map_err(DriverError::BadConfig)? {
            (0..speech.times).for_each(|_| output.push_str(&speech.text));
        }
        Ok((if end.signal == 0 { end.code } else { 128 + end.signal }, output.into_bytes()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_comes_and_goes() {
        let outage = Outage { period: Some(Duration::from_secs(10)) };
        let seen = [0, 9, 10, 19, 20, 35].map(|seconds| outage.is_on(Duration::from_secs(seconds)));
        assert_eq!(seen, [false, false, true, true, false, true]);
        assert!(!Outage::default().is_on(Duration::from_secs(10)));
    }

    #[test]
    fn ports_are_named_by_label() {
        assert_eq!(port_map("http:80 db:5432").unwrap()["db"], 5432);
        assert!(port_map("http").unwrap_err().contains("\"http\""));
    }
}
