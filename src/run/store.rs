//! Which store an agent uses: etcd when endpoints are given, memory for `-dev` alone.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::AgentConfig;
use crate::config::EtcdConfig;
use crate::store::SharedStore;
use crate::store::StoreError;
use crate::store::embedded::EmbeddedStore;
use crate::store::etcd::EtcdOptions;
use crate::store::etcd::EtcdStore;
use crate::store::key::Key;
use crate::store::key::Keys;

use super::RunError;

/// Changes of the past that the store in memory keeps for watches that fell behind.
const HISTORY_KEPT: u32 = 20_000;

/// Opens the store of an agent.
pub(super) async fn open(config: &AgentConfig) -> Result<(SharedStore, Keys), RunError> {
    if config.etcd.endpoints.is_empty() {
        if !config.dev {
            let text = "an agent needs an etcd for its state: set etcd { endpoints = [\"http://host:2379\"] }, \
                        -etcd-endpoints or HERDER_ETCD_ENDPOINTS; only -dev can do without";
            return Err(RunError::Setup(text.to_owned()));
        }
        let keys = Keys::new(&config.etcd.root);
        return Ok((Arc::new(EmbeddedStore::new().with_auto_compaction(HISTORY_KEPT)), keys));
    }
    // After a power cut machines come back in any order, and tasks that are there need not wait for etcd.
    connect(&config.etcd, true).await.map_err(|error| {
        RunError::Setup(format!("cannot use etcd at {}: {error}", config.etcd.endpoints.join(", ")))
    })
}

/// Connects to an etcd that has to answer now.
pub(super) async fn etcd(config: &EtcdConfig) -> Result<(SharedStore, Keys), StoreError> {
    connect(config, false).await
}

async fn connect(config: &EtcdConfig, may_be_away: bool) -> Result<(SharedStore, Keys), StoreError> {
    let keys = Keys::new(&config.root);
    let text = |value: &str| (!value.is_empty()).then(|| value.to_owned());
    let path = |value: &str| (!value.is_empty()).then(|| PathBuf::from(value));
    let options = EtcdOptions {
        endpoints: config.endpoints.clone(),
        ca_file: path(&config.ca_file),
        cert_file: path(&config.cert_file),
        key_file: path(&config.key_file),
        user: text(&config.user),
        password: text(&config.password),
        probe_key: keys.text(&Key::Meta),
        may_be_away,
        ..EtcdOptions::default()
    };
    let store = EtcdStore::connect(options).await?;
    Ok((Arc::new(store), keys))
}
