//! Rules that surprise people who know the documentation only. Each test is named after what it holds.

use herder::jobspec;
use herder::jobspec::Defaults;
use herder::jobspec::Facts;
use herder::model::job::Job;
use herder::model::schedule;
use herder::model::time::Time;

use super::job;
use super::parse;
use super::with;

fn errors(job: &Job) -> String {
    jobspec::validate(job).error_text().unwrap_or_default()
}

fn errors_of(job_body: &str, group: &str, task: &str) -> String {
    errors(&job(&with(job_body, group, task)))
}

#[test]
fn the_restart_block_of_a_task_is_not_validated() {
    let written = "restart {\n attempts = 2\n delay = \"15s\"\n interval = \"10s\"\n mode = \"foo\"\n}";
    assert_eq!(errors_of("", "", written), "");
    let of_group = errors_of("", written, "");
    assert!(of_group.contains("Unsupported restart mode: \"foo\""), "{of_group}");
    assert!(of_group.contains("Nomad can't restart the TaskGroup 2 times"), "{of_group}");
}

#[test]
fn a_service_without_provider_is_consuls_where_there_is_consul_and_native_elsewhere() {
    let text = with("", "", "service {\n name = \"a\"\n}");
    let read = |consul| {
        let mut job = parse(&text).expect("a job").job;
        let warnings = jobspec::canonicalize(&mut job, &Defaults { consul, ..Defaults::default() });
        (job.task_groups[0].tasks[0].constraints.len(), warnings.len())
    };
    assert_eq!(read(true), (1, 0), "waits for a node with Consul");
    assert_eq!(read(false), (0, 1));
}

#[test]
fn checks_of_services_without_provider_may_be_scripts_and_grpc_without_consul_too() {
    let check = |kind: &str, more: &str| {
        format!(
            "check {{\n name = \"{kind}\"\n type = \"{kind}\"\n interval = \"10s\"\n timeout = \"1s\"\n {more}\n}}\n"
        )
    };
    let checks = check("script", "command = \"/bin/true\"") + &check("grpc", "success_before_passing = 2");
    let service = |more: &str| format!("service {{\n name = \"a\"\n port = \"7777\"\n {more}\n {checks}\n}}");
    assert_eq!(errors_of("", "", &service("")), "");
    let native = errors_of("", "", &service("provider = \"nomad\""));
    assert!(native.contains("invalid check type (\"script\"), must be one of tcp, http"), "{native}");
    // And so does what was stored, when it is sent back.
    let mut again = job(&with("", "", &service("")));
    jobspec::canonicalize(&mut again, &Defaults::default());
    assert_eq!(errors(&again), "");
}

#[test]
fn short_forms_that_mean_nothing_end_in_an_error_and_beside_a_value_in_equality() {
    for short in ["set_contains_all", "set_contains_any", "is_set", "is_not_set"] {
        let alone = format!("constraint {{\n attribute = \"${{attr.a}}\"\n {short} = \"x\"\n}}");
        let found = errors_of(&alone, "", "");
        assert!(found.contains("Operator \"=\" requires an RTarget"), "{short}: {found}");
        let beside =
            format!("constraint {{\n attribute = \"${{attr.a}}\"\n {short} = \"x\"\n value = \"y\"\n}}");
        let job = job(&with(&beside, "", ""));
        let constraint = &job.constraints[0];
        assert_eq!((constraint.operand.as_str(), constraint.right.as_str()), ("=", "y"), "{short}");
    }
    // In affinities two of them do work.
    let affinity = "affinity {\n attribute = \"${attr.a}\"\n set_contains_any = \"x\"\n}";
    let job = job(&with(affinity, "", ""));
    assert_eq!(job.affinities[0].operand, "set_contains_any");
}

#[test]
fn reschedule_with_attempts_on_a_service_needs_unlimited_false() {
    let policy = |more: &str| format!("reschedule {{\n attempts = 3\n interval = \"1h\"\n{more}\n}}");
    let found = errors_of("", &policy(""), "");
    assert!(found.contains("Unlimited = true is ambiguous"), "{found}");
    assert_eq!(errors_of("", &policy("unlimited = false"), ""), "");
    assert_eq!(errors_of("type = \"batch\"", &policy(""), ""), "");
}

#[test]
fn batch_refuses_update_others_than_services_refuse_migrate_and_system_refuses_placement_wishes() {
    for kind in ["batch", "sysbatch"] {
        let text = format!("type = \"{kind}\"");
        let found = errors_of(&text, "update {\n max_parallel = 1\n}", "");
        assert!(found.contains(&format!("Job type {kind:?} does not allow update block")), "{found}");
    }
    for kind in ["batch", "sysbatch", "system"] {
        let text = format!("type = \"{kind}\"");
        let found = errors_of(&text, "migrate {\n max_parallel = 1\n}", "");
        assert!(found.contains(&format!("Job type {kind:?} does not allow migrate block")), "{found}");
    }
    let wishes = "affinity {\n attribute = \"a\"\n value = \"b\"\n}\nspread {\n attribute = \"a\"\n}";
    let found = errors_of(&format!("type = \"system\"\n{wishes}"), "reschedule {\n attempts = 0\n}", "");
    for text in ["an affinity block", "a spread block", "should not have a reschedule policy"] {
        assert!(found.contains(text), "{text}: {found}");
    }
    assert_eq!(errors_of("type = \"system\"\nupdate {\n stagger = \"10s\"\n}", "", ""), "");
}

#[test]
fn disk_of_a_task_is_ignored_and_logs_must_be_smaller_than_the_groups_disk() {
    assert_eq!(errors_of("", "", "resources {\n disk = 300\n}"), "");
    let asked = json_job(r#"{"Resources": {"DiskMB": 300}}"#);
    assert_eq!(errors(&asked), "");
    assert_eq!(asked.task_groups[0].tasks[0].resources().disk_mb, 0);
    let of_size = |size: u32| errors_of("", &format!("ephemeral_disk {{\n size = {size}\n}}"), "");
    assert!(of_size(100).contains("log storage (100 MB) must be less than requested disk capacity (100 MB)"));
    assert_eq!(of_size(101), "");
}

/// A job in the form of the API whose only task says this, too.
fn json_job(task: &str) -> Job {
    let mut task: serde_json::Value = serde_json::from_str(task).expect("JSON");
    task["Name"] = "t".into();
    task["Driver"] = "raw_exec".into();
    task["Config"] = serde_json::json!({"command": "true"});
    let job = serde_json::json!({"ID": "j", "TaskGroups": [{"Name": "g", "Tasks": [task]}]});
    let mut job = jobspec::decode_json(job.to_string().as_bytes()).expect("a job");
    jobspec::canonicalize(&mut job, &Defaults::default());
    job
}

#[test]
fn a_group_has_one_provider() {
    let service = |name: &str, more: &str| format!("service {{\n name = \"{name}\"\n {more}\n}}\n");
    let native = service("a", "provider = \"nomad\"");
    let meshed = service("b", "connect {\n native = true\n}");
    let found = errors_of("", &format!("{native}{meshed}"), "");
    assert!(found.contains("Multiple service providers used"), "{found}");
}

#[test]
fn a_task_in_the_job_itself_makes_a_group_before_the_others() {
    let job = job(
        "job \"j\" {\n group \"g\" {\n task \"a\" {\n driver = \"x\"\n }\n }\n task \"t\" {\n driver = \"x\"\n }\n}\n",
    );
    let names: Vec<&str> = job.task_groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(names, ["t", "g"]);
    assert_eq!(job.task_groups[0].tasks[0].name, "t");
}

#[test]
fn numbers_as_durations_are_nanoseconds() {
    let found = errors_of("", "restart {\n interval = 10\n attempts = 0\n}", "");
    assert!(found.contains("Interval can not be less than 5s (got 10ns)"), "{found}");
}

#[test]
fn priority_zero_or_absent_is_fifty_and_more_than_a_hundred_is_an_error() {
    assert_eq!(job(&with("priority = 0", "", "")).priority, 50);
    assert_eq!(job(&with("", "", "")).priority, 50);
    assert_eq!(errors_of("priority = 100", "", ""), "");
    for wrong in ["priority = 101", "priority = -1"] {
        assert!(errors_of(wrong, "", "").contains("job priority must be between [1, 100]"), "{wrong}");
    }
}

#[test]
fn the_type_of_a_job_cannot_change() {
    let (service, batch) = (job(&with("", "", "")), job(&with("type = \"batch\"", "", "")));
    assert_eq!(
        jobspec::check_update(&service, &batch),
        Err("cannot update job from type \"service\" to \"batch\"".to_owned())
    );
}

#[test]
fn a_volume_mount_without_destination_is_answered_with_an_error() {
    let volume = "volume \"v\" {\n type = \"host\"\n source = \"s\"\n}";
    let found = errors_of("", volume, "volume_mount {\n volume = \"v\"\n}");
    assert!(found.contains("volume mount has an empty destination"), "{found}");
    assert_eq!(errors_of("", volume, "volume_mount {\n}"), "");
}

#[test]
fn kill_signals_are_kept_as_written_and_signals_of_templates_are_in_upper_case() {
    let template = "template {\n data = \"x\"\n destination = \"x\"\n change_mode = \"signal\"\n change_signal = \"sighup\"\n}";
    let job = job(&with("", "", &format!("kill_signal = \"sigusr1\"\n{template}")));
    assert_eq!(errors(&job), "");
    let task = &job.task_groups[0].tasks[0];
    assert_eq!((task.kill_signal.as_str(), task.templates[0].change_signal.as_str()), ("sigusr1", "SIGHUP"));
    let constraint = &job.task_groups[0].constraints[0];
    assert_eq!(
        (constraint.left.as_str(), constraint.right.as_str()),
        ("${attr.os.signals}", "SIGHUP,sigusr1")
    );
}

#[test]
fn dashes_in_port_labels_are_fine() {
    let group = "network {\n port \"my-port\" {}\n}\nservice {\n port = \"my-port\"\n}";
    assert_eq!(errors_of("", group, "env {\n P = \"${NOMAD_PORT_my_port}\"\n}"), "");
}

#[test]
fn what_only_the_node_can_judge_is_accepted() {
    let identities = "identity {\n name = \"a\"\n aud = [\"x\"]\n ttl = \"1h\"\n}\n";
    for (group, task) in [
        (
            "service {\n port = \"unknown\"\n check {\n type = \"tcp\"\n port = \"odd\"\n interval = \"5s\"\n timeout = \"1s\"\n }\n}",
            String::new(),
        ),
        ("network {\n mode = \"foo\"\n port \"n\" {\n static = -1\n }\n}", String::new()),
        (
            "volume \"v\" {\n type = \"csi\"\n source = \"s\"\n access_mode = \"odd\"\n attachment_mode = \"odd\"\n}",
            String::new(),
        ),
        ("", identities.repeat(2)),
    ] {
        assert_eq!(errors_of("", group, &task), "", "{group}{task}");
    }
    let text = "job \"j\" {\n group \"g\" {\n task \"t\" {\n driver = \"pot\"\n config {\n any = \"thing\"\n }\n }\n }\n}\n";
    assert_eq!(errors(&job(text)), "");
}

#[test]
fn maps_in_driver_options_become_lists_of_maps_and_pass_the_check() {
    let config = "image = \"i\"\n labels = {\n a = \"b\"\n }\n port_map {\n http = 80\n }\n ulimit = [{ nofile = \"1:2\" }]";
    let network = "resources {\n network {\n port \"http\" {}\n }\n }";
    let text = format!(
        "job \"j\" {{\n group \"g\" {{\n task \"t\" {{\n driver = \"docker\"\n config {{\n {config}\n }}\n {network}\n }}\n }}\n}}\n"
    );
    let job = job(&text);
    let written = &job.task_groups[0].tasks[0].config;
    assert_eq!(written["labels"], serde_json::json!([{"a": "b"}]));
    assert_eq!(written["port_map"], serde_json::json!([{"http": 80}]));
    assert_eq!(errors(&job), "");
}

#[test]
fn a_driver_that_no_node_offers_is_a_warning() {
    let job = job(&with("", "", ""));
    let offered = |names: &[&str]| Facts {
        drivers: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        ..Facts::default()
    };
    let found = jobspec::validate_in(&job, &offered(&["docker"]));
    assert!(found.is_ok());
    assert_eq!(
        found.warnings,
        [
            "Task \"g.t\" asks for driver \"raw_exec\", which no node of this cluster offers: it waits until one does."
        ]
    );
    assert_eq!(jobspec::validate_in(&job, &offered(&["raw_exec"])).warnings, Vec::<String>::new());
    assert_eq!(jobspec::validate(&job).warnings, Vec::<String>::new());
}

#[test]
fn memory_max_without_oversubscription_is_a_warning() {
    let job = job(&with("", "", "resources {\n memory_max = 500\n}"));
    let warned = |allowed| {
        let facts = Facts { memory_oversubscription: Some(allowed), ..Facts::default() };
        jobspec::validate_in(&job, &facts).warnings_text()
    };
    assert_eq!(warned(true), "");
    assert_eq!(
        warned(false),
        "1 warning:\n\n* Memory oversubscription is not enabled; Task \"g.t\" memory_max value will be ignored. Update the \
         Scheduler Configuration to allow oversubscription."
    );
}

#[test]
fn a_disabled_periodic_block_is_not_validated() {
    let periodic = |enabled: bool| {
        errors_of(
            &format!("type = \"batch\"\nperiodic {{\n enabled = {enabled}\n cron = \"nonsense\"\n}}"),
            "",
            "",
        )
    };
    assert_eq!(periodic(false), "");
    assert!(periodic(true).contains("Invalid cron spec \"nonsense\": missing field(s)"));
}

#[test]
fn a_descending_range_is_accepted_and_never_fires() {
    let job = job(&with("type = \"batch\"\nperiodic {\n crons = [\"0 22-6 * * *\"]\n}", "", ""));
    assert_eq!(errors(&job), "");
    let periodic = job.periodic.as_ref().expect("a schedule");
    let now = Time::from_secs(1795246620);
    assert_eq!(schedule::next_launch(periodic, now), Ok(None));
}

#[test]
fn a_max_delay_that_is_too_short_is_told_with_its_own_value() {
    let found = errors_of("", "reschedule {\n delay = \"30s\"\n max_delay = \"2s\"\n}", "");
    assert!(found.contains("Max Delay cannot be less than 5s (got 2s)"), "{found}");
}

#[test]
fn reading_a_file_leaves_datacenters_pool_and_the_default_identity_to_the_server() {
    let text = with("", "", "service {\n provider = \"nomad\"\n}");
    let parsed = parse(&text).expect("a job");
    for value in [parsed.request(), parsed.canonical(&Defaults::default())] {
        let group = &value["TaskGroups"][0];
        assert!(value["Datacenters"].is_null(), "{value}");
        assert!(value["NodePool"].is_null() || value["NodePool"] == "", "{value}");
        assert!(group["Tasks"][0]["Identity"].is_null() && group["Constraints"].is_null(), "{value}");
    }
    let request = parsed.request();
    let task = &request["TaskGroups"][0]["Tasks"][0];
    assert_eq!(
        (&task["User"], &task["Leader"], &task["ShutdownDelay"]),
        (&"".into(), &false.into(), &0.into())
    );
    assert!(task["KillTimeout"].is_null() && request["Priority"].is_null());
    assert_eq!(request["Dispatched"], false);
    // The server completes what the file left open.
    let complete = job(&text);
    assert_eq!((complete.datacenters.join(","), complete.node_pool.as_str()), ("*".to_owned(), "default"));
    assert_eq!(
        complete.task_groups[0].tasks[0].identity.as_ref().map(|own| own.name.as_str()),
        Some("default")
    );
}

#[test]
fn problems_come_in_a_fixed_order() {
    let text = "job \"j\" {\n type = \"odd\"\n priority = 500\n group \"g\" {\n count = -1\n restart {\n mode = \"odd\"\n }\n network {\n \
                port \"a\" {\n to = -5\n }\n }\n task \"t\" {\n }\n }\n}\n";
    let homes = ["job is in nonexistent namespace", "job is in nonexistent node pool"];
    let facts = Facts { missing_homes: homes.map(str::to_owned).to_vec(), ..Facts::default() };
    let found = jobspec::validate_in(&job(text), &facts).error_text().unwrap_or_default();
    let order = [
        "nonexistent namespace",
        "nonexistent node pool",
        "Invalid job type",
        "Task group count can't be negative",
        "Unsupported restart mode",
        "cannot be mapped to negative value",
        "Missing task driver",
        "job priority must be",
    ];
    let places: Vec<usize> =
        order.iter().map(|text| found.find(text).unwrap_or_else(|| panic!("{found}"))).collect();
    assert!(places.is_sorted(), "{found}");
}

#[test]
fn the_sixth_field_of_a_schedule_is_the_year_and_only_a_seventh_brings_seconds() {
    let next = |cron: &str| {
        let periodic = format!("type = \"batch\"\nperiodic {{\n crons = [\"{cron}\"]\n}}");
        let job = job(&with(&periodic, "", ""));
        assert_eq!(errors(&job), "", "{cron}");
        // 2026-11-21 07:37:00 UTC.
        let found =
            schedule::next_launch(job.periodic.as_ref().expect("a schedule"), Time::from_secs(1_795_246_620));
        found.expect("a schedule").map(|time| time.secs() - 1_795_246_620)
    };
    assert_eq!(next("*/15 * * * *"), Some(8 * 60));
    assert_eq!(next("*/15 * * * * *"), Some(8 * 60), "minutes, of any year");
    assert_eq!(next("* * * * * 2020"), None, "a year that is over");
    assert_eq!(next("0/3 * * * * * *"), Some(3), "seconds");
    assert_eq!(next("0/3 * * * * * * what ever"), Some(3), "more is ignored");
    let every = errors_of("type = \"batch\"\nperiodic {\n crons = [\"@every 5m\"]\n}", "", "");
    assert!(every.contains("Invalid cron spec \"@every 5m\": missing field(s)"), "{every}");
}

#[test]
fn the_text_of_a_template_is_read_as_hcl_first() {
    let template = |data: &str| {
        let block = format!("template {{\n destination = \"local/a\"\n data = <<EOF\n{data}\nEOF\n}}");
        parse(&with("", "", &block))
            .map(|parsed| parsed.job.task_groups[0].tasks[0].templates[0].embedded_tmpl.clone())
    };
    let fine = template("{{ env \"X\" }} ${NOMAD_PORT_http} $${X:-y} %%{http_code}");
    assert_eq!(fine.as_deref(), Ok("{{ env \"X\" }} ${NOMAD_PORT_http} ${X:-y} %{http_code}\n"));
    assert!(template("${X:-y}").is_err(), "a shell's default is no expression");
    assert!(template("%{http_code}").is_err(), "nor is this a directive");
}

#[test]
fn functions_on_files_fail_where_a_server_reads_the_job() {
    let text = with("meta {\n a = file(\"/etc/hostname\")\n}", "", "");
    let refused = parse(&text).map(|parsed| parsed.raw).expect_err("a refusal");
    assert!(refused.contains("filesystem function disabled"), "{refused}");
}

#[test]
fn a_volume_of_an_unknown_type_is_refused_by_its_type() {
    let volume = "volume \"v\" {\n type = \"nfs\"\n source = \"s\"\n}";
    let mount = "volume_mount {\n volume = \"v\"\n destination = \"/v\"\n}";
    let found = errors_of("", volume, mount);
    assert!(found.contains("volume has unrecognized type \"nfs\""), "{found}");
    assert!(!found.contains("undefined volume"), "nothing is dropped: {found}");
}

#[test]
fn index_reverse_length_and_replace_are_not_those_of_terraform() {
    let read = |expression: &str| {
        let text = with(&format!("meta {{\n x = {expression}\n}}"), "", "");
        parse(&text).map(|parsed| parsed.job.meta["x"].clone())
    };
    assert_eq!(read("index([\"a\", \"b\"], 1)").as_deref(), Ok("b"), "an element, not its place");
    assert_eq!(read("reverse(\"abc\")").as_deref(), Ok("cba"), "of texts");
    assert_eq!(read("replace(\"a.b\", \"/./\", \"-\")").as_deref(), Ok("a.b"), "no patterns");
    let refused = |expression: &str| read(expression).expect_err("a refusal");
    assert!(refused("join(\"\", reverse([\"a\"]))").contains("string required"));
    assert!(refused("length(\"abc\")").contains("collection must be a list, a map or a tuple."));
}

#[test]
fn object_literals_have_no_length_the_last_local_counts_and_a_flag_without_a_value_is_ignored() {
    let refused = |expression: &str| {
        let text = with(&format!("meta {{\n x = {expression}\n}}"), "", "");
        parse(&text).map(|parsed| parsed.raw).expect_err("a refusal")
    };
    for expression in ["length({ a = 1 })", "index({ a = 1 }, \"a\")"] {
        let found = refused(expression);
        assert!(found.contains("collection must be a list, a map or a tuple."), "{expression}: {found}");
    }
    let locals = "locals {\n a = \"1\"\n}\nlocals {\n a = \"2\"\n}\n";
    assert_eq!(job(&format!("{locals}{}", with("meta {\n x = local.a\n}", "", ""))).meta["x"], "2");
}

#[test]
fn only_the_first_network_of_a_group_has_a_mode_and_all_are_checked() {
    let second = |port: &str| {
        format!("network {{\n port \"a\" {{}}\n}}\nnetwork {{\n port \"b\" {{\n {port}\n }}\n}}")
    };
    assert_eq!(errors_of("", &second(""), ""), "");
    let found = errors_of("", &second("to = 70000"), "");
    assert!(found.contains("Port \"b\" cannot be mapped to a port (70000) greater than 65535"), "{found}");
}
