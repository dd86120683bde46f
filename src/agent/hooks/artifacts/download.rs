//! HTTP downloads: one file, streamed to disk, resumed where the connection broke when the server allows it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::time::Duration;
use std::time::Instant;

use futures::StreamExt;
use reqwest::Client;
use reqwest::Response;
use reqwest::StatusCode;
use reqwest::header::ETAG;
use reqwest::header::HeaderMap;
use reqwest::header::HeaderName;
use reqwest::header::HeaderValue;
use reqwest::header::IF_RANGE;
use reqwest::header::RANGE;
use reqwest::header::USER_AGENT;
use url::Url;

use crate::agent::hooks::HookProgress;
use crate::agent::hooks::http::describe;
use crate::agent::hooks::http::install_tls;

/// How often a broken download is continued before it counts as failed.
const RESUME_MAX: usize = 5;
/// A server that does not accept a connection within this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// A download on which nothing arrives for this long is broken.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A request for one file.
pub(super) struct Request<'a> {
    pub(super) url: &'a Url,
    pub(super) headers: &'a BTreeMap<String, String>,
    /// Accept any certificate.
    pub(super) insecure: bool,
    /// Largest download, bytes.
    pub(super) max_bytes: u64,
    /// Name and password, from the agent's `.netrc`.
    pub(super) login: Option<(String, String)>,
}

/// Tells now and then how far a download is.
pub(super) struct Reporter<'a> {
    progress: &'a HookProgress,
    source: &'a str,
    pause: Duration,
    next: Instant,
}

impl<'a> Reporter<'a> {
    /// The first report comes after `pause`, later ones ever more rarely: a task keeps few events.
    pub(super) fn new(progress: &'a HookProgress, source: &'a str, pause: Duration) -> Self {
        Self { progress, source, pause, next: Instant::now() + pause }
    }

    /// `received` bytes of `total`, if that is known, have come.
    pub(super) fn received(&mut self, received: u64, total: Option<u64>) {
        if Instant::now() < self.next {
            return;
        }
        self.pause *= 2;
        self.next = Instant::now() + self.pause;
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        let of = total.map(|total| format!(" of {}", mib(total))).unwrap_or_default();
        (self.progress)(&format!("Downloading artifact {:?}: {}{of}", self.source, mib(received)));
    }
}

/// Why a body ended early.
enum Broken {
    /// The rest may be had.
    Connection(String),
    Final(String),
}

impl Request<'_> {
    /// Writes the body to `file`. Errors are texts in the words of Go's HTTP client.
    pub(super) async fn run(&self, file: &mut File, reporter: &mut Reporter<'_>) -> Result<(), String> {
        let client = self.client()?;
        let mut response = self.send(&client, HeaderMap::new()).await?;
        if response.status() != StatusCode::OK {
            return Err(format!("bad response code: {}", response.status().as_u16()));
        }
        let tag = strong_tag(&response);
        let mut received = 0;
        for attempt in 0.. {
            match self.save(response, file, &mut received, reporter).await {
                Ok(()) => return Ok(()),
                Err(Broken::Final(text)) => return Err(text),
                Err(Broken::Connection(text)) => {
                    let Some(tag) = tag.as_ref().filter(|_| attempt < RESUME_MAX) else { return Err(text) };
                    response = self.send(&client, rest_of(received, tag)?).await?;
                    match response.status() {
                        StatusCode::PARTIAL_CONTENT => {}
                        // The file changed, or the server knows no ranges: begin again.
                        StatusCode::OK => {
                            received = 0;
                            file.set_len(0)
                                .and_then(|()| file.rewind())
                                .map_err(|error| error.to_string())?;
                        }
                        _ => return Err(text),
                    }
                }
            }
        }
        Ok(())
    }

    fn client(&self) -> Result<Client, String> {
        install_tls();
        Client::builder()
            .no_gzip()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(STALL_TIMEOUT)
            .tls_danger_accept_invalid_certs(self.insecure)
            .build()
            .map_err(|error| describe(&error, "GET", self.url))
    }

    async fn send(&self, client: &Client, extra: HeaderMap) -> Result<Response, String> {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static("Go-http-client/1.1"));
        for (name, value) in self.headers {
            let bad = |what: &str| {
                format!("Get \"{}\": net/http: invalid header field {what} for {name:?}", self.url)
            };
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("name"))?;
            headers.insert(key, HeaderValue::from_str(value).map_err(|_| bad("value"))?);
        }
        headers.extend(extra);
        let mut request = client.get(self.url.clone()).headers(headers);
        let own = self.url.username().is_empty() && !self.headers.keys().any(|name| is_authorization(name));
        if let Some((name, password)) = self.login.as_ref().filter(|_| own) {
            request = request.basic_auth(name, Some(password));
        }
        request.send().await.map_err(|error| describe(&error, "GET", self.url))
    }

    async fn save(
        &self,
        response: Response,
        file: &mut File,
        received: &mut u64,
        reporter: &mut Reporter<'_>,
    ) -> Result<(), Broken> {
        let total = response.content_length().map(|length| received.saturating_add(length));
        let too_large = || Broken::Final(format!("download is larger than {} bytes", self.max_bytes));
        if response.content_length().is_some_and(|length| received.saturating_add(length) > self.max_bytes) {
            return Err(too_large());
        }
        let mut body = response.bytes_stream();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| Broken::Connection(describe(&error, "GET", self.url)))?;
            *received += chunk.len() as u64;
            if *received > self.max_bytes {
                return Err(too_large());
            }
            // Chunks are small and go to the page cache: not worth a trip to another thread.
            file.write_all(&chunk).map_err(|error| Broken::Final(error.to_string()))?;
            reporter.received(*received, total);
        }
        file.seek(SeekFrom::Start(0)).map_err(|error| Broken::Final(error.to_string()))?;
        Ok(())
    }
}

fn is_authorization(name: &str) -> bool {
    name.eq_ignore_ascii_case("authorization")
}

/// The login for `host` in a file in the format of `.netrc`.
pub(super) fn netrc_login(text: &str, host: &str) -> Option<(String, String)> {
    let mut words =
        text.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(str::split_whitespace);
    let (mut applies, mut name, mut password) = (false, None, None);
    while let Some(word) = words.next() {
        match word {
            "machine" | "default" => {
                if let (true, Some(name), Some(password)) = (applies, name, password) {
                    return Some((name, password));
                }
                applies = word == "default" || words.next() == Some(host);
                (name, password) = (None, None);
            }
            "login" => name = words.next().map(str::to_owned),
            "password" => password = words.next().map(str::to_owned),
            _ => {}
        }
    }
    if applies { Some((name?, password?)) } else { None }
}

fn strong_tag(response: &Response) -> Option<HeaderValue> {
    response.headers().get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/")).cloned()
}

fn rest_of(received: u64, tag: &HeaderValue) -> Result<HeaderMap, String> {
    let range = HeaderValue::from_str(&format!("bytes={received}-")).map_err(|error| error.to_string())?;
    Ok(HeaderMap::from_iter([(RANGE, range), (IF_RANGE, tag.clone())]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_come_from_the_machines_line() {
        let text = "# mine\nmachine a.example login me password secret\nmachine b.example\n  login you\n  password pw\ndefault login x password y";
        for (host, expected) in
            [("a.example", ("me", "secret")), ("b.example", ("you", "pw")), ("c", ("x", "y"))]
        {
            let (name, password) = netrc_login(text, host).unwrap();
            assert_eq!((name.as_str(), password.as_str()), expected);
        }
        assert_eq!(netrc_login("machine a login x", "a"), None);
        assert_eq!(netrc_login("", "a"), None);
    }
}
