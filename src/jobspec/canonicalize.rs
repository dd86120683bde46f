//! Brings a job into the one form in which it is stored and compared.

use crate::model::constraint::Constraint;
use crate::model::group::EphemeralDisk;
use crate::model::group::TaskGroup;
use crate::model::group::UpdateStrategy;
use crate::model::id::DEFAULT_NAMESPACE;
use crate::model::interpolate::interpolate;
use crate::model::job::Job;
use crate::model::job::JobType;
use crate::model::network::Network;
use crate::model::resources::Resources;
use crate::model::service::Service;
use crate::model::task::LogConfig;
use crate::model::task::Task;
use crate::model::task::WorkloadIdentity;
use crate::model::time::Span;

use super::defaults;
use super::implied;

/// What the cluster fills in where a job says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    pub region: String,
    pub namespace: String,
    pub node_pool: String,
    pub priority: i64,
    /// Whether nodes of this cluster talk to Consul. Without it, services register with Herder itself.
    pub consul: bool,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            region: "global".to_owned(),
            namespace: DEFAULT_NAMESPACE.to_owned(),
            node_pool: "default".to_owned(),
            priority: 50,
            consul: false,
        }
    }
}

const DEFAULT_AUDIENCE: &str = "nomadproject.io";

/// Fills in everything that follows from what the job says. Doing it twice changes nothing. Returns warnings.
pub fn canonicalize(job: &mut Job, cluster: &Defaults) -> Vec<String> {
    let mut warnings = Vec::new();
    let kind = job.job_type();
    let update = job.update.clone().filter(|update| !update.health_check.is_empty());
    canonicalize_job(job, kind, cluster);
    let (job_id, namespace) = (job.id.clone(), job.namespace.clone());
    for group in &mut job.task_groups {
        if group.update.is_none() {
            group.update.clone_from(&update);
        }
        canonicalize_group(group, kind);
        let group_name = group.name.clone();
        for service in &mut group.services {
            canonicalize_service(service, &Place::of(&job_id, &group_name, None), &namespace);
        }
        for task in &mut group.tasks {
            let task_name = task.name.clone();
            for service in &mut task.services {
                if service.task_name.is_empty() {
                    service.task_name.clone_from(&task_name);
                }
                canonicalize_service(service, &Place::of(&job_id, &group_name, Some(&task_name)), &namespace);
            }
        }
        if !cluster.consul {
            native_services(group, &mut warnings);
        }
        mesh(group);
        implied::add(group, cluster.consul);
    }
    warnings
}

fn canonicalize_job(job: &mut Job, kind: JobType, cluster: &Defaults) {
    if job.region.is_empty() || job.region == "global" {
        job.region.clone_from(&cluster.region);
    }
    or(&mut job.namespace, &cluster.namespace);
    or(&mut job.kind, "service");
    or(&mut job.node_pool, &cluster.node_pool);
    let id = job.id.clone();
    or(&mut job.name, &id);
    if job.priority == 0 {
        job.priority = cluster.priority;
    }
    if job.datacenters.is_empty() {
        job.datacenters.push("*".to_owned());
    }
    // Only these two are the job's; the groups hold the complete policy.
    let given = job.update.take();
    job.update = Some(match given {
        Some(update) => UpdateStrategy {
            stagger: update.stagger,
            max_parallel: update.max_parallel,
            ..UpdateStrategy::default()
        },
        None if kind == JobType::Service => UpdateStrategy {
            stagger: defaults::full_update().stagger,
            max_parallel: defaults::full_update().max_parallel,
            ..UpdateStrategy::default()
        },
        None => UpdateStrategy::default(),
    });
    if let Some(periodic) = &mut job.periodic {
        periodic.enabled.get_or_insert(true);
        or(&mut periodic.spec_type, "cron");
        or(&mut periodic.time_zone, "UTC");
    }
    if let Some(parameterized) = &mut job.parameterized {
        or(&mut parameterized.payload, "optional");
    }
}

fn canonicalize_group(group: &mut TaskGroup, kind: JobType) {
    group.count.get_or_insert(1);
    let restart = group.restart_policy.get_or_insert_with(|| defaults::restart(kind)).clone();
    if group.reschedule_policy.is_none() {
        group.reschedule_policy = defaults::reschedule(kind);
    }
    if group.update.is_none() {
        group.update = defaults::update(kind);
    }
    if group.migrate.is_none() {
        group.migrate = defaults::migrate(kind);
    }
    group.ephemeral_disk.get_or_insert_with(EphemeralDisk::default);
    if group.consul.is_none() {
        group.consul = Some(serde_json::json!({"Namespace": "", "Cluster": "default", "Partition": ""}));
    }
    if let Some(disconnect) = &mut group.disconnect {
        disconnect.replace.get_or_insert(true);
        or(&mut disconnect.reconcile, "best_score");
    }
    group.networks.iter_mut().for_each(canonicalize_network);
    for task in &mut group.tasks {
        task.restart_policy.get_or_insert_with(|| restart.clone());
        canonicalize_task(task);
    }
}

fn canonicalize_network(network: &mut Network) {
    for port in network.reserved_ports.iter_mut().chain(&mut network.dynamic_ports) {
        or(&mut port.host_network, "default");
    }
}

fn canonicalize_task(task: &mut Task) {
    if task.kill_timeout.is_none_or(|timeout| timeout == Span::ZERO) {
        task.kill_timeout = Some(Span::from_secs(5));
    }
    task.log_config.get_or_insert_with(LogConfig::default);
    let resources = task.resources.get_or_insert_with(|| Resources {
        cpu_mhz: 100,
        memory_mb: 300,
        ..Resources::default()
    });
    resources.networks.iter_mut().for_each(canonicalize_network);
    // Old files ask for disk here; it is the group's.
    resources.disk_mb = 0;
    let identity = task.identity.get_or_insert_with(WorkloadIdentity::default);
    or(&mut identity.name, "default");
    if identity.name == "default" {
        identity.audience = vec![DEFAULT_AUDIENCE.to_owned()];
    }
    for template in &mut task.templates {
        template.change_signal = template.change_signal.to_uppercase();
    }
    // An empty block means a main task.
    if task.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.hook.is_empty() && !lifecycle.sidecar) {
        task.lifecycle = None;
    }
}

/// References within references go no deeper than this.
const MAX_ROUNDS: usize = 8;

/// Names that `${…}` in a service's name may stand for.
struct Place<'a> {
    job: &'a str,
    group: &'a str,
    task: Option<&'a str>,
}

impl<'a> Place<'a> {
    fn of(job: &'a str, group: &'a str, task: Option<&'a str>) -> Self {
        Self { job, group, task }
    }

    fn base(&self) -> String {
        format!("{}-{}-{}", self.job, self.group, self.task.unwrap_or("group"))
    }

    /// The name of a service with its references replaced, or the default one where nothing is left. Names that make
    /// references of their own need several rounds, so that another pass finds nothing to do.
    fn resolve(&self, written: &str) -> String {
        let mut name = written.to_owned();
        for _ in 0..MAX_ROUNDS {
            if name.is_empty() {
                name = self.default_name();
            }
            let next = interpolate(&name, |reference| {
                let value = match reference {
                    "JOB" => self.job.to_owned(),
                    "TASKGROUP" => self.group.to_owned(),
                    "TASK" => self.task.unwrap_or("group").to_owned(),
                    "BASE" => self.base(),
                    _ => return None,
                };
                (!value.contains('$')).then_some(value)
            });
            if next == name {
                break;
            }
            name = next;
        }
        name
    }

    fn default_name(&self) -> String {
        self.task.map_or_else(|| format!("{}-{}", self.job, self.group), |_| self.base())
    }
}

fn canonicalize_service(service: &mut Service, place: &Place<'_>, namespace: &str) {
    service.name = place.resolve(&service.name);
    or(&mut service.address_mode, "auto");
    or(&mut service.on_update, "require_healthy");
    or(&mut service.provider, "consul");
    or(&mut service.cluster, "default");
    if service.provider == "nomad" || service.namespace.is_empty() {
        namespace.clone_into(&mut service.namespace);
    }
    for check in &mut service.checks {
        if check.name.is_empty() {
            check.name = format!("service: {:?} check", service.name);
        }
        or(&mut check.on_update, &service.on_update);
        if check.task_name.is_empty() {
            check.task_name.clone_from(&service.task_name);
        }
    }
}

/// On a cluster without Consul, agents register services of the default provider with Herder itself, and run their checks,
/// of whatever type. Those of a service mesh cannot do without: they wait for a node that has Consul.
fn native_services(group: &TaskGroup, warnings: &mut Vec<String>) {
    let name = &group.name;
    let services = group.services.iter().chain(group.tasks.iter().flat_map(|task| &task.services));
    for service in services.filter(|service| service.provider == "consul" && service.connect.is_none()) {
        warnings.push(format!(
            "Service {:?} of group {name:?} asks for provider \"consul\", which this cluster does not have: it is \
             registered natively, where services with provider = \"nomad\" are",
            service.name,
        ));
    }
}

/// A service mesh needs proxies that nobody runs here: its groups wait for a node that says it can do that.
fn mesh(group: &mut TaskGroup) {
    let native = |connect: &serde_json::Value| connect.get("Native").and_then(serde_json::Value::as_bool);
    let meshed = group.services.iter().filter_map(|service| service.connect.as_ref());
    let needed = meshed.into_iter().any(|connect| native(connect) != Some(true));
    let connect = Constraint {
        left: "${attr.consul.connect}".to_owned(),
        right: "true".to_owned(),
        operand: "=".to_owned(),
    };
    if needed && !group.constraints.contains(&connect) {
        group.constraints.push(connect);
    }
}

fn or(text: &mut String, default: &str) {
    if text.is_empty() {
        default.clone_into(text);
    }
}
