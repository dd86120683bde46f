//! When a failed allocation may be replaced. Takes the time, knows no store.
//!
//! The arithmetic is Nomad's: constant, exponential (twice the last delay) or fibonacci (sum of the last two),
//! capped at `max_delay` and reset once the allocation lived longer than the cap; attempts count within `interval`.

use crate::model::allocation::Allocation;
use crate::model::allocation::AllocationReport;
use crate::model::allocation::RescheduleEvent;
use crate::model::allocation::RescheduleTracker;
use crate::model::group::ReschedulePolicy;
use crate::model::time::Span;
use crate::model::time::Time;

/// Earlier replacements remembered under an unlimited policy.
const EVENTS_KEPT: usize = 5;

/// Pause before an allocation that its agent refused is placed anew.
const REJECTION_DELAY: Span = Span::from_secs(5);

/// The answer for one failed allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reschedule {
    Now,
    /// Not before this time.
    At(Time),
    Never,
}

/// When it failed: the last end of a task, else the last report. Agents' clocks are not trusted to be ahead.
pub fn failed_at(desired: &Allocation, report: Option<&AllocationReport>, now: Time) -> Time {
    let finished = report.and_then(|report| report.task_states.values().map(|task| task.finished_at).max());
    let reported = report.map_or(desired.modify_time, |report| report.modify_time);
    finished.filter(|time| !time.is_never()).unwrap_or(Time(reported)).min(now)
}

/// May the allocation be replaced, and when?
pub fn decide(
    policy: Option<&ReschedulePolicy>,
    desired: &Allocation,
    report: Option<&AllocationReport>,
    now: Time,
) -> Reschedule {
    let failed = failed_at(desired, report, now);
    if report.is_some_and(|report| !report.rejected.is_empty()) {
        return due(failed + REJECTION_DELAY, now);
    }
    let Some(policy) = policy else { return Reschedule::Never };
    let events = desired.reschedule_tracker.as_ref().map_or(&[][..], |tracker| &tracker.events);
    let delay = next_delay(policy, events, failed);
    if !policy.unlimited {
        let recent = events.iter().filter(|event| failed.since(Time(event.time)) < policy.interval).count();
        let allowed = usize::try_from(policy.attempts).unwrap_or(0);
        if recent >= allowed || (delay >= policy.interval && !events.is_empty()) {
            return Reschedule::Never;
        }
    }
    due(failed + delay, now)
}

fn due(at: Time, now: Time) -> Reschedule {
    if at <= now { Reschedule::Now } else { Reschedule::At(at) }
}

/// The pause before the next replacement.
pub fn next_delay(policy: &ReschedulePolicy, events: &[RescheduleEvent], failed: Time) -> Span {
    let Some(last) = events.last() else { return policy.delay };
    let delay = match policy.delay_function.as_str() {
        "exponential" => Span(last.delay.0.saturating_mul(2)),
        "fibonacci" => match events {
            [.., before, _] if before.delay == policy.max_delay && last.delay == policy.delay => last.delay,
            [.., before, _] => Span(last.delay.0.saturating_add(before.delay.0)),
            _ => policy.delay,
        },
        _ => policy.delay,
    };
    if policy.max_delay.0 > 0 && delay > policy.max_delay {
        let lived = failed.since(Time(last.time));
        return if lived > policy.max_delay { policy.delay } else { policy.max_delay };
    }
    delay
}

/// The history that the replacement carries.
pub fn tracker_of_replacement(
    policy: Option<&ReschedulePolicy>,
    previous: &Allocation,
    report: Option<&AllocationReport>,
    now: Time,
) -> Option<RescheduleTracker> {
    let rejected = report.is_some_and(|report| !report.rejected.is_empty());
    let (Some(policy), false) = (policy, rejected) else { return previous.reschedule_tracker.clone() };
    let before = previous.reschedule_tracker.as_ref().map_or(&[][..], |tracker| &tracker.events);
    let mut events: Vec<RescheduleEvent> = if policy.unlimited {
        before[before.len().saturating_sub(EVENTS_KEPT)..].to_vec()
    } else {
        before.iter().filter(|event| now.since(Time(event.time)) < policy.interval).cloned().collect()
    };
    events.push(RescheduleEvent {
        time: now.0,
        previous: previous.id,
        previous_node: previous.node_id,
        delay: next_delay(policy, before, failed_at(previous, report, now)),
    });
    Some(RescheduleTracker { events, last_reschedule: "ok".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(function: &str) -> ReschedulePolicy {
        ReschedulePolicy {
            delay: Span::from_secs(30),
            max_delay: Span::from_secs(100),
            delay_function: function.to_owned(),
            unlimited: true,
            ..ReschedulePolicy::default()
        }
    }

    fn event(at_secs: i64, delay_secs: i64) -> RescheduleEvent {
        RescheduleEvent {
            time: Time::from_secs(at_secs).0,
            delay: Span::from_secs(delay_secs),
            ..RescheduleEvent::default()
        }
    }

    #[test]
    fn delays_grow_by_their_function_up_to_the_cap() {
        for (function, delays, expected) in [
            ("constant", vec![30, 30], 30),
            ("exponential", vec![], 30),
            ("exponential", vec![30], 60),
            ("exponential", vec![30, 60], 100),
            ("fibonacci", vec![30], 30),
            ("fibonacci", vec![30, 30], 60),
            ("fibonacci", vec![30, 60], 90),
            ("fibonacci", vec![60, 90], 100),
        ] {
            let events: Vec<_> = delays.iter().map(|delay| event(1000, *delay)).collect();
            let delay = next_delay(&policy(function), &events, Time::from_secs(1010));
            assert_eq!(delay, Span::from_secs(expected), "{function} {delays:?}");
        }
    }

    #[test]
    fn a_long_life_resets_the_delay() {
        let delay = next_delay(&policy("exponential"), &[event(1000, 100)], Time::from_secs(1101));
        assert_eq!(delay, Span::from_secs(30));
    }

    #[test]
    fn attempts_count_within_the_interval() {
        let policy = ReschedulePolicy {
            attempts: 1,
            interval: Span::from_secs(600),
            delay: Span::from_secs(5),
            delay_function: "constant".to_owned(),
            ..ReschedulePolicy::default()
        };
        let mut alloc = Allocation { modify_time: Time::from_secs(2000).0, ..Allocation::default() };
        let now = Time::from_secs(2001);
        assert_eq!(decide(Some(&policy), &alloc, None, now), Reschedule::At(Time::from_secs(2005)));
        assert_eq!(decide(Some(&policy), &alloc, None, Time::from_secs(2005)), Reschedule::Now);
        alloc.reschedule_tracker =
            Some(RescheduleTracker { events: vec![event(1900, 5)], last_reschedule: "ok".to_owned() });
        assert_eq!(decide(Some(&policy), &alloc, None, now), Reschedule::Never);
        alloc.reschedule_tracker =
            Some(RescheduleTracker { events: vec![event(1000, 5)], last_reschedule: "ok".to_owned() });
        assert_eq!(decide(Some(&policy), &alloc, None, Time::from_secs(2005)), Reschedule::Now);
    }
}
