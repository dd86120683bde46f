//! Clusters, jobs and answers as text.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use serde_json::json;
use uuid::Uuid;

use crate::model::id::AllocId;
use crate::model::id::NodeId;
use crate::model::job::Job;
use crate::model::node::DriverInfo;
use crate::model::node::HostVolume;
use crate::model::node::NodeAddress;
use crate::model::node::NodeInfo;
use crate::model::node::NodeNetwork;
use crate::scheduler::Algorithm;
use crate::scheduler::AllocFacts;
use crate::scheduler::Cluster;
use crate::scheduler::Decision;
use crate::scheduler::NodeFacts;
use crate::scheduler::Request;
use crate::scheduler::Slot;
use crate::scheduler::place;

/// `n7` is the node whose id ends in 7.
pub(super) fn node_id(name: &str) -> NodeId {
    NodeId(Uuid::from_u128(name.trim_start_matches('n').parse().expect("nodes are called n<number>")))
}

pub(super) fn node_name(id: NodeId) -> String {
    format!("n{}", id.0.as_u128())
}

pub(super) fn alloc_id(number: u32) -> AllocId {
    AllocId(Uuid::from_u128((1 << 100) | u128::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C)))
}

/// One node per line: `n1 cpu=4000 mem=8192 dc=dc1 meta.rack=r1 attr.os.version=12 down`.
pub(super) fn node_info(line: &str) -> (NodeInfo, bool) {
    let mut words = line.split_whitespace();
    let name = words.next().expect("a line names its node");
    let mut info = NodeInfo {
        id: node_id(name),
        name: name.to_owned(),
        datacenter: "dc1".to_owned(),
        node_pool: "default".to_owned(),
        ..NodeInfo::default()
    };
    let resources = &mut info.resources;
    resources.cpu.cpu_shares = 4000;
    resources.cpu.total_cpu_cores = 4;
    resources.cpu.reservable_cpu_cores = vec![0, 1, 2, 3];
    resources.memory.memory_mb = 8192;
    resources.disk.disk_mb = 100_000;
    let default = NodeAddress {
        family: "ipv4".to_owned(),
        alias: "default".to_owned(),
        address: format!("10.0.{}.1", info.id.0.as_u128() % 250),
        ..NodeAddress::default()
    };
    resources.node_networks = vec![NodeNetwork {
        mode: "host".to_owned(),
        device: "eth0".to_owned(),
        addresses: vec![default],
        ..NodeNetwork::default()
    }];
    info.drivers.insert("exec".to_owned(), driver(true));
    let mut ready = true;
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let number = || value.parse::<i64>().expect("a number");
        match key {
            "down" => ready = false,
            "cpu" => info.resources.cpu.cpu_shares = number(),
            "mem" => info.resources.memory.memory_mb = number(),
            "disk" => info.resources.disk.disk_mb = number(),
            "reserved_cpu" => info.reserved.cpu.cpu_shares = number(),
            "reserved_ports" => info.reserved.networks.reserved_host_ports = value.to_owned(),
            "dynamic" => {
                let (low, high) = value.split_once('-').expect("low-high");
                info.resources.min_dynamic_port = low.parse().expect("a port");
                info.resources.max_dynamic_port = high.parse().expect("a port");
            }
            "dc" => info.datacenter = value.to_owned(),
            "pool" => info.node_pool = value.to_owned(),
            "class" => info.node_class = value.to_owned(),
            "sick" => {
                info.drivers.insert("exec".to_owned(), driver(false));
            }
            "ip" => {
                let (alias, address) = value.split_once(':').expect("alias:address");
                info.resources.node_networks[0].addresses.push(NodeAddress {
                    alias: alias.to_owned(),
                    address: address.to_owned(),
                    ..NodeAddress::default()
                });
            }
            "gpu" => {
                info.resources.devices.push(
                    serde_json::from_value(json!({
                        "Vendor": "nvidia", "Type": "gpu", "Name": value,
                        "Instances": [{"ID": "g0", "Healthy": true}, {"ID": "g1", "Healthy": true}],
                        "Attributes": {"memory": {"Int": 8, "Unit": "GiB"}},
                    }))
                    .unwrap(),
                );
            }
            "volume" => {
                let volume = HostVolume { name: value.to_owned(), ..HostVolume::default() };
                info.host_volumes.insert(value.to_owned(), volume);
            }
            "ro_volume" => {
                let volume = HostVolume { name: value.to_owned(), read_only: true, ..HostVolume::default() };
                info.host_volumes.insert(value.to_owned(), volume);
            }
            _ => {
                if let Some(name) = key.strip_prefix("meta.") {
                    info.meta.insert(name.to_owned(), value.to_owned());
                } else {
                    let name = key.strip_prefix("attr.").expect("a known word");
                    info.attributes.insert(name.to_owned(), value.to_owned());
                }
            }
        }
    }
    (info, ready)
}

fn driver(healthy: bool) -> DriverInfo {
    DriverInfo { detected: true, healthy, ..DriverInfo::default() }
}

pub(super) fn cluster(nodes: &str) -> Cluster {
    let mut cluster = Cluster::new();
    for line in nodes.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (info, ready) = node_info(line);
        let facts = NodeFacts { info: Arc::new(info), meta: BTreeMap::new(), ready };
        cluster.set_node(facts.info.id, facts);
    }
    cluster
}

/// A job `j` with a group `g` and a task `t` of 500 MHz and 256 MiB; `job`, `group` and `task` override fields.
pub(super) fn job(job: Value, group: Value, task: Value) -> Job {
    let merged = |base: Value, over: Value| {
        let (Value::Object(mut base), Value::Object(over)) = (base, over) else {
            panic!("objects only");
        };
        base.extend(over);
        Value::Object(base)
    };
    let resources = json!({"CPU": 500, "MemoryMB": 256});
    let task = merged(json!({"Name": "t", "Driver": "exec", "Resources": resources}), task);
    let group = merged(json!({"Name": "g", "Count": 1, "Tasks": [task]}), group);
    serde_json::from_value(merged(json!({"ID": "j", "Type": "service", "TaskGroups": [group]}), job)).unwrap()
}

pub(super) fn slots(range: std::ops::Range<u32>) -> Vec<Slot> {
    range.map(|index| Slot { index, alloc_id: alloc_id(index), ..Slot::default() }).collect()
}

pub(super) fn run(cluster: &mut Cluster, job: &Job, slots: &[Slot]) -> Decision {
    let request = Request {
        job,
        group: &job.task_groups[0],
        slots,
        algorithm: Algorithm::Binpack,
        memory_oversubscription: false,
    };
    place(cluster, &request)
}

/// `n1 n2 | 1 unplaced: memory=2 …`.
pub(super) fn show(decision: &Decision) -> String {
    let mut words: Vec<String> = decision.placements.iter().map(|found| node_name(found.node)).collect();
    if let Some((metric, unplaced)) = &decision.failed {
        words.push(format!("| {} unplaced:", unplaced.len()));
        let reasons = metric.constraint_filtered.iter().chain(&metric.dimension_exhausted);
        words.extend(reasons.map(|(reason, number)| format!("[{reason}]={number}")));
    }
    words.join(" ")
}

/// Places `count` allocations of the job and compares.
#[track_caller]
pub(super) fn check(nodes: &str, job: &Job, count: u32, expected: &str) {
    let decision = run(&mut cluster(nodes), job, &slots(0..count));
    assert_eq!(show(&decision), expected);
}

/// Charges an allocation of another job.
pub(super) fn occupy(cluster: &mut Cluster, number: u32, node: &str, cpu: i64, memory: i64) {
    let resources = serde_json::from_value(
        json!({"Tasks": {"x": {"Cpu": {"CpuShares": cpu}, "Memory": {"MemoryMB": memory}}}, "Shared": {}}),
    )
    .unwrap();
    cluster.set_alloc(&AllocFacts {
        id: alloc_id(number),
        node: node_id(node),
        job: &crate::model::id::JobId::new("default", "other"),
        group: "x",
        tasks: None,
        resources: &resources,
        previous: None,
        holding: true,
        stopping: false,
    });
}
