use serde_json::json;

use super::Filter;

fn passes(filter: &str) -> Result<bool, String> {
    let subject = json!({
        "ID": "web", "Status": "running", "Version": 3, "Stop": false, "Periodic": null,
        "Datacenters": ["dc1", "dc2"], "Meta": {"owner": "ops", "a-b": "x"}, "Tags": [],
        "TaskGroups": [{"Name": "api", "Count": 2}, {"Name": "db", "Count": 1}],
    });
    let filter = Filter::parse(filter)?;
    filter.matches(&subject).map_err(|error| error.text())
}

#[test]
fn expressions_follow_the_grammar() {
    for (filter, expected) in [
        (r#"Status == "running""#, true),
        (r#"Status == running and Version == 3"#, true),
        (r#"Status != "running" or Stop == false"#, true),
        (r#"not Status == "running" or ID == "web""#, true),
        (r#"not (Status == "running" or ID == "web")"#, false),
        (r#""dc2" in Datacenters"#, true),
        (r#""dc3" not in Datacenters"#, true),
        (r#"Datacenters contains "dc1""#, true),
        (r#"Datacenters not contains "dc1""#, false),
        (r#"ID contains "we""#, true),
        (r#""owner" in Meta"#, true),
        (r#"Meta.owner == "ops""#, true),
        (r#"Meta["a-b"] == "x""#, true),
        (r#""/Meta/a-b" == "x""#, true),
        (r#"Meta.nobody == "x""#, false),
        (r#"Meta.nobody is empty"#, true),
        (r#"Periodic is empty"#, true),
        (r#"Tags is not empty"#, false),
        (r#"ID matches "^w.b$""#, true),
        (r#"ID not matches `^w`"#, false),
        (r#"TaskGroups.0.Name == "api""#, true),
        (r#"any TaskGroups as g { g.Count == 2 and g.Name == "api" }"#, true),
        (r#"all TaskGroups as g { g.Count == 2 }"#, false),
        (r#"any Datacenters as d { d == "dc2" }"#, true),
        (r#"any Meta as k { k == "owner" }"#, true),
        (r#"any Meta as k, v { k == "owner" and v == "dev" }"#, false),
        (r#"any TaskGroups as i, g { i == 1 and g.Name == "db" }"#, true),
    ] {
        assert_eq!(passes(filter), Ok(expected), "{filter}");
    }
}

#[test]
fn mistakes_are_explained() {
    for (filter, part) in [
        ("nonsense", "1:9 (8): no match found, expected:"),
        ("Nope == 1", "couldn't find key: struct field with name \"Nope\""),
        ("Version == x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("ID matches \"(\"", "Failed to compile regular expression \"(\""),
        ("ID == \"web", "the quoted text does not end"),
        ("ID < 3", "unexpected '<'"),
        ("ID == web )", "expected: \"and\", \"or\" or the end"),
    ] {
        let error = passes(filter).unwrap_err();
        assert!(error.contains(part), "{filter}: {error}");
    }
    let deep = format!("{}ID == web{}", "(".repeat(5000), ")".repeat(5000));
    assert!(passes(&deep).unwrap_err().contains("a simpler expression"));
}
