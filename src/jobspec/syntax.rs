//! From text to a syntax tree, forgiving what older job files contain.
//!
//! Files of the first HCL version separate attributes with commas, or put several on one line. Both are repaired in
//! place, byte for byte, so that positions stay those of the file.

use std::ops::Range;
use std::sync::Arc;

use hcl_edit::parser::Error as ParseError;
use hcl_edit::parser::parse_body;
use hcl_edit::structure::Body;

use super::diagnostic::Diagnostic;
use super::diagnostic::Diagnostics;
use super::diagnostic::SourceText;

/// More repairs than this mean that the file is something else.
const MAX_REPAIRS: usize = 10_000;

/// A parsed file.
pub(super) struct Syntax {
    pub(super) body: Body,
    pub(super) source: Arc<SourceText>,
    /// Repairs of the older syntax, as warnings.
    pub(super) warnings: Vec<Diagnostic>,
}

/// Parses a body.
///
/// # Errors
/// With the first syntax error of the text as it was written.
pub(super) fn parse(name: &str, text: &str) -> Result<Syntax, Diagnostics> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Arc::new(SourceText { name: name.to_owned(), text: text.to_owned() });
    let mut repaired = text.to_owned();
    let mut repairs: Vec<Repair> = Vec::new();
    loop {
        let error = match parse_body(&repaired) {
            Ok(body) => {
                let warnings = repairs.iter().map(|repair| repair.warning(&source)).collect();
                return Ok(Syntax { body, source, warnings });
            }
            Err(error) => error,
        };
        let offset = error.location().offset();
        let known = repairs.last().is_some_and(|last| last.offset >= offset && !last.is_newline);
        match Repair::find(&repaired, &error) {
            Some(repair) if repairs.len() < MAX_REPAIRS && !known => {
                let replacement = if repair.is_newline { "\n" } else { " " };
                repaired.replace_range(repair.offset..repair.offset + 1, replacement);
                repairs.push(repair);
            }
            _ => return Err(describe(&source, &error).into()),
        }
    }
}

/// One byte that was replaced by a blank (a comma) or by a line break (a blank between two attributes).
struct Repair {
    offset: usize,
    is_newline: bool,
}

impl Repair {
    fn find(text: &str, error: &ParseError) -> Option<Self> {
        let offset = error.location().offset();
        let bytes = text.as_bytes();
        if !error.message().contains("newline") && !error.message().contains("block body") {
            return None;
        }
        if bytes.get(offset) == Some(&b',') {
            return Some(Self { offset, is_newline: false });
        }
        let starts_item = bytes.get(offset).is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
        let blank_before = offset > 0 && matches!(bytes[offset - 1], b' ' | b'\t');
        let item = starts_item && blank_before && looks_like_item(&text[offset..]);
        item.then_some(Self { offset: offset - 1, is_newline: true })
    }

    fn warning(&self, source: &Arc<SourceText>) -> Diagnostic {
        let span = self.offset..self.offset + 1;
        let (summary, detail) = if self.is_newline {
            (
                "Missing newline after argument",
                "An argument definition must end with a newline. Accepted as HCL version 1.",
            )
        } else {
            (
                "Unexpected comma after argument",
                "Argument definitions must be separated by newlines, not commas. Accepted as HCL version 1.",
            )
        };
        Diagnostic::at(source, span, summary, detail).as_warning()
    }
}

/// True when `name =`, `name {` or `name "label"` stands at the start of the text.
fn looks_like_item(text: &str) -> bool {
    let rest = text.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_' || c == '-');
    rest.trim_start_matches([' ', '\t']).starts_with(['=', '{', '"'])
}

/// Nomad's words for a syntax error, found by looking at the place that the parser complains about.
fn describe(source: &Arc<SourceText>, error: &ParseError) -> Diagnostic {
    let text = &source.text;
    let offset = error.location().offset().min(text.len());
    let rest = &text[offset..];
    let line_start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
    let before = text[line_start..offset].trim();
    let one = offset..offset + rest.chars().next().map_or(0, char::len_utf8);
    let at_item_start = before.is_empty();
    if at_item_start && rest.starts_with('"') {
        let end = rest[1..].find('"').map_or(1, |quote| quote + 2);
        let detail = "Argument names must not be quoted.";
        return Diagnostic::at(source, offset..offset + end, "Invalid argument name", detail);
    }
    if at_item_start && !rest.is_empty() && !rest.starts_with(|c: char| c.is_alphabetic() || c == '_') {
        let length = rest.find(|c: char| c.is_whitespace()).unwrap_or(rest.len()).max(1);
        let detail = "An argument or block definition is required here.";
        let span = offset..offset + length;
        return Diagnostic::at(source, span, "Argument or block definition required", detail);
    }
    if rest.trim_start().is_empty() && unclosed(text).is_some() {
        let span = unclosed(text).unwrap_or(one);
        let detail = "There is no closing brace for this block before the end of the file. This may be caused by \
                      incorrect brace nesting elsewhere in this file.";
        return Diagnostic::at(source, span, "Unclosed configuration block", detail);
    }
    if error.message().contains("newline") {
        let detail = "An argument definition must end with a newline.";
        return Diagnostic::at(source, one, "Missing newline after argument", detail);
    }
    if error.message().contains("expression") {
        let detail = "Expected the start of an expression, but found an invalid expression token.";
        return Diagnostic::at(source, one, "Invalid expression", detail);
    }
    Diagnostic::at(source, one, "Invalid syntax", sentence(error.message()))
}

/// The innermost `{` that is never closed, ignoring strings and comments only roughly.
fn unclosed(text: &str) -> Option<Range<usize>> {
    let mut open = Vec::new();
    let mut quoted = false;
    for (offset, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '\n' => quoted = false,
            '{' if !quoted => open.push(offset),
            '}' if !quoted => {
                open.pop();
            }
            _ => {}
        }
    }
    open.pop().map(|offset| offset..offset + 1)
}

fn sentence(message: &str) -> String {
    let mut chars = message.trim_end_matches('.').chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}
