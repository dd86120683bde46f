//! Properties over random clusters and requests.

use std::collections::BTreeMap;

use proptest::prelude::ProptestConfig;
use proptest::prelude::any;
use proptest::prelude::prop_assert;
use proptest::prelude::prop_assert_eq;
use proptest::proptest;
use serde_json::json;

use crate::model::allocation::Allocation;
use crate::model::audit::AuditAlloc;
use crate::model::audit::AuditInput;
use crate::model::audit::AuditNode;
use crate::model::audit::audit;
use crate::model::job::Job;
use crate::model::node::NodeInfo;
use crate::scheduler::Cluster;
use crate::scheduler::Decision;
use crate::scheduler::NodeFacts;
use crate::scheduler::Slot;

use super::fixture::alloc_id;
use super::fixture::job;
use super::fixture::node_info;
use super::fixture::run;
use super::fixture::slots;

/// A node's size and labels, from one number.
fn random_node(number: usize, seed: u32) -> NodeInfo {
    let (cpu, memory) = (1000 + i64::from(seed % 7) * 700, 1024 + i64::from(seed % 5) * 2048);
    let (dc, rack) = (seed % 3, seed % 4);
    node_info(&format!("n{} cpu={cpu} mem={memory} dc=dc{dc} meta.rack=r{rack}", number + 1)).0
}

/// A job whose features are switched by the bits of `seed`.
fn random_job(seed: u32) -> Job {
    let bit = |at: u32| seed >> at & 1 == 1;
    let mut constraints = Vec::new();
    if bit(0) {
        constraints.push(json!({"Operand": "distinct_hosts", "RTarget": ""}));
    }
    if bit(1) {
        constraints.push(json!({"LTarget": "${meta.rack}", "Operand": "distinct_property", "RTarget": "2"}));
    }
    if bit(2) {
        constraints.push(json!({"LTarget": "${node.datacenter}", "Operand": "!=", "RTarget": "dc1"}));
    }
    let mut spreads = Vec::new();
    if bit(3) {
        spreads.push(json!({"Attribute": "${node.datacenter}", "Weight": 50}));
    }
    if bit(4) {
        let target = json!([{"Value": "r1", "Percent": 50}, {"Value": "r2", "Percent": 10}]);
        spreads.push(json!({"Attribute": "${meta.rack}", "Weight": 70, "SpreadTarget": target}));
    }
    let mut affinities = Vec::new();
    if bit(5) {
        affinities.push(json!({"LTarget": "${meta.rack}", "Operand": "=", "RTarget": "r3", "Weight": 50}));
        affinities
            .push(json!({"LTarget": "${node.datacenter}", "Operand": "=", "RTarget": "dc0", "Weight": -30}));
    }
    let mut network = json!({"DynamicPorts": [{"Label": "d"}]});
    if bit(6) {
        network["ReservedPorts"] = json!([{"Label": "s", "Value": 8080}]);
    }
    let group = json!({
        "Count": 6, "Constraints": constraints, "Spreads": spreads, "Affinities": affinities,
        "Networks": if bit(7) { json!([network]) } else { json!([]) },
    });
    let resources =
        if bit(8) { json!({"Cores": 1, "MemoryMB": 300}) } else { json!({"CPU": 450, "MemoryMB": 300}) };
    job(json!({"ID": format!("j{}", seed % 3)}), group, json!({"Resources": resources}))
}

fn build<'a>(infos: impl Iterator<Item = &'a NodeInfo>) -> Cluster {
    let mut cluster = Cluster::new();
    for info in infos {
        let facts = NodeFacts { info: info.clone().into(), meta: BTreeMap::new(), ready: true };
        cluster.set_node(info.id, facts);
    }
    cluster
}

fn store(job: &Job, decision: &Decision, previous: Option<u32>) -> Vec<Allocation> {
    let placed = decision.placements.iter();
    placed
        .map(|found| Allocation {
            id: found.alloc_id,
            node_id: found.node,
            namespace: "default".to_owned(),
            job_id: job.id.clone(),
            task_group: "g".to_owned(),
            index: found.index,
            resources: found.resources.clone(),
            previous: previous.map(alloc_id),
            ..Allocation::default()
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn placements_never_break_an_invariant_and_do_not_depend_on_order(
        nodes in proptest::collection::vec(any::<u32>(), 1..12),
        seed in any::<u32>(),
    ) {
        let infos: Vec<NodeInfo> = nodes.iter().enumerate().map(|(at, seed)| random_node(at, *seed)).collect();
        let wanted = random_job(seed);
        let mut cluster = build(infos.iter());
        let decision = run(&mut cluster, &wanted, &slots(0..6));
        let mut reversed = build(infos.iter().rev());
        prop_assert_eq!(&run(&mut reversed, &wanted, &slots(0..6)), &decision);
        let mut allocs = store(&wanted, &decision, None);
        // Then every placed allocation is replaced, its predecessor still holding on.
        for number in 0..6 {
            let Some(old) = allocs.iter().find(|found| found.id == alloc_id(number)).cloned() else {
                continue;
            };
            let slot = Slot {
                index: number,
                alloc_id: alloc_id(number + 50),
                previous: Some((old.id, old.node_id)),
                replaces: true,
                ..Slot::default()
            };
            let decision = run(&mut cluster, &wanted, &[slot]);
            prop_assert!(decision.failed.is_none(), "a replacement always fits where its predecessor stands");
            let stopped = allocs.iter_mut().find(|found| found.id == old.id).unwrap();
            stopped.desired_status = crate::model::allocation::DesiredStatus::Stop;
            allocs.extend(store(&wanted, &decision, Some(number)));
        }
        let no_overrides = BTreeMap::new();
        let input = AuditInput {
            nodes: infos.iter().map(|info| AuditNode { info, meta: &no_overrides }).collect(),
            jobs: vec![&wanted],
            allocs: allocs.iter().map(|desired| AuditAlloc { desired, report: None }).collect(),
            nodes_unchanged: true,
            ..AuditInput::default()
        };
        prop_assert_eq!(audit(&input), vec![]);
    }

    #[test]
    fn usage_kept_change_by_change_equals_usage_counted_anew(
        steps in proptest::collection::vec((0u32..12, 0u32..4, 0u32..13, 1i64..900, any::<bool>()), 1..60),
    ) {
        let infos: Vec<NodeInfo> = (0..4).map(|at| random_node(at, 3)).collect();
        let mut cluster = build(infos.iter());
        let mut last = BTreeMap::new();
        let id = crate::model::id::JobId::new("default", "j");
        let set = |cluster: &mut Cluster, number: u32, step: (u32, u32, i64)| {
            let (node, previous, cpu) = step;
            let resources = serde_json::from_value(json!({"Tasks": {"x": {"Cpu": {"CpuShares": cpu}}}, "Shared": {
                "DiskMB": 0, "Ports": [{"Label": "p", "Value": 100 + cpu % 10, "HostIP": "10.0.0.1"}]}})).unwrap();
            cluster.set_alloc(&crate::scheduler::AllocFacts {
                id: alloc_id(number),
                node: infos[node as usize].id,
                job: &id,
                group: "g",
                tasks: None,
                resources: &resources,
                // Predecessors are older, as in life.
                previous: (previous < number).then(|| alloc_id(previous)),
                holding: true,
                stopping: cpu % 2 == 0,
            });
        };
        for (number, node, previous, cpu, is_set) in steps {
            if is_set {
                set(&mut cluster, number, (node, previous, cpu));
                last.insert(number, (node, previous, cpu));
            } else {
                cluster.forget_alloc(alloc_id(number));
                last.remove(&number);
            }
        }
        let mut anew = build(infos.iter());
        for (number, step) in last.iter().rev() {
            set(&mut anew, *number, *step);
        }
        for (at, info) in infos.iter().enumerate() {
            prop_assert_eq!(cluster.usage(info.id), anew.usage(info.id));
            prop_assert_eq!(&cluster.nodes[at].ports, &anew.nodes[at].ports);
        }
    }

    #[test]
    fn many_slots_at_once_choose_like_one_at_a_time(
        nodes in proptest::collection::vec(any::<u32>(), 1..12),
        seed in any::<u32>(),
    ) {
        let infos: Vec<NodeInfo> = nodes.iter().enumerate().map(|(at, seed)| random_node(at, *seed)).collect();
        let wanted = random_job(seed);
        let together = run(&mut build(infos.iter()), &wanted, &slots(0..8));
        let mut cluster = build(infos.iter());
        for (at, slot) in slots(0..8).iter().enumerate() {
            // A fresh request scans all nodes and ranks them anew: its best score is the true maximum.
            let alone = run(&mut cluster, &wanted, std::slice::from_ref(slot));
            prop_assert_eq!(alone.placements.first(), together.placements.get(at));
            if let Some(placed) = alone.placements.first() {
                let best = &alone.metric.score_meta_data[0];
                prop_assert!((best.norm_score - placed.score.norm_score).abs() < 1e-12);
            }
        }
    }
}
