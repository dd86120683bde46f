//! Sprig's functions on text.

use rand::RngExt;
use regex::Regex;

use super::Row;
use super::answer;
use super::int;
use super::is_empty;
use super::string;
use super::strings;
use crate::gotemplate::Answer;
use crate::gotemplate::Failure;
use crate::gotemplate::exactly;
use crate::gotemplate::fits;
use crate::gotemplate::format::quoted;
use crate::gotemplate::int_of;
use crate::gotemplate::text_of;
use crate::gotemplate::value::Key;
use crate::gotemplate::value::Value;

pub(super) const TABLE: &[Row] = &[
    ("sprig_hello", |_| answer("Hello!")),
    ("sprig_abbrev", abbrev),
    ("sprig_abbrevboth", abbrev_both),
    ("sprig_trunc", trunc),
    ("sprig_trim", |a| one(a, |text| text.trim().to_owned())),
    ("sprig_upper", |a| one(a, str::to_uppercase)),
    ("sprig_lower", |a| one(a, str::to_lowercase)),
    ("sprig_title", |a| one(a, |text| words(text, |c| c.to_uppercase().collect()))),
    ("sprig_untitle", |a| one(a, |text| words(text, |c| c.to_lowercase().collect()))),
    ("sprig_substr", substr),
    ("sprig_repeat", repeat),
    ("sprig_trimall", |a| two(a, trim_all)),
    ("sprig_trimAll", |a| two(a, trim_all)),
    ("sprig_trimSuffix", |a| two(a, |suffix, text| text.strip_suffix(suffix).unwrap_or(text).to_owned())),
    ("sprig_trimPrefix", |a| two(a, |prefix, text| text.strip_prefix(prefix).unwrap_or(text).to_owned())),
    ("sprig_nospace", |a| one(a, |text| text.split_whitespace().collect())),
    ("sprig_initials", |a| {
        one(a, |text| text.split_whitespace().filter_map(|word| word.chars().next()).collect())
    }),
    ("sprig_swapcase", |a| one(a, swap_case)),
    ("sprig_shuffle", |a| one(a, shuffle)),
    ("sprig_snakecase", |a| one(a, |text| parted(text, "_"))),
    ("sprig_kebabcase", |a| one(a, |text| parted(text, "-"))),
    ("sprig_camelcase", |a| one(a, camel_case)),
    ("sprig_wrap", wrap),
    ("sprig_wrapWith", wrap_with),
    ("sprig_contains", |a| test(a, |part, text| text.contains(part))),
    ("sprig_hasPrefix", |a| test(a, |part, text| text.starts_with(part))),
    ("sprig_hasSuffix", |a| test(a, |part, text| text.ends_with(part))),
    ("sprig_quote", |a| quotes(a, |text| quoted(text, false))),
    ("sprig_squote", |a| quotes(a, |text| format!("'{text}'"))),
    ("sprig_cat", |a| {
        let words: Vec<String> = a.iter().filter(|value| !value.is_nothing()).map(string).collect();
        answer(words.join(" ").trim())
    }),
    ("sprig_indent", |a| indent(a, "")),
    ("sprig_nindent", |a| indent(a, "\n")),
    ("sprig_replace", replace),
    ("sprig_plural", plural),
    ("sprig_toString", |a| answer(string(&exactly::<1>("toString", a)?[0]))),
    ("sprig_toStrings", |a| Ok(Value::texts(strings(&exactly::<1>("toStrings", a)?[0])))),
    ("sprig_split", split),
    ("sprig_splitList", split_list),
    ("sprig_splitn", split_n),
    ("sprig_join", join),
    ("sprig_sortAlpha", |a| {
        let [list] = exactly("sortAlpha", a)?;
        let mut texts = strings(list);
        texts.sort();
        Ok(Value::texts(texts))
    }),
    ("sprig_randAlphaNum", |a| random(a, |c| c.is_ascii_alphanumeric())),
    ("sprig_randAlpha", |a| random(a, |c| c.is_ascii_alphabetic())),
    ("sprig_randNumeric", |a| random(a, |c| c.is_ascii_digit())),
    ("sprig_randAscii", |a| random(a, |c| (32..127).contains(c))),
    ("sprig_regexMatch", regex_match),
    ("sprig_mustRegexMatch", regex_match),
    ("sprig_regexFind", regex_find),
    ("sprig_mustRegexFind", regex_find),
    ("sprig_regexFindAll", regex_find_all),
    ("sprig_mustRegexFindAll", regex_find_all),
    ("sprig_regexReplaceAll", |a| regex_replace(a, false)),
    ("sprig_mustRegexReplaceAll", |a| regex_replace(a, false)),
    ("sprig_regexReplaceAllLiteral", |a| regex_replace(a, true)),
    ("sprig_mustRegexReplaceAllLiteral", |a| regex_replace(a, true)),
    ("sprig_regexSplit", regex_split),
    ("sprig_mustRegexSplit", regex_split),
    ("sprig_regexQuoteMeta", |a| one(a, regex::escape)),
];

/// Longest random text.
const RANDOM_MAX: i64 = 1 << 16;

fn one(arguments: &[Value], change: impl FnOnce(&str) -> String) -> Answer {
    let [text] = exactly("this function", arguments)?;
    answer(change(&text_of(text)?))
}

fn two(arguments: &[Value], change: impl FnOnce(&str, &str) -> String) -> Answer {
    let [first, text] = exactly("this function", arguments)?;
    answer(change(&text_of(first)?, &text_of(text)?))
}

fn test(arguments: &[Value], test: impl FnOnce(&str, &str) -> bool) -> Answer {
    let [first, text] = exactly("this function", arguments)?;
    answer(test(&text_of(first)?, &text_of(text)?))
}

fn trim_all(set: &str, text: &str) -> String {
    text.trim_matches(|c| set.contains(c)).to_owned()
}

/// A part of a text by bytes; ends within a character move outwards.
fn cut(text: &str, from: usize, to: usize) -> &str {
    let from = text.floor_char_boundary(from.min(text.len()));
    let to = text.floor_char_boundary(to.min(text.len()));
    text.get(from..to).unwrap_or("")
}

fn abbreviated(text: &str, width: usize) -> String {
    if text.len() <= width {
        text.to_owned()
    } else {
        format!("{}...", cut(text, 0, width.saturating_sub(3)))
    }
}

fn abbrev(arguments: &[Value]) -> Answer {
    let [width, text] = exactly("abbrev", arguments)?;
    let (width, text) = (int_of(width)?, text_of(text)?);
    if width < 4 {
        return Ok(Value::Text(text));
    }
    answer(abbreviated(&text, width as usize))
}

fn abbrev_both(arguments: &[Value]) -> Answer {
    let [left, right, text] = exactly("abbrevboth", arguments)?;
    let (left, width, text) = (int_of(left)?, int_of(right)?, text_of(text)?);
    let long = usize::try_from(width).is_ok_and(|width| text.len() > width);
    if width < 4 || left > 0 && width < 7 || !long {
        return Ok(Value::Text(text));
    }
    let kept = width as usize - 3;
    let offset = usize::try_from(left).unwrap_or(0).min(text.len()).min(text.len() - kept.min(text.len()));
    if offset <= 4 {
        return answer(format!("{}...", cut(&text, 0, kept)));
    }
    if offset + kept < text.len() {
        return answer(format!("...{}", abbreviated(cut(&text, offset, text.len()), kept)));
    }
    answer(format!("...{}", cut(&text, text.len() - kept, text.len())))
}

fn trunc(arguments: &[Value]) -> Answer {
    let [count, text] = exactly("trunc", arguments)?;
    let (count, text) = (int_of(count)?, text_of(text)?);
    let size = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if size >= text.len() {
        return Ok(Value::Text(text));
    }
    answer(if count < 0 { cut(&text, text.len() - size, text.len()) } else { cut(&text, 0, size) })
}

/// The first letter of each word changed.
fn words(text: &str, change: impl Fn(char) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.push(c);
        } else {
            out.push_str(&change(c));
        }
        inside = c.is_alphanumeric() || matches!(c, '_' | '\'');
    }
    out
}

fn substr(arguments: &[Value]) -> Answer {
    let [from, to, text] = exactly("substr", arguments)?;
    let (from, to, text) = (int_of(from)?, int_of(to)?, text_of(text)?);
    let from = usize::try_from(from).unwrap_or(0);
    let to = usize::try_from(to).ok().filter(|to| *to <= text.len()).unwrap_or(text.len());
    answer(cut(&text, from, to))
}

fn repeat(arguments: &[Value]) -> Answer {
    let [count, text] = exactly("repeat", arguments)?;
    let (count, text) = (usize::try_from(int_of(count)?).unwrap_or(0), text_of(text)?);
    fits(count.saturating_mul(text.len()))?;
    answer(text.repeat(count))
}

fn swap_case(text: &str) -> String {
    text.chars()
        .flat_map(|c| -> Vec<char> {
            if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
        })
        .collect()
}

fn shuffle(text: &str) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    let mut random = rand::rng();
    for at in (1..chars.len()).rev() {
        chars.swap(at, random.random_range(0..=at));
    }
    chars.into_iter().collect()
}

/// Words in small letters with a separator: `HTTPServer` is `http_server`.
fn parted(text: &str, separator: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::new();
    for (at, c) in chars.iter().enumerate() {
        if matches!(c, '_' | '-' | ' ') {
            if !out.is_empty() && !out.ends_with(separator) {
                out.push_str(separator);
            }
            continue;
        }
        let before = at.checked_sub(1).map(|at| chars[at]).filter(|c| c.is_alphanumeric());
        let after = chars.get(at + 1);
        let begins = before.is_some_and(|before| {
            (c.is_uppercase() && !before.is_uppercase() && !before.is_ascii_digit())
                || (c.is_uppercase() && before.is_ascii_digit())
                || (c.is_uppercase() && after.is_some_and(|after| after.is_lowercase()))
                || (c.is_ascii_digit() && before.is_alphabetic())
        });
        if begins && !out.ends_with(separator) {
            out.push_str(separator);
        }
        out.extend(c.to_lowercase());
    }
    out
}

fn camel_case(text: &str) -> String {
    let word = |word: &str| {
        let mut chars = word.chars();
        let first = chars.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default();
        format!("{first}{}", chars.as_str())
    };
    text.split(['_', '-', ' ']).filter(|part| !part.is_empty()).map(word).collect()
}

/// Breaks lines at blanks so that they are no longer than `width`, words aside.
fn wrapped(text: &str, width: usize, newline: &str) -> String {
    let width = width.max(1);
    let mut out = String::new();
    let mut rest = text;
    while rest.len() > width {
        if let Some(after) = rest.strip_prefix(' ') {
            rest = after;
            continue;
        }
        let within = &rest.as_bytes()[..=width.min(rest.len() - 1)];
        let space = within.iter().rposition(|byte| *byte == b' ').or_else(|| rest.find(' '));
        let Some(space) = space else { break };
        out.push_str(&rest[..space]);
        out.push_str(newline);
        rest = &rest[space + 1..];
    }
    out.push_str(rest);
    out
}

fn wrap(arguments: &[Value]) -> Answer {
    let [width, text] = exactly("wrap", arguments)?;
    answer(wrapped(&text_of(text)?, usize::try_from(int_of(width)?).unwrap_or(1), "\n"))
}

fn wrap_with(arguments: &[Value]) -> Answer {
    let [width, newline, text] = exactly("wrapWith", arguments)?;
    let (newline, text) = (text_of(newline)?, text_of(text)?);
    fits(newline.len().saturating_mul(text.len()))?;
    answer(wrapped(&text, usize::try_from(int_of(width)?).unwrap_or(1), &newline))
}

fn quotes(arguments: &[Value], quote: impl Fn(&str) -> String) -> Answer {
    let quoted = arguments.iter().filter(|value| !value.is_nothing()).map(|value| quote(&string(value)));
    answer(quoted.collect::<Vec<_>>().join(" "))
}

fn indent(arguments: &[Value], before: &str) -> Answer {
    let [spaces, text] = exactly("indent", arguments)?;
    let (spaces, text) = (usize::try_from(int_of(spaces)?).unwrap_or(0), text_of(text)?);
    let lines = text.matches('\n').count() + 1;
    fits(spaces.saturating_mul(lines).saturating_add(text.len()))?;
    let prefix = " ".repeat(spaces);
    answer(format!("{before}{prefix}{}", text.replace('\n', &format!("\n{prefix}"))))
}

fn replace(arguments: &[Value]) -> Answer {
    let [from, to, text] = exactly("replace", arguments)?;
    answer(replaced(&text_of(from)?, &text_of(to)?, &text_of(text)?)?)
}

/// All occurrences replaced.
///
/// # Errors
/// When the text would be too large.
pub fn replaced(from: &str, to: &str, text: &str) -> Result<String, Failure> {
    fits(text.matches(from).count().saturating_mul(to.len()).saturating_add(text.len()))?;
    Ok(text.replace(from, to))
}

fn plural(arguments: &[Value]) -> Answer {
    let [one, many, count] = exactly("plural", arguments)?;
    Ok(if int_of(count)? == 1 { one.clone() } else { many.clone() })
}

fn numbered(parts: Vec<&str>) -> Value {
    Value::map(
        parts
            .into_iter()
            .enumerate()
            .map(|(at, part)| (Key::from(format!("_{at}").as_str()), Value::from(part))),
    )
}

fn pieces<'a>(separator: &str, text: &'a str) -> Vec<&'a str> {
    if separator.is_empty() {
        return text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]).collect();
    }
    text.split(separator).collect()
}

fn split(arguments: &[Value]) -> Answer {
    let [separator, text] = exactly("split", arguments)?;
    Ok(numbered(pieces(&text_of(separator)?, &text_of(text)?)))
}

fn split_list(arguments: &[Value]) -> Answer {
    let [separator, text] = exactly("splitList", arguments)?;
    Ok(Value::texts(pieces(&text_of(separator)?, &text_of(text)?)))
}

fn split_n(arguments: &[Value]) -> Answer {
    let [separator, count, text] = exactly("splitn", arguments)?;
    let (separator, count, text) = (text_of(separator)?, int_of(count)?, text_of(text)?);
    let parts = match usize::try_from(count) {
        Ok(count) => text.splitn(count, separator.as_ref()).collect(),
        Err(_) => pieces(&separator, &text),
    };
    Ok(numbered(parts))
}

fn join(arguments: &[Value]) -> Answer {
    let [separator, list] = exactly("join", arguments)?;
    let (separator, texts) = (text_of(separator)?, strings(list));
    fits(texts.iter().map(|text| text.len() + separator.len()).sum())?;
    answer(texts.join(&separator))
}

fn random(arguments: &[Value], wanted: impl Fn(&u8) -> bool) -> Answer {
    let [count] = exactly("random", arguments)?;
    let count = int(count);
    if !(0..=RANDOM_MAX).contains(&count) {
        return Err(Failure::called(format_args!("the length must be between 0 and {RANDOM_MAX}")));
    }
    let set: Vec<u8> = (0..128).filter(|c| wanted(c)).collect();
    let mut random = rand::rng();
    answer((0..count).map(|_| char::from(set[random.random_range(0..set.len())])).collect::<String>())
}

fn regex(pattern: &Value) -> Result<Regex, Failure> {
    Regex::new(&text_of(pattern)?).map_err(Failure::called)
}

fn regex_match(arguments: &[Value]) -> Answer {
    let [pattern, text] = exactly("regexMatch", arguments)?;
    answer(regex(pattern)?.is_match(&text_of(text)?))
}

fn regex_find(arguments: &[Value]) -> Answer {
    let [pattern, text] = exactly("regexFind", arguments)?;
    answer(regex(pattern)?.find(&text_of(text)?).map_or("", |found| found.as_str()))
}

fn regex_find_all(arguments: &[Value]) -> Answer {
    let [pattern, text, count] = exactly("regexFindAll", arguments)?;
    let count = usize::try_from(int_of(count)?).unwrap_or(usize::MAX);
    let text = text_of(text)?;
    Ok(Value::texts(regex(pattern)?.find_iter(&text).take(count).map(|found| found.as_str())))
}

fn regex_replace(arguments: &[Value], literal: bool) -> Answer {
    let [pattern, text, to] = exactly("regexReplaceAll", arguments)?;
    answer(regex_replaced(&regex(pattern)?, &text_of(text)?, &text_of(to)?, literal)?)
}

/// All matches replaced; in `to`, `$1` and the like stand for groups unless it is literal.
///
/// # Errors
/// When the text would be too large.
pub fn regex_replaced(regex: &Regex, text: &str, to: &str, literal: bool) -> Result<String, Failure> {
    let mut out = String::new();
    let mut done = 0;
    for found in regex.captures_iter(text) {
        let Some(whole) = found.get(0) else { continue };
        out.push_str(&text[done..whole.start()]);
        if literal {
            out.push_str(to);
        } else {
            found.expand(to, &mut out);
        }
        fits(out.len())?;
        done = whole.end();
    }
    out.push_str(&text[done..]);
    Ok(out)
}

fn regex_split(arguments: &[Value]) -> Answer {
    let [pattern, text, count] = exactly("regexSplit", arguments)?;
    let (count, text) = (int_of(count)?, text_of(text)?);
    let regex = regex(pattern)?;
    if is_empty(&Value::Int(count)) {
        return Ok(Value::from(Vec::new()));
    }
    match usize::try_from(count) {
        Ok(count) => Ok(Value::texts(regex.splitn(&text, count))),
        Err(_) => Ok(Value::texts(regex.split(&text))),
    }
}
