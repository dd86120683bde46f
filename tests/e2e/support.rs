//! Starts agents of the built program and talks to them through its command line.

use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

/// The longest that anything in these tests may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running agent; it is told to end when dropped.
pub struct Agent {
    child: Child,
    pub address: String,
    pub dir: TempDir,
}

/// The text of a command's answer.
pub struct Answer {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Agent {
    /// `herder agent -dev` with everything in a directory of its own and a port that the system chose.
    pub fn dev() -> Self {
        Self::start(&["-dev"], "")
    }

    /// An agent with these arguments and more configuration.
    pub fn start(args: &[&str], config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self::start_in(dir, args, config)
    }

    /// As `start`, in a directory that an earlier agent may have used.
    pub fn start_in(dir: TempDir, args: &[&str], config: &str) -> Self {
        Self::start_at(Path::new("."), dir, args, config)
    }

    /// As `start_in`, by somebody who stands at `place`.
    pub fn start_at(place: &Path, dir: TempDir, args: &[&str], config: &str) -> Self {
        let file = dir.path().join("agent.hcl");
        let data = dir.path().join("data");
        let base =
            format!("data_dir = {data:?}\nbind_addr = \"127.0.0.1\"\nports {{\n  http = 0\n}}\n{config}");
        std::fs::write(&file, base).expect("a writable directory");
        let mut child = Command::new(herder())
            .arg("agent")
            .args(args)
            .arg("-config")
            .arg(&file)
            .current_dir(place)
            .env_remove("HERDER_ETCD_ENDPOINTS")
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut address = String::new();
        for line in lines.by_ref().map_while(Result::ok) {
            if let Some(rest) = line.trim().strip_prefix("Advertise Addrs: HTTP: ") {
                address = format!("http://{rest}");
            }
            if line.contains("agent started!") {
                break;
            }
        }
        assert!(!address.is_empty(), "the agent ended before it was ready");
        // The rest of the log must be read, or the agent would wait for us.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address, dir }
    }

    /// Runs a command against this agent.
    pub fn cli(&self, args: &[&str]) -> Answer {
        answer(Command::new(herder()).args(args).env("NOMAD_ADDR", &self.address).env("NO_COLOR", "1"))
    }

    /// Runs a command that must succeed; its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let answer = self.cli(args);
        assert_eq!(answer.code, 0, "{args:?}: {}{}", answer.stdout, answer.stderr);
        answer.stdout
    }

    /// `GET` on the API.
    pub fn get(&self, path: &str) -> Value {
        let text = self.ok(&["operator", "api", "-X", "GET", path]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }

    /// Allocations of a job, newest first.
    pub fn allocs(&self, job: &str) -> Vec<Value> {
        let mut all = self.get(&format!("/v1/job/{job}/allocations")).as_array().cloned().unwrap_or_default();
        all.sort_by_key(|alloc| std::cmp::Reverse(alloc["CreateIndex"].as_u64()));
        all
    }

    /// A file in the agent's directory.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("a writable directory");
        path
    }

    /// Sends SIGTERM and waits for the end; the exit code.
    pub fn terminate(self) -> Option<i32> {
        let told = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status();
        assert!(told.expect("kill starts").success());
        self.outcome()
    }

    /// Waits until the agent ends by itself; the exit code.
    pub fn outcome(mut self) -> Option<i32> {
        eventually("the agent ended", || self.child.try_wait().expect("our own child")).code()
    }

    /// kill -9; tasks stay. Gives back the directory for the next agent.
    pub fn kill(mut self) -> TempDir {
        let _ = self.child.kill();
        let _ = self.child.wait();
        std::mem::replace(&mut self.dir, tempfile::tempdir().expect("a directory"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = Command::new("kill").arg("-INT").arg(self.child.id().to_string()).status();
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(30) && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::yield_now();
                std::thread::park_timeout(Duration::from_millis(20));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The built program.
pub fn herder() -> &'static str {
    env!("CARGO_BIN_EXE_herder")
}

/// Runs a command to its end.
pub fn answer(command: &mut Command) -> Answer {
    let Output { status, stdout, stderr } = command.output().expect("the command starts");
    Answer {
        code: status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// Waits until the question has an answer.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// The text of a path, for command lines.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are plain")
}
