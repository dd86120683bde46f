//! Template functions on text. The subject is the last argument, so that they can stand in a pipe.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE;
use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use md5::Md5;
use regex::Regex;
use sha2::Digest;
use sha2::Sha256;

use crate::gotemplate::Answer;
use crate::gotemplate::Failure;
use crate::gotemplate::Plain;
use crate::gotemplate::exactly;
use crate::gotemplate::fits;
use crate::gotemplate::int_of;
use crate::gotemplate::regex_replaced;
use crate::gotemplate::replaced;
use crate::gotemplate::text_of;
use crate::gotemplate::value::Key;
use crate::gotemplate::value::Value;

pub(super) const FUNCTIONS: &[(&str, Plain)] = &[
    ("base64Decode", |a| decoded("base64Decode", &STANDARD, a)),
    ("base64Encode", |a| one("base64Encode", a, |text| STANDARD.encode(text))),
    ("base64URLDecode", |a| decoded("base64URLDecode", &URL_SAFE, a)),
    ("base64URLEncode", |a| one("base64URLEncode", a, |text| URL_SAFE.encode(text))),
    ("hmacSHA256Hex", |a| {
        let [message, key] = exactly("hmacSHA256Hex", a)?;
        let mut mac = Hmac::<Sha256>::new_from_slice(text_of(key)?.as_bytes()).map_err(Failure::called)?;
        mac.update(text_of(message)?.as_bytes());
        Ok(Value::from(hex::encode(mac.finalize().into_bytes())))
    }),
    ("indent", indent),
    ("join", join),
    ("md5sum", |a| one("md5sum", a, |text| hex::encode(Md5::digest(text)))),
    ("regexMatch", |a| {
        let [pattern, text] = exactly("regexMatch", a)?;
        Ok(Value::Bool(regex(pattern)?.is_match(&text_of(text)?)))
    }),
    ("regexReplaceAll", |a| {
        let [pattern, to, text] = exactly("regexReplaceAll", a)?;
        Ok(Value::from(regex_replaced(&regex(pattern)?, &text_of(text)?, &text_of(to)?, false)?))
    }),
    ("replaceAll", |a| {
        let [from, to, text] = exactly("replaceAll", a)?;
        Ok(Value::from(replaced(&text_of(from)?, &text_of(to)?, &text_of(text)?)?))
    }),
    ("sha256Hex", |a| one("sha256Hex", a, |text| hex::encode(Sha256::digest(text)))),
    ("split", split),
    ("splitToMap", split_to_map),
    ("toLower", |a| one("toLower", a, str::to_lowercase)),
    ("toTitle", |a| one("toTitle", a, title)),
    ("toUpper", |a| one("toUpper", a, str::to_uppercase)),
    ("trim", |a| two("trim", a, |set, text| text.trim_matches(|c| set.contains(c)).to_owned())),
    ("trimPrefix", |a| {
        two("trimPrefix", a, |prefix, text| text.strip_prefix(prefix).unwrap_or(text).to_owned())
    }),
    ("trimSpace", |a| one("trimSpace", a, |text| text.trim().to_owned())),
    ("trimSuffix", |a| {
        two("trimSuffix", a, |suffix, text| text.strip_suffix(suffix).unwrap_or(text).to_owned())
    }),
];

fn one(name: &str, arguments: &[Value], change: impl FnOnce(&str) -> String) -> Answer {
    let [text] = exactly(name, arguments)?;
    Ok(Value::from(change(&text_of(text)?)))
}

fn two(name: &str, arguments: &[Value], change: impl FnOnce(&str, &str) -> String) -> Answer {
    let [first, text] = exactly(name, arguments)?;
    Ok(Value::from(change(&text_of(first)?, &text_of(text)?)))
}

fn decoded(name: &str, engine: &impl Engine, arguments: &[Value]) -> Answer {
    let [text] = exactly(name, arguments)?;
    let bytes = engine.decode(&*text_of(text)?);
    let bytes = bytes.map_err(|error| Failure::called(format_args!("{name}: {error}")))?;
    Ok(Value::from(String::from_utf8_lossy(&bytes).into_owned()))
}

fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.push(c);
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphanumeric() || matches!(c, '_' | '\'');
    }
    out
}

/// Blank texts have no parts.
fn split(arguments: &[Value]) -> Answer {
    let [separator, text] = exactly("split", arguments)?;
    let (separator, text) = (text_of(separator)?, text_of(text)?);
    let text = text.trim();
    if text.is_empty() {
        return Ok(Value::from(Vec::new()));
    }
    if separator.is_empty() {
        return Ok(Value::texts(text.chars().map(String::from)));
    }
    Ok(Value::texts(text.split(&*separator)))
}

fn split_to_map(arguments: &[Value]) -> Answer {
    let [separator, inner, text] = exactly("splitToMap", arguments)?;
    let (separator, inner, text) = (text_of(separator)?, text_of(inner)?, text_of(text)?);
    let pairs = text.trim().split(&*separator).filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once(&*inner).unwrap_or((pair, "")));
    Ok(Value::map(pairs.map(|(key, value)| (Key::from(key), Value::from(value)))))
}

fn join(arguments: &[Value]) -> Answer {
    let [separator, list] = exactly("join", arguments)?;
    let separator = text_of(separator)?;
    let texts: Vec<String> = match list.viewed() {
        Value::List(items) => items.iter().map(Value::to_text).collect(),
        Value::Missing | Value::Nil => Vec::new(),
        other => {
            return Err(Failure::Arguments(format!(
                "wrong type for value; expected []string; got {}",
                other.type_name()
            )));
        }
    };
    fits(texts.iter().map(|text| text.len() + separator.len()).sum())?;
    Ok(Value::from(texts.join(&separator)))
}

fn regex(pattern: &Value) -> Result<Regex, Failure> {
    Regex::new(&text_of(pattern)?).map_err(Failure::called)
}

/// Empty lines stay empty.
fn indent(arguments: &[Value]) -> Answer {
    let [spaces, text] = exactly("indent", arguments)?;
    let spaces = usize::try_from(int_of(spaces)?);
    let spaces = spaces.map_err(|_| Failure::called("indent value must be a positive integer"))?;
    let text = text_of(text)?;
    let lines = text.matches('\n').count() + 1;
    fits(spaces.saturating_mul(lines).saturating_add(text.len()))?;
    let prefix = " ".repeat(spaces);
    let line = |line: &str| if line.is_empty() { String::new() } else { format!("{prefix}{line}") };
    Ok(Value::from(text.split('\n').map(line).collect::<Vec<_>>().join("\n")))
}
