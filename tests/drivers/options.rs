//! Options of drivers, one by one, as far as no other test looks at them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use herder::drivers::DriverError;
use herder::drivers::Mount;
use herder::drivers::Propagation;
use herder::drivers::cgroup::Hierarchy;
use herder::drivers::users::Denied;
use serde_json::Value;
use serde_json::json;

use crate::docker::image;
use crate::support::Bench;
use crate::support::options;

/// A shell's options with more beside them.
fn shell(script: &str, more: Value) -> Value {
    let mut config = json!({"command": "/bin/sh", "args": ["-c", script]});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

#[tokio::test]
async fn exec_goes_to_its_work_dir_and_shares_ipc_only_when_told() {
    let hosts = fs::read_link("/proc/self/ns/ipc").unwrap().display().to_string();
    let mut shared = options();
    shared.exec.default_ipc_mode = "host".to_owned();
    for (options, more, place, is_hosts) in [
        (options(), json!({"work_dir": "/local"}), "/local", false),
        (options(), json!({"ipc_mode": "host"}), "/", true),
        (shared.clone(), json!({}), "/", true),
        (shared, json!({"ipc_mode": "private"}), "/", false),
    ] {
        let mut bench = Bench::with(&options, "exec", shell("pwd; readlink /proc/self/ns/ipc", more));
        assert_eq!(bench.run().await.code, 0, "{}", bench.log("stderr"));
        let log = bench.log("stdout");
        let (at, ipc) = log.trim().split_once('\n').unwrap();
        assert_eq!((at, ipc == hosts), (place, is_hosts), "{log}");
        bench.finish().await;
    }
}

#[tokio::test]
async fn exec_finds_commands_in_volumes_and_refuses_denied_groups() {
    let volume = tempfile::tempdir().unwrap();
    let open = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(volume.path(), open(0o755)).unwrap();
    fs::write(volume.path().join("tool"), "#!/bin/sh\necho of the volume\n").unwrap();
    fs::set_permissions(volume.path().join("tool"), open(0o755)).unwrap();
    let mut bench = Bench::new("exec", json!({"command": "tool"}));
    bench.config.mounts = vec![Mount {
        from: volume.path().to_owned(),
        to: PathBuf::from("/srv/tools"),
        read_only: true,
        propagation: Propagation::Private,
        selinux_label: String::new(),
    }];
    assert_eq!(bench.run().await.code, 0, "{}", bench.log("stderr"));
    assert_eq!(bench.log("stdout"), "of the volume\n");
    bench.finish().await;

    let mut options = options();
    let denied = Denied::parse("", "65534").unwrap();
    (options.exec.denied, options.java.denied, options.raw_exec_denied) =
        (denied.clone(), denied.clone(), denied);
    for (driver, config) in [
        ("exec", json!({"command": "true"})),
        ("java", json!({"class": "X"})),
        ("raw_exec", json!({"command": "true"})),
    ] {
        let mut bench = Bench::with(&options, driver, config);
        bench.config.user = "nobody".to_owned();
        let error = bench.try_start().await.unwrap_err().to_string();
        assert_eq!(error, "failed driver config validation: running as gid 65534 is disallowed");
        bench.finish().await;
    }
}

#[tokio::test]
async fn java_runs_a_class_of_its_class_path_with_the_rights_it_is_given() {
    let config = |more: Value| {
        let mut config = json!({"class": "Look", "class_path": "/local:/alloc", "jvm_options": ["-Dmark=set", "-Xmx64m"],
            "args": ["one", "two"], "work_dir": "/alloc"});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    };
    let mut bench = Bench::new("java", config(json!({})));
    let source = "public class Look { public static void main(String[] a) throws Exception { \
        System.out.println(String.join(\" \", a[0], a[1], System.getProperty(\"mark\"), System.getProperty(\"user.dir\"), \
        System.getProperty(\"user.name\"), ProcessHandle.current().pid() == 1 ? \"first\" : \"later\")); \
        for (String line : java.nio.file.Files.readAllLines(java.nio.file.Path.of(\"/proc/self/status\"))) \
        if (line.startsWith(\"CapEff\")) System.out.println(line); } }";
    let local = bench.config.dirs.local.clone();
    fs::write(local.join("Look.java"), source).unwrap();
    assert!(Command::new("javac").arg("Look.java").current_dir(&local).status().unwrap().success());
    bench.config.grant.memory.memory_mb = 256;
    let root = || json!({"cap_add": ["chown"], "cap_drop": ["all"]});
    for (run, more, expected) in [
        (0, json!({}), "one two set /alloc nobody first\nCapEff:\t00000000a80405fb\n"),
        (1, json!({"pid_mode": "host"}), "one two set /alloc nobody later\n"),
        (2, root(), "one two set /alloc nobody first\nCapEff:\t0000000000000001\n"),
    ] {
        bench.config.id.run = run;
        bench.set_config(config(more));
        let before = bench.log("stdout").len();
        assert_eq!(bench.run().await.code, 0, "{}", bench.log("stderr"));
        assert!(
            bench.log("stdout")[before..].starts_with(expected),
            "{run}: {}",
            &bench.log("stdout")[before..]
        );
    }
    bench.finish().await;
}

#[tokio::test]
async fn raw_exec_obeys_user_work_dir_and_oom_score() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path().display().to_string();
    let script = "id -u; id -g; pwd; cat /proc/self/oom_score_adj";
    let mut bench = Bench::new("raw_exec", shell(script, json!({"work_dir": "/", "oom_score_adj": 500})));
    bench.config.user = "nobody".to_owned();
    assert_eq!(bench.run().await.code, 0, "{}", bench.log("stderr"));
    assert_eq!(bench.log("stdout"), "65534\n65534\n/\n500\n");
    bench.set_config(shell("pwd", json!({"work_dir": at})));
    (bench.config.id.run, bench.config.user) = (1, String::new());
    assert_eq!(bench.run().await.code, 0);
    assert!(bench.log("stdout").ends_with(&format!("{at}\n")));
    for (more, why) in [
        (json!({"oom_score_adj": -1}), "oom_score_adj must be between 0 and 1000, got -1"),
        (json!({"work_dir": "here"}), "work_dir must be absolute but got relative path \"here\""),
    ] {
        bench.set_config(shell("true", more));
        let error = bench.try_start().await.unwrap_err().to_string();
        assert_eq!(error, format!("failed driver config validation: {why}"));
    }
    bench.finish().await;
    let mut off = options();
    off.raw_exec = false;
    let mut bench = Bench::with(&off, "raw_exec", shell("true", json!({})));
    assert_eq!(bench.driver.fingerprint().await.health_description, "disabled");
    assert_eq!(bench.try_start().await.unwrap_err(), DriverError::Fatal("raw_exec is disabled".to_owned()));
    bench.finish().await;
}

/// Control groups of somebody else, gone when the test ends.
struct Groups(Vec<PathBuf>);

impl Drop for Groups {
    fn drop(&mut self) {
        self.0.iter().for_each(|dir| drop(fs::remove_dir(dir)));
    }
}

#[tokio::test]
async fn raw_exec_joins_the_control_groups_that_the_job_names_or_none() {
    let name = format!("herder-test-other-{}", uuid::Uuid::new_v4());
    let (mounts, option): (BTreeMap<String, PathBuf>, _) = match Hierarchy::of_this_machine() {
        Hierarchy::V1(mounts) => {
            (mounts.clone(), json!({"cgroup_v1_override": [{"freezer": &name}, {"cpu": &name}]}))
        }
        Hierarchy::V2(root) => ([(String::new(), root.clone())].into(), json!({"cgroup_v2_override": &name})),
        Hierarchy::None => return,
    };
    let wanted = |controller: &&String| ["", "freezer", "cpu"].contains(&controller.as_str());
    let mut bench = Bench::new("raw_exec", shell("cat /proc/self/cgroup; sleep 1000", option));
    let error = bench.try_start().await.unwrap_err().to_string();
    assert!(error.contains(&name), "a group that is not there is named: {error}");
    let groups =
        Groups(mounts.keys().filter(wanted).map(|controller| mounts[controller].join(&name)).collect());
    groups.0.iter().for_each(|dir| fs::create_dir(dir).unwrap());
    bench.config.id.run = 1;
    let handle = bench.start().await;
    bench.wait_for_log("stdout", "::").await;
    let log = bench.log("stdout");
    assert_eq!(log.matches(&format!(":/{name}\n")).count(), groups.0.len(), "{log}");
    bench.driver.stop(&handle, "SIGKILL", Duration::from_secs(10)).await.unwrap();
    bench.wait(&handle).await;
    bench.finish().await;
    drop(groups);

    let mut options = options();
    options.raw_exec_no_cgroups = true;
    let script = "cat /proc/self/cgroup; echo ready; sleep 1000 & wait";
    let mut bench = Bench::with(&options, "raw_exec", shell(script, json!({})));
    let handle = bench.start().await;
    bench.wait_for_log("stdout", "ready").await;
    let log = bench.log("stdout");
    assert!(!log.contains(&bench.config.id.alloc.to_string()), "{log}");
    assert_eq!(bench.driver.stats(&handle).await.unwrap().pids.len(), 2);
    bench.driver.stop(&handle, "SIGKILL", Duration::from_secs(10)).await.unwrap();
    bench.wait(&handle).await;
    bench.set_config(shell("true", json!({"cgroup_v2_override": "x"})));
    bench.config.id.run = 1;
    let error = bench.try_start().await.unwrap_err().to_string();
    assert!(error.starts_with("this agent uses no control groups for raw_exec"), "{error}");
    bench.finish().await;
}

#[tokio::test]
async fn the_mock_driver_blocks_errs_and_lingers_as_told() {
    let config = json!({"run_for": "60s", "start_block_for": "150ms", "signal_error": "deaf", "kill_after": "300ms",
        "exec_command": [{"exit_signal": 9, "run_for": "10ms"}]});
    let mut bench = Bench::new("mock_driver", config);
    let begun = Instant::now();
    let handle = bench.start().await;
    assert!(begun.elapsed() >= Duration::from_millis(150));
    assert_eq!(bench.driver.signal(&handle, "SIGHUP").await.unwrap_err().to_string(), "deaf");
    let ran = bench.driver.exec(&handle, &["x".to_owned()], Duration::from_secs(5)).await.unwrap();
    assert_eq!(ran, (137, Vec::new()));
    let begun = Instant::now();
    bench.driver.stop(&handle, "", Duration::from_secs(30)).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(bench.wait(&handle).await.signal, 9);
    bench.set_config(json!({"run_for": "1s", "exec_command": [{"exit_err_msg": "no shell"}]}));
    bench.config.id.run = 1;
    let handle = bench.start().await;
    let error = bench.driver.exec(&handle, &["x".to_owned()], Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.to_string(), "no shell");
    bench.finish().await;
}

fn inspect(bench: &Bench, format: &str) -> String {
    let name = format!("web-{}", bench.config.id.alloc);
    let output = Command::new("docker").args(["inspect", "-f", format, &name]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn docker_shows_what_the_other_options_say() {
    let mut options = options();
    options.docker.allow_privileged = true;
    options.docker.allowed_capabilities = vec!["all".to_owned()];
    options.docker.selinux_label = "z".to_owned();
    options.docker.pids_limit = Some(70);
    let config = json!({"image": image(), "entrypoint": ["sh", "-c"], "command": "exec sleep 1000", "tty": true,
        "interactive": true, "dns_servers": ["192.0.2.53"], "dns_search_domains": ["a.example"], "dns_options": ["ndots:2"],
        "mac_address": "02:42:ac:11:00:fe", "ipc_mode": "none", "pid_mode": "host", "uts_mode": "host", "userns_mode": "host",
        "cap_add": ["sys_time"], "cap_drop": ["mknod"], "privileged": false, "oom_score_adj": 77,
        "devices": [{"host_path": "/dev/zero", "cgroup_permissions": "r"}],
        "cpuset_cpus": "0", "isolation": "default", "advertise_ipv6_address": true, "group_add": ["6"]});
    let mut bench = Bench::with(&options, "docker", config);
    bench.config.user = "7".to_owned();
    let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = told.clone();
    let progress = std::sync::Arc::new(move |text: &str| sink.lock().unwrap().push(text.to_owned()));
    let (handle, _) = bench.driver.start(&bench.config, progress).await.unwrap();
    bench.handles.push(handle.clone());
    assert_eq!(*told.lock().unwrap(), ["cpuset_cpus is ignored: cores are given by resources.cores"]);
    for (format, expected) in [
        ("{{.Config.Entrypoint}} {{.Config.Cmd}}", "[sh -c] [exec sleep 1000]"),
        ("{{.Config.Tty}} {{.Config.OpenStdin}} {{.Config.User}}", "true true 7"),
        (
            "{{.HostConfig.Dns}} {{.HostConfig.DnsSearch}} {{.HostConfig.DnsOptions}}",
            "[192.0.2.53] [a.example] [ndots:2]",
        ),
        ("{{.NetworkSettings.MacAddress}}", "02:42:ac:11:00:fe"),
        (
            "{{.HostConfig.IpcMode}} {{.HostConfig.PidMode}} {{.HostConfig.UTSMode}} {{.HostConfig.UsernsMode}}",
            "none host host host",
        ),
        (
            "{{.HostConfig.CapAdd}} {{.HostConfig.CapDrop}} {{.HostConfig.Privileged}}",
            "[sys_time] [mknod net_raw] false",
        ),
        ("{{.HostConfig.OomScoreAdj}} {{.HostConfig.PidsLimit}}", "77 70"),
        (
            "{{(index .HostConfig.Devices 0).PathInContainer}} {{(index .HostConfig.Devices 0).CgroupPermissions}}",
            "/dev/zero r",
        ),
        ("{{.HostConfig.CpusetCpus}}", ""),
    ] {
        assert_eq!(inspect(&bench, format), expected, "{format}");
    }
    assert!(inspect(&bench, "{{.HostConfig.Binds}}").contains(":/local:z "), "the label");
    bench.finish().await;

    let privileged =
        json!({"image": image(), "command": "sleep", "args": ["1000"], "privileged": true, "pids_limit": 71});
    let mut bench = Bench::with(&options, "docker", privileged);
    let error = bench.try_start().await.unwrap_err().to_string();
    assert!(error.ends_with("pids_limit cannot be greater than the agent's limit of 70, got 71"), "{error}");
    bench.config.config.insert("pids_limit".to_owned(), json!(70));
    // Some machines do not have all the rights that they would have to give.
    let plain = ["run", "--rm", "--privileged", image(), "true"];
    let possible = Command::new("docker").args(plain).output().unwrap().status.success();
    match bench.try_start().await {
        Ok(_) => assert_eq!(inspect(&bench, "{{.HostConfig.Privileged}}"), "true"),
        Err(error) => assert!(!possible && error.to_string().contains("apply caps"), "{error}"),
    }
    bench.finish().await;
}

#[tokio::test]
async fn docker_may_keep_containers_and_leave_logs_alone() {
    let mut options = options();
    options.docker.gc.container = false;
    options.docker.disable_log_collection = true;
    options.docker.logging.kind = "local".to_owned();
    options.docker.logging.config = BTreeMap::from([("max-size".to_owned(), "1m".to_owned())]);
    let config = json!({"image": image(), "command": "echo", "args": ["unheard"]});
    let mut bench = Bench::with(&options, "docker", config);
    assert!(bench.run().await.is_success());
    let name = format!("web-{}", bench.config.id.alloc);
    assert_eq!(inspect(&bench, "{{.HostConfig.LogConfig.Type}}"), "local");
    assert_eq!(bench.log("stdout"), "");
    let id = inspect(&bench, "{{.Id}}");
    bench.finish().await;
    let kept = Command::new("docker").args(["inspect", "-f", "{{.State.Running}}", &id]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&kept.stdout).trim(), "false", "it stays, and does not run");
    assert!(Command::new("docker").args(["rm", "-f", &name]).output().unwrap().status.success());

    // A container whose output Docker does not keep runs all the same.
    let config =
        json!({"image": image(), "command": "echo", "args": ["lost"], "logging": [{"type": "none"}]});
    let mut bench = Bench::new("docker", config);
    assert!(bench.run().await.is_success());
    assert_eq!(bench.log("stdout"), "");
    bench.finish().await;
}
