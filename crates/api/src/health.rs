//! `/healthz`, `/readyz`, `/metrics`: what the node says of itself, without a credential.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ApiState;

/// What the node knows of its own parts.
pub trait Health: Send + Sync + 'static {
    /// Looks at every part a call needs: store, SIP listeners, RTP ports.
    fn checks(&self) -> Pin<Box<dyn Future<Output = Vec<Check>> + Send + '_>>;

    /// The metrics in the OpenMetrics text format.
    fn metrics(&self) -> String;
}

/// One part's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ReadinessCheck)]
pub struct Check {
    /// The part, for example `store`.
    pub name: &'static str,
    /// Whether it can serve.
    pub ok: bool,
    /// In words: where it listens, or what is wrong. Holds no secret.
    pub detail: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Liveness)]
struct LivenessOut {
    /// Always `ok`: a process that answers is alive.
    status: &'static str,
    /// The release.
    version: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Readiness)]
struct ReadinessOut {
    /// Whether every part can serve.
    ready: bool,
    /// The node.
    node: String,
    /// The release.
    version: String,
    /// Each part.
    checks: Vec<Check>,
}

/// How long the parts may take to answer before the node counts as not ready.
const CHECK_LIMIT: Duration = Duration::from_secs(3);

/// The process is up.
#[utoipa::path(get, path = "/healthz", operation_id = "healthz", tag = "Operation",
    responses((status = 200, description = "The process is up.", body = LivenessOut)))]
async fn healthz(State(state): State<ApiState>) -> Response {
    Json(LivenessOut { status: "ok", version: state.version }).into_response()
}

/// The node can take calls and requests.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "Operation",
    responses((status = 200, description = "Every part can serve.", body = ReadinessOut),
              (status = 503, description = "A part cannot serve; `checks` says which.", body = ReadinessOut)))]
async fn readyz(State(state): State<ApiState>) -> Response {
    let late =
        || vec![Check { name: "checks", ok: false, detail: "a part did not answer in time".to_owned() }];
    let checks = tokio::time::timeout(CHECK_LIMIT, state.health.checks()).await.unwrap_or_else(|_| late());
    let ready = checks.iter().all(|check| check.ok);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ReadinessOut { ready, node: state.node_name, version: state.version, checks }))
        .into_response()
}

/// Counters and gauges of the node.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "Operation",
    responses((status = 200, description = "Metrics in the OpenMetrics text format.", body = String,
               content_type = "application/openmetrics-text"),
              (status = 404, description = "The node serves its metrics on `http.metrics_listen`.", body = crate::error::ErrorOut)))]
async fn metrics(State(state): State<ApiState>) -> Response {
    if state.metrics_elsewhere {
        return crate::error::ApiError::NotFound("Path").into_response();
    }
    exposition(&state)
}

async fn metrics_alone(State(state): State<ApiState>) -> Response {
    exposition(&state)
}

fn exposition(state: &ApiState) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], state.health.metrics()).into_response()
}

/// `/metrics` on a listener of its own.
pub(crate) fn metrics_route() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().route("/metrics", axum::routing::get(metrics_alone))
}

/// The open operations.
pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(healthz)).routes(routes!(readyz)).routes(routes!(metrics))
}
