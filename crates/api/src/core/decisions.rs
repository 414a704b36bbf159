//! Decision records: why calls of a trunk were refused.

use axum::extract::State;
use axum::http::Uri;
use model::DecisionRecord;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::trunks::{TRUNK, TrunkPath};
use crate::ApiState;
use crate::auth::{Caller, TrunksRead};
use crate::error::{ApiError, of};
use crate::extract::{At, Params};
use crate::pagination::{CursorText, LimitText, Listed, listed, page};
use crate::routes::{Routes, operations};
use crate::wire::{ConversationIdText, DecisionIdText, DirectionText, Text, TimeText, TrunkIdText};

/// Why a call was refused.
#[derive(Serialize, ToSchema)]
#[schema(as = Decision)]
pub(super) struct DecisionOut {
    id: DecisionIdText,
    at: TimeText,
    /// The node that decided.
    node: String,
    #[schema(required)]
    trunk_id: Option<TrunkIdText>,
    /// The call, when one began.
    #[schema(required)]
    conversation_id: Option<ConversationIdText>,
    direction: DirectionText,
    /// Transport source or target, `address:port/transport`.
    source: String,
    /// Caller as received.
    from: String,
    /// Callee as received.
    to: String,
    /// Caller as normalised, when it is a number.
    #[schema(required)]
    from_number: Option<String>,
    /// Callee as normalised, when it is a number.
    #[schema(required)]
    to_number: Option<String>,
    /// Each rule tried, in order.
    steps: Vec<StepOut>,
    /// SIP status sent or received; 0 when nothing was sent.
    status: u16,
    /// Short code of what decided.
    reason: String,
    /// What to change.
    advice: String,
    #[schema(required)]
    sip_call_id: Option<String>,
}

/// One rule tried.
#[derive(Serialize, ToSchema)]
#[schema(as = DecisionStep)]
pub(super) struct StepOut {
    /// The rule, for example `allowed_addresses`.
    rule: String,
    /// `pass`, `fail` or `skip`.
    result: &'static str,
    /// With which values.
    detail: String,
}

impl From<model::Step> for StepOut {
    fn from(step: model::Step) -> Self {
        Self { rule: step.rule.to_string(), result: step.result.as_str(), detail: step.detail }
    }
}

impl From<DecisionRecord> for DecisionOut {
    fn from(record: DecisionRecord) -> Self {
        Self {
            id: Text(record.id),
            at: Text(record.at),
            node: record.node,
            trunk_id: record.trunk_id.map(Text),
            conversation_id: record.conversation_id.map(Text),
            direction: Text(record.direction),
            source: record.source,
            from: record.from,
            to: record.to,
            from_number: record.from_number,
            to_number: record.to_number,
            steps: record.steps.into_iter().map(StepOut::from).collect(),
            status: record.status,
            reason: record.reason,
            advice: record.advice,
            sip_call_id: record.sip_call_id,
        }
    }
}

/// Which page.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DecisionParams {
    limit: Option<LimitText>,
    cursor: Option<CursorText>,
}

/// Lists the refused calls of a trunk, newest first. Old ones are forgotten.
#[utoipa::path(get, path = "/core/trunks/{id}/decisions", operation_id = "list_trunk_decisions", tag = "Trunks",
    params(TrunkPath, DecisionParams),
    responses((status = 200, description = "A page of decisions.", body = [DecisionOut],
        headers(("X-Next-Cursor" = String, description = "Cursor of the next page, when there is one."),
                ("Link" = String, description = "The next page as rel=next, when there is one.")))))]
async fn list(
    caller: Caller<TrunksRead>,
    At(path): At<TrunkPath>,
    Params(params): Params<DecisionParams>,
    State(state): State<ApiState>,
    uri: Uri,
) -> Result<Listed, ApiError> {
    let page = page(params.limit, params.cursor);
    state.store.trunk(caller.organization, path.id.0).await.map_err(of(TRUNK))?;
    let rows = state.store.decisions(caller.organization, path.id.0, page).await.map_err(of(TRUNK))?;
    Ok(listed(uri, &page, rows, |record| (record.at, record.id.0), DecisionOut::from))
}

pub(super) fn routes() -> Routes {
    operations!(list)
}
