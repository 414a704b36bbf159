//! What is asked of a live call: hand it to somebody else, and play something into it.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use cluster::{CallError, Transfer, TransferTo};
use model::{
    Conversation, ConversationId, Invalid, OrganizationId, Sound, TRANSFER_SECONDS, Tone, TransferMode,
    TransferTarget,
};
use serde::Deserialize;
use store::StoreError;
use utoipa::{IntoParams, ToSchema};

use super::agent_config::ToneSchema;
use super::conversations::{CONVERSATION, ConversationOut, ConversationPath};
use crate::ApiState;
use crate::auth::{Caller, ConversationsManage};
use crate::error::{ApiError, of};
use crate::extract::{At, Body};
use crate::routes::{Routes, operations};
use crate::wire::{ConversationIdText, Text, TransferModeText, TransferStepText};

/// How long the edge may take to begin.
const BEGIN_LIMIT: Duration = Duration::from_secs(5);
/// Seconds a transfer may take when not said.
const DEFAULT_SECONDS: u32 = 30;

fn auto() -> TransferModeText {
    Text(TransferMode::Auto)
}

fn seconds() -> u32 {
    DEFAULT_SECONDS
}

/// Who gets the call, and how.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConversationTransfer)]
struct TransferIn {
    /// An E.164 number, reached by the trunk of the call; or a SIP URI of user and host, whose host is the address of
    /// one of the organization's trunks.
    #[serde(default)]
    #[schema(max_length = 320, example = "+14155550199")]
    to: Option<String>,
    /// In the place of `to`: another call of the organization that is in progress, whose other side gets the caller, as
    /// after a consultation. `refer` asks the carrier to replace that call (REFER with Replaces, RFC 3891), `bridge`
    /// joins the audio of both calls, `auto` refers when both are on one trunk and joins them when that fails.
    #[serde(default)]
    to_conversation: Option<ConversationIdText>,
    /// `refer` asks the carrier to call the target itself (REFER, RFC 3515) and follows its reports; `bridge` places a
    /// second call by the trunk's outbound_config and joins the audio of both; `auto` refers, and bridges when the
    /// carrier refuses that or reports that it failed. A target that is busy or does not answer is not called twice.
    /// `warm` places a second call on which the agent speaks with the target while the caller hears music, and
    /// `conference` one that joins the caller and the agent; both go on with `…/transfer/{step}`, and need an agent
    /// that is a bot.
    #[serde(default = "auto")]
    #[schema(required = false)]
    mode: TransferModeText,
    /// How long the target may take to answer, in seconds; after it the caller is back with the agent.
    #[serde(default = "seconds")]
    #[schema(minimum = 5, maximum = 120, default = 30)]
    timeout_s: u32,
}

/// Begins to hand a live call to somebody else. The agent goes on with the caller until the target has answered; when
/// nobody does, the caller stays with the agent. A transfer that succeeds ends the conversation as `transferred`: with
/// `refer` as soon as the carrier reports success, with `bridge` when the bridged call ends. One that fails leaves a
/// sentence in the conversation's `notes`; both leave a decision record.
#[utoipa::path(post, path = "/core/conversations/{id}/transfer", operation_id = "transfer_conversation",
    tag = "Conversations", params(ConversationPath), request_body = TransferIn,
    responses((status = 202, description = "The transfer has begun.", body = ConversationOut),
        (status = 400, description = "The target is none that this organization may reach, or the call's trunk has no outbound_config to bridge by.",
            body = crate::error::ErrorOut),
        (status = 403, description = "The credential lacks the scope, or the organization's allowed_destinations do not cover the target.",
            body = crate::error::ErrorOut),
        (status = 429, description = "The credential has used up its rate limit, or the organization its daily_call_limit.",
            body = crate::error::ErrorOut),
        (status = 409, description = "The call is not in progress, or is being transferred already.",
            body = crate::error::ErrorOut)))]
async fn transfer(
    caller: Caller<ConversationsManage>,
    At(path): At<ConversationPath>,
    State(state): State<ApiState>,
    Body(body): Body<TransferIn>,
) -> Result<impl IntoResponse, ApiError> {
    let fault = |field: &str, rule: String| ApiError::body(Invalid::field(field, rule));
    let to = match (&body.to, body.to_conversation) {
        (Some(to), None) => {
            TransferTo::Target(to.parse::<TransferTarget>().map_err(|rule| fault("to", rule))?)
        }
        (None, Some(other)) => TransferTo::Call(other.0),
        _ => return Err(fault("to", "must be set, or to_conversation, and not both".to_owned())),
    };
    if !TRANSFER_SECONDS.contains(&body.timeout_s) {
        let (least, most) = (TRANSFER_SECONDS.start(), TRANSFER_SECONDS.end());
        return Err(fault("timeout_s", format!("must be from {least} to {most}")));
    }
    let id = path.id.0;
    live(&state, caller.organization, id).await?;
    match &to {
        TransferTo::Target(target) => {
            if let Some(number) = target.number() {
                state.store.admit_call_out(caller.organization, &number).await?;
            }
        }
        TransferTo::Call(other) => {
            let found = state.store.conversation(caller.organization, *other).await;
            found.map_err(|error| match error {
                StoreError::NotFound => {
                    fault("to_conversation", "must name another conversation of this organization".to_owned())
                }
                error => error.into(),
            })?;
        }
    }
    let timeout = Duration::from_secs(body.timeout_s.into());
    let asked = state.cluster.transfer_call(id, Transfer { to, mode: body.mode.0, timeout });
    let call = begun(tokio::time::timeout(BEGIN_LIMIT, asked).await, "The call is not transferred")?;
    Ok((StatusCode::ACCEPTED, Json(ConversationOut::of(&state, &caller, call).await?)))
}

/// What the edge says to something asked of a call.
pub(super) fn begun(
    answer: Result<Result<Conversation, CallError>, tokio::time::error::Elapsed>,
    not: &str,
) -> Result<Conversation, ApiError> {
    match answer {
        Ok(Ok(call)) => Ok(call),
        Ok(Err(error @ (CallError::TargetRefused | CallError::NoWayOut))) => {
            Err(ApiError::BadRequest(format!("{not}: {error}.")))
        }
        Ok(Err(
            error @ (CallError::NotLive
            | CallError::OtherNotLive
            | CallError::NotAnswered
            | CallError::Transferring
            | CallError::NoBot
            | CallError::NoTarget
            | CallError::NoSip),
        )) => Err(ApiError::Conflict(format!("{not}: {error}."))),
        Ok(Err(error)) => Err(ApiError::Unavailable(format!("{not}: {error}."))),
        Err(_) => Err(ApiError::Unavailable("The call edge did not answer in time.".to_owned())),
    }
}

/// A step of a transfer.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct StepPath {
    /// The conversation.
    id: ConversationIdText,
    /// `complete`: the agent leaves, the caller and the target speak with each other. `cancel`: the target is hung up
    /// on, the caller is back with the agent. `conference`: all three speak with each other.
    #[param(inline)]
    step: TransferStepText,
}

/// Goes on with a `warm` transfer or a `conference` whose target has answered; `cancel` also while it rings. An agent
/// that hangs up completes the transfer, a target that hangs up leaves the caller to the agent.
#[utoipa::path(post, path = "/core/conversations/{id}/transfer/{step}", operation_id = "continue_transfer",
    tag = "Conversations", params(StepPath),
    responses((status = 200, description = "The call.", body = ConversationOut),
        (status = 409, description = "The call is not in progress, or no target is on the line.",
            body = crate::error::ErrorOut)))]
async fn step(
    caller: Caller<ConversationsManage>,
    At(path): At<StepPath>,
    State(state): State<ApiState>,
) -> Result<Json<ConversationOut>, ApiError> {
    let id = path.id.0;
    live(&state, caller.organization, id).await?;
    let asked = state.cluster.transfer_step(id, path.step.0);
    let call = begun(tokio::time::timeout(BEGIN_LIMIT, asked).await, "The transfer stays as it is")?;
    Ok(Json(ConversationOut::of(&state, &caller, call).await?))
}

/// What is to be played.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConversationPlay)]
struct PlayIn {
    /// WAV file, relative to the node's audio directory.
    #[schema(min_length = 1, max_length = 1024)]
    file: Option<String>,
    /// Tones, one after the other.
    #[schema(value_type = Option<Vec<ToneSchema>>, min_items = 1, max_items = 1_000)]
    tones: Option<Vec<Tone>>,
}

/// Plays a file or tones to the caller, behind what the agent has said already; what the agent says next waits. At
/// most two minutes may wait. Needs an agent that is a bot, which is told the outcome.
#[utoipa::path(post, path = "/core/conversations/{id}/play", operation_id = "play_conversation",
    tag = "Conversations", params(ConversationPath), request_body = PlayIn,
    responses((status = 202, description = "The agent's link is to play it.", body = ConversationOut),
        (status = 409, description = "The call is not in progress, or its agent is no bot.",
            body = crate::error::ErrorOut)))]
async fn play(
    caller: Caller<ConversationsManage>,
    At(path): At<ConversationPath>,
    State(state): State<ApiState>,
    Body(body): Body<PlayIn>,
) -> Result<impl IntoResponse, ApiError> {
    let sound = Sound { file: body.file, tones: body.tones };
    sound.check().map_err(ApiError::body)?;
    let id = path.id.0;
    live(&state, caller.organization, id).await?;
    let asked = state.cluster.play(id, sound);
    let call = begun(tokio::time::timeout(BEGIN_LIMIT, asked).await, "Nothing is played")?;
    Ok((StatusCode::ACCEPTED, Json(ConversationOut::of(&state, &caller, call).await?)))
}

/// Whether a call may be spoken of and is not over.
async fn live(state: &ApiState, organization: OrganizationId, id: ConversationId) -> Result<(), ApiError> {
    let stored = state.store.conversation(organization, id).await.map_err(of(CONVERSATION))?;
    if stored.status.is_final() {
        return Err(ApiError::Conflict("The call is over.".to_owned()));
    }
    Ok(())
}

pub(super) fn routes() -> Routes {
    operations!(transfer, step, play)
}
