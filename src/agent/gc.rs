//! Which directories of ended allocations are removed. Pure.

use crate::model::id::AllocId;
use crate::model::time::Span;
use crate::model::time::Time;

/// Chooses from ended allocations (with the time of their end) those whose directories go: all but the newest
/// `keep`, and those that ended more than `keep_for` ago.
pub fn choose(
    mut ended: Vec<(Time, AllocId)>,
    keep: usize,
    keep_for: Option<Span>,
    now: Time,
) -> Vec<AllocId> {
    ended.sort_unstable();
    let surplus = ended.len().saturating_sub(keep);
    let goes = |(place, (at, _)): &(usize, (Time, AllocId))| {
        *place < surplus || keep_for.is_some_and(|span| now.since(*at) > span)
    };
    ended.into_iter().enumerate().filter(goes).map(|(_, (_, id))| id).collect()
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
        assert_eq!(choose(ended.clone(), 2, None, now), [id(1)]);
        assert_eq!(choose(ended.clone(), 5, Some(Span::from_secs(15)), now), [id(1), id(2)]);
        assert_eq!(choose(ended, 5, None, now), []);
    }
}
