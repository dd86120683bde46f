//! Settings of the cluster: named values that users put, change and delete.

use serde::Serialize;

use super::Committed;
use super::commit;
use super::put;
use super::too_busy;
use crate::api::Api;
use crate::api::error::ApiError;
use crate::store::Guard;
use crate::store::Op;
use crate::store::Revision;
use crate::store::Txn;
use crate::store::key::Key;

/// Writes a value, whatever was there.
///
/// # Errors
/// Those of the store.
pub async fn write<T: Serialize>(api: &Api, key: &Key, value: &T) -> Result<Revision, ApiError> {
    match commit(api, Txn::default().and_then(put(api, key, value)?)).await? {
        Committed::At(revision) => Ok(revision),
        Committed::Conflict => Err(too_busy(api.context.keys.text(key))),
    }
}

/// Writes a value if the key's mod revision is `seen` (0: if there is none); `None` if it is not.
///
/// # Errors
/// Those of the store.
pub async fn write_if<T: Serialize>(
    api: &Api,
    key: &Key,
    value: &T,
    seen: Revision,
) -> Result<Option<Revision>, ApiError> {
    let guard = Guard::ModRevision(api.context.keys.text(key), seen);
    match commit(api, Txn::when([guard]).and_then(put(api, key, value)?)).await? {
        Committed::At(revision) => Ok(Some(revision)),
        Committed::Conflict => Ok(None),
    }
}

/// Deletes a value.
///
/// # Errors
/// Those of the store.
pub async fn delete(api: &Api, key: &Key) -> Result<Revision, ApiError> {
    match commit(api, Txn::default().and_then(Op::delete(api.context.keys.text(key)))).await? {
        Committed::At(revision) => Ok(revision),
        Committed::Conflict => Err(too_busy(api.context.keys.text(key))),
    }
}
