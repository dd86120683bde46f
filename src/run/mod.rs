//! Composition root: puts store, mirror, controllers, agent and API together, and takes them apart in order.

mod client;
mod connect;
mod ending;
mod footprint;
mod gauges;
mod hook_options;
mod local;
mod server;
mod servers;
mod store;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::api::AgentInfo;
use crate::api::Api;
use crate::api::ApiConfig;
use crate::api::ApiContext;
use crate::api::dice::ThreadDice;
use crate::api::forward::ServerDirectory;
use crate::cli::AgentConsole;
use crate::cli::Banner;
use crate::clock::Clock;
use crate::clock::SystemClock;
use crate::config::AgentConfig;
use crate::config::SchedulerDefaults;
use crate::controllers;
use crate::controllers::Random;
use crate::controllers::bootstrap;
use crate::controllers::job::dry_run::JobDryRun;
use crate::mirror::Mirror;
use crate::mirror::watcher;
use crate::store::SharedStore;
use crate::store::key::Keys;

use self::client::Client;
use self::ending::Ending;
use self::ending::Signals;
use self::servers::StoredServers;

pub use self::connect::Program;

/// How long the mirror may take to read everything before the agent goes on to serve.
const SYNC_PATIENCE: Duration = Duration::from_secs(10);
/// How long a dev agent waits for its tasks to end.
const DEV_FAREWELL: Duration = Duration::from_secs(15);

/// Why an agent ended at once.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("{0}")]
    Setup(String),
    #[error("cannot listen on {address}: {cause}")]
    Listen { address: String, cause: std::io::Error },
    #[error(transparent)]
    Bootstrap(#[from] bootstrap::BootstrapError),
    #[error(transparent)]
    Agent(#[from] crate::agent::AgentError),
    #[error("{0}")]
    Refused(String),
}

/// Everything that runs in this process, for as long as it runs.
struct Process {
    config: AgentConfig,
    store: SharedStore,
    keys: Keys,
    mirror: Arc<Mirror>,
    clock: Arc<dyn Clock>,
    random: Random,
    /// Identifies this process among the servers.
    server_id: String,
    http_addr: String,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

/// Runs an agent until a signal ends it; the exit code.
async fn agent(config: AgentConfig, console: AgentConsole) -> u8 {
    start_log(&config);
    match serve(config, console).await {
        Ok(code) => code,
        Err(error @ RunError::Refused(_)) => {
            console.error(&format!("Error running agent: {error}"));
            1
        }
        Err(error) => {
            console.error(&format!("Error starting agent: {error}"));
            1
        }
    }
}

fn start_log(config: &AgentConfig) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("warn,herder={}", config.log_filter())));
    // A second agent in one process (tests) keeps the first one's log.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).try_init();
}

/// Runs until the process has to end; the exit code.
async fn serve(mut config: AgentConfig, console: AgentConsole) -> Result<u8, RunError> {
    let mut signals = Signals::new();
    let setup = |error: crate::config::ConfigError| RunError::Setup(error.to_string());
    let mut listeners = Vec::new();
    for address in config.http_listeners().map_err(setup)? {
        let failed = |cause| RunError::Listen { address: address.to_string(), cause };
        listeners.push(TcpListener::bind(address).await.map_err(failed)?);
    }
    if let Some(Ok(address)) = listeners.first().map(TcpListener::local_addr) {
        // With port 0 the system chose one.
        config.ports.http = address.port();
    }
    let http_addr = config.http_advertise().map_err(setup)?;
    let (store, keys) = store::open(&config).await?;
    let mut process = Process {
        mirror: Mirror::new(),
        clock: Arc::new(SystemClock),
        random: Random::from_system(),
        server_id: uuid::Uuid::new_v4().to_string(),
        cancel: CancellationToken::new(),
        tasks: JoinSet::new(),
        store,
        keys,
        http_addr,
        config,
    };
    if process.config.server.enabled {
        process.mirror();
        // It waits for a store that is away, and may be told to end meanwhile.
        tokio::select! {
            begun = process.server() => begun?,
            _ = signals.next(console) => return Ok(1),
        }
    }
    let client = if process.config.client.enabled { Some(process.client().await?) } else { None };
    let api = process.api(client.as_ref());
    for listener in listeners {
        let stop = process.cancel.clone();
        let serving =
            crate::api::server::serve(Arc::clone(&api), listener, async move { stop.cancelled().await });
        process.tasks.spawn(serving);
    }
    console.started(&process.banner(client.as_ref()));
    let stop = process.cancel.clone();
    process.tasks.spawn(async move {
        stop.run_until_cancelled(footprint::settle()).await;
    });
    let ending = tokio::select! {
        ending = signals.next(console) => ending,
        why = ending::refused(client.as_ref()) => Ending::Refused(why),
    };
    let left = process.leave(&ending, client.as_ref(), &api, &mut signals, console).await;
    process.shut_down(client, &api, console).await;
    match ending {
        Ending::Refused(why) => Err(RunError::Refused(why)),
        _ => Ok(u8::from(!left)),
    }
}

impl Process {
    fn mirror(&mut self) {
        let watching = watcher::run(
            Arc::clone(&self.mirror),
            Arc::clone(&self.store),
            self.keys.clone(),
            self.cancel.clone(),
        );
        self.tasks.spawn(watching);
    }

    async fn server(&mut self) -> Result<(), RunError> {
        let scheduler = self.config.server.default_scheduler_config.as_ref();
        let scheduler = scheduler.map(SchedulerDefaults::stored);
        bootstrap::ensure(&self.store, &self.keys, &self.random, scheduler.as_ref()).await?;
        self.mirror.wait_for(1, SYNC_PATIENCE).await;
        let identity = self.identity();
        let context = controllers::Context {
            store: Arc::clone(&self.store),
            keys: self.keys.clone(),
            mirror: Arc::clone(&self.mirror),
            clock: Arc::clone(&self.clock),
            settings: server::settings(&self.config),
            random: self.random.clone(),
        };
        let registering = server::register(
            Arc::clone(&self.store),
            self.keys.clone(),
            self.server_id.clone(),
            identity.clone(),
            self.cancel.clone(),
        );
        self.tasks.spawn(registering);
        self.tasks.spawn(controllers::run(context, identity, self.cancel.clone()));
        Ok(())
    }

    /// What other servers and people see of this one.
    fn identity(&self) -> Bytes {
        let identity = json!({
            "ID": self.server_id, "Name": self.config.name,
            "HTTPAddr": self.http_addr, "Datacenter": self.config.datacenter,
            "Region": self.config.region, "Version": env!("CARGO_PKG_VERSION"),
        });
        Bytes::from(identity.to_string())
    }

    async fn client(&mut self) -> Result<Client, RunError> {
        Client::start(
            &self.config,
            Arc::clone(&self.store),
            self.keys.clone(),
            Arc::clone(&self.clock),
            &self.http_addr,
        )
        .await
    }

    fn api(&self, client: Option<&Client>) -> Arc<Api> {
        let config = &self.config;
        Api::new(ApiContext {
            store: Arc::clone(&self.store),
            keys: self.keys.clone(),
            mirror: Arc::clone(&self.mirror),
            clock: Arc::clone(&self.clock),
            dice: Arc::new(ThreadDice),
            region: config.region.clone(),
            datacenter: config.datacenter.clone(),
            agent: AgentInfo {
                name: config.name.clone(),
                server_id: self.server_id.clone(),
                node_id: client.map(Client::node_id),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                http_addr: self.http_addr.clone(),
                is_server: config.server.enabled,
                is_client: config.client.enabled,
                oidc_issuer: config.server.oidc_issuer.clone(),
                config: json!({}),
            },
            local: client.map(Client::local),
            servers: (!config.server.enabled).then(|| {
                let servers = StoredServers::new(Arc::clone(&self.store), &self.keys);
                Arc::new(servers) as Arc<dyn ServerDirectory>
            }),
            planner: Arc::new(JobDryRun),
            config: ApiConfig { prometheus: config.telemetry.prometheus_metrics, ..ApiConfig::default() },
        })
    }

    fn banner(&self, client: Option<&Client>) -> Banner {
        let config = &self.config;
        let bound = config.http_listeners().unwrap_or_default();
        let bound: Vec<String> = bound.iter().map(ToString::to_string).collect();
        Banner {
            advertise_addrs: format!("HTTP: {}", self.http_addr),
            bind_addrs: format!("HTTP: [{}]", bound.join(" ")),
            client: config.client.enabled,
            server: config.server.enabled,
            log_level: config.log_level.clone(),
            node_id: client.map(|client| client.node_id().to_string()).unwrap_or_default(),
            region: config.region.clone(),
            datacenter: config.datacenter.clone(),
            state: self.store.describe(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Leaves the cluster in an orderly way if the configuration wants that for this ending; false if it does not, or
    /// if a second signal cut it short.
    async fn leave(
        &self,
        ending: &Ending,
        client: Option<&Client>,
        api: &Api,
        signals: &mut Signals,
        console: AgentConsole,
    ) -> bool {
        let wanted = match ending {
            Ending::Interrupt => self.config.leave_on_interrupt,
            Ending::Terminate => self.config.leave_on_terminate,
            Ending::Refused(_) => false,
        };
        if !wanted {
            return false;
        }
        console.step("Gracefully shutting down agent...");
        let drain = self.config.client.drain_on_shutdown.as_ref().filter(|_| !self.config.dev);
        if let (Some(client), Some(drain)) = (client, drain) {
            tokio::select! {
                () = ending::drain(api, client, drain) => {}
                _ = signals.next(console) => return false,
            }
        }
        true
    }

    /// First nothing new is accepted, then decisions stop, then the agent says its last words.
    async fn shut_down(mut self, client: Option<Client>, api: &Api, console: AgentConsole) {
        if self.config.state_is_in_memory() {
            self.stop_everything().await;
        }
        api.stop();
        self.cancel.cancel();
        if let Some(client) = client {
            client.shut_down().await;
        }
        if (self.config.temporary_data || self.config.state_is_in_memory())
            && let Err(error) = crate::drivers::unmount_all_below(&self.config.data_dir)
        {
            // A temporary directory is removed next, and stays where something is still mounted in it.
            console.error(&error.to_string());
        }
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(10), ended).await.is_err() {
            console.error("some tasks of the agent did not end in time");
        }
        console.step("Nomad agent stopped");
    }

    /// What a dev agent keeps in memory goes with it, so nobody could stop its tasks afterwards.
    async fn stop_everything(&self) {
        server::stop_all_jobs(&self.store, &self.keys, &self.mirror, &*self.clock, &self.random).await;
        let mut revisions = self.mirror.subscribe();
        let quiet = async {
            while self.mirror.read().allocs.values().any(|alloc| !alloc.status().is_terminal()) {
                if revisions.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(DEV_FAREWELL, quiet).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
    }
}
