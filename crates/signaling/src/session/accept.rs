//! The UAS half: answering an INVITE (RFC 3261 13.3).

use std::time::Instant;

use bytes::Bytes;

use super::{Called, EndCause, Ended, Event, Identity, RING_AGAIN, Reason, Refusal, Session, State, derived};
use crate::dialog::Dialog;
use crate::hop::{Hop, Transmit};
use crate::message::{HeaderName, Request, ResponseBuilder, StatusCode};
use crate::stateless;
use crate::transaction::{InviteServer, Outbox, Retransmission, T1_64, T2, due};

impl Session {
    /// Takes an INVITE that begins a call. 100 Trying is sent after 200 ms unless something better was by then.
    #[must_use]
    pub fn accept(invite: Request, from: Hop, identity: Identity, now: Instant) -> Self {
        let local_tag = derived(&identity, b't');
        let mut dialog = Dialog::from_request(&invite, &local_tag, from);
        dialog.hop = from;
        Self {
            call_id: invite.call_id().into(),
            local_tag: local_tag.into(),
            identity,
            state: State::Inviting,
            dialog: Some(dialog),
            calling: None,
            called: Called::default(),
            invite_server: Some(InviteServer::new(invite, from, now)),
            update: None,
            servers: Vec::new(),
            clients: Vec::new(),
            made: 0,
            out: Outbox::new(),
            events: std::collections::VecDeque::new(),
        }
    }

    /// 180 Ringing, repeated each minute. `false` when there is nothing to ring for.
    pub fn ring(&mut self, now: Instant) -> bool {
        self.provisional(StatusCode(180), None, now)
    }

    /// 183 Session Progress with a session description.
    pub fn progress(&mut self, sdp: Bytes, now: Instant) -> bool {
        self.provisional(StatusCode(183), Some(sdp), now)
    }

    fn provisional(&mut self, status: StatusCode, sdp: Option<Bytes>, now: Instant) -> bool {
        let Some(builder) = self.invite_reply(status, None) else { return false };
        let bytes = match sdp {
            Some(sdp) => builder.body("application/sdp", &sdp),
            None => builder.build(),
        };
        if let Some(server) = &mut self.invite_server {
            server.provisional(bytes.clone(), &mut self.out);
        }
        self.called.ringing = Some(bytes);
        self.called.ring_again = Some(now + RING_AGAIN);
        true
    }

    pub(super) fn repeat_ringing(&mut self, now: Instant) {
        if due(self.called.ring_again, now) {
            self.called.ring_again = None;
            if let (Some(server), Some(bytes)) = (&mut self.invite_server, self.called.ringing.clone()) {
                server.provisional(bytes, &mut self.out);
                self.called.ring_again = Some(now + RING_AGAIN);
            }
        }
    }

    /// 200 OK with the answer to the INVITE's offer, or with our offer when it had none.
    pub fn answer(&mut self, sdp: Bytes, now: Instant) -> bool {
        if self.state != State::Inviting || !self.send_answer(&sdp, now) {
            return false;
        }
        self.state = State::Accepted;
        true
    }

    /// 2xx to the pending INVITE or re-INVITE, repeated until its ACK.
    pub(super) fn send_answer(&mut self, sdp: &[u8], now: Instant) -> bool {
        let Some(builder) = self.invite_reply(StatusCode(200), None) else { return false };
        let bytes = builder.body("application/sdp", sdp);
        let Some(server) = &mut self.invite_server else { return false };
        let hop = server.hop;
        server.finish(StatusCode(200), bytes.clone(), now, &mut self.out);
        self.called.answer = Some((bytes, hop, Retransmission::start(now, T2), now + T1_64));
        self.called.ring_again = None;
        self.called.ringing = None;
        true
    }

    /// A response to the pending INVITE with what every one of ours carries.
    pub(super) fn invite_reply(&self, status: StatusCode, reason: Option<&str>) -> Option<ResponseBuilder> {
        let server = self.invite_server.as_ref()?;
        let request = server.pending()?;
        let source = self.dialog.as_ref().map_or(server.hop.remote, |d| d.hop.remote);
        let builder = ResponseBuilder::new(request, status, reason, Some(&self.local_tag), source);
        let dialog_forming = status.0 < 300;
        Some(if dialog_forming {
            builder
                .record_route(request)
                .header(HeaderName::Contact, format_args!("<{}>", self.identity.contact))
                .header(HeaderName::Allow, stateless::ALLOW)
                .header(HeaderName::Server, self.identity.user_agent)
        } else {
            builder.header(HeaderName::Server, self.identity.user_agent)
        })
    }

    /// Refuses the INVITE with a final response.
    pub fn refuse(&mut self, refusal: Refusal, now: Instant) -> bool {
        if self.state != State::Inviting || !self.refuse_pending(&refusal, now) {
            return false;
        }
        self.end(EndCause::RefusedByUs, Some(refusal.status));
        true
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
        if let Some(server) = &mut self.invite_server {
            server.finish(refusal.status, bytes, now, &mut self.out);
        }
        true
    }

    pub(super) fn repeat_answer(&mut self, now: Instant) {
        let Some((bytes, hop, retransmission, until)) = &mut self.called.answer else { return };
        if *until <= now {
            // RFC 3261 13.3.1.4: the dialog is confirmed for a BYE.
            self.called.answer = None;
            self.send_bye(
                Some(&Reason { protocol: "SIP".to_owned(), cause: 408, text: Some("no ACK".to_owned()) }),
                now,
            );
            self.end(EndCause::NoAck, Some(StatusCode(200)));
        } else if retransmission.fire(now) {
            let transmit = Transmit { hop: *hop, bytes: bytes.clone() };
            self.out.push_back(transmit);
        }
    }

    pub(super) fn ack(&mut self, ack: &Request, branch: &str, now: Instant) {
        let Some(server) = &mut self.invite_server else { return };
        if server.cseq != ack.cseq().number {
            return;
        }
        if self.called.answer.take().is_none() {
            // Of a non-2xx, by its branch (RFC 3261 17.2.3), or of a 2xx once more.
            if server.matches(branch) {
                server.acknowledge(now);
            }
            return;
        }
        let first = self.state == State::Accepted;
        if first {
            self.state = State::Confirmed;
        }
        self.push(Event::Confirmed { sdp: ack.sdp() });
        if let Some(reason) = self.called.hang_up.take() {
            self.hang_up(reason, now);
        }
    }

    pub(super) fn cancel(&mut self, cancel: &Request, branch: &str, from: Hop, now: Instant) {
        let matches = self.invite_server.as_ref().is_some_and(|s| s.matches(branch));
        let status = StatusCode(if matches { 200 } else { 481 });
        self.reply(cancel, status, &[], from, now);
        // After a final response a CANCEL has no effect (RFC 3261 9.2).
        let pending = self.invite_server.as_ref().is_some_and(|s| s.pending().is_some());
        if !matches || !pending {
            return;
        }
        self.refuse_pending(&Refusal::new(StatusCode(487)), now);
        if self.state == State::Inviting {
            let reason = cancel.header(HeaderName::Reason).and_then(Reason::parse);
            self.end_with(Ended {
                status: Some(StatusCode(487)),
                reason,
                ..Ended::new(EndCause::CancelledByPeer)
            });
        }
    }
}
