//! Invariants over a whole cluster state; used by tests, the simulator and benches.
//!
//! The arithmetic here is deliberately plain and shares nothing with the scheduler's, so that neither hides the
//! other's mistakes. Numbers are those of the list "What must never happen" in the design.

use std::collections::BTreeMap;
use std::fmt;

use regex::Regex;

use super::allocation::Allocation;
use super::allocation::AllocationReport;
use super::allocation::ClientStatus;
use super::allocation::client_status;
use super::allocation::holds_resources;
use super::constraint::Constraint;
use super::deployment::Deployment;
use super::evaluation::EvalStatus;
use super::evaluation::Evaluation;
use super::group::TaskGroup;
use super::id::AllocId;
use super::id::JobId;
use super::id::NodeId;
use super::job::Job;
use super::job::JobType;
use super::node::NodeInfo;

/// A node and operators' overrides of its metadata.
#[derive(Clone, Copy, Debug)]
pub struct AuditNode<'a> {
    pub info: &'a NodeInfo,
    pub meta: &'a BTreeMap<String, Option<String>>,
}

/// An allocation and what its agent reported.
#[derive(Clone, Copy, Debug)]
pub struct AuditAlloc<'a> {
    pub desired: &'a Allocation,
    pub report: Option<&'a AllocationReport>,
}

impl AuditAlloc<'_> {
    fn status(&self) -> ClientStatus {
        client_status(self.desired, self.report)
    }

    fn holds(&self) -> bool {
        holds_resources(self.desired, self.report)
    }

    /// Meant to run, and neither ended nor cut off.
    fn is_live(&self) -> bool {
        self.desired.is_wanted() && !self.status().is_terminal() && self.status() != ClientStatus::Unknown
    }
}

/// A whole state, borrowed.
#[derive(Clone, Debug, Default)]
pub struct AuditInput<'a> {
    pub nodes: Vec<AuditNode<'a>>,
    /// Current jobs.
    pub jobs: Vec<&'a Job>,
    /// Older versions that allocations may still belong to.
    pub versions: Vec<&'a Job>,
    pub allocs: Vec<AuditAlloc<'a>>,
    pub deployments: Vec<&'a Deployment>,
    pub evaluations: Vec<&'a Evaluation>,
    /// Everything had time to settle: work still pending, and counts not reached without a reason, are violations.
    pub is_quiet: bool,
    /// No node changed since its allocations were placed: hard constraints must hold now.
    pub nodes_unchanged: bool,
}

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    pub invariant: u8,
    /// The node, job, allocation or evaluation.
    pub subject: String,
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {}: {}: {}", self.invariant, self.subject, self.text)
    }
}

/// Checks a state and lists every broken invariant, in a fixed order.
pub fn audit(input: &AuditInput<'_>) -> Vec<Violation> {
    let mut audit = Audit { input, jobs: BTreeMap::new(), found: Vec::new() };
    for job in input.versions.iter().chain(&input.jobs) {
        audit.jobs.insert((job.job_id(), job.version), job);
    }
    audit.check_nodes();
    audit.check_indexes();
    audit.check_counts();
    if input.nodes_unchanged {
        audit.check_constraints();
        audit.check_distinct();
    }
    audit.check_deployments();
    audit.check_overlap();
    audit.check_evaluations();
    audit.found.sort();
    audit.found
}

struct Audit<'a> {
    input: &'a AuditInput<'a>,
    jobs: BTreeMap<(JobId, u64), &'a Job>,
    found: Vec<Violation>,
}

impl<'a> Audit<'a> {
    fn report(&mut self, invariant: u8, subject: impl fmt::Display, text: String) {
        self.found.push(Violation { invariant, subject: subject.to_string(), text });
    }

    fn job_of(&self, alloc: &Allocation) -> Option<&'a Job> {
        self.jobs.get(&(alloc.job(), alloc.job_version)).copied()
    }

    fn group_of(&self, alloc: &Allocation) -> Option<&'a TaskGroup> {
        self.job_of(alloc)?.group(&alloc.task_group)
    }

    /// Invariant 1: what is granted fits, and nothing is granted twice.
    fn check_nodes(&mut self) {
        let mut by_node: BTreeMap<NodeId, Vec<&Allocation>> = BTreeMap::new();
        for alloc in self.input.allocs.iter().filter(|alloc| alloc.holds()) {
            by_node.entry(alloc.desired.node_id).or_default().push(alloc.desired);
        }
        let nodes: BTreeMap<NodeId, &NodeInfo> =
            self.input.nodes.iter().map(|node| (node.info.id, node.info)).collect();
        for (id, allocs) in by_node {
            self.check_shared_grants(id, &allocs);
            let Some(info) = nodes.get(&id) else {
                continue;
            };
            let ids: BTreeMap<AllocId, &Allocation> = allocs.iter().map(|alloc| (alloc.id, *alloc)).collect();
            let mut used = [0; 3];
            for alloc in &allocs {
                if alloc.previous.is_none_or(|previous| !ids.contains_key(&previous)) {
                    let charge = self.charge_of_chain(alloc, &allocs);
                    for at in 0..3 {
                        used[at] += charge[at];
                    }
                }
            }
            let (total, reserved) = (&info.resources, &info.reserved);
            let capacity = [
                total.cpu.cpu_shares - reserved.cpu.cpu_shares,
                total.memory.memory_mb - reserved.memory.memory_mb,
                total.disk.disk_mb - reserved.disk.disk_mb,
            ];
            for (at, name) in ["MHz", "MiB of memory", "MiB of disk"].iter().enumerate() {
                if used[at] > capacity[at] {
                    self.report(1, id, format!("{} {name} granted of {}", used[at], capacity[at]));
                }
            }
        }
    }

    /// An allocation and those that wait for its end never run at once.
    fn charge_of_chain(&self, alloc: &Allocation, all: &[&Allocation]) -> [i64; 3] {
        let mut waiting = [0; 3];
        for follower in all.iter().filter(|other| other.previous == Some(alloc.id) && other.id != alloc.id) {
            let charge = self.charge_of_chain(follower, all);
            for at in 0..3 {
                waiting[at] += charge[at];
            }
        }
        let own = self.charge_of(alloc);
        [0, 1, 2].map(|at| own[at].max(waiting[at]))
    }

    fn charge_of(&self, alloc: &Allocation) -> [i64; 3] {
        let group = self.group_of(alloc);
        let mut before = [0; 2];
        let mut main = [0; 2];
        let mut after = [0; 2];
        let mut core_mhz = 0;
        for (name, task) in &alloc.resources.tasks {
            let lifecycle = group.and_then(|group| group.task(name)).and_then(|task| task.lifecycle.as_ref());
            let hook = lifecycle.map_or("", |lifecycle| lifecycle.hook.as_str());
            let mut need = [task.cpu.cpu_shares, task.memory.memory_mb];
            if !task.cpu.reserved_cores.is_empty() {
                core_mhz += need[0];
                need[0] = 0;
            }
            let is_sidecar = lifecycle.is_some_and(|lifecycle| lifecycle.sidecar);
            for at in 0..2 {
                match hook {
                    "prestart" => {
                        before[at] += need[at];
                        main[at] += if is_sidecar { need[at] } else { 0 };
                    }
                    "poststop" => after[at] += need[at],
                    _ => main[at] += need[at],
                }
            }
        }
        let peak = |at: usize| before[at].max(main[at]).max(after[at]);
        [peak(0) + core_mhz, peak(1), alloc.resources.shared.disk_mb]
    }

    fn check_shared_grants(&mut self, node: NodeId, allocs: &[&Allocation]) {
        let mut holders: BTreeMap<String, Vec<&Allocation>> = BTreeMap::new();
        for alloc in allocs {
            for thing in exclusive_grants(alloc) {
                holders.entry(thing).or_default().push(alloc);
            }
        }
        for (thing, holders) in holders {
            for (at, one) in holders.iter().enumerate() {
                for other in &holders[at + 1..] {
                    if !is_ordered(one, other, allocs) {
                        self.report(1, node, format!("{thing} granted to {} and {}", one.id, other.id));
                    }
                }
            }
        }
    }

    /// Invariant 2: one live allocation per index and version, canaries aside; per node for system jobs.
    fn check_indexes(&mut self) {
        let mut seen: BTreeMap<(JobId, String, u64, u64, u32, NodeId), AllocId> = BTreeMap::new();
        for alloc in self.input.allocs.iter().filter(|alloc| alloc.is_live() && !alloc.desired.canary) {
            let desired = alloc.desired;
            let is_system = self.job_of(desired).is_some_and(is_system);
            let node = if is_system { desired.node_id } else { NodeId::default() };
            let version = (desired.job_create_index, desired.job_version);
            let key = (desired.job(), desired.task_group.clone(), version.0, version.1, desired.index, node);
            if let Some(other) = seen.insert(key, desired.id) {
                let text = format!("version {} is live as {other} and {}", desired.job_version, desired.id);
                self.report(2, desired.name(), text);
            }
        }
    }

    /// Invariant 3: no more allocations than asked for; when quiet, no fewer without a reason.
    fn check_counts(&mut self) {
        let mut live: BTreeMap<(JobId, String), Vec<&Allocation>> = BTreeMap::new();
        for alloc in self.input.allocs.iter().filter(|alloc| alloc.is_live()) {
            live.entry((alloc.desired.job(), alloc.desired.task_group.clone()))
                .or_default()
                .push(alloc.desired);
        }
        let input = self.input;
        for ((id, group), allocs) in &live {
            let mut versions =
                self.jobs.iter().filter(|((job, _), _)| job == id).map(|(_, job)| *job).peekable();
            if versions.peek().is_none() || versions.clone().any(is_system) {
                continue;
            }
            let most = versions.filter_map(|job| job.group(group)).map(TaskGroup::count).max().unwrap_or(0);
            let stable = allocs.iter().filter(|alloc| !alloc.canary).count();
            if stable > most {
                self.report(3, format!("{id}.{group}"), format!("{stable} allocations wanted of {most}"));
            }
        }
        if !input.is_quiet {
            return;
        }
        for job in input.jobs.iter().filter(|job| job.job_type() == JobType::Service && !job.is_template()) {
            let is_blocked = input.evaluations.iter().any(|evaluation| {
                evaluation.job() == job.job_id() && evaluation.status == EvalStatus::Blocked
            });
            let is_updating =
                input.deployments.iter().any(|found| found.job() == job.job_id() && found.status.is_active());
            for group in &job.task_groups {
                let wanted = if job.stop { 0 } else { group.count() };
                let found = live.get(&(job.job_id(), group.name.clone())).map_or(0, Vec::len);
                if found > wanted && !is_updating || found < wanted && !is_blocked {
                    let text = format!("{found} allocations of {wanted}, without a stated reason");
                    self.report(3, format!("{}.{}", job.job_id(), group.name), text);
                }
            }
        }
    }

    /// Invariant 6: pool, datacenter and static constraints.
    fn check_constraints(&mut self) {
        let nodes: BTreeMap<NodeId, AuditNode<'a>> =
            self.input.nodes.iter().map(|node| (node.info.id, *node)).collect();
        for alloc in self.input.allocs.iter().filter(|alloc| alloc.is_live()) {
            let desired = alloc.desired;
            let (Some(job), Some(group), Some(node)) =
                (self.job_of(desired), self.group_of(desired), nodes.get(&desired.node_id))
            else {
                continue;
            };
            let named = |pool: &str| if pool.is_empty() { "default" } else { pool }.to_owned();
            let pool = named(&job.node_pool);
            if pool != "all" && pool != named(&node.info.node_pool) {
                self.report(6, desired.id, format!("is on a node outside pool {pool}"));
            }
            if !job.datacenters.is_empty() && !job.datacenters.iter().any(|p| glob(p, &node.info.datacenter))
            {
                self.report(6, desired.id, format!("is in datacenter {}", node.info.datacenter));
            }
            for constraint in constraints_of(job, group) {
                if holds(constraint, *node) == Some(false) {
                    let Constraint { left, operand, right } = constraint;
                    self.report(6, desired.id, format!("is on a node without {left} {operand} {right}"));
                }
            }
        }
    }

    /// Invariant 6: `distinct_hosts` and `distinct_property`.
    fn check_distinct(&mut self) {
        let nodes: BTreeMap<NodeId, AuditNode<'a>> =
            self.input.nodes.iter().map(|node| (node.info.id, *node)).collect();
        let mut used: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for alloc in self.input.allocs.iter().filter(|alloc| alloc.is_live()) {
            let desired = alloc.desired;
            let (Some(job), Some(group)) = (self.job_of(desired), self.group_of(desired)) else {
                continue;
            };
            let of_job = job.constraints.iter().map(|found| (found, String::new()));
            let of_group = group.constraints.iter().map(|found| (found, format!(".{}", group.name)));
            for (constraint, scope) in of_job.chain(of_group) {
                let (value, allowed) = match constraint.operand.as_str() {
                    "distinct_hosts" if constraint.right == "false" => continue,
                    "distinct_hosts" => (desired.node_id.to_string(), 1),
                    "distinct_property" => {
                        let node = nodes.get(&desired.node_id);
                        let Some(value) = node.and_then(|node| resolve(&constraint.left, *node)) else {
                            continue;
                        };
                        (value, constraint.right.parse().unwrap_or(1))
                    }
                    _ => continue,
                };
                let key =
                    format!("{}{scope} {} {}={value}", job.job_id(), constraint.operand, constraint.left);
                let entry = used.entry(key).or_insert((0, allowed));
                entry.0 += 1;
                entry.1 = entry.1.max(allowed);
            }
        }
        for (key, (used, allowed)) in used {
            if used > allowed {
                self.report(6, key, format!("{used} allocations, {allowed} allowed"));
            }
        }
    }

    /// Invariant 7: at most one active rollout per job.
    fn check_deployments(&mut self) {
        let mut active: BTreeMap<JobId, Vec<String>> = BTreeMap::new();
        for deployment in self.input.deployments.iter().filter(|found| found.status.is_active()) {
            active.entry(deployment.job()).or_default().push(deployment.id.to_string());
        }
        for (job, ids) in active {
            if ids.len() > 1 {
                self.report(7, job, format!("deployments {} are active at once", ids.join(", ")));
            }
        }
    }

    /// Invariant 9: one child at a time where overlap is prohibited.
    fn check_overlap(&mut self) {
        for parent in &self.input.jobs {
            if !parent.periodic.as_ref().is_some_and(|periodic| periodic.prohibit_overlap) {
                continue;
            }
            let children = self.input.jobs.iter().filter(|job| {
                job.parent_id == parent.id && job.job_id().namespace == parent.job_id().namespace && !job.stop
            });
            let running: Vec<&str> = children
                .filter(|child| {
                    let id = child.job_id();
                    self.input.allocs.iter().any(|alloc| alloc.is_live() && alloc.desired.job() == id)
                })
                .map(|child| child.id.as_str())
                .collect();
            if running.len() > 1 {
                let text = format!("children overlap: {}", running.join(", "));
                self.report(9, parent.job_id(), text);
            }
        }
    }

    /// Invariant 13: blocked evaluations say what they wait for, one per job; when quiet, nothing is pending.
    fn check_evaluations(&mut self) {
        let mut blocked: BTreeMap<JobId, usize> = BTreeMap::new();
        for evaluation in &self.input.evaluations {
            match evaluation.status {
                EvalStatus::Blocked => {
                    *blocked.entry(evaluation.job()).or_default() += 1;
                    if evaluation.failed_groups.is_empty() {
                        self.report(13, evaluation.id, "is blocked without a reason".to_owned());
                    }
                }
                EvalStatus::Pending if self.input.is_quiet => {
                    self.report(13, evaluation.id, "is still pending".to_owned());
                }
                _ => {}
            }
        }
        for (job, number) in blocked {
            if number > 1 {
                self.report(13, job, format!("{number} blocked evaluations at once"));
            }
        }
    }
}

fn is_system(job: &Job) -> bool {
    matches!(job.job_type(), JobType::System | JobType::Sysbatch)
}

/// Ports, cores and devices of an allocation, each named so that two holders use the same name.
fn exclusive_grants(alloc: &Allocation) -> Vec<String> {
    let mut things = Vec::new();
    let shared = alloc.resources.shared.ports.iter().filter(|port| port.value != 0 && !port.ignore_collision);
    things.extend(shared.map(|port| format!("port {}:{}", port.host_ip, port.value)));
    for task in alloc.resources.tasks.values() {
        for network in &task.networks {
            let values = network.ports().map(|port| port.value).filter(|value| *value != 0);
            things.extend(values.map(|value| format!("port {}:{value}", network.ip)));
        }
        things.extend(task.cpu.reserved_cores.iter().map(|core| format!("core {core}")));
        for device in &task.devices {
            let group = format!("{}/{}/{}", device.vendor, device.kind, device.name);
            things.extend(device.device_ids.iter().map(|id| format!("device {group}/{id}")));
        }
    }
    things
}

/// One of the two starts only after the other has ended.
fn is_ordered(one: &Allocation, other: &Allocation, all: &[&Allocation]) -> bool {
    let follows = |later: &Allocation, earlier: &Allocation| {
        let mut at = later.previous;
        // A chain cannot be longer than the list.
        for _ in 0..all.len() {
            match at {
                Some(id) if id == earlier.id => return true,
                Some(id) => {
                    at = all.iter().find(|found| found.id == id).and_then(|found| found.previous);
                }
                None => return false,
            }
        }
        false
    };
    follows(one, other) || follows(other, one)
}

fn constraints_of<'a>(job: &'a Job, group: &'a TaskGroup) -> impl Iterator<Item = &'a Constraint> {
    let of_tasks = group.tasks.iter().flat_map(|task| &task.constraints);
    job.constraints.iter().chain(&group.constraints).chain(of_tasks)
}

fn resolve(target: &str, node: AuditNode<'_>) -> Option<String> {
    if !target.starts_with("${") {
        return Some(target.to_owned());
    }
    let name = target.strip_prefix("${")?.strip_suffix('}')?;
    match name {
        "node.unique.id" => Some(node.info.id.to_string()),
        "node.unique.name" => Some(node.info.name.clone()),
        "node.datacenter" => Some(node.info.datacenter.clone()),
        "node.class" => Some(node.info.node_class.clone()),
        "node.pool" if node.info.node_pool.is_empty() => Some("default".to_owned()),
        "node.pool" => Some(node.info.node_pool.clone()),
        _ => match name.split_once('.')? {
            ("attr", key) => node.info.attributes.get(key).cloned(),
            ("meta", key) => match node.meta.get(key) {
                Some(value) => value.clone(),
                None => node.info.meta.get(key).cloned(),
            },
            _ => None,
        },
    }
}

/// Whether a constraint holds; `None` for operators that are not judged here (versions, and those over many nodes).
fn holds(constraint: &Constraint, node: AuditNode<'_>) -> Option<bool> {
    let left = resolve(&constraint.left, node);
    let right = resolve(&constraint.right, node);
    match constraint.operand.as_str() {
        "!=" | "not" => return Some(left != right),
        "is_set" => return Some(left.is_some()),
        "is_not_set" => return Some(left.is_none()),
        "=" | "==" | "is" | "" | "regexp" | "set_contains" | "set_contains_all" | "set_contains_any" => {}
        _ => return None,
    }
    let (Some(left), Some(right)) = (left, right) else {
        return Some(false);
    };
    let present: Vec<&str> = left.split(',').map(str::trim).collect();
    let mut wanted = right.split(',').map(str::trim);
    Some(match constraint.operand.as_str() {
        "regexp" => Regex::new(&right).is_ok_and(|regex| regex.is_match(&left)),
        "set_contains" | "set_contains_all" => wanted.all(|item| present.contains(&item)),
        "set_contains_any" => wanted.any(|item| present.contains(&item)),
        _ => left == right,
    })
}

/// Shell-like patterns with `*`, by way of a regular expression.
fn glob(pattern: &str, text: &str) -> bool {
    let escaped: Vec<String> = pattern.split('*').map(regex::escape).collect();
    Regex::new(&format!("^{}$", escaped.join(".*"))).is_ok_and(|regex| regex.is_match(text))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::*;

    fn node() -> NodeInfo {
        serde_json::from_value(json!({"ID": NodeId::default(), "Datacenter": "dc1", "NodeResources": {
            "Cpu": {"CpuShares": 1000}, "Memory": {"MemoryMB": 1000}, "Disk": {"DiskMB": 1000}}}))
        .expect("a node")
    }

    fn alloc(number: u8, index: u32, cpu: i64, port: u16, previous: Option<u8>) -> Allocation {
        let id = |number: u8| AllocId::from_random([number; 16]);
        let mut alloc = Allocation {
            id: id(number),
            namespace: "default".to_owned(),
            job_id: "j".to_owned(),
            task_group: "g".to_owned(),
            index,
            previous: previous.map(id),
            ..Allocation::default()
        };
        alloc.resources = serde_json::from_value(json!({
            "Tasks": {"t": {"Cpu": {"CpuShares": cpu}}},
            "Shared": {"DiskMB": 1, "Ports": [{"Label": "p", "Value": port}]},
        }))
        .expect("resources");
        alloc
    }

    fn numbers(job: Value, allocs: &[Allocation]) -> Vec<u8> {
        let (job, node, meta) = (serde_json::from_value(job).expect("a job"), node(), BTreeMap::new());
        let input = AuditInput {
            nodes: vec![AuditNode { info: &node, meta: &meta }],
            jobs: vec![&job],
            allocs: allocs.iter().map(|desired| AuditAlloc { desired, report: None }).collect(),
            nodes_unchanged: true,
            ..AuditInput::default()
        };
        audit(&input).into_iter().map(|found| found.invariant).collect()
    }

    #[test]
    fn broken_states_are_found_and_sound_ones_pass() {
        let job = |constraints: Value| {
            json!({"ID": "j", "Namespace": "default", "Type": "service",
                "TaskGroups": [{"Name": "g", "Count": 2, "Constraints": constraints}]})
        };
        let free = || job(json!([]));
        assert_eq!(numbers(free(), &[alloc(1, 0, 400, 1, None), alloc(2, 1, 400, 2, None)]), [0_u8; 0]);
        assert_eq!(numbers(free(), &[alloc(1, 0, 600, 1, None), alloc(2, 1, 600, 2, None)]), [1]);
        assert_eq!(numbers(free(), &[alloc(1, 0, 400, 1, None), alloc(2, 1, 400, 1, None)]), [1]);
        assert_eq!(numbers(free(), &[alloc(1, 0, 4, 1, None), alloc(2, 0, 4, 2, None)]), [2]);
        let three = [alloc(1, 0, 4, 1, None), alloc(2, 1, 4, 2, None), alloc(3, 2, 4, 3, None)];
        assert_eq!(numbers(free(), &three), [3]);
        let mut stopped = alloc(1, 0, 600, 1, None);
        stopped.desired_status = crate::model::allocation::DesiredStatus::Stop;
        assert_eq!(numbers(free(), &[stopped, alloc(2, 0, 600, 1, Some(1))]), [0_u8; 0]);
        let far = json!([{"LTarget": "${node.datacenter}", "Operand": "=", "RTarget": "dc2"}]);
        assert_eq!(numbers(job(far), &[alloc(1, 0, 4, 1, None)]), [6]);
        let apart = json!([{"Operand": "distinct_hosts", "RTarget": "true"}]);
        assert_eq!(numbers(job(apart), &three[..2]), [6]);
    }
}
