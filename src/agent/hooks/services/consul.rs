//! Services of provider `consul`: the bodies that Consul is given, and how its word about checks becomes ours. Consul
//! runs all checks but scripts, which run in the task; it is told how they went.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;

use super::Shared;
use super::registration;
use super::target;
use crate::agent::consul::Registration;
use crate::agent::consul::Registry;
use crate::agent::hooks::ServiceContext;
use crate::agent::hooks::checks::Check;
use crate::agent::hooks::checks::Outcome;
use crate::agent::hooks::checks::Target;
use crate::model::service::Service;
use crate::model::service::ServiceCheck;

/// A script that is late by this much beyond its interval counts as failed.
const TTL_SLACK: Duration = Duration::from_secs(31);
/// How long a check may stay in doubt before its demand for a restart is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Consul does not know a check before its service has been registered: its first report is sent again.
const REPORT_ATTEMPTS: u32 = 5;

/// The id of a check in Consul.
pub(super) fn check_id(id: &str) -> String {
    format!("_nomad-check-{id}")
}

/// What the services ask of Consul, and their checks.
pub(super) fn wanted(context: &ServiceContext, services: &[Service]) -> (Vec<Registration>, Vec<Check>) {
    let mut registrations = Vec::new();
    let mut all: Vec<Check> = Vec::new();
    for service in services {
        let registered = match registration(context, service) {
            Ok(registered) => registered,
            Err(reason) => {
                tracing::warn!(service = service.name, alloc = %context.alloc, reason, "service not registered");
                continue;
            }
        };
        let mut bodies = Vec::new();
        for check in &service.checks {
            let target = target(context, service, check);
            let mut known = Check::new(context, service, check, &registered.id, target.clone()).in_consul();
            while all.iter().any(|other| other.id == known.id) {
                known.id.push('x');
            }
            match check_body(check, target, &known) {
                Ok(body) => bodies.push(body),
                Err(reason) => {
                    tracing::warn!(check = check.name, alloc = %context.alloc, reason, "check not registered");
                }
            }
            all.push(known);
        }
        let mut body = service_body(context, service);
        body.insert("ID".to_owned(), registered.id.as_str().into());
        body.insert("Tags".to_owned(), json!(registered.tags));
        body.insert("Address".to_owned(), registered.address.as_str().into());
        body.insert("Port".to_owned(), registered.port.into());
        body.insert("Checks".to_owned(), bodies.into());
        if !service.tagged_addresses.is_empty() {
            let tagged = service.tagged_addresses.iter();
            let tagged: Map<String, Value> =
                tagged.map(|(name, text)| (name.clone(), address(text, registered.port))).collect();
            body.insert("TaggedAddresses".to_owned(), tagged.into());
        }
        registrations.push(Registration { id: registered.id, body: body.into() });
    }
    (registrations, all)
}

fn service_body(context: &ServiceContext, service: &Service) -> Map<String, Value> {
    let canary = context.canary && !service.canary_meta.is_empty();
    let mut body = Map::new();
    body.insert("Name".to_owned(), service.name.as_str().into());
    body.insert("Meta".to_owned(), json!(if canary { &service.canary_meta } else { &service.meta }));
    body.insert("EnableTagOverride".to_owned(), service.enable_tag_override.into());
    if let Some(weights) = &service.weights {
        let weights = json!({"Passing": weights.passing.max(1), "Warning": weights.warning.max(1)});
        body.insert("Weights".to_owned(), weights);
    }
    let native = service.connect.as_ref().and_then(|connect| connect.get("Native")?.as_bool());
    if native == Some(true) {
        body.insert("Connect".to_owned(), json!({"Native": true}));
    }
    body
}

/// `host:port`, or an address at the service's own port.
fn address(text: &str, port: i64) -> Value {
    let split = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<i64>().ok()?)));
    match split {
        Some((host, port)) if !host.contains(':') || host.starts_with('[') => {
            json!({"Address": host.trim_matches(['[', ']']), "Port": port})
        }
        _ => json!({"Address": text, "Port": port}),
    }
}

fn check_body(check: &ServiceCheck, target: Result<Target, String>, known: &Check) -> Result<Value, String> {
    let mut body = json!({
        "CheckID": check_id(&known.id),
        "Name": known.name(),
        "Status": if check.initial_status.is_empty() { "critical" } else { check.initial_status.as_str() },
        "SuccessBeforePassing": check.success_before_passing,
        "FailuresBeforeWarning": check.failures_before_warning,
        "FailuresBeforeCritical": check.failures_before_critical,
    });
    if !check.notes.is_empty() {
        body["Notes"] = check.notes.as_str().into();
    }
    let seconds = |span: Duration| format!("{}ms", span.as_millis());
    if check.kind == "script" {
        body["TTL"] = seconds(known.interval + TTL_SLACK).into();
        return Ok(body);
    }
    let at = target?.authority();
    body["Interval"] = seconds(known.interval).into();
    body["Timeout"] = seconds(known.timeout).into();
    body["TLSSkipVerify"] = check.tls_skip_verify.into();
    if !check.tls_server_name.is_empty() {
        body["TLSServerName"] = check.tls_server_name.as_str().into();
    }
    match check.kind.as_str() {
        "tcp" => body["TCP"] = at.into(),
        "grpc" => {
            let service = check.grpc_service.as_str();
            body["GRPC"] = if service.is_empty() { at } else { format!("{at}/{service}") }.into();
            body["GRPCUseTLS"] = check.grpc_use_tls.into();
        }
        "http" => {
            let scheme = if check.protocol.is_empty() { "http" } else { check.protocol.as_str() };
            let separator = if check.path.starts_with('/') { "" } else { "/" };
            body["HTTP"] = format!("{scheme}://{at}{separator}{}", check.path).into();
            body["Method"] = if check.method.is_empty() { "GET" } else { check.method.as_str() }.into();
            body["Header"] = json!(check.header);
            body["Body"] = check.body.as_str().into();
        }
        other => return Err(format!("invalid check type ({other:?})")),
    }
    Ok(body)
}

/// Follows what Consul says about a check until it is aborted. Looks again now and then although nothing changes,
/// because a check that stays bad may demand a restart in time.
pub(super) async fn follow(shared: Arc<Shared>, registry: Registry, check: Check) {
    let id = check_id(&check.id);
    let mut states = registry.states();
    loop {
        let state = states.borrow_and_update().get(&id).cloned();
        if let Some((status, output)) = state {
            let outcome =
                Outcome { passed: status == "passing", warning: status == "warning", code: 0, output };
            shared.record(&check.id, outcome);
        }
        // A closed channel cannot be: the registry is held here.
        let _ = tokio::time::timeout(LOOK_AGAIN, states.changed()).await;
    }
}

/// Runs a script check and tells Consul how it went, until it is aborted.
pub(super) async fn run_script(shared: Arc<Shared>, registry: Registry, check: Check) {
    let mut ticks = tokio::time::interval_at(Instant::now() + check.interval / 2, check.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let exec = shared.state.lock().context.exec.clone();
        let outcome = check.probe.ask(exec.as_ref(), check.timeout).await;
        let status = match &outcome {
            Outcome { passed: true, .. } => "passing",
            Outcome { warning: true, .. } => "warning",
            _ => "critical",
        };
        let output = outcome.output.clone();
        shared.record(&check.id, outcome);
        for attempt in 1..=REPORT_ATTEMPTS {
            match registry.report(&check_id(&check.id), status, &output).await {
                Ok(()) => break,
                Err(error) if attempt == REPORT_ATTEMPTS => {
                    tracing::warn!(check = check.name(), %error, "Consul was not told about a script check");
                }
                Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }
}
