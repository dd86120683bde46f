//! The HTTP API as a service without a framework: a request in, an answer out.
//!
//! ```text
//! server (warp) ─┐                       ┌─ read ─► mirror at a revision ─► views ─► JSON
//! cli, in-process ┴► Api::handle ─► route ┤
//!                                        └─ act ──► intent ─► one guarded transaction of the store
//! ```
//!
//! Reads come from the mirror, which first catches up with the store unless the caller accepts stale answers.
//! Writes are user intent only.

mod act;
mod call;
mod changes;
pub mod dice;
pub mod error;
pub mod exec;
mod filter;
pub mod forward;
pub mod intent;
mod latest;
pub mod local;
mod page;
mod read;
mod reply;
mod routes;
pub mod server;
pub mod socket;
pub mod views;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::Request;
use http::StatusCode;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use self::call::Call;
use self::changes::Changes;
use self::dice::Dice;
use self::error::ApiError;
use self::forward::ServerDirectory;
use self::latest::Latest;
use self::local::LocalAgent;
pub use self::reply::Body;
pub use self::reply::Reply;
use crate::clock::Clock;
use crate::mirror::Mirror;
use crate::mirror::dry_run::DryRun;
use crate::mirror::state::State;
use crate::model::id::NodeId;
use crate::model::time::Time;
use crate::store::Revision;
use crate::store::SharedStore;
use crate::store::key::Keys;
use crate::telemetry;

/// How long a read waits for the mirror to reach the store's revision before it gives up.
const CATCH_UP_MAX: Duration = Duration::from_secs(10);

/// What the API needs. Everything is shared, so the same process may run several of them.
pub struct ApiContext {
    pub store: SharedStore,
    pub keys: Keys,
    pub mirror: Arc<Mirror>,
    pub clock: Arc<dyn Clock>,
    pub dice: Arc<dyn Dice>,
    pub region: String,
    pub datacenter: String,
    pub agent: AgentInfo,
    /// The node agent of this process, if it runs one.
    pub local: Option<Arc<dyn LocalAgent>>,
    /// Given to an agent that is no server: what it cannot answer itself goes to one of these.
    pub servers: Option<Arc<dyn ServerDirectory>>,
    /// Answers `job plan`.
    pub planner: Arc<dyn DryRun>,
    pub config: ApiConfig,
}

/// Who this process is.
#[derive(Clone, Debug, Default)]
pub struct AgentInfo {
    /// The host's name; the member name is `<name>.<region>`.
    pub name: String,
    /// Under this id the server stands at `servers/<id>`.
    pub server_id: String,
    pub node_id: Option<NodeId>,
    pub version: String,
    /// `ip:port` of this process's HTTP API, as advertised.
    pub http_addr: String,
    pub is_server: bool,
    pub is_client: bool,
    /// The URL that stands for this cluster in the identities of tasks; empty for none.
    pub oidc_issuer: String,
    /// Shown as `config` by `/v1/agent/self`; keys that are missing get Nomad's names and this struct's values.
    pub config: Value,
}

/// Limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiConfig {
    /// Versions of a job that are kept, the current one included, tagged ones apart.
    pub job_tracked_versions: usize,
    /// Bytes of a request body.
    pub request_bytes: usize,
    /// Bytes of a job's source text; larger ones are not kept.
    pub source_bytes: usize,
    /// Metrics are also given in Prometheus' format.
    pub prometheus: bool,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self { job_tracked_versions: 6, request_bytes: 32 << 20, source_bytes: 1_000_000, prometheus: true }
    }
}

/// The API. Cheap to clone by `Arc`.
pub struct Api {
    context: ApiContext,
    changes: Arc<Changes>,
    latest: Arc<Latest>,
    /// Ends blocking queries and streams.
    stopping: CancellationToken,
}

/// What a read sees: the state at one revision.
struct View<'a> {
    api: &'a Api,
    state: &'a State,
}

impl Api {
    /// An API over a mirror that somebody else feeds.
    pub fn new(context: ApiContext) -> Arc<Self> {
        let changes = Changes::follow(&context.mirror);
        let latest = Latest::new(Arc::clone(&context.store));
        Arc::new(Self { context, changes, latest, stopping: CancellationToken::new() })
    }

    /// Lets blocking queries answer at once and ends streams, so that a server can stop.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Answers a request. Never fails and never panics: errors are answers too.
    pub async fn handle(&self, request: Request<Bytes>) -> Reply {
        let call = Call::new(request);
        let started = tokio::time::Instant::now();
        let (method, path) = (call.method.clone(), call.path.clone());
        let reply = match AssertUnwindSafe(routes::dispatch(self, call)).catch_unwind().await {
            Ok(reply) => reply,
            Err(_) => {
                tracing::error!(%method, path, "handler panicked");
                reply::full(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    reply::TEXT,
                    "internal error, see the agent's log",
                )
            }
        };
        telemetry::observe_request(&method, reply.status().as_u16(), started.elapsed());
        reply
    }

    fn now(&self) -> Time {
        self.context.clock.now()
    }

    /// Waits until the mirror has everything that was acknowledged before the call.
    async fn catch_up(&self) -> Result<Revision, ApiError> {
        let revision = self.latest.revision().await?;
        if self.context.mirror.wait_for(revision, CATCH_UP_MAX).await {
            return Ok(revision);
        }
        Err(ApiError::internal("Not ready to serve consistent reads"))
    }

    /// True while some server owns the scheduler.
    fn knows_leader(&self) -> bool {
        self.context.mirror.read().leaders.contains_key("scheduler")
    }
}
