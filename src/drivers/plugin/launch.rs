//! Starts a plugin's process, reads the line in which it says where it listens, and keeps what it writes.

use std::io;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncRead;
use tokio::io::BufReader;
use tokio::io::Lines;
use tokio::process::ChildStderr;
use tokio::process::ChildStdout;
use tonic::transport::Channel;
use tonic::transport::Endpoint;

use crate::drivers::process::Process;

use super::PluginError;

/// Proves to the plugin that a host of this kind started it.
const COOKIE: (&str, &str) =
    ("NOMAD_PLUGIN_MAGIC_COOKIE", "e4327c2e01eabfd75a8a67adb114fb34a757d57eee7728d857a8cec6e91a7255");
/// Version of the handshake line.
const CORE_PROTOCOL: &str = "1";
/// Version of what is spoken afterwards.
const APP_PROTOCOL: &str = "2";
/// A plugin that has not said where it listens by then is ended.
const START_LIMIT: Duration = Duration::from_secs(30);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// For reading why a plugin has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Addresses of sockets cannot be longer than about 107 bytes, and plugins append a name.
const LONGEST_SOCKET_DIR: usize = 80;

/// How a plugin is started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Launch {
    pub file: PathBuf,
    pub args: Vec<String>,
    /// Plugins put their sockets here; nobody else can enter it.
    pub sockets: PathBuf,
    /// Ports for plugins that listen on one.
    pub ports: (u16, u16),
}

/// A plugin that listens. Dropping it ends the process at once.
#[derive(Debug)]
pub struct Started {
    pub channel: Channel,
    pub guard: Guard,
}

/// Ends a plugin's process when it is dropped.
#[derive(Debug)]
pub struct Guard {
    pub process: Process,
    child: Option<Child>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.process.signal(Signal::SIGKILL);
        if let Some(mut child) = self.child.take() {
            // Reaping must not hold up the runtime: a process that was killed may take a moment.
            std::thread::spawn(move || drop(child.wait()));
        }
    }
}

impl Launch {
    /// Starts the plugin and connects to it.
    ///
    /// # Errors
    /// It cannot be executed, does not speak the protocol, or does not answer.
    pub async fn start(&self) -> Result<Started, PluginError> {
        let mut child =
            spawn(self.command()).map_err(|source| self.failed(&format!("cannot run it: {source}")))?;
        let broken = |error: io::Error| self.failed(&error.to_string());
        let process = Process::of_pid(i32::try_from(child.id()).unwrap_or_default());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let guard =
            Guard { process: process.map_err(|error| self.failed(&error.to_string()))?, child: Some(child) };
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err(self.failed("its output is not connected"));
        };
        let name = self.name();
        let said = tokio::spawn(keep_errors(name.clone(), ChildStderr::from_std(stderr).map_err(broken)?));
        let mut lines = BufReader::new(ChildStdout::from_std(stdout).map_err(broken)?).lines();
        let line = match tokio::time::timeout(START_LIMIT, lines.next_line()).await {
            Ok(Ok(Some(line))) => line,
            Ok(Ok(None) | Err(_)) => {
                drop(guard);
                // A child of the plugin may hold its standard error open.
                let said = tokio::time::timeout(LAST_WORDS, said).await;
                let said = said.ok().and_then(Result::ok).unwrap_or_default();
                return Err(self.failed(&format!("it ended before it said where it listens{said}")));
            }
            Err(_) => {
                return Err(self.failed(&format!("it did not say where it listens within {START_LIMIT:?}")));
            }
        };
        let address = address_of(&line).map_err(|why| self.failed(&why))?;
        tokio::spawn(keep_output(name, lines));
        let endpoint = Endpoint::from_shared(address.clone())
            .map_err(|error| self.failed(&format!("{address}: {error}")))?
            .connect_timeout(CONNECT_LIMIT);
        let channel = endpoint.connect().await;
        let channel =
            channel.map_err(|error| self.failed(&format!("it does not listen on {address}: {error}")))?;
        Ok(Started { channel, guard })
    }

    /// The file's name, which is the plugin's name in the agent's configuration.
    pub fn name(&self) -> String {
        self.file.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn failed(&self, why: &str) -> PluginError {
        PluginError { plugin: self.file.display().to_string(), why: why.to_owned() }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.file);
        command.args(&self.args).env(COOKIE.0, COOKIE.1);
        command.env("PLUGIN_PROTOCOL_VERSIONS", APP_PROTOCOL);
        command.env("PLUGIN_MIN_PORT", self.ports.0.to_string());
        command.env("PLUGIN_MAX_PORT", self.ports.1.to_string());
        // Would make the plugin demand a certificate that we do not have.
        command.env_remove("PLUGIN_CLIENT_CERT").env_remove("PLUGIN_UNIX_SOCKET_DIR");
        if self.sockets.as_os_str().len() <= LONGEST_SOCKET_DIR && self.sockets.is_dir() {
            command.env("PLUGIN_UNIX_SOCKET_DIR", &self.sockets);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Starts a process that ends when this program does, however that comes about.
fn spawn(mut command: Command) -> io::Result<Child> {
    use std::os::unix::process::CommandExt;
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<parking_lot::Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    // Own process group: an interrupt typed at the agent's terminal is for the agent.
    command.process_group(0);
    // SAFETY: the closure makes one system call between fork and exec.
    unsafe {
        command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from));
    }
    // The kernel sends that signal when the thread that forked ends, so it has to be one that stays.
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, waiting) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in waiting {
                // Nobody waits any more: the child is dropped, and ends with this program.
                let _ = reply.send(command.spawn());
            }
        });
        parking_lot::Mutex::new(orders)
    });
    let (reply, answer) = mpsc::channel();
    let gone = |_| io::Error::other("the thread that starts plugins has ended");
    spawner.lock().send((command, reply)).map_err(|_| gone(mpsc::RecvError))?;
    answer.recv().map_err(gone)?
}

/// `1|2|unix|/run/x.sock|grpc`, perhaps with more fields that are empty unless encryption is on.
fn address_of(line: &str) -> Result<String, String> {
    let fields: Vec<&str> = line.trim().split('|').collect();
    let [core, app, network, address, rest @ ..] = fields.as_slice() else {
        return Err(format!("it is not a plugin: it said {line:?}"));
    };
    if *core != CORE_PROTOCOL {
        return Err(format!("it speaks version {core:?} of the plugin protocol, not {CORE_PROTOCOL}"));
    }
    if *app != APP_PROTOCOL {
        return Err(format!("it speaks version {app:?} of the driver protocol, not {APP_PROTOCOL}"));
    }
    if rest.first().is_none_or(|protocol| *protocol != "grpc") {
        return Err("it does not speak gRPC".to_owned());
    }
    if rest.get(1).is_some_and(|certificate| !certificate.is_empty()) {
        return Err("it insists on encryption, which was not asked for".to_owned());
    }
    match *network {
        "unix" => Ok(format!("unix:{address}")),
        "tcp" => Ok(format!("http://{address}")),
        other => Err(format!("it listens on an unknown kind of network, {other:?}")),
    }
}

/// Logs what a plugin writes to standard error; its last lines, in case it ends early.
async fn keep_errors(plugin: String, from: impl AsyncRead + Unpin) -> String {
    let mut last = String::new();
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if !line.trim().is_empty() {
            last = format!(": {}", line.trim());
        }
        log_line(&plugin, &line);
    }
    last
}

async fn keep_output(plugin: String, mut lines: Lines<impl AsyncBufReadExt + Unpin>) {
    while let Ok(Some(line)) = lines.next_line().await {
        log_line(&plugin, &line);
    }
}

/// Plugins log lines of JSON with their level; anything else is told as it is.
pub(super) fn log_line(plugin: &str, line: &str) {
    let (level, message) = read_log_line(line);
    match level {
        "trace" => tracing::trace!(plugin, "{message}"),
        "debug" => tracing::debug!(plugin, "{message}"),
        "warn" => tracing::warn!(plugin, "{message}"),
        "error" => tracing::error!(plugin, "{message}"),
        _ => tracing::info!(plugin, "{message}"),
    }
}

fn read_log_line(line: &str) -> (&'static str, String) {
    const LEVELS: [&str; 5] = ["trace", "debug", "info", "warn", "error"];
    let known = |level: &str| LEVELS.into_iter().find(|name| level.eq_ignore_ascii_case(name));
    if let Ok(Value::Object(mut fields)) = serde_json::from_str::<Value>(line)
        && let Some(Value::String(message)) = fields.remove("@message")
    {
        let level = fields.remove("@level");
        let level = level.as_ref().and_then(Value::as_str).and_then(known).unwrap_or("info");
        let details = fields.iter().filter(|(name, _)| !name.starts_with('@'));
        let details = details.map(|(name, value)| match value {
            Value::String(text) => format!(" {name}={text}"),
            other => format!(" {name}={other}"),
        });
        return (level, message + &details.collect::<String>());
    }
    let bracketed = line.find('[').and_then(|at| line[at + 1..].split_once(']'));
    let level = bracketed.and_then(|(level, _)| known(level)).unwrap_or("debug");
    (level, line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_says_where_to_connect() {
        assert_eq!(address_of("1|2|unix|/tmp/p1|grpc\n").unwrap(), "unix:/tmp/p1");
        assert_eq!(address_of("1|2|tcp|127.0.0.1:14000|grpc||true").unwrap(), "http://127.0.0.1:14000");
        for (line, why) in [
            ("hello", "it is not a plugin: it said \"hello\""),
            ("2|2|unix|/p|grpc", "it speaks version \"2\" of the plugin protocol, not 1"),
            ("1|1|unix|/p|grpc", "it speaks version \"1\" of the driver protocol, not 2"),
            ("1|2|unix|/p|netrpc", "it does not speak gRPC"),
            ("1|2|unix|/p|grpc|MIIB", "it insists on encryption, which was not asked for"),
            ("1|2|vsock|/p|grpc", "it listens on an unknown kind of network, \"vsock\""),
        ] {
            assert_eq!(address_of(line).unwrap_err(), why);
        }
    }

    #[test]
    fn log_lines_keep_their_level() {
        let json = r#"{"@level":"warn","@message":"no image","@module":"podman","image":"x","n":1}"#;
        assert_eq!(read_log_line(json), ("warn", "no image image=x n=1".to_owned()));
        let line = "2026-01-01T00:00:00Z [ERROR] podman: broken";
        assert_eq!(read_log_line(line), ("error", line.to_owned()));
        assert_eq!(read_log_line("plain").0, "debug");
    }

    #[tokio::test]
    async fn a_program_that_is_no_plugin_is_refused_with_its_last_words() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("grumpy");
        std::fs::write(&file, "#!/bin/sh\necho 'I am no plugin' >&2\nexit 1\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        let launch = Launch { file, ..Launch::default() };
        let error = launch.start().await.unwrap_err().to_string();
        assert!(error.contains("grumpy"), "{error}");
        assert!(error.ends_with("it ended before it said where it listens: I am no plugin"), "{error}");
    }
}
