//! The store's newest revision, asked for once on behalf of everybody who waits for it.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::future::Shared;
use parking_lot::Mutex;

use crate::store::Revision;
use crate::store::SharedStore;
use crate::store::StoreError;

type Asked = Shared<BoxFuture<'static, Result<Revision, StoreError>>>;

/// Coalesces linearizable revision reads: a caller never gets the answer to a question asked before it came.
pub struct Latest {
    store: SharedStore,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The question on its way: too old for new callers.
    current: Option<Asked>,
    /// The question that will be asked once the current one is answered.
    next: Option<Asked>,
}

impl Latest {
    /// Asks `store`.
    pub fn new(store: SharedStore) -> Arc<Self> {
        Arc::new(Self { store, inner: Mutex::default() })
    }

    /// A revision at least that of every write acknowledged before the call.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn revision(self: &Arc<Self>) -> Result<Revision, StoreError> {
        let asked = {
            let mut inner = self.inner.lock();
            match &inner.next {
                Some(next) => next.clone(),
                None => {
                    let before = inner.current.clone();
                    let asked = Arc::clone(self).ask_after(before).boxed().shared();
                    inner.next = Some(asked.clone());
                    asked
                }
            }
        };
        asked.await
    }

    async fn ask_after(self: Arc<Self>, before: Option<Asked>) -> Result<Revision, StoreError> {
        if let Some(before) = before {
            let _ = before.await;
        }
        {
            // From here on the question is under way, so whoever comes now must wait for the next one.
            let mut inner = self.inner.lock();
            inner.current = inner.next.take();
        }
        self.store.revision().await
    }
}
