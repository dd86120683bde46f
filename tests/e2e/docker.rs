//! Containers of a real Docker: the job files of a public tutorial in small, faults that a user must be told of, and
//! agents that die. Needs a running dockerd and `/usr/bin/busybox`.

use std::process::Command;
use std::process::Stdio;
use std::sync::OnceLock;

use crate::etcd::Etcd;
use crate::support::Agent;
use crate::support::answer;
use crate::support::eventually;
use crate::support::text;

/// An image with nothing but busybox, made once.
const IMAGE: &str = "herder-e2e/busybox:1";

/// Runs docker; its standard output.
pub fn docker(args: &[&str]) -> String {
    let said = answer(Command::new("docker").args(args));
    assert_eq!(said.code, 0, "docker {args:?} failed; these tests need a running dockerd: {}", said.stderr);
    said.stdout.trim().to_owned()
}

/// Makes the image, unless that was done already.
pub fn image() -> &'static str {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        docker(&["version"]);
        let root = tempfile::tempdir().expect("a directory");
        let bin = root.path().join("bin");
        std::fs::create_dir_all(&bin).expect("a writable directory");
        std::fs::copy("/usr/bin/busybox", bin.join("busybox")).expect("busybox-static is installed");
        for applet in ["sh", "env", "sleep"] {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).expect("a writable directory");
        }
        let mut tar = Command::new("tar")
            .args(["-c", "-C", text(root.path()), "."])
            .stdout(Stdio::piped())
            .spawn()
            .expect("tar starts");
        let archive = tar.stdout.take().expect("piped");
        let made = answer(
            Command::new("docker").args(["import", "--change", "ENV PATH=/bin", "-", IMAGE]).stdin(archive),
        );
        let _ = tar.wait();
        assert_eq!(made.code, 0, "docker import failed: {}", made.stderr);
    });
    IMAGE
}

/// A job of one container that runs this script. `group` and `task` are more lines of those blocks.
fn job(name: &str, group: &str, task: &str, script: &str) -> String {
    let image = image();
    format!(
        "job {name:?} {{\n group \"g\" {{\n{group}\n restart {{\n attempts = 1\n delay = \"200ms\"\n }}\n \
         reschedule {{\n attempts = 0\n unlimited = false\n }}\n \
         update {{\n min_healthy_time = \"100ms\"\n }}\n \
         task \"t\" {{\n driver = \"docker\"\n kill_timeout = \"100ms\"\n{task}\n config {{\n image = {image:?}\n \
         command = \"/bin/sh\"\n args = [\"-c\", <<EOS\n{script}\nEOS\n ]\n }}\n \
         resources {{\n cpu = 20\n memory = 32\n }}\n }}\n }}\n}}\n"
    )
}

/// Waits for an allocation of the job in this state; its id.
fn alloc_in(agent: &Agent, job: &str, status: &str) -> String {
    eventually(&format!("an allocation of {job} is {status}"), || {
        let all = agent.allocs(job);
        let found = all.iter().find(|alloc| alloc["ClientStatus"] == status)?;
        found["ID"].as_str().map(str::to_owned)
    })
}

/// Waits until the log has such text; the whole log.
fn log_with(agent: &Agent, alloc: &str, wanted: &str) -> String {
    eventually(&format!("{wanted:?} in the log of {alloc}"), || {
        Some(agent.cli(&["alloc", "logs", alloc]).stdout).filter(|log| log.contains(wanted))
    })
}

fn run(agent: &Agent, name: &str, text_of_job: &str) {
    let file = agent.file(&format!("{name}.nomad.hcl"), text_of_job);
    agent.ok(&["job", "run", "-detach", text(&file)]);
}

#[test]
fn a_container_finds_a_service_and_restarts_when_its_port_changes() {
    let agent = Agent::dev();
    let group = "network {\n port \"db\" {\n to = 6379\n }\n }\n service {\n name = \"db\"\n port = \"db\"\n \
                 provider = \"nomad\"\n }";
    let db = job("db", group, "", "exec sleep 1000").replace("config {", "config {\n ports = [\"db\"]");
    run(&agent, "db", &db);
    let port_of = |alloc: &str| {
        agent.get(&format!("/v1/allocation/{alloc}"))["AllocatedResources"]["Shared"]["Ports"][0]["Value"]
            .as_u64()
            .expect("a port")
    };
    let first = alloc_in(&agent, "db", "running");
    let template = "template {\n data = <<EOT\n{{ range nomadService \"db\" }}\nDB={{ .Address }}:{{ .Port }}\n\
                    {{ end }}\nEOT\n destination = \"local/env\"\n env = true\n wait {\n min = \"100ms\"\n \
                    max = \"1s\"\n }\n }";
    run(&agent, "web", &job("web", "", template, "echo \"db=<$DB>\"; exec sleep 1000"));
    let web = alloc_in(&agent, "web", "running");
    log_with(&agent, &web, &format!("db=<127.0.0.1:{}>", port_of(&first)));
    let container = format!("t-{first}");
    let published = docker(&["port", &container, "6379/tcp"]);
    assert_eq!(published, format!("127.0.0.1:{}", port_of(&first)));

    agent.ok(&["job", "stop", "-purge", "-detach", "db"]);
    log_with(&agent, &web, "db=<>");
    run(&agent, "db", &db);
    let second = eventually("the service is back", || {
        let found = agent.allocs("db");
        let found = found.iter().find(|alloc| alloc["ClientStatus"] == "running" && alloc["ID"] != *first)?;
        found["ID"].as_str().map(str::to_owned)
    });
    log_with(&agent, &web, &format!("db=<127.0.0.1:{}>", port_of(&second)));
    let told = agent.ok(&["alloc", "status", &web]);
    assert!(told.contains("Template with change_mode restart re-rendered"), "{told}");

    for name in ["db", "web"] {
        agent.ok(&["job", "stop", "-purge", "-detach", name]);
    }
    eventually("no container is left", || {
        let left =
            [&first, &second, &web].map(|id| docker(&["ps", "-aq", "--filter", &format!("name={id}")]));
        left.iter().all(String::is_empty).then_some(())
    });
}

#[test]
fn a_missing_image_and_a_taken_port_are_told_with_their_reasons() {
    let agent = Agent::dev();
    let missing = job("missing", "", "", "true").replace(IMAGE, "localhost:1/nosuch/image:1");
    run(&agent, "missing", &missing);
    let failed = alloc_in(&agent, "missing", "failed");
    let told = agent.ok(&["alloc", "status", &failed]);
    assert!(told.contains("Failed to pull `localhost:1/nosuch/image:1`: "), "{told}");
    assert!(told.contains("Exceeded allowed attempts 1 in interval"), "{told}");

    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = holder.local_addr().expect("bound").port();
    let group = format!("network {{\n port \"p\" {{\n static = {port}\n }}\n }}");
    let taken = job("taken", &group, "", "sleep 1000").replace("config {", "config {\n ports = [\"p\"]");
    run(&agent, "taken", &taken);
    let failed = alloc_in(&agent, "taken", "failed");
    let told = agent.ok(&["alloc", "status", &failed]);
    assert!(told.contains("address already in use"), "{told}");
}

#[test]
fn a_static_port_is_held_once_per_address_and_then_refused() {
    let agent = Agent::dev();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = holder.local_addr().expect("bound").port();
    let node = &agent.get("/v1/nodes?resources=true")[0];
    let addresses = node["NodeResources"]["NodeNetworks"][0]["Addresses"].as_array().map_or(1, Vec::len);
    let group = format!("network {{\n port \"p\" {{\n static = {port}\n }}\n }}");
    for at in 0..addresses {
        let name = format!("holder{at}");
        run(&agent, &name, &job(&name, &group, "", "sleep 1000"));
        alloc_in(&agent, &name, "running");
    }
    run(&agent, "late", &job("late", &group, "", "sleep 1000"));
    eventually("the reason", || {
        let told = agent.ok(&["job", "status", "late"]);
        told.contains(&format!("reserved port collision p={port}")).then_some(())
    });
}

#[test]
fn a_job_too_large_for_the_store_is_refused_and_changes_nothing() {
    let agent = Agent::dev();
    let line = "x".repeat(100);
    let data = vec![line; 20_000].join("\n");
    let template = format!("template {{\n destination = \"local/x\"\n data = <<EOT\n{data}\nEOT\n }}");
    let file = agent.file("big.nomad.hcl", &job("big", "", &template, "true"));
    let refused = agent.cli(&["job", "run", text(&file)]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("job \"big\" is too large for the store: "), "{}", refused.stderr);
    assert!(refused.stderr.contains("the limit is "), "{}", refused.stderr);
    assert_eq!(agent.get("/v1/jobs").as_array().map(Vec::len), Some(0));
    assert_eq!(agent.get("/v1/evaluations").as_array().map(Vec::len), Some(0));
}

#[test]
fn containers_and_processes_outlive_an_agent_that_is_killed() {
    let etcd = Etcd::start();
    let config = format!("etcd {{\n endpoints = {:?}\n}}\n", etcd.endpoints());
    let agent = Agent::start(&["-dev"], &config);
    // Each line is written once, so that a line copied twice is seen.
    let script = "i=0; while true; do i=$((i+1)); echo line $i.; busybox usleep 20000; done";
    run(&agent, "c", &job("c", "", "", script));
    let raw = job("p", "", "", script)
        .replace("\"docker\"", "\"raw_exec\"")
        .replace(&format!("image = {IMAGE:?}"), "");
    run(&agent, "p", &raw.replace("echo line", "echo $$ line"));
    let (c, p) = (alloc_in(&agent, "c", "running"), alloc_in(&agent, "p", "running"));
    log_with(&agent, &c, "line 20.");
    let pid = log_with(&agent, &p, " line 20.").split(' ').next().expect("a first word").to_owned();
    let container = format!("t-{c}");
    let before = docker(&["inspect", "-f", "{{.Id}} {{.State.Pid}}", &container]);
    let dir = agent.kill();

    let agent = Agent::start_in(dir, &["-dev"], &config);
    alloc_in(&agent, "c", "running");
    let log = log_with(&agent, &c, "line 200.");
    assert_eq!(docker(&["inspect", "-f", "{{.Id}} {{.State.Pid}}", &container]), before);
    let numbers: Vec<String> = log.lines().map(str::to_owned).collect();
    let wanted: Vec<String> = (1..=numbers.len()).map(|number| format!("line {number}.")).collect();
    assert_eq!(numbers, wanted, "every line is there once");
    let log = log_with(&agent, &p, " line 200.");
    assert!(log.lines().all(|line| line.starts_with(&format!("{pid} line "))), "one and the same process");
    assert_eq!(log.lines().filter(|line| line.ends_with(" line 7.")).count(), 1);
    for name in ["c", "p"] {
        agent.ok(&["job", "stop", "-purge", "-detach", name]);
    }
    eventually("no container is left", || {
        docker(&["ps", "-aq", "--filter", &format!("name={container}")]).is_empty().then_some(())
    });
}

#[test]
fn host_volumes_are_mounted_into_containers_read_only_where_asked() {
    let (rw, ro) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    std::fs::write(ro.path().join("constant"), "42\n").expect("a writable directory");
    let volume = |name: &str, path: &std::path::Path, more: &str| {
        format!("host_volume {name:?} {{\n path = {path:?}\n {more}\n }}\n")
    };
    let config = volume("rw", rw.path(), "") + &volume("ro", ro.path(), "read_only = true");
    let agent = Agent::start(&["-dev"], &format!("client {{\n{config}}}\n"));
    let group = "volume \"a\" {\n type = \"host\"\n source = \"rw\"\n }\n \
        volume \"b\" {\n type = \"host\"\n source = \"ro\"\n read_only = true\n }\n";
    let task = "volume_mount {\n volume = \"a\"\n destination = \"/srv/a\"\n }\n \
        volume_mount {\n volume = \"b\"\n destination = \"/srv/b\"\n }\n";
    let script =
        "cat /srv/b/constant; echo from-task > /srv/a/written; echo x > /srv/b/x || echo refused; sleep 900";
    run(&agent, "dvol", &job("dvol", group, task, script));
    let alloc = alloc_in(&agent, "dvol", "running");
    log_with(&agent, &alloc, "42\nrefused\n");
    assert_eq!(std::fs::read_to_string(rw.path().join("written")).expect("written"), "from-task\n");
    assert!(!ro.path().join("x").exists());
}

/// A network of Docker's that is gone when the test ends.
struct DockerNetwork(String);

impl DockerNetwork {
    fn new(name: &str, subnets: &[&str]) -> Self {
        let name = format!("herder-e2e-{name}-{}", std::process::id());
        let mut args = vec!["network", "create"];
        if subnets.len() > 1 {
            args.push("--ipv6");
        }
        args.extend(subnets.iter().flat_map(|subnet| ["--subnet", subnet]));
        args.push(&name);
        docker(&args);
        Self(name)
    }
}

impl Drop for DockerNetwork {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["network", "rm", &self.0]).output();
    }
}

/// Where a service is found: address and port.
fn place_of(agent: &Agent, service: &str) -> (String, u64) {
    eventually(&format!("the service {service}"), || {
        let found = agent.get(&format!("/v1/service/{service}"));
        let one = found.as_array()?.first()?;
        Some((one["Address"].as_str()?.to_owned(), one["Port"].as_u64()?))
    })
}

#[test]
fn services_of_containers_have_the_address_that_their_mode_asks_for() {
    let etcd = Etcd::start();
    let config = format!("etcd {{\n endpoints = {:?}\n}}\n", etcd.endpoints());
    let agent = Agent::start(&["-dev"], &config);
    let octet = std::process::id() % 250;
    let network = DockerNetwork::new("modes", &[&format!("10.214.{octet}.0/24"), "fd00:214::/64"]);
    let service = |name: &str, more: &str| {
        format!("service {{\n name = {name:?}\n port = \"http\"\n provider = \"nomad\"\n {more}\n }}\n")
    };
    let modes = |prefix: &str| {
        let service = |name: &str, more: &str| service(&format!("{prefix}-{name}"), more);
        service("auto", "")
            + &service("host", "address_mode = \"host\"")
            + &service("driver", "address_mode = \"driver\"")
    };
    let group = "network {\n port \"http\" {\n to = 8080\n }\n }";
    let start = |name: &str, config: &str| {
        let config = format!("config {{\n ports = [\"http\"]\n {config}\n");
        run(&agent, name, &job(name, group, &modes(name), "exec sleep 1000").replace("config {", &config));
        let id = alloc_in(&agent, name, "running");
        let port =
            agent.get(&format!("/v1/allocation/{id}"))["AllocatedResources"]["Shared"]["Ports"][0]["Value"]
                .as_u64()
                .expect("a port");
        (format!("t-{id}"), port)
    };
    let address = |container: &str, field: &str| {
        docker(&[
            "inspect",
            "-f",
            &format!("{{{{range .NetworkSettings.Networks}}}}{{{{.{field}}}}}{{{{end}}}}"),
            container,
        ])
    };
    let host = |port: u64| ("127.0.0.1".to_owned(), port);
    // Docker's own bridge is hidden behind the machine's address.
    let (container, port) = start("plain", "");
    let own = (address(&container, "IPAddress"), 8080);
    assert_eq!(place_of(&agent, "plain-auto"), host(port));
    assert_eq!(place_of(&agent, "plain-host"), host(port));
    assert_eq!(place_of(&agent, "plain-driver"), own);
    // Others are not.
    let (container, port) = start("net", &format!("network_mode = {:?}", network.0));
    let of_net = (address(&container, "IPAddress"), 8080);
    assert!(of_net.0.starts_with(&format!("10.214.{octet}.")), "{of_net:?}");
    assert_eq!(place_of(&agent, "net-auto"), of_net);
    assert_eq!(place_of(&agent, "net-host"), host(port));
    assert_eq!(place_of(&agent, "net-driver"), of_net);
    let six = format!("network_mode = {:?}\n advertise_ipv6_address = true", network.0);
    let (container, _) = start("six", &six);
    let of_six = (address(&container, "GlobalIPv6Address"), 8080);
    assert!(of_six.0.starts_with("fd00:214:"), "{of_six:?}");
    assert_eq!(place_of(&agent, "six-auto"), of_six);
    assert_eq!(place_of(&agent, "six-driver"), of_six);

    // The next agent knows it still.
    let dir = agent.kill();
    let agent = Agent::start_in(dir, &["-dev"], &config);
    alloc_in(&agent, "net", "running");
    let seen =
        || [place_of(&agent, "plain-driver"), place_of(&agent, "net-auto"), place_of(&agent, "six-auto")];
    let wanted = [own, of_net, of_six];
    eventually("the services are back", || (seen() == wanted).then_some(()));
    for name in ["plain", "net", "six"] {
        agent.ok(&["job", "stop", "-purge", "-detach", name]);
    }
    eventually("no container is left", || {
        docker(&["ps", "-aq", "--filter", &format!("network={}", network.0)]).is_empty().then_some(())
    });
}

#[test]
fn ports_of_older_networks_are_where_port_map_puts_them() {
    let agent = Agent::dev();
    let task = "service {\n name = \"old-${NOMAD_PORT_db}\"\n port = \"db\"\n provider = \"nomad\"\n \
                address_mode = \"driver\"\n }\n";
    let text_of_job = job("old", "", task, "echo in $NOMAD_PORT_db; exec sleep 1000")
        .replace("config {", "config {\n port_map {\n db = 6379\n }\n")
        .replace("memory = 32", "memory = 32\n network {\n port \"db\" {}\n port \"other\" {}\n }\n");
    run(&agent, "old", &text_of_job);
    let id = alloc_in(&agent, "old", "running");
    log_with(&agent, &id, "in 6379");
    let own = docker(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", &format!("t-{id}")]);
    assert_eq!(place_of(&agent, "old-6379"), (own, 6379));
    let published = docker(&[
        "inspect",
        "-f",
        "{{range $port, $_ := .HostConfig.PortBindings}}{{$port}} {{end}}",
        &format!("t-{id}"),
    ]);
    assert!(published.contains("6379/tcp") && published.contains("6379/udp"), "{published}");
    assert_eq!(published.split_whitespace().count(), 4, "both ports by both protocols: {published}");
}
