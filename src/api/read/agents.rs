//! The agent of this process, and the servers it knows of. None of these routes has index headers, and what they
//! know is shown even while the store is away.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::api::Api;
use crate::api::call::Call;
use crate::api::error::ApiError;
use crate::api::reply;
use crate::api::reply::Reply;
use crate::mirror::derive::job_state;
use crate::mirror::state::State;
use crate::telemetry;
use crate::telemetry::ClusterFigures;

/// A running server, as it stands at `servers/<id>`: `{"ID", "Name", "HTTPAddr", "Datacenter", "Version"}`.
struct Server {
    id: String,
    name: String,
    addr: String,
    datacenter: String,
    version: String,
}

fn servers(api: &Api, state: &State) -> Vec<Server> {
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut servers: Vec<Server> = state
        .servers
        .iter()
        .map(|(id, stored)| Server {
            id: id.clone(),
            name: text(&stored.value, "Name"),
            addr: text(&stored.value, "HTTPAddr"),
            datacenter: text(&stored.value, "Datacenter"),
            version: text(&stored.value, "Version"),
        })
        .collect();
    let agent = &api.context.agent;
    if agent.is_server && !servers.iter().any(|server| server.id == agent.server_id) {
        servers.push(Server {
            id: agent.server_id.clone(),
            name: agent.name.clone(),
            addr: agent.http_addr.clone(),
            datacenter: api.context.datacenter.clone(),
            version: agent.version.clone(),
        });
    }
    servers.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    servers
}

/// Address of the server that owns the scheduler; empty if there is none.
fn leader_addr(api: &Api, state: &State) -> String {
    let Some(leader) = state.leaders.get("scheduler") else { return String::new() };
    let text = |key: &str| leader.value.get(key).and_then(Value::as_str).unwrap_or_default();
    let listed = servers(api, state).into_iter().find(|server| server.id == text("ID"));
    listed.map_or_else(|| text("HTTPAddr").to_owned(), |server| server.addr)
}

fn member(api: &Api, server: &Server) -> Value {
    let (addr, port) = server.addr.rsplit_once(':').unwrap_or((server.addr.as_str(), "0"));
    json!({
        "Name": format!("{}.{}", server.name, api.context.region),
        "Addr": addr, "Port": port.parse::<u16>().unwrap_or(0), "Status": "alive",
        "ProtocolMin": 1, "ProtocolMax": 5, "ProtocolCur": 2,
        "DelegateMin": 2, "DelegateMax": 5, "DelegateCur": 4,
        "Tags": {
            "region": api.context.region, "dc": server.datacenter, "build": server.version, "port": port,
            "rpc_addr": addr, "id": server.id, "role": "nomad", "raft_vsn": "3", "vsn": "1",
        },
    })
}

pub(in crate::api) async fn members(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let _ = api.catch_up().await;
    let members: Vec<Value> = {
        let state = api.context.mirror.read();
        servers(api, &state).iter().map(|server| member(api, server)).collect()
    };
    reply::json(
        call,
        &json!({
            "ServerName": api.context.agent.name, "ServerRegion": api.context.region,
            "ServerDC": api.context.datacenter, "Members": members,
        }),
    )
}

pub(in crate::api) async fn own(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let agent = &api.context.agent;
    let defaults = json!({
        "Region": api.context.region, "Datacenter": api.context.datacenter, "Name": agent.name,
        "Version": {"Version": agent.version, "VersionPrerelease": "", "VersionMetadata": "", "Revision": ""},
        "ACL": {"Enabled": false}, "UI": {"Enabled": false}, "Telemetry": {"PrometheusMetrics": api.context.config.prometheus},
        "Server": {"Enabled": agent.is_server}, "Client": {"Enabled": agent.is_client},
        "Consul": null, "Consuls": [], "Vault": null, "Vaults": [],
        "AdvertiseAddrs": {"HTTP": agent.http_addr, "RPC": agent.http_addr, "Serf": agent.http_addr},
    });
    let mut config = defaults.as_object().cloned().unwrap_or_default();
    if let Some(given) = agent.config.as_object() {
        config.extend(given.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    let known = match &api.context.servers {
        Some(directory) => directory.servers().await.unwrap_or_default(),
        None => Vec::new(),
    };
    let (member, mut stats) = {
        let state = api.context.mirror.read();
        let servers = servers(api, &state);
        let own = servers.iter().find(|server| agent.is_server && server.id == agent.server_id);
        (own.map_or_else(|| json!({}), |server| member(api, server)), stats(api, &state))
    };
    if let Some(client) = stats.get_mut("client")
        && !known.is_empty()
    {
        client.insert("known_servers".to_owned(), known.join(","));
    }
    reply::json(call, &json!({"config": config, "member": member, "stats": stats}))
}

fn stats(api: &Api, state: &State) -> BTreeMap<&'static str, BTreeMap<String, String>> {
    let agent = &api.context.agent;
    let texts = |pairs: &[(&str, String)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    let mut stats = BTreeMap::new();
    stats.insert(
        "runtime",
        texts(&[
            ("arch", std::env::consts::ARCH.to_owned()),
            ("kernel.name", std::env::consts::OS.to_owned()),
            ("cpu_count", cores.clone()),
            ("max_procs", cores),
            ("version", agent.version.clone()),
        ]),
    );
    if agent.is_server {
        let leader = leader_addr(api, state);
        stats.insert(
            "nomad",
            texts(&[
                ("server", "true".to_owned()),
                ("leader", (leader == agent.http_addr).to_string()),
                ("leader_addr", leader),
                ("bootstrap", "false".to_owned()),
                ("known_regions", "1".to_owned()),
            ]),
        );
        stats.insert(
            "store",
            texts(&[
                ("kind", api.context.store.describe()),
                ("applied_index", state.revision.to_string()),
                ("keys", state.key_count.to_string()),
            ]),
        );
    }
    if let Some(local) = &api.context.local {
        let mut client = local.info();
        client.entry("node_id".to_owned()).or_insert_with(|| local.node_id().to_string());
        client.entry("num_allocations".to_owned()).or_insert_with(|| {
            let lives =
                state.allocs_of_node(local.node_id()).filter(|(_, entry)| !entry.status().is_terminal());
            lives.count().to_string()
        });
        stats.insert("client", client);
    }
    stats
}

/// Whether the parts of this process work. A part that does not makes the answer a 500 with the same body.
pub(in crate::api) async fn health(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let agent = &api.context.agent;
    let kinds: Vec<&str> =
        call.query.iter().filter(|(key, _)| key == "type").map(|(_, value)| value.as_str()).collect();
    let (mut listed, leads) = {
        let state = api.context.mirror.read();
        (state.revision > 0, state.leaders.contains_key("scheduler"))
    };
    if let Some(directory) = &api.context.servers {
        listed = directory.servers().await.is_ok_and(|servers| !servers.is_empty());
    }
    let part = |name: &str, runs: bool, problem: Option<&str>| -> Option<Value> {
        let asked = kinds.contains(&name);
        let message = match (runs, problem) {
            (true, Some(problem)) => problem.to_owned(),
            (true, None) => "ok".to_owned(),
            (false, _) if asked => format!("{name} not enabled"),
            (false, _) => return None,
        };
        (asked || kinds.is_empty()).then(|| json!({"ok": message == "ok", "message": message}))
    };
    let mut body = Map::new();
    body.extend(
        part("client", agent.is_client, (!listed).then_some("no known servers"))
            .map(|part| ("client".to_owned(), part)),
    );
    body.extend(
        part("server", agent.is_server, (!leads).then_some("no leader"))
            .map(|part| ("server".to_owned(), part)),
    );
    if body.values().all(|part| part["ok"] == true) {
        return reply::json(call, &body);
    }
    reply::json_with(StatusCode::INTERNAL_SERVER_ERROR, reply::TEXT, call, &body)
}

/// Addresses of the servers, for clients.
pub(in crate::api) async fn server_list(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    if !api.context.agent.is_client {
        return Err(ApiError::not_built("Invalid method"));
    }
    if let Some(directory) = &api.context.servers {
        let known = directory.servers().await.map_err(ApiError::internal)?;
        return reply::json(call, &known);
    }
    peers(api, call).await
}

pub(in crate::api) async fn peers(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let _ = api.catch_up().await;
    let mut addrs: Vec<String> =
        servers(api, &api.context.mirror.read()).into_iter().map(|server| server.addr).collect();
    addrs.sort();
    reply::json(call, &addrs)
}

pub(in crate::api) async fn leader(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let _ = api.catch_up().await;
    let addr = leader_addr(api, &api.context.mirror.read());
    reply::json(call, &addr)
}

pub(in crate::api) async fn regions(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    reply::json(call, &[&api.context.region])
}

pub(in crate::api) async fn metrics(api: &Api, call: &Call) -> Result<Reply, ApiError> {
    let is_prometheus = call.param("format") == Some("prometheus");
    if is_prometheus && !api.context.config.prometheus {
        let text = "Prometheus is not enabled".to_owned();
        return Err(ApiError::Refused { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, text });
    }
    if api.context.agent.is_server {
        telemetry::observe_cluster(&figures(&api.context.mirror.read()));
    }
    let of_node = match &api.context.local {
        Some(local) => local.figures().await,
        None => Vec::new(),
    };
    if is_prometheus {
        let kind = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
        return Ok(reply::full(StatusCode::OK, kind, telemetry::prometheus_text(&of_node)));
    }
    reply::json(call, &telemetry::json_summary(api.now(), &api.context.agent.name, &of_node))
}

fn figures(state: &State) -> ClusterFigures {
    let mut figures = ClusterFigures {
        jobs: ["pending", "running", "dead"].map(|status| (status, 0)).into(),
        evaluations: ["pending", "blocked"].map(|status| (status, 0)).into(),
        nodes: state.nodes.len(),
        revision: state.revision,
        ..ClusterFigures::default()
    };
    for (id, job) in state.all_jobs().filter(|(_, job)| !job.value.purge) {
        *figures.jobs.entry(job_state(state, id, &job.value).as_str()).or_default() += 1;
    }
    for entry in state.allocs.values() {
        *figures.allocations.entry(entry.status().as_str()).or_default() += 1;
    }
    for eval in state.evaluations.values().flat_map(BTreeMap::values) {
        if let Some(count) = figures.evaluations.get_mut(eval.value.status.as_str()) {
            *count += 1;
        }
    }
    figures
}
