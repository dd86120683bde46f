//! A cluster of real processes on one machine: etcd members, servers, node agents, and what happens to the work when
//! any of them dies.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::etcd::Etcd;
use crate::support::Agent;
use crate::support::Answer;
use crate::support::answer;
use crate::support::eventually;
use crate::support::herder;
use crate::support::text;

/// The lease of an agent.
const LEASE: Duration = Duration::from_secs(10);

const RAW_EXEC: &str = r#"
plugin "raw_exec" {
  config {
    enabled = true
  }
}
client {
  network_interface = "lo"
}
"#;

/// Everything of one cluster. When it goes, its jobs go first.
struct Cluster {
    servers: BTreeMap<String, Agent>,
    nodes: BTreeMap<String, Agent>,
    /// Directories of agents that were killed; their tasks may still write there.
    left: BTreeMap<String, TempDir>,
    /// Dropped last.
    etcd: Etcd,
}

impl Cluster {
    fn start(members: usize, servers: usize, nodes: usize) -> Self {
        let mut cluster = Self {
            servers: BTreeMap::new(),
            nodes: BTreeMap::new(),
            left: BTreeMap::new(),
            etcd: Etcd::cluster(members),
        };
        for index in 0..servers {
            cluster.start_server(&format!("s{index}"));
        }
        for index in 0..nodes {
            cluster.start_node(&format!("n{index}"));
        }
        eventually("all nodes are ready", || {
            let states = cluster.node_states();
            (states.len() == nodes && states.values().all(|state| state == "ready")).then_some(())
        });
        cluster
    }

    fn config(&self, name: &str, more: &str) -> String {
        let endpoints = self.etcd.endpoints();
        format!("name = {name:?}\netcd {{\n  endpoints = {endpoints:?}\n}}\n{more}")
    }

    fn start_server(&mut self, name: &str) {
        let server = Agent::start(&["-server"], &self.config(name, ""));
        self.servers.insert(name.to_owned(), server);
    }

    /// Starts a node, in the directory of an earlier one of this name if there was one.
    fn start_node(&mut self, name: &str) {
        let dir = self.left.remove(name).unwrap_or_else(|| tempfile::tempdir().expect("a directory"));
        let node = Agent::start_in(dir, &["-client"], &self.config(name, RAW_EXEC));
        self.nodes.insert(name.to_owned(), node);
    }

    /// kill -9 of a node's agent.
    fn kill_node(&mut self, name: &str) {
        let node = self.nodes.remove(name).expect("a node that runs");
        self.left.insert(name.to_owned(), node.kill());
    }

    /// Any agent: all of them serve the API.
    fn api(&self) -> &Agent {
        self.servers.values().chain(self.nodes.values()).next().expect("something runs")
    }

    fn node_states(&self) -> BTreeMap<String, String> {
        let all = self.api().get("/v1/nodes");
        let field = |node: &Value, key: &str| node[key].as_str().unwrap_or_default().to_owned();
        all.as_array()
            .into_iter()
            .flatten()
            .map(|node| (field(node, "Name"), field(node, "Status")))
            .collect()
    }

    /// The server that leads: the one whose address is at the leader's key.
    fn leader(&self) -> Option<String> {
        let value = etcdctl(&self.etcd, &["get", "/herder/leaders/scheduler", "--print-value-only"]);
        let value: Value = serde_json::from_str(&value).ok()?;
        value["Name"].as_str().map(String::from)
    }

    /// Registers a job of sleeping processes, spread over the nodes.
    fn run(&self, id: &str, count: u32) {
        let file = self.api().file(&format!("{id}.nomad.hcl"), &sleepers(id, count));
        self.api().ok(&["job", "run", "-detach", text(&file)]);
    }

    /// Waits until so many allocations of the job run; per allocation the node's name.
    fn running(&self, job: &str, count: usize) -> BTreeMap<String, String> {
        eventually(&format!("{count} of {job} run"), || {
            Some(self.running_now(job)).filter(|found| found.len() == count)
        })
    }

    fn running_now(&self, job: &str) -> BTreeMap<String, String> {
        let allocs = self.api().allocs(job);
        let runs = |alloc: &&Value| alloc["ClientStatus"] == "running" && alloc["DesiredStatus"] == "run";
        let field = |alloc: &Value, key: &str| alloc[key].as_str().expect("a text").to_owned();
        allocs.iter().filter(runs).map(|alloc| (field(alloc, "ID"), field(alloc, "NodeName"))).collect()
    }

    /// The processes of these allocations. Every one has been started once.
    fn processes(&self, allocs: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let directory = |node: &String| match self.nodes.get(node) {
            Some(agent) => agent.dir.path().to_owned(),
            None => self.left[node].path().to_owned(),
        };
        allocs.iter().map(|(alloc, node)| (alloc.clone(), process(&directory(node), alloc))).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let endpoints = self.etcd.endpoints().join(",");
        let straight = |args: &[&str]| straight(&endpoints, args);
        let listed = straight(&["operator", "api", "-X", "GET", "/v1/jobs"]);
        let jobs: Vec<Value> = serde_json::from_str(&listed.stdout).unwrap_or_default();
        for job in jobs.iter().filter_map(|job| job["ID"].as_str()) {
            straight(&["job", "stop", "-detach", "-purge", job]);
        }
        if std::thread::panicking() {
            // The agents need a moment for their last work, which nobody waits for.
            std::thread::park_timeout(Duration::from_secs(3));
            return;
        }
        eventually("all work ended", || {
            let left = etcdctl(&self.etcd, &["get", "--prefix", "/herder/agents/", "--keys-only"]);
            (!left.contains("/desired/allocs/")).then_some(())
        });
        eventually("the nodes have tidied up", || {
            let allocs = self.nodes.values().map(|node| node.dir.path().join("data/alloc"));
            let left = |directory: PathBuf| std::fs::read_dir(directory).map_or(0, Iterator::count);
            (allocs.map(left).sum::<usize>() == 0).then_some(())
        });
    }
}

fn sleepers(id: &str, count: u32) -> String {
    format!(
        r#"
job "{id}" {{
  group "g" {{
    count = {count}
    spread {{
      attribute = "${{node.unique.id}}"
    }}
    task "t" {{
      driver = "raw_exec"
      config {{
        command = "/bin/sh"
        args    = ["-c", "echo $$ >> $NOMAD_ALLOC_DIR/pids; exec sleep 900"]
      }}
      resources {{
        cpu    = 20
        memory = 16
      }}
    }}
  }}
}}
"#
    )
}

/// The process of an allocation, which must live and be the only one that was ever started for it.
fn process(agent: &Path, alloc: &str) -> String {
    let file: PathBuf = agent.join("data/alloc").join(alloc).join("alloc/pids");
    let pids = eventually("the task said who it is", || {
        std::fs::read_to_string(&file).ok().filter(|pids| pids.ends_with('\n'))
    });
    let pid = pids.trim().to_owned();
    assert!(!pid.contains('\n'), "{alloc} was started again: {pids}");
    assert!(lives(&pid), "the process of {alloc} is gone");
    pid
}

fn lives(pid: &str) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !state.is_empty() && !state.contains(") Z ")
}

fn etcdctl(etcd: &Etcd, args: &[&str]) -> String {
    let endpoints = etcd.endpoints().join(",");
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", &endpoints]).args(args);
    answer(&mut command).stdout
}

/// A command that has nothing but etcd to talk to.
fn straight(endpoints: &str, args: &[&str]) -> Answer {
    let mut command = Command::new(herder());
    command.args(args).env("HERDER_ETCD_ENDPOINTS", endpoints).env_remove("NOMAD_ADDR").env("NO_COLOR", "1");
    answer(&mut command)
}

/// Asks again and again for so long; the answer must be yes every time.
fn throughout(time: Duration, what: &str, mut ask: impl FnMut() -> bool) {
    let began = Instant::now();
    while began.elapsed() < time {
        assert!(ask(), "after {:?}: not so any more: {what}", began.elapsed());
        std::thread::park_timeout(Duration::from_millis(200));
    }
}

#[test]
fn work_goes_on_when_a_leader_an_agent_or_a_member_of_etcd_is_killed() {
    let mut cluster = Cluster::start(3, 2, 3);
    cluster.run("web", 6);
    let web = cluster.running("web", 6);
    for node in ["n0", "n1", "n2"] {
        assert_eq!(web.values().filter(|name| *name == node).count(), 2, "spread: {web:?}");
    }
    let processes = cluster.processes(&web);

    let leader = cluster.leader().expect("somebody leads");
    drop(cluster.servers.remove(&leader).expect("one of ours").kill());
    let killed = Instant::now();
    cluster.run("next", 1);
    cluster.running("next", 1);
    assert!(killed.elapsed() < Duration::from_secs(15), "placements resumed after {:?}", killed.elapsed());

    cluster.kill_node("n0");
    assert_eq!(cluster.processes(&web), processes, "tasks outlive their agent");
    cluster.start_node("n0");
    let events = || cluster.api().get(&format!("/v1/node/{}", node_id(&cluster, "n0")));
    eventually("the agent is back", || (events()["Status"] == "ready").then_some(()));

    cluster.etcd.kill(0);
    cluster.run("third", 3);
    cluster.running("third", 3);
    assert_eq!(cluster.processes(&web), processes);
    assert_eq!(cluster.running_now("web"), web);
    assert!(cluster.node_states().values().all(|state| state == "ready"));
}

#[test]
fn a_leader_that_is_told_to_end_hands_over_at_once() {
    let mut cluster = Cluster::start(1, 2, 0);
    let leader = eventually("somebody leads", || cluster.leader());
    let told = Instant::now();
    drop(cluster.servers.remove(&leader));
    let next = eventually("the other one leads", || cluster.leader());
    assert_ne!(next, leader);
    assert!(told.elapsed() < Duration::from_secs(5), "handed over after {:?}", told.elapsed());
}

fn node_id(cluster: &Cluster, name: &str) -> String {
    let all = cluster.api().get("/v1/nodes");
    let found = all.as_array().into_iter().flatten().find(|node| node["Name"] == name);
    found.expect("a node of this name")["ID"].as_str().expect("an id").to_owned()
}

#[test]
fn a_dead_nodes_work_goes_elsewhere() {
    let mut cluster = Cluster::start(1, 1, 2);
    cluster.run("web", 2);
    let before = cluster.running("web", 2);
    let processes = cluster.processes(&before);
    cluster.kill_node("n0");
    for (alloc, _) in before.iter().filter(|(_, node)| *node == "n0") {
        assert!(Command::new("kill").args(["-9", &processes[alloc]]).status().expect("kill").success());
    }
    let died = Instant::now();
    eventually("both run on the other node", || {
        let now = cluster.running_now("web");
        (now.len() == 2 && now.values().all(|node| node == "n1")).then_some(())
    });
    assert!(died.elapsed() < LEASE * 2, "replaced after {:?}", died.elapsed());
    assert_eq!(cluster.node_states()["n0"], "down");
    // What lived on goes on.
    let survivor = before.iter().find(|(_, node)| *node == "n1").expect("one on each").0;
    assert!(cluster.running_now("web").contains_key(survivor));
}

#[test]
fn an_outage_of_etcd_longer_than_every_lease_stops_nothing() {
    let mut cluster = Cluster::start(1, 1, 2);
    cluster.run("web", 4);
    let web = cluster.running("web", 4);
    let processes = cluster.processes(&web);
    cluster.etcd.kill(0);
    throughout(LEASE + Duration::from_secs(4), "all tasks go on", || cluster.processes(&web) == processes);
    cluster.etcd.restart(0);
    assert!(cluster.etcd.wait_healthy(0));
    let file = cluster.api().file("after.nomad.hcl", &sleepers("after", 2));
    eventually("a new job is taken", || {
        (cluster.api().cli(&["job", "run", "-detach", text(&file)]).code == 0).then_some(())
    });
    cluster.running("after", 2);
    throughout(LEASE / 3, "no node goes down", || {
        cluster.node_states().values().all(|state| state == "ready")
    });
    assert_eq!(cluster.running_now("web"), web);
    assert_eq!(cluster.processes(&web), processes);
}

const MANUAL: &str = r#"
job "manual" {
  group "g" {
    count = 2
    update {
      health_check     = "manual"
      healthy_deadline = "5m"
    }
    task "t" {
      driver       = "raw_exec"
      shutdown_delay = "5m"
      config {
        command = "/bin/sleep"
        args    = ["900"]
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
fn health_that_a_user_declares_decides_a_rollout() {
    let cluster = Cluster::start(1, 1, 1);
    let api = cluster.api();
    api.ok(&["job", "run", "-detach", text(&api.file("manual.nomad.hcl", MANUAL))]);
    let allocs = cluster.running("manual", 2);
    let deployment = || api.get("/v1/job/manual/deployment");
    let id = deployment()["ID"].as_str().expect("a deployment").to_owned();
    assert_eq!(deployment()["Status"], "running");
    let declare = |alloc: &String| {
        let order = json!({"DeploymentID": id, "HealthyAllocationIDs": [alloc]}).to_string();
        let file = api.file("order.json", &order);
        let mut command = Command::new(herder());
        command.args(["operator", "api", "-X", "PUT", &format!("/v1/deployment/allocation-health/{id}")]);
        command.env("NOMAD_ADDR", &api.address).stdin(std::fs::File::open(file).expect("just written"));
        assert!(command.output().expect("it starts").status.success());
    };
    let mut ids = allocs.keys();
    declare(ids.next().expect("two"));
    let healthy = || deployment()["TaskGroups"]["g"]["HealthyAllocs"].as_u64();
    eventually("one is healthy", || (healthy() == Some(1)).then_some(()));
    assert_eq!(deployment()["Status"], "running");
    declare(ids.next().expect("two"));
    eventually("the rollout is done", || (deployment()["Status"] == "successful").then_some(()));
    assert_eq!(healthy(), Some(2), "the word stands as long as the deployment");
    // Stopping hurries past the shutdown delay when told to.
    api.ok(&["job", "stop", "-detach", "-no-shutdown-delay", "manual"]);
    eventually("both ended at once", || {
        api.allocs("manual").iter().all(|alloc| alloc["ClientStatus"] == "complete").then_some(())
    });
}

/// The API's form of a job.
fn job_json(id: &str, sleep: u32) -> Value {
    json!({
        "ID": id, "Name": id, "Type": "service", "Datacenters": ["*"],
        "TaskGroups": [{
            "Name": "g", "Count": 1,
            "Tasks": [{
                "Name": "t", "Driver": "raw_exec",
                "Config": {"command": "/bin/sh",
                    "args": ["-c", format!("echo $$ >> $NOMAD_ALLOC_DIR/pids; echo hello; exec sleep {sleep}")]},
                "Resources": {"CPU": 20, "MemoryMB": 16},
            }],
        }],
    })
}

#[test]
fn a_job_put_straight_to_etcd_runs_and_a_bad_one_changes_nothing() {
    let cluster = Cluster::start(1, 1, 1);
    let put = |id: &str, value: &str| {
        let key = format!("/herder/jobs/default/{id}");
        assert_eq!(etcdctl(&cluster.etcd, &["put", &key, value]).trim(), "OK");
    };
    put("plain", &job_json("plain", 900).to_string());
    put("wrapped", &json!({"Job": job_json("wrapped", 900)}).to_string());
    let plain = cluster.running("plain", 1);
    cluster.running("wrapped", 1);
    let processes = cluster.processes(&plain);
    let stored = etcdctl(&cluster.etcd, &["get", "/herder/jobs/default/plain", "--print-value-only"]);
    let stored: Value = serde_json::from_str(&stored).expect("readable JSON");
    assert_eq!(stored["TaskGroups"][0]["Tasks"][0]["Driver"], "raw_exec");

    for (bad, why) in
        [("{nonsense", "not a job"), (r#"{"ID":"plain","TaskGroups":[]}"#, "Missing job task groups")]
    {
        put("plain", bad);
        eventually("the status says why", || {
            let told = cluster.api().ok(&["job", "status", "plain"]);
            (told.contains("Refused Change") && told.contains(why)).then_some(())
        });
        assert_eq!(cluster.running_now("plain"), plain);
        assert_eq!(cluster.processes(&plain), processes);
    }
    put("unknown", "{nonsense");
    eventually("even without a job there is an answer", || {
        cluster
            .api()
            .cli(&["job", "status", "unknown"])
            .stderr
            .contains("was refused: not a job")
            .then_some(())
    });

    let mut pooled = job_json("pooled", 900);
    pooled["NodePool"] = json!("later");
    put("pooled", &pooled.to_string());
    eventually("a pool that is not there is named", || {
        let told = cluster.api().cli(&["job", "status", "pooled"]).stderr;
        told.contains("is in nonexistent node pool \"later\"").then_some(())
    });
    assert_eq!(etcdctl(&cluster.etcd, &["put", "/herder/pools/later", r#"{"Name":"later"}"#]).trim(), "OK");
    eventually("and the job is accepted when it comes", || {
        cluster.api().cli(&["job", "status", "pooled"]).stdout.contains("Node Pool     = later").then_some(())
    });

    put("plain", &job_json("plain", 901).to_string());
    eventually("the changed job replaces the old", || {
        let now = cluster.running_now("plain");
        (now.len() == 1 && now != plain).then_some(())
    });
    assert_eq!(cluster.api().get("/v1/job/plain")["Version"], 1);
    assert!(cluster.api().get("/v1/job/plain")["Refused"].is_null());

    let allocs = cluster.running_now("plain");
    let process = cluster.processes(&allocs).into_values().next().expect("one");
    etcdctl(&cluster.etcd, &["del", "/herder/jobs/default/plain"]);
    eventually("without its key the work ends", || (!lives(&process)).then_some(()));
}

#[test]
fn the_command_line_works_straight_on_etcd() {
    let cluster = Cluster::start(1, 1, 1);
    let endpoints = cluster.etcd.endpoints().join(",");
    let told = |args: &[&str]| {
        let answer = straight(&endpoints, args);
        assert_eq!(answer.code, 0, "{args:?}: {}{}", answer.stdout, answer.stderr);
        answer.stdout
    };
    let file = cluster.api().file("direct.json", &json!({"Job": job_json("direct", 900)}).to_string());
    told(&["job", "run", "-detach", "-json", text(&file)]);
    let (alloc, _) = cluster.running("direct", 1).pop_first().expect("one");
    assert!(told(&["node", "status"]).contains("ready"));
    assert!(told(&["job", "status", "direct"]).contains("running"));
    assert!(told(&["alloc", "status", &alloc]).contains("direct.g[0]"));
    eventually("logs come from the node", || {
        told(&["alloc", "logs", &alloc]).contains("hello").then_some(())
    });
    told(&["job", "stop", "-detach", "-purge", "direct"]);
    let gone = || {
        let keys = etcdctl(&cluster.etcd, &["get", "--prefix", "/herder/", "--keys-only"]);
        let left = keys.lines().any(|key| key.contains("/direct") && !key.contains("/evaluations/"));
        (!left).then_some(())
    };
    eventually("nothing but the trail of a purged job is left", gone);
}

#[test]
fn any_agent_reaches_every_task_and_every_server() {
    let mut cluster = Cluster::start(1, 1, 2);
    cluster.run("web", 2);
    let allocs = cluster.running("web", 2);
    let agents = cluster.servers.values().chain(cluster.nodes.values());
    for agent in agents {
        // Nodes keep nothing of the cluster: they ask a server.
        assert!(agent.ok(&["job", "status", "web"]).contains("running"));
        for alloc in allocs.keys() {
            let heard =
                agent.ok(&["alloc", "exec", "-i=false", alloc, "/bin/sh", "-c", "echo $NOMAD_ALLOC_ID"]);
            assert_eq!(heard.trim(), alloc);
            let stats = agent.get(&format!("/v1/client/allocation/{alloc}/stats"));
            assert!(stats["Timestamp"].as_i64().is_some_and(|at| at > 0), "{stats}");
            let files = agent.get(&format!("/v1/client/fs/ls/{alloc}"));
            assert!(files.as_array().is_some_and(|files| !files.is_empty()), "{files}");
        }
        assert_eq!(agent.ok(&["node", "status", "-quiet"]).lines().count(), 2);
    }
    let node = cluster.nodes.values().next().expect("a node");
    let file = node.file("late.nomad.hcl", &sleepers("late", 1));
    node.ok(&["job", "run", "-detach", text(&file)]);
    cluster.running("late", 1);
    let own = node.get("/v1/agent/self");
    assert!(own["stats"]["client"]["known_servers"].as_str().is_some_and(|known| !known.is_empty()), "{own}");
    // Without any server it still answers for its own node, and says what is missing.
    cluster.servers.clear();
    let node = cluster.nodes.values().next().expect("a node");
    eventually("it says that there is no server", || {
        let told = node.cli(&["job", "status"]);
        (told.code == 1 && told.stderr.contains("No cluster leader")).then_some(())
    });
    let id = node.get("/v1/agent/self")["stats"]["client"]["node_id"].as_str().expect("an id").to_owned();
    assert!(node.get(&format!("/v1/client/stats?node_id={id}"))["Uptime"].as_u64().is_some_and(|up| up > 0));
    cluster.start_server("s0");
    eventually("a server is back", || (node_count(&cluster) == 2).then_some(()));
}

/// Nodes that a node's agent knows of.
fn node_count(cluster: &Cluster) -> usize {
    let node = cluster.nodes.values().next().expect("a node");
    node.cli(&["node", "status", "-quiet"]).stdout.lines().count()
}

#[test]
fn a_second_agent_with_the_same_node_id_starts_nothing() {
    let cluster = Cluster::start(1, 1, 1);
    cluster.run("web", 1);
    let web = cluster.running("web", 1);
    let processes = cluster.processes(&web);
    let other = tempfile::tempdir().expect("a directory");
    let id = Path::new("data/client/client-id");
    std::fs::create_dir_all(other.path().join("data/client")).expect("a writable directory");
    std::fs::copy(cluster.nodes["n0"].dir.path().join(id), other.path().join(id))
        .expect("the node has an id");
    let second = Agent::start_in(other, &["-client"], &cluster.config("second", RAW_EXEC));
    let begun = second.dir.path().join("data/alloc");
    throughout(LEASE / 2, "the second agent does nothing", || {
        std::fs::read_dir(&begun).map_or(0, Iterator::count) == 0 && cluster.processes(&web) == processes
    });
    assert_eq!(cluster.node_states().len(), 1);
}

#[test]
fn an_agent_that_finds_another_cluster_keeps_its_tasks() {
    let mut cluster = Cluster::start(1, 1, 1);
    cluster.run("web", 1);
    let web = cluster.running("web", 1);
    let processes = cluster.processes(&web);
    // Nobody at home shall give the node up meanwhile.
    drop(cluster.servers.pop_first());
    cluster.kill_node("n0");
    let dir = cluster.left.remove("n0").expect("just killed");
    let elsewhere = |name: &str, more: &str| {
        cluster.config(name, more).replace("etcd {", "etcd {\n  root = \"/elsewhere/\"")
    };
    let lost = Agent::start_in(dir, &["-client"], &elsewhere("n0", RAW_EXEC));
    let process = processes.values().next().expect("one").clone();
    throughout(LEASE / 5, "an empty root ends nothing", || lives(&process));
    let _other = Agent::start(&["-server"], &elsewhere("s9", ""));
    let orders = || etcdctl(&cluster.etcd, &["get", "--prefix", "/elsewhere/agents/", "--keys-only"]);
    eventually("the other cluster takes the node in", || orders().contains("desired/control").then_some(()));
    throughout(LEASE / 5, "the orders of another cluster end nothing", || lives(&process));
    let live = |cluster: &Cluster| {
        etcdctl(&cluster.etcd, &["get", "--prefix", "/herder/agents/", "--keys-only"])
            .contains("reported/live")
    };
    eventually("its lease at home has ended", || (!live(&cluster)).then_some(()));
    cluster.left.insert("n0".to_owned(), lost.kill());
    cluster.start_node("n0");
    eventually("it is home again", || live(&cluster).then_some(()));
    cluster.start_server("s0");
    cluster.run("web2", 1);
    cluster.running("web2", 1);
    assert_eq!(cluster.running("web", 1), web);
    assert_eq!(cluster.processes(&web), processes);
}
