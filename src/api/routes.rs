//! The route table, one line per route, and the way from a request to its line.

use futures::FutureExt;
use futures::future::BoxFuture;
use http::Method;
use http::StatusCode;

use super::Api;
use super::act;
use super::call::Call;
use super::error::ApiError;
use super::forward;
use super::read;
use super::read::Find;
use super::read::IndexOf;
use super::reply;
use super::reply::Reply;

type Act = for<'a> fn(&'a Api, &'a Call) -> BoxFuture<'a, Result<Reply, ApiError>>;

/// Which verbs a line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verbs {
    Get,
    /// PUT and POST alike.
    Write,
    Put,
    Post,
    Delete,
    Any,
}

impl Verbs {
    fn contains(self, method: &Method) -> bool {
        match self {
            Self::Get => method == Method::GET,
            Self::Write => method == Method::PUT || method == Method::POST,
            Self::Put => method == Method::PUT,
            Self::Post => method == Method::POST,
            Self::Delete => method == Method::DELETE,
            Self::Any => true,
        }
    }
}

#[derive(Clone, Copy)]
enum Action {
    /// From the mirror, with consistency, blocking and index headers.
    Read(IndexOf, Find),
    Act(Act),
    /// Known to Nomad's clients, not built here.
    Missing,
}

struct Route {
    verbs: Verbs,
    /// Below `/v1/`, or `/` if it begins with `.well-known`. `:x` stands for one segment, `*` for one or more.
    pattern: &'static str,
    action: Action,
}

const fn read(pattern: &'static str, index_of: IndexOf, find: Find) -> Route {
    Route { verbs: Verbs::Get, pattern, action: Action::Read(index_of, find) }
}

macro_rules! act {
    ($verbs:ident $pattern:literal $handler:path) => {
        Route {
            verbs: Verbs::$verbs,
            pattern: $pattern,
            action: Action::Act(|api, call| $handler(api, call).boxed()),
        }
    };
}

const fn missing(pattern: &'static str) -> Route {
    Route { verbs: Verbs::Any, pattern, action: Action::Missing }
}

use act::client;
use act::search;
use read::agents;
use read::allocations;
use read::deployments;
use read::evaluations;
use read::jobs;
use read::keys;
use read::nodes;
use read::services;
use read::settings;

/// First match wins, so longer suffixes stand before shorter ones.
#[rustfmt::skip]
static ROUTES: &[Route] = &[
    read("jobs", jobs::list_index, jobs::list),
    act!(Write "jobs" act::jobs::register),
    act!(Write "jobs/parse" act::jobs::parse),
    read("jobs/statuses", jobs::list_index, jobs::statuses),
    Route { verbs: Verbs::Post, pattern: "jobs/statuses", action: Action::Read(jobs::list_index, jobs::statuses) },
    act!(Write "validate/job" act::jobs::validate),
    act!(Write "job/:id/versions/:tag/tag" act::jobs::tag),
    act!(Delete "job/:id/versions/:tag/tag" act::jobs::untag),
    read("job/*/versions", jobs::job_index, jobs::versions),
    read("job/*/allocations", jobs::job_index, jobs::allocations),
    read("job/*/evaluations", jobs::job_index, jobs::evaluations),
    read("job/*/deployments", jobs::job_index, jobs::deployments),
    read("job/*/deployment", jobs::job_index, jobs::deployment),
    read("job/*/summary", jobs::job_index, jobs::summary),
    read("job/*/services", allocations::services_index, jobs::services),
    read("job/*/actions", jobs::job_index, jobs::actions),
    act!(Get "job/*/scale" act::jobs::scale_status),
    act!(Write "job/*/scale" act::jobs::scale),
    act!(Get "job/*/submission" act::jobs::submission),
    act!(Write "job/*/evaluate" act::jobs::evaluate),
    act!(Write "job/*/plan" act::jobs::plan),
    act!(Write "job/*/periodic/force" act::jobs::force_periodic),
    act!(Write "job/*/dispatch" act::jobs::dispatch),
    act!(Write "job/*/dispatch/payload" act::jobs::dispatch_payload),
    act!(Write "job/*/revert" act::jobs::revert),
    act!(Write "job/*/stable" act::jobs::stable),
    act!(Get "job/*/action" client::needs_websocket),
    read("job/*", jobs::job_index, jobs::get),
    act!(Write "job/*" act::jobs::register),
    act!(Delete "job/*" act::jobs::deregister),
    read("deployments", deployments::list_index, deployments::list),
    read("deployment/allocations/:id", deployments::get_index, deployments::allocations),
    act!(Write "deployment/fail/:id" act::deployments::fail),
    act!(Write "deployment/pause/:id" act::deployments::pause),
    act!(Write "deployment/promote/:id" act::deployments::promote),
    act!(Write "deployment/allocation-health/:id" act::deployments::set_health),
    act!(Write "deployment/unblock/:id" act::deployments::unblock),
    read("deployment/:id", deployments::get_index, deployments::get),
    read("evaluations", evaluations::list_index, evaluations::list),
    Route { verbs: Verbs::Delete, pattern: "evaluations", action: Action::Missing },
    read("evaluations/count", evaluations::list_index, evaluations::count),
    read("evaluation/:id/allocations", evaluations::allocations_index, evaluations::allocations),
    read("evaluation/:id", evaluations::get_index, evaluations::get),
    read("allocations", allocations::list_index, allocations::list),
    act!(Write "allocation/:id/stop" act::deployments::stop_allocation),
    read("allocation/:id/services", allocations::services_index, allocations::services),
    read("allocation/:id/checks", allocations::services_index, allocations::checks),
    read("allocation/:id", allocations::get_index, allocations::get),
    act!(Any "client/allocation/:id/stats" client::alloc_stats),
    Route { verbs: Verbs::Any, pattern: "client/allocation/:id/checks",
        action: Action::Read(allocations::services_index, allocations::checks) },
    act!(Write "client/allocation/:id/restart" client::restart),
    act!(Write "client/allocation/:id/signal" client::signal),
    act!(Any "client/allocation/:id/gc" client::collect_alloc),
    act!(Any "client/allocation/:id/snapshot" client::snapshot),
    act!(Any "client/allocation/:id/exec" client::needs_websocket),
    act!(Any "client/allocation/:id/pause" client::pause),
    act!(Any "client/fs/ls/:id" client::list_files),
    act!(Any "client/fs/stat/:id" client::stat_file),
    act!(Any "client/fs/cat/:id" client::cat_file),
    act!(Any "client/fs/readat/:id" client::read_file_at),
    act!(Any "client/fs/stream/:id" client::stream_file),
    act!(Any "client/fs/logs/:id" client::logs),
    act!(Any "client/stats" client::host_stats),
    act!(Any "client/gc" client::collect_node),
    act!(Get "client/metadata" client::get_metadata),
    act!(Post "client/metadata" client::set_metadata),
    read("nodes", nodes::list_index, nodes::list),
    read("node/pools", nodes::pools_index, nodes::pools),
    act!(Write "node/pools" act::settings::put_pool),
    read("node/pool/:name", nodes::pools_index, nodes::get_pool),
    act!(Write "node/pool/:name" act::settings::put_pool),
    act!(Delete "node/pool/:name" act::settings::delete_pool),
    read("node/pool/:name/nodes", nodes::list_index, nodes::pool_nodes),
    read("node/pool/:name/jobs", jobs::list_index, nodes::pool_jobs),
    read("node/:id/allocations", nodes::allocations_index, nodes::allocations),
    act!(Write "node/:id/evaluate" act::nodes::evaluate),
    act!(Write "node/:id/drain" act::nodes::drain),
    act!(Write "node/:id/eligibility" act::nodes::eligibility),
    act!(Write "node/:id/purge" act::nodes::purge),
    read("node/:id", nodes::get_index, nodes::get),
    read("services", services::list_index, services::list),
    read("service/:name", services::list_index, services::get),
    missing("service/:name/:id"),
    read("namespaces", settings::config_index, settings::namespaces),
    act!(Write "namespaces" act::settings::put_namespace),
    act!(Write "namespace" act::settings::put_namespace),
    read("namespace/:name", settings::config_index, settings::get_namespace),
    act!(Write "namespace/:name" act::settings::put_namespace),
    act!(Delete "namespace/:name" act::settings::delete_namespace),
    read("scaling/policies", settings::policies_index, settings::list_policies),
    read("scaling/policy/:id", settings::policies_index, settings::get_policy),
    act!(Write "search" search::prefix),
    act!(Write "search/fuzzy" search::fuzzy),
    act!(Get "agent/self" agents::own),
    act!(Get "agent/members" agents::members),
    act!(Get "agent/health" agents::health),
    act!(Get "agent/servers" agents::server_list),
    missing("agent/join"),
    missing("agent/force-leave"),
    missing("agent/host"),
    missing("agent/monitor"),
    missing("agent/schedulers"),
    missing("agent/schedulers/config"),
    missing("agent/pprof/:name"),
    missing("agent/keyring/:verb"),
    act!(Get "status/leader" agents::leader),
    act!(Get "status/peers" agents::peers),
    act!(Get "regions" agents::regions),
    act!(Get "metrics" agents::metrics),
    read("operator/scheduler/configuration", settings::config_index, settings::scheduler),
    act!(Write "operator/scheduler/configuration" act::settings::put_scheduler),
    missing("operator/autopilot/configuration"),
    missing("operator/autopilot/health"),
    missing("operator/raft/configuration"),
    missing("operator/raft/peer"),
    missing("operator/raft/transfer-leadership"),
    missing("operator/snapshot"),
    missing("operator/keyring/keys"),
    missing("operator/keyring/rotate"),
    missing("operator/keyring/key/:id"),
    missing("operator/upgrade-check/vault-workload-identity"),
    act!(Get "operator/license" act::settings::license),
    act!(Put "system/gc" act::settings::collect_garbage),
    act!(Put "system/reconcile/summaries" act::settings::reconcile_summaries),
    read("plugins", settings::config_index, settings::nothing),
    read("volumes", settings::config_index, settings::nothing),
    missing("volumes/*"),
    missing("volume/*"),
    missing("plugin/*"),
    missing("vars"),
    read(".well-known/jwks.json", keys::keyring_index, keys::key_set),
    read(".well-known/openid-configuration", keys::keyring_index, keys::discovery),
    missing("var/*"),
    missing("event/stream"),
    act!(Any "acl/*" act::settings::acl_disabled),
    act!(Any "quotas" act::settings::enterprise_only),
    act!(Any "quota/*" act::settings::enterprise_only),
    act!(Any "sentinel/*" act::settings::enterprise_only),
    act!(Any "recommendations" act::settings::enterprise_only),
];

/// Answers a request.
pub(super) async fn dispatch(api: &Api, mut call: Call) -> Reply {
    if let Some(clean) = cleaned(&call) {
        let reply = reply::full(StatusCode::TEMPORARY_REDIRECT, reply::TEXT, bytes::Bytes::new());
        return reply::with_header(reply, "location", &clean);
    }
    match route(&call.method, &call.path) {
        Routed::Unknown => reply::full(StatusCode::NOT_FOUND, reply::TEXT, bytes::Bytes::new()),
        Routed::WrongVerb => reply::refusal(&ApiError::wrong_verb()),
        Routed::To(route, captures) => {
            call.captures = captures;
            let answered = match check_region(api, &call) {
                Err(error) => Err(error),
                Ok(()) if api.context.servers.is_some() && !is_for_any_agent(route) => {
                    forward::to_server(api, &call).await
                }
                Ok(()) => match route.action {
                    Action::Read(index_of, find) => read::answer(api, &call, index_of, find).await,
                    Action::Act(act) => act(api, &call).await,
                    Action::Missing => Err(not_built()),
                },
            };
            answered.unwrap_or_else(|error| reply::refusal(&error))
        }
    }
}

/// What an agent answers about itself and its node, whether it is a server or not.
fn is_for_any_agent(route: &Route) -> bool {
    const OWN: &[&str] = &["agent/self", "agent/health", "agent/servers", "metrics", "regions"];
    const OF_SERVERS: &[&str] = &["client/metadata", "client/allocation/:id/checks"];
    OWN.contains(&route.pattern)
        || route.pattern.starts_with("client/") && !OF_SERVERS.contains(&route.pattern)
}

/// A request for another region cannot be answered here.
fn check_region(api: &Api, call: &Call) -> Result<(), ApiError> {
    match call.text("region") {
        Some(region) if region != api.context.region && region != "global" => {
            Err(ApiError::internal("No path to region"))
        }
        _ => Ok(()),
    }
}

fn not_built() -> ApiError {
    let names =
        ROUTES.iter().filter(|route| matches!(route.action, Action::Missing)).map(|route| route.pattern);
    let names: Vec<String> = names.map(|name| format!("/v1/{name}")).collect();
    ApiError::not_built(format!("not built in this version, like all of: {}", names.join(", ")))
}

enum Routed {
    To(&'static Route, Vec<String>),
    WrongVerb,
    Unknown,
}

fn route(method: &Method, path: &str) -> Routed {
    let (below, well_known) = match path.strip_prefix("/v1/") {
        Some(below) => (below, false),
        None => (path.trim_start_matches('/'), true),
    };
    if well_known != below.starts_with(".well-known/") {
        return Routed::Unknown;
    }
    let segments: Vec<&str> = below.split('/').collect();
    let mut matching = ROUTES.iter().filter_map(|route| Some((route, captures(route.pattern, &segments)?)));
    let Some((first, found)) = matching.next() else { return Routed::Unknown };
    if first.verbs.contains(method) {
        return Routed::To(first, found);
    }
    // Other verbs of the same resource stand on lines with the same pattern.
    match matching.find(|(route, _)| route.pattern == first.pattern && route.verbs.contains(method)) {
        Some((route, found)) => Routed::To(route, found),
        None => Routed::WrongVerb,
    }
}

/// What the wildcards of a pattern stand for, or `None` if the path does not match.
fn captures(pattern: &str, segments: &[&str]) -> Option<Vec<String>> {
    let parts: Vec<&str> = pattern.split('/').collect();
    let Some(star) = parts.iter().position(|part| *part == "*") else {
        return (parts.len() == segments.len()).then(|| fixed(&parts, segments))?;
    };
    let (before, after) = (&parts[..star], &parts[star + 1..]);
    let rest = segments.len().checked_sub(before.len() + after.len()).filter(|rest| *rest > 0)?;
    let mut found = fixed(before, &segments[..star])?;
    let middle = segments[star..star + rest].join("/");
    if middle.is_empty() {
        return None;
    }
    found.push(middle);
    found.extend(fixed(after, &segments[star + rest..])?);
    Some(found)
}

fn fixed(parts: &[&str], segments: &[&str]) -> Option<Vec<String>> {
    let mut found = Vec::new();
    for (part, segment) in parts.iter().zip(segments) {
        if part.starts_with(':') {
            found.push((*segment).to_owned());
        } else if part != segment {
            return None;
        }
    }
    Some(found)
}

/// The target of a redirect for a path with empty or dotted segments.
fn cleaned(call: &Call) -> Option<String> {
    let (path, query) =
        call.raw_uri.split_once('?').map_or((call.raw_uri.as_str(), None), |(p, q)| (p, Some(q)));
    let is_odd = |segment: &str| matches!(segment, "" | "." | "..");
    let inner = path.strip_prefix('/')?;
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    if inner.is_empty() || !inner.split('/').any(is_odd) {
        return None;
    }
    let mut clean: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(clean.pop()),
            other => clean.push(other),
        }
    }
    let slash = if path.ends_with('/') && !clean.is_empty() { "/" } else { "" };
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    Some(format!("/{}{slash}{query}", clean.join("/")))
}
