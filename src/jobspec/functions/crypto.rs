//! Digests and identifiers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use rsa::PrivateKey;
use rsa::pkcs1::DecodeRsaPrivateKey;
use rsa::pkcs8::DecodePrivateKey;
use sha1::Sha1;
use sha2::Digest;
use sha2::Sha256;
use sha2::Sha512;
use uuid::Uuid;

use super::Answer;
use super::Args;
use super::Function;
use super::Value;
use super::Wrong;
use super::function;
use super::text;
use super::whole;

pub(super) const FUNCTIONS: &[Function] = &[
    function("md5", &["str"], digest::<Md5>),
    function("sha1", &["str"], digest::<Sha1>),
    function("sha256", &["str"], digest::<Sha256>),
    function("sha512", &["str"], digest::<Sha512>),
    function("bcrypt", &["str", "*cost"], bcrypt),
    function("rsadecrypt", &["ciphertext", "privatekey"], rsadecrypt),
    function("uuidv4", &[], |_| Ok(Value::String(Uuid::new_v4().to_string()))),
    function("uuidv5", &["namespace", "name"], uuidv5),
];

/// Work factors of `bcrypt`: each doubles the time, and at the highest a hash takes about a second.
const COSTS: std::ops::RangeInclusive<u32> = 4..=14;
const DEFAULT_COST: u32 = 10;

fn bcrypt(args: &Args) -> Answer {
    let cost = match args.len() {
        1 => DEFAULT_COST,
        2 => u32::try_from(whole(args, 1)?).unwrap_or(u32::MAX),
        _ => return Err("bcrypt() takes no more than two arguments".into()),
    };
    if !COSTS.contains(&cost) {
        return Err(
            format!("cost {cost} is outside allowed range ({},{})", COSTS.start(), COSTS.end()).into()
        );
    }
    let hash = ::bcrypt::non_truncating_hash_with_result(text(args, 0)?, cost);
    let hash = hash.map_err(|error| format!("error occurred generating password {error}"))?;
    Ok(Value::String(hash.format_for_version(::bcrypt::Version::TwoA)))
}

/// Decrypts what was encrypted for a key by the padding of PKCS #1 version 1.5.
fn rsadecrypt(args: &Args) -> Answer {
    let wrong = |index: usize, why: &str| Wrong::Argument(index, why.to_owned());
    let encrypted = STANDARD.decode(text(args, 0)?.trim()).map_err(|error| {
        Wrong::Argument(0, format!("failed to decode input: cipher text must be base64-encoded: {error}"))
    })?;
    let pem = text(args, 1)?;
    let key = private_key(&pem).ok_or_else(|| wrong(1, "failed to parse key: invalid private key"))?;
    let decrypted = key
        .pkcs1v15_decrypt(&encrypted)
        .map_err(|_| "failed to decrypt: the text was encrypted for another key, or is damaged")?;
    String::from_utf8(decrypted)
        .map(Value::String)
        .map_err(|_| "the decrypted text is not valid UTF-8".into())
}

/// The key of a PEM file, in the form of PKCS #1 or of PKCS #8.
fn private_key(pem: &str) -> Option<PrivateKey> {
    let body = pem.split("-----").nth(2)?;
    let body: String = body.chars().filter(|c| !c.is_whitespace()).collect();
    let der = STANDARD.decode(body).ok()?;
    PrivateKey::from_pkcs1_der(&der).ok().or_else(|| PrivateKey::from_pkcs8_der(&der).ok())
}

fn digest<D: Digest>(args: &Args) -> Answer {
    Ok(Value::String(hex::encode(D::digest(text(args, 0)?.as_bytes()))))
}

fn uuidv5(args: &Args) -> Answer {
    let namespace = match text(args, 0)?.as_str() {
        "dns" => Uuid::NAMESPACE_DNS,
        "url" => Uuid::NAMESPACE_URL,
        "oid" => Uuid::NAMESPACE_OID,
        "x500" => Uuid::NAMESPACE_X500,
        other => {
            Uuid::parse_str(other).map_err(|_| format!("uuidv5() doesn't support namespace {other:?}"))?
        }
    };
    let mut hasher = Sha1::new();
    hasher.update(namespace.as_bytes());
    hasher.update(text(args, 1)?.as_bytes());
    let hash = hasher.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    Ok(Value::String(uuid::Builder::from_sha1_bytes(bytes).into_uuid().to_string()))
}
