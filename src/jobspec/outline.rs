//! Where the blocks and attributes of a job file stand, for problems that are found after the file was read.

mod api;
mod hcl_json;
pub(super) mod json;
pub(super) mod tree;
pub(super) mod yaml;

use std::ops::Range;
use std::sync::Arc;

use hcl_edit::Span;
use hcl_edit::expr::Expression;
use hcl_edit::expr::ObjectKey;
use hcl_edit::structure::Body;
use hcl_edit::structure::Structure;

use super::decode::expression_span;
use super::decode::header_span;
use super::diagnostic::Diagnostic;
use super::diagnostic::Diagnostics;
use super::diagnostic::SourceText;
use super::validate::Pick;
use super::validate::Problem;
use super::validate::Step;

use self::tree::Tree;

/// The places of a job file. Without places, problems are told without the line that they are in.
#[derive(Clone, Debug, Default)]
pub struct Outline {
    source: Option<Arc<SourceText>>,
    job: Node,
}

/// A block.
#[derive(Clone, Debug, Default)]
struct Node {
    name: String,
    label: Option<String>,
    /// One block that stands for any number of blocks.
    is_dynamic: bool,
    span: Range<usize>,
    attributes: Vec<(String, Range<usize>)>,
    blocks: Vec<Node>,
}

impl Outline {
    /// The outline of a file's job block.
    pub(super) fn of(source: &Arc<SourceText>, file: &Body) -> Self {
        let job = file.blocks().find(|block| block.ident.as_str() == "job");
        let Some(block) = job else { return Self::default() };
        let mut job = node("job".to_owned(), &block.body);
        job.span = header_span(block);
        Self { source: Some(Arc::clone(source)), job }
    }

    /// The outline of a job in the form of the API.
    pub(super) fn of_api(source: &Arc<SourceText>, job: &Tree) -> Self {
        Self { source: Some(Arc::clone(source)), job: api::outline(job) }
    }

    /// The outline of a whole file that is HCL in JSON syntax, for its reader.
    pub(super) fn of_hcl_json(source: &Arc<SourceText>) -> Self {
        Self { source: Some(Arc::clone(source)), job: hcl_json::outline(&json::tree(&source.text)) }
    }

    /// The outline of the job in the outline of a file.
    pub(super) fn job(mut self) -> Self {
        let job = self.job.blocks.iter().position(|block| block.name == "job");
        let job = job.map(|job| self.job.blocks.swap_remove(job));
        Self { job: job.unwrap_or_default(), ..self }
    }

    /// Every message as a diagnostic at its place.
    pub fn diagnostics(&self, problems: &[Problem]) -> Diagnostics {
        let leaves = problems.iter().flat_map(Problem::leaves);
        Diagnostics(leaves.map(|problem| self.diagnostic(problem)).collect())
    }

    fn diagnostic(&self, problem: &Problem) -> Diagnostic {
        let subject = format!("in {}", problem.subject());
        let told = match &self.source {
            Some(source) => Diagnostic::at(source, self.find(&problem.path), problem.message(), subject),
            None => Diagnostic::nowhere(problem.message(), subject),
        };
        match problem.hint() {
            Some(hint) => told.with_hint(hint),
            None => told,
        }
    }

    /// The innermost place on the way that the file has.
    pub(super) fn find(&self, path: &[Step]) -> Range<usize> {
        let mut way = vec![&self.job];
        for step in path {
            let here = way.last().copied().unwrap_or(&self.job);
            match step {
                Step::Attribute(name) => return here.attribute(name).unwrap_or_else(|| here.span.clone()),
                Step::Block(name, pick) => match here.inside(name, pick) {
                    Some(next) => way.push(next),
                    // Tasks may stand in the job itself: their group is not written.
                    None if *name == "group" => {}
                    // Groups and tasks take what they lack from what is around them.
                    None if INHERITED.contains(name) => {
                        let outer = way.iter().rev().find_map(|node| node.inside(name, pick));
                        match outer {
                            Some(next) => way.push(next),
                            None => return here.span.clone(),
                        }
                    }
                    None => return here.attribute(name).unwrap_or_else(|| here.span.clone()),
                },
            }
        }
        way.last().map_or(0..0, |node| node.span.clone())
    }
}

/// Blocks that are handed down from the job to its groups, and on to their tasks.
const INHERITED: &[&str] = &["update", "reschedule", "migrate", "vault"];

/// Attributes under which the operator and the value of a constraint may stand, besides their own.
const SHORT_FORMS: &[&str] = &[
    "version",
    "semver",
    "regexp",
    "set_contains",
    "set_contains_all",
    "set_contains_any",
    "is_set",
    "is_not_set",
    "distinct_hosts",
    "distinct_property",
];

impl Node {
    /// The place of an attribute, of the short form that stands for it, or of the block of this name.
    fn attribute(&self, name: &str) -> Option<Range<usize>> {
        let written = |name: &str| self.attributes.iter().find(|(own, _)| own == name);
        let short = matches!(self.name.as_str(), "constraint" | "affinity")
            .then(|| SHORT_FORMS.iter().find_map(|form| written(form)))
            .flatten()
            .filter(|_| matches!(name, "operator" | "value"));
        let block = || self.blocks.iter().find(|block| block.name == name).map(|block| block.span.clone());
        written(name).or(short).map(|(_, span)| span.clone()).or_else(block)
    }

    fn inside(&self, name: &str, pick: &Pick) -> Option<&Self> {
        let is_named = |node: &&Self| node.name == name || (name == "port" && node.name == "reserved_ports");
        let mut candidates = self.blocks.iter().filter(is_named);
        match pick {
            Pick::Label(label) => {
                let exact = candidates.clone().find(|node| node.label.as_ref() == Some(label));
                exact.or_else(|| candidates.find(|node| node.is_dynamic || node.label.is_none()))
            }
            Pick::Again(label) => candidates.rfind(|node| node.label.as_ref() == Some(label)),
            Pick::Nth(index) => {
                let first_dynamic = candidates.clone().position(|node| node.is_dynamic);
                candidates.nth(first_dynamic.map_or(*index, |dynamic| dynamic.min(*index)))
            }
        }
    }
}

fn node(name: String, body: &Body) -> Node {
    let mut out = Node { name, ..Node::default() };
    for structure in body {
        match structure {
            Structure::Attribute(attribute) => {
                let key = attribute.key.span().unwrap_or_default();
                let end = expression_span(&attribute.value).end.max(key.end);
                let name = attribute.key.as_str().to_owned();
                out.blocks.extend(assigned(&name, &attribute.value, &key));
                out.attributes.push((name, key.start..end));
            }
            Structure::Block(block) if block.ident.as_str() == "dynamic" => {
                let Some(name) = block.labels.first() else { continue };
                let content = block.body.get_blocks("content").next();
                let mut made = content
                    .map_or_else(Node::default, |content| node(name.as_str().to_owned(), &content.body));
                name.as_str().clone_into(&mut made.name);
                made.is_dynamic = true;
                made.span = header_span(block);
                out.blocks.push(made);
            }
            Structure::Block(block) => {
                let mut made = node(block.ident.as_str().to_owned(), &block.body);
                let label = block.labels.first().map(|label| label.as_str().to_owned());
                made.label = label.or_else(|| written_name(&block.body));
                made.span = header_span(block);
                out.blocks.push(made);
            }
        }
    }
    out
}

/// The name that a block without a label gives itself.
fn written_name(body: &Body) -> Option<String> {
    body.get_attribute("name").and_then(|name| name.value.as_str()).map(str::to_owned)
}

/// Blocks that are written as values: `config = { … }`, `mount = [{ … }]`.
fn assigned(name: &str, value: &Expression, key: &Range<usize>) -> Vec<Node> {
    match value {
        Expression::Object(object) => {
            let mut out = Node { name: name.to_owned(), span: key.clone(), ..Node::default() };
            for (key, value) in object.iter() {
                let (name, span) = match key {
                    ObjectKey::Ident(ident) => (ident.as_str().to_owned(), ident.span()),
                    ObjectKey::Expression(expression) => {
                        let name = expression.as_str().unwrap_or_default().to_owned();
                        (name, expression.span())
                    }
                };
                let span = span.unwrap_or_default();
                let end = expression_span(value.expr()).end.max(span.end);
                out.blocks.extend(assigned(&name, value.expr(), &span));
                out.attributes.push((name, span.start..end));
            }
            vec![out]
        }
        Expression::Array(items) => items.iter().flat_map(|item| assigned(name, item, key)).collect(),
        _ => Vec::new(),
    }
}
