//! One attempt at a carrier's target after the other, until one is the call (RFC 3263 4.3): the callee's phone rings
//! once at most.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::offer_answer::OfferAnswer;
use model::{Conversation, MediaEncryption, OutboundConfig, RuleResult, Step};
use signaling::{EndCause, Ended, Hop, Invite, Session, Transport};
use tokio::sync::mpsc;

use super::offer::local_media;
use super::{Call, Registered, linger, trace_key};
use crate::calls::{Key, MAILBOX, Mailbox};
use crate::edge::Edge;
use crate::outbound;
use crate::rtp_ports::RtpSocket;
use crate::settings::LargeRequests;
use crate::targets;
use crate::transport::connections::InUse;

/// How long a target may stay silent while there is another one: long enough for a repetition of the INVITE (T1) and
/// a slow path's round trip.
pub(super) const TRY: Duration = Duration::from_millis(750);

/// Size above which a request does not go by UDP while the path's MTU is unknown (RFC 3261 18.1.1), in bytes.
const LARGE: usize = 1_300;
/// Longest the connection for one may take.
const LARGE_CONNECT: Duration = Duration::from_millis(500);

/// What an INVITE offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OfferProfile {
    /// `RTP/AVP`, without keys.
    Avp,
    /// `RTP/SAVP`, with keys.
    Savp,
}

impl OfferProfile {
    /// What a carrier is offered first.
    pub(super) fn first(encryption: MediaEncryption) -> Self {
        match encryption {
            MediaEncryption::Disable => Self::Avp,
            MediaEncryption::Allow | MediaEncryption::Require => Self::Savp,
        }
    }
}

/// A target and what it is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) hop: Hop,
    pub(super) profile: OfferProfile,
}

/// What comes after an attempt that came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The call is over.
    Nothing,
    /// The next target, when there is one.
    OtherTarget,
    /// The same target, offered plain RTP.
    InClear,
}

/// The one place that decides it: a target that cannot be reached, is out of service or says nothing at all is left
/// for the next; a callee who has been asked, or rung, is not asked again. A target that cannot do SRTP is offered
/// plain RTP where the trunk allows it.
pub(super) fn after(attempt: Attempt, encryption: MediaEncryption, ended: &Ended) -> Next {
    let in_clear = attempt.profile == OfferProfile::Savp && encryption == MediaEncryption::Allow;
    if leaves_target(ended) {
        Next::OtherTarget
    } else if in_clear && refuses_encryption(ended) {
        Next::InClear
    } else {
        Next::Nothing
    }
}

/// Whether a target that came to this is left for the next.
pub(super) fn leaves_target(ended: &Ended) -> bool {
    match (ended.cause, ended.status.map(|status| status.0)) {
        _ if ended.rang => false,
        (EndCause::NoResponse, _) => true,
        // A target that works on the call may ring for it still.
        (EndCause::TransportError, _) => !ended.trying,
        (EndCause::RefusedByPeer, Some(503)) => true,
        (EndCause::RefusedByPeer, Some(408)) => !ended.trying,
        _ => false,
    }
}

/// Whether an offer of SRTP was refused for what it offers, and not by a callee.
pub(super) fn refuses_encryption(ended: &Ended) -> bool {
    let status = ended.status.map(|status| status.0);
    !ended.rang && ended.cause == EndCause::RefusedByPeer && matches!(status, Some(488 | 415 | 606))
}

/// An attempt's INVITE, on its way.
pub(super) struct Placed {
    pub(super) session: Box<Session>,
    pub(super) offer_answer: OfferAnswer,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) key: Key,
    pub(super) in_use: Option<InUse>,
}

/// The offer and the INVITE of an attempt.
fn draft(
    edge: &Edge,
    carrier: &OutboundConfig,
    conversation: &Conversation,
    attempt: Attempt,
    socket: &RtpSocket,
) -> (Invite, OfferAnswer) {
    let hop = attempt.hop;
    let local = local_media(edge, hop, hop.remote.ip(), Some(socket), carrier.media_encryption);
    let mut offer_answer = OfferAnswer::new(local);
    let offer = Bytes::from(match attempt.profile {
        OfferProfile::Avp => offer_answer.offer_in_clear(),
        OfferProfile::Savp => offer_answer.offer(),
    });
    (outbound::invite(edge, carrier, conversation, hop, offer), offer_answer)
}

/// The same attempt over TCP, where a UDP target is to get a large INVITE that way and takes connections
/// (RFC 3261 18.1.1).
pub(super) async fn fitted(
    edge: &Arc<Edge>,
    carrier: &OutboundConfig,
    conversation: &Conversation,
    attempt: Attempt,
    socket: &RtpSocket,
) -> Attempt {
    let hop = attempt.hop;
    if edge.settings.large_requests == LargeRequests::Udp || hop.transport.is_reliable() {
        return attempt;
    }
    let (invite, _) = draft(edge, carrier, conversation, attempt, socket);
    let mut sized = Session::connect(invite, hop, edge.identity(hop), Instant::now());
    if sized.poll_transmit().is_none_or(|transmit| transmit.bytes.len() <= LARGE) {
        return attempt;
    }
    let over_tcp = targets::reach(edge, Transport::Tcp, hop.remote, "", Some(LARGE_CONNECT)).await;
    over_tcp.map_or(attempt, |hop| Attempt { hop, ..attempt })
}

/// Sends the INVITE of an attempt.
pub(super) fn place(
    edge: &Edge,
    carrier: &OutboundConfig,
    conversation: &mut Conversation,
    attempt: Attempt,
    socket: &RtpSocket,
    mailbox: Mailbox,
) -> Placed {
    let hop = attempt.hop;
    let (invite, offer_answer) = draft(edge, carrier, conversation, attempt, socket);
    let (from, to) = (invite.from.clone(), invite.to.clone());
    let session = Box::new(Session::connect(invite, hop, edge.identity(hop), Instant::now()));
    let key = edge.calls.local_key(session.call_id(), session.local_tag());
    let in_use = edge.transports.hold(hop, Some(mailbox.clone()));
    edge.calls.add_dialog(key, mailbox);
    edge.traces.begin(key);
    conversation.sip_call_id = Some(session.call_id().to_owned());
    Placed { session, offer_answer, from, to, key, in_use }
}

impl Call {
    /// Takes the place of the attempt that came to nothing, whose session absorbs what is still to come in a task of
    /// its own.
    pub(super) fn begin_again(&mut self, hop: Hop, placed: Placed, registered: &mut Registered) {
        let Placed { session, offer_answer, from, to, key, in_use } = placed;
        self.edge.traces.carry_on(trace_key(&self.edge, &self.session), key);
        let earlier = std::mem::replace(&mut self.session, session);
        let keys = std::mem::replace(&mut registered.keys, vec![key]);
        set_aside(&self.edge, earlier, keys);
        self.hop = hop;
        self.in_use = in_use;
        self.offer_answer = offer_answer;
        self.offered = true;
        (self.from, self.to) = (from, to);
        self.record();
    }

    /// Writes down that the carrier does not want SRTP.
    pub(super) fn note_refused_encryption(&mut self, ended: &Ended) {
        let status = ended.status.map_or(0, |status| status.0);
        let detail = format!("the carrier answered {status} to SRTP; plain RTP is offered once");
        self.steps.push(Step { rule: "media_encryption".into(), result: RuleResult::Fail, detail });
        self.conversation.notes.push(format!(
            "encryption_refused: the carrier answered {status} to SRTP, so the call was offered again as plain RTP"
        ));
    }

    /// Writes down what became of an attempt that is not the last.
    pub(super) fn note_attempt(&mut self, ended: &Ended) {
        let told = match (ended.status, &ended.phrase) {
            (Some(status), Some(phrase)) => format!("answered {status} {phrase}"),
            (Some(status), None) => format!("answered {status}"),
            (None, _) if ended.cause == EndCause::TransportError => "cannot be reached".to_owned(),
            (None, _) => format!("did not answer within {} ms", TRY.as_millis()),
        };
        let detail = format!("{}/{} {told}", self.hop.remote, self.hop.transport.as_via());
        self.steps.push(Step { rule: "target".into(), result: RuleResult::Fail, detail });
    }
}

fn set_aside(edge: &Arc<Edge>, session: Box<Session>, keys: Vec<Key>) {
    let (mailbox, inputs) = mpsc::channel(MAILBOX);
    for &key in &keys {
        edge.calls.add_dialog(key, mailbox.clone());
    }
    let registered = Registered { edge: Arc::clone(edge), keys };
    tokio::spawn(linger(session, inputs, registered, None));
}

#[cfg(test)]
mod tests {
    use super::*;
    use signaling::StatusCode;

    #[test]
    fn only_a_target_that_did_nothing_is_left_for_the_next() {
        let hop = Hop { transport: Transport::Udp, remote: ([192, 0, 2, 1], 5060).into(), flow: 0 };
        let attempt = Attempt { hop, profile: OfferProfile::Avp };
        let ended = |cause, status: Option<u16>, rang, trying| Ended {
            cause,
            status: status.map(StatusCode),
            phrase: None,
            reason: None,
            retry_after: None,
            warning: None,
            rang,
            trying,
        };
        let next = |cause, status, rang, trying| {
            after(attempt, MediaEncryption::Allow, &ended(cause, status, rang, trying))
        };
        for cause in [EndCause::NoResponse, EndCause::TransportError] {
            assert_eq!(next(cause, None, false, false), Next::OtherTarget);
            assert_eq!(next(cause, None, true, true), Next::Nothing);
        }
        let refused = EndCause::RefusedByPeer;
        assert_eq!(next(refused, Some(503), false, true), Next::OtherTarget);
        assert_eq!(next(refused, Some(408), false, false), Next::OtherTarget);
        assert_eq!(next(refused, Some(408), false, true), Next::Nothing);
        assert_eq!(next(refused, Some(503), true, true), Next::Nothing);
        for status in [403, 404, 480, 484, 486, 500, 600, 603, 604] {
            assert_eq!(next(refused, Some(status), false, false), Next::Nothing, "{status}");
        }
        for status in [488, 415, 606] {
            let secure = Attempt { profile: OfferProfile::Savp, ..attempt };
            let after =
                |attempt, policy, rang| after(attempt, policy, &ended(refused, Some(status), rang, true));
            assert_eq!(after(secure, MediaEncryption::Allow, false), Next::InClear);
            assert_eq!(after(secure, MediaEncryption::Allow, true), Next::Nothing);
            assert_eq!(after(secure, MediaEncryption::Require, false), Next::Nothing);
            assert_eq!(after(attempt, MediaEncryption::Allow, false), Next::Nothing, "once only");
        }
        for cause in [EndCause::CancelledByUs, EndCause::Challenged, EndCause::ByeFromPeer] {
            assert_eq!(next(cause, Some(503), false, false), Next::Nothing, "{cause:?}");
        }
    }
}
