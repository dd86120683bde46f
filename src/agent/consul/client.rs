//! The part of Consul's HTTP API that an agent needs.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderMap;
use reqwest::header::HeaderValue;
use serde_json::Value;

use crate::agent::hooks::http::install_tls;

/// Answers of Consul that are shown to people are cut here, bytes.
const ANSWER_SHOWN: usize = 300;

/// How to reach the machine's Consul agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulOptions {
    /// `host:port`, with or without `http://` or `https://`.
    pub address: String,
    pub token: String,
    /// `user:password`.
    pub auth: String,
    /// HTTPS, when the address does not say.
    pub ssl: bool,
    pub verify_ssl: bool,
    pub ca_file: PathBuf,
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Empty for Consul's own default.
    pub namespace: String,
    pub timeout: Duration,
}

impl Default for ConsulOptions {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:8500".to_owned(),
            token: String::new(),
            auth: String::new(),
            ssl: false,
            verify_ssl: true,
            ca_file: PathBuf::new(),
            cert_file: PathBuf::new(),
            key_file: PathBuf::new(),
            namespace: String::new(),
            timeout: Duration::from_secs(5),
        }
    }
}

/// Why Consul did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsulError {
    #[error("cannot set up the client of Consul: {0}")]
    Setup(String),
    #[error("cannot reach Consul at {address}: {why}")]
    Unreachable { address: String, why: String },
    #[error("Consul refused {method} {path}: {status} {text}")]
    Refused { method: String, path: String, status: u16, text: String },
    #[error("Consul's answer to {path} is not understood: {why}")]
    Answer { path: String, why: String },
}

/// Speaks to one Consul agent.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    options: ConsulOptions,
}

impl Client {
    /// Contacts nobody yet.
    ///
    /// # Errors
    /// A certificate cannot be read, or a header cannot be formed of the token.
    pub fn new(options: ConsulOptions) -> Result<Self, ConsulError> {
        install_tls();
        let setup = |why: String| ConsulError::Setup(why);
        let mut headers = HeaderMap::new();
        if !options.token.is_empty() {
            let mut token =
                HeaderValue::from_str(&options.token).map_err(|error| setup(error.to_string()))?;
            token.set_sensitive(true);
            headers.insert("x-consul-token", token);
        }
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .timeout(options.timeout)
            .no_proxy()
            .tls_danger_accept_invalid_certs(!options.verify_ssl);
        let read = |path: &PathBuf| {
            fs::read(path).map_err(|error| setup(format!("cannot read {}: {error}", path.display())))
        };
        if !options.ca_file.as_os_str().is_empty() {
            let ca = reqwest::Certificate::from_pem_bundle(&read(&options.ca_file)?)
                .map_err(|error| setup(format!("{}: {error}", options.ca_file.display())))?;
            builder = builder.tls_certs_merge(ca);
        }
        if !options.cert_file.as_os_str().is_empty() {
            let mut pem = read(&options.cert_file)?;
            pem.extend(read(&options.key_file)?);
            let identity = reqwest::Identity::from_pem(&pem)
                .map_err(|error| setup(format!("{}: {error}", options.cert_file.display())))?;
            builder = builder.identity(identity);
        }
        let http = builder.build().map_err(|error| setup(error.to_string()))?;
        let scheme = if options.ssl { "https" } else { "http" };
        let base = if options.address.contains("://") {
            options.address.trim_end_matches('/').to_owned()
        } else {
            format!("{scheme}://{}", options.address)
        };
        Ok(Self { http, base, options })
    }

    /// Asks.
    ///
    /// # Errors
    /// See [`ConsulError`].
    pub async fn get(&self, path: &str) -> Result<Value, ConsulError> {
        let text = self.send(Method::GET, path, None).await?;
        serde_json::from_str(&text)
            .map_err(|error| ConsulError::Answer { path: path.to_owned(), why: error.to_string() })
    }

    /// Orders.
    ///
    /// # Errors
    /// See [`ConsulError`].
    pub async fn put(&self, path: &str, body: Option<&Value>) -> Result<(), ConsulError> {
        self.send(Method::PUT, path, body).await.map(drop)
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<String, ConsulError> {
        let unreachable = |error: reqwest::Error| {
            let mut why: &dyn std::error::Error = &error;
            while let Some(cause) = why.source() {
                why = cause;
            }
            ConsulError::Unreachable { address: self.base.clone(), why: why.to_string() }
        };
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.base));
        if !self.options.namespace.is_empty() {
            request = request.query(&[("ns", &self.options.namespace)]);
        }
        if let Some((user, password)) = self.options.auth.split_once(':') {
            request = request.basic_auth(user, Some(password));
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let text = answer.text().await.map_err(unreachable)?;
        if status.is_success() {
            return Ok(text);
        }
        let mut shown = text.trim();
        if let Some((at, _)) = shown.char_indices().find(|(at, _)| *at >= ANSWER_SHOWN) {
            shown = &shown[..at];
        }
        Err(ConsulError::Refused {
            method: method.to_string(),
            path: path.to_owned(),
            status: status.as_u16(),
            text: shown.to_owned(),
        })
    }
}
