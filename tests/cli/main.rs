//! The real program against a small server that answers with prepared JSON.

#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

mod checks;
mod server;

use std::collections::BTreeMap;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;

use self::server::Server;

const ALLOC: &str = "0a1b2c3d-1111-2222-3333-444455556666";
const EVAL: &str = "a1b2c3d4-1111-2222-3333-444455556666";
const NODE: &str = "9e8f7a6b-1111-2222-3333-444455556666";
const DEPLOYMENT: &str = "5f6e7d8c-1111-2222-3333-444455556666";

/// Runs the program with these arguments and gives exit code, standard output and standard error.
fn run(server: &Server, args: &[&str]) -> (i32, String, String) {
    let output = command(server, args).output().unwrap();
    read(&output)
}

fn command(server: &Server, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_herder"));
    command.args(args).stdin(Stdio::null()).env("TZ", "UTC").env("NOMAD_ADDR", server.address());
    for name in ["HERDER_ADDR", "HERDER_ETCD_ENDPOINTS", "NOMAD_NAMESPACE", "NOMAD_TOKEN", "NOMAD_REGION"] {
        command.env_remove(name);
    }
    command
}

fn read(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// Replaces times by `<T>`.
fn timeless(text: &str) -> String {
    let pattern = regex::Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)").unwrap();
    pattern.replace_all(text, "<T>").into_owned()
}

fn canned(answers: &[(&str, Value)]) -> Server {
    let answers: BTreeMap<String, (u16, String)> =
        answers.iter().map(|(route, value)| ((*route).to_owned(), (200, value.to_string()))).collect();
    Server::start(answers)
}

fn job_stub() -> Value {
    json!({"ID": "shop", "Name": "shop", "Namespace": "default", "Type": "service", "Priority": 50,
           "Status": "running", "SubmitTime": 1_741_083_300_000_000_000_i64})
}

fn alloc() -> Value {
    json!({
        "ID": ALLOC, "EvalID": EVAL, "Name": "shop.front[0]", "NodeID": NODE, "NodeName": "worker-1",
        "JobID": "shop", "JobVersion": 1, "Namespace": "default", "TaskGroup": "front", "DesiredStatus": "run",
        "ClientStatus": "complete", "ClientDescription": "All tasks have completed", "CreateIndex": 20,
        "CreateTime": 1_741_083_300_000_000_000_i64, "ModifyTime": 1_741_083_300_000_000_000_i64,
        "Job": {"ID": "shop", "Version": 1, "Type": "service",
                "TaskGroups": [{"Name": "front", "Tasks": [{"Name": "web"}]}]},
        "AllocatedResources": {
            "Shared": {"DiskMB": 300, "Networks": [{"Mode": "bridge"}],
                       "Ports": [{"Label": "http", "Value": 27123, "To": 8080, "HostIP": "10.0.0.5"}]},
            "Tasks": {"web": {"Cpu": {"CpuShares": 500}, "Memory": {"MemoryMB": 256, "MemoryMaxMB": 512}}},
        },
        "TaskStates": {"web": {
            "State": "dead", "StartedAt": "2025-03-04T10:15:04Z", "FinishedAt": "0001-01-01T00:00:00Z",
            "Events": [
                {"Type": "Received", "Time": 1_741_083_300_000_000_000_i64, "DisplayMessage": "Task received by client"},
                {"Type": "Started", "Time": 1_741_083_304_000_000_000_i64, "DisplayMessage": "Task started by client"},
            ],
        }},
    })
}

#[test]
fn jobs_are_listed_as_a_table() {
    let server = canned(&[("GET /v1/jobs", json!([job_stub()]))]);
    let (code, out, err) = run(&server, &["status"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "ID    Type     Priority  Status   Submit Date\nshop  service  50        running  2025-03-04T10:15:00Z\n"
    );
    let server = canned(&[("GET /v1/jobs", json!([]))]);
    assert_eq!(run(&server, &["job", "status"]), (0, "No running jobs\n".to_owned(), String::new()));
}

#[test]
fn a_job_is_shown_with_summary_deployment_and_allocations() {
    let deployment = json!({"ID": DEPLOYMENT, "Status": "successful",
        "StatusDescription": "Deployment completed successfully", "JobID": "shop",
        "TaskGroups": {"front": {"DesiredTotal": 2, "PlacedAllocs": 2, "HealthyAllocs": 2, "Promoted": true,
            "DesiredCanaries": 1, "ProgressDeadline": 600_000_000_000_i64,
            "RequireProgressBy": "2025-03-04T10:25:00Z"}}});
    let server = canned(&[
        ("GET /v1/jobs", json!([job_stub()])),
        (
            "GET /v1/job/shop",
            json!({"ID": "shop", "Name": "shop", "Namespace": "default", "Type": "service",
            "Priority": 50, "Datacenters": ["dc1", "dc2"], "NodePool": "default", "Status": "running",
            "SubmitTime": 1_741_083_300_000_000_000_i64, "Periodic": null, "ParameterizedJob": null}),
        ),
        ("GET /v1/job/shop/allocations", json!([alloc()])),
        ("GET /v1/job/shop/evaluations", json!([])),
        ("GET /v1/job/shop/deployment", deployment),
        (
            "GET /v1/job/shop/summary",
            json!({"JobID": "shop", "Summary": {"front": {"Running": 2, "Complete": 1}}}),
        ),
    ]);
    let (code, out, err) = run(&server, &["job", "status", "shop"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let ago = regex::Regex::new(r"\d+\w+ ago").unwrap();
    let out = ago.replace_all(&out, "<ago>");
    let wanted = "\
ID            = shop
Name          = shop
Submit Date   = 2025-03-04T10:15:00Z
Type          = service
Priority      = 50
Datacenters   = dc1,dc2
Namespace     = default
Node Pool     = default
Status        = running
Periodic      = false
Parameterized = false

Summary
Task Group  Queued  Starting  Running  Failed  Complete  Lost  Unknown
front       0       0         2        0       1         0     0

Latest Deployment
ID          = 5f6e7d8c
Status      = successful
Description = Deployment completed successfully

Deployed
Task Group  Promoted  Desired  Canaries  Placed  Healthy  Unhealthy  Progress Deadline
front       true      2        1         2       2        0          2025-03-04T10:25:00Z

Allocations
";
    assert!(out.starts_with(wanted), "{out}");
    let row = "0a1b2c3d  9e8f7a6b  front       1        run      complete  <ago>";
    assert!(out.contains(row), "{out}");
}

#[test]
fn an_unknown_job_is_an_error() {
    let server = canned(&[("GET /v1/jobs", json!([]))]);
    let (code, out, err) = run(&server, &["job", "status", "nosuch"]);
    assert_eq!((code, out.as_str(), err.as_str()), (1, "", "No job(s) with prefix or ID \"nosuch\" found\n"));
}

#[test]
fn an_allocation_is_shown_with_its_task() {
    let server = canned(&[
        ("GET /v1/allocations", json!([alloc()])),
        (&format!("GET /v1/allocation/{ALLOC}"), alloc()),
    ]);
    let (code, out, err) = run(&server, &["alloc", "status", "0a1b2c3d"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        out.starts_with(&format!("ID                  = {ALLOC}\nEval ID             = a1b2c3d4\n")),
        "{out}"
    );
    let wanted = "
Allocation Addresses (mode = \"bridge\"):
Label  Dynamic  Address
*http  yes      10.0.0.5:27123 -> 8080

Task \"web\" is \"dead\"
Task Resources:
CPU      Memory        Disk     Addresses
500 MHz  256 MiB       300 MiB  
         Max: 512 MiB           

Task Events:
Started At     = 2025-03-04T10:15:04Z
Finished At    = N/A
Total Restarts = 0
Last Restart   = N/A

Recent Events:
Time                  Type      Description
2025-03-04T10:15:04Z  Started   Task started by client
2025-03-04T10:15:00Z  Received  Task received by client
";
    assert!(out.ends_with(wanted), "{out}");
}

#[test]
fn checks_of_an_allocation_are_shown_one_by_one() {
    let checks = json!({"abc": {
        "ID": "abc", "Check": "alive", "Group": "shop.front[0]", "Service": "front", "Status": "failure",
        "StatusCode": 503, "Mode": "healthiness", "Timestamp": 1_741_083_300, "Output": "busy",
    }});
    let route = format!("GET /v1/client/allocation/{ALLOC}/checks");
    let list = json!([{"ID": ALLOC, "Namespace": "default"}]);
    let show = format!("GET /v1/allocation/{ALLOC}");
    let server = canned(&[("GET /v1/allocations", list.clone()), (&show, alloc()), (&route, checks)]);
    let (code, out, err) = run(&server, &["alloc", "checks", &ALLOC[..8]]);
    assert_eq!(code, 0, "{err}");
    let wanted = "Status of 1 Nomad Service Checks\n\n\
        ID          =  abc\nName        =  alive\nGroup       =  shop.front[0]\nTask        =  (group)\n\
        Service     =  front\nStatus      =  failure\nStatusCode  =  503\nMode        =  healthiness\n\
        Timestamp   =  <T>\nOutput      =  busy\n\n";
    assert_eq!(timeless(&out), wanted);
    let none = canned(&[("GET /v1/allocations", list), (&show, alloc()), (&route, Value::Null)]);
    assert_eq!(run(&none, &["alloc", "checks", &ALLOC[..8]]).1, "Status of 0 Nomad Service Checks\n\n");
    assert_eq!(run(&none, &["alloc", "checks", "-json", &ALLOC[..8]]).1, "null\n");
}

#[test]
fn json_and_template_show_the_object() {
    let server = canned(&[
        ("GET /v1/allocations", json!([alloc()])),
        (&format!("GET /v1/allocation/{ALLOC}"), alloc()),
    ]);
    let (code, out, _) = run(&server, &["alloc-status", "-json", "0a1b2c3d"]);
    assert_eq!(code, 0);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), alloc());
    let (_, out, _) = run(&server, &["alloc", "status", "-t", "{{.JobID}}/{{.TaskGroup}}", "0a1b2c3d"]);
    assert_eq!(out, "shop/front\n");
    let (code, _, err) = run(&server, &["alloc", "status", "-json", "-t", "x", "0a1b2c3d"]);
    assert_eq!((code, err.as_str()), (1, "Both json and template formatting are not allowed\n"));
}

#[test]
fn logs_are_copied_as_they_are() {
    let routes = [
        ("GET /v1/allocations".to_owned(), (200, json!([alloc()]).to_string())),
        (format!("GET /v1/allocation/{ALLOC}"), (200, alloc().to_string())),
        (
            format!("GET /v1/client/fs/logs/{ALLOC}"),
            (200, r#"{"Data":"b25lCnR3bwo=","File":"web.stdout.0"}{}{"Data":"dGhyZWUK"}"#.to_owned()),
        ),
    ];
    let server = Server::start(routes.into_iter().collect());
    assert_eq!(run(&server, &["logs", "0a1b2c3d"]), (0, "one\ntwo\nthree\n".to_owned(), String::new()));
    assert_eq!(run(&server, &["alloc", "logs", "-tail", "-n", "2", "0a1b2c3d"]).1, "two\nthree\n");
    let asked = server.asked();
    let last = asked.iter().rfind(|line| line.contains("/fs/logs/")).unwrap();
    assert!(last.contains("task=web&type=stdout&follow=false&origin=end&offset=240"), "{last}");
    let (code, _, err) = run(&server, &["logs", "-stdout", "-stderr", "0a1b2c3d"]);
    assert_eq!((code, err.as_str()), (1, "Unable to support both stdout and stderr\n"));
}

const JOB: &str = "job \"shop\" {\n  group \"front\" {\n    task \"web\" {\n      driver = \"raw_exec\"\n      config {\n        command = \"/bin/true\"\n      }\n    }\n  }\n}\n";

fn job_file() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.nomad.hcl");
    std::fs::write(&path, JOB).unwrap();
    (directory, path.to_string_lossy().into_owned())
}

fn run_server(eval: Value, status: &str) -> Server {
    canned(&[
        ("PUT /v1/jobs", json!({"EvalID": EVAL, "JobModifyIndex": 9, "Warnings": ""})),
        (&format!("GET /v1/evaluation/{EVAL}"), eval),
        (
            &format!("GET /v1/evaluation/{EVAL}/allocations"),
            json!([
            {"ID": ALLOC, "NodeID": NODE, "TaskGroup": "front", "DesiredStatus": "run", "ClientStatus": "pending",
             "CreateIndex": 20}]),
        ),
        (
            &format!("GET /v1/deployment/{DEPLOYMENT}"),
            json!({"ID": DEPLOYMENT, "JobID": "shop", "JobVersion": 0,
            "Status": status, "StatusDescription": "Deployment is over",
            "TaskGroups": {"front": {"DesiredTotal": 1, "PlacedAllocs": 1, "HealthyAllocs": 1}}}),
        ),
    ])
}

#[test]
fn a_submitted_job_is_followed_to_the_end_of_its_deployment() {
    let (_directory, path) = job_file();
    let eval = json!({"ID": EVAL, "JobID": "shop", "Status": "complete", "DeploymentID": DEPLOYMENT, "CreateIndex": 10});
    let server = run_server(eval.clone(), "successful");
    let (code, out, err) = run(&server, &["job", "run", &path]);
    assert_eq!((code, err.as_str()), (0, ""));
    let wanted = "\
==> <T>: Monitoring evaluation \"a1b2c3d4\"
    <T>: Evaluation triggered by job \"shop\"
    <T>: Evaluation within deployment: \"5f6e7d8c\"
    <T>: Allocation \"0a1b2c3d\" created: node \"9e8f7a6b\", group \"front\"
    <T>: Evaluation status changed: \"pending\" -> \"complete\"
==> <T>: Evaluation \"a1b2c3d4\" finished with status \"complete\"
==> <T>: Monitoring deployment \"5f6e7d8c\"
    
<T>
ID          = 5f6e7d8c
Job ID      = shop
Job Version = 0
Status      = successful
Description = Deployment is over

Deployed
Task Group  Desired  Placed  Healthy  Unhealthy
front       1        1       1        0
";
    assert_eq!(timeless(&out), wanted);
    let sent = server.body_of("PUT /v1/jobs");
    assert_eq!(sent["Job"]["ID"], "shop");
    assert_eq!(sent["Submission"]["Source"], JOB);
    assert_eq!(sent["Submission"]["Format"], "hcl2");
    assert_eq!(run(&run_server(eval, "failed"), &["run", &path]).0, 1);
}

#[test]
fn what_cannot_be_placed_is_told_and_exits_with_two() {
    let (_directory, path) = job_file();
    let eval = json!({"ID": EVAL, "JobID": "shop", "Status": "complete", "CreateIndex": 10,
        "BlockedEval": "77aa88bb-1111-2222-3333-444455556666",
        "FailedTGAllocs": {"front": {"NodesEvaluated": 3, "CoalescedFailures": 1, "NodesExhausted": 3,
                                     "DimensionExhausted": {"memory": 3}}}});
    let (code, out, _) = run(&run_server(eval, ""), &["run", "-verbose=false", &path]);
    let wanted = "\
==> <T>: Evaluation \"a1b2c3d4\" finished with status \"complete\" but failed to place all allocations:
    <T>: Task Group \"front\" (failed to place 2 allocations):
      * Resources exhausted on 3 nodes
      * Dimension \"memory\" exhausted on 3 nodes
    <T>: Evaluation \"77aa88bb\" waiting for additional capacity to place remainder
";
    assert_eq!(code, 2);
    assert!(timeless(&out).ends_with(wanted), "{out}");
}

#[test]
fn detached_runs_and_conflicts_say_so() {
    let (_directory, path) = job_file();
    let server = run_server(json!({}), "");
    let (code, out, _) = run(&server, &["run", "-detach", "-check-index", "7", &path]);
    assert_eq!((code, out), (0, format!("Job registration successful\nEvaluation ID: {EVAL}\n")));
    let sent = server.body_of("PUT /v1/jobs");
    assert_eq!((&sent["EnforceIndex"], &sent["JobModifyIndex"]), (&json!(true), &json!(7)));
    let text = "Enforcing job modify index 7: job exists with conflicting job modify index: 9";
    let server = Server::start([("PUT /v1/jobs".to_owned(), (500, text.to_owned()))].into_iter().collect());
    let (code, _, err) = run(&server, &["run", "-check-index=7", &path]);
    assert_eq!((code, err), (1, format!("{text}\nJob not updated\n")));
}

#[test]
fn a_plan_shows_the_difference_and_how_to_submit() {
    let (_directory, path) = job_file();
    let plan = json!({"JobModifyIndex": 0, "Warnings": "",
        "Diff": {"Type": "Added", "ID": "shop", "TaskGroups": [{"Type": "Added", "Name": "front",
            "Updates": {"create": 1}, "Tasks": [{"Type": "Added", "Name": "web", "Annotations": ["forces create"]}]}]},
        "Annotations": {"DesiredTGUpdates": {"front": {"Place": 1}}}});
    let server = canned(&[("PUT /v1/job/shop/plan", plan)]);
    let (code, out, err) = run(&server, &["job", "plan", &path]);
    assert_eq!((code, err.as_str()), (1, ""));
    let wanted = format!(
        "+ Job: \"shop\"\n+ Task Group: \"front\" (1 create)\n  + Task: \"web\" (forces create)\n\n\
         Scheduler dry-run:\n- All tasks successfully allocated.\n\nJob Modify Index: 0\n\
         To submit the job with version verification run:\n\nherder job run -check-index 0 {path}\n\n"
    );
    assert!(out.starts_with(&wanted), "{out}");
    let server = canned(&[(
        "PUT /v1/job/shop/plan",
        json!({"Diff": {"Type": "None", "ID": "shop"},
        "Annotations": {"DesiredTGUpdates": {"front": {"Ignore": 1}}}}),
    )]);
    assert_eq!(run(&server, &["plan", "-diff=false", &path]).0, 0);
    assert_eq!(run(&server, &["plan", "/nonexistent.hcl"]).0, 255);
    assert_eq!(run(&server, &["plan", "-bogus", &path]).0, 255);
}

#[test]
fn a_broken_job_file_is_refused_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.hcl");
    std::fs::write(&path, "job \"x\" {\n  colour = \"red\"\n}\n").unwrap();
    let path = path.to_string_lossy();
    let (code, out, err) = run(&canned(&[]), &["job", "run", &path]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.starts_with(&format!("Error getting job struct: Error parsing job file from {path}:\n{path}:2,")),
        "{err}"
    );
    assert!(err.contains("Unsupported argument"), "{err}");
}

#[test]
fn stopping_a_job_follows_its_evaluation() {
    let server = canned(&[
        ("GET /v1/jobs", json!([job_stub()])),
        ("DELETE /v1/job/shop", json!({"EvalID": EVAL})),
        (&format!("GET /v1/evaluation/{EVAL}"), json!({"ID": EVAL, "JobID": "shop", "Status": "complete"})),
        (&format!("GET /v1/evaluation/{EVAL}/allocations"), json!([])),
    ]);
    let (code, out, _) = run(&server, &["stop", "shop"]);
    assert_eq!(code, 0);
    assert!(
        timeless(&out).ends_with("==> <T>: Evaluation \"a1b2c3d4\" finished with status \"complete\"\n"),
        "{out}"
    );
    assert_eq!(run(&server, &["job", "stop", "-detach", "-purge", "shop"]).1, format!("{EVAL}\n"));
    let asked = server.asked();
    assert!(asked.iter().any(|line| line.starts_with("DELETE /v1/job/shop?purge=true")), "{asked:?}");
    let (code, out, err) = run(&server, &["stop", "sho"]);
    let question = "Are you sure you want to stop job \"shop\"? [y/N] ";
    assert_eq!((code, out.as_str(), err.as_str()), (1, question, "Failed to parse answer: EOF\n"));
}

#[test]
fn nodes_are_listed_and_shown() {
    let node = json!({"ID": NODE, "Name": "worker-1", "NodePool": "default", "Datacenter": "dc1", "NodeClass": "",
        "Drain": false, "SchedulingEligibility": "eligible", "Status": "ready",
        "Drivers": {"docker": {"Detected": true, "Healthy": true}, "java": {"Detected": true, "Healthy": false}},
        "NodeResources": {"Cpu": {"CpuShares": 8000}, "Memory": {"MemoryMB": 15360}, "Disk": {"DiskMB": 81920}},
        "Events": [{"Message": "Node registered", "Subsystem": "Cluster", "Timestamp": "2025-03-04T10:15:00Z"}]});
    let server = canned(&[
        ("GET /v1/nodes", json!([node])),
        (&format!("GET /v1/node/{NODE}"), node.clone()),
        (&format!("GET /v1/node/{NODE}/allocations"), json!([])),
        (
            "GET /v1/client/stats",
            json!({"Uptime": 93_785, "CPUTicksConsumed": 120.0,
            "Memory": {"Used": 2_254_857_830_i64, "Total": 17_179_869_184_i64}}),
        ),
        (&format!("PUT /v1/node/{NODE}/eligibility"), json!({})),
    ]);
    let wanted = "ID        Node Pool  DC   Name      Class   Drain  Eligibility  Status\n\
                  9e8f7a6b  default    dc1  worker-1  <none>  false  eligible     ready\n";
    assert_eq!(run(&server, &["node", "status"]), (0, wanted.to_owned(), String::new()));
    assert_eq!(run(&server, &["node-status", "-quiet"]).1, format!("{NODE}\n"));
    let (code, out, err) = run(&server, &["node", "status", "9e8f"]);
    assert_eq!((code, err.as_str()), (0, ""));
    for part in [
        "Uptime          = 26h3m5s\n",
        "Driver Status   = docker,java (unhealthy)\n",
        "2025-03-04T10:15:00Z  Cluster    Node registered\n",
        "0/8000 MHz  0 B/15 GiB  0 B/80 GiB\n",
        "120/8000 MHz  2.1 GiB/16 GiB  ",
        "No allocations placed\n",
    ] {
        assert!(out.contains(part), "{part:?} is missing in\n{out}");
    }
    let (_, out, _) = run(&server, &["node", "eligibility", "-disable", "9e8f"]);
    assert_eq!(out, format!("Node \"{NODE}\" scheduling eligibility set: ineligible for scheduling\n"));
    assert_eq!(server.body_of(&format!("PUT /v1/node/{NODE}/eligibility"))["Eligibility"], "ineligible");
}

#[test]
fn an_evaluation_is_shown_with_its_failures() {
    let eval = json!({"ID": EVAL, "JobID": "shop", "Status": "complete", "Type": "service", "Priority": 50,
        "TriggeredBy": "job-register", "Namespace": "default", "BlockedEval": "77aa88bb-1111-2222-3333-444455556666",
        "FailedTGAllocs": {"front": {"NodesEvaluated": 3, "ConstraintFiltered": {"${attr.cpu.arch} = arm64": 3}}}});
    let server = canned(&[
        ("GET /v1/evaluations", json!([eval])),
        (&format!("GET /v1/evaluation/{EVAL}"), eval.clone()),
    ]);
    let (code, out, _) = run(&server, &["eval", "status", "a1b2"]);
    assert_eq!(code, 0);
    let wanted = "Placement Failures = true

Failed Placements
Task Group \"front\" (failed to place 1 allocation):
  * Constraint \"${attr.cpu.arch} = arm64\": 3 nodes excluded by filter

Evaluation \"77aa88bb\" waiting for additional capacity to place remainder
";
    assert!(out.ends_with(wanted), "{out}");
}

#[test]
fn status_finds_out_what_an_id_names() {
    let server = canned(&[
        ("PUT /v1/search", json!({"Matches": {"allocs": [ALLOC], "jobs": null}})),
        ("GET /v1/allocations", json!([alloc()])),
        (&format!("GET /v1/allocation/{ALLOC}"), alloc()),
    ]);
    let (code, out, _) = run(&server, &["status", "0a1b"]);
    assert_eq!(code, 0);
    assert!(out.starts_with(&format!("ID                  = {ALLOC}\n")), "{out}");
    let server = canned(&[("PUT /v1/search", json!({"Matches": {}}))]);
    assert_eq!(run(&server, &["status", "zz"]).2, "Unable to resolve ID: \"zz\"\n");
}

#[test]
fn wrong_usage_is_answered_as_nomad_does() {
    let server = canned(&[]);
    let (code, out, err) = run(&server, &["job", "run"]);
    let wanted = "This command takes one argument: <path>\nFor additional help try 'herder job run -help'\n";
    assert_eq!((code, out.as_str(), err.as_str()), (1, "", wanted));
    let (code, out, err) = run(&server, &["job", "run", "-detatch", "x"]);
    assert_eq!((code, err.as_str()), (1, "flag provided but not defined: -detatch\nDid you mean -detach?\n"));
    assert!(out.starts_with("Usage: herder job run [options] <path>\n"), "{out}");
    let (code, out, err) = run(&server, &["stauts"]);
    assert_eq!((code, err.as_str()), (127, "unknown command \"stauts\". Did you mean \"status\"?\n"));
    assert!(
        out.starts_with("Usage: herder [-version] [-help] <command> [args]\n\nCommon commands:\n    run "),
        "{out}"
    );
    let (code, out, _) = run(&server, &["job"]);
    assert_eq!(code, 1);
    assert!(
        out.contains("\nSubcommands:\n") && out.contains("    periodic       Interact with periodic jobs"),
        "{out}"
    );
    let (code, out, _) = run(&server, &["job", "run", "-h"]);
    assert_eq!(code, 0);
    assert!(out.contains("\nGeneral Options:\n") && out.contains("  -check-index=<index>\n"), "{out}");
    let (code, out, _) = run(&server, &["-address=x", "status"]);
    assert_eq!(code, 1);
    assert!(out.starts_with("Invalid flags before the subcommand."), "{out}");
}

#[test]
fn an_agent_that_is_not_there_is_named() {
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let output = Command::new(env!("CARGO_BIN_EXE_herder"))
        .args(["status", &format!("-address=http://{address}")])
        .output()
        .unwrap();
    let (code, _, err) = read(&output);
    let wanted = format!(
        "Error querying jobs: Get \"http://{address}/v1/jobs\": dial tcp {address}: connect: connection refused\n"
    );
    assert_eq!((code, err), (1, wanted));
}

#[test]
fn the_name_nomad_is_answered_to() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("nomad");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_herder"), &link).unwrap();
    let output = Command::new(&link).arg("-version").output().unwrap();
    assert!(read(&output).1.starts_with("Nomad v1.9.7\n"));
    let output = Command::new(&link).args(["job", "run"]).output().unwrap();
    assert!(read(&output).2.contains("'nomad job run -help'"));
    let output = Command::new(env!("CARGO_BIN_EXE_herder")).arg("version").output().unwrap();
    assert!(read(&output).1.starts_with("Herder v"));
}

#[test]
fn an_agent_without_role_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_herder")).arg("agent").output().unwrap();
    let (code, _, err) = read(&output);
    assert_eq!(
        (code, err.as_str()),
        (1, "==> Must specify either server, client or dev mode for the agent.\n")
    );
    let output =
        Command::new(env!("CARGO_BIN_EXE_herder")).args(["agent", "-config", "/nonexistent"]).output();
    let wanted =
        "==> Error loading configuration from /nonexistent: stat /nonexistent: no such file or directory\n";
    assert_eq!(read(&output.unwrap()).2, wanted);
}

#[test]
fn an_example_job_file_is_written_once_and_parses() {
    let directory = tempfile::tempdir().unwrap();
    let init = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_herder"));
        read(&command.args(["job", "init"]).args(args).current_dir(&directory).output().unwrap())
    };
    assert_eq!(init(&[]), (0, "Example job file written to example.nomad.hcl\n".to_owned(), String::new()));
    assert_eq!(init(&[]).2, "Job 'example.nomad.hcl' already exists\n");
    assert_eq!(init(&["-short", "short.hcl"]).0, 0);
    assert_eq!(init(&["-connect", "mesh.hcl"]).0, 0);
    assert_eq!(init(&["-connect", "-short", "mesh-short.hcl"]).0, 0);
    for (file, group) in [
        ("example.nomad.hcl", "cache"),
        ("short.hcl", "cache"),
        ("mesh.hcl", "api"),
        ("mesh-short.hcl", "api"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_herder"));
        let output = command.args(["job", "run", "-output", file]).current_dir(&directory).output().unwrap();
        let (code, out, err) = read(&output);
        assert_eq!((code, err.as_str()), (0, ""));
        assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["Job"]["TaskGroups"][0]["Name"], group);
    }
}

#[test]
fn templates_of_job_files_are_variables() {
    let directory = tempfile::tempdir().unwrap();
    let init = |server: &Server, args: &[&str]| {
        let args = [&["job", "init"], args].concat();
        read(&command(server, &args).current_dir(&directory).output().unwrap())
    };
    let list = json!([{"Path": "nomad/job-templates/web"}, {"Path": "nomad/job-templates/team/db"}]);
    let server = canned(&[
        ("GET /v1/vars", list),
        ("GET /v1/var/nomad/job-templates/web", json!({"Items": {"template": "job \"web\" {}\n"}})),
        ("GET /v1/var/nomad/job-templates/odd", json!({"Items": {}})),
    ]);
    let listed = "Use herder job init -template=<template> with any of the following:\n  web\n  team/db\n";
    assert_eq!(init(&server, &["-list-templates"]), (0, listed.to_owned(), String::new()));
    assert!(server.asked()[0].contains("prefix=nomad%2Fjob-templates%2F"), "{:?}", server.asked());
    assert_eq!(init(&server, &["-template", "web", "web.hcl"]).0, 0);
    let written = std::fs::read_to_string(directory.path().join("web.hcl")).unwrap();
    assert_eq!(written, "job \"web\" {}\n");
    let refused = |server: &Server, args: &[&str]| {
        let (code, out, error) = init(server, args);
        assert_eq!((code, out.as_str()), (1, ""));
        error
    };
    assert_eq!(refused(&server, &["-template=none"]), "Variable not found\n");
    let odd = "The variable nomad/job-templates/odd has no item \"template\"\n";
    assert_eq!(refused(&server, &["-template=odd"]), odd);
    assert!(!directory.path().join("example.nomad.hcl").exists(), "nothing is written after an error");

    let empty = canned(&[("GET /v1/vars", json!([]))]);
    assert_eq!(refused(&empty, &["-list-templates"]), "No variables in nomad/job-templates\n");
    let without = Server::start(BTreeMap::from([("GET /v1/vars".to_owned(), (501, "not built".to_owned()))]));
    assert_eq!(
        refused(&without, &["-list-templates"]),
        "Error retrieving job templates from the server: templates are variables below nomad/job-templates, and this \
         server keeps no variables\n"
    );
}

#[test]
fn files_are_looked_for_where_the_command_runs_and_a_flag_without_a_value_is_ignored() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("jobs")).unwrap();
    let text = "job \"a\" {\n meta {\n x = file(\"here.txt\")\n }\n}\n";
    std::fs::write(directory.path().join("jobs/a.hcl"), text).unwrap();
    std::fs::write(directory.path().join("here.txt"), "found").unwrap();
    let output = |file: &str, place: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_herder"));
        command.args(["job", "run", "-output", "-var", "x", file]).current_dir(directory.path().join(place));
        read(&command.output().unwrap())
    };
    let (code, out, _) = output("jobs/a.hcl", "");
    assert_eq!(
        (code, serde_json::from_str::<Value>(&out).unwrap()["Job"]["Meta"]["x"].as_str()),
        (0, Some("found"))
    );
    let (code, _, error) = output("a.hcl", "jobs");
    assert_eq!(code, 1);
    assert!(error.contains("failed to read here.txt"), "{error}");
}

#[test]
fn job_files_are_rewritten_in_canonical_layout() {
    let directory = tempfile::tempdir().unwrap();
    let fmt = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_herder"));
        read(&command.arg("fmt").args(args).current_dir(&directory).output().unwrap())
    };
    let path = |name: &str| directory.path().join(name);
    let (loose, tidy) = ("job \"a\"{\ntype=\"batch\"\n}\n", "job \"a\" {\n  type = \"batch\"\n}\n");
    std::fs::create_dir(path("deep")).unwrap();
    for name in ["a.nomad", "b.hcl", "deep/c.hcl", "other.txt"] {
        std::fs::write(path(name), loose).unwrap();
    }
    std::fs::write(path("tidy.hcl"), tidy).unwrap();
    let text = |name: &str| std::fs::read_to_string(path(name)).unwrap();

    assert_eq!(fmt(&["-check"]), (1, "a.nomad\nb.hcl\n".to_owned(), String::new()));
    assert_eq!(text("a.nomad"), loose);
    assert_eq!(fmt(&["-list=false", "-write=false", "a.nomad"]), (0, tidy.to_owned(), String::new()));
    assert_eq!(fmt(&["-recursive"]), (0, "a.nomad\nb.hcl\ndeep/c.hcl\n".to_owned(), String::new()));
    assert_eq!(
        (text("a.nomad"), text("deep/c.hcl"), text("other.txt")),
        (tidy.to_owned(), tidy.to_owned(), loose.to_owned())
    );
    assert_eq!(fmt(&["-check", "-recursive"]), (0, String::new(), String::new()));

    let (code, _, error) = fmt(&["other.txt"]);
    assert_eq!((code, error.as_str()), (1, "Only .nomad and .hcl files can be processed using nomad fmt\n"));
    let (code, _, error) = fmt(&["nothing.hcl"]);
    assert_eq!(code, 1);
    assert!(error.starts_with("1 error occurred:\n\t* No file or directory at nothing.hcl\n\n"), "{error}");
    std::fs::write(path("bad.hcl"), "a = ,\n").unwrap();
    let (code, out, error) = fmt(&["bad.hcl"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(error.contains("Invalid expression") && error.contains("bad.hcl"), "{error}");
}

#[test]
fn the_written_job_is_printed_with_nulls() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = "apiVersion: herder.dev/v1\nkind: Job\nmetadata: {name: y}\nspec:\n  taskGroups:\n  - name: g\n    tasks:\n    \
                    - {name: t, driver: raw_exec, config: {command: \"<a>\"}}\n";
    std::fs::write(directory.path().join("y.yaml"), manifest).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_herder"));
    let output = command.args(["job", "run", "-output", "y.yaml"]).current_dir(&directory).output().unwrap();
    let (code, out, error) = read(&output);
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(out.starts_with("{\n    \"Job\": {\n") && out.contains("\\u003ca\\u003e"), "{out}");
    let job = &serde_json::from_str::<Value>(&out).unwrap()["Job"];
    assert_eq!(
        (&job["ID"], &job["Datacenters"], &job["Dispatched"]),
        (&json!("y"), &Value::Null, &json!(false))
    );
    let task = &job["TaskGroups"][0]["Tasks"][0];
    assert_eq!(
        (&task["User"], &task["Leader"], &task["KillTimeout"]),
        (&json!(""), &json!(false), &Value::Null)
    );
}
