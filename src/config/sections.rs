//! The blocks of an agent's configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::de::Error;
use serde_json::Value;
use serde_json::json;

use super::scheduler::SchedulerDefaults;
use crate::model::time::Span;

/// The etcd that holds all state. Herder's own block. Without endpoints, a server keeps its state in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EtcdConfig {
    /// `http://host:port` or `https://host:port`.
    pub endpoints: Vec<String>,
    /// The prefix of all keys, with a slash at both ends.
    pub root: String,
    pub user: String,
    pub password: String,
    pub ca_file: String,
    pub cert_file: String,
    pub key_file: String,
}

impl Default for EtcdConfig {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            root: "/herder/".to_owned(),
            user: String::new(),
            password: String::new(),
            ca_file: String::new(),
            cert_file: String::new(),
            key_file: String::new(),
        }
    }
}

impl EtcdConfig {
    /// What `HERDER_ETCD_ENDPOINTS`, `HERDER_ETCD_ROOT`, … say, over the defaults.
    pub fn from_environment() -> Self {
        let overlay = Self::overlay(|name| std::env::var(name).ok());
        serde_json::from_value(overlay).unwrap_or_default()
    }

    /// The keys that the environment gives, in the form of the configuration file's block.
    pub(super) fn overlay(environment: impl Fn(&str) -> Option<String>) -> Value {
        let mut block = serde_json::Map::new();
        let read = |name: &str| environment(&format!("HERDER_ETCD_{name}")).filter(|text| !text.is_empty());
        if let Some(endpoints) = read("ENDPOINTS") {
            block.insert("endpoints".to_owned(), json!(split_endpoints(&endpoints)));
        }
        for key in ["root", "user", "password", "ca_file", "cert_file", "key_file"] {
            if let Some(text) = read(&key.to_uppercase()) {
                block.insert(key.to_owned(), text.into());
            }
        }
        Value::Object(block)
    }
}

/// Splits `a:2379,b:2379`; an endpoint without scheme is `http://`.
pub fn split_endpoints(text: &str) -> Vec<String> {
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    words.map(|word| if word.contains("://") { word.to_owned() } else { format!("http://{word}") }).collect()
}

/// `server { … }`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct ServerConfig {
    pub enabled: bool,
    #[serde(deserialize_with = "span")]
    pub node_gc_threshold: Span,
    #[serde(deserialize_with = "span")]
    pub job_gc_interval: Span,
    #[serde(deserialize_with = "span")]
    pub job_gc_threshold: Span,
    #[serde(deserialize_with = "span")]
    pub eval_gc_threshold: Span,
    #[serde(deserialize_with = "span")]
    pub batch_eval_gc_threshold: Span,
    #[serde(deserialize_with = "span")]
    pub deployment_gc_threshold: Span,
    /// How long after an agent's lease ended the node counts as down. Nomad's default is ten seconds, ours none.
    #[serde(deserialize_with = "span")]
    pub heartbeat_grace: Span,
    /// The lease of agents is at least this long.
    #[serde(deserialize_with = "span")]
    pub min_heartbeat_ttl: Span,
    /// The URL under which others find `/.well-known/openid-configuration`; empty for none.
    pub oidc_issuer: String,
    pub job_default_priority: i64,
    pub job_max_priority: i64,
    pub job_tracked_versions: u64,
    /// `1M` and the like.
    pub job_max_source_size: String,
    pub event_buffer_size: u64,
    /// Scheduler configuration of a new cluster.
    pub default_scheduler_config: Option<SchedulerDefaults>,
    /// Scheduler types that this server runs; empty for all.
    #[serde(deserialize_with = "null_list")]
    pub enabled_schedulers: Vec<String>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        let hours = |count: i64| Span::from_secs(count * 3600);
        Self {
            enabled: false,
            node_gc_threshold: hours(24),
            job_gc_interval: Span::from_secs(300),
            job_gc_threshold: hours(4),
            eval_gc_threshold: hours(1),
            batch_eval_gc_threshold: hours(24),
            deployment_gc_threshold: hours(1),
            // The lease is grace enough: it is renewed three times as often as it must be.
            heartbeat_grace: Span::ZERO,
            min_heartbeat_ttl: Span::from_secs(10),
            oidc_issuer: String::new(),
            job_default_priority: 50,
            job_max_priority: 100,
            job_tracked_versions: 6,
            job_max_source_size: "1M".to_owned(),
            event_buffer_size: 100,
            default_scheduler_config: None,
            enabled_schedulers: Vec::new(),
        }
    }
}

/// `client { … }`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClientConfig {
    pub enabled: bool,
    /// `<data_dir>/client` by default.
    pub state_dir: PathBuf,
    /// `<data_dir>/alloc` by default.
    pub alloc_dir: PathBuf,
    /// `<data_dir>/alloc_mounts` by default.
    pub alloc_mounts_dir: PathBuf,
    pub node_class: String,
    pub node_pool: String,
    #[serde(deserialize_with = "text_map")]
    pub meta: BTreeMap<String, String>,
    #[serde(deserialize_with = "text_map")]
    pub options: BTreeMap<String, String>,
    /// The interface whose address tasks get; empty for the one of the default route.
    pub network_interface: String,
    /// `ipv4` or `ipv6`; empty for IPv4 before IPv6.
    pub preferred_address_family: String,
    /// Mbit/s; zero for what the interface tells.
    pub network_speed: i64,
    /// MHz; zero for what was found.
    pub cpu_total_compute: u64,
    /// MiB; zero for what was found.
    pub memory_total_mb: u64,
    /// MiB; zero for what was found.
    pub disk_total_mb: u64,
    /// MiB; zero for what was found.
    pub disk_free_mb: u64,
    /// `0-3,8`; empty for all.
    pub reservable_cores: String,
    pub reserved: ReservedConfig,
    pub min_dynamic_port: u16,
    pub max_dynamic_port: u16,
    #[serde(deserialize_with = "span")]
    pub max_kill_timeout: Span,
    pub disable_remote_exec: bool,
    #[serde(deserialize_with = "span")]
    pub gc_interval: Span,
    /// Percent.
    pub gc_disk_usage_threshold: f64,
    /// Percent.
    pub gc_inode_usage_threshold: f64,
    pub gc_max_allocs: u64,
    pub gc_parallel_destroys: u64,
    /// Directories of plugins, separated by colons.
    pub cni_path: String,
    pub cni_config_dir: PathBuf,
    pub bridge_network_name: String,
    pub bridge_network_subnet: String,
    pub bridge_network_subnet_ipv6: String,
    pub bridge_network_hairpin_mode: bool,
    /// Mapped ports of the default host network are reached at all addresses of the machine.
    pub bind_wildcard_default_host_network: bool,
    pub cgroup_parent: String,
    pub nomad_service_discovery: bool,
    pub host_volume: BTreeMap<String, HostVolumeConfig>,
    pub host_network: BTreeMap<String, HostNetworkConfig>,
    /// What the `exec` driver shows of the host: source by destination.
    #[serde(deserialize_with = "text_map")]
    pub chroot_env: BTreeMap<String, String>,
    pub drain_on_shutdown: Option<DrainOnShutdown>,
    pub artifact: ArtifactConfig,
    pub template: TemplateConfig,
    /// Servers of a client without etcd, `host:port`. Agents reach etcd themselves.
    #[serde(deserialize_with = "null_list")]
    pub servers: Vec<String>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            state_dir: PathBuf::new(),
            alloc_dir: PathBuf::new(),
            alloc_mounts_dir: PathBuf::new(),
            node_class: String::new(),
            node_pool: "default".to_owned(),
            meta: BTreeMap::new(),
            options: BTreeMap::new(),
            network_interface: String::new(),
            preferred_address_family: String::new(),
            network_speed: 0,
            cpu_total_compute: 0,
            memory_total_mb: 0,
            disk_total_mb: 0,
            disk_free_mb: 0,
            reservable_cores: String::new(),
            reserved: ReservedConfig::default(),
            min_dynamic_port: 20_000,
            max_dynamic_port: 32_000,
            max_kill_timeout: Span::from_secs(30),
            disable_remote_exec: false,
            gc_interval: Span::from_secs(60),
            gc_disk_usage_threshold: 80.0,
            gc_inode_usage_threshold: 70.0,
            gc_max_allocs: 50,
            gc_parallel_destroys: 2,
            // The second is where Debian and its relatives install the plugins.
            cni_path: "/opt/cni/bin:/usr/lib/cni".to_owned(),
            cni_config_dir: PathBuf::from("/opt/cni/config"),
            bridge_network_name: "nomad".to_owned(),
            bridge_network_subnet: "172.26.64.0/20".to_owned(),
            bridge_network_subnet_ipv6: String::new(),
            bridge_network_hairpin_mode: false,
            bind_wildcard_default_host_network: true,
            cgroup_parent: "/nomad".to_owned(),
            nomad_service_discovery: true,
            host_volume: BTreeMap::new(),
            host_network: BTreeMap::new(),
            chroot_env: BTreeMap::new(),
            drain_on_shutdown: None,
            artifact: ArtifactConfig::default(),
            template: TemplateConfig::default(),
            servers: Vec::new(),
        }
    }
}

/// `client { reserved { … } }`: what jobs do not get.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ReservedConfig {
    /// MHz.
    pub cpu: u64,
    /// `0-3,8`.
    pub cores: String,
    /// MiB.
    pub memory: u64,
    /// MiB.
    pub disk: u64,
    /// `22,80,8500-8600`.
    pub reserved_ports: String,
}

/// `host_volume "name" { … }`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HostVolumeConfig {
    pub path: PathBuf,
    pub read_only: bool,
}

/// `host_network "name" { … }`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HostNetworkConfig {
    pub cidr: String,
    pub interface: String,
    pub reserved_ports: String,
}

/// `drain_on_shutdown { … }`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct DrainOnShutdown {
    #[serde(deserialize_with = "span")]
    pub deadline: Span,
    pub force: bool,
    pub ignore_system_jobs: bool,
}

impl Default for DrainOnShutdown {
    fn default() -> Self {
        Self { deadline: Span::from_secs(3600), force: false, ignore_system_jobs: false }
    }
}

/// `artifact { … }`: limits of downloads.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ArtifactConfig {
    #[serde(deserialize_with = "span")]
    pub http_read_timeout: Span,
    /// `100GB` and the like.
    pub http_max_size: String,
    pub decompression_size_limit: String,
    pub decompression_file_count_limit: u64,
    #[serde(deserialize_with = "span")]
    pub gcs_timeout: Span,
    #[serde(deserialize_with = "span")]
    pub git_timeout: Span,
    #[serde(deserialize_with = "span")]
    pub hg_timeout: Span,
    #[serde(deserialize_with = "span")]
    pub s3_timeout: Span,
    /// Names of variables of the agent that downloads may use, separated by commas.
    pub set_environment_variables: String,
}

impl Default for ArtifactConfig {
    fn default() -> Self {
        Self {
            http_read_timeout: Span::from_secs(1800),
            http_max_size: "100GB".to_owned(),
            decompression_size_limit: "100GB".to_owned(),
            decompression_file_count_limit: 4096,
            gcs_timeout: Span::from_secs(1800),
            git_timeout: Span::from_secs(1800),
            hg_timeout: Span::from_secs(1800),
            s3_timeout: Span::from_secs(1800),
            set_environment_variables: String::new(),
        }
    }
}

/// `template { … }`: what templates of tasks may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TemplateConfig {
    /// Functions that are disabled; `None` for the usual ones.
    #[serde(alias = "function_blacklist")]
    pub function_denylist: Option<Vec<String>>,
    /// The function `file` may read any file of the machine.
    pub disable_file_sandbox: bool,
    /// Quiet time before a template is rendered again.
    pub wait: WaitConfig,
    /// What jobs may ask for.
    pub wait_bounds: WaitConfig,
}

/// `wait { min = "5s" max = "4m" }`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct WaitConfig {
    #[serde(deserialize_with = "some_span")]
    pub min: Option<Span>,
    #[serde(deserialize_with = "some_span")]
    pub max: Option<Span>,
}

/// `plugin "driver" { args = […] config { … } }`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PluginConfig {
    #[serde(deserialize_with = "null_list")]
    pub args: Vec<String>,
    /// An object, as the file says it; a block that is given once is an object, several are a list.
    pub config: Value,
}

impl PluginConfig {
    /// Sets one key of the configuration.
    pub(super) fn set(&mut self, key: &str, value: Value) {
        if !self.config.is_object() {
            self.config = json!({});
        }
        self.config[key] = value;
    }
}

/// `telemetry { … }`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TelemetryConfig {
    #[serde(deserialize_with = "span")]
    pub collection_interval: Span,
    pub disable_hostname: bool,
    pub publish_allocation_metrics: bool,
    pub publish_node_metrics: bool,
    pub prometheus_metrics: bool,
    pub include_alloc_metadata_in_metrics: bool,
    #[serde(deserialize_with = "null_list")]
    pub allowed_metadata_keys_in_metrics: Vec<String>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            collection_interval: Span::from_secs(1),
            disable_hostname: false,
            publish_allocation_metrics: false,
            publish_node_metrics: false,
            prometheus_metrics: false,
            include_alloc_metadata_in_metrics: false,
            allowed_metadata_keys_in_metrics: Vec::new(),
        }
    }
}

/// `consul { … }`: the machine's Consul agent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ConsulConfig {
    /// `host:port`, with or without scheme.
    pub address: String,
    /// `user:password`.
    pub auth: String,
    pub token: String,
    pub ssl: bool,
    pub verify_ssl: bool,
    pub ca_file: PathBuf,
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    pub namespace: String,
    /// Of one request.
    #[serde(deserialize_with = "span")]
    pub timeout: Span,
}

impl Default for ConsulConfig {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:8500".to_owned(),
            auth: String::new(),
            token: String::new(),
            ssl: false,
            verify_ssl: true,
            ca_file: PathBuf::new(),
            cert_file: PathBuf::new(),
            key_file: PathBuf::new(),
            namespace: String::new(),
            timeout: Span::from_secs(5),
        }
    }
}

impl ConsulConfig {
    /// The keys that `CONSUL_HTTP_ADDR` and its companions give; nothing without an address.
    pub(super) fn overlay(environment: impl Fn(&str) -> Option<String>) -> Option<Value> {
        let read = |name: &str| environment(name).filter(|text| !text.is_empty());
        let mut block = serde_json::Map::new();
        block.insert("address".to_owned(), read("CONSUL_HTTP_ADDR")?.into());
        for (name, key) in [
            ("CONSUL_HTTP_TOKEN", "token"),
            ("CONSUL_HTTP_AUTH", "auth"),
            ("CONSUL_CACERT", "ca_file"),
            ("CONSUL_CLIENT_CERT", "cert_file"),
            ("CONSUL_CLIENT_KEY", "key_file"),
            ("CONSUL_NAMESPACE", "namespace"),
        ] {
            if let Some(text) = read(name) {
                block.insert(key.to_owned(), text.into());
            }
        }
        for (name, key) in [("CONSUL_HTTP_SSL", "ssl"), ("CONSUL_HTTP_SSL_VERIFY", "verify_ssl")] {
            if let Some(text) = read(name) {
                block.insert(key.to_owned(), matches!(text.as_str(), "1" | "true").into());
            }
        }
        Some(Value::Object(block))
    }
}

/// `acl { … }`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AclConfig {
    pub enabled: bool,
}

/// `tls { … }`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TlsConfig {
    pub http: bool,
    pub rpc: bool,
    pub ca_file: String,
    pub cert_file: String,
    pub key_file: String,
    pub verify_https_client: bool,
}

/// A Go duration, or a number of seconds.
fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Span::parse(&text)
            .map_err(|why| D::Error::custom(format!("can't parse time duration {text}: {why}"))),
        Value::Number(number) => {
            let seconds = number.as_f64().unwrap_or(0.0);
            Ok(Span((seconds * 1e9) as i64))
        }
        other => Err(D::Error::custom(format!("can't parse time duration {other}"))),
    }
}

fn some_span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Span>, D::Error> {
    span(deserializer).map(Some)
}

/// Values of a map of texts may be numbers and booleans in a file.
fn text_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let values = Option::<BTreeMap<String, Value>>::deserialize(deserializer)?.unwrap_or_default();
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Ok(values.into_iter().map(|(key, value)| (key, text(value))).collect())
}

fn null_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default())
}
