//! YAML with its places.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_yaml::Location;
use serde_yaml::Spanned;

use super::tree::Entry;
use super::tree::Kind;
use super::tree::Tree;

/// The tree of a text that was read with the same `options` already; `None` where it cannot be read again.
pub(in crate::jobspec) fn tree(text: &str, options: serde_yaml::Options) -> Option<Tree> {
    let value: Spanned<Value> = serde_yaml::from_str_with_options(text, options).ok()?;
    Some(tree_of(text, value))
}

fn span(at: Location) -> Range<usize> {
    let number = |value: Option<u64>| value.and_then(|value| usize::try_from(value).ok()).unwrap_or(0);
    let start = number(at.span().byte_offset());
    start..start + number(at.span().byte_len())
}

enum Value {
    Map(Vec<(Spanned<String>, Spanned<Value>)>),
    List(Vec<Spanned<Value>>),
    Text(String),
    Other,
}

fn tree_of(source: &str, value: Spanned<Value>) -> Tree {
    let written_at = span(value.defined).start;
    let is_bare =
        || !source.get(written_at..).is_some_and(|rest| rest.starts_with(['"', '\'', '|', '>', '!', '&']));
    let kind = match value.value {
        Value::Map(pairs) => {
            let entry = |(key, value): (Spanned<String>, Spanned<Value>)| Entry {
                span: span(key.referenced),
                key: key.value,
                value: tree_of(source, value),
            };
            Kind::Object(pairs.into_iter().map(entry).collect())
        }
        Value::List(items) => Kind::Array(items.into_iter().map(|item| tree_of(source, item)).collect()),
        Value::Text(text) if is_bare() => Kind::Bare(text),
        Value::Text(text) => Kind::Text(text),
        Value::Other => Kind::Other,
    };
    // A mapping is where its first key is: its own place is empty.
    let first = match &kind {
        Kind::Object(entries) => entries.first().map(|entry| entry.span.clone()),
        _ => None,
    };
    Tree { span: first.unwrap_or(span(value.referenced)), kind }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Value::Map(pairs))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(Self)
    }
}
