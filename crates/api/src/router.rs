//! The whole HTTP surface.

use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse, Response};
use cluster::Cluster;
use model::PrivateTargets;
use std::num::NonZeroU32;
use std::sync::Arc;
use store::Store;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::error::ApiError;
use crate::health::Health;
use crate::rate_limit::RateLimiter;

/// How long a write waits for the call edge to take it before it answers 503.
const COMMIT_LIMIT: Duration = Duration::from_secs(5);

/// What the handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    pub(crate) store: Store,
    pub(crate) cluster: Cluster,
    pub(crate) node_name: String,
    pub(crate) version: String,
    pub(crate) health: Arc<dyn Health>,
    pub(crate) limiter: Option<Arc<RateLimiter>>,
    pub(crate) private_targets: PrivateTargets,
    /// Whether a trunk must say where its calls come from.
    pub(crate) require_allow_list: bool,
    pub(crate) streams: crate::core::Streams,
    pub(crate) listening: Arc<crate::listen::Passes>,
    pub(crate) recordings: std::path::PathBuf,
    /// Whether `/metrics` is on a listener of its own.
    pub(crate) metrics_elsewhere: bool,
}

impl ApiState {
    /// Where recordings are.
    #[must_use]
    pub fn with_recordings(mut self, dir: std::path::PathBuf) -> Self {
        self.recordings = dir;
        self
    }

    /// Everything but the rate limit, which is off.
    #[must_use]
    pub fn new(
        store: Store,
        cluster: Cluster,
        node_name: String,
        version: String,
        health: Arc<dyn Health>,
    ) -> Self {
        Self {
            store,
            cluster,
            node_name,
            version,
            health,
            limiter: None,
            private_targets: PrivateTargets::Allow,
            require_allow_list: false,
            streams: crate::core::Streams::default(),
            listening: Arc::new(crate::listen::Passes::new()),
            recordings: std::path::PathBuf::from("recordings"),
            metrics_elsewhere: false,
        }
    }

    /// Grants each credential `per_second` requests a second, in bursts of as many; `None` means no limit.
    #[must_use]
    pub fn with_rate_limit(mut self, per_second: Option<NonZeroU32>) -> Self {
        self.limiter = per_second.map(|limit| Arc::new(RateLimiter::new(limit)));
        self
    }

    /// Which private addresses tenants may name.
    #[must_use]
    pub fn with_private_targets(mut self, targets: PrivateTargets) -> Self {
        self.private_targets = targets;
        self
    }

    /// Takes no trunk whose calls may come from anywhere.
    #[must_use]
    pub fn with_required_allow_list(mut self, required: bool) -> Self {
        self.require_allow_list = required;
        self
    }

    /// Leaves `/metrics` to [`metrics_router`].
    #[must_use]
    pub fn with_metrics_elsewhere(mut self, elsewhere: bool) -> Self {
        self.metrics_elsewhere = elsewhere;
        self
    }

    /// Waits until the change of this sequence number is in force on this node.
    pub(crate) async fn in_force(&self, sequence: store::Seq) -> Result<(), ApiError> {
        self.cluster.config_committed(sequence, COMMIT_LIMIT).await.map_err(|_| {
            ApiError::Unavailable(
                "The change is saved but not in force on this node yet: the call edge has not taken it in time.".to_owned(),
            )
        })
    }
}

fn described() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(crate::docs::base())
        .merge(crate::core::routes().into_inner())
        .merge(crate::admin::routes().into_inner())
        .merge(crate::hang_up::routes())
        .merge(crate::listen::routes())
        .merge(crate::health::routes())
}

/// The description of the API, as `/openapi.json` serves it.
#[must_use]
pub fn openapi() -> OpenApi {
    described().into_openapi()
}

/// The router with every operation, the description, the documentation page and JSON answers for what is not there.
pub fn router(state: ApiState) -> Router {
    let (router, openapi) = described().split_for_parts();
    router
        .merge(crate::docs::routes(&openapi))
        .fallback(|| async { ApiError::NotFound("Path") })
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
        .layer(axum::middleware::from_fn_with_state(state.clone(), crate::idempotency::once))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(axum::middleware::from_fn(crate::rate_limit::announce))
        .layer(axum::middleware::from_fn(crate::request_id::carry))
        .with_state(state)
}

/// `/metrics` alone, for a listener of its own.
pub fn metrics_router(state: ApiState) -> Router {
    let (router, _) = crate::health::metrics_route().split_for_parts();
    router.fallback(|| async { ApiError::NotFound("Path") }).with_state(state)
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    // The panic's message may hold what was sent, so it goes to the panic hook alone.
    tracing::error!("a handler panicked");
    ApiError::Internal.into_response()
}
