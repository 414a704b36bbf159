//! Conversations: calls, past and present.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use cluster::CallError;
use model::call::{Speaker, Turn};
use model::{AgentId, Conversation, ConversationStatus, EndedBy, OrganizationId, Scope, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{ConversationFilter, Record};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use crate::ApiState;
use crate::auth::{Caller, ConversationsManage, ConversationsRead};
use crate::error::{ApiError, of};
use crate::etag::Tagged;
use crate::extract::{At, Params};
use crate::pagination::{CursorText, LimitText, Listed, listed, page};
use crate::routes::{Routes, operations};
use crate::wire::{
    AgentIdText, AgentVersionIdText, ContainmentText, ConversationIdText, ConversationStatusText, CountText,
    DirectionText, E164Text, EndedByText, OrganizationIdText, Text, TimeText, TrunkIdText, Wire,
};

/// What a 404 speaks of.
pub(super) const CONVERSATION: &str = "Conversation";

/// The one channel there is.
pub(super) const TELEPHONE: &str = "telephone";

/// How long the edge may take to end a call before the answer shows the call as it stands.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Records follow a call's end within a second; a call that is neither live nor on record as over after this long was
/// lost.
const RECORD_LIMIT: Duration = Duration::from_secs(2);

/// Time between looks at the record.
const RECORD_POLL: Duration = Duration::from_millis(50);

/// Who speaks.
#[derive(Clone, Serialize, ToSchema)]
#[schema(as = ConversationAgent)]
struct AgentOut {
    id: AgentIdText,
    name: String,
}

/// A call.
#[derive(Serialize, ToSchema)]
#[schema(as = Conversation)]
pub(super) struct ConversationOut {
    id: ConversationIdText,
    organization_id: OrganizationIdText,
    direction: DirectionText,
    /// Always `telephone`.
    channel: &'static str,
    status: ConversationStatusText,
    /// The remote party as E.164, or as received when it is no number.
    user_id: String,
    /// Null when the config was given inline.
    #[schema(required)]
    agent_id: Option<AgentIdText>,
    #[schema(required)]
    agent_version_id: Option<AgentVersionIdText>,
    /// Our number: the dialled one inbound, the caller ID outbound. Null for a call to an agent's URI.
    #[schema(required)]
    agent_number: Option<E164Text>,
    /// Null for a call to an agent's URI.
    #[schema(required)]
    trunk_id: Option<TrunkIdText>,
    /// Always null: no call comes from a web widget.
    #[schema(required, value_type = Option<String>)]
    web_widget_id: (),
    /// Whole seconds from answer to end; null before both.
    #[schema(required)]
    duration: Option<i64>,
    /// Turns of the remote party; null where the runtime writes nothing down.
    #[schema(required)]
    user_turn_count: Option<i64>,
    created_at: TimeText,
    updated_at: TimeText,
    #[schema(required)]
    agent: Option<AgentOut>,
    /// First 18x.
    #[schema(required)]
    ringing_at: Option<TimeText>,
    /// The 2xx.
    #[schema(required)]
    answered_at: Option<TimeText>,
    #[schema(required)]
    ended_at: Option<TimeText>,
    #[schema(required)]
    ended_by: Option<EndedByText>,
    #[schema(required)]
    sip_call_id: Option<String>,
    /// Final SIP status of the INVITE.
    #[schema(required)]
    sip_status: Option<u16>,
    /// Why it ended.
    #[schema(required)]
    reason: Option<String>,
    /// Codec name as in SDP.
    #[schema(required)]
    codec: Option<String>,
    /// `none` or the SRTP suite.
    #[schema(required)]
    media_encryption: Option<String>,
    /// Mean opinion score of the worse direction (ITU-T G.107), 1 to 4.5; null until the call is over.
    #[schema(required)]
    mos: Option<f64>,
    /// What to know of this call, for example which noise cancellation was applied.
    notes: Vec<String>,
    /// Only for `conversations:read_sensitive`. Null: no runtime makes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = Option<String>)]
    summary: Sensitive,
    /// Only for `conversations:read_sensitive`. What the agent was given at the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = Option<Object>)]
    initial_context: Sensitive,
    /// Only for `conversations:read_sensitive`. The customer's own data.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = Option<Object>)]
    custom_metadata: Sensitive,
    /// Only for `conversations:read_sensitive`. What was said, in order: `role` (`user` or `agent`), `text`, `at`,
    /// `interrupted`. Null where the runtime writes nothing down.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = Option<Vec<Object>>)]
    conversation: Sensitive,
    /// Only for `conversations:read_sensitive`. `format`, `sample_rate`, `channels`, `started_at`, `duration_ms` and
    /// `pauses` (`paused_at`, `resumed_at`, `position_ms`: where in the recording something is left out) of the
    /// recording; null when the call is not recorded. `more_pauses` counts those beyond the 256 that are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = Option<Object>)]
    recording_details: Sensitive,
    /// When the beep of a voicemail box was heard last; null when none was, or none was listened for.
    #[schema(required)]
    voicemail_beep_at: Option<TimeText>,
}

fn turn(turn: &Turn) -> Value {
    json!({
        "role": turn.speaker.as_str(), "text": turn.text, "at": Text(turn.at), "interrupted": turn.interrupted,
    })
}

/// A field that is left out for callers without `conversations:read_sensitive`; `Some(Null)` is shown as null.
type Sensitive = Option<Value>;

impl ConversationOut {
    pub(super) fn new(call: Conversation, agent_name: Option<String>, sensitive: bool) -> Self {
        let duration = call.duration();
        let agent = call.agent_id.zip(agent_name).map(|(id, name)| AgentOut { id: Text(id), name });
        let users = call.transcript.iter().filter(|turn| turn.speaker == Speaker::User).count();
        let user_turn_count = (!call.transcript.is_empty()).then(|| i64::try_from(users).unwrap_or(i64::MAX));
        let only = |value: Option<Value>| sensitive.then(|| value.unwrap_or(Value::Null));
        Self {
            id: Text(call.id),
            organization_id: Text(call.organization_id),
            direction: Text(call.direction),
            channel: TELEPHONE,
            status: Text(call.status),
            user_id: call.user_id,
            agent_id: call.agent_id.map(Text),
            agent_version_id: call.agent_version_id.map(Text),
            agent_number: call.agent_number.map(Text),
            trunk_id: call.trunk_id.map(Text),
            web_widget_id: (),
            duration,
            user_turn_count,
            created_at: Text(call.created_at),
            updated_at: Text(call.updated_at),
            agent,
            ringing_at: call.ringing_at.map(Text),
            answered_at: call.answered_at.map(Text),
            ended_at: call.ended_at.map(Text),
            ended_by: call.ended_by.map(Text),
            sip_call_id: call.sip_call_id,
            sip_status: call.sip_status,
            reason: call.reason,
            codec: call.codec,
            media_encryption: call.media_encryption,
            mos: call.mos,
            notes: call.notes,
            summary: only(None),
            initial_context: only(call.initial_context),
            custom_metadata: only(call.custom_metadata),
            conversation: only(
                (!call.transcript.is_empty())
                    .then(|| call.transcript.iter().map(turn).collect::<Vec<_>>().into()),
            ),
            voicemail_beep_at: call.voicemail_beep_at.map(Text),
            recording_details: only(call.recording.and_then(|r| serde_json::to_value(r).ok())),
        }
    }

    /// One call for this caller, with its agent's name.
    pub(super) async fn of<R>(
        state: &ApiState,
        caller: &Caller<R>,
        call: Conversation,
    ) -> Result<Self, ApiError> {
        let name = match call.agent_id {
            Some(id) => agent_name(state, caller.organization, id).await?,
            None => None,
        };
        Ok(Self::new(call, name, caller.may(Scope::ConversationsReadSensitive)))
    }
}

/// The agent's name; `None` once it is deleted.
async fn agent_name(
    state: &ApiState,
    organization: OrganizationId,
    id: AgentId,
) -> Result<Option<String>, ApiError> {
    match state.store.agent(organization, id).await {
        Ok(agent) => Ok(Some(agent.name)),
        Err(store::StoreError::NotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A conversation's path.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ConversationPath {
    /// The conversation.
    pub(super) id: ConversationIdText,
}

/// Which conversations.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ConversationParams {
    direction: Option<DirectionText>,
    /// Only `telephone` has any.
    channel: Option<String>,
    status: Option<ConversationStatusText>,
    agent_id: Option<AgentIdText>,
    agent_version_id: Option<AgentVersionIdText>,
    trunk_id: Option<TrunkIdText>,
    /// Part of the remote party.
    user_id: Option<String>,
    /// Our number.
    agent_number: Option<NumberParamText>,
    /// At least so many seconds long.
    duration_above: Option<CountText>,
    /// At most so many seconds long.
    duration_below: Option<CountText>,
    /// Those whose own data contains this JSON object.
    custom_metadata: Option<ContainmentText>,
    /// Made at or after.
    created_after: Option<TimeText>,
    /// Made at or before.
    created_before: Option<TimeText>,
    limit: Option<LimitText>,
    cursor: Option<CursorText>,
}

/// A number in a query: a `+` that was not percent-encoded arrives as a space.
type NumberParamText = Text<NumberParam>;

/// See [`NumberParamText`].
#[derive(Debug, Clone)]
struct NumberParam(model::E164);

impl Wire for NumberParam {
    const NAME: &'static str = "NumberParam";
    fn parse(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix(['+', ' ']).unwrap_or(text);
        format!("+{digits}").parse().map(Self)
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
    fn describe() -> utoipa::openapi::schema::Object {
        let mut schema = <model::E164 as Wire>::describe();
        schema.pattern = Some("^\\+?[1-9][0-9]{1,14}$".to_owned());
        schema
    }
}

/// Lists calls, newest first.
#[utoipa::path(get, path = "/core/conversations", operation_id = "list_conversations", tag = "Conversations",
    params(ConversationParams),
    responses((status = 200, description = "A page of calls, without their sensitive fields.", body = [ConversationOut],
        headers(("X-Next-Cursor" = String, description = "Cursor of the next page, when there is one."),
                ("Link" = String, description = "The next page as rel=next, when there is one.")))))]
async fn list(
    caller: Caller<ConversationsRead>,
    Params(params): Params<ConversationParams>,
    State(state): State<ApiState>,
    uri: Uri,
) -> Result<Listed, ApiError> {
    let organization = caller.organization;
    let page = page(params.limit, params.cursor);
    if params.channel.is_some_and(|channel| channel != TELEPHONE) {
        return Ok(listed(uri, &page, Vec::new(), row_key, |call: Conversation| {
            ConversationOut::new(call, None, false)
        }));
    }
    let filter = ConversationFilter {
        direction: params.direction.map(|t| t.0),
        status: params.status.map(|t| t.0),
        agent_id: params.agent_id.map(|t| t.0),
        agent_version_id: params.agent_version_id.map(|t| t.0),
        trunk_id: params.trunk_id.map(|t| t.0),
        user_id: params.user_id.map(|part| part.trim().to_owned()),
        agent_number: params.agent_number.map(|t| t.0.0),
        duration_above: params.duration_above.map(|t| t.0.0),
        duration_below: params.duration_below.map(|t| t.0.0),
        custom_metadata: params.custom_metadata.map(|t| t.0.0),
        created_after: params.created_after.map(|t| t.0),
        created_before: params.created_before.map(|t| t.0),
    };
    let rows = state.store.conversations(organization, filter, page).await?;
    let mut names = std::collections::BTreeMap::new();
    for id in rows.iter().filter_map(|call| call.agent_id) {
        if let std::collections::btree_map::Entry::Vacant(entry) = names.entry(id) {
            entry.insert(agent_name(&state, organization, id).await?);
        }
    }
    let name = |call: &Conversation| names.get(&call.agent_id?)?.clone();
    Ok(listed(uri, &page, rows, row_key, |call| {
        let name = name(&call);
        ConversationOut::new(call, name, false)
    }))
}

fn row_key(call: &Conversation) -> (Timestamp, uuid::Uuid) {
    (call.created_at, call.id.0)
}

/// Shows one call. `summary`, `initial_context`, `custom_metadata`, `conversation` and `recording_details` are there
/// only for `conversations:read_sensitive`.
#[utoipa::path(get, path = "/core/conversations/{id}", operation_id = "get_conversation", tag = "Conversations",
    params(ConversationPath),
    responses((status = 200, description = "The call.", body = ConversationOut)))]
async fn get(
    caller: Caller<ConversationsRead>,
    At(path): At<ConversationPath>,
    State(state): State<ApiState>,
) -> Result<Tagged<ConversationOut>, ApiError> {
    let call = state.store.conversation(caller.organization, path.id.0).await.map_err(of(CONVERSATION))?;
    Ok(Tagged(call.updated_at, ConversationOut::of(&state, &caller, call).await?))
}

/// Ends a call: CANCEL before answer, BYE after. Ending a call that is over changes nothing.
#[utoipa::path(post, path = "/core/conversations/{id}/end", operation_id = "end_conversation", tag = "Conversations",
    params(ConversationPath),
    responses((status = 200, description = "The call.", body = ConversationOut)))]
async fn end(
    caller: Caller<ConversationsManage>,
    At(path): At<ConversationPath>,
    State(state): State<ApiState>,
) -> Result<Json<ConversationOut>, ApiError> {
    let (organization, id) = (caller.organization, path.id.0);
    let stored = state.store.conversation(organization, id).await.map_err(of(CONVERSATION))?;
    let call = if stored.status.is_final() {
        stored
    } else {
        match tokio::time::timeout(END_LIMIT, state.cluster.end_call(id)).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(CallError::NotLive)) => settle(&state, stored).await?,
            Ok(Err(error)) => {
                return Err(ApiError::Unavailable(format!("The call could not be ended: {error}.")));
            }
            Err(_) => state.store.conversation(organization, id).await.map_err(of(CONVERSATION))?,
        }
    };
    Ok(Json(ConversationOut::of(&state, &caller, call).await?))
}

/// A call the edge does not have: its final record is on its way, or it was lost and is closed here.
async fn settle(state: &ApiState, stored: Conversation) -> Result<Conversation, ApiError> {
    let deadline = Instant::now() + RECORD_LIMIT;
    loop {
        let call =
            state.store.conversation(stored.organization_id, stored.id).await.map_err(of(CONVERSATION))?;
        if call.status.is_final() {
            return Ok(call);
        }
        if Instant::now() >= deadline {
            return close(state, call, EndedBy::Api, "not_live").await;
        }
        tokio::time::sleep(RECORD_POLL).await;
    }
}

/// Closes a call that the edge does not have: cancelled before anything was heard of it, failed after.
pub(super) async fn close(
    state: &ApiState,
    mut call: Conversation,
    by: EndedBy,
    reason: &str,
) -> Result<Conversation, ApiError> {
    let now = Timestamp::now();
    call.status = if call.status == ConversationStatus::Triggered && by == EndedBy::Api {
        ConversationStatus::Cancelled
    } else {
        ConversationStatus::Failed
    };
    call.ended_at = Some(now);
    call.ended_by = Some(by);
    call.reason = Some(reason.to_owned());
    call.updated_at = now;
    let (organization, id) = (call.organization_id, call.id);
    state.store.write_records(&[Record::Conversation(call)]).await?;
    // Read back: had the true end been written in between, it stands.
    let call = state.store.conversation(organization, id).await.map_err(of(CONVERSATION))?;
    state.cluster.call_changed(std::sync::Arc::new(call.clone()));
    Ok(call)
}

pub(super) fn routes() -> Routes {
    operations!(list, get, end).parameter::<NumberParamText>()
}
