//! What people who know Nomad stumble over, seen from a running agent.

use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::docker::docker;
use crate::docker::image;
use crate::etcd::Etcd;
use crate::support::Agent;
use crate::support::eventually;
use crate::support::text;

/// A job of one task; `group`, `task` and `config` are lines of those blocks.
fn job(name: &str, group: &str, driver: &str, task: &str, config: &str) -> String {
    format!(
        "job {name:?} {{\n group \"g\" {{\n{group}\n restart {{\n attempts = 0\n mode = \"fail\"\n }}\n reschedule {{\n \
         attempts = 0\n unlimited = false\n }}\n task \"t\" {{\n driver = {driver:?}\n kill_timeout = \"100ms\"\n{task}\n \
         config {{\n{config}\n }}\n resources {{\n cpu = 20\n memory = 128\n }}\n }}\n }}\n}}\n"
    )
}

fn run(agent: &Agent, name: &str, text_of_job: &str) {
    let file = agent.file(&format!("{name}.nomad.hcl"), text_of_job);
    agent.ok(&["job", "run", "-detach", text(&file)]);
}

fn alloc_in(agent: &Agent, job: &str, status: &str) -> Value {
    let id = eventually(&format!("an allocation of {job} is {status}"), || {
        let found = agent.allocs(job).into_iter().find(|alloc| alloc["ClientStatus"] == status)?;
        found["ID"].as_str().map(str::to_owned)
    });
    agent.get(&format!("/v1/allocation/{id}"))
}

/// The texts of the events of the task.
fn events(alloc: &Value) -> Vec<String> {
    let events = alloc["TaskStates"]["t"]["Events"].as_array().cloned().unwrap_or_default();
    let text =
        |event: &Value| Some(format!("{}: {}", event["Type"].as_str()?, event["DisplayMessage"].as_str()?));
    events.iter().filter_map(text).collect()
}

fn inspect(alloc: &Value, format: &str) -> String {
    let id = alloc["ID"].as_str().expect("an id");
    docker(&["inspect", "-f", format, &format!("t-{id}")])
}

fn sleeper() -> String {
    format!(" image = {:?}\n command = \"sleep\"\n args = [\"1000\"]\n", image())
}

#[test]
fn maps_in_driver_options_reach_docker_whether_written_as_blocks_maps_or_lists() {
    let agent = Agent::dev();
    let wanted = "map[net.core.somaxconn:1000] [a b]";
    for (name, options) in [
        ("blocks", "labels {\n x = \"a\"\n y = \"b\"\n }\n sysctl {\n net.core.somaxconn = \"1000\"\n }"),
        (
            "maps",
            "labels = {\n x = \"a\"\n y = \"b\"\n }\n sysctl = {\n \"net.core.somaxconn\" = \"1000\"\n }",
        ),
        (
            "lists",
            "labels = [{\n x = \"a\"\n }, {\n y = \"b\"\n }]\n sysctl = [{\n \"net.core.somaxconn\" = \"1000\"\n }]",
        ),
    ] {
        // A block's names are plain words, so the dotted one is quoted there.
        let options = options.replace(" net.core.somaxconn =", " \"net.core.somaxconn\" =");
        run(&agent, name, &job(name, "", "docker", "", &(sleeper() + &options)));
        let alloc = alloc_in(&agent, name, "running");
        let seen = inspect(&alloc, "{{.HostConfig.Sysctls}} [{{.Config.Labels.x}} {{.Config.Labels.y}}]");
        assert_eq!(seen, wanted, "{name}");
        agent.ok(&["job", "stop", "-purge", "-detach", name]);
    }
}

#[test]
fn a_port_of_the_group_is_published_by_tcp_and_udp_only_if_listed_and_never_by_port_map() {
    let agent = Agent::dev();
    let group = "network {\n port \"http\" {\n to = 8080\n }\n port \"admin\" {}\n }";
    run(&agent, "silent", &job("silent", group, "docker", "", &sleeper()));
    let alloc = alloc_in(&agent, "silent", "running");
    assert_eq!(inspect(&alloc, "{{json .HostConfig.PortBindings}}"), "{}", "none is listed");

    let config = sleeper() + " ports = [\"http\"]";
    run(&agent, "listed", &job("listed", group, "docker", "", &config));
    let alloc = alloc_in(&agent, "listed", "running");
    let ports = alloc["AllocatedResources"]["Shared"]["Ports"].as_array().cloned().expect("ports");
    let value = ports.iter().find(|port| port["Label"] == "http").expect("a port")["Value"].clone();
    let published = docker(&["port", &format!("t-{}", alloc["ID"].as_str().expect("an id"))]);
    let mut published: Vec<&str> = published.lines().collect();
    published.sort_unstable();
    let expected = ["tcp", "udp"].map(|protocol| format!("8080/{protocol} -> 127.0.0.1:{value}"));
    assert_eq!(published, expected, "the other port is not");

    let config = sleeper() + " port_map {\n http = 8080\n }";
    let file = agent.file("mapped.nomad.hcl", &job("mapped", group, "docker", "", &config));
    let refused = agent.cli(&["job", "run", text(&file)]);
    let wanted = "'port_map' cannot map group network ports, use 'ports' instead";
    assert!(refused.code == 1 && refused.stderr.contains(wanted), "{}", refused.stderr);
    for name in ["silent", "listed"] {
        agent.ok(&["job", "stop", "-purge", "-detach", name]);
    }
}

#[test]
fn raw_exec_is_off_and_root_is_refused_for_isolated_drivers_unless_configured() {
    let etcd = Etcd::start();
    let endpoints = etcd.endpoints();
    let config =
        format!("etcd {{\n endpoints = {endpoints:?}\n}}\nclient {{\n network_interface = \"lo\"\n}}\n");
    let agent = Agent::start(&["-server", "-client"], &config);
    eventually("the node is ready", || {
        agent.get("/v1/nodes").get(0).filter(|node| node["Status"] == "ready").map(|_| ())
    });
    let node = &agent.get("/v1/nodes")[0];
    assert_eq!(node["Drivers"]["raw_exec"]["Detected"], false);
    assert_eq!(node["Drivers"]["raw_exec"]["HealthDescription"], "disabled");
    run(&agent, "raw", &job("raw", "", "raw_exec", "", " command = \"true\""));
    eventually("the reason", || {
        let told = agent.ok(&["job", "status", "raw"]);
        told.contains("Constraint \"missing drivers\": 1 nodes excluded by filter").then_some(())
    });
    let guest = agent.dir.path().join("guest.img");
    std::fs::write(&guest, [0; 512]).expect("a writable directory");
    for (driver, config) in [
        ("exec", " command = \"true\"".to_owned()),
        ("java", " class = \"X\"".to_owned()),
        ("qemu", format!(" image_path = {guest:?}")),
    ] {
        let name = format!("root-{driver}");
        run(&agent, &name, &job(&name, "", driver, " user = \"root\"", &config));
        let told = events(&alloc_in(&agent, &name, "failed"));
        let wanted = "Task hook failed: validate: running as user \"root\" is disallowed";
        assert!(told.iter().any(|event| event == wanted), "{driver}: {told:?}");
        assert!(!told.iter().any(|event| event.starts_with("Started")), "{driver}: {told:?}");
    }
    drop(agent);
    let more = "plugin \"raw_exec\" {\n config {\n enabled = true\n }\n}\n";
    let config =
        config.replace("client {\n", "client {\n options = {\n \"user.denylist\" = \"nobody\"\n }\n") + more;
    let agent = Agent::start(&["-server", "-client"], &config);
    eventually("raw_exec is on", || {
        let nodes = agent.get("/v1/nodes");
        let node = nodes.as_array()?.iter().find(|node| node["Status"] == "ready")?;
        (node["Drivers"]["raw_exec"]["Healthy"] == true).then_some(())
    });
    run(
        &agent,
        "again",
        &job("again", "", "exec", " user = \"root\"", " command = \"sleep\"\n args = [\"1000\"]"),
    );
    alloc_in(&agent, "again", "running");
    agent.ok(&["job", "stop", "-purge", "again"]);
}

#[test]
fn a_kill_signal_in_lower_case_or_unknown_is_never_placed() {
    let agent = Agent::dev();
    for (name, signal) in [("lower", "sigusr1"), ("unknown", "SIGNOPE")] {
        let task = format!(" kill_signal = {signal:?}");
        run(&agent, name, &job(name, "", "raw_exec", &task, " command = \"sleep\"\n args = [\"1000\"]"));
        eventually("the reason", || {
            let told = agent.ok(&["job", "status", name]);
            (told.contains("attr.os.signals") && told.contains(signal)).then_some(())
        });
        assert!(agent.allocs(name).is_empty(), "{name}");
    }
    let task = " kill_signal = \"SIGUSR1\"";
    run(&agent, "upper", &job("upper", "", "raw_exec", task, " command = \"sleep\"\n args = [\"1000\"]"));
    alloc_in(&agent, "upper", "running");
}

#[test]
fn a_wrong_hostname_is_accepted_and_shows_in_the_allocations_description_only() {
    let agent = Agent::dev();
    let group = "network {\n mode = \"none\"\n hostname = \"not_a_name\"\n }";
    run(&agent, "named", &job("named", group, "docker", "", &sleeper()));
    let alloc = alloc_in(&agent, "named", "failed");
    assert_eq!(
        alloc["ClientDescription"],
        "Unable to add allocation due to error: failed to configure network manager: Hostname is not a valid DNS \
         name: \"not_a_name\""
    );
    assert_eq!(events(&alloc), ["Received: Task received by client"]);
}

#[test]
fn a_volume_mount_without_destination_is_an_error_and_the_connection_stays() {
    let agent = Agent::dev();
    let group = "volume \"v\" {\n type = \"host\"\n source = \"data\"\n }";
    let task = "volume_mount {\n volume = \"v\"\n }";
    let file = agent.file("v.nomad.hcl", &job("v", group, "exec", task, " command = \"true\""));
    let refused = agent.cli(&["job", "run", text(&file)]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("destination"), "{}", refused.stderr);
    assert_eq!(agent.get("/v1/jobs").as_array().map(Vec::len), Some(0), "the agent answers as before");
}

#[test]
fn a_plugin_is_given_port_map_for_ports_of_the_group() {
    let dir = tempfile::tempdir().expect("a directory");
    let plugins = dir.path().join("plugins");
    std::fs::create_dir(&plugins).expect("a directory");
    symlink(env!("CARGO_BIN_EXE_sample-driver"), plugins.join("sample-driver")).expect("a link");
    let agent = Agent::start_in(dir, &["-dev"], &format!("plugin_dir = {plugins:?}\n"));
    let group = "network {\n port \"http\" {}\n }";
    let config = " command = \"/bin/sh\"\n args = [\"-c\", \"echo inside $SAMPLE_PORT_http; sleep 1000\"]\n \
                  port_map = {\n http = 8080\n }";
    eventually("the driver is there", || {
        let nodes = agent.get("/v1/nodes");
        let node = nodes.as_array()?.iter().find(|node| node["Status"] == "ready")?;
        (node["Drivers"]["sample"]["Healthy"] == true).then_some(())
    });
    run(&agent, "pot", &job("pot", group, "sample", "", config));
    let alloc = alloc_in(&agent, "pot", "running");
    let id = alloc["ID"].as_str().expect("an id");
    eventually("the port", || agent.ok(&["alloc", "logs", id]).contains("inside 8080").then_some(()));
    agent.ok(&["job", "stop", "-purge", "pot"]);
    eventually("it has ended", || (agent.cli(&["job", "status", "pot"]).code == 1).then_some(()));
}
