//! A client of the HTTP API, over whatever carries requests: a connection, or the API called in this process.

mod frames;
mod http_transport;
mod socket;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use futures::StreamExt;
use futures::stream;
use http::Method;
use http::Request;
use http::Response;
use percent_encoding::AsciiSet;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;
use serde_json::Value;

pub use self::frames::Frame;
pub use self::frames::FrameDecoder;
pub use self::http_transport::HttpOptions;
pub use self::http_transport::HttpTransport;
pub use self::socket::Socket;
pub use self::socket::SocketMessage;

/// The largest answer that is read into memory as a whole, in bytes.
const MAX_ANSWER: usize = 1 << 30;

/// Characters that stand for themselves in a path segment or a query value.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Why a request failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The server answered with another status than 200 to 299.
    #[error("Unexpected response code: {code} ({body})")]
    Status { code: u16, body: String },
    /// The request did not get an answer. `verb` is written as Go does: `Get`, `Put`.
    #[error("{verb} \"{url}\": {why}")]
    Transport { verb: String, url: String, why: String },
    /// The answer is not what the API promises.
    #[error("failed to decode the answer of {path}: {why}")]
    Decode { path: String, why: String },
    /// The client cannot be set up as asked.
    #[error("{0}")]
    Setup(String),
}

impl ClientError {
    /// True for an answer with this status.
    pub fn is_status(&self, wanted: u16) -> bool {
        matches!(self, Self::Status { code, .. } if *code == wanted)
    }
}

/// The body of an answer, read piece by piece.
pub struct Body(Pin<Box<dyn Stream<Item = Result<Bytes, ClientError>> + Send>>);

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body")
    }
}

impl Body {
    /// A body of these pieces.
    pub fn from_stream(pieces: impl Stream<Item = Result<Bytes, ClientError>> + Send + 'static) -> Self {
        Self(Box::pin(pieces))
    }

    /// A body that is known as a whole.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(Box::pin(stream::once(async move { Ok(bytes) })))
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, ClientError>> {
        self.0.next().await
    }

    /// Everything up to the end.
    ///
    /// # Errors
    /// Those of the connection, and an answer that is larger than a gibibyte.
    pub async fn collect(mut self) -> Result<Bytes, ClientError> {
        let mut all = Vec::new();
        while let Some(piece) = self.next().await {
            all.extend_from_slice(&piece?);
            if all.len() > MAX_ANSWER {
                return Err(ClientError::Setup("the answer is larger than a gibibyte".to_owned()));
            }
        }
        Ok(all.into())
    }
}

/// Carries one request to the API. The URI of a request is a path with a query, without host.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Sends the request and gives the answer, whatever its status.
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, ClientError>;

    /// Sends a request that becomes a websocket.
    async fn socket(&self, request: Request<Bytes>) -> Result<Socket, ClientError> {
        let why = format!("{} needs the address of an agent", request.uri().path());
        Err(ClientError::Setup(why))
    }

    /// The address for messages and for the web interface, such as `http://127.0.0.1:4646`.
    fn address(&self) -> &str;
}

/// What is added to every request.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    pub region: Option<String>,
    pub namespace: Option<String>,
    pub token: Option<String>,
    /// `user:password` for a proxy in front of the API.
    pub basic_auth: Option<String>,
}

/// An answer that was read as a whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// `X-Nomad-Index`; zero when absent.
    pub index: u64,
    /// Where the next page starts, if there is one.
    pub next_token: Option<String>,
    /// The body; null when it is empty.
    pub value: Value,
}

/// Talks to the API.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    scope: Scope,
}

/// Query parameters of a request.
pub type Query<'a> = &'a [(&'a str, &'a str)];

impl Client {
    /// A client over this transport.
    pub fn new(transport: Arc<dyn Transport>, scope: Scope) -> Self {
        Self { transport, scope }
    }

    /// The address of the API, for messages.
    pub fn address(&self) -> &str {
        self.transport.address()
    }

    /// The namespace that requests name, if any.
    pub fn namespace(&self) -> Option<&str> {
        self.scope.namespace.as_deref()
    }

    /// The region that requests name, if any.
    pub fn region(&self) -> Option<&str> {
        self.scope.region.as_deref()
    }

    /// The same client for another namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        let mut other = self.clone();
        if !namespace.is_empty() {
            other.scope.namespace = Some(namespace.to_owned());
        }
        other
    }

    /// The same client for another region.
    #[must_use]
    pub fn in_region(&self, region: &str) -> Self {
        let mut other = self.clone();
        if !region.is_empty() {
            other.scope.region = Some(region.to_owned());
        }
        other
    }

    /// The same client at another place.
    #[must_use]
    pub fn over(&self, transport: Arc<dyn Transport>) -> Self {
        Self { transport, scope: self.scope.clone() }
    }

    /// Opens a websocket.
    ///
    /// # Errors
    /// When there is no answer or a refusal.
    pub async fn socket(&self, path: &str, query: Query<'_>) -> Result<Socket, ClientError> {
        let request = self.request(Method::GET, path, query, Bytes::new(), &[])?;
        self.transport.socket(request).await
    }

    /// Reads an object or a list.
    ///
    /// # Errors
    /// When there is no answer, or one that is not 2xx, or not JSON.
    pub async fn get(&self, path: &str, query: Query<'_>) -> Result<Answer, ClientError> {
        self.exchange(Method::GET, path, query, None).await
    }

    /// Writes.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn put(&self, path: &str, query: Query<'_>, body: &Value) -> Result<Answer, ClientError> {
        self.exchange(Method::PUT, path, query, Some(body)).await
    }

    /// Deletes.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn delete(&self, path: &str, query: Query<'_>) -> Result<Answer, ClientError> {
        self.exchange(Method::DELETE, path, query, None).await
    }

    /// Reads an answer piece by piece.
    ///
    /// # Errors
    /// When there is no answer or one that is not 2xx.
    pub async fn stream(&self, path: &str, query: Query<'_>) -> Result<Body, ClientError> {
        let request = self.request(Method::GET, path, query, Bytes::new(), &[])?;
        Ok(expect_success(self.transport.send(request).await?).await?.into_body())
    }

    /// Sends a request of any kind and gives the answer whatever its status.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        headers: &[(String, String)],
        body: Bytes,
    ) -> Result<Response<Body>, ClientError> {
        let request = self.request(method, path, &[], body, headers)?;
        self.transport.send(request).await
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        body: Option<&Value>,
    ) -> Result<Answer, ClientError> {
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = self.request(method, path, query, body, &[])?;
        let answer = expect_success(self.transport.send(request).await?).await?;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let index = header("x-nomad-index").and_then(|text| text.parse().ok()).unwrap_or(0);
        let next_token = header("x-nomad-nexttoken").filter(|text| !text.is_empty()).map(str::to_owned);
        let bytes = answer.into_body().collect().await?;
        let value = if bytes.iter().all(u8::is_ascii_whitespace) {
            Value::Null
        } else {
            serde_json::from_slice(&bytes)
                .map_err(|why| ClientError::Decode { path: path.to_owned(), why: why.to_string() })?
        };
        Ok(Answer { index, next_token, value })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        body: Bytes,
        headers: &[(String, String)],
    ) -> Result<Request<Bytes>, ClientError> {
        let mut target = path.to_owned();
        let mut separator = if path.contains('?') { '&' } else { '?' };
        let mut add = |name: &str, value: &str| {
            if !has_parameter(&target, name) {
                target.push_str(&format!("{separator}{name}={}", escape(value)));
                separator = '&';
            }
        };
        for (name, value) in query {
            add(name, value);
        }
        for (name, value) in [("region", &self.scope.region), ("namespace", &self.scope.namespace)] {
            if let Some(value) = value {
                add(name, value);
            }
        }
        let mut request = Request::builder().method(method).uri(target);
        if let Some(token) = &self.scope.token {
            request = request.header("X-Nomad-Token", token);
        }
        if let Some(basic) = &self.scope.basic_auth {
            let words = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, basic);
            request = request.header("Authorization", format!("Basic {words}"));
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request
            .body(body)
            .map_err(|why| ClientError::Setup(format!("request to {path} cannot be made: {why}")))
    }
}

/// Writes `text` so that it is one path segment or query value.
pub fn escape(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

fn has_parameter(target: &str, name: &str) -> bool {
    target.split_once('?').is_some_and(|(_, query)| {
        query.split('&').any(|pair| pair.split_once('=').map_or(pair, |(key, _)| key) == name)
    })
}

async fn expect_success(answer: Response<Body>) -> Result<Response<Body>, ClientError> {
    if answer.status().is_success() {
        return Ok(answer);
    }
    let code = answer.status().as_u16();
    let body = answer.into_body().collect().await?;
    Err(ClientError::Status { code, body: String::from_utf8_lossy(&body).trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    #[async_trait]
    impl Transport for Echo {
        async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, ClientError> {
            let text = format!("{:?}", format!("{} {}", request.method(), request.uri()));
            Ok(Response::builder().header("X-Nomad-Index", "7").body(Body::from_bytes(text.into())).unwrap())
        }

        fn address(&self) -> &str {
            "in-process"
        }
    }

    #[tokio::test]
    async fn region_and_namespace_join_the_query_unless_it_names_them() {
        let scope = Scope { region: Some("eu west".into()), namespace: Some("*".into()), ..Scope::default() };
        let client = Client::new(Arc::new(Echo), scope);
        let answer = client.get("/v1/jobs", &[("prefix", "a/b")]).await.unwrap();
        assert_eq!(answer.index, 7);
        assert_eq!(answer.value, "GET /v1/jobs?prefix=a%2Fb&region=eu%20west&namespace=%2A");
        let answer = client.get("/v1/jobs?namespace=x", &[]).await.unwrap();
        assert_eq!(answer.value, "GET /v1/jobs?namespace=x&region=eu%20west");
    }
}
