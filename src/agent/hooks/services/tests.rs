use std::sync::Mutex;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;

use super::*;
use crate::agent::hooks::TaskExec;
use crate::clock::TokioClock;
use crate::model::allocation::NetworkStatus;
use crate::model::id::AllocId;
use crate::model::id::NodeId;
use crate::model::network::Network;
use crate::model::network::Port;
use crate::model::network::PortMapping;
use crate::model::service::CheckRestart;
use crate::model::service::CheckStatus;
use crate::model::time::Span;
use crate::model::time::Time;

/// Remembers what was written, in short: `+<id> <statuses>` and `-<id>`.
#[derive(Default)]
struct FakeSink(Mutex<Vec<String>>);

impl FakeSink {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl ServiceSink for FakeSink {
    fn put(&self, registration: ServiceRegistration) {
        let statuses: Vec<String> =
            registration.checks.values().map(|check| format!("{:?}", check.status)).collect();
        let id = registration.id.rsplit_once("web-").map_or(registration.id.as_str(), |(_, rest)| rest);
        self.0.lock().unwrap().push(format!("+{id} {}", statuses.join(",")).trim_end().to_owned());
    }

    fn delete(&self, id: &str) {
        let id = id.rsplit_once("web-").map_or(id, |(_, rest)| rest);
        self.0.lock().unwrap().push(format!("-{id}"));
    }
}

/// Ends every command with one code.
#[derive(Default)]
struct FakeExec {
    code: AtomicI32,
    runs: AtomicI32,
}

#[async_trait]
impl TaskExec for FakeExec {
    async fn exec(&self, task: &str, command: &[String], _: Duration) -> Result<(i32, Vec<u8>), HookError> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        Ok((self.code.load(Ordering::Relaxed), format!("{task}: {}", command.join(" ")).into_bytes()))
    }
}

fn context() -> ServiceContext {
    ServiceContext {
        alloc: AllocId::default(),
        namespace: "default".to_owned(),
        job_id: "job".to_owned(),
        group: "g".to_owned(),
        task: Some("web".to_owned()),
        node_id: NodeId::default(),
        datacenter: "dc1".to_owned(),
        canary: false,
        ports: vec![
            PortMapping {
                label: "http".into(),
                value: 23456,
                to: 80,
                host_ip: "10.0.0.5".into(),
                ..Default::default()
            },
            PortMapping {
                label: "same".into(),
                value: 24000,
                to: 0,
                host_ip: "10.0.0.5".into(),
                ..Default::default()
            },
        ],
        task_networks: Vec::new(),
        node_ip: "10.0.0.5".to_owned(),
        network_status: None,
        driver_address: None,
        driver_advertises: false,
        driver_ports: BTreeMap::new(),
        exec: Arc::new(FakeExec::default()),
        clock: TokioClock::starting_at(Time::from_secs(1_700_000_000)),
    }
}

fn service(name: &str, port: &str) -> Service {
    Service { name: name.to_owned(), port_label: port.to_owned(), ..Service::default() }
}

fn script_check() -> ServiceCheck {
    ServiceCheck {
        name: "alive".to_owned(),
        kind: "script".to_owned(),
        command: "/check".to_owned(),
        interval: Span::from_secs(10),
        timeout: Span::from_secs(2),
        ..ServiceCheck::default()
    }
}

struct Setup {
    sink: Arc<FakeSink>,
    exec: Arc<FakeExec>,
    context: ServiceContext,
    manager: ServiceManager,
    restarts: mpsc::Receiver<CheckRestartRequest>,
}

fn start(check: ServiceCheck) -> Setup {
    let (sink, exec) = (Arc::new(FakeSink::default()), Arc::new(FakeExec::default()));
    let context = ServiceContext { exec: exec.clone(), ..context() };
    let (sender, restarts) = mpsc::channel(4);
    let service = Service { checks: vec![check], ..service("a", "http") };
    let manager = ServiceManager::start(context.clone(), vec![service], sink.clone(), sender);
    Setup { sink, exec, context, manager, restarts }
}

async fn after(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[test]
fn addresses_follow_the_mode() {
    let plain = context();
    let inside = ServiceContext {
        network_status: Some(NetworkStatus { address: "172.26.64.3".into(), ..Default::default() }),
        driver_address: Some("172.17.0.2".into()),
        ..context()
    };
    let older = ServiceContext {
        ports: Vec::new(),
        task_networks: vec![Network {
            ip: "10.0.0.6".into(),
            dynamic_ports: vec![Port { label: "http".into(), value: 25000, to: 80, ..Default::default() }],
            ..Default::default()
        }],
        ..context()
    };
    let at = |address: &str, port: i64| Ok((address.to_owned(), port));
    for (context, mode, custom, label, expected) in [
        (&plain, "auto", "", "http", at("10.0.0.5", 23456)),
        (&plain, "", "", "7777", at("", 7777)),
        (&plain, "auto", "", "", at("", 0)),
        (&plain, "auto", "example.com", "http", at("example.com", 23456)),
        (&plain, "auto", "example.com", "", at("example.com", 0)),
        (&plain, "host", "", "nope", Err("invalid port \"nope\": port label not found".to_owned())),
        (
            &plain,
            "driver",
            "",
            "http",
            Err("cannot use address_mode=\"driver\": no driver network exists".to_owned()),
        ),
        (
            &plain,
            "alloc",
            "",
            "http",
            Err("cannot use address_mode=\"alloc\": no allocation network status reported".to_owned()),
        ),
        (&inside, "driver", "", "http", at("172.17.0.2", 80)),
        (&inside, "driver", "", "same", at("172.17.0.2", 24000)),
        (&inside, "driver", "", "9000", at("172.17.0.2", 9000)),
        (&inside, "alloc", "", "http", at("172.26.64.3", 80)),
        (&inside, "alloc", "", "same", at("172.26.64.3", 24000)),
        (&inside, "auto", "", "http", at("10.0.0.5", 23456)),
        (&older, "auto", "", "http", at("10.0.0.6", 25000)),
        (&older, "auto", "", "", at("10.0.0.6", 0)),
    ] {
        assert_eq!(resolve(context, mode, custom, label), expected, "{mode} {custom} {label}");
    }
}

#[test]
fn registrations_carry_nomads_ids_and_the_right_tags() {
    let alloc = AllocId::default();
    let canary = Service {
        tags: vec!["blue".into()],
        canary_tags: vec!["green".into()],
        ..service("redis-svc", "http")
    };
    let of_task = registration(&context(), &canary).unwrap();
    assert_eq!(of_task.id, format!("_nomad-task-{alloc}-web-redis-svc-http"));
    assert_eq!(
        (of_task.tags[0].as_str(), of_task.address.as_str(), of_task.port),
        ("blue", "10.0.0.5", 23456)
    );
    let of_group = registration(&ServiceContext { task: None, canary: true, ..context() }, &canary).unwrap();
    assert_eq!(of_group.id, format!("_nomad-task-{alloc}-group-g-redis-svc-http"));
    assert_eq!(of_group.tags, ["green"]);
    let portless = registration(&context(), &service("a", "")).unwrap();
    assert_eq!(portless.id, format!("_nomad-task-{alloc}-web-a-"));
}

#[test]
fn bad_names_are_refused_in_nomads_words() {
    validate(&[service("a-1", ""), service("A", "")]).unwrap();
    for name in ["a_b", "", "-a", "a.b", &"a".repeat(64)] {
        let error = validate(&[service(name, "")]).unwrap_err();
        assert!(
            error.message.starts_with(&format!("validate: service ({name}) failed validation: ")),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn only_changes_of_status_are_written() {
    let setup = start(script_check());
    assert_eq!(setup.sink.take(), ["+a-http Pending"]);
    assert!(!setup.manager.health().is_passing());
    after(6).await;
    assert_eq!(setup.sink.take(), ["+a-http Success"], "first asked after half an interval");
    assert_eq!(setup.manager.health(), CheckHealth { total: 1, passing: 1 });
    after(100).await;
    assert_eq!(setup.sink.take(), Vec::<String>::new());
    assert_eq!(setup.exec.runs.load(Ordering::Relaxed), 11);
    let result = setup.manager.results().into_values().next().unwrap();
    assert_eq!((result.output.as_str(), result.mode.as_str()), ("web: /check", "healthiness"));
    assert_eq!(result.timestamp, 1_700_000_105, "results are as new as the last run");

    setup.exec.code.store(2, Ordering::Relaxed);
    after(100).await;
    assert_eq!(setup.sink.take(), ["+a-http Failure"]);
    assert!(!setup.manager.health().is_passing());
}

#[tokio::test(start_paused = true)]
async fn answers_in_a_row_decide_where_the_job_says_so() {
    let setup = start(ServiceCheck {
        success_before_passing: 3,
        failures_before_critical: 2,
        initial_status: "critical".to_owned(),
        ..script_check()
    });
    assert_eq!(setup.sink.take(), ["+a-http Failure"]);
    after(20).await;
    assert_eq!(setup.sink.take(), Vec::<String>::new());
    after(10).await;
    assert_eq!(setup.sink.take(), ["+a-http Success"]);
    setup.exec.code.store(2, Ordering::Relaxed);
    after(10).await;
    assert_eq!(setup.sink.take(), Vec::<String>::new());
    after(10).await;
    assert_eq!(setup.sink.take(), ["+a-http Failure"]);
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_are_a_warning_before_they_are_more() {
    let setup = start(ServiceCheck {
        failures_before_warning: 2,
        failures_before_critical: 3,
        initial_status: "passing".to_owned(),
        on_update: "ignore_warnings".to_owned(),
        ..script_check()
    });
    setup.exec.code.store(2, Ordering::Relaxed);
    setup.sink.take();
    after(10).await;
    assert_eq!(setup.sink.take(), Vec::<String>::new());
    after(10).await;
    assert_eq!(setup.sink.take(), ["+a-http Failure"]);
    assert_eq!(setup.manager.health().passing, 1, "a warning is tolerated");
    after(10).await;
    assert_eq!(setup.manager.health().passing, 0, "the third failure is not");
}

#[test]
fn a_driver_that_is_reached_itself_gives_address_and_port() {
    let driver = |advertises, label: &str| {
        let context = ServiceContext {
            driver_address: Some("10.9.0.7".into()),
            driver_advertises: advertises,
            driver_ports: BTreeMap::from([("same".to_owned(), 6379)]),
            ..context()
        };
        registration(&context, &service("web", label)).map(|found| (found.address, found.port)).unwrap()
    };
    assert_eq!(driver(false, "http"), ("10.0.0.5".into(), 23456));
    assert_eq!(driver(true, "http"), ("10.9.0.7".into(), 80), "the port inside");
    assert_eq!(driver(true, "same"), ("10.9.0.7".into(), 6379), "what the driver says");
}

fn consul_service() -> Service {
    let mut service = service("web", "http");
    service.provider = "consul".to_owned();
    service.tags = vec!["live".to_owned()];
    service.canary_tags = vec!["canary".to_owned()];
    service.meta = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
    service.tagged_addresses = BTreeMap::from([("wan".to_owned(), "203.0.113.1:443".to_owned())]);
    service.checks = vec![
        ServiceCheck {
            kind: "http".to_owned(),
            path: "/up".to_owned(),
            method: "POST".to_owned(),
            header: BTreeMap::from([("X".to_owned(), vec!["1".to_owned()])]),
            tls_server_name: "web.example".to_owned(),
            protocol: "https".to_owned(),
            initial_status: "passing".to_owned(),
            failures_before_critical: 2,
            ..script_check()
        },
        ServiceCheck { kind: "grpc".to_owned(), grpc_service: "svc".to_owned(), ..script_check() },
        ServiceCheck { kind: "tcp".to_owned(), name: "port".to_owned(), ..script_check() },
        script_check(),
    ];
    service
}

#[test]
fn consul_is_given_the_service_and_its_checks() {
    let context = ServiceContext { canary: true, ..context() };
    let (registrations, checks) = consul::wanted(&context, &[consul_service()]);
    let body = &registrations[0].body;
    assert_eq!(body["ID"], format!("_nomad-task-{}-web-web-http", AllocId::default()));
    assert_eq!((&body["Address"], &body["Port"]), (&"10.0.0.5".into(), &23456.into()));
    assert_eq!(body["Tags"], serde_json::json!(["canary"]), "while it is one");
    assert_eq!(body["TaggedAddresses"]["wan"], serde_json::json!({"Address": "203.0.113.1", "Port": 443}));
    let http = &body["Checks"][0];
    for (name, value) in [
        ("HTTP", "https://10.0.0.5:23456/up"),
        ("Method", "POST"),
        ("Status", "passing"),
        ("TLSServerName", "web.example"),
        ("Interval", "10000ms"),
        ("Timeout", "2000ms"),
    ] {
        assert_eq!(http[name], value, "{name}");
    }
    assert_eq!(http["FailuresBeforeCritical"], 2);
    assert_eq!(body["Checks"][1]["GRPC"], "10.0.0.5:23456/svc");
    assert_eq!(body["Checks"][2]["TCP"], "10.0.0.5:23456");
    assert_eq!(body["Checks"][3]["TTL"], "41000ms");
    let mut ids: Vec<&str> = checks.iter().map(|check| check.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4, "checks are told apart");
}

#[tokio::test]
async fn consuls_word_decides_health_and_restarts() {
    let fake = crate::agent::consul::fake::Consul::start();
    let options = crate::agent::consul::ConsulOptions { address: fake.address.clone(), ..Default::default() };
    let client = crate::agent::consul::Client::new(options).unwrap();
    let registry = Registry::new(client, "agent".to_owned());
    let work = tokio::spawn(registry.clone().run());
    let (sink, exec) = (Arc::new(FakeSink::default()), Arc::new(FakeExec::default()));
    let (restarts, mut demands) = mpsc::channel(4);
    let mut service = consul_service();
    service.checks.truncate(1);
    service.checks[0].interval = Span::from_secs(1);
    service.checks[0].initial_status = "critical".to_owned();
    service.checks[0].check_restart =
        Some(CheckRestart { limit: 1, grace: Span::ZERO, ignore_warnings: false });
    let context = ServiceContext { exec, ..context() };
    let manager = ServiceManager::resume(
        context,
        vec![service],
        sink.clone(),
        restarts,
        BTreeMap::new(),
        Some(registry),
    );
    let demand = tokio::time::timeout(Duration::from_secs(30), demands.recv()).await.unwrap().unwrap();
    assert_eq!((demand.task.as_str(), demand.reason.contains("unhealthy")), ("web", true));
    fake.set_checks("passing");
    let limit = Instant::now() + Duration::from_secs(30);
    while !manager.health().is_passing() {
        assert!(Instant::now() < limit, "the check does not pass");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(sink.take(), Vec::<String>::new(), "nothing is registered natively");
    manager.deregister();
    while !fake.services().is_empty() {
        assert!(Instant::now() < limit, "it is not deregistered");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    work.abort();
}

#[tokio::test(start_paused = true)]
async fn tolerated_failures_do_not_count_against_the_allocation() {
    for (on_update, code, passing) in
        [("ignore", 2, 1), ("ignore_warnings", 1, 1), ("ignore_warnings", 2, 0), ("require_healthy", 1, 0)]
    {
        let setup = start(ServiceCheck { on_update: on_update.to_owned(), ..script_check() });
        setup.exec.code.store(code, Ordering::Relaxed);
        assert_eq!(setup.manager.health().passing, 0, "pending is not healthy");
        after(6).await;
        assert_eq!(setup.manager.health().passing, passing, "{on_update} {code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_that_keeps_failing_restarts_the_task_once() {
    let restart = CheckRestart { limit: 3, grace: Span::from_secs(20), ignore_warnings: false };
    let mut setup = start(ServiceCheck { check_restart: Some(restart), ..script_check() });
    setup.exec.code.store(2, Ordering::Relaxed);
    let before = Instant::now();
    let request = setup.restarts.recv().await.unwrap();
    assert_eq!(request.task, "web");
    assert_eq!(request.reason, "healthcheck: check \"alive\" unhealthy");
    // Asked at 5, 15, 25 (first after the grace period), 35 and 45: twice the interval later.
    assert_eq!(before.elapsed().as_secs(), 45);
    after(100).await;
    assert!(setup.restarts.try_recv().is_err(), "not before the task was restarted");
    setup.manager.task_restarted();
    let before = Instant::now();
    setup.restarts.recv().await.unwrap();
    assert!((40..=50).contains(&before.elapsed().as_secs()), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_healthy_answer_resets_the_clock() {
    let restart = CheckRestart { limit: 3, grace: Span::ZERO, ignore_warnings: false };
    let mut setup = start(ServiceCheck { check_restart: Some(restart), ..script_check() });
    for _ in 0..3 {
        setup.exec.code.store(2, Ordering::Relaxed);
        after(20).await;
        setup.exec.code.store(0, Ordering::Relaxed);
        after(10).await;
    }
    assert!(setup.restarts.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn deregistering_ends_everything_and_may_be_repeated() {
    let setup = start(script_check());
    setup.sink.take();
    setup.manager.deregister();
    setup.manager.deregister();
    setup.manager.update(setup.context.clone(), vec![service("b", "")]);
    after(100).await;
    assert_eq!(setup.sink.take(), ["-a-http"]);
    assert_eq!(setup.exec.runs.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_manager_keeps_the_registrations() {
    let setup = start(script_check());
    setup.sink.take();
    drop(setup.manager);
    after(100).await;
    assert_eq!(setup.sink.take(), Vec::<String>::new());
    assert_eq!((setup.exec.runs.load(Ordering::Relaxed), Arc::strong_count(&setup.sink)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn an_update_writes_only_what_differs() {
    let setup = start(script_check());
    after(6).await;
    setup.sink.take();
    let same = Service { checks: vec![script_check()], ..service("a", "http") };
    setup.manager.update(setup.context.clone(), vec![same.clone(), service("b", "")]);
    assert_eq!(setup.sink.take(), ["+b-"]);
    assert!(setup.manager.health().is_passing(), "the check goes on as it stood");
    let tagged = Service { tags: vec!["x".to_owned()], ..same };
    setup.manager.update(setup.context.clone(), vec![tagged]);
    assert_eq!(setup.sink.take(), ["-b-", "+a-http Success"]);
    assert_eq!(setup.manager.results().into_values().next().unwrap().status, CheckStatus::Success);
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_of_the_agent_checks_stand_as_before() {
    let first = start(script_check());
    after(6).await;
    let before = first.manager.results();
    drop(first.manager);
    let sink = Arc::new(FakeSink::default());
    let service = Service { checks: vec![script_check()], ..service("a", "http") };
    let (sender, _restarts) = mpsc::channel(4);
    let manager =
        ServiceManager::resume(first.context, vec![service], sink.clone(), sender, before.clone(), None);
    assert_eq!(sink.take(), ["+a-http Success"], "what the sink knows already and drops");
    assert_eq!((manager.results(), manager.health().is_passing()), (before, true));
    after(100).await;
    assert_eq!(sink.take(), Vec::<String>::new());
}
