//! What people do with tasks that run: look at their files, output and use, run commands in them, send signals.

use std::io::Read;
use std::io::Write;
use std::process::Command;
use std::process::Stdio;

use serde_json::Value;

use crate::support::Agent;
use crate::support::answer;
use crate::support::eventually;
use crate::support::herder;
use crate::support::text;

/// A job of one group with these tasks.
fn job(id: &str, tasks: &str) -> String {
    format!(
        "job \"{id}\" {{\n  group \"g\" {{\n    restart {{\n      delay = \"100ms\"\n    }}\n{tasks}\n  }}\n}}\n"
    )
}

/// A task that runs a script; `more` stands in its block.
fn task(name: &str, script: &str, more: &str) -> String {
    format!(
        "task \"{name}\" {{\n  driver = \"raw_exec\"\n  config {{\n    command = \"/bin/sh\"\n    \
         args = [\"-c\", {script:?}]\n  }}\n  resources {{\n    cpu = 50\n    memory = 32\n  }}\n{more}\n}}\n"
    )
}

/// Runs a job and gives its allocation, once that runs.
fn start(agent: &Agent, id: &str, text_of_job: &str) -> String {
    let file = agent.file(&format!("{id}.nomad.hcl"), text_of_job);
    agent.ok(&["job", "run", "-detach", text(&file)]);
    eventually("the allocation runs", || {
        let alloc = agent.allocs(id).into_iter().next()?;
        (alloc["ClientStatus"] == "running").then(|| alloc["ID"].as_str().unwrap_or_default().to_owned())
    })
}

#[test]
fn commands_run_in_tasks_with_their_input_output_and_exit_code() {
    let agent = Agent::dev();
    let action = "action \"greet\" {\n  command = \"/bin/echo\"\n  args = [\"hello from\", \"an action\"]\n}";
    let tasks = task("main", "echo ready; sleep 1000", action) + &task("other", "sleep 1000", "");
    let alloc = start(&agent, "io-exec", &job("io-exec", &tasks));
    let mut exec = Command::new(herder());
    exec.args(["alloc", "exec", "-task", "main", &alloc, "/bin/sh", "-c", "cat; echo bad >&2; exit 7"]);
    exec.env("NOMAD_ADDR", &agent.address)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = exec.spawn().expect("the program starts");
    child.stdin.take().expect("piped").write_all(b"typed\n").expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(
        (output.status.code(), output.stdout.as_slice(), output.stderr.as_slice()),
        (Some(7), b"typed\n".as_slice(), b"bad\n".as_slice())
    );
    let by_job =
        agent.cli(&["exec", "-job", "-i=false", "-task", "main", "io-exec", "/bin/echo", "-n", "-x"]);
    assert_eq!((by_job.code, by_job.stdout.as_str()), (0, "-x"), "{}", by_job.stderr);
    let missing = agent.cli(&["alloc", "exec", "-task", "main", &alloc, "/no/such"]);
    assert_eq!(missing.code, 1);
    assert_eq!(
        missing.stderr,
        "failed to exec into task: rpc error: code = Unknown desc = failed to start command: fork/exec /no/such: no such \
         file or directory\n"
    );
    let which = agent.cli(&["alloc", "exec", &alloc, "ls"]);
    assert!(which.code == 1 && which.stderr.contains("Please specify the task."), "{}", which.stderr);
    let nothing = agent.cli(&["alloc", "exec", &alloc]);
    assert!(nothing.code == 1 && nothing.stderr.starts_with("A command is required"), "{}", nothing.stderr);
    let tty = agent.cli(&["alloc", "exec", "-t", "-i=false", "-task", "main", &alloc, "ls"]);
    assert_eq!((tty.code, tty.stderr.as_str()), (1, "-i must be enabled if running with tty\n"));
    let action =
        |name: &str| agent.cli(&["job", "action", "-job", "io-exec", "-group", "g", "-task", "main", name]);
    assert_eq!(action("greet").stdout, "hello from an action\n");
    let unknown = action("leave");
    assert_eq!(
        (unknown.code, unknown.stderr.as_str()),
        (1, "failed to exec into task: action leave not found in task main\n")
    );
    agent.ok(&["job", "stop", "-detach", "io-exec"]);
    eventually("the task has ended", || {
        let late = agent.cli(&["alloc", "exec", "-task", "main", &alloc, "ls"]);
        (late.stderr == "failed to exec into task: task \"main\" is not running.\n").then_some(())
    });
}

/// Writes numbered lines of a hundred bytes; three megabytes of them.
const MANY_LINES: &str = "while [ ! -e ../alloc/data/go ]; do sleep 0.1; done; \
    seq -f '%099.0f' 1 30000; echo end; sleep 1000";

#[test]
fn output_is_followed_over_rotated_files_and_shown_from_both_ends() {
    let agent = Agent::dev();
    let logs = "logs {\n  max_files = 5\n  max_file_size = 1\n}";
    let alloc = start(&agent, "io-logs", &job("io-logs", &task("main", MANY_LINES, logs)));
    let mut follower = Command::new(herder())
        .args(["alloc", "logs", "-f", "-stdout", &alloc])
        .env("NOMAD_ADDR", &agent.address)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut followed = follower.stdout.take().expect("piped");
    agent.ok(&["alloc", "exec", &alloc, "touch", "../alloc/data/go"]);
    let mut whole = String::new();
    let mut buffer = vec![0; 64 * 1024];
    while !whole.ends_with("end\n") {
        let length = followed.read(&mut buffer).expect("it can be read");
        assert!(length > 0, "the follower ended after {} bytes", whole.len());
        whole.push_str(std::str::from_utf8(&buffer[..length]).expect("digits"));
    }
    let _ = follower.kill();
    let _ = follower.wait();
    let lines: Vec<&str> = whole.lines().collect();
    assert_eq!(lines.len(), 30_001);
    for (number, line) in lines[..30_000].iter().enumerate() {
        assert_eq!(line.parse::<usize>().ok(), Some(number + 1), "nothing is lost or repeated");
    }
    let files = agent.ok(&["alloc", "fs", &alloc, "alloc/logs"]);
    assert!(files.contains("main.stdout.1"), "it was rotated: {files}");
    assert_eq!(agent.ok(&["alloc", "logs", &alloc]), whole);
    let tail = agent.ok(&["alloc", "logs", "-tail", "-n", "2", &alloc]);
    assert_eq!(tail.lines().collect::<Vec<_>>(), [lines[29_999], "end"]);
    assert_eq!(agent.ok(&["alloc", "logs", "-tail", "-c", "4", &alloc]), "end\n");
    assert_eq!(agent.ok(&["alloc", "logs", "-stderr", "-job", "io-logs"]), "");
    let unknown = agent.cli(&["alloc", "logs", &alloc, "nope"]);
    assert_eq!(
        unknown.stderr,
        "Failed to read stdout file: error reading file: Unexpected response code: 400 (unknown task name \"nope\")\n"
    );
    agent.ok(&["job", "stop", "-detach", "io-logs"]);
    eventually("the allocation has ended", || {
        (agent.allocs("io-logs")[0]["ClientStatus"] == "complete").then_some(())
    });
    assert_eq!(agent.ok(&["alloc", "logs", &alloc]), whole, "also after the end");
    agent.get(&format!("/v1/client/allocation/{alloc}/stats"));
    agent.ok(&["operator", "api", "-X", "GET", &format!("/v1/client/allocation/{alloc}/gc")]);
    let gone = agent.cli(&["alloc", "logs", &alloc]);
    assert!(
        gone.stderr.contains(&format!("404 (state for allocation {alloc} not found on client)")),
        "{}",
        gone.stderr
    );
}

#[test]
fn files_of_an_allocation_are_listed_and_read() {
    let agent = Agent::dev();
    let script = "seq 1 20 > local/numbers; echo ready; sleep 1000";
    let alloc = start(&agent, "io-fs", &job("io-fs", &task("main", script, "")));
    eventually("it is ready", || agent.ok(&["alloc", "logs", &alloc]).contains("ready").then_some(()));
    let root = agent.ok(&["alloc", "fs", &alloc]);
    let header = root.lines().next().unwrap_or_default();
    assert_eq!(header.split_whitespace().collect::<Vec<_>>(), ["Mode", "Size", "Modified", "Time", "Name"]);
    assert!(root.contains("alloc/") && root.contains("main/"), "{root}");
    assert_eq!(agent.ok(&["alloc", "fs", &alloc, "main/local/numbers"]).lines().count(), 20);
    assert_eq!(agent.ok(&["fs", "-job", "-tail", "-c", "3", "io-fs", "main/local/numbers"]), "20\n");
    assert_eq!(agent.ok(&["fs", "-tail", "-n", "2", &alloc, "main/local/numbers"]), "19\n20\n");
    let stat = agent.ok(&["alloc", "fs", "-stat", "-H", &alloc, "main/local/numbers"]);
    assert!(stat.contains("  51  ") && stat.contains("numbers"), "{stat}");
    let missing = agent.cli(&["alloc", "fs", &alloc, "main/nothing"]);
    assert!(
        missing.code == 1 && missing.stderr.contains("Unexpected response code: 404 (stat /"),
        "{}",
        missing.stderr
    );
    let secret = agent.cli(&["alloc", "fs", &alloc, "main/secrets/x"]);
    assert!(
        secret.code == 1 && secret.stderr.contains("Reading secret file prohibited"),
        "{}",
        secret.stderr
    );
    let outside = agent.cli(&["alloc", "fs", &alloc, "../../x"]);
    assert!(outside.stderr.contains("500 (Path escapes the alloc directory)"), "{}", outside.stderr);
}

#[test]
fn signals_reach_tasks_and_all_tasks_can_be_restarted() {
    let agent = Agent::dev();
    let main = "trap 'echo got it' USR1; echo begun; while :; do sleep 0.1; done";
    let prep = "lifecycle {\n  hook = \"prestart\"\n}";
    let tasks = task("main", main, "") + &task("prep", "echo prepared", prep);
    let alloc = start(&agent, "io-signal", &job("io-signal", &tasks));
    eventually("it is ready", || agent.ok(&["logs", &alloc, "main"]).contains("begun").then_some(()));
    agent.ok(&["alloc", "signal", "-s", "SIGUSR1", &alloc, "main"]);
    eventually("it heard", || agent.ok(&["logs", &alloc, "main"]).contains("got it").then_some(()));
    // The one that has ended is an error, and the other gets the signal all the same.
    let all = agent.cli(&["alloc", "signal", "-s", "SIGUSR1", &alloc]);
    assert!(all.stderr.contains("\t* Failed to signal task: prep, err: Task not running"), "{}", all.stderr);
    eventually("it heard again", || {
        (agent.ok(&["logs", &alloc, "main"]).matches("got it").count() == 2).then_some(())
    });
    let both = agent.cli(&["alloc", "restart", "-all-tasks", "-task", "main", &alloc]);
    assert_eq!(both.stderr, "The -all-tasks option is not allowed when restarting a specific task.\n");
    let ended = agent.cli(&["alloc", "restart", &alloc, "prep"]);
    assert!(
        ended.stderr.starts_with("Failed to restart task:\n\n") && ended.stderr.contains("Task not running")
    );
    agent.ok(&["alloc", "restart", &alloc]);
    let count = |task: &str, word: &str| agent.ok(&["logs", &alloc, task]).matches(word).count();
    eventually("the running one begins again", || (count("main", "begun") == 2).then_some(()));
    assert_eq!(count("prep", "prepared"), 1);
    agent.ok(&["alloc", "restart", "-all-tasks", &alloc]);
    eventually("both begin again", || {
        (count("main", "begun") == 3 && count("prep", "prepared") == 2).then_some(())
    });
    eventually("the allocation runs as before", || {
        let states = &agent.allocs("io-signal")[0]["TaskStates"];
        (states["main"]["State"] == "running" && states["prep"]["State"] == "dead").then_some(())
    });
}

#[test]
fn what_tasks_and_the_machine_use_is_shown() {
    let agent = Agent::dev();
    let tasks = task("busy", "while :; do :; done", "") + &task("idle", "sleep 1000", "");
    let alloc = start(&agent, "io-stats", &job("io-stats", &tasks));
    let stats = agent.get(&format!("/v1/client/allocation/{alloc}/stats"));
    let percent =
        |task: &str| stats["Tasks"][task]["ResourceUsage"]["CpuStats"]["Percent"].as_f64().unwrap_or(-1.0);
    assert!(percent("busy") > 2.0 && percent("busy") <= 105.0, "{stats}");
    assert!((0.0..2.0).contains(&percent("idle")), "{stats}");
    let ticks = |usage: &Value| usage["CpuStats"]["TotalTicks"].as_f64().unwrap_or(-1.0);
    assert!(ticks(&stats["ResourceUsage"]) >= ticks(&stats["Tasks"]["busy"]["ResourceUsage"]), "{stats}");
    assert!(stats["Tasks"]["busy"]["Pids"].as_object().is_some_and(|pids| !pids.is_empty()), "{stats}");
    let one = agent.get(&format!("/v1/client/allocation/{alloc}/stats?task=idle"));
    assert_eq!(one["Tasks"].as_object().map(serde_json::Map::len), Some(1));
    let shown = agent.ok(&["alloc", "status", "-stats", &alloc]);
    for heading in ["Memory Stats\nRSS ", "CPU Stats\nPercent  System Mode  User Mode"] {
        assert!(shown.contains(heading), "{heading}: {shown}");
    }
    assert!(shown.contains("/50 MHz") && shown.contains("/32 MiB"), "{shown}");
    let node = agent.ok(&["node", "status", "-self", "-stats"]);
    for heading in
        ["Uptime", "Allocation Resource Utilization", "CPU Stats\nCPU ", "Memory Stats", "Disk Stats"]
    {
        assert!(node.contains(heading), "{heading}: {node}");
    }
    let metrics = agent.ok(&["operator", "metrics", "-format", "prometheus"]);
    for name in [
        "nomad_client_allocs_cpu_total_percent{alloc_id=\"",
        "nomad_client_allocs_memory_rss{",
        "nomad_client_allocs_memory_allocated{",
        "nomad_client_allocations_running{",
        "nomad_client_unallocated_memory{",
        "nomad_client_host_cpu_idle{cpu=\"cpu0\"",
        "nomad_client_host_memory_total{",
        "nomad_client_uptime{",
    ] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
    assert!(metrics.contains("node_status=\"ready\"") && metrics.contains("task=\"busy\""), "{metrics}");
    let summary = agent.get("/v1/metrics");
    let gauges = summary["Gauges"].as_array().cloned().unwrap_or_default();
    let running = gauges.iter().find(|gauge| gauge["Name"] == "nomad.client.allocations.running");
    assert_eq!(running.map(|gauge| &gauge["Value"]), Some(&serde_json::json!(1.0)), "{summary}");
}

#[test]
fn metrics_that_were_not_asked_for_are_not_published() {
    let config = "telemetry {\n  prometheus_metrics = true\n}\nplugin \"raw_exec\" {\n  config {\n    enabled = true\n  }\n}\n\
         client {\n  enabled = true\n  network_interface = \"lo\"\n}\nserver {\n  enabled = true\n}\n";
    let etcd = crate::etcd::Etcd::cluster(1);
    let endpoints = etcd.endpoints();
    let agent = Agent::start(&[], &format!("{config}etcd {{\n  endpoints = {endpoints:?}\n}}\n"));
    let text = eventually("the node is there", || {
        let text = agent.ok(&["operator", "metrics", "-format", "prometheus"]);
        text.contains("node_status=\"ready\"").then_some(text)
    });
    assert!(text.contains("nomad_client_allocations_running{"), "{text}");
    assert!(!text.contains("nomad_client_host_") && !text.contains("nomad_client_uptime"), "{text}");
    drop(agent);
}

#[test]
fn a_wrong_flag_of_an_interactive_command_is_named() {
    let wrong = answer(Command::new(herder()).args(["alloc", "exec", "-e", "ab", "0a1b2c3d", "ls"]));
    assert_eq!((wrong.code, wrong.stderr.as_str()), (1, "-e requires 'none' or a single character\n"));
}
