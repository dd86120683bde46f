//! Applies a plugin's schema to a configuration: checks it, converts it, fills in defaults.

use std::collections::BTreeSet;

use hcl::Expression;
use hcl::eval::Context;
use hcl::eval::Evaluate;
use serde_json::Map;
use serde_json::Value;

use super::proto::hashicorp::nomad::plugins::shared::hclspec::Spec;
use super::proto::hashicorp::nomad::plugins::shared::hclspec::spec::Kind;
use super::types::Type;

type Body = Map<String, Value>;

/// The configuration as the plugin wants it.
///
/// # Errors
/// Every problem, in the words of job files.
pub fn apply(spec: &Spec, body: &Body) -> Result<Value, Vec<String>> {
    let mut reader = Reader::default();
    let value = reader.level(spec, body, "");
    if reader.problems.is_empty() { Ok(value) } else { Err(reader.problems) }
}

#[derive(Default)]
struct Reader {
    problems: Vec<String>,
}

impl Reader {
    /// A whole body: everything in it must be expected.
    fn level(&mut self, spec: &Spec, body: &Body, path: &str) -> Value {
        let mut expected = BTreeSet::new();
        expected_names(spec, "", &mut expected);
        for name in body.keys().filter(|name| !expected.contains(name.as_str())) {
            self.problem(path, format!("An argument named {name:?} is not expected here."));
        }
        self.read(spec, "", body, path)
    }

    fn problem(&mut self, path: &str, text: String) {
        let place = path.trim_end_matches('.');
        self.problems.push(if place.is_empty() { text } else { format!("{place}: {text}") });
    }

    /// `label` is the name of a value whose specification does not say one.
    fn read(&mut self, spec: &Spec, label: &str, body: &Body, path: &str) -> Value {
        let Some(kind) = &spec.kind else { return Value::Null };
        match kind {
            Kind::Object(object) => {
                let fields = object.attributes.iter();
                Value::Object(
                    fields.map(|(name, spec)| (name.clone(), self.read(spec, name, body, path))).collect(),
                )
            }
            Kind::Array(array) => {
                Value::Array(array.values.iter().map(|spec| self.read(spec, "", body, path)).collect())
            }
            Kind::Attr(attr) => {
                self.attribute(named(&attr.name, label), &attr.r#type, attr.required, body, path)
            }
            Kind::Block(block) => {
                let name = named(&block.name, label);
                match self.single(name, block.required, body, path) {
                    Some(inner) => self.nested(block.nested.as_deref(), inner, &format!("{path}{name}.")),
                    None => Value::Null,
                }
            }
            Kind::BlockAttrs(block) => {
                let name = named(&block.name, label);
                let Some(inner) = self.single(name, block.required, body, path) else { return Value::Null };
                let inner = Value::Object(inner.clone());
                self.convert(&format!("map({})", block.r#type), &inner, name, path)
            }
            Kind::BlockList(list) => {
                let name = named(&list.name, label);
                let limits = (list.min_items, list.max_items);
                Value::Array(self.several(name, limits, list.nested.as_deref(), body, path))
            }
            Kind::BlockSet(set) => {
                let name = named(&set.name, label);
                let limits = (set.min_items, set.max_items);
                let mut items: Vec<Value> = Vec::new();
                for item in self.several(name, limits, set.nested.as_deref(), body, path) {
                    if !items.contains(&item) {
                        items.push(item);
                    }
                }
                Value::Array(items)
            }
            Kind::BlockMap(map) => {
                let name = named(&map.name, label);
                let depth = map.labels.len().max(1);
                let blocks = self.blocks(name, body, path);
                let path = format!("{path}{name}.");
                Value::Object(self.labelled(&blocks, depth, map.nested.as_deref(), &path))
            }
            Kind::Fallback(fallback) => {
                let primary = fallback.primary.as_deref().map(|spec| self.read(spec, label, body, path));
                match primary.unwrap_or_default() {
                    Value::Null => fallback
                        .otherwise
                        .as_deref()
                        .map(|spec| self.read(spec, label, body, path))
                        .unwrap_or_default(),
                    value => value,
                }
            }
            Kind::Literal(literal) => self.literal(&literal.value, path),
        }
    }

    fn nested(&mut self, spec: Option<&Spec>, body: &Body, path: &str) -> Value {
        spec.map(|spec| self.level(spec, body, path)).unwrap_or_default()
    }

    fn attribute(&mut self, name: &str, expression: &str, required: bool, body: &Body, path: &str) -> Value {
        match body.get(name) {
            None | Some(Value::Null) => {
                if required {
                    let text = format!("The argument {name:?} is required, but no definition was found.");
                    self.problem(path, text);
                }
                Value::Null
            }
            Some(value) => self.convert(expression, value, name, path),
        }
    }

    fn convert(&mut self, expression: &str, value: &Value, name: &str, path: &str) -> Value {
        match expression.parse::<Type>().and_then(|wanted| wanted.convert(value)) {
            Ok(value) => value,
            Err(error) => {
                self.problem(path, format!("Inappropriate value for attribute {name:?}: {error}."));
                Value::Null
            }
        }
    }

    /// The blocks of a name: job files have them as a list, agent configurations a single one as it is.
    fn blocks<'a>(&mut self, name: &str, body: &'a Body, path: &str) -> Vec<&'a Body> {
        let items = match body.get(name) {
            None | Some(Value::Null) => return Vec::new(),
            Some(Value::Array(items)) => items.iter().collect(),
            Some(single) => vec![single],
        };
        let blocks: Vec<_> = items.iter().filter_map(|item| item.as_object()).collect();
        if blocks.len() < items.len() {
            self.problem(path, format!("The argument {name:?} must be a block."));
        }
        blocks
    }

    fn single<'a>(&mut self, name: &str, required: bool, body: &'a Body, path: &str) -> Option<&'a Body> {
        let blocks = self.blocks(name, body, path);
        if blocks.len() > 1 {
            self.problem(path, format!("No more than one {name:?} block is allowed."));
        }
        if blocks.is_empty() && required {
            self.problem(path, format!("A block of type {name:?} is required here."));
        }
        blocks.first().copied()
    }

    fn several(
        &mut self,
        name: &str,
        (least, most): (u64, u64),
        nested: Option<&Spec>,
        body: &Body,
        path: &str,
    ) -> Vec<Value> {
        let blocks = self.blocks(name, body, path);
        let count = blocks.len() as u64;
        if count < least {
            self.problem(path, format!("At least {least} {name:?} blocks are required."));
        }
        if most > 0 && count > most {
            self.problem(path, format!("No more than {most} {name:?} blocks are allowed."));
        }
        let one =
            |(index, block): (usize, &&Body)| self.nested(nested, block, &format!("{path}{name}[{index}]."));
        blocks.iter().enumerate().map(one).collect()
    }

    /// Blocks with `depth` labels: every label is a level of maps.
    fn labelled(&mut self, blocks: &[&Body], depth: usize, nested: Option<&Spec>, path: &str) -> Body {
        let mut found = Body::new();
        for block in blocks {
            for label in block.keys() {
                let inner = self.blocks(label, block, path);
                let place = format!("{path}{label}.");
                if depth > 1 {
                    let mut more = self.labelled(&inner, depth - 1, nested, &place);
                    if let Some(Value::Object(known)) = found.get_mut(label) {
                        known.append(&mut more);
                    } else {
                        found.insert(label.clone(), Value::Object(more));
                    }
                } else if inner.len() != 1 || found.contains_key(label) {
                    self.problem(path, format!("There must be exactly one block with the label {label:?}."));
                } else {
                    let value = self.nested(nested, inner[0], &place);
                    found.insert(label.clone(), value);
                }
            }
        }
        found
    }

    fn literal(&mut self, text: &str, path: &str) -> Value {
        let parsed = text.parse::<Expression>().ok();
        let value = parsed.and_then(|parsed| parsed.evaluate(&Context::new()).ok());
        match value.and_then(|value| serde_json::to_value(value).ok()) {
            Some(value) => value,
            None => {
                self.problem(
                    path,
                    format!("the plugin's schema has the value {text:?}, which cannot be read"),
                );
                Value::Null
            }
        }
    }
}

fn named<'a>(name: &'a str, label: &'a str) -> &'a str {
    if name.is_empty() { label } else { name }
}

/// The names that a specification reads from one body.
fn expected_names<'a>(spec: &'a Spec, label: &'a str, names: &mut BTreeSet<&'a str>) {
    let Some(kind) = &spec.kind else { return };
    let name = match kind {
        Kind::Object(object) => {
            object.attributes.iter().for_each(|(name, spec)| expected_names(spec, name, names));
            return;
        }
        Kind::Array(array) => {
            array.values.iter().for_each(|spec| expected_names(spec, "", names));
            return;
        }
        Kind::Fallback(fallback) => {
            let both = [&fallback.primary, &fallback.otherwise];
            both.into_iter().flatten().for_each(|spec| expected_names(spec, label, names));
            return;
        }
        Kind::Literal(_) => return,
        Kind::Attr(one) => &one.name,
        Kind::Block(one) => &one.name,
        Kind::BlockAttrs(one) => &one.name,
        Kind::BlockList(one) => &one.name,
        Kind::BlockSet(one) => &one.name,
        Kind::BlockMap(one) => &one.name,
    };
    names.insert(named(name, label));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::drivers::plugin::proto::hashicorp::nomad::plugins::shared::hclspec::Array;
    use crate::drivers::plugin::proto::hashicorp::nomad::plugins::shared::hclspec::Attr;
    use crate::drivers::plugin::proto::hashicorp::nomad::plugins::shared::hclspec::Block;
    use crate::drivers::plugin::proto::hashicorp::nomad::plugins::shared::hclspec::BlockAttrs;
    use crate::drivers::plugin::proto::hashicorp::nomad::plugins::shared::hclspec::BlockList;
    use crate::drivers::plugin::proto::hashicorp::nomad::plugins::shared::hclspec::BlockMap;
    use crate::drivers::plugin::proto::hashicorp::nomad::plugins::shared::hclspec::BlockSet;
    use crate::drivers::plugin::proto::hashicorp::nomad::plugins::shared::hclspec::Fallback;
    use crate::drivers::plugin::proto::hashicorp::nomad::plugins::shared::hclspec::Literal;
    use crate::drivers::plugin::proto::hashicorp::nomad::plugins::shared::hclspec::Object;

    fn spec(kind: Kind) -> Spec {
        Spec { kind: Some(kind) }
    }

    fn boxed(kind: Kind) -> Option<Box<Spec>> {
        Some(Box::new(spec(kind)))
    }

    fn attr(name: &str, kind: &str, required: bool) -> Kind {
        Kind::Attr(Attr { name: name.into(), r#type: kind.into(), required })
    }

    fn object(fields: Vec<(&str, Kind)>) -> Kind {
        let attributes: BTreeMap<_, _> =
            fields.into_iter().map(|(name, kind)| (name.to_owned(), spec(kind))).collect();
        Kind::Object(Object { attributes })
    }

    fn or(primary: Kind, value: &str) -> Kind {
        let otherwise = boxed(Kind::Literal(Literal { value: value.into() }));
        Kind::Fallback(Box::new(Fallback { primary: boxed(primary), otherwise }))
    }

    fn everything() -> Spec {
        let mount = || {
            boxed(object(vec![("target", attr("target", "string", true)), ("ro", attr("ro", "bool", false))]))
        };
        spec(object(vec![
            ("image", attr("image", "string", true)),
            ("ports", attr("", "list(string)", false)),
            ("port_map", attr("port_map", "list(map(number))", false)),
            ("period", or(attr("period", "string", false), "\"5m\"")),
            ("flags", or(attr("flags", "list(string)", false), "[\"a\", \"b\"]")),
            ("gc", Kind::Block(Box::new(Block { name: "gc".into(), required: false, nested: mount() }))),
            (
                "env",
                Kind::BlockAttrs(BlockAttrs { name: "env".into(), r#type: "string".into(), required: false }),
            ),
            (
                "mount",
                Kind::BlockList(Box::new(BlockList {
                    name: "mount".into(),
                    min_items: 0,
                    max_items: 2,
                    nested: mount(),
                })),
            ),
            (
                "dev",
                Kind::BlockSet(Box::new(BlockSet {
                    name: "dev".into(),
                    min_items: 0,
                    max_items: 0,
                    nested: mount(),
                })),
            ),
            (
                "vol",
                Kind::BlockMap(Box::new(BlockMap {
                    name: "vol".into(),
                    labels: vec!["name".into()],
                    nested: mount(),
                })),
            ),
            (
                "pair",
                Kind::Array(Array {
                    values: vec![spec(attr("first", "string", false)), spec(attr("second", "number", false))],
                }),
            ),
        ]))
    }

    fn applied(body: Value) -> Result<Value, Vec<String>> {
        apply(&everything(), body.as_object().unwrap())
    }

    #[test]
    fn every_kind_of_specification_is_applied() {
        let value = applied(json!({
            "image": "nginx", "ports": ["http"], "port_map": [{"http": "80"}],
            "gc": [{"target": "/x"}], "env": [{"A": 1}],
            "mount": [{"target": "/a", "ro": "true"}, {"target": "/b"}],
            "dev": [{"target": "/d"}, {"target": "/d"}],
            "vol": [{"data": [{"target": "/v"}]}, {"logs": [{"target": "/l"}]}],
            "second": "7",
        }));
        let wanted = json!({
            "image": "nginx", "ports": ["http"], "port_map": [{"http": 80}], "period": "5m", "flags": ["a", "b"],
            "gc": {"target": "/x", "ro": null}, "env": {"A": "1"},
            "mount": [{"target": "/a", "ro": true}, {"target": "/b", "ro": null}],
            "dev": [{"target": "/d", "ro": null}],
            "vol": {"data": {"target": "/v", "ro": null}, "logs": {"target": "/l", "ro": null}},
            "pair": [null, 7],
        });
        assert_eq!(value.unwrap(), wanted);
    }

    #[test]
    fn what_is_absent_is_null_or_its_default() {
        let value = applied(json!({"image": "nginx", "gc": {"target": "/once"}})).unwrap();
        assert_eq!(value["period"], "5m");
        assert_eq!(value["gc"]["target"], "/once");
        assert_eq!((&value["env"], &value["mount"], &value["vol"]), (&Value::Null, &json!([]), &json!({})));
    }

    #[test]
    fn every_problem_is_told_with_its_place() {
        let problems = applied(json!({
            "imagee": "x", "ports": "http", "gc": [{"target": "/a"}, {"target": "/b"}],
            "mount": [{"target": "/a"}, {}, {"target": "/c", "size": 1}], "env": "A",
            "vol": [{"data": [{"target": "/v"}]}, {"data": [{"target": "/w"}]}],
        }))
        .unwrap_err();
        for text in [
            "An argument named \"imagee\" is not expected here.",
            "The argument \"image\" is required, but no definition was found.",
            "Inappropriate value for attribute \"ports\": list of string required.",
            "No more than one \"gc\" block is allowed.",
            "No more than 2 \"mount\" blocks are allowed.",
            "mount[1]: The argument \"target\" is required, but no definition was found.",
            "mount[2]: An argument named \"size\" is not expected here.",
            "The argument \"env\" must be a block.",
            "vol: There must be exactly one block with the label \"data\".",
        ] {
            assert!(problems.iter().any(|problem| problem == text), "{text}: {problems:#?}");
        }
        assert_eq!(problems.len(), 9);
    }
}
