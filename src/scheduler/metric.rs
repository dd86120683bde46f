//! Collects what was found about nodes.

use std::cmp::Ordering;

use crate::model::allocation::AllocMetric;
use crate::model::allocation::NodeScore;

use super::unfit::Unfit;

/// Nodes whose scores are kept in a metric.
pub(super) const BEST_KEPT: usize = 5;

/// Adds refusals to a metric.
pub(super) fn note(metric: &mut AllocMetric, unfit: &Unfit, node_class: &str, number: u64) {
    if unfit.is_exhausted() {
        metric.nodes_exhausted += number;
        *metric.dimension_exhausted.entry(unfit.to_string()).or_default() += number;
    } else {
        metric.nodes_filtered += number;
        *metric.constraint_filtered.entry(unfit.to_string()).or_default() += number;
    }
    if !node_class.is_empty() {
        let by_class =
            if unfit.is_exhausted() { &mut metric.class_exhausted } else { &mut metric.class_filtered };
        *by_class.entry(node_class.to_owned()).or_default() += number;
    }
}

pub(super) fn keep_best(best: &mut Vec<NodeScore>, score: NodeScore) {
    let worse = |known: &NodeScore| match known.norm_score.total_cmp(&score.norm_score) {
        Ordering::Equal => known.node_id < score.node_id,
        order => order.is_gt(),
    };
    let at = best.partition_point(worse);
    best.insert(at, score);
    best.truncate(BEST_KEPT);
}
