//! Handing a live call to somebody else.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use cluster::{CallError, Transfer, TransferTo};
use model::{E164, Invalid, TransferMode, TransferTarget};
use serde::Deserialize;
use store::StoreError;
use utoipa::ToSchema;

use super::conversations::{CONVERSATION, ConversationOut, ConversationPath};
use crate::ApiState;
use crate::auth::{Caller, ConversationsManage};
use crate::error::{ApiError, of};
use crate::extract::{At, Body};
use crate::routes::{Routes, operations};
use crate::wire::{ConversationIdText, Text, TransferModeText};

/// How long the edge may take to begin.
const BEGIN_LIMIT: Duration = Duration::from_secs(5);
/// Seconds a transfer may take, at least, at most and when not said.
const SECONDS: std::ops::RangeInclusive<u32> = 5..=120;
const DEFAULT_SECONDS: u32 = 30;
/// Digits of an extension at most; more are a number of the public network.
const MAX_EXTENSION: usize = 5;

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
    #[serde(default = "auto")]
    #[schema(required = false)]
    mode: TransferModeText,
    /// How long the target may take to answer, in seconds; after it the caller is back with the agent.
    #[serde(default = "seconds")]
    #[schema(minimum = 5, maximum = 120, default = 30)]
    timeout_s: u32,
}

/// The telephone number that a target stands for; an extension is none.
fn dialled(to: &TransferTarget) -> Option<E164> {
    match to {
        TransferTarget::Number(number) => Some(number.clone()),
        TransferTarget::Uri { user, .. } => {
            let digits = user.bytes().filter(u8::is_ascii_digit).count();
            E164::normalise(user).filter(|_| user.starts_with('+') || digits > MAX_EXTENSION)
        }
    }
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
    if !SECONDS.contains(&body.timeout_s) {
        return Err(fault("timeout_s", format!("must be from {} to {}", SECONDS.start(), SECONDS.end())));
    }
    let id = path.id.0;
    let stored = state.store.conversation(caller.organization, id).await.map_err(of(CONVERSATION))?;
    if stored.status.is_final() {
        return Err(ApiError::Conflict("The call is over.".to_owned()));
    }
    match &to {
        TransferTo::Target(target) => {
            if let Some(number) = dialled(target) {
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
    let call = match tokio::time::timeout(BEGIN_LIMIT, asked).await {
        Ok(Ok(call)) => call,
        Ok(Err(error @ (CallError::TargetRefused | CallError::NoWayOut))) => {
            return Err(ApiError::BadRequest(format!("The call is not transferred: {error}.")));
        }
        Ok(Err(
            error @ (CallError::NotLive
            | CallError::OtherNotLive
            | CallError::NotAnswered
            | CallError::Transferring),
        )) => {
            return Err(ApiError::Conflict(format!("The call is not transferred: {error}.")));
        }
        Ok(Err(error)) => {
            return Err(ApiError::Unavailable(format!("The call is not transferred: {error}.")));
        }
        Err(_) => {
            return Err(ApiError::Unavailable("The call edge did not answer in time.".to_owned()));
        }
    };
    Ok((StatusCode::ACCEPTED, Json(ConversationOut::of(&state, &caller, call).await?)))
}

pub(super) fn routes() -> Routes {
    operations!(transfer)
}
