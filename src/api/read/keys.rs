//! What others need to verify the identities of tasks.

use serde_json::Value;
use serde_json::json;

use super::Found;
use crate::api::View;
use crate::api::call::Call;
use crate::api::error::ApiError;
use crate::mirror::state::Table;
use crate::store::Revision;

/// How long verifiers may keep the list, seconds. A key that is new to them makes them look again anyway.
const KEPT_FOR: u32 = 900;

pub(in crate::api) fn keyring_index(view: &View<'_>, _: &Call) -> Revision {
    view.state.table(Table::Keyring)
}

/// The public keys, as a JSON Web Key Set (RFC 7517).
pub(in crate::api) fn key_set(view: &View<'_>, _: &Call) -> Result<Found, ApiError> {
    let keys: Vec<Value> = view.state.keyring.values().map(|key| key.value.jwk()).collect();
    Ok(Found::json(json!({"keys": keys})).kept_for(KEPT_FOR))
}

/// Where the keys are, by OpenID Connect Discovery 1.0.
pub(in crate::api) fn discovery(view: &View<'_>, _: &Call) -> Result<Found, ApiError> {
    let issuer = view.api.context.agent.oidc_issuer.trim_end_matches('/');
    if issuer.is_empty() {
        return Err(ApiError::not_found("OIDC Discovery endpoint disabled"));
    }
    Ok(Found::json(json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
        "id_token_signing_alg_values_supported": ["RS256", "EdDSA"],
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
    })))
}
