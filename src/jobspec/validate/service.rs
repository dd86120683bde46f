//! Services and their checks.

use std::collections::BTreeSet;

use crate::model::group::TaskGroup;
use crate::model::job::Job;
use crate::model::service::Service;
use crate::model::service::ServiceCheck;
use crate::model::task::Task;
use crate::model::time::Span;

use super::nest;

const MIN_CHECK_SPAN: Span = Span::from_secs(1);
const MAX_NAME_CHARS: usize = 63;
const MAX_NOTES_CHARS: usize = 255;

/// Exposing checks needs a network that the proxy can reach.
pub(super) fn expose(job: &Job, errors: &mut Vec<String>) {
    for group in &job.task_groups {
        let exposing = group.services.iter().flat_map(|service| &service.checks).any(|check| check.expose);
        let bridged = group.networks.first().is_some_and(|network| network.mode == "bridge");
        let consul = group.services.iter().any(|service| service.provider == "consul");
        if exposing && consul && !bridged {
            let name = &group.name;
            errors.push(format!("group {name:?} must use bridge network for exposing service check(s)"));
        }
    }
}

/// Problems of a group's own services.
pub(super) fn group_errors(group: &TaskGroup) -> Vec<String> {
    let mut out = Vec::new();
    for (index, service) in group.services.iter().enumerate() {
        let mut own = errors(service);
        if service.address_mode == "driver" {
            let name = &service.name;
            own.push(format!(
                "service {name:?} cannot use address_mode=\"driver\", only services defined in a \"task\" block can use \
                 this mode"
            ));
        }
        nest(&mut out, &format!("Service[{index}] {} validation failed: ", service.name), &own);
        for check in &service.checks {
            let task = if check.task_name.is_empty() { &service.task_name } else { &check.task_name };
            let (check, group_name, name) = (&check.name, &group.name, &service.name);
            if !task.is_empty() && group.task(task).is_none() {
                out.push(format!("Check {check} invalid: refers to non-existent task {task}"));
            } else if task.is_empty() && is_script(service, check) {
                out.push(format!(
                    "Service [{group_name}]->{name} or Check {check} must specify task parameter"
                ));
            }
        }
    }
    let providers: BTreeSet<&str> = all(group).map(|(_, service)| service.provider.as_str()).collect();
    if providers.len() > 1 {
        out.push(
            "Multiple service providers used: task group services must use the same provider".to_owned(),
        );
    }
    out
}

fn is_script(service: &Service, name: &str) -> bool {
    service.checks.iter().any(|check| check.name == name && check.kind == "script")
}

fn all(group: &TaskGroup) -> impl Iterator<Item = (&str, &Service)> {
    let own = group.services.iter().map(|service| ("group", service));
    own.chain(
        group.tasks.iter().flat_map(|task| task.services.iter().map(|service| (task.name.as_str(), service))),
    )
}

/// Services that cannot be told apart.
pub(super) fn uniqueness(group: &TaskGroup) -> Option<String> {
    let mut seen = BTreeSet::new();
    let mut twice = Vec::new();
    for (owner, service) in all(group) {
        if !seen.insert((owner, &service.name, &service.port_label)) {
            twice.push(format!("{owner}->{}:{}", service.name, service.port_label));
        }
    }
    (!twice.is_empty()).then(|| format!("Services are not unique: [{}]", twice.join(" ")))
}

/// Problems of a task's services.
pub(super) fn task_errors(group: &TaskGroup, task: &Task) -> Vec<String> {
    let mut out = Vec::new();
    let networks =
        group.networks.iter().chain(task.resources.iter().flat_map(|resources| &resources.networks));
    let labels: BTreeSet<&str> =
        networks.flat_map(|network| network.ports()).map(|port| port.label.as_str()).collect();
    let mut seen = BTreeSet::new();
    for (index, service) in task.services.iter().enumerate() {
        let name = &service.name;
        let mut own = errors(service);
        if service.connect.is_some() {
            own.push(format!(
                "service {name:?} cannot have \"connect\" block, only services defined in a \"group\" block can"
            ));
        }
        if service.address_mode == "alloc" {
            own.push(format!(
                "service {name:?} cannot use address_mode=\"alloc\", only services defined in a \"group\" block can use \
                 this mode"
            ));
        }
        nest(&mut out, &format!("service[{index}] {name:?} validation failed: "), &own);
        if !service.task_name.is_empty() && service.task_name != task.name {
            let other = &service.task_name;
            out.push(format!(
                "Service {name} is invalid: may only specify task the service belongs to, got {other:?}"
            ));
        }
        if !seen.insert((name, &service.port_label)) {
            out.push(format!("service {name:?} is duplicate"));
        }
        let mut checks = BTreeSet::new();
        for check in &service.checks {
            if !checks.insert(&check.name) {
                out.push(format!("check {:?} is duplicate", check.name));
            }
        }
        let label = service.port_label.as_str();
        let is_number = label.parse::<u16>().is_ok();
        if !label.is_empty() && !is_number && !labels.contains(label) {
            out.push(format!("port label {label:?} referenced by services {name} does not exist"));
        }
        for check in &service.checks {
            let label = check.port_label.as_str();
            if !label.is_empty() && label.parse::<u16>().is_err() && !labels.contains(label) {
                out.push(format!("port label {label:?} referenced by check {} does not exist", check.name));
            }
        }
    }
    out
}

/// Problems of a service, wherever it stands.
fn errors(service: &Service) -> Vec<String> {
    let mut out = Vec::new();
    let name = &service.name;
    if !is_valid_name(&without_references(name)) {
        out.push(format!(
            "Service name must be valid per RFC 1123 and can contain only alphanumeric characters or dashes and must be \
             no longer than 63 characters: {name:?}"
        ));
    }
    match service.address_mode.as_str() {
        "" | "auto" => {}
        mode @ ("host" | "driver" | "alloc" | "alloc_ipv6") => {
            if !service.address.is_empty() {
                out.push(format!("Service address_mode must be \"auto\" if address is set; not {mode:?}"));
            }
        }
        mode => {
            out.push(format!("Service address_mode must be \"auto\", \"host\", or \"driver\"; not {mode:?}"))
        }
    }
    if !matches!(service.on_update.as_str(), "" | "require_healthy" | "ignore_warnings" | "ignore") {
        out.push(format!(
            "Service on_update must be \"require_healthy\", \"ignore_warnings\", or \"ignore\"; not {:?}",
            service.on_update
        ));
    }
    match service.provider.as_str() {
        "consul" => {
            for check in &service.checks {
                let why = consul_check(service, check);
                out.extend(why.map(|why| format!("Check {} invalid: {why}", check.name)));
            }
        }
        "nomad" => {
            if service.connect.is_some() {
                out.push("Service with provider nomad cannot include Connect blocks".to_owned());
            }
            out.extend(service.checks.iter().filter_map(|check| native_check(service, check)));
        }
        other => out.push(format!("Service provider must be \"consul\", or \"nomad\"; not {other:?}")),
    }
    if let Some(identity) = &service.identity
        && identity.audience.iter().all(String::is_empty)
    {
        out.push("Service identity must provide at least one target aud value".to_owned());
    }
    out
}

/// The name as it may look when every `${…}` stands for nothing.
fn without_references(name: &str) -> String {
    let mut out = String::new();
    let mut rest = name;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let Some(end) = rest[start..].find('}') else { break };
        rest = &rest[start + end + 1..];
        if rest.is_empty() && out.is_empty() {
            // Only references: anything may come of it.
            return "x".to_owned();
        }
    }
    out.push_str(rest);
    if out.len() < name.len() { out.trim_matches('-').to_owned() } else { out }
}

fn is_valid_name(name: &str) -> bool {
    let inner = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    !name.is_empty()
        && name.len() <= MAX_NAME_CHARS
        && inner
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// The first problem that checks of both providers share.
fn shared_check(service: &Service, check: &ServiceCheck) -> Option<String> {
    for (what, span) in [("interval", check.interval), ("timeout", check.timeout)] {
        if span == Span::ZERO {
            let field = if what == "interval" { "Interval" } else { "Timeout" };
            return Some(format!(
                "missing required value {what}. {field} cannot be less than {MIN_CHECK_SPAN}"
            ));
        }
        if span < MIN_CHECK_SPAN {
            return Some(format!("{what} ({span}) cannot be lower than {MIN_CHECK_SPAN}"));
        }
    }
    if !matches!(check.initial_status.as_str(), "" | "passing" | "warning" | "critical") {
        return Some(format!(
            "invalid initial check state ({}), must be one of \"passing\", \"warning\", \"critical\" or empty",
            check.initial_status
        ));
    }
    if check.kind == "http" && check.path.is_empty() {
        return Some("http type must have http path".to_owned());
    }
    if check.kind == "http" && (check.path.contains("://") || !check.path.starts_with('/')) {
        return Some("http type must have relative http path".to_owned());
    }
    if check.address_mode == "auto" {
        return Some("invalid address_mode \"auto\" - auto only valid for services".to_owned());
    }
    if !matches!(check.address_mode.as_str(), "" | "host" | "driver" | "alloc") {
        return Some(format!("invalid address_mode {:?}", check.address_mode));
    }
    if let Some(restart) = &check.check_restart {
        if check.on_update == "ignore" {
            return Some("on_update value \"ignore\" is not compatible with check_restart".to_owned());
        }
        if restart.limit < 0 {
            return Some(format!("limit must be greater than or equal to 0 but found {}", restart.limit));
        }
        if restart.grace < Span::ZERO {
            let grace = restart.grace.0;
            return Some(format!("grace period must be greater than or equal to 0 but found {grace}"));
        }
    }
    if check.kind != "script" && check.port_label.is_empty() && service.port_label.is_empty() {
        return Some(format!(
            "check requires a port but neither check nor service {:?} have a port",
            service.name
        ));
    }
    None
}

fn consul_check(service: &Service, check: &ServiceCheck) -> Option<String> {
    match check.kind.as_str() {
        "grpc" | "tcp" | "http" => {}
        "script" if check.command.is_empty() => {
            return Some("script type must have a valid script path".to_owned());
        }
        "script" => {}
        other => {
            return Some(format!("invalid check type ({other:?}), must be one of grpc, tcp, http or script"));
        }
    }
    if check.notes.chars().count() > MAX_NOTES_CHARS {
        return Some(format!("notes must not be longer than {MAX_NOTES_CHARS} characters"));
    }
    shared_check(service, check)
}

/// Checks of natively registered services: the text comes without the check's name.
fn native_check(service: &Service, check: &ServiceCheck) -> Option<String> {
    if !matches!(check.kind.as_str(), "tcp" | "http") {
        return Some(format!("invalid check type ({:?}), must be one of tcp, http", check.kind));
    }
    if check.expose {
        return Some("expose may only be set for Consul service checks".to_owned());
    }
    if check.on_update == "ignore_warnings" {
        return Some("on_update may only be set to ignore_warnings for Consul service checks".to_owned());
    }
    let numbers = [
        ("success_before_passing", check.success_before_passing),
        ("failures_before_critical", check.failures_before_critical),
        ("failures_before_warning", check.failures_before_warning),
    ];
    if let Some((name, _)) = numbers.into_iter().find(|(_, value)| *value != 0) {
        return Some(format!("{name} may only be set for Consul service checks"));
    }
    if !check.tls_server_name.is_empty() {
        return Some("tls_server_name may only be set for Consul service checks".to_owned());
    }
    if check.address_mode == "driver" {
        return Some("address_mode = driver may only be set for Consul service checks".to_owned());
    }
    let methods = ["", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];
    if check.kind == "http" && !methods.contains(&check.method.to_uppercase().as_str()) {
        return Some(format!("method type {:?} not supported in Nomad http check", check.method));
    }
    shared_check(service, check)
}
