//! UPDATE of the peer (RFC 3311).

use std::time::Instant;

use bytes::Bytes;

use super::{Event, Refusal, Session};
use crate::hop::Hop;
use crate::message::{HeaderName, Request, ResponseBuilder, StatusCode};
use crate::stateless;
use crate::transaction::Server;

impl Session {
    /// An UPDATE in the dialog of the call. Its target has been refreshed.
    pub(super) fn update(&mut self, request: Request, from: Hop, now: Instant) {
        let Some(sdp) = request.sdp() else {
            let response = self.update_reply(&request, StatusCode(200), from.remote).build();
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

    fn update_reply(
        &self,
        request: &Request,
        status: StatusCode,
        source: std::net::SocketAddr,
    ) -> ResponseBuilder {
        ResponseBuilder::new(request, status, None, Some(&self.local_tag), source)
            .header(HeaderName::Contact, format_args!("<{}>", self.identity.contact))
            .header(HeaderName::Allow, stateless::ALLOW)
    }

    /// Answers the UPDATE that waits; `false` when none does.
    pub(super) fn answer_update(&mut self, sdp: &[u8], now: Instant) -> bool {
        self.finish_update(now, |session, request, hop| {
            session.update_reply(request, StatusCode(200), hop.remote).body("application/sdp", sdp)
        })
    }

    /// Refuses the UPDATE that waits; `false` when none does.
    pub(super) fn refuse_update(&mut self, refusal: &Refusal, now: Instant) -> bool {
        self.finish_update(now, |session, request, hop| {
            let (status, reason) = (refusal.status, refusal.reason.as_deref());
            let tag = Some(&*session.local_tag);
            let mut builder = ResponseBuilder::new(request, status, reason, tag, hop.remote);
            for (name, value) in &refusal.headers {
                builder = builder.header_named(name, value);
            }
            builder.build()
        })
    }

    fn finish_update(&mut self, now: Instant, respond: impl FnOnce(&Self, &Request, Hop) -> Bytes) -> bool {
        let Some(at) = self.servers.iter().position(|s| s.pending().is_some()) else { return false };
        let Some(server) = self.servers.get(at) else { return false };
        let Some(request) = server.pending() else { return false };
        let response = respond(self, request, server.hop);
        if let Some(server) = self.servers.get_mut(at) {
            server.finish(response, now, &mut self.out);
        }
        true
    }
}
