//! Checks of services: what is asked, how often, and what the answers in a row mean.

mod probe;

use std::time::Duration;

use md5::Digest;
use md5::Md5;
use tokio::time::Instant;

use super::CheckRestartRequest;
use super::ServiceContext;
use crate::model::service::CheckResult;
use crate::model::service::CheckStatus;
use crate::model::service::Service;
use crate::model::service::ServiceCheck;
use crate::model::time::Time;

pub(super) use probe::Outcome;
pub(super) use probe::Probe;
pub(super) use probe::Target;

/// Shortest interval and timeout; the job's validation has the same bound.
const SPAN_MIN: Duration = Duration::from_secs(1);

/// One check, with everything resolved.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Check {
    /// Stable over restarts of the agent.
    pub(super) id: String,
    /// The registration whose health it tells.
    pub(super) registration: String,
    pub(super) probe: Probe,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    name: String,
    group: String,
    task: String,
    service: String,
    /// Failures do not count against the allocation's health.
    tolerates_failure: bool,
    tolerates_warning: bool,
    initial: CheckStatus,
    successes_wanted: i64,
    failures_wanted: i64,
    /// Failures in a row after which it is a warning, if it is not worse yet; 0 for never.
    warnings_wanted: i64,
    restart: Option<Restart>,
    /// Consul knows it, and asks unless it is a script.
    in_consul: bool,
}

/// When failures restart the task.
#[derive(Clone, Debug, PartialEq)]
struct Restart {
    task: String,
    grace: Duration,
    /// Unhealthy for this long.
    patience: Duration,
    ignore_warnings: bool,
}

impl Check {
    /// The check `check` of `service`, which is asked at `target`.
    pub(super) fn new(
        context: &ServiceContext,
        service: &Service,
        check: &ServiceCheck,
        registration: &str,
        target: Result<Target, String>,
    ) -> Self {
        let name = match check.name.as_str() {
            "" => format!("service: {:?} check", service.name),
            name => name.to_owned(),
        };
        let owner = context.task.clone().unwrap_or_default();
        let first_named = [&check.task_name, &service.task_name, &owner];
        let task = first_named.into_iter().find(|name| !name.is_empty()).cloned().unwrap_or_default();
        let on_update = if check.on_update.is_empty() { &service.on_update } else { &check.on_update };
        let interval = check.interval.to_std().max(SPAN_MIN);
        let restart =
            check.check_restart.as_ref().filter(|restart| restart.limit > 0).map(|restart| Restart {
                task: task.clone(),
                grace: restart.grace.to_std(),
                patience: interval.saturating_mul(u32::try_from(restart.limit - 1).unwrap_or(u32::MAX)),
                ignore_warnings: restart.ignore_warnings,
            });
        let id = format!("{registration}\n{}\n{name}\n{}\n{}", check.kind, check.path, check.port_label);
        Self {
            id: hex::encode(Md5::digest(id)),
            registration: registration.to_owned(),
            probe: Probe::new(check, target, &task),
            interval,
            timeout: check.timeout.to_std().max(SPAN_MIN),
            name,
            group: context.group.clone(),
            task: owner,
            service: service.name.clone(),
            tolerates_failure: on_update == "ignore",
            tolerates_warning: matches!(on_update.as_str(), "ignore" | "ignore_warnings"),
            initial: match check.initial_status.as_str() {
                "passing" => CheckStatus::Success,
                "critical" => CheckStatus::Failure,
                _ => CheckStatus::Pending,
            },
            successes_wanted: check.success_before_passing,
            failures_wanted: check.failures_before_critical,
            warnings_wanted: check.failures_before_warning,
            restart,
            in_consul: false,
        }
    }

    /// The same as a check of Consul, which counts answers in a row by itself.
    pub(super) fn in_consul(mut self) -> Self {
        self.in_consul = true;
        self.successes_wanted = 0;
        self.failures_wanted = 0;
        self.warnings_wanted = 0;
        self
    }

    pub(super) fn is_in_consul(&self) -> bool {
        self.in_consul
    }

    pub(super) fn is_script(&self) -> bool {
        matches!(self.probe, Probe::Script { .. })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// How a check stands.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// The newest answer; its status is the one that counts.
    pub(super) result: CheckResult,
    warning: bool,
    successes: i64,
    failures: i64,
    /// The task began to run then, as far as the grace period is concerned.
    task_started: Instant,
    unhealthy_since: Option<Instant>,
    restart_asked: bool,
}

impl Standing {
    /// Before the first answer.
    pub(super) fn new(check: &Check, started: Instant, now: Time) -> Self {
        let mode = if check.tolerates_failure { "readiness" } else { "healthiness" };
        let result = CheckResult {
            id: check.id.clone(),
            check: check.name.clone(),
            group: check.group.clone(),
            task: check.task.clone(),
            service: check.service.clone(),
            mode: mode.to_owned(),
            status: check.initial,
            status_code: 0,
            output: "nomad: waiting to run".to_owned(),
            timestamp: now.secs(),
        };
        Self {
            result,
            warning: false,
            successes: 0,
            failures: 0,
            task_started: started,
            unhealthy_since: None,
            restart_asked: false,
        }
    }

    /// Takes an answer. True when the status changed.
    pub(super) fn record(&mut self, check: &Check, outcome: Outcome, now: Time) -> bool {
        let before = self.result.status;
        if outcome.passed {
            self.successes += 1;
            self.failures = 0;
            self.warning = false;
            if self.successes >= check.successes_wanted {
                self.result.status = CheckStatus::Success;
            }
        } else {
            self.failures += 1;
            self.successes = 0;
            let critical = self.failures >= check.failures_wanted;
            let warned = check.warnings_wanted > 0 && self.failures >= check.warnings_wanted;
            if critical || warned {
                self.result.status = CheckStatus::Failure;
            }
            self.warning = outcome.warning || (warned && !critical);
        }
        self.result.status_code = outcome.code;
        self.result.output = outcome.output;
        self.result.timestamp = now.secs();
        before != self.result.status
    }

    /// Whether the task must be restarted now, because the check has been failing for too long.
    pub(super) fn wants_restart(&mut self, check: &Check, now: Instant) -> Option<CheckRestartRequest> {
        let restart = check.restart.as_ref()?;
        let healthy = self.result.status == CheckStatus::Success || (self.warning && restart.ignore_warnings);
        if healthy || now < self.task_started + restart.grace {
            self.unhealthy_since = None;
            return None;
        }
        let since = *self.unhealthy_since.get_or_insert(now);
        (!self.restart_asked && now.duration_since(since) >= restart.patience).then(|| CheckRestartRequest {
            task: restart.task.clone(),
            reason: format!("healthcheck: check {:?} unhealthy", check.name),
        })
    }

    /// The runner has been asked; it is not asked again before the task was restarted.
    pub(super) fn restart_asked(&mut self) {
        self.restart_asked = true;
    }

    /// The task has been started anew: the grace period begins again.
    pub(super) fn task_restarted(&mut self, now: Instant) {
        self.task_started = now;
        self.unhealthy_since = None;
        self.restart_asked = false;
    }

    /// Good enough for the allocation's health.
    pub(super) fn is_passing(&self, check: &Check) -> bool {
        match self.result.status {
            CheckStatus::Success => true,
            CheckStatus::Pending => false,
            CheckStatus::Failure => check.tolerates_failure || (self.warning && check.tolerates_warning),
        }
    }
}
