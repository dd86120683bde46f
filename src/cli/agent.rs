//! `agent`: flags into configuration, and what the agent prints while it starts.

use std::path::PathBuf;

use clap::ArgAction;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::context::Context;
use super::context::Failure;
use super::context::Outcome;
use super::output::Output;
use super::registry::Run;
use crate::config::AgentConfig;
use crate::config::Flags;

/// The column in which the keys of the banner end.
const BANNER_WIDTH: usize = 18;
/// Printed where a version of Nomad is asked for.
pub const COMPATIBLE: &str = "1.9.7";

/// Runs an agent.
#[derive(clap::Args, Clone, Debug)]
pub struct Agent {
    /// Server and client in one process, for trying things out. Nothing is kept.
    #[arg(long)]
    dev: bool,
    /// Run the server role.
    #[arg(long)]
    server: bool,
    /// Run the client role.
    #[arg(long)]
    client: bool,
    /// A file or directory of configuration. May be given several times.
    #[arg(long, value_name = "path", action = ArgAction::Append)]
    config: Vec<PathBuf>,
    /// Where the agent keeps its state.
    #[arg(long, value_name = "path")]
    data_dir: Option<String>,
    /// Where driver plugins are.
    #[arg(long, value_name = "path")]
    plugin_dir: Option<String>,
    /// The address to listen on.
    #[arg(long, value_name = "addr")]
    bind: Option<String>,
    /// The name of this node. Defaults to the host's name.
    #[arg(long, value_name = "name")]
    node: Option<String>,
    /// The datacenter of this node. Default = dc1
    #[arg(long, value_name = "datacenter")]
    dc: Option<String>,
    /// TRACE, DEBUG, INFO, WARN, ERROR or OFF. Default = INFO
    #[arg(long, value_name = "level")]
    log_level: Option<String>,
    /// Write the log as JSON lines.
    #[arg(long)]
    log_json: bool,
    /// The class of this node.
    #[arg(long, value_name = "class")]
    node_class: Option<String>,
    /// The pool of this node. Default = default
    #[arg(long, value_name = "pool")]
    node_pool: Option<String>,
    /// A value for the node's metadata, 'name=value'. May be given several times.
    #[arg(long, value_name = "name=value", action = ArgAction::Append)]
    meta: Vec<String>,
    /// The interface whose address tasks get.
    #[arg(long, value_name = "name")]
    network_interface: Option<String>,
    /// The kind of address that tasks get when the interface has several: ipv4 or ipv6.
    #[arg(long, value_name = "family")]
    preferred_address_family: Option<String>,
    /// The speed of the interface in Mbit/s, where it does not tell.
    #[arg(long, value_name = "mbits")]
    network_speed: Option<i64>,
    #[command(flatten)]
    consul: ConsulFlags,
    /// Where the client keeps its state.
    #[arg(long, value_name = "path")]
    state_dir: Option<String>,
    /// Where the directories of allocations are.
    #[arg(long, value_name = "path")]
    alloc_dir: Option<String>,
    /// Where the directories of allocations are mounted.
    #[arg(long, value_name = "path")]
    alloc_mounts_dir: Option<String>,
    /// Turn access control on.
    #[arg(long)]
    acl_enabled: bool,
    /// Accepted; servers need no number of peers, since all state is in etcd.
    #[arg(long, value_name = "count")]
    bootstrap_expect: Option<i64>,
    /// Accepted; there is no gossip to encrypt.
    #[arg(long, value_name = "key")]
    encrypt: Option<String>,
    /// Accepted; servers find each other in etcd.
    #[arg(long, value_name = "addr", action = ArgAction::Append)]
    join: Vec<String>,
    /// Accepted; servers find each other in etcd.
    #[arg(long, value_name = "addr", action = ArgAction::Append)]
    retry_join: Vec<String>,
    /// Accepted; agents find their servers in etcd.
    #[arg(long, value_name = "addrs")]
    servers: Option<String>,
    /// Accepted; there is no Raft.
    #[arg(long, value_name = "version", hide = true)]
    raft_protocol: Option<i64>,
    /// Accepted; there is no gossip.
    #[arg(long, hide = true)]
    rejoin: bool,
    /// Positional arguments are ignored.
    #[arg(hide = true)]
    args: Vec<String>,
}

/// The machine's Consul agent.
#[derive(clap::Args, Clone, Debug, Default)]
struct ConsulFlags {
    /// Where the machine's Consul agent is: host:port.
    #[arg(long, value_name = "addr")]
    consul_address: Option<String>,
    /// User and password for Consul, 'user:password'.
    #[arg(long, value_name = "auth")]
    consul_auth: Option<String>,
    /// The token for Consul.
    #[arg(long, value_name = "token")]
    consul_token: Option<String>,
    /// The file with the authorities that sign Consul's certificate.
    #[arg(long, value_name = "path")]
    consul_ca_file: Option<String>,
    /// The file with the certificate that Consul is shown.
    #[arg(long, value_name = "path")]
    consul_cert_file: Option<String>,
    /// The file with the key of that certificate.
    #[arg(long, value_name = "path")]
    consul_key_file: Option<String>,
    /// Speak HTTPS to Consul.
    #[arg(long)]
    consul_ssl: bool,
    /// Whether Consul's certificate is checked. Default = true
    #[arg(long, value_name = "bool", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    consul_verify_ssl: Option<bool>,
}

impl ConsulFlags {
    fn overlay(&self) -> Map<String, Value> {
        let mut block = Map::new();
        let texts = [
            ("address", &self.consul_address),
            ("auth", &self.consul_auth),
            ("token", &self.consul_token),
            ("ca_file", &self.consul_ca_file),
            ("cert_file", &self.consul_cert_file),
            ("key_file", &self.consul_key_file),
        ];
        put(&mut block, &texts);
        if self.consul_ssl {
            block.insert("ssl".to_owned(), true.into());
        }
        if let Some(verify) = self.consul_verify_ssl {
            block.insert("verify_ssl".to_owned(), verify.into());
        }
        block
    }
}

impl Run for Agent {
    async fn run(self, context: &Context) -> Outcome {
        let flags = Flags { dev: self.dev, files: self.config.clone(), overlay: self.overlay(context)? };
        let hostname = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let environment = |name: &str| std::env::var(name).ok();
        let config = AgentConfig::resolve(&flags, environment, &hostname.unwrap_or_default())
            .map_err(|why| format!("==> {why}"))?;
        let console = AgentConsole { out: context.out };
        if config.files.is_empty() {
            console.step("No configuration files loaded");
        } else {
            console.step(&format!("Loaded configuration from {}", config.files.join(", ")));
        }
        for warning in &config.warnings {
            context.out.warn(format!("==> WARNING: {warning}"));
        }
        if !(config.dev || config.tls.http && config.tls.rpc) {
            let text = "==> WARNING: mTLS is not configured - Nomad is not secure without mTLS!";
            context.out.warn(text);
        }
        console.step("Starting Nomad agent...");
        let leftover = config.temporary_data.then(|| config.data_dir.clone());
        let code = context.connect().run_agent(config, console).await;
        if let Some(directory) = leftover {
            // Mounts that are still held keep a part of it; the system's cleaner takes that later.
            let _ = std::fs::remove_dir_all(directory);
        }
        Ok(code)
    }
}

impl Agent {
    /// The flags in the form of a configuration file.
    fn overlay(&self, context: &Context) -> Result<Value, Failure> {
        let mut top = Map::new();
        let texts = [
            ("data_dir", &self.data_dir),
            ("plugin_dir", &self.plugin_dir),
            ("bind_addr", &self.bind),
            ("name", &self.node),
            ("datacenter", &self.dc),
            ("region", &context.general.region),
            ("log_level", &self.log_level),
        ];
        put(&mut top, &texts);
        if self.log_json {
            top.insert("log_json".to_owned(), true.into());
        }
        if self.acl_enabled {
            top.insert("acl".to_owned(), json!({ "enabled": true }));
        }
        top.insert("client".to_owned(), Value::Object(self.client_overlay()?));
        top.insert("server".to_owned(), Value::Object(self.server_overlay()));
        let general = &context.general;
        let mut etcd = Map::new();
        if let Some(endpoints) = &general.etcd_endpoints {
            etcd.insert("endpoints".to_owned(), json!(crate::config::split_endpoints(endpoints)));
        }
        let texts = [
            ("root", &general.etcd_root),
            ("user", &general.etcd_user),
            ("password", &general.etcd_password),
            ("ca_file", &general.etcd_ca_file),
            ("cert_file", &general.etcd_cert_file),
            ("key_file", &general.etcd_key_file),
        ];
        put(&mut etcd, &texts);
        top.insert("etcd".to_owned(), Value::Object(etcd));
        let consul = self.consul.overlay();
        if !consul.is_empty() {
            top.insert("consul".to_owned(), Value::Object(consul));
        }
        Ok(Value::Object(top))
    }

    fn client_overlay(&self) -> Result<Map<String, Value>, Failure> {
        let mut client = Map::new();
        let texts = [
            ("node_class", &self.node_class),
            ("node_pool", &self.node_pool),
            ("network_interface", &self.network_interface),
            ("preferred_address_family", &self.preferred_address_family),
            ("state_dir", &self.state_dir),
            ("alloc_dir", &self.alloc_dir),
            ("alloc_mounts_dir", &self.alloc_mounts_dir),
        ];
        put(&mut client, &texts);
        if let Some(speed) = self.network_speed {
            client.insert("network_speed".to_owned(), speed.into());
        }
        if self.client {
            client.insert("enabled".to_owned(), true.into());
        }
        if let Some(servers) = &self.servers {
            let servers: Vec<&str> = servers.split(',').map(str::trim).collect();
            client.insert("servers".to_owned(), json!(servers));
        }
        let mut meta = Map::new();
        for pair in &self.meta {
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                Failure::from(format!("==> Error parsing Client.Meta value: {pair:?}: write 'name=value'"))
            })?;
            meta.insert(name.to_owned(), value.into());
        }
        if !meta.is_empty() {
            client.insert("meta".to_owned(), Value::Object(meta));
        }
        Ok(client)
    }

    fn server_overlay(&self) -> Map<String, Value> {
        let mut server = Map::new();
        if self.server {
            server.insert("enabled".to_owned(), true.into());
        }
        if let Some(count) = self.bootstrap_expect {
            server.insert("bootstrap_expect".to_owned(), count.into());
        }
        if let Some(key) = &self.encrypt {
            server.insert("encrypt".to_owned(), key.as_str().into());
        }
        if let Some(version) = self.raft_protocol {
            server.insert("raft_protocol".to_owned(), version.into());
        }
        if self.rejoin {
            server.insert("rejoin_after_leave".to_owned(), true.into());
        }
        for (key, list) in [("start_join", &self.join), ("retry_join", &self.retry_join)] {
            if !list.is_empty() {
                server.insert(key.to_owned(), json!(list));
            }
        }
        server
    }
}

fn put(map: &mut Map<String, Value>, texts: &[(&str, &Option<String>)]) {
    for (key, text) in texts {
        if let Some(text) = text {
            map.insert((*key).to_owned(), text.as_str().into());
        }
    }
}

/// What the agent tells about itself once it runs.
#[derive(Clone, Debug, Default)]
pub struct Banner {
    /// `HTTP: 127.0.0.1:4646`
    pub advertise_addrs: String,
    /// `HTTP: [127.0.0.1:4646]`
    pub bind_addrs: String,
    pub client: bool,
    pub server: bool,
    pub log_level: String,
    pub node_id: String,
    pub region: String,
    pub datacenter: String,
    /// Where the state is: `in memory`, or the endpoints of etcd.
    pub state: String,
    pub version: String,
}

/// Where an agent prints while it starts and stops.
#[derive(Clone, Copy, Debug, Default)]
pub struct AgentConsole {
    out: Output,
}

impl AgentConsole {
    /// A line `==> …` on standard output.
    pub fn step(self, text: &str) {
        self.out.line(format!("==> {text}"));
    }

    /// A line `==> …` on standard error.
    pub fn error(self, text: &str) {
        self.out.error(format!("==> {text}"));
    }

    /// A line of the log, behind four spaces.
    pub fn log(self, line: &str) {
        self.out.line(format!("    {line}"));
    }

    /// The agent's facts, and that it runs.
    pub fn started(self, banner: &Banner) {
        self.step("Nomad agent configuration:");
        self.out.line("");
        let client = banner.client.to_string();
        let server = banner.server.to_string();
        let region = format!("{} (DC: {})", banner.region, banner.datacenter);
        let rows = [
            ("Advertise Addrs", &banner.advertise_addrs),
            ("Bind Addrs", &banner.bind_addrs),
            ("Client", &client),
            ("Log Level", &banner.log_level),
            ("Node Id", &banner.node_id),
            ("Region", &region),
            ("Server", &server),
            ("State", &banner.state),
            ("Version", &banner.version),
        ];
        for (key, value) in rows.into_iter().filter(|(_, value)| !value.is_empty()) {
            self.out.line(format!("    {key:>BANNER_WIDTH$}: {value}"));
        }
        self.out.line("");
        self.step("Nomad agent started! Log data will stream in below:");
        self.out.line("");
    }
}
