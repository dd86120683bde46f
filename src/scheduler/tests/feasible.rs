//! Filters: every operator, and Nomad's reasons.

use serde_json::json;

use crate::model::allocation::AllocMetric;
use crate::scheduler::attribute::Comparison;
use crate::scheduler::attribute::glob_matches;

use super::fixture::check;
use super::fixture::cluster;
use super::fixture::job;
use super::fixture::node_id;
use super::fixture::run;
use super::fixture::slots;
use crate::scheduler::Unfit;
use crate::scheduler::check_node;
use crate::scheduler::still_fits;

#[test]
fn operators_compare_as_nomad_does() {
    for (left, operator, right, expected) in [
        (Some("a"), "=", Some("a"), true),
        (Some("a"), "is", Some("b"), false),
        (None, "=", None, false),
        (None, "!=", Some("a"), true),
        (None, "!=", None, false),
        (Some("a"), "not", None, true),
        (Some("9"), "<", Some("10"), true),
        (Some("10"), ">", Some("9a"), false),
        (Some("1.5"), ">=", Some("1"), true),
        (Some("b"), ">", Some("a"), true),
        (None, "<", Some("1"), false),
        (Some("abc"), "regexp", Some("b"), true),
        (Some("abc"), "regexp", Some("^b"), false),
        (Some("abc"), "regexp", Some("("), false),
        (None, "regexp", Some("."), false),
        (Some("a, b,c"), "set_contains", Some("b,a"), true),
        (Some("a,b"), "set_contains_all", Some("a,d"), false),
        (Some("a,b"), "set_contains_any", Some("d, b"), true),
        (None, "set_contains_any", Some("d"), false),
        (Some("1.2.3"), "version", Some("~> 1.2"), true),
        (None, "version", Some("> 0"), false),
        (Some("6.1.0-18-amd64"), "semver", Some(">= 5.0"), true),
        (Some("x"), "is_set", Some(""), true),
        (None, "is_set", Some(""), false),
        (None, "is_not_set", Some(""), true),
        (Some("a"), "nonsense", Some("a"), false),
    ] {
        let found = Comparison::new("${attr.l}", operator, "${attr.r}").holds(left, right);
        assert_eq!(found, expected, "{left:?} {operator} {right:?}");
        if let Some(right) = right {
            let found = Comparison::new("${attr.l}", operator, right).holds(left, Some(right));
            assert_eq!(found, expected, "{left:?} {operator} literal {right:?}");
        }
    }
}

#[test]
fn targets_are_whole_interpolations_or_literals() {
    let one = |left: &str, operator: &str, right: &str| {
        let constraint = json!({"LTarget": left, "Operand": operator, "RTarget": right});
        let nodes = "n1 attr.kernel.name=linux class=big meta.unique.x=1";
        let job = job(json!({"Constraints": [constraint]}), json!({}), json!({}));
        run(&mut cluster(nodes), &job, &slots(0..1)).placements.len() == 1
    };
    for (left, operator, right, expected) in [
        ("${attr.kernel.name}", "=", "linux", true),
        ("${attr.kernel.name}x", "is_set", "", false),
        ("x-${attr.kernel.name}", "is_set", "", true),
        ("${node.region}", "is_set", "", false),
        ("${env.HOME}", "!=", "x", true),
        ("${node.class}", "=", "big", true),
        ("${node.pool}", "=", "default", true),
        ("${node.unique.name}", "=", "n1", true),
        ("${meta.unique.x}", "=", "1", true),
        ("${meta.unique.x}", "=", "2", false),
        ("b", ">", "a", true),
    ] {
        assert_eq!(one(left, operator, right), expected, "{left} {operator} {right}");
    }
}

#[test]
fn unequal_is_true_when_the_attribute_is_missing_and_mixed_texts_are_literals() {
    let fits = |left: &str, operator: &str, right: &str| {
        let constraint = json!({"LTarget": left, "Operand": operator, "RTarget": right});
        let job = job(json!({"Constraints": [constraint]}), json!({}), json!({}));
        run(&mut cluster("n1 attr.a=1"), &job, &slots(0..1)).placements.len() == 1
    };
    assert!(fits("${attr.missing}", "!=", "1"));
    assert!(!fits("${attr.a}", "!=", "1"));
    assert!(fits("x-${attr.a}", "=", "x-${attr.a}"));
    assert!(!fits("x-${attr.a}", "=", "x-1"));
}

#[test]
fn refusals_are_counted_by_reason() {
    let constraint = json!({"LTarget": "${meta.x}", "Operand": "is_set", "RTarget": ""});
    let nodes = "n1 meta.x=1 mem=100\nn2\nn3 class=c sick\nn4 down\nn5 dc=far\nn6 pool=p";
    let wanted = job(json!({"Datacenters": ["dc*"]}), json!({"Constraints": [constraint]}), json!({}));
    check(nodes, &wanted, 2, "| 2 unplaced: [${meta.x} is_set ]=1 [missing drivers]=1 [memory]=1");
    let decision = run(&mut cluster(nodes), &wanted, &slots(0..2));
    let (metric, unplaced) = decision.failed.unwrap();
    assert_eq!(unplaced, [0, 1]);
    assert_eq!((metric.nodes_evaluated, metric.nodes_filtered, metric.nodes_exhausted), (3, 2, 1));
    assert_eq!((metric.nodes_in_pool, metric.coalesced_failures), (3, 1));
    assert_eq!(metric.nodes_available.into_iter().collect::<Vec<_>>(), [("dc1".to_owned(), 3)]);
    assert_eq!(metric.class_filtered.into_iter().collect::<Vec<_>>(), [("c".to_owned(), 1)]);
    assert_eq!(metric.resources_exhausted["t"].memory_mb, 512);
    let nowhere = job(json!({"Datacenters": ["mars"]}), json!({}), json!({}));
    let decision = run(&mut cluster(nodes), &nowhere, &slots(0..1));
    let metric = decision.failed.unwrap().0;
    assert_eq!(metric.nodes_available, [("mars".to_owned(), 0)].into());
    assert_eq!(AllocMetric { nodes_available: [].into(), ..metric }, AllocMetric::default());
}

#[test]
fn dimensions_are_named() {
    let wish = |resources: serde_json::Value| job(json!({}), json!({}), json!({"Resources": resources}));
    check("n1 reserved_cpu=3600", &wish(json!({"CPU": 500, "MemoryMB": 10})), 1, "| 1 unplaced: [cpu]=1");
    check("n1 disk=299", &wish(json!({"CPU": 5, "MemoryMB": 10})), 1, "| 1 unplaced: [disk]=1");
    check("n1", &wish(json!({"Cores": 3, "MemoryMB": 10})), 2, "n1 | 1 unplaced: [cpu]=1");
    check("n1 cpu=4000", &wish(json!({"Cores": 5, "MemoryMB": 10})), 1, "| 1 unplaced: [cpu]=1");
    let gpu = |name: &str, count: u64| json!({"CPU": 5, "MemoryMB": 10, "Devices": [{"Name": name, "Count": count}]});
    check(
        "n1 gpu=a1",
        &wish(gpu("nvidia/gpu", 1)),
        3,
        "n1 n1 | 1 unplaced: [devices: no devices match request]=1",
    );
    check("n1 gpu=a1", &wish(gpu("fpga", 1)), 1, "| 1 unplaced: [missing devices]=1");
    check("n1 gpu=a1", &wish(gpu("nvidia/gpu/a1", 3)), 1, "| 1 unplaced: [missing devices]=1");
}

#[test]
fn device_constraints_know_units() {
    let wish = |size: &str| {
        let limit = json!({"LTarget": "${device.attr.memory}", "Operand": ">=", "RTarget": size});
        let devices = json!([{"Name": "gpu", "Count": 1, "Constraints": [limit]}]);
        job(json!({}), json!({}), json!({"Resources": {"CPU": 5, "MemoryMB": 10, "Devices": devices}}))
    };
    check("n1 gpu=a1", &wish("4096 MiB"), 1, "n1");
    check("n1 gpu=a1", &wish("9 GiB"), 1, "| 1 unplaced: [missing devices]=1");
}

#[test]
fn reserved_cores_are_disjoint() {
    let wanted = job(json!({}), json!({}), json!({"Resources": {"Cores": 2, "MemoryMB": 10}}));
    let decision = run(&mut cluster("n1"), &wanted, &slots(0..2));
    let cores: Vec<&[u16]> =
        decision.placements.iter().map(|found| &found.resources.tasks["t"].cpu.reserved_cores[..]).collect();
    assert_eq!(cores, [[0, 1], [2, 3]]);
    assert_eq!(decision.placements[0].resources.tasks["t"].cpu.cpu_shares, 2000);
}

#[test]
fn distinct_hosts_and_properties_bar_nodes() {
    let distinct = |operand: &str, left: &str, right: &str| json!({"Constraints": [{"LTarget": left, "Operand": operand, "RTarget": right}]});
    let nodes = "n1 meta.rack=a\nn2 meta.rack=a\nn3 meta.rack=b\nn4";
    let on_group = job(json!({}), distinct("distinct_hosts", "", "true"), json!({}));
    check(nodes, &on_group, 5, "n1 n2 n3 n4 | 1 unplaced: [distinct_hosts]=4");
    let off = job(json!({}), distinct("distinct_hosts", "", "false"), json!({}));
    assert_eq!(run(&mut cluster("n1"), &off, &slots(0..2)).placements.len(), 2);
    let racks = job(json!({}), distinct("distinct_property", "${meta.rack}", ""), json!({}));
    check(
        nodes,
        &racks,
        3,
        "n1 n3 | 1 unplaced: [distinct_property: ${meta.rack}=a used by 1 allocs]=2 \
         [distinct_property: ${meta.rack}=b used by 1 allocs]=1 [missing property \"${meta.rack}\"]=1",
    );
    let two = job(distinct("distinct_property", "${meta.rack}", "2"), json!({}), json!({}));
    assert_eq!(run(&mut cluster(nodes), &two, &slots(0..9)).placements.len(), 4);
}

#[test]
fn volumes_must_exist_and_be_writable() {
    let volume = |read_only: bool, per_alloc: bool| {
        let volume = json!({"Name": "v", "Type": "host", "Source": "data", "ReadOnly": read_only, "PerAlloc": per_alloc});
        job(json!({}), json!({"Volumes": {"v": volume}}), json!({}))
    };
    let nodes = "n1\nn2 ro_volume=data\nn3 volume=data";
    check(nodes, &volume(false, false), 1, "n3");
    check(
        "n1\nn2 ro_volume=data",
        &volume(false, false),
        1,
        "| 1 unplaced: [missing compatible host volumes]=2",
    );
    check("n2 ro_volume=data", &volume(true, false), 1, "n2");
    check("n1 volume=data[1]\nn2 volume=data[0]", &volume(false, true), 2, "n2 n1");
}

#[test]
fn one_node_can_be_asked_alone() {
    let cluster = cluster("n1 meta.x=1\nn2 down");
    let any = job(json!({}), json!({}), json!({}));
    assert_eq!(check_node(&cluster, &any, &any.task_groups[0], node_id("n1")), Ok(()));
    assert_eq!(check_node(&cluster, &any, &any.task_groups[0], node_id("n2")), Err(Unfit::NotReady));
    assert_eq!(check_node(&cluster, &any, &any.task_groups[0], node_id("n3")), Err(Unfit::UnknownNode));
    let stays = |job: &crate::model::job::Job, node: &str| {
        still_fits(&cluster, job, &job.task_groups[0], node_id(node), super::fixture::alloc_id(1))
    };
    assert!(stays(&any, "n2"), "an ineligible node keeps what it has");
    assert!(!stays(&job(json!({"Datacenters": ["mars"]}), json!({}), json!({})), "n1"));
}

#[test]
fn patterns_match_whole_names() {
    for (pattern, text, expected) in [
        ("*", "dc1", true),
        ("dc*", "dc1", true),
        ("dc", "dc1", false),
        ("a*c*", "abcd", true),
        ("a*a", "a", false),
    ] {
        assert_eq!(glob_matches(pattern, text), expected, "{pattern} {text}");
    }
}
