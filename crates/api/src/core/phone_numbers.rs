//! Phone numbers. Their key is the number itself; the two slots are written by publish alone.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse;
use model::{E164, PhoneNumber};
use serde::{Deserialize, Serialize};
use store::{NewNumber, NumberFilter};
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::{IntoParams, ToSchema};

use crate::ApiState;
use crate::auth::{Caller, PhoneNumbersManage, PhoneNumbersRead};
use crate::error::{ApiError, of};
use crate::etag::{IfMatch, Tagged};
use crate::extract::{At, Body, Params};
use crate::pagination::{CursorText, LimitText, Listed, listed, page};
use crate::routes::{Routes, operations};
use crate::wire::{AgentVersionIdText, E164Text, OrganizationIdText, Text, TimeText, TrunkIdText, Wire};

/// What a 404 speaks of.
pub(super) const PHONE_NUMBER: &str = "Phone number";

/// A number to put on a trunk.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PhoneNumberCreate)]
struct PhoneNumberIn {
    phone_number: E164Text,
    /// A customer-owned trunk of the organization.
    trunk_id: TrunkIdText,
    /// Whether other agents of the organization may use it as caller ID.
    #[serde(default)]
    #[schema(default = false)]
    outbound_shareable: bool,
}

/// Changes to a number.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PhoneNumberUpdate)]
struct PhoneNumberUpdateIn {
    /// Whether other agents of the organization may use it as caller ID. Left out: it stays.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = bool, required = false)]
    outbound_shareable: Option<bool>,
}

/// Left out is `None`; `null` is no boolean.
fn given<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<bool>, D::Error> {
    bool::deserialize(d).map(Some)
}

/// A phone number.
#[derive(Serialize, ToSchema)]
#[schema(as = PhoneNumber)]
pub(super) struct PhoneNumberOut {
    phone_number: E164Text,
    organization_id: OrganizationIdText,
    trunk_id: TrunkIdText,
    /// The agent version that answers.
    #[schema(required)]
    inbound_agent_version_id: Option<AgentVersionIdText>,
    /// The agent version whose caller ID it is.
    #[schema(required)]
    outbound_agent_version_id: Option<AgentVersionIdText>,
    /// Whether other agents of the organization may use it as caller ID.
    outbound_shareable: bool,
    created_at: TimeText,
    updated_at: TimeText,
}

impl From<PhoneNumber> for PhoneNumberOut {
    fn from(number: PhoneNumber) -> Self {
        Self {
            phone_number: Text(number.phone_number),
            organization_id: Text(number.organization_id),
            trunk_id: Text(number.trunk_id),
            inbound_agent_version_id: number.inbound_agent_version_id.map(Text),
            outbound_agent_version_id: number.outbound_agent_version_id.map(Text),
            outbound_shareable: number.outbound_shareable,
            created_at: Text(number.created_at),
            updated_at: Text(number.updated_at),
        }
    }
}

/// A number in a path: with its `+` (percent-encoded or not) or bare.
type NumberKeyText = Text<NumberKey>;

/// See [`NumberKeyText`].
#[derive(Debug, Clone)]
struct NumberKey(E164);

impl Wire for NumberKey {
    const NAME: &'static str = "NumberKey";
    fn parse(text: &str) -> Result<Self, String> {
        let bare = text.bytes().next().is_some_and(|b| b.is_ascii_digit());
        let number = if bare { format!("+{text}") } else { text.to_owned() };
        number.parse().map(Self)
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
    fn describe() -> Object {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^\\+?[1-9][0-9]{1,14}$"))
            .description(Some("The E.164 number, its + as %2B or left out."))
            .build()
    }
}

/// A number's path.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct NumberPath {
    /// The number, its `+` as `%2B` or left out.
    phone_number: NumberKeyText,
}

/// Which numbers.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct NumberParams {
    /// Part of the number.
    phone_number: Option<String>,
    /// On this trunk.
    trunk_id: Option<TrunkIdText>,
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

/// Lists phone numbers, newest first.
#[utoipa::path(get, path = "/core/phone-numbers", operation_id = "list_phone_numbers", tag = "Phone numbers",
    params(NumberParams),
    responses((status = 200, description = "A page of numbers.", body = [PhoneNumberOut],
        headers(("X-Next-Cursor" = String, description = "Cursor of the next page, when there is one."),
                ("Link" = String, description = "The next page as rel=next, when there is one.")))))]
async fn list(
    caller: Caller<PhoneNumbersRead>,
    Params(params): Params<NumberParams>,
    State(state): State<ApiState>,
    uri: Uri,
) -> Result<Listed, ApiError> {
    let page = page(params.limit, params.cursor);
    let filter = NumberFilter {
        // A `+` that was not percent-encoded arrives as a space.
        phone_number: params.phone_number.map(|part| part.trim().to_owned()),
        trunk_id: params.trunk_id.map(|t| t.0),
        created_after: params.created_after.map(|t| t.0),
        created_before: params.created_before.map(|t| t.0),
        updated_after: params.updated_after.map(|t| t.0),
        updated_before: params.updated_before.map(|t| t.0),
    };
    let rows = state.store.numbers(caller.organization, filter, page).await?;
    // The store gives an organization's numbers distinct creation times, so the time alone is a place in the list.
    Ok(listed(uri, &page, rows, |number| (number.created_at, uuid::Uuid::nil()), PhoneNumberOut::from))
}

/// Shows one phone number.
#[utoipa::path(get, path = "/core/phone-numbers/{phone_number}", operation_id = "get_phone_number",
    tag = "Phone numbers", params(NumberPath),
    responses((status = 200, description = "The number.", body = PhoneNumberOut)))]
async fn get(
    caller: Caller<PhoneNumbersRead>,
    At(path): At<NumberPath>,
    State(state): State<ApiState>,
) -> Result<Tagged<PhoneNumberOut>, ApiError> {
    let number =
        state.store.number(caller.organization, &path.phone_number.0.0).await.map_err(of(PHONE_NUMBER))?;
    Ok(Tagged(number.updated_at, number.into()))
}

/// Puts a number on a customer-owned trunk.
#[utoipa::path(post, path = "/core/phone-numbers", operation_id = "create_phone_number", tag = "Phone numbers",
    request_body = PhoneNumberIn,
    responses((status = 200, description = "The number, in force on this node.", body = PhoneNumberOut,
        headers(("Location" = String, description = "Path of the number."))),
        (status = 400, description = "The trunk is managed, or the organization has all the numbers it may have.",
            body = crate::error::ErrorOut),
        (status = 404, description = "The trunk is not there.", body = crate::error::ErrorOut),
        (status = 409, description = "The number is taken.", body = crate::error::ErrorOut)))]
async fn create(
    caller: Caller<PhoneNumbersManage>,
    State(state): State<ApiState>,
    Body(body): Body<PhoneNumberIn>,
) -> Result<impl IntoResponse, ApiError> {
    let new = NewNumber {
        phone_number: body.phone_number.0,
        trunk_id: body.trunk_id.0,
        outbound_shareable: body.outbound_shareable,
        allow_managed: false,
    };
    let made = state.store.create_number(caller.organization, new).await;
    let (number, sequence) = made.map_err(of(super::trunks::TRUNK))?;
    state.in_force(sequence).await?;
    let path = format!("/core/phone-numbers/%2B{}", number.phone_number.as_str().trim_start_matches('+'));
    Ok((super::location(path), Tagged(number.updated_at, PhoneNumberOut::from(number))))
}

/// Changes whether other agents may use the number as caller ID.
#[utoipa::path(patch, path = "/core/phone-numbers/{phone_number}", operation_id = "update_phone_number",
    tag = "Phone numbers", params(NumberPath), request_body = PhoneNumberUpdateIn,
    responses((status = 200, description = "The number, in force on this node.", body = PhoneNumberOut)))]
async fn update(
    caller: Caller<PhoneNumbersManage>,
    At(path): At<NumberPath>,
    State(state): State<ApiState>,
    IfMatch(precondition): IfMatch,
    Body(body): Body<PhoneNumberUpdateIn>,
) -> Result<Tagged<PhoneNumberOut>, ApiError> {
    let (organization, key) = (caller.organization, path.phone_number.0.0);
    let Some(shareable) = body.outbound_shareable else {
        let number = state.store.number(organization, &key).await.map_err(of(PHONE_NUMBER))?;
        return Ok(Tagged(number.updated_at, number.into()));
    };
    let changed = state.store.update_number(organization, &key, shareable, &precondition).await;
    let (number, sequence) = changed.map_err(of(PHONE_NUMBER))?;
    state.in_force(sequence).await?;
    Ok(Tagged(number.updated_at, number.into()))
}

/// Takes a number off its trunk.
#[utoipa::path(delete, path = "/core/phone-numbers/{phone_number}", operation_id = "delete_phone_number",
    tag = "Phone numbers", params(NumberPath),
    responses((status = 204, description = "It is gone."),
        (status = 400, description = "Its trunk is managed.", body = crate::error::ErrorOut)))]
async fn delete(
    caller: Caller<PhoneNumbersManage>,
    At(path): At<NumberPath>,
    State(state): State<ApiState>,
    IfMatch(precondition): IfMatch,
) -> Result<StatusCode, ApiError> {
    let key = path.phone_number.0.0;
    let gone = state.store.delete_number(caller.organization, &key, false, &precondition).await;
    let sequence = gone.map_err(of(PHONE_NUMBER))?;
    state.in_force(sequence).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn routes() -> Routes {
    operations!(list, get, create, update, delete).parameter::<NumberKeyText>()
}
