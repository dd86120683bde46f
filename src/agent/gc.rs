//! Which directories of ended allocations are removed, and when: too many allocations, too old, or a disk that is
//! nearly full.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::model::id::AllocId;
use crate::model::time::Span;
use crate::model::time::Time;

/// How full the disk of the allocations is, percent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DiskUse {
    pub blocks: f64,
    pub inodes: f64,
}

/// Looks at the disk of a directory; `None` when that is not possible.
pub type Measure = Arc<dyn Fn(&Path) -> Option<DiskUse> + Send + Sync>;

/// The settings `gc_*` of a client.
#[derive(Clone)]
pub struct CollectionLimits {
    /// More allocations than these, running ones included, cost the oldest ended ones their directories.
    pub max_allocs: usize,
    /// Directories of allocations that ended longer ago are removed, too.
    pub keep_for: Option<Span>,
    /// Pause between two looks at the disk.
    pub interval: Duration,
    /// Percent of the disk in use from which directories are removed.
    pub disk_threshold: f64,
    /// Percent of the disk's inodes in use from which directories are removed.
    pub inode_threshold: f64,
    /// Directories removed at the same time.
    pub parallel: usize,
    pub measure: Measure,
}

impl Default for CollectionLimits {
    fn default() -> Self {
        Self {
            max_allocs: 50,
            keep_for: None,
            interval: Duration::from_secs(60),
            disk_threshold: 80.0,
            inode_threshold: 70.0,
            parallel: 2,
            measure: Arc::new(measure),
        }
    }
}

impl CollectionLimits {
    /// Why room has to be made on the disk; `None` if it has not.
    pub fn pressure(&self, used: DiskUse) -> Option<String> {
        if used.blocks > self.disk_threshold {
            let (used, limit) = (used.blocks, self.disk_threshold);
            Some(format!("disk usage of {used:.0} is over gc threshold of {limit:.0}"))
        } else if used.inodes > self.inode_threshold {
            let (used, limit) = (used.inodes, self.inode_threshold);
            Some(format!("inode usage of {used:.0} is over gc threshold of {limit:.0}"))
        } else {
            None
        }
    }

    /// Chooses from ended allocations (with the time of their end) those whose directories go: the oldest, while
    /// they and the `live` ones are too many, and those that ended too long ago.
    pub fn choose(&self, mut ended: Vec<(Time, AllocId)>, live: usize, now: Time) -> Vec<AllocId> {
        ended.sort_unstable();
        let surplus = (ended.len() + live).saturating_sub(self.max_allocs);
        let goes = |(place, (at, _)): &(usize, (Time, AllocId))| {
            *place < surplus || self.keep_for.is_some_and(|span| now.since(*at) > span)
        };
        ended.into_iter().enumerate().filter(goes).map(|(_, (_, id))| id).collect()
    }
}

/// As `df` counts: what is set aside for root is not free.
fn measure(path: &Path) -> Option<DiskUse> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    let share = |used: u64, free: u64| {
        let total = used + free;
        if total == 0 { 0.0 } else { used as f64 * 100.0 / total as f64 }
    };
    Some(DiskUse {
        blocks: share(stat.blocks().saturating_sub(stat.blocks_free()), stat.blocks_available()),
        inodes: share(stat.files().saturating_sub(stat.files_free()), stat.files_available()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_directories_are_kept() {
        let id = |number: u8| AllocId::from_random([number; 16]);
        let ended =
            vec![(Time::from_secs(30), id(3)), (Time::from_secs(10), id(1)), (Time::from_secs(20), id(2))];
        let now = Time::from_secs(40);
        let limits =
            |max_allocs, keep_for| CollectionLimits { max_allocs, keep_for, ..CollectionLimits::default() };
        assert_eq!(limits(2, None).choose(ended.clone(), 0, now), [id(1)]);
        assert_eq!(limits(5, None).choose(ended.clone(), 4, now), [id(1), id(2)], "running ones count");
        assert_eq!(limits(5, Some(Span::from_secs(15))).choose(ended.clone(), 0, now), [id(1), id(2)]);
        assert_eq!(limits(5, None).choose(ended, 0, now), []);
    }

    #[test]
    fn a_full_disk_asks_for_room() {
        let limits = CollectionLimits::default();
        let text = |blocks, inodes| limits.pressure(DiskUse { blocks, inodes }).unwrap_or_default();
        assert_eq!(text(80.0, 70.0), "");
        assert_eq!(text(91.2, 0.0), "disk usage of 91 is over gc threshold of 80");
        assert_eq!(text(10.0, 71.0), "inode usage of 71 is over gc threshold of 70");
        let here = measure(Path::new("/")).unwrap();
        assert!((0.0..=100.0).contains(&here.blocks) && (0.0..=100.0).contains(&here.inodes), "{here:?}");
    }
}
