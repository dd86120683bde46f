//! The services of the whole cluster, for templates: one shared list and watch, begun when first asked for.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::agent::dice::Backoff;
use crate::agent::dice::Dice;
use crate::agent::hooks::Catalog;
use crate::agent::hooks::HookError;
use crate::model::service::ServiceRegistration;
use crate::store::Event;
use crate::store::ListOptions;
use crate::store::Range;
use crate::store::Revision;
use crate::store::SharedStore;
use crate::store::StoreError;
use crate::store::key::Key;
use crate::store::key::Keys;

/// Keys per page of a listing.
const PAGE: usize = 1000;
/// A question is answered with an error after this time without a first listing.
const PATIENCE: Duration = Duration::from_secs(5);

/// Behind the name of a service: also those whose checks do not pass.
const EVERY: &str = "|any";

/// Registrations read from the store. Needs a tokio runtime when first asked.
pub struct StoreCatalog {
    store: SharedStore,
    layout: Keys,
    shared: Arc<Shared>,
    watcher: Mutex<Option<AbortOnDropHandle<()>>>,
}

struct Shared {
    /// By key, so that one node's registration never hides another's.
    services: Mutex<BTreeMap<String, ServiceRegistration>>,
    /// Revision of the newest change of a registration; 0 before the first listing.
    index: watch::Sender<u64>,
}

impl StoreCatalog {
    /// Nothing is read before somebody asks.
    pub fn new(store: SharedStore, layout: Keys) -> Self {
        let shared = Shared { services: Mutex::default(), index: watch::Sender::new(0) };
        Self { store, layout, shared: Arc::new(shared), watcher: Mutex::default() }
    }

    fn begin(&self) {
        let mut watcher = self.watcher.lock();
        if watcher.as_ref().is_none_or(AbortOnDropHandle::is_finished) {
            let (store, layout, shared) =
                (Arc::clone(&self.store), self.layout.clone(), Arc::clone(&self.shared));
            *watcher = Some(AbortOnDropHandle::new(tokio::spawn(follow(store, layout, shared))));
        }
    }

    async fn ready(&self) -> Result<u64, HookError> {
        self.begin();
        let mut index = self.shared.index.subscribe();
        let loaded = tokio::time::timeout(PATIENCE, index.wait_for(|index| *index > 0)).await;
        match loaded {
            Ok(Ok(index)) => Ok(*index),
            Ok(Err(_)) | Err(_) => Err(HookError::recoverable("the service catalog cannot be read yet")),
        }
    }
}

#[async_trait]
impl Catalog for StoreCatalog {
    async fn services(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<(u64, Vec<ServiceRegistration>), HookError> {
        let index = self.ready().await?;
        let (name, all) = name.strip_suffix(EVERY).map_or((name, false), |name| (name, true));
        let services = self.shared.services.lock();
        let chosen = services.values().filter(|service| {
            let asked = service.namespace == namespace && service.service_name == name;
            asked && (all || service.is_passing())
        });
        let mut chosen: Vec<ServiceRegistration> = chosen.cloned().collect();
        chosen.sort_by(|a, b| a.id.cmp(&b.id));
        Ok((index, chosen))
    }

    async fn names(&self, namespace: &str) -> Result<(u64, BTreeMap<String, Vec<String>>), HookError> {
        let index = self.ready().await?;
        let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for service in self.shared.services.lock().values().filter(|service| service.namespace == namespace) {
            names.entry(service.service_name.clone()).or_default().extend(service.tags.iter().cloned());
        }
        Ok((index, names.into_iter().map(|(name, tags)| (name, tags.into_iter().collect())).collect()))
    }

    async fn changed(&self, since: u64) -> u64 {
        self.begin();
        let mut index = self.shared.index.subscribe();
        // The sender lives as long as this catalog.
        index.wait_for(|index| *index > since).await.map_or(since, |index| *index)
    }
}

/// Lists and watches until dropped.
async fn follow(store: SharedStore, layout: Keys, shared: Arc<Shared>) {
    let mut backoff = Backoff::new(Dice::seeded(1));
    loop {
        let followed = match list(&store, &layout, &shared).await {
            Ok(revision) => {
                backoff.reset();
                observe(&store, &layout, &shared, revision + 1).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = followed {
            tracing::debug!(%error, "cannot follow the services of the cluster, trying again");
            backoff.wait().await;
        }
    }
}

async fn list(store: &SharedStore, layout: &Keys, shared: &Shared) -> Result<Revision, StoreError> {
    let end = Range::Prefix(layout.agents()).bounds().1.unwrap_or_default();
    let mut range = Range::Prefix(layout.agents());
    let mut options = ListOptions { limit: PAGE, ..ListOptions::default() };
    let mut found = BTreeMap::new();
    let revision = loop {
        let listing = store.list(range, options.clone()).await?;
        options.at = Some(listing.revision);
        let last = listing.items.last().map(|item| item.key.clone());
        for item in listing.items {
            if is_service(layout, &item.key)
                && let Ok(service) = serde_json::from_slice(&item.value)
            {
                found.insert(item.key, service);
            }
        }
        match last {
            Some(last) if listing.more => range = Range::Between(format!("{last}\0"), end.clone()),
            _ => break listing.revision,
        }
    };
    let changed = std::mem::replace(&mut *shared.services.lock(), found.clone()) != found;
    if changed || *shared.index.borrow() == 0 {
        shared.index.send_replace(u64::try_from(revision).unwrap_or(1).max(1));
    }
    Ok(revision)
}

async fn observe(
    store: &SharedStore,
    layout: &Keys,
    shared: &Shared,
    from: Revision,
) -> Result<(), StoreError> {
    let mut stream = match store.watch(Range::Prefix(layout.agents()), from).await {
        Err(StoreError::Compacted { .. }) => return Ok(()),
        other => other?,
    };
    while let Some(batch) = stream.next().await {
        let batch = match batch {
            Err(StoreError::Compacted { .. }) => return Ok(()),
            other => other?,
        };
        let mut changed = false;
        for event in batch.events.into_iter().filter(|event| is_service(layout, event.key())) {
            let mut services = shared.services.lock();
            match event {
                Event::Put(item) => {
                    if let Ok(service) = serde_json::from_slice::<ServiceRegistration>(&item.value) {
                        changed |= services.insert(item.key, service.clone()) != Some(service);
                    }
                }
                Event::Delete(key, _) => changed |= services.remove(&key).is_some(),
            }
        }
        if changed {
            shared.index.send_replace(u64::try_from(batch.revision).unwrap_or(1));
        }
    }
    Ok(())
}

/// Cheap: most keys below `agents/` are something else.
fn is_service(layout: &Keys, key: &str) -> bool {
    key.contains("/reported/services/") && matches!(layout.parse(key), Some(Key::Service(..)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::NodeId;
    use crate::store::Op;
    use crate::store::Store;
    use crate::store::Txn;
    use crate::store::embedded::EmbeddedStore;

    #[tokio::test(start_paused = true)]
    async fn services_that_do_not_pass_their_checks_are_found_on_demand_only() {
        use crate::model::service::CheckResult;
        use crate::model::service::CheckStatus;
        let store = EmbeddedStore::new();
        let keys = Keys::default();
        for (node, status) in
            [(1, CheckStatus::Success), (2, CheckStatus::Failure), (3, CheckStatus::Pending)]
        {
            let check = CheckResult { status, ..CheckResult::default() };
            let service = ServiceRegistration {
                id: format!("s{node}"),
                service_name: "db".into(),
                namespace: "default".into(),
                checks: [("c".to_owned(), check)].into(),
                ..ServiceRegistration::default()
            };
            let key = keys.text(&Key::Service(NodeId::from_random([node; 16]), service.id.clone()));
            let put = Op::put(key, serde_json::to_vec(&service).unwrap());
            store.commit(Txn::default().and_then(put)).await.unwrap();
        }
        let catalog = StoreCatalog::new(Arc::new(store), keys);
        let ids = |found: Vec<ServiceRegistration>| found.into_iter().map(|one| one.id).collect::<Vec<_>>();
        assert_eq!(ids(catalog.services("default", "db").await.unwrap().1), ["s1"]);
        assert_eq!(ids(catalog.services("default", "db|any").await.unwrap().1), ["s1", "s2", "s3"]);
    }

    #[tokio::test(start_paused = true)]
    async fn registrations_of_all_nodes_are_found_and_followed() {
        let store = EmbeddedStore::new();
        let keys = Keys::default();
        let register = async |node: u8, id: &str| {
            let service = ServiceRegistration {
                id: id.into(),
                service_name: "db".into(),
                namespace: "default".into(),
                tags: vec![format!("n{node}")],
                ..ServiceRegistration::default()
            };
            let key = keys.text(&Key::Service(NodeId::from_random([node; 16]), id.into()));
            let put = Op::put(key, serde_json::to_vec(&service).unwrap());
            store.commit(Txn::default().and_then(put)).await.unwrap();
        };
        register(1, "b").await;
        let catalog = StoreCatalog::new(Arc::new(store.clone()), keys.clone());
        let (index, found) = catalog.services("default", "db").await.unwrap();
        assert_eq!(found.len(), 1);
        assert!(catalog.services("other", "db").await.unwrap().1.is_empty());
        register(2, "a").await;
        store.cut_watches();
        assert!(catalog.changed(index).await > index);
        let (_, found) = catalog.services("default", "db").await.unwrap();
        assert_eq!(found.iter().map(|service| service.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(catalog.names("default").await.unwrap().1["db"], ["n1", "n2"]);
    }
}
