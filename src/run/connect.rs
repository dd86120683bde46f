//! What the command line needs of the rest of the program.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::Request;
use http::Response;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

use crate::api;
use crate::api::AgentInfo;
use crate::api::Api;
use crate::api::ApiConfig;
use crate::api::ApiContext;
use crate::api::dice::ThreadDice;
use crate::cli::AgentConsole;
use crate::cli::Connect;
use crate::client::Body;
use crate::client::ClientError;
use crate::client::Transport;
use crate::clock::SystemClock;
use crate::config::AgentConfig;
use crate::config::EtcdConfig;
use crate::controllers::job::dry_run::JobDryRun;
use crate::mirror::Mirror;
use crate::mirror::watcher;

/// How long the first reading of everything may take.
const SYNC_PATIENCE: Duration = Duration::from_secs(30);

/// The program behind the command line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Program;

#[async_trait]
impl Connect for Program {
    async fn in_process(&self, etcd: &EtcdConfig) -> Result<Arc<dyn Transport>, String> {
        let away =
            |why: &dyn std::fmt::Display| format!("cannot use etcd at {}: {why}", etcd.endpoints.join(", "));
        let (store, keys) = super::store::etcd(etcd).await.map_err(|error| away(&error))?;
        let mirror = Mirror::new();
        let cancel = CancellationToken::new();
        tokio::spawn(watcher::run(Arc::clone(&mirror), Arc::clone(&store), keys.clone(), cancel.clone()));
        if !mirror.wait_for(1, SYNC_PATIENCE).await {
            return Err(away(&"it does not answer"));
        }
        let api = Api::new(ApiContext {
            store,
            keys,
            mirror,
            clock: Arc::new(SystemClock),
            dice: Arc::new(ThreadDice),
            region: "global".to_owned(),
            datacenter: String::new(),
            agent: AgentInfo { version: env!("CARGO_PKG_VERSION").to_owned(), ..AgentInfo::default() },
            local: None,
            servers: None,
            planner: Arc::new(JobDryRun),
            config: ApiConfig::default(),
        });
        Ok(Arc::new(InProcess { api, address: etcd.endpoints.join(","), _watching: cancel.drop_guard() }))
    }

    async fn run_agent(&self, config: AgentConfig, console: AgentConsole) -> u8 {
        super::agent(config, console).await
    }
}

/// The API, called instead of sent to.
struct InProcess {
    api: Arc<Api>,
    address: String,
    _watching: DropGuard,
}

#[async_trait]
impl Transport for InProcess {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, ClientError> {
        let (parts, body) = self.api.handle(request).await.into_parts();
        let body = match body {
            api::Body::Full(bytes) => Body::from_bytes(bytes),
            api::Body::Stream(pieces) => Body::from_stream(
                pieces.map(|piece| piece.map_err(|error| ClientError::Setup(error.to_string()))),
            ),
        };
        Ok(Response::from_parts(parts, body))
    }

    fn address(&self) -> &str {
        &self.address
    }
}
