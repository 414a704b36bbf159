//! INVITE sessions (RFC 3261 13): one call's signalling with all its transactions, as UAS or as UAC.
//!
//! Feed it every message of its Call-ID and its timeouts; drain what it wants to send and what happened. The session
//! description is opaque bytes here.

mod accept;
mod connect;
mod event;
mod modify;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::dialog::Dialog;
use crate::digest::{self, Challenge};
use crate::hop::{Hop, Transmit};
use crate::message::{HeaderName, Message, Method, Request, Response, ResponseBuilder, StatusCode};
use crate::stateless::{self, hex};
use crate::transaction::{
    Client, ClientOutcome, InviteClient, InviteServer, Outbox, Retransmission, Server, earliest,
};

pub use event::{EndCause, Ended, Event, Identity, Invite, Reason, Refusal};

/// Non-INVITE transactions of one call at once; beyond it a request gets 500 with Retry-After.
const MAX_TRANSACTIONS: usize = 16;
/// Events that wait to be read; a caller that drains after every input never has more than a few.
const MAX_EVENTS: usize = 64;
/// How often 180 is repeated (RFC 3261 13.3.1.1).
const RING_AGAIN: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No final response yet.
    Inviting,
    /// UAS: our 2xx awaits its ACK.
    Accepted,
    /// The dialog stands.
    Confirmed,
    /// The call has ended; transactions linger.
    Over,
}

/// What only the side that began the call has.
#[derive(Debug)]
struct Calling {
    client: InviteClient,
    invite: Invite,
    /// Our From value, with our tag.
    from: String,
    /// How many challenges of the INVITE were answered.
    challenges: u8,
    /// The challenge in force and how often its nonce was used.
    authorization: Option<(Challenge, bool, u32)>,
    /// The caller has given up: CANCEL as soon as it may be sent, BYE if a 2xx comes first.
    cancel: Option<Option<Reason>>,
    cancelled: bool,
    rang: bool,
    /// The ACK of the 2xx and where it went, repeated when the 2xx is.
    ack: Option<Transmit>,
}

/// What only the side that was called has.
#[derive(Debug, Default)]
struct Called {
    /// The 2xx until its ACK, its repetition and the end of patience.
    answer: Option<(Bytes, Hop, Retransmission, Instant)>,
    ring_again: Option<Instant>,
    ringing: Option<Bytes>,
    /// BYE when the ACK has come (RFC 3261 15).
    hang_up: Option<Option<Reason>>,
}

/// One call's signalling.
#[derive(Debug)]
pub struct Session {
    identity: Identity,
    call_id: Box<str>,
    local_tag: Box<str>,
    state: State,
    dialog: Option<Dialog>,
    calling: Option<Box<Calling>>,
    called: Called,
    /// The INVITE, or a re-INVITE, that the peer sent.
    invite_server: Option<InviteServer>,
    /// An offer of the peer in an UPDATE that awaits its answer.
    update: Option<(Box<Request>, Hop)>,
    servers: Vec<Server>,
    clients: Vec<Client>,
    /// Identifiers made so far.
    made: u32,
    out: Outbox,
    events: VecDeque<Event>,
}

impl Session {
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

    /// Whether the call itself has ended; the session may still absorb retransmissions.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Whether the call has ended and its last transaction with it: the session can be dropped.
    #[must_use]
    pub fn is_terminated(&self) -> bool {
        self.is_over()
            && self.out.is_empty()
            && self.servers.is_empty()
            && self.clients.is_empty()
            && self.invite_server.is_none()
            && self.calling.as_ref().is_none_or(|c| c.client.is_terminated())
    }

    /// The next bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Session::handle_timeout`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        earliest(
            [
                self.calling.as_ref().and_then(|c| c.client.timeout()),
                self.invite_server.as_ref().and_then(InviteServer::timeout),
                self.called.ring_again,
                self.called
                    .answer
                    .as_ref()
                    .map(|(_, _, retransmission, until)| retransmission.at.min(*until)),
            ]
            .into_iter()
            .chain(self.servers.iter().map(|s| Some(s.timeout())))
            .chain(self.clients.iter().map(Client::timeout)),
        )
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.servers.retain(|server| server.timeout() > now);
        if let Some(server) = &mut self.invite_server {
            server.handle_timeout(now, &mut self.out);
            if server.is_terminated() {
                self.invite_server = None;
            }
        }
        self.repeat_answer(now);
        self.repeat_ringing(now);
        let mut clients = std::mem::take(&mut self.clients);
        for client in &mut clients {
            // A BYE or CANCEL without answer changes nothing: the call has ended for us.
            let _ = client.handle_timeout(now, &mut self.out);
        }
        clients.retain(|client| !client.is_terminated());
        self.clients.append(&mut clients);
        let unanswered =
            self.calling.as_mut().is_some_and(|calling| calling.client.handle_timeout(now, &mut self.out));
        if unanswered {
            self.no_final_response();
        }
    }

    /// What was sent to `hop` cannot get there. Over a stream nothing of it is repeated, so what waits there fails.
    pub fn handle_transport_error(&mut self, hop: Hop, _now: Instant) {
        for client in self.clients.iter_mut().filter(|c| c.hop == hop) {
            client.end();
        }
        self.clients.retain(|client| !client.is_terminated());
        let failed = self.calling.as_mut().is_some_and(|calling| {
            let failed = calling.client.hop == hop && calling.client.is_pending();
            if failed {
                calling.client.end();
            }
            failed
        });
        if failed {
            self.end(EndCause::TransportError, None);
        }
    }

    /// Takes a message of this call.
    pub fn handle_message(&mut self, message: Message, from: Hop, now: Instant) {
        match message {
            Message::Request(request) => self.request(request, from, now),
            Message::Response(response) => self.response(&response, from, now),
        }
    }

    fn request(&mut self, request: Request, from: Hop, now: Instant) {
        let method = request.method();
        let branch = request.top_via().and_then(|v| v.branch()).unwrap_or_default().to_owned();
        if method == Method::Ack {
            return self.ack(&request, &branch, now);
        }
        if let Some(server) = self.servers.iter().find(|s| s.matches(&branch, method)) {
            return server.repeat(&mut self.out);
        }
        if method == Method::Invite && self.invite_server.as_ref().is_some_and(|s| s.matches(&branch)) {
            if let Some(server) = &self.invite_server {
                server.repeat(&mut self.out);
            }
            return;
        }
        if self.servers.len() >= MAX_TRANSACTIONS && method != Method::Bye {
            let busy = stateless::respond(
                &request,
                StatusCode(500),
                None,
                &[("Retry-After", "1")],
                from,
                &self.identity.seed,
            );
            self.out.push_back(busy);
            return;
        }
        if method == Method::Cancel {
            return self.cancel(&request, &branch, from, now);
        }
        if request.to_tag().is_none() {
            // The same INVITE by another path (RFC 3261 8.2.2.2), or a request that begins nothing here.
            let status = if method == Method::Invite { 482 } else { 481 };
            return self.reply(&request, StatusCode(status), &[], from, now);
        }
        let known = request.to_tag() == Some(&self.local_tag)
            && self
                .dialog
                .as_ref()
                .is_some_and(|d| request.from_tag().is_none_or(|tag| *tag == *d.remote_tag));
        if !known || self.is_over() {
            return self.reply(&request, StatusCode(481), &[], from, now);
        }
        let in_order = self.dialog.as_mut().is_some_and(|d| d.take_cseq(request.cseq().number));
        if !in_order {
            return self.reply(&request, StatusCode(500), &[], from, now);
        }
        match method {
            Method::Bye => self.bye(&request, from, now),
            Method::Invite => self.reinvite(request, from, now),
            Method::Update => self.update(request, from, now),
            Method::Info => {
                let content_type = request.header(HeaderName::ContentType).unwrap_or_default().to_owned();
                let body = request.body().clone();
                self.reply(&request, StatusCode(200), &[], from, now);
                self.push(Event::Info { content_type, body });
            }
            Method::Options => {
                let headers = [("Allow", stateless::ALLOW), ("Accept", stateless::ACCEPT)];
                self.reply(&request, StatusCode(200), &headers, from, now);
            }
            Method::Prack => self.reply(&request, StatusCode(481), &[], from, now),
            _ => self.reply(&request, StatusCode(405), &[("Allow", stateless::ALLOW)], from, now),
        }
    }

    fn bye(&mut self, request: &Request, from: Hop, now: Instant) {
        self.reply(request, StatusCode(200), &[], from, now);
        let reason = request.header(HeaderName::Reason).and_then(Reason::parse);
        let status = match self.state {
            State::Inviting => {
                // A BYE inside the early dialog (RFC 3261 15.1.2): the INVITE gets 487.
                self.refuse_pending(&Refusal::new(StatusCode(487)), now);
                StatusCode(487)
            }
            _ => StatusCode(200),
        };
        let cause = if status.0 == 487 { EndCause::CancelledByPeer } else { EndCause::ByeFromPeer };
        self.end_with(Ended { status: Some(status), reason, ..Ended::new(cause) });
    }

    /// Answers a non-INVITE request and remembers the answer for its repetitions.
    fn reply(
        &mut self,
        request: &Request,
        status: StatusCode,
        headers: &[(&str, &str)],
        from: Hop,
        now: Instant,
    ) {
        let mut builder = ResponseBuilder::new(request, status, None, Some(&self.local_tag), from.remote);
        for (name, value) in headers {
            builder = builder.header_named(name, value);
        }
        self.complete(request, builder.build(), from, now);
    }

    fn complete(&mut self, request: &Request, response: Bytes, from: Hop, now: Instant) {
        let branch = request.top_via().and_then(|v| v.branch()).unwrap_or_default();
        let hop = stateless::response_hop(request, from);
        if request.method() == Method::Invite {
            // Refused beside the INVITE of this session: its ACK finds nothing and is dropped.
            self.out.push_back(Transmit { hop, bytes: response });
        } else {
            let server = Server::complete(branch, request.method(), hop, response, now, &mut self.out);
            self.servers.push(server);
        }
    }

    fn response(&mut self, response: &Response, from: Hop, now: Instant) {
        let Some(branch) = response.top_via().and_then(|v| v.branch()) else { return };
        let cseq = response.cseq();
        if cseq.method == Method::Invite {
            return self.invite_response(response, branch, from, now);
        }
        let Some(index) = self.clients.iter().position(|c| *c.branch == *branch && c.method == cseq.method)
        else {
            return;
        };
        let Some(client) = self.clients.get_mut(index) else { return };
        let asked = client.hop;
        if client.response(response.status(), now) == ClientOutcome::Final
            && matches!(response.status().0, 401 | 407)
        {
            self.challenged(response, cseq.method, asked, from, now);
        }
    }

    /// Hangs up: CANCEL before an answer, BYE after it; a UAS that has not answered refuses with 480. `false` when the
    /// call is over already.
    pub fn hang_up(&mut self, reason: Option<Reason>, now: Instant) -> bool {
        match (self.state, self.calling.is_some()) {
            (State::Over, _) => return false,
            (State::Inviting, true) => self.give_up(reason, now),
            (State::Inviting, false) => return self.refuse(Refusal::new(StatusCode(480)), now),
            (State::Accepted, _) => self.called.hang_up = Some(reason),
            (State::Confirmed, _) => {
                self.send_bye(reason.as_ref(), now);
                self.end_with(Ended { status: Some(StatusCode(200)), ..Ended::new(EndCause::ByeFromUs) });
            }
        }
        true
    }

    fn send_bye(&mut self, reason: Option<&Reason>, now: Instant) {
        let Some(dialog) = self.dialog.take() else { return };
        self.send_bye_in(&dialog, reason, now);
        self.dialog = Some(dialog);
    }

    fn send_bye_in(&mut self, dialog: &Dialog, reason: Option<&Reason>, now: Instant) {
        let mut cseq = dialog.local_cseq + 1;
        if let Some(own) = &mut self.dialog {
            own.local_cseq = cseq;
        }
        // A BYE that is challenged is sent once more under the next number.
        cseq = cseq.max(1);
        let branch = self.branch();
        let (mut builder, hop, uri) = dialog.request("BYE", cseq, &self.identity.via, &branch);
        if let Some((name, value)) = self.authorize("BYE", &uri) {
            builder = builder.header(name, value);
        }
        if let Some(reason) = reason {
            builder = builder.header(HeaderName::Reason, reason);
        }
        let bytes = builder.header(HeaderName::UserAgent, self.identity.user_agent).build();
        let client = Client::send(branch, Method::Bye, hop, bytes, now, &mut self.out);
        self.clients.push(client);
    }

    fn push(&mut self, event: Event) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        }
    }

    fn end(&mut self, cause: EndCause, status: Option<StatusCode>) {
        self.end_with(Ended { status, ..Ended::new(cause) });
    }

    /// Ends the call, once, and gives back what only a live call needs.
    fn end_with(&mut self, mut ended: Ended) {
        if self.state == State::Over {
            return;
        }
        self.state = State::Over;
        ended.rang = self.calling.as_ref().is_some_and(|c| c.rang);
        self.called.answer = None;
        self.called.ring_again = None;
        self.called.ringing = None;
        self.update = None;
        // Never refused for room: the caller must learn of the end.
        self.events.push_back(Event::Ended(ended));
    }

    /// Identifiers derived from the seed; nobody without it can foresee them.
    fn branch(&mut self) -> String {
        self.made += 1;
        format!("z9hG4bK{}{:x}", hex(&self.identity.seed), self.made)
    }

    /// The Authorization header of a request, when the peer of a call of ours has challenged us.
    fn authorize(&mut self, method: &str, uri: &str) -> Option<(HeaderName, String)> {
        let seed = hex(&self.identity.seed);
        self.made += 1;
        let cnonce = format!("{seed}{:x}", self.made);
        let calling = self.calling.as_deref_mut()?;
        let credentials = calling.invite.credentials.as_ref()?;
        let (challenge, proxy, count) = calling.authorization.as_mut()?;
        *count += 1;
        let value = digest::answer(challenge, credentials, method, uri, *count, &cnonce);
        Some((if *proxy { HeaderName::ProxyAuthorization } else { HeaderName::Authorization }, value))
    }

    /// A challenge of a request inside the dialog: answered once, only in a call that we began, and only to the hop
    /// the request went to.
    fn challenged(&mut self, response: &Response, method: Method, asked: Hop, from: Hop, now: Instant) {
        if method != Method::Bye || from.remote.ip() != asked.remote.ip() {
            return;
        }
        let Some(calling) = self.calling.as_deref_mut() else { return };
        if calling.challenges >= connect::MAX_CHALLENGES {
            return;
        }
        let Some((challenge, proxy)) = connect::read_challenge(response) else { return };
        calling.challenges += 1;
        calling.authorization = Some((challenge, proxy, 0));
        self.send_bye(None, now);
    }
}

fn derived(identity: &Identity, what: u8) -> String {
    // The seed is split by use, so that a tag seen on the wire tells nothing of a Call-ID or branch to come.
    use sha2::{Digest, Sha256};
    let hash = Sha256::new().chain_update(identity.seed).chain_update([what]).finalize();
    hex(&hash[..8])
}
