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

impl Trace {
    /// Reads a packed trace; `None` when it is none.
    #[must_use]
    pub fn unpack(packed: &[u8]) -> Option<Self> {
        rmp_serde::from_slice(packed).ok()
    }
}

/// A trace as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedTrace {
    /// The call.
    pub conversation_id: ConversationId,
    /// Its owner.
    pub organization_id: OrganizationId,
    /// When it ended.
    pub at: Timestamp,
    /// MessagePack, in which messages stand as they are: JSON would escape every line end. Of a structure the values
    /// alone, in their order, so a new field comes last and has a default; the maps of earlier releases are read too.
    pub packed: Vec<u8>,
}

/// A [`Trace`] whose parts are borrowed, with messages that serialize as a [`TraceMessage`] does.
#[derive(Debug, Serialize)]
pub struct TraceView<'a, M> {
    /// The call.
    pub conversation_id: ConversationId,
    /// Its owner.
    pub organization_id: OrganizationId,
    /// When it ended.
    pub at: Timestamp,
    /// Its messages, in order.
    pub messages: M,
    /// Messages that are not among them, because there were too many.
    pub left_out: u32,
    /// Why it ended as it did.
    pub decision: Option<&'a DecisionRecord>,
}

impl<M: Serialize> TraceView<'_, M> {
    /// Packs it, with room for about `bytes` to begin with; `None` when its messages cannot be.
    #[must_use]
    pub fn pack(&self, bytes: usize) -> Option<PackedTrace> {
        let mut packed = Vec::with_capacity(bytes);
        self.serialize(&mut rmp_serde::Serializer::new(&mut packed)).ok()?;
        let Self { conversation_id, organization_id, at, .. } = *self;
        Some(PackedTrace { conversation_id, organization_id, at, packed })
    }
}

/// A [`TraceMessage`] whose parts are borrowed.
#[derive(Debug, Serialize)]
pub struct TraceMessageView<'a, R> {
    /// When.
    pub at: Timestamp,
    /// Whether we sent it.
    pub sent: bool,
    /// `UDP`, `TCP` or `TLS`.
    pub transport: &'a str,
    /// Our address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// The whole message, which serializes as text.
    pub raw: R,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DecisionId, Direction, RuleResult, Step};

    fn decision() -> DecisionRecord {
        DecisionRecord {
            id: DecisionId::new(),
            at: Timestamp::now(),
            node: "n".to_owned(),
            organization_id: None,
            trunk_id: None,
            conversation_id: Some(ConversationId::new()),
            direction: Direction::Inbound,
            source: "192.0.2.1:5060/UDP".to_owned(),
            from: "a".to_owned(),
            to: "b".to_owned(),
            from_number: None,
            to_number: Some("+14155550100".to_owned()),
            steps: vec![Step { rule: "outcome".into(), result: RuleResult::Pass, detail: "200".to_owned() }],
            status: 200,
            reason: "ended".to_owned(),
            advice: String::new(),
            sip_call_id: None,
            messages: Vec::new(),
        }
    }

    fn message() -> TraceMessage {
        TraceMessage {
            at: Timestamp(1_700_000_000_123_456),
            sent: true,
            transport: "TLS".to_owned(),
            local: "[2001:db8::1]:5061".parse().unwrap(),
            remote: "192.0.2.1:5060".parse().unwrap(),
            raw: "INVITE sip:a@b SIP/2.0\r\n\r\n\u{fffd}".to_owned(),
        }
    }

    #[test]
    fn what_is_packed_is_what_is_read() {
        let with_messages = DecisionRecord { messages: vec![message()], ..decision() };
        for decision in [None, Some(decision()), Some(with_messages)] {
            let trace = Trace {
                conversation_id: ConversationId::new(),
                organization_id: OrganizationId::new(),
                at: Timestamp::now(),
                messages: vec![message()],
                left_out: 3,
                decision,
            };
            let TraceMessage { at, sent, transport, local, remote, raw } = &trace.messages[0];
            let (at, sent, local, remote) = (*at, *sent, *local, *remote);
            let view = TraceView {
                conversation_id: trace.conversation_id,
                organization_id: trace.organization_id,
                at: trace.at,
                messages: [TraceMessageView { at, sent, transport, local, remote, raw }],
                left_out: trace.left_out,
                decision: trace.decision.as_ref(),
            };
            let packed = view.pack(0).unwrap();
            assert_eq!(packed.conversation_id, trace.conversation_id);
            assert_eq!(Trace::unpack(&packed.packed).unwrap(), trace);
            // As earlier releases kept it.
            let mut named = Vec::new();
            trace.serialize(&mut rmp_serde::Serializer::new(&mut named).with_struct_map()).unwrap();
            assert!(packed.packed.len() < named.len());
            assert_eq!(Trace::unpack(&named).unwrap(), trace);
        }
        assert_eq!(Trace::unpack(b"\xc1"), None);
    }
}
