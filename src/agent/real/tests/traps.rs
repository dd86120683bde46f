//! What people who know Nomad stumble over: one test each.

use serde_json::json;

use crate::agent::real::tests::bench::Bench;
use crate::agent::real::tests::bench::WEB;
use crate::agent::real::tests::bench::id;
use crate::agent::real::tests::bench::pass;
use crate::model::allocation::ClientStatus;
use crate::model::allocation::TaskRunState;
use crate::model::network::PortMapping;

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
    let bench = Bench::new(json!({"Tasks": []})).await;
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

#[tokio::test(start_paused = true)]
async fn an_unknown_name_in_driver_options_fails_the_task_and_stays_literal_elsewhere() {
    let bench = Bench::new(json!({"Tasks": [{"Name": "bad", "Config": {"command": "${NOPE}"}}]})).await;
    let _agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(5.0).await;
    let events = bench.events("bad").await;
    assert_eq!(
        events[2..4],
        [
            "Failed Validation: 2 errors occurred:\n\t* failed to parse config: \n\t* Unknown variable: There is \
             no variable named \"NOPE\".\n\n",
            "Not Restarting: Error was unrecoverable",
        ],
    );
    assert_eq!(bench.report(WEB).await.client_status, ClientStatus::Failed);
    let bench = Bench::new(json!({"Tasks": [
        {"Name": "good", "Env": {"A": "${NOPE}"}, "Config": {"command": "${1 + 1}"}},
    ]}))
    .await;
    let _agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(5.0).await;
    bench.driver.with("good", |process| {
        assert_eq!(process.config.env["A"], "${NOPE}");
        assert_eq!(process.config.config["command"], "2");
    });
}

#[tokio::test(start_paused = true)]
async fn labels_with_dashes_are_spelled_differently_from_place_to_place() {
    let bench = Bench::new(json!({"Tasks": [{
        "Name": "main",
        "Env": {"DASHED": "${NOMAD_PORT_http-alt}", "CLEANED": "${NOMAD_PORT_http_alt}", "D-6": "kept"},
        "Meta": {"a-b": "m"},
        "Config": {"command": "${NOMAD_PORT_http_alt}"},
        "Services": [{"Name": "svc-${NOMAD_PORT_http_alt}-${NOMAD_PORT_http-alt}"}],
        "Templates": [{"EmbeddedTmpl": "x"}],
    }]}))
    .await;
    let _agent = bench.agent().await;
    bench
        .assign(WEB, |allocation| {
            allocation.resources.shared.ports =
                vec![PortMapping { label: "http-alt".into(), value: 8123, ..PortMapping::default() }];
        })
        .await;
    pass(1.0).await;
    bench.driver.with("main", |process| {
        let env = &process.config.env;
        for (name, value) in [
            ("DASHED", "8123"),
            ("CLEANED", "${NOMAD_PORT_http_alt}"),
            ("D-6", "kept"),
            ("NOMAD_PORT_http_alt", "8123"),
            ("NOMAD_ALLOC_PORT_http-alt", "8123"),
            ("NOMAD_META_a_b", "m"),
            ("NOMAD_META_A_B", "m"),
        ] {
            assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!env.contains_key("NOMAD_PORT_http-alt") && !env.contains_key("NOMAD_META_a-b"));
        assert_eq!(process.config.config["command"], "8123");
    });
    let names = bench.service_names().await;
    assert_eq!(names, ["svc-8123-${NOMAD_PORT_http-alt}"]);
    assert_eq!(bench.hooks.template_env.lock()["NOMAD_PORT_http_alt"], "8123");
}

#[tokio::test(start_paused = true)]
async fn variables_of_one_template_are_not_visible_to_another() {
    let bench = Bench::new(json!({"Tasks": [{
        "Name": "main", "Env": {"OWN": "1"}, "Templates": [{"EmbeddedTmpl": "x"}],
    }]}))
    .await;
    let _agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(1.0).await;
    bench.driver.with("main", |process| assert_eq!(process.config.env["FROM_TEMPLATE"], "1"));
    let seen = bench.hooks.template_env.lock().clone();
    assert!(seen.contains_key("OWN") && !seen.contains_key("FROM_TEMPLATE"), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn the_user_root_is_refused_before_anything_is_set_up() {
    let bench = Bench::new(json!({"Tasks": [{"Name": "main", "User": "root"}]})).await;
    let _agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(5.0).await;
    assert_eq!(
        bench.events("main").await[..3],
        [
            "Received: Task received by client",
            "Task hook failed: validate: running as user \"root\" is disallowed",
            "Not Restarting: Error was unrecoverable",
        ]
    );
    assert_eq!(bench.report(WEB).await.client_status, ClientStatus::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_dispatch_with_an_empty_payload_still_makes_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let bench =
        Bench::new(json!({"Tasks": [{"Name": "main", "DispatchPayload": {"File": "deep/in.txt"}}]})).await;
    let _agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(5.0).await;
    let dirs = bench.driver.with("main", |process| process.config.dirs.clone());
    let file = std::fs::metadata(dirs.local.join("deep/in.txt")).unwrap();
    assert_eq!((file.len(), file.permissions().mode() & 0o777), (0, 0o755));
}

#[tokio::test(start_paused = true)]
async fn a_payload_stays_in_the_directory_of_its_task() {
    let bench =
        Bench::new(json!({"Tasks": [{"Name": "main", "DispatchPayload": {"File": "../out.txt"}}]})).await;
    let _agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(5.0).await;
    let events = bench.events("main").await;
    let text =
        "Task hook failed: dispatch_payload: dispatch payload file \"../out.txt\" escapes the task directory";
    assert_eq!(events[2..4], [text, "Not Restarting: Error was unrecoverable"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_costs_the_oldest_ended_allocation_its_directory() {
    let bench = Bench::new(json!({"Tasks": [{"Name": "main"}]})).await;
    let agent = bench.agent().await;
    for number in [1, 2, 3] {
        bench.assign(number, |_| {}).await;
        pass(1.0).await;
    }
    for number in [2, 1] {
        bench.stop(number).await;
        pass(1.0).await;
    }
    // One directory too many: the first removal is enough.
    let root = bench.dir.path().join("alloc");
    *bench.disk.lock() = Some(Box::new(move || {
        let left = std::fs::read_dir(&root).unwrap().count();
        if left > 2 { 95.0 } else { 50.0 }
    }));
    let has = |number| agent.tasks.alloc_dir(id(number)).is_some_and(|dir| dir.is_dir());
    assert!(has(1) && has(2) && has(3));
    pass(130.0).await;
    assert!(!has(2), "it ended first");
    assert!(has(1) && has(3), "the newest ended and the running one stay");
}
