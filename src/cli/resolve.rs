//! From what a user typed to one object: exact ids, prefixes, and what to say about none or several.

use serde_json::Value;

use super::context::Failure;
use super::format::quoted;
use super::tables;
use super::view::View;
use super::view::rows;
use crate::client::Client;
use crate::client::ClientError;
use crate::client::escape;

/// The path of a job's route.
pub fn job_path(id: &str, rest: &str) -> String {
    format!("/v1/job/{}{rest}", escape(id))
}

/// An id that was resolved, and whether the user typed all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub id: String,
    pub namespace: String,
    pub exact: bool,
}

/// The job whose id is `wanted` or starts with it. `accept` names the kind of job that is looked for.
///
/// # Errors
/// When there is none, or several, or no answer.
pub async fn job(client: &Client, wanted: &str, accept: Accept) -> Result<Found, Failure> {
    let wanted = wanted.trim();
    let listed = client.get("/v1/jobs", &[("prefix", wanted)]).await;
    let answer = match listed {
        Err(why) if why.is_status(403) => {
            return Ok(Found { id: wanted.to_owned(), namespace: String::new(), exact: true });
        }
        listed => listed.map_err(|why| format!("Error querying jobs: {why}"))?,
    };
    let found: Vec<Value> = rows(&answer.value).iter().filter(|job| accept.takes(job)).cloned().collect();
    let same: Vec<&Value> = found.iter().filter(|job| job.text("ID") == wanted).collect();
    let one = match (same.as_slice(), found.as_slice()) {
        ([job], _) => job,
        ([], [job]) => job,
        ([], []) => {
            let kind = if accept == Accept::Periodic { "periodic job(s)" } else { "job(s)" };
            // Something may stand at the job's key that was refused: then the answer says why.
            if accept == Accept::Any
                && let Err(why) = client.get(&job_path(wanted, ""), &[]).await
                && why.to_string().contains("was refused: ")
            {
                return Err(format!("Error querying job: {why}").into());
            }
            return Err(format!("No {kind} with prefix or ID {} found", quoted(wanted)).into());
        }
        _ => {
            let table = tables::jobs(&found, client.namespace() == Some("*"));
            return Err(format!("Prefix {} matched multiple jobs\n\n{table}", quoted(wanted)).into());
        }
    };
    let exact = one.text("ID") == wanted;
    Ok(Found { id: one.text("ID").to_owned(), namespace: one.text("Namespace").to_owned(), exact })
}

/// Which jobs count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    Any,
    Periodic,
    Parameterized,
}

impl Accept {
    fn takes(self, job: &Value) -> bool {
        match self {
            Self::Any => true,
            Self::Periodic => job.flag("Periodic"),
            Self::Parameterized => job.flag("ParameterizedJob"),
        }
    }
}

/// Objects that are named by a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Allocation,
    Node,
    Evaluation,
    Deployment,
}

/// What a prefix of a UUID leads to.
#[derive(Clone, Debug)]
pub enum Matched {
    /// One object, as the list shows it.
    One(Value),
    /// Several.
    Many(Vec<Value>),
}

impl Kind {
    fn route(self) -> &'static str {
        match self {
            Self::Allocation => "/v1/allocations",
            Self::Node => "/v1/nodes",
            Self::Evaluation => "/v1/evaluations",
            Self::Deployment => "/v1/deployments",
        }
    }

    fn query_error(self, why: &ClientError) -> Failure {
        match self {
            Self::Allocation => format!("Error querying allocation: {why}"),
            Self::Node => format!("Error querying node info: {why}"),
            Self::Evaluation => format!("Error querying evaluation: {why}"),
            Self::Deployment => format!("Error retrieving deployment: {why}"),
        }
        .into()
    }

    fn none(self, wanted: &str) -> Failure {
        let wanted = quoted(wanted);
        match self {
            Self::Allocation => format!("No allocation(s) with prefix or id {wanted} found"),
            Self::Node => format!("No node(s) with prefix or id {wanted} found"),
            Self::Evaluation => format!("No evaluation(s) with prefix or id {wanted} found"),
            Self::Deployment => {
                format!("Error retrieving deployment: Deployment ID {wanted} matched no deployments")
            }
        }
        .into()
    }
}

/// Looks for `wanted` among the ids of a kind; hyphens do not count, an odd last digit is dropped.
///
/// # Errors
/// When it is too short, or there is none, or no answer.
pub async fn search(client: &Client, kind: Kind, wanted: &str, what: &str) -> Result<Matched, Failure> {
    if wanted.chars().count() == 1 {
        return Err(format!("{what} must contain at least two characters.").into());
    }
    let prefix = even_prefix(wanted);
    let answer =
        client.get(kind.route(), &[("prefix", &prefix)]).await.map_err(|why| kind.query_error(&why))?;
    match rows(&answer.value) {
        [] => Err(kind.none(wanted)),
        [one] => Ok(Matched::One(one.clone())),
        many => match many.iter().find(|object| object.text("ID") == wanted) {
            Some(same) => Ok(Matched::One(same.clone())),
            None => Ok(Matched::Many(many.to_vec())),
        },
    }
}

/// As [`search`], and several are an error with a table.
///
/// # Errors
/// As for [`search`].
pub async fn one(
    client: &Client,
    kind: Kind,
    wanted: &str,
    what: &str,
    table: impl FnOnce(&[Value]) -> String,
) -> Result<Value, Failure> {
    match search(client, kind, wanted, what).await? {
        Matched::One(object) => Ok(object),
        Matched::Many(many) => Err(ambiguous(kind, &table(&many)).into()),
    }
}

/// The text about several matches.
pub fn ambiguous(kind: Kind, table: &str) -> String {
    let name = match kind {
        Kind::Allocation => "allocations",
        Kind::Node => "nodes",
        Kind::Evaluation => "evaluations",
        Kind::Deployment => "deployments",
    };
    format!("Prefix matched multiple {name}\n\n{table}")
}

fn even_prefix(wanted: &str) -> String {
    let digits = wanted.chars().filter(|c| *c != '-').count();
    let mut prefix = wanted.to_owned();
    if digits % 2 == 1 {
        prefix.pop();
    }
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_last_digit_is_dropped() {
        assert_eq!(even_prefix("abc"), "ab");
        assert_eq!(even_prefix("0a1b2c3d-1111"), "0a1b2c3d-1111");
        assert_eq!(job_path("a/b", "/plan"), "/v1/job/a%2Fb/plan");
    }
}
