//! Brings a Consul agent to what is wanted: registers what is missing or different, removes what is ours and not
//! wanted any more.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;
use serde_json::Value;
use serde_json::json;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Client;
use super::ConsulError;

/// Everything is compared this often although nothing has changed here.
const COMPARE_EVERY: Duration = Duration::from_secs(30);
/// Checks are asked after this often while there are any.
const CHECKS_EVERY: Duration = Duration::from_secs(1);
/// After a failure, growing.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// After the start, services that are not known yet may belong to allocations that are still being taken up.
const PROBATION: Duration = Duration::from_secs(60);
/// Beginning of all ids of services of allocations.
const PREFIX: &str = "_nomad-task-";
/// Who looks after a registration: Nomad's mark, and ours with the name of the agent.
const SOURCE: &str = "external-source";
const OWNER: &str = "herder-agent";

/// A service as it is to be in Consul.
#[derive(Clone, Debug, PartialEq)]
pub struct Registration {
    pub id: String,
    /// The body of Consul's `service/register`, with its checks.
    pub body: Value,
}

impl Registration {
    fn check_ids(&self) -> Vec<&str> {
        let checks = self.body.get("Checks").and_then(Value::as_array).into_iter().flatten();
        checks.filter_map(|check| check.get("CheckID")?.as_str()).collect()
    }
}

/// Status (`passing`, `warning`, `critical`) and output of checks, by id.
pub type CheckStates = BTreeMap<String, (String, String)>;

/// What is wanted in Consul. Clones share it.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    owner: String,
    wanted: Mutex<BTreeMap<String, Wanted>>,
    /// Ids that were wanted by this process and are not any more, until Consul has let go of them.
    ended: Mutex<BTreeSet<String>>,
    changed: Notify,
    states: watch::Sender<CheckStates>,
}

struct Wanted {
    registration: Registration,
    /// Not yet registered in this form.
    fresh: bool,
}

impl Registry {
    /// Nothing is sent before [`Registry::run`]. `owner` names this agent.
    pub fn new(client: Client, owner: String) -> Self {
        let shared = Shared {
            client,
            owner,
            wanted: Mutex::default(),
            ended: Mutex::default(),
            changed: Notify::new(),
            states: watch::Sender::new(CheckStates::new()),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Registers, or changes a registration. The same again is nothing.
    pub fn put(&self, mut registration: Registration) {
        if let Some(body) = registration.body.as_object_mut() {
            let meta = body.entry("Meta").or_insert_with(|| json!({}));
            meta[SOURCE] = "nomad".into();
            meta[OWNER] = self.shared.owner.as_str().into();
        }
        let mut wanted = self.shared.wanted.lock();
        if wanted.get(&registration.id).is_some_and(|known| known.registration == registration) {
            return;
        }
        wanted.insert(registration.id.clone(), Wanted { registration, fresh: true });
        self.shared.changed.notify_one();
    }

    /// Removes a registration.
    pub fn delete(&self, id: &str) {
        if self.shared.wanted.lock().remove(id).is_some() {
            self.shared.ended.lock().insert(id.to_owned());
            self.shared.changed.notify_one();
        }
    }

    /// How checks stand, as far as Consul has said.
    pub fn states(&self) -> watch::Receiver<CheckStates> {
        self.shared.states.subscribe()
    }

    /// Tells Consul how a check went that it does not run itself.
    ///
    /// # Errors
    /// Consul does not answer, or does not know the check yet.
    pub async fn report(&self, check: &str, status: &str, output: &str) -> Result<(), ConsulError> {
        let path = format!("/v1/agent/check/update/{}", escaped(check));
        self.shared.client.put(&path, Some(&json!({"Status": status, "Output": output}))).await
    }

    /// Works until dropped.
    pub async fn run(self) {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut compared = None;
        loop {
            let due = compared.is_none_or(|at: Instant| at.elapsed() >= COMPARE_EVERY);
            let outcome = match self.must_send() || due {
                true => {
                    self.compare(began.elapsed() >= PROBATION).await.map(|()| compared = Some(Instant::now()))
                }
                false => self.look_at_checks().await.map(|whole| compared = compared.filter(|_| whole)),
            };
            let wait = match outcome {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    self.next_look(compared)
                }
                Err(error) => {
                    tracing::warn!(%error, "services in Consul are not up to date, trying again");
                    compared = None;
                    let wait = pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    wait
                }
            };
            // A change ends the waiting, and also what is left of a pause after a failure.
            let _ = tokio::time::timeout(wait, self.shared.changed.notified()).await;
        }
    }

    fn must_send(&self) -> bool {
        !self.shared.ended.lock().is_empty() || self.shared.wanted.lock().values().any(|wanted| wanted.fresh)
    }

    fn next_look(&self, compared: Option<Instant>) -> Duration {
        if compared.is_none() {
            return Duration::ZERO;
        }
        let checks = self.shared.wanted.lock().values().any(|one| !one.registration.check_ids().is_empty());
        let left = compared.map_or(COMPARE_EVERY, |at| COMPARE_EVERY.saturating_sub(at.elapsed()));
        if checks { left.min(CHECKS_EVERY) } else { left }
    }

    /// One comparison of everything. `settled`: what is not wanted by now is not wanted.
    async fn compare(&self, settled: bool) -> Result<(), ConsulError> {
        let ended = self.shared.ended.lock().clone();
        let services = self.shared.client.get("/v1/agent/services").await?;
        let checks = self.shared.client.get("/v1/agent/checks").await?;
        let missing: Vec<Registration> = {
            let wanted = self.shared.wanted.lock();
            let stale = wanted.values().filter(|one| {
                let id = &one.registration.id;
                let lacks = one.registration.check_ids().into_iter().any(|check| checks.get(check).is_none());
                one.fresh || lacks || !is_same(&one.registration.body, services.get(id))
            });
            stale.map(|one| one.registration.clone()).collect()
        };
        for registration in missing {
            self.shared
                .client
                .put("/v1/agent/service/register?replace-existing-checks=true", Some(&registration.body))
                .await?;
            let mut wanted = self.shared.wanted.lock();
            if let Some(one) = wanted.get_mut(&registration.id)
                && one.registration == registration
            {
                one.fresh = false;
            }
        }
        for id in self.unwanted(&services, settled) {
            let path = format!("/v1/agent/service/deregister/{}", escaped(&id));
            self.shared.client.put(&path, None).await?;
        }
        self.shared.ended.lock().retain(|id| !ended.contains(id));
        self.take_states(&checks);
        Ok(())
    }

    /// Registrations of this agent that it does not want. Before everything is settled only those are sure of which
    /// this very process knows that they have ended.
    fn unwanted(&self, services: &Value, settled: bool) -> Vec<String> {
        let wanted = self.shared.wanted.lock();
        let known: BTreeSet<&str> = wanted.keys().map(String::as_str).collect();
        let registered = services.as_object().into_iter().flatten();
        let ours = registered.filter(|(id, service)| {
            let meta = |name: &str| service.get("Meta")?.get(name)?.as_str();
            id.starts_with(PREFIX) && meta(OWNER) == Some(self.shared.owner.as_str())
        });
        let ended = self.shared.ended.lock().clone();
        let gone = ours.filter(|(id, _)| !known.contains(id.as_str()));
        gone.filter(|(id, _)| settled || ended.contains(*id)).map(|(id, _)| id.clone()).collect()
    }

    /// False if a check is missing: then Consul has lost more than that.
    async fn look_at_checks(&self) -> Result<bool, ConsulError> {
        let ids: Vec<String> = {
            let wanted = self.shared.wanted.lock();
            let all = wanted.values().flat_map(|one| one.registration.check_ids());
            all.map(str::to_owned).collect()
        };
        if ids.is_empty() {
            return Ok(true);
        }
        let checks = self.shared.client.get("/v1/agent/checks").await?;
        self.take_states(&checks);
        Ok(ids.iter().all(|id| checks.get(id).is_some()))
    }

    fn take_states(&self, checks: &Value) {
        let field = |check: &Value, name: &str| {
            check.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let new: CheckStates = checks
            .as_object()
            .into_iter()
            .flatten()
            .map(|(id, check)| (id.clone(), (field(check, "Status"), field(check, "Output"))))
            .collect();
        self.shared.states.send_if_modified(|states| {
            let other = *states != new;
            *states = new;
            other
        });
    }
}

fn escaped(id: &str) -> String {
    utf8_percent_encode(id, NON_ALPHANUMERIC).to_string()
}

/// Whether Consul has the service as it is wanted. Checks are compared elsewhere, and are sent when they change.
fn is_same(body: &Value, found: Option<&Value>) -> bool {
    let Some(found) = found else { return false };
    let field = |value: &Value, name: &str| value.get(name).cloned().unwrap_or_default();
    let text = |name: &str| {
        let of = |value: &Value| field(value, name).as_str().unwrap_or_default().to_owned();
        of(body) == of(found)
    };
    let list = |value: &Value| -> Vec<String> {
        let tags = field(value, "Tags");
        tags.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let override_tags = field(body, "EnableTagOverride").as_bool() == Some(true);
    let port = |value: &Value| field(value, "Port").as_i64().unwrap_or(0);
    // Consul calls the name of a service differently in what it tells.
    let name = field(body, "Name") == field(found, "Service");
    name && text("Address")
        && port(body) == port(found)
        && field(body, "Meta") == field(found, "Meta")
        // With this switch, others may change the tags.
        && (override_tags || list(body) == list(found))
}

#[cfg(test)]
mod tests;
