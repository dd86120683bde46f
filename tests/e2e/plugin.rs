//! A driver that is a program of its own: the sample driver behind a real agent, and what happens to its tasks when
//! the plugin or the agent dies.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::etcd::Etcd;
use crate::support::Agent;
use crate::support::eventually;
use crate::support::text;

const WALKER: &str = r#"
job "walker" {
  group "g" {
    restart {
      attempts = 0
      mode     = "fail"
    }
    network {
      port "http" {}
    }
    task "walk" {
      driver = "sample"
      config {
        command = "/bin/sh"
        args    = ["-c", "trap 'echo told' USR1; echo pid $$ http $SAMPLE_PORT_http; echo to the other >&2; n=0; while :; do n=$((n+1)); echo step $n; sleep 0.2; done"]
        port_map {
          http = 8080
        }
      }
      resources {
        cpu    = 20
        memory = 20
      }
    }
  }
}
"#;

/// An agent whose plugin directory holds the sample driver.
fn start(dir: TempDir, etcd: &Etcd) -> Agent {
    start_with(dir, etcd, "")
}

/// The same; `args` for the plugin, with their name.
fn start_with(dir: TempDir, etcd: &Etcd, args: &str) -> Agent {
    let plugins = dir.path().join("plugins");
    if !plugins.exists() {
        std::fs::create_dir(&plugins).expect("a directory");
        symlink(env!("CARGO_BIN_EXE_sample-driver"), plugins.join("sample-driver")).expect("a link");
        std::fs::write(plugins.join("README"), "not a plugin").expect("a file");
    }
    let (unhealthy, endpoints) = (dir.path().join("unhealthy"), etcd.endpoints());
    let config = format!(
        "plugin_dir = {plugins:?}\netcd {{\n  endpoints = {endpoints:?}\n}}\nclient {{\n  network_interface = \"lo\"\n}}\n\
         plugin \"sample-driver\" {{\n  {args}\n  config {{\n    unhealthy_file = {unhealthy:?}\n  }}\n}}\n"
    );
    Agent::start_in(dir, &["-server", "-client"], &config)
}

/// What the node says about the driver; `None` while it is not ready.
fn driver(agent: &Agent) -> Option<(bool, String)> {
    let nodes = agent.get("/v1/nodes");
    let node = nodes.as_array()?.iter().find(|node| node["Status"] == "ready")?;
    let driver = &node["Drivers"]["sample"];
    Some((driver["Healthy"].as_bool()?, driver["HealthDescription"].as_str()?.to_owned()))
}

fn healthy(agent: &Agent) {
    eventually("the driver is healthy", || driver(agent).filter(|(healthy, _)| *healthy));
}

fn alloc(agent: &Agent, job: &str, status: &str) -> Value {
    eventually(&format!("{job} is {status}"), || {
        let found = agent.allocs(job).into_iter().find(|alloc| alloc["ClientStatus"] == status)?;
        Some(agent.get(&format!("/v1/allocation/{}", found["ID"].as_str()?)))
    })
}

/// The texts of a task's events.
fn events(alloc: &Value, task: &str) -> Vec<String> {
    let events = alloc["TaskStates"][task]["Events"].as_array().cloned().unwrap_or_default();
    let text =
        |event: &Value| Some(format!("{}: {}", event["Type"].as_str()?, event["DisplayMessage"].as_str()?));
    events.iter().filter_map(text).collect()
}

/// Waits until the output of a stream satisfies a condition.
fn log(agent: &Agent, id: &str, stream: &str, what: &str, enough: impl Fn(&str) -> bool) -> String {
    eventually(what, || Some(agent.ok(&["alloc", "logs", stream, id])).filter(|log| enough(log)))
}

fn steps(log: &str) -> Vec<u32> {
    log.lines().filter_map(|line| line.strip_prefix("step ")?.parse().ok()).collect()
}

/// Processes whose command line contains a text.
fn processes(part: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("mounted").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let has = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(part)
    };
    pids.filter(has).collect()
}

/// The plugin's own process: it is started by its path in the plugin directory.
fn plugin(dir: &Path) -> Vec<i32> {
    let file: PathBuf = dir.join("plugins/sample-driver");
    processes(text(&file))
}

/// What a test that failed leaves behind: processes with an open file below a directory, or named after it.
struct Leftovers(PathBuf);

impl Drop for Leftovers {
    fn drop(&mut self) {
        let holds = |pid: &i32| {
            let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            files
                .filter_map(|file| std::fs::read_link(file.path()).ok())
                .any(|file| file.starts_with(&self.0))
        };
        let found = processes("supervise").into_iter().filter(holds).chain(processes(text(&self.0)));
        for pid in found.collect::<Vec<_>>() {
            let _ = Command::new("kill").arg("-9").arg(pid.to_string()).status();
        }
    }
}

fn kill(pid: i32) {
    assert!(Command::new("kill").arg("-9").arg(pid.to_string()).status().expect("kill runs").success());
}

#[test]
fn tasks_of_a_plugin_run_and_survive_the_plugin_and_the_agent() {
    let etcd = Etcd::start();
    let agent = start(tempfile::tempdir().expect("a directory"), &etcd);
    let _leftovers = Leftovers(agent.dir.path().join("data/alloc"));
    healthy(&agent);
    let node = agent.get("/v1/nodes")[0]["ID"]
        .as_str()
        .map(|id| agent.get(&format!("/v1/node/{id}")))
        .expect("a node");
    assert_eq!(node["Attributes"]["driver.sample"], "1");
    assert_eq!(node["Attributes"]["driver.sample.version"], env!("CARGO_PKG_VERSION"));

    let file = agent.file("walker.nomad.hcl", WALKER);
    agent.ok(&["job", "run", "-detach", text(&file)]);
    let running = alloc(&agent, "walker", "running");
    let id = running["ID"].as_str().expect("an id").to_owned();
    let first = log(&agent, &id, "-stdout", "the task says who it is", |log| log.contains("step 2"));
    let line = first.lines().next().expect("a line").to_owned();
    let pid: i32 = line.split(' ').nth(1).and_then(|pid| pid.parse().ok()).expect("a process id");
    assert!(line.ends_with(" http 8080"), "{line}");
    log(&agent, &id, "-stderr", "standard error is kept apart", |log| log == "to the other\n");
    eventually("the plugin's event is told", || {
        let events = events(&agent.get(&format!("/v1/allocation/{id}")), "walk");
        events.iter().any(|event| event == "Driver: The driver \"sample\" starts a process").then_some(())
    });
    agent.ok(&["alloc", "signal", "-s", "SIGUSR1", &id]);
    log(&agent, &id, "-stdout", "the signal arrives", |log| log.contains("told"));
    let stats = agent.get(&format!("/v1/client/allocation/{id}/stats"));
    assert!(stats["ResourceUsage"]["MemoryStats"]["RSS"].as_u64().is_some_and(|rss| rss > 0), "{stats}");

    let inside =
        |script: &str| agent.cli(&["alloc", "exec", "-i=false", "-t=false", &id, "/bin/sh", "-c", script]);
    let told = inside("echo in $NOMAD_TASK_NAME; echo aside >&2; exit 7");
    assert_eq!((told.code, told.stdout.as_str()), (7, "in walk\n"), "{}", told.stderr);
    assert!(told.stderr.contains("aside"), "{}", told.stderr);

    let old = plugin(agent.dir.path());
    assert_eq!(old.len(), 1, "{old:?}");
    kill(old[0]);
    eventually("the plugin is started anew", || {
        let now = plugin(agent.dir.path());
        (now.len() == 1 && now != old).then_some(())
    });
    healthy(&agent);
    let seen = steps(&agent.ok(&["alloc", "logs", &id])).len();
    log(&agent, &id, "-stdout", "the task goes on", |log| steps(log).len() > seen + 2);
    agent.ok(&["alloc", "signal", "-s", "SIGUSR1", &id]);

    let dir = agent.kill();
    eventually("the plugin ends with its agent", || plugin(dir.path()).is_empty().then_some(()));
    let agent = start(dir, &etcd);
    healthy(&agent);
    let seen = steps(&agent.ok(&["alloc", "logs", &id])).len();
    let whole = log(&agent, &id, "-stdout", "the task still goes on", |log| steps(log).len() > seen + 2);
    let steps = steps(&whole);
    assert!(steps.iter().copied().eq(1..=steps.len() as u32), "nothing was lost or said twice: {steps:?}");
    let now = alloc(&agent, "walker", "running");
    assert_eq!((&now["ID"], &now["TaskStates"]["walk"]["Restarts"]), (&running["ID"], &Value::from(0)));
    assert!(Path::new(&format!("/proc/{pid}")).exists());

    agent.ok(&["job", "stop", "-purge", "walker"]);
    eventually("the task has ended", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    eventually("the job is gone", || (agent.cli(&["job", "status", "walker"]).code == 1).then_some(()));
    let path = agent.dir.path().to_owned();
    drop(agent);
    eventually("the plugin ends with its agent", || plugin(&path).is_empty().then_some(()));
}

const ONCE: &str = r#"
job "once" {
  type = "batch"
  group "g" {
    restart {
      attempts = 0
      mode     = "fail"
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }
    task "t" {
      driver = "sample"
      config {
        command = "COMMAND"
        args    = ["-c", "echo last words; exit 3"]
      }
      resources {
        cpu    = 20
        memory = 20
      }
    }
  }
}
"#;

#[test]
fn a_plugin_says_what_is_wrong() {
    let etcd = Etcd::start();
    let agent = start(tempfile::tempdir().expect("a directory"), &etcd);
    healthy(&agent);
    let run = |name: &str, job: String| {
        let file = agent.file("job.nomad.hcl", &job.replace("\"once\"", &format!("{name:?}")));
        agent.ok(&["job", "run", "-detach", text(&file)]);
        let ended = alloc(&agent, name, "failed");
        (ended["ID"].as_str().expect("an id").to_owned(), events(&ended, "t"))
    };
    let (id, told) = run("exits", ONCE.replace("COMMAND", "/bin/sh"));
    assert!(told.iter().any(|event| event == "Terminated: Exit Code: 3"), "{told:?}");
    assert_eq!(agent.ok(&["alloc", "logs", &id]), "last words\n", "all of the output is kept");
    let (_, told) = run("missing", ONCE.replace("COMMAND", "/does/not/exist"));
    assert!(told.iter().any(|event| event.starts_with("Driver Failure: ")), "{told:?}");
    let (_, told) = run("wrong", ONCE.replace("args ", "arrgs "));
    let text = "An argument named \"arrgs\" is not expected here.";
    assert!(
        told.iter().any(|event| event.starts_with("Failed Validation: ") && event.contains(text)),
        "{told:?}"
    );

    let file = agent.file("unhealthy", "");
    eventually("the driver says that it is unhealthy", || {
        driver(&agent).filter(|(healthy, why)| !healthy && why.ends_with("unhealthy exists"))
    });
    std::fs::remove_file(file).expect("a file");
    healthy(&agent);
}

const NETWORKED: &str = r#"
job "networked" {
  group "g" {
    network {
      mode     = "bridge"
      hostname = "inner"
      dns {
        servers = ["192.0.2.53"]
      }
      port "http" {}
    }
    task "t" {
      driver = "sample"
      service {
        name     = "networked"
        port     = "http"
        provider = "nomad"
      }
      config {
        command = "/bin/sh"
        args    = ["-c", "echo $SAMPLE_JOB $SAMPLE_NODE ticks $SAMPLE_TICKS dns $SAMPLE_DNS host $SAMPLE_HOST.; readlink /proc/self/ns/net; sleep 1000"]
        address = "192.0.2.7"
        port_map {
          http = 9090
        }
      }
      resources {
        cpu    = 20
        memory = 20
      }
    }
  }
}
"#;

/// The processes that hold the namespace which the sample driver has made for an allocation.
fn holders(id: &str) -> Vec<i32> {
    let wanted = inode(&Path::new("/var/run/netns").join(id)).expect("a namespace");
    let in_it = |pid: &i32| inode(Path::new(&format!("/proc/{pid}/ns/net"))) == Some(wanted);
    processes("sleep infinity").into_iter().filter(in_it).collect()
}

fn inode(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|meta| meta.ino())
}

#[test]
fn a_driver_that_must_make_the_network_does_and_says_where_its_tasks_are() {
    let etcd = Etcd::start();
    let args = "args = [\"--network\"]";
    let agent = start_with(tempfile::tempdir().expect("a directory"), &etcd, args);
    let _leftovers = Leftovers(agent.dir.path().join("data/alloc"));
    healthy(&agent);
    let file = agent.file("networked.nomad.hcl", NETWORKED);
    agent.ok(&["job", "run", "-detach", text(&file)]);
    let running = alloc(&agent, "networked", "running");
    let id = running["ID"].as_str().expect("an id").to_owned();
    let told = log(&agent, &id, "-stdout", "the task says where it is", |log| log.contains("net:["));
    let node = running["NodeID"].as_str().expect("a node");
    let address = running["NetworkStatus"]["Address"].as_str().expect("an address");
    let (first, namespace) = told.trim().split_once('\n').expect("two lines");
    assert!(first.starts_with(&format!("networked/networked {node} ticks 0.0")), "{first}");
    assert!(first.ends_with(&format!(" dns 192.0.2.53 host inner {address}.")), "{first}");
    // The driver's namespace is the one that got the address, and stays when the agent goes.
    let path = Path::new("/var/run/netns").join(&id);
    assert_eq!(namespace, format!("net:[{}]", inode(&path).expect("a namespace")));
    let held = holders(&id);
    assert!(!held.is_empty());
    let place = |agent: &Agent, service: &str| {
        eventually(&format!("the service {service}"), || {
            let found = agent.get(&format!("/v1/service/{service}"));
            let one = found.as_array()?.first()?;
            Some((one["Address"].as_str()?.to_owned(), one["Port"].as_u64()?))
        })
    };
    assert_eq!(place(&agent, "networked"), ("192.0.2.7".to_owned(), 9090));
    let dir = agent.kill();
    let agent = start_with(dir, &etcd, args);
    healthy(&agent);
    alloc(&agent, "networked", "running");
    assert_eq!(holders(&id), held);
    assert_eq!(place(&agent, "networked"), ("192.0.2.7".to_owned(), 9090));

    agent.ok(&["job", "stop", "-purge", "networked"]);
    eventually("the namespace is gone", || (!path.exists()).then_some(()));
    eventually("its process is gone", || {
        held.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
}
