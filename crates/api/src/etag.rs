//! `ETag` and `If-Match` (RFC 9110 8.8.3, 13.1.1): a tag tells the state that PUT, PATCH and DELETE change.

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use model::Timestamp;
use serde::Serialize;
use store::Precondition;

use crate::error::ApiError;

/// A resource with the tag of its state.
pub(crate) struct Tagged<T>(pub(crate) Timestamp, pub(crate) T);

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.1).into_response();
        if let Ok(tag) = HeaderValue::try_from(tag(self.0)) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}

fn tag(state: Timestamp) -> String {
    format!("\"{:x}\"", state.0)
}

/// What `If-Match` asks; nothing without it and for `*`, since a resource that is not there is 404 anyway.
pub(crate) struct IfMatch(pub(crate) Precondition);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let mut values = parts.headers.get_all(header::IF_MATCH).iter().peekable();
        if values.peek().is_none() {
            return Ok(Self(Precondition::None));
        }
        let mut states = Vec::new();
        for tag in values.filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')) {
            let tag = tag.trim();
            if tag == "*" {
                return Ok(Self(Precondition::None));
            }
            // A weak tag never matches here (RFC 9110 13.1.1), and neither does one we did not make.
            let opaque = tag.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
            states.extend(opaque.and_then(|t| i64::from_str_radix(t, 16).ok()).map(Timestamp));
        }
        Ok(Self(Precondition::OneOf(states)))
    }
}
