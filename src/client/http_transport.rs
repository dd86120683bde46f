//! Requests over HTTP or HTTPS.

use std::error::Error;
use std::io;
use std::net::ToSocketAddrs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use url::Url;

use super::Body;
use super::ClientError;
use super::Socket;
use super::Transport;

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the API is and how to trust it.
#[derive(Clone, Debug, Default)]
pub struct HttpOptions {
    /// `http://host:port` or `https://host:port`; a path is put before every route.
    pub address: String,
    pub ca_cert: Option<PathBuf>,
    pub ca_path: Option<PathBuf>,
    pub client_cert: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
    /// The name that the server's certificate must bear, where it is not the host's.
    pub tls_server_name: Option<String>,
    pub tls_skip_verify: bool,
    /// How long to wait for a connection, instead of ten seconds.
    pub connect_timeout: Option<Duration>,
}

/// The API of an agent at some address.
#[derive(Debug)]
pub struct HttpTransport {
    address: String,
    /// Where requests go: as `address`, save for the host where another TLS name is asked for.
    target: String,
    client: reqwest::Client,
    options: HttpOptions,
}

impl HttpTransport {
    /// Sets up a transport; nothing is sent yet.
    ///
    /// # Errors
    /// When the address is not a URL, or a certificate cannot be read.
    pub fn new(options: &HttpOptions) -> Result<Self, ClientError> {
        let address = options.address.trim_end_matches('/').to_owned();
        let (client, target) = Self::build(options, &address, |builder| builder)?;
        Ok(Self { address, target, client, options: options.clone() })
    }

    /// The client, and where its requests go.
    fn build(
        options: &HttpOptions,
        address: &str,
        change: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> Result<(reqwest::Client, String), ClientError> {
        let mut url = Url::parse(address)
            .map_err(|why| ClientError::Setup(format!("invalid address '{address}': {why}")))?;
        // Fails only if another part of the program installed one, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let patience = options.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        let mut builder = change(reqwest::Client::builder().connect_timeout(patience).no_proxy());
        if url.scheme() == "https" {
            builder = trust(builder, options)?;
            if let Some(name) = &options.tls_server_name {
                builder = rename_host(builder, &mut url, name)?;
            }
        }
        let client = builder.build().map_err(|why| ClientError::Setup(innermost(&why)))?;
        Ok((client, url.as_str().trim_end_matches('/').to_owned()))
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, ClientError> {
        let (head, body) = request.into_parts();
        let verb = go_verb(&head.method);
        let path = head.uri.to_string();
        if !self.target.starts_with("http") {
            let scheme = self.address.split(':').next().unwrap_or_default();
            let why = format!("unsupported protocol scheme {scheme:?}");
            return Err(ClientError::Transport { verb, url: format!("{}{path}", self.address), why });
        }
        let url = format!("{}{path}", self.target);
        let failure = |why: &reqwest::Error| ClientError::Transport {
            verb: verb.clone(),
            url: format!("{}{path}", self.address),
            why: describe(why, &self.address),
        };
        let sent =
            self.client.request(head.method.clone(), &url).headers(head.headers).body(body).send().await;
        let answer = sent.map_err(|why| failure(&why))?;
        let mut response = Response::builder().status(answer.status());
        if let Some(headers) = response.headers_mut() {
            headers.extend(answer.headers().clone());
        }
        let (verb, shown, address) = (verb.clone(), format!("{}{path}", self.address), self.address.clone());
        let pieces = answer.bytes_stream().map_err(move |why| ClientError::Transport {
            verb: verb.clone(),
            url: shown.clone(),
            why: describe(&why, &address),
        });
        response
            .body(Body::from_stream(pieces))
            .map_err(|why| ClientError::Setup(format!("answer of {path} cannot be read: {why}")))
    }

    async fn socket(&self, request: Request<Bytes>) -> Result<Socket, ClientError> {
        let (head, _) = request.into_parts();
        let path = head.uri.to_string();
        // Only the first version of HTTP can be upgraded.
        let (client, target) = Self::build(&self.options, &self.address, reqwest::ClientBuilder::http1_only)?;
        let failure = |why: &(dyn Error + 'static)| ClientError::Transport {
            verb: "Get".to_owned(),
            url: format!("{}{path}", self.address),
            why: describe(why, &self.address),
        };
        let sent = client
            .get(format!("{target}{path}"))
            .headers(head.headers)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", generate_key())
            .send()
            .await;
        let answer = sent.map_err(|why| failure(&why))?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let code = answer.status().as_u16();
            let body = answer.text().await.map_err(|why| failure(&why))?;
            return Err(ClientError::Status { code, body: body.trim().to_owned() });
        }
        let connection = answer.upgrade().await.map_err(|why| failure(&why))?;
        Ok(Socket::over(connection).await)
    }

    fn address(&self) -> &str {
        &self.address
    }
}

fn trust(
    mut builder: reqwest::ClientBuilder,
    options: &HttpOptions,
) -> Result<reqwest::ClientBuilder, ClientError> {
    let files = match (&options.ca_cert, &options.ca_path) {
        (Some(file), _) => vec![file.clone()],
        (None, Some(directory)) => {
            let entries = std::fs::read_dir(directory).map_err(|why| unreadable(directory, &why))?;
            let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            files.sort();
            files
        }
        (None, None) => Vec::new(),
    };
    let mut roots = Vec::new();
    for file in &files {
        let pem = std::fs::read(file).map_err(|why| unreadable(file, &why))?;
        let found = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|why| ClientError::Setup(format!("{}: {}", file.display(), innermost(&why))))?;
        roots.extend(found);
    }
    if !roots.is_empty() {
        builder = builder.tls_certs_only(roots);
    }
    match (&options.client_cert, &options.client_key) {
        (Some(cert), Some(key)) => {
            let mut pem = std::fs::read(cert).map_err(|why| unreadable(cert, &why))?;
            pem.push(b'\n');
            pem.extend(std::fs::read(key).map_err(|why| unreadable(key, &why))?);
            let identity = reqwest::Identity::from_pem(&pem)
                .map_err(|why| ClientError::Setup(format!("{}: {}", cert.display(), innermost(&why))))?;
            builder = builder.identity(identity);
        }
        (None, None) => {}
        _ => {
            let why = "both client cert and client key must be provided";
            return Err(ClientError::Setup(why.to_owned()));
        }
    }
    Ok(builder.tls_danger_accept_invalid_certs(options.tls_skip_verify))
}

/// Asks for `name` in the TLS handshake, while connecting to the host of the address.
fn rename_host(
    builder: reqwest::ClientBuilder,
    url: &mut Url,
    name: &str,
) -> Result<reqwest::ClientBuilder, ClientError> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let addresses: Vec<_> = (host.as_str(), port)
        .to_socket_addrs()
        .map_err(|why| ClientError::Setup(format!("lookup {host}: {why}")))?
        .collect();
    url.set_host(Some(name)).map_err(|why| ClientError::Setup(format!("invalid TLS server name: {why}")))?;
    Ok(builder.resolve_to_addrs(name, &addresses))
}

fn unreadable(file: &Path, why: &io::Error) -> ClientError {
    ClientError::Setup(format!("cannot read {}: {why}", file.display()))
}

/// `GET` as `Get`.
fn go_verb(method: &Method) -> String {
    let name = method.as_str();
    let (first, rest) = name.split_at(1);
    format!("{first}{}", rest.to_lowercase())
}

fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// The words that Nomad's users know for the usual failures.
fn describe(error: &(dyn Error + 'static), address: &str) -> String {
    let host = Url::parse(address).ok().map_or_else(
        || address.to_owned(),
        |url| format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(80)),
    );
    let mut current: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = current {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::ConnectionRefused
        {
            return format!("dial tcp {host}: connect: connection refused");
        }
        current = error.source();
    }
    innermost(error)
}
