//! Bookkeeping: chains of replacements, unknown nodes, dry runs.

use serde_json::json;

use crate::model::id::JobId;
use crate::model::resources::AllocatedResources;
use crate::scheduler::AllocFacts;
use crate::scheduler::Cluster;
use crate::scheduler::Slot;
use crate::scheduler::footprint;

use super::fixture::alloc_id;
use super::fixture::cluster;
use super::fixture::job;
use super::fixture::node_id;
use super::fixture::occupy;
use super::fixture::run;
use super::fixture::show;
use super::fixture::slots;

fn set(cluster: &mut Cluster, number: u32, cpu: i64, previous: Option<u32>) {
    let resources: AllocatedResources =
        serde_json::from_value(json!({"Tasks": {"x": {"Cpu": {"CpuShares": cpu}}}, "Shared": {}})).unwrap();
    cluster.set_alloc(&AllocFacts {
        id: alloc_id(number),
        node: node_id("n1"),
        job: &JobId::new("default", "j"),
        group: "g",
        tasks: None,
        resources: &resources,
        previous: previous.map(alloc_id),
        holding: true,
        stopping: false,
    });
}

#[test]
fn a_chain_of_replacements_is_charged_at_its_maximum_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [0, 2, 1]] {
        let mut cluster = cluster("n1");
        for number in order {
            let (cpu, previous) = [(100, None), (300, Some(0)), (200, Some(1))][number];
            set(&mut cluster, number as u32, cpu, previous);
        }
        assert_eq!(cluster.usage(node_id("n1")).unwrap().1[0], 300, "{order:?}");
        cluster.forget_alloc(alloc_id(1));
        assert_eq!(cluster.usage(node_id("n1")).unwrap().1[0], 300, "two that are no longer linked add up");
        cluster.forget_alloc(alloc_id(0));
        assert_eq!(cluster.usage(node_id("n1")).unwrap().1[0], 200);
    }
}

#[test]
fn two_replacements_of_one_allocation_add_up() {
    let mut cluster = cluster("n1");
    set(&mut cluster, 0, 300, None);
    set(&mut cluster, 1, 200, Some(0));
    set(&mut cluster, 2, 200, Some(0));
    assert_eq!(cluster.usage(node_id("n1")).unwrap().1[0], 400);
}

#[test]
fn allocations_may_be_known_before_their_node() {
    let mut cluster = Cluster::new();
    occupy(&mut cluster, 1, "n1", 3800, 10);
    assert_eq!(cluster.usage(node_id("n1")), None);
    let (info, ready) = super::fixture::node_info("n1");
    let facts = crate::scheduler::NodeFacts { info: info.into(), meta: Default::default(), ready };
    cluster.set_node(node_id("n1"), facts);
    assert_eq!(
        show(&run(&mut cluster, &job(json!({}), json!({}), json!({})), &slots(0..1))),
        "| 1 unplaced: [cpu]=1"
    );
    cluster.remove_node(node_id("n1"));
    assert_eq!(cluster.usage(node_id("n1")), None);
    cluster.forget_alloc(alloc_id(1));
    assert_eq!(cluster.alloc_count(), 0);
}

#[test]
fn a_dry_run_leaves_no_trace() {
    let mut cluster = cluster("n1\nn2");
    occupy(&mut cluster, 100, "n1", 1000, 1000);
    let before = (cluster.usage(node_id("n1")), cluster.usage(node_id("n2")), cluster.alloc_count());
    let wanted = job(json!({}), json!({"Count": 4}), json!({}));
    cluster.checkpoint();
    let tried = run(&mut cluster, &wanted, &slots(0..4));
    cluster.rollback();
    assert_eq!((cluster.usage(node_id("n1")), cluster.usage(node_id("n2")), cluster.alloc_count()), before);
    assert_eq!(run(&mut cluster, &wanted, &slots(0..4)), tried);
}

#[test]
fn a_destructive_update_fits_where_its_predecessor_stands() {
    let wanted = job(json!({}), json!({"Constraints": [{"Operand": "distinct_hosts"}]}), json!({}));
    let mut cluster = cluster("n1 cpu=700\nn2 cpu=700");
    assert_eq!(show(&run(&mut cluster, &wanted, &slots(0..2))), "n1 n2");
    let updates: Vec<Slot> = [(2, 0, "n1"), (3, 1, "n2")]
        .map(|(new, old, node)| Slot {
            index: old,
            alloc_id: alloc_id(new),
            previous: Some((alloc_id(old), node_id(node))),
            replaces: true,
            ..Slot::default()
        })
        .into();
    assert_eq!(show(&run(&mut cluster, &wanted, &updates)), "n1 n2");
}

#[test]
fn pinned_slots_go_to_their_node_or_nowhere() {
    let wanted = job(json!({"Type": "system"}), json!({}), json!({}));
    let mut cluster = cluster("n1\nn2 cpu=100\nn3 down");
    let pinned: Vec<Slot> = [(0, "n1"), (1, "n2"), (2, "n3")]
        .map(|(number, node)| Slot {
            alloc_id: alloc_id(number),
            pinned_node: Some(node_id(node)),
            ..Slot::default()
        })
        .into();
    let decision = run(&mut cluster, &wanted, &pinned);
    assert_eq!(decision.placements.len(), 1);
    let reasons: Vec<String> = decision.refusals.iter().map(|found| found.reason.to_string()).collect();
    assert_eq!(reasons, ["cpu", "node is not ready"]);
}

#[test]
fn preferred_nodes_are_taken_whatever_their_score() {
    let wanted = job(json!({}), json!({}), json!({}));
    let mut cluster = cluster("n1\nn2");
    occupy(&mut cluster, 100, "n1", 3000, 4000);
    let sticky = Slot { preferred_node: Some(node_id("n2")), ..slots(0..1).remove(0) };
    assert_eq!(show(&run(&mut cluster, &wanted, &[sticky])), "n2");
}

#[test]
fn tasks_that_never_run_at_once_share_resources() {
    let task = |name: &str, hook: &str, sidecar: bool, cpu: i64| {
        json!({"Name": name, "Driver": "exec", "Resources": {"CPU": cpu, "MemoryMB": 100},
            "Lifecycle": {"Hook": hook, "Sidecar": sidecar}})
    };
    let main = json!({"Name": "main", "Driver": "exec", "Resources": {"CPU": 400, "MemoryMB": 100}});
    let tasks = json!([
        task("init", "prestart", false, 900),
        task("side", "prestart", true, 50),
        main,
        task("end", "poststop", false, 300)
    ]);
    let wanted = job(json!({}), json!({"Tasks": tasks}), json!({}));
    let mut cluster = cluster("n1");
    let decision = run(&mut cluster, &wanted, &slots(0..1));
    assert_eq!(cluster.usage(node_id("n1")).unwrap().1, [950, 200, 300]);
    let resources = &decision.placements[0].resources;
    assert_eq!(footprint(Some(&wanted.task_groups[0]), resources).charge, [950, 200, 300]);
    assert_eq!(footprint(None, resources).charge, [1650, 400, 300]);
}
