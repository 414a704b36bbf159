//! The one operation of Twilio's REST API that voice bots call: changing a live call, to its end or to somebody else. A
//! bot shows its runtime's secret or an API key, and gets answers in Twilio's form.

use std::collections::HashMap;
use std::time::Duration;

use axum::extract::rejection::FormRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Form, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cluster::{CallError, Transfer, TransferTo};
use model::{
    Conversation, ConversationId, ConversationStatus, Direction, OrganizationId, Scope, Secret, Timestamp,
    TransferMode,
};
use serde_json::{Value, json};
use store::{CredentialKind, StoreError};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ApiState;
use crate::twiml::{self, Verb};

/// Longest credential looked at, in bytes.
const MAX_CREDENTIAL: usize = 1_024;
/// How long the edge may take to end a call.
const LIMIT: Duration = Duration::from_secs(5);
/// How long whom a Dial names may take to answer when it does not say: as long as Twilio has it, in seconds.
const DIAL_SECONDS: u32 = 30;
/// How an API key begins.
const KEY_PREFIX: &str = "ak_";

/// Twilio's error numbers.
const AUTHENTICATE: u32 = 20_003;
const NOT_FOUND: u32 = 20_404;
const INVALID_TWIML: u32 = 12_100;
const INVALID_STATUS: u32 = 21_220;
const UNAVAILABLE: u32 = 20_503;

/// Ends a call for its bot, or hands it to somebody else, in the form of Twilio's `Calls` resource. `CallSid` is followed
/// by `.json`. Of TwiML one `<Hangup>` or `<Dial>` is done; everything else is refused.
#[utoipa::path(post, path = "/2010-04-01/Accounts/{account_sid}/Calls/{call_sid}", operation_id = "hang_up_call",
    tag = "Conversations",
    params(("account_sid" = String, Path, description = "`AC` and the organization's UUID as 32 hexadecimal digits."),
           ("call_sid" = String, Path, description = "`CA` and the conversation's UUID as 32 hexadecimal digits, then `.json`.")),
    request_body(content = Object, content_type = "application/x-www-form-urlencoded",
        description = "`Status=completed` (or `canceled`), or `Twiml` with a `<Hangup>` or a `<Dial>` (a number, `<Number>` or `<Sip>`; `timeout`)."),
    responses((status = 200, description = "The call: over, or being handed over.", body = Object),
        (status = 400, description = "Another `Status`, TwiML that is not done here, a target that may not be called, or nothing.", body = Object),
        (status = 409, description = "The call is being handed over already, or has not been answered.", body = Object),
        (status = 401, description = "Basic credentials are missing or wrong: the user is the account SID, the password the runtime's `secret` or an API key with conversations:manage; such a key is taken as a Bearer token, too.", body = Object),
        (status = 404, description = "The call is over or not there (`code` 20404).", body = Object),
        (status = 503, description = "The call edge does not answer.", body = Object)))]
async fn hang_up(
    State(state): State<ApiState>,
    Path((account_sid, call_sid)): Path<(String, String)>,
    headers: HeaderMap,
    form: Result<Form<HashMap<String, String>>, FormRejection>,
) -> Response {
    let Some(shown_by) = credential(&headers, &account_sid) else { return unauthorized() };
    let call_sid = call_sid.strip_suffix(".json").unwrap_or(&call_sid).to_owned();
    let organization = sid(&account_sid, "AC").map(OrganizationId);
    let call = sid(&call_sid, "CA").map(ConversationId);
    let (password, bearer) = match shown_by {
        Shown::Basic(password) => (password, false),
        Shown::Bearer(key) => (key, true),
    };
    let by_key = bearer || password.expose().starts_with(KEY_PREFIX);
    if by_key {
        match organization_of(&state, &password).await {
            Ok(Some(own)) if Some(own) == organization => {}
            // Who has a key of the API is told of another account what the API tells: it is not there.
            Ok(Some(_)) if bearer => return not_there(&account_sid),
            Ok(_) => return unauthorized(),
            Err(_) => {
                return error(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, "The store is unavailable.");
            }
        }
    }
    let Some(organization) = organization else { return unauthorized() };
    let Some(call) = call else {
        return missing(&state, organization, None, by_key, &password, &call_sid).await;
    };
    let field = |name: &str| form.as_ref().ok().and_then(|Form(fields)| fields.get(name)).map(String::as_str);
    let verb = match (field("Status"), field("Twiml")) {
        (Some("completed" | "canceled"), _) => Verb::Hangup,
        (None, Some(document)) => match twiml::parse(document) {
            Ok(verb) => verb,
            Err(why) => return error(StatusCode::BAD_REQUEST, INVALID_TWIML, &format!("{why}.")),
        },
        _ => {
            return error(
                StatusCode::BAD_REQUEST,
                INVALID_STATUS,
                "Status must be completed or canceled, or Twiml a Hangup or Dial, sent as a form; nothing else of a call can be changed here.",
            );
        }
    };
    let secret = (!by_key).then(|| password.clone());
    let ends = verb == Verb::Hangup;
    let changed = async {
        match verb {
            Verb::Hangup => state.cluster.end_call_by_agent(organization, call, secret).await,
            Verb::Dial { to, timeout_s } => {
                let timeout = Duration::from_secs(timeout_s.unwrap_or(DIAL_SECONDS).into());
                let asked = Transfer { to: TransferTo::Target(to), mode: TransferMode::Bridge, timeout };
                state.cluster.transfer_call_by_agent(organization, call, secret, asked).await
            }
        }
    };
    match tokio::time::timeout(LIMIT, changed).await {
        Ok(Ok(call)) => Json(shown(&call, ends, &account_sid, &call_sid)).into_response(),
        Ok(Err(CallError::Denied)) => unauthorized(),
        Ok(Err(problem @ (CallError::TargetRefused | CallError::NoWayOut))) => {
            error(StatusCode::BAD_REQUEST, INVALID_TWIML, &format!("The call is not handed over: {problem}."))
        }
        Ok(Err(problem @ (CallError::Transferring | CallError::NotAnswered | CallError::NoSip))) => {
            error(StatusCode::CONFLICT, INVALID_STATUS, &format!("The call is left as it is: {problem}."))
        }
        Ok(Err(CallError::NotLive)) => {
            missing(&state, organization, Some(call), by_key, &password, &call_sid).await
        }
        Ok(Err(_)) | Err(_) => {
            error(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, "The call could not be ended now; try again.")
        }
    }
}

/// What a client authenticates with.
enum Shown {
    /// The password of Basic credentials whose user is the account.
    Basic(Secret),
    /// An API key, as everywhere else in the API.
    Bearer(Secret),
}

fn credential(headers: &HeaderMap, account_sid: &str) -> Option<Shown> {
    let value =
        headers.get(header::AUTHORIZATION)?.to_str().ok().filter(|v| v.len() <= MAX_CREDENTIAL * 2)?;
    let (scheme, shown) = value.trim().split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Shown::Bearer(Secret::new(shown.trim().to_owned())));
    }
    let decoded = STANDARD.decode(shown.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    let ours = user.eq_ignore_ascii_case(account_sid) && !password.is_empty();
    ours.then(|| Shown::Basic(Secret::new(password.to_owned())))
}

/// The UUID of `AC…` or `CA…`.
fn sid(text: &str, prefix: &str) -> Option<uuid::Uuid> {
    let digits = text.strip_prefix(prefix).filter(|digits| digits.len() == 32)?;
    uuid::Uuid::parse_str(digits).ok()
}

/// The organization whose calls an API key may end.
async fn organization_of(state: &ApiState, key: &Secret) -> Result<Option<OrganizationId>, StoreError> {
    let found = state.store.authenticate(key.expose(), Timestamp::now()).await?;
    Ok(found.and_then(|credential| match &credential.kind {
        CredentialKind::Key { organization_id, .. }
            if credential.scopes.iter().any(|held| held.satisfies(Scope::ConversationsManage)) =>
        {
            Some(*organization_id)
        }
        _ => None,
    }))
}

/// The answer for a call that is not live: that it is gone, to whoever may know.
async fn missing(
    state: &ApiState,
    organization: OrganizationId,
    call: Option<ConversationId>,
    by_key: bool,
    password: &Secret,
    call_sid: &str,
) -> Response {
    let may_know = by_key
        || match call {
            Some(call) => was_its_agents(state, organization, call, password).await,
            None => false,
        };
    if may_know { not_there(call_sid) } else { unauthorized() }
}

/// Whether the secret is that of the agent a past call had. The secret of a config given inline is not kept, so for
/// such a call it is not asked.
async fn was_its_agents(
    state: &ApiState,
    organization: OrganizationId,
    call: ConversationId,
    secret: &Secret,
) -> bool {
    let Ok(call) = state.store.conversation(organization, call).await else { return false };
    let Some(version) = call.agent_version_id else { return true };
    state.store.is_agent_secret(organization, version, secret).await.unwrap_or(false)
}

fn shown(call: &Conversation, ends: bool, account_sid: &str, call_sid: &str) -> Value {
    let own = call.agent_number.as_ref().map(ToString::to_string).unwrap_or_default();
    let (direction, from, to) = match call.direction {
        Direction::Inbound => ("inbound", call.user_id.clone(), own),
        Direction::Outbound => ("outbound-api", own, call.user_id.clone()),
    };
    let status = match call.status {
        ConversationStatus::Triggered => "queued",
        ConversationStatus::Ringing => "ringing",
        ConversationStatus::InProgress if !ends => "in-progress",
        // Asked to end; the other side has not confirmed it yet.
        ConversationStatus::InProgress | ConversationStatus::Completed | ConversationStatus::Transferred => {
            "completed"
        }
        ConversationStatus::Failed => "failed",
        ConversationStatus::Cancelled => "canceled",
        ConversationStatus::Unanswered => "no-answer",
    };
    json!({
        "sid": call_sid, "account_sid": account_sid, "status": status, "direction": direction, "from": from,
        "to": to, "duration": call.duration().map(|seconds| seconds.to_string()), "api_version": "2010-04-01",
        "uri": format!("/2010-04-01/Accounts/{account_sid}/Calls/{call_sid}.json"),
    })
}

fn error(status: StatusCode, code: u32, message: &str) -> Response {
    let body = json!({
        "code": code, "message": message, "detail": message, "status": status.as_u16(),
        "more_info": format!("https://www.twilio.com/docs/errors/{code}"),
    });
    (status, Json(body)).into_response()
}

fn not_there(sid: &str) -> Response {
    let message = format!("The requested resource {sid} was not found: the call is over, or never was.");
    error(StatusCode::NOT_FOUND, NOT_FOUND, &message)
}

fn unauthorized() -> Response {
    let mut response = error(
        StatusCode::UNAUTHORIZED,
        AUTHENTICATE,
        "Authenticate with the account SID, and the runtime's secret or an API key with conversations:manage.",
    );
    let challenge = header::HeaderValue::from_static("Basic realm=\"tandem\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(hang_up))
}
