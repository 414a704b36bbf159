//! What the presented credential may do.

use axum::Json;
use model::Scope;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{Anything, Caller};
use crate::routes::{Routes, operations};
use crate::wire::{OrganizationIdText, Text};

/// What a credential may do in the organization it acts in.
#[derive(Serialize, ToSchema)]
#[schema(as = MemberScopes)]
struct ScopesOut {
    organization_id: OrganizationIdText,
    /// `manage` satisfies the matching `read`.
    scopes: Vec<&'static str>,
}

/// Shows the scopes of the credential that asks.
#[utoipa::path(get, path = "/admin/members/me/scopes", operation_id = "get_my_scopes", tag = "Administration",
    responses((status = 200, description = "The scopes.", body = ScopesOut)))]
async fn mine(caller: Caller<Anything>) -> Json<ScopesOut> {
    let scopes = caller.scopes().iter().copied().map(Scope::as_str).collect();
    Json(ScopesOut { organization_id: Text(caller.organization), scopes })
}

pub(super) fn routes() -> Routes {
    operations!(mine)
}
