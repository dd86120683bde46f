//! `qemu`: a virtual machine, as a process of the host.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Map;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::model::node::DriverInfo;

use super::Driver;
use super::DriverError;
use super::ExitStatus;
use super::Progress;
use super::Started;
use super::TaskConfig;
use super::TaskHandle;
use super::TaskStats;
use super::cgroup::Overrides;
use super::cgroup::Scope;
use super::executor::Executor;
use super::executor::Launch;
use super::options::Options;
use super::program;
use super::refuse;
use super::supervisor::spec::CommandSpec;
use super::users;

const PROGRAM: &str = "qemu-system-x86_64";
/// A program that does not even say its version in this time is not usable.
const VERSION_LIMIT: Duration = Duration::from_secs(10);
/// What a machine may have, MiB.
const MEMORY: std::ops::RangeInclusive<i64> = 128..=4_000_000;
/// The longest path that a socket can have.
const MAX_SOCKET_PATH: usize = 107;
/// Where the handle remembers the socket that takes commands.
const MONITOR: &str = "monitor";

/// What the agent's configuration says about virtual machines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QemuOptions {
    /// Directories beside the allocation from which images may be taken.
    pub image_paths: Vec<PathBuf>,
    /// The flags that jobs may pass on; all when empty.
    pub args_allowlist: Vec<String>,
}

/// See the module.
#[derive(Debug)]
pub struct Qemu {
    pub executor: Executor,
    pub options: QemuOptions,
}

fn find_program() -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let dirs = path.split(':').filter(|dir| dir.starts_with('/')).chain(["/usr/local/bin", "/usr/bin"]);
    dirs.map(|dir| Path::new(dir).join(PROGRAM)).find(|path| path.is_file())
}

/// `7.2.19` from `QEMU emulator version 7.2.19 (Debian …)`.
fn parse_version(text: &str) -> Option<String> {
    let rest = text.split_once("version ")?.1;
    let end = rest.find(|sign: char| !sign.is_ascii_digit() && sign != '.').unwrap_or(rest.len());
    Some(rest[..end].to_owned()).filter(|version| !version.is_empty())
}

impl Qemu {
    /// Problems with values, and with what the agent forbids.
    fn rules(&self, config: &Map<String, Value>) -> Vec<String> {
        let mut problems = super::value_problems(self.name(), config);
        let allowed = &self.options.args_allowlist;
        for arg in config.list("args") {
            let flag = arg.split('=').next().unwrap_or_default();
            if arg.starts_with('-') && !allowed.is_empty() && !allowed.iter().any(|one| one == flag) {
                problems.push(format!("args: {flag:?} is not in the allowlist of this agent"));
            }
        }
        problems
    }

    /// The image, with links resolved: what counts is where they lead.
    fn image(&self, task: &TaskConfig) -> Result<PathBuf, DriverError> {
        let asked = task.config.text("image_path");
        let path = task.dirs.task.join(&asked);
        let path = path
            .canonicalize()
            .map_err(|error| DriverError::Fatal(format!("cannot open image_path {asked:?}: {error}")))?;
        let own = std::iter::once(&task.dirs.alloc);
        let mut places = own.chain(&self.options.image_paths).filter_map(|place| place.canonicalize().ok());
        if places.any(|place| path.starts_with(place)) {
            Ok(path)
        } else {
            Err(DriverError::BadConfig("image_path is not in the allowed paths".to_owned()))
        }
    }

    fn arguments(&self, task: &TaskConfig, monitor: Option<&Path>) -> Result<Vec<String>, DriverError> {
        let config = &task.config;
        let or = |name: &str, default: &str| match config.text(name) {
            text if text.is_empty() => default.to_owned(),
            text => text,
        };
        let memory = task.grant.memory.memory_mb;
        if !MEMORY.contains(&memory) {
            return Err(DriverError::BadConfig("QEMU memory assignment out of bounds".to_owned()));
        }
        let image = self.image(task)?;
        let accelerator = or("accelerator", "tcg");
        let name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A comma would begin the next option.
        let escaped = |text: &str| text.replace(',', ",,");
        let drive =
            format!("file={},if={}", escaped(&image.display().to_string()), or("drive_interface", "ide"));
        let mut args = vec!["-machine".to_owned(), format!("type=pc,accel={accelerator}")];
        args.extend(["-name".to_owned(), escaped(&name), "-m".to_owned(), format!("{memory}M")]);
        args.extend(["-drive".to_owned(), drive, "-nographic".to_owned()]);
        if let Some(monitor) = monitor {
            let place = escaped(&monitor.display().to_string());
            args.extend(["-monitor".to_owned(), format!("unix:{place},server,nowait")]);
        }
        if config.switch("guest_agent") {
            let socket = socket(&task.dirs.task, "qa.sock")?;
            let place = escaped(&socket.display().to_string());
            args.extend(["-chardev".to_owned(), format!("socket,path={place},server,nowait,id=qga0")]);
            args.extend(["-device", "virtio-serial", "-device"].map(str::to_owned));
            args.push("virtserialport,chardev=qga0,name=org.qemu.guest_agent.0".to_owned());
        }
        args.extend(config.list("args"));
        args.extend(forwarded_ports(task)?);
        if accelerator == "kvm" {
            args.extend(["-enable-kvm", "-cpu", "host"].map(str::to_owned));
            let cores = task.grant.cpu.reserved_cores.len();
            if cores > 0 {
                args.extend(["-smp".to_owned(), cores.to_string()]);
            }
        }
        Ok(args)
    }
}

fn socket(dir: &Path, name: &str) -> Result<PathBuf, DriverError> {
    let path = dir.join(name);
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        let text =
            format!("the path of the socket {} is longer than {MAX_SOCKET_PATH} bytes", path.display());
        return Err(DriverError::Fatal(text));
    }
    Ok(path)
}

/// Ports of the task's own (older) network, forwarded to those of the machine that `port_map` names.
fn forwarded_ports(task: &TaskConfig) -> Result<Vec<String>, DriverError> {
    let map = task.config.pairs("port_map");
    if map.is_empty() {
        return Ok(Vec::new());
    }
    let mut net = "user,id=user.0".to_owned();
    for (label, guest) in map {
        let mut ports = task.grant.networks.first().into_iter().flat_map(|network| network.ports());
        let port = ports.find(|port| port.label == label);
        let port = port.ok_or_else(|| DriverError::BadConfig(format!("Unknown port label {label:?}")))?;
        for protocol in ["udp", "tcp"] {
            net.push_str(&format!(",hostfwd={protocol}::{}-:{guest}", port.value));
        }
    }
    Ok(vec!["-netdev".to_owned(), net, "-device".to_owned(), "virtio-net,netdev=user.0".to_owned()])
}

fn monitor_of(handle: &TaskHandle) -> Option<PathBuf> {
    handle.state.get(MONITOR).and_then(Value::as_str).map(PathBuf::from)
}

#[async_trait]
impl Driver for Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    async fn fingerprint(&self) -> DriverInfo {
        let Some(program) = find_program() else {
            return super::undetected("qemu-system-x86_64 not found");
        };
        let output = match program::said(&program, &["--version"], VERSION_LIMIT).await {
            Some(output) if output.status.success() => output.stdout,
            _ => return super::undetected("qemu-system-x86_64 --version failed"),
        };
        match parse_version(&String::from_utf8_lossy(&output)) {
            Some(version) => super::healthy("qemu", [("driver.qemu.version".to_owned(), version)]),
            None => super::undetected("the version of qemu is unreadable"),
        }
    }

    async fn start(
        &self,
        config: &TaskConfig,
        _progress: Progress,
    ) -> Result<(TaskHandle, Started), DriverError> {
        refuse(self.validate(&config.config))?;
        refuse(self.rules(&config.config))?;
        let graceful = config.config.switch("graceful_shutdown");
        let monitor = graceful.then(|| socket(&config.dirs.task, "qm.sock")).transpose()?;
        let program = find_program();
        let program = program.ok_or_else(|| DriverError::Fatal(format!("{PROGRAM} not found")))?;
        let launch = Launch {
            command: CommandSpec {
                candidates: vec![program],
                not_found: format!("{PROGRAM} not found"),
                args: self.arguments(config, monitor.as_deref())?,
                name: PROGRAM.to_owned(),
                env: config.env.clone(),
                cwd: config.dirs.task.clone(),
                user: users::resolve(&config.user)?,
                ..CommandSpec::default()
            },
            cgroups_optional: true,
            scope: Scope::Plain,
            overrides: Overrides::default(),
            ..Launch::default()
        };
        // The machine has the task's memory for itself; the emulator's own comes on top of it.
        let mut unlimited = config.clone();
        unlimited.grant.memory.memory_mb = 0;
        unlimited.grant.memory.memory_max_mb = 0;
        let mut handle = self.executor.start(self.name(), &unlimited, launch).await?;
        if let Some(monitor) = monitor {
            handle.state[MONITOR] = Value::from(monitor.display().to_string());
        }
        Ok((handle, Started::default()))
    }

    async fn recover(&self, handle: &TaskHandle) -> Result<Started, DriverError> {
        self.executor.recover(handle).map(|()| Started::default())
    }

    async fn wait(&self, handle: &TaskHandle) -> Result<ExitStatus, DriverError> {
        self.executor.wait(handle).await
    }

    async fn signal(&self, _handle: &TaskHandle, _signal: &str) -> Result<(), DriverError> {
        Err(DriverError::Fatal("the qemu driver cannot send signals to its tasks".to_owned()))
    }

    async fn stop(&self, handle: &TaskHandle, signal: &str, timeout: Duration) -> Result<(), DriverError> {
        if let Some(monitor) = monitor_of(handle) {
            let asked = async {
                let mut socket = tokio::net::UnixStream::connect(monitor).await?;
                socket.write_all(b"system_powerdown\n").await?;
                // The monitor reads the command only while the connection lasts.
                self.executor.wait(handle).await.map_err(|error| std::io::Error::other(error.to_string()))
            };
            match tokio::time::timeout(timeout, asked).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => tracing::warn!(%error, "the machine cannot be asked to power down"),
                Err(_) => tracing::warn!("the machine did not power down in time"),
            }
            return self.executor.stop(handle, "SIGKILL", Duration::ZERO).await;
        }
        self.executor.stop(handle, signal, timeout).await
    }

    async fn remove(&self, handle: &TaskHandle) -> Result<(), DriverError> {
        self.executor.remove(handle).await
    }

    async fn stats(&self, handle: &TaskHandle) -> Result<TaskStats, DriverError> {
        self.executor.stats(handle)
    }

    async fn exec(
        &self,
        _handle: &TaskHandle,
        _command: &[String],
        _timeout: Duration,
    ) -> Result<(i32, Vec<u8>), DriverError> {
        Err(DriverError::Fatal("the qemu driver cannot run commands in its tasks".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_stands_behind_its_word() {
        let text = "QEMU emulator version 7.2.19 (Debian 1:7.2+dfsg-7)\nCopyright";
        assert_eq!(parse_version(text).as_deref(), Some("7.2.19"));
        assert_eq!(parse_version("nonsense"), None);
    }
}
