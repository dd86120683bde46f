//! How Docker is reached: its socket, a port, or a port behind TLS.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use bollard::API_DEFAULT_VERSION;
use bollard::BollardRequest;
use bollard::Docker as Client;
use bollard::errors::Error;
use bollard::models::ContainerCreateBody;
use bytes::Bytes;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

use crate::drivers::DriverError;

/// Files of the encryption, in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Who vouches for Docker; nobody else is trusted.
    pub ca: PathBuf,
}

/// What the files looked like when they were read.
type Ages = [Option<SystemTime>; 3];

/// The way to one Docker.
#[derive(Debug)]
pub(super) struct Connection {
    endpoint: String,
    tls: Option<TlsFiles>,
    /// Reading the files takes longer than most requests, so it is done once for each version of them.
    encrypted: Mutex<Option<(Ages, Client)>>,
}

impl Connection {
    /// To `unix://<path>` or `tcp://<host>:<port>`. Contacts nobody yet.
    pub(super) fn new(endpoint: &str, tls: Option<TlsFiles>) -> Self {
        Self { endpoint: endpoint.to_owned(), tls, encrypted: Mutex::default() }
    }

    /// The socket, if it is one of this machine.
    pub(super) fn socket(&self) -> Option<&Path> {
        match self.endpoint.strip_prefix("unix://") {
            None if self.endpoint.contains("://") => None,
            path => Some(Path::new(path.unwrap_or(&self.endpoint))),
        }
    }

    /// A client. `limit`: for an answer to begin, seconds.
    ///
    /// # Errors
    /// A file cannot be used, or the endpoint is no address.
    pub(super) fn client(&self, limit: u64) -> Result<Client, DriverError> {
        let client = match (&self.tls, self.socket()) {
            (_, Some(path)) => Client::connect_with_unix(&path.to_string_lossy(), limit, API_DEFAULT_VERSION)
                .map_err(|error| error.to_string()),
            (Some(files), None) => self.encrypted(files),
            (None, None) => Client::connect_with_http(&self.endpoint, limit, API_DEFAULT_VERSION)
                .map_err(|error| error.to_string()),
        };
        let failed = |why| DriverError::Recoverable(format!("Failed to connect to docker daemon: {why}"));
        let client = client.map_err(failed)?.with_timeout(Duration::from_secs(limit));
        Ok(client.with_request_modifier(url_safe_credentials))
    }

    fn encrypted(&self, files: &TlsFiles) -> Result<Client, String> {
        let age = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
        let ages = [&files.cert, &files.key, &files.ca].map(|path| age(path));
        let mut known = self.encrypted.lock();
        if let Some((then, client)) = &*known
            && *then == ages
        {
            return Ok(client.clone());
        }
        let client = encrypt(&self.endpoint, files)?;
        *known = Some((ages, client.clone()));
        Ok(client)
    }
}

fn encrypt(endpoint: &str, files: &TlsFiles) -> Result<Client, String> {
    // Fails only if another part of the program installed one, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let unreadable = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, String> {
        let read = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(path, &error))?;
        let all: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| unreadable(path, &error))?;
        if all.is_empty() { Err(unreadable(path, &"there is no certificate in it")) } else { Ok(all) }
    };
    let mut roots = rustls::RootCertStore::empty();
    for root in certificates(&files.ca)? {
        roots.add(root).map_err(|error| unreadable(&files.ca, &error))?;
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unreadable(&files.key, &error))?;
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&files.cert)?, key)
        .map_err(|error| unreadable(&files.cert, &error))?;
    let mut plain = HttpConnector::new();
    plain.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only()
        .enable_http1()
        .wrap_connector(plain);
    let client = legacy::Client::builder(TokioExecutor::new()).build(connector);
    let transport = move |request: BollardRequest| {
        let answer = client.request(request);
        async move { answer.await.map_err(|error| Error::from(std::io::Error::other(innermost(&error)))) }
    };
    let host = endpoint.split_once("://").map_or(endpoint, |(_, host)| host);
    Client::connect_with_custom_transport(transport, Some(format!("https://{host}")), 1, API_DEFAULT_VERSION)
        .map_err(|error| error.to_string())
}

/// The client says only that it could not connect; why stands behind that.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// A client that asks for this container with an address of its hardware, if there is one. Older Dockers want to be told
/// beside the networks, where the client's model of a container has no place for it.
pub(super) fn with_mac_address(client: Client, body: &ContainerCreateBody, address: &str) -> Client {
    let Ok(Value::Object(mut body)) = serde_json::to_value(body) else { return client };
    if address.is_empty() {
        return client;
    }
    body.insert("MacAddress".to_owned(), address.into());
    let body = Bytes::from(Value::Object(body).to_string());
    client.with_request_modifier(move |mut request| {
        if request.method() == http::Method::POST && request.uri().path().ends_with("/containers/create") {
            *request.body_mut() = bollard::body_full(body.clone());
        }
        request
    })
}

/// Docker reads the header with credentials in the alphabet for addresses; the client writes it in the other one.
fn url_safe_credentials(mut request: BollardRequest) -> BollardRequest {
    if let Some(value) = request.headers_mut().get_mut("x-registry-auth")
        && let Ok(text) = value.to_str()
        && let Ok(safe) = text.replace('+', "-").replace('/', "_").parse()
    {
        *value = safe;
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        let files = TlsFiles { cert: "/no/cert.pem".into(), key: "/no/key.pem".into(), ca: ca.clone() };
        let why = |files: &TlsFiles| {
            let connection = Connection::new("tcp://127.0.0.1:1", Some(files.clone()));
            connection.client(1).unwrap_err().to_string()
        };
        let text = why(&files);
        assert!(
            text.starts_with(&format!("Failed to connect to docker daemon: {}: ", ca.display())),
            "{text}"
        );
        std::fs::write(&ca, "nothing").unwrap();
        assert!(why(&files).ends_with("there is no certificate in it"), "{}", why(&files));
    }

    #[test]
    fn a_socket_is_told_from_a_port() {
        let socket = |endpoint: &str| Connection::new(endpoint, None).socket().map(Path::to_owned);
        assert_eq!(socket("unix:///run/x.sock"), Some("/run/x.sock".into()));
        assert_eq!(socket("/run/x.sock"), Some("/run/x.sock".into()));
        assert_eq!(socket("tcp://127.0.0.1:2376"), None);
    }
}
