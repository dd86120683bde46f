//! Sprig's functions on paths, encodings, hashes, addresses and versions.

use std::net::ToSocketAddrs;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::Digest;
use sha1::Sha1;
use sha2::Sha256;
use sha2::Sha512;

use super::Row;
use super::answer;
use super::string;
use crate::gotemplate::Answer;
use crate::gotemplate::Failure;
use crate::gotemplate::exactly;
use crate::gotemplate::text_of;
use crate::gotemplate::value::Key;
use crate::gotemplate::value::Object;
use crate::gotemplate::value::Value;

pub(super) const TABLE: &[Row] = &[
    ("sprig_base", |a| one(a, base)),
    ("sprig_osBase", |a| one(a, base)),
    ("sprig_dir", |a| one(a, dir)),
    ("sprig_osDir", |a| one(a, dir)),
    ("sprig_clean", |a| one(a, clean)),
    ("sprig_osClean", |a| one(a, clean)),
    ("sprig_ext", |a| one(a, ext)),
    ("sprig_osExt", |a| one(a, ext)),
    ("sprig_isAbs", |a| answer(text_of(&exactly::<1>("isAbs", a)?[0])?.starts_with('/'))),
    ("sprig_osIsAbs", |a| answer(text_of(&exactly::<1>("osIsAbs", a)?[0])?.starts_with('/'))),
    ("sprig_b64enc", |a| one(a, |text| STANDARD.encode(text))),
    ("sprig_b64dec", |a| {
        one(a, |text| match STANDARD.decode(text) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => error.to_string(),
        })
    }),
    ("sprig_b32enc", |a| one(a, |text| base32(text.as_bytes()))),
    ("sprig_b32dec", |a| {
        one(a, |text| from_base32(text).unwrap_or_else(|| "illegal base32 data".to_owned()))
    }),
    ("sprig_sha1sum", |a| one(a, |text| hex::encode(Sha1::digest(text)))),
    ("sprig_sha256sum", |a| one(a, |text| hex::encode(Sha256::digest(text)))),
    ("sprig_sha512sum", |a| one(a, |text| hex::encode(Sha512::digest(text)))),
    ("sprig_adler32sum", |a| one(a, |text| adler32(text.as_bytes()).to_string())),
    ("sprig_randBytes", rand_bytes),
    ("sprig_uuidv4", |_| answer(uuid::Uuid::new_v4().to_string())),
    ("sprig_fail", |a| Err(Failure::Called(string(&exactly::<1>("fail", a)?[0])))),
    ("sprig_urlParse", url_parse),
    ("sprig_urlJoin", url_join),
    ("sprig_semver", |a| {
        let text = text_of(&exactly::<1>("semver", a)?[0])?;
        match Version::parse(&text) {
            Some(version) => Ok(Value::Object(Rc::new(version))),
            None => Err(Failure::called("Invalid Semantic Version")),
        }
    }),
    ("sprig_semverCompare", semver_compare),
];

/// Most random bytes at once.
const RANDOM_MAX: i64 = 1 << 16;

fn one(arguments: &[Value], change: impl FnOnce(&str) -> String) -> Answer {
    let [text] = exactly("this function", arguments)?;
    answer(change(&text_of(text)?))
}

fn base(path: &str) -> String {
    match path.trim_end_matches('/') {
        "" if path.is_empty() => ".".to_owned(),
        "" => "/".to_owned(),
        path => path.rsplit('/').next().unwrap_or_default().to_owned(),
    }
}

fn dir(path: &str) -> String {
    clean(path.rfind('/').map_or("", |at| &path[..=at]))
}

fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            other => parts.push(other),
        }
    }
    match (rooted, parts.join("/")) {
        (true, rest) => format!("/{rest}"),
        (false, rest) if rest.is_empty() => ".".to_owned(),
        (false, rest) => rest,
    }
}

fn ext(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.rfind('.').map_or("", |at| &name[at..]).to_owned()
}

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

fn base32(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(5) {
        let mut group = [0; 5];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = group.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
        let digits = (chunk.len() * 8).div_ceil(5);
        for at in 0..8 {
            let digit = BASE32[(bits >> (35 - 5 * at) & 31) as usize];
            out.push(if at < digits { char::from(digit) } else { '=' });
        }
    }
    out
}

fn from_base32(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0u32, 0);
    for c in text.trim_end_matches('=').bytes() {
        let digit = BASE32.iter().position(|known| *known == c)?;
        bits = bits << 5 | digit as u32;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65521;
        (a, (b + a) % 65521)
    });
    b << 16 | a
}

fn rand_bytes(arguments: &[Value]) -> Answer {
    let [count] = exactly("randBytes", arguments)?;
    let count = super::int(count);
    if !(0..=RANDOM_MAX).contains(&count) {
        return Err(Failure::called(format_args!("the length must be between 0 and {RANDOM_MAX}")));
    }
    let bytes: Vec<u8> = (0..count).map(|_| rand::random()).collect();
    answer(STANDARD.encode(bytes))
}

/// Splits as RFC 3986 says, and keeps what is written: also a port that the scheme implies.
fn url_parse(arguments: &[Value]) -> Answer {
    let [text] = exactly("urlParse", arguments)?;
    let text = text_of(text)?;
    if text.contains(|c: char| c.is_control()) {
        return Err(Failure::called("unable to parse url: invalid control character in URL"));
    }
    let (rest, fragment) = text.split_once('#').unwrap_or((&text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let word = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    };
    let (scheme, rest) = rest.split_once(':').filter(|(scheme, _)| word(scheme)).unwrap_or(("", rest));
    let (authority, path, opaque) = match rest.strip_prefix("//") {
        Some(rest) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            (authority, path, "")
        }
        None if !scheme.is_empty() && !rest.starts_with('/') => ("", "", rest),
        None => ("", rest, ""),
    };
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let name = match host.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    let scheme = scheme.to_lowercase();
    let fields = [
        ("scheme", scheme.as_str()),
        ("host", host),
        ("hostname", name),
        ("path", path),
        ("query", query),
        ("opaque", opaque),
        ("fragment", fragment),
        ("userinfo", user),
    ];
    Ok(Value::map(fields.into_iter().map(|(name, value)| (Key::from(name), Value::from(value)))))
}

fn url_join(arguments: &[Value]) -> Answer {
    let [parts] = exactly("urlJoin", arguments)?;
    let Value::Map(parts) = parts.viewed() else {
        return Err(Failure::called("urlJoin needs a map"));
    };
    let part = |name: &str| parts.text(name).map(|value| value.to_text()).filter(|text| !text.is_empty());
    let mut out = String::new();
    if let Some(scheme) = part("scheme") {
        out.push_str(&format!("{scheme}:"));
    }
    if let Some(opaque) = part("opaque") {
        out.push_str(&opaque);
    } else {
        let path = part("path").unwrap_or_default();
        if let Some(host) = part("host") {
            let user = part("userinfo").map(|user| format!("{user}@")).unwrap_or_default();
            let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
            out.push_str(&format!("//{user}{host}{slash}"));
        }
        out.push_str(&path);
    }
    if let Some(query) = part("query") {
        out.push_str(&format!("?{query}"));
    }
    if let Some(fragment) = part("fragment") {
        out.push_str(&format!("#{fragment}"));
    }
    answer(out)
}

pub(super) fn host_by_name(arguments: &[Value]) -> Answer {
    let [name] = exactly("getHostByName", arguments)?;
    let found = (text_of(name)?.as_ref(), 0).to_socket_addrs().ok().and_then(|mut found| found.next());
    answer(found.map(|address| address.ip().to_string()).unwrap_or_default())
}

/// A semantic version, with what may be missing in it.
#[derive(Clone, Debug, PartialEq)]
struct Version {
    original: String,
    numbers: [u64; 3],
    /// Numbers that were given.
    given: usize,
    pre: String,
    meta: String,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let plain = text.strip_prefix('v').unwrap_or(text);
        let (rest, meta) = plain.split_once('+').unwrap_or((plain, ""));
        let (core, pre) = rest.split_once('-').unwrap_or((rest, ""));
        let mut numbers = [0; 3];
        let mut given = 0;
        for part in core.split('.') {
            // `1.x` and `1.*` give as many as they have.
            if matches!(part, "x" | "X" | "*") {
                break;
            }
            *numbers.get_mut(given)? = part.parse().ok()?;
            given += 1;
        }
        let word = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
        (word(pre) && word(meta)).then(|| Self {
            original: text.to_owned(),
            numbers,
            given,
            pre: pre.to_owned(),
            meta: meta.to_owned(),
        })
    }

    fn order(&self, other: &Self) -> std::cmp::Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.as_str(), other.pre.as_str()) {
            ("", "") => std::cmp::Ordering::Equal,
            ("", _) => std::cmp::Ordering::Greater,
            (_, "") => std::cmp::Ordering::Less,
            (left, right) => pre_release(left).cmp(&pre_release(right)),
        })
    }
}

/// Identifiers in their order: numbers before words.
fn pre_release(text: &str) -> Vec<(bool, u64, &str)> {
    text.split('.').map(|part| part.parse().map_or((true, 0, part), |number| (false, number, ""))).collect()
}

impl Object for Version {
    fn type_name(&self) -> &'static str {
        "*semver.Version"
    }

    fn member(&self, name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
        let number = |at: usize| Some(Ok(Value::Uint(self.numbers[at])));
        match name {
            "Major" => number(0),
            "Minor" => number(1),
            "Patch" => number(2),
            "Prerelease" => Some(Ok(Value::from(&self.pre))),
            "Metadata" => Some(Ok(Value::from(&self.meta))),
            "Original" => Some(Ok(Value::from(&self.original))),
            "String" => Some(Ok(self.view())),
            "Compare" => {
                let other = match arguments {
                    [other] => Self::parse(&other.to_text()),
                    _ => None,
                };
                Some(
                    other
                        .map(|other| Value::Int(self.order(&other) as i64))
                        .ok_or_else(|| "expected another version".to_owned()),
                )
            }
            _ => None,
        }
    }

    fn view(&self) -> Value {
        let [major, minor, patch] = self.numbers;
        let pre = if self.pre.is_empty() { String::new() } else { format!("-{}", self.pre) };
        let meta = if self.meta.is_empty() { String::new() } else { format!("+{}", self.meta) };
        Value::from(format!("{major}.{minor}.{patch}{pre}{meta}"))
    }
}

fn semver_compare(arguments: &[Value]) -> Answer {
    let [constraint, version] = exactly("semverCompare", arguments)?;
    let constraint = text_of(constraint)?;
    let version = Version::parse(&text_of(version)?);
    let version = version.ok_or_else(|| Failure::called("Invalid Semantic Version"))?;
    for alternative in constraint.split("||") {
        let mut all = true;
        for bound in bounds(alternative) {
            all &= admits(&bound, &version)
                .ok_or_else(|| Failure::called(format_args!("improper constraint: {constraint}")))?;
        }
        if all {
            return answer(true);
        }
    }
    answer(false)
}

/// `1.2 - 1.4` and lists with commas or blanks, as single comparisons.
fn bounds(text: &str) -> Vec<String> {
    if let Some((low, high)) = text.split_once(" - ") {
        return vec![format!(">={}", low.trim()), format!("<={}", high.trim())];
    }
    let mut bounds: Vec<String> = Vec::new();
    for word in text.split([',', ' ']).filter(|word| !word.is_empty()) {
        match bounds.last_mut() {
            // An operator with a blank behind it.
            Some(last) if last.chars().all(|c| matches!(c, '<' | '>' | '=' | '!' | '~' | '^')) => {
                last.push_str(word);
            }
            _ => bounds.push(word.to_owned()),
        }
    }
    bounds
}

fn admits(bound: &str, version: &Version) -> Option<bool> {
    let split = bound.find(|c: char| !matches!(c, '<' | '>' | '=' | '!' | '~' | '^')).unwrap_or(bound.len());
    let (operator, text) = bound.split_at(split);
    let wanted = Version::parse(text)?;
    // Pre-releases are meant only where a bound has one.
    if !version.pre.is_empty() && wanted.pre.is_empty() && operator != "!=" {
        return Some(false);
    }
    let order = version.order(&wanted);
    let given = version.numbers[..wanted.given] == wanted.numbers[..wanted.given];
    Some(match operator {
        "" | "=" | "==" if wanted.given < 3 => given,
        "" | "=" | "==" => order.is_eq(),
        "!=" if wanted.given < 3 => !given,
        "!=" => order.is_ne(),
        ">" if wanted.given < 3 => order.is_gt() && !given,
        ">" => order.is_gt(),
        ">=" | "=>" => order.is_ge(),
        "<" => order.is_lt(),
        "<=" | "=<" => order.is_le() || (wanted.given < 3 && given),
        "~" | "~>" => {
            let kept = wanted.given.clamp(0, 2);
            order.is_ge() && version.numbers[..kept] == wanted.numbers[..kept]
        }
        "^" => {
            let kept =
                wanted.numbers.iter().position(|number| *number != 0).map_or(wanted.given, |at| at + 1);
            order.is_ge() && version.numbers[..kept] == wanted.numbers[..kept]
        }
        _ => return None,
    })
}
