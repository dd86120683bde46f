//! What a submitted job must pass, and what clients are told.

use herder::model::node::DriverInfo;
use herder::model::node::NodeInfo;
use herder::store::key::Key;
use serde_json::json;

use super::harness::Cluster;
use super::harness::job;

#[tokio::test]
async fn a_periodic_or_parameterized_job_gets_no_evaluation_when_it_is_registered() {
    let cluster = Cluster::start().await;
    for (id, key, block) in [
        ("cron", "Periodic", json!({"Spec": "@daily", "Enabled": true})),
        ("form", "ParameterizedJob", json!({"Payload": "optional"})),
    ] {
        let mut template = job(id);
        template["Type"] = json!("batch");
        template[key] = block;
        let answer = cluster.register(template).await;
        assert_eq!((answer.status.as_u16(), &answer.json["EvalID"]), (200, &json!("")), "{}", answer.text);
        let evaluations = cluster.get(&format!("/v1/job/{id}/evaluations")).await;
        assert_eq!(evaluations.json, json!([]));
    }
}

#[tokio::test]
async fn the_type_of_an_existing_job_cannot_change() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.register(job("web")).await.status, 200);
    let mut changed = job("web");
    changed["Type"] = json!("batch");
    let refused = cluster.write("/v1/jobs", json!({"Job": changed.clone()})).await;
    assert_eq!(
        (refused.status.as_u16(), refused.text.as_str()),
        (500, "cannot update job from type \"service\" to \"batch\"")
    );
    let refused = cluster.write("/v1/job/web/plan", json!({"Job": changed, "Diff": true})).await;
    assert_eq!(
        (refused.status.as_u16(), refused.text.as_str()),
        (500, "cannot update job from type \"service\" to \"batch\"")
    );
}

#[tokio::test]
async fn only_the_server_dispatches() {
    let cluster = Cluster::start().await;
    let mut said = job("web");
    said["Dispatched"] = json!(true);
    assert_eq!(cluster.register(said.clone()).await.status, 200);
    assert_eq!(cluster.get("/v1/job/web").await.json["Dispatched"], false);
    let refused = cluster.write("/v1/jobs", json!({"Job": said})).await;
    assert_eq!((refused.status.as_u16(), refused.text.as_str()), (500, "field 'Dispatched' is read-only"));
    let mut paid = job("paid");
    paid["Payload"] = json!("aGk=");
    let refused = cluster.write("/v1/jobs", json!({"Job": paid})).await;
    let text = "1 error occurred:\n\t* job can't be submitted with a payload, only dispatched\n\n";
    assert_eq!((refused.status.as_u16(), refused.text.as_str()), (500, text));
}

#[tokio::test]
async fn an_unknown_driver_is_accepted_with_a_warning_when_no_node_offers_it() {
    let cluster = Cluster::start().await;
    let with_driver = |name: &str| {
        let mut job = job("web");
        job["TaskGroups"][0]["Tasks"][0]["Driver"] = json!(name);
        job["TaskGroups"][0]["Tasks"][0]["Config"] = json!({"any": "thing"});
        json!({"Job": job})
    };
    let warnings =
        |answer: super::harness::Answer| answer.json["Warnings"].as_str().unwrap_or_default().to_owned();
    // Nobody can know yet.
    assert_eq!(warnings(cluster.write("/v1/jobs", with_driver("pot")).await), "");
    let id = cluster.node("n").await;
    let answer = cluster.write("/v1/jobs", with_driver("pot")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(
        warnings(answer),
        "1 warning:\n\n* Task \"web.server\" asks for driver \"pot\", which no node of this cluster offers: it waits until \
         one does."
    );
    let drivers = [("pot".to_owned(), DriverInfo { detected: true, ..DriverInfo::default() })].into();
    let info = NodeInfo { id, name: "n".into(), drivers, ..NodeInfo::default() };
    cluster.put(&Key::NodeInfo(id), &info).await;
    assert_eq!(warnings(cluster.write("/v1/jobs", with_driver("pot")).await), "");
}

#[tokio::test]
async fn options_of_a_built_in_driver_are_checked_when_the_job_is_submitted() {
    let cluster = Cluster::start().await;
    let mut bad = job("web");
    bad["TaskGroups"][0]["Tasks"][0]["Config"] = json!({"comand": "/bin/sleep", "args": "60"});
    let text = "1 error occurred:\n\t* Task group web validation failed: 1 error occurred:\n\t* Task server validation failed: 1 \
                error occurred:\n\t* failed to parse config: 3 errors occurred:\n\t* Missing required argument: The argument \
                \"command\" is required, but no definition was found.\n\t* Incorrect attribute value type: Inappropriate value \
                for attribute \"args\": list of string required.\n\t* Invalid label: No argument or block type is named \
                \"comand\".\n\n\n\n\n\n\n\n";
    let refused = cluster.write("/v1/jobs", json!({"Job": bad.clone()})).await;
    assert_eq!((refused.status.as_u16(), refused.text.as_str()), (500, text));
    let planned = cluster.write("/v1/job/web/plan", json!({"Job": bad.clone(), "Diff": true})).await;
    assert_eq!((planned.status.as_u16(), planned.text.as_str()), (500, text));
    let validated = cluster.write("/v1/validate/job", json!({"Job": bad})).await;
    assert_eq!((validated.status.as_u16(), &validated.json["Error"]), (200, &json!(text)));
    assert_eq!(validated.json["ValidationErrors"].as_array().map(Vec::len), Some(1));
    assert_eq!(validated.json["DriverConfigValidated"], true);
}

#[tokio::test]
async fn a_job_that_is_read_from_text_is_completed_by_the_server_only() {
    let cluster = Cluster::start().await;
    let source =
        "job \"web\" {\n  group \"g\" {\n    task \"t\" {\n      driver = \"raw_exec\"\n    }\n  }\n}\n";
    for canonicalize in [false, true] {
        let body = json!({"JobHCL": source, "Canonicalize": canonicalize});
        let parsed = cluster.write("/v1/jobs/parse", body).await.json;
        assert!(parsed["Datacenters"].is_null(), "{parsed}");
        assert!(parsed["TaskGroups"][0]["Tasks"][0]["Identity"].is_null(), "{parsed}");
        assert_eq!(parsed["Priority"].is_null(), !canonicalize);
    }
}
