//! Restart, reschedule, update, migrate and disconnect.

use crate::model::group::DisconnectStrategy;
use crate::model::group::MigrateStrategy;
use crate::model::group::ReschedulePolicy;
use crate::model::group::RestartPolicy;
use crate::model::group::TaskGroup;
use crate::model::group::UpdateStrategy;
use crate::model::job::JobType;
use crate::model::time::Span;

use super::problem::Findings;

const MIN_RESTART_INTERVAL: Span = Span::from_secs(5);
const MIN_RESCHEDULE_INTERVAL: Span = Span::from_secs(15);
const MIN_RESCHEDULE_DELAY: Span = Span::from_secs(5);
/// Attempts are added up one by one; a policy with more than this is judged by its first ones.
const MAX_COUNTED_ATTEMPTS: i64 = 100_000;

/// Checks a group's restart policy.
pub(super) fn restart(policy: &RestartPolicy, errors: &mut Findings) {
    match policy.mode.as_str() {
        "delay" | "fail" => {}
        other => errors.at("mode", format!("Unsupported restart mode: {other:?}")),
    }
    if policy.attempts == 0 && policy.mode != "fail" {
        errors.at("attempts", format!("Restart policy {:?} with 0 attempts is ambiguous", policy.mode));
    }
    if policy.interval < MIN_RESTART_INTERVAL {
        errors.at(
            "interval",
            format!("Interval can not be less than {MIN_RESTART_INTERVAL} (got {})", policy.interval),
        );
    }
    if policy.attempts.saturating_mul(policy.delay.0) > policy.interval.0 {
        errors.at(
            "interval",
            format!(
                "Nomad can't restart the TaskGroup {} times in an interval of {} with a delay of {}",
                policy.attempts, policy.interval, policy.delay
            ),
        );
    }
}

/// Checks a group's reschedule policy.
pub(super) fn reschedule(policy: &ReschedulePolicy, errors: &mut Findings) {
    let ReschedulePolicy { attempts, interval, delay, delay_function, max_delay, unlimited } = policy;
    if *attempts <= 0 && !unlimited {
        return;
    }
    if *attempts > 0 && *interval <= Span::ZERO {
        errors.at("interval", "Interval must be a non zero value if Attempts > 0");
    }
    if *attempts > 0 && *unlimited {
        errors.at("attempts", format!(
            "Reschedule Policy with Attempts = {attempts}, Interval = {interval}, and Unlimited = true is ambiguous"
        ));
        errors.at("unlimited", "If Attempts >0, Unlimited cannot also be set to true");
    }
    let mut fits = true;
    if *delay < MIN_RESCHEDULE_DELAY {
        errors.at("delay", format!("Delay cannot be less than {MIN_RESCHEDULE_DELAY} (got {delay})"));
        fits = false;
    }
    let known = matches!(delay_function.as_str(), "constant" | "exponential" | "fibonacci");
    if !known {
        errors.at("delay_function", format!(
            "Invalid delay function {delay_function:?}, must be one of [\"constant\" \"exponential\" \"fibonacci\"]"
        ));
    } else if delay_function != "constant" {
        if *max_delay < MIN_RESCHEDULE_DELAY {
            errors.at(
                "max_delay",
                format!("Max Delay cannot be less than {MIN_RESCHEDULE_DELAY} (got {max_delay})"),
            );
        }
        if max_delay < delay {
            errors.at("max_delay", format!("Max Delay cannot be less than Delay {delay} (got {max_delay})"));
            fits = false;
        }
    }
    if !unlimited {
        if *interval < MIN_RESCHEDULE_INTERVAL {
            errors.at(
                "interval",
                format!("Interval cannot be less than {MIN_RESCHEDULE_INTERVAL} (got {interval})"),
            );
        }
        if known && fits {
            attempts_fit(policy, errors);
        }
    }
}

/// Whether all attempts fit into the interval.
fn attempts_fit(policy: &ReschedulePolicy, errors: &mut Findings) {
    let is_constant = policy.delay_function == "constant";
    let mut previous = 0_i64;
    let mut delay = policy.delay.0;
    let mut total = 0_i64;
    let mut viable = 0;
    for _ in 0..policy.attempts.min(MAX_COUNTED_ATTEMPTS) {
        let capped = if is_constant { delay } else { delay.min(policy.max_delay.0) };
        total = total.saturating_add(capped);
        if total <= policy.interval.0 {
            viable += 1;
        }
        let next = match policy.delay_function.as_str() {
            "exponential" => delay.saturating_mul(2),
            "fibonacci" => delay.saturating_add(previous),
            _ => delay,
        };
        previous = delay;
        delay = next;
    }
    if total <= policy.interval.0 {
        return;
    }
    let ReschedulePolicy { attempts, interval, delay, delay_function, max_delay, .. } = policy;
    let ceiling = if is_constant { String::new() } else { format!(", and delay ceiling {max_delay}") };
    errors.at(
        "attempts",
        format!(
            "Nomad can only make {viable} attempts in {interval} with initial delay {delay} and delay function \
             {delay_function:?}{ceiling}"
        ),
    );
    errors.at(
        "interval",
        format!("Set the interval to at least {} to accommodate {attempts} attempts", Span(total)),
    );
}

/// Checks a group's update policy.
pub(super) fn update(policy: &UpdateStrategy, errors: &mut Findings) {
    if !matches!(policy.health_check.as_str(), "checks" | "task_states" | "manual") {
        errors.at("health_check", format!("Invalid health check given: {:?}", policy.health_check));
    }
    if policy.max_parallel < 0 {
        errors.at(
            "max_parallel",
            format!("Max parallel can not be less than zero: {} < 0", policy.max_parallel),
        );
    }
    if policy.canary < 0 {
        errors.at("canary", format!("Canary count can not be less than zero: {} < 0", policy.canary));
    }
    if policy.canary == 0 && policy.auto_promote {
        errors.at("auto_promote", "Auto Promote requires a Canary count greater than zero");
    }
    let (min, deadline, progress) =
        (policy.min_healthy_time, policy.healthy_deadline, policy.progress_deadline);
    if min < Span::ZERO {
        errors.at("min_healthy_time", format!("Minimum healthy time may not be less than zero: {min}"));
    }
    if deadline <= Span::ZERO {
        errors.at("healthy_deadline", format!("Healthy deadline must be greater than zero: {deadline}"));
    }
    if progress < Span::ZERO {
        errors.at("progress_deadline", format!("Progress deadline must be zero or greater: {progress}"));
    }
    if min >= deadline {
        errors.at(
            "min_healthy_time",
            format!("Minimum healthy time must be less than healthy deadline: {min} > {deadline}"),
        );
    }
    if progress != Span::ZERO && deadline >= progress {
        errors.at(
            "healthy_deadline",
            format!("Healthy deadline must be less than progress deadline: {deadline} > {progress}"),
        );
    }
    if policy.stagger <= Span::ZERO {
        errors.at("stagger", format!("Stagger must be greater than zero: {}", policy.stagger));
    }
}

/// Checks a group's migrate policy.
pub(super) fn migrate(policy: &MigrateStrategy, errors: &mut Findings) {
    if policy.max_parallel < 0 {
        errors.at("max_parallel", format!("MaxParallel must be >= 0 but found {}", policy.max_parallel));
    }
    if !matches!(policy.health_check.as_str(), "checks" | "task_states") {
        errors.at("health_check", format!("Invalid HealthCheck: {:?}", policy.health_check));
    }
    if policy.min_healthy_time < Span::ZERO {
        errors.at(
            "min_healthy_time",
            format!("MinHealthyTime is {} and must be >= 0", policy.min_healthy_time),
        );
    }
    if policy.healthy_deadline < Span::ZERO {
        errors.at(
            "healthy_deadline",
            format!("HealthyDeadline is {} and must be >= 0", policy.healthy_deadline),
        );
    }
    if policy.min_healthy_time > policy.healthy_deadline {
        errors.at("min_healthy_time", "MinHealthyTime must be less than HealthyDeadline");
    }
}

/// Checks what a group says about lost nodes, in the block and in the older attributes.
pub(super) fn disconnect(group: &TaskGroup, kind: JobType, errors: &mut Findings) {
    let negative = |span: Option<Span>| span.is_some_and(|span| span < Span::ZERO);
    if let Some(stop) = group.stop_after_client_disconnect {
        if !matches!(kind, JobType::Batch | JobType::Service) {
            errors.at(
                "stop_after_client_disconnect",
                "stop_after_client_disconnect can only be set in batch and service jobs",
            );
        }
        if stop < Span::ZERO {
            errors
                .at("stop_after_client_disconnect", "stop_after_client_disconnect must be a positive value");
        }
    }
    if negative(group.max_client_disconnect) {
        errors.at("max_client_disconnect", "max_client_disconnect cannot be negative");
    }
    if group.max_client_disconnect.is_some() && group.stop_after_client_disconnect.is_some() {
        errors.at("max_client_disconnect", 
            "Task group cannot be configured with both max_client_disconnect and stop_after_client_disconnect"
                ,
        );
    }
    let attempts = group.reschedule_policy.as_ref().map_or(0, |policy| policy.attempts);
    if group.max_client_disconnect.is_some() && group.prevent_reschedule_on_lost && attempts > 0 {
        errors.at("prevent_reschedule_on_lost", 
            "max_client_disconnect and prevent_reschedule_on_lost cannot be enabled when rechedule.attempts > 0"
                ,
        );
    }
    let Some(block) = &group.disconnect else { return };
    let mut own = errors.block("disconnect", 0);
    disconnect_block(block, kind, &mut own);
    errors.absorb(own);
    if group.max_client_disconnect.is_some() && block.lost_after != Span::ZERO {
        errors.at("max_client_disconnect", "using both lost_after and max_client_disconnect is not allowed");
    }
    if group.stop_after_client_disconnect.is_some() && block.stop_on_client_after.is_some() {
        errors.at(
            "stop_after_client_disconnect",
            "using both stop_after_client_disconnect and stop_on_client_after is not allowed",
        );
    }
    if group.prevent_reschedule_on_lost && block.replace.is_some() {
        errors.at(
            "prevent_reschedule_on_lost",
            "using both prevent_reschedule_on_lost and replace is not allowed",
        );
    }
}

fn disconnect_block(block: &DisconnectStrategy, kind: JobType, errors: &mut Findings) {
    if let Some(stop) = block.stop_on_client_after {
        if !matches!(kind, JobType::Batch | JobType::Service) {
            errors.at("stop_on_client_after", "stop_after can only be used with service or batch job types");
        }
        if stop < Span::ZERO {
            errors.at("stop_on_client_after", "stop_after cannot be a negative duration");
        }
        if block.lost_after != Span::ZERO {
            errors.at("lost_after", "Disconnect cannot be configured with both lost_after and stop_after");
        }
    }
    if block.lost_after < Span::ZERO {
        errors.at("lost_after", "lost_after cannot be a negative duration");
    }
    let known = ["", "best_score", "keep_original", "keep_replacement", "longest_running"];
    if !known.contains(&block.reconcile.as_str()) {
        errors.at("reconcile", format!("reconcile option is invalid: {}", block.reconcile));
    }
}
