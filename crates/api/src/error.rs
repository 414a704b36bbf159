//! Every error an answer may carry, and the one place where errors become statuses and bodies.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::{Invalid, Timestamp};
use serde::Serialize;
use store::StoreError;
use utoipa::ToSchema;

use crate::idempotency::Replay;

/// Body of every answer that is not a success.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ErrorOut {
    /// One sentence that names the problem, and the field and the rule where there is one.
    pub detail: String,
    /// The fields at fault; only with status 422.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub errors: Vec<FieldErrorOut>,
}

/// One field at fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = FieldError)]
pub struct FieldErrorOut {
    /// Where it is: `body`, `query`, `path` or `header`, then the names and indexes down to the field.
    pub loc: Vec<String>,
    /// The rule it breaks.
    pub msg: String,
    /// The kind of fault: `missing`, `unknown_field`, `duplicate`, `type`, `value` or `json`.
    #[serde(rename = "type")]
    pub kind: &'static str,
}

impl FieldErrorOut {
    /// A value that breaks a rule, seen from `place` (`body`, `query` or `path`).
    pub(crate) fn from_invalid(place: &str, invalid: Invalid) -> Self {
        let mut loc = vec![place.to_owned()];
        loc.extend(invalid.path);
        let kind = if invalid.message == REQUIRED { "missing" } else { "value" };
        Self { loc, msg: invalid.message, kind }
    }

    /// The fault as a sentence: the field's path below the body, then the rule.
    fn sentence(&self) -> String {
        match self.loc.get(1..) {
            None | Some([]) => {
                format!("The {} {}.", self.loc.first().map_or("request", String::as_str), self.msg)
            }
            Some(path) => format!("{} {}.", path.join("."), self.msg),
        }
    }
}

/// Rule that a missing field breaks.
pub(crate) const REQUIRED: &str = "is required";

/// Why a request is not carried out.
#[derive(Debug)]
pub enum ApiError {
    /// 401, with the reason in words.
    Unauthorized(&'static str),
    /// 403.
    Forbidden(String),
    /// 400: well-formed, and cannot be fulfilled.
    BadRequest(String),
    /// 404: the kind of thing that is not there. The same for what is in another organization.
    NotFound(&'static str),
    /// 405.
    MethodNotAllowed,
    /// 408: the body did not arrive in time.
    BodyTimeout,
    /// 409: the state forbids it.
    Conflict(String),
    /// 412: the resource has changed since the client read it.
    PreconditionFailed,
    /// 413.
    TooLarge,
    /// 415.
    UnsupportedMediaType(&'static str),
    /// 422.
    Invalid(Vec<FieldErrorOut>),
    /// The first answer to an earlier request with the same `Idempotency-Key`.
    Replayed(Box<Replay>),
    /// 429: the credential's bucket is empty for this long.
    RateLimited(Duration),
    /// 429: what the organization may do is used up for this long.
    UsedUp(String, Duration),
    /// 500. The cause is in the log, never in the answer.
    Internal,
    /// 503: nothing has been done, or, where the sentence says so, it is done and not in force yet.
    Unavailable(String),
}

impl ApiError {
    /// One field of the body at fault.
    pub(crate) fn body(invalid: Invalid) -> Self {
        Self::Invalid(vec![FieldErrorOut::from_invalid("body", invalid)])
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::Replayed(answer) => answer.status(),
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RateLimited(_) | Self::UsedUp(..) => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The sentence of the answer.
    pub(crate) fn detail(&self) -> String {
        match self {
            Self::Unauthorized(text) | Self::UnsupportedMediaType(text) => (*text).to_owned(),
            Self::Forbidden(text)
            | Self::BadRequest(text)
            | Self::Conflict(text)
            | Self::UsedUp(text, _)
            | Self::Unavailable(text) => text.clone(),
            Self::NotFound(what) => format!("{what} not found."),
            Self::MethodNotAllowed => "This path does not take that method.".to_owned(),
            Self::BodyTimeout => "The body did not arrive in time.".to_owned(),
            Self::PreconditionFailed => {
                "The resource is not in the state that If-Match names; read it again.".to_owned()
            }
            Self::Replayed(_) => "This is the first answer to the same request.".to_owned(),
            Self::TooLarge => format!("The body is larger than {} bytes.", crate::extract::MAX_BODY),
            Self::Invalid(errors) => {
                errors.first().map_or_else(|| "The request is invalid.".to_owned(), FieldErrorOut::sentence)
            }
            Self::RateLimited(_) => "This credential has used up its rate limit; try again later.".to_owned(),
            Self::Internal => {
                "Something went wrong on our side; the log has the details under this X-Request-Id."
                    .to_owned()
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Self::Replayed(answer) = self {
            return answer.into_response();
        }
        let status = self.status();
        let detail = self.detail();
        let wait =
            if let Self::RateLimited(wait) | Self::UsedUp(_, wait) = &self { Some(*wait) } else { None };
        let errors = if let Self::Invalid(errors) = self { errors } else { Vec::new() };
        let mut response = (status, Json(ErrorOut { detail, errors })).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = wait {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

/// Text for a thing the operator manages.
const MANAGED: &str = "The trunk is managed by the operator and is read-only over the API.";

/// Maps the store's errors, with the name of the thing a 404 speaks of.
pub(crate) fn of(what: &'static str) -> impl Fn(StoreError) -> ApiError {
    move |error| match error {
        StoreError::NotFound => ApiError::NotFound(what),
        other => other.into(),
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::NotFound("Resource"),
            StoreError::Conflict(sentence) => Self::Conflict(sentence),
            StoreError::Refused(sentence) => Self::BadRequest(sentence),
            StoreError::Forbidden(sentence) => Self::Forbidden(sentence),
            StoreError::UsedUp { sentence, until } => {
                let wait = until.0.saturating_sub(Timestamp::now().0).max(0);
                Self::UsedUp(sentence, Duration::from_micros(wait.unsigned_abs()))
            }
            StoreError::Changed => Self::PreconditionFailed,
            StoreError::Managed => Self::BadRequest(MANAGED.to_owned()),
            StoreError::Unavailable(cause) => {
                tracing::error!(%cause, "the store is unavailable");
                Self::Unavailable("The store is unavailable; try again later.".to_owned())
            }
            other => {
                tracing::error!(error = %other, "the store failed");
                Self::Internal
            }
        }
    }
}
