//! `-json` and `-t`: the objects of the API as they are, or through a Go template.

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::PrettyFormatter;
use serde_json::ser::Serializer;

use super::context::Failure;
use super::output::Output;
use crate::clock::Clock;
use crate::clock::SystemClock;
use crate::gotemplate::Functions;
use crate::gotemplate::Options;
use crate::gotemplate::Template;
use crate::gotemplate::sprig;
use crate::gotemplate::value::Value as TemplateValue;

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
    let failed = |why: String| Failure::from(format!("Error formatting the data: {why}"));
    let mut functions = Functions::default();
    let environment = |name: &str| std::env::var(name).ok();
    sprig::add(&mut functions, SystemClock.now().to_chrono(), environment);
    // The objects of the API have fixed fields: a field that is not there is a mistake of the template.
    let options = Options { strict: true, ..Options::default() };
    let template = Template::parse("format", template, &options, &functions).map_err(failed)?;
    template.render(&TemplateValue::from_json(value, true), &functions).map_err(failed)
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
        assert_eq!(render("{{ (index . 1).ID | sprig_upper | printf \"%4s\" }}", &value).unwrap(), "   B");
        let error = render("{{ (index . 0).Nope }}", &value).unwrap_err().text;
        assert!(error.ends_with("map has no entry for key \"Nope\""), "{error}");
        assert!(render("{{ if }}", &value).unwrap_err().text.starts_with("Error formatting the data: "));
    }

    #[test]
    fn json_has_four_spaces_and_sorted_keys() {
        assert_eq!(pretty(&sorted(&json!({"b": [], "a": 1}))), "{\n    \"a\": 1,\n    \"b\": []\n}");
    }
}
