//! The caller's own organization.

use axum::extract::State;
use model::{DestinationPrefix, Invalid, Organization};
use serde::{Deserialize, Serialize};
use store::OrganizationUpdate;
use utoipa::ToSchema;

use crate::ApiState;
use crate::auth::{Caller, OrganizationsManage};
use crate::error::{ApiError, of};
use crate::etag::{IfMatch, Tagged};
use crate::extract::Body;
use crate::routes::{Routes, operations};
use crate::wire::{OrganizationIdText, Text, TimeText, present};

/// What a 404 speaks of.
const ORGANIZATION: &str = "Organization";
/// Most prefixes of `allowed_destinations`.
const MAX_DESTINATIONS: usize = 256;
/// Largest `daily_call_limit`.
pub const MAX_DAILY_CALLS: u32 = 100_000_000;

/// Changes to the organization: what is left out stays, `null` lifts.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OrganizationUpdate)]
struct OrganizationUpdateIn {
    /// Source addresses or CIDR prefixes that may call the agents' SIP URIs. Null or an empty list: any.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>, required = false, max_items = 256)]
    sip_endpoint_allowed_addresses: Option<Option<Vec<String>>>,
    /// Beginnings of the E.164 numbers that may be called. Null or an empty list: any.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>, required = false, max_items = 256)]
    allowed_destinations: Option<Option<Vec<String>>>,
    /// Calls out a day, counted from 00:00 UTC. Null: no limit.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u32>, required = false, minimum = 0, maximum = 100_000_000)]
    daily_call_limit: Option<Option<u32>>,
}

impl OrganizationUpdateIn {
    fn check(self) -> Result<OrganizationUpdate, ApiError> {
        let ranges = self.sip_endpoint_allowed_addresses.map(|list| {
            let list = list.unwrap_or_default();
            model::address::parse_address_ranges("sip_endpoint_allowed_addresses", &list)
        });
        let daily_call_limit = match self.daily_call_limit {
            Some(Some(limit)) if limit > MAX_DAILY_CALLS => {
                let rule = format!("is {limit}; 0 to {MAX_DAILY_CALLS} is allowed");
                return Err(ApiError::body(Invalid::field("daily_call_limit", rule)));
            }
            limit => limit,
        };
        Ok(OrganizationUpdate {
            sip_endpoint_allowed_addresses: ranges.transpose().map_err(ApiError::body)?,
            allowed_destinations: self
                .allowed_destinations
                .map(|list| destinations(&list.unwrap_or_default()))
                .transpose()
                .map_err(ApiError::body)?,
            daily_call_limit,
        })
    }
}

/// Reads `allowed_destinations`; an empty list lifts the rule.
pub fn destinations(list: &[String]) -> Result<Option<Vec<DestinationPrefix>>, Invalid> {
    let field = "allowed_destinations";
    if list.len() > MAX_DESTINATIONS {
        let rule = format!("has {} entries; at most {MAX_DESTINATIONS} are allowed", list.len());
        return Err(Invalid::field(field, rule));
    }
    let parse = |(at, text): (usize, &String)| {
        text.trim().parse().map_err(|rule: String| Invalid::field(at.to_string(), rule).within(field))
    };
    let prefixes: Vec<DestinationPrefix> = list.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
    Ok(if prefixes.is_empty() { None } else { Some(prefixes) })
}

/// An organization.
#[derive(Serialize, ToSchema)]
#[schema(as = Organization)]
pub(super) struct OrganizationOut {
    id: OrganizationIdText,
    name: String,
    /// Who may call the agents' SIP URIs; null means any.
    #[schema(required)]
    sip_endpoint_allowed_addresses: Option<Vec<String>>,
    /// Beginnings of the numbers that may be called; null means any.
    #[schema(required)]
    allowed_destinations: Option<Vec<String>>,
    /// Calls out a day; null means no limit.
    #[schema(required)]
    daily_call_limit: Option<u32>,
    created_at: TimeText,
    updated_at: TimeText,
}

impl From<Organization> for OrganizationOut {
    fn from(organization: Organization) -> Self {
        let ranges = organization.sip_endpoint_allowed_addresses;
        let prefixes = organization.allowed_destinations;
        Self {
            id: Text(organization.id),
            name: organization.name,
            sip_endpoint_allowed_addresses: ranges.map(|list| list.iter().map(ToString::to_string).collect()),
            allowed_destinations: prefixes.map(|list| list.iter().map(ToString::to_string).collect()),
            daily_call_limit: organization.daily_call_limit,
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
) -> Result<Tagged<OrganizationOut>, ApiError> {
    let organization = state.store.organization(caller.organization).await.map_err(of(ORGANIZATION))?;
    Ok(Tagged(organization.updated_at, organization.into()))
}

/// Changes the organization's rules: who may call its agents by SIP URI, where its agents may call, and how often.
#[utoipa::path(patch, path = "/core/organization", operation_id = "update_organization", tag = "Organization",
    request_body = OrganizationUpdateIn,
    responses((status = 200, description = "The organization, in force on this node.", body = OrganizationOut)))]
async fn update(
    caller: Caller<OrganizationsManage>,
    State(state): State<ApiState>,
    IfMatch(precondition): IfMatch,
    Body(body): Body<OrganizationUpdateIn>,
) -> Result<Tagged<OrganizationOut>, ApiError> {
    let change = body.check()?;
    let changed = state.store.update_organization(caller.organization, change, &precondition).await;
    let (organization, sequence) = changed.map_err(of(ORGANIZATION))?;
    state.in_force(sequence).await?;
    Ok(Tagged(organization.updated_at, organization.into()))
}

pub(super) fn routes() -> Routes {
    operations!(get, update)
}
