//! When an allocation counts as healthy or not: by the update block in a deployment, else by the migrate block, so that
//! a drain goes on only once what it moved is well.

use std::time::Duration;

use tokio::time::Instant;

use crate::agent::allocation::group::Group;
use crate::agent::events;
use crate::agent::health;
use crate::agent::health::Rules;
use crate::model::allocation::DeploymentHealth;
use crate::model::group::TaskGroup;
use crate::model::job::JobType;
use crate::model::time::Time;

/// Checks are looked at this often while health is undecided.
const CHECK_PACE: Duration = Duration::from_millis(500);

impl Group {
    /// The rules in force, while health is to be decided.
    fn health_rules(&self) -> Option<Rules> {
        if self.shared.record.lock().health.is_some() || self.setup.job.job_type() != JobType::Service {
            return None;
        }
        let group = self.setup.group()?;
        if self.setup.allocation.deployment_id.is_none() {
            return group.migrate.as_ref().map(Rules::of_migration);
        }
        Rules::of(group.update.as_ref().or(self.setup.job.update.as_ref())?)
    }

    /// Decides health if that is possible now; true if it was.
    pub(super) fn assess_health(&mut self) -> bool {
        self.look_again = None;
        let Some(group) = self.setup.group().cloned() else { return false };
        let states = self.states();
        let failed = states.values().any(|state| state.failed);
        let now = self.machine.now();
        let Some(rules) = self.health_rules() else {
            // People decide about the healthy ones; a failed one is unhealthy without asking.
            let open =
                self.setup.allocation.deployment_id.is_some() && self.shared.record.lock().health.is_none();
            if failed && open {
                self.decide(false, now);
            }
            return failed && open;
        };
        if self.stop {
            return false;
        }
        let checks = all_checks(&group);
        if rules.checks && checks > 0 {
            let passing: usize =
                self.shared.services.lock().values().map(|services| services.health().passing).sum();
            self.passing_since = if passing >= checks { self.passing_since.or(Some(now)) } else { None };
        } else {
            self.passing_since = Some(self.health_began);
        }
        match health::assess(rules, &group, &states, self.passing_since, self.health_began, now) {
            health::Verdict::Undecided { look_again } => {
                let mut wait = look_again.since(now).to_std();
                if rules.checks && checks > 0 {
                    wait = wait.min(CHECK_PACE);
                }
                self.look_again = Some(Instant::now() + wait);
                false
            }
            health::Verdict::Healthy => {
                self.decide(true, now);
                true
            }
            health::Verdict::Unhealthy(texts) => {
                // Outside deployments nobody waits for the reason.
                let told = self.setup.allocation.deployment_id.is_some();
                for (task, text) in texts.into_iter().filter(|_| told) {
                    if let Some(entry) = self.shared.record.lock().tasks.get_mut(&task) {
                        events::record(&mut entry.state, now, events::unhealthy(&text));
                    }
                }
                self.decide(false, now);
                true
            }
        }
    }

    fn decide(&self, healthy: bool, now: Time) {
        self.shared.record.lock().health = Some(DeploymentHealth {
            healthy: Some(healthy),
            timestamp: now,
            deployment_id: self.setup.allocation.deployment_id,
        });
    }
}

fn all_checks(group: &TaskGroup) -> usize {
    let tasks = group.tasks.iter().flat_map(|task| &task.services);
    group.services.iter().chain(tasks).map(|service| service.checks.len()).sum()
}
