//! A whole cluster in one thread under virtual time: store, servers with all controllers, agents with a fake
//! workload, users, and faults, all drawn from one seed.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use herder::agent::Agent;
use herder::agent::AgentConfig;
use herder::agent::AgentHandle;
use herder::agent::Memory;
use herder::agent::dice::Dice;
use herder::agent::fake::FakeWorkload;
use herder::agent::fake::Life;
use herder::agent::ledger::Ledger;
use herder::agent::workload::Workload;
use herder::clock::TokioClock;
use herder::controllers;
use herder::mirror::Mirror;
use herder::mirror::watcher;
use herder::model::id::NodeId;
use herder::model::node::NodeInfo;
use herder::model::time::Time;
use herder::store::Op;
use herder::store::SharedStore;
use herder::store::Store;
use herder::store::Txn;
use herder::store::embedded::EmbeddedStore;
use herder::store::key::Key;
use herder::store::key::Keys;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::faults::Faults;
use crate::faults::FaultyStore;

/// Virtual start of every run.
const START: Time = Time::from_secs(1_790_000_000);

pub struct Server {
    pub mirror: Arc<Mirror>,
    pub clock: Arc<TokioClock>,
    _watching: AbortOnDropHandle<()>,
    _controlling: AbortOnDropHandle<()>,
}

pub struct Machine {
    pub id: NodeId,
    info: NodeInfo,
    ledger: Ledger,
    pub workload: Arc<FakeWorkload>,
    pub agent: Option<AgentHandle>,
    boots: u32,
}

/// What users asked for last and the store acknowledged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    pub kind: &'static str,
    pub count: i64,
    pub generation: u64,
    pub stop: bool,
}

pub struct World {
    pub dice: Dice,
    pub store: EmbeddedStore,
    pub keys: Keys,
    pub faults: Arc<Faults>,
    pub servers: BTreeMap<usize, Option<Server>>,
    pub machines: Vec<Machine>,
    pub wishes: BTreeMap<String, Wish>,
    pub trace: Vec<String>,
}

impl World {
    pub async fn new(seed: u64) -> Self {
        let mut world = Self {
            dice: Dice::seeded(seed),
            store: EmbeddedStore::new(),
            keys: Keys::default(),
            faults: Faults::new(seed ^ 0xFA17),
            servers: BTreeMap::new(),
            machines: Vec::new(),
            wishes: BTreeMap::new(),
            trace: Vec::new(),
        };
        let store: SharedStore = Arc::new(world.store.clone());
        controllers::bootstrap::ensure(&store, &world.keys, &controllers::Random::seeded(seed), None)
            .await
            .expect("nothing fails yet");
        for server in 0..2 {
            world.start_server(server);
        }
        let machines = 3 + world.pick(5);
        for _ in 0..machines {
            world.add_machine().await;
        }
        world
    }

    pub fn pick(&mut self, below: u64) -> u64 {
        self.dice.next_u64() % below
    }

    pub fn say(&mut self, text: impl Into<String>) {
        self.trace.push(text.into());
    }

    fn connection(&self, client: &str) -> SharedStore {
        Arc::new(FaultyStore {
            inner: self.store.clone(),
            faults: Arc::clone(&self.faults),
            client: client.to_owned(),
        })
    }

    pub fn start_server(&mut self, server: usize) {
        let clock = TokioClock::starting_at(START);
        let mirror = Mirror::new();
        let store = self.connection(&format!("server{server}"));
        let watching = watcher::run(
            Arc::clone(&mirror),
            Arc::clone(&store),
            self.keys.clone(),
            CancellationToken::new(),
        );
        let context = controllers::Context {
            store,
            keys: self.keys.clone(),
            mirror: Arc::clone(&mirror),
            clock: clock.clone(),
            settings: controllers::Settings::default(),
            random: controllers::Random::seeded(self.dice.next_u64()),
        };
        let identity = bytes::Bytes::from(json!({ "Server": server }).to_string());
        let controlling = controllers::run(context, identity, CancellationToken::new());
        let server_value = Server {
            mirror,
            clock,
            _watching: AbortOnDropHandle::new(tokio::spawn(watching)),
            _controlling: AbortOnDropHandle::new(tokio::spawn(controlling)),
        };
        self.servers.insert(server, Some(server_value));
    }

    /// As kill -9: everything the server had in memory is gone.
    pub fn kill_server(&mut self, server: usize) {
        self.servers.insert(server, None);
    }

    pub async fn add_machine(&mut self) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.dice.next_u64().to_le_bytes());
        let id = NodeId::from_random(bytes);
        let fate_seed = self.dice.next_u64();
        let fate = move |allocation: &herder::model::allocation::Allocation,
                         job: &herder::model::job::Job,
                         dice: &mut Dice| {
            let mut life = Life::plain(allocation, job);
            let mut chance = Dice::seeded(fate_seed ^ dice.next_u64());
            life.start_after = Duration::from_millis(chance.next_u64() % 800);
            life.stop_takes = Duration::from_millis(chance.next_u64() % 3000);
            let batch = job.kind == "batch";
            let fails = chance.next_u64().is_multiple_of(12);
            if batch || fails {
                let after = Duration::from_millis(500 + chance.next_u64() % 8000);
                life.end = Some(herder::agent::fake::End { after, failed: fails });
            }
            life
        };
        let info = json!({
            "Name": format!("n{}", self.machines.len()), "Datacenter": "dc1", "NodePool": "default",
            "Attributes": {"kernel.name": "linux", "nomad.service_discovery": "true"},
            "NodeResources": {
                "Cpu": {"CpuShares": 4000, "TotalCpuCores": 4}, "Memory": {"MemoryMB": 4096},
                "Disk": {"DiskMB": 100_000}, "MinDynamicPort": 20000, "MaxDynamicPort": 32000,
                "NodeNetworks": [{"Mode": "host", "Device": "lo", "Addresses": [
                    {"Family": "ipv4", "Alias": "default", "Address": "127.0.0.1"}]}],
            },
            "Drivers": {"mock_driver": {"Detected": true, "Healthy": true}},
        });
        let machine = Machine {
            id,
            info: serde_json::from_value(info).expect("a valid node"),
            ledger: Ledger::memory(),
            workload: Arc::new(FakeWorkload::new(Arc::new(fate))),
            agent: None,
            boots: 0,
        };
        self.machines.push(machine);
        self.start_agent(self.machines.len() - 1).await;
    }

    pub async fn start_agent(&mut self, at: usize) {
        let store = self.connection(&format!("agent{at}"));
        let seed = self.dice.next_u64();
        let machine = &mut self.machines[at];
        let memory = Memory::Given {
            node: machine.id,
            boot_id: format!("boot{}", machine.boots),
            ledger: machine.ledger.clone(),
        };
        let config = AgentConfig { seed: Some(seed), ..AgentConfig::new(memory, machine.info.clone()) };
        let workload: Arc<dyn Workload> = machine.workload.clone();
        let clock = TokioClock::starting_at(START);
        let agent = Agent::start(config, store, self.keys.clone(), clock, workload).await;
        self.machines[at].agent = Some(agent.expect("memory in hand cannot fail"));
    }

    /// kill -9 of the agent: its tasks go on.
    pub fn kill_agent(&mut self, at: usize) {
        self.machines[at].agent = None;
    }

    /// The machine loses power: agent and tasks are gone.
    pub fn power_off(&mut self, at: usize) {
        self.machines[at].agent = None;
        self.machines[at].workload.power_off();
        self.machines[at].boots += 1;
    }

    fn job_json(name: &str, wish: &Wish) -> String {
        let update = (wish.kind == "service").then(|| {
            json!({
                "MaxParallel": 1 + wish.generation % 3, "HealthCheck": "task_states",
                "MinHealthyTime": 500_000_000u64, "HealthyDeadline": 20_000_000_000u64,
                "ProgressDeadline": 40_000_000_000u64, "AutoRevert": wish.generation.is_multiple_of(2),
            })
        });
        let mut group = json!({
            "Name": "g", "Count": wish.count,
            "ReschedulePolicy": {"Attempts": 0, "Unlimited": true, "Delay": 5_000_000_000u64,
                "DelayFunction": "constant", "MaxDelay": 0, "Interval": 0},
            "Tasks": [{
                "Name": "t", "Driver": "mock_driver", "Config": {"run_for": "1h"},
                "Env": {"GENERATION": wish.generation.to_string()},
                "Resources": {"CPU": 400, "MemoryMB": 300},
            }],
        });
        if wish.kind == "system" {
            group["Count"] = json!(1);
            group["ReschedulePolicy"] = json!(null);
        }
        if let Some(update) = update {
            group["Update"] = update;
        }
        json!({
            "ID": name, "Name": name, "Type": wish.kind, "Datacenters": ["dc1"], "Stop": wish.stop,
            "TaskGroups": [group],
        })
        .to_string()
    }

    /// A user puts a job straight into the store; acknowledged, so it must not be lost.
    pub async fn wish(&mut self, name: &str, wish: Wish) {
        let key = self.keys.text(&Key::Job(herder::model::id::JobId::new("default", name)));
        let value = Self::job_json(name, &wish);
        self.store
            .commit(Txn::default().and_then(Op::put(key, value)))
            .await
            .expect("the user's way is clear");
        self.say(format!("wish {name} {wish:?}"));
        self.wishes.insert(name.to_owned(), wish);
    }

    pub async fn nonsense(&mut self, name: &str) {
        let key = self.keys.text(&Key::Job(herder::model::id::JobId::new("default", name)));
        let value = if self.pick(2) == 0 {
            "{not json".to_owned()
        } else {
            r#"{"ID":"x","TaskGroups":[]}"#.to_owned()
        };
        self.store
            .commit(Txn::default().and_then(Op::put(key, value)))
            .await
            .expect("the user's way is clear");
        self.say(format!("nonsense at {name}"));
        // The last readable wish goes on being what runs.
    }

    /// The machines on which work can go on.
    pub fn powered(&self) -> BTreeSet<NodeId> {
        self.machines.iter().filter(|machine| machine.agent.is_some()).map(|machine| machine.id).collect()
    }
}
