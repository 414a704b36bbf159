//! Trunks.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse;
use model::trunk::{MAX_CALL_LIMIT, parse_name};
use model::{CarrierAddress, InboundConfig, Invalid, OutboundConfig, PrivateTargets, Trunk};
use serde::{Deserialize, Serialize};
use store::{NewTrunk, TrunkFilter, TrunkUpdate};
use utoipa::{IntoParams, ToSchema};

use super::trunk_config::{InboundConfigIn, InboundConfigOut, OutboundConfigIn, OutboundConfigOut};
use crate::ApiState;
use crate::auth::{Caller, TrunksManage, TrunksRead};
use crate::error::{ApiError, FieldErrorOut, of};
use crate::etag::{IfMatch, Tagged};
use crate::extract::{At, Body, Params};
use crate::pagination::{CursorText, LimitText, Listed, listed, page};
use crate::routes::{Routes, operations};
use crate::wire::{OrganizationIdText, Strict, Text, TimeText, TrunkIdText, present};

/// What a 404 speaks of.
pub(super) const TRUNK: &str = "Trunk";

/// A trunk to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TrunkCreate)]
struct TrunkIn {
    /// Trimmed.
    #[schema(min_length = 1, max_length = 255, pattern = "\\S")]
    name: String,
    /// Rules for calls from the carrier; the defaults when left out or null.
    #[schema(value_type = Option<InboundConfigIn>)]
    inbound_config: Option<Strict<InboundConfigIn>>,
    /// How to reach the carrier; no calls out when left out or null.
    #[schema(value_type = Option<OutboundConfigIn>)]
    outbound_config: Option<Strict<OutboundConfigIn>>,
    /// Calls at once, both directions together. Null: the node's limit alone.
    #[schema(minimum = 1, maximum = 1_000_000)]
    max_concurrent_calls: Option<u32>,
    /// New calls a second, both directions together, in bursts of as many. Null: no limit.
    #[schema(minimum = 1, maximum = 1_000_000)]
    max_calls_per_second: Option<u32>,
}

/// Changes to a trunk: what is left out stays, `null` clears, an object replaces that whole config.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TrunkUpdate)]
struct TrunkUpdateIn {
    /// Trimmed; cannot be cleared.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 255, pattern = "\\S")]
    name: Option<Option<String>>,
    /// Rules for calls from the carrier.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<InboundConfigIn>, required = false)]
    inbound_config: Option<Option<Strict<InboundConfigIn>>>,
    /// How to reach the carrier, the password included.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<OutboundConfigIn>, required = false)]
    outbound_config: Option<Option<Strict<OutboundConfigIn>>>,
    /// Calls at once, both directions together.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u32>, required = false, minimum = 1, maximum = 1_000_000)]
    max_concurrent_calls: Option<Option<u32>>,
    /// New calls a second, both directions together, in bursts of as many.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u32>, required = false, minimum = 1, maximum = 1_000_000)]
    max_calls_per_second: Option<Option<u32>>,
}

/// Reads parts of a body and keeps every fault found, so that one answer names them all.
#[derive(Default)]
struct Checks(Vec<FieldErrorOut>);

impl Checks {
    fn read<T>(&mut self, result: Result<T, Invalid>) -> Option<T> {
        result.map_err(|invalid| self.0.push(FieldErrorOut::from_invalid("body", invalid))).ok()
    }

    fn config<I, T: TryFrom<I, Error = Vec<Invalid>>>(
        &mut self,
        field: &str,
        config: Option<I>,
    ) -> Option<T> {
        match T::try_from(config?) {
            Ok(config) => Some(config),
            Err(faults) => {
                self.0
                    .extend(faults.into_iter().map(|f| FieldErrorOut::from_invalid("body", f.within(field))));
                None
            }
        }
    }

    fn limit(&mut self, field: &str, limit: Option<u32>) -> Option<u32> {
        let limit = limit?;
        if (1..=MAX_CALL_LIMIT).contains(&limit) {
            return Some(limit);
        }
        let rule = format!("is {limit}; 1 to {MAX_CALL_LIMIT} is allowed");
        self.read(Err(Invalid::field(field, rule)))
    }

    /// With `sip.require_allow_list` no trunk may take calls from anywhere; one without a config does.
    fn allow_list(&mut self, required: bool, config: Option<&InboundConfig>) {
        // What cannot be read has been told of.
        let unread = self.0.iter().any(|fault| fault.loc.get(1).is_some_and(|part| part == "inbound_config"));
        if required && !unread && config.is_none_or(|config| config.allowed_addresses.is_none()) {
            let invalid = Invalid::field(
                "allowed_addresses",
                "is required: this node takes calls from listed addresses alone (sip.require_allow_list)",
            );
            self.read::<()>(Err(invalid.within("inbound_config")));
        }
    }

    /// Addresses that are written as such; a name is judged when it is resolved.
    fn targets(&mut self, targets: &PrivateTargets, config: Option<&OutboundConfig>) {
        let Some(config) = config else { return };
        let mut check = |path: &[&str], address: &CarrierAddress| {
            if let Some(Err(refused)) = address.ip().map(|ip| targets.check(ip)) {
                let path = path.iter().map(|part| (*part).to_owned()).collect();
                let invalid = Invalid { path, message: refused.to_string() };
                self.read::<()>(Err(invalid.within("outbound_config")));
            }
        };
        check(&["address"], &config.address);
        for (at, address) in config.fallback_addresses.iter().enumerate() {
            check(&["fallback_addresses", &at.to_string()], address);
        }
    }

    fn done(self) -> Result<(), ApiError> {
        if self.0.is_empty() { Ok(()) } else { Err(ApiError::Invalid(self.0)) }
    }
}

impl TrunkIn {
    fn check(self, state: &ApiState) -> Result<NewTrunk, ApiError> {
        let mut checks = Checks::default();
        let name = checks.read(parse_name(&self.name)).unwrap_or_default();
        let inbound_config = checks.config("inbound_config", self.inbound_config);
        let outbound_config = checks.config("outbound_config", self.outbound_config);
        let max_concurrent_calls = checks.limit("max_concurrent_calls", self.max_concurrent_calls);
        let max_calls_per_second = checks.limit("max_calls_per_second", self.max_calls_per_second);
        checks.allow_list(state.require_allow_list, inbound_config.as_ref());
        checks.targets(&state.private_targets, outbound_config.as_ref());
        checks.done()?;
        Ok(NewTrunk {
            name,
            managed_account_id: None,
            inbound_config,
            outbound_config,
            max_concurrent_calls,
            max_calls_per_second,
        })
    }
}

impl TrunkUpdateIn {
    fn check(self, state: &ApiState) -> Result<TrunkUpdate, ApiError> {
        let mut checks = Checks::default();
        let name = self.name.and_then(|name| {
            let name = name.ok_or_else(|| Invalid::field("name", "must not be null"));
            checks.read(name.and_then(|name| parse_name(&name)))
        });
        let inbound_config = self.inbound_config.map(|config| checks.config("inbound_config", config));
        let outbound_config = self.outbound_config.map(|config| checks.config("outbound_config", config));
        let max_concurrent_calls =
            self.max_concurrent_calls.map(|limit| checks.limit("max_concurrent_calls", limit));
        let max_calls_per_second =
            self.max_calls_per_second.map(|limit| checks.limit("max_calls_per_second", limit));
        if let Some(config) = &inbound_config {
            checks.allow_list(state.require_allow_list, config.as_ref());
        }
        checks.targets(&state.private_targets, outbound_config.as_ref().and_then(Option::as_ref));
        checks.done()?;
        Ok(TrunkUpdate { name, inbound_config, outbound_config, max_concurrent_calls, max_calls_per_second })
    }
}

/// A trunk.
#[derive(Serialize, ToSchema)]
#[schema(as = Trunk)]
pub(super) struct TrunkOut {
    id: TrunkIdText,
    organization_id: OrganizationIdText,
    name: String,
    /// The operator's account when the trunk is managed, and read-only here; null when it is the customer's own.
    #[schema(required)]
    managed_account_id: Option<String>,
    /// Null when none was given: the defaults apply.
    #[schema(required)]
    inbound_config: Option<InboundConfigOut>,
    /// Null when the trunk places no calls.
    #[schema(required)]
    outbound_config: Option<OutboundConfigOut>,
    /// Calls at once; left out when only the node's limit counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    max_concurrent_calls: Option<u32>,
    /// New calls a second; left out when there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    max_calls_per_second: Option<u32>,
    created_at: TimeText,
    updated_at: TimeText,
}

impl From<Trunk> for TrunkOut {
    fn from(trunk: Trunk) -> Self {
        Self {
            id: Text(trunk.id),
            organization_id: Text(trunk.organization_id),
            name: trunk.name,
            managed_account_id: trunk.managed_account_id,
            inbound_config: trunk.inbound_config.map(Into::into),
            outbound_config: trunk.outbound_config.map(Into::into),
            max_concurrent_calls: trunk.max_concurrent_calls,
            max_calls_per_second: trunk.max_calls_per_second,
            created_at: Text(trunk.created_at),
            updated_at: Text(trunk.updated_at),
        }
    }
}

/// A trunk's path.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct TrunkPath {
    /// The trunk.
    pub(super) id: TrunkIdText,
}

/// Which trunks.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TrunkParams {
    /// Part of the name, in any case.
    name: Option<String>,
    /// Made at or after.
    created_after: Option<TimeText>,
    /// Made at or before.
    created_before: Option<TimeText>,
    /// Changed at or after.
    updated_after: Option<TimeText>,
    /// Changed at or before.
    updated_before: Option<TimeText>,
    limit: Option<LimitText>,
    cursor: Option<CursorText>,
}

/// Lists trunks, newest first.
#[utoipa::path(get, path = "/core/trunks", operation_id = "list_trunks", tag = "Trunks", params(TrunkParams),
    responses((status = 200, description = "A page of trunks.", body = [TrunkOut],
        headers(("X-Next-Cursor" = String, description = "Cursor of the next page, when there is one."),
                ("Link" = String, description = "The next page as rel=next, when there is one.")))))]
async fn list(
    caller: Caller<TrunksRead>,
    Params(params): Params<TrunkParams>,
    State(state): State<ApiState>,
    uri: Uri,
) -> Result<Listed, ApiError> {
    let page = page(params.limit, params.cursor);
    let filter = TrunkFilter {
        name: params.name,
        created_after: params.created_after.map(|t| t.0),
        created_before: params.created_before.map(|t| t.0),
        updated_after: params.updated_after.map(|t| t.0),
        updated_before: params.updated_before.map(|t| t.0),
    };
    let rows = state.store.trunks(caller.organization, filter, page).await?;
    Ok(listed(uri, &page, rows, |trunk| (trunk.created_at, trunk.id.0), TrunkOut::from))
}

/// Shows one trunk.
#[utoipa::path(get, path = "/core/trunks/{id}", operation_id = "get_trunk", tag = "Trunks", params(TrunkPath),
    responses((status = 200, description = "The trunk.", body = TrunkOut)))]
async fn get(
    caller: Caller<TrunksRead>,
    At(path): At<TrunkPath>,
    State(state): State<ApiState>,
) -> Result<Tagged<TrunkOut>, ApiError> {
    let trunk = state.store.trunk(caller.organization, path.id.0).await.map_err(of(TRUNK))?;
    Ok(Tagged(trunk.updated_at, trunk.into()))
}

/// Makes a customer-owned trunk.
#[utoipa::path(post, path = "/core/trunks", operation_id = "create_trunk", tag = "Trunks", request_body = TrunkIn,
    responses((status = 200, description = "The trunk, in force on this node.", body = TrunkOut,
        headers(("Location" = String, description = "Path of the trunk."))),
        (status = 400, description = "A limit of the organization stands against it.", body = crate::error::ErrorOut)))]
async fn create(
    caller: Caller<TrunksManage>,
    State(state): State<ApiState>,
    Body(body): Body<TrunkIn>,
) -> Result<impl IntoResponse, ApiError> {
    let (trunk, sequence) = state.store.create_trunk(caller.organization, body.check(&state)?).await?;
    state.in_force(sequence).await?;
    Ok((
        super::location(format!("/core/trunks/{}", trunk.id)),
        Tagged(trunk.updated_at, TrunkOut::from(trunk)),
    ))
}

/// Changes a trunk's name and config. What is left out stays, null clears, an object replaces that whole config.
#[utoipa::path(put, path = "/core/trunks/{id}", operation_id = "update_trunk", tag = "Trunks", params(TrunkPath),
    request_body = TrunkUpdateIn,
    responses((status = 200, description = "The trunk, in force on this node.", body = TrunkOut),
        (status = 400, description = "The trunk is managed.", body = crate::error::ErrorOut)))]
async fn update(
    caller: Caller<TrunksManage>,
    At(path): At<TrunkPath>,
    State(state): State<ApiState>,
    IfMatch(precondition): IfMatch,
    Body(body): Body<TrunkUpdateIn>,
) -> Result<Tagged<TrunkOut>, ApiError> {
    let change = body.check(&state)?;
    let changed =
        state.store.update_trunk(caller.organization, path.id.0, change, false, &precondition).await;
    let (trunk, sequence) = changed.map_err(of(TRUNK))?;
    state.in_force(sequence).await?;
    Ok(Tagged(trunk.updated_at, trunk.into()))
}

/// Deletes a trunk. Calls in progress go on.
#[utoipa::path(delete, path = "/core/trunks/{id}", operation_id = "delete_trunk", tag = "Trunks", params(TrunkPath),
    responses((status = 204, description = "It is gone."),
        (status = 400, description = "The trunk is managed.", body = crate::error::ErrorOut),
        (status = 409, description = "Phone numbers are on it.", body = crate::error::ErrorOut)))]
async fn delete(
    caller: Caller<TrunksManage>,
    At(path): At<TrunkPath>,
    State(state): State<ApiState>,
    IfMatch(precondition): IfMatch,
) -> Result<StatusCode, ApiError> {
    let gone = state.store.delete_trunk(caller.organization, path.id.0, false, &precondition).await;
    let sequence = gone.map_err(of(TRUNK))?;
    state.in_force(sequence).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn routes() -> Routes {
    operations!(list, get, create, update, delete)
}
