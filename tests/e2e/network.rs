//! Groups with a network of their own, by real CNI plugins: what tasks see, who reaches them, and that nothing is
//! left behind however agents end. Needs root, iptables and the plugins.

use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::consul::Consul;
use crate::docker;
use crate::etcd::Etcd;
use crate::support::Agent;
use crate::support::answer;
use crate::support::eventually;
use crate::support::text;

/// An agent's configuration with a bridge of its own, so that tests do not meet each other or a real agent.
fn config(bridge: &str, octet: u8, more: &str) -> String {
    format!(
        "plugin \"raw_exec\" {{\n config {{\n enabled = true\n }}\n}}\nclient {{\n network_interface = \"lo\"\n \
         bridge_network_name = {bridge:?}\n bridge_network_subnet = \"172.31.{octet}.0/24\"\n}}\n{more}"
    )
}

/// Removes the bridge, which belongs to no single allocation.
struct Bridge(&'static str);

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = answer(Command::new("ip").args(["link", "delete", self.0]));
        let _ = std::fs::remove_dir_all(PathBuf::from("/var/run/cni").join(self.0));
        let rules = answer(Command::new("iptables").args(["-S", "NOMAD-ADMIN"])).stdout;
        for rule in rules.lines().filter(|rule| rule.contains(self.0)) {
            let words = rule.split(' ').skip(1);
            let _ = answer(Command::new("iptables").arg("-D").args(words));
        }
    }
}

/// What of an allocation's network is on this machine.
fn remains(alloc: &str, bridge: &str) -> Vec<String> {
    let mut found = Vec::new();
    for path in [format!("/var/run/netns/{alloc}"), format!("/run/herder/networks/{alloc}.json")] {
        found.extend(std::path::Path::new(&path).exists().then_some(path));
    }
    let addresses = std::fs::read_dir(format!("/var/run/cni/{bridge}")).into_iter().flatten().flatten();
    let addresses = addresses
        .filter(|entry| std::fs::read_to_string(entry.path()).is_ok_and(|owner| owner.starts_with(alloc)));
    found.extend(addresses.map(|entry| entry.path().display().to_string()));
    let rules = answer(&mut Command::new("iptables-save")).stdout;
    found.extend(rules.lines().filter(|rule| rule.contains(alloc)).map(str::to_owned));
    let ports = answer(Command::new("ip").args(["-o", "link", "show", "master", bridge])).stdout;
    found.extend(ports.lines().map(str::to_owned));
    found
}

/// The body of an HTTP answer; `None` while nobody answers.
fn fetch(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address.parse().ok()?, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned())
}

/// A web server in a task of its own, and another task of the group that asks it.
fn pair(name: &str, second: &str) -> String {
    format!(
        r#"
job "{name}" {{
  group "g" {{
    network {{
      mode = "bridge"
      port "http" {{
        to = 8000
      }}
      dns {{
        servers  = ["192.0.2.53"]
        searches = ["lab.example"]
        options  = ["ndots:3"]
      }}
    }}
    update {{
      min_healthy_time = "100ms"
    }}
    service {{
      name         = "{name}-web"
      port         = "http"
      provider     = "nomad"
      address_mode = "alloc"
      check {{
        type     = "http"
        path     = "/"
        interval = "1s"
        timeout  = "1s"
      }}
    }}
    restart {{
      delay = "100ms"
    }}
    task "web" {{
      driver       = "exec"
      kill_timeout = "200ms"
      config {{
        command = "/bin/sh"
        args = ["-c", <<EOS
cat /etc/resolv.conf
grep -c ${{NOMAD_ALLOC_IP_http}} /etc/hosts
echo "${{NOMAD_ADDR_http}} ${{NOMAD_PORT_http}} ${{NOMAD_ALLOC_ADDR_http}}"
echo hello > $NOMAD_TASK_DIR/index.html
exec busybox httpd -f -p $NOMAD_PORT_http -h $NOMAD_TASK_DIR
EOS
        ]
      }}
      resources {{
        cpu    = 20
        memory = 20
      }}
    }}
    task "ask" {{
      kill_timeout = "200ms"
{second}
      resources {{
        cpu    = 20
        memory = 20
      }}
    }}
  }}
}}
"#
    )
}

const ASK: &str = "until busybox wget -qO- http://127.0.0.1:8000/; do sleep 0.1; done; exec sleep 1000";

fn plain() -> String {
    format!("driver = \"raw_exec\"\nconfig {{\n command = \"/bin/sh\"\n args = [\"-c\", \"{ASK}\"]\n}}")
}

/// The id of a job's running allocation.
fn running(agent: &Agent, job: &str) -> String {
    eventually(&format!("{job} runs"), || {
        let all = agent.allocs(job);
        let found = all.iter().find(|alloc| alloc["ClientStatus"] == "running")?;
        found["ID"].as_str().map(str::to_owned)
    })
}

fn log_with(agent: &Agent, alloc: &str, task: &str, wanted: &str) -> String {
    eventually(&format!("{wanted:?} in the log of {task}"), || {
        Some(agent.cli(&["alloc", "logs", alloc, task]).stdout).filter(|log| log.contains(wanted))
    })
}

/// Where the first port is reached from outside, and the address inside.
fn addresses(agent: &Agent, alloc: &str) -> (String, String) {
    let alloc = agent.get(&format!("/v1/allocation/{alloc}"));
    let port = &alloc["AllocatedResources"]["Shared"]["Ports"][0]["Value"];
    let address = alloc["NetworkStatus"]["Address"].as_str().unwrap_or_default();
    (format!("127.0.0.1:{port}"), address.to_owned())
}

fn ready(agent: &Agent) {
    eventually("the node is ready", || {
        agent.get("/v1/nodes").get(0).filter(|node| node["Status"] == "ready").map(|_| ())
    });
}

#[test]
fn tasks_of_a_group_share_a_network_that_goes_with_them() {
    let bridge = "hrdtest1";
    let _bridge = Bridge(bridge);
    let agent = Agent::start(&["-dev"], &config(bridge, 11, ""));
    ready(&agent);
    let file = agent.file("pair.nomad.hcl", &pair("pair", &plain()));
    agent.ok(&["job", "run", text(&file)]);
    let alloc = running(&agent, "pair");
    log_with(&agent, &alloc, "ask", "hello");
    let (outside, inside) = addresses(&agent, &alloc);
    assert!(inside.starts_with("172.31.11."), "{inside}");
    let log = log_with(&agent, &alloc, "web", &format!("{outside} 8000 {inside}:8000"));
    assert!(log.contains("search lab.example\nnameserver 192.0.2.53\noptions ndots:3\n1\n"), "{log}");
    assert_eq!(fetch(&outside).as_deref(), Some("hello"), "through the mapped port");
    assert_eq!(fetch(&format!("{inside}:8000")).as_deref(), Some("hello"));
    let found = agent.get("/v1/service/pair-web");
    assert_eq!((&found[0]["Address"], &found[0]["Port"]), (&Value::from(inside), &Value::from(8000)));
    assert!(!remains(&alloc, bridge).is_empty());
    agent.ok(&["job", "stop", "-purge", "pair"]);
    eventually("the network is gone", || remains(&alloc, bridge).is_empty().then_some(()));
}

#[test]
fn containers_join_the_network_of_their_group() {
    let bridge = "hrdtest2";
    let _bridge = Bridge(bridge);
    let agent = Agent::start(&["-dev"], &config(bridge, 12, ""));
    ready(&agent);
    let image = docker::image();
    let container = format!(
        "driver = \"docker\"\nconfig {{\n image = {image:?}\n command = \"/bin/sh\"\n \
         extra_hosts = [\"other:192.0.2.9\"]\n \
         args = [\"-c\", \"busybox grep other /etc/hosts; busybox cat /etc/resolv.conf; {}\"]\n}}",
        ASK.replace("sleep", "busybox sleep")
    );
    let file = agent.file("mixed.nomad.hcl", &pair("mixed", &container));
    agent.ok(&["job", "run", text(&file)]);
    let alloc = running(&agent, "mixed");
    let log = log_with(&agent, &alloc, "ask", "hello");
    assert!(log.contains("192.0.2.9 other") && log.contains("nameserver 192.0.2.53"), "{log}");
    // Docker loses its containers; the namespace is not Docker's, so the next ones find it again.
    let holder = format!("nomad_init_{alloc}");
    docker::docker(&["rm", "-f", &holder, &format!("ask-{alloc}")]);
    eventually("it has joined again", || {
        let log = agent.cli(&["alloc", "logs", &alloc, "ask"]).stdout;
        (log.matches("hello").count() == 2).then_some(())
    });
    agent.ok(&["job", "stop", "-purge", "mixed"]);
    eventually("the network is gone", || remains(&alloc, bridge).is_empty().then_some(()));
    let left = docker::docker(&["ps", "-a", "--format", "{{.Names}}"]);
    assert!(!left.contains(&holder), "{left}");
}

#[test]
fn a_network_outlives_agents_and_is_made_anew_after_a_reboot() {
    let bridge = "hrdtest3";
    let _bridge = Bridge(bridge);
    let etcd = Etcd::start();
    let endpoints = format!("etcd {{\n endpoints = {:?}\n}}\n", etcd.endpoints());
    let config = config(bridge, 13, &endpoints);
    let arguments = ["-dev"];
    let agent = Agent::start(&arguments, &config);
    ready(&agent);
    let file = agent.file("pair.nomad.hcl", &pair("lasting", &plain()));
    agent.ok(&["job", "run", text(&file)]);
    let alloc = running(&agent, "lasting");
    let (outside, inside) = addresses(&agent, &alloc);
    eventually("it serves", || fetch(&outside));

    let dir = agent.kill();
    assert_eq!(fetch(&outside).as_deref(), Some("hello"), "without any agent");
    let agent = Agent::start_in(dir, &arguments, &config);
    ready(&agent);
    assert_eq!(fetch(&outside).as_deref(), Some("hello"));
    assert_eq!(addresses(&agent, &alloc), (outside.clone(), inside));

    // A reboot takes processes, namespaces and `/run` away.
    let dir = agent.kill();
    let namespace = format!("/var/run/netns/{alloc}");
    for pid in answer(Command::new("ip").args(["netns", "pids", &alloc])).stdout.split_whitespace() {
        answer(Command::new("kill").args(["-9", pid]));
    }
    answer(Command::new("umount").args(["-l", &namespace]));
    std::fs::remove_file(&namespace).expect("a file");
    let agent = Agent::start_in(dir, &arguments, &config);
    let (outside, _) = eventually("it runs again", || {
        let (outside, inside) = addresses(&agent, &alloc);
        (fetch(&outside).as_deref() == Some("hello")).then_some((outside, inside))
    });
    assert!(outside.starts_with("127.0.0.1:"));
    agent.ok(&["job", "stop", "lasting"]);
    eventually("the network is gone", || remains(&alloc, bridge).is_empty().then_some(()));
}

#[test]
fn what_a_network_cannot_be_is_told() {
    let bridge = "hrdtest4";
    let _bridge = Bridge(bridge);
    let agent = Agent::start(&["-dev"], &config(bridge, 14, ""));
    ready(&agent);
    let job = |name: &str, network: &str, driver: &str| {
        format!(
            "job {name:?} {{\n type = \"batch\"\n group \"g\" {{\n reschedule {{\n attempts = 0\n unlimited = false\n \
             }}\n network {{\n {network}\n }}\n task \"t\" {{\n driver = {driver:?}\n config {{\n {}\n }}\n }}\n }}\n}}\n",
            if driver == "mock_driver" { "run_for = \"1s\"" } else { "command = \"/bin/true\"" }
        )
    };
    let prefix = "Unable to add allocation due to error: failed to configure network manager: ";
    for (name, network, driver, wanted) in [
        (
            "host",
            "hostname = \"x\"",
            "raw_exec",
            "hostname cannot be set on task group using \"host\" networking mode",
        ),
        (
            "named",
            "mode = \"none\"\n hostname = \"x\"",
            "exec",
            "hostname is not currently supported on driver exec",
        ),
        ("mock", "mode = \"none\"", "mock_driver", "task t does not support \"none\" networking mode"),
    ] {
        let file = agent.file(&format!("{name}.nomad.hcl"), &job(name, network, driver));
        agent.ok(&["job", "run", "-detach", text(&file)]);
        let alloc = eventually("it has failed", || {
            agent.allocs(name).into_iter().find(|alloc| alloc["ClientStatus"] == "failed")
        });
        assert_eq!(alloc["ClientDescription"], format!("{prefix}{wanted}"));
        let events = &alloc["TaskStates"]["t"]["Events"];
        assert_eq!(events.as_array().map(Vec::len), Some(1), "only that it was received: {events}");
    }
    let file = agent.file("alone.nomad.hcl", &job("alone", "mode = \"none\"", "exec"));
    agent.ok(&["job", "run", "-detach", text(&file)]);
    eventually("a task without network ends", || {
        agent.allocs("alone").into_iter().find(|alloc| alloc["ClientStatus"] == "complete")
    });
}

#[test]
fn services_of_old_files_go_to_consul_where_there_is_one() {
    let consul = Consul::start();
    let block = format!("consul {{\n address = {:?}\n}}\n", consul.address);
    let agent = Agent::start(&["-dev"], &config("hrdtest5", 15, &block));
    ready(&agent);
    let job = r#"
job "old" {
  group "g" {
    update {
      min_healthy_time = "100ms"
    }
    network {
      port "http" {}
    }
    task "t" {
      driver = "raw_exec"
      config {
        command = "/bin/sleep"
        args    = ["1000"]
      }
      resources {
        cpu    = 20
        memory = 20
      }
      service {
        name = "old-web"
        port = "http"
        tags = ["a", "${NOMAD_ALLOC_INDEX}"]
        meta {
          team = "x"
        }
        check {
          name     = "http"
          type     = "http"
          path     = "/up"
          interval = "10s"
          timeout  = "2s"
        }
        check {
          name     = "script"
          type     = "script"
          command  = "/bin/true"
          interval = "1s"
          timeout  = "1s"
        }
      }
    }
  }
}
"#;
    let file = agent.file("old.nomad.hcl", job);
    let told = agent.ok(&["job", "run", "-detach", text(&file)]);
    assert!(!told.contains("registered natively"), "{told}");
    let body = eventually("it is registered", || consul.body("-old-web-http"));
    assert_eq!(body["Tags"], serde_json::json!(["a", "0"]));
    assert_eq!((&body["Meta"]["team"], &body["Meta"]["external-source"]), (&"x".into(), &"nomad".into()));
    let http = body["Checks"][0]["HTTP"].as_str().expect("a URL");
    assert_eq!(http, format!("http://127.0.0.1:{}/up", body["Port"]));
    assert_eq!(body["Checks"][1]["TTL"], "32000ms");
    eventually("the script has passed", || consul.statuses().contains(&"passing".to_owned()).then_some(()));
    assert_eq!(agent.get("/v1/services"), serde_json::json!([]), "Consul's services are not Herder's");
    let healthy = || agent.allocs("old")[0]["DeploymentStatus"]["Healthy"].clone();
    assert_ne!(healthy(), true, "one check is critical");
    consul.set_checks("passing");
    eventually("Consul's word counts for the deployment", || (healthy() == true).then_some(()));
    consul.forget();
    eventually("a Consul that forgot is told again", || consul.body("-old-web-http"));
    agent.ok(&["job", "stop", "-purge", "old"]);
    eventually("it is deregistered", || consul.services().is_empty().then_some(()));
}
