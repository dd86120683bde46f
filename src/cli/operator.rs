//! `operator api`, `operator metrics`

use bytes::Bytes;
use http::Method;

use super::context::Context;
use super::context::Failure;
use super::context::Outcome;
use super::registry::Run;
use crate::client::Client;
use crate::client::HttpTransport;
use crate::client::escape;

/// Sends a request of any kind.
#[derive(clap::Args, Clone, Debug)]
pub struct Api {
    /// The method. Default = GET, or POST when something is piped in.
    #[arg(long = "X", value_name = "method")]
    method: Option<String>,
    /// A header, 'Name: value'. May be given several times.
    #[arg(long = "H", value_name = "header", action = clap::ArgAction::Append)]
    headers: Vec<String>,
    /// A filter to put into the query.
    #[arg(long, value_name = "expression")]
    filter: Option<String>,
    /// Print what curl would have to be told.
    #[arg(long)]
    dryrun: bool,
    /// Show the headers on standard error.
    #[arg(long)]
    verbose: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

/// Something can be read from standard input: neither a terminal nor `/dev/null` is there.
fn is_piped() -> bool {
    let mode = nix::sys::stat::fstat(std::io::stdin()).map(|stat| stat.st_mode & libc::S_IFMT);
    mode.is_ok_and(|kind| kind != libc::S_IFCHR)
}

impl Run for Api {
    async fn run(self, context: &Context) -> Outcome {
        Context::expect_args(&self.args, 1, "<path>")?;
        let piped = is_piped();
        let given = self.method.clone();
        let word = given.unwrap_or_else(|| if piped { "POST".to_owned() } else { "GET".to_owned() });
        let method: Method = word.to_uppercase().parse().map_err(|_| format!("invalid method {word:?}"))?;
        let (client, mut path) = self.target(context).await?;
        if let Some(filter) = &self.filter {
            let separator = if path.contains('?') { '&' } else { '?' };
            path.push_str(&format!("{separator}filter={}", escape(filter)));
        }
        if self.dryrun {
            context.out.line(self.curl(context, &client, &method, &path, piped));
            return Ok(0);
        }
        let has_body = piped && !matches!(method, Method::GET | Method::HEAD | Method::DELETE);
        let body = if has_body {
            context.out.read_stdin().map_err(|why| format!("Error reading input: {why}"))?
        } else {
            Vec::new()
        };
        let mut headers = Vec::new();
        for header in &self.headers {
            let (name, value) = header.split_once(':').ok_or_else(|| {
                Failure::from(format!("Header in unexpected form: {header:?}: write 'Name: value'"))
            })?;
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        if self.verbose {
            context.out.error(format!("> {method} {path}"));
        }
        let sent = client.raw(method, &path, &headers, Bytes::from(body)).await;
        let answer = sent.map_err(|why| format!("Error performing request: {why}"))?;
        if self.verbose {
            context.out.error(format!("< {}", answer.status()));
            for (name, value) in answer.headers() {
                context.out.error(format!("< {name}: {}", value.to_str().unwrap_or_default()));
            }
        }
        let mut body = answer.into_body();
        while let Some(piece) = body.next().await {
            context.out.raw(&piece.map_err(|why| format!("Error reading response body: {why}"))?);
        }
        Ok(0)
    }
}

impl Api {
    /// The client and the path: `/v1/…`, `host:port/v1/…` or a whole URL.
    async fn target(&self, context: &Context) -> Result<(Client, String), Failure> {
        let given = &self.args[0];
        if given.starts_with('/') || given.starts_with("v1/") {
            let path = format!("/{}", given.trim_start_matches('/'));
            return Ok((context.client().await?.clone(), path));
        }
        let mut options = context.general.http_options();
        let url = if given.contains("://") {
            given.clone()
        } else {
            let scheme = options.address.split("://").next().unwrap_or("http");
            format!("{scheme}://{given}")
        };
        let url =
            url::Url::parse(&url).map_err(|why| format!("Error constructing request: {url:?}: {why}"))?;
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        options.address = url.origin().ascii_serialization();
        let transport =
            HttpTransport::new(&options).map_err(|why| format!("Error constructing request: {why}"))?;
        Ok((Client::new(std::sync::Arc::new(transport), context.general.scope()), path))
    }

    fn curl(&self, context: &Context, client: &Client, method: &Method, path: &str, piped: bool) -> String {
        let mut parts = vec!["curl".to_owned()];
        if self.verbose {
            parts.push("--verbose".to_owned());
        }
        if *method != Method::GET {
            parts.push(format!("-X {method}"));
        }
        if piped && *method != Method::GET {
            parts.push("--data-binary @-".to_owned());
        }
        for header in &self.headers {
            parts.push(format!("-H '{header}'"));
        }
        let scope = context.general.scope();
        if scope.token.is_some() {
            parts.push("-H \"X-Nomad-Token: ${NOMAD_TOKEN}\"".to_owned());
        }
        if scope.basic_auth.is_some() {
            parts.push("-u \"$NOMAD_HTTP_AUTH\"".to_owned());
        }
        parts.push(format!("{}{path}", client.address()));
        parts.join(" \\\n  ")
    }
}

/// Shows the metrics of an agent.
#[derive(clap::Args, Clone, Debug)]
pub struct Metrics {
    /// The format: prometheus, or JSON by default.
    #[arg(long, value_name = "format")]
    format: Option<String>,
    /// Indent the JSON.
    #[arg(long)]
    pretty: bool,
    /// JSON, as by default.
    #[arg(long)]
    json: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for Metrics {
    async fn run(self, context: &Context) -> Outcome {
        Context::expect_args(&self.args, 0, "")?;
        let mut query = Vec::new();
        if self.pretty {
            query.push(("pretty", "true"));
        }
        if let Some(format) = self.format.as_deref().filter(|_| !self.json) {
            query.push(("format", format));
        }
        let failed = |why: crate::client::ClientError| format!("Error getting metrics: {why}");
        let body = context.client().await?.stream("/v1/metrics", &query).await.map_err(failed)?;
        let text = body.collect().await.map_err(failed)?;
        context.out.line(String::from_utf8_lossy(&text).trim_end());
        Ok(0)
    }
}
