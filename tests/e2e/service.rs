//! A service of plain processes: run, status, logs, update, stop.

use crate::support::Agent;
use crate::support::eventually;
use crate::support::text;

const WEB: &str = r#"
job "web" {
  group "g" {
    count = 2
    update {
      max_parallel     = 1
      min_healthy_time = "100ms"
    }
    network {
      port "http" {}
    }
    service {
      name     = "web"
      port     = "http"
      provider = "nomad"
      check {
        type     = "tcp"
        interval = "1s"
        timeout  = "1s"
      }
    }
    task "serve" {
      driver = "raw_exec"
      config {
        command = "/bin/sh"
        args    = ["-c", "echo hello from $NOMAD_ALLOC_INDEX; exec busybox httpd -f -p $NOMAD_PORT_http -h $NOMAD_TASK_DIR"]
      }
      env {
        GENERATION = "one"
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
fn a_service_runs_is_found_rolls_out_and_stops() {
    let agent = Agent::dev();
    let file = agent.file("web.nomad.hcl", WEB);
    let told = agent.ok(&["job", "run", text(&file)]);
    assert!(told.contains("finished with status \"complete\""), "{told}");
    assert!(told.contains("Deployment completed successfully"), "{told}");
    let found = agent.ok(&["service", "info", "web"]);
    assert_eq!(found.lines().count(), 3, "{found}");
    let first = agent.allocs("web");
    assert_eq!(first.len(), 2);
    let id = first[0]["ID"].as_str().expect("an id").to_owned();
    let log = eventually("the task has said something", || {
        Some(agent.ok(&["alloc", "logs", &id])).filter(|log| !log.is_empty())
    });
    assert!(log.starts_with("hello from "), "{log}");

    let second = agent.file("web.nomad.hcl", &WEB.replace("\"one\"", "\"two\""));
    let plan = agent.cli(&["job", "plan", text(&second)]);
    assert_eq!(plan.code, 1, "{}{}", plan.stdout, plan.stderr);
    assert!(plan.stdout.contains("create/destroy update"), "{}", plan.stdout);
    let told = agent.ok(&["job", "run", text(&second)]);
    assert!(told.contains("Deployment completed successfully"), "{told}");
    let running = agent.allocs("web").iter().filter(|alloc| alloc["ClientStatus"] == "running").count();
    assert_eq!(running, 2, "the old ones ended");

    agent.ok(&["job", "stop", "-purge", "web"]);
    eventually("the job is gone", || (agent.cli(&["job", "status", "web"]).code == 1).then_some(()))
}

/// As files of tutorials are: nothing is said about the provider.
const OLD: &str = r#"
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
        command = "/bin/sh"
        args    = ["-c", "echo $PPID > $NOMAD_TASK_DIR/me; exec sleep 1000"]
      }
      resources {
        cpu    = 20
        memory = 20
      }
      service {
        name = "old-web"
        port = "http"
        check {
          name     = "script"
          type     = "script"
          command  = "/bin/sh"
          args     = ["-c", "echo inside $NOMAD_TASK_NAME; test -e $NOMAD_TASK_DIR/me"]
          interval = "1s"
          timeout  = "5s"
        }
        check {
          name      = "rpc"
          type      = "grpc"
          interval  = "1s"
          timeout   = "1s"
          on_update = "ignore"
        }
      }
    }
  }
}
"#;

#[test]
fn without_consul_checks_of_the_default_provider_run_in_the_agent() {
    let agent = Agent::dev();
    let file = agent.file("old.nomad.hcl", OLD);
    let told = agent.ok(&["job", "run", text(&file)]);
    assert!(told.contains("it is registered natively"), "{told}");
    assert!(told.contains("Deployment completed successfully"), "the script has passed: {told}");
    let id = agent.allocs("old")[0]["ID"].as_str().expect("an id").to_owned();
    let results = eventually("the answers of both checks", || {
        let all = agent.get(&format!("/v1/client/allocation/{id}/checks"));
        let all: Vec<_> = all.as_object()?.values().cloned().collect();
        let decided = all.len() == 2 && all.iter().all(|check| check["Status"] != "pending");
        decided.then_some(all)
    });
    let of = |name: &str| results.iter().find(|check| check["Check"] == name).expect("a result").clone();
    assert_eq!((&of("script")["Status"], &of("script")["Output"]), (&"success".into(), &"inside t\n".into()));
    assert_eq!(of("rpc")["Status"], "failure", "nothing listens there");
    assert_eq!(agent.get("/v1/services")[0]["Services"][0]["ServiceName"], "old-web");
    let job = agent.get("/v1/job/old");
    assert_eq!(job["TaskGroups"][0]["Tasks"][0]["Services"][0]["Provider"], "consul", "as it was written");
}
