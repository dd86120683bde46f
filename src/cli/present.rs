//! `-json` and `-t`: the objects of the API as they are, or through a Go template.

use std::collections::HashMap;

use gtmpl_ng::Context as TemplateContext;
use gtmpl_ng::Template;
use gtmpl_value_ng::FuncError;
use gtmpl_value_ng::Value as TemplateValue;
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::PrettyFormatter;
use serde_json::ser::Serializer;

use super::context::Failure;
use super::output::Output;

/// The two flags; commands flatten them into theirs.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Format {
    /// Print the answer as JSON.
    #[arg(long)]
    pub json: bool,
    /// Print the answer through this Go template.
    #[arg(long, value_name = "template")]
    pub t: Option<String>,
}

impl Format {
    /// Whether one of the two was given.
    pub fn is_asked(&self) -> bool {
        self.json || self.t.is_some()
    }

    /// Prints the value as asked; false if neither flag was given.
    ///
    /// # Errors
    /// When both were given, or the template fails.
    pub fn print(&self, out: Output, value: &Value) -> Result<bool, Failure> {
        match (self.json, &self.t) {
            (true, Some(_)) => Err("Both json and template formatting are not allowed".into()),
            (true, None) => {
                out.line(pretty(&sorted(value)));
                Ok(true)
            }
            (false, Some(template)) => {
                out.line(render(template, value)?);
                Ok(true)
            }
            (false, None) => Ok(false),
        }
    }
}

/// JSON with four spaces, keys as they come.
pub fn pretty(value: &Value) -> String {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    "));
    if value.serialize(&mut serializer).is_err() {
        return value.to_string();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The value with the keys of all objects in alphabetical order.
pub fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            Value::Object(entries.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

fn render(template: &str, value: &Value) -> Result<String, Failure> {
    let failed = |why: &dyn std::fmt::Display| Failure::from(format!("Error formatting the data: {why}"));
    let mut engine = Template::default();
    engine.add_func("sprig_toJson", to_json);
    engine.add_func("sprig_toPrettyJson", to_pretty_json);
    engine.add_func("sprig_upper", upper);
    engine.add_func("sprig_lower", lower);
    engine.parse(template).map_err(|why| failed(&why))?;
    engine.render(&TemplateContext::from(to_template(value))).map_err(|why| failed(&why))
}

fn to_template(value: &Value) -> TemplateValue {
    match value {
        Value::Null => TemplateValue::Nil,
        Value::Bool(flag) => TemplateValue::Bool(*flag),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(int), ..) => int.into(),
            (None, Some(int), _) => int.into(),
            (None, None, float) => float.unwrap_or(0.0).into(),
        },
        Value::String(text) => TemplateValue::String(text.clone()),
        Value::Array(items) => TemplateValue::Array(items.iter().map(to_template).collect()),
        Value::Object(map) => {
            let entries: HashMap<String, TemplateValue> =
                map.iter().map(|(key, value)| (key.clone(), to_template(value))).collect();
            TemplateValue::Object(entries)
        }
    }
}

fn from_template(value: &TemplateValue) -> Value {
    match value {
        TemplateValue::Bool(flag) => Value::Bool(*flag),
        TemplateValue::String(text) => Value::String(text.clone()),
        TemplateValue::Array(items) => Value::Array(items.iter().map(from_template).collect()),
        TemplateValue::Object(map) | TemplateValue::Map(map) => {
            let mut entries: Vec<(&String, &TemplateValue)> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            Value::Object(
                entries.into_iter().map(|(key, value)| (key.clone(), from_template(value))).collect(),
            )
        }
        TemplateValue::Number(number) => {
            serde_json::from_str(&number.to_string()).unwrap_or_else(|_| Value::String(number.to_string()))
        }
        _ => Value::Null,
    }
}

fn first(args: &[TemplateValue]) -> Result<Value, FuncError> {
    args.first().map(from_template).ok_or_else(|| FuncError::Generic("one argument is needed".to_owned()))
}

fn to_json(args: &[TemplateValue]) -> Result<TemplateValue, FuncError> {
    Ok(first(args)?.to_string().into())
}

fn to_pretty_json(args: &[TemplateValue]) -> Result<TemplateValue, FuncError> {
    serde_json::to_string_pretty(&first(args)?)
        .map(TemplateValue::String)
        .map_err(|why| FuncError::Generic(why.to_string()))
}

fn upper(args: &[TemplateValue]) -> Result<TemplateValue, FuncError> {
    Ok(first(args)?.as_str().unwrap_or_default().to_uppercase().into())
}

fn lower(args: &[TemplateValue]) -> Result<TemplateValue, FuncError> {
    Ok(first(args)?.as_str().unwrap_or_default().to_lowercase().into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn templates_reach_fields_by_name() {
        let value = json!([{"ID": "a", "Index": 3, "Tags": ["x"]}, {"ID": "b", "Index": 4, "Tags": null}]);
        let text = render("{{range .}}{{printf \"%s-%d\\n\" .ID .Index}}{{end}}", &value).unwrap();
        assert_eq!(text, "a-3\nb-4\n");
        assert_eq!(
            render("{{ index . 0 | sprig_toJson }}", &value).unwrap(),
            r#"{"ID":"a","Index":3,"Tags":["x"]}"#
        );
        assert!(render("{{ if }}", &value).unwrap_err().text.starts_with("Error formatting the data: "));
    }

    #[test]
    fn json_has_four_spaces_and_sorted_keys() {
        assert_eq!(pretty(&sorted(&json!({"b": [], "a": 1}))), "{\n    \"a\": 1,\n    \"b\": []\n}");
    }
}
