//! Template functions on text. The subject is the last argument, so that they can stand in a pipe.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE;
use gtmpl_ng::FuncError;
use gtmpl_ng::Value;
use md5::Md5;
use regex::Regex;
use sha2::Digest;
use sha2::Sha256;

use super::data::integer;
use super::functions::exactly;
use super::functions::fail;
use super::functions::text_of;

type Answered = Result<Value, FuncError>;

/// Bytes of one block of SHA-256, for HMAC.
const SHA256_BLOCK: usize = 64;
/// Longest text that `repeat` makes, bytes.
const REPEAT_MAX: usize = 1 << 20;

fn one(name: &str, arguments: &[Value], change: impl FnOnce(&str) -> String) -> Answered {
    let [text] = exactly(name, arguments)?;
    Ok(Value::from(change(&text_of(text))))
}

fn two(name: &str, arguments: &[Value], change: impl FnOnce(&str, &str) -> Value) -> Answered {
    let [first, text] = exactly(name, arguments)?;
    Ok(change(&text_of(first), &text_of(text)))
}

fn decoded(name: &str, engine: &impl Engine, arguments: &[Value]) -> Answered {
    let [text] = exactly(name, arguments)?;
    match engine.decode(text_of(text)) {
        Ok(bytes) => Ok(Value::from(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) => fail(name, format_args!("{name}: {error}")),
    }
}

pub(super) fn base64_decode(arguments: &[Value]) -> Answered {
    decoded("base64Decode", &STANDARD, arguments)
}

pub(super) fn base64_encode(arguments: &[Value]) -> Answered {
    one("base64Encode", arguments, |text| STANDARD.encode(text))
}

pub(super) fn base64_url_decode(arguments: &[Value]) -> Answered {
    decoded("base64URLDecode", &URL_SAFE, arguments)
}

pub(super) fn base64_url_encode(arguments: &[Value]) -> Answered {
    one("base64URLEncode", arguments, |text| URL_SAFE.encode(text))
}

pub(super) fn to_text(arguments: &[Value]) -> Answered {
    one("toString", arguments, str::to_owned)
}

pub(super) fn to_lower(arguments: &[Value]) -> Answered {
    one("toLower", arguments, str::to_lowercase)
}

pub(super) fn to_upper(arguments: &[Value]) -> Answered {
    one("toUpper", arguments, str::to_uppercase)
}

pub(super) fn to_title(arguments: &[Value]) -> Answered {
    one("toTitle", arguments, |text| {
        let mut out = String::with_capacity(text.len());
        let mut inside = false;
        for c in text.chars() {
            if inside {
                out.push(c)
            } else {
                out.extend(c.to_uppercase())
            }
            inside = c.is_alphanumeric() || matches!(c, '_' | '\'');
        }
        out
    })
}

pub(super) fn trim(arguments: &[Value]) -> Answered {
    two("trim", arguments, |set, text| Value::from(text.trim_matches(|c| set.contains(c))))
}

pub(super) fn trim_prefix(arguments: &[Value]) -> Answered {
    two("trimPrefix", arguments, |prefix, text| Value::from(text.strip_prefix(prefix).unwrap_or(text)))
}

pub(super) fn trim_suffix(arguments: &[Value]) -> Answered {
    two("trimSuffix", arguments, |suffix, text| Value::from(text.strip_suffix(suffix).unwrap_or(text)))
}

pub(super) fn trim_space(arguments: &[Value]) -> Answered {
    one("trimSpace", arguments, |text| text.trim().to_owned())
}

pub(super) fn split(arguments: &[Value]) -> Answered {
    two("split", arguments, |separator, text| {
        if text.trim().is_empty() {
            return Value::Array(Vec::new());
        }
        if separator.is_empty() {
            return Value::Array(text.chars().map(|c| Value::from(c.to_string())).collect());
        }
        Value::Array(text.split(separator).map(Value::from).collect())
    })
}

pub(super) fn split_to_map(arguments: &[Value]) -> Answered {
    let [separator, inner, text] = exactly("splitToMap", arguments)?;
    let (separator, inner, text) = (text_of(separator), text_of(inner), text_of(text));
    let pairs = text.split(separator.as_str()).filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once(inner.as_str()).unwrap_or((pair, "")));
    Ok(Value::Map(pairs.map(|(key, value)| (key.to_owned(), Value::from(value))).collect()))
}

pub(super) fn join(arguments: &[Value]) -> Answered {
    let [separator, list] = exactly("join", arguments)?;
    match list {
        Value::Array(items) => {
            let texts: Vec<String> = items.iter().map(text_of).collect();
            Ok(Value::from(texts.join(&text_of(separator))))
        }
        Value::NoValue | Value::Nil => Ok(Value::from("")),
        other => fail("join", format_args!("expected a list, got {other}")),
    }
}

pub(super) fn replace_all(arguments: &[Value]) -> Answered {
    let [from, to, text] = exactly("replaceAll", arguments)?;
    Ok(Value::from(text_of(text).replace(&text_of(from), &text_of(to))))
}

fn regex(name: &str, pattern: &Value) -> Result<Regex, FuncError> {
    Regex::new(&text_of(pattern)).or_else(|error| fail(name, error))
}

pub(super) fn regex_match(arguments: &[Value]) -> Answered {
    let [pattern, text] = exactly("regexMatch", arguments)?;
    Ok(Value::from(regex("regexMatch", pattern)?.is_match(&text_of(text))))
}

pub(super) fn regex_replace_all(arguments: &[Value]) -> Answered {
    let [pattern, to, text] = exactly("regexReplaceAll", arguments)?;
    let replaced = regex("regexReplaceAll", pattern)?.replace_all(&text_of(text), text_of(to)).into_owned();
    Ok(Value::from(replaced))
}

fn indented(spaces: &Value, text: &str) -> Result<String, FuncError> {
    let spaces = usize::try_from(integer("indent", spaces)?)
        .or_else(|_| fail("indent", "indent value must be a positive integer"))?;
    let prefix = " ".repeat(spaces.min(REPEAT_MAX));
    Ok(text.split('\n').map(|line| format!("{prefix}{line}")).collect::<Vec<_>>().join("\n"))
}

pub(super) fn indent(arguments: &[Value]) -> Answered {
    let [spaces, text] = exactly("indent", arguments)?;
    Ok(Value::from(indented(spaces, &text_of(text))?))
}

pub(super) fn nindent(arguments: &[Value]) -> Answered {
    let [spaces, text] = exactly("nindent", arguments)?;
    Ok(Value::from(format!("\n{}", indented(spaces, &text_of(text))?)))
}

pub(super) fn has_text(arguments: &[Value]) -> Answered {
    two("contains", arguments, |part, text| Value::from(text.contains(part)))
}

pub(super) fn has_prefix(arguments: &[Value]) -> Answered {
    two("hasPrefix", arguments, |part, text| Value::from(text.starts_with(part)))
}

pub(super) fn has_suffix(arguments: &[Value]) -> Answered {
    two("hasSuffix", arguments, |part, text| Value::from(text.ends_with(part)))
}

pub(super) fn repeat(arguments: &[Value]) -> Answered {
    let [times, text] = exactly("repeat", arguments)?;
    let (times, text) = (usize::try_from(integer("repeat", times)?).unwrap_or(0), text_of(text));
    if times.saturating_mul(text.len()) > REPEAT_MAX {
        return fail("repeat", format_args!("the text would be longer than {REPEAT_MAX} bytes"));
    }
    Ok(Value::from(text.repeat(times)))
}

pub(super) fn quote(arguments: &[Value]) -> Answered {
    let quoted: Vec<String> = arguments.iter().map(|value| format!("{:?}", text_of(value))).collect();
    Ok(Value::from(quoted.join(" ")))
}

pub(super) fn squote(arguments: &[Value]) -> Answered {
    let quoted: Vec<String> = arguments.iter().map(|value| format!("'{}'", text_of(value))).collect();
    Ok(Value::from(quoted.join(" ")))
}

pub(super) fn md5_sum(arguments: &[Value]) -> Answered {
    one("md5sum", arguments, |text| hex::encode(Md5::digest(text)))
}

pub(super) fn sha256_hex(arguments: &[Value]) -> Answered {
    one("sha256Hex", arguments, |text| hex::encode(Sha256::digest(text)))
}

pub(super) fn hmac_sha256_hex(arguments: &[Value]) -> Answered {
    two("hmacSHA256Hex", arguments, |message, key| {
        Value::from(hex::encode(hmac(key.as_bytes(), message.as_bytes())))
    })
}

/// HMAC-SHA-256 as in RFC 2104.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0; SHA256_BLOCK];
    if key.len() > SHA256_BLOCK {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().to_vec()
}
