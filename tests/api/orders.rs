//! Deployments, search, settings, and what the agent says of itself.

use herder::model::allocation::DeploymentHealth;
use herder::model::deployment::Deployment;
use herder::model::deployment::DeploymentStatus;
use herder::model::deployment::GroupRollout;
use herder::model::id::DeploymentId;
use herder::model::id::JobId;
use herder::store::key::Key;
use serde_json::Value;
use serde_json::json;

use crate::harness::Cluster;
use crate::harness::job;

async fn deployed(cluster: &Cluster) -> (DeploymentId, Deployment, Value) {
    cluster.register(job("web")).await;
    let shown = cluster.get("/v1/job/web").await.json;
    let id = DeploymentId::from_random([5; 16]);
    let rollout = GroupRollout { desired_total: 2, desired_canaries: 1, ..GroupRollout::default() };
    let deployment = Deployment {
        id,
        namespace: "default".into(),
        job_id: "web".into(),
        job_create_index: shown["CreateIndex"].as_u64().unwrap(),
        task_groups: [("web".to_owned(), rollout)].into(),
        ..Deployment::default()
    };
    cluster.put(&Key::Deployment(deployment.job(), id), &deployment).await;
    (id, deployment, shown)
}

#[tokio::test]
async fn deployment_counters_are_derived_and_wake_readers() {
    let cluster = Cluster::start().await;
    let (id, _, shown) = deployed(&cluster).await;
    let node = cluster.node("alpha").await;
    let alloc = cluster.place(node, &shown, |alloc| alloc.deployment_id = Some(id)).await;
    let before = cluster.get(&format!("/v1/deployment/{id}")).await;
    assert_eq!(before.json["TaskGroups"]["web"]["PlacedAllocs"], 1);
    assert_eq!(before.json["TaskGroups"]["web"]["HealthyAllocs"], 0);
    let path = format!("/v1/deployment/{id}?index={}&wait=60s", before.index());
    let (after, ()) = tokio::join!(cluster.get(&path), async {
        cluster
            .report(node, alloc, |report| {
                report.deployment_status =
                    Some(DeploymentHealth { healthy: Some(true), ..DeploymentHealth::default() });
            })
            .await;
    });
    assert_eq!(after.json["TaskGroups"]["web"]["HealthyAllocs"], 1);
    assert!(after.index() > before.index());
    assert_eq!(cluster.get("/v1/job/web/deployment").await.json["ID"], json!(id));
    assert_eq!(cluster.get(&format!("/v1/deployment/allocations/{id}")).await.json[0]["ID"], json!(alloc));
    assert_eq!(cluster.get("/v1/deployments").await.json[0]["ID"], json!(id));
    cluster.register(job("other")).await;
    let none = cluster.get("/v1/job/other/deployment").await;
    assert_eq!((none.status.as_u16(), none.text.as_str()), (200, "null"));
}

#[tokio::test]
async fn orders_about_deployments_become_intents() {
    let cluster = Cluster::start().await;
    let (id, deployment, _) = deployed(&cluster).await;
    let body = |more: Value| {
        let mut body = json!({ "DeploymentID": id });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let unhealthy = cluster.write(&format!("/v1/deployment/promote/{id}"), body(json!({"All": true}))).await;
    assert_eq!(unhealthy.status, 500);
    assert!(unhealthy.text.contains("Task group \"web\" has 0/1 healthy allocations"), "{}", unhealthy.text);
    let paused = cluster.write(&format!("/v1/deployment/pause/{id}"), body(json!({"Pause": true}))).await;
    assert_eq!(paused.status, 200, "{}", paused.text);
    let resumed = cluster.write(&format!("/v1/deployment/pause/{id}"), body(json!({}))).await;
    assert_eq!(resumed.status, 200);
    let failed = cluster.write(&format!("/v1/deployment/fail/{id}"), json!({})).await;
    assert_ne!(failed.json["EvalID"], "");
    cluster.get("/v1/deployments").await;
    let names: Vec<String> = {
        let state = cluster.mirror.read();
        state.intents[&JobId::new("default", "web")].keys().cloned().collect()
    };
    assert_eq!(names, [format!("deployment/{id}/fail"), format!("deployment/{id}/resume")]);

    let ended = Deployment { status: DeploymentStatus::Failed, ..deployment.clone() };
    cluster.put(&Key::Deployment(deployment.job(), id), &ended).await;
    let late = cluster.write(&format!("/v1/deployment/fail/{id}"), json!({})).await;
    assert_eq!((late.status.as_u16(), late.text.as_str()), (500, "can't fail terminal deployment"));
    let unknown = DeploymentId::from_random([6; 16]);
    assert_eq!(
        cluster.write(&format!("/v1/deployment/fail/{unknown}"), json!({})).await.text,
        "deployment not found"
    );
}

#[tokio::test]
async fn search_finds_ids_and_names() {
    let cluster = Cluster::start().await;
    cluster.register(job("web")).await;
    let found = cluster.write("/v1/search", json!({"Prefix": "we", "Context": "all"})).await;
    assert_eq!(found.json["Matches"]["jobs"], json!(["web"]));
    assert_eq!(found.json["Truncations"]["jobs"], false);
    assert!(found.json["Matches"].get("allocs").is_none());
    let fuzzy = cluster.write("/v1/search/fuzzy", json!({"Text": "serv", "Context": "jobs"})).await;
    assert_eq!(fuzzy.json["Matches"]["tasks"], json!([{"ID": "server", "Scope": ["default", "web", "web"]}]));
    assert_eq!(cluster.write("/v1/search", json!({"Prefix": "x"})).await.status, 500);
}

#[tokio::test]
async fn the_scheduler_configuration_is_compared_and_set() {
    let cluster = Cluster::start().await;
    let path = "/v1/operator/scheduler/configuration";
    let first = cluster.get(path).await.json;
    assert_eq!(first["SchedulerConfig"]["SchedulerAlgorithm"], "binpack");
    let body = json!({"SchedulerAlgorithm": "spread"});
    let stale = cluster.write(&format!("{path}?cas=99"), body.clone()).await;
    assert_eq!((stale.status.as_u16(), &stale.json["Updated"]), (200, &json!(false)));
    let index = first["SchedulerConfig"]["ModifyIndex"].as_u64().unwrap();
    let set = cluster.write(&format!("{path}?cas={index}"), body).await;
    assert_eq!(set.json["Updated"], true);
    assert_eq!(cluster.get(path).await.json["SchedulerConfig"]["SchedulerAlgorithm"], "spread");
    let wrong = cluster.write(path, json!({"SchedulerAlgorithm": "x"})).await;
    assert_eq!((wrong.status.as_u16(), wrong.text.as_str()), (400, "invalid scheduler algorithm: x"));
}

#[tokio::test]
async fn the_agent_tells_who_it_and_its_servers_are() {
    let cluster = Cluster::start().await;
    let own = cluster.get("/v1/agent/self").await;
    assert_eq!(own.json["config"]["Region"], "global");
    assert!(!own.headers.contains_key("x-nomad-index"));
    let members = cluster.get("/v1/agent/members").await.json;
    assert_eq!(members["Members"][0]["Name"], "host.global");
    let leader = cluster.get("/v1/status/leader").await.json;
    let tags = &members["Members"][0]["Tags"];
    let addr = members["Members"][0]["Addr"].as_str().unwrap();
    assert_eq!(leader, json!(format!("{addr}:{}", tags["port"].as_str().unwrap())));
    assert_eq!(cluster.get("/v1/regions").await.json, json!(["global"]));
    assert_eq!(cluster.get("/v1/agent/health").await.json, json!({"server": {"ok": true, "message": "ok"}}));
    let client = cluster.get("/v1/agent/health?type=client").await;
    assert_eq!(client.status, 500);
    let metrics = cluster.get("/v1/metrics").await.json;
    assert!(metrics["Gauges"].as_array().is_some_and(|gauges| !gauges.is_empty()));
    let text = cluster.get("/v1/metrics?format=prometheus").await.text;
    assert!(text.contains("herder_mirror_revision"), "{text}");
    assert_eq!(cluster.get("/v1/acl/policies").await.text, "ACL support disabled");
    assert_eq!(cluster.get("/v1/status/leader?region=mars").await.text, "No path to region");
}

#[tokio::test]
async fn wrong_paths_and_verbs_are_told_apart() {
    let cluster = Cluster::start().await;
    let unknown = cluster.get("/v1/nosuchroute").await;
    assert_eq!((unknown.status.as_u16(), unknown.text.as_str()), (404, ""));
    assert_eq!(cluster.get("/v1/jobs/").await.status, 404);
    let verb = cluster.call("DELETE", "/v1/jobs", "").await;
    assert_eq!((verb.status.as_u16(), verb.text.as_str()), (405, "Invalid method"));
    let dotted = cluster.get("/v1/./jobs?x=1").await;
    assert_eq!((dotted.status.as_u16(), dotted.headers["location"].to_str().unwrap()), (307, "/v1/jobs?x=1"));
    let missing = cluster.get("/v1/vars").await;
    assert_eq!(missing.status, 501);
    assert!(missing.text.contains("/v1/event/stream"), "{}", missing.text);
    assert_eq!(cluster.get("/v1/jobs?index=-1").await.text, "Invalid index");
    assert_eq!(cluster.get("/v1/jobs?wait=5").await.text, "Invalid wait time");
}
