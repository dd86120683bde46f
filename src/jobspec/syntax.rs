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
use super::diagnostic::too_deep;
use super::format;
use super::hcl1;
use super::hcl1::Translation;
use crate::model::hcl;

/// Every repair parses the file again. After this many, commas at line ends are removed all at once.
const MAX_SINGLE_REPAIRS: usize = 64;
/// More repairs than this mean that the file is something else.
const MAX_REPAIRS: usize = 256;
/// The same in bytes that were parsed again, for large files.
const MAX_REPARSED_BYTES: usize = 32 * 1024 * 1024;

/// A parsed file.
pub(super) struct Syntax {
    pub(super) body: Body,
    pub(super) source: Arc<SourceText>,
    /// Repairs of the older syntax, as warnings.
    pub(super) warnings: Vec<Diagnostic>,
    /// For a file that was translated from the older syntax: where its pieces come from.
    pub(super) translation: Option<Translation>,
}

impl Syntax {
    /// A body that needed no repair.
    pub(super) fn plain(body: Body, source: Arc<SourceText>) -> Self {
        Self { body, source, warnings: Vec::new(), translation: None }
    }
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
    let mut reparsed = 0;
    let mut commas_left = true;
    loop {
        if let Some(span) = hcl::too_deep(&repaired) {
            return Err(too_deep(&source, span).into());
        }
        let error = match parse_body(&repaired) {
            // No file of the second version assigns its job.
            Ok(body) if body.has_attribute("job") => {
                return Ok(translated(&source).unwrap_or_else(|| Syntax::plain(body, source)));
            }
            Ok(body) => {
                // The parser lets these pass.
                if let Some(span) = format::broken_string(&repaired) {
                    return Err(multi_line(&source, span).into());
                }
                repairs.sort_by_key(|repair| repair.offset);
                let warnings = repairs.iter().map(|repair| repair.warning(&source)).collect();
                return Ok(Syntax { body, source, warnings, translation: None });
            }
            Err(error) => error,
        };
        reparsed += error.location().offset();
        if repairs.len() >= MAX_SINGLE_REPAIRS && commas_left {
            commas_left = false;
            repaired = without_commas_at_line_ends(&repaired);
            continue;
        }
        let may_repair = repairs.len() < MAX_REPAIRS && reparsed < MAX_REPARSED_BYTES;
        let found = if may_repair { find_repairs(&repaired, &error) } else { Vec::new() };
        if found.is_empty() {
            return translated(&source).ok_or_else(|| describe(&source, &error).into());
        }
        for repair in found {
            repaired.replace_range(
                repair.offset..repair.offset + 1,
                if repair.kind == Kind::Blank { "\n" } else { " " },
            );
            repairs.push(repair);
        }
    }
}

/// The file as one of the older syntax, when it is one.
fn translated(source: &Arc<SourceText>) -> Option<Syntax> {
    let translation = hcl1::translate(&source.text)?;
    let body = parse_body(&translation.text).ok()?;
    let detail = "This file has the syntax of HCL version 1, in which nothing within ${...} is evaluated.";
    let warning =
        Diagnostic::at(source, translation.mark.clone(), "Read as HCL version 1", detail).as_warning();
    Some(Syntax { body, source: Arc::clone(source), warnings: vec![warning], translation: Some(translation) })
}

/// Checks that a text is HCL, without any forgiveness.
///
/// # Errors
/// With the first syntax error.
pub(super) fn check(name: &str, text: &str) -> Result<(), Diagnostics> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Arc::new(SourceText { name: name.to_owned(), text: text.to_owned() });
    if let Some(span) = hcl::too_deep(text) {
        return Err(too_deep(&source, span).into());
    }
    parse_body(text).map_err(|error| describe(&source, &error))?;
    match format::broken_string(text) {
        Some(span) => Err(multi_line(&source, span).into()),
        None => Ok(()),
    }
}

/// One byte that was replaced.
struct Repair {
    offset: usize,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A comma after an attribute became a blank.
    Comma,
    /// A blank between two attributes became a line break.
    Blank,
    /// A quote around an attribute's name became a blank.
    Quote,
}

/// What can be replaced so that the parser gets further. Every repair removes a comma or a blank, hence they end.
fn find_repairs(text: &str, error: &ParseError) -> Vec<Repair> {
    let bytes = text.as_bytes();
    let message = error.message();
    if let Some(quotes) = quoted_name(text, error.location().offset()) {
        return quotes.map(|offset| Repair { offset, kind: Kind::Quote }).into();
    }
    if !message.contains("newline") && !message.contains("block body") && !message.contains("`}`") {
        return Vec::new();
    }
    let offset = error.location().offset();
    let blanks = bytes.iter().skip(offset).take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let at = offset + blanks;
    if bytes.get(at) == Some(&b',') {
        return vec![Repair { offset: at, kind: Kind::Comma }];
    }
    let is_blank = |offset: usize| matches!(bytes.get(offset), Some(b' ' | b'\t'));
    let starts_item = bytes.get(at).is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
    let ends_block = bytes.get(at) == Some(&b'}');
    let fits = (starts_item && looks_like_item(&text[at..])) || ends_block;
    let mut out = Vec::new();
    if fits && at > 0 && is_blank(at - 1) {
        out.push(Repair { offset: at - 1, kind: Kind::Blank });
        // The block that was opened on this line holds more than one attribute: its first one gets a line, too.
        let line = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        if let Some(brace) = text[line..at].rfind('{').map(|brace| line + brace + 1)
            && brace < at - 1
            && is_blank(brace)
        {
            out.push(Repair { offset: brace, kind: Kind::Blank });
        }
    }
    out
}

impl Repair {
    fn warning(&self, source: &Arc<SourceText>) -> Diagnostic {
        let span = self.offset..self.offset + 1;
        let (summary, detail) = match self.kind {
            Kind::Blank => {
                ("Missing newline after argument", "An argument definition must end with a newline.")
            }
            Kind::Comma => (
                "Unexpected comma after argument",
                "Argument definitions must be separated by newlines, not commas.",
            ),
            Kind::Quote => ("Invalid argument name", "Argument names must not be quoted."),
        };
        let detail = format!("{detail} Accepted as HCL version 1.");
        Diagnostic::at(source, span, summary, detail).as_warning()
    }
}

/// Replaces commas by blanks where a line ends inside braces: between arguments they are wrong, and between the entries of
/// a map the line break separates as well. Texts, comments and lists keep theirs.
fn without_commas_at_line_ends(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut open: Vec<char> = Vec::new();
    let mut heredoc: Option<String> = None;
    for line in text.split_inclusive('\n') {
        if let Some(marker) = &heredoc {
            if line.trim() == marker {
                heredoc = None;
            }
            out.push_str(line);
            continue;
        }
        let code = code_of(line, &mut open);
        if let Some((_, marker)) = code.split_once("<<") {
            heredoc = Some(marker.trim_start_matches('-').trim().to_owned());
        }
        match code.trim_end().strip_suffix(',') {
            Some(kept) if matches!(open.last(), Some('{') | None) => {
                out.push_str(kept);
                out.push(' ');
                out.push_str(&line[kept.len() + 1..]);
            }
            _ => out.push_str(line),
        }
    }
    out
}

/// The part of a line before its comment; keeps track of the brackets that are open at its end.
fn code_of<'a>(line: &'a str, open: &mut Vec<char>) -> &'a str {
    let mut quoted = false;
    let mut escaped = false;
    for (offset, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '#' => return &line[..offset],
            '/' if line[offset..].starts_with("//") => return &line[..offset],
            '{' | '[' | '(' => open.push(c),
            '}' | ']' | ')' => {
                open.pop();
            }
            _ => {}
        }
    }
    line
}

/// Both quotes of a name at `offset`, when it is the first thing of its line and could stand without them.
fn quoted_name(text: &str, offset: usize) -> Option<[usize; 2]> {
    let line = text.get(..offset)?.rfind('\n').map_or(0, |newline| newline + 1);
    let inner = text.get(offset..)?.strip_prefix('"')?;
    let (name, after) = inner.split_once('"')?;
    let first = text[line..offset].trim().is_empty();
    let is_item = after.trim_start_matches([' ', '\t']).starts_with(['=', '{', '"']);
    (first && is_item && hcl_edit::Ident::try_new(name).is_ok()).then_some([offset, offset + name.len() + 1])
}

/// True when `name =`, `name {` or `name "label"` stands at the start of the text.
fn looks_like_item(text: &str) -> bool {
    let rest = text.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_' || c == '-');
    rest.trim_start_matches([' ', '\t']).starts_with(['=', '{', '"'])
}

/// Nomad's words for a syntax error, found by looking at the place that the parser complains about.
fn describe(source: &Arc<SourceText>, error: &ParseError) -> Diagnostic {
    let text = &source.text;
    // The parser counts bytes, and may end within a character.
    let offset = text.floor_char_boundary(error.location().offset());
    let message = error.message();
    let rest = &text[offset..];
    let line_start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
    let at_item_start = text[line_start..offset].trim().is_empty();
    let in_item = rest.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let until =
        |end: Option<usize>| offset..offset + end.unwrap_or(rest.len()).max(usize::from(!rest.is_empty()));
    let one = || until(rest.chars().next().map(char::len_utf8));
    let say = |span, summary: &str, detail: &str| Diagnostic::at(source, span, summary, detail);
    if let Some(problem) = redefined(source, offset, message) {
        return problem;
    }
    if message.contains("heredoc end") {
        return say(one(), "Unterminated template string", "No closing marker was found for the string.");
    }
    if let Some(span) = open_quote(text, line_start) {
        return multi_line(source, span);
    }
    if message.contains('`') && message.contains("`}`") && within_interpolation(&text[line_start..offset]) {
        let detail = "Did you intend this to be a literal sequence to be processed as part of another language? If so, \
                      you can escape it by starting with \"$${\" instead of just \"${\".";
        return say(one(), "Extra characters after interpolation expression", detail);
    }
    if message.contains("`]`") {
        let detail = "Expected a comma to mark the beginning of the next item.";
        return say(one(), "Missing item separator", detail);
    }
    if at_item_start && rest.starts_with('"') {
        let end = rest[1..].find('"').map(|quote| quote + 2);
        return say(until(end), "Invalid argument name", "Argument names must not be quoted.");
    }
    if at_item_start && !in_item && !rest.is_empty() {
        let detail = "An argument or block definition is required here.";
        let end = rest.find(char::is_whitespace);
        return say(until(end), "Argument or block definition required", detail);
    }
    if rest.trim_start().is_empty()
        && let Some(span) = unclosed(text)
    {
        let detail = "There is no closing brace for this block before the end of the file. This may be caused by \
                      incorrect brace nesting elsewhere in this file.";
        return say(span, "Unclosed configuration block", detail);
    }
    if message.contains("newline") {
        return say(
            one(),
            "Missing newline after argument",
            "An argument definition must end with a newline.",
        );
    }
    if message.contains("expression") {
        let detail = "Expected the start of an expression, but found an invalid expression token.";
        return say(one(), "Invalid expression", detail);
    }
    if message.contains("`{`") {
        let detail = "Either a quoted string block label or an opening brace (\"{\") is expected here.";
        let hint = "to set an argument, put an equals sign between its name and its value";
        return say(until(Some(1)), "Invalid block definition", detail).with_hint(hint);
    }
    say(one(), "Invalid syntax", &sentence(message))
}

/// A name that is given twice: of an argument, or of an entry of an object.
fn redefined(source: &Arc<SourceText>, offset: usize, message: &str) -> Option<Diagnostic> {
    let rest = &source.text[offset..];
    let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').next().unwrap_or_default();
    let span = offset..offset + name.len().max(usize::from(!rest.is_empty()));
    if message.contains("redefined object key") {
        let detail = "This key was already given in this object.";
        return Some(Diagnostic::at(source, span, "Duplicate object key", detail));
    }
    message.contains("redefined attribute").then(|| {
        let detail = format!("The argument \"{name}\" was already set. Each argument may be set only once.");
        Diagnostic::at(source, span, "Attribute redefined", detail)
    })
}

fn multi_line(source: &Arc<SourceText>, span: Range<usize>) -> Diagnostic {
    let detail = "Quoted strings may not be split over multiple lines. To produce a multi-line string, either use the \\n \
                  escape to represent a newline character or use the \"heredoc\" multi-line template syntax.";
    Diagnostic::at(source, span, "Invalid multi-line string", detail)
}

/// The place of a quote that is not closed on the line that begins at `line_start`.
fn open_quote(text: &str, line_start: usize) -> Option<Range<usize>> {
    let line = text[line_start..].lines().next().unwrap_or_default();
    let mut quote = None;
    let mut escaped = false;
    for (offset, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote.is_some() => escaped = true,
            '#' if quote.is_none() => break,
            '"' => quote = quote.xor(Some(offset)).filter(|_| quote.is_none()),
            _ => {}
        }
    }
    // A quote inside `${…}` belongs to the expression; such lines are left to other rules.
    let plain = !line.contains("${");
    quote.filter(|_| plain).map(|offset| line_start + offset..line_start + line.len())
}

/// True when a `${` of this line is still open at its end.
fn within_interpolation(line: &str) -> bool {
    line.rfind("${").is_some_and(|open| !line[open..].contains('}'))
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
