//! Versions, plans, children and counts.

use serde_json::Value;
use serde_json::json;

use crate::harness::Cluster;
use crate::harness::job;

fn counted(id: &str, count: u64) -> Value {
    let mut job = job(id);
    job["TaskGroups"][0]["Count"] = json!(count);
    job
}

#[tokio::test]
async fn a_plan_shows_what_changes_and_writes_nothing() {
    let cluster = Cluster::start().await;
    let index = cluster.register(job("web")).await.index();
    let body = json!({"Job": counted("web", 3), "Diff": true});
    let planned = cluster.write("/v1/job/web/plan", body).await;
    assert_eq!(planned.status, 200, "{}", planned.text);
    assert_eq!(planned.json["JobModifyIndex"], index);
    assert_eq!(planned.index(), index);
    assert_eq!(planned.json["Annotations"]["DesiredTGUpdates"]["web"]["Place"], 3);
    let group = &planned.json["Diff"]["TaskGroups"][0];
    assert_eq!((&planned.json["Diff"]["Type"], &group["Type"]), (&json!("Edited"), &json!("Edited")));
    let count = group["Fields"].as_array().unwrap().iter().find(|field| field["Name"] == "Count").unwrap();
    assert_eq!((&count["Old"], &count["New"]), (&json!("2"), &json!("3")));
    assert_eq!(count["Annotations"], json!(["forces create"]));
    assert_eq!(cluster.get("/v1/job/web").await.json["Version"], 0);

    let same = cluster.write("/v1/job/web/plan", json!({"Job": job("web"), "Diff": true})).await;
    assert_eq!(same.json["Diff"]["Type"], "None", "{}", same.text);
    let wrong = cluster.write("/v1/job/other/plan", json!({"Job": job("web")})).await;
    assert_eq!((wrong.status.as_u16(), wrong.text.as_str()), (400, "Job ID does not match"));
}

#[tokio::test]
async fn old_versions_go_but_tagged_and_stable_ones_stay() {
    let cluster = Cluster::start().await;
    cluster.register(counted("web", 1)).await;
    let tagged = cluster.write("/v1/job/web/versions/golden/tag", json!({"Version": 0})).await;
    assert_eq!((tagged.status.as_u16(), &tagged.json["Name"]), (200, &json!("golden")), "{}", tagged.text);
    cluster.register(counted("web", 2)).await;
    let stable =
        cluster.write("/v1/job/web/stable", json!({"JobID": "web", "JobVersion": 1, "Stable": true}));
    assert_eq!(stable.await.status, 200);
    for count in 3..12 {
        cluster.register(counted("web", count)).await;
    }
    let versions = cluster.get("/v1/job/web/versions?diffs=true").await.json;
    let list = versions["Versions"].as_array().unwrap();
    let numbers: Vec<u64> = list.iter().map(|version| version["Version"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [10, 9, 8, 7, 6, 1, 0]);
    assert_eq!(list[5]["Stable"], true);
    assert_eq!(list[6]["VersionTag"]["Name"], "golden");
    assert_eq!(versions["Diffs"].as_array().unwrap().len(), 6);
    let unknown = cluster.get("/v1/job/web/versions?diffs=true&diff_tag=x").await;
    assert_eq!((unknown.status.as_u16(), unknown.text.as_str()), (500, "tag \"x\" not found"));
}

#[tokio::test]
async fn a_revert_registers_the_old_specification_as_the_next_version() {
    let cluster = Cluster::start().await;
    cluster.register(counted("web", 1)).await;
    cluster.register(counted("web", 2)).await;
    let current = cluster.write("/v1/job/web/revert", json!({"JobID": "web", "JobVersion": 1})).await;
    assert_eq!((current.status.as_u16(), current.text.as_str()), (500, "can't revert to current version"));
    let body = json!({"JobID": "web", "JobVersion": 0, "EnforcePriorVersion": 7});
    let enforced = cluster.write("/v1/job/web/revert", body).await;
    assert_eq!(enforced.text, "Current job has version 1; enforcing version 7");
    let done = cluster.write("/v1/job/web/revert", json!({"JobID": "web", "JobVersion": 0})).await;
    assert_eq!(done.status, 200, "{}", done.text);
    let job = cluster.get("/v1/job/web").await.json;
    assert_eq!((&job["Version"], &job["TaskGroups"][0]["Count"]), (&json!(2), &json!(1)));
}

#[tokio::test]
async fn scaling_sets_the_count_and_is_remembered() {
    let cluster = Cluster::start().await;
    cluster.register(job("web")).await;
    let body = json!({"Count": 5, "Target": {"Group": "web"}, "Message": "more", "Meta": {"who": "me"}});
    let scaled = cluster.write("/v1/job/web/scale", body).await;
    assert_eq!(scaled.status, 200, "{}", scaled.text);
    assert_ne!(scaled.json["EvalID"], "");
    let status = cluster.get("/v1/job/web/scale").await.json;
    let group = &status["TaskGroups"]["web"];
    assert_eq!(group["Desired"], 5);
    assert_eq!(
        (&group["Events"][0]["Message"], &group["Events"][0]["PreviousCount"]),
        (&json!("more"), &json!(2))
    );
    for (body, status, text) in [
        (json!({"Count": -1, "Target": {"Group": "web"}}), 400, "scaling action count can't be negative"),
        (json!({"Count": 1, "Target": {}}), 400, "missing task group name for scaling action"),
        (
            json!({"Count": 1, "Target": {"Group": "x"}}),
            400,
            "task group \"x\" specified for scaling does not exist in job",
        ),
    ] {
        let refused = cluster.write("/v1/job/web/scale", body).await;
        assert_eq!((refused.status.as_u16(), refused.text.as_str()), (status, text));
    }
    let missing = cluster.write("/v1/job/nope/scale", json!({"Count": 1, "Target": {"Group": "g"}})).await;
    assert_eq!((missing.status.as_u16(), missing.text.as_str()), (404, "job \"nope\" not found"));
}

#[tokio::test]
async fn a_dispatch_makes_one_child_per_token() {
    let cluster = Cluster::start().await;
    let mut parent = job("batch");
    parent["Type"] = json!("batch");
    parent["ParameterizedJob"] = json!({"Payload": "optional", "MetaRequired": ["who"]});
    let registered = cluster.register(parent).await;
    assert_eq!(registered.json["EvalID"], "");
    let missing = cluster.write("/v1/job/batch/dispatch", json!({})).await;
    assert_eq!(missing.text, "Dispatch did not provide required meta keys: [who]");
    let body = json!({"Payload": "aGVsbG8=", "Meta": {"who": "me"}});
    let first = cluster.write("/v1/job/batch/dispatch?idempotency_token=t1", body.clone()).await;
    assert_eq!(first.status, 200, "{}", first.text);
    let child = first.json["DispatchedJobID"].as_str().unwrap().to_owned();
    assert!(child.starts_with("batch/dispatch-"), "{child}");
    let again = cluster.write("/v1/job/batch/dispatch?idempotency_token=t1", body).await;
    assert_eq!((&again.json["DispatchedJobID"], &again.json["EvalID"]), (&json!(child), &json!("")));
    let read = cluster.get(&format!("/v1/job/{child}")).await.json;
    assert_eq!((&read["Dispatched"], &read["ParentID"]), (&json!(true), &json!("batch")));
    assert_eq!((&read["Payload"], &read["Meta"]["who"]), (&json!("aGVsbG8="), &json!("me")));
    let summary = cluster.get("/v1/job/batch/summary").await.json;
    assert_eq!(summary["Children"], json!({"Pending": 1, "Running": 0, "Dead": 0}));
    let broken = cluster.write("/v1/job/batch/dispatch", json!({"Payload": "!"})).await;
    assert_eq!((broken.status.as_u16(), broken.text.as_str()), (400, "illegal base64 data at input byte 0"));
}

#[tokio::test]
async fn a_forced_launch_makes_a_child_even_twice_in_one_second() {
    let cluster = Cluster::start().await;
    let mut parent = job("cron");
    parent["Type"] = json!("batch");
    parent["Periodic"] = json!({"Enabled": true, "Spec": "0 0 1 1 *", "SpecType": "cron"});
    cluster.register(parent).await;
    assert_eq!(cluster.get("/v1/job/cron").await.json["Status"], "running");
    for _ in 0..2 {
        let forced = cluster.write("/v1/job/cron/periodic/force", json!({})).await;
        assert_eq!(forced.status, 200, "{}", forced.text);
    }
    let children = cluster.get("/v1/jobs?prefix=cron/periodic-").await.json;
    assert!(!children.as_array().unwrap().is_empty());
    assert_eq!(children[0]["ParentID"], "cron");
    assert_eq!(
        cluster.write("/v1/job/cron/evaluate", json!({"JobID": "cron"})).await.text,
        "can't evaluate periodic job"
    );
}

#[tokio::test]
async fn an_invalid_job_is_refused_with_all_its_problems() {
    let cluster = Cluster::start().await;
    let mut bad = job("web");
    bad["Namespace"] = json!("nowhere");
    bad["TaskGroups"][0]["Tasks"][0]["Driver"] = json!("");
    let refused = cluster.write("/v1/jobs", json!({"Job": bad.clone()})).await;
    assert_eq!(refused.status, 500);
    assert!(refused.text.contains("errors occurred:\n\t* "), "{}", refused.text);
    assert!(refused.text.contains("is in nonexistent namespace \"nowhere\""), "{}", refused.text);
    let validated = cluster.write("/v1/validate/job", json!({"Job": bad})).await;
    assert_eq!(validated.status, 200);
    assert!(validated.json["ValidationErrors"].as_array().is_some_and(|errors| errors.len() == 2));
    for (body, text) in [
        ("", "Request body is empty"),
        ("  ", "EOF"),
        ("{}", "Job must be specified"),
        (r#"{"Job": {}}"#, "Job ID hasn't been provided"),
    ] {
        let answer = cluster.call("PUT", "/v1/jobs", body).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (400, text), "{body:?}");
    }
}

#[tokio::test]
async fn a_job_too_large_for_the_store_is_refused_and_a_large_one_can_be_updated() {
    let cluster = Cluster::start().await;
    let sized = |size: usize, count: u64| {
        let mut job = counted("big", count);
        job["TaskGroups"][0]["Tasks"][0]["Env"] = json!({"BLOB": "x".repeat(size)});
        json!({ "Job": job })
    };
    let refused = cluster.write("/v1/jobs", sized(2_000_000, 1)).await;
    assert_eq!(refused.status, 413);
    assert!(refused.text.contains("\"big\"") && refused.text.contains("1572864"), "{}", refused.text);
    for count in 1..4 {
        let taken = cluster.write("/v1/jobs", sized(1_000_000, count)).await;
        assert_eq!(taken.status, 200, "{}", taken.text);
    }
    assert_eq!(cluster.get("/v1/job/big/versions").await.json["Versions"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn the_source_of_a_version_is_kept_and_hcl_is_parsed() {
    let cluster = Cluster::start().await;
    let source =
        "job \"web\" {\n  group \"g\" {\n    task \"t\" {\n      driver = \"raw_exec\"\n    }\n  }\n}\n";
    let submission = json!({"Source": source, "Format": "hcl2", "VariableFlags": {"a": "b"}});
    let body = json!({"job": job("web"), "submission": submission});
    assert_eq!(cluster.write("/v1/jobs", body).await.status, 200);
    let kept = cluster.get("/v1/job/web/submission?version=0").await;
    assert_eq!((&kept.json["Source"], &kept.json["JobID"]), (&json!(source), &json!("web")));
    assert_eq!(cluster.get("/v1/job/web/submission?version=1").await.text, "job source not found");
    assert_eq!(cluster.get("/v1/job/web/submission").await.status, 400);
    let parsed = cluster.write("/v1/jobs/parse", json!({"JobHCL": source, "Canonicalize": true})).await;
    assert_eq!(
        (&parsed.json["ID"], &parsed.json["Type"]),
        (&json!("web"), &json!("service")),
        "{}",
        parsed.text
    );
    let broken = cluster.write("/v1/jobs/parse", json!({"JobHCL": "job \"x\" {"})).await;
    assert_eq!(broken.status, 400);
    assert!(broken.text.starts_with("Failed to parse job: input.hcl:1,"), "{}", broken.text);
}
