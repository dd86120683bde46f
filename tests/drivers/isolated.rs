//! `exec` and `java`: what a task can see, do and use.

use std::fs;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use herder::drivers::DriverError;
use herder::drivers::Mount;
use herder::drivers::Propagation;
use herder::drivers::users::Denied;
use serde_json::Value;
use serde_json::json;

use crate::support::Bench;
use crate::support::check_abandoned;
use crate::support::check_sessions;
use crate::support::hear_all;
use crate::support::options;

fn shell(script: &str) -> Value {
    json!({"command": "/bin/sh", "args": ["-c", script]})
}

#[tokio::test]
async fn a_task_is_nobody_with_a_root_and_processes_of_its_own() {
    let script = "echo pid $$; id -u; ls /; ls /proc | grep -c '^[0-9]'; cat /secrets/key; \
        echo data > /alloc/out; echo x > /local/y; echo z > /tmp/z; grep -E 'Cap|NoNewPrivs' /proc/self/status; \
        ls -A /private; cat /etc/hostname > /dev/null && echo etc; test -e /etc/alternatives/java && echo alternatives; \
        echo random > /dev/null && ls -d /dev/shm";
    let mut bench = Bench::new("exec", shell(script));
    fs::write(bench.config.dirs.secrets.join("key"), "s3cret\n").unwrap();
    fs::write(bench.config.dirs.private.join("hidden"), "").unwrap();
    let status = bench.run().await;
    let (out, err) = (bench.log("stdout"), bench.log("stderr"));
    assert_eq!(status.code, 0, "{out}\n{err}");
    assert!(out.starts_with("pid 1\n65534\n"), "{out}");
    assert!(out.contains("s3cret\n"), "{out}");
    for set in ["Inh", "Prm", "Eff", "Bnd", "Amb"] {
        assert!(out.contains(&format!("Cap{set}:\t00000000a80405fb")), "{set}: {out}");
    }
    assert!(out.contains("NoNewPrivs:\t1"), "{out}");
    assert!(out.contains("etc\nalternatives\n/dev/shm\n"), "{out}");
    assert!(!out.contains("home") && !out.contains("root\n"), "the host's root is visible: {out}");
    assert!(!out.contains("hidden"), "private files must not be seen: {out}");
    assert_eq!(fs::read_to_string(bench.config.dirs.shared.join("out")).unwrap(), "data\n");
    assert_eq!(fs::read_to_string(bench.config.dirs.local.join("y")).unwrap(), "x\n");
    bench.finish().await;
}

#[tokio::test]
async fn a_task_cannot_write_to_the_host_even_as_root() {
    let script = "for dir in /usr /etc /bin /usr/lib /sys /proc/sys/kernel /dev; do touch $dir/herder-was-here && echo wrote $dir; done; \
        for dir in /tmp /alloc /local /secrets /dev/shm; do mknod $dir/disk b 254 0; head -c 1 $dir/disk && echo read disk in $dir; done; \
        chmod 777 /usr/bin/env && echo chmod; ln /etc/passwd /local/passwd && echo x >> /local/passwd && echo linked; \
        ln -s /proc/1/root /local/out; touch /local/out/usr/herder-was-here && echo wrote through proc; \
        echo 1 > /proc/sysrq-trigger && echo sysrq; chroot /proc/1/root touch /etc/herder-was-here && echo chroot; \
        mount -t tmpfs none /mnt && echo mounted; mount -o remount,rw /usr && echo remounted; \
        umount /usr && echo unmounted; exit 0";
    for user in ["root", ""] {
        let mut bench = Bench::new("exec", shell(script));
        bench.config.user = user.to_owned();
        let before = fs::metadata("/usr/bin/env").unwrap().permissions();
        let status = bench.run().await;
        assert_eq!(status.code, 0);
        assert_eq!(bench.log("stdout"), "", "{}", bench.log("stderr"));
        assert!(!fs::exists("/usr/herder-was-here").unwrap());
        assert!(!fs::exists("/etc/herder-was-here").unwrap());
        assert_eq!(fs::metadata("/usr/bin/env").unwrap().permissions(), before);
        bench.finish().await;
    }
}

#[tokio::test]
async fn a_task_cannot_see_another_tasks_secrets() {
    let mut victim = Bench::new("exec", json!({"command": "sleep", "args": ["1000"]}));
    fs::write(victim.config.dirs.secrets.join("key"), "s3cret\n").unwrap();
    victim.config.env.insert("TOKEN".to_owned(), "t0ken".to_owned());
    victim.start().await;
    let dir = victim.config.dirs.secrets.display().to_string();
    let script = format!(
        "cat {dir}/key; cat /local/link/key; cat /../../{dir}/key; \
        for pid in $(ls /proc | grep '^[0-9]*$'); do cat /proc/$pid/environ; cat /proc/$pid/root/secrets/key; done; exit 0"
    );
    for (user, pid_mode) in [("root", "private"), ("", "private"), ("root", "host"), ("", "host")] {
        let mut bench = Bench::new("exec", shell(&script));
        bench.config.config.insert("pid_mode".to_owned(), json!(pid_mode));
        bench.config.user = user.to_owned();
        std::os::unix::fs::symlink(&dir, bench.config.dirs.local.join("link")).unwrap();
        assert_eq!(bench.run().await.code, 0);
        let out = bench.log("stdout");
        assert!(!out.contains("s3cret") && !out.contains("t0ken"), "{out}");
        bench.finish().await;
    }
    victim.finish().await;
}

#[tokio::test]
async fn a_task_among_the_hosts_processes_cannot_end_them() {
    let mut victim = Bench::new("exec", json!({"command": "sleep", "args": ["1000"]}));
    victim.config.user = "root".to_owned();
    let handle = victim.start().await;
    let pid = victim.driver.stats(&handle).await.unwrap().pids[0];
    let script = format!("test -d /proc/{pid} && echo seen; kill -9 {pid} && echo killed; exit 0");
    let mut bench = Bench::new("exec", shell(&script));
    bench.config.config.insert("pid_mode".to_owned(), json!("host"));
    assert_eq!(bench.run().await.code, 0);
    assert_eq!(bench.log("stdout"), "seen\n");
    victim.driver.stats(&handle).await.unwrap();
    bench.finish().await;
    victim.finish().await;
}

#[tokio::test]
async fn links_in_command_and_work_dir_stay_inside() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("tool"), "#!/bin/sh\necho outside\n").unwrap();
    let mut bench = Bench::new("exec", json!({"command": "tool", "work_dir": "/local/place/"}));
    let local = bench.config.dirs.local.clone();
    std::os::unix::fs::symlink(outside.path().join("tool"), local.join("tool")).unwrap();
    std::os::unix::fs::symlink(outside.path(), local.join("place")).unwrap();
    let error = bench.try_start().await.unwrap_err().to_string();
    assert!(error.contains("cannot change to directory /local/place"), "{error}");
    bench.set_config(json!({"command": "tool"}));
    let error = bench.try_start().await.unwrap_err().to_string();
    assert!(error.ends_with("file tool not found under path "), "{error}");
    bench.finish().await;
}

#[tokio::test]
async fn only_a_tasks_own_file_is_made_executable() {
    let outside = tempfile::tempdir().unwrap();
    for (driver, command) in [("raw_exec", "a-link"), ("raw_exec", "local/hard"), ("exec", "a-link")] {
        let secret = outside.path().join("secret");
        fs::write(&secret, "top").unwrap();
        let closed = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&secret, closed).unwrap();
        let mut bench = Bench::new(driver, json!({"command": command}));
        let local = bench.config.dirs.local.clone();
        std::os::unix::fs::symlink(&secret, local.join("a-link")).unwrap();
        fs::hard_link(&secret, local.join("hard")).unwrap();
        bench.try_start().await.unwrap_err();
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&secret).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "{driver} {command}");
        bench.finish().await;
    }
    let mut bench = Bench::new("exec", json!({"command": "tool"}));
    fs::write(bench.config.dirs.local.join("tool"), "#!/bin/sh\necho ran\n").unwrap();
    assert_eq!(bench.run().await.code, 0);
    assert_eq!(bench.log("stdout"), "ran\n");
    bench.finish().await;
}

#[tokio::test]
async fn a_fork_bomb_ends_at_its_limit() {
    let mut options = options();
    options.exec.pids_limit = Some(30);
    options.raw_exec_pids_limit = Some(30);
    for driver in ["exec", "raw_exec"] {
        let config = |script: &str| json!({"command": "/bin/sh", "args": ["-c", script]});
        let count = "i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done; echo all started";
        let mut bench = Bench::with(&options, driver, config(count));
        assert_eq!(bench.run().await.code, 2);
        assert_eq!((bench.log("stdout"), bench.log("stderr").contains("Cannot fork")), (String::new(), true));
        // The real thing: its processes come and go, but the task can be watched and ended, and nothing is left.
        bench.config.id.run = 1;
        bench.set_config(config("bomb() { bomb | bomb & }; echo begun; bomb; while :; do :; done"));
        let handle = bench.start().await;
        bench.wait_for_log("stdout", "begun").await;
        for _ in 0..50 {
            assert!(bench.driver.stats(&handle).await.unwrap().pids.len() <= 30);
        }
        bench.driver.stop(&handle, "SIGKILL", Duration::from_secs(10)).await.unwrap();
        assert_eq!(bench.wait(&handle).await.signal, 9);
        bench.finish().await;
    }
}

#[tokio::test]
async fn cores_of_its_own_belong_to_the_task_alone() {
    let mut bench = Bench::new("exec", shell("grep Cpus_allowed_list /proc/self/status; sleep 1000"));
    bench.config.grant.cpu.reserved_cores = vec![1];
    bench.start().await;
    bench.wait_for_log("stdout", "Cpus_allowed_list:\t1\n").await;
    // Another task of the same agent has to do with the rest.
    let mut shared = Bench::new("exec", shell("grep Cpus_allowed_list /proc/self/status"));
    shared.driver = bench.driver.clone();
    assert_eq!(shared.run().await.code, 0);
    assert_eq!(shared.log("stdout"), "Cpus_allowed_list:\t0\n");
    shared.finish().await;
    bench.finish().await;
}

#[tokio::test]
async fn a_user_on_the_denylist_is_refused() {
    let mut options = options();
    options.exec.denied = Denied::parse("0", "").unwrap();
    options.raw_exec_denied = Denied::parse("65534", "").unwrap();
    for (driver, user, uid) in [("exec", "root", 0), ("raw_exec", "nobody", 65534)] {
        let mut bench = Bench::with(&options, driver, shell("true"));
        bench.config.user = user.to_owned();
        let error = bench.try_start().await.unwrap_err();
        let text = format!("failed driver config validation: running as uid {uid} is disallowed");
        assert_eq!(error, DriverError::Fatal(text));
        bench.finish().await;
    }
}

#[tokio::test]
async fn modes_and_roots_follow_the_configuration() {
    let mut options = options();
    options.exec.default_pid_mode = "host".to_owned();
    options.exec.no_pivot_root = true;
    options.exec.allowed_capabilities = vec!["net_raw".to_owned(), "chown".to_owned()];
    options.chroot = ["/bin", "/lib", "/lib64", "/usr"].map(|path| (path.into(), path.into())).into();
    options.chroot.insert("/etc/passwd".into(), "/opt/users".into());
    let script = "echo pid $$; grep CapEff /proc/self/status; ls /etc; grep -c root: /opt/users; ls /";
    let mut bench = Bench::with(&options, "exec", shell(script));
    bench.set_config(json!({"command": "/bin/sh", "args": ["-c", script], "cap_add": ["NET_RAW"]}));
    bench.run().await;
    let (out, err) = (bench.log("stdout"), bench.log("stderr"));
    assert!(!out.starts_with("pid 1\n"), "{out}");
    assert!(out.contains("CapEff:\t0000000000002001\n1\n"), "{out} {err}");
    assert!(err.contains("/etc"), "only what was mapped is there: {err}");
    assert!(!out.contains("home\n"), "{out}");
    bench.set_config(json!({"command": "/bin/sh", "args": ["-c", "echo pid $$"], "pid_mode": "private", "cap_drop": ["all"]}));
    bench.config.id.run = 1;
    bench.run().await;
    assert!(bench.log("stdout").ends_with("pid 1\n"));
    bench.finish().await;
}

#[tokio::test]
async fn no_mount_is_visible_on_the_host() {
    let mut bench = Bench::new("exec", json!({"command": "sleep", "args": ["1000"]}));
    let handle = bench.start().await;
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&bench.dir.path().display().to_string()));
    // So even a careless removal while the task runs cannot reach the host's files.
    fs::remove_dir_all(bench.dir.path()).unwrap();
    assert!(fs::exists("/usr/bin/env").unwrap());
    bench.driver.stop(&handle, "", Duration::from_secs(1)).await.unwrap();
    bench.finish().await;
}

#[tokio::test]
async fn a_link_left_by_an_earlier_run_does_not_lead_out() {
    let mut bench = Bench::new("exec", shell("echo fine"));
    let outside = tempfile::tempdir().unwrap();
    for name in ["run", "tmp", "dev", "lib32"] {
        std::os::unix::fs::symlink(outside.path(), bench.config.dirs.task.join(name)).unwrap();
    }
    // Starting may fail, but nothing may be made outside.
    if let Ok((handle, _)) = bench.try_start().await {
        bench.wait(&handle).await;
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    bench.finish().await;
}

#[tokio::test]
async fn a_link_in_the_place_of_the_logs_does_not_lead_them_out() {
    let outside = tempfile::tempdir().unwrap();
    fs::set_permissions(outside.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let script = format!(
        "mv /alloc/logs /alloc/moved && ln -s {} /alloc/logs; head -c 3000000 /dev/zero | tr '\\0' x | fold -w 100",
        outside.path().display()
    );
    let mut bench = Bench::new("exec", shell(&script));
    (bench.config.logs.max_files, bench.config.logs.max_file_size_mb) = (2, 1);
    assert_eq!(bench.run().await.code, 0);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    let moved = bench.config.dirs.shared.join("moved");
    assert!(
        moved.join("web.stdout.2").exists() && !moved.join("web.stdout.0").exists(),
        "they went on there"
    );
    fs::remove_file(&bench.config.dirs.logs).unwrap();
    bench.finish().await;
}

#[tokio::test]
async fn a_first_process_that_does_not_handle_the_signal_is_not_waited_for() {
    let mut bench = Bench::new("exec", json!({"command": "sleep", "args": ["1000"]}));
    let handle = bench.start().await;
    let begun = Instant::now();
    bench.driver.stop(&handle, "", Duration::from_secs(30)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(bench.wait(&handle).await.code, 137);
    bench.finish().await;
}

#[tokio::test]
async fn memory_is_limited_and_running_out_of_it_is_reported() {
    let mut bench = Bench::new("exec", shell("ulimit -v 400000; exec tail /dev/zero"));
    bench.config.grant.memory.memory_mb = 16;
    let status = bench.run().await;
    assert_eq!((status.code, status.oom_killed), (137, true));
    bench.finish().await;
}

#[tokio::test]
async fn commands_run_with_the_tasks_view_and_rights() {
    let mut bench = Bench::new("exec", json!({"command": "sleep", "args": ["1000"]}));
    let handle = bench.start().await;
    let script = "id -u; ls /proc | grep -c '^[0-9]*$'; echo $GREETING; cat /proc/1/comm; grep CapBnd /proc/self/status";
    let command = ["/bin/sh", "-c", script].map(str::to_owned);
    let (code, output) = bench.driver.exec(&handle, &command, Duration::from_secs(30)).await.unwrap();
    let output = String::from_utf8(output).unwrap();
    assert_eq!(code, 0, "{output}");
    assert!(output.starts_with("65534\n"), "{output}");
    assert!(output.contains("hello\nsleep\nCapBnd:\t00000000a80405fb\n"), "{output}");
    bench.finish().await;
}

#[tokio::test]
async fn a_volume_that_is_gone_is_named() {
    let mut bench = Bench::new("exec", shell("ls /data"));
    let from = bench.dir.path().join("volume");
    bench.config.mounts.push(Mount {
        from: from.clone(),
        to: "/data".into(),
        read_only: false,
        propagation: Propagation::Private,
        selinux_label: String::new(),
    });
    let error = bench.try_start().await.unwrap_err().to_string();
    assert!(error.contains(&format!("open {}: No such file or directory", from.display())), "{error}");
    bench.finish().await;
}

#[tokio::test]
async fn missing_programs_are_named() {
    let mut bench = Bench::new("exec", json!({"command": "no-such-program"}));
    let error = bench.try_start().await.unwrap_err();
    let launch = "failed to launch command with executor: rpc error: code = Unknown desc = ";
    assert_eq!(error.to_string(), format!("{launch}file no-such-program not found under path "));
    bench.set_config(json!({"command": "/opt/x/y"}));
    let error = bench.try_start().await.unwrap_err();
    let task = bench.config.dirs.task.display().to_string();
    assert_eq!(error.to_string(), format!("{launch}file /opt/x/y not found under path {task}"));
    bench.finish().await;
}

#[tokio::test]
async fn options_are_checked() {
    let mut bench = Bench::new("exec", json!({}));
    let config = json!({"args": 1, "pid_mode": "shared", "colour": "red"});
    let problems = bench.driver.validate(config.as_object().unwrap());
    assert_eq!(
        problems,
        [
            "Missing required argument: The argument \"command\" is required, but no definition was found.",
            "Incorrect attribute value type: Inappropriate value for attribute \"args\": list of string required.",
            "Invalid label: No argument or block type is named \"colour\".",
        ]
    );
    for (config, text) in [
        (json!({"pid_mode": "shared"}), "pid_mode must be \"private\" or \"host\", got \"shared\""),
        (json!({"work_dir": "tmp"}), "work_dir must be absolute but got relative path \"tmp\""),
        (json!({"cap_add": ["sys_admin"]}), "driver does not allow the following capabilities: sys_admin"),
        (json!({"cap_add": ["fly"]}), "cap_add configured with capabilities not supported by system: fly"),
    ] {
        bench.set_config(config);
        bench.config.config.insert("command".to_owned(), json!("x"));
        let error = bench.try_start().await.unwrap_err();
        assert_eq!(error, DriverError::BadConfig(format!("failed driver config validation: {text}")));
    }
    bench.finish().await;
    let mut bench = Bench::new("java", json!({"args": ["x"]}));
    let error = bench.try_start().await.unwrap_err();
    assert_eq!(error, DriverError::BadConfig("jar_path or class must be specified".to_owned()));
    bench.finish().await;
}

#[tokio::test]
async fn a_jar_runs_under_the_java_that_was_found() {
    let config = json!({"jar_path": "local/hello.jar", "jvm_options": ["-Xmx64m", "-Xshare:auto"], "args": ["herder"]});
    let mut bench = Bench::new("java", config);
    let local = &bench.config.dirs.local;
    let source = "public class Hello { public static void main(String[] a) { \
        System.out.println(\"hello \" + a[0] + \" \" + System.getenv(\"GREETING\")); System.exit(4); } }";
    fs::write(local.join("Hello.java"), source).unwrap();
    fs::write(local.join("manifest"), "Main-Class: Hello\n").unwrap();
    for command in [&["javac", "Hello.java"][..], &["jar", "cfm", "hello.jar", "manifest", "Hello.class"]] {
        assert!(Command::new(command[0]).args(&command[1..]).current_dir(local).status().unwrap().success());
    }
    let info = bench.driver.fingerprint().await;
    assert!(info.detected && info.healthy, "{info:?}");
    assert!(info.attributes["driver.java.version"].starts_with(|sign: char| sign.is_ascii_digit()));
    bench.config.grant.memory.memory_mb = 256;
    let status = bench.run().await;
    assert_eq!(bench.log("stdout"), "hello herder hello\n", "{}", bench.log("stderr"));
    assert_eq!(status.code, 4);
    bench.finish().await;
}

#[test]
fn mounts_below_a_directory_are_detached_before_it_is_removed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), "").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let point = dir.path().join("a b");
    fs::create_dir(&point).unwrap();
    let flags = nix::mount::MsFlags::MS_BIND;
    for _ in 0..2 {
        nix::mount::mount(Some(outside.path()), &point, None::<&str>, flags, None::<&str>).unwrap();
    }
    herder::drivers::unmount_all_below(dir.path()).unwrap();
    assert!(!point.join("precious").exists());
    assert!(outside.path().join("precious").exists());
    herder::drivers::unmount_all_below(&dir.path().join("missing")).unwrap();
}

#[tokio::test]
async fn people_can_run_commands_inside_of_the_root() {
    let mut bench = Bench::new("exec", json!({"command": "sleep", "args": ["1000"]}));
    let handle = bench.start().await;
    check_sessions(&bench, &handle).await;
    check_abandoned(&bench, &handle, "1000.72").await;
    let script = "id -u; ls -d /secrets; ls /home; grep -h CapBnd /proc/self/status; echo $PPID; tty";
    let mut session = bench.session(&handle, &["/bin/sh", "-c", script], true).await;
    let (out, _, code) = hear_all(&mut session).await;
    assert_eq!(code, Some(0), "{out}");
    assert!(out.starts_with("65534\r\n/secrets\r\n"), "{out}");
    assert!(out.contains("CapBnd:\t00000000a80405fb"), "{out}");
    // A terminal of the task's own, not one of the host.
    assert!(out.contains("\r\n0\r\n/dev/pts/"), "{out}");
    let stats = bench.driver.stats(&handle).await.unwrap();
    assert!(stats.usage_bytes.is_some_and(|usage| usage > 0) && stats.cache_bytes.is_some(), "{stats:?}");
    bench.finish().await;
}
