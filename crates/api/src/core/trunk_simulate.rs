//! What a call to a trunk would get, without a call.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use cluster::Simulate;
use model::Invalid;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::decisions::StepOut;
use super::trunks::{TRUNK, TrunkPath};
use crate::ApiState;
use crate::auth::{Caller, TrunksRead};
use crate::error::{ApiError, of};
use crate::extract::{At, Body};
use crate::routes::{Routes, operations};
use crate::wire::{AgentIdText, AgentVersionIdText, Text};

/// Longest caller or callee, in characters.
const MAX_NAME: usize = 256;
/// How long the edge may take; a routing webhook is asked for real.
const LIMIT: Duration = Duration::from_secs(35);

/// A call that might come.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TrunkSimulate)]
struct SimulateIn {
    /// The transport source: an address, with or without a port.
    #[schema(example = "203.0.113.7", min_length = 2, max_length = 64)]
    source: String,
    /// Caller, as the From header's user would carry it.
    #[schema(max_length = 256, example = "+4930123456")]
    from: String,
    /// Callee, as the Request-URI's user would carry it: a number, or an agent's UUID.
    #[schema(max_length = 256, example = "+14155550100")]
    to: String,
}

/// What the call would get.
#[derive(Serialize, ToSchema)]
#[schema(as = TrunkSimulation)]
struct SimulationOut {
    accepted: bool,
    /// SIP status; 0 when nothing would be sent.
    status: u16,
    /// Who would answer.
    #[schema(required)]
    agent_id: Option<AgentIdText>,
    #[schema(required)]
    agent_version_id: Option<AgentVersionIdText>,
    /// Short code of what decided.
    reason: String,
    /// Each rule tried, in order.
    steps: Vec<StepOut>,
    /// What to change; what to know when the call would be accepted.
    advice: String,
}

fn source(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    text.parse().ok().or_else(|| bare.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 5060)))
}

/// Tells what an INVITE would get: the same rules decide as for a real one. Nothing is dialled and nothing recorded.
#[utoipa::path(post, path = "/core/trunks/{id}/simulate", operation_id = "simulate_trunk", tag = "Trunks",
    params(TrunkPath), request_body = SimulateIn,
    responses((status = 200, description = "What the call would get.", body = SimulationOut)))]
async fn simulate(
    caller: Caller<TrunksRead>,
    At(path): At<TrunkPath>,
    State(state): State<ApiState>,
    Body(body): Body<SimulateIn>,
) -> Result<Json<SimulationOut>, ApiError> {
    let fault = |field: &str, rule: &str| ApiError::body(Invalid::field(field, rule));
    let Some(source) = source(&body.source) else {
        return Err(fault("source", "must be an IPv4 or IPv6 address, with or without a port"));
    };
    for (field, value) in [("from", &body.from), ("to", &body.to)] {
        if value.chars().count() > MAX_NAME {
            return Err(fault(field, "is longer than 256 characters"));
        }
        model::invalid::no_control_characters(field, value).map_err(ApiError::body)?;
    }
    state.store.trunk(caller.organization, path.id.0).await.map_err(of(TRUNK))?;
    let call = Simulate {
        organization: caller.organization,
        trunk_id: path.id.0,
        source,
        from: body.from,
        to: body.to,
    };
    let simulated = super::edge(LIMIT, state.cluster.simulate(call)).await?;
    Ok(Json(SimulationOut {
        accepted: simulated.accepted,
        status: simulated.status,
        agent_id: simulated.agent_id.map(Text),
        agent_version_id: simulated.agent_version_id.map(Text),
        reason: simulated.reason,
        steps: simulated.steps.into_iter().map(StepOut::from).collect(),
        advice: simulated.advice,
    }))
}

pub(super) fn routes() -> Routes {
    operations!(simulate)
}
