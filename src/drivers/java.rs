//! `java`: a jar or class, run with the isolation of `exec`.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Map;
use serde_json::Value;

use crate::model::node::DriverInfo;

use super::Driver;
use super::DriverError;
use super::ExitStatus;
use super::Progress;
use super::Started;
use super::TaskConfig;
use super::TaskHandle;
use super::TaskStats;
use super::exec::Isolated;
use super::options::Options;
use super::program;
use super::refuse;
use super::session::ExecRequest;
use super::session::ExecSession;
use super::supervisor::spec::CommandSpec;

/// A virtual machine that does not even say its version in this time is not usable.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub struct Java {
    pub isolated: Isolated,
}

/// The program, with links resolved: the links themselves need not exist inside the task's root.
fn find_java() -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
    path.split(':')
        .filter(|dir| dir.starts_with('/'))
        .find_map(|dir| fs::canonicalize(Path::new(dir).join("java")).ok())
}

/// Version, runtime and virtual machine from the output of `java -version`.
fn parse_version(text: &str) -> Option<[(String, String); 3]> {
    let mut lines = text.lines().filter(|line| !line.starts_with("Picked up "));
    let (first, runtime, machine) = (lines.next()?, lines.next()?, lines.next()?);
    let is_part = |sign: char| sign.is_ascii_digit() || sign == '.' || sign == '_';
    let begin = first.find(|sign: char| sign.is_ascii_digit())?;
    let rest = &first[begin..];
    let version = &rest[..rest.find(|sign| !is_part(sign)).unwrap_or(rest.len())];
    let pair = |name: &str, value: &str| (format!("driver.java.{name}"), value.trim().to_owned());
    Some([pair("version", version), pair("runtime", runtime), pair("vm", machine)])
}

fn arguments(config: &Map<String, Value>) -> Vec<String> {
    let mut args = config.list("jvm_options");
    for (flag, option) in [("-cp", "class_path"), ("-jar", "jar_path")] {
        let value = config.text(option);
        if !value.is_empty() {
            args.extend([flag.to_owned(), value]);
        }
    }
    let class = config.text("class");
    args.extend((!class.is_empty()).then_some(class));
    args.extend(config.list("args"));
    args
}

#[async_trait]
impl Driver for Java {
    fn name(&self) -> &'static str {
        "java"
    }

    async fn fingerprint(&self) -> DriverInfo {
        if let Some(text) = self.isolated.obstacle() {
            return super::undetected(text);
        }
        let Some(java) = find_java() else { return super::undetected("java not found") };
        match program::said(&java, &["-version"], VERSION_LIMIT).await {
            Some(output) if output.status.success() => {
                let text = String::from_utf8_lossy(&output.stderr);
                super::healthy("java", parse_version(&text).into_iter().flatten())
            }
            _ => super::undetected("java -version failed"),
        }
    }

    fn mounts_volumes(&self) -> bool {
        true
    }

    async fn start(
        &self,
        config: &TaskConfig,
        _progress: Progress,
    ) -> Result<(TaskHandle, Started), DriverError> {
        refuse(self.validate(&config.config))?;
        if config.config.text("jar_path").is_empty() && config.config.text("class").is_empty() {
            return Err(DriverError::BadConfig("jar_path or class must be specified".to_owned()));
        }
        super::refuse_values(self.isolated.rules(self.name(), &config.config))?;
        let java = find_java().ok_or_else(|| DriverError::Fatal("java not found".to_owned()))?;
        let command = CommandSpec {
            not_found: format!("{} is not visible to the task; add it to chroot_env", java.display()),
            args: arguments(&config.config),
            name: java.display().to_string(),
            candidates: vec![java],
            ..CommandSpec::default()
        };
        let launch = self.isolated.launch(config, command)?;
        let handle = self.isolated.executor.start(self.name(), config, launch).await?;
        Ok((handle, Started::default()))
    }

    async fn recover(&self, handle: &TaskHandle) -> Result<Started, DriverError> {
        self.isolated.executor.recover(handle).map(|()| Started::default())
    }

    async fn wait(&self, handle: &TaskHandle) -> Result<ExitStatus, DriverError> {
        self.isolated.executor.wait(handle).await
    }

    async fn signal(&self, handle: &TaskHandle, signal: &str) -> Result<(), DriverError> {
        self.isolated.executor.signal(handle, signal)
    }

    async fn stop(&self, handle: &TaskHandle, signal: &str, timeout: Duration) -> Result<(), DriverError> {
        self.isolated.executor.stop(handle, signal, timeout).await
    }

    async fn remove(&self, handle: &TaskHandle) -> Result<(), DriverError> {
        self.isolated.executor.remove(handle).await
    }

    async fn stats(&self, handle: &TaskHandle) -> Result<TaskStats, DriverError> {
        self.isolated.executor.stats(handle)
    }

    async fn exec(
        &self,
        handle: &TaskHandle,
        command: &[String],
        timeout: Duration,
    ) -> Result<(i32, Vec<u8>), DriverError> {
        self.isolated.executor.exec(handle, command, timeout).await
    }

    async fn session(&self, handle: &TaskHandle, request: &ExecRequest) -> Result<ExecSession, DriverError> {
        self.isolated.executor.session(handle, request).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_version_text_gives_three_attributes() {
        let text =
            "openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime Environment (build 17)\nOpenJDK VM\n";
        let found = parse_version(text).unwrap();
        assert_eq!(found[0], ("driver.java.version".to_owned(), "17.0.15".to_owned()));
        assert_eq!(found[2].1, "OpenJDK VM");
        assert_eq!(parse_version("java 1\n"), None);
    }

    #[test]
    fn arguments_stand_in_the_order_java_wants() {
        let config =
            json!({"args": ["x"], "jar_path": "local/a.jar", "jvm_options": ["-Xmx64m"], "class_path": "b"});
        let args = arguments(config.as_object().unwrap());
        assert_eq!(args, ["-Xmx64m", "-cp", "b", "-jar", "local/a.jar", "x"]);
    }
}
