//! HCL in JSON syntax: objects become bodies along the schema, texts become templates.

use hcl_edit::Ident;
use hcl_edit::expr::Expression;
use hcl_edit::parser::parse_expr;
use hcl_edit::parser::parse_template;
use hcl_edit::structure::Attribute;
use hcl_edit::structure::Block;
use hcl_edit::structure::Body;
use hcl_edit::template::Element;
use hcl_edit::template::StringTemplate;
use serde_json::Map;
use serde_json::Value;

use super::diagnostic::TOO_DEEP;
use super::schema;
use super::schema::Form;
use super::validate::Pick;
use super::validate::Step;
use crate::model::hcl;

/// True when the value is a job file in JSON syntax, not a job of the API: `job` holds labels, and labels hold bodies.
pub(super) fn is_file(value: &Value) -> bool {
    let is_bodies = |value: &Value| {
        value.is_object() || value.as_array().is_some_and(|all| all.iter().all(Value::is_object))
    };
    match value.get("job") {
        Some(Value::Object(labels)) => !labels.is_empty() && labels.values().all(is_bodies),
        // Blocks may stand in a list.
        Some(Value::Array(jobs)) => !jobs.is_empty() && jobs.iter().all(Value::is_object),
        _ => false,
    }
}

/// A text that is not a template, a key that is not a name, or a value that is no block where one must be.
#[derive(Debug)]
pub(super) struct Bad {
    /// From the file to it.
    pub(super) way: Vec<Step>,
    pub(super) summary: &'static str,
    pub(super) why: String,
}

impl Bad {
    fn inside(mut self, step: Step) -> Self {
        self.way.insert(0, step);
        self
    }

    fn in_block(self, name: &'static str, pick: impl Into<Pick>) -> Self {
        self.inside(Step::Block(name, pick.into()))
    }
}

impl From<String> for Bad {
    fn from(why: String) -> Self {
        Self { way: Vec::new(), summary: "Invalid expression", why }
    }
}

/// The body of a file.
///
/// # Errors
/// When a text is not a template, or a key not a name.
pub(super) fn body(value: &Value) -> Result<Body, Bad> {
    let mut out = Body::new();
    for (key, value) in fields(value)? {
        match key.as_str() {
            "variable" => {
                for (label, inner) in labelled("variable", value)? {
                    let mut block = Block::new(name("variable")?);
                    block.labels.push(label.as_str().into());
                    block.body = variable(inner).map_err(|bad| bad.in_block("variable", label))?;
                    out.push(block);
                }
            }
            "variables" | "locals" => {
                let known = if key == "locals" { "locals" } else { "variables" };
                for (index, item) in one_or_many(value).into_iter().enumerate() {
                    out.push(plain_block(key, item).map_err(|bad| bad.in_block(known, index))?);
                }
            }
            _ => entry(&mut out, key, value, &schema::FILE)?,
        }
    }
    Ok(out)
}

/// The fields of an object, without comments. Null is an object without fields.
fn fields(value: &Value) -> Result<Vec<(&String, &Value)>, Bad> {
    match value {
        Value::Object(map) => Ok(map.iter().filter(|(key, _)| *key != "//").collect()),
        Value::Null => Ok(Vec::new()),
        _ => {
            let why =
                "A JSON object is required here, with the arguments and blocks of the block.".to_owned();
            Err(Bad { way: Vec::new(), summary: "Incorrect JSON value type", why })
        }
    }
}

/// What stands below the labels of blocks, each body by itself.
fn labelled<'a>(block: &'static str, value: &'a Value) -> Result<Vec<(&'a String, &'a Value)>, Bad> {
    let mut out = Vec::new();
    for (index, item) in one_or_many(value).into_iter().enumerate() {
        for (label, inner) in fields(item).map_err(|bad| bad.in_block(block, index))? {
            out.extend(one_or_many(inner).into_iter().map(|inner| (label, inner)));
        }
    }
    Ok(out)
}

/// The body of a file of variables: an object of values.
///
/// # Errors
/// When a key is not a name.
pub(super) fn assignments(value: &Value) -> Result<Body, String> {
    plain_block("values", value).map(|block| block.body).map_err(|bad| bad.why)
}

fn variable(value: &Value) -> Result<Body, Bad> {
    let mut out = Body::new();
    for (key, value) in fields(value)? {
        match (key.as_str(), value) {
            ("validation", _) => {
                for inner in one_or_many(value) {
                    out.push(plain_block(key, inner)?);
                }
            }
            ("type", Value::String(written)) => {
                if hcl::too_deep(written).is_some() {
                    return Err(format!("{written:?} is not a type").into());
                }
                let kind = parse_expr(written).map_err(|_| format!("{written:?} is not a type"))?;
                out.push(Attribute::new(name(key)?, kind));
            }
            _ => out.push(attribute(key, value)?),
        }
    }
    Ok(out)
}

/// A block whose entries are all attributes.
fn plain_block(key: &str, value: &Value) -> Result<Block, Bad> {
    let mut block = Block::new(name(key)?);
    for (key, value) in fields(value)? {
        block.body.push(attribute(key, value)?);
    }
    Ok(block)
}

fn name(key: &str) -> Result<Ident, String> {
    Ident::try_new(key).map_err(|_| format!("{key:?} is not a name"))
}

fn attribute(key: &str, value: &Value) -> Result<Attribute, Bad> {
    let at_key = |why: String| Bad::from(why).inside(Step::Attribute(key.to_owned()));
    Ok(Attribute::new(name(key).map_err(at_key)?, expression(value).map_err(at_key)?))
}

fn one_or_many(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        single => vec![single],
    }
}

fn entry(out: &mut Body, key: &str, value: &Value, schema: &'static schema::Body) -> Result<(), Bad> {
    let Some(wanted) = schema.blocks.iter().find(|wanted| wanted.name == key) else {
        match key {
            "dynamic" => dynamic(out, value, schema)?,
            _ => out.push(attribute(key, value)?),
        }
        return Ok(());
    };
    if wanted.form == Form::TextMap {
        out.push(attribute(key, value)?);
        return Ok(());
    }
    if matches!(wanted.form, Form::Labelled(_) | Form::Keyed(_)) {
        for (label, inner) in labelled(wanted.name, value)? {
            let made = block(wanted, Some(label), inner);
            out.push(made.map_err(|bad| bad.in_block(wanted.name, label))?);
        }
        return Ok(());
    }
    // Null stands for no block at all.
    for (index, item) in one_or_many(value).into_iter().filter(|item| !item.is_null()).enumerate() {
        out.push(block(wanted, None, item).map_err(|bad| bad.in_block(wanted.name, index))?);
    }
    Ok(())
}

fn block(wanted: &'static schema::Block, label: Option<&str>, value: &Value) -> Result<Block, Bad> {
    let mut block = match wanted.form {
        Form::Free | Form::TextMapBlock | Form::TextsMap => plain_block(wanted.name, value)?,
        _ => {
            let mut block = Block::new(name(wanted.name)?);
            block.body = typed_body(value, wanted.body)?;
            block
        }
    };
    block.labels.extend(label.map(Into::into));
    Ok(block)
}

/// Blocks that stand for any number of blocks: below the name of what they make.
fn dynamic(out: &mut Body, value: &Value, schema: &'static schema::Body) -> Result<(), Bad> {
    let here = |bad: Bad| bad.inside(Step::Attribute("dynamic".to_owned()));
    for (kind, made) in labelled("dynamic", value).map_err(here)? {
        let wanted = schema.blocks.iter().find(|wanted| wanted.name == kind);
        let mut dynamic = Block::new(name("dynamic")?);
        dynamic.labels.push(kind.as_str().into());
        for (key, value) in fields(made).map_err(here)? {
            match (key.as_str(), wanted) {
                ("content", Some(wanted)) => {
                    let mut content =
                        block(wanted, None, value).map_err(|bad| bad.in_block(wanted.name, 0))?;
                    content.ident = name("content")?.into();
                    dynamic.body.push(content);
                }
                _ => dynamic.body.push(attribute(key, value)?),
            }
        }
        out.push(dynamic);
    }
    Ok(())
}

fn typed_body(value: &Value, schema: &'static schema::Body) -> Result<Body, Bad> {
    let mut out = Body::new();
    for (key, value) in fields(value)? {
        entry(&mut out, key, value, schema)?;
    }
    Ok(out)
}

/// The expression that a JSON value stands for, without places in a text.
fn expression(value: &Value) -> Result<Expression, String> {
    match value {
        Value::String(text) if text.contains("${") || text.contains("%{") => {
            if hcl::template_too_deep(text) {
                return Err(format!("{text:?}: {}", TOO_DEEP));
            }
            let template = parse_template(text).map_err(|error| format!("{text:?}: {}", error.message()))?;
            let elements: Vec<Element> = template.iter().cloned().collect();
            let parsed = Expression::StringTemplate(elements.into_iter().collect::<StringTemplate>());
            Ok(parsed)
        }
        Value::Array(items) => {
            let items: Result<Vec<Expression>, String> = items.iter().map(expression).collect();
            Ok(Expression::Array(items?.into_iter().collect()))
        }
        Value::Object(map) => object(map),
        Value::Null => Ok(Expression::null()),
        Value::Bool(flag) => Ok(Expression::from(*flag)),
        Value::Number(number) => Ok(match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(whole), _, _) => Expression::from(whole),
            (None, Some(whole), _) => Expression::from(whole),
            (None, None, float) => Expression::from(float.unwrap_or_default()),
        }),
        Value::String(text) => Ok(Expression::from(text.as_str())),
    }
}

fn object(map: &Map<String, Value>) -> Result<Expression, String> {
    let mut out = hcl_edit::expr::Object::new();
    for (key, value) in map {
        let key = hcl_edit::expr::ObjectKey::Expression(Expression::from(key.as_str()));
        out.insert(key, expression(value)?);
    }
    Ok(Expression::Object(out))
}
