//! The audio of a call: how it sounds, and digits into it.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use cluster::CallError;
use model::{CallQuality, Invalid};
use serde::Deserialize;
use utoipa::ToSchema;

use super::conversations::{CONVERSATION, ConversationOut, ConversationPath};
use crate::ApiState;
use crate::auth::{Caller, ConversationsManage, ConversationsReadSensitive};
use crate::error::{ApiError, of};
use crate::extract::{At, Body};
use crate::routes::{Routes, operations};

/// How long the edge may take to answer.
pub(super) const EDGE_LIMIT: Duration = Duration::from_secs(5);
/// The figures of a call that just ended are written down within a second.
const RECORD_LIMIT: Duration = Duration::from_secs(2);
const RECORD_POLL: Duration = Duration::from_millis(50);
/// Most digits and pauses in one request.
const MAX_DIGITS: usize = 64;
/// What a 404 speaks of.
const QUALITY: &str = "Quality";

/// Shows how a call sounds, while it lasts and after: loss, jitter, round trip and MOS, in all and for each second,
/// and whether one side hears nothing. Members: `mos`, `rtt_ms`, `received`, `sent` (what the other side's RTCP tells;
/// null when it tells nothing), `packets_sent`, `one_way_audio` (`verdict`, `cause`; null when both sides hear), and
/// `seconds`. A direction has `packets`, `expected`, `loss_percent`, `jitter_ms` and `mos`. 404 for a call without
/// audio.
#[utoipa::path(get, path = "/core/conversations/{id}/quality", operation_id = "get_conversation_quality",
    tag = "Conversations", params(ConversationPath),
    responses((status = 200, description = "The figures.", body = Object)))]
async fn quality(
    caller: Caller<ConversationsReadSensitive>,
    At(path): At<ConversationPath>,
    State(state): State<ApiState>,
) -> Result<Json<CallQuality>, ApiError> {
    let (organization, id) = (caller.organization, path.id.0);
    let call = state.store.conversation(organization, id).await.map_err(of(CONVERSATION))?;
    if !call.status.is_final() {
        match tokio::time::timeout(EDGE_LIMIT, state.cluster.call_quality(id)).await {
            Ok(Ok(quality)) => return Ok(Json(quality)),
            Ok(Err(CallError::NotLive)) => {}
            Ok(Err(CallError::NotAnswered | CallError::NoSip)) => return Err(ApiError::NotFound(QUALITY)),
            Ok(Err(error)) => {
                return Err(ApiError::Unavailable(format!("The call's quality is not known: {error}.")));
            }
            Err(_) => return Err(ApiError::Unavailable("The call edge did not answer in time.".to_owned())),
        }
    }
    let deadline = tokio::time::Instant::now() + RECORD_LIMIT;
    loop {
        if let Some(quality) = state.store.conversation_quality(organization, id).await? {
            return Ok(Json(quality));
        }
        if call.status.is_final() || tokio::time::Instant::now() >= deadline {
            return Err(ApiError::NotFound(QUALITY));
        }
        tokio::time::sleep(RECORD_POLL).await;
    }
}

/// Digits to send.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConversationDtmf)]
struct DtmfIn {
    /// `0`–`9`, `A`–`D`, `*` and `#`, each sent for a quarter of a second; `w` waits half a second, `,` two seconds.
    #[schema(min_length = 1, max_length = 64, pattern = "^[0-9A-D*#w,]{1,64}$", example = "1w23#")]
    digits: String,
}

/// Sends digits to the other side of a live call, as telephone-events (RFC 4733). Answers when they are under way.
#[utoipa::path(post, path = "/core/conversations/{id}/dtmf", operation_id = "send_conversation_dtmf",
    tag = "Conversations", params(ConversationPath), request_body = DtmfIn,
    responses((status = 200, description = "The call.", body = ConversationOut),
        (status = 409, description = "The call is not in progress, or its other side takes no telephone-events.",
            body = crate::error::ErrorOut)))]
async fn dtmf(
    caller: Caller<ConversationsManage>,
    At(path): At<ConversationPath>,
    State(state): State<ApiState>,
    Body(body): Body<DtmfIn>,
) -> Result<Json<ConversationOut>, ApiError> {
    let valid = |c: char| matches!(c, '0'..='9' | 'A'..='D' | '*' | '#' | 'w' | ',');
    if body.digits.is_empty() || body.digits.len() > MAX_DIGITS || !body.digits.chars().all(valid) {
        let rule = format!("must be 1 to {MAX_DIGITS} of 0-9, A-D, * and #, with w and , as pauses");
        return Err(ApiError::body(Invalid::field("digits", rule)));
    }
    let id = path.id.0;
    let call = state.store.conversation(caller.organization, id).await.map_err(of(CONVERSATION))?;
    if call.status.is_final() {
        return Err(ApiError::Conflict("The call is over.".to_owned()));
    }
    let call = match tokio::time::timeout(EDGE_LIMIT, state.cluster.send_digits(id, body.digits)).await {
        Ok(Ok(call)) => call,
        Ok(Err(
            error @ (CallError::NotLive | CallError::NotAnswered | CallError::NoDigits | CallError::NoSip),
        )) => {
            return Err(ApiError::Conflict(format!("No digit is sent: {error}.")));
        }
        Ok(Err(error)) => return Err(ApiError::Unavailable(format!("No digit is sent: {error}."))),
        Err(_) => return Err(ApiError::Unavailable("The call edge did not answer in time.".to_owned())),
    };
    Ok(Json(ConversationOut::of(&state, &caller, call).await?))
}

pub(super) fn routes() -> Routes {
    operations!(quality, dtmf)
}
