//! How long a user waits: from sending a job to the server's answer, to its allocation, and to "running" reported, on
//! an idle `herder agent -dev` with real raw_exec tasks. Everything goes over HTTP, as it does for users: waiting is
//! done by blocking queries. `docs/performance.md` says how to read the figures.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

#[path = "support/mod.rs"]
#[expect(dead_code, reason = "each bench needs a part of it")]
mod support;

use std::net::TcpListener;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::ExitCode;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use clap::Parser;
use serde_json::Value;
use serde_json::json;

use support::cpu;
use support::etcd::Etcd;
use support::stats::percentile;
use support::stats::summary;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Parser, Clone, Debug)]
struct Options {
    /// Jobs, one at a time.
    #[arg(long, env = "HERDER_BENCH_JOBS", default_value_t = 200)]
    jobs: usize,
    #[arg(long, env = "HERDER_BENCH_REPEATS", default_value_t = 3)]
    repeats: usize,
    /// Pause between jobs, milliseconds.
    #[arg(long, default_value_t = 50)]
    pause: u64,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Milliseconds since a job was sent, per job.
#[derive(Default)]
struct Waits {
    accepted: Vec<f64>,
    placed: Vec<f64>,
    running: Vec<f64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = Options::parse();
    for on_etcd in [true, false] {
        if let Err(text) = rounds(&options, on_etcd).await {
            println!("void: {text}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

async fn rounds(options: &Options, on_etcd: bool) -> Result<(), String> {
    let mut ready = Vec::new();
    let mut rounds = Vec::new();
    for _ in 0..options.repeats {
        let etcd = on_etcd.then(Etcd::start);
        let store = etcd.as_ref().map_or("the embedded store".to_owned(), |etcd| {
            format!("etcd {} with fsync, 1 member", etcd.version())
        });
        println!("agent -dev on {store}, {} jobs one at a time; load average {}", options.jobs, cpu::load());
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let dev = Dev::start(directory.path(), etcd.as_ref()).await?;
        ready.push(dev.ready.as_secs_f64() * 1000.0);
        let before = cpu::of_process(dev.process.id());
        rounds.push(measure(options, &dev).await?);
        let spent = cpu::of_process(dev.process.id()) - before;
        println!("  agent: {:.1} ms of CPU per job", spent * 1000.0 / options.jobs as f64);
    }
    println!("median (range) of {} runs, milliseconds", rounds.len());
    println!("  ready                   {}", summary(&ready, 0));
    for (name, pick) in [
        ("accepted", (|waits| &waits.accepted) as fn(&Waits) -> &Vec<f64>),
        ("placed", |waits| &waits.placed),
        ("running", |waits| &waits.running),
    ] {
        for (word, share) in [("p50", 0.5), ("p99", 0.99)] {
            let values: Vec<f64> = rounds.iter().map(|waits| percentile(pick(waits), share)).collect();
            println!("  submit to {name:<9} {word}  {}", summary(&values, 1));
        }
    }
    Ok(())
}

/// A running `herder agent -dev`.
struct Dev {
    process: Child,
    ready: Duration,
    base: String,
    client: reqwest::Client,
}

impl Dev {
    async fn start(directory: &Path, etcd: Option<&Etcd>) -> Result<Self, String> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = free.map_err(|error| error.to_string())?.port();
        let config = directory.join("agent.hcl");
        std::fs::write(&config, format!("ports {{\n  http = {port}\n}}\n"))
            .map_err(|error| error.to_string())?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_herder"));
        command.args(["agent", "-dev", "-config"]).arg(&config);
        command.args(["-log-level", "ERROR", "-data-dir"]).arg(directory.join("data"));
        command.env_remove("HERDER_ETCD_ENDPOINTS");
        if let Some(etcd) = etcd {
            command.env("HERDER_ETCD_ENDPOINTS", etcd.endpoint());
        }
        let started = Instant::now();
        let log = std::fs::File::create(directory.join("log")).map_err(|error| error.to_string())?;
        let stderr = log.try_clone().map_err(|error| error.to_string())?;
        let process = command.stdin(Stdio::null()).stdout(log).stderr(stderr).spawn();
        let process = process.map_err(|error| error.to_string())?;
        let mut dev = Self {
            process,
            ready: Duration::ZERO,
            base: format!("http://127.0.0.1:{port}/v1"),
            client: reqwest::Client::new(),
        };
        while !dev.has_ready_node().await {
            if started.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(directory.join("log")).unwrap_or_default();
                return Err(format!("the agent is not ready after {PATIENCE:?}: {log}"));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        dev.ready = started.elapsed();
        Ok(dev)
    }

    async fn has_ready_node(&self) -> bool {
        let Ok((_, nodes)) = self.get("nodes").await else { return false };
        nodes.as_array().is_some_and(|nodes| nodes.iter().any(|node| node["Status"] == "ready"))
    }

    async fn get(&self, path: &str) -> Result<(u64, Value), String> {
        let answer = self.client.get(format!("{}/{path}", self.base)).timeout(PATIENCE).send().await;
        let answer = answer.map_err(|error| error.to_string())?;
        let index = answer.headers().get("X-Nomad-Index").and_then(|value| value.to_str().ok()?.parse().ok());
        Ok((index.unwrap_or(1), answer.json().await.map_err(|error| error.to_string())?))
    }

    /// Waits until the first allocation of a job satisfies the condition.
    async fn wait_alloc(&self, job: &str, condition: impl Fn(&Value) -> bool) -> Result<Instant, String> {
        let started = Instant::now();
        let mut index = 1;
        while started.elapsed() < PATIENCE {
            let path = format!("job/{job}/allocations?index={index}&wait=5s");
            let (seen, allocs) = self.get(&path).await?;
            index = seen;
            if allocs.as_array().and_then(|allocs| allocs.first()).is_some_and(&condition) {
                return Ok(Instant::now());
            }
        }
        Err(format!("{job} did not get there in {PATIENCE:?}"))
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Asked first: then it ends its tasks as well.
        let asked = Command::new("kill").args(["-INT", &self.process.id().to_string()]).status();
        let started = Instant::now();
        while asked.is_ok() && started.elapsed() < PATIENCE {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn measure(options: &Options, dev: &Dev) -> Result<Waits, String> {
    let mut waits = Waits::default();
    for number in 0..options.jobs {
        let id = format!("sleep-{number:05}");
        let body = json!({"Job": {
            "ID": id, "Name": id, "Type": "service", "Datacenters": ["dc1"],
            "TaskGroups": [{"Name": "g", "Count": 1, "EphemeralDisk": {"SizeMB": 10}, "Tasks": [{
                "Name": "t", "Driver": "raw_exec", "Config": {"command": "/bin/sleep", "args": ["3600"]},
                "Resources": {"CPU": 10, "MemoryMB": 10}, "LogConfig": {"MaxFiles": 1, "MaxFileSizeMB": 1},
            }]}],
        }});
        let sent = Instant::now();
        let since = |at: Instant| (at - sent).as_secs_f64() * 1000.0;
        let answer = dev.client.post(format!("{}/jobs", dev.base)).json(&body).send().await;
        let answer = answer.map_err(|error| error.to_string())?;
        waits.accepted.push(since(Instant::now()));
        if !answer.status().is_success() {
            return Err(answer.text().await.unwrap_or_default());
        }
        waits.placed.push(since(dev.wait_alloc(&id, |_| true).await?));
        let running = dev.wait_alloc(&id, |alloc| alloc["ClientStatus"] == "running").await?;
        waits.running.push(since(running));
        // The cluster is idle again before the next one.
        let stop = dev.client.delete(format!("{}/job/{id}", dev.base)).send().await;
        stop.map_err(|error| error.to_string())?;
        dev.wait_alloc(&id, |alloc| alloc["ClientStatus"] == "complete").await?;
        tokio::time::sleep(Duration::from_millis(options.pause)).await;
    }
    Ok(waits)
}
