//! Makes keys and signs tokens with them (RFC 7515, RFC 7518).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::rngs::SysRng;
use ring::rand::SystemRandom;
use ring::signature::RSA_PKCS1_SHA256;
use ring::signature::RsaKeyPair;
use rsa::PrivateKey;
use rsa::pkcs8::EncodePrivateKey;
use rsa::traits::PublicKeyParts;
use serde_json::Value;
use serde_json::json;

use crate::model::identity::ALGORITHM;
use crate::model::identity::SigningKey;
use crate::model::time::Time;

/// Length of keys, as the verifiers of large clouds expect it.
const BITS: usize = 2048;

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    #[error("cannot make a signing key: {0}")]
    Make(String),
    #[error("signing key {id} cannot be used: {why}")]
    Unusable { id: String, why: String },
    #[error("cannot sign")]
    Sign,
}

/// A new key. Takes up to some seconds of a processor.
///
/// # Errors
/// When the system has no random bytes.
pub fn generate(id: String, now: Time) -> Result<SigningKey, SignError> {
    let failed = |why: String| SignError::Make(why);
    let key = PrivateKey::new(&mut SysRng, BITS).map_err(|error| failed(error.to_string()))?;
    let private = key.to_pkcs8_der().map_err(|error| failed(error.to_string()))?;
    let number = |bytes: &[u8]| {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        URL_SAFE_NO_PAD.encode(&bytes[zeros..])
    };
    Ok(SigningKey {
        id,
        algorithm: ALGORITHM.to_owned(),
        create_time: now,
        private_key: STANDARD.encode(private.as_bytes()),
        modulus: number(&key.n().to_be_bytes()),
        exponent: number(&key.e().to_be_bytes()),
    })
}

/// Signs with one key.
pub struct Signer {
    pair: RsaKeyPair,
    id: String,
}

impl Signer {
    /// Reads a key.
    ///
    /// # Errors
    /// When it is of another kind, or damaged.
    pub fn new(key: &SigningKey) -> Result<Self, SignError> {
        let unusable = |why: String| SignError::Unusable { id: key.id.clone(), why };
        if key.algorithm != ALGORITHM {
            return Err(unusable(format!("unknown algorithm {:?}", key.algorithm)));
        }
        let der = STANDARD.decode(&key.private_key).map_err(|error| unusable(error.to_string()))?;
        let pair = RsaKeyPair::from_pkcs8(&der).map_err(|error| unusable(error.to_string()))?;
        Ok(Self { pair, id: key.id.clone() })
    }

    /// Which key this is.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A token that says this.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn sign(&self, claims: &Value) -> Result<String, SignError> {
        let header = json!({"alg": ALGORITHM, "kid": self.id, "typ": "JWT"});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let said = format!("{}.{}", part(&header), part(claims));
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), said.as_bytes(), &mut signature)
            .map_err(|_| SignError::Sign)?;
        Ok(format!("{said}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::RSA_PKCS1_2048_8192_SHA256;
    use ring::signature::RsaPublicKeyComponents;

    use super::*;

    #[test]
    fn a_token_can_be_verified_with_the_public_key() {
        let key = generate("k1".to_owned(), Time::from_secs(1)).unwrap();
        let token = Signer::new(&key).unwrap().sign(&json!({"sub": "x"})).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let plain = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let jwk = key.jwk();
        let of = |name: &str| plain(jwk[name].as_str().unwrap());
        let public = RsaPublicKeyComponents { n: of("n"), e: of("e") };
        let said = token.rsplit_once('.').unwrap().0;
        public.verify(&RSA_PKCS1_2048_8192_SHA256, said.as_bytes(), &plain(parts[2])).unwrap();
        let header: Value = serde_json::from_slice(&plain(parts[0])).unwrap();
        assert_eq!(header, json!({"alg": "RS256", "kid": "k1", "typ": "JWT"}));
        assert_eq!(serde_json::from_slice::<Value>(&plain(parts[1])).unwrap(), json!({"sub": "x"}));
        let names: Vec<&str> = jwk.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["use", "kty", "kid", "alg", "n", "e"]);
    }

    #[test]
    fn a_damaged_key_is_named() {
        let key = SigningKey { id: "k1".into(), algorithm: ALGORITHM.into(), ..SigningKey::default() };
        assert!(Signer::new(&key).err().unwrap().to_string().starts_with("signing key k1 cannot be used"));
    }
}
