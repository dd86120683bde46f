//! `${…}` in driver options: every text is an HCL template over the task's environment and the node's attributes.

use std::collections::BTreeMap;

use hcl::Identifier;
use hcl::Map as HclMap;
use hcl::Value as HclValue;
use hcl::eval::Context;
use hcl::eval::ErrorKind;
use hcl::eval::Evaluate;
use hcl::eval::FuncArgs;
use hcl::eval::FuncDef;
use hcl::eval::ParamType;
use hcl::template::Template;
use serde_json::Map;
use serde_json::Value;

/// Names that differ by fewer letters are suggested.
const CLOSE: usize = 3;

/// The names that driver options may use.
pub struct Names<'a> {
    context: Context<'a>,
    /// The first parts of all names, for suggestions.
    known: Vec<String>,
}

impl Names<'_> {
    /// Names of a finished environment and of a node (see `env::node_names`).
    pub fn new(env: &BTreeMap<String, String>, node_names: &BTreeMap<String, String>) -> Self {
        let mut root = HclMap::new();
        for (name, value) in node_names.iter().chain(env) {
            insert(&mut root, name, value);
        }
        // The older spelling of attributes: `node.attr.x`, `node.meta.x`.
        for (name, value) in node_names {
            if name.starts_with("attr.") || name.starts_with("meta.") {
                insert(&mut root, &format!("node.{name}"), value);
            }
        }
        let env_object = env.iter().map(|(name, value)| (name.clone(), HclValue::from(value.as_str())));
        root.insert("env".to_owned(), HclValue::Object(env_object.collect()));
        let mut context = Context::new();
        let known = root.keys().cloned().collect();
        for (name, value) in root {
            if let Ok(name) = Identifier::new(name) {
                context.declare_var(name, value);
            }
        }
        declare_functions(&mut context);
        Self { context, known }
    }

    /// Expands every text of the options.
    ///
    /// # Errors
    /// In the words of HCL's evaluation.
    pub fn expand(&self, config: &Map<String, Value>) -> Result<Map<String, Value>, String> {
        let expanded = config.iter().map(|(key, value)| Ok((key.clone(), self.expand_value(value)?)));
        expanded.collect()
    }

    fn expand_value(&self, value: &Value) -> Result<Value, String> {
        Ok(match value {
            Value::String(text) => Value::String(self.expand_text(text)?),
            Value::Array(items) => {
                Value::Array(items.iter().map(|item| self.expand_value(item)).collect::<Result<_, _>>()?)
            }
            Value::Object(map) => Value::Object(
                map.iter()
                    .map(|(key, value)| Ok((key.clone(), self.expand_value(value)?)))
                    .collect::<Result<_, String>>()?,
            ),
            other => other.clone(),
        })
    }

    fn expand_text(&self, text: &str) -> Result<String, String> {
        if !text.contains("${") && !text.contains("%{") {
            return Ok(text.to_owned());
        }
        if crate::model::hcl::template_too_deep(text) {
            return Err(format!("Invalid template in {text:?}: it is nested too deeply"));
        }
        let template: Template =
            text.parse().map_err(|error| format!("Invalid template in {text:?}: {error}"))?;
        template.evaluate(&self.context).map_err(|error| match error.kind() {
            ErrorKind::UndefinedVar(name) => {
                let name = name.as_str();
                let text = format!("Unknown variable: There is no variable named {name:?}.");
                match self.known.iter().find(|known| distance(known, name) < CLOSE) {
                    Some(meant) => format!("{text} Did you mean {meant:?}?"),
                    None => text,
                }
            }
            ErrorKind::NoSuchKey(_) | ErrorKind::Index(_) => {
                "Invalid index: The given key does not identify an element in this collection value."
                    .to_owned()
            }
            ErrorKind::UndefinedFunc(name) => {
                format!("Call to unknown function: There is no function named {:?}.", name.name.as_str())
            }
            _ => error.to_string(),
        })
    }
}

/// Letters to change, add or drop to get from one name to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (index, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (place, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[place + 1];
            row[place + 1] = changed.min(row[place] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Adds a dotted name as nested objects. Where one name is the beginning of another, the object wins.
fn insert(map: &mut HclMap<String, HclValue>, name: &str, value: &str) {
    match name.split_once('.') {
        None => {
            if !matches!(map.get(name), Some(HclValue::Object(_))) {
                map.insert(name.to_owned(), HclValue::from(value));
            }
        }
        Some((head, rest)) if !head.is_empty() && !rest.is_empty() => {
            let slot = map.entry(head.to_owned()).or_insert_with(|| HclValue::Object(HclMap::new()));
            if !matches!(slot, HclValue::Object(_)) {
                *slot = HclValue::Object(HclMap::new());
            }
            if let HclValue::Object(inner) = slot {
                insert(inner, rest, value);
            }
        }
        Some(_) => {}
    }
}

type Function = fn(FuncArgs) -> Result<HclValue, String>;

fn declare_functions(context: &mut Context<'_>) {
    let text: &[(&str, Function)] = &[
        ("lower", |args| text_arg(&args).map(|text| text.to_lowercase().into())),
        ("upper", |args| text_arg(&args).map(|text| text.to_uppercase().into())),
        ("reverse", |args| text_arg(&args).map(|text| text.chars().rev().collect::<String>().into())),
        ("strlen", |args| text_arg(&args).map(|text| text.chars().count().into())),
        ("jsondecode", |args| {
            let text = text_arg(&args)?;
            serde_json::from_str::<HclValue>(text).map_err(|error| error.to_string())
        }),
    ];
    for (name, function) in text {
        context.declare_func(*name, FuncDef::builder().param(ParamType::String).build(*function));
    }
    let any: &[(&str, Function)] = &[
        ("jsonencode", |args| {
            serde_json::to_string(&args[0]).map(Into::into).map_err(|error| error.to_string())
        }),
        ("length", |args| match &args[0] {
            HclValue::Array(items) => Ok(items.len().into()),
            HclValue::Object(map) => Ok(map.len().into()),
            _ => Err("a list or a map is needed".to_owned()),
        }),
        ("int", |args| number(&args[0]).map(|number| HclValue::from(number.trunc() as i64))),
        ("abs", |args| number(&args[0]).map(|value| plain_number(value.abs()))),
    ];
    for (name, function) in any {
        context.declare_func(*name, FuncDef::builder().param(ParamType::Any).build(*function));
    }
    let variadic: &[(&str, Function)] = &[
        ("coalesce", |args| {
            let found = args.variadic_args().find(|value| !matches!(value, HclValue::Null)).cloned();
            found.ok_or_else(|| "all arguments are null".to_owned())
        }),
        ("concat", |args| {
            let lists = args.variadic_args().map(|value| match value {
                HclValue::Array(items) => Ok(items.clone()),
                _ => Err("all arguments must be lists".to_owned()),
            });
            Ok(HclValue::Array(lists.collect::<Result<Vec<_>, String>>()?.concat()))
        }),
        ("max", |args| fold_numbers(&args, f64::max)),
        ("min", |args| fold_numbers(&args, f64::min)),
    ];
    for (name, function) in variadic {
        context.declare_func(*name, FuncDef::builder().variadic_param(ParamType::Any).build(*function));
    }
    let hasindex = FuncDef::builder().param(ParamType::Any).param(ParamType::Any);
    context.declare_func(
        "hasindex",
        hasindex.build(|args| {
            Ok(HclValue::Bool(match (&args[0], &args[1]) {
                (HclValue::Object(map), HclValue::String(key)) => map.contains_key(key),
                (HclValue::Array(items), HclValue::Number(index)) => {
                    index.as_u64().is_some_and(|index| index < items.len() as u64)
                }
                _ => false,
            }))
        }),
    );
    let substr =
        FuncDef::builder().param(ParamType::String).param(ParamType::Number).param(ParamType::Number);
    context.declare_func("substr", substr.build(substr_of));
}

fn substr_of(args: FuncArgs) -> Result<HclValue, String> {
    let text = text_arg(&args)?;
    let (offset, length) = (number(&args[1])? as i64, number(&args[2])? as i64);
    let total = text.chars().count();
    let start = if offset < 0 { total as i64 + offset } else { offset };
    let start = usize::try_from(start).map_err(|_| "offset lies before the text".to_owned())?;
    let length = usize::try_from(length).unwrap_or(total);
    Ok(text.chars().skip(start).take(length).collect::<String>().into())
}

fn text_arg(args: &FuncArgs) -> Result<&str, String> {
    args.first().and_then(HclValue::as_str).ok_or_else(|| "a string is needed".to_owned())
}

fn number(value: &HclValue) -> Result<f64, String> {
    let parsed = match value {
        HclValue::Number(number) => number.as_f64(),
        HclValue::String(text) => text.parse().ok(),
        _ => None,
    };
    parsed.ok_or_else(|| "a number is needed".to_owned())
}

fn plain_number(value: f64) -> HclValue {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        HclValue::from(value as i64)
    } else {
        HclValue::from(value)
    }
}

fn fold_numbers(args: &FuncArgs, fold: fn(f64, f64) -> f64) -> Result<HclValue, String> {
    let numbers = args.variadic_args().map(number).collect::<Result<Vec<_>, _>>()?;
    numbers
        .into_iter()
        .reduce(fold)
        .map(plain_number)
        .ok_or_else(|| "at least one number is needed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<String, String> {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
        };
        let env =
            map(&[("NOMAD_PORT_http", "8080"), ("NAME", "value"), ("D-6", "x"), ("NOMAD_META_k.d", "dot")]);
        let node = map(&[("attr.cpu.arch", "amd64"), ("node.unique.name", "n1"), ("meta.rack", "r1")]);
        Names::new(&env, &node).expand_text(text)
    }

    #[test]
    fn driver_options_are_templates() {
        for (text, expected) in [
            ("plain $HOME", "plain $HOME"),
            ("-p ${NOMAD_PORT_http}", "-p 8080"),
            ("${attr.cpu.arch}/${node.unique.name}/${meta.rack}/${node.attr.cpu.arch}", "amd64/n1/r1/amd64"),
            ("${env[\"NAME\"]}", "value"),
            ("${1 + 1}", "2"),
            ("$${NAME}", "${NAME}"),
            ("{${NAME}}", "{value}"),
            ("${upper(NAME)}", "VALUE"),
            ("${NOMAD_META_k.d}", "dot"),
            ("%{ if NAME == \"value\" }yes%{ else }no%{ endif }", "yes"),
        ] {
            assert_eq!(expand(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn unknown_names_are_errors() {
        let error = expand("${SOMETHING}").unwrap_err();
        assert_eq!(error, "Unknown variable: There is no variable named \"SOMETHING\".");
        assert!(expand("${env[\"NOPE\"]}").unwrap_err().starts_with("Invalid index: "));
        // Labels with dashes are known by their cleaned names only.
        assert_eq!(
            expand("${NOMAD_PORT-http}").unwrap_err(),
            "Unknown variable: There is no variable named \"NOMAD_PORT-http\". Did you mean \"NOMAD_PORT_http\"?"
        );
        assert!(expand("${NAME:-default}").is_err(), "a shell's default is no expression");
    }

    #[test]
    fn a_name_that_begins_others_is_reached_through_env_only() {
        let env =
            BTreeMap::from([("a".to_owned(), "whole".to_owned()), ("a.b".to_owned(), "part".to_owned())]);
        let names = Names::new(&env, &BTreeMap::new());
        assert_eq!(names.expand_text("${a.b} ${env[\"a\"]}").as_deref(), Ok("part whole"));
    }
}
