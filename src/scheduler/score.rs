//! Scores of nodes, with Nomad's names and formulas: the mean of the components that have something to say.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;

use crate::model::allocation::NodeScore;
use crate::model::constraint::Affinity;
use crate::model::constraint::Spread;
use crate::model::id::NodeId;

use super::Algorithm;
use super::Request;
use super::Slot;
use super::cluster::Amounts;
use super::cluster::Cluster;
use super::cluster::GroupKey;
use super::cluster::Node;
use super::cluster::NodeIndex;
use super::cluster::group_key;
use super::feasible::ask_of;
use super::feasible::is_met;
use super::feasible::resolve;

/// Where values without a target of their own are counted.
const OTHERS: &str = "*";

/// A node and what it is worth. Ties go to the smaller id, so that the order of nodes does not matter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scored {
    pub score: f64,
    pub node: NodeIndex,
    pub id: NodeId,
}

impl Eq for Scored {}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scored {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| other.id.cmp(&self.id))
    }
}

/// Scores the nodes of one request.
pub(super) struct Scorer {
    algorithm: Algorithm,
    ask: Amounts,
    count: f64,
    affinities: Vec<Affinity>,
    spreads: Vec<SpreadState>,
    /// Affinity score per class and, if some affinity looks at unique properties, per node.
    affinity_cache: HashMap<NodeIndex, Option<f64>>,
}

struct SpreadState {
    spread: Spread,
    weight: f64,
    /// Wanted number per value; empty for an even spread.
    desired: BTreeMap<String, f64>,
    used: BTreeMap<String, u64>,
    lowest_boost: f64,
}

impl Scorer {
    pub(super) fn new(request: &Request<'_>, cluster: &Cluster, candidates: &[NodeIndex]) -> Self {
        let (job, group) = (request.job, request.group);
        let affinities: Vec<Affinity> = job
            .affinities
            .iter()
            .chain(&group.affinities)
            .chain(group.tasks.iter().flat_map(|task| &task.affinities))
            .cloned()
            .collect();
        let count = group.count().max(1) as f64;
        let spreads: Vec<&Spread> = job.spreads.iter().chain(&group.spreads).collect();
        let total: f64 = spreads.iter().map(|spread| weight_of(spread)).sum();
        let key = group_key(&job.job_id(), &group.name);
        let states = spreads.into_iter().map(|spread| SpreadState::new(spread, total, count, cluster, key));
        let mut scorer = Self {
            algorithm: request.algorithm,
            ask: ask_of(group),
            count,
            spreads: states.collect(),
            affinity_cache: HashMap::new(),
            affinities,
        };
        if !scorer.affinities.is_empty() {
            for &at in candidates {
                let score = scorer.affinity(&cluster.nodes[at]);
                scorer.affinity_cache.insert(at, score);
            }
        }
        scorer
    }

    /// True if placing somewhere changes only the score of that node.
    pub(super) fn is_local(&self) -> bool {
        self.spreads.is_empty()
    }

    pub(super) fn score(&mut self, cluster: &Cluster, at: NodeIndex, slot: &Slot, group: GroupKey) -> Scored {
        let mut sum = 0.0;
        let mut parts = 0.0;
        self.components(cluster, at, slot, group, |_, value, counts| {
            if counts {
                sum += value;
                parts += 1.0;
            }
        });
        Scored { score: if parts > 0.0 { sum / parts } else { 0.0 }, node: at, id: cluster.nodes[at].id }
    }

    /// The components by name.
    pub(super) fn explain(
        &mut self,
        cluster: &Cluster,
        at: NodeIndex,
        slot: &Slot,
        group: GroupKey,
    ) -> NodeScore {
        let mut scores = BTreeMap::new();
        self.components(cluster, at, slot, group, |name, value, _| {
            drop(scores.insert(name.to_owned(), value))
        });
        let norm_score = self.score(cluster, at, slot, group).score;
        NodeScore { node_id: cluster.nodes[at].id, scores, norm_score }
    }

    /// Calls back with each component's name, its value, and whether it counts in the mean.
    fn components(
        &mut self,
        cluster: &Cluster,
        at: NodeIndex,
        slot: &Slot,
        group: GroupKey,
        mut component: impl FnMut(&'static str, f64, bool),
    ) {
        let node = &cluster.nodes[at];
        component("binpack", self.binpack(cluster, at, slot), true);
        let own = slot.previous.filter(|(id, _)| cluster.is_counted(*id, at));
        let here = node.groups.get(&group).copied().unwrap_or(0).saturating_sub(u32::from(own.is_some()));
        let anti = if here > 0 { -(f64::from(here) + 1.0) / self.count } else { 0.0 };
        component("job-anti-affinity", anti, here > 0);
        let penalized = slot.penalty_nodes.contains(&node.id);
        component("node-reschedule-penalty", if penalized { -1.0 } else { 0.0 }, penalized);
        match self.affinity_cache.get(&at) {
            Some(Some(score)) => component("node-affinity", *score, true),
            Some(None) => {}
            None => component("node-affinity", 0.0, false),
        }
        if !self.spreads.is_empty() {
            let total: f64 = self.spreads.iter_mut().map(|spread| spread.boost(node)).sum();
            if total != 0.0 {
                component("allocation-spread", total, true);
            }
        }
    }

    /// `clamp(20 - (10^free_cpu + 10^free_memory), 0, 18) / 18` with free shares after the placement.
    fn binpack(&self, cluster: &Cluster, at: NodeIndex, slot: &Slot) -> f64 {
        let node = &cluster.nodes[at];
        let own = slot.previous.filter(|_| slot.replaces).and_then(|(id, _)| cluster.taken_by(id, at));
        let used = node.used.minus(own.map_or(Amounts::default(), |own| own.0)).plus(self.ask);
        let free = |used: i64, capacity: i64| 1.0 - used as f64 / capacity.max(1) as f64;
        let (cpu, memory) = (free(used.cpu, node.capacity.cpu), free(used.memory, node.capacity.memory));
        let total = 10f64.powf(cpu) + 10f64.powf(memory);
        let score = match self.algorithm {
            Algorithm::Binpack => 20.0 - total,
            Algorithm::Spread => total - 2.0,
        };
        score.clamp(0.0, 18.0) / 18.0
    }

    /// Weights of matching affinities over all weights; nothing if they cancel out.
    fn affinity(&self, node: &Node) -> Option<f64> {
        let total: f64 = self.affinities.iter().map(|affinity| affinity.weight.abs() as f64).sum();
        let met = self.affinities.iter().filter(|a| is_met(node, &a.left, &a.operand, &a.right));
        let sum: f64 = met.map(|affinity| affinity.weight as f64).sum();
        (sum != 0.0 && total > 0.0).then(|| sum / total)
    }

    /// Something was placed there.
    pub(super) fn placed(&mut self, cluster: &Cluster, at: NodeIndex, slot: &Slot) {
        let node = &cluster.nodes[at];
        let previous = slot.previous.filter(|_| slot.replaces).and_then(|(_, node)| cluster.node_index(node));
        for spread in &mut self.spreads {
            if let Some(previous) = previous {
                spread.count(&cluster.nodes[previous], false);
            }
            spread.count(node, true);
        }
    }
}

fn weight_of(spread: &Spread) -> f64 {
    if spread.weight == 0 { 50.0 } else { spread.weight as f64 }
}

impl SpreadState {
    fn new(spread: &Spread, total: f64, count: f64, cluster: &Cluster, group: GroupKey) -> Self {
        let mut desired = BTreeMap::new();
        for target in &spread.spread_target {
            desired.insert(target.value.clone(), f64::from(target.percent) / 100.0 * count);
        }
        let sum: f64 = desired.values().sum();
        if sum > 0.0 && sum < count {
            desired.insert(OTHERS.to_owned(), count - sum);
        }
        let mut state = Self {
            spread: spread.clone(),
            weight: weight_of(spread) / total.max(1.0),
            desired,
            used: BTreeMap::new(),
            lowest_boost: -1.0,
        };
        for node in cluster.nodes.iter().filter(|node| node.groups.contains_key(&group)) {
            if let Some(value) = state.value_of(node) {
                *state.used.entry(value).or_default() += u64::from(node.groups[&group]);
            }
        }
        state
    }

    /// The node's value, pooled with others if targets are given and it is not among them.
    fn value_of(&self, node: &Node) -> Option<String> {
        let value = resolve(node, &self.spread.attribute)?.into_owned();
        let named = self.desired.is_empty() || self.desired.contains_key(&value);
        Some(if named { value } else { OTHERS.to_owned() })
    }

    fn count(&mut self, node: &Node, placed: bool) {
        let Some(value) = self.value_of(node) else { return };
        let used = self.used.entry(value.clone()).or_default();
        if placed {
            *used += 1;
        } else {
            *used = used.saturating_sub(1);
        }
        if *used == 0 {
            self.used.remove(&value);
        }
    }

    fn boost(&mut self, node: &Node) -> f64 {
        let Some(value) = self.value_of(node) else { return -1.0 };
        let used = self.used.get(&value).copied().unwrap_or(0) as f64;
        if self.desired.is_empty() {
            return self.even_boost(used);
        }
        let Some(&desired) = self.desired.get(&value) else { return -1.0 };
        if desired == 0.0 {
            return self.lowest_boost;
        }
        let boost = (desired - (used + 1.0)) / desired * self.weight;
        self.lowest_boost = self.lowest_boost.min(boost);
        boost
    }

    fn even_boost(&self, current: f64) -> f64 {
        let counts: BTreeSet<u64> = self.used.values().copied().collect();
        let (Some(&min), Some(&max)) = (counts.first(), counts.last()) else { return 0.0 };
        let (min, max) = (min as f64, max as f64);
        if current != min {
            (min - current) / min
        } else if min == max {
            -1.0
        } else {
            (max - min) / min
        }
    }
}
