//! Checksums of downloads: `sha256:<hex>` and the like.

use std::io::Read;

use md5::Md5;
use sha1::Sha1;
use sha2::Digest;
use sha2::Sha256;
use sha2::Sha512;

/// Bytes read at once while hashing.
const CHUNK: usize = 64 * 1024;

/// Hash, its name in the job file, Go's name of its type (shown on a mismatch), bytes of its value.
const KINDS: [(Kind, &str, &str, usize); 4] = [
    (Kind::Md5, "md5", "*md5.digest", 16),
    (Kind::Sha1, "sha1", "*sha1.digest", 20),
    (Kind::Sha256, "sha256", "*sha256.digest", 32),
    (Kind::Sha512, "sha512", "*sha512.digest", 64),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Md5,
    Sha1,
    Sha256,
    Sha512,
}

/// What a download must hash to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checksum {
    kind: Kind,
    go_type: &'static str,
    expected: Vec<u8>,
}

impl Checksum {
    /// Parses `type:hex`. Errors are texts in Nomad's words.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("checksum value cannot be empty".to_owned());
        }
        let Some((name, value)) = text.split_once(':').filter(|(_, value)| !value.contains(':')) else {
            return Err(format!("checksum must be given as \"type:value\"; got {text:?}"));
        };
        let expected = hex::decode(value).map_err(|error| format!("invalid checksum: {}", go_hex(error)))?;
        let Some((kind, _, go_type, size)) = KINDS.iter().find(|(_, known, ..)| *known == name) else {
            return Err(format!("unsupported checksum type: {name}"));
        };
        if expected.len() != *size {
            return Err(format!("invalid {name} checksum: {value}"));
        }
        Ok(Self { kind: *kind, go_type, expected })
    }

    /// Hashes `content` and compares; `name` is the file's name for the error.
    pub(super) fn verify(&self, content: impl Read, name: &str) -> Result<(), String> {
        let found = match self.kind {
            Kind::Md5 => hash::<Md5>(content),
            Kind::Sha1 => hash::<Sha1>(content),
            Kind::Sha256 => hash::<Sha256>(content),
            Kind::Sha512 => hash::<Sha512>(content),
        };
        let found = found.map_err(|error| format!("failed to checksum {name}: {error}"))?;
        if found == self.expected {
            return Ok(());
        }
        let (expected, found) = (hex::encode(&self.expected), hex::encode(found));
        Err(format!(
            "Checksums did not match for {name}.\nExpected: {expected}\nGot: {found}\n{}",
            self.go_type
        ))
    }
}

fn go_hex(error: hex::FromHexError) -> String {
    match error {
        hex::FromHexError::InvalidHexCharacter { c, .. } => {
            format!("encoding/hex: invalid byte: U+{:04X} '{c}'", u32::from(c))
        }
        hex::FromHexError::OddLength | hex::FromHexError::InvalidStringLength => {
            "encoding/hex: odd length hex string".to_owned()
        }
    }
}

fn hash<D: Digest>(mut content: impl Read) -> std::io::Result<Vec<u8>> {
    let mut digest = D::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = content.read(&mut buffer)?;
        if read == 0 {
            return Ok(digest.finalize().to_vec());
        }
        digest.update(&buffer[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_checksums_are_named_in_nomads_words() {
        for (text, expected) in [
            ("", "checksum value cannot be empty"),
            ("abc", "checksum must be given as \"type:value\"; got \"abc\""),
            ("file:http://x/y", "checksum must be given as \"type:value\"; got \"file:http://x/y\""),
            ("foo:abc", "invalid checksum: encoding/hex: odd length hex string"),
            ("foo:zz", "invalid checksum: encoding/hex: invalid byte: U+007A 'z'"),
            ("foo:abcd", "unsupported checksum type: foo"),
            ("md5:abcd", "invalid md5 checksum: abcd"),
        ] {
            assert_eq!(Checksum::parse(text).unwrap_err(), expected);
        }
    }

    #[test]
    fn all_four_kinds_are_checked() {
        for text in [
            "md5:900150983cd24fb0d6963f7d28e17f72",
            "sha1:a9993e364706816aba3e25717850c26c9cd0d89d",
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd\
             454d4423643ce80e2a9ac94fa54ca49f",
        ] {
            Checksum::parse(text).unwrap().verify("abc".as_bytes(), "f").unwrap();
        }
        assert_eq!(
            Checksum::parse("md5:900150983cd24fb0d6963f7d28e17f72").unwrap().verify("x".as_bytes(), "f"),
            Err("Checksums did not match for f.\nExpected: 900150983cd24fb0d6963f7d28e17f72\n\
                 Got: 9dd4e461268c8034f5c8564e155c67a6\n*md5.digest"
                .to_owned())
        );
    }
}
