//! Every operator and function with its result, or the error that it gives. The table was made with the reference
//! implementation of the language (hashicorp/hcl and go-cty); the rows that differ on purpose say why.

use serde_json::Value;

use super::parse;

const TABLE: &str = include_str!("fixtures/expressions.tsv");

/// Expressions whose result differs from the table on purpose.
const DIFFERENT: &[(&str, &str)] = &[
    // Patterns compile with another library, which explains errors in its own words.
    ("regex_replace(\"hello\", \"(\", \"x\")", "error parsing regexp: unclosed group: `(`"),
    ("jsondecode(\"{\")", "EOF while parsing"),
    ("yamldecode(\"a: [\")", "Error in function call"),
    ("yamldecode(\"---\\na: 1\\n---\\nb: 2\\n\")", "Error in function call"),
    ("formatdate(\"hh\", \"nope\")", "not a valid RFC3339 timestamp: \"nope\""),
    // Lists have no element type of their own.
    ("merge(var.l)", "arguments must be maps or objects, got \"tuple\""),
    // Without arguments there is nothing to choose from.
    ("coalesce()", "no non-null arguments"),
];

fn written(expression: &str) -> String {
    format!(
        "variable \"l\" {{\n type = list(string)\n default = [\"a\", \"b\"]\n}}\nvariable \"m\" {{\n type = map(string)\n \
         default = {{ k = \"v\" }}\n}}\nvariable \"o\" {{\n default = {{ k = \"v\", n = 1 }}\n}}\nvariable \"e\" {{\n type = \
         list(string)\n default = []\n}}\njob \"j\" {{\n group \"g\" {{\n task \"t\" {{\n driver = \"x\"\n config {{\n a = \
         jsonencode([\n{expression}\n])\n}}\n}}\n}}\n}}\n"
    )
}

/// The source of a row: as it is, or as a JSON text behind a back quote.
fn source(cell: &str) -> String {
    cell.strip_prefix('`')
        .map_or_else(|| cell.to_owned(), |json| serde_json::from_str(json).expect("a JSON text"))
}

fn evaluated(expression: &str) -> Result<Value, String> {
    let job = parse(&written(expression))?.job;
    let text = job.task_groups[0].tasks[0].config["a"].as_str().expect("a text").to_owned();
    let list: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    Ok(list[0].clone())
}

#[test]
fn expressions_have_the_results_of_the_reference() {
    let mut wrong = Vec::new();
    for row in TABLE.lines().filter(|row| !row.is_empty()) {
        let (cell, expected) = row.split_once('\t').expect("two columns");
        let found = evaluated(&source(cell));
        let different = DIFFERENT.iter().find(|(expression, _)| *expression == cell).map(|(_, text)| *text);
        let fits = match (&found, expected.strip_prefix("ERR ")) {
            (Err(found), Some(expected)) => found.contains(different.unwrap_or(expected)),
            (Ok(found), None) => {
                serde_json::from_str::<Value>(expected).is_ok_and(|expected| same(&expected, found))
            }
            _ => false,
        };
        if !fits {
            wrong.push(format!("{cell}\n  expected {expected}\n  found    {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Equal, where `1` and `1.0` are the same number.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, value)| other.get(key).is_some_and(|other| same(value, other)))
        }
        (one, other) => one == other,
    }
}

#[test]
fn errors_point_at_the_part_that_is_wrong() {
    let text = "job \"j\" {\n  meta {\n    a = \"x-${upper([1])}\"\n    b = 1 + local.nope\n    c = lookup({}, 1)\n  }\n}\n";
    let found = parse(text).expect_err("three mistakes");
    let places: Vec<&str> = found.lines().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(places, ["test.nomad:3,20-23", "test.nomad:4,18-23", "test.nomad:5,9-22"], "{found}");
}

/// Encrypted with the public half of the keys in the fixtures, which protect nothing.
const ENCRYPTED: &str = "b7j+r/rr84JSbBnEt9hehv2MHOyqK+teA2uuiNz7B5B4XIJEHpBd8Xl8nXZgrdUt3WIu0/Q/sfozpfP4oLhdsKacD9ooqLdsaVGkpUSrStF9jB3K5X9H60RU+L/h+Uejnv025/SW23Mk6qvJiarzhy8sgS1c1Q1+flzRZwJvl44=";

#[test]
fn secrets_can_be_decrypted_and_passwords_hashed() {
    for key in [include_str!("fixtures/rsa-pkcs1.pem"), include_str!("fixtures/rsa-pkcs8.pem")] {
        let decrypted = evaluated(&format!("rsadecrypt(\"{ENCRYPTED}\", <<EOT\n{key}EOT\n)"));
        assert_eq!(decrypted, Ok("secret".into()));
    }
    let other = evaluated("rsadecrypt(\"AAAA\", \"no key\")").expect_err("no key");
    assert!(other.contains("Invalid value for \"privatekey\" parameter: failed to parse key"), "{other}");
    let hash = evaluated("bcrypt(\"pass\", 4)").expect("a hash");
    let hash = hash.as_str().expect("a text");
    assert!(hash.starts_with("$2a$04$") && hash.len() == 60, "{hash}");
    assert_eq!(bcrypt::verify("pass", hash).ok(), Some(true));
    for expression in ["bcrypt(\"a\", 31)", "bcrypt(\"a\", 3)", "bcrypt(\"a\", 4, 5)"] {
        assert!(evaluated(expression).is_err(), "{expression}");
    }
}
