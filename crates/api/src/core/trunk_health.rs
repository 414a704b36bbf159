//! What a trunk's last calls and its last probe say of it.

use axum::Json;
use axum::extract::State;
use cluster::{Registration, RegistrationState};
use model::{Conversation, ConversationStatus, MediaEncryption, Timestamp, Transport, Trunk};
use serde::Serialize;
use store::{ConversationFilter, Page, Probe};
use utoipa::ToSchema;

use super::trunks::{TRUNK, TrunkPath};
use crate::ApiState;
use crate::auth::{Caller, TrunksRead};
use crate::error::{ApiError, of};
use crate::extract::At;
use crate::routes::{Routes, operations};
use crate::wire::{ConversationIdText, Text, TimeText, TrunkIdText};

/// Calls looked at, newest first.
const SAMPLE: u32 = 100;

/// A trunk's health.
#[derive(Serialize, ToSchema)]
#[schema(as = TrunkHealth)]
struct HealthOut {
    trunk_id: TrunkIdText,
    #[schema(inline)]
    state: StateOut,
    /// Since when; null while the state is `unknown`.
    #[schema(required)]
    since: Option<TimeText>,
    /// The newest call that did not reach its callee, or was refused.
    #[schema(required)]
    last_error: Option<LastErrorOut>,
    /// Share of the last calls that were answered, 0 to 1; null without calls that are over.
    #[schema(required, minimum = 0, maximum = 1)]
    answer_seizure_ratio: Option<f64>,
    /// Calls looked at for the ratio: those that are over, of the last hundred.
    sampled_calls: usize,
    /// Calls that are not over.
    active_calls: i64,
    /// What the carrier last answered to OPTIONS (`POST …/test`); null when it was never asked.
    #[schema(required)]
    last_probe: Option<ProbeOut>,
    /// Whether any source may send calls: `allowed_addresses` is null.
    open: bool,
    /// The registration that the trunk keeps with its carrier; null where `outbound_config.register` is not set.
    #[schema(required)]
    registration: Option<RegistrationOut>,
    /// What the operator should know of the trunk's settings.
    notes: Vec<String>,
}

/// What the carrier answered to OPTIONS.
#[derive(Serialize, ToSchema)]
#[schema(as = TrunkProbe)]
struct ProbeOut {
    at: TimeText,
    /// Since when it answers, or does not, as it does now.
    since: TimeText,
    reachable: bool,
    /// SIP status of its answer.
    #[schema(required)]
    sip_status: Option<u16>,
    detail: String,
}

impl From<Probe> for ProbeOut {
    fn from(probe: Probe) -> Self {
        Self {
            at: Text(probe.at),
            since: Text(probe.since),
            reachable: probe.reachable,
            sip_status: probe.sip_status,
            detail: probe.detail,
        }
    }
}

/// A registration with the carrier.
#[derive(Serialize, ToSchema)]
#[schema(as = TrunkRegistration)]
struct RegistrationOut {
    #[schema(inline)]
    state: RegistrationStateOut,
    since: TimeText,
    /// When the binding ends unless it is refreshed, which it is before.
    #[schema(required)]
    expires_at: Option<TimeText>,
    /// What the registrar said last, or why it was not reached.
    detail: String,
}

/// How a registration stands.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum RegistrationStateOut {
    /// The first REGISTER is under way.
    Trying,
    /// The carrier knows where to send calls.
    Registered,
    /// It does not; it is tried again.
    Failed,
}

impl From<Registration> for RegistrationOut {
    fn from(registration: Registration) -> Self {
        Self {
            state: match registration.state {
                RegistrationState::Trying => RegistrationStateOut::Trying,
                RegistrationState::Registered => RegistrationStateOut::Registered,
                RegistrationState::Failed => RegistrationStateOut::Failed,
            },
            since: Text(registration.since),
            expires_at: registration.expires_at.map(Text),
            detail: registration.detail,
        }
    }
}

/// What the newest of probes and call outcomes says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum StateOut {
    /// No call is over yet, and the carrier was never probed.
    Unknown,
    /// The last call reached the other side, or the carrier answered a later probe.
    Ok,
    /// The last call did not, or the carrier was silent at a later probe.
    Failing,
}

/// Why a call came to nothing.
#[derive(Serialize, ToSchema)]
#[schema(as = TrunkLastError)]
struct LastErrorOut {
    at: TimeText,
    #[schema(required)]
    conversation_id: Option<ConversationIdText>,
    /// SIP status, when there was one.
    #[schema(required)]
    sip_status: Option<u16>,
    reason: String,
    /// What to change; null when only the call's record is known.
    #[schema(required)]
    advice: Option<String>,
}

/// Whether a call that is over says the trunk works: it was answered, or the far end itself declined.
fn reached(call: &Conversation) -> bool {
    call.answered_at.is_some() || call.status != ConversationStatus::Failed
}

/// The state that the newest calls are in, and since which call's end; a probe after the last call's end knows better.
fn state(over: &[&Conversation], probe: Option<&Probe>) -> (StateOut, Option<Timestamp>) {
    let ended = over.first().map(|call| call.ended_at.unwrap_or(call.updated_at));
    if let Some(probe) = probe.filter(|probe| ended.is_none_or(|ended| probe.at > ended)) {
        let state = if probe.reachable { StateOut::Ok } else { StateOut::Failing };
        return (state, Some(probe.since));
    }
    let Some(newest) = over.first() else { return (StateOut::Unknown, None) };
    let now = reached(newest);
    let run = over.iter().take_while(|call| reached(call) == now);
    let since = run.last().map(|call| call.ended_at.unwrap_or(call.updated_at));
    (if now { StateOut::Ok } else { StateOut::Failing }, since)
}

fn notes(trunk: &Trunk) -> Vec<String> {
    let mut notes = Vec::new();
    let (inbound, outbound) = (trunk.inbound_config.as_ref(), trunk.outbound_config.as_ref());
    if inbound.is_some_and(|config| config.media_encryption == MediaEncryption::Require) {
        notes.push("inbound_config.media_encryption is SIP_MEDIA_ENCRYPT_REQUIRE: the keys of calls that come over UDP or TCP are sent in clear; only TLS hides them.".to_owned());
    }
    if let Some(config) = outbound.filter(|config| {
        config.media_encryption == MediaEncryption::Require && config.transport != Transport::Tls
    }) {
        notes.push(format!(
            "outbound_config.media_encryption is SIP_MEDIA_ENCRYPT_REQUIRE over {}: the keys are sent in clear; only SIP_TRANSPORT_TLS hides them.",
            config.transport
        ));
    }
    if outbound.is_none() {
        notes.push("outbound_config is not set: the trunk places no calls.".to_owned());
    }
    if open(trunk) {
        notes.push("inbound_config.allowed_addresses is not set: any source may send calls.".to_owned());
    }
    notes
}

fn open(trunk: &Trunk) -> bool {
    trunk.inbound_config.as_ref().is_none_or(|config| config.allowed_addresses.is_none())
}

/// Shows what the last calls and the last probe say of a trunk.
#[utoipa::path(get, path = "/core/trunks/{id}/health", operation_id = "get_trunk_health", tag = "Trunks",
    params(TrunkPath),
    responses((status = 200, description = "The trunk's health.", body = HealthOut)))]
async fn health(
    caller: Caller<TrunksRead>,
    At(path): At<TrunkPath>,
    State(api): State<ApiState>,
) -> Result<Json<HealthOut>, ApiError> {
    let (organization, id) = (caller.organization, path.id.0);
    let trunk = api.store.trunk(organization, id).await.map_err(of(TRUNK))?;
    let filter = ConversationFilter { trunk_id: Some(id), ..ConversationFilter::default() };
    let calls = api.store.conversations(organization, filter, Page { limit: SAMPLE, before: None }).await?;
    let refusals = api.store.decisions(organization, id, Page { limit: 1, before: None }).await;
    let refusal = refusals.map_err(of(TRUNK))?.into_iter().next();
    let probe = api.store.last_probe(organization, id).await?;
    let active_calls = api.store.open_calls(organization, id).await?;
    let over: Vec<&Conversation> = calls.iter().filter(|call| call.status.is_final()).collect();
    let answered = over.iter().filter(|call| call.answered_at.is_some()).count();
    let (state, since) = state(&over, probe.as_ref());
    let failed = over.iter().find(|call| !reached(call)).map(|call| LastErrorOut {
        at: Text(call.ended_at.unwrap_or(call.updated_at)),
        conversation_id: Some(Text(call.id)),
        sip_status: call.sip_status,
        reason: call.reason.clone().unwrap_or_else(|| call.status.as_str().to_owned()),
        advice: None,
    });
    let refused = refusal.map(|record| LastErrorOut {
        at: Text(record.at),
        conversation_id: record.conversation_id.map(Text),
        sip_status: Some(record.status).filter(|status| *status != 0),
        reason: record.reason,
        advice: Some(record.advice),
    });
    let silent = probe.as_ref().filter(|probe| !probe.reachable).map(|probe| LastErrorOut {
        at: Text(probe.at),
        conversation_id: None,
        sip_status: None,
        reason: "no_answer_to_options".to_owned(),
        advice: Some(probe.detail.clone()),
    });
    Ok(Json(HealthOut {
        trunk_id: Text(id),
        state,
        since: since.map(Text),
        last_error: [refused, failed, silent].into_iter().flatten().max_by_key(|error| error.at),
        // At most a hundred of each, which a float holds exactly.
        answer_seizure_ratio: (!over.is_empty()).then(|| answered as f64 / over.len() as f64),
        sampled_calls: over.len(),
        active_calls,
        last_probe: probe.map(Into::into),
        open: open(&trunk),
        registration: api.cluster.registration(id).map(Into::into),
        notes: notes(&trunk),
    }))
}

pub(super) fn routes() -> Routes {
    operations!(health)
}
