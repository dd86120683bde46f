//! Leases: when they end and which keys end with them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::history::Key;
use crate::store::LeaseId;

/// Ids count up from here, so that runs of a simulation are alike.
const FIRST_LEASE: LeaseId = 1001;

struct Lease {
    ttl: Duration,
    deadline: Instant,
    keys: BTreeSet<Key>,
}

/// All leases.
pub(super) struct Leases {
    all: BTreeMap<LeaseId, Lease>,
    /// The same by deadline, so that looking for overdue ones costs nothing when there are none.
    deadlines: BTreeSet<(Instant, LeaseId)>,
    next: LeaseId,
}

impl Default for Leases {
    fn default() -> Self {
        Self { all: BTreeMap::new(), deadlines: BTreeSet::new(), next: FIRST_LEASE }
    }
}

impl Leases {
    pub(super) fn contains(&self, lease: LeaseId) -> bool {
        self.all.contains_key(&lease)
    }

    pub(super) fn grant(&mut self, ttl: Duration) -> LeaseId {
        let id = self.next;
        self.next += 1;
        let deadline = Instant::now() + ttl;
        self.all.insert(id, Lease { ttl, deadline, keys: BTreeSet::new() });
        self.deadlines.insert((deadline, id));
        id
    }

    /// The time to live, from now on, or `None` for an unknown lease.
    pub(super) fn renew(&mut self, id: LeaseId) -> Option<Duration> {
        let lease = self.all.get_mut(&id)?;
        self.deadlines.remove(&(lease.deadline, id));
        lease.deadline = Instant::now() + lease.ttl;
        self.deadlines.insert((lease.deadline, id));
        Some(lease.ttl)
    }

    /// Forgets a lease: the keys that end with it, in order.
    pub(super) fn remove(&mut self, id: LeaseId) -> Option<BTreeSet<Key>> {
        let lease = self.all.remove(&id)?;
        self.deadlines.remove(&(lease.deadline, id));
        Some(lease.keys)
    }

    pub(super) fn bind(&mut self, id: LeaseId, key: Key) {
        if let Some(lease) = self.all.get_mut(&id) {
            lease.keys.insert(key);
        }
    }

    pub(super) fn unbind(&mut self, id: LeaseId, key: &str) {
        if let Some(lease) = self.all.get_mut(&id) {
            lease.keys.remove(key);
        }
    }

    /// When the next lease ends.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// A lease that is due at `now`.
    pub(super) fn due(&self, now: Instant) -> Option<LeaseId> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, id)| *id)
    }
}
