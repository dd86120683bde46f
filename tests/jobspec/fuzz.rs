//! Broken files: the corpus, mutated at random. Whatever comes in, the answer is a job or an error, in bounded time and
//! memory, and what is read keeps its meaning on every way through the program.
//!
//! A short run belongs to the tests. `make fuzz MINUTES=10` goes on for longer; an input that fails is kept in
//! `target/fuzz`, also when the process dies with it.

#![expect(clippy::print_stderr, reason = "a run of minutes says what it does")]

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher;
use std::hash::Hasher;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use herder::jobspec;
use herder::jobspec::Defaults;
use herder::jobspec::Diagnostics;
use herder::jobspec::Format;
use herder::jobspec::Source;
use herder::jobspec::Variables;

use super::corpus;

/// No input may take longer, in a build without optimisation on a busy machine.
const MAX_TIME: Duration = Duration::from_secs(30);
/// Address space of the whole process.
const MAX_MEMORY: u64 = 6 << 30;
/// Larger inputs only cost time.
const MAX_INPUT: usize = 64 * 1024;

/// Pieces that files of this kind are made of.
const WORDS: &[&str] = &[
    "${",
    "%{",
    "}",
    "{",
    "[",
    "]",
    "(",
    ")",
    "\"",
    "\\",
    "\n",
    "<<EOT\n",
    "<<-EOT\n",
    "EOT\n",
    "=",
    "==",
    "=>",
    "...",
    ",",
    "?",
    ":",
    "~",
    "$${",
    "%%{",
    "#",
    "//",
    "/*",
    "*/",
    " if ",
    " for ",
    " in ",
    "null",
    "true",
    "-1",
    "0",
    "1e308",
    "9223372036854775807",
    "99999999999999999999999",
    "0.1",
    "\u{0}",
    "\u{feff}",
    "é",
    "🙂",
    "\r\n",
    "\t",
    "var.x",
    "local.x",
    "each.value",
    "%{ for x in range(9) }",
    "%{ endfor }",
    "%{ if true ~}",
    "%{ endif }",
    "${upper(",
    "range(1024)",
    "[for a in range(99) : a]",
    "{for k, v in {} : k => v...}",
    "format(\"%5.3f\", 1)",
    "setproduct(range(99), range(99))",
    "dynamic \"group\" {\n",
    "for_each = range(20)\n",
    "labels = [group.value]\n",
    "content {\n",
    "variable \"x\" {\n",
    "locals {\n  x = local.x\n}\n",
    "job \"x\" {\n",
    "group \"g\" {\n",
    "task \"t\" {\n",
    "meta = {",
    "config {\n",
    "- ",
    ": ",
    "&a ",
    "*a",
    "<<: *a",
    "---\n",
    "apiVersion: herder.dev/v1\n",
    "{\"job\": {\"x\": {",
    "\"1h\"",
    "\"1d\"",
    "try(",
    "can(",
    "convert(1, list(",
    "[*]",
    ".*.",
    ".0",
];

/// A generator of numbers that a seed determines.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    fn pick<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len())]
    }
}

/// The nearest boundary of a character at or before `at`.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// An expression of random shape.
fn expression(random: &mut Random, depth: usize) -> String {
    let inner = |random: &mut Random| {
        if depth == 0 {
            random.pick(&["1", "\"a\"", "true", "null", "[]", "{}", "attr.x", "x"]).to_owned()
        } else {
            expression(random, depth - 1)
        }
    };
    let (one, two) = (inner(random), inner(random));
    match random.below(14) {
        0 => format!("[{one}, {two}]"),
        1 => format!("{{ a = {one}, \"b\" = {two} }}"),
        2 => format!("({one} {} {two})", random.pick(&["+", "-", "*", "/", "%", "==", "<", "&&", "||"])),
        3 => format!("({one} ? {two} : {one})"),
        4 => format!("[for x in {one} : {two}]"),
        5 => format!("{{for k, x in {one} : k => {two}...}}"),
        6 => format!("\"a${{{one}}}b%{{ if {two} }}c%{{ endif }}\""),
        7 => format!("{one}[{two}]"),
        8 => format!("{one}[*]"),
        9 => {
            let name = random.pick(&[
                "upper",
                "format",
                "join",
                "concat",
                "merge",
                "range",
                "jsonencode",
                "yamldecode",
                "length",
                "element",
                "lookup",
                "formatlist",
                "flatten",
                "setproduct",
                "regex_replace",
                "substr",
                "parseint",
                "csvdecode",
                "formatdate",
                "cidrsubnets",
                "chunklist",
                "zipmap",
                "log",
                "pow",
                "yamlencode",
                "timeadd",
                "sort",
                "slice",
                "indent",
                "split",
            ]);
            format!("{name}({one}, {two})")
        }
        10 => format!("try({one}, {two})"),
        11 => format!("-{one}"),
        12 => format!("convert({one}, map({}))", random.pick(&["string", "number", "any", "list(bool)"])),
        _ => one,
    }
}

/// One change of a text.
fn mutate(text: &mut String, others: &[(String, String)], random: &mut Random) {
    let at = boundary(text, random.below(text.len() + 1));
    let end = boundary(text, at + random.below(40));
    let (at, end) = (at.min(end), at.max(end));
    match random.below(12) {
        0 => text.replace_range(at..end, ""),
        1 | 2 => text.insert_str(at, random.pick(WORDS)),
        3 => text.replace_range(at..end, random.pick(WORDS)),
        4 => {
            let copy = text[at..end].repeat(1 + random.below(50));
            text.insert_str(at, &copy);
        }
        5 => {
            let (_, other) = &others[random.below(others.len())];
            let start = boundary(other, random.below(other.len()));
            let end = boundary(other, start + random.below(300));
            text.insert_str(at, &other[start.min(end)..end]);
        }
        6 => {
            let open = random.pick(&["(", "[", "{", "a {\n", "\"${", "[for x in ", "!", "-"]);
            text.insert_str(at, &open.repeat(random.below(300)));
        }
        7 => text.truncate(at),
        8 | 9 => {
            // A whole value becomes another expression.
            let line = text[at..].find(" = ").map(|offset| at + offset + 3);
            if let Some(start) = line {
                let end = text[start..].find('\n').map_or(text.len(), |offset| start + offset);
                let depth = random.below(5);
                text.replace_range(start..end, &expression(random, depth));
            }
        }
        10 => {
            let mut lines: Vec<&str> = text.lines().collect();
            if lines.len() > 2 {
                let (one, other) = (random.below(lines.len()), random.below(lines.len()));
                lines.swap(one, other);
                *text = lines.join("\n");
            }
        }
        _ => {
            let replaced = text.replacen(
                random.pick(&["group", "task", "\"", "1", "{", "meta", "name"]),
                random.pick(WORDS),
                1,
            );
            *text = replaced;
        }
    }
    text.truncate(boundary(text, MAX_INPUT));
}

/// Draws problems, which must lie within the text.
fn say(problems: &Diagnostics, text: &str) {
    let _ = (problems.to_string(), problems.report(false));
    for problem in &problems.0 {
        assert!(problem.span.end <= text.len(), "beyond the text: {problem}");
    }
}

/// Takes an input through all that may happen to it.
fn check(name: &str, text: &str) {
    let source = Source { name, text };
    if let Ok(formatted) = jobspec::format(&source)
        && Format::of(&source) == Format::Hcl
    {
        let again = jobspec::format(&Source { name, text: &formatted }).expect("the canonical layout is HCL");
        assert_eq!(again, formatted, "the layout of a canonical file changes");
    }
    match jobspec::parse(&source, &Variables::default()) {
        Ok(parsed) => {
            let _ = parsed.request();
            let mut job = parsed.job;
            jobspec::canonicalize(&mut job, &Defaults::default());
            let validation = jobspec::validate(&job);
            let _ = (validation.error_text(), validation.warnings_text());
            say(&parsed.outline.diagnostics(&validation.problems), text);
            let wire = serde_json::to_vec(&job).expect("a job has a JSON form");
            let mut again = jobspec::decode_json(&wire).expect("that is a job");
            jobspec::canonicalize(&mut again, &Defaults::default());
            assert_eq!(job, again, "a stored job reads differently");
        }
        Err(problems) => {
            assert!(problems.has_errors(), "an error without a reason");
            say(&problems, text);
        }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz")
}

/// Mutates until the time is over or the number of inputs is reached; gives that number and the failures.
fn run(seed: u64, until: Option<Instant>, most: usize) -> (usize, Vec<String>) {
    let files = corpus::files();
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let current: Arc<Mutex<Option<(Instant, String)>>> = Arc::default();
    let watched = Arc::downgrade(&current);
    fs::create_dir_all(folder()).expect("a folder for inputs");
    let pending = folder().join(format!("current-{seed}"));
    let hung = folder().join(format!("hang-{seed}"));
    let watchdog = std::thread::spawn(move || {
        while let Some(current) = watched.upgrade() {
            if let Some((since, text)) = &*current.lock().expect("no panic while held")
                && since.elapsed() > MAX_TIME
            {
                fs::write(&hung, text).expect("saves the input");
                eprintln!("an input takes longer than {MAX_TIME:?}: {}", hung.display());
                std::process::abort();
            }
            drop(current);
            std::thread::park_timeout(Duration::from_millis(200));
        }
    });
    let mut failures = Vec::new();
    let mut count = 0;
    while count < most && until.is_none_or(|until| Instant::now() < until) {
        let (name, original) = &files[random.below(files.len())];
        let mut text = original.clone();
        for _ in 0..1 + random.below(6) {
            mutate(&mut text, &files, &mut random);
        }
        fs::write(&pending, &text).expect("saves the input");
        *current.lock().expect("no panic while held") = Some((Instant::now(), text.clone()));
        let outcome = catch_unwind(AssertUnwindSafe(|| check(name, &text)));
        *current.lock().expect("no panic while held") = None;
        if outcome.is_err() {
            let kept = folder().join(format!("failure-{seed}-{count}-{name}"));
            fs::write(&kept, &text).expect("saves the input");
            failures.push(kept.display().to_string());
        }
        count += 1;
    }
    drop(current);
    watchdog.thread().unpark();
    watchdog.join().expect("the watchdog ends");
    let _ = fs::remove_file(pending);
    (count, failures)
}

#[test]
fn mutated_files_are_jobs_or_errors() {
    let (_, failures) = run(1, None, 400);
    assert!(failures.is_empty(), "{failures:?}");
}

#[test]
#[ignore = "takes minutes: make fuzz MINUTES=10"]
fn mutated_files_for_minutes() {
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let minutes: u64 = variable("MINUTES").unwrap_or(10);
    // Another one for each process.
    let seed = variable("SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 16);
    let limit =
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_AS, MAX_MEMORY, MAX_MEMORY);
    limit.expect("a limit of memory");
    eprintln!("seed {seed}, {minutes} minutes");
    let (count, failures) = run(seed, Some(Instant::now() + Duration::from_secs(minutes * 60)), usize::MAX);
    eprintln!("{count} inputs, {} failures", failures.len());
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
#[ignore = "for one input: FILE=target/fuzz/… cargo test --test jobspec -- --ignored one_input"]
fn one_input() {
    let path = std::env::var("FILE").expect("the variable FILE names the input");
    let name = path.rsplit('-').next().unwrap_or(&path).to_owned();
    check(&name, &fs::read_to_string(&path).expect("reads"));
}
