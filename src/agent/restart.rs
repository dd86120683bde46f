//! Is a task started again after it ended, and when? Pure: time and chance are arguments.

use crate::agent::ledger::RestartCount;
use crate::model::group::RestartPolicy;
use crate::model::time::Span;
use crate::model::time::Time;

/// The reason given for an ordinary restart.
pub const WITHIN_POLICY: &str = "Restart within policy";

/// Why a task does not run (any more).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It ended by itself.
    Ended { success: bool },
    /// It could not be started.
    StartFailed { recoverable: bool },
    /// A user or a template asked for a restart.
    Requested,
    /// A check asked for a restart: counts as a failure.
    Unhealthy,
}

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Restart {
        after: Span,
        reason: String,
    },
    /// The task has done its work.
    Finish,
    /// The task has failed for good.
    Fail {
        reason: String,
    },
}

/// Counts the end of a task and decides. `on_success`: is a task that did its work started again? `chance` is at
/// least 0 and less than 1.
pub fn decide(
    policy: &RestartPolicy,
    on_success: OnSuccess,
    count: &mut RestartCount,
    cause: Cause,
    now: Time,
    chance: f64,
) -> Verdict {
    if cause == Cause::Requested {
        return Verdict::Restart { after: Span::ZERO, reason: String::new() };
    }
    let done = cause == (Cause::Ended { success: true }) && on_success == OnSuccess::Finish;
    if policy.attempts == 0 {
        return if done { Verdict::Finish } else { fail("Policy allows no restarts") };
    }
    if count.window_start.is_never() || now > count.window_start + policy.interval {
        *count = RestartCount { count: 0, window_start: now };
    }
    count.count += 1;
    if cause == (Cause::StartFailed { recoverable: false }) {
        return fail("Error was unrecoverable");
    }
    if done {
        return Verdict::Finish;
    }
    if count.count <= policy.attempts {
        let jitter = Span((policy.delay.0 as f64 * 0.25 * chance) as i64);
        return Verdict::Restart { after: Span(policy.delay.0 + jitter.0), reason: WITHIN_POLICY.to_owned() };
    }
    if policy.mode == "delay" {
        let window_end = count.window_start + policy.interval;
        let after = Span(window_end.since(now).0.max(0));
        return Verdict::Restart { after, reason: "Exceeded allowed attempts, applying a delay".to_owned() };
    }
    fail(&format!(
        "Exceeded allowed attempts {} in interval {} and mode is \"fail\"",
        policy.attempts, policy.interval
    ))
}

/// What a successful end means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnSuccess {
    /// The work is done.
    Finish,
    /// It should run all the time.
    Restart,
}

fn fail(reason: &str) -> Verdict {
    Verdict::Fail { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(attempts: i64, mode: &str) -> RestartPolicy {
        RestartPolicy {
            attempts,
            interval: Span::from_secs(60),
            delay: Span::from_secs(10),
            mode: mode.into(),
            render_templates: false,
        }
    }

    const FAILED: Cause = Cause::Ended { success: false };
    const DONE: Cause = Cause::Ended { success: true };

    #[test]
    fn single_ends_are_judged_as_documented() {
        let restart = |after, reason: &str| Verdict::Restart { after, reason: reason.into() };
        let none = fail("Policy allows no restarts");
        let broken = Cause::StartFailed { recoverable: false };
        for (attempts, on_success, cause, expected) in [
            (2, OnSuccess::Restart, FAILED, restart(Span::from_millis(11_250), WITHIN_POLICY)),
            (2, OnSuccess::Restart, DONE, restart(Span::from_millis(11_250), WITHIN_POLICY)),
            (2, OnSuccess::Finish, DONE, Verdict::Finish),
            (2, OnSuccess::Finish, Cause::Requested, restart(Span::ZERO, "")),
            (2, OnSuccess::Restart, broken, fail("Error was unrecoverable")),
            (0, OnSuccess::Restart, Cause::Requested, restart(Span::ZERO, "")),
            (0, OnSuccess::Restart, DONE, none.clone()),
            (0, OnSuccess::Finish, FAILED, none.clone()),
            (0, OnSuccess::Finish, broken, none),
            (0, OnSuccess::Finish, DONE, Verdict::Finish),
        ] {
            let mut count = RestartCount::default();
            let verdict =
                decide(&policy(attempts, "fail"), on_success, &mut count, cause, Time::from_secs(100), 0.5);
            assert_eq!(verdict, expected, "{attempts} {on_success:?} {cause:?}");
        }
    }

    #[test]
    fn attempts_n_allow_n_restarts_and_a_delay_grows_by_up_to_a_quarter() {
        let mut count = RestartCount::default();
        let mut at = |secs, dice| {
            decide(&policy(2, "fail"), OnSuccess::Restart, &mut count, FAILED, Time::from_secs(secs), dice)
        };
        let restart = |after| Verdict::Restart { after, reason: WITHIN_POLICY.into() };
        assert_eq!(at(100, 0.0), restart(Span::from_secs(10)));
        assert_eq!(at(101, 1.0), restart(Span::from_millis(12_500)));
        assert!(matches!(at(102, 0.0), Verdict::Fail { .. }));
    }

    #[test]
    fn attempts_are_counted_per_fixed_window() {
        let mut count = RestartCount::default();
        let mut at = |secs, mode| {
            decide(&policy(2, mode), OnSuccess::Restart, &mut count, FAILED, Time::from_secs(secs), 0.0)
        };
        assert!(matches!(at(100, "fail"), Verdict::Restart { .. }));
        assert!(matches!(at(110, "fail"), Verdict::Restart { .. }));
        let reason = "Exceeded allowed attempts 2 in interval 1m0s and mode is \"fail\"";
        assert_eq!(at(120, "fail"), fail(reason));
        let reason = "Exceeded allowed attempts, applying a delay".to_owned();
        assert_eq!(at(130, "delay"), Verdict::Restart { after: Span::from_secs(30), reason });
        assert!(matches!(at(161, "fail"), Verdict::Restart { .. }), "a new window");
    }
}
