//! The API behind its server, and routes that ask the agent of this process.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use herder::api::local::Bytestream;
use herder::api::local::ExecSession;
use herder::api::local::FileInfo;
use herder::api::local::Frames;
use herder::api::local::LocalAgent;
use herder::api::local::LocalError;
use herder::api::local::LogFrame;
use herder::api::local::LogKind;
use herder::api::local::Position;
use herder::api::local::RestartTasks;
use herder::api::server;
use herder::model::exec::ExecInput;
use herder::model::exec::ExecOutput;
use herder::model::id::AllocId;
use herder::model::id::NodeId;
use herder::model::node::NodeLive;
use herder::store::key::Key;
use herder::telemetry::Figure;
use herder::telemetry::FigureKind;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::harness::Cluster;
use crate::harness::job;

/// An agent with one file of eight bytes, and a task `t` that says what is said to it.
pub struct OneFile {
    pub node: NodeId,
    /// Commands that were given up before they ended.
    pub abandoned: Arc<Semaphore>,
    /// Its allocations are not those that are asked about.
    pub has_none: bool,
}

impl OneFile {
    pub fn new(node: NodeId) -> Self {
        Self { node, abandoned: Arc::new(Semaphore::new(0)), has_none: false }
    }
}

#[async_trait]
impl LocalAgent for OneFile {
    fn node_id(&self) -> NodeId {
        self.node
    }

    fn has_allocation(&self, _: AllocId) -> bool {
        !self.has_none
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

    async fn exec(
        &self,
        _: AllocId,
        task: &str,
        command: &[String],
        tty: bool,
    ) -> Result<ExecSession, LocalError> {
        match task {
            "t" => {}
            "broken" => return Err(LocalError::Failed("failed to start command".into())),
            _ => return Err(LocalError::Invalid(format!("task {task:?} is not running."))),
        }
        let (input, mut typed) = mpsc::channel(1);
        let (told, output) = mpsc::channel(1);
        let begun = format!("{} {tty}\n", command.join(" "));
        let abandoned = Arc::clone(&self.abandoned);
        tokio::spawn(async move {
            told.send(ExecOutput::Stdout(begun.into_bytes())).await.unwrap();
            loop {
                let message = tokio::select! {
                    message = typed.recv() => message,
                    () = told.closed() => break abandoned.add_permits(1),
                };
                let answer = match message {
                    Some(ExecInput::Data(data)) => ExecOutput::Stdout(data),
                    Some(ExecInput::Resize { rows, columns }) => {
                        ExecOutput::Stderr(format!("{rows}x{columns}").into_bytes())
                    }
                    Some(ExecInput::Close) => ExecOutput::Exited(7),
                    None => break abandoned.add_permits(1),
                };
                let is_last = matches!(answer, ExecOutput::Exited(_));
                if told.send(answer).await.is_err() {
                    break abandoned.add_permits(1);
                }
                if is_last {
                    break;
                }
            }
        });
        Ok(ExecSession { input, output })
    }

    async fn figures(&self) -> Vec<Figure> {
        let labels = [("node-id".to_owned(), self.node.to_string())].into();
        let figure =
            |name: &str, kind| Figure { name: name.into(), kind, value: 5.5, labels: Clone::clone(&labels) };
        vec![
            figure("nomad.client.uptime", FigureKind::Gauge),
            figure("nomad.client.ticks", FigureKind::Counter),
        ]
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

pub async fn with_agent() -> (Cluster, NodeId) {
    let node = NodeId::from_random([9; 16]);
    let cluster = Cluster::start_with(|context| {
        context.local = Some(Arc::new(OneFile::new(node)));
        context.agent.node_id = Some(node);
        context.agent.is_client = true;
    })
    .await;
    (cluster, node)
}

/// Serves a cluster's API; the sender stops it.
pub async fn serve(cluster: &Cluster) -> (String, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
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

#[tokio::test]
async fn the_figures_of_a_node_stand_among_the_metrics() {
    let (cluster, node) = with_agent().await;
    let text = cluster.get("/v1/metrics?format=prometheus").await.text;
    assert!(text.contains(&format!("nomad_client_uptime{{node_id=\"{node}\"}} 5.5")), "{text}");
    assert!(text.contains("# TYPE nomad_client_ticks counter"), "{text}");
    let json = cluster.get("/v1/metrics").await.json;
    let gauges = json["Gauges"].as_array().unwrap();
    let uptime = gauges.iter().find(|gauge| gauge["Name"] == "nomad.client.uptime").unwrap();
    assert_eq!((&uptime["Value"], &uptime["Labels"]["host"]), (&json!(5.5), &json!("host")));
    let refusing = Cluster::start_with(|context| context.config.prometheus = false).await;
    let refused = refusing.get("/v1/metrics?format=prometheus").await;
    assert_eq!((refused.status.as_u16(), refused.text.as_str()), (415, "Prometheus is not enabled"));
}
