//! Texts.

use regex::Regex;

use super::Answer;
use super::Args;
use super::Function;
use super::Value;
use super::Wrong;
use super::fits;
use super::function;
use super::text;
use super::text_list;
use super::texts;
use super::whole;

pub(super) const FUNCTIONS: &[Function] = &[
    function("chomp", &["str"], |args| one(args, |s| s.trim_end_matches(['\n', '\r']).to_owned())),
    function("indent", &["spaces", "str"], indent),
    function("join", &["separator", "*lists"], join),
    function("lower", &["str"], |args| one(args, str::to_lowercase)),
    function("upper", &["str"], |args| one(args, |s| s.chars().map(upper).collect())),
    function("title", &["str"], |args| one(args, title)),
    function("regex_replace", &["str", "pattern", "replace"], regex_replace),
    function("replace", &["str", "substr", "replace"], replace),
    function("split", &["separator", "str"], split),
    function("strlen", &["str"], |args| Ok(Value::from(graphemes(&text(args, 0)?).len()))),
    function("strrev", &["str"], |args| one(args, reversed)),
    function("reverse", &["str"], |args| one(args, reversed)),
    function("substr", &["str", "offset", "length"], substr),
    function("trim", &["str", "cutset"], |args| {
        two(args, |s, cutset| s.trim_matches(|c| cutset.contains(c)).to_owned())
    }),
    function("trimprefix", &["str", "prefix"], |args| {
        two(args, |s, p| s.strip_prefix(p).unwrap_or(s).to_owned())
    }),
    function("trimsuffix", &["str", "suffix"], |args| {
        two(args, |s, p| s.strip_suffix(p).unwrap_or(s).to_owned())
    }),
    function("trimspace", &["str"], |args| one(args, |s| s.trim().to_owned())),
];

fn one(args: &Args, function: fn(&str) -> String) -> Answer {
    Ok(Value::String(function(&text(args, 0)?)))
}

fn two(args: &Args, function: fn(&str, &str) -> String) -> Answer {
    Ok(Value::String(function(&text(args, 0)?, &text(args, 1)?)))
}

/// The upper-case form of a character, where that is one character: `ß` stays.
fn upper(c: char) -> char {
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(single), None) => single,
        _ => c,
    }
}

/// What a reader takes for one character: with the marks and joined characters that follow it.
fn graphemes(text: &str) -> Vec<&str> {
    const JOINER: char = '\u{200d}';
    let extends = |c: char| {
        matches!(c, '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{fe20}'..='\u{fe2f}' | '\u{1f3fb}'..='\u{1f3ff}' | JOINER)
    };
    let is_flag = |c: char| matches!(c, '\u{1f1e6}'..='\u{1f1ff}');
    let mut out = Vec::new();
    let mut start = 0;
    let mut previous: Option<char> = None;
    let mut flags = 0;
    for (offset, c) in text.char_indices() {
        flags = if is_flag(c) { flags + 1 } else { 0 };
        let joined = extends(c)
            || previous == Some(JOINER)
            || (previous == Some('\r') && c == '\n')
            || (flags > 0 && flags % 2 == 0);
        if previous.is_some() && !joined {
            out.push(&text[start..offset]);
            start = offset;
        }
        previous = Some(c);
    }
    if previous.is_some() {
        out.push(&text[start..]);
    }
    out
}

fn reversed(text: &str) -> String {
    graphemes(text).into_iter().rev().collect()
}

fn title(text: &str) -> String {
    let mut at_start = true;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        out.push(if at_start { upper(c) } else { c });
        at_start = !c.is_alphanumeric() && c != '_';
    }
    out
}

fn replace(args: &Args) -> Answer {
    let (whole, from, to) = (text(args, 0)?, text(args, 1)?, text(args, 2)?);
    fits(whole.len() + whole.matches(&from).count() * to.len())?;
    Ok(Value::String(whole.replace(&from, &to)))
}

fn regex_replace(args: &Args) -> Answer {
    let (whole, pattern, to) = (text(args, 0)?, text(args, 1)?, text(args, 2)?);
    let pattern = Regex::new(&pattern).map_err(|error| {
        let said = error.to_string();
        let reason = said.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        format!("error parsing regexp: {reason}: `{pattern}`")
    })?;
    let references = to.matches('$').count();
    let each = to.len() + references * whole.len();
    fits(whole.len() + pattern.find_iter(&whole).count().saturating_mul(each))?;
    Ok(Value::String(pattern.replace_all(&whole, to.as_str()).into_owned()))
}

fn split(args: &Args) -> Answer {
    let (separator, whole) = (text(args, 0)?, text(args, 1)?);
    if separator.is_empty() {
        return Ok(texts(whole.chars().map(String::from)));
    }
    Ok(texts(whole.split(&separator).map(str::to_owned)))
}

fn join(args: &Args) -> Answer {
    let separator = text(args, 0)?;
    let mut parts = Vec::new();
    let mut size = 0;
    if args.len() < 2 {
        return Err("at least one list is required".into());
    }
    for index in 1..args.len() {
        for (position, item) in text_list(args, index)?.into_iter().enumerate() {
            let null = || {
                let which = if args.len() > 2 { format!(" of list {index}") } else { String::new() };
                let why = format!("element {position}{which} is null; cannot concatenate null values");
                Wrong::Argument(index, why)
            };
            let item = item.ok_or_else(null)?;
            size += item.len() + separator.len();
            parts.push(item);
        }
    }
    fits(size)?;
    Ok(Value::String(parts.join(&separator)))
}

fn substr(args: &Args) -> Answer {
    let whole_text = text(args, 0)?;
    let parts = graphemes(&whole_text);
    let (offset, length) = (whole(args, 1)?, whole(args, 2)?);
    let size = i64::try_from(parts.len()).unwrap_or(i64::MAX);
    let start = if offset < 0 { size.saturating_add(offset).max(0) } else { offset.min(size) };
    let end = if length < 0 { size } else { start.saturating_add(length).min(size) };
    let range = usize::try_from(start).unwrap_or(0)..usize::try_from(end).unwrap_or(0);
    Ok(Value::String(parts.get(range).unwrap_or_default().concat()))
}

fn indent(args: &Args) -> Answer {
    let width = usize::try_from(whole(args, 0)?)
        .map_err(|_| Wrong::Argument(0, "the number of spaces must not be negative".to_owned()))?;
    let text = text(args, 1)?;
    fits(text.len().saturating_add(text.matches('\n').count().saturating_mul(width)))?;
    Ok(Value::String(text.replace('\n', &format!("\n{}", " ".repeat(width)))))
}
