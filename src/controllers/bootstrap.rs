//! The cluster's birth certificate: its id, written once by whichever server comes first.

use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::store::Guard;
use crate::store::Op;
use crate::store::SharedStore;
use crate::store::StoreError;
use crate::store::Txn;
use crate::store::key::Key;
use crate::store::key::Keys;

use super::Random;
use super::job::decide::encode;

/// Version of the key layout that this program reads and writes.
pub const LAYOUT: u64 = 1;

const RETRY: Duration = Duration::from_millis(500);

/// Why a server must not work on this store.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error(
        "the keys under {root} have layout {found}, this program knows layout {LAYOUT}: use a newer herder"
    )]
    Layout { root: String, found: u64 },
    #[error("the value at {key} is not Herder's: choose another root for the keys")]
    Foreign { key: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes sure that the cluster has an id, and returns it. A new one begins with the `scheduler` configuration. Waits for
/// a store that is away.
///
/// # Errors
/// When the root belongs to something else, or the store refuses for good.
pub async fn ensure(
    store: &SharedStore,
    keys: &Keys,
    random: &Random,
    scheduler: Option<&Value>,
) -> Result<String, BootstrapError> {
    let id = uuid::Builder::from_random_bytes(random.bytes()).into_uuid().to_string();
    let fresh = json!({ "ClusterID": id, "Layout": LAYOUT, "Epoch": 1 });
    loop {
        match attempt(store, keys, &fresh, scheduler).await {
            Err(BootstrapError::Store(error)) if error.is_transient() => {
                tracing::warn!(%error, "waiting for the store");
                tokio::time::sleep(RETRY).await;
            }
            done => return done,
        }
    }
}

async fn attempt(
    store: &SharedStore,
    keys: &Keys,
    fresh: &Value,
    scheduler: Option<&Value>,
) -> Result<String, BootstrapError> {
    let key = &keys.text(&Key::Meta);
    // Creating it may fail because somebody was faster: then theirs counts, which the read below shows.
    if store.get(key).await?.1.is_none() {
        let mut create = Txn::when([Guard::absent(key)]).and_then(Op::put(key, encode(fresh)));
        let config = keys.text(&Key::Config("scheduler".to_owned()));
        // Somebody may have put one there by hand.
        if let Some(scheduler) = scheduler
            && store.get(&config).await?.1.is_none()
        {
            create = create.and_then(Op::put(&config, encode(scheduler)));
        }
        store.commit(create).await?;
    }
    let Some(item) = store.get(key).await?.1 else {
        return Err(StoreError::Unavailable("the cluster's id vanished".to_owned()).into());
    };
    let meta: Value =
        serde_json::from_slice(&item.value).map_err(|_| BootstrapError::Foreign { key: key.to_owned() })?;
    let (id, layout) =
        (meta.get("ClusterID").and_then(Value::as_str), meta.get("Layout").and_then(Value::as_u64));
    match (id, layout) {
        (Some(id), Some(LAYOUT)) => Ok(id.to_owned()),
        (Some(_), Some(found)) => Err(BootstrapError::Layout { root: keys.root().to_owned(), found }),
        _ => Err(BootstrapError::Foreign { key: key.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::embedded::EmbeddedStore;

    #[tokio::test]
    async fn only_a_new_cluster_begins_with_the_given_scheduler() {
        let store: SharedStore = Arc::new(EmbeddedStore::new());
        let keys = Keys::new("/herder/");
        let config = keys.text(&Key::Config("scheduler".to_owned()));
        let random = Random::seeded(1);
        let first = json!({ "SchedulerAlgorithm": "spread" });
        let id = ensure(&store, &keys, &random, Some(&first)).await.unwrap();
        let later = json!({ "SchedulerAlgorithm": "binpack" });
        assert_eq!(ensure(&store, &keys, &random, Some(&later)).await.unwrap(), id);
        let found = store.get(&config).await.unwrap().1.unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&found.value).unwrap(), first);
        // Without a wish there is nothing to store.
        let store: SharedStore = Arc::new(EmbeddedStore::new());
        ensure(&store, &keys, &random, None).await.unwrap();
        assert!(store.get(&config).await.unwrap().1.is_none());
    }
}
