//! What tasks find on their node, and what an agent does when it comes and goes: volumes, data that moves, drains,
//! restarts. They need root, control groups and etcd.

use std::collections::BTreeMap;
use std::path::Path;

use crate::etcd::Etcd;
use crate::support::Agent;
use crate::support::eventually;
use crate::support::text;

const RAW_EXEC: &str = "plugin \"raw_exec\" {\n  config {\n    enabled = true\n  }\n}\n";

/// Waits for an allocation of the job in this state; its id.
fn alloc_in(agent: &Agent, job: &str, status: &str) -> String {
    eventually(&format!("an allocation of {job} is {status}"), || {
        let all = agent.allocs(job);
        let found = all.iter().find(|alloc| alloc["ClientStatus"] == status)?;
        found["ID"].as_str().map(str::to_owned)
    })
}

fn run(agent: &Agent, name: &str, job: &str) {
    let file = agent.file(&format!("{name}.nomad.hcl"), job);
    agent.ok(&["job", "run", "-detach", text(&file)]);
}

/// `Type: text` of the events of task `t` of an allocation.
fn events(agent: &Agent, alloc: &str) -> Vec<String> {
    let alloc = agent.get(&format!("/v1/allocation/{alloc}"));
    let events = alloc["TaskStates"]["t"]["Events"].as_array().cloned().unwrap_or_default();
    let field = |event: &serde_json::Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
    events
        .iter()
        .map(|event| format!("{}: {}", field(event, "Type"), field(event, "DisplayMessage")))
        .collect()
}

fn ready_nodes(agent: &Agent) -> BTreeMap<String, String> {
    let all = agent.get("/v1/nodes").as_array().cloned().unwrap_or_default();
    let ready = all.iter().filter(|node| node["Status"] == "ready");
    let field = |node: &serde_json::Value, name: &str| node[name].as_str().unwrap_or_default().to_owned();
    ready.map(|node| (field(node, "Name"), field(node, "ID"))).collect()
}

/// One batch task that runs this script once. `group` and `task` are more lines of those blocks.
fn batch(name: &str, driver: &str, group: &str, task: &str, script: &str) -> String {
    format!(
        r#"
job "{name}" {{
  type = "batch"
  group "g" {{
    restart {{
      attempts = 0
    }}
    reschedule {{
      attempts = 0
    }}
    {group}
    task "t" {{
      driver = "{driver}"
      {task}
      config {{
        command = "/bin/sh"
        args    = ["-c", <<EOT
{script}
EOT
        ]
      }}
      resources {{
        cpu    = 20
        memory = 32
      }}
    }}
  }}
}}
"#
    )
}

/// One batch task with two volumes: `rw` at `/srv/data` (with more lines for that mount) and `ro` at `/srv/fixed`.
fn with_volumes(name: &str, driver: &str, mount: &str, script: &str) -> String {
    let volume = |name: &str, source: &str, more: &str| {
        format!("volume {name:?} {{\n type = \"host\"\n source = {source:?}\n {more}\n }}\n")
    };
    let group = volume("data", "rw", "") + &volume("fixed", "ro", "read_only = true");
    let mounted = |name: &str, to: &str, more: &str| {
        format!("volume_mount {{\n volume = {name:?}\n destination = {to:?}\n {more}\n }}\n")
    };
    let task = mounted("data", "/srv/data", mount) + &mounted("fixed", "/srv/fixed", "");
    batch(name, driver, &group, &task, script)
}

#[test]
fn host_volumes_are_mounted_where_the_driver_can_and_refused_where_it_cannot() {
    let (rw, ro) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    for dir in [&rw, &ro] {
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .expect("our own directory");
    }
    std::fs::write(ro.path().join("constant"), "42\n").expect("a writable directory");
    let config = format!(
        "{RAW_EXEC}client {{\n host_volume \"rw\" {{\n path = {:?}\n }}\n host_volume \"ro\" {{\n path = {:?}\n \
         read_only = true\n }}\n}}\n",
        rw.path(),
        ro.path()
    );
    let agent = Agent::start(&["-dev"], &config);
    eventually("the node is ready", || (!ready_nodes(&agent).is_empty()).then_some(()));
    let script = "cat /srv/fixed/constant; echo from-task > /srv/data/written; \
        echo x > /srv/fixed/x || echo refused";
    run(&agent, "vexec", &with_volumes("vexec", "exec", "", script));
    let done = alloc_in(&agent, "vexec", "complete");
    assert_eq!(agent.ok(&["alloc", "logs", &done]), "42\nrefused\n");
    assert_eq!(std::fs::read_to_string(rw.path().join("written")).expect("written"), "from-task\n");
    assert!(!ro.path().join("x").exists());
    // One task may read what another may write.
    let script = "cat /srv/data/written; echo y > /srv/data/y || echo refused";
    run(&agent, "vread", &with_volumes("vread", "exec", "read_only = true", script));
    let done = alloc_in(&agent, "vread", "complete");
    assert_eq!(agent.ok(&["alloc", "logs", &done]), "from-task\nrefused\n");
    run(&agent, "vraw", &with_volumes("vraw", "raw_exec", "", "true"));
    let failed = alloc_in(&agent, "vraw", "failed");
    let events = events(&agent, &failed);
    let text = "Task hook failed: volumes: task driver \"raw_exec\" for \"t\" does not support host volumes";
    assert!(events.iter().any(|event| event == text), "{events:?}");
}

#[test]
fn mounts_of_the_host_are_seen_by_tasks_that_ask_for_them() {
    let rw = tempfile::tempdir().expect("a directory");
    // A mount of its own, shared as the mounts of most machines are.
    let mount = |args: &[&str]| {
        assert!(
            std::process::Command::new("mount").args(args).status().expect("mount").success(),
            "{args:?}"
        );
    };
    let place = text(rw.path());
    mount(&["-t", "tmpfs", "none", place]);
    mount(&["--make-shared", place]);
    std::fs::create_dir(rw.path().join("later")).expect("our own directory");
    let config = format!(
        "client {{\n host_volume \"rw\" {{\n path = {place:?}\n }}\n host_volume \"ro\" {{\n path = {place:?}\n \
         read_only = true\n }}\n}}\n"
    );
    let agent = Agent::start(&["-dev"], &config);
    eventually("the node is ready", || (!ready_nodes(&agent).is_empty()).then_some(()));
    let wait = "until [ -e /srv/data/later/news ]; do sleep 0.1; done; cat /srv/data/later/news; \
        ls /srv/fixed/later";
    let job = with_volumes("vprop", "exec", "propagation_mode = \"host-to-task\"", wait);
    run(&agent, "vprop", &job);
    alloc_in(&agent, "vprop", "running");
    let later = rw.path().join("later");
    mount(&["-t", "tmpfs", "none", text(&later)]);
    std::fs::write(later.join("news"), "it came\n").expect("our own file system");
    let done = alloc_in(&agent, "vprop", "complete");
    assert_eq!(agent.ok(&["alloc", "logs", &done]), "it came\n", "and the private one does not see it");
    drop(agent);
    for place in [text(&later), place] {
        assert!(std::process::Command::new("umount").arg(place).status().expect("umount").success());
    }
}

fn cluster_config(etcd: &Etcd, name: &str, more: &str) -> String {
    let endpoints = etcd.endpoints();
    format!("name = {name:?}\netcd {{\n  endpoints = {endpoints:?}\n}}\n{RAW_EXEC}{more}")
}

const KEEPER: &str = r#"
job "keeper" {
  group "g" {
    ephemeral_disk {
      sticky  = true
      migrate = true
    }
    task "t" {
      driver       = "raw_exec"
      kill_timeout = "1s"
      config {
        command = "/bin/sh"
        args    = ["-c", "echo run >> $NOMAD_ALLOC_DIR/data/log; echo run >> local/log; cat $NOMAD_ALLOC_DIR/data/log local/log; exec sleep 900"]
      }
      resources {
        cpu    = 20
        memory = 16
      }
    }
  }
}
"#;

#[test]
fn an_agent_that_leaves_is_drained_and_data_follows_the_work_to_the_next_node() {
    let etcd = Etcd::cluster(1);
    let server = Agent::start(&["-server"], &cluster_config(&etcd, "s0", ""));
    let leaving = "leave_on_terminate = true\nclient {\n  network_interface = \"lo\"\n  drain_on_shutdown {\n    \
        deadline = \"30s\"\n  }\n}\n";
    let first = Agent::start(&["-client"], &cluster_config(&etcd, "n0", leaving));
    eventually("the first node is ready", || (ready_nodes(&server).len() == 1).then_some(()));
    run(&server, "keeper", KEEPER);
    let old = alloc_in(&server, "keeper", "running");
    let second = Agent::start(
        &["-client"],
        &cluster_config(&etcd, "n1", "client {\n  network_interface = \"lo\"\n}\n"),
    );
    eventually("both nodes are ready", || (ready_nodes(&server).len() == 2).then_some(()));
    let nodes = ready_nodes(&server);
    assert_eq!(first.terminate(), Some(0), "it left in an orderly way");
    let new = eventually("the work runs on the other node", || {
        let all = server.allocs("keeper");
        let alloc =
            all.iter().find(|alloc| alloc["ClientStatus"] == "running" && alloc["NodeID"] == nodes["n1"])?;
        alloc["ID"].as_str().map(str::to_owned)
    });
    assert_ne!(old, new);
    let log = eventually("its data came along", || {
        Some(second.cli(&["alloc", "logs", &new]).stdout).filter(|log| log.lines().count() == 4)
    });
    assert_eq!(log, "run\nrun\nrun\nrun\n", "two runs in the shared and two in the task's own directory");
    let node = server.get(&format!("/v1/node/{}", nodes["n0"]));
    assert_eq!(node["SchedulingEligibility"], "ineligible");
    server.ok(&["job", "stop", "-detach", "-purge", "keeper"]);
    eventually("the work ended", || server.allocs("keeper").is_empty().then_some(()));
}

#[test]
fn an_agent_with_a_taken_node_id_ends_with_an_error() {
    let etcd = Etcd::cluster(1);
    let server = Agent::start(&["-server"], &cluster_config(&etcd, "s0", ""));
    let client = "client {\n  network_interface = \"lo\"\n}\n";
    let first = Agent::start(&["-client"], &cluster_config(&etcd, "n0", client));
    eventually("the node is ready", || (ready_nodes(&server).len() == 1).then_some(()));
    let other = tempfile::tempdir().expect("a directory");
    let id = Path::new("data/client/client-id");
    std::fs::create_dir_all(other.path().join("data/client")).expect("a writable directory");
    std::fs::copy(first.dir.path().join(id), other.path().join(id)).expect("the node has an id");
    let second = Agent::start_in(other, &["-client"], &cluster_config(&etcd, "n1", client));
    assert_eq!(second.outcome(), Some(1));
    assert_eq!(ready_nodes(&server).into_keys().collect::<Vec<_>>(), ["n0"]);
}

#[test]
fn the_secrets_of_an_ended_task_are_unmounted_and_its_logs_stay() {
    let agent = Agent::start(&["-dev"], RAW_EXEC);
    eventually("the node is ready", || (!ready_nodes(&agent).is_empty()).then_some(()));
    run(&agent, "once", &batch("once", "exec", "", "", "echo key > /secrets/key && echo written"));
    let done = alloc_in(&agent, "once", "complete");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("a mount table");
    assert!(!mounts.contains(&done), "{mounts}");
    assert_eq!(agent.ok(&["alloc", "logs", &done]), "written\n");
}

fn is_mounted_in(dir: &std::path::Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("a mount table");
    mounts.contains(dir.to_str().expect("a plain path"))
}

#[test]
fn a_killed_dev_agent_leaves_nothing_once_there_is_another() {
    let agent = Agent::start(&["-dev"], RAW_EXEC);
    eventually("the node is ready", || (!ready_nodes(&agent).is_empty()).then_some(()));
    let service = |name: &str| batch(name, "raw_exec", "", "", "echo pid $$; exec sleep 1000");
    run(&agent, "left", &service("left"));
    let alloc = alloc_in(&agent, "left", "running");
    let pid = eventually("its pid", || {
        let said = agent.ok(&["alloc", "logs", &alloc]);
        said.trim().strip_prefix("pid ").map(str::to_owned)
    });
    let process = std::path::PathBuf::from(format!("/proc/{pid}"));
    let dir = agent.kill();
    assert!(process.exists() && is_mounted_in(dir.path()));
    let agent = Agent::start_in(dir, &["-dev"], RAW_EXEC);
    eventually("what was left is gone", || {
        (!process.exists() && !is_mounted_in(agent.dir.path())).then_some(())
    });
    run(&agent, "new", &batch("new", "raw_exec", "", "", "echo done"));
    alloc_in(&agent, "new", "complete");
    // An orderly end leaves no mounts either, though a job is purged just before.
    run(&agent, "last", &service("last"));
    alloc_in(&agent, "last", "running");
    agent.ok(&["job", "stop", "-purge", "-detach", "last"]);
    let path = agent.dir.path().to_owned();
    agent.terminate();
    assert!(!is_mounted_in(&path));
}

#[test]
fn a_followed_log_ends_with_its_allocation() {
    let agent = Agent::start(&["-dev"], RAW_EXEC);
    eventually("the node is ready", || (!ready_nodes(&agent).is_empty()).then_some(()));
    let script = "for i in 1 2 3; do head -c 700000 /dev/zero | tr '\\0' x | fold -w 99; echo; echo line $i; sleep 0.3; done; \
                  echo oops >&2; echo end";
    run(
        &agent,
        "talk",
        &batch("talk", "raw_exec", "", "logs {\n max_files = 5\n max_file_size = 1\n }", script),
    );
    let alloc = eventually("its allocation", || {
        let all = agent.allocs("talk");
        all.first().and_then(|alloc| alloc["ID"].as_str().map(str::to_owned))
    });
    eventually("it began", || {
        let state = &agent.allocs("talk")[0]["ClientStatus"];
        (state == "running" || state == "complete").then_some(())
    });
    let followed = agent.cli(&["alloc", "logs", "-f", &alloc]);
    assert_eq!(followed.code, 0, "{}", followed.stderr);
    assert!(followed.stdout.ends_with("line 3\nend\n"), "over the rotation to the end");
    assert_eq!(followed.stdout.matches("line ").count(), 3);
    assert_eq!(followed.stderr, "oops\n");
    assert_eq!(agent.ok(&["alloc", "logs", "-tail", "-n", "2", &alloc]), "line 3\nend\n");
    assert_eq!(agent.ok(&["alloc", "logs", "-stderr", "-f", &alloc]), "oops\n");
    assert_eq!(agent.ok(&["alloc", "logs", "-f", "-tail", "-n", "1", "-stdout", &alloc]), "end\n");
}

#[test]
fn a_dev_agent_that_was_killed_begins_anew_in_its_directory() {
    let agent = Agent::dev();
    run(&agent, "old", &batch("old", "raw_exec", "", "", "exec sleep 98765"));
    let old = alloc_in(&agent, "old", "running");
    let task = agent.dir.path().join("data/alloc").join(&old).join("t");
    let agent = Agent::start_in(agent.kill(), &["-dev"], "");
    run(&agent, "new", &batch("new", "raw_exec", "", "", "exec sleep 98765"));
    alloc_in(&agent, "new", "running");
    // The old cluster was in the memory of the killed process: nobody else could ever end its task.
    eventually("the old task has ended", || {
        let processes = std::fs::read_dir("/proc").expect("a directory").flatten();
        let dirs = processes.filter_map(|process| std::fs::read_link(process.path().join("cwd")).ok());
        (!dirs.into_iter().any(|dir| dir.starts_with(&task))).then_some(())
    });
}

const RESTARTING: &str = r#"
job "restarting" {
  group "g" {
    restart {
      attempts = 5
      delay    = "100ms"
    }
    task "t" {
      driver = "raw_exec"
      config {
        command = "/bin/sh"
        args    = ["-c", "echo run >> $NOMAD_ALLOC_DIR/data/runs; until rm $NOMAD_ALLOC_DIR/data/go 2>/dev/null; do sleep 0.1; done"]
      }
      resources {
        cpu    = 20
        memory = 16
      }
    }
  }
}
"#;

#[test]
fn an_agent_looks_after_its_tasks_although_etcd_was_away_when_it_started() {
    let mut etcd = Etcd::cluster(1);
    let server = Agent::start(&["-server"], &cluster_config(&etcd, "s0", ""));
    let config = cluster_config(&etcd, "n0", "client {\n  network_interface = \"lo\"\n}\n");
    let client = Agent::start(&["-client"], &config);
    run(&server, "restarting", RESTARTING);
    let id = alloc_in(&server, "restarting", "running");
    etcd.kill(0);
    let client = Agent::start_in(client.kill(), &["-client"], &config);
    let data = client.dir.path().join("data/alloc").join(&id).join("alloc/data");
    let runs = || std::fs::read_to_string(data.join("runs")).unwrap_or_default().lines().count();
    assert_eq!(runs(), 1, "the task went on");
    std::fs::write(data.join("go"), "").expect("the agent's own directory");
    eventually("the task has been restarted without etcd", || (runs() == 2).then_some(()));
    etcd.restart(0);
    eventually("the cluster has heard of it", || {
        let alloc = server.cli(&["operator", "api", &format!("/v1/allocation/{id}")]);
        let alloc: serde_json::Value = serde_json::from_str(&alloc.stdout).ok()?;
        (alloc["TaskStates"]["t"]["Restarts"] == 1 && alloc["ClientStatus"] == "running").then_some(())
    });
    server.ok(&["job", "stop", "-detach", "-purge", "restarting"]);
    eventually("the work ended", || server.allocs("restarting").is_empty().then_some(()));
}
