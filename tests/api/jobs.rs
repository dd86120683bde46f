//! Registering, reading and stopping jobs.

use herder::model::allocation::ClientStatus;
use serde_json::json;

use crate::harness::Cluster;
use crate::harness::job;

#[tokio::test]
async fn a_registered_job_is_read_back_with_its_indexes_and_evaluation() {
    let cluster = Cluster::start().await;
    let registered = cluster.register(job("web")).await;
    let index = registered.json["JobModifyIndex"].as_i64().unwrap();
    assert_eq!(registered.index(), index);
    let eval = registered.json["EvalID"].as_str().unwrap().to_owned();

    let read = cluster.get("/v1/job/web").await;
    assert_eq!(read.status, 200, "{}", read.text);
    assert_eq!(read.headers["x-nomad-knownleader"], "true");
    assert_eq!(read.headers["x-nomad-lastcontact"], "0");
    assert_eq!(read.json["Version"], 0);
    assert_eq!(read.json["Status"], "pending");
    assert_eq!(read.json["CreateIndex"], index);
    assert_eq!(read.json["JobModifyIndex"], index);
    assert!(read.json.get("SpecDigest").is_none());

    let evaluation = cluster.get(&format!("/v1/evaluation/{eval}")).await;
    assert_eq!(evaluation.json["Status"], "pending");
    assert_eq!(evaluation.json["TriggeredBy"], "job-register");
    assert_eq!(evaluation.json["JobID"], "web");
    let listed = cluster.get("/v1/jobs?prefix=we").await;
    assert_eq!(listed.json[0]["ID"], "web");
    assert_eq!(listed.json[0]["JobSummary"]["Summary"]["web"]["Running"], 0);
}

#[tokio::test]
async fn an_unchanged_job_gets_an_evaluation_but_no_version() {
    let cluster = Cluster::start().await;
    let first = cluster.register(job("web")).await;
    let again = cluster.register(job("web")).await;
    assert_eq!(again.json["JobModifyIndex"], first.json["JobModifyIndex"]);
    assert_ne!(again.json["EvalID"], first.json["EvalID"]);

    let mut changed = job("web");
    changed["TaskGroups"][0]["Count"] = json!(3);
    cluster.register(changed).await;
    let versions = cluster.get("/v1/job/web/versions").await.json;
    let numbers: Vec<_> =
        versions["Versions"].as_array().unwrap().iter().map(|v| v["Version"].clone()).collect();
    assert_eq!(numbers, [json!(1), json!(0)]);
    assert_eq!(versions["Versions"][1]["JobModifyIndex"], first.json["JobModifyIndex"]);
}

#[tokio::test]
async fn enforced_index_refuses_a_job_that_others_changed() {
    let cluster = Cluster::start().await;
    let body = |index: u64| json!({"Job": job("web"), "EnforceIndex": true, "JobModifyIndex": index});
    let missing = cluster.write("/v1/jobs", body(7)).await;
    assert_eq!(missing.status, 500);
    assert_eq!(missing.text, "Enforcing job modify index 7: job does not exist");
    assert_eq!(cluster.write("/v1/jobs", body(0)).await.status, 200);
    assert_eq!(
        cluster.write("/v1/jobs", body(0)).await.text,
        "Enforcing job modify index 0: job already exists"
    );
}

#[tokio::test]
async fn job_status_follows_allocations_and_stop() {
    let cluster = Cluster::start().await;
    cluster.register(job("web")).await;
    let node = cluster.node("n1").await;
    let shown = cluster.get("/v1/job/web").await.json;
    let alloc = cluster.place(node, &shown, |_| {}).await;
    cluster.report(node, alloc, |report| report.client_status = ClientStatus::Running).await;
    assert_eq!(cluster.get("/v1/job/web").await.json["Status"], "running");
    assert_eq!(cluster.get("/v1/job/web/summary").await.json["Summary"]["web"]["Running"], 1);

    let stopped = cluster.call("DELETE", "/v1/job/web", "").await;
    assert_eq!(stopped.status, 200, "{}", stopped.text);
    cluster.report(node, alloc, |report| report.client_status = ClientStatus::Complete).await;
    let read = cluster.get("/v1/job/web").await.json;
    assert_eq!(read["Stop"], true);
    assert_eq!(read["Version"], 1);
    assert_eq!(read["Status"], "pending");
}

#[tokio::test]
async fn purged_and_unknown_jobs_are_not_found() {
    let cluster = Cluster::start().await;
    cluster.register(job("web")).await;
    let purged = cluster.call("DELETE", "/v1/job/web?purge=true", "").await;
    assert_ne!(purged.json["EvalID"], "");
    let read = cluster.get("/v1/job/web").await;
    assert_eq!((read.status.as_u16(), read.text.as_str()), (404, "job not found"));
    assert!(read.headers.contains_key("x-nomad-index"));
    assert_eq!(cluster.get("/v1/jobs").await.json, json!([]));
    let unknown = cluster.call("DELETE", "/v1/job/nope", "").await;
    assert_eq!((unknown.status.as_u16(), unknown.index()), (200, 0));
    assert_eq!(unknown.json["EvalID"], "");
}

#[tokio::test]
async fn blocked_readers_wake_for_their_job_only() {
    let cluster = Cluster::start().await;
    let seen = cluster.register(job("web")).await.index();
    let path = format!("/v1/job/web?index={seen}&wait=60s");
    let api = std::sync::Arc::clone(&cluster.api);
    let reader = tokio::spawn(async move {
        let request = http::Request::builder().uri(path).body(bytes::Bytes::new()).unwrap();
        api.handle(request).await
    });
    cluster.register(job("other")).await;
    tokio::task::yield_now().await;
    assert!(!reader.is_finished());
    let changed = cluster.call("DELETE", "/v1/job/web", "").await.index();
    let reply = reader.await.unwrap();
    assert_eq!(reply.headers()["x-nomad-index"].to_str().unwrap(), changed.to_string());
}

#[tokio::test]
async fn ids_with_slashes_are_found_escaped_or_not() {
    let cluster = Cluster::start().await;
    cluster.register(job("web/dispatch-1-aa")).await;
    for path in ["/v1/job/web/dispatch-1-aa", "/v1/job/web%2Fdispatch-1-aa"] {
        assert_eq!(cluster.get(path).await.json["ID"], "web/dispatch-1-aa", "{path}");
    }
    assert_eq!(cluster.get("/v1/job/web%2Fdispatch-1-aa/allocations").await.json, json!([]));
}
