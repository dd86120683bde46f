//! Nodes: ready while their agent's lease lives, down once it ended.

pub mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::mirror::Dirty;
use crate::model::id::NodeId;
use crate::model::time::Time;
use crate::store::Op;
use crate::store::key::Key;

use super::Context;
use super::Error;
use super::commit::Committer;
use super::commit::Unit;
use super::job::decide::encode;
use super::queue::Queue;
use super::runner::Next;
use super::runner::Reconciler;

use self::plan::Plan;

/// Reconciles nodes. One instance per reign.
pub struct NodeReconciler {
    context: Context,
    committer: Committer,
    /// Since when this server misses a node's lease. In memory only: a new leader grants the grace period anew.
    silent_since: Mutex<BTreeMap<NodeId, Time>>,
}

impl NodeReconciler {
    /// Starts listening to the mirror; everything is dirty at first.
    pub fn new(context: Context, committer: Committer, queue: &Arc<Queue<NodeId>>) -> Arc<Self> {
        let weak_queue = Arc::downgrade(queue);
        context.mirror.listen(Box::new(move |state, dirty| {
            let Some(queue) = weak_queue.upgrade() else { return false };
            match dirty {
                Dirty::All => state.nodes.keys().for_each(|node| queue.add(*node)),
                Dirty::Keys(touched) => touched.iter().for_each(|touch| {
                    if let Key::NodeInfo(node)
                    | Key::NodeLive(node)
                    | Key::NodeSpec(node)
                    | Key::NodeStatus(node)
                    | Key::Control(node) = &touch.key
                    {
                        queue.add(*node);
                    }
                }),
            }
            true
        }));
        Arc::new(Self { context, committer, silent_since: Mutex::default() })
    }

    fn plan(&self, node: NodeId) -> Plan {
        let now = self.context.clock.now();
        let state = self.context.mirror.read();
        let mut silent_since = self.silent_since.lock();
        let Some(entry) = state.nodes.get(&node) else {
            silent_since.remove(&node);
            return Plan::default();
        };
        let since = if entry.live.is_some() {
            silent_since.remove(&node);
            now
        } else {
            *silent_since.entry(node).or_insert(now)
        };
        let view = plan::View {
            entry,
            cluster_id: state.meta.as_ref().and_then(|meta| meta.value.get("ClusterID")?.as_str()),
            epoch: state.meta.as_ref().and_then(|meta| meta.value.get("Epoch")?.as_u64()).unwrap_or(1),
            silent_since: since,
            grace: self.context.settings.heartbeat_grace,
            pool: plan::pool_of(&state, entry),
        };
        plan::plan(&view, now)
    }
}

impl Reconciler for NodeReconciler {
    type Key = NodeId;
    const NAME: &'static str = "node";

    async fn reconcile(&self, node: &NodeId) -> Result<Next, Error> {
        let plan = self.plan(*node);
        let mut ops = Vec::new();
        if let Some(control) = &plan.control {
            ops.push(Op::put(self.context.keys.text(&Key::Control(*node)), encode(control)));
        }
        if let Some(status) = &plan.status {
            ops.push(Op::put(self.context.keys.text(&Key::NodeStatus(*node)), encode(status)));
        }
        if !ops.is_empty() {
            self.committer.commit(Unit::of(ops)).await?;
        }
        Ok(plan.next.map_or(Next::WhenChanged, Next::At))
    }

    fn now(&self) -> Time {
        self.context.clock.now()
    }
}
