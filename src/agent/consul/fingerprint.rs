//! What a node says about its Consul agent.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Client;
use super::ConsulError;

/// Attributes of the Consul agent.
///
/// # Errors
/// It does not answer.
pub async fn attributes(client: &Client) -> Result<BTreeMap<String, String>, ConsulError> {
    client.get("/v1/agent/self").await.map(|own| read(&own))
}

fn read(own: &Value) -> BTreeMap<String, String> {
    let config = |name: &str| own.pointer(&format!("/Config/{name}")).map(text);
    let debug = |name: &str| own.pointer(&format!("/DebugConfig/{name}")).map(text);
    let version = config("Version");
    let sku = version.as_deref().map(|version| if version.contains("+ent") { "ent" } else { "oss" });
    let pairs = [
        ("consul.server", config("Server")),
        ("consul.version", version.clone()),
        ("consul.sku", sku.map(str::to_owned)),
        ("consul.revision", config("Revision")),
        ("consul.datacenter", config("Datacenter")),
        ("consul.segment", own.pointer("/Member/Tags/segment").map(text)),
        ("consul.grpc", debug("GRPCPort")),
        ("consul.dns.port", debug("DNSPort")),
        ("consul.ft.namespaces", Some((sku == Some("ent")).to_string())),
        ("unique.consul.name", config("NodeName")),
    ];
    let known = pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    known.filter(|(_, value)| !value.is_empty()).collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_consul_agent_describes_itself() {
        let own = json!({
            "Config": {"Datacenter": "dc1", "NodeName": "n1", "Server": true, "Version": "1.20.1",
                "Revision": "920cc7c6"},
            "DebugConfig": {"GRPCPort": 8502, "DNSPort": 8600},
        });
        let found = read(&own);
        for (name, value) in [
            ("consul.version", "1.20.1"),
            ("consul.server", "true"),
            ("consul.sku", "oss"),
            ("consul.dns.port", "8600"),
            ("unique.consul.name", "n1"),
        ] {
            assert_eq!(found.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!found.contains_key("consul.segment"));
    }
}
