//! Where things stand in a job file that is HCL in JSON syntax.

use std::ops::Range;

use crate::jobspec::schema;
use crate::jobspec::schema::Form;

use super::Node;
use super::tree::Entry;
use super::tree::Kind;
use super::tree::Tree;

/// The outline of a whole file.
pub(super) fn outline(file: &Tree) -> Node {
    let start = file.span.start;
    match &file.kind {
        Kind::Object(entries) => node("file", None, entries, &schema::FILE, start..start + 1),
        _ => Node::default(),
    }
}

fn node(
    name: &str,
    label: Option<String>,
    entries: &[Entry],
    body: &'static schema::Body,
    span: Range<usize>,
) -> Node {
    let mut out = Node { name: name.to_owned(), label, span, ..Node::default() };
    for entry in entries {
        if let Some(block) = body.blocks.iter().find(|block| block.name == entry.key) {
            blocks(&mut out.blocks, entry, block);
        } else if entry.key == "dynamic" {
            dynamic(&mut out.blocks, entry, body);
        } else {
            free(&mut out.blocks, entry);
        }
        out.attributes.push((entry.key.clone(), entry.span.start..entry.value.span.end));
    }
    out
}

/// A value, or each value of a list.
fn each(value: &Tree) -> Vec<&Tree> {
    match &value.kind {
        Kind::Array(items) => items.iter().collect(),
        _ => vec![value],
    }
}

/// The blocks that a value stands for: below their labels, where they have some.
fn blocks(out: &mut Vec<Node>, entry: &Entry, block: &'static schema::Block) {
    let labelled = matches!(block.form, Form::Labelled(_) | Form::Keyed(_));
    for item in each(&entry.value) {
        let Kind::Object(inner) = &item.kind else { continue };
        if !labelled {
            out.push(node(block.name, written_name(item), inner, block.body, entry.span.clone()));
            continue;
        }
        for named in inner {
            for body in each(&named.value) {
                let Kind::Object(entries) = &body.kind else { continue };
                let label = Some(named.key.clone());
                out.push(node(block.name, label, entries, block.body, named.span.clone()));
            }
        }
    }
}

/// One block of each kind that stands for any number of them.
fn dynamic(out: &mut Vec<Node>, entry: &Entry, body: &'static schema::Body) {
    let Kind::Object(kinds) = &entry.value.kind else { return };
    for kind in kinds {
        let Some(block) = body.blocks.iter().find(|block| block.name == kind.key) else { continue };
        for made in each(&kind.value) {
            let content = made.entry("content").map(|content| &content.value.kind);
            let entries: &[Entry] = match content {
                Some(Kind::Object(entries)) => entries,
                _ => &[],
            };
            let node = node(block.name, None, entries, block.body, kind.span.clone());
            out.push(Node { is_dynamic: true, ..node });
        }
    }
}

/// Blocks without a schema: driver options.
fn free(out: &mut Vec<Node>, entry: &Entry) {
    for item in each(&entry.value) {
        if let Kind::Object(inner) = &item.kind {
            out.push(node(&entry.key, None, inner, &schema::EMPTY, entry.span.clone()));
        }
    }
}

/// The name that a block without a label gives itself.
fn written_name(block: &Tree) -> Option<String> {
    block.entry("name")?.value.text().map(str::to_owned)
}
