//! The walls that one package does not give: who may import whom, what must stay pure, how long things may be,
//! and that documents and examples keep up with the code. Each rule also has a test that it finds what it forbids.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use herder::jobspec;
use regex::Regex;

/// Module, and the modules that it may import besides itself. Nothing else. A new edge needs an ADR.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("clock", &["model"]),
    ("telemetry", &["model"]),
    ("jobspec", &["model"]),
    ("gotemplate", &[]),
    ("scheduler", &["model"]),
    ("store", &["model"]),
    ("mirror", &["model", "store"]),
    ("controllers", &["model", "clock", "telemetry", "jobspec", "scheduler", "store", "mirror"]),
    ("drivers", &["model"]),
    ("agent", &["model", "clock", "gotemplate", "store", "drivers"]),
    ("api", &["model", "clock", "telemetry", "jobspec", "store", "mirror"]),
    ("client", &[]),
    ("config", &["model", "gotemplate"]),
    ("cli", &["model", "clock", "gotemplate", "jobspec", "client", "config"]),
    (
        "run",
        &[
            "model",
            "clock",
            "telemetry",
            "store",
            "mirror",
            "controllers",
            "drivers",
            "agent",
            "api",
            "client",
            "cli",
            "config",
        ],
    ),
    ("main", &["cli", "drivers", "run"]),
    ("lib", &[]),
];

/// Reconcilers share `commit`, `queue`, `runner` and `leadership`, and talk to each other through the store only.
/// The exceptions: how a decision about a job is encoded and recorded is the same everywhere.
const RECONCILERS: &[&str] = &["intake", "job", "node", "periodic", "reap"];
const SHARED_OF_RECONCILERS: &[&str] = &["job::decide", "job::record"];

/// Libraries that one place wraps, so that the rest of the code does not know them.
const WRAPPED: &[(&str, &str)] = &[
    ("etcd_client::", "src/store/"),
    ("bollard::", "src/drivers/docker/"),
    ("hcl_edit::", "src/jobspec/"),
    ("clap::", "src/cli/"),
    ("prometheus::", "src/telemetry.rs"),
    ("croner::", "src/model/schedule.rs"),
];

/// Deterministic code: the same input gives the same output, on every machine and at every time.
const PURE: &[&str] = &["src/model/", "src/scheduler/", "src/jobspec/", "src/controllers/job/"];
const IMPURE: &[&str] = &[
    "async fn",
    "async move",
    ".await",
    "tokio::",
    "Clock",
    "SystemTime",
    "Instant::",
    "rand::",
    "std::fs",
    "std::env",
];
/// Files within the pure parts that are there for their effects.
const EFFECTS: &[&str] = &[
    // The reconciler around the pure decision.
    "src/controllers/job/mod.rs",
    // Functions of the job file language that read files.
    "src/jobspec/functions/files.rs",
];

const MAX_FUNCTION_LINES: usize = 70;
/// Longer ones, by file and name, with the length that they may not exceed. The list may only shrink.
const LONG_FUNCTIONS: &[(&str, &str, usize)] = &[
    ("src/agent/env.rs", "a_task_finds_ports_meta_and_names", 89),
    ("src/agent/hooks/templates/tests.rs", "templates_render_as_they_do_in_nomad", 78),
    ("src/agent/mod.rs", "start", 90),
    ("src/scheduler/tests/fixture.rs", "node_info", 89),
];

const MAX_FILE_LINES: usize = 700;
/// Longer ones, with the length that they may not exceed. The list may only shrink.
const LONG_FILES: &[(&str, usize)] = &[];

const MAX_ARCHITECTURE_LINES: usize = 300;

/// What must not stand in the project: unfinished code, debugging aids, paths of one developer's machine.
const FORBIDDEN: &[&str] =
    &["todo!(", "unimplemented!(", "dbg!(", concat!("../", "shared"), concat!("/wo", "rk/")];

struct File {
    /// Relative to the package, with `/`.
    path: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below the given folders with one of the endings, sorted.
fn files(folders: &[&str], endings: &[&str]) -> Vec<File> {
    let mut waiting: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(
                fs::read_dir(&path).expect("a readable folder").map(|entry| entry.expect("an entry").path()),
            );
        } else if endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)) {
            let relative =
                path.strip_prefix(root()).expect("below the package").to_string_lossy().into_owned();
            found.push(File { path: relative, text: fs::read_to_string(&path).expect("text") });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn sources() -> Vec<File> {
    files(&["src"], &[".rs"])
}

fn is_tests(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// The lines of code with their numbers: no comments, and nothing of an inline test module, which comes last.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .take_while(|(_, line)| *line != "mod tests {")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// `src/store/etcd/watch.rs` is `["store", "etcd", "watch"]`.
fn module_of(path: &str) -> Vec<&str> {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs");
    inner.split('/').filter(|part| *part != "mod").collect()
}

/// Every `crate::…` and `super::…` of a file as a full path of modules, with its line.
fn imports(file: &File) -> Vec<(usize, Vec<String>)> {
    let pattern =
        Regex::new(r"\b(crate|super)::([a-z_][a-z0-9_]*(?:::[a-z_][a-z0-9_]*)*)?").expect("a pattern");
    let own = module_of(&file.path);
    let mut found = Vec::new();
    for (number, line) in code(&file.text) {
        for path in pattern.captures_iter(line) {
            let mut full: Vec<String> = Vec::new();
            if &path[1] == "super" {
                full.extend(own[..own.len().saturating_sub(1)].iter().map(|part| (*part).to_owned()));
            }
            full.extend(path.get(2).iter().flat_map(|rest| rest.as_str().split("::")).map(str::to_owned));
            found.push((number, full));
        }
    }
    found
}

fn directions(file: &File) -> Vec<String> {
    let own = module_of(&file.path);
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(module, _)| *module == own[0]) else {
        return vec![format!("{}: module {} has no row in MAY_IMPORT", file.path, own[0])];
    };
    let mut broken = Vec::new();
    for (number, path) in imports(file) {
        let Some(target) = path.first() else { continue };
        if target != own[0] && !allowed.contains(&target.as_str()) {
            broken.push(format!("{}:{number}: {} must not import {}", file.path, own[0], path.join("::")));
        }
        if own[0] == "controllers" && target == "controllers" && path.len() > 1 && own.len() > 1 {
            let foreign = RECONCILERS.contains(&path[1].as_str()) && path[1] != own[1];
            let below = path[1..].join("::");
            if foreign
                && RECONCILERS.contains(&own[1])
                && !SHARED_OF_RECONCILERS.iter().any(|s| below.starts_with(s))
            {
                broken.push(format!("{}:{number}: reconciler {} must not use {below}", file.path, own[1]));
            }
        }
    }
    broken
}

fn use_lines(file: &File) -> Vec<String> {
    let group =
        Regex::new(r"^\s*(pub(\(\w+\))? )?use (crate|super|self|herder)\b[^;]*\{").expect("a pattern");
    let glob = Regex::new(r"^(pub(\(\w+\))? )?use (crate|super|self|herder)\b.*\*;").expect("a pattern");
    let mut broken = Vec::new();
    for (number, line) in code(&file.text) {
        if group.is_match(line) {
            broken.push(format!("{}:{number}: one `use` per item, so that a diff shows each", file.path));
        }
        if glob.is_match(line) && !is_tests(&file.path) {
            broken.push(format!("{}:{number}: name what you use instead of `*`", file.path));
        }
        if line.contains("super::super::") {
            broken.push(format!("{}:{number}: write `crate::…` instead of super::super", file.path));
        }
    }
    broken
}

fn impurities(file: &File) -> Vec<String> {
    let plan = file.path.starts_with("src/controllers/") && file.path.ends_with("/plan.rs");
    let pure = plan || PURE.iter().any(|prefix| file.path.starts_with(prefix));
    if !pure || is_tests(&file.path) || EFFECTS.contains(&file.path.as_str()) {
        return Vec::new();
    }
    let words = code(&file.text).flat_map(|(number, line)| {
        let found = IMPURE.iter().filter(move |word| line.contains(**word));
        found.map(move |word| (number, *word))
    });
    words.map(|(number, word)| format!("{}:{number}: {word} in a deterministic part", file.path)).collect()
}

fn unwrapped(file: &File) -> Vec<String> {
    let mut broken = Vec::new();
    for (number, line) in code(&file.text) {
        for (library, home) in WRAPPED {
            let named = line.match_indices(library).any(|(at, _)| {
                !line[..at].ends_with(|before: char| before.is_alphanumeric() || matches!(before, '_' | ':'))
            });
            let folder = home.trim_end_matches('/');
            if named && !file.path.starts_with(home) && file.path != format!("{folder}.rs") {
                broken.push(format!("{}:{number}: only {home} knows {library}", file.path));
            }
        }
    }
    broken
}

/// Name, first line and length of every function. Relies on rustfmt: a function ends at its own indentation.
fn functions(text: &str) -> Vec<(String, usize, usize)> {
    let head = Regex::new(
        r#"^(\s*)(?:pub(?:\([a-z]+\))? )?(?:const )?(?:async )?(?:unsafe )?(?:extern "C" )?fn (\w+)"#,
    )
    .expect("a pattern");
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(start) = head.captures(line) else { continue };
        let end = format!("{}}}", &start[1]);
        let one_line = line.ends_with('}') || line.ends_with(';');
        let length = match lines[index..].iter().position(|line| *line == end) {
            Some(distance) if !one_line => distance + 1,
            _ => 1,
        };
        found.push((start[2].to_owned(), index + 1, length));
    }
    found
}

fn lengths(file: &File, long_functions: &[(&str, &str, usize)], long_files: &[(&str, usize)]) -> Vec<String> {
    let mut broken = Vec::new();
    let path = file.path.as_str();
    let lines = file.text.lines().take_while(|line| *line != "mod tests {").count();
    let allowed = long_files.iter().find(|(known, _)| *known == path).map(|(_, lines)| *lines);
    if lines > allowed.unwrap_or(MAX_FILE_LINES) {
        broken.push(format!("{path} has {lines} lines: split it by idea"));
    }
    if allowed.is_some() && lines <= MAX_FILE_LINES {
        broken.push(format!("{path} is short now: remove it from LONG_FILES"));
    }
    let mut longest: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (name, line, length) in functions(&file.text) {
        let entry = longest.entry(name).or_insert((line, length));
        if length > entry.1 {
            *entry = (line, length);
        }
    }
    for (name, (line, length)) in &longest {
        let known = long_functions.iter().find(|(file, function, _)| *file == path && function == name);
        match known {
            Some((.., most)) if length > most => {
                broken.push(format!(
                    "{path}:{line}: {name} has grown to {length} lines, at most {most} are allowed"
                ));
            }
            Some(_) if *length <= MAX_FUNCTION_LINES => {
                broken.push(format!("{path}:{line}: {name} is short now: remove it from LONG_FUNCTIONS"));
            }
            None if *length > MAX_FUNCTION_LINES => {
                broken.push(format!("{path}:{line}: {name} has {length} lines: split it"));
            }
            _ => {}
        }
    }
    for (file, function, _) in long_functions {
        if *file == path && !longest.contains_key(*function) {
            broken.push(format!("{path}: {function} is gone: remove it from LONG_FUNCTIONS"));
        }
    }
    broken
}

fn headers(file: &File) -> Vec<String> {
    // Test modules next to their code are explained by it.
    let explained = file.text.starts_with("//!") || is_tests(&file.path);
    if explained {
        Vec::new()
    } else {
        vec![format!("{}: begin with `//!` and what the file is for", file.path)]
    }
}

fn forbidden(file: &File) -> Vec<String> {
    let lines = file.text.lines().enumerate();
    let found = lines.flat_map(|(index, line)| {
        FORBIDDEN.iter().filter(|word| line.contains(**word)).map(move |word| (index + 1, *word))
    });
    found.map(|(number, word)| format!("{}:{number}: {word}", file.path)).collect()
}

/// The prefixes of `src/store/key.rs` that a document does not name.
fn undocumented_keys(key_rs: &str, document: &str) -> Vec<String> {
    let pattern = Regex::new(r#"format!\("\{(?:root)?\}([a-z_]+)(/?)"#).expect("a pattern");
    let mut found = BTreeSet::new();
    for prefix in pattern.captures_iter(key_rs) {
        found.insert(format!("{}{}", &prefix[1], &prefix[2]));
    }
    let unnamed = found.iter().filter(|prefix| !document.contains(&format!("`{prefix}")));
    unnamed.map(|prefix| format!("key prefix `{prefix}` is not explained")).collect()
}

/// Relative links of a document that lead nowhere.
fn dead_links(file: &File) -> Vec<String> {
    let pattern = Regex::new(r"\]\(([^)#:]+)(?:#[^)]*)?\)").expect("a pattern");
    let folder = root().join(&file.path).parent().expect("a folder").to_owned();
    let links = pattern.captures_iter(&file.text).map(|link| link[1].to_owned());
    links.filter(|link| !folder.join(link).exists()).map(|link| format!("{}: {link}", file.path)).collect()
}

fn check(broken: Vec<String>) {
    assert!(broken.is_empty(), "{} found\n  {}", broken.len(), broken.join("\n  "));
}

#[test]
fn modules_import_only_in_the_direction_data_flows() {
    check(sources().iter().flat_map(directions).collect());
}

#[test]
fn imports_stand_one_per_line() {
    check(sources().iter().flat_map(use_lines).collect());
}

#[test]
fn decisions_are_deterministic() {
    check(sources().iter().flat_map(impurities).collect());
}

#[test]
fn libraries_stay_behind_their_wrappers() {
    check(sources().iter().flat_map(unwrapped).collect());
}

#[test]
fn functions_and_files_stay_short() {
    check(sources().iter().flat_map(|file| lengths(file, LONG_FUNCTIONS, LONG_FILES)).collect());
    let paths: BTreeSet<String> = sources().into_iter().map(|file| file.path).collect();
    let listed =
        LONG_FUNCTIONS.iter().map(|(path, ..)| *path).chain(LONG_FILES.iter().map(|(path, _)| *path));
    check(listed.filter(|path| !paths.contains(*path)).map(|path| format!("{path} is gone")).collect());
}

#[test]
fn files_begin_with_their_purpose() {
    check(files(&["src", "tests"], &[".rs"]).iter().flat_map(headers).collect());
}

#[test]
fn nothing_unfinished_or_private_is_left() {
    let folders =
        ["src", "tests", "docs", "examples", "scripts", ".ci", "crds", "charts", "manifests", "Makefile"];
    let endings = [".rs", ".md", ".hcl", ".json", ".yaml", ".yml", ".sh", ".txt", ".toml", "run", "Makefile"];
    let mut all = files(&folders, &endings);
    all.extend(documents());
    all.retain(|file| file.path != "tests/tidy.rs");
    check(all.iter().flat_map(forbidden).collect());
}

fn documents() -> Vec<File> {
    let mut found = files(&["docs", "crds", "charts", "manifests"], &[".md"]);
    found.extend(files(&["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"], &[".md"]));
    found
}

fn architecture() -> String {
    fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md")
}

#[test]
fn every_key_is_documented() {
    let key_rs = fs::read_to_string(root().join("src/store/key.rs")).expect("src/store/key.rs");
    check(undocumented_keys(&key_rs, &architecture()));
}

#[test]
fn every_module_is_in_the_code_map() {
    let text = architecture();
    let modules =
        MAY_IMPORT.iter().map(|(module, _)| *module).filter(|module| !matches!(*module, "lib" | "main"));
    check(modules.filter(|module| !text.contains(&format!("**`{module}`**"))).map(str::to_owned).collect());
    let lines = text.lines().count();
    assert!(lines <= MAX_ARCHITECTURE_LINES, "{lines} lines: an overview is short");
}

#[test]
fn links_of_documents_lead_somewhere() {
    check(documents().iter().flat_map(dead_links).collect());
}

#[test]
fn every_example_is_a_valid_job() {
    let examples = files(&["examples"], &[".nomad.hcl", ".nomad", ".json", ".yaml"]);
    assert!(examples.len() > 3, "the examples are in examples/");
    for example in examples {
        let source = jobspec::Source { name: &example.path, text: &example.text };
        let parsed = jobspec::parse(&source, &jobspec::Variables::default());
        let mut job = parsed.unwrap_or_else(|problems| panic!("{problems}")).job;
        jobspec::canonicalize(&mut job, &jobspec::Defaults::default());
        let validation = jobspec::validate(&job);
        assert!(validation.errors.is_empty(), "{}: {:?}", example.path, validation.errors);
    }
}

fn file(path: &str, text: &str) -> File {
    File { path: path.to_owned(), text: text.to_owned() }
}

#[test]
fn forbidden_imports_are_found() {
    let finds = |path: &str, text: &str| !directions(&file(path, text)).is_empty();
    assert!(finds("src/model/job.rs", "use crate::store::Store;\n"));
    assert!(finds("src/model/mod.rs", "use super::store::Store;\n"));
    assert!(finds("src/cli/job/run.rs", "fn f() { crate::controllers::start() }\n"));
    assert!(finds("src/controllers/reap/plan.rs", "use crate::controllers::job::plan::plan;\n"));
    assert!(finds("src/controllers/reap/mod.rs", "use super::node::Node;\n"));
    assert!(finds("src/newcomer/mod.rs", "//! New.\n"));
    assert!(!finds("src/controllers/intake/mod.rs", "use super::job::record;\nuse super::commit::Unit;\n"));
    assert!(!finds("src/model/job.rs", "// crate::store explains\nuse super::task::Task;\n"));
    assert!(!finds("src/store/etcd/watch.rs", "use super::convert::x;\nuse crate::model::id::JobId;\n"));
}

#[test]
fn grouped_and_climbing_imports_are_found() {
    assert_eq!(use_lines(&file("src/a.rs", "use crate::{model::Job, store::Store};\n")).len(), 1);
    assert_eq!(use_lines(&file("src/a.rs", "use crate::model::job::{Job, Kind};\n")).len(), 1);
    assert_eq!(use_lines(&file("src/a.rs", "pub use super::*;\n")).len(), 1);
    assert_eq!(use_lines(&file("src/a.rs", "use super::super::b::C;\n")).len(), 1);
    assert!(
        use_lines(&file("src/a.rs", "use std::{io, fs};\nmod tests {\n    use super::*;\n}\n")).is_empty()
    );
}

#[test]
fn clocks_and_effects_in_decisions_are_found() {
    for line in ["async fn plan() {}", "let now = clock.Clock();", "std::fs::read(path)", "rand::random()"] {
        assert_eq!(impurities(&file("src/controllers/node/plan.rs", line)).len(), 1, "{line}");
        assert_eq!(impurities(&file("src/scheduler/score.rs", line)).len(), 1, "{line}");
        assert!(impurities(&file("src/controllers/node/mod.rs", line)).is_empty(), "{line}");
    }
}

#[test]
fn libraries_outside_their_wrappers_are_found() {
    assert_eq!(unwrapped(&file("src/api/mod.rs", "use etcd_client::Client;\n")).len(), 1);
    assert_eq!(unwrapped(&file("src/agent/mod.rs", "use hcl_edit::Span;\n")).len(), 1);
    assert!(unwrapped(&file("src/store/etcd.rs", "use etcd_client::Client;\n")).is_empty());
}

#[test]
fn long_functions_and_files_are_found() {
    let long = format!(
        "impl A {{\n    fn f(\n        a: u8,\n    ) {{\n{}    }}\n\n    fn g() {{}}\n}}\n",
        "        a();\n".repeat(70)
    );
    let found = functions(&long);
    assert_eq!(found, [("f".to_owned(), 2, 74), ("g".to_owned(), 77, 1)]);
    let long = file("src/a.rs", &long);
    assert_eq!(lengths(&long, &[], &[]).len(), 1);
    assert!(lengths(&long, &[("src/a.rs", "f", 74)], &[]).is_empty());
    assert_eq!(lengths(&long, &[("src/a.rs", "f", 73)], &[]).len(), 1);
    assert_eq!(lengths(&long, &[("src/a.rs", "f", 74), ("src/a.rs", "h", 90)], &[]).len(), 1);
    assert_eq!(
        lengths(&file("src/a.rs", "fn f() {\n}\n"), &[("src/a.rs", "f", 90)], &[("src/a.rs", 800)]).len(),
        2
    );
    let big = file("src/a.rs", &"x\n".repeat(701));
    assert_eq!(lengths(&big, &[], &[]).len(), 1);
    assert!(lengths(&big, &[], &[("src/a.rs", 701)]).is_empty());
}

#[test]
fn missing_headers_words_keys_and_links_are_found() {
    assert_eq!(headers(&file("src/a.rs", "use std::fs;\n")).len(), 1);
    assert_eq!(forbidden(&file("src/a.rs", "fn f() {\n    todo!()\n}\n")).len(), 1);
    let key_rs =
        r#"Key::Meta => format!("{root}meta"), format!("{root}jobs/{}", x), format!("{}agents/", self.root)"#;
    assert_eq!(undocumented_keys(key_rs, "`meta` and `jobs/<ns>`").len(), 1);
    assert!(undocumented_keys(key_rs, "`meta`, `agents/<node>` and `jobs/<ns>`").is_empty());
    assert_eq!(
        dead_links(&file("docs/a.md", "[x](nowhere.md) [y](https://example.org) [z](../Cargo.toml#l1)"))
            .len(),
        1
    );
}
