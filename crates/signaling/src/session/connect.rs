//! The UAC half: placing a call (RFC 3261 13.2), challenges included (RFC 3261 22).

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use super::{Called, Calling, EndCause, Ended, Event, Identity, Invite, Reason, Session, State, derived};
use crate::dialog::Dialog;
use crate::digest::{self, Challenge};
use crate::hop::{Hop, Transmit};
use crate::message::{HeaderName, Method, RequestBuilder, Response};
use crate::stateless;
use crate::transaction::{Client, InviteClient, InviteOutcome, Outbox, T1_64};

/// Challenges answered for one offer: one of the server, one of a proxy, or one more for a stale nonce.
pub(super) const MAX_CHALLENGES: u8 = 2;
/// Longest reason phrase kept, in characters.
const MAX_PHRASE: usize = 128;

impl Session {
    /// Places a call over `hop`.
    #[must_use]
    pub fn connect(invite: Invite, hop: Hop, identity: Identity, now: Instant) -> Self {
        let local_tag = derived(&identity, b't');
        let call_id = format!("{}{}", derived(&identity, b'i'), derived(&identity, b'j'));
        let from = format!("{};tag={local_tag}", invite.from);
        let mut out = Outbox::new();
        let branch = format!("z9hG4bK{}0", stateless::hex(&identity.seed));
        let bytes = request(&invite, &identity, &call_id, &from, 1, &branch, hop, None);
        let client = InviteClient::send(branch, 1, hop, bytes, now, &mut out);
        let calling = Calling {
            client,
            invite,
            from,
            challenges: 0,
            authorization: None,
            cancel: None,
            cancelled: false,
            rang: false,
            ack: None,
        };
        Self {
            identity,
            call_id: call_id.into(),
            local_tag: local_tag.into(),
            state: State::Inviting,
            dialog: None,
            calling: Some(Box::new(calling)),
            called: Called::default(),
            invite_server: None,
            update: None,
            servers: Vec::new(),
            clients: Vec::new(),
            made: 0,
            out,
            events: VecDeque::new(),
        }
    }

    pub(super) fn invite_response(&mut self, response: &Response, branch: &str, from: Hop, now: Instant) {
        let Some(calling) = self.calling.as_deref_mut() else { return };
        if *calling.client.branch != *branch || calling.client.cseq != response.cseq().number {
            return;
        }
        let status = response.status();
        let ack = {
            let (invite, from, identity) = (&calling.invite, &calling.from, &self.identity);
            let (call_id, cseq, hop) = (&self.call_id, calling.client.cseq, calling.client.hop);
            move || ack_of_failure(invite, identity, call_id, from, response, cseq, branch, hop)
        };
        match calling.client.response(status, ack, now, &mut self.out) {
            InviteOutcome::Provisional => {
                if calling.cancel.is_some() {
                    self.send_cancel(now);
                } else if status.0 > 100 {
                    calling.rang |= status.0 >= 180;
                    self.push(Event::Progress { status, sdp: response.sdp() });
                }
            }
            InviteOutcome::Success => self.success(response, from, now),
            InviteOutcome::Failure => self.failure(response, from, now),
            InviteOutcome::Nothing => {}
        }
    }

    fn success(&mut self, response: &Response, from: Hop, now: Instant) {
        let Some(calling) = self.calling.as_deref_mut() else { return };
        let known = self.dialog.as_ref().map(|d| response.to_tag().unwrap_or_default() == &*d.remote_tag);
        if known == Some(true) {
            // The 2xx again: its ACK again (RFC 3261 13.2.2.4).
            if let Some(ack) = &calling.ack {
                self.out.push_back(ack.clone());
            }
            return;
        }
        let cseq = calling.client.cseq;
        let hop = Hop { remote: from.remote, ..calling.client.hop };
        let dialog = Dialog::from_response(response, &calling.from, cseq, &calling.invite.request_uri, hop);
        let fork = known == Some(false);
        let ack = self.ack_of_success(&dialog, cseq);
        self.out.push_back(ack.clone());
        if fork {
            // Another branch of a forked INVITE answered too: one call is enough.
            self.send_bye_in(&dialog, None, now);
            return;
        }
        self.dialog = Some(dialog);
        let Some(calling) = self.calling.as_deref_mut() else { return };
        calling.ack = Some(ack);
        if let Some(reason) = calling.cancel.clone() {
            // The 2xx crossed our CANCEL.
            self.send_bye(reason.as_ref(), now);
            self.end(EndCause::CancelledByUs, Some(response.status()));
            return;
        }
        self.state = State::Confirmed;
        self.push(Event::Answered { status: response.status(), sdp: response.sdp() });
    }

    fn ack_of_success(&mut self, dialog: &Dialog, cseq: u32) -> Transmit {
        let branch = self.branch();
        let (mut builder, hop, uri) = dialog.request("ACK", cseq, &self.identity.via, &branch);
        // The credentials of the INVITE go with its ACK (RFC 3261 22.1).
        if let Some((name, value)) = self.authorize("ACK", &uri) {
            builder = builder.header(name, value);
        }
        Transmit { hop, bytes: builder.build() }
    }

    fn failure(&mut self, response: &Response, from: Hop, now: Instant) {
        let status = response.status();
        let cancelled = self.calling.as_ref().is_some_and(|c| c.cancel.is_some());
        if matches!(status.0, 401 | 407) && !cancelled {
            if self.answer_challenge(response, from, now) {
                return;
            }
            return self.end_with(told(EndCause::Challenged, response));
        }
        let cause = if cancelled { EndCause::CancelledByUs } else { EndCause::RefusedByPeer };
        self.end_with(told(cause, response));
    }

    /// Sends the INVITE once more with credentials; `false` when the challenge cannot or must not be answered.
    fn answer_challenge(&mut self, response: &Response, from: Hop, now: Instant) -> bool {
        let Some((challenge, proxy)) = read_challenge(response) else { return false };
        let Some(calling) = self.calling.as_deref_mut() else { return false };
        let hop = calling.client.hop;
        let refused_again = calling.authorization.as_ref().is_some_and(|(known, of_proxy, _)| {
            *of_proxy == proxy && known.realm == challenge.realm && !challenge.stale
        });
        // Only the hop the INVITE went to learns our digest.
        let stranger = from.remote.ip() != hop.remote.ip();
        if calling.invite.credentials.is_none()
            || calling.challenges >= MAX_CHALLENGES
            || refused_again
            || stranger
        {
            return false;
        }
        calling.challenges += 1;
        calling.authorization = Some((challenge, proxy, 0));
        let cseq = calling.client.cseq + 1;
        let uri = calling.invite.request_uri.clone();
        let authorization = self.authorize("INVITE", &uri);
        let branch = self.branch();
        let Some(calling) = self.calling.as_deref_mut() else { return false };
        let bytes = request(
            &calling.invite,
            &self.identity,
            &self.call_id,
            &calling.from,
            cseq,
            &branch,
            hop,
            authorization,
        );
        // The refused transaction is done: over UDP a lost ACK of it is repeated no more, and the server's timer H
        // ends it there.
        calling.client = InviteClient::send(branch, cseq, hop, bytes, now, &mut self.out);
        true
    }

    /// CANCEL when it may be sent; until then the wish is remembered.
    pub(super) fn give_up(&mut self, reason: Option<Reason>, now: Instant) {
        let Some(calling) = self.calling.as_deref_mut() else { return };
        calling.cancel.get_or_insert(reason);
        if calling.client.is_proceeding() {
            self.send_cancel(now);
        }
    }

    fn send_cancel(&mut self, now: Instant) {
        let Some(calling) = self.calling.as_deref_mut() else { return };
        if calling.cancelled {
            return;
        }
        calling.cancelled = true;
        calling.client.give_up_at(now + T1_64);
        let (branch, hop, cseq) =
            (calling.client.branch.to_string(), calling.client.hop, calling.client.cseq);
        let mut builder = start(
            "CANCEL",
            &calling.invite,
            &self.identity,
            &self.call_id,
            &calling.from,
            cseq,
            &branch,
            hop,
        )
        .header(HeaderName::To, &calling.invite.to);
        if let Some(Some(reason)) = &calling.cancel {
            builder = builder.header(HeaderName::Reason, reason);
        }
        let bytes = builder.build();
        let client = Client::send(branch, Method::Cancel, hop, bytes, now, &mut self.out);
        self.clients.push(client);
    }

    /// Timer B, or a CANCEL that nothing came of.
    pub(super) fn no_final_response(&mut self) {
        let cancelled = self.calling.as_ref().is_some_and(|c| c.cancel.is_some());
        self.end(if cancelled { EndCause::CancelledByUs } else { EndCause::NoResponse }, None);
    }
}

/// The best challenge of a 401 or 407, and whether a proxy asks.
pub(super) fn read_challenge(response: &Response) -> Option<(Challenge, bool)> {
    let proxy = response.status().0 == 407;
    let name = if proxy { HeaderName::ProxyAuthenticate } else { HeaderName::WwwAuthenticate };
    let challenge = Challenge::best(response.headers(name).flat_map(digest::split_challenges))?;
    Some((challenge, proxy))
}

fn told(cause: EndCause, response: &Response) -> Ended {
    let phrase: String = response.reason().chars().filter(|c| !c.is_control()).take(MAX_PHRASE).collect();
    Ended {
        status: Some(response.status()),
        phrase: (!phrase.is_empty()).then_some(phrase),
        reason: response.header(HeaderName::Reason).and_then(Reason::parse),
        retry_after: response
            .header(HeaderName::RetryAfter)
            .and_then(|v| v.split([';', '(', ' ']).next()?.parse().ok()),
        warning: response.header(HeaderName::Warning).map(|w| w.chars().take(MAX_PHRASE).collect()),
        ..Ended::new(cause)
    }
}

#[allow(clippy::too_many_arguments)]
fn start(
    method: &str,
    invite: &Invite,
    identity: &Identity,
    call_id: &str,
    from: &str,
    cseq: u32,
    branch: &str,
    hop: Hop,
) -> RequestBuilder {
    let mut builder = RequestBuilder::new(method, &invite.request_uri)
        .header(
            HeaderName::Via,
            format_args!("SIP/2.0/{} {};branch={branch};rport", hop.transport.as_via(), identity.via),
        )
        .header(HeaderName::MaxForwards, 70);
    for route in &invite.route {
        builder = builder.header(HeaderName::Route, route);
    }
    builder
        .header(HeaderName::From, from)
        .header(HeaderName::CallId, call_id)
        .header(HeaderName::CSeq, format_args!("{cseq} {method}"))
}

#[allow(clippy::too_many_arguments)]
fn request(
    invite: &Invite,
    identity: &Identity,
    call_id: &str,
    from: &str,
    cseq: u32,
    branch: &str,
    hop: Hop,
    authorization: Option<(HeaderName, String)>,
) -> Bytes {
    let mut builder = start("INVITE", invite, identity, call_id, from, cseq, branch, hop)
        .header(HeaderName::To, &invite.to)
        .header(HeaderName::Contact, format_args!("<{}>", identity.contact))
        .header(HeaderName::Allow, stateless::ALLOW)
        .header(HeaderName::UserAgent, identity.user_agent);
    if let Some((name, value)) = authorization {
        builder = builder.header(name, value);
    }
    for (name, value) in &invite.headers {
        builder = builder.header_named(name, value);
    }
    builder.body("application/sdp", &invite.offer)
}

#[allow(clippy::too_many_arguments)]
fn ack_of_failure(
    invite: &Invite,
    identity: &Identity,
    call_id: &str,
    from: &str,
    response: &Response,
    cseq: u32,
    branch: &str,
    hop: Hop,
) -> Bytes {
    start("ACK", invite, identity, call_id, from, cseq, branch, hop)
        .header(HeaderName::To, response.header(HeaderName::To).unwrap_or(&invite.to))
        .build()
}
