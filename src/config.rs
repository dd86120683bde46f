//! Configuration of an agent: file, environment and flags resolved into one value.
//!
//! ```text
//! defaults ─► dev defaults ─► each -config in order ─► environment (etcd) ─► flags ─► check
//! ```

mod file;
mod scheduler;
mod schema;
mod sections;
mod syntax;

use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

pub use self::scheduler::SchedulerDefaults;
pub use self::sections::AclConfig;
pub use self::sections::ArtifactConfig;
pub use self::sections::ClientConfig;
pub use self::sections::ConsulConfig;
pub use self::sections::DrainOnShutdown;
pub use self::sections::EtcdConfig;
pub use self::sections::HostNetworkConfig;
pub use self::sections::HostVolumeConfig;
pub use self::sections::PluginConfig;
pub use self::sections::ReservedConfig;
pub use self::sections::ServerConfig;
pub use self::sections::TelemetryConfig;
pub use self::sections::TemplateConfig;
pub use self::sections::TlsConfig;
pub use self::sections::split_endpoints;

/// Why a configuration cannot be used. The text is complete: it names file, line and key where there are any.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read, understood or used.
    #[error("Error loading configuration from {path}: {why}")]
    Load { path: String, why: String },
    /// The values do not fit together.
    #[error("{0}")]
    Invalid(String),
}

/// Addresses, or the host part of addresses, for the three services of Nomad. Only HTTP is served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Addresses {
    pub http: String,
    pub rpc: String,
    pub serf: String,
}

/// Ports. Only HTTP is served.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Ports {
    pub http: u16,
    pub rpc: u16,
    pub serf: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { http: 4646, rpc: 4647, serf: 4648 }
    }
}

/// All of an agent's configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct AgentConfig {
    pub region: String,
    pub datacenter: String,
    /// The node's name; the host's name by default.
    pub name: String,
    /// Where the agent keeps its state; absolute. In dev mode a temporary directory.
    pub data_dir: PathBuf,
    pub plugin_dir: PathBuf,
    pub bind_addr: String,
    pub addresses: Addresses,
    pub ports: Ports,
    pub advertise: Addresses,
    pub log_level: String,
    pub log_json: bool,
    pub log_file: String,
    pub enable_debug: bool,
    pub leave_on_interrupt: bool,
    pub leave_on_terminate: bool,
    pub http_api_response_headers: std::collections::BTreeMap<String, String>,
    pub server: ServerConfig,
    pub client: ClientConfig,
    /// By driver.
    pub plugin: std::collections::BTreeMap<String, PluginConfig>,
    pub telemetry: TelemetryConfig,
    pub acl: AclConfig,
    pub tls: TlsConfig,
    pub etcd: EtcdConfig,
    /// The machine's Consul agent; absent when neither file, environment nor flags speak of one.
    pub consul: Option<ConsulConfig>,
    /// Server and client in one process, for trying things out; nothing outlives it.
    #[serde(skip)]
    pub dev: bool,
    /// The configuration files that were read.
    #[serde(skip)]
    pub files: Vec<String>,
    /// `data_dir` is a temporary directory that goes when the agent ends.
    #[serde(skip)]
    pub temporary_data: bool,
    /// Notes for the operator: settings that have no effect here.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            region: "global".to_owned(),
            datacenter: "dc1".to_owned(),
            name: String::new(),
            data_dir: PathBuf::new(),
            plugin_dir: PathBuf::new(),
            bind_addr: "0.0.0.0".to_owned(),
            addresses: Addresses::default(),
            ports: Ports::default(),
            advertise: Addresses::default(),
            log_level: "INFO".to_owned(),
            log_json: false,
            log_file: String::new(),
            enable_debug: false,
            leave_on_interrupt: false,
            leave_on_terminate: false,
            http_api_response_headers: std::collections::BTreeMap::new(),
            server: ServerConfig::default(),
            client: ClientConfig::default(),
            plugin: std::collections::BTreeMap::new(),
            telemetry: TelemetryConfig::default(),
            acl: AclConfig::default(),
            tls: TlsConfig::default(),
            etcd: EtcdConfig::default(),
            consul: None,
            dev: false,
            files: Vec::new(),
            temporary_data: false,
            warnings: Vec::new(),
        }
    }
}

/// What the command line says, in the form of a configuration file, and what no file can say.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub dev: bool,
    /// Files and directories of `-config`, in order.
    pub files: Vec<PathBuf>,
    /// As a configuration file would say it.
    pub overlay: Value,
}

impl AgentConfig {
    /// Reads all files, puts environment and flags over them, and checks the result. `environment` looks a
    /// variable up; `hostname` is the default name.
    ///
    /// # Errors
    /// With the text to show: Nomad's where it has one.
    pub fn resolve(
        flags: &Flags,
        environment: impl Fn(&str) -> Option<String>,
        hostname: &str,
    ) -> Result<Self, ConfigError> {
        let mut merged = if flags.dev { dev_defaults() } else { json!({}) };
        let mut files = Vec::new();
        let mut warnings = Vec::new();
        for path in &flags.files {
            let loaded = file::load(path)?;
            if loaded.is_empty() {
                warnings.push(format!("No configuration loaded from {}", path.display()));
            }
            for (name, value) in loaded {
                schema::merge(&mut merged, value);
                files.push(name);
            }
        }
        if let Some(consul) = ConsulConfig::overlay(&environment) {
            // What is written down for the agent counts more than what lies about in its environment.
            let mut both = json!({ "consul": consul });
            schema::merge(&mut both, merged);
            merged = both;
        }
        let etcd = EtcdConfig::overlay(environment);
        schema::merge(&mut merged, json!({ "etcd": etcd }));
        schema::merge(&mut merged, flags.overlay.clone());
        let path = files.first().cloned().unwrap_or_else(|| "the command line".to_owned());
        let mut config: Self = serde_json::from_value(merged.clone())
            .map_err(|why| ConfigError::Load { path, why: why.to_string() })?;
        warnings.extend(schema::without_effect(&merged));
        config.dev = flags.dev;
        config.files = files;
        config.warnings = warnings;
        config.complete(hostname)?;
        config.check()?;
        Ok(config)
    }

    /// The state of the cluster is in this process only, and goes with it.
    pub fn state_is_in_memory(&self) -> bool {
        self.dev && self.etcd.endpoints.is_empty()
    }

    /// Fills in what follows from the rest.
    fn complete(&mut self, hostname: &str) -> Result<(), ConfigError> {
        if self.name.is_empty() {
            hostname.clone_into(&mut self.name);
        }
        if self.dev && self.data_dir.as_os_str().is_empty() {
            self.data_dir =
                std::env::temp_dir().join(format!("herder-dev-{}", uuid::Uuid::new_v4().simple()));
            self.temporary_data = true;
        }
        for text in [
            &mut self.bind_addr,
            &mut self.addresses.http,
            &mut self.advertise.http,
            &mut self.client.network_interface,
        ] {
            *text = file::expand_address(text)?;
        }
        let client = &mut self.client;
        let beneath = |path: &mut PathBuf, name: &str| {
            if path.as_os_str().is_empty() && !self.data_dir.as_os_str().is_empty() {
                *path = self.data_dir.join(name);
            }
        };
        beneath(&mut client.state_dir, "client");
        beneath(&mut client.alloc_dir, "alloc");
        beneath(&mut client.alloc_mounts_dir, "alloc_mounts");
        beneath(&mut self.plugin_dir, "plugins");
        // Tasks are started by processes that stand elsewhere.
        for volume in client.host_volume.values_mut().filter(|volume| !volume.path.as_os_str().is_empty()) {
            volume.path = std::path::absolute(&volume.path).unwrap_or_else(|_| volume.path.clone());
        }
        // The older way to say it, still found in many tutorials.
        if client
            .options
            .get("driver.raw_exec.enable")
            .is_some_and(|text| matches!(text.as_str(), "1" | "true"))
        {
            let plugin = self.plugin.entry("raw_exec".to_owned()).or_default();
            if plugin.config.get("enabled").is_none() {
                plugin.set("enabled", true.into());
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), ConfigError> {
        let invalid = |text: String| Err(ConfigError::Invalid(text));
        if !self.server.enabled && !self.client.enabled {
            return invalid("Must specify either server, client or dev mode for the agent.".to_owned());
        }
        if self.region.contains(['\0', ' ', '/']) || self.region.is_empty() {
            return invalid("Region contains invalid characters".to_owned());
        }
        if self.datacenter.contains(['\0', '*']) {
            return invalid("Datacenter contains invalid characters (null or '*')".to_owned());
        }
        if self.data_dir.as_os_str().is_empty() {
            return invalid("Must specify \"data_dir\" config option or \"data-dir\" CLI flag".to_owned());
        }
        for (flag, path) in [
            ("data-dir", &self.data_dir),
            ("plugin-dir", &self.plugin_dir),
            ("state-dir", &self.client.state_dir),
            ("alloc-dir", &self.client.alloc_dir),
        ] {
            if !path.as_os_str().is_empty() && !path.is_absolute() {
                return invalid(format!("{flag} must be given as an absolute path: got {}", path.display()));
            }
        }
        let client = &self.client;
        let pool = &client.node_pool;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if pool.is_empty() || pool.len() > 128 || !pool.chars().all(plain) || pool == "all" {
            return invalid(format!(
                "Invalid node pool: {pool:?} is not a name of letters, digits, '-' and '_'"
            ));
        }
        let family = client.preferred_address_family.as_str();
        if !matches!(family, "" | "ipv4" | "ipv6") {
            return invalid(format!("Invalid preferred_address_family: {family:?} is neither ipv4 nor ipv6"));
        }
        if client.min_dynamic_port > client.max_dynamic_port {
            let range = format!("min={} is above max={}", client.min_dynamic_port, client.max_dynamic_port);
            return invalid(format!("Invalid dynamic port range: {range}"));
        }
        if let Some((name, _)) =
            client.host_volume.iter().find(|(_, volume)| volume.path.as_os_str().is_empty())
        {
            return invalid(format!("Missing path in host_volume config {name:?}"));
        }
        if let Some(scheduler) = &self.server.default_scheduler_config
            && !matches!(scheduler.scheduler_algorithm.as_str(), "binpack" | "spread")
        {
            let algorithm = &scheduler.scheduler_algorithm;
            return invalid(format!(
                "Invalid scheduler_algorithm: {algorithm:?} is neither binpack nor spread"
            ));
        }
        const LEVELS: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "OFF"];
        if !LEVELS.contains(&self.log_level.to_uppercase().as_str()) {
            let known = LEVELS.join(", ");
            return invalid(format!("Invalid log level: {}. Valid log levels are: {known}", self.log_level));
        }
        Ok(())
    }

    /// The addresses on which HTTP is served, each with its port.
    ///
    /// # Errors
    /// When one is not an address.
    pub fn http_listeners(&self) -> Result<Vec<std::net::SocketAddr>, ConfigError> {
        let text = if self.addresses.http.is_empty() { &self.bind_addr } else { &self.addresses.http };
        let parse = |word: &str| {
            let host: IpAddr = word.trim_matches(['[', ']']).parse().map_err(|_| {
                ConfigError::Invalid(format!("Failed to parse HTTP address {word:?}: write an IP address"))
            })?;
            Ok(std::net::SocketAddr::new(host, self.ports.http))
        };
        text.split_whitespace().map(parse).collect()
    }

    /// The address that others are told for HTTP: `host:port`. A wildcard becomes the first private address.
    ///
    /// # Errors
    /// When the bind address is not an address.
    pub fn http_advertise(&self) -> Result<String, ConfigError> {
        let port = self.ports.http;
        let given = &self.advertise.http;
        if !given.is_empty() {
            let with_port = given.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            return Ok(if with_port && !given.ends_with(']') {
                given.clone()
            } else {
                format!("{given}:{port}")
            });
        }
        let listeners = self.http_listeners()?;
        let bound = listeners.first().map(std::net::SocketAddr::ip);
        Ok(match bound {
            Some(ip) if !ip.is_unspecified() => std::net::SocketAddr::new(ip, port).to_string(),
            _ => match file::private_address() {
                Some(ip) => std::net::SocketAddr::new(ip, port).to_string(),
                None => format!("127.0.0.1:{port}"),
            },
        })
    }

    /// Whether the log goes out as JSON lines and at which level, as `tracing` names it.
    pub fn log_filter(&self) -> &'static str {
        match self.log_level.to_uppercase().as_str() {
            "TRACE" => "trace",
            "DEBUG" => "debug",
            "WARN" => "warn",
            "ERROR" => "error",
            "OFF" => "off",
            _ => "info",
        }
    }

    /// What a driver was configured with; null when nothing.
    pub fn driver_config(&self, driver: &str) -> Value {
        self.plugin.get(driver).map(|plugin| plugin.config.clone()).unwrap_or_default()
    }

    /// Reads one file or directory, for `config validate` and tests.
    ///
    /// # Errors
    /// As for [`AgentConfig::resolve`].
    pub fn from_path(path: &Path) -> Result<Self, ConfigError> {
        let flags = Flags { files: vec![path.to_owned()], ..Flags::default() };
        Self::resolve(&flags, |_| None, "localhost")
    }
}

/// What `-dev` changes.
fn dev_defaults() -> Value {
    json!({
        "bind_addr": "127.0.0.1",
        "log_level": "DEBUG",
        "enable_debug": true,
        "server": { "enabled": true },
        "client": {
            "enabled": true,
            "options": { "driver.raw_exec.enable": "true", "driver.docker.volumes": "true" },
            "gc_interval": "10m",
            "gc_disk_usage_threshold": 99.0,
            "gc_inode_usage_threshold": 99.0,
        },
        "plugin": {
            "raw_exec": { "config": { "enabled": true } },
            "docker": { "config": { "volumes": { "enabled": true } } },
        },
        "telemetry": {
            "prometheus_metrics": true,
            "publish_allocation_metrics": true,
            "publish_node_metrics": true,
            "include_alloc_metadata_in_metrics": true,
        },
    })
}

#[cfg(test)]
mod tests;
