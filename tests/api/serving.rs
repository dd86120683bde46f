//! The API behind its server, and routes that ask the agent of this process.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use herder::api::local::Bytestream;
use herder::api::local::FileInfo;
use herder::api::local::Frames;
use herder::api::local::LocalAgent;
use herder::api::local::LocalError;
use herder::api::local::LogFrame;
use herder::api::local::LogKind;
use herder::api::local::Position;
use herder::api::local::RestartTasks;
use herder::api::server;
use herder::model::id::AllocId;
use herder::model::id::NodeId;
use herder::model::node::NodeLive;
use herder::store::key::Key;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::harness::Cluster;
use crate::harness::job;

/// An agent with one file of eight bytes.
struct OneFile {
    node: NodeId,
}

#[async_trait]
impl LocalAgent for OneFile {
    fn node_id(&self) -> NodeId {
        self.node
    }

    fn has_allocation(&self, _: AllocId) -> bool {
        true
    }

    async fn list(&self, _: AllocId, _: &str) -> Result<Vec<FileInfo>, LocalError> {
        Ok(vec![FileInfo { name: "f".into(), size: 8, ..FileInfo::default() }])
    }

    async fn stat(&self, _: AllocId, path: &str) -> Result<FileInfo, LocalError> {
        Err(LocalError::NotFound(format!("stat {path}: no such file or directory")))
    }

    async fn read(
        &self,
        _: AllocId,
        _: &str,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Bytestream, LocalError> {
        let text = Bytes::from_static(b"12345678").slice(offset as usize..);
        let text = text.slice(..text.len().min(limit.unwrap_or(8) as usize));
        Ok(futures::stream::iter([Ok(text)]).boxed())
    }

    async fn snapshot(&self, _: AllocId) -> Result<Bytestream, LocalError> {
        Ok(futures::stream::iter([Ok(Bytes::from_static(b"a tar"))]).boxed())
    }

    async fn stream(&self, _: AllocId, path: &str, _: Position) -> Result<Frames, LocalError> {
        Err(LocalError::NotFound(path.to_owned()))
    }

    async fn logs(&self, _: AllocId, task: &str, _: LogKind, _: Position) -> Result<Frames, LocalError> {
        let data = Bytes::from(format!("hello from {task}\n"));
        let frame =
            LogFrame { offset: data.len() as u64, data, file: "alloc/logs/t".into(), event: String::new() };
        Ok(futures::stream::iter([Ok(frame)]).boxed())
    }

    async fn alloc_stats(&self, _: AllocId, _: Option<&str>) -> Result<Value, LocalError> {
        Ok(json!({"Timestamp": 1}))
    }

    async fn host_stats(&self) -> Result<Value, LocalError> {
        Ok(json!({"Uptime": 1}))
    }

    async fn restart(&self, _: AllocId, tasks: RestartTasks) -> Result<(), LocalError> {
        match tasks {
            RestartTasks::Running => Ok(()),
            _ => Err(LocalError::Failed("Task not running".into())),
        }
    }

    async fn signal(&self, _: AllocId, _: Option<&str>, _: &str) -> Result<(), LocalError> {
        Ok(())
    }

    async fn collect(&self, _: Option<AllocId>) -> Result<(), LocalError> {
        Ok(())
    }

    fn info(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}

async fn with_agent() -> (Cluster, NodeId) {
    let node = NodeId::from_random([9; 16]);
    let cluster = Cluster::start_with(|context| {
        context.local = Some(Arc::new(OneFile { node }));
        context.agent.node_id = Some(node);
        context.agent.is_client = true;
    })
    .await;
    (cluster, node)
}

/// Serves a cluster's API; the sender stops it.
async fn serve(cluster: &Cluster) -> (String, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let (stop, stopped) = oneshot::channel();
    let wait = async move { drop(stopped.await) };
    let serving = tokio::spawn(server::serve(Arc::clone(&cluster.api), listener, wait));
    (addr, stop, serving)
}

/// One request over a connection of its own: head and body.
async fn raw(addr: &str, request: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let split = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    (String::from_utf8_lossy(&answer[..split]).to_lowercase(), answer[split + 4..].to_vec())
}

#[tokio::test]
async fn files_and_logs_of_this_node_are_sent() {
    let (cluster, _) = with_agent().await;
    let alloc = AllocId::from_random([1; 16]);
    assert_eq!(cluster.get(&format!("/v1/client/fs/ls/{alloc}")).await.json[0]["Size"], 8);
    assert_eq!(cluster.get(&format!("/v1/client/fs/stat/{alloc}?path=x")).await.status, 404);
    let part = cluster.get(&format!("/v1/client/fs/readat/{alloc}?path=f&offset=2&limit=3")).await;
    assert_eq!((part.status.as_u16(), part.text.as_str()), (200, "345"));
    let bad = cluster.get(&format!("/v1/client/fs/readat/{alloc}?path=f")).await;
    assert_eq!(
        (bad.status.as_u16(), bad.text.as_str()),
        (200, "error parsing offset: strconv.ParseInt: parsing \"\": invalid syntax")
    );
    let logs = format!("/v1/client/fs/logs/{alloc}?task=t&type=stdout");
    assert_eq!(cluster.get(&format!("{logs}&plain=true")).await.text, "hello from t\n");
    let framed = cluster.get(&logs).await.json;
    assert_eq!((&framed["Data"], &framed["Offset"]), (&json!("aGVsbG8gZnJvbSB0Cg=="), &json!(13)));
    assert_eq!(cluster.get(&format!("/v1/client/fs/logs/{alloc}?task=t")).await.status, 400);
    assert_eq!(
        cluster.write(&format!("/v1/client/allocation/{alloc}/restart"), json!({})).await.json["Index"],
        0
    );
    assert_eq!(cluster.get("/v1/client/stats").await.json["Uptime"], 1);
}

#[tokio::test]
async fn requests_about_other_nodes_are_passed_on() {
    let (owner, node) = with_agent().await;
    let (addr, stop, serving) = serve(&owner).await;
    let asked = Cluster::start().await;
    asked.register(job("web")).await;
    asked.put(&Key::NodeInfo(node), &json!({"ID": node, "Name": "far", "HTTPAddr": addr})).await;
    let shown = asked.get("/v1/job/web").await.json;
    let alloc = asked.place(node, &shown, |_| {}).await;
    let logs = format!("/v1/client/fs/logs/{alloc}?task=t&type=stdout&plain=true");
    assert_eq!(asked.get(&logs).await.text, "No path to node");
    asked.put(&Key::NodeLive(node), &NodeLive { http_addr: addr, ..NodeLive::default() }).await;
    assert_eq!(asked.get(&logs).await.text, "hello from t\n");
    let unknown = AllocId::from_random([2; 16]);
    let missing = asked.get(&format!("/v1/client/fs/ls/{unknown}")).await;
    assert_eq!((missing.status.as_u16(), missing.text), (404, format!("Unknown allocation \"{unknown}\"")));
    stop.send(()).unwrap();
    serving.await.unwrap();
}

#[tokio::test]
async fn the_server_compresses_when_asked_and_limits_bodies() {
    let cluster = Cluster::start_with(|context| context.config.request_bytes = 4000).await;
    for id in ["a", "b", "c"] {
        cluster.register(job(id)).await;
    }
    let (addr, stop, serving) = serve(&cluster).await;
    let get = |extra: &str| format!("GET /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{extra}\r\n");
    let (head, plain) = raw(&addr, &get("")).await;
    assert!(head.starts_with("http/1.1 200") && !head.contains("content-encoding"), "{head}");
    let (head, zipped) = raw(&addr, &get("Accept-Encoding: gzip\r\n")).await;
    assert!(head.contains("content-encoding: gzip") && head.contains("x-nomad-index"), "{head}");
    let mut unzipped = Vec::new();
    flate2::read::GzDecoder::new(zipped.as_slice()).read_to_end(&mut unzipped).unwrap();
    assert_eq!(unzipped, plain);
    let large = "x".repeat(5000);
    let put = format!(
        "PUT /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5000\r\n\r\n{large}"
    );
    assert!(raw(&addr, &put).await.0.starts_with("http/1.1 413"));
    stop.send(()).unwrap();
    serving.await.unwrap();
}

#[tokio::test]
async fn a_stopping_server_answers_blocked_readers_at_once() {
    let cluster = Cluster::start().await;
    let index = cluster.register(job("web")).await.index();
    let (addr, stop, serving) = serve(&cluster).await;
    let request =
        format!("GET /v1/job/web?index={index}&wait=300s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut stream = TcpStream::connect(&addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let (first, ()) =
        tokio::join!(raw(&addr, "GET /v1/regions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), async {
        });
    assert!(first.0.starts_with("http/1.1 200"));
    stop.send(()).unwrap();
    serving.await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
