//! Where things stand in a job in the form of the API, in JSON or YAML.

use std::ops::Range;

use crate::jobspec::schema;
use crate::jobspec::schema::Form;

use super::Node;
use super::tree::Entry;
use super::tree::Kind;
use super::tree::Tree;

/// The outline of a job.
pub(super) fn outline(job: &Tree) -> Node {
    match &job.kind {
        Kind::Object(entries) => node("job", None, entries, &schema::JOB, job.span.clone()),
        _ => Node::default(),
    }
}

/// Lists of the API that are written as blocks of another name.
const OTHERWISE: &[(&str, &str)] = &[
    ("ReservedPorts", "port"),
    ("DynamicPorts", "port"),
    ("Identity", "identity"),
    ("Identities", "identity"),
];

fn node(
    name: &str,
    label: Option<String>,
    entries: &[Entry],
    body: &'static schema::Body,
    span: Range<usize>,
) -> Node {
    let mut out = Node { name: name.to_owned(), label, span, ..Node::default() };
    for entry in entries {
        let is_key = |key: &str| key.eq_ignore_ascii_case(&entry.key);
        let whole = entry.span.start..entry.value.span.end;
        if let Some(attribute) = body.attributes.iter().find(|attribute| is_key(attribute.key)) {
            out.attributes.push((attribute.name.to_owned(), whole));
            continue;
        }
        let otherwise = OTHERWISE.iter().find(|(key, _)| is_key(key)).map(|(_, name)| *name);
        let block = body
            .blocks
            .iter()
            .find(|block| otherwise.map_or_else(|| is_key(block.key), |name| block.name == name));
        match block {
            Some(block) => out.blocks.extend(blocks(entry, block)),
            None => {
                out.blocks.extend(free(&entry.key, &entry.value, &entry.span));
                out.attributes.push((entry.key.clone(), whole));
            }
        }
    }
    out
}

/// The blocks that a value stands for.
fn blocks(entry: &Entry, block: &'static schema::Block) -> Vec<Node> {
    let label_key = match block.form {
        Form::Labelled(key) | Form::Keyed(key) => key,
        _ => "Name",
    };
    let one = |entries: &[Entry], span: Range<usize>, label: Option<String>| {
        let own = entries.iter().find(|entry| entry.key.eq_ignore_ascii_case(label_key));
        let own = own.and_then(|entry| entry.value.text()).map(str::to_owned);
        node(block.name, label.or(own), entries, block.body, span)
    };
    match &entry.value.kind {
        Kind::Object(inner) => match block.form {
            Form::Keyed(_) => inner
                .iter()
                .filter_map(|named| match &named.value.kind {
                    Kind::Object(entries) => Some(one(entries, named.span.clone(), Some(named.key.clone()))),
                    _ => None,
                })
                .collect(),
            _ => vec![one(inner, entry.span.clone(), None)],
        },
        Kind::Array(items) => items
            .iter()
            .filter_map(|item| match &item.kind {
                Kind::Object(entries) => Some(one(entries, item.span.start..item.span.start + 1, None)),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Blocks without a schema: driver options.
fn free(name: &str, value: &Tree, span: &Range<usize>) -> Vec<Node> {
    match &value.kind {
        Kind::Object(entries) => {
            vec![node(name, None, entries, &schema::EMPTY, span.clone())]
        }
        Kind::Array(items) => items.iter().flat_map(|item| free(name, item, span)).collect(),
        _ => Vec::new(),
    }
}
