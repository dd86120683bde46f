//! What HTTP downloads and HTTP checks share.

use std::error::Error;
use std::io;

use url::Url;

/// Makes sure that TLS can be used in this process. May be called any number of times.
pub(in crate::agent) fn install_tls() {
    // The first caller in the process installs it; the others find it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// An error in the form of Go's client: `Get "<url>": dial tcp 127.0.0.1:1: connect: connection refused`.
pub(super) fn describe(error: &reqwest::Error, method: &str, url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let at = format!("{host}:{}", url.port_or_known_default().unwrap_or(0));
    let mut method = method.to_lowercase();
    if let Some(first) = method.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let mut cause: &dyn Error = error;
    let mut refused = false;
    while let Some(next) = cause.source() {
        cause = next;
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            refused |= error.kind() == io::ErrorKind::ConnectionRefused;
        }
    }
    if refused {
        format!("{method} \"{url}\": dial tcp {at}: connect: connection refused")
    } else if error.is_timeout() && error.is_connect() {
        format!("{method} \"{url}\": dial tcp {at}: i/o timeout")
    } else if error.is_timeout() {
        format!(
            "{method} \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )
    } else {
        format!("{method} \"{url}\": {cause}")
    }
}
