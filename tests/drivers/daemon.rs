//! A Docker daemon that goes away and comes back: one of the test's own, beside the one that others use.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use herder::drivers::DriverError;
use herder::drivers::DriverOptions;
use herder::drivers::docker::DockerOptions;
use herder::drivers::docker::TlsFiles;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use crate::docker::image;
use crate::support::Bench;
use crate::support::hear_all;
use crate::support::options;

struct Daemon {
    dir: tempfile::TempDir,
    process: Option<Child>,
    /// Its containers go on without it.
    live_restore: bool,
    /// It has a port, too, where it wants certificates.
    encrypted: bool,
}

/// In the network of the daemon, where nobody else is.
const PORT: u16 = 2376;

/// Makes a key and a certificate for it in `dir`, by the authority that is there unless it is that itself.
fn certify(dir: &std::path::Path, name: &str, by: Option<&str>) {
    let file = |end: &str| dir.join(format!("{name}{end}")).display().to_string();
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    command.args([
        "-days",
        "2",
        "-keyout",
        &file(".key"),
        "-out",
        &file(".pem"),
        "-subj",
        &format!("/CN={name}"),
    ]);
    if let Some(by) = by {
        let file = |end: &str| dir.join(format!("{by}{end}")).display().to_string();
        command.args(["-CA", &file(".pem"), "-CAkey", &file(".key")]);
        command.args([
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ]);
    }
    let made = command.output().expect("openssl is missing: run `make setup`");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

impl Daemon {
    async fn start(live_restore: bool) -> Self {
        let mut daemon =
            Self { dir: tempfile::tempdir().unwrap(), process: None, live_restore, encrypted: false };
        daemon.begin().await;
        daemon.copy_image();
        daemon
    }

    /// One that can be reached by a port of its network, too, if one has the right certificate.
    async fn encrypted() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, by) in [("ca", None), ("server", Some("ca")), ("client", Some("ca"))] {
            certify(dir.path(), name, by);
        }
        let mut daemon = Self { dir, process: None, live_restore: false, encrypted: true };
        daemon.begin().await;
        daemon.copy_image();
        daemon
    }

    /// A port of this machine that leads to the one in the daemon's network.
    async fn forward(&self) -> (u16, AbortOnDropHandle<()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let namespace = format!("/proc/{}/ns/net", self.process.as_ref().unwrap().id());
        let work = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let namespace = namespace.clone();
                // A thread that is in another network is not used for anything else.
                let connected = std::thread::spawn(move || {
                    let file = fs::File::open(namespace).unwrap();
                    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                    std::net::TcpStream::connect(("127.0.0.1", PORT)).unwrap()
                });
                let far = connected.join().unwrap();
                far.set_nonblocking(true).unwrap();
                let mut far = tokio::net::TcpStream::from_std(far).unwrap();
                connections
                    .spawn(async move { drop(tokio::io::copy_bidirectional(&mut near, &mut far).await) });
            }
        });
        (port, AbortOnDropHandle::new(work))
    }

    fn copy_image(&self) {
        let daemon = self;
        let copy = format!("docker save {} | docker -H {} load", image(), daemon.endpoint());
        assert!(Command::new("sh").args(["-c", &copy]).stdout(Stdio::null()).status().unwrap().success());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn endpoint(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    async fn begin(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        // In a network of its own: it must not touch the interfaces of the other one.
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "ip link set lo up; exec dockerd \"$@\"", "dockerd"]);
        if self.encrypted {
            command.args(["-H", &format!("tcp://127.0.0.1:{PORT}"), "--tlsverify"]);
            for (flag, name) in
                [("--tlscacert", "ca.pem"), ("--tlscert", "server.pem"), ("--tlskey", "server.key")]
            {
                command.arg(flag).arg(self.path(name));
            }
        }
        command.args(["-H", &self.endpoint(), "--storage-driver", "vfs", "--iptables=false"]);
        command.args(["--ip-forward=false", "--ip-masq=false"]);
        for (flag, name) in [("--pidfile", "pid"), ("--data-root", "data"), ("--exec-root", "run")] {
            command.arg(flag).arg(self.path(name));
        }
        if self.live_restore {
            command.arg("--live-restore");
        }
        let search = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        command.env("PATH", search).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().expect("dockerd is missing: run `make setup`"));
        let limit = tokio::time::Instant::now() + Duration::from_secs(60);
        let answers = || Command::new("docker").args(["-H", &self.endpoint(), "version"]).output().unwrap();
        while !answers().status.success() {
            let log = || fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(tokio::time::Instant::now() < limit, "dockerd does not start: {}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn end(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        kill(Pid::from_raw(i32::try_from(process.id()).unwrap()), Signal::SIGTERM).unwrap();
        process.wait().unwrap();
    }

    fn bench(&self, script: &str) -> Bench {
        self.bench_with(DockerOptions { endpoint: self.endpoint(), ..DockerOptions::default() }, script)
    }

    /// A task of an agent that comes by the port, and shows the certificate of `who`.
    fn bench_by_port(&self, port: u16, who: &str, ca: &str, script: &str) -> Bench {
        let tls = TlsFiles {
            cert: self.path(&format!("{who}.pem")),
            key: self.path(&format!("{who}.key")),
            ca: self.path(ca),
        };
        let endpoint = format!("tcp://127.0.0.1:{port}");
        self.bench_with(DockerOptions { endpoint, tls: Some(tls), ..DockerOptions::default() }, script)
    }

    fn bench_with(&self, docker: DockerOptions, script: &str) -> Bench {
        let options = DriverOptions { docker, ..options() };
        let config =
            json!({"image": image(), "command": "sh", "args": ["-c", script], "network_mode": "none"});
        Bench::with(&options, "docker", config)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
        let _ = herder::drivers::unmount_all_below(self.dir.path());
    }
}

#[tokio::test]
async fn a_task_outlives_a_daemon_that_lets_it() {
    let mut daemon = Daemon::start(true).await;
    let script =
        "i=0; while [ ! -e /local/end ]; do i=$((i+1)); echo line $i; sleep 0.05; done; echo last $i; exit 7";
    let mut bench = daemon.bench(script);
    assert!(bench.driver.fingerprint().await.healthy);
    let handle = bench.start().await;
    bench.wait_for_log("stdout", "line 5\n").await;
    daemon.end();
    let info = bench.driver.fingerprint().await;
    assert!(info.detected && !info.healthy, "{info:?}");
    assert_eq!(info.health_description, "Failed to connect to docker daemon");
    assert!(info.attributes.is_empty());
    assert!(matches!(bench.driver.recover(&handle).await, Err(DriverError::Recoverable(_))));
    daemon.begin().await;
    assert!(bench.driver.fingerprint().await.healthy);
    bench.driver.recover(&handle).await.unwrap();
    fs::write(bench.config.dirs.local.join("end"), "").unwrap();
    assert_eq!(bench.wait(&handle).await.code, 7);
    let log = bench.log("stdout");
    let lines = log.lines().filter(|line| line.starts_with("line")).count();
    let expected: String = (1..=lines).map(|number| format!("line {number}\n")).collect();
    assert_eq!(log, format!("{expected}last {lines}\n"));
    bench.finish().await;
}

#[tokio::test]
async fn a_task_that_ends_with_its_daemon_is_seen_to_have_ended() {
    let mut daemon = Daemon::start(false).await;
    let mut bench = daemon.bench("echo ready; exec sleep 1000");
    let handle = bench.start().await;
    bench.wait_for_log("stdout", "ready").await;
    let driver = bench.driver.clone();
    let watched = handle.clone();
    let end = tokio::spawn(async move { driver.wait(&watched).await });
    daemon.end();
    daemon.begin().await;
    let status = tokio::time::timeout(Duration::from_secs(60), end).await.unwrap().unwrap().unwrap();
    assert!(!status.is_success(), "{status:?}");
    bench.driver.recover(&handle).await.unwrap();
    bench.finish().await;
}

#[tokio::test]
async fn a_daemon_behind_tls_is_reached_with_the_right_certificates_only() {
    let daemon = Daemon::encrypted().await;
    let (port, _forwarding) = daemon.forward().await;
    let mut bench = daemon.bench_by_port(port, "client", "ca.pem", "echo hello; exec sleep 1000");
    let info = bench.driver.fingerprint().await;
    assert!(info.healthy, "{info:?}");
    let handle = bench.start().await;
    bench.wait_for_log("stdout", "hello").await;
    // A connection that is taken over for both directions.
    let mut session = bench.session(&handle, &["sh", "-c", "echo inside; exit 3"], false).await;
    assert_eq!(hear_all(&mut session).await, ("inside\n".to_owned(), String::new(), Some(3)));
    bench.driver.stop(&handle, "SIGKILL", Duration::from_secs(10)).await.unwrap();
    assert_eq!(bench.wait(&handle).await.code, 137);
    bench.finish().await;

    certify(daemon.dir.path(), "other", None);
    certify(daemon.dir.path(), "stranger", Some("other"));
    for (who, ca) in [("stranger", "ca.pem"), ("client", "other.pem")] {
        let mut bench = daemon.bench_by_port(port, who, ca, "true");
        let info = bench.driver.fingerprint().await;
        assert!(!info.detected, "{who} {ca}: {info:?}");
        let error = bench.try_start().await.unwrap_err();
        assert!(error.is_recoverable(), "{error}");
        let text = error.to_string();
        assert!(
            text.starts_with("Failed to connect to docker daemon: ")
                && text.to_lowercase().contains("certificate"),
            "{text}"
        );
        bench.finish().await;
    }
}
