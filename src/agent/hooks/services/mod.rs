//! Registers the services of a group or task for as long as it runs, and runs their checks. What is written changes
//! only when a status changes: a service that stays well causes no writes.

mod address;
mod consul;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;

use super::CheckHealth;
use super::CheckRestartRequest;
use super::HookError;
use super::ServiceContext;
use super::ServiceSink;
use super::checks::Check;
use super::checks::Outcome;
use super::checks::Standing;
use super::checks::Target;
use crate::agent::consul::Registry;
use crate::model::service::CheckResult;
use crate::model::service::Service;
use crate::model::service::ServiceCheck;
use crate::model::service::ServiceRegistration;

use address::resolve;

/// Longest service name, as in DNS.
const NAME_MAX: usize = 63;

/// Checks the names of interpolated services.
///
/// # Errors
/// Not recoverable, in Nomad's words: `validate: service (<name>) failed validation: …`.
pub fn validate(services: &[Service]) -> Result<(), HookError> {
    for service in services {
        let name = service.name.as_str();
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if !plain || name.is_empty() || name.len() > NAME_MAX || name.starts_with('-') || name.ends_with('-')
        {
            return Err(HookError::fatal(format!(
                "validate: service ({name}) failed validation: Service name must be valid per RFC 1123 and can \
                 contain only alphanumeric characters or dashes and must be no longer than 63 characters"
            )));
        }
    }
    Ok(())
}

/// Keeps the services of one group or task registered. Dropping it ends the checks and leaves the registrations.
pub struct ServiceManager {
    shared: Arc<Shared>,
}

struct Shared {
    sink: Arc<dyn ServiceSink>,
    /// Where services of provider `consul` are registered; without it they are registered natively.
    consul: Option<Registry>,
    restarts: mpsc::Sender<CheckRestartRequest>,
    state: Mutex<State>,
}

struct State {
    context: ServiceContext,
    registrations: BTreeMap<String, ServiceRegistration>,
    /// Ids of registrations in Consul.
    in_consul: BTreeSet<String>,
    checks: BTreeMap<String, Running>,
    /// Results of checks that have not been started again yet.
    before: BTreeMap<String, CheckResult>,
    /// Nothing is registered any more, and nothing may be.
    deregistered: bool,
}

struct Running {
    check: Check,
    standing: Standing,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ServiceManager {
    /// Registers interpolated `services` at once and starts their checks. Needs a tokio runtime.
    pub fn start(
        context: ServiceContext,
        services: Vec<Service>,
        sink: Arc<dyn ServiceSink>,
        restarts: mpsc::Sender<CheckRestartRequest>,
    ) -> ServiceManager {
        Self::resume(context, services, sink, restarts, BTreeMap::new(), None)
    }

    /// As [`ServiceManager::start`] for services that are registered already, after a restart of the agent: checks
    /// stand as `before` says, by check id, until they have been asked again. So nothing is written meanwhile.
    /// Services of provider `consul` go to `consul`, if there is one.
    pub fn resume(
        context: ServiceContext,
        services: Vec<Service>,
        sink: Arc<dyn ServiceSink>,
        restarts: mpsc::Sender<CheckRestartRequest>,
        before: BTreeMap<String, CheckResult>,
        consul: Option<Registry>,
    ) -> ServiceManager {
        let state = State {
            context: context.clone(),
            registrations: BTreeMap::new(),
            in_consul: BTreeSet::new(),
            checks: BTreeMap::new(),
            before,
            deregistered: false,
        };
        let manager = Self { shared: Arc::new(Shared { sink, consul, restarts, state: Mutex::new(state) }) };
        manager.update(context, services);
        manager
    }

    /// Registers what is new or changed and deletes what went. Checks that stay the same go on as they stand.
    pub fn update(&self, context: ServiceContext, services: Vec<Service>) {
        let mut state = self.shared.state.lock();
        if state.deregistered {
            return;
        }
        state.context = context;
        let (remote, native): (Vec<Service>, Vec<Service>) = services
            .into_iter()
            .partition(|service| self.shared.consul.is_some() && service.provider == "consul");
        let (mut registrations, mut checks) = wanted(&state.context, &native);
        checks.extend(self.update_consul(&mut state, &remote));
        self.adjust_checks(&mut state, checks);
        for running in state.checks.values() {
            if let Some(registration) = registrations.get_mut(&running.check.registration) {
                let result = running.standing.result.clone();
                let before =
                    state.registrations.get(&registration.id).and_then(|old| old.checks.get(&result.id));
                // What was reported stays as it is, times included, unless the status is another.
                let kept = before.filter(|old| old.status == result.status).cloned();
                registration.checks.insert(result.id.clone(), kept.unwrap_or(result));
            }
        }
        let before = std::mem::take(&mut state.registrations);
        for id in before.keys().filter(|id| !registrations.contains_key(*id)) {
            self.shared.sink.delete(id);
        }
        for (id, registration) in &registrations {
            if before.get(id) != Some(registration) {
                self.shared.sink.put(registration.clone());
            }
        }
        state.registrations = registrations;
    }

    /// Tells Consul's registry what is wanted; the checks of those services.
    fn update_consul(&self, state: &mut State, services: &[Service]) -> Vec<Check> {
        let Some(registry) = &self.shared.consul else { return Vec::new() };
        let (registrations, checks) = consul::wanted(&state.context, services);
        let ids: BTreeSet<String> = registrations.iter().map(|one| one.id.clone()).collect();
        for id in state.in_consul.difference(&ids) {
            registry.delete(id);
        }
        for registration in registrations {
            registry.put(registration);
        }
        state.in_consul = ids;
        checks
    }

    fn adjust_checks(&self, state: &mut State, checks: Vec<Check>) {
        let ids: BTreeSet<String> = checks.iter().map(|check| check.id.clone()).collect();
        state.checks.retain(|id, _| ids.contains(id));
        for check in checks {
            if state.checks.get(&check.id).is_some_and(|running| running.check == check) {
                continue;
            }
            let mut standing = Standing::new(&check, Instant::now(), state.context.clock.now());
            if let Some(result) = state.before.remove(&check.id) {
                standing.result = result;
            }
            let (shared, own) = (self.shared.clone(), check.clone());
            let task = match self.shared.consul.clone().filter(|_| check.is_in_consul()) {
                None => tokio::spawn(run(shared, own)),
                Some(registry) if check.is_script() => {
                    tokio::spawn(consul::run_script(shared, registry, own))
                }
                Some(registry) => tokio::spawn(consul::follow(shared, registry, own)),
            };
            state.checks.insert(check.id.clone(), Running { check, standing, task });
        }
    }

    /// The task has been started anew: starts the grace periods of `check_restart` again.
    pub fn task_restarted(&self) {
        let now = Instant::now();
        for running in self.shared.state.lock().checks.values_mut() {
            running.standing.task_restarted(now);
        }
    }

    /// Deletes every registration and ends the checks. Idempotent.
    pub fn deregister(&self) {
        let mut state = self.shared.state.lock();
        state.deregistered = true;
        state.checks.clear();
        for id in std::mem::take(&mut state.registrations).keys() {
            self.shared.sink.delete(id);
        }
        let in_consul = std::mem::take(&mut state.in_consul);
        for (id, registry) in in_consul.iter().flat_map(|id| self.shared.consul.iter().map(move |r| (id, r)))
        {
            registry.delete(id);
        }
    }

    /// How the checks stand together.
    pub fn health(&self) -> CheckHealth {
        let state = self.shared.state.lock();
        let passing = state.checks.values().filter(|running| running.standing.is_passing(&running.check));
        CheckHealth { total: state.checks.len(), passing: passing.count() }
    }

    /// The newest results by check id.
    pub fn results(&self) -> BTreeMap<String, CheckResult> {
        let state = self.shared.state.lock();
        state.checks.iter().map(|(id, running)| (id.clone(), running.standing.result.clone())).collect()
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        // The checks hold on to the shared state, so they must be ended by hand.
        self.shared.state.lock().checks.clear();
    }
}

/// Runs one check until it is aborted: first after half an interval, as Nomad does.
async fn run(shared: Arc<Shared>, check: Check) {
    let mut ticks = tokio::time::interval_at(Instant::now() + check.interval / 2, check.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let exec = shared.state.lock().context.exec.clone();
        let outcome = check.probe.ask(exec.as_ref(), check.timeout).await;
        shared.record(&check.id, outcome);
    }
}

impl Shared {
    fn record(&self, id: &str, outcome: Outcome) {
        let mut state = self.state.lock();
        if state.deregistered {
            return;
        }
        let State { context, registrations, checks, .. } = &mut *state;
        let Some(Running { check, standing, .. }) = checks.get_mut(id) else { return };
        if standing.record(check, outcome, context.clock.now())
            && let Some(registration) = registrations.get_mut(&check.registration)
        {
            registration.checks.insert(id.to_owned(), standing.result.clone());
            // Under the lock, so that writes keep the order of the results.
            self.sink.put(registration.clone());
        }
        if let Some(request) = standing.wants_restart(check, Instant::now()) {
            // A full queue is tried again at the next run.
            if self.restarts.try_send(request).is_ok() {
                standing.restart_asked();
            }
        }
    }
}

/// The registrations and checks that `services` ask for.
fn wanted(
    context: &ServiceContext,
    services: &[Service],
) -> (BTreeMap<String, ServiceRegistration>, Vec<Check>) {
    let mut registrations = BTreeMap::new();
    let mut checks: Vec<Check> = Vec::new();
    for service in services {
        let registration = match registration(context, service) {
            Ok(registration) => registration,
            Err(reason) => {
                tracing::warn!(service = service.name, alloc = %context.alloc, reason, "service not registered");
                continue;
            }
        };
        for check in &service.checks {
            let target = target(context, service, check);
            let mut check = Check::new(context, service, check, &registration.id, target);
            // Equal checks of one service are told apart by their place.
            while checks.iter().any(|other| other.id == check.id) {
                check.id.push('x');
            }
            checks.push(check);
        }
        registrations.insert(registration.id.clone(), registration);
    }
    (registrations, checks)
}

fn registration(context: &ServiceContext, service: &Service) -> Result<ServiceRegistration, String> {
    let (address, port) = resolve(context, &service.address_mode, &service.address, &service.port_label)?;
    let owner = context.task.clone().unwrap_or_else(|| format!("group-{}", context.group));
    let use_canary_tags = context.canary && !service.canary_tags.is_empty();
    let tags = if use_canary_tags { &service.canary_tags } else { &service.tags };
    Ok(ServiceRegistration {
        id: format!("_nomad-task-{}-{owner}-{}-{}", context.alloc, service.name, service.port_label),
        service_name: service.name.clone(),
        namespace: context.namespace.clone(),
        node_id: context.node_id,
        datacenter: context.datacenter.clone(),
        job_id: context.job_id.clone(),
        alloc_id: context.alloc,
        tags: tags.clone(),
        address,
        port,
        checks: BTreeMap::new(),
    })
}

/// Where a check asks: at the service's port unless it has its own, by default at the host's address.
fn target(context: &ServiceContext, service: &Service, check: &ServiceCheck) -> Result<Target, String> {
    let label = if check.port_label.is_empty() { &service.port_label } else { &check.port_label };
    let mode = if check.address_mode.is_empty() { "host" } else { check.address_mode.as_str() };
    let (address, port) = resolve(context, mode, "", label)?;
    let address = if address.is_empty() { context.node_ip.clone() } else { address };
    Ok(Target { address, port })
}

#[cfg(test)]
mod tests;
