//! Keeps one plugin running: introduces it and the host to each other, follows its health and its events, and starts
//! it anew when it has ended. What is asked of the plugin meanwhile waits for the next one.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Map;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;
use tonic::Status;
use tonic::transport::Channel;

use crate::drivers::Progress;
use crate::drivers::process::Process;
use crate::model::node::DriverInfo;

use super::PluginError;
use super::launch::Guard;
use super::launch::Launch;
use super::launch::Started;
use super::launch::log_line;
use super::proto::grpc::health::v1::HealthCheckRequest;
use super::proto::grpc::health::v1::health_check_response::ServingStatus;
use super::proto::grpc::health::v1::health_client::HealthClient;
use super::proto::hashicorp::nomad::plugins::base::proto::ConfigSchemaRequest;
use super::proto::hashicorp::nomad::plugins::base::proto::NomadConfig;
use super::proto::hashicorp::nomad::plugins::base::proto::NomadDriverConfig;
use super::proto::hashicorp::nomad::plugins::base::proto::PluginInfoRequest;
use super::proto::hashicorp::nomad::plugins::base::proto::PluginType;
use super::proto::hashicorp::nomad::plugins::base::proto::SetConfigRequest;
use super::proto::hashicorp::nomad::plugins::base::proto::base_plugin_client::BasePluginClient;
use super::proto::hashicorp::nomad::plugins::drivers::proto::CapabilitiesRequest;
use super::proto::hashicorp::nomad::plugins::drivers::proto::DriverCapabilities;
use super::proto::hashicorp::nomad::plugins::drivers::proto::FingerprintRequest;
use super::proto::hashicorp::nomad::plugins::drivers::proto::FingerprintResponse;
use super::proto::hashicorp::nomad::plugins::drivers::proto::TaskConfigSchemaRequest;
use super::proto::hashicorp::nomad::plugins::drivers::proto::TaskEventsRequest;
use super::proto::hashicorp::nomad::plugins::drivers::proto::driver_client::DriverClient;
use super::proto::hashicorp::nomad::plugins::drivers::proto::fingerprint_response::HealthState;
use super::proto::hashicorp::nomad::plugins::shared::hclspec::Spec;
use super::proto::hashicorp::nomad::plugins::shared::structs::Attribute;
use super::proto::hashicorp::nomad::plugins::shared::structs::attribute;
use super::proto::plugin::Nothing;
use super::proto::plugin::grpc_controller_client::GrpcControllerClient;
use super::proto::plugin::grpc_stdio_client::GrpcStdioClient;
use super::schema;
use super::types;

/// The only version of the plugins' interface there is.
const API_VERSION: &str = "v0.1.0";
/// An introduction call that takes longer has failed.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Messages hold whole environments and outputs.
const MAX_MESSAGE: usize = 64 << 20;
/// Pauses between attempts to start a plugin that ends.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// One that ran this long has recovered, and the next pause is short again.
const RECOVERED: Duration = Duration::from_secs(60);
/// Pause before a stream is opened again that ended while the plugin runs.
const STREAM_PAUSE: Duration = Duration::from_secs(5);
/// How often a plugin is asked whether it still serves, and how often it may fail to say so.
const PULSE: Duration = Duration::from_secs(30);
const MISSED_PULSES: u32 = 3;
/// A plugin that was asked to end is ended by force after this time.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a plugin said about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct About {
    pub name: String,
    pub version: String,
    /// `None` if it takes anything, or has not been asked yet.
    pub task_schema: Option<Spec>,
    pub capabilities: DriverCapabilities,
}

/// One run of a plugin.
#[derive(Debug)]
pub struct Live {
    pub driver: DriverClient<Channel>,
    pub process: Process,
    /// Tasks that this run knows: it started them or was told of them.
    pub known: tokio::sync::Mutex<BTreeSet<String>>,
    channel: Channel,
    guard: Mutex<Option<Guard>>,
}

/// A plugin that is kept running.
pub struct Keeper {
    launch: Launch,
    config: Map<String, Value>,
    live: watch::Sender<Option<Arc<Live>>>,
    info: watch::Sender<Option<DriverInfo>>,
    about: Mutex<Arc<About>>,
    listeners: Mutex<BTreeMap<String, Progress>>,
    /// It was asked to end: it is not started again.
    closed: AtomicBool,
}

impl Keeper {
    /// Starts the plugin, and keeps it running as long as the handle lives. If it does not start now it is tried
    /// again; until then it goes by the `remembered` name.
    pub async fn start(
        launch: Launch,
        config: Map<String, Value>,
        remembered: String,
    ) -> (Arc<Self>, AbortOnDropHandle<()>) {
        let begun = introduce(&launch, &config).await;
        let (live, about, problem) = match begun {
            Ok((live, about)) => (Some(live), about, None),
            Err(error) => (None, About { name: remembered, ..About::default() }, Some(error)),
        };
        let keeper = Arc::new(Self {
            launch,
            config,
            live: watch::Sender::new(live.clone()),
            info: watch::Sender::new(None),
            about: Mutex::new(Arc::new(about)),
            listeners: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        if let Some(error) = problem {
            tracing::error!(%error, "cannot start a plugin");
            keeper.info.send_replace(Some(keeper.undetected(&error.why)));
        }
        let keeping = tokio::spawn(Arc::clone(&keeper).keep(live));
        (keeper, AbortOnDropHandle::new(keeping))
    }

    pub fn about(&self) -> Arc<About> {
        Arc::clone(&self.about.lock())
    }

    /// The plugin's present run, waiting for it up to `limit`; `None` if it is not back by then.
    pub async fn live(&self, limit: Duration) -> Option<Arc<Live>> {
        let mut seen = self.live.subscribe();
        let found = tokio::time::timeout(limit, seen.wait_for(Option::is_some)).await;
        found.ok()?.ok()?.clone()
    }

    /// Waits until a run has been given up.
    pub async fn gone(&self, live: &Arc<Live>) {
        let other = |now: &Option<Arc<Live>>| now.as_ref().is_none_or(|now| !Arc::ptr_eq(now, live));
        // The sender lives as long as we do.
        let _ = self.live.subscribe().wait_for(other).await;
    }

    /// What the plugin says about its usability; waits for its first word up to `limit`.
    pub async fn health(&self, limit: Duration) -> DriverInfo {
        let mut seen = self.info.subscribe();
        let found = tokio::time::timeout(limit, seen.wait_for(Option::is_some)).await;
        let info = found.ok().and_then(Result::ok).and_then(|info| info.clone());
        info.unwrap_or_else(|| self.unhealthy("the plugin has not said whether it is healthy"))
    }

    /// Waits until the plugin says something else about its usability than `known`.
    pub async fn health_changed(&self, known: &DriverInfo) {
        let at = known.update_time;
        let differs = |info: &Option<DriverInfo>| {
            info.as_ref().is_some_and(|info| DriverInfo { update_time: at, ..info.clone() } != *known)
        };
        let _ = self.info.subscribe().wait_for(differs).await;
    }

    /// Events of a task go here from now on.
    pub fn listen(&self, task: &str, progress: Progress) {
        self.listeners.lock().insert(task.to_owned(), progress);
    }

    pub fn stop_listening(&self, task: &str) {
        self.listeners.lock().remove(task);
    }

    /// Asks the plugin to end, and sees to it.
    pub async fn shut_down(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let Some(live) = self.live.send_replace(None) else { return };
        let mut controller = GrpcControllerClient::new(live.channel.clone());
        let _ = tokio::time::timeout(FAREWELL, controller.shutdown(Nothing {})).await;
        let _ = tokio::time::timeout(FAREWELL, live.process.ended()).await;
        live.guard.lock().take();
    }

    fn unhealthy(&self, why: &str) -> DriverInfo {
        let name = &self.about().name;
        let healthy = crate::drivers::healthy(name, []);
        DriverInfo { healthy: false, health_description: why.to_owned(), ..healthy }
    }

    fn undetected(&self, why: &str) -> DriverInfo {
        DriverInfo { detected: false, ..self.unhealthy(why) }
    }

    async fn keep(self: Arc<Self>, first: Option<Arc<Live>>) {
        let mut pause = FIRST_PAUSE;
        let mut present = first;
        loop {
            if let Some(live) = present {
                let since = Instant::now();
                let why = self.follow(&live).await;
                self.live.send_replace(None);
                live.guard.lock().take();
                if self.closed.load(Ordering::SeqCst) {
                    return;
                }
                if since.elapsed() > RECOVERED {
                    pause = FIRST_PAUSE;
                }
                tracing::error!(plugin = %self.launch.name(), "{why}; it is started anew");
                self.info.send_replace(Some(self.unhealthy(&why)));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            present = self.try_again().await;
        }
    }

    /// One more attempt to start the plugin.
    async fn try_again(&self) -> Option<Arc<Live>> {
        let (live, about) = match introduce(&self.launch, &self.config).await {
            Ok(begun) => begun,
            Err(error) => {
                tracing::error!(%error, "cannot start a plugin anew");
                self.info.send_replace(Some(self.unhealthy(&error.why)));
                return None;
            }
        };
        let known = self.about();
        if about.name != known.name {
            // Tasks are found by the name of their driver, which cannot change while the agent runs.
            let why = format!(
                "the plugin is driver {:?}, which is offered after a restart of the agent",
                about.name
            );
            tracing::error!(plugin = %self.launch.name(), "{why}");
            self.info.send_replace(Some(self.undetected(&why)));
            return None;
        }
        *self.about.lock() = Arc::new(about);
        self.live.send_replace(Some(Arc::clone(&live)));
        Some(live)
    }

    /// Stays with a run until it has ended; why it has.
    async fn follow(&self, live: &Arc<Live>) -> String {
        let streams = async {
            tokio::join!(self.follow_health(live), self.follow_events(live), self.follow_output(live));
        };
        tokio::select! {
            ended = live.process.ended() => match ended {
                Ok(()) => "the plugin has ended".to_owned(),
                Err(error) => format!("the plugin cannot be watched: {error}"),
            },
            why = pulse(live) => why,
            () = streams => "the plugin's streams have ended".to_owned(),
        }
    }

    async fn follow_health(&self, live: &Live) {
        let mut driver = live.driver.clone();
        loop {
            match driver.fingerprint(FingerprintRequest {}).await {
                Ok(answer) => {
                    let mut answers = answer.into_inner();
                    while let Ok(Some(answer)) = answers.message().await {
                        self.info.send_replace(Some(read_health(&self.about().name, answer)));
                    }
                }
                Err(error) => {
                    let text = format!("the plugin does not say whether it is healthy: {}", error.message());
                    self.info.send_replace(Some(self.unhealthy(&text)));
                }
            }
            tokio::time::sleep(STREAM_PAUSE).await;
        }
    }

    async fn follow_events(&self, live: &Live) {
        let mut driver = live.driver.clone();
        loop {
            if let Ok(answer) = driver.task_events(TaskEventsRequest {}).await {
                let mut events = answer.into_inner();
                while let Ok(Some(event)) = events.message().await {
                    let listener = self.listeners.lock().get(&event.task_id).cloned();
                    match listener {
                        Some(tell) => tell(&event.message),
                        None => tracing::info!(task = %event.task_id, "{}", event.message),
                    }
                }
            }
            tokio::time::sleep(STREAM_PAUSE).await;
        }
    }

    /// What the plugin writes after its first line comes this way.
    async fn follow_output(&self, live: &Live) {
        let name = self.launch.name();
        if let Ok(answer) = GrpcStdioClient::new(live.channel.clone()).stream_stdio(()).await {
            let mut parts = answer.into_inner();
            while let Ok(Some(part)) = parts.message().await {
                String::from_utf8_lossy(&part.data).lines().for_each(|line| log_line(&name, line));
            }
        }
        // May be read once only.
        std::future::pending().await
    }
}

/// Asks now and then whether the plugin serves; returns when it does not answer any more.
async fn pulse(live: &Live) -> String {
    let mut missed = 0;
    loop {
        tokio::time::sleep(PULSE).await;
        match check(&live.channel).await {
            Ok(()) => missed = 0,
            Err(why) => {
                missed += 1;
                if missed == MISSED_PULSES {
                    return format!("the plugin does not answer: {why}");
                }
            }
        }
    }
}

async fn check(channel: &Channel) -> Result<(), String> {
    let mut client = HealthClient::new(channel.clone());
    let call = client.check(HealthCheckRequest { service: "plugin".to_owned() });
    match tokio::time::timeout(CALL_LIMIT, call).await {
        Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::Serving => Ok(()),
        Ok(Ok(answer)) => Err(format!("it says that it is {}", answer.get_ref().status().as_str_name())),
        // Not all plugins have the service.
        Ok(Err(status)) if status.code() == Code::Unimplemented => Ok(()),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err(format!("no answer within {CALL_LIMIT:?}")),
    }
}

/// Starts a plugin and configures it.
async fn introduce(launch: &Launch, config: &Map<String, Value>) -> Result<(Arc<Live>, About), PluginError> {
    let failed = |why: String| PluginError { plugin: launch.file.display().to_string(), why };
    let Started { channel, guard } = launch.start().await?;
    check(&channel).await.map_err(&failed)?;
    let mut base = BasePluginClient::new(channel.clone());
    let info = called("PluginInfo", base.plugin_info(PluginInfoRequest {})).await.map_err(&failed)?;
    if info.r#type() != PluginType::Driver {
        return Err(failed("it is not a driver; other kinds of plugins are not supported".to_owned()));
    }
    if !info.plugin_api_versions.iter().any(|version| version == API_VERSION) {
        let offered = info.plugin_api_versions.join(", ");
        return Err(failed(format!("it offers the interface {offered}, not {API_VERSION}")));
    }
    let spec = called("ConfigSchema", base.config_schema(ConfigSchemaRequest {})).await.map_err(&failed)?;
    let value = match &spec.spec {
        Some(spec) => schema::apply(spec, config)
            .map_err(|problems| failed(format!("its configuration is wrong: {}", problems.join("; "))))?,
        None => Value::Object(Map::new()),
    };
    let request = SetConfigRequest {
        msgpack_config: types::encode(&value),
        nomad_config: Some(NomadConfig {
            driver: Some(NomadDriverConfig {
                client_max_port: u32::from(launch.ports.1),
                client_min_port: u32::from(launch.ports.0),
            }),
        }),
        plugin_api_version: API_VERSION.to_owned(),
    };
    called("SetConfig", base.set_config(request)).await.map_err(&failed)?;
    let mut driver = DriverClient::new(channel.clone())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let schema = driver.task_config_schema(TaskConfigSchemaRequest {});
    let schema = called("TaskConfigSchema", schema).await.map_err(&failed)?;
    let offers =
        called("Capabilities", driver.capabilities(CapabilitiesRequest {})).await.map_err(&failed)?;
    let about = About {
        name: info.name,
        version: info.plugin_version,
        task_schema: schema.spec,
        capabilities: offers.capabilities.unwrap_or_default(),
    };
    let live = Live {
        driver,
        process: guard.process,
        known: tokio::sync::Mutex::default(),
        channel,
        guard: Mutex::new(Some(guard)),
    };
    Ok((Arc::new(live), about))
}

async fn called<T>(
    name: &str,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, String> {
    match tokio::time::timeout(CALL_LIMIT, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(format!("{name}: {}", status.message())),
        Err(_) => Err(format!("{name}: no answer within {CALL_LIMIT:?}")),
    }
}

fn read_health(name: &str, answer: FingerprintResponse) -> DriverInfo {
    let state = answer.health();
    let attributes = answer.attributes.iter().map(|(name, value)| (name.clone(), read_attribute(value)));
    DriverInfo {
        detected: state != HealthState::Undetected,
        healthy: state == HealthState::Healthy,
        health_description: answer.health_description.clone(),
        ..crate::drivers::healthy(name, attributes)
    }
}

fn read_attribute(attribute: &Attribute) -> String {
    let value = match &attribute.value {
        Some(attribute::Value::FloatVal(value)) => value.to_string(),
        Some(attribute::Value::IntVal(value)) => value.to_string(),
        Some(attribute::Value::StringVal(value)) => value.clone(),
        Some(attribute::Value::BoolVal(value)) => value.to_string(),
        None => String::new(),
    };
    if attribute.unit.is_empty() { value } else { format!("{value} {}", attribute.unit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(value: attribute::Value, unit: &str) -> Attribute {
        Attribute { unit: unit.to_owned(), value: Some(value) }
    }

    #[test]
    fn what_a_plugin_says_of_its_health_becomes_attributes_of_the_node() {
        let answer = FingerprintResponse {
            attributes: [
                ("driver.x.version".to_owned(), attribute(attribute::Value::StringVal("1.2".into()), "")),
                ("driver.x.memory".to_owned(), attribute(attribute::Value::IntVal(64), "MiB")),
                ("driver.x.rootless".to_owned(), attribute(attribute::Value::BoolVal(true), "")),
            ]
            .into(),
            health: HealthState::Unhealthy.into(),
            health_description: "no socket".to_owned(),
        };
        let info = read_health("x", answer);
        assert!(info.detected && !info.healthy);
        assert_eq!(info.health_description, "no socket");
        let wanted = [
            ("driver.x", "1"),
            ("driver.x.memory", "64 MiB"),
            ("driver.x.rootless", "true"),
            ("driver.x.version", "1.2"),
        ];
        assert_eq!(info.attributes, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }
}
