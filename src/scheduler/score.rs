//! Scores of nodes: Nomad's formulas and names. The final score is the mean of the components present.

use std::collections::BTreeMap;

use crate::model::allocation::NodeScore;
use crate::model::group::TaskGroup;
use crate::model::id::NodeId;
use crate::model::job::Job;

use super::attribute::Comparison;
use super::footprint::Charge;
use super::node::NodeView;

/// How full nodes rank against empty ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// Fuller nodes first.
    #[default]
    Binpack,
    /// Emptier nodes first.
    Spread,
}

/// The highest value of the packing formula, to which it is scaled.
const PACKING_MAX: f64 = 18.0;

/// How well a node is packed once it uses `used` of `capacity`: from 0 to 1.
pub(super) fn packing(algorithm: Algorithm, capacity: Charge, used: Charge) -> f64 {
    let free = |at: usize| {
        if capacity[at] <= 0 { 0.0 } else { 1.0 - used[at] as f64 / capacity[at] as f64 }
    };
    let power = |exponent: f64| (exponent * std::f64::consts::LOG2_10).exp2();
    let emptiness = power(free(0)) + power(free(1));
    let points = match algorithm {
        Algorithm::Binpack => 20.0 - emptiness,
        Algorithm::Spread => emptiness - 2.0,
    };
    points.clamp(0.0, PACKING_MAX) / PACKING_MAX
}

/// The affinities of a job, a group and its tasks together.
#[derive(Clone, Debug)]
pub(super) struct Affinities {
    weighted: Vec<(Comparison, f64)>,
    total: f64,
    is_unique: bool,
}

impl Affinities {
    pub(super) fn of(job: &Job, group: &TaskGroup) -> Self {
        let all = job.affinities.iter().chain(&group.affinities);
        let all = all.chain(group.tasks.iter().flat_map(|task| &task.affinities));
        let weighted: Vec<(Comparison, f64)> = all
            .map(|found| (Comparison::new(&found.left, &found.operand, &found.right), found.weight as f64))
            .collect();
        Self {
            total: weighted.iter().map(|(_, weight)| weight.abs()).sum(),
            is_unique: weighted.iter().any(|(comparison, _)| comparison.is_unique()),
            weighted,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.weighted.is_empty()
    }

    /// Nodes of one class may score differently.
    pub(super) fn is_unique(&self) -> bool {
        self.is_unique
    }

    /// From -1 to 1; 0 when nothing matches, or likes and dislikes cancel out.
    pub(super) fn score(&self, node: &NodeView) -> f64 {
        let matching = self.weighted.iter().filter(|(comparison, _)| comparison.holds_on(node));
        let sum: f64 = matching.map(|(_, weight)| weight).sum();
        if sum == 0.0 { 0.0 } else { sum / self.total }
    }
}

/// The components that concern one node alone.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Components {
    pub(super) packing: f64,
    pub(super) devices: Option<f64>,
    /// Zero when no other allocation of the group is there.
    pub(super) anti_affinity: f64,
    /// Zero when the node is not in the penalty set.
    pub(super) penalty: f64,
    /// Zero when nothing matches.
    pub(super) affinity: f64,
}

impl Components {
    /// Sum and number of the components present.
    pub(super) fn sum(&self) -> (f64, usize) {
        let mut sum = self.packing;
        let mut number = 1;
        for optional in [self.anti_affinity, self.penalty, self.affinity] {
            if optional != 0.0 {
                sum += optional;
                number += 1;
            }
        }
        if let Some(devices) = self.devices {
            sum += devices;
            number += 1;
        }
        (sum, number)
    }

    /// With names, as clients read them. `spread` is zero when there is nothing to say.
    pub(super) fn named(&self, node_id: NodeId, spread: f64, has_affinities: bool) -> NodeScore {
        let mut scores = BTreeMap::from([
            ("binpack".to_owned(), self.packing),
            ("job-anti-affinity".to_owned(), self.anti_affinity),
            ("node-reschedule-penalty".to_owned(), self.penalty),
        ]);
        if self.affinity != 0.0 || !has_affinities {
            scores.insert("node-affinity".to_owned(), self.affinity);
        }
        if spread != 0.0 {
            scores.insert("allocation-spread".to_owned(), spread);
        }
        if let Some(devices) = self.devices {
            scores.insert("devices".to_owned(), devices);
        }
        let (sum, number) = self.sum();
        NodeScore { node_id, scores, norm_score: mean(sum, number, spread) }
    }
}

/// The final score: the mean, in which a spread of zero does not count.
pub(super) fn mean(sum: f64, number: usize, spread: f64) -> f64 {
    if spread == 0.0 { sum / number as f64 } else { (sum + spread) / (number + 1) as f64 }
}
