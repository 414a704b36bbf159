//! 2xx and its ACK, which cross the network outside the INVITE's transaction (RFC 3261 13.2.2.4, 13.3.1.4).

use std::time::Instant;

use bytes::Bytes;

use super::{EndCause, Ended, Event, Reason, Session, State};
use crate::dialog::Dialog;
use crate::hop::{Hop, Transmit};
use crate::message::{Request, StatusCode};
use crate::transaction::{Retransmission, T1, T1_64, T2};

/// A 2xx of ours that awaits its ACK.
#[derive(Debug)]
pub(super) struct Answer {
    bytes: Bytes,
    hop: Hop,
    cseq: u32,
    retransmission: Retransmission,
    until: Instant,
}

impl Answer {
    pub(super) fn timeout(&self) -> Instant {
        self.retransmission.at().min(self.until)
    }
}

impl Session {
    /// 2xx to the pending INVITE or re-INVITE, repeated until its ACK, over a stream too: it crosses hop by hop.
    pub(super) fn send_answer(&mut self, sdp: &Bytes, now: Instant) -> bool {
        let Some(mut builder) = self.invite_reply(StatusCode(200), None) else { return false };
        let Some(request) = self.invite_servers.iter().find_map(|s| s.pending()) else { return false };
        let agreed = self.timer_asked(request);
        for (name, value) in self.timer_headers(request, agreed) {
            builder = builder.header(name, value);
        }
        let described = self.state == State::Inviting
            && self.reliable.as_ref().is_some_and(|reliable| reliable.has_described());
        let bytes = if described { builder.build() } else { builder.body("application/sdp", sdp) };
        self.reliable = None;
        if !described {
            self.local_sdp = Some(sdp.clone());
        }
        self.timer_agreed(agreed, now);
        let Some(server) = self.invite_servers.iter_mut().find(|s| s.pending().is_some()) else {
            return false;
        };
        server.finish(StatusCode(200), bytes.clone(), now, &mut self.out);
        self.answer = Some(Box::new(Answer {
            bytes,
            hop: server.hop,
            cseq: server.cseq(),
            retransmission: Retransmission::start(T1, T2, now),
            until: now + T1_64,
        }));
        true
    }

    pub(super) fn repeat_answer(&mut self, now: Instant) {
        let Some(answer) = &mut self.answer else { return };
        if answer.until <= now {
            // RFC 3261 13.3.1.4: the dialog is confirmed for a BYE.
            self.answer = None;
            let reason = Reason { protocol: "SIP".to_owned(), cause: 408, text: Some("no ACK".to_owned()) };
            self.send_bye(Some(reason), now);
            let ended = Ended { status: Some(StatusCode(200)), ..Ended::new(EndCause::NoAck) };
            self.end_with(ended, now);
        } else if answer.retransmission.fire(now) {
            self.out.push(Transmit { hop: answer.hop, bytes: answer.bytes.clone() });
        }
    }

    pub(super) fn ack(&mut self, ack: &Request, now: Instant) {
        if ack.to_tag() != Some(&self.local_tag) {
            return;
        }
        let cseq = ack.cseq().number;
        let of_dialog = self.dialog.as_ref().is_some_and(|d| d.is_with(ack.from_tag()));
        if !of_dialog || self.answer.take_if(|answer| answer.cseq == cseq).is_none() {
            // Of a non-2xx, by its branch (RFC 3261 17.2.3), or of a 2xx once more.
            if let Some(server) = self.invite_servers.iter_mut().find(|s| s.matches(ack)) {
                server.acknowledge(now);
            }
            return;
        }
        if self.state == State::Accepted {
            self.state = State::Confirmed;
        }
        self.push(Event::Confirmed { sdp: ack.sdp() });
        if let Some(reason) = self.farewell.take() {
            self.hang_up(*reason, now);
        }
    }

    /// Builds the ACK of a 2xx. It carries the INVITE's credentials as they were (RFC 3261 22.1).
    pub(super) fn ack_of_success(&mut self, dialog: &Dialog, cseq: u32) -> Transmit {
        let branch = self.branch();
        let (mut builder, hop, _) = dialog.request("ACK", cseq, &self.identity.via, &branch);
        let account = self.calling.as_ref().and_then(|c| c.account.as_ref());
        for (name, value) in account.map_or(&[][..], |a| a.of_invite(hop)) {
            builder = builder.header(*name, value);
        }
        Transmit { hop, bytes: builder.build() }
    }
}
