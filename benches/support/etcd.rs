//! One etcd server with fsync, set up as the README recommends, on free loopback ports and in a temporary directory.
//! `HERDER_BENCH_ETCD` names another binary than the installed one, `HERDER_BENCH_ETCD_FLAGS` other flags than the
//! recommended ones (an empty one for none).

use std::ffi::OsString;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

/// How long a server may take to start; the machine may be busy.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// A running etcd, killed at drop.
pub struct Etcd {
    process: Child,
    client_port: u16,
    version: String,
    _directory: tempfile::TempDir,
}

/// Flags that the README recommends, none of which touches durability.
const RECOMMENDED_FLAGS: &str = "--backend-batch-interval=10ms --backend-batch-limit=500";
/// The same for the garbage collector, by `GOGC`.
const RECOMMENDED_GOGC: &str = "400";

fn binary() -> OsString {
    std::env::var_os("HERDER_BENCH_ETCD").unwrap_or_else(|| "etcd".into())
}

impl Etcd {
    /// Starts one member and waits until it is healthy.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let free = || TcpListener::bind("127.0.0.1:0").expect("a free port");
        let ports = [free(), free(), free()].map(|socket| socket.local_addr().expect("it is bound").port());
        let [client, peer, metrics] = ports.map(|port| format!("http://127.0.0.1:{port}"));
        let flags = std::env::var("HERDER_BENCH_ETCD_FLAGS").unwrap_or_else(|_| RECOMMENDED_FLAGS.to_owned());
        let collector = std::env::var("GOGC").unwrap_or_else(|_| RECOMMENDED_GOGC.to_owned());
        let process = Command::new(binary())
            .env("GOGC", collector)
            .args(["--name", "bench", "--data-dir"])
            .arg(directory.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--listen-metrics-urls", &metrics, "--initial-cluster", &format!("bench={peer}")])
            .args(["--log-level", "error"])
            // A million allocations need more than the default of 2 GiB.
            .args(["--quota-backend-bytes", "8589934592"])
            .args(flags.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd can be started: install it, or name it in HERDER_BENCH_ETCD");
        let etcd = Self { process, client_port: ports[0], version: version(), _directory: directory };
        let started = Instant::now();
        while !is_healthy(ports[2]) {
            assert!(started.elapsed() < START_PATIENCE, "etcd is not healthy after {START_PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        etcd
    }

    /// URL for clients.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    /// `3.4.23`, as the binary says.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn version() -> String {
    let output = Command::new(binary()).arg("--version").output().map(|output| output.stdout);
    let text = String::from_utf8(output.unwrap_or_default()).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim_start_matches("etcd Version: ").to_owned()
}

fn is_healthy(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains("\"true\""))
}
