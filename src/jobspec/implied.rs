//! Constraints that follow from what a group uses.

use std::collections::BTreeSet;

use crate::model::constraint::Constraint;
use crate::model::group::TaskGroup;
use crate::model::service::Service;

/// Adds the implied constraints that are not there yet. In a cluster without Consul only a service mesh asks for it.
pub(super) fn add(group: &mut TaskGroup, consul_exists: bool) {
    let needs_consul =
        |service: &Service| service.provider == "consul" && (consul_exists || service.connect.is_some());
    for implied in implied(group, needs_consul) {
        let present = group.constraints.iter().any(|own| match implied.once {
            Once::Identical => *own == implied.constraint,
            Once::Attribute => own.left == implied.constraint.left,
        });
        if !present {
            group.constraints.push(implied.constraint);
        }
    }
    for task in group.tasks.iter_mut().filter(|task| task.services.iter().any(needs_consul)) {
        let consul = consul().constraint;
        if !task.constraints.iter().any(|own| own.left == consul.left) {
            task.constraints.push(consul);
        }
    }
}

fn consul() -> Implied {
    constraint("${attr.consul.version}", "semver", ">= 1.8.0", Once::Attribute)
}

/// True for a service of a mesh that takes over all traffic of its group.
fn is_transparent(service: &Service) -> bool {
    let proxy = service.connect.as_ref().and_then(|connect| connect.pointer("/SidecarService/Proxy"));
    proxy.and_then(|proxy| proxy.get("TransparentProxy")).is_some_and(|transparent| !transparent.is_null())
}

/// When an implied constraint counts as present.
#[derive(Clone, Copy)]
enum Once {
    Identical,
    /// Any constraint on the same attribute: the author knows better.
    Attribute,
}

struct Implied {
    constraint: Constraint,
    once: Once,
}

fn constraint(left: &str, operand: &str, right: &str, once: Once) -> Implied {
    let constraint =
        Constraint { left: left.to_owned(), right: right.to_owned(), operand: operand.to_owned() };
    Implied { constraint, once }
}

fn implied(group: &TaskGroup, needs_consul: impl Fn(&Service) -> bool) -> Vec<Implied> {
    let mut out = Vec::new();
    if group.tasks.iter().any(|task| task.vault.is_some()) {
        out.push(constraint("${attr.vault.version}", "semver", ">= 0.6.1", Once::Attribute));
    }
    let signals = signals(group);
    if !signals.is_empty() {
        let list = signals.into_iter().collect::<Vec<_>>().join(",");
        out.push(constraint("${attr.os.signals}", "set_contains", &list, Once::Identical));
    }
    let services = || group.services.iter().chain(group.tasks.iter().flat_map(|task| &task.services));
    let native = |service: &&Service| service.provider == "nomad";
    if services().any(|service| native(&service)) {
        out.push(constraint("${attr.nomad.service_discovery}", "=", "true", Once::Identical));
    }
    if services().filter(native).any(|service| !service.checks.is_empty()) {
        out.push(constraint("${attr.nomad.version}", "semver", ">= 1.4.0", Once::Identical));
    }
    if group.services.iter().any(needs_consul) {
        out.push(consul());
    }
    if group.networks.iter().any(|network| network.mode == "bridge") {
        for plugin in ["bridge", "firewall", "host-local", "loopback", "portmap"] {
            let attribute = format!("${{attr.plugins.cni.version.{plugin}}}");
            out.push(constraint(&attribute, "semver", ">= 0.4.0", Once::Attribute));
        }
    }
    if group.services.iter().any(is_transparent) {
        out.push(constraint("${attr.plugins.cni.version.consul-cni}", "semver", ">= 1.4.2", Once::Attribute));
        out.push(constraint("${attr.nomad.version}", "semver", ">= 1.8.0-dev", Once::Attribute));
    }
    let numa = |affinity: &str| matches!(affinity, "prefer" | "require");
    let resources = group.tasks.iter().filter_map(|task| task.resources.as_ref());
    if resources.filter_map(|resources| resources.numa.as_ref()).any(|wish| numa(&wish.affinity)) {
        out.push(constraint("${attr.nomad.version}", "semver", ">= 1.6.3-dev", Once::Identical));
        out.push(constraint("${attr.kernel.name}", "=", "linux", Once::Identical));
    }
    if group.tasks.iter().any(|task| task.schedule.is_some()) {
        out.push(constraint("${attr.nomad.version}", "semver", ">= 1.8.0-dev", Once::Attribute));
    }
    let identities = group.tasks.iter().any(|task| !task.identities.is_empty());
    if identities || services().any(|service| service.identity.is_some()) {
        // Once per job suffices; a second pass must not add it again.
        out.push(constraint("${attr.nomad.version}", "semver", ">= 1.7.0-a", Once::Identical));
    }
    out
}

/// Every signal that a node must be able to send, as written.
fn signals(group: &TaskGroup) -> BTreeSet<&str> {
    let mut out = BTreeSet::new();
    for task in &group.tasks {
        out.insert(task.kill_signal.as_str());
        for template in task.templates.iter().filter(|template| template.change_mode == "signal") {
            out.insert(template.change_signal.as_str());
        }
        if let Some(vault) = &task.vault
            && vault.get("ChangeMode").is_some_and(|mode| mode == "signal")
        {
            out.extend(vault.get("ChangeSignal").and_then(serde_json::Value::as_str));
        }
    }
    out.remove("");
    out
}
