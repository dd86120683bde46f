//! Scores against worked examples.

use serde_json::json;

use crate::scheduler::Algorithm;
use crate::scheduler::Request;
use crate::scheduler::Slot;
use crate::scheduler::place;

use super::fixture::check;
use super::fixture::cluster;
use super::fixture::job;
use super::fixture::node_id;
use super::fixture::node_name;
use super::fixture::occupy;
use super::fixture::run;
use super::fixture::slots;

#[track_caller]
fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 0.0002, "{found} is not near {expected}");
}

#[test]
fn an_empty_node_scores_as_in_the_worked_example() {
    let job = job(json!({}), json!({}), json!({}));
    let decision = run(&mut cluster("n1"), &job, &slots(0..1));
    let score = &decision.placements[0].score;
    near(score.norm_score, 0.1775);
    let keys: Vec<&str> = score.scores.keys().map(String::as_str).collect();
    assert_eq!(keys, ["binpack", "job-anti-affinity", "node-affinity", "node-reschedule-penalty"]);
    assert_eq!(decision.metric.score_meta_data.len(), 1);
}

#[test]
fn a_fuller_node_wins_and_anti_affinity_and_penalty_lower_the_mean() {
    let job = job(json!({}), json!({"Count": 4}), json!({}));
    let mut cluster = cluster("n1\nn2");
    occupy(&mut cluster, 100, "n2", 2000, 4096);
    let decision = run(&mut cluster, &job, &slots(0..2));
    let [first, second] = &decision.placements[..] else { panic!("two are placed") };
    assert_eq!((node_name(first.node), node_name(second.node)), ("n2".to_owned(), "n2".to_owned()));
    near(first.score.norm_score, 0.8159);
    near(second.score.scores["job-anti-affinity"], -0.5);
    near(second.score.norm_score, 0.1801);
    let penalised = Slot {
        index: 2,
        alloc_id: super::fixture::alloc_id(2),
        penalty_nodes: vec![node_id("n2")],
        ..Slot::default()
    };
    let decision = run(&mut cluster, &job, &[penalised]);
    assert_eq!(node_name(decision.placements[0].node), "n1");
}

#[test]
fn the_spread_algorithm_prefers_empty_nodes() {
    let job = job(json!({}), json!({}), json!({}));
    let mut cluster = cluster("n1\nn2");
    occupy(&mut cluster, 100, "n1", 2000, 4096);
    let slots = slots(0..1);
    let request = Request {
        job: &job,
        group: &job.task_groups[0],
        slots: &slots,
        algorithm: Algorithm::Spread,
        memory_oversubscription: false,
    };
    let decision = place(&mut cluster, &request);
    assert_eq!(node_name(decision.placements[0].node), "n2");
    near(decision.placements[0].score.norm_score, 0.8225);
}

#[test]
fn affinities_attract_and_repel() {
    let like = |weight: i64| json!({"Affinities": [{"LTarget": "${meta.rack}", "Operand": "=", "RTarget": "r2", "Weight": weight}]});
    let nodes = "n1 meta.rack=r1\nn2 meta.rack=r2";
    check(nodes, &job(like(50), json!({}), json!({})), 1, "n2");
    check(nodes, &job(like(-50), json!({}), json!({})), 1, "n1");
    let decision = run(&mut cluster(nodes), &job(like(50), json!({}), json!({})), &slots(0..1));
    near(decision.placements[0].score.norm_score, (0.1775 + 1.0) / 2.0);
    assert!(!decision.metric.score_meta_data[1].scores.contains_key("node-affinity"));
}

#[test]
fn an_even_spread_alternates_between_values() {
    let job = job(
        json!({}),
        json!({"Count": 4, "Spreads": [{"Attribute": "${node.datacenter}", "Weight": 50}]}),
        json!({}),
    );
    let decision = run(&mut cluster("n1 dc=a\nn2 dc=a\nn3 dc=b\nn4 dc=b"), &job, &slots(0..4));
    let in_a = decision.placements.iter().filter(|found| found.node <= node_id("n2")).count();
    assert_eq!(in_a, 2);
    near(decision.placements[1].score.scores["allocation-spread"], 1.0);
}

#[test]
fn target_shares_are_kept() {
    let target = |value: &str, percent: u32| json!({"Value": value, "Percent": percent});
    let spread = json!([{"Attribute": "${node.datacenter}", "Weight": 100, "SpreadTarget": [target("a", 80), target("b", 20)]}]);
    let job = job(json!({}), json!({"Count": 10, "Spreads": spread}), json!({}));
    // Enough nodes that no two allocations share one: anti-affinity stays out of the sum.
    let node = |number: u32| format!("n{number} dc={}\n", ["a", "b", "c"][(number % 3) as usize]);
    let nodes: String = (1..=30).map(node).collect();
    let decision = run(&mut cluster(&nodes), &job, &slots(0..10));
    let within =
        |dc: u128| decision.placements.iter().filter(|found| found.node.0.as_u128() % 3 == dc).count();
    assert_eq!((within(0), within(1), within(2)), (8, 2, 0));
    near(decision.placements[0].score.scores["allocation-spread"], (8.0 - 1.0) / 8.0);
}
