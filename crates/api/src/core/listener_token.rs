//! The token that lets its holder listen to a live call, and do nothing else.

use axum::Json;
use axum::extract::State;
use model::{Invalid, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::conversations::{CONVERSATION, ConversationPath};
use crate::ApiState;
use crate::auth::{Caller, ConversationsReadSensitive};
use crate::error::{ApiError, of};
use crate::extract::{At, OptionalBody};
use crate::listen::{PATH, Pass};
use crate::routes::{Routes, operations};
use crate::wire::{Text, TimeText};

/// How long a token may be good, and is when nothing else is asked, in seconds.
const SECONDS: std::ops::RangeInclusive<u32> = 1..=3_600;
const DEFAULT_SECONDS: u32 = 600;

/// How long to listen.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ListenerTokenIn)]
struct ListenerTokenIn {
    /// Seconds until the token expires, and the listening with it.
    #[serde(default)]
    #[schema(required = false, minimum = 1, maximum = 3600, default = 600)]
    expires_in_s: Option<u32>,
}

/// A listener token.
#[derive(Serialize, ToSchema)]
#[schema(as = ListenerToken)]
struct ListenerTokenOut {
    /// Good for this call's audio alone.
    token: String,
    /// Where to open the WebSocket, below the API's own address.
    #[schema(example = "/listen?token=lt_…")]
    url: String,
    /// The listening ends then, or with the call.
    expires_at: TimeText,
}

/// Makes a token that lets its holder listen to a live call (`GET /listen`) and do nothing else. It ends with the call,
/// when it expires, and when the credential that asked for it is revoked.
#[utoipa::path(post, path = "/core/conversations/{id}/listener-token", operation_id = "create_listener_token",
    tag = "Conversations", params(ConversationPath), request_body = Option<ListenerTokenIn>,
    responses((status = 200, description = "The token.", body = ListenerTokenOut),
        (status = 409, description = "The call is over.", body = crate::error::ErrorOut)))]
async fn create(
    caller: Caller<ConversationsReadSensitive>,
    At(path): At<ConversationPath>,
    State(state): State<ApiState>,
    OptionalBody(body): OptionalBody<ListenerTokenIn>,
) -> Result<Json<ListenerTokenOut>, ApiError> {
    let seconds = body.unwrap_or_default().expires_in_s.unwrap_or(DEFAULT_SECONDS);
    if !SECONDS.contains(&seconds) {
        let rule = format!("must be from {} to {}", SECONDS.start(), SECONDS.end());
        return Err(ApiError::body(Invalid::field("expires_in_s", rule)));
    }
    let id = path.id.0;
    let call = state.store.conversation(caller.organization, id).await.map_err(of(CONVERSATION))?;
    if call.status.is_final() {
        return Err(ApiError::Conflict("The call is over.".to_owned()));
    }
    let expires = Timestamp(Timestamp::now().0 + i64::from(seconds) * 1_000_000);
    let pass =
        Pass { organization: caller.organization, conversation: id, credential: caller.credential, expires };
    let token = state.listening.seal(&pass);
    Ok(Json(ListenerTokenOut { url: format!("{PATH}?token={token}"), token, expires_at: Text(expires) }))
}

pub(super) fn routes() -> Routes {
    operations!(create)
}
