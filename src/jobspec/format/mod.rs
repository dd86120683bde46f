//! The canonical layout of HCL files: two blanks per level, one blank between tokens, equals signs and comments of
//! neighbouring lines below each other. Line breaks stay where they are.

use crate::model::hcl::lexer;
use crate::model::hcl::lexer::Kind;
use crate::model::hcl::lexer::Token;

const INDENT: usize = 2;

/// A line in three parts whose starts are aligned with those of neighbouring lines.
#[derive(Default)]
struct Line<'a> {
    lead: Vec<Token<'a>>,
    /// From the equals sign on, where the whole value stands on the line.
    assign: Vec<Token<'a>>,
    comment: Vec<Token<'a>>,
}

/// A part of a line that is aligned.
#[derive(Clone, Copy)]
enum Part {
    Assign,
    Comment,
}

/// The text in its canonical layout. The text must parse.
pub(super) fn layout(text: &str) -> String {
    let mut tokens = lexer::tokens(text);
    spacing(&mut tokens);
    let mut lines = lines(tokens);
    indent(&mut lines);
    align(&mut lines, Part::Assign);
    align(&mut lines, Part::Comment);
    let mut out = String::with_capacity(text.len());
    for token in lines.iter().flat_map(|line| line.lead.iter().chain(&line.assign).chain(&line.comment)) {
        out.extend(std::iter::repeat_n(' ', token.spaces));
        out.push_str(token.text);
    }
    out
}

/// The rest of the line at which a quoted string goes on, if any does.
pub(super) fn broken_string(text: &str) -> Option<std::ops::Range<usize>> {
    lexer::broken_string(text)
}

/// The columns that tokens take, without line breaks.
fn width(tokens: &[Token<'_>]) -> usize {
    tokens.iter().map(|token| token.spaces + token.text.trim_end_matches(['\n', '\r']).chars().count()).sum()
}

/// Sets the blanks between the tokens of a line.
fn spacing(tokens: &mut [Token<'_>]) {
    let mut before: Option<Kind> = None;
    for index in 0..tokens.len() {
        let fresh_line = index == 0 || ends_line(&tokens[index - 1]);
        if fresh_line {
            before = None;
            // Text of heredocs stays as it is; everything else is indented later.
            if !matches!(tokens[index].kind, Kind::Text | Kind::CloseHeredoc | Kind::OpenTemplate) {
                tokens[index].spaces = 0;
            }
            continue;
        }
        let subject = &tokens[index - 1];
        let wanted = space_between(before, subject, &tokens[index]);
        before = Some(subject.kind);
        tokens[index].spaces = usize::from(wanted);
    }
}

fn ends_line(token: &Token<'_>) -> bool {
    token.text.ends_with('\n')
}

/// Whether a blank stands between two tokens; `before` is what stands before the first of them.
fn space_between(before: Option<Kind>, subject: &Token<'_>, after: &Token<'_>) -> bool {
    use Kind::*;
    match (subject.kind, after.kind) {
        (_, Newline) => false,
        (Ident, OpenParen) => false,
        (Dot, _) | (_, Dot) => false,
        (_, Comma | Ellipsis) => false,
        (Comma, _) => true,
        (Text | OpenQuote | OpenHeredoc, _) | (_, Text | CloseQuote | CloseHeredoc) => false,
        (CloseQuote, _) | (_, OpenQuote) if inside_template_edge(subject, after) => false,
        (OpenTemplate, _) | (_, CloseTemplate) => false,
        (_, OpenTemplate) | (CloseTemplate, _) => false,
        (Ident, OpenBracket) => matches!(subject.text, "in"),
        (Number | CloseBrace | CloseBracket | CloseParen, OpenBracket) => false,
        (Minus, _) => !matches!(
            before,
            None | Some(
                OpenParen
                    | OpenBrace
                    | OpenBracket
                    | Equal
                    | Colon
                    | Comma
                    | Question
                    | Operator
                    | OpenTemplate
            )
        ),
        (Bang, _) => false,
        (OpenBrace, CloseBrace) => false,
        (OpenBrace, _) | (_, CloseBrace) => true,
        (OpenBracket | OpenParen, _) | (_, CloseBracket | CloseParen) => false,
        _ => true,
    }
}

fn inside_template_edge(subject: &Token<'_>, after: &Token<'_>) -> bool {
    subject.kind == Kind::OpenTemplate || after.kind == Kind::CloseTemplate
}

fn lines(tokens: Vec<Token<'_>>) -> Vec<Line<'_>> {
    let mut out: Vec<Line<'_>> = vec![Line::default()];
    let mut in_heredoc = false;
    for token in tokens {
        match token.kind {
            Kind::OpenHeredoc => in_heredoc = true,
            Kind::CloseHeredoc => in_heredoc = false,
            _ => {}
        }
        // A heredoc belongs to the line that it begins on, up to the end of its last line.
        let ends = ends_line(&token) && !in_heredoc;
        if let Some(line) = out.last_mut() {
            line.lead.push(token);
        }
        if ends {
            out.push(Line::default());
        }
    }
    for line in &mut out {
        if line.lead.len() > 1 && line.lead.last().is_some_and(|token| token.kind == Kind::Comment) {
            line.comment = line.lead.split_off(line.lead.len() - 1);
        }
        let equal = line.lead.iter().position(|token| token.kind == Kind::Equal).filter(|at| *at > 0);
        if let Some(at) = equal
            && line.lead[at..].iter().map(Token::bracket_change).sum::<i32>() == 0
        {
            line.assign = line.lead.split_off(at);
        }
    }
    out
}

/// Sets the blanks before the first token of every line. All brackets that a line opens count as one level.
fn indent(lines: &mut [Line<'_>]) {
    let mut levels: Vec<i32> = Vec::new();
    for line in lines.iter_mut() {
        let change: i32 = line.lead.iter().chain(&line.assign).map(Token::bracket_change).sum();
        if change < 0 {
            let mut closed = -change;
            while closed > 0 {
                let Some(last) = levels.last_mut() else { break };
                if *last > closed {
                    *last -= closed;
                    break;
                }
                closed -= *last;
                levels.pop();
            }
        }
        if let Some(first) = line.lead.first_mut()
            && first.kind != Kind::Newline
        {
            first.spaces = INDENT * levels.len();
        }
        if change > 0 {
            levels.push(change);
        }
    }
}

impl<'a> Line<'a> {
    fn part(&self, part: Part) -> &[Token<'a>] {
        match part {
            Part::Assign => &self.assign,
            Part::Comment => &self.comment,
        }
    }

    /// The columns before a part.
    fn columns(&self, part: Part) -> usize {
        match part {
            Part::Assign => width(&self.lead),
            Part::Comment => width(&self.lead) + width(&self.assign),
        }
    }
}

/// Puts the parts of neighbouring lines below each other, one blank after the longest of what stands before them.
fn align(lines: &mut [Line<'_>], part: Part) {
    let mut start = 0;
    while start < lines.len() {
        let length = lines[start..].iter().take_while(|line| !line.part(part).is_empty()).count();
        let chain = &mut lines[start..start + length];
        let widest = chain.iter().map(|line| line.columns(part)).max().unwrap_or(0);
        for line in chain {
            let spaces = widest - line.columns(part) + 1;
            let tokens = match part {
                Part::Assign => &mut line.assign,
                Part::Comment => &mut line.comment,
            };
            if let Some(first) = tokens.first_mut() {
                first.spaces = spaces;
            }
        }
        start += length.max(1);
    }
}
