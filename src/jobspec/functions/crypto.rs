//! Digests and identifiers.

use hcl::Value;
use hcl::eval::FuncArgs;
use md5::Md5;
use sha1::Sha1;
use sha2::Digest;
use sha2::Sha256;
use sha2::Sha512;
use uuid::Uuid;

use super::Answer;
use super::Entry;
use super::arity;
use super::text;

pub(super) const FUNCTIONS: &[Entry] = &[
    ("md5", |args| digest::<Md5>(&args)),
    ("sha1", |args| digest::<Sha1>(&args)),
    ("sha256", |args| digest::<Sha256>(&args)),
    ("sha512", |args| digest::<Sha512>(&args)),
    ("uuidv4", |args| {
        arity(&args, 0, 0)?;
        Ok(Value::String(Uuid::new_v4().to_string()))
    }),
    ("uuidv5", uuidv5),
];

fn digest<D: Digest>(args: &FuncArgs) -> Answer {
    arity(args, 1, 1)?;
    Ok(Value::String(hex::encode(D::digest(text(args, 0)?.as_bytes()))))
}

fn uuidv5(args: FuncArgs) -> Answer {
    arity(&args, 2, 2)?;
    let namespace = match text(&args, 0)?.as_str() {
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
    hasher.update(text(&args, 1)?.as_bytes());
    let hash = hasher.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    Ok(Value::String(uuid::Builder::from_sha1_bytes(bytes).into_uuid().to_string()))
}
