//! Values as JSON, in the manner of Go's encoder.

use super::Failure;
use super::TEXT_MAX;
use super::format::Out;
use super::format::TooLarge;
use super::value::DEPTH_MAX;
use super::value::Value;

/// How JSON is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Blanks per level; `None` writes all on one line.
    pub indent: Option<usize>,
    /// `<`, `>` and `&` as escapes, so that the text can stand in HTML.
    pub html: bool,
}

/// Writes `value` as JSON; keys of maps are sorted.
///
/// # Errors
/// When it is too large or nested too deeply, or has a number that JSON has not.
pub fn write(value: &Value, style: Style) -> Result<String, Failure> {
    let mut out = Out::new(TEXT_MAX);
    node(&mut out, value, style, 0).map_err(Failure::called)?;
    Ok(out.into_text())
}

fn node(out: &mut Out, value: &Value, style: Style, depth: usize) -> Result<(), TooLarge> {
    if depth > DEPTH_MAX {
        return Err(TooLarge);
    }
    match value {
        Value::Missing | Value::Nil => out.push("null"),
        Value::Bool(truth) => out.push(if *truth { "true" } else { "false" }),
        Value::Int(number) => out.push(&number.to_string()),
        Value::Uint(number) => out.push(&number.to_string()),
        Value::Float(number) => out.push(&number_text(*number)),
        Value::Text(text) => string(out, text, style),
        Value::List(items) => {
            let items: Vec<(Option<String>, Value)> = items.iter().map(|item| (None, item.clone())).collect();
            many(out, &items, ['[', ']'], style, depth)
        }
        Value::Map(map) => {
            let entries = map.entries().into_iter();
            let mut entries: Vec<_> = entries.map(|(key, value)| (Some(key.to_string()), value)).collect();
            entries.sort_by(|left, right| left.0.cmp(&right.0));
            many(out, &entries, ['{', '}'], style, depth)
        }
        Value::Struct(of) => {
            let fields = of.fields().iter().map(|(name, value)| (Some((*name).to_owned()), value.clone()));
            many(out, &fields.collect::<Vec<_>>(), ['{', '}'], style, depth)
        }
        Value::Object(_) => node(out, &value.viewed(), style, depth + 1),
    }
}

fn many(
    out: &mut Out,
    items: &[(Option<String>, Value)],
    brackets: [char; 2],
    style: Style,
    depth: usize,
) -> Result<(), TooLarge> {
    let newline = |out: &mut Out, depth: usize| match style.indent {
        Some(indent) => out.push(&format!("\n{}", " ".repeat(indent * depth))),
        None => Ok(()),
    };
    out.push(&brackets[0].to_string())?;
    for (index, (key, value)) in items.iter().enumerate() {
        if index > 0 {
            out.push(",")?;
        }
        newline(out, depth + 1)?;
        if let Some(key) = key {
            string(out, key, style)?;
            out.push(if style.indent.is_some() { ": " } else { ":" })?;
        }
        node(out, value, style, depth + 1)?;
    }
    if !items.is_empty() {
        newline(out, depth)?;
    }
    out.push(&brackets[1].to_string())
}

fn string(out: &mut Out, text: &str, style: Style) -> Result<(), TooLarge> {
    let quoted = serde_json::Value::from(text).to_string();
    let quoted = quoted.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    if style.html {
        return out.push(&quoted.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"));
    }
    out.push(&quoted)
}

/// As Go's encoder writes floating numbers: without an exponent unless it is large.
pub fn number_text(number: f64) -> String {
    let magnitude = number.abs();
    if !number.is_finite() {
        return "null".to_owned();
    }
    if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        let text = format!("{number:e}");
        return if text.contains("e-") { text } else { text.replace('e', "e+") };
    }
    format!("{number}")
}
