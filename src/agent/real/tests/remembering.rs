//! What is done once and what is told when: downloads that are not repeated, ends that are remembered before they are
//! reported, health that a drain waits for.

use std::io::Write;
use std::time::Duration;

use serde_json::json;

use crate::agent::ledger::AllocRecord;
use crate::agent::ledger::Ledger;
use crate::agent::ledger::LedgerError;
use crate::agent::real::tests::bench::Bench;
use crate::agent::real::tests::bench::WEB;
use crate::agent::real::tests::bench::id;
use crate::agent::real::tests::bench::pass;
use crate::drivers::ExitStatus;
use crate::model::allocation::ClientStatus;

fn sources(names: &[&str]) -> serde_json::Value {
    names.iter().map(|name| json!({"GetterSource": format!("http://{name}")})).collect()
}

#[tokio::test(start_paused = true)]
async fn three_artifacts_are_fetched_at_the_same_time() {
    let artifacts = sources(&["slow/1", "slow/2", "slow/3", "slow/4", "slow/5"]);
    let bench = Bench::new(json!({"Tasks": [{"Name": "main", "Artifacts": artifacts}]})).await;
    let _agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(3.0).await;
    assert!(bench.driver.alive().is_empty(), "two are still on their way");
    pass(2.0).await;
    assert_eq!(bench.driver.alive().len(), 1);
    assert_eq!((bench.hooks.fetched.lock().len(), bench.hooks.fetching.lock().1), (5, 3));
}

#[tokio::test(start_paused = true)]
async fn an_artifact_that_is_in_place_is_not_fetched_again() {
    let policy =
        json!({"Attempts": 9, "Interval": 600_000_000_000i64, "Delay": 10_000_000_000i64, "Mode": "fail"});
    let artifacts = sources(&["here", "missing"]);
    let bench =
        Bench::new(json!({"RestartPolicy": policy, "Tasks": [{"Name": "main", "Artifacts": artifacts}]}))
            .await;
    let times =
        |name: &str| bench.hooks.fetched.lock().iter().filter(|source| source.ends_with(name)).count();
    let first = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(30.0).await;
    assert!(times("missing") > 1);
    assert_eq!(times("here"), 1, "the restart policy repeats what failed only");
    drop(first);
    let tried = times("missing");
    let _second = bench.agent().await;
    pass(30.0).await;
    assert!(times("missing") > tried);
    assert_eq!(times("here"), 1, "the next agent knows what is in place");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_restarted_or_found_again_keeps_its_artifacts() {
    let artifacts = sources(&["a", "b"]);
    let bench = Bench::new(json!({"Tasks": [{"Name": "main", "Artifacts": artifacts}]})).await;
    let first = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(1.0).await;
    first.tasks.restart(id(WEB), Some("main")).unwrap();
    pass(20.0).await;
    drop(first);
    let _second = bench.agent().await;
    pass(1.0).await;
    assert_eq!(bench.driver.alive().len(), 1);
    assert_eq!(bench.hooks.fetched.lock().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn outside_deployments_health_follows_the_migrate_block() {
    let migrate = json!({
        "MaxParallel": 1, "HealthCheck": "checks",
        "MinHealthyTime": 10_000_000_000i64, "HealthyDeadline": 60_000_000_000i64,
    });
    let bench = Bench::new(json!({
        "Migrate": migrate,
        "Tasks": [{"Name": "main", "Services": [{"Name": "svc", "Checks": [{"Name": "alive"}]}]}],
    }))
    .await;
    let _agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    pass(20.0).await;
    assert_eq!(bench.report(WEB).await.deployment_status, None, "its check does not pass");
    *bench.hooks.checks_pass.lock() = true;
    pass(12.0).await;
    let verdict = bench.report(WEB).await.deployment_status.unwrap();
    assert_eq!((verdict.healthy, verdict.deployment_id), (Some(true), None));
    *bench.hooks.checks_pass.lock() = false;
    bench.assign(2, |_| {}).await;
    pass(70.0).await;
    let verdict = bench.report(2).await.deployment_status.unwrap();
    assert_eq!(verdict.healthy, Some(false), "the deadline has passed");
}

/// Waits until something holds, in real time: the ledger's thread knows no other.
async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(std::time::Instant::now() < deadline, "{what}");
        tokio::task::yield_now().await;
    }
}

/// Fills a small file system of its own (made only if the tests run as root).
#[tokio::test]
async fn an_end_is_reported_only_once_it_is_remembered() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let mut bench = Bench::new(json!({"Tasks": [{"Name": "main"}]})).await;
    let small = bench.dir.path().join("ledger");
    std::fs::create_dir(&small).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &small, Some("tmpfs"), flags, Some("size=4m")).unwrap();
    bench.ledger = Ledger::open(&small).unwrap();
    bench.job("batch", 0, json!({"Tasks": [{"Name": "main"}]})).await;
    let agent = bench.agent().await;
    bench.assign(WEB, |_| {}).await;
    until("it runs", || async { bench.driver.alive().len() == 1 }).await;
    let known = || agent.tasks.record(id(WEB)).unwrap();
    until("its handle is known", || async { known().tasks["main"].handle.is_some() }).await;
    let handle = known().tasks["main"].handle.clone().unwrap();
    let mut filler = std::fs::File::create(small.join("filler")).unwrap();
    while filler.write(&[0; 4096]).is_ok() {}
    drop(filler);
    let mut big: AllocRecord = known();
    big.allocation.id = id(2);
    big.rejected = "x".repeat(3 << 20);
    let refused = bench.ledger.save(&big).await;
    assert!(matches!(refused, Err(LedgerError::Delayed { .. })), "{refused:?}");
    // It would not fit into the empty file system either.
    big.rejected.truncate(10);
    let refused = bench.ledger.save(&big).await;
    assert!(matches!(refused, Err(LedgerError::Delayed { .. })), "{refused:?}");
    bench.driver.end(&handle, ExitStatus::default());
    until("the agent has seen the end", || async { !known().ended_at.is_never() }).await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
        assert_eq!(bench.report(WEB).await.client_status, ClientStatus::Running, "not safe, so not said");
    }
    assert!(bench.driver.removed.lock().is_empty(), "the next agent would have to ask the driver");
    std::fs::remove_file(small.join("filler")).unwrap();
    until("the end is reported", || async {
        bench.report(WEB).await.client_status == ClientStatus::Complete
    })
    .await;
    until("it is cleared up after", || async { bench.driver.removed.lock().len() == 1 }).await;
}
