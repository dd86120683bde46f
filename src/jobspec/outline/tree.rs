//! A value of JSON or YAML with the places of everything in it.

use std::ops::Range;

/// A value with its place.
#[derive(Clone, Debug)]
pub(in crate::jobspec) struct Tree {
    pub(super) span: Range<usize>,
    pub(in crate::jobspec) kind: Kind,
}

#[derive(Clone, Debug)]
pub(in crate::jobspec) enum Kind {
    Object(Vec<Entry>),
    Array(Vec<Tree>),
    Text(String),
    /// A text without quotes, in YAML.
    Bare(String),
    Other,
}

#[derive(Clone, Debug)]
pub(in crate::jobspec) struct Entry {
    pub(in crate::jobspec) key: String,
    pub(super) span: Range<usize>,
    pub(in crate::jobspec) value: Tree,
}

impl Tree {
    /// What stands at a key, whatever its case.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        let Kind::Object(entries) = &self.kind else { return None };
        entries.iter().find(|entry| entry.key.eq_ignore_ascii_case(key))
    }

    /// The text that this is.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) | Kind::Bare(text) => Some(text),
            _ => None,
        }
    }

    /// The job of a manifest: what stands below `spec`, with the names from `metadata`.
    pub(in crate::jobspec) fn manifest_job(self) -> Self {
        let names = [("name", "ID"), ("name", "Name"), ("namespace", "Namespace"), ("labels", "Meta")];
        let metadata = self.entry("metadata").map(|entry| &entry.value);
        let named = names.into_iter().filter_map(|(key, own)| {
            let entry = metadata?.entry(key)?;
            Some(Entry { key: own.to_owned(), ..entry.clone() })
        });
        let named: Vec<Entry> = named.collect();
        let mut job = self.below("spec");
        if let Kind::Object(entries) = &mut job.kind {
            entries.extend(named);
        }
        job
    }

    /// The value below one key that holds all the rest (`Job`, `spec`), or this one.
    pub(in crate::jobspec) fn below(self, key: &str) -> Self {
        match self.kind {
            Kind::Object(mut entries) => {
                let at = entries.iter().position(|entry| {
                    entry.key.eq_ignore_ascii_case(key) && matches!(entry.value.kind, Kind::Object(_))
                });
                match at {
                    Some(at) => {
                        let Entry { span, value, .. } = entries.swap_remove(at);
                        // The key says more than the bracket.
                        Self { span, kind: value.kind }
                    }
                    None => Self { kind: Kind::Object(entries), ..self },
                }
            }
            kind => Self { kind, ..self },
        }
    }

    /// The place of the value at a path such as `TaskGroups[0].Count`, or of the innermost value on the way that is
    /// there. What follows `: ` is no part of the path.
    pub(in crate::jobspec) fn place(&self, path: &str) -> Range<usize> {
        let path = path.split(": ").next().unwrap_or_default();
        let (mut here, mut place) = (self, self.span.start..self.span.start + 1);
        for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
            let next =
                match (step.strip_suffix(']').and_then(|index| index.parse::<usize>().ok()), &here.kind) {
                    (Some(index), Kind::Array(items)) => {
                        items.get(index).map(|item| (item, item.span.start..item.span.start + 1))
                    }
                    _ => here.entry(step).map(|entry| (&entry.value, entry.span.clone())),
                };
            let Some(next) = next else { break };
            (here, place) = next;
        }
        // A plain value is shown with its key.
        match here.kind {
            Kind::Text(_) | Kind::Bare(_) | Kind::Other if place.start <= here.span.end => {
                place.start..here.span.end
            }
            _ => place,
        }
    }
}
