//! Walks a syntax tree along the schema and builds the job's JSON. Collects every problem instead of stopping at one.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use hcl_edit::Span;
use hcl_edit::expr::Expression;
use hcl_edit::expr::ObjectKey;
use hcl_edit::structure::Attribute;
use hcl_edit::structure::Block;
use hcl_edit::structure::Body;
use hcl_edit::structure::Structure;
use serde_json::Map;
use serde_json::Value;

use super::diagnostic::Diagnostic;
use super::diagnostic::Diagnostics;
use super::diagnostic::SourceText;
use super::eval::Scope;
use super::eval::pairs;
use super::hcl1::Translation;
use super::outline::Outline;
use super::schema;
use super::schema::Form;
use super::schema::Kind;
use super::suggest::did_you_mean;
use super::validate::Pick;
use super::validate::Step;
use super::value::Value as Evaluated;
use super::values;

/// Decodes bodies of one file.
pub(super) struct Decoder {
    pub(super) source: Arc<SourceText>,
    pub(super) diagnostics: Diagnostics,
    /// The file is in the older syntax: blocks may be assigned, single texts stand for lists.
    pub(super) tolerant: bool,
    /// The places of a file in JSON syntax, whose body has none. Maps in driver options stay maps there.
    pub(super) json: Option<Outline>,
    /// The way to what is being read.
    pub(super) way: Vec<Step>,
    /// The file was translated from the older syntax: where places of its body are in the file.
    pub(super) translation: Option<Translation>,
    /// Blocks that dynamic blocks made so far.
    pub(super) expanded: usize,
}

/// Nested dynamic blocks multiply; a file that makes more than this is refused.
const MAX_EXPANDED: usize = 50_000;

/// Where blocks of one body were first seen, and whether as attributes, for duplicates.
type Seen = BTreeMap<&'static str, (Range<usize>, bool)>;

impl Decoder {
    /// Decodes `body` along `schema`. `whole` is the place to complain about what is missing.
    pub(super) fn body(
        &mut self,
        body: &Body,
        schema: &'static schema::Body,
        scope: &Scope,
        whole: Range<usize>,
    ) -> Map<String, Value> {
        let mut out = Map::new();
        let mut seen = Seen::new();
        for structure in body {
            match structure {
                Structure::Attribute(attribute) => {
                    self.way.push(Step::Attribute(attribute.key.as_str().to_owned()));
                    self.attribute(&mut out, &mut seen, attribute, schema, scope);
                    self.way.pop();
                }
                Structure::Block(block) => self.block(&mut out, &mut seen, block, schema, scope),
            }
        }
        for attribute in schema.attributes.iter().filter(|attribute| attribute.required) {
            if !out.contains_key(attribute.key) {
                let name = attribute.name;
                let detail = format!("The argument \"{name}\" is required, but no definition was found.");
                self.error(whole.clone(), "Missing required argument", detail);
            }
        }
        if let Some(finish) = schema.finish {
            for (summary, detail) in finish(&mut out) {
                self.error(whole.clone(), &summary, detail);
            }
        }
        out
    }

    fn attribute(
        &mut self,
        out: &mut Map<String, Value>,
        seen: &mut Seen,
        attribute: &Attribute,
        schema: &'static schema::Body,
        scope: &Scope,
    ) {
        let name = attribute.key.as_str();
        if let Some(wanted) = schema.attributes.iter().find(|wanted| wanted.name == name) {
            if let Some(value) = self.typed(&attribute.value, wanted.kind, scope) {
                out.insert(wanted.key.to_owned(), value);
            }
            return;
        }
        let span = attribute.key.span().unwrap_or_default();
        let Some(wanted) = schema.blocks.iter().find(|wanted| wanted.name == name) else {
            self.unknown_attribute(name, span, schema);
            return;
        };
        if wanted.form == Form::TextMap {
            if self.is_repeated(wanted, seen, span, true) {
                return;
            }
            if let Some(value) = self.typed(&attribute.value, Kind::TextMap, scope) {
                out.insert(wanted.key.to_owned(), value);
            }
            return;
        }
        if self.tolerant && self.assigned_block(out, seen, attribute, wanted, scope) {
            return;
        }
        let detail = format!(
            "An argument named \"{name}\" is not expected here. Did you mean to define a block of type \"{name}\"?"
        );
        self.error(span, "Unsupported argument", detail);
    }

    /// `name = { … }`, `name = [{ … }]` and `name = { label = { … } }` of the older syntax.
    fn assigned_block(
        &mut self,
        out: &mut Map<String, Value>,
        seen: &mut Seen,
        attribute: &Attribute,
        wanted: &'static schema::Block,
        scope: &Scope,
    ) -> bool {
        let items: Vec<&Expression> = match &attribute.value {
            Expression::Array(items) => items.iter().collect(),
            single => vec![single],
        };
        let labelled = matches!(wanted.form, Form::Labelled(_) | Form::Keyed(_));
        let mut blocks = Vec::new();
        for item in items {
            let Some(body) = object_body(item) else { return false };
            if labelled {
                for inner in body.attributes() {
                    let Some(body) = object_body(&inner.value) else { return false };
                    let mut block = Block::new(inner.key.clone());
                    block.body = body;
                    block.labels.push(inner.key.as_str().into());
                    blocks.push(block);
                }
            } else {
                let mut block = Block::new(attribute.key.clone());
                block.body = body;
                blocks.push(block);
            }
        }
        for block in &blocks {
            self.known_block(out, seen, block, wanted, scope);
        }
        true
    }

    fn block(
        &mut self,
        out: &mut Map<String, Value>,
        seen: &mut Seen,
        block: &Block,
        schema: &'static schema::Body,
        scope: &Scope,
    ) {
        let name = block.ident.as_str();
        if name == "dynamic" {
            self.dynamic(out, seen, block, schema, scope);
            return;
        }
        match schema.blocks.iter().find(|wanted| wanted.name == name) {
            Some(wanted) => {
                let pick = match block.labels.first() {
                    Some(label) => Pick::Label(label.as_str().to_owned()),
                    None => Pick::Nth(out.get(wanted.key).and_then(Value::as_array).map_or(0, Vec::len)),
                };
                self.way.push(Step::Block(wanted.name, pick));
                self.known_block(out, seen, block, wanted, scope);
                self.way.pop();
            }
            None => self.unknown_block(name, block.ident.span().unwrap_or_default(), schema),
        }
    }

    fn known_block(
        &mut self,
        out: &mut Map<String, Value>,
        seen: &mut Seen,
        block: &Block,
        wanted: &'static schema::Block,
        scope: &Scope,
    ) {
        let span = header_span(block);
        let is_single = !matches!(wanted.form, Form::Many | Form::Labelled(_) | Form::Keyed(_));
        if is_single && self.is_repeated(wanted, seen, span.clone(), false) {
            return;
        }
        let Some(label) = self.label(block, wanted) else { return };
        let key = wanted.key.to_owned();
        let value = match wanted.form {
            Form::TextMap | Form::TextMapBlock => Value::Object(self.text_map(&block.body, scope)),
            Form::TextsMap => Value::Object(self.texts_map(&block.body, scope)),
            Form::Free => Value::Object(self.free(&block.body, scope)),
            Form::One | Form::Many | Form::Labelled(_) | Form::Keyed(_) => {
                Value::Object(self.body(&block.body, wanted.body, scope, span.clone()))
            }
        };
        match (wanted.form, value) {
            (Form::Many, value) => push(out, key, value),
            (Form::Labelled(label_key), Value::Object(mut map)) => {
                map.entry(label_key).or_insert(Value::String(label));
                push(out, key, Value::Object(map));
            }
            (Form::Keyed(label_key), Value::Object(mut map)) => {
                map.insert(label_key.to_owned(), Value::String(label.clone()));
                if let Value::Object(all) = out.entry(key).or_insert_with(|| Value::Object(Map::new()))
                    && all.insert(label.clone(), Value::Object(map)).is_some()
                {
                    let detail = format!("The {} {label:?} was already defined.", wanted.name);
                    self.error(span, &format!("Duplicate {} block", wanted.name), detail);
                }
            }
            // Older files give these maps piece by piece; whatever else comes twice was complained about.
            (Form::TextMap | Form::Free, Value::Object(map)) => {
                if let Value::Object(all) = out.entry(key).or_insert_with(|| Value::Object(Map::new())) {
                    all.extend(map);
                }
            }
            (_, value) => {
                out.insert(key, value);
            }
        }
    }

    /// The label that the form asks for; empty for forms without one. `None` when the labels are wrong.
    pub(super) fn label(&mut self, block: &Block, wanted: &schema::Block) -> Option<String> {
        let count = usize::from(matches!(wanted.form, Form::Labelled(_) | Form::Keyed(_)));
        let name = wanted.name;
        if block.labels.len() < count {
            let summary = format!("Missing name for {name}");
            let detail = format!("All {name} blocks must have 1 labels (name).");
            self.error(header_span(block), &summary, detail);
            return None;
        }
        if let Some(extra) = block.labels.get(count) {
            let detail = if count == 0 {
                format!("No labels are expected for {name} blocks.")
            } else {
                format!("Only 1 labels (name) are expected for {name} blocks.")
            };
            let span = extra.span().unwrap_or_else(|| header_span(block));
            self.error(span, &format!("Extraneous label for {name}"), detail);
            return None;
        }
        Some(block.labels.first().map(|label| label.as_str().to_owned()).unwrap_or_default())
    }

    fn dynamic(
        &mut self,
        out: &mut Map<String, Value>,
        seen: &mut Seen,
        block: &Block,
        schema: &'static schema::Body,
        scope: &Scope,
    ) {
        let span = header_span(block);
        let Some(kind) = block.labels.first().map(|label| label.as_str().to_owned()) else {
            let detail = "A dynamic block needs the type of the blocks to make as its label.";
            self.error(span, "Missing name for dynamic", detail);
            return;
        };
        let Some(wanted) = schema.blocks.iter().find(|wanted| wanted.name == kind) else {
            self.unknown_block(&kind, block.labels[0].span().unwrap_or(span), schema);
            return;
        };
        let Some(for_each) = block.body.get_attribute("for_each") else {
            let detail = "The argument \"for_each\" is required, but no definition was found.";
            self.error(span, "Missing required argument", detail);
            return;
        };
        let Some(content) = block.body.get_blocks("content").next() else {
            let detail = "A dynamic block must have a nested block of type \"content\" to describe its body.";
            self.error(span, "Missing dynamic content block", detail);
            return;
        };
        let iterator = match block.body.get_attribute("iterator").map(|attribute| &attribute.value) {
            None => kind.clone(),
            Some(Expression::Variable(name)) => name.as_str().to_owned(),
            Some(other) => other.as_str().unwrap_or(&kind).to_owned(),
        };
        let Some(collection) = self.evaluate(&for_each.value, scope) else { return };
        let Ok(pairs) = pairs(collection) else {
            let detail = "Cannot use a value of this type in for_each. An iterable collection is required.";
            self.error(expression_span(&for_each.value), "Invalid dynamic for_each value", detail);
            return;
        };
        for (key, value) in pairs {
            self.expanded += 1;
            if self.expanded >= MAX_EXPANDED {
                // Said once; the blocks that follow are passed over.
                if self.expanded == MAX_EXPANDED {
                    let detail = format!("Dynamic blocks make more than {MAX_EXPANDED} blocks.");
                    self.error(expression_span(&for_each.value), "Too many dynamic blocks", detail);
                }
                return;
            }
            let mut inner = scope.clone();
            let symbol = [("key".to_owned(), key), ("value".to_owned(), value)];
            inner.declare(&iterator, Evaluated::Object(symbol.into_iter().collect()));
            let mut made = Block::new(content.ident.clone());
            made.body = content.body.clone();
            if let Some(labels) = block.body.get_attribute("labels")
                && let Some(labels) = self.typed(&labels.value, Kind::Texts, &inner)
            {
                let labels = labels.as_array().into_iter().flatten().filter_map(Value::as_str);
                made.labels.extend(labels.map(Into::into));
            }
            self.known_block(out, seen, &made, wanted, &inner);
        }
    }

    fn is_repeated(
        &mut self,
        wanted: &schema::Block,
        seen: &mut Seen,
        span: Range<usize>,
        is_attribute: bool,
    ) -> bool {
        let Some((first, was_attribute)) = seen.get(wanted.name) else {
            seen.insert(wanted.name, (span, is_attribute));
            return false;
        };
        // Older files give these maps piece by piece.
        if self.tolerant && matches!(wanted.form, Form::TextMap | Form::Free) {
            return false;
        }
        let at = Diagnostic::at(&self.source, self.place(first.clone()), "", "");
        let place = format!("{}:{},{}-{}", at.file, at.line, at.column, at.end_column);
        let name = wanted.name;
        let detail = if is_attribute || *was_attribute {
            format!("{name} may not be defined more than once. Another definition is defined at {place}.")
        } else {
            format!("Only one {name} block is allowed. Another was defined at {place}.")
        };
        self.error(span, &format!("Duplicate {name} block"), detail);
        true
    }

    fn text_map(&mut self, body: &Body, scope: &Scope) -> Map<String, Value> {
        let mut out = Map::new();
        for structure in body {
            match structure {
                Structure::Attribute(attribute) => {
                    let Some(value) = self.evaluate(&attribute.value, scope) else { continue };
                    let value = match values::to_json(value) {
                        Value::Null => Err(values::misfit("null value is not allowed")),
                        value => values::text(value),
                    };
                    match value {
                        Ok(text) => {
                            out.insert(attribute.key.as_str().to_owned(), text.into());
                        }
                        Err((summary, detail)) => {
                            self.error(expression_span(&attribute.value), &summary, detail);
                        }
                    }
                }
                Structure::Block(block) => {
                    let span = block.ident.span().unwrap_or_default();
                    self.unknown_block(block.ident.as_str(), span, &schema::EMPTY);
                }
            }
        }
        out
    }

    fn texts_map(&mut self, body: &Body, scope: &Scope) -> Map<String, Value> {
        let mut out = Map::new();
        for attribute in body.attributes() {
            if let Some(value) = self.typed(&attribute.value, Kind::Texts, scope) {
                out.insert(attribute.key.as_str().to_owned(), value);
            }
        }
        out
    }

    /// Evaluates and converts; complains and gives `None` when that fails, and `None` for null.
    pub(super) fn typed(&mut self, expression: &Expression, kind: Kind, scope: &Scope) -> Option<Value> {
        let value = values::to_json(self.evaluate(expression, scope)?);
        let value = match value {
            Value::String(single) if self.tolerant && kind == Kind::Texts => {
                Value::Array(vec![single.into()])
            }
            Value::Number(number) if self.tolerant && kind == Kind::Flag => {
                Value::Bool(number.as_f64() != Some(0.0))
            }
            Value::String(text) if self.tolerant && kind == Kind::Flag => weak_flag(text),
            other => other,
        };
        match values::convert(value, kind) {
            Ok(value) => value,
            Err((summary, detail)) => {
                self.error(expression_span(expression), &summary, detail);
                None
            }
        }
    }

    pub(super) fn evaluate(&mut self, expression: &Expression, scope: &Scope) -> Option<Evaluated> {
        match scope.evaluate(expression, self.text()) {
            Ok(value) => Some(value),
            Err(failure) => {
                let span = failure.span.unwrap_or_else(|| expression_span(expression));
                self.error(span, &failure.summary, failure.detail);
                None
            }
        }
    }

    /// The text that positions of expressions refer to. In JSON syntax they count from the start of each string.
    pub(super) fn text(&self) -> &str {
        if self.json.is_some() { "" } else { &self.source.text }
    }

    /// The place in the file of a place in the body.
    fn place(&self, span: Range<usize>) -> Range<usize> {
        match (&self.translation, &self.json) {
            (Some(translation), _) => translation.origin(&span),
            (None, Some(outline)) => outline.find(&self.way),
            (None, None) => span,
        }
    }

    pub(super) fn error(&mut self, span: Range<usize>, summary: &str, detail: impl Into<String>) {
        let span = self.place(span);
        self.diagnostics.push(Diagnostic::at(&self.source, span, summary, detail));
    }

    fn unknown_attribute(&mut self, name: &str, span: Range<usize>, schema: &schema::Body) {
        let known = schema.attributes.iter().map(|attribute| attribute.name);
        let suggestion = did_you_mean(name, known);
        let detail = format!("An argument named \"{name}\" is not expected here.{}", ask(suggestion));
        self.error(span, "Unsupported argument", detail);
    }

    pub(super) fn unknown_block(&mut self, name: &str, span: Range<usize>, schema: &schema::Body) {
        let known = schema.blocks.iter().map(|block| block.name);
        let mut hint = ask(did_you_mean(name, known));
        if schema.attributes.iter().any(|attribute| attribute.name == name) {
            hint = format!(
                " Did you mean to define argument \"{name}\"? If so, use the equals sign to assign it a value."
            );
        }
        let detail = format!("Blocks of type \"{name}\" are not expected here.{hint}");
        self.error(span, "Unsupported block type", detail);
    }
}

/// The spellings of booleans that the older syntax knows.
fn weak_flag(text: String) -> Value {
    match text.as_str() {
        "t" | "T" | "TRUE" | "True" => Value::Bool(true),
        "" | "f" | "F" | "FALSE" | "False" => Value::Bool(false),
        _ => Value::String(text),
    }
}

fn ask(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!(" Did you mean \"{name}\"?")).unwrap_or_default()
}

fn push(out: &mut Map<String, Value>, key: String, value: Value) {
    if let Value::Array(items) = out.entry(key).or_insert_with(|| Value::Array(Vec::new())) {
        items.push(value);
    }
}

/// The place of a block's name and labels.
pub(super) fn header_span(block: &Block) -> Range<usize> {
    let start = block.ident.span().unwrap_or_default();
    let end = block.labels.last().and_then(Span::span).map_or(start.end, |label| label.end);
    start.start..end.max(start.end)
}

pub(super) fn expression_span(expression: &Expression) -> Range<usize> {
    expression.span().unwrap_or_default()
}

/// The body that an object stands for, when all its keys are names.
fn object_body(expression: &Expression) -> Option<Body> {
    let object = expression.as_object()?;
    let mut body = Body::new();
    for (key, value) in object.iter() {
        let ident = match key {
            ObjectKey::Ident(ident) => ident.clone(),
            ObjectKey::Expression(expression) => {
                let text = expression.as_str()?;
                hcl_edit::Ident::try_new(text).ok()?.into()
            }
        };
        body.push(Attribute::new(ident, value.expr().clone()));
    }
    Some(body)
}
