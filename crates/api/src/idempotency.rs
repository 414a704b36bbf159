//! `Idempotency-Key`: a POST that is sent again gets the first answer, and nothing is done twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use model::{OrganizationId, Secret};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use store::Idempotency;
use tracing::Instrument;

use crate::ApiState;
use crate::auth;
use crate::error::{ApiError, FieldErrorOut};
use crate::extract;

/// The request header.
pub(crate) static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Set on an answer that is a replay.
static IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Longest key, in characters.
pub(crate) const MAX_KEY: usize = 255;
/// Headers of an answer that are kept with it.
const KEPT_HEADERS: [HeaderName; 3] = [header::CONTENT_TYPE, header::LOCATION, header::ETAG];

/// An answer as it is kept.
#[derive(Debug, Serialize, Deserialize)]
pub struct Replay {
    #[serde(skip)]
    status: StatusCode,
    headers: Vec<(String, String)>,
    body: String,
}

impl Replay {
    /// The status of the first answer.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }
}

impl IntoResponse for Replay {
    fn into_response(self) -> Response {
        let mut response = (self.status, Body::from(self.body)).into_response();
        response.headers_mut().remove(header::CONTENT_TYPE);
        for (name, value) in self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                response.headers_mut().insert(name, value);
            }
        }
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED.clone(), HeaderValue::from_static("true"));
        response
    }
}

/// A request with a key, on its way to its handler. The caller's extractor passes it once the credential and its
/// scope are good, so that nobody else learns of earlier answers.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Pass>);

struct Pass {
    organization: OrganizationId,
    /// The credential and its key: another credential may see other fields of the same answer.
    key: String,
    request_sha256: String,
    begun: AtomicBool,
}

impl Gate {
    /// Takes the key for this request.
    pub(crate) async fn pass(&self, state: &ApiState) -> Result<(), ApiError> {
        let Pass { organization, key, request_sha256, begun } = &*self.0;
        match state.store.begin_idempotent(*organization, key, request_sha256).await? {
            Idempotency::Begun => {
                begun.store(true, Ordering::Release);
                Ok(())
            }
            Idempotency::Answered { status, answer } => {
                let mut replay: Replay =
                    serde_json::from_str(answer.expose()).map_err(|_| ApiError::Internal)?;
                replay.status = StatusCode::from_u16(status).map_err(|_| ApiError::Internal)?;
                Err(ApiError::Replayed(Box::new(replay)))
            }
            Idempotency::Other => {
                Err(fault("was used for another request; make a new key for a new request"))
            }
            Idempotency::InProgress => Err(ApiError::Conflict(
                "The first request with this Idempotency-Key is still in progress; try again shortly."
                    .to_owned(),
            )),
        }
    }
}

fn fault(msg: &str) -> ApiError {
    let loc = vec!["header".to_owned(), "Idempotency-Key".to_owned()];
    ApiError::Invalid(vec![FieldErrorOut { loc, msg: msg.to_owned(), kind: "value" }])
}

/// The key of the request; `None` without one.
fn key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut values = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text =
        value.to_str().ok().map(str::trim).filter(|t| {
            (1..=MAX_KEY).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
        });
    match (text, values.next()) {
        (Some(text), None) => Ok(Some(text)),
        _ => Err(fault("must be given once, as 1 to 255 printable ASCII characters")),
    }
}

/// The middleware.
pub(crate) async fn once(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || !request.headers().contains_key(&IDEMPOTENCY_KEY) {
        return next.run(request).await;
    }
    match prepare(&state, request).await {
        // The work goes on when the client goes away: its next attempt finds the answer.
        Ok((gate, request)) => {
            let work = carry_out(state, gate, request, next).in_current_span();
            tokio::spawn(work).await.unwrap_or_else(|_| ApiError::Internal.into_response())
        }
        Err(error) => error.into_response(),
    }
}

async fn prepare(state: &ApiState, request: Request) -> Result<(Gate, Request), ApiError> {
    let (mut parts, body) = request.into_parts();
    let (credential, organization) = auth::identify(state, &parts.headers).await?;
    let key = key(&parts.headers)?.unwrap_or_default();
    let bytes = extract::read(body).await?;
    let mut hash = Sha256::new();
    for part in [parts.method.as_str().as_bytes(), parts.uri.to_string().as_bytes(), &bytes[..]] {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    let request_sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let key = format!("{}:{key}", credential.id());
    let gate = Gate(Arc::new(Pass { organization, key, request_sha256, begun: AtomicBool::new(false) }));
    parts.extensions.insert(gate.clone());
    Ok((gate, Request::from_parts(parts, Body::from(bytes))))
}

async fn carry_out(state: ApiState, gate: Gate, request: Request, next: Next) -> Response {
    // A panic must not leave the key taken.
    let answered = tokio::spawn(next.run(request).in_current_span()).await;
    let response = answered.unwrap_or_else(|_| ApiError::Internal.into_response());
    if !gate.0.begun.load(Ordering::Acquire) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let bytes = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return ApiError::Internal.into_response(),
    };
    let headers = KEPT_HEADERS.iter().filter_map(|name| {
        let value = parts.headers.get(name)?.to_str().ok()?;
        Some((name.to_string(), value.to_owned()))
    });
    let replay = Replay {
        status: parts.status,
        headers: headers.collect(),
        body: String::from_utf8_lossy(&bytes).into_owned(),
    };
    let kept = if is_final(parts.status) { serde_json::to_string(&replay).ok() } else { None };
    let kept = kept.map(|text| (parts.status.as_u16(), Secret::new(text)));
    if let Err(error) = state.store.finish_idempotent(gate.0.organization, &gate.0.key, kept).await {
        tracing::error!(%error, "the answer to an idempotent request could not be kept");
    }
    Response::from_parts(parts, Body::from(bytes))
}

/// Whether the same request would be judged the same again; otherwise the key is given back.
fn is_final(status: StatusCode) -> bool {
    status.is_success()
        || matches!(
            status,
            StatusCode::BAD_REQUEST
                | StatusCode::NOT_FOUND
                | StatusCode::CONFLICT
                | StatusCode::PRECONDITION_FAILED
                | StatusCode::UNPROCESSABLE_ENTITY
        )
}
