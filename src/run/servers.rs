//! Where the servers are, for an agent that is none: read from the store when it is asked for, and remembered a little.

use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use crate::api::forward::ServerDirectory;
use crate::store::ListOptions;
use crate::store::Range;
use crate::store::SharedStore;
use crate::store::key::Key;
use crate::store::key::Keys;

/// For this long a list counts as new. A server that died is listed longer than that anyway.
const FRESH: Duration = Duration::from_secs(3);

/// The list at `servers/`.
pub(super) struct StoredServers {
    store: SharedStore,
    /// What the keys of servers begin with.
    prefix: String,
    last: Mutex<Option<(Instant, Vec<String>)>>,
}

impl StoredServers {
    pub(super) fn new(store: SharedStore, keys: &Keys) -> Self {
        Self { store, prefix: keys.text(&Key::Server(String::new())), last: Mutex::default() }
    }
}

#[async_trait]
impl ServerDirectory for StoredServers {
    async fn servers(&self) -> Result<Vec<String>, String> {
        let known = self.last.lock().clone();
        if let Some((at, servers)) = &known
            && at.elapsed() < FRESH
        {
            return Ok(servers.clone());
        }
        let range = Range::Prefix(self.prefix.clone());
        let listing = match (self.store.list(range, ListOptions::default()).await, known) {
            (Ok(listing), _) => listing,
            // The servers may well be there although the store is not to be reached from here.
            (Err(error), Some((_, servers))) if !servers.is_empty() => {
                tracing::debug!(%error, "cannot list the servers, the last list has to do");
                return Ok(servers);
            }
            (Err(error), _) => return Err(error.to_string()),
        };
        let addr = |value: &[u8]| -> Option<String> {
            let server: Value = serde_json::from_slice(value).ok()?;
            Some(server.get("HTTPAddr")?.as_str()?.to_owned()).filter(|addr| !addr.is_empty())
        };
        let mut servers: Vec<String> = listing.items.iter().filter_map(|item| addr(&item.value)).collect();
        servers.sort();
        servers.dedup();
        *self.last.lock() = Some((Instant::now(), servers.clone()));
        Ok(servers)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::store::Op;
    use crate::store::Txn;
    use crate::store::embedded::EmbeddedStore;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_list_follows_the_store() {
        let store: SharedStore = Arc::new(EmbeddedStore::new());
        let keys = Keys::default();
        let put = |id: &str, addr: &str| {
            Op::put(keys.text(&Key::Server(id.to_owned())), format!("{{\"HTTPAddr\":\"{addr}\"}}"))
        };
        let servers = StoredServers::new(Arc::clone(&store), &keys);
        assert_eq!(servers.servers().await, Ok(vec![]));
        let txn = Txn::default().and_then(put("b", "10.0.0.2:4646")).and_then(put("a", "10.0.0.1:4646"));
        store.commit(txn).await.unwrap();
        tokio::time::advance(FRESH).await;
        assert_eq!(servers.servers().await, Ok(vec!["10.0.0.1:4646".to_owned(), "10.0.0.2:4646".to_owned()]));
    }
}
