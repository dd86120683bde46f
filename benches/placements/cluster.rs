//! One server and many simulated nodes in this process, each on a runtime of its own so that their CPU time can be
//! told apart by the names of threads.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use futures::StreamExt;
use herder::agent::Agent;
use herder::agent::AgentConfig;
use herder::agent::AgentHandle;
use herder::agent::Memory;
use herder::agent::fake::FakeWorkload;
use herder::agent::jobs::JobCache;
use herder::agent::ledger::Ledger;
use herder::clock::Clock;
use herder::clock::SystemClock;
use herder::controllers;
use herder::controllers::job::record;
use herder::jobspec;
use herder::mirror::Mirror;
use herder::mirror::watcher;
use herder::model::id::EvalId;
use herder::model::id::NodeId;
use herder::model::job::Job;
use herder::model::node::NodeInfo;
use herder::model::time::Span;
use herder::store::Guard;
use herder::store::KeyValue;
use herder::store::ListOptions;
use herder::store::Op;
use herder::store::Range;
use herder::store::SharedStore;
use herder::store::StoreError;
use herder::store::Txn;
use herder::store::etcd::EtcdOptions;
use herder::store::etcd::EtcdStore;
use herder::store::key::Key;
use herder::store::key::Keys;
use serde_json::json;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::Shape;
use crate::progress::Progress;
use crate::support::etcd::Etcd;

/// Beginning of the names of the server's threads.
pub const SERVER_THREADS: &str = "b-server";
/// Beginning of the names of the agents' threads.
pub const AGENT_THREADS: &str = "b-agents";
/// Registrations under way at once, as several users would.
const REGISTERING: usize = 8;
const READY_PATIENCE: Duration = Duration::from_secs(180);

/// Everything that runs. Dropping it ends it.
pub struct Cluster {
    pub keys: Keys,
    pub progress: Progress,
    mirror: Arc<Mirror>,
    user: SharedStore,
    server: Runtime,
    agents: Option<Runtime>,
    handles: Vec<AgentHandle>,
    cancel: CancellationToken,
}

impl Cluster {
    /// Starts a server, then the agents, and waits until every node is ready.
    pub fn start(options: &Options, etcd: &Etcd) -> Result<Self, String> {
        let runtime =
            |name: &str| Builder::new_multi_thread().worker_threads(2).thread_name(name).enable_all().build();
        let server = runtime(SERVER_THREADS).map_err(|error| error.to_string())?;
        let agents = runtime(AGENT_THREADS).map_err(|error| error.to_string())?;
        let keys = Keys::default();
        let mirror = Mirror::new();
        let cancel = CancellationToken::new();
        let endpoint = etcd.endpoint();
        let user =
            server.block_on(serve(&endpoint, &keys, &mirror, &cancel)).map_err(|error| error.to_string())?;
        let progress = Progress::follow(&mirror);
        let handles =
            agents.block_on(start_agents(options, &endpoint, &keys)).map_err(|error| error.to_string())?;
        let cluster = Self { keys, progress, mirror, user, server, agents: Some(agents), handles, cancel };
        cluster.wait_ready(options.nodes)?;
        Ok(cluster)
    }

    fn wait_ready(&self, nodes: usize) -> Result<(), String> {
        let started = Instant::now();
        loop {
            let ready = self.mirror.read().nodes.values().filter(|node| node.is_schedulable()).count();
            if ready == nodes {
                return Ok(());
            }
            if started.elapsed() > READY_PATIENCE {
                return Err(format!("{ready} of {nodes} nodes are ready"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops all agents as a power cut would; their leases go on for their remaining time.
    pub fn freeze(&mut self) {
        self.handles.clear();
        if let Some(agents) = self.agents.take() {
            agents.shutdown_timeout(Duration::from_secs(5));
        }
    }

    /// The newest revision of the store.
    pub fn revision(&self) -> Result<i64, String> {
        self.server.block_on(self.user.revision()).map_err(|error| error.to_string())
    }

    /// Registers all jobs; when the first was accepted.
    pub fn register_jobs(&self, options: &Options) -> Result<Instant, String> {
        let jobs: Vec<Job> = (0..options.jobs).map(|number| job(options, number)).collect();
        self.server.block_on(async {
            let mut accepted =
                futures::stream::iter(jobs).map(|job| self.register(job)).buffered(REGISTERING);
            let first = accepted.next().await.ok_or("no jobs")??;
            while let Some(next) = accepted.next().await {
                next?;
            }
            Ok(first)
        })
    }

    /// Job and pending evaluation in one guarded transaction, as the API writes them.
    async fn register(&self, mut job: Job) -> Result<Instant, String> {
        let now = SystemClock.now();
        job.submit_time = now.0;
        job.seal();
        let evaluation = record::registered(&job, EvalId::from_random(rand::random()), now);
        let key = self.keys.text(&Key::Job(job.job_id()));
        let value = |value: Result<Vec<u8>, serde_json::Error>| value.map_err(|error| error.to_string());
        let txn = Txn::when([Guard::absent(key.clone())])
            .and_then(Op::put(key, value(serde_json::to_vec(&job))?))
            .and_then(Op::put(
                self.keys.text(&Key::Evaluation(job.job_id(), evaluation.id)),
                value(serde_json::to_vec(&evaluation))?,
            ));
        let outcome = self.user.commit(txn).await.map_err(|error| error.to_string())?;
        if outcome.succeeded { Ok(Instant::now()) } else { Err(format!("{} exists", job.id)) }
    }

    /// Waits until nothing has been written for a second, so that trailing records are in.
    pub fn settle(&self) {
        let mut seen = 0;
        while seen != self.mirror.revision() {
            seen = self.mirror.revision();
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Everything that etcd holds.
    pub fn contents(&self) -> Result<Vec<KeyValue>, String> {
        let everything = Range::Prefix(self.keys.root().to_owned());
        let listing = self.server.block_on(self.user.list(everything, ListOptions::default()));
        listing.map(|listing| listing.items).map_err(|error| error.to_string())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.freeze();
    }
}

async fn connect(endpoint: &str) -> Result<SharedStore, StoreError> {
    let options = EtcdOptions { endpoints: vec![endpoint.to_owned()], ..EtcdOptions::default() };
    Ok(Arc::new(EtcdStore::connect(options).await?))
}

/// Starts the server; the store through which users talk.
async fn serve(
    endpoint: &str,
    keys: &Keys,
    mirror: &Arc<Mirror>,
    cancel: &CancellationToken,
) -> Result<SharedStore, StoreError> {
    let store = connect(endpoint).await?;
    let random = controllers::Random::from_system();
    controllers::bootstrap::ensure(&store, keys, &random, None)
        .await
        .map_err(|error| StoreError::Other(error.to_string()))?;
    tokio::spawn(watcher::run(Arc::clone(mirror), Arc::clone(&store), keys.clone(), cancel.clone()));
    let context = controllers::Context {
        store: Arc::clone(&store),
        keys: keys.clone(),
        mirror: Arc::clone(mirror),
        clock: Arc::new(SystemClock),
        // As `herder agent` has it by default.
        settings: controllers::Settings { heartbeat_grace: Span::from_secs(10), ..Default::default() },
        random,
    };
    tokio::spawn(controllers::run(context, bytes::Bytes::from_static(b"{}"), cancel.clone()));
    connect(endpoint).await
}

async fn start_agents(
    options: &Options,
    endpoint: &str,
    keys: &Keys,
) -> Result<Vec<AgentHandle>, StoreError> {
    let jobs = JobCache::default();
    let mut handles = Vec::with_capacity(options.nodes);
    let mut store = connect(endpoint).await?;
    for number in 0..options.nodes {
        if number % options.agents_per_connection == 0 {
            store = connect(endpoint).await?;
        }
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
        bytes[8..].copy_from_slice(&(number as u64).to_be_bytes());
        let node = NodeId::from_random(bytes);
        let memory = Memory::Given { node, boot_id: "bench".to_owned(), ledger: Ledger::memory() };
        let ttl = if options.frozen { Duration::from_secs(3600) } else { Duration::from_secs(options.ttl) };
        let config =
            AgentConfig { lease_ttl: ttl, jobs: jobs.clone(), ..AgentConfig::new(memory, node_info(number)) };
        let workload = Arc::new(FakeWorkload::plain());
        let clock = Arc::new(SystemClock);
        let agent = Agent::start(config, Arc::clone(&store), keys.clone(), clock, workload).await;
        handles.push(agent.expect("memory in hand cannot fail"));
    }
    Ok(handles)
}

/// Two datacenters and three classes, as in the procedures of `docs/performance.md`.
fn node_info(number: usize) -> NodeInfo {
    let info = json!({
        "Name": format!("node-{number:05}"),
        "Datacenter": format!("dc{}", 1 + number % 2),
        "NodePool": "default",
        "NodeClass": format!("class-{}", number % 3),
        "Attributes": {
            "kernel.name": "linux", "cpu.arch": "amd64", "os.name": "debian", "nomad.version": "1.9.7",
            "nomad.service_discovery": "true", "driver.mock_driver": "1", "unique.hostname": format!("node-{number:05}"),
        },
        "Meta": {"rack": format!("r{}", number % 50)},
        "NodeResources": {
            "Cpu": {"CpuShares": 4000, "TotalCpuCores": 4}, "Memory": {"MemoryMB": 8192},
            "Disk": {"DiskMB": 200_000}, "MinDynamicPort": 20000, "MaxDynamicPort": 32000,
            "NodeNetworks": [{"Mode": "host", "Device": "eth0", "Addresses": [
                {"Family": "ipv4", "Alias": "default", "Address": format!("10.0.{}.{}", number / 250, number % 250)}]}],
        },
        "Drivers": {"mock_driver": {"Detected": true, "Healthy": true}},
    });
    serde_json::from_value(info).expect("a valid node")
}

fn job(options: &Options, number: usize) -> Job {
    let id = format!("load-{number:05}");
    let mut group = json!({
        "Name": "g", "Count": options.count,
        "EphemeralDisk": {"SizeMB": 20},
        "Update": {"MaxParallel": 0},
        "Tasks": [{
            "Name": "t", "Driver": "mock_driver", "Config": {"run_for": "1h"},
            "Resources": {"CPU": options.cpu, "MemoryMB": options.memory},
            "LogConfig": {"MaxFiles": 1, "MaxFileSizeMB": 5},
        }],
    });
    match options.shape {
        Shape::Plain => {}
        Shape::Deployment => {
            group["Update"] =
                json!({"MaxParallel": 10, "HealthCheck": "task_states", "MinHealthyTime": 100_000_000u64});
        }
        Shape::Spread => {
            group["Spreads"] = json!([{"Attribute": "${meta.rack}", "Weight": 50}]);
            group["Constraints"] = json!([{"Operand": "distinct_hosts", "RTarget": "true"}]);
            group["Affinities"] =
                json!([{"LTarget": "${node.class}", "Operand": "=", "RTarget": "class-1", "Weight": 50}]);
        }
    }
    let text = json!({
        "ID": id, "Name": id, "Type": "service", "Datacenters": ["dc1", "dc2"], "TaskGroups": [group],
    });
    let mut job = jobspec::decode_json(text.to_string().as_bytes()).expect("a valid job");
    jobspec::canonicalize(&mut job, &jobspec::Defaults::default());
    let errors = jobspec::validate(&job).error_text();
    assert_eq!(errors, None, "the bench's job is valid");
    job
}
