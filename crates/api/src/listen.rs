//! Live listening: the pass that opens a call's audio to whoever holds it, and the WebSocket it opens. What is heard
//! comes from a bounded queue, so a listener that reads slowly loses audio and the call nothing.

use std::collections::HashMap;
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cluster::{CallError, Listening};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use model::{ConversationId, KeyId, OrganizationId, Timestamp};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::ApiState;
use crate::error::{ApiError, ErrorOut};

/// Where listeners connect.
pub(crate) const PATH: &str = "/listen";
/// How a pass begins.
const PREFIX: &str = "lt_";
/// Three ids and a time; then the tag.
const FIELDS: usize = 16 * 3 + 8;
const TAG: usize = 32;
/// Time between two messages of audio.
const BEAT: Duration = Duration::from_millis(40);
/// How often a credential that made a pass is looked at again.
const RECHECK: Duration = Duration::from_secs(5);
/// A listener that takes nothing for so long is gone.
const SEND_LIMIT: Duration = Duration::from_secs(10);
/// How long the edge may take to answer.
const EDGE_LIMIT: Duration = Duration::from_secs(5);
/// Nothing but control frames is expected from a listener.
const MAX_MESSAGE: usize = 1_024;
/// What may wait to be written to a listener, in bytes: more than all that a listening keeps.
const MAX_UNWRITTEN: usize = 1024 * 1_024;

/// Who may listen to which call, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pass {
    pub(crate) organization: OrganizationId,
    pub(crate) conversation: ConversationId,
    /// The credential that asked for it; when that is revoked, so is this.
    pub(crate) credential: KeyId,
    pub(crate) expires: Timestamp,
}

/// Makes passes and reads them. They hold all there is to know, under a tag whose key lives as long as the process:
/// so do the calls.
pub(crate) struct Passes(hmac::Key);

impl Passes {
    #[allow(
        clippy::expect_used,
        reason = "without the system's random generator nothing here is safe to run"
    )]
    pub(crate) fn new() -> Self {
        let mut key = [0; TAG];
        getrandom::fill(&mut key).expect("the system's random generator works");
        Self(hmac::Key::new(hmac::HMAC_SHA256, &key))
    }

    /// The pass as text.
    pub(crate) fn seal(&self, pass: &Pass) -> String {
        let mut bytes = Vec::with_capacity(FIELDS + TAG);
        for id in [pass.organization.0, pass.conversation.0, pass.credential.0] {
            bytes.extend_from_slice(id.as_bytes());
        }
        bytes.extend_from_slice(&pass.expires.0.to_be_bytes());
        let tag = hmac::sign(&self.0, &bytes);
        bytes.extend_from_slice(tag.as_ref());
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// What a text says, when we made it and it has not expired.
    fn open(&self, text: &str, now: Timestamp) -> Option<Pass> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        let (fields, tag) = bytes.split_at_checked(FIELDS)?;
        hmac::verify(&self.0, fields, tag).ok()?;
        let id = |n: usize| Uuid::from_slice(fields.get(16 * n..16 * (n + 1))?).ok();
        let expires = Timestamp(i64::from_be_bytes(fields.get(48..)?.try_into().ok()?));
        let pass = Pass {
            organization: OrganizationId(id(0)?),
            conversation: ConversationId(id(1)?),
            credential: KeyId(id(2)?),
            expires,
        };
        (now < expires).then_some(pass)
    }
}

/// Opens a WebSocket that carries a live call's audio, for whoever holds a token of `POST
/// /core/conversations/{id}/listener-token`. First comes a text message, `{"type": "start", "conversation_id",
/// "encoding": "pcm16", "sample_rate", "channels": 2}`, then binary ones of 16-bit little-endian samples, the caller on
/// the left, the agent on the right. A listener that reads too slowly is told `{"type": "lost", "ms"}` and goes on with
/// what is newer. At the end comes `{"type": "end", "reason"}`: `call_ended`, `expired` or `revoked`. Nothing that is
/// sent is taken.
#[utoipa::path(get, path = PATH, operation_id = "listen", tag = "Conversations",
    params(("token" = Option<String>, Query, description = "The token; or as `Authorization: Bearer`.")),
    responses((status = 101, description = "The WebSocket is open."),
        (status = 404, description = "The token is missing, expired or none of ours, the credential that made it is revoked, or the call is over.", body = ErrorOut),
        (status = 409, description = "The call is not answered yet, or has eight listeners already.", body = ErrorOut),
        (status = 426, description = "This is no WebSocket handshake of version 13.", body = ErrorOut),
        (status = 503, description = "The store or the call edge is unavailable.", body = ErrorOut)))]
async fn listen(State(state): State<ApiState>, request: Request) -> Response {
    match open(state, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn open(state: ApiState, mut request: Request) -> Result<Response, ApiError> {
    let shown = shown(&request);
    let pass = shown.and_then(|token| state.listening.open(&token, Timestamp::now()));
    // As with ids: whoever holds nothing good is not told what there is.
    let nothing =
        ApiError::NotFound("Live call under this listener token (missing, expired, revoked or none of ours)");
    let Some(pass) = pass else { return Err(nothing) };
    if !is_good(&state, &pass).await? {
        return Err(nothing);
    }
    let Some(accept) = handshake(request.headers()) else {
        let detail = "Listening takes a WebSocket handshake of version 13.".to_owned();
        let body = axum::Json(ErrorOut { detail, errors: Vec::new() });
        return Ok((StatusCode::UPGRADE_REQUIRED, [(header::UPGRADE, "websocket")], body).into_response());
    };
    let listening = match tokio::time::timeout(EDGE_LIMIT, state.cluster.listen(pass.conversation)).await {
        Ok(Ok(listening)) => listening,
        Ok(Err(CallError::NotLive)) => return Err(ApiError::NotFound("Live call")),
        Ok(Err(error @ (CallError::NotAnswered | CallError::NoSip | CallError::TooManyListeners))) => {
            return Err(ApiError::Conflict(format!("Nobody listens: {error}.")));
        }
        Ok(Err(error)) => return Err(ApiError::Unavailable(format!("Nobody listens: {error}."))),
        Err(_) => return Err(ApiError::Unavailable("The call edge did not answer in time.".to_owned())),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // It fails when the client is gone before it was answered.
        if let Ok(upgraded) = upgrade.await {
            carry(&state, &pass, listening, upgraded).await;
        }
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept);
    response.body(Body::empty()).map_err(|_| ApiError::Internal)
}

/// The token of a request: in the query, where browsers can put it, or as a Bearer token.
fn shown(request: &Request) -> Option<String> {
    let query = Query::<HashMap<String, String>>::try_from_uri(request.uri()).ok();
    if let Some(token) = query.and_then(|Query(mut query)| query.remove("token")) {
        return Some(token);
    }
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

async fn is_good(state: &ApiState, pass: &Pass) -> Result<bool, ApiError> {
    Ok(state.store.is_good(pass.credential, pass.organization, Timestamp::now()).await?)
}

/// The answer to a WebSocket handshake (RFC 6455 4.2.1); `None` when it is none.
fn handshake(headers: &HeaderMap) -> Option<HeaderValue> {
    let lists = |name: header::HeaderName, wanted: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case(wanted))
    };
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    let version = headers.get(header::SEC_WEBSOCKET_VERSION)?.as_bytes() == b"13";
    let asked = version && lists(header::CONNECTION, "upgrade") && lists(header::UPGRADE, "websocket");
    HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok().filter(|_| asked)
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Carries the audio until one side ends it.
async fn carry(state: &ApiState, pass: &Pass, mut listening: Listening, upgraded: Upgraded) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_UNWRITTEN);
    let mut socket = Socket::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let start = json!({
        "type": "start", "conversation_id": pass.conversation, "encoding": "pcm16",
        "sample_rate": listening.sample_rate, "channels": 2,
    });
    if !send(&mut socket, text(&start)).await {
        return;
    }
    let mut beat = interval_at(Instant::now() + BEAT, BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut recheck = interval_at(Instant::now() + RECHECK, RECHECK);
    recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let reason = loop {
        tokio::select! {
            received = socket.next() => match received {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
            _ = beat.tick() => {
                let over = listening.audio.is_over();
                if !forward(&mut socket, &mut listening).await {
                    return;
                }
                if over {
                    break "call_ended";
                }
                if Timestamp::now() >= pass.expires {
                    break "expired";
                }
            }
            _ = recheck.tick() => {
                // A store that cannot be asked now is asked again.
                if matches!(is_good(state, pass).await, Ok(false)) {
                    break "revoked";
                }
            }
        }
    };
    let close = CloseFrame { code: CloseCode::Normal, reason: reason.into() };
    if send(&mut socket, text(&json!({"type": "end", "reason": reason}))).await {
        let _ = tokio::time::timeout(SEND_LIMIT, socket.close(Some(close))).await;
    }
}

/// Sends what has been heard since the last time. `false` when the listener is gone.
async fn forward(socket: &mut Socket, listening: &mut Listening) -> bool {
    let mut samples = Vec::new();
    let lost = listening.audio.take(&mut samples);
    if lost > 0 {
        let ms = lost * 1_000 / u64::from(listening.sample_rate.max(1));
        if !send(socket, text(&json!({"type": "lost", "ms": ms}))).await {
            return false;
        }
    }
    if samples.is_empty() {
        return true;
    }
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    send(socket, Message::Binary(Bytes::from(bytes))).await
}

fn text(value: &Value) -> Message {
    Message::text(value.to_string())
}

async fn send(socket: &mut Socket, message: Message) -> bool {
    matches!(tokio::time::timeout(SEND_LIMIT, socket.send(message)).await, Ok(Ok(())))
}

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(listen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_read_back_until_it_expires_and_no_other_is() {
        let passes = Passes::new();
        let pass = Pass {
            organization: OrganizationId::new(),
            conversation: ConversationId::new(),
            credential: KeyId::new(),
            expires: Timestamp(1_000),
        };
        let text = passes.seal(&pass);
        assert_eq!(passes.open(&text, Timestamp(999)), Some(pass));
        assert_eq!(passes.open(&text, Timestamp(1_000)), None);
        assert_eq!(Passes::new().open(&text, Timestamp(0)), None);
        for bad in ["", "lt_", "lt_AAAA", &text[1..], &text[..text.len() - 1]] {
            assert_eq!(passes.open(bad, Timestamp(0)), None, "{bad}");
        }
        // Every byte counts: no field can be changed.
        for at in PREFIX.len()..text.len() - 1 {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(passes.open(&String::from_utf8(changed).unwrap(), Timestamp(0)), None, "{at}");
        }
    }
}
