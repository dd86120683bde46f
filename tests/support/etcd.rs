//! Real etcd servers for tests: on free loopback ports, with data in a temporary directory, killed at drop.
//! `HERDER_TEST_ETCD` names another binary than the installed one. Self-contained, so that any test binary can
//! include it by path:
//! `#[path = "../support/etcd.rs"] #[expect(dead_code, reason = "not all of it is needed here")] mod etcd;`

use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

/// How long a server may take to start; the machine may be busy.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Another process may take a port between its choice and the server's start.
const START_TRIES: u32 = 5;

/// A running etcd cluster, usually of one member.
pub struct Etcd {
    members: Vec<Member>,
    scheme: &'static str,
    flags: Vec<String>,
    directory: tempfile::TempDir,
}

struct Member {
    name: String,
    client_port: u16,
    peer_port: u16,
    metrics_port: u16,
    process: Option<Child>,
}

impl Etcd {
    /// One member.
    pub fn start() -> Self {
        Self::cluster(1)
    }

    /// So many members.
    pub fn cluster(size: usize) -> Self {
        Self::with_flags(size, "http", &[])
    }

    /// So many members, clients connecting by `scheme`, with additional command-line flags.
    pub fn with_flags(size: usize, scheme: &'static str, flags: &[String]) -> Self {
        for _ in 0..START_TRIES {
            let members = (0..size).map(|index| Member::new(format!("m{index}"))).collect();
            let directory = tempfile::tempdir().expect("a temporary directory");
            let mut etcd = Self { members, scheme, flags: flags.to_vec(), directory };
            for index in 0..size {
                etcd.spawn(index);
            }
            if (0..size).all(|index| etcd.wait_healthy(index)) {
                return etcd;
            }
        }
        panic!("etcd did not start after {START_TRIES} tries; is /usr/bin/etcd installed?");
    }

    /// URLs for clients, in the order of the members.
    pub fn endpoints(&self) -> Vec<String> {
        self.members
            .iter()
            .map(|member| format!("{}://127.0.0.1:{}", self.scheme, member.client_port))
            .collect()
    }

    /// Kills a member as `kill -9` does.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut process) = self.members[index].process.take() {
            process.kill().expect("etcd is ours to kill");
            process.wait().expect("etcd is ours to wait for");
        }
    }

    /// Starts a killed member again, on its data. Does not wait: it may need others to become healthy.
    pub fn restart(&mut self, index: usize) {
        self.kill(index);
        self.spawn(index);
    }

    /// Waits until a member answers and the cluster has a leader. False if its process has ended.
    pub fn wait_healthy(&mut self, index: usize) -> bool {
        let started = Instant::now();
        while started.elapsed() < START_PATIENCE {
            let member = &mut self.members[index];
            if member.process.as_mut().is_none_or(|process| !matches!(process.try_wait(), Ok(None))) {
                return false;
            }
            if member.is_healthy() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("etcd is not healthy after {START_PATIENCE:?}");
    }

    /// Sends a signal, by name (`STOP`, `CONT`), to a member.
    pub fn signal(&self, index: usize, signal: &str) {
        let id = self.members[index].process.as_ref().expect("the member runs").id();
        let status = Command::new("kill").args([format!("-{signal}"), id.to_string()]).status();
        assert!(status.expect("kill is installed").success());
    }

    fn spawn(&mut self, index: usize) {
        let peer_url = |member: &Member| format!("http://127.0.0.1:{}", member.peer_port);
        let peers: Vec<String> =
            self.members.iter().map(|member| format!("{}={}", member.name, peer_url(member))).collect();
        let member = &self.members[index];
        let client_url = format!("{}://127.0.0.1:{}", self.scheme, member.client_port);
        let data: PathBuf = self.directory.path().join(&member.name);
        let process = Command::new(std::env::var_os("HERDER_TEST_ETCD").unwrap_or_else(|| "etcd".into()))
            .arg("--name")
            .arg(&member.name)
            .arg("--data-dir")
            .arg(data)
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args([
                "--listen-peer-urls",
                &peer_url(member),
                "--initial-advertise-peer-urls",
                &peer_url(member),
            ])
            .args(["--listen-metrics-urls", &format!("http://127.0.0.1:{}", member.metrics_port)])
            .args(["--initial-cluster", &peers.join(","), "--initial-cluster-state", "new"])
            .args(["--log-level", "error", "--unsafe-no-fsync"])
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed");
        self.members[index].process = Some(process);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for index in 0..self.members.len() {
            self.kill(index);
        }
    }
}

impl Member {
    fn new(name: String) -> Self {
        // Held together, so that the three differ.
        let free = || TcpListener::bind("127.0.0.1:0").expect("a free port");
        let ports = [free(), free(), free()].map(|socket| socket.local_addr().expect("it is bound").port());
        let [client_port, peer_port, metrics_port] = ports;
        Self { name, client_port, peer_port, metrics_port, process: None }
    }

    /// `/health` says true only with a leader, and is plain HTTP on the metrics port whatever clients use.
    fn is_healthy(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut socket = TcpStream::connect(("127.0.0.1", self.metrics_port))?;
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            socket.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.contains("\"true\""))
    }
}
