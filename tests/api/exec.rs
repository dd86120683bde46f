//! Commands in tasks over the websocket, and agents that pass on what they cannot answer themselves.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::SinkExt;
use futures::StreamExt;
use herder::api::forward::ServerDirectory;
use herder::model::id::AllocId;
use herder::model::id::NodeId;
use herder::model::node::NodeLive;
use herder::store::key::Key;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::harness::Cluster;
use crate::harness::job;
use crate::serving::OneFile;
use crate::serving::serve;
use crate::serving::with_agent;

const PATIENCE: Duration = Duration::from_secs(20);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Servers by address.
struct Listed(Vec<String>);

#[async_trait]
impl ServerDirectory for Listed {
    async fn servers(&self) -> Result<Vec<String>, String> {
        Ok(self.0.clone())
    }
}

async fn open(addr: &str, path: &str) -> Socket {
    tokio_tungstenite::connect_async(format!("ws://{addr}{path}")).await.unwrap().0
}

/// The next text, or code and reason of the close frame.
async fn next(socket: &mut Socket) -> Result<Value, (u16, String)> {
    loop {
        match tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap() {
            Message::Text(text) => return Ok(serde_json::from_str(text.as_str()).unwrap()),
            Message::Close(Some(frame)) => return Err((frame.code.into(), frame.reason.to_string())),
            Message::Close(None) => return Err((1005, String::new())),
            _ => {}
        }
    }
}

async fn say(socket: &mut Socket, frame: Value) {
    socket.send(Message::text(frame.to_string())).await.unwrap();
}

/// Talks with the echoing task to its end.
async fn converse(mut socket: Socket, begun: &str) {
    let data = |stream: &str, text: &str| {
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
        json!({stream: {"data": encoded}})
    };
    assert_eq!(next(&mut socket).await, Ok(data("stdout", begun)));
    say(&mut socket, json!({})).await;
    socket.send(Message::text("not json")).await.unwrap();
    say(&mut socket, json!({"tty_size": {"height": 24, "width": 80}})).await;
    assert_eq!(next(&mut socket).await, Ok(data("stderr", "24x80")));
    say(&mut socket, data("stdin", "hello")).await;
    assert_eq!(next(&mut socket).await, Ok(data("stdout", "hello")));
    say(&mut socket, json!({"stdin": {"close": true}})).await;
    assert_eq!(next(&mut socket).await, Ok(json!({"stderr": {"close": true}})));
    assert_eq!(next(&mut socket).await, Ok(json!({"stdout": {"close": true}})));
    assert_eq!(next(&mut socket).await, Ok(json!({"exited": true, "result": {"exit_code": 7}})));
}

fn exec(alloc: AllocId, task: &str) -> String {
    format!("/v1/client/allocation/{alloc}/exec?task={task}&command=%5B%22echo%22%2C%22a%20b%22%5D")
}

/// A server that knows of a node elsewhere, with one allocation of `job` on it.
async fn server_for(node: NodeId, addr: &str, job: Value) -> (Cluster, AllocId) {
    let server = Cluster::start().await;
    let id = job["ID"].as_str().unwrap().to_owned();
    server.register(job).await;
    server.put(&Key::NodeInfo(node), &json!({"ID": node, "Name": "far", "HTTPAddr": addr})).await;
    server.put(&Key::NodeLive(node), &NodeLive { http_addr: addr.to_owned(), ..NodeLive::default() }).await;
    let shown = server.get(&format!("/v1/job/{id}")).await.json;
    let alloc = server.place(node, &shown, |_| {}).await;
    (server, alloc)
}

#[tokio::test]
async fn a_command_is_talked_to_straight_at_its_agent() {
    let (cluster, _) = with_agent().await;
    let (addr, stop, serving) = serve(&cluster).await;
    let alloc = AllocId::from_random([1; 16]);
    converse(open(&addr, &exec(alloc, "t")).await, "echo a b false\n").await;
    let mut browser = open(&addr, &format!("{}&ws_handshake=true", exec(alloc, "t"))).await;
    say(&mut browser, json!({"version": 1, "auth_token": ""})).await;
    converse(browser, "echo a b false\n").await;
    let mut old = open(&addr, &format!("{}&ws_handshake=true", exec(alloc, "t"))).await;
    say(&mut old, json!({"auth_token": ""})).await;
    assert_eq!(next(&mut old).await, Err((1008, "unexpected handshake value: 0".to_owned())));
    for (path, code, reason) in [
        (exec(alloc, "late"), 1008, "task \"late\" is not running."),
        (exec(alloc, "broken"), 1011, "failed to start command"),
        (exec(alloc, ""), 1008, "must provide task name"),
        (
            "/v1/client/allocation/x/exec?task=t&command=[%22a%22]".to_owned(),
            1011,
            "alloc lookup failed: index error: UUID must be 36 characters",
        ),
        (format!("/v1/client/allocation/{alloc}/exec?task=t&command=[]"), 1008, "command is not present"),
    ] {
        let mut socket = open(&addr, &path).await;
        assert_eq!(next(&mut socket).await, Err((code, reason.to_owned())), "{path}");
    }
    let _ = stop.send(());
    serving.await.unwrap();
}

#[tokio::test]
async fn a_bad_request_is_refused_before_the_upgrade() {
    let (cluster, _) = with_agent().await;
    let (addr, stop, serving) = serve(&cluster).await;
    let alloc = AllocId::from_random([1; 16]);
    let refused = async |path: String, origin: Option<&'static str>| {
        let mut request = format!("ws://{addr}{path}").into_client_request().unwrap();
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        match tokio_tungstenite::connect_async(request).await {
            Err(Error::Http(answer)) => {
                let body = answer.body().clone().unwrap_or_default();
                (answer.status().as_u16(), String::from_utf8(body).unwrap())
            }
            other => panic!("{other:?}"),
        }
    };
    let route = format!("/v1/client/allocation/{alloc}/exec");
    let (status, text) = refused(format!("{route}?task=t"), None).await;
    assert_eq!(status, 500);
    assert!(text.starts_with("failed to marshal command into json: "), "{text}");
    let (status, text) = refused(format!("{}&tty=maybe", exec(alloc, "t")), None).await;
    assert!(status == 500 && text.starts_with("tty value is not a boolean: "), "{text}");
    let (status, text) = refused(exec(alloc, "t"), Some("http://elsewhere")).await;
    assert!(status == 403 && text.starts_with("Forbidden\nfailed to upgrade connection"), "{text}");
    let plain = cluster.get(&exec(alloc, "t")).await;
    assert!(plain.status == 400 && plain.text.contains("not using the websocket protocol"), "{}", plain.text);
    let _ = stop.send(());
    serving.await.unwrap();
}

#[tokio::test]
async fn a_command_ends_when_whoever_asked_for_it_goes_away() {
    let node = NodeId::from_random([9; 16]);
    let agent = Arc::new(OneFile::new(node));
    let owner = Cluster::start_with(|context| {
        context.local = Some(agent.clone());
        context.agent.is_client = true;
    })
    .await;
    let (addr, stop, serving) = serve(&owner).await;
    let (server, alloc) = server_for(node, &addr, job("web")).await;
    let (through, stop_server, serving_server) = serve(&server).await;
    for addr in [&addr, &through] {
        let mut socket = open(addr, &exec(alloc, "t")).await;
        next(&mut socket).await.unwrap();
        drop(socket);
        let noticed = tokio::time::timeout(PATIENCE, agent.abandoned.acquire()).await;
        noticed.expect("the command goes on").unwrap().forget();
    }
    for (stop, serving) in [(stop, serving), (stop_server, serving_server)] {
        let _ = stop.send(());
        serving.await.unwrap();
    }
}

#[tokio::test]
async fn any_server_passes_a_command_on_and_knows_the_actions_of_jobs() {
    let (owner, node) = with_agent().await;
    let (addr, stop, serving) = serve(&owner).await;
    let mut spec = job("web");
    spec["TaskGroups"][0]["Tasks"][0]["Name"] = json!("t");
    spec["TaskGroups"][0]["Tasks"][0]["Actions"] =
        json!([{"Name": "go", "Command": "do", "Args": ["it & that"]}]);
    let (server, alloc) = server_for(node, &addr, spec).await;
    let (through, stop_server, serving_server) = serve(&server).await;
    converse(open(&through, &exec(alloc, "t")).await, "echo a b false\n").await;
    let action =
        |name: &str| format!("/v1/job/web/action?action={name}&allocID={alloc}&task=t&group=web&tty=false");
    converse(open(&through, &action("go")).await, "do it & that false\n").await;
    let mut socket = open(&through, &action("stay")).await;
    assert_eq!(next(&mut socket).await, Err((1008, "action stay not found in task t".to_owned())));
    let mut socket = open(&through, &exec(alloc, "late")).await;
    assert_eq!(next(&mut socket).await, Err((1008, "task \"late\" is not running.".to_owned())));
    let unknown = AllocId::from_random([2; 16]);
    let mut socket = open(&through, &exec(unknown, "t")).await;
    assert_eq!(next(&mut socket).await, Err((1008, format!("Unknown allocation \"{unknown}\""))));
    let _ = stop.send(());
    serving.await.unwrap();
    // Its agent is gone.
    let mut socket = open(&through, &exec(alloc, "t")).await;
    let (code, reason) = next(&mut socket).await.unwrap_err();
    assert!(code == 1008 && reason.starts_with("No path to node"), "{code} {reason}");
    let _ = stop_server.send(());
    serving_server.await.unwrap();
}

/// An agent that is no server, with a node of its own.
async fn client_only(servers: Vec<String>) -> (Cluster, NodeId) {
    let node = NodeId::from_random([5; 16]);
    let cluster = Cluster::start_with(|context| {
        context.local = Some(Arc::new(OneFile { has_none: true, ..OneFile::new(node) }));
        context.servers = Some(Arc::new(Listed(servers)));
        context.agent.is_server = false;
        context.agent.is_client = true;
        context.agent.node_id = Some(node);
    })
    .await;
    (cluster, node)
}

#[tokio::test]
async fn an_agent_that_is_no_server_passes_on_what_it_is_asked() {
    let (owner, node) = with_agent().await;
    let (addr, stop, serving) = serve(&owner).await;
    let (server, alloc) = server_for(node, &addr, job("web")).await;
    let (server_addr, stop_server, serving_server) = serve(&server).await;
    // The first one listed does not answer.
    let (client, own) = client_only(vec!["127.0.0.1:1".to_owned(), server_addr.clone()]).await;
    server.put(&Key::NodeInfo(own), &json!({"ID": own, "Name": "near", "Meta": {"a": "b"}})).await;
    let (client_addr, stop_client, serving_client) = serve(&client).await;
    let listed = client.get("/v1/jobs").await;
    assert_eq!((listed.json[0]["ID"].as_str(), listed.index() > 0), (Some("web"), true));
    assert_eq!(client.write("/v1/jobs", json!({"Job": job("api")})).await.status, 200);
    assert_eq!(server.get("/v1/job/api").await.status, 200, "written through the client");
    let missing = client.get("/v1/job/nothing").await;
    assert_eq!((missing.status.as_u16(), missing.text.as_str()), (404, "job not found"));
    // Client to server to node.
    let logs = client.get(&format!("/v1/client/fs/logs/{alloc}?task=t&type=stdout&plain=true")).await;
    assert_eq!(logs.text, "hello from t\n");
    converse(open(&client_addr, &exec(alloc, "t")).await, "echo a b false\n").await;
    let unknown = AllocId::from_random([2; 16]);
    let gone = client.get(&format!("/v1/client/fs/ls/{unknown}")).await;
    assert_eq!((gone.status.as_u16(), gone.text), (404, format!("Unknown allocation \"{unknown}\"")));
    // What it knows itself.
    assert_eq!(client.get("/v1/client/stats").await.json["Uptime"], 1);
    assert_eq!(client.get(&format!("/v1/client/stats?node_id={node}")).await.json["Uptime"], 1);
    assert_eq!(client.get("/v1/client/metadata").await.json["Static"]["a"], "b", "that of its own node");
    assert_eq!(client.get("/v1/agent/servers").await.json, json!(["127.0.0.1:1", server_addr]));
    assert_eq!(client.get("/v1/agent/health").await.json["client"]["ok"], true);
    let known = client.get("/v1/agent/self").await.json["stats"]["client"]["known_servers"].clone();
    assert!(known.as_str().unwrap().contains(&server_addr), "{known}");
    for (stop, serving) in [(stop_client, serving_client), (stop_server, serving_server), (stop, serving)] {
        let _ = stop.send(());
        serving.await.unwrap();
    }
}

#[tokio::test]
async fn an_agent_without_servers_says_so() {
    let (none, _) = client_only(vec![]).await;
    let answer = none.get("/v1/jobs").await;
    assert_eq!(answer.status, 500);
    assert!(answer.text.starts_with("No cluster leader: no known servers"), "{}", answer.text);
    assert_eq!(none.get("/v1/agent/health").await.json["client"]["message"], "no known servers");
    let (dead, _) = client_only(vec!["127.0.0.1:1".to_owned()]).await;
    let answer = dead.get("/v1/jobs").await;
    assert!(
        answer.status == 500 && answer.text.contains("no server can be reached: 127.0.0.1:1: "),
        "{}",
        answer.text
    );
    // An agent that was taken for a server must not send the request round in circles.
    let request = http::Request::builder().uri("/v1/jobs").header("x-herder-forwarded", "server");
    let reply = dead.api.handle(request.body(bytes::Bytes::new()).unwrap()).await;
    assert_eq!(reply.status(), 500);
}
