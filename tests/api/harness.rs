//! A small cluster without machines: store, mirror, API, and hands to write what controllers and agents would.

use std::sync::Arc;

use bytes::Bytes;
use herder::api::AgentInfo;
use herder::api::Api;
use herder::api::ApiConfig;
use herder::api::ApiContext;
use herder::api::dice::ThreadDice;
use herder::clock::SystemClock;
use herder::mirror::Mirror;
use herder::mirror::dry_run::DryRun;
use herder::mirror::dry_run::DryRunResult;
use herder::mirror::state::State;
use herder::mirror::watcher;
use herder::model::allocation::Allocation;
use herder::model::allocation::AllocationReport;
use herder::model::evaluation::DesiredUpdates;
use herder::model::id::AllocId;
use herder::model::id::NodeId;
use herder::model::job::Job;
use herder::model::node::NodeInfo;
use herder::model::node::NodeState;
use herder::model::node::NodeStatus;
use herder::model::time::Time;
use herder::store::Op;
use herder::store::Revision;
use herder::store::SharedStore;
use herder::store::Txn;
use herder::store::embedded::EmbeddedStore;
use herder::store::key::Key;
use herder::store::key::Keys;
use http::HeaderMap;
use http::Request;
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Everything a test needs. Dropping it ends the watcher.
pub struct Cluster {
    pub api: Arc<Api>,
    pub store: SharedStore,
    pub keys: Keys,
    pub mirror: Arc<Mirror>,
    cancel: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// An answer with its JSON, or its text.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
    pub json: Value,
}

impl Answer {
    pub fn index(&self) -> i64 {
        self.headers["x-nomad-index"].to_str().unwrap().parse().unwrap()
    }
}

/// A planner that places everything.
struct PlaceAll;

impl DryRun for PlaceAll {
    fn dry_run(&self, _: &State, job: &Job, _: Time) -> DryRunResult {
        let place = |count: usize| DesiredUpdates { place: count as u64, ..DesiredUpdates::default() };
        DryRunResult {
            updates: job.task_groups.iter().map(|group| (group.name.clone(), place(group.count()))).collect(),
            ..DryRunResult::default()
        }
    }
}

impl Cluster {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut ApiContext)) -> Self {
        let store: SharedStore = Arc::new(EmbeddedStore::new());
        let keys = Keys::default();
        let mirror = Mirror::new();
        let cancel = CancellationToken::new();
        tokio::spawn(watcher::run(Arc::clone(&mirror), Arc::clone(&store), keys.clone(), cancel.clone()));
        let mut context = ApiContext {
            store: Arc::clone(&store),
            keys: keys.clone(),
            mirror: Arc::clone(&mirror),
            clock: Arc::new(SystemClock),
            dice: Arc::new(ThreadDice),
            region: "global".into(),
            datacenter: "dc1".into(),
            agent: AgentInfo {
                name: "host".into(),
                server_id: "s1".into(),
                version: "0.1.0".into(),
                http_addr: "127.0.0.1:4646".into(),
                is_server: true,
                ..AgentInfo::default()
            },
            local: None,
            servers: None,
            planner: Arc::new(PlaceAll),
            config: ApiConfig::default(),
        };
        change(&mut context);
        let cluster = Self { api: Api::new(context), store, keys, mirror, cancel };
        cluster.put(&Key::Leader("scheduler".into()), &json!({"ID": "s1"})).await;
        cluster
    }

    /// Writes a value as a controller or an agent would.
    pub async fn put<T: Serialize>(&self, key: &Key, value: &T) -> Revision {
        let op = Op::put(self.keys.text(key), serde_json::to_vec(value).unwrap());
        self.store.commit(Txn::default().and_then(op)).await.unwrap().revision
    }

    pub async fn call(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
        let reply = self.api.handle(request).await;
        let (parts, body) = reply.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_vec()).unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, text, json }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "").await
    }

    pub async fn write(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, body.to_string()).await
    }

    /// Registers a job and checks that it was taken.
    pub async fn register(&self, job: Value) -> Answer {
        let answer = self.write("/v1/jobs", json!({ "Job": job })).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer
    }

    pub async fn node(&self, name: &str) -> NodeId {
        let id = NodeId::from_random(rand::random());
        let info = NodeInfo {
            id,
            name: name.into(),
            datacenter: "dc1".into(),
            node_pool: "default".into(),
            http_addr: "127.0.0.1:4646".into(),
            attributes: [("os.name".to_owned(), "debian".to_owned())].into(),
            ..NodeInfo::default()
        };
        self.put(&Key::NodeInfo(id), &info).await;
        let status = NodeStatus { status: NodeState::Ready, ..NodeStatus::default() };
        self.put(&Key::NodeStatus(id), &status).await;
        id
    }

    /// An allocation of the job's current version on a node.
    pub async fn place(&self, node: NodeId, job: &Value, change: impl FnOnce(&mut Allocation)) -> AllocId {
        let id = AllocId::from_random(rand::random());
        let mut alloc = Allocation {
            id,
            node_id: node,
            namespace: job["Namespace"].as_str().unwrap().into(),
            job_id: job["ID"].as_str().unwrap().into(),
            job_version: job["Version"].as_u64().unwrap(),
            job_create_index: job["CreateIndex"].as_u64().unwrap(),
            task_group: job["TaskGroups"][0]["Name"].as_str().unwrap().into(),
            create_time: 1,
            modify_time: 1,
            ..Allocation::default()
        };
        change(&mut alloc);
        self.put(&Key::Alloc(node, id), &alloc).await;
        id
    }

    pub async fn report(&self, node: NodeId, id: AllocId, change: impl FnOnce(&mut AllocationReport)) {
        let mut report = AllocationReport::default();
        change(&mut report);
        self.put(&Key::AllocReport(node, id), &report).await;
    }
}

/// A small valid job.
pub fn job(id: &str) -> Value {
    json!({
        "ID": id, "Name": id, "Type": "service", "Priority": 50, "Datacenters": ["dc1"],
        "NodePool": "default", "Namespace": "default",
        "TaskGroups": [{
            "Name": "web", "Count": 2,
            "Tasks": [{
                "Name": "server", "Driver": "raw_exec", "Config": {"command": "/bin/sleep", "args": ["60"]},
                "Resources": {"CPU": 100, "MemoryMB": 64},
            }],
        }],
    })
}
