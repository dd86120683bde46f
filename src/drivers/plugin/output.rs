//! Where a plugin's task writes to: named pipes, read by a process that keeps the log files and outlives the agent.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde::Deserialize;
use serde::Serialize;

use crate::drivers::DriverError;
use crate::drivers::TaskConfig;
use crate::drivers::logs::LogFiles;
use crate::drivers::process::Process;
use crate::drivers::supervisor::Supervisor;
use crate::drivers::supervisor::spec::RelayReply;
use crate::drivers::supervisor::spec::RelaySpec;

/// For writing out what the pipes still hold.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Written to the ledger with the task's handle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    relay: Process,
    spec: RelaySpec,
}

impl Output {
    /// Pipes and their reader; `None` if nothing is to be kept.
    ///
    /// # Errors
    /// Recoverable: what cannot be made.
    pub async fn begin(supervisor: &Supervisor, config: &TaskConfig) -> Result<Option<Self>, DriverError> {
        let Some(logs) = LogFiles::new(&config.dirs.logs, &config.id.task, &config.logs) else {
            return Ok(None);
        };
        // In the task's private directory: in the one for logs the task could put something else in their place.
        let path = |stream: &str| config.dirs.private.join(format!("{}.{stream}.fifo", config.id.run));
        let spec = RelaySpec { stdout: path("stdout"), stderr: path("stderr"), logs };
        for path in [&spec.stdout, &spec.stderr] {
            make_pipe(path).map_err(|error| failed(&error))?;
        }
        let relay = start(supervisor, &spec).await?;
        Ok(Some(Self { relay, spec }))
    }

    /// Starts the reader again if it has gone, which only happens by force.
    pub async fn resume(&self, supervisor: &Supervisor) -> Result<(), DriverError> {
        if self.relay.exists() || !self.spec.stdout.exists() {
            return Ok(());
        }
        start(supervisor, &self.spec).await.map(drop)
    }

    /// Paths for standard output and error.
    pub fn paths(&self) -> (&Path, &Path) {
        (&self.spec.stdout, &self.spec.stderr)
    }

    /// Keeps what has been written and removes the pipes.
    pub async fn end(&self) {
        if self.relay.signal(Signal::SIGTERM) {
            // One that hangs loses the end of the output, but must not hold up the task's removal.
            let _ = tokio::time::timeout(LAST_WORDS, self.relay.ended()).await;
        }
        for path in [&self.spec.stdout, &self.spec.stderr] {
            if let Err(error) = fs::remove_file(path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove a pipe");
            }
        }
    }
}

/// The device that swallows output nobody wants.
pub fn nowhere() -> PathBuf {
    PathBuf::from("/dev/null")
}

fn make_pipe(path: &Path) -> io::Result<()> {
    match mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn start(supervisor: &Supervisor, spec: &RelaySpec) -> Result<Process, DriverError> {
    match supervisor.relay(spec.clone()).await.map_err(|error| failed(&error))? {
        RelayReply::Started(process) => Ok(process),
        RelayReply::Failed(text) => Err(failed(&text)),
    }
}

fn failed(why: &dyn std::fmt::Display) -> DriverError {
    DriverError::Recoverable(format!("cannot keep the task's output: {why}"))
}
