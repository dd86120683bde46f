//! Containers, with an image made here from busybox.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::time::Duration;

use herder::drivers::DriverError;
use herder::drivers::DriverOptions;
use herder::drivers::all;
use herder::drivers::docker::DockerOptions;
use herder::model::network::Network;
use herder::model::network::Port;
use herder::model::network::PortMapping;
use serde_json::Value;
use serde_json::json;

use crate::support::Bench;
use crate::support::check_abandoned;
use crate::support::check_sessions;
use crate::support::options;

const IMAGE: &str = "herder-test/busybox:1";

/// Makes the image once; says what to do when Docker is not there.
pub fn image() -> &'static str {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        let docker = |args: &[&str]| {
            Command::new("docker").args(args).output().expect("the docker command is missing")
        };
        let up = docker(&["version"]);
        assert!(
            up.status.success(),
            "Docker does not answer, start dockerd first (as `make test` does): {}",
            String::from_utf8_lossy(&up.stderr)
        );
        if !docker(&["image", "inspect", IMAGE]).status.success() {
            import(IMAGE, "ENV PATH=/bin");
        }
    });
    IMAGE
}

/// Makes an image from busybox; `change` is a line of a Dockerfile, and makes its id its own.
pub fn import(name: &str, change: &str) {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    for name in ["bin", "tmp", "etc"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static is not installed");
    let names = "sh echo cat sleep true id env ls tail nc wget hostname yes head kill pwd seq";
    for name in names.split(' ') {
        std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
    }
    let tar = dir.path().join("image.tar");
    let mut pack = Command::new("tar");
    pack.arg("-C").arg(dir.path()).arg("-cf").arg(&tar).args(["bin", "tmp", "etc"]);
    assert!(pack.status().unwrap().success());
    let made =
        Command::new("docker").args(["import", "--change", change]).arg(&tar).arg(name).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn shell(script: &str) -> Value {
    json!({"image": image(), "command": "sh", "args": ["-c", script]})
}

fn container(bench: &Bench) -> String {
    format!("web-{}", bench.config.id.alloc)
}

fn inspect(bench: &Bench, format: &str) -> String {
    let output = Command::new("docker").args(["inspect", "-f", format, &container(bench)]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn output_files_and_exit_code_arrive() {
    let script =
        "echo $GREETING; echo oops >&2; cat /secrets/key; echo data > /alloc/out; echo x > /local/y; exit 5";
    let mut bench = Bench::new("docker", shell(script));
    fs::write(bench.config.dirs.secrets.join("key"), "s3cret\n").unwrap();
    let status = bench.run().await;
    assert_eq!((status.code, status.oom_killed), (5, false));
    assert_eq!(status.message, "Docker container exited with non-zero exit code: 5");
    assert_eq!(bench.log("stdout"), "hello\ns3cret\n");
    assert_eq!(bench.log("stderr"), "oops\n");
    assert_eq!(fs::read_to_string(bench.config.dirs.shared.join("out")).unwrap(), "data\n");
    assert_eq!(fs::read_to_string(bench.config.dirs.local.join("y")).unwrap(), "x\n");
    let name = container(&bench);
    bench.finish().await;
    assert!(!Command::new("docker").args(["inspect", &name]).output().unwrap().status.success());
}

#[tokio::test]
async fn limits_name_and_ports_are_what_the_grant_says() {
    let config = json!({"image": image(), "command": "sleep", "args": ["1000"], "ports": ["http"], "labels": [{"team": "a"}],
        "ulimit": {"nofile": "100:200"}, "hostname": "box", "cap_drop": ["chown"]});
    let mut bench = Bench::new("docker", config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let value = listener.local_addr().unwrap().port();
    drop(listener);
    let mapping = PortMapping {
        label: "http".to_owned(),
        value,
        to: 8080,
        host_ip: "127.0.0.1".to_owned(),
        ..PortMapping::default()
    };
    bench.config.ports = vec![mapping];
    let (handle, started) = bench.try_start().await.unwrap();
    assert!(started.address.is_some_and(|address| address.starts_with("172.")));
    assert_eq!(
        inspect(&bench, "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.CpuShares}}"),
        "67108864 67108864 100"
    );
    assert_eq!(inspect(&bench, "{{.Config.Hostname}} {{.HostConfig.CapDrop}}"), "box [chown net_raw]");
    assert_eq!(
        inspect(&bench, "{{json .HostConfig.PortBindings}}"),
        format!(
            r#"{{"8080/tcp":[{{"HostIp":"127.0.0.1","HostPort":"{value}"}}],"8080/udp":[{{"HostIp":"127.0.0.1","HostPort":"{value}"}}]}}"#
        )
    );
    assert_eq!(
        inspect(&bench, "{{index .Config.Labels \"com.hashicorp.nomad.alloc_id\"}} {{.Config.Labels.team}}"),
        format!("{} a", bench.config.id.alloc)
    );
    let stats = bench.driver.stats(&handle).await.unwrap();
    assert_eq!(stats.pids.len(), 1);
    assert!(
        stats.cpu_time_ns > 0 && stats.user_ns.is_some() && stats.throttled_periods.is_some(),
        "{stats:?}"
    );
    assert!(stats.rss_bytes > 0 && stats.usage_bytes.is_some_and(|usage| usage > 0), "{stats:?}");
    bench.driver.stop(&handle, "SIGKILL", Duration::from_secs(30)).await.unwrap();
    bench.finish().await;
}

#[tokio::test]
async fn a_tasks_own_network_publishes_every_port_and_a_groups_only_what_is_listed() {
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = |label: &str, to| PortMapping {
        label: label.to_owned(),
        value: free(),
        to,
        host_ip: "127.0.0.1".to_owned(),
        ..PortMapping::default()
    };
    let sleep = |more: &Value| {
        let mut config = json!({"image": image(), "command": "sleep", "args": ["1000"]});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    };
    let published = async |config: Value, own: bool| {
        let mut bench = Bench::new("docker", config);
        bench.config.ports = vec![port("http", 0), port("db", 5432)];
        if own {
            let ports = bench.config.ports.iter().map(|port| Port {
                label: port.label.clone(),
                value: i64::from(port.value),
                ..Port::default()
            });
            bench.config.grant.networks =
                vec![Network { dynamic_ports: ports.collect(), ..Network::default() }];
        }
        let started = bench.try_start().await;
        let result = match started {
            Ok((handle, _)) => {
                let mut inside: Vec<String> = serde_json::from_str::<serde_json::Map<String, Value>>(
                    &inspect(&bench, "{{json .HostConfig.PortBindings}}"),
                )
                .unwrap()
                .keys()
                .cloned()
                .collect();
                inside.sort();
                bench.driver.stop(&handle, "SIGKILL", Duration::from_secs(30)).await.unwrap();
                Ok(inside)
            }
            Err(error) => Err(error.to_string()),
        };
        let host = bench.config.ports[0].value;
        bench.finish().await;
        (result, host)
    };
    let (found, http) = published(sleep(&json!({"port_map": [{"http": 80}]})), true).await;
    assert_eq!(found.unwrap(), ["5432/tcp", "5432/udp", "80/tcp", "80/udp"]);
    let (found, host) = published(sleep(&json!({})), true).await;
    assert_ne!(host, http);
    let plain = [format!("{host}/tcp"), format!("{host}/udp"), "5432/tcp".into(), "5432/udp".into()];
    assert_eq!(found.unwrap().into_iter().collect::<std::collections::BTreeSet<_>>(), plain.into());
    assert_eq!(published(sleep(&json!({})), false).await.0.unwrap(), Vec::<String>::new());
    assert_eq!(published(sleep(&json!({"ports": ["db"]})), false).await.0.unwrap(), ["5432/tcp", "5432/udp"]);
    let refused = published(sleep(&json!({"port_map": [{"http": 80}]})), false).await.0.unwrap_err();
    assert!(refused.ends_with("'port_map' cannot map group network ports, use 'ports' instead"), "{refused}");
    let unknown = published(sleep(&json!({"ports": ["x"]})), false).await.0.unwrap_err();
    assert!(unknown.ends_with("Port \"x\" not found, check network block"), "{unknown}");
}

#[tokio::test]
async fn stopping_signals_first_and_kills_later() {
    let mut bench =
        Bench::new("docker", shell("trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.1; done"));
    let handle = bench.start().await;
    bench.wait_for_log("stdout", "ready").await;
    bench.driver.stop(&handle, "", Duration::from_secs(30)).await.unwrap();
    assert_eq!(bench.wait(&handle).await.code, 3);
    assert_eq!(bench.log("stdout"), "ready\nbye\n");
    bench.finish().await;
    let mut deaf = Bench::new("docker", shell("trap '' TERM; echo ready; while :; do sleep 0.1; done"));
    let handle = deaf.start().await;
    deaf.wait_for_log("stdout", "ready").await;
    deaf.driver.stop(&handle, "", Duration::from_millis(200)).await.unwrap();
    assert_eq!(deaf.wait(&handle).await.code, 137);
    deaf.driver.stop(&handle, "", Duration::from_millis(200)).await.unwrap();
    deaf.finish().await;
}

#[tokio::test]
async fn a_new_agent_loses_and_doubles_no_output() {
    let script =
        "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo line $i; [ $((i % 20)) = 0 ] && sleep 0.05; done";
    let mut bench = Bench::new("docker", shell(script));
    let handle = bench.start().await;
    bench.wait_for_log("stdout", "line 20\n").await;
    // What an agent leaves that dies between writing output and noting that it did.
    let position = bench.config.dirs.private.join("0.logs");
    let stale = fs::read(&position).unwrap();
    bench.wait_for_log("stdout", "line 60\n").await;
    bench.driver = herder::drivers::all(&options()).remove("docker").unwrap();
    fs::write(&position, stale).unwrap();
    bench.driver.recover(&handle).await.unwrap();
    assert_eq!(bench.wait(&handle).await.code, 0);
    let expected: String = (1..=400).map(|number| format!("line {number}\n")).collect();
    assert_eq!(bench.log("stdout"), expected);
    bench.driver.remove(&handle).await.unwrap();
    assert_eq!(bench.driver.recover(&handle).await, Err(DriverError::NotFound));
    bench.finish().await;
}

#[tokio::test]
async fn running_out_of_memory_is_reported() {
    let mut bench = Bench::new("docker", shell("exec tail /dev/zero"));
    bench.config.grant.memory.memory_mb = 16;
    let status = bench.run().await;
    assert_eq!((status.code, status.oom_killed, status.message.as_str()), (137, true, "OOM Killed"));
    bench.finish().await;
}

#[tokio::test]
async fn commands_run_inside_the_container() {
    let mut bench = Bench::new("docker", shell("exec sleep 1000"));
    let handle = bench.start().await;
    let command = ["sh", "-c", "echo $GREETING; echo bad >&2; exit 3"].map(str::to_owned);
    let (code, output) = bench.driver.exec(&handle, &command, Duration::from_secs(30)).await.unwrap();
    let output = String::from_utf8(output).unwrap();
    assert_eq!(code, 3);
    assert!(output.contains("hello\n") && output.contains("bad\n"), "{output}");
    bench.finish().await;
}

#[tokio::test]
async fn an_image_that_cannot_be_had_is_named() {
    image();
    let config = json!({"image": "registry.invalid/no/such:1", "image_pull_timeout": "20s"});
    let mut bench = Bench::new("docker", config);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let progress = Arc::new(move |text: &str| sink.lock().unwrap().push(text.to_owned()));
    let error = bench.driver.start(&bench.config, progress).await.unwrap_err();
    assert!(error.to_string().starts_with("Failed to pull `registry.invalid/no/such:1`: "), "{error}");
    assert!(error.is_recoverable());
    assert_eq!(*seen.lock().unwrap(), ["Downloading image"]);
    bench.set_config(json!({"image": image(), "command": "no-such-program"}));
    let error = bench.try_start().await.unwrap_err();
    assert!(error.to_string().starts_with("Failed to start container "), "{error}");
    assert!(!error.is_recoverable());
    bench.finish().await;
}

#[tokio::test]
async fn a_docker_that_is_not_there_may_come_back() {
    let endpoint = "unix:///nonexistent/docker.sock".to_owned();
    let docker = DockerOptions { endpoint, ..DockerOptions::default() };
    let options = herder::drivers::DriverOptions { docker, ..options() };
    let mut bench = Bench::with(&options, "docker", json!({"image": "x:1"}));
    let info = bench.driver.fingerprint().await;
    assert!(!info.detected);
    assert_eq!(info.health_description, "Failed to connect to docker daemon");
    assert!(bench.try_start().await.unwrap_err().is_recoverable());
    bench.finish().await;
}

#[tokio::test]
async fn what_the_agent_forbids_is_refused() {
    let bench = Bench::new("docker", json!({}));
    let config = json!({"imagee": "y", "devices": [{"path": "/dev/x"}], "logging": {"tyype": "x"}});
    assert_eq!(
        bench.driver.validate(config.as_object().unwrap()),
        [
            "Missing required argument: The argument \"image\" is required, but no definition was found.",
            "Invalid label: No argument or block type is named \"imagee\".",
            "devices: Missing required argument: The argument \"host_path\" is required, but no definition was found.",
            "devices: Invalid label: No argument or block type is named \"path\".",
            "logging: Invalid label: No argument or block type is named \"tyype\".",
        ]
    );
    let prefix = format!("Failed to create container configuration for image {:?} (\"sha256:", image());
    for (config, why) in [
        (json!({"privileged": true}), "Docker privileged mode is disabled on this Nomad agent"),
        (json!({"cap_add": ["sys_admin"]}), "driver does not allow the following capabilities: sys_admin"),
        (json!({"command": " x"}), "command contains extra white space: \" x\""),
        (json!({"command": ""}), "command empty: \"\""),
        (json!({"ulimit": {"nofile": "many"}}), "malformed ulimit nofile: \"many\""),
        (json!({"runtime": "kata"}), "requested runtime \"kata\" is not allowed"),
        (json!({"cpu_cfs_period": 1_000_001}), "invalid value for cpu_cfs_period"),
        (
            json!({"pid_mode": "host"}),
            "pid_mode \"host\" is disabled on this agent: it needs allow_privileged",
        ),
        (json!({"volume_driver": "x"}), "volumes are not enabled; cannot use volume driver \"x\""),
        (
            json!({"mount": [{"target": "/x", "volume_options": [{"driver_config": [{"options": [{"device": "/etc"}]}]}]}]}),
            "volumes are not enabled; cannot use volume driver \"local\"",
        ),
        (
            json!({"mount": [{"type": "bind", "source": "/etc", "target": "/x"}]}),
            "volumes are not enabled; cannot mount host path: \"/etc\"",
        ),
        (json!({"ports": ["db"]}), "Port \"db\" not found, check network block"),
        (json!({"port_map": {"db": 1}}), "'port_map' cannot map group network ports, use 'ports' instead"),
    ] {
        let mut bench = Bench::new("docker", config);
        bench.config.config.insert("image".to_owned(), json!(image()));
        let error = bench.try_start().await.unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&prefix) && text.ends_with(&format!("): {why}")), "{text}");
        assert!(error.is_recoverable());
        bench.finish().await;
    }
    let outside = tempfile::tempdir().unwrap();
    for volume in [
        "/etc:/host",
        "../../../../etc:/host",
        "local/out:/host",
        "local/out/new:/host",
        "local/gone/x:/host",
    ] {
        let mut bench = Bench::new("docker", json!({"image": image(), "volumes": [volume]}));
        let local = bench.config.dirs.local.clone();
        std::os::unix::fs::symlink(outside.path(), local.join("out")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("later"), local.join("gone")).unwrap();
        let error = bench.try_start().await.unwrap_err().to_string();
        assert!(error.contains("cannot mount host path"), "{error}");
        bench.finish().await;
    }
    bench.finish().await;
}

#[tokio::test]
async fn options_become_what_docker_shows() {
    let network = format!("herder-test-{}", uuid::Uuid::new_v4());
    let volume = format!("herder-test-{}", uuid::Uuid::new_v4());
    // A subnet of its own, away from those that Docker gives out by itself.
    let octet = std::process::id() % 250;
    let subnet = format!("10.213.{octet}.0/24");
    let made =
        Command::new("docker").args(["network", "create", "--subnet", &subnet, &network]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut options = options();
    options.docker.extra_labels = vec!["job_*".to_owned(), "node_id".to_owned()];
    options.docker.volumes_enabled = true;
    options.docker.oom_score_adj = 10;
    let config = json!({"image": image(), "command": "sleep", "args": ["1000"],
    "network_mode": network, "network_aliases": ["db", "store"], "ipv4_address": format!("10.213.{octet}.77"),
    "cpu_hard_limit": true, "cpu_cfs_period": 50_000, "memory_hard_limit": 128, "pids_limit": 50,
    "healthchecks": [{"disable": true}], "runtime": "runc", "init": true, "readonly_rootfs": true,
    "shm_size": 1_048_576, "sysctl": [{"net.core.somaxconn": "1000"}], "ulimit": [{"nofile": "100:200"}],
    "extra_hosts": ["somewhere:10.0.0.1"], "group_add": ["5"], "work_dir": "/tmp", "security_opt": ["no-new-privileges"],
    "logging": [{"driver": "local", "config": [{"max-size": "1m"}]}],
    "devices": [{"host_path": "/dev/null", "container_path": "/dev/nothing"}],
    "volumes": ["local/v:/v:ro", "/etc:/host-etc:ro", format!("{volume}:/named")],
    "mount": [
        {"type": "tmpfs", "target": "/t", "tmpfs_options": [{"size": 4096, "mode": 511}]},
        {"type": "bind", "target": "/b", "source": "local", "readonly": true, "bind_options": [{"propagation": "rprivate"}]},
        {"target": "/m", "source": volume, "volume_options": [{"no_copy": true, "labels": [{"a": "b"}]}]},
    ]});
    let mut bench = Bench::with(&options, "docker", config);
    bench.config.grant.cpu.cpu_shares = 500;
    bench.config.job_name = "a name".to_owned();
    let (handle, started) = bench.try_start().await.unwrap();
    assert_eq!(started.address, Some(format!("10.213.{octet}.77")));
    assert!(started.advertise, "others can reach an address of a network that is not Docker's own bridge");
    let cpus = std::thread::available_parallelism().unwrap().get();
    let task = bench.config.dirs.task.display().to_string();
    for (format, expected) in [
        (
            "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.MemoryReservation}}",
            "134217728 134217728 67108864".to_owned(),
        ),
        ("{{.HostConfig.CpuPeriod}} {{.HostConfig.CpuQuota}}", format!("50000 {}", 50_000 * cpus / 4)),
        ("{{.HostConfig.PidsLimit}} {{.HostConfig.OomScoreAdj}}", "50 10".to_owned()),
        (
            "{{.Config.Healthcheck.Test}} {{.HostConfig.Runtime}} {{.HostConfig.Init}}",
            "[NONE] runc true".to_owned(),
        ),
        (
            "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.ShmSize}} {{.Config.WorkingDir}}",
            "true 1048576 /tmp".to_owned(),
        ),
        (
            "{{.HostConfig.Sysctls}} {{json .HostConfig.Ulimits}}",
            "map[net.core.somaxconn:1000] [{\"Name\":\"nofile\",\"Hard\":200,\"Soft\":100}]".to_owned(),
        ),
        (
            "{{.HostConfig.ExtraHosts}} {{.HostConfig.GroupAdd}} {{.HostConfig.SecurityOpt}}",
            "[somewhere:10.0.0.1] [5] [no-new-privileges]".to_owned(),
        ),
        (
            "{{.HostConfig.LogConfig.Type}} {{.HostConfig.LogConfig.Config}}",
            "local map[max-size:1m]".to_owned(),
        ),
        (
            "{{(index .HostConfig.Devices 0).PathInContainer}} {{(index .HostConfig.Devices 0).CgroupPermissions}}",
            "/dev/nothing rwm".to_owned(),
        ),
        (
            "{{index .HostConfig.Binds 3}} {{index .HostConfig.Binds 4}} {{index .HostConfig.Binds 5}}",
            format!("{task}/local/v:/v:ro /etc:/host-etc:ro {volume}:/named"),
        ),
        (
            "{{(index .HostConfig.Mounts 0).TmpfsOptions.SizeBytes}} {{(index .HostConfig.Mounts 1).BindOptions.Propagation}}",
            "4096 rprivate".to_owned(),
        ),
        (
            "{{(index .HostConfig.Mounts 1).Source}} {{(index .HostConfig.Mounts 2).VolumeOptions.Labels}}",
            format!("{task}/local map[a:b]"),
        ),
        (
            "{{index .Config.Labels \"com.hashicorp.nomad.job_name\"}}/{{index .Config.Labels \"com.hashicorp.nomad.job_id\"}}/{{index .Config.Labels \"com.hashicorp.nomad.namespace\"}}/",
            "a name/job//".to_owned(),
        ),
        ("{{index .Config.Labels \"com.hashicorp.nomad.node_id\"}}", bench.config.node_id.clone()),
    ] {
        assert_eq!(inspect(&bench, format), expected, "{format}");
    }
    let aliases =
        inspect(&bench, &format!("{{{{(index .NetworkSettings.Networks \"{network}\").Aliases}}}}"));
    assert!(aliases.contains("db") && aliases.contains("store"), "{aliases}");
    bench.driver.stop(&handle, "SIGKILL", Duration::from_secs(30)).await.unwrap();
    bench.finish().await;
    for args in [["network", "rm", &network], ["volume", "rm", &volume]] {
        assert!(Command::new("docker").args(args).output().unwrap().status.success());
    }
}

#[tokio::test]
async fn people_can_run_commands_in_a_container() {
    let mut bench = Bench::new("docker", shell("echo ready; while :; do sleep 0.1; done"));
    let handle = bench.start().await;
    bench.wait_for_log("stdout", "ready").await;
    check_sessions(&bench, &handle).await;
    check_abandoned(&bench, &handle, "1000.73").await;
    bench.driver.stop(&handle, "SIGKILL", Duration::from_secs(30)).await.unwrap();
    bench.finish().await;
}

/// Waits until Docker shows the container's processors so.
async fn wait_for_cores(bench: &Bench, wanted: &[&str]) {
    let limit = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let seen = inspect(bench, "{{.HostConfig.CpusetCpus}}");
        if wanted.contains(&seen.as_str()) {
            return;
        }
        assert!(tokio::time::Instant::now() < limit, "{seen:?} instead of {wanted:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn containers_leave_the_cores_that_others_have_to_themselves() {
    let sleeper = shell("exec sleep 1000");
    let mut shared = Bench::new("docker", sleeper.clone());
    let parent = format!("herder-test-{}", shared.config.id.alloc);
    let of_agent = || all(&DriverOptions { cgroup_parent: parent.clone(), ..options() });
    let drivers = of_agent();
    shared.driver = drivers["docker"].clone();
    let handle = shared.start().await;
    assert_eq!(inspect(&shared, "{{.HostConfig.CpusetCpus}}"), "");

    let mut owner = Bench::new("docker", sleeper);
    owner.driver = drivers["docker"].clone();
    owner.config.grant.cpu.reserved_cores = vec![1];
    let owned = owner.start().await;
    assert_eq!(inspect(&owner, "{{.HostConfig.CpusetCpus}}"), "1");
    wait_for_cores(&shared, &["0"]).await;
    // Tasks of other drivers leave them, too, and so does a container that starts only now.
    let mut process = Bench::new(
        "exec",
        json!({"command": "/bin/grep", "args": ["Cpus_allowed_list", "/proc/self/status"]}),
    );
    process.driver = drivers["exec"].clone();
    assert_eq!(process.run().await.code, 0);
    assert_eq!(process.log("stdout"), "Cpus_allowed_list:\t0\n");
    process.finish().await;
    let mut late = Bench::new("docker", shell("cat /sys/fs/cgroup/cpuset/cpuset.cpus; exec sleep 1000"));
    late.driver = drivers["docker"].clone();
    late.start().await;
    assert_eq!(inspect(&late, "{{.HostConfig.CpusetCpus}}"), "0");
    late.finish().await;

    // The next agent goes on with that.
    let next = of_agent();
    for (bench, handle) in [(&mut shared, &handle), (&mut owner, &owned)] {
        bench.driver = next["docker"].clone();
        bench.driver.recover(handle).await.unwrap();
    }
    owner.finish().await;
    wait_for_cores(&shared, &["0-1", "0,1"]).await;
    drop(drivers);
    shared.finish().await;
}
