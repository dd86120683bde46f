//! Ranks nodes by score: heaps that stay valid while allocations are placed.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::collections::BinaryHeap;

use crate::model::id::NodeId;

/// Most components that a node's score can have, spread apart.
pub(super) const COMPONENTS_MAX: usize = 5;

/// A node in a heap: its score without spread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) sum: f64,
    pub(super) id: NodeId,
    pub(super) node: u32,
    /// The entry counts only while this is the node's stamp.
    pub(super) stamp: u32,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// Greatest first out of a heap: the highest sum, then the lowest id.
    fn cmp(&self, other: &Self) -> Ordering {
        self.sum.total_cmp(&other.sum).then_with(|| other.id.cmp(&self.id))
    }
}

/// Nodes with the same value of every property, in one heap per number of score components: among these, the order
/// of sums is the order of final scores, whatever the spread.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    pub(super) values: Box<[Option<u32>]>,
    pub(super) heaps: [BinaryHeap<Entry>; COMPONENTS_MAX],
}

/// A node that could be taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) score: f64,
    pub(super) id: NodeId,
    pub(super) node: u32,
    pub(super) spread: f64,
}

impl Candidate {
    pub(super) fn is_better_than(&self, other: Option<&Self>) -> bool {
        other.is_none_or(|other| match self.score.total_cmp(&other.score) {
            Ordering::Equal => self.id < other.id,
            order => order.is_gt(),
        })
    }
}

/// The best entry that is current and not special; out-of-date ones are dropped on the way.
pub(super) fn top(heap: &mut BinaryHeap<Entry>, stamps: &[u32], special: &BTreeSet<u32>) -> Option<Entry> {
    let mut aside = Vec::new();
    let mut found = None;
    while let Some(entry) = heap.peek().copied() {
        if stamps[entry.node as usize] != entry.stamp {
            heap.pop();
        } else if special.contains(&entry.node) {
            aside.extend(heap.pop());
        } else {
            found = Some(entry);
            break;
        }
    }
    heap.extend(aside);
    found
}
