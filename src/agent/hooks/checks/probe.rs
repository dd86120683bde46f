//! Asks a service whether it is well: over TCP, HTTP, gRPC, or with a command inside the task.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use percent_encoding::percent_decode;
use reqwest::Client;
use reqwest::Method;
use reqwest::header::HeaderMap;
use reqwest::header::HeaderName;
use reqwest::header::HeaderValue;
use tokio::net::TcpStream;
use url::Url;

use crate::agent::hooks::TaskExec;
use crate::agent::hooks::http::describe;
use crate::agent::hooks::http::install_tls;
use crate::model::service::ServiceCheck;

/// Longest output that is kept, bytes.
const OUTPUT_MAX: usize = 3 * 1024;
/// The exit code of a script that warns.
const EXIT_WARNING: i32 = 1;
/// `SERVING` in gRPC's health protocol: field 1, value 1.
const GRPC_SERVING: [u8; 2] = [0x08, 0x01];
/// Flag and length before a gRPC message, bytes.
const GRPC_PREFIX: usize = 5;

/// Where a service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::agent::hooks) struct Target {
    pub(in crate::agent::hooks) address: String,
    pub(in crate::agent::hooks) port: i64,
}

impl Target {
    /// `host:port`, with IPv6 addresses in brackets.
    pub(in crate::agent::hooks) fn authority(&self) -> String {
        if self.address.contains(':') {
            format!("[{}]:{}", self.address, self.port)
        } else {
            format!("{}:{}", self.address, self.port)
        }
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::agent::hooks) enum Probe {
    Tcp(Target),
    Http {
        method: String,
        /// Unparsed, so that a bad path is a failing check, not a lost one.
        url: String,
        headers: BTreeMap<String, Vec<String>>,
        body: String,
        tls: Tls,
    },
    Grpc {
        url: String,
        service: String,
        tls: Tls,
    },
    Script {
        task: String,
        command: Vec<String>,
    },
    /// Cannot be asked at all, for this reason.
    Impossible(String),
}

/// How far a server's certificate is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::agent::hooks) struct Tls {
    insecure: bool,
    /// The name that it must be for, where that is not the address; empty otherwise.
    name: String,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::agent::hooks) struct Outcome {
    pub(in crate::agent::hooks) passed: bool,
    /// Failed, but only a little: scripts can say so.
    pub(in crate::agent::hooks) warning: bool,
    /// The HTTP status; 0 for other kinds.
    pub(in crate::agent::hooks) code: u16,
    pub(in crate::agent::hooks) output: String,
}

impl Outcome {
    fn passed(code: u16, output: &str) -> Self {
        Self { passed: true, warning: false, code, output: output.to_owned() }
    }

    fn failed(code: u16, output: impl Into<String>) -> Self {
        Self { passed: false, warning: false, code, output: output.into() }
    }
}

impl Probe {
    /// The question that `check` asks at `target`; scripts run in `task`.
    pub(in crate::agent::hooks) fn new(
        check: &ServiceCheck,
        target: Result<Target, String>,
        task: &str,
    ) -> Self {
        if check.kind == "script" {
            let command = std::iter::once(&check.command).chain(&check.args).cloned().collect();
            return Self::Script { task: task.to_owned(), command };
        }
        let target = match target {
            Ok(target) => target,
            Err(reason) => return Self::Impossible(reason),
        };
        let tls = Tls { insecure: check.tls_skip_verify, name: check.tls_server_name.clone() };
        match check.kind.as_str() {
            "tcp" => Self::Tcp(target),
            "http" => {
                let scheme = if check.protocol.is_empty() { "http" } else { check.protocol.as_str() };
                let separator = if check.path.starts_with('/') { "" } else { "/" };
                Self::Http {
                    method: if check.method.is_empty() {
                        "GET".to_owned()
                    } else {
                        check.method.to_uppercase()
                    },
                    url: format!("{scheme}://{}{separator}{}", target.authority(), check.path),
                    headers: check.header.clone(),
                    body: check.body.clone(),
                    tls,
                }
            }
            "grpc" => {
                let scheme = if check.grpc_use_tls { "https" } else { "http" };
                Self::Grpc {
                    url: format!("{scheme}://{}/grpc.health.v1.Health/Check", target.authority()),
                    service: check.grpc_service.clone(),
                    tls,
                }
            }
            other => Self::Impossible(format!("invalid check type ({other:?})")),
        }
    }

    /// Asks, and waits at most `timeout` for the answer.
    pub(in crate::agent::hooks) async fn ask(&self, exec: &dyn TaskExec, timeout: Duration) -> Outcome {
        match self {
            Self::Tcp(target) => tcp(target, timeout).await,
            Self::Http { method, url, headers, body, tls } => {
                match http(method, url, headers, body, tls, timeout).await {
                    Ok(outcome) => outcome,
                    Err(reason) => Outcome::failed(0, reason),
                }
            }
            Self::Grpc { url, service, tls } => match grpc(url, service, tls, timeout).await {
                Ok(outcome) => outcome,
                Err(reason) => Outcome::failed(0, reason),
            },
            Self::Script { task, command } => script(exec, task, command, timeout).await,
            Self::Impossible(reason) => Outcome::failed(0, reason.as_str()),
        }
    }
}

async fn tcp(target: &Target, timeout: Duration) -> Outcome {
    let at = target.authority();
    match tokio::time::timeout(timeout, TcpStream::connect(&at)).await {
        Ok(Ok(_)) => Outcome::passed(0, "nomad: tcp ok"),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Outcome::failed(0, format!("dial tcp {at}: connect: connection refused"))
        }
        Ok(Err(error)) => Outcome::failed(0, format!("dial tcp {at}: {error}")),
        Err(_) => Outcome::failed(0, format!("dial tcp {at}: i/o timeout")),
    }
}

/// One client per kind for the whole process. They keep no connections, so it does not matter who made them.
fn client(kind: ClientKind) -> Result<&'static Client, String> {
    static CLIENTS: [OnceLock<Result<Client, String>>; 4] = [const { OnceLock::new() }; 4];
    let made = CLIENTS[usize::from(kind.insecure) + 2 * usize::from(kind.plain_http2)]
        .get_or_init(|| builder(kind).build().map_err(|error| error.to_string()));
    made.as_ref().map_err(Clone::clone)
}

fn builder(kind: ClientKind) -> reqwest::ClientBuilder {
    install_tls();
    let builder = Client::builder().pool_max_idle_per_host(0).no_gzip().no_proxy();
    let builder = builder.tls_danger_accept_invalid_certs(kind.insecure);
    if kind.plain_http2 { builder.http2_prior_knowledge() } else { builder }
}

/// The client for a question, and the URL for it: where the certificate is for another name than the address, the
/// question goes to that name, which then stands for the address.
fn client_for(kind: ClientKind, mut url: Url, name: &str) -> Result<(Client, Url), String> {
    let target = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
    let Some(ip) = target.filter(|_| !name.is_empty() && url.scheme() == "https") else {
        return client(kind).map(|client| (client.clone(), url));
    };
    let port = url.port_or_known_default().unwrap_or(0);
    url.set_host(Some(name)).map_err(|error| format!("invalid tls_server_name {name:?}: {error}"))?;
    let client = builder(kind).resolve(name, SocketAddr::new(ip, port)).build();
    client.map(|client| (client, url)).map_err(|error| error.to_string())
}

#[derive(Clone, Copy)]
struct ClientKind {
    insecure: bool,
    plain_http2: bool,
}

async fn http(
    method: &str,
    url: &str,
    headers: &BTreeMap<String, Vec<String>>,
    body: &str,
    tls: &Tls,
    timeout: Duration,
) -> Result<Outcome, String> {
    let url = Url::parse(url).map_err(|error| format!("parse {url:?}: {error}"))?;
    let verb =
        Method::from_bytes(method.as_bytes()).map_err(|_| format!("net/http: invalid method {method:?}"))?;
    let mut map = HeaderMap::new();
    for (name, values) in headers {
        let name =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("invalid header name {name:?}"))?;
        for value in values {
            let value =
                HeaderValue::from_str(value).map_err(|_| format!("invalid value of header {name}"))?;
            map.append(name.clone(), value);
        }
    }
    let kind = ClientKind { insecure: tls.insecure, plain_http2: false };
    let (client, url) = client_for(kind, url, &tls.name)?;
    let request = client.request(verb, url.clone()).headers(map).body(body.to_owned()).timeout(timeout);
    let response = request.send().await.map_err(|error| describe(&error, method, &url))?;
    let code = response.status().as_u16();
    if code == 200 {
        return Ok(Outcome::passed(code, "nomad: http ok"));
    }
    let output = beginning(response).await;
    Ok(Outcome { passed: code < 400, warning: false, code, output })
}

/// The first bytes of a body.
async fn beginning(mut response: reqwest::Response) -> String {
    let mut body = Vec::new();
    while body.len() < OUTPUT_MAX {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    shortened(&body)
}

fn shortened(output: &[u8]) -> String {
    String::from_utf8_lossy(&output[..output.len().min(OUTPUT_MAX)]).into_owned()
}

/// gRPC's health protocol, whose messages are small enough to be written by hand.
async fn grpc(url: &str, service: &str, tls: &Tls, timeout: Duration) -> Result<Outcome, String> {
    let url = Url::parse(url).map_err(|error| format!("parse {url:?}: {error}"))?;
    let length = u8::try_from(service.len()).ok().filter(|length| *length < 128);
    let length = length.ok_or_else(|| format!("grpc service name {service:?} is too long"))?;
    let mut message = Vec::new();
    if length > 0 {
        message.extend_from_slice(&[0x0a, length]);
        message.extend_from_slice(service.as_bytes());
    }
    let mut body = vec![0, 0, 0, 0, message.len() as u8];
    body.extend_from_slice(&message);
    let kind = ClientKind { insecure: tls.insecure, plain_http2: url.scheme() == "http" };
    let (client, url) = client_for(kind, url, &tls.name)?;
    let request =
        client.post(url.clone()).header("content-type", "application/grpc").header("te", "trailers");
    let response = request.body(body).timeout(timeout).send().await;
    let mut response = response.map_err(|error| describe(&error, "POST", &url))?;
    if let Some(message) = response.headers().get("grpc-message") {
        let message = percent_decode(message.as_bytes()).decode_utf8_lossy();
        return Ok(Outcome::failed(0, format!("grpc: {message}")));
    }
    let mut answer = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        answer.extend_from_slice(&chunk);
        if answer.len() > OUTPUT_MAX {
            break;
        }
    }
    Ok(match answer.get(GRPC_PREFIX..) {
        Some(status) if status.starts_with(&GRPC_SERVING) => Outcome::passed(0, "nomad: grpc ok"),
        _ => Outcome::failed(0, format!("gRPC {} is not serving", url.authority())),
    })
}

async fn script(exec: &dyn TaskExec, task: &str, command: &[String], timeout: Duration) -> Outcome {
    match tokio::time::timeout(timeout, exec.exec(task, command, timeout)).await {
        Ok(Ok((code, output))) => {
            Outcome { passed: code == 0, warning: code == EXIT_WARNING, code: 0, output: shortened(&output) }
        }
        Ok(Err(error)) => Outcome::failed(0, error.message),
        Err(_) => Outcome::failed(0, format!("script did not end within {}s", timeout.as_secs())),
    }
}

#[cfg(test)]
mod tests;
