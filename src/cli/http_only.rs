//! The command line as a pure client of some agent's HTTP API.

use std::sync::Arc;

use async_trait::async_trait;

use super::AgentConsole;
use super::Connect;
use crate::client::Transport;
use crate::config::AgentConfig;
use crate::config::EtcdConfig;

/// Knows neither etcd nor agents: for programs that only talk to an agent elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpOnly;

#[async_trait]
impl Connect for HttpOnly {
    async fn in_process(&self, _etcd: &EtcdConfig) -> Result<Arc<dyn Transport>, String> {
        Err("this program talks to agents only; give -address instead of -etcd-endpoints".to_owned())
    }

    async fn run_agent(&self, _config: AgentConfig, console: AgentConsole) -> u8 {
        console.error("this program talks to agents only; it cannot be one");
        1
    }
}
