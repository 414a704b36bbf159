//! UPDATE (RFC 3311) from either side: an offer before or after the answer to the INVITE, or a session refresh.

use std::time::Instant;

use bytes::Bytes;

use super::ask::{Ask, Purpose};
use super::modify::Modify;
use super::{Event, Refusal, Session, State};
use crate::hop::Hop;
use crate::message::{HeaderName, Method, Request, Response, ResponseBuilder, StatusCode};
use crate::stateless;
use crate::transaction::Server;

/// What carries an offer that is answered in its own 2xx.
const CARRIERS: &[Method] = &[Method::Update, Method::Prack];

impl Session {
    /// An UPDATE in the dialog of the call. Its target has been refreshed.
    pub(super) fn update(&mut self, request: Request, from: Hop, now: Instant) {
        let Some(sdp) = request.sdp() else {
            let agreed = self.timer_asked(&request);
            let response = self.update_reply(&request, StatusCode(200), from.remote).build();
            if self.state != State::Inviting {
                self.timer_agreed(agreed, now);
            }
            return self.answered(&request, response, from, now);
        };
        if self.offers() {
            return self.reply(&request, StatusCode(491), &[], from, now);
        }
        if self.is_offered() {
            return self.busy(&request, from, now);
        }
        let hop = stateless::response_hop(&request, from);
        self.servers.push(Server::begin(request, hop));
        self.push(Event::Offer { sdp: Some(sdp) });
    }

    /// The 2xx; that of a PRACK refreshes neither target nor timer (RFC 3262 7.2, RFC 4028 9).
    fn update_reply(
        &self,
        request: &Request,
        status: StatusCode,
        source: std::net::SocketAddr,
    ) -> ResponseBuilder {
        let mut builder = ResponseBuilder::new(request, status, None, Some(&self.local_tag), source);
        if request.method() == Method::Update {
            builder = builder
                .header(HeaderName::Contact, format_args!("<{}>", self.identity.contact))
                .header(HeaderName::Allow, stateless::ALLOW);
            for (name, value) in self.timer_headers(request, self.timer_asked(request)) {
                builder = builder.header(name, value);
            }
        }
        builder
    }

    /// Answers the UPDATE or PRACK that waits; `false` when none does.
    pub(super) fn answer_update(&mut self, sdp: &Bytes, now: Instant) -> bool {
        let waiting = self.servers.iter().find_map(|s| s.waits(&[Method::Update]));
        let agreed = waiting.map(|request| self.timer_asked(request));
        let answered = self.finish_request(CARRIERS, now, |session, request, hop| {
            session.update_reply(request, StatusCode(200), hop.remote).body("application/sdp", sdp)
        });
        if answered {
            self.local_sdp = Some(sdp.clone());
            if let Some(agreed) = agreed
                && self.state != State::Inviting
            {
                self.timer_agreed(agreed, now);
            }
        }
        answered
    }

    /// Refuses the UPDATE or PRACK that waits; `false` when none does.
    pub(super) fn refuse_update(&mut self, refusal: &Refusal, now: Instant) -> bool {
        self.refuse_request(CARRIERS, refusal, now)
    }

    /// Whether an offer of the peer's in an UPDATE or PRACK waits for our answer.
    pub(super) fn is_updated(&self) -> bool {
        self.servers.iter().any(|s| s.waits(CARRIERS).is_some())
    }

    /// Offers by UPDATE in an early dialog whose first offer has its answer (RFC 3311 5.1).
    pub(super) fn offer_by_update(&mut self, now: Instant) {
        let early = self.calling.as_deref().and_then(|c| c.early.first());
        let tag = self.peer_tag().or_else(|| early.map(|d| d.remote_tag.clone()));
        let Some(remote_tag) = tag else { return };
        let Some(sdp) = self.modify.as_ref().map(|m| m.sdp.clone()) else { return };
        let mut headers = self.timer_wishes();
        headers.push((HeaderName::Allow, stateless::ALLOW.to_owned()));
        let ask = Ask {
            purpose: Purpose::Update,
            method: Method::Update,
            remote_tag,
            headers,
            body: Some(("application/sdp", sdp)),
        };
        let cseq = self.ask(Box::new(ask), now);
        if let Some(modify) = &mut self.modify {
            (modify.cseq, modify.retry_at) = (cseq, None);
        }
    }

    /// The final response to an UPDATE of ours.
    pub(super) fn update_response(&mut self, response: &Response, cseq: u32, now: Instant) {
        let status = response.status();
        if !status.is_success() {
            return self.update_failed(cseq, status, Some(response), now);
        }
        if let Some(dialog) = self.dialog.as_deref_mut().filter(|d| d.is_with(response.to_tag())) {
            dialog.refresh(response);
        }
        if self.state != State::Inviting {
            self.timer_answered(response, now);
        }
        if let Some(modify) = self.modify.take_if(|m| m.by_update && m.cseq == Some(cseq)) {
            self.local_sdp = Some(modify.sdp);
            self.push(Event::Modified { status, sdp: response.sdp() });
        }
    }

    pub(super) fn update_failed(
        &mut self,
        cseq: u32,
        status: StatusCode,
        response: Option<&Response>,
        now: Instant,
    ) {
        let offered = |m: &Modify| m.by_update && m.cseq == Some(cseq);
        if self.modify.as_deref().is_some_and(offered) {
            self.modify_failed(cseq, status, response, now);
        } else {
            self.refresh_failed(status, response, now);
        }
    }
}
