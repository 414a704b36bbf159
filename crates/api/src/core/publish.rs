//! Publishing a version: it becomes the agent's latest, and numbers are pointed at it.

use axum::Json;
use axum::extract::State;
use model::{E164, Invalid};
use serde::Deserialize;
use store::{Publish, PublishDirection};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use super::agent_versions::{VERSION, VersionPath};
use super::agents::AGENT;
use super::phone_numbers::{PHONE_NUMBER, PhoneNumberOut};
use crate::ApiState;
use crate::auth::{AgentsManage, Caller};
use crate::error::{ApiError, of};
use crate::extract::{At, OptionalBody};
use crate::routes::{Routes, operations};
use crate::wire::{E164Text, Text, Wire};

/// Most numbers in one publish.
const MAX_NUMBERS: usize = 1_000;

/// Which numbers to point at the version.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PublishRequest)]
struct PublishIn {
    /// Numbers whose slots get the version.
    #[schema(max_items = 1_000)]
    phone_numbers: Option<Vec<E164Text>>,
    /// Numbers whose slots are cleared where they hold a version of this agent.
    #[schema(max_items = 1_000)]
    unassign_phone_numbers: Option<Vec<E164Text>>,
    /// The slots; `inbound` when left out.
    #[schema(value_type = SlotsText, required = false)]
    direction: Option<SlotsText>,
}

/// Which of a number's slots.
type SlotsText = Text<Slots>;

/// See [`SlotsText`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slots(PublishDirection);

impl Slots {
    const ALL: [(&'static str, PublishDirection); 3] = [
        ("inbound", PublishDirection::Inbound),
        ("outbound", PublishDirection::Outbound),
        ("both", PublishDirection::Both),
    ];
}

impl Wire for Slots {
    const NAME: &'static str = "PublishDirection";
    fn parse(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(name, _)| *name == text);
        found
            .map(|(_, slots)| Self(*slots))
            .ok_or_else(|| "must be one of inbound, outbound, both".to_owned())
    }
    fn show(&self) -> String {
        Self::ALL.iter().find(|(_, slots)| *slots == self.0).map_or("inbound", |(name, _)| name).to_owned()
    }
    fn describe() -> Object {
        let names = Self::ALL.iter().map(|(name, _)| *name);
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(names))
            .default(Some("inbound".into()))
            .description(Some("Which of a number's slots."))
            .build()
    }
}

fn numbers(field: &str, list: Option<Vec<E164Text>>) -> Result<Vec<E164>, ApiError> {
    let list = list.unwrap_or_default();
    if list.len() > MAX_NUMBERS {
        let rule = format!("has {} entries; at most {MAX_NUMBERS} are allowed", list.len());
        return Err(ApiError::body(Invalid::field(field, rule)));
    }
    Ok(list.into_iter().map(|number| number.0).collect())
}

/// Publishes a version and points numbers at it, all or nothing. A published version may be published again, which
/// makes it the latest once more.
#[utoipa::path(post, path = "/core/agents/{id}/versions/{version}/publish", operation_id = "publish_agent_version",
    tag = "Agents", params(VersionPath), request_body = Option<PublishIn>,
    responses((status = 200, description = "The numbers that changed, each once, in force on this node.",
        body = [PhoneNumberOut])))]
async fn publish(
    caller: Caller<AgentsManage>,
    At(path): At<VersionPath>,
    State(state): State<ApiState>,
    OptionalBody(body): OptionalBody<PublishIn>,
) -> Result<Json<Vec<PhoneNumberOut>>, ApiError> {
    let body = body.unwrap_or_default();
    let request = Publish {
        phone_numbers: numbers("phone_numbers", body.phone_numbers)?,
        unassign: numbers("unassign_phone_numbers", body.unassign_phone_numbers)?,
        direction: body.direction.map_or(PublishDirection::Inbound, |slots| slots.0.0),
    };
    let (organization, id) = (caller.organization, path.id.0);
    // Looked up one by one so that a 404 says what is missing; publish itself is one transaction.
    state.store.agent(organization, id).await.map_err(of(AGENT))?;
    let version =
        state.store.agent_version(organization, id, path.version.0.into()).await.map_err(of(VERSION))?;
    let published = state.store.publish(organization, id, version.version, request).await;
    let (numbers, sequence) = published.map_err(of(PHONE_NUMBER))?;
    state.in_force(sequence).await?;
    Ok(Json(numbers.into_iter().map(PhoneNumberOut::from).collect()))
}

pub(super) fn routes() -> Routes {
    operations!(publish)
}
