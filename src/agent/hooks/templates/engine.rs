//! Renders one template: Go's template language over what is known so far. What a template asks for and is not known
//! yet is recorded, so that the caller can fetch it and render again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Component;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::functions;
use crate::agent::hooks::TemplateOptions;
use crate::agent::hooks::Variable;
use crate::agent::hooks::VariableMeta;
use crate::drivers::TaskDirs;
use crate::gotemplate::Options;
use crate::gotemplate::Template;
use crate::gotemplate::value::Value;
use crate::model::service::ServiceRegistration;
use crate::model::time::Time;

/// Something outside of the template that it reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dependency {
    /// All registrations of a service name.
    Service(String),
    /// The names of all services.
    Services,
    /// A variable at a path of a namespace; empty: the job's.
    Variable { path: String, namespace: String },
    /// Whether there is such a variable.
    VariableExists { path: String, namespace: String },
    /// All variables whose path begins so.
    Variables { prefix: String, namespace: String },
    /// A file, by its path on the host.
    File(String),
    /// A question to Consul's HTTP API: path and query.
    Consul(String),
}

impl Dependency {
    /// Nobody tells when it changes: it is looked at again and again.
    pub(super) fn is_polled(&self) -> bool {
        matches!(self, Self::File(_) | Self::Consul(_))
    }
}

/// What is known about a dependency.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Service(Vec<ServiceRegistration>),
    Services(BTreeMap<String, Vec<String>>),
    /// `None`: there is no variable at the path.
    Variable(Option<Variable>),
    Variables(Vec<VariableMeta>),
    File(String),
    /// Null: there is no such thing.
    Consul(serde_json::Value),
}

/// What a rendering can see.
#[derive(Clone)]
pub(super) struct Scene {
    pub(super) env: Arc<BTreeMap<String, String>>,
    pub(super) node: Arc<BTreeMap<String, String>>,
    pub(super) dirs: Arc<TaskDirs>,
    pub(super) known: Arc<BTreeMap<Dependency, Answer>>,
    pub(super) options: Arc<TemplateOptions>,
    pub(super) now: Time,
}

/// A rendered template, complete when nothing is missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rendering {
    pub(super) text: String,
    pub(super) used: BTreeSet<Dependency>,
    pub(super) missing: BTreeSet<Dependency>,
}

/// A rendering in progress.
pub(super) struct Stage {
    pub(super) scene: Scene,
    used: RefCell<BTreeSet<Dependency>>,
    missing: RefCell<BTreeSet<Dependency>>,
    /// What the template keeps in `scratch`.
    pub(super) scratch: Rc<RefCell<BTreeMap<String, Value>>>,
}

impl Stage {
    /// The answer to `dependency`, or `None` after having noted that it is missing.
    pub(super) fn ask(&self, dependency: Dependency) -> Option<Answer> {
        let answer = self.scene.known.get(&dependency).cloned();
        if answer.is_none() {
            self.missing.borrow_mut().insert(dependency.clone());
        }
        self.used.borrow_mut().insert(dependency);
        answer
    }

    /// Known, but what the template needs is not in it: wait for that.
    pub(super) fn lacks(&self, dependency: Dependency) {
        self.missing.borrow_mut().insert(dependency);
    }
}

/// Renders `text`. Errors are texts in the words of consul-template: `(dynamic): parse: template: :1: …`.
pub(super) fn render(text: &str, options: &Options, name: &str, scene: &Scene) -> Result<Rendering, String> {
    let stage = Stage {
        scene: scene.clone(),
        used: RefCell::default(),
        missing: RefCell::default(),
        scratch: Rc::default(),
    };
    let rendered = {
        let functions = functions::all(&stage);
        let template = Template::parse("", text, options, &functions)
            .map_err(|error| format!("{name}: parse: {error}"))?;
        template.render(&Value::Missing, &functions)
    };
    // A value that holds `scratch` may lie in it: the circle must not outlive the rendering.
    stage.scratch.take();
    let (used, missing) = (stage.used.take(), stage.missing.take());
    match rendered {
        Ok(text) => Ok(Rendering { text, used, missing }),
        // Data that are not there yet can make an index or a field fail; that is no error of the template.
        Err(_) if !missing.is_empty() => Ok(Rendering { text: String::new(), used, missing }),
        Err(error) => Err(format!("{name}: execute: {error}")),
    }
}

/// `path` of a template as a path on the host, if it lies in the task's directory.
pub(super) fn sandboxed(dirs: &TaskDirs, path: &str) -> Option<String> {
    let given = Path::new(path);
    let inside = |parts: &Path| {
        let plain = parts.components().all(|part| matches!(part, Component::Normal(_)));
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
