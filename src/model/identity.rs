//! Workload identities: signed tokens by which a task can show others who it is.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::allocation::Allocation;
use super::job::Job;
use super::task::Task;
use super::task::WorkloadIdentity;
use super::time::Span;
use super::time::Time;

/// The identity that every task has.
pub const DEFAULT: &str = "default";
/// Whom the default identity is for.
pub const DEFAULT_AUDIENCE: &str = "nomadproject.io";

/// The algorithm of signing keys, as RFC 7518 names it.
pub const ALGORITHM: &str = "RS256";

/// A signed token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Token {
    /// A JSON Web Token in its compact form (RFC 7519).
    pub jwt: String,
    pub issued: Time,
    /// Never for a token without an end.
    pub expires: Time,
}

impl Token {
    /// When a new token should be made: after half of the life of this one.
    pub fn renewal(&self) -> Option<Time> {
        let life = (!self.expires.is_never()).then(|| self.expires.since(self.issued))?;
        Some(self.issued + Span(life.0 / 2))
    }
}

/// The tokens of an allocation, by task and name of the identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Tokens {
    pub tasks: BTreeMap<String, BTreeMap<String, Token>>,
}

impl Tokens {
    /// The token of one identity.
    pub fn get(&self, task: &str, identity: &str) -> Option<&Token> {
        self.tasks.get(task)?.get(identity)
    }

    /// The earliest renewal.
    pub fn renewal(&self) -> Option<Time> {
        self.tasks.values().flat_map(BTreeMap::values).filter_map(Token::renewal).min()
    }
}

/// The identities that a task is to be given tokens of, by environment or by file.
pub fn wanted(task: &Task) -> impl Iterator<Item = &WorkloadIdentity> {
    task.identity.iter().chain(&task.identities).filter(|identity| identity.env || identity.file)
}

/// A key that tokens are signed with, at `keyring/<id>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SigningKey {
    pub id: String,
    pub algorithm: String,
    pub create_time: Time,
    /// PKCS #8, base64.
    pub private_key: String,
    /// Modulus and exponent of the public key, base64url without padding.
    pub modulus: String,
    pub exponent: String,
}

impl SigningKey {
    /// The public key as a JSON Web Key (RFC 7517).
    pub fn jwk(&self) -> Value {
        json!({
            "use": "sig", "kty": "RSA", "kid": self.id, "alg": self.algorithm, "n": self.modulus, "e": self.exponent,
        })
    }
}

/// What a token says.
pub struct Claims<'a> {
    pub region: &'a str,
    /// Who says it; empty for nobody.
    pub issuer: &'a str,
    pub job: &'a Job,
    pub allocation: &'a Allocation,
    pub task: &'a str,
    pub identity: &'a WorkloadIdentity,
    /// Unique to the token.
    pub id: &'a str,
    pub issued: Time,
    pub expires: Time,
}

impl Claims<'_> {
    /// The claims, in seconds since 1970 where they are times. Children of a job speak for their parent.
    pub fn to_json(&self) -> Value {
        let (allocation, job) = (self.allocation, self.job);
        let job_id = if job.parent_id.is_empty() { job.id.as_str() } else { job.parent_id.as_str() };
        let subject = [
            self.region,
            allocation.namespace.as_str(),
            job_id,
            allocation.task_group.as_str(),
            self.task,
            self.identity.name.as_str(),
        ];
        let mut claims = Map::new();
        let mut claim = |name: &str, value: Value| drop(claims.insert(name.to_owned(), value));
        claim("nomad_namespace", json!(allocation.namespace));
        claim("nomad_job_id", json!(job_id));
        claim("nomad_allocation_id", json!(allocation.id));
        claim("nomad_task", json!(self.task));
        if !self.issuer.is_empty() {
            claim("iss", json!(self.issuer));
        }
        claim("sub", json!(subject.join(":")));
        claim("aud", json!(self.identity.audience));
        if !self.expires.is_never() {
            claim("exp", json!(self.expires.secs()));
        }
        claim("nbf", json!(self.issued.secs()));
        claim("iat", json!(self.issued.secs()));
        claim("jti", json!(self.id));
        Value::Object(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_identities_that_a_task_sees_are_wanted() {
        let identity = |name: &str, env, file| WorkloadIdentity {
            name: name.to_owned(),
            env,
            file,
            ..WorkloadIdentity::default()
        };
        let task = Task {
            identity: Some(identity(DEFAULT, false, false)),
            identities: vec![
                identity("vault", false, true),
                identity("aws", true, false),
                identity("x", false, false),
            ],
            ..Task::default()
        };
        let names: Vec<&str> = wanted(&task).map(|identity| identity.name.as_str()).collect();
        assert_eq!(names, ["vault", "aws"]);
    }

    #[test]
    fn tokens_are_renewed_after_half_of_their_life() {
        let at = |secs: i64| Time::from_secs(1_700_000_000 + secs);
        let token = |expires| Token { issued: at(0), expires, ..Token::default() };
        assert_eq!(token(at(3600)).renewal(), Some(at(1800)));
        assert_eq!(token(Time::NEVER).renewal(), None);
    }

    #[test]
    fn children_speak_for_their_parent() {
        let job = Job { id: "etl/dispatch-1".into(), parent_id: "etl".into(), ..Job::default() };
        let allocation = Allocation {
            namespace: "default".into(),
            job_id: "etl/dispatch-1".into(),
            task_group: "g".into(),
            ..Allocation::default()
        };
        let identity = WorkloadIdentity {
            name: "aws".into(),
            audience: vec!["sts".into()],
            ..WorkloadIdentity::default()
        };
        let claims = Claims {
            region: "global",
            issuer: "",
            job: &job,
            allocation: &allocation,
            task: "main",
            identity: &identity,
            id: "1",
            issued: Time::from_secs(10),
            expires: Time::from_secs(20),
        };
        let said = claims.to_json();
        assert_eq!(said["sub"], "global:default:etl:g:main:aws");
        assert_eq!(said["nomad_job_id"], "etl");
        assert_eq!((&said["aud"], &said["exp"], &said["iat"]), (&json!(["sts"]), &json!(20), &json!(10)));
        assert_eq!(said.get("iss"), None);
    }
}
