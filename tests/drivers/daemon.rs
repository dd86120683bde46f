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
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::json;

use crate::docker::image;
use crate::support::Bench;
use crate::support::options;

struct Daemon {
    dir: tempfile::TempDir,
    process: Option<Child>,
    /// Its containers go on without it.
    live_restore: bool,
}

impl Daemon {
    async fn start(live_restore: bool) -> Self {
        let mut daemon = Self { dir: tempfile::tempdir().unwrap(), process: None, live_restore };
        daemon.begin().await;
        let copy = format!("docker save {} | docker -H {} load", image(), daemon.endpoint());
        assert!(Command::new("sh").args(["-c", &copy]).stdout(Stdio::null()).status().unwrap().success());
        daemon
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
        command.args([
            "--net",
            "dockerd",
            "-H",
            &self.endpoint(),
            "--storage-driver",
            "vfs",
            "--iptables=false",
        ]);
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
        let docker = DockerOptions { endpoint: self.endpoint(), ..DockerOptions::default() };
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
