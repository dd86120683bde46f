//! The corpus of job files uses everything that the schema knows.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use hcl_edit::structure::Structure;

use super::*;
use crate::jobspec::syntax;

/// A name of a body: bodies are told apart by where they are.
type Use = (usize, &'static str);

fn id(body: &'static Body) -> usize {
    std::ptr::from_ref(body) as usize
}

/// Notes what a body of a file uses of its schema.
fn uses(body: &hcl_edit::structure::Body, schema: &'static Body, seen: &mut BTreeSet<Use>) {
    for structure in body {
        let (name, inner) = match structure {
            Structure::Attribute(attribute) => (attribute.key.as_str(), None),
            Structure::Block(block) if block.ident.as_str() == "dynamic" => {
                let label = block.labels.first().map(|label| label.as_str()).unwrap_or_default();
                (label, block.body.get_blocks("content").next().map(|content| &content.body))
            }
            Structure::Block(block) => (block.ident.as_str(), Some(&block.body)),
        };
        if let Some(attribute) = schema.attributes.iter().find(|attribute| attribute.name == name) {
            seen.insert((id(schema), attribute.name));
        }
        if let Some(block) = schema.blocks.iter().find(|block| block.name == name) {
            seen.insert((id(schema), block.name));
            if let Some(inner) = inner {
                uses(inner, block.body, seen);
            }
        }
    }
}

/// Everything below a body, with a path to name it by.
fn all(schema: &'static Body, path: &str, out: &mut BTreeMap<Use, String>) {
    let names = schema.attributes.iter().map(|attribute| attribute.name);
    for name in names.chain(schema.blocks.iter().map(|block| block.name)) {
        out.entry((id(schema), name)).or_insert_with(|| format!("{path}.{name}"));
    }
    for block in schema.blocks {
        let known = block.body.attributes.first().map(|attribute| attribute.name);
        let known = known.or_else(|| block.body.blocks.first().map(|block| block.name));
        if known.is_some_and(|name| !out.contains_key(&(id(block.body), name))) {
            all(block.body, &format!("{path}.{}", block.name), out);
        }
    }
}

#[test]
fn the_corpus_uses_every_block_and_attribute() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jobspec/corpus");
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("the corpus") {
        let path = entry.expect("an entry").path();
        if !path.to_string_lossy().ends_with(".nomad.hcl") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("text");
        let file = syntax::parse("file", &text).unwrap_or_else(|problems| panic!("{path:?}: {problems}"));
        for job in file.body.get_blocks("job") {
            uses(&job.body, &JOB, &mut seen);
        }
    }
    let mut wanted = BTreeMap::new();
    all(&JOB, "job", &mut wanted);
    let missing: Vec<&String> =
        wanted.iter().filter(|(key, _)| !seen.contains(*key)).map(|(_, path)| path).collect();
    assert!(missing.is_empty(), "in no file: {missing:?}");
    assert!(wanted.len() > 250, "only {} names", wanted.len());
}
