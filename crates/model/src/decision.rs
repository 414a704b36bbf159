//! Decision records: why a call was accepted or refused.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{ConversationId, DecisionId, Direction, OrganizationId, Timestamp, TraceMessage, TrunkId};

/// What one rule said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleResult {
    /// The rule allowed the call or chose for it.
    Pass,
    /// The rule refused the call.
    Fail,
    /// The rule did not apply.
    Skip,
}

impl RuleResult {
    /// The value as it stands in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

/// One rule tried. In a [`crate::PackedTrace`] the order of its fields is what tells them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The rule, for example `allowed_addresses`.
    pub rule: Cow<'static, str>,
    /// What it said.
    pub result: RuleResult,
    /// With which values.
    pub detail: String,
}

/// Why a call was refused or ended as it did. In a [`crate::PackedTrace`] the order of its fields is what tells them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// Identifier.
    pub id: DecisionId,
    /// When.
    pub at: Timestamp,
    /// Name of the node.
    pub node: String,
    /// Whose trunk or agent it was, when known.
    pub organization_id: Option<OrganizationId>,
    /// The trunk, when known.
    pub trunk_id: Option<TrunkId>,
    /// The call, when one began.
    pub conversation_id: Option<ConversationId>,
    /// Which way.
    pub direction: Direction,
    /// Transport source or target, `address:port/transport`.
    pub source: String,
    /// Caller as received.
    pub from: String,
    /// Callee as received.
    pub to: String,
    /// Caller as normalised, when it is a number.
    pub from_number: Option<String>,
    /// Callee as normalised, when it is a number.
    pub to_number: Option<String>,
    /// Each rule tried, in order.
    pub steps: Vec<Step>,
    /// SIP status sent or received; 0 when nothing was sent.
    pub status: u16,
    /// Short code of what decided, for example `src_not_allowed`.
    pub reason: String,
    /// One sentence on what to change.
    pub advice: String,
    /// Call-ID.
    pub sip_call_id: Option<String>,
    /// The messages of an INVITE that began no call, without their secrets. A call's own are in its trace.
    #[serde(default)]
    pub messages: Vec<TraceMessage>,
}

/// [`DecisionRecord::reason`] of an INVITE that is to come again with credentials.
pub const CHALLENGED: &str = "challenged";
/// [`DecisionRecord::reason`] of an INVITE that is to come again with a new nonce.
pub const NONCE_STALE: &str = "nonce_stale";

impl DecisionRecord {
    /// Whether the INVITE was only asked for credentials.
    #[must_use]
    pub fn is_challenge(&self) -> bool {
        [CHALLENGED, NONCE_STALE].contains(&self.reason.as_str())
    }
}
