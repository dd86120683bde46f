//! Job files with mistakes. Beside each stands what scripts get to read, as one text, and what people get to see, with the
//! lines of the file. `UPDATE_EXPECTED=1` writes these files anew; read what changed before you commit it.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use herder::jobspec;
use herder::jobspec::Defaults;
use herder::jobspec::Source;
use herder::jobspec::Variables;

/// The files that must exist at least.
const ENOUGH: usize = 200;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jobspec/fixtures/broken")
}

/// How job files end.
const ENDINGS: [&str; 3] = ["nomad", "json", "yaml"];

/// All job files, in every syntax.
fn job_files() -> Vec<PathBuf> {
    ENDINGS.map(files).concat()
}

/// All files with this ending below the folder, sorted.
fn files(ending: &str) -> Vec<PathBuf> {
    let mut waiting = vec![folder()];
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting
                .extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|own| own == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// What is said about a file.
fn told(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a job file");
    let name = path.file_name().expect("a name").to_string_lossy();
    let source = Source { name: &name, text: &text };
    let parsed = match jobspec::parse(&source, &Variables::default()) {
        Ok(parsed) => parsed,
        Err(problems) => return sections(&problems.to_string(), "", &problems.report(false)),
    };
    let mut job = parsed.job.clone();
    let mut warnings = jobspec::canonicalize(&mut job, &Defaults::default());
    let found = jobspec::validate(&job);
    warnings.extend(found.warnings.clone());
    let errors = found.error_text().unwrap_or_default();
    let drawings = parsed.outline.diagnostics(&found.problems).report(false);
    sections(&errors, &jobspec::warnings_text(&warnings), &drawings)
}

fn sections(errors: &str, warnings: &str, drawings: &str) -> String {
    let parts = [("api", errors), ("warnings", warnings), ("terminal", drawings)];
    let parts = parts.into_iter().filter(|(_, text)| !text.trim().is_empty());
    // Blanks at line ends are not kept by editors, and mean nothing.
    let lines = |text: &str| {
        let lines = text.trim_end().lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        lines.replace('\0', "\\0")
    };
    parts.map(|(name, text)| format!("== {name}\n{}\n", lines(text))).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_broken_file_gets_its_messages() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let files = job_files();
    assert!(files.len() >= ENOUGH, "{} files", files.len());
    let mut wrong = Vec::new();
    for path in files {
        let told = told(&path);
        assert!(!told.is_empty(), "{} has no mistake", path.display());
        let expected = path.with_extension("txt");
        if update {
            fs::write(&expected, &told).expect("writable");
        } else if fs::read_to_string(&expected).ok().as_ref() != Some(&told) {
            wrong.push(format!("{}:\n{told}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn has_job(expected: &Path) -> bool {
    ENDINGS.iter().any(|ending| expected.with_extension(ending).is_file())
}

#[test]
fn no_expectation_is_left_without_its_file() {
    let lonely: Vec<_> = files("txt").into_iter().filter(|path| !has_job(path)).collect();
    assert_eq!(lonely, [folder().join("texts.txt")]);
}

#[test]
fn every_text_is_said_by_some_file() {
    let all: Vec<String> = job_files()
        .iter()
        .map(|path| fs::read_to_string(path.with_extension("txt")).expect("text"))
        .collect();
    let texts = fs::read_to_string(folder().join("texts.txt")).expect("texts");
    let missing: Vec<&str> = texts
        .lines()
        .filter(|text| !text.is_empty())
        .filter(|text| !all.iter().any(|told| told.contains(text)))
        .collect();
    assert!(missing.is_empty(), "nobody says:\n{}", missing.join("\n"));
}

#[test]
fn what_people_see_names_the_line_of_the_file() {
    for path in job_files() {
        let text = fs::read_to_string(path.with_extension("txt")).expect("text");
        let Some((_, drawings)) = text.split_once("== terminal") else { continue };
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let placed = drawings.contains(&format!("[{name}:"));
        // An empty file and a variable without a value have no place.
        let has_none = ["empty.nomad", "unset_variable.nomad"].contains(&name.as_str());
        assert!(placed || has_none, "{}:\n{drawings}", path.display());
    }
}
