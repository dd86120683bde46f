//! Nodes, allocations, services, lists with pages and filters.

use herder::model::allocation::ClientStatus;
use herder::model::evaluation::EvalStatus;
use herder::model::evaluation::Evaluation;
use herder::model::id::EvalId;
use herder::model::service::ServiceRegistration;
use herder::store::key::Key;
use serde_json::json;

use crate::harness::Cluster;
use crate::harness::job;

#[tokio::test]
async fn nodes_are_listed_and_shown() {
    let cluster = Cluster::start().await;
    let id = cluster.node("alpha").await;
    let listed = cluster.get("/v1/nodes?os=true&resources=true").await;
    assert_eq!(listed.json[0]["Name"], "alpha");
    assert_eq!(listed.json[0]["Address"], "127.0.0.1");
    assert_eq!(listed.json[0]["Attributes"], json!({"os.name": "debian"}));
    let shown = cluster.get(&format!("/v1/node/{id}")).await;
    assert_eq!(
        (&shown.json["Status"], &shown.json["SchedulingEligibility"]),
        (&json!("ready"), &json!("eligible"))
    );
    assert_eq!(shown.json["SecretID"], "");
    assert_eq!(shown.index(), listed.index());
    let unknown = cluster.get("/v1/node/00000000-0000-4000-8000-000000000000").await;
    assert_eq!((unknown.status.as_u16(), unknown.text.as_str()), (404, "node not found"));
    let wrong = cluster.get("/v1/node/abc").await;
    assert_eq!(
        (wrong.status.as_u16(), wrong.text.as_str()),
        (500, "node lookup failed: index error: UUID must be 36 characters")
    );
    let bad = cluster.get("/v1/nodes?os=maybe").await;
    assert_eq!(bad.status, 400);
    assert!(bad.text.starts_with("Failed to parse node list fields: "), "{}", bad.text);
    let prefix = &id.to_string()[..3];
    assert_eq!(cluster.get(&format!("/v1/nodes?prefix={prefix}")).await.json[0]["ID"], json!(id));
}

#[tokio::test]
async fn drains_and_eligibility_are_written_for_the_node() {
    let cluster = Cluster::start().await;
    let id = cluster.node("alpha").await;
    let body = json!({"DrainSpec": {"Deadline": 60_000_000_000_i64, "IgnoreSystemJobs": true}, "Meta": {"why": "x"}});
    let drained = cluster.write(&format!("/v1/node/{id}/drain"), body).await;
    assert_eq!(drained.status, 200, "{}", drained.text);
    let shown = cluster.get(&format!("/v1/node/{id}")).await.json;
    assert_eq!(shown["Drain"], true);
    assert_eq!(shown["DrainStrategy"]["Deadline"], 60_000_000_000_i64);
    assert_eq!(shown["SchedulingEligibility"], "ineligible");
    assert_eq!(
        (&shown["LastDrain"]["Status"], &shown["LastDrain"]["Meta"]["why"]),
        (&json!("draining"), &json!("x"))
    );
    let refused =
        cluster.write(&format!("/v1/node/{id}/eligibility"), json!({"Eligibility": "eligible"})).await;
    assert_eq!(refused.text, "can not set node's scheduling eligibility to eligible while it is draining");
    let ended = cluster.write(&format!("/v1/node/{id}/drain"), json!({"MarkEligible": true})).await;
    assert_eq!(ended.status, 200);
    let shown = cluster.get(&format!("/v1/node/{id}")).await.json;
    assert_eq!((&shown["Drain"], &shown["LastDrain"]["Status"]), (&json!(false), &json!("canceled")));
    let same = cluster.write(&format!("/v1/node/{id}/eligibility"), json!({"Eligibility": "eligible"})).await;
    assert_eq!((same.status.as_u16(), same.index()), (200, 0));
    let meta =
        cluster.write(&format!("/v1/client/metadata?node_id={id}"), json!({"Meta": {"rack": "r1"}})).await;
    assert_eq!((&meta.json["Meta"], &meta.json["Dynamic"]), (&json!({"rack": "r1"}), &json!({"rack": "r1"})));
    assert_eq!(cluster.write(&format!("/v1/node/{id}/purge"), json!({})).await.status, 200);
    assert_eq!(cluster.get("/v1/nodes").await.json, json!([]));
}

#[tokio::test]
async fn an_allocation_is_composed_of_decision_report_job_and_metric() {
    let cluster = Cluster::start().await;
    cluster.register(job("web")).await;
    let node = cluster.node("alpha").await;
    let shown = cluster.get("/v1/job/web").await.json;
    let eval = EvalId::from_random([3; 16]);
    let mut evaluation = Evaluation {
        id: eval,
        namespace: "default".into(),
        job_id: "web".into(),
        status: EvalStatus::Complete,
        ..Evaluation::default()
    };
    evaluation.placed_groups.entry("web".into()).or_default().nodes_evaluated = 7;
    cluster.put(&Key::Evaluation(evaluation.job(), eval), &evaluation).await;
    let first = cluster.place(node, &shown, |alloc| alloc.eval_id = eval).await;
    let second = cluster.place(node, &shown, |alloc| alloc.previous = Some(first)).await;
    cluster
        .report(node, first, |report| {
            report.client_status = ClientStatus::Failed;
            report.client_description = "Failed tasks".into();
            report.task_states.entry("server".into()).or_default().failed = true;
        })
        .await;
    let alloc = cluster.get(&format!("/v1/allocation/{first}")).await;
    assert_eq!(alloc.json["Name"], "web.web[0]");
    assert_eq!((&alloc.json["ClientStatus"], &alloc.json["NodeName"]), (&json!("failed"), &json!("alpha")));
    assert_eq!(alloc.json["NextAllocation"], json!(second));
    assert_eq!(alloc.json["Job"]["ID"], "web");
    assert_eq!(alloc.json["Metrics"]["NodesEvaluated"], 7);
    assert_eq!(alloc.json["TaskStates"]["server"]["Failed"], true);
    assert_eq!(alloc.json["DesiredTransition"]["Migrate"], json!(null));
    assert_eq!(alloc.index(), alloc.json["ModifyIndex"].as_i64().unwrap());
    assert_eq!(cluster.get(&format!("/v1/evaluation/{eval}/allocations")).await.json[0]["ID"], json!(first));
    assert_eq!(cluster.get(&format!("/v1/node/{node}/allocations")).await.json[0]["Job"]["ID"], "web");
    assert_eq!(cluster.get("/v1/job/web/allocations").await.json.as_array().unwrap().len(), 2);
    assert_eq!(cluster.get("/v1/allocations?task_states=false").await.json[0]["TaskStates"], json!(null));

    let stopped = cluster.write(&format!("/v1/allocation/{second}/stop"), json!({})).await;
    assert_ne!(stopped.json["EvalID"], "");
    let asked = cluster.get(&format!("/v1/allocation/{second}")).await.json;
    assert_eq!(asked["DesiredTransition"]["Migrate"], true);
}

#[tokio::test]
async fn lists_are_paged_and_filtered() {
    let cluster = Cluster::start().await;
    for id in ["a", "b", "c"] {
        cluster.register(job(id)).await;
    }
    let first = cluster.get("/v1/jobs?per_page=2").await;
    assert_eq!(first.json.as_array().unwrap().len(), 2);
    assert_eq!(first.headers["x-nomad-nexttoken"], "default.c");
    let second = cluster.get("/v1/jobs?per_page=2&next_token=default.c").await;
    assert_eq!(second.json[0]["ID"], "c");
    assert!(!second.headers.contains_key("x-nomad-nexttoken"));
    assert_eq!(cluster.get("/v1/jobs?reverse=true").await.json[0]["ID"], "c");
    let filtered = cluster.get("/v1/jobs?filter=ID+%3D%3D+%22b%22+and+Type+%3D%3D+%22service%22").await;
    assert_eq!(filtered.json.as_array().unwrap().len(), 1, "{}", filtered.text);
    let wrong = cluster.get("/v1/jobs?filter=nonsense").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text.starts_with("failed to create result paginator: failed to read filter expression: "));
    let evals = cluster.get("/v1/evaluations?per_page=1").await;
    assert_eq!(evals.json[0]["JobID"], "a");
    let token = evals.headers["x-nomad-nexttoken"].to_str().unwrap();
    assert_eq!(cluster.get(&format!("/v1/evaluations?next_token={token}")).await.json[0]["JobID"], "b");
    assert_eq!(cluster.get("/v1/evaluations/count").await.json["Count"], 3);
    assert_eq!(cluster.get("/v1/jobs?per_page=x").await.status, 400);
    assert_eq!(cluster.get("/v1/jobs?namespace=other").await.json, json!([]));
    assert_eq!(cluster.get("/v1/jobs?namespace=*").await.json.as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn services_are_grouped_and_chosen() {
    let cluster = Cluster::start().await;
    let node = cluster.node("alpha").await;
    for (id, tag) in [("s1", "x"), ("s2", "y")] {
        let service = ServiceRegistration {
            id: id.into(),
            service_name: "db".into(),
            namespace: "default".into(),
            tags: vec![tag.into()],
            ..ServiceRegistration::default()
        };
        cluster.put(&Key::Service(node, id.into()), &service).await;
    }
    let listed = cluster.get("/v1/services").await;
    assert_eq!(
        listed.json,
        json!([{"Namespace": "default", "Services": [{"ServiceName": "db", "Tags": ["x", "y"]}]}])
    );
    let tagged = cluster.get("/v1/service/db?filter=Tags+contains+%22y%22").await;
    assert_eq!(tagged.json[0]["ID"], "s2", "{}", tagged.text);
    assert_eq!(cluster.get("/v1/service/db?choose=1%7Ckey").await.json.as_array().unwrap().len(), 1);
    assert_eq!(cluster.get("/v1/service/db?choose=many").await.status, 400);
    assert_eq!(cluster.get("/v1/service/nope").await.json, json!([]));
}

#[tokio::test]
async fn pools_and_namespaces_are_made_and_guarded() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.get("/v1/namespaces").await.json[0]["Name"], "default");
    let made = cluster.write("/v1/namespace", json!({"Name": "team", "Description": "d"})).await;
    assert_eq!((made.status.as_u16(), made.text.as_str()), (200, ""), "{}", made.text);
    let mut own = job("web");
    own["Namespace"] = json!("team");
    cluster.register(own).await;
    assert_eq!(cluster.get("/v1/job/web?namespace=team").await.json["Namespace"], "team");
    assert_eq!(cluster.get("/v1/job/web").await.status, 404);
    let busy = cluster.call("DELETE", "/v1/namespace/team", "").await;
    assert!(
        busy.text.contains("namespace \"team\" has non-terminal jobs in regions: [global]"),
        "{}",
        busy.text
    );
    assert_eq!(cluster.get("/v1/namespace/x").await.text, "Namespace not found");

    assert_eq!(cluster.get("/v1/node/pools").await.json.as_array().unwrap().len(), 2);
    assert_eq!(cluster.write("/v1/node/pools", json!({"Name": "gpu"})).await.status, 200);
    assert_eq!(cluster.get("/v1/node/pool/gpu").await.json["Name"], "gpu");
    assert_eq!(cluster.get("/v1/node/pool/gpu/nodes").await.json, json!([]));
    assert_eq!(cluster.call("DELETE", "/v1/node/pool/gpu", "").await.status, 200);
    assert_eq!(
        cluster.call("DELETE", "/v1/node/pool/all", "").await.text,
        "deleting node pool \"all\" is not allowed"
    );
}
