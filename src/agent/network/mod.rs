//! Networks of allocations: a namespace for the tasks of a group, attached by CNI plugins, and taken away again
//! whatever happened in between.
//!
//! Before anything is made, what is going to be made is written below `/run`: that directory is emptied by a reboot,
//! like everything that it describes. So an agent that was killed finds what it must remove, however it ended.

mod cni;
mod files;
pub mod hook;
mod netns;
mod rules;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::drivers::Driver;
use crate::drivers::Drivers;
use crate::drivers::network::MadeNetwork;
use crate::model::allocation::NetworkStatus;
use crate::model::id::AllocId;
use crate::model::network::DnsConfig;

use self::cni::Attachment;
use self::cni::Conflist;
pub use self::cni::PortMap;

/// Plugins that a bridge network is made of.
pub const BRIDGE_PLUGINS: &[&str] = &["bridge", "firewall", "host-local", "loopback", "portmap"];
/// Version of the CNI specification that generated configurations speak.
const CNI_VERSION: &str = "0.4.0";
/// Where `host-local` remembers addresses; emptied by a reboot.
const ADDRESSES_DIR: &str = "/var/run/cni";
/// A network is tried this often.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(1500);
/// Networks that are worked on at the same time: each plugin waits for the packet filter's lock.
const AT_ONCE: usize = 4;
/// The command line of containers that only hold a network.
const HOLDER: &str = "/pause";
/// Prefix of the modes that name a configured network.
const CONFIGURED: &str = "cni/";

/// What the agent's configuration says about networks of allocations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkOptions {
    /// Directories of plugins, in order.
    pub cni_path: Vec<PathBuf>,
    /// Directory of the networks that jobs call `cni/<name>`.
    pub cni_config_dir: PathBuf,
    /// Name of the bridge, and of its network.
    pub bridge: String,
    /// In CIDR notation.
    pub subnet: String,
    /// In CIDR notation; empty for none.
    pub subnet_ipv6: String,
    /// Tasks reach their own mapped ports.
    pub hairpin: bool,
    /// Ports of the default host network are mapped on all of the machine's addresses.
    pub bind_wildcard: bool,
    /// Tells the networks of this agent from those of others on the machine: its state directory.
    pub owner: PathBuf,
    /// Where it is written what has been made.
    pub records: PathBuf,
    /// Where namespaces are kept.
    pub namespaces: PathBuf,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            cni_path: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
            cni_config_dir: PathBuf::from("/opt/cni/config"),
            bridge: "nomad".to_owned(),
            subnet: "172.26.64.0/20".to_owned(),
            subnet_ipv6: String::new(),
            hairpin: false,
            bind_wildcard: true,
            owner: PathBuf::new(),
            records: PathBuf::from("/run/herder/networks"),
            namespaces: PathBuf::from("/var/run/netns"),
        }
    }
}

/// Whether tasks of a group with this network mode have a namespace of their own.
pub fn is_isolated(mode: &str) -> bool {
    let mode = mode.to_ascii_lowercase();
    matches!(mode.as_str(), "bridge" | "none") || mode.starts_with(CONFIGURED)
}

/// The program of a plugin.
pub fn plugin(name: &str, path: &[PathBuf]) -> Option<PathBuf> {
    cni::find(name, path)
}

/// Names of the networks that jobs may ask for as `cni/<name>`.
pub fn configured(dir: &Path) -> Vec<String> {
    let networks = cni::configured(dir).into_iter().filter_map(|found| match found {
        Ok(network) => Some(network.name),
        Err(why) => {
            tracing::debug!(why, "a CNI configuration cannot be used");
            None
        }
    });
    networks.collect()
}

/// The network that an allocation is to have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub mode: String,
    pub ports: Vec<PortMap>,
    /// For the plugins, in order.
    pub args: Vec<(String, String)>,
    pub dns: Option<DnsConfig>,
    /// The driver that makes the namespace; empty if that is ours to do.
    pub maker: String,
    /// For that driver; may be empty.
    pub hostname: String,
}

/// What has been made for an allocation.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    owner: PathBuf,
    namespace: PathBuf,
    /// Absent for a namespace with nothing but its loopback.
    attachment: Option<Attachment>,
    /// Whoever has made the namespace, if not we.
    #[serde(default)]
    made: Option<MadeNetwork>,
}

/// Makes and removes networks of allocations.
pub struct Networks {
    options: NetworkOptions,
    at_once: Semaphore,
}

impl Default for Networks {
    fn default() -> Self {
        Self::new(NetworkOptions::default())
    }
}

impl Networks {
    /// Makes nothing yet.
    pub fn new(options: NetworkOptions) -> Self {
        Self { options, at_once: Semaphore::new(AT_ONCE) }
    }

    /// What the agent's configuration says.
    pub fn options(&self) -> &NetworkOptions {
        &self.options
    }

    /// The namespace of an allocation.
    pub fn namespace(&self, alloc: AllocId) -> PathBuf {
        self.options.namespaces.join(alloc.to_string())
    }

    /// True if the allocation's network is there, as far as can be seen.
    pub fn stands(&self, alloc: AllocId) -> bool {
        netns::is_there(&self.namespace(alloc)) && self.record_file(alloc).is_file()
    }

    /// Some process of the allocation's tasks that is in its network.
    pub fn inhabitant(&self, alloc: AllocId) -> Option<i32> {
        netns::inhabitant(&self.namespace(alloc), HOLDER)
    }

    /// Makes the network of an allocation. What an earlier attempt left behind is removed first.
    ///
    /// # Errors
    /// In words for the user; nothing is left behind.
    pub async fn set_up(
        &self,
        alloc: AllocId,
        plan: &Plan,
        drivers: &Drivers,
    ) -> Result<NetworkStatus, String> {
        let _turn = self.at_once.acquire().await.map_err(|error| error.to_string())?;
        self.remove(alloc, drivers).await?;
        let mut attempt = 1;
        loop {
            let failed = match self.try_set_up(alloc, plan, drivers).await {
                Ok(status) => return Ok(status),
                Err(failed) => failed,
            };
            if let Err(left) = self.remove(alloc, drivers).await {
                tracing::warn!(%alloc, left, "cannot remove a network that was not completed");
            }
            if attempt == ATTEMPTS {
                return Err(failed);
            }
            tracing::warn!(%alloc, failed, attempt, "cannot make the network, trying again");
            attempt += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn try_set_up(
        &self,
        alloc: AllocId,
        plan: &Plan,
        drivers: &Drivers,
    ) -> Result<NetworkStatus, String> {
        let namespace = self.namespace(alloc);
        let attachment = self.attachment(alloc, &namespace, plan)?;
        let owner = self.options.owner.clone();
        let mut record = Record { owner, namespace, attachment, made: None };
        self.make_namespace(alloc, plan, drivers, &mut record).await?;
        let Some(attachment) = &mut record.attachment else { return Ok(NetworkStatus::default()) };
        if plan.mode.eq_ignore_ascii_case("bridge") {
            rules::admit(&self.options.bridge, &self.options.subnet, false).await?;
            if !self.options.subnet_ipv6.is_empty() {
                rules::admit(&self.options.bridge, &self.options.subnet_ipv6, true).await?;
            }
        }
        attachment.add(&self.options.cni_path).await?;
        let mut status = attachment.status();
        if status.address.is_empty() {
            return Err(format!("network {:?} gave no address", attachment.network.name));
        }
        status.dns = plan.dns.clone().or(status.dns);
        self.save(alloc, &record)?;
        Ok(status)
    }

    /// Makes the bare namespace, or has the driver make it whose business that is.
    async fn make_namespace(
        &self,
        alloc: AllocId,
        plan: &Plan,
        drivers: &Drivers,
        record: &mut Record,
    ) -> Result<(), String> {
        let maker = if plan.maker.is_empty() { None } else { Some(maker(drivers, &plan.maker)?) };
        record.made = maker.map(|_| MadeNetwork { driver: plan.maker.clone(), ..MadeNetwork::default() });
        self.save(alloc, record)?;
        if let Some(maker) = maker {
            let made = maker.make_network(alloc, &plan.hostname).await;
            let made = made.map_err(|error| format!("driver {}: {error}", plan.maker))?;
            record.made = Some(made);
            self.save(alloc, record)?;
        }
        let lock = self.options.records.join("lock");
        let (path, made) = (record.namespace.clone(), record.made.clone());
        let kept = tokio::task::spawn_blocking(move || match made {
            Some(made) => netns::adopt(&made.path, &path, &lock),
            None => netns::create(&path, &lock),
        });
        kept.await.map_err(io::Error::other).flatten().map_err(|error| format!("cannot {error}"))
    }

    /// What is to be attached; `None` for a bare namespace.
    fn attachment(
        &self,
        alloc: AllocId,
        namespace: &Path,
        plan: &Plan,
    ) -> Result<Option<Attachment>, String> {
        let mode = plan.mode.as_str();
        let network = if mode.eq_ignore_ascii_case("none") {
            return Ok(None);
        } else if mode.eq_ignore_ascii_case("bridge") {
            self.bridge()
        } else {
            let name = mode.get(CONFIGURED.len()..).unwrap_or_default();
            cni::load(&self.options.cni_config_dir, name)?
        };
        let args: Vec<String> = std::iter::once(("IgnoreUnknown", "true"))
            .chain(plan.args.iter().map(|(key, value)| (key.as_str(), value.as_str())))
            // A semicolon separates arguments and cannot be written otherwise.
            .map(|(key, value)| format!("{key}={}", value.replace(';', "_")))
            .collect();
        Ok(Some(Attachment {
            network,
            container: alloc.to_string(),
            namespace: namespace.to_owned(),
            args: args.join(";"),
            ports: plan.ports.clone(),
            dns: plan.dns.clone(),
            result: None,
        }))
    }

    /// The configuration of bridge networks.
    fn bridge(&self) -> Conflist {
        let options = &self.options;
        let mut ranges = vec![json!([{"subnet": options.subnet}])];
        let mut routes = vec![json!({"dst": "0.0.0.0/0"})];
        if !options.subnet_ipv6.is_empty() {
            ranges.push(json!([{"subnet": options.subnet_ipv6}]));
            routes.push(json!({"dst": "::/0"}));
        }
        let plugins = [
            json!({"type": "loopback"}),
            json!({
                "type": "bridge",
                "bridge": options.bridge,
                "ipMasq": true,
                "isGateway": true,
                "forceAddress": true,
                "hairpinMode": options.hairpin,
                "ipam": {
                    "type": "host-local",
                    "ranges": ranges,
                    "routes": routes,
                    "dataDir": ADDRESSES_DIR,
                },
            }),
            json!({
                "type": "firewall",
                "backend": "iptables",
                "iptablesAdminChainName": rules::ADMIN_CHAIN,
            }),
            json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}),
        ];
        let object = |plugin: Value| match plugin {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        Conflist {
            cni_version: CNI_VERSION.to_owned(),
            name: options.bridge.clone(),
            plugins: plugins.into_iter().map(object).collect(),
        }
    }

    /// Removes the network of an allocation: addresses, rules, namespace. Idempotent.
    ///
    /// # Errors
    /// What could not be removed; it is remembered and can be tried again.
    pub async fn tear_down(&self, alloc: AllocId, drivers: &Drivers) -> Result<(), String> {
        let _turn = self.at_once.acquire().await.map_err(|error| error.to_string())?;
        self.remove(alloc, drivers).await
    }

    fn record(&self, alloc: AllocId) -> Result<Option<Record>, String> {
        let file = self.record_file(alloc);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {}: {error}", file.display())),
        };
        let unreadable = |error| format!("{} is unreadable: {error}", file.display());
        serde_json::from_slice(&text).map_err(unreadable).map(Some)
    }

    /// The namespace of an allocation as the driver knows it that has made it; `None` if we have.
    pub fn made(&self, alloc: AllocId) -> Option<MadeNetwork> {
        self.record(alloc).ok()??.made
    }

    async fn remove(&self, alloc: AllocId, drivers: &Drivers) -> Result<(), String> {
        let Some(record) = self.record(alloc)? else { return Ok(()) };
        let file = self.record_file(alloc);
        if let Some(attachment) = &record.attachment {
            let was_there = netns::is_there(&record.namespace);
            attachment.del(&self.options.cni_path).await?;
            if !was_there {
                rules::sweep(&attachment.container).await;
            }
        }
        netns::remove(&record.namespace).map_err(|error| format!("cannot {error}"))?;
        if let Some(made) = &record.made {
            let removed = maker(drivers, &made.driver)?.remove_network(alloc, made).await;
            removed.map_err(|error| format!("driver {}: {error}", made.driver))?;
        }
        fs::remove_file(&file).map_err(|error| format!("cannot remove {}: {error}", file.display()))
    }

    /// Allocations for which this agent has made networks that nobody needs any more.
    pub fn leftovers(&self, needed: &BTreeSet<AllocId>) -> Vec<AllocId> {
        let entries = fs::read_dir(&self.options.records).into_iter().flatten().flatten();
        let ids = entries.filter_map(|entry| {
            let path = entry.path();
            let id = path.file_name()?.to_str()?.strip_suffix(".json")?.parse::<AllocId>().ok()?;
            let record: Record = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
            (record.owner == self.options.owner && !needed.contains(&id)).then_some(id)
        });
        ids.collect()
    }

    fn record_file(&self, alloc: AllocId) -> PathBuf {
        self.options.records.join(format!("{alloc}.json"))
    }

    /// So that readers see all of it or nothing.
    fn save(&self, alloc: AllocId, record: &Record) -> Result<(), String> {
        let file = self.record_file(alloc);
        let temporary = file.with_extension("tmp");
        let write = || -> io::Result<()> {
            fs::create_dir_all(&self.options.records)?;
            fs::write(&temporary, serde_json::to_vec(record)?)?;
            fs::rename(&temporary, &file)
        };
        write().map_err(|error| format!("cannot write {}: {error}", file.display()))
    }
}

fn maker<'a>(drivers: &'a Drivers, name: &str) -> Result<&'a Arc<dyn Driver>, String> {
    drivers.get(name).ok_or_else(|| format!("driver {name}, which makes the network, is not there"))
}

#[cfg(test)]
mod tests;
