//! Does what `docs/tutorial.md` tells its readers to do, block by block, and compares what they are told to see.

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use crate::support::Agent;
use crate::support::Answer;
use crate::support::answer;
use crate::support::herder;

/// The longest that a step may take to show what is expected.
const PATIENCE: Duration = Duration::from_secs(90);

/// A fenced block of the page.
#[derive(Debug, PartialEq)]
enum Step {
    /// A file to be written.
    File { name: String, text: String },
    /// Commands. With `until`, they are repeated until they succeed and print what is expected.
    Commands { text: String, how: How, expected: Vec<String> },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Once,
    Until,
    /// Ends with an exit code other than 0, as `job plan` does when there is something to do.
    Fails,
    /// Runs beside the rest.
    Background,
}

#[test]
fn the_tutorial_works_as_written() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tutorial.md"))
        .expect("the page can be read");
    let steps = steps(&page);
    assert!(steps.len() > 15, "only {} steps were found", steps.len());
    let dir = tempfile::tempdir().expect("a directory");
    let mut agent: Option<Agent> = None;
    for step in &steps {
        match step {
            Step::File { name, text } => {
                std::fs::write(dir.path().join(name), text).expect("a writable directory")
            }
            Step::Commands { how: How::Background, text, .. } => {
                assert_eq!(text.trim(), "herder agent -dev -config agent.hcl");
                let config = std::fs::read_to_string(dir.path().join("agent.hcl")).expect("written before");
                // The test's agent has a free port and a directory of its own for its data.
                let data = tempfile::tempdir().expect("a directory");
                agent = Some(Agent::start_at(dir.path(), data, &["-dev"], &config));
            }
            Step::Commands { text, how, expected } => {
                let address = agent.as_ref().map_or("", |agent| agent.address.as_str());
                follow(dir.path(), address, text, *how, expected);
            }
        }
    }
    assert!(agent.is_some(), "the page starts no agent");
}

/// Runs commands as their block says, and compares.
fn follow(dir: &Path, address: &str, text: &str, how: How, expected: &[String]) {
    let began = Instant::now();
    loop {
        let told = run(dir, address, text);
        let ended_well = (told.code == 0) == (how != How::Fails);
        let missing: Vec<_> = expected.iter().filter(|line| !shows(&told.stdout, line)).collect();
        if ended_well && missing.is_empty() {
            return;
        }
        let more_time = how == How::Until && began.elapsed() < PATIENCE;
        assert!(
            more_time,
            "{text}exit code {}, not shown: {missing:?}\n{}{}",
            told.code, told.stdout, told.stderr
        );
        std::thread::park_timeout(Duration::from_millis(200));
    }
}

fn run(dir: &Path, address: &str, text: &str) -> Answer {
    let bin = Path::new(herder()).parent().expect("a directory");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", text]).current_dir(dir);
    answer(shell.env("PATH", path).env("NOMAD_ADDR", address).env("NO_COLOR", "1"))
}

/// True when some line holds the parts between the `…` of `expected`, in their order.
fn shows(output: &str, expected: &str) -> bool {
    output.lines().any(|line| {
        let mut rest = line;
        expected.split('…').map(str::trim).all(|part| match rest.find(part) {
            Some(at) => {
                rest = &rest[at + part.len()..];
                true
            }
            None => false,
        })
    })
}

/// The blocks of a page, each `text` block with the commands before it.
fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else { continue };
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let text: String = body.iter().map(|line| format!("{line}\n")).collect();
        let commands = |how| Step::Commands { text: text.clone(), how, expected: Vec::new() };
        match kind.split_once(' ').unwrap_or((kind, "")) {
            ("sh", "") => steps.push(commands(How::Once)),
            ("sh", "until") => steps.push(commands(How::Until)),
            ("sh", "fails") => steps.push(commands(How::Fails)),
            ("sh", "background") => steps.push(commands(How::Background)),
            ("text", "") => match steps.last_mut() {
                Some(Step::Commands { expected, .. }) => {
                    expected.extend(body.iter().map(|line| (*line).to_owned()))
                }
                _ => panic!("an output without commands: {text}"),
            },
            (_, title) => match title.strip_prefix("title=") {
                Some(name) => steps.push(Step::File { name: name.to_owned(), text }),
                None => panic!("a block of an unknown kind: {kind}"),
            },
        }
    }
    steps
}

#[test]
fn blocks_and_outputs_of_a_page_are_understood() {
    let page = "text\n```hcl title=a.hcl\nx = 1\n```\n```sh until\necho a\n```\nand\n```text\na … c\n```\n";
    let expected = [
        Step::File { name: "a.hcl".to_owned(), text: "x = 1\n".to_owned() },
        Step::Commands { text: "echo a\n".to_owned(), how: How::Until, expected: vec!["a … c".to_owned()] },
    ];
    assert_eq!(steps(page), expected);
    assert!(shows("z\na b c\n", "a … c"));
    assert!(!shows("c b a\n", "a … c"));
}
