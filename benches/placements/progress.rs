//! Counts what has become durable, as the server's mirror shows it: never earlier than etcd.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use herder::mirror::Dirty;
use herder::mirror::Mirror;
use herder::mirror::state::State;
use herder::model::allocation::ClientStatus;
use herder::model::id::AllocId;
use herder::store::key::Key;
use parking_lot::Condvar;
use parking_lot::Mutex;

/// What to wait for.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    Placed(usize),
    Running(usize),
}

#[derive(Default)]
struct Counts {
    placed: HashSet<AllocId>,
    running: HashSet<AllocId>,
    /// Number placed, and when the mirror showed it.
    marks: Vec<(Instant, usize)>,
}

/// The counts of one run. Clones share them.
#[derive(Clone, Default)]
pub struct Progress {
    shared: Arc<(Mutex<Counts>, Condvar)>,
}

impl Progress {
    /// Starts to follow a mirror.
    pub fn follow(mirror: &Mirror) -> Self {
        let progress = Self::default();
        let own = progress.clone();
        mirror.listen(Box::new(move |state, dirty| {
            if let Dirty::Keys(touched) = dirty {
                own.take(state, touched.iter().map(|touch| &touch.key));
            }
            true
        }));
        progress
    }

    fn take<'a>(&self, state: &State, keys: impl Iterator<Item = &'a Key>) {
        let (counts, changed) = &*self.shared;
        let mut counts = counts.lock();
        let before = (counts.placed.len(), counts.running.len());
        for key in keys {
            match key {
                Key::Alloc(_, id) => drop(counts.placed.insert(*id)),
                Key::AllocReport(_, id) => {
                    let entry = state.allocs.get(id);
                    if entry.is_some_and(|entry| entry.status() == ClientStatus::Running) {
                        counts.running.insert(*id);
                    }
                }
                _ => {}
            }
        }
        let placed = counts.placed.len();
        if placed > before.0 {
            counts.marks.push((Instant::now(), placed));
        }
        if (placed, counts.running.len()) != before {
            changed.notify_all();
        }
    }

    /// Waits for a goal; when it was reached. An error when nothing happens for `stall`.
    pub fn wait_for(&self, goal: Goal, stall: Duration) -> Result<Instant, String> {
        let (counts, changed) = &*self.shared;
        let mut counts = counts.lock();
        loop {
            let (reached, wanted) = match goal {
                Goal::Placed(wanted) => (counts.placed.len(), wanted),
                Goal::Running(wanted) => (counts.running.len(), wanted),
            };
            if reached >= wanted {
                return Ok(match goal {
                    Goal::Placed(_) => counts.marks.last().map_or_else(Instant::now, |mark| mark.0),
                    Goal::Running(_) => Instant::now(),
                });
            }
            if changed.wait_for(&mut counts, stall).timed_out() {
                return Err(format!("{goal:?}: stuck at {reached}"));
            }
        }
    }

    /// Numbers placed and running so far.
    pub fn now(&self) -> (usize, usize) {
        let counts = self.shared.0.lock();
        (counts.placed.len(), counts.running.len())
    }

    /// Placements per second between two shares of all placements.
    pub fn placed_rate(&self, from: f64, to: f64) -> f64 {
        let counts = self.shared.0.lock();
        let total = counts.marks.last().map_or(0, |mark| mark.1) as f64;
        let reached = |share: f64| counts.marks.iter().find(|mark| mark.1 as f64 >= share * total);
        let (Some(first), Some(last)) = (reached(from), reached(to)) else { return 0.0 };
        // Few, large steps: then there is no window worth the name.
        (last.1 - first.1) as f64 / (last.0 - first.0).as_secs_f64().max(1e-3)
    }
}
