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

use super::schema;
use super::schema::Form;

/// True when the value is a job file in JSON syntax, not a job of the API: `job` holds labels, and labels hold bodies.
pub(super) fn is_file(value: &Value) -> bool {
    let is_bodies = |value: &Value| {
        value.is_object() || value.as_array().is_some_and(|all| all.iter().all(Value::is_object))
    };
    let job = value.get("job").and_then(Value::as_object);
    job.is_some_and(|labels| !labels.is_empty() && labels.values().all(is_bodies))
}

/// The body of a file.
///
/// # Errors
/// When a text is not a template, or a key not a name.
pub(super) fn body(value: &Value) -> Result<Body, String> {
    let mut out = Body::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        match key.as_str() {
            "//" => {}
            "variable" => {
                for (label, inner) in value.as_object().into_iter().flatten() {
                    let mut block = Block::new(name("variable")?);
                    block.labels.push(label.as_str().into());
                    block.body = variable(inner)?;
                    out.push(block);
                }
            }
            "variables" | "locals" => out.push(plain_block(key, value)?),
            _ => entry(&mut out, key, value, &schema::FILE)?,
        }
    }
    Ok(out)
}

/// The body of a file of variables: an object of values.
///
/// # Errors
/// When a key is not a name.
pub(super) fn assignments(value: &Value) -> Result<Body, String> {
    plain_block("values", value).map(|block| block.body)
}

fn variable(value: &Value) -> Result<Body, String> {
    let mut out = Body::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("validation", _) => {
                for inner in one_or_many(value) {
                    out.push(plain_block(key, inner)?);
                }
            }
            ("type", Value::String(written)) => {
                let kind = parse_expr(written).map_err(|_| format!("{written:?} is not a type"))?;
                out.push(Attribute::new(name(key)?, kind));
            }
            _ => out.push(attribute(key, value)?),
        }
    }
    Ok(out)
}

/// A block whose entries are all attributes.
fn plain_block(key: &str, value: &Value) -> Result<Block, String> {
    let mut block = Block::new(name(key)?);
    for (key, value) in value.as_object().into_iter().flatten() {
        block.body.push(attribute(key, value)?);
    }
    Ok(block)
}

fn name(key: &str) -> Result<Ident, String> {
    Ident::try_new(key).map_err(|_| format!("{key:?} is not a name"))
}

fn attribute(key: &str, value: &Value) -> Result<Attribute, String> {
    Ok(Attribute::new(name(key)?, expression(value)?))
}

fn one_or_many(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        single => vec![single],
    }
}

fn entry(out: &mut Body, key: &str, value: &Value, schema: &schema::Body) -> Result<(), String> {
    let wanted = schema.blocks.iter().find(|wanted| wanted.name == key);
    let Some(wanted) = wanted.filter(|wanted| wanted.form != Form::TextMap) else {
        out.push(attribute(key, value)?);
        return Ok(());
    };
    let make = |label: Option<&str>, inner: &Value| -> Result<Block, String> {
        let mut block = match wanted.form {
            Form::Free | Form::TextMapBlock | Form::TextsMap => plain_block(key, inner)?,
            _ => {
                let mut block = Block::new(name(key)?);
                block.body = typed_body(inner, wanted.body)?;
                block
            }
        };
        block.labels.extend(label.map(Into::into));
        Ok(block)
    };
    for item in one_or_many(value) {
        if !matches!(wanted.form, Form::Labelled(_) | Form::Keyed(_)) {
            out.push(make(None, item)?);
            continue;
        }
        for (label, inner) in item.as_object().into_iter().flatten() {
            for inner in one_or_many(inner) {
                out.push(make(Some(label), inner)?);
            }
        }
    }
    Ok(())
}

fn typed_body(value: &Value, schema: &schema::Body) -> Result<Body, String> {
    let mut out = Body::new();
    for (key, value) in value.as_object().into_iter().flatten().filter(|(key, _)| *key != "//") {
        entry(&mut out, key, value, schema)?;
    }
    Ok(out)
}

/// The expression that a JSON value stands for, without places in a text.
fn expression(value: &Value) -> Result<Expression, String> {
    match value {
        Value::String(text) if text.contains("${") || text.contains("%{") => {
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
