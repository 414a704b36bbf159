//! The messages of a call, as they stood on the wire, without their secrets.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{ConversationId, DecisionRecord, OrganizationId, Timestamp};

/// One message, received or sent. In a [`PackedTrace`] the order of its fields is what tells them.
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
    /// alone, in their order: a new field comes last and has a default, none is skipped, and none ever changes its
    /// place. The maps of earlier releases are read too.
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
        }
        assert_eq!(Trace::unpack(b"\xc1"), None);
    }

    /// What [`kept`] was packed as, in hexadecimal: in the order of the fields, and with their names by earlier releases.
    const IN_ORDER: &str = "96c41000000000000000000000000000000001c41000000000000000000000000000000002cf00060a24182022409196cf00060a24181e4001c3a355445081a2563692dc001020010dccb8000000000000000000000001cd13c581a256349294ccc0000201cd13c4b25349502f322e3020323030204f4b0d0a0d0a03dc0012c41000000000000000000000000000000003cf00060a2418202241a16ec0c41000000000000000000000000000000004c41000000000000000000000000000000001a7696e626f756e64b23139322e302e322e313a353036302f554450a161a162c0ac2b31343135353535303130309193a76f7574636f6d65a470617373a3323030ccc8a5656e646564a178a16390";
    const WITH_NAMES: &str = "86af636f6e766572736174696f6e5f6964c41000000000000000000000000000000001af6f7267616e697a6174696f6e5f6964c41000000000000000000000000000000002a26174bb323032332d31312d31345432323a31333a32302e3132333435365aa86d657373616765739186a26174bb323032332d31312d31345432323a31333a32302e3030303030315aa473656e74c3a97472616e73706f7274a3554450a56c6f63616c81a2563692dc001020010dccb8000000000000000000000001cd13c5a672656d6f746581a256349294ccc0000201cd13c4a3726177b25349502f322e3020323030204f4b0d0a0d0aa86c6566745f6f757403a86465636973696f6ede0011a26964c41000000000000000000000000000000003a26174bb323032332d31312d31345432323a31333a32302e3132333435375aa46e6f6465a16eaf6f7267616e697a6174696f6e5f6964c0a87472756e6b5f6964c41000000000000000000000000000000004af636f6e766572736174696f6e5f6964c41000000000000000000000000000000001a9646972656374696f6ea7696e626f756e64a6736f75726365b23139322e302e322e313a353036302f554450a466726f6da161a2746fa162ab66726f6d5f6e756d626572c0a9746f5f6e756d626572ac2b3134313535353530313030a573746570739183a472756c65a76f7574636f6d65a6726573756c74a470617373a664657461696ca3323030a6737461747573ccc8a6726561736f6ea5656e646564a6616476696365a178ab7369705f63616c6c5f6964a163";

    fn kept() -> Trace {
        let message = TraceMessage {
            at: Timestamp(1_700_000_000_000_001),
            sent: true,
            transport: "UDP".to_owned(),
            local: "[2001:db8::1]:5061".parse().unwrap(),
            remote: "192.0.2.1:5060".parse().unwrap(),
            raw: "SIP/2.0 200 OK\r\n\r\n".to_owned(),
        };
        let id = uuid::Uuid::from_u128;
        let decision = DecisionRecord {
            id: DecisionId(id(3)),
            at: Timestamp(1_700_000_000_123_457),
            trunk_id: Some(crate::TrunkId(id(4))),
            conversation_id: Some(ConversationId(id(1))),
            advice: "x".to_owned(),
            sip_call_id: Some("c".to_owned()),
            ..decision()
        };
        Trace {
            conversation_id: ConversationId(id(1)),
            organization_id: OrganizationId(id(2)),
            at: Timestamp(1_700_000_000_123_456),
            messages: vec![message],
            left_out: 3,
            decision: Some(decision),
        }
    }

    #[test]
    fn what_was_kept_is_read() {
        for hex in [IN_ORDER, WITH_NAMES] {
            let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            let packed: Vec<u8> = (0..hex.len()).step_by(2).map(digit).collect();
            assert_eq!(Trace::unpack(&packed).unwrap(), kept());
        }
    }
}
