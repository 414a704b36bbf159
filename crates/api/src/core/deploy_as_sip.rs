//! An agent as a dialable SIP URI.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use cluster::Cluster;
use model::AgentId;
use serde::Serialize;
use utoipa::ToSchema;

use super::agents::{AGENT, AgentPath};
use crate::ApiState;
use crate::auth::{AgentsManage, Caller};
use crate::error::{ApiError, of};
use crate::etag::IfMatch;
use crate::extract::At;
use crate::routes::{Routes, operations};

/// Where an agent can be dialled.
#[derive(Serialize, ToSchema)]
#[schema(as = SipEndpoint)]
pub(super) struct SipEndpointOut {
    /// The agent's SIP URI; it can be dialled as it stands.
    uri: String,
    /// Whether the agent is reachable at that URI.
    deployed: bool,
}

impl SipEndpointOut {
    /// The agent's endpoint; `None` while no SIP listener is up.
    pub(super) fn of(cluster: &Cluster, agent: AgentId, deployed: bool) -> Option<Self> {
        cluster.sip_presence().map(|presence| Self { uri: presence.uri(&agent.to_string()), deployed })
    }
}

/// Exposes the agent at its SIP URI. Doing so again changes nothing.
#[utoipa::path(post, path = "/core/agents/{id}/deploy-as-sip", operation_id = "deploy_agent_as_sip", tag = "Agents",
    params(AgentPath),
    responses((status = 200, description = "The endpoint, answered by this node.", body = SipEndpointOut),
        (status = 409, description = "The agent has no published version.", body = crate::error::ErrorOut)))]
async fn deploy(
    caller: Caller<AgentsManage>,
    At(path): At<AgentPath>,
    State(state): State<ApiState>,
) -> Result<Json<SipEndpointOut>, ApiError> {
    let sequence = state.store.deploy_sip(caller.organization, path.id.0).await.map_err(of(AGENT))?;
    state.in_force(sequence).await?;
    SipEndpointOut::of(&state.cluster, path.id.0, true).map(Json).ok_or_else(|| {
        ApiError::Unavailable(
            "The agent is deployed, but no SIP listener is up, so its URI cannot be told yet.".to_owned(),
        )
    })
}

/// Takes the agent off its SIP URI. Calls in progress go on.
#[utoipa::path(delete, path = "/core/agents/{id}/deploy-as-sip", operation_id = "undeploy_agent_as_sip",
    tag = "Agents", params(AgentPath),
    responses((status = 204, description = "The URI is no longer answered.")))]
async fn undeploy(
    caller: Caller<AgentsManage>,
    At(path): At<AgentPath>,
    State(state): State<ApiState>,
    IfMatch(precondition): IfMatch,
) -> Result<StatusCode, ApiError> {
    let gone = state.store.undeploy_sip(caller.organization, path.id.0, &precondition).await;
    let sequence = gone.map_err(of(AGENT))?;
    state.in_force(sequence).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn routes() -> Routes {
    operations!(deploy, undeploy)
}
