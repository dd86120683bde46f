//! What authors are told about mistakes: all of them at once, each with its place.

use super::parse;
use super::with;

fn problems(text: &str) -> Vec<String> {
    parse(text).expect_err("the file is wrong").lines().map(str::to_owned).collect()
}

#[test]
fn an_elision_is_a_syntax_error_at_its_line() {
    let text = "job \"j\" {\n  group \"g\" {\n    task \"t\" {\n      ...\n    }\n  }\n}\n";
    assert_eq!(
        problems(text),
        [
            "test.nomad:4,7-10: Argument or block definition required; An argument or block definition is required here."
        ]
    );
}

#[test]
fn all_unknown_names_are_listed_with_suggestions() {
    let text = "job \"j\" {\n  datacentres = [\"a\"]\n  group \"g\" {\n    cuont = 1\n    task \"t\" {\n      drivr = \"d\"\n      \
                resource {\n      }\n    }\n    update = {}\n    count {\n    }\n  }\n}\nother {}\n";
    assert_eq!(
        problems(text),
        [
            "test.nomad:2,3-14: Unsupported argument; An argument named \"datacentres\" is not expected here. Did you mean \
         \"datacenters\"?",
            "test.nomad:4,5-10: Unsupported argument; An argument named \"cuont\" is not expected here. Did you mean \
         \"count\"?",
            "test.nomad:6,7-12: Unsupported argument; An argument named \"drivr\" is not expected here. Did you mean \
         \"driver\"?",
            "test.nomad:7,7-15: Unsupported block type; Blocks of type \"resource\" are not expected here. Did you mean \
         \"resources\"?",
            "test.nomad:10,5-11: Unsupported argument; An argument named \"update\" is not expected here. Did you mean to \
         define a block of type \"update\"?",
            "test.nomad:11,5-10: Unsupported block type; Blocks of type \"count\" are not expected here. Did you mean to \
         define argument \"count\"? If so, use the equals sign to assign it a value.",
            "test.nomad:15,1-6: Unsupported block type; Blocks of type \"other\" are not expected here.",
        ]
    );
}

#[test]
fn values_that_do_not_fit_say_so() {
    for (job, group, task, expected) in [
        ("", "count = \"a\"", "", "Unsuitable value type; Unsuitable value: a number is required"),
        ("", "count = 1.5", "", "value must be a whole number"),
        ("", "", "leader = 1", "bool required"),
        ("", "", "leader = \"yes\"", "a bool is required"),
        ("datacenters = \"dc1\"", "", "", "list of string required"),
        (
            "",
            "",
            "kill_timeout = \"1d\"",
            "Unsuitable duration value: time: unknown unit \"d\" in duration \"1d\"",
        ),
        ("", "", "kill_timeout = null", "Unsuitable value; Unsuitable duration value: nil"),
        ("", "", "env {\n A = null\n}", "null value is not allowed"),
        (
            "meta {\n}\nmeta {\n}",
            "",
            "",
            "Duplicate meta block; Only one meta block is allowed. Another was defined at test.nomad:2,1-5.",
        ),
        (
            "",
            "network {\n port {}\n}",
            "",
            "Missing name for port; All port blocks must have 1 labels (name).",
        ),
        (
            "",
            "task \"a\" \"b\" {\n}",
            "",
            "Extraneous label for task; Only 1 labels (name) are expected for task blocks.",
        ),
        (
            "",
            "count = var.x",
            "",
            "Unsupported attribute; This object does not have an attribute named \"x\".",
        ),
        ("", "count = nope(1)", "", "Call to unknown function; There is no function named \"nope\"."),
        ("meta {\n a = file(\"x\")\n}", "", "", "filesystem function disabled"),
        ("", "", "action \"a\" {\n}", "Missing required argument; The argument \"command\" is required"),
    ] {
        let text = with(job, group, task);
        let found = parse(&text).expect_err(expected);
        assert!(found.contains(expected), "{found}\nlacks\n{expected}");
        assert!(found.starts_with("test.nomad:"), "{found}");
    }
}

#[test]
fn files_without_a_job_or_with_two_are_refused() {
    assert_eq!(problems(""), ["<nil>: Job spec is empty"]);
    assert!(problems("locals {}\n")[0].contains("Missing job block"));
    assert!(problems("job \"a\" {}\njob \"b\" {}\n")[0].contains("Duplicate job block"));
    assert!(
        problems("job {}\n")[0].contains("Missing name for job; All job blocks must have 1 labels (name).")
    );
    assert!(problems("job \"a\" {\n")[0].contains("Unclosed configuration block"));
    assert!(problems("job \"a\" {\n  \"x.y\" = 1\n}\n")[0].contains("Argument names must not be quoted."));
}

#[test]
fn a_report_shows_the_line_with_a_mark() {
    let source = herder::jobspec::Source { name: "test.nomad", text: "job \"j\" {\n  typ = \"batch\"\n}\n" };
    let problems = herder::jobspec::parse(&source, &Default::default()).expect_err("typ is unknown");
    let report = problems.report(false);
    assert!(report.contains("test.nomad:2:3") && report.contains("typ = \"batch\""), "{report}");
    assert!(report.contains("Did you mean \"type\"?"), "{report}");
}

#[test]
fn older_syntax_is_accepted_with_a_warning_for_each_repair() {
    let parsed = parse("job \"j\" {\n  type = \"batch\",\n  group \"g\" {\n    count = 1, \n  }\n}\n")
        .expect("repaired");
    let places: Vec<_> = parsed.warnings.iter().map(|warning| (warning.line, warning.column)).collect();
    assert_eq!(places, [(2, 17), (4, 14)]);
    let tolerant = "job \"j\" {\n  datacenters = \"dc1\",\n  group \"g\" {\n    task \"t\" {\n      driver = \"d\"\n      config = \
                    { a = \"b\" }\n      resources = { network = { port = { http = { static = 80 } } } }\n    }\n  }\n}\n";
    let job = parse(tolerant).expect("assigned blocks").job;
    assert_eq!(job.datacenters, ["dc1"]);
    let task = &job.task_groups[0].tasks[0];
    assert_eq!(task.config["a"], "b");
    assert_eq!(task.resources().networks[0].reserved_ports[0].value, 80);
    let quoted = parse("\"job\" \"j\" {\n  \"type\" = \"batch\"\n  meta {\n    \"a\" = \"b\"\n  }\n}\n")
        .expect("quoted names");
    assert_eq!((quoted.job.kind.as_str(), quoted.job.meta["a"].as_str()), ("batch", "b"));
    let oneline = parse("job \"j\" {\n  group \"g\" { count = 2 }\n  meta { a = \"1\" b = \"2\" }\n}\n")
        .expect("one line");
    assert_eq!(oneline.job.meta.len(), 2);
}

#[test]
fn many_commas_are_repaired_at_once_and_change_no_text() {
    let mut text = "job \"j\" {\n".to_owned();
    for index in 0..300 {
        let group = format!(
            "  group \"g{index}\" {{\n    count = 2, # two,\n    task \"t\" {{\n      driver = \"d\",\n      env = {{\n        A = \
             \"x,\",\n        B = \"y\",\n      }}\n      template {{\n        data = <<EOT\na,\nb,\nEOT\n        destination = \
             \"f\"\n      }}\n      config {{\n        args = [\n          \"a\",\n          \"b\",\n        ],\n      }},\n    }}\n  }}\n"
        );
        text.push_str(&group);
    }
    text.push_str("}\n");
    let job = parse(&text).expect("repaired").job;
    assert_eq!(job.task_groups.len(), 300);
    for group in &job.task_groups {
        let task = &group.tasks[0];
        assert_eq!((group.count, task.driver.as_str(), task.env["A"].as_str()), (Some(2), "d", "x,"));
        assert_eq!(task.templates[0].embedded_tmpl, "a,\nb,\n");
        assert_eq!(task.config["args"], serde_json::json!(["a", "b"]));
    }
}

#[test]
fn an_argument_given_twice_is_an_error() {
    let found = problems("job \"j\" {\n  type = \"batch\"\n  type = \"batch\"\n}\n");
    assert_eq!(
        found,
        [
            "test.nomad:3,3-7: Attribute redefined; The argument \"type\" was already set. Each argument may be set only once."
        ]
    );
}

#[test]
fn syntax_errors_say_what_is_expected() {
    for (body, expected) in [
        (
            "type \"batch\"",
            "Invalid block definition; Either a quoted string block label or an opening brace",
        ),
        ("type = \"batch", "test.nomad:2,10-16: Invalid multi-line string; Quoted strings may not be split"),
        ("type = batch\"", "Invalid multi-line string"),
        (
            "meta {\n a = \"${X:-y}\"\n}",
            "test.nomad:3,10-11: Extra characters after interpolation expression; Did you intend",
        ),
        (
            "datacenters = [\"a\"",
            "Missing item separator; Expected a comma to mark the beginning of the next item.",
        ),
        ("datacenters = [\"a\" \"b\"]", "test.nomad:2,22-23: Missing item separator"),
        ("meta {\n a = \"\\d\"\n}", "Invalid escape sequence"),
        ("type = ", "Invalid expression; Expected the start of an expression"),
        (
            "type = \"a\" \"b\"",
            "Missing newline after argument; An argument definition must end with a newline.",
        ),
        ("group g {", "test.nomad:1,9-10: Unclosed configuration block"),
        ("x.y = 1", "test.nomad:2,4-5: Invalid block definition"),
        (
            "meta {\n a = <<EOT\nfoo\n}",
            "Unterminated template string; No closing marker was found for the string.",
        ),
    ] {
        let found = parse(&format!("job \"j\" {{\n  {body}\n}}\n")).expect_err(expected);
        assert!(found.contains(expected), "for {body}:\n{found}\nlacks\n{expected}");
    }
}

#[test]
fn files_that_would_grow_without_bound_are_refused() {
    let mut text = "locals {\n  a0 = \"0123456789012345678901234567890123456789\"\n".to_owned();
    for index in 1..40 {
        text.push_str(&format!("  a{index} = \"${{local.a{}}}${{local.a{}}}\"\n", index - 1, index - 1));
    }
    text.push_str("}\njob \"j\" {\n}\n");
    assert!(parse(&text).expect_err("too large").contains("Expressions too large"));
    let nested = "job \"j\" {\n dynamic \"group\" {\n for_each = range(1000)\n labels = [\"g${group.value}\"]\n content {\n dynamic \
                  \"constraint\" {\n for_each = range(1000)\n content {}\n }\n }\n }\n}\n";
    let found = problems(nested);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("Too many dynamic blocks"));
}
