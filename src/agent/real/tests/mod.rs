//! Real allocations with a scripted driver, an embedded store and paused time.

mod bench;
mod remembering;
mod traps;

use serde_json::json;

use crate::agent::hooks::CheckRestartRequest;
use crate::agent::hooks::TemplateChange;
use crate::agent::real::RequestError;
use crate::agent::real::tests::bench::Bench;
use crate::agent::real::tests::bench::WEB;
use crate::agent::real::tests::bench::id;
use crate::agent::real::tests::bench::pass;
use crate::drivers::ExitStatus;
use crate::model::allocation::Allocation;
use crate::model::allocation::ClientStatus;
use crate::model::allocation::DesiredStatus;
use crate::model::id::DeploymentId;
use crate::model::network::PortMapping;
use crate::store::Op;
use crate::store::Store;
use crate::store::Txn;
use crate::store::key::Key;

#[tokio::test(start_paused = true)]
async fn a_task_runs_and_is_stopped_with_nomads_events() {
    let bench = Bench::new(json!({"Tasks": [{
        "Name": "main", "KillTimeout": 2_000_000_000i64, "ShutdownDelay": 1_000_000_000i64,
        "Config": {"command": "${NOMAD_TASK_NAME}-${node.unique.name}", "stop_takes": 0.5},
        "Templates": [{"EmbeddedTmpl": "x"}],
        "Services": [{"Name": "svc"}],
    }]}))
    .await;
    let agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(1.0).await;
    let report = bench.report(WEB).await;
    assert_eq!(
        (report.client_status, report.client_description.as_str()),
        (ClientStatus::Running, "Tasks are running")
    );
    assert_eq!(bench.services().await, 1);
    bench.driver.with("main", |process| {
        assert_eq!(process.config.config["command"], "main-n1");
        assert_eq!(process.config.env["FROM_TEMPLATE"], "1");
        assert!(process.config.dirs.local.is_dir());
    });
    assert_eq!(agent.tasks.stats(id(WEB)).await.unwrap().into_values().next().unwrap().rss_bytes, 7);
    bench.stop(WEB).await;
    pass(0.5).await;
    assert_eq!(bench.services().await, 0, "deregistered before the delay has passed");
    assert_eq!(bench.report(WEB).await.client_status, ClientStatus::Running);
    pass(3.0).await;
    assert_eq!(bench.report(WEB).await.client_status, ClientStatus::Complete);
    assert_eq!(
        bench.events("main").await,
        [
            "Received: Task received by client",
            "Task Setup: Building Task Directory",
            "Started: Task started by client",
            "Killing: Sent interrupt. Waiting 2s before force killing",
            "Waiting for shutdown delay: Waiting for shutdown_delay of 1s before killing the task.",
            "Terminated: Exit Code: 130, Signal: 2",
            "Killed: Task successfully killed",
        ]
    );
    let dir = agent.tasks.alloc_dir(id(WEB)).unwrap();
    assert!(dir.is_dir());
    let gone = Op::delete(bench.keys.text(&Key::Alloc(bench.node, id(WEB))));
    bench.store.commit(Txn::default().and_then(gone)).await.unwrap();
    pass(1.0).await;
    assert!(!dir.exists());
    assert!(bench.ledger.take_contents().allocs.is_empty());
}

#[tokio::test(start_paused = true)]
async fn failures_are_restarted_by_policy_and_then_fail_the_allocation() {
    let bench = Bench::new(json!({
        "RestartPolicy": {"Attempts": 1, "Interval": 60_000_000_000i64, "Delay": 1_000_000_000, "Mode": "fail"},
        "Tasks": [
            {"Name": "main", "Config": {"run_for": 2, "exit_code": 3}},
            {"Name": "other", "Config": {"stop_takes": 1}},
        ]
    }))
    .await;
    let _agent = bench.agent().await;
    bench.assign(WEB, |allocation| allocation.deployment_id = Some(DeploymentId::from_random([5; 16]))).await;
    pass(2.5).await;
    let report = bench.report(WEB).await;
    assert_eq!(report.client_status, ClientStatus::Running);
    assert_eq!(report.task_states["main"].restarts, 1);
    pass(3.5).await;
    // The sibling is still ending: the allocation has not failed yet.
    pass(10.0).await;
    let report = bench.report(WEB).await;
    assert_eq!(
        (report.client_status, report.client_description.as_str()),
        (ClientStatus::Failed, "Failed tasks")
    );
    assert_eq!(report.deployment_status.unwrap().healthy, Some(false));
    let events = bench.events("main").await;
    assert!(events[4].starts_with("Restarting: Task restarting in 1."), "{events:?}");
    assert_eq!(
        events[7..],
        [
            "Not Restarting: Exceeded allowed attempts 1 in interval 1m0s and mode is \"fail\"",
            "Killing: Sent interrupt. Waiting 5s before force killing",
        ]
    );
    assert_eq!(
        bench.events("other").await[3..],
        [
            "Sibling Task Failed: Task's sibling \"main\" failed",
            "Killing: Sent interrupt. Waiting 5s before force killing",
            "Terminated: Exit Code: 130, Signal: 2",
            "Killed: Task successfully killed",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn lifecycle_tasks_run_in_order() {
    let bench = Bench::new(json!({"Tasks": [
        {"Name": "init", "Lifecycle": {"Hook": "prestart"}, "Config": {"run_for": 2}},
        {"Name": "side", "Lifecycle": {"Hook": "prestart", "Sidecar": true}},
        {"Name": "main", "Config": {"run_for": 5}},
        {"Name": "bye", "Lifecycle": {"Hook": "poststop"}, "Config": {"run_for": 1}},
    ]}))
    .await;
    bench
        .job(
            "batch",
            0,
            json!({"Tasks": [
                {"Name": "init", "Lifecycle": {"Hook": "prestart"}, "Config": {"run_for": 2}},
                {"Name": "side", "Lifecycle": {"Hook": "prestart", "Sidecar": true}},
                {"Name": "main", "Config": {"run_for": 5}},
                {"Name": "bye", "Lifecycle": {"Hook": "poststop"}, "Config": {"run_for": 1}},
            ]}),
        )
        .await;
    let _agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(1.0).await;
    let names = |alive: Vec<String>| -> Vec<String> {
        alive.iter().filter_map(|key| key.split('/').nth(1).map(str::to_owned)).collect()
    };
    assert_eq!(names(bench.driver.alive()), ["init", "side"]);
    pass(2.0).await;
    assert_eq!(names(bench.driver.alive()), ["main", "side"]);
    pass(4.5).await;
    assert_eq!(names(bench.driver.alive()), ["bye"]);
    pass(5.0).await;
    assert_eq!(bench.report(WEB).await.client_status, ClientStatus::Complete);
    let side = bench.events("side").await;
    assert_eq!(side[3], "Main Tasks Dead: Main tasks in the group died");
}

#[tokio::test(start_paused = true)]
async fn tasks_survive_a_killed_and_a_stopped_agent() {
    let bench = Bench::new(json!({"Tasks": [{"Name": "main", "Services": [{"Name": "svc"}]}]})).await;
    let first = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(1.0).await;
    let processes = bench.driver.alive();
    // Killed: everything is dropped at once.
    drop(first);
    pass(1.0).await;
    let second = bench.agent().await;
    pass(1.0).await;
    assert_eq!(bench.driver.alive(), processes);
    assert_eq!(bench.services().await, 1);
    second.handle.shutdown().await;
    drop(second);
    // The task ends while no agent is there.
    let exit = ExitStatus { code: 0, ..ExitStatus::default() };
    let handle = bench.ledger.take_contents().allocs[&id(WEB)].tasks["main"].handle.clone().unwrap();
    bench.driver.end(&handle, exit);
    let third = bench.agent().await;
    pass(1.0).await;
    assert_eq!(bench.events("main").await[3], "Terminated: Exit Code: 0");
    bench.stop(WEB).await;
    pass(20.0).await;
    assert_eq!(bench.report(WEB).await.client_status, ClientStatus::Complete);
    third.handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_vanished_is_started_anew() {
    let bench = Bench::new(json!({"Tasks": [{"Name": "main"}]})).await;
    let first = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(1.0).await;
    first.handle.shutdown().await;
    drop(first);
    bench.driver.processes.lock().clear();
    let _second = bench.agent().await;
    pass(1.0).await;
    assert_eq!(bench.driver.alive().len(), 1);
    assert_eq!(bench.report(WEB).await.client_status, ClientStatus::Running);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_refused_with_a_reason() {
    let bench = Bench::new(json!({"Tasks": [{"Name": "main"}]})).await;
    let _agent = bench.agent().await;
    let port = |allocation: &mut Allocation| {
        allocation.resources.shared.ports =
            vec![PortMapping { label: "http".into(), value: 80, ..PortMapping::default() }];
    };
    bench.assign(WEB, port).await;
    pass(1.0).await;
    bench.assign(2, port).await;
    bench.assign(3, |allocation| allocation.task_group = "nope".into()).await;
    pass(1.0).await;
    let refused = bench.report(2).await;
    assert_eq!(refused.client_status, ClientStatus::Failed);
    assert_eq!(refused.rejected, format!("port 80 is in use by allocation {}", id(WEB)));
    assert_eq!(bench.report(3).await.rejected, "job default/web has no group \"nope\"");
    // While the holder is leaving, a successor waits instead.
    bench.stop(WEB).await;
    bench.assign(4, port).await;
    pass(1.0).await;
    assert_eq!(bench.report(4).await.client_status, ClientStatus::Running);
}

#[tokio::test(start_paused = true)]
async fn a_replacement_waits_for_its_predecessor() {
    let bench = Bench::new(json!({"Tasks": [{"Name": "main", "Config": {"stop_takes": 3}}]})).await;
    let _agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(1.0).await;
    bench.stop(WEB).await;
    bench.assign(2, |allocation| allocation.previous = Some(id(WEB))).await;
    pass(1.0).await;
    let waiting = bench.report(2).await;
    assert_eq!((waiting.client_status, waiting.client_description.as_str()), (ClientStatus::Pending, ""));
    pass(3.0).await;
    assert_eq!(bench.report(2).await.client_status, ClientStatus::Running);
}

#[tokio::test(start_paused = true)]
async fn health_needs_running_tasks_and_passing_checks() {
    let bench = Bench::new(json!({
        "Update": {"HealthCheck": "checks", "MinHealthyTime": 10_000_000_000i64, "HealthyDeadline": 60_000_000_000i64},
        "Tasks": [{"Name": "main", "Services": [{"Name": "svc", "Checks": [{"Name": "alive"}]}]}],
    }))
    .await;
    let _agent = bench.agent().await;
    bench.assign(WEB, |allocation| allocation.deployment_id = Some(DeploymentId::from_random([5; 16]))).await;
    pass(20.0).await;
    assert_eq!(bench.report(WEB).await.deployment_status, None);
    *bench.hooks.checks_pass.lock() = true;
    pass(9.0).await;
    assert_eq!(bench.report(WEB).await.deployment_status, None);
    pass(2.0).await;
    assert_eq!(bench.report(WEB).await.deployment_status.unwrap().healthy, Some(true));
    // A new deployment decides anew.
    *bench.hooks.checks_pass.lock() = false;
    bench.assign(WEB, |allocation| allocation.deployment_id = Some(DeploymentId::from_random([6; 16]))).await;
    pass(30.0).await;
    assert_eq!(bench.report(WEB).await.deployment_status, None);
    pass(40.0).await;
    assert_eq!(bench.report(WEB).await.deployment_status.unwrap().healthy, Some(false));
    let last = bench.events("main").await.pop().unwrap();
    assert!(last.starts_with("Alloc Unhealthy: Task not running for min_healthy_time of 10s"), "{last}");
    assert_eq!(bench.driver.alive().len(), 1, "unhealthy, not stopped");
}

#[tokio::test(start_paused = true)]
async fn an_update_in_place_leaves_the_task_alone() {
    let bench = Bench::new(json!({"Tasks": [{"Name": "main"}]})).await;
    let agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(1.0).await;
    let processes = bench.driver.alive();
    bench.job("service", 1, json!({"Tasks": [{"Name": "main", "KillTimeout": 9_000_000_000i64, "Services": [{"Name": "new"}]}]})).await;
    bench.assign(WEB, |allocation| allocation.job_version = 1).await;
    pass(1.0).await;
    assert_eq!(bench.driver.alive(), processes);
    assert_eq!(bench.services().await, 1);
    assert_eq!(agent.tasks.job(id(WEB)).unwrap().version, 1);
    bench
        .assign(WEB, |allocation| {
            allocation.job_version = 1;
            allocation.desired_status = DesiredStatus::Stop;
        })
        .await;
    pass(1.0).await;
    assert!(
        bench
            .events("main")
            .await
            .contains(&"Killing: Sent interrupt. Waiting 9s before force killing".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn people_checks_and_templates_restart_and_signal_tasks() {
    let bench = Bench::new(json!({"Tasks": [
        {"Name": "main", "Templates": [{"EmbeddedTmpl": "x"}], "Services": [{"Name": "svc"}]},
    ]}))
    .await;
    let agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(1.0).await;
    agent.tasks.restart(id(WEB), None).unwrap();
    pass(1.0).await;
    assert_eq!(
        bench.events("main").await[3..],
        [
            "Restart Signaled: User requested task to restart",
            "Terminated: Exit Code: 130, Signal: 2",
            "Restarting: Task restarting in 0s",
            "Started: Task started by client",
        ]
    );
    agent.tasks.signal(id(WEB), None, "SIGHUP").await.unwrap();
    let changes = bench.hooks.changes.lock().clone().unwrap();
    changes.send(TemplateChange::Signal("SIGUSR1".into())).await.unwrap();
    pass(1.0).await;
    bench.driver.with("main", |process| assert_eq!(process.signals, ["SIGHUP", "SIGUSR1"]));
    let restarts = bench.hooks.restarts.lock().clone().unwrap();
    let reason = "healthcheck: check \"alive\" unhealthy".to_owned();
    restarts.send(CheckRestartRequest { task: "main".into(), reason }).await.unwrap();
    pass(1.0).await;
    let report = bench.report(WEB).await;
    assert_eq!(report.client_status, ClientStatus::Pending, "counted by the policy, which waits");
    assert!(matches!(agent.tasks.restart(id(WEB), Some("main")), Err(RequestError::NotRunning)));
    assert!(matches!(agent.tasks.restart(id(WEB), Some("x")), Err(RequestError::UnknownTask(_))));
    pass(20.0).await;
    changes.send(TemplateChange::Failed("Template failed: boom".into())).await.unwrap();
    pass(1.0).await;
    let report = bench.report(WEB).await;
    assert_eq!(report.client_status, ClientStatus::Failed);
    assert!(bench.events("main").await.contains(&"Killing: Template failed: boom".to_owned()));
    assert!(matches!(agent.tasks.restart(id(WEB), Some("main")), Err(RequestError::NotRunning)));
}

#[tokio::test(start_paused = true)]
async fn troubles_before_the_start_follow_the_policy() {
    let policy =
        json!({"Attempts": 1, "Interval": 60_000_000_000i64, "Delay": 1_000_000_000, "Mode": "fail"});
    for (task, expected) in [
        (
            json!({"Artifacts": [{"GetterSource": "http://missing"}]}),
            "Failed Artifact Download: cannot get http://missing",
        ),
        (json!({"Config": {"start_error": "no daemon"}}), "Driver Failure: no daemon"),
        (
            json!({"Config": {"nonsense": 1}}),
            "Failed Validation: 2 errors occurred:\n\t* failed to parse config: \n\t* unknown option nonsense\n\n",
        ),
        (
            json!({"Config": {"args": ["${HOME}"]}}),
            "Failed Validation: 2 errors occurred:\n\t* failed to parse config: \n\t* Unknown variable: There is no variable named \"HOME\".\n\n",
        ),
    ] {
        let mut task = task;
        task["Name"] = json!("main");
        let bench = Bench::new(json!({"RestartPolicy": policy.clone(), "Tasks": [task]})).await;
        let _agent = bench.agent().await;
        bench.assign(WEB, |_| {}).await;
        pass(10.0).await;
        assert_eq!(bench.report(WEB).await.client_status, ClientStatus::Failed, "{expected}");
        let events = bench.events("main").await;
        assert!(events.contains(&expected.to_owned()), "{events:?}");
        let unrecoverable = expected.starts_with("Failed Validation");
        assert_eq!(
            events.contains(&"Not Restarting: Error was unrecoverable".to_owned()),
            unrecoverable,
            "{events:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn silence_of_the_cluster_stops_only_those_who_ask_for_it() {
    let group = json!({"StopAfterClientDisconnect": 30_000_000_000i64, "Tasks": [{"Name": "main"}]});
    let bench = Bench::new(group).await;
    let _agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(100.0).await;
    assert_eq!(bench.driver.alive().len(), 1);
}
