//! Interactive commands in containers. Docker does not end such a command when its connection closes, so that is done
//! here.

use std::pin::Pin;
use std::time::Duration;

use bollard::Docker as Client;
use bollard::container::LogOutput;
use bollard::exec::CreateExecOptions;
use bollard::exec::ResizeExecOptions;
use bollard::exec::StartExecOptions;
use bollard::exec::StartExecResults;
use futures::StreamExt;
use nix::sys::signal::Signal;
use nix::sys::signal::killpg;
use nix::unistd::Pid;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::drivers::DriverError;
use crate::drivers::process::Process;
use crate::drivers::session::ExecRequest;
use crate::drivers::session::ExecSession;
use crate::drivers::session::SessionEnds;
use crate::model::exec::ExecInput;
use crate::model::exec::ExecOutput;

/// Right after the start there is not yet a terminal to resize: it is tried this often, this far apart.
const RESIZE_TRIES: u32 = 20;
const RESIZE_PAUSE: Duration = Duration::from_millis(50);

type Output = Pin<Box<dyn futures::Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>;
type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// Starts the command and looks after it in a task of its own.
///
/// # Errors
/// Docker refuses, or the container is gone.
pub(super) async fn start(
    client: Client,
    container: &str,
    request: &ExecRequest,
) -> Result<ExecSession, DriverError> {
    let options = CreateExecOptions {
        cmd: Some(request.command.clone()),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(request.tty),
        ..CreateExecOptions::default()
    };
    let refused = |error: bollard::errors::Error| match super::status(&error) {
        Some(404) => DriverError::NotFound,
        _ => DriverError::Recoverable(format!("failed to create exec object: {}", super::words(&error))),
    };
    let exec = client.create_exec(container, options).await.map_err(refused)?.id;
    let options = StartExecOptions { tty: request.tty, ..StartExecOptions::default() };
    let begun = client.start_exec(&exec, Some(options)).await.map_err(refused)?;
    let StartExecResults::Attached { output, input } = begun else {
        return Err(DriverError::Recoverable("docker did not attach to the command".to_owned()));
    };
    let (session, ends) = ExecSession::pair();
    tokio::spawn(serve(client, exec, container.to_owned(), (output, input), ends));
    Ok(session)
}

async fn serve(client: Client, exec: String, container: String, streams: (Output, Input), ends: SessionEnds) {
    let SessionEnds { input, output: told } = ends;
    let (output, typed) = streams;
    let ended = tokio::select! {
        () = hear(output, &told) => true,
        () = tell(&client, &exec, typed, input) => false,
        () = told.closed() => false,
    };
    if !ended {
        return abandon(&client, &exec, &container).await;
    }
    let code = client.inspect_exec(&exec).await.ok().and_then(|found| found.exit_code);
    if let Some(code) = code.and_then(|code| i32::try_from(code).ok()) {
        // Whoever has gone away does not need to know.
        let _ = told.send(ExecOutput::Exited(code)).await;
    }
}

/// Passes on what the command says, until it has nothing more to say.
async fn hear(mut output: Output, told: &mpsc::Sender<ExecOutput>) {
    while let Some(Ok(part)) = output.next().await {
        let message = match part {
            LogOutput::StdErr { message } => ExecOutput::Stderr(message.to_vec()),
            LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => {
                ExecOutput::Stdout(message.to_vec())
            }
        };
        if told.send(message).await.is_err() {
            return;
        }
    }
}

/// Passes on what is typed; without more to type the command goes on.
async fn tell(client: &Client, exec: &str, mut typed: Input, mut input: mpsc::Receiver<ExecInput>) {
    while let Some(message) = input.recv().await {
        match message {
            // A command that does not listen any more may still have something to say.
            ExecInput::Data(data) => {
                if typed.write_all(&data).await.is_ok() {
                    let _ = typed.flush().await;
                }
            }
            ExecInput::Close => {
                let _ = typed.shutdown().await;
            }
            ExecInput::Resize { rows, columns } => resize(client, exec, rows, columns).await,
        }
    }
    std::future::pending::<()>().await;
    drop(typed);
}

async fn resize(client: &Client, exec: &str, rows: u16, columns: u16) {
    for _ in 0..RESIZE_TRIES {
        let size = ResizeExecOptions { height: rows, width: columns };
        if client.resize_exec(exec, size).await.is_ok() {
            return;
        }
        tokio::time::sleep(RESIZE_PAUSE).await;
    }
}

/// Ends a command that nobody listens to, if it is a process of this machine and of that container.
async fn abandon(client: &Client, exec: &str, container: &str) {
    let Ok(found) = client.inspect_exec(exec).await else { return };
    let pid = found.pid.filter(|_| found.running == Some(true)).and_then(|pid| i32::try_from(pid).ok());
    let Some(process) = pid.and_then(|pid| Process::of_pid(pid).ok()) else { return };
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).unwrap_or_default();
    if groups.contains(container) {
        process.signal(Signal::SIGKILL);
        // It began a session of its own, so its children are in a group of that number.
        let _ = killpg(Pid::from_raw(process.pid), Signal::SIGKILL);
    }
}
