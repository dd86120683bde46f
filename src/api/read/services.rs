//! Services that agents registered.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use sha2::Digest;
use sha2::Sha256;

use super::Found;
use crate::api::View;
use crate::api::call::Call;
use crate::api::error::ApiError;
use crate::api::page::Order;
use crate::api::page::PageKey;
use crate::api::page::paginate;
use crate::api::page::value_of;
use crate::api::views;
use crate::api::views::service::NamespaceServices;
use crate::api::views::service::ServiceName;
use crate::mirror::state::Stored;
use crate::mirror::state::Table;
use crate::model::service::ServiceRegistration;
use crate::store::Revision;

pub(in crate::api) fn list_index(view: &View<'_>, _: &Call) -> Revision {
    view.state.table(Table::Services)
}

pub(in crate::api) fn list(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    let mut namespaces: BTreeMap<&str, BTreeMap<&str, BTreeSet<String>>> = BTreeMap::new();
    for ((namespace, name), instances) in &view.state.services {
        if call.covers(namespace) {
            let tags = instances.values().flat_map(|service| service.value.tags.iter().cloned());
            namespaces.entry(namespace).or_default().entry(name).or_default().extend(tags);
        }
    }
    let shown = namespaces.into_iter().map(|(namespace, services)| NamespaceServices {
        namespace: namespace.to_owned(),
        services: services
            .into_iter()
            .map(|(name, tags)| ServiceName { service_name: name.to_owned(), tags })
            .collect(),
    });
    Ok(Found::json(shown.collect::<Vec<_>>()))
}

pub(in crate::api) fn get(view: &View<'_>, call: &Call) -> Result<Found, ApiError> {
    if call.subject().is_empty() {
        return Err(ApiError::bad_request("missing service name"));
    }
    let found = view
        .state
        .services
        .iter()
        .filter(|((namespace, name), _)| call.covers(namespace) && name == call.subject());
    let mut services: Vec<&Stored<ServiceRegistration>> =
        found.flat_map(|(_, instances)| instances.values()).collect();
    if let Some(choice) = call.text("choose") {
        services = choose(choice, services)?;
    }
    let items = services
        .into_iter()
        .map(|service| (PageKey::text(format!("{}.{}", service.value.namespace, service.value.id)), service));
    paginate(
        call,
        Order::Text,
        items.collect(),
        |service| value_of(&views::service::service(service)),
        |service| Some(views::service::service(service)),
    )
}

/// Picks `<number>|<key>`: the instances with the highest hash together with the key, so that one key keeps its
/// instances while others come and go.
fn choose<'a>(
    choice: &str,
    mut services: Vec<&'a Stored<ServiceRegistration>>,
) -> Result<Vec<&'a Stored<ServiceRegistration>>, ApiError> {
    let parsed = choice.split_once('|').and_then(|(number, key)| Some((number.parse::<usize>().ok()?, key)));
    let (number, key) = parsed.ok_or_else(|| {
        ApiError::bad_request(
            "failed to choose services: Parameter for choose must be in form '<number>|<key>'",
        )
    })?;
    services.sort_by_key(|service| {
        let digest: [u8; 32] = Sha256::digest(format!("{key}|{}", service.value.id)).into();
        std::cmp::Reverse(digest)
    });
    services.truncate(number);
    Ok(services)
}
