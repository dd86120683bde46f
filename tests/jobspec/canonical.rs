//! The one form in which jobs are stored.

use herder::jobspec;
use herder::jobspec::Defaults;
use herder::model::job::Job;
use herder::model::time::Span;
use proptest::prelude::*;
use serde_json::Value;
use serde_json::json;

use super::job;
use super::parse;
use super::with;

const EXAMPLES: [(&str, &str); 7] = [
    ("web", include_str!("../../examples/web.nomad.hcl")),
    ("batch", include_str!("../../examples/batch.nomad.hcl")),
    ("periodic", include_str!("../../examples/periodic.nomad.hcl")),
    ("parameterized", include_str!("../../examples/parameterized.nomad.hcl")),
    ("docker", include_str!("../../examples/docker.nomad.hcl")),
    ("java", include_str!("../../examples/java.nomad.hcl")),
    ("yaml", include_str!("../../examples/web.yaml")),
];

#[test]
fn every_example_is_a_valid_job_without_warnings() {
    for (name, text) in EXAMPLES {
        let parsed = parse(text).unwrap_or_else(|problems| panic!("{name}: {problems}"));
        assert_eq!(parsed.warnings, Vec::new(), "{name}");
        let mut job = parsed.job;
        assert_eq!(jobspec::canonicalize(&mut job, &Defaults::default()), Vec::<String>::new(), "{name}");
        let found = jobspec::validate(&job);
        assert_eq!((found.error_text(), found.warnings_text()), (None, String::new()), "{name}");
    }
}

#[test]
fn a_second_pass_changes_nothing() {
    for (name, text) in EXAMPLES {
        let once = job(text);
        let mut twice = once.clone();
        jobspec::canonicalize(&mut twice, &Defaults::default());
        assert_eq!(once, twice, "{name}");
        let wire = serde_json::to_vec(&once).expect("serializes");
        let mut again = jobspec::decode_json(&wire).expect("reads what it wrote");
        jobspec::canonicalize(&mut again, &Defaults::default());
        assert_eq!(once, again, "{name} through JSON");
    }
}

#[test]
fn the_older_style_gives_the_same_job() {
    let job = job(include_str!("fixtures/hcl1.nomad"));
    assert_eq!(job.datacenters, ["home"]);
    let group = &job.task_groups[0];
    assert_eq!(group.count, Some(3));
    let task = &group.tasks[0];
    assert_eq!(
        Value::Object(task.config.clone()),
        json!({"image": "nginx:1.17.9", "port_map": [{"http": 80}]})
    );
    let network = &task.resources().networks[0];
    assert_eq!(network.mbits, 10);
    assert_eq!((network.reserved_ports[0].label.as_str(), network.reserved_ports[0].value), ("http", 80));
    assert_eq!(network.dynamic_ports[0].label, "admin");
    let found = jobspec::validate(&job);
    assert_eq!(found.errors, Vec::<String>::new());
    assert_eq!(
        found.warnings_text(),
        "1 warning:\n\n* Group \"webserver\" has warnings: 1 error occurred:\n\t* Task \"nginx\" has warnings: 1 error \
         occurred:\n\t* task network resources have been deprecated as of Nomad 0.12.0. Please configure networking via \
         group network block."
    );
}

#[test]
fn a_service_gets_the_policies_of_its_type() {
    let job = job(&with("", "", ""));
    assert_eq!((job.kind.as_str(), job.priority, job.node_pool.as_str()), ("service", 50, "default"));
    assert_eq!(job.datacenters, ["*"]);
    let update = job.update.as_ref().expect("an update policy");
    assert_eq!((update.stagger, update.max_parallel), (Span::from_secs(30), 1));
    assert_eq!(update.health_check, "");
    let group = &job.task_groups[0];
    assert_eq!(group.update.as_ref().map(|update| update.progress_deadline), Some(Span::from_secs(600)));
    assert_eq!(group.migrate.as_ref().map(|migrate| migrate.health_check.as_str()), Some("checks"));
    let restart = group.restart_policy.as_ref().expect("a restart policy");
    assert_eq!(
        (restart.attempts, restart.interval, restart.mode.as_str()),
        (2, Span::from_secs(1800), "fail")
    );
    assert_eq!(group.tasks[0].restart_policy.as_ref(), Some(restart));
    let reschedule = group.reschedule_policy.as_ref().expect("a reschedule policy");
    assert!(reschedule.unlimited && reschedule.delay_function == "exponential");
    let task = &group.tasks[0];
    assert_eq!(task.kill_timeout, Some(Span::from_secs(5)));
    assert_eq!((task.resources().cpu_mhz, task.resources().memory_mb), (100, 300));
    let identity = task.identity.as_ref().expect("an identity");
    assert_eq!(
        (identity.name.as_str(), identity.audience.as_slice()),
        ("default", &["nomadproject.io".to_owned()][..])
    );
}

#[test]
fn other_types_have_other_policies() {
    for (kind, attempts, has_update, reschedule) in
        [("batch", 3, false, Some(1)), ("system", 2, false, None), ("sysbatch", 3, false, Some(0))]
    {
        let job = job(&with(&format!("type = \"{kind}\""), "", ""));
        let group = &job.task_groups[0];
        assert_eq!(group.restart_policy.as_ref().map(|policy| policy.attempts), Some(attempts), "{kind}");
        assert_eq!(group.update.is_some(), has_update, "{kind}");
        assert!(group.migrate.is_none(), "{kind}");
        assert_eq!(group.reschedule_policy.as_ref().map(|policy| policy.attempts), reschedule, "{kind}");
        assert_eq!(jobspec::validate(&job).errors, Vec::<String>::new(), "{kind}");
    }
}

#[test]
fn attributes_are_inherited_one_by_one() {
    let text = with(
        "update {\n max_parallel = 3\n stagger = \"1m\"\n}\nreschedule {\n delay = \"1m\"\n}\nmigrate {\n max_parallel = 2\n}",
        "update {\n canary = 1\n}\nrestart {\n attempts = 7\n}",
        "restart {\n delay = \"1s\"\n}",
    );
    let job = job(&text);
    let group = &job.task_groups[0];
    let update = group.update.as_ref().expect("an update policy");
    assert_eq!((update.max_parallel, update.canary, update.stagger), (3, 1, Span::from_secs(60)));
    assert_eq!(group.reschedule_policy.as_ref().map(|policy| policy.delay), Some(Span::from_secs(60)));
    assert_eq!(group.migrate.as_ref().map(|migrate| migrate.max_parallel), Some(2));
    let restart = group.tasks[0].restart_policy.as_ref().expect("a restart policy");
    assert_eq!((restart.attempts, restart.delay), (7, Span::from_secs(1)));
    assert!(!job.unknown.contains_key("Reschedule") && !job.unknown.contains_key("Migrate"));
}

#[test]
fn service_names_stand_for_their_place() {
    let service = "service {\n provider = \"nomad\"\n name = \"${JOB}-${TASKGROUP}-${TASK}\"\n}\nservice {\n \
                   provider = \"nomad\"\n port = \"x\"\n}";
    let job = job(&with("", &format!("network {{\n port \"x\" {{}}\n}}\n{service}"), service));
    let group = &job.task_groups[0];
    let names: Vec<&str> = group.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["j-g-group", "j-g"]);
    let names: Vec<&str> = group.tasks[0].services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["j-g-t", "j-g-t"]);
    assert_eq!(group.tasks[0].services[0].task_name, "t");
}

#[test]
fn what_a_group_uses_becomes_a_constraint() {
    let text = with(
        "",
        "network {\n mode = \"bridge\"\n port \"http\" {}\n}\nservice {\n provider = \"nomad\"\n port = \"http\"\n check {\n \
         type = \"tcp\"\n interval = \"5s\"\n timeout = \"1s\"\n }\n}",
        "kill_signal = \"SIGTERM\"\nidentity {\n name = \"other\"\n aud = [\"x\"]\n}",
    );
    let job = job(&text);
    let found: Vec<String> = job.task_groups[0]
        .constraints
        .iter()
        .map(|c| format!("{} {} {}", c.left, c.operand, c.right))
        .collect();
    assert_eq!(
        found,
        [
            "${attr.os.signals} set_contains SIGTERM",
            "${attr.nomad.service_discovery} = true",
            "${attr.nomad.version} semver >= 1.4.0",
            "${attr.plugins.cni.version.bridge} semver >= 0.4.0",
            "${attr.plugins.cni.version.firewall} semver >= 0.4.0",
            "${attr.plugins.cni.version.host-local} semver >= 0.4.0",
            "${attr.plugins.cni.version.loopback} semver >= 0.4.0",
            "${attr.plugins.cni.version.portmap} semver >= 0.4.0",
            "${attr.nomad.version} semver >= 1.7.0-a",
        ]
    );
    let check = &job.task_groups[0].services[0].checks[0];
    assert_eq!(check.name, "service: \"j-g\" check");
}

#[test]
fn the_default_provider_needs_no_consul_where_there_is_none() {
    let text = with("", "service {\n name = \"web\"\n}", "");
    let mut native = parse(&text).expect("fine").job;
    let warnings = jobspec::canonicalize(&mut native, &Defaults::default());
    assert_eq!(native.task_groups[0].services[0].provider, "consul", "the job stays as it was written");
    assert_eq!(native.task_groups[0].constraints, [], "any node will do");
    assert!(warnings[0].contains("it is registered natively"), "{warnings:?}");
    let mut consul = parse(&text).expect("fine").job;
    let cluster = Defaults { consul: true, ..Defaults::default() };
    assert_eq!(jobspec::canonicalize(&mut consul, &cluster), Vec::<String>::new());
    assert_eq!(consul.task_groups[0].services[0].provider, "consul");
}

#[test]
fn services_of_consul_need_a_node_that_has_it() {
    let own = "constraint {\n attribute = \"${attr.consul.version}\"\n operator = \"is_set\"\n}\n";
    let service = "service {\n name = \"web\"\n}";
    let cluster = Defaults { consul: true, ..Defaults::default() };
    let lefts = |all: &[herder::model::constraint::Constraint]| -> Vec<String> {
        all.iter().map(|c| format!("{} {} {}", c.left, c.operand, c.right)).collect()
    };
    let wanted = ["${attr.consul.version} semver >= 1.8.0"];
    let read = |group: &str, task: &str| {
        let mut job = parse(&with("", group, task)).expect("fine").job;
        jobspec::canonicalize(&mut job, &cluster);
        let group = job.task_groups.remove(0);
        (lefts(&group.constraints), lefts(&group.tasks[0].constraints))
    };
    assert_eq!(read(service, ""), (wanted.map(str::to_owned).to_vec(), Vec::new()));
    assert_eq!(read("", service), (Vec::new(), wanted.map(str::to_owned).to_vec()));
    assert_eq!(read(&format!("{own}{service}"), "").0.len(), 1, "the author knows better");
    let mesh = "service {\n port = \"80\"\n connect {\n sidecar_service {\n proxy {\n transparent_proxy {}\n }\n }\n }\n}";
    assert_eq!(
        read(mesh, "").0,
        [
            "${attr.consul.connect} = true",
            "${attr.consul.version} semver >= 1.8.0",
            "${attr.plugins.cni.version.consul-cni} semver >= 1.4.2",
            "${attr.nomad.version} semver >= 1.8.0-dev",
        ]
    );
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z]{1,6}", Just("${JOB}".to_owned()), Just("\0/ é".to_owned())]
}

prop_compose! {
    fn any_job()(
        id in text(),
        kind in prop_oneof![Just("service"), Just("batch"), Just("system"), Just("sysbatch"), Just(""), Just("odd")],
        count in proptest::option::of(-3..1000i64),
        names in proptest::collection::vec(text(), 0..3),
        service in proptest::option::of((text(), text(), any::<bool>())),
        numbers in proptest::collection::vec(any::<i64>(), 8),
        spec in text(),
        with_blocks in any::<bool>(),
    ) -> Job {
        let services = service.map(|(name, port, native)| json!([{
            "Name": name, "PortLabel": port, "Provider": if native { "nomad" } else { "" },
            "Checks": [{"Type": port, "Interval": numbers[0], "CheckRestart": {"Limit": numbers[1]}}],
        }]));
        let policy = with_blocks.then(|| json!({
            "Attempts": numbers[2], "Interval": numbers[3], "Delay": numbers[4], "MaxDelay": numbers[5],
            "DelayFunction": "fibonacci", "Mode": "delay", "MaxParallel": numbers[6], "Canary": numbers[7],
        }));
        let tasks: Vec<Value> = names.iter().map(|name| json!({
            "Name": name, "Driver": name, "Services": services, "RestartPolicy": policy,
            "Resources": with_blocks.then(|| json!({"CPU": numbers[0], "MemoryMB": numbers[1], "Networks": [
                {"ReservedPorts": [{"Label": "a", "Value": numbers[2], "To": numbers[3]}]},
            ]})),
            "Templates": [{"DestPath": name, "Perms": name, "ChangeMode": "signal"}],
            "KillTimeout": numbers[4],
        })).collect();
        let group = json!({
            "Name": id, "Count": count, "Tasks": tasks, "Services": services, "RestartPolicy": policy,
            "ReschedulePolicy": policy, "Update": policy, "Migrate": policy,
            "Scaling": with_blocks.then(|| json!({"Min": numbers[5], "Max": "x"})),
        });
        let job = json!({
            "ID": id, "Type": kind, "TaskGroups": [group, group],
            "Periodic": {"Spec": spec, "TimeZone": spec},
            "Constraints": [{"Operand": spec, "LTarget": spec, "RTarget": id}],
            "Spreads": [{"Attribute": id, "SpreadTarget": [{"Value": id, "Percent": 4_000_000_000u32}]}],
        });
        serde_json::from_value(job).expect("every value has the right type")
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_job_survives_and_a_second_pass_changes_nothing(mut any in any_job()) {
        jobspec::canonicalize(&mut any, &Defaults::default());
        let once = any.clone();
        jobspec::canonicalize(&mut any, &Defaults::default());
        prop_assert_eq!(&once, &any);
        let found = jobspec::validate(&any);
        prop_assert_eq!(found.is_ok(), found.error_text().is_none());
        let _ = herder::model::diff::diff(Some(&once), &any, true);
    }
}
