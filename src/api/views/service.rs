//! Service registrations as Nomad shows them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Serialize;

use super::index;
use crate::mirror::state::Stored;
use crate::model::service::CheckResult;
use crate::model::service::ServiceRegistration;

/// One registration.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceView {
    #[serde(rename = "ID")]
    pub id: String,
    pub service_name: String,
    pub namespace: String,
    #[serde(rename = "NodeID")]
    pub node_id: String,
    pub datacenter: String,
    #[serde(rename = "JobID")]
    pub job_id: String,
    #[serde(rename = "AllocID")]
    pub alloc_id: String,
    pub tags: Vec<String>,
    pub address: String,
    pub port: i64,
    pub create_index: u64,
    pub modify_index: u64,
    /// Herder's own field: how the instance's checks stand, by check id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub checks: BTreeMap<String, CheckResult>,
}

/// The services of one namespace.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NamespaceServices {
    pub namespace: String,
    pub services: Vec<ServiceName>,
}

/// A service with the tags of all its registrations.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceName {
    pub service_name: String,
    pub tags: BTreeSet<String>,
}

/// One registration.
pub fn service(stored: &Stored<ServiceRegistration>) -> ServiceView {
    let service = &stored.value;
    ServiceView {
        id: service.id.clone(),
        service_name: service.service_name.clone(),
        namespace: service.namespace.clone(),
        node_id: service.node_id.to_string(),
        datacenter: service.datacenter.clone(),
        job_id: service.job_id.clone(),
        alloc_id: service.alloc_id.to_string(),
        tags: service.tags.clone(),
        address: service.address.clone(),
        port: service.port,
        create_index: index(stored.created),
        modify_index: index(stored.modified),
        checks: service.checks.clone(),
    }
}
