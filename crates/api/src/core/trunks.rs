//! Trunks.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse;
use model::trunk::{check_credential, parse_name};
use model::{InboundConfig, Invalid, MediaEncryption, OutboundConfig, Secret, Transport, Trunk};
use serde::{Deserialize, Serialize};
use store::{NewTrunk, TrunkFilter, TrunkUpdate};
use utoipa::{IntoParams, ToSchema};

use crate::ApiState;
use crate::auth::{Caller, TrunksManage, TrunksRead};
use crate::error::{ApiError, FieldErrorOut, REQUIRED, of};
use crate::extract::{At, Body, Params};
use crate::pagination::{CursorText, LimitText, Listed, listed, page};
use crate::routes::{Routes, operations};
use crate::wire::{
    MediaEncryptionText, OrganizationIdText, Strict, Text, TimeText, TransportText, TrunkIdText, present,
};

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
}

/// Governs calls arriving from the carrier.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = InboundConfigIn)]
struct InboundConfigIn {
    /// Apply noise cancellation to inbound audio.
    #[serde(default)]
    #[schema(default = false)]
    enable_noise_cancellation: bool,
    /// Media encryption policy; `SIP_MEDIA_ENCRYPT_DISABLE` when left out.
    #[serde(default = "disabled")]
    #[schema(required = false)]
    media_encryption: MediaEncryptionText,
    /// Source addresses or CIDR prefixes permitted to send calls. Empty strings are stripped; an empty list becomes
    /// null, which means no restriction.
    #[serde(default)]
    #[schema(max_items = 256)]
    allowed_addresses: Option<Vec<String>>,
}

/// How to reach the carrier to place calls.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OutboundConfigIn)]
struct OutboundConfigIn {
    /// Carrier SIP host or domain, with an optional port.
    #[schema(value_type = String, required = true, min_length = 1, example = "sip.carrier.example:5060")]
    address: Option<String>,
    /// SIP auth username: any printable characters.
    #[schema(value_type = String, required = true, min_length = 1, max_length = 255)]
    auth_username: Option<String>,
    /// SIP auth password: any printable characters. Never in an answer.
    #[schema(value_type = String, required = true, min_length = 1, max_length = 255, write_only)]
    auth_password: Option<String>,
    /// Transport protocol; `SIP_TRANSPORT_UDP` when left out.
    #[serde(default = "udp")]
    #[schema(required = false)]
    transport: TransportText,
    /// Media encryption policy; `SIP_MEDIA_ENCRYPT_DISABLE` when left out.
    #[serde(default = "disabled")]
    #[schema(required = false)]
    media_encryption: MediaEncryptionText,
}

fn disabled() -> MediaEncryptionText {
    Text(MediaEncryption::default())
}

fn udp() -> TransportText {
    Text(Transport::default())
}

impl TryFrom<Strict<InboundConfigIn>> for InboundConfig {
    type Error = Vec<Invalid>;

    fn try_from(Strict(config): Strict<InboundConfigIn>) -> Result<Self, Vec<Invalid>> {
        let list = config.allowed_addresses.unwrap_or_default();
        Ok(Self {
            enable_noise_cancellation: config.enable_noise_cancellation,
            media_encryption: config.media_encryption.0,
            allowed_addresses: model::address::parse_address_ranges("allowed_addresses", &list)
                .map_err(|e| vec![e])?,
        })
    }
}

impl TryFrom<Strict<OutboundConfigIn>> for OutboundConfig {
    type Error = Vec<Invalid>;

    fn try_from(Strict(config): Strict<OutboundConfigIn>) -> Result<Self, Vec<Invalid>> {
        fn given(field: &str, value: Option<String>) -> Result<String, Invalid> {
            let value = value.ok_or_else(|| Invalid::field(field, REQUIRED))?;
            if value.is_empty() { Err(Invalid::field(field, "must not be empty")) } else { Ok(value) }
        }
        let credential = |field: &str, value: Option<String>| {
            let value = given(field, value)?;
            check_credential(field, &value)?;
            Ok(value)
        };
        let address = given("address", config.address)
            .and_then(|text| text.parse().map_err(|rule: String| Invalid::field("address", rule)));
        let username = credential("auth_username", config.auth_username);
        let password = credential("auth_password", config.auth_password);
        match (address, username, password) {
            (Ok(address), Ok(auth_username), Ok(password)) => Ok(Self {
                address,
                auth_username,
                auth_password: Secret::new(password),
                transport: config.transport.0,
                media_encryption: config.media_encryption.0,
            }),
            (address, username, password) => {
                Err([address.err(), username.err(), password.err()].into_iter().flatten().collect())
            }
        }
    }
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

    fn done(self) -> Result<(), ApiError> {
        if self.0.is_empty() { Ok(()) } else { Err(ApiError::Invalid(self.0)) }
    }
}

impl TrunkIn {
    fn check(self) -> Result<NewTrunk, ApiError> {
        let mut checks = Checks::default();
        let name = checks.read(parse_name(&self.name)).unwrap_or_default();
        let inbound_config = checks.config("inbound_config", self.inbound_config);
        let outbound_config = checks.config("outbound_config", self.outbound_config);
        checks.done()?;
        Ok(NewTrunk { name, managed_account_id: None, inbound_config, outbound_config })
    }
}

impl TrunkUpdateIn {
    fn check(self) -> Result<TrunkUpdate, ApiError> {
        let mut checks = Checks::default();
        let name = self.name.and_then(|name| {
            let name = name.ok_or_else(|| Invalid::field("name", "must not be null"));
            checks.read(name.and_then(|name| parse_name(&name)))
        });
        let inbound_config = self.inbound_config.map(|config| checks.config("inbound_config", config));
        let outbound_config = self.outbound_config.map(|config| checks.config("outbound_config", config));
        checks.done()?;
        Ok(TrunkUpdate { name, inbound_config, outbound_config })
    }
}

/// A trunk.
#[derive(Serialize, ToSchema)]
#[schema(as = Trunk)]
struct TrunkOut {
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
    created_at: TimeText,
    updated_at: TimeText,
}

/// Governs calls arriving from the carrier.
#[derive(Serialize, ToSchema)]
#[schema(as = InboundConfig)]
struct InboundConfigOut {
    /// Apply noise cancellation to inbound audio.
    enable_noise_cancellation: bool,
    /// Media encryption policy.
    media_encryption: MediaEncryptionText,
    /// Sources permitted to send calls; null means any.
    #[schema(required)]
    allowed_addresses: Option<Vec<String>>,
}

/// How to reach the carrier to place calls. The password is never shown.
#[derive(Serialize, ToSchema)]
#[schema(as = OutboundConfig)]
struct OutboundConfigOut {
    /// Carrier SIP host or domain, with an optional port.
    address: String,
    /// SIP auth username.
    auth_username: String,
    /// Transport protocol.
    transport: TransportText,
    /// Media encryption policy.
    media_encryption: MediaEncryptionText,
}

impl From<Trunk> for TrunkOut {
    fn from(trunk: Trunk) -> Self {
        let inbound = |config: InboundConfig| InboundConfigOut {
            enable_noise_cancellation: config.enable_noise_cancellation,
            media_encryption: Text(config.media_encryption),
            allowed_addresses: config
                .allowed_addresses
                .map(|list| list.iter().map(ToString::to_string).collect()),
        };
        let outbound = |config: OutboundConfig| OutboundConfigOut {
            address: config.address.to_string(),
            auth_username: config.auth_username,
            transport: Text(config.transport),
            media_encryption: Text(config.media_encryption),
        };
        Self {
            id: Text(trunk.id),
            organization_id: Text(trunk.organization_id),
            name: trunk.name,
            managed_account_id: trunk.managed_account_id,
            inbound_config: trunk.inbound_config.map(inbound),
            outbound_config: trunk.outbound_config.map(outbound),
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
) -> Result<Json<TrunkOut>, ApiError> {
    let trunk = state.store.trunk(caller.organization, path.id.0).await.map_err(of(TRUNK))?;
    Ok(Json(trunk.into()))
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
    let (trunk, sequence) = state.store.create_trunk(caller.organization, body.check()?).await?;
    state.in_force(sequence).await?;
    Ok((super::location(format!("/core/trunks/{}", trunk.id)), Json(TrunkOut::from(trunk))))
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
    Body(body): Body<TrunkUpdateIn>,
) -> Result<Json<TrunkOut>, ApiError> {
    let change = body.check()?;
    let (trunk, sequence) =
        state.store.update_trunk(caller.organization, path.id.0, change, false).await.map_err(of(TRUNK))?;
    state.in_force(sequence).await?;
    Ok(Json(trunk.into()))
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
) -> Result<StatusCode, ApiError> {
    let sequence =
        state.store.delete_trunk(caller.organization, path.id.0, false).await.map_err(of(TRUNK))?;
    state.in_force(sequence).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn routes() -> Routes {
    operations!(list, get, create, update, delete)
}
