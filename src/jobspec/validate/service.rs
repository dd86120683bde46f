//! Services and their checks.

use std::collections::BTreeSet;

use crate::model::group::TaskGroup;
use crate::model::job::Job;
use crate::model::service::Service;
use crate::model::service::ServiceCheck;
use crate::model::task::Task;
use crate::model::time::Span;

use super::problem::Findings;
use super::problem::Pick;

const MIN_CHECK_SPAN: Span = Span::from_secs(1);
const MAX_NAME_CHARS: usize = 63;
const MAX_NOTES_CHARS: usize = 255;

/// Exposing checks needs a network that the proxy can reach.
pub(super) fn expose(job: &Job, errors: &mut Findings) {
    for group in &job.task_groups {
        let exposing = group.services.iter().flat_map(|service| &service.checks).any(|check| check.expose);
        let bridged = group.networks.first().is_some_and(|network| network.mode == "bridge");
        let consul = group.services.iter().any(|service| service.provider == "consul");
        if exposing && consul && !bridged {
            let name = &group.name;
            let mut own = errors.block("group", name);
            own.push(format!("group {name:?} must use bridge network for exposing service check(s)"));
            errors.absorb(own);
        }
    }
}

/// Problems of a group's own services.
pub(super) fn group_errors(group: &TaskGroup, found: &Findings) -> Findings {
    let mut out = found.same();
    for (index, service) in group.services.iter().enumerate() {
        let mut own = found.block("service", index);
        let name = &service.name;
        errors(service, &mut own);
        if service.address_mode == "driver" {
            own.at(
                "address_mode",
                format!(
                    "service {name:?} cannot use address_mode=\"driver\", only services defined in a \"task\" block can \
                     use this mode"
                ),
            );
        }
        out.nest(format!("Service[{index}] {name} validation failed: "), own);
    }
    let providers: BTreeSet<&str> = all(group).map(|(_, service)| service.provider.as_str()).collect();
    if providers.len() > 1 {
        out.push("Multiple service providers used: task group services must use the same provider");
    }
    out
}

/// Checks that run in a task must say in which one, and it must exist.
pub(super) fn check_tasks(group: &TaskGroup, found: &Findings) -> Findings {
    let mut out = found.same();
    for (index, service) in group.services.iter().enumerate() {
        let name = &service.name;
        for (at, check) in service.checks.iter().enumerate() {
            let mut own = found.block("service", index).block("check", at);
            let task = if check.task_name.is_empty() { &service.task_name } else { &check.task_name };
            let (check, group_name) = (&check.name, &group.name);
            if !task.is_empty() && group.task(task).is_none() {
                own.at("task", format!("Check {check} invalid: refers to non-existent task {task}"));
            } else if task.is_empty() && is_script(service, check) {
                own.at(
                    "task",
                    format!("Service [{group_name}]->{name} or Check {check} must specify task parameter"),
                );
            }
            out.absorb(own);
        }
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
pub(super) fn uniqueness(group: &TaskGroup, out: &mut Findings) {
    let mut seen = BTreeSet::new();
    let mut twice = Vec::new();
    let mut place = out.same();
    for (owner, service) in all(group) {
        if !seen.insert((owner, &service.name, &service.port_label)) {
            twice.push(format!("{owner}->{}:{}", service.name, service.port_label));
            let around = if group.task(owner).is_some() { out.block("task", owner) } else { out.same() };
            place = around.block("service", Pick::Again(service.name.clone()));
        }
    }
    if !twice.is_empty() {
        place.push(format!("Services are not unique: [{}]", twice.join(" ")));
        out.absorb(place);
    }
}

/// Problems of a task's services.
pub(super) fn task_errors(group: &TaskGroup, task: &Task, found: &Findings) -> Findings {
    let mut out = found.same();
    let networks =
        group.networks.iter().chain(task.resources.iter().flat_map(|resources| &resources.networks));
    let labels: BTreeSet<&str> =
        networks.flat_map(|network| network.ports()).map(|port| port.label.as_str()).collect();
    let mut seen = BTreeSet::new();
    for (index, service) in task.services.iter().enumerate() {
        let name = &service.name;
        let mut own = found.block("service", index);
        let mut beside = own.same();
        errors(service, &mut own);
        if service.connect.is_some() {
            own.push(format!(
                "service {name:?} cannot have \"connect\" block, only services defined in a \"group\" block can"
            ));
        }
        if service.address_mode == "alloc" {
            own.at(
                "address_mode",
                format!(
                    "service {name:?} cannot use address_mode=\"alloc\", only services defined in a \"group\" block can \
                     use this mode"
                ),
            );
        }
        out.nest(format!("service[{index}] {name:?} validation failed: "), own);
        if !service.task_name.is_empty() && service.task_name != task.name {
            let other = &service.task_name;
            beside.at(
                "task",
                format!(
                    "Service {name} is invalid: may only specify task the service belongs to, got {other:?}"
                ),
            );
        }
        if !seen.insert((name, &service.port_label)) {
            beside.push(format!("service {name:?} is duplicate"));
        }
        let label = service.port_label.as_str();
        let is_number = label.parse::<u16>().is_ok();
        if !label.is_empty() && !is_number && !labels.contains(label) {
            beside.at("port", format!("port label {label:?} referenced by services {name} does not exist"));
        }
        task_checks(service, &labels, &mut beside);
        out.absorb(beside);
    }
    out
}

/// What the checks of a task's service may not say beside the rules for all checks.
fn task_checks(service: &Service, labels: &BTreeSet<&str>, out: &mut Findings) {
    let mut names = BTreeSet::new();
    for (index, check) in service.checks.iter().enumerate() {
        let mut own = out.block("check", index);
        let name = &check.name;
        if !names.insert(name) {
            own.push(format!("check {name:?} is duplicate"));
        }
        let label = check.port_label.as_str();
        match label.parse::<u16>() {
            Ok(number) if check.address_mode != "driver" => own.at(
                "port",
                format!("check {name:?} cannot use a numeric port {number} without setting address_mode=\"driver\""),
            ),
            Ok(_) => {}
            Err(_) if !label.is_empty() && !labels.contains(label) => {
                own.at("port", format!("port label {label:?} referenced by check {name} does not exist"));
            }
            Err(_) => {}
        }
        out.absorb(own);
    }
}

/// Problems of a service, wherever it stands.
fn errors(service: &Service, out: &mut Findings) {
    let name = &service.name;
    if !is_valid_name(&without_references(name)) {
        out.at(
            "name",
            format!(
                "Service name must be valid per RFC 1123 and can contain only alphanumeric characters or dashes and must \
                 be no longer than 63 characters: {name:?}"
            ),
        );
    }
    match service.address_mode.as_str() {
        "" | "auto" => {}
        mode @ ("host" | "driver" | "alloc" | "alloc_ipv6") => {
            if !service.address.is_empty() {
                out.at(
                    "address",
                    format!("Service address_mode must be \"auto\" if address is set; not {mode:?}"),
                );
            }
        }
        mode => out.at(
            "address_mode",
            format!("Service address_mode must be \"auto\", \"host\", or \"driver\"; not {mode:?}"),
        ),
    }
    if !matches!(service.on_update.as_str(), "" | "require_healthy" | "ignore_warnings" | "ignore") {
        out.at(
            "on_update",
            format!(
                "Service on_update must be \"require_healthy\", \"ignore_warnings\", or \"ignore\"; not {:?}",
                service.on_update
            ),
        );
    }
    match service.provider.as_str() {
        "consul" => {
            for (index, check) in service.checks.iter().enumerate() {
                let mut own = out.block("check", index);
                if let Err((attribute, why)) = consul_check(service, check) {
                    own.at(attribute, format!("Check {} invalid: {why}", check.name));
                }
                out.absorb(own);
            }
        }
        "nomad" => {
            if service.connect.is_some() {
                out.push("Service with provider nomad cannot include Connect blocks");
            }
            for (index, check) in service.checks.iter().enumerate() {
                let mut own = out.block("check", index);
                if let Err((attribute, why)) = native_check(service, check) {
                    own.at(attribute, why);
                }
                out.absorb(own);
            }
        }
        other => {
            out.at("provider", format!("Service provider must be \"consul\", or \"nomad\"; not {other:?}"))
        }
    }
    if let Some(identity) = &service.identity
        && identity.audience.iter().all(String::is_empty)
    {
        let mut own = out.block("identity", 0);
        own.at("aud", "Service identity must provide at least one target aud value");
        out.absorb(own);
    }
}

/// Things of services that work but deserve attention.
pub(super) fn warnings(services: &[Service], found: &Findings) -> Findings {
    let mut out = found.same();
    for (index, service) in services.iter().enumerate() {
        let Some(identity) = &service.identity else { continue };
        let mut own = found.block("service", index).block("identity", 0);
        super::task::identity_warnings(identity, &mut own);
        out.absorb(own.prefixed(&format!("Service {:?}: ", service.name)));
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

/// The attribute that is wrong, and why.
type Misfit = (&'static str, String);

/// The first problem that checks of both providers share.
fn shared_check(service: &Service, check: &ServiceCheck) -> Result<(), Misfit> {
    for (what, span) in [("interval", check.interval), ("timeout", check.timeout)] {
        if span == Span::ZERO {
            let field = if what == "interval" { "Interval" } else { "Timeout" };
            let text = format!("missing required value {what}. {field} cannot be less than {MIN_CHECK_SPAN}");
            return Err((what, text));
        }
        if span < MIN_CHECK_SPAN {
            return Err((what, format!("{what} ({span}) cannot be lower than {MIN_CHECK_SPAN}")));
        }
    }
    if !matches!(check.initial_status.as_str(), "" | "passing" | "warning" | "critical") {
        return Err((
            "initial_status",
            format!(
                "invalid initial check state ({}), must be one of \"passing\", \"warning\", \"critical\" or empty",
                check.initial_status
            ),
        ));
    }
    if check.kind == "http" && check.path.is_empty() {
        return Err(("path", "http type must have http path".to_owned()));
    }
    if check.kind == "http" && (check.path.contains("://") || !check.path.starts_with('/')) {
        return Err(("path", "http type must have relative http path".to_owned()));
    }
    if check.address_mode == "auto" {
        return Err((
            "address_mode",
            "invalid address_mode \"auto\" - auto only valid for services".to_owned(),
        ));
    }
    if !matches!(check.address_mode.as_str(), "" | "host" | "driver" | "alloc") {
        return Err(("address_mode", format!("invalid address_mode {:?}", check.address_mode)));
    }
    if let Some(restart) = &check.check_restart {
        if check.on_update == "ignore" {
            return Err((
                "on_update",
                "on_update value \"ignore\" is not compatible with check_restart".to_owned(),
            ));
        }
        if restart.limit < 0 {
            return Err((
                "check_restart",
                format!("limit must be greater than or equal to 0 but found {}", restart.limit),
            ));
        }
        if restart.grace < Span::ZERO {
            let grace = restart.grace.0;
            return Err((
                "check_restart",
                format!("grace period must be greater than or equal to 0 but found {grace}"),
            ));
        }
    }
    if check.kind != "script" && check.port_label.is_empty() && service.port_label.is_empty() {
        return Err((
            "port",
            format!("check requires a port but neither check nor service {:?} have a port", service.name),
        ));
    }
    Ok(())
}

fn consul_check(service: &Service, check: &ServiceCheck) -> Result<(), Misfit> {
    match check.kind.as_str() {
        "grpc" | "tcp" | "http" => {}
        "script" if check.command.is_empty() => {
            return Err(("command", "script type must have a valid script path".to_owned()));
        }
        "script" => {}
        other => {
            return Err((
                "type",
                format!("invalid check type ({other:?}), must be one of grpc, tcp, http or script"),
            ));
        }
    }
    if check.notes.chars().count() > MAX_NOTES_CHARS {
        return Err(("notes", format!("notes must not be longer than {MAX_NOTES_CHARS} characters")));
    }
    shared_check(service, check)
}

/// Checks of natively registered services: the text comes without the check's name.
fn native_check(service: &Service, check: &ServiceCheck) -> Result<(), Misfit> {
    if !matches!(check.kind.as_str(), "tcp" | "http") {
        return Err(("type", format!("invalid check type ({:?}), must be one of tcp, http", check.kind)));
    }
    if check.expose {
        return Err(("expose", "expose may only be set for Consul service checks".to_owned()));
    }
    if check.on_update == "ignore_warnings" {
        return Err((
            "on_update",
            "on_update may only be set to ignore_warnings for Consul service checks".to_owned(),
        ));
    }
    let numbers = [
        ("success_before_passing", check.success_before_passing),
        ("failures_before_critical", check.failures_before_critical),
        ("failures_before_warning", check.failures_before_warning),
    ];
    if let Some((name, _)) = numbers.into_iter().find(|(_, value)| *value != 0) {
        return Err((name, format!("{name} may only be set for Consul service checks")));
    }
    if !check.tls_server_name.is_empty() {
        return Err((
            "tls_server_name",
            "tls_server_name may only be set for Consul service checks".to_owned(),
        ));
    }
    if check.address_mode == "driver" {
        return Err((
            "address_mode",
            "address_mode = driver may only be set for Consul service checks".to_owned(),
        ));
    }
    let methods = ["", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];
    if check.kind == "http" && !methods.contains(&check.method.to_uppercase().as_str()) {
        return Err(("method", format!("method type {:?} not supported in Nomad http check", check.method)));
    }
    shared_check(service, check)
}
