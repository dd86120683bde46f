//! What is wrong with a job, as a tree: messages, the blocks that they are about, and where these stand in a job file.

use crate::model::multierror::multierror;

use super::hints;

/// One step from the job to a place inside it, in the words of a job file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A block of this name.
    Block(&'static str, Pick),
    /// An attribute.
    Attribute(String),
}

/// Which of several blocks of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Counted from 0.
    Nth(usize),
    /// The one with this label.
    Label(String),
    /// The last one with this label, where it is there more than once.
    Again(String),
}

impl From<usize> for Pick {
    fn from(index: usize) -> Self {
        Self::Nth(index)
    }
}

impl From<&str> for Pick {
    fn from(label: &str) -> Self {
        Self::Label(label.to_owned())
    }
}

impl From<&String> for Pick {
    fn from(label: &String) -> Self {
        Self::Label(label.clone())
    }
}

/// A message, or a heading with the messages below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The message as scripts know it; before others, the text in front of their count.
    pub text: String,
    /// What a person should read, where `text` quotes or repeats too much.
    pub plain: Option<String>,
    /// A way out that only this problem has.
    pub advice: Option<String>,
    /// The way from the job to the place.
    pub path: Vec<Step>,
    pub inner: Vec<Problem>,
}

impl Problem {
    /// The whole text, with everything below it.
    pub fn rendered(&self) -> String {
        if self.inner.is_empty() {
            return self.text.clone();
        }
        let inner: Vec<String> = self.inner.iter().map(Self::rendered).collect();
        format!("{}{}", self.text, multierror(&inner))
    }

    /// The messages without their headings.
    pub fn leaves(&self) -> Vec<&Self> {
        if self.inner.is_empty() {
            return vec![self];
        }
        self.inner.iter().flat_map(Self::leaves).collect()
    }

    /// What a person should read.
    pub fn message(&self) -> &str {
        self.plain.as_deref().unwrap_or(&self.text)
    }

    /// A way out, where one is known.
    pub fn hint(&self) -> Option<String> {
        self.advice.clone().or_else(|| hints::hint(self.message()))
    }

    /// The block that the problem is about: `task "web" in group "front"`, innermost first; `job` for the job itself.
    pub fn subject(&self) -> String {
        let blocks = self.path.iter().rev().filter_map(|step| match step {
            Step::Block(name, Pick::Label(label) | Pick::Again(label)) => Some(format!("{name} {label:?}")),
            Step::Block(name, Pick::Nth(_)) => Some((*name).to_owned()),
            Step::Attribute(_) => None,
        });
        let blocks: Vec<String> = blocks.collect();
        if blocks.is_empty() { "job".to_owned() } else { blocks.join(" in ") }
    }
}

/// What was found in one block, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    path: Vec<Step>,
    items: Vec<Problem>,
}

impl Findings {
    /// Nothing yet, about a block inside this one.
    pub(super) fn block(&self, name: &'static str, pick: impl Into<Pick>) -> Self {
        let mut path = self.path.clone();
        path.push(Step::Block(name, pick.into()));
        Self { path, items: Vec::new() }
    }

    /// Nothing yet, about the same block.
    pub(super) fn same(&self) -> Self {
        Self { path: self.path.clone(), items: Vec::new() }
    }

    fn add(&mut self, text: String, path: Vec<Step>, inner: Vec<Problem>) {
        self.items.push(Problem { text, plain: None, advice: None, path, inner });
    }

    /// A problem of the block as a whole.
    pub(super) fn push(&mut self, text: impl Into<String>) {
        self.add(text.into(), self.path.clone(), Vec::new());
    }

    /// A problem of one of the block's attributes.
    pub(super) fn at(&mut self, attribute: impl Into<String>, text: impl Into<String>) {
        let mut path = self.path.clone();
        path.push(Step::Attribute(attribute.into()));
        self.add(text.into(), path, Vec::new());
    }

    /// A problem whose text is for scripts, and what a person reads instead.
    pub(super) fn quoted(&mut self, text: impl Into<String>, inner: Self) {
        let messages: Vec<String> = inner.items.iter().map(Problem::rendered).collect();
        let path = match inner.items.first() {
            Some(first) => first.path.clone(),
            None => inner.path,
        };
        let plain = Some(messages.join("; "));
        self.items.push(Problem { text: text.into(), plain, advice: None, path, inner: Vec::new() });
    }

    /// Adds what was found in a block, if anything, as one message after `prefix`.
    pub(super) fn nest(&mut self, prefix: impl Into<String>, inner: Self) {
        if !inner.items.is_empty() {
            self.add(prefix.into(), inner.path, inner.items);
        }
    }

    /// Adds what was found in a block, each message by itself.
    pub(super) fn absorb(&mut self, inner: Self) {
        self.items.extend(inner.items);
    }

    /// The same with a way out for each problem.
    pub(super) fn hinted(mut self, advice: &str) -> Self {
        for problem in &mut self.items {
            problem.advice = Some(advice.to_owned());
        }
        self
    }

    /// Puts a text in front of each message.
    pub(super) fn prefixed(mut self, prefix: &str) -> Self {
        for problem in &mut self.items {
            problem.plain.get_or_insert_with(|| problem.text.clone());
            problem.text.insert_str(0, prefix);
        }
        self
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.items
    }

    /// All messages as one text.
    pub(super) fn text(&self) -> String {
        multierror(&self.items.iter().map(Problem::rendered).collect::<Vec<_>>())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}
