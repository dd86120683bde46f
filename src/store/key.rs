//! Every key, built and parsed in one place. See the table in ARCHITECTURE.md.

use percent_encoding::AsciiSet;
use percent_encoding::CONTROLS;
use percent_encoding::percent_decode_str;
use percent_encoding::utf8_percent_encode;

use crate::model::id::AllocId;
use crate::model::id::DeploymentId;
use crate::model::id::EvalId;
use crate::model::id::JobId;
use crate::model::id::NodeId;

/// The default root of all keys.
pub const DEFAULT_ROOT: &str = "/herder/";

/// What may not stand in one segment of a key. `%` and `/` would change the structure, the rest hurts people.
const SEGMENT: &AsciiSet = &CONTROLS.add(b'/').add(b'%').add(b' ').add(b'"').add(b'?').add(b'#');

/// A parsed key, relative to the root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Cluster id, layout version, feature gates.
    Meta,
    /// Scheduler configuration and the like.
    Config(String),
    Namespace(String),
    Pool(String),
    /// The current version of a job.
    Job(JobId),
    /// An older version of a job.
    Version(JobId, u64),
    /// A user's order about a job: `promote/<deployment>`, `stop-alloc/<alloc>`, …
    Intent(JobId, String),
    /// What controllers remember of a job.
    Status(JobId),
    Deployment(JobId, DeploymentId),
    Evaluation(JobId, EvalId),
    /// A periodic launch (unix seconds) or a dispatch token.
    Launch(JobId, String),
    NodeSpec(NodeId),
    NodeStatus(NodeId),
    Control(NodeId),
    /// A desired allocation.
    Alloc(NodeId, AllocId),
    /// The tokens of an allocation's tasks.
    AllocTokens(NodeId, AllocId),
    NodeInfo(NodeId),
    NodeLive(NodeId),
    /// What an agent reports of an allocation.
    AllocReport(NodeId, AllocId),
    /// A service registration.
    Service(NodeId, String),
    /// A running server.
    Server(String),
    /// The owner of a role.
    Leader(String),
    /// A key that tokens are signed with.
    Keyring(String),
}

/// Builds and parses keys under one root, which ends with `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    root: String,
}

impl Default for Keys {
    fn default() -> Self {
        Self::new(DEFAULT_ROOT)
    }
}

impl Keys {
    /// Keys under `root`; a missing final `/` is added.
    pub fn new(root: &str) -> Self {
        let root = if root.ends_with('/') { root.to_owned() } else { format!("{root}/") };
        Self { root }
    }

    /// The root, with its final `/`.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The full text of a key.
    pub fn text(&self, key: &Key) -> String {
        let root = &self.root;
        match key {
            Key::Meta => format!("{root}meta"),
            Key::Config(name) => format!("{root}config/{}", segment(name)),
            Key::Namespace(name) => format!("{root}namespaces/{}", segment(name)),
            Key::Pool(name) => format!("{root}pools/{}", segment(name)),
            Key::Job(job) => format!("{root}jobs/{}", job_path(job)),
            Key::Version(job, version) => format!("{root}versions/{}/{version:010}", job_path(job)),
            Key::Intent(job, what) => format!("{root}intents/{}/{what}", job_path(job)),
            Key::Status(job) => format!("{root}status/{}", job_path(job)),
            Key::Deployment(job, id) => format!("{root}deployments/{}/{id}", job_path(job)),
            Key::Evaluation(job, id) => format!("{root}evaluations/{}/{id}", job_path(job)),
            Key::Launch(job, what) => format!("{root}launches/{}/{}", job_path(job), segment(what)),
            Key::NodeSpec(node) => format!("{root}nodes/{node}/spec"),
            Key::NodeStatus(node) => format!("{root}nodes/{node}/status"),
            Key::Control(node) => format!("{root}agents/{node}/desired/control"),
            Key::Alloc(node, alloc) => format!("{root}agents/{node}/desired/allocs/{alloc}"),
            Key::AllocTokens(node, alloc) => format!("{root}agents/{node}/desired/tokens/{alloc}"),
            Key::NodeInfo(node) => format!("{root}agents/{node}/reported/info"),
            Key::NodeLive(node) => format!("{root}agents/{node}/reported/live"),
            Key::AllocReport(node, alloc) => format!("{root}agents/{node}/reported/allocs/{alloc}"),
            Key::Service(node, id) => format!("{root}agents/{node}/reported/services/{}", segment(id)),
            Key::Server(id) => format!("{root}servers/{}", segment(id)),
            Key::Leader(role) => format!("{root}leaders/{}", segment(role)),
            Key::Keyring(id) => format!("{root}keyring/{}", segment(id)),
        }
    }

    /// The prefix of everything that an agent must watch.
    pub fn desired(&self, node: NodeId) -> String {
        format!("{}agents/{node}/desired/", self.root)
    }

    /// The prefix of everything that an agent writes.
    pub fn reported(&self, node: NodeId) -> String {
        format!("{}agents/{node}/reported/", self.root)
    }

    /// The prefix of a job's older versions.
    pub fn versions(&self, job: &JobId) -> String {
        format!("{}versions/{}/", self.root, job_path(job))
    }

    /// The source text of a job's version. Not part of the mirror: read from the store when asked for.
    pub fn submission(&self, job: &JobId, version: u64) -> String {
        format!("{}submissions/{}/{version:010}", self.root, job_path(job))
    }

    /// The prefix of the source texts of a job's versions.
    pub fn submissions(&self, job: &JobId) -> String {
        format!("{}submissions/{}/", self.root, job_path(job))
    }

    /// The scaling events of a job, per group. Not part of the mirror: read from the store when asked for.
    pub fn scaling_events(&self, job: &JobId) -> String {
        format!("{}scaling/{}", self.root, job_path(job))
    }

    /// The prefix of all service registrations is spread over agents; this is the prefix of all agents.
    pub fn agents(&self) -> String {
        format!("{}agents/", self.root)
    }

    /// Parses a full key; `None` for anything that this version does not know.
    pub fn parse(&self, text: &str) -> Option<Key> {
        let rest = text.strip_prefix(&self.root)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let job = |ns: &str, id: &str| Some(JobId::new(unsegment(ns)?, unsegment(id)?));
        Some(match parts.as_slice() {
            ["meta"] => Key::Meta,
            ["config", name] => Key::Config(unsegment(name)?),
            ["namespaces", name] => Key::Namespace(unsegment(name)?),
            ["pools", name] => Key::Pool(unsegment(name)?),
            ["jobs", ns, id] => Key::Job(job(ns, id)?),
            ["versions", ns, id, version] => Key::Version(job(ns, id)?, version.parse().ok()?),
            ["intents", ns, id, what @ ..] if !what.is_empty() => Key::Intent(job(ns, id)?, what.join("/")),
            ["status", ns, id] => Key::Status(job(ns, id)?),
            ["deployments", ns, id, deployment] => Key::Deployment(job(ns, id)?, deployment.parse().ok()?),
            ["evaluations", ns, id, eval] => Key::Evaluation(job(ns, id)?, eval.parse().ok()?),
            ["launches", ns, id, what] => Key::Launch(job(ns, id)?, unsegment(what)?),
            ["nodes", node, "spec"] => Key::NodeSpec(node.parse().ok()?),
            ["nodes", node, "status"] => Key::NodeStatus(node.parse().ok()?),
            ["agents", node, "desired", "control"] => Key::Control(node.parse().ok()?),
            ["agents", node, "desired", "allocs", alloc] => {
                Key::Alloc(node.parse().ok()?, alloc.parse().ok()?)
            }
            ["agents", node, "desired", "tokens", alloc] => {
                Key::AllocTokens(node.parse().ok()?, alloc.parse().ok()?)
            }
            ["agents", node, "reported", "info"] => Key::NodeInfo(node.parse().ok()?),
            ["agents", node, "reported", "live"] => Key::NodeLive(node.parse().ok()?),
            ["agents", node, "reported", "allocs", alloc] => {
                Key::AllocReport(node.parse().ok()?, alloc.parse().ok()?)
            }
            ["agents", node, "reported", "services", id] => Key::Service(node.parse().ok()?, unsegment(id)?),
            ["servers", id] => Key::Server(unsegment(id)?),
            ["leaders", role] => Key::Leader(unsegment(role)?),
            ["keyring", id] => Key::Keyring(unsegment(id)?),
            _ => return None,
        })
    }
}

fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

fn unsegment(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().filter(|decoded| !decoded.is_empty()).map(String::from)
}

fn job_path(job: &JobId) -> String {
    format!("{}/{}", segment(&job.namespace), segment(&job.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_survives_a_round_trip() {
        let keys = Keys::new("/herder");
        let job = JobId::new("default", "web/periodic-1700000000");
        let node = NodeId::from_random([7; 16]);
        let alloc = AllocId::from_random([8; 16]);
        for key in [
            Key::Meta,
            Key::Config("scheduler".into()),
            Key::Namespace("default".into()),
            Key::Pool("gpu".into()),
            Key::Job(job.clone()),
            Key::Version(job.clone(), 12),
            Key::Intent(job.clone(), "promote/x".into()),
            Key::Status(job.clone()),
            Key::Deployment(job.clone(), DeploymentId::from_random([9; 16])),
            Key::Evaluation(job.clone(), EvalId::from_random([1; 16])),
            Key::Launch(job, "token a/b".into()),
            Key::NodeSpec(node),
            Key::NodeStatus(node),
            Key::Control(node),
            Key::Alloc(node, alloc),
            Key::AllocTokens(node, alloc),
            Key::NodeInfo(node),
            Key::NodeLive(node),
            Key::AllocReport(node, alloc),
            Key::Service(node, "_nomad-task-x-group-y-80%".into()),
            Key::Server("s1".into()),
            Key::Leader("scheduler".into()),
            Key::Keyring("k1".into()),
        ] {
            let text = keys.text(&key);
            assert_eq!(keys.parse(&text), Some(key), "{text}");
        }
    }

    #[test]
    fn foreign_keys_are_not_ours() {
        let keys = Keys::default();
        for text in
            ["/other/meta", "/herder/jobs/default", "/herder/jobs/default/a/b", "/herder/nodes/x/spec"]
        {
            assert_eq!(keys.parse(text), None, "{text}");
        }
    }
}
