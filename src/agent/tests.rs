//! The core with fake allocations on an embedded store, under paused time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::agent::Agent;
use crate::agent::AgentConfig;
use crate::agent::AgentHandle;
use crate::agent::Memory;
use crate::agent::dice::Dice;
use crate::agent::fake::End;
use crate::agent::fake::FakeWorkload;
use crate::agent::fake::Life;
use crate::agent::ledger::Ledger;
use crate::agent::register::Lease;
use crate::agent::workload::Workload;
use crate::clock::TokioClock;
use crate::model::allocation::Allocation;
use crate::model::allocation::AllocationReport;
use crate::model::allocation::ClientStatus;
use crate::model::allocation::DesiredStatus;
use crate::model::group::TaskGroup;
use crate::model::id::AllocId;
use crate::model::id::JobId;
use crate::model::id::NodeId;
use crate::model::job::Job;
use crate::model::node::NodeControl;
use crate::model::node::NodeInfo;
use crate::model::node::NodeLive;
use crate::model::task::Task;
use crate::model::time::Time;
use crate::store::ListOptions;
use crate::store::Op;
use crate::store::Range;
use crate::store::Store;
use crate::store::Txn;
use crate::store::embedded::EmbeddedStore;
use crate::store::key::Key;
use crate::store::key::Keys;

const CLUSTER: &str = "cluster-1";

/// One node and its store; agents come and go.
struct Bench {
    store: EmbeddedStore,
    keys: Keys,
    clock: Arc<TokioClock>,
    node: NodeId,
    ledger: Ledger,
    machine: Arc<FakeWorkload>,
    created: u64,
}

impl Bench {
    async fn with(machine: FakeWorkload) -> Self {
        let bench = Self {
            store: EmbeddedStore::new(),
            keys: Keys::default(),
            clock: TokioClock::starting_at(Time::from_secs(1_700_000_000)),
            node: NodeId::from_random([1; 16]),
            ledger: Ledger::memory(),
            machine: Arc::new(machine),
            created: 0,
        };
        let task = Task { name: "main".into(), driver: "fake".into(), ..Task::default() };
        let group = TaskGroup { name: "web".into(), tasks: vec![task], ..TaskGroup::default() };
        let job = Job {
            id: "web".into(),
            namespace: "default".into(),
            kind: "service".into(),
            task_groups: vec![group],
            ..Job::default()
        };
        let created = bench.put(&Key::Job(JobId::new("default", "web")), &job).await;
        bench.control(CLUSTER, 1).await;
        Self { created, ..bench }
    }

    async fn new() -> Self {
        Self::with(FakeWorkload::plain()).await
    }

    async fn put<T: serde::Serialize>(&self, key: &Key, value: &T) -> u64 {
        let put = Op::put(self.keys.text(key), serde_json::to_vec(value).unwrap());
        u64::try_from(self.store.commit(Txn::default().and_then(put)).await.unwrap().revision).unwrap()
    }

    async fn delete(&self, key: &Key) {
        self.store.commit(Txn::default().and_then(Op::delete(self.keys.text(key)))).await.unwrap();
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, key: &Key) -> Option<T> {
        let (_, item) = self.store.get(&self.keys.text(key)).await.unwrap();
        item.map(|item| serde_json::from_slice(&item.value).unwrap())
    }

    async fn control(&self, cluster: &str, epoch: u64) {
        let control = NodeControl { cluster_id: cluster.into(), epoch };
        self.put(&Key::Control(self.node), &control).await;
    }

    async fn assign(&self, number: u8, status: DesiredStatus) -> AllocId {
        let id = AllocId::from_random([number; 16]);
        let allocation = Allocation {
            id,
            namespace: "default".into(),
            job_id: "web".into(),
            job_create_index: self.created,
            task_group: "web".into(),
            index: u32::from(number),
            desired_status: status,
            ..Allocation::default()
        };
        self.put(&Key::Alloc(self.node, id), &allocation).await;
        id
    }

    async fn agent(&self) -> AgentHandle {
        self.agent_booted("boot-1", &self.ledger).await
    }

    async fn agent_booted(&self, boot_id: &str, ledger: &Ledger) -> AgentHandle {
        let memory = Memory::Given { node: self.node, boot_id: boot_id.into(), ledger: ledger.clone() };
        let config = AgentConfig {
            seed: Some(Dice::random().next_u64()),
            ..AgentConfig::new(memory, NodeInfo { name: "n1".into(), ..NodeInfo::default() })
        };
        let machine: Arc<dyn Workload> = Arc::<FakeWorkload>::clone(&self.machine);
        let store = Arc::new(self.store.clone());
        Agent::start(config, store, self.keys.clone(), self.clock.clone(), machine).await.unwrap()
    }

    async fn status(&self, id: AllocId) -> Option<ClientStatus> {
        let report: Option<AllocationReport> = self.get(&Key::AllocReport(self.node, id)).await;
        report.map(|report| report.client_status)
    }

    /// Lets the agent work for a while. Time is paused, so this costs nothing.
    async fn pass(&self, seconds: f64) {
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_assigned_allocation_runs_and_is_stopped_on_order() {
    let bench = Bench::new().await;
    let agent = bench.agent().await;
    let id = bench.assign(1, DesiredStatus::Run).await;
    bench.pass(0.5).await;
    assert_eq!(bench.status(id).await, Some(ClientStatus::Running));
    bench.assign(1, DesiredStatus::Stop).await;
    bench.pass(0.5).await;
    assert_eq!(bench.status(id).await, Some(ClientStatus::Complete));
    bench.delete(&Key::Alloc(bench.node, id)).await;
    bench.pass(0.5).await;
    assert_eq!(bench.status(id).await, None, "the report goes with the order");
    assert!(!bench.machine.knows(id));
    agent.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_order_to_stop_what_never_ran_is_confirmed() {
    let bench = Bench::new().await;
    let id = bench.assign(1, DesiredStatus::Stop).await;
    let _agent = bench.agent().await;
    bench.pass(0.5).await;
    assert_eq!(bench.status(id).await, Some(ClientStatus::Complete));
}

#[tokio::test(start_paused = true)]
async fn a_missing_job_version_is_refused_with_a_reason() {
    let bench = Bench { created: 7777, ..Bench::new().await };
    let id = bench.assign(1, DesiredStatus::Run).await;
    let _agent = bench.agent().await;
    bench.pass(0.5).await;
    let report: AllocationReport = bench.get(&Key::AllocReport(bench.node, id)).await.unwrap();
    assert_eq!(report.client_status, ClientStatus::Failed);
    assert_eq!(report.rejected, "job default/web version 0 not found");
}

#[tokio::test(start_paused = true)]
async fn an_idle_agent_writes_nothing() {
    let bench = Bench::new().await;
    let _agent = bench.agent().await;
    bench.assign(1, DesiredStatus::Run).await;
    bench.pass(5.0).await;
    let before = bench.store.revision().await.unwrap();
    bench.pass(2000.0).await;
    assert_eq!(bench.store.revision().await.unwrap(), before);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_agent_rewrites_only_its_registration() {
    let bench = Bench::new().await;
    let first = bench.agent().await;
    let id = bench.assign(1, DesiredStatus::Run).await;
    bench.pass(1.0).await;
    drop(first);
    let before = bench.store.revision().await.unwrap();
    let second = bench.agent().await;
    bench.pass(1.0).await;
    assert_eq!(bench.status(id).await, Some(ClientStatus::Running));
    assert!(matches!(*second.lease().borrow(), Lease::Held(_)), "no wait for the former lease");
    assert_eq!(bench.store.revision().await.unwrap(), before + 1, "only `live`");
}

#[tokio::test(start_paused = true)]
async fn a_second_agent_with_the_same_id_is_refused_until_the_first_is_gone() {
    let bench = Bench::new().await;
    let first = bench.agent().await;
    bench.pass(1.0).await;
    let second = bench.agent_booted("boot-2", &Ledger::memory()).await;
    bench.pass(60.0).await;
    let Lease::Refused(reason) = second.lease().borrow().clone() else { panic!("not refused") };
    assert!(reason.contains(first.session_id()), "{reason}");
    drop(first);
    bench.pass(60.0).await;
    let live: NodeLive = bench.get(&Key::NodeLive(bench.node)).await.unwrap();
    assert_eq!(live.session_id, second.session_id());
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_is_granted_anew() {
    let bench = Bench::new().await;
    let agent = bench.agent().await;
    bench.pass(1.0).await;
    let lease = agent.lease().borrow().id().unwrap();
    bench.store.revoke(lease).await.unwrap();
    let id = bench.assign(1, DesiredStatus::Run).await;
    bench.pass(5.0).await;
    assert!(bench.get::<NodeLive>(&Key::NodeLive(bench.node)).await.is_some());
    assert_eq!(bench.status(id).await, Some(ClientStatus::Running));
}

#[tokio::test(start_paused = true)]
async fn an_empty_store_stops_no_work() {
    let bench = Bench::new().await;
    let _agent = bench.agent().await;
    let id = bench.assign(1, DesiredStatus::Run).await;
    bench.pass(1.0).await;
    let desired = Range::Prefix(bench.keys.desired(bench.node));
    bench.store.commit(Txn::default().and_then(Op::Delete(desired))).await.unwrap();
    bench.store.cut_watches();
    bench.pass(1000.0).await;
    assert_eq!(bench.machine.running(), [id]);
    bench.control("another cluster", 9).await;
    bench.pass(1000.0).await;
    assert_eq!(bench.machine.running(), [id]);
    bench.control(CLUSTER, 0).await;
    bench.pass(1000.0).await;
    assert_eq!(bench.machine.running(), [id]);
    // The true cluster, without the allocation: now its absence is an order.
    bench.control(CLUSTER, 1).await;
    bench.pass(1000.0).await;
    assert!(bench.machine.running().is_empty());
}

#[tokio::test(start_paused = true)]
async fn compaction_and_cut_watches_lose_no_orders() {
    let bench = Bench::new().await;
    let _agent = bench.agent().await;
    let mut ids = Vec::new();
    for number in 1..6 {
        ids.push(bench.assign(number, DesiredStatus::Run).await);
        bench.store.cut_watches();
        let revision = bench.store.revision().await.unwrap();
        bench.store.compact(revision).await.unwrap();
        bench.pass(0.3).await;
    }
    bench.pass(10.0).await;
    ids.sort_unstable();
    assert_eq!(bench.machine.running(), ids);
}

#[tokio::test(start_paused = true)]
async fn what_ended_does_not_run_again_after_the_ledger_is_lost() {
    let machine = FakeWorkload::new(Arc::new(|allocation, job, _| Life {
        end: Some(End { after: Duration::from_secs(3), failed: false }),
        ..Life::plain(allocation, job)
    }));
    let bench = Bench::with(machine).await;
    let agent = bench.agent().await;
    let id = bench.assign(1, DesiredStatus::Run).await;
    bench.pass(10.0).await;
    assert_eq!(bench.status(id).await, Some(ClientStatus::Complete));
    drop(agent);
    let fresh = Bench { machine: Arc::new(FakeWorkload::plain()), ledger: Ledger::memory(), ..bench };
    fresh.pass(30.0).await;
    let _agent = fresh.agent().await;
    fresh.pass(10.0).await;
    assert!(fresh.machine.running().is_empty());
    assert_eq!(fresh.status(id).await, Some(ClientStatus::Complete));
}

#[tokio::test(start_paused = true)]
async fn reports_of_many_allocations_share_transactions() {
    let bench = Bench::new().await;
    let agent = bench.agent().await;
    bench.pass(1.0).await;
    let mut txn = Txn::default();
    for number in 1..=100u8 {
        let id = AllocId::from_random([number; 16]);
        let allocation = Allocation {
            id,
            namespace: "default".into(),
            job_id: "web".into(),
            task_group: "web".into(),
            ..Allocation::default()
        };
        txn = txn.and_then(Op::put(
            bench.keys.text(&Key::Alloc(bench.node, id)),
            serde_json::to_vec(&allocation).unwrap(),
        ));
    }
    let placed = bench.store.commit(txn).await.unwrap().revision;
    bench.pass(1.0).await;
    let reports = Range::Prefix(format!("{}allocs/", bench.keys.reported(bench.node)));
    let listing = bench.store.list(reports, ListOptions::default()).await.unwrap();
    assert_eq!(listing.items.len(), 100);
    let mut sizes = BTreeMap::new();
    listing.items.iter().for_each(|item| *sizes.entry(item.mod_revision).or_insert(0) += 1);
    assert!(sizes.len() <= 2, "{sizes:?}");
    assert!(listing.revision <= placed + 2);
    agent.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_is_one_write_and_waits_for_nothing() {
    let start_after = Duration::from_millis(5);
    let machine = FakeWorkload::new(Arc::new(move |allocation, job, _| Life {
        start_after,
        ..Life::plain(allocation, job)
    }));
    let bench = Bench::with(machine).await;
    let _agent = bench.agent().await;
    bench.pass(1.0).await;
    for number in 1..=3 {
        let before = bench.store.revision().await.unwrap();
        let id = bench.assign(number, DesiredStatus::Run).await;
        bench.pass(0.01).await;
        assert_eq!(bench.status(id).await, Some(ClientStatus::Running));
        assert_eq!(bench.store.revision().await.unwrap(), before + 2, "the order and the report");
    }
}

#[tokio::test(start_paused = true)]
async fn news_that_nobody_waits_for_is_written_with_the_next_or_after_a_while() {
    let bench = Bench::new().await;
    let agent = bench.agent().await;
    bench.pass(1.0).await;
    let [first, second] = [1, 2].map(|number| AllocId::from_random([number; 16]));
    agent.outbox.put_alloc(first, AllocationReport::default());
    bench.pass(0.05).await;
    assert_eq!(bench.status(first).await, None);
    let running = AllocationReport { client_status: ClientStatus::Running, ..AllocationReport::default() };
    agent.outbox.put_alloc(second, running);
    bench.pass(0.001).await;
    assert_eq!(bench.status(first).await, Some(ClientStatus::Pending));
    assert_eq!(bench.status(second).await, Some(ClientStatus::Running));
    let third = AllocId::from_random([3; 16]);
    agent.outbox.put_alloc(third, AllocationReport::default());
    bench.pass(0.15).await;
    assert_eq!(bench.status(third).await, Some(ClientStatus::Pending));
}
