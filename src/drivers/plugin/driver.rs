//! A plugin as a driver like any other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;
use tonic::Status;

use crate::drivers::CpuShare;
use crate::drivers::Driver;
use crate::drivers::DriverError;
use crate::drivers::ExitStatus;
use crate::drivers::ProcessStats;
use crate::drivers::Progress;
use crate::drivers::Started;
use crate::drivers::TaskConfig;
use crate::drivers::TaskHandle;
use crate::drivers::TaskStats;
use crate::drivers::network::MadeNetwork;
use crate::drivers::session::ExecRequest;
use crate::drivers::session::ExecSession;
use crate::drivers::supervisor::Supervisor;
use crate::drivers::usage;
use crate::model::id::AllocId;
use crate::model::node::DriverInfo;

use super::keeper::Keeper;
use super::keeper::Live;
use super::output::Output;
use super::output::nowhere;
use super::proto::hashicorp::nomad::plugins::drivers::proto;
use super::proto::hashicorp::nomad::plugins::drivers::proto::cpu_usage::Fields as CpuFields;
use super::proto::hashicorp::nomad::plugins::drivers::proto::driver_capabilities::FsIsolation;
use super::proto::hashicorp::nomad::plugins::drivers::proto::driver_capabilities::MountConfigs;
use super::proto::hashicorp::nomad::plugins::drivers::proto::memory_usage::Fields as MemoryFields;
use super::proto::hashicorp::nomad::plugins::drivers::proto::network_isolation_spec::Mode;
use super::proto::hashicorp::nomad::plugins::drivers::proto::start_task_response;
use super::schema;
use super::session;
use super::task;
use super::task::Own;
use super::types;

/// How long a call waits for a plugin that is being started anew.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a plugin may take for what is done at once.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// How long after its timeout a plugin may take to end a task.
const KILL_LIMIT: Duration = Duration::from_secs(30);
/// How long the first word about health may take.
const HEALTH_LIMIT: Duration = Duration::from_secs(5);
/// How often a plugin is to measure.
const STATS_PERIOD: Duration = Duration::from_secs(1);
/// Pause before a call is repeated whose connection broke while the plugin still runs.
const PAUSE: Duration = Duration::from_secs(1);

/// Tasks of one plugin.
pub struct PluginDriver {
    name: String,
    keeper: Arc<Keeper>,
    supervisor: Supervisor,
    _keeping: AbortOnDropHandle<()>,
}

/// What finds a task again.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    id: String,
    /// The plugin's own handle, encoded.
    handle: String,
    output: Option<Output>,
}

impl State {
    fn of(handle: &TaskHandle) -> Result<Self, DriverError> {
        Self::deserialize(&handle.state)
            .map_err(|error| DriverError::Fatal(format!("cannot read the task's handle: {error}")))
    }

    fn plugin_handle(&self) -> Result<proto::TaskHandle, DriverError> {
        let unreadable = |error: &dyn std::fmt::Display| {
            DriverError::Fatal(format!("cannot read the plugin's handle: {error}"))
        };
        let bytes = STANDARD.decode(&self.handle).map_err(|error| unreadable(&error))?;
        proto::TaskHandle::decode(bytes.as_slice()).map_err(|error| unreadable(&error))
    }
}

/// The connection broke: the plugin has said nothing, and may have done anything.
fn lost_contact(status: &Status) -> bool {
    std::error::Error::source(status).is_some() || status.code() == Code::Unavailable
}

fn is_unknown(status: &Status) -> bool {
    status.code() == Code::NotFound || status.message().contains("task not found")
}

fn duration(span: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(span).ok()
}

impl PluginDriver {
    /// Offers a plugin's tasks under `name`.
    pub fn new(
        name: String,
        (keeper, keeping): (Arc<Keeper>, AbortOnDropHandle<()>),
        supervisor: Supervisor,
    ) -> Self {
        Self { name, keeper, supervisor, _keeping: keeping }
    }

    async fn live(&self) -> Result<Arc<Live>, DriverError> {
        let down = || DriverError::Recoverable(format!("the plugin of driver {} is not running", self.name));
        self.keeper.live(PATIENCE).await.ok_or_else(down)
    }

    /// A run of the plugin that knows the task.
    async fn knowing(&self, state: &State) -> Result<Arc<Live>, DriverError> {
        let live = self.live().await?;
        {
            let mut known = live.known.lock().await;
            if !known.contains(&state.id) {
                self.acquaint(&live, state).await?;
                known.insert(state.id.clone());
            }
        }
        Ok(live)
    }

    /// Tells a new run of the plugin about a task of an earlier one.
    async fn acquaint(&self, live: &Live, state: &State) -> Result<(), DriverError> {
        let handle = Some(state.plugin_handle()?);
        let request = proto::RecoverTaskRequest { task_id: state.id.clone(), handle };
        match self.within(CALL_LIMIT, live.driver.clone().recover_task(request)).await {
            Ok(_) => Ok(()),
            Err(status) if lost_contact(&status) => Err(self.failed(&status)),
            Err(status) => {
                tracing::warn!(task = %state.id, error = status.message(), "the plugin cannot find a task again");
                Err(DriverError::NotFound)
            }
        }
    }

    /// What a call answers; one that takes too long counts as lost contact.
    async fn within<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Status> {
        let late = |_| Status::unavailable(format!("no answer within {limit:?}"));
        tokio::time::timeout(limit, call).await.map_err(late)?.map(tonic::Response::into_inner)
    }

    fn failed(&self, status: &Status) -> DriverError {
        if is_unknown(status) {
            return DriverError::NotFound;
        }
        let text = if lost_contact(status) {
            format!("lost contact with the plugin of driver {}: {}", self.name, status.message())
        } else {
            status.message().to_owned()
        };
        DriverError::Recoverable(text)
    }

    fn options(&self, config: &Map<String, Value>) -> Result<Value, Vec<String>> {
        match &self.keeper.about().task_schema {
            Some(spec) => schema::apply(spec, config),
            None => Ok(Value::Object(config.clone())),
        }
    }

    /// A run of the plugin that can run commands inside the task.
    async fn executing(&self, handle: &TaskHandle) -> Result<(State, Arc<Live>), DriverError> {
        if !self.keeper.about().capabilities.exec {
            return Err(DriverError::Fatal(format!("driver {} does not support exec", self.name)));
        }
        let state = State::of(handle)?;
        let live = self.knowing(&state).await?;
        Ok((state, live))
    }

    async fn start_task(&self, task: proto::TaskConfig) -> Result<proto::StartTaskResponse, DriverError> {
        let live = self.live().await?;
        let id = task.id.clone();
        let call = live.driver.clone().start_task(proto::StartTaskRequest { task: Some(task) }).await;
        let answer = call.map_err(|status| self.failed(&status))?.into_inner();
        let text = answer.driver_error_msg.clone();
        match answer.result() {
            start_task_response::Result::Success => {
                live.known.lock().await.insert(id);
                Ok(answer)
            }
            start_task_response::Result::Retry => Err(DriverError::Recoverable(text)),
            start_task_response::Result::Fatal => Err(DriverError::Fatal(text)),
        }
    }
}

fn started(network: Option<proto::NetworkOverride>) -> Started {
    let Some(network) = network else { return Started::default() };
    let ports = network.port_map.into_iter();
    Started {
        address: Some(network.addr).filter(|address| !address.is_empty()),
        advertise: network.auto_advertise,
        ports: ports.filter_map(|(label, port)| Some((label, u16::try_from(port).ok()?))).collect(),
    }
}

#[async_trait]
impl Driver for PluginDriver {
    fn name(&self) -> &str {
        &self.name
    }

    fn own_root(&self) -> bool {
        let isolation = self.keeper.about().capabilities.fs_isolation();
        matches!(isolation, FsIsolation::Chroot | FsIsolation::Image)
    }

    fn mounts_volumes(&self) -> bool {
        self.keeper.about().capabilities.mount_configs() == MountConfigs::AnyMounts
    }

    fn joins_networks(&self) -> bool {
        self.keeper.about().capabilities.network_isolation_modes().any(|mode| mode == Mode::Group)
    }

    fn makes_networks(&self) -> bool {
        self.keeper.about().capabilities.must_create_network
    }

    // A name is for whoever makes the namespace to set.
    fn sets_hostname(&self) -> bool {
        self.makes_networks()
    }

    async fn make_network(&self, alloc: AllocId, hostname: &str) -> Result<MadeNetwork, DriverError> {
        let live = self.live().await?;
        let request =
            proto::CreateNetworkRequest { alloc_id: alloc.to_string(), hostname: hostname.to_owned() };
        let answer = self.within(CALL_LIMIT, live.driver.clone().create_network(request)).await;
        let spec = answer.map_err(|status| self.failed(&status))?.isolation_spec.unwrap_or_default();
        if spec.path.is_empty() {
            let text = format!("driver {} made a network without saying where", self.name);
            return Err(DriverError::Fatal(text));
        }
        Ok(MadeNetwork { driver: self.name.clone(), path: spec.path.into(), labels: spec.labels })
    }

    async fn remove_network(&self, alloc: AllocId, made: &MadeNetwork) -> Result<(), DriverError> {
        let live = self.live().await?;
        let request = proto::DestroyNetworkRequest {
            alloc_id: alloc.to_string(),
            isolation_spec: Some(task::spec_of(made)),
        };
        match self.within(CALL_LIMIT, live.driver.clone().destroy_network(request)).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => Err(self.failed(&status)),
        }
    }

    async fn fingerprint(&self) -> DriverInfo {
        self.keeper.health(HEALTH_LIMIT).await
    }

    async fn health_changed(&self, known: &DriverInfo) {
        self.keeper.health_changed(known).await;
    }

    async fn close(&self) {
        self.keeper.shut_down().await;
    }

    fn validate(&self, config: &Map<String, Value>) -> Vec<String> {
        self.options(config).err().unwrap_or_default()
    }

    async fn start(
        &self,
        config: &TaskConfig,
        progress: Progress,
    ) -> Result<(TaskHandle, Started), DriverError> {
        // The schema may not be known before the plugin is.
        self.live().await?;
        let options =
            self.options(&config.config).map_err(|problems| DriverError::BadConfig(problems.join("; ")))?;
        let id = task::id_of(&config.id);
        let wanted = !self.keeper.about().capabilities.disable_log_collection;
        let output = if wanted { Output::begin(&self.supervisor, config).await? } else { None };
        let nowhere = nowhere();
        let (stdout, stderr) = output.as_ref().map_or((&*nowhere, &*nowhere), Output::paths);
        let options = types::encode(&options);
        let task =
            task::describe(config, &self.name, Own { options, stdout, stderr, own_root: self.own_root() });
        self.keeper.listen(&id, progress);
        match self.start_task(task).await {
            Ok(answer) => {
                let handle = STANDARD.encode(answer.handle.unwrap_or_default().encode_to_vec());
                let state = serde_json::to_value(State { id, handle, output });
                let state = state.map_err(|error| DriverError::Fatal(error.to_string()))?;
                let handle = TaskHandle { driver: self.name.clone(), id: config.id.clone(), state };
                Ok((handle, started(answer.network_override)))
            }
            Err(error) => {
                self.keeper.stop_listening(&id);
                if let Some(output) = output {
                    output.end().await;
                }
                Err(error)
            }
        }
    }

    async fn recover(&self, handle: &TaskHandle) -> Result<Started, DriverError> {
        let state = State::of(handle)?;
        let live = self.knowing(&state).await?;
        if let Some(output) = &state.output {
            output.resume(&self.supervisor).await?;
        }
        let request = proto::InspectTaskRequest { task_id: state.id };
        match self.within(CALL_LIMIT, live.driver.clone().inspect_task(request)).await {
            Ok(answer) => Ok(started(answer.network_override)),
            Err(status) if status.code() == Code::Unimplemented => Ok(Started::default()),
            Err(status) => Err(self.failed(&status)),
        }
    }

    async fn wait(&self, handle: &TaskHandle) -> Result<ExitStatus, DriverError> {
        let state = State::of(handle)?;
        loop {
            // While the plugin is away the task runs on: there is nothing to do but to wait for both.
            let live = match self.knowing(&state).await {
                Err(DriverError::Recoverable(error)) => {
                    tracing::warn!(task = %state.id, %error, "cannot watch a task");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                live => live?,
            };
            let request = proto::WaitTaskRequest { task_id: state.id.clone() };
            match live.driver.clone().wait_task(request).await {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    return Ok(exit_status(answer.result.unwrap_or_default(), answer.err));
                }
                Err(status) if lost_contact(&status) => {
                    // Whether it is given up or only the connection broke does not matter: the call is repeated.
                    let _ = tokio::time::timeout(PAUSE, self.keeper.gone(&live)).await;
                }
                Err(status) => return Err(self.failed(&status)),
            }
        }
    }

    async fn signal(&self, handle: &TaskHandle, signal: &str) -> Result<(), DriverError> {
        if !self.keeper.about().capabilities.send_signals {
            return Err(DriverError::Fatal(format!("driver {} does not support sending signals", self.name)));
        }
        let state = State::of(handle)?;
        let live = self.knowing(&state).await?;
        let request = proto::SignalTaskRequest { task_id: state.id, signal: signal.to_owned() };
        let answer = self.within(CALL_LIMIT, live.driver.clone().signal_task(request)).await;
        answer.map(drop).map_err(|status| self.failed(&status))
    }

    async fn stop(&self, handle: &TaskHandle, signal: &str, timeout: Duration) -> Result<(), DriverError> {
        let state = State::of(handle)?;
        let live = self.knowing(&state).await?;
        let request = proto::StopTaskRequest {
            task_id: state.id,
            timeout: duration(timeout),
            signal: signal.to_owned(),
        };
        match self.within(timeout + KILL_LIMIT, live.driver.clone().stop_task(request)).await {
            Ok(_) => Ok(()),
            Err(status) if is_unknown(&status) => Ok(()),
            Err(status) => Err(self.failed(&status)),
        }
    }

    async fn remove(&self, handle: &TaskHandle) -> Result<(), DriverError> {
        let state = State::of(handle)?;
        let destroyed = match self.knowing(&state).await {
            Ok(live) => {
                let request = proto::DestroyTaskRequest { task_id: state.id.clone(), force: true };
                let call = self.within(KILL_LIMIT, live.driver.clone().destroy_task(request)).await;
                live.known.lock().await.remove(&state.id);
                call.map(drop).map_err(|status| self.failed(&status))
            }
            Err(error) => Err(error),
        };
        self.keeper.stop_listening(&state.id);
        if let Some(output) = &state.output {
            output.end().await;
        }
        match destroyed {
            Err(DriverError::NotFound) => Ok(()),
            destroyed => destroyed,
        }
    }

    async fn stats(&self, handle: &TaskHandle) -> Result<TaskStats, DriverError> {
        let state = State::of(handle)?;
        let live = self.knowing(&state).await?;
        let request =
            proto::TaskStatsRequest { task_id: state.id, collection_interval: duration(STATS_PERIOD) };
        let first = async {
            let mut answers = live.driver.clone().task_stats(request).await?.into_inner();
            Ok(tonic::Response::new(answers.message().await?))
        };
        let answer = self.within(CALL_LIMIT, first).await.map_err(|status| self.failed(&status))?;
        let stats = answer.and_then(|answer| answer.stats).ok_or(DriverError::NotFound)?;
        Ok(read_stats(&stats))
    }

    async fn exec(
        &self,
        handle: &TaskHandle,
        command: &[String],
        timeout: Duration,
    ) -> Result<(i32, Vec<u8>), DriverError> {
        let (state, live) = self.executing(handle).await?;
        let request = proto::ExecTaskRequest {
            task_id: state.id,
            command: command.to_vec(),
            timeout: duration(timeout),
        };
        let answer = self.within(timeout + CALL_LIMIT, live.driver.clone().exec_task(request)).await;
        let answer = answer.map_err(|status| self.failed(&status))?;
        let mut output = answer.stdout;
        output.extend(answer.stderr);
        Ok((answer.result.unwrap_or_default().exit_code, output))
    }

    async fn session(&self, handle: &TaskHandle, request: &ExecRequest) -> Result<ExecSession, DriverError> {
        let (state, live) = self.executing(handle).await?;
        session::open(live.driver.clone(), &state.id, request).await.map_err(|status| self.failed(&status))
    }
}

fn exit_status(result: proto::ExitResult, error: String) -> ExitStatus {
    let message = if error.is_empty() && result.oom_killed { "OOM Killed".to_owned() } else { error };
    ExitStatus { code: result.exit_code, signal: result.signal, oom_killed: result.oom_killed, message }
}

fn read_stats(stats: &proto::TaskStats) -> TaskStats {
    let pids: Vec<i32> = stats.resource_usage_by_pid.keys().filter_map(|pid| pid.parse().ok()).collect();
    let usage = stats.agg_resource_usage.clone().unwrap_or_default();
    let (memory, cpu) = (usage.memory.unwrap_or_default(), usage.cpu.unwrap_or_default());
    let bytes = |field, value| memory.measured_fields().any(|measured| measured == field).then_some(value);
    let times = |field, value| cpu.measured_fields().any(|measured| measured == field).then_some(value);
    let percent =
        |field, value: f64| cpu.measured_fields().any(|measured| measured == field).then_some(value);
    TaskStats {
        throttled_periods: times(CpuFields::ThrottledPeriods, cpu.throttled_periods),
        throttled_ns: times(CpuFields::ThrottledTime, cpu.throttled_time),
        rss_bytes: if memory.rss > 0 { memory.rss } else { memory.usage },
        cache_bytes: bytes(MemoryFields::Cache, memory.cache),
        swap_bytes: bytes(MemoryFields::Swap, memory.swap),
        usage_bytes: bytes(MemoryFields::Usage, memory.usage),
        max_usage_bytes: bytes(MemoryFields::MaxUsage, memory.max_usage),
        kernel_bytes: bytes(MemoryFields::KernelUsage, memory.kernel_usage),
        max_kernel_bytes: bytes(MemoryFields::KernelMaxUsage, memory.kernel_max_usage),
        present: percent(CpuFields::Percent, cpu.percent).map(|whole| CpuShare {
            percent: whole,
            user: percent(CpuFields::UserMode, cpu.user_mode),
            system: percent(CpuFields::SystemMode, cpu.system_mode),
            ticks: percent(CpuFields::TotalTicks, cpu.total_ticks),
        }),
        ..of_kernel(pids)
    }
}

/// The protocol has shares of the moment only; the time since the start is the kernel's to tell.
fn of_kernel(pids: Vec<i32>) -> TaskStats {
    let looked = pids.iter().filter_map(|pid| Some((*pid, usage::of_process(*pid)?)));
    let processes: BTreeMap<i32, ProcessStats> = looked.collect();
    let cpu_time_ns = processes.values().map(|process| process.user_ns + process.system_ns).sum();
    TaskStats { cpu_time_ns, pids, processes, ..TaskStats::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_task_is_told_as_the_plugin_says_it() {
        let result = |exit_code, signal, oom_killed| proto::ExitResult { exit_code, signal, oom_killed };
        assert!(exit_status(result(0, 0, false), String::new()).is_success());
        assert_eq!(exit_status(result(137, 9, true), String::new()).message, "OOM Killed");
        assert_eq!(exit_status(result(1, 0, false), "no image".into()).message, "no image");
        assert_eq!(exit_status(result(0, 15, false), String::new()).signal, 15);
    }

    #[test]
    fn what_the_plugin_measures_is_taken_and_nothing_else() {
        let usage = |measured: &[CpuFields]| {
            let cpu = proto::CpuUsage {
                percent: 12.5,
                total_ticks: 250.0,
                user_mode: 10.0,
                measured_fields: measured.iter().map(|field| i32::from(*field)).collect(),
                ..proto::CpuUsage::default()
            };
            let usage = proto::TaskResourceUsage { cpu: Some(cpu), memory: None };
            read_stats(&proto::TaskStats { agg_resource_usage: Some(usage), ..proto::TaskStats::default() })
        };
        let told = usage(&[CpuFields::Percent, CpuFields::TotalTicks]).present.unwrap();
        assert_eq!((told.percent, told.ticks, told.user), (12.5, Some(250.0), None));
        assert_eq!(usage(&[CpuFields::UserMode]).present, None);
    }

    #[test]
    fn an_answer_of_the_plugin_is_not_taken_for_a_lost_connection() {
        assert!(!lost_contact(&Status::unknown("task not found for given id")));
        assert!(is_unknown(&Status::unknown("task not found for given id")));
        assert!(lost_contact(&Status::unavailable("gone")));
        assert!(lost_contact(&Status::from_error(Box::new(std::io::Error::other("reset")))));
    }
}
