//! Whether a trunk's carrier can be reached.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::trunks::{TRUNK, TrunkPath};
use crate::ApiState;
use crate::auth::{Caller, TrunksManage};
use crate::error::{ApiError, of};
use crate::extract::At;
use crate::routes::{Routes, operations};
use crate::wire::{Text, TimeText};

/// How long the edge may take: it gives up on a silent carrier earlier.
const LIMIT: Duration = Duration::from_secs(20);

/// What the carrier answered.
#[derive(Serialize, ToSchema)]
#[schema(as = TrunkTest)]
struct TestOut {
    /// Whether the carrier answered at all.
    reachable: bool,
    /// SIP status of its answer to OPTIONS.
    #[schema(required)]
    status: Option<u16>,
    /// From the request to the answer, in milliseconds.
    #[schema(required)]
    latency_ms: Option<f64>,
    /// The addresses the carrier's name stands for, in the order they are tried.
    resolved: Vec<String>,
    /// The TLS session; null for other transports.
    #[schema(required)]
    tls: Option<TlsOut>,
    /// In words: what happened, and what to change.
    detail: String,
}

/// A TLS session.
#[derive(Serialize, ToSchema)]
#[schema(as = TrunkTestTls)]
struct TlsOut {
    version: String,
    /// The carrier's certificate.
    subject: String,
    not_after: TimeText,
}

/// Sends OPTIONS to the carrier, with the trunk's transport. Never dials. The trunk's health shows the outcome.
#[utoipa::path(post, path = "/core/trunks/{id}/test", operation_id = "test_trunk", tag = "Trunks", params(TrunkPath),
    responses((status = 200, description = "What the carrier answered, or that it did not.", body = TestOut),
        (status = 400, description = "The trunk has no outbound_config.", body = crate::error::ErrorOut)))]
async fn test(
    caller: Caller<TrunksManage>,
    At(path): At<TrunkPath>,
    State(state): State<ApiState>,
) -> Result<Json<TestOut>, ApiError> {
    let trunk = state.store.trunk(caller.organization, path.id.0).await.map_err(of(TRUNK))?;
    if trunk.outbound_config.is_none() {
        return Err(ApiError::BadRequest(
            "The trunk has no outbound_config, so there is no carrier to reach.".to_owned(),
        ));
    }
    let probed = super::edge(LIMIT, state.cluster.probe(trunk.id)).await?;
    state.store.note_probe(trunk.id, probed.status, &probed.detail).await?;
    Ok(Json(TestOut {
        reachable: probed.status.is_some(),
        status: probed.status,
        latency_ms: probed.latency.map(|latency| (latency.as_secs_f64() * 1e6).round() / 1e3),
        resolved: probed.resolved,
        tls: probed.tls.map(|tls| TlsOut {
            version: tls.version,
            subject: tls.subject,
            not_after: Text(tls.not_after),
        }),
        detail: probed.detail,
    }))
}

pub(super) fn routes() -> Routes {
    operations!(test)
}
