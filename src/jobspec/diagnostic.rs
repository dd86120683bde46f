//! Problems in a job file: where they are, what is wrong, and what to do about it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::GraphicalReportHandler;
use miette::GraphicalTheme;
use miette::LabeledSpan;
use miette::NamedSource;
use miette::SourceCode;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The job is refused.
    Error,
    /// The job is accepted, but something deserves attention.
    Warning,
}

/// The name and the text of a file that problems point into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceText {
    pub name: String,
    pub text: String,
}

/// One problem of a job file. Lines and columns count from 1; `span` is a byte range of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// What kind of problem it is: `Unsupported argument`.
    pub summary: String,
    /// The sentence that explains it.
    pub detail: String,
    /// The file's name; `<nil>` for a problem that has no place in a file.
    pub file: String,
    pub line: usize,
    pub column: usize,
    pub end_line: usize,
    pub end_column: usize,
    pub span: Range<usize>,
    /// A way out, where one is known.
    pub hint: Option<String>,
    source: Option<Arc<SourceText>>,
}

impl Diagnostic {
    /// A problem at the byte range `span` of `source`.
    pub fn at(
        source: &Arc<SourceText>,
        span: Range<usize>,
        summary: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        let span = within(&source.text, &span);
        let (line, column) = position(&source.text, span.start);
        let (end_line, end_column) = position(&source.text, span.end);
        Self {
            severity: Severity::Error,
            summary: summary.into(),
            detail: detail.into(),
            file: source.name.clone(),
            line,
            column,
            end_line,
            end_column,
            span,
            hint: None,
            source: Some(Arc::clone(source)),
        }
    }

    /// A problem without a place in a file, such as a variable that has no value.
    pub fn nowhere(summary: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            summary: summary.into(),
            detail: detail.into(),
            file: "<nil>".to_owned(),
            line: 0,
            column: 0,
            end_line: 0,
            end_column: 0,
            span: 0..0,
            hint: None,
            source: None,
        }
    }

    /// The same problem with a way out.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same problem as a warning.
    #[must_use]
    pub fn as_warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// A drawing of the source line with the place marked, several lines long.
    pub fn report(&self, color: bool) -> String {
        let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let mut out = String::new();
        let marked = Marked { diagnostic: self, code: self.code() };
        match GraphicalReportHandler::new_themed(theme).render_report(&mut out, &marked) {
            Ok(()) => out,
            Err(fmt::Error) => format!("{self}\n"),
        }
    }

    fn code(&self) -> Option<NamedSource<String>> {
        self.source.as_ref().map(|source| NamedSource::new(&source.name, source.text.clone()))
    }
}

/// The form that Nomad prints: `<file>:<line>,<column>-<column>: <summary>; <detail>`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.source.is_none() {
            write!(f, "{}: ", self.file)?;
        } else if self.line == self.end_line {
            write!(f, "{}:{},{}-{}: ", self.file, self.line, self.column, self.end_column)?;
        } else {
            let Self { file, line, column, end_line, end_column, .. } = self;
            write!(f, "{file}:{line},{column}-{end_line},{end_column}: ")?;
        }
        f.write_str(&self.summary)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, "; {}", self.detail) }
    }
}

/// The part of a range that is inside the text, made of whole characters.
fn within(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = (0..=span.start.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let end = span.end.clamp(start, text.len());
    start..(end..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}

/// Line and column of a byte offset, both from 1; a column is a character, not a byte.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

/// A diagnostic as miette wants to see it.
#[derive(Debug)]
struct Marked<'a> {
    diagnostic: &'a Diagnostic,
    code: Option<NamedSource<String>>,
}

impl fmt::Display for Marked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.summary)
    }
}

impl std::error::Error for Marked<'_> {}

impl miette::Diagnostic for Marked<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.diagnostic.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        match (&self.diagnostic.hint, &self.code) {
            (Some(hint), _) => Some(Box::new(hint)),
            (None, None) => Some(Box::new(&self.diagnostic.detail)),
            (None, Some(_)) => None,
        }
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.code.as_ref().map(|code| code as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.code.as_ref()?;
        let Range { start, end } = self.diagnostic.span.clone();
        let length = end.saturating_sub(start).max(1);
        let label = LabeledSpan::new(Some(self.diagnostic.detail.clone()), start, length);
        Some(Box::new(std::iter::once(label)))
    }
}

/// All problems of a job file, in the order they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Adds a problem.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// True when the job must be refused.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// The drawings of all problems, one after the other, with an empty line between them.
    pub fn report(&self, color: bool) -> String {
        self.0.iter().map(|diagnostic| diagnostic.report(color)).collect::<Vec<_>>().join("\n")
    }
}

/// One line per problem.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

/// What is told of an expression that is nested too deeply.
pub(super) const TOO_DEEP: &str = "Expression nested too deeply";

/// The same, with its place and what to do; see [`crate::model::hcl::too_deep`].
pub(super) fn too_deep(source: &Arc<SourceText>, span: Range<usize>) -> Diagnostic {
    let detail = "Brackets that follow two or more operators can stand in each other four times; name parts of this in locals.";
    Diagnostic::at(source, span, TOO_DEEP, detail)
}
