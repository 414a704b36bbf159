//! The UAS half: answering an INVITE (RFC 3261 13.3).

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Ended, Identity, Refusal, Session, State, tag};
use crate::dialog::Dialog;
use crate::hop::Hop;
use crate::message::{HeaderName, Request, ResponseBuilder, StatusCode};
use crate::stateless;
use crate::transaction::{InviteServer, Outbox};

/// How often a provisional response is repeated, so that no proxy gives up (RFC 3261 13.3.1.1).
const RING_AGAIN: Duration = Duration::from_secs(60);

/// A provisional response that is repeated until there is a final one.
#[derive(Debug)]
pub(super) struct Ringing {
    status: StatusCode,
    pub(super) sdp: Option<Bytes>,
    pub(super) again: Instant,
}

impl Session {
    /// Takes an INVITE that begins a call. 100 Trying is sent after 200 ms unless something better was by then.
    #[must_use]
    pub fn accept(invite: Request, from: Hop, identity: Identity, now: Instant) -> Self {
        let local_tag = tag(&identity);
        let dialog = Dialog::from_request(&invite, &local_tag, from);
        let mut session = Self::new(identity, invite.call_id().into(), local_tag);
        session.dialog = Some(Box::new(dialog));
        session.note_allow(&invite);
        session.invite_servers = vec![InviteServer::new(invite, from, now)];
        session
    }

    /// 180 Ringing, repeated each minute. `false` when there is nothing to ring for, or when it would have to carry
    /// an offer: the INVITE has none and wants every response reliably (RFC 3262 5).
    pub fn ring(&mut self, now: Instant) -> bool {
        self.provisional(StatusCode(180), None, now)
    }

    /// 183 Session Progress with a session description, repeated each minute. `false` when no INVITE waits for its
    /// first answer.
    pub fn progress(&mut self, sdp: Bytes, now: Instant) -> bool {
        self.provisional(StatusCode(183), Some(sdp), now)
    }

    pub(super) fn provisional(&mut self, status: StatusCode, sdp: Option<Bytes>, now: Instant) -> bool {
        if self.state != State::Inviting {
            return false;
        }
        let sent = self.provisional_reliably(status, sdp.as_ref(), now);
        if sent == Some(false) {
            return false;
        }
        if sent.is_none() {
            let Some(builder) = self.invite_reply(status, None) else { return false };
            let bytes = match &sdp {
                Some(sdp) => builder.body("application/sdp", sdp),
                None => builder.build(),
            };
            if let Some(server) = self.invite_servers.iter_mut().find(|s| s.pending().is_some()) {
                server.provisional(bytes, &mut self.out);
            }
        }
        self.ringing = Some(Box::new(Ringing { status, sdp, again: now + RING_AGAIN }));
        true
    }

    pub(super) fn repeat_ringing(&mut self, now: Instant) {
        if let Some(ringing) = self.ringing.take_if(|r| r.again <= now) {
            self.provisional(ringing.status, ringing.sdp, now);
        }
    }

    /// 200 OK with the answer to the INVITE's offer, or with our offer when it had none. `false` when the INVITE has
    /// its final response already. What was described reliably before is not repeated, and a description that awaits
    /// its PRACK is waited for (RFC 3262 3, 5).
    pub fn answer(&mut self, sdp: Bytes, now: Instant) -> bool {
        if self.state != State::Inviting || self.is_answering() {
            return false;
        }
        if self.answer_waits(&sdp) {
            return true;
        }
        if !self.send_answer(&sdp, now) {
            return false;
        }
        self.ringing = None;
        self.state = State::Accepted;
        true
    }

    /// Refuses the INVITE with a final response. `false` when it has one already.
    pub fn refuse(&mut self, refusal: Refusal, now: Instant) -> bool {
        if self.state != State::Inviting || !self.refuse_pending(&refusal, now) {
            return false;
        }
        self.end_with(Ended::refused(refusal.status), now);
        true
    }

    /// Forgets an INVITE that was answered without keeping state (RFC 3261 8.2.7): nothing of it is left.
    pub fn discard(&mut self) {
        self.state = State::Over;
        self.invite_servers.clear();
        self.servers.clear();
        self.out = Outbox::default();
        self.events.clear();
        self.shrink();
    }

    /// A response to the pending INVITE with what every one of ours carries.
    pub(super) fn invite_reply(&self, status: StatusCode, reason: Option<&str>) -> Option<ResponseBuilder> {
        let (server, request) = self.invite_servers.iter().find_map(|s| Some((s, s.pending()?)))?;
        let builder = ResponseBuilder::new(request, status, reason, Some(&self.local_tag), server.hop.remote);
        // Below 300 a response makes a dialog or refreshes its target (RFC 3261 12.1.1, 12.2.2).
        Some(if status.0 < 300 {
            builder
                .record_route(request)
                .header(HeaderName::Contact, format_args!("<{}>", self.identity.contact))
                .header(HeaderName::Allow, stateless::ALLOW)
                .header(HeaderName::Server, self.identity.user_agent)
        } else {
            builder.header(HeaderName::Server, self.identity.user_agent)
        })
    }

    /// Refuses the pending INVITE or re-INVITE.
    pub(super) fn refuse_pending(&mut self, refusal: &Refusal, now: Instant) -> bool {
        let Some(mut builder) = self.invite_reply(refusal.status, refusal.reason.as_deref()) else {
            return false;
        };
        for (name, value) in &refusal.headers {
            builder = builder.header_named(name, value);
        }
        let bytes = builder.build();
        if let Some(server) = self.invite_servers.iter_mut().find(|s| s.pending().is_some()) {
            server.finish(refusal.status, bytes, now, &mut self.out);
        }
        true
    }
}
