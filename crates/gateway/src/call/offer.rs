//! The media of a call: offers and answers of its dialog, and the leg on a media shard.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use media::offer_answer::{
    Direction, Encryption, Forbidden, LocalMedia, Negotiated, OfferError, Random, Srtp,
};
use media::session::{Believed, SessionConfig};
use media::srtp::Suite;
use model::{Direction as CallDirection, MediaEncryption, TrunkId};
use signaling::{Hop, StatusCode, Transport};

use super::Call;
use crate::advertise;
use crate::agent_link::ToAgent;
use crate::edge::{Edge, fill, random};
use crate::rtp_ports::RtpSocket;
use crate::sip_status::{self, OurReason};

/// Suites offered over UDP: an INVITE with all of them would not fit a datagram (RFC 3261 18.1.1).
const SUITES_OVER_UDP: &[Suite] = &[Suite::AeadAes256Gcm, Suite::AesCm128HmacSha1_80];

/// Where a caller's media is expected: at the address its offer names when that is of another family than the
/// signalling, at the signalling's otherwise.
pub(super) fn media_towards(offer: Option<&[u8]>, hop: Hop) -> IpAddr {
    let signalling = hop.remote.ip().to_canonical();
    let named = offer.and_then(media::offer_answer::offered_address);
    named.filter(|named| named.is_ipv4() != signalling.is_ipv4()).unwrap_or(signalling)
}

/// Our side of the media of a call over `hop`, towards `near`.
pub(super) fn local_media(
    edge: &Edge,
    hop: Hop,
    near: IpAddr,
    socket: Option<&RtpSocket>,
    policy: MediaEncryption,
) -> LocalMedia {
    let seed = random();
    let mut session_id = [0u8; 8];
    session_id.copy_from_slice(&seed[..8]);
    LocalMedia {
        address: edge.media_address(near),
        port: socket.map_or(0, RtpSocket::port),
        // 62 bits: some peers read it as a signed number (RFC 4566 5.2 asks for a numeric string only).
        session_id: u64::from_be_bytes(session_id) >> 2,
        encryption: encryption(policy, hop),
        forbidden: forbidden(edge, hop),
        ..LocalMedia::default()
    }
}

/// Where the other side's media may not be: with whom only this machine hears, when the peer is elsewhere, and at
/// another call's port. A carrier that leaves the media alone may hand one of our calls to another; whoever no trunk
/// lists would have two of them talk to each other.
fn forbidden(edge: &Edge, hop: Hop) -> Forbidden {
    let peer = hop.remote.ip().to_canonical();
    let listed = edge.directory.load().lists(peer);
    let rtp_ports = Arc::clone(&edge.rtp_ports);
    Forbidden::by(move |to| {
        let is_call = || !listed && rtp_ports.is_open(to.port()) && advertise::is_ours(to.ip());
        to.ip().is_loopback() && !advertise::is_ours(peer) || is_call()
    })
}

/// Who besides the address in the peer's SDP may send RTP.
pub(super) fn believed(
    edge: &Edge,
    trunk: Option<TrunkId>,
    hop: Hop,
    socket: Option<&RtpSocket>,
) -> Believed {
    let directory = edge.directory.load();
    let trunk = trunk.and_then(|id| directory.trunk(id));
    let media = trunk.and_then(|t| t.inbound_config.as_ref()).and_then(|c| c.media_addresses.as_ref());
    Believed {
        signalling_source: Some(hop.remote.ip()),
        may_be_forged: false,
        media_addresses: media.into_iter().flatten().map(model::AddressRange::net).collect(),
        stale: socket.and_then(RtpSocket::last_peer),
    }
}

/// Whether a request over a hop may come from elsewhere than it says.
fn is_forgeable(edge: &Edge, hop: Hop) -> bool {
    hop.transport == Transport::Udp && !edge.directory.load().lists(hop.remote.ip())
}

fn encryption(policy: MediaEncryption, hop: Hop) -> Encryption {
    let suites = if hop.transport == Transport::Udp { SUITES_OVER_UDP } else { &Suite::ALL };
    let srtp = Srtp { suites, random: Random(fill) };
    match policy {
        MediaEncryption::Disable => Encryption::Disable,
        MediaEncryption::Allow => Encryption::Allow(srtp),
        MediaEncryption::Require => Encryption::Require(srtp),
    }
}

impl Call {
    /// Hands the RTP socket to a media shard, or tells the shard of the new agreement.
    pub(super) fn open_leg(&mut self, negotiated: Negotiated, now: Instant) {
        self.conversation.codec = Some(negotiated.codec.name().to_owned());
        let suite = negotiated.encryption.as_ref().map_or("none", |keys| keys.suite().name());
        self.conversation.media_encryption = Some(suite.to_owned());
        let answered = self.conversation.answered_at.is_some();
        self.note_hold(negotiated.direction);
        if let Some(leg) = &self.leg {
            leg.update(negotiated);
            if answered {
                leg.start();
            }
            self.record_audio();
            return;
        }
        // Before the agent is there, what is agreed waits for it.
        let Some(agent) = self.agent.take() else {
            self.negotiated = Some(negotiated);
            return;
        };
        let Some(socket) = self.socket.take() else { return };
        let media = &self.edge.settings.media;
        let believed = believed(&self.edge, self.conversation.trunk_id, self.hop, Some(&socket));
        // Our tag, which comes back in the ACK, is what only somebody at that address knows.
        let unproven = self.conversation.direction == CallDirection::Inbound && !self.session.is_confirmed();
        let config = SessionConfig {
            negotiated,
            agent,
            seed: random(),
            believed: Believed { may_be_forged: unproven && is_forgeable(&self.edge, self.hop), ..believed },
            initial_timeout: media.initial_timeout,
            timeout: media.timeout,
            tap: false,
            noise_cancellation: self.noise_cancellation,
            dtmf_tones: self.dtmf_tones,
            beep: self.beep_patience(),
        };
        let mut session = Box::new(media::session::Session::new(config, now));
        if answered {
            // Before the shard has it: packets may wait in the socket already.
            session.start(now);
        } else if self.config.early_media {
            session.listen_early(now);
            self.tell_agent(ToAgent::Started);
        }
        let leg = self.edge.shards.open(socket, session, self.mailbox.clone());
        self.tell_agent(ToAgent::Audio(leg.quality_log()));
        self.leg = Some(leg);
        self.record_audio();
    }

    /// The caller has acknowledged our answer: it is where its INVITE came from.
    pub(super) fn prove_source(&self) {
        if let Some(leg) = self.leg.as_ref().filter(|_| is_forgeable(&self.edge, self.hop)) {
            leg.believe(believed(&self.edge, self.conversation.trunk_id, self.hop, None));
        }
    }

    /// A direction in which we must not send is hold (RFC 3264 8.4): media timeouts are paused and the agent knows.
    fn note_hold(&mut self, direction: Direction) {
        let held = !direction.sends();
        if std::mem::replace(&mut self.on_hold, held) != held {
            self.tell_agent(ToAgent::Held(held));
        }
    }

    /// The description of a provisional response: early media is taken from there. One that cannot be used is passed
    /// over; the 2xx decides.
    pub(super) fn take_early(&mut self, sdp: &[u8], now: Instant) {
        match self.offer_answer.accept(sdp) {
            Ok(negotiated) => self.open_leg(negotiated, now),
            Err(problem) => {
                tracing::debug!(conversation = %self.conversation.id, %problem, "early media cannot be used");
            }
        }
    }

    /// The final response to an offer of ours inside the dialog. What cannot be used, and what is refused, leaves the
    /// call as it was.
    pub(super) fn take_modified(&mut self, status: StatusCode, sdp: Option<&[u8]>, now: Instant) {
        let Some(sdp) = sdp.filter(|_| status.is_success()) else { return };
        let before = self.offer_answer.negotiated().cloned();
        match self.offer_answer.accept(sdp) {
            // A refresh: nothing is learned anew, where a peer behind NAT was locked on.
            Ok(negotiated) if before.as_ref() == Some(&negotiated) => {}
            Ok(negotiated) => {
                self.open_leg(negotiated, now);
                self.record();
            }
            Err(problem) => {
                tracing::debug!(conversation = %self.conversation.id, %problem, "an answer cannot be used");
            }
        }
    }

    /// The answer to our offer.
    pub(super) fn take_answer(&mut self, answer: Option<&[u8]>, now: Instant) {
        self.offered = false;
        let negotiated = match answer {
            Some(answer) => self.offer_answer.accept(answer).map_err(|error| match error {
                OfferError::EncryptionRequired(_) => (OurReason::EncryptionRequired, error.to_string()),
                _ => (OurReason::BadAnswer, error.to_string()),
            }),
            None => Err((OurReason::BadAnswer, "the answer carries no SDP".to_owned())),
        };
        match negotiated {
            Ok(negotiated) => self.open_leg(negotiated, now),
            Err((reason, problem)) => {
                self.advice = Some(format!("The peer's SDP answer cannot be used: {problem}."));
                self.end(reason, now);
            }
        }
    }

    /// A new offer inside the dialog: every one is applied, or refused and the call goes on as it was.
    pub(super) fn on_offer(&mut self, offer: Option<&[u8]>, now: Instant) {
        let Some(offer) = offer else {
            self.offered = true;
            let offer = Bytes::from(self.offer_answer.offer());
            self.session.answer_offer(offer, now);
            return;
        };
        match self.offer_answer.answer(offer) {
            Ok((answer, negotiated)) => {
                if self.session.answer_offer(Bytes::from(answer), now) {
                    self.open_leg(negotiated, now);
                    self.record();
                }
            }
            Err(error) => {
                let (host, _) = self.edge.reachable_at(self.hop);
                let (refusal, _, _) = sip_status::offer_refusal(&error, &host);
                self.session.refuse_offer(refusal, now);
            }
        }
    }
}
