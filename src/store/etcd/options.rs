//! How to reach etcd, and the client options that follow from it.

use std::fmt;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use etcd_client::Certificate;
use etcd_client::ConnectOptions;
use etcd_client::Identity;
use etcd_client::TlsOptions;

use crate::store::Limits;
use crate::store::StoreError;

/// Where the operating system keeps its certificate authorities, used when none is named.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// etcd refuses pings that come more often than every 5 s on a connection without traffic, and then hangs up.
const PING_INTERVAL: Duration = Duration::from_secs(6);
/// On connections for single requests a ping is sent only while an answer is due, so it may come sooner.
const PING_INTERVAL_IN_REQUEST: Duration = Duration::from_secs(2);
/// A connection whose ping stays unanswered this long is broken.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// How to reach etcd.
#[derive(Clone)]
pub struct EtcdOptions {
    /// `host:port` or URL of each member.
    pub endpoints: Vec<String>,
    /// PEM file of the authorities that sign the members' certificates; the system's if absent.
    pub ca_file: Option<PathBuf>,
    /// PEM file of this client's certificate, with [`Self::key_file`].
    pub cert_file: Option<PathBuf>,
    /// PEM file of this client's key.
    pub key_file: Option<PathBuf>,
    /// The name expected in the members' certificates, if it is not the endpoint's host.
    pub server_name: Option<String>,
    /// etcd user, with [`Self::password`].
    pub user: Option<String>,
    /// Password of [`Self::user`].
    pub password: Option<String>,
    /// How long opening a connection may take.
    pub connect_timeout: Duration,
    /// How long a member may take to answer one request.
    pub request_timeout: Duration,
    /// How long a request that was not carried out is tried again before it counts as failed.
    pub retry_timeout: Duration,
    /// How long a watch may be silent before the member is asked for a sign of life.
    pub watch_check_interval: Duration,
    /// A key that this user may read; used to learn the store's revision.
    pub probe_key: String,
    /// Whether no member needs to answer yet. Requests fail until one does.
    pub may_be_away: bool,
    /// What the members accept in one transaction (`--max-txn-ops`, `--max-request-bytes`).
    pub limits: Limits,
}

impl fmt::Debug for EtcdOptions {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdOptions")
            .field("endpoints", &self.endpoints)
            .field("ca_file", &self.ca_file)
            .field("cert_file", &self.cert_file)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Default for EtcdOptions {
    fn default() -> Self {
        Self {
            endpoints: vec!["http://127.0.0.1:2379".to_owned()],
            ca_file: None,
            cert_file: None,
            key_file: None,
            server_name: None,
            user: None,
            password: None,
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(5),
            retry_timeout: Duration::from_secs(10),
            watch_check_interval: Duration::from_secs(2),
            probe_key: "/herder/meta".to_owned(),
            may_be_away: false,
            limits: Limits::default(),
        }
    }
}

/// What a connection carries, which decides how often it may be pinged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traffic {
    Requests,
    Streams,
}

/// Whether to log in with the configured user, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Login {
    Wanted,
    Needless,
}

impl EtcdOptions {
    fn wants_tls(&self) -> bool {
        self.ca_file.is_some() || self.cert_file.is_some() || self.server_name.is_some()
    }

    /// The endpoints as URLs, each once.
    pub(super) fn urls(&self) -> Result<Vec<String>, StoreError> {
        let mut urls = Vec::new();
        for endpoint in &self.endpoints {
            let endpoint = endpoint.trim().trim_end_matches('/');
            let url = match endpoint.split_once("://") {
                Some(("http", _)) if self.wants_tls() => {
                    let advice = "TLS files are given, so write https://";
                    return Err(StoreError::Other(format!("etcd endpoint {endpoint}: {advice}")));
                }
                Some(("http" | "https", _)) => endpoint.to_owned(),
                Some((scheme, _)) => {
                    let text =
                        format!("etcd endpoint {endpoint}: {scheme}:// is neither http:// nor https://");
                    return Err(StoreError::Other(text));
                }
                None if self.wants_tls() => format!("https://{endpoint}"),
                None => format!("http://{endpoint}"),
            };
            if let Err(error) = url::Url::parse(&url) {
                return Err(StoreError::Other(format!("etcd endpoint {endpoint}: {error}")));
            }
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        if urls.is_empty() {
            return Err(StoreError::Other("no etcd endpoint is configured".to_owned()));
        }
        Ok(urls)
    }

    /// The client's options for one member. Files are read at each call, so that renewed ones are found.
    pub(super) fn client_options(
        &self,
        url: &str,
        traffic: Traffic,
        login: Login,
    ) -> Result<ConnectOptions, StoreError> {
        let interval = match traffic {
            Traffic::Requests => PING_INTERVAL_IN_REQUEST,
            Traffic::Streams => PING_INTERVAL,
        };
        let mut options = ConnectOptions::new()
            .with_connect_timeout(self.connect_timeout)
            .with_keep_alive(interval, PING_TIMEOUT)
            .with_keep_alive_while_idle(false)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some(user) = self.user.as_ref().filter(|_| login == Login::Wanted) {
            options = options.with_user(user, self.password.as_deref().unwrap_or_default());
        }
        if url.starts_with("https://") {
            options = options.with_tls(self.tls_options()?);
        }
        Ok(options)
    }

    fn tls_options(&self) -> Result<TlsOptions, StoreError> {
        let mut tls = TlsOptions::new();
        if let Some(file) = &self.ca_file {
            tls = tls.ca_certificate(Certificate::from_pem(read(file)?));
        } else if let Ok(pem) = fs::read(SYSTEM_AUTHORITIES) {
            tls = tls.ca_certificate(Certificate::from_pem(pem));
        }
        tls = match (&self.cert_file, &self.key_file) {
            (Some(cert), Some(key)) => tls.identity(Identity::from_pem(read(cert)?, read(key)?)),
            (None, None) => tls,
            _ => {
                return Err(StoreError::Other(
                    "etcd needs both cert_file and key_file, or neither".to_owned(),
                ));
            }
        };
        if let Some(name) = &self.server_name {
            tls = tls.domain_name(name);
        }
        Ok(tls)
    }
}

fn read(file: &Path) -> Result<Vec<u8>, StoreError> {
    fs::read(file).map_err(|error| StoreError::Other(format!("cannot read {}: {error}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::EtcdOptions;

    fn options(endpoints: &[&str]) -> EtcdOptions {
        let endpoints = endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect();
        EtcdOptions { endpoints, ..EtcdOptions::default() }
    }

    #[test]
    fn endpoints_become_urls_each_once() {
        let urls = options(&["a:2379", "http://a:2379/", "https://b:2379", " [::1]:2379"]).urls();
        assert_eq!(urls.unwrap(), ["http://a:2379", "https://b:2379", "http://[::1]:2379"]);
        let secure = EtcdOptions { ca_file: Some("ca.pem".into()), ..options(&["a:2379"]) };
        assert_eq!(secure.urls().unwrap(), ["https://a:2379"]);
    }

    #[test]
    fn endpoints_that_cannot_work_are_named() {
        let secure = EtcdOptions { ca_file: Some("ca.pem".into()), ..options(&["http://a:2379"]) };
        for (options, part) in [
            (options(&[]), "no etcd endpoint"),
            (options(&["unix:///run/etcd"]), "unix://"),
            (options(&["http://a b"]), "a b"),
            (secure, "https://"),
        ] {
            let error = options.urls().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_password_is_not_printed() {
        let options = EtcdOptions { password: Some("secret".into()), ..EtcdOptions::default() };
        assert!(!format!("{options:?}").contains("secret"));
    }
}
