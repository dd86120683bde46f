//! Ports: static, dynamic, per address, and the older task networks.

use serde_json::Value;
use serde_json::json;

use crate::model::job::Job;
use crate::scheduler::Slot;

use super::fixture::alloc_id;
use super::fixture::check;
use super::fixture::cluster;
use super::fixture::job;
use super::fixture::node_id;
use super::fixture::run;
use super::fixture::show;
use super::fixture::slots;

fn with_network(network: Value) -> Job {
    job(json!({}), json!({"Networks": [network]}), json!({}))
}

#[test]
fn a_static_port_is_granted_once_per_address() {
    let http = with_network(json!({"ReservedPorts": [{"Label": "http", "Value": 8080}]}));
    check("n1\nn2", &http, 3, "n1 n2 | 1 unplaced: [network: reserved port collision http=8080]=2");
    check(
        "n1 ip=default:fd00::1",
        &http,
        3,
        "n1 n1 | 1 unplaced: [network: reserved port collision http=8080]=1",
    );
    check(
        "n1 reserved_ports=80,8000-8100",
        &http,
        1,
        "| 1 unplaced: [network: reserved port collision http=8080]=1",
    );
}

#[test]
fn only_the_first_network_of_a_group_gets_ports() {
    let first = json!({"DynamicPorts": [{"Label": "a"}]});
    let second = json!({"DynamicPorts": [{"Label": "b"}], "ReservedPorts": [{"Label": "c", "Value": 8080}]});
    let job = job(json!({}), json!({"Networks": [first, second]}), json!({}));
    let decision = run(&mut cluster("n1"), &job, &slots(0..1));
    let ports = &decision.placements[0].resources.shared.ports;
    assert_eq!(ports.iter().map(|port| port.label.as_str()).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn colliding_ports_may_be_ignored() {
    let http =
        with_network(json!({"ReservedPorts": [{"Label": "http", "Value": 8080, "IgnoreCollision": true}]}));
    check("n1", &http, 2, "n1 n1");
}

#[test]
fn host_networks_are_found_by_name() {
    let public = with_network(json!({"DynamicPorts": [{"Label": "p", "HostNetwork": "public", "To": -1}]}));
    check("n1", &public, 1, "| 1 unplaced: [missing host network \"public\" for port \"p\"]=1");
    let decision = run(&mut cluster("n1\nn2 ip=public:1.2.3.4"), &public, &slots(0..1));
    let shared = &decision.placements[0].resources.shared;
    assert_eq!((shared.ports[0].host_ip.as_str(), shared.ports[0].to), ("1.2.3.4", -1));
    assert_eq!(shared.networks[0].dynamic_ports[0].value, i64::from(shared.ports[0].value));
    assert_eq!(shared.networks[0].device, "eth0");
    check("n1", &with_network(json!({"Mode": "bridge"})), 1, "| 1 unplaced: [missing network]=1");
    check("n1", &with_network(json!({"Mode": "none"})), 1, "n1");
}

#[test]
fn dynamic_ports_are_all_used_before_selection_fails() {
    let two = with_network(json!({"DynamicPorts": [{"Label": "a"}, {"Label": "b"}]}));
    let nodes = "n1 dynamic=20000-20005 reserved_ports=20001 cpu=99999 mem=99999";
    let decision = run(&mut cluster(nodes), &two, &slots(0..3));
    assert_eq!(show(&decision), "n1 n1 | 1 unplaced: [network: dynamic port selection failed]=1");
    let mut ports: Vec<u16> =
        decision.placements.iter().flat_map(|found| found.resources.host_ports()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 4);
    assert!(!ports.contains(&20001));
}

#[test]
fn older_task_networks_get_ports_on_the_node_address() {
    let network = json!({"MBits": 10, "ReservedPorts": [{"Label": "http", "Value": 80}], "DynamicPorts": [{"Label": "db"}]});
    let old =
        job(json!({}), json!({}), json!({"Resources": {"CPU": 5, "MemoryMB": 10, "Networks": [network]}}));
    let decision = run(&mut cluster("n1"), &old, &slots(0..2));
    assert_eq!(show(&decision), "n1 | 1 unplaced: [network: reserved port collision http=80]=1");
    let granted = &decision.placements[0].resources.tasks["t"].networks[0];
    assert_eq!((granted.ip.as_str(), granted.device.as_str()), ("10.0.1.1", "eth0"));
    assert!((20_000..=32_000).contains(&granted.dynamic_ports[0].value));
}

#[test]
fn a_replacement_takes_over_the_port_of_the_allocation_it_replaces() {
    let http = with_network(json!({"ReservedPorts": [{"Label": "http", "Value": 8080}]}));
    let mut cluster = cluster("n1 cpu=600");
    assert_eq!(show(&run(&mut cluster, &http, &slots(0..1))), "n1");
    let replacement = Slot {
        alloc_id: alloc_id(7),
        previous: Some((alloc_id(0), node_id("n1"))),
        replaces: true,
        ..Slot::default()
    };
    assert_eq!(show(&run(&mut cluster, &http, std::slice::from_ref(&replacement))), "n1");
    assert_eq!(cluster.usage(node_id("n1")).unwrap().1, [500, 256, 300]);
    let other = Slot { alloc_id: alloc_id(8), ..Slot::default() };
    assert!(run(&mut cluster, &http, &[other]).failed.is_some());
}
