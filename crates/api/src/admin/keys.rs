//! The organization's API keys.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse;
use model::trunk::parse_name;
use model::{Invalid, Scope, Timestamp};
use serde::{Deserialize, Serialize};
use store::KeyInfo;
use utoipa::{IntoParams, ToSchema};

use crate::ApiState;
use crate::auth::{Caller, OrganizationsManage};
use crate::error::{ApiError, of};
use crate::etag::{IfMatch, Tagged};
use crate::extract::{At, Body, Params};
use crate::pagination::{CursorText, LimitText, Listed, listed, page};
use crate::routes::{Routes, operations};
use crate::wire::{KeyIdText, ScopeText, Text, TimeText};

/// What a 404 speaks of.
const KEY: &str = "API key";

/// Most entries of `scopes`.
const MAX_SCOPES: usize = 64;

/// A key to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OrganizationPatCreate)]
struct KeyIn {
    /// Trimmed.
    #[schema(min_length = 1, max_length = 255, pattern = "\\S")]
    name: String,
    /// What it may do; what the maker may when left out. No more than the maker may.
    #[schema(min_items = 1, max_items = 64)]
    scopes: Option<Vec<ScopeText>>,
    /// When it ends by itself; never when left out.
    expires_at: Option<TimeText>,
}

/// An API key, without its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = OrganizationPat)]
pub(crate) struct KeyOut {
    id: KeyIdText,
    name: String,
    scopes: Vec<ScopeText>,
    /// Null: never.
    #[schema(required)]
    expires_at: Option<TimeText>,
    /// Null while it is good.
    #[schema(required)]
    revoked_at: Option<TimeText>,
    /// To the minute; null before its first use.
    #[schema(required)]
    last_used_at: Option<TimeText>,
    created_at: TimeText,
}

impl From<KeyInfo> for KeyOut {
    fn from(key: KeyInfo) -> Self {
        Self {
            id: Text(key.id),
            name: key.name,
            scopes: key.scopes.into_iter().map(Text).collect(),
            expires_at: key.expires_at.map(Text),
            revoked_at: key.revoked_at.map(Text),
            last_used_at: key.last_used_at.map(Text),
            created_at: Text(key.created_at),
        }
    }
}

/// A key that was made.
#[derive(Serialize, ToSchema)]
#[schema(as = OrganizationPatCreated)]
struct NewKeyOut {
    #[serde(flatten)]
    #[schema(inline)]
    key: KeyOut,
    /// The credential, `ak_<id>.<secret>`: shown this once.
    token: String,
}

/// A key's path.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct KeyPath {
    /// The key.
    id: KeyIdText,
}

/// Which keys.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct KeyParams {
    limit: Option<LimitText>,
    cursor: Option<CursorText>,
}

/// Lists the organization's API keys, newest first, revoked ones included.
#[utoipa::path(get, path = "/admin/organization-pats", operation_id = "list_organization_pats", tag = "Administration",
    params(KeyParams),
    responses((status = 200, description = "A page of keys.", body = [KeyOut],
        headers(("X-Next-Cursor" = String, description = "Cursor of the next page, when there is one."),
                ("Link" = String, description = "The next page as rel=next, when there is one.")))))]
async fn list(
    caller: Caller<OrganizationsManage>,
    Params(params): Params<KeyParams>,
    State(state): State<ApiState>,
    uri: Uri,
) -> Result<Listed, ApiError> {
    let page = page(params.limit, params.cursor);
    let rows = state.store.keys(caller.organization, page).await?;
    Ok(listed(uri, &page, rows, |key| (key.created_at, key.id.0), KeyOut::from))
}

/// Shows one API key, without its secret.
#[utoipa::path(get, path = "/admin/organization-pats/{id}", operation_id = "get_organization_pat",
    tag = "Administration", params(KeyPath),
    responses((status = 200, description = "The key.", body = KeyOut)))]
async fn get(
    caller: Caller<OrganizationsManage>,
    At(path): At<KeyPath>,
    State(state): State<ApiState>,
) -> Result<Tagged<KeyOut>, ApiError> {
    let key = state.store.key(caller.organization, path.id.0).await.map_err(of(KEY))?;
    Ok(Tagged(key.state(), key.into()))
}

/// Makes an API key. Its secret is in this answer alone.
#[utoipa::path(post, path = "/admin/organization-pats", operation_id = "create_organization_pat",
    tag = "Administration", request_body = KeyIn,
    responses((status = 200, description = "The key and its credential.", body = NewKeyOut,
        headers(("Location" = String, description = "Path of the key.")))))]
async fn create(
    caller: Caller<OrganizationsManage>,
    State(state): State<ApiState>,
    Body(body): Body<KeyIn>,
) -> Result<impl IntoResponse, ApiError> {
    let name = parse_name(&body.name).map_err(ApiError::body)?;
    let scopes = match body.scopes {
        None => caller.scopes().to_vec(),
        Some(scopes) if scopes.is_empty() => {
            return Err(ApiError::body(Invalid::field("scopes", "must name at least one scope")));
        }
        Some(scopes) if scopes.len() > MAX_SCOPES => {
            let rule = format!("has {} entries; at most {MAX_SCOPES} are allowed", scopes.len());
            return Err(ApiError::body(Invalid::field("scopes", rule)));
        }
        Some(scopes) => {
            let mut scopes: Vec<Scope> = scopes.into_iter().map(|scope| scope.0).collect();
            scopes.sort_unstable();
            scopes.dedup();
            scopes
        }
    };
    let expires = body.expires_at.map(|at| at.0);
    if expires.is_some_and(|at| at <= Timestamp::now()) {
        return Err(ApiError::body(Invalid::field("expires_at", "must be in the future")));
    }
    if let Some(beyond) = scopes.iter().find(|scope| !caller.may(**scope)) {
        return Err(ApiError::Forbidden(format!(
            "The new key would hold {beyond}, which the credential that makes it does not."
        )));
    }
    let made = state.store.create_key(caller.organization, &name, &scopes, expires).await?;
    let key = state.store.key(caller.organization, made.id).await.map_err(of(KEY))?;
    let location = crate::core::location(format!("/admin/organization-pats/{}", made.id));
    let token = made.token.expose().to_owned();
    Ok((location, axum::Json(NewKeyOut { key: key.into(), token })))
}

/// Revokes an API key, at once. Revoking it again changes nothing.
#[utoipa::path(delete, path = "/admin/organization-pats/{id}", operation_id = "revoke_organization_pat",
    tag = "Administration", params(KeyPath),
    responses((status = 204, description = "It is no longer good."),
        (status = 409, description = "It is the key that asks.", body = crate::error::ErrorOut)))]
async fn revoke(
    caller: Caller<OrganizationsManage>,
    At(path): At<KeyPath>,
    State(state): State<ApiState>,
    IfMatch(precondition): IfMatch,
) -> Result<StatusCode, ApiError> {
    if path.id.0 == caller.credential {
        return Err(ApiError::Conflict(
            "An API key does not revoke itself; make another one and revoke this one with it.".to_owned(),
        ));
    }
    let revoked = state.store.revoke_own_key(caller.organization, path.id.0, &precondition).await;
    revoked.map_err(of(KEY))?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn routes() -> Routes {
    operations!(list, get, create, revoke)
}
