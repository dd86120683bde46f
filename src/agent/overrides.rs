//! Metadata that operators set on a node (`node meta apply`): tasks see it as the scheduler does, from the moment it
//! is written. What the agent reports of its machine stays as it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use tokio::sync::watch;

use crate::agent::dice::Backoff;
use crate::agent::dice::Dice;
use crate::model::id::NodeId;
use crate::model::node::NodeInfo;
use crate::model::node::NodeSpec;
use crate::store::Range;
use crate::store::SharedStore;
use crate::store::StoreError;
use crate::store::key::Key;
use crate::store::key::Keys;

/// Values by key; `None` hides a key of the machine's own.
pub type Overrides = BTreeMap<String, Option<String>>;

/// Follows the overrides of a node until it is dropped.
pub async fn follow(store: SharedStore, keys: Keys, node: NodeId, seen: watch::Sender<Overrides>) {
    let key = keys.text(&Key::NodeSpec(node));
    let mut backoff = Backoff::new(Dice::random());
    loop {
        match observe(&store, &key, &seen).await {
            Ok(()) => backoff.reset(),
            Err(error) => tracing::debug!(%node, %error, "cannot follow the node's metadata, trying again"),
        }
        backoff.wait().await;
    }
}

async fn observe(store: &SharedStore, key: &str, seen: &watch::Sender<Overrides>) -> Result<(), StoreError> {
    let (revision, item) = store.get(key).await?;
    let spec: NodeSpec = item.and_then(|item| serde_json::from_slice(&item.value).ok()).unwrap_or_default();
    seen.send_if_modified(|current| std::mem::replace(current, spec.meta.clone()) != spec.meta);
    let mut changes = match store.watch(Range::Key(key.to_owned()), revision + 1).await {
        Err(StoreError::Compacted { .. }) => return Ok(()),
        other => other?,
    };
    // Any change is a reason to read the key anew.
    while let Some(batch) = changes.next().await {
        match batch {
            Ok(batch) if batch.events.is_empty() => {}
            Ok(_) | Err(StoreError::Compacted { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The machine as tasks see it.
pub fn applied(info: &Arc<NodeInfo>, overrides: &Overrides) -> Arc<NodeInfo> {
    if overrides.is_empty() {
        return Arc::clone(info);
    }
    let mut info = (**info).clone();
    for (key, value) in overrides {
        match value {
            Some(value) => info.meta.insert(key.clone(), value.clone()),
            None => info.meta.remove(key),
        };
    }
    Arc::new(info)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Op;
    use crate::store::Store as _;
    use crate::store::Txn;
    use crate::store::embedded::EmbeddedStore;

    #[tokio::test(start_paused = true)]
    async fn what_operators_set_is_seen_at_once() {
        let (store, keys, node) = (EmbeddedStore::new(), Keys::default(), NodeId::from_random([5; 16]));
        let (sender, mut seen) = watch::channel(Overrides::new());
        let following = tokio::spawn(follow(Arc::new(store.clone()), keys.clone(), node, sender));
        let own = Arc::new(NodeInfo {
            meta: [("rack".to_owned(), "r1".to_owned()), ("old".to_owned(), "x".to_owned())].into(),
            ..NodeInfo::default()
        });
        for (meta, expected) in [
            (vec![("rack", Some("r2"))], vec![("old", "x"), ("rack", "r2")]),
            (vec![("old", None), ("new", Some("y"))], vec![("new", "y"), ("rack", "r1")]),
        ] {
            let meta = meta.into_iter().map(|(key, value)| (key.to_owned(), value.map(str::to_owned)));
            let spec = NodeSpec { meta: meta.collect(), ..NodeSpec::default() };
            let put = Op::put(keys.text(&Key::NodeSpec(node)), serde_json::to_vec(&spec).unwrap());
            store.commit(Txn::default().and_then(put)).await.unwrap();
            seen.wait_for(|overrides| *overrides == spec.meta).await.unwrap();
            let info = applied(&own, &seen.borrow());
            let found: Vec<_> = info.meta.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            assert_eq!(found, expected);
        }
        following.abort();
    }
}
