//! Requests of ours inside a dialog, other than INVITE: sent, sent again with credentials when they are challenged,
//! and what their answers mean.

use std::time::Instant;

use bytes::Bytes;

use super::{Referral, Session};
use crate::hop::Hop;
use crate::message::{HeaderName, Method, RequestBuilder, Response, StatusCode};
use crate::transaction::Client;

/// What a non-INVITE request of ours is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Cancel,
    Bye,
    /// The BYE of a fork that lost.
    ByeOfFork,
    /// A reliable provisional response is acknowledged.
    Prack,
    /// An offer in an early dialog, or a session refresh.
    Update,
    Refer,
    Notify,
}

/// What a request says beyond the dialog's own headers.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) purpose: Purpose,
    pub(super) method: Method,
    /// The peer's tag: there may be several early dialogs.
    pub(super) remote_tag: Box<str>,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) body: Option<(&'static str, Bytes)>,
}

/// A request of ours with its transaction.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) client: Client,
    pub(super) purpose: Purpose,
    cseq: u32,
    /// What is needed to send it once more with credentials; gone with its final response.
    again: Option<Box<Ask>>,
}

/// A request inside a dialog that has been begun.
pub(super) struct Begun {
    pub(super) builder: RequestBuilder,
    pub(super) hop: Hop,
    pub(super) uri: String,
    pub(super) branch: Box<str>,
    pub(super) cseq: u32,
}

impl Asked {
    /// A request that is never sent again.
    pub(super) fn once(client: Client, purpose: Purpose, cseq: u32) -> Self {
        Self { client, purpose, cseq, again: None }
    }
}

impl Session {
    /// Begins the next request of the call's dialog with a peer, or of the early one.
    pub(super) fn begin_request(&mut self, method: &str, remote_tag: &str) -> Option<Begun> {
        let branch = self.branch();
        let via = &self.identity.via;
        let dialog = match self.dialog.as_deref_mut() {
            Some(dialog) => Some(dialog).filter(|d| d.is_with(Some(remote_tag))),
            None => {
                let early = &mut self.calling.as_deref_mut()?.early;
                early.iter_mut().find(|d| d.is_with(Some(remote_tag)))
            }
        }?;
        dialog.local_cseq += 1;
        let cseq = dialog.local_cseq;
        let (builder, hop, uri) = dialog.request(method, cseq, via, &branch);
        Some(Begun { builder, hop, uri, branch, cseq })
    }

    /// The tag of the peer of the call's dialog.
    pub(super) fn peer_tag(&self) -> Option<Box<str>> {
        self.dialog.as_ref().map(|dialog| dialog.remote_tag.clone())
    }

    /// Sends a request, its challenges counted anew; its sequence number.
    pub(super) fn ask(&mut self, ask: Box<Ask>, now: Instant) -> Option<u32> {
        if let Some(account) = self.calling.as_deref_mut().and_then(|c| c.account.as_mut()) {
            account.begin();
        }
        self.ask_again(ask, now)
    }

    fn ask_again(&mut self, ask: Box<Ask>, now: Instant) -> Option<u32> {
        let method = ask.method.as_str();
        let Begun { mut builder, hop, uri, branch, cseq } = self.begin_request(method, &ask.remote_tag)?;
        // PRACK and BYE leave the target as it is (RFC 3261 12.2, RFC 3262 7.2).
        if !matches!(ask.method, Method::Bye | Method::Prack) {
            builder = builder.header(HeaderName::Contact, format_args!("<{}>", self.identity.contact));
        }
        for (name, value) in self.authorize(method, &uri, hop) {
            builder = builder.header(name, value);
        }
        for (name, value) in &ask.headers {
            builder = builder.header(*name, value);
        }
        builder = builder.header(HeaderName::UserAgent, self.identity.user_agent);
        let bytes = match &ask.body {
            Some((kind, body)) => builder.body(kind, body),
            None => builder.build(),
        };
        let client = Client::send(branch, ask.method, hop, bytes, now, &mut self.out);
        self.clients.push(Asked { client, purpose: ask.purpose, cseq, again: Some(ask) });
        Some(cseq)
    }

    /// The final response to a request of ours other than INVITE. A challenged one is sent once more, in a call that
    /// we began and to its own peer only.
    pub(super) fn final_response(&mut self, at: usize, response: &Response, from: Hop, now: Instant) {
        let Some(asked) = self.clients.get_mut(at) else { return };
        let (purpose, hop, cseq, again) = (asked.purpose, asked.client.hop, asked.cseq, asked.again.take());
        if let Some(ask) = again
            && self.take_challenge(response, hop, from)
        {
            let next = self.ask_again(ask, now);
            if let Some(modify) = self.modify.as_mut().filter(|m| m.by_update && m.cseq == Some(cseq)) {
                modify.cseq = next;
            }
            return;
        }
        match purpose {
            Purpose::Update => self.update_response(response, cseq, now),
            Purpose::Refer => self.refer_response(response),
            Purpose::Cancel | Purpose::Bye | Purpose::ByeOfFork | Purpose::Prack | Purpose::Notify => {}
        }
    }

    /// A request of ours got no final response, or could not be sent. A BYE or CANCEL without answer changes nothing:
    /// the call has ended for us.
    fn no_answer(&mut self, purpose: Purpose, cseq: u32, status: StatusCode, now: Instant) {
        match purpose {
            _ if self.is_over() => {}
            Purpose::Update => self.update_failed(cseq, status, None, now),
            Purpose::Refer => self.referred(Referral::Refused(status)),
            Purpose::Cancel | Purpose::Bye | Purpose::ByeOfFork | Purpose::Prack | Purpose::Notify => {}
        }
    }

    /// Timers of the requests of ours.
    pub(super) fn time_requests(&mut self, now: Instant) {
        let mut unanswered = Vec::new();
        for asked in &mut self.clients {
            if asked.client.handle_timeout(now, &mut self.out) {
                unanswered.push((asked.purpose, asked.cseq));
            }
        }
        self.clients.retain(|asked| !asked.client.is_terminated());
        for (purpose, cseq) in unanswered {
            self.no_answer(purpose, cseq, StatusCode(408), now);
        }
    }

    /// Requests of ours that went to `hop` are lost.
    pub(super) fn requests_lost(&mut self, hop: Hop, now: Instant) {
        let mut unanswered = Vec::new();
        for asked in self.clients.iter().filter(|a| a.client.hop == hop && a.client.is_pending()) {
            unanswered.push((asked.purpose, asked.cseq));
        }
        self.clients.retain(|asked| asked.client.hop != hop);
        for (purpose, cseq) in unanswered {
            self.no_answer(purpose, cseq, StatusCode(503), now);
        }
    }
}
