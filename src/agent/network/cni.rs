//! Runs chains of CNI plugins: one process per plugin and step, JSON in and out. See the CNI specification, 0.4.0.

use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::model::allocation::NetworkStatus;
use crate::model::network::DnsConfig;

/// The name of the interface inside.
pub(super) const INTERFACE: &str = "eth0";
/// The longest that one plugin may take.
const PLUGIN_LIMIT: Duration = Duration::from_secs(60);
/// Where plugins find `iptables`, whatever the agent's own search path is.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A named chain of plugins, as in a `.conflist` file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Conflist {
    pub(super) cni_version: String,
    pub(super) name: String,
    pub(super) plugins: Vec<Map<String, Value>>,
}

/// One port that plugins map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMap {
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: String,
    /// Empty for all addresses of the host.
    #[serde(default, rename = "hostIP", skip_serializing_if = "String::is_empty")]
    pub host_ip: String,
}

/// A container and the network it is attached to: everything that is needed to detach it again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Attachment {
    pub(super) network: Conflist,
    pub(super) container: String,
    pub(super) namespace: PathBuf,
    /// `key=value;…`
    pub(super) args: String,
    pub(super) ports: Vec<PortMap>,
    pub(super) dns: Option<DnsConfig>,
    /// What the last plugin answered, once all have.
    #[serde(default)]
    pub(super) result: Option<Value>,
}

#[derive(Clone, Copy)]
enum Step {
    Add,
    Del,
}

impl Step {
    fn command(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Del => "delete",
        }
    }
}

impl Attachment {
    /// Attaches: every plugin in turn. The result is kept.
    ///
    /// # Errors
    /// Of the first plugin that fails, in its words; those before it have done their work.
    pub(super) async fn add(&mut self, path: &[PathBuf]) -> Result<(), String> {
        self.result = None;
        let mut result = None;
        for plugin in &self.network.plugins {
            result = Some(self.run(plugin, Step::Add, result, path).await?);
        }
        self.result = result;
        Ok(())
    }

    /// Detaches: every plugin, the last one first. Idempotent.
    ///
    /// # Errors
    /// Of all plugins that fail; the others have done their work.
    pub(super) async fn del(&self, path: &[PathBuf]) -> Result<(), String> {
        let mut failed = Vec::new();
        for plugin in self.network.plugins.iter().rev() {
            if let Err(error) = self.run(plugin, Step::Del, self.result.clone(), path).await {
                failed.push(error);
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }

    /// The address that the plugins gave.
    pub(super) fn status(&self) -> NetworkStatus {
        status_of(self.result.as_ref().unwrap_or(&Value::Null))
    }

    fn config(&self, plugin: &Map<String, Value>, previous: Option<Value>) -> Value {
        let mut config = plugin.clone();
        config.insert("name".to_owned(), self.network.name.as_str().into());
        config.insert("cniVersion".to_owned(), self.network.cni_version.as_str().into());
        let able = |name: &str| {
            let capability = plugin.get("capabilities").and_then(|all| all.get(name));
            capability.and_then(Value::as_bool) == Some(true)
        };
        let mut runtime = Map::new();
        if able("portMappings") && !self.ports.is_empty() {
            runtime.insert("portMappings".to_owned(), json!(self.ports));
        }
        if able("dns")
            && let Some(dns) = &self.dns
        {
            let dns = json!({"servers": dns.servers, "searches": dns.searches, "options": dns.options});
            runtime.insert("dns".to_owned(), dns);
        }
        if !runtime.is_empty() {
            config.insert("runtimeConfig".to_owned(), runtime.into());
        }
        if let Some(previous) = previous {
            config.insert("prevResult".to_owned(), previous);
        }
        config.into()
    }

    async fn run(
        &self,
        plugin: &Map<String, Value>,
        step: Step,
        previous: Option<Value>,
        path: &[PathBuf],
    ) -> Result<Value, String> {
        let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
        let failed = |why: String| format!("plugin type={kind:?} failed ({}): {why}", step.word());
        let program = find(kind, path).ok_or_else(|| {
            let places = path.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(":");
            failed(format!("failed to find plugin {kind:?} in path [{places}]"))
        })?;
        let places: Vec<String> = path.iter().map(|dir| dir.display().to_string()).collect();
        let own = std::env::var("PATH").unwrap_or_default();
        let child = Command::new(&program)
            .env("PATH", format!("{own}:{SEARCH_PATH}"))
            .env("CNI_COMMAND", step.command())
            .env("CNI_CONTAINERID", &self.container)
            .env("CNI_NETNS", &self.namespace)
            .env("CNI_IFNAME", INTERFACE)
            .env("CNI_ARGS", &self.args)
            .env("CNI_PATH", places.join(":"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = child.map_err(|error| failed(error.to_string()))?;
        let input = self.config(plugin, previous).to_string();
        let talk = async {
            if let Some(mut stdin) = child.stdin.take() {
                // A plugin that ends without reading says why itself.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
            child.wait_with_output().await
        };
        let output = match tokio::time::timeout(PLUGIN_LIMIT, talk).await {
            Ok(output) => output.map_err(|error| failed(error.to_string()))?,
            Err(_) => return Err(failed(format!("no answer within {PLUGIN_LIMIT:?}"))),
        };
        let answer: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        if output.status.success() {
            return match (step, answer) {
                (Step::Add, None) => Err(failed("its answer is not JSON".to_owned())),
                (_, answer) => Ok(answer.unwrap_or_default()),
            };
        }
        let text = |name: &str| answer.as_ref().and_then(|answer| answer.get(name)?.as_str());
        let why = match (text("msg"), text("details")) {
            (Some(message), Some(details)) if !details.is_empty() => format!("{message}; {details}"),
            (Some(message), _) => message.to_owned(),
            (None, _) => {
                let stderr = String::from_utf8_lossy(&output.stderr);
                format!("netplugin failed: {} ({})", stderr.trim(), output.status)
            }
        };
        Err(failed(why))
    }
}

/// The program of a plugin.
pub(super) fn find(kind: &str, path: &[PathBuf]) -> Option<PathBuf> {
    if kind.is_empty() || kind.contains('/') {
        return None;
    }
    path.iter().map(|dir| dir.join(kind)).find(|program| program.is_file())
}

/// Reads the network `name` from the directory of configurations: a chain, or a single plugin.
///
/// # Errors
/// When there is none, or it cannot be read.
pub(super) fn load(dir: &Path, name: &str) -> Result<Conflist, String> {
    for found in configured(dir) {
        if let Ok(network) = found
            && network.name == name
        {
            return Ok(network);
        }
    }
    Err(format!("CNI network {name:?} is not configured in {}", dir.display()))
}

/// All networks of the directory, in order of file names.
///
/// # Errors
/// Per file.
pub(super) fn configured(dir: &Path) -> Vec<Result<Conflist, String>> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        matches!(ending, Some("conflist" | "conf" | "json"))
    });
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

fn read(file: &Path) -> Result<Conflist, String> {
    let wrong = |why: String| format!("{}: {why}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let value: Map<String, Value> = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let network = if value.contains_key("plugins") {
        serde_json::from_value(value.clone().into()).map_err(|error| wrong(error.to_string()))?
    } else {
        Conflist { cni_version: field("cniVersion"), name: field("name"), plugins: vec![value.clone()] }
    };
    if network.name.is_empty() || network.plugins.is_empty() {
        return Err(wrong("a network needs a name and plugins".to_owned()));
    }
    Ok(network)
}

/// Reads a result: of the interfaces inside the namespace, the first with an address counts.
fn status_of(result: &Value) -> NetworkStatus {
    let list = |name: &str| result.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let interfaces = list("interfaces");
    let is_inside = |at: usize| {
        let sandbox = interfaces.get(at).and_then(|one| one.get("sandbox")?.as_str());
        sandbox.is_some_and(|sandbox| !sandbox.is_empty())
    };
    let mut status = NetworkStatus { interface_name: INTERFACE.to_owned(), ..NetworkStatus::default() };
    let mut named = false;
    for ip in list("ips") {
        let at = ip.get("interface").and_then(Value::as_u64).and_then(|at| usize::try_from(at).ok());
        let Some(address) = ip.get("address").and_then(Value::as_str) else { continue };
        let address = address.split('/').next().unwrap_or_default();
        let name = at.and_then(|at| interfaces.get(at)?.get("name")?.as_str()).unwrap_or_default();
        if name == "lo" || at.is_some_and(|at| !is_inside(at)) {
            continue;
        }
        if !named && !name.is_empty() {
            name.clone_into(&mut status.interface_name);
            named = true;
        }
        let place = if address.contains(':') { &mut status.address_ipv6 } else { &mut status.address };
        if place.is_empty() {
            address.clone_into(place);
        }
    }
    // Plugins of versions before 0.3 answer in another form.
    for (name, place) in [("ip4", &mut status.address), ("ip6", &mut status.address_ipv6)] {
        if let Some(ip) = result.get(name).and_then(|ip| ip.get("ip")?.as_str()) {
            ip.split('/').next().unwrap_or_default().clone_into(place);
        }
    }
    if status.address.is_empty() {
        // Everything that needs one address of the allocation takes this one.
        status.address.clone_from(&status.address_ipv6);
    }
    let texts = |name: &str| -> Vec<String> {
        let all = result.get("dns").and_then(|dns| dns.get(name)?.as_array());
        all.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let dns =
        DnsConfig { servers: texts("nameservers"), searches: texts("search"), options: texts("options") };
    status.dns = (dns != DnsConfig::default()).then_some(dns);
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_inside_gives_the_address() {
        let result = json!({
            "interfaces": [
                {"name": "nomad", "mac": "1"},
                {"name": "veth1", "mac": "2"},
                {"name": "eth0", "mac": "3", "sandbox": "/var/run/netns/x"},
            ],
            "ips": [
                {"version": "4", "interface": 2, "address": "172.26.64.9/20", "gateway": "172.26.64.1"},
                {"version": "6", "interface": 2, "address": "fd00::9/64"},
            ],
            "dns": {"nameservers": ["10.0.0.1"]},
        });
        let status = status_of(&result);
        assert_eq!((status.interface_name.as_str(), status.address.as_str()), ("eth0", "172.26.64.9"));
        assert_eq!(status.address_ipv6, "fd00::9");
        assert_eq!(status.dns.unwrap().servers, ["10.0.0.1"]);
        assert_eq!(status_of(&json!({"ip4": {"ip": "10.1.0.2/16"}})).address, "10.1.0.2");
    }

    #[test]
    fn plugins_get_what_they_are_able_to_use() {
        let plugin = |text: Value| text.as_object().unwrap().clone();
        let attachment = Attachment {
            network: Conflist { cni_version: "0.4.0".into(), name: "n".into(), plugins: Vec::new() },
            ports: vec![PortMap {
                host_port: 1,
                container_port: 2,
                protocol: "tcp".into(),
                host_ip: String::new(),
            }],
            ..Attachment::default()
        };
        let able = plugin(json!({"type": "portmap", "capabilities": {"portMappings": true}}));
        let config = attachment.config(&able, Some(json!({"ips": []})));
        assert_eq!(
            config["runtimeConfig"],
            json!({"portMappings": [{"hostPort": 1, "containerPort": 2, "protocol": "tcp"}]})
        );
        assert_eq!(config["prevResult"], json!({"ips": []}));
        let unable = attachment.config(&plugin(json!({"type": "bridge"})), None);
        assert_eq!(unable, json!({"type": "bridge", "name": "n", "cniVersion": "0.4.0"}));
    }

    #[tokio::test]
    async fn a_failing_plugin_is_named_with_its_words() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("broken");
        let script = "#!/bin/sh\ncat >/dev/null\necho '{\"code\": 7, \"msg\": \"no room\"}'\nexit 1\n";
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = [dir.path().to_owned()];
        std::fs::write(dir.path().join("a.conf"), r#"{"cniVersion":"0.4.0","name":"one","type":"broken"}"#)
            .unwrap();
        let network = load(dir.path(), "one").unwrap();
        let mut attachment = Attachment { network, ..Attachment::default() };
        let error = attachment.add(&path).await.unwrap_err();
        assert_eq!(error, "plugin type=\"broken\" failed (add): no room");
        attachment.network.plugins[0].insert("type".into(), "missing".into());
        let error = attachment.add(&path).await.unwrap_err();
        assert!(error.contains("failed to find plugin \"missing\" in path"), "{error}");
        assert!(load(dir.path(), "two").unwrap_err().contains("\"two\" is not configured"));
    }
}
