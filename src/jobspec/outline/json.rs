//! Where things stand in a job in the JSON of the API.

use std::ops::Range;

use crate::jobspec::schema;
use crate::jobspec::schema::Form;

use super::Node;

/// A JSON value with its place.
struct Tree {
    span: Range<usize>,
    kind: Kind,
}

enum Kind {
    Object(Vec<Entry>),
    Array(Vec<Tree>),
    Text(String),
    Other,
}

struct Entry {
    key: String,
    span: Range<usize>,
    value: Tree,
}

/// The outline of a text that is valid JSON; of any other text as far as it goes.
pub(super) fn outline(text: &str) -> Node {
    let mut scanner = Scanner { text, at: 0 };
    let Tree { kind: Kind::Object(entries), span } = scanner.value() else { return Node::default() };
    let wrapped = entries.iter().find(|entry| entry.key.eq_ignore_ascii_case("job"));
    let whole = span.start..span.start + 1;
    match wrapped {
        Some(Entry { value: Tree { kind: Kind::Object(inner), .. }, span, .. }) => {
            node("job", None, inner, &schema::JOB, span.clone())
        }
        _ => node("job", None, &entries, &schema::JOB, whole),
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
        let own = own.and_then(|entry| match &entry.value.kind {
            Kind::Text(text) => Some(text.clone()),
            _ => None,
        });
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

/// Reads JSON that another reader has accepted already, for the sake of the places.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl Scanner<'_> {
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while bytes
            .get(self.at)
            .is_some_and(|byte| byte.is_ascii_whitespace() || *byte == b',' || *byte == b':')
        {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn value(&mut self) -> Tree {
        let first = self.peek();
        let start = self.at;
        let kind = match first {
            Some(b'{') => {
                self.at += 1;
                Kind::Object(self.entries())
            }
            Some(b'[') => {
                self.at += 1;
                Kind::Array(self.items())
            }
            Some(b'"') => Kind::Text(self.string()),
            _ => {
                let rest = &self.text[self.at..];
                let end = rest.find(|c: char| matches!(c, ',' | '}' | ']') || c.is_whitespace());
                let least = rest.chars().next().map_or(0, char::len_utf8);
                self.at += end.unwrap_or(rest.len()).max(least);
                Kind::Other
            }
        };
        Tree { span: start..self.at, kind }
    }

    fn entries(&mut self) -> Vec<Entry> {
        let mut out = Vec::new();
        while self.peek() == Some(b'"') {
            let start = self.at;
            let key = self.string();
            let span = start..self.at;
            out.push(Entry { key, span, value: self.value() });
        }
        self.close();
        out
    }

    fn items(&mut self) -> Vec<Tree> {
        let mut out = Vec::new();
        while !matches!(self.peek(), None | Some(b']' | b'}')) {
            out.push(self.value());
        }
        self.close();
        out
    }

    fn close(&mut self) {
        if self.peek().is_some() {
            self.at += 1;
        }
    }

    /// The text between the quote here and the next one that is not escaped.
    fn string(&mut self) -> String {
        let start = self.at;
        let mut escaped = true;
        let inside = self.text[start..].char_indices().find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        self.at = inside.map_or(self.text.len(), |(offset, _)| start + offset + 1);
        let written = &self.text[start..self.at];
        serde_json::from_str(written).unwrap_or_else(|_| written.trim_matches('"').to_owned())
    }
}
