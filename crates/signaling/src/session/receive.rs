//! What a message of the call belongs to: a transaction that knows it, or the dialog (RFC 3261 12.2.2, 17.2.3).

use std::time::Instant;

use bytes::Bytes;

use super::ask::Asked;
use super::{MAX_INVITES, MAX_SERVERS, Session, State};
use crate::dialog::Dialog;
use crate::hop::{Hop, Transmit};
use crate::message::{Method, Request, Response, ResponseBuilder, StatusCode};
use crate::stateless;
use crate::transaction::{ClientOutcome, InviteServer, Server};

impl Session {
    pub(super) fn request(&mut self, request: Request, from: Hop, now: Instant) {
        let method = request.method();
        if method == Method::Ack {
            return self.ack(&request, now);
        }
        if method == Method::Invite {
            if let Some(server) = self.invite_servers.iter().find(|s| s.matches(&request)) {
                return server.repeat(&mut self.out);
            }
        } else if let Some(server) = self.servers.iter().find(|s| s.matches(&request)) {
            return server.repeat(&mut self.out);
        }
        if method == Method::Cancel {
            return self.cancel(&request, from, now);
        }
        let Some(to_tag) = request.to_tag() else {
            return self.begins_again(&request, from);
        };
        let known = to_tag == &*self.local_tag && self.dialog_of(&request).is_some();
        // While our BYE is on its way, one of the peer's may cross it (RFC 3261 15.1.2).
        // The subscription of a REFER outlives it (RFC 3515 2.4.7).
        let outlives = method == Method::Bye || (method == Method::Notify && self.referring.is_some());
        if !known || (self.is_over() && !outlives) {
            return self.reply_without_state(&request, StatusCode(481), &[], from);
        }
        if self.is_over() {
            return match method {
                Method::Notify => self.notify(&request, from, now),
                _ => self.reply(&request, StatusCode(200), &[], from, now),
            };
        }
        let full = match method {
            Method::Bye => false,
            Method::Invite => self.invite_servers.len() >= MAX_INVITES,
            _ => self.servers.len() >= MAX_SERVERS,
        };
        if full {
            let wait = self.retry_after();
            let headers = [("Retry-After", wait.as_str())];
            return self.reply_without_state(&request, StatusCode(500), &headers, from);
        }
        // Answers to what we sent are no storm of the peer's making.
        let counts = !matches!(method, Method::Bye | Method::Prack | Method::Notify);
        if counts && !self.storm.admits(now) {
            let wait = self.retry_after();
            let headers = [("Retry-After", wait.as_str())];
            return self.reply_without_state(&request, StatusCode(500), &headers, from);
        }
        if !self.dialog_of(&request).is_some_and(|d| d.take_cseq(request.cseq().number)) {
            return self.reply_without_state(&request, StatusCode(500), &[], from);
        }
        if method != Method::Bye
            && let Err((status, headers)) = stateless::check(&request)
        {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
            return self.reply(&request, status, &headers, from, now);
        }
        let timed = matches!(method, Method::Invite | Method::Update);
        let min = self.identity.session_timer.min;
        if timed && super::is_too_short(&request, min) {
            let min = min.to_string();
            return self.reply(&request, StatusCode(422), &[("Min-SE", &min)], from, now);
        }
        self.in_dialog(request, method, from, now);
    }

    /// A request in order inside a dialog of ours.
    fn in_dialog(&mut self, request: Request, method: Method, from: Hop, now: Instant) {
        let early = self.calling.is_some() && self.state == State::Inviting;
        if matches!(method, Method::Invite | Method::Update)
            && let Some(dialog) = self.dialog_of(&request)
        {
            dialog.refresh(&request);
            dialog.hop = from;
            self.note_allow(&request);
        }
        match method {
            // The callee must not (RFC 3261 15): its final response ends the call.
            Method::Bye if early => self.reply(&request, StatusCode(481), &[], from, now),
            Method::Bye => self.bye(&request, from, now),
            Method::Invite => self.reinvite(request, from, now),
            Method::Update => self.update(request, from, now),
            Method::Info | Method::Message => self.info(&request, from, now),
            Method::Options => self.options(&request, from, now),
            Method::Prack => self.prack(request, from, now),
            Method::Notify => self.notify(&request, from, now),
            Method::Refer if self.state == State::Confirmed => self.refer_request(request, from, now),
            // Nobody has answered yet: there is no call to transfer.
            Method::Refer => self.reply(&request, StatusCode(491), &[], from, now),
            _ => self.reply(&request, StatusCode(405), &[("Allow", stateless::ALLOW)], from, now),
        }
    }

    /// The dialog that a request with our tag is of: the call's, or an early one.
    fn dialog_of(&mut self, request: &Request) -> Option<&mut Dialog> {
        let tag = request.from_tag();
        match self.dialog.as_deref_mut() {
            Some(dialog) => Some(dialog).filter(|d| d.is_with(tag)),
            None => self.calling.as_deref_mut()?.early.iter_mut().find(|d| d.is_with(tag)),
        }
    }

    /// A request without To tag that no transaction knows: the INVITE by another path (RFC 3261 8.2.2.2), or another
    /// INVITE under a Call-ID that is still in use.
    fn begins_again(&mut self, request: &Request, from: Hop) {
        if request.method() != Method::Invite {
            return self.reply_without_state(request, StatusCode(481), &[], from);
        }
        let cseq = request.cseq().number;
        if self.invite_servers.iter().any(|server| server.cseq() == cseq) {
            return self.reply_without_state(request, StatusCode(482), &[], from);
        }
        let wait = self.retry_after();
        self.reply_without_state(request, StatusCode(500), &[("Retry-After", &wait)], from);
    }

    fn build_reply(
        &self,
        request: &Request,
        status: StatusCode,
        headers: &[(&str, &str)],
        from: Hop,
    ) -> Bytes {
        let mut builder = ResponseBuilder::new(request, status, None, Some(&self.local_tag), from.remote);
        for (name, value) in headers {
            builder = builder.header_named(name, value);
        }
        builder.build()
    }

    /// Answers a request that changes nothing: its repetition gets the same answer without being remembered.
    pub(super) fn reply_without_state(
        &mut self,
        request: &Request,
        status: StatusCode,
        headers: &[(&str, &str)],
        from: Hop,
    ) {
        let bytes = self.build_reply(request, status, headers, from);
        self.out.push(Transmit { hop: stateless::response_hop(request, from), bytes });
    }

    /// Answers a request and remembers the answer for its repetitions.
    pub(super) fn reply(
        &mut self,
        request: &Request,
        status: StatusCode,
        headers: &[(&str, &str)],
        from: Hop,
        now: Instant,
    ) {
        let bytes = self.build_reply(request, status, headers, from);
        self.answered(request, bytes, from, now);
    }

    pub(super) fn answered(&mut self, request: &Request, bytes: Bytes, from: Hop, now: Instant) {
        let hop = stateless::response_hop(request, from);
        if request.method() == Method::Invite {
            if self.invite_servers.len() < MAX_INVITES {
                // Only refusals come here; a 2xx has its own way.
                let server = InviteServer::refused(request, hop, bytes, now, &mut self.out);
                self.invite_servers.push(server);
                return;
            }
        } else if self.servers.len() < MAX_SERVERS {
            self.servers.push(Server::answered(request, hop, &bytes, now));
        }
        self.out.push(Transmit { hop, bytes });
    }

    pub(super) fn response(&mut self, response: &Response, from: Hop, now: Instant) {
        let Some(branch) = response.top_via().and_then(|v| v.branch()) else { return };
        let method = response.cseq().method;
        if method == Method::Invite {
            return self.invite_response(response, branch, from, now);
        }
        let mine = |a: &Asked| *a.client.branch == *branch && a.client.method == method;
        let Some(at) = self.clients.iter().position(mine) else { return };
        let Some(asked) = self.clients.get_mut(at) else { return };
        if asked.client.response(response.status(), now) == ClientOutcome::Final {
            self.final_response(at, response, from, now);
        }
    }
}
