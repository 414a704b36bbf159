//! The SIP messages of a call and why it ended as it did: for whoever must know at 3 a.m.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use model::{DecisionRecord, TraceMessage};
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::{IntoParams, ToSchema};

use super::conversations::{CONVERSATION, ConversationPath};
use super::decisions::DecisionOut;
use super::trunks::TRUNK;
use crate::ApiState;
use crate::auth::{Caller, ConversationsReadSensitive};
use crate::error::{ApiError, of};
use crate::extract::{At, Params};
use crate::pcap;
use crate::routes::{Routes, operations};
use crate::wire::{ConversationIdText, DecisionIdText, Text, TimeText, TrunkIdText, Wire};

/// The media type of capture files.
const PCAP: &str = "application/vnd.tcpdump.pcap";

/// A call's signalling.
#[derive(Serialize, ToSchema)]
#[schema(as = Trace)]
struct TraceOut {
    conversation_id: ConversationIdText,
    /// In the order they passed. Empty once they are forgotten.
    messages: Vec<MessageOut>,
    /// Messages that are not among them, because there were too many: the first ones and the last are kept.
    messages_left_out: u32,
    /// Why the call was let in, and why it ended as it did.
    decisions: Vec<DecisionOut>,
}

/// One step of the ladder.
#[derive(Serialize, ToSchema)]
#[schema(as = TraceMessage)]
struct MessageOut {
    at: TimeText,
    /// `received` or `sent`.
    direction: &'static str,
    /// `UDP`, `TCP` or `TLS`.
    transport: String,
    /// Ours, `address:port`.
    local_address: String,
    /// The peer's, `address:port`.
    remote_address: String,
    /// First line.
    start_line: String,
    /// The whole message. Credentials and SDES keys are masked with `*`.
    raw: String,
}

impl From<TraceMessage> for MessageOut {
    fn from(message: TraceMessage) -> Self {
        Self {
            at: Text(message.at),
            direction: if message.sent { "sent" } else { "received" },
            transport: message.transport,
            local_address: message.local.to_string(),
            remote_address: message.remote.to_string(),
            start_line: message.raw.lines().next().unwrap_or_default().to_owned(),
            raw: message.raw,
        }
    }
}

type TraceFormatText = Text<TraceFormat>;

/// The forms of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TraceFormat {
    Json,
    Pcap,
}

impl Wire for TraceFormat {
    const NAME: &'static str = "TraceFormat";
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "pcap" => Ok(Self::Pcap),
            _ => Err("must be json or pcap".to_owned()),
        }
    }
    fn show(&self) -> String {
        if *self == Self::Json { "json" } else { "pcap" }.to_owned()
    }
    fn describe() -> Object {
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["json", "pcap"])).build()
    }
}

/// In which form.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TraceParams {
    /// Stands above the Accept header.
    format: Option<TraceFormatText>,
}

/// Shows a call's SIP messages, live or ended, and the decisions on it. With `Accept: application/vnd.tcpdump.pcap` or
/// `format=pcap` the messages come as a capture file. They are kept for the latest calls only.
#[utoipa::path(get, path = "/core/conversations/{id}/trace", operation_id = "get_conversation_trace", tag = "Conversations",
    params(ConversationPath, TraceParams),
    responses((status = 200, description = "The messages and decisions; or the messages alone, as a capture file.",
        content((TraceOut = "application/json"), (Vec<u8> = "application/vnd.tcpdump.pcap")))))]
async fn trace(
    caller: Caller<ConversationsReadSensitive>,
    At(path): At<ConversationPath>,
    Params(params): Params<TraceParams>,
    State(state): State<ApiState>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let call = state.store.conversation(caller.organization, path.id.0).await.map_err(of(CONVERSATION))?;
    let live = if call.status.is_final() { None } else { state.cluster.trace(call.id).await.ok() };
    let (messages, left_out, own) = match live {
        Some((messages, left_out)) => (messages, left_out, None),
        None => match state.store.trace(&call).await? {
            Some(kept) => (kept.messages, kept.left_out, kept.decision),
            None => (Vec::new(), 0, None),
        },
    };
    if wants_pcap(params.format, &headers) {
        return Ok(capture(&call.id.to_string(), &messages));
    }
    let mut decisions: Vec<DecisionRecord> = state.store.decisions_of_call(&call).await?;
    if let Some(own) = own.filter(|own| decisions.iter().all(|decision| decision.id != own.id)) {
        decisions.push(own);
    }
    Ok(Json(TraceOut {
        conversation_id: Text(call.id),
        messages: messages.into_iter().map(MessageOut::from).collect(),
        messages_left_out: left_out,
        decisions: decisions.into_iter().map(DecisionOut::from).collect(),
    })
    .into_response())
}

/// The signalling of an INVITE that was refused.
#[derive(Serialize, ToSchema)]
#[schema(as = DecisionTrace)]
struct DecisionTraceOut {
    decision: DecisionOut,
    /// In the order they passed; a long one is cut at 4 KiB. Empty when the decision is about a call, which has its own
    /// trace.
    messages: Vec<MessageOut>,
}

/// Which decision.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct DecisionPath {
    /// The trunk.
    id: TrunkIdText,
    /// The decision.
    decision_id: DecisionIdText,
}

/// Shows a decision on a call of a trunk with the SIP messages it was made on, when the call was refused. With `Accept:
/// application/vnd.tcpdump.pcap` or `format=pcap` the messages come as a capture file.
#[utoipa::path(get, path = "/core/trunks/{id}/decisions/{decision_id}/trace", operation_id = "get_trunk_decision_trace",
    tag = "Trunks", params(DecisionPath, TraceParams),
    responses((status = 200, description = "The decision and its messages; or the messages alone, as a capture file.",
        content((DecisionTraceOut = "application/json"), (Vec<u8> = "application/vnd.tcpdump.pcap")))))]
async fn decision_trace(
    caller: Caller<ConversationsReadSensitive>,
    At(path): At<DecisionPath>,
    Params(params): Params<TraceParams>,
    State(state): State<ApiState>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (trunk, id) = (path.id.0, path.decision_id.0);
    state.store.trunk(caller.organization, trunk).await.map_err(of(TRUNK))?;
    let mut record = state.store.decision(caller.organization, trunk, id).await.map_err(of("Decision"))?;
    let messages = std::mem::take(&mut record.messages);
    if wants_pcap(params.format, &headers) {
        return Ok(capture(&id.to_string(), &messages));
    }
    let messages = messages.into_iter().map(MessageOut::from).collect();
    Ok(Json(DecisionTraceOut { decision: DecisionOut::from(record), messages }).into_response())
}

fn capture(name: &str, messages: &[TraceMessage]) -> Response {
    let name = format!("attachment; filename=\"{name}.pcap\"");
    let headers = [(header::CONTENT_TYPE, PCAP.to_owned()), (header::CONTENT_DISPOSITION, name)];
    (headers, pcap::file(messages)).into_response()
}

fn wants_pcap(format: Option<TraceFormatText>, headers: &HeaderMap) -> bool {
    match format {
        Some(Text(format)) => format == TraceFormat::Pcap,
        None => {
            let mut accepts = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
            accepts.any(|accept| accept.to_ascii_lowercase().contains(PCAP))
        }
    }
}

pub(super) fn routes() -> Routes {
    operations!(trace, decision_trace).parameter::<TraceFormatText>()
}
