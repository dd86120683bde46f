//! The typed contents of the mirror with their indexes.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::model::allocation::Allocation;
use crate::model::allocation::AllocationReport;
use crate::model::allocation::ClientStatus;
use crate::model::allocation::client_status;
use crate::model::deployment::Deployment;
use crate::model::evaluation::Evaluation;
use crate::model::id::AllocId;
use crate::model::id::DeploymentId;
use crate::model::id::EvalId;
use crate::model::id::JobId;
use crate::model::id::NodeId;
use crate::model::identity::SigningKey;
use crate::model::identity::Tokens;
use crate::model::job::Job;
use crate::model::job::JobStatus;
use crate::model::node::Eligibility;
use crate::model::node::NodeControl;
use crate::model::node::NodeInfo;
use crate::model::node::NodeLive;
use crate::model::node::NodeSpec;
use crate::model::node::NodeState;
use crate::model::node::NodeStatus;
use crate::model::service::ServiceRegistration;
use crate::store::Event;
use crate::store::KeyValue;
use crate::store::Revision;
use crate::store::key::Key;
use crate::store::key::Keys;

use super::Touched;

/// A value with the history marks of its key.
#[derive(Debug)]
pub struct Stored<T> {
    pub value: Arc<T>,
    /// Create revision of the key.
    pub created: Revision,
    /// Mod revision of the key.
    pub modified: Revision,
}

impl<T> Clone for Stored<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), created: self.created, modified: self.modified }
    }
}

/// What stands at a job's key.
#[derive(Clone, Debug, Default)]
pub struct JobEntry {
    /// The newest accepted (sealed) value.
    pub current: Option<Stored<Job>>,
    /// A newer value that was not accepted yet, or was refused.
    pub raw: Option<Stored<Bytes>>,
}

/// An allocation: the decision, and what its agent says.
#[derive(Clone, Debug, Default)]
pub struct AllocEntry {
    pub desired: Option<Stored<Allocation>>,
    pub report: Option<Stored<AllocationReport>>,
}

impl AllocEntry {
    /// The status that counts.
    pub fn status(&self) -> ClientStatus {
        let report = self.report.as_ref().map(|report| &*report.value);
        match &self.desired {
            Some(desired) => client_status(&desired.value, report),
            None => report.map_or(ClientStatus::Lost, |report| report.client_status),
        }
    }

    /// Newest change of either record.
    pub fn modified(&self) -> Revision {
        let desired = self.desired.as_ref().map_or(0, |desired| desired.modified);
        desired.max(self.report.as_ref().map_or(0, |report| report.modified))
    }
}

/// A machine, composed of its records.
#[derive(Clone, Debug, Default)]
pub struct NodeEntry {
    pub info: Option<Stored<NodeInfo>>,
    pub live: Option<Stored<NodeLive>>,
    pub spec: Option<Stored<NodeSpec>>,
    pub status: Option<Stored<NodeStatus>>,
    pub control: Option<Stored<NodeControl>>,
}

impl NodeEntry {
    /// The controller's verdict; initializing until there is one.
    pub fn state(&self) -> NodeState {
        self.status.as_ref().map_or(NodeState::Initializing, |status| status.value.status)
    }

    pub fn eligibility(&self) -> Eligibility {
        self.spec.as_ref().map_or(Eligibility::Eligible, |spec| spec.value.scheduling_eligibility)
    }

    pub fn is_draining(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| spec.value.drain_strategy.is_some())
    }

    /// May new work be placed here?
    pub fn is_schedulable(&self) -> bool {
        self.info.is_some()
            && self.state() == NodeState::Ready
            && self.eligibility() == Eligibility::Eligible
            && !self.is_draining()
    }

    /// Oldest create revision and newest mod revision of the records that make up a node for its readers.
    pub fn indexes(&self) -> (Revision, Revision) {
        let marks = [
            self.info.as_ref().map(|x| (x.created, x.modified)),
            self.spec.as_ref().map(|x| (x.created, x.modified)),
            self.status.as_ref().map(|x| (x.created, x.modified)),
        ];
        let created = marks.iter().flatten().map(|mark| mark.0).min().unwrap_or(0);
        let modified = marks.iter().flatten().map(|mark| mark.1).max().unwrap_or(0);
        (created, modified)
    }

    fn is_empty(&self) -> bool {
        self.info.is_none()
            && self.live.is_none()
            && self.spec.is_none()
            && self.status.is_none()
            && self.control.is_none()
    }
}

/// The kinds of object that lists are made of; each remembers the revision of its newest change, deletes included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    Jobs,
    Allocs,
    Nodes,
    Evaluations,
    Deployments,
    Services,
    Config,
    Keyring,
    Other,
}

/// Namespace and name of a service.
pub type ServiceName = (String, String);
/// A node, and the id of a registration there.
pub type RegistrationId = (NodeId, String);
/// The instances of a service.
pub type Registrations = BTreeMap<RegistrationId, Stored<ServiceRegistration>>;

/// Everything, as of `revision`.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub revision: Revision,
    /// Number of keys under the root, known or not.
    pub key_count: i64,
    pub jobs: BTreeMap<JobId, JobEntry>,
    pub versions: BTreeMap<JobId, BTreeMap<u64, Stored<Job>>>,
    pub statuses: BTreeMap<JobId, Stored<JobStatus>>,
    pub intents: BTreeMap<JobId, BTreeMap<String, Stored<Value>>>,
    pub launches: BTreeMap<JobId, BTreeMap<String, Stored<Value>>>,
    pub deployments: BTreeMap<JobId, BTreeMap<DeploymentId, Stored<Deployment>>>,
    pub deployment_jobs: BTreeMap<DeploymentId, JobId>,
    pub evaluations: BTreeMap<JobId, BTreeMap<EvalId, Stored<Evaluation>>>,
    pub evaluation_jobs: BTreeMap<EvalId, JobId>,
    pub allocs: BTreeMap<AllocId, AllocEntry>,
    pub job_allocs: BTreeMap<JobId, BTreeSet<AllocId>>,
    pub node_allocs: BTreeMap<NodeId, BTreeSet<AllocId>>,
    pub alloc_nodes: BTreeMap<AllocId, NodeId>,
    /// The tokens of allocations, and the node that they lie at.
    pub tokens: BTreeMap<AllocId, (NodeId, Stored<Tokens>)>,
    /// From an allocation to those that replaced it, with their create revisions: more than one if a replacement
    /// was itself lost before it could be told apart. See [`State::next_alloc`].
    pub next_allocs: BTreeMap<AllocId, BTreeSet<(Revision, AllocId)>>,
    pub nodes: BTreeMap<NodeId, NodeEntry>,
    /// Registrations by namespace and service name, then by node and registration id.
    pub services: BTreeMap<ServiceName, Registrations>,
    pub service_names: BTreeMap<RegistrationId, ServiceName>,
    pub namespaces: BTreeMap<String, Stored<Value>>,
    pub pools: BTreeMap<String, Stored<Value>>,
    pub configs: BTreeMap<String, Stored<Value>>,
    pub servers: BTreeMap<String, Stored<Value>>,
    pub leaders: BTreeMap<String, Stored<Value>>,
    pub keyring: BTreeMap<String, Stored<SigningKey>>,
    pub meta: Option<Stored<Value>>,
    pub tables: BTreeMap<Table, Revision>,
}

/// A change, parsed outside the lock.
#[derive(Debug)]
pub enum Decoded {
    /// A key of ours with its parsed value.
    Put(Key, Parsed, Marks),
    /// A key of ours whose value cannot be read. The object keeps its last readable value.
    Unreadable(Key, Marks),
    Delete(Key),
    /// A key that this version does not know.
    ForeignPut(Marks),
    ForeignDelete,
}

/// History marks of a put.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    pub created: Revision,
    pub modified: Revision,
    pub is_new: bool,
}

/// A value by kind.
#[derive(Debug)]
pub enum Parsed {
    Job(Result<Box<Job>, Bytes>),
    Version(Box<Job>),
    Status(JobStatus),
    Deployment(Box<Deployment>),
    Evaluation(Box<Evaluation>),
    Alloc(Box<Allocation>),
    Report(Box<AllocationReport>),
    Tokens(Tokens),
    SigningKey(Box<SigningKey>),
    Info(Box<NodeInfo>),
    Live(NodeLive),
    Spec(NodeSpec),
    NodeStatus(NodeStatus),
    Control(NodeControl),
    Service(Box<ServiceRegistration>),
    Value(Value),
}

/// Parses an event of the store.
pub fn decode(keys: &Keys, event: Event) -> Decoded {
    match event {
        Event::Put(item) => decode_put(keys, &item),
        Event::Delete(text, _) => keys.parse(&text).map_or(Decoded::ForeignDelete, Decoded::Delete),
    }
}

/// Parses an item of a listing.
pub fn decode_put(keys: &Keys, item: &KeyValue) -> Decoded {
    let marks = Marks {
        created: item.create_revision,
        modified: item.mod_revision,
        is_new: item.create_revision == item.mod_revision,
    };
    let Some(key) = keys.parse(&item.key) else { return Decoded::ForeignPut(marks) };
    match parse(&key, &item.value) {
        Some(parsed) => Decoded::Put(key, parsed, marks),
        None => {
            tracing::warn!(key = %item.key, revision = item.mod_revision, "unreadable value is ignored");
            Decoded::Unreadable(key, marks)
        }
    }
}

fn parse(key: &Key, value: &Bytes) -> Option<Parsed> {
    fn json<T: DeserializeOwned>(value: &Bytes) -> Option<T> {
        serde_json::from_slice(value).ok()
    }
    Some(match key {
        Key::Job(_) => Parsed::Job(match json::<Job>(value) {
            Some(job) if job.is_sealed() => Ok(Box::new(job)),
            _ => Err(value.clone()),
        }),
        Key::Version(..) => Parsed::Version(Box::new(json(value)?)),
        Key::Status(_) => Parsed::Status(json(value)?),
        Key::Deployment(..) => Parsed::Deployment(Box::new(json(value)?)),
        Key::Evaluation(..) => Parsed::Evaluation(Box::new(json(value)?)),
        Key::Alloc(node, _) => {
            let mut alloc: Allocation = json(value)?;
            alloc.node_id = *node;
            Parsed::Alloc(Box::new(alloc))
        }
        Key::AllocReport(..) => Parsed::Report(Box::new(json(value)?)),
        Key::AllocTokens(..) => Parsed::Tokens(json(value)?),
        Key::Keyring(_) => Parsed::SigningKey(Box::new(json(value)?)),
        Key::NodeInfo(_) => Parsed::Info(Box::new(json(value)?)),
        Key::NodeLive(_) => Parsed::Live(json(value)?),
        Key::NodeSpec(_) => Parsed::Spec(json(value)?),
        Key::NodeStatus(_) => Parsed::NodeStatus(json(value)?),
        Key::Control(_) => Parsed::Control(json(value)?),
        Key::Service(..) => Parsed::Service(Box::new(json(value)?)),
        Key::Meta
        | Key::Config(_)
        | Key::Namespace(_)
        | Key::Pool(_)
        | Key::Intent(..)
        | Key::Launch(..)
        | Key::Server(_)
        | Key::Leader(_) => Parsed::Value(json(value)?),
    })
}

impl State {
    /// Whether any node talks to Consul.
    pub fn has_consul(&self) -> bool {
        let mut infos = self.nodes.values().filter_map(|node| node.info.as_ref());
        infos.any(|info| info.value.attributes.contains_key("consul.version"))
    }

    /// The accepted job with this id, whatever may wait at its key.
    pub fn job(&self, id: &JobId) -> Option<Stored<Job>> {
        let entry = self.jobs.get(id)?;
        if let Some(current) = &entry.current {
            return Some(current.clone());
        }
        // The key holds something unaccepted and this server never saw what was there before: the newest older
        // version is what runs. Its incarnation is that of the job's key.
        let raw = entry.raw.as_ref()?;
        let newest = self.versions.get(id)?.values().next_back()?;
        Some(Stored { created: raw.created, ..newest.clone() })
    }

    /// The job as it was in `version`.
    pub fn job_version(&self, id: &JobId, version: u64) -> Option<Stored<Job>> {
        let older = || self.versions.get(id)?.get(&version).cloned();
        self.job(id).filter(|job| job.value.version == version).or_else(older)
    }

    /// Every accepted job.
    pub fn all_jobs(&self) -> impl Iterator<Item = (&JobId, Stored<Job>)> {
        self.jobs.keys().filter_map(|id| Some((id, self.job(id)?)))
    }

    /// The allocations of a job that have a decision.
    pub fn allocs_of_job(&self, id: &JobId) -> impl Iterator<Item = (AllocId, &AllocEntry)> {
        self.job_allocs
            .get(id)
            .into_iter()
            .flatten()
            .filter_map(|alloc| Some((*alloc, self.allocs.get(alloc)?)))
    }

    /// The job of an allocation that has a decision.
    pub fn job_of_alloc(&self, id: AllocId) -> Option<JobId> {
        Some(self.allocs.get(&id)?.desired.as_ref()?.value.job())
    }

    /// The allocations of a node.
    pub fn allocs_of_node(&self, id: NodeId) -> impl Iterator<Item = (AllocId, &AllocEntry)> {
        self.node_allocs
            .get(&id)
            .into_iter()
            .flatten()
            .filter_map(|alloc| Some((*alloc, self.allocs.get(alloc)?)))
    }

    /// The newest allocation that replaced this one.
    pub fn next_alloc(&self, id: AllocId) -> Option<AllocId> {
        self.next_allocs.get(&id)?.last().map(|(_, next)| *next)
    }

    /// The newest deployment of a job by creation.
    pub fn latest_deployment(&self, id: &JobId) -> Option<&Stored<Deployment>> {
        self.deployments.get(id)?.values().max_by_key(|deployment| (deployment.created, deployment.value.id))
    }

    pub fn deployment(&self, id: DeploymentId) -> Option<&Stored<Deployment>> {
        self.deployments.get(self.deployment_jobs.get(&id)?)?.get(&id)
    }

    pub fn evaluation(&self, id: EvalId) -> Option<&Stored<Evaluation>> {
        self.evaluations.get(self.evaluation_jobs.get(&id)?)?.get(&id)
    }

    /// Revision of the newest change of a kind of object, at least 1.
    pub fn table(&self, table: Table) -> Revision {
        self.tables.get(&table).copied().unwrap_or(0).max(1)
    }

    /// A fresh listing knows only what stands at the keys: accepted jobs that were overwritten since are kept,
    /// and a table that became empty unseen has changed.
    pub(super) fn inherit(&mut self, old: &State) {
        for table in old.tables.keys() {
            self.tables.entry(*table).or_insert(self.revision);
        }
        for (id, entry) in &mut self.jobs {
            if entry.current.is_none()
                && let Some(raw) = &entry.raw
                && let Some(before) = old.jobs.get(id).and_then(|entry| entry.current.as_ref())
                && before.created == raw.created
            {
                entry.current = Some(before.clone());
            }
        }
    }

    /// Applies one change made at `revision`.
    pub fn apply(&mut self, revision: Revision, change: Decoded, touched: &mut Vec<Touched>) {
        let key = match change {
            Decoded::Put(key, parsed, marks) => {
                self.key_count += i64::from(marks.is_new);
                self.put(&key, parsed, marks);
                key
            }
            Decoded::Unreadable(key, marks) => {
                self.key_count += i64::from(marks.is_new);
                key
            }
            Decoded::Delete(key) => {
                self.key_count -= 1;
                let job = self.job_of(&key);
                self.delete(&key);
                self.tables.insert(table_of(&key), revision);
                touched.push(Touched { key, job });
                return;
            }
            Decoded::ForeignPut(marks) => {
                self.key_count += i64::from(marks.is_new);
                return;
            }
            Decoded::ForeignDelete => {
                self.key_count -= 1;
                return;
            }
        };
        self.tables.insert(table_of(&key), revision);
        let job = self.job_of(&key);
        touched.push(Touched { key, job });
    }

    fn job_of(&self, key: &Key) -> Option<JobId> {
        match key {
            Key::Job(job)
            | Key::Version(job, _)
            | Key::Intent(job, _)
            | Key::Status(job)
            | Key::Deployment(job, _)
            | Key::Evaluation(job, _)
            | Key::Launch(job, _) => Some(job.clone()),
            Key::Alloc(_, alloc) | Key::AllocReport(_, alloc) | Key::AllocTokens(_, alloc) => {
                self.job_of_alloc(*alloc)
            }
            _ => None,
        }
    }

    fn put(&mut self, key: &Key, parsed: Parsed, marks: Marks) {
        match (key, parsed) {
            (Key::Job(id), Parsed::Job(Ok(job))) => {
                self.jobs.insert(id.clone(), JobEntry { current: Some(stored(*job, marks)), raw: None });
            }
            (Key::Job(id), Parsed::Job(Err(bytes))) => {
                self.jobs.entry(id.clone()).or_default().raw = Some(stored(bytes, marks));
            }
            (Key::Version(id, version), Parsed::Version(job)) => {
                self.versions.entry(id.clone()).or_default().insert(*version, stored(*job, marks));
            }
            (Key::Status(id), Parsed::Status(status)) => {
                self.statuses.insert(id.clone(), stored(status, marks));
            }
            (Key::Deployment(job, id), Parsed::Deployment(deployment)) => {
                self.deployment_jobs.insert(*id, job.clone());
                self.deployments.entry(job.clone()).or_default().insert(*id, stored(*deployment, marks));
            }
            (Key::Evaluation(job, id), Parsed::Evaluation(evaluation)) => {
                self.evaluation_jobs.insert(*id, job.clone());
                self.evaluations.entry(job.clone()).or_default().insert(*id, stored(*evaluation, marks));
            }
            (Key::Alloc(node, id), Parsed::Alloc(alloc)) => self.put_alloc(*node, *id, stored(*alloc, marks)),
            (Key::AllocReport(node, id), Parsed::Report(report)) => {
                self.alloc_nodes.insert(*id, *node);
                self.allocs.entry(*id).or_default().report = Some(stored(*report, marks));
            }
            (Key::AllocTokens(node, id), Parsed::Tokens(tokens)) => {
                self.tokens.insert(*id, (*node, stored(tokens, marks)));
            }
            (Key::Keyring(id), Parsed::SigningKey(key)) => {
                drop(self.keyring.insert(id.clone(), stored(*key, marks)))
            }
            (Key::NodeInfo(node), Parsed::Info(info)) => self.node(*node).info = Some(stored(*info, marks)),
            (Key::NodeLive(node), Parsed::Live(live)) => self.node(*node).live = Some(stored(live, marks)),
            (Key::NodeSpec(node), Parsed::Spec(spec)) => self.node(*node).spec = Some(stored(spec, marks)),
            (Key::NodeStatus(node), Parsed::NodeStatus(status)) => {
                self.node(*node).status = Some(stored(status, marks));
            }
            (Key::Control(node), Parsed::Control(control)) => {
                self.node(*node).control = Some(stored(control, marks));
            }
            (Key::Service(node, id), Parsed::Service(service)) => {
                let name = (service.namespace.clone(), service.service_name.clone());
                self.delete_service(*node, id);
                self.service_names.insert((*node, id.clone()), name.clone());
                self.services.entry(name).or_default().insert((*node, id.clone()), stored(*service, marks));
            }
            (key, Parsed::Value(value)) => self.put_value(key, stored(value, marks)),
            (key, parsed) => unreachable!("{key:?} is never parsed as {parsed:?}"),
        }
    }

    fn put_value(&mut self, key: &Key, value: Stored<Value>) {
        match key {
            Key::Meta => self.meta = Some(value),
            Key::Config(name) => drop(self.configs.insert(name.clone(), value)),
            Key::Namespace(name) => drop(self.namespaces.insert(name.clone(), value)),
            Key::Pool(name) => drop(self.pools.insert(name.clone(), value)),
            Key::Server(id) => drop(self.servers.insert(id.clone(), value)),
            Key::Leader(role) => drop(self.leaders.insert(role.clone(), value)),
            Key::Intent(job, what) => {
                self.intents.entry(job.clone()).or_default().insert(what.clone(), value);
            }
            Key::Launch(job, what) => {
                self.launches.entry(job.clone()).or_default().insert(what.clone(), value);
            }
            other => unreachable!("{other:?} has a type of its own"),
        }
    }

    fn put_alloc(&mut self, node: NodeId, id: AllocId, alloc: Stored<Allocation>) {
        self.job_allocs.entry(alloc.value.job()).or_default().insert(id);
        self.node_allocs.entry(node).or_default().insert(id);
        self.alloc_nodes.insert(id, node);
        if let Some(previous) = alloc.value.previous {
            self.next_allocs.entry(previous).or_default().insert((alloc.created, id));
        }
        self.allocs.entry(id).or_default().desired = Some(alloc);
    }

    fn node(&mut self, id: NodeId) -> &mut NodeEntry {
        self.nodes.entry(id).or_default()
    }

    fn delete(&mut self, key: &Key) {
        match key {
            Key::Meta => self.meta = None,
            Key::Config(name) => drop(self.configs.remove(name)),
            Key::Namespace(name) => drop(self.namespaces.remove(name)),
            Key::Pool(name) => drop(self.pools.remove(name)),
            Key::Server(id) => drop(self.servers.remove(id)),
            Key::Leader(role) => drop(self.leaders.remove(role)),
            Key::Job(id) => drop(self.jobs.remove(id)),
            Key::Status(id) => drop(self.statuses.remove(id)),
            Key::Version(id, version) => remove_from(&mut self.versions, id, version),
            Key::Intent(id, what) => remove_from(&mut self.intents, id, what),
            Key::Launch(id, what) => remove_from(&mut self.launches, id, what),
            Key::Deployment(job, id) => {
                self.deployment_jobs.remove(id);
                remove_from(&mut self.deployments, job, id);
            }
            Key::Evaluation(job, id) => {
                self.evaluation_jobs.remove(id);
                remove_from(&mut self.evaluations, job, id);
            }
            Key::Alloc(node, id) => self.delete_alloc(*node, *id),
            Key::AllocTokens(_, id) => drop(self.tokens.remove(id)),
            Key::Keyring(id) => drop(self.keyring.remove(id)),
            Key::AllocReport(_, id) => {
                if let Some(entry) = self.allocs.get_mut(id) {
                    entry.report = None;
                    if entry.desired.is_none() {
                        self.allocs.remove(id);
                        self.alloc_nodes.remove(id);
                    }
                }
            }
            Key::NodeSpec(node) => self.change_node(*node, |entry| entry.spec = None),
            Key::NodeStatus(node) => self.change_node(*node, |entry| entry.status = None),
            Key::Control(node) => self.change_node(*node, |entry| entry.control = None),
            Key::NodeInfo(node) => self.change_node(*node, |entry| entry.info = None),
            Key::NodeLive(node) => self.change_node(*node, |entry| entry.live = None),
            Key::Service(node, id) => self.delete_service(*node, id),
        }
    }

    fn delete_alloc(&mut self, node: NodeId, id: AllocId) {
        let Some(entry) = self.allocs.get_mut(&id) else { return };
        if let Some(desired) = entry.desired.take() {
            remove_member(&mut self.job_allocs, &desired.value.job(), &id);
            if let Some(previous) = desired.value.previous {
                remove_member(&mut self.next_allocs, &previous, &(desired.created, id));
            }
        }
        remove_member(&mut self.node_allocs, &node, &id);
        if entry.report.is_none() {
            self.allocs.remove(&id);
            self.alloc_nodes.remove(&id);
        }
    }

    fn delete_service(&mut self, node: NodeId, id: &str) {
        let key = (node, id.to_owned());
        if let Some(name) = self.service_names.remove(&key) {
            remove_from(&mut self.services, &name, &key);
        }
    }

    fn change_node(&mut self, id: NodeId, change: impl FnOnce(&mut NodeEntry)) {
        let Some(entry) = self.nodes.get_mut(&id) else { return };
        change(entry);
        if entry.is_empty() {
            self.nodes.remove(&id);
        }
    }
}

fn stored<T>(value: T, marks: Marks) -> Stored<T> {
    Stored { value: Arc::new(value), created: marks.created, modified: marks.modified }
}

fn remove_from<K: Ord, I: Ord, V>(map: &mut BTreeMap<K, BTreeMap<I, V>>, key: &K, inner: &I) {
    if let Some(values) = map.get_mut(key) {
        values.remove(inner);
        if values.is_empty() {
            map.remove(key);
        }
    }
}

fn remove_member<K: Ord, I: Ord>(map: &mut BTreeMap<K, BTreeSet<I>>, key: &K, member: &I) {
    if let Some(members) = map.get_mut(key) {
        members.remove(member);
        if members.is_empty() {
            map.remove(key);
        }
    }
}

fn table_of(key: &Key) -> Table {
    match key {
        Key::Job(_) | Key::Version(..) | Key::Status(_) => Table::Jobs,
        Key::Alloc(..) | Key::AllocReport(..) => Table::Allocs,
        Key::NodeInfo(_) | Key::NodeLive(_) | Key::NodeSpec(_) | Key::NodeStatus(_) => Table::Nodes,
        Key::Evaluation(..) => Table::Evaluations,
        Key::Deployment(..) => Table::Deployments,
        Key::Service(..) => Table::Services,
        Key::Meta | Key::Config(_) | Key::Namespace(_) | Key::Pool(_) => Table::Config,
        Key::Keyring(_) => Table::Keyring,
        Key::Control(_)
        | Key::Intent(..)
        | Key::Launch(..)
        | Key::Server(_)
        | Key::Leader(_)
        | Key::AllocTokens(..) => Table::Other,
    }
}
