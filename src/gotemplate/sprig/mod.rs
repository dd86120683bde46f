//! The functions of the Sprig library, which Nomad offers as `sprig_<name>`.

mod dates;
mod lists;
mod maps;
mod numbers;
mod other;
mod text;

use std::cell::Cell;

use chrono::DateTime;
use chrono::Utc;

use super::Answer;
use super::Failure;
use super::Functions;
use super::Plain;
use super::text_of;
use super::time::Moment;
use super::value::Value;
pub use text::regex_replaced;
pub use text::replaced;

/// Host names that one rendering may look up.
const LOOKUPS_MAX: usize = 20;

/// Keys and certificates are secrets: made in a template they would change with every rendering, and end in a file.
const NOT_BUILT: &[&str] = &[
    "sprig_bcrypt",
    "sprig_buildCustomCert",
    "sprig_decryptAES",
    "sprig_derivePassword",
    "sprig_encryptAES",
    "sprig_genCA",
    "sprig_genCAWithKey",
    "sprig_genPrivateKey",
    "sprig_genSelfSignedCert",
    "sprig_genSelfSignedCertWithKey",
    "sprig_genSignedCert",
    "sprig_genSignedCertWithKey",
    "sprig_htpasswd",
];

/// Adds all functions. `now` is the time that `now` gives, `env` answers `env` and `expandenv`.
pub fn add<'a>(
    functions: &mut Functions<'a>,
    now: DateTime<Utc>,
    env: impl Fn(&str) -> Option<String> + Clone + 'a,
) {
    for table in [text::TABLE, lists::TABLE, maps::TABLE, numbers::TABLE, other::TABLE] {
        functions.add(table);
    }
    for name in NOT_BUILT {
        functions
            .bind(*name, move |_| Err(Failure::called(format_args!("{name} is not available in Herder"))));
    }
    let asked = Cell::new(0);
    functions.bind("sprig_getHostByName", move |arguments| {
        // Each of them may take seconds.
        asked.set(asked.get() + 1);
        if asked.get() > LOOKUPS_MAX {
            return Err(Failure::called(format_args!("more than {LOOKUPS_MAX} names to look up")));
        }
        other::host_by_name(arguments)
    });
    functions.bind("sprig_now", move |_| Ok(Moment::utc(now).value()));
    for (name, function) in dates::TABLE {
        functions.bind(*name, move |arguments| function(arguments, now));
    }
    let look_up = env.clone();
    functions.bind("sprig_env", move |arguments| {
        let [name] = super::exactly("sprig_env", arguments)?;
        Ok(Value::from(look_up(&text_of(name)?).unwrap_or_default()))
    });
    functions.bind("sprig_expandenv", move |arguments| {
        let [text] = super::exactly("sprig_expandenv", arguments)?;
        Ok(Value::from(expanded(&text_of(text)?, &env)))
    });
}

/// `$NAME` and `${NAME}` replaced.
fn expanded(text: &str, env: &impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (name, left) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, left)) => (name, left),
            None => {
                let end = after.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(after.len());
                after.split_at(end)
            }
        };
        if name.is_empty() {
            out.push('$');
        } else {
            out.push_str(&env(name).unwrap_or_default());
        }
        rest = left;
    }
    out.push_str(rest);
    out
}

/// What Sprig takes for empty.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Struct(_) => false,
        other => !other.truth(),
    }
}

/// Any value as text, as Sprig's `toString`.
fn string(value: &Value) -> String {
    match value {
        Value::Missing | Value::Nil => "<nil>".to_owned(),
        other => other.to_text(),
    }
}

/// Any value as a whole number; 0 when it is none.
fn int(value: &Value) -> i64 {
    match value.viewed() {
        Value::Int(number) => number,
        Value::Uint(number) => i64::try_from(number).unwrap_or(i64::MAX),
        Value::Float(number) => number as i64,
        Value::Bool(truth) => i64::from(truth),
        Value::Text(text) => {
            let text = text.trim();
            let whole = text.split_once('.').filter(|(_, rest)| rest.bytes().all(|b| b == b'0'));
            text.parse().unwrap_or_else(|_| whole.and_then(|(whole, _)| whole.parse().ok()).unwrap_or(0))
        }
        _ => 0,
    }
}

/// Any value as a floating number; 0 when it is none.
fn float(value: &Value) -> f64 {
    match value.viewed() {
        Value::Text(text) => text.trim().parse().unwrap_or(0.0),
        Value::Bool(truth) => f64::from(u8::from(truth)),
        other => super::value::number(&other).unwrap_or(0.0),
    }
}

/// Items of a list; of text its one self where `alone` is wanted.
fn items(function: &str, value: &Value) -> Result<Vec<Value>, Failure> {
    match value.viewed() {
        Value::List(items) => Ok(items.to_vec()),
        other => Err(Failure::called(format_args!("Cannot {function} on type {}", other.kind()))),
    }
}

/// Items as texts, without nils; something that is no list stands for itself.
fn strings(value: &Value) -> Vec<String> {
    match value.viewed() {
        Value::List(items) => items.iter().filter(|item| !item.is_nothing()).map(string).collect(),
        Value::Missing | Value::Nil => Vec::new(),
        other => vec![string(&other)],
    }
}

fn answer(value: impl Into<Value>) -> Answer {
    Ok(value.into())
}

/// Rows of a table for a function and its `must…` twin, which fails alike here.
type Row = (&'static str, Plain);
