//! Copies a container's output into the task's log files. Docker keeps it meanwhile, so an agent that comes back goes on
//! where it stopped: the position is stored with the sizes of the files, and what was written after it is written anew.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use chrono::DateTime;
use futures::StreamExt;
use serde::Deserialize;
use serde::Serialize;

use crate::drivers::logs::LogFiles;
use crate::drivers::logs::RotatingFile;

/// Up to where the output has been copied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    /// Docker's time of the newest entry copied; always of the same length, so it sorts as text.
    time: String,
    /// How many entries of that very time have been copied.
    count: u64,
    /// Number and size of the newest file of each stream.
    stdout: (u64, u64),
    stderr: (u64, u64),
}

/// Copies until the container ends.
pub(super) struct Follower {
    docker: Docker,
    container: String,
    position: Position,
    position_file: PathBuf,
    stdout: RotatingFile,
    stderr: RotatingFile,
    /// The beginning of a line whose end has not come yet; only of containers with a terminal.
    partial: Vec<u8>,
    /// Entries of the stored time seen again.
    repeated: u64,
}

impl Follower {
    /// Opens the files and goes back to the stored position, if there is one.
    pub(super) fn open(
        docker: Docker,
        container: &str,
        files: &LogFiles,
        position_file: &Path,
    ) -> io::Result<Self> {
        let (mut stdout, mut stderr) = (files.open("stdout")?, files.open("stderr")?);
        let stored = fs::read_to_string(position_file).ok().and_then(|text| serde_json::from_str(&text).ok());
        let position = match stored {
            Some(position) => {
                let position: Position = position;
                stdout.rewind(position.stdout)?;
                stderr.rewind(position.stderr)?;
                position
            }
            None => Position { stdout: stdout.position(), stderr: stderr.position(), ..Position::default() },
        };
        let mut follower = Self {
            docker,
            container: container.to_owned(),
            position,
            position_file: position_file.to_path_buf(),
            stdout,
            stderr,
            partial: Vec::new(),
            repeated: 0,
        };
        follower.store()?;
        Ok(follower)
    }

    /// Copies what there is and what comes, until the container ends or Docker goes away.
    pub(super) async fn run(&mut self) {
        let since = DateTime::parse_from_rfc3339(&self.position.time).map_or(0, |time| time.timestamp());
        let options = LogsOptionsBuilder::default()
            .follow(true)
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .since(i32::try_from(since).unwrap_or(0))
            .tail("all")
            .build();
        self.repeated = 0;
        let stream = self.docker.logs(&self.container, Some(options));
        // Whatever is ready at once is written before the position is stored once.
        let mut batches = Box::pin(stream).ready_chunks(256);
        while let Some(batch) = batches.next().await {
            let mut broken = false;
            for entry in batch {
                match entry {
                    Ok(entry) => self.take(entry),
                    Err(_) => broken = true,
                }
            }
            // Without the position the same output would only be copied again.
            let _ = self.store();
            if broken {
                return;
            }
        }
        if !self.partial.is_empty() {
            let rest = std::mem::take(&mut self.partial);
            self.entry(&rest, false);
            let _ = self.store();
        }
    }

    fn take(&mut self, entry: LogOutput) {
        match entry {
            LogOutput::StdOut { message } => self.entry(&message, false),
            LogOutput::StdErr { message } => self.entry(&message, true),
            // A terminal's output comes in pieces of any length.
            LogOutput::Console { message } => {
                self.partial.extend_from_slice(&message);
                while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = self.partial.drain(..=end).collect();
                    self.entry(&line, false);
                }
            }
            LogOutput::StdIn { .. } => {}
        }
    }

    fn entry(&mut self, message: &[u8], is_error: bool) {
        let blank = message.iter().position(|byte| *byte == b' ').unwrap_or(message.len());
        let time = String::from_utf8_lossy(&message[..blank]).into_owned();
        let text = message.get(blank + 1..).unwrap_or_default();
        if time < self.position.time {
            return;
        }
        if time == self.position.time {
            self.repeated += 1;
            if self.repeated <= self.position.count {
                return;
            }
        } else {
            self.repeated = 1;
        }
        self.position.time = time;
        self.position.count = self.repeated;
        // A full disk loses output, but never stops the task.
        let _ = if is_error { self.stderr.write(text) } else { self.stdout.write(text) };
    }

    fn store(&mut self) -> io::Result<()> {
        self.position.stdout = self.stdout.position();
        self.position.stderr = self.stderr.position();
        let temporary = self.position_file.with_extension("new");
        fs::write(&temporary, serde_json::to_vec(&self.position)?)?;
        fs::rename(&temporary, &self.position_file)
    }
}
