//! Digests and identifiers.

use md5::Md5;
use sha1::Sha1;
use sha2::Digest;
use sha2::Sha256;
use sha2::Sha512;
use uuid::Uuid;

use super::Answer;
use super::Args;
use super::Function;
use super::Value;
use super::function;
use super::text;

pub(super) const FUNCTIONS: &[Function] = &[
    function("md5", &["str"], digest::<Md5>),
    function("sha1", &["str"], digest::<Sha1>),
    function("sha256", &["str"], digest::<Sha256>),
    function("sha512", &["str"], digest::<Sha512>),
    function("uuidv4", &[], |_| Ok(Value::String(Uuid::new_v4().to_string()))),
    function("uuidv5", &["namespace", "name"], uuidv5),
];

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
