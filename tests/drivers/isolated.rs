//! `exec` and `java`: what a task can see, do and use.

use std::fs;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::support::Bench;
use crate::support::check_abandoned;
use crate::support::check_sessions;
use crate::support::hear_all;

fn shell(script: &str) -> Value {
    json!({"command": "/bin/sh", "args": ["-c", script]})
}

#[tokio::test]
async fn a_task_is_nobody_with_a_root_and_processes_of_its_own() {
    let script = "echo pid $$; id -u; ls /; ls /proc | grep -c '^[0-9]'; cat /secrets/key; \
        echo data > /alloc/out; echo x > /local/y; echo z > /tmp/z; grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status; \
        ls -A /private; cat /etc/hostname > /dev/null && echo etc; test -e /etc/alternatives/java && echo alternatives; \
        echo random > /dev/null && ls -d /dev/shm";
    let mut bench = Bench::new("exec", shell(script));
    fs::write(bench.config.dirs.secrets.join("key"), "s3cret\n").unwrap();
    let status = bench.run().await;
    let (out, err) = (bench.log("stdout"), bench.log("stderr"));
    assert_eq!(status.code, 0, "{out}\n{err}");
    assert!(out.starts_with("pid 1\n65534\n"), "{out}");
    assert!(out.contains("s3cret\n"), "{out}");
    assert!(out.contains("CapEff:\t0000000000000400"), "{out}");
    assert!(out.contains("CapBnd:\t00000000a80405fb"), "{out}");
    assert!(out.contains("NoNewPrivs:\t1"), "{out}");
    assert!(out.contains("etc\nalternatives\n/dev/shm\n"), "{out}");
    assert!(!out.contains("home") && !out.contains("root\n"), "the host's root is visible: {out}");
    assert!(err.contains("/private"), "private files must not be readable: {err}");
    assert_eq!(fs::read_to_string(bench.config.dirs.shared.join("out")).unwrap(), "data\n");
    assert_eq!(fs::read_to_string(bench.config.dirs.local.join("y")).unwrap(), "x\n");
    bench.finish().await;
}

#[tokio::test]
async fn a_task_cannot_write_to_the_host_even_as_root() {
    let script = "for dir in /usr /etc /bin /usr/lib /sys /proc/sys/kernel /dev; do touch $dir/herder-was-here && echo wrote $dir; done; \
        mknod /tmp/disk b 254 0; head -c 1 /tmp/disk && echo read disk; mount -t tmpfs none /mnt && echo mounted; exit 0";
    let mut bench = Bench::new("exec", shell(script));
    bench.config.user = "root".to_owned();
    let status = bench.run().await;
    assert_eq!(status.code, 0);
    assert_eq!(bench.log("stdout"), "", "{}", bench.log("stderr"));
    assert!(!fs::exists("/usr/herder-was-here").unwrap());
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
async fn missing_programs_are_named() {
    let mut bench = Bench::new("exec", json!({"command": "no-such-program"}));
    let error = bench.try_start().await.unwrap_err();
    assert_eq!(error.to_string(), "file no-such-program not found under path ");
    bench.set_config(json!({"command": "/opt/x/y"}));
    let error = bench.try_start().await.unwrap_err();
    assert_eq!(error.to_string(), "file /opt/x/y not found under path /opt/x");
    bench.finish().await;
}

#[tokio::test]
async fn options_are_checked() {
    let bench = Bench::new("exec", json!({}));
    let config = json!({"args": 1, "pid_mode": "shared", "cap_add": ["sys_admin"], "colour": "red"});
    let problems = bench.driver.validate(config.as_object().unwrap());
    assert_eq!(
        problems,
        [
            "missing required option \"command\"",
            "option \"args\" must be a list of strings",
            "unsupported option \"colour\"",
            "pid_mode must be \"private\" or \"host\", got \"shared\"",
            "driver does not allow the following capabilities: sys_admin",
        ]
    );
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
