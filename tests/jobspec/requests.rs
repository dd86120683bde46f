//! Jobs of the API, in JSON.

use herder::jobspec;
use herder::jobspec::Defaults;
use proptest::prelude::*;
use serde_json::Value;
use serde_json::json;

use super::job;
use super::parse;
use super::with;

fn decode(value: &serde_json::Value) -> Result<herder::model::job::Job, String> {
    jobspec::decode_json(value.to_string().as_bytes())
}

#[test]
fn keys_match_in_any_case_and_nulls_are_defaults() {
    let job = decode(&json!({"job": {
        "id": "a", "type": null, "PRIORITY": 70, "meta": {"KeepMe": "x", "Gone": null}, "future": {"a": 1},
        "taskgroups": [{"NAME": "g", "count": null, "tasks": [{
            "name": "t", "driver": "docker", "config": {"lowerCase": {"Inner": null}}, "env": {"aB": "1"},
            "resources": {"cpu": 250, "networks": [{"dynamicports": [{"label": "x", "to": 80}]}]},
        }]}],
    }}))
    .expect("a job");
    assert_eq!((job.id.as_str(), job.priority), ("a", 70));
    assert_eq!(job.meta["KeepMe"], "x");
    assert_eq!(job.unknown["future"], json!({"a": 1}));
    let task = &job.task_groups[0].tasks[0];
    assert_eq!(task.config["lowerCase"], json!({"Inner": null}));
    assert_eq!((task.resources().cpu_mhz, task.resources().memory_mb), (250, 300));
    assert_eq!(task.resources().networks[0].dynamic_ports[0].to, 80);
    assert_eq!(job.task_groups[0].count, Some(1));
}

#[test]
fn a_value_of_the_wrong_type_is_named_by_its_place() {
    let error = decode(&json!({"ID": "a", "TaskGroups": [{"Name": "g", "Count": "x"}]})).expect_err("a text");
    assert_eq!(error, "TaskGroups[0].Count: invalid type: string \"x\", expected i64");
    let error = decode(&json!({"ID": "a", "TaskGroups": [{}, {"Tasks": [{"KillTimeout": "5s"}]}]}));
    let error = error.expect_err("a duration as text");
    assert!(error.starts_with("TaskGroups[1].Tasks[0].KillTimeout: invalid type: string \"5s\""), "{error}");
    let error = decode(&json!({"ID": "a", "TaskGroups": {"a": 1}})).expect_err("no list");
    assert!(error.starts_with("TaskGroups: "), "{error}");
    assert!(decode(&json!([1])).is_err());
    assert!(jobspec::decode_json(b"{").is_err());
}

#[test]
fn the_written_form_has_every_key() {
    let parsed = parse("job \"a\" {\n group \"g\" {\n count = 2\n }\n}\n").expect("fine");
    let request = parsed.request();
    assert_eq!((&request["ID"], &request["Type"]), (&json!("a"), &json!(null)));
    let group = &request["TaskGroups"][0];
    assert_eq!((&group["Count"], &group["RestartPolicy"]), (&json!(2), &json!(null)));
    assert!(request.as_object().is_some_and(|job| job.contains_key("Datacenters")));
}

#[test]
fn policies_of_the_job_reach_its_groups() {
    let job = decode(&json!({
        "ID": "a", "Reschedule": {"Attempts": 3, "Interval": 600_000_000_000i64, "Unlimited": false},
        "Migrate": {"MaxParallel": 4}, "Update": {"MaxParallel": 2},
        "TaskGroups": [{"Name": "g", "RestartPolicy": {"Attempts": 9}}],
    }))
    .expect("a job");
    let group = &job.task_groups[0];
    assert_eq!(group.update.as_ref().map(|update| update.max_parallel), Some(2));
    assert_eq!(group.update.as_ref().map(|update| update.health_check.as_str()), Some("checks"));
    assert_eq!(group.migrate.as_ref().map(|migrate| migrate.max_parallel), Some(4));
    let reschedule = group.reschedule_policy.as_ref().expect("a policy");
    assert_eq!((reschedule.attempts, reschedule.delay.to_string()), (3, "30s".to_owned()));
    let restart = group.restart_policy.as_ref().expect("a policy");
    assert_eq!((restart.attempts, restart.mode.as_str()), (9, "fail"));
}

#[test]
fn a_stored_batch_job_can_be_sent_back() {
    let text = "job \"b\" {\n type = \"batch\"\n group \"g\" {\n task \"t\" {\n driver = \"exec\"\n config {\n command = \"x\"\n }\n }\n }\n}\n";
    let mut job = parse(text).expect("fine").job;
    jobspec::canonicalize(&mut job, &Defaults::default());
    let wire = serde_json::to_value(&job).expect("serializes");
    assert_eq!(wire["Update"]["MaxParallel"], 0);
    let mut again = decode(&wire).expect("reads");
    jobspec::canonicalize(&mut again, &Defaults::default());
    assert_eq!(jobspec::validate(&again).errors, Vec::<String>::new());
    assert_eq!(job, again);
}

#[test]
fn a_job_file_may_be_the_json_of_the_api() {
    let text = json!({"Job": {"ID": "a", "Name": "a", "TaskGroups": [{"Name": "g"}]}}).to_string();
    let parsed = parse(&text).expect("a job");
    assert_eq!((parsed.job.id.as_str(), parsed.job.task_groups[0].name.as_str()), ("a", "g"));
    let broken = parse("{\n \"ID\": \"a\",\n").expect_err("cut off");
    assert!(broken.starts_with("test.nomad:"), "{broken}");
}

#[test]
fn a_job_file_may_be_hcl_in_json() {
    let text = json!({"variable": {"n": {"default": 2}}, "job": {"x": {
        "type": "batch", "meta": {"a": "${upper(\"b\")}"},
        "group": {"g": {"count": "${var.n}", "task": {"t": {
            "driver": "docker", "config": {"image": "i", "m": {"k": "v"}, "args": ["${NOMAD_X}"]},
            "template": [{"data": "a", "destination": "b"}, {"data": "c", "destination": "d"}],
        }}, "network": {"port": {"http": {"static": 80}, "x": {}}}}},
    }}})
    .to_string();
    let job = parse(&text).expect("a job").job;
    assert_eq!((job.id.as_str(), job.kind.as_str(), job.meta["a"].as_str()), ("x", "batch", "B"));
    let group = &job.task_groups[0];
    assert_eq!(group.count, Some(2));
    assert_eq!(group.networks[0].reserved_ports[0].value, 80);
    let task = &group.tasks[0];
    assert_eq!(task.templates.len(), 2);
    assert_eq!(task.config["m"], json!({"k": "v"}));
    assert_eq!(task.config["args"], json!(["${NOMAD_X}"]));
}

#[test]
fn blocks_of_hcl_in_json_may_stand_in_lists_and_have_comments_and_be_dynamic() {
    let text = json!({
        "//": "nothing", "variable": [{"n": {"default": 2}}, {"m": {"type": "string", "default": "z"}}],
        "locals": [{"a": "${var.m}1"}, {"b": "${local.a}2", "//": "neither"}],
        "job": [{"x": [{
            "meta": {"c": "${local.b}"}, "update": null,
            "group": [{"g": [{"task": {"t": {
                "driver": "docker", "config": {"image": "i", "//": "nor this"},
            }}, "network": [{"dynamic": {"port": {
                "for_each": {"http": 80, "db": 5432}, "labels": ["${port.key}"], "content": {"to": "${port.value}"},
            }}}]}]}],
        }]}],
    })
    .to_string();
    let job = parse(&text).expect("a job").job;
    assert_eq!((job.id.as_str(), job.meta["c"].as_str()), ("x", "z12"));
    let group = &job.task_groups[0];
    let ports: Vec<_> =
        group.networks[0].dynamic_ports.iter().map(|port| (port.label.as_str(), port.to)).collect();
    assert_eq!(ports, [("db", 5432), ("http", 80)]);
    assert_eq!(Value::Object(group.tasks[0].config.clone()), json!({"image": "i"}));
}

#[test]
fn numbers_of_any_size_are_stored_as_they_are_read() {
    for number in
        ["8099999999999999999999999", "0.1", "1e308", "-2.2250738585072014e-308", "123456789.123456789"]
    {
        let text =
            with("", "", "").replace("command = \"true\"", &format!("x = [{number}, {{ y = {number} }}]"));
        let job = job(&text);
        let wire = serde_json::to_vec(&job).expect("a JSON form");
        let mut again = jobspec::decode_json(&wire).expect("a job");
        jobspec::canonicalize(&mut again, &Defaults::default());
        assert_eq!(job, again, "{number}");
    }
}

/// Every place of a value, as a path that `pointer` understands.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, inner)| places(inner, &format!("{at}/{key}"), out)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, inner)| places(inner, &format!("{at}/{index}"), out));
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_request_with_a_foreign_value_anywhere_is_an_answer_and_no_panic(
        place in any::<prop::sample::Index>(),
        foreign in prop_oneof![
            Just(json!(null)), Just(json!(-1)), Just(json!(i64::MAX)), Just(json!(1.5)), Just(json!("${x")), Just(json!([])),
            Just(json!({})), Just(json!([null, {"Name": "x"}])), Just(json!(true)), Just(json!({"Name": []})),
        ],
    ) {
        let text = include_str!("../../examples/docker.nomad.hcl");
        let mut job = parse(text).expect("fine").job;
        jobspec::canonicalize(&mut job, &Defaults::default());
        let mut value = serde_json::to_value(&job).expect("serializes");
        let mut all = Vec::new();
        places(&value, "", &mut all);
        if let Some(slot) = value.pointer_mut(&all[place.index(all.len())]) {
            *slot = foreign;
        }
        if let Ok(mut odd) = decode(&value) {
            jobspec::canonicalize(&mut odd, &Defaults::default());
            let found = jobspec::validate(&odd);
            let _ = (found.error_text(), found.warnings_text());
            let _ = herder::model::diff::diff(Some(&job), &odd, true);
            let _ = herder::model::diff::update_kind(&job, &odd, "front");
        }
    }
}
