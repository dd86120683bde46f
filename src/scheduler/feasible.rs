//! Hard requirements of a group on a node: what can be checked without looking at usage.

use std::hash::Hash;
use std::hash::Hasher;

use hashbrown::HashMap;

use crate::model::group::TaskGroup;
use crate::model::group::VolumeRequest;
use crate::model::interpolate::interpolate;
use crate::model::job::Job;
use crate::model::network::Network;
use crate::model::node::NodeDevice;
use crate::model::resources::RequestedDevice;

use super::attribute::Comparison;
use super::attribute::Target;
use super::attribute::glob_matches;
use super::device;
use super::node::DEFAULT_NETWORK;
use super::node::DEFAULT_POOL;
use super::node::NodeView;
use super::unfit::Unfit;

/// Verdicts kept over all sets of checks; beyond it all are dropped and found anew.
const CACHED_VERDICTS_MAX: usize = 1_000_000;
/// Sets of checks kept however many classes there are.
const CACHED_SETS_MIN: usize = 16;
/// Sets of checks kept however few classes there are.
const CACHED_SETS_MAX: usize = 4096;
/// The pool that means every node.
const ALL_POOLS: &str = "all";

/// One requirement.
#[derive(Clone, Debug)]
enum Check {
    Pool(String),
    Datacenters(Vec<String>),
    Constraint(Comparison, Box<str>),
    Driver(String),
    Devices(Vec<RequestedDevice>),
    Network(Network),
    Volume(VolumeRequest),
}

/// All requirements of a group, in the order in which they are checked.
#[derive(Clone, Debug)]
pub(super) struct Requirements {
    /// Same answer for all nodes of a class.
    shared: Vec<Check>,
    /// Must be asked node by node.
    unique: Vec<Check>,
    /// Must be asked for every index.
    per_index: Vec<VolumeRequest>,
    /// Identifies `shared` in the verdict cache.
    key: u128,
}

impl Requirements {
    pub(super) fn of(job: &Job, group: &TaskGroup) -> Self {
        let pool = if job.node_pool.is_empty() { DEFAULT_POOL } else { &job.node_pool };
        let mut checks = vec![Check::Pool(pool.to_owned()), Check::Datacenters(job.datacenters.clone())];
        let constraint = |constraint: &crate::model::constraint::Constraint| {
            let text = format!("{} {} {}", constraint.left, constraint.operand, constraint.right);
            let is_static = !matches!(constraint.operand.as_str(), "distinct_hosts" | "distinct_property");
            is_static.then(|| Check::Constraint(Comparison::of(constraint), text.into()))
        };
        checks.extend(job.constraints.iter().filter_map(constraint));
        checks.extend(group.tasks.iter().map(|task| Check::Driver(task.driver.clone())));
        checks.extend(group.constraints.iter().filter_map(constraint));
        checks.extend(group.tasks.iter().flat_map(|task| &task.constraints).filter_map(constraint));
        let devices: Vec<RequestedDevice> = group
            .tasks
            .iter()
            .filter_map(|task| task.resources.as_ref())
            .flat_map(|resources| resources.devices.iter().cloned())
            .collect();
        if !devices.is_empty() {
            checks.push(Check::Devices(devices));
        }
        checks.extend(group.networks.first().map(|network| Check::Network(network.clone())));
        let (per_index, volumes): (Vec<_>, Vec<_>) =
            group.volumes.values().cloned().partition(|volume| volume.per_alloc);
        checks.extend(volumes.into_iter().map(Check::Volume));
        let (unique, shared): (Vec<_>, Vec<_>) = checks.into_iter().partition(Check::is_unique);
        let key = key_of(&shared);
        Self { shared, unique, per_index, key }
    }

    /// Some requirements depend on the allocation's index.
    pub(super) fn is_per_index(&self) -> bool {
        !self.per_index.is_empty()
    }

    /// Some requirements must be asked node by node.
    pub(super) fn is_unique(&self) -> bool {
        !self.unique.is_empty() || !self.per_index.is_empty()
    }

    /// Checks what is the same for all nodes of a class.
    pub(super) fn check_shared(&self, node: &NodeView) -> Result<(), Unfit> {
        self.shared.iter().try_for_each(|check| check.ask(node))
    }

    /// Checks what differs between nodes of a class, and what depends on the allocation's index.
    pub(super) fn check_unique(&self, node: &NodeView, index: Option<u32>) -> Result<(), Unfit> {
        self.unique.iter().try_for_each(|check| check.ask(node))?;
        let Some(index) = index else {
            return Ok(());
        };
        self.per_index.iter().try_for_each(|volume| {
            let source = format!("{}[{index}]", volume.source);
            has_volume(node, volume, &source)
        })
    }
}

fn key_of(checks: &[Check]) -> u128 {
    let text = format!("{checks:?}");
    let half = |salt: u64| {
        let mut hasher = std::hash::DefaultHasher::new();
        salt.hash(&mut hasher);
        text.hash(&mut hasher);
        hasher.finish()
    };
    (u128::from(half(1)) << 64) | u128::from(half(2))
}

impl Check {
    fn is_unique(&self) -> bool {
        match self {
            Self::Constraint(comparison, _) => comparison.is_unique(),
            Self::Devices(devices) => {
                devices.iter().flat_map(|device| &device.constraints).any(|c| c.left == "${device.ids}")
            }
            Self::Network(network) => network
                .ports()
                .any(|port| port.host_network.contains("unique.") && port.host_network.contains("${")),
            _ => false,
        }
    }

    fn ask(&self, node: &NodeView) -> Result<(), Unfit> {
        match self {
            Self::Pool(pool) if pool == ALL_POOLS || pool == node.pool() => Ok(()),
            Self::Pool(_) => Err(Unfit::WrongPool),
            Self::Datacenters(patterns) => {
                let here = &node.info.datacenter;
                let is_any =
                    patterns.is_empty() || patterns.iter().any(|pattern| glob_matches(pattern, here));
                if is_any { Ok(()) } else { Err(Unfit::WrongDatacenter) }
            }
            Self::Constraint(comparison, text) => {
                if comparison.holds_on(node) {
                    Ok(())
                } else {
                    Err(Unfit::Constraint(text.clone()))
                }
            }
            Self::Driver(driver) => {
                if has_driver(node, driver) {
                    Ok(())
                } else {
                    Err(Unfit::MissingDriver)
                }
            }
            Self::Devices(requests) => {
                if has_devices(node, requests) {
                    Ok(())
                } else {
                    Err(Unfit::MissingDevices)
                }
            }
            Self::Network(network) => has_network(node, network),
            Self::Volume(volume) => has_volume(node, volume, &volume.source),
        }
    }
}

fn has_driver(node: &NodeView, driver: &str) -> bool {
    if let Some(found) = node.info.drivers.get(driver) {
        return found.detected && found.healthy;
    }
    let attribute = node.info.attributes.get(&format!("driver.{driver}"));
    attribute.is_some_and(|value| is_true(value))
}

/// The spellings of true that Go's `strconv.ParseBool` knows.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// The spellings of false; anything else leaves a switch on.
pub(super) fn is_false(text: &str) -> bool {
    matches!(text, "0" | "f" | "F" | "false" | "FALSE" | "False")
}

/// Every request must find one group of devices with enough healthy ones that no earlier request took.
fn has_devices(node: &NodeView, requests: &[RequestedDevice]) -> bool {
    let mut left: Vec<(&NodeDevice, u64)> = node
        .info
        .resources
        .devices
        .iter()
        .map(|group| (group, group.instances.iter().filter(|instance| instance.healthy).count() as u64))
        .collect();
    requests.iter().all(|request| {
        let wanted = request.count.max(1);
        let found = left.iter_mut().find(|(group, free)| *free >= wanted && device::matches(group, request));
        found.map(|(_, free)| *free -= wanted).is_some()
    })
}

fn has_network(node: &NodeView, network: &Network) -> Result<(), Unfit> {
    let mode = if network.mode.is_empty() { "host" } else { &network.mode };
    if mode == "none" {
        return Ok(());
    }
    if !node.has_network(mode) {
        return Err(Unfit::MissingNetwork);
    }
    for port in network.ports().filter(|port| !port.host_network.is_empty()) {
        let names = || (port.host_network.as_str().into(), port.label.as_str().into());
        let Some(wanted) = resolve_network(&port.host_network, node) else {
            let (network, port) = names();
            return Err(Unfit::InvalidHostNetwork { network, port });
        };
        if wanted != DEFAULT_NETWORK && !node.addresses.iter().any(|address| *address.network == *wanted) {
            let (network, port) = names();
            return Err(Unfit::MissingHostNetwork { network, port });
        }
    }
    Ok(())
}

/// The name of a port's host network on this node; `None` when it interpolates something that the node lacks.
pub(super) fn resolve_network(template: &str, node: &NodeView) -> Option<String> {
    if template.is_empty() {
        return Some(DEFAULT_NETWORK.to_owned());
    }
    let text = interpolate(template, |name| {
        let target = Target::parse(&format!("${{{name}}}"));
        target.resolve(node).map(str::to_owned)
    });
    (!text.contains("${")).then_some(text)
}

fn has_volume(node: &NodeView, volume: &VolumeRequest, source: &str) -> Result<(), Unfit> {
    if volume.kind == "csi" {
        return Err(Unfit::MissingCsiVolume(source.into()));
    }
    match node.info.host_volumes.get(source) {
        Some(found) if volume.read_only || !found.read_only => Ok(()),
        _ => Err(Unfit::MissingHostVolumes),
    }
}

/// Verdicts of class-level checks, per set of checks and node class.
#[derive(Clone, Debug, Default)]
pub(super) struct VerdictCache {
    sets: HashMap<u128, VerdictSet>,
}

#[derive(Clone, Debug, Default)]
struct VerdictSet {
    /// By class slot; absent or `None` while unknown.
    verdicts: Vec<Option<Result<(), Unfit>>>,
}

impl VerdictCache {
    /// The verdicts of a set, by class slot, with room for `classes` of them. Unknown ones are `None`.
    pub(super) fn take(
        &mut self,
        requirements: &Requirements,
        classes: usize,
    ) -> Vec<Option<Result<(), Unfit>>> {
        let set = self.sets.entry(requirements.key).or_default();
        let mut verdicts = std::mem::take(&mut set.verdicts);
        verdicts.resize(classes, None);
        verdicts
    }

    /// Puts the verdicts of a set back, with those found since.
    pub(super) fn give_back(
        &mut self,
        requirements: &Requirements,
        verdicts: Vec<Option<Result<(), Unfit>>>,
    ) {
        let sets_max = (CACHED_VERDICTS_MAX / verdicts.len().max(1)).clamp(CACHED_SETS_MIN, CACHED_SETS_MAX);
        if self.sets.len() > sets_max {
            self.sets.clear();
        }
        self.sets.entry(requirements.key).or_default().verdicts = verdicts;
    }

    /// Forgets what is known of a class slot that is to be used anew.
    pub(super) fn forget_class(&mut self, class: u32) {
        for set in self.sets.values_mut() {
            if let Some(verdict) = set.verdicts.get_mut(class as usize) {
                *verdict = None;
            }
        }
    }
}
