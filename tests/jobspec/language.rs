//! The language: variables, locals, functions, dynamic blocks, what is left for run time.

use herder::jobspec;
use herder::jobspec::Source;
use herder::jobspec::Variables;
use serde_json::Value;
use serde_json::json;

use super::job;
use super::parse;
use super::parse_with;
use super::with;

fn config(body: &str) -> Value {
    let text = format!(
        "locals {{\n list = [\"a\", \"b\"]\n map = {{ k = \"v\" }}\n}}\njob \"j\" {{\n group \"g\" {{\n task \"t\" {{\n driver = \
         \"x\"\n config {{\n{body}\n}}\n}}\n}}\n}}\n"
    );
    Value::Object(parse(&text).expect(body).job.task_groups[0].tasks[0].config.clone())
}

fn value(expression: &str) -> Value {
    config(&format!("a = {expression}"))["a"].clone()
}

#[test]
fn names_of_the_run_time_survive_as_text() {
    for (written, expected) in [
        ("\"a-${NOMAD_ALLOC_ID}-b\"", "a-${NOMAD_ALLOC_ID}-b"),
        ("NOMAD_TASK_NAME", "${NOMAD_TASK_NAME}"),
        ("\"${env[\"X\"]}\"", "${env[\"X\"]}"),
        ("\"${attr.unique.network.ip-address}\"", "${attr.unique.network.ip-address}"),
        ("\"${attr.driver.x.2}\"", "${attr.driver.x.2}"),
        ("\"${a.b[0].c}\"", "${a.b[0].c}"),
        ("\"${upper(attr.x)}\"", "${ATTR.X}"),
        ("\"{${NOMAD_X}}\"", "{${NOMAD_X}}"),
        ("\"$${literal} %%{too}\"", "${literal} %{too}"),
        ("\"${NOMAD_META_x == \"a\" ? 1 : 2}\"", "2"),
        ("\"${local.map.k}-${meta.my-key}\"", "v-${meta.my-key}"),
        ("<<EOT\n{{ key \"a\" }} ${NOMAD_IP_x}\nEOT\n", "{{ key \"a\" }} ${NOMAD_IP_x}\n"),
        (
            "join(\",\", [for x in local.list : \"${x}@${node.datacenter}\"])",
            "a@${node.datacenter},b@${node.datacenter}",
        ),
        ("\"%{ for x in local.list }${x}${NOMAD_X} %{ endfor }\"", "a${NOMAD_X} b${NOMAD_X} "),
    ] {
        let found = value(written);
        let found = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
        assert_eq!(found, expected, "{written}");
    }
}

#[test]
fn driver_options_become_lists_of_maps() {
    for (body, expected) in [
        ("x = 1", json!({"x": 1})),
        ("x = 1.5", json!({"x": 1.5})),
        ("x = 1e3", json!({"x": 1000})),
        ("x = true", json!({"x": true})),
        ("labels = { a = \"b\" }", json!({"labels": [{"a": "b"}]})),
        ("labels {\n a = \"b\"\n}", json!({"labels": [{"a": "b"}]})),
        ("labels = [{ a = \"b\" }]", json!({"labels": [{"a": "b"}]})),
        ("mount {\n a = 1\n}\nmount {\n a = 2\n}", json!({"mount": [{"a": 1}, {"a": 2}]})),
        ("x \"l\" {\n a = 1\n}", json!({"x": [{"l": [{"a": 1}]}]})),
        ("lab \"l1\" \"l2\" {\n a = 1\n}", json!({"lab": [{"l1": [{"l2": [{"a": 1}]}]}]})),
        ("x = {}", json!({"x": [{}]})),
        ("x = []", json!({"x": []})),
        ("x = null\ny = 1", json!({"y": 1})),
        ("x = { y = { z = 1 } }", json!({"x": [{"y": [{"z": 1}]}]})),
    ] {
        assert_eq!(config(body), expected, "{body}");
    }
}

#[test]
fn functions_give_what_their_names_say() {
    for (written, expected) in [
        ("abs(-3)", json!(3)),
        ("ceil(1.2)", json!(2)),
        ("max(1, 7, 3)", json!(7)),
        ("min([4, 2]...)", json!(2)),
        ("pow(2, 10)", json!(1024)),
        ("parseint(\"ff\", 16)", json!(255)),
        ("signum(-2)", json!(-1)),
        ("upper(\"a\")", json!("A")),
        ("title(\"hello world\")", json!("Hello World")),
        ("chomp(\"a\\n\")", json!("a")),
        ("format(\"%s-%03d-%.1f-%t\", \"a\", 7, 1.25, true)", json!("a-007-1.2-true")),
        ("format(\"%q %x %5s|%-5s|\", \"a\", 255, \"b\", \"c\")", json!("\"a\" ff     b|c    |")),
        ("formatlist(\"%s.x\", local.list)", json!(["a.x", "b.x"])),
        ("indent(2, \"a\\nb\")", json!("a\n  b")),
        ("join(\"-\", local.list)", json!("a-b")),
        ("regex_replace(\"a1b2\", \"[0-9]\", \"_\")", json!("a_b_")),
        ("replace(\"a.b.c\", \".\", \"/\")", json!("a/b/c")),
        ("split(\",\", \"a,b\")", json!(["a", "b"])),
        ("strlen(\"é!\")", json!(2)),
        ("strrev(\"abc\")", json!("cba")),
        ("reverse(\"abc\")", json!("cba")),
        ("substr(\"hello\", 1, 3)", json!("ell")),
        ("substr(\"hello\", -3, -1)", json!("llo")),
        ("trim(\"--a-\", \"-\")", json!("a")),
        ("trimprefix(\"hello\", \"he\")", json!("llo")),
        ("trimspace(\"  a \")", json!("a")),
        ("chunklist([1, 2, 3], 2)", json!([[1, 2], [3]])),
        ("coalesce(null, \"\", \"b\")", json!("")),
        ("compact([\"\", \"a\"])", json!(["a"])),
        ("concat(local.list, [\"c\"])", json!(["a", "b", "c"])),
        ("contains(local.list, \"b\")", json!(true)),
        ("distinct([1, 1, 2])", json!([1, 2])),
        ("element(local.list, 3)", json!("b")),
        ("flatten([[1], [2, [3]]])", json!([1, 2, 3])),
        ("index(local.list, 1)", json!("b")),
        ("keys({ b = 1, a = 2 })", json!(["a", "b"])),
        ("values({ b = 1, a = 2 })", json!([2, 1])),
        ("length(local.list)", json!(2)),
        ("lookup(local.map, \"no\", \"d\")", json!("d")),
        ("range(3)", json!([0, 1, 2])),
        ("setunion([\"b\"], [\"a\", \"b\"])", json!(["a", "b"])),
        ("setintersection([\"b\", \"c\"], [\"a\", \"b\"])", json!(["b"])),
        ("setproduct([1, 2], [3])", json!([[1, 3], [2, 3]])),
        ("slice([1, 2, 3], 1, 3)", json!([2, 3])),
        ("sort([\"b\", \"a\"])", json!(["a", "b"])),
        ("zipmap([\"a\"], [1]).a", json!(1)),
        ("base64encode(\"hi\")", json!("aGk=")),
        ("base64decode(\"aGk=\")", json!("hi")),
        ("csvdecode(\"a,b\\n1,2\\n\")[0].b", json!("2")),
        ("jsonencode({ b = \"<\", a = 1 })", json!("{\"a\":1,\"b\":\"\\u003c\"}")),
        ("jsondecode(\"{\\\"a\\\": [1]}\").a[0]", json!(1)),
        ("urlencode(\"a b/c\")", json!("a+b%2Fc")),
        ("yamlencode({ a = [1], b = \"x\" })", json!("\"a\":\n- 1\n\"b\": \"x\"\n")),
        ("md5(\"a\")", json!("0cc175b9c0f1b6a831c399e269772661")),
        ("sha1(\"a\")", json!("86f7e437faa5a7fce15d1ddcb9eaeaea377667b8")),
        ("sha256(\"a\")", json!("ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb")),
        ("uuidv5(\"dns\", \"example.com\")", json!("cfbff0d1-9375-5685-968c-48ce8b15ae17")),
        ("formatdate(\"DD MMM YYYY hh:mm\", \"2026-11-21T08:05:00Z\")", json!("21 Nov 2026 08:05")),
        ("timeadd(\"2026-11-21T08:05:00Z\", \"1h\")", json!("2026-11-21T09:05:00Z")),
        ("cidrhost(\"10.1.0.0/16\", 5)", json!("10.1.0.5")),
        ("cidrhost(\"10.1.0.0/16\", -1)", json!("10.1.255.255")),
        ("cidrnetmask(\"10.1.0.0/20\")", json!("255.255.240.0")),
        ("cidrsubnet(\"10.1.0.0/16\", 8, 3)", json!("10.1.3.0/24")),
        ("cidrsubnets(\"10.1.0.0/16\", 4, 8)", json!(["10.1.0.0/20", "10.1.16.0/24"])),
        ("can(local.map.no)", json!(false)),
        ("try(local.map.no, \"fallback\")", json!("fallback")),
        ("convert(\"3\", number)", json!(3)),
        ("convert([1, 2], list(string))", json!(["1", "2"])),
        ("1 == 1 && local.map.k == \"v\" ? \"yes\" : \"no\"", json!("yes")),
    ] {
        assert_eq!(value(written), expected, "{written}");
    }
    assert_eq!(config("a = merge(local.map, { x = \"y\" })"), json!({"a": [{"k": "v", "x": "y"}]}));
}

const DECLARED: &str = "variable \"dcs\" {\n type = list(string)\n default = [\"dc1\"]\n}\nvariable \"count\" {\n type = \
                        number\n default = 1\n}\nvariable \"name\" {}\n";

fn variables(flags: &[(&str, &str)]) -> Variables {
    let flags = flags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Variables { flags, ..Variables::default() }
}

#[test]
fn variables_come_from_environment_files_and_flags_in_this_order() {
    let text = format!(
        "{DECLARED}{}",
        with("datacenters = var.dcs\nmeta {\n n = var.name\n}", "count = var.count", "")
    );
    let mut given = variables(&[("name", "flag")]).with_environment([
        ("NOMAD_VAR_count".to_owned(), "2".to_owned()),
        ("HERDER_VAR_dcs".to_owned(), "[\"e\"]".to_owned()),
        ("NOMAD_VAR_dcs".to_owned(), "[\"n\"]".to_owned()),
        ("NOMAD_VAR_unknown".to_owned(), "x".to_owned()),
    ]);
    given.files.push(("my.vars".to_owned(), "name = \"file\"\ncount = 9\n".to_owned()));
    given.files.push(("more.json".to_owned(), "{\"count\": 3}".to_owned()));
    let job = parse_with(&text, &given).expect("all variables are set").job;
    assert_eq!(job.datacenters, ["e"]);
    assert_eq!(job.task_groups[0].count, Some(3));
    assert_eq!(job.meta["n"], "flag");
}

#[test]
fn variables_that_are_missing_unknown_or_wrong_are_named() {
    let text = format!("{DECLARED}{}", with("", "count = var.count", ""));
    let unset = parse(&text).expect_err("name has no value");
    assert!(unset.starts_with("<nil>: Unset variable \"name\"; A used variable must be set"), "{unset}");
    let undeclared = parse_with(&text, &variables(&[("name", "n"), ("other", "x")])).expect_err("undeclared");
    assert!(undeclared.starts_with("<nil>: Undefined -var variable; "), "{undeclared}");
    let wrong = parse_with(&text, &variables(&[("name", "n"), ("count", "many")])).expect_err("not a number");
    assert!(
        wrong.contains("Invalid argument value for -var variable; The received arg value for count"),
        "{wrong}"
    );
    assert!(wrong.contains("a number is required"), "{wrong}");
    let bare = parse_with(&text, &variables(&[("name", "n"), ("dcs", "yes")])).expect_err("a bare word");
    assert!(bare.contains("Variables not allowed; Variables may not be used here."), "{bare}");
    let lenient = Variables { strict: false, ..variables(&[("name", "n"), ("other", "x")]) };
    assert_eq!(parse_with(&text, &lenient).expect("a warning only").warnings.len(), 1);
}

#[test]
fn validations_of_variables_are_checked() {
    let text = format!(
        "variable \"n\" {{\n type = number\n validation {{\n condition = var.n > 2\n error_message = \"Too small.\"\n }}\n}}\n{}",
        with("", "", "")
    );
    let refused = parse_with(&text, &variables(&[("n", "1")])).expect_err("one is too small");
    assert!(refused.contains("Invalid value for cmd variable; Too small."), "{refused}");
    assert!(parse_with(&text, &variables(&[("n", "3")])).is_ok());
}

#[test]
fn locals_may_refer_to_each_other_in_any_order() {
    let text = format!(
        "locals {{\n a = \"${{local.b}}!\"\n b = upper(local.c)\n}}\nlocals {{\n c = \"x${{NOMAD_Y}}\"\n}}\n{}",
        with("meta {\n a = local.a\n}", "", "")
    );
    assert_eq!(job(&text).meta["a"], "X${NOMAD_Y}!");
    let cycle = parse(&format!("locals {{\n a = local.b\n b = local.a\n}}\n{}", with("", "", "")));
    assert!(
        cycle.expect_err("a cycle").contains("Unsupported attribute; This object does not have an attribute")
    );
}

#[test]
fn dynamic_blocks_multiply() {
    let text = "job \"j\" {\n dynamic \"group\" {\n for_each = { a = 1, b = 2 }\n iterator = it\n labels = [\"g-${it.key}\"]\n \
                content {\n count = it.value\n network {\n dynamic \"port\" {\n for_each = [\"x\", \"y\"]\n labels = \
                [port.value]\n content {\n to = 80 + port.key\n }\n }\n }\n task \"t\" {\n driver = \"d\"\n env {\n A = \
                \"${it.key}-${NOMAD_Z}\"\n }\n }\n }\n }\n}\n";
    let job = job(text);
    let counts: Vec<_> = job.task_groups.iter().map(|group| (group.name.as_str(), group.count)).collect();
    assert_eq!(counts, [("g-a", Some(1)), ("g-b", Some(2))]);
    let ports: Vec<_> = job.task_groups[1].networks[0]
        .dynamic_ports
        .iter()
        .map(|port| (port.label.as_str(), port.to))
        .collect();
    assert_eq!(ports, [("x", 80), ("y", 81)]);
    assert_eq!(job.task_groups[1].tasks[0].env["A"], "b-${NOMAD_Z}");
}

#[test]
fn tasks_directly_in_the_job_get_groups_before_the_others() {
    let job = job(
        "job \"j\" {\n group \"g\" {\n task \"a\" {\n driver = \"d\"\n }\n }\n task \"solo\" {\n driver = \"d\"\n }\n}\n",
    );
    let names: Vec<&str> = job.task_groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(names, ["solo", "g"]);
    assert_eq!(job.task_groups[0].tasks[0].name, "solo");
}

#[test]
fn values_convert_as_in_hcl() {
    let job = job(&with(
        "priority = \"60\"\nall_at_once = \"true\"\nmeta = {\n \"a.b\" = 1\n}",
        "shutdown_delay = 5000000000",
        "env {\n N = 1\n B = true\n}\nkill_timeout = \"1m30s\"",
    ));
    assert_eq!((job.priority, job.all_at_once), (60, true));
    assert_eq!(job.meta["a.b"], "1");
    let group = &job.task_groups[0];
    assert_eq!(group.shutdown_delay.map(|delay| delay.to_string()), Some("5s".to_owned()));
    assert_eq!((group.tasks[0].env["N"].as_str(), group.tasks[0].env["B"].as_str()), ("1", "true"));
    assert_eq!(group.tasks[0].kill_timeout.map(|timeout| timeout.to_string()), Some("1m30s".to_owned()));
}

#[test]
fn short_forms_of_constraints_set_the_operator() {
    let text = with(
        "constraint {\n distinct_hosts = true\n}\nconstraint {\n attribute = \"${attr.a}\"\n version = \">= 1\"\n}\nconstraint \
         {\n distinct_property = \"${meta.rack}\"\n value = \"2\"\n}\naffinity {\n attribute = \"${attr.b}\"\n set_contains_any = \
         \"x\"\n}\nspread {\n attribute = \"${node.datacenter}\"\n target \"dc1\" {\n percent = 70\n }\n}",
        "",
        "",
    );
    let job = job(&text);
    let found: Vec<_> =
        job.constraints.iter().map(|c| (c.left.as_str(), c.operand.as_str(), c.right.as_str())).collect();
    assert_eq!(
        found,
        [
            ("", "distinct_hosts", ""),
            ("${attr.a}", "version", ">= 1"),
            ("${meta.rack}", "distinct_property", "2"),
        ]
    );
    assert_eq!((job.affinities[0].operand.as_str(), job.affinities[0].weight), ("set_contains_any", 50));
    assert_eq!((job.spreads[0].weight, job.spreads[0].spread_target[0].percent), (50, 70));
}

#[test]
fn declarations_that_make_no_sense_are_refused() {
    for (declaration, expected) in [
        ("default = var.x", "Variables not allowed; Variables may not be used here."),
        ("default = [1, [local.y]]", "Variables not allowed; Variables may not be used here."),
        ("default = upper(\"a\")", "Function calls not allowed; Functions may not be called here."),
        ("type = strin", "The keyword \"strin\" is not a valid type specification."),
        ("type = list", "The list type constructor requires one argument specifying the element type."),
        ("type = list(string, number)", "The list type constructor requires one argument"),
        ("type = optional(string)", "Keyword \"optional\" is not a valid type constructor."),
        ("type = object({ a = string })\n default = {}", "constraint: attribute \"a\" is required."),
        (
            "type = object({ a = string, b = bool })\n default = {}",
            "attributes \"a\" and \"b\" are required.",
        ),
        ("type = tuple([string])\n default = []", "Invalid default value for variable"),
        ("type = list(number)\n default = [\"x\"]", "a number is required"),
        ("sensitive = true", "An argument named \"sensitive\" is not expected here."),
        (
            "default = 1\n validation {\n condition = var.y > 1\n error_message = \"No.\"\n }",
            "Invalid variable validation condition",
        ),
        (
            "default = 1\n validation {\n condition = var.x > local.y\n error_message = \"No.\"\n }",
            "Invalid reference in variable validation; The condition for variable \"x\" can only refer to the variable itself",
        ),
        (
            "default = 1\n validation {\n condition = var.x > 1\n error_message = \"no\"\n }",
            "Invalid validation error message",
        ),
        (
            "default = 1\n validation {\n condition = fileexists(\"/\") || var.x > 1\n error_message = \"No.\"\n }",
            "filesystem function disabled",
        ),
    ] {
        let text = format!("variable \"x\" {{\n {declaration}\n}}\n{}", with("", "", ""));
        let found = parse(&text).map(|parsed| parsed.raw.to_string()).expect_err(declaration);
        assert!(found.contains(expected), "for {declaration}:\n{found}\nlacks\n{expected}");
    }
}

fn value_of(expression: &str) -> String {
    job(&with(&format!("meta {{\n x = {expression}\n}}"), "", "")).meta["x"].clone()
}

#[test]
fn a_name_of_the_run_time_stays_as_it_is_written() {
    for (written, expected) in [
        ("\"${ NOMAD_IP_db }\"", "${ NOMAD_IP_db }"),
        ("\"a-${  NOMAD_IP_db}-${ upper(\"b\") }\"", "a-${  NOMAD_IP_db}-B"),
        ("\"${~ NOMAD_IP_db ~}\"", "${NOMAD_IP_db}"),
        ("\"${ upper(NOMAD_IP) }\"", "${NOMAD_IP}"),
    ] {
        assert_eq!(value_of(written), expected, "{written}");
    }
}

#[test]
fn bare_dates_of_yaml_become_time_stamps() {
    for (yaml, expected) in [
        ("2001-12-14", "2001-12-14T00:00:00Z"),
        ("2001-12-14 21:59:43.10", "2001-12-14T21:59:43Z"),
        ("2001-12-14t21:59:43.10-05:00", "2001-12-14T21:59:43-05:00"),
        ("2001-1-2T03:04:05Z", "2001-01-02T03:04:05Z"),
        ("'2001-12-14'", "2001-12-14"),
        ("2001-13-14", "2001-13-14"),
        ("2001-12-14 noon", "2001-12-14 noon"),
        ("2001-12-14T21:59:43", "2001-12-14T21:59:43"),
    ] {
        let expression = format!("yamldecode(\"a: [{{b: &d {yaml}}}]\\nc: *d\\n\")");
        assert_eq!(value_of(&format!("{expression}.a[0].b")), expected, "{yaml}");
        assert_eq!(value_of(&format!("{expression}.c")), expected, "{yaml}");
    }
}

#[test]
fn files_of_this_machine_are_read_where_that_is_allowed() {
    let folder = std::env::temp_dir().join(format!("herder-files-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("deep")).expect("a folder");
    std::fs::write(folder.join("a.txt"), "one\n").expect("a file");
    std::fs::write(folder.join("deep/b.txt"), "two").expect("a file");
    let at = folder.display();
    let value = |expression: &str| {
        let text = with(&format!("meta {{\n x = {expression}\n}}"), "", "");
        let variables = Variables { filesystem: true, ..Variables::default() };
        let parsed = jobspec::parse(&Source { name: "job.hcl", text: &text }, &variables);
        parsed.unwrap_or_else(|problems| panic!("{problems}")).job.meta["x"].clone()
    };
    for (expression, expected) in [
        (format!("file(\"{at}/a.txt\")"), "one\n".to_owned()),
        (format!("filebase64(\"{at}/deep/b.txt\")"), "dHdv".to_owned()),
        (format!("\"${{fileexists(\"{at}/a.txt\")}} ${{fileexists(\"{at}\")}}\""), "true false".to_owned()),
        (format!("join(\",\", fileset(\"{at}\", \"**/*.txt\"))"), "a.txt,deep/b.txt".to_owned()),
        (format!("join(\",\", fileset(\"{at}\", \"*.txt\"))"), "a.txt".to_owned()),
        ("abspath(\"/a/./b/../../../c/\")".to_owned(), "/c".to_owned()),
        ("basename(\"/a/b.txt\")".to_owned(), "b.txt".to_owned()),
        ("dirname(\"/a/b.txt\")".to_owned(), "/a".to_owned()),
    ] {
        assert_eq!(value(&expression), expected, "{expression}");
    }
    std::fs::remove_dir_all(&folder).expect("removable");
}
