//! Logs and metrics.

use std::time::Duration;

use http::Method;

/// Everything that is counted.
#[derive(Debug, Default)]
pub struct Metrics {}

impl Metrics {
    /// Counts a request of the HTTP API.
    pub fn request(&self, _: &Method, _: u16, _: Duration) {}
}
