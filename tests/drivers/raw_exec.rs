//! Plain processes.

use std::fs;
use std::time::Duration;
use std::time::Instant;

use herder::drivers::DriverError;
use herder::drivers::ExitStatus;
use herder::drivers::session::ExecRequest;
use serde_json::Value;
use serde_json::json;

use crate::support::Bench;
use crate::support::check_abandoned;
use crate::support::check_sessions;
use crate::support::hear_all;
use crate::support::options;

fn shell(script: &str) -> Value {
    json!({"command": "sh", "args": ["-c", script]})
}

#[tokio::test]
async fn output_environment_and_exit_code_arrive() {
    let mut bench = Bench::new("raw_exec", shell("echo $GREETING; pwd; echo oops >&2; exit 5"));
    let status = bench.run().await;
    assert_eq!(status, ExitStatus { code: 5, ..ExitStatus::default() });
    let task = bench.config.dirs.task.display().to_string();
    assert_eq!(bench.log("stdout"), format!("hello\n{task}\n"));
    assert_eq!(bench.log("stderr"), "oops\n");
    bench.finish().await;
}

#[tokio::test]
async fn a_missing_program_is_a_clear_error() {
    let mut bench = Bench::new("raw_exec", json!({"command": "no-such-program"}));
    let error = bench.try_start().await.unwrap_err();
    assert_eq!(error, DriverError::Fatal("binary \"no-such-program\" could not be found".to_owned()));
    bench.set_config(shell("true"));
    bench.config.user = "no-such-user".to_owned();
    let error = bench.try_start().await.unwrap_err();
    assert!(error.to_string().contains("user: unknown user no-such-user"), "{error}");
    fs::write(bench.config.dirs.local.join("broken"), "\u{7f}ELF nonsense").unwrap();
    bench.config.user = String::new();
    bench.set_config(json!({"command": "broken"}));
    let error = bench.try_start().await.unwrap_err();
    assert!(error.to_string().contains("exec format error"), "{error}");
    bench.finish().await;
}

#[tokio::test]
async fn a_new_agent_finds_the_task_again_and_learns_its_exit_status() {
    let mut bench =
        Bench::new("raw_exec", shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"));
    let handle = bench.start().await;
    bench.wait_for_log("stdout", "ready").await;
    // A second set of drivers with a helper of its own is what a restarted agent has.
    bench.driver = herder::drivers::all(&options()).remove("raw_exec").unwrap();
    bench.driver.recover(&handle).await.unwrap();
    let again = bench.start().await;
    assert_eq!(again, handle, "a start that is repeated must not run the task twice");
    bench.driver.signal(&handle, "SIGTERM").await.unwrap();
    assert_eq!(bench.wait(&handle).await.code, 7);
    // Also after the end.
    bench.driver.recover(&handle).await.unwrap();
    assert_eq!(bench.wait(&handle).await.code, 7);
    bench.driver.remove(&handle).await.unwrap();
    assert_eq!(bench.driver.recover(&handle).await, Err(DriverError::NotFound));
    bench.finish().await;
}

#[tokio::test]
async fn a_task_that_ignores_the_signal_is_killed_with_all_its_children() {
    let script = "trap '' INT; setsid sleep 1000 & sleep 1000 & echo ready; wait; wait";
    let mut bench = Bench::new("raw_exec", shell(script));
    let handle = bench.start().await;
    bench.wait_for_log("stdout", "ready").await;
    let pids = bench.driver.stats(&handle).await.unwrap().pids;
    assert!(pids.len() >= 2, "{pids:?}");
    let begun = Instant::now();
    bench.driver.stop(&handle, "", Duration::from_millis(200)).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(200));
    let status = bench.wait(&handle).await;
    assert_eq!((status.code, status.signal, status.oom_killed), (137, 9, false));
    for pid in pids {
        assert!(!fs::exists(format!("/proc/{pid}")).unwrap(), "process {pid} is left");
    }
    bench.finish().await;
}

#[tokio::test]
async fn stopping_uses_the_kill_signal_of_the_task() {
    let mut bench = Bench::new(
        "raw_exec",
        shell("trap 'echo got it; exit 0' USR1; echo ready; while :; do sleep 0.05; done"),
    );
    bench.config.kill_signal = "SIGUSR1".to_owned();
    let handle = bench.start().await;
    bench.wait_for_log("stdout", "ready").await;
    bench.driver.stop(&handle, "", Duration::from_secs(30)).await.unwrap();
    assert!(bench.wait(&handle).await.is_success());
    assert!(bench.log("stdout").ends_with("got it\n"));
    bench.finish().await;
}

#[tokio::test]
async fn logs_are_rotated_and_the_oldest_removed() {
    let mut bench =
        Bench::new("raw_exec", shell("yes 0123456789012345678901234567890123456789 | head -c 3400000"));
    bench.config.logs.max_files = 2;
    bench.config.logs.max_file_size_mb = 1;
    bench.run().await;
    let mut names: Vec<_> =
        fs::read_dir(&bench.config.dirs.logs).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["web.stderr.0", "web.stdout.2", "web.stdout.3"]);
    let last = fs::read(bench.config.dirs.logs.join("web.stdout.3")).unwrap();
    assert!(last.starts_with(b"0123456789"), "files begin with a line");
    bench.finish().await;
}

#[tokio::test]
async fn signals_that_the_agent_was_started_without_reach_its_tasks() {
    let ignored = nix::sys::signal::Signal::SIGUSR2;
    // SAFETY: no handler is involved, and nobody else in this process uses the signal.
    unsafe { nix::sys::signal::signal(ignored, nix::sys::signal::SigHandler::SigIgn) }.unwrap();
    let mut bench =
        Bench::new("raw_exec", shell("trap 'echo got it' USR2; kill -USR2 $$; trap - USR2; kill -USR2 $$"));
    assert_eq!(bench.run().await.signal, ignored as i32);
    assert_eq!(bench.log("stdout"), "got it\n");
    bench.finish().await;
}

#[tokio::test]
async fn a_link_in_the_place_of_the_private_directory_leads_nothing_out() {
    let outside = tempfile::tempdir().unwrap();
    let script = format!("mv private moved && ln -s {} private && exit 3", outside.path().display());
    let mut bench = Bench::new("raw_exec", shell(&script));
    let handle = bench.start().await;
    // How it ended cannot be read where the task has put something else.
    let _ = tokio::time::timeout(Duration::from_secs(60), bench.driver.wait(&handle)).await.unwrap();
    let moved = bench.config.dirs.task.join("moved");
    let limit = Instant::now() + Duration::from_secs(60);
    while !moved.join("0.exit").exists() {
        assert!(Instant::now() < limit, "the supervisor writes where it was told to");
        tokio::task::yield_now().await;
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    bench.finish().await;
}

#[tokio::test]
async fn a_task_over_its_memory_is_reported_as_such() {
    let mut bench = Bench::new("raw_exec", shell("ulimit -v 400000; exec tail /dev/zero"));

    bench.config.grant.memory.memory_mb = 16;
    let status = bench.run().await;
    assert_eq!((status.code, status.oom_killed), (137, true));
    bench.finish().await;
}

#[tokio::test]
async fn commands_run_inside_the_task() {
    let mut bench = Bench::new("raw_exec", json!({"command": "sleep", "args": ["1000"]}));
    let handle = bench.start().await;
    let command = ["sh", "-c", "echo $GREETING; pwd; echo bad >&2; exit 3"].map(str::to_owned);
    let (code, output) = bench.driver.exec(&handle, &command, Duration::from_secs(30)).await.unwrap();
    let task = bench.config.dirs.task.display().to_string();
    assert_eq!((code, String::from_utf8(output).unwrap()), (3, format!("hello\n{task}\nbad\n")));
    let slow = ["sleep", "1000"].map(str::to_owned);
    let error = bench.driver.exec(&handle, &slow, Duration::from_millis(100)).await.unwrap_err();
    assert!(error.to_string().contains("did not end within 100ms"), "{error}");
    bench.finish().await;
}

#[tokio::test]
async fn removing_an_earlier_run_leaves_the_present_one_alone() {
    let mut bench = Bench::new("raw_exec", json!({"command": "sleep", "args": ["1000"]}));
    bench.config.id.run = 1;
    let first = bench.start().await;
    bench.driver.stop(&first, "SIGKILL", Duration::from_secs(10)).await.unwrap();
    bench.config.id.run = 2;
    let second = bench.start().await;
    bench.driver.remove(&first).await.unwrap();
    assert_eq!(bench.driver.recover(&first).await, Err(DriverError::NotFound));
    bench.driver.recover(&second).await.unwrap();
    assert_eq!(bench.driver.stats(&second).await.unwrap().pids.len(), 1);
    bench.finish().await;
}

#[tokio::test]
async fn people_can_run_commands_in_a_task() {
    let mut bench = Bench::new("raw_exec", shell("echo ready; sleep 1000"));
    let handle = bench.start().await;
    bench.wait_for_log("stdout", "ready").await;
    check_sessions(&bench, &handle).await;
    check_abandoned(&bench, &handle, "1000.71").await;
    let mut session = bench.session(&handle, &["/bin/sh", "-c", "echo $GREETING; pwd"], false).await;
    let (out, _, code) = hear_all(&mut session).await;
    assert_eq!((out, code), (format!("hello\n{}\n", bench.config.dirs.task.display()), Some(0)));
    for (program, why) in [
        ("/no/such", "fork/exec /no/such: no such file or directory"),
        ("no-such", "exec: \"no-such\": executable file not found in $PATH"),
    ] {
        let request = ExecRequest { command: vec![program.to_owned()], tty: false };
        let error = bench.driver.session(&handle, &request).await.unwrap_err().to_string();
        assert_eq!(error, format!("rpc error: code = Unknown desc = failed to start command: {why}"));
    }
    bench.driver.stop(&handle, "SIGKILL", Duration::ZERO).await.unwrap();
    let request = ExecRequest { command: vec!["ls".to_owned()], tty: false };
    assert!(bench.driver.session(&handle, &request).await.is_err(), "the task has ended");
    bench.finish().await;
}

#[tokio::test]
async fn a_task_is_measured_with_all_its_processes() {
    let script =
        "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 1000 & sleep 1000 & echo ready; wait";
    let mut bench = Bench::new("raw_exec", shell(script));
    let handle = bench.start().await;
    bench.wait_for_log("stdout", "ready").await;
    let stats = bench.driver.stats(&handle).await.unwrap();
    assert_eq!(stats.pids.len(), 3, "{stats:?}");
    assert_eq!(stats.processes.keys().copied().collect::<Vec<_>>(), {
        let mut pids = stats.pids.clone();
        pids.sort_unstable();
        pids
    });
    assert!(stats.cpu_time_ns > 1_000_000 && stats.user_ns.unwrap() > 0 && stats.rss_bytes > 0, "{stats:?}");
    assert!(stats.swap_bytes.is_some() && stats.usage_bytes.is_none(), "as Nomad measures it: {stats:?}");
    bench.finish().await;
}
