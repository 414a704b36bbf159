//! The caller's own organization.

use axum::Json;
use axum::extract::State;
use model::Organization;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ApiState;
use crate::auth::{Caller, OrganizationsManage};
use crate::error::{ApiError, of};
use crate::extract::Body;
use crate::routes::{Routes, operations};
use crate::wire::{OrganizationIdText, Text, TimeText, present};

/// What a 404 speaks of.
const ORGANIZATION: &str = "Organization";

/// Changes to the organization: what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OrganizationUpdate)]
struct OrganizationUpdateIn {
    /// Source addresses or CIDR prefixes that may call the agents' SIP URIs. Null or an empty list: any.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>, required = false, max_items = 256)]
    sip_endpoint_allowed_addresses: Option<Option<Vec<String>>>,
}

/// An organization.
#[derive(Serialize, ToSchema)]
#[schema(as = Organization)]
struct OrganizationOut {
    id: OrganizationIdText,
    name: String,
    /// Who may call the agents' SIP URIs; null means any.
    #[schema(required)]
    sip_endpoint_allowed_addresses: Option<Vec<String>>,
    created_at: TimeText,
    updated_at: TimeText,
}

impl From<Organization> for OrganizationOut {
    fn from(organization: Organization) -> Self {
        let list = organization.sip_endpoint_allowed_addresses;
        Self {
            id: Text(organization.id),
            name: organization.name,
            sip_endpoint_allowed_addresses: list.map(|list| list.iter().map(ToString::to_string).collect()),
            created_at: Text(organization.created_at),
            updated_at: Text(organization.updated_at),
        }
    }
}

/// Shows the caller's organization.
#[utoipa::path(get, path = "/core/organization", operation_id = "get_organization", tag = "Organization",
    responses((status = 200, description = "The organization.", body = OrganizationOut)))]
async fn get(
    caller: Caller<OrganizationsManage>,
    State(state): State<ApiState>,
) -> Result<Json<OrganizationOut>, ApiError> {
    let organization = state.store.organization(caller.organization).await.map_err(of(ORGANIZATION))?;
    Ok(Json(organization.into()))
}

/// Changes who may call the organization's agents by SIP URI.
#[utoipa::path(patch, path = "/core/organization", operation_id = "update_organization", tag = "Organization",
    request_body = OrganizationUpdateIn,
    responses((status = 200, description = "The organization, in force on this node.", body = OrganizationOut)))]
async fn update(
    caller: Caller<OrganizationsManage>,
    State(state): State<ApiState>,
    Body(body): Body<OrganizationUpdateIn>,
) -> Result<Json<OrganizationOut>, ApiError> {
    let Some(list) = body.sip_endpoint_allowed_addresses else { return get(caller, State(state)).await };
    let list = list.unwrap_or_default();
    let ranges = model::address::parse_address_ranges("sip_endpoint_allowed_addresses", &list)
        .map_err(ApiError::body)?;
    let changed = state.store.update_organization(caller.organization, ranges).await;
    let (organization, sequence) = changed.map_err(of(ORGANIZATION))?;
    state.in_force(sequence).await?;
    Ok(Json(organization.into()))
}

pub(super) fn routes() -> Routes {
    operations!(get, update)
}
