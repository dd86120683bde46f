//! What a node's status should be. Pure.

use crate::mirror::state::NodeEntry;
use crate::mirror::state::State;
use crate::model::node::NodeControl;
use crate::model::node::NodeEvent;
use crate::model::node::NodeState;
use crate::model::node::NodeStatus;
use crate::model::time::Span;
use crate::model::time::Time;

/// Node events kept.
const EVENTS_KEPT: usize = 10;

/// Of a pool's nodes, this many may fall silent together and be marked down without an operator's word: a fifth,
/// and ten in any case. Beyond that the fault is more likely ours than theirs.
const SILENT_SHARE: usize = 5;
const SILENT_ANYWAY: usize = 10;

/// How soon to look again at a node that must not be marked down yet.
const HOLD: Span = Span::from_secs(10);

/// What the plan looks at.
#[derive(Debug)]
pub struct View<'a> {
    pub entry: &'a NodeEntry,
    /// The cluster's id, once it is known.
    pub cluster_id: Option<&'a str>,
    pub epoch: u64,
    /// Since when the agent's lease is missing; of no meaning while it is there.
    pub silent_since: Time,
    pub grace: Span,
    pub pool: Pool,
}

/// How the node's pool fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    pub nodes: usize,
    /// Nodes without a lease that do not count as down yet.
    pub silent: usize,
}

/// What to write, and when to look again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub status: Option<NodeStatus>,
    pub control: Option<NodeControl>,
    pub next: Option<Time>,
}

/// Counts the nodes of this node's pool.
pub fn pool_of(state: &State, entry: &NodeEntry) -> Pool {
    // Only a silent node needs the count; the common case must not cost a walk over all nodes.
    if entry.live.is_some() || entry.state() == NodeState::Down {
        return Pool::default();
    }
    let pool_name = |entry: &NodeEntry| entry.info.as_ref().map(|info| info.value.node_pool.clone());
    let own = pool_name(entry);
    let mut pool = Pool::default();
    for other in state.nodes.values().filter(|other| pool_name(other) == own) {
        pool.nodes += 1;
        pool.silent += usize::from(other.live.is_none() && other.state() != NodeState::Down);
    }
    pool
}

/// Decides.
pub fn plan(view: &View<'_>, now: Time) -> Plan {
    let entry = view.entry;
    if entry.info.is_none() {
        return Plan::default();
    }
    let mut plan = Plan { control: control(view), ..Plan::default() };
    let state = entry.state();
    if entry.live.is_some() {
        if state != NodeState::Ready {
            let message = match state {
                NodeState::Down => "Node reregistered by heartbeat",
                _ => "Node registered",
            };
            plan.status = Some(moved(entry, NodeState::Ready, "", message, now));
        } else if entry.status.as_ref().is_some_and(|status| !status.value.status_description.is_empty()) {
            plan.status = entry.status.as_ref().map(|status| NodeStatus {
                status_description: String::new(),
                ..NodeStatus::clone(&status.value)
            });
        }
        return plan;
    }
    if state == NodeState::Down {
        return plan;
    }
    let due = view.silent_since + view.grace;
    if due > now {
        plan.next = Some(due);
        return plan;
    }
    let confirmed = entry.spec.as_ref().is_some_and(|spec| spec.value.confirm_down);
    if too_many_silent(view.pool) && !confirmed {
        let text =
            "silent, but not marked down: too many nodes of its pool are silent; an operator must confirm";
        let known = entry.status.as_ref().is_some_and(|status| status.value.status_description == text);
        if !known {
            plan.status = Some(moved(entry, state, text, "Node heartbeat missed", now));
        }
        plan.next = Some(now + HOLD);
        return plan;
    }
    plan.status = Some(moved(entry, NodeState::Down, "heartbeat missed", "Node heartbeat missed", now));
    plan
}

fn too_many_silent(pool: Pool) -> bool {
    pool.silent > (pool.nodes / SILENT_SHARE).max(SILENT_ANYWAY)
}

fn control(view: &View<'_>) -> Option<NodeControl> {
    let wanted = NodeControl { cluster_id: view.cluster_id?.to_owned(), epoch: view.epoch };
    let known = view.entry.control.as_ref().is_some_and(|control| *control.value == wanted);
    (!known).then_some(wanted)
}

fn moved(entry: &NodeEntry, to: NodeState, description: &str, message: &str, now: Time) -> NodeStatus {
    let mut status = entry.status.as_ref().map(|status| NodeStatus::clone(&status.value)).unwrap_or_default();
    if status.status != to {
        status.status_updated_at = now.secs();
    }
    status.status = to;
    status.status_description = description.to_owned();
    status.events.push(NodeEvent {
        message: message.to_owned(),
        subsystem: "Cluster".to_owned(),
        timestamp: now,
        ..NodeEvent::default()
    });
    let surplus = status.events.len().saturating_sub(EVENTS_KEPT);
    status.events.drain(..surplus);
    status
}
