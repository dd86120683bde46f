//! Renders one template: Go's template language over what is known so far. What a template asks for and is not known
//! yet is recorded, so that the caller can fetch it and render again.
//!
//! This is the only file that knows the template library. Its functions are plain function pointers, so the scene of
//! the rendering in progress is kept for its thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Arc;

use gtmpl_ng::Context;
use gtmpl_ng::ExecError;
use gtmpl_ng::Limits;
use gtmpl_ng::ParseError;
use gtmpl_ng::Template as Program;
use gtmpl_ng::Value;

use super::functions::FUNCTIONS;
use super::syntax::normalise;
use crate::drivers::TaskDirs;
use crate::model::service::ServiceRegistration;
use crate::model::time::Time;

/// Largest rendered file, and largest value that a function may make, bytes.
const OUTPUT_MAX: usize = 64 << 20;
/// Largest number of loop iterations of one rendering.
const ITERATIONS_MAX: usize = 10_000_000;

/// Something outside of the template that it reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dependency {
    /// All registrations of a service name.
    Service(String),
    /// The names of all services.
    Services,
    /// A variable at a path of a namespace; empty: the job's.
    Variable { path: String, namespace: String },
    /// A file, by its path on the host.
    File(String),
}

/// What is known about a dependency.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Service(Vec<ServiceRegistration>),
    Services(BTreeMap<String, Vec<String>>),
    /// `None`: there is no variable at the path.
    Variable(Option<BTreeMap<String, String>>),
    File(String),
}

/// What a rendering can see.
#[derive(Clone)]
pub(super) struct Scene {
    pub(super) env: Arc<BTreeMap<String, String>>,
    pub(super) node: Arc<BTreeMap<String, String>>,
    pub(super) dirs: Arc<TaskDirs>,
    pub(super) known: Arc<BTreeMap<Dependency, Answer>>,
    pub(super) now: Time,
}

/// How a template's text is to be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Syntax {
    pub(super) left: String,
    pub(super) right: String,
    /// A missing key of a map is an error.
    pub(super) strict: bool,
}

/// A rendered template, complete when nothing is missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rendering {
    pub(super) text: String,
    pub(super) used: BTreeSet<Dependency>,
    pub(super) missing: BTreeSet<Dependency>,
}

/// The rendering in progress on a thread.
pub(super) struct Stage {
    pub(super) scene: Scene,
    pub(super) strict: bool,
    pub(super) used: BTreeSet<Dependency>,
    pub(super) missing: BTreeSet<Dependency>,
    pub(super) scratch: BTreeMap<String, Value>,
}

impl Stage {
    /// The answer to `dependency`, or `None` after having noted that it is missing.
    pub(super) fn ask(&mut self, dependency: Dependency) -> Option<Answer> {
        let answer = self.scene.known.get(&dependency).cloned();
        if answer.is_none() {
            self.missing.insert(dependency.clone());
        }
        self.used.insert(dependency);
        answer
    }

    /// A map whose missing keys print `<no value>`, or are errors if the template wants that.
    pub(super) fn map(&self, entries: HashMap<String, Value>) -> Value {
        if self.strict { Value::Object(entries) } else { Value::Map(entries) }
    }
}

thread_local! {
    static STAGE: RefCell<Option<Stage>> = const { RefCell::new(None) };
}

/// Runs `act` on the rendering in progress; `None` outside of one.
pub(super) fn on_stage<T>(act: impl FnOnce(&mut Stage) -> T) -> Option<T> {
    STAGE.with_borrow_mut(|stage| stage.as_mut().map(act))
}

/// Renders `text`. Errors are texts in the words of consul-template: `(dynamic): parse: template: :1: …`.
pub(super) fn render(text: &str, syntax: &Syntax, name: &str, scene: &Scene) -> Result<Rendering, String> {
    let source = normalise(text, &syntax.left, &syntax.right);
    let program = guarded(|| {
        let mut program = Program::with_limits(limits());
        program.add_funcs(FUNCTIONS);
        program.parse(source.as_str()).map(|()| program)
    });
    let program = program?.map_err(|error| format!("{name}: parse: {}", parse_text(&error)))?;
    let stage = Stage {
        scene: scene.clone(),
        strict: syntax.strict,
        used: BTreeSet::new(),
        missing: BTreeSet::new(),
        scratch: BTreeMap::new(),
    };
    STAGE.set(Some(stage));
    let root = if syntax.strict { Value::Object(HashMap::new()) } else { Value::NoValue };
    let rendered = guarded(|| program.render(&Context::from(root)));
    let stage = STAGE.take().ok_or("the rendering lost its scene")?;
    match rendered? {
        Ok(text) => Ok(Rendering { text, used: stage.used, missing: stage.missing }),
        // Data that are not there yet can make an index or a field fail; that is no error of the template.
        Err(_) if !stage.missing.is_empty() => {
            Ok(Rendering { text: String::new(), used: stage.used, missing: stage.missing })
        }
        Err(error) => Err(format!("{name}: execute: {}", execute_text(&error, &source))),
    }
}

/// A bug of the library must fail one template, not the agent.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| "the template engine failed on this template".to_owned())
}

fn limits() -> Limits {
    Limits::default()
        .with_iterations(ITERATIONS_MAX)
        .with_total_iterations(ITERATIONS_MAX)
        .with_output_bytes(OUTPUT_MAX)
        .with_function_output(OUTPUT_MAX)
}

fn parse_text(error: &ParseError) -> String {
    match error {
        ParseError::WithContext(context, message) => {
            let message = match message.strip_prefix("function ").and_then(|m| m.strip_suffix(" not defined"))
            {
                Some(function) => format!("function \"{function}\" not defined"),
                None => message.clone(),
            };
            format!("template: :{}: {message}", context.line)
        }
        other => format!("template: :1: {other}"),
    }
}

fn execute_text(error: &ExecError, source: &str) -> String {
    let Some(innermost) = error.as_structured().and_then(|error| error.chain().last()) else {
        return format!("template: {error}");
    };
    let context = &innermost.context;
    let column = context.col.saturating_sub(1);
    let line = source.lines().nth(context.line.saturating_sub(1)).unwrap_or_default();
    let expression = line.get(column..).map_or("", |rest| rest.get(..context.len).unwrap_or(rest));
    let message = missing_key(&innermost.message).unwrap_or_else(|| innermost.message.clone());
    format!(
        "template: {}:{}:{column}: executing \"{}\" at <{}>: {message}",
        context.name,
        context.line,
        context.name,
        expression.trim()
    )
}

/// Go's words for a missing key.
fn missing_key(message: &str) -> Option<String> {
    let key = message.strip_prefix("no field ")?.split(' ').next()?;
    Some(format!("map has no entry for key \"{}\"", key.trim_matches('`').trim_matches('"')))
}

/// `path` of a template as a path on the host, if it lies in the task's directory.
pub(super) fn sandboxed(dirs: &TaskDirs, path: &str) -> Option<String> {
    let given = Path::new(path);
    let inside = |parts: &Path| {
        let plain = parts.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        plain.then(|| dirs.task.join(parts).display().to_string())
    };
    if let Ok(below) = given.strip_prefix(&dirs.task) {
        return inside(below);
    }
    if given.is_relative() {
        return inside(given.strip_prefix(".").unwrap_or(given));
    }
    let as_seen_by_the_task = given.strip_prefix("/").ok()?;
    ["local", "secrets", "tmp"].iter().find(|name| as_seen_by_the_task.starts_with(name))?;
    inside(as_seen_by_the_task)
}
