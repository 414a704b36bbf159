//! `X-Request-Id`: echoed or made, in the answer and in every log line of the request.

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id taken over from a client, in bytes.
const MAX_REQUEST_ID: usize = 64;

fn acceptable(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    (1..=MAX_REQUEST_ID).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// The middleware.
pub(crate) async fn carry(request: Request, next: Next) -> Response {
    let id = request.headers().get(&X_REQUEST_ID).filter(|v| acceptable(v)).cloned();
    let id = id.unwrap_or_else(|| {
        let made = uuid::Uuid::now_v7().to_string();
        HeaderValue::try_from(made).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
    });
    // The route's pattern, not the path: a path may hold a number or an id of somebody's.
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str);
    let span = tracing::info_span!(
        "http",
        request_id = id.to_str().unwrap_or(""),
        method = %request.method(),
        route,
    );
    let started = std::time::Instant::now();
    async move {
        let mut response = next.run(request).await;
        tracing::info!(
            status = response.status().as_u16(),
            elapsed_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
            "answered"
        );
        response.headers_mut().insert(X_REQUEST_ID.clone(), id);
        response
    }
    .instrument(span)
    .await
}
