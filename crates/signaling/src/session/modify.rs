//! New offers inside the dialog: re-INVITE and UPDATE (RFC 3261 14.2, RFC 3311 5.2).

use std::time::Instant;

use bytes::Bytes;

use super::{Event, Refusal, Session, State};
use crate::hop::Hop;
use crate::message::{HeaderName, Request, ResponseBuilder, StatusCode};
use crate::stateless;
use crate::transaction::InviteServer;

impl Session {
    pub(super) fn reinvite(&mut self, request: Request, from: Hop, now: Instant) {
        let busy = self.update.is_some()
            || self.called.answer.is_some()
            || self.invite_server.as_ref().is_some_and(|s| s.pending().is_some());
        if busy {
            return self.reply(&request, StatusCode(500), &[("Retry-After", "1")], from, now);
        }
        if self.state == State::Inviting {
            return self.reply(&request, StatusCode(491), &[], from, now);
        }
        if let Some(dialog) = &mut self.dialog {
            dialog.refresh(&request);
            dialog.hop = from;
        }
        let sdp = request.sdp();
        self.invite_server = Some(InviteServer::new(request, from, now));
        self.push(Event::Offer { sdp });
    }

    pub(super) fn update(&mut self, request: Request, from: Hop, now: Instant) {
        let pending =
            self.update.is_some() || self.invite_server.as_ref().is_some_and(|s| s.pending().is_some());
        if request.sdp().is_some() && pending {
            return self.reply(&request, StatusCode(500), &[("Retry-After", "1")], from, now);
        }
        if let Some(dialog) = &mut self.dialog {
            dialog.refresh(&request);
            dialog.hop = from;
        }
        match request.sdp() {
            Some(sdp) => {
                self.update = Some((Box::new(request), from));
                self.push(Event::Offer { sdp: Some(sdp) });
            }
            None => {
                let response = self.update_reply(&request, StatusCode(200), from).build();
                self.complete(&request, response, from, now);
            }
        }
    }

    fn update_reply(&self, request: &Request, status: StatusCode, from: Hop) -> ResponseBuilder {
        ResponseBuilder::new(request, status, None, Some(&self.local_tag), from.remote)
            .header(HeaderName::Contact, format_args!("<{}>", self.identity.contact))
            .header(HeaderName::Allow, stateless::ALLOW)
    }

    /// Answers the offer of [`Event::Offer`].
    pub fn answer_offer(&mut self, sdp: Bytes, now: Instant) -> bool {
        if self.is_over() {
            return false;
        }
        match self.update.take() {
            Some((request, from)) => {
                let response =
                    self.update_reply(&request, StatusCode(200), from).body("application/sdp", &sdp);
                self.complete(&request, response, from, now);
                true
            }
            None => self.send_answer(&sdp, now),
        }
    }

    /// Refuses the offer of [`Event::Offer`]; the session goes on as it was.
    pub fn refuse_offer(&mut self, refusal: Refusal, now: Instant) -> bool {
        if self.is_over() {
            return false;
        }
        match self.update.take() {
            Some((request, from)) => {
                let headers: Vec<(&str, &str)> =
                    refusal.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                self.reply(&request, refusal.status, &headers, from, now);
                true
            }
            None => self.refuse_pending(&refusal, now),
        }
    }
}
