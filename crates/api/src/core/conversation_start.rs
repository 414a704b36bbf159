//! Placing a call.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use cluster::{CallError, Originate};
use model::{
    AgentConfig, AgentId, AgentVersionId, Conversation, ConversationId, ConversationStatus, DecisionId,
    DecisionRecord, Direction, EndedBy, Invalid, OrganizationId, RuleResult, Step, Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use store::{Record, StoreError, VersionRef};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use super::agent_config::{self, AgentConfigSchema};
use super::agent_versions::VERSION;
use super::agents::AGENT;
use super::conversations::{ConversationOut, TELEPHONE, close};
use crate::ApiState;
use crate::auth::{Caller, ConversationsManage};
use crate::error::{ApiError, of};
use crate::extract::Body;
use crate::routes::{Routes, operations};
use crate::wire::{AgentIdText, AgentVersionIdText, E164Text, Text, Wire};

/// How long the edge may take to accept a call.
const ORIGINATE_LIMIT: Duration = Duration::from_secs(5);

/// A call to place. Who speaks is exactly one of `agent_id`, `agent_version_id` and `agent_config`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConversationCreate)]
struct ConversationIn {
    channel: ChannelText,
    /// The callee.
    user_id: E164Text,
    /// The agent; its latest published version unless `version` names another.
    agent_id: Option<AgentIdText>,
    /// A version of `agent_id`.
    #[schema(minimum = 1)]
    version: Option<i64>,
    agent_version_id: Option<AgentVersionIdText>,
    #[schema(value_type = Option<AgentConfigSchema>)]
    agent_config: Option<Value>,
    /// The caller ID: a number of the organization.
    agent_number: Option<E164Text>,
    /// Handed to the agent.
    #[schema(value_type = Option<Object>)]
    initial_context: Option<Map<String, Value>>,
    /// Kept with the call.
    #[schema(value_type = Option<Object>)]
    custom_metadata: Option<Map<String, Value>>,
}

/// The channel of a call to place.
type ChannelText = Text<Channel>;

/// See [`ChannelText`].
#[derive(Debug, Clone, Copy)]
struct Channel;

impl Wire for Channel {
    const NAME: &'static str = "Channel";
    fn parse(text: &str) -> Result<Self, String> {
        if text == TELEPHONE {
            Ok(Self)
        } else {
            Err(format!("must be {TELEPHONE}; other channels are not offered"))
        }
    }
    fn show(&self) -> String {
        TELEPHONE.to_owned()
    }
    fn describe() -> Object {
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some([TELEPHONE])).build()
    }
}

/// A call that is being placed.
#[derive(Serialize, ToSchema)]
#[schema(as = ConversationCreated)]
struct ConversationCreatedOut {
    conversation: ConversationOut,
    /// Null: on the telephone the agent speaks once the call is answered.
    #[schema(required, value_type = Option<String>)]
    starting_message: (),
}

/// Who speaks, as the request names them.
enum Speaker {
    Agent(AgentId, Option<i64>),
    Version(AgentVersionId),
    Config(Box<AgentConfig>),
}

/// Who speaks, as found.
struct Resolved {
    agent_id: Option<AgentId>,
    version_id: Option<AgentVersionId>,
    config: AgentConfig,
}

impl ConversationIn {
    fn speaker(&self) -> Result<Speaker, ApiError> {
        let fault = |field: &str, rule: &str| ApiError::body(Invalid::field(field, rule));
        match (self.agent_id, self.agent_version_id, &self.agent_config) {
            (Some(Text(id)), None, None) => match self.version {
                Some(version) if version < 1 => Err(fault("version", "must be 1 or more")),
                version => Ok(Speaker::Agent(id, version)),
            },
            (None, _, _) if self.version.is_some() => Err(fault("version", "needs agent_id")),
            (None, Some(Text(id)), None) => Ok(Speaker::Version(id)),
            (None, None, Some(raw)) => {
                agent_config::read("agent_config", raw).map(|config| Speaker::Config(Box::new(config)))
            }
            (None, None, None) => Err(fault("agent_id", "or agent_version_id or agent_config is required")),
            (Some(_), _, _) => {
                Err(fault("agent_id", "cannot be given together with agent_version_id or agent_config"))
            }
            (None, Some(_), Some(_)) => {
                Err(fault("agent_version_id", "cannot be given together with agent_config"))
            }
        }
    }
}

async fn resolve(
    state: &ApiState,
    organization: OrganizationId,
    speaker: Speaker,
) -> Result<Resolved, ApiError> {
    let store = &state.store;
    let version = match speaker {
        Speaker::Config(config) => return Ok(Resolved { agent_id: None, version_id: None, config: *config }),
        Speaker::Version(id) => store.version_by_id(organization, id).await.map_err(of(VERSION))?,
        Speaker::Agent(id, number) => {
            store.agent(organization, id).await.map_err(of(AGENT))?;
            match number {
                Some(number) => store
                    .agent_version(organization, id, VersionRef::Number(number))
                    .await
                    .map_err(of(VERSION))?,
                None => {
                    store.latest_published(organization, id).await.map_err(of(AGENT))?.ok_or_else(|| {
                        ApiError::BadRequest(
                            "The agent has no published version: publish one, or name a version.".to_owned(),
                        )
                    })?
                }
            }
        }
    };
    Ok(Resolved { agent_id: Some(version.agent_id), version_id: Some(version.id), config: version.config })
}

/// A call that a rule of the organization forbids leaves a decision on its trunk, like one that a carrier refuses.
async fn note_refusal(state: &ApiState, call: &Conversation, error: &StoreError) {
    let (rule, reason, advice) = match error {
        StoreError::Forbidden(_) => (
            "allowed_destinations",
            "destination_not_allowed",
            "Add the beginning of the number to the organization's allowed_destinations, when it may be called.",
        ),
        StoreError::UsedUp { .. } => (
            "daily_call_limit",
            "daily_call_limit",
            "Raise the organization's daily_call_limit, or wait until 00:00 UTC.",
        ),
        _ => return,
    };
    let step = Step { rule: rule.into(), result: RuleResult::Fail, detail: error.to_string() };
    let from = call.agent_number.as_ref().map(ToString::to_string);
    let record = DecisionRecord {
        id: DecisionId::new(),
        at: call.created_at,
        node: state.node_name.clone(),
        organization_id: Some(call.organization_id),
        trunk_id: call.trunk_id,
        conversation_id: None,
        direction: Direction::Outbound,
        source: "api".to_owned(),
        from: from.clone().unwrap_or_default(),
        to: call.user_id.clone(),
        from_number: from,
        to_number: Some(call.user_id.clone()),
        steps: vec![step],
        status: 0,
        reason: reason.to_owned(),
        advice: advice.to_owned(),
        sip_call_id: None,
        messages: Vec::new(),
    };
    if let Err(error) = state.store.write_records(&[Record::Decision(record)]).await {
        tracing::error!(%error, "the refusal of a call could not be written down");
    }
}

/// Places a call. The answer comes once the call edge has taken it, before anything is known of its fate.
#[utoipa::path(post, path = "/core/conversations", operation_id = "create_conversation", tag = "Conversations",
    request_body = ConversationIn,
    responses((status = 202, description = "The call is being placed.", body = ConversationCreatedOut,
        headers(("Location" = String, description = "Path of the conversation."))),
        (status = 400, description = "No usable caller ID, a trunk without outbound_config, or no published version.",
            body = crate::error::ErrorOut),
        (status = 403, description = "The credential lacks the scope, or the organization's allowed_destinations do not cover user_id.",
            body = crate::error::ErrorOut),
        (status = 404, description = "The agent or version is not there.", body = crate::error::ErrorOut),
        (status = 429, description = "The credential has used up its rate limit, or the organization its daily_call_limit.",
            body = crate::error::ErrorOut),
        (status = 409, description = "The trunk is at its max_concurrent_calls or max_calls_per_second.",
            body = crate::error::ErrorOut)))]
async fn create(
    caller: Caller<ConversationsManage>,
    State(state): State<ApiState>,
    Body(body): Body<ConversationIn>,
) -> Result<impl IntoResponse, ApiError> {
    let organization = caller.organization;
    // The one channel there is, so nothing depends on it.
    let Text(Channel) = body.channel;
    let speaker = body.speaker()?;
    let Resolved { agent_id, version_id, config } = resolve(&state, organization, speaker).await?;
    let wanted = body.agent_number.map(|number| number.0);
    let (number, trunk) = state.store.caller_id(organization, version_id, agent_id, wanted).await?;
    if trunk.outbound_config.is_none() {
        return Err(ApiError::BadRequest(format!(
            "The trunk of {} has no outbound_config, so it places no calls.",
            number.phone_number
        )));
    }
    let now = Timestamp::now();
    let conversation = Conversation {
        id: ConversationId::new(),
        organization_id: organization,
        direction: Direction::Outbound,
        status: ConversationStatus::Triggered,
        user_id: body.user_id.0.to_string(),
        agent_id,
        agent_version_id: version_id,
        agent_number: Some(number.phone_number),
        trunk_id: Some(trunk.id),
        initial_context: body.initial_context.map(Value::Object),
        custom_metadata: body.custom_metadata.map(Value::Object),
        created_at: now,
        updated_at: now,
        ringing_at: None,
        answered_at: None,
        ended_at: None,
        ended_by: None,
        sip_call_id: None,
        sip_status: None,
        reason: None,
        codec: None,
        media_encryption: None,
        mos: None,
        recording: None,
        voicemail_beep_at: None,
        notes: Vec::new(),
        transcript: Vec::new(),
    };
    if let Err(error) = state.store.create_conversation(&conversation).await {
        note_refusal(&state, &conversation, &error).await;
        return Err(error.into());
    }
    state.cluster.call_changed(Arc::new(conversation.clone()));
    let call = Originate { conversation: conversation.clone(), trunk_id: trunk.id, config: Arc::new(config) };
    let refused = match tokio::time::timeout(ORIGINATE_LIMIT, state.cluster.originate(call)).await {
        Ok(Ok(())) => None,
        Ok(Err(error @ (CallError::TrunkFull | CallError::TrunkRate))) => {
            close(&state, conversation, EndedBy::System, "trunk_limit").await?;
            return Err(ApiError::Conflict(format!("The call was not placed: {error}; try again later.")));
        }
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("the call edge did not answer in time".to_owned()),
    };
    if let Some(why) = refused {
        close(&state, conversation, EndedBy::System, "not_accepted").await?;
        return Err(ApiError::Unavailable(format!("The call was not placed: {why}.")));
    }
    let location = super::location(format!("/core/conversations/{}", conversation.id));
    let conversation = ConversationOut::of(&state, &caller, conversation).await?;
    Ok((StatusCode::ACCEPTED, location, Json(ConversationCreatedOut { conversation, starting_message: () })))
}

pub(super) fn routes() -> Routes {
    operations!(create)
}
