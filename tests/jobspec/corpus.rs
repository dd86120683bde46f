//! A file for every block and attribute, each with what it says as JSON. The results in `corpus/golden` are reviewed by
//! hand; `HERDER_WRITE_GOLDEN=1 cargo test --test jobspec corpus` writes them anew.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use herder::jobspec;
use herder::jobspec::Defaults;
use herder::jobspec::Format;
use herder::jobspec::Parsed;
use herder::jobspec::Source;
use herder::jobspec::Variables;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

/// Files whose complete job, with all defaults, is compared as well.
const COMPLETE: &[&str] = &[
    "check-restart",
    "group-disconnect",
    "group-restart-batch",
    "group-scaling",
    "hcl1-commas",
    "job-batch",
    "job-level-task",
    "job-minimal",
    "job-parameterized-default",
    "job-periodic",
    "job-reschedule-batch",
    "job-sysbatch",
    "job-system",
    "job-system-update",
    "job-two-groups",
    "job-update-old-style",
    "json-api-envelope",
    "network-bridge",
    "network-in-resources",
    "service-consul-all",
    "service-in-task",
    "service-native",
    "task-artifacts",
    "task-csi-plugin-defaults",
    "task-devices",
    "task-identities",
    "task-resources-cores",
    "task-template-signals",
    "task-vault-signal-default",
    "volume-csi",
    "yaml-manifest",
];

/// The files of the corpus: name and text.
pub(crate) fn files() -> Vec<(String, String)> {
    let folder = folder();
    let mut out = Vec::new();
    for entry in fs::read_dir(&folder).expect("the corpus") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            out.push((name, fs::read_to_string(&path).expect("text")));
        }
    }
    out.sort();
    out
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jobspec/corpus")
}

fn read(name: &str, text: &str) -> Parsed {
    jobspec::parse(&Source { name, text }, &Variables::default())
        .unwrap_or_else(|problems| panic!("{name}:\n{problems}"))
}

/// A JSON value without what says nothing: nulls, and empty texts, lists and maps.
fn pruned(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let entries = map.into_iter().map(|(key, value)| (key, pruned(value)));
            Value::Object(entries.filter(|(_, value)| !says_nothing(value)).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(pruned).collect()),
        other => other,
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn stem(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// Compares with the golden file, or writes it.
fn compare(file: &str, found: &Value, differing: &mut Vec<String>) {
    let path = folder().join("golden").join(file);
    let written = serde_json::to_string_pretty(found).expect("serializes") + "\n";
    if std::env::var_os("HERDER_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("the golden folder");
        fs::write(&path, written).expect("writes");
        return;
    }
    match fs::read_to_string(&path) {
        Ok(golden) if golden == written => {}
        Ok(golden) => {
            let line = golden.lines().zip(written.lines()).position(|(one, other)| one != other);
            let at = line.unwrap_or_else(|| golden.lines().count().min(written.lines().count()));
            let shown = |text: &str| text.lines().nth(at).unwrap_or("the end").trim().to_owned();
            let (golden, found) = (shown(&golden), shown(&written));
            differing.push(format!("{file}, line {}: expected {golden}, found {found}", at + 1));
        }
        Err(why) => differing.push(format!("{file}: {why}")),
    }
}

#[test]
fn every_file_of_the_corpus_says_what_it_is_known_to_say() {
    let files = files();
    assert!(files.len() >= 150, "only {} files", files.len());
    let mut differing = Vec::new();
    for (name, text) in &files {
        let parsed = read(name, text);
        let warnings: Vec<String> = parsed.warnings.iter().map(ToString::to_string).collect();
        let found = if warnings.is_empty() {
            parsed.raw.clone()
        } else {
            json!({ "Job": parsed.raw, "Warnings": warnings })
        };
        compare(&format!("{}.json", stem(name)), &found, &mut differing);
    }
    assert!(differing.is_empty(), "{} differ:\n{}", differing.len(), differing.join("\n"));
}

#[test]
fn complete_jobs_have_the_defaults_of_their_type() {
    let files = files();
    let mut differing = Vec::new();
    for wanted in COMPLETE {
        let (name, text) = files.iter().find(|(name, _)| stem(name) == *wanted).expect(wanted);
        let mut job = read(name, text).job;
        jobspec::canonicalize(&mut job, &Defaults { consul: true, ..Defaults::default() });
        let complete = pruned(serde_json::to_value(&job).expect("serializes"));
        compare(&format!("complete/{wanted}.json"), &complete, &mut differing);
    }
    assert!(differing.is_empty(), "{} differ:\n{}", differing.len(), differing.join("\n"));
}

#[test]
fn every_golden_file_belongs_to_a_file() {
    let names: Vec<String> = files().iter().map(|(name, _)| stem(name).to_owned()).collect();
    for (folder, known) in [
        ("golden", names.iter().map(String::as_str).collect::<Vec<_>>()),
        ("golden/complete", COMPLETE.to_vec()),
    ] {
        for entry in fs::read_dir(self::folder().join(folder)).expect("golden files") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            assert!(path.is_dir() || known.contains(&stem(&name)), "{folder}/{name} belongs to nothing");
        }
    }
}

#[test]
fn a_second_pass_over_any_file_changes_nothing() {
    for (name, text) in files() {
        let mut once = read(&name, &text).job;
        jobspec::canonicalize(&mut once, &Defaults::default());
        let mut twice = once.clone();
        jobspec::canonicalize(&mut twice, &Defaults::default());
        assert_eq!(once, twice, "{name}");
        let wire = serde_json::to_vec(&once).expect("serializes");
        let mut again = jobspec::decode_json(&wire).expect("reads what it wrote");
        jobspec::canonicalize(&mut again, &Defaults::default());
        assert_eq!(once, again, "{name} through JSON");
    }
}

#[test]
fn any_job_reads_the_same_as_json_and_as_yaml() {
    for (name, text) in files() {
        let parsed = read(&name, &text);
        let written = serde_json::to_string(&parsed.raw).expect("serializes");
        assert_eq!(read("job.json", &written).job, parsed.job, "{name} as JSON");
        let written = serde_yaml::to_string(&parsed.raw).expect("serializes");
        assert_eq!(read("job.yaml", &written).job, parsed.job, "{name} as YAML:\n{written}");
    }
}

#[test]
fn the_canonical_layout_of_any_file_says_the_same() {
    for (name, text) in files() {
        let source = Source { name: &name, text: &text };
        if Format::of(&source) != Format::Hcl {
            continue;
        }
        // Files of the first version have no canonical layout.
        let Ok(formatted) = jobspec::format(&source) else {
            assert!(name.starts_with("hcl1-"), "{name}");
            continue;
        };
        let again = jobspec::format(&Source { name: &name, text: &formatted }).expect("still HCL");
        assert_eq!(again, formatted, "{name} a second time");
        assert_eq!(read(&name, &formatted).raw, read(&name, &text).raw, "{name}");
        if !name.starts_with("hcl1-") {
            assert_eq!(formatted, text, "{name} is not in canonical layout");
        }
    }
}
