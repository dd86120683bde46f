//! The other ways to write a job: YAML, the first version of HCL, and the canonical layout of the second.

use herder::jobspec;
use herder::jobspec::Format;
use herder::jobspec::Source;
use herder::jobspec::Variables;
use serde_json::json;

use super::parse;
use super::parse_with;

fn yaml(text: &str) -> Result<jobspec::Parsed, String> {
    let source = Source { name: "job.yaml", text };
    jobspec::parse(&source, &Variables::default()).map_err(|problems| problems.to_string())
}

#[test]
fn the_format_is_told_by_content_or_name() {
    for (name, text, expected) in [
        ("x", "{\"ID\": \"a\"}", Format::Json),
        ("x", "\n  {", Format::Json),
        ("x.yaml", "ID: a", Format::Yaml),
        ("x.yml", "job \"x\" {}", Format::Yaml),
        ("x", "# comment\n\nID: a\n", Format::Yaml),
        ("x", "---\nJob:\n  ID: a\n", Format::Yaml),
        ("x", "apiVersion: herder.dev/v1\n", Format::Yaml),
        ("x", "job \"x\" {\n}\n", Format::Hcl),
        ("x", "# a: b\njob \"x\" {}\n", Format::Hcl),
        ("x", "a = b ? c : d\n", Format::Hcl),
        ("x", "", Format::Hcl),
    ] {
        assert_eq!(Format::of(&Source { name, text }), expected, "{name}: {text}");
    }
}

#[test]
fn a_file_that_its_layout_would_break_has_none() {
    // Within a directive the parser reads on beyond the mark.
    let text = "job \"j\" {\n  group \"g\" {\n    task \"t\" {\n      template {\n        destination = \"local/list\"\n        \
                data        = <<-EOT\n          %{for x in [\"a\", \"b\"]~}\n EOT\n${NOMAD_PORT_http}\n          \
                %{endfor~}\n          end\n        EOT\n      }\n    }\n  }\n}\n";
    let found = jobspec::format(&Source { name: "job.hcl", text });
    let refused = found.expect_err("no layout").to_string();
    assert!(refused.contains("The file has no canonical layout"), "{refused}");
}

#[test]
fn mistakes_in_yaml_have_a_line_and_a_column() {
    for (text, expected) in [
        ("ID: a\n  Type: b\n", "job.yaml:2,"),
        ("ID: a\nID: b\n", "job.yaml:2,1-2: Invalid YAML; "),
        ("ID: [a\n", "Invalid YAML; "),
        ("ID: a\n---", "job.yaml:2,4-4: Invalid YAML; "),
        ("- a\n- b\n", "job.yaml:1,1-1: Invalid YAML; A job is a mapping of keys to values."),
        ("ID: a\nTypo: b\n", "job.yaml:2,1-8: Unsupported key; There is no key \"Typo\" in a job."),
        (
            "ID: a\nTaskGroups:\n- Name: g\n  Tasks:\n  - Name: t\n    Drivr: x\n",
            "job.yaml:6,5-13: Unsupported key; There is no key \"TaskGroups[0].Tasks[0].Drivr\" in a job.",
        ),
        (
            "ID: a\nTaskGroups:\n- Name: g\n  Count: many\n",
            "job.yaml:4,3-14: Invalid job; TaskGroups[0].Count: invalid type",
        ),
        (
            "ID: a\nTaskGroups:\n- Name: g\n  ShutdownDelay: 1d\n",
            "Unsuitable duration value of ShutdownDelay: time: unknown unit \"d\" in duration \"1d\"",
        ),
        ("ID: a\n---\nID: b\n", "Invalid YAML; "),
        ("apiVersion: v2\nkind: Job\n", "must be \"herder.dev/v1\", not \"v2\""),
        ("apiVersion: herder.dev/v1\nkind: Pod\n", "must be \"Job\", not \"Pod\""),
        (
            "apiVersion: herder.dev/v1\nkind: Job\nspec: {}\n",
            "\"metadata\" with the name of the job is required",
        ),
        (
            "apiVersion: herder.dev/v1\nkind: Job\nmetadata: {name: a}\n",
            "\"spec\", which holds the job, is required",
        ),
        (
            "apiVersion: herder.dev/v1\nkind: Job\nmetadata: {name: a}\nspec: {id: b}\n",
            "\"spec\" says ID \"b\", but \"metadata.name\" says \"a\"",
        ),
        (
            "apiVersion: herder.dev/v1\nkind: Job\nmetadata: {name: a, annotations: {}}\nspec: {}\n",
            "There is no key \"annotations\" in \"metadata\"",
        ),
        (
            "apiVersion: herder.dev/v1\nkind: Job\nmetadata: {name: a}\nspec: {}\ntype: x\n",
            "A manifest has no key \"type\"",
        ),
    ] {
        let found = yaml(text).map(|parsed| parsed.raw.to_string()).expect_err(text);
        assert!(found.contains(expected), "for {text}:\n{found}\nlacks\n{expected}");
    }
}

#[test]
fn yaml_that_multiplies_or_nests_without_bound_is_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for index in 1..10 {
        let references = vec![format!("*a{}", index - 1); 10].join(", ");
        bomb.push_str(&format!("a{index}: &a{index} [{references}]\n"));
    }
    assert!(yaml(&bomb).is_err());
    assert!(yaml(&format!("Meta: {}{}\n", "[".repeat(5000), "]".repeat(5000))).is_err());
    let nested: String = (0..500).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert!(yaml(&nested).is_err());
}

#[test]
fn variables_are_for_hcl_only() {
    let variables = Variables { flags: vec![("a".to_owned(), "b".to_owned())], ..Variables::default() };
    for text in ["ID: a\n", "{\"ID\": \"a\"}"] {
        let found = parse_with(text, &variables).expect_err(text);
        assert!(found.contains("Invalid job options; Cannot use variables with"), "{found}");
    }
}

#[test]
fn a_file_of_the_first_version_shows_problems_where_they_are() {
    let text = "job \"x\" {\n  type = \"batch\",\n  \"priority\" = \"high\"\n  group \"g\" {\n    cuont = 1\n    task \"t\" {\n      \
                driver = \"raw_exec\"\n      config { command = \"${X:-y}\" }\n    }\n  }\n}\n";
    let found = parse(text).expect_err("two mistakes");
    assert!(
        found.contains("test.nomad:3,3-22: Unsuitable value type; Unsuitable value: a number is required"),
        "{found}"
    );
    assert!(
        found.contains("test.nomad:5,5-10: Unsupported argument; An argument named \"cuont\""),
        "{found}"
    );
}

#[test]
fn a_wrong_file_of_the_second_version_is_not_taken_for_one_of_the_first() {
    for body in ["count = \"${X:-y}\"", "meta {\n a = \"%{ if }\"\n}", "datacenters = [\"a\" \"b\"]"] {
        assert!(parse(&format!("job \"j\" {{\n {body}\n}}\n")).is_err(), "{body}");
    }
}

#[test]
fn the_canonical_layout_moves_blanks_only() {
    let written = "job   \"x\"{\ntype=\"batch\"   # kind\n  priority   = 50 // weight\n\n group \"g\" {\n    count=-1\n  meta = {\n  \
                   a=1,bb = 2\n  }\n data = <<EOT\n  as   it is ${ f( 1 ) }\nEOT\n  other =[for x in [1,2]:x*2 if x!=1]\n}\n}\n";
    let expected = "job \"x\" {\n  type     = \"batch\" # kind\n  priority = 50      // weight\n\n  group \"g\" {\n    count = -1\n    \
                    meta = {\n      a = 1, bb = 2\n    }\n    data  = <<EOT\n  as   it is ${f(1)}\nEOT\n    other = [for x in [1, \
                    2] : x * 2 if x != 1]\n  }\n}\n";
    let formatted = jobspec::format(&Source { name: "x", text: written }).expect("it is HCL");
    assert_eq!(formatted, expected);
    let problems = jobspec::format(&Source { name: "x", text: "a = ,\n" }).expect_err("it is not");
    assert!(problems.to_string().starts_with("x:1,5-6: Invalid expression"), "{problems}");
}

#[test]
fn expressions_that_would_grow_without_bound_are_refused() {
    for expression in [
        "[for a in range(1000) : [for b in range(1000) : [for c in range(1000) : \"${a}${b}${c}\"]]]",
        "join(join(\",\", range(1000)), [for a in range(1000) : [for b in range(1000) : b]][*][0])",
        "replace(join(\"--\", range(1000)), \"\", join(\"--\", range(1000)))",
        "indent(1000000000, \"\\n\")",
        "format(\"%1000000000d\", 1)",
        "formatlist(\"%s%1000s\", setproduct(range(500), range(500)), \"x\")",
        "setproduct(range(1000), range(1000), range(1000))",
        "pow(10, 1000000)",
        "try([for a in range(1000) : [for b in range(1000) : [for c in range(1000) : c]]], 1)",
        "regex_replace(join(\"--\", range(1000)), \"\", join(\"--\", range(1000)))",
    ] {
        let text = format!("job \"j\" {{\n meta {{\n a = jsonencode({expression})\n }}\n}}\n");
        let started = std::time::Instant::now();
        assert!(parse(&text).is_err(), "{expression}");
        assert!(started.elapsed().as_secs() < 60, "{expression} took {:?}", started.elapsed());
    }
    let deep =
        format!("job \"j\" {{\n meta {{\n a = {}1{}\n }}\n}}\n", "(".repeat(10_000), ")".repeat(10_000));
    assert!(parse(&deep).is_err());
    let deep = format!("{}{}", "a {\n".repeat(10_000), "}\n".repeat(10_000));
    assert!(parse(&deep).is_err());
    let deep = format!("{{\"job\": {{\"j\": {{\"meta\": {}1{}}}}}}}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(parse(&deep).is_err());
}

#[test]
fn metadata_of_a_manifest_becomes_the_jobs() {
    let job = yaml(
        "apiVersion: herder.dev/v1\nkind: Job\nmetadata:\n  name: web\n  namespace: shop\n  labels: {team: a, tier: 1}\nspec:\n  \
         type: batch\n  meta: {own: x}\n",
    )
    .expect("a manifest")
    .job;
    assert_eq!((job.id.as_str(), job.name.as_str(), job.namespace.as_str()), ("web", "web", "shop"));
    assert_eq!(
        serde_json::to_value(&job.meta).expect("texts"),
        json!({"own": "x", "team": "a", "tier": "1"})
    );
}

#[test]
fn a_quoted_string_ends_on_its_line() {
    for text in [
        "job \"j\" {\n meta {\n a = \"x\n y\"\n }\n}\n",
        "job \"j\" {\n meta {\n a = \"${upper(\"a\")}\n\"\n }\n}\n",
    ] {
        let found = parse(text).expect_err(text);
        assert!(found.contains("Invalid multi-line string"), "{found}");
        let source = Source { name: "x", text };
        assert!(jobspec::format(&source).expect_err(text).to_string().contains("Invalid multi-line string"));
    }
    // Lines of heredocs are no strings, not even behind a template.
    assert!(parse("job \"j\" {\n meta {\n a = <<EOT\n\"${upper(\"a\")}\n\"\nEOT\n }\n}\n").is_ok());
}

#[test]
fn a_syntax_error_within_a_character_is_an_error_like_any_other() {
    for text in ["job \"x\" é", "é", "job \"x\" {\n é", "a = \"${é\"", "a = <<é"] {
        assert!(parse(text).is_err(), "{text}");
        assert!(jobspec::format(&Source { name: "x", text }).is_err(), "{text}");
    }
}

#[test]
fn driver_options_nest_only_as_deep_as_they_can_be_stored() {
    let nested = |levels: usize| {
        let (open, close) = ("a {\n".repeat(levels), "}\n".repeat(levels));
        format!(
            "job \"j\" {{\n group \"g\" {{\n task \"t\" {{\n driver = \"x\"\n config {{\n{open}{close}}}\n }}\n }}\n}}\n"
        )
    };
    let job = parse(&nested(40)).expect("deep, but not too deep").job;
    let wire = serde_json::to_vec(&json!({ "Job": job })).expect("serializes");
    assert!(jobspec::decode_json(&wire).is_ok());
    assert!(parse(&nested(55)).expect_err("too deep").contains("Values nest too deep"));
}
