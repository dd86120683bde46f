//! A real node agent beside a server and etcd: what it needs while tasks sleep, and how soon it has them again.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use futures::StreamExt;
use serde_json::Value;
use serde_json::json;

use crate::Options;
use crate::processes;
use crate::support::cpu;
use crate::support::etcd::Etcd;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(180);
/// Before something is measured that should be quiet.
const SETTLE: Duration = Duration::from_secs(5);
/// Questions asked at a time.
const ABREAST: usize = 16;

/// One process of the program.
struct Role {
    process: Child,
    base: String,
}

impl Role {
    fn start(options: &Options, directory: &Path, role: &str, etcd: &Etcd) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).map_err(text)?;
        let port = free.port();
        let config = directory.join(format!("{role}.hcl"));
        let lines = format!(
            "bind_addr = \"127.0.0.1\"\nports {{\n  http = {port}\n}}\netcd {{\n  endpoints = [{:?}]\n}}\n\
             plugin \"raw_exec\" {{\n  config {{\n    enabled = true\n  }}\n}}\n\
             client {{\n  network_interface = \"lo\"\n  cpu_total_compute = 100000\n  memory_total_mb = 100000\n}}\n",
            etcd.endpoint()
        );
        std::fs::write(&config, lines).map_err(text)?;
        let log = std::fs::File::create(directory.join(format!("{role}.log"))).map_err(text)?;
        let stderr = log.try_clone().map_err(text)?;
        // A file of its own: pages are shared by the processes of one role only, so that proportional memory counts
        // them once and whole.
        let program = directory.join(format!("herder-{role}"));
        if !program.exists() {
            std::fs::copy(&options.program, &program).map_err(text)?;
        }
        let mut command = Command::new(&program);
        command.args(["agent", &format!("-{role}"), "-config"]).arg(&config);
        command.args(["-log-level", "ERROR", "-data-dir"]).arg(directory.join(role));
        let process = command.stdin(Stdio::null()).stdout(log).stderr(stderr).spawn().map_err(text)?;
        Ok(Self { process, base: format!("http://127.0.0.1:{port}/v1") })
    }

    fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The process and the helper that starts its tasks, without the tasks' own supervisors.
    fn with_helper(&self, measure: fn(u32) -> f64) -> f64 {
        let helpers = processes::children(self.pid());
        measure(self.pid()) + helpers.into_iter().map(measure).sum::<f64>()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn get(client: &reqwest::Client, url: String) -> Option<Value> {
    let answer = client.get(url).timeout(Duration::from_secs(30)).send().await.ok()?;
    if answer.status().is_success() { answer.json().await.ok() } else { None }
}

async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> Result<T, String> {
    let begun = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return Ok(found);
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!("not within {PATIENCE:?}: {what}"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A job of tasks that sleep for `seconds`, which tells them from everybody else's.
fn sleepers(id: &str, count: usize, seconds: &str) -> Value {
    json!({"Job": {
        "ID": id, "Name": id, "Type": "service", "Datacenters": ["dc1"],
        "TaskGroups": [{"Name": "g", "Count": count, "EphemeralDisk": {"SizeMB": 10}, "Tasks": [{
            "Name": "t", "Driver": "raw_exec", "Config": {"command": "/bin/sleep", "args": [seconds]},
            "Resources": {"CPU": 10, "MemoryMB": 10}, "LogConfig": {"MaxFiles": 1, "MaxFileSizeMB": 1},
        }]}],
    }})
}

struct Bench {
    client: reqwest::Client,
    server: Role,
}

impl Bench {
    async fn run(&self, id: &str, count: usize, seconds: &str) -> Result<Vec<String>, String> {
        let body = sleepers(id, count, seconds);
        let sent = self.client.post(format!("{}/jobs", self.server.base)).json(&body).send().await;
        let answer = sent.map_err(|error| error.to_string())?;
        if !answer.status().is_success() {
            return Err(answer.text().await.unwrap_or_default());
        }
        eventually(&format!("{count} tasks of {id} run"), async || {
            let allocs = get(&self.client, format!("{}/job/{id}/allocations", self.server.base)).await?;
            let running = allocs.as_array()?.iter().filter(|alloc| alloc["ClientStatus"] == "running");
            let ids: Vec<String> =
                running.filter_map(|alloc| Some(alloc["ID"].as_str()?.to_owned())).collect();
            Some(ids).filter(|ids| ids.len() == count)
        })
        .await
    }

    async fn stop(&self, id: &str, seconds: &str) -> Result<(), String> {
        let url = format!("{}/job/{id}?purge=true", self.server.base);
        self.client.delete(url).send().await.map_err(|error| error.to_string())?;
        let command = format!("/bin/sleep {seconds}");
        eventually("the tasks have ended", async || processes::by_command(&command).is_empty().then_some(()))
            .await
    }
}

/// Measures everything that needs an agent.
pub async fn measure(options: &Options) -> Result<(), String> {
    let etcd = Etcd::start();
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let client = reqwest::Client::new();
    let bench = Bench { client, server: Role::start(options, directory.path(), "server", &etcd)? };
    let agent = Role::start(options, directory.path(), "client", &etcd)?;
    eventually("the node is ready", async || {
        let nodes = get(&bench.client, format!("{}/nodes", bench.server.base)).await?;
        nodes.as_array()?.iter().any(|node| node["Status"] == "ready").then_some(())
    })
    .await?;
    println!("node agent beside a server and etcd {}; load average {}", etcd.version(), cpu::load());
    let result = async {
        let agent = quiet(options, &bench, agent).await?;
        found_again(options, &bench, agent, directory.path(), &etcd).await
    };
    let result = result.await;
    // The agent ends before it has cleared up after a thousand tasks.
    herder::drivers::unmount_all_below(directory.path()).map_err(|error| error.to_string())?;
    result
}

/// CPU seconds of an agent, of what it started to look after tasks, and of programs that it ran to look at the machine.
fn spent(agent: &Role, helpers: &[u32]) -> f64 {
    let of = cpu::of_process_and_ended;
    of(agent.pid()) + helpers.iter().map(|pid| of(*pid)).sum::<f64>()
}

async fn quiet(options: &Options, bench: &Bench, agent: Role) -> Result<Role, String> {
    let span = Duration::from_secs(options.seconds);
    let core = |seconds: f64| 100.0 * seconds / span.as_secs_f64();
    tokio::time::sleep(SETTLE).await;
    let resident = agent.with_helper(processes::resident);
    let proportional = agent.with_helper(processes::proportional);
    println!("  idle agent          {resident:.1} MiB resident, {proportional:.1} proportional (goal 20)");
    let before = spent(&agent, &processes::children(agent.pid()));
    tokio::time::sleep(span).await;
    let idle = spent(&agent, &processes::children(agent.pid())) - before;
    println!("  idle CPU            {:.2} % of a core over {span:?}", core(idle));

    let seconds = format!("{}", 100_000 + std::process::id());
    bench.run("quiet", options.sleepers, &seconds).await?;
    tokio::time::sleep(SETTLE).await;
    let tasks = processes::by_command(&format!("/bin/sleep {seconds}"));
    let supervisors: Vec<u32> = tasks.values().copied().collect();
    let mean = |measure: fn(u32) -> f64| {
        supervisors.iter().map(|pid| measure(*pid)).sum::<f64>() / supervisors.len().max(1) as f64
    };
    let (resident, proportional) = (mean(processes::resident), mean(processes::proportional));
    println!("  per raw_exec task   {proportional:.2} MiB proportional, {resident:.2} resident (goal 1)");
    let mut looked_at = supervisors.clone();
    looked_at.extend(processes::children(agent.pid()));
    let before = spent(&agent, &looked_at);
    tokio::time::sleep(span).await;
    let used = spent(&agent, &looked_at) - before;
    println!(
        "  CPU, {} sleepers    {:.2} % of a core over {span:?} (goal 0.1)",
        options.sleepers,
        core(used)
    );
    let resident = agent.with_helper(processes::resident);
    println!("  agent with them     {resident:.1} MiB resident");
    bench.stop("quiet", &seconds).await?;
    Ok(agent)
}

async fn found_again(
    options: &Options,
    bench: &Bench,
    agent: Role,
    directory: &Path,
    etcd: &Etcd,
) -> Result<(), String> {
    let seconds = format!("{}", 200_000 + std::process::id());
    let command = format!("/bin/sleep {seconds}");
    let begun = Instant::now();
    let ids = bench.run("many", options.found, &seconds).await?;
    println!("  {} tasks run after {:.1} s", options.found, begun.elapsed().as_secs_f64());
    tokio::time::sleep(SETTLE).await;
    let before: BTreeMap<u32, u32> = processes::by_command(&command);
    // SIGKILL, by the drop.
    drop(agent);
    let begun = Instant::now();
    let agent = Role::start(options, directory, "client", etcd)?;
    eventually("the agent answers", async || get(&bench.client, format!("{}/agent/self", agent.base)).await)
        .await?;
    let answers = begun.elapsed().as_secs_f64();
    // A signal reaches a task only once the agent has found it again. This one does nothing to a task that runs.
    let asked = futures::stream::iter(&ids).map(|id| {
        let url = format!("{}/client/allocation/{id}/signal", agent.base);
        let (client, begun) = (&bench.client, begun);
        async move {
            let known = eventually(id, async || {
                let sent =
                    client.put(url.clone()).json(&json!({"Task": "t", "Signal": "SIGCONT"})).send().await;
                sent.ok()?.status().is_success().then_some(())
            });
            known.await.map(|()| begun.elapsed().as_secs_f64())
        }
    });
    let times: Vec<Result<f64, String>> = asked.buffer_unordered(ABREAST).collect().await;
    let times = times.into_iter().collect::<Result<Vec<_>, _>>()?;
    let all = times.iter().copied().fold(0.0, f64::max);
    let spent = cpu::of_process(agent.pid());
    let after = processes::by_command(&command);
    let same = before.keys().filter(|pid| after.contains_key(pid)).count();
    println!(
        "  after kill -9       {all:.2} s until the last of {} obeys, {answers:.2} s until the agent answers (goal 2); \
         {spent:.2} s of CPU; load average {}",
        options.found,
        cpu::load()
    );
    println!("  the same processes  {same} of {}", before.len());
    bench.stop("many", &seconds).await?;
    if same < options.found { Err(format!("{} tasks did not survive", options.found - same)) } else { Ok(()) }
}
