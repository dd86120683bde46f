//! What authors learn about their job files before anything runs: `job validate` and `job plan`.

use serde_json::Value;
use serde_json::json;

use super::canned;
use super::run;
use super::server::Server;

fn file(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.nomad.hcl");
    std::fs::write(&path, text).unwrap();
    (directory, path.to_string_lossy().into_owned())
}

fn with(job: &str, task: &str) -> String {
    format!(
        "job \"shop\" {{\n{job}  group \"front\" {{\n    task \"web\" {{\n      driver = \"raw_exec\"\n      config {{\n        \
         command = \"/bin/true\"\n      }}\n{task}    }}\n  }}\n}}\n"
    )
}

const TEXT: &str = "1 error occurred:\n\t* Task group front validation failed: 1 error occurred:\n\t* Task web validation failed: 1 error \
                    occurred:\n\t* KillTimeout must be a positive value\n\n\n\n\n\n";

/// A server whose answer to this route is status 500 with a text.
fn refusing(route: &str, text: &str) -> Server {
    Server::start([(route.to_owned(), (500, text.to_owned()))].into_iter().collect())
}

#[test]
fn validate_prints_the_servers_text_and_then_the_line() {
    let (_directory, path) = file(&with("", "      kill_timeout = \"-1s\"\n"));
    let answer =
        json!({"DriverConfigValidated": true, "ValidationErrors": [], "Error": TEXT, "Warnings": ""});
    let server = canned(&[("PUT /v1/validate/job", answer)]);
    let (code, out, err) = run(&server, &["job", "validate", &path]);
    assert_eq!((code, out.as_str()), (1, ""));
    let wanted =
        format!("Job validation errors:\n{}\n\n  × KillTimeout must be a positive value\n", TEXT.trim());
    assert!(err.starts_with(&wanted), "{err}");
    assert!(err.contains(&format!("[{path}:8:7]")) && err.contains("kill_timeout = \"-1s\""), "{err}");
    assert!(err.contains("in task \"web\" in group \"front\""), "{err}");
    assert!(!err.contains('\u{1b}'), "no colours into a pipe");
    let (_, _, colored) = run(&server, &["job", "validate", "-force-color", &path]);
    assert!(colored.contains("\u{1b}[1;31mJob validation errors:\u{1b}[0m"), "{colored}");
}

#[test]
fn validate_without_a_server_checks_what_it_can() {
    let nobody = refusing("GET /", "");
    let address = nobody.address();
    drop(nobody);
    let validate = |text: &str| {
        let (_directory, path) = file(text);
        let server = canned(&[]);
        run(&server, &["job", "validate", &format!("-address={address}"), &path])
    };
    let notice =
        "Driver configuration not validated since connection to Nomad agent couldn't be established.\n\n";
    let (code, out, err) = validate(&with("", ""));
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out, format!("{notice}Job validation successful\n"));
    let (code, out, _) =
        validate(&with("  type = \"batch\"\n  periodic {\n    cron = \"@daily\"\n  }\n", ""));
    assert_eq!(code, 0);
    let warning = "cron is deprecated and may be removed in a future release. Use crons instead";
    assert_eq!(
        out,
        format!("{notice}Job Warnings:\n1 warning:\n\n* {warning}\n\nJob validation successful\n")
    );
    let (code, out, err) = validate(&with("  priority = 500\n", "      kill_timeout = \"-1s\"\n"));
    assert_eq!((code, out.as_str()), (1, notice));
    assert!(err.starts_with("Job validation errors:\n2 errors occurred:\n\t* Task group front"), "{err}");
    assert!(err.contains("priority = 500") && err.contains("shop.nomad.hcl:2:3]"), "{err}");
}

#[test]
fn validate_says_that_all_is_well_after_the_warnings() {
    let (_directory, path) = file(&with("", ""));
    let answer = json!({"DriverConfigValidated": true, "ValidationErrors": null, "Error": "",
                        "Warnings": "1 warning:\n\n* old"});
    let server = canned(&[("PUT /v1/validate/job", answer)]);
    let (code, out, err) = run(&server, &["validate", &path]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out, "Job Warnings:\n1 warning:\n\n* old\n\nJob validation successful\n");
    assert_eq!(server.body_of("PUT /v1/validate/job")["Job"]["ID"], "shop");
}

#[test]
fn run_and_plan_show_the_line_that_a_server_refuses() {
    let (_directory, path) = file(&with("", "      kill_timeout = \"-1s\"\n"));
    let (code, _, err) = run(&refusing("PUT /v1/jobs", TEXT), &["job", "run", &path]);
    assert_eq!(code, 1);
    assert!(
        err.starts_with("Error submitting job: Unexpected response code: 500 (1 error occurred:"),
        "{err}"
    );
    assert!(err.contains("× KillTimeout must be a positive value") && err.contains(":8:7]"), "{err}");
    let (code, _, err) = run(&refusing("PUT /v1/job/shop/plan", TEXT), &["job", "plan", &path]);
    assert_eq!(code, 255);
    assert!(err.starts_with("Error during plan: Unexpected response code: 500 (1 error occurred:"), "{err}");
    assert!(err.contains("× KillTimeout must be a positive value"), "{err}");
    // What the file is not to blame for is told without a line.
    let (_, _, err) = run(&refusing("PUT /v1/jobs", "etcd is away"), &["job", "run", &path]);
    assert_eq!(err, "Error submitting job: Unexpected response code: 500 (etcd is away)\n");
}

/// A plan with these differences and counters of one group.
fn plan(kind: &str, updates: Value) -> Value {
    json!({"JobModifyIndex": 7, "Warnings": "", "Diff": {"Type": kind, "ID": "shop", "TaskGroups": []},
           "Annotations": {"DesiredTGUpdates": {"front": updates}}})
}

#[test]
fn a_plan_exits_with_one_only_when_allocations_come_or_go() {
    let (_directory, path) = file(&with("", ""));
    let exit = |answer: Value| run(&canned(&[("PUT /v1/job/shop/plan", answer)]), &["job", "plan", &path]).0;
    assert_eq!(exit(plan("Edited", json!({"Ignore": 3}))), 0);
    assert_eq!(exit(plan("Edited", json!({"InPlaceUpdate": 3}))), 0);
    for counter in ["Stop", "Place", "Migrate", "DestructiveUpdate", "Canary"] {
        assert_eq!(exit(plan("Edited", json!({counter: 1}))), 1, "{counter}");
        // Nothing changed in the job: what would be placed anyway does not count.
        assert_eq!(exit(plan("None", json!({counter: 1}))), 0, "{counter}");
    }
    let server = canned(&[]);
    assert_eq!(run(&server, &["job", "plan", &path]).0, 255);
    assert_eq!(run(&server, &["job", "plan"]).0, 255);
    assert_eq!(run(&server, &["job", "plan", "-nonsense", &path]).0, 255);
    assert_eq!(run(&server, &["job", "plan", "/nonexistent.hcl"]).0, 255);
}

#[test]
fn a_dry_run_tells_what_fails_what_rolls_and_what_is_launched() {
    let (_directory, path) = file(&with("", ""));
    let mut answer = plan("Edited", json!({"Place": 1}));
    answer["FailedTGAllocs"] = json!({
        "front": {"NodesEvaluated": 1, "CoalescedFailures": 1, "NodesExhausted": 1, "DimensionExhausted": {"memory": 1}},
        "back": {"NodesEvaluated": 0},
    });
    answer["CreatedEvals"] = json!([{"TriggeredBy": "rolling-update", "Wait": 10_000_000_000_i64}]);
    answer["Warnings"] = json!("1 warning:\n\n* old");
    let server = canned(&[("PUT /v1/job/shop/plan", answer)]);
    let (code, out, err) = run(&server, &["plan", "-diff=false", "-namespace=web", &path]);
    assert_eq!((code, err.as_str()), (1, ""));
    let wanted = format!(
        "Scheduler dry-run:\n\
         - WARNING: Failed to place all allocations.\n\
         \x20 Task Group \"back\" (failed to place 1 allocation):\n\
         \x20   * No nodes were eligible for evaluation\n\
         \x20 Task Group \"front\" (failed to place 2 allocations):\n\
         \x20   * Resources exhausted on 1 nodes\n\
         \x20   * Dimension \"memory\" exhausted on 1 nodes\n\
         - Rolling update, next evaluation will be in 10s.\n\n\
         Job Warnings:\n1 warning:\n\n* old\n\n\
         Job Modify Index: 7\nTo submit the job with version verification run:\n\n\
         herder job run -check-index 7 -namespace=\"web\" {path}\n\n"
    );
    assert!(out.starts_with(&wanted), "{out}");
    assert_eq!(server.body_of("PUT /v1/job/shop/plan")["Job"]["ID"], "shop");
}

#[test]
fn a_dry_run_of_a_system_job_speaks_of_nodes_and_of_a_periodic_one_of_its_launch() {
    let (_directory, path) = file(&with("  type = \"system\"\n", ""));
    let mut answer = plan("Edited", json!({"Place": 1}));
    answer["FailedTGAllocs"] = json!({"front": {"NodesEvaluated": 1}});
    let (_, out, _) = run(&canned(&[("PUT /v1/job/shop/plan", answer)]), &["plan", &path]);
    assert!(out.contains("- WARNING: Failed to place allocations on all nodes.\n"), "{out}");
    let periodic = "  type = \"batch\"\n  periodic {\n    crons = [\"@daily\"]\n    time_zone = \"Europe/Berlin\"\n  }\n";
    let (_directory, path) = file(&with(periodic, ""));
    let mut answer = plan("Edited", json!({}));
    answer["NextPeriodicLaunch"] = json!("2099-01-01T03:00:00+01:00");
    let (code, out, _) = run(&canned(&[("PUT /v1/job/shop/plan", answer)]), &["plan", &path]);
    assert_eq!(code, 0);
    let line = "- If submitted now, next periodic launch would be at 2099-01-01T03:00:00+01:00 (";
    assert!(out.contains(line), "{out}");
}

#[test]
fn a_plan_in_colour_marks_what_comes_what_goes_and_what_it_forces() {
    let (_directory, path) = file(&with("", ""));
    let answer = json!({"JobModifyIndex": 7, "Warnings": "",
        "Diff": {"Type": "Edited", "ID": "shop",
            "Fields": [{"Type": "Edited", "Name": "Priority", "Old": "50", "New": "60"}],
            "TaskGroups": [
                {"Type": "Deleted", "Name": "back", "Updates": {"destroy": 1}, "Tasks": [
                    {"Type": "Deleted", "Name": "old", "Annotations": ["forces destroy"],
                     "Fields": [{"Type": "Deleted", "Name": "Driver", "Old": "exec", "New": ""}]}]},
                {"Type": "Edited", "Name": "front", "Updates": {"canary": 1, "in-place update": 2, "ignore": 3, "migrate": 4},
                 "Tasks": [{"Type": "None", "Name": "side"},
                           {"Type": "Edited", "Name": "web", "Annotations": ["forces in-place update"],
                            "Fields": [{"Type": "Edited", "Name": "KillTimeout", "Old": "5", "New": "6"}]}]}]},
        "Annotations": {"DesiredTGUpdates": {"front": {"Canary": 1}}}});
    let server = canned(&[("PUT /v1/job/shop/plan", answer)]);
    let (_, plain, _) = run(&server, &["plan", &path]);
    let wanted = "\
+/- Job: \"shop\"
+/- Priority: \"50\" => \"60\"
-   Task Group: \"back\" (1 destroy)
  - Task: \"old\" (forces destroy)

+/- Task Group: \"front\" (1 canary, 3 ignore, 2 in-place update, 4 migrate)
      Task: \"side\"
  +/- Task: \"web\" (forces in-place update)
    +/- KillTimeout: \"5\" => \"6\"

Scheduler dry-run:
";
    assert!(plain.starts_with(wanted), "{plain}");
    let (_, verbose, _) = run(&server, &["plan", "-verbose", &path]);
    assert!(verbose.contains("    - Driver: \"exec\"\n"), "{verbose}");
    let (_, colored, _) = run(&server, &["plan", "-force-color", &path]);
    for text in [
        "\u{1b}[93m+/- \u{1b}[0m\u{1b}[1mJob: \"shop\"\u{1b}[0m",
        "\u{1b}[31m- \u{1b}[0m",
        "\u{1b}[31m1 destroy\u{1b}[0m",
        "\u{1b}[93m1 canary\u{1b}[0m",
        "\u{1b}[36m2 in-place update\u{1b}[0m",
        "\u{1b}[34m4 migrate\u{1b}[0m",
        "\u{1b}[31mforces destroy\u{1b}[0m",
        "\u{1b}[36mforces in-place update\u{1b}[0m",
        "\u{1b}[1;32m- All tasks successfully allocated.\u{1b}[0m",
        "\u{1b}[1mJob Modify Index: 7\u{1b}[0m",
    ] {
        assert!(colored.contains(text), "{text:?} is not in\n{colored:?}");
    }
}

#[test]
fn the_job_of_a_file_is_printed_as_it_was_written() {
    let (_directory, path) = file(&with(
        "",
        "      template {\n        data        = \"x\"\n        destination = \"a\"\n      }\n",
    ));
    let server = canned(&[]);
    let (code, out, err) = run(&server, &["job", "run", "-output", &path]);
    assert_eq!((code, err.as_str()), (0, ""));
    let printed: Value = serde_json::from_str(&out).unwrap();
    let (job, task) = (&printed["Job"], &printed["Job"]["TaskGroups"][0]["Tasks"][0]);
    assert!(job["Datacenters"].is_null() && job["NodePool"].is_null() && job["Priority"].is_null(), "{out}");
    assert!(task["Identity"].is_null() && task["KillTimeout"].is_null(), "{out}");
    assert_eq!((&task["User"], &task["Leader"]), (&json!(""), &json!(false)));
    assert_eq!(task["Templates"][0]["ChangeMode"], "restart");
    assert!(server.asked().is_empty());
}
