//! What people who know Nomad stumble over: one test each.

use serde_json::json;

use crate::agent::real::tests::bench::Bench;
use crate::agent::real::tests::bench::WEB;
use crate::agent::real::tests::bench::id;
use crate::agent::real::tests::bench::pass;
use crate::model::allocation::ClientStatus;
use crate::model::allocation::TaskRunState;

#[tokio::test(start_paused = true)]
async fn exit_0_of_a_service_task_is_restarted_and_counted() {
    let bench = Bench::new(json!({
        "RestartPolicy": {"Attempts": 2, "Interval": 60_000_000_000i64, "Delay": 1_000_000_000i64, "Mode": "fail"},
        "Tasks": [{"Name": "main", "Config": {"run_for": 1, "exit_code": 0}}],
    }))
    .await;
    let _agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(20.0).await;
    let report = bench.report(WEB).await;
    assert_eq!(report.client_status, ClientStatus::Failed);
    let state = &report.task_states["main"];
    assert_eq!((state.restarts, state.failed), (2, true), "attempts = 2 means three runs");
    assert_eq!(
        bench.events("main").await.last().map(String::as_str),
        Some("Not Restarting: Exceeded allowed attempts 2 in interval 1m0s and mode is \"fail\""),
    );
}

#[tokio::test(start_paused = true)]
async fn a_delay_before_a_restart_survives_the_agent() {
    let bench = Bench::new(json!({
        "RestartPolicy": {"Attempts": 5, "Interval": 600_000_000_000i64, "Delay": 60_000_000_000i64, "Mode": "fail"},
        "Tasks": [{"Name": "main", "Config": {"run_for": 1, "exit_code": 1}}],
    }))
    .await;
    let agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(5.0).await;
    assert!(bench.events("main").await.last().unwrap().starts_with("Restarting: Task restarting in 1m"));
    drop(agent);
    let _agent = bench.agent().await;
    pass(40.0).await;
    assert_eq!(bench.report(WEB).await.task_states["main"].state, TaskRunState::Pending, "it still waits");
    pass(35.0).await;
    let events = bench.events("main").await;
    assert_eq!(events.iter().filter(|event| event.starts_with("Started")).count(), 2, "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn kill_timeout_is_capped_by_the_client() {
    let bench = Bench::new(json!({"Tasks": [{
        "Name": "main", "KillTimeout": 90_000_000_000i64, "Config": {"stop_takes": 3600},
    }]}))
    .await;
    let _agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(1.0).await;
    bench.stop(WEB).await;
    pass(29.0).await;
    assert_eq!(bench.report(WEB).await.client_status, ClientStatus::Running);
    pass(2.0).await;
    assert_eq!(bench.report(WEB).await.client_status, ClientStatus::Complete);
    let events = bench.events("main").await;
    assert!(
        events.contains(&"Killing: Sent interrupt. Waiting 30s before force killing".to_owned()),
        "{events:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_that_exits_0_counts_as_a_failure_and_dead_tasks_collect_killing_events() {
    let bench = Bench::new(json!({
        "RestartPolicy": {"Attempts": 1, "Interval": 60_000_000_000i64, "Delay": 1_000_000_000i64, "Mode": "fail"},
        "Tasks": [
            {"Name": "init", "Lifecycle": {"Hook": "prestart"}, "Config": {"run_for": 1, "exit_code": 0}},
            {"Name": "side", "Lifecycle": {"Hook": "prestart", "Sidecar": true},
             "Config": {"run_for": 3, "exit_code": 0}},
            {"Name": "main"},
        ],
    }))
    .await;
    bench.job("batch", 0, json!({
        "RestartPolicy": {"Attempts": 1, "Interval": 60_000_000_000i64, "Delay": 1_000_000_000i64, "Mode": "fail"},
        "Tasks": [
            {"Name": "init", "Lifecycle": {"Hook": "prestart"}, "Config": {"run_for": 1, "exit_code": 0}},
            {"Name": "side", "Lifecycle": {"Hook": "prestart", "Sidecar": true},
             "Config": {"run_for": 3, "exit_code": 0}},
            {"Name": "main"},
        ],
    })).await;
    let _agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(30.0).await;
    assert_eq!(bench.report(WEB).await.client_status, ClientStatus::Failed, "even in a batch job");
    let side = bench.events("side").await;
    let tail: Vec<&str> = side.iter().rev().take(2).map(String::as_str).collect();
    assert_eq!(
        tail,
        [
            "Killing: Sent interrupt. Waiting 5s before force killing",
            "Not Restarting: Exceeded allowed attempts 1 in interval 1m0s and mode is \"fail\"",
        ],
        "one more after it had failed"
    );
    let init = bench.events("init").await;
    assert!(init.last().unwrap().starts_with("Killing: "), "{init:?}");
    assert!(!init.iter().any(|event| event.starts_with("Killed")), "{init:?}");
    let main = bench.events("main").await;
    assert!(main.contains(&"Sibling Task Failed: Task's sibling \"side\" failed".to_owned()), "{main:?}");
    assert_eq!(main.last().unwrap(), "Killed: Task successfully killed");
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_an_ended_allocation_stays_and_its_secrets_go() {
    let bench = Bench::new(json!({"Tasks": [{"Name": "main"}]})).await;
    let agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(1.0).await;
    let dirs = bench.driver.with("main", |process| process.config.dirs.clone());
    std::fs::write(dirs.secrets.join("key"), "x").unwrap();
    std::fs::write(dirs.local.join("result"), "y").unwrap();
    bench.stop(WEB).await;
    pass(1.0).await;
    assert_eq!(bench.report(WEB).await.client_status, ClientStatus::Complete);
    assert!(agent.tasks.alloc_dir(id(WEB)).is_some());
    assert_eq!(std::fs::read_to_string(dirs.local.join("result")).unwrap(), "y");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*bench.dir.path().to_string_lossy()), "nothing is mounted any more");
}
