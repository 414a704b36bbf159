//! The messages of a call, as they stood on the wire, without their secrets.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{ConversationId, DecisionRecord, OrganizationId, Timestamp};

/// One message, received or sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceMessage {
    /// When.
    pub at: Timestamp,
    /// Whether we sent it.
    pub sent: bool,
    /// `UDP`, `TCP` or `TLS`.
    pub transport: String,
    /// Our address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// The whole message. Credentials and keys are masked with `*`, as many as they had characters.
    pub raw: String,
}

/// What is kept of a call once it has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The call.
    pub conversation_id: ConversationId,
    /// Its owner.
    pub organization_id: OrganizationId,
    /// When it ended.
    pub at: Timestamp,
    /// Its messages, in order.
    pub messages: Vec<TraceMessage>,
    /// Messages that are not among them, because there were too many.
    pub left_out: u32,
    /// Why it ended as it did.
    pub decision: Option<DecisionRecord>,
}
