//! OPTIONS from our side (RFC 3261 11.1): one request outside any dialog, and its answer.

use std::time::Instant;

use crate::hop::{Hop, Transmit};
use crate::message::{HeaderName, Method, RequestBuilder, Response, StatusCode};
use crate::session::{Identity, branch, call_id, tag};
use crate::stateless;
use crate::transaction::{Client, ClientOutcome, Outbox};

/// A request on its way.
#[derive(Debug)]
pub struct Options {
    call_id: Box<str>,
    local_tag: Box<str>,
    client: Client,
    out: Outbox,
}

impl Options {
    /// Asks `request_uri`, over `hop`.
    #[must_use]
    pub fn send(identity: Identity, request_uri: &str, hop: Hop, now: Instant) -> Self {
        let (local_tag, call_id) = (tag(&identity), call_id(&identity));
        let branch = branch(&identity, 1);
        let via = format!("SIP/2.0/{} {};branch={branch};rport", hop.transport.as_via(), identity.via);
        let bytes = RequestBuilder::new("OPTIONS", request_uri)
            .header(HeaderName::Via, via)
            .header(HeaderName::MaxForwards, 70)
            .header(HeaderName::From, format_args!("<{}>;tag={local_tag}", identity.contact))
            .header(HeaderName::To, format_args!("<{request_uri}>"))
            .header(HeaderName::CallId, &call_id)
            .header(HeaderName::CSeq, "1 OPTIONS")
            .header(HeaderName::Contact, format_args!("<{}>", identity.contact))
            .header(HeaderName::Accept, stateless::ACCEPT_ANY)
            .header(HeaderName::UserAgent, identity.user_agent)
            .build();
        let mut out = Outbox::default();
        let client = Client::send(branch, Method::Options, hop, bytes, now, &mut out);
        Self { call_id, local_tag, client, out }
    }

    /// The Call-ID.
    #[must_use]
    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    /// Our tag.
    #[must_use]
    pub fn local_tag(&self) -> &str {
        &self.local_tag
    }

    /// The next bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.pop()
    }

    /// When [`Options::handle_timeout`] is wanted; `None` when nothing is pending.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.client.timeout()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.client.handle_timeout(now, &mut self.out);
    }

    /// Takes a response; the first final one of ours gives its status.
    pub fn response(&mut self, response: &Response, now: Instant) -> Option<StatusCode> {
        let ours = response.cseq().method == Method::Options
            && response.top_via().and_then(|via| via.branch()).is_some_and(|b| *b == *self.client.branch);
        if !ours {
            return None;
        }
        let outcome = self.client.response(response.status(), now);
        (outcome == ClientOutcome::Final).then(|| response.status())
    }
}
