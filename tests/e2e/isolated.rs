//! Isolated tasks (`exec`, `java`): their root, their limits, their artifacts, and what explains a missing place.
//! They need root, control groups and a JDK.

use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use crate::support::Agent;
use crate::support::answer;
use crate::support::eventually;
use crate::support::text;

/// Serves the files of a directory over HTTP until dropped.
pub struct Files {
    pub address: String,
    ended: Arc<AtomicBool>,
}

impl Files {
    pub fn new(dir: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let (dir, ended) = (dir.to_owned(), Arc::new(AtomicBool::new(false)));
        let stop = Arc::clone(&ended);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let _ = serve(stream, &dir);
            }
        });
        Self { address, ended }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
    }
}

fn serve(mut stream: TcpStream, dir: &Path) -> std::io::Result<()> {
    let mut request = [0; 4096];
    let len = stream.read(&mut request)?;
    let request = String::from_utf8_lossy(&request[..len]);
    let target = request.split(' ').nth(1).unwrap_or_default();
    let name = target.split('?').next().unwrap_or_default().trim_start_matches('/');
    let (status, body) = match std::fs::read(dir.join(name)) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    if !request.starts_with("HEAD") {
        stream.write_all(&body)?;
    }
    Ok(())
}

/// A development agent whose node can be planned with.
fn dev() -> Agent {
    let agent = Agent::dev();
    eventually("the node is ready", || {
        agent.get("/v1/nodes").get(0).filter(|node| node["Status"] == "ready").map(|_| ())
    });
    agent
}

/// The id of a job's newest allocation.
pub fn newest(agent: &Agent, job: &str) -> String {
    agent.allocs(job)[0]["ID"].as_str().expect("an id").to_owned()
}

/// What a batch job's only task printed, after it has ended well.
fn output_of(agent: &Agent, job: &str) -> String {
    let id = eventually("the task has ended", || {
        let alloc = agent.allocs(job).into_iter().next()?;
        (alloc["ClientStatus"] == "complete").then(|| alloc["ID"].as_str().expect("an id").to_owned())
    });
    agent.ok(&["alloc", "logs", &id])
}

fn shell(name: &str, script: &str, memory: u32) -> String {
    format!(
        r#"
job "{name}" {{
  type = "batch"
  group "g" {{
    restart {{
      attempts = 0
      mode     = "fail"
    }}
    reschedule {{
      attempts = 0
    }}
    task "t" {{
      driver = "exec"
      config {{
        command = "/bin/sh"
        args    = ["-c", <<EOT
{script}
EOT
        ]
      }}
      resources {{
        cpu    = 123
        memory = {memory}
      }}
    }}
  }}
}}
"#
    )
}

#[test]
fn an_isolated_task_sees_its_own_root_and_has_its_own_limits() {
    let agent = dev();
    // It tells its control groups and waits until the limits have been read from outside.
    let script = r#"id -u
for path in /usr/x /etc/x /bin/x; do (echo x > $path) 2>/dev/null && echo "wrote $path"; done
for path in /root /home /var /work; do [ -e $path ] && echo "sees $path"; done
ls /proc | grep -c '^[0-9]'
echo mine > /secrets/s && echo mine > /alloc/data/d && echo mine > /local/l && echo mine > /tmp/t && echo wrote own
grep memory: /proc/self/cgroup
until [ -e /alloc/data/go ]; do sleep 0.1; done"#;
    let file = agent.file("probe.nomad.hcl", &shell("probe", script, 33));
    agent.ok(&["job", "run", "-detach", text(&file)]);
    let id = eventually("the task runs", || {
        let alloc = agent.allocs("probe").into_iter().next()?;
        (alloc["ClientStatus"] == "running").then(|| alloc["ID"].as_str().expect("an id").to_owned())
    });
    let group = Path::new("nomad").join(format!("{id}.t"));
    let read = |controller: &str, file: &str| {
        std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(controller).join(&group).join(file))
    };
    // Version 1 names the controllers in the path, version 2 has one scope.
    if let Ok(limit) = read("memory", "memory.limit_in_bytes") {
        assert_eq!(limit.trim(), (33 << 20).to_string());
        assert_eq!(read("cpu", "cpu.shares").expect("a group").trim(), "123");
        assert!(!read("memory", "cgroup.procs").expect("a group").trim().is_empty());
    } else {
        let scope = format!("/sys/fs/cgroup/nomad.slice/share.slice/{id}.t.scope/memory.max");
        assert_eq!(std::fs::read_to_string(scope).expect("a scope").trim(), (33 << 20).to_string());
    }
    let shared = agent.dir.path().join("data/alloc").join(&id).join("alloc/data");
    std::fs::write(shared.join("go"), "").expect("the agent's own directory");
    let told = output_of(&agent, "probe");
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], "65534", "{told}");
    assert!(lines[1].parse::<u32>().is_ok_and(|number| number < 8), "only its own processes: {told}");
    assert_eq!(lines[2], "wrote own", "{told}");
    assert_eq!(lines.len(), 3 + usize::from(told.contains("memory:")), "nothing else was seen: {told}");
    assert!(!std::fs::exists("/usr/x").expect("readable"));
}

#[test]
fn a_task_over_its_memory_is_killed_and_says_so() {
    let agent = dev();
    let file = agent.file("eat.nomad.hcl", &shell("eat", "exec tail /dev/zero", 20));
    agent.ok(&["job", "run", "-detach", text(&file)]);
    eventually("the task has failed", || {
        agent.allocs("eat").first().filter(|alloc| alloc["ClientStatus"] == "failed").map(|_| ())
    });
    let told = agent.ok(&["alloc", "status", &newest(&agent, "eat")]);
    assert!(told.contains("Exit Code: 137, Signal: 9, Exit Message: \"OOM Killed\""), "{told}");
}

const SERVER: &str = r#"
job "example" {
  datacenters = ["infrastructure_at_home"],
  group "exec" {
    task "http_serve" {
      driver = "exec"
      artifact {
        source = "http://FILES/server.tar.gz"
      }
      config {
        command = "busybox"
        args = [
          "httpd",
          "-f",
          "-p",
          "${NOMAD_PORT_http}",
          "-h",
          "/"
        ]
      }
      resources {
        cpu = 200
        memory = 200
        network {
          port "http" {}
        }
      }
    }
  }
}
"#;

#[test]
fn a_downloaded_server_answers_on_its_port_from_inside_its_root() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::copy("/bin/busybox", dir.path().join("busybox")).expect("busybox is installed");
    let (archive, from) = (dir.path().join("server.tar.gz"), text(dir.path()));
    let packed = answer(Command::new("tar").args(["czf", text(&archive), "-C", from, "busybox"]));
    assert_eq!(packed.code, 0, "{}", packed.stderr);
    let files = Files::new(dir.path());
    let agent = Agent::start(&["-dev", "-dc", "infrastructure_at_home"], "");
    let file = agent.file("example.nomad", &SERVER.replace("FILES", &files.address));
    let told = agent.ok(&["job", "run", text(&file)]);
    assert!(told.contains("Unexpected comma after argument"), "{told}");
    assert_eq!(told.matches("Job Warnings:").count(), 1, "{told}");
    assert!(told.contains("Deployment completed successfully"), "{told}");
    let alloc = agent.get(&format!("/v1/allocation/{}", newest(&agent, "example")));
    let port = alloc["AllocatedResources"]["Shared"]["Ports"][0]["Value"]
        .as_u64()
        .or_else(|| {
            let task = &alloc["AllocatedResources"]["Tasks"]["http_serve"];
            task["Networks"][0]["DynamicPorts"][0]["Value"].as_u64()
        })
        .expect("a port");
    let mut stream =
        eventually("the server listens", || TcpStream::connect(format!("127.0.0.1:{port}")).ok());
    stream.write_all(b"GET /local/busybox HTTP/1.0\r\n\r\n").expect("the server reads");
    let mut reply = vec![0; 15];
    stream.read_exact(&mut reply).expect("the server answers");
    assert_eq!(String::from_utf8_lossy(&reply), "HTTP/1.1 200 OK");
}

const JAVA: &str = r#"
job "hello-java" {
  datacenters = ["dc1"]
  update {
    max_parallel     = 1
    min_healthy_time = "100ms"
  }
  group "hello-java" {
    count = 2
    task "hello-java" {
      driver = "java"
      config {
        jar_path    = "local/hello.jar"
        jvm_options = ["-XX:-UseCompressedOops", "-Xmx2048m", "-Xms256m"]
      }
      artifact {
        source = "http://FILES/hello.jar?raw=true"
      }
      resources {
        cpu    = 50
        memory = 128
        network {
          mbits = 10
          port "http" {}
        }
      }
    }
  }
}
"#;

const HELLO: &str = r#"
public class Hello {
    public static void main(String[] args) throws Exception {
        System.out.println("hello from " + System.getenv("NOMAD_PORT_http"));
        Thread.sleep(1000000);
    }
}
"#;

/// `hello.jar` and `hello2.jar`.
fn make_jars(dir: &Path) {
    std::fs::write(dir.join("Hello.java"), HELLO).expect("a writable directory");
    let compiled = answer(Command::new("javac").arg("Hello.java").current_dir(dir));
    assert_eq!(compiled.code, 0, "{}", compiled.stderr);
    let mut jar = Command::new("jar");
    let packed = answer(jar.args(["cfe", "hello.jar", "Hello", "Hello.class"]).current_dir(dir));
    assert_eq!(packed.code, 0, "{}", packed.stderr);
    std::fs::copy(dir.join("hello.jar"), dir.join("hello2.jar")).expect("a writable directory");
}

#[test]
fn a_java_job_runs_and_rolls_to_another_artifact_only_with_the_right_index() {
    let dir = tempfile::tempdir().expect("a directory");
    make_jars(dir.path());
    let files = Files::new(dir.path());
    let agent = dev();
    let first = JAVA.replace("FILES", &files.address);
    let file = agent.file("hello-java.nomad", &first);
    let told = agent.ok(&["job", "run", text(&file)]);
    assert!(told.contains("Deployment completed successfully"), "{told}");
    let id = newest(&agent, "hello-java");
    let log = eventually("the program has spoken", || {
        Some(agent.ok(&["alloc", "logs", &id])).filter(|log| !log.is_empty())
    });
    assert!(log.starts_with("hello from 2") || log.starts_with("hello from 3"), "{log}");

    let second = agent.file("hello-java-v2.nomad", &first.replace("hello.jar", "hello2.jar"));
    let plan = agent.cli(&["job", "plan", text(&second)]);
    assert_eq!(plan.code, 1, "{}{}", plan.stdout, plan.stderr);
    let source = |marker: char, name: &str| {
        format!("{marker} GetterSource:   \"http://{}/{name}?raw=true\"", files.address)
    };
    assert!(plan.stdout.contains(&source('+', "hello2.jar")), "{}", plan.stdout);
    assert!(plan.stdout.contains(&source('-', "hello.jar")), "{}", plan.stdout);
    assert!(plan.stdout.contains("Task: \"hello-java\" (forces create/destroy update)\n"), "{}", plan.stdout);
    let index = plan.stdout.lines().find_map(|line| line.strip_prefix("Job Modify Index: "));
    let index = index.expect("the plan tells the index");
    assert!(plan.stdout.contains(&format!("job run -check-index {index} ")), "{}", plan.stdout);

    let refused = agent.cli(&["job", "run", "-check-index", "1", text(&second)]);
    assert_eq!(refused.code, 1);
    let wanted = format!(
        "Enforcing job modify index 1: job exists with conflicting job modify index: {index}\nJob not updated\n"
    );
    assert_eq!(refused.stderr, wanted);
    assert_eq!(agent.get("/v1/job/hello-java")["Version"], 0);

    let told = agent.ok(&["job", "run", "-check-index", index, text(&second)]);
    assert!(told.contains("Deployment completed successfully"), "{told}");
    let mut new: Vec<_> =
        agent.allocs("hello-java").into_iter().filter(|alloc| alloc["JobVersion"] == 1).collect();
    new.sort_by_key(|alloc| alloc["CreateIndex"].as_u64());
    assert_eq!(new.len(), 2);
    let started = new[1]["CreateTime"].as_i64().expect("a time");
    let healthy = new[0]["DeploymentStatus"]["Timestamp"].as_str().expect("it is healthy");
    let healthy = chrono::DateTime::parse_from_rfc3339(healthy).expect("a time");
    assert!(healthy.timestamp_nanos_opt() <= Some(started), "the second waits for the first one's health");
    let history = agent.ok(&["job", "history", "-p", "hello-java"]);
    assert!(history.contains("hello2.jar") && !history.contains("forces"), "{history}");
}

#[test]
fn a_static_port_places_one_per_node_and_explains_the_rest() {
    let agent = dev();
    let job = r#"
job "fixed" {
  group "g" {
    count = 3
    task "t" {
      driver = "exec"
      config {
        command = "/bin/sleep"
        args    = ["1000"]
      }
      resources {
        cpu    = 20
        memory = 20
        network {
          port "http" {
            static = 47080
          }
        }
      }
    }
  }
}
"#;
    let file = agent.file("fixed.nomad", job);
    let plan = agent.cli(&["job", "plan", text(&file)]);
    assert_eq!(plan.code, 1, "{}", plan.stderr);
    let reason = "* Dimension \"network: reserved port collision http=47080\" exhausted on 1 nodes";
    assert!(plan.stdout.contains("(failed to place 2 allocations)"), "{}", plan.stdout);
    assert!(plan.stdout.contains(reason), "{}", plan.stdout);
    agent.ok(&["job", "run", "-detach", text(&file)]);
    let told = eventually("one is placed and the rest explained", || {
        Some(agent.ok(&["job", "status", "fixed"])).filter(|told| told.contains("Placement Failure"))
    });
    assert!(told.contains(reason), "{told}");
    assert_eq!(agent.allocs("fixed").len(), 1);
}

#[test]
fn a_missing_driver_or_datacenter_is_named() {
    let agent = dev();
    let job = |datacenter: &str, driver: &str| {
        format!(
            "job \"pot\" {{\n datacenters = [\"{datacenter}\"]\n group \"g\" {{\n task \"t\" {{\n \
             driver = \"{driver}\"\n config {{\n command = \"nginx\"\n }}\n }}\n }}\n}}\n"
        )
    };
    let told = |datacenter: &str| {
        let file = agent.file("pot.nomad", &job(datacenter, "pot"));
        agent.cli(&["job", "plan", text(&file)]).stdout
    };
    let nowhere = told("minipot");
    assert!(nowhere.contains("* No nodes are available in datacenter \"minipot\""), "{nowhere}");
    let here = told("dc1");
    assert!(here.contains("* Constraint \"missing drivers\": 1 nodes excluded by filter"), "{here}");
}

#[test]
fn a_node_that_may_not_offer_a_driver_is_not_chosen_for_it() {
    let agent = Agent::start(&["-dev"], "client {\n  options = { \"driver.denylist\" = \"java\" }\n}\n");
    eventually("the node is ready", || {
        agent.get("/v1/nodes").get(0).filter(|node| node["Status"] == "ready").map(|_| ())
    });
    let file = agent.file("hello-java.nomad", JAVA);
    let plan = agent.cli(&["job", "plan", text(&file)]).stdout;
    assert!(plan.contains("* Constraint \"missing drivers\": 1 nodes excluded by filter"), "{plan}");
}

#[test]
fn a_syntax_error_is_shown_where_it_is() {
    let agent = dev();
    let file = agent.file("broken.nomad", "job \"a\" {\n  group \"g\" {\n    ...\n  }\n}\n");
    for (command, code) in [("run", 1), ("plan", 255), ("validate", 1)] {
        let answer = agent.cli(&["job", command, text(&file)]);
        assert_eq!(answer.code, code, "{command}");
        assert!(
            answer.stderr.contains("broken.nomad:3,5-8: Argument or block definition required"),
            "{}",
            answer.stderr
        );
    }
    let unknown = agent.cli(&["alloc", "dance", "abc"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.stderr.contains("unknown command \"alloc dance\""), "{}", unknown.stderr);
}
