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

/// Makes sure that the cluster has an id, and returns it. Waits for a store that is away.
///
/// # Errors
/// When the root belongs to something else, or the store refuses for good.
pub async fn ensure(store: &SharedStore, keys: &Keys, random: &Random) -> Result<String, BootstrapError> {
    let key = keys.text(&Key::Meta);
    let id = uuid::Builder::from_random_bytes(random.bytes()).into_uuid().to_string();
    let fresh = json!({ "ClusterID": id, "Layout": LAYOUT, "Epoch": 1 });
    loop {
        match attempt(store, keys, &key, &fresh).await {
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
    key: &str,
    fresh: &Value,
) -> Result<String, BootstrapError> {
    // Creating it may fail because somebody was faster: then theirs counts, which the read below shows.
    if store.get(key).await?.1.is_none() {
        let create = Txn::when([Guard::absent(key)]).and_then(Op::put(key, encode(fresh)));
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
