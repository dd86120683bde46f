//! Templates: strings and heredocs with `${…}` and `%{…}` in them.

use std::collections::BTreeMap;

use hcl_edit::Span;
use hcl_edit::Spanned;
use hcl_edit::template::Directive;
use hcl_edit::template::Element;
use hcl_edit::template::HeredocTemplate;
use hcl_edit::template::Interpolation;
use hcl_edit::template::Strip;

use super::Evaluated;
use super::Evaluator;
use super::Failure;
use crate::jobspec::value::Value;

/// Texts of literals that differ from what the parser says, by where they start.
type Literals = BTreeMap<usize, String>;

/// Whether the blanks beside a template are taken away.
#[derive(Clone, Copy)]
struct Trim {
    start: bool,
    end: bool,
}

fn strips_before(strip: Strip) -> bool {
    matches!(strip, Strip::Start | Strip::Both)
}

fn strips_after(strip: Strip) -> bool {
    matches!(strip, Strip::End | Strip::Both)
}

/// What an element does to the text before it, and to the text after it.
fn outer_strip(element: &Element) -> (bool, bool) {
    match element {
        Element::Literal(_) => (false, false),
        Element::Interpolation(node) => (strips_before(node.strip), strips_after(node.strip)),
        Element::Directive(node) => match &**node {
            Directive::If(node) => (strips_before(node.if_expr.strip), strips_after(node.endif_expr.strip)),
            Directive::For(node) => {
                (strips_before(node.for_expr.strip), strips_after(node.endfor_expr.strip))
            }
        },
    }
}

impl Evaluator<'_> {
    /// A quoted string. One that is nothing but an interpolation has the value of that, of whatever type.
    pub(super) fn template(&mut self, elements: &[&Element]) -> Evaluated {
        if let [Element::Interpolation(only)] = elements {
            return self.interpolated(only);
        }
        self.text(elements, &Literals::new())
    }

    pub(super) fn heredoc(&mut self, heredoc: &HeredocTemplate) -> Evaluated {
        let elements: Vec<&Element> = heredoc.template.iter().collect();
        let written = heredoc.span().and_then(|span| self.text.get(span)).unwrap_or_default();
        let indented = written.trim_start().starts_with("<<-");
        let literals = if indented { self.dedented(&elements) } else { Literals::new() };
        self.text(&elements, &literals)
    }

    fn text(&mut self, elements: &[&Element], literals: &Literals) -> Evaluated {
        let mut out = String::new();
        self.render(elements, Trim { start: false, end: false }, literals, &mut out)?;
        self.produced(Value::String(out))
    }

    /// `outer`: whether what surrounds the elements takes blanks off their ends.
    fn render(
        &mut self,
        elements: &[&Element],
        outer: Trim,
        literals: &Literals,
        out: &mut String,
    ) -> Result<(), Failure> {
        for (index, element) in elements.iter().enumerate() {
            match element {
                Element::Literal(literal) => {
                    let trim = trim_of(elements, index, outer);
                    let start = literal.span().map(|span| span.start);
                    match start.and_then(|start| literals.get(&start)) {
                        Some(prepared) => out.push_str(prepared),
                        None => out.push_str(trimmed(literal.value(), trim)),
                    }
                }
                Element::Interpolation(node) => self.interpolation(node, out)?,
                Element::Directive(node) => self.directive(node, literals, out)?,
            }
        }
        Ok(())
    }

    /// The value between the braces. A name of the run time stays as it is written, with the blanks around it.
    fn interpolated(&mut self, node: &Interpolation) -> Evaluated {
        let value = self.expression(&node.expr)?;
        let Some(span) = node.expr.span() else { return Ok(value) };
        let (Some(before), Some(name), Some(after)) =
            (self.text.get(..span.start), self.text.get(span.clone()), self.text.get(span.end..))
        else {
            return Ok(value);
        };
        let name = name.trim();
        let lead = &before[before.trim_end().len()..];
        let tail = &after[..after.len() - after.trim_start().len()];
        let is_whole = before.trim_end().ends_with("${") && after.trim_start().starts_with('}');
        let stays = value.as_str().is_some_and(|text| text == format!("${{{name}}}"));
        if stays && is_whole && !(lead.is_empty() && tail.is_empty()) {
            return Ok(Value::String(format!("${{{lead}{name}{tail}}}")));
        }
        Ok(value)
    }

    fn interpolation(&mut self, node: &Interpolation, out: &mut String) -> Result<(), Failure> {
        let value = self.interpolated(node)?;
        if let Some(text) = value.to_text() {
            out.push_str(&text);
            return Ok(());
        }
        let detail = if value.is_null() {
            "The expression result is null. Cannot include a null value in a string template."
        } else {
            "Cannot include the given value in a string template: string required."
        };
        Err(Failure::new("Invalid template interpolation value", detail).at(&node.expr))
    }

    fn directive(&mut self, node: &Directive, literals: &Literals, out: &mut String) -> Result<(), Failure> {
        let mut bodies = bodies(node);
        match node {
            Directive::If(node) => {
                let index = usize::from(!self.condition(&node.if_expr.cond_expr)?);
                if index < bodies.len() {
                    let (body, trim) = bodies.swap_remove(index);
                    self.render(&body, trim, literals, out)?;
                }
                Ok(())
            }
            Directive::For(node) => {
                let elements = self.elements(&node.for_expr.collection_expr)?;
                let key = node.for_expr.key_var.as_ref().map(|name| name.as_str());
                let names = (key, node.for_expr.value_var.as_str());
                self.each(elements, names, |this| {
                    let before = out.len();
                    for (body, trim) in &bodies {
                        this.render(body, *trim, literals, out)?;
                    }
                    this.charge(out.len() - before)
                })
            }
        }
    }

    /// The literals of an indented heredoc as they come out: without what strip markers take away, and without the
    /// blanks that all lines begin with. The parser takes those off as well, but from each literal by itself.
    fn dedented(&self, elements: &[&Element]) -> Literals {
        let mut parts = Vec::new();
        flatten(elements, Trim { start: false, end: false }, &mut parts);
        let texts: Vec<Option<(usize, String)>> = parts
            .iter()
            .map(|part| {
                let (literal, trim) = part.as_ref()?;
                let span = literal.span()?;
                let raw = self.text.get(span.clone())?.replace("$${", "${").replace("%%{", "%{");
                Some((span.start, trimmed(&raw, *trim).to_owned()))
            })
            .collect();
        let mut least = usize::MAX;
        let mut at_start = true;
        for text in &texts {
            let Some((_, text)) = text else {
                if at_start {
                    least = 0;
                }
                at_start = false;
                continue;
            };
            for line in text.split_inclusive('\n') {
                if at_start && !is_blank(line) {
                    least = least.min(indent_of(line));
                }
                at_start = line.ends_with('\n');
            }
        }
        let mut out = Literals::new();
        let mut at_start = true;
        for text in texts {
            let Some((start, text)) = text else {
                at_start = false;
                continue;
            };
            let mut kept = String::with_capacity(text.len());
            for line in text.split_inclusive('\n') {
                let skip = if at_start && !is_blank(line) { least } else { 0 };
                kept.extend(line.chars().skip(skip));
                at_start = line.ends_with('\n');
            }
            out.insert(start, kept);
        }
        out
    }
}

/// What the neighbours of an element take off a literal.
fn trim_of(elements: &[&Element], index: usize, outer: Trim) -> Trim {
    let before = index.checked_sub(1).and_then(|index| elements.get(index));
    let after = elements.get(index + 1);
    Trim {
        start: before.map_or(outer.start, |element| outer_strip(element).1),
        end: after.map_or(outer.end, |element| outer_strip(element).0),
    }
}

/// A line of nothing but blanks, with its line break: it says nothing about indentation.
fn is_blank(line: &str) -> bool {
    line.ends_with('\n') && line.trim().is_empty()
}

fn indent_of(line: &str) -> usize {
    line.chars().take_while(|c| c.is_whitespace()).count()
}

/// All literals in the order of the text, with what is taken off them; `None` stands for something else between them.
fn flatten<'a>(elements: &[&'a Element], outer: Trim, out: &mut Vec<Option<(&'a Spanned<String>, Trim)>>) {
    for (index, element) in elements.iter().enumerate() {
        match element {
            Element::Literal(literal) => out.push(Some((literal, trim_of(elements, index, outer)))),
            Element::Interpolation(_) => out.push(None),
            Element::Directive(node) => {
                out.push(None);
                for (inner, trim) in bodies(node) {
                    flatten(&inner, trim, out);
                    out.push(None);
                }
            }
        }
    }
}

/// The templates within a directive, and what is taken off their ends.
fn bodies(node: &Directive) -> Vec<(Vec<&Element>, Trim)> {
    match node {
        Directive::If(node) => {
            let closing = node.endif_expr.strip;
            let next = node.else_expr.as_ref().map_or(closing, |second| second.strip);
            let trim = Trim { start: strips_after(node.if_expr.strip), end: strips_before(next) };
            let mut out = vec![(node.if_expr.template.iter().collect(), trim)];
            if let Some(second) = &node.else_expr {
                let trim = Trim { start: strips_after(second.strip), end: strips_before(closing) };
                out.push((second.template.iter().collect(), trim));
            }
            out
        }
        Directive::For(node) => {
            let (opening, closing) = (node.for_expr.strip, node.endfor_expr.strip);
            let trim = Trim { start: strips_after(opening), end: strips_before(closing) };
            vec![(node.for_expr.template.iter().collect(), trim)]
        }
    }
}

/// A strip marker takes blanks up to the end of the line after it, and up to the start of the line before it.
fn trimmed(text: &str, trim: Trim) -> &str {
    let mut text = text;
    if trim.start {
        let line = text.find('\n').map_or(text.len(), |newline| newline + 1);
        let blanks = line - text[..line].trim_start().len();
        text = &text[blanks..];
    }
    if trim.end {
        let body = text.strip_suffix('\n').unwrap_or(text);
        let line = body.rfind('\n').map_or(0, |newline| newline + 1);
        text = &text[..line + text[line..].trim_end().len()];
    }
    text
}
